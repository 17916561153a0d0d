"""Engines for ONNX Runtime on the CPU, mode `portable`: one ONNX file that runs on any CPU, weights inside.

The network is optimised at level EXTENDED, which gives the same bytes on every CPU, and is loaded at ALL,
which then fits it to the CPU at hand. Compilation and measurement happen in a process of their own
(`worker`): whatever a model makes the library do, the build lives on and says so. The figures come back, and
`judge` decides here whether the engine computes what its source does.

Equal sources, inputs and versions give equal bytes, wherever they lie and whatever they are called.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.engines.base import (
    MAX_ONNX_BYTES,
    CheckFigures,
    CompiledEngine,
    EngineSession,
    EngineSpec,
    ModelSource,
    TensorInfo,
    snapshot_model,
    too_large,
)
from builders.engines.session import open_session
from builders.extras import import_onnxruntime
from store.errors import Conflict, Invalid, Refused, Unavailable
from store.format.cbor import Value

_MAX_RESULT = 2**20
_TAIL = 4096


@dataclass(frozen=True, slots=True)
class Tolerance:
    """`relative_error`: the greatest error, as a part of the reference's greatest magnitude; `cosine`: the least."""

    relative_error: float
    cosine: float


TOLERANCES = {"fp32": Tolerance(relative_error=1e-3, cosine=0.9999)}


def judge(figures: CheckFigures, tolerance: Tolerance) -> None:
    """Raises Refused, with the figures, unless the engine is as close to the reference as `tolerance` asks."""
    reasons = list(figures.faults)
    # Written so that a figure that is not a number fails.
    if not figures.relative_error <= tolerance.relative_error:
        reasons.append(
            f"the greatest error is {figures.max_abs_error:.3g} where the reference's greatest value is "
            f"{figures.reference_max:.3g}; allowed is {tolerance.relative_error:g} of it"
        )
    if not figures.cosine >= tolerance.cosine:
        reasons.append(f"the cosine to the reference is {figures.cosine:.6f}, at least {tolerance.cosine:g} is asked")
    if not figures.batches:
        reasons.append("nothing was tried")
    if reasons:
        raise Refused(
            "the engine does not compute what its model does: " + "; ".join(reasons),
            remedy="report the model and the version of the library, or export the model another way",
            max_abs_error=figures.max_abs_error,
            reference_max=figures.reference_max,
            cosine=figures.cosine,
            batches=figures.batches,
        )


class OnnxRuntimeBackend:
    """The backend `onnxruntime`, mode `portable`; see `EngineBackend` for what each method promises."""

    name = "onnxruntime"
    suffix = ".onnx"

    @property
    def version(self) -> str:
        """Such as "1.32.0". Raises Unavailable where the library is not installed."""
        version: str = import_onnxruntime().__version__
        return version

    def describe_host(self) -> str:
        """`cpu-x86_64`, `cpu-aarch64`, or `cpu-` and the machine's name where it has no other."""
        machine = platform.machine().lower()
        return "cpu-" + {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}.get(machine, machine)

    def engine_host(self, target: str) -> str:  # noqa: ARG002 - another backend's engines depend on it
        """`cpu`: a portable engine is the same for every target."""
        return "cpu"

    def build_key_fields(self, spec: EngineSpec) -> Mapping[str, Value]:
        """As `EngineBackend` says. The range of an input whose shape is fixed is empty."""
        return {
            "backend": self.name,
            "version": self.version,
            "mode": "portable",
            "level": "extended",
            "precision": spec.precision,
            "model": spec.model.digest,
            "inputs": [
                [item.name, list(item.shape), list(item.range or ())]
                for item in sorted(spec.inputs, key=lambda item: item.name)
            ],
            "host": "cpu",
        }

    def compile(self, spec: EngineSpec, workdir: Path) -> CompiledEngine:
        """As `EngineBackend` says; every file lies in a new folder under `workdir`, the log among them.

        Raises Conflict as well, where the model is no longer the one in `spec`.
        """
        tolerance = TOLERANCES.get(spec.precision)
        if tolerance is None:
            raise Invalid(
                f"backbones[{spec.backbone}].precision is {spec.precision!r}, which onnxruntime does not offer",
                remedy="set it to one of " + ", ".join(TOLERANCES),
            )
        if spec.model.size > MAX_ONNX_BYTES:
            raise too_large(spec.model.name)
        import_onnxruntime()  # a missing extra is told here, not by a process that fails
        start = time.monotonic()
        folder = Path(tempfile.mkdtemp(prefix="engine-", dir=workdir))
        model = snapshot_model(spec.model.path, folder / "model")
        if model.digest != spec.model.digest:
            raise Conflict(
                f"{spec.model.path} changed while the mission was being built",
                remedy="build again when nothing writes to it",
                path=str(spec.model.path),
            )
        engine = folder / "engine.onnx"
        result, log = _in_worker(_request(spec, model, engine), folder, model.name)
        check = _figures(result["check"], spec)
        judge(check, tolerance)
        inputs, outputs = (
            tuple(TensorInfo(name, dtype, tuple(shape)) for name, dtype, shape in result[end])
            for end in ("inputs", "outputs")
        )
        return CompiledEngine(engine, inputs, outputs, check, time.monotonic() - start, log)

    def load(self, engine: bytes) -> EngineSession:
        """As `EngineBackend` says, optimised for this CPU."""
        return open_session(engine, "all")


