"""The execution providers of ONNX Runtime that a map may be described on, and the arithmetic of each.

A mission file names a provider by `device`: the library's own name in lower case, without "ExecutionProvider". The
arithmetic is part of the build keys of the rows (`numeric`, FORMAT 6.1):

    onnxruntime-cpu-fp32                              the library's own kernels, on a CPU
    onnxruntime-<provider>-<version>-<device>-fp32    those of another provider, in float32
    any                                               whichever provider, in the precision that it prefers

Where a provider cannot be made the library computes on the CPU instead, and so it does with each operator that a
provider lacks; a line in a log is all that it says. Here both are errors: `open_session` returns no session without its
provider, and `require_provider` looks at where each operator ran.
"""

from __future__ import annotations

import ctypes
import json
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from builders.engines.failures import failure
from builders.extras import import_onnxruntime
from builders.recipe import ANY_NUMERIC, CPU_NUMERIC
from store.errors import Invalid
from store.format.host import architecture

_SUFFIX = "ExecutionProvider"
# It computes on a server of somebody else.
_REMOTE = "azure"
# Provider -> the wheel that has it.
_WHEELS = {
    "cann": "onnxruntime-cann",
    "coreml": "onnxruntime",
    "cuda": "onnxruntime-gpu",
    "dml": "onnxruntime-directml",
    "migraphx": "onnxruntime-migraphx",
    "openvino": "onnxruntime-openvino",
    "qnn": "onnxruntime-qnn",
    "rocm": "onnxruntime-rocm",
    "tensorrt": "onnxruntime-gpu",
}
# cuDeviceGetAttribute: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
_CAPABILITY = (75, 76)
# The profile of a run names each operator once; a large network has some thousands.
_MAX_PROFILE = 64 << 20
# What an operator that ran elsewhere may have made: shapes, indices and conditions, which are the same on any device. A
# quantised number is none of them: it stands for a fraction that was rounded there.
_WHOLE = ("int64", "int32", "bool")


@dataclass(frozen=True, slots=True)
class Device:
    """What describes: a provider, and the arithmetic that the build keys of its rows name. By default the CPU."""

    provider: str = "cpu"
    numeric: str = CPU_NUMERIC

    @property
    def is_cpu(self) -> bool:
        """Whether the library's own kernels describe."""
        return self.provider == "cpu"

    @property
    def is_exact(self) -> bool:
        """Whether the build keys name one arithmetic."""
        return self.numeric != ANY_NUMERIC


CPU = Device()


@dataclass(frozen=True, slots=True)
class _Exact:
    """How a provider is told to compute in float32, and what names its class of device."""

    options: Mapping[str, str]
    device: Callable[[], str]


def _cuda_device() -> str:
    try:
        return capability(ctypes.CDLL("libcuda.so.1"))
    except OSError as error:
        raise failure(
            "no-device",
            f"the driver of CUDA cannot be loaded: {error}",
            remedy='describe on a machine with an NVIDIA GPU and its driver, or set device = "cpu"',
        ) from None


