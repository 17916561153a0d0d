"""`tmp/`: folders in which transactions stage what they write, and how the leftovers of dead ones go.

A folder is locked (flock) while its transaction lives, so a kill leaves nothing that looks alive. A folder that
nobody holds is the mark of a transaction that did not end, and may have renamed objects whose directories were never
synced.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from types import TracebackType
from typing import Self

from store.disk.durable import Disk
from store.disk.layout import TMP
from store.disk.media import Media
from store.errors import FlightbagError, Unavailable


class Staging:
    """A folder of its own for one transaction, made at first use and removed at the end with all that is in it.

    `unsettled` says that something was renamed out of it and not synced yet; an end in that state leaves the folder,
    empty, as the mark for `sweep`.
    """

    def __init__(self, media: Media, disk: Disk) -> None:
        self._media = media
        self._disk = disk
        self._folder: str | None = None
        self._hold = -1
        self.unsettled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._folder is None:
            return
        try:
            # What cannot be removed now is swept by the next transaction.
            with suppress(FlightbagError, OSError):
                empty(self._disk, self._folder)
                if not self.unsettled:
                    self._disk.remove(self._folder)
        finally:
            os.close(self._hold)

    def folder(self) -> str:
        """The absolute path of the folder."""
        tmp = self._media.absolute(TMP)
        while self._folder is None:
            self._disk.make_directory(tmp)
            folder = os.path.join(tmp, f"{os.getpid()}-{secrets.token_hex(8)}")
            self._disk.make_directory(folder)
            try:
                hold = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # somebody's sweep took it for dead before the lock was there: once more
            except OSError as error:
                raise _not_held(folder, error) from error
            try:
                fcntl.flock(hold, fcntl.LOCK_EX)
            except OSError as error:
                os.close(hold)
                raise _not_held(folder, error) from error
            if os.path.isdir(folder):
                self._folder, self._hold = folder, hold
            else:
                os.close(hold)
        return self._folder


def _not_held(folder: str, error: OSError) -> Unavailable:
    return Unavailable(f"{folder} cannot be locked: {error.strerror}", kind="unwritable", path=folder)


def sweep(media: Media, disk: Disk) -> int:
    """Removes what dead transactions left, and says how many there were.

    What they renamed is made durable first, because the next transaction finds it present and relies on it.
    """
    swept = 0
    for name in media.names_if_there(TMP):
        path = media.absolute(f"{TMP}/{name}")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # no folder of ours, or gone already; fsck tells of strays
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not swept:
                _settle(media, disk)
            empty(disk, path)
            disk.remove(path)
            swept += 1
        except (OSError, Unavailable):
            continue  # its transaction is alive, or it cannot be removed: fsck tells of it
        finally:
            os.close(fd)
    return swept


def _settle(media: Media, disk: Disk) -> None:
    """Step 4 for every directory of objects."""
    shards = [f"objects/{shard}" for shard in media.names("objects")]
    for name in (*(shard for shard in shards if media.file_type(shard) == "directory"), "objects"):
        disk.sync_directory(media.absolute(name))


def empty(disk: Disk, folder: str) -> None:
    """Removes everything in a folder; a link is removed, not followed. Raises Unavailable where that cannot be done."""
    for name in list_names(folder):
        remove_tree(disk, os.path.join(folder, name))


def remove_tree(disk: Disk, path: str) -> None:
    """Removes whatever is there, with all that is in it, however deep."""
    todo = [path]
    while todo:
        top = todo[-1]
        inner = list_names(top) if os.path.isdir(top) and not os.path.islink(top) else []
        if inner:
            todo += [os.path.join(top, name) for name in inner]
        else:
            disk.remove(todo.pop())


def list_names(folder: str) -> list[str]:
    """The names in a folder. Raises Unavailable."""
    try:
        return os.listdir(folder)
    except OSError as error:
        raise Unavailable(f"{folder} cannot be listed: {error.strerror}", kind="unwritable", path=folder) from error
