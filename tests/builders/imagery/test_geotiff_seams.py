"""Tiles over the seams of many GeoTIFFs: those of one merged raster, whatever their projection, and never a gap."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from builders.descriptors.decoding import decode
from builders.grid.tiles import Tile, tile_ids
from builders.imagery.geotiff import GeoTiffSource
from builders.imagery.raster import MAX_OPEN
from tests.support.orthophotos import HIGH, PIXEL, SIDE, WIDE, X0, Y0, ZOOM, land, nine, write

rasterio = pytest.importorskip("rasterio", reason="the extra geotiff is not installed")

EDGES = 0, 50, 141, WIDE * SIDE
ROWS = 0, 71, 104, HIGH * SIDE


def around(zoom: int) -> list[Tile]:
    """The tiles of the rectangle at a zoom, and a ring round them."""
    up = ZOOM - zoom
    x, y = (range((first >> up) - 1, ((first + count - 1) >> up) + 2) for first, count in ((X0, WIDE), (Y0, HIGH)))
    return [Tile(zoom, column, row) for row in y for column in x]


def everything(source: GeoTiffSource) -> dict[Tile, bytes]:
    tiles = [tile for zoom in range(source.zooms[0], source.zooms[1] + 1) for tile in around(zoom)]
    return {tile: data for tile in tiles if (data := source.read(tile)) is not None}


def smooth() -> Any:
    """uint8 [160, 192, 3]: land that changes slowly, so that another interpolation changes it little."""
    coarse = np.random.default_rng(3).integers(20, 230, (10, 12, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((WIDE * SIDE, HIGH * SIDE), Image.Resampling.BICUBIC))


# The same rectangle in UTM, and in degrees.
WEST, NORTH = -99.195, 47.05
PLACES: dict[str, dict[str, Any]] = {
    "mercator": {},
    "utm": {"crs": "EPSG:32614", "a": 26.0, "e": -26.0, "c": 486_000.0, "f": 5_212_000.0},
    "degrees": {"crs": "EPSG:4326", "a": 0.0003433, "e": -0.000234, "c": WEST, "f": NORTH},
}


def part(path: Path, pixels: Any, place: dict[str, Any], left: int, top: int, **options: Any) -> Path:
    """A raster of these pixels, `left` and `top` pixels from the corner of the whole."""
    if not place:
        return write(path, pixels, column=left, row=top, **options)
    a, e = place["a"], place["e"]
    transform = rasterio.Affine(a, 0, place["c"] + left * a, 0, e, place["f"] + top * e)
    return write(path, pixels, crs=place["crs"], transform=transform, **options)


@pytest.mark.parametrize("where", list(PLACES))
def test_nine_rasters_are_one(tmp_path: Path, where: str) -> None:
    """At all zooms, over every seam, with what lies outside and with what is missing."""
    pixels, place = land(), PLACES[where]
    with GeoTiffSource(part(tmp_path / "one.tif", pixels, place, 0, 0), SIDE) as source:
        merged, zooms = everything(source), source.zooms
    paths = [
        part(
            tmp_path / f"{j}{i}.tif",
            pixels[ROWS[j] : ROWS[j + 1], EDGES[i] : EDGES[i + 1]],
            place,
            EDGES[i],
            ROWS[j],
        )
        for j in range(3)
        for i in range(3)
    ]
    with GeoTiffSource(paths, SIDE) as source:
        assert source.zooms == zooms
        assert everything(source) == merged
        assert {tile.z for tile in merged} >= {ZOOM - 1, ZOOM}
        tiles = around(ZOOM)
        numbers = tile_ids(ZOOM, np.array([t.x for t in tiles]), np.array([t.y for t in tiles]))
        reach = dict(zip(tiles, source.reach(ZOOM, numbers).tolist(), strict=True))
    assert {tile for tile, much in reach.items() if much == 2} == {tile for tile in merged if tile.z == ZOOM}
    # Without the sheet in the middle, what touches it is not there, and nothing else.
    with GeoTiffSource([path for path in paths if path.name != "11.tif"], SIDE) as source:
        rest = everything(source)
        lost = {tile for tile in merged.keys() - rest.keys() if tile.z == ZOOM}
    assert rest.items() <= merged.items()
    assert 6 <= len(lost) <= 15


@settings(max_examples=12)
@given(st.integers(1, WIDE * SIDE - 1), st.integers(1, HIGH * SIDE - 1), st.integers(0, 40), st.booleans())
def test_wherever_a_seam_lies(tmp_path_factory: pytest.TempPathFactory, x: int, y: int, over: int, below: bool) -> None:
    """Four rasters that meet in a point, or overlap with the same pixels."""
    folder, pixels = tmp_path_factory.mktemp("seam"), land()
    right, down = max(0, x - over), max(0, y - over)
    boxes = [
        (0, 0, x, y),
        (right, 0, WIDE * SIDE, y),
        (0, down, x, HIGH * SIDE),
        (right, down, WIDE * SIDE, HIGH * SIDE),
    ]
    paths = [
        write(folder / f"{n}.tif", pixels[box[1] : box[3], box[0] : box[2]], column=box[0], row=box[1])
        for n, box in enumerate(boxes)
    ]
    zoom = ZOOM - below
    tile = Tile(zoom, (X0 + x // SIDE) >> below, (Y0 + y // SIDE) >> below)
    with GeoTiffSource(paths, SIDE) as source, GeoTiffSource(write(folder / "one.tif", pixels), SIDE) as one:
        assert source.read(tile) == one.read(tile)


@pytest.mark.parametrize("gap", [0.0, 0.4, 3.0])
def test_two_grids_that_meet_have_no_gap_unless_there_is_one(tmp_path: Path, gap: float) -> None:
    """The east is delivered in another projection, or half a pixel beside the grid of the west. A pixel over the seam
    is made of what there is on its side; where nothing is, the tile is not there."""
    pixels = smooth()
    west = write(tmp_path / "west.tif", pixels[:, :100])
    for name, overlap in (("beside", 0), ("projected", 8)):
        east = tmp_path / f"{name}.tif"
        if name == "beside":
            write(east, pixels[:, 100:], column=100 + gap)
        else:
            whole = write(tmp_path / "whole.tif", pixels[:, 100 - overlap :], column=100 - overlap + gap * 6)
            warp(whole, east)
        with GeoTiffSource([west, east], SIDE) as source:
            tiles = {
                Tile(ZOOM, X0 + x, Y0 + y): source.read(Tile(ZOOM, X0 + x, Y0 + y)) for x in (2, 3, 4) for y in (1, 2)
            }
        seam = [data for tile, data in tiles.items() if tile.x == X0 + 3]
        if gap == 3:
            assert seam == [None, None]
            continue
        if name == "projected" and gap:
            continue
        assert None not in tiles.values()
        for tile, data in tiles.items():
            left, top = (tile.x - X0) * SIDE, (tile.y - Y0) * SIDE
            expected = pixels[top : top + SIDE, left : left + SIDE].astype(int)
            assert data is not None
            assert np.abs(np.asarray(decode(data)).astype(int) - expected).max() <= 12


def warp(source: Path, target: Path) -> None:
    """The raster in UTM, with what lies beside it without data."""
    from rasterio.vrt import WarpedVRT

    with rasterio.open(source) as raster, WarpedVRT(raster, crs="EPSG:32614", nodata=0, resampling=1) as warped:
        options = {"driver": "GTiff", "photometric": "RGB", "count": 3, "dtype": "uint8", "nodata": 0}
        shape = {"height": warped.height, "width": warped.width, "crs": warped.crs, "transform": warped.transform}
        with rasterio.open(target, "w", **options, **shape) as file:
            file.write(warped.read())


def test_a_coarse_raster_makes_no_fine_tile_and_the_order_counts(tmp_path: Path) -> None:
    """Each raster has the zooms of its own pixels."""
    fine = write(tmp_path / "fine.tif", np.full((HIGH * SIDE, WIDE * SIDE, 3), 50, np.uint8))
    coarse = write(tmp_path / "coarse.tif", np.full((HIGH * SIDE, WIDE * SIDE, 3), 99, np.uint8), pixel=8 * PIXEL)
    for paths, expected in (([fine, coarse], 50), ([coarse, fine], 50)):
        with GeoTiffSource(paths, SIDE) as source:
            assert source.zooms == (ZOOM - 5, ZOOM)
            assert source.resolution_m == pytest.approx(8 * PIXEL * np.cos(np.radians(46.9)), rel=0.01)
            inside, beside = source.read(Tile(ZOOM, X0 + 1, Y0 + 1)), source.read(Tile(ZOOM, X0 + WIDE, Y0))
            assert inside is not None
            assert np.asarray(decode(inside)).max() == expected
            assert beside is None
            assert source.read(Tile(ZOOM - 3, (X0 >> 3) + 1, (Y0 >> 3) + 1)) is not None


@pytest.mark.parametrize("count", [1, 9])
def test_overviews_make_the_zooms_below(tmp_path: Path, count: int) -> None:
    """Three zooms and more below the pixels; an overview of odd size lies on a grid of its own."""
    pixels = np.kron(smooth()[::4, ::4], np.ones((8, 8, 1), np.uint8))[:, : 2 * WIDE * SIDE]
    without = GeoTiffSource(write(tmp_path / "none.tif", pixels, pixel=PIXEL / 2), SIDE)
    assert without.zooms == (ZOOM - 1, ZOOM + 1)
    high, wide = pixels.shape[:2]
    rows, columns = ((0, high), (0, wide)) if count == 1 else ((0, 107, 214, high), (0, 131, 259, wide))
    paths = [
        write(
            tmp_path / f"{top}-{left}.tif",
            pixels[top:bottom, left:right],
            column=left / 2,
            row=top / 2,
            pixel=PIXEL / 2,
            overviews=(2, 4, 8, 16),
        )
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]
    with without, GeoTiffSource(paths, SIDE) as source:
        assert source.zooms == (ZOOM - 5, ZOOM + 1)
        assert [source.read(tile) for tile in around(ZOOM - 1)] == [without.read(tile) for tile in around(ZOOM - 1)]
        tile = Tile(ZOOM - 2, (X0 >> 2) + 1, (Y0 >> 2) + 1)
        data = source.read(tile)
        assert data is not None
        left, top = (tile.x * 4 - X0) * 2 * SIDE, (tile.y * 4 - Y0) * 2 * SIDE
        square = pixels[top : top + 8 * SIDE, left : left + 8 * SIDE]
        assert square.shape == (8 * SIDE, 8 * SIDE, 3)
        mean = square.reshape(SIDE, 8, SIDE, 8, 3).mean(axis=(1, 3))
        assert np.abs(np.asarray(decode(data)).astype(float) - mean).mean() < 6


def test_a_strip_of_many_rasters_opens_few_at_once(tmp_path: Path) -> None:
    pixels = land()
    paths = [
        write(tmp_path / f"{n:03}.tif", pixels[:, 4 * n : 4 * n + 4], column=4 * n) for n in range(WIDE * SIDE // 4)
    ]
    most = 0
    before = len(os.listdir("/proc/self/fd"))
    with GeoTiffSource(write(tmp_path / "one.tif", pixels), SIDE) as one:
        merged = everything(one)
    with GeoTiffSource(paths, SIDE) as source:
        for tile, data in merged.items():
            assert source.read(tile) == data
            most = max(most, len(os.listdir("/proc/self/fd")) - before)
    assert 1 <= most <= MAX_OPEN + 1
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_far_away_changes_nothing(tmp_path: Path) -> None:
    """A raster of the other hemisphere, which another projection cannot reach, and one of the same grid there."""
    paths = nine(tmp_path)
    far = [
        write(tmp_path / "far.tif", land(), column=2.0**19),
        write(tmp_path / "utm.tif", land(), crs="EPSG:32756", transform=rasterio.Affine(26, 0, 4e5, 0, -26, 6e6)),
    ]
    with GeoTiffSource(paths, SIDE) as source, GeoTiffSource([far[1], *paths, far[0]], SIDE) as more:
        assert everything(more) == everything(source)
