"""The whole trip with a second real provider: OpenVINO, in ONNX Runtime's wheel of Intel, in an environment of its own.
With FLIGHTBAG_DRILL."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from builders.descriptors.shard import Shard, read_shard
from store.disk.media import object_path
from store.format.ids import ObjectId
from tests.support import runtimes
from tests.support.commands import flightbag
from tests.support.field import Desk

pytestmark = pytest.mark.skipif(not os.environ.get("FLIGHTBAG_DRILL"), reason="takes a minute: FLIGHTBAG_DRILL=1")
PROGRAM = "from tools.start import main; main()"
SMALL: dict[str, Any] = {"zooms": (15,), "files": ()}


@pytest.fixture(scope="module", autouse=True)
def _environment() -> None:
    if why := runtimes.environment(runtimes.OPENVINO)[1]:
        pytest.skip(why)


def there(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the program in the environment that has OpenVINO."""
    command = [runtimes.ROOT / runtimes.OPENVINO / "bin/python", "-c", PROGRAM, *map(str, arguments)]
    variables = {**os.environ, "PYTHONPATH": str(runtimes.REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=variables, timeout=300)


def build(desk: Desk, mission: Path) -> subprocess.CompletedProcess[str]:
    return there("build", mission, "--store", desk.store, "--key", desk.key, "--json")


def built(desk: Desk, mission: Path) -> dict[str, Any]:
    ran = build(desk, mission)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


def map_of(desk: Desk) -> tuple[dict[str, Any], Shard]:
    """The entry of the one shard, and the shard."""
    entries = flightbag("show", desk.store, "left", "--json").json["entries"]
    (entry,) = (one for one in entries if one["kind"] == "descriptors")
    return entry, read_shard((desk.store / object_path(ObjectId.parse(entry["id"]))).read_bytes())


def test_a_map_by_openvino_has_keys_of_its_own_and_rows_like_the_cpus(desk: Desk) -> None:
    desk.built(desk.write_mission("left", **SMALL))
    cpu, rows = map_of(desk)
    mission = desk.write_mission("left", **SMALL, of_set='device = "openvino"')
    assert built(desk, mission)["outcome"] == "built"
    other, others = map_of(desk)
    assert cpu["key"] != other["key"]
    assert "numeric" not in cpu["meta"]
    assert other["meta"]["numeric"].startswith("onnxruntime-openvino-1.24.1-x86_64-fp32")
    assert others.metadata["numeric"] == other["meta"]["numeric"]
    assert np.array_equal(rows.tiles, others.tiles)
    assert np.allclose(rows.descriptors, others.descriptors, atol=2e-3)
    shown = flightbag("show", desk.store, "left").out
    assert f"the map of embedder is described by {other['meta']['numeric']}\n" in shown
    assert json.loads(there("verify", desk.store, "left", "--trust", desk.root, "--json").stdout)["ok"] is True
    assert built(desk, mission)["outcome"] == "unchanged"


def test_rows_of_any_arithmetic_are_shared(desk: Desk) -> None:
    mission = desk.write_mission("left", **SMALL, of_set='device = "openvino"\nnumeric = "any"')
    built(desk, mission)
    before = map_of(desk)[0]
    desk.built(desk.write_mission("left", **SMALL, of_set='numeric = "any"'))
    assert map_of(desk)[0] == before


def mixed(desk: Desk, **changes: Any) -> Path:
    """A mission with a network whose pooling OpenVINO lacks, which ONNX Runtime therefore gives to the CPU."""
    model = onnx.load(desk.folder / "embedder.onnx")
    pool = next(node for node in model.graph.node if node.op_type == "AveragePool")
    pool.op_type = "LpPool"
    onnx.save(model, desk.folder / "mixed.onnx")
    return desk.write_mission("left", **SMALL, model=Path("mixed.onnx"), **changes)


def test_operators_that_openvino_lacks_are_refused_unless_any_arithmetic_will_do(desk: Desk) -> None:
    mission = mixed(desk, of_set='device = "openvino"')
    ran = build(desk, mission)
    assert ran.returncode == 2, ran.stdout
    assert f"{mission}: descriptors[0]: the provider 'openvino' lacks operators of the model" in ran.stderr
    assert "LpPool (CPU)" in ran.stderr
    assert 'set numeric = "any" or device = "cpu"' in ran.stderr
    assert built(desk, mixed(desk, of_set='device = "openvino"\nnumeric = "any"'))["outcome"] == "built"
    assert map_of(desk)[0]["meta"]["numeric"] == "any"
    assert desk.built(mixed(desk, of_set='device = "cpu"'))["outcome"] == "built"


NETWORK = """
import sys
import numpy as np
import onnx
from builders.descriptors.network import Network
from builders.descriptors.preprocess import Preprocess
from builders.engines import providers
from store.errors import FlightbagError

model = open(sys.argv[1], "rb").read()
for options in ({"device_type": "CPU", "precision": "FP16"}, {"device_type": "GPU"}, {"device_type": "NOSUCH"}):
    for numeric in ("exact", "any"):
        providers._OPTIONS["openvino"] = options
        providers._EXACT["openvino"] = providers._Exact(options, lambda: "x86_64")
        providers.device_of.cache_clear()
        try:
            Network(model, "descriptor", Preprocess((64, 64)), 4, device=providers.device_of("openvino", numeric))
        except FlightbagError as error:
            print(error.kind, error.message)
        else:
            print("a network")
"""


def test_a_provider_that_silently_gives_way_to_the_cpu_gives_no_network(desk: Desk) -> None:
    """The real library: it refuses a precision or a device in a log, and makes a session that runs on the CPU alone;
    with a device that it does not know it even names the provider."""
    said = runtimes.python(runtimes.OPENVINO, "-c", NETWORK, str(desk.folder / "embedder.onnx")).splitlines()
    assert len(said) == 6
    assert all("cannot be made on this machine" in line for line in said[:4]), said
    assert all(line.startswith("no-device") for line in said), said
    assert all("ran no operator of the model" in line for line in said[4:]), said
