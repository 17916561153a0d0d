"""The main job on made-up data: plan, build, reuse, refuse. Through the command line, on real LMDB and ONNX Runtime."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from builders.descriptors.shard import read_shard
from builders.example.terrain import write_terrain
from builders.grid.tiles import Tile, tile_from_id, tiles_of_bbox
from store.disk.media import Media
from store.format.manifest import age_in_days
from store.ground.repository import Repository
from tests.support.commands import flightbag, listing
from tests.support.field import LEFT, RIGHT, WORLD, ZOOMS, Desk


def actions(report: dict[str, Any], action: str) -> set[str]:
    return {a["name"] for a in report["artifacts"] if a["action"] == action}


def e7(bbox: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    west, south, east, north = (round(value * 10**7) for value in bbox)
    return west, south, east, north


def test_builds_signs_and_verifies(desk: Desk) -> None:
    report = desk.built(desk.write_mission("left"))
    assert report["outcome"] == "built"
    assert report["coverage"]["missing"] == []
    assert report["coverage"]["tiles"] == sum(len(tiles_of_bbox(e7(LEFT), zoom)) for zoom in ZOOMS)
    assert all(artifact["seconds"] is not None for artifact in report["artifacts"])
    ran = desk.verify(None, "--aircraft", "uav-07")
    assert (ran.status, ran.json["ok"]) == (0, True)
    (verdict,) = ran.json["missions"]
    # The area has few tiles: no recall is measured, and nobody takes that for a good one. What the tests write to may
    # be no medium that is known, and the verdict says so too.
    recall = "recall of the descriptor set embedder: not measured"
    assert verdict["not_judged"][:4] == ["host class", "flight", "rollback", recall]
    assert any("a recall rests on at least 20" in text for text in report["not_measured"])
    age = age_in_days(verdict["coverage"]["oldest"], verdict["judged_at"])
    assert verdict["imagery_age_days"] == age
    text = flightbag("verify", desk.store, "--trust", desk.root).words
    assert f"up to {age} days old; the mission sets no limit" in text


def test_shards_hold_whole_cells(desk: Desk) -> None:
    """Also beyond the mission's edge: every row that the source has, none of another cell."""
    report = desk.built(desk.write_mission("left"))
    required = {int(number) for zoom in ZOOMS for number in tiles_of_bbox(e7(LEFT), zoom)}
    described: set[int] = set()
    with Repository.open(desk.store) as repository:
        for entry in repository.current("left").table.entries:
            if entry.kind == "descriptors":
                shard = read_shard(bytes(repository.evidence.bytes_of(entry.id, entry.size)))
                z, x, y = (int(part) for part in entry.name.split("/")[-1].removesuffix(".safetensors").split("-"))
                tiles = [tile_from_id(int(number)) for number in shard.tiles]
                assert {Tile(t.z - 4, t.x >> 4, t.y >> 4) for t in tiles} == {Tile(z, x, y)}
                assert entry.meta == {"dim": 32, "dtype": "float16", "rows": len(tiles)}
                described |= {int(number) for number in shard.tiles}
    assert described > required
    assert report["rows"] == len(described)


def test_a_second_build_is_unchanged_and_writes_nothing(built: Desk) -> None:
    # The desk was copied, so its index is another's: this build makes it again.
    built.built(built.folder / "left.toml")
    before = listing(built.store, without=("index", "lock"))
    report = built.built(built.folder / "left.toml")
    assert report["outcome"] == "unchanged"
    assert actions(report, "built") == set()
    assert listing(built.store, without=("index", "lock")) == before


