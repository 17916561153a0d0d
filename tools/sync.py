"""The command `sync`: copies missions to other stores, and from them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from store.errors import FlightbagError, either
from store.findings import Finding
from store.ground.cleaning import clean as remove_droppings
from store.ground.cleaning import droppings
from store.ground.plans import existing, plan_syncs
from store.ground.repository import Repository
from store.ground.seen import Seen
from store.ground.sync import SyncPlan, apply_syncs
from store.remotes.place import Bucket, Folder, Host, place_of
from store.values import replace
from tools import render
from tools.arguments import GiveUp, Json, cache_folder, leading, patience_of, print_lines
from tools.named_remotes import place_named, remote_names
from tools.parameters import Argument, Option
from tools.patience import Bound, patience
from tools.progress import reading_bars
from tools.status import NO, OK, error_json, exits, print_json, status_of, warn, writes

if TYPE_CHECKING:  # only a sync with another machine loads these
    from store.remotes.ssh import Verdicts

# Of several destinations, one that hangs is given up so many seconds, or so large a part, before the time of --give-up
# is over: the results of the others are printed in time.
_BEFORE_S, _BEFORE = 1.0, 0.1


@dataclass
class _Outcome:
    """What became of one destination: its plan and the error that stopped it, None without; what `--clean` removed, and
    (path, why) of what it could not remove. `verdicts` is what another machine says of its copy."""

    target: str
    plan: SyncPlan | None = None
    error: FlightbagError | None = None
    removed: list[str] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    verdicts: Verdicts | None = None

    @property
    def status(self) -> int:
        if self.error is not None:
            return status_of(self.error)
        if self.plan is None or self.plan.newer or self.plan.refused or self.left:
            return NO
        if self.verdicts is None:
            return OK
        from tools import remotes

        return remotes.status_of_verdicts(self.verdicts)

    @property
    def findings(self) -> list[Finding]:
        """What is wrong with the destination, where something is."""
        if self.error is not None:
            return [replace(Finding.of(self.error), path=self.target)]
        assert self.plan is not None
        found = refusals(self.plan, self.target)
        found += [Finding("unwritable", why, path=path, unreadable=True) for path, why in self.left]
        if self.verdicts is not None:
            from tools import remotes

            found += remotes.findings_of_verdicts(self.verdicts, self.target)
        return found


@exits(
    kept="what was copied whole stays at the target, and each mission there is as before or as after; "
    "the same sync goes on where it stopped",
    acts=writes,
)
def run(
    source: Annotated[
        str,
        leading(
            "The store to copy from: a folder, user@host:PATH by ssh, s3://BUCKET/PREFIX, or a named remote.",
            metavar="SRC",
            is_first=lambda _: True,
            offers=remote_names,
        ),
    ],
    targets: Annotated[
        list[str],
        Argument(
            metavar="DST",
            help="The stores to copy to: folders, user@host:PATH by ssh, s3://BUCKET/PREFIX, or named remotes. "
            "One that does not exist is created.",
            offers=remote_names,
        ),
    ],
    mission: Annotated[list[str] | None, Option(metavar="ID", help="Copy only this mission. May be repeated.")] = None,
    checksum: Annotated[
        bool, Option("--checksum", help="Also read every object of the target, and replace damaged ones.")
    ] = False,
    clean: Annotated[
        bool, Option("--clean", help="Remove from the target what operating systems drop on media.")
    ] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would be copied. Write nothing.")] = False,
    give_up: GiveUp = None,
    as_json: Json = False,
) -> int:
    """Copy missions to other stores: only the objects that they lack, hashed while they are copied, and refs last.

    Several stores are written at once, and each object is read once. One that fails or is slow stops no other.

    Example: flightbag sync ground /media/stick/store
    """
    source, targets = place_named(source), [place_named(target) for target in targets]
    bound = Bound(either([source, *targets]), patience_of(give_up), as_json=as_json)
    outcomes, begun = [_Outcome(target) for target in targets], time.monotonic()
    seen = Seen(cache_folder() / "seen")
    with patience(bound) as answered:
        # Whether an argument is a folder is a look at a medium, which may not answer.
        origin, places = place_of(source), [place_of(target) for target in targets]
        if any(not isinstance(place, Folder) for place in (origin, *places)):
            from tools import remotes

            remotes.check_places(origin, places, clean=clean)
        if not isinstance(origin, Folder):
            _from_afar(outcomes[0], origin, mission or (), checksum=checksum, clean=clean, dry_run=dry_run)
        else:
            with Repository.open(source) as source_store:
                near = [one for one, place in zip(outcomes, places, strict=True) if isinstance(place, Folder)]
                names = [one.target for one in near]
                # Alone, a destination is waited for by `patience`, which can end a process that hangs.
                until = None
                if bound.seconds is not None and len(near) > 1:
                    until = begun + bound.seconds - min(_BEFORE_S, _BEFORE * bound.seconds)
                for plans in plan_syncs(source_store, names, mission or (), checksum=checksum, seen=seen, until=until):
                    group = [one for one in near if one.target in plans]
                    for one in group:
                        plan = plans[one.target]
                        one.plan, one.error = (plan, None) if isinstance(plan, SyncPlan) else (None, plan)
                    if dry_run:
                        _show_droppings(group, clean=clean)
                    else:
                        _apply(group, source_store, clean=clean, named=len(near) > 1)
                for one, place in zip(outcomes, places, strict=True):
                    if not isinstance(place, Folder):
                        with _kept(one):
                            one.plan, one.verdicts = remotes.push(
                                source_store, place, mission or (), checksum=checksum, dry_run=dry_run
                            )
    if len(outcomes) == 1 and (error := outcomes[0].error) is not None:
        raise error
    if as_json:
        print_json(_json(outcomes, dry_run=dry_run), [finding for one in outcomes for finding in one.findings])
    else:
        for one in outcomes:
            print_lines(_text(one, dry_run=dry_run, named=len(outcomes) > 1))
    if failed := [one.target for one in outcomes if one.error is not None]:
        whole = "the others are whole; " if len(failed) < len(outcomes) else ""
        warn(
            f"flightbag: {len(failed)} of {len(outcomes)} targets failed: {', '.join(failed)}",
            f"  -> {whole}see what each one needs, and sync to it again: a sync goes on where it stopped",
        )
    statuses = [one.status for one in outcomes]
    status = NO if NO in statuses else max(statuses)
    answered(status, hangs_told=True)  # a destination that hangs keeps nobody
    return status


def _from_afar(
    one: _Outcome, origin: Host | Bucket, missions: Sequence[str], *, checksum: bool, clean: bool, dry_run: bool
) -> None:
    from tools import remotes

    with existing(one.target) as target:
        one.plan = remotes.pull(origin, one.target, target, missions, checksum=checksum, dry_run=dry_run)
        if clean and dry_run and target is not None:
            one.removed = droppings(target.media)
    if clean and not dry_run:
        _clean(one)


@contextmanager
def _kept(outcome: _Outcome) -> Iterator[None]:
    """Keep the error that ends the block as that of the destination."""
    try:
        yield
    except FlightbagError as error:
        outcome.error = error


def _show_droppings(outcomes: list[_Outcome], *, clean: bool) -> None:
    for one in outcomes:
        if clean and one.error is None:
            with _kept(one), existing(one.target) as target:
                one.removed = [] if target is None else droppings(target.media)


def _apply(outcomes: list[_Outcome], source: Repository, *, clean: bool, named: bool) -> None:
    plans = {one.target: one.plan for one in outcomes if one.plan is not None}
    totals = {target: plan.bytes for target, plan in plans.items()}  # sums, which a call for each object cannot afford
    with reading_bars() as advance:

        def progress(target: str, count: int) -> None:
            advance(target if named else "copying", count, totals[target])

        errors = apply_syncs(plans, source, progress=progress)
    for one in outcomes:
        one.error = one.error or errors.get(one.target)
        if clean and one.error is None:
            with _kept(one):
                _clean(one)


def _clean(one: _Outcome) -> None:
    with Repository.open(one.target) as target:
        one.removed, one.left = remove_droppings(target.media, target.disk)


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
    if one.verdicts is not None:
        from tools import remotes

        value["verified"] = remotes.verdicts_json(one.verdicts)
    return value | {
        "copied": len(one.plan.missing),
        "bytes": one.plan.bytes,
        "present": one.plan.present,
        "missions": [move.mission for move in one.plan.moves],
        "unchanged": list(one.plan.unchanged),
        "as_seen": list(one.plan.seen),
        "newer_at_target": list(one.plan.newer),
        "refused": [{"mission": mission, "why": why} for mission, why in one.plan.refused],
        "trust_roots": list(one.plan.roots),
        "files": [file.name for file in one.plan.files],
        "removed": one.removed,
        "not_removed": [{"path": path, "why": why} for path, why in one.left],
    }


def refusals(plan: SyncPlan, target: str = "") -> list[Finding]:
    """Return a finding for each mission that a plan does not carry."""
    found = [
        Finding("newer-at-target", f"{mission}: the target has a newer one", path=target, missions=(mission,))
        for mission in plan.newer
    ]
    return found + [
        Finding("not-carried", f"{mission}: {why}", path=target, missions=(mission,)) for mission, why in plan.refused
    ]


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
    if one.verdicts is not None:
        from tools import remotes

        for line in remotes.verdict_lines(one.verdicts):
            yield f"{indent}{line}"


def _lines(plan: SyncPlan, removed: list[str], left: list[tuple[str, str]], *, dry_run: bool) -> Iterator[str]:
    verb = "would copy" if dry_run else "copied"
    looked = "already present" if not plan.seen else "looked at again, and present"
    yield f"{verb} {render.many(len(plan.missing), 'object')}, {render.size(plan.bytes)}; {plan.present} {looked}"
    yield from effect(plan, dry_run=dry_run)
    for name in removed:
        yield f"{'would remove' if dry_run else 'removed'} {name}"
    for _, why in left:
        yield f"NOT removed: {why}; remove it as a user who may (`lost+found` is of the file system, and may stay)"


def effect(plan: SyncPlan, *, dry_run: bool) -> Iterator[str]:
    """Yield what becomes of the missions, trust roots and small files of a plan, as lines for people."""
    verb = "would copy" if dry_run else "copied"
    for word, missions in (
        ("would update" if dry_run else "updated", [move.mission for move in plan.moves]),
        ("unchanged", [mission for mission in plan.unchanged if mission not in plan.seen]),
        ("unchanged, with objects as the last sync saw them:", plan.seen),
        ("NOT copied, because the target has a newer one:", plan.newer),
    ):
        if missions:
            yield from render.listed(word, missions)
    for refused, why in plan.refused:
        yield f"NOT copied: {refused}: {why}"
    if plan.roots:
        yield from render.listed(f"{verb} trust root{'s' if len(plan.roots) > 1 else ''}", map(str, plan.roots))
    for folder, count in Counter(file.name.partition("/")[0] for file in plan.files).items():
        yield f"{verb} {render.many(count, f'file of {folder}/', f'files of {folder}/')}"
