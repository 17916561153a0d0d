"""The workers that run now, found by their command lines."""

from __future__ import annotations

import os
from pathlib import Path


def processes(module: str, about: str | os.PathLike[str]) -> dict[int, int]:
    """The workers of this module whose request lies in this folder, and their keepers: pid and pid of the parent."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command, status = (entry / "cmdline").read_bytes(), (entry / "stat").read_bytes()
            except OSError:
                continue
            if module.encode() in command and os.fsencode(about) in command:
                parents[int(entry.name)] = int(status.rpartition(b")")[2].split()[1])
    return parents


def workers(module: str, about: str | os.PathLike[str]) -> list[int]:
    """Those without the keepers, which they are forks of."""
    parents = processes(module, about)
    return [pid for pid, parent in parents.items() if parent in parents]
