"""Landmarks over the procedural land: pictures as a camera takes them, turned and scaled, and their GeoJSON file; and
terrain in the wrong place."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from builders.example.terrain import SIDE, render
from builders.grid.tiles import Tile, tile_bounds
from tests.support.frames import frame_over, metres_of_tile

# Tiles of zoom 15 in the middle of the area LEFT of `field`, and headings of the frames over them.
PLACES = ((Tile(15, 7357, 11521), 37), (Tile(15, 7356, 11522), 212), (Tile(15, 7357, 11523), 300))
SCALE = 1.7
WITHIN_M = 300


def middle(tile: Tile) -> list[float]:
    """[longitude, latitude] of the middle of a tile."""
    below = tile_bounds(Tile(tile.z + 1, 2 * tile.x + 1, 2 * tile.y + 1))
    return [below[0], below[3]]


def feature(image: object, at: Sequence[float], **properties: object) -> dict[str, Any]:
    return {
        "type": "Feature",
        "properties": {"image": image, **properties},
        "geometry": {"type": "Point", "coordinates": list(at)},
    }


def write_landmarks(folder: Path) -> Path:
    """Write `points.geojson` and its pictures into a folder, and return the path."""
    (folder / "frames").mkdir(exist_ok=True)
    features = []
    for number, (tile, heading) in enumerate(PLACES):
        frame = frame_over(tile, scale=SCALE, heading=heading, size=(640, 600))
        Image.fromarray(frame).save(folder / f"frames/{number}.jpg", quality=92)
        metres = round(SCALE * metres_of_tile(tile), 3)
        features.append(feature(f"frames/{number}.jpg", middle(tile), metres=metres, heading=heading))
    path = folder / "points.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def mirrored(path: Path) -> None:
    """Exchange the northern and the southern tiles of an MBTiles file, zoom by zoom."""
    with closing(sqlite3.connect(path)) as db, db:
        for (zoom,) in db.execute("SELECT DISTINCT zoom_level FROM tiles").fetchall():
            ends = "SELECT min(tile_row), max(tile_row) FROM tiles WHERE zoom_level = ?"
            low, high = db.execute(ends, (zoom,)).fetchone()
            # Rows are unique: by way of negative ones.
            db.execute("UPDATE tiles SET tile_row = ? - tile_row WHERE zoom_level = ?", (low + high - 2**40, zoom))
            db.execute("UPDATE tiles SET tile_row = tile_row + ? WHERE zoom_level = ?", (2**40, zoom))


def shifted(path: Path, metres: float, zoom: int = 15) -> None:
    """Draw every tile of a zoom of an MBTiles file anew, from the land so many metres east of its place."""
    with closing(sqlite3.connect(path)) as db, db:
        where = "WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?"
        rows = db.execute("SELECT tile_column, tile_row FROM tiles WHERE zoom_level = ?", (zoom,)).fetchall()
        for column, row in rows:
            tile = Tile(zoom, column, (1 << zoom) - 1 - row)
            tiles, pixels = divmod(round(metres / metres_of_tile(tile) * SIDE), SIDE)
            parts = [render(tile._replace(x=tile.x + tiles + step)) for step in (0, 1)]
            file = io.BytesIO()
            Image.fromarray(np.concatenate(parts, axis=1)[:, pixels : pixels + SIDE]).save(file, "JPEG", quality=85)
            db.execute(f"UPDATE tiles SET tile_data = ? {where}", (file.getvalue(), zoom, column, row))
