"""The commands for what a store keeps: gc, pin, unpin."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

from store.disk.locks import Locked
from store.errors import NotFound
from store.format.duration import seconds_of
from store.format.ids import ObjectId, is_hex, may_begin
from store.ground.gc import GRACE, GcPlan, collect, peeked_rows, pin, pins, plan_gc, unpin
from store.ground.naming import object_named
from store.ground.needs import KEEP_LAST
from store.ground.repository import Repository
from tools import lines, render
from tools.arguments import Json, Store, StoreBeforeName, print_lines
from tools.parameters import Argument, Option
from tools.progress import work_bars
from tools.status import OK, action, exits, notice, print_json, say, writes


@exits(
    kept="each object lies in the store or in trash/, and none that a mission needs was moved; "
    "the same gc goes on where it stopped",
    acts=writes,
)
def gc(
    store: Store,
    keep_last: Annotated[int, Option(min=1, help="The number of manifests to keep of each mission.")] = KEEP_LAST,
    grace: Annotated[
        str, Option(help="Keep objects and trash that are younger.", metavar="14d")
    ] = f"{GRACE / 86400:.0f}d",
    empty: Annotated[
        bool, Option("--empty", help="Delete all that lies in trash and quarantine, whatever its age.")
    ] = False,
    wait: Annotated[bool, Option("--wait", help="Wait until no other process uses the store.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be moved and deleted. Write nothing.")] = False,
    as_json: Json = False,
) -> int:
    """Move objects that nothing in the store needs to the trash, and delete trash older than the grace time.

    What an audit put into quarantine stays until --empty deletes it: run `flightbag fsck` first, which may need it.
    Each folder that goes is named, with --dry-run before it does.

    Example: flightbag gc ground --grace 14d
    """
    seconds = seconds_of(grace)
    with Repository.open(store) as repository:
        if dry_run:
            with peeked_rows(repository.media) as rows:
                plan = plan_gc(repository, rows, now=time.time(), grace=seconds, keep_last=keep_last, empty=empty)
        else:
            plan = _collect(repository, wait=wait, now=time.time(), grace=seconds, keep_last=keep_last, empty=empty)
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "collected": len(plan.trash),
                "collected_bytes": plan.trash_bytes,
                "manifests": [str(id_) for id_ in plan.manifests],
                "objects": [str(id_) for id_, _ in plan.trash],
                "kept": plan.kept,
                "kept_bytes": plan.kept_bytes,
                "young": plan.young,
                "young_bytes": plan.young_bytes,
                "deleted_folders": [one.path for one in plan.folders],
                "deleted_things": sum(one.things for one in plan.folders),
                "deleted_bytes": sum(one.bytes for one in plan.folders),
            }
        )
    else:
        print_lines(_collected(plan, dry_run=dry_run))
    return OK


def _collect(repository: Repository, *, wait: bool, **settings: Any) -> GcPlan:
    """Collect. With `wait`, first print which process it waits for."""
    try:
        with work_bars() as progress:
            return collect(repository, progress=progress, **settings)
    except Locked as error:
        if not wait:
            raise
        notice(f"waiting: {error.message}")
    with work_bars() as progress:
        return collect(repository, wait=True, progress=progress, **settings)


def _collected(plan: GcPlan, *, dry_run: bool) -> Iterator[str]:
    would = "would be " if dry_run else ""
    yield f"kept: {render.many(plan.kept, 'object')}, {render.size(plan.kept_bytes)}"
    if plan.young:
        yield f"kept because younger than the grace time: {plan.young} objects, {render.size(plan.young_bytes)}"
    yield f"{would}moved to the trash: {render.many(len(plan.trash), 'object')}, {render.size(plan.trash_bytes)}"
    for id_ in plan.manifests:
        yield f"{would}no longer kept: manifest {lines.short(id_)}"
    for one in plan.folders:
        things = render.many(one.things, "thing")
        yield f"{would}deleted for good: {one.path}, {things}, {render.size(one.bytes)}"


@exits(acts=lambda given: given["named"] is not None)
def pin_command(
    store: StoreBeforeName,
    named: Annotated[
        tuple[str, str] | None,
        Argument(
            metavar="NAME MISSION|ID",
            help="A name for the pin, and the id of a mission, or the first digits of that of an object.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Keep the current manifest of a mission, or one object, from being collected. With only STORE, list the pins.

    Example: flightbag pin ground last-good north-ridge
    """
    with Repository.open(store) as repository:
        if named is None:
            id_by_name = {one: str(id_) for one, id_ in pins(repository).items()}
            if as_json:
                print_json({"pins": [{"name": one, "object": id_} for one, id_ in id_by_name.items()]})
            else:
                rows = [(name, lines.short(id_)) for name, id_ in id_by_name.items()]
                print_lines(lines.table(rows) if rows else ["no pins"])
            return OK
        name, what = named
        id_ = _pinnable(repository, what)
        pin(repository, name, id_)
    if as_json:
        print_json({"pins": [{"name": name, "object": str(id_)}]})
    else:
        say(f"pinned {lines.short(id_)} as {name}")
    return OK


def _pinnable(repository: Repository, what: str) -> ObjectId:
    """Return the manifest of the mission of this name, or else the object whose id begins so."""
    if is_hex(what):
        return ObjectId.parse(what)
    try:
        return repository.current(what).manifest_id
    except NotFound:
        if not may_begin(what):
            raise
    return object_named(repository, what)


@action
def unpin_command(
    store: StoreBeforeName,
    name: Annotated[str, Argument(metavar="NAME", help="The name of the pin.")],
    as_json: Json = False,
) -> int:
    """Remove a pin. The next collection may take the object that it kept.

    Example: flightbag unpin ground last-good
    """
    with Repository.open(store) as repository:
        unpin(repository, name)
    if as_json:
        print_json({"unpinned": name})
    else:
        say(f"unpinned {name}")
    return OK
