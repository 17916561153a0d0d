"""The process that makes an engine of an order, or takes the one that the order names, checks it against its source,
and measures it on the probes.

`fulfilment` starts it as `builders.engines.isolation` describes; it is `builders.engines.worker` with one more task. It
needs numpy and ONNX Runtime, and the library of the backend.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from builders.engines.base import BackendResult, EngineSession, EngineSpec, PhaseProgress
from builders.engines.failures import failure
from builders.engines.worker import checked, main, spec_of_request
from builders.onboard.flying import FlyingEngine
from builders.onboard.probes import Probe
from store.format.manifest import PPM


def fulfil(request: Mapping[str, Any], progress: PhaseProgress, cancelled: Callable[[], bool]) -> dict[str, Any]:
    """Return the result of a compilation, with `figures`: [value in parts per million, queries] of each probe."""
    spec, source = spec_of_request(request), Path(request["source"])
    present = request["engine"]
    engine = None
    if present is not None:
        weights = Path(present["weights"]) if present["weights"] else None
        engine = BackendResult(Path(present["model"]), weights, present["need"], present["tools"], present["inspector"])
    whole = source if request["apart"] else source.read_bytes()
    result, session = checked(request, spec, whole, Path(request["network"]), progress, cancelled, engine)
    if result["check"]["of"] != "engine":
        raise failure(
            "unproven",
            f"this machine makes the engine of {request['model']} and does not run it: nothing is measured",
            remedy="fulfil the order on a machine that runs the engine",
        )
    figures: list[tuple[int, int]] = []
    for path in request["probes"]:
        progress("probing", len(figures), len(request["probes"]))
        figures.append(_fidelity(spec, session, Path(path)))
    return {**result, "figures": figures}


def _fidelity(spec: EngineSpec, session: EngineSession, path: Path) -> tuple[int, int]:
    probe = Probe.parse(path.read_bytes())
    sizes = [shape[0] for case in spec.cases() for shape in case.values()]
    cosine = probe.fidelity(FlyingEngine(session, probe.recipe, (min(sizes), max(sizes))))
    return int(min(max(cosine, 0.0), 1.0) * PPM), len(probe.images)


if __name__ == "__main__":
    main({"fulfil": fulfil}, Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
