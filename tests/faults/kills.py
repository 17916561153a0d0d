"""Real kills: a build or a sync in a process of its own is killed with SIGKILL at any moment, and done again."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from tests.support.commands import flightbag
from tests.support.field import Desk, make_desk


def _forked(work: Callable[[], int]) -> int:
    """The pid of a child that does the work. A fork of this process: what takes long to import is there already."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setpgid(0, 0)  # with everything that it starts, so that a kill ends all of it
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        status = work()
    finally:
        os._exit(status)


def killed_after(work: Callable[[], int], seconds: float) -> bool:
    """Runs the work in a child and kills it after so long; whether it was still at it."""
    pid = _forked(work)
    time.sleep(seconds)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def _done(work: Callable[[], int]) -> int:
    _, status = os.waitpid(_forked(work), 0)
    return os.waitstatus_to_exitcode(status)


def _wrong(desk: Desk, store: Path, what: str) -> list[str]:
    """Judged by the programs in a child: one process has one environment of an index."""

    def judge() -> int:
        if flightbag("verify", store, "--trust", desk.root).status:
            return 1
        audit = flightbag("fsck", store, "--full", "--json")
        return 2 if audit.status else 3 if (store / "tmp").is_dir() and list((store / "tmp").iterdir()) else 0

    status = _done(judge)
    why = {0: "", 1: "NO-GO", 2: "fsck finds errors", 3: "tmp is not empty"}.get(status, f"ended with {status}")
    return [f"{what}: {why}"] if why else []


def kill_builds(seed: int, count: int) -> tuple[int, list[str], float]:
    """Builds that were killed, what was lost, and the seconds it took. Each is followed by a build that finishes."""
    random, losses, killed, begun = Random(f"builds {seed}"), [], 0, time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        folder = Path(name)
        (folder / "first").mkdir()
        empty = make_desk(folder / "first")
        mission = empty.write_mission("left", zooms=(14,))

        def build(desk: Desk) -> Callable[[], int]:
            return lambda: desk.build(desk.folder / mission.name).status

        # Two beginnings: nothing is there, engine compilation and all; and the mission is there, with another file.
        built = _copied(empty, folder / "built")
        start = time.monotonic()
        assert _done(build(built)) == 0
        whole = time.monotonic() - start
        (built.folder / "camera.yaml").write_text("fx: 800.0\n")
        again = _copied(built, folder / "again")
        start = time.monotonic()
        assert _done(build(again)) == 0
        short = time.monotonic() - start
        while killed < count:
            first = random.random() < 0.5
            desk = _copied(empty if first else built, folder / "desk")
            moment = random.random() * (whole if first else short)
            killed += killed_after(build(desk), moment)
            what = f"a {'first' if first else 'second'} build killed after {moment:.3f} s"
            if not first:
                losses += [f"{what}, before the next: {one}" for one in _still_whole(desk)]
            status = _done(build(desk))
            losses += [f"{what}: the next one ended with {status}"] if status else _wrong(desk, desk.store, what)
            shutil.rmtree(desk.folder)
    return killed, losses, time.monotonic() - begun


def _still_whole(desk: Desk) -> list[str]:
    status = _done(lambda: flightbag("verify", desk.store, "--trust", desk.root).status)
    return [f"the mission before ended with {status}"] if status else []


def kill_syncs(seed: int, count: int) -> tuple[int, list[str], float]:
    """Syncs that were killed, what was lost, and the seconds it took. Each is followed by a sync that finishes."""
    random, losses, killed, begun = Random(f"syncs {seed}"), [], 0, time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        folder = Path(name)
        (folder / "desk").mkdir()
        desk = make_desk(folder / "desk")
        mission = desk.write_mission("left", zooms=(14,))
        assert _done(lambda: desk.build(mission).status) == 0
        both = (folder / "aircraft", folder / "spare")

        def sync(targets: Sequence[Path]) -> Callable[[], int]:
            return lambda: flightbag("sync", desk.store, *targets).status

        whole = {}
        for targets in (both[:1], both):  # one destination, and several at once
            start = time.monotonic()
            assert _done(sync(targets)) == 0
            whole[targets] = time.monotonic() - start
            shutil.rmtree(both[0])
        while killed < count:
            for target in both:
                shutil.rmtree(target, ignore_errors=True)
            targets = random.choice((both[:1], both))
            moment = random.random() * whole[targets]
            killed += killed_after(sync(targets), moment)
            what = f"a sync to {len(targets)} killed after {moment:.3f} s"
            status = _done(sync(targets))
            losses += [f"{what}: the next one ended with {status}"] if status else []
            for target in targets if status == 0 else ():
                losses += _wrong(desk, target, what)
    return killed, losses, time.monotonic() - begun


def _copied(desk: Desk, folder: Path) -> Desk:
    shutil.copytree(desk.folder, folder)
    return Desk(folder)
