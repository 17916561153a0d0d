"""A Ray cluster on this machine: a build that loses half of its nodes, how waiting scales, and the driver alone.

Each node is a group of processes; all of them share the cores of this machine. Compute cannot scale so, waiting can:
the units of the second part sleep. The driver of each measurement is a process of its own:
`python -m tests.bench.cluster ADDRESS UNITS SECONDS BYTES` is one.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builders.artifacts.shard import GROUP
from builders.cluster.driver import connected
from builders.example.backbone import write_backbone
from builders.example.terrain import write_terrain
from store.ground.repository import Repository
from tests.bench.programs import BIN
from tests.support.cluster import NAP, Cluster
from tests.support.field import Desk, make_store

ROOT = Path(__file__).parents[2]
# A strip of this many degrees: a cell of zoom 17 is 16 tiles wide, and has some rows of them.
_CELL = 16 * 360 / 2**17
_WEST, _SOUTH = -99.18, 47.008
_SIZE = 256
# Empty units, and the bytes that travel with each.
_FEW, _MANY = ((100, 0), (400, 0)), ((2000, 0), (10_000, 0), (500, 2**20), (2000, 2**20))
_ZOOM = 17


def cluster(folder: Path, *, small: bool) -> dict[str, Any]:
    """All three parts."""
    result = {"build": build(folder, 6 if small else 48)}
    result |= {"scaling": scaling((1, 2) if small else (1, 2, 4, 8), small=small)}
    return result


# -- a build that loses half of its nodes


def make_strip(folder: Path, cells: int) -> Desk:
    """A desk with imagery of a strip of so many cells, and a network that takes its time."""
    desk = make_store(folder)
    east = _WEST + cells * _CELL
    box = tuple(round(degrees * 1e7) for degrees in (_WEST, _SOUTH, east, _SOUTH + 0.0025))
    write_terrain(folder / "terrain.mbtiles", (box[0], box[1], box[2], box[3]), (_ZOOM,))
    write_backbone(folder / "embedder.onnx", size=_SIZE)
    (folder / "camera.yaml").write_text("fx: 712.4\n")
    return desk


def write_strip(desk: Desk, cells: int) -> Path:
    return desk.write_mission(
        "left",
        bbox=(_WEST + 0.0002, _SOUTH + 0.0002, _WEST + cells * _CELL - 0.0002, _SOUTH + 0.0022),
        zooms=(_ZOOM,),
        takeoff=(_SOUTH + 0.001, _WEST + 0.002),
        resize=_SIZE,
    )


def outcome(store: Path) -> tuple[str, dict[str, str]]:
    """The identity of the mission, and its objects by name but for the cards, which say how long it took."""
    with Repository.open(store) as repository:
        opened = repository.current("left")
        table = {one.name: str(one.id) for one in opened.table.entries if not one.name.startswith("cards/")}
        return opened.manifest.identity.hex(), table


def store_args(desk: Desk, store: Path) -> tuple[object, ...]:
    return BIN / "flightbag", "build", desk.folder / "left.toml", "--store", store, "--key", desk.key, "--json"


def another_store(desk: Desk, store: Path) -> Path:
    keys = ("--root-key", desk.folder / "owner.key", "--mission-key", desk.key)
    for args in (("init", store), ("trust", "new", store, "--domain", "test", *keys)):
        subprocess.run([BIN / "flightbag", *map(str, args)], check=True, capture_output=True)
    return store


def begun(desk: Desk, store: Path, one: Cluster) -> subprocess.Popen[str]:
    args = (*store_args(desk, store), "--executor", f"ray://{one.address}")
    environment = {**os.environ, "XDG_CACHE_HOME": str(store.parent / f"cache-{store.name}")}
    return subprocess.Popen(
        [str(arg) for arg in args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def objects_in(store: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(store / "objects"))


def staged_in(store: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(store / "tmp"))


def await_objects(store: Path, count: int, process: subprocess.Popen[str], seconds: float = 300.0) -> None:
    """Wait until a build has made some objects durable, or staged them."""
    until = time.monotonic() + seconds
    while objects_in(store) + staged_in(store) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)


def build(folder: Path, cells: int) -> dict[str, Any]:
    """A build on 4 nodes, of which two are killed in the middle and one more comes; beside one on this machine."""
    (folder / "desk").mkdir()
    desk = make_strip(folder / "desk", cells)
    write_strip(desk, cells)
    start = time.monotonic()
    subprocess.run([str(arg) for arg in store_args(desk, desk.store)], check=True, capture_output=True)
    seconds = {"this machine": time.monotonic() - start}
    far = another_store(desk, folder / "far")
    with Cluster() as one:
        nodes = [one.add() for _ in range(4)]
        start = time.monotonic()
        process = begun(desk, far, one)
        await_objects(far, cells // 4, process)
        for node in nodes[:2]:
            one.kill(node)
        one.add()
        out, err = process.communicate(timeout=500)
        assert process.returncode == 0, err
        seconds["cluster"] = time.monotonic() - start
        report = json.loads(out)
        again = killed_and_begun_again(desk, another_store(desk, folder / "again"), one, cells)
    same = outcome(far) == outcome(desk.store)
    result = {
        "cells": cells,
        "seconds": seconds,
        "same identity and objects": same,
        "notes": [note for note in report["notes"] if note.startswith("cluster:")],
        "again": again,
    }
    print(f"{cells} cells on 4 nodes, two killed, one added: same identity and objects: {same}", flush=True)
    for note in result["notes"]:
        print(f"  {note}")
    print(
        f"a driver killed in the middle and begun again: same: {again['same']}; "
        f"{again['described']} of {again['rows']} rows were described by the second",
        flush=True,
    )
    assert same
    assert again["same"]
    return result


def killed_and_begun_again(desk: Desk, store: Path, one: Cluster, cells: int) -> dict[str, Any]:
    """Kill a build when some cells are in the store, and build again."""
    process = begun(desk, store, one)
    until = time.monotonic() + 300
    # The first group is recorded when a cell of the next is staged.
    while objects_in(store) < min(cells // 2, GROUP) or not staged_in(store):
        if process.poll() is not None:  # so few cells that they came with the last barrier
            break
        assert time.monotonic() < until
        time.sleep(0.05)
    process.kill()
    process.communicate()
    process = begun(desk, store, one)
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    report = json.loads(out)
    return {
        "same": outcome(store) == outcome(desk.store),
        "rows": report["rows"],
        "described": report["embedded"],
    }


# -- waiting, and the driver alone


def scaling(workers: tuple[int, ...], *, small: bool) -> dict[str, Any]:
    """Units a second of units that sleep, by the number of workers; of empty units; memory by the number of units."""
    result: dict[str, Any] = {}
    each, nap = (4, 0.2) if small else (20, 0.5)
    base = 0.0
    for count in workers:
        with Cluster(cpus=count) as one:
            said = alone(one, count * each, nap, 0)
            rate = said["units"] / said["seconds"]
            base = base or rate
            result[f"{count} workers"] = said
            print(f"{count} workers: {rate:7.2f} units of {nap} s a second, {rate / base / count:.2f} n", flush=True)
            if count == workers[-1]:
                for units, size in _FEW if small else _MANY:
                    name = f"{units} empty units" + (f" with {size >> 20} MiB each" if size else "")
                    result[name] = said = alone(one, units, 0.0, size)
                    rate, peak = said["units"] / said["seconds"], said["peak_mb"]
                    print(f"{name}: {rate:.0f} units a second, peak of the driver {peak:.0f} MB", flush=True)
    return result


def alone(one: Cluster, units: int, nap: float, size: int) -> dict[str, Any]:
    """Runs one measurement in a process of its own."""
    args = (one.address, units, nap, size)
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.cluster", *map(str, args)],
        cwd=ROOT, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def drive(address: str, units: int, nap: float, size: int) -> dict[str, Any]:
    """Run units; `size` are the bytes that travel with each."""

    def requests() -> Iterator[Any]:
        for number in range(units):
            yield number, nap, os.urandom(size)

    with connected(address) as executor:
        # The workers have started when they have run a unit.
        list(executor.run(NAP, [(number, 0.5) for number in range(executor.width)]))
        start = time.monotonic()
        assert list(executor.run(NAP, requests())) == list(range(units))
        seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"units": units, "seconds": seconds, "peak_mb": peak}


if __name__ == "__main__":
    given = sys.argv[1:]
    print(json.dumps(drive(given[0], int(given[1]), float(given[2]), int(given[3]))))
