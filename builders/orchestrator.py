"""Builds a mission: idempotent, locked, inserting only what is missing.

    mission file -> inventory -> plan (present | missing) -> build -> objects -> entries -> table -> manifest -> sign
    -> publish

A build that fails publishes nothing, and the previous manifest stays current; what it finished is in the store, under
its build key, for the next one. One build runs per mission, and one per group of keys across processes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.artifacts.engine import ArtifactStore, BuiltEngine, EngineBuilder
from builders.artifacts.plan import BuiltIndex, FileTask, Plan, Progress, make_plan, open_embedders, silent
from builders.artifacts.probe import BuiltProbe, Prover
from builders.artifacts.shard import BuiltShard, Fault, ShardBuilder
from builders.compose import BuildContext
from builders.grid.live import live
from builders.grid.views import View
from builders.imagery.coverage import FAULTS, Shortfall, of_list, shortfall, with_views
from builders.report import Action, Artifact, BuildReport, CoverageReport, Measured, Missing
from store.disk.objects import read_chunks
from store.errors import FlightbagError, Refused, Unavailable
from store.format.entries import Entry, EntryTable, kind_of, sorted_table
from store.format.ids import ObjectId
from store.format.manifest import PPM, Manifest
from store.format.missing import ENTRY as MISSING_ENTRY
from store.format.missing import MissingList
from store.format.release import Approval
from store.ground.issuing import (
    Draft,
    Issued,
    check_signers,
    draft_of,
    highest_issued,
    issue,
    issuing,
    last_issued,
    next_issue,
    overtaken,
    size_of,
)
from store.ground.releases import approving
from store.ground.writer import Writer
from store.takeoff.mission import Binding, Opened
from store.takeoff.verify import check_binding, read_table
from store.trust.keys import Signer
from store.trust.root import TrustRoot

# How many of the largest artifacts a refusal names.
_LARGEST = 5


def build(
    context: BuildContext, signers: Sequence[Signer], *, now: int, progress: Progress = silent, remembered: bool = True
) -> BuildReport:
    """Builds what is missing, walks the coverage, signs and publishes.

    The report says `failed`, with every missing tile and its reason, where the coverage is not what the policy demands;
    other failures raise. `now` is unix seconds and becomes the time of issue. Without `remembered` every tile is read,
    also where no source has changed since the last time.
    """
    repository = context.repository
    root = repository.trust_root().root
    check_signers(root, signers)
    mission = context.mission.mission.id
    start = time.monotonic()
    what = f"the build of mission {mission}"
    with issuing(repository, mission, what) as writer:
        report = _Build(context, writer, root, signers, now, progress, remembered).run()
    return replace(report, seconds=round(time.monotonic() - start, 3))


@dataclass
class _Built:
    """What became of a task: the object, whether it was built now, and in which time."""

    id: ObjectId
    size: int
    seconds: float | None = None
    figures: dict[str, float] | None = None


class _Build:
    """One run of `build`, behind the mission's lock."""

    def __init__(
        self,
        context: BuildContext,
        writer: Writer,
        root: TrustRoot,
        signers: Sequence[Signer],
        now: int,
        progress: Progress,
        remembered: bool,
    ) -> None:
        self.context = context
        self.writer = writer
        self.root = root
        self.signers = signers
        self.now = now
        self.progress = progress
        self.remembered = remembered
        self.artifacts = ArtifactStore(writer, now)

    def run(self) -> BuildReport:
        plan = self.plan(remembered=True)
        if (nothing := self.unchanged(plan)) is not None:
            return nothing
        if not plan.fresh:
            # What is published rests on tiles that were read, and not on a file that looks as it did.
            plan = self.plan(remembered=False)
        mission = plan.facts.id
        builder = ShardBuilder(self.context, self.artifacts, plan.inventory, self.progress)
        if not plan.gates.allows(plan.shortfall.missing, plan.inventory.tiles):
            return self.failed(plan, self.decoded(plan, builder), builder.faults)
        if (refused := self.over_budget(plan, plan.known, {})) is not None:
            return refused
        engines = EngineBuilder(self.context, self.artifacts, plan.inventory, self.progress)
        # What is there is judged by what the mission file allows now, before anything is built.
        present = {task.name: engines.engine(task) for task in plan.engines if engines.present(task) is not None}
        embedders = open_embedders(self.context, plan)
        made = {task.name: present.get(task.name) or engines.engine(task) for task in plan.engines}
        shards = builder.shards(plan.shards, embedders)
        # Tiles that no whole view shows were not decoded for one, and may be bad for a reason of their own.
        for level in plan.inventory.levels:
            builder.judge(level.zoom, plan.without_view(level.zoom))
        missing = with_views(self.shortfall(plan, builder.faults), rows_of(plan, shards))
        if not plan.gates.allows(missing.missing, plan.inventory.tiles):
            return self.failed(plan, missing, builder.faults)
        self.check_rows(plan, shards, missing)
        plan = plan.with_built(
            {name: one.found for name, one in made.items()},
            {name: ((one.id, one.size),) for name, one in shards.items()},
        )
        prover = Prover(self.context, self.artifacts, plan, made, shards, missing, self.progress)
        built = {
            name: _Built(id_, size, made[task.name].seconds, figures_of(made[task.name]))
            for task in plan.engines
            for name, (id_, size) in task.named(made[task.name].found).items()
        }
        for task in plan.shards:
            shard = shards[task.name]
            built[task.name] = _Built(shard.id, shard.size, shard.seconds)
        built |= {name: _Built(one.id, one.size, one.seconds) for name, one in prover.probes.items()}
        indexes = {task.name: prover.index(task) for task in plan.indexes}
        plan = plan.with_indexes(indexes)
        built |= {
            name: _Built(id_, size, indexes[task.name].seconds)
            for task in plan.indexes
            for name, (id_, size) in task.named().items()
        }
        built |= {task.name: self.file(task) for task in plan.files}
        if missing.missing:
            built[MISSING_ENTRY] = self.put(missing.as_list().render())
        report = BuildReport(
            "built",
            mission,
            self.coverage(plan, missing, builder.faults),
            artifacts=tuple(self.artifact_rows(plan, built)),
            rows=sum(len(one.origins) for one in shards.values()),
            embedded=sum(one.embedded for one in shards.values()),
        )
        table = sorted_table([*self.entries(plan, built, shards, prover.probes, indexes, missing)])
        table_bytes = table.render()
        report = replace(report, figures=prover.measure())
        if low := [one for one in report.figures if not one.holds]:
            return replace(report, outcome="failed", why=f"{below(low)}; nothing was published")
        releases, lacking = self.approved(plan)
        manifest = Manifest(
            mission=plan.facts,
            issue=next_issue(
                self.root,
                last_issued(self.writer.repository, mission),
                highest_issued(self.writer.repository, mission),
                now=self.now,
            ),
            host=plan.host,
            coverage=missing.coverage(plan.gates),
            quality=tuple(one.figure() for one in report.figures),
            releases=releases,
            count=len(table.entries),
            merkle_root=table.merkle_root,
            table=ObjectId.of(table_bytes),
            table_size=len(table_bytes),
            identity=plan.identity(missing, releases),
        )
        if (refused := self.over_budget(plan, *self.room(manifest, table))) is not None:
            return replace(report, outcome="failed", why=refused.why)
        # Nobody signs what cannot be published: its approval will make another manifest of it.
        signers = () if lacking else self.signers
        if (draft := self.pending(manifest, table)) is not None:
            done = issue(self.writer, draft.manifest, table, signers, self.root, draft=draft, hold=bool(lacking))
        else:
            done = issue(self.writer, manifest, table, signers, self.root, hold=bool(lacking))
        return self.issued(report, done, lacking)

    def check_rows(self, plan: Plan, shards: Mapping[str, BuiltShard], missing: Shortfall) -> None:
        """Raises Refused for a descriptor set without a row that a search may find: nothing could be found with it."""
        for name in plan.sets:
            rows = (
                live(task.zoom, task.view, shards[task.name].origins, level.required, missing.ids(task.zoom))
                for task in plan.shards
                if task.set.name == name
                for level in [plan.inventory.level(task.zoom)]
            )
            if not any(len(some) for some in rows):
                raise Refused(
                    f"{self.context.path}: the descriptor set {name} would describe no place of the area",
                    remedy="give sources that have good tiles of it, or raise coverage.at_least",
                    kind="no-rows",
                )

    def plan(self, *, remembered: bool) -> Plan:
        return make_plan(
            self.context, self.artifacts.lookup, self.progress, now=self.now, remembered=remembered and self.remembered
        )

    def shortfall(self, plan: Plan, faults: Mapping[int, Fault]) -> Shortfall:
        return shortfall(plan.inventory, plan.gates, {number: fault.reason for number, fault in faults.items()})

    def issued(self, report: BuildReport, done: Issued, lacking: Sequence[Approval]) -> BuildReport:
        why = ""
        if done.manifest is None:
            why = f"it has {done.signatures} of the {done.threshold} signatures that it takes: flightbag sign"
        if lacking:
            why = f"{', '.join(one.name for one in lacking)} in no release that holds: flightbag release new"
        if done.replaced:
            why += f"{'; ' if why else ''}the draft before it is gone, signatures lost: {done.replaced}"
        return replace(
            report,
            outcome="built" if done.manifest is not None else "draft",
            manifest="" if done.manifest is None else str(done.manifest),
            sequence=done.sequence,
            why=why,
        )

    def approved(self, plan: Plan) -> tuple[tuple[ObjectId, ...], tuple[Approval, ...]]:
        """The releases that the manifest has to name, and what none approves; nothing where the root asks for none.
        Every engine is there."""
        if self.root.releases != "required":
            return (), ()
        wanted = [
            Approval(name, "engine", id_, size, task.host)
            for task in plan.engines
            for name, (id_, size) in task.named(task.present or ()).items()
            if kind_of(name) == "engine"
        ]
        wanted += [
            Approval(name, "index", id_, size, task.host)
            for task in plan.indexes
            for name, (id_, size) in task.named().items()
        ]
        return approving(self.writer.repository, self.root, wanted)

    # -- what is there

    def pending(self, manifest: Manifest, table: EntryTable) -> Draft | None:
        """The draft, if it says already what this build says, entry by entry; signatures are added to it."""
        repository = self.writer.repository
        try:
            draft = draft_of(repository, manifest.mission.id)
            if draft.manifest.identity != manifest.identity or draft.manifest.quality != manifest.quality:
                return None
            if overtaken(repository, draft.manifest, self.root, now=self.now):
                return None
            # It was unsigned at first: what is signed is what this build made.
            if read_table(repository.evidence, draft.manifest) != table or draft.manifest.issue.expires_at is not None:
                return None
        except Unavailable:
            raise
        except FlightbagError:
            return None  # there is none, or it or what it needs is damaged
        return draft

    def unchanged(self, plan: Plan) -> BuildReport | None:
        """The report, if there is nothing to do: equal identity, a current manifest that verifies, a whole closure."""
        if any(task.present is None for task in plan.shards) or not all(task.whole for task in plan.indexes):
            return None
        builder = EngineBuilder(self.context, self.artifacts, plan.inventory, self.progress)
        found = {task.name: builder.present(task) for task in plan.engines}
        present = {name: one for name, one in found.items() if one is not None}
        if len(present) < len(found):
            return None
        for task in plan.engines:
            builder.judge(task, present[task.name].card)
        plan = plan.with_built(
            {name: one.found for name, one in present.items()}, {task.name: task.present or () for task in plan.shards}
        )
        repository = self.writer.repository
        try:
            opened = repository.current(plan.facts.id)
            limits = self.context.mission.limits
            if limits is not None and sum(opened.closure().values()) > limits.max_bytes:
                return None  # the build says by how much
            missing = self.believed(plan, opened)
            releases, _ = self.approved(plan)
            if missing is None or opened.manifest.identity != plan.identity(missing, releases):
                return None
            if check_binding(repository.evidence, opened, plan.facts.id, Binding(self.now)):
                return None  # it could not fly
            self.writer.check_closure(opened)
            # Equal keys are not equal objects: another station's engines are judged by what their own cards say.
            there = {entry.name: (entry.id, entry.size) for entry in opened.table.entries}
            for task in plan.engines:
                card = builder.card_of(task, tuple(there[name] for name in task.names if name in there))
                if card is None:
                    return None
                builder.judge(task, card)
        except Unavailable:
            raise
        except FlightbagError:
            return None  # absent or damaged: then there is something to do
        self.writer.drop_draft(plan.facts.id)  # of something that the mission file no longer says
        entries = {entry.name: entry for entry in opened.table.entries}
        built = {name: _Built(entry.id, entry.size) for name, entry in entries.items()}
        return BuildReport(
            outcome="unchanged",
            mission=plan.facts.id,
            coverage=self.coverage(plan, missing, {}),
            manifest=str(opened.manifest_id),
            sequence=opened.manifest.issue.sequence,
            artifacts=tuple(self.artifact_rows(plan, built)),
            rows=sum(entry.meta["rows"] for entry in entries.values() if entry.kind == "descriptors"),
        )

    def believed(self, plan: Plan, opened: Opened) -> Shortfall | None:
        """What is missing, if what the published list says of the bytes of tiles holds: those bytes are in the
        identity, so it does if the identity does. What the sources and the gates say is told anew. None where there is
        another list."""
        entry = opened.table.find(MISSING_ENTRY)
        if entry is None:
            return plan.shortfall if plan.shortfall.missing == 0 else None
        # What views show follows from the tiles that are there and good, which the list says as it was published.
        listed = MissingList.parse(bytes(self.writer.repository.evidence.bytes_of(entry.id, entry.size)))
        return of_list(plan.inventory, plan.gates, listed)

    # -- what is missing

    def decoded(self, plan: Plan, builder: ShardBuilder) -> Shortfall:
        """What is missing, found by decoding alone: nothing is embedded for a mission that cannot be published."""
        for level in plan.inventory.levels:
            builder.judge(level.zoom, level.required)
        return self.shortfall(plan, builder.faults)

    def put(self, data: bytes) -> _Built:
        with self.writer.inserting() as batch:
            start = time.monotonic()
            added = batch.add_bytes(data)
            batch.commit()
        return _Built(added.id, added.size, None if added.reused else time.monotonic() - start)

    def file(self, task: FileTask) -> _Built:
        with self.writer.inserting() as batch:
            start = time.monotonic()
            if batch.holds(task.id, task.size):
                batch.commit()  # whoever put it there may not have come to the barriers yet
                return _Built(task.id, task.size)
            added = batch.add(read_chunks(str(task.path)), expect=task.id)
            batch.commit()
        return _Built(added.id, added.size, time.monotonic() - start)

    # -- what is told

    def coverage(self, plan: Plan, missing: Shortfall, faults: Mapping[int, Fault]) -> CoverageReport:
        by_zoom = {level.zoom: len(level.required) for level in plan.inventory.levels}
        listed = tuple(
            Missing(number, reason, faults[number].detail if number in faults and reason in FAULTS else "")
            for number, reason in missing.reasons().items()
        )
        total = plan.inventory.tiles
        return CoverageReport(total, total - len(listed), listed, by_zoom)

    def failed(self, plan: Plan, missing: Shortfall, faults: Mapping[int, Fault]) -> BuildReport:
        why = f"{missing.missing} of {plan.inventory.tiles} tiles of the area are missing; nothing was published"
        if plan.gates.required_ppm < PPM:
            why += f"; coverage.at_least allows {plan.inventory.tiles * (PPM - plan.gates.required_ppm) // PPM}"
        return BuildReport("failed", plan.facts.id, self.coverage(plan, missing, faults), why=why)

    def over_budget(
        self, plan: Plan, sizes: Mapping[ObjectId, tuple[str, int]], overhead: Mapping[str, int]
    ) -> BuildReport | None:
        """The report of a mission that does not fit the aircraft, by what is known of its closure; None if it may."""
        limits = self.context.mission.limits
        total = sum(size for _, size in sizes.values()) + sum(overhead.values())
        if limits is None or total <= limits.max_bytes:
            return None
        largest = sorted([*sizes.values(), *overhead.items()], key=lambda item: (-item[1], item[0]))[:_LARGEST]
        room = ", ".join(f"{name} {size}" for name, size in largest)
        at_least = "" if overhead else "at least "
        why = (
            f"the mission takes {at_least}{total} bytes, limits.max_bytes allows {limits.max_bytes}; nothing was "
            f"published; the most room is taken by {room}"
        )
        return BuildReport("failed", plan.facts.id, self.coverage(plan, plan.shortfall, {}), why=why)

    def room(self, manifest: Manifest, table: EntryTable) -> tuple[dict[ObjectId, tuple[str, int]], dict[str, int]]:
        """What a mission takes: its objects with their names and sizes, and what comes on top."""
        signatures = max(len(self.signers), self.root.mission.threshold)
        overhead = {"the entry table": len(table.render()), "the manifest": size_of(manifest, signatures)}
        return {entry.id: (entry.name, entry.size) for entry in table.entries}, overhead

    def entries(
        self,
        plan: Plan,
        built: Mapping[str, _Built],
        shards: Mapping[str, BuiltShard],
        probes: Mapping[str, BuiltProbe],
        indexes: Mapping[str, BuiltIndex],
        missing: Shortfall,
    ) -> Iterator[Entry]:
        for engine in plan.engines:
            for name in engine.named(engine.present or ()):
                meta: dict[str, Any] = {"engine": engine.name}
                if kind_of(name) == "engine":
                    meta = {
                        "backbone": engine.spec.backbone,
                        "backend": engine.backend.name,
                        "host": engine.host,
                        "model": engine.spec.model.digest,
                        "part": "model" if name == engine.name else "weights",
                        "precision": engine.spec.precision,
                    }
                yield Entry(name, built[name].id, built[name].size, engine.recipe.key, meta)
        for shard in plan.shards:
            one = shards[shard.name]
            meta = {"dim": one.dim, "dtype": shard.set.dtype, "rows": len(one.origins)}
            yield Entry(shard.name, one.id, one.size, shard.recipe.key, meta)
        for task in plan.probes:
            made = probes[task.name]
            meta = {"dim": made.probe.rows.shape[1], "dtype": task.set.dtype, "rows": len(made.probe.rows)}
            yield Entry(task.name, made.id, made.size, task.recipe.key, meta)
        for index in plan.indexes:
            one_index = indexes[index.name]
            about = {"dim": one_index.dim, "host": index.host, "method": index.method, "rows": one_index.rows}
            for name, (id_, size) in index.named().items():
                part, key = ("index", index.recipe.key)
                if index.quantiser is not None and name == index.quantiser_name:
                    part, key = ("quantiser", index.quantiser.key)
                yield Entry(name, id_, size, key, {**about, "part": part})
        for file in plan.files:
            yield Entry(file.name, file.id, file.size, None, {})
        if missing.missing:
            one_list = built[MISSING_ENTRY]
            yield Entry(MISSING_ENTRY, one_list.id, one_list.size, None, {"missing": missing.missing})

    def artifact_rows(self, plan: Plan, built: dict[str, _Built]) -> Iterator[Artifact]:
        keys = {task.name: str(task.recipe.key) for task in plan.shards}
        keys |= {task.name: str(task.recipe.key) for task in plan.probes}
        keys |= {task.name: str(task.recipe.key) for task in plan.indexes}
        keys |= {t.quantiser_name: str(t.quantiser.key) for t in plan.indexes if t.quantiser is not None}
        keys |= {name: str(task.recipe.key) for task in plan.engines for name in task.named(task.present or ())}
        for name in sorted(built):
            one = built[name]
            action: Action = "reused" if one.seconds is None else "built"
            seconds = None if one.seconds is None else round(one.seconds, 3)
            yield Artifact(name, action, str(one.id), keys.get(name, ""), one.size, seconds, one.figures)


def rows_of(plan: Plan, shards: Mapping[str, BuiltShard]) -> list[dict[int, tuple[View, NDArray[np.uint64]]]]:
    """Of each descriptor set, by zoom: its view, and the origins of its rows, ascending."""
    sets: dict[str, dict[int, tuple[View, list[NDArray[np.uint64]]]]] = {name: {} for name in plan.sets}
    for task in plan.shards:
        sets[task.set.name].setdefault(task.zoom, (task.view, []))[1].append(shards[task.name].origins)
    return [
        {zoom: (view, np.sort(np.concatenate(parts))) for zoom, (view, parts) in zooms.items()}
        for zooms in sets.values()
    ]


def below(figures: Sequence[Measured]) -> str:
    """What figures are too low, in words."""
    return ", ".join(f"{one.name} is {one.value / PPM:g}, at least {one.least / PPM:g} is asked for" for one in figures)


def figures_of(one: BuiltEngine) -> dict[str, float] | None:
    """The figures of an engine's check, where it was built now."""
    check = one.card.check
    return None if one.seconds is None else {"max_abs_error": check.worst.max_abs_error, "cosine": check.cosine}
