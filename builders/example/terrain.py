"""Procedural land seen from above, as MBTiles: woods, fields in sections, roads, a river.

Every pixel is a function of its place in the world and of the seed, so neighbouring tiles match, zooms show the
same land, and two files that overlap hold the same bytes where they do. Shows no real place. Made for zooms of
12 and more: fields smaller than a pixel are still drawn one by one.
"""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections.abc import Collection, Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.grid.tiles import Tile, tile_from_id, tiles_of_bbox

SIDE = 256
# The unit of length below: a pixel at this zoom, some 0.1 m in middle latitudes.
UNIT_ZOOM = 20
SECTION = 4200.0
FURROW = 40.0
PALETTE = np.array(
    [
        (124, 128, 74), (96, 116, 60), (150, 136, 88), (172, 156, 108), (112, 98, 72),
        (84, 104, 58), (136, 140, 86), (162, 140, 100), (104, 124, 66), (128, 110, 82),
    ],
    np.float32,
)  # fmt: skip

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
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        db.execute("CREATE TABLE metadata (name text, value text)")
        db.executemany("INSERT INTO metadata VALUES (?, ?)", _metadata(bbox, zooms, seed).items())
        _create(db, view)
        for zoom in zooms:
            for tile in map(tile_from_id, tiles_of_bbox(bbox, zoom).tolist()):
                if tile not in omit:
                    data = render_jpeg(tile, seed)
                    _insert(db, tile, data[: len(data) // 2] if tile in corrupt else data, view)
        db.execute("COMMIT")


def render_jpeg(tile: Tile, seed: int = 1) -> bytes:
    """The JPEG of one tile."""
    file = io.BytesIO()
    Image.fromarray(render(tile, seed)).save(file, "JPEG", quality=85)
    return file.getvalue()


def render(tile: Tile, seed: int = 1) -> NDArray[np.uint8]:
    """uint8 [256, 256, 3], RGB, of one tile."""
    step = 2.0 ** (UNIT_ZOOM - tile.z)
    pixels = np.arange(SIDE, dtype=np.float64) + 0.5
    land = _Land((tile.x * SIDE + pixels) * step, (tile.y * SIDE + pixels) * step, seed)
    relief = land.noise(1, 40000, 7)
    moist = land.noise(3, 12000, 7)
    shade = land.noise(2, 160, 5) - 0.5
    picture = _fields(land)

    woods = _step(moist + 0.25 * shade, 0.60, 0.02)
    bank = np.abs(relief - 0.5)
    belt = _step(-bank, -0.018, 0.004)  # the river follows a contour of the relief, a belt of trees the river
    if woods.any() or belt.any():
        trees = _colour(34, 52, 30) + land.noise(4, 90, 3)[..., None] * _colour(48, 52, 32)
        _paint(picture, trees, woods)
    for line in _roads(land):
        _paint(picture, _colour(158, 150, 136), line)
    if belt.any():
        _paint(picture, trees, belt)
        _paint(picture, _colour(66, 86, 92), _step(-bank, -0.010, 0.002))

    shade *= 0.28
    shade += 0.12 * relief + 0.94
    picture *= shade[..., None]
    return np.clip(picture, 0, 255, out=picture).astype(np.uint8)


class _Land:
    """The world around one tile: places `x` (columns) and `y` (rows) in units, and noise over them."""

    def __init__(self, x: NDArray[np.float64], y: NDArray[np.float64], seed: int) -> None:
        self.x, self.y, self.salt = x, y, seed * 1024
        self.step = float(x[1] - x[0])

    def noise(self, kind: int, period: float, octaves: int) -> Grid:
        """Value noise in 0..1, about 0.5 in the mean: octaves of half the period and amplitude each.

        Octaves finer than two pixels are left out; they would only alias. The coarser octaves are summed on
        the lattice of the finest one, so that only one is blended over all pixels.
        """
        lengths = [period / 2**octave for octave in range(octaves) if period / 2**octave >= 2 * self.step]
        if not lengths:
            return np.full((SIDE, SIDE), 0.5, np.float32)
        finest = lengths[-1]
        columns, rows = _lattice(self.x / finest), _lattice(self.y / finest)
        total = np.full((len(rows), len(columns)), 0.5, np.float32)
        for octave, length in enumerate(lengths):
            x, y = columns * (finest / length), rows * (finest / length)
            values = _blend(self._values(kind * 16 + octave, _lattice(x), _lattice(y)), x, y)
            total += (values - 0.5) * np.float32(0.5**octave)
        return _blend(total, self.x / finest, self.y / finest)

    def _values(self, kind: int, columns: NDArray[np.int64], rows: NDArray[np.int64]) -> Grid:
        """A value of 0..1 for each lattice point."""
        values: Grid = _hash(columns[None, :], rows[:, None], self.salt + kind).astype(np.float32) / np.float32(2**32)
        return values


def _lattice(places: NDArray[np.float64]) -> NDArray[np.int64]:
    """The lattice points round ascending places, those beyond both ends too."""
    return np.arange(int(np.floor(places[0])), int(np.floor(places[-1])) + 2)


def _blend(values: Grid, x: NDArray[np.float64], y: NDArray[np.float64]) -> Grid:
    """`values` on the lattices of `x` and `y`, blended smoothly: float32 [len(y), len(x)]."""
    for places in (x, y):  # the second, over all pixels, gathers whole rows and yields rows
        whole = np.floor(places).astype(np.int64)
        part = (places - whole).astype(np.float32)[:, None]
        part = part * part * (3 - 2 * part)
        whole -= whole[0]
        values = np.ascontiguousarray(values.T)
        below, blended = values[whole], values[whole + 1]
        blended -= below
        blended *= part
        blended += below
        values = blended
    return values


def _fields(land: _Land) -> NDArray[np.float32]:
    """Sections of land, each cut into strips with a crop of their own; rows of the plough where they show."""
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    columns, rows = _sections(land.x), _sections(land.y)
    plans = _hash(
        np.array([column for column, _ in columns])[None, :],
        np.array([row for row, _ in rows])[:, None],
        land.salt + 900,
    )
    for (row, down), row_plans in zip(rows, plans, strict=True):
        for (column, across), plan in zip(columns, row_plans.tolist(), strict=True):
            upright = plan & 1
            line = _strips(land, land.x[across] - column * SECTION if upright else land.y[down] - row * SECTION, plan)
            picture[down, across] = line[None, :] if upright else line[:, None]
    return picture


def _sections(places: NDArray[np.float64]) -> list[tuple[int, slice]]:
    """(number, its pixels) of each section along one axis."""
    numbers, starts = np.unique(np.floor(places / SECTION).astype(np.int64), return_index=True)
    ends = [*starts.tolist()[1:], SIDE]
    return [(n, slice(i, j)) for n, i, j in zip(numbers.tolist(), starts.tolist(), ends, strict=True)]


def _strips(land: _Land, along: NDArray[np.float64], plan: int) -> NDArray[np.float32]:
    """float32 [n, 3]: a line across the strips of one section, at places `along` of it."""
    width = SECTION / (1 + (plan >> 4) % 5)
    strip = np.floor(along / width).astype(np.uint32)
    crop = _mixed(np.uint32(plan) + strip * np.uint32(0x9E3779B9))
    colour = PALETTE[crop % len(PALETTE)]
    if land.step * 2 <= FURROW:
        depth = (crop >> np.uint32(8)) % 16 * 0.6
        colour = colour + (np.sin(along * (2 * np.pi / FURROW)) * depth)[:, None]
    border = np.abs(along / width - np.round(along / width)) * width < max(14.0, land.step * 0.7)
    return np.where(border[:, None], colour * 0.4 + _colour(92, 98, 60) * 0.6, colour).astype(np.float32)


def _roads(land: _Land) -> list[Grid]:
    """How much of each pixel is road: along every second section line, where the land lets one through."""
    lines = []
    for axis, (places, shape) in enumerate(((land.x, (1, SIDE)), (land.y, (SIDE, 1)))):
        number = np.round(places / (2 * SECTION))
        away = np.abs(places - number * (2 * SECTION))
        paved = _hash(number.astype(np.int64), np.array([axis]), land.salt + 901) % 4 > 0
        line = np.clip((max(45.0, land.step * 0.6) + land.step - away) / land.step, 0, 1) * paved
        lines.append(np.broadcast_to(line.astype(np.float32).reshape(shape), (SIDE, SIDE)))
    return lines


def _step(values: Grid, edge: float, width: float) -> Grid:
    """0 below the edge, 1 above, a ramp of `width` between."""
    ramp: Grid = values * np.float32(1 / width)
    ramp += np.float32(0.5 - edge / width)
    return np.clip(ramp, 0, 1, out=ramp)


def _paint(picture: NDArray[np.float32], colour: NDArray[np.float32], share: Grid) -> None:
    """Puts `colour` (of the picture's shape, or one for all) over the picture where `share` is above 0."""
    rows, columns = np.flatnonzero(share.any(axis=1)), np.flatnonzero(share.any(axis=0))
    if rows.size:
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        below = picture[box]
        below += ((colour[box] if colour.ndim == 3 else colour) - below) * share[box][..., None]


def _colour(red: int, green: int, blue: int) -> NDArray[np.float32]:
    return np.array([red, green, blue], np.float32)


def _hash(x: NDArray[np.int64], y: NDArray[np.int64], salt: int) -> Hashes:
    """32 bits for each pair of whole numbers."""
    first = x.astype(np.uint32) * np.uint32(0x85EBCA6B)
    second = y.astype(np.uint32) * np.uint32(0xC2B2AE35)
    return _mixed(_mixed(first + np.uint32(salt)) ^ second)


def _mixed(bits: Hashes) -> Hashes:
    """A bijection of 32 bits in which every input bit moves about half of the output."""
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(0x846CA68B)
    mixed: Hashes = bits ^ (bits >> np.uint32(16))
    return mixed


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
