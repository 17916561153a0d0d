"""Descriptors of views: an ONNX Runtime session on the CPU, fed by threads that decode.

`Embedder` is made once for a backbone and describes cell after cell, in order:

    jobs -> the encoded tiles of a cell, read in the caller's thread -> batches of views -> workers: decode, put
    together, resize, run, check -> the rows of the cell, by ascending origin

A worker takes a batch through all its steps, so that decoding on one core goes on beside inference on another; the
session is shared and each run of it uses few threads, which scales better over small networks than one run over all
cores. The workers go on into the next cells while the caller writes the last one. What is under way is bounded: the
encoded tiles of `CELLS_AHEAD` cells beside the first, `BATCHES_AHEAD` batches beside those in the workers, and of the
decoded tiles of a cell those that a view begun still needs. A batch never holds views of two cells: the bytes of a
cell do not depend on what else is described.

What cannot be a descriptor (not finite, all zero, constant, beyond its dtype, not of length 1 where it should be) is
refused, naming the tile: a shard never holds one. A view of which a tile is absent or bad is left out and the bad tile
reported; whether that matters is decided elsewhere. Where memory runs out the batch is halved and kept at that.
Opens no file, and knows neither shards nor build keys.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.descriptors.decoding import BadTile, resized, tile_image
from builders.descriptors.preprocess import MAX_SIDE, Preprocess
from builders.descriptors.shard import Descriptors
from builders.engines.session import failure_kind
from builders.extras import import_onnxruntime
from builders.grid.tiles import tile_from_id, tile_xy
from builders.grid.views import View
from store.errors import Invalid, Refused, Unavailable

ort = import_onnxruntime()

# Each worker holds the activations of a batch of its own: four keep a large machine busy, since the session's
# own threads are shared out among them, and bound the memory.
MAX_WORKERS = 4
# What the workers have to do while the caller writes a shard.
BATCHES_AHEAD = 4
CELLS_AHEAD = 2
# Of a mosaic: Pillow takes 4 bytes a pixel, 256 MiB in each worker.
MAX_MOSAIC_SIDE = 8192
# float16 has 11 bits: rounding moves the length of a row by less than half of this.
LENGTH_TOLERANCE = 1e-3

Normalise: TypeAlias = Literal["none", "l2"]

_raised = ort.capi.onnxruntime_pybind11_state
_FAILURES: tuple[type[Exception], ...] = (
    _raised.EPFail,
    _raised.Fail,
    _raised.InvalidArgument,
    _raised.InvalidGraph,
    _raised.InvalidProtobuf,
    _raised.NoSuchFile,
    _raised.NotImplemented,
    _raised.RuntimeException,
)


@dataclass(frozen=True, slots=True)
class CellJob:
    """The views of one cell to describe: `origins` are ids of tiles of `zoom`, ascending and unique.

    `tiles` gives (tile id, encoded bytes) of the tiles of all those views, in any order, each once; others are passed
    over. It is called once, in the thread of the caller, when the job's turn comes. Raises Invalid.
    """

    zoom: int
    origins: tuple[int, ...]
    tiles: Callable[[], Iterable[tuple[int, bytes]]]

    def __post_init__(self) -> None:
        if any(left >= right for left, right in pairwise(self.origins)):
            raise Invalid("the origins of the views of a cell must be ascending and unique")


@dataclass(frozen=True, slots=True)
class CellResult:
    """`tile_ids` uint64[n], the origins of the views described, ascending, n >= 0; `descriptors` [n, d]; and (tile id,
    reason, detail) of each bad tile that was given and that some view of the job would hold, ascending, each once."""

    tile_ids: NDArray[np.uint64]
    descriptors: Descriptors
    faults: tuple[tuple[int, str, str], ...]


class Embedder:
    """A backbone that describes views; deterministic on one machine, whatever the threads do.

    `model` is the ONNX, weights inside. It takes exactly one input, float32 [N, 3, H, W], and has the float32 output
    `output`, [N, d] (or [N, d, 1, 1]). `batch` is how many views a run describes where N is symbolic; a model with a
    fixed N is run on exactly N, the last run filled up with zeros. The tiles of `view` have `tile_size` pixels a side.
    With `normalise` "l2" each row is divided by its length.

    `dimension` is d. `batch` is how many views a run has: what was asked for (a multiple of a fixed N), or what was
    left of it where memory ran out.

    Raises Invalid for a model that is otherwise or does not run, naming what to change in the mission file, and
    Unavailable where memory runs out for it.
    """

    def __init__(
        self,
        model: bytes,
        output: str,
        preprocess: Preprocess,
        batch: int,
        *,
        view: View = View(),  # noqa: B008 # a frozen value
        tile_size: int = 256,
        normalise: Normalise = "none",
    ) -> None:
        if batch < 1:
            raise Invalid(f"a batch has at least 1 view, not {batch}")
        if not 1 <= tile_size <= MAX_SIDE:
            raise Invalid(f"a tile has 1 to {MAX_SIDE} pixels a side, not {tile_size}")
        if view.tiles > 1 and view.tiles * tile_size > MAX_MOSAIC_SIDE:
            raise Invalid(
                f"a view of {view.tiles} tiles of {tile_size} pixels is wider than {MAX_MOSAIC_SIDE} pixels",
                remedy="give fewer metres, or tiles of a lower zoom",
            )
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._workers = min(cores, MAX_WORKERS)
        options = ort.SessionOptions()
        options.intra_op_num_threads = cores - self._workers + 1
        # Threads that wait by spinning would take the cores from the decoders.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what goes wrong is raised; stderr belongs to the command line
        failures: tuple[type[Exception], ...] = (MemoryError, *_FAILURES)
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except failures as error:
            if _is_memory(error):
                raise _out_of_memory("the model was being loaded") from error
            raise Invalid(
                f"ONNX Runtime cannot load the model: {error}", remedy="check it with onnx.checker"
            ) from error
        self._preprocess = preprocess
        self._view = view
        self._tile_size = tile_size
        self._normalise = normalise
        self._output = output
        self._input, self._fixed = self._check_ends()
        self._least = self._fixed or 1
        # Whole runs only: a worker's batch is not padded where the next could have filled it.
        self.batch = -(-batch // self._least) * self._least
        self._halving = Lock()
        self.dimension = self._probe()

    def embed(
        self,
        jobs: Iterable[CellJob],
        dtype: Literal["float16", "float32"],
        progress: Callable[[int], None] | None = None,
    ) -> Generator[CellResult, None, None]:
        """The results of the jobs, in their order. Close it where not all are taken, and no worker goes on.

        `progress` is called in this thread with the number of views that are done since it was called last, described
        or left out. Raises Refused for a row that can be no descriptor, Invalid for an origin of which there is no
        view, Unavailable where the session fails, or memory runs out for a single view; and what `tiles` of a job
        raises.
        """
        rest = iter(jobs)
        shift = _Shift()
        begun: deque[_Cell] = deque()  # in the order of the jobs; only the last may have views that wait
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="embed")

        def refill() -> None:
            """Gives the workers what they may have, and reads the next cells for it."""
            under_way = sum(len(cell.running) for cell in begun)
            while under_way < self._workers + BATCHES_AHEAD:
                if begun and begun[-1].waiting:
                    views = begun[-1].next_batch(self.batch)
                    try:
                        future = pool.submit(self._describe, begun[-1], views, shift)
                    except RuntimeError as error:  # what a thread that cannot be started raises
                        raise _out_of_memory("a worker was being started") from error
                    begun[-1].running.append((len(views), future))
                    under_way += 1
                elif len(begun) <= CELLS_AHEAD and (job := next(rest, None)) is not None:
                    begun.append(_Cell(job, self._view, self._tile_size, self.dimension, np.dtype(dtype)))
                else:
                    return

        try:
            refill()
            while begun:
                cell = begun[0]
                while cell.running:
                    count, future = cell.running.popleft()
                    future.result()
                    refill()
                    if progress is not None:
                        progress(count)
                begun.popleft()
                refill()
                yield cell.result()
        except MemoryError as error:
            raise _out_of_memory("a cell was being described") from error
        finally:
            shift.end()
            pool.shutdown(cancel_futures=True)

    def _describe(self, cell: _Cell, views: list[int], shift: _Shift) -> None:
        """Describes views (places in the job) into the rows of their cell: what a worker does."""
        rest = deque(views)
        while rest:
            images = self._buffer(shift)
            size = len(images)
            good: list[int] = []
            while rest and len(good) < size:
                if shift.ended:
                    return
                try:
                    filled = self._fill(cell, rest[0], images[len(good)])
                except MemoryError as error:
                    size = self._halved(size, error)
                    continue
                view = rest.popleft()
                cell.release(view)
                if filled:
                    good.append(view)
            if good:
                rows = self._run(images, len(good), shift)
                cell.rows[good] = _checked(cell.origins[good], rows, cell.rows.dtype, self._normalise)
                cell.described[good] = True
            shift.buffers.put(images)

    def _buffer(self, shift: _Shift) -> NDArray[np.float32]:
        """float32 [batch, 3, H, W], not filled: one that was used before where there is one of that size."""
        while True:
            size = self.batch
            try:
                # Fresh memory of this size costs more than filling it.
                if len(images := shift.buffers.get_nowait()) == size:
                    return images
                continue
            except Empty:
                pass
            try:
                return np.empty((size, 3, *self._preprocess.resize), np.float32)
            except MemoryError as error:
                self._halved(size, error)

    def _fill(self, cell: _Cell, view: int, out: NDArray[np.float32]) -> bool:
        """Puts a view, as the model takes it, in `out` float32 [3, H, W]; False where a tile of it is absent or bad."""
        # Each tile is looked at, also for a view that is left out: all that are bad are reported.
        tiles = [cell.tiles.image(number) for number in cell.footprints[view]]
        whole = [tile for tile in tiles if tile is not None]
        if len(whole) < len(tiles):
            return False
        self._preprocess.tensor(resized(self._mosaic(whole), self._preprocess), out=out)
        return True

    def _mosaic(self, tiles: list[Image.Image]) -> Image.Image:
        """The image of a view of these tiles, which are in the order of its footprint."""
        across, side = self._view.tiles, self._tile_size
        if across == 1:
            return tiles[0]
        mosaic = Image.new("RGB", (across * side, across * side))
        for place, tile in enumerate(tiles):
            row, column = divmod(place, across)
            mosaic.paste(tile, (column * side, row * side))
        return mosaic

    def _run(self, images: NDArray[np.float32], count: int, shift: _Shift) -> NDArray[np.float32]:
        """float32 [count, d] of the first `count` of the images, in runs of what the model and the memory take."""
        if self._fixed:
            images[count : -(-count // self._fixed) * self._fixed] = 0
        rows: list[NDArray[np.float32]] = []
        start = 0
        while start < count:
            size = self._fixed or min(self.batch, count - start)
            try:
                rows.append(self._run_once(images[start : start + size], shift.options))
            except MemoryError as error:
                self._halved(size, error)
            else:
                start += size
            if rows and rows[-1].shape[1] != self.dimension:
                raise Invalid(
                    f"the output {self._output} has {rows[-1].shape[1]} numbers for each of {size} images and "
                    f"{self.dimension} for another number of them",
                    key="output",
                    value=self._output,
                    remedy="name an output that holds one descriptor for each image",
                )
        return np.concatenate(rows)[:count]

    def _run_once(self, images: NDArray[np.float32], options: Any) -> NDArray[np.float32]:
        """float32 [n, d] of one run. Raises MemoryError where memory ran out, in whatever words."""
        try:
            result: Any = self._session.run([self._output], {self._input: images}, options)[0]
        except _FAILURES as error:
            if _is_memory(error):
                raise MemoryError(str(error)) from error
            raise Unavailable(f"the session failed: {error}", remedy="see what ONNX Runtime says of it") from error
        if result.ndim < 2 or len(result) != len(images) or set(result.shape[2:]) - {1} or not result.size:
            raise Invalid(
                f"the output {self._output} has shape {list(result.shape)} for {len(images)} images, not [N, d]",
                key="output",
                value=self._output,
                remedy="name an output that holds one descriptor for each image",
            )
        rows: NDArray[np.float32] = result.reshape(len(images), -1)
        return rows

    def _halved(self, size: int, error: MemoryError) -> int:
        """The size to go on with after memory ran out for `size` views; `batch` is no larger from now on.

        Raises Unavailable where a run cannot be smaller.
        """
        if size <= self._least:
            raise _out_of_memory(f"the least batch, {size}, was being described") from error
        half = size // 2 // self._least * self._least
        with self._halving:
            self.batch = min(self.batch, half)
        return half

    def _check_ends(self) -> tuple[str, int | None]:
        """(name of the input, fixed batch or None). Raises Invalid where the ends of the model do not fit."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        declared = ", ".join(f"{end.name} {end.type} {end.shape}" for end in inputs)
        remedy = "give a backbone that takes images as float32 [N, 3, H, W]"
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
            raise Invalid(f"the model takes {declared}, not one input float32 [N, 3, H, W]", remedy=remedy)
        count, channels, *sides = inputs[0].shape
        if channels != 3 and type(channels) is int:
            raise Invalid(f"the model takes {declared}, not three channels", remedy=remedy)
        for declared_side, side in zip(sides, self._preprocess.resize, strict=True):
            if type(declared_side) is int and declared_side != side:
                raise Invalid(
                    f"preprocess.resize is {list(self._preprocess.resize)}, the model takes {sides}",
                    key="preprocess.resize",
                    value=list(self._preprocess.resize),
                    remedy=f"set preprocess.resize to {sides} (height, width)",
                )
        found = [end for end in outputs if end.name == self._output]
        if not found:
            names = ", ".join(end.name for end in outputs)
            raise Invalid(
                f"the model has no output {self._output!r}",
                key="output",
                value=self._output,
                remedy=f"name one of its outputs: {names}",
            )
        if found[0].type != "tensor(float)":
            raise Invalid(f"the output {self._output} is {found[0].type}, not float32", key="output")
        # An export with a symbolic input may still have its batch fixed inside; then the output tells.
        fixed = [size for size in (count, *found[0].shape[:1]) if type(size) is int]
        return inputs[0].name, fixed[0] if fixed else None

    def _probe(self) -> int:
        """The dimension d, by one run: a model that declares what it cannot do is found before the first tile."""
        try:
            images = np.zeros((self._least, 3, *self._preprocess.resize), np.float32)
            return int(self._run_once(images, ort.RunOptions()).shape[1])
        except MemoryError as error:
            raise _out_of_memory("the model was being tried") from error
        except Unavailable as error:
            raise Invalid(
                f"the model does not run on {[self._least, 3, *self._preprocess.resize]}: {error.message}",
                remedy="check that the inputs it declares are those that it was exported for",
            ) from error


