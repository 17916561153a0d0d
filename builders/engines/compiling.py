"""Making the artifacts of one backbone, each in a process of its own: an engine that is checked, a quantised network.

`compile_engine` gives only an engine that computes what its source does, to the tolerance given. Both take the model as
the spec's digest says or not at all, write nowhere but in a new folder under `workdir`, and leave nothing behind but
that folder, whatever ends them.
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
from builders.engines.isolation import Limits, run
from builders.engines.model import ModelSource, snapshot_model
from builders.engines.precision import CalibrationSet
from store.errors import Conflict
from store.format.ids import ObjectId


@dataclass(frozen=True, slots=True)
class CompileSettings:
    """Where and within which limits compilations run; none of it is in a key. `cache` is the user's cache directory."""

    limits: Limits
    cache: Path


@dataclass(frozen=True, slots=True)
class Part:
    """A file that was made, and the id of the bytes that were measured: whoever stores it expects that id."""

    name: str
    path: Path
    id: ObjectId


@dataclass(frozen=True, slots=True)
class CompiledEngine:
    """A compiled engine that passed its check. `parts` are `model` and perhaps `weights`, the caller's to move or
    delete; `inputs` and `outputs` are [[name, dtype, shape] …]; `seconds` is what compiling took, wall-clock;
    `log` the end of the compiler's output."""

    parts: tuple[Part, ...]
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
    calibration: CalibrationSet | None = None,
) -> CompiledEngine:
    """Compiles for the host class `host`, and checks against the reference.

    For int8 the network is `quantised`, a private file, and `calibration` what it is checked on. Raises a failure of
    `failures`, Refused for an engine that does not compute what the model does, Conflict where the model is no longer
    the one in `spec`.
    """
    folder = Path(tempfile.mkdtemp(prefix="engine-", dir=workdir)).absolute()
    model = _snapshot(spec, folder)
    rows = folder / "rows"
    if calibration is not None:
        calibration.save(rows)
    request = {
        "task": "compile",
        "backend": backend.name,
        "model": model.name,
        "source": str(model.path),
        "network": str(quantised or model.path),
        "host": host,
        "folder": str(folder),
        "cache": str(settings.cache.absolute()),
        "rows": str(rows) if calibration is not None else "",
        "spec": {
            "backbone": spec.backbone,
            "precision": spec.precision,
            "inputs": [[item.name, item.shape, item.range or (None, None, None)] for item in spec.inputs],
            "options": dict(spec.options),
            "plugins": [[str(plugin.path), plugin.digest.hex()] for plugin in spec.plugins],
        },
    }
    result, log = run(request, folder, settings.limits, progress, model.name)
    check = CheckFigures.from_json(result["check"])
    require_tolerance(check, tolerance)
    return CompiledEngine(
        parts=_parts(result),
        inputs=result["inputs"],
        outputs=result["outputs"],
        check=check,
        tools=result["tools"],
        inspector=result["inspector"],
        seconds=result["seconds"],
        log=log,
    )


def quantise_network(
    spec: EngineSpec,
    calibration: CalibrationSet,
    method: str,
    workdir: Path,
    *,
    settings: CompileSettings,
    progress: PhaseProgress,
) -> tuple[Part, float]:
    """(the network of the spec in int8, seconds), with ranges from the calibration set. Raises as `compile_engine`."""
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
        "into": str(folder / "quantised.onnx"),
    }
    result, _ = run(request, folder, settings.limits, progress, model.name)
    return _parts(result)[0], time.monotonic() - start


def _snapshot(spec: EngineSpec, folder: Path) -> ModelSource:
    model = snapshot_model(spec.model.path, folder / "model")
    if model.digest != spec.model.digest:
        raise Conflict(
            f"{spec.model.path} changed while the mission was being built",
            remedy="build again when nothing writes to it",
            path=str(spec.model.path),
        )
    return model


def _parts(result: Mapping[str, Any]) -> tuple[Part, ...]:
    return tuple(
        Part(name, Path(part["path"]), ObjectId(bytes.fromhex(part["digest"])))
        for name, part in result["parts"].items()
    )
