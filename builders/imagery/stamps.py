"""Stamps: digests of the state of files, which change with the files. No file is read.

A stamp covers size, times, inode and device of files, and the absence of missing files. Writing to a file, replacing,
adding or removing one changes its stamp; reading does not. Restoring the mtime does not restore the stamp, because the
stamp covers the ctime too. A stamp misses a second write within the same tick of the file system's clock; `newest`
lets the caller allow for that.

Law: two stamps are equal only if the same names, in the same order, had the same state.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from store.errors import Unavailable

# Size, mtime, ctime (ns, before 1970 negative), inode, device.
_STATE = struct.Struct("<qqqQQ")
_LENGTH = struct.Struct("<I")
_PRESENT, _ABSENT, _TEXT = b"\x01", b"\x00", b"\x02"


@dataclass(frozen=True, slots=True)
class SourceStamp:
    """`digest` (32 bytes) covers the state of the files; `newest` is the newest mtime or ctime in ns, 0 without
    files."""

    digest: bytes
    newest: int


class Stamper:
    """Makes one stamp of many files, in the order in which they are added."""

    def __init__(self) -> None:
        self._hasher = blake3()
        self._newest = 0

    def path(self, path: str | os.PathLike[str]) -> None:
        """Add the state or the absence of a file or a folder, by its real path. Raises Unavailable if the system gives
        neither."""
        real = os.path.realpath(path)
        try:
            state = os.stat(real)
        except (FileNotFoundError, NotADirectoryError):
            self._add(real, None)
        except OSError as error:
            raise _unreadable(real, error) from error
        else:
            self._add(real, state)

    def entry(self, entry: os.DirEntry[str]) -> None:
        """Add a file of a folder that is part of the stamp, by its name only: resolving 38,000 paths takes a second.

        A link has the state of the file that it leads to. Raises Unavailable like `path`.
        """
        try:
            state = entry.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._add(entry.name, None)
        except OSError as error:
            raise _unreadable(entry.path, error) from error
        else:
            self._add(entry.name, state)

    def text(self, text: str) -> None:
        """Add a text that changes the stamp, such as the versions of the libraries that read the files."""
        raw = text.encode()
        self._hasher.update(_LENGTH.pack(len(raw)) + raw + _TEXT)

    def stamp(self) -> SourceStamp:
        """The stamp of all files and folders added so far."""
        return SourceStamp(self._hasher.digest(), self._newest)

    def _add(self, name: str, state: os.stat_result | None) -> None:
        # Every record starts with its length, so two different lists never give the same bytes.
        raw = os.fsencode(name)
        if state is None:
            self._hasher.update(_LENGTH.pack(len(raw)) + raw + _ABSENT)
            return
        mtime, ctime = state.st_mtime_ns, state.st_ctime_ns
        packed = _STATE.pack(state.st_size, mtime, ctime, state.st_ino, state.st_dev)
        self._hasher.update(_LENGTH.pack(len(raw)) + raw + _PRESENT + packed)
        self._newest = max(self._newest, mtime, ctime)


def stamp_of(paths: Iterable[str | Path]) -> SourceStamp:
    """The stamp of files or folders, by their real paths, in the order given.

    Raises Unavailable, with the path, if the system gives neither the state nor the absence of one.
    """
    stamper = Stamper()
    for path in paths:
        stamper.path(path)
    return stamper.stamp()


def identity_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(device, inode) of the file or folder that a path leads to. Raises OSError."""
    state = os.stat(path)
    return state.st_dev, state.st_ino


def trace_of(state: os.stat_result) -> tuple[int, int, int]:
    """The parts of a file's state that a write changes."""
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def check_same(path: Path, opened: tuple[int, int]) -> None:
    """Raise Unavailable unless a path still leads to the file or folder with the identity `opened`.

    Without this check, the stamp of one file could vouch for bytes of another.
    """
    try:
        same = identity_of(path) == opened
    except (FileNotFoundError, NotADirectoryError):
        same = False
    except OSError as error:
        raise _unreadable(str(path), error) from error
    if not same:
        raise Unavailable(
            f"{path} was replaced while it was open",
            path=str(path),
            remedy="run the command again when nothing writes to the tile source",
        )


def _unreadable(path: str, error: OSError) -> Unavailable:
    return Unavailable(
        f"the state of {path} cannot be read: {error.strerror}",
        path=path,
        remedy="make its folder searchable, and check that its disk is mounted",
        errno=error.errno,
    )
