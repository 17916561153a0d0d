"""Building the map of a mission: what counts as missing and why, what is embedded again, what is measured before it is
signed, and what the commands say of it afterwards."""

from __future__ import annotations

import gzip
import io
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders.descriptors.embed import Embedder
from builders.descriptors.shard import read_shard
from builders.grid.tiles import Tile, tile_from_id, tile_id, tiles_of_bbox
from builders.imagery.inventory import TileSources
from store.disk.media import object_path
from store.format.ids import ObjectId
from store.format.missing import MissingList
from store.ground.repository import Repository
from tests.support.commands import Ran, flightbag
from tests.support.field import LEFT, RIGHT, Desk
from tests.support.frames import frame_over, metres_of_tile

QUALITY = "[quality]\nrecall_at_1 = 0.5\nrecall_at_5 = 0.6\n"
# Enough views to measure a recall.
MANY = (-99.185, 46.998, -99.125, 47.04)
BOX = tuple(round(degrees * 10**7) for degrees in LEFT)


def area_tiles(zoom: int) -> list[Tile]:
    return [tile_from_id(n) for n in tiles_of_bbox((BOX[0], BOX[1], BOX[2], BOX[3]), zoom).tolist()]


def set_tile(path: Path, tile: Tile, data: bytes | None) -> None:
    """Replaces a tile of an MBTiles file, or takes it away."""
    place = (tile.z, tile.x, (1 << tile.z) - 1 - tile.y)
    where = "zoom_level = ? AND tile_column = ? AND tile_row = ?"
    with closing(sqlite3.connect(path)) as db, db:
        if data is None:
            db.execute(f"DELETE FROM tiles WHERE {where}", place)
        else:
            db.execute(f"UPDATE tiles SET tile_data = ? WHERE {where}", (data, *place))


def picture(size: int, colour: int | None = None) -> bytes:
    """A JPEG of some size, of one colour or of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    if colour is not None:
        pixels[:] = colour
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def tile_bytes(path: Path, tile: Tile) -> bytes:
    with closing(sqlite3.connect(path)) as db:
        row = db.execute(
            "SELECT tile_data FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?",
            (tile.z, tile.x, (1 << tile.z) - 1 - tile.y),
        ).fetchone()
    return bytes(row[0])


def reasons(ran: Ran) -> dict[str, str]:
    return {one["tile"]: one["reason"] for one in ran.json["coverage"]["missing"]}


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many views each job of an embedder had, as they come."""
    counts: list[int] = []
    real = Embedder.embed

    def counting(self: Embedder, jobs: Any, *args: Any, **kwargs: Any) -> Any:
        def each() -> Iterator[Any]:
            for job in jobs:
                counts.append(len(job.origins))
                yield job

        return real(self, each(), *args, **kwargs)

    monkeypatch.setattr(Embedder, "embed", counting)
    return counts


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Tile]:
    """Which cells were read."""
    seen: list[Tile] = []
    real = TileSources.cell

    def counting(self: TileSources, cell: Tile, zoom: int) -> Any:
        seen.append(cell)
        return real(self, cell, zoom)

    monkeypatch.setattr(TileSources, "cell", counting)
    return seen


# What is missing, and why


@pytest.fixture
def holed(desk: Desk) -> dict[str, str]:
    """A desk whose terrain lacks a tile for each reason that the bytes of tiles give: z/x/y -> reason."""
    tiles = area_tiles(15)
    spoilt: dict[str, tuple[Tile, bytes | None]] = {
        "absent": (tiles[0], None),
        "undecodable": (tiles[2], tile_bytes(desk.folder / "terrain.mbtiles", tiles[2])[:200]),
        "wrong-size": (tiles[4], picture(128)),
        "blank": (tiles[5], picture(256, 90)),
    }
    for tile, data in spoilt.values():
        set_tile(desk.folder / "terrain.mbtiles", tile, data)
    return {str(tile): reason for reason, (tile, _) in spoilt.items()}


def test_every_missing_tile_has_its_reason_and_nothing_is_published(desk: Desk, holed: dict[str, str]) -> None:
    ran = desk.build(desk.write_mission("left"))
    assert ran.status == 1
    assert reasons(ran) == holed
    assert ran.json["outcome"] == "failed"
    assert not (desk.store / "missions/left").exists()


def test_at_least_publishes_a_signed_list(desk: Desk, holed: dict[str, str]) -> None:
    total = sum(len(area_tiles(zoom)) for zoom in (14, 15))
    enough = (total - len(holed)) * 10**6 // total / 10**6
    ran = desk.build(desk.write_mission("left", more=f"[coverage]\nat_least = {enough + 0.000002:.6f}"))
    assert ran.status == 1, "one tile in a million too few"
    mission = desk.write_mission("left", more=f"[coverage]\nat_least = {enough:.6f}")
    report = desk.built(mission)
    assert {one["tile"]: one["reason"] for one in report["coverage"]["missing"]} == holed
    assert desk.verify().json["ok"] is True
    with Repository.open(desk.store) as repository:
        opened = repository.current("left")
        entry = opened.table.find("coverage/missing.cbor")
        assert entry is not None
        listed = MissingList.parse(bytes(repository.evidence.bytes_of(entry.id, entry.size)))
    assert listed.total == opened.manifest.coverage.missing == len(holed)
    assert {str(tile_from_id(run.first + i)): run.reason for run in listed.runs for i in range(run.tiles)} == holed
    assert desk.built(mission)["outcome"] == "unchanged"
    shown = flightbag("show", desk.store, "left")
    assert "1 blank" in shown.out
    assert f"at least {enough:g}" in shown.out
    # A tile that comes good makes another mission.
    absent = next(tile for tile, reason in holed.items() if reason == "blank")
    z, x, y = map(int, absent.split("/"))
    set_tile(desk.folder / "terrain.mbtiles", Tile(z, x, y), picture(256))
    again = desk.built(mission)
    assert again["outcome"] == "built"
    assert len(again["coverage"]["missing"]) == len(holed) - 1


