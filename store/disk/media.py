"""Reading a store's directory without trusting it. Read-only: nothing here writes, locks or follows a link.

Every path component below the store's root is opened by its name in an open directory, without following links and
without blocking, and must be a regular file or a directory: a planted symlink, FIFO or device is a finding, never a
detour. Files are bounded before they are read, and hashed over the open descriptor in one pass.

A thing that is not there raises NotFound; a thing of another type, Corrupt(kind=wrong-type); anything that keeps us
from looking, Unavailable. The three are never confused.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from blake3 import blake3

from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Unavailable
from store.format.ids import ObjectId, is_hex

# Reads between 256 KiB and 1 MiB over the descriptor keep BLAKE3 in the cache and are no slower than a map; a bad
# sector under a map would be SIGBUS instead of a finding.
CHUNK = 2**20

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_ABSENT = frozenset({errno.ENOENT})
_WRONG_TYPE = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR})


def object_path(id_: ObjectId) -> str:
    """Where an object lies, relative to the store: `objects/ab/cdef…`."""
    text = str(id_)
    return f"objects/{text[:2]}/{text[2:]}"


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What the file system says of a file, as the ledger remembers it; times in nanoseconds."""

    size: int
    mtime: int
    ctime: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class Media:
    """An open store directory. Directories below it stay open once used, so a walk opens each of them once.

    They are closed by `close`, or when nobody refers to the object any more: a verified mission reads from it for as
    long as it is in use.

    With `drop_cache`, objects are read from the medium and not from the page cache, as far as the system goes along:
    pages that somebody has changed or mapped stay.
    """

    def __init__(self, path: str | os.PathLike[str], *, drop_cache: bool = False) -> None:
        self._directories: dict[str, int] = {}
        self._drop_cache = drop_cache
        self.path = os.path.abspath(path)
        with _explained(self.path):
            # The store's own path is the user's word and may be a link; what lies below it may not.
            self._directories[""] = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        while self._directories:
            os.close(self._directories.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def absolute(self, name: str) -> str:
        """The path of a name in the store, for messages and for `durable`."""
        return os.path.join(self.path, name)

    def directory(self, name: str) -> int:
        """The open descriptor of a directory of the store. It belongs to this object."""
        fd = self._directories.get(name)
        if fd is None:
            parent, last = self._at(name)
            with _explained(self.absolute(name)):
                fd = os.open(last, _DIRECTORY, dir_fd=parent)
            # Two threads may race for the same directory: the first one's descriptor stays.
            kept = self._directories.setdefault(name, fd)
            if kept != fd:
                os.close(fd)
                fd = kept
        return fd

    def _at(self, name: str) -> tuple[int, str]:
        """The open directory that a name lies in, and its last component."""
        parent, _, last = name.rpartition("/")
        # These would be followed without being links; no name in a store has them.
        if last in ("", ".", "..") or "\0" in last:
            raise Invalid(f"{name!r} is no name in a store", path=name)
        return self.directory(parent), last

    @contextmanager
    def open(self, name: str) -> Iterator[int]:
        """The descriptor of a regular file of the store."""
        parent, last = self._at(name)
        with _explained(self.absolute(name)):
            fd = os.open(last, _FILE, dir_fd=parent)
        try:
            with _explained(self.absolute(name)):
                status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise _wrong_type(self.absolute(name))
            yield fd
        finally:
            os.close(fd)

    def stamp(self, name: str) -> FileStamp:
        """The stamp of a regular file, without opening it."""
        parent, last = self._at(name)
        with _explained(self.absolute(name)):
            status = os.stat(last, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise _wrong_type(self.absolute(name))
        return FileStamp.of(status)

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a small file. Raises Corrupt above `limit`, having read no more than that."""
        with self.open(name) as fd, _explained(self.absolute(name)):
            data = bytearray()
            while chunk := os.read(fd, min(limit + 1 - len(data), CHUNK)):
                data += chunk
                if len(data) > limit:
                    path = self.absolute(name)
                    raise Corrupt(
                        f"{path} has more than the {limit} bytes that it may have", kind="too-large", path=path
                    )
            return bytes(data)

    def digest(
        self,
        id_: ObjectId,
        size: int,
        *,
        name: str | None = None,
        into: bytearray | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> FileStamp:
        """Hashes one object in one pass and returns its stamp; with `into`, also keeps the bytes that were hashed.

        `into` must have `size` bytes; `name` is where the bytes lie if not in the object's place. Raises Corrupt where
        the size or the hash is another (kind truncated, oversized or bit-flip), with object, expected and actual.
        Memory is constant; the file is read once.
        """
        # Written out, not in terms of `open`: a store has many small objects, and this is what verify does all day.
        if name is None:
            text = id_.hex()
            name, parent, last = f"objects/{text[:2]}/{text[2:]}", self.directory(f"objects/{text[:2]}"), text[2:]
        else:
            parent, last = self._at(name)
        try:
            fd = os.open(last, _FILE, dir_fd=parent)
            try:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise _wrong_type(self.absolute(name))
                _check_size(id_, size, status.st_size)
                if self._drop_cache:
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                # One byte more shows a file that grew; a read that gives less is done again in pieces.
                data = os.read(fd, size + 1) if into is None and size < CHUNK else b""
                if len(data) == size > 0:
                    actual = blake3(data).digest()
                    if progress is not None:
                        progress(size)
                else:
                    os.lseek(fd, 0, os.SEEK_SET)
                    actual = _hash(fd, id_, size, into, progress)
            finally:
                os.close(fd)
        except OSError as error:
            raise _explain(error, self.absolute(name)) from error
        if actual != id_:
            raise Corrupt(
                f"object {id_} hashes to {actual.hex()}",
                kind="bit-flip",
                object=id_,
                expected=str(id_),
                actual=actual.hex(),
            )
        return FileStamp.of(status)

    def names(self, name: str) -> list[str]:
        """The names in a directory, ascending."""
        with _explained(self.absolute(name)):
            return sorted(os.listdir(self.directory(name)))

    def names_if_there(self, name: str) -> list[str]:
        """The names in a directory; none where there is no such directory."""
        try:
            return self.names(name)
        except NotFound:
            return []

    def statuses(self, name: str) -> Iterator[tuple[str, os.stat_result | FlightbagError]]:
        """The names in a directory, ascending, each with its status or with why it has none; no link is followed.

        What vanishes while it is listed is left out.
        """
        folder = self.directory(name)
        for inner in self.names(name):
            try:
                yield inner, os.stat(inner, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                yield inner, _explain(error, self.absolute(f"{name}/{inner}"))

    def objects(self, first: int) -> Iterator[tuple[ObjectId, os.stat_result]]:
        """The object files of one folder of `objects/`, ascending; what is none is passed over. Raises Unavailable."""
        shard = f"objects/{first:02x}"
        try:
            for name, status in self.statuses(shard):
                if isinstance(status, FlightbagError):
                    raise status
                if stat.S_ISREG(status.st_mode) and is_hex(shard[-2:] + name):
                    yield ObjectId.parse(shard[-2:] + name), status
        except (NotFound, Corrupt):
            return  # no such folder, or something else in its place

    def chunks(self, name: str, size: int, progress: Callable[[int], None] | None = None) -> Iterator[bytes]:
        """The bytes of a file, at most one chunk more than `size`: a file that grows is caught, not followed."""
        done = 0
        with self.open(name) as fd:
            while done <= size:
                with _explained(self.absolute(name)):
                    chunk = os.read(fd, CHUNK)
                if not chunk:
                    return
                done += len(chunk)
                yield chunk
                if progress is not None:
                    progress(len(chunk))

    def file_type(self, name: str) -> str:
        """`file`, `directory`, or what else lies under a name: symlink, fifo, socket, device."""
        parent, last = self._at(name)
        with _explained(self.absolute(name)):
            return type_of_file(os.stat(last, dir_fd=parent, follow_symlinks=False))


def type_of_file(status: os.stat_result) -> str:
    """`file`, `directory`, symlink, fifo, socket or device."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "device")


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def _hash(fd: int, id_: ObjectId, size: int, into: bytearray | None, progress: Callable[[int], None] | None) -> bytes:
    """The digest of exactly `size` bytes of an open file, read in one pass."""
    hasher = blake3()
    view = memoryview(bytearray(min(size, CHUNK)) if into is None else into)
    done = 0
    while done < size:
        at = 0 if into is None else done
        window = view[at : at + min(CHUNK, size - done)]
        count = os.readv(fd, [window])
        if count == 0:
            break
        hasher.update(window[:count])
        done += count
        if progress is not None:
            progress(count)
    # One byte more shows a file that grew since its size was taken.
    _check_size(id_, size, done + len(os.read(fd, 1)))
    return hasher.digest()


def _check_size(id_: ObjectId, expected: int, actual: int) -> None:
    if actual != expected:
        raise Corrupt(
            f"object {id_} has {actual} bytes, {expected} are expected",
            kind="truncated" if actual < expected else "oversized",
            object=id_,
            expected=expected,
            actual=actual,
        )


def _wrong_type(path: str) -> Corrupt:
    return Corrupt(f"{path} is no regular file, or no folder where one belongs", kind="wrong-type", path=path)


class _explained:  # noqa: N801 - a context manager, written out: it is entered for every small object
    """Turns an OSError into the error that says which of the three it is."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise _explain(error, self._path) from error


def _explain(error: OSError, path: str) -> FlightbagError:
    if error.errno in _ABSENT:
        return NotFound(f"{path} is not there", kind="missing", path=path)
    if error.errno in _WRONG_TYPE:
        return _wrong_type(path)
    remedy = "run it as a user who may read it" if error.errno in (errno.EACCES, errno.EPERM) else ""
    text = f"{path} cannot be read: {error.strerror}"
    return Unavailable(text, remedy=remedy, kind="unreadable", path=path, errno=error.errno)
