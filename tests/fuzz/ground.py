"""The readers of files that a planner brings: the mission, maps, pictures, areas, models; and those that keep a cache.

Their law is that they end: with a value or with one of the errors that they name, within the time and the memory of an
input (see `__main__`). What a value means has tests of its own.
"""

from __future__ import annotations

import atexit
import io
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from builders.areas.drawing import open_drawing
from builders.descriptors.decoding import tile_pixels
from builders.descriptors.tensors import read_tensors
from builders.engines.card import Card
from builders.engines.model import parse_onnx
from builders.engines.npz import read_npz
from builders.example.terrain import render_jpeg, write_terrain
from builders.grid.tiles import Tile
from builders.imagery.footprints import read_footprints
from builders.imagery.inflate import unpacked
from builders.imagery.repetition import picture_of
from builders.imagery.roworder import Extent
from builders.imagery.signature import fault_of
from builders.imagery.sources import open_source
from builders.imagery.structure import size_of
from builders.mission.reader import load_mission
from builders.retrieval.landmarks import read_landmarks
from builders.retrieval.query import read_picture
from store.errors import FlightbagError
from tests.fuzz.targets import Target, of_memory
from tests.support.drawings import (
    HOME,
    RING,
    area_in,
    at,
    circle,
    corridor_in,
    corridor_scan,
    fence,
    kml,
    kml_line,
    kml_point,
    kml_polygon,
    kmz,
    placemark,
    plan,
    route,
    simple,
    survey,
    waypoints,
)
from tests.support.geopackage import write_geopackage
from tests.support.missions_toml import mission_toml

TILE = Tile(12, 918, 1441)
BBOX = (-993000000, 467000000, -992000000, 468000000)


@cache
def folder() -> Path:
    made = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def of_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    """The reader of a file with this name."""

    def run(data: bytes) -> None:
        path = folder() / name
        path.write_bytes(data)
        of_bytes(lambda _: read(path))(data)

    return run


