"""Comparison of a mission file as it is now with the store: the published mission or the draft may already be what a
build would publish. `compare` states how far they are; a build that has nothing to do stops at `unchanged`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from builders.artifacts.engine import EngineTask, card_of, judge
from builders.artifacts.file import FileTask
from builders.artifacts.index import IndexTask
from builders.artifacts.plan import Plan, make_plan
from builders.artifacts.shard import ShardTask
from builders.artifacts.store import lookup_of
from builders.artifacts.task import Progress, silent
from builders.changes import artifact_changes, fact_changes, gate_changes
from builders.compose import BuildContext
from builders.imagery.coverage import Shortfall, of_list
from builders.mission.validity import Validity
from builders.report import (
    BuildReport,
    Comparison,
    CoverageReport,
    Difference,
    EngineState,
    Measured,
    rows_of,
    too_few_tiles,
)
from store.disk.index import open_index_for_reading
from store.disk.layout import ORDERS, RESULTS
from store.disk.objects import confirm_object
from store.errors import FlightbagError, Refused, Unavailable
from store.format.duration import duration_text
from store.format.entries import EntryTable
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT, Issue, Manifest
from store.format.missing import ENTRY
from store.format.release import Approval
from store.ground.issuing import Draft, draft_of, overtaken
from store.ground.orders import keys_in
from store.ground.releases import approving
from store.ground.repository import Repository
from store.ground.writer import Writer
from store.takeoff.clock import moment_of
from store.takeoff.coverage import read_missing
from store.takeoff.mission import Binding, Opened
from store.takeoff.verify import check_binding, read_table
from store.takeoff.withdrawn import withdrawn
from store.trust.root import TrustRoot


def unchanged(context: BuildContext, plan: Plan, writer: Writer, *, now: int) -> BuildReport | None:
    """Return the report of a build that has nothing to do; None where it has.

    There is nothing to do where nothing differs from the published manifest (`differences`), and its closure is whole.
    Raise Refused for an engine that is further from its source than the mission file allows now, Unavailable where
    something cannot be read. `now` is unix seconds.
    """
    if not _complete(plan):
        return None
    repository = writer.repository
    for task in plan.of(EngineTask):
        if (card := card_of(repository, task, task.present or ())) is None:
            return None
        judge(context, task, card)
    try:
        opened = repository.current(plan.facts.id)
        if next(differences(context, plan, opened, writer.check_closure, now=now), None) is not None:
            return None
        missing = _missing(plan, repository, opened)
        assert missing is not None  # else it would differ
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


def differences(
    context: BuildContext, plan: Plan, opened: Opened, check_closure: Callable[[Opened], object], *, now: int
) -> Iterator[Difference]:
    """Yield everything in which what a build would publish now differs from a manifest: the published one or a draft.

    It yields nothing only where the manifest has the plan's identity and validity, and can fly (step E, withdrawals
    included). `check_closure` raises unless its objects are there. `now` is unix seconds. Raise Unavailable where
    something cannot be read, and another FlightbagError for a manifest that is damaged.
    """
    repository, manifest = context.repository, opened.manifest
    limits = context.mission.limits
    size = sum(opened.closure().values())
    if limits is not None and limits.max_bytes is not None and size > limits.max_bytes:
        text = f"the mission has {size} bytes; limits.max_bytes allows {limits.max_bytes}"
        yield Difference("limits", "", "changed", detail=text)
    yield from _validity(plan, manifest.issue, now)
    missing, complete = _missing(plan, repository, opened), _complete(plan)
    root = repository.trust_root().root
    unproven = plan.unproven(repository, opened.table)
    if unproven != manifest.unproven or not plan.may_lack(unproven):
        # Somebody has measured it meanwhile, or the mission file demands that now.
        yield Difference("unproven", ", ".join(figure.name for figure in manifest.unproven), "changed")
    published = {(figure.name, figure.recipe) for figure in manifest.quality}
    gates = plan.gates_beside(published, missing or plan.shortfall)
    recipes = {figure.recipe for figure in unproven}
    measured = tuple(gate for gate in gates if gate.recipe not in recipes)
    releases = releases_of(repository, root, plan)[0] if complete else ()
    if missing is None or not complete or manifest.identity != plan.identity(missing, measured, unproven, releases):
        # The identity decides; what follows names what it is made of.
        named = [*fact_changes(plan, manifest, missing), *artifact_changes(context, plan, opened)]
        if complete and releases != manifest.releases:
            named.append(Difference("releases", "", "changed"))
        named += gate_changes(gates, manifest)
        yield from named or [Difference("other", "", "changed", detail="a figure is measured in another way now")]
    # The identity does not tell where a file lay.
    for file in plan.of(FileTask):
        entry = opened.table.find(file.name)
        if entry is not None and entry != file.entry and entry.id == file.id:
            yield Difference("file", file.name, "changed", detail="it lies elsewhere now")
    binding = Binding(now, proof=False)
    for finding in withdrawn(repository.evidence, opened).findings:
        text = f"{finding.message}. What a build issues flies again: ask first who withdrew it"
        yield Difference("withdrawn", "", "changed", detail=text)
    for finding in check_binding(repository.evidence, opened, plan.facts.id, binding, moment_of(opened, binding)):
        if finding.kind != "not-yet-valid":
            yield Difference("other", "", "changed", detail=finding.message)  # it could not fly, now or later
    check_closure(opened)
    # Equal keys are not equal objects: the cards of another station's engines judge those (decision 0011).
    objects = {entry.name: (entry.id, entry.size) for entry in opened.table.entries}
    for task in plan.of(EngineTask):
        entry = opened.table.find(task.name)
        if entry is None or entry.key != task.recipe.key or not task.complete:
            continue  # it differs already
        card = card_of(repository, task, tuple(objects[name] for name in task.names if name in objects))
        why = "its card is of another engine, or does not show the checks that the mission file asks for"
        try:
            if card is not None:
                judge(context, task, card)
                continue
        except Refused as error:
            why = error.message
        yield Difference("engine", task.name, "changed", detail=why)


def _complete(plan: Plan) -> bool:
    return all(task.complete for task in plan.tasks if isinstance(task, EngineTask | ShardTask | IndexTask))


def _validity(plan: Plan, issue: Issue, now: int) -> Iterator[Difference]:
    start, end = plan.validity.window(issue.issued_at)
    given = {"valid_from": issue.valid_from == start, "expires_at": issue.expires_at == end}
    fields = [name for name, equal in given.items() if not equal]
    if fields:
        yield Difference("validity", "", "changed", tuple(fields))
    elif not plan.validity.kept_by(issue, now=now):
        text = f"less than half of its {duration_text(plan.validity.length or 0)} is left, and a build issues it again"
        yield Difference("validity", "", "due", detail=text)


def releases_of(
    repository: Repository, trust_root: TrustRoot, plan: Plan
) -> tuple[tuple[ObjectId, ...], tuple[Approval, ...]]:
    """Return the releases that the manifest has to name, and what none approves; nothing where the trust root requires
    no releases. The store has every engine and index of the plan."""
    if trust_root.releases != "required":
        return (), ()
    approvals = [one for task in plan.of(EngineTask) for one in task.approvals]
    approvals += [one for task in plan.of(IndexTask) for one in task.approvals]
    return approving(repository, trust_root, approvals)


def compare(context: BuildContext, progress: Progress = silent, *, now: int) -> Comparison:
    """Return a mission file as it is now beside the published mission and its draft, without writing a byte.

    It decodes and compiles nothing, and reads no tile of sources that have not changed since they were read. Of the
    objects that a manifest needs it reads what a build would: those that may have changed since they were last read
    whole. `now` is unix seconds. Raise Unavailable where something cannot be read, Invalid where the mission file or
    what it names is not in order.
    """
    repository = context.repository
    with lookup_of(repository) as lookup:
        plan = make_plan(context, lookup, progress, now=now, remembered=True)

    def to_manifest(read: Callable[[], Opened]) -> tuple[Difference, ...]:
        found: list[Difference] = []
        try:
            found += differences(context, plan, read(), partial(_check_objects, repository), now=now)
        except Unavailable:
            raise
        except FlightbagError as error:
            found.append(Difference("store", "", "lost", detail=error.message))
        return tuple(found)

    def draft() -> Opened:
        return draft_of(repository, plan.facts.id).opened(repository.evidence, repository.trust_root().root)

    mission = plan.facts.id
    published: tuple[Difference, ...] = (Difference("mission", mission, "new"),)
    if mission in repository.missions():
        published = to_manifest(lambda: repository.current(mission))
    return Comparison(
        differences=published,
        draft=to_manifest(draft) if mission in repository.evidence.drafts() else None,
        refused=tuple(_refused(context, plan)),
        engines=tuple(_engines(repository, plan)),
        artifacts=len(plan.tasks),
        missing=sum(not task.complete for task in plan.tasks),
        notes=(*context.notes, *plan.inventory.gaps, *plan.hints),
    )


def _check_objects(repository: Repository, opened: Opened) -> None:
    """Raise unless each object that a manifest names is whole, as `Writer.check_closure` does, and write nothing. The
    manifest itself was read, and of a draft is no object."""
    index = open_index_for_reading(repository.media)
    try:
        for id_, size in opened.closure().items():
            if id_ != opened.manifest_id:
                confirm_object(repository.media, index, id_, size)
        for release in opened.manifest.releases:
            repository.evidence.object(release, ENVELOPE_LIMIT)
    finally:
        if index is not None:
            index.close()


def _refused(context: BuildContext, plan: Plan) -> Iterator[Difference]:
    if not plan.gates.allows(plan.shortfall.missing, plan.inventory.tiles):
        yield Difference("coverage", "tiles", "refused", detail=too_few_tiles(plan.shortfall, plan.gates))
    for task in plan.of(EngineTask):
        card = card_of(context.repository, task, task.present or ())
        try:
            if card is not None:
                judge(context, task, card)
        except Refused as error:
            yield Difference("engine", task.name, "refused", detail=error.message)


def _engines(repository: Repository, plan: Plan) -> Iterator[EngineState]:
    """Yield the engines that are ordered, that a result is there of, or that have to be ordered."""
    ordered, results = set(keys_in(repository.media, ORDERS)), set(keys_in(repository.media, RESULTS))
    for task in plan.of(EngineTask):
        key = task.recipe.key
        if key in ordered:
            yield EngineState(task.spec.backbone, str(key), "result" if key in results else "ordered")
        elif task.present is None and task.backend.makes(task.host):
            yield EngineState(task.spec.backbone, str(key), "to order")


def _missing(plan: Plan, repository: Repository, opened: Opened) -> Shortfall | None:
    """Return the missing tiles, if the published list of them still holds; None where it is another list.

    The list says which tiles have bad bytes. Those bytes are in the identity, so the list holds if the identity does.
    What the sources and the gates say of tiles is computed now.
    """
    if opened.table.find(ENTRY) is None:
        return plan.shortfall if plan.shortfall.missing == 0 else None
    return of_list(plan.inventory, plan.gates, read_missing(opened, repository.evidence))


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
