"""Engines for ONNX Runtime on the CPU, in two modes.

`portable`: one ONNX file that runs on any CPU, weights inside unless they are above 2 GB. The network is optimised at
level EXTENDED, which gives the same bytes on every CPU, and is loaded at ALL, which then fits it to the CPU at hand.

`fast`: optimised at ALL for the instruction set of this CPU, weights in a file of their own, loaded with optimisation
off: in a small part of the time and memory. On another instruction set it would compute something else without a word,
and on another version of the library nobody has promised anything: it needs those that it was made for, by its host
class, and is refused on any other.

Equal sources, inputs and versions give equal bytes in each mode, wherever they lie and whatever they are called.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from builders.engines.base import EngineSession, EngineSpec, Job, Made
from builders.engines.failures import failure
from builders.engines.model import external_locations, loadable, parse_onnx
from builders.engines.session import WEIGHTS, Level, open_session
from builders.extras import import_onnxruntime
from store.errors import Invalid
from store.format.cbor import Value
from store.format.host import meets

OPTIONS: Mapping[str, Value] = {"mode": "portable"}
# What a portable engine needs; every CPU's class begins so.
ANY_CPU = "cpu"
CPU_FILE = Path("/proc/cpuinfo")

# The sets that the library has kernels and data layouts of its own for (MLAS), the widest first, and the flags that the
# kernel lists for each.
_SETS: Mapping[str, tuple[tuple[str, frozenset[str]], ...]] = {
    "x86_64": (
        ("avx512", frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})),
        ("avx2", frozenset({"avx2", "fma"})),
        ("avx", frozenset({"avx"})),
        ("sse2", frozenset({"sse2"})),
    ),
    "aarch64": (("neonfp16", frozenset({"asimd", "asimdhp"})), ("neon", frozenset({"asimd"}))),
}


def cpu_class(machine: str, cpuinfo: str) -> str:
    """The host class of a CPU: `cpu-<architecture>-<instruction set>`, such as `cpu-x86_64-avx512`.

    `machine` is as `uname -m` says, `cpuinfo` as /proc/cpuinfo. Without the instruction set where that cannot be told.
    """
    name = architecture(machine)
    flags: frozenset[str] = frozenset()
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            flags = frozenset(value.split())
            break
    found = next((level for level, needs in _SETS.get(name, ()) if needs <= flags), None)
    return f"cpu-{name}" + (f"-{found}" if found else "")


def architecture(machine: str) -> str:
    """One name for each: x86_64, aarch64, or as the machine calls itself."""
    machine = machine.lower()
    return {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


class OnnxRuntimeBackend:
    """The backend `onnxruntime`; see `EngineBackend` for what each method promises."""

    name = "onnxruntime"
    suffix = ".onnx"

    @property
    def version(self) -> str:
        """Such as "1.32.0". Raises Unavailable where the library is not installed."""
        version: str = import_onnxruntime().__version__
        return version

    def describe_host(self) -> str:
        """The CPU as `cpu_class` says, and the library: `ort-<version>`."""
        try:
            cpuinfo = CPU_FILE.read_text(errors="replace")
        except OSError:
            cpuinfo = ""
        return f"{cpu_class(platform.machine(), cpuinfo)}+ort-{self.version}"

    def target(self, spec: EngineSpec) -> str:
        """The architecture for a portable engine; for a fast one all that this machine is."""
        return self._fast_host() if _is_fast(spec) else f"cpu-{architecture(platform.machine())}"

    def engine_host(self, spec: EngineSpec, target: str) -> str:
        """`cpu` for a portable engine; for a fast one all that this machine is."""
        need = self._fast_host() if _is_fast(spec) else ANY_CPU
        if not meets(target, need):
            raise Invalid(
                f"an engine of {spec.backbone} that is built here needs {need}, the target is {target}",
                remedy=f"name a target whose class has {need}, build on a machine like the aircraft's, or set mode = "
                '"portable"',
                target=target,
                needed=need,
            )
        return need

    def key_fields(self, spec: EngineSpec, host: str) -> Mapping[str, Value]:
        """As `EngineBackend` says."""
        return {
            "backend": self.name,
            "version": self.version,
            "mode": spec.options["mode"],
            "level": _level(spec),
            "host": host,
        }

    def make(self, job: Job) -> Made:
        """As `EngineBackend` says."""
        engine, weights = job.folder / f"engine{self.suffix}", job.folder / WEIGHTS
        source = loadable(job.network)
        outside = _is_fast(job.spec) or isinstance(source, Path)
        job.progress("optimising", 0, 0)
        open_session(source, _level(job.spec), save_as=engine, save_weights=outside)
        parsed = parse_onnx(engine.read_bytes(), "the engine")
        where = external_locations(parsed)
        # An engine with nothing but small tensors has no file of weights.
        if where not in ((WEIGHTS,), ()) or (where and not outside):
            raise failure("invalid-model", f"the engine keeps weights in {', '.join(where)}")
        tools = {"onnxruntime": self.version, "numpy": _version("numpy"), "onnx": _version("onnx")}
        operators: dict[str, int] = {}
        for node in parsed.graph.node:
            operators[node.op_type] = operators.get(node.op_type, 0) + 1
        return Made(engine, weights if where else None, tools, {"operators": operators})

    def load(self, engine: bytes | memoryview, host: str, weights: Path | None = None) -> EngineSession:
        """As `EngineBackend` says. An engine that needs no more than a CPU is portable, any other is fast."""
        if not meets(have := self.describe_host(), host):
            raise failure(
                "wrong-host",
                f"the engine was made for {host} and this machine is {have}: it would compute something else here",
                needed=host,
                host=have,
            )
        return open_session(bytes(engine), "all" if host == ANY_CPU else "off", weights=weights)

    def _fast_host(self) -> str:
        host = self.describe_host()
        if host.partition("+")[0].count("-") < 2:
            raise failure(
                "version",
                f"the instruction set of this machine ({host}) cannot be told, and a fast engine depends on it",
                remedy='set mode = "portable"',
            )
        return host


def _is_fast(spec: EngineSpec) -> bool:
    return spec.options["mode"] == "fast"


def _level(spec: EngineSpec) -> Level:
    return "all" if _is_fast(spec) else "extended"


def _version(module: str) -> str:
    from importlib import metadata

    return metadata.version(module)
