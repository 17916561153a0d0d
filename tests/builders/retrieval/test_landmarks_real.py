"""Landmarks on real imagery with a real backbone: frames cut from it, turned and scaled, are found to the metre with
what is known of the camera, and hardly without."""

from __future__ import annotations

import io
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

import store
from builders.grid.tiles import Tile, tile_bounds
from builders.onboard.camera import Camera
from builders.onboard.flying import flying_engine
from builders.onboard.retriever import Retriever
from builders.retrieval.landmarks import metres_between
from tests.support.field import Desk
from tests.support.frames import cut, metres_of_tile

ZOOM = 17
VIEW = 4  # tiles a side
SCALE = 1.7


def test_turned_frames_of_real_imagery_are_found(desk: Desk, shared: Path) -> None:
    imagery = shared / "imagery/naip-20180716.mbtiles"
    with closing(sqlite3.connect(f"file:{imagery}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT tile_column, tile_row, tile_data FROM tiles WHERE zoom_level = ?", (ZOOM,)).fetchall()
    tiles = {(x, (1 << ZOOM) - 1 - y): data for x, y, data in rows}
    west, north = (min(place[axis] for place in tiles) for axis in (0, 1))
    east, south = (max(place[axis] for place in tiles) for axis in (0, 1))
    mosaic = np.zeros(((south - north + 1) * 256, (east - west + 1) * 256, 3), np.uint8)
    for (x, y), data in tiles.items():
        left, top = (x - west) * 256, (y - north) * 256
        mosaic[top : top + 256, left : left + 256] = np.asarray(Image.open(io.BytesIO(data)))
    first, last = tile_bounds(Tile(ZOOM, west + 3, north + 3)), tile_bounds(Tile(ZOOM, east - 3, south - 3))
    box = (first[0] + 1e-5, last[1] + 1e-5, last[2] - 1e-5, first[3] - 1e-5)
    desk.built(
        desk.write_mission(
            "left",
            tiles=imagery,
            model=shared / "models/place-embedder.onnx",
            resize=256,
            bbox=box,
            takeoff=((box[1] + box[3]) / 2, (box[0] + box[2]) / 2),
            zooms=(ZOOM,),
            of_set=f"view = {{ tiles = {VIEW}, stride = 1 }}",
            more="[quality]\nsample = 0\n",  # recall is the subject of other tests, and takes most of the time
        )
    )
    mission = store.takeoff_check(desk.store, "left", trust=desk.root.read_bytes(), now=int(time.time())).mission
    assert mission is not None
    engine = flying_engine(mission, "embedder")
    found = {"known": 0, "unknown": 0}
    with Retriever(mission, "embedder") as retriever:
        for column, row, heading in ((8, 8, 37), (14, 9, 188), (11, 8, 352), (9, 9, 94), (13, 8, 247), (12, 9, 68)):
            frame = cut(mosaic, (column * 256, row * 256), SCALE * VIEW * 256, heading, (1600, 1400))
            tile = Tile(ZOOM, west + column, north + row)
            bounds = tile_bounds(tile)  # its north-western corner is the middle of the frame
            metres = SCALE * VIEW * metres_of_tile(tile)
            for name, camera in (("known", Camera(metres, heading)), ("unknown", Camera())):
                [match] = retriever.locate(engine, frame, camera, top=1).matches
                found[name] += metres_between((bounds[3], bounds[0]), match.centre) < 1
    assert found["known"] == 6
    assert found["unknown"] < 3  # the one whose top is nearly north may be
