"""Every command that only reads a store, one after the other: a program of its own, for a mount, a user or a tracer.

    python -m tests.support.looking STORE DESK SCRATCH [USER]

DESK is a desk (see `field`) of the trust domain of STORE, with the mission file `left.toml` and the store `ground`.
SCRATCH is an empty folder. Prints what went wrong, by command, as JSON; ends with status 0 if nothing did. With USER
(a number) that user looks, who need not be able to read the programs: they were all used once before, and none is
started by that user, so confined tasks run in this process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from store.takeoff.check import takeoff_check
from store.takeoff.loading import load
from tests.support.commands import flightbag
from tests.support.field import Desk
from tests.support.here import confine_here


def commands(store: Path, desk: Desk, scratch: Path) -> list[tuple[object, ...]]:
    """What is run; all of it must end with status 0, and only `sync` and `checkout` may write, into SCRATCH."""
    return [
        ("ls", store),
        ("show", store, "left"),
        ("verify", store, "--trust", desk.root),
        ("fsck", store),
        ("fsck", store, "--quick"),
        ("fsck", store, "--full"),
        ("fsck", store, "--full", "--drop-cache"),
        ("fsck", store, "--sample", "50%"),
        ("fsck", store, "--budget", "9s"),
        ("fsck", store, "--mission", "left"),
        ("fsck", store, "--repair", "--dry-run"),
        ("log", store, "left"),
        ("stats", store),
        ("diff", store, "left", "left"),
        ("pin", store),
        ("gc", store, "--dry-run", "--grace", "0s"),
        ("plan", desk.folder / "left.toml", "--store", store),
        ("sync", "--dry-run", store, scratch / "nothing"),
        ("sync", store, scratch / "target"),
        ("sync", "--dry-run", store, scratch / "target"),
        ("sync", "--dry-run", "--checksum", scratch / "target", store),
        ("checkout", store, "left", scratch / "out", "--trust", desk.root),
    ]


def look(store: Path, desk: Desk, scratch: Path) -> dict[str, str]:
    """What went wrong, by command; empty if nothing did."""
    wrong = {}
    for args in commands(store, desk, scratch):
        ran = flightbag(*args, "--json")
        if ran.status != 0:
            wrong[" ".join(map(str, args))] = f"status {ran.status}: {ran.out} {ran.err}"
    verdict = takeoff_check(store, "left", trust=desk.root.read_bytes(), now=int(time.time()))
    if verdict.mission is None:
        return {**wrong, "load": str(verdict.findings)}
    for entry in verdict.mission.table.entries:
        data = load(verdict.mission, entry.name, kind=entry.kind)
        if len(data) != entry.size:
            wrong[f"load {entry.name}"] = f"{len(data)} bytes"
    return wrong


def become(user: int) -> None:
    """Makes this process one of another user, for good."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


if __name__ == "__main__":
    store, desk, scratch = Path(sys.argv[1]), Desk(Path(sys.argv[2])), Path(sys.argv[3])
    told: dict[str, str] = {}
    if sys.argv[4:]:
        (scratch / "before").mkdir()
        confine_here(pytest.MonkeyPatch())
        told = look(desk.store, desk, scratch / "before")
        become(int(sys.argv[4]))
    told = told or look(store, desk, scratch)
    print(json.dumps(told, indent=2))
    sys.exit(bool(told))
