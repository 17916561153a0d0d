"""A store on the ground: opened, written to and published in, behind its locks.

`Repository` reads and writes nothing. `Repository.writing()` gives a `Writer`, the only way to change a store.
"""

from __future__ import annotations

import os
import re
import secrets
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from store.disk import log
from store.disk.durable import Disk, replace_file
from store.disk.index import Index, Record, Row, open_index
from store.disk.locks import SharedLock, exclusive
from store.disk.media import Media, Stamp, object_path
from store.disk.objects import Batch, examine, inserting
from store.disk.staging import TMP, Staging, sweep
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Refused, Unavailable
from store.format.entries import EntryTable
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import MISSION_ID
from store.takeoff.evidence import StoreEvidence
from store.takeoff.verify import ENVELOPE_LIMIT, Binding, Opened, check_binding, open_manifest, ref_id
from store.trust.draft import RootDraft, completed
from store.trust.root import SignedRoot

FORMAT = 1
TOML = "flightbag.toml"
_TOML_LIMIT = 4096
_TOML_REMEDY = "it has three lines, format, id and created: copy it from a copy of this store, or sync to a new one"
# How far apart the clocks of two ground stations may be, in seconds.
CLOCKS_DIFFER = 86400
# How many missions an error names.
_NAMED = 8
_STORE_ID = re.compile(r"[0-9a-f]{32}")
# How many failures an error's message spells out.
_NAMED = 8


