"""TensorRT, TensorRT for RTX and the CUDA runtime as libraries: their import, versions, and the meaning of messages.

Neither the base install nor the extra `build` contains them: this module alone imports them, when they are first used.
Every 10.x and 11.x of TensorRT, and every 1.x of TensorRT for RTX, has the names of TensorRT 10.0 that this project
uses; `SINCE` lists the names that came later. Both libraries have one interface and one parser; `Product` is what
differs.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import re
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TextIO, TypeVar

from builders.engines.failures import failure
from store.errors import FlightbagError, Unavailable, either
from store.installation import install_remedy

# Names that some supported versions lack -> the first version that has them.
SINCE: Mapping[str, str] = {
    "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY": "10.9",
    "Builder.build_serialized_network_to_stream": "10.13.3",
    "IStreamWriter": "10.13.3",
}
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_PARTS = ("Major", "Minor", "Patch", "Build")
_KEPT_MESSAGES = 200

# The library says this after nearly every other error on a machine without a GPU, and seldom means it.
_NO_DRIVER = "cuda driver version is insufficient"
# Kind of failure -> words in the library's messages that mean it. The first match counts.
_NO_IMPLEMENTATION = "could not find any implementation"
# Memory of this process, of which a mission file says how much there may be; the other words are of the GPU's. The last
# three are what the compiler of TensorRT for RTX says where an allocation or a thread of its own failed.
_HOST_MEMORY = (
    "bad_alloc",
    "hostbuffer::allocate",
    "bad optional access",
    "myelin_tensor.h",
    "resource temporarily unavailable",
)
_MEMORY = (
    "out of memory",
    "outofmemory",
    "memoryallocation",
    "insufficient memory",
    "failed to allocate",
    "within workspace limit",
    *_HOST_MEMORY,
)
_WORDS_OF_KIND: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("out-of-memory", _MEMORY),
    ("wrong-host", ("incompatible device", "platform specific tag")),
    ("version", ("version tag", "not compatible with this version", "lean runtime")),
    ("wrong-inputs", ("optimization profile", "values for profile", "in profile 0", "dimension mismatch for tensor")),
    ("invalid-model", ("at least one output", "magictag", "plan.header.size", "empty memory buffer")),
    # The last three are the builder's, of a network that its parser and ONNX Runtime take.
    (
        "unsupported-op",
        (_NO_IMPLEMENTATION, "no importer registered", "plugin not found", "api usage error", "no runners", "myelin"),
    ),
    ("no-device", ("cuda initialization failure", _NO_DRIVER)),
)


@dataclass(frozen=True, slots=True)
class Product:
    """A library of the vendor, and the extra that installs it. `paired` says that it runs only with the Python module
    of its own version: with another it crashes, or does something else."""

    title: str
    modules: tuple[str, ...]
    library: str
    majors: tuple[str, ...]
    extra: str
    where: str
    paired: bool = False

    @property
    def remedy(self) -> str:
        """How the product is installed, and where that can be done."""
        return install_remedy(self.extra) + self.where


TENSORRT = Product(
    "TensorRT",
    ("tensorrt", "tensorrt_bindings"),
    "libnvinfer.so",
    ("10", "11"),
    "tensorrt",
    "; on a Jetson, TensorRT and its Python module come with JetPack",
)
RTX = Product(
    "TensorRT for RTX",
    ("tensorrt_rtx", "tensorrt_rtx_bindings"),
    "libtensorrt_rtx.so",
    ("1",),
    "tensorrt-rtx",
    " on an x86_64 machine",
    paired=True,
)


def import_tensorrt(product: Product = TENSORRT) -> Any:
    """Return the Python module of a product in a supported version. Raise Unavailable, naming the missing library, if
    there is none."""
    for name in product.modules:
        try:
            tensorrt = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name == name:
                continue
            raise _broken(name, error, product) from error
        except (ImportError, OSError, RuntimeError) as error:
            raise _broken(name, error, product) from error
        version = tensorrt.__version__
        if version.partition(".")[0] not in product.majors:
            raise failure(
                "version",
                f"{product.title} {version} is installed, this version needs {either(list(product.majors))}",
                installed=version,
            )
        if product.paired and (actual := library_version(tensorrt, product)) != version:
            raise failure(
                "version",
                f"the module {name} {version} runs with the library of {product.title} {actual}",
                remedy=f"install the module and the library of one version: {product.remedy}",
                installed=actual,
            )
        return tensorrt
    raise Unavailable(
        f"{product.title} is not installed", remedy=product.remedy, library=product.modules[0], extra=product.extra
    )


def import_cuda(product: Product = TENSORRT) -> Any:
    """Return the module of the CUDA runtime, which a product runs engines with. Raise Unavailable if it is not
    installed."""
    # Older releases of the same package use the second name.
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise Unavailable(
        "the Python module of the CUDA runtime is not installed",
        remedy=install_remedy(product.extra),
        library="cuda-bindings",
        extra=product.extra,
    )


def _broken(name: str, error: Exception, product: Product) -> FlightbagError:
    if any(words in str(error).lower() for words in ("allocate memory", "map segment")):
        return failure("out-of-memory", f"there is no memory to load {product.title}: {error}")
    return Unavailable(
        f"the module {name} is installed but cannot be imported: {error}",
        remedy=f"install the libraries of {product.title} of the version that the module names: {product.remedy}",
        library=product.modules[0],
        extra=product.extra,
    )


def supports(tensorrt: Any, name: str) -> bool:
    """Return whether the installed module has `name`, one of `SINCE`."""
    if name not in SINCE:
        raise KeyError(name)
    value = tensorrt
    for part in name.split("."):
        value = getattr(value, part, None)
    return value is not None


def library_version(
    tensorrt: Any, product: Product = TENSORRT, open_library: Callable[[str], Any] | None = None
) -> str:
    """Return all four parts of the version, such as "10.3.0.30". Raise Unavailable (`version`) if one is unknown.

    The library knows them, not the module: `__version__` of some releases has three parts, and a module runs with any
    library of its major version.
    """
    open_library = open_library or _loaded_library
    text: str = tensorrt.__version__
    try:
        library = open_library(f"{product.library}.{text.partition('.')[0]}")
        text = ".".join(str(getattr(library, f"getInferLib{part}Version")()) for part in _PARTS)
    except (OSError, AttributeError):
        pass  # the module's version counts if the library reports none
    if text.count(".") != 3:
        raise failure("version", f"the fourth part of the version of {product.title} {text} is unknown", installed=text)
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


def require_device(cuda: Any, product: Product = TENSORRT) -> None:
    """Raise Unavailable (`no-device`) unless CUDA shows a device here.

    To be asked before a runtime of the product is made: without a driver the libraries return one whose first use
    crashes the process.
    """
    code, count = cuda.cudaGetDeviceCount()
    if code == cuda.cudaError_t.cudaErrorInsufficientDriver:
        if version := cuda_result(cuda, cuda.cudaDriverGetVersion(), "the driver does not report its CUDA version"):
            what = f"the driver of the GPU supports CUDA {version // 1000}.{version % 1000 // 10}, which is too old"
            raise failure("version", what, remedy="install a newer driver of the GPU", code=code.name)
    elif code not in (cuda.cudaError_t.cudaSuccess, cuda.cudaError_t.cudaErrorNoDevice):
        raise failure("failed", f"CUDA does not start: {code.name}", remedy="check the GPU and its driver")
    elif count:
        return
    raise failure("no-device", f"this machine has no GPU for {product.title}, or no driver of one", code=code.name)


def freeing(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Let a failure of the function keep no object of the library alive: empty the frames of its traceback.

    Whoever catches a failure makes a circle of it and its frames, and Python's collector frees what hangs on a circle
    at any later moment: within a call of the logger too, while the library holds the lock that the end of a builder
    waits for. The process then stands still for ever.
    """

    @functools.wraps(function)
    def called(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            one: BaseException | None = error
            while one is not None:
                traceback.clear_frames(one.__traceback__)
                one = one.__cause__ or one.__context__
            raise

    return called


def make_log(tensorrt: Any, echo: TextIO | None = None) -> Any:
    """Return a logger for the objects of a library that keeps the last messages, and also writes them to `echo`.

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
    errors = [one for one in errors if _NO_DRIVER not in one.lower()] or errors
    words = "\n".join(errors).lower()
    if not errors or _NO_IMPLEMENTATION in words:
        # The library skips a tactic that lacks memory with a warning; if it skips all, it finds no implementation.
        words = "\n".join([words, *warnings]).lower()
    kind = next((kind for kind, signs in _WORDS_OF_KIND if any(sign in words for sign in signs)), "failed")
    text = "; ".join(map(without_place, (errors or warnings)[-3:]))[-1000:].strip()
    remedy = ""
    if kind == "out-of-memory" and not any(sign in words for sign in _HOST_MEMORY):
        remedy = "free memory of the GPU, set a smaller max in the inputs, or set a smaller or a larger workspace_mib"
    return failure(
        kind,
        f"{what}: {text}" if text else f"{what}, and TensorRT gave no reason",
        remedy=remedy,
    )


def without_place(message: str) -> str:
    """Return a message of a library without where in its own source it arose."""
    return re.sub(r"^\w+\.cpp:\d+: |\.?\s*\bIn \S+ at /\S+:\d+\s*", "", message)
