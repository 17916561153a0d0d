"""Where a picture was taken: the rows of a verified mission's map that are nearest to its descriptor.

    >>> from builders.onboard.retriever import Retriever
    >>> with Retriever(mission, "embedder", zoom=15) as retriever:
    ...     for match in retriever.search(descriptors, top=1)[0]:
    ...         print(match.tile, f"{match.score:.2f}", "{:.4f} {:.4f}".format(*match.centre))
    15/7357/11522 1.00 47.0215 -99.1681

A frame that shows more ground than a row, or is turned, is cut to each row's square first:

    >>> from builders.onboard.camera import Camera
    >>> from builders.onboard.flying import flying_engine
    >>> camera = Camera(metres=1200, heading=0)
    >>> with Retriever(mission, "embedder") as retriever:
    ...     found = retriever.locate(flying_engine(mission, "embedder"), frame, camera, top=1)
    >>> [ground.zoom for ground in found.searched], [ground.zoom for ground in found.left_out]
    ([15], [14])
    >>> found.assumed
    ('the camera looked straight down',)

Every shard is read, hashed and held before it is searched, or read and hashed again for each search where memory is
short: either way the bytes that are searched are the signed ones. The search is exact, or by an index of the mission
where the caller names one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from builders.areas.covering import tiles_of_signed_area
from builders.descriptors.shard import read_shard
from builders.grid.live import missing_at
from builders.grid.tiles import MAX_ZOOM, Tile, tile_bounds, tile_from_id, tile_id
from builders.grid.views import View
from builders.onboard.ann import AnnIndex, open_index, require_reader
from builders.onboard.camera import Camera, Ground, check_frame, view_of
from builders.onboard.exact import NO_ROW, RowBlock
from builders.onboard.flying import FlyingEngine, recipe_of
from builders.onboard.layers import MapLayer
from builders.onboard.loading import private_file
from store.errors import NotFound
from store.takeoff.coverage import read_missing
from store.takeoff.loading import load
from store.takeoff.mission import VerifiedMission

if TYPE_CHECKING:
    from typing_extensions import Self

_GREY_STEP = 16  # a frame without a colour in these rows and columns is taken for grey


@dataclass(frozen=True, slots=True)
class Match:
    """A row that a search found.

    `tile` is the north-western tile of its view, `score` the cosine of the angle to the query. `centre` and `corner`
    are the middle and the north-western corner of the view: (latitude, longitude) in degrees of WGS 84.
    """

    tile: Tile
    score: float
    centre: tuple[float, float]
    corner: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Located:
    """Where a frame was taken: the `matches`, the best first, by the rows that were `searched`.

    `left_out` are the rows of the map that show more ground than the frame does, `assumed` what the search took for
    granted, as sentences for people.
    """

    matches: tuple[Match, ...]
    searched: tuple[Ground, ...]
    left_out: tuple[Ground, ...]
    assumed: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "matches": [
                {"tile": str(one.tile), "score": round(one.score, 6), "centre": one.centre, "corner": one.corner}
                for one in self.matches
            ],
            "searched": [{"zoom": one.zoom, "metres": round(one.metres, 1)} for one in self.searched],
            "left_out": [{"zoom": one.zoom, "metres": round(one.metres, 1)} for one in self.left_out],
            "assumed": list(self.assumed),
        }


class Retriever:
    """The search in a descriptor set of a verified mission, at one zoom or at all of them; a context manager.

    With `index`, the search uses the mission's index of that name and is approximate. Without `in_memory`, each search
    reads and hashes the shards again, one at a time. Raises NotFound for a set, zoom or index that the mission does not
    have, Corrupt or Unavailable where the medium no longer gives the verified bytes.
    """

    def __init__(
        self, mission: VerifiedMission, set_: str, *, zoom: int | None = None, index: str = "", in_memory: bool = True
    ) -> None:
        self._mission = mission
        self._set = set_
        self._files = ExitStack()
        zooms = {
            int(entry.name.split("/")[2])
            for entry in mission.table.entries
            if entry.kind == "descriptors" and entry.name.split("/")[1] == set_
        }
        recipe_of(mission, set_, zoom)  # raises NotFound for a set or zoom that the mission does not have
        self.layers = [self._layer(at, in_memory=in_memory) for at in sorted(zooms) if zoom in (None, at)]
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
        """Return for each of the queries, float32 [q, d], the `top` rows nearest to it, the nearest first; fewer where
        the map has fewer. Raises Invalid for queries of another shape or type, zero, or not finite."""
        ids, scores = self.nearest(queries, top)
        return [
            [self._match(number, score) for number, score in zip(*row, strict=True) if number != NO_ROW]
            for row in zip(ids.tolist(), scores.tolist(), strict=True)
        ]

    @property
    def grounds(self) -> tuple[Ground, ...]:
        """What a row shows at each zoom that is searched, at the middle latitude of the mission's area."""
        latitude = self._mission.facts.area.middle_latitude
        return tuple(Ground.of(layer.recipe, layer.zoom, latitude) for layer in self.layers)

    def locate(
        self,
        engine: FlyingEngine,
        frame: NDArray[np.uint8],
        camera: Camera = Camera(),  # noqa: B008 - frozen
        top: int = 5,
    ) -> Located:
        """Return the `top` places that fit a frame best, the frame being uint8 [height, width, 3], RGB.

        At each zoom the engine describes the part of the frame that a row there shows (`view_of`); a zoom whose rows
        show more ground than the frame is left out. Raises Invalid as `view_of` does where no zoom is left.
        """
        searched, queries = described_views(engine, frame, camera, self.grounds)
        matches = []
        for ground, query in zip(searched, queries, strict=True):
            layer = next(layer for layer in self.layers if layer.zoom == ground.zoom)
            ids, scores = self._search(layer, query[None], top)
            found = zip(ids[0].tolist(), scores[0].tolist(), strict=True)
            matches += [self._match(number, score) for number, score in found if number != NO_ROW]
        matches.sort(key=lambda match: (-match.score, tile_id(match.tile)))
        left_out = tuple(ground for ground in self.grounds if ground not in searched)
        assumed = camera.assumptions(searched)
        coarse = frame[::_GREY_STEP, ::_GREY_STEP]
        if engine.preprocess.colour != "grey" and (coarse == coarse[:, :, :1]).all():
            assumed.append("the engine describes a grey frame as it describes the map's colours")
        return Located(tuple(matches[:top]), searched, left_out, tuple(assumed))

    def nearest(self, queries: NDArray[np.float32], top: int = 5) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Return the same as arrays: ids of north-western tiles uint64 [q, top] and cosines float32 [q, top]. Where the
        map has fewer rows, 2**64 - 1 and -inf follow."""
        nearest = [self._search(layer, queries, top) for layer in self.layers]
        ids = np.concatenate([ids for ids, _ in nearest], axis=1)
        scores = np.concatenate([scores for _, scores in nearest], axis=1)
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

    def _layer(self, zoom: int, *, in_memory: bool) -> MapLayer:
        names = [
            entry.name
            for entry in self._mission.table.entries
            if entry.kind == "descriptors" and entry.name.split("/")[1:3] == [self._set, str(zoom)]
        ]

        def read() -> Iterator[RowBlock]:
            for name in names:
                shard = read_shard(load(self._mission, name, kind="descriptors"))
                yield shard.tiles, shard.descriptors

        blocks = list(read()) if in_memory else None
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
                require_reader(entry.meta["host"])
                data = load(self._mission, entry.name, kind="index")
                path = self._files.enter_context(private_file("index.faiss", data))
                return open_index(path, entry.meta["method"], entry.meta["dim"], entry.meta["rows"])
        indexes = {tuple(e.name.split("/")[1:3]) for e in self._mission.table.entries if e.kind == "index"}
        names = ", ".join(f"{name} (of {set_})" for set_, name in sorted(indexes)) or "none"
        raise NotFound(
            f"mission {self._mission.facts.id} has no index {index} of the set {self._set} at zoom {zoom}",
            remedy=f"its indexes are {names}",
            index=index,
        )


def described_views(
    engine: FlyingEngine, frame: NDArray[np.uint8], camera: Camera, grounds: Sequence[Ground]
) -> tuple[tuple[Ground, ...], NDArray[np.float32]]:
    """Return which of these rows show no more ground than a frame, and float32 [n, d]: for each of them, the descriptor
    of the part of the frame that it shows. Raises Invalid as `view_of` does where none is left, for the smallest."""
    check_frame(frame)
    size = frame.shape[0], frame.shape[1]
    filled = tuple(ground for ground in grounds if camera.fills(size, ground))
    filled = filled or (min(grounds, key=lambda ground: ground.metres),)
    return filled, engine.describe([view_of(frame, ground, camera) for ground in filled])


def located(tile: Tile, view: View, score: float) -> Match:
    """Return the match of the view with this north-western tile."""
    west, _, _, north = tile_bounds(tile)
    # The middle on the map, half the view's columns and rows on, is the corner of a tile of the next zoom.
    assert tile.z < MAX_ZOOM + 1
    middle = tile_bounds(Tile(tile.z + 1, 2 * tile.x + view.tiles, 2 * tile.y + view.tiles))
    longitude = (middle[0] + 180) % 360 - 180
    return Match(tile, score, (middle[3], longitude), (north, west))
