"""GeoPackages of raster tiles, as OGC 12-128r19 prescribes them: the bytes of tiles as they are."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from builders.grid.tiles import Tile
from builders.grid.views import EQUATOR

_HALF = EQUATOR / 2


def write_geopackage(
    path: Path, tiles: Mapping[Tile, bytes], *, side: int = 256, table: str = "imagery", trimmed: bool = False
) -> None:
    """Writes one table of tiles in EPSG:3857.

    Its box is the whole world, or, if `trimmed`, as small as the tiles of the lowest zoom; the number of a zoom_level
    is then counted from there, as some writers do.
    """
    zooms = sorted({tile.z for tile in tiles})
    lowest = zooms[0] if trimmed else 0
    corner = [tile for tile in tiles if tile.z == lowest] if trimmed else [Tile(0, 0, 0)]
    left, right = min(tile.x for tile in corner), max(tile.x for tile in corner) + 1
    top, bottom = min(tile.y for tile in corner), max(tile.y for tile in corner) + 1
    span = EQUATOR / (1 << lowest)
    box = (left * span - _HALF, _HALF - bottom * span, right * span - _HALF, _HALF - top * span)
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(SCHEMA)
        db.execute("INSERT INTO gpkg_contents VALUES (?, 'tiles', ?, '', '2026-01-01T00:00:00.000Z', ?, ?, ?, ?, 3857)",
                   (table, table, *box))  # fmt: skip
        db.execute("INSERT INTO gpkg_tile_matrix_set VALUES (?, 3857, ?, ?, ?, ?)", (table, *box))
        db.execute(
            f'CREATE TABLE "{table}" (id INTEGER PRIMARY KEY AUTOINCREMENT, zoom_level INTEGER NOT NULL, '
            "tile_column INTEGER NOT NULL, tile_row INTEGER NOT NULL, tile_data BLOB NOT NULL, "
            "UNIQUE (zoom_level, tile_column, tile_row))"
        )
        for zoom in zooms:
            scale, pixel = 1 << (zoom - lowest), EQUATOR / (1 << zoom) / side
            wide, high = (right - left) * scale, (bottom - top) * scale
            db.execute("INSERT INTO gpkg_tile_matrix VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                       (table, zoom - lowest, wide, high, side, side, pixel, pixel))  # fmt: skip
            rows = [
                (zoom - lowest, tile.x - left * scale, tile.y - top * scale, data)
                for tile, data in tiles.items()
                if tile.z == zoom
            ]
            columns = "zoom_level, tile_column, tile_row, tile_data"
            db.executemany(f'INSERT INTO "{table}" ({columns}) VALUES (?, ?, ?, ?)', rows)


SCHEMA = """
PRAGMA application_id = 0x47504B47;
PRAGMA user_version = 10300;
CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER PRIMARY KEY, organization TEXT NOT NULL,
    organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT);
INSERT INTO gpkg_spatial_ref_sys VALUES ('WGS 84', 4326, 'EPSG', 4326, 'undefined', ''),
    ('WGS 84 / Pseudo-Mercator', 3857, 'EPSG', 3857, 'undefined', '');
CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT UNIQUE,
    description TEXT, last_change DATETIME NOT NULL, min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, max_y DOUBLE,
    srs_id INTEGER);
CREATE TABLE gpkg_tile_matrix_set (table_name TEXT NOT NULL PRIMARY KEY, srs_id INTEGER NOT NULL, min_x DOUBLE NOT NULL,
    min_y DOUBLE NOT NULL, max_x DOUBLE NOT NULL, max_y DOUBLE NOT NULL);
CREATE TABLE gpkg_tile_matrix (table_name TEXT NOT NULL, zoom_level INTEGER NOT NULL, matrix_width INTEGER NOT NULL,
    matrix_height INTEGER NOT NULL, tile_width INTEGER NOT NULL, tile_height INTEGER NOT NULL,
    pixel_x_size DOUBLE NOT NULL, pixel_y_size DOUBLE NOT NULL, PRIMARY KEY (table_name, zoom_level));
"""