def _request(spec: EngineSpec, model: ModelSource, engine: Path) -> dict[str, Any]:
    """What the worker reads."""
    return {
        "parent": os.getpid(),
        "backbone": spec.backbone,
        "model": {
            "name": model.name,
            "path": str(model.path),
            "size": model.size,
            "external": model.external,
        },
        "engine": str(engine),
        "inputs": [[item.name, item.shape, item.range or (None, None, None)] for item in spec.inputs],
        "cases": spec.cases(),
    }


def _figures(measured: Mapping[str, Any], spec: EngineSpec) -> CheckFigures:
    first = spec.inputs[0].name if spec.inputs else ""
    return CheckFigures(
        max_abs_error=measured["max_abs_error"],
        reference_max=measured["reference_max"],
        cosine=measured["cosine"],
        batches=tuple(case[first][0] for case in spec.cases() if first in case),
        faults=tuple(measured["faults"]),
    )


def _in_worker(request: Mapping[str, Any], folder: Path, model: str) -> tuple[dict[str, Any], str]:
    """(result, end of the log) of a worker process on `request`.

    Raises Invalid where the worker refused the model, Unavailable where it ended without an answer. However
    this function is left, the process has ended.
    """
    request_path, result_path, log_path = (folder / name for name in ("request.json", "result.json", "engine.log"))
    request_path.write_text(json.dumps(request))
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "builders.engines.worker"]
    # The same modules as here, wherever they were found, and none that happen to lie in the current folder.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        "ORT_DISABLE_TELEMETRY": "1",
    }
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*command, str(request_path), str(result_path)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is this process's to handle; it ends the worker below
        )
        try:
            status = process.wait()
        finally:
            _end(process)
    tail = _tail(log_path)
    if status != 0:
        raise _no_answer(status, model, tail, log_path)
    result = _result(result_path, model, tail)
    if "refused" in result:
        refused = result["refused"]
        raise Invalid(refused["message"], remedy=refused["remedy"], model=model, log=tail)
    return result, tail


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the worker and whatever it started, unless it has ended by itself."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _no_answer(status: int, model: str, tail: str, log_path: Path) -> Unavailable:
    if status < 0:
        name = signal.Signals(-status).name
        what = f"the process that compiles {model} was ended by {name}"
        remedy = "see whether memory ran out, then build again"
    else:
        what = f"the process that compiles {model} ended with status {status}"
        remedy = "see what the end of its log says:\n" + "\n".join(tail.rstrip().split("\n")[-4:])
    last = tail.rstrip().rpartition("\n")[2]
    return Unavailable(
        f"{what}: {last}" if last else what, remedy=remedy, model=model, status=status, log=tail, path=str(log_path)
    )


def _result(path: Path, model: str, tail: str) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(_MAX_RESULT + 1)
    if len(data) > _MAX_RESULT:
        raise Unavailable(f"the process that compiles {model} wrote too much", remedy="report it", log=tail)
    result: dict[str, Any] = json.loads(data)
    return result


def _tail(path: Path) -> str:
    """The end of the log as text for people: no control characters but line ends."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        text = file.read(_TAIL).decode(errors="replace")
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n")
