"""Whether a process has come to a stop for ever: it uses no CPU time, and none of its threads can run.

A library whose allocation failed may wait for itself, and no timeout short of hours tells that from a long compilation.
Linux only: elsewhere nothing is known, and no process stands still.
"""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path


class Stillness:
    """How long all processes below a keeper have used no CPU time, with no thread that runs or waits for a disk.

    `lasts()` returns whether that is `seconds`; then `held` is the most memory that one of them has had. Where the
    system does not show it, it never lasts.
    """

    def __init__(self, keeper: int, seconds: float) -> None:
        self._keeper, self._seconds = keeper, seconds
        self.held: int | None = None
        self._looked = 0.0
        self._ticks: int | None = None
        self.begin()

    def begin(self) -> None:
        """Count anew: the worker has said something."""
        self._since = time.monotonic()

    def lasts(self) -> bool:
        now = time.monotonic()
        if now - self._looked < self._seconds / 8:
            return False
        self._looked = now
        processes = _below(self._keeper)
        ticks = sum(processes.values())
        if not processes or ticks != self._ticks or any(map(_is_awake, processes)):
            self._ticks = ticks
            self.begin()
        if now - self._since < self._seconds:
            return False
        self.held = max(map(_most_memory, processes))
        return True


def _below(keeper: int) -> dict[int, int]:
    """Return the processes below this one -> the ticks of CPU time that they, and those that they reaped, have used."""
    parents, ticks = {}, {}
    for name in filter(str.isdigit, os.listdir("/proc")) if sys.platform == "linux" else ():
        with suppress(OSError, ValueError, IndexError):
            # The second field is the name of the program, in brackets, and may hold anything.
            fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            parents[int(name)], ticks[int(name)] = int(fields[1]), sum(map(int, fields[11:15]))
    found = {keeper}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: ticks[pid] for pid in found - {keeper}}


def _is_awake(pid: int) -> bool:
    """Whether a thread of the process does anything but sleep: it runs, waits for a disk, or is stopped."""
    try:
        threads = [path.read_bytes() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return True
    return any(text.rpartition(b")")[2].split()[:1] != [b"S"] for text in threads)


def _most_memory(pid: int) -> int:
    """Return the most bytes of memory that the process has had; 0 where it has ended."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/status").read_text(errors="replace")
        return max((int(kib) * 1024 for kib in re.findall(r"^Vm(?:HWM|Data):\s+(\d+) kB", text, re.M)), default=0)
    return 0
