"""The whole trip with a device that is a real other host: ONNX Runtime of another version, in an environment of its
own, which has what a flight computer installs. With FLIGHTBAG_DRILL."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store.ground.repository import Repository
from tests.builders.test_fulfilment import FAST, SMALL, ordered_desk, the_order
from tests.support import runtimes
from tests.support.commands import flightbag
from tests.support.field import Desk
from tests.support.stores import audit

pytestmark = pytest.mark.skipif(not os.environ.get("FLIGHTBAG_DRILL"), reason="takes a minute: FLIGHTBAG_DRILL=1")
VERSION = "1.22.0"
PROGRAM = "from tools.start import main; main()"


@pytest.fixture
def device() -> Callable[..., Any]:
    """Run the program on the device, and return its JSON."""
    if why := runtimes.environment(VERSION)[1]:
        pytest.skip(why)
    return lambda *args: json.loads(runtimes.python(VERSION, "-c", PROGRAM, *map(str, args), "--json"))


def order(desk: Desk, mission: Path) -> dict[str, Any]:
    ran = flightbag("engines", "order", mission, "--store", desk.store, "--json")
    assert ran.status == 0, ran.err
    one: dict[str, Any] = ran.json["orders"][0]
    return one


def made(desk: Desk, stick: Path, device: Callable[..., Any]) -> dict[str, Any]:
    """Carry the order to the device and the result back."""
    assert flightbag("sync", desk.store, stick).status == 0
    (row,) = device("engines", "fulfil", stick, "--key", desk.folder / "orin.key")["orders"]
    taken = flightbag("engines", "accept", desk.store, "--from", stick, "--json")
    assert (taken.status, taken.json["results"][0]["outcome"]) == (0, "accepted"), taken.out
    found: dict[str, Any] = row
    return found


def test_with_another_version_of_the_library(desk: Desk, tmp_path: Path, device: Callable[..., Any]) -> None:
    desk, mission = ordered_desk(desk, tmp_path / "orders")
    host = device("engines", "host")["backends"]["onnxruntime"]["host"]
    desk.write_mission("left", host=host, files=(), **SMALL)
    mission.write_text(mission.read_text().replace(*FAST))
    stick = tmp_path / "stick"

    assert order(desk, mission)["outcome"] == "ordered"
    assert flightbag("engines", "fulfil", desk.store, "--json").json["orders"][0]["state"] == "not for this machine"
    assert made(desk, stick, device)["state"] == "fulfilled"
    assert order(desk, mission)["outcome"] == "not needed"
    desk.built(mission)

    # Another zoom has another probe: the engine stays, and the device measures it.
    desk.write_mission("left", host=host, files=(), **{**SMALL, "zooms": (14, 15)})
    mission.write_text(mission.read_text().replace(*FAST))
    refused = desk.build(mission)
    assert refused.status == 1
    assert "engines order" in refused.err
    assert order(desk, mission)["outcome"] == "ordered"
    with Repository.open(desk.store) as repository:
        asked = the_order(repository)
        assert len(asked.engine) == 3
    assert made(desk, stick, device)["state"] == "fulfilled"
    desk.built(mission)
    assert audit(desk.store).errors is False

    aircraft = tmp_path / "aircraft"
    assert flightbag("sync", desk.store, aircraft).status == 0
    verdict = device("verify", aircraft, "left", "--trust", desk.root, "--host", host)
    assert verdict["ok"] is True, verdict
