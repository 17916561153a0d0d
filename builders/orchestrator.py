"""Prepare missions: idempotent, inserting only what is missing. It signs nothing, and publishes nothing.

The way of a build:

    mission file -> inventory -> plan (present | missing) -> work units -> objects -> entries -> table -> manifest

`builders.publication` runs this in a confined process (decision 19), then signs the manifest and publishes it. What a
build that fails has finished is in the store, under its build key, for the next one. One build runs per mission, and
one per group of keys across processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from builders.artifacts import engine, index, probe, shard
from builders.artifacts.engine import BuiltEngine, EngineBuilder, EngineTask, look_up_steps
from builders.artifacts.executor import Executor, LocalExecutor
from builders.artifacts.figures import FigureMeter
from builders.artifacts.file import FileTask, store_file
from builders.artifacts.index import IndexBuilder, IndexTask
from builders.artifacts.missing import store_lists
from builders.artifacts.plan import Plan, make_plan
from builders.artifacts.probe import ProbeBuilder, ProbeTask
from builders.artifacts.shard import BuiltMap, ShardBuilder, ShardTask, forget_networks, origins_by_set
from builders.artifacts.store import ArtifactStore
from builders.artifacts.supply import Supply
from builders.artifacts.task import Artifact, Progress, silent
from builders.comparison import equal_draft, releases_of, unchanged
from builders.compose import BuildContext
from builders.imagery.coverage import Shortfall, shortfall, with_views
from builders.imagery.inventory import Inventory
from builders.report import BuildReport, CoverageReport, rows_of, too_few_tiles, too_large, too_low
from store.format.entries import EntryTable, sorted_table
from store.format.ids import ObjectId
from store.format.manifest import Manifest
from store.ground.issuing import highest_issued, last_issued, next_issue, size_of
from store.ground.writer import Writer, writing
from store.trust.root import TrustRoot


@dataclass(frozen=True, slots=True)
class Payload:
    """What is to be signed: a manifest, and its entry table. With `draft` it is the manifest of the mission's draft,
    whose signatures stay. `lacking` says why nobody may sign it yet, "" where nothing is lacking."""

    manifest: Manifest
    table: EntryTable
    draft: bool
    lacking: str


def prepare(
    context: BuildContext,
    *,
    keys: int,
    now: int,
    progress: Progress = silent,
    remembered: bool = True,
    supply: Supply | None = None,
    executor: Executor | None = None,
) -> tuple[BuildReport, Payload | None]:
    """Build what is missing, walk the coverage, and return the report, with what is to be signed if something is.

    The caller holds the mission's lock. The report says `failed`, with every missing tile and its reason, where the
    coverage is not what the policy demands; other failures raise. `keys` is the number of keys that will sign; `now` is
    unix seconds and becomes the time of issue. Without `remembered` every tile is read, also where no source has
    changed since the last time. `supply` is what a shared cache offers. `executor` runs the work units, this machine
    where it is None.
    """
    repository = context.repository
    trust_root = repository.trust_root().root
    with writing(repository) as writer:
        store = ArtifactStore(writer, now, supply)
        run = _Build(context, writer, store, executor or LocalExecutor(), trust_root, keys, now, progress)
        try:
            return run.run(remembered=remembered)
        finally:
            forget_networks()  # also where an engine fails to compile


DRAFT_GONE = "the draft is discarded: what is published says what the mission file says, and the draft something else"


@dataclass(frozen=True)
class _Build:
    """One run of `build`, behind the mission's lock."""

    context: BuildContext
    writer: Writer
    store: ArtifactStore
    executor: Executor
    trust_root: TrustRoot
    keys: int
    now: int
    progress: Progress

    def run(self, *, remembered: bool) -> tuple[BuildReport, Payload | None]:
        plan = self.supplied(self.plan(remembered=remembered), remembered=remembered)
        if (report := self.unchanged(plan)) is not None:
            return report, None
        if not plan.fresh:
            # A published mission rests on tiles that were read, not on a file that looks unchanged.
            plan = self.plan(remembered=False)
        shards = ShardBuilder(self.context, self.store, plan.inventory, self.executor, self.progress)
        if not plan.gates.allows(plan.shortfall.missing, plan.inventory.tiles):
            # Decoding finds the bad tiles: nothing is embedded for a mission that cannot be published.
            for level in plan.inventory.levels:
                shards.judge(level.zoom, level.required)
            return self.too_few_tiles(plan, self.shortfall(plan, shards), shards), None
        objects = {id_: (name, size) for task in plan.tasks for name, (id_, size) in task.objects.items()}
        if why := self.over_budget(objects, {}):
            return BuildReport("failed", plan.facts.id, CoverageReport.of(plan.shortfall, {}), why=why), None

        engines = self.engines(plan, shards)
        built = shards.shards(plan.of(ShardTask))
        # No view decoded the tiles that no whole view shows; they may be bad as well.
        for level in plan.inventory.levels:
            shards.judge(level.zoom, plan.without_view(level.zoom))
        views = origins_by_set(plan.sets, ((one.task, one.origins) for one in built.values()))
        missing = with_views(self.shortfall(plan, shards), views)
        if not plan.gates.allows(missing.missing, plan.inventory.tiles):
            return self.too_few_tiles(plan, missing, shards), None
        map_ = BuiltMap(self.store, plan.inventory, built, missing)
        map_.require_rows(plan.sets, self.context.path)
        probe_builder = ProbeBuilder(self.context, self.store, map_)
        probes = [probe_builder.build(task) for task in plan.of(ProbeTask)]
        index_builder = IndexBuilder(self.store, self.executor, self.progress)
        indexes = [index_builder.build(task, map_.layer(task.set, task.zoom)) for task in plan.of(IndexTask)]
        files = [store_file(self.store, task) for task in plan.of(FileTask)]
        lists = store_lists(self.store, missing)
        artifacts: list[Artifact] = [*engines.values(), *built.values(), *probes, *indexes, *files, *lists]
        rows = [row for one in artifacts for row in rows_of(one.entries(), one.seconds, one.figures)]
        meter = FigureMeter(self.context, self.store, map_, engines, probes, self.progress)
        figures, unproven, unmeasured = meter.measure(plan.questions)
        report = BuildReport(
            "built",
            plan.facts.id,
            self.coverage(missing, shards),
            artifacts=tuple(sorted(rows, key=lambda row: row.name)),
            figures=figures,
            unproven=unproven,
            not_measured=(*plan.unmeasured, *unmeasured),
            rows=sum(len(one.origins) for one in built.values()),
            embedded=sum(one.embedded for one in built.values()),
        )
        if why := too_low(report.figures):
            return replace(report, outcome="failed", why=why), None
        return self.payload(plan.fulfilled(artifacts), artifacts, missing, report)

    def engines(self, plan: Plan, shards: ShardBuilder) -> dict[str, BuiltEngine]:
        """Return every engine by its name. What the store has is judged by what the mission file allows now, and the
        networks of the shards are loaded, before anything is compiled."""
        builder, tasks = self.engine_builder(plan), plan.of(EngineTask)
        present = {task.name: builder.engine(task) for task in tasks if builder.present(task) is not None}
        shards.load(plan.of(ShardTask))
        return {task.name: present.get(task.name) or builder.engine(task) for task in tasks}

    def plan(self, *, remembered: bool, inventory: Inventory | None = None) -> Plan:
        lookup, now = self.store.lookup, self.now
        return make_plan(self.context, lookup, self.progress, now=now, remembered=remembered, inventory=inventory)

    def supplied(self, plan: Plan, *, remembered: bool) -> Plan:
        """Return the plan after what a shared cache has of it was taken. Probes and indexes are judged when their turn
        comes: by the map that they are of."""
        if self.store.supply is None or not plan.gates.allows(plan.shortfall.missing, plan.inventory.tiles):
            return plan
        engines, shards = plan.of(EngineTask), plan.of(ShardTask)
        look_up_steps(self.store, engines)
        builder = ShardBuilder(self.context, self.store, plan.inventory, self.executor, self.progress)
        widths = builder.widths(shards)
        limits = {
            **engine.limits(engines),
            **shard.limits(shards, widths),
            **probe.limits(self.context, plan.of(ProbeTask), widths),
            **index.limits(plan.of(IndexTask), shards, widths),
        }
        if not self.store.take_supply(limits):
            return plan
        self.engine_builder(plan).judge_offers(engines)
        builder.judge_offers(shards)
        return self.plan(remembered=remembered, inventory=plan.inventory)

    def unchanged(self, plan: Plan) -> BuildReport | None:
        """Return the report where there is nothing to do. A draft is then outdated, and goes: a note says so."""
        report = unchanged(self.context, plan, self.writer, now=self.now)
        if report is None or plan.facts.id not in self.writer.repository.evidence.drafts():
            return report
        self.writer.drop_draft(plan.facts.id)
        return replace(report, notes=(*report.notes, DRAFT_GONE))

    @property
    def max_bytes(self) -> int | None:
        limits = self.context.mission.limits
        return None if limits is None else limits.max_bytes

    def engine_builder(self, plan: Plan) -> EngineBuilder:
        return EngineBuilder(self.context, self.store, plan.inventory, self.executor, self.progress)

    # -- failing

    def shortfall(self, plan: Plan, shards: ShardBuilder) -> Shortfall:
        return shortfall(plan.inventory, plan.gates, {number: fault.reason for number, fault in shards.faults.items()})

    def coverage(self, missing: Shortfall, shards: ShardBuilder) -> CoverageReport:
        return CoverageReport.of(missing, {number: fault.detail for number, fault in shards.faults.items()})

    def too_few_tiles(self, plan: Plan, missing: Shortfall, shards: ShardBuilder) -> BuildReport:
        why = too_few_tiles(missing, plan.gates)
        return BuildReport("failed", plan.facts.id, self.coverage(missing, shards), why=why)

    def over_budget(self, objects: dict[ObjectId, tuple[str, int]], overhead: dict[str, int]) -> str:
        """Return why a mission of these objects does not fit the aircraft; "" where it may. Without `overhead` (the
        table and the manifest) more objects will come."""
        if self.max_bytes is None:
            return ""
        return too_large([*objects.values(), *overhead.items()], self.max_bytes, complete=bool(overhead))

    # -- what is to be signed

    def payload(
        self, plan: Plan, artifacts: Sequence[Artifact], missing: Shortfall, report: BuildReport
    ) -> tuple[BuildReport, Payload | None]:
        """Return the report, and the manifest of these artifacts unless it does not fit the aircraft."""
        repository, mission = self.writer.repository, plan.facts.id
        table = sorted_table([entry for artifact in artifacts for entry in artifact.entries()])
        table_bytes = table.render()
        releases, lacking = releases_of(repository, self.trust_root, plan)
        before = last_issued(repository, mission), highest_issued(repository, mission)
        valid_from, expires_at = plan.validity.window(self.now)
        manifest = Manifest(
            mission=plan.facts,
            issue=next_issue(self.trust_root, *before, now=self.now, valid_from=valid_from, expires_at=expires_at),
            hosts=plan.hosts,
            coverage=missing.coverage(plan.gates),
            quality=tuple(one.figure() for one in report.figures),
            releases=releases,
            count=len(table.entries),
            merkle_root=table.merkle_root,
            table=ObjectId.of(table_bytes),
            table_size=len(table_bytes),
            identity=plan.identity(missing, report.figures, report.unproven, releases),
            unproven=report.unproven,
        )
        signatures = max(self.keys, self.trust_root.mission.threshold)
        overhead = {"the entry table": len(table_bytes), "the manifest": size_of(manifest, signatures)}
        if why := self.over_budget({entry.id: (entry.name, entry.size) for entry in table.entries}, overhead):
            return replace(report, outcome="failed", why=why), None
        why = ""
        if lacking:
            why = f"no valid release approves {', '.join(one.name for one in lacking)}: flightbag release new"
        draft = equal_draft(repository, manifest, table, self.trust_root, plan.validity, now=self.now)
        manifest = manifest if draft is None else draft.manifest
        return report, Payload(manifest, table, draft is not None, why)
