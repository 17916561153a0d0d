"""Maps in the terminal and for a GIS."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import shapely
from PIL import Image
from shapely.geometry import shape

from builders.areas.covering import tiles_of_signed_area
from builders.grid.tiles import tile_bounds, tile_from_id
from store.format.area import Area
from store.format.missing import REASONS
from tests.support.commands import flightbag
from tests.support.map_store import AREA, ELL, FIJI, map_flight, runs_of, write_map_store
from tests.support.terminal import at_terminal

EAST = Area((-991600000, 470080000, -991350000, 470330000))


class Maps(NamedTuple):
    store: Path
    missing: dict[int, str]


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Maps:
    """`ridge` misses a tile for each reason, and shares cells with `east`; `fiji` crosses the antimeridian; `ell` has
    polygons and a hole; `large` has more tiles than a terminal has characters."""
    ids = tiles_of_signed_area(AREA, 15).tolist()
    missing = dict(zip(ids[::2], REASONS, strict=False))
    assert len(missing) == len(REASONS)
    folder = tmp_path_factory.mktemp("maps")
    first = tiles_of_signed_area(FIJI, 10).tolist()[0]
    flights = (
        map_flight("ridge", AREA, (14, 15), runs_of(missing)),
        map_flight("east", EAST, (15,)),
        map_flight("fiji", FIJI, (10,), runs_of({first: "absent"}), view=(2, 1)),
        map_flight("ell", ELL, (11,)),
        map_flight("large", AREA, (20,)),
    )
    return Maps(write_map_store(folder, *flights)[0], missing)


def drawn(out: str) -> list[str]:
    """The lines of the first map."""
    lines = out.splitlines()[1:]
    return lines[: next(at for at, line in enumerate(lines) if line.startswith(("zoom", "#  ")))]


def test_so_many_other_missions_are_compared(maps: Maps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert flightbag("map", maps.store, "ridge", "--json").json["not_compared"] == 0
    monkeypatch.setattr("tools.maps.MOST_COMPARED", 1)
    ran = flightbag("map", maps.store, "ridge", "-o", tmp_path / "m.geojson")
    assert "not compared: 3 other missions; the store has too many entries" in ran.words
    told = flightbag("map", maps.store, "ridge", "--json").json
    assert told["not_compared"] == 3
    assert any(cell["shared"] for cell in told["cells"]), "`east` is the first"


def test_a_pipe_gets_letters_and_no_control_characters(maps: Maps) -> None:
    ran = flightbag("map", maps.store, "ridge")
    assert ran.status == 0, ran.err
    assert ran.out.isascii()
    assert "\x1b" not in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    letters = set("".join(drawn(ran.out)))
    assert letters - set("# T") == set("zaopmrustbdcv")
    for reason in REASONS:
        assert re.search(rf"^\w +1 +{reason} ", ran.out, re.MULTILINE), reason
    assert ran.out.startswith(f"zoom 15: {len(tiles_of_signed_area(AREA, 15)) - 13} of ")


def test_a_map_keeps_its_width_and_its_form_at_every_size(maps: Maps, monkeypatch: pytest.MonkeyPatch) -> None:
    """A character is twice as high as wide: what is square on the map is square on the screen."""
    for mission, ratio in (("ridge", 1.0), ("large", 1.0), ("ell", 1.0), ("fiji", 1.0)):
        lines = drawn(flightbag("map", maps.store, mission, columns=80).out)
        width, height = max(map(len, lines)), len(lines)
        assert 8 <= width < 80
        assert 0.4 < width / (2 * height) / ratio < 2.5, (mission, width, height)


def test_a_terminal_gets_colours_unless_told_otherwise(maps: Maps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    status, seen = at_terminal("map", maps.store, "ridge")
    assert status == 0
    assert "\x1b[38;5;16;48;5;214m" in seen
    plain = re.sub(r"\x1b\[[0-9;]*m", "", seen)
    assert "\x1b" not in plain
    assert max(map(len, drawn(plain))) < 40, "a narrow terminal"
    monkeypatch.setenv("NO_COLOR", "1")
    assert at_terminal("map", maps.store, "ridge") == (0, plain)


def test_the_layers_of_a_geojson_are_the_map(maps: Maps, tmp_path: Path) -> None:
    value, layers = written(maps.store, "ridge", tmp_path / "ridge.geojson")
    assert value["name"] == "map of a mission"
    found = {one["properties"]["tile"]: one["properties"]["reason"] for one in layers["missing"]}
    assert found == {str(tile_from_id(number)): reason for number, reason in maps.missing.items()}
    for zoom in (14, 15):
        ids = [number for number in tiles_of_signed_area(AREA, zoom).tolist() if number not in maps.missing]
        mine = [one for one in layers["described"] if one["properties"]["zoom"] == zoom]
        assert sum(one["properties"]["tiles"] for one in mine) == len(ids)
        union = shapely.union_all([shape(one["geometry"]) for one in mine])
        tiles = shapely.union_all([shapely.box(*tile_bounds(tile_from_id(number))) for number in ids])
        assert union.symmetric_difference(tiles).area < 1e-5 * tiles.area, "but for the seventh digit"
    assert {one["properties"]["shared"] for one in layers["cell"]} == {"", "east"}
    assert "footprint" not in layers, "each row shows a described tile, and no more"
    assert layers["takeoff"][0]["properties"]["alt_m"] == 480
    assert shape(layers["area"][0]["geometry"]).contains(shape(layers["takeoff"][0]["geometry"]))


@pytest.mark.parametrize("mission", ["ridge", "fiji", "ell"])
def test_a_geojson_is_valid_by_another_reader(maps: Maps, mission: str, tmp_path: Path) -> None:
    """RFC 7946: rings run counter-clockwise, holes clockwise, nothing crosses the antimeridian, the box holds all."""
    value, layers = written(maps.store, mission, tmp_path / "map.geojson")
    west, south, east, north = value["bbox"]
    assert (west > east) == (mission == "fiji")
    for layer, features in layers.items():
        for one in features:
            geometry = shape(one["geometry"])
            assert geometry.is_valid, layer
            for part in getattr(geometry, "geoms", [geometry]):
                if part.geom_type == "Polygon":
                    assert part.exterior.is_ccw
                    assert not any(ring.is_ccw for ring in part.interiors)
                left, bottom, right, top = part.bounds
                assert right - left < 180
                assert left >= -180
                assert right <= 180
                assert south <= bottom
                assert top <= north
                inside = (left >= west or right <= east) if west > east else west <= left <= right <= east
                assert inside, (layer, part.bounds, value["bbox"])
    if mission == "fiji":
        assert [one["geometry"]["type"] for one in layers["area"]] == ["MultiPolygon"]
        assert "MultiPolygon" in {one["geometry"]["type"] for one in layers["footprint"]}, "a view across the edge"


def written(store: Path, mission: str, path: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    for _ in range(2):  # a file of its own is written again
        ran = flightbag("map", store, mission, "-o", path)
        assert ran.status == 0, ran.err
    value = json.loads(path.read_text())
    layers: dict[str, list[dict[str, Any]]] = {}
    for one in value["features"]:
        layers.setdefault(one["properties"]["layer"], []).append(one)
    return value, layers


def test_a_file_of_another_kind_is_refused_before_the_work(maps: Maps, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (4, 4)).save(photo)
    before = photo.read_bytes()
    for path in (photo, tmp_path / "x.svg", maps.store / "x.png", tmp_path / "nowhere/x.geojson"):
        ran = flightbag("map", maps.store, "ridge", "-o", path)
        assert (ran.status, str(path) in ran.err, "  -> " in ran.err) == (2, True, True), ran.err
    assert photo.read_bytes() == before


def test_without_its_libraries_the_command_names_the_extra(
    maps: Maps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library, extra in (("PIL", "build"), ("numpy", "onboard")):
        monkeypatch.setitem(sys.modules, library, None)
        ran = flightbag("map", maps.store, "ridge", "-o", tmp_path / "x.png")
        assert (ran.status, f"[{extra}]" in ran.err) == (3, True), ran.err


def test_json_has_the_numbers_of_the_map(maps: Maps) -> None:
    value = flightbag("map", maps.store, "ridge", "--json").json
    assert value["missing"] == dict.fromkeys(REASONS, 1)
    assert [(one["zoom"], one["missing"]) for one in value["zooms"]] == [(15, 13), (14, 0)]
    assert {tuple(one["shared"]) for one in value["cells"]} == {(), ("east",)}
