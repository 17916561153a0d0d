"""The libraries of the extras, imported when they are used, and ONNX Runtime with its telemetry off.

The base install has none of them, and `import builders` still works. A missing library becomes Unavailable, which names
the extra, when it is needed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from typing import Any

from store.errors import Unavailable
from store.installation import install_remedy

# What flies runs on 3.10, the Python of JetPack 6. Its SQLite takes no limits, and building reads foreign databases.
_GROUND_PYTHON = (3, 11)
# The least extra that brings a library; "build" brings the others.
_LEAST_EXTRA = {"numpy": "onboard", "onnxruntime": "onboard"}
_ONBOARD = ("numpy", "onnxruntime")
_BUILD = ("numpy", "PIL", "onnx", "onnxruntime", "pmtiles", "pydantic", "shapely", "simplejpeg")


def missing_extra(library: str, extra: str = "") -> Unavailable:
    """Return the error for a library that is not installed. It names an extra that brings it, by default the least."""
    extra = extra or _LEAST_EXTRA.get(library, "build")
    return Unavailable(
        f"this needs {library}, which is not installed",
        remedy=install_remedy(extra),
        library=library,
        extra=extra,
    )


def import_extra(module: str, extra: str = "") -> Any:
    """Return the module of an extra. Raises Unavailable, which names the extra, where it is not installed.

    An extra need not be given where it is the least one that brings the library.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise missing_extra(module.partition(".")[0], extra) from error
    except ImportError as error:
        library = module.partition(".")[0]
        raise Unavailable(
            f"{library} is installed and cannot be loaded: {error}",
            remedy=f"install {library} again",
            library=library,
        ) from error


def import_onnxruntime() -> Any:
    """Return `onnxruntime` with its telemetry off. Raises Unavailable where it is not installed.

    The library reads the variable while it is being imported; the call covers a library that other code imported
    before.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    onnxruntime = import_extra("onnxruntime")
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def require_build_extra() -> None:
    """Raise Unavailable, naming the extra, unless every library that building needs is installed; or naming the Python
    that it needs.

    A command calls this before it opens anything, so that it does not fail halfway.
    """
    if sys.version_info < _GROUND_PYTHON:
        needed = ".".join(map(str, _GROUND_PYTHON))
        raise Unavailable(
            f"what builds or reads imagery needs Python {needed} or newer; this is {platform.python_version()}",
            remedy=f"install flightbag with Python {needed} or newer on the machine that builds",
            extra="build",
        )
    _require(_BUILD, "build")


def require_onboard_extra() -> None:
    """Raise Unavailable, naming the extra, unless every library that `builders.onboard` needs is installed."""
    _require(_ONBOARD, "onboard")


def _require(modules: tuple[str, ...], extra: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise missing_extra(module, extra)
