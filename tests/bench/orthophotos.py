"""An orthophoto as 200 adjacent GeoTIFFs beside the same as one: time, peak of memory, and files open at once.

The rasters lie in UTM, so every tile is warped, and most lie over a seam of two rasters or four. Peaks and open files
are looked at from outside, hundreds of times a second, in the command and all processes that it starts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from builders.example.backbone import write_backbone
from tests.support.field import make_store
from tests.support.missions_toml import mission_toml

ROOT = Path(__file__).parents[2]
ZOOM = 17


def orthophotos(folder: Path, *, small: bool) -> dict[str, Any]:
    """Plan, build, build and plan again of both; the coverage must be the same."""
    desk = make_store(folder)
    columns, rows, side, tile = (5, 5, 64, 32) if small else (20, 10, 400, 256)
    write_backbone(folder / "tiny.onnx", size=16, dim=8)
    bbox = write_rasters(folder, columns, rows, side, tile)
    result: dict[str, Any] = {}
    coverages = []
    for name in ("one.tif", "many"):
        mission = folder / f"{name.partition('.')[0]}.toml"
        mission.write_text(
            mission_toml(
                mission=mission.stem,
                tiles=folder / name,
                model=Path("tiny.onnx"),
                bbox=bbox,
                zooms=(ZOOM - 1, ZOOM),
                takeoff=((bbox[1] + bbox[3]) / 2, (bbox[0] + bbox[2]) / 2),
                resize=16,
                more=f"[coverage]\ntile_size = {tile}\n",
            )
        )
        time.sleep(2.1)  # what was just written is believed after two seconds
        common = (mission, "--store", desk.store)
        figures = {
            "plan": watched("plan", *common),
            "build": watched("build", *common, "--key", desk.key, "--no-stat-cache"),
        }
        if not small:
            figures["unchanged"] = watched("build", *common, "--key", desk.key)
            figures["plan again"] = watched("plan", *common)
        result[name] = figures
        coverages.append(coverage(desk.store, mission.stem))
        for what, one in figures.items():
            print(
                f"{name:8}{what:12}{one['seconds']:>8.2f} s{one['peak_mb']:>8.0f} MB{one['open']:>5.0f} rasters open",
                flush=True,
            )
    assert coverages[0] == coverages[1]
    print(f"{columns * rows} rasters of {side} x {side}; both have {coverages[0]['tiles']} tiles of one digest")
    return result


def write_rasters(folder: Path, columns: int, rows: int, side: int, tile: int) -> tuple[float, float, float, float]:
    """`one.tif`, and the same in the folder `many`; the box of what lies well inside, in degrees."""
    import rasterio
    from rasterio.warp import transform_bounds

    wide, high = columns * side, rows * side
    coarse = np.random.default_rng(200).integers(0, 256, (high // 8, wide // 8, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((wide, high), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    metres = 40_075_016 / (1 << ZOOM) / tile * np.cos(np.radians(47))
    options = {
        "driver": "GTiff",
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32614",
        "photometric": "RGB",
        "compress": "deflate",
        "tiled": True,
    }
    (folder / "many").mkdir()
    place = rasterio.Affine(metres, 0, 487_000, 0, -metres, 5_208_000)
    parts = [(folder / "one.tif", 0, 0, wide, high)]
    parts += [
        (folder / f"many/{row:02}-{column:02}.tif", column * side, row * side, side, side)
        for row in range(rows)
        for column in range(columns)
    ]
    for path, left, top, width, height in parts:
        transform = place * rasterio.Affine.translation(left, top)
        with rasterio.open(path, "w", width=width, height=height, transform=transform, **options) as raster:
            raster.write(pixels[:, top : top + height, left : left + width])
    west, south, east, north = transform_bounds(
        "EPSG:32614", "EPSG:4326", 487_000, 5_208_000 - high * metres, 487_000 + wide * metres, 5_208_000
    )
    x, y = (east - west) * 0.3, (north - south) * 0.3
    return west + x, south + y, east - x, north - y


def coverage(store: Path, mission: str) -> dict[str, Any]:
    from tests.support.commands import flightbag

    shown: dict[str, Any] = flightbag("show", store, mission, "--json").json["coverage"]
    return shown


def watched(*args: object) -> dict[str, float]:
    """A command in a process of its own: seconds, and the most memory and rasters that any process of it had."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "tests.bench.maps", "command", *map(str, args)]
    peak = most = 0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            for pid in family(process.pid):
                peak, most = max(peak, memory_kib(pid)), max(most, rasters_open(pid))
            time.sleep(0.002)
        error = process.stderr.read() if process.stderr else ""
    if process.returncode:
        raise SystemExit(error)
    return {"seconds": time.perf_counter() - start, "peak_mb": peak / 1024, "open": most}


def family(pid: int) -> Iterator[int]:
    yield pid
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield from family(int(child))
    except OSError:
        return  # it has ended


def memory_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def rasters_open(pid: int) -> int:
    count = 0
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            try:
                count += os.readlink(f"/proc/{pid}/fd/{number}").endswith(".tif")
            except OSError:
                continue  # closed since
    except OSError:
        return 0
    return count
