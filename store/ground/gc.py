"""Collection: what nothing needs goes to the trash, and from there, after the grace time, for good.

Kept are the closures of all current missions, of the last manifests that the log names for each mission, of drafts and
of pins. Of the rest, an object goes only if it is older than the grace time, by the later of its ctime and its
insertion. The store is held alone meanwhile: no transaction is under way that could rely on an object that goes.

What cannot be read might need anything, so a manifest, draft or pin that cannot be read refuses the collection.

A plan is a value; making it writes nothing. Order of applying it: the log line comes first, because a manifest may be
absent only if a line says that it was collected; then objects are renamed into `trash/<time>/`, folder by folder, and
leave the index. A crash anywhere leaves objects that nothing needs in one place or the other, and the next collection
goes on.
"""

from __future__ import annotations

import os
import time
from calendar import timegm
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from store.disk import log
from store.disk.index import Row, open_index_for_reading
from store.disk.layout import DRAFTS, PINS, TRASH
from store.disk.media import Media, object_path
from store.disk.quarantine import present
from store.disk.staging import empty
from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NotFound, Refused, Unavailable
from store.findings import Finding
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT, MISSION_ID
from store.format.ref import ref_id
from store.ground import releases
from store.ground.log_history import LogHistory
from store.ground.needs import (
    KEEP_LAST,
    UNKNOWN,
    Need,
    is_manifest,
    need_of,
    need_of_stored,
    need_of_unsigned,
    pinned_id,
)
from store.ground.repository import Repository
from store.ground.writer import Writer, writing

GRACE = 14 * 86400.0
_TIME = "%Y%m%dT%H%M%SZ"
# How many reasons an error's message spells out.
_NAMED = 8

Rows = Callable[[int], Mapping[ObjectId, Row]]


@dataclass(frozen=True, slots=True)
class GcPlan:
    """What a collection would do. Counts are of objects, sizes in bytes.

    `trash` has what goes, `manifests` are those that the log names and that are kept no more, `young` counts what only
    the grace time spares, `folders` are those of the trash that are deleted for good.
    """

    trash: Need
    trash_bytes: int
    manifests: tuple[ObjectId, ...]
    kept: int
    kept_bytes: int
    young: int
    young_bytes: int
    folders: tuple[str, ...]


def plan_gc(
    repository: Repository, rows: Rows, *, now: float, grace: float = GRACE, keep_last: int = KEEP_LAST
) -> GcPlan:
    """What nothing needs. `now` is unix seconds, `grace` seconds, `rows` what the index knows of a folder's objects.

    Raises Refused, or Unavailable where nothing is known to be wrong, if a manifest, draft or pin cannot be read, or if
    something lies among the missions that is none; Corrupt if the log does not hold.
    """
    named = LogHistory.of(log.events(repository.media)).retained
    needs = _marked(repository, named, keep_last)
    trash: list[tuple[ObjectId, int]] = []
    kept_named: set[ObjectId] = set()
    counts = dict.fromkeys(("kept", "kept_bytes", "young", "young_bytes"), 0)
    all_named = {id_ for ids in named.values() for id_ in ids}
    for first in range(256):
        marked = {id_ for need in needs for id_, _ in need.of_shard(first)}
        kept_named |= marked & all_named
        known = rows(first)
        for id_, status in repository.media.objects(first):
            size = status.st_size
            since = max(status.st_ctime, known[id_].inserted if id_ in known else 0)
            if id_ in marked:
                what = "kept"
            elif now - since >= grace:
                trash.append((id_, size))
                continue
            else:
                what = "young"
            counts[what] += 1
            counts[f"{what}_bytes"] += size
    media = repository.media
    folders = tuple(
        name
        for name in media.names_if_there(TRASH)
        if _over(name, now, grace) and media.file_type(f"{TRASH}/{name}") == "directory"
    )
    # Also those that are young, as what they need may be older and go, and those that are lost.
    given_up = tuple(sorted(all_named - kept_named))
    return GcPlan(Need(TRASH, trash), sum(size for _, size in trash), given_up, folders=folders, **counts)


