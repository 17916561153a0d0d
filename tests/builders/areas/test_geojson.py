"""Areas from GeoJSON: what is read, what is cut at the antimeridian, refusals."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.areas.covering import tiles_of_area
from builders.areas.drawing import open_drawing, read_area
from builders.areas.geometry import MAX_BYTES, MAX_POLYGONS, MAX_POSITIONS
from builders.grid.tiles import Tile, tile_from_id, tile_id, tiles_of_bbox
from builders.imagery.footprints import read_footprints
from store.errors import Invalid, Unavailable
from store.format.area import LAT_MAX, LON_MAX, Area, Ring
from store.format.cbor import Fields
from tests.builders.areas.shapes import (
    DEGREE,
    SQUARE,
    SQUARE_E7,
    TURN,
    Write,
    area_of,
    box,
    box_ring,
    collection,
    feature,
    of,
    polygon,
    stars,
)
from tests.support.drawings import area_in, corridor_in


@pytest.mark.parametrize(
    "value",
    [
        polygon(SQUARE),
        {"type": "MultiPolygon", "coordinates": [[SQUARE]]},
        feature(polygon(SQUARE)),
        collection(feature(polygon(SQUARE))),
        {"type": "GeometryCollection", "geometries": [polygon(SQUARE)]},
        collection(feature({"type": "GeometryCollection", "geometries": [polygon(SQUARE)]})),
        polygon([[*point, 250.5] for point in SQUARE]),
        polygon([*SQUARE[:2], *SQUARE[1:]]),
        {**polygon(SQUARE), "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}},
        "\ufeff" + json.dumps(polygon(SQUARE)),
    ],
)
def test_a_polygon_wherever_it_may_be(write: Write, value: object) -> None:
    area = area_in(write(value))
    assert area == Area((DEGREE, 2 * DEGREE, 3 * DEGREE, 4 * DEGREE), (SQUARE_E7,))
    assert Area.parse(Fields(area.value(), "area")) == area


def test_all_polygons_are_of_the_area_and_holes_are_kept(write: Write) -> None:
    other = box(10, 0, 20, 10)
    hole = box(12, 2, 14, 4)[::-1]
    area = area_in(write(collection(feature(polygon(other, hole)), feature(polygon(SQUARE)))))
    assert area.bbox == (DEGREE, 0, 20 * DEGREE, 10 * DEGREE)
    assert [len(rings) for rings in area.polygons] == [2, 1]
    assert area.contains(3 * DEGREE, 2 * DEGREE)
    assert not area.contains(3 * DEGREE, 13 * DEGREE)
    assert not area.contains(5 * DEGREE, 5 * DEGREE)


def test_numbers_are_rounded_once_half_to_even(write: Write) -> None:
    text = (
        '{"type": "Polygon", "coordinates": [[[0.00000005, 0.00000015], [1.000000249999999999999999999999, 0],'
        " [1e0, 10E-1], [0.00000005, 0.00000015]]]}"
    )
    assert area_in(write(text)).polygons == (((0, 2, DEGREE + 2, 0, DEGREE, DEGREE),),)


@given(stars(), st.booleans())
def test_what_is_written_is_read(write: Write, star: Ring, backwards: bool) -> None:
    points = [[star[i], star[i + 1]] for i in range(0, len(star), 2)][:: -1 if backwards else 1]
    text = ",".join(f"[{lon}e-7,{lat}e-7]" for lon, lat in [*points, points[0]])
    area = area_in(write(f'{{"type":"Polygon","coordinates":[[{text}]]}}'))
    assert area == area_of((tuple(n for point in points for n in point),))


def test_a_ring_round_the_world(write: Write) -> None:
    area = area_in(write(polygon(box(-180, -90, 180, 90))))
    assert area.bbox == (-LON_MAX, -LAT_MAX, LON_MAX, LAT_MAX)
    assert len(tiles_of_area(area, 4)) == 256
    assert len(tiles_of_area(area_in(write(polygon(box(-180, 1, 180, 2)))), 4)) == 16


def test_an_area_cut_at_the_antimeridian_has_the_smaller_box(write: Write) -> None:
    cut = {"type": "MultiPolygon", "coordinates": [[box(177, -20, 180, -10)], [box(-180, -20, -178, -10)]]}
    area = area_in(write(cut))
    assert area.bbox == (177 * DEGREE, -20 * DEGREE, -178 * DEGREE, -10 * DEGREE)
    # Two polygons less than half the world apart across 0 keep the plain box.
    apart = {"type": "MultiPolygon", "coordinates": [[box(-80, 0, -70, 1)], [box(70, 0, 80, 1)]]}
    assert area_in(write(apart)).bbox == (-80 * DEGREE, 0, 80 * DEGREE, DEGREE)
    touching = {"type": "MultiPolygon", "coordinates": [[box(-180, 0, 0, 1)], [box(0, 0, 180, 1)]]}
    assert area_in(write(touching)).bbox == (-LON_MAX, 0, LON_MAX, DEGREE)


@pytest.mark.parametrize("turn", [-360, 0, 360])
def test_longitudes_beyond_180_are_cut_at_the_antimeridian(write: Write, turn: int) -> None:
    box_beyond = (177, 182) if turn == 0 else (177 + turn, 182 + turn) if turn < 0 else (-183 + turn, -178 + turn)
    area = area_in(write(polygon(box(box_beyond[0], -20, box_beyond[1], -10))))
    assert area.bbox == (177 * DEGREE, -20 * DEGREE, -178 * DEGREE, -10 * DEGREE)
    assert {frozenset(p[0]) for p in area.polygons} == {
        frozenset(box_ring(177 * DEGREE, -20 * DEGREE, LON_MAX, -10 * DEGREE)),
        frozenset(box_ring(-LON_MAX, -20 * DEGREE, -178 * DEGREE, -10 * DEGREE)),
    }
    assert tiles_of_area(area, 10).tolist() == tiles_of_bbox(area.bbox, 10).tolist()


def test_a_polygon_wholly_beyond_180_is_moved(write: Write) -> None:
    area = area_in(write(polygon(box(190, 0, 200, 10), box(192, 2, 194, 4))))
    assert area.bbox == (-170 * DEGREE, 0, -160 * DEGREE, 10 * DEGREE)
    assert not area.contains(3 * DEGREE, -167 * DEGREE)


def test_a_hole_over_the_antimeridian(write: Write) -> None:
    area = area_in(write(polygon(box(170, 0, 190, 10), box(178, 2, 182, 4))))
    assert not area.contains(3 * DEGREE, 179 * DEGREE)
    assert not area.contains(3 * DEGREE, -179 * DEGREE)
    assert area.contains(3 * DEGREE, -177 * DEGREE)
    assert area.contains(5 * DEGREE, LON_MAX)


def test_the_whole_world_given_from_0_to_360(write: Write) -> None:
    ring = [[0, -1], [180, -1], [360, -1], [360, 1], [180, 1], [0, 1], [0, -1]]
    area = area_in(write(polygon(ring)))
    assert area.bbox == (-LON_MAX, -DEGREE, LON_MAX, DEGREE)
    assert len(tiles_of_area(area, 3)) == 16


@settings(max_examples=40)
@given(stars(), st.integers(-18, 18))
def test_a_polygon_over_the_antimeridian_has_the_tiles_moved_round_the_world(
    write: Write, star: Ring, columns: int
) -> None:
    step = columns * (TURN >> 7)
    points = [(star[i] + step, star[i + 1]) for i in range(0, len(star), 2)]
    text = ",".join(f"[{lon}e-7,{lat}e-7]" for lon, lat in [*points, points[0]])
    area = area_in(write(f'{{"type":"Polygon","coordinates":[[{text}]]}}'))
    before = [tile_from_id(n) for n in of(area_of((star,)), 7)]
    expected = {tile_id(Tile(7, (x + columns) % 128, y)) for _, x, y in before}
    # The cut rounds by a unit, which can add or drop a tile that the area barely meets.
    assert len(of(area, 7) ^ expected) <= 2


WGS84 = [
    "urn:ogc:def:crs:OGC:1.3:CRS84",
    "urn:ogc:def:crs:OGC::CRS84",
    "urn:ogc:def:crs:OGC:1.3:CRS84h",
    "OGC:CRS84",
    "CRS84",
    "urn:ogc:def:crs:EPSG::4326",
    "urn:ogc:def:crs:EPSG:6.9:4326",
    "urn:x-ogc:def:crs:EPSG:4326",
    "EPSG:4326",
    "epsg:4326",
    "EPSG::4326",
    "urn:ogc:def:crs:EPSG::4979",
    "http://www.opengis.net/def/crs/OGC/1.3/CRS84",
    "WGS84",
    "wgs_1984",
    "http://www.opengis.net/def/crs/EPSG/0/4326",
    "http://www.opengis.net/gml/srs/epsg.xml#4326",
    "https://spatialreference.org/ref/epsg/4326/",
    "WGS 84",
]


@pytest.mark.parametrize("name", WGS84)
def test_every_usual_name_of_wgs_84_is_read(write: Write, name: str) -> None:
    value = {**polygon(SQUARE), "crs": {"type": "name", "properties": {"name": name}}}
    assert area_in(write(value)).polygons == (SQUARE_E7,)


@pytest.mark.parametrize(
    "crs",
    [
        None,
        {"type": "EPSG", "properties": {"code": 4326}},
        {"type": "link", "properties": {"href": "http://www.opengis.net/def/crs/EPSG/0/4326", "type": "ogcwkt"}},
        "EPSG:4326",
    ],
)
def test_wgs_84_in_older_ways_of_saying_it(write: Write, crs: object) -> None:
    assert area_in(write({**collection(feature(polygon(SQUARE))), "crs": crs})).polygons == (SQUARE_E7,)


@pytest.mark.parametrize("height", [250.5, None])
def test_heights_are_left_out_also_where_a_tool_does_not_know_them(write: Write, height: float | None) -> None:
    assert area_in(write(polygon([[*point, height] for point in SQUARE]))).polygons == (SQUARE_E7,)


def test_what_is_no_polygon_is_passed_over_and_listed(write: Write) -> None:
    point = {"type": "Point", "coordinates": [0, 0]}
    line = {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}
    empty = {"type": "MultiPolygon", "coordinates": []}
    several = {"type": "GeometryCollection", "geometries": [polygon(SQUARE), point]}
    nothing: dict[str, object] = {"type": "GeometryCollection", "geometries": []}
    path = write(collection(*map(feature, [None, point, several, line, empty, nothing, point, point, point])))
    file = open_drawing(path)
    assert read_area(file).polygons == (SQUARE_E7,)
    points = "features[1].geometry, features[2].geometry.geometries[1], features[6].geometry (and 2 more)"
    assert file.notes == (
        f"{path}: features[0].geometry is null: passed over",
        f"{path}: {points} is a Point: passed over",
        f"{path}: features[3].geometry is a LineString: passed over",
        f"{path}: features[4].geometry is an empty MultiPolygon: passed over",
        f"{path}: features[5].geometry.geometries is an empty GeometryCollection: passed over",
    )


def test_a_line_beside_polygons_and_points_is_the_corridor(write: Write) -> None:
    line = {"type": "LineString", "coordinates": [[3, 50], [3, 50.1]]}
    alone = corridor_in(write(line), 500)
    assert corridor_in(write(collection(*map(feature, [polygon(SQUARE), line, None]))), 500) == alone


def test_rings_in_the_wrong_order_have_one_meaning(write: Write) -> None:
    hole = [[1.5, 2.5], [2.5, 2.5], [2.5, 3.5], [1.5, 3.5], [1.5, 2.5]]
    right = area_in(write(polygon(SQUARE, hole)))
    for rings in ([SQUARE[::-1], hole], [SQUARE, hole[::-1]], [hole, SQUARE], [hole[::-1], SQUARE]):
        file = open_drawing(write(polygon(*rings)))
        area = read_area(file)
        assert {frozenset(zip(ring[::2], ring[1::2], strict=True)) for ring in area.polygons[0]} == {
            frozenset(zip(ring[::2], ring[1::2], strict=True)) for ring in right.polygons[0]
        }
        assert not area.contains(3 * DEGREE, 2 * DEGREE)
        assert len(file.notes) == (rings[0] in (hole, hole[::-1]))


def named(name: object, ring: list[list[float]], key: str = "name") -> dict[str, object]:
    return {**feature(polygon(ring)), "properties": {key: name, "more": 1}}


def test_one_feature_of_several_is_selected_by_its_name(write: Write) -> None:
    other = box(10, 0, 20, 10)
    path = write(collection(named("north", other), named("south", SQUARE, "Name"), {**feature(None), "id": "none"}))
    assert area_in(path, "south").polygons == (SQUARE_E7,)
    assert len(area_in(path).polygons) == 2
    with pytest.raises(Invalid, match='none of 3 features of the name "soth"') as caught:
        area_in(path, "soth")
    assert caught.value.remedy == 'select one of its names, such as "south"'
    with pytest.raises(Invalid, match=r"has no polygon; features\[2\]\.geometry is null"):
        area_in(path, "none")


def test_a_name_that_two_features_have_selects_none(write: Write) -> None:
    path = write(collection(named("a", SQUARE), named("a", box(10, 0, 20, 10)), {**feature(polygon(SQUARE)), "id": 7}))
    with pytest.raises(Invalid, match=r'2 features of the name "a": features\[0\], features\[1\]'):
        area_in(path, "a")
    assert area_in(path, "7").polygons == (SQUARE_E7,)
    with pytest.raises(Invalid, match="none of 1 features") as caught:
        area_in(write(polygon(SQUARE)), "a")
    assert "leave out select" in str(caught.value.remedy)


BAD_AREAS: dict[str, tuple[object, str]] = {
    "no_json": ("{", "line 1"),
    "empty": ("", "is empty"),
    "no_utf8": ("latin", "strict JSON"),
    "not_a_number": ('{"type": "Polygon", "coordinates": [[[NaN, 0], [1, 0], [1, 1], [NaN, 0]]]}', "NaN"),
    "infinite": ('{"type": "Polygon", "coordinates": [[[0, 0], [1, Infinity], [1, 1], [0, 0]]]}', "Infinity"),
    "exponent_out_of_bounds": ('{"type": "Polygon", "coordinates": [[[1e99999999999999999999, 0]]]}', "number"),
    "member_twice": ('{"type": "Polygon", "type": "Polygon", "coordinates": []}', '"type" twice'),
    "many_members_and_one_twice": (
        "{" + "".join(f'"{i}":0,' for i in range(300_000)) + '"299999":0}',
        '"299999" twice',
    ),
    "millions_of_values": ("[" + "0," * 3_000_000 + "0]", "more than 2097152 values"),
    "millions_of_arrays": ("[" + "[[]]," * 2_500_000 + "0]", "more than 2097152 values"),
    "nested_deeply": ("[" * 200_000, "nested too deeply"),
    "an_array": ([1], "an array of 1"),
    "nothing": ("null", "no format that is read"),
    "no_type": ({}, "missing"),
    "topology": ({"type": "Topology"}, "Topology"),
    "point": (feature({"type": "Point", "coordinates": [0, 0]}), r"has no polygon; geometry is a Point: passed over"),
    "curve_in_a_collection": (
        feature({"type": "GeometryCollection", "geometries": [polygon(SQUARE), {"type": "Curve"}]}),
        r"geometry\.geometries\[1\] is",
    ),
    "geometry_null": (feature(None), "has no polygon; geometry is null"),
    "no_geometry": ({"type": "Feature"}, "geometry is missing"),
    "feature_in_a_geometry": (feature(feature(polygon(SQUARE))), "geometry is"),
    "collection_of_geometries": (collection(polygon(SQUARE)), r"features\[0\] is"),
    "no_features": (collection(), "features is an array of 0"),
    "features_missing": ({"type": "FeatureCollection"}, "features is missing"),
    "collections_without_end": (
        json.loads('{"type":"GeometryCollection","geometries":[' * 10 + json.dumps(polygon(SQUARE)) + "]}" * 10),
        "is a collection inside 8 others",
    ),
    "no_coordinates": ({"type": "Polygon"}, "coordinates is missing"),
    "no_ring": (polygon(), "no polygon; the geometry is an empty Polygon"),
    "empty_ring": (polygon([]), "no polygon; the geometry is an empty Polygon"),
    "empty_hole": (polygon(SQUARE, []), r"coordinates\[1\] is"),
    "empty_collection": (collection(feature({"type": "GeometryCollection", "geometries": []})), "empty Geom"),
    "not_closed": (polygon(SQUARE[:4]), r"coordinates\[0\] is not closed"),
    "three_positions": (polygon([[0, 0], [1, 1], [0, 0]]), "3 positions"),
    "too_small": (polygon([[0, 0], [1e-9, 0], [1e-9, 1e-9], [0, 0]]), "no area"),
    "flat": (polygon([[0, 0], [1, 1], [2, 2], [0, 0]]), "is not valid"),
    "bow_tie": (polygon([[10, 10], [12, 12], [12, 10], [10, 12], [10, 10]]), r"Self-intersection\[11\.0000000 11\.0"),
    "hole_outside": (polygon(SQUARE, box(10, 10, 11, 11)), "Hole lies outside shell"),
    "hole_across": (polygon(SQUARE, box(2, 3, 5, 3.5)), "is not valid"),
    "holes_within_each_other": (polygon(box(0, 0, 9, 9), box(1, 1, 8, 8), box(2, 2, 3, 3)), "nested"),
    "one_number": (polygon([[0], [1, 1], [0, 1], [0]]), r"coordinates\[0\]\[0\] is an array of 1"),
    "five_numbers": (polygon([[0, 0, 0, 0, 0], *SQUARE]), r"coordinates\[0\]\[0\] is an array of 5"),
    "text_for_a_number": (polygon([["1", 2], *SQUARE[1:]]), r"coordinates\[0\]\[0\]"),
    "truth_for_a_number": (polygon([[True, 2], *SQUARE[1:]]), r"coordinates\[0\]\[0\]"),
    "north_of_the_pole": (polygon([[0, 0], [1, 0], [1, 90.0000001], [0, 0]]), r"\[2\] is at .* outside the world"),
    "metres": (polygon(box(500_000, 4_000_000, 500_100, 4_000_100)), "outside the world"),
    "huge": ('{"type": "Polygon", "coordinates": [[[1e999, 0], [1, 0], [1, 1], [0, 0]]]}', "outside the world"),
    "thousands_of_digits": ('{"type": "Polygon", "coordinates": [[[1e999999, 0]]]}', "more than 1000 digits"),
    "thousands_of_places": ('{"type": "Polygon", "coordinates": [[[0.%s1, 0]]]}' % ("0" * 2000), "1000 digits"),
    "edge_both_ways": (polygon(box(-100, 0, 100, 10)), "from longitude -100 to 100"),
    "edge_over_the_antimeridian": (polygon(box(179, 0, -179, 10)), "RFC 7946"),
    "wider_than_the_world": (
        polygon([[-300, 0], [-150, 0], [0, 0], [100, 0], [100, 1], [0, 1], [-150, 1], [-300, 1], [-300, 0]]),
        "wider than the world",
    ),
    "other_crs": (
        {**polygon(SQUARE), "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32614"}}},
        "crs is .*32614",
    ),
    "unknown_crs": ({**polygon(SQUARE), "crs": {"type": "link", "properties": {"href": "a.prj"}}}, 'crs is "a.prj"'),
    "swiss_crs": ({**polygon(SQUARE), "crs": {"type": "EPSG", "properties": {"code": 2056}}}, "crs is 2056"),
    "crs_in_a_feature": (
        collection({**feature(polygon(SQUARE)), "crs": {"type": "name", "properties": {"name": "EPSG:3857"}}}),
        r"features\[0\]\.crs is .*3857",
    ),
    "too_many_polygons": ({"type": "MultiPolygon", "coordinates": [[SQUARE]] * (MAX_POLYGONS + 1)}, "257 polygons"),
    "too_many_vertices": (
        polygon([[math.cos(t), math.sin(t)] for t in np.linspace(0, math.tau, 5000).tolist()[:-1]] + [[1.0, 0.0]]),
        "vertices",
    ),
    "too_many_positions": (polygon([[0, 0]] * (MAX_POSITIONS + 1)), "limit of 131072 positions"),
}


@pytest.mark.parametrize("name", BAD_AREAS)
def test_refuses_an_area(write: Write, name: str) -> None:
    value, told = BAD_AREAS[name]
    path = write(value)
    if name == "no_utf8":
        path.write_bytes(b'{"type": "\xff"}')
    with pytest.raises(Invalid, match=told) as caught:
        area_in(path)
    assert str(path) in caught.value.message
    assert caught.value.remedy
    assert caught.value.fields["path"] == str(path)
    assert len(str(caught.value)) < 1000


def test_a_file_that_is_not_there_or_none_or_too_large_is_invalid(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b" " * (MAX_BYTES + 1))
    for name in ("absent", "pipe", ".", "large"):
        for read in (area_in, read_footprints, lambda path: corridor_in(path, 100)):
            with pytest.raises(Invalid) as caught:
                read(tmp_path / name)
            assert caught.value.remedy


def test_a_file_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(Unavailable):
        area_in(loop)
