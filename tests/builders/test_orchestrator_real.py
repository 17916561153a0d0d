"""The main job on real imagery with a real backbone: the counts are those of the issue, found by hand."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from store.ground.repository import Repository
from tests.support.commands import flightbag, listing
from tests.support.field import Desk

AREA = (-99.175, 47.008, -99.135, 47.033)
A = (-99.180, 47.008, -99.150, 47.033)
B = (-99.165, 47.008, -99.135, 47.033)


def mission_settings(shared: Path) -> dict[str, Any]:
    """Settings of a mission file over the shared data."""
    return {
        "tiles": shared / "imagery/naip-20180716.mbtiles",
        "model": shared / "models/place-embedder.onnx",
        "name": "place-embedder",
        "resize": 256,
        "bbox": AREA,
        "zooms": (16, 17),
        "files": (),
    }


@pytest.fixture
def real(shared: Path) -> dict[str, Any]:
    return mission_settings(shared)


@pytest.fixture(scope="module")
def first(_first_desk: Desk, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a desk on which the mission `north-ridge` is built, and the report of that build."""
    folder = tmp_path_factory.mktemp("real") / "desk"
    shutil.copytree(_first_desk.folder, folder)
    desk = Desk(folder)
    return folder, desk.built(desk.write_mission("north-ridge", **mission_settings(shared)))


@pytest.fixture
def ridge(first: tuple[Path, dict[str, Any]], tmp_path: Path) -> tuple[Desk, dict[str, Any]]:
    """A desk of the test's own on which that mission is built, and the report."""
    shutil.copytree(first[0], tmp_path / "ridge")
    return Desk(tmp_path / "ridge"), first[1]


def test_the_mission_of_the_issue(ridge: tuple[Desk, dict[str, Any]], real: dict[str, Any]) -> None:
    desk, report = ridge
    mission = desk.folder / "north-ridge.toml"
    assert report["outcome"] == "built"
    assert report["coverage"] == {
        "tiles": 312,
        "described": 312,
        "missing": [],
        "by_zoom": {"16": 72, "17": 240},
        "repeated": {"tiles": 0, "pictures": 0, "most": 0, "examples": []},
        "hints": [],
    }
    assert report["rows"] == 462
    assert flightbag("sync", desk.store, desk.folder / "aircraft").status == 0
    assert desk.verify(desk.folder / "aircraft", "--aircraft", "uav-07").json["ok"] is True

    before = listing(desk.store, without=("index", "lock"))
    assert desk.built(mission)["outcome"] == "unchanged"
    assert listing(desk.store, without=("index", "lock")) == before

    ran = desk.build(desk.write_mission("north-ridge", **{**real, "zooms": (15, 16, 17)}))
    assert ran.status == 1
    missing = json.loads(ran.out)["coverage"]["missing"]
    assert len(missing) == 10
    assert {m["reason"] for m in missing} == {"absent"}
    assert all(m["tile"].startswith("15/") for m in missing)
    assert listing(desk.store, without=("index", "lock")) == before
    assert desk.verify().json["ok"] is True


def test_overlapping_missions_build_shared_things_once(desk: Desk, real: dict[str, Any]) -> None:
    first = desk.built(desk.write_mission("a", **{**real, "bbox": A, "zooms": (17,)}))
    second = desk.built(desk.write_mission("b", **{**real, "bbox": B, "zooms": (17,)}))
    assert first["coverage"]["missing"] == second["coverage"]["missing"] == []
    with Repository.open(desk.store) as repository:
        names = [{e.name for e in repository.current(m).table.entries} for m in ("a", "b")]
    both = names[0] & names[1]
    # Each area has a probe of its own.
    assert {a["name"] for a in second["artifacts"] if a["action"] == "reused"} == both - {
        "probes/place-embedder.safetensors"
    }
    assert sum(name.startswith("engines/") for name in both) == 1
    shards = sorted(name for name in both if name.startswith("descriptors/"))
    assert shards
    print("built once for both missions:", *sorted(both), sep="\n  ")


def test_both_dates_one_behind_the_other(
    ridge: tuple[Desk, dict[str, Any]], real: dict[str, Any], shared: Path
) -> None:
    """Where sources overlap the first listed wins: the second date adds nothing and changes no key."""
    desk, plain = ridge
    text = desk.write_mission("two", **real).read_text()
    extra = (
        f'[[tiles]]\nsource = "{shared / "imagery/naip-20190904.mbtiles"}"\nzooms = [16, 17]\ncaptured = 2019-09-04\n\n'
    )
    path = desk.folder / "two.toml"
    path.write_text(text.replace("[[backbones]]", extra + "[[backbones]]"))
    report = desk.built(path)
    keys = [sorted(a["key"] for a in r["artifacts"]) for r in (plain, report)]
    assert keys[0] == keys[1]


