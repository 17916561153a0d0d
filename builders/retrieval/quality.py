"""The quality gate: how often a search in the map finds the right view for a picture that differs from it.

With its own tiles as queries, a map always answers right, whatever the backbone. So the queries are tiles that are
shifted, turned, scaled or lit otherwise, or imagery of another day. The engine that flies describes them, and the
search is exact, among the rows of their own zoom. Which views are queried follows from the area and the tiles, so a
second measurement with the same tiles gives the same figures.
"""

from __future__ import annotations

import itertools
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
from builders.retrieval.perturb import PERTURBATIONS, perturb_picture
from builders.retrieval.pictures import pictures, sample, surroundings
from builders.retrieval.recall import Tally, tally
from store.errors import Refused
from store.format.cbor import Value, encode
from store.format.ids import BuildKey, derive

SCHEMA = "flightbag/quality/1"
# Of each zoom: with this number, one wrong answer is less than a percent.
QUERIES = 128
# Tiles round a view that a perturbed picture of it may show.
MARGIN = 1
AGAINST = "against"
_TOP = 5
_BATCH = 32


@dataclass(frozen=True)
class Imagery:
    """Tiles to make queries of: open sources, and which tiles of the area they have."""

    sources: TileSources
    inventory: Inventory


@dataclass(frozen=True)
class RecallMeasurement:
    """The recall of one descriptor set.

    `map` is the imagery that the map was made from, `against` other imagery of the same area. `engine` is the build key
    of the engine that describes the queries, `rows` the row recipe of each zoom.
    """

    set: str
    engine: BuildKey
    rows: tuple[RowRecipe, ...]
    map: Imagery
    against: Imagery | None

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways in which the queries differ from the map."""
        return (*sorted(PERTURBATIONS), *([AGAINST] if self.against is not None else []))

    def figures(self) -> Iterator[tuple[str, str, int]]:
        """Yield (name, way, 1 or 5) of each figure; the name is that in the manifest."""
        for way in self.ways:
            for top in (1, _TOP):
                yield f"recall@{top}/{self.set}/{way}", way, top

    def recipe(self, way: str) -> bytes:
        """Return the digest of everything that the figures of a way depend on; equal tiles give an equal digest."""
        lists = []
        for rows, level in zip(self.rows, self.map.inventory.levels, strict=True):
            view, margin = View(*rows.view), MARGIN
            if way == AGAINST:
                assert self.against is not None
                level, margin = self.against.inventory.level(level.zoom), 0
            origins = sample(level, view, margin, QUERIES)
            ids = np.unique(surroundings(level.zoom, view, origins, margin)[1])
            lists.append(tile_list(origins, level.hashes[level.find(origins)[1]]))
            lists.append(tile_list(ids, level.hashes[level.find(ids)[1]]))
        value: dict[str, Value] = {
            "schema": SCHEMA,
            "way": way,
            "engine": bytes(self.engine),
            "rows": [rows.fields() for rows in self.rows],
            "queries": QUERIES,
            "margin": MARGIN,
            "perturbations": perturb.fields(),
            "tiles": [derive(FIGURE_CONTEXT, part) for part in lists],
        }
        return derive(FIGURE_CONTEXT, encode(value))

    def measure(
        self, layers: Sequence[MapLayer], engine: FlyingEngine, progress: Callable[[int], None] | None = None
    ) -> Mapping[str, Mapping[int, Tally]]:
        """Return way -> zoom -> how often the right view was found, without the zooms that have no query.

        `progress` gets the number of queries since its last call. Raises Refused where a way has no query at any zoom:
        a figure that was not measured meets no threshold.
        """
        tallies: dict[str, dict[int, Tally]] = {way: {} for way in self.ways}
        for layer in layers:
            for way in self.ways:
                pictures_left = self.queries(way, layer)
                true: list[int] = []
                answers: list[NDArray[np.uint64]] = []
                while batch := list(itertools.islice(pictures_left, _BATCH)):
                    queries = engine.describe([picture for _, picture in batch])
                    answers.append(layer.search(queries, _TOP)[0])
                    true += [origin for origin, _ in batch]
                    if progress is not None:
                        progress(len(batch))
                if true:
                    tallies[way][layer.zoom] = tally(np.array(true, np.uint64), np.concatenate(answers))
        for way, zooms in tallies.items():
            if not zooms:
                raise Refused(
                    f"recall of the set {self.set} ({way}) cannot be measured: the sources have no view of the area "
                    "with all its tiles and all tiles round it",
                    remedy="give sources that reach a tile beyond the area, or leave [quality] out",
                    kind="not-measured",
                )
        return tallies

    def queries(self, way: str, layer: MapLayer) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yield (origin, picture of the size of a view) of each query; every query has a live row in the map."""
        side = layer.recipe.tile_size
        whole = sample(self.map.inventory.level(layer.zoom), layer.view, MARGIN, QUERIES)
        if way == AGAINST:
            assert self.against is not None
            level = self.against.inventory.level(layer.zoom)
            origins = sample(level, layer.view, 0, QUERIES)
            origins = origins[layer.is_live(origins)]
            yield from pictures(self.against.sources, level, layer.view, side, origins, 0)
            return
        origins = whole[layer.is_live(whole)]
        level = self.map.inventory.level(layer.zoom)
        for origin, picture in pictures(self.map.sources, level, layer.view, side, origins, MARGIN):
            yield origin, perturb_picture(picture, layer.view.tiles * side, way, seed=origin)
