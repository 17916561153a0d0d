"""Engines for x86_64 computers with RTX GPUs, with TensorRT for RTX, compiled on any x86_64 machine, with or without a
GPU.

An engine is for one compute capability, which the target names, and for one version of the library: it needs
`sm<capability>+trtrtx-<all four parts>`. Its GPU code is made aboard when it is first loaded. A machine without such a
GPU cannot run it. There the header of the engine and its ends are checked, and the network that was compiled is held
against its source in its place: the engine itself stays unproven.

`tensorrt_compile`, `tensorrt_session`, `tensorrt_host` and `tensorrt_library` are those of TensorRT: interface and
parser are the same. Equal sources may give different bytes; the first engine that is stored is the engine of its key.

Not supported: plug-ins, which the library has none of; several capabilities in one engine; the runtime cache.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builders.engines.base import BackendResult, CompileJob, EngineSpec
from builders.engines.failures import failure
from builders.engines.tensorrt_compile import compile_network, network_of
from builders.engines.tensorrt_host import MachineFacts, machine_components, machine_facts
from builders.engines.tensorrt_library import RTX, import_cuda, import_tensorrt, library_version, make_log
from builders.engines.tensorrt_session import TensorRtSession
from store.errors import Invalid, Unavailable
from store.format.cbor import Value
from store.format.host import fit, meets, require_host_class

# The options of a backbone, with the values for a mission file that names none; 0 keeps the library's own limit.
OPTIONS: Mapping[str, Value] = {"workspace_mib": 4096, "tactic_shared_memory_kib": 0}
_CAPABILITY = re.compile(r"sm([1-9][0-9]{1,2})(?:-.*)?")
# The head of an engine: magic, and at these places its size, the version of its library and the mask of its targets.
_MAGIC = b"vtrt"
_SIZE, _VERSION, _TARGETS = slice(16, 24), slice(24, 28), slice(32, 40)
_HEADER_BYTES = 40
# Capability -> its bit in the mask, as far as they are known.
_TARGET_BITS: Mapping[str, int] = {"75": 1, "80": 2, "86": 4, "89": 8, "120": 16, "121": 32}


class TensorRtRtxBackend:
    """The backend `tensorrt-rtx`; `EngineBackend` documents each method."""

    name = "tensorrt-rtx"
    suffix = ".engine"

    @property
    def version(self) -> str:
        """The version, such as "1.7.1.116". Raises Unavailable if the library is not installed."""
        return library_version(import_tensorrt(RTX), RTX)

    def describe_host(self) -> str:
        """Return the host class of this machine and its GPU. Raise Unavailable where it has none."""
        facts = _this_machine()
        host = "+".join(sorted([*machine_components(facts), f"trtrtx-{facts.version}"]))
        require_host_class(host)
        return host

    def target(self, spec: EngineSpec) -> str:
        """Return the need of an engine for the GPU of this machine."""
        try:
            facts = _this_machine()
        except Unavailable as error:
            if error.kind != "no-device":
                raise
            message = f'"auto" means this machine as the target of {spec.backbone}, and {error.message}'
            example = _need("89", self.version)
            remedy = f'name the aircraft\'s host class in target.host, such as "{example}" for a GPU of that capability'
            raise error.restated(message, remedy=remedy) from error
        return _need("".join(map(str, facts.capability)), facts.version)

    def engine_host(self, spec: EngineSpec, target: str) -> str:
        """Return the need of an engine for the compute capability that the target names."""
        tensorrt, version = import_tensorrt(RTX), self.version
        offered = _capabilities(tensorrt)
        listed = ", ".join(f"sm{one}" for one in offered)
        matches = [match for part in target.split("+") if (match := _CAPABILITY.fullmatch(part))]
        if not matches:
            components = [one for one in target.split("+") if not one.startswith("trtrtx-")]
            example = "+".join(sorted([*components, *_need("89", version).split("+")]))
            raise Invalid(
                f"an engine of {spec.backbone} is for one compute capability, and the target {target} names none",
                remedy=f'name one of {listed} in target.host, such as "{example}"',
                target=target,
            )
        capability = matches[0][1]
        if capability not in offered:
            raise Invalid(
                f"TensorRT for RTX {version} has no engines of {spec.backbone} for sm{capability}",
                remedy=f'name one of {listed} in target.host, or backend = "tensorrt" for that GPU',
                target=target,
            )
        need = _need(capability, version)
        if fit(target, need).lacking:
            raise Invalid(
                f"an engine of {spec.backbone} built with the library of this machine needs {need}, the target is "
                f"{target}",
                remedy=f"name trtrtx-{version} in target.host if the aircraft has that version; else install the "
                "aircraft's here: an engine runs with no other",
                target=target,
                needed=need,
            )
        return need

    def key_fields(self, spec: EngineSpec, host: str) -> Mapping[str, Value]:
        """Return the fields that `EngineBackend` describes. Neither CUDA nor a driver nor a device has a part in it."""
        return {
            "backend": self.name,
            "version": self.version,
            "options": [[name, value] for name, value in sorted(spec.options.items())],
            "host": host,
        }

    def make(self, job: CompileJob) -> BackendResult:
        """Compile for the capability of the job's host class."""
        tensorrt, spec, version = import_tensorrt(RTX), job.spec, self.version
        if (need := self.engine_host(spec, job.host)) != job.host:
            raise failure("wrong-host", f"the engine is planned for {job.host}, but this machine builds for {need}")
        capability = _capability_of(job.host)
        source, partial, final = network_of(job), job.folder / "engine.partial", job.folder / f"engine{self.suffix}"
        log = make_log(tensorrt, sys.stderr)

        def configure(config: Any) -> None:
            config.num_compute_capabilities = 1
            if not config.set_compute_capability(_capabilities(tensorrt)[capability], 0):
                raise log.failure(f"TensorRT for RTX does not build for sm{capability}")

        ends = compile_network(tensorrt, log, job, source, partial, configure)
        try:
            check_header(partial.read_bytes(), version, capability)
        except Invalid as error:
            raise failure("failed", f"TensorRT for RTX wrote no whole engine: {error.message}") from error
        os.replace(partial, final)
        tools = {"tensorrt-rtx": version, "parser": str(tensorrt.get_nv_onnx_parser_version())}
        return BackendResult(final, None, need, tools, None, None if self._runs(need) else (source, ends))

    def _runs(self, need: str) -> bool:
        try:
            return meets(self.describe_host(), need)
        except Unavailable:
            return False

    def load(self, engine: bytes | memoryview, host: str, weights: Path | None = None) -> TensorRtSession:  # noqa: ARG002
        """Return a session over the engine, which has its weights inside."""
        tensorrt = import_tensorrt(RTX)
        check_header(engine, self.version, _capability_of(host))
        if not meets(this_host := self.describe_host(), host):
            message = f"the engine needs {host}, this machine is {this_host}"
            raise failure("wrong-host", message, needed=host, host=this_host)
        return TensorRtSession(tensorrt, import_cuda(RTX), engine)


