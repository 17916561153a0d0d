"""Comparison of a build with the store: the published mission or the draft may already be what it would publish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from builders.artifacts.engine import EngineBuilder, EngineTask, card_of
from builders.artifacts.file import FileTask
from builders.artifacts.index import IndexTask
from builders.artifacts.plan import Plan
from builders.artifacts.shard import ShardTask
from builders.imagery.coverage import Shortfall, of_list
from builders.mission.validity import Validity
from builders.report import BuildReport, CoverageReport, Measured, rows_of
from store.errors import FlightbagError, Unavailable
from store.format.entries import EntryTable
from store.format.ids import ObjectId
from store.format.manifest import Manifest
from store.format.missing import ENTRY
from store.ground.issuing import Draft, draft_of, overtaken
from store.ground.repository import Repository
from store.ground.writer import Writer
from store.takeoff.clock import moment_of
from store.takeoff.coverage import read_missing
from store.takeoff.mission import Binding, Opened
from store.takeoff.verify import check_binding, read_table
from store.takeoff.withdrawn import withdrawn
from store.trust.root import TrustRoot


def unchanged(
    plan: Plan,
    writer: Writer,
    builder: EngineBuilder,
    releases_of: Callable[[Plan], tuple[ObjectId, ...]],
    *,
    now: int,
    max_bytes: int | None,
) -> BuildReport | None:
    """Return the report of a build that has nothing to do; None where it has.

    There is nothing to do where the published manifest has the plan's identity and validity, verifies, can fly
    (step E, withdrawals included), and its closure is whole. Raise Refused for an engine that is further from its
    source than the mission file allows now, Unavailable where something cannot be read. `releases_of` are the
    releases that the manifest has to name, `max_bytes` is what `[limits]` allows; `now` is unix seconds.
    """
    if not all(task.complete for task in plan.of(ShardTask)) or not all(task.complete for task in plan.of(IndexTask)):
        return None
    engines = [engine for task in plan.of(EngineTask) if (engine := builder.present(task)) is not None]
    if len(engines) < len(plan.of(EngineTask)):
        return None
    for engine in engines:
        builder.judge(engine.task, engine.card)
    others = (task for task in plan.tasks if not isinstance(task, EngineTask))
    plan = replace(plan, tasks=(*(engine.task for engine in engines), *others))
    repository = writer.repository
    try:
        opened = repository.current(plan.facts.id)
        if max_bytes is not None and sum(opened.closure().values()) > max_bytes:
            return None  # the build says by how much
        missing = _missing(plan, writer, opened)
        if missing is None:
            return None
        if not plan.validity.kept_by(opened.manifest.issue, now=now):
            return None
        unproven = plan.unproven(repository, opened.table)
        if unproven != opened.manifest.unproven or not plan.may_lack(unproven):
            return None  # somebody has measured it meanwhile, or the mission file demands that now
        published = {(figure.name, figure.recipe) for figure in opened.manifest.quality}
        gates = plan.gates_beside(published, missing)
        recipes = {figure.recipe for figure in unproven}
        measured = tuple(gate for gate in gates if gate.recipe not in recipes)
        if opened.manifest.identity != plan.identity(missing, measured, unproven, releases_of(plan)):
            return None
        if any(opened.table.find(task.name) != task.entry for task in plan.of(FileTask)):
            return None  # the identity does not tell where a file lay
        binding = Binding(now, proof=False)
        findings = check_binding(repository.evidence, opened, plan.facts.id, binding, moment_of(opened, binding))
        if withdrawn(repository.evidence, opened).findings:
            return None  # publish it again: what is issued later flies
        if any(finding.kind != "not-yet-valid" for finding in findings):
            return None  # it could not fly, now or later
        writer.check_closure(opened)
        # Equal keys are not equal objects: the cards of another station's engines judge those (decision 0011).
        objects = {entry.name: (entry.id, entry.size) for entry in opened.table.entries}
        for task in plan.of(EngineTask):
            card = card_of(repository, task, tuple(objects[name] for name in task.names if name in objects))
            if card is None:
                return None
            builder.judge(task, card)
    except Unavailable:
        raise
    except FlightbagError:
        return None  # absent or damaged: then there is something to do
    entries = opened.table.entries
    return BuildReport(
        outcome="unchanged",
        mission=plan.facts.id,
        coverage=CoverageReport.of(missing, {}),
        manifest=str(opened.manifest_id),
        sequence=opened.manifest.issue.sequence,
        signing_code=opened.signing_code,
        valid_from=opened.manifest.issue.valid_from,
        expires_at=opened.manifest.issue.expires_at,
        artifacts=tuple(sorted(rows_of(entries), key=lambda row: row.name)),
        figures=tuple(Measured.signed(figure) for figure in opened.manifest.quality),
        unproven=opened.manifest.unproven,
        not_measured=plan.unmeasured,
        rows=sum(entry.meta["rows"] for entry in entries if entry.kind == "descriptors"),
    )


def _missing(plan: Plan, writer: Writer, opened: Opened) -> Shortfall | None:
    """Return the missing tiles, if the published list of them still holds; None where it is another list.

    The list says which tiles have bad bytes. Those bytes are in the identity, so the list holds if the identity does.
    What the sources and the gates say of tiles is computed now.
    """
    if opened.table.find(ENTRY) is None:
        return plan.shortfall if plan.shortfall.missing == 0 else None
    return of_list(plan.inventory, plan.gates, read_missing(opened, writer.repository.evidence))


def equal_draft(
    repository: Repository,
    manifest: Manifest,
    table: EntryTable,
    trust_root: TrustRoot,
    validity: Validity,
    *,
    now: int,
) -> Draft | None:
    """Return the mission's draft, if it already says what this manifest says, entry by entry; None otherwise. Its
    validity may have begun earlier (see `Validity.kept_by`).

    Signatures are then added to that draft. Raise Unavailable where it cannot be read. `now` is unix seconds.
    """
    try:
        draft = draft_of(repository, manifest.mission.id)
        if draft.manifest.identity != manifest.identity or draft.manifest.quality != manifest.quality:
            return None
        if overtaken(repository, draft.manifest, trust_root, now=now):
            return None
        # The draft began unsigned: only what this build made may be signed.
        if read_table(repository.evidence, draft.manifest) != table:
            return None
        if not validity.kept_by(draft.manifest.issue, now=now):
            return None
    except Unavailable:
        raise
    except FlightbagError:
        return None  # there is no draft, or it or an object that it needs is damaged
    return draft
