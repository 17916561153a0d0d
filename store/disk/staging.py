"""`tmp/`: the folders in which transactions stage what they write, and the removal of what dead transactions left.

A transaction holds a flock on its folder while it lives, so a killed process leaves no folder that looks alive. A
folder that no process holds belongs to a transaction that did not end: that transaction may have renamed objects whose
directories were never synced (FORMAT.md 2.4).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING

from store.disk.durable import Disk
from store.disk.layout import SMALL_FILES, TMP
from store.disk.locks import Locked
from store.disk.media import FOLDER_LIMIT, OBJECTS, Media
from store.errors import Corrupt, FlightbagError, NotFound, Unavailable

if TYPE_CHECKING:
    from typing_extensions import Self


class Staging:
    """The folder of one transaction: made at first use, removed with its content when the transaction ends.

    `unsettled` is true while renames out of the folder are not synced yet. A transaction that ends in that state leaves
    the empty folder: `sweep` then makes the renames durable.
    """

    def __init__(self, media: Media, disk: Disk) -> None:
        self._media = media
        self._disk = disk
        self._folder: str | None = None
        self._lock_fd = -1
        self.unsettled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._folder is None:
            return
        try:
            # The next transaction sweeps what cannot be removed now.
            with suppress(FlightbagError, OSError):
                empty(self._disk, self._folder)
                if not self.unsettled:
                    self._disk.remove(self._folder)
        finally:
            os.close(self._lock_fd)

    def folder(self) -> str:
        """Return the absolute path of the folder, which is made and locked at the first call. Raises Unavailable."""
        tmp = self._media.absolute(TMP)
        while self._folder is None:
            self._disk.make_directory(tmp)
            folder = os.path.join(tmp, f"{os.getpid()}-{os.urandom(8).hex()}")
            self._disk.make_directory(folder)
            try:
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # a sweep removed the folder before it was locked: try again
            except OSError as error:
                raise _not_locked(folder, error) from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
            except OSError as error:
                os.close(fd)
                raise _not_locked(folder, error) from error
            if os.path.isdir(folder):
                self._folder, self._lock_fd = folder, fd
            else:
                os.close(fd)
        return self._folder


@contextmanager
def kept(media: Media, disk: Disk, name: str) -> Iterator[str]:
    """Yield the absolute path of the folder `tmp/<name>`, held for the block, with what an interrupted run left in it.

    It is removed when the block ends well. Raise Locked where another process holds it, Unavailable.
    """
    folder, fd = media.absolute(f"{TMP}/{name}"), -1
    try:
        while fd < 0 or not os.path.isdir(folder):  # a sweep may remove the folder before it is locked
            if fd >= 0:
                os.close(fd)
            disk.make_directory(media.absolute(TMP))
            disk.make_directory(folder)
            try:
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                text = f"{folder} is in use: another process brings the same files"
                raise Locked(text, remedy="wait until it has ended, and run this again", path=folder) from error
            except OSError as error:
                raise _not_locked(folder, error) from error
        yield folder
        remove_tree(disk, folder)
    finally:
        if fd >= 0:
            os.close(fd)


def _not_locked(folder: str, error: OSError) -> Unavailable:
    return Unavailable(f"{folder} cannot be locked: {error.strerror}", kind="unwritable", path=folder)


def sweep(media: Media, disk: Disk) -> int:
    """Remove what dead transactions left and return how many there were.

    Objects that they renamed are made durable first, because the next transaction relies on them. Raises Unavailable
    where that fails: then nothing is removed, and the next sweep tries again.
    """
    swept = 0
    for name in _first_folders(media):
        path = media.absolute(f"{TMP}/{name}")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # not a folder, or removed already; fsck reports strays
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # the transaction is alive
            if not swept:
                _settle(media, disk)
            with suppress(OSError, Unavailable):  # the folder cannot be removed: fsck reports it
                empty(disk, path)
                disk.remove(path)
                swept += 1
        finally:
            os.close(fd)
    return swept


def _first_folders(media: Media) -> list[str]:
    """Return the folders in `tmp/`, of many only some: when these are removed, the next sweep goes on. Any number of
    files there hides none: what a dead transaction renamed has to be made durable."""
    try:
        return sorted(media.first_names(TMP, folders=True))
    except NotFound:
        return []


def _settle(media: Media, disk: Disk) -> None:
    """Sync every directory that a transaction renames into: steps 4 and 7 of the publication order (FORMAT.md 2.4)."""
    small = [f"{name}/{inner}" for name in SMALL_FILES for inner in _folders(media, name)]
    folders = []
    for name in (*(f"{OBJECTS}/{first:02x}" for first in range(256)), OBJECTS, *SMALL_FILES, *small):
        with suppress(NotFound):
            if media.file_type(name) == "directory":
                folders.append(media.absolute(name))
    disk.sync_directories(folders)


def _folders(media: Media, name: str) -> list[str]:
    """Return the folders in a folder of the store; none where it is missing, or something else has its name."""
    try:
        return sorted(media.first_names(name, folders=True))
    except (NotFound, Corrupt):
        return []


def empty(disk: Disk, folder: str) -> None:
    """Remove everything in a folder; a link is removed, not followed. Raises Unavailable where that fails."""
    while names := list_names(folder):
        for name in names:
            remove_tree(disk, os.path.join(folder, name))


def remove_tree(disk: Disk, path: str) -> None:
    """Remove a file, a link, or a folder with its content, at any depth. Raises Unavailable where that fails."""
    todo = [path]
    while todo:
        top = todo[-1]
        inner = list_names(top) if os.path.isdir(top) and not os.path.islink(top) else []
        if inner:
            todo += [os.path.join(top, name) for name in inner]
        else:
            disk.remove(todo.pop())


def list_names(folder: str) -> list[str]:
    """Return the names in a folder, of many names only some. Raises Unavailable where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in islice(entries, FOLDER_LIMIT)]
    except OSError as error:
        raise Unavailable(f"{folder} cannot be listed: {error.strerror}", kind="unwritable", path=folder) from error
