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

from builders.areas.corridor import read_corridor
from builders.areas.covering import tiles_of_area
from builders.areas.geojson import MAX_BYTES, MAX_POLYGONS, MAX_POSITIONS, read_geojson_area
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
    area = read_geojson_area(write(value))
    assert area == Area((DEGREE, 2 * DEGREE, 3 * DEGREE, 4 * DEGREE), (SQUARE_E7,))
    assert Area.parse(Fields(area.value(), "area")) == area


def test_all_polygons_are_of_the_area_and_holes_are_kept(write: Write) -> None:
    other = box(10, 0, 20, 10)
    hole = box(12, 2, 14, 4)[::-1]
    area = read_geojson_area(write(collection(feature(polygon(other, hole)), feature(polygon(SQUARE)))))
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
    assert read_geojson_area(write(text)).polygons == (((0, 2, DEGREE + 2, 0, DEGREE, DEGREE),),)


@given(stars(), st.booleans())
def test_what_is_written_is_read(write: Write, star: Ring, backwards: bool) -> None:
    points = [[star[i], star[i + 1]] for i in range(0, len(star), 2)][:: -1 if backwards else 1]
    text = ",".join(f"[{lon}e-7,{lat}e-7]" for lon, lat in [*points, points[0]])
    area = read_geojson_area(write(f'{{"type":"Polygon","coordinates":[[{text}]]}}'))
    assert area == area_of((tuple(n for point in points for n in point),))


def test_a_ring_round_the_world(write: Write) -> None:
    area = read_geojson_area(write(polygon(box(-180, -90, 180, 90))))
    assert area.bbox == (-LON_MAX, -LAT_MAX, LON_MAX, LAT_MAX)
    assert len(tiles_of_area(area, 4)) == 256
    assert len(tiles_of_area(read_geojson_area(write(polygon(box(-180, 1, 180, 2)))), 4)) == 16


def test_an_area_cut_at_the_antimeridian_has_the_smaller_box(write: Write) -> None:
    cut = {"type": "MultiPolygon", "coordinates": [[box(177, -20, 180, -10)], [box(-180, -20, -178, -10)]]}
    area = read_geojson_area(write(cut))
    assert area.bbox == (177 * DEGREE, -20 * DEGREE, -178 * DEGREE, -10 * DEGREE)
    # Two polygons less than half the world apart across 0 keep the plain box.
    apart = {"type": "MultiPolygon", "coordinates": [[box(-80, 0, -70, 1)], [box(70, 0, 80, 1)]]}
    assert read_geojson_area(write(apart)).bbox == (-80 * DEGREE, 0, 80 * DEGREE, DEGREE)
    touching = {"type": "MultiPolygon", "coordinates": [[box(-180, 0, 0, 1)], [box(0, 0, 180, 1)]]}
    assert read_geojson_area(write(touching)).bbox == (-LON_MAX, 0, LON_MAX, DEGREE)


@pytest.mark.parametrize("turn", [-360, 0, 360])
def test_longitudes_beyond_180_are_cut_at_the_antimeridian(write: Write, turn: int) -> None:
    box_beyond = (177, 182) if turn == 0 else (177 + turn, 182 + turn) if turn < 0 else (-183 + turn, -178 + turn)
    area = read_geojson_area(write(polygon(box(box_beyond[0], -20, box_beyond[1], -10))))
    assert area.bbox == (177 * DEGREE, -20 * DEGREE, -178 * DEGREE, -10 * DEGREE)
    assert {frozenset(p[0]) for p in area.polygons} == {
        frozenset(box_ring(177 * DEGREE, -20 * DEGREE, LON_MAX, -10 * DEGREE)),
        frozenset(box_ring(-LON_MAX, -20 * DEGREE, -178 * DEGREE, -10 * DEGREE)),
    }
    assert tiles_of_area(area, 10).tolist() == tiles_of_bbox(area.bbox, 10).tolist()


