"""The network that describes: an ONNX Runtime session on a device, its ends checked, its batch halved where memory runs
out.

`Network` knows nothing of tiles or cells: it turns images into rows. It is made once for a backbone; several threads
may run it at once. The same images give the same rows on one machine, whatever the other threads do.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock, Semaphore
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.outputs import rows_of
from builders.descriptors.preprocess import Preprocess
from builders.engines.check import SEED, TOLERANCES, baked_batch, difference, not_repeatable
from builders.engines.failures import failure, words_of
from builders.engines.graph import irreproducible
from builders.engines.model import parse_onnx
from builders.engines.providers import CPU, Device, open_session, recorded, require_provider
from builders.engines.session import failure_kind, ort_failures, tensor_info
from builders.extras import import_onnxruntime
from store.errors import FlightbagError, Invalid, Unavailable

# Each worker holds the activations of a batch of its own: four keep a large machine busy, because they share out the
# session's threads, and bound the memory.
MAX_WORKERS = 4
# Another device runs one batch after the other, and so many workers decode for it.
MAX_DECODERS = 16
# Half precision is float32 by now (`graph.widen_half`).
INPUT_DTYPES = ("float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")

# The cores that a network of this process may use; None for all of the machine.
_share: int | None = None
_ON_CPU = 'set device = "cpu"'
_AS_DECLARED = "write the shape of the input in backbones.inputs as the model declares it: it says the layout"


def share_cores(count: int | None) -> None:
    """Let the networks that this process loads from now on use so many cores, None for all: others run beside it."""
    global _share
    _share = count


def _usable_cores() -> int:
    if _share is not None:
        return _share
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Network:
    """A backbone that describes images.

    `model` is the ONNX, weights inside, or the path of a private file where it is too large for that. It takes exactly
    one input, [N, channels, H, W] or [N, H, W, channels] as `preprocess` says, of a dtype that holds its numbers;
    `pool` makes a row of the output `output` (`rows_of`). `batch` is the number of images in a run where N is symbolic;
    a model with a fixed N runs on exactly N, and zeros fill the last run. `device` is what it runs on.

    `dimension` is d. `batch` is what was asked for (rounded up to a multiple of a fixed N), or what was left of it
    where memory ran out. `workers` is the number of threads that are worth running it at once.

    Raises Invalid, which names what to change in the mission file, for a model of another kind, one that does not run,
    or one that differs from itself: a descriptor must follow from its image alone. Raises Unavailable where memory runs
    out for it, Refused where the device gives other rows than the CPU, and as `open_session` and `require_provider` do.
    """

    def __init__(
        self,
        model: bytes | Path,
        output: str,
        preprocess: Preprocess,
        batch: int,
        pool: str = "none",
        device: Device = CPU,
    ) -> None:
        if batch < 1:
            raise Invalid(f"a batch has at least 1 image, not {batch}")
        ort = import_onnxruntime()
        cores = _usable_cores()
        self.workers = min(cores, MAX_WORKERS if device.is_cpu else MAX_DECODERS)
        self._turns = Semaphore(self.workers if device.is_cpu else 1)
        options = ort.SessionOptions()
        options.intra_op_num_threads = cores - self.workers + 1
        # Threads that wait by spinning would take the cores from the decoders.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.output = output
        self.pool = pool
        self.preprocess = preprocess
        self._halving = Lock()
        self._allowed = TOLERANCES["fp32" if device.is_exact or device.is_cpu else "fp16"].relative_error
        with recorded(device, options):
            self.session = _opened(device, model, options)
            self._input, self._dtype, self._fixed = self._check_ends()
            self._least = self._fixed or 1
            # Whole runs only: a worker's batch is not padded where the next could have filled it.
            self.batch = -(-batch // self._least) * self._least
            rows = self._try_out(model)
            require_provider(device, self.session)
        self.dimension = int(rows.shape[1])
        if not device.is_cpu:
            self._require_alike(device, model, rows)

    def run(self, images: NDArray[np.float32], count: int, options: Any) -> NDArray[np.float32]:
        """Describe the first `count` of the images, float32 [n, *preprocess.shape]: float32 [count, d].

        Runs are as large as the model and the memory allow. `options` are the RunOptions of ONNX Runtime; setting their
        `terminate` ends a run that is under way.
        """
        if self._fixed:
            images[count : -(-count // self._fixed) * self._fixed] = 0
        rows: list[NDArray[np.float32]] = []
        start = 0
        while start < count:
            size = self._fixed or min(self.batch, count - start)
            try:
                rows.append(self._run_once(images[start : start + size], options))
            except MemoryError as error:
                self.halved(size, error)
            else:
                start += size
            if rows and rows[-1].shape[1] != self.dimension:
                raise self._other_dimension(rows[-1].shape[1], size, self.dimension)
        return np.concatenate(rows)[:count]

    def _run_once(self, images: NDArray[np.float32], options: Any) -> NDArray[np.float32]:
        """Return float32 [n, d] of one run. Raise MemoryError where memory ran out, however ONNX Runtime words it."""
        try:
            feeds = {self._input: images.astype(self._dtype, copy=False)}
            with self._turns:
                output: Any = self.session.run([self.output], feeds, options)[0]
        except ort_failures() as error:
            if _is_memory(error):
                raise MemoryError(str(error)) from error
            raise Unavailable(
                f"the session failed: {words_of(error)}",
                remedy="read the error of ONNX Runtime above; then check the model with onnx.checker",
            ) from error
        return rows_of(output, self.output, len(images), self.pool)

    def halved(self, size: int, error: MemoryError) -> int:
        """Return half of `size`, for which memory ran out; `batch` is no larger from now on.

        Raise Unavailable where a run cannot be smaller.
        """
        if size <= self._least:
            raise out_of_memory(f"the least batch, {size}, was being described") from error
        half = size // 2 // self._least * self._least
        with self._halving:
            self.batch = min(self.batch, half)
        return half

    def _check_ends(self) -> tuple[str, str, int | None]:
        """Return (name of the input, its dtype, fixed batch or None). Raise Invalid where the inputs or outputs of the
        model do not fit."""
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        declared = ", ".join(f"{end.name} {end.type} {end.shape}" for end in inputs)
        if len(inputs) != 1:
            raise Invalid(
                f"the model takes {declared}, not one input of images",
                remedy="give every input but that of the images a constant value in backbones.inputs",
            )
        preprocess = self.preprocess
        sizes = dict(zip(preprocess.layout, inputs[0].shape, strict=False))
        if len(inputs[0].shape) != len(preprocess.layout):
            raise Invalid(
                f"the model takes {declared}, not images as {preprocess.layout}",
                remedy="give a backbone that takes images as [N, channels, H, W] or [N, H, W, channels]",
            )
        if type(sizes["C"]) is int and sizes["C"] != preprocess.channels:
            other = 'set preprocess.colour to "grey"' if sizes["C"] == 1 else 'set preprocess.colour to "RGB" or "BGR"'
            raise Invalid(
                f"the model takes {declared}: {sizes['C']} channels as {preprocess.layout}, and preprocess.colour "
                f"{preprocess.colour} has {preprocess.channels}",
                key="preprocess.colour",
                value=preprocess.colour,
                remedy=other
                if sizes["C"] in (1, 3)
                else _AS_DECLARED
                if {1, 3} & set(inputs[0].shape[1:])
                else "give a backbone that takes one or three channels",
            )
        sides = [sizes["H"], sizes["W"]]
        for declared_side, side in zip(sides, preprocess.resize, strict=True):
            if type(declared_side) is int and declared_side != side:
                raise Invalid(
                    f"preprocess.resize is {list(preprocess.resize)}, the model takes {sides}",
                    key="preprocess.resize",
                    value=list(preprocess.resize),
                    remedy=f"set preprocess.resize to {sides} (height, width)",
                )
        dtype = tensor_info(inputs[0]).dtype
        if dtype not in INPUT_DTYPES:
            raise Invalid(
                f"the model takes {declared}, and images are numbers",
                remedy="export the network with an input of float32 or uint8",
            )
        preprocess.require_dtype(dtype)
        named = [end for end in outputs if end.name == self.output]
        if not named:
            names = ", ".join(end.name for end in outputs)
            raise Invalid(
                f"the model has no output {self.output!r}",
                key="output",
                value=self.output,
                remedy=f"name one of its outputs: {names}",
            )
        # An export with a symbolic input may still have its batch fixed inside; then the output shows it.
        fixed = [size for size in (sizes["N"], *named[0].shape[:1]) if type(size) is int]
        return inputs[0].name, dtype, fixed[0] if fixed else None

    def _noise(self, many: int) -> NDArray[np.float32]:
        """Return float32 [many, *preprocess.shape], images to try a network with."""
        images = np.random.default_rng(SEED).random((many, *self.preprocess.shape), np.float32)
        images[0] /= 2  # beside brighter ones it loses its shades where one scale is taken of all
        return np.round(images * 255) if np.dtype(self._dtype).kind != "f" else images

    def _try_out(self, model: bytes | Path) -> NDArray[np.float32]:
        """Return rows of noise, float32 [n, d]: a model that declares what it cannot do fails before the first tile,
        and so does one that describes an image otherwise the next time, or beside other images."""
        few, many = self._least, self._fixed or min(self.batch, 2)
        options = import_onnxruntime().RunOptions()
        try:
            images = self._noise(many)
            same = np.repeat(images[:1], few, axis=0)
            rows, again = (self._tried(same, options, "") for _ in range(2))
            beside = self._tried(images, options, baked_batch(self._input, few) if many > few else "")
        except MemoryError as error:
            if many == few:
                raise out_of_memory("the model was being tried") from error
            self.halved(many, error)
            return self._try_out(model)
        if rows.shape[1] != beside.shape[1]:
            raise self._other_dimension(beside.shape[1], many, rows.shape[1])
        if differs := difference({self.output: rows}, {self.output: again}):
            raise not_repeatable("the model", f"two runs on the same image: {differs}", _suspects(model))
        # More images in a run: the sums may be of another order.
        if differs := difference({self.output: rows[:1]}, {self.output: beside[:1]}, self._allowed):
            raise not_repeatable(
                "the model",
                f"one image by itself and beside others: {differs}",
                _suspects(model),
                "export the network for inference (model.eval()) and without dynamic quantisation, or with a fixed "
                'batch of 1; precision = "int8" quantises with fixed ranges',
            )
        return rows

    def _require_alike(self, device: Device, model: bytes | Path, rows: NDArray[np.float32]) -> None:
        """Raise Refused unless the CPU gives the same `rows` of the noise that `_try_out` makes, but for rounding."""
        images = np.repeat(self._noise(1), self._least, axis=0)
        on_cpu = Network(model, self.output, self.preprocess, self._least, self.pool)
        reference = on_cpu.run(images, len(images), import_onnxruntime().RunOptions())
        if differs := difference({self.output: reference}, {self.output: rows}, self._allowed):
            raise failure(
                "wrong-output",
                f"the provider {device.provider!r} does not compute what the CPU does of one image: {differs}",
                remedy=_ON_CPU,
            )

    def _tried(self, images: NDArray[np.float32], options: Any, remedy: str) -> NDArray[np.float32]:
        """Return the rows of a first run. Raise Invalid for a model that does not run, with `remedy` if it is not
        ""."""
        try:
            return self._run_once(images, options)
        except Unavailable as error:
            raise Invalid(
                f"the model does not run on {list(images.shape)}: {error.message}",
                remedy=remedy or "check that the inputs it declares are those that it was exported for",
            ) from error
        except Invalid as error:
            raise error.restated(error.message, remedy=remedy or error.remedy) from error

    def _other_dimension(self, numbers: int, count: int, before: int) -> Invalid:
        return Invalid(
            f"the output {self.output} has {numbers} numbers for each of {count} images and {before} for another "
            "number of them",
            key="output",
            value=self.output,
            remedy="name an output that holds one descriptor for each image",
        )


def _opened(device: Device, model: bytes | Path, options: Any) -> Any:
    """Return a session over the model. Raise Invalid for a model that cannot be loaded, and as `open_session` does."""
    # Failures are raised; stderr belongs to the command line.
    options.log_severity_level = 4
    failures: tuple[type[Exception], ...] = (MemoryError, *ort_failures())
    try:
        return open_session(device, str(model) if isinstance(model, Path) else model, options)
    except failures as error:
        if _is_memory(error):
            raise out_of_memory("the model was being loaded") from error
        raise Invalid(
            f"ONNX Runtime cannot load the model: {words_of(error)}",
            remedy="check it with onnx.checker" if device.is_cpu else f"check it with onnx.checker, or {_ON_CPU}",
            kind=failure_kind(error) or "invalid-model",
        ) from error


def _suspects(model: bytes | Path) -> str:
    return irreproducible(parse_onnx(model if isinstance(model, bytes) else model.read_bytes(), "the model"))


def _is_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or failure_kind(error) == "out-of-memory"


def out_of_memory(when: str) -> FlightbagError:
    """The error for memory that ran out at this moment: "the model was being loaded"."""
    return failure("out-of-memory", f"memory ran out while {when}")
