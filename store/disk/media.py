"""Reading of a store's folder without trust in it (FORMAT.md 2.1). Nothing here writes, locks or follows a link.

Every path component below the folder of the store is opened by its name in an open directory, without following links
and without blocking, and must be a regular file or a directory: a planted symlink, FIFO or device is a finding, never a
detour, and is not even opened (see `opening`). A file is bounded before it is read, and an object is hashed over its
open descriptor in one pass.

A missing thing raises NotFound (kind missing), a thing of another type Corrupt (kind wrong-type), and everything else
that prevents a look Unavailable (kind unreadable, with `errno`). The three are never confused.

A name in a store is a relative path with `/`, "" for the folder of the store itself.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from store.disk.droppings import is_dropping
from store.disk.medium import Reading, flush, medium_of
from store.disk.opening import OtherType, open_file, type_name
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Unavailable
from store.format.ids import ObjectId, is_hex

if TYPE_CHECKING:
    from typing_extensions import Self

# Reads of 256 KiB to 1 MiB over the descriptor keep BLAKE3 in the cache and are as fast as a memory map. A bad sector
# under a map would raise SIGBUS instead of a finding.
CHUNK = 2**20

OBJECTS = "objects"
# The most names that are taken in of a folder, and of one of the 256 folders of objects (FORMAT.md 2.1).
FOLDER_LIMIT, SHARD_LIMIT = 10_000, 65_536
# A device or a FIFO in the place of a directory is refused by the kernel before it would be opened.
_DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
_ABSENT = frozenset({errno.ENOENT})
# Error numbers by which the system refuses to open a thing of another type.
_WRONG_TYPE = {
    errno.ELOOP: "expected a regular file or a directory, found a symlink",
    errno.ENOTDIR: "expected a directory, found a thing of another type",
}


def object_path(id_: ObjectId) -> str:
    """Return the name of an object in its store: `objects/ab/cdef…`."""
    text = str(id_)
    return f"{OBJECTS}/{text[:2]}/{text[2:]}"


class FileStamp(NamedTuple):
    """Size in bytes, times in nanoseconds and inode of a file: a write to the file or its replacement changes them.

    A tuple, because one is made for every object that is hashed.
    """

    size: int
    mtime: int
    ctime: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class ShardState(NamedTuple):
    """The state of a folder of objects: a digest of its inode, its times and the names in it, as the medium lists them,
    and the newest of these times in nanoseconds."""

    digest: bytes
    newest: int


class Media:
    """An open folder of a store. A directory below it stays open once it was used, so a walk opens each of them once.

    `close` closes them, or the end of the last reference to this object: a verified mission reads from it as long as
    the mission is in use.

    With `drop_cache`, files are read from the medium and not from the page cache, as far as the system allows: pages
    that a process has mapped stay. None stands for true where the folder lies on a removable medium. `reading` says
    what came of it. What was written to the medium before is waited for: raises Unavailable if it did not arrive.
    """

    # Whether the store is no folder of this machine: it has no locks and no index, and each read waits for a network.
    remote = False

    def __init__(self, path: str | os.PathLike[str], *, drop_cache: bool | None = False) -> None:
        self._directories: dict[str, int] = {}
        self._drop_cache = False
        self.reading = Reading()
        self.path = os.path.abspath(path)
        self._prefix = os.path.join(self.path, "")
        with _explained(self.path):
            # The user gives the path of the store, and it may be a link; nothing below it may be one.
            self._directories[""] = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if drop_cache is not False:
            self._read_past_the_cache(always=drop_cache is True)

    def _read_past_the_cache(self, *, always: bool) -> None:
        """Set up reading from the medium: `always`, or where the folder lies on a removable one."""
        medium = medium_of(self._directories[""])
        if medium.removable is False and not always:
            return
        # With an obstacle, too: what the kernel has of these files goes. For a medium that is not known, only if asked.
        self._drop_cache = (always or medium.removable is True) and hasattr(os, "posix_fadvise")
        if medium.obstacle:
            self.reading = Reading(doubt=f"the medium itself, as {medium.obstacle}")
            return
        try:
            flush(self._directories[""])
        except OSError as error:
            raise Unavailable(
                f"what was written to the medium of {self.path} did not arrive: {error.strerror}",
                remedy="copy the store again, to another medium",
                kind="unreadable",
                path=self.path,
                errno=error.errno,
            ) from error
        self.reading = Reading(from_medium=True)

    def _forget(self, fd: int) -> None:
        """Let the next read of an open file come from the medium, where this was asked for."""
        if self._drop_cache:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def again(self) -> Media:
        """Return the same store, opened once more and read past the page cache."""
        return Media(self.path, drop_cache=True)

    def close(self) -> None:
        """Close every open directory."""
        while self._directories:
            os.close(self._directories.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def absolute(self, name: str) -> str:
        """Return the absolute path of a name in the store, for messages and for `durable`."""
        return self._prefix + name

    def directory(self, name: str) -> int:
        """Return the open descriptor of a directory of the store. It belongs to this object: do not close it."""
        fd = self._directories.get(name)
        if fd is None:
            parent, last = self._at(name)
            with _explained(self.absolute(name)):
                fd = os.open(last, _DIRECTORY, dir_fd=parent)
            # Two threads may race for the same directory: the descriptor of the first one stays.
            first = self._directories.setdefault(name, fd)
            if first != fd:
                os.close(fd)
                fd = first
        return fd

    def _at(self, name: str) -> tuple[int, str]:
        """The open directory that a name lies in, and the last component of the name.

        Raises Invalid for no name of a store.
        """
        parent, _, last = name.rpartition("/")
        # These lead out of the directory without being links; no name in a store has them.
        if last in ("", ".", "..") or "\0" in last:
            raise Invalid(f"{name!r} cannot be a name in a store", path=name)
        return self.directory(parent), last

    @contextmanager
    def open(self, name: str) -> Iterator[int]:
        """Yield the descriptor of a regular file of the store, open for reading."""
        parent, last = self._at(name)
        with _explained(self.absolute(name)):
            fd, _ = open_file(last, dir_fd=parent)
        try:
            with _explained(self.absolute(name)):
                self._forget(fd)
            yield fd
        finally:
            os.close(fd)

    def stamp(self, name: str) -> FileStamp:
        """Return the stamp of a regular file without opening it."""
        parent, last = self._at(name)
        with _explained(self.absolute(name)):
            status = os.stat(last, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise _not_a_file(self.absolute(name), status.st_mode)
        return FileStamp.of(status)

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of a file of at most `limit` bytes.

        Raises Corrupt (kind too-large) after `limit` + 1 bytes.
        """
        with self.open(name) as fd, _explained(self.absolute(name)):
            data = bytearray()
            while chunk := os.read(fd, min(limit + 1 - len(data), CHUNK)):
                data += chunk
                if len(data) > limit:
                    path = self.absolute(name)
                    raise Corrupt(
                        f"{path} has more than {limit} bytes, which is its limit", kind="too-large", path=path
                    )
            return bytes(data)

    def digest(
        self,
        id_: ObjectId,
        size: int,
        *,
        name: str | None = None,
        into: bytearray | None = None,
        cached: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> FileStamp:
        """Hash one object in one pass and return the stamp of its file; with `into`, also keep the hashed bytes there.

        `into` has `size` bytes; `name` is the name of the file if it is not in the object's place; with `cached` the
        page cache may answer all the same; `progress` is called with the number of bytes of each read. Raises Corrupt
        (kind truncated, oversized or bit-flip, with object, expected and actual) where the size or the hash differs.
        Memory is constant; the file is read once.
        """
        # Written out and not built on `open`: a store has many small objects, and verify spends its time here.
        if name is None:
            text = id_.hex()
            name, parent, last = f"{OBJECTS}/{text[:2]}/{text[2:]}", self.directory(f"{OBJECTS}/{text[:2]}"), text[2:]
        else:
            parent, last = self._at(name)
        try:
            fd, status = open_file(last, dir_fd=parent)
            try:
                if status.st_size != size:
                    raise _other_size(id_, size, status.st_size)
                if self._drop_cache and not cached:
                    self._forget(fd)
                # One byte more than `size` shows a file that grew; after a short read the file is read again in pieces.
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
        except (OSError, OtherType) as error:
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

    def names(self, name: str, most: int = FOLDER_LIMIT) -> list[str]:
        """Return the names in a directory, ascending.

        Raises Corrupt (kind too-many) for more than `most`: a listing without a bound takes all memory.
        """
        names = self.first_names(name, most + 1)
        if len(names) > most:
            path = self.absolute(name)
            raise Corrupt(
                f"{path} has more than {most} names, which is the limit of this folder",
                remedy="move what does not belong there out of the store",
                kind="too-many",
                path=path,
                expected=most,
            )
        return sorted(names)

    def first_names(self, name: str, most: int = FOLDER_LIMIT, *, folders: bool = False) -> list[str]:
        """Return at most so many names of a directory, with `folders` of the folders in it, in the order in which the
        medium lists them."""
        folder = self.directory(name)
        with _explained(self.absolute(name)):
            # Listings of one descriptor share one position: beside another thread each would be a part.
            own = os.open(".", _DIRECTORY, dir_fd=folder)
            try:
                with os.scandir(own) as entries:
                    wanted = (entry for entry in entries if entry.is_dir(follow_symlinks=False)) if folders else entries
                    return [entry.name for entry in islice(wanted, most)]
            finally:
                os.close(own)

    def names_if_there(self, name: str) -> list[str]:
        """Return the names in a directory, ascending, without what operating systems drop there (see `droppings`); none
        of a missing directory. Raises as `names` does."""
        try:
            return [inner for inner in self.names(name) if not is_dropping(inner)]
        except NotFound:
            return []

    def statuses(self, name: str, most: int) -> Iterator[tuple[str, os.stat_result | FlightbagError]]:
        """Yield the names in a directory, ascending, each with its status or with the error that prevented a look.

        No link is followed. A name that vanishes during the listing is left out. Raises as `names` does.
        """
        names = self.names(name, most)
        folder = self.directory(name)
        for inner in names:
            try:
                yield inner, os.stat(inner, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                yield inner, _explain(error, self.absolute(f"{name}/{inner}"))

    def objects(self, first: int) -> Iterator[tuple[ObjectId, os.stat_result]]:
        """Yield the objects in the folder `objects/<first in hex>`, ascending, each with the status of its file.

        Everything else in the folder is passed over. Raises Unavailable where it cannot be listed, and Corrupt (kind
        too-many).
        """
        shard = f"{OBJECTS}/{first:02x}"
        try:
            for name, status in self.statuses(shard, SHARD_LIMIT):
                if isinstance(status, FlightbagError):
                    raise status
                if stat.S_ISREG(status.st_mode) and is_hex(shard[-2:] + name):
                    yield ObjectId.parse(shard[-2:] + name), status
        except NotFound:
            return
        except Corrupt as error:
            if error.kind == "too-many":
                raise
            # Something else has the name of the folder.

    def shard_state(self, first: int) -> ShardState | None:
        """Return the state of the folder `objects/<first in hex>`; None for one of too many names. Where the store has
        no such folder is a state, too.

        Raises Unavailable where it cannot be listed.
        """
        folder = self._shard(first)
        if folder is None:
            return ShardState(bytes(32), 0)
        name = f"{OBJECTS}/{first:02x}"
        with _explained(self.absolute(name)):
            status = os.fstat(folder)  # before the names: what changes them later changes this
        names = self.first_names(name, SHARD_LIMIT + 1)
        if len(names) > SHARD_LIMIT:
            return None
        stamp = FileStamp.of(status)
        text = "/".join(map(str, (stamp.inode, stamp.mtime, stamp.ctime, *names)))
        digest = blake3(os.fsencode(text)).digest()
        return ShardState(digest, max(stamp.mtime, stamp.ctime))

    def vacant(self, id_: ObjectId) -> bool:
        """Whether nothing at all lies in the place of an object. False where only a closer look can tell."""
        # Cheaper than the NotFound of `stamp`: an insertion asks this of each object, and a new store has no shard.
        text = id_.hex()
        shard = f"{OBJECTS}/{text[:2]}"
        try:
            folder = self._directories.get(shard)
            if folder is None:
                os.stat(text[:2], dir_fd=self.directory(OBJECTS), follow_symlinks=False)
            else:
                os.stat(text[2:], dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return True
        except (OSError, FlightbagError):
            return False
        return False

    def lacking(self, objects: Iterable[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
        """Return those of the objects, given as (id, size), in whose place no regular file of that size lies.

        No object is opened. Raises Unavailable where a look fails.
        """
        # Written out and not built on `stamp`: a sync looks at every object of its target here. To list the folders
        # would save nothing, because a size takes a look at each file all the same.
        folders: dict[int, int | None] = {}
        lacking = []
        for item in objects:
            id_, size = item
            first = id_[0]
            try:
                folder = folders[first]
            except KeyError:
                folder = folders[first] = self._shard(first)
            if folder is not None:
                try:
                    status = os.stat(id_.hex()[2:], dir_fd=folder, follow_symlinks=False)
                    if status.st_size == size and stat.S_ISREG(status.st_mode):
                        continue
                except OSError as error:
                    if error.errno not in _ABSENT:
                        raise _explain(error, self.absolute(object_path(ObjectId(id_)))) from error
            lacking.append(item)
        return lacking

    def _shard(self, first: int) -> int | None:
        """Return the open folder `objects/<first in hex>`; None where no folder has that name."""
        try:
            return self.directory(f"{OBJECTS}/{first:02x}")
        except (NotFound, Corrupt):
            return None

    def chunks(self, name: str, size: int, progress: Callable[[int], None] | None = None) -> Iterator[bytes]:
        """Yield the bytes of a file in chunks, at most one chunk more than `size`: a file that grows has an end."""
        # Written out and not built on `open`: a sync reads many small objects here.
        parent, last = self._at(name)
        path, done = self.absolute(name), 0
        with _explained(path):
            fd, status = open_file(last, dir_fd=parent)
        try:
            with _explained(path):
                self._forget(fd)
            while done <= size:
                with _explained(path):
                    chunk = os.read(fd, CHUNK)
                if not chunk:
                    return
                done += len(chunk)
                yield chunk
                if progress is not None:
                    progress(len(chunk))
                if len(chunk) < CHUNK and done == status.st_size:
                    return  # the end, without one more call to see it
        finally:
            os.close(fd)

    def file_type(self, name: str) -> str:
        """Return `file`, `directory`, `symlink`, `fifo`, `socket` or `device` for the thing under a name.

        Opens nothing.
        """
        parent, last = self._at(name)
        with _explained(self.absolute(name)):
            return type_name(os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode)


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
    done += len(os.read(fd, 1))
    if done != size:
        raise _other_size(id_, size, done)
    return hasher.digest()


def _other_size(id_: ObjectId, expected: int, actual: int) -> Corrupt:
    return Corrupt(
        f"object {id_} has {actual} bytes, {expected} are expected",
        kind="truncated" if actual < expected else "oversized",
        object=id_,
        expected=expected,
        actual=actual,
    )


def _wrong_type(path: str, why: str) -> Corrupt:
    return Corrupt(f"{path}: {why}", kind="wrong-type", path=path)


def _not_a_file(path: str, mode: int) -> Corrupt:
    return _wrong_type(path, f"expected a regular file, found a {type_name(mode)}")


class _explained:  # noqa: N801 - a context manager, written out: it is entered for every small object
    """Turns an OSError or OtherType into NotFound, Corrupt or Unavailable (see the head of the module)."""

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError | OtherType):
            raise _explain(error, self._path) from error


def _explain(error: OSError | OtherType, path: str) -> FlightbagError:
    if isinstance(error, OtherType):
        return _not_a_file(path, error.mode)
    if error.errno in _ABSENT:
        return NotFound(f"{path} does not exist", kind="missing", path=path)
    if error.errno in _WRONG_TYPE:
        return _wrong_type(path, _WRONG_TYPE[error.errno])
    remedy = "run this as a user who may read it" if error.errno in (errno.EACCES, errno.EPERM) else ""
    text = f"{path} cannot be read: {error.strerror}"
    return Unavailable(text, remedy=remedy, kind="unreadable", path=path, errno=error.errno)