def test_tiles_may_be_a_view(ridge: tuple[Desk, dict[str, Any]], real: dict[str, Any], shared: Path) -> None:
    desk, plain = ridge
    copy = desk.folder / "view.mbtiles"
    shutil.copy(shared / "imagery/naip-20180716.mbtiles", copy)
    copy.chmod(0o644)
    with sqlite3.connect(copy) as db:
        db.execute("ALTER TABLE tiles RENAME TO stored")
        db.execute("CREATE VIEW tiles AS SELECT * FROM stored")
    db.close()
    report = desk.built(desk.write_mission("two", **{**real, "tiles": copy}))
    assert [a for a in report["artifacts"] if a["action"] == "built"] == []
    assert plain["coverage"] == report["coverage"]


def test_two_missions_half_over_each_other_then_a_shifted_polygon(
    desk: Desk, real: dict[str, Any], shared: Path
) -> None:
    """Counted by hand at zoom 17: the cells 13/1839/2880, 1839/2881, 1840/2880 and 1840/2881 have 224, 48, 84 and 18
    tiles in the source. A lies in the first two, B in all four, and so does the polygon, a diamond over the seam
    between them."""
    copy = desk.folder / "copy.mbtiles"
    shutil.copy(shared / "imagery/naip-20180716.mbtiles", copy)
    copy.chmod(0o644)
    settings = {**real, "zooms": (17,), "tiles": copy}

    def shards(report: dict[str, Any], action: str) -> int:
        named = [a for a in report["artifacts"] if a["name"].startswith("descriptors/")]
        return sum(a["action"] == action for a in named)

    a = desk.built(desk.write_mission("a", **{**settings, "bbox": A}))
    assert (shards(a, "built"), shards(a, "reused"), a["embedded"], a["rows"]) == (2, 0, 224 + 48, 272)
    b = desk.built(desk.write_mission("b", **{**settings, "bbox": B}))
    assert (shards(b, "built"), shards(b, "reused"), b["embedded"], b["rows"]) == (2, 2, 84 + 18, 374)
    diamond = [[-99.150, 47.021], [-99.1395, 47.0085], [-99.136, 47.021], [-99.141, 47.032], [-99.150, 47.021]]
    (desk.folder / "diamond.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [diamond]}))
    polygon = desk.write_mission("c", **settings, area='geojson = "diamond.geojson"', takeoff=(47.021, -99.142))
    c = desk.built(polygon)
    assert (shards(c, "built"), shards(c, "reused"), c["embedded"]) == (0, 4, 0)
    assert 0 < c["coverage"]["tiles"] < b["coverage"]["tiles"] == 180

    # One changed tile of B, in the cell 1840/2880: one shard is built, one tile embedded.
    with closing(sqlite3.connect(copy)) as db, db:
        x, y = 29442, 46090
        (other,) = db.execute("SELECT tile_data FROM tiles WHERE zoom_level = 17 LIMIT 1").fetchone()
        place = (17, x, (1 << 17) - 1 - y)
        changed = db.execute(
            "UPDATE tiles SET tile_data = ? WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?", (other, *place)
        )
        assert changed.rowcount == 1
    again = desk.built(desk.folder / "b.toml")
    assert (shards(again, "built"), shards(again, "reused"), again["embedded"]) == (1, 3, 1)


def test_an_int8_engine_that_confuses_its_own_tiles_is_not_published(ridge: tuple[Desk, dict[str, Any]]) -> None:
    """Its fidelity passes: places here have cosines of 0.9997 with each other, which no fixed cosine tells apart."""
    desk, report = ridge
    mission = desk.folder / "north-ridge.toml"
    own = {figure["name"]: figure for figure in report["figures"]}["self@1/place-embedder"]
    assert (own["value"], own["queries"]) == (10**6, 72 + 128)
    mission.write_text(mission.read_text().replace('precision = "fp32"', 'precision = "int8"'))
    ran = desk.build(mission)
    assert ran.status == 1
    figures = {figure["name"]: figure for figure in ran.json["figures"]}
    fidelity, own = (figures[f"{name}/place-embedder"] for name in ("fidelity", "self@1"))
    assert fidelity["value"] >= fidelity["least"]
    assert own["value"] < own["least"] == 950_000
    assert 'set precision = "fp32"' in ran.json["why"]
