"""Collection: objects that nothing needs go to the trash and, after the grace time, are deleted for good.

A collection keeps the closures of all current missions, of the last manifests of each mission by the log, of drafts, of
releases, of orders, of results and of pins, and of a mission that was removed its last manifest. Another object goes
only if it is older than the grace time, by the later of its ctime and its insertion. The collection holds the store
alone (decision 0006): no transaction is under way that could rely on an object that goes.

A manifest, draft or pin that cannot be read might need any object, so it refuses the collection.

A plan is a value; making it writes nothing. It is applied in this order: the log line comes first, because a manifest
may be absent only if a line states its collection; then the objects are renamed into `trash/<time>/`, folder by folder,
and leave the index; what lies aside for long enough is deleted last. A crash at any point leaves objects that nothing
needs in one place or the other, and the next collection goes on.
"""

from __future__ import annotations

import os
import time
from calendar import timegm
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

from store.disk import log
from store.disk.index import Row, open_index_for_reading
from store.disk.layout import DRAFTS, ORDERS, PINS, QUARANTINE, RESULTS, TRASH
from store.disk.media import Media, object_path
from store.disk.quarantine import present
from store.disk.staging import remove_tree
from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NotFound, Refused, Unavailable, instead_of
from store.findings import Finding
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT, MISSION_ID
from store.format.ref import ref_id
from store.format.withdrawal import NAME as WITHDRAWAL
from store.ground import orders, releases
from store.ground.excerpt import first_few
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
from store.values import dataclass

GRACE = 14 * 86400.0
_TIME = "%Y%m%dT%H%M%SZ"

Rows = Callable[[int], Mapping[ObjectId, Row]]