@pytest.mark.parametrize("what", ["file", "takeoff", "flight", "tile", "no file"])
def test_what_changes_is_built_again_and_nothing_else(built: Desk, what: str) -> None:
    mission = built.folder / "left.toml"
    expected: set[str] = set()
    if what == "file":
        (built.folder / "camera.yaml").write_text("fx: 712.5\n")
        expected = {"files/calibration/camera.yaml"}
    elif what == "takeoff":
        built.write_mission("left", takeoff=(47.0202, -99.1602))
    elif what == "flight":
        built.write_mission("left", flight="2026-11-24-01")
    elif what == "no file":
        built.write_mission("left", files=[])
    else:
        (built.folder / "terrain.mbtiles").unlink()
        changed = tile_from_id(int(tiles_of_bbox(e7(LEFT), 15)[0]))
        write_terrain(built.folder / "terrain.mbtiles", WORLD, ZOOMS)
        other = built.folder / "other.mbtiles"
        write_terrain(other, WORLD, ZOOMS, seed=2)
        _take_tile(other, built.folder / "terrain.mbtiles", changed)
        cell = f"{changed.z - 4}-{changed.x >> 4}-{changed.y >> 4}"
        # The probe shows the first tile of the area.
        expected = {f"descriptors/embedder/15/{cell}.safetensors", "probes/embedder.safetensors"}
    report = built.built(mission)
    assert report["outcome"] == "built"
    assert actions(report, "built") == expected
    assert built.verify().status == 0


def _take_tile(source: Path, target: Path, tile: Tile) -> None:
    import sqlite3

    with sqlite3.connect(target) as db:
        db.execute("ATTACH ? AS other", (str(source),))
        key = {"z": tile.z, "x": tile.x, "y": (1 << tile.z) - 1 - tile.y}
        db.execute(
            "UPDATE tiles SET tile_data = (SELECT tile_data FROM other.tiles WHERE zoom_level = :z AND "
            "tile_column = :x AND tile_row = :y) WHERE zoom_level = :z AND tile_column = :x AND tile_row = :y",
            key,
        )
    db.close()


def test_neighbouring_missions_share_engine_and_shards(built: Desk) -> None:
    report = built.built(built.write_mission("right", bbox=RIGHT))
    reused = actions(report, "reused")
    assert any(name.startswith("engines/") for name in reused)
    with Repository.open(built.store) as repository:
        both = [{e.name for e in repository.current(m).table.entries} for m in ("left", "right")]
        ids = [{e.id for e in repository.current(m).table.entries} for m in ("left", "right")]
    probe = {"probes/embedder.safetensors"}  # of each area its own
    assert reused == both[0] & both[1] - probe
    assert len(ids[0] & ids[1]) == len(reused)
    assert actions(report, "built") == both[1] - both[0] | probe
    assert any(name.startswith("descriptors/") for name in reused)


def test_absent_and_undecodable_tiles_fail_the_build(desk: Desk) -> None:
    """Both kinds are told at once, nothing is published, and what was published before stays."""
    good = desk.built(desk.write_mission("left"))
    tiles = [tile_from_id(int(number)) for number in tiles_of_bbox(e7(LEFT), 15)]
    (desk.folder / "terrain.mbtiles").unlink()
    write_terrain(desk.folder / "terrain.mbtiles", WORLD, ZOOMS, omit=[tiles[3]], corrupt=[tiles[5]])
    ran = desk.build(desk.folder / "left.toml")
    assert ran.status == 1
    assert ran.json["outcome"] == "failed"
    told = {(missing["tile"], missing["reason"]) for missing in ran.json["coverage"]["missing"]}
    assert told == {(str(tiles[3]), "absent"), (str(tiles[5]), "undecodable")}
    shown = flightbag("show", desk.store, "left", "--json").json
    assert shown["manifest"] == good["manifest"]
    assert desk.verify().status == 0


def test_an_undecodable_tile_fails_the_build_also_when_its_shard_is_reused(desk: Desk) -> None:
    tiles = [tile_from_id(int(number)) for number in tiles_of_bbox(e7(LEFT), 15)]
    (desk.folder / "terrain.mbtiles").unlink()
    write_terrain(desk.folder / "terrain.mbtiles", WORLD, ZOOMS, corrupt=[tiles[5]])
    mission = desk.write_mission("left")
    for _ in range(2):
        ran = desk.build(mission)
        assert ran.status == 1
        assert [m["tile"] for m in ran.json["coverage"]["missing"]] == [str(tiles[5])]
    assert flightbag("ls", desk.store, "--json").json["missions"] == []


