"""Missions whose area, route and takeoff somebody drew in another program: from the file to GO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import drawings
from tests.support.commands import flightbag
from tests.support.drawings import HOME, ROUTE
from tests.support.field import TAKEOFF, Desk

ORIGIN = f"{{ lat = {TAKEOFF[0]}, lon = {TAKEOFF[1]}, alt_m = 480.0 }}"


def mission(desk: Desk, id_: str, area: str, takeoff: str = ORIGIN, **changes: Any) -> Path:
    path = desk.write_mission(id_, area=area, **changes)
    text = path.read_text()
    assert ORIGIN in text
    path.write_text(text.replace(ORIGIN, takeoff))
    return path


def go(desk: Desk, id_: str) -> str:
    """What verify prints of a mission that is GO, its map compared with the imagery."""
    args = ("--trust", desk.root, "--tiles", desk.folder / "terrain.mbtiles")
    ran = flightbag("verify", desk.store, id_, *args, columns=80)
    assert ran.status == 0, ran.out
    assert all(len(line) <= 80 for line in ran.out.splitlines() if str(desk.store) not in line), ran.out
    return ran.words


def test_a_plan_drives_a_mission_to_go(desk: Desk) -> None:
    fences = [drawings.fence(), drawings.fence(drawings.RING[:3], inclusion=False)]
    drawings.written(desk.folder / "ridge.plan", drawings.plan(polygons=fences, items=drawings.route()))
    report = desk.built(mission(desk, "ridge", 'plan = "ridge.plan"', '{ plan = "ridge.plan" }'))
    (note,) = report["notes"]
    assert note.endswith("geoFence.polygons[1] excludes ground: passed over, the map shows it all the same")
    out = go(desk, "ridge")
    assert "47.02, -99.16, 480 m" in out
    assert "outside" not in out
    # The plan of a mission lists the same, and an unchanged build too.
    shown = flightbag("plan", desk.folder / "ridge.toml", "--store", desk.store)
    assert f"note: {note}" in shown.out
    again = desk.built(desk.folder / "ridge.toml")
    assert (again["outcome"], again["notes"]) == ("unchanged", [note])


def test_a_plan_that_a_library_writes_drives_a_mission_to_go(desk: Desk) -> None:
    writer: Any = pytest.importorskip(
        "drone_flightplan.output.qgroundcontrol", reason="the library that writes the file is not installed"
    )
    points = [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [lon, lat]},
            "properties": {"index": n, "altitude": 480 + n, "gimbal_angle": -80, "speed": 5, "take_photo": True},
        }
        for n, (lat, lon) in enumerate([HOME[:2], *ROUTE])
    ]
    path = desk.folder / "flight.plan"
    writer.create_qgroundcontrol_plan({"type": "FeatureCollection", "features": points}, str(path))
    by_hand = drawings.written(desk.folder / "hand.plan", drawings.plan(items=drawings.route()))
    assert drawings.corridor_in(path, 400) == drawings.corridor_in(by_hand, 400)
    desk.built(mission(desk, "route", 'corridor = "flight.plan", width_m = 400', '{ plan = "flight.plan" }'))
    assert "47.02, -99.16, 480 m" in go(desk, "route")


def test_a_kml_that_a_library_writes_drives_a_mission_to_go(desk: Desk) -> None:
    simplekml: Any = pytest.importorskip("simplekml", reason="the library that writes the file is not installed")
    document = simplekml.Kml()
    ring = [(lon, lat) for lat, lon in drawings.RING]
    document.newpolygon(name="ridge", outerboundaryis=[*ring, ring[0]])
    document.newpoint(name="home", coords=[(-99.16, 47.02)])
    document.savekmz(str(desk.folder / "ridge.kmz"))
    takeoff = '{ plan = "ridge.kmz", select = "home", alt_m = 480 }'
    report = desk.built(mission(desk, "ridge", 'plan = "ridge.kmz"', takeoff))
    assert [note.endswith("is a Point: passed over") for note in report["notes"]] == [True]
    assert "47.02, -99.16, 480 m" in go(desk, "ridge")


def test_a_takeoff_outside_the_map_is_signed_and_printed(desk: Desk) -> None:
    drawings.written(desk.folder / "ridge.plan", drawings.plan(polygons=[drawings.fence()], home=[47.034, -99.16, 480]))
    given = ('plan = "ridge.plan"', '{ plan = "ridge.plan" }')
    refused = desk.build(mission(desk, "ridge", *given))
    assert refused.status == 2
    assert "it is about 445 m outside" in refused.out + refused.err
    desk.built(mission(desk, "ridge", *given, of_mission="takeoff_outside = true"))
    told = "takeoff about 445 m OUTSIDE the mapped area, as the mission allows"
    assert told in go(desk, "ridge")
    shown = flightbag("show", desk.store, "ridge")
    assert told in shown.out
    assert flightbag("show", desk.store, "ridge", "--json").json["mission"]["takeoff_outside"] == 1
