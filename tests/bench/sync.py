"""A sync beside what copies folders: nothing to do, one object changed, and the first copy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.bench.programs import BIN, interleaved, run, work

ROUNDS = 5
# Objects, and missions that have them.
SIZES = ((1_000, 1), (10_000, 10), (100_000, 100))
# What is no part of what a store holds.
_WITHOUT = ("--exclude=/index", "--exclude=/lock", "--exclude=/tmp")


def sync(folder: Path, *, small: bool) -> dict[str, dict[str, float]]:
    """The seconds of each program for each size and each piece of work."""
    result: dict[str, dict[str, float]] = {}
    for objects, missions in ((100, 2),) if small else SIZES:
        inner = folder / str(objects)
        inner.mkdir()
        for name, times in _of_size(inner, objects, missions, 1 if small else ROUNDS).items():
            title = f"{name}, {objects:,} objects in {missions} missions"
            result[title] = times
            base = times.get("rsync -a", times.get("cp -r and sync", 0.0))
            print(f"\n{title}", flush=True)
            for program, seconds in times.items():
                print(f"  {program:26}{seconds:>10.3f}{seconds / base:>8.2f}", flush=True)
        shutil.rmtree(inner)
    return result


def _of_size(folder: Path, objects: int, missions: int, rounds: int) -> dict[str, dict[str, float]]:
    source = folder / "source"
    work("make-objects", source, objects)
    work("publish", source, objects // missions)
    shutil.rmtree(source / "index")  # a view, which a first copy of a folder would bring
    count = 0
    latest: dict[str, Path] = {}

    def fresh(name: str) -> Path:
        """A new place each time: to make files right after others were deleted is slow on some file systems."""
        nonlocal count
        count += 1
        latest[name] = folder / f"{name}-{count}"
        os.sync()
        return latest[name]

    def ours() -> float:
        return run(BIN / "flightbag", "sync", source, latest["flightbag"])

    def rsync() -> float:
        return run("rsync", "-a", *_WITHOUT, f"{source}/", latest["rsync"])

    def restic() -> float:
        return run("restic", "copy", "-q", "--no-cache", "--from-repo", folder / "restic", "-r", latest["restic"])

    def ostree() -> float:
        return run("ostree", "pull-local", f"--repo={latest['ostree']}", folder / "ostree", "x")

    def snapshot() -> None:
        """Let the peers that have a store of their own take in the source."""
        if shutil.which("restic"):
            run("restic", "backup", "-q", "--no-cache", "-r", folder / "restic", source)
        if shutil.which("ostree"):
            flags = ("--canonical-permissions", "--skip-if-unchanged")
            run("ostree", "commit", f"--repo={folder / 'ostree'}", "-b", "x", *flags, source)

    def synced(program: Callable[[], float]) -> float:
        return program() + run("sync", "-f", folder)

    def first(name: str, program: Callable[[], float], *prepare: object) -> Callable[[], float]:
        def copy() -> float:
            target = fresh(name)
            if prepare:
                run(*(str(part).replace("TARGET", str(target)) for part in prepare))
            return synced(program)

        return copy

    if shutil.which("restic"):
        run("restic", "init", "-q", "-r", folder / "restic")
    if shutil.which("ostree"):
        run("ostree", "init", f"--repo={folder / 'ostree'}", "--mode=bare-user-only")
    snapshot()
    restic_init = ("restic", "init", "-q", "-r", "TARGET", "--from-repo", folder / "restic", "--copy-chunker-params")
    result = {}
    result["first copy, durable"] = interleaved(
        {
            "cp -r and sync": first("cp", lambda: run("cp", "-r", source, latest["cp"])),
            "flightbag sync": first("flightbag", ours),
            "rsync -a and sync": first("rsync", rsync),
            "restic copy": first("restic", restic, *restic_init),
            "ostree pull-local": first("ostree", ostree, "ostree", "init", "--repo=TARGET", "--mode=bare-user-only"),
        },
        min(rounds, 3),
    )
    again = {"rsync -a": rsync, "flightbag sync": ours, "restic copy": restic, "ostree pull-local": ostree}
    result["nothing to do"] = interleaved(again, rounds)

    def change() -> None:
        work("change", source)
        snapshot()

    result["one object changed"] = interleaved(again, rounds, before=change)
    return result