@contextmanager
def peeked_rows(media: Media) -> Iterator[Rows]:
    """What the index knows, read without writing a byte; nothing where it is not believed: then the ctime decides."""
    index = open_index_for_reading(media)
    try:
        yield index.rows if index is not None else lambda _: {}
    finally:
        if index is not None:
            index.close()


def collect(
    repository: Repository, *, now: float, grace: float = GRACE, keep_last: int = KEEP_LAST, wait: bool = False
) -> GcPlan:
    """Plans and applies, alone with the store. Durable when it returns. Raises Locked as `Repository.writing` does."""
    with writing(repository, alone=True, wait=wait) as writer:
        plan = plan_gc(repository, writer.index.rows, now=now, grace=grace, keep_last=keep_last)
        _apply(plan, writer, now)
    return plan


def _apply(plan: GcPlan, writer: Writer, now: float) -> None:
    repository = writer.repository
    media, disk = repository.media, repository.disk
    if plan.trash or plan.manifests:
        name = time.strftime(_TIME, time.gmtime(now))
        facts = {
            "objects": len(plan.trash),
            "bytes": plan.trash_bytes,
            "manifests": [str(id_) for id_ in plan.manifests],
            "trash": name,
        }
        repository.append_log(log.Event(int(now), "collected", facts))
    if plan.trash:
        folder = media.absolute(f"{TRASH}/{name}")
        disk.make_directory(media.absolute(TRASH))
        disk.make_directory(folder)
        disk.sync_directory(media.absolute(TRASH))
        disk.sync_directory(media.path)
        for first in range(256):
            ids = [id_ for id_, _ in plan.trash.of_shard(first)]
            if not ids:
                continue
            media.directory(f"objects/{first:02x}")  # refuses a link on the way
            for id_ in ids:
                disk.rename(media.absolute(object_path(id_)), os.path.join(folder, str(id_)))
            disk.sync_directory(folder)
            disk.sync_directory(media.absolute(f"objects/{first:02x}"))
            writer.index.commit(gone=ids)
    for name in plan.folders:
        folder = media.absolute(f"{TRASH}/{name}")
        media.directory(f"{TRASH}/{name}")
        empty(disk, folder)
        disk.remove(folder)
    if plan.folders:
        disk.sync_directory(media.absolute(TRASH))


def _over(name: str, now: float, grace: float) -> bool:
    """Whether what was put into a folder of the trash has been there for the grace time."""
    try:
        return now - timegm(time.strptime(name, _TIME)) >= grace
    except ValueError:
        return False  # fsck tells of it


def _marked(repository: Repository, named: Mapping[str, Sequence[ObjectId]], keep_last: int) -> list[Need]:
    """Everything that must stay. Raises Refused or Unavailable with every reason why that is not known."""
    media = repository.media
    for name in ("missions", log.LOG):
        if not present(media, name) and repository.evidence.root_versions():
            raise Refused(
                f"{media.absolute(name)} is not there, so nobody knows what is needed",
                remedy="run store-fsck --repair",
                kind="needs-unknown",
                path=media.absolute(name),
            )
    needs: list[Need] = []
    wrong: list[FlightbagError] = []

    def mark(holder: str, need: Callable[[], Need]) -> None:
        try:
            needs.append(need())
        except FlightbagError as error:
            wrong.append(error.restated(f"{holder}: {error.message}"))

    for mission in media.names_if_there("missions"):
        mark(f"missions/{mission}", partial(_current, repository, mission))
    for mission, ids in named.items():
        for id_ in ids[:keep_last]:
            mark(f"the log of {mission}", partial(need_of_stored, log.LOG, id_, repository.evidence))
    for name in media.names_if_there(DRAFTS):
        mark(f"{DRAFTS}/{name}", partial(_draft, repository, f"{DRAFTS}/{name}"))
    for name in media.names_if_there(releases.FOLDER):
        mark(f"{releases.FOLDER}/{name}", partial(_release, repository, f"{releases.FOLDER}/{name}"))
    for name in media.names_if_there(PINS):
        mark(f"{PINS}/{name}", partial(_pinned, repository, f"{PINS}/{name}"))
    if wrong:
        unread = all(isinstance(error, Unavailable) for error in wrong)
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise (Unavailable if unread else Refused)(
            "nothing is collected while it is not known what is needed: "
            + "; ".join(error.message for error in wrong[:_NAMED])
            + more,
            remedy="run store-fsck --repair; unpin what is not there; collect with a smaller --keep-last, "
            "where only an earlier manifest is lost",
            kind="needs-unknown",
            findings=tuple(Finding.of(error) for error in wrong),
        )
    return needs


