"""The backends by name. `compose` makes the backends of a mission, the process that compiles makes its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from builders.engines.base import EngineBackend
from builders.engines.onnxruntime import OnnxRuntimeBackend
from builders.engines.tensorrt import TensorRtBackend
from builders.engines.tensorrt_rtx import TensorRtRtxBackend
from store.errors import Invalid

BACKENDS: Mapping[str, Callable[[], EngineBackend]] = {
    "onnxruntime": OnnxRuntimeBackend,
    "tensorrt": TensorRtBackend,
    "tensorrt-rtx": TensorRtRtxBackend,
}


def backend(name: str) -> EngineBackend:
    """Return a new backend of this name. Raise Invalid (`no-backend`) for a name that this version does not know."""
    constructor = BACKENDS.get(name)
    if constructor is None:
        raise Invalid(
            f"this version has no backend {name!r}", remedy="name one of " + ", ".join(BACKENDS), kind="no-backend"
        )
    return constructor()
