"""The report of 100,000 tiles: how long it takes to make, how large it is, how long a browser takes to open it.

Half of the tiles are missing, each for a reason of its own, so that hardly two of them make one rectangle: the worst
that a map can be. `calm` has them in a few lakes.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

from builders.areas.covering import tiles_of_signed_area
from builders.grid.tiles import bounds_of_tiles
from store.format.area import Area
from store.format.missing import REASONS
from tests.bench.programs import BIN, run
from tests.support.map_store import map_flight, runs_of, write_map_store

ZOOM, SIDE, ROUNDS = 16, 316, 5
PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")


def report(folder: Path, *, small: bool) -> dict[str, Any]:
    """Make and open the reports."""
    side = 40 if small else SIDE
    edges = bounds_of_tiles(ZOOM, (15000, 15000 + side - 1), (23000, 23000 + side - 1))
    inside = (10, 10, -10, -10)
    west, south, east, north = (round(edge * 10**7) + move for edge, move in zip(edges, inside, strict=True))
    area, random = Area((west, south, east, north)), Random(1)
    ids = tiles_of_signed_area(area, ZOOM).tolist()
    assert len(ids) == side * side
    lakes = {number: "absent" for place, number in enumerate(ids) if place // 400 % 20 == 0}
    noise = {number: random.choice(REASONS) for number in ids if random.random() < 0.5}
    result: dict[str, Any] = {}
    for name, missing in (("calm", lakes), ("noise", noise)):
        store, root = write_map_store(_made(folder / name), map_flight("map", area, (ZOOM,), runs_of(missing)))
        out = folder / f"{name}.html"
        command = (BIN / "flightbag", "report", store, "map", "--trust", root, "-o", out)
        rounds, before = 1 if small else ROUNDS, _cpu()
        seconds = statistics.median(run(*command) for _ in range(rounds))
        cpu = (_cpu() - before) / rounds
        opened = _opened(out)
        size = out.stat().st_size
        result[name] = {"tiles": len(ids), "seconds": seconds, "cpu_s": cpu, "bytes": size, "open_s": opened}
        made = f"made in {seconds:.2f} s, process and all ({cpu:.2f} s of a processor)"
        shown = "no browser is installed" if opened is None else f"opened in {opened:.2f} s"
        print(f"{name:6} {len(ids)} tiles: {made}; {size / 1e6:.2f} MB; {shown}", flush=True)
    return result


def _cpu() -> float:
    """The seconds of a processor that the processes have had which this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _opened(path: Path) -> float | None:
    """The median seconds from the request to the first frame with the whole page, in a browser that is running."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.report", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds: float | None = json.loads(done.stdout)
    return seconds


def _open(path: Path) -> float | None:
    import shutil
    import time

    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        return None
    from playwright.sync_api import sync_playwright

    times = []
    with sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1000, "height": 900})
        for _ in range(ROUNDS):
            page.goto("about:blank")
            start = time.perf_counter()
            page.goto(path.as_uri(), wait_until="load")
            page.locator("svg.map").first.scroll_into_view_if_needed()
            page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
            times.append(time.perf_counter() - start)
        chromium.close()
    return statistics.median(times)


if __name__ == "__main__":
    print(json.dumps(_open(Path(sys.argv[1]))))
