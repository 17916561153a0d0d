"""TensorRT and the CUDA runtime as libraries: how they are imported, which version they are, what their words mean.

Neither comes with the base install nor with `build`: both are imported when they are used, here and nowhere else. The
names of 10.0 that this project uses are in every 10.x and 11.x; those that came later are in `SINCE`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from builders.engines.failures import failure
from store.errors import FlightbagError, Unavailable

# What is not in every supported version, with the version that brought it.
SINCE: Mapping[str, str] = {
    "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY": "10.9",
    "Builder.build_serialized_network_to_stream": "10.13.3",
    "IStreamWriter": "10.13.3",
}
_MAJORS = ("10", "11")
_PARTS = ("Major", "Minor", "Patch", "Build")
_KEPT = 200

# Signs in the library's words -> kind of failure; the first that is found counts.
_NO_IMPLEMENTATION = "could not find any implementation"
_MEMORY = ("out of memory", "outofmemory", "memoryallocation", "bad_alloc", "insufficient", "failed to allocate")
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("out-of-memory", _MEMORY),
    ("wrong-host", ("incompatible device", "platform specific tag")),
    ("version", ("version tag", "not compatible with this version", "lean runtime")),
    ("invalid-model", ("magic tag",)),
    ("unsupported-op", (_NO_IMPLEMENTATION, "no importer registered", "plugin not found")),
)


def import_tensorrt() -> Any:
    """The module `tensorrt`, of a supported version. Raises Unavailable, naming what is missing, otherwise."""
    for name in ("tensorrt", "tensorrt_bindings"):
        try:
            tensorrt = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name == name:
                continue
            raise _broken(name, error) from error
        except (ImportError, OSError, RuntimeError) as error:
            raise _broken(name, error) from error
        if tensorrt.__version__.partition(".")[0] not in _MAJORS:
            raise failure(
                "version",
                f"TensorRT {tensorrt.__version__} is installed, this needs {' or '.join(_MAJORS)}",
                installed=tensorrt.__version__,
            )
        return tensorrt
    raise Unavailable(
        "TensorRT is not installed",
        remedy="TensorRT comes from the hardware vendor: install it, on a Jetson with JetPack, and its Python module",
        library="tensorrt",
        extra="tensorrt",
    )


def import_cuda() -> Any:
    """The module of the CUDA runtime. Raises Unavailable where it is not installed."""
    # Older releases of the same package have it under the second name.
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise Unavailable(
        "the Python module of the CUDA runtime is not installed",
        remedy="pip install 'flightbag[tensorrt]'",
        library="cuda-bindings",
        extra="tensorrt",
    )


def _broken(name: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"the module {name} is there and cannot be imported: {error}",
        remedy="TensorRT comes from the hardware vendor: install the libraries of the version that the module names",
        library="tensorrt",
        extra="tensorrt",
    )


def has(tensorrt: Any, name: str) -> bool:
    """Whether the installed module has `name`, one of `SINCE`."""
    if name not in SINCE:
        raise KeyError(name)
    found = tensorrt
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is not None


def library_version(tensorrt: Any, open_library: Callable[[str], Any] | None = None) -> str:
    """All four parts, such as "10.3.0.30". Raises Unavailable (`version`) where they cannot be told.

    The library is asked, not the module: `__version__` of some releases has three parts, and a module runs with any
    library of its major version.
    """
    open_library = open_library or _loaded_library
    text: str = tensorrt.__version__
    try:
        library = open_library(f"libnvinfer.so.{text.partition('.')[0]}")
        text = ".".join(str(getattr(library, f"getInferLib{part}Version")()) for part in _PARTS)
    except (OSError, AttributeError):
        pass  # what the module says counts, if that is all
    if text.count(".") != 3:
        raise failure("version", f"of TensorRT {text} the fourth part of the version cannot be told", installed=text)
    return text


def _loaded_library(name: str) -> Any:
    """The library that the module has loaded; OSError where it has loaded none of that name."""
    return ctypes.CDLL(name, mode=os.RTLD_NOLOAD)


def answer(cuda: Any, result: tuple[Any, ...], what: str) -> Any:
    """The value that a call of the CUDA runtime gave after its error code.

    Raises Unavailable, `out-of-memory` where that is why.
    """
    code, *values = result
    if code != cuda.cudaError_t.cudaSuccess:
        memory = code == cuda.cudaError_t.cudaErrorMemoryAllocation
        raise failure("out-of-memory" if memory else "failed", f"{what}: {code.name}", code=code.name)
    return values[0] if values else None


def make_log(tensorrt: Any, echo: TextIO | None = None) -> Any:
    """A logger for TensorRT objects that keeps what was said last, and writes it to `echo` too.

    Its `failure(what)` is the error for something that failed just now; `forget()` drops what was kept.
    """
    levels = tensorrt.ILogger.Severity

    class Log(tensorrt.ILogger):  # type: ignore[misc] # a class of an optional module
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.forget()

        def log(self, severity: Any, msg: str) -> None:
            # Called from the library's threads: it must not raise.
            if severity in (levels.INTERNAL_ERROR, levels.ERROR):
                self.errors.append(msg)
            elif severity == levels.WARNING:
                self.warnings.append(msg)
            if echo is not None and severity != levels.VERBOSE:
                with contextlib.suppress(OSError, ValueError):
                    echo.write(f"[TensorRT] {msg}\n")

        def forget(self) -> None:
            self.errors: deque[str] = deque(maxlen=_KEPT)
            self.warnings: deque[str] = deque(maxlen=_KEPT)

        def failure(self, what: str) -> FlightbagError:
            return told(what, list(self.errors), list(self.warnings))

    return Log()


def told(what: str, errors: list[str], warnings: list[str]) -> FlightbagError:
    """The failure that the library's words mean."""
    said = "\n".join(errors).lower()
    if not errors or _NO_IMPLEMENTATION in said:
        # A tactic that finds no memory is skipped with a warning; when all are, there is no implementation.
        said = "\n".join([said, *warnings]).lower()
    kind = next((kind for kind, signs in _SIGNS if any(sign in said for sign in signs)), "failed")
    text = "; ".join((errors or warnings)[-3:])[-1000:].strip()
    remedy = "free memory of the GPU, or build with less: a smaller max, workspace_mib; or with more workspace_mib"
    return failure(
        kind,
        f"{what}: {text}" if text else f"{what}, and TensorRT gave no reason",
        remedy=remedy if kind == "out-of-memory" else "",
    )
