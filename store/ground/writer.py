"""Publication: the only way to change a store. `writing` opens a repository with its index, behind the lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from store.disk import log
from store.disk.index import Index, Record, Row, open_index
from store.disk.media import Media, object_path
from store.disk.objects import Batch, confirm_object, inserting
from store.disk.staging import sweep
from store.errors import FlightbagError, Invalid, Refused, Unavailable
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import ENVELOPE_LIMIT, MISSION_ID
from store.ground.repository import Repository
from store.ground.upkeep import absorb, absorb_manifest, rebuild
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Binding, Opened
from store.takeoff.verify import check_binding

# How many failures an error's message spells out.
_NAMED = 8


@contextmanager
def writing(repository: Repository, *, alone: bool = False, wait: bool = False) -> Iterator[Writer]:
    """The store, open for writing, with its index; what dead transactions left is swept away first.

    `alone`, no transaction is under way that could rely on an object. Raises Locked as `locked` does.
    """
    with repository.locked(alone=alone, wait=wait):
        sweep(repository.media, repository.disk)
        with open_index(repository.media, repository.disk, partial(rebuild, repository.media)) as index:
            writer = Writer(repository, index)
            absorb(repository, index)
            try:
                yield writer
            finally:
                # The ledger is a view: what is not entered is read again, and no other error is hidden by this.
                with suppress(FlightbagError):
                    writer.settle()


class Writer:
    """A repository with its index. Made by `writing`."""

    def __init__(self, repository: Repository, index: Index) -> None:
        self.repository = repository
        self.index = index
        # Read in full by `check_object` and not in the ledger yet: one commit for many.
        self._checked: dict[ObjectId, Row] = {}

    @contextmanager
    def inserting(self) -> Iterator[Batch]:
        """A batch of objects; see `store.disk.objects`."""
        with inserting(self.repository.media, self.repository.disk, self.index) as batch:
            yield batch

    def check_object(self, id_: ObjectId, size: int) -> None:
        """Raises NotFound or Corrupt unless the object is there, whole (by the ledger, or by reading it)."""
        known = self._checked.get(id_)
        if known and known.size == size and known.fresh(self.repository.media.stamp(object_path(id_))):
            return
        row = confirm_object(self.repository.media, self.index, id_, size)
        if row is not None:
            self._checked[id_] = row

    def settle(self) -> None:
        """Enters in the ledger what `check_object` read."""
        if self._checked:
            self.index.commit(objects=self._checked)
            self._checked = {}

    def record(self, records: Mapping[BuildKey, Record], *, replace: bool = False) -> None:
        """Remembers what was built for some keys, once those objects are committed.

        The first writer wins, unless `replace` says that the objects of records that are there are gone or damaged.
        """
        if records:
            self.index.commit(records=records, replace=replace)

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
        absorb_manifest(self.index, opened)
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
                row = confirm_object(repository.media, self.index, id_, size)
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
