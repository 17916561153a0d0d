"""Engines under SIGKILL and under each other: `python -m tests.faults.engine_kills` says how many and what was lost.

A compilation is killed at a random moment, its worker or the program itself; and many processes want the same keys at
once. Afterwards: no worker goes on, no lock is held, the store is clean, and each engine was compiled once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from blake3 import blake3

from tests.support.commands import BIN, flightbag
from tests.support.field import Desk, make_desk
from tests.support.workers import processes, workers

_HELD_S = 60


def write_engines(desk: Desk, salts: list[str]) -> Path:
    """A mission file with a backbone for each salt, of both modes in turn: as many keys."""
    path = desk.write_mission("left", zooms=(14,), files=())
    text = path.read_text()
    backbone = text.partition("[[backbones]]")[2].partition("[[descriptors]]")[0]
    more = "".join(
        "[[backbones]]"
        + backbone.replace('"embedder"', f'"net{i}"')
        + f'salt = "{salt}"\nmode = "{("portable", "fast")[i % 2]}"\n\n'
        for i, salt in enumerate(salts)
    )
    path.write_text(
        text.replace("[[backbones]]" + backbone, more).replace('backbone = "embedder"', 'backbone = "net0"')
    )
    return path


def start(desk: Desk, mission: Path) -> subprocess.Popen[bytes]:
    """`flightbag engines build` in a process of its own."""
    command = [str(BIN / "flightbag"), "engines", "build", str(mission), "--store", str(desk.store), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def kill_compilations(count: int, seed: int) -> tuple[int, int, list[str]]:
    """(kills of a worker, kills of the program, losses) of `count` kills, each followed by a build that finishes.

    Workers and programs take turns; a kill that came too late does not count, and its turn is repeated.
    """
    random, losses, of_workers, of_programs = Random(f"engines {seed}"), [], 0, 0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        (Path(name) / "first").mkdir()
        empty = make_desk(Path(name) / "first")
        desk = Desk(Path(name) / "desk")
        shutil.copytree(empty.folder, desk.folder)
        begun = time.monotonic()
        start(desk, write_engines(desk, ["a", "b"])).communicate()
        whole = time.monotonic() - begun
        while of_workers + of_programs < count:
            shutil.rmtree(desk.folder)
            shutil.copytree(empty.folder, desk.folder)
            mission = write_engines(desk, ["a", "b"])
            process = start(desk, mission)
            moment, worker = random.random() * whole, of_workers <= of_programs
            killed = _kill_worker(desk, process, moment) if worker else _kill_program(process, moment)
            process.communicate()
            of_workers += killed and worker
            of_programs += killed and not worker
            what = f"a {'worker' if worker else 'program'} killed after {moment:.3f} s"
            losses += [f"{what}: {one}" for one in _wrong(desk, mission)]
    return of_workers, of_programs, losses


def _kill_worker(desk: Desk, process: subprocess.Popen[bytes], moment: float) -> bool:
    end = time.monotonic() + moment
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.005)
    while process.poll() is None:  # the next one that is there
        for pid in workers("builders.engines.worker", desk.store):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            return True
        time.sleep(0.002)
    return False


def _kill_program(process: subprocess.Popen[bytes], moment: float) -> bool:
    try:
        process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        process.kill()
        return True
    return False


def _wrong(desk: Desk, mission: Path) -> list[str]:
    """What is not as it should be after a kill, and after a build that finishes."""
    wrong = []
    end = time.monotonic() + 5
    while (left := processes("builders.engines.worker", desk.store)) and time.monotonic() < end:
        time.sleep(0.01)
    if left:
        wrong.append(f"workers go on: {list(left)}")
    if (audit := flightbag("fsck", desk.store, "--full")).status:
        wrong.append(f"fsck: {audit.out}")
    try:
        out, _ = start(desk, mission).communicate(timeout=_HELD_S)
        report = json.loads(out)["engines"]
    except (subprocess.TimeoutExpired, ValueError) as error:
        return [*wrong, f"the next build does not end: {error}"]
    actions = [one["action"] for one in report]
    if not set(actions) <= {"built", "reused"}:
        wrong.append(f"the next build: {actions}")
    wrong += _not_whole(desk, report)
    if (audit := flightbag("fsck", desk.store, "--full")).status or list((desk.store / "tmp").iterdir()):
        wrong.append(f"after the next build: {audit.out} {list((desk.store / 'tmp').iterdir())}")
    return wrong


def _not_whole(desk: Desk, report: list[dict[str, Any]]) -> list[str]:
    """The engines that are not byte for byte what their card says, and the objects that belong to none.

    A card may be left over: the kill came before its record, and the next took another time, which a card tells.
    """
    wrong, known = [], set()
    for id_, size in (part for one in report if one["card"] for part in one["card"]["parts"].values()):
        known.add(id_)
        path = desk.store / "objects" / id_[:2] / id_[2:]
        data = path.read_bytes() if path.exists() else b""
        if len(data) != size or blake3(data).hexdigest() != id_:
            wrong.append(f"the object {id_} is not whole")
    for path in (desk.store / "objects").glob("*/*"):
        if path.parent.name + path.name not in known and b"flightbag/card/" not in path.read_bytes():
            wrong.append(f"{path.name} belongs to no engine")
    return wrong


def race(processes: int, keys: int) -> tuple[dict[str, int], list[str]]:
    """(key -> how many of the processes say that they built it, what is wrong) of so many at once in an empty store."""
    with tempfile.TemporaryDirectory() as name:
        desk = make_desk(Path(name))
        mission = write_engines(desk, [str(i) for i in range(keys)])
        running = [start(desk, mission) for _ in range(processes)]
        built: dict[str, int] = {}
        wrong: list[str] = []
        report: list[dict[str, Any]] = []
        for process in running:
            out, _ = process.communicate()
            report += (mine := json.loads(out)["engines"])
            for one in mine:
                built[one["key"]] = built.get(one["key"], 0) + (one["action"] == "built")
                if one["action"] == "failed":
                    wrong.append(f"{one['backbone']}: {one['error']}")
        wrong += _not_whole(desk, report)
        if flightbag("fsck", desk.store, "--full").status or list((desk.store / "tmp").iterdir()):
            wrong.append("fsck finds errors, or a transaction is left")
    return built, wrong


def main(count: int) -> int:
    begun = time.monotonic()
    of_workers, of_programs, losses = kill_compilations(count, seed=1)
    built, wrong = race(8, 4)
    for one in [*losses, *wrong]:
        print(f"LOST  {one}")
    print(
        f"{of_workers + of_programs} kills ({of_workers} of workers, {of_programs} of programs); "
        f"8 processes over 4 keys: compiled {sorted(built.values())} times; {len(losses) + len(wrong)} losses "
        f"({time.monotonic() - begun:.0f} s, seed 1)"
    )
    return 1 if losses or wrong or set(built.values()) != {1} else 0


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
