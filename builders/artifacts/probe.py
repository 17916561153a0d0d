"""Probes: images and their rows, under `probes/`, by which an engine that flies is held against the map.

A probe is put together from pictures and rows that the build has at hand: it needs no work unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from builders.artifacts.shard import BuiltMap, ShardTask
from builders.artifacts.store import ArtifactStore
from builders.artifacts.task import KeyedTask, Lookup
from builders.compose import BuildContext
from builders.descriptors.shard import Descriptors, most_bytes
from builders.grid.views import View
from builders.imagery.inventory import Inventory
from builders.mission.schema import Descriptors as DescriptorSet
from builders.onboard.probes import ROWS, Probe
from builders.recipe import RowRecipe, tile_list
from builders.report import PlanRow
from builders.retrieval.pictures import pictures, sample
from store.errors import Corrupt, Refused
from store.format.entries import Entry
from store.format.ids import BuildKey, ObjectId


@dataclass(frozen=True, slots=True)
class ProbeTask(KeyedTask):
    """The probe of a descriptor set, at one zoom; `origins` uint64[n] are those of the views that it is made of."""

    rows: RowRecipe
    set: DescriptorSet
    zoom: int
    view: View
    origins: NDArray[np.uint64]

    def row(self) -> PlanRow:
        size = self.present[0][1] if self.present is not None else None
        return PlanRow(self.name, str(self.recipe.key), self.complete, size, detail=f"{len(self.origins)} rows")


@dataclass(frozen=True, slots=True)
class BuiltProbe:
    """A probe that is in the store."""

    task: ProbeTask
    probe: Probe
    seconds: float | None
    figures: None = None

    def entries(self) -> Iterator[Entry]:
        dim, count = self.probe.rows.shape[1], len(self.probe.rows)
        meta = {"dim": dim, "dtype": self.task.set.dtype, "rows": count, **self.task.rows.meta()}
        for name, (id_, size) in self.task.objects.items():
            yield Entry(name, id_, size, self.task.recipe.key, meta)


def probe_tasks(
    context: BuildContext, inventory: Inventory, shards: Sequence[ShardTask], lookup: Lookup
) -> Iterator[ProbeTask]:
    """Yield the probe of each descriptor set: of its finest zoom that has views of the area."""
    for set_ in context.mission.descriptors:
        for level in reversed(inventory.levels):
            view, rows = context.view(set_, level.zoom), context.rows(set_, level.zoom)
            origins = sample(level, view, 0, ROWS)
            if len(origins):
                shows = view.footprint(level.zoom, origins).ravel()
                # Where all of these are bad, the probe is made of others that the shards have.
                keys = [bytes(t.recipe.key) for t in shards if (t.set.name, t.zoom) == (set_.name, level.zoom)]
                recipe = rows.probe(tile_list(shows, level.hashes[level.find(shows)[1]]), keys)
                name = f"probes/{set_.name}.safetensors"
                yield ProbeTask(name, recipe, lookup(recipe.key), rows, set_, level.zoom, view, origins)
                break


def limits(context: BuildContext, tasks: Iterable[ProbeTask], widths: Mapping[str, int]) -> dict[BuildKey, int]:
    """Return the most bytes of each of these probes, given the numbers in a row of each descriptor set."""
    most = {}
    for task in tasks:
        height, width = context.preprocess_of(task.set).resize
        most[task.recipe.key] = ROWS * 3 * height * width + most_bytes(ROWS, widths[task.set.name], task.set.dtype)
    return most


@dataclass(frozen=True)
class ProbeBuilder:
    """Builds probes into a store, out of the map that was built."""

    context: BuildContext
    store: ArtifactStore
    map: BuiltMap

    def build(self, task: ProbeTask) -> BuiltProbe:
        """Return the probe, from the store or made now. Raise Refused where the set has no row to make it of."""
        stored = self.store.keyed(
            task.recipe.key, lambda: self._rendered(task), "flightbag", lambda data: self._check_offer(task, data)
        )
        probe = Probe.parse(self.store.read(stored.id, stored.size))
        return BuiltProbe(replace(task, present=((stored.id, stored.size),)), probe, stored.seconds)

    def _check_offer(self, task: ProbeTask, data: bytes) -> None:
        """Raise Corrupt unless the bytes are those that are put together here: what holds an engine against the map is
        nobody else's word, and costs little."""
        if data != self._rendered(task)[0]:
            raise Corrupt("the probe has other images or rows than the map has here", kind="bad-probe")

    def _rendered(self, task: ProbeTask) -> tuple[bytes, ObjectId]:
        data = self._probe(task).render()
        return data, ObjectId.of(data)

    def _probe(self, task: ProbeTask) -> Probe:
        probe = self._of_rows(task, task.origins)
        if probe is None:
            # All of the chosen ones are bad: then the first that the map has.
            probe = self._of_rows(task, self._first_origins(task))
        if probe is None:
            raise Refused(
                f"the descriptor set {task.set.name} has no row at zoom {task.zoom} that it could be probed with",
                remedy=f"leave out zoom {task.zoom}, or give a source whose tiles there are good",
                kind="not-measured",
            )
        return probe

    def _of_rows(self, task: ProbeTask, origins: NDArray[np.uint64]) -> Probe | None:
        """Return the probe of those of these views that have a row; None where none has."""
        preprocess, level = self.context.preprocess_of(task.set), self.map.inventory.level(task.zoom)
        row_of = self.map.rows(task.set.name, task.zoom, origins)
        side = self.context.mission.coverage.tile_size
        described = [
            (origin, preprocess.resized(picture), row_of[origin])
            for origin, picture in pictures(self.context.sources, level, task.view, side, origins, 0)
            if origin in row_of
        ]
        if not described:
            return None
        ids, images, rows = zip(*described, strict=True)
        stacked: Descriptors = np.stack(rows)
        return Probe(task.rows, np.stack(images), np.array(ids, np.uint64), stacked)

    def _first_origins(self, task: ProbeTask) -> NDArray[np.uint64]:
        """Return uint64[n], ascending, of a few: origins of rows that a search may find."""
        layer = next((one for one in self.map.layers(task.set.name) if one.zoom == task.zoom), None)
        for origins, _ in layer.rows() if layer is not None else ():
            if len(origins):
                return origins[:ROWS]
        return np.empty(0, np.uint64)
