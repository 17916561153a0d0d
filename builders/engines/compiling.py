"""Make one artifact of a backbone in a process of its own: an engine that passes its check, or a quantised network.

`compile_engine` returns only an engine that computes what its source does, within the tolerance given. Both functions
take the model exactly as the spec's digest names it, write only in a new folder under `workdir`, and leave nothing
behind but that folder, however they end.

Each call is one work unit: a request, a module-level function, and files with their hashes. The request is JSON. It
holds the task (`compile` or `quantise`), the backend's name, the host class, the spec, and the paths of private copies
of the model and of the calibration rows. The function is `worker.main`, in a process that `isolation` starts and bounds
in memory and time. The result is JSON too: `parts`, the path and BLAKE3 of each file that the worker wrote, and for an
engine its need, inputs, outputs, figures, tools and inspection. A unit reads no store and publishes nothing: the caller
inserts the parts and expects exactly these hashes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.engines.base import EngineBackend, EngineSpec, PhaseProgress
from builders.engines.check import CheckFigures, Tolerance, require_tolerance
from builders.engines.isolation import Limits, compile_in_worker
from builders.engines.model import ModelSource, snapshot_model
from builders.engines.precision import CalibrationSet
from store.errors import Conflict
from store.format.ids import ObjectId


@dataclass(frozen=True, slots=True)
class CompileSettings:
    """Where and within which limits compilations run; no build key depends on it. `cache` is the user's cache
    directory."""

    limits: Limits
    cache: Path


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A file that a worker wrote, and the id of the bytes that were measured: whoever stores it expects that id."""

    name: str
    path: Path
    id: ObjectId


@dataclass(frozen=True, slots=True)
class CompiledEngine:
    """A compiled engine that passed its check.

    `parts` are `model` and, if they are apart, `weights`: the caller moves or deletes them. `need` is what the engine
    needs of a host (FORMAT 4.5). `inputs` and `outputs` are [[name, dtype, shape] …]; `seconds` is the wall-clock time
    of compiling; `log` is the end of the compiler's output.
    """

    parts: tuple[HashedFile, ...]
    need: str
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    check: CheckFigures
    tools: Mapping[str, str]
    inspector: Any
    seconds: float
    log: str


def compile_engine(
    backend: EngineBackend,
    spec: EngineSpec,
    host: str,
    workdir: Path,
    *,
    tolerance: Tolerance,
    settings: CompileSettings,
    progress: PhaseProgress,
    quantised: Path | None = None,
    rows: CalibrationSet | None = None,
) -> CompiledEngine:
    """Compile for the host class `host`, check the engine against the reference, and return it.

    For int8, `quantised` is the network to compile, a private file. `rows` are inputs to check the engine with, noise
    where it is None: a network that finds nothing in noise is a failure `empty-output` then. Raise a failure of
    `failures`, Refused for an engine that does not compute what the model does, Conflict if the model is no longer the
    one in `spec`."""
    folder = Path(tempfile.mkdtemp(prefix="engine-", dir=workdir)).absolute()
    model = _snapshot(spec, folder)
    file = folder / "rows"
    if rows is not None:
        rows.save(file)
    request = {
        "task": "compile",
        "backend": backend.name,
        "model": model.name,
        "source": str(model.path),
        "network": str(quantised or model.path),
        "host": host,
        "folder": str(folder),
        "cache": str(settings.cache.absolute()),
        "rows": str(file) if rows is not None else "",
        "spec": spec_request(spec),
    }
    result, log = compile_in_worker(request, folder, settings.limits, progress, model.name)
    return compiled_engine(result, tolerance, log)


def spec_request(spec: EngineSpec) -> dict[str, Any]:
    """Return a spec as a request of the worker holds it."""
    return {
        "backbone": spec.backbone,
        "precision": spec.precision,
        "inputs": [[item.name, item.shape, item.range or (None, None, None)] for item in spec.inputs],
        "options": dict(spec.options),
        "plugins": [[str(plugin.path), plugin.digest.hex()] for plugin in spec.plugins],
        "fixed": _fixed(spec),
        "compare": list(spec.compare),
        "reference": [str(spec.reference.path), spec.reference.digest.hex()] if spec.reference is not None else [],
    }


def compiled_engine(result: Mapping[str, Any], tolerance: Tolerance, log: str) -> CompiledEngine:
    """Return the engine of a worker's result. Raise Refused where it does not compute what the model does."""
    check = CheckFigures.from_json(result["check"])
    require_tolerance(check, tolerance)
    return CompiledEngine(
        parts=_parts(result),
        need=result["need"],
        inputs=result["inputs"],
        outputs=result["outputs"],
        check=check,
        tools=result["tools"],
        inspector=result["inspector"],
        seconds=result["seconds"],
        log=log,
    )


def engine_result(engine: CompiledEngine) -> dict[str, Any]:
    """Return what `compiled_engine` reads, without the parts."""
    return {
        "check": engine.check.as_json(),
        "need": engine.need,
        "inputs": engine.inputs,
        "outputs": engine.outputs,
        "tools": dict(engine.tools),
        "inspector": engine.inspector,
        "seconds": engine.seconds,
    }


def quantise_network(
    spec: EngineSpec,
    calibration: CalibrationSet,
    method: str,
    workdir: Path,
    *,
    settings: CompileSettings,
    progress: PhaseProgress,
) -> tuple[HashedFile, float]:
    """Return (the network of the spec in int8, seconds), its ranges taken from the calibration set.

    Raise as `compile_engine`.
    """
    start = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="quantise-", dir=workdir)).absolute()
    model = _snapshot(spec, folder)
    rows = folder / "rows"
    calibration.save(rows)
    request = {
        "task": "quantise",
        "source": str(model.path),
        "rows": str(rows),
        "method": method,
        "fixed": _fixed(spec),
        "into": str(folder / "quantised.onnx"),
    }
    result, _ = compile_in_worker(request, folder, settings.limits, progress, model.name)
    return _parts(result)[0], time.monotonic() - start


def _fixed(spec: EngineSpec) -> list[Any]:
    return [[one.name, one.shape, list(map(str, one.values))] for one in spec.fixed]


def _snapshot(spec: EngineSpec, folder: Path) -> ModelSource:
    model = snapshot_model(spec.model.path, folder / "model", spec.fixed)
    if model.digest != spec.model.digest:
        raise Conflict(
            f"{spec.model.path} changed while the mission was being built",
            remedy="wait until no program writes to the file, then build again",
            path=str(spec.model.path),
        )
    return model


def _parts(result: Mapping[str, Any]) -> tuple[HashedFile, ...]:
    return tuple(
        HashedFile(name, Path(part["path"]), ObjectId(bytes.fromhex(part["digest"])))
        for name, part in result["parts"].items()
    )
