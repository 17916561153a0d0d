"""Locks between processes: kernel locks (flock), which end with their holder, however the holder ends.

The lock files lie in the folder `lock/` of the store (decision 0003). A copied lock file locks nothing, and no lock
outlives a power cut. The kernel decides whether a lock is held; the text in a lock file only names its holder. A file
system without flock is an error: a soft lock would survive its holder.

filelock is loaded only when `exclusive` opens a lock: the state of an aircraft imports this module.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from store.disk.durable import Disk, not_a_file
from store.disk.layout import LOCKS
from store.disk.opening import OtherType, open_file, open_or_create
from store.errors import Unavailable

if TYPE_CHECKING:
    from typing_extensions import Self

# Bytes of a lock file that are read.
HOLDER_LIMIT = 4096
_REMEDY = "use a file system with flock, as a user who may write into the folder lock/"


class Locked(Unavailable):
    """Another process holds the lock.

    Fields: path; pid, host, since (unix seconds) and command of the holder, if known.
    """


def _holder() -> bytes:
    """The JSON text that names this process as the holder."""
    return json.dumps(
        {
            "pid": os.getpid(),
            "host": os.uname().nodename,
            "since": int(time.time()),
            "command": " ".join(sys.argv)[:400],
        }
    ).encode()


def _write_holder(fd: int) -> None:
    """Write the name of the holder into the lock file; a failure is ignored, because the kernel has the lock."""
    data = _holder()
    with suppress(OSError):
        os.pwrite(fd, data, 0)
        # Only a longer file is cut: a FAT driver refuses to truncate a file to the size that it has.
        if os.fstat(fd).st_size > len(data):
            os.ftruncate(fd, len(data))


def _by_kernel(path: str) -> dict[int, dict[str, Any]]:
    """The processes that hold a flock on the file, by pid, from /proc/locks: the file itself names only one."""
    holders: dict[int, dict[str, Any]] = {}
    with suppress(OSError, ValueError, IndexError):
        status = os.stat(path)
        place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        with open("/proc/locks", encoding="ascii") as file:
            lines = [line.split() for line in file]
        # "1: FLOCK ADVISORY READ 4711 fe:00:131 0 EOF"; a process that only waits has "->" in the second place
        for pid in (int(words[4]) for words in lines if words[1] == "FLOCK" and words[5] == place):
            with suppress(OSError):
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    command = file.read(400).replace(b"\0", b" ").decode(errors="replace").strip()
                holders[pid] = {"pid": pid, "host": os.uname().nodename, "command": command}
    return holders


def _locked(path: str, what: str) -> Locked:
    """The error that names the holder of a lock; `what` names the thing that is locked, for the message."""
    holder: dict[str, Any] = {}
    # The file may be torn, or be something else than a lock file.
    with suppress(OSError, OtherType, ValueError, TypeError, RecursionError):
        fd, _ = open_file(path)
        try:
            holder = dict(json.loads(os.read(fd, HOLDER_LIMIT)))
        finally:
            os.close(fd)
    holders = _by_kernel(path)
    if holders and not (type(holder.get("pid")) is int and holder["pid"] in holders):
        # The text names an earlier holder, or nobody: several processes share this lock.
        holder = next(iter(holders.values()))
    by = (
        f"process {holder['pid']} on {holder['host']} ({holder['command']})"
        if {"pid", "host", "command"} <= set(holder)
        else "another process"
    )
    facts: dict[str, Any] = {key: holder.get(key) for key in ("pid", "host", "since", "command")}
    return Locked(
        f"{what} is locked by {by}",
        remedy="wait until that process ends and run this again; do not remove the lock file",
        kind="locked",
        path=path,
        **facts,
    )


def _lock_directory(store: str, disk: Disk) -> str:
    """The absolute path of the folder of the lock files, which is made if it is missing."""
    path = os.path.join(store, LOCKS)
    disk.make_directory(path)
    return path


def _check_lock_file(path: str) -> None:
    """Raise Unavailable for a thing of another type in the place of a lock file: filelock would open it."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return  # filelock makes the file, or fails likewise
    if not stat.S_ISREG(mode):
        raise not_a_file(path, OtherType(mode))


