"""Every effect on the disk that must survive a power cut. The only code that calls fsync, rename or link.

Publication order; each step is a method of `Disk`, so each is a point where a test can let the power fail:

 1. stage: objects are written to tmp/<transaction>/, hashed while they are written
 2. the files of the batch are fsynced
 3. they are renamed into objects/
 4. the shard directories are fsynced, and the parent of every directory that is new
 5. the index is committed
 6. the log line is appended and fsynced
 7. the ref is written, fsynced and renamed, and its directory fsynced

The manifest object goes through 1 to 5 like any other, after everything that it names. A crash anywhere leaves the
missions published before whole, and at worst strays in tmp/.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from store.errors import Unavailable

# What a file system without modes (FAT) answers to chmod.
_NO_MODES = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
# What a file system that cannot share blocks, or not these, answers to FICLONE (linux/fs.h: _IOW(0x94, 9, int)).
_NO_CLONES = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM})
_FICLONE = 0x40049409
OBJECT_MODE = 0o444
_SYNC_THREADS = 8
# Writing into the page cache keeps a processor busy, and leaves the interpreter free: one thread more than processors.
_THREADS = min(8, (os.cpu_count() or 1) + 1)
# From how many files on one syncfs is tried, and where.
_MANY = 64
_SYNCFS = frozenset({"ext2", "ext3", "ext4", "xfs", "f2fs"})

T = TypeVar("T")
R = TypeVar("R")


class Disk:
    """The operations that publication is made of. Paths are absolute.

    Tests pass in a subclass that records operations, fails or stops at any of them.
    """

    def make_directory(self, path: str) -> None:
        """Makes a directory; fine if it is there."""
        with _explained(path):
            try:
                os.mkdir(path, 0o755)
            except FileExistsError:
                if not os.path.isdir(path) or os.path.islink(path):
                    raise

    def create(self, path: str, mode: int = 0o644) -> int:
        """A new file, open for writing. Raises Unavailable if it is there already."""
        with _explained(path):
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)

    def write(self, fd: int, data: bytes | bytearray | memoryview, path: str) -> None:
        with _explained(path):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]

    def seal(self, fd: int, path: str) -> None:
        """Makes a file read-only where the medium has modes."""
        with _explained(path):
            try:
                os.fchmod(fd, OBJECT_MODE)
            except OSError as error:
                if error.errno not in _NO_MODES:
                    raise

    def sync_file(self, fd: int, path: str) -> None:
        with _explained(path):
            os.fsync(fd)

    def sync_files(self, paths: Iterable[str]) -> None:
        """One barrier for a batch: all of these files, on one file system, are on the medium when it returns."""
        wanted = list(paths)
        if len(wanted) >= _MANY and _sync_all(os.path.dirname(wanted[0])):
            return

        def sync(path: str) -> None:
            with _explained(path):
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    self.sync_file(fd, path)
                finally:
                    os.close(fd)

        self.at_once(sync, wanted, threads=_SYNC_THREADS)

    def at_once(
        self,
        task: Callable[[T], R],
        items: Iterable[T],
        *,
        threads: int = _THREADS,
        stop: Callable[[], None] = lambda: None,
    ) -> list[R]:
        """Does a task for each item, a few of them at a time, and gives the results in order.

        The first error is raised when those under way have ended; `stop` is called before that wait, to shorten it.
        """
        pool = ThreadPoolExecutor(threads)
        try:
            futures = [pool.submit(task, item) for item in items]
            for future in as_completed(futures):
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def rename(self, source: str, target: str) -> None:
        """Moves a file over `target`, atomically where the medium can."""
        with _explained(target):
            os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        """Gives a file a second name."""
        with _explained(target):
            os.link(source, target, follow_symlinks=False)

    def clone(self, source: int, fd: int, path: str) -> bool:
        """Makes the new file `fd` share the blocks of `source` until one is written to; False if that cannot be."""
        with _explained(path):
            try:
                fcntl.ioctl(fd, _FICLONE, source)
            except OSError as error:
                if error.errno not in _NO_CLONES:
                    raise
                return False
        return True

    def sync_directory(self, path: str) -> None:
        with _explained(path):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def remove(self, path: str) -> None:
        """Removes a file, or a directory that is empty; fine if it is gone."""
        with _explained(path):
            try:
                if os.path.isdir(path) and not os.path.islink(path):
                    os.rmdir(path)
                else:
                    os.unlink(path)
            except FileNotFoundError:
                return

    def append(self, path: str, data: bytes, keep: int) -> None:
        """Cuts the file to its first `keep` bytes, appends `data` and makes both durable."""
        with _explained(path):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                # Only where there is something to cut: a driver for FAT refuses to cut a file to the size that it has.
                if os.fstat(fd).st_size != keep:
                    os.ftruncate(fd, keep)
                os.lseek(fd, keep, os.SEEK_SET)
                self.write(fd, data, path)
                self.sync_file(fd, path)
            finally:
                os.close(fd)


def replace_file(disk: Disk, target: str, data: bytes, staging: str) -> None:
    """Steps 1 to 4 for one small file that is replaced by name: after a crash it is the old one or the new one.

    `staging` is a directory on the same file system; it must exist.
    """
    staged = os.path.join(staging, f"{os.path.basename(target)}.{os.getpid()}")
    disk.remove(staged)
    fd = disk.create(staged)
    try:
        disk.write(fd, data, staged)
        disk.sync_file(fd, staged)
    finally:
        os.close(fd)
    disk.rename(staged, target)
    disk.sync_directory(os.path.dirname(target))


def write_new_file(disk: Disk, path: str, data: bytes, mode: int) -> None:
    """One new file outside a store (a key), durable; never over something that is there, and whole or not at all."""
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


def _sync_all(folder: str) -> bool:
    """syncfs for the file system of a folder; False where that is no proof: then each file is synced by itself.

    It reports failed writes since Linux 5.8 (syncfs(2)). Through FUSE, networks and overlays it may reach no medium, so
    it is used on the file systems alone that are known to write everything out.
    """
    import ctypes  # here, as little else needs it and it takes a while to load

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
        # Opened anew, it still reports a failure that nobody has seen yet.
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return bool(ctypes.CDLL(None, use_errno=True).syncfs(fd) == 0)
        finally:
            os.close(fd)
    except (OSError, ValueError, IndexError, AttributeError):
        return False


class _explained:  # noqa: N801 - a context manager, written out: it is entered several times for every small object
    """Turns an OSError into an Unavailable that says what to do."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise Unavailable(
                f"{self._path} cannot be written: {error.strerror}",
                remedy=_REMEDIES.get(error.errno or 0, ""),
                kind="unwritable",
                path=self._path,
                errno=error.errno,
            ) from error


_REMEDIES = {
    errno.ENOENT: "the folder that it would lie in is not there; is the medium mounted?",
    errno.ENOSPC: "free some space and run it again; what was finished is kept",
    errno.EDQUOT: "the quota is used up; free some space and run it again",
    errno.EROFS: "the medium is read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
    errno.EMFILE: "too many open files; raise `ulimit -n`",
}
