"""The synthetic land that other tests build on: one world, whatever is cut from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from builders.example.terrain import render, write_terrain
from builders.grid.tiles import Tile, tile_from_id, tiles_of_bbox
from tests.builders.imagery.containers import open_mbtiles

WEST = (-991750000, 470080000, -991600000, 470200000)
EAST = (-991680000, 470080000, -991530000, 470200000)
TILE = Tile(16, 14713, 23040)


def test_the_same_arguments_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_terrain(tmp_path / name, WEST, [14, 15], view=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_files_that_overlap_hold_the_same_tiles(tmp_path: Path) -> None:
    write_terrain(tmp_path / "west", WEST, [15])
    write_terrain(tmp_path / "east", EAST, [15])
    shared = set(tiles_of_bbox(WEST, 15).tolist()) & set(tiles_of_bbox(EAST, 15).tolist())
    assert shared
    with open_mbtiles(tmp_path / "west") as west, open_mbtiles(tmp_path / "east") as east:
        for tile in map(tile_from_id, shared):
            data = west.read(tile)
            assert data is not None
            assert east.read(tile) == data


def test_neighbours_match_at_the_seam() -> None:
    def step(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
        return float(np.abs(a.astype(int) - b).mean())

    here, right, below = render(TILE), render(TILE._replace(x=TILE.x + 1)), render(TILE._replace(y=TILE.y + 1))
    inside = np.abs(np.diff(here.astype(int), axis=1)).mean()
    assert step(here[:, -1], right[:, 0]) < 3 * inside
    assert step(here[-1], below[0]) < 3 * inside


def test_zooms_show_the_same_land_and_seeds_another() -> None:
    quarters = [[render(Tile(17, 2 * TILE.x + i, 2 * TILE.y + j)).astype(float) for i in range(2)] for j in range(2)]
    fine = np.vstack([np.hstack(row) for row in quarters])

    def coarse(picture: NDArray[np.float64], side: int) -> NDArray[np.float64]:
        return picture.reshape(16, side, 16, side, 3).mean(axis=(1, 3))

    here, other = coarse(render(TILE).astype(float), 16), coarse(render(TILE, seed=2).astype(float), 16)
    assert np.abs(coarse(fine, 32) - here).mean() < 4
    assert np.abs(coarse(fine, 32) - other).mean() > 12


def test_tiles_differ_from_one_another() -> None:
    pictures = {render(Tile(16, TILE.x + i, TILE.y + j)).tobytes() for i in range(3) for j in range(3)}
    assert len(pictures) == 9