def test_a_bad_tile_beyond_the_area_is_left_out(desk: Desk) -> None:
    inside = set(area_tiles(15))
    cell = {(t.x >> 4, t.y >> 4) for t in inside}
    with closing(sqlite3.connect(desk.folder / "terrain.mbtiles")) as db:
        rows = db.execute("SELECT tile_column, tile_row FROM tiles WHERE zoom_level = 15").fetchall()
    tiles = [Tile(15, x, (1 << 15) - 1 - row) for x, row in rows]
    outside = next(t for t in tiles if t not in inside and (t.x >> 4, t.y >> 4) in cell)
    set_tile(desk.folder / "terrain.mbtiles", outside, b"no image")
    report = desk.built(desk.write_mission("left"))
    assert report["coverage"]["missing"] == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("[freshness]\nmax_age_days = 30", "too-old"),
        ("[coverage]\nmin_resolution_m = 3", "too-coarse"),
    ],
)
def test_too_old_and_too_coarse_are_reasons_like_any_other(desk: Desk, more: str, reason: str) -> None:
    ran = desk.build(desk.write_mission("left", more=more))
    assert ran.status == 1
    # 47 degrees north: 6.5 m a pixel at zoom 14, 3.3 m at zoom 15.
    assert set(reasons(ran).values()) == {reason}
    assert len(reasons(ran)) == sum(len(area_tiles(zoom)) for zoom in (14, 15))


def test_resolution_and_age_that_suffice_are_signed(desk: Desk) -> None:
    days = (int(time.time()) - 1531699200) // 86400 + 1
    more = f"[freshness]\nmax_age_days = {days}\n[coverage]\nmin_resolution_m = 6.6"
    desk.built(desk.write_mission("left", more=more))
    with Repository.open(desk.store) as repository:
        coverage = repository.current("left").manifest.coverage
    assert (coverage.max_age_days, coverage.min_resolution_mm) == (days, 6600)
    # The imagery itself is coarser than its tiles.
    ran = desk.build(desk.write_mission("left", more=more, of_tiles="resolution_m = 7"))
    assert set(reasons(ran).values()) == {"too-coarse"}


def test_ages_are_said_where_none_is_enforced(desk: Desk) -> None:
    desk.built(desk.write_mission("left", sector="active_conflict"))
    limits = "; the mission sets no limit, customary for active_conflict are 183 days"
    assert f"days old when issued{limits}" in flightbag("show", desk.store, "left").out
    assert f"days old{limits}" in flightbag("verify", desk.store, "left", "--trust", desk.root).words


def test_a_zoom_that_no_source_has_is_said_so(desk: Desk) -> None:
    with closing(sqlite3.connect(desk.folder / "terrain.mbtiles")) as db, db:
        db.execute("UPDATE metadata SET value = '14' WHERE name = 'maxzoom'")
    ran = desk.build(desk.write_mission("left", zooms=(14, 16)))
    assert ran.status == 1
    assert set(reasons(ran).values()) == {"outside-zooms"}


