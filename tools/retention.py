"""The commands that say what a store keeps: gc, pin, unpin."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from store.disk.locks import Locked
from store.format.ids import ObjectId, is_hex
from store.ground.gc import GRACE, GcPlan, collect, peeked_rows, pin, pins, plan_gc, unpin
from store.ground.needs import KEEP_LAST
from store.ground.repository import Repository
from tools import render
from tools.arguments import Json, Store, duration, print_lines, store_then
from tools.status import OK, command, print_json, say


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command("gc")(gc)
    app.command("pin")(pin_command)
    app.command("unpin")(unpin_command)


@command
def gc(
    store: Store,
    keep_last: Annotated[int, typer.Option(min=1, help="Manifests kept of each mission.")] = KEEP_LAST,
    grace: Annotated[str, typer.Option(help="What is younger stays.", metavar="14d")] = f"{GRACE / 86400:.0f}d",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for those who use the store.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; write nothing.")] = False,
    as_json: Json = False,
) -> int:
    """Move what nothing needs to the trash, and delete what has been there for the grace time."""
    seconds = duration(grace)
    with Repository.open(store) as repository:
        if dry_run:
            with peeked_rows(repository.media) as rows:
                plan = plan_gc(repository, rows, now=time.time(), grace=seconds, keep_last=keep_last)
        else:
            plan = _collect(repository, wait=wait, now=time.time(), grace=seconds, keep_last=keep_last)
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
                "deleted_folders": list(plan.folders),
            }
        )
    else:
        print_lines(_collected(plan, dry_run=dry_run))
    return OK


def _collect(repository: Repository, *, wait: bool, **settings: Any) -> GcPlan:
    """Collects; whom it waits for is said."""
    try:
        return collect(repository, **settings)
    except Locked as error:
        if not wait:
            raise
        say(f"waiting: {error.message}", sys.stderr)
    return collect(repository, wait=True, **settings)


def _collected(plan: GcPlan, *, dry_run: bool) -> Iterator[str]:
    would = "would be " if dry_run else ""
    yield f"kept: {render.many(plan.kept, 'object')}, {render.size(plan.kept_bytes)}"
    if plan.young:
        yield f"kept, as younger than the grace time: {plan.young} objects, {render.size(plan.young_bytes)}"
    yield f"{would}moved to the trash: {render.many(len(plan.trash), 'object')}, {render.size(plan.trash_bytes)}"
    for id_ in plan.manifests:
        yield f"{would}given up: manifest {id_}"
    for name in plan.folders:
        yield f"{would}deleted for good: trash/{name}"


@command
def pin_command(
    args: Annotated[list[str] | None, typer.Argument(metavar="[STORE] [NAME MISSION|ID]", show_default=False)] = None,
    as_json: Json = False,
) -> int:
    """Keep a mission's current manifest, or one object, from being collected. With STORE alone: list the pins."""
    store, rest = store_then(args or [], 0, 2)
    with Repository.open(store) as repository:
        if not rest:
            found = {one: str(id_) for one, id_ in pins(repository).items()}
            if as_json:
                print_json(found)
            else:
                print_lines(render.table(list(found.items())))
            return OK
        name, what = rest
        id_ = ObjectId.parse(what) if is_hex(what) else repository.current(what).manifest_id
        pin(repository, name, id_)
    if as_json:
        print_json({"pin": name, "object": str(id_)})
    else:
        say(f"pinned {id_} as {name}")
    return OK


@command
def unpin_command(
    args: Annotated[list[str], typer.Argument(metavar="[STORE] NAME", show_default=False)],
    as_json: Json = False,
) -> int:
    """Take a pin away."""
    store, (name,) = store_then(args, 1)
    with Repository.open(store) as repository:
        unpin(repository, name)
    if as_json:
        print_json({"unpinned": name})
    else:
        say(f"unpinned {name}")
    return OK
