"""The map: how fast descriptors are built, how it grows to a country, what a search finds and what it costs.

    throughput   describing with reading and decoding, beside the bare session over ready tensors, and decoding alone;
                 by provider of ONNX Runtime, OpenVINO in an environment of its own
    country      plan, build, unchanged build and verify of 10,000 to 1,000,000 synthetic tiles
    recall       real imagery: each perturbation and the other date; exact, IVF and HNSW
    search       exact search over 1,000,000 x 512 float16

Each figure that is a peak of memory is of a process of its own: `python -m tests.bench.maps NAME …` is one.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from builders.descriptors.decoding import resized, tile_pixels
from builders.descriptors.embed import CellRequest, Description, Embedder
from builders.descriptors.preprocess import Preprocess
from builders.engines.providers import device_of, open_session
from builders.example.backbone import write_backbone
from builders.example.terrain import write_terrain
from builders.extras import import_onnxruntime
from builders.grid.tiles import cell_of, tile_from_id, tile_ids, tiles_of_bbox
from builders.imagery.mbtiles import MBTilesSource
from builders.imagery.roworder import Extent
from builders.imagery.sqlite import Database
from tests.support import runtimes
from tests.support.field import WORLD, make_desk
from tests.support.missions_toml import mission_toml

ROOT = Path(__file__).parents[2]
BATCHES = (1, 4, 8, 32)
ROUNDS = 5
COUNTRIES = (10_000, 100_000, 1_000_000)
SIDE = 8


def alone(*args: object, python: str | Path = sys.executable) -> dict[str, Any]:
    """Runs one measurement in a process of its own."""
    done = subprocess.run(
        [python, "-m", "tests.bench.maps", *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def peak_mb() -> float:
    """The most memory that this process has had, or one that it started: a build works in another one."""
    peaks = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(peaks) / 1024


# Throughput


def imagery(folder: Path, *, small: bool) -> tuple[Path, Path, int, int]:
    """(tiles, model, side of its input, zoom): the shared ones where they are at hand, else (and in small) made up."""
    shared = "" if small else os.environ.get("FLIGHTBAG_SHARED", "")
    if shared:
        data = Path(shared) / "data"
        return data / "imagery/naip-20180716.mbtiles", data / "models/place-embedder.onnx", 256, 17
    tiles, model = folder / "terrain.mbtiles", folder / "embedder.onnx"
    if not tiles.exists():
        write_terrain(tiles, WORLD, (16,))
        write_backbone(model)
    return tiles, model, 64, 16


def throughput(folder: Path, *, small: bool) -> dict[str, Any]:
    result: dict[str, Any] = {}
    pythons: dict[str, str | Path] = {"cpu": sys.executable}
    absent = "not asked for" if small else runtimes.environment(runtimes.OPENVINO)[1]
    if not absent:
        pythons["openvino"] = runtimes.ROOT / runtimes.OPENVINO / "bin/python"
    batches = BATCHES[:1] if small else BATCHES
    ways = [("decoding alone", "cpu", 1)]
    ways += [(way, one, batch) for one in pythons for batch in batches for way in ("bare session", "ours")]
    rows: dict[tuple[str, str, int], list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(1 if small else ROUNDS):
        for way in ways:
            rows[way].append(alone("embed", folder, *way, int(small), python=pythons[way[1]]))
    medians = {
        way: {key: statistics.median(row[key] for row in found) for key in found[0]} for way, found in rows.items()
    }
    print(f"{'tiles a second, medians':24}{'by':>10}{'batch':>6}{'rate':>9}{'of best':>9}{'core ms':>9}{'peak MB':>9}")
    for (name, provider, batch), row in medians.items():
        best = max(other["rate"] for way, other in medians.items() if way[:2] == ("bare session", provider))
        result[f"{name} {provider} {batch}"] = {**row, "of_best_bare": row["rate"] / best}
        figures = f"{row['rate']:>9.0f}{row['rate'] / best:>9.2f}{row['core_ms']:>9.2f}{row['peak_mb']:>9.0f}"
        print(f"{name:24}{provider:>10}{batch:>6}{figures}", flush=True)
    if absent:
        print(f"openvino: {absent}")
    return result


def embed(folder: Path, way: str, provider: str, batch: int, *, small: bool) -> dict[str, float]:
    """Tiles a second of one way, and the time of a core for each. The bare session is fed tensors that are ready, on
    all cores."""
    tiles, model, side, zoom = imagery(folder, small=small)
    with MBTilesSource(Database(tiles), Extent((0, 0, 1, 1), ()), "tms") as source:
        with closing(sqlite3.connect(tiles)) as db:
            rows = db.execute("SELECT tile_column, tile_row FROM tiles WHERE zoom_level = ?", (zoom,)).fetchall()
        x, y = (np.array(part, np.int64) for part in zip(*((x, (1 << zoom) - 1 - y) for x, y in rows), strict=True))
        cells = sorted({cell_of(tile_from_id(n)) for n in tile_ids(zoom, x, y).tolist()})
        found = [list(source.cell(cell, zoom)) for cell in cells]
    preprocess = Preprocess((side, side))
    count = sum(map(len, found))
    least = 0.1 if small else 2.0
    device = device_of(provider, "exact")

    def tensor(data: bytes) -> Any:
        return preprocess.tensor(resized(tile_pixels(data, 256), preprocess))

    if way == "decoding alone":
        return _rate(count, lambda: [tensor(data) for cell in found for _, data in cell], least)
    if way == "bare session":
        library = import_onnxruntime()
        session = open_session(device, model.read_bytes(), library.SessionOptions())
        tensors = np.stack([tensor(data) for cell in found for _, data in cell])

        def run() -> None:
            for start in range(0, count, batch):
                session.run(None, {"image": tensors[start : start + batch]})

        return _rate(count, run, least)
    embedder = Embedder(Description(model.read_bytes(), "descriptor", preprocess, batch, device=device))

    def jobs() -> Iterator[CellRequest]:
        for cell in found:
            yield CellRequest(zoom, tuple(number for number, _ in cell), tuple(cell))

    return _rate(count, lambda: list(embedder.embed(jobs(), "float16")), least)


def _rate(count: int, run: Callable[[], object], least: float) -> dict[str, float]:
    """Tiles a second over at least two runs and `least` seconds, after one that warms up; the milliseconds of a core
    for each; and the peak of memory."""
    run()
    start, spent = time.perf_counter(), time.process_time()
    runs = 0
    while runs < 2 or time.perf_counter() - start < least:
        run()
        runs += 1
    rate, spent = count * runs / (time.perf_counter() - start), time.process_time() - spent
    return {"rate": rate, "core_ms": spent / (count * runs) * 1e3, "peak_mb": peak_mb()}


# A country


def country(folder: Path, *, small: bool) -> dict[str, Any]:
    desk = make_desk(folder)
    result: dict[str, Any] = {}
    for count in (400,) if small else COUNTRIES:
        mission = write_country(folder, count)
        time.sleep(2.1)  # what was just written is believed after two seconds
        figures: dict[str, Any] = {}
        common = ("--store", desk.store)
        for name, args in {
            "plan": ("plan", mission, *common),
            "build": ("build", mission, *common, "--key", desk.key, "--json"),
            "unchanged": ("build", mission, *common, "--key", desk.key, "--json"),
            "unchanged, reading": ("build", mission, *common, "--key", desk.key, "--json", "--no-stat-cache"),
            "verify": ("verify", desk.store, f"country-{count}", "--trust", desk.root, "--json"),
        }.items():
            start = time.perf_counter()
            figures[name] = alone("command", *args)
            figures[name]["seconds"] = time.perf_counter() - start
            if args[0] == "build":
                assert figures[name]["outcome"] == name.partition(",")[0].replace("build", "built")
        shown = alone("command", "show", desk.store, f"country-{count}", "--json")
        figures["table_bytes"] = shown["table"]["size"]
        figures["entries"] = len(shown["entries"])
        result[str(count)] = figures
        rate = count / figures["build"]["seconds"]
        about = f"{figures['entries']} entries, table {figures['table_bytes']} bytes"
        print(f"{count} tiles: {about}, {rate:.0f} tiles/s built")
        for name in ("plan", "build", "unchanged", "unchanged, reading", "verify"):
            seconds, core, peak = (figures[name][key] for key in ("seconds", "core_seconds", "peak_mb"))
            print(f"  {name:22}{seconds:>9.2f} s{core:>9.2f} s of a core{peak:>8.0f} MB", flush=True)
        mission.with_suffix(".mbtiles").unlink()
    return result


def write_country(folder: Path, count: int) -> Path:
    """The mission file of a country of about `count` tiles of 8 x 8 pixels with a tiny backbone, and what it names."""
    write_backbone(folder / "tiny.onnx", size=16, dim=8)
    mission = folder / f"country-{count}.toml"
    bbox = _write_tiles(mission.with_suffix(".mbtiles"), count)
    text = mission_toml(
        mission=mission.stem,
        tiles=mission.with_suffix(".mbtiles"),
        model=Path("tiny.onnx"),
        bbox=bbox,
        zooms=(17,),
        takeoff=((bbox[1] + bbox[3]) / 2, (bbox[0] + bbox[2]) / 2),
        resize=16,
        more=f"[coverage]\ntile_size = {SIDE}\n",
    )
    mission.write_text(text.replace("opt = 8, max = 32", "opt = 256, max = 256"))
    return mission


def _write_tiles(path: Path, count: int) -> tuple[float, float, float, float]:
    """An MBTiles file of a square of about `count` tiles of noise at zoom 17; the box of it in degrees."""
    side = round(count**0.5)
    x0, y0, zoom = 60_000, 45_000, 17
    random = np.random.default_rng(count)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        db.execute("CREATE TABLE metadata (name text, value text)")
        db.executemany("INSERT INTO metadata VALUES (?, ?)", [("name", "country"), ("format", "png")])
        db.execute("CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, tile_data blob)")
        for x in range(x0, x0 + side):
            pixels = random.integers(0, 256, (side, SIDE, SIDE), np.uint8)
            rows = [(zoom, x, (1 << zoom) - 1 - (y0 + i), _png(pixels[i])) for i in range(side)]
            db.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
        db.execute("CREATE UNIQUE INDEX tile_index ON tiles (zoom_level, tile_column, tile_row)")
        db.execute("COMMIT")

    def longitude(x: float) -> float:
        return x / (1 << zoom) * 360 - 180

    def latitude(y: float) -> float:
        return float(np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y / (1 << zoom))))))

    # A little inside the outermost tiles, so that rounding adds none.
    box = (longitude(x0 + 0.1), latitude(y0 + side - 0.1), longitude(x0 + side - 0.1), latitude(y0 + 0.1))
    assert len(tiles_of_bbox((*(round(v * 10**7) for v in box),), zoom)) == side * side  # type: ignore[arg-type]
    return box


def _png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def command(*args: str) -> dict[str, Any]:
    """One command of the command line in this process: what it said, its peak of memory, and the seconds of a core
    that it and its processes took, which other work on the machine hardly changes."""
    from tests.support.commands import flightbag

    ran = flightbag(*args)
    if ran.status:
        raise SystemExit(f"{args[0]} ended with {ran.status}: {ran.out[-2000:]} {ran.err[-2000:]}")
    said = ran.json if "--json" in args else {}
    kept = {key: said[key] for key in ("outcome", "table", "entries", "ok", "figures") if key in said}
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {**kept, "peak_mb": peak_mb(), "core_seconds": sum(one.ru_utime + one.ru_stime for one in spent)}


# Search


def search(folder: Path, *, small: bool) -> dict[str, Any]:
    del folder
    result = alone("searching", 20_000 if small else 1_000_000, 512)
    print(
        f"{result['rows']} x {result['dim']} float16, exact: one query {result['ms_1']:.0f} ms, 32 queries "
        f"{result['ms_32']:.0f} ms; {result['data_mb']:.0f} MB of rows, peak {result['extra_mb']:.0f} MB beyond them"
    )
    return result


def searching(rows: int, dim: int) -> dict[str, float]:
    from builders.onboard.exact import search as exact

    random = np.random.default_rng(0)
    blocks = []
    for start in range(0, rows, 256):
        count = min(256, rows - start)
        found = random.standard_normal((count, dim)).astype(np.float16)
        blocks.append((np.arange(start, start + count, dtype=np.uint64), found))
    queries = random.standard_normal((32, dim)).astype(np.float32)
    before = peak_mb()
    times = {}
    for count in (1, 32):
        start_time = time.perf_counter()
        exact(iter(blocks), queries[:count], 5)
        times[count] = (time.perf_counter() - start_time) * 1e3
    data = sum(block.nbytes for _, block in blocks) / 1e6
    return {
        "rows": rows,
        "dim": dim,
        "ms_1": times[1],
        "ms_32": times[32],
        "data_mb": data,
        "extra_mb": peak_mb() - before,
    }


# Recall


def recall(folder: Path, *, small: bool) -> dict[str, Any]:
    """Real imagery where it is at hand: without it, terrain and its other seed."""
    from tests.bench.recall import table

    return table(folder, small=small)


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    if name == "embed":
        print(json.dumps(embed(Path(rest[0]), rest[1], rest[2], int(rest[3]), small=rest[4] == "1")))
    elif name == "searching":
        print(json.dumps(searching(int(rest[0]), int(rest[1]))))
    else:
        print(json.dumps(command(*rest)))
