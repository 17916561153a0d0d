"""ONNX Runtime sessions on the CPU: what `onnxruntime` loads engines into and its worker measures.

Opens no file of its own accord and decides nothing. Results can differ in the last bits between levels, and
on another CPU; on one machine and level they do not differ between runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from builders.engines.base import TensorInfo
from builders.extras import import_onnxruntime
from store.errors import Invalid, Unavailable

Level: TypeAlias = Literal["off", "extended", "all"]
_LEVELS = {"off": "ORT_DISABLE_ALL", "extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL"}
_DTYPES = {"float": "float32", "double": "float64"}
# What the library says, in whatever class of error, when it is the machine that fails and not the model.
_OUT_OF_MEMORY = ("bad_alloc", "allocate memory", "bad allocation")
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
        errors: tuple[type[Exception], ...] = (*_errors(), ValueError)
        try:
            return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))
        except errors as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
            raise _told(error, f"does not run on {shapes}") from error


def open_session(data: bytes, level: Level, *, save_as: Path | None = None) -> OnnxRuntimeSession:
    """A session over the bytes of one ONNX file, weights inside, optimised at `level`.

    With `save_as` the optimised network is written there. Raises Invalid where ONNX Runtime takes no such
    network, Unavailable where memory ran out or the library is not installed.
    """
    library = import_onnxruntime()
    options = library.SessionOptions()
    options.graph_optimization_level = getattr(library.GraphOptimizationLevel, _LEVELS[level])
    if save_as is not None:
        options.optimized_model_filepath = str(save_as)
    try:
        return OnnxRuntimeSession(library.InferenceSession(data, options, providers=["CPUExecutionProvider"]))
    except _errors() as error:
        raise _told(error, "is refused by ONNX Runtime") from error


def _errors() -> tuple[type[Exception], ...]:
    """What the library raises: unrelated classes, straight under Exception."""
    import_onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return tuple(getattr(state, name) for name in _ERRORS)


def _told(error: Exception, what: str) -> Invalid | Unavailable:
    text = str(error)[:1000].strip()
    if any(sign in text for sign in _OUT_OF_MEMORY):
        return Unavailable(f"memory ran out: {text}", remedy="free memory or use a larger machine")
    return Invalid(f"{what}: {text}", remedy="export the network again, or ask for what it can do")


def _info(end: Any) -> TensorInfo:
    """`end.type` is like "tensor(float)"; a dimension that has no name in the model is None."""
    kind = end.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(dim if isinstance(dim, int | str) else "?" for dim in end.shape)
    return TensorInfo(end.name, _DTYPES.get(kind, kind), shape)
