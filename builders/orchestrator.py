"""Builds a mission: idempotent, locked, inserting only what is missing.

    mission file -> inventory -> plan (present | missing) -> build -> objects -> entries -> table -> manifest -> sign
    -> publish

A build that fails publishes nothing, and the previous manifest stays current; what it finished is in the store, under
its build key, for the next one. One build runs per mission, and one per group of keys across processes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from builders.compose import Workshop, preprocess_of
from builders.descriptors.embed import Embedder
from builders.descriptors.preprocess import Undecodable, decode
from builders.descriptors.shard import read_shard, write_shard
from builders.descriptors.tiles import tile_from_id
from builders.engine_builds import BuiltEngine, EngineBuilder, Workbench
from builders.plan import FileTask, Found, Plan, Progress, ShardTask, make_plan, open_embedders, silent
from builders.recipe import NORMALISE, SHARD_SCHEMA
from builders.report import Action, Artifact, BuildReport, CoverageReport, Missing
from store.errors import Corrupt, FlightbagError, Unavailable
from store.format.entries import Entry, EntryTable, kind_of, sorted_table
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import Manifest
from store.format.release import Approval
from store.issuing import (
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
from store.objects import read_chunks
from store.releases import approving
from store.repository import Writer
from store.trust.keys import Signer
from store.trust.root import TrustRoot
from store.verify import Binding, Opened, check_binding, read_table

# How many of the largest artifacts a refusal names.
_LARGEST = 5


def build(shop: Workshop, signers: Sequence[Signer], *, now: int, progress: Progress = silent) -> BuildReport:
    """Builds what is missing, walks the coverage, signs and publishes.

    The report says `failed`, with every missing tile and its reason, where the coverage is not complete; other
    failures raise. `now` is unix seconds and becomes the time of issue.
    """
    repository = shop.repository
    root = repository.root().root
    check_signers(root, signers)
    mission = shop.mission.mission.id
    start = time.monotonic()
    what = f"the build of mission {mission}"
    with issuing(repository, mission, what) as writer:
        report = _Build(shop, writer, root, signers, now, progress).run()
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
        self, shop: Workshop, writer: Writer, root: TrustRoot, signers: Sequence[Signer], now: int, progress: Progress
    ) -> None:
        self.shop = shop
        self.writer = writer
        self.root = root
        self.signers = signers
        self.now = now
        self.progress = progress
        self.bench = Workbench(writer, now)
        # tile id -> reason, of tiles in the sources that no image could be made of
        self.undecodable: dict[int, str] = {}
        self.rows: dict[str, tuple[int, int]] = {}
        self.described: dict[str, set[int]] = {}

    def run(self) -> BuildReport:
        plan = make_plan(self.shop, self.bench.lookup, self.progress)
        mission = plan.facts.id
        if plan.inventory.absent:
            return self.failed(plan, self.absent_and_undecodable(plan))
        if (refused := self.over_budget(plan, plan.known, {})) is not None:
            return refused
        builder = EngineBuilder(self.shop, self.bench, plan.inventory, self.progress)
        # What is there is judged by what the mission file allows now, before it is said that nothing is to be done.
        present = {task.name: builder.engine(task) for task in plan.engines if builder.present(task) is not None}
        if len(present) == len(plan.engines) and all(task.present is not None for task in plan.shards):
            plan = plan.with_engines({name: one.found for name, one in present.items()})
            releases, lacking = self.approved(plan)
            if (nothing := self.unchanged(plan, releases, builder)) or (
                nothing := self.pending(plan, releases, lacking)
            ):
                return nothing
        embedders = open_embedders(self.shop, plan)
        made = {task.name: present.get(task.name) or builder.engine(task) for task in plan.engines}
        plan = plan.with_engines({name: one.found for name, one in made.items()})
        engines = {
            name: _Built(id_, size, made[task.name].seconds, figures_of(made[task.name]))
            for task in plan.engines
            for name, (id_, size) in task.named(made[task.name].found).items()
        }
        shards = self.shards(plan, embedders)
        if missing := self.missing(plan):
            return self.failed(plan, missing)
        files = {task.name: self.file(task) for task in plan.files}
        built = {**engines, **shards, **files}
        table = sorted_table([*self.entries(plan, built)])
        table_bytes = table.render()
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
            coverage=plan.coverage,
            quality=(),
            releases=releases,
            count=len(table.entries),
            root=table.root,
            table=ObjectId.of(table_bytes),
            table_size=len(table_bytes),
            identity=plan.identity(releases),
        )
        if (refused := self.over_budget(plan, *self.room(manifest, table))) is not None:
            return replace(refused, artifacts=tuple(self.artifacts(plan, built)))
        # Nobody signs what cannot be published: its approval will make another manifest of it.
        signers = () if lacking else self.signers
        done = issue(self.writer, manifest, table, signers, self.root, hold=bool(lacking))
        return self.issued(plan, done, lacking, built, sum(rows for rows, _ in self.rows.values()))

    def issued(
        self, plan: Plan, done: Issued, lacking: Sequence[Approval], built: dict[str, _Built], rows: int
    ) -> BuildReport:
        why = ""
        if done.manifest is None:
            why = f"it has {done.signatures} of the {done.threshold} signatures that it takes: flightbag sign"
        if lacking:
            why = f"{', '.join(one.name for one in lacking)} in no release that holds: flightbag release new"
        if done.replaced:
            why += f"{'; ' if why else ''}the draft before it is gone, signatures lost: {done.replaced}"
        return BuildReport(
            outcome="built" if done.manifest is not None else "draft",
            mission=plan.facts.id,
            coverage=self.coverage(plan, []),
            manifest="" if done.manifest is None else str(done.manifest),
            sequence=done.sequence,
            artifacts=tuple(self.artifacts(plan, built)),
            rows=rows,
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
        return approving(self.writer.repository, self.root, wanted)

    # -- what is there

    def unfit(self, opened: Opened, releases: tuple[ObjectId, ...], plan: Plan) -> bool:
        """Whether a manifest that is there is not what this build would make, or could not fly."""
        if opened.manifest.identity != plan.identity(releases):
            return True
        evidence = self.writer.repository.evidence
        return bool(check_binding(evidence, opened, plan.facts.id, Binding(self.now)))

    def pending(self, plan: Plan, releases: tuple[ObjectId, ...], lacking: Sequence[Approval]) -> BuildReport | None:
        """The report, if a draft says already what this build would say; signatures are added to it."""
        repository = self.writer.repository
        try:
            draft = draft_of(repository, plan.facts.id)
            manifest = draft.manifest
            if manifest.identity != plan.identity(releases) or overtaken(repository, manifest, self.root, now=self.now):
                return None
            table = read_table(repository.evidence, manifest)
            # A draft is unsigned at first: what is signed is what this build would say, entry by entry.
            built = {name: _Built(*one) for t in plan.engines for name, one in t.named(t.present or ()).items()}
            built |= {task.name: self.reuse(task, task.present) for task in plan.shards if task.present is not None}
            built |= {task.name: _Built(task.id, task.size) for task in plan.files}
            if table != sorted_table([*self.entries(plan, built)]) or manifest.issue.expires_at is not None:
                return None
            if (refused := self.over_budget(plan, *self.room(manifest, table))) is not None:
                return refused
            signers = () if lacking else self.signers
            done = issue(self.writer, manifest, table, signers, self.root, draft=draft, hold=bool(lacking))
        except Unavailable:
            raise
        except FlightbagError:
            return None  # there is none, or it or what it needs is damaged: it is built anew
        return self.issued(plan, done, lacking, built, sum(rows for rows, _ in self.rows.values()))

    def unchanged(self, plan: Plan, releases: tuple[ObjectId, ...], builder: EngineBuilder) -> BuildReport | None:
        """The report, if there is nothing to do: equal identity, a current manifest that verifies, a whole closure."""
        try:
            opened = self.writer.repository.current(plan.facts.id)
            limits = self.shop.mission.limits
            if limits is not None and sum(opened.closure().values()) > limits.max_bytes:
                return None  # the build says by how much
            if self.unfit(opened, releases, plan):
                return None
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
            coverage=self.coverage(plan, []),
            manifest=str(opened.manifest_id),
            sequence=opened.manifest.issue.sequence,
            artifacts=tuple(self.artifacts(plan, built)),
            rows=sum(entry.meta["rows"] for entry in entries.values() if entry.kind == "descriptors"),
        )

    # -- what is missing

    def shards(self, plan: Plan, embedders: dict[str, Embedder]) -> dict[str, _Built]:
        """Builds the shards that are missing, a group of keys under one lock and with one barrier at a time."""
        done = {task.name: self.reuse(task, task.present) for task in plan.shards if task.present is not None}
        missing = sorted((task for task in plan.shards if task.present is None), key=lambda task: task.recipe.key)
        total = sum(len(task.cell.tiles) for task in missing)
        for _, group in groupby(missing, key=lambda task: task.recipe.key.hex()[:2]):
            tasks = list(group)
            built: dict[BuildKey, tuple[ShardTask, _Built]] = {}
            # Built by somebody else while this process waited, or under another name in this very group.
            later: list[ShardTask] = []
            with self.bench.key_lock(tasks[0].recipe.key), self.writer.inserting() as batch:
                for task in tasks:
                    if task.recipe.key in built or self.bench.lookup(task.recipe.key) is not None:
                        later.append(task)
                        continue
                    start = time.monotonic()
                    data = self.shard(task, embedders[task.set.name], total)
                    if data is not None:
                        added = batch.add_bytes(data)
                        built[task.recipe.key] = task, _Built(added.id, added.size, time.monotonic() - start)
                batch.commit()
                for key, (task, one) in built.items():
                    self.bench.remember(key, (one.id,), one.seconds or 0.0, "onnxruntime")
                    done[task.name] = one
            for task in later:
                present = self.bench.lookup(task.recipe.key)
                if present is None:
                    raise Corrupt(f"the shard {task.name} was damaged while the mission was being built")
                done[task.name] = self.reuse(task, present)
        return done

    def shard(self, task: ShardTask, embedder: Embedder, total: int) -> bytes | None:
        """The bytes of a shard; None where not one tile of the cell can be decoded."""
        label = f"embedding {task.set.name}"
        result = embedder.embed_cell(
            self.shop.sources.read_again(task.cell), task.set.dtype, lambda n: self.progress(label, n, total)
        )
        self.undecodable.update(result.undecodable)
        self.note(task, [int(number) for number in result.tile_ids], embedder.dimension)
        if not len(result.tile_ids):
            return None
        metadata = {
            "schema": SHARD_SCHEMA,
            "cell": str(task.cell.cell),
            "zoom": str(task.cell.zoom),
            "model": self.shop.specs[task.set.backbone].model.digest.hex(),
            "output": task.set.output,
            "normalise": NORMALISE,
            "preprocess": json.dumps(preprocess_of(task.set).fields(), sort_keys=True, separators=(",", ":")),
        }
        return write_shard(result.tile_ids, result.descriptors, metadata)

    def reuse(self, task: ShardTask, present: Found) -> _Built:
        id_, size = present[0]
        shard = read_shard(bytes(self.writer.repository.evidence.bytes_of(id_, size)))
        described = [int(number) for number in shard.tiles]
        self.note(task, described, int(shard.descriptors.shape[1]))
        for number in set(dict(task.cell.tiles)) - set(described):
            self.undecodable.setdefault(number, "it could not be decoded when the shard was built")
        return _Built(id_, size)

    def note(self, task: ShardTask, described: list[int], dim: int) -> None:
        self.rows[task.name] = (len(described), dim)
        self.described.setdefault(task.set.name, set()).update(described)

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

    def absent_and_undecodable(self, plan: Plan) -> list[Missing]:
        """Every tile that keeps the coverage from being complete, found by decoding alone: nothing is embedded for a
        mission that cannot be published."""
        area = set(plan.inventory.required)
        for cell in plan.inventory.cells:
            for number, data in self.shop.sources.read_again(cell):
                if number in area:
                    try:
                        decode(data)
                    except Undecodable as error:
                        self.undecodable[number] = error.message
            self.progress("checking tiles", len(cell.tiles), 0)
        absent = set(plan.inventory.absent)
        return [
            Missing(number, "absent") if number in absent else Missing(number, "undecodable", self.undecodable[number])
            for number in plan.inventory.required
            if number in absent or number in self.undecodable
        ]

    def missing(self, plan: Plan) -> list[Missing]:
        """The tiles of the area that some descriptor set does not describe."""
        return [
            Missing(number, "undecodable", self.undecodable.get(number, ""))
            for number in plan.inventory.required
            if not all(number in described for described in self.described.values())
        ]

    def coverage(self, plan: Plan, missing: list[Missing]) -> CoverageReport:
        by_zoom: dict[int, int] = {}
        for number in plan.inventory.required:
            zoom = tile_from_id(number).z
            by_zoom[zoom] = by_zoom.get(zoom, 0) + 1
        total = len(plan.inventory.required)
        return CoverageReport(total, total - len(missing), tuple(missing), by_zoom)

    def failed(self, plan: Plan, missing: list[Missing]) -> BuildReport:
        why = f"{len(missing)} of {len(plan.inventory.required)} tiles of the area are missing; nothing was published"
        return BuildReport("failed", plan.facts.id, self.coverage(plan, missing), why=why)

    def over_budget(
        self, plan: Plan, sizes: Mapping[ObjectId, tuple[str, int]], overhead: Mapping[str, int]
    ) -> BuildReport | None:
        """The report of a mission that does not fit the aircraft, by what is known of its closure; None if it may."""
        limits = self.shop.mission.limits
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
        return BuildReport("failed", plan.facts.id, self.coverage(plan, []), why=why)

    def room(self, manifest: Manifest, table: EntryTable) -> tuple[dict[ObjectId, tuple[str, int]], dict[str, int]]:
        """What a mission takes: its objects with their names and sizes, and what comes on top."""
        signatures = max(len(self.signers), self.root.mission.threshold)
        overhead = {"the entry table": len(table.render()), "the manifest": size_of(manifest, signatures)}
        return {entry.id: (entry.name, entry.size) for entry in table.entries}, overhead

    def entries(self, plan: Plan, built: dict[str, _Built]) -> Iterator[Entry]:
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
            rows, dim = self.rows[shard.name]
            meta = {"dim": dim, "dtype": shard.set.dtype, "rows": rows}
            yield Entry(shard.name, built[shard.name].id, built[shard.name].size, shard.recipe.key, meta)
        for file in plan.files:
            yield Entry(file.name, file.id, file.size, None, {})

    def artifacts(self, plan: Plan, built: dict[str, _Built]) -> Iterator[Artifact]:
        keys = {task.name: str(task.recipe.key) for task in plan.shards}
        keys |= {name: str(task.recipe.key) for task in plan.engines for name in task.named(task.present or ())}
        for name in sorted(built):
            one = built[name]
            action: Action = "reused" if one.seconds is None else "built"
            seconds = None if one.seconds is None else round(one.seconds, 3)
            yield Artifact(name, action, str(one.id), keys.get(name, ""), one.size, seconds, one.figures)


def figures_of(one: BuiltEngine) -> dict[str, float] | None:
    """The figures of an engine's check, where it was built now."""
    check = one.card.check
    return None if one.seconds is None else {"max_abs_error": check.worst.max_abs_error, "cosine": check.cosine}
