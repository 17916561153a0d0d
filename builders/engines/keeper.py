"""Keep a worker: `python -m builders.engines.keeper PARENT MODULE ARGUMENT…` runs MODULE in a process of its own.

The keeper forks before the module is imported, while it has one thread; the child runs the module. On Linux the keeper
is the subreaper of the child: whatever the child starts stays below the keeper, in another session too, and is killed
when the child has ended. Then the keeper ends as the child did, with its status or by its signal. SIGTERM, which the
kernel also sends when PARENT ends, kills the child and all that it started.

Law: when the keeper has ended, and was not killed by SIGKILL itself, no process that the child started runs.
"""

from __future__ import annotations

import ctypes
import os
import resource
import runpy
import signal
import sys
from contextlib import suppress
from typing import NoReturn

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def main(parent: int, module: str, arguments: list[str]) -> None:
    """Fork, and return in the child as the module does; the keeper does not return."""
    if sys.platform == "linux":  # elsewhere there is no subreaper, and nothing ends a process with its parent
        _begin(parent)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _begin(parent: int) -> None:
    awaited = {signal.SIGTERM, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    keeper = os.getpid()
    if os.getppid() != parent:  # the parent ended before the calls above
        os.kill(keeper, signal.SIGKILL)
    child = os.fork()
    if child != 0:
        _keep(child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, awaited)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != keeper:
        os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _keep(child: int) -> NoReturn:
    """Wait for the child or for SIGTERM, kill all that is left, and end as the child did."""
    # The messages of the child end with the child, and asking it to stop reaches the child alone.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.close(0)
    status = None
    while status is None and signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGCHLD:
        status = _reap(child)
    last = _end_all(child)
    _end_as(last if status is None else status)


def _reap(child: int) -> int | None:
    """Reap what has ended; return the wait status of the child if it was among it."""
    status = None
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0] != 0:
            if ended[0] == child:
                status = ended[1]
    return status


def _end_all(child: int) -> int:
    """Kill every process below this one, and return the wait status of the child, if it still ran.

    What a killed process had started becomes a child of this one, and is killed in the next round.
    """
    status = int(signal.SIGKILL)
    while True:
        for pid in _children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            ended, code = os.waitpid(-1, 0)
        except ChildProcessError:
            return status
        if ended == child:
            status = code


def _children() -> list[int]:
    """Return the processes whose parent is this one."""
    me, children = os.getpid(), []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            # The second field is the name of the program, in brackets, and may hold anything.
            if int(file.read().rpartition(b")")[2].split()[1]) == me:
                children.append(int(name))
    return children


def _end_as(status: int) -> NoReturn:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
