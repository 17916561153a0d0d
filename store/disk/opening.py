"""Opens files, and never a device, FIFO or socket in the place of a file (FORMAT.md 2.1).

Opening some devices acts: a watchdog starts to count, a tape rewinds, a modem hangs up. So the kernel looks a name up
without opening it (O_PATH), the type is judged, and then exactly the thing that was judged is opened, through
`/proc/self/fd`: nobody can put another thing in its place in between.

Where the system has no O_PATH or no /proc, the name is looked up twice, and what was opened must be what was judged. A
thing that is swapped in between is opened then, and still never read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

_ALWAYS = os.O_CLOEXEC | os.O_NOCTTY
_FOLLOWING = getattr(os, "O_PATH", 0) and os.O_PATH | os.O_CLOEXEC
_LOOK = _FOLLOWING and _FOLLOWING | os.O_NOFOLLOW


class OtherType(Exception):
    """A thing of another type lies there, and was not opened. `mode` is its `st_mode`."""

    def __init__(self, mode: int) -> None:
        super().__init__(oct(mode))
        self.mode = mode


def open_file(
    path: str | os.PathLike[str],
    flags: int = os.O_RDONLY | os.O_NONBLOCK,
    *,
    dir_fd: int | None = None,
    follow: bool = False,
    accept: Callable[[int], bool] = stat.S_ISREG,
) -> tuple[int, os.stat_result]:
    """Return the open descriptor of an existing file, and its status. `accept` judges the `st_mode`.

    `flags` are those of os.open, without O_CREAT; with O_NONBLOCK no call waits, whatever is swapped in. A link is
    followed only with `follow`. Raise OtherType for a thing that is not accepted, which stays closed, and OSError.
    """
    if not _LOOK:
        return _open_by_name(path, flags, dir_fd, follow, accept)
    look = os.open(path, _FOLLOWING if follow else _LOOK, dir_fd=dir_fd)
    try:
        status = os.fstat(look)
        if not accept(status.st_mode):
            raise OtherType(status.st_mode)
        try:
            return os.open(f"/proc/self/fd/{look}", flags | _ALWAYS), status
        except FileNotFoundError:  # /proc is not mounted
            return _open_by_name(path, flags, dir_fd, follow, accept)
    finally:
        os.close(look)


def open_or_create(path: str, access: int) -> int:
    """Return the descriptor of a regular file, open with `access` (O_WRONLY or O_RDWR). A missing file is made.

    Another thing in its place is not opened. Raise OtherType for it, and OSError.
    """
    while True:
        with suppress(FileNotFoundError):
            return open_file(path, access | os.O_NONBLOCK)[0]
        with suppress(FileExistsError):  # made by another process meanwhile, or a link to nowhere
            return os.open(path, access | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


def _open_by_name(
    path: str | os.PathLike[str], flags: int, dir_fd: int | None, follow: bool, accept: Callable[[int], bool]
) -> tuple[int, os.stat_result]:
    before = os.stat(path, dir_fd=dir_fd, follow_symlinks=follow)
    if not accept(before.st_mode):
        raise OtherType(before.st_mode)
    fd = os.open(path, flags | _ALWAYS | (0 if follow else os.O_NOFOLLOW), dir_fd=dir_fd)
    after = os.fstat(fd)
    if (after.st_dev, after.st_ino) != (before.st_dev, before.st_ino) or not accept(after.st_mode):
        os.close(fd)
        raise OtherType(after.st_mode)
    return fd, after


def nearest(path: str | os.PathLike[str]) -> str:
    """Return the path that may be meant by one that leads to nothing: the thing beside it whose name is most like its
    own, also where a folder above is mistyped; "" for none. The look at a folder ends after 1000 names."""
    from difflib import get_close_matches  # takes milliseconds, and only a mistake needs it

    folder, name = os.path.split(os.fspath(path).rstrip(os.sep))
    if folder and not os.path.isdir(folder):
        meant = nearest(folder)
        return there if meant and os.path.lexists(there := os.path.join(meant, name)) else ""
    try:
        with os.scandir(folder or os.curdir) as entries:
            # A link that leads to nothing is not what was meant by it.
            names = [entry.name for entry in islice(entries, 1000) if entry.name != name]
    except (OSError, ValueError):
        return ""
    by_lower = {one.lower(): one for one in sorted(names, reverse=True)}
    like = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    return os.path.join(folder, by_lower[like[0]]) if like else ""


def type_name(mode: int) -> str:
    """Return `file`, `directory`, `symlink`, `fifo`, `socket` or `device`."""
    return _TYPES.get(stat.S_IFMT(mode), "device")


_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
