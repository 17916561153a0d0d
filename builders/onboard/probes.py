"""Probes: a few views as an engine takes them, with the rows that the map has of them, so that the engine that flies
can be held against the map it flies over, on the ground and aboard.

An object of a mission (FORMAT.md 6.6): canonical safetensors of `images` U8 [n, height, width, 3], already of the size
that the backbone takes, `tiles` U64 [n] and `descriptors` [n, d]; metadata as of a shard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.shard import Descriptors
from builders.descriptors.tensors import read_tensors, write_tensors
from builders.onboard.flying import FlyingEngine
from builders.recipe import PROBE_SCHEMA, SHARD_SCHEMA, RowRecipe
from store.errors import Corrupt

ROWS = 8


@dataclass(frozen=True)
class Probe:
    """`images` uint8 [n, height, width, 3]; `origins` uint64[n] and `rows` [n, d] as the shards have them."""

    recipe: RowRecipe
    images: NDArray[np.uint8]
    origins: NDArray[np.uint64]
    rows: Descriptors

    def render(self) -> bytes:
        metadata = {**self.recipe.metadata(), "schema": PROBE_SCHEMA}
        return write_tensors({"images": self.images, "tiles": self.origins, "descriptors": self.rows}, metadata)

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview) -> Probe:
        """Raises Corrupt for what `render` does not write."""
        arrays, metadata = read_tensors(data)
        if arrays.keys() != {"images", "tiles", "descriptors"} or metadata.get("schema") != PROBE_SCHEMA:
            raise Corrupt("the object is no probe", kind="bad-probe")
        recipe = RowRecipe.of_metadata({**metadata, "schema": SHARD_SCHEMA})
        images, origins, rows = (arrays[name] for name in ("images", "tiles", "descriptors"))
        shapes = images.ndim == 4 and images.shape[3] == 3 and rows.ndim == 2 and origins.ndim == 1
        if not shapes or not len(images) == len(origins) == len(rows) >= 1 or images.dtype != np.uint8:
            raise Corrupt("the probe has arrays that are not of one number of views", kind="bad-probe")
        return cls(recipe, images, origins, rows)

    def fidelity(self, engine: FlyingEngine) -> float:
        """The least cosine between what the engine makes of a view and the row that the map has of it."""
        made = engine.describe(list(self.images)).astype(np.float64)
        rows = self.rows.astype(np.float64)
        if made.shape != rows.shape:
            raise Corrupt(f"the engine gives {made.shape[1]} numbers, the map has {rows.shape[1]}", kind="bad-probe")
        lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(rows, axis=1)
        if not lengths.all():
            return 0.0
        return float(((made * rows).sum(axis=1) / lengths).min())
