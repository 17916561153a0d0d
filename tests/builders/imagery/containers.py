"""The same tiles in each of the five containers that a tile source reads."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pmtiles.tile import Compression, TileType
from pmtiles.writer import Writer

from builders.grid.tiles import Tile, cell_of, cell_range, tile_id
from builders.grid.views import EQUATOR
from builders.imagery.geopackage import GeoPackageSource
from builders.imagery.geotiff import GeoTiffSource
from builders.imagery.mbtiles import MBTilesSource
from builders.imagery.pmtiles import PMTilesSource
from builders.imagery.png import write_png
from builders.imagery.roworder import Extent
from builders.imagery.sources import TileSource
from builders.imagery.sqlite import Database
from builders.imagery.stamps import SourceStamp
from builders.imagery.xyz import XyzSource
from tests.support.geopackage import write_geopackage

ZOOM, SIDE = 15, 16
# A rectangle of tiles over the corner of four cells.
X0, Y0, WIDE, HIGH = 7355, 11519, 6, 5
HOLE = Tile(ZOOM, X0 + 1, Y0 + 1)
# Where the tests look for tiles: round the rectangle, or at no zoom, where they name the order of the rows.
ROUND = Extent((-992200000, 469500000, -991200000, 470500000), (ZOOM,))
NOWHERE = Extent(ROUND.bbox, ())
Pixels = Mapping[Tile, NDArray[np.uint8]]


def open_mbtiles(path: Path) -> MBTilesSource:
    """The open file, its rows counted from the south."""
    return MBTilesSource(Database(path), NOWHERE, "tms")


def open_folder(path: Path) -> XyzSource:
    """The open folder, its rows counted from the north."""
    return XyzSource(path, SIDE, NOWHERE, "xyz")


def tile_pixels() -> dict[Tile, NDArray[np.uint8]]:
    """uint8 [16, 16, 3] of each tile of the rectangle but `HOLE`, no two alike."""
    random = np.random.default_rng(15)
    tiles = [Tile(ZOOM, X0 + i, Y0 + j) for j in range(HIGH) for i in range(WIDE)]
    return {tile: random.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for tile in tiles if tile != HOLE}


def encoded(pixels: Pixels) -> dict[int, bytes]:
    """Tile id -> PNG, ascending."""
    return dict(sorted((tile_id(tile), write_png(array)) for tile, array in pixels.items()))


def cells_of(pixels: Pixels) -> list[tuple[Tile, int]]:
    """The cells of the tiles, each with the zoom of its tiles, in the order of ids."""
    return sorted({(cell_of(tile), tile.z) for tile in pixels}, key=lambda item: cell_range(*item))


@dataclass(frozen=True)
class Container:
    """How tiles are written into a container, opened, and damaged in a way that a read of all tiles meets."""

    name: str
    write: Callable[[Path, Pixels], None]
    open: Callable[[Path], TileSource]
    damage: Callable[[Path], None]

    def data_file(self, path: Path) -> Path:
        """The file that holds the first tile of the rectangle."""
        return path / f"{Tile(ZOOM, X0, Y0)}.png" if path.is_dir() else path


def _write_mbtiles(path: Path, pixels: Pixels) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE metadata (name text, value text)")
        db.execute("INSERT INTO metadata VALUES ('format', 'png'), ('minzoom', '15'), ('maxzoom', '15')")
        db.execute("CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, tile_data blob)")
        rows = [(t.z, t.x, (1 << t.z) - 1 - t.y, write_png(array)) for t, array in pixels.items()]
        db.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)


def _damage_mbtiles(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))


def _write_geopackage(path: Path, pixels: Pixels) -> None:
    write_geopackage(path, {tile: write_png(array) for tile, array in pixels.items()}, side=SIDE)


def _write_pmtiles(path: Path, pixels: Pixels) -> None:
    with path.open("wb") as file:
        writer: Any = Writer(file)  # type: ignore[no-untyped-call]
        for number, data in encoded(pixels).items():
            writer.write_tile(number, data)
        writer.finalize({"tile_type": TileType.PNG, "tile_compression": Compression.NONE}, {})


def _damage_pmtiles(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _write_xyz(path: Path, pixels: Pixels) -> None:
    for tile, array in pixels.items():
        file = path / f"{tile}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(write_png(array))


def _damage_xyz(path: Path) -> None:
    file = path / f"{Tile(ZOOM, X0, Y0)}.png"
    file.unlink()
    file.mkdir()


def _write_geotiff(path: Path, pixels: Pixels) -> None:
    """In web mercator on the grid of the zoom; what no tile covers is transparent."""
    import rasterio
    import rasterio.transform

    raster = np.zeros((4, HIGH * SIDE, WIDE * SIDE), np.uint8)
    for tile, array in pixels.items():
        top, left = (tile.y - Y0) * SIDE, (tile.x - X0) * SIDE
        raster[:3, top : top + SIDE, left : left + SIDE] = array.transpose(2, 0, 1)
        raster[3, top : top + SIDE, left : left + SIDE] = 255
    pixel = EQUATOR / (1 << ZOOM) / SIDE
    west, north = X0 * pixel * SIDE - EQUATOR / 2, EQUATOR / 2 - Y0 * pixel * SIDE
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=HIGH * SIDE,
        width=WIDE * SIDE,
        count=4,
        dtype="uint8",
        crs="EPSG:3857",
        transform=rasterio.transform.from_origin(west, north, pixel, pixel),  # type: ignore[no-untyped-call]
        photometric="RGB",
        alpha="YES",
    ) as file:
        file.write(raster)


def _damage_geotiff(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


CONTAINERS = [
    Container("mbtiles", _write_mbtiles, lambda path: MBTilesSource(Database(path), ROUND), _damage_mbtiles),
    Container("geopackage", _write_geopackage, lambda path: GeoPackageSource(Database(path)), _damage_mbtiles),
    Container("pmtiles", _write_pmtiles, PMTilesSource, _damage_pmtiles),
    Container("xyz", _write_xyz, lambda path: XyzSource(path, SIDE, ROUND), _damage_xyz),
    Container("geotiff", _write_geotiff, lambda path: GeoTiffSource(path, SIDE), _damage_geotiff),
]


def wait_past(stamp: SourceStamp, folder: Path) -> None:
    """Returns once the clock of the file system is past a stamp: two writes within one of its ticks have one time."""
    probe = folder / "clock"
    while True:
        probe.write_bytes(b"")
        os.utime(probe)
        if probe.stat().st_ctime_ns > stamp.newest:
            probe.unlink()
            return


def change_in_place(file: Path) -> None:
    """Changes the last byte; size and mtime stay."""
    state = file.stat()
    with file.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)[0]
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last ^ 1]))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)


def replace_by_copy(path: Path) -> None:
    """Puts a copy with the same bytes and mtime in the place of a file or a folder."""
    aside = path.with_name("aside")
    path.rename(aside)
    if aside.is_dir():
        shutil.copytree(aside, path)
    else:
        shutil.copy2(aside, path)