class Repository:
    """An open store. Holds directory descriptors until it is closed."""

    def __init__(self, media: Media, disk: Disk) -> None:
        self.media = media
        self.disk = disk
        self.evidence = StoreEvidence(media)

    @classmethod
    def open(cls, path: str | os.PathLike[str], disk: Disk | None = None) -> Self:
        """The store at `path`. Raises NotFound where there is none, Invalid for another format."""
        try:
            media = Media(path)
        except NotFound as error:
            raise _no_store(path) from error
        try:
            check_format(media)
        except BaseException:
            media.close()
            raise
        return cls(media, disk or Disk())

    @classmethod
    def init(cls, path: str | os.PathLike[str], disk: Disk | None = None) -> Self:
        """Makes a store at `path`, which must not exist or be empty. An interrupted `init` may be run again."""
        disk = disk or Disk()
        top = os.path.realpath(path)
        disk.make_directory(top)
        check_free(top)
        # missions before objects: a copy that walks in this order never has a ref without having begun the objects
        # later, so what a torn copy lacks are objects, which verify finds.
        for name in ("missions", "objects", "trust"):
            disk.make_directory(os.path.join(top, name))
        # A store is what has a flightbag.toml: by then the rest of it is there, and stays.
        disk.sync_directory(top)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = f'format = {FORMAT}\nid = "{secrets.token_hex(16)}"\ncreated = {created}\n'
        with Media(top) as media, Staging(media, disk) as staging:
            replace_file(disk, os.path.join(top, TOML), text.encode(), staging.folder())
        disk.sync_directory(os.path.dirname(top))
        return cls.open(top, disk)

    def close(self) -> None:
        self.media.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def first_root(self) -> SignedRoot:
        """Root 1 of the store: where its own chain starts. Raises NotFound where there is none."""
        try:
            data = self.evidence.root_file(1)
        except NotFound as error:
            raise NotFound(
                f"{self.media.path} has no trust root",
                remedy="make one with `flightbag trust new`",
                kind="bad-trust-chain",
            ) from error
        signed = SignedRoot.parse(data)
        if signed.root.version != 1:
            raise Corrupt("trust/1.root.cbor is of another version", kind="bad-trust-chain")
        return signed

    def root(self) -> SignedRoot:
        """The newest root of the store's own chain. It vouches for nothing to a verifier, who has a pinned one."""
        return self.evidence.newest(self.first_root())

    def missions(self) -> list[str]:
        """The ids of the published missions, ascending."""
        return self.evidence.missions()

    def current(self, mission: str) -> Opened:
        """The published manifest and table of a mission, signed under the store's own chain.

        Raises NotFound for no such mission, Corrupt for a ref that leads elsewhere, and as `opened` does.
        """
        try:
            manifest_id = ref_id(self.evidence.ref(mission))
        except NotFound as error:
            there = ", ".join(self.missions()[:_NAMED]) or "none"
            remedy = f"the missions there are: {there}"
            text = f"{self.media.path} has no mission {mission}"
            raise NotFound(text, remedy=remedy, kind="missing", mission=mission) from error
        opened = self.opened(manifest_id, f"the manifest of {mission}")
        other = opened.manifest.mission.id
        if other != mission:  # a ref is unsigned and only a pointer
            raise Corrupt(
                f"the ref of {mission} leads to the manifest of {other}", kind="bad-ref", expected=mission, actual=other
            )
        return opened

    def opened(self, manifest: ObjectId, what: str, evidence: StoreEvidence | None = None) -> Opened:
        """The manifest of this id and its table, if they hold under the store's own chain.

        Else raises Corrupt, or Unavailable where nothing is known to be wrong, with the findings.
        """
        opened = open_manifest(evidence or self.evidence, manifest, self.root())
        if not isinstance(opened, Opened):
            unread = all(finding.unreadable for finding in opened)
            raise (Unavailable if unread else Corrupt)(
                f"{what} does not verify: " + "; ".join(finding.message for finding in opened),
                remedy=opened[0].remedy or "run store-fsck: it says what is wrong, and what mends it",
                kind="bad-manifest",
                object=manifest,
                findings=opened,
            )
        return opened

    @contextmanager
    def locked(self, *, alone: bool = False, wait: bool = False) -> Iterator[None]:
        """The store's lock: shared between writers, or held alone, so that nobody writes.

        Raises Locked where that cannot be had now, unless `wait`.
        """
        lock = SharedLock(self.media.path, self.disk, "store", "the store")
        try:
            if alone:
                lock.hold_alone(wait=wait)
            else:
                lock.share(wait=wait)
            yield
        finally:
            lock.close()

    @contextmanager
    def writing(self, *, alone: bool = False, wait: bool = False) -> Iterator[Writer]:
        """The store, open for writing, with its index; what dead transactions left is swept away first.

        `alone`, no transaction is under way that could rely on an object. Raises Locked as `locked` does.
        """
        with self.locked(alone=alone, wait=wait):
            sweep(self.media, self.disk)
            with open_index(self.media, self.disk, self._rebuild) as index:
                writer = Writer(self, index)
                writer.absorb()
                try:
                    yield writer
                finally:
                    # The ledger is a view: what is not entered is read again, and no other error is hidden by this.
                    with suppress(FlightbagError):
                        writer.settle()

    def _rebuild(self, index: Index) -> None:
        """Enters every object file, as never hashed; build keys come by `absorb`."""
        for first in range(256):
            index.commit(objects=self._files(first))

    def _files(self, first: int) -> dict[ObjectId, Row]:
        """Rows for the object files of one folder, as never hashed."""
        now = int(time.time())
        files = self.media.objects(first)
        return {id_: Row.of(Stamp.of(status), inserted=now, verified=0) for id_, status in files}

    def mend_index(self) -> tuple[int, int]:
        """Makes the index say which object files there are; the numbers of rows that went and came.

        The caller holds the store alone.
        """
        went = came = 0
        with open_index(self.media, self.disk, self._rebuild) as index:
            for first in range(256):
                rows, files = index.rows(first), self._files(first)
                gone = rows.keys() - files.keys()
                new = {id_: files[id_] for id_ in files.keys() - rows.keys()}
                if gone or new:
                    index.commit(objects=new, gone=gone)
                went, came = went + len(gone), came + len(new)
        return went, came

    def rotate(self, draft: RootDraft, *, now: int) -> SignedRoot:
        """Puts the draft of a root into effect: root 1, or the one that follows the newest. Durable when it returns.

        Raises Untrusted where it lacks signatures, Conflict where it follows another root than the newest, Refused for
        one from the future: aircraft take its time of issue for passed.
        """
        if draft.root.issued_at > now + CLOCKS_DIFFER:
            raise Refused(
                f"the draft says that it was begun at {draft.root.issued_at}, it is {now}",
                remedy="set the clock of the machine where it was begun, and begin a new draft",
                kind="from-the-future",
            )
        with self.locked(), exclusive(self.media.path, self.disk, "trust", "the trust chain", timeout=60):
            self.media.directory("trust")  # before the log speaks of it
            signed = completed(draft, self.root() if self.evidence.root_versions() else None)
            facts = {"version": signed.root.version, "digest": signed.root.digest.hex()}
            self.append_log(log.Event(now, "rotated", facts))
            self.replace(f"trust/{signed.root.version}.root.cbor", signed.envelope.render())
        return signed

    def append_log(self, event: log.Event) -> None:
        """Adds a line to the log, alone (step 6)."""
        with exclusive(self.media.path, self.disk, "log", "the log", timeout=60):
            log.append(self.media, self.disk, event)

    def replace(self, name: str, data: bytes) -> None:
        """Replaces a small file of the store by name, durably. Refuses a folder that is a link."""
        self.media.directory(os.path.dirname(name))
        with Staging(self.media, self.disk) as staging:
            replace_file(self.disk, self.media.absolute(name), data, staging.folder())

    def move_ref(self, mission: str, manifest: ObjectId, event: str, sequence: int) -> None:
        """Steps 6 and 7: the log line, then the ref. Everything the manifest names is durable by now."""
        if not MISSION_ID.fullmatch(mission):
            raise Invalid(f"{mission[:80]!r} is no mission id")
        self.media.directory("missions")  # before the log speaks of it
        facts = {"mission": mission, "manifest": str(manifest), "sequence": sequence}
        self.append_log(log.Event(int(time.time()), event, facts))
        self.replace(f"missions/{mission}", f"{manifest}\n".encode())


