"""ONNX Runtime sessions on the CPU: what `onnxruntime` loads engines into and its worker measures.

Opens no file of its own accord and decides nothing. Results can differ in the last bits between levels, and
on another CPU; on one machine and level they do not differ between runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from builders.engines.base import TensorInfo
from builders.engines.failures import failure
from builders.extras import import_onnxruntime
from store.errors import FlightbagError

Level: TypeAlias = Literal["off", "extended", "all"]
_LEVELS = {"off": "ORT_DISABLE_ALL", "extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL"}
_DTYPES = {"float": "float32", "double": "float64"}
# The name of weights that an engine keeps outside: it is written in the engine.
WEIGHTS = "engine.weights"
# Smaller tensors stay inside.
_LEAST_OUTSIDE = "1024"
# What the library says, in whatever class of error -> kind of failure; the first that is found counts.
_SIGNS = (
    ("out-of-memory", ("bad_alloc", "allocate memory", "bad allocation", "MemoryError")),
    (
        "unsupported-op",
        ("Could not find an implementation", "No Op registered", "NOT_IMPLEMENTED", "is not a registered"),
    ),
    ("version", ("Unsupported model IR version", "is under development")),
)
_ERRORS = (
    "EPFail",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "NoModel",
    "NoSuchFile",
    "NotImplemented",
    "RuntimeException",
)


class OnnxRuntimeSession:
    """A network ready to run on the CPU; may be shared between threads."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(map(_info, session.get_inputs()))
        self.outputs = tuple(map(_info, session.get_outputs()))

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Output name -> array, for input name -> array as `inputs` says.

        Raises Invalid where the network does not run on these feeds, Unavailable where memory ran out.
        """
        names = [output.name for output in self.outputs]
        errors: tuple[type[Exception], ...] = (*ort_failures(), ValueError)
        try:
            return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))
        except errors as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
            raise _told(error, f"does not run on {shapes}", "wrong-inputs") from error


def open_session(
    model: bytes | Path,
    level: Level,
    *,
    weights: Path | None = None,
    save_as: Path | None = None,
    save_weights: bool = False,
) -> OnnxRuntimeSession:
    """A session over the bytes of an ONNX file, or a private file where it is too large for that, optimised at `level`.

    Weights that the bytes do not hold are mapped from `weights`, a file called `WEIGHTS`, which may be unlinked when
    this returns; the library copies what it is given in memory (`make bench` compares them). With `save_as` the
    optimised network is written there, with `save_weights` its weights beside it as `WEIGHTS`. Raises Invalid where
    ONNX Runtime takes no such network, Unavailable where memory ran out or the library is not installed.
    """
    library = import_onnxruntime()
    options = library.SessionOptions()
    options.graph_optimization_level = getattr(library.GraphOptimizationLevel, _LEVELS[level])
    if save_as is not None:
        options.optimized_model_filepath = str(save_as)
        if save_weights:
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
            options.add_session_config_entry(
                "session.optimized_model_external_initializers_min_size_in_bytes", _LEAST_OUTSIDE
            )
    if weights is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights.parent))
    source = str(model) if isinstance(model, Path) else model
    try:
        return OnnxRuntimeSession(library.InferenceSession(source, options, providers=["CPUExecutionProvider"]))
    except ort_failures() as error:
        raise _told(error, "is refused by ONNX Runtime", "invalid-model") from error


def ort_failures() -> tuple[type[Exception], ...]:
    """What the library raises: unrelated classes, straight under Exception."""
    import_onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(getattr(state, name) for name in _ERRORS)


def failure_kind(error: Exception) -> str | None:
    """The kind of failure (`failures.KINDS`) that the words of an error of the library tell, or None."""
    text = _words(error)
    return next((kind for kind, signs in _SIGNS if any(sign in text for sign in signs)), None)


def _words(error: Exception) -> str:
    return str(error)[:1000].strip()


def _told(error: Exception, what: str, otherwise: str) -> FlightbagError:
    text = _words(error)
    kind = failure_kind(error) or otherwise
    if kind == "out-of-memory":
        return failure(kind, f"ran out of memory: {text}")
    return failure(kind, f"{what}: {text}")


def _info(end: Any) -> TensorInfo:
    """`end.type` is like "tensor(float)"; a dimension that has no name in the model is None."""
    kind = end.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(dim if isinstance(dim, int | str) else "?" for dim in end.shape)
    return TensorInfo(end.name, _DTYPES.get(kind, kind), shape)
