"""Things that nobody may open, and whether somebody did: inotify reports every open(2), also of a device or a FIFO."""

from __future__ import annotations

import ctypes
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_IN_OPEN = 0x20
_EVENT_SIZE = 16  # inotify(7): no name follows, since the watched thing is no folder


@contextmanager
def opens_of(path: Path) -> Iterator[list[str]]:
    """A list that has, after the block, an item for each time that anybody opened the thing, wherever it lies by then.

    Nothing is opened here: an open for O_PATH alone does not count.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        pytest.skip("no inotify here")
    times: list[str] = []
    try:
        assert libc.inotify_add_watch(fd, os.fsencode(path), _IN_OPEN) >= 0
        yield times
        while True:
            try:
                events = os.read(fd, 65536)
            except BlockingIOError:
                return
            opens = [at for at in range(0, len(events), _EVENT_SIZE) if events[at + 4] & _IN_OPEN]
            times += ["opened"] * len(opens)
    finally:
        os.close(fd)


def make_device(path: Path) -> None:
    """A device whose opening succeeds and does no harm: another name of the null device."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes device files")


def make_socket(path: Path) -> None:
    """Leave a socket there, to which nobody listens."""
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)
