"""The command `sync`: copies missions to another store."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from store.disk.layout import check_free
from store.errors import NoStore
from store.ground.cleaning import clean as remove_droppings
from store.ground.cleaning import droppings
from store.ground.repository import Repository
from store.ground.sync import apply_sync, plan_sync
from tools import render
from tools.arguments import GiveUp, Json, patience_of
from tools.patience import Bound, patience
from tools.progress import bytes_bar
from tools.status import NO, OK, command, print_json, say


@command
def run(
    source: Annotated[str, typer.Argument(metavar="SRC", help="The store to copy from.")],
    target: Annotated[
        str, typer.Argument(metavar="DST", help="The store to copy to. It is created if it does not exist.")
    ],
    mission: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Copy only this mission. May be repeated.")
    ] = None,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Also read every object of the target, and replace damaged ones.")
    ] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove from the target what operating systems drop on media.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be copied. Write nothing.")] = False,
    give_up: GiveUp = None,
    as_json: Json = False,
) -> int:
    """Copy missions to another store: only the objects that it lacks, hashed while they are copied, and refs last.

    Example: flightbag sync ground /media/stick/store
    """
    bound = Bound(f"{source} or {target}", patience_of(give_up), as_json=as_json)
    with patience(bound), Repository.open(source) as source_store:
        with _existing(target) as target_store:
            copies = plan_sync(source_store, target_store, mission or (), checksum=checksum)
            removed = droppings(target_store.media) if clean and dry_run and target_store is not None else []
            left: list[tuple[str, str]] = []
        if not dry_run:
            with bytes_bar("copying", copies.bytes) as progress:
                apply_sync(copies, source_store, target, progress=progress)
            if clean:
                with Repository.open(target) as target_store:
                    removed, left = remove_droppings(target_store.media, target_store.disk)
    value = {
        "copied": len(copies.missing),
        "bytes": copies.bytes,
        "present": copies.present,
        "missions": [move.mission for move in copies.moves],
        "unchanged": list(copies.unchanged),
        "newer_at_target": list(copies.newer),
        "refused": [{"mission": mission, "why": why} for mission, why in copies.refused],
        "files": [file.name for file in copies.files],
        "removed": removed,
        "not_removed": [{"path": path, "why": why} for path, why in left],
        "dry_run": dry_run,
    }
    if as_json:
        print_json(value)
    else:
        verb = "would copy" if dry_run else "copied"
        say(f"{verb} {len(copies.missing)} objects, {render.size(copies.bytes)}; {copies.present} were present")
        for word, missions in (
            ("would update" if dry_run else "updated", [move.mission for move in copies.moves]),
            ("unchanged", copies.unchanged),
            ("NOT copied, because the target has a newer one:", copies.newer),
        ):
            if missions:
                say(f"{word} {', '.join(missions)}")
        for refused, why in copies.refused:
            say(f"NOT copied: {refused}: {why}")
        if copies.roots:
            versions = ", ".join(map(str, copies.roots))
            say(f"{'would copy' if dry_run else 'copied'} trust root {versions}")
        for folder, count in Counter(file.name.partition("/")[0] for file in copies.files).items():
            say(f"{verb} {render.many(count, f'file of {folder}/', f'files of {folder}/')}")
        for name in removed:
            say(f"{'would remove' if dry_run else 'removed'} {name}")
        for _, why in left:
            say(f"NOT removed: {why}; remove it as a user who may (`lost+found` is of the file system, and may stay)")
    return NO if copies.newer or copies.refused or left else OK


@contextmanager
def _existing(path: str) -> Iterator[Repository | None]:
    """Yield the store at `path`, or None if nothing lies at `path` yet. Raise if something else lies there."""
    try:
        repository = Repository.open(path)
    except NoStore as error:
        if error.kind != "no-store":
            raise
        if os.path.lexists(path):
            check_free(path)
        yield None
        return
    with repository:
        yield repository
