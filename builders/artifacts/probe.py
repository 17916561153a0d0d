"""What a mission is proved by before it is signed: the engine that flies agrees with the map (probe, fidelity), and the
map answers (recall). Measured with what is in the store, by the gates that the plan says; decides nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.artifacts.engine import ArtifactStore, BuiltEngine
from builders.artifacts.index import IndexBuilder
from builders.artifacts.plan import BuiltIndex, EngineTask, IndexTask, Plan, ProbeTask, Progress, ShardTask
from builders.artifacts.shard import BuiltShard
from builders.compose import BuildContext, preprocess_of
from builders.descriptors.shard import Descriptors, read_shard
from builders.engines.base import EngineSession
from builders.grid.live import find
from builders.grid.tiles import tile_from_id
from builders.imagery.coverage import Shortfall
from builders.imagery.inventory import cells_of
from builders.onboard.exact import RowBlock
from builders.onboard.flying import FlyingEngine, batches_of
from builders.onboard.layers import MapLayer
from builders.onboard.loading import open_parts
from builders.onboard.probes import ROWS, Probe
from builders.report import Measured
from builders.retrieval.pictures import pictures
from builders.retrieval.recall import total
from store.errors import Refused
from store.format.ids import ObjectId
from store.format.manifest import PPM


@dataclass(frozen=True, slots=True)
class BuiltProbe:
    """What became of a probe; `seconds` where it was built now."""

    id: ObjectId
    size: int
    probe: Probe
    seconds: float | None


@dataclass
class Prover:
    """`plan` is of a mission all of whose engines and shards are in the store; `missing` is what its map lacks."""

    context: BuildContext
    artifacts: ArtifactStore
    plan: Plan
    engines: Mapping[str, BuiltEngine]
    shards: Mapping[str, BuiltShard]
    missing: Shortfall
    progress: Progress

    def __post_init__(self) -> None:
        self._sessions: dict[str, EngineSession] = {}

    @cached_property
    def probes(self) -> dict[str, BuiltProbe]:
        """By entry name, the probe of each descriptor set, from the store or made now."""
        return {task.name: self._probe(task) for task in self.plan.probes}

    def index(self, task: IndexTask) -> BuiltIndex:
        """An index, from the store or built now."""
        layer = next(layer for layer in self.layers(task.set) if layer.zoom == task.zoom)
        return IndexBuilder(self.artifacts, self.progress).build(task, layer)

    def measure(self) -> tuple[Measured, ...]:
        """Every figure that the plan gates by, ascending by name. Raises Refused for what cannot be measured, and as
        engines do that cannot run here: what was not measured is not fine."""
        values: dict[str, int] = {}
        for task in self.plan.probes:
            probe = self.probes[task.name].probe
            cosine = probe.fidelity(self._engine(self.plan.engine_of(task.set), task))
            values[f"fidelity/{task.set.name}"] = int(max(cosine, 0.0) * PPM)
            self.progress("probing", 1, len(self.plan.probes))
        for question in self.plan.questions:
            layers = self.layers(question.set)
            task = next(task for task in self.plan.probes if task.set.name == question.set)
            engine = self._engine(self.plan.engine_of(task.set), task)
            found = question.measure(layers, engine, partial(self._asking, question.set))
            for name, way, top in question.figures():
                zooms = found[way].values()
                values[name] = total(zooms).ppm(top)
        return tuple(Measured(name, values[name], least, recipe) for name, least, recipe in self.plan.gated)

    def _asking(self, set_: str, count: int) -> None:
        self.progress(f"asking {set_}", count, 0)

    def layers(self, set_: str) -> list[MapLayer]:
        """The map of a descriptor set, zoom by zoom."""
        layers = []
        for level in self.plan.inventory.levels:
            tasks = [task for task in self.plan.shards if (task.set.name, task.zoom) == (set_, level.zoom)]
            if tasks:

                def blocks(tasks: Sequence[ShardTask] = tasks) -> Iterator[RowBlock]:
                    return (self._block(task.name) for task in tasks)

                layers.append(MapLayer(level.zoom, tasks[0].rows, level.required, self.missing.ids(level.zoom), blocks))
        return layers

    def _block(self, name: str) -> RowBlock:
        one = self.shards[name]
        shard = read_shard(self.artifacts.read(one.id, one.size))
        return shard.tiles, shard.descriptors

    def _engine(self, task: EngineTask, probe: ProbeTask) -> FlyingEngine:
        built = self.engines[task.name]
        with self.context.about(f"backbones[{task.spec.backbone}]: its engine cannot be held against the map"):
            if task.name not in self._sessions:
                parts = [memoryview(self.artifacts.read(id_, size)).toreadonly() for id_, size in built.found[1:]]
                self._sessions[task.name] = open_parts(
                    task.backend, task.host, parts[0], parts[1] if len(parts) > 1 else None
                )
            # Sets of one backbone may take its images otherwise.
            return FlyingEngine(self._sessions[task.name], probe.rows, batches_of(built.card))

    def _probe(self, task: ProbeTask) -> BuiltProbe:
        key = task.recipe.key
        with self.artifacts.key_lock(key):
            if (found := self.artifacts.lookup(key)) is not None:
                id_, size = found[0]
                return BuiltProbe(id_, size, Probe.parse(self.artifacts.read(id_, size)), None)
            start = time.monotonic()
            probe = self._made(task)
            with self.artifacts.writer.inserting() as batch:
                added = batch.add_bytes(probe.render())
                batch.commit()
            seconds = time.monotonic() - start
            self.artifacts.remember({key: ((added.id,), seconds)}, "flightbag")
            return BuiltProbe(added.id, added.size, probe, seconds)

    def _made(self, task: ProbeTask) -> Probe:
        preprocess, level = preprocess_of(task.set), self.plan.inventory.level(task.zoom)
        origins, images, rows = [], [], []
        known = self._rows(task, task.origins)
        side = self.context.mission.coverage.tile_size
        for origin, picture in pictures(self.context.sources, level, task.view, side, task.origins, 0):
            if origin in known:
                origins.append(origin)
                images.append(preprocess.resized(picture))
                rows.append(known[origin])
        if not origins:
            # All of the chosen ones are bad: then the first that the map has.
            first = self._first_rows(task)
            for origin, picture in pictures(self.context.sources, level, task.view, side, first, 0):
                origins.append(origin)
                images.append(preprocess.resized(picture))
                rows.append(self._rows(task, first)[origin])
        if not origins:
            raise Refused(
                f"the descriptor set {task.set.name} has no row at zoom {task.zoom} that it could be probed with",
                remedy=f"leave out zoom {task.zoom}, or give a source whose tiles there are good",
                kind="not-measured",
            )
        found: Descriptors = np.stack(rows)
        return Probe(task.rows, np.stack(images), np.array(origins, np.uint64), found)

    def _first_rows(self, task: ProbeTask) -> NDArray[np.uint64]:
        """uint64[n], ascending, of a few: origins of rows that a search may find."""
        layer = next((one for one in self.layers(task.set.name) if one.zoom == task.zoom), None)
        for origins, _ in layer.rows() if layer is not None else ():
            if len(origins):
                return origins[:ROWS]
        return np.empty(0, np.uint64)

    def _rows(self, task: ProbeTask, origins: NDArray[np.uint64]) -> dict[int, NDArray[Any]]:
        """Origin -> row, of those of these that the shards have."""
        cells = {tile_from_id(cell) for cell in cells_of(task.zoom, origins).tolist()}
        known: dict[int, NDArray[Any]] = {}
        for shard in self.plan.shards:
            if shard.set.name == task.set.name and shard.zoom == task.zoom and shard.cell in cells:
                ids, rows = self._block(shard.name)
                there, places = find(ids, origins)
                known |= dict(zip(origins[there].tolist(), rows[places[there]], strict=True))
        return known
