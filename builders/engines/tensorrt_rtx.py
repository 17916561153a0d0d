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
from builders.engines.tensorrt_compile import compile_network
from builders.engines.tensorrt_host import MachineFacts, machine_components, machine_facts
from builders.engines.tensorrt_library import RTX, import_cuda, import_tensorrt, library_version, make_log
from builders.engines.tensorrt_session import TensorRtSession
from store.errors import FlightbagError, Invalid, Unavailable
from store.format.cbor import Value
from store.format.host import meets, require_host_class

# The options of a backbone, with the values for a mission file that names none; 0 keeps the library's own limit.
OPTIONS: Mapping[str, Value] = {"workspace_mib": 4096, "tactic_shared_memory_kib": 0}
_CAPABILITY = re.compile(r"sm([1-9][0-9]{1,2})(?:-.*)?")
# The head of an engine: magic, and at these places its size, the version of its library and the mask of its targets.
_MAGIC = b"vtrt"
_SIZE, _VERSION, _MASK = slice(16, 24), slice(24, 28), slice(32, 40)
_HEADER_BYTES = 40
# Capability that there are engines for -> its bit in the mask.
_TARGETS: Mapping[str, int] = {"75": 1, "80": 2, "86": 4, "89": 8, "120": 16, "121": 32}
_LIBRARY = "trtrtx-"
_EXAMPLE = "1.7.1.116"


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
        host = "+".join(sorted([*machine_components(facts), f"{_LIBRARY}{facts.version}"]))
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
            example = f"sm89+{_LIBRARY}{self.version}"
            remedy = f'name the aircraft\'s host class in target.host, such as "{example}" for a GPU of that capability'
            raise error.restated(message, remedy=remedy) from error
        return f"sm{''.join(map(str, facts.capability))}+{_LIBRARY}{facts.version}"

    def engine_host(self, spec: EngineSpec, target: str) -> str:
        """Return the capability and the version of the library that the target names."""
        parts = target.split("+")
        capability = next((match[1] for part in parts if (match := _CAPABILITY.fullmatch(part))), "")
        library = next((part for part in parts if part.startswith(_LIBRARY)), "")
        listed = ", ".join(f"sm{one}" for one in _TARGETS)
        if not capability or not library:
            lacking = ["" if capability else "a compute capability", "" if library else "a version of the library"]
            wanted = [*([] if capability else ["sm89"]), *([] if library else [f"{_LIBRARY}{_EXAMPLE}"])]
            example = "+".join(sorted([*parts, *wanted]))
            raise Invalid(
                f"an engine of {spec.backbone} for TensorRT for RTX is for one capability and one version, and the "
                f"target {target} does not name {' and '.join(filter(None, lacking))}",
                remedy=f"name what the aircraft has of {listed}, and the version of its library, in target.host, such "
                f'as "{example}"',
                target=target,
            )
        if capability not in _TARGETS:
            raise Invalid(
                f"TensorRT for RTX makes no engines for sm{capability}, which the target {target} names",
                remedy=f'name one of {listed} in target.host, or set backend = "tensorrt"',
                target=target,
            )
        return f"sm{capability}+{library}"

    def key_fields(self, spec: EngineSpec, need: str) -> Mapping[str, Value]:  # noqa: ARG002
        """Return the fields that `EngineBackend` describes. Neither CUDA nor a driver nor a device has a part in it."""
        return {"backend": self.name, "version": _version_of(need)}

    def makes(self, need: str) -> str:
        """Return "" where the library of the version that the engine needs is installed here; a GPU is not needed."""
        try:
            version = self.version
        except FlightbagError as error:
            return error.message
        return "" if version == _version_of(need) else f"it needs {need}, and the library here is {version}"

    def make(self, job: CompileJob) -> BackendResult:
        """Compile for the capability of the job's host class."""
        tensorrt, version, capability = import_tensorrt(RTX), self.version, _capability_of(job.host)
        if why := self.makes(job.host):
            raise failure("wrong-host", f"this machine does not make the engine: {why}")
        partial, final = job.folder / "engine.partial", job.folder / f"engine{self.suffix}"
        log = make_log(tensorrt, sys.stderr)

        def configure(config: Any) -> None:
            config.num_compute_capabilities = 1
            members = tensorrt.ComputeCapability.__members__
            known = members.get(f"SM{capability}")
            if known is None or not config.set_compute_capability(known, 0):
                raise failure("version", f"TensorRT for RTX {version} makes no engines for sm{capability}")

        ends = compile_network(tensorrt, log, job, job.network, partial, configure)
        with partial.open("rb") as file:
            head, size = file.read(_HEADER_BYTES), os.fstat(file.fileno()).st_size
        try:
            check_header(head, size, version, capability)
        except Invalid as error:
            # Its Python module leaves out a part for whose bytes it finds no memory, and takes that for a success.
            what = "TensorRT for RTX wrote no whole engine, as it does where memory runs out"
            raise failure("out-of-memory", f"{what}: {error.message}") from error
        os.replace(partial, final)
        tools = {"tensorrt-rtx": version, "parser": str(tensorrt.get_nv_onnx_parser_version())}
        return BackendResult(final, None, job.host, tools, unproven=None if self._runs(job.host) else ends)

    def _runs(self, need: str) -> bool:
        try:
            return meets(self.describe_host(), need)
        except Unavailable:
            return False

    def load(self, engine: bytes | memoryview, host: str, weights: Path | None = None) -> TensorRtSession:  # noqa: ARG002
        """Return a session over the engine, which has its weights inside."""
        tensorrt = import_tensorrt(RTX)
        check_header(bytes(engine[:_HEADER_BYTES]), len(engine), self.version, _capability_of(host))
        if not meets(this_host := self.describe_host(), host):
            message = f"the engine needs {host}, this machine is {this_host}"
            raise failure("wrong-host", message, needed=host, host=this_host)
        return TensorRtSession(tensorrt, import_cuda(RTX), engine)


def check_header(head: bytes, size: int, version: str, capability: str) -> None:
    """Raise Invalid unless an engine of `size` bytes that begins with `head` is whole, Unavailable (`version`) for
    another version of the library, Refused (`wrong-host`) for another capability."""
    remedy = "build the engine again, or bring it from the store that it was built in"
    if len(head) < _HEADER_BYTES or not head.startswith(_MAGIC):
        raise failure("invalid-model", "the bytes are not an engine of TensorRT for RTX", remedy=remedy)
    if (whole := int.from_bytes(head[_SIZE], "little")) != size:
        raise failure("invalid-model", f"the engine has {size} bytes, its header says {whole}", remedy=remedy)
    if (made_by := ".".join(map(str, head[_VERSION]))) != version:
        raise failure("version", f"the engine is of TensorRT for RTX {made_by}, this is {version}", installed=version)
    if int.from_bytes(head[_MASK], "little") != _TARGETS.get(capability):
        raise failure("wrong-host", f"the engine is not for sm{capability}: the mask of its targets names another")


def _this_machine() -> MachineFacts:
    return machine_facts(import_tensorrt(RTX), import_cuda(RTX), RTX)


def _capability_of(need: str) -> str:
    match = _CAPABILITY.fullmatch(need.partition("+")[0])
    return match[1] if match is not None else ""


def _version_of(need: str) -> str:
    return next((part.removeprefix(_LIBRARY) for part in need.split("+") if part.startswith(_LIBRARY)), "")
