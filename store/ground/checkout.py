"""Checkout: a verified mission as plain files, for programs that know nothing of a store; and the check of one.

    DIR/engines/…  descriptors/…  files/…     every entry under its name
    DIR/.flightbag/                           a store of its own with the ref, manifest, table and trust chain

A checkout is made beside DIR and renamed when all of it is there and durable. Every file is hashed where it lies, after
it was written. `check_checkout` starts from a pinned trust root and finds every changed, missing and extra file.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from store.disk.durable import Disk
from store.disk.locks import Locked
from store.disk.media import Media, object_path, type_of_file
from store.disk.staging import list_names, remove_tree
from store.errors import Conflict, FlightbagError, Invalid, NotFound, Unavailable
from store.findings import Finding
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Opened, VerifiedMission
from store.takeoff.verify import open_mission
from store.trust.root import SignedRoot

RECORD = ".flightbag"
_PARTIAL = ".partial"
_MODE = 0o444


@dataclass(frozen=True, slots=True)
class Checkout:
    """What was written, and how often each way: `reflink`, `hard link` or `copy`."""

    files: int
    bytes: int
    how: Mapping[str, int]


def checkout(
    mission: VerifiedMission, evidence: StoreEvidence, target: str, *, hard_link: bool = False, disk: Disk | None = None
) -> Checkout:
    """Writes the files of a mission that `evidence` was verified from. Durable when it returns.

    Raises Conflict where `target` is there and not empty, Corrupt or Unavailable where an object is no longer what was
    verified, Locked where somebody else is at it. A write through a hard link would change the store's object too.
    """
    disk = disk or Disk()
    target = os.path.abspath(target)
    if Path(os.path.realpath(target)).is_relative_to(os.path.realpath(evidence.media.path)):
        raise Invalid(f"{target} lies in the store", remedy="give another folder", path=target)
    if os.path.lexists(target) and not (os.path.isdir(target) and not os.listdir(target)):
        raise Conflict(f"{target} is there already", remedy="give a folder that does not exist yet", path=target)
    partial = target + _PARTIAL
    disk.make_directory(partial)
    try:
        hold = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"{partial} cannot be opened: {error.strerror}", kind="unreadable", path=partial) from error
    try:
        try:
            fcntl.flock(hold, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Locked(f"{partial} is being written by another checkout", kind="locked", path=partial) from error
        _take(disk, partial)
        done = _write(mission, evidence, partial, disk, hard_link=hard_link)
        disk.rename(partial, target)
        disk.sync_directory(os.path.dirname(target))
    finally:
        os.close(hold)
    return done


def _take(disk: Disk, partial: str) -> None:
    """Empties what a checkout that was interrupted left. Raises Conflict for a folder that is something else."""
    there = list_names(partial)
    if there and RECORD not in there:
        raise Conflict(f"{partial} is in the way", remedy="give another folder, or move it away", path=partial)
    # The record, which marks it as ours, comes first and goes last.
    for name in sorted(there, key=lambda name: name == RECORD):
        remove_tree(disk, os.path.join(partial, name))
    disk.make_directory(os.path.join(partial, RECORD))


def _write(mission: VerifiedMission, evidence: StoreEvidence, top: str, disk: Disk, *, hard_link: bool) -> Checkout:
    how: dict[str, int] = {}
    folders: dict[str, None] = {"": None, RECORD: None}
    written: list[str] = []

    def place(name: str) -> str:
        folder = os.path.dirname(name)
        made = ""
        for part in folder.split("/") if folder else ():
            made = f"{made}/{part}" if made else part
            if made not in folders:
                disk.make_directory(os.path.join(top, made))
                folders[made] = None
        return os.path.join(top, name)

    total = 0
    for entry in mission.table.entries:
        path = place(entry.name)
        way = _bring(evidence.media, entry.id, entry.size, path, disk, hard_link=hard_link)
        how[way] = how.get(way, 0) + 1
        total += entry.size
        written.append(path)
    for name, data in _record(mission, evidence):
        path = place(f"{RECORD}/{name}")
        fd = disk.create(path, _MODE)
        try:
            disk.write(fd, data, path)
        finally:
            os.close(fd)
        written.append(path)
    disk.sync_files(written)
    with Media(top) as media:
        for entry in mission.table.entries:
            media.digest(entry.id, entry.size, name=entry.name)
    for folder in reversed(folders):
        disk.sync_directory(os.path.join(top, folder))
    return Checkout(len(mission.table.entries), total, how)


def _bring(media: Media, id_: ObjectId, size: int, path: str, disk: Disk, *, hard_link: bool) -> str:
    """Makes one file, in the cheapest way that was asked for and that the file system has."""
    name = object_path(id_)
    if hard_link:
        media.stamp(name)  # a regular file, reached without following a link
        disk.link(media.absolute(name), path)
        return "hard link"
    fd = disk.create(path, 0o600)
    try:
        with media.open(name) as source:
            cloned = disk.clone(source, fd, path)
        if not cloned:
            for chunk in media.chunks(name, size):
                disk.write(fd, chunk, path)
        disk.seal(fd, path)
    finally:
        os.close(fd)
    return "reflink" if cloned else "copy"


def _record(mission: VerifiedMission, evidence: StoreEvidence) -> Iterator[tuple[str, bytes]]:
    """The files of the record, which is laid out as a store."""
    manifest = mission.manifest
    yield f"missions/{manifest.mission.id}", f"{mission.manifest_id}\n".encode()
    yield object_path(mission.manifest_id), evidence.object(mission.manifest_id, ENVELOPE_LIMIT)
    yield object_path(manifest.table), bytes(evidence.bytes_of(manifest.table, manifest.table_size))
    for version in evidence.root_versions():
        yield f"trust/{version}.root.cbor", evidence.root_file(version)


def check_checkout(folder: str, pinned: SignedRoot) -> tuple[Finding, ...]:
    """Everything that is wrong with a checkout: signatures, and each changed, missing and extra file. Writes nothing.

    Raises NotFound where there is no checkout.
    """
    with Media(folder) as media:
        if media.file_type(RECORD) != "directory":
            raise NotFound(f"{folder} is no checkout", kind="missing", path=folder)
        with Media(media.absolute(RECORD)) as inner:
            evidence = StoreEvidence(inner)
            missions = evidence.missions()
            if len(missions) != 1:
                return (Finding("bad-checkout", f"the record is of {len(missions)} missions", path=inner.path),)
            opened = open_mission(evidence, missions[0], pinned)
            if not isinstance(opened, Opened):
                return opened
            if opened.manifest.mission.id != missions[0]:
                text = f"the record's ref is of {missions[0]}, its manifest of {opened.manifest.mission.id}"
                return (Finding("wrong-mission", text, path=inner.path),)
            wrong = _wrong_roots(evidence, pinned)
            if wrong is not None:
                return (wrong,)
            expected = {entry.name: (entry.id, entry.size) for entry in opened.table.entries}
            known = {
                f"{RECORD}/missions/{missions[0]}",
                f"{RECORD}/{object_path(opened.manifest_id)}",
                f"{RECORD}/{object_path(opened.manifest.table)}",
                *(f"{RECORD}/trust/{version}.root.cbor" for version in evidence.root_versions()),
            }
            return tuple(_compare(media, expected, known))


def _wrong_roots(evidence: StoreEvidence, pinned: SignedRoot) -> Finding | None:
    """What is wrong with the record's roots up to the pinned one; those after it were verified with the mission."""
    newest = max(evidence.root_versions(), default=1)
    # The pinned root may be newer than the record: then its digest and the one before are all that is known.
    digest: bytes | None = pinned.root.digest
    for version in range(pinned.root.version, 0, -1):
        if version > newest:
            digest = pinned.root.previous if version == pinned.root.version else None
            continue
        path = evidence.media.absolute(f"trust/{version}.root.cbor")
        try:
            root = SignedRoot.parse(evidence.root_file(version)).root
        except FlightbagError as error:
            return replace(Finding.of(error, remedy=_AGAIN), path=path)
        if digest is not None and root.digest != digest:
            text = f"root {version} of the record is not of the pinned chain"
            return Finding("bad-trust-chain", text, path=path, remedy=_AGAIN)
        digest = root.previous
    return None


