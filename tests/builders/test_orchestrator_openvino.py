"""The whole trip with a second real provider: OpenVINO, in ONNX Runtime's wheel of Intel, in an environment of its own.
With FLIGHTBAG_DRILL."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
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
    assert json.loads(there("verify", desk.store, "left", "--trust", desk.root, "--json").stdout)["go"] is True
    assert built(desk, mission)["outcome"] == "unchanged"


def test_rows_of_any_arithmetic_are_shared(desk: Desk) -> None:
    mission = desk.write_mission("left", **SMALL, of_set='device = "openvino"\nnumeric = "any"')
    built(desk, mission)
    before = map_of(desk)[0]
    desk.built(desk.write_mission("left", **SMALL, of_set='numeric = "any"'))
    assert map_of(desk)[0] == before