def test_an_undecodable_tile_outside_the_area_is_left_out(desk: Desk) -> None:
    inside = {int(number) for number in tiles_of_bbox(e7(LEFT), 15)}
    cells = {(t.x >> 4, t.y >> 4) for t in map(tile_from_id, inside)}
    world = {int(number) for number in tiles_of_bbox(WORLD, 15)}
    outside = next(t for t in map(tile_from_id, sorted(world - inside)) if (t.x >> 4, t.y >> 4) in cells)
    (desk.folder / "terrain.mbtiles").unlink()
    write_terrain(desk.folder / "terrain.mbtiles", WORLD, ZOOMS, corrupt=[outside])
    report = desk.built(desk.write_mission("left"))
    assert report["coverage"]["missing"] == []
    assert desk.built(desk.folder / "left.toml")["outcome"] == "unchanged"


def test_plan_writes_nothing_and_tells_what_build_does(desk: Desk) -> None:
    mission = desk.write_mission("left")
    before = listing(desk.store)
    planned = flightbag("plan", mission, "--store", desk.store, "--json").json
    assert listing(desk.store) == before
    built = actions(desk.built(mission), "built")
    # What lies beside an engine is known when it is there.
    assert {a["name"] for a in planned["artifacts"] if not a["present"]} == {
        name for name in built if not name.startswith("cards/")
    }
    before = listing(desk.store)
    planned = flightbag("plan", mission, "--store", desk.store, "--json").json
    assert listing(desk.store) == before
    assert all(a["present"] for a in planned["artifacts"])


def test_plan_of_a_copy_knows_what_was_published_without_an_index(built: Desk) -> None:
    shutil.rmtree(built.store / "index")
    shutil.rmtree(built.store / "lock")
    before = listing(built.store)
    planned = flightbag("plan", built.folder / "left.toml", "--store", built.store, "--json").json
    assert all(a["present"] for a in planned["artifacts"])
    assert listing(built.store) == before


def test_a_damaged_artifact_is_built_again(built: Desk) -> None:
    """Insert heals: the bad copy goes to quarantine, the mission flies again."""
    with Repository.open(built.store) as repository:
        entry = next(e for e in repository.current("left").table.entries if e.kind == "descriptors")
    path = built.store / "objects" / str(entry.id)[:2] / str(entry.id)[2:]
    path.chmod(0o644)
    path.write_bytes(b"\0" * entry.size)
    assert built.verify().status == 1
    report = built.built(built.folder / "left.toml")
    assert actions(report, "built") == {entry.name}
    assert built.verify().status == 0
    (kept,) = [p for p in (built.store / "quarantine").rglob("*") if p.is_file()]
    assert kept.name == str(entry.id)


KILLED = """
import os, signal, sys
from builders import confinement
from store.disk.staging import Staging
from tests.support.here import run_here
from tools.start import main

confinement.run_confined = run_here

begun, folder, after = set(), Staging.folder, int(sys.argv.pop(1))

def killing(self):
    path = folder(self)
    begun.add(path)
    if len(begun) == after:
        os.killpg(0, signal.SIGKILL)
    return path

Staging.folder = killing
main()
"""


