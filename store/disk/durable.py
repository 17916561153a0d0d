"""Every effect on the disk that must survive a power cut. Only this module calls fsync, rename or link.

Publication order (FORMAT.md 2.4). Each step calls methods of `Disk`, and a test can let the power fail at each of them:

 1. stage: objects are written to tmp/<transaction>/, hashed while they are written
 2. the files of the batch are fsynced: many by one syncfs, and the directories of 4 too
 3. they are renamed into objects/
 4. the shard directories are fsynced, and the parent of every directory that is new
 5. the index is committed
 6. the log line is appended and fsynced
 7. the ref is written, fsynced and renamed, and its directory fsynced

The manifest object goes through 1 to 5 like any other object, after everything that it names. A crash at any point
leaves the missions published before whole, and at worst strays in tmp/. This module decides nothing about the store: it
knows paths and bytes, no objects and no missions.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import count
from typing import TypeVar, cast

from store.disk.opening import OtherType, open_file, open_or_create, type_name
from store.errors import Unavailable

# Error numbers by which a file system without modes (FAT) refuses chmod.
_NO_MODES = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
# Error numbers by which a file system refuses to share blocks (FICLONE; linux/fs.h: _IOW(0x94, 9, int)).
_NO_CLONES = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM})
_FICLONE = 0x40049409
# SYNC_FILE_RANGE_WRITE of linux/fs.h: begin to write, and wait for nothing.
_RANGE_WRITE = 2
OBJECT_MODE = 0o444
_SYNC_THREADS = 8
# A write into the page cache keeps a processor busy and releases the interpreter lock: one thread more than processors.
THREADS = min(8, (os.cpu_count() or 1) + 1)
# syncfs is tried for at least so many files, and only on these file systems. Not on ext2: there an fsync flushes the
# cache of the device, and syncfs does not.
MANY = 64
_SYNCFS = frozenset({"ext3", "ext4", "xfs", "f2fs"})
# Error numbers by which a sandbox refuses syncfs.
_NO_SYNCFS = frozenset({errno.ENOSYS, errno.EPERM, errno.EACCES})

T = TypeVar("T")
R = TypeVar("R")


class Disk:
    """The operations of a publication. Paths are absolute. A method that fails raises Unavailable with `errno` set.

    Tests pass a subclass that records the operations, or fails or stops at any of them.
    """

    def make_directory(self, path: str) -> None:
        """Make a directory; a directory that exists already is fine."""
        with _explained(path):
            try:
                os.mkdir(path, 0o755)
            except FileExistsError:
                if not os.path.isdir(path) or os.path.islink(path):
                    raise

    def create(self, path: str, mode: int = 0o644) -> int:
        """Make a new file and return its descriptor, open for writing.

        Raises Unavailable if the path exists already.
        """
        with _explained(path):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)

    def write(self, fd: int, data: bytes | bytearray | memoryview, path: str) -> None:
        """Write all of `data` at the position of the descriptor; `path` is for messages."""
        with _explained(path):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]

    def start_writing(self, fd: int) -> None:
        """Let the medium begin to write what was written to an open file, while the next bytes are read and hashed.

        This promises nothing, and reports nothing: a write that fails is reported by the barrier, as one is that the
        system begins by itself.
        """
        if (begin := _sync_file_range()) is not None:
            begin(fd, 0, 0, _RANGE_WRITE)

    def seal(self, fd: int, path: str) -> None:
        """Make a file read-only where the medium has modes."""
        with _explained(path):
            try:
                os.fchmod(fd, OBJECT_MODE)
            except OSError as error:
                if error.errno not in _NO_MODES:
                    raise

    def sync_file(self, fd: int, path: str) -> None:
        """Make the content of an open file durable."""
        with _explained(path):
            os.fsync(fd)

    def sync_files(self, paths: Iterable[str]) -> None:
        """Make all of these files durable in one barrier. They lie on one file system."""
        files = list(paths)
        if len(files) >= MANY and self.sync_file_system(os.path.dirname(files[0])):
            return

        def sync(path: str) -> None:
            with _explained(path):
                fd, _ = open_file(path)
                try:
                    self.sync_file(fd, path)
                finally:
                    os.close(fd)

        self.at_once(sync, files, threads=_SYNC_THREADS)

    def sync_file_system(self, folder: str) -> bool:
        """Make everything durable on the file system of a folder. False where nothing vouches for that: on a file
        system that is not known to write everything out. Raises Unavailable where a write failed."""
        return _sync_all(folder)

    def at_once(
        self,
        task: Callable[[T], R],
        items: Iterable[T],
        *,
        threads: int = THREADS,
        stop: Callable[[], None] = lambda: None,
    ) -> list[R]:
        """Run a task for each item, a few items at a time, and return the results in the order of the items.

        The first error is raised when the running tasks have ended; `stop` is called before that wait, to shorten it.
        """
        from concurrent.futures import ThreadPoolExecutor, as_completed  # not above: it loads logging

        todo = list(items)
        results: dict[int, R] = {}
        numbers = count()
        over = False

        def work() -> None:
            # Not a future for each item: of small files that is a third of the time.
            while not over and (number := next(numbers)) < len(todo):
                results[number] = task(todo[number])

        pool = ThreadPoolExecutor(threads)
        try:
            for future in as_completed([pool.submit(work) for _ in range(min(threads, len(todo)))]):
                future.result()
            return [results[number] for number in range(len(todo))]
        except BaseException:
            over = True
            stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def rename(self, source: str, target: str) -> None:
        """Move a file over `target`, atomically where the medium can.

        Durable after `sync_directory` of both folders.
        """
        with _explained(target):
            os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name."""
        with _explained(target):
            os.link(source, target, follow_symlinks=False)

    def clone(self, source: int, fd: int, path: str) -> bool:
        """Let the new file `fd` share the blocks of the open file `source`.

        Returns False where the file system cannot.
        """
        with _explained(path):
            try:
                fcntl.ioctl(fd, _FICLONE, source)
            except OSError as error:
                if error.errno not in _NO_CLONES:
                    raise
                return False
        return True

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        with _explained(path):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def sync_directories(self, paths: Sequence[str]) -> None:
        """Make the names in all of these directories durable in one barrier. They lie on one file system."""
        at_once = len(paths) >= MANY and _sync_all(paths[0])
        for path in paths:
            if at_once:
                with _explained(path):  # a link in its place leads to another file system, perhaps
                    os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
            else:
                self.sync_directory(path)

    def remove(self, path: str) -> None:
        """Remove a file, a link, or an empty directory; a path that does not exist is fine."""
        with _explained(path):
            try:
                if os.path.isdir(path) and not os.path.islink(path):
                    os.rmdir(path)
                else:
                    os.unlink(path)
            except FileNotFoundError:
                return

    def append(self, path: str, data: bytes, keep: int) -> None:
        """Cut the file to its first `keep` bytes and append `data`; make both durable. A missing file is made."""
        with _explained(path):
            fd = open_or_create(path, os.O_WRONLY)
            try:
                # Only a longer file is cut: a FAT driver refuses to truncate a file to the size that it has.
                if os.fstat(fd).st_size != keep:
                    os.ftruncate(fd, keep)
                os.lseek(fd, keep, os.SEEK_SET)
                self.write(fd, data, path)
                self.sync_file(fd, path)
            finally:
                os.close(fd)


