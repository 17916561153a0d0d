"""Self-retrieval: whether the engine that flies still tells the places of its own map apart.

It describes the undisturbed pictures of views of the map, and each must find its own row first. A network in full
precision does, by far; one that was rounded may come as near to its own rows as a cosine demands and still take one
place for another, because places can be nearer to each other than that. The figure says nothing of how well the map is
recognised from the air: that is recall.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.rows import view_digests
from builders.imagery.inventory import Level
from builders.onboard.flying import FlyingEngine
from builders.onboard.layers import MapLayer
from builders.recipe import RowRecipe
from builders.retrieval.pictures import pictures, spread
from builders.retrieval.quality import Imagery
from store.errors import Refused
from store.format.cbor import Value, encode
from store.format.ids import BuildKey, derive
from store.takeoff.fidelity import FIGURE_CONTEXT

SCHEMA = "flightbag/self/1"
# Of each zoom: with this number, one wrong answer is less than a percent, and the time is that of describing so many
# tiles, whatever the size of the map.
SAMPLE = 128
# The least share that must be found first, by the precision of the engine. Measured on the NAIP map of the shared data
# (477 tiles, place embedder): fp32 and fp16 find every tile. int8 finds 102 of 103 at zooms 15 and 16, but 297 to 318
# of 374 at zoom 17, where the nearest places have a cosine of 0.9997: no method and number of calibration tiles
# reached 0.89 over all. One in a hundred leaves room for water and snow, which no network tells apart.
LEAST = {"fp32": 0.99, "fp16": 0.98, "int8": 0.95}
_BATCH = 32


@dataclass(frozen=True)
class SelfRetrieval:
    """The self-retrieval of one descriptor set: `engine` is the build key of the engine that describes, `rows` the row
    recipe of each zoom, `map` the imagery that the map was made from."""

    set: str
    engine: BuildKey
    rows: tuple[RowRecipe, ...]
    map: Imagery

    @property
    def name(self) -> str:
        """The name of the figure."""
        return f"self@1/{self.set}"

    @property
    def recipe(self) -> bytes:
        """Return the digest of everything that the figure depends on."""
        value: dict[str, Value] = {
            "schema": SCHEMA,
            "engine": bytes(self.engine),
            "rows": [rows.fields() for rows in self.rows],
            "queries": SAMPLE,
            "tiles": self.map.inventory.digest,
        }
        return derive(FIGURE_CONTEXT, encode(value))

    def measure(
        self, layers: Sequence[MapLayer], engine: FlyingEngine, progress: Callable[[int], None]
    ) -> Mapping[int, tuple[int, int]]:
        """Return zoom -> (views that found themselves first, views asked for), without the zooms that have no row.

        Views with the same tiles count once, and each finds itself in the row of any of them. `progress` gets the
        number of queries since its last call. Raises Refused where no zoom has a row.
        """
        counts: dict[int, tuple[int, int]] = {}
        for layer in layers:
            level = self.map.inventory.level(layer.zoom)
            origins, digests = _sample(layer, level)
            wanted = dict(zip(origins.tolist(), map(bytes, digests), strict=True))
            asked = pictures(self.map.sources, level, layer.view, layer.recipe.tile_size, origins, 0)
            right = queries = 0
            while batch := list(itertools.islice(asked, _BATCH)):
                answers = layer.search(engine.describe([picture for _, picture in batch]), 1)[0][:, 0]
                found = map(bytes, _digests(layer, level, answers))
                right += sum(wanted[origin] == digest for (origin, _), digest in zip(batch, found, strict=True))
                queries += len(batch)
                progress(len(batch))
            if queries:
                counts[layer.zoom] = (right, queries)
        if not counts:
            raise Refused(
                f"self-retrieval of the set {self.set} cannot be measured: the map has no row",
                remedy="give sources that have good tiles of the area",
                kind="not-measured",
            )
        return counts


def _sample(layer: MapLayer, level: Level) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Return (uint64[n], uint8[n, 32]): origins of live rows, evenly spread, and the digests of what they show, each
    once."""
    live = np.sort(np.concatenate([np.empty(0, np.uint64), *(origins for origins, _ in layer.rows())]))
    origins = spread(live, SAMPLE)
    digests = _digests(layer, level, origins)
    _, first = np.unique(digests, axis=0, return_index=True)
    first.sort()
    return origins[first], digests[first]


def _digests(layer: MapLayer, level: Level, origins: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return view_digests(layer.view.footprint(layer.zoom, origins), level.ids, level.hashes)
