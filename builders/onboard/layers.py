"""Layers of the map: the rows of a descriptor set at one zoom, and the search among the live ones.

A shard covers its whole cell; the area of the mission and its list of missing tiles decide which rows are live
(FORMAT.md 6.5). Rows are read shard by shard, so a layer holds none of them in memory.
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
    """The rows of one zoom.

    `required` are the area's tiles of the zoom and `missing` those of them that are missing: uint64, ascending.
    `blocks` yields (origins uint64[n], rows [n, d]) of every shard, from the first one each time it is called.
    """

    zoom: int
    recipe: RowRecipe
    required: NDArray[np.uint64]
    missing: NDArray[np.uint64]
    blocks: Callable[[], Iterator[RowBlock]]

    @property
    def view(self) -> View:
        """The view that each row describes."""
        return View(*self.recipe.view)

    def is_live(self, origins: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return bool[n]: which of these rows, by their origins uint64[n], are live."""
        return is_live(self.zoom, self.view, origins, self.required, self.missing)

    def rows(self) -> Iterator[RowBlock]:
        """Yield the live rows, shard by shard."""
        for origins, rows in self.blocks():
            alive = self.is_live(origins)
            yield origins[alive], rows[alive]

    def search(self, queries: NDArray[np.float32], top: int) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Return (origins uint64 [q, top], cosines float32 [q, top]) of the live rows nearest to each query, as
        `exact.search` does."""
        return search(self.blocks(), queries, top, self.is_live)
