"""`store-fsck`, also `flightbag fsck`: the audit and the repair, with the statuses of fsck(8).

0 says no more than that no error was found: the verdict is `clean`, and a mission `flyable`, only if every object was
read (`--full`).
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

from store.audit.fsck import Audit, fsck
from store.audit.ledger import Ledger
from store.audit.repair import repair
from store.audit.repair_plan import RepairPlan, plan_repair
from store.audit.scope import Scope
from store.disk.layout import open_store
from store.disk.media import Media
from store.errors import Invalid, Unavailable
from store.findings import Finding
from store.format.duration import seconds_of
from store.ground.repository import Repository
from store.remotes.place import bucket_of
from store.values import replace
from tools import render
from tools.arguments import DropCache, GiveUp, Json, Store, patience_of, print_lines
from tools.commands import command_of
from tools.named_remotes import folder_named, store_named
from tools.parameters import Option
from tools.patience import Bound, patience
from tools.program import run_program
from tools.progress import reading_bar, work_bars
from tools.status import READER_GONE, exits, fail, print_json, say, warn
from tools.streams import OutputLost

CLEAN, CORRECTED, ERRORS, COULD_NOT_CHECK, USAGE, CANCELLED = 0, 1, 4, 8, 16, 32
# What each says, for people. They are bits, and add up: 12 means that errors are left, and that something could not be
# checked.
MEANINGS = {
    CLEAN: "no errors found",
    CORRECTED: "errors were corrected",
    ERRORS: "errors are left",
    COULD_NOT_CHECK: "something could not be checked: there is no store, or not all of it can be read",
    USAGE: "wrong arguments",
    CANCELLED: "interrupted",
    READER_GONE: "nobody reads the output",
}

Quick = Annotated[
    bool,
    Option(
        "--quick",
        help="Check names, types, sizes, refs, signatures and closures. The default. No object is read in full.",
    ),
]
Full = Annotated[bool, Option("--full", help="Also read and hash every byte of every object.")]
Sample = Annotated[
    str | None, Option(help="Also read and hash this part of the objects, chosen at random.", metavar="10%")
]
Budget = Annotated[
    str | None,
    Option(help="Also read and hash objects for this time, the longest unread first.", metavar="60s"),
]
Mission = Annotated[str, Option(help="Audit only what this mission needs.", metavar="ID")]
Exclusive = Annotated[
    bool, Option("--exclusive", help="Report an object that no mission needs as an error. For an aircraft.")
]
LedgerFile = Annotated[
    Path | None,
    Option("--ledger", metavar="FILE", help="A file outside the store that remembers when each object was last read."),
]
Repair = Annotated[
    bool, Option("--repair", help="Mend the store where possible. Without this nothing is written in it.")
]
From = Annotated[list[str] | None, Option("--from", metavar="STORE", help="A store to mend from. May be repeated.")]
DryRun = Annotated[bool, Option("--dry-run", help="With --repair: show what would be done. Write nothing.")]


@exits(
    error_status=lambda _: COULD_NOT_CHECK,
    unknown=COULD_NOT_CHECK,
    interrupted=CANCELLED,
    kept="an audit changes nothing, and of a repair each step is done or not; run it again",
    good=(CLEAN, CORRECTED),
)
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
    give_up: GiveUp = None,
    as_json: Json = False,
) -> int:
    """Audit a store, name each damage and the missions that it grounds, and with --repair mend the store.

    Only --full reads every byte: a mission is flyable if each of its objects was
    read, else it is complete, not read. STORE may be a bucket, s3://BUCKET/PREFIX, or a named
    remote.

    The command is also installed as store-fsck. Its statuses are those of fsck(8).

    Example: flightbag fsck ground --full
    """
    try:
        store = store_named(store)
        source = [folder_named(one, "--from") for one in source or ()]
        bucket = bucket_of(store)
        scope = _scope(quick=quick, full=full, sample=sample, budget=budget, mission=mission, exclusive=exclusive)
        if (source or dry_run) and not repairing:
            raise Invalid("--from and --dry-run need --repair", remedy="add --repair, or leave them out")
        if bucket and (repairing or drop_cache or ledger is not None):
            text = "--repair, --drop-cache and --ledger are for folders"
            raise Invalid(
                text, remedy=f"leave them out; `flightbag sync --checksum STORE {bucket}` from a whole store mends it"
            )
        bound = Bound(store, patience_of(give_up), COULD_NOT_CHECK, CANCELLED, as_json)
        if repairing and bound.seconds is not None:
            raise Invalid("--give-up excludes --repair", remedy="audit with --give-up first, then repair")
        if ledger is not None and Path(os.path.realpath(ledger)).is_relative_to(os.path.realpath(store)):
            raise Invalid(
                f"the ledger {ledger} lies in the store, and an audit writes nothing there",
                remedy="give a file outside the store",
            )
    except Invalid as error:
        fail(error, as_json=as_json)
        return USAGE
    corrected, notes = 0, list[Finding]()
    if bucket:
        from store.remotes.bucket import BucketClient
        from store.remotes.bucket_audit import fsck_bucket

        with patience(bound), reading_bar("reading") as progress:
            audit = fsck_bucket(BucketClient.connect(store), scope, progress=progress)
        return _report(audit, store, scope, as_json=as_json)
    with patience(bound), ExitStack() as stack:
        opened_ledger = None if scope.read == "quick" else _ledger(ledger, store, notes)
        if opened_ledger is not None:
            stack.enter_context(opened_ledger)

        def audited(media: Media, wanted: Scope) -> Audit:
            if wanted.read == "quick":
                return fsck(media, wanted)
            # The bar is removed before anything is printed.
            with reading_bar("reading") as progress:
                return fsck(media, wanted, ledger=opened_ledger, progress=progress)

        replicas = [stack.enter_context(Repository.open(one)) for one in source or ()]

        plans: list[RepairPlan] = []

        def show(plan: RepairPlan) -> None:
            plans.append(plan)
            # A repair that has begun goes on though nobody reads its plan. The report after it fails likewise.
            with suppress(OutputLost):
                if not as_json:
                    print_lines(render.repair_plan(plan))

        if not repairing:
            with open_store(store, drop_cache=drop_cache or None) as media:
                audit = audited(media, scope)
        elif dry_run:
            with Repository.open(store) as repository:
                with open_store(store, drop_cache=drop_cache or None) as media:
                    audit = audited(media, scope)
                plan = plan_repair(repository, audit, replicas)
                show(plan)
                if plan.steps and not as_json:
                    say("after these steps a repair audits the store again, and shows each further step first")
        else:
            repaired = repair(
                store, scope, replicas, audited=audited, show=show, bars=work_bars, drop_cache=drop_cache or None
            )
            audit, corrected = repaired.audit, len(repaired.steps)
    return _report(audit, store, scope, plans, notes, as_json=as_json, corrected=corrected)


def _scope(*, quick: bool, full: bool, sample: str | None, budget: str | None, mission: str, exclusive: bool) -> Scope:
    if quick + full + (sample is not None) + (budget is not None) > 1:
        raise Invalid("--quick, --full, --sample and --budget exclude each other", remedy="give one of them")
    if full:
        return Scope("full", 0, mission, exclusive)
    if sample is not None:
        return Scope("sample", _percent(sample), mission, exclusive)
    if budget is not None:
        return Scope("budget", seconds_of(budget), mission, exclusive)
    return Scope("quick", 0, mission, exclusive)


def _percent(text: str) -> float:
    try:
        return float(text.removesuffix("%")) / 100
    except ValueError:
        raise Invalid(f"--sample {text!r} is not a percentage", remedy="give a percentage like 10%") from None


def _ledger(given: Path | None, store: str, notes: list[Finding]) -> Ledger | None:
    """Return the given ledger, or the user's own; None, with a warning and a note, where that cannot be opened."""
    if given is not None:
        return Ledger(given)
    try:
        return Ledger(ledger_path(store))
    except Unavailable as error:
        warn(f"store-fsck: this audit cannot be remembered in the ledger: {error.message}", f"  -> {error.remedy}")
        notes.append(replace(Finding.of(error), information=True))
        return None


