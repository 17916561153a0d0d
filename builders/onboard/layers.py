"""Layers: the rows of a descriptor set at one zoom that a search may find, whoever has them.

A shard covers its whole cell; the area of the mission and its list of missing tiles say which rows count (FORMAT.md
6.5). Rows are read shard by shard, so a layer takes no memory of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from builders.grid.live import is_live
from builders.grid.views import View
from builders.onboard.exact import RowBlock, search
from builders.recipe import RowRecipe


@dataclass(frozen=True)
class MapLayer:
    """`required` and `missing` (uint64, ascending) are the area's tiles of the zoom and those of them that are missing;
    `blocks` gives (origins uint64[n], rows [n, d]) of every shard, from the beginning each time."""

    zoom: int
    recipe: RowRecipe
    required: NDArray[np.uint64]
    missing: NDArray[np.uint64]
    blocks: Callable[[], Iterator[RowBlock]]

    @property
    def view(self) -> View:
        return View(*self.recipe.view)

    def keep(self, origins: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """bool[n]: which of these rows count."""
        return is_live(self.zoom, self.view, origins, self.required, self.missing)

    def rows(self) -> Iterator[RowBlock]:
        """The rows that count."""
        for origins, rows in self.blocks():
            kept = self.keep(origins)
            yield origins[kept], rows[kept]

    def search(self, queries: NDArray[np.float32], top: int) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """(origins uint64 [q, top], cosines float32 [q, top]) of the rows nearest to each query, as `exact.search`."""
        return search(self.blocks(), queries, top, self.keep)
