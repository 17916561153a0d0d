"""Procedural land seen from above, as MBTiles: woods, fields in sections, roads, a river.

Every pixel is a function of its place in the world and of the seed, so neighbouring tiles match, zooms show the
same land, and two files that overlap hold the same bytes where they do. Not meant to look like any real place.
"""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.descriptors.tiles import Tile, tile_bounds, tile_from_id, tiles_of_bbox

SIDE = 256
# The unit of length below: a pixel at this zoom, some 0.1 m in middle latitudes.
UNIT_ZOOM = 20

Grid = NDArray[np.float32]
Hashes = NDArray[np.uint32]


def write_terrain(
    path: Path,
    bbox: tuple[int, int, int, int],
    zooms: Iterable[int],
    seed: int = 1,
    *,
    omit: Collection[Tile] = (),
    corrupt: Collection[Tile] = (),
    view: bool = False,
) -> None:
    """Writes an MBTiles file of JPEG tiles over `bbox` (west, south, east, north in 1e-7 degree).

    Tiles in `omit` are left out; those in `corrupt` are cut off in the middle, so that no decoder takes them.
    With `view`, `tiles` is a view over `map` and `images`, as tools that store equal tiles once write it. The
    same arguments give the same bytes. `path` must not exist.
    """
    zooms = sorted(set(zooms))
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        db.execute("CREATE TABLE metadata (name text, value text)")
        db.executemany("INSERT INTO metadata VALUES (?, ?)", _metadata(bbox, zooms, seed).items())
        _create(db, view)
        for zoom in zooms:
            for number in tiles_of_bbox(bbox, zoom).tolist():
                tile = tile_from_id(number)
                if tile in omit:
                    continue
                data = render_jpeg(tile, seed)
                _insert(db, tile, data[: len(data) // 2] if tile in corrupt else data, view)
        db.execute("COMMIT")
    finally:
        db.close()


def render_jpeg(tile: Tile, seed: int = 1) -> bytes:
    """The JPEG of one tile."""
    file = io.BytesIO()
    Image.fromarray(render(tile, seed)).save(file, "JPEG", quality=85)
    return file.getvalue()


def render(tile: Tile, seed: int = 1) -> NDArray[np.uint8]:
    """uint8 [256, 256, 3], RGB, of one tile."""
    step = 2.0 ** (UNIT_ZOOM - tile.z)
    land = _Land((tile.x * SIDE + np.arange(SIDE) + 0.5) * step, (tile.y * SIDE + np.arange(SIDE) + 0.5) * step, seed)
    relief = land.noise(1, 40000, 5)
    picture = _fields(land)
    shade = land.noise(2, 160, 5) - 0.5

    moist = land.noise(3, 12000, 5)
    woods = _step(moist + 0.25 * shade, 0.60, 0.02)
    crowns = land.noise(4, 90, 3)
    picture = _mix(picture, _colour(34, 52, 30) + crowns[..., None] * _colour(48, 52, 32), woods)

    for line in _roads(land):
        picture = _mix(picture, _colour(158, 150, 136) + shade[..., None] * 20, line)

    # The river follows a contour of the relief; a belt of trees follows the river.
    bank = np.abs(relief - 0.5)
    picture = _mix(picture, _colour(44, 62, 36) + crowns[..., None] * 40, _step(-bank, -0.018, 0.004))
    picture = _mix(picture, _colour(62, 80, 84) + land.noise(5, 700, 2)[..., None] * 18, _step(-bank, -0.010, 0.002))

    light = 1 + 0.28 * shade + 0.10 * (land.noise(6, 24, 2) - 0.5) + 0.12 * (relief - 0.5)
    return np.clip(picture * light[..., None], 0, 255).astype(np.uint8)


class _Land:
    """The world around one tile: places `x` (columns) and `y` (rows) in units, and noise over them."""

    def __init__(self, x: NDArray[np.float64], y: NDArray[np.float64], seed: int) -> None:
        self.x, self.y, self.seed = x, y, seed
        self.step = float(x[1] - x[0])

    def noise(self, kind: int, period: float, octaves: int) -> Grid:
        """Value noise in 0..1, about 0.5 in the mean: octaves of half the period and amplitude each.

        Octaves finer than two pixels are left out; they would only alias.
        """
        total = np.full((SIDE, SIDE), 0.5, np.float32)
        for octave in range(octaves):
            length = period / 2**octave
            if length >= 2 * self.step:
                total += (self._lattice(kind * 16 + octave, length) - 0.5) * np.float32(0.5**octave)
        return total

    def _lattice(self, kind: int, length: float) -> Grid:
        """One octave: hashed values on a lattice, blended smoothly between; two small matrix products."""
        first_x, across = _weights(self.x / length)
        first_y, down = _weights(self.y / length)
        columns = np.arange(first_x, first_x + across.shape[1])
        rows = np.arange(first_y, first_y + down.shape[1])
        values = _hash(columns[None, :], rows[:, None], self.seed * 1024 + kind).astype(np.float32) / np.float32(2**32)
        return down @ values @ across.T


def _weights(places: NDArray[np.float64]) -> tuple[int, Grid]:
    """(first lattice point, float32 [256, points]): how much each place takes of each lattice point."""
    whole = np.floor(places).astype(np.int64)
    part = (places - whole).astype(np.float32)
    part = part * part * (3 - 2 * part)
    first = int(whole[0])
    weights = np.zeros((SIDE, int(whole[-1]) - first + 2), np.float32)
    each = np.arange(SIDE)
    weights[each, whole - first] = 1 - part
    weights[each, whole - first + 1] = part
    return first, weights


def _fields(land: _Land) -> NDArray[np.float32]:
    """Sections of land, each cut into strips with a crop of their own; rows of the plough where they show."""
    x = land.x.astype(np.float32)[None, :] - np.float32(land.x[0])
    del x
    section = 4200.0
    column, row = np.floor(land.x / section), np.floor(land.y / section)
    inside_x = (land.x / section - column).astype(np.float32)[None, :]
    inside_y = (land.y / section - row).astype(np.float32)[:, None]
    plan = _hash(column.astype(np.int64)[None, :], row.astype(np.int64)[:, None], land.seed * 1024 + 900)
    strips = (1 + (plan >> 4) % 5).astype(np.float32)
    upright = (plan & 1).astype(bool)
    along = np.where(upright, inside_x, inside_y)
    strip = np.floor(along * strips).astype(np.uint32)
    crop = _mixed(plan + strip * np.uint32(0x9E3779B9))
    palette = np.array(
        [
            (124, 128, 74), (96, 116, 60), (150, 136, 88), (172, 156, 108), (112, 98, 72),
            (84, 104, 58), (136, 140, 86), (162, 140, 100), (104, 124, 66), (128, 110, 82),
        ],
        np.float32,
    )  # fmt: skip
    colour = palette[crop % len(palette)]
    if land.step * 2 <= 40:  # furrows some 4 m apart
        phase = np.where(upright, land.x[None, :] % 40, land.y[:, None] % 40).astype(np.float32)
        depth = ((crop >> 8) % 16).astype(np.float32)
        colour = colour + (np.sin(phase * np.float32(2 * np.pi / 40)) * depth * 0.6)[..., None]
    edge = np.abs(along * strips - np.round(along * strips)) / strips * section
    return _mix(colour, _colour(92, 98, 60), (edge < max(14.0, land.step * 0.7)).astype(np.float32) * 0.6)


def _roads(land: _Land) -> list[Grid]:
    """How much of each pixel is road: along every second section line, where the land lets one through."""
    lines = []
    for places, shape in ((land.x, (1, SIDE)), (land.y, (SIDE, 1))):
        number = np.round(places / 8400.0)
        away = np.abs(places - number * 8400.0)
        width = max(45.0, land.step * 0.6)
        paved = _hash(number.astype(np.int64), np.int64(len(lines)), land.seed * 1024 + 901) % 4 > 0
        line = np.clip((width + land.step - away) / land.step, 0, 1) * paved
        lines.append(np.broadcast_to(line.astype(np.float32).reshape(shape), (SIDE, SIDE)))
    return lines


def _step(values: Grid, edge: float, width: float) -> Grid:
    """0 below the edge, 1 above, a ramp of `width` between."""
    return np.clip((values - np.float32(edge)) / np.float32(width) + np.float32(0.5), 0, 1)


def _mix(below: NDArray[np.float32], above: NDArray[np.float32], share: Grid) -> NDArray[np.float32]:
    if not share.any():
        return below
    return below + (above - below) * share[..., None]


def _colour(red: int, green: int, blue: int) -> NDArray[np.float32]:
    return np.array([red, green, blue], np.float32)


def _hash(x: NDArray[np.int64] | np.int64, y: NDArray[np.int64] | np.int64, salt: int) -> Hashes:
    """32 bits for each pair of whole numbers."""
    first = np.asarray(x).astype(np.uint32) * np.uint32(0x85EBCA6B)
    second = np.asarray(y).astype(np.uint32) * np.uint32(0xC2B2AE35)
    return _mixed(_mixed(first + np.uint32(salt)) ^ second)


def _mixed(bits: Hashes) -> Hashes:
    """A bijection of 32 bits in which every input bit moves about half of the output."""
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(0x846CA68B)
    return bits ^ (bits >> np.uint32(16))


def _metadata(bbox: tuple[int, int, int, int], zooms: list[int], seed: int) -> dict[str, str]:
    return {
        "name": f"terrain {seed}",
        "format": "jpg",
        "type": "baselayer",
        "version": "1",
        "description": "procedural land",
        "minzoom": str(zooms[0]),
        "maxzoom": str(zooms[-1]),
        "bounds": ",".join(f"{value / 10**7:.7f}" for value in bbox),
    }


def _create(db: sqlite3.Connection, view: bool) -> None:
    if not view:
        db.execute("CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, tile_data blob)")
        db.execute("CREATE UNIQUE INDEX tile_index ON tiles (zoom_level, tile_column, tile_row)")
        return
    db.execute("CREATE TABLE map (zoom_level integer, tile_column integer, tile_row integer, tile_id text)")
    db.execute("CREATE UNIQUE INDEX map_index ON map (zoom_level, tile_column, tile_row)")
    db.execute("CREATE TABLE images (tile_id text PRIMARY KEY, tile_data blob)")
    db.execute(
        "CREATE VIEW tiles AS SELECT zoom_level, tile_column, tile_row, tile_data FROM map JOIN images USING (tile_id)"
    )


def _insert(db: sqlite3.Connection, tile: Tile, data: bytes, view: bool) -> None:
    place = (tile.z, tile.x, (1 << tile.z) - 1 - tile.y)  # MBTiles counts rows from the south, as TMS does
    if not view:
        db.execute("INSERT INTO tiles VALUES (?, ?, ?, ?)", (*place, data))
        return
    name = hashlib.blake2b(data, digest_size=16).hexdigest()
    db.execute("INSERT OR IGNORE INTO images VALUES (?, ?)", (name, data))
    db.execute("INSERT INTO map VALUES (?, ?, ?, ?)", (*place, name))