class _Shift:
    """What the workers of one `embed` share: their buffers, and the word that ends their work, also within a run."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()
        self.buffers: SimpleQueue[NDArray[np.float32]] = SimpleQueue()

    @property
    def ended(self) -> bool:
        return bool(self.options.terminate)

    def end(self) -> None:
        self.options.terminate = True


class _Cell:
    """A job under way. Views are known by their place in `origins`; their rows are filled in by the workers."""

    def __init__(self, job: CellJob, view: View, tile_size: int, dimension: int, dtype: np.dtype[Any]) -> None:
        self.origins = np.array(job.origins, np.uint64)
        count = len(self.origins)
        footprints = view.footprint(job.zoom, self.origins).reshape(count, view.tiles**2)
        self.footprints: list[list[int]] = footprints.tolist()
        self.tiles = _Tiles(job.tiles(), Counter(footprints.ravel().tolist()), tile_size)
        x, y = tile_xy(job.zoom, self.origins)
        # Row by row, so that of the decoded tiles no more than a band across the cell is held.
        self.waiting: deque[int] = deque(np.lexsort((x, y)).tolist())
        self.running: deque[tuple[int, Future[None]]] = deque()
        self.rows: NDArray[Any] = np.empty((count, dimension), dtype)
        self.described = np.zeros(count, np.bool_)

    def next_batch(self, size: int) -> list[int]:
        """The next views: `size` with all their tiles, and those in between that lack some."""
        views: list[int] = []
        whole = 0
        while self.waiting and whole < size:
            views.append(self.waiting.popleft())
            whole += all(number in self.tiles for number in self.footprints[views[-1]])
        return views

    def release(self, view: int) -> None:
        """Says that this view needs its tiles no longer."""
        for number in self.footprints[view]:
            self.tiles.release(number)

    def result(self) -> CellResult:
        faults = tuple(sorted(self.tiles.faults))
        if self.described.all():
            return CellResult(self.origins, self.rows, faults)
        return CellResult(self.origins[self.described], self.rows[self.described], faults)


class _Slot:
    """A tile of a cell: its encoded bytes, or from the first use to the last its image, or neither if it is bad."""

    __slots__ = ("data", "image", "lock", "uses")

    def __init__(self, data: bytes, uses: int) -> None:
        self.data: bytes | None = data
        self.image: Image.Image | None = None
        self.uses = uses
        self.lock = Lock()


class _Tiles:
    """The tiles of a cell, each decoded once by the first worker that needs it, and held until the last has used it.

    `uses` is how often each tile will be released. A worker that needs what another is decoding waits for that tile
    alone.
    """

    def __init__(self, tiles: Iterable[tuple[int, bytes]], uses: Mapping[int, int], side: int) -> None:
        self._slots = {number: _Slot(data, uses[number]) for number, data in tiles if number in uses}
        self._side = side
        self.faults: list[tuple[int, str, str]] = []

    def __contains__(self, number: int) -> bool:
        return number in self._slots

    def image(self, number: int) -> Image.Image | None:
        """The image of a tile, None where it is absent or bad. Where memory runs out the next call tries again."""
        slot = self._slots.get(number)
        if slot is None:
            return None
        with slot.lock:
            if slot.data is not None:
                try:
                    slot.image = tile_image(slot.data, self._side)
                except BadTile as error:
                    self.faults.append((number, error.reason, error.message))
                slot.data = None
            return slot.image

    def release(self, number: int) -> None:
        """Counts one use."""
        slot = self._slots.get(number)
        if slot is not None:
            with slot.lock:
                slot.uses -= 1
                if not slot.uses:
                    slot.image = None


def _checked(
    origins: NDArray[np.uint64], rows: NDArray[np.float32], dtype: np.dtype[Any], normalise: Normalise
) -> Descriptors:
    """`rows` [n, d] as `dtype`, of length 1 if asked for. Raises Refused where one of them cannot be a descriptor."""
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
                remedy="see whether preprocess is what the backbone was trained with",
            )
    return cast


def _lengths(rows: NDArray[Any]) -> NDArray[np.float64]:
    """float64 [n], which no square of a float32 overflows."""
    lengths: NDArray[np.float64] = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
    return lengths


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or failure_kind(error) == "out-of-memory"


def _out_of_memory(when: str) -> Unavailable:
    return Unavailable(f"memory ran out while {when}", remedy="free memory, or use a larger machine")
