"""What a flight computer does: run in an environment of `runtimes`, with another ONNX Runtime.

    python -m tests.support.runtime_probe STORE ROOT MISSION BACKBONE

Verifies the mission with the class of this machine, opens the engine, runs the probe, describes a picture and searches
the map; prints JSON. It imports what an aircraft has: no onnx, no pillow.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

import store
from builders import onboard
from builders.engines.onnxruntime import OnnxRuntimeBackend
from store.errors import FlightbagError


def main(folder: str, root: str, mission_id: str, backbone: str) -> None:
    host = OnnxRuntimeBackend().describe_host()
    verdict = store.takeoff_check(
        folder, mission_id, trust=Path(root).read_bytes(), now=int(time.time()), aircraft="uav-07", host=host
    )
    found: dict[str, object] = {"host": host, "go": verdict.go, "kinds": [one.kind for one in verdict.findings]}
    found["not_judged"] = list(verdict.not_judged)
    unjudged = store.takeoff_check(folder, mission_id, trust=Path(root).read_bytes(), now=int(time.time()))
    assert unjudged.mission is not None, unjudged.findings
    try:
        engine = onboard.flying_engine(unjudged.mission, backbone)
        probe = onboard.probe(unjudged.mission, backbone)
        descriptors = engine.describe([np.full((64, 64, 3), 90, np.uint8)])
        with onboard.Retriever(unjudged.mission, backbone) as retriever:
            matches = retriever.search(descriptors, top=1)[0]
        found |= {"loads": True, "holds": probe.holds, "matches": len(matches)}
    except FlightbagError as error:
        found |= {"loads": False, "kind": error.kind, "error": error.message}
    assert "onnx" not in sys.modules
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