def test_a_polygon_wholly_beyond_180_is_moved(write: Write) -> None:
    area = read_geojson_area(write(polygon(box(190, 0, 200, 10), box(192, 2, 194, 4))))
    assert area.bbox == (-170 * DEGREE, 0, -160 * DEGREE, 10 * DEGREE)
    assert not area.contains(3 * DEGREE, -167 * DEGREE)


def test_a_hole_over_the_antimeridian(write: Write) -> None:
    area = read_geojson_area(write(polygon(box(170, 0, 190, 10), box(178, 2, 182, 4))))
    assert not area.contains(3 * DEGREE, 179 * DEGREE)
    assert not area.contains(3 * DEGREE, -179 * DEGREE)
    assert area.contains(3 * DEGREE, -177 * DEGREE)
    assert area.contains(5 * DEGREE, LON_MAX)


def test_the_whole_world_given_from_0_to_360(write: Write) -> None:
    ring = [[0, -1], [180, -1], [360, -1], [360, 1], [180, 1], [0, 1], [0, -1]]
    area = read_geojson_area(write(polygon(ring)))
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
    area = read_geojson_area(write(f'{{"type":"Polygon","coordinates":[[{text}]]}}'))
    before = [tile_from_id(n) for n in of(area_of((star,)), 7)]
    expected = {tile_id(Tile(7, (x + columns) % 128, y)) for _, x, y in before}
    # The cut rounds by a unit, which can add or drop a tile that the area barely meets.
    assert len(of(area, 7) ^ expected) <= 2


BAD_AREAS: dict[str, tuple[object, str]] = {
    "no_json": ("{", "line 1"),
    "empty": ("", "strict JSON"),
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
    "nothing": ("null", "missing"),
    "no_type": ({}, "missing"),
    "topology": ({"type": "Topology"}, "Topology"),
    "point": (feature({"type": "Point", "coordinates": [0, 0]}), r'geometry is "Point"'),
    "second_is_a_line": (
        collection(feature(polygon(SQUARE)), feature({"type": "LineString", "coordinates": [[0, 0], [1, 1]]})),
        r"features\[1\]\.geometry is",
    ),
    "in_a_collection": (
        feature({"type": "GeometryCollection", "geometries": [polygon(SQUARE), {"type": "MultiPoint"}]}),
        r"geometry\.geometries\[1\] is",
    ),
    "geometry_null": (feature(None), "geometry is missing"),
    "feature_in_a_geometry": (feature(feature(polygon(SQUARE))), "geometry is"),
    "collection_of_geometries": (collection(polygon(SQUARE)), r"features\[0\] is"),
    "no_features": (collection(), "features is an array of 0"),
    "features_missing": ({"type": "FeatureCollection"}, "features is missing"),
    "collections_without_end": (
        json.loads('{"type":"GeometryCollection","geometries":[' * 10 + json.dumps(polygon(SQUARE)) + "]}" * 10),
        "is a collection inside 8 others",
    ),
    "no_coordinates": ({"type": "Polygon"}, "coordinates is missing"),
    "no_ring": (polygon(), "coordinates is an array of 0"),
    "empty_ring": (polygon([]), r"coordinates\[0\] is"),
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
    "huge": ('{"type": "Polygon", "coordinates": [[[1e999999, 0], [1, 0], [1, 1], [0, 0]]]}', "outside the world"),
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
    "unknown_crs": ({**collection(feature(polygon(SQUARE))), "crs": None}, "crs is missing"),
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
        read_geojson_area(path)
    assert str(path) in caught.value.message
    assert caught.value.remedy
    assert caught.value.fields["path"] == str(path)
    assert len(str(caught.value)) < 1000


def test_a_file_that_is_not_there_or_none_or_too_large_is_invalid(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b" " * (MAX_BYTES + 1))
    for name in ("absent", "pipe", ".", "large"):
        for read in (read_geojson_area, read_footprints, lambda path: read_corridor(path, 100)):
            with pytest.raises(Invalid) as caught:
                read(tmp_path / name)
            assert caught.value.remedy


def test_a_file_that_cannot_be_read_is_unavailable(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(Unavailable):
        read_geojson_area(loop)
