"""The libraries of the extras, imported when they are used, and ONNX Runtime with its telemetry off.

The base install has none of them, and `import builders` must still work: a missing one becomes Unavailable,
naming the extra, at the moment it is needed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

from store.errors import Unavailable


def missing_extra(library: str, extra: str = "build") -> Unavailable:
    """The error for a library of an extra that is not installed."""
    return Unavailable(
        f"this needs {library}, which is not installed",
        remedy=f"pip install 'flightbag[{extra}]'",
        library=library,
        extra=extra,
    )


def import_extra(module: str, extra: str = "build") -> Any:
    """The module of an extra. Raises Unavailable, naming the extra, where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing_extra(module.partition(".")[0], extra) from error
    except ImportError as error:
        library = module.partition(".")[0]
        raise Unavailable(f"{library} cannot be loaded: {error}", remedy="install it again", library=library) from error


def import_onnxruntime() -> Any:
    """`onnxruntime`, its telemetry off. Raises Unavailable where it is not installed.

    The library reads the variable while it is being imported; the call covers a library that something else
    had imported before.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    onnxruntime = import_extra("onnxruntime")
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def require_build_extra() -> None:
    """Raises Unavailable, naming the extra, unless every library that building needs is installed.

    Asked before anything is opened, so that it is not found out halfway.
    """
    for module in ("numpy", "PIL", "onnx", "onnxruntime", "pmtiles", "pydantic", "shapely"):
        if importlib.util.find_spec(module) is None:
            raise missing_extra(module)
