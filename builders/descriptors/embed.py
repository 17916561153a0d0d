"""Descriptors of views: cells of tiles in, rows out, by a network that threads feed.

    requests -> `CellPipeline`: batches of views -> workers: decode, put together, resize, run, check -> the rows of a
    cell, by ascending origin

A worker takes a batch through all its steps, so that decoding on one core goes on beside inference on another. The
session is shared and each run of it uses few threads, which scales better over small networks than one run over all
cores. The workers go on into the next cells while the caller writes the last one. What is under way is bounded: the
encoded tiles of `CELLS_AHEAD` cells beside the first, `BATCHES_AHEAD` batches beside those in the workers, and of the
decoded tiles of a cell those that a view begun still needs. A batch never holds views of two cells: the bytes of a
cell do not depend on what else is described.

A row that cannot be a descriptor (not finite, all zero, constant, beyond its dtype, not of length 1 where it should be)
is refused, and the error names the tile: a shard never holds one. A view with an absent or bad tile is left out, and
the bad tile is reported; others decide whether that matters. Where memory runs out the batch is halved and stays so.
This module opens no file, and knows neither shards nor build keys.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builders.activity import doing
from builders.descriptors.decoding import BadTile, resized, tile_pixels
from builders.descriptors.network import Network, out_of_memory
from builders.descriptors.preprocess import MAX_SIDE, Preprocess
from builders.descriptors.shard import Descriptors
from builders.engines.providers import CPU, Device
from builders.extras import import_onnxruntime
from builders.grid.tiles import tile_from_id, tile_xy
from builders.grid.views import View
from store.errors import Invalid, Refused

# Work for the workers while the caller writes a shard.
BATCHES_AHEAD = 4
CELLS_AHEAD = 2
# Of a mosaic: it takes 3 bytes a pixel and Pillow's copy 4, 448 MiB in each worker.
MAX_MOSAIC_SIDE = 8192
# float16 has 11 bits: rounding moves the length of a row by less than half of this.
LENGTH_TOLERANCE = 1e-3

Normalise: TypeAlias = Literal["none", "l2"]


@dataclass(frozen=True, slots=True)
class Description:
    """How the views of a descriptor set are described: picklable, and all that a worker needs beside the tiles.

    `model`, `output`, `preprocess`, `batch`, `pool` and `device` are those of `Network`. The tiles of `view` have
    `tile_size` pixels a side. With `normalise` "l2" each row is divided by its length."""

    model: bytes | Path
    output: str
    preprocess: Preprocess
    batch: int
    view: View = View()  # noqa: RUF009 # a frozen value
    tile_size: int = 256
    normalise: Normalise = "none"
    pool: str = "none"
    device: Device = CPU

    def __post_init__(self) -> None:
        if not 1 <= self.tile_size <= MAX_SIDE:
            raise Invalid(f"a tile has 1 to {MAX_SIDE} pixels a side, not {self.tile_size}")
        if self.view.tiles > 1 and self.view.tiles * self.tile_size > MAX_MOSAIC_SIDE:
            raise Invalid(
                f"a view of {self.view.tiles} tiles of {self.tile_size} pixels is wider than {MAX_MOSAIC_SIDE} pixels",
                remedy="give fewer metres, or tiles of a lower zoom",
            )


@dataclass(frozen=True, slots=True)
class CellRequest:
    """The views of one cell to describe: `origins` are ids of tiles of `zoom`, ascending and unique.

    `tiles` are (tile id, encoded bytes) of the tiles of all those views, in any order, each once; tiles that no view
    needs are passed over. Raises Invalid for other origins.
    """

    zoom: int
    origins: tuple[int, ...]
    tiles: tuple[tuple[int, bytes], ...]

    def __post_init__(self) -> None:
        if any(left >= right for left, right in pairwise(self.origins)):
            raise Invalid("the origins of the views of a cell must be ascending and unique")


@dataclass(frozen=True, slots=True)
class CellResult:
    """The rows of a cell.

    `tile_ids` uint64[n], ascending, n >= 0, are the origins of the views described; `descriptors` [n, d] their rows;
    `faults` (tile id, reason, detail) of each bad tile that some view of the request would hold, ascending, each once.
    """

    tile_ids: NDArray[np.uint64]
    descriptors: Descriptors
    faults: tuple[tuple[int, str, str], ...]


class Embedder:
    """A network that describes views; deterministic on one machine, whatever the threads do.

    Raises what `Network` raises.
    """

    def __init__(self, description: Description) -> None:
        self.description = description
        self.network = Network(
            description.model,
            description.output,
            description.preprocess,
            description.batch,
            description.pool,
            description.device,
        )

    def embed(
        self,
        requests: Iterable[CellRequest],
        dtype: Literal["float16", "float32"],
        progress: Callable[[int], None] | None = None,
    ) -> Generator[CellResult, None, None]:
        """Yield the results of the requests, in their order. Close it early, and no worker goes on.

        A request is taken, in this thread, when its turn comes. `progress` is called in this thread with the number of
        views that were described or left out since the last call. Raises Refused for a row that cannot be a descriptor,
        Invalid for an origin that is the origin of no view, Unavailable where the session fails or memory runs out for
        a single view; and what taking a request raises.
        """
        pipeline = CellPipeline(self, iter(requests), np.dtype(dtype))
        try:
            yield from pipeline.results(progress)
        except MemoryError as error:
            raise out_of_memory("a cell was being described") from error
        finally:
            pipeline.close()


class CellPipeline:
    """One run of `Embedder.embed`: a bounded queue of cells, and the workers that describe batches of their views."""

    def __init__(self, embedder: Embedder, requests: Iterator[CellRequest], dtype: np.dtype[Any]) -> None:
        self._description = embedder.description
        self._network = embedder.network
        self._requests = requests
        self._dtype = dtype
        # In the order of the requests; only the last may have views that wait.
        self._cells: deque[_Cell] = deque()
        self._pool = ThreadPoolExecutor(embedder.network.workers, thread_name_prefix="embed")
        # Setting `terminate` ends the workers, also within a run of the session.
        self._options = import_onnxruntime().RunOptions()
        self._buffers: SimpleQueue[NDArray[np.float32]] = SimpleQueue()

    def results(self, progress: Callable[[int], None] | None) -> Iterator[CellResult]:
        """Yield the results of the requests, in their order."""
        self._refill()
        while self._cells:
            cell = self._cells[0]
            while cell.running:
                count, future = cell.running.popleft()
                future.result()
                self._refill()
                if progress is not None:
                    progress(count)
            self._cells.popleft()
            self._refill()
            yield cell.result()

    def close(self) -> None:
        """End the workers."""
        self._options.terminate = True
        self._pool.shutdown(cancel_futures=True)

    def _refill(self) -> None:
        """Give the workers as many batches as they may have, and take the next requests for it."""
        under_way = sum(len(cell.running) for cell in self._cells)
        while under_way < self._network.workers + BATCHES_AHEAD:
            if self._cells and self._cells[-1].waiting:
                views = self._cells[-1].next_batch(self._network.batch)
                try:
                    future = self._pool.submit(self._describe, self._cells[-1], views)
                except RuntimeError as error:  # what a thread that cannot be started raises
                    raise out_of_memory("a worker was being started") from error
                self._cells[-1].running.append((len(views), future))
                under_way += 1
            elif len(self._cells) <= CELLS_AHEAD and (request := next(self._requests, None)) is not None:
                self._cells.append(_Cell(request, self._description, self._network.dimension, self._dtype))
            else:
                return

    # -- what a worker does

    def _describe(self, cell: _Cell, views: list[int]) -> None:
        """Describe views (places in the request) into the rows of their cell."""
        rest = deque(views)
        while rest:
            images = self._buffer()
            size = len(images)
            good: list[int] = []
            while rest and len(good) < size:
                if self._options.terminate:
                    return
                try:
                    filled = self._fill(cell, rest[0], images[len(good)])
                except MemoryError as error:
                    size = self._network.halved(size, error)
                    continue
                view = rest.popleft()
                cell.release(view)
                if filled:
                    good.append(view)
            if good:
                with doing("running the network"):
                    rows = self._network.run(images, len(good), self._options)
                cell.rows[good] = _checked(cell.origins[good], rows, cell.rows.dtype, self._description.normalise)
                cell.described[good] = True
            self._buffers.put(images)

    def _buffer(self) -> NDArray[np.float32]:
        """Return float32 [batch, *preprocess.shape], not filled: one that was used before where there is one of that
        size."""
        while True:
            size = self._network.batch
            try:
                # Fresh memory of this size costs more than filling it.
                if len(images := self._buffers.get_nowait()) == size:
                    return images
                continue
            except Empty:
                pass
            try:
                return np.empty((size, *self._description.preprocess.shape), np.float32)
            except MemoryError as error:
                self._network.halved(size, error)

    def _fill(self, cell: _Cell, view: int, out: NDArray[np.float32]) -> bool:
        """Write a view to `out` float32 [*preprocess.shape]; return False if a tile is absent or bad."""
        # Each tile is looked at, also for a view that is left out: all bad tiles are reported.
        tiles = [cell.tiles.pixels(number) for number in cell.footprints[view]]
        whole = [tile for tile in tiles if tile is not None]
        if len(whole) < len(tiles):
            return False
        preprocess = self._description.preprocess
        preprocess.tensor(resized(self._mosaic(whole), preprocess), out=out)
        return True

    def _mosaic(self, tiles: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return the pixels of a view of these tiles, which are in the order of its footprint."""
        across, side = self._description.view.tiles, self._description.tile_size
        if across == 1:
            return tiles[0]
        mosaic = np.empty((across * side, across * side, 3), np.uint8)
        for place, tile in enumerate(tiles):
            row, column = (index * side for index in divmod(place, across))
            mosaic[row : row + side, column : column + side] = tile
        return mosaic