@dataclass(frozen=True, slots=True)
class GcPlan:
    """The effect of a collection. Numbers count objects; sizes are in bytes.

    `trash` has the objects that go. `manifests` are those of the log that are no longer kept. `young` counts the
    objects that only the grace time spares. `folders` are those of trash and quarantine that are deleted for good.
    """

    trash: Need
    trash_bytes: int
    manifests: tuple[ObjectId, ...]
    kept: int
    kept_bytes: int
    young: int
    young_bytes: int
    folders: tuple[Folder, ...]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of trash or quarantine: its path in the store, and how many things and bytes lie in it."""

    path: str
    things: int
    bytes: int


def plan_gc(
    repository: Repository,
    rows: Rows,
    *,
    now: float,
    grace: float = GRACE,
    keep_last: int = KEEP_LAST,
    empty: bool = False,
) -> GcPlan:
    """Return the plan of a collection.

    `now` is unix seconds, `grace` seconds; `rows` gives the index's rows of one folder of objects. With `empty`, all
    that lies in trash and quarantine is deleted for good, whatever its age; else the trash that is due.

    Raise Refused if a manifest, draft or pin is missing or damaged, or if a thing among the missions is not a mission;
    Unavailable if all these failures are failures to read; Corrupt for a log with a damaged line.
    """
    history = LogHistory.of(log.events(repository.media))
    named, needs = history.retained, kept_needs(repository, history, keep_last)
    trash: list[tuple[ObjectId, int]] = []
    kept_named: set[ObjectId] = set()
    counts = dict.fromkeys(("kept", "kept_bytes", "young", "young_bytes"), 0)
    all_named = {id_ for ids in named.values() for id_ in ids}
    for first in range(256):
        marked = {id_ for need in needs for id_, _ in need.of_shard(first)}
        kept_named |= marked & all_named
        row_by_id = rows(first)
        for id_, status in repository.media.objects(first):
            size = status.st_size
            since = max(status.st_ctime, row_by_id[id_].inserted if id_ in row_by_id else 0)
            if id_ in marked:
                what = "kept"
            elif now - since >= grace:
                trash.append((id_, size))
                continue
            else:
                what = "young"
            counts[what] += 1
            counts[f"{what}_bytes"] += size
    folders = tuple(
        _folder(repository.media, f"{where}/{name}")
        for where in (TRASH, QUARANTINE)
        for name in repository.media.names_if_there(where)
        if (empty or (where == TRASH and _is_due(name, now, grace)))
        and repository.media.file_type(f"{where}/{name}") == "directory"
    )
    # Young manifests too, because the older objects that they need may go; and lost manifests.
    given_up = tuple(sorted(all_named - kept_named))
    return GcPlan(Need(TRASH, trash), sum(size for _, size in trash), given_up, folders=folders, **counts)


@contextmanager
def peeked_rows(media: Media) -> Iterator[Rows]:
    """Open the index without writing a byte, and yield its rows; none if the index is not usable: the ctime decides."""
    index = open_index_for_reading(media)
    try:
        yield index.rows if index is not None else lambda _: {}
    finally:
        if index is not None:
            index.close()


def collect(
    repository: Repository,
    *,
    now: float,
    grace: float = GRACE,
    keep_last: int = KEEP_LAST,
    empty: bool = False,
    wait: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> GcPlan:
    """Plan and apply a collection alone with the store, and return the plan. It is durable on return.

    `progress` gets the kind of work, and how many things were done now and are to be done in all. Raise as `plan_gc`
    and `writing` do.
    """
    with writing(repository, alone=True, wait=wait) as writer:
        plan = plan_gc(repository, writer.index.rows, now=now, grace=grace, keep_last=keep_last, empty=empty)
        _apply(plan, writer, now, progress or (lambda *_: None))
    return plan


def _apply(plan: GcPlan, writer: Writer, now: float, progress: Callable[[str, int, int], None]) -> None:
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
            media.directory(f"objects/{first:02x}")  # raises if a link leads elsewhere
            for id_ in ids:
                disk.rename(media.absolute(object_path(id_)), os.path.join(folder, str(id_)))
            disk.sync_directory(folder)
            disk.sync_directory(media.absolute(f"objects/{first:02x}"))
            writer.index.commit(gone=ids)
            progress("moving to the trash", len(ids), len(plan.trash))
    for one in plan.folders:
        media.directory(one.path)  # raises if a link leads elsewhere
        remove_tree(disk, media.absolute(one.path))
        progress("deleting", one.things, sum(each.things for each in plan.folders))
    for where in sorted({os.path.dirname(one.path) for one in plan.folders}):
        disk.sync_directory(media.absolute(where))


def _folder(media: Media, path: str) -> Folder:
    """Count what lies in a folder of trash or quarantine, where things of any kind may lie. No link is followed."""
    media.directory(path)  # raises if a link leads elsewhere
    things = size = 0
    for top, folders, files in os.walk(media.absolute(path)):
        things += len(folders) + len(files)
        for name in files:
            with suppress(OSError):
                size += os.lstat(os.path.join(top, name)).st_size
    return Folder(path, things, size)


def _is_due(name: str, now: float, grace: float) -> bool:
    """Return whether a folder of the trash is older than the grace time."""
    try:
        return now - timegm(time.strptime(name, _TIME)) >= grace
    except ValueError:
        return False  # an audit reports the name


def kept_needs(
    repository: Repository, history: LogHistory, keep_last: int = KEEP_LAST, *, without: str = ""
) -> list[Need]:
    """Return the needs of everything that must stay, as if the mission `without` were not there. Raise Refused or
    Unavailable with every need that is unknown."""
    media = repository.media
    log_name = next((name for name in log.files(media) if present(media, name)), log.LOG)
    for name in ("missions", log_name):
        if not present(media, name) and repository.evidence.root_versions():
            raise Refused(
                f"{media.absolute(name)} is missing, so the needed objects are unknown",
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
        if mission != without:
            mark(f"missions/{mission}", partial(_current, repository, mission))
    for mission, manifest in history.removed.items():
        mark(f"the log of {mission}", partial(_removed, repository, manifest))
    for mission, ids in history.retained.items():
        for id_ in ids[:keep_last] if mission != without else ():
            mark(f"the log of {mission}", partial(need_of_stored, log.LOG, id_, repository.evidence))
    for name in media.names_if_there(DRAFTS):
        if WITHDRAWAL.fullmatch(name):
            continue  # it needs no object
        mark(f"{DRAFTS}/{name}", partial(_draft, repository, f"{DRAFTS}/{name}"))
    for name in media.names_if_there(releases.FOLDER):
        mark(f"{releases.FOLDER}/{name}", partial(_release, repository, f"{releases.FOLDER}/{name}"))
    for key in orders.keys_in(media, ORDERS):
        mark(orders.holder_of(ORDERS, key), partial(orders.order_need, repository.evidence, key))
    for key in orders.keys_in(media, RESULTS):
        mark(orders.holder_of(RESULTS, key), partial(orders.result_need, repository.evidence, key))
    for name in media.names_if_there(PINS):
        mark(f"{PINS}/{name}", partial(_pinned, repository, f"{PINS}/{name}"))
    if wrong:
        unread = all(isinstance(error, Unavailable) for error in wrong)
        raise (Unavailable if unread else Refused)(
            "nothing is collected, because the needed objects are unknown: "
            + first_few([error.message for error in wrong]),
            remedy="run store-fsck --repair; unpin objects that are lost, remove orders that are; if only an earlier "
            "manifest is lost, collect with a smaller --keep-last",
            kind="needs-unknown",
            findings=tuple(Finding.of(error) for error in wrong),
        )
    return needs


def current_need(repository: Repository, mission: str) -> Need:
    """Return the need of a mission, also if its signatures no longer hold: objects that a revoked key signed stay.

    Raise as `Repository.current` does if the manifest or its table is not whole.
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
        raise Corrupt(f"{holder} is not the ref of a mission", kind="stray", path=repository.media.absolute(holder))
    return current_need(repository, mission)


