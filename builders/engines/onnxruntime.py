"""Engines for ONNX Runtime on the CPU, in two modes.

`portable`: one ONNX file that runs on any CPU, with its weights inside unless they are larger than 2 GB. The network is
optimised at level EXTENDED, which gives the same bytes on every CPU, and is loaded at level ALL, which fits it to the
CPU of the machine that loads it. In int8 it computes the same on every x86_64 CPU. It needs the least version of the
library that has everything that the file asks for (`onnxruntime_needs`).

`fast`: optimised at level ALL for this CPU, its weights in a file of their own, and loaded with optimisation off, in a
small part of the time and memory. On a CPU for which the library has other kernels it would compute something else
without an error, and for another version of the library nobody promises anything. So its host class names instruction
set, features and version that it was made for, and every other machine refuses it.

In each mode equal sources, inputs and versions give equal bytes, whatever their paths and names.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from builders.engines.base import BackendResult, CompileJob, EngineSession, EngineSpec, require_target
from builders.engines.failures import failure
from builders.engines.model import external_locations, parse_onnx, session_source
from builders.engines.onnxruntime_needs import features, imported, least_version
from builders.engines.onnxruntime_versions import OLDEST
from builders.engines.session import WEIGHTS, Level, open_session
from builders.extras import import_onnxruntime
from store.errors import FlightbagError, Invalid
from store.format.cbor import Value
from store.format.host import (
    CPU_FEATURES,
    CPU_LEVELS,
    architecture,
    class_of,
    fit,
    meets,
    require_host_class,
    with_least,
)

OPTIONS: Mapping[str, Value] = {"mode": "portable"}
# What a portable engine needs beside the least version of the library; the class of every CPU begins with it.
ANY_CPU = "cpu"
CPU_FILE = Path("/proc/cpuinfo")

# The flags that Linux lists, by the words of `CPU_LEVELS` and `CPU_FEATURES`: those by which ONNX Runtime chooses
# kernels (onnxruntime/core/mlas/lib/platform.cpp and core/common/cpuid_info.cc, microsoft/onnxruntime at 0112bef28c2d).
# They change the block of the layout that is stored in a fast engine (NCHWc: 16 with AVX-512, else 8), whether sums of
# products of bytes saturate (on AVX2 and AVX-512 without VNNI they do), and the order of sums in float32 (AVX-512, SVE,
# SME). AVX-NE-CONVERT only casts, which is exact; AVX512-BF16, AMX-BF16 and SVE2 choose nothing.
_LEVEL_FLAGS: Mapping[str, frozenset[str]] = {
    "avx512": frozenset({"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"}),
    "avx512f": frozenset({"avx2", "fma", "avx512f"}),
    "avx2": frozenset({"avx2", "fma"}),
    "avx": frozenset({"avx"}),
    "sse2": frozenset({"sse2"}),
    "neonfp16": frozenset({"asimd", "asimdhp"}),
    "neon": frozenset({"asimd"}),
}
_FEATURE_FLAGS: Mapping[str, frozenset[str]] = {
    "avxvnni": frozenset({"avx_vnni"}),
    "avx512vnni": frozenset({"avx512_vnni"}),
    "avxvnniint8": frozenset({"avx_vnni_int8"}),
    "amx": frozenset({"amx_tile", "amx_int8"}),
    "dot": frozenset({"asimddp"}),
    "i8mm": frozenset({"i8mm"}),
    "bf16": frozenset({"bf16"}),
    "sve": frozenset({"sve"}),
    "sme": frozenset({"sme"}),
    "sme2": frozenset({"sme2"}),
}


def cpu_class(machine: str, cpuinfo: str) -> str:
    """Return the host class of a CPU: `cpu-<architecture>-<instruction set>[_<feature>…]`, such as
    `cpu-x86_64-avx512_avx512vnni`.

    `machine` is the output of `uname -m`, `cpuinfo` the text of /proc/cpuinfo. The class ends with the architecture if
    the text names no known instruction set.
    """
    name = architecture(machine)
    flags: frozenset[str] = frozenset()
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            flags = frozenset(value.split())
            break
    widest = next((level for level in CPU_LEVELS.get(name, ()) if _LEVEL_FLAGS[level] <= flags), None)
    if widest is None:
        return f"cpu-{name}"
    features = [feature for feature in CPU_FEATURES[name] if _FEATURE_FLAGS[feature] <= flags]
    return f"cpu-{name}-{'_'.join([widest, *features])}"


def cpu_host() -> str:
    """Return the class of the CPU of this machine, for which no library is needed. Raise Invalid on an architecture
    that no host class can name."""
    try:
        cpuinfo = CPU_FILE.read_text(errors="replace")
    except OSError:
        cpuinfo = ""
    host = cpu_class(platform.machine(), cpuinfo)
    require_host_class(host)
    return host


class OnnxRuntimeBackend:
    """The backend `onnxruntime`; `EngineBackend` documents each method."""

    name = "onnxruntime"
    suffix = ".onnx"

    @property
    def version(self) -> str:
        """The version, such as "1.32.0". Raises Unavailable if the library is not installed."""
        version: str = import_onnxruntime().__version__
        return version

    def describe_host(self) -> str:
        """Return the class of the CPU (`cpu_class`) and of the library: `ort-<version>`.

        Raise Invalid on an architecture, or for a version, that no host class can name.
        """
        # A build of the library for an accelerator may add its name: 1.22.0+cu128 is the release 1.22.0.
        host = f"{cpu_host()}+ort-{self.version.partition('+')[0]}"
        require_host_class(host)
        return host

    def target(self, spec: EngineSpec) -> str:
        """Return the architecture for a portable engine, the whole class of this machine for a fast one."""
        return self._fast_host() if _is_fast(spec) else "-".join(self.describe_host().split("+")[0].split("-")[:2])

    def engine_host(self, spec: EngineSpec, target: str) -> str:
        """Return `cpu` for a portable engine; for a fast one the CPU, with its instruction set, and the version of the
        library that the target names.

        Raise Invalid too for a target that names a version of the library that cannot load the operator sets of the
        model, which no optimisation changes.
        """
        need = _fast_need(spec.backbone, target) if _is_fast(spec) else ANY_CPU
        if not meets(target, need):
            raise Invalid(
                f"an engine of {spec.backbone} needs {need}, the target is {target}",
                remedy=f"name a target whose class has {need}",
                target=target,
                needed=need,
            )
        if not _is_fast(spec) and not fit(target, with_least(need, "ort", OLDEST)).unjudged:
            model = parse_onnx(spec.model.path.read_bytes(), spec.model.name)
            least = least_version(imported(model), self.version)
            newest = with_least(need, "ort", least.version)
            require_target(f"the engine of {spec.backbone}", newest, target, least.reason)
        return need

    def key_fields(self, spec: EngineSpec, need: str) -> Mapping[str, Value]:
        """Return the fields that `EngineBackend` describes, and the level of optimisation."""
        version = _library_of(need).removeprefix("ort-") if _is_fast(spec) else self.version
        return {"backend": self.name, "version": version, "level": _level(spec)}

    def makes(self, need: str) -> str:
        """Return "" for a portable engine, and for a fast one if this machine is what it needs."""
        if class_of(need) == ANY_CPU:
            return ""
        try:
            host = self.describe_host()
        except FlightbagError as error:
            return error.message
        return "" if meets(host, need) else f"it needs {need}, this machine is {host}"

    def make(self, job: CompileJob) -> BackendResult:
        """Optimise the network and write the engine. A fast one is made without the library `onnx`, which a flight
        computer has not."""
        if why := self.makes(job.host):
            raise failure("wrong-host", f"this machine does not make the engine: {why}")
        engine, weights = job.folder / f"engine{self.suffix}", job.folder / WEIGHTS
        source = session_source(job.network)
        outside = _is_fast(job.spec) or isinstance(source, Path)
        job.progress("optimising", 0, 0)
        portable = not _is_fast(job.spec)
        open_session(source, _level(job.spec), save_as=engine, save_weights=outside, any_cpu=portable)
        tools = {"onnxruntime": self.version, "numpy": _version("numpy")}
        if not portable:  # one that has only small tensors has no file of weights
            return BackendResult(engine, weights if weights.exists() else None, job.host, tools)
        parsed = parse_onnx(engine.read_bytes(), "the engine")
        locations = external_locations(parsed, "the engine")
        if tuple(locations) not in ((WEIGHTS,), ()) or (locations and not outside):
            raise failure("invalid-model", f"the engine keeps weights in unexpected files: {', '.join(locations)}")
        operators: dict[str, int] = {}
        for node in parsed.graph.node:
            operators[node.op_type] = operators.get(node.op_type, 0) + 1
        least = least_version(features(parsed), self.version)
        need = with_least(job.host, "ort", least.version)
        inspector = {"operators": operators, "needs": least.reason}
        return BackendResult(
            engine, weights if locations else None, need, {**tools, "onnx": _version("onnx")}, inspector
        )

    def load(self, engine: bytes | memoryview, host: str, weights: Path | None = None) -> EngineSession:
        """Return a session over the engine. An engine of the class `cpu` is portable, every other one is fast."""
        this_host, portable = self.describe_host(), class_of(host) == ANY_CPU
        if not meets(this_host, host):
            why = "this library lacks something that it needs" if portable else "here it would compute something else"
            message = f"the engine was made for {host} and this machine is {this_host}: {why}"
            raise failure("wrong-host", message, needed=host, host=this_host)
        level: Level = "all" if portable else "off"
        return open_session(bytes(engine), level, weights=weights, any_cpu=portable, name="the engine")

    def _fast_host(self) -> str:
        host = self.describe_host()
        if host.partition("+")[0].count("-") < 2:
            raise failure(
                "version",
                f"the instruction set of this machine ({host}) is unknown, and a fast engine depends on it",
                remedy='set mode = "portable"',
            )
        return host


def _fast_need(backbone: str, target: str) -> str:
    """Return what a fast engine needs: the CPU, with its instruction set, and the library that the target names."""
    parts = target.split("+")
    cpu = next((part for part in parts if part.startswith("cpu-") and part.count("-") == 2), "")
    library = _library_of(target)
    lacking = ("" if cpu else "its instruction set", "" if library else "its version of ONNX Runtime")
    if any(lacking):
        raise Invalid(
            f"a fast engine of {backbone} depends on the aircraft's CPU and ONNX Runtime; the target {target} does not "
            f"name {' and '.join(filter(None, lacking))}",
            remedy="name the host class that `flightbag engines host` prints on the aircraft's computer, or set mode = "
            '"portable"',
            target=target,
        )
    return f"{cpu}+{library}"


def _library_of(host: str) -> str:
    """Return the component of ONNX Runtime in a host class, "" where it names none."""
    return next((part for part in host.split("+") if part.startswith("ort-")), "")


def _is_fast(spec: EngineSpec) -> bool:
    return spec.options["mode"] == "fast"


def _level(spec: EngineSpec) -> Level:
    return "all" if _is_fast(spec) else "extended"


def _version(module: str) -> str:
    from importlib import metadata

    return metadata.version(module)