class _Cell:
    """A request under way. Views are known by their place in `origins`; the workers fill in their rows."""

    def __init__(self, request: CellRequest, how: Description, dimension: int, dtype: np.dtype[Any]) -> None:
        self.origins = np.array(request.origins, np.uint64)
        count = len(self.origins)
        footprints = how.view.footprint(request.zoom, self.origins).reshape(count, how.view.tiles**2)
        self.footprints: list[list[int]] = footprints.tolist()
        self.tiles = _Tiles(request.tiles, Counter(footprints.ravel().tolist()), how.tile_size)
        x, y = tile_xy(request.zoom, self.origins)
        # Row by row, so that no more decoded tiles are held than a band across the cell.
        self.waiting: deque[int] = deque(np.lexsort((x, y)).tolist())
        self.running: deque[tuple[int, Future[None]]] = deque()
        self.rows: NDArray[Any] = np.empty((count, dimension), dtype)
        self.described = np.zeros(count, np.bool_)

    def next_batch(self, size: int) -> list[int]:
        """Return the next views: `size` with all their tiles, and those in between that lack some."""
        views: list[int] = []
        whole = 0
        while self.waiting and whole < size:
            views.append(self.waiting.popleft())
            whole += all(number in self.tiles for number in self.footprints[views[-1]])
        return views

    def release(self, view: int) -> None:
        """Note that this view needs its tiles no longer."""
        for number in self.footprints[view]:
            self.tiles.release(number)

    def result(self) -> CellResult:
        faults = tuple(sorted(self.tiles.faults))
        if self.described.all():
            return CellResult(self.origins, self.rows, faults)
        return CellResult(self.origins[self.described], self.rows[self.described], faults)