def ledger_path(store: str) -> str:
    """Return the path of a store's ledger: in the user's state directory, named by path, device and inode."""
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


def _read_all(store: str, scope: Scope) -> str:
    """Return the command of an audit of the same scope that reads every byte."""
    more = ["--mission", scope.mission] if scope.mission else ["--exclusive"] if scope.exclusive else []
    return shlex.join(["store-fsck", store, "--full", *more])


def _report(
    audit: Audit,
    store: str,
    scope: Scope,
    plans: Sequence[RepairPlan] = (),
    notes: Sequence[Finding] = (),
    *,
    as_json: bool,
    corrected: int = 0,
) -> int:
    status = _status(audit, corrected)
    if audit.forgetful:
        text = f"this audit is not remembered in the ledger: {audit.forgetful}"
        warn(f"store-fsck: {text}")
        notes = [*notes, Finding("unwritable", text, information=True)]
    if not as_json:
        print_lines(render.audit(audit, _read_all(store, scope)))  # its last line says how to read the rest
        return status
    value = {
        "missions": [{"mission": name, "state": state} for name, state in audit.missions.items()],
        "plans": [_plan_json(plan) for plan in plans],
        "verdict": render.audit_verdict(audit),
        "level": scope.read,
        "objects": audit.objects,
        "bytes": audit.bytes,
        "read_objects": audit.read_objects,
        "read_bytes": audit.read_bytes,
        "unread_objects": audit.unread,
        "errors": audit.errors,
        "inconclusive": audit.inconclusive,
        "notes": audit.notes,
        "corrected": corrected,
        "from_medium": audit.reading.from_medium,
        "doubt": audit.reading.doubt,
    }
    print_json(value, [*audit.findings, *notes])
    return status


def _plan_json(plan: RepairPlan) -> dict[str, Any]:
    unsolved = [finding.as_json() for finding in plan.unsolved]
    return {"steps": [step.as_json() for step in plan.steps], "index": plan.index, "unsolved": unsolved}


def main() -> None:
    """Run the program `store-fsck`."""
    run_program(command_of("store-fsck", run), usage=USAGE, could_not_do=COULD_NOT_CHECK)
