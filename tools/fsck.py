"""`store-fsck`, also `flightbag fsck`: the audit and the repair, with the statuses of fsck(8).

    0  clean        1  errors were corrected
    4  errors left  8  could not check  16  usage  32  cancelled
Statuses add up: 12 is errors and something that could not be checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from store.audit.fsck import Audit, fsck
from store.audit.ledger import Ledger
from store.audit.repair import repair
from store.audit.repair_plan import RepairPlan, plan_repair
from store.audit.scope import Scope
from store.disk.media import Media
from store.errors import Invalid, Unavailable
from store.findings import Finding
from store.ground.repository import Repository
from tools import render
from tools.arguments import Store, duration, print_lines
from tools.program import run_program
from tools.progress import reading_bar
from tools.status import exits, fail, say
from tools.streams import OutputLost

CLEAN, CORRECTED, ERRORS, COULD_NOT_CHECK, USAGE, CANCELLED = 0, 1, 4, 8, 16, 32

Quick = Annotated[bool, typer.Option("--quick", help="Names, types, sizes, refs, signatures, closures (the default).")]
Full = Annotated[bool, typer.Option("--full", help="Every byte of every object besides.")]
Sample = Annotated[str | None, typer.Option(help="Every byte of a random part of the objects.", metavar="10%")]
Budget = Annotated[str | None, typer.Option(help="Bytes for so long, the longest unread first.", metavar="60s")]
Mission = Annotated[str, typer.Option(help="Only what this mission needs.", metavar="ID", show_default=False)]
Exclusive = Annotated[bool, typer.Option("--exclusive", help="What no mission needs is an error: for an aircraft.")]
DropCache = Annotated[bool, typer.Option("--drop-cache", help="Read the medium, not the page cache.")]
LedgerFile = Annotated[
    Path | None, typer.Option("--ledger", help="When each object was last read; kept outside the store.")
]
Repair = Annotated[bool, typer.Option("--repair", help="Mend what can be mended. Without it nothing is written.")]
From = Annotated[list[str] | None, typer.Option("--from", help="A store to mend from; may be repeated.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --repair: say what would be done; write nothing.")]
Json = Annotated[bool, typer.Option("--json", help="A JSON document a line: plans, findings, missions, summary.")]


@exits(error_status=lambda _: COULD_NOT_CHECK, unknown=COULD_NOT_CHECK, interrupted=CANCELLED)
def run(
    store: Store,
    quick: Quick = False,
    full: Full = False,
    sample: Sample = None,
    budget: Budget = None,
    mission: Mission = "",
    exclusive: Exclusive = False,
    drop_cache: DropCache = False,
    ledger: LedgerFile = None,
    repairing: Repair = False,
    source: From = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Audits a store, and with --repair mends it."""
    try:
        scope = _scope(quick=quick, full=full, sample=sample, budget=budget, mission=mission, exclusive=exclusive)
        if (source or dry_run) and not repairing:
            raise Invalid("--from and --dry-run belong to --repair")
        if ledger is not None and Path(os.path.realpath(ledger)).is_relative_to(os.path.realpath(store)):
            raise Invalid(f"{ledger} lies in the store, where an audit writes nothing", remedy="give another file")
    except Invalid as error:
        fail(error, as_json=as_json)
        return USAGE
    with ExitStack() as stack:
        book = None if scope.read == "quick" else _ledger(ledger, store)
        if book is not None:
            stack.enter_context(book)

        def audited(media: Media, wanted: Scope, tell: Callable[[Finding], None] | None = None) -> Audit:
            if wanted.read == "quick":
                return fsck(media, wanted, on_finding=tell)
            # Gone before anything is printed.
            with reading_bar("reading") as progress:
                return fsck(media, wanted, ledger=book, on_finding=tell, progress=progress)

        if not repairing:
            with Media(store, drop_cache=drop_cache) as media:
                audit = audited(media, scope, _line if as_json else None)
            return _told(audit, scope, as_json=as_json)
        replicas = [stack.enter_context(Repository.open(one)) for one in source or ()]

        def show(plan: RepairPlan) -> None:
            # A repair that has begun goes on though nobody reads its plan. The report after it fails likewise.
            with suppress(OutputLost):
                if as_json:
                    _plan_line(plan)
                else:
                    print_lines(render.repair_plan(plan))

        if dry_run:
            with Repository.open(store) as repository:
                with Media(store, drop_cache=drop_cache) as media:
                    audit = audited(media, scope)
                plan = plan_repair(repository, audit, replicas)
                show(plan)
                if plan.steps and not as_json:
                    say("what these steps bring to light is planned then, and shown before it is done")
            return _told(audit, scope, as_json=as_json, lines=as_json)
        done = repair(store, scope, replicas, audited=audited, show=show, drop_cache=drop_cache)
    return _told(done.audit, scope, as_json=as_json, lines=as_json, corrected=len(done.steps))