def replace_file(disk: Disk, target: str, data: bytes, staging: str, mode: int = 0o644) -> None:
    """Replace one small file by name, durably (steps 1 to 4): a crash leaves the old file or the new one, whole.

    `staging` is an existing directory on the same file system. The new file has the mode from the beginning.
    """
    staged = os.path.join(staging, f"{os.path.basename(target)}.{os.getpid()}")
    disk.remove(staged)
    fd = disk.create(staged, mode)
    try:
        disk.write(fd, data, staged)
        disk.sync_file(fd, staged)
    finally:
        os.close(fd)
    disk.rename(staged, target)
    disk.sync_directory(os.path.dirname(target))


def write_new_file(disk: Disk, path: str, data: bytes, mode: int) -> None:
    """Write one new file outside a store (a key), durably.

    Raises Unavailable if the path exists already; a failure leaves no file.
    """
    fd = disk.create(path, mode)
    try:
        disk.write(fd, data, path)
        disk.sync_file(fd, path)
    except BaseException:
        disk.remove(path)
        raise
    finally:
        os.close(fd)
    disk.sync_directory(os.path.dirname(path))


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """Return the system's sync_file_range(2), which begins the writing out of a file; None where it has none."""
    import ctypes  # at use: it is slow to load, and only large objects need it

    try:
        function = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return cast("Callable[[int, int, int, int], int]", function)


