"""Missing tiles on a map: the files that plan, build and show write."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from builders.areas.drawing import open_drawing, read_area
from tests.support.commands import flightbag
from tests.support.field import Desk

# The terrain ends at 47.045 degrees north.
TALL = (-99.180, 47.030, -99.155, 47.060)


def features(path: Path) -> list[dict[str, Any]]:
    value = json.loads(path.read_text())
    assert value["type"] == "FeatureCollection"
    found: list[dict[str, Any]] = value["features"]
    return found


def test_plan_build_and_show_write_the_same_tiles(desk: Desk, tmp_path: Path) -> None:
    more = "[coverage]\nat_least = 0.2\n"
    mission = desk.write_mission("left", zooms=(14,), files=(), bbox=TALL, takeoff=(47.04, -99.17), more=more)
    planned = flightbag("plan", mission, "--store", desk.store, "--geojson", tmp_path / "plan.geojson", "--json")
    assert planned.status == 0, planned.out + planned.err
    args = ("--store", desk.store, "--key", desk.key, "--geojson", tmp_path / "build.geojson", "--json")
    built = flightbag("build", mission, *args)
    assert built.status == 0, built.out + built.err
    shown = flightbag("show", desk.store, "left", "--geojson", tmp_path / "show.geojson")
    assert shown.status == 0, shown.err
    tiles = features(tmp_path / "plan.geojson")
    listed = [(one["tile"], one["reason"]) for one in planned.json["missing"]]
    assert listed
    assert [(one["properties"]["tile"], one["properties"]["reason"]) for one in tiles] == listed
    assert features(tmp_path / "build.geojson") == features(tmp_path / "show.geojson") == tiles
    # It is GeoJSON to this program's own reader, and the tiles lie where they are missing: in the north.
    one = tmp_path / "one.geojson"
    one.write_text(json.dumps(tiles[0]["geometry"]))
    assert read_area(open_drawing(one)).bbox[1] > 470_400_000 - 10**6


def test_a_place_for_no_file_is_refused_before_the_work(desk: Desk, tmp_path: Path) -> None:
    mission = desk.write_mission("left", zooms=(14,), files=())
    for path in (desk.store / "missing.geojson", tmp_path / "nowhere/missing.geojson", tmp_path):
        for command in (("plan", mission, "--store", desk.store), ("show", desk.store, "left")):
            ran = flightbag(*command, "--geojson", path)
            assert ran.status == 2
            assert str(path) in ran.err


def test_a_file_of_another_kind_is_not_lost(desk: Desk, tmp_path: Path) -> None:
    """The area of the mission is GeoJSON too. A file of missing tiles is written again."""
    mission = desk.write_mission("left", zooms=(14,), files=())
    area = tmp_path / "area.geojson"
    area.write_text('{"type": "FeatureCollection", "features": []}')
    for command in (("plan", mission, "--store", desk.store), ("show", desk.store, "left")):
        ran = flightbag(*command, "--geojson", area)
        assert (ran.status, str(area) in ran.err) == (2, True)
    assert area.read_text() == '{"type": "FeatureCollection", "features": []}'
    for _ in range(2):
        assert flightbag("plan", mission, "--store", desk.store, "--geojson", tmp_path / "new.geojson").status == 0
    assert features(tmp_path / "new.geojson") == []


def test_the_edge_that_is_short_is_named_and_the_remedy_works(desk: Desk) -> None:
    mission = desk.write_mission("left", zooms=(14, 15), files=(), bbox=TALL, takeoff=(47.04, -99.17))
    ran = flightbag("plan", mission, "--store", desk.store)
    assert ran.status == 1
    assert re.search(r"the imagery ends short of the area: .* (km|m) in the north \(", ran.out)
    (north,) = re.findall(r"with north = (\d+\.\d+) as the edge of the area no tile would be absent", ran.out)
    assert flightbag("build", mission, "--store", desk.store).out.count(f"with north = {north}") == 1
    mission = desk.write_mission(
        "left", zooms=(14, 15), files=(), bbox=(*TALL[:3], float(north)), takeoff=(47.031, -99.17)
    )
    ran = flightbag("plan", mission, "--store", desk.store)
    assert ran.status == 0, ran.out


def test_an_area_in_the_other_hemisphere_is_told(desk: Desk) -> None:
    south = (-99.180, -47.030, -99.155, -47.008)
    mission = desk.write_mission(
        "left", zooms=(14,), files=(), bbox=south, takeoff=(-47.0201, -99.1602), of_tiles='scheme = "tms"'
    )
    ran = flightbag("plan", mission, "--store", desk.store)
    assert ran.status == 1, ran.err
    assert "terrain.mbtiles has imagery at lat 46.9" in ran.out or "check the signs of the latitudes" in ran.out
    assert "check the signs of the latitudes" in ran.out
