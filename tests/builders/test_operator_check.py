"""Step G with the sources of a mission at hand: what the digest cannot show."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

from builders.grid.tiles import Tile, tile_from_id, tiles_of_bbox
from builders.imagery.roworder import SourcePath
from builders.operator_check import check_tiles
from store.ground.repository import Repository
from tests.support.commands import flightbag
from tests.support.field import LEFT, Desk

ALLOWED = '[coverage]\nrepeated = "allowed"\n'


def repeat(desk: Desk, tiles: list[Tile]) -> None:
    """Put the bytes of the first of these tiles into the places of the others."""
    where = "zoom_level = ? AND tile_column = ? AND tile_row = ?"
    places = [(t.z, t.x, (1 << t.z) - 1 - t.y) for t in tiles]
    with closing(sqlite3.connect(desk.folder / "terrain.mbtiles")) as db, db:
        data = db.execute(f"SELECT tile_data FROM tiles WHERE {where}", places[0]).fetchone()[0]
        for place in places[1:]:
            db.execute(f"UPDATE tiles SET tile_data = ? WHERE {where}", (data, *place))


def test_the_repeated_tiles_are_counted_again(desk: Desk) -> None:
    """The digest is that of the same tiles, whatever the manifest says of them."""
    box = (int(LEFT[0] * 10**7), int(LEFT[1] * 10**7), int(LEFT[2] * 10**7), int(LEFT[3] * 10**7))
    fine, coarse = (list(map(tile_from_id, tiles_of_bbox(box, zoom).tolist())) for zoom in (15, 14))
    repeat(desk, [fine[0], fine[3], fine[5], coarse[1]])
    refused = desk.build(desk.write_mission("left"))
    assert refused.status == 1
    assert {one["reason"] for one in refused.json["coverage"]["missing"]} == {"repeated"}
    repeated = refused.json["coverage"]["repeated"]
    assert (repeated["tiles"], repeated["pictures"], repeated["most"]) == (4, 1, 4)
    assert repeated["examples"] == [str(coarse[1]), str(fine[0]), str(fine[3])]

    mission = desk.write_mission("left", more=ALLOWED)
    planned = flightbag("plan", mission, "--store", desk.store).out
    assert f"repeated: 4 tiles show 1 picture, 4 of them the same one:\n  {coarse[1]}  {fine[0]}" in planned
    assert desk.built(mission)["coverage"]["missing"] == []
    assert desk.built(mission)["outcome"] == "unchanged"
    assert "4 show the same as another, allowed" in flightbag("show", desk.store, "left").out
    assert "4 show the same as another, allowed" in flightbag("verify", desk.store, "--trust", desk.root).out
    check = check_tiles([SourcePath(desk.folder / "terrain.mbtiles")])
    with Repository.open(desk.store) as repository:
        opened = repository.current("left")
        assert opened.manifest.coverage.repeated == 4
        assert list(check(repository.evidence, opened)) == []
        for signed in (None, 3):
            coverage = replace(opened.manifest.coverage, repeated=signed)
            other = replace(opened, manifest=replace(opened.manifest, coverage=coverage))
            (finding,) = check(repository.evidence, other)
            assert (finding.step, finding.kind, finding.expected) == ("G", "bad-coverage", str(signed or 0))
    # Refused, and few enough: they are on the list, and none is described.
    desk.built(desk.write_mission("left", more="[coverage]\nat_least = 0.5\n"))
    with Repository.open(desk.store) as repository:
        opened = repository.current("left")
        assert (opened.manifest.coverage.repeated, opened.manifest.coverage.missing) == (None, 4)
        assert list(check(repository.evidence, opened)) == []


def test_the_order_of_rows_can_be_named_on_the_command_line(built: Desk) -> None:
    """The same imagery with its rows from the north: its bounds contradict its format, and the prefix decides."""
    terrain = built.folder / "terrain.mbtiles"
    with closing(sqlite3.connect(terrain)) as db, db:
        db.execute("DROP INDEX tile_index")
        db.execute("UPDATE tiles SET tile_row = (1 << zoom_level) - 1 - tile_row")
    refused = built.verify(None, "--tiles", terrain)
    assert (refused.status, refused.json["error"]["kind"]) == (2, "row-order")
    assert "xyz:PATH" in refused.json["error"]["remedy"]
    assert built.verify(None, "--tiles", f"xyz:{terrain}").status == 0
