"""Pictures that a camera takes otherwise than the map shows the ground, and maps that lie in the wrong place: the
mission is GO, and the place that a picture is given is not where it was taken.

The verdict of a query is `found` or `another place`, with the number of assumptions that the output names.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.descriptors.decoding import BadTile, tile_pixels
from builders.example.terrain import render
from builders.grid.tiles import Tile
from builders.onboard.camera import Camera
from builders.retrieval.query import locate, read_picture
from store import takeoff_check
from store.errors import FlightbagError
from store.takeoff.mission import VerifiedMission
from tests.conformance.wrong import wrong
from tests.support.field import Desk, copy_of, make_desk
from tests.support.frames import frame_over, metres_of_tile
from tests.support.landmarks import WITHIN_M, mirrored, shifted, write_landmarks

TILE = Tile(15, 7357, 11522)
METRES = metres_of_tile(TILE)
QUALITY = (
    f'[quality]\nrecall_at_1 = 0\nrecall_at_5 = 0\nlandmarks = "points.geojson"\nlandmarks_within_m = {WITHIN_M}\n'
)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@cache
def _desk() -> Desk:
    """A desk with landmarks; the cases copy it."""
    folder = Path(_folder().name) / "desk"
    folder.mkdir()
    write_landmarks(folder)
    return make_desk(folder)


@cache
def _mission() -> VerifiedMission:
    """The mission that all queries search, built once."""
    desk = copy_of(_desk(), Path(_folder().name) / "built")
    desk.built(desk.write_mission("left", zooms=(15,)))
    verdict = takeoff_check(desk.store, "left", trust=desk.root.read_bytes(), now=int(time.time()))
    assert verdict.mission is not None
    return verdict.mission


def queried(folder: Path, data: bytes, camera: Camera | None = None) -> str:
    """The verdict of a query with a picture of the middle of TILE."""
    path = folder / "frame"
    path.write_bytes(data)
    try:
        picture = read_picture(path)
        found = locate(_mission(), picture, camera or Camera(), set_=None, zoom=None, index="", top=1)
    except FlightbagError as error:
        return error.kind or type(error).__name__
    verdict = "found" if found.matches[0].tile == TILE else "another place"
    return f"{verdict}, {len(found.assumed)} assumed"


def encoded(kind: str, pixels: NDArray[Any] | Image.Image, orientation: int = 1, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, kind, exif=exif, **options)
    return file.getvalue()


@wrong("camera", "a JPEG that its EXIF orientation turns by 90 degrees", before="another place", now="found, 3 assumed")
def turned_by_exif(folder: Path) -> str:
    return queried(folder, encoded("JPEG", np.rot90(render(TILE)), 6, quality=92))


@wrong("camera", "a WebP that its EXIF orientation mirrors", before="another place", now="found, 3 assumed")
def mirrored_by_exif(folder: Path) -> str:
    return queried(folder, encoded("WEBP", render(TILE).transpose(1, 0, 2), 5, quality=92))


@wrong("camera", "a frame of 5280 x 3956 pixels", before="Invalid: cannot be decoded", now="found, 3 assumed")
def of_a_common_drone(folder: Path) -> str:
    frame = Image.fromarray(frame_over(TILE, scale=5280 / 3956, size=(1320, 989)))
    return queried(folder, encoded("JPEG", frame.resize((5280, 3956)), quality=85))


@wrong("camera", "a grey PNG of 16 bits", before="Invalid: cannot be decoded", now="unsupported-picture")
def of_16_bits(folder: Path) -> str:
    return queried(folder, encoded("PNG", render(TILE)[..., 1].astype(np.uint16) << 4))


@wrong("camera", "a grey JPEG over a map in colour", before="another place", now="another place, 4 assumed")
def grey(folder: Path) -> str:
    return queried(folder, encoded("JPEG", Image.fromarray(render(TILE)).convert("L"), quality=95))


@wrong("camera", "a JPEG in CMYK", before="Invalid: cannot be decoded", now="unsupported-picture")
def in_cmyk(folder: Path) -> str:
    return queried(folder, encoded("JPEG", Image.fromarray(render(TILE)).convert("CMYK")))


@wrong("camera", "a JPEG with two pictures (MPO), the first of the place", before="found", now="found, 3 assumed")
def with_two_pictures(folder: Path) -> str:
    first, second = (Image.fromarray(render(tile)) for tile in (TILE, TILE._replace(x=TILE.x + 1)))
    return queried(folder, encoded("MPO", first, save_all=True, append_images=[second], quality=92))


@wrong("camera", "a PNG whose corners are transparent", before="another place", now="unsupported-picture")
def transparent(folder: Path) -> str:
    frame = Image.fromarray(frame_over(TILE, scale=1.3, heading=30, size=(480, 480)))
    return queried(folder, encoded("PNG", frame.convert("RGBA").rotate(30, expand=True)))


@wrong(
    "camera", "an animation whose first frame shows another place", before="another place", now="unsupported-picture"
)
def animated(folder: Path) -> str:
    other, here = (Image.fromarray(render(tile)) for tile in (TILE._replace(x=TILE.x + 1), TILE))
    return queried(folder, encoded("PNG", other, save_all=True, append_images=[here]))


@wrong(
    "camera",
    "a frame turned by 37 degrees that shows 1.7 times the ground of a row, and nothing is known of it",
    before="another place, and no assumption named",
    now="another place, 3 assumed",
)
def turned_and_nothing_known(folder: Path) -> str:
    frame = frame_over(TILE, scale=1.7, heading=37, size=(640, 600))
    return queried(folder, encoded("JPEG", frame, quality=92))


@wrong("camera", "the same with --metres and --heading", before="no such options", now="found, 1 assumed")
def turned_and_known(folder: Path) -> str:
    frame = frame_over(TILE, scale=1.7, heading=37, size=(640, 600))
    return queried(folder, encoded("JPEG", frame, quality=92), Camera(1.7 * METRES, 37))


@wrong(
    "camera",
    "a frame from a height, with --height and --fov",
    before="no such options",
    now="found, 1 assumed",
)
def from_a_height(folder: Path) -> str:
    frame = frame_over(TILE, scale=2.2, heading=275, size=(500, 640))
    return queried(folder, encoded("PNG", frame), Camera.at_height(1.1 * METRES, 90, 275))


@wrong("camera", "a frame that shows less ground than a row of the map", before="another place", now="small-frame")
def too_little_ground(folder: Path) -> str:
    return queried(folder, encoded("PNG", render(TILE)[64:192, 64:192]), Camera(METRES / 2, 0))


@wrong("map", "a tile that its EXIF orientation turns: some programs follow it", before="good", now="undecodable")
def tile_turned_by_exif(folder: Path) -> str:
    try:
        tile_pixels(encoded("JPEG", render(TILE), 6), 256)
    except BadTile as error:
        return error.reason
    return "good"


def built_with_landmarks(folder: Path, change: Callable[[Desk], object], quality: str = QUALITY) -> str:
    """The outcome of a build with landmarks over changed imagery."""
    desk = copy_of(_desk(), folder / "desk")
    change(desk)
    ran = desk.build(desk.write_mission("left", zooms=(15,), more=quality))
    if "figures" not in ran.json:
        return str(ran.json["error"]["kind"])
    low = [one["name"] for one in ran.json["figures"] if one["value"] < one["least"]]
    return "GO" if ran.json["outcome"] == "built" else f"refused: {', '.join(low)}"


@wrong("map", "landmarks, and the map where it belongs", before="no landmarks", now="GO")
def in_its_place(folder: Path) -> str:
    return built_with_landmarks(folder, lambda desk: None)


@wrong("map", "all rows of the map exchanged, north and south", before="GO", now="refused: landmarks/embedder")
def mirrored_map(folder: Path) -> str:
    return built_with_landmarks(folder, lambda desk: mirrored(desk.folder / "terrain.mbtiles"))


@wrong("map", "a map that lies 500 m beside the world", before="GO", now="refused: landmarks/embedder")
def shifted_map(folder: Path) -> str:
    return built_with_landmarks(folder, lambda desk: shifted(desk.folder / "terrain.mbtiles", 500))


@wrong("map", "landmarks whose distance holds the whole area (unnamed)", before="no landmarks", now="bad-landmark")
def landmarks_within_anything(folder: Path) -> str:
    return built_with_landmarks(
        folder, lambda desk: None, QUALITY.replace(f"within_m = {WITHIN_M}", "within_m = 100000")
    )


@wrong("map", "a landmark whose longitude and latitude are exchanged", before="no landmarks", now="invalid")
def exchanged_coordinates(folder: Path) -> str:
    def exchange(desk: Desk) -> None:
        points = json.loads((desk.folder / "points.geojson").read_text())
        points["features"][1]["geometry"]["coordinates"].reverse()
        (desk.folder / "points.geojson").write_text(json.dumps(points))

    return built_with_landmarks(folder, exchange)
