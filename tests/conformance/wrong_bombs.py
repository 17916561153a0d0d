"""Small inputs that ask for hours or gigabytes, and files that would carry away what nobody meant to give.

Each is judged in a process of its own, which may take five seconds of a processor and half a GiB of memory beyond what
its libraries take: `python -m tests.conformance.wrong_bombs KIND PATH` prints the verdict. The input is made outside of
it.
"""

from __future__ import annotations

import io
import os
import resource
import sqlite3
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from store.errors import FlightbagError
from tests.conformance.wrong import wrong

SECONDS, MEMORY = 5, 512 << 20
Judge = Callable[[Path], str]


# -- what judges, in the process that is bounded


def _tile() -> Judge:
    from builders.descriptors.decoding import BadTile, tile_pixels

    def judge(path: Path) -> str:
        try:
            tile_pixels(path.read_bytes(), 256)
        except BadTile as error:
            return error.reason
        return "good"

    return judge


def _picture() -> Judge:
    from builders.descriptors.photo import decode_photo

    return lambda path: str(decode_photo(path.read_bytes()).shape)


def _mission() -> Judge:
    from builders.mission.reader import load_mission

    return lambda path: "GO" if load_mission(path) else ""


def _area() -> Judge:
    from tests.support.drawings import area_in

    return lambda path: "GO" if area_in(path) else ""


def _source() -> Judge:
    from builders.grid.tiles import Tile
    from builders.imagery.roworder import Extent
    from builders.imagery.sources import open_source

    import_raster()

    def judge(path: Path) -> str:
        with open_source(path, 256, Extent((-10, -10, 10, 10), ())) as source:
            return f"GO, {len(list(source.cell(Tile(0, 0, 0), 4)))} tiles"

    return judge


def import_raster() -> None:
    """Import what a raster needs, before memory is bounded."""
    import importlib

    for module in ("rasterio", "rasterio.warp", "rasterio.crs"):
        importlib.import_module(module)


def _model() -> Judge:
    from builders.engines.model import hash_model

    return lambda path: f"GO, {hash_model(path).size} bytes"


JUDGES = {
    "area": _area,
    "mission": _mission,
    "model": _model,
    "picture": _picture,
    "source": _source,
    "tile": _tile,
}


def main(kind: str, path: Path) -> None:
    judge = JUDGES[kind]()
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    spent = sum(os.times()[:2])
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + SECONDS, int(spent) + SECONDS))
    try:
        verdict = judge(path)
    except FlightbagError as error:
        verdict = error.kind or type(error).__name__
    except MemoryError:
        verdict = "memory ran out"
    print(verdict)


def judged(kind: str, path: Path) -> str:
    command = [sys.executable, "-W", "ignore", "-m", "tests.conformance.wrong_bombs", kind, str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return ran.stdout.strip() if ran.returncode == 0 else f"ended with {ran.returncode}: {ran.stderr[-300:]}"


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# -- text


@wrong("bombs", "a mission file of 80 kB: one key of 40,000 parts", before="6.4 GB", now="Invalid")
def dotted_key(folder: Path) -> str:
    return judged("mission", written(folder / "m.toml", b".".join([b"a"] * 40_000) + b" = 1\n"))


@wrong("bombs", "a mission file whose table has a name of 400 parts, and 20,000 keys", before="12 s", now="Invalid")
def keys_of_a_long_table(folder: Path) -> str:
    keys = b"".join(b"k%d = 1\n" % number for number in range(20_000))
    return judged("mission", written(folder / "m.toml", b"[" + b".".join([b"a"] * 400) + b"]\n" + keys))


@wrong("bombs", "an area of 16 MiB: eight million numbers", before="1 GB", now="Invalid")
def numbers_in_an_area(folder: Path) -> str:
    return judged("area", written(folder / "a.geojson", b"[" + b"0," * 8_000_000 + b"0]"))


@wrong("bombs", "an area whose object has 300,000 members, the last one twice", before="many minutes", now="Invalid")
def member_twice(folder: Path) -> str:
    members = b"".join(b'"%d":0,' % number for number in range(300_000))
    return judged("area", written(folder / "a.geojson", b"{" + members + b'"299999":0}'))


@wrong("bombs", "a KML whose entities unfold a billion times", before="not read", now="Invalid")
def laughs(folder: Path) -> str:
    entities = b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 10))
    text = b'<!DOCTYPE kml [<!ENTITY a0 "ha">' + entities + b"]><kml><name>&a9;</name></kml>"
    return judged("area", written(folder / "a.kml", text))


