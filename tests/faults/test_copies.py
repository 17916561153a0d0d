"""A plain copy is a store (FORMAT.md 2.5), also one that is made while missions are published and objects collected.

What such a copy says GO to was published, whole, at some moment; all else is NO-GO. The next copy, with nobody at work,
verifies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from store.ground.gc import collect
from store.ground.repository import Repository
from tests.support.missions import Flight
from tests.support.stores import NORTH, SOUTH, audit, check, later, make_store, publish

DRILL = bool(os.environ.get("FLIGHTBAG_DRILL"))
LOAD = {f"part-{number}": Random(number).randbytes(200_000) for number in range(24)}
COPIES = {
    "cp -r": 'cp -r "$0/." "$1"',
    "cp -rf": 'cp -rf "$0/." "$1"',
    "rsync": 'rsync -a "$0/" "$1"',
    "tar": 'tar -C "$0" -cf - . | tar -C "$1" -xf -',
}


def issue(number: int) -> Flight:
    """The mission of an issue: most of its files are those of every issue, one is its own."""
    return later(NORTH, 2 + number, **LOAD, own=b"%d" % number * 50_000)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("first") / "store", issue(0), SOUTH)


@pytest.fixture
def source(first: Path, tmp_path: Path) -> Path:
    shutil.copytree(first, tmp_path / "source")
    return tmp_path / "source"


@contextmanager
def at_work(store: Path) -> Iterator[None]:
    """Another process publishes issue after issue, and collects what no mission needs any more."""
    ref = store / "missions" / NORTH.id
    before, pid = ref.read_bytes(), os.fork()
    if not pid:
        with suppress(BaseException):
            for number in range(1, 10_000):
                publish(store, issue(number))
                with Repository.open(store) as repository:
                    collect(repository, now=time.time() + 10**6, grace=0, keep_last=1)
        os._exit(0)
    try:
        while ref.read_bytes() == before:
            assert os.waitpid(pid, os.WNOHANG) == (0, 0)
            time.sleep(0.01)
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def copy(how: str, source: Path, target: Path) -> None:
    """Copies; a tool may say that files vanished or changed under it."""
    target.mkdir(exist_ok=True)
    subprocess.run(["sh", "-c", COPIES[how], source, target], capture_output=True, timeout=120, check=False)


def judge(target: Path) -> int:
    """Checks what arrived, and returns how many missions are GO: each is one that was published."""
    go = 0
    for mission in (NORTH.id, SOUTH.id):
        if not (target / "flightbag.toml").exists():
            continue
        verdict = check(target, mission)
        if verdict.mission is None:
            continue
        go += 1
        if mission == NORTH.id:
            number = verdict.mission.manifest.issue.sequence - issue(0).manifest.issue.sequence
            assert verdict.mission.manifest_id == issue(number).manifest_id
        else:
            assert verdict.mission.manifest_id == SOUTH.manifest_id
    return go


def settle(how: str, source: Path, target: Path) -> None:
    """Copies once more, with nobody at work: both missions are there as they are at the source."""
    # rsync compares whole seconds, and no crew copies twice within one.
    os.utime(source / "missions" / NORTH.id, (time.time() + 5,) * 2)
    copy(how, source, target)
    assert judge(target) == 2
    assert (target / "missions" / NORTH.id).read_bytes() == (source / "missions" / NORTH.id).read_bytes()
    assert not [finding for finding in audit(target).findings if not finding.information]


@pytest.mark.parametrize("how", COPIES)
def test_beside_builds_and_collections(source: Path, tmp_path: Path, how: str) -> None:
    if shutil.which(how.split()[0]) is None:
        pytest.skip(f"{how.split()[0]} is absent")
    target = tmp_path / "target"
    with at_work(source):
        for _ in range(20 if DRILL else 2):
            copy(how, source, target)
            judge(target)
    settle(how, source, target)


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is absent")
def test_rsync_that_is_killed_and_resumed(source: Path, tmp_path: Path) -> None:
    """Its temporary files stay where it is killed; they are strays, and no damage."""
    random, target = Random("rsync"), tmp_path / "target"
    target.mkdir()
    with at_work(source):
        for _ in range(40 if DRILL else 3):
            command = ["rsync", "-a", "--bwlimit=20000", f"{source}/", str(target)]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(random.random() * 0.4)
            process.send_signal(random.choice([signal.SIGKILL, signal.SIGTERM]))
            process.wait(30)
            judge(target)
    settle("rsync", source, target)


def test_every_prefix_of_a_tar_is_refused_or_right(source: Path, tmp_path: Path) -> None:
    """A pipe that breaks anywhere."""
    packed = subprocess.run(["tar", "-C", str(source), "-cf", "-", "."], capture_output=True, timeout=60, check=True)
    random = Random("tar")
    for number in range(60 if DRILL else 6):
        target = tmp_path / f"torn-{number}"
        target.mkdir()
        torn = packed.stdout[: random.randrange(len(packed.stdout))]
        subprocess.run(["tar", "-C", str(target), "-xf", "-"], input=torn, capture_output=True, timeout=60, check=False)
        judge(target)
        if number == 0:
            settle("tar", source, target)
        shutil.rmtree(target)
