"""Step G with the sources of a mission at hand: what the digest cannot show."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from builders.grid.tiles import Tile, tile_from_id, tile_id, tiles_of_bbox
from builders.imagery.roworder import SourcePath
from builders.operator_check import check_tiles
from store.errors import Corrupt, FlightbagError, Unavailable
from store.format.ids import ObjectId
from store.ground.repository import Repository
from store.takeoff.evidence import StoreEvidence
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
    assert "4 show the same as another, allowed" in flightbag("verify", desk.store, "--trust", desk.root).words
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


@pytest.mark.confined
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


HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


class Losing:
    """The evidence of a store, of which some objects cannot be had any more."""

    def __init__(self, evidence: StoreEvidence, why: FlightbagError, *lost: ObjectId) -> None:
        self._evidence, self._why, self._lost = evidence, why, lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._evidence, name)

    def bytes_of(self, id_: ObjectId, size: int) -> bytearray:
        if id_ in self._lost:
            raise self._why
        return self._evidence.bytes_of(id_, size)


UNREADABLE = Unavailable("an object cannot be read", kind="unreadable")


def steps(
    desk: Desk, *sources: SourcePath, lost: str = "", why: FlightbagError = UNREADABLE
) -> list[tuple[str, str, str]]:
    """Step, kind and message of every finding of step G, where reading the entries with this prefix raises `why`."""
    with Repository.open(desk.store) as repository:
        opened = repository.current("left")
        ids = [entry.id for entry in opened.table.entries if lost and entry.name.startswith(lost)]
        check = check_tiles(sources or [SourcePath(desk.folder / "terrain.mbtiles")])
        found = check(Losing(repository.evidence, why, *ids), opened)
        return [(one.step, one.kind, one.message) for one in found]


def test_tiles_that_cannot_be_read_are_no_go(built: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program holds the file: nobody knows what its tiles are."""
    monkeypatch.setattr("builders.imagery.sqlite.BUSY_SECONDS", 0.2)
    tiles = built.folder / "terrain.mbtiles"
    assert built.verify(None, "--tiles", tiles).status == 0
    # Closing the file in the process that holds it would give the lock up.
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tiles)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        [(step, kind, message)] = steps(built, SourcePath(tiles))
        ran = built.verify(None, "--tiles", tiles)
        holder.communicate()
    assert (step, kind) == ("G", "unreadable")
    assert "terrain.mbtiles cannot be read" in message
    assert (ran.status, ran.json["ok"]) == (3, False)
    [mission] = ran.json["missions"]
    assert mission["could_not_look"]
    assert [one["step"] for one in ran.json["findings"]] == ["G"]


@pytest.mark.parametrize("lost", ["descriptors/embedder/14", "descriptors/embedder/15", "descriptors/"])
def test_a_shard_that_cannot_be_read_is_no_go(built: Desk, lost: str) -> None:
    """It says what its tiles were cut to; without it, nothing can be compared."""
    assert [one[:2] for one in steps(built, lost=lost)] == [("G", "unreadable")]


def test_a_list_of_missing_tiles_that_cannot_be_used_is_no_go(desk: Desk) -> None:
    box = (int(LEFT[0] * 10**7), int(LEFT[1] * 10**7), int(LEFT[2] * 10**7), int(LEFT[3] * 10**7))
    fine = list(map(tile_from_id, tiles_of_bbox(box, 15).tolist()))
    repeat(desk, [fine[0], fine[3]])
    desk.built(desk.write_mission("left", more="[coverage]\nat_least = 0.5\n"))
    assert steps(desk) == []
    assert [one[:2] for one in steps(desk, lost="coverage/")] == [("G", "unreadable")]
    # Step F may have found it whole, a moment ago or because its bytes are as signed.
    for kind in ("bit-flip", "bad-coverage"):
        why = Corrupt("it is not what it was", kind=kind)
        assert [one[:2] for one in steps(desk, lost="coverage/", why=why)] == [("G", kind)]


def take_away(desk: Desk, *tiles: Tile) -> None:
    with closing(sqlite3.connect(desk.folder / "terrain.mbtiles")) as db, db:
        for t in tiles:
            row = (1 << t.z) - 1 - t.y
            db.execute("DELETE FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?", (t.z, t.x, row))


def test_a_finding_names_what_is_gone_and_how_many_more(built: Desk) -> None:
    """Up to eight tiles of a cell by name. The first finding is that of the area."""
    box = (int(LEFT[0] * 10**7), int(LEFT[1] * 10**7), int(LEFT[2] * 10**7), int(LEFT[3] * 10**7))
    fine = [tile_from_id(number) for number in tiles_of_bbox(box, 15).tolist()]
    cell = (fine[0].x // 16, fine[0].y // 16)
    one_cell = [tile for tile in fine if (tile.x // 16, tile.y // 16) == cell]
    assert len(one_cell) >= 2
    assert steps(built) == []
    take_away(built, one_cell[0])
    found = steps(built)
    assert [one[:2] for one in found] == [("G", "other-tiles")] * 2
    assert found[1][2].endswith(f"gone: {one_cell[0]}")
    take_away(built, *one_cell)
    found = steps(built)
    named = ", ".join(str(tile) for tile in sorted(one_cell, key=tile_id)[:8])
    more = f" and {len(one_cell) - 8} more" if len(one_cell) > 8 else ""
    assert found[1][2].endswith(f"gone: {named}{more}")
