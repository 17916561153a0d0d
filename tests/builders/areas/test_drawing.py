"""What a drawing is comes from its bytes; files of the tools' own libraries are read as they are meant."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from builders.areas.drawing import open_drawing, read_area, require_kind
from builders.areas.geometry import Home
from store.errors import Invalid
from store.format.area import Area
from tests.builders.areas.shapes import SQUARE, Write, polygon
from tests.support.drawings import (
    HOME,
    RING,
    ROUTE,
    at,
    corridor_in,
    fence,
    kml,
    kml_line,
    kml_polygon,
    kmz,
    placemark,
    plan,
    ring_e7,
    waypoints,
    written,
)

AREA = Area((-991700000, 470100000, -991500000, 470300000), ((ring_e7(),),))
PLACEMARK = kml(placemark(kml_polygon()))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (PLACEMARK, "KML"),
        (kmz(doc_kml=PLACEMARK), "KML"),
        (plan(polygons=[fence()]), "QGroundControl plan"),
        ("\ufeff  " + plan(polygons=[fence()]), "QGroundControl plan"),
        (waypoints(*(at(5001, *place, frame=0, first=(4, 0, 0, 0)) for place in RING)), "MAVLink waypoint"),
    ],
)
@pytest.mark.parametrize("name", ["a.kml", "a.kmz", "a.plan", "a.geojson", "a.txt", "a", "a.json"])
def test_the_bytes_say_what_it_is_and_another_name_is_told(
    tmp_path: Path, data: bytes | str, what: str, name: str
) -> None:
    file = open_drawing(written(tmp_path / name, data))
    assert file.what == what
    assert read_area(file) == AREA
    claimed = {"a.kml": "KML", "a.kmz": "KML", "a.plan": "QGroundControl plan", "a.geojson": "GeoJSON"}.get(name, what)
    told = (f"{tmp_path / name}: is {what} by its bytes and {claimed} by its name: the bytes count",)
    assert file.notes == (told if claimed != what else ())


def test_the_key_of_the_mission_file_is_compared_with_the_bytes(write: Write, tmp_path: Path) -> None:
    geojson = open_drawing(write(polygon(SQUARE)))
    drawn = open_drawing(written(tmp_path / "a.kml", PLACEMARK))
    require_kind(geojson, "geojson", "")
    require_kind(drawn, "plan", "")
    with pytest.raises(Invalid, match="is KML by its bytes, and geojson says GeoJSON"):
        require_kind(drawn, "geojson", "write plan for geojson")
    with pytest.raises(Invalid, match="is GeoJSON by its bytes, and plan says"):
        require_kind(geojson, "plan", "write geojson for plan")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"SQLite format 3\0" + bytes(100), "is an SQLite file, such as a GeoPackage"),
        (b"\x00\x00\x27\x0a" + bytes(100), "is a shapefile"),
        (PLACEMARK.encode("utf-16"), "is text in UTF-16"),
        (b"\x89PNG\r\n\x1a\n", "is in no format that is read"),
        (b"fileType = Plan", "is in no format that is read"),
        (b"#saved by Mission Planner 1.3.80\r\n47.01 -99.17\r\n", "is in no format that is read"),
        (b"POLYGON ((0 0, 1 0, 1 1, 0 0))", "is in no format that is read"),
        (b"lat,lon\n47.01,-99.17\n", "is in no format that is read"),
        (b'\x1e{"type": "Point"}\n\x1e{"type": "Point"}\n', "is a sequence of GeoJSON texts"),
        (b'{"type": "Point"}\r\n{"type": "Point"}\n', "is a sequence of GeoJSON texts"),
        (b'{"type": "Topology", "objects": {}, "arcs": []}', "neither GeoJSON nor a plan"),
        (b'{"geometryType": "esriGeometryPolygon", "features": []}', "neither GeoJSON nor a plan"),
    ],
)
def test_other_files_are_named_and_converted(tmp_path: Path, data: bytes, told: str) -> None:
    with pytest.raises(Invalid, match=told) as caught:
        open_drawing(written(tmp_path / "a", data))
    assert ("UTF-8" if "UTF-16" in told else "ogr2ogr") in caught.value.remedy


@pytest.mark.parametrize("data", [b"", b" \r\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_named(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Invalid, match="is empty"):
        open_drawing(written(tmp_path / "a", data))


# -- files that the tools' own libraries write


def test_simplekml(tmp_path: Path) -> None:
    simplekml: Any = pytest.importorskip("simplekml", reason="the library that writes the file is not installed")
    document = simplekml.Kml(name="north ridge")
    lon_lat = [(lon, lat) for lat, lon in RING]
    document.newfolder(name="areas").newpolygon(name="ridge", outerboundaryis=[*lon_lat, lon_lat[0]])
    document.newlinestring(name="route", coords=[(lon, lat, 50) for lat, lon in ROUTE])
    home = document.newpoint(name="home", coords=[(HOME[1], HOME[0], HOME[2])])
    home.altitudemode = simplekml.AltitudeMode.absolute
    document.save(str(tmp_path / "a.kml"))
    document.savekmz(str(tmp_path / "a.kmz"))
    for name in ("a.kml", "a.kmz"):
        file = open_drawing(tmp_path / name)
        assert read_area(file, "ridge") == AREA
        assert file.home("home") == Home(-991600000, 470200000, Decimal("480.0"))
        by_hand = written(tmp_path / "b.kml", kml(placemark(kml_line())))
        assert corridor_in(tmp_path / name, 300, "route") == corridor_in(by_hand, 300)


def test_fastkml(tmp_path: Path) -> None:
    fastkml: Any = pytest.importorskip("fastkml", reason="the library that writes the file is not installed")
    pygeoif: Any = pytest.importorskip("pygeoif")
    ring = [(lon, lat, 0.0) for lat, lon in RING]
    placemarks = [
        fastkml.Placemark(name="ridge", geometry=pygeoif.Polygon(ring)),
        fastkml.Placemark(name="spot", geometry=pygeoif.Point(-99.16, 47.02)),
    ]
    folder = fastkml.Folder(name="areas", features=placemarks)
    text = fastkml.KML(features=[fastkml.Document(features=[folder])]).to_string(prettyprint=True)
    file = open_drawing(written(tmp_path / "a.kml", text))
    assert read_area(file) == AREA
    assert file.home("spot") == Home(-991600000, 470200000, None)


def test_pymavlink(tmp_path: Path) -> None:
    wp: Any = pytest.importorskip("pymavlink.mavwp", reason="the library that writes the file is not installed")
    from pymavlink.dialects.v20 import ardupilotmega as mavlink

    loader = wp.MAVWPLoader()
    places = [
        (0, 16, *HOME),
        (3, 22, 0.0, 0.0, 50.0),
        *((3, 16, *place, 50.0) for place in ROUTE),
        (3, 20, 0.0, 0.0, 0.0),
    ]
    for n, (frame, command, *xyz) in enumerate(places):
        loader.add(mavlink.MAVLink_mission_item_message(1, 1, n, frame, command, int(n == 0), 1, 0, 0, 0, 0, *xyz))
    loader.save(str(tmp_path / "a.waypoints"))
    # The library holds places in single precision; what it wrote is what counts.
    file = open_drawing(tmp_path / "a.waypoints")
    home = file.home(None)
    assert (home.lat, home.lon) == pytest.approx((470200000, -991600000), abs=10)
    flown = [[one.x, one.y] for one in loader.wpoints[2:-1]]
    line = [[home.lat / 10**7, home.lon / 10**7], *flown, [home.lat / 10**7, home.lon / 10**7]]
    by_hand = written(tmp_path / "b.kml", kml(placemark(kml_line(line))))
    assert corridor_in(tmp_path / "a.waypoints", 300).bbox == pytest.approx(corridor_in(by_hand, 300).bbox, abs=20)
