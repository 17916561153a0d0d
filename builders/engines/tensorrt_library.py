"""TensorRT and the CUDA runtime as libraries: their import, their versions, and the meaning of their messages.

Neither the base install nor the extra `build` contains them: this module alone imports them, when they are first used.
Every 10.x and 11.x has the names of 10.0 that this project uses; `SINCE` lists the names that came later.
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

# Names that some supported versions lack -> the first version that has them.
SINCE: Mapping[str, str] = {
    "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY": "10.9",
    "Builder.build_serialized_network_to_stream": "10.13.3",
    "IStreamWriter": "10.13.3",
}
_MAJORS = ("10", "11")
_PARTS = ("Major", "Minor", "Patch", "Build")
_KEPT_MESSAGES = 200

# Kind of failure -> words in the library's messages that mean it. The first match counts.
_NO_IMPLEMENTATION = "could not find any implementation"
_MEMORY = ("out of memory", "outofmemory", "memoryallocation", "bad_alloc", "insufficient", "failed to allocate")
_WORDS_OF_KIND: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("out-of-memory", _MEMORY),
    ("wrong-host", ("incompatible device", "platform specific tag")),
    ("version", ("version tag", "not compatible with this version", "lean runtime")),
    ("invalid-model", ("magic tag",)),
    ("unsupported-op", (_NO_IMPLEMENTATION, "no importer registered", "plugin not found")),
)


def import_tensorrt() -> Any:
    """Return the module `tensorrt` of a supported version. Raise Unavailable, naming the missing library, if there is
    none."""
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
                f"TensorRT {tensorrt.__version__} is installed, this version needs {' or '.join(_MAJORS)}",
                installed=tensorrt.__version__,
            )
        return tensorrt
    raise Unavailable(
        "TensorRT is not installed",
        remedy="install TensorRT and its Python module from the hardware vendor, on a Jetson with JetPack",
        library="tensorrt",
        extra="tensorrt",
    )


def import_cuda() -> Any:
    """Return the module of the CUDA runtime. Raise Unavailable if it is not installed."""
    # Older releases of the same package use the second name.
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
        f"the module {name} is installed but cannot be imported: {error}",
        remedy="install the TensorRT libraries of the version that the module names, from the hardware vendor",
        library="tensorrt",
        extra="tensorrt",
    )


def supports(tensorrt: Any, name: str) -> bool:
    """Return whether the installed module has `name`, one of `SINCE`."""
    if name not in SINCE:
        raise KeyError(name)
    value = tensorrt
    for part in name.split("."):
        value = getattr(value, part, None)
    return value is not None


def library_version(tensorrt: Any, open_library: Callable[[str], Any] | None = None) -> str:
    """Return all four parts of the version, such as "10.3.0.30". Raise Unavailable (`version`) if one is unknown.

    The library knows them, not the module: `__version__` of some releases has three parts, and a module runs with any
    library of its major version.
    """
    open_library = open_library or _loaded_library
    text: str = tensorrt.__version__
    try:
        library = open_library(f"libnvinfer.so.{text.partition('.')[0]}")
        text = ".".join(str(getattr(library, f"getInferLib{part}Version")()) for part in _PARTS)
    except (OSError, AttributeError):
        pass  # the module's version counts if the library reports none
    if text.count(".") != 3:
        raise failure("version", f"the fourth part of the version of TensorRT {text} is unknown", installed=text)
    return text


def _loaded_library(name: str) -> Any:
    """Return the library that the module has loaded. Raise OSError if it has loaded none of that name."""
    return ctypes.CDLL(name, mode=os.RTLD_NOLOAD)


def cuda_result(cuda: Any, result: tuple[Any, ...], message: str) -> Any:
    """Return the value that a call of the CUDA runtime gives after its error code.

    Raise Unavailable with this message if the code is an error, of the kind `out-of-memory` if memory ran out.
    """
    code, *values = result
    if code != cuda.cudaError_t.cudaSuccess:
        if code == cuda.cudaError_t.cudaErrorMemoryAllocation:
            raise failure("out-of-memory", f"{message}: {code.name}", code=code.name)
        raise failure("failed", f"{message}: {code.name}", remedy="check the GPU and its driver", code=code.name)
    return values[0] if values else None


def make_log(tensorrt: Any, echo: TextIO | None = None) -> Any:
    """Return a logger for TensorRT objects that keeps the last messages, and also writes them to `echo`.

    Its `failure(what)` returns the error for a call that has just failed; `forget()` drops the messages.
    """
    levels = tensorrt.ILogger.Severity

    class Log(tensorrt.ILogger):  # type: ignore[misc] # a class of an optional module
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.forget()

        def log(self, severity: Any, msg: str) -> None:
            # The library calls this from its own threads, so it must not raise.
            if severity in (levels.INTERNAL_ERROR, levels.ERROR):
                self.errors.append(msg)
            elif severity == levels.WARNING:
                self.warnings.append(msg)
            if echo is not None and severity != levels.VERBOSE:
                with contextlib.suppress(OSError, ValueError):
                    echo.write(f"[TensorRT] {msg}\n")

        def forget(self) -> None:
            self.errors: deque[str] = deque(maxlen=_KEPT_MESSAGES)
            self.warnings: deque[str] = deque(maxlen=_KEPT_MESSAGES)

        def failure(self, what: str) -> FlightbagError:
            return failure_of_messages(what, list(self.errors), list(self.warnings))

    return Log()


def failure_of_messages(what: str, errors: list[str], warnings: list[str]) -> FlightbagError:
    """Return the failure that the library's messages mean; `what` names the call that failed."""
    words = "\n".join(errors).lower()
    if not errors or _NO_IMPLEMENTATION in words:
        # The library skips a tactic that lacks memory with a warning; if it skips all, it finds no implementation.
        words = "\n".join([words, *warnings]).lower()
    kind = next((kind for kind, signs in _WORDS_OF_KIND if any(sign in words for sign in signs)), "failed")
    text = "; ".join((errors or warnings)[-3:])[-1000:].strip()
    remedy = "free memory of the GPU, set a smaller max in the inputs, or set a smaller or a larger workspace_mib"
    return failure(
        kind,
        f"{what}: {text}" if text else f"{what}, and TensorRT gave no reason",
        remedy=remedy if kind == "out-of-memory" else "",
    )
