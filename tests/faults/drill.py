"""The drill: every crash state, injected fault and damage, and many kills, counted. `make drill`, or

    python -m tests.faults.drill [--seed N] [--kills N] [--only WORD]

Ends with a table; the status is 1 if anything was lost. The tests run a sample of the same (`test_drill.py`).
"""

from __future__ import annotations

import argparse
import errno
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from store.errors import FlightbagError, Unavailable
from tests.faults.damages import CASES, mended_by_command
from tests.faults.disks import Failing, Medium, Orderly, digest_of, write_tree
from tests.faults.kills import kill_builds, kill_syncs
from tests.faults.scenarios import SCENARIOS, Scenario

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EMFILE)
READ_ERRORS = (errno.EIO, errno.EACCES, errno.EMFILE)
COLUMNS = ("states", "distinct", "faults", "reads", "kills", "damages")


@dataclass
class Tally:
    """What one task did. `losses` say what was lost, and where."""

    name: str
    states: int = 0
    distinct: int = 0
    faults: int = 0
    kills: int = 0
    damages: int = 0
    seconds: float = 0.0
    losses: list[str] = field(default_factory=list)


def scratch() -> str | None:
    """Memory is faster than a disk, and what is durable is up to the model."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def crash_states(name: str, seed: int, part: int = 0, parts: int = 1, subsets: int = 20) -> Tally:
    """Makes and judges every state that a power cut before any operation of a scenario may leave."""
    scenario, tally, begun = SCENARIOS[name], Tally(name), time.monotonic()
    seen: set[bytes] = set()
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        top = Path(folder) / "top"
        top.mkdir()
        scenario.prepare(top)
        beside = Path(folder) / "beside"
        shutil.copytree(top, beside, ignore=shutil.ignore_patterns("store"))

        def look(medium: Medium) -> None:
            step = len(medium.operations)
            if step % parts != part:
                return
            for what, tree in medium.cuts(Random(f"{seed} {name} {step}"), subsets):
                tally.states += 1
                digest = digest_of(tree)
                if digest in seen:
                    continue
                seen.add(digest)
                tally.distinct += 1
                left = Path(folder) / "left"
                shutil.copytree(beside, left)
                store = tree.get("store")
                if isinstance(store, dict):
                    write_tree(store, left / "store")
                wrong = scenario.wrong(left)
                tally.losses += [f"before {medium.operations[-1]}, {what}: {one}" for one in wrong]
                shutil.rmtree(left)

        medium = Medium(top, look)
        scenario.run(top, medium)
        medium.operations.append("the end")
        look(medium)
        if part == 0:
            # Done means durable: nothing that is lost now may change what the work was for.
            left = Path(folder) / "left"
            shutil.copytree(beside, left)
            done = medium.leave(Path(folder) / "done", names="durable")
            shutil.move(done / "store", left / "store")
            tally.losses += [f"done, but not durable: {one}" for one in _unfinished(scenario, left)]
    tally.seconds = time.monotonic() - begun
    return tally


def _unfinished(scenario: Scenario, folder: Path) -> list[str]:
    from tests.support.stores import check

    found = []
    for mission, manifest in scenario.after.items():
        verdict = check(folder / "store", mission)
        if verdict.mission is None or verdict.mission.manifest_id != manifest:
            found.append(f"{mission} is not current")
    return found


def faults(name: str, number: int, *, reading: bool = False, part: int = 0, parts: int = 1) -> Tally:
    """Lets every system call of a scenario fail in turn: a clear error or success, and nothing is lost."""
    scenario, begun = SCENARIOS[name], time.monotonic()
    tally = Tally(name)
    stop, done = part, False
    while not done:
        with tempfile.TemporaryDirectory(dir=scratch()) as folder:
            top = Path(folder)
            scenario.prepare(top)
            failing = Failing(stop, number, reading=reading)
            raised: BaseException | None = None
            try:
                with pytest.MonkeyPatch.context() as patch, failing.installed(patch):
                    scenario.run(top, Orderly())
            except FlightbagError as error:
                raised = error
            except Exception as error:
                raised = error
                tally.losses.append(f"{errno.errorcode[number]} at {failing.failed}: {error!r}")
            if isinstance(raised, Unavailable) and not reading and raised.errno != number:
                tally.losses.append(f"{errno.errorcode[number]} at {failing.failed} is told as {raised}")
            wrong = scenario.wrong(top)
            tally.losses += [f"{errno.errorcode[number]} at {failing.failed}: {one}" for one in wrong]
            done = not failing.failed
            tally.faults += not done
        stop += parts
    tally.seconds = time.monotonic() - begun
    return tally


def damages(part: int = 0, parts: int = 1) -> Tally:
    """Makes every damage that an audit names, and mends it from a replica."""
    tally, begun = Tally("damages named and mended"), time.monotonic()
    for name in list(CASES)[part::parts]:
        with tempfile.TemporaryDirectory(dir=scratch()) as folder:
            tally.damages += 1
            tally.losses += [f"{name}: {one}" for one in mended_by_command(name, Path(folder))]
    tally.seconds = time.monotonic() - begun
    return tally


@dataclass(frozen=True)
class Task:
    """One piece of the drill, for a process of its own."""

    kind: str
    name: str
    number: int = 0
    part: int = 0
    parts: int = 1
    seed: int = 0

    def run(self) -> tuple[str, Tally]:
        if self.kind == "states":
            tally = crash_states(self.name, self.seed, self.part, self.parts)
        elif self.kind == "builds":
            tally = Tally("builds")
            tally.kills, tally.losses, tally.seconds = kill_builds(self.seed + self.part, self.number)
        elif self.kind == "syncs":
            tally = Tally("syncs")
            tally.kills, tally.losses, tally.seconds = kill_syncs(self.seed + self.part, self.number)
        elif self.kind == "damages":
            tally = damages(self.part, self.parts)
        else:
            tally = faults(self.name, self.number, reading=self.kind == "reads")
        return self.kind, tally


def tasks(seed: int, kills: int, only: str) -> Iterator[Task]:
    for part in range(4):
        yield Task("builds", "build", number=kills // 4, part=part, seed=seed)
        yield Task("syncs", "sync", number=kills // 4, part=part, seed=seed)
    for part in range(4):
        yield Task("damages", "", part=part, parts=4)
    for name in SCENARIOS:
        if only in name:
            yield from (Task("states", name, part=part, parts=2, seed=seed) for part in range(2))
            yield from (Task("faults", name, number=number) for number in ERRORS)
            yield from (Task("reads", name, number=number) for number in READ_ERRORS)


def run_one(task: Task) -> tuple[str, Tally]:
    try:
        return task.run()
    except BaseException as error:
        return task.kind, Tally(task.name, losses=[f"{task}: {error!r}"])


def main() -> int:
    parser = argparse.ArgumentParser(description="every crash state, fault and kill, counted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--only", default="", help="scenarios whose name has this word")
    given = parser.parse_args()
    begun = time.monotonic()
    sums: dict[str, dict[str, int]] = {}
    losses: list[str] = []
    work = list(tasks(given.seed, given.kills, given.only))
    # Fresh interpreters: LMDB does not survive a fork.
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1, maxtasksperchild=8) as pool:
        for count, (kind, tally) in enumerate(pool.imap_unordered(run_one, work), 1):
            row = sums.setdefault(tally.name, dict.fromkeys(COLUMNS, 0))
            row["states"] += tally.states
            row["distinct"] += tally.distinct
            row["reads" if kind == "reads" else "faults"] += tally.faults
            row["kills"] += tally.kills
            row["damages"] += tally.damages
            for one in tally.losses:
                losses.append(f"{tally.name}: {one}")
                print(f"\nLOST  {losses[-1]}", file=sys.stderr)
            print(f"\r{count} of {len(work)} tasks, {len(losses)} losses", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"{'':42}" + "".join(f"{name:>10}" for name in COLUMNS))
    for name, row in sums.items():
        print(f"{name:42}" + "".join(f"{row[column]:>10}" for column in COLUMNS))
    total = {column: sum(row[column] for row in sums.values()) for column in COLUMNS}
    print(f"{'all':42}" + "".join(f"{total[column]:>10}" for column in COLUMNS))
    print(
        f"{total['states']} crash states ({total['distinct']} of them different), {total['faults']} failed writes and "
        f"{total['reads']} failed reads injected, {total['kills']} kills survived, {total['damages']} damages "
        f"named and mended: {len(losses)} losses "
        f"({time.monotonic() - begun:.0f} s, seed {given.seed})"
    )
    return 1 if losses else 0


if __name__ == "__main__":
    raise SystemExit(main())