@wrong("bombs", "a KMZ of 1 MB whose KML has a gigabyte", before="not read", now="Invalid")
def unfolding_kmz(folder: Path) -> str:
    with zipfile.ZipFile(folder / "a.kmz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("doc.kml", "w") as file:
        for _ in range(1024):
            file.write(bytes(2**20))
    return judged("area", folder / "a.kmz")


@wrong("bombs", "a KML of 16 MiB: four million positions", before="not read", now="Invalid")
def positions_in_a_kml(folder: Path) -> str:
    line = b"<LineString><coordinates>" + b"1,1 " * 4_000_000 + b"</coordinates></LineString>"
    return judged("area", written(folder / "a.kml", b"<kml><Placemark>" + line + b"</Placemark></kml>"))


# -- images


def image(kind: str, side: int, **options: object) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.effect_noise((side, side), 60).convert("RGB").save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def of_scans(side: int, count: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (side, side), (9, 8, 7)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


@wrong("bombs", "a tile of 4096 pixels a side and 20,000 scans; the map has 256", before="30 s", now="undecodable")
def scans_of_another_size(folder: Path) -> str:
    return judged("tile", written(folder / "tile", of_scans(4096, 20_000)))


@wrong("bombs", "the same with 80 scans (unnamed)", before="decoded, then wrong-size", now="wrong-size")
def fewer_scans_of_another_size(folder: Path) -> str:
    return judged("tile", written(folder / "tile", of_scans(4096, 80)))


@wrong("bombs", "a tile of the right size with 400,000 scans", before="about 95 s", now="undecodable")
def scans_of_the_right_size(folder: Path) -> str:
    return judged("tile", written(folder / "tile", of_scans(256, 400_000)))


@wrong("bombs", "a picture of a camera with 20,000 scans", before="minutes", now="bad-picture")
def scans_of_a_picture(folder: Path) -> str:
    return judged("picture", written(folder / "frame", of_scans(4096, 20_000)))


@wrong("bombs", "a PNG of 8 MB with 8,000 colour profiles of a megabyte each", before="31 s", now="undecodable")
def profiles(folder: Path) -> str:
    png, profile = image("PNG", 256), chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 20)))
    return judged("tile", written(folder / "tile", png[:33] + profile * 8000 + png[33:]))


@wrong("bombs", "a PNG of 16 MB with a million empty chunks", before="8 s", now="undecodable")
def empty_chunks(folder: Path) -> str:
    png = image("PNG", 256)
    return judged("tile", written(folder / "tile", png[:33] + chunk(b"tEXt", b"k\0") * 1_000_000 + png[33:]))


@wrong("bombs", "a JPEG of 12 MB with three million comments", before="17 s", now="undecodable")
def comments(folder: Path) -> str:
    data = image("JPEG", 256)
    return judged("tile", written(folder / "tile", data[:2] + b"\xff\xfe\0\2" * 3_000_000 + data[2:]))


@wrong("bombs", "a JPEG whose 4,900 EXIF entries name the same 30 kB", before="copied 4,900 times", now="undecodable")
def exif_copies(folder: Path) -> str:
    rows = b"".join(struct.pack("<HHII", 0x8000 + number, 7, 30_000, 0) for number in range(4900))
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 4900) + rows
    data = image("JPEG", 256)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    return judged("tile", written(folder / "tile", data[:2] + segment + data[2:]))


# -- containers


def mbtiles(folder: Path, value: str, tables: str = "n", more: str = "") -> str:
    """The verdict on a database whose view computes each tile so."""
    path = folder / "map.mbtiles"
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(
            "CREATE TABLE metadata (name, value); INSERT INTO metadata VALUES ('format', 'png'), ('scheme', 'tms');"
            "CREATE TABLE n (i integer); CREATE TABLE blobs (data); INSERT INTO blobs VALUES (zeroblob(16777216));"
            + more
        )
        db.executemany("INSERT INTO n VALUES (?)", ((number,) for number in range(1000)))
        columns = f"4 AS zoom_level, n.i AS tile_column, 0 AS tile_row, {value} AS tile_data"
        db.execute(f"CREATE VIEW tiles AS SELECT {columns} FROM {tables}")
    return judged("source", path)


@wrong("bombs", "MBTiles whose view makes random blobs", before="beyond the 60 s", now="Invalid")
def random_blobs(folder: Path) -> str:
    return mbtiles(folder, "randomblob(1000000000)")


@wrong("bombs", "MBTiles whose view replaces in text of megabytes", before="beyond the 60 s", now="Invalid")
def replacements(folder: Path) -> str:
    return mbtiles(folder, "replace(hex(zeroblob(5000000)), '00', '0000000000000000')")


@wrong("bombs", "MBTiles whose table has a generated column that does", before="beyond the 60 s", now="Invalid")
def generated_column(folder: Path) -> str:
    more = "CREATE TABLE g (i, x AS (replace(hex(zeroblob(5000000)), '00', '000000000'))); INSERT INTO g VALUES (1);"
    return mbtiles(folder, "(SELECT x FROM g)", more=more)


