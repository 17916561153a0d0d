"""`tmp/`: folders in which transactions stage what they write, and how the leftovers of dead ones go.

A folder is locked (flock) while its transaction lives, so a kill leaves nothing that looks alive.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from types import TracebackType
from typing import Self

from store.durable import Disk
from store.errors import FlightbagError
from store.media import Media

TMP = "tmp"


class Staging:
    """A folder of its own for one transaction, made at first use and removed at the end with all that is in it."""

    def __init__(self, media: Media, disk: Disk) -> None:
        self._media = media
        self._disk = disk
        self._folder: str | None = None
        self._hold = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._folder is not None:
            # What cannot be removed now is swept by the next transaction.
            with suppress(FlightbagError, OSError):
                _remove_tree(self._disk, self._folder)
            os.close(self._hold)

    def folder(self) -> str:
        """The absolute path of the folder."""
        tmp = self._media.absolute(TMP)
        while self._folder is None:
            self._disk.make_directory(tmp)
            folder = os.path.join(tmp, f"{os.getpid()}-{secrets.token_hex(8)}")
            self._disk.make_directory(folder)
            # Somebody's sweep may take the folder for dead before the lock is there: then once more.
            with suppress(FileNotFoundError):
                self._hold = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(self._hold, fcntl.LOCK_EX)
                if os.path.isdir(folder):
                    self._folder = folder
                else:
                    os.close(self._hold)
        return self._folder


def sweep(media: Media, disk: Disk) -> int:
    """Removes what dead transactions left, and says how many there were."""
    swept = 0
    for name in media.names_if_there(TMP):
        path = media.absolute(f"{TMP}/{name}")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # no folder of ours, or gone already; fsck tells of strays
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_tree(disk, path)
            swept += 1
        except BlockingIOError:
            continue  # its transaction is alive
        finally:
            os.close(fd)
    return swept


def _remove_tree(disk: Disk, path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        for name in os.listdir(path):
            _remove_tree(disk, os.path.join(path, name))
    disk.remove(path)
