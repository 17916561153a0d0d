"""A medium that does not answer: it is told, it can be given up, and no GO comes of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.commands import BIN, program
from tests.support.missions import ISSUE, flight
from tests.support.mounts import exfat, stopped
from tests.support.stores import ROOT_FILE, SHARD, file_of, flip, make_store

# It flies at any time.
MISSION = flight(issue=replace(ISSUE, expires_at=None))


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    (tmp_path / "pinned").write_bytes(ROOT_FILE)
    make_store(tmp_path / "store", MISSION)
    return tmp_path


@pytest.fixture
def stick(desk: Path) -> Iterator[Path]:
    """A store on a real exFAT medium of which the kernel remembers nothing yet."""
    image = exfat(desk / "image")
    with image.mounted() as point:
        shutil.copytree(desk / "store", point / "store", copy_function=shutil.copyfile)
    with image.mounted(read_only=True) as point:
        yield point


COMMANDS = {
    "verify": (3, lambda desk, store: ("verify", store, MISSION.id, "--trust", desk / "pinned")),
    "verify all": (3, lambda desk, store: ("verify", store, "--trust", desk / "pinned")),
    "fsck": (8, lambda desk, store: ("fsck", store, "--full")),
    "sync from": (3, lambda desk, store: ("sync", store, desk / "target")),
    "sync to": (3, lambda desk, store: ("sync", desk / "store", store.parent / "target")),
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_medium_that_does_not_answer_is_given_up(desk: Path, stick: Path, name: str, as_json: bool) -> None:
    status, words = COMMANDS[name]
    begun = time.monotonic()
    with stopped(stick):
        ran = program("flightbag", *words(desk, stick / "store"), "--give-up", "1s", *["--json"] * as_json)
    assert ran.status == status, ran
    assert "could not check" in ran.err
    assert "GO" not in ran.out
    assert "flyable" not in ran.out
    if as_json:
        assert json.loads(ran.out)["error"]["kind"] == "gave-up"
    assert time.monotonic() - begun < 60  # not for ever: the driver would stand still as long as the command waits


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (1, 0, 2)])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_destination_that_does_not_answer_holds_up_no_other(
    desk: Path, stick: Path, order: tuple[int, int, int], as_json: bool
) -> None:
    """The three are planned side by side: that on the medium is given up, and the others are written and told."""
    targets = [(stick / "store", desk / "one", desk / "two")[number] for number in order]
    with stopped(stick):
        ran = program("flightbag", "sync", desk / "store", *targets, "--give-up", "8s", *["--json"] * as_json)
    assert ran.status == 3, ran
    for whole in (desk / "one", desk / "two"):
        assert program("flightbag", "verify", whole, "--trust", desk / "pinned").status == 0
    if as_json:
        rows = json.loads(ran.out)["destinations"]
        assert [row["target"] for row in rows] == [str(target) for target in targets]
        assert [row.get("error", {}).get("kind") for row in rows] == [None if number else "gave-up" for number in order]
    else:
        assert ran.words.count("FAILED: could not check") == 1
        assert ran.words.count("updated") == 2
    assert "any more" not in ran.err


def test_waiting_is_told_and_goes_on(desk: Path, stick: Path) -> None:
    command = [BIN / "flightbag", "verify", stick / "store", MISSION.id, "--trust", desk / "pinned"]
    with stopped(stick):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        told = "".join(process.stderr.readline() for _ in range(3))
        assert f"waiting for {stick / 'store'} to answer" in " ".join(told.split())
    out, _ = process.communicate(timeout=300)
    assert (process.returncode, "\nGO  " in out) == (0, True), out


def test_who_loses_patience_first_is_obeyed(desk: Path, stick: Path) -> None:
    for words, status in ((COMMANDS["verify"][1], 130), (COMMANDS["fsck"][1], 32)):
        command = [BIN / "flightbag", *words(desk, stick / "store"), "--give-up", "1h"]
        with stopped(stick):
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
            assert process.stderr is not None
            assert "waiting for" in process.stderr.readline()
            os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert (process.returncode, "interrupted" in err) == (status, True), err


@pytest.mark.parametrize("damage", [None, "flip", "no store"])
@pytest.mark.parametrize("name", ["verify", "verify all", "fsck", "sync from"])
def test_a_medium_that_answers_is_answered_alike(desk: Path, name: str, damage: str | None) -> None:
    _, words = COMMANDS[name]
    if damage == "flip":
        flip(file_of(desk / "store", MISSION.entry(SHARD).id))
    if damage == "no store":
        shutil.rmtree(desk / "store")
    first = program("flightbag", *words(desk, desk / "store"))
    shutil.rmtree(desk / "target", ignore_errors=True)
    assert program("flightbag", *words(desk, desk / "store"), "--give-up", "10m") == first


def test_no_patience_at_all_and_repair_are_refused(desk: Path) -> None:
    assert program("flightbag", "fsck", desk / "store", "--give-up", "0s").status == 16
    assert program("flightbag", "fsck", desk / "store", "--give-up", "9s", "--repair").status == 16
    assert program("flightbag", "sync", desk / "store", desk / "target", "--give-up", "soon").status == 2


SCRIPT = """
import sys, time
from tools.patience import Bound, patience
with patience(Bound("it", float(sys.argv[1]))):
    time.sleep(float(sys.argv[2]))
print("GO")
sys.exit(int(sys.argv[3]))
"""


# It goes on after its result.
GOING_ON = """
import sys, time
from tools.patience import Bound, patience
with patience(Bound("it", float(sys.argv[1]))) as answered:
    pass
print("GO")
answered(int(sys.argv[3]))
time.sleep(float(sys.argv[2]))
print("done")
sys.exit(int(sys.argv[3]))
"""


def script(*words: object, text: str = SCRIPT) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", text, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("late", [-0.002, -0.001, 0, 0.001, 0.002])
def test_what_comes_at_the_last_moment_is_either_go_or_given_up(late: float) -> None:
    process = script(0.3, 0.3 + late, 0)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, "could not check" in err) in {(0, "GO\n", False), (3, "", True)}


def test_the_status_is_that_of_the_command() -> None:
    for status in (0, 1, 3, 16):
        process = script(60, 0, status)
        assert process.communicate(timeout=60)[0] == "GO\n"
        assert process.returncode == status


@pytest.mark.parametrize("status", [0, 1])
def test_what_follows_the_result_keeps_nobody_and_changes_no_status(status: int) -> None:
    begun = time.monotonic()
    process = script(0.5, 600, status, text=GOING_ON)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, "GO\n")
    assert "it does not answer any more: what was to be written there is not" in err
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("seconds", [0.4, 60])
def test_what_follows_the_result_in_time_is_done(seconds: float) -> None:
    process = script(seconds, 0, 1, text=GOING_ON)
    assert (process.communicate(timeout=60)[0], process.returncode) == ("GO\ndone\n", 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_command(number: signal.Signals) -> None:
    process = script(60, 30, 0)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not children.read_text():
        time.sleep(0.01)
    child = int(children.read_text())
    time.sleep(0.2)
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("", 143 if number == signal.SIGTERM else -9)
    end = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split():
        assert time.monotonic() < end
        time.sleep(0.01)