def _removed(repository: Repository, manifest: ObjectId) -> Need:
    """Return the need of a removed mission: its last manifest, after whose sequence the next one comes."""
    return Need(log.LOG, [(manifest, repository.media.stamp(object_path(manifest)).size)])


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
    """Keep an object, or the closure of a manifest, from being collected. The pin is durable on return.

    Raise Conflict if the name is taken, NotFound or Corrupt unless every object is in its place with its size.
    """
    holder = _holder(name)
    with repository.locked():
        if present(repository.media, holder):
            text = f"the store has a pin {name} already"
            raise Conflict(text, remedy=f"run `flightbag unpin {name}` first, or give another name")
        if is_manifest(repository.evidence, id_):
            for one, size in repository.opened(id_, "the manifest").closure().items():
                actual = repository.media.stamp(object_path(one)).size
                if actual != size:
                    text = f"object {one} has {actual} bytes, expected {size}"
                    raise Corrupt(text, kind="truncated", object=one)
        else:
            repository.media.digest(id_, repository.media.stamp(object_path(id_)).size)
        repository.disk.make_directory(repository.media.absolute(PINS))
        repository.disk.sync_directory(repository.media.path)
        repository.replace(holder, f"{id_}\n".encode())


def unpin(repository: Repository, name: str) -> None:
    """Remove a pin. Raise NotFound if the store has no such pin."""
    holder = _holder(name)
    with repository.locked():
        if not present(repository.media, holder):
            remedy = instead_of(name, repository.media.names_if_there(PINS)) or "the store has no pins"
            raise NotFound(f"the store has no pin {name}", remedy=remedy, kind="missing")
        repository.disk.remove(repository.media.absolute(holder))
        repository.disk.sync_directory(repository.media.absolute(PINS))


def pins(repository: Repository) -> dict[str, ObjectId]:
    """Return the pins by name. Raise Corrupt or Unavailable if one cannot be read."""
    media = repository.media
    return {name: pinned_id(media, _holder(name)) for name in media.names_if_there(PINS)}


def _holder(name: str) -> str:
    if not MISSION_ID.fullmatch(name):
        text = f"{name[:80]!r} is not a valid name of a pin"
        raise Invalid(text, remedy="use at most 64 of a-z, 0-9 and hyphens")
    return f"{PINS}/{name}"
