"""Landmarks: pictures with known places, which the map must find there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from builders.retrieval.landmarks import MAX_LANDMARKS, metres_between, read_landmarks
from store.errors import FlightbagError, Invalid
from store.ground.repository import Repository
from tests.support.commands import flightbag
from tests.support.field import LEFT, Desk
from tests.support.landmarks import PLACES, WITHIN_M, feature, middle, mirrored, shifted, write_landmarks

LANDMARKS = f'landmarks = "points.geojson"\nlandmarks_within_m = {WITHIN_M}\n'
QUALITY = f"[quality]\nrecall_at_1 = 0\nrecall_at_5 = 0\n{LANDMARKS}"
FIGURE = "landmarks/embedder"


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_landmarks(tmp_path_factory.mktemp("points"))


@pytest.fixture
def field(desk: Desk, points: Path) -> Desk:
    """A desk with landmarks."""
    shutil.copytree(points.parent / "frames", desk.folder / "frames")
    shutil.copy(points, desk.folder)
    return desk


def mission(desk: Desk, more: str = QUALITY, **changes: Any) -> Path:
    return desk.write_mission("left", zooms=(15,), more=more, **changes)


def figure(report: dict[str, Any]) -> dict[str, Any]:
    return next(one for one in report["figures"] if one["name"] == FIGURE)


def refusal(path: Path, call: Callable[[], object]) -> FlightbagError:
    """The error of a call, which names the GeoJSON file and a remedy."""
    with pytest.raises(FlightbagError) as caught:
        call()
    assert str(path) in caught.value.message
    assert caught.value.remedy
    return caught.value


def test_landmarks_that_are_found_are_a_signed_figure(field: Desk) -> None:
    report = field.built(mission(field))
    one = figure(report)
    assert (one["value"], one["least"], one["queries"]) == (10**6, 10**6, len(PLACES))
    with Repository.open(field.store) as repository:
        signed = {f.name: f for f in repository.current("left").manifest.quality}
    assert signed[FIGURE].recipe.hex() == one["recipe"]
    assert not [text for text in field.verify().json["missions"][0]["not_judged"] if "landmarks" in text]
    assert field.build(mission(field)).json["outcome"] == "unchanged"


@pytest.mark.parametrize("wrong", [mirrored, lambda path: shifted(path, 500)], ids=["mirrored", "shifted"])
def test_a_map_in_the_wrong_place_is_refused_and_each_landmark_named(
    field: Desk, wrong: Callable[[Path], None]
) -> None:
    wrong(field.folder / "terrain.mbtiles")
    assert field.build(mission(field, "")).status == 0, "no other gate sees it"
    ran = field.build(mission(field))
    assert ran.status == 1
    assert ran.json["outcome"] == "failed"
    assert f"{FIGURE} is" in ran.json["why"]
    assert "0.jpg (features[0]) was found at 47." in ran.json["why"]
    assert figure(ran.json)["value"] < 10**6
    assert len(figure(ran.json)["missed"]) >= 1


def test_a_changed_picture_or_point_is_another_figure(field: Desk) -> None:
    path = mission(field)
    before = figure(field.built(path))["recipe"]
    assert field.built(path)["outcome"] == "unchanged"
    picture = field.folder / "frames/0.jpg"
    with Image.open(picture) as image:
        image.save(picture, quality=70)
    after = field.built(path)
    assert after["outcome"] == "built"
    assert figure(after)["recipe"] != before
    points = json.loads((field.folder / "points.geojson").read_text())
    points["features"][1]["geometry"]["coordinates"][0] += 1e-6
    (field.folder / "points.geojson").write_text(json.dumps(points))
    assert field.built(path)["outcome"] == "built"


def test_quality_measures_landmarks_again(field: Desk) -> None:
    field.built(mission(field))
    command = ("quality", field.store, "left", "--trust", field.root, "--tiles", field.folder / "terrain.mbtiles")
    given = ("--landmarks", field.folder / "points.geojson", "--within", WITHIN_M)
    ran = flightbag(*command, *given, "--json")
    assert ran.status == 0, ran.out + ran.err
    one = next(one for one in ran.json["figures"] if one["name"] == FIGURE)
    assert (one["value"], one["holds"], one["queries"]) == (10**6, True, len(PLACES))
    left_out = flightbag(*command)
    assert left_out.status == 3
    assert "NOT MEASURED: --landmarks is missing" in left_out.words
    # Another distance is another figure; a place nearby is not found.
    assert flightbag(*command, *given[:2], "--within", WITHIN_M + 1).status == 3
    points = json.loads((field.folder / "points.geojson").read_text())
    points["features"][2]["geometry"]["coordinates"][0] += 0.01
    (field.folder / "points.geojson").write_text(json.dumps(points))
    ran = flightbag(*command, *given)
    assert ran.status == 1
    assert "2.jpg (features[2]) was found at" in ran.out
    assert "TOO LOW" in ran.out
    assert flightbag(*command, "--within", 5).status == 2
    assert flightbag(*command, *given[:2]).status == 2


def test_a_landmark_that_the_map_cannot_answer_is_an_error_with_its_feature(field: Desk) -> None:
    path = field.folder / "points.geojson"
    good = json.loads(path.read_text())

    def build_with(one: dict[str, Any]) -> str:
        path.write_text(json.dumps({**good, "features": [*good["features"], one]}))
        ran = field.build(mission(field))
        assert ran.status in (1, 2)
        assert str(path) in ran.err
        assert "features[3]" in ran.err
        return ran.err

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)).save(field.folder / "a.png")
    inside = middle(PLACES[0][0])
    assert "outside the mission's area" in build_with(feature("a.png", [LEFT[2] + 0.01, inside[1]]))
    assert "outside the mission's area" in build_with(feature("a.png", [inside[0], 45.0]))
    assert "shows a square of" in build_with(feature("a.png", inside, metres=100))
    (field.folder / "b.jpg").write_bytes((field.folder / "frames/0.jpg").read_bytes()[:5000])
    assert "b.jpg" in build_with(feature("b.jpg", inside, metres=3000))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('landmarks = "points.geojson"', "both or none of landmarks and landmarks_within_m"),
        ("landmarks_within_m = 5", "both or none of landmarks and landmarks_within_m"),
        ('landmarks = "none.geojson"\nlandmarks_within_m = 5', "quality.landmarks"),
        ('landmarks = "frames"\nlandmarks_within_m = 5', "quality.landmarks"),
        ('landmarks = "points.geojson"\nlandmarks_within_m = 0', "quality.landmarks_within_m"),
    ],
)
def test_keys_that_do_not_fit_are_named_in_the_mission_file(field: Desk, lines: str, words: str) -> None:
    ran = field.build(mission(field, QUALITY.replace(LANDMARKS, lines)))
    assert ran.status == 2
    assert words in ran.err


def test_a_distance_within_which_the_whole_area_lies_proves_nothing(field: Desk) -> None:
    ran = field.build(mission(field, QUALITY.replace(f"within_m = {WITHIN_M}", "within_m = 100000")))
    assert ran.status == 2
    assert "features[0] is found by any answer: all of the area lies within" in ran.err
    assert "allow fewer metres" in ran.err


def test_a_place_without_a_row_is_an_error_and_not_a_miss(field: Desk) -> None:
    from tests.builders.test_orchestrator_map import set_tile

    set_tile(field.folder / "terrain.mbtiles", PLACES[1][0], None)
    ran = field.build(mission(field, QUALITY + "[coverage]\nat_least = 0.5\n"))
    assert ran.status == 1
    assert "features[1] is where no row of the map shows the ground" in ran.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda one: one["properties"].pop("image"), "properties.image is missing"),
        (lambda one: one["properties"].update(image=5), "properties.image is 5"),
        (lambda one: one["properties"].update(image="none.jpg"), "does not exist"),
        (lambda one: one["properties"].update(image="."), "found a directory"),
        (lambda one: one["properties"].update(image="points.geojson"), "cannot be decoded"),
        (lambda one: one["properties"].update(image="frames/1.jpg"), "is the picture of features[0]"),
        (lambda one: one["properties"].update(metres="wide"), 'properties.metres is "wide"'),
        (lambda one: one["properties"].update(metres=-3), "cannot show -3.0 metres"),
        (lambda one: one["properties"].update(heading=1e30), "properties.heading is"),
        (lambda one: one["properties"].pop("metres"), "a heading alone"),
        (lambda one: one.update(properties=None), "properties.image is missing"),
        (lambda one: one["geometry"].update(coordinates=[1]), "must be a position"),
        (lambda one: one["geometry"].update(coordinates=[1, 91]), "outside the world"),
        (lambda one: one["geometry"].update(type="LineString"), "must be Point"),
    ],
)
def test_a_file_with_a_mistake_is_invalid(points: Path, change: Callable[[Any], object], words: str) -> None:
    value = json.loads(points.read_text())
    value["features"] = [value["features"][1], value["features"][0]]
    change(value["features"][1])
    other = points.with_name("other.geojson")
    other.write_text(json.dumps(value))
    error = refusal(other, lambda: read_landmarks(other, 1000))
    assert isinstance(error, Invalid)
    assert words in error.message
    assert "features[1]" in error.message


def test_a_file_without_a_landmark_or_with_too_many_is_invalid(points: Path) -> None:
    other = points.with_name("other.geojson")
    for value in ({"type": "Point", "coordinates": [1, 2]}, {"type": "FeatureCollection", "features": []}):
        other.write_text(json.dumps(value))
        refusal(other, lambda: read_landmarks(other, 1000))
    pixels = np.zeros((2, 2, 3), np.uint8)
    features = []
    for number in range(MAX_LANDMARKS + 1):
        pixels[0, 0] = number // 256, number % 256, 1
        Image.fromarray(pixels).save(points.with_name(f"{number}.png"))
        features.append(feature(f"{number}.png", [1, 2]))
    other.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert f"more than the {MAX_LANDMARKS}" in refusal(other, lambda: read_landmarks(other, 1000)).message


def test_landmarks_are_read_as_the_file_has_them(points: Path) -> None:
    landmarks = read_landmarks(points, 1500)
    assert landmarks.within_m == 1.5
    assert [one.camera.heading for one in landmarks.landmarks] == [heading for _, heading in PLACES]
    assert [(one.lon, one.lat) for one in landmarks.landmarks] == [
        tuple(round(degrees * 10**7) for degrees in middle(tile)) for tile, _ in PLACES
    ]


@given(st.floats(-89, 89), st.floats(-180, 180), st.floats(-0.9, 0.9), st.floats(-0.9, 0.9))
def test_the_distance_is_that_of_a_sphere(lat: float, lon: float, north: float, east: float) -> None:
    assert metres_between((lat, lon), (lat, lon)) == 0
    assert metres_between((lat, lon), (lat, lon + 360)) == pytest.approx(0, abs=0.01)
    one, other = (lat, lon), (lat + north, lon + east)
    assert metres_between(one, other) == metres_between(other, one)
    assert metres_between(one, (lat + north, lon)) == pytest.approx(abs(north) * 111195.08, rel=1e-6, abs=0.01)
