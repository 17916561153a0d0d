"""The quality gate: how often the map, asked with a picture that is not quite the tile, answers with the tile.

A map asked with its own tiles always answers right, whatever the backbone; so the tiles are shifted, turned, scaled and
lit otherwise, or come from another day. Queries are described by the engine that flies, and searched exactly among the
rows of their own zoom. Which tiles are asked for follows from the area alone, so whoever has the same tiles measures
the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from builders.grid.views import View
from builders.imagery.inventory import Inventory, TileSources
from builders.onboard.flying import FlyingEngine
from builders.onboard.layers import MapLayer
from builders.recipe import FIGURE_CONTEXT, RowRecipe, tile_list
from builders.retrieval import perturb
from builders.retrieval.perturb import PERTURBATIONS, perturbed
from builders.retrieval.pictures import pictures, sample, surroundings
from builders.retrieval.recall import Tally, tally
from store.errors import Refused
from store.format.cbor import Value, encode
from store.format.ids import BuildKey, derive

SCHEMA = "flightbag/quality/1"
# Of each zoom; so many are asked that one wrong answer is less than a percent.
QUERIES = 128
# Tiles round a view that a picture of it is cut from.
MARGIN = 1
AGAINST = "against"
_TOP = 5
_BATCH = 32


@dataclass(frozen=True)
class Imagery:
    """Tiles to ask with: open sources, and what they have of the area."""

    sources: TileSources
    inventory: Inventory


@dataclass(frozen=True)
class RecallMeasurement:
    """What is measured of a descriptor set: `map` is the imagery that it was made from, `against` other imagery of the
    same area; `engine` the build key of what describes the queries, `rows` how the rows of each zoom come about."""

    set: str
    engine: BuildKey
    rows: tuple[RowRecipe, ...]
    map: Imagery
    against: Imagery | None

    @property
    def ways(self) -> tuple[str, ...]:
        """How the queries are unlike the map."""
        return (*sorted(PERTURBATIONS), *([AGAINST] if self.against is not None else []))

    def figures(self) -> Iterator[tuple[str, str, int]]:
        """(name, way, 1 or 5) of each figure, as the manifest has it."""
        for way in self.ways:
            for top in (1, _TOP):
                yield f"recall@{top}/{self.set}/{way}", way, top

    def recipe(self, way: str) -> bytes:
        """The digest of all that the figures of a way depend on: whoever has the same tiles gets the same."""
        asked = []
        for rows, level in zip(self.rows, self.map.inventory.levels, strict=True):
            view, margin = View(*rows.view), MARGIN
            if way == AGAINST:
                assert self.against is not None
                level, margin = self.against.inventory.level(level.zoom), 0
            origins = sample(level, view, margin, QUERIES)
            ids = np.unique(surroundings(level.zoom, view, origins, margin)[1])
            asked.append(tile_list(origins, level.hashes[level.find(origins)[1]]))
            asked.append(tile_list(ids, level.hashes[level.find(ids)[1]]))
        value: dict[str, Value] = {
            "schema": SCHEMA,
            "way": way,
            "engine": bytes(self.engine),
            "rows": [rows.fields() for rows in self.rows],
            "queries": QUERIES,
            "margin": MARGIN,
            "perturbations": perturb.fields(),
            "tiles": [derive(FIGURE_CONTEXT, part) for part in asked],
        }
        return derive(FIGURE_CONTEXT, encode(value))

    def measure(
        self, layers: Sequence[MapLayer], engine: FlyingEngine, progress: Callable[[int], None] | None = None
    ) -> Mapping[str, Mapping[int, Tally]]:
        """Way -> zoom -> how often the tile was found. A zoom without any tile to ask with is left out.

        Raises Refused where a way has none at all: what could not be measured holds no threshold.
        """
        found: dict[str, dict[int, Tally]] = {way: {} for way in self.ways}
        for layer in layers:
            for way in self.ways:
                asked = self.queries(way, layer)
                true: list[int] = []
                answers: list[NDArray[np.uint64]] = []
                while batch := [one for one, _ in zip(asked, range(_BATCH), strict=False)]:
                    queries = engine.describe([picture for _, picture in batch])
                    answers.append(layer.search(queries, _TOP)[0])
                    true += [origin for origin, _ in batch]
                    if progress is not None:
                        progress(len(batch))
                if true:
                    found[way][layer.zoom] = tally(np.array(true, np.uint64), np.concatenate(answers))
        for way, zooms in found.items():
            if not zooms:
                raise Refused(
                    f"recall of the set {self.set} ({way}) cannot be measured: no view of the area has all its tiles "
                    "and those round it",
                    remedy="give sources that reach a tile beyond the area, or leave [quality] out",
                    kind="not-measured",
                )
        return found

    def queries(self, way: str, layer: MapLayer) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(origin, picture of the size of a view) of each query; only what the map could answer is asked."""
        side = layer.recipe.tile_size
        whole = sample(self.map.inventory.level(layer.zoom), layer.view, MARGIN, QUERIES)
        if way == AGAINST:
            assert self.against is not None
            level = self.against.inventory.level(layer.zoom)
            origins = sample(level, layer.view, 0, QUERIES)
            origins = origins[layer.keep(origins)]
            yield from pictures(self.against.sources, level, layer.view, side, origins, 0)
            return
        origins = whole[layer.keep(whole)]
        level = self.map.inventory.level(layer.zoom)
        for origin, picture in pictures(self.map.sources, level, layer.view, side, origins, MARGIN):
            yield origin, perturbed(picture, layer.view.tiles * side, way, seed=origin)