def test_footprints_date_the_tiles(desk: Desk) -> None:
    west, _, east, _ = LEFT
    middle = (west + east) / 2
    rings = {
        "2024-05-01T10:00:00Z": (west - 1, middle),
        "2010-05-01T10:00:00Z": (middle, east + 1),
    }
    features = [
        {
            "type": "Feature",
            "properties": {"datetime": date},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[a, 40], [b, 40], [b, 50], [a, 50], [a, 40]]],
            },
        }
        for date, (a, b) in rings.items()
    ]
    (desk.folder / "seams.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    days = (int(time.time()) - 1714521600) // 86400 + 1
    more = f"[freshness]\nmax_age_days = {days}\n[coverage]\nat_least = 0.1"
    report = desk.built(desk.write_mission("left", more=more, of_tiles='footprints = "seams.geojson"'))
    old = {one["tile"] for one in report["coverage"]["missing"]}
    assert {one["reason"] for one in report["coverage"]["missing"]} == {"too-old"}
    # A tile on the seam is as old as its older half.
    eastern = {str(t) for z in (14, 15) for t in area_tiles(z) if (t.x + 1) / (1 << z) * 360 - 180 > middle}
    assert old == eastern
    with Repository.open(desk.store) as repository:
        assert repository.current("left").manifest.coverage.oldest == 1714521600


# Areas


def test_a_polygon_and_a_corridor_fly(desk: Desk) -> None:
    west, south, east, north = LEFT
    ring = [[west, south], [east, south], [east, north], [west, south]]
    (desk.folder / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    triangle = desk.built(desk.write_mission("left", area='geojson = "area.geojson"', takeoff=(47.0101, -99.1602)))
    box = desk.built(desk.write_mission("box"))
    assert 0 < triangle["coverage"]["tiles"] < box["coverage"]["tiles"]
    line = {"type": "LineString", "coordinates": [[-99.175, 47.0201], [-99.150, 47.0201]]}
    (desk.folder / "route.geojson").write_text(json.dumps(line))
    corridor = desk.built(desk.write_mission("route", area='corridor = "route.geojson", width_m = 400'))
    assert 0 < corridor["coverage"]["tiles"] < box["coverage"]["tiles"]
    for mission in ("left", "box", "route"):
        ran = flightbag("verify", desk.store, mission, "--trust", desk.root, "--tiles", desk.folder / "terrain.mbtiles")
        assert ran.status == 0, ran.out
    away = desk.build(desk.write_mission("left", area='geojson = "area.geojson"', takeoff=(47.0299, -99.1799)))
    assert away.status == 2
    assert "must be inside mission.area" in away.err + away.out


# What is read and embedded again


def older(desk: Desk) -> None:
    """The sources are of a minute ago."""
    then = time.time() - 60
    os.utime(desk.folder / "terrain.mbtiles", (then, then))


def wait_until_cold(desk: Desk) -> None:
    """A file's time of change cannot be set: what was just written is believed after two seconds."""
    changed = (desk.folder / "terrain.mbtiles").stat().st_ctime
    time.sleep(max(0.0, changed + 2.1 - time.time()))


def test_an_unchanged_build_reads_no_tile(desk: Desk, reads: list[Tile]) -> None:
    mission = desk.write_mission("left")
    wait_until_cold(desk)
    desk.built(mission)
    reads.clear()
    assert desk.built(mission)["outcome"] == "unchanged"
    assert reads == []
    ran = desk.build(mission, "--no-stat-cache")
    assert ran.json["outcome"] == "unchanged"
    assert reads


def test_a_source_as_new_as_its_entry_is_read_again(desk: Desk, reads: list[Tile]) -> None:
    mission = desk.write_mission("left")
    set_tile(desk.folder / "terrain.mbtiles", area_tiles(14)[0], picture(256))
    desk.built(mission)
    reads.clear()
    assert desk.built(mission)["outcome"] == "unchanged"
    assert reads


def test_a_change_behind_the_same_time_and_size_is_seen(desk: Desk) -> None:
    mission = desk.write_mission("left")
    path = desk.folder / "terrain.mbtiles"
    wait_until_cold(desk)
    desk.built(mission)
    before = path.stat()
    first = area_tiles(15)[0]
    data = bytearray(tile_bytes(path, first))
    data[-100] ^= 1
    set_tile(path, first, bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert desk.built(mission)["outcome"] == "built"


def test_what_is_published_was_read(desk: Desk, reads: list[Tile]) -> None:
    """Only the verdict that nothing has to be done rests on the cache."""
    wait_until_cold(desk)
    desk.built(desk.write_mission("left"))
    reads.clear()
    assert desk.built(desk.write_mission("left", flight="2026-11-24-01"))["outcome"] == "built"
    assert reads


def test_one_changed_tile_embeds_one_tile(desk: Desk, embedded: list[int]) -> None:
    mission = desk.write_mission("left")
    first = desk.built(mission)
    assert first["embedded"] == first["rows"] == sum(embedded)
    embedded.clear()
    changed = area_tiles(15)[3]
    set_tile(desk.folder / "terrain.mbtiles", changed, picture(256))
    report = desk.built(mission)
    assert (report["embedded"], report["rows"]) == (1, first["rows"])
    assert [count for count in embedded if count] == [1]
    # The row is that of the new tile, the others are those of before.
    rows = {}
    with Repository.open(desk.store) as repository:
        for entry in repository.current("left").table.entries:
            if entry.kind == "descriptors":
                shard = read_shard(bytes(repository.evidence.bytes_of(entry.id, entry.size)))
                rows |= {int(n): row.tobytes() for n, row in zip(shard.tiles, shard.descriptors, strict=True)}
    whole = desk.folder / "whole"
    assert flightbag("init", whole).status == 0
    assert len(rows) == first["rows"]
    assert tile_id(changed) in rows


def test_a_damaged_row_cache_costs_time_alone(desk: Desk, embedded: list[int]) -> None:
    mission = desk.write_mission("left")
    rows = desk.built(mission)["rows"]
    for path in (Path(os.environ["XDG_CACHE_HOME"]) / "flightbag/rows").rglob("*.rows"):
        data = bytearray(path.read_bytes())
        data[-40] ^= 1
        path.write_bytes(data)
    embedded.clear()
    set_tile(desk.folder / "terrain.mbtiles", area_tiles(15)[3], picture(256))
    report = desk.built(mission)
    assert 1 < report["embedded"] < rows
    assert desk.verify().status == 0


def test_ctrl_c_keeps_what_was_finished(desk: Desk, monkeypatch: pytest.MonkeyPatch, embedded: list[int]) -> None:
    mission = desk.write_mission("left")
    real, done = Embedder.embed, []

    def stopping(self: Embedder, *args: Any, **kwargs: Any) -> Any:
        for result in real(self, *args, **kwargs):
            if done:
                raise KeyboardInterrupt
            done.append(result)
            yield result

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed", stopping)
        ran = desk.build(mission)
    assert ran.status not in (0, 1)
    assert not (desk.store / "missions/left").exists()
    assert flightbag("fsck", desk.store, "--full").status == 0
    report = desk.built(mission)
    assert report["embedded"] == report["rows"] - len(done[0].tile_ids)


# Views


@pytest.mark.parametrize("view", ["{ tiles = 2, stride = 1 }", "{ metres = 1700, overlap = 0.5 }"])
def test_views_are_shared_by_missions(desk: Desk, view: str) -> None:
    settings = {"of_set": f"view = {view}", "zooms": (15,)}
    left = desk.built(desk.write_mission("left", **settings))
    right = desk.built(desk.write_mission("right", bbox=RIGHT, **settings))
    shards = [{a["name"]: a["id"] for a in r["artifacts"] if a["name"].startswith("desc")} for r in (left, right)]
    both = shards[0].keys() & shards[1].keys()
    assert both
    assert all(shards[0][name] == shards[1][name] for name in both)
    assert desk.verify(None, "--tiles", desk.folder / "terrain.mbtiles").json["ok"] is True
    with Repository.open(desk.store) as repository:
        entry = next(e for e in repository.current("left").table.entries if e.kind == "descriptors")
        shard = read_shard(bytes(repository.evidence.bytes_of(entry.id, entry.size)))
    assert json.loads(shard.metadata["view"]) in ([2, 1], [2, 1])


def test_a_changed_neighbour_rebuilds_the_views_that_show_it(desk: Desk, embedded: list[int]) -> None:
    """The halo of a cell is in its key, and only the views that show the changed tile are described again."""
    mission = desk.write_mission("left", of_set="view = { tiles = 2, stride = 1 }", zooms=(15,))
    desk.built(mission)
    changed = area_tiles(15)[3]
    set_tile(desk.folder / "terrain.mbtiles", changed, picture(256))
    embedded.clear()
    report = desk.built(mission)
    assert report["embedded"] == 4


# What is measured before it is signed


def test_the_gate_measures_and_signs(desk: Desk) -> None:
    mission = desk.write_mission("left", bbox=MANY, more=QUALITY)
    report = desk.built(mission)
    names = {figure["name"] for figure in report["figures"]}
    kinds = ("recall@1", "recall@5", "sampled@1", "untrained@1")
    ways = ("brightness", "rotation", "scale", "shift")
    recalls = {f"{kind}/embedder/{way}" for kind in kinds for way in ways}
    assert names == {"fidelity/embedder", "self@1/embedder"} | recalls
    assert all(figure["value"] >= figure["least"] for figure in report["figures"])
    assert report["not_measured"] == []
    for figure in report["figures"]:
        if figure["name"].startswith(("fidelity", "self")):
            assert figure["chance"] is None
        else:
            assert figure["queries"] >= 20
            assert 0 < figure["chance"] < 10**6
    with Repository.open(desk.store) as repository:
        signed = repository.current("left").manifest.quality
    assert {(f.name, f.value, f.least, f.queries) for f in signed} == {
        (f["name"], f["value"], f["least"], f["queries"]) for f in report["figures"]
    }
    again = desk.built(mission)
    assert again["outcome"] == "unchanged"
    assert [(f["name"], f["value"]) for f in again["figures"]] == [(f["name"], f["value"]) for f in report["figures"]]
    tiles = desk.folder / "terrain.mbtiles"
    ran = flightbag("quality", desk.store, "left", "--trust", desk.root, "--tiles", tiles, "--json")
    assert ran.status == 0, ran.out + ran.err
    measured = {one["name"]: one for one in ran.json["figures"]}
    for figure in signed:
        if figure.name.startswith(("recall", "sampled", "self")):
            assert measured[figure.name]["value"] == figure.value
            assert measured[figure.name]["queries"] == figure.queries
            assert measured[figure.name]["same_recipe"] is True
    # Another sample is another measurement, and says so.
    other = ("quality", desk.store, "left", "--trust", desk.root, "--tiles", tiles, "--sample", "3")
    assert flightbag(*other).status == 3
    text = flightbag("show", desk.store, "left").out
    assert "engine equals map/embedder" in text
    assert "untrained" in text
    assert "cannot see that it is mirrored or shifted" in text
    verdict = desk.verify().json["missions"][0]
    assert not [text for text in verdict["not_judged"] if "recall" in text]


def test_recall_is_measured_where_nobody_asks_for_it(desk: Desk) -> None:
    report = desk.built(desk.write_mission("left", bbox=MANY, zooms=(15,)))
    assert {one["least"] for one in report["figures"] if one["name"].startswith("recall")} == {0}
    assert "recall     embedder" in flightbag("verify", desk.store, "left", "--trust", desk.root).out
    # A mission that is asked with nothing is another one, and its recall is not judged.
    silent = desk.write_mission("left", bbox=MANY, zooms=(15,), more="[quality]\nsample = 0\n")
    report = desk.built(silent)
    assert report["outcome"] == "built"
    assert [one["name"] for one in report["figures"]] == ["fidelity/embedder", "self@1/embedder"]
    assert report["not_measured"] == ["recall of the descriptor set embedder: [quality] sample is 0"]
    assert "recall of the descriptor set embedder: not measured" in desk.verify().json["missions"][0]["not_judged"]
    assert desk.built(silent)["outcome"] == "unchanged"


def test_a_bound_on_a_recall_that_rests_on_few_queries_fails(desk: Desk) -> None:
    ran = desk.build(desk.write_mission("left", more=QUALITY))
    assert ran.status == 1
    error = ran.json["error"]
    assert (error["kind"], "make the area or the sample larger" in error["remedy"]) == ("not-measured", True)
    assert not (desk.store / "missions/left").exists()
    # A bound of 0 is none.
    report = desk.built(desk.write_mission("left", more="[quality]\nrecall_at_1 = 0\n"))
    assert [one["name"] for one in report["figures"]] == ["fidelity/embedder", "self@1/embedder"]


def test_bad_tiles_too_leave_few_queries(desk: Desk) -> None:
    """Sea beside the area: the sources have it, and only decoding shows that nothing can be asked with it."""
    mission = desk.write_mission("left", bbox=MANY, zooms=(15,), more="[coverage]\nat_least = 0.1\n")
    rim = [tile for tile in area_tiles(15) if tile.x % 2]
    for number, tile in enumerate(rim):
        set_tile(desk.folder / "terrain.mbtiles", tile, picture(256, 90 + number))
    report = desk.built(mission)
    assert [one["name"] for one in report["figures"]] == ["fidelity/embedder", "self@1/embedder"]
    assert len(report["not_measured"]) == 16
    assert desk.built(mission)["outcome"] == "unchanged"
    assert "recall of the descriptor set embedder: not measured" in desk.verify().json["missions"][0]["not_judged"]


def test_below_the_gate_nothing_is_published(desk: Desk) -> None:
    desk.built(desk.write_mission("left"))
    before = (desk.store / "missions/left").read_text()
    # Two places that look alike, of different bytes: the map answers with the first of them.
    terrain = desk.folder / "terrain.mbtiles"
    one, other = area_tiles(15)[4:6]
    pixels = Image.open(io.BytesIO(tile_bytes(terrain, one)))
    for tile, level in ((one, 1), (other, 9)):
        file = io.BytesIO()
        pixels.save(file, "PNG", compress_level=level)
        set_tile(terrain, tile, file.getvalue())
    ran = desk.build(desk.write_mission("left", bbox=MANY, more="[quality]\nrecall_at_1 = 1\nrecall_at_5 = 1\n"))
    assert ran.status == 1
    assert "at least 1 is required" in ran.json["why"]
    assert ran.json["figures"]
    assert (desk.store / "missions/left").read_text() == before


def test_other_imagery_is_asked_with(desk: Desk) -> None:
    """All but the same imagery is found again; that of another place never; and the same itself asks nothing."""
    from builders.example.terrain import write_terrain
    from tests.support.field import WORLD

    write_terrain(desk.folder / "same.mbtiles", WORLD, (14, 15))
    mission = desk.write_mission(
        "left",
        bbox=MANY,
        more=QUALITY + 'against = "same.mbtiles"\nagainst_recall_at_1 = 0\nagainst_recall_at_5 = 0\n',
    )
    ran = desk.build(mission)
    assert ran.status == 2
    assert "the same tiles" in ran.err
    set_tile(desk.folder / "same.mbtiles", area_tiles(14)[0], None)
    write_terrain(desk.folder / "other.mbtiles", WORLD, (14, 15), seed=9)
    keys = "against_recall_at_1 = {0}\nagainst_recall_at_5 = {0}\n"
    same = desk.built(
        desk.write_mission("left", bbox=MANY, more=QUALITY + 'against = "same.mbtiles"\n' + keys.format(1))
    )
    figures = {f["name"]: f["value"] for f in same["figures"]}
    assert figures["recall@1/embedder/against"] == 10**6
    # Measured again without the other imagery, or with another, the figure is not known to hold.
    command = (
        "quality",
        desk.store,
        "left",
        "--trust",
        desk.root,
        "--tiles",
        desk.folder / "terrain.mbtiles",
        "--json",
    )
    whole = flightbag(*command, "--against", desk.folder / "same.mbtiles")
    assert whole.status == 0, whole.out + whole.err
    without = flightbag(*command)
    assert without.status == 3
    assert [one["name"] for one in without.json["figures"] if one["value"] is None] == [
        f"recall@{k}/embedder/against" for k in (1, 5)
    ]
    set_tile(desk.folder / "same.mbtiles", area_tiles(14)[1], None)
    assert flightbag(*command, "--against", desk.folder / "same.mbtiles").status == 3
    assert flightbag(*command, "--against", desk.folder / "other.mbtiles").status == 1
    ran = desk.build(
        desk.write_mission("left", bbox=MANY, more=QUALITY + 'against = "other.mbtiles"\n' + keys.format(0.9))
    )
    assert ran.status == 1
    assert "recall@1/embedder/against" in ran.json["why"]


def test_probe_repeats_the_fidelity(desk: Desk) -> None:
    report = desk.built(desk.write_mission("left"))
    ran = flightbag("probe", desk.store, "left", "--trust", desk.root, "--json")
    assert ran.status == 0, ran.out + ran.err
    (one,) = ran.json["figures"]
    assert one["name"] == "fidelity/embedder"
    assert one["value"] == next(f["value"] for f in report["figures"] if f["name"] == one["name"])
    assert one["value"] >= 999_000


def test_query_finds_the_tile_it_is_asked_with(desk: Desk) -> None:
    desk.built(desk.write_mission("left"))
    tile = area_tiles(15)[4]
    (desk.folder / "frame.jpg").write_bytes(tile_bytes(desk.folder / "terrain.mbtiles", tile))
    command = ("query", desk.store, "left", desk.folder / "frame.jpg", "--trust", desk.root, "--json")
    ran = flightbag(*command, "--top", 3)
    assert ran.status == 0, ran.out + ran.err
    best = ran.json["matches"][0]
    assert best["tile"] == str(tile)
    assert best["score"] > 0.99
    assert len(ran.json["matches"]) == 3
    side = 1 << tile.z
    assert best["corner"][1] == pytest.approx(tile.x / side * 360 - 180)
    assert best["centre"][1] == pytest.approx((tile.x + 0.5) / side * 360 - 180)
    assert best["centre"][0] < best["corner"][0]
    assert {one["tile"].split("/")[0] for one in flightbag(*command, "--zoom", 14).json["matches"]} == {"14"}
    assert flightbag(*command, "--zoom", 9).status == 1
    assert flightbag(*command, "--index", "fast").status == 1


def test_query_finds_a_frame_by_what_is_known_of_the_camera_and_says_what_it_assumes(desk: Desk) -> None:
    desk.built(desk.write_mission("left"))
    tile = area_tiles(15)[4]
    metres = metres_of_tile(tile)
    frame = Image.fromarray(frame_over(tile, scale=1.7, heading=37, size=(640, 600)))
    exif = Image.Exif()
    exif[0x0112] = 6  # the file is lying on its side
    frame.transpose(Image.Transpose.ROTATE_90).save(desk.folder / "frame.jpg", quality=95, exif=exif)
    command = ("query", desk.store, "left", desk.folder / "frame.jpg", "--trust", desk.root)
    known = ("--metres", 1.7 * metres, "--heading", 37)
    ran = flightbag(*command, *known, "--json")
    assert ran.status == 0, ran.out + ran.err
    assert ran.json["matches"][0]["tile"] == str(tile)
    assert [ground["zoom"] for ground in ran.json["left_out"]] == [14]
    height = 1.7 * metres / 2
    assert flightbag(*command, "--height", height, "--fov", 90, "--heading", 37, "--json").json == ran.json
    people = flightbag(*command)
    assert "assumed: the shorter side of the frame shows as much ground as a row of the map" in people.out
    assert "assumed: the top of the frame is north" in people.out
    assert flightbag(*command, "--json").json["matches"][0]["tile"] != str(tile)
    assert "not searched: zoom 14" in flightbag(*command, *known).out
    for wrong in (
        ("--heading", 37), ("--height", 100), ("--fov", 90), ("--metres", 9, "--height", 100, "--fov", 90),
        ("--metres", -1), ("--metres", "nan"), (*known, "--zoom", 14), ("--metres", 100),
    ):  # fmt: skip
        ran = flightbag(*command, *wrong)
        assert ran.status == 2, wrong
        assert ran.err


def test_nothing_is_asked_of_a_mission_that_is_no_go(desk: Desk) -> None:
    report = desk.built(desk.write_mission("left"))
    shard = next(a for a in report["artifacts"] if a["name"].startswith("descriptors/"))
    path = desk.store / object_path(ObjectId.parse(shard["id"]))
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    (desk.folder / "frame.jpg").write_bytes(picture(256))
    for command in (
        ("query", desk.store, "left", desk.folder / "frame.jpg"),
        ("probe", desk.store, "left"),
        ("quality", desk.store, "left", "--tiles", desk.folder / "terrain.mbtiles"),
    ):
        ran = flightbag(*command, "--trust", desk.root)
        assert ran.status == 1
        assert "NO-GO" in ran.out


def test_a_missing_tile_is_never_an_answer(desk: Desk) -> None:
    """A tile that is too old for the mission has a row in its shard, and the map does not answer with it."""
    mission = desk.write_mission("left", more="[coverage]\nat_least = 0.1")
    tile = area_tiles(15)[4]
    west = (tile.x + 0.2) / (1 << 15) * 360 - 180
    (desk.folder / "frame.jpg").write_bytes(tile_bytes(desk.folder / "terrain.mbtiles", tile))
    ring = [[west, 40], [west + 0.001, 40], [west + 0.001, 50], [west, 50], [west, 40]]
    feature = {
        "type": "Feature",
        "properties": {"datetime": "2001-01-01"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    (desk.folder / "old.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    days = (int(time.time()) - 1531699200) // 86400 + 1
    more = f"[freshness]\nmax_age_days = {days}\n[coverage]\nat_least = 0.1"
    mission = desk.write_mission("left", more=more, of_tiles='footprints = "old.geojson"', zooms=(15,))
    report = desk.built(mission)
    old = {one["tile"] for one in report["coverage"]["missing"]}
    assert str(tile) in old
    ran = flightbag("query", desk.store, "left", desk.folder / "frame.jpg", "--trust", desk.root, "--json", "--top", 99)
    assert not {one["tile"] for one in ran.json["matches"]} & old
    assert len(ran.json["matches"]) == report["coverage"]["described"]


# Two builds


def test_two_builds_give_the_same_objects(desk: Desk) -> None:
    """Shards, probe and list are the same bytes in two stores; the stock reader opens each shard."""
    import safetensors.numpy

    more = "[coverage]\nat_least = 0.5"
    set_tile(desk.folder / "terrain.mbtiles", area_tiles(15)[0], None)
    other = Desk(desk.folder / "second")
    other.folder.mkdir()
    ids = []
    for store in (desk.store, desk.folder / "again"):
        if store != desk.store:
            assert flightbag("init", store).status == 0
            for args in (
                ("trust", "new", store, "--domain", "again", "--root-key", desk.folder / "owner.key",
                 "--mission-key", desk.key),
            ):  # fmt: skip
                assert flightbag(*args).status == 0
        ran = flightbag("build", desk.write_mission("left", more=more), "--store", store, "--key", desk.key, "--json")
        assert ran.status == 0, ran.out
        kept = {a["name"]: a["id"] for a in ran.json["artifacts"] if not a["name"].startswith("cards/")}
        ids.append(kept)
        for name, id_ in kept.items():
            if name.startswith("descriptors/"):
                loaded = safetensors.numpy.load_file(store / object_path(ObjectId.parse(id_)))
                assert loaded["tiles"].dtype == np.uint64
                assert len(loaded["tiles"]) == len(loaded["descriptors"])
    assert ids[0] == ids[1]


# Indexes

INDEXES = '[[indexes]]\nname = "coarse"\nset = "embedder"\nmethod = "ivf"\n' + (
    '[[indexes]]\nname = "graph"\nset = "embedder"\nmethod = "hnsw"\n'
)


def test_indexes_are_entries_with_keys_of_their_own(desk: Desk) -> None:
    mission = desk.write_mission("left", more=INDEXES)
    report = desk.built(mission)
    names = {a["name"] for a in report["artifacts"] if a["name"].startswith("indexes/")}
    assert names == {f"indexes/embedder/coarse/{z}.{part}" for z in (14, 15) for part in ("faiss", "quantiser")} | {
        f"indexes/embedder/graph/{z}.faiss" for z in (14, 15)
    }
    assert desk.built(mission)["outcome"] == "unchanged"
    tile = area_tiles(15)[4]
    (desk.folder / "frame.jpg").write_bytes(tile_bytes(desk.folder / "terrain.mbtiles", tile))
    command = ("query", desk.store, "left", desk.folder / "frame.jpg", "--trust", desk.root, "--json")
    exact = flightbag(*command).json["matches"]
    for index in ("coarse", "graph"):
        ran = flightbag(*command, "--index", index)
        assert ran.status == 0, ran.out + ran.err
        assert ran.json["matches"][0]["tile"] == exact[0]["tile"] == str(tile)
        assert ran.json["matches"][0]["score"] == pytest.approx(exact[0]["score"], abs=1e-3)
    # A neighbouring mission has indexes of its own and trains no quantiser for as many rows.
    again = desk.built(desk.write_mission("right", bbox=RIGHT, more=INDEXES))
    of = {a["name"]: a["action"] for a in again["artifacts"] if a["name"].startswith("indexes/")}
    assert {name for name, action in of.items() if action == "built" and name.endswith(".faiss")}


def test_an_index_answers_with_no_missing_tile(desk: Desk) -> None:
    tile = area_tiles(15)[4]
    west = (tile.x + 0.2) / (1 << 15) * 360 - 180
    ring = [[west, 40], [west + 0.001, 40], [west + 0.001, 50], [west, 50], [west, 40]]
    feature = {
        "type": "Feature",
        "properties": {"datetime": "2001-01-01"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    (desk.folder / "old.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    days = (int(time.time()) - 1531699200) // 86400 + 1
    more = f"[freshness]\nmax_age_days = {days}\n[coverage]\nat_least = 0.1\n{INDEXES}"
    mission = desk.write_mission("left", more=more, of_tiles='footprints = "old.geojson"', zooms=(15,))
    report = desk.built(mission)
    old = {one["tile"] for one in report["coverage"]["missing"]}
    assert str(tile) in old
    (desk.folder / "frame.jpg").write_bytes(tile_bytes(desk.folder / "terrain.mbtiles", tile))
    for index in ("coarse", "graph"):
        command = ("query", desk.store, "left", desk.folder / "frame.jpg", "--trust", desk.root, "--json")
        found = {one["tile"] for one in flightbag(*command, "--index", index, "--top", 99).json["matches"]}
        assert found
        assert not found & old


# What reviews found


WIDE = """[[descriptors]]
name = "wide"
backbone = "embedder"
output = "descriptor"
dtype = "float16"
preprocess = { resize = [64, 64], colour = "RGB", scale = "-1..1" }
view = { tiles = 3, stride = %d }
"""


def test_sets_of_one_backbone_are_measured_each_in_its_own_way(desk: Desk) -> None:
    report = desk.built(desk.write_mission("left", zooms=(15,), more=WIDE % 1))
    figures = {one["name"]: one["value"] for one in report["figures"]}
    assert min(figures["fidelity/embedder"], figures["fidelity/wide"]) > 999_000
    ran = flightbag("probe", desk.store, "left", "--trust", desk.root, "--json")
    assert ran.status == 0, ran.out
    fidelity = {name: value for name, value in figures.items() if name.startswith("fidelity")}
    assert {one["name"]: one["value"] for one in ran.json["figures"]} == fidelity
    assert figures["self@1/embedder"] == figures["self@1/wide"] == 10**6


def test_an_index_is_of_its_set_alone(desk: Desk) -> None:
    more = (WIDE % 1) + '[[indexes]]\nname = "fast"\nset = "wide"\nmethod = "hnsw"\n'
    desk.built(desk.write_mission("left", zooms=(15,), more=more))
    (desk.folder / "frame.jpg").write_bytes(tile_bytes(desk.folder / "terrain.mbtiles", area_tiles(15)[4]))
    command = ("query", desk.store, "left", desk.folder / "frame.jpg", "--trust", desk.root, "--index", "fast")
    assert flightbag(*command, "--set", "wide").status == 0
    other = flightbag(*command, "--set", "embedder")
    assert other.status == 1
    assert "its indexes are fast (of wide)" in other.err


def test_an_index_is_built_again_when_another_sets_rows_make_tiles_missing(desk: Desk) -> None:
    more = '[[indexes]]\nname = "fast"\nset = "embedder"\nmethod = "hnsw"\n[coverage]\nat_least = 0.01\n'
    set_tile(desk.folder / "terrain.mbtiles", area_tiles(15)[4], None)
    for stride in (3, 2):
        desk.built(desk.write_mission("left", zooms=(15,), more=(WIDE % stride) + more))
        shown = flightbag("show", desk.store, "left", "--json").json
        gone = {run["first"] + i for run in shown["missing"] for i in range(run["tiles"])}
        (desk.folder / "frame.jpg").write_bytes(tile_bytes(desk.folder / "terrain.mbtiles", area_tiles(15)[5]))
        ran = flightbag(
            "query", desk.store, "left", desk.folder / "frame.jpg", "--trust", desk.root, "--set", "embedder",
            "--index", "fast", "--top", 99, "--json",
        )  # fmt: skip
        assert ran.status == 0, ran.out + ran.err
        found = {tile_id(Tile(*map(int, one["tile"].split("/")))) for one in ran.json["matches"]}
        assert found
        assert not found & gone


def test_recall_is_that_of_the_engine_of_the_set(desk: Desk) -> None:
    """Two backbones of one network: the set's own is measured, and the same aboard."""
    second = """[[backbones]]
name = "another"
model = "embedder.onnx"
backend = "onnxruntime"
precision = "fp32"
mode = "fast"
inputs = { image = { shape = ["N", 3, 64, 64], min = 1, opt = 8, max = 32 } }
"""
    desk.built(desk.write_mission("left", bbox=MANY, more=second + QUALITY))
    command = ("--trust", desk.root, "--json")
    ran = flightbag("quality", desk.store, "left", "--tiles", desk.folder / "terrain.mbtiles", *command)
    assert ran.status == 0, ran.out + ran.err
    assert all(one["same_recipe"] for one in ran.json["figures"])
    probed = flightbag("probe", desk.store, "left", *command)
    assert probed.status == 0, probed.out
    assert probed.json["figures"][0]["same_recipe"] is True


def test_a_map_with_nothing_in_it_is_not_published(desk: Desk) -> None:
    with closing(sqlite3.connect(desk.folder / "terrain.mbtiles")) as db, db:
        db.execute("DELETE FROM tiles")
    for more, kind in (("", "no-rows"), (QUALITY, "not-measured")):
        ran = desk.build(desk.write_mission("left", more=f"{more}[coverage]\nat_least = 0\n"))
        assert ran.status == 1
        assert ran.json["error"]["kind"] == kind
    assert not (desk.store / "missions/left").exists()


def test_a_map_is_probed_where_it_has_rows(desk: Desk) -> None:
    """All but one of the tiles are sea; the probe is made of that one, wherever it lies."""
    tiles = area_tiles(15)
    for tile in tiles:
        if tile != tiles[5]:
            set_tile(desk.folder / "terrain.mbtiles", tile, picture(256, 90))
    mission = desk.write_mission("left", zooms=(15,), more='[coverage]\nat_least = 0.01\nrepeated = "allowed"\n')
    report = desk.built(mission)
    assert {one["reason"] for one in report["coverage"]["missing"]} == {"blank"}
    assert flightbag("probe", desk.store, "left", "--trust", desk.root).status == 0


def test_a_bad_tile_that_no_whole_view_shows_has_its_own_reason(desk: Desk) -> None:
    tiles = area_tiles(15)
    bad = tiles[5]
    set_tile(desk.folder / "terrain.mbtiles", bad, picture(256, 90))
    for dx in (-1, 1):
        for dy in (-1, 0, 1):
            set_tile(desk.folder / "terrain.mbtiles", Tile(15, bad.x + dx, bad.y + dy), None)
    more = "[coverage]\nat_least = 0.01\n"
    report = desk.built(desk.write_mission("left", zooms=(15,), of_set="view = { tiles = 2, stride = 2 }", more=more))
    assert {one["tile"]: one["reason"] for one in report["coverage"]["missing"]}[str(bad)] == "blank"


def test_imagery_of_tomorrow_is_a_mistake(desk: Desk) -> None:
    mission = desk.write_mission("left", more="[freshness]\nmax_age_days = 10\n")
    mission.write_text(mission.read_text().replace("2018-07-16", "2218-07-16"))
    ran = desk.build(mission)
    assert ran.status == 2
    assert "in the future" in ran.err


def test_a_plan_tells_what_no_view_will_show(desk: Desk) -> None:
    mission = desk.write_mission("left", zooms=(15,), of_set="view = { tiles = 16, stride = 16 }")
    ran = flightbag("plan", mission, "--store", desk.store)
    assert ran.status == 1
    assert "no-view -> give imagery that reaches" in ran.out
    assert {one["reason"] for one in flightbag("plan", mission, "--store", desk.store, "--json").json["missing"]} == {
        "no-view"
    }


def test_a_plan_knows_the_tiles_that_are_no_image(desk: Desk) -> None:
    """Without decoding: empty rows, compressed tiles, answers of a server. What is in gzip is inflated."""
    tiles, terrain = area_tiles(15), desk.folder / "terrain.mbtiles"
    spoilt = {tiles[1]: b"", tiles[3]: zlib.compress(tile_bytes(terrain, tiles[3])), tiles[4]: b"<html>busy</html>"}
    set_tile(terrain, tiles[5], gzip.compress(tile_bytes(terrain, tiles[5])))
    for tile, data in spoilt.items():
        set_tile(terrain, tile, data)
    mission = desk.write_mission("left")
    ran = flightbag("plan", mission, "--store", desk.store)
    assert ran.status == 1
    assert f"{tiles[1]}  undecodable: the tile has no bytes" in ran.out
    assert f"{tiles[3]}  undecodable: the bytes are compressed with zlib" in ran.out
    missing = flightbag("plan", mission, "--store", desk.store, "--json").json["missing"]
    assert {one["tile"]: one["reason"] for one in missing} == {str(tile): "undecodable" for tile in spoilt}
    failed = desk.build(mission)
    assert failed.status == 1
    assert failed.json["coverage"]["missing"] == missing

    mission = desk.write_mission("left", more="[coverage]\nat_least = 0.5\n")
    assert flightbag("plan", mission, "--store", desk.store).status == 0
    assert desk.built(mission)["coverage"]["missing"] == missing
    time.sleep(2.2)
    for _ in range(2):  # the second time from the stat cache
        unchanged = desk.built(mission)
        assert unchanged["outcome"] == "unchanged"
        assert unchanged["coverage"]["missing"] == missing


def test_where_most_tiles_are_absent_the_flipped_rows_are_named(desk: Desk) -> None:
    mission = desk.write_mission("left", of_tiles='scheme = "xyz"')
    with closing(sqlite3.connect(desk.folder / "terrain.mbtiles")) as db, db:
        db.execute("DELETE FROM metadata WHERE name = 'bounds'")
    for ran in (flightbag("plan", mission, "--store", desk.store), desk.build(mission)):
        assert ran.status == 1
        assert "terrain.mbtiles lie in the area if its rows count from the south (tms)" in ran.out
    assert 'set tiles[].scheme = \\"tms\\"' in ran.out
    assert desk.built(desk.write_mission("left"))["coverage"]["hints"] == []


def test_a_source_that_nothing_decides_is_refused_before_anything_is_built(desk: Desk) -> None:
    with closing(sqlite3.connect(desk.folder / "terrain.mbtiles")) as db, db:
        db.execute("INSERT INTO metadata VALUES ('scheme', 'xyz')")
    ran = desk.build(desk.write_mission("left"))
    assert (ran.status, ran.json["error"]["kind"]) == (2, "row-order")
    assert 'set scheme = "tms"' in ran.json["error"]["remedy"]
    desk.built(desk.write_mission("left", of_tiles='scheme = "tms"'))


def test_what_is_published_was_read_also_of_the_other_imagery(desk: Desk, reads: list[Tile]) -> None:
    from builders.example.terrain import write_terrain
    from tests.support.field import WORLD

    write_terrain(desk.folder / "other.mbtiles", WORLD, (14, 15), seed=2)
    more = QUALITY + 'against = "other.mbtiles"\nagainst_recall_at_1 = 0\nagainst_recall_at_5 = 0\n'
    mission = desk.write_mission("left", bbox=MANY, more=more)
    time.sleep(2.2)
    desk.built(mission)
    reads.clear()
    assert desk.built(mission)["outcome"] == "unchanged"
    assert reads == []
    # The map is read again, so the other is too.
    set_tile(desk.folder / "terrain.mbtiles", area_tiles(15)[3], picture(256))
    assert desk.built(mission)["outcome"] == "built"
    assert len(reads) >= 2 * 3


def test_going_back_does_not_make_old_imagery_fresh(desk: Desk) -> None:
    """A mission with a limit of age is not issued anew when its imagery is older than that."""
    from store.errors import Corrupt
    from store.format.manifest import Manifest

    days = (int(time.time()) - 1531699200) // 86400 + 1
    desk.built(desk.write_mission("left", more=f"[freshness]\nmax_age_days = {days}\n"))
    with Repository.open(desk.store) as repository:
        manifest = repository.current("left").manifest
    from dataclasses import replace

    late = replace(manifest, issue=replace(manifest.issue, issued_at=manifest.issue.issued_at + 400 * 86400))
    with pytest.raises(Corrupt, match="days old when the mission was issued"):
        late.render()
    assert isinstance(manifest, Manifest)


def test_a_map_of_any_arithmetic_has_rows_of_its_own_and_says_so(desk: Desk) -> None:
    desk.built(desk.write_mission("left", zooms=(15,), files=()))
    mission = desk.write_mission("left", zooms=(15,), files=(), of_set='numeric = "any"')
    assert [one["action"] for one in desk.built(mission)["artifacts"]].count("built") == 2  # the shard and the probe
    shown = flightbag("show", desk.store, "left", "--json").json
    marked = {entry["kind"] for entry in shown["entries"] if entry["meta"].get("numeric") == "any"}
    assert marked == {"descriptors", "probe"}
    (shard,) = (entry for entry in shown["entries"] if entry["kind"] == "descriptors")
    read = read_shard((desk.store / object_path(ObjectId.parse(shard["id"]))).read_bytes())
    assert read.metadata["numeric"] == "any"
    line = "the map of embedder is described by any device, in any precision"
    assert line in flightbag("show", desk.store, "left").out.splitlines()
    assert desk.built(mission)["outcome"] == "unchanged"
    assert desk.verify(None, "left").json["ok"] is True