def _scope(*, quick: bool, full: bool, sample: str | None, budget: str | None, mission: str, exclusive: bool) -> Scope:
    if quick + full + (sample is not None) + (budget is not None) > 1:
        raise Invalid("--quick, --full, --sample and --budget exclude each other")
    if full:
        return Scope("full", 0, mission, exclusive)
    if sample is not None:
        return Scope("sample", _percent(sample), mission, exclusive)
    if budget is not None:
        return Scope("budget", duration(budget), mission, exclusive)
    return Scope("quick", 0, mission, exclusive)


def _percent(text: str) -> float:
    try:
        return float(text.removesuffix("%")) / 100
    except ValueError:
        raise Invalid(f"--sample {text!r} is no percentage", remedy="give one like 10%") from None


def _ledger(given: Path | None, store: str) -> Ledger | None:
    """The ledger that was asked for, or the user's own; None, and said so, for a user who may not have one."""
    if given is not None:
        return Ledger(given)
    try:
        return Ledger(_ledger_path(store))
    except Unavailable as error:
        say(f"store-fsck: what is read now is not remembered: {error.message}", sys.stderr)
        say(f"  -> {error.remedy}", sys.stderr)
        return None


def _ledger_path(store: str) -> str:
    """Where the ledger of a store lies: in the user's state directory, under the store's path, device and inode."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    try:
        status = os.stat(store)
        place = f"{os.path.realpath(store)}\0{status.st_dev}\0{status.st_ino}"
    except OSError:
        place = os.path.realpath(store)
    name = hashlib.blake2b(os.fsencode(place), digest_size=16).hexdigest()
    return os.path.join(base, "flightbag", f"{name}.ledger")


def _status(audit: Audit, corrected: int) -> int:
    status = (ERRORS if audit.errors else CLEAN) | (COULD_NOT_CHECK if audit.inconclusive else CLEAN)
    return status | (CORRECTED if corrected else CLEAN)


def _told(audit: Audit, scope: Scope, *, as_json: bool, lines: bool = False, corrected: int = 0) -> int:
    status = _status(audit, corrected)
    if audit.forgetful:
        say(f"store-fsck: what was read is not remembered: {audit.forgetful}", sys.stderr)
    if not as_json:
        print_lines(render.audit(audit))
        return status
    if lines:
        for finding in audit.findings:
            _line(finding)
    for name, flyable in audit.missions.items():
        _json("mission", {"mission": name, "flyable": flyable})
    summary = {
        "status": status,
        "level": scope.read,
        "objects": audit.objects,
        "bytes": audit.bytes,
        "read_objects": audit.read_objects,
        "read_bytes": audit.read_bytes,
        "errors": audit.errors,
        "inconclusive": audit.inconclusive,
        "notes": audit.notes,
        "corrected": corrected,
    }
    _json("summary", summary)
    return status


def _json(kind: str, value: dict[str, Any]) -> None:
    """One line for machines."""
    say(json.dumps({"type": kind, **value}, sort_keys=True))


def _line(finding: Finding) -> None:
    _json("finding", finding.as_json())


def _plan_line(plan: RepairPlan) -> None:
    unsolved = [finding.as_json() for finding in plan.unsolved]
    _json("plan", {"steps": [step.as_json() for step in plan.steps], "index": plan.index, "unsolved": unsolved})


def main() -> None:
    """The program `store-fsck`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name="store-fsck")(run)
    run_program(app, usage=USAGE, could_not_do=COULD_NOT_CHECK)