class Writer:
    """A repository with its index. Made by `Repository.writing`."""

    def __init__(self, repository: Repository, index: Index) -> None:
        self.repository = repository
        self.index = index
        # Read in full by `check` and not in the ledger yet: one commit for many.
        self._checked: dict[ObjectId, Row] = {}

    @contextmanager
    def inserting(self) -> Iterator[Batch]:
        """A batch of objects; see `store.disk.objects`."""
        with inserting(self.repository.media, self.repository.disk, self.index) as batch:
            yield batch

    def check(self, id_: ObjectId, size: int) -> None:
        """Raises NotFound or Corrupt unless the object is there, whole (by the ledger, or by reading it)."""
        known = self._checked.get(id_)
        if known and known.size == size and known.fresh(self.repository.media.stamp(object_path(id_))):
            return
        row = examine(self.repository.media, self.index, id_, size)
        if row is not None:
            self._checked[id_] = row

    def settle(self) -> None:
        """Enters in the ledger what `check` read."""
        if self._checked:
            self.index.commit(objects=self._checked)
            self._checked = {}

    def record(self, records: Mapping[BuildKey, Record], *, replace: bool = False) -> None:
        """Remembers what was built for some keys, once those objects are committed.

        The first writer wins, unless `replace` says that the objects of records that are there are gone or damaged.
        """
        if records:
            self.index.commit(records=records, replace=replace)

    def absorb(self) -> None:
        """Learns the build keys of published manifests that verify. An unsigned or planted one teaches nothing."""
        repository = self.repository
        for mission in repository.missions():
            try:
                id_ = ref_id(repository.evidence.ref(mission))
                if self.index.absorbed(id_):
                    continue
                opened = repository.current(mission)
            except FlightbagError:
                continue  # verify and fsck say what is wrong with it; here it only must not be believed
            self._absorb(opened)

    def _absorb(self, opened: Opened) -> None:
        provenance = {"from": "manifest", "manifest": str(opened.manifest_id), "at": opened.manifest.issue.issued_at}
        records = {key: Record(ids, provenance) for key, ids in records_of(opened.table).items()}
        self.index.commit(records=records, absorbed=[opened.manifest_id])

    def publish(self, mission: str, manifest: bytes, table: bytes, *, event: str = "published") -> ObjectId:
        """Makes a signed manifest current: its objects, the log line (of kind `event`), the ref.

        Refuses, with what was current still current, unless it verifies under the store's own chain, binds (step E)
        and every object of its closure is there and whole. Nothing is written before the signatures hold.
        """
        repository = self.repository
        id_ = ObjectId.of(manifest)
        ahead = _Ahead(repository.media, {id_: manifest, ObjectId.of(table): table})
        opened = repository.opened(id_, "the new manifest", ahead)
        check_fit(ahead, opened, mission)
        with self.inserting() as batch:
            batch.add_bytes(table)
            batch.commit()
            batch.add_bytes(manifest)
            batch.commit()
        self.check_closure(opened)
        repository.move_ref(mission, id_, event, opened.manifest.issue.sequence)
        self._absorb(opened)
        return id_

    def keep_draft(self, mission: str, manifest: bytes, table: bytes, facts: dict[str, Any]) -> None:
        """Keeps a manifest that lacks signatures, and its table. The log line says what was signed."""
        repository = self.repository
        if not MISSION_ID.fullmatch(mission):
            raise Invalid(f"{mission[:80]!r} is no mission id")
        with self.inserting() as batch:
            batch.add_bytes(table)
            batch.commit()
        repository.append_log(log.Event(int(time.time()), "signed", {"mission": mission, **facts}))
        repository.disk.make_directory(repository.media.absolute("drafts"))
        repository.disk.sync_directory(repository.media.path)
        repository.replace(f"drafts/{mission}", manifest)

    def drop_draft(self, mission: str) -> None:
        """Removes the draft of a mission, if there is one: what is published has overtaken it."""
        media = self.repository.media
        if mission in media.names_if_there("drafts"):
            self.repository.disk.remove(media.absolute(f"drafts/{mission}"))
            self.repository.disk.sync_directory(media.absolute("drafts"))

    def check_closure(self, opened: Opened, progress: Callable[[int], None] | None = None) -> None:
        """Raises Refused unless every object of the closure is there and whole, Unavailable if nobody can tell."""
        self.settle()
        repository = self.repository
        failures: dict[ObjectId, FlightbagError] = {}
        rows: dict[ObjectId, Row] = {}
        # Two entries may give one object two sizes: then one of them fails.
        for id_, size in sorted({*opened.closure().items(), *((e.id, e.size) for e in opened.table.entries)}):
            try:
                row = examine(repository.media, self.index, id_, size)
                if row is not None:
                    rows[id_] = row
            except FlightbagError as error:
                failures[id_] = error
            if progress is not None:
                progress(size)
        if rows:
            self.index.commit(objects=rows)
        for release in opened.manifest.releases:
            try:
                repository.evidence.object(release, ENVELOPE_LIMIT)
            except FlightbagError as error:
                failures[release] = error
        if failures:
            named = [f"{id_}: {error.message}" for id_, error in list(failures.items())[:_NAMED]]
            more = f" and {len(failures) - _NAMED} more" if len(failures) > _NAMED else ""
            unread = all(isinstance(error, Unavailable) for error in failures.values())
            raise (Unavailable if unread else Refused)(
                "the mission's closure is not whole: " + "; ".join(named) + more, objects=tuple(failures)
            )


