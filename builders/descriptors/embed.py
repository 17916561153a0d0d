"""Descriptors of tiles: an ONNX Runtime session on the CPU, fed by threads that decode.

`Embedder` is made once for a backbone and describes cell after cell. A worker takes a batch of encoded tiles,
decodes it and runs the session on it, so that decoding on one core goes on beside inference on another; the
session itself is shared and each run of it uses few threads, which scales better over small networks than one
run over all cores. Results are put together in the order of the tiles, whichever worker was first.

What cannot be a descriptor (not finite, all zero, beyond float16) is refused, naming the tile: a shard never
holds one. A tile that cannot be decoded is left out and reported; whether that matters is decided elsewhere.
Opens no file, and knows neither shards nor build keys.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.preprocess import Preprocess, Undecodable, decode
from builders.descriptors.shard import Descriptors
from builders.descriptors.tiles import tile_from_id
from builders.extras import import_onnxruntime
from store.errors import Invalid, Refused, Unavailable

ort = import_onnxruntime()

# Each worker holds the activations of a batch of its own: four keep a large machine busy, since the session's
# own threads are shared out among them, and bound the memory.
MAX_WORKERS = 4
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
class CellResult:
    """`tile_ids` uint64[n] in the order given, `descriptors` [n, d], and (tile id, reason) of the others."""

    tile_ids: NDArray[np.uint64]
    descriptors: Descriptors
    undecodable: tuple[tuple[int, str], ...]


class Embedder:
    """A backbone that describes tiles; deterministic on one machine, whatever the threads do.

    `model` is the ONNX, weights inside. It takes exactly one input, float32 [N, 3, H, W], and has the float32
    output `output`, [N, d] (or [N, d, 1, 1]). `batch` is how many tiles a run describes where N is symbolic; a
    model with a fixed N is run on exactly N, the last run filled up with zeros.

    Raises Invalid for a model that is otherwise or does not run, naming what to change in the mission file.
    """

    def __init__(self, model: bytes, output: str, preprocess: Preprocess, batch: int) -> None:
        if batch < 1:
            raise Invalid(f"a batch has at least 1 tile, not {batch}")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._workers = min(cores, MAX_WORKERS)
        options = ort.SessionOptions()
        options.intra_op_num_threads = cores - self._workers + 1
        # Threads that wait by spinning would take the cores from the decoders.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what goes wrong is raised; stderr belongs to the command line
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except _FAILURES as error:
            raise Invalid(
                f"ONNX Runtime cannot load the model: {error}", remedy="check it with onnx.checker"
            ) from error
        self._preprocess = preprocess
        self._output = output
        self._input, self._fixed = self._check_ends()
        # Whole runs only: a worker's batch is not padded where the next could have filled it.
        self._batch = -(-batch // self._fixed) * self._fixed if self._fixed else batch
        # One for each worker, used again and again: fresh memory of this size costs more than filling it.
        self._images: SimpleQueue[NDArray[np.float32]] = SimpleQueue()
        for _ in range(self._workers):
            self._images.put(np.empty((self._batch, 3, *preprocess.resize), np.float32))
        self.dimension = self._probe()

    def embed_cell(
        self,
        tiles: Iterable[tuple[int, bytes]],
        dtype: Literal["float16", "float32"],
        progress: Callable[[int], None] | None = None,
    ) -> CellResult:
        """Describes `tiles`, (tile id, encoded bytes), which are read in this thread, a few batches ahead.

        `progress` is called in this thread with the number of tiles that are done since it was called last.
        With no tile that can be decoded n is 0. Raises Refused for a descriptor that is not finite, all zero, or
        beyond float16, and Unavailable where the session fails.
        """
        ids: list[int] = []
        parts: list[NDArray[Any]] = [np.empty((0, self.dimension), dtype)]
        undecodable: list[tuple[int, str]] = []
        for count, (good, rows, bad) in self._ahead(tiles, np.dtype(dtype)):
            ids += good
            parts.append(rows)
            undecodable += bad
            if progress is not None:
                progress(count)
        return CellResult(np.array(ids, np.uint64), np.concatenate(parts), tuple(undecodable))

    def _ahead(
        self, tiles: Iterable[tuple[int, bytes]], dtype: np.dtype[Any]
    ) -> Iterator[tuple[int, tuple[list[int], Descriptors, list[tuple[int, str]]]]]:
        """(number of tiles, result) of each batch in order, with a bounded number of batches under way."""
        rest = iter(tiles)
        running: deque[tuple[int, Future[tuple[list[int], Descriptors, list[tuple[int, str]]]]]] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="embed")
        try:
            while batch := list(islice(rest, self._batch)):
                running.append((len(batch), pool.submit(self._describe, batch, dtype)))
                if len(running) > self._workers + 1:
                    count, future = running.popleft()
                    yield count, future.result()
            for count, future in running:
                yield count, future.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _describe(
        self, batch: list[tuple[int, bytes]], dtype: np.dtype[Any]
    ) -> tuple[list[int], Descriptors, list[tuple[int, str]]]:
        """(ids, descriptors, undecodable) of one batch: what a worker does."""
        images = self._images.get()
        good: list[int] = []
        bad: list[tuple[int, str]] = []
        try:
            for number, data in batch:
                try:
                    image = decode(data)
                except Undecodable as error:
                    bad.append((number, error.message))
                else:
                    self._preprocess.tensor(image, out=images[len(good)])
                    good.append(number)
            if not good:
                return good, np.empty((0, self.dimension), dtype), bad
            return good, _checked(good, self._run(images[: len(good)]), dtype), bad
        finally:
            self._images.put(images)

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [n, d] of float32 [n, 3, H, W], in runs of the batch that the model takes."""
        count = len(images)
        step = self._fixed or count
        if padding := -count % step:
            images = np.concatenate([images, np.zeros((padding, *images.shape[1:]), np.float32)])
        rows = [self._run_once(images[start : start + step]) for start in range(0, len(images), step)]
        return np.concatenate(rows)[:count] if len(rows) > 1 else rows[0][:count]

    def _run_once(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [n, d] of one run."""
        try:
            result: Any = self._session.run([self._output], {self._input: images})[0]
        except _FAILURES as error:
            raise Unavailable(f"the session failed: {error}", remedy="see whether memory ran out") from error
        if result.ndim < 2 or len(result) != len(images) or set(result.shape[2:]) - {1} or not result.size:
            raise Invalid(
                f"the output {self._output} has shape {list(result.shape)} for {len(images)} images, not [N, d]",
                key="output",
                value=self._output,
                remedy="name an output that holds one descriptor for each image",
            )
        rows: NDArray[np.float32] = result.reshape(len(images), -1)
        return rows

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
        images = np.zeros((self._fixed or 1, 3, *self._preprocess.resize), np.float32)
        try:
            return int(self._run(images).shape[1])
        except Unavailable as error:
            raise Invalid(
                f"the model does not run on {list(images.shape)}: {error.message}",
                remedy="check that the inputs it declares are those that it was exported for",
            ) from error


def _checked(ids: list[int], rows: NDArray[np.float32], dtype: np.dtype[Any]) -> Descriptors:
    """`rows` as `dtype`. Raises Refused where one of them cannot be a descriptor."""
    with np.errstate(over="ignore"):  # infinities are looked for below
        cast: Descriptors = rows.astype(dtype)
    for wrong, why in (
        (~np.isfinite(rows).all(axis=1), "is not finite"),
        (~np.isfinite(cast).all(axis=1), f"is beyond {dtype}"),
        (~cast.any(axis=1), "is all zero"),
    ):
        if wrong.any():
            tile = tile_from_id(ids[int(wrong.argmax())])
            raise Refused(
                f"the descriptor of tile {tile} {why}",
                tile=str(tile),
                remedy="see whether preprocess is what the backbone was trained with",
            )
    return cast
