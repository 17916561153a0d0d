"""Checkout: writes a verified mission as plain files, for programs that cannot read a store; and checks such a folder.

    DIR/engines/…  descriptors/…  files/…     every entry under its name
    DIR/.flightbag/                           a store of its own with the ref, manifest, table and trust chain

A checkout is written beside DIR and renamed once all of it is durable. Every file is hashed in its place, after it was
written. `check_checkout` starts from a pinned trust root and finds every changed, missing and extra file.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from store.disk.durable import Disk
from store.disk.layout import RECORD, TOML
from store.disk.locks import Locked
from store.disk.media import Media, object_path
from store.disk.medium import check_file_sizes
from store.disk.opening import type_name
from store.disk.quarantine import present
from store.disk.staging import list_names, remove_tree
from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NotFound, Unavailable
from store.findings import Finding
from store.format.entries import MAX_ENTRIES
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Opened, VerifiedMission
from store.takeoff.verify import open_mission
from store.trust.root import SignedRoot
from store.values import dataclass, replace

_PARTIAL = ".partial"
_MODE = 0o444


@dataclass(frozen=True, slots=True)
class Checkout:
    """The number of files and bytes written. `how` counts the files by way: `reflink`, `hard link` or `copy`."""

    files: int
    bytes: int
    how: Mapping[str, int]


def checkout(
    mission: VerifiedMission,
    evidence: StoreEvidence,
    target: str,
    *,
    hard_link: bool = False,
    disk: Disk | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Checkout:
    """Write the files of a mission to the folder `target`; they are durable on return.

    `evidence` is what the mission was verified from. With `hard_link` the files are other names of the store's objects:
    a write through one would change the object. `progress` gets the kind of work, bytes done now and bytes in all.
    Raise Conflict if `target` exists and is not empty, Unavailable (kind file-too-large) if its file system takes no
    file as large as an entry, Corrupt or Unavailable if the medium no longer returns the verified bytes, Locked if
    another checkout writes there.
    """
    disk = disk or Disk()
    target = os.path.abspath(target)
    if Path(os.path.realpath(target)).is_relative_to(os.path.realpath(evidence.media.path)):
        raise Invalid(f"{target} lies in the store", remedy="give a folder outside of the store", path=target)
    if os.path.lexists(target) and not (os.path.isdir(target) and not list_names(target)):
        raise Conflict(f"{target} exists already", remedy="give a folder that does not exist yet", path=target)
    check_file_sizes(os.path.dirname(target), [(entry.id, entry.size) for entry in mission.table.entries])
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
            text, remedy = f"another checkout is writing {partial}", "wait for it to end, and run this again"
            raise Locked(text, remedy=remedy, kind="locked", path=partial) from error
        _empty_partial(disk, partial)
        written = _write(mission, evidence, partial, disk, progress or (lambda *_: None), hard_link=hard_link)
        disk.rename(partial, target)
        disk.sync_directory(os.path.dirname(target))
    finally:
        os.close(hold)
    return written


def _empty_partial(disk: Disk, partial: str) -> None:
    """Remove the leftovers of an interrupted checkout. Raise Conflict for a folder that is not one."""
    names = list_names(partial)
    if names and RECORD not in names:
        text = f"{partial} exists and is not an interrupted checkout"
        raise Conflict(text, remedy="give another target, or move that folder away", path=partial)
    # The record marks the folder as a checkout, so it is written first and removed last.
    for name in sorted(names, key=lambda name: name == RECORD):
        remove_tree(disk, os.path.join(partial, name))
    disk.make_directory(os.path.join(partial, RECORD))


def _write(
    mission: VerifiedMission,
    evidence: StoreEvidence,
    top: str,
    disk: Disk,
    progress: Callable[[str, int, int], None],
    *,
    hard_link: bool,
) -> Checkout:
    how: dict[str, int] = {}
    folders: dict[str, None] = {"": None, RECORD: None}
    written: list[str] = []

    def place(name: str) -> str:
        folder = os.path.dirname(name)
        above = ""
        for part in folder.split("/") if folder else ():
            above = f"{above}/{part}" if above else part
            if above not in folders:
                disk.make_directory(os.path.join(top, above))
                folders[above] = None
        return os.path.join(top, name)

    total = sum(entry.size for entry in mission.table.entries)

    def advance(what: str) -> Callable[[int], None]:
        return lambda count: progress(what, count, total)

    for entry in mission.table.entries:
        path = place(entry.name)
        way = _bring(evidence.media, entry.id, entry.size, path, disk, advance("writing"), hard_link=hard_link)
        how[way] = how.get(way, 0) + 1
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
            media.digest(entry.id, entry.size, name=entry.name, progress=advance("reading again"))
    for folder in reversed(folders):
        disk.sync_directory(os.path.join(top, folder))
    return Checkout(len(mission.table.entries), total, how)


def _bring(
    media: Media,
    id_: ObjectId,
    size: int,
    path: str,
    disk: Disk,
    progress: Callable[[int], None],
    *,
    hard_link: bool,
) -> str:
    """Write one file, in the cheapest way that is allowed and that the file system supports. Return the way."""
    name = object_path(id_)
    if hard_link:
        media.stamp(name)  # a regular file, reached without following a link
        disk.link(media.absolute(name), path)
        progress(size)
        return "hard link"
    fd = disk.create(path, 0o600)
    try:
        with media.open(name) as source:
            cloned = disk.clone(source, fd, path)
        if cloned:
            progress(size)
        else:
            for chunk in media.chunks(name, size):
                disk.write(fd, chunk, path)
                progress(len(chunk))
        disk.seal(fd, path)
    finally:
        os.close(fd)
    return "reflink" if cloned else "copy"


def _record(mission: VerifiedMission, evidence: StoreEvidence) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the record, which has the layout of a store."""
    manifest = mission.manifest
    yield f"missions/{manifest.mission.id}", f"{mission.manifest_id}\n".encode()
    yield object_path(mission.manifest_id), evidence.object(mission.manifest_id, ENVELOPE_LIMIT)
    yield object_path(manifest.table), bytes(evidence.bytes_of(manifest.table, manifest.table_size))
    for version in evidence.root_versions():
        yield f"trust/{version}.root.cbor", evidence.root_file(version)