class _Ahead(StoreEvidence):
    """The store's evidence, and objects that are not in it yet."""

    def __init__(self, media: Media, new: Mapping[ObjectId, bytes]) -> None:
        super().__init__(media)
        self._new = new

    def object(self, id_: ObjectId, limit: int) -> bytes:
        data = self._new.get(id_)
        return super().object(id_, limit) if data is None or len(data) > limit else data

    def bytes_of(self, id_: ObjectId, size: int) -> bytearray:
        data = self._new.get(id_)
        return super().bytes_of(id_, size) if data is None or len(data) != size else bytearray(data)


def records_of(table: EntryTable) -> dict[BuildKey, tuple[ObjectId, ...]]:
    """The build keys that a table's entries carry, and the objects that they were built to."""
    records: dict[BuildKey, tuple[ObjectId, ...]] = {}
    for entry in table.entries:
        if entry.key is not None and entry.id not in records.get(entry.key, ()):
            records[entry.key] = (*records.get(entry.key, ()), entry.id)
    return records


def check_free(path: str | os.PathLike[str]) -> None:
    """Raises Invalid unless a store can be made in this folder: it is empty, or an `init` was interrupted in it."""
    with Media(path) as media:
        there = set(media.names(""))
        if TOML in there:
            raise Invalid(f"{media.path} is a store already")
        made = there & {"missions", "objects", "trust"}
        if there - made - {TMP} or any(media.kind(name) != "directory" or media.names(name) for name in made):
            raise Invalid(f"{media.path} is not empty", remedy="give a folder that does not exist yet")


def check_fit(evidence: StoreEvidence, opened: Opened, mission: str) -> None:
    """Raises Refused for a manifest that no aircraft could fly (step E)."""
    unfit = check_binding(evidence, opened, mission, Binding(opened.manifest.issue.issued_at))
    if unfit:
        raise Refused(
            "the new manifest cannot fly: " + "; ".join(finding.message for finding in unfit),
            remedy=unfit[0].remedy,
            kind=unfit[0].kind,
            findings=unfit,
        )


def check_format(media: Media) -> None:
    """Raises NotFound unless `media` is a store, Invalid unless it is one of this format."""
    try:
        data = media.read(TOML, _TOML_LIMIT)
    except NotFound as error:
        if media.names_if_there("objects"):
            raise NotFound(
                f"{media.path} has objects but no {TOML}: half of a copy, or it was lost",
                remedy=f"copy the store again, or {TOML} alone from where it came from",
                kind="no-store",
                path=media.path,
            ) from error
        raise _no_store(media.path) from error
    try:
        value = tomllib.loads(data.decode())
        format_, id_ = value["format"], value["id"]
    except (ValueError, KeyError, RecursionError) as error:
        path = media.absolute(TOML)
        raise Corrupt(f"{path} is malformed", remedy=_TOML_REMEDY, kind="bad-store", path=path) from error
    if type(format_) is int and format_ != FORMAT:
        raise Invalid(f"{media.path} is a store of format {format_}; this program knows format {FORMAT}")
    if type(format_) is not int or type(id_) is not str or not _STORE_ID.fullmatch(id_):
        path = media.absolute(TOML)
        raise Corrupt(f"{path} has no format and store id", remedy=_TOML_REMEDY, kind="bad-store", path=path)


def _no_store(path: str | os.PathLike[str]) -> NotFound:
    return NotFound(
        f"{os.fspath(path)} is no store",
        remedy="give the folder of a store; `flightbag init` makes a new one",
        kind="no-store",
        path=str(path),
    )
