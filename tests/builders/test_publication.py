"""The example at the head of `publication` runs: what somebody who embeds the build does; what is compared before it is
signed."""

from __future__ import annotations

import doctest
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from builders import publication
from store.errors import Refused
from store.trust.keys import PrivateKey
from tests.support.field import Desk
from tests.support.missions import FACTS, ISSUE, NOW, ROOT, flight
from tests.support.missions_toml import mission_toml


def test_the_example_runs(desk: Desk, tmp_path: Path) -> None:
    names = {
        "mission_file": desk.write_mission("left"),
        "store_path": desk.store,
        "key": PrivateKey.of_pem(desk.key.read_bytes(), None),
        "cache_folder": tmp_path,
    }
    (test,) = (one for one in doctest.DocTestFinder(recurse=False).find(publication, globs=names) if one.examples)
    report: list[str] = []
    results = doctest.DocTestRunner().run(test, out=report.append)
    assert (results.attempted, results.failed) == (4, 0), "".join(report)
    assert desk.verify().status == 0


@pytest.mark.parametrize(
    ("takeoff", "signed"),
    [
        ("lat = 47.0201, lon = -99.1602, alt_m = 480", True),
        ("lat = 47.0201, lon = -99.1602, alt_m = 480.001", False),
        ('plan = "a.plan"', True),
        ('plan = "a.plan", alt_m = 480', True),
        ('plan = "a.plan", alt_m = 470', False),
    ],
)
def test_of_a_takeoff_in_a_plan_what_the_mission_file_says_is_compared(takeoff: str, signed: bool) -> None:
    """Reading the plan is work of the confined process, and there is none here."""
    west, south, east, north = (number / 10**7 for number in FACTS.area.bbox)
    text = mission_toml(
        mission=FACTS.id,
        tiles=Path("map.mbtiles"),
        model=Path("net.onnx"),
        bbox=(west, south, east, north),
        zooms=(16,),
        takeoff=(0, 0),
    ).replace("lat = 0, lon = 0, alt_m = 480.0", takeoff)
    stated = flight(mission=replace(FACTS, aircraft=("uav-07",)), issue=replace(ISSUE, expires_at=None)).manifest
    with nullcontext() if signed else pytest.raises(Refused, match="in takeoff, and is not signed"):
        publication._require_stated(Path("north-ridge.toml"), text.encode(), stated, ROOT, NOW)