def of_bytes(read: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        try:
            read(data)
        except FlightbagError as error:
            if of_memory(error):
                raise MemoryError("memory ran out, and that was told as a refusal") from error

    return run


def read_tiles(path: Path) -> None:
    """Open a tile source and read what it has of a small place, as a plan does."""
    with open_source(path, 256, Extent(BBOX, (12,))) as source:
        source.read(TILE)
        assert all(source.notes), source.stated
        for _ in source.cell(Tile(8, TILE.x >> 4, TILE.y >> 4), 12):
            pass


def geojson(kind: str, coordinates: Any, **properties: Any) -> bytes:
    geometry = {"type": kind, "coordinates": coordinates}
    feature = {"type": "Feature", "properties": properties, "geometry": geometry}
    return json.dumps({"type": "FeatureCollection", "features": [feature]}).encode()


SQUARE = [[[7.0, 46.0], [7.1, 46.0], [7.1, 46.1], [7.0, 46.1], [7.0, 46.0]]]
LINE = [[7.0, 46.0], [7.1, 46.05], [7.2, 46.0]]
TILES_PNG = np.arange(256 * 256 * 3, dtype=np.uint32).astype(np.uint8).reshape(256, 256, 3)


def picture(format_: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(TILES_PNG[:32, :32]).save(out, format_, **options)
    return out.getvalue()


PICTURES = [picture("PNG"), picture("JPEG", progressive=True), picture("WEBP"), picture("JPEG", quality=20)]


def mbtiles(view: bool) -> bytes:
    path = folder() / f"seed-{view}.mbtiles"
    write_terrain(path, (-992600000, 467600000, -992500000, 467700000), (10,), view=view)
    return path.read_bytes()


def geopackage(trimmed: bool) -> bytes:
    path = folder() / f"seed-{trimmed}.gpkg"
    write_geopackage(path, {TILE: PICTURES[0], Tile(11, TILE.x >> 1, TILE.y >> 1): PICTURES[1]}, trimmed=trimmed)
    return path.read_bytes()


def slow_view() -> bytes:
    """An SQLite file whose view never ends."""
    path = folder() / "slow.mbtiles"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE metadata (name text, value text)")
        db.execute(
            "CREATE VIEW tiles AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT 12 AS zoom_level, i AS tile_column, i AS tile_row, x'00' AS tile_data FROM n"
        )
        db.commit()
    return path.read_bytes()


def pmtiles() -> bytes:
    from pmtiles.tile import Compression, TileType
    from pmtiles.writer import Writer

    out = io.BytesIO()
    writer: Any = Writer(out)  # type: ignore[no-untyped-call]
    for number in (1, 2, 900):
        writer.write_tile(number, PICTURES[0])
    writer.finalize({"tile_type": TileType.PNG, "tile_compression": Compression.NONE}, {})
    return out.getvalue()


def geotiff() -> bytes:
    out = io.BytesIO()
    Image.fromarray(TILES_PNG[:16, :16]).save(out, "TIFF")
    return out.getvalue()


VRT = b"""<VRTDataset rasterXSize="16" rasterYSize="16"><SRS>EPSG:3857</SRS><GeoTransform>0,1,0,0,0,-1</GeoTransform>
<VRTRasterBand dataType="Byte" band="1"><ColorInterp>Gray</ColorInterp><NoDataValue>0</NoDataValue><ComplexSource>
<SourceFilename relativeToVRT="1">map.vrt</SourceFilename><SourceBand>1</SourceBand>
<SrcRect xOff="0" yOff="0" xSize="16" ySize="16"/><DstRect xOff="0" yOff="0" xSize="16" ySize="16"/><NODATA>0</NODATA>
</ComplexSource></VRTRasterBand></VRTDataset>"""


def onnx_model() -> bytes:
    from onnx import TensorProto, helper

    node = helper.make_node("Relu", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    return bytes(helper.make_model(graph).SerializeToString())


def read_drawing(path: Path) -> None:
    """All that a mission file may ask of a drawing."""
    for ask in (area_in, lambda p: corridor_in(p, 500.0), lambda p: open_drawing(p).home(None)):
        try:
            ask(path)
        except FlightbagError:
            continue


MISSION = mission_toml(
    mission="north-ridge",
    tiles=Path("map.mbtiles"),
    model=Path("model.onnx"),
    bbox=(7.0, 46.0, 7.1, 46.1),
    zooms=(15,),
    takeoff=(46.05, 7.05),
).encode()
TENSORS = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
SAFETENSORS = len(TENSORS).to_bytes(8, "little") + TENSORS + bytes(8)

# By name: the seeds, the reader, and how many bytes an input may have.
READERS: dict[str, tuple[Callable[[], list[bytes]], Callable[[bytes], None], int]] = {
    "mission-file": (lambda: [MISSION], of_file("mission.toml", load_mission), 8192),
    "geojson-area": (
        lambda: [geojson("Polygon", SQUARE), geojson("MultiPolygon", [SQUARE])],
        of_file("area.geojson", area_in),
        4096,
    ),
    "corridor": (
        lambda: [geojson("LineString", LINE)],
        of_file("line.geojson", lambda p: corridor_in(p, 500.0)),
        2048,
    ),
    "kml": (
        lambda: [
            kml(placemark(kml_polygon(), "a"), placemark(kml_point(47.02, -99.16, 5))).encode(),
            kmz(doc_kml=kml(placemark(f"<MultiGeometry>{kml_polygon()}{kml_line()}</MultiGeometry>"))),
        ],
        of_file("area", read_drawing),
        4096,
    ),
    "plan": (
        lambda: [
            plan(polygons=[fence()], circles=[circle([47.0, -99.0], 100)], items=route()).encode(),
            plan(items=[*route()[:2], survey(), corridor_scan(), simple(177, first=(2, 1, 0, 0))]).encode(),
        ],
        of_file("area", read_drawing),
        8192,
    ),
    "waypoints": (
        lambda: [
            waypoints((0, 16, 0, 0, 0, 0, *HOME), at(16, 47.01, -99.1), at(20, 0, 0)).encode(),
            waypoints(*(at(5001, *place, first=(4, 0, 0, 0)) for place in RING)).encode(),
        ],
        of_file("area", read_drawing),
        4096,
    ),
    "footprints": (
        lambda: [geojson("Polygon", SQUARE, date="2026-06-01")],
        of_file("footprints.geojson", read_footprints),
        4096,
    ),
    "landmarks": (
        lambda: [geojson("Point", [7.0, 46.0], image="picture.png")],
        of_file("landmarks.geojson", lambda path: read_landmarks(path, 1000)),
        4096,
    ),
    "mbtiles": (lambda: [mbtiles(False), mbtiles(True), slow_view()], of_file("map.mbtiles", read_tiles), 2**17),
    "geopackage": (lambda: [geopackage(False), geopackage(True)], of_file("map.gpkg", read_tiles), 2**17),
    "pmtiles": (lambda: [pmtiles()], of_file("map.pmtiles", read_tiles), 2**15),
    "geotiff": (lambda: [geotiff()], of_file("map.tif", read_tiles), 8192),
    "vrt": (lambda: [VRT], of_file("map.vrt", read_tiles), 4096),
    "tile-image": (
        lambda: [*PICTURES, render_jpeg(TILE)],
        of_bytes(lambda data: (size_of(unpacked(data)), fault_of(data), picture_of(data), tile_pixels(data, 32))),
        2**15,
    ),
    "picture": (lambda: PICTURES, of_file("picture", read_picture), 2**14),
    "safetensors": (lambda: [SAFETENSORS], of_bytes(read_tensors), 2048),
    "card": (lambda: [_card()], of_bytes(Card.parse), 2**14),
    "onnx": (lambda: [onnx_model()], of_bytes(lambda data: parse_onnx(data, "the model")), 4096),
    "reference": (lambda: [_arrays()], of_file("io.npz", lambda path: read_npz(path, "io.npz")), 2048),
}


def _arrays() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, image=np.zeros((1, 3, 2, 2), np.float32), points=np.asfortranarray(np.ones((2, 3), int)))
    return file.getvalue()


def _card() -> bytes:
    from tests.builders.engines.test_card import card

    return bytes(card().render())


def target(name: str) -> Target:
    """Return one target; only its own seeds are made."""
    seeds, run, limit = READERS[name]
    return Target(name, seeds(), run, limit)