def check_checkout(folder: str, pinned: SignedRoot) -> tuple[Finding, ...]:
    """Return the findings against a checkout: signatures, and each changed, missing and extra file. Write nothing.

    Raise Unavailable (kind `no-checkout`) if the folder is not a checkout.
    """
    with _opened(folder) as media, Media(media.absolute(RECORD)) as inner:
        evidence = StoreEvidence(inner)
        missions = evidence.missions()
        if len(missions) != 1:
            text = f"the record has {len(missions)} missions, expected 1"
            return (Finding("bad-checkout", text, path=inner.path, remedy=_AGAIN),)
        opened = open_mission(evidence, missions[0], pinned)
        if not isinstance(opened, Opened):
            return opened
        if opened.manifest.mission.id != missions[0]:
            text = f"the record's ref is of mission {missions[0]}, its manifest of {opened.manifest.mission.id}"
            return (Finding("wrong-mission", text, path=inner.path, remedy=_AGAIN),)
        bad_root = _check_roots(evidence, pinned)
        if bad_root is not None:
            return (bad_root,)
        expected = {entry.name: (entry.id, entry.size) for entry in opened.table.entries}
        record = {
            f"{RECORD}/missions/{missions[0]}",
            f"{RECORD}/{object_path(opened.manifest_id)}",
            f"{RECORD}/{object_path(opened.manifest.table)}",
            *(f"{RECORD}/trust/{version}.root.cbor" for version in evidence.root_versions()),
        }
        return tuple(_compare(media, expected, record))


def _opened(folder: str) -> Media:
    """Open the folder of a checkout."""
    remedy = "give a folder that `flightbag checkout` has written"
    try:
        media = Media(folder)
        if present(media, RECORD) and media.file_type(RECORD) == "directory":
            return media
        if present(media, TOML):
            remedy = "it is a store: `flightbag verify` checks it"
        text = f"{folder} is not a checkout: it lacks {RECORD}"
    except (NotFound, Corrupt) as error:
        text = error.message
    raise Unavailable(text, remedy=remedy, kind="no-checkout", path=folder)


def _check_roots(evidence: StoreEvidence, pinned: SignedRoot) -> Finding | None:
    """Return a finding against the record's roots up to the pinned one. Later roots were verified with the mission."""
    newest = max(evidence.root_versions(), default=1)
    # If the pinned root is newer than the record, only its own digest and the digest before it are known.
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
            text = f"trust root {version} of the record is not in the chain of the pinned root"
            return Finding("bad-trust-chain", text, path=path, remedy=_AGAIN)
        digest = root.previous
    return None


def _compare(media: Media, expected: Mapping[str, tuple[ObjectId, int]], record: set[str]) -> Iterator[Finding]:
    folders = {folder for name in (*expected, *record) for folder in _above(name)}
    seen: set[str] = set()
    for name, status in _walk(media, "", folders):
        path = media.absolute(name)
        if isinstance(status, FlightbagError):
            yield Finding.of(status)
            seen.add(name)
            continue
        kind = type_name(status.st_mode)
        wanted = "directory" if name in folders else "file" if name in expected or name in record else ""
        seen.add(name)
        if not wanted:
            yield Finding(
                "extra", f"{name} does not belong to this mission", path=path, actual=kind, remedy="remove it"
            )
        elif kind != wanted:
            text = f"{name} is a {kind}, expected a {wanted}"
            yield Finding("wrong-type", text, entry=name, path=path, expected=wanted, actual=kind, remedy=_AGAIN)
        elif name in expected:
            id_, size = expected[name]
            try:
                media.digest(id_, size, name=name)
            except FlightbagError as error:
                yield replace(Finding.of(error, entry=name, remedy=_AGAIN), path=path)
    for name in sorted(expected.keys() - seen):
        if not any(above in seen and above not in folders for above in _above(name)):
            yield Finding("missing", f"{name} is missing", entry=name, path=media.absolute(name), remedy=_AGAIN)


_AGAIN = "check the mission out again"


def _above(name: str) -> list[str]:
    """Return the folders that a name lies in, the outermost first."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _walk(media: Media, folder: str, folders: set[str]) -> Iterator[tuple[str, os.stat_result | FlightbagError]]:
    """Yield everything in a folder, and in those folders below it that belong to a checkout. No link is followed."""
    try:
        for last, status in media.statuses(folder, MAX_ENTRIES):
            name = f"{folder}/{last}" if folder else last
            yield name, status
            if not isinstance(status, FlightbagError) and stat.S_ISDIR(status.st_mode) and name in folders:
                yield from _walk(media, name, folders)
    except FlightbagError as error:
        yield folder, error