@pytest.mark.parametrize("staged", [1, 2, 4])
def test_a_killed_build_is_finished_by_the_next(desk: Desk, staged: int) -> None:
    """The program and its workers are killed when its `staged`th transaction has begun: in the middle of the work."""
    mission = desk.write_mission("left")
    arguments = ("build", mission, "--store", desk.store, "--key", desk.key)
    build = subprocess.run(
        [sys.executable, "-c", KILLED, str(staged), *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
    )
    assert build.returncode == -signal.SIGKILL
    assert (desk.store / "tmp").is_dir()
    assert flightbag("ls", desk.store, "--json").json["missions"] == [], "it was killed before it could publish"
    assert desk.built(mission)["outcome"] == "built"
    assert desk.verify().status == 0
    with Media(desk.store) as media:
        assert media.names_if_there("tmp") == []


def test_finished_shards_of_a_failed_build_are_used_by_the_next(desk: Desk) -> None:
    """The bad tile fails the coverage; every other cell's shard is there already when the tile is mended."""
    bad = tile_from_id(int(tiles_of_bbox(e7(LEFT), 15)[5]))
    (desk.folder / "terrain.mbtiles").unlink()
    write_terrain(desk.folder / "terrain.mbtiles", WORLD, ZOOMS, corrupt=[bad])
    mission = desk.write_mission("left")
    assert desk.build(mission).status == 1
    (desk.folder / "terrain.mbtiles").unlink()
    write_terrain(desk.folder / "terrain.mbtiles", WORLD, ZOOMS)
    report = desk.built(mission)
    cell = f"{bad.z - 4}-{bad.x >> 4}-{bad.y >> 4}"
    assert f"descriptors/embedder/15/{cell}.safetensors" in actions(report, "built")
    assert {n for n in actions(report, "built") if n.startswith("descriptors/")} == {
        f"descriptors/embedder/15/{cell}.safetensors"
    }
    assert any(name.startswith("engines/") for name in actions(report, "reused"))


def test_a_build_of_the_same_mission_is_locked_out(desk: Desk) -> None:
    from store.disk.durable import Disk
    from store.disk.locks import exclusive

    mission = desk.write_mission("left")
    with exclusive(str(desk.store), Disk(), "mission-left", "the build of mission left"):
        ran = desk.build(mission)
    assert ran.status == 3
    assert ran.json["error"]["kind"] == "locked"
    assert ran.json["error"]["pid"] == os.getpid()
    assert desk.build(mission).status == 0


def test_a_key_outside_the_role_is_refused_before_anything_is_written(desk: Desk) -> None:
    mission = desk.write_mission("left")
    before = listing(desk.store)
    ran = flightbag("build", mission, "--store", desk.store, "--key", desk.folder / "owner.key", "--json")
    assert ran.status == 1
    assert ran.json["error"]["kind"] == "unknown-signer"
    assert listing(desk.store) == before


def test_a_fixed_batch_of_one_and_another_input_size(desk: Desk) -> None:
    from builders.example.backbone import write_backbone

    write_backbone(desk.folder / "single.onnx", size=96, batch=1)
    report = desk.built(desk.write_mission("left", model=Path("single.onnx"), resize=96, batch=1, dtype="float32"))
    assert report["outcome"] == "built"
    assert desk.verify().status == 0


def test_two_builds_at_different_places_give_the_same_objects(desk: Desk, tmp_path: Path) -> None:
    """Engines and shards are reproducible: nothing of the place or time is in them."""
    other = Desk(tmp_path / "elsewhere")
    shutil.copytree(desk.folder, other.folder)
    reports = [d.built(d.write_mission("left")) for d in (desk, other)]
    # A card says how long it took.
    ids = [
        [(a["name"], a["id"]) for a in report["artifacts"] if not a["name"].startswith("cards/")] for report in reports
    ]
    assert ids[0] == ids[1]


def test_weights_in_a_side_file_are_part_of_the_model(desk: Desk) -> None:
    """It builds, with the weights drawn into the engine; one changed bit of a weight builds everything again."""
    import onnx

    folder = desk.folder / "sharded"
    folder.mkdir()
    model = onnx.load(desk.folder / "embedder.onnx")
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert desk.built(desk.write_mission("side", model=Path("sharded/m.onnx")))["outcome"] == "built"
    assert desk.built(desk.folder / "side.toml")["outcome"] == "unchanged"
    weights = bytearray((folder / "weights.bin").read_bytes())
    weights[5] ^= 1
    (folder / "weights.bin").write_bytes(weights)
    again = desk.built(desk.folder / "side.toml")
    assert {a["action"] for a in again["artifacts"] if a["key"]} == {"built"}