@wrong("bombs", "MBTiles whose views double each other forty times", before="no end", now="Invalid")
def doubling_views(folder: Path) -> str:
    more = "CREATE VIEW v0 AS SELECT i FROM n;" + "".join(
        f"CREATE VIEW v{k} AS SELECT i FROM v{k - 1} UNION ALL SELECT i FROM v{k - 1};" for k in range(1, 41)
    )
    return mbtiles(folder, "x''", "v40 AS n", more)


@wrong("bombs", "MBTiles whose view sorts terabytes", before="a full disk", now="Unavailable")
def sort_of_terabytes(folder: Path) -> str:
    return mbtiles(folder, "blobs.data", "n, blobs ORDER BY n.i DESC LIMIT 100000")


@wrong("bombs", "MBTiles whose view joins two tables, as those of mbutil do (unnamed)", before="GO", now="GO, 16 tiles")
def honest_view(folder: Path) -> str:
    return mbtiles(folder, "x'01'", "n JOIN blobs WHERE n.i < 16")


@wrong("bombs", "a GeoTIFF of 600,000 directories", before="minutes", now="Invalid")
def directories(folder: Path) -> str:
    length = 2 + 12 + 4
    directory = struct.pack("<HHHII", 1, 256, 4, 1, 256)
    chain = b"".join(directory + struct.pack("<I", 8 + (number + 1) * length) for number in range(600_000))
    return judged("source", written(folder / "map.tif", b"II*\0" + struct.pack("<I", 8) + chain))


# -- files of a mission


@wrong("bombs", "a model whose external file has a hole of 8 TB", before="read to its end", now="as without the hole")
def external_hole(folder: Path) -> str:
    from tests.builders.engines.networks import save_external, small_network

    path = save_external(folder, small_network())
    before = judged("model", path)
    os.truncate(path.parent / "weights/w.bin", 8 << 40)
    after = judged("model", path)
    return "as without the hole" if before == after and after.startswith("GO") else after


@wrong("bombs", "a model whose tensor begins at 8 TB of such a file", before="read to its end", now="Invalid")
def tensor_far_away(folder: Path) -> str:
    import onnx

    from tests.builders.engines.networks import save_external, small_network

    path = save_external(folder, small_network())
    model = onnx.load(path, load_external_data=False)
    facts = model.graph.initializer[0].external_data
    del facts[1:]
    facts.add(key="offset", value=str(8 << 40))
    os.truncate(path.parent / "weights/w.bin", 9 << 40)
    return judged("model", written(path, model.SerializeToString()))


def mission_with(folder: Path, path: str, more: str = "") -> str:
    """The verdict on a mission file that stores this file unchanged."""
    from tests.support.missions_toml import mission_toml

    inside = folder / "mission"
    inside.mkdir()
    for name in ("map.mbtiles", "net.onnx"):
        (inside / name).write_bytes(b"x")
    (folder / "secret").write_text("root:$y$...")
    (inside / "link").symlink_to("../secret")
    (inside / "away").symlink_to("..")
    os.mkfifo(inside / "pipe")
    text = mission_toml(
        mission="left",
        tiles=Path("map.mbtiles"),
        model=Path("net.onnx"),
        bbox=(-99.18, 47.008, -99.155, 47.03),
        zooms=(15,),
        takeoff=(47.0201, -99.1602),
        files=[("calibration/camera.yaml", Path(path))],
    )
    return judged("mission", written(inside / "m.toml", (text + more).encode()))


@wrong("bombs", "[[files]] that names ../secret", before="packed, signed, published", now="Invalid")
def file_above(folder: Path) -> str:
    return mission_with(folder, "../secret")


@wrong("bombs", "[[files]] that names /etc/passwd", before="packed, signed, published", now="Invalid")
def file_of_the_system(folder: Path) -> str:
    return mission_with(folder, "/etc/passwd")


@wrong("bombs", "[[files]] that names a link out of the folder", before="packed, signed, published", now="Invalid")
def file_behind_a_link(folder: Path) -> str:
    return mission_with(folder, "link")


@wrong("bombs", "[[files]] through a folder that is a link (unnamed)", before="packed, signed", now="Invalid")
def file_behind_a_folder(folder: Path) -> str:
    return mission_with(folder, "away/secret")


@wrong("bombs", "[[files]] that names a FIFO", before="Invalid", now="Invalid")
def file_that_is_a_pipe(folder: Path) -> str:
    return mission_with(folder, "pipe")


@wrong("bombs", "[[files]] that names ../secret, and says so", before="GO, and nobody told", now="GO")
def file_above_and_said(folder: Path) -> str:
    return mission_with(folder, "../secret", "outside = true\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