# By default CUDA multiplies in TensorFloat-32, and chooses the algorithm of a convolution by a race. A provider that is
# absent here has no switch for it, or chooses its kernels anew at each start: TensorRT, CoreML.
_EXACT = {
    "cuda": _Exact({"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}, _cuda_device),
    "openvino": _Exact({"device_type": "CPU", "precision": "FP32"}, lambda: architecture(platform.machine())),
}
# What a provider is told in any case. An arena that doubles takes memory that a batch could use.
_OPTIONS = {"cuda": {"arena_extend_strategy": "kSameAsRequested"}}


def providers() -> dict[str, str]:
    """Return the name in a mission file -> that of the library, of each provider that the installed ONNX Runtime has.

    Raises Unavailable where it is not installed.
    """
    names: list[str] = import_onnxruntime().get_available_providers()
    by_name = {name.removesuffix(_SUFFIX).lower(): name for name in names}
    return {name: by_name[name] for name in sorted(by_name) if name != _REMOTE}


@cache
def device_of(provider: str, numeric: str) -> Device:
    """Return the device of a provider on this machine; `numeric` is that of a mission file, "exact" or "any".

    Raises Unavailable where this machine or its ONNX Runtime lacks the provider, Invalid for an exact one whose
    arithmetic this version cannot name.
    """
    if (provider, numeric) == ("cpu", "exact"):
        return CPU
    if provider not in (known := providers()):
        version = import_onnxruntime().__version__
        wheel = _WHEELS.get(provider)
        # The wheels have one folder: the last that is installed is the one that runs.
        get = f"pip uninstall onnxruntime, then pip install {wheel}; or " if wheel else ""
        raise failure(
            "no-device",
            f"ONNX Runtime {version} of this machine has no provider {provider!r}, it has {', '.join(known)}",
            remedy=f"{get}name one that it has",
        )
    if numeric == "any":
        return Device(provider, ANY_NUMERIC)
    if provider not in _EXACT:
        exact = ", ".join(name for name in ("cpu", *_EXACT) if name in known)
        raise Invalid(
            f"the provider {provider!r} cannot be held to one arithmetic",
            remedy=f'set numeric = "any", or a device that can: {exact}',
        )
    version = import_onnxruntime().__version__.lower().replace("+", ".")
    return Device(provider, f"onnxruntime-{provider}-{version}-{_EXACT[provider].device()}-fp32")


def capability(cuda: Any) -> str:
    """Return `sm<capability>` of the first device that the driver of CUDA shows. `cuda` is its library."""

    def call(name: str, *arguments: Any) -> None:
        if status := getattr(cuda, name)(*arguments):
            raise failure(
                "no-device",
                f"the driver of CUDA shows no GPU: {name} returned {status}",
                remedy='describe on a machine with an NVIDIA GPU and its driver, or set device = "cpu"',
            )

    number, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(number), 0)
    for attribute, value in zip(_CAPABILITY, (major, minor), strict=True):
        call("cuDeviceGetAttribute", ctypes.byref(value), attribute, number)
    return f"sm{major.value}{minor.value}"


def open_session(device: Device, model: bytes | str, options: Any) -> Any:
    """Return a session of ONNX Runtime over `model`, its bytes or path, on `device`; `options` are its SessionOptions.

    Raises Unavailable where the provider cannot be made here, Refused where this machine computes in another arithmetic
    than the device names, and what the library raises for the model.
    """
    library = import_onnxruntime()
    if device.is_cpu:
        providing: list[Any] = ["CPUExecutionProvider"]
        here = CPU_NUMERIC
    else:
        own = device_of(device.provider, "exact" if device.is_exact else "any")
        arithmetic = _EXACT[device.provider].options if device.is_exact else {}
        here = own.numeric
        providing = [(providers()[device.provider], {**_OPTIONS.get(device.provider, {}), **arithmetic})]
        options.use_deterministic_compute = device.is_exact
    if device.is_exact and device.numeric != here:
        raise failure(
            "wrong-host",
            f"this machine describes in the arithmetic {here}, the build key names {device.numeric}",
            remedy='describe on a machine of that class, or set numeric = "any"',
        )
    # By default the library goes on with the CPU alone where a provider fails, now or in a run. Before version 1.24 it
    # knows the argument not, and the look at its providers finds that it did.
    session = library.InferenceSession(model, options, providers=providing, enable_fallback=0)
    session.disable_fallback()
    if not device.is_cpu and session.get_providers()[0] != providing[0][0]:
        raise failure(
            "no-device",
            f"the provider {device.provider!r} cannot be made on this machine: ONNX Runtime gave "
            f"{', '.join(session.get_providers())}",
            remedy=f'install what {device.provider} needs beside ONNX Runtime, or set device = "cpu"',
        )
    return session


@contextmanager
def recorded(device: Device, options: Any) -> Iterator[None]:
    """Let a session that the block opens with these SessionOptions note where its operators run, for
    `require_provider` in the block."""
    if device.is_cpu:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="flightbag-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "run")
        yield


def require_provider(device: Device, session: Any) -> None:
    """End the notes of a session that ran. Raise Unavailable where nothing ran with the device's provider, and Invalid
    where one arithmetic is named and an operator ran elsewhere that makes more than whole numbers: those that compute
    shapes may."""
    if device.is_cpu:
        return
    with open(session.end_profiling(), "rb") as file:
        data = file.read(_MAX_PROFILE + 1)
    own = providers()[device.provider]
    elsewhere, count = operators(data, own)
    if not count:
        raise failure(
            "no-device",
            f"ONNX Runtime ran no operator of the model with {device.provider!r}",
            remedy='set device = "cpu"',
        )
    if elsewhere and device.is_exact:
        raise failure(
            "unsupported-op",
            f"the provider {device.provider!r} lacks operators of the model, which ran elsewhere: "
            f"{', '.join(sorted(elsewhere))}"[:500],
            remedy='export the network without them, or set numeric = "any" or device = "cpu"',
        )


def operators(profile: bytes, own: str) -> tuple[set[str], int]:
    """Return, of a profile of ONNX Runtime, the operators that made something else than whole numbers elsewhere than
    with the provider `own`, and how many ran with it."""
    if len(profile) > _MAX_PROFILE:
        raise failure("failed", f"the profile of ONNX Runtime has more than {_MAX_PROFILE} bytes")
    elsewhere, count = set(), 0
    try:
        for event in json.loads(profile):
            about = event["args"]
            if event["cat"] != "Node" or "provider" not in about:
                continue
            if about["provider"] == own:
                count += 1
            elif not _is_whole([kind for output in about["output_type_shape"] for kind in output]):
                elsewhere.add(f"{about['op_name']} ({about['provider'].removesuffix(_SUFFIX)})")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise failure(
            "failed", f"the profile of ONNX Runtime cannot be read: {type(error).__name__}: {error}"
        ) from None
    return elsewhere, count


def _is_whole(kinds: list[str]) -> bool:
    """Whether there are outputs, and nothing but whole numbers in them."""
    return bool(kinds) and all(kind in _WHOLE for kind in kinds)
