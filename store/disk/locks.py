"""Locks between processes: kernel locks (flock), which vanish with their holder, however it ends.

They live in `lock/` of the store. A copied lock file locks nothing, a power cut leaves none held. The text in a lock
file only tells who holds it; whether it is held, the kernel knows. A file system without locks is an error, never a
soft lock that would survive its holder.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

from store.disk.durable import Disk
from store.errors import Unavailable

DIRECTORY = "lock"
# What a lock file says of its holder; more is not read.
HOLDER_LIMIT = 4096


class Locked(Unavailable):
    """Somebody else holds the lock. Fields: pid, host, since (unix seconds) and command of the holder."""


def _holder() -> bytes:
    return json.dumps(
        {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": int(time.time()),
            "command": " ".join(sys.argv)[:400],
        }
    ).encode()


def write_holder(fd: int) -> None:
    """Says in the lock file who holds it, where that can be written: the kernel knows anyway."""
    data = _holder()
    with suppress(OSError):
        os.pwrite(fd, data, 0)
        # Only where it is longer: a driver for FAT refuses to cut a file to the size that it has.
        if os.fstat(fd).st_size > len(data):
            os.ftruncate(fd, len(data))


def _by_kernel(path: str) -> dict[int, dict[str, Any]]:
    """Who holds a flock on the file by the kernel's own list: a shared lock has no room for all of their names."""
    who: dict[int, dict[str, Any]] = {}
    with suppress(OSError, ValueError, IndexError):
        status = os.stat(path)
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        with open("/proc/locks", encoding="ascii") as file:
            lines = [line.split() for line in file]
        # "1: FLOCK ADVISORY READ 4711 fe:00:131 0 EOF"; who only waits has "->" in the second place
        for pid in (int(words[4]) for words in lines if words[1] == "FLOCK" and words[5] == place):
            with suppress(OSError):
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    command = file.read(400).replace(b"\0", b" ").decode(errors="replace").strip()
                who[pid] = {"pid": pid, "host": socket.gethostname(), "command": command}
    return who


def _locked(path: str, what: str) -> Locked:
    who: dict[str, Any] = {}
    # Whoever wrote the file may have been cut short, or it is no lock file at all.
    with suppress(OSError, ValueError, TypeError, RecursionError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            who = dict(json.loads(os.read(fd, HOLDER_LIMIT)))
        finally:
            os.close(fd)
    holders = _by_kernel(path)
    if holders and not (type(who.get("pid")) is int and who["pid"] in holders):
        # The text is of an earlier holder, or of none: this lock is held by several at once.
        who = next(iter(holders.values()))
    by = (
        f"process {who['pid']} on {who['host']} ({who['command']})"
        if {"pid", "host", "command"} <= set(who)
        else "another"
    )
    holder: dict[str, Any] = {key: who.get(key) for key in ("pid", "host", "since", "command")}
    return Locked(
        f"{what} is locked by {by}",
        remedy="wait for it to end and run this again; nothing needs to be removed",
        kind="locked",
        path=path,
        **holder,
    )


def lock_directory(store: str, disk: Disk) -> str:
    """The folder of the lock files, made if it is not there."""
    path = os.path.join(store, DIRECTORY)
    disk.make_directory(path)
    return path


@contextmanager
def exclusive(store: str, disk: Disk, name: str, what: str, *, timeout: float = 0) -> Iterator[None]:
    """Holds the lock `name` of the store alone. Raises Locked after `timeout` seconds (-1: waits for ever)."""
    # Imported at use: it costs more than all of the takeoff check's imports together.
    from filelock import FileLock, Timeout

    path = os.path.join(lock_directory(store, disk), name)
    # No mode: setting one is a chmod, which FAT may not have.
    lock = FileLock(path, timeout=timeout, fallback_to_soft=False, on_acquired=write_holder)
    try:
        lock.acquire()
    except Timeout:
        raise _locked(path, what) from None
    except OSError as error:
        raise Unavailable(f"{path} cannot be locked: {error.strerror}", kind="unwritable", path=path) from error
    try:
        yield
    finally:
        lock.release()


class SharedLock:
    """A flock on one file that is held shared, or for a moment alone. Held until `close`."""

    def __init__(self, store: str, disk: Disk, name: str, what: str) -> None:
        self._path = os.path.join(lock_directory(store, disk), name)
        self._what = what
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be opened: {error.strerror}", kind="unwritable") from error

    @classmethod
    def existing(cls, store: str, name: str, what: str) -> Self | None:
        """The lock without making its file; None where nobody ever took it."""
        lock = cls.__new__(cls)
        lock._path = os.path.join(store, DIRECTORY, name)
        lock._what = what
        try:
            folder = os.open(os.path.dirname(lock._path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
                lock._fd = os.open(name, flags, dir_fd=folder)
            finally:
                os.close(folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{lock._path} cannot be opened: {error.strerror}", kind="unreadable") from error
        return lock

    def _flock(self, operation: int) -> bool:
        try:
            fcntl.flock(self._fd, operation)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                return False
            raise Unavailable(f"{self._path} cannot be locked: {error.strerror}", kind="unwritable") from error
        return True

    def alone(self) -> bool:
        """Takes the lock for this holder alone, if nobody else has it; says whether."""
        return self._flock(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def hold_alone(self, *, wait: bool) -> None:
        """Takes the lock for this holder alone. Raises Locked where somebody has it and `wait` is false."""
        if not self._flock(fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)):
            raise _locked(self._path, self._what)
        write_holder(self._fd)

    def share(self, *, wait: bool) -> None:
        """Takes the lock shared. Raises Locked where somebody has it alone and `wait` is false."""
        if not self._flock(fcntl.LOCK_SH | (0 if wait else fcntl.LOCK_NB)):
            raise _locked(self._path, self._what)

    def release(self) -> None:
        """Lets go of the lock; it can be taken again."""
        self._flock(fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)
