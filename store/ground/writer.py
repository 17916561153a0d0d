"""Publication: inserts objects and makes missions current. `writing` opens a store with its index, behind its lock."""

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
from store.disk.quarantine import present
from store.disk.staging import sweep
from store.errors import FlightbagError, Invalid, Refused, Unavailable
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import ENVELOPE_LIMIT, MISSION_ID, MISSION_ID_REMEDY
from store.ground.excerpt import first_few
from store.ground.repository import Repository
from store.ground.upkeep import absorb, absorb_manifest, rebuild
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Opened
from store.takeoff.verify import check_for_all


@contextmanager
def writing(repository: Repository, *, alone: bool = False, wait: bool = False) -> Iterator[Writer]:
    """Open a store for writing, with its index, after removing the leftovers of dead transactions.

    With `alone`, no other transaction is under way that could rely on an object. Raise as `Repository.locked` does.
    """
    with repository.locked(alone=alone, wait=wait):
        sweep(repository.media, repository.disk)
        with open_index(repository.media, repository.disk, partial(rebuild, repository.media)) as index:
            writer = Writer(repository, index)
            absorb(repository, index)
            try:
                yield writer
            finally:
                # The index is a view: an object that is not entered is read again. So a failure here is ignored, and
                # hides no other error.
                with suppress(FlightbagError):
                    writer.enter_checked()


class Writer:
    """An open store with its index, made by `writing`."""

    def __init__(self, repository: Repository, index: Index) -> None:
        self.repository = repository
        self.index = index
        # Objects that `check_object` has read in full, to be entered in the index in one commit.
        self._checked: dict[ObjectId, Row] = {}

    @contextmanager
    def inserting(self) -> Iterator[Batch]:
        """Open a batch of objects; see `store.disk.objects`."""
        with inserting(self.repository.media, self.repository.disk, self.index) as batch:
            yield batch

    def check_object(self, id_: ObjectId, size: int) -> None:
        """Raise NotFound or Corrupt unless the object is whole, by its row in the index or by reading it."""
        row = self._checked.get(id_)
        if row and row.size == size and row.fresh(self.repository.media.stamp(object_path(id_))):
            return
        row = confirm_object(self.repository.media, self.index, id_, size)
        if row is not None:
            self._checked[id_] = row

    def enter_checked(self) -> None:
        """Enter in the index the objects that `check_object` has read."""
        if self._checked:
            self.index.commit(objects=self._checked)
            self._checked = {}

    def record(self, records: Mapping[BuildKey, Record], *, replace: bool = False) -> None:
        """Record the objects that were built for some keys; the objects are committed before the call.

        An earlier record stays, unless `replace` states that its objects are lost or damaged.
        """
        if records:
            self.index.commit(records=records, replace=replace)

    def publish(self, mission: str, manifest: bytes, table: bytes, *, event: str = "published") -> ObjectId:
        """Make a signed manifest current: insert its objects, add the log line (of kind `event`), move the ref.

        Return the id of the manifest. It must verify under the store's own chain and fit its own mission (step E), and
        every object of its closure must be whole; else raise as `Repository.opened`, `check_fit` and `check_closure`
        do, and the current manifest stays current. Nothing is written before the signatures hold.
        """
        repository = self.repository
        id_ = ObjectId.of(manifest)
        evidence = _EvidenceWithNewObjects(repository.media, {id_: manifest, ObjectId.of(table): table})
        opened = repository.opened(id_, "the new manifest", evidence)
        check_fit(evidence, opened, mission)
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
        """Keep a manifest that lacks signatures as the mission's draft, with its table. `facts` go into the log line.

        The draft is durable on return.
        """
        repository = self.repository
        if not MISSION_ID.fullmatch(mission):
            raise Invalid(f"{mission[:80]!r} is not a valid mission id", remedy=MISSION_ID_REMEDY)
        with self.inserting() as batch:
            batch.add_bytes(table)
            batch.commit()
        repository.append_log(log.Event(int(time.time()), "signed", {"mission": mission, **facts}))
        repository.disk.make_directory(repository.media.absolute("drafts"))
        repository.disk.sync_directory(repository.media.path)
        repository.replace(f"drafts/{mission}", manifest)

    def drop_draft(self, mission: str) -> None:
        """Remove the draft of a mission, if it has one."""
        media = self.repository.media
        if present(media, f"drafts/{mission}"):
            self.repository.disk.remove(media.absolute(f"drafts/{mission}"))
            self.repository.disk.sync_directory(media.absolute("drafts"))

    def check_closure(self, opened: Opened, progress: Callable[[int], None] | None = None) -> None:
        """Raise Refused unless every object of the closure is whole, Unavailable if all failures are failures to read.

        `progress` gets the number of bytes of each object.
        """
        self.enter_checked()
        repository = self.repository
        failures: dict[ObjectId, FlightbagError] = {}
        rows: dict[ObjectId, Row] = {}
        # If two entries give one object two sizes, one of them fails.
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
            reasons = first_few([f"{id_}: {error.message}" for id_, error in failures.items()])
            unread = all(isinstance(error, Unavailable) for error in failures.values())
            raise (Unavailable if unread else Refused)(
                f"the mission's closure is not whole: {reasons}",
                remedy="build the mission again, or run `store-fsck --full --repair` with --from a whole copy",
                objects=tuple(failures),
            )


class _EvidenceWithNewObjects(StoreEvidence):
    """The evidence of a store, with objects that are not inserted yet."""

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
    """Raise Refused for a manifest that step E refuses for every aircraft, with the findings."""
    unfit = check_for_all(evidence, opened, mission)
    if unfit:
        raise Refused(
            f"no aircraft could fly this manifest of {mission}: " + "; ".join(finding.message for finding in unfit),
            remedy=unfit[0].remedy,
            kind=unfit[0].kind,
            findings=unfit,
        )
