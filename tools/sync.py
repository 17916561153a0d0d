"""The command `sync`: copies missions to other stores."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import typer

from store.disk.layout import check_free
from store.errors import FlightbagError, Invalid, NoStore
from store.ground.cleaning import clean as remove_droppings
from store.ground.cleaning import droppings
from store.ground.repository import Repository
from store.ground.sync import SyncPlan, apply_sync, apply_syncs, check_targets, plan_sync
from store.remotes.bucket import BucketClient
from store.remotes.bucket_store import pulled, push
from store.remotes.place import bucket_of
from tools import render
from tools.arguments import GiveUp, Json, patience_of, print_lines
from tools.patience import Bound, patience
from tools.progress import reading_bars
from tools.status import NO, OK, command, error_json, print_json, status_of, warn


@dataclass
class _Outcome:
    """What became of one destination: its plan and the error that stopped it, None without; what `--clean` removed, and
    (path, why) of what it could not remove."""

    target: str
    plan: SyncPlan | None = None
    error: FlightbagError | None = None
    removed: list[str] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)

    @property
    def status(self) -> int:
        if self.error is not None:
            return status_of(self.error)
        return NO if self.plan is None or self.plan.newer or self.plan.refused or self.left else OK


@command
def run(
    source: Annotated[str, typer.Argument(metavar="SRC", help="The store to copy from.")],
    targets: Annotated[
        list[str],
        typer.Argument(metavar="DST...", help="The stores to copy to. One that does not exist is created."),
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
    """Copy missions to other stores: only the objects that they lack, hashed while they are copied, and refs last.

    Several stores are written at once, and each object is read once. One that fails or is slow stops no other. SRC or
    a DST may be a bucket: s3://BUCKET/PREFIX, gs://… or az://….

    Example: flightbag sync ground /media/stick/store
    """
    bound = Bound(" or ".join((source, *targets)), patience_of(give_up), as_json=as_json)
    outcomes = [_Outcome(target) for target in targets]
    buckets = [one for one in outcomes if bucket_of(one.target)]
    folders = [one for one in outcomes if one not in buckets]
    if buckets and (clean or bucket_of(source)):
        what = "--clean is for folders" if clean else "a bucket is synced to folders only"
        raise Invalid(what, remedy="leave --clean out" if clean else "sync to a folder, and from there to the bucket")
    if bucket_of(source):
        with patience(bound):
            _pull(outcomes, BucketClient.connect(source), mission or (), checksum=checksum, dry_run=dry_run)
            for one in outcomes if clean else ():
                _clean(one, dry_run=dry_run)
        return _report(outcomes, as_json=as_json, dry_run=dry_run)
    with patience(bound), Repository.open(source) as source_store:
        check_targets(source_store, [one.target for one in folders])
        for one in folders:
            with _kept(one), _existing(one.target) as target_store:
                one.plan = plan_sync(source_store, target_store, mission or (), checksum=checksum)
                if clean and dry_run and target_store is not None:
                    one.removed = droppings(target_store.media)
        if folders and not dry_run:
            _apply(folders, source_store, clean=clean)
        _push(buckets, source_store, mission or (), checksum=checksum, dry_run=dry_run)
    return _report(outcomes, as_json=as_json, dry_run=dry_run)


def _report(outcomes: list[_Outcome], *, as_json: bool, dry_run: bool) -> int:
    if len(outcomes) == 1 and (error := outcomes[0].error) is not None:
        raise error
    if as_json:
        print_json(_json(outcomes, dry_run=dry_run))
    else:
        for one in outcomes:
            print_lines(_text(one, dry_run=dry_run, named=len(outcomes) > 1))
    if failed := [one.target for one in outcomes if one.error is not None]:
        whole = "the others are whole; " if len(failed) < len(outcomes) else ""
        warn(
            f"flightbag: {len(failed)} of {len(outcomes)} destinations failed: {', '.join(failed)}",
            f"  -> {whole}see what each one needs, and sync to it again: a sync goes on where it stopped",
        )
    statuses = [one.status for one in outcomes]
    return NO if NO in statuses else max(statuses)


@contextmanager
def _kept(outcome: _Outcome) -> Iterator[None]:
    """Keep the error that ends the block as that of the destination."""
    try:
        yield
    except FlightbagError as error:
        outcome.error = error


def _push(
    outcomes: list[_Outcome], source: Repository, missions: Sequence[str], *, checksum: bool, dry_run: bool
) -> None:
    """Sync to buckets, one after the other."""
    with reading_bars() as advance:
        for one in outcomes:
            with _kept(one):
                client, progress = BucketClient.connect(one.target), partial(advance, one.target)
                one.plan = push(source, client, missions, checksum=checksum, dry_run=dry_run, progress=progress)


def _pull(
    outcomes: list[_Outcome], source: BucketClient, missions: Sequence[str], *, checksum: bool, dry_run: bool
) -> None:
    """Sync from a bucket to folders, one after the other: each fetches what it lacks."""
    with reading_bars() as advance:
        for one in outcomes:
            with (
                _kept(one),
                _existing(one.target) as target,
                pulled(source, target.media if target else None, missions) as (store, far),
            ):
                plan = plan_sync(store, target, missions, checksum=checksum)
                if not dry_run:
                    progress = partial(_advance, advance, one.target, plan.bytes)
                    apply_sync(plan, store, one.target, bring=partial(far.bring, progress=progress))
                one.plan = plan


def _advance(advance: Callable[[str, int, int], None], target: str, total: int, count: int) -> None:
    advance(target, count, total)


def _clean(one: _Outcome, *, dry_run: bool) -> None:
    """Do what `--clean` asks for at a destination that has no error."""
    with _kept(one), _existing(one.target) as target:
        if one.error is None and target is not None:
            if dry_run:
                one.removed = droppings(target.media)
            else:
                one.removed, one.left = remove_droppings(target.media, target.disk)


def _apply(outcomes: list[_Outcome], source: Repository, *, clean: bool) -> None:
    plans = {one.target: one.plan for one in outcomes if one.plan is not None}
    several = len(outcomes) > 1
    with reading_bars() as advance:

        def progress(target: str, count: int) -> None:
            advance(target if several else "copying", count, plans[target].bytes)

        errors = apply_syncs(plans, source, progress=progress)
    for one in outcomes:
        one.error = one.error or errors.get(one.target)
        if clean:
            _clean(one, dry_run=False)


def _json(outcomes: list[_Outcome], *, dry_run: bool) -> dict[str, Any]:
    plans = [one.plan for one in outcomes if one.plan is not None and one.error is None]
    return {
        "copied": sum(len(plan.missing) for plan in plans),
        "bytes": sum(plan.bytes for plan in plans),
        "present": sum(plan.present for plan in plans),
        "failed": [one.target for one in outcomes if one.error is not None],
        "dry_run": dry_run,
        "destinations": [_json_of(one) for one in outcomes],
    }


def _json_of(one: _Outcome) -> dict[str, Any]:
    value: dict[str, Any] = {"target": one.target}
    if one.error is not None:
        return value | {"error": error_json(one.error)}
    assert one.plan is not None
    return value | {
        "copied": len(one.plan.missing),
        "bytes": one.plan.bytes,
        "present": one.plan.present,
        "missions": [move.mission for move in one.plan.moves],
        "unchanged": list(one.plan.unchanged),
        "newer_at_target": list(one.plan.newer),
        "refused": [{"mission": mission, "why": why} for mission, why in one.plan.refused],
        "trust_roots": list(one.plan.roots),
        "files": [file.name for file in one.plan.files],
        "removed": one.removed,
        "not_removed": [{"path": path, "why": why} for path, why in one.left],
    }


def _text(one: _Outcome, *, dry_run: bool, named: bool) -> Iterator[str]:
    indent = "  " if named else ""
    if named:
        yield one.target
    if one.error is not None:
        yield f"{indent}FAILED: {one.error.message}"
        if one.error.remedy:
            yield f"{indent}  -> {one.error.remedy}"
        return
    assert one.plan is not None
    for line in _lines(one.plan, one.removed, one.left, dry_run=dry_run):
        yield f"{indent}{line}"


def _lines(plan: SyncPlan, removed: list[str], left: list[tuple[str, str]], *, dry_run: bool) -> Iterator[str]:
    verb = "would copy" if dry_run else "copied"
    yield f"{verb} {len(plan.missing)} objects, {render.size(plan.bytes)}; {plan.present} were present"
    for word, missions in (
        ("would update" if dry_run else "updated", [move.mission for move in plan.moves]),
        ("unchanged", plan.unchanged),
        ("NOT copied, because the target has a newer one:", plan.newer),
    ):
        if missions:
            yield f"{word} {', '.join(missions)}"
    for refused, why in plan.refused:
        yield f"NOT copied: {refused}: {why}"
    if plan.roots:
        yield f"{verb} trust root {', '.join(map(str, plan.roots))}"
    for folder, count in Counter(file.name.partition("/")[0] for file in plan.files).items():
        yield f"{verb} {render.many(count, f'file of {folder}/', f'files of {folder}/')}"
    for name in removed:
        yield f"{'would remove' if dry_run else 'removed'} {name}"
    for _, why in left:
        yield f"NOT removed: {why}; remove it as a user who may (`lost+found` is of the file system, and may stay)"


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
