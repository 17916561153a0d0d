"""Waiting for a medium: it is told, and has an end where the user gives one (`--give-up`).

A read that hangs in the kernel can be neither interrupted nor, on many file systems of user-space drivers, killed. So
with `--give-up` the command runs in a child process, and this process only waits, touching no medium. When the time is
over it kills the child, which may linger until the medium answers, and ends with the status for "could not check".

A child that is given up says nothing any more: before it prints its result it asks this process, which agrees only
while there is time. So no GO is printed by a command that then ends with another status. What it does after its result
(a receipt) keeps nobody: it tells this process its status first, with which this process ends where the time is over.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import NoReturn, Protocol

from store.errors import Unavailable
from store.values import dataclass
from tools.status import INTERRUPTED, UNKNOWN, fail, interrupted_error, notice, print_document, settle, warn
from tools.streams import OutputLost

# Seconds without an answer after which a line says so, and between two such lines.
_QUIET, _AGAIN = 5.0, 60.0
# Of a process that computes more than this part of the time, nobody can say that it waits.
_COMPUTING = 0.1
# Seconds that the child has to end by itself after Ctrl-C.
_GRACE = 2.0
_TICK = 0.5
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Bound:
    """The end of a command's patience: after `seconds`, None for never, with the exit status `could_not_check`.

    `interrupted` is the exit status if the user loses patience first. `places` names in messages what is waited for.
    """

    places: str
    seconds: float | None
    could_not_check: int = UNKNOWN
    interrupted: int = INTERRUPTED
    as_json: bool = False


class Answered(Protocol):
    """Called with the exit status of a command that has printed its result, and goes on.

    `hangs_told` where the result names what does not answer: if the command does not end, nothing more is said.
    """

    def __call__(self, status: int, /, *, hangs_told: bool = False) -> None: ...


@contextmanager
def patience(bound: Bound) -> Iterator[Answered]:
    """Tell the user if the block waits without an answer, and end the command where its time is over.

    The block prints nothing that the status "could not check" would contradict: results are printed after it. A command
    that goes on after its result calls what this yields, with its exit status, when the result is printed.
    """
    child = None if bound.seconds is None else _in_a_child(bound, bound.seconds)
    over = Event()
    Thread(target=_tell, args=(bound.places, over), daemon=True).start()
    try:
        yield answered if child is None else child.answered
    finally:
        over.set()
        if child is not None:
            child.agree()


def answered(status: int, /, *, hangs_told: bool = False) -> None:
    """What `patience` yields where nobody's time is bounded."""
    del hangs_told
    settle(status)
    sys.stdout.flush()


def _tell(places: str, over: Event) -> None:
    """Print a line when nothing was read or computed for a while, until `over` is set."""
    work = _Work()
    last, since, told = work.now(), time.monotonic(), 0.0
    while not over.wait(_TICK):
        now, current = time.monotonic(), work.now()
        if current[0] != last[0] or current[1] - last[1] > _COMPUTING * _QUIET:
            last, since, told = current, now, 0.0
        elif now - since >= (told + _AGAIN if told else _QUIET):
            told = now - since
            notice(f"flightbag: waiting for {places} to answer, for {told:.0f} s")


class _Work:
    """What this process does: the bytes that all its threads have read, and the seconds that they have computed."""

    def __init__(self) -> None:
        self._own = 0

    def now(self) -> tuple[int, float]:
        read = 0
        with suppress(OSError, ValueError, IndexError):  # no /proc: the processor's time decides alone
            fd = os.open("/proc/self/io", os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.read(fd, 4096)  # begins with `rchar: 4711`, which grows by this very read
            finally:
                os.close(fd)
            read = int(data.split()[1]) - self._own
            self._own += len(data)
        return read, time.process_time()


@dataclass(frozen=True, slots=True)
class _Child:
    """The child's side. `asking` and `answer` are the ends of its pipes."""

    asking: int
    answer: int

    def agree(self) -> None:
        """Return if there is time left to print a result; else never."""
        with suppress(OSError):
            os.write(self.asking, b"?")
        if not os.read(self.answer, 1):
            os._exit(128 + signal.SIGKILL)  # this process was given up, or nobody waits for it any more

    def answered(self, status: int, /, *, hangs_told: bool = False) -> None:
        """Say that the result is printed, and the status with which the command ends whatever follows."""
        settle(status)
        sys.stdout.flush()
        with suppress(OSError):
            os.write(self.asking, bytes([status, hangs_told]))


def _in_a_child(bound: Bound, seconds: float) -> _Child:
    """Return in a child process, which goes on. This process waits for it, and ends with its status."""
    asked, asking = os.pipe()
    answer, answering = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if child != 0:
        os.close(asking)
        os.close(answer)
        _wait(bound, seconds, child, asked, answering)
    os.close(asked)
    os.close(answering)
    if sys.platform == "linux":  # elsewhere a child whose parent was killed goes on until its medium answers
        import ctypes  # not above: only --give-up needs it

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)
    return _Child(asking, answer)


def _wait(bound: Bound, seconds: float, child: int, asked: int, answering: int) -> NoReturn:
    """End this process: with the status of the child, or when the time is over."""
    end, lost = time.monotonic() + seconds, False

    def hurry(_number: int, _frame: object) -> None:
        nonlocal end, lost
        end, lost = min(end, time.monotonic() + _GRACE), True

    def stop(number: int, _frame: object) -> None:
        os.kill(child, signal.SIGKILL)
        os._exit(128 + number)

    signal.signal(signal.SIGINT, hurry)  # the terminal sends it to the child as well
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    while not select.select([asked], [], [], min(_TICK, max(0.0, end - time.monotonic())))[0]:
        if time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            _give_up(bound, seconds, interrupted=lost)
    if os.read(asked, 1):
        os.write(answering, b"!")
        if said := os.read(asked, 2):  # nothing where the child ends without a word
            end = max(end, time.monotonic() + _GRACE)
            while not select.select([asked], [], [], max(0.0, end - time.monotonic()))[0]:
                if time.monotonic() >= end:
                    os.kill(child, signal.SIGKILL)
                    status, hangs_told = said
                    if not hangs_told:
                        warn(f"flightbag: {bound.places} does not answer any more: what was to be written there is not")
                    os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


def _give_up(bound: Bound, seconds: float, *, interrupted: bool) -> NoReturn:
    status = bound.interrupted if interrupted else bound.could_not_check

    def leave() -> None:
        time.sleep(_GRACE)
        os._exit(status)

    # Whoever reads the output may hang too: the end of this process does not depend on it.
    Thread(target=leave, daemon=True).start()
    with suppress(OutputLost):
        error = Unavailable(
            f"could not check: {bound.places} was not read within {seconds:g} s",
            remedy="use another medium or another copy, or allow more time with --give-up",
            kind="gave-up",
        )
        fail(interrupted_error() if interrupted else error, as_json=bound.as_json)
        if bound.as_json:
            print_document(status)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
