"""The backends by name. `compose` makes the backends of a mission, the process that compiles makes its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from builders.engines.base import EngineBackend
from builders.engines.onnxruntime import OnnxRuntimeBackend
from builders.engines.tensorrt import TensorRtBackend
from store.errors import FlightbagError, Invalid

BACKENDS: Mapping[str, Callable[[], EngineBackend]] = {
    "onnxruntime": OnnxRuntimeBackend,
    "tensorrt": TensorRtBackend,
}


def backend(name: str) -> EngineBackend:
    """Return a new backend of this name. Raise Invalid (`no-backend`) for a name that this version does not know."""
    constructor = BACKENDS.get(name)
    if constructor is None:
        raise Invalid(
            f"this version has no backend {name!r}", remedy="name one of " + ", ".join(BACKENDS), kind="no-backend"
        )
    return constructor()


def this_host(names: Iterable[str]) -> str:
    """Return what these backends know of this machine, as one host class; "" where none of them is installed. Raise
    what one raises that is installed and fails: another engine than the right one would be chosen."""
    parts: set[str] = set()
    for name in names:
        try:
            parts.update(backend(name).describe_host().split("+"))
        except FlightbagError as error:
            if not error.extra:
                raise
    return "+".join(sorted(parts))
