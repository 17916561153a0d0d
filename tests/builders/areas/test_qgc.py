"""The plan of QGroundControl: fences and surveys as area, the route as corridor, home as takeoff."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from builders.areas.drawing import open_drawing, read_area
from builders.areas.geometry import Home
from store.errors import Invalid
from store.format.area import Area
from tests.support.drawings import (
    HOME,
    RING,
    ROUTE,
    area_in,
    circle,
    corridor_in,
    corridor_scan,
    fence,
    kml,
    kml_line,
    placemark,
    plan,
    ring_e7,
    route,
    simple,
    survey,
    written,
)

AREA = Area((-991700000, 470100000, -991500000, 470300000), ((ring_e7(),),))
OTHER = [[46.0, 7.0], [46.0, 7.1], [46.1, 7.1]]


def test_the_fence_is_the_area_and_what_it_excludes_is_listed(tmp_path: Path) -> None:
    text = plan(polygons=[fence(), fence(OTHER, inclusion=False)], items=route(), rally=[[47, -99, 5]])
    path = written(tmp_path / "a.plan", text)
    file = open_drawing(path)
    assert read_area(file) == AREA
    assert file.notes == (
        f"{path}: geoFence.polygons[1] excludes ground: passed over, the map shows it all the same",
        f"{path}: rallyPoints has 1 points: passed over",
    )


def test_a_circle_is_never_narrower_than_drawn(tmp_path: Path) -> None:
    area = area_in(written(tmp_path / "a.plan", plan(circles=[circle([47.02, -99.16], 1000)])))
    north = 470200000 + round(1000 / 111195 * 10**7)
    assert area.contains(north, -991600000)
    assert not area.contains(north + 4000, -991600000)


def test_a_fence_of_the_first_version_is_read(tmp_path: Path) -> None:
    old = {"polygon": RING, "breachReturn": RING[0], "version": 1}
    assert area_in(written(tmp_path / "a.plan", plan(geoFence=old, rallyPoints={"points": [], "version": 1}))) == AREA


def test_surveys_are_the_area(tmp_path: Path) -> None:
    items = [simple(22), survey(), {**survey(OTHER), "complexItemType": "StructureScan"}]
    area = area_in(written(tmp_path / "a.plan", plan(items=items)))
    assert area.polygons == ((ring_e7(),), (ring_e7(OTHER),))
    scan = area_in(written(tmp_path / "b.plan", plan(items=[corridor_scan(width=400)])))
    assert scan == corridor_in(written(tmp_path / "b.kml", kml(placemark(kml_line()))), 400)


def test_of_a_fence_and_surveys_the_mission_file_selects(tmp_path: Path) -> None:
    path = written(tmp_path / "a.plan", plan(polygons=[fence(OTHER)], items=[survey()]))
    with pytest.raises(Invalid, match="has a geofence and surveys") as caught:
        area_in(path)
    assert 'select = "survey"' in str(caught.value.remedy)
    assert area_in(path, "survey") == AREA
    assert area_in(path, "geofence").polygons == ((ring_e7(OTHER),),)
    with pytest.raises(Invalid, match='has no "fence"'):
        area_in(path, "fence")


def along(folder: Path, *lines: list[list[float]]) -> Area:
    return corridor_in(written(folder / "lines.kml", kml(*(placemark(kml_line(line)) for line in lines))), 300)


def test_the_route_is_the_corridor_from_home_and_back(tmp_path: Path) -> None:
    there_and_back = along(tmp_path, [HOME[:2], *ROUTE, HOME[:2]])
    assert corridor_in(written(tmp_path / "a.plan", plan(items=route())), 300) == there_and_back
    through = [simple(22), survey(OTHER, ROUTE), simple(20, number=9)]
    assert corridor_in(written(tmp_path / "b.plan", plan(items=through)), 300) == there_and_back
    landing = {
        "complexItemType": "fwLandingPattern",
        "landCoordinate": HOME,
        "landingApproachCoordinate": [*ROUTE[-1], 9],
    }
    items = [*route(ROUTE[:2])[:-1], {**landing, "type": "ComplexItem"}]
    assert corridor_in(written(tmp_path / "c.plan", plan(items=items)), 300) == there_and_back


def test_a_jump_into_a_survey_leads_to_its_first_transect(tmp_path: Path) -> None:
    jump = simple(177, number=30, first=(5, 2, 0, 0))
    items = [simple(22), simple(178, number=5), survey(OTHER, ROUTE), jump]
    path = written(tmp_path / "a.plan", plan(items=items))
    assert corridor_in(path, 300) == along(tmp_path, [HOME[:2], *ROUTE], [ROUTE[-1], ROUTE[0]])


def test_without_home_the_corridor_begins_at_the_first_item(tmp_path: Path) -> None:
    path = written(tmp_path / "a.plan", plan(items=route()[:-1], home=[0, 0, 0]))
    file = open_drawing(path)
    list(file.shapes(("LineString",), None))
    assert file.notes == (f"{path}: mission.plannedHomePosition is not set: the corridor begins at the first item",)
    assert corridor_in(path, 300) == along(tmp_path, ROUTE)
    for home in ([0, 0, 0], None, []):
        with pytest.raises(Invalid, match="was never set") as caught:
            open_drawing(written(tmp_path / "b.plan", plan(home=home))).home(None)
        assert "lat = " in str(caught.value.remedy)


def test_home_is_the_takeoff(tmp_path: Path) -> None:
    file = open_drawing(written(tmp_path / "a.plan", plan()))
    assert file.home(None) == Home(-991600000, 470200000, Decimal(480))
    low = open_drawing(written(tmp_path / "b.plan", plan(home=HOME[:2])))
    assert low.home(None) == Home(-991600000, 470200000, None)


def changed(path: tuple[str | int, ...], value: Any, **of_plan: Any) -> str:
    whole = json.loads(plan(**of_plan))
    at = whole
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    return json.dumps(whole)


FENCED: dict[str, Any] = {"polygons": [fence()], "circles": [circle([47, -99], 100)]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (plan(), "has no polygon"),
        (plan(items=route()), "has no polygon"),
        (changed(("version",), 2), "version is 2, must be 1"),
        (changed(("mission", "version"), 1), r"mission\.version is 1, must be 2"),
        (changed(("geoFence", "version"), 3), r"geoFence\.version is 3"),
        (changed(("mission",), []), "mission is an array of 0"),
        (changed(("mission", "items"), {}), r"mission\.items is an object"),
        (changed(("mission", "items"), [1]), r"mission\.items\[0\] is 1"),
        (changed(("geoFence", "polygons", 0, "inclusion"), 1, **FENCED), "inclusion is 1"),
        (changed(("geoFence", "polygons", 0, "polygon"), [], **FENCED), r"polygon is an array of 0"),
        (changed(("geoFence", "polygons", 0, "polygon"), RING[:2], **FENCED), "3 positions"),
        (changed(("geoFence", "polygons", 0, "polygon", 1), [47], **FENCED), r"polygon\[1\] is an array of 1"),
        (changed(("geoFence", "polygons", 0, "polygon", 1), ["47", "9"], **FENCED), r'polygon\[1\] is "9"'),
        (changed(("geoFence", "polygons", 0, "polygon", 1), [-99.15, 47.01], **FENCED), "outside the world"),
        (changed(("geoFence", "circles", 0, "circle", "radius"), "1", **FENCED), 'radius is "1"'),
        (changed(("geoFence", "circles", 0, "circle", "radius"), -5, **FENCED), "must have 0.5 to 100000 m"),
        (plan(circles=[circle([47.02, -99.16], 7)]).replace(": 7", ": 9e999999"), "more than 1000 digits"),
        (changed(("geoFence", "circles", 0, "circle", "center"), [89, 0], **FENCED), "too near to a pole"),
    ],
)
def test_refuses_an_area(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path / "a.plan", text)
    with pytest.raises(Invalid, match=told) as caught:
        area_in(path)
    assert str(path) in caught.value.message
    assert caught.value.remedy


LANDING = {"complexItemType": "vtolLandingPattern", "type": "ComplexItem", "loiterCoordinate": HOME}
ITEMS = {"items": [*route(), survey()]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (changed(("mission", "items", 1, "params"), [1] * 6, **ITEMS), r"items\[1\]\.params must be seven numbers"),
        (changed(("mission", "items", 1, "params", 4), "47", **ITEMS), r"items\[1\]\.params must be seven numbers"),
        (changed(("mission", "items", 1, "command"), None, **ITEMS), r"items\[1\]\.command is missing"),
        (changed(("mission", "items", 1, "command"), 16.5, **ITEMS), "command is 16.5, must be a whole number"),
        (changed(("mission", "items", 1, "frame"), 3.2, **ITEMS), "frame is 3.2, must be a whole number"),
        # A whole number of them would have a hundred million digits.
        (plan(items=[simple(16, 47, -99, number=77)]).replace(": 77", ": 1e99999999"), "more than 1000 digits"),
        (
            plan(items=[simple(16, 47, -99), simple(16, 47.1, -99), simple(177, first=(1, 1, 0, 0), number=3)]),
            "jumps to the item 1, and 2 have that number",
        ),
        (changed(("mission", "items", 1, "type"), "missionItem", **ITEMS), 'is "missionItem", whose way'),
        (changed(("mission", "items", 5, "complexItemType"), "Orbit", **ITEMS), 'is "Orbit", whose way'),
        (changed(("mission", "items", 5, "TransectStyleComplexItem"), {}, **ITEMS), "VisualTransectPoints is missing"),
        (plan(items=[LANDING]), r"landCoordinate is missing"),
        (plan(items=[{**LANDING, "landingApproachCoordinate": None}]), r"landingApproachCoordinate is missing"),
        (plan(), "has no line"),
    ],
)
def test_refuses_a_route(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(Invalid, match=told) as caught:
        corridor_in(written(tmp_path / "a.plan", text), 300)
    assert caught.value.remedy