def current_need(repository: Repository, mission: str) -> Need:
    """What a mission needs, also where its signatures hold no more: what a revoked key signed is there still.

    Raises as `Repository.current` where nobody can tell.
    """
    holder = f"missions/{mission}"
    try:
        return need_of(holder, repository.current(mission))
    except Corrupt:
        with suppress(FlightbagError):
            return need_of_stored(holder, ref_id(repository.evidence.ref(mission)), repository.evidence)
        raise


def _current(repository: Repository, mission: str) -> Need:
    holder = f"missions/{mission}"
    if not MISSION_ID.fullmatch(mission):
        raise Corrupt(f"{holder} is no mission", kind="stray", path=repository.media.absolute(holder))
    return current_need(repository, mission)


def _draft(repository: Repository, holder: str) -> Need:
    return need_of_unsigned(holder, repository.media.read(holder, ENVELOPE_LIMIT), repository.evidence)


def _release(repository: Repository, holder: str) -> Need:
    return Need(holder, [(pinned_id(repository.media, holder), UNKNOWN)])


def _pinned(repository: Repository, holder: str) -> Need:
    id_ = pinned_id(repository.media, holder)
    if is_manifest(repository.evidence, id_):
        return need_of(holder, repository.opened(id_, f"the manifest of {holder}"))
    size = repository.media.stamp(object_path(id_)).size
    repository.media.digest(id_, size)
    return Need(holder, [(id_, size)])


def pin(repository: Repository, name: str, id_: ObjectId) -> None:
    """Keeps an object, or all that a manifest needs, from being collected. Durable when it returns.

    Raises Conflict where the name is taken, NotFound or Corrupt unless all of it is there, by its size.
    """
    holder = _holder(name)
    with repository.locked():
        if present(repository.media, holder):
            raise Conflict(f"there is a pin {name} already", remedy=f"unpin {name} first, or give another name")
        if is_manifest(repository.evidence, id_):
            for one, size in repository.opened(id_, "the manifest").closure().items():
                actual = repository.media.stamp(object_path(one)).size
                if actual != size:
                    raise Corrupt(f"object {one} has {actual} bytes, not {size}", kind="truncated", object=one)
        else:
            repository.media.digest(id_, repository.media.stamp(object_path(id_)).size)
        repository.disk.make_directory(repository.media.absolute(PINS))
        repository.disk.sync_directory(repository.media.path)
        repository.replace(holder, f"{id_}\n".encode())


def unpin(repository: Repository, name: str) -> None:
    """Takes a pin away. Raises NotFound where there is none."""
    holder = _holder(name)
    with repository.locked():
        if not present(repository.media, holder):
            raise NotFound(f"there is no pin {name}", kind="missing")
        repository.disk.remove(repository.media.absolute(holder))
        repository.disk.sync_directory(repository.media.absolute(PINS))


def pins(repository: Repository) -> dict[str, ObjectId]:
    """The pins by name. Raises Corrupt for one that cannot be read."""
    media = repository.media
    return {name: pinned_id(media, _holder(name)) for name in media.names_if_there(PINS)}


def _holder(name: str) -> str:
    if not MISSION_ID.fullmatch(name):
        raise Invalid(f"{name[:80]!r} is no name for a pin", remedy="use a-z, 0-9 and hyphens, at most 64")
    return f"{PINS}/{name}"