def _sync_all(folder: str) -> bool:
    """Call syncfs for the file system of a folder. False where its success proves nothing: then each file is synced.

    syncfs reports failed writes since Linux 5.8 (syncfs(2)). On FUSE, network and overlay file systems it may not reach
    a medium, so only file systems that are known to write everything out are trusted with it. Raises Unavailable where
    a write failed: it may be one of a file that left the memory since, and no fsync of that file tells of it any more.
    """
    import ctypes  # at use: it is slow to load, and only large batches need it

    try:
        major, minor = (int(part) for part in os.uname().release.split(".")[:2])
        status = os.stat(folder)
        device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            # 36 35 98:0 /root /mount options … - type source options (proc_pid_mountinfo(5))
            mounts = [line.split() for line in file]
        types = {fields[fields.index("-") + 1] for fields in mounts if fields[2] == device}
        if (major, minor) < (5, 8) or not types or not types <= _SYNCFS:
            return False
        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
        # A descriptor opened now still reports an earlier failure that no process has seen yet.
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError, IndexError, AttributeError):
        return False
    try:
        if syncfs(fd) == 0:
            return True
        number = ctypes.get_errno()
    finally:
        os.close(fd)
    if number in _NO_SYNCFS:
        return False
    with _explained(folder):
        raise OSError(number, os.strerror(number))


class _explained:  # noqa: N801 - a context manager, written out: it is entered several times for every small object
    """Turns an OSError into an Unavailable (kind unwritable) with `errno` and, for common causes, a remedy."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OtherType):
            raise not_a_file(self._path, error) from error
        if isinstance(error, OSError):
            raise Unavailable(
                f"{self._path} cannot be written: {error.strerror}",
                remedy=_REMEDIES.get(error.errno or 0, ""),
                kind="unwritable",
                path=self._path,
                errno=error.errno,
            ) from error


def not_a_file(path: str, error: OtherType) -> Unavailable:
    """Return the error for a thing of another type in the place of a file that is to be written."""
    return Unavailable(
        f"{path} cannot be written: expected a regular file, found a {type_name(error.mode)}",
        remedy="find out who put it there; store-fsck --repair moves it to quarantine",
        kind="unwritable",
        path=path,
        errno=errno.ELOOP if stat.S_ISLNK(error.mode) else errno.ENXIO,
    )


_REMEDIES = {
    errno.ENOENT: "the folder does not exist: check that the medium is mounted",
    errno.ENOSPC: "free some space and run this again; finished work is kept",
    errno.EDQUOT: "the quota is used up: free some space and run this again",
    errno.EFBIG: "the file system takes no file that large: FAT takes less than 4 GiB, so format the medium as exFAT; "
    "or raise `ulimit -f`",
    errno.EIO: "the medium failed to keep what was written: run this again, and replace the medium if that fails too",
    errno.EROFS: "the medium is read-only: mount it writable, or give another one",
    errno.EACCES: "this user may not write there: run this as a user who may",
    errno.EPERM: "this user may not write there: run this as a user who may",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
}
