"""`flightbag new`: a mission file from imagery and a model, which a plan takes as it is."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import flightbag
from tests.support.exports import write_export
from tests.support.field import Desk


def new(
    desk: Desk, imagery: object = "terrain.mbtiles", model: str = "embedder.onnx", name: str = "north.toml"
) -> Path:
    source = imagery if imagery.startswith("tms:") else desk.folder / imagery
    ran = flightbag("new", desk.folder / name, "--imagery", source, "--model", desk.folder / model)
    assert ran.status == 0, ran.out + ran.err
    return desk.folder / name


def planned(desk: Desk, mission: Path) -> dict[str, object]:
    ran = flightbag("plan", mission, "--store", desk.store, "--json")
    assert ran.status == 0, ran.out + ran.err
    value: dict[str, object] = ran.json
    return value


@pytest.mark.confined
def test_a_new_mission_is_planned_as_it_is(desk: Desk) -> None:
    """In the confined process, as everybody runs it."""
    mission = new(desk)
    plan = planned(desk, mission)
    assert (plan["mission"], plan["missing"]) == ("north", [])


def test_it_says_what_is_to_be_corrected(desk: Desk) -> None:
    ran = flightbag(
        *("new", desk.folder / "north.toml", "--imagery", desk.folder / "terrain.mbtiles"),
        *("--model", desk.folder / "embedder.onnx", "--json"),
    )
    assert ran.status == 0, ran.err
    assert {one.partition(":")[0] for one in ran.json["open"]} == {
        "mission.takeoff",
        "mission.aircraft",
        "tiles[0].captured",
        "descriptors[0].preprocess",
    }


@pytest.mark.parametrize("is_link", [False, True])
def test_it_never_writes_over_a_file(desk: Desk, is_link: bool) -> None:
    mission = desk.folder / "north.toml"
    if is_link:
        mission.symlink_to("nowhere.toml")
    else:
        mission.write_text("mine\n")
    before = mission.lstat()
    ran = flightbag(
        "new", mission, "--imagery", desk.folder / "terrain.mbtiles", "--model", desk.folder / "embedder.onnx"
    )
    assert ran.status == 2
    assert "exists already" in ran.err
    assert (mission.lstat().st_ino, mission.lstat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not (desk.folder / "nowhere.toml").exists()


@pytest.mark.parametrize("way", ["uint8", "nhwc", "grey", "half", "tokens", "open", "keypoints"])
def test_models_of_other_exporters_are_planned(desk: Desk, way: str) -> None:
    write_export(desk.folder / "other.onnx", way)
    mission = new(desk, model="other.onnx")
    text = mission.read_text()
    if way == "uint8":  # bytes are pixels as they are: the scale is among what is to be corrected
        mission.write_text(text.replace('scale = "0..1"', 'scale = "0..255"'))
    if way == "open":  # the sides of an open model are for its user to choose
        mission.write_text(text.replace("224", "64"))
    assert planned(desk, mission)["missing"] == []


def test_a_source_whose_rows_nobody_has_named_is_no_guess(desk: Desk) -> None:
    with closing(sqlite3.connect(desk.folder / "terrain.mbtiles")) as db, db:
        db.execute("DELETE FROM metadata WHERE name IN ('bounds', 'scheme')")
    args = ("new", desk.folder / "north.toml", "--model", desk.folder / "embedder.onnx", "--imagery")
    ran = flightbag(*args, desk.folder / "terrain.mbtiles")
    assert ran.status == 2
    assert "from the south (tms) or from the north (xyz)" in ran.err
    mission = new(desk, f"tms:{desk.folder / 'terrain.mbtiles'}")
    assert '\nscheme = "tms"' in mission.read_text()
    assert planned(desk, mission)["missing"] == []


def test_a_file_of_another_kind_is_named_and_nothing_is_written(desk: Desk) -> None:
    (desk.folder / "text.onnx").write_text("no model\n")
    for imagery, model in (("terrain.mbtiles", "text.onnx"), ("camera.yaml", "embedder.onnx"), ("no", "embedder.onnx")):
        ran = flightbag(
            *("new", desk.folder / "north.toml", "--imagery", desk.folder / imagery),
            *("--model", desk.folder / model),
        )
        assert ran.status == 2, ran.err
        assert (imagery if model == "embedder.onnx" else model) in ran.err
        assert "-> " in ran.err
        assert not (desk.folder / "north.toml").exists()


def test_a_raster_that_lies_askew_has_an_area_of_whole_tiles(desk: Desk) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the extra geotiff is not installed")
    pixels = np.random.default_rng(1).integers(0, 256, (3, 900, 900), np.uint8)
    options = {"driver": "GTiff", "height": 900, "width": 900, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    place = rasterio.transform.from_origin(250_000, 5_210_000, 10, 10)  # far from the middle of its zone, so turned
    with rasterio.open(desk.folder / "ortho.tif", "w", crs="EPSG:32614", transform=place, **options) as raster:
        raster.write(pixels)
    mission = new(desk, "ortho.tif")
    plan = planned(desk, mission)
    assert (plan["missing"], plan["tiles"]) == ([], 4)


def test_paths_are_relative_to_the_mission_file_where_they_lie_beside_it(desk: Desk) -> None:
    (desk.folder / "missions").mkdir()
    (desk.folder / "missions/inner").mkdir()
    shutil.copy(desk.folder / "embedder.onnx", desk.folder / "missions/inner/net.onnx")
    mission = new(desk, model="missions/inner/net.onnx", name="missions/South Ridge.toml")
    text = mission.read_text()
    assert '\nmodel = "inner/net.onnx"' in text
    assert f'\nsource = "{desk.folder / "terrain.mbtiles"}"' in text
    assert '\nid = "south-ridge"' in text
    assert planned(desk, mission)["missing"] == []
