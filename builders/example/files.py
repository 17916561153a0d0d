"""The files of the example: two missions over one terrain, ready for `plan` and `build`.

The missions overlap, so that the second one shares map cells and the engine with the first. The same version writes the
same bytes. No file of it is made for flying: the terrain shows no real place, and nobody trained the backbone.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
from PIL import Image

from builders.example.backbone import write_backbone
from builders.example.terrain import render, write_terrain
from builders.grid.tiles import Tile
from store.errors import Invalid, Unavailable

ZOOMS = (15, 16)
# West, south, east, north in degrees.
RIDGE = (-99.180, 47.008, -99.150, 47.033)
VALLEY = (-99.165, 47.008, -99.135, 47.033)
BOTH = (RIDGE[0], RIDGE[1], VALLEY[2], VALLEY[3])
# A tile that both missions show. The frame shows it as a camera might: a little darker.
FRAME = Tile(16, 14717, 23045)

_MISSION = """\
[mission]
id = "{name}"
flight = "2026-11-23-01"      # a flight is flown once
aircraft = ["uav-07"]
takeoff = {{ lat = 47.0201, lon = -99.1602, alt_m = 480.0 }}
area = {{ bbox = {bbox} }}   # west, south, east, north
sector = "stable_rear"        # or "active_conflict"
valid_for = "72h"             # from the moment of signing

[target]
host = "auto"                 # the class of this computer; give the aircraft's

[[tiles]]
source = "terrain.mbtiles"
zooms = {zooms}
captured = 2018-07-16

[[backbones]]
name = "embedder"
model = "embedder.onnx"
backend = "onnxruntime"
precision = "fp32"
inputs = {{ image = {{ shape = ["N", 3, 64, 64], min = 1, opt = 8, max = 32 }} }}

[[descriptors]]
name = "embedder"
backbone = "embedder"
output = "descriptor"
dtype = "float16"
preprocess = {{ resize = [64, 64], colour = "RGB", scale = "0..1" }}

[quality]                     # below this recall, nothing is published
recall_at_1 = 0.8
recall_at_5 = 0.9

[[files]]
name = "calibration/camera.yaml"
path = "camera.yaml"
"""


def mission_text(name: str, bbox: tuple[float, float, float, float]) -> str:
    """Return the text of a mission file over the example's files. `bbox` is in degrees."""
    return _MISSION.format(name=name, bbox=list(bbox), zooms=list(ZOOMS))


def write_example(folder: Path) -> tuple[str, ...]:
    """Write the example into a folder that does not exist yet or is empty, and return the names of its files.

    Raise Invalid for any other folder, Unavailable where a file cannot be written. What was written before stays.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        if os.listdir(folder):
            raise Invalid(
                f"{folder} has files already",
                remedy="name a folder that does not exist yet or is empty",
                path=str(folder),
            )
        west, south, east, north = (round(degrees * 10**7) for degrees in BOTH)
        write_terrain(folder / "terrain.mbtiles", (west, south, east, north), ZOOMS)
        write_backbone(folder / "embedder.onnx")
        (folder / "camera.yaml").write_text("fx: 712.4\nfy: 712.9\ncx: 319.5\ncy: 239.5\n")
        for name, bbox in (("ridge", RIDGE), ("valley", VALLEY)):
            (folder / f"{name}.toml").write_text(mission_text(name, bbox))
        Image.fromarray((render(FRAME) * 0.9).astype(np.uint8)).save(folder / "frame.jpg")
        return tuple(sorted(os.listdir(folder)))
    except (OSError, sqlite3.Error) as error:
        number = error.errno if isinstance(error, OSError) else None
        raise Unavailable(
            f"the example cannot be written into {folder}: {error}",
            remedy="name a folder that can be written, on a medium with 2 MB free",
            errno=number,
            path=str(folder),
        ) from error
