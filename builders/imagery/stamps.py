"""Stamps: what tells whether a file could have changed, without reading it.

A stamp covers size, times, inode and device of files, and the absence of those that are not there. Whoever writes to a
file, replaces, adds or removes one, changes a stamp over it; who only reads changes none. Putting the mtime back does
not help: the ctime is stamped too. What a stamp cannot see is a write within the tick of the file system's clock in
which the file was last written; `newest` is there for that.

Law: two stamps are equal only where the same names, in the same order, had the same state.
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
_PRESENT, _ABSENT = b"\x01", b"\x00"


@dataclass(frozen=True, slots=True)
class SourceStamp:
    """`digest` (32 bytes) is of the state of the files; `newest` the newest of all their mtimes and ctimes in ns, 0 of
    no file."""

    digest: bytes
    newest: int


class Stamper:
    """Makes one stamp of many files, in the order in which they are added."""

    def __init__(self) -> None:
        self._hasher = blake3()
        self._newest = 0

    def path(self, path: str | os.PathLike[str]) -> None:
        """Adds a file or a folder by its real path, or that it is absent. Raises Unavailable where that cannot be
        told."""
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
        """Adds a file of a folder that was added itself, by its name alone: to resolve 38,000 paths takes a second.

        A link counts as what it leads to. Raises Unavailable as `path` does.
        """
        try:
            state = entry.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._add(entry.name, None)
        except OSError as error:
            raise _unreadable(entry.path, error) from error
        else:
            self._add(entry.name, state)

    def stamp(self) -> SourceStamp:
        """The stamp of all that was added."""
        return SourceStamp(self._hasher.digest(), self._newest)

    def _add(self, name: str, state: os.stat_result | None) -> None:
        # Every record tells its own length, so that no two lists of them have the same bytes.
        raw = os.fsencode(name)
        if state is None:
            self._hasher.update(_LENGTH.pack(len(raw)) + raw + _ABSENT)
            return
        mtime, ctime = state.st_mtime_ns, state.st_ctime_ns
        packed = _STATE.pack(state.st_size, mtime, ctime, state.st_ino, state.st_dev)
        self._hasher.update(_LENGTH.pack(len(raw)) + raw + _PRESENT + packed)
        self._newest = max(self._newest, mtime, ctime)


def stamp_of(paths: Iterable[str | Path]) -> SourceStamp:
    """The stamp of files or folders, by their real paths, in the order given. Raises Unavailable, naming the path,
    where neither their state nor their absence can be told."""
    stamper = Stamper()
    for path in paths:
        stamper.path(path)
    return stamper.stamp()


def identity_of(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(device, inode) of what a path leads to. Raises OSError."""
    state = os.stat(path)
    return state.st_dev, state.st_ino


def check_same(path: Path, opened: tuple[int, int]) -> None:
    """Raises Unavailable unless a path leads to what it led to when its identity was `opened`.

    Else the stamp of one file would vouch for what was read from another.
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
            remedy="run it again when nothing writes to the tile source",
        )


def _unreadable(path: str, error: OSError) -> Unavailable:
    return Unavailable(
        f"{path} cannot be looked at: {error.strerror}",
        path=path,
        remedy="see whether its folder may be searched and its disk is there",
    )
