"""The backends by name. `compose` makes those of a mission, and the process that compiles its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from builders.engines.base import EngineBackend
from builders.engines.onnxruntime import OnnxRuntimeBackend
from builders.engines.tensorrt import TensorRtBackend
from store.errors import Invalid

BACKENDS: Mapping[str, Callable[[], EngineBackend]] = {
    "onnxruntime": OnnxRuntimeBackend,
    "tensorrt": TensorRtBackend,
}


def backend(name: str) -> EngineBackend:
    """The backend of this name. Raises Invalid for a name that this version does not know."""
    make = BACKENDS.get(name)
    if make is None:
        raise Invalid(f"there is no backend {name!r}", remedy="one of " + ", ".join(BACKENDS), kind="no-backend")
    return make()
