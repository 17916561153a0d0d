"""Engines for NVIDIA GPUs with TensorRT 10 and 11, from ONNX, strongly typed: a network's types are its precision.

`tensorrt_library` imports the library and knows its words, `tensorrt_host` says what machine this is and what an engine
needs, `tensorrt_compile` builds engines, `tensorrt_session` runs them. Names of the library are used, never its
integers: those shift between versions. Two builds of one source are not the same bytes: the first that is kept is the
engine, and checks are numeric.

Not here: DLA, refitting, trtexec.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from builders.engines.base import EngineSpec, Job, Made
from builders.engines.failures import failure
from builders.engines.tensorrt_compile import compile_engine, inspect
from builders.engines.tensorrt_host import Facts, device, gather, host_class, needed
from builders.engines.tensorrt_library import SINCE, has, import_cuda, import_tensorrt, library_version, make_log
from builders.engines.tensorrt_session import TensorRtSession
from store.errors import Invalid
from store.format.cbor import Value
from store.format.host import meets

# The options of a backbone and what they are where the mission file says nothing; 0 leaves the library's own limit.
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
    """The backend `tensorrt`; see `EngineBackend` for what each method promises."""

    name = "tensorrt"
    suffix = ".engine"

    @property
    def version(self) -> str:
        """Such as "10.3.0.30". Raises Unavailable where the library is not installed."""
        return library_version(import_tensorrt())

    def describe_host(self) -> str:
        """As `tensorrt_host` says."""
        return host_class(_facts())

    def target(self, spec: EngineSpec) -> str:
        """What the engine needs: all of this device and its software, or less where it is declared compatible."""
        return _needed(_facts(), spec)

    def engine_host(self, spec: EngineSpec, target: str) -> str:
        """As `EngineBackend` says: what is built here needs this machine, or what it is declared compatible over."""
        need = self.target(spec)
        if not meets(target, need):
            raise Invalid(
                f"an engine of {spec.backbone} that is built here needs {need}, the target is {target}",
                remedy="build on a machine like the aircraft's, or declare the engine compatible and name that target",
                target=target,
                needed=need,
            )
        return need

    def key_fields(self, spec: EngineSpec, host: str) -> Mapping[str, Value]:
        """As `EngineBackend` says."""
        facts = _facts()
        return {
            "backend": self.name,
            "version": facts.version,
            "cuda": facts.cuda,
            # Pairs: the key of a CBOR map has 23 bytes at most, which not every name fits.
            "options": [[name, value] for name, value in sorted(spec.options.items())],
            "plugins": sorted(plugin.digest for plugin in spec.plugins),
            "host": host,
        }

    def make(self, job: Job) -> Made:
        """As `EngineBackend` says, with the timing cache of this version and device; one build per device at a time."""
        tensorrt, spec, facts = import_tensorrt(), job.spec, _facts()
        if (need := _needed(facts, spec)) != job.host:
            raise failure("wrong-host", f"the engine is to need {job.host}, this machine builds for {need}")
        source, partial, final = job.network, job.folder / "engine.partial", job.folder / f"engine{self.suffix}"
        if spec.precision == "fp16":
            from builders.engines.precision import float16_copy

            source = job.folder / "float16.onnx"
            float16_copy(job.network, source)
        log = make_log(tensorrt, sys.stderr)
        caches = job.cache / "tensorrt"
        with _one_builder(job, caches / f"{device(facts)}.lock"):
            compile_engine(tensorrt, log, job, source, partial, caches / f"{facts.version}-{device(facts)}.cache")
            inspector = inspect(tensorrt, log, partial)
        os.replace(partial, final)
        driver = {"l4t": facts.l4t} if facts.l4t else {"driver": facts.driver}
        parser = tensorrt.get_nv_onnx_parser_version()
        tools = {"tensorrt": facts.version, "cuda": facts.cuda, **driver, "parser": str(parser)}
        return Made(final, None, tools, inspector)

    def load(self, engine: bytes | memoryview, host: str, weights: Path | None = None) -> TensorRtSession:  # noqa: ARG002
        """As `EngineBackend` says; weights are inside."""
        if not meets(have := self.describe_host(), host):
            raise failure("wrong-host", f"the engine needs {host}, this machine is {have}", needed=host, host=have)
        return TensorRtSession(import_tensorrt(), import_cuda(), engine)


def _facts() -> Facts:
    return gather(import_tensorrt(), import_cuda())


def _needed(facts: Facts, spec: EngineSpec) -> str:
    compatibility = str(spec.options["compatibility"])
    level = f"HardwareCompatibilityLevel.{compatibility.upper()}"
    if level in SINCE and not has(import_tensorrt(), level):
        raise failure(
            "version",
            f'compatibility = "{compatibility}" came with TensorRT {SINCE[level]}, this is {facts.version}',
            installed=facts.version,
        )
    return needed(facts, compatibility, bool(spec.options["version_compatible"]))


@contextlib.contextmanager
def _one_builder(job: Job, path: Path) -> Iterator[None]:
    """Holds the device's lock, which also guards its timing caches: two builders at once have crashed on one GPU."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(path, fallback_to_soft=False)
        while True:
            try:
                lock.acquire(timeout=_POLL_S)
                break
            except Timeout:
                if job.cancelled():
                    raise failure("cancelled", "cancelled while another build had the GPU") from None
                job.progress("waiting for the GPU", 0, 0)
    except OSError as error:
        raise failure("failed", f"the lock {path} cannot be taken: {error.strerror}", path=str(path)) from error
    try:
        yield
    finally:
        lock.release()
