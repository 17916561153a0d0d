"""Engines for NVIDIA GPUs with TensorRT 10 and 11, from ONNX, strongly typed: a network's types are its precision.

`tensorrt_library` imports the library and interprets its messages, `tensorrt_host` describes this machine and the host
class that an engine needs, `tensorrt_compile` builds engines, `tensorrt_session` runs them. They use the library's
names, never its integers, which change between versions. Two builds of one source give different bytes: the first
engine that is stored is the engine of its key, and checks are numeric.

Not supported: DLA, refitting, trtexec.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from builders.engines.base import BackendResult, CompileJob, EngineSpec
from builders.engines.failures import failure
from builders.engines.tensorrt_compile import compile_network, inspect
from builders.engines.tensorrt_host import (
    MachineFacts,
    device_component,
    host_class,
    machine_facts,
    need_of_target,
    required_host,
    version_of,
)
from builders.engines.tensorrt_library import SINCE, import_cuda, import_tensorrt, library_version, make_log, supports
from builders.engines.tensorrt_session import TensorRtSession
from store.errors import FlightbagError
from store.format.cbor import Value
from store.format.host import class_of, meets, require_host_class

# The options of a backbone, with the values for a mission file that names none; 0 keeps the library's own limit.
OPTIONS: Mapping[str, Value] = {
    "workspace_mib": 4096,
    "tactic_dram_mib": 0,
    "tactic_shared_memory_kib": 0,
    "optimisation_level": 3,
    "compatibility": "none",
    "version_compatible": 0,
}
_POLL_S = 0.5


class TensorRtBackend:
    """The backend `tensorrt`; `EngineBackend` documents each method."""

    name = "tensorrt"
    suffix = ".engine"

    @property
    def version(self) -> str:
        """The version, such as "10.3.0.30". Raises Unavailable if the library is not installed."""
        return library_version(import_tensorrt())

    def describe_host(self) -> str:
        """Return the host class that `tensorrt_host` describes. Raise Invalid for a machine that no class can name."""
        host = host_class(_this_machine())
        require_host_class(host)
        return host

    def target(self, spec: EngineSpec) -> str:
        """Return the host class that the engine needs: this device and its software, or less if the engine is declared
        compatible."""
        return class_of(_required_host(_this_machine(), spec))

    def engine_host(self, spec: EngineSpec, target: str) -> str:
        """Return what the target names of all that the engine depends on: the device and its software, or less if the
        engine is declared compatible.

        An engine that is compatible across versions is built by the version that the target names; where it names only
        the major, by the one that is installed here.
        """
        compatibility = str(spec.options["compatibility"])
        need = need_of_target(
            target, compatibility, bool(spec.options["version_compatible"]), lambda: self.version, spec.backbone
        )
        if (version := version_of(need)) and not _offers(compatibility, version):
            raise _too_old(compatibility, f"the target has {version}", version)
        return need

    def key_fields(self, spec: EngineSpec, need: str) -> Mapping[str, Value]:  # noqa: ARG002
        """Return the fields that `EngineBackend` describes."""
        return {"backend": self.name, "version": version_of(need)}

    def makes(self, need: str) -> str:
        """Return "" where this machine is what the engine needs, and its library is of the version that builds it."""
        try:
            facts = _this_machine()
        except FlightbagError as error:
            return error.message
        if meets(host := host_class(facts), need) and version_of(need) == facts.version:
            return ""
        return f"it needs {need}, this machine is {host}"

    def make(self, job: CompileJob) -> BackendResult:
        """Compile with the timing cache of this version and device, one build per device at a time."""
        tensorrt, spec, facts = import_tensorrt(), job.spec, _this_machine()
        _required_host(facts, spec)
        if why := self.makes(job.host):
            raise failure("wrong-host", f"this machine does not make the engine: {why}")
        partial, final = job.folder / "engine.partial", job.folder / f"engine{self.suffix}"
        log = make_log(tensorrt, sys.stderr)
        caches = job.cache / "tensorrt"
        component = device_component(facts)
        with _one_builder(job, caches / f"{component}.lock"):
            compile_network(tensorrt, log, job, job.network, partial, caches / f"{facts.version}-{component}.cache")
            inspector = inspect(tensorrt, log, partial)
        os.replace(partial, final)
        driver = {"l4t": facts.l4t} if facts.l4t else {"driver": facts.driver}
        parser = tensorrt.get_nv_onnx_parser_version()
        tools = {"tensorrt": facts.version, "cuda": facts.cuda, **driver, "parser": str(parser)}
        return BackendResult(final, None, job.host, tools, inspector)

    def load(self, engine: bytes | memoryview, host: str, weights: Path | None = None) -> TensorRtSession:  # noqa: ARG002
        """Return a session over the engine, which has its weights inside."""
        if not meets(this_host := self.describe_host(), host):
            message = f"the engine needs {host}, this machine is {this_host}"
            raise failure("wrong-host", message, needed=host, host=this_host)
        return TensorRtSession(import_tensorrt(), import_cuda(), engine)


def _this_machine() -> MachineFacts:
    return machine_facts(import_tensorrt(), import_cuda())


def _required_host(facts: MachineFacts, spec: EngineSpec) -> str:
    compatibility = str(spec.options["compatibility"])
    level = f"HardwareCompatibilityLevel.{compatibility.upper()}"
    if level in SINCE and not supports(import_tensorrt(), level):
        raise _too_old(compatibility, f"this is {facts.version}", facts.version)
    return required_host(facts, compatibility, bool(spec.options["version_compatible"]))


def _offers(compatibility: str, version: str) -> bool:
    """Whether this version of the library builds engines with this compatibility."""
    since = SINCE.get(f"HardwareCompatibilityLevel.{compatibility.upper()}", "0")
    return [int(part) for part in version.split(".")] >= [int(part) for part in since.split(".")]


def _too_old(compatibility: str, but: str, version: str) -> FlightbagError:
    since = SINCE[f"HardwareCompatibilityLevel.{compatibility.upper()}"]
    text = f'compatibility = "{compatibility}" needs TensorRT {since} or newer, {but}'
    return failure("version", text, installed=version)


@contextlib.contextmanager
def _one_builder(job: CompileJob, path: Path) -> Iterator[None]:
    """Hold the device's lock, which also guards its timing caches: two builders at once have crashed on one GPU."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(path, fallback_to_soft=False)
        while True:
            try:
                lock.acquire(timeout=_POLL_S)
                break
            except Timeout:
                if job.cancelled():
                    raise failure("cancelled", "the build was cancelled while it waited for the GPU") from None
                job.progress("waiting for the GPU", 0, 0)
    except OSError as error:
        raise failure("failed", f"the lock {path} cannot be acquired: {error.strerror}", path=str(path)) from error
    try:
        yield
    finally:
        lock.release()
