"""Mission items: the legs that they fly, the fences that they draw, and the waypoint files that hold them."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from builders.areas.drawing import open_drawing, read_area
from builders.areas.geometry import Home
from store.errors import Invalid
from tests.support.drawings import RING, ROUTE, area_in, at, corridor_in, kml, kml_line, placemark, waypoints, written

HOME = (0, 16, 0, 0, 0, 0, 47.02, -99.16, 480)
ON = [at(16, *place) for place in ROUTE]
HOME_PLACE = [47.02, -99.16]


def same_corridor(folder: Path, text: str, *lines: list[list[float]]) -> bool:
    """Whether the corridor of a waypoint file is the one along these lines."""
    drawn = written(folder / "lines.kml", kml(*(placemark(kml_line(line)) for line in lines)))
    return corridor_in(written(folder / "a.waypoints", text), 300) == corridor_in(drawn, 300)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_the_route_begins_at_home(tmp_path: Path, ending: str) -> None:
    text = waypoints(HOME, *ON, ending=ending)
    assert same_corridor(tmp_path, text, [HOME_PLACE, *ROUTE])
    assert same_corridor(tmp_path, "\ufeff" + text.replace("\t", " ") + f"{ending}# done{ending}", [HOME_PLACE, *ROUTE])


def test_the_way_home_and_jumps_are_legs(tmp_path: Path) -> None:
    home = at(20, 0, 0)
    assert same_corridor(tmp_path, waypoints(HOME, *ON, home), [HOME_PLACE, *ROUTE, HOME_PLACE])
    jump = (0, 177, 1, 2, 0, 0, 0, 0, 0)
    assert same_corridor(tmp_path, waypoints(HOME, *ON, jump), [HOME_PLACE, *ROUTE], [ROUTE[-1], ROUTE[0]])
    # An item without a place leads to the next one.
    speed = (0, 178, 0, 5, 0, 0, 0, 0, 0)
    text = waypoints(HOME, speed, *ON, (0, 177, 1, -1, 0, 0, 0, 0, 0))
    assert same_corridor(tmp_path, text, [HOME_PLACE, *ROUTE], [ROUTE[-1], ROUTE[0]])


def test_items_that_stand_for_the_place_where_the_aircraft_is_add_none(tmp_path: Path) -> None:
    text = waypoints(HOME, at(22, 0, 0), *ON, at(17, 0, 0), (2, 206, 25, 0, 0, 0, 0, 0, 0), at(21, 0, 0))
    assert same_corridor(tmp_path, text, [HOME_PLACE, *ROUTE])


def test_curves_are_listed(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.waypoints", waypoints(HOME, ON[0], at(82, *ROUTE[1]), at(18, *ROUTE[2], first=(2, 0, 80, 0)))
    )
    file = open_drawing(path)
    list(file.shapes(("LineString",), None))
    assert file.notes == (
        f"{path}: line 4 is a spline: the corridor follows the straight line",
        f"{path}: line 5 circles at 80.00000000 m: the corridor follows the straight line",
    )


def test_a_list_of_what_is_not_followed_has_an_end(tmp_path: Path) -> None:
    circles = [at(17, 47.02, -99.16, first=(0, 0, radius, 0)) for radius in range(1, 151)]
    path = written(tmp_path / "a.waypoints", waypoints(HOME, *circles))
    file = open_drawing(path)
    assert list(file.shapes(("LineString",), None)) == []
    assert len(file.notes) == 101
    assert file.notes[-1] == f"{path}: 50 more kinds of things are passed over, or not followed exactly"
    with pytest.raises(Invalid, match="has no line") as caught:
        file.refuse_nothing("line", "draw one")
    assert len(caught.value.message) < 20_000


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([HOME, *ON, (0, 177, 99, 1, 0, 0, 0, 0, 0)], "jumps to the item 99"),
        ([HOME, *ON, (0, 177, 1.5, 1, 0, 0, 0, 0, 0)], "jumps to the item 1.5"),
        ([*ON, at(20, 0, 0)], "returns to a home position"),
        ([HOME, *ON, at(25, 47, -99)], "command 25, whose way is not known"),
        ([HOME, *ON, at(179, 47, -99)], "changes the way in flight"),
        ([HOME, *ON, at(601, 1, 1)], "changes the way in flight"),
        ([HOME, *ON, at(16, 47, -99, frame=1)], "frame 1"),
        ([HOME, *ON, at(16, 91, -99)], "outside the world"),
        ([HOME], "has no line"),
        ([], "has no line"),
    ],
)
def test_a_way_that_is_not_known_is_an_error(tmp_path: Path, items: list[Any], told: str) -> None:
    path = written(tmp_path / "a.waypoints", waypoints(*items))
    with pytest.raises(Invalid, match=told) as caught:
        corridor_in(path, 300)
    assert caught.value.remedy


def test_item_0_is_home_where_its_height_is_above_sea_level(tmp_path: Path) -> None:
    file = open_drawing(written(tmp_path / "a.waypoints", waypoints(HOME, *ON)))
    assert file.home(None) == Home(-991600000, 470200000, Decimal("480.00000000"))
    for first in (ON[0], (0, 22, *HOME[2:])):
        with pytest.raises(Invalid, match="has no home position"):
            open_drawing(written(tmp_path / "b.waypoints", waypoints(first, *ON))).home(None)
    unset = (0, 16, 0, 0, 0, 0, 0, 0, 0)
    with pytest.raises(Invalid, match="it was never set"):
        open_drawing(written(tmp_path / "c.waypoints", waypoints(unset, *ON))).home(None)


def fence_item(command: int, place: list[float], first: float) -> Any:
    return at(command, *place, frame=0, first=(first, 0, 0, 0))


def test_fences_are_an_area(tmp_path: Path) -> None:
    ring = [fence_item(5001, place, 4) for place in RING]
    out = [fence_item(5002, place, 3) for place in RING[:3]]
    text = waypoints(*ring, *out, fence_item(5003, [47.02, -99.14], 500), fence_item(5000, RING[0], 0))
    file = open_drawing(written(tmp_path / "fence.txt", text))
    area = read_area(file)
    assert len(area.polygons) == 2
    assert area.contains(470245000, -991400000), "the northern edge of the circle"
    assert area.contains(470110000, -991690000), "a corner of the polygon"
    assert not area.contains(470249000, -991400000)
    assert [note.rpartition(" is ")[2] for note in file.notes[1:]] == ["a place to return to: passed over"]
    assert "line 6, line 7, line 8 excludes ground" in file.notes[0]
    with pytest.raises(Invalid, match="lacks vertices"):
        area_in(written(tmp_path / "cut.txt", waypoints(*ring[:3])))
    with pytest.raises(Invalid, match="before the last one is complete"):
        area_in(written(tmp_path / "mixed.txt", waypoints(*ring[:3], fence_item(5001, RING[3], 3))))
    with pytest.raises(Invalid, match=r"have 0\.5 to 100000 m"):
        area_in(written(tmp_path / "flat.txt", waypoints(fence_item(5003, RING[0], 0))))


def test_a_route_is_no_area_and_the_remedy_works(tmp_path: Path) -> None:
    path = written(tmp_path / "a.waypoints", waypoints(HOME, *ON))
    with pytest.raises(Invalid, match="has no polygon") as caught:
        area_in(path)
    assert "corridor" in str(caught.value.remedy)
    assert corridor_in(path, 300).polygons
    with pytest.raises(Invalid, match="have no names"):
        corridor_in(path, 300, "route")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("QGC WPL 100\n", 'is "QGC WPL 100", must be QGC WPL 110'),
        (waypoints(HOME)[:-4], "has 11 fields"),
        (waypoints(HOME).replace("47.02", "47,02"), 'line 2 has "47,02000000" for a number'),
        (waypoints(HOME).replace("47.02", "1e9999"), "for a number"),
        (waypoints(HOME).replace("0\t1\t0\t16", "0\t1\t0\tnan"), "line 2, field 4 is missing, must be a whole number"),
        (waypoints(HOME).replace("0\t1\t0\t16", "0\t1\t0\t16.5"), "field 4 is 16.5, must be a whole number"),
        ("QGC WPL 110\n\udcff", "is not UTF-8"),
    ],
)
def test_refuses_a_waypoint_file(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(Invalid, match=told) as caught:
        open_drawing(written(tmp_path / "a.txt", text.encode(errors="surrogateescape")))
    assert caught.value.remedy