class _Tile:
    """A tile of a cell: its encoded bytes, or from the first use to the last its pixels, or neither if it is bad."""

    __slots__ = ("data", "lock", "pixels", "uses")

    def __init__(self, data: bytes, uses: int) -> None:
        self.data: bytes | None = data
        self.pixels: NDArray[np.uint8] | None = None
        self.uses = uses
        self.lock = Lock()


class _Tiles:
    """The tiles of a cell. The first worker that needs a tile decodes it; it is held until the last has used it.

    `uses` is how often each tile will be released. A worker that needs a tile that another decodes waits for that tile
    only.
    """

    def __init__(self, tiles: Iterable[tuple[int, bytes]], uses: Mapping[int, int], side: int) -> None:
        self._tiles = {number: _Tile(data, uses[number]) for number, data in tiles if number in uses}
        self._side = side
        self.faults: list[tuple[int, str, str]] = []

    def __contains__(self, number: int) -> bool:
        return number in self._tiles

    def pixels(self, number: int) -> NDArray[np.uint8] | None:
        """Return the pixels of a tile, None where it is absent or bad. After a MemoryError the next call tries
        again."""
        tile = self._tiles.get(number)
        if tile is None:
            return None
        with tile.lock:
            if tile.data is not None:
                try:
                    with doing("decoding tile", number):
                        tile.pixels = tile_pixels(tile.data, self._side)
                except BadTile as error:
                    self.faults.append((number, error.reason, error.message))
                tile.data = None
            return tile.pixels

    def release(self, number: int) -> None:
        """Count one use."""
        tile = self._tiles.get(number)
        if tile is not None:
            with tile.lock:
                tile.uses -= 1
                if not tile.uses:
                    tile.pixels = None


def _checked(
    origins: NDArray[np.uint64], rows: NDArray[np.float32], dtype: np.dtype[Any], normalise: Normalise
) -> Descriptors:
    """Return `rows` [n, d] as `dtype`, of length 1 if asked for. Raise Refused where a row cannot be a descriptor."""
    finite = np.isfinite(rows).all(axis=1)
    if normalise == "l2":
        lengths = _lengths(rows)
        lengths[~finite | (lengths == 0)] = 1  # refused below
        rows = (rows / lengths[:, None]).astype(np.float32)
    with np.errstate(over="ignore"):  # infinities are looked for below
        cast: Descriptors = rows.astype(dtype)
    checks = [
        (~finite, "is not finite"),
        (~np.isfinite(cast).all(axis=1), f"is beyond {dtype}"),
        (~cast.any(axis=1), "is all zero"),
    ]
    if cast.shape[1] > 1:
        checks.append(((cast == cast[:, :1]).all(axis=1), "is constant"))
    if normalise == "l2":
        checks.append((np.abs(_lengths(cast) - 1) > LENGTH_TOLERANCE, f"does not have length 1 as {dtype}"))
    for wrong, why in checks:
        if wrong.any():
            tile = tile_from_id(int(origins[wrong.argmax()]))
            raise Refused(
                f"the descriptor of tile {tile} {why}",
                tile=str(tile),
                remedy="compare preprocess with what the backbone was trained with",
            )
    return cast


def _lengths(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return float64 [n], which the square of no float32 overflows."""
    lengths: NDArray[np.float64] = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
    return lengths
