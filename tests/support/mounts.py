"""Mounts for tests: a read-only view of a folder, a real exFAT image, and a child that is another user.

Each needs rights that a test may not have; then it skips and says which.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_NOBODY = 65534


def _run(*command: object) -> str:
    """What the program prints; skips where it fails."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{command[0]} is not allowed here: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def read_only(folder: Path, at: Path) -> Iterator[Path]:
    """The folder, mounted read-only at another place."""
    at.mkdir()
    _run("mount", "--bind", folder, at)
    try:
        _run("mount", "-o", "remount,bind,ro", at)
        with pytest.raises(OSError, match="Read-only"):
            (at / "probe").write_bytes(b"")
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=False)


@contextmanager
def exfat(at: Path, image: Path, *, read_only: bool = False) -> Iterator[Path]:
    """A real exFAT file system in an image file, mounted through FUSE."""
    for program in ("mkfs.exfat", "mount.exfat-fuse"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(64 * 2**20)
        _run("mkfs.exfat", image)
    at.mkdir(exist_ok=True)
    device = _run("losetup", "--find", "--show", image)
    try:
        _run("mount.exfat-fuse", *(["-o", "ro"] if read_only else []), device, at)
        try:
            yield at
        finally:
            subprocess.run(["umount", str(at)], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def as_nobody(work: Callable[[], int]) -> int:
    """Does the work in a child that is another user; its status. What it imports must be imported already."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
            status = work()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
