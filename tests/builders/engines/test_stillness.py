"""A process stands still if it and all that it started use no CPU time, and none of their threads can run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from builders.engines.stillness import Stillness

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows what other processes do")
SLEEP = "import time\ntime.sleep(60)"
WORK = "while True: pass"
WORKING_CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {WORK!r}])"
STOPPED = "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)"
NOW_AND_THEN = "import time\nwhile True:\n    time.sleep(0.1)\n    sum(range(2_000_000))"


@pytest.fixture
def keeper(request: pytest.FixtureRequest) -> Iterator[int]:
    """The id of this process, below which one runs the code."""
    process = subprocess.Popen([sys.executable, "-c", request.param], start_new_session=True)
    time.sleep(0.3)  # its own start takes CPU time
    yield os.getpid()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def lasts(stillness: Stillness, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if stillness.lasts():
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("keeper", [SLEEP], indirect=True)
def test_a_sleeper_stands_still_and_its_memory_is_known(keeper: int) -> None:
    stillness = Stillness(keeper, 0.3)
    assert lasts(stillness, 5)
    assert stillness.held is not None
    assert 2**20 < stillness.held < 2**30


@pytest.mark.parametrize(
    "keeper", [WORK, WORKING_CHILD, STOPPED, NOW_AND_THEN], indirect=True, ids=["works", "child", "stopped", "at times"]
)
def test_whoever_works_or_is_stopped_does_not(keeper: int) -> None:
    stillness = Stillness(keeper, 0.4)
    assert not lasts(stillness, 0.8)
    assert stillness.held is None


@pytest.mark.parametrize("keeper", [SLEEP], indirect=True)
def test_a_message_begins_it_anew(keeper: int) -> None:
    stillness = Stillness(keeper, 0.3)
    for _ in range(8):
        assert not lasts(stillness, 0.1)
        stillness.begin()


def test_where_no_process_is_nothing_stands_still() -> None:
    assert not lasts(Stillness(2**22 + 1, 0.1), 0.3)