def _compare(media: Media, expected: Mapping[str, tuple[ObjectId, int]], known: set[str]) -> Iterator[Finding]:
    folders = {folder for name in (*expected, *known) for folder in _above(name)}
    seen: set[str] = set()
    for name, status in _walk(media, "", folders):
        path = media.absolute(name)
        if isinstance(status, FlightbagError):
            yield Finding.of(status)
            seen.add(name)
            continue
        kind = type_of_file(status)
        wanted = "directory" if name in folders else "file" if name in expected or name in known else ""
        seen.add(name)
        if not wanted:
            yield Finding("extra", f"{name} is not of this mission", path=path, actual=kind, remedy="remove it")
        elif kind != wanted:
            text = f"{name} is a {kind}"
            yield Finding("wrong-type", text, entry=name, path=path, expected=wanted, actual=kind, remedy=_AGAIN)
        elif name in expected:
            id_, size = expected[name]
            try:
                media.digest(id_, size, name=name)
            except FlightbagError as error:
                yield replace(Finding.of(error, entry=name, remedy=_AGAIN), path=path)
    for name in sorted(expected.keys() - seen):
        if not any(above in seen and above not in folders for above in _above(name)):
            yield Finding("missing", f"{name} is not there", entry=name, path=media.absolute(name), remedy=_AGAIN)


_AGAIN = "check the mission out again"


def _above(name: str) -> list[str]:
    """The folders that a name lies in."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _walk(media: Media, folder: str, folders: set[str]) -> Iterator[tuple[str, os.stat_result | FlightbagError]]:
    """Everything in a folder and in those below it that belong there; no link is followed."""
    try:
        entries = list(media.statuses(folder))
    except FlightbagError as error:
        yield folder, error
        return
    for last, status in entries:
        name = f"{folder}/{last}" if folder else last
        yield name, status
        if not isinstance(status, FlightbagError) and stat.S_ISDIR(status.st_mode) and name in folders:
            yield from _walk(media, name, folders)
