"""Files that the user names: they are opened if they are regular files, and read if they keep to a limit.

`read_regular` returns the bytes, `read_pieces` yields them, `open_regular` returns the open file, `regular_status` the
state of a file that is not to be opened. All of them follow links, since a path is the user's word. All of them name
the thing (`what`, such as "mission file") and the path in what they raise:

- Invalid if the path leads to nothing, to anything but a regular file, or to a file above the limit;
- Unavailable, with `errno`, if the system cannot open or read the file.

Laws: no FIFO, socket or device is opened; at most one byte more than the limit is read. Files of a store are not the
user's: `store.disk.media` reads them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from store.disk.opening import OtherType, nearest, open_file, type_name
from store.errors import FlightbagError, Invalid, Unavailable

# Of a file that is hashed or stored whole: a file with holes may have terabytes.
MAX_WHOLE_FILE = 1 << 34
MAX_MISSION_FILE = 1 << 20
PIECE = 1 << 20
_UNREADABLE = "make it readable, and check that its disk is mounted"


def open_regular(path: Path, what: str, *, absent: type[FlightbagError] = Invalid) -> FileIO:
    """The open regular file at `path`, unbuffered. Raises `absent` if the path leads to nothing."""
    try:
        fd, _ = open_file(path, follow=True)
        return open(fd, "rb", buffering=0)
    except OtherType as error:
        raise _not_regular(path, what, error.mode) from None
    except OSError as error:
        raise _explained(error, path, what, absent) from error


def read_regular(
    path: Path,
    limit: int,
    what: str,
    *,
    too_large: str = "give a smaller file",
    absent: type[FlightbagError] = Invalid,
) -> bytes:
    """The bytes of the regular file at `path`, at most `limit`; `too_large` is the remedy for a file above it."""
    with open_regular(path, what, absent=absent) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            data = bytearray()
            # Files under /proc have bytes and a size of 0: the read itself holds the limit too.
            while size <= limit and len(data) <= limit and (chunk := file.read(limit + 1 - len(data))):
                data += chunk
        except OSError as error:
            raise _explained(error, path, what, absent) from error
    if max(size, len(data)) > limit:
        raise Invalid(f"{what} {path} has more than {limit} bytes", remedy=too_large, path=str(path))
    return bytes(data)


def read_pieces(path: Path, what: str, *, limit: int = MAX_WHOLE_FILE) -> Iterator[bytes]:
    """Yield the bytes of the regular file at `path`, at most PIECE at a time and `limit` in all."""
    with open_regular(path, what) as file:
        try:
            size, read = os.fstat(file.fileno()).st_size, 0
            while max(size, read) <= limit and (piece := file.read(PIECE)):
                read += len(piece)  # the file may grow
                yield piece
        except OSError as error:
            raise _explained(error, path, what, Invalid) from error
    if max(size, read) > limit:
        raise Invalid(f"{what} {path} has more than {limit} bytes", remedy="give a smaller file", path=str(path))


def lies_in(path: Path, folder: Path) -> bool:
    """Whether what `path` leads to, through every link and `..`, lies in what `folder` leads to."""
    real = os.path.realpath(folder)
    return os.path.commonpath([real, os.path.realpath(path)]) == real


def regular_status(path: Path, what: str) -> os.stat_result:
    """The state of the regular file at `path`, without opening it.

    For files that SQLite opens: where a process closes any descriptor of a file, POSIX drops the locks that SQLite
    holds on it in that process.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise _explained(error, path, what, Invalid) from error
    if not stat.S_ISREG(status.st_mode):
        raise _not_regular(path, what, status.st_mode)
    return status


def _explained(error: OSError, path: Path, what: str, absent: type[FlightbagError]) -> FlightbagError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        near = nearest(path)
        remedy = f"give {near}, or the path of another {what}" if near else f"give the path of the {what}"
        return absent(f"{what} {path} does not exist", remedy=remedy, path=str(path))
    return Unavailable(
        f"{what} {path} cannot be read: {error.strerror}", remedy=_UNREADABLE, path=str(path), errno=error.errno
    )


def _not_regular(path: Path, what: str, mode: int) -> Invalid:
    return Invalid(
        f"{what} {path}: expected a regular file, found a {type_name(mode)}",
        remedy=f"give the path of the {what}",
        path=str(path),
    )
