"""Programs of the bench: run and timed, taking turns."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.records import command_line

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ENVIRONMENT = {
    **os.environ,
    "BORG_PASSPHRASE": "",
    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
    "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    "RESTIC_PASSWORD": "bench",
    "RESTIC_FROM_PASSWORD": "bench",
    "PYTHONPATH": str(ROOT),
    # Compiled once, as an installed program is.
    "PYTHONDONTWRITEBYTECODE": "",
}


# The command lines of each program that took its turn, for the record of the bench.
COMMANDS: dict[str, list[str]] = {}
_turn: list[str] = []


def run(*command: object, cwd: Path | None = None, stdin: Path | None = None) -> float:
    """Runs a program and gives its seconds. What fails ends the bench: a figure of it would mean nothing."""
    if (line := command_line(command)) not in _turn:
        _turn.append(line)
    start = time.perf_counter()
    with open(stdin or os.devnull, "rb") as source:
        environment = {**ENVIRONMENT, "XDG_STATE_HOME": tempfile.gettempdir(), "XDG_CACHE_HOME": tempfile.gettempdir()}
        done = subprocess.run(
            [str(part) for part in command],
            env=environment,
            cwd=cwd,
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {done.stderr.decode()[-500:]}")
    return seconds


def work(*arguments: object) -> dict[str, Any]:
    """Runs `tests.bench.work` and gives what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.work", *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    said: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        said |= json.loads(line)
    return said


def interleaved(
    programs: dict[str, Callable[[], float]], rounds: int, before: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """The median seconds of each, taking turns, with `before` at the beginning of each turn; those that are not
    installed are left out, and said."""
    there = {}
    for name, program in programs.items():
        first = name.split()[0]
        if first in ("flightbag", "store-fsck", "python", "cp") or shutil.which(first):
            there[name] = program
        else:
            print(f"{first} is not installed: no figure of it")
    times: dict[str, list[float]] = {name: [] for name in there}
    for _ in range(rounds):
        before()
        for name, program in there.items():
            _turn.clear()
            times[name].append(program())
            lines = COMMANDS.setdefault(name, [])
            lines += [line for line in _turn if line not in lines]
    return {name: statistics.median(found) for name, found in times.items()}
