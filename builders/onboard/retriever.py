"""Where a picture was taken: the rows of a verified mission's map that are nearest to its descriptor.

Every shard is read, hashed and held before it is searched, or read and hashed again for each search where memory is
short; either way, what is searched is what was signed. Exact by default; an index of the mission where one is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from builders.areas.covering import tiles_of_signed_area
from builders.descriptors.shard import read_shard
from builders.grid.live import missing_at
from builders.grid.tiles import MAX_ZOOM, Tile, tile_bounds, tile_from_id
from builders.grid.views import View
from builders.onboard.ann import AnnIndex, open_index
from builders.onboard.exact import NO_ROW, RowBlock
from builders.onboard.flying import recipe_of
from builders.onboard.layers import MapLayer
from builders.onboard.loading import private_file
from store.errors import NotFound
from store.takeoff.coverage import read_missing
from store.takeoff.loading import load
from store.takeoff.mission import VerifiedMission


@dataclass(frozen=True, slots=True)
class Match:
    """A row: its north-western tile, the cosine of the angle to the query, and degrees of WGS 84, (latitude,
    longitude), of the middle and of the north-western corner of what the row shows."""

    tile: Tile
    score: float
    centre: tuple[float, float]
    corner: tuple[float, float]


class Retriever:
    """Searches a descriptor set of a verified mission, at one zoom or at all of them; a context manager.

    With `index`, the mission's index of that name instead of the exact search. Without `held`, shards are read and
    hashed again for each search, one at a time. Raises NotFound for a set, zoom or index that the mission has not,
    Corrupt or Unavailable where the medium no longer gives the verified bytes.
    """

    def __init__(
        self, mission: VerifiedMission, set_: str, *, zoom: int | None = None, index: str = "", held: bool = True
    ) -> None:
        self._mission = mission
        self._set = set_
        self._files = ExitStack()
        zooms = {
            int(entry.name.split("/")[2])
            for entry in mission.table.entries
            if entry.kind == "descriptors" and entry.name.split("/")[1] == set_
        }
        recipe_of(mission, set_, zoom)  # raises for what is not there
        self.layers = [self._layer(at, held=held) for at in sorted(zooms) if zoom in (None, at)]
        self._indexes: dict[int, AnnIndex] = {}
        try:
            if index:
                self._indexes = {layer.zoom: self._open(index, layer.zoom) for layer in self.layers}
        except BaseException:
            self._files.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def search(self, queries: NDArray[np.float32], top: int = 5) -> list[list[Match]]:
        """The best `top` rows for each of the queries, float32 [q, d], the best first; fewer where there are fewer."""
        ids, scores = self.nearest(queries, top)
        return [
            [self._match(number, score) for number, score in zip(*row, strict=True) if number != NO_ROW]
            for row in zip(ids.tolist(), scores.tolist(), strict=True)
        ]

    def nearest(self, queries: NDArray[np.float32], top: int = 5) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """The same as arrays: ids of north-western tiles uint64 [q, top] and cosines float32 [q, top], filled up with
        2**64 - 1 and -inf where there are fewer rows."""
        found = [self._search(layer, queries, top) for layer in self.layers]
        ids = np.concatenate([ids for ids, _ in found], axis=1)
        scores = np.concatenate([scores for _, scores in found], axis=1)
        order = np.lexsort((ids, -scores), axis=1)[:, :top]
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def _search(
        self, layer: MapLayer, queries: NDArray[np.float32], top: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        if self._indexes:
            return self._indexes[layer.zoom].search(queries, top)
        return layer.search(queries, top)

    def _match(self, number: int, score: float) -> Match:
        tile = tile_from_id(number)
        view = next(layer.view for layer in self.layers if layer.zoom == tile.z)
        return located(tile, view, score)

    def _layer(self, zoom: int, *, held: bool) -> MapLayer:
        names = [
            entry.name
            for entry in self._mission.table.entries
            if entry.kind == "descriptors" and entry.name.split("/")[1:3] == [self._set, str(zoom)]
        ]

        def read() -> Iterator[RowBlock]:
            for name in names:
                shard = read_shard(load(self._mission, name, kind="descriptors"))
                yield shard.tiles, shard.descriptors

        blocks = list(read()) if held else None
        required = tiles_of_signed_area(self._mission.facts.area, zoom)
        return MapLayer(
            zoom,
            recipe_of(self._mission, self._set, zoom),
            required,
            missing_at(read_missing(self._mission, self._mission.evidence), required),
            (lambda: iter(blocks)) if blocks is not None else read,
        )

    def _open(self, index: str, zoom: int) -> AnnIndex:
        for entry in self._mission.table.entries:
            named = entry.kind == "index" and entry.name.startswith(f"indexes/{self._set}/{index}/{zoom}.")
            if named and entry.meta["part"] == "index":
                data = load(self._mission, entry.name, kind="index")
                path = self._files.enter_context(private_file("index.faiss", data))
                return open_index(path, entry.meta["method"], entry.meta["dim"], entry.meta["rows"])
        there = {tuple(e.name.split("/")[1:3]) for e in self._mission.table.entries if e.kind == "index"}
        known = ", ".join(f"{name} (of {set_})" for set_, name in sorted(there)) or "none"
        raise NotFound(
            f"mission {self._mission.facts.id} has no index {index} of the set {self._set} at zoom {zoom}",
            remedy=f"it has {known}",
            index=index,
        )


def located(tile: Tile, view: View, score: float) -> Match:
    """The match of a view with this north-western tile."""
    west, _, _, north = tile_bounds(tile)
    # The middle is that of the map: half the columns and rows on, which a zoom twice as fine has as a corner.
    assert tile.z < MAX_ZOOM + 1
    middle = tile_bounds(Tile(tile.z + 1, 2 * tile.x + view.tiles, 2 * tile.y + view.tiles))
    longitude = (middle[0] + 180) % 360 - 180
    return Match(tile, score, (middle[3], longitude), (north, west))
