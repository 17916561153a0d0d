"""ONNX Runtime sessions on the CPU: the `onnxruntime` backend loads engines into them, its worker measures with them.

Opens no file but those that the caller names. Results can differ in the last bits between levels of optimisation, and
on another CPU; on one machine and at one level they do not differ between runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from builders.engines.base import TensorInfo
from builders.engines.failures import failure, words_of
from builders.extras import import_onnxruntime
from store.errors import FlightbagError

Level: TypeAlias = Literal["off", "extended", "all"]
_LEVELS = {"off": "ORT_DISABLE_ALL", "extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL"}
_DTYPES = {"float": "float32", "double": "float64"}
# The file name of weights that an engine keeps outside: the engine holds this name.
WEIGHTS = "engine.weights"
# Tensors of fewer bytes stay inside the engine.
_MIN_OUTSIDE_BYTES = "1024"
# Kind of failure -> words that the library uses for it, whatever the class of the error. The first match counts.
_WORDS_OF_KIND = (
    (
        "out-of-memory",
        (
            *("bad_alloc", "allocate memory", "bad allocation", "MemoryError"),
            # Of other providers: CUDA and ROCm; cuBLAS and the older cuDNN; cuDNN and OpenCL; DirectML; OpenVINO.
            *("out of memory", "OUT_OF_MEMORY", "ALLOC_FAILED", "ALLOCATION_FAIL", "OUT_OF_HOST_MEMORY"),
            *("Not enough memory", "Exceeded max size of memory"),
        ),
    ),
    (
        "unsupported-op",
        ("Could not find an implementation", "No Op registered", "NOT_IMPLEMENTED", "is not a registered"),
    ),
    ("version", ("Unsupported model IR version", "is under development")),
)


def ort_failures() -> tuple[type[Exception], ...]:
    """Return every class of exception that the installed ONNX Runtime defines and raises from its C++ code.

    The classes are unrelated, each straight under Exception, and newer versions define more of them: so the module that
    defines them is asked. Raise Unavailable if the library is not installed.
    """
    import_onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception))


class OnnxRuntimeSession:
    """A network ready to run on the CPU, called `name` in messages. Threads may share it."""

    def __init__(self, session: Any, name: str) -> None:
        self._session = session
        self._name = name
        self._failures: tuple[type[Exception], ...] = (*ort_failures(), ValueError)
        self.inputs = tuple(map(tensor_info, session.get_inputs()))
        self.outputs = tuple(map(tensor_info, session.get_outputs()))

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Return output name -> array, for input name -> array as `inputs` lists them.

        Raise Invalid if the network does not run on these feeds, Unavailable if memory runs out.
        """
        names = [output.name for output in self.outputs]
        try:
            return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))
        except self._failures as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
            raise _failure_of(error, self._name, f"does not run on {shapes}", "wrong-inputs") from error


def open_session(
    model: bytes | Path,
    level: Level,
    *,
    weights: Path | None = None,
    save_as: Path | None = None,
    save_weights: bool = False,
    any_cpu: bool = False,
    name: str = "the network",
) -> OnnxRuntimeSession:
    """Return a session over an ONNX network, optimised at `level`.

    `model` is the bytes of the ONNX file, or the path of a private file if it is too large for bytes. Weights that the
    bytes do not hold are mapped from `weights`, a file called `WEIGHTS`, which may be unlinked when this returns; the
    library copies weights that are given in memory (`make bench` compares both). With `save_as` the optimised network
    is written to that path, with `save_weights` also its weights, beside it, as `WEIGHTS`. With `any_cpu` a network in
    int8 gives the same on every x86_64 CPU: without it, sums of products of bytes saturate on one without VNNI. `name`
    is the subject of messages. Raise Invalid if ONNX Runtime refuses the network, Unavailable if memory runs out or the
    library is not installed.
    """
    library = import_onnxruntime()
    options = library.SessionOptions()
    options.graph_optimization_level = getattr(library.GraphOptimizationLevel, _LEVELS[level])
    if any_cpu:
        # Weights become unsigned bytes, whose kernels use no instruction that saturates.
        options.add_session_config_entry("session.x64quantprecision", "1")
    if save_as is None:
        # The library writes to the terminal itself, with names of the network: fatal errors only. Failures are raised.
        options.log_severity_level = 4
    else:
        options.optimized_model_filepath = str(save_as)
        if save_weights:
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
            options.add_session_config_entry(
                "session.optimized_model_external_initializers_min_size_in_bytes", _MIN_OUTSIDE_BYTES
            )
    if weights is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights.parent))
    source = str(model) if isinstance(model, Path) else model
    try:
        session = library.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except ort_failures() as error:
        raise _failure_of(error, name, "is refused by ONNX Runtime", "invalid-model") from error
    return OnnxRuntimeSession(session, name)


def failure_kind(error: Exception) -> str | None:
    """Return the kind of failure (`failures.KINDS`) that the words of an error of the library mean, None if unknown."""
    text = _words(error)
    return next((kind for kind, words in _WORDS_OF_KIND if any(each in text for each in words)), None)


def _words(error: Exception) -> str:
    return words_of(error)[:1000]


def _failure_of(error: Exception, name: str, predicate: str, usual_kind: str) -> FlightbagError:
    """Return the failure for an error of the library: of the kind that its words mean, else of `usual_kind`."""
    text = _words(error)
    kind = failure_kind(error) or usual_kind
    if kind == "out-of-memory":
        return failure(kind, f"{name} ran out of memory: {text}")
    return failure(kind, f"{name} {predicate}: {text}")


def tensor_info(tensor: Any) -> TensorInfo:
    """Return an input or output of a session of the library. `tensor.type` is like "tensor(float)", and other kinds
    stay as they are; a dimension without a name is None."""
    dtype = tensor.type[len("tensor(") : -1] if tensor.type.startswith("tensor(") else tensor.type
    shape = tuple(dim if isinstance(dim, int | str) else "?" for dim in tensor.shape)
    return TensorInfo(tensor.name, _DTYPES.get(dtype, dtype), shape)
