"""Build missions: idempotent, locked, inserting only what is missing.

    >>> from builders import build
    >>> report = build(mission_file, store_path, [key], cache=cache_folder)
    >>> report.outcome, report.coverage.described == report.coverage.tiles
    ('built', True)
    >>> build(mission_file, store_path, [key], cache=cache_folder).outcome
    'unchanged'

The way of a build:

    mission file -> inventory -> plan (present | missing) -> work units -> objects -> entries -> table -> manifest ->
    sign -> publish

A build that fails publishes nothing, and the previous manifest stays current; what it finished is in the store, under
its build key, for the next one. One build runs per mission, and one per group of keys across processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from builders.artifacts.engine import BuiltEngine, EngineBuilder, EngineTask
from builders.artifacts.executor import LocalExecutor
from builders.artifacts.figures import FigureMeter
from builders.artifacts.file import FileTask, store_file
from builders.artifacts.index import IndexBuilder, IndexTask
from builders.artifacts.missing import store_lists
from builders.artifacts.plan import Plan, make_plan
from builders.artifacts.probe import ProbeBuilder, ProbeTask
from builders.artifacts.shard import BuiltMap, ShardBuilder, ShardTask, forget_networks, origins_by_set
from builders.artifacts.store import ArtifactStore
from builders.artifacts.task import Artifact, Progress, silent
from builders.comparison import equal_draft, unchanged
from builders.compose import BuildContext, open_context
from builders.imagery.coverage import Shortfall, shortfall, with_views
from builders.report import BuildReport, CoverageReport, rows_of, too_few_tiles, too_large, too_low
from store.format.entries import sorted_table
from store.format.ids import ObjectId
from store.format.manifest import Manifest
from store.format.release import Approval
from store.ground.issuing import (
    Issued,
    check_signers,
    highest_issued,
    issue,
    issuing,
    last_issued,
    next_issue,
    size_of,
)
from store.ground.releases import approving
from store.ground.writer import Writer
from store.trust.keys import Signer
from store.trust.root import TrustRoot


def build_mission(
    mission_file: str | os.PathLike[str],
    store: str | os.PathLike[str],
    signers: Sequence[Signer],
    *,
    cache: str | os.PathLike[str],
    now: int | None = None,
    progress: Progress = silent,
) -> BuildReport:
    """Build a mission file into a store: what is missing is built, then the manifest is signed and published.

    `cache` is a folder for what the next build may reuse; `now` is unix seconds, by default the clock's. Returns and
    raises as `build`.
    """
    with open_context(Path(mission_file), store, Path(cache)) as context:
        return build(context, signers, now=int(time.time()) if now is None else now, progress=progress)


def build(
    context: BuildContext,
    signers: Sequence[Signer],
    *,
    now: int,
    progress: Progress = silent,
    remembered: bool = True,
) -> BuildReport:
    """Build what is missing, walk the coverage, sign and publish.

    The report says `failed`, with every missing tile and its reason, where the coverage is not what the policy demands;
    other failures raise. `now` is unix seconds and becomes the time of issue. Without `remembered` every tile is read,
    also where no source has changed since the last time.
    """
    repository = context.repository
    trust_root = repository.trust_root().root
    check_signers(trust_root, signers, now=now)
    mission = context.mission.mission.id
    start = time.monotonic()
    with issuing(repository, mission, f"the build of mission {mission}") as writer:
        store = ArtifactStore(writer, now)
        run = _Build(context, writer, store, LocalExecutor(), trust_root, signers, now, progress)
        try:
            report = run.run(remembered=remembered)
        finally:
            forget_networks()  # also where an engine fails to compile
    return replace(report, seconds=round(time.monotonic() - start, 3))


@dataclass(frozen=True)
class _Build:
    """One run of `build`, behind the mission's lock."""

    context: BuildContext
    writer: Writer
    store: ArtifactStore
    executor: LocalExecutor
    trust_root: TrustRoot
    signers: Sequence[Signer]
    now: int
    progress: Progress

    def run(self, *, remembered: bool) -> BuildReport:
        plan = self.plan(remembered=remembered)
        if (report := self.unchanged(plan)) is not None:
            return report
        if not plan.fresh:
            # A published mission rests on tiles that were read, not on a file that looks unchanged.
            plan = self.plan(remembered=False)
        shards = ShardBuilder(self.context, self.store, plan.inventory, self.executor, self.progress)
        if not plan.gates.allows(plan.shortfall.missing, plan.inventory.tiles):
            # Decoding finds the bad tiles: nothing is embedded for a mission that cannot be published.
            for level in plan.inventory.levels:
                shards.judge(level.zoom, level.required)
            return self.too_few_tiles(plan, self.shortfall(plan, shards), shards)
        objects = {id_: (name, size) for task in plan.tasks for name, (id_, size) in task.objects.items()}
        if why := self.over_budget(objects, {}):
            return BuildReport("failed", plan.facts.id, CoverageReport.of(plan.shortfall, {}), why=why)

        engines = self.engines(plan, shards)
        built = shards.shards(plan.of(ShardTask))
        # No view decoded the tiles that no whole view shows; they may be bad as well.
        for level in plan.inventory.levels:
            shards.judge(level.zoom, plan.without_view(level.zoom))
        views = origins_by_set(plan.sets, ((one.task, one.origins) for one in built.values()))
        missing = with_views(self.shortfall(plan, shards), views)
        if not plan.gates.allows(missing.missing, plan.inventory.tiles):
            return self.too_few_tiles(plan, missing, shards)
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
        figures, unmeasured = FigureMeter(self.context, self.store, map_, engines, probes, self.progress).measure(
            plan.questions
        )
        report = BuildReport(
            "built",
            plan.facts.id,
            self.coverage(missing, shards),
            artifacts=tuple(sorted(rows, key=lambda row: row.name)),
            figures=figures,
            not_measured=(*plan.unmeasured, *unmeasured),
            rows=sum(len(one.origins) for one in built.values()),
            embedded=sum(one.embedded for one in built.values()),
        )
        if why := too_low(report.figures):
            return replace(report, outcome="failed", why=why)
        return self.publish(plan.fulfilled(artifacts), artifacts, missing, report)

    def engines(self, plan: Plan, shards: ShardBuilder) -> dict[str, BuiltEngine]:
        """Return every engine by its name. What the store has is judged by what the mission file allows now, and the
        networks of the shards are loaded, before anything is compiled."""
        builder, tasks = self.engine_builder(plan), plan.of(EngineTask)
        present = {task.name: builder.engine(task) for task in tasks if builder.present(task) is not None}
        shards.load(plan.of(ShardTask))
        return {task.name: present.get(task.name) or builder.engine(task) for task in tasks}

    def plan(self, *, remembered: bool) -> Plan:
        return make_plan(self.context, self.store.lookup, self.progress, now=self.now, remembered=remembered)

    def unchanged(self, plan: Plan) -> BuildReport | None:
        """Return the report where there is nothing to do. A draft is then outdated, and goes."""
        report = unchanged(
            plan,
            self.writer,
            self.engine_builder(plan),
            lambda plan: self.releases(plan)[0],
            now=self.now,
            max_bytes=self.max_bytes,
        )
        if report is not None:
            self.writer.drop_draft(plan.facts.id)
        return report

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

    # -- publishing

    def publish(
        self, plan: Plan, artifacts: Sequence[Artifact], missing: Shortfall, report: BuildReport
    ) -> BuildReport:
        """Sign the manifest of these artifacts and publish it, or keep it as a draft where it lacks something."""
        repository, mission = self.writer.repository, plan.facts.id
        table = sorted_table([entry for artifact in artifacts for entry in artifact.entries()])
        table_bytes = table.render()
        releases, lacking = self.releases(plan)
        before = last_issued(repository, mission), highest_issued(repository, mission)
        manifest = Manifest(
            mission=plan.facts,
            issue=next_issue(self.trust_root, *before, now=self.now),
            host=plan.host,
            coverage=missing.coverage(plan.gates),
            quality=tuple(one.figure() for one in report.figures),
            releases=releases,
            count=len(table.entries),
            merkle_root=table.merkle_root,
            table=ObjectId.of(table_bytes),
            table_size=len(table_bytes),
            identity=plan.identity(missing, report.figures, releases),
        )
        signatures = max(len(self.signers), self.trust_root.mission.threshold)
        overhead = {"the entry table": len(table_bytes), "the manifest": size_of(manifest, signatures)}
        if why := self.over_budget({entry.id: (entry.name, entry.size) for entry in table.entries}, overhead):
            return replace(report, outcome="failed", why=why)
        # Nobody signs what cannot be published: its approval will make another manifest of it.
        signers = () if lacking else self.signers
        draft = equal_draft(repository, manifest, table, self.trust_root, now=self.now)
        manifest = manifest if draft is None else draft.manifest
        issued = issue(self.writer, manifest, table, signers, self.trust_root, draft=draft, hold=bool(lacking))
        return replace(
            report,
            outcome="built" if issued.manifest is not None else "draft",
            manifest="" if issued.manifest is None else str(issued.manifest),
            sequence=issued.sequence,
            signing_code=issued.signing_code,
            why=_unpublished(issued, lacking),
        )

    def releases(self, plan: Plan) -> tuple[tuple[ObjectId, ...], tuple[Approval, ...]]:
        """Return the releases that the manifest has to name, and what none approves; nothing where the trust root
        requires no releases. The store has every engine and index of the plan."""
        if self.trust_root.releases != "required":
            return (), ()
        approvals = [one for task in plan.of(EngineTask) for one in task.approvals]
        approvals += [one for task in plan.of(IndexTask) for one in task.approvals]
        return approving(self.writer.repository, self.trust_root, approvals)


def _unpublished(issued: Issued, lacking: Sequence[Approval]) -> str:
    """Return why a manifest is only a draft, and what became of the draft before it; "" where it is published."""
    why = ""
    if issued.manifest is None:
        why = f"it has {issued.signatures} of {issued.threshold} required signatures: flightbag sign"
    if lacking:
        why = f"no valid release approves {', '.join(one.name for one in lacking)}: flightbag release new"
    if issued.replaced:
        why += f"{'; ' if why else ''}it replaces the draft before it; signatures lost: {issued.replaced}"
    return why