def check_header(engine: bytes | memoryview, version: str, capability: str) -> None:
    """Raise Invalid unless the bytes begin as a whole engine does, Unavailable (`version`) for another version of the
    library, Refused (`wrong-host`) for another capability."""
    head = bytes(engine[:_HEADER_BYTES])
    remedy = "build the engine again, or bring it from the store that it was built in"
    if len(head) < _HEADER_BYTES or not head.startswith(_MAGIC):
        raise failure("invalid-model", "the bytes are not an engine of TensorRT for RTX", remedy=remedy)
    if (size := int.from_bytes(head[_SIZE], "little")) != len(engine):
        raise failure("invalid-model", f"the engine has {len(engine)} bytes, its header says {size}", remedy=remedy)
    if (made_by := ".".join(map(str, head[_VERSION]))) != version:
        raise failure("version", f"the engine is of TensorRT for RTX {made_by}, this is {version}", installed=version)
    bit, targets = _TARGET_BITS.get(capability), int.from_bytes(head[_TARGETS], "little")
    if bit is not None and targets != bit:
        raise failure("wrong-host", f"the engine is not for sm{capability}: its targets are {targets:#x}, not {bit:#x}")


def _this_machine() -> MachineFacts:
    return machine_facts(import_tensorrt(RTX), import_cuda(RTX), RTX)


def _need(capability: str, version: str) -> str:
    return f"sm{capability}+trtrtx-{version}"


def _capability_of(need: str) -> str:
    match = _CAPABILITY.fullmatch(need.partition("+")[0])
    return match[1] if match is not None else ""


def _capabilities(tensorrt: Any) -> dict[str, Any]:
    """Return capability, such as "89" -> what the library has for it."""
    members = tensorrt.ComputeCapability.__members__
    return {name.removeprefix("SM"): value for name, value in members.items() if name.startswith("SM")}