@contextmanager
def exclusive(store: str, disk: Disk, name: str, what: str, *, timeout: float = 0) -> Iterator[None]:
    """Hold the lock `name` of the store exclusively while the block runs.

    `what` names the locked thing in messages. Raises Locked when another process still holds the lock after `timeout`
    seconds (-1: no limit), Unavailable when the file system has no locks.
    """
    # Imported at use: filelock takes longer to load than everything that the takeoff check imports.
    from filelock import FileLock, Timeout

    path = os.path.join(_lock_directory(store, disk), name)
    _check_lock_file(path)
    # Without a mode: filelock would set it by chmod, which FAT may refuse.
    lock = FileLock(path, timeout=timeout, fallback_to_soft=False, on_acquired=_write_holder)
    try:
        lock.acquire()
    except Timeout:
        raise _locked(path, what) from None
    except OSError as error:
        text = f"{path} cannot be locked: {error.strerror}"
        raise Unavailable(text, remedy=_REMEDY, kind="unwritable", path=path) from error
    try:
        yield
    finally:
        lock.release()


class SharedLock:
    """A flock on one file, which one process holds exclusively or several hold shared. It is held until `close`."""

    def __init__(self, store: str, disk: Disk, name: str, what: str) -> None:
        self._path = os.path.join(_lock_directory(store, disk), name)
        self._what = what
        try:
            self._fd = open_or_create(self._path, os.O_RDWR)
        except OtherType as error:
            raise not_a_file(self._path, error) from error
        except OSError as error:
            text = f"{self._path} cannot be opened: {error.strerror}"
            raise Unavailable(text, remedy=_REMEDY, kind="unwritable", path=self._path, errno=error.errno) from error

    @classmethod
    def existing(cls, store: str, name: str, what: str) -> Self | None:
        """Return the lock without making its file; None where no process ever took the lock. Writes nothing."""
        lock = cls.__new__(cls)
        lock._path = os.path.join(store, LOCKS, name)
        lock._what = what
        try:
            folder = os.open(os.path.dirname(lock._path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                lock._fd, _ = open_file(name, dir_fd=folder)
            finally:
                os.close(folder)
        except FileNotFoundError:
            return None
        except OtherType as error:
            raise not_a_file(lock._path, error) from error
        except OSError as error:
            text = f"{lock._path} cannot be opened: {error.strerror}"
            raise Unavailable(text, kind="unreadable", path=lock._path) from error
        return lock

    def _flock(self, operation: int) -> bool:
        """Whether the operation succeeded; False where another process holds the lock."""
        try:
            fcntl.flock(self._fd, operation)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                return False
            text = f"{self._path} cannot be locked: {error.strerror}"
            raise Unavailable(text, remedy=_REMEDY, kind="unwritable", path=self._path) from error
        return True

    def try_exclusive(self) -> bool:
        """Take the lock exclusively if no other process holds it. Returns whether this process has it now."""
        return self._flock(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def hold_exclusive(self, *, wait: bool) -> None:
        """Take the lock exclusively. Raises Locked where another process holds it and `wait` is false."""
        if not self._flock(fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)):
            raise _locked(self._path, self._what)
        _write_holder(self._fd)

    def hold_shared(self, *, wait: bool) -> None:
        """Take the lock shared. Raises Locked where another process holds it exclusively and `wait` is false."""
        if not self._flock(fcntl.LOCK_SH | (0 if wait else fcntl.LOCK_NB)):
            raise _locked(self._path, self._what)

    def release(self) -> None:
        """Release the lock; this object can take it again."""
        self._flock(fcntl.LOCK_UN)

    def close(self) -> None:
        """Release the lock and close its file."""
        os.close(self._fd)
