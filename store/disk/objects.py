"""Insertion of objects: steps 1 to 5 of the publication order (FORMAT.md 2.4, `durable`), many objects to a barrier.

Contract of a batch: after `commit` returns, every object added is in the store, whole, and survives a power cut; before
that, nothing may rely on any of them. An object that the store has already is not written again, but it is examined:
its size, and its hash unless the hash record in the index shows that the file did not change since it was last hashed
in full. A damaged resident copy goes to quarantine as soon as the right bytes are durable beside it, and is replaced.

Nothing here publishes: no ref moves. Nothing here flies: aboard, `takeoff.evidence` hashes every byte.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from threading import Lock

from blake3 import blake3

from store.disk.durable import MANY, THREADS, Disk
from store.disk.index import Index, Row
from store.disk.locks import exclusive
from store.disk.media import CHUNK, OBJECTS, Media, object_path
from store.disk.opening import OtherType, open_file, type_name
from store.disk.quarantine import set_aside
from store.disk.staging import Staging
from store.errors import Corrupt, NotFound, Unavailable
from store.format.ids import ObjectId
from store.values import dataclass


@dataclass(frozen=True, slots=True)
class Added:
    """One object of a batch: its id, its size in bytes, and `reused` where the store had it already."""

    id: ObjectId
    size: int
    reused: bool


class Batch:
    """Objects on their way into the store. Made by `inserting`; used by one thread, except within `add_all`."""

    def __init__(self, media: Media, disk: Disk, index: Index | None, staging: Staging) -> None:
        self._media = media
        self._disk = disk
        self._index = index
        self._staging = staging
        self._lock = Lock()
        self._staged: dict[ObjectId, str] = {}
        # Resident objects that were hashed now, because no hash record vouches for them: the process that wrote them
        # may not have reached its barriers yet, so `commit` makes them durable too.
        self._resident: dict[ObjectId, Row] = {}
        # Objects whose resident copy is damaged, with their sizes. The copy stays until the right bytes are durable.
        self._bad: dict[ObjectId, int] = {}
        self._numbers = count()
        self._stopped = False

    def add(self, chunks: Iterable[bytes | bytearray | memoryview], expect: ObjectId | None = None) -> Added:
        """Stage the object that the chunks make up, hashing while writing. Memory is that of one chunk.

        With `expect`, raises Corrupt (kind bit-flip) and keeps nothing unless the bytes have that id.
        """
        number = next(self._numbers)
        path = os.path.join(self._staging.folder(), str(number))
        hasher, size = blake3(), 0
        fd = self._disk.create(path)
        try:
            for chunk in chunks:
                if self._stopped:
                    raise Unavailable("stopped because another object of the batch failed", kind="stopped")
                hasher.update(chunk)
                size += len(chunk)
                self._disk.write(fd, chunk, path)
                # Few small objects are written out by the barrier as fast.
                if len(chunk) >= CHUNK or number >= MANY:
                    self._disk.start_writing(fd)
            self._disk.seal(fd, path)
        finally:
            os.close(fd)
        id_ = ObjectId(hasher.digest())
        if expect is not None and id_ != expect:
            self._disk.remove(path)
            raise _other_bytes(expect, id_)
        with self._lock:
            reused = id_ in self._staged or self.holds(id_, size)
            if not reused:
                self._staged[id_] = path
        if reused:
            self._disk.remove(path)
        return Added(id_, size, reused)

    def add_all(
        self, objects: Iterable[tuple[Iterable[bytes], ObjectId | None]], *, threads: int = THREADS
    ) -> list[Added]:
        """Stage many objects, `threads` at a time. An item is the chunks of an object and the id to expect, or None.

        Other threads iterate over the chunks. Raises the error of the first object that fails.
        """
        self._staging.folder()  # before the threads start: only one may make it

        def stop() -> None:
            self._stopped = True

        try:
            return self._disk.at_once(lambda one: self.add(*one), objects, threads=threads, stop=stop)
        finally:
            self._stopped = False

    def take(self, path: str, expect: ObjectId) -> Added:
        """Stage a file that a program wrote on the medium of the store, without a copy: it is hashed where it lies, and
        moved by `commit`. Nothing may write to it any more.

        Raises Corrupt, and leaves the file, unless it is a regular file whose bytes have the id.
        """
        self._staging.folder()  # the mark of a transaction that dies between its renames and their barrier
        id_, size = hashed(path)
        if id_ != expect:
            raise _other_bytes(expect, id_)
        fd, _ = open_file(path)
        try:
            self._disk.seal(fd, path)
        finally:
            os.close(fd)
        reused = id_ in self._staged or self.holds(id_, size)
        if reused:
            self._disk.remove(path)
        else:
            self._staged[id_] = path
        return Added(id_, size, reused)

    def add_bytes(self, data: bytes, expect: ObjectId | None = None) -> Added:
        """Stage one object; nothing is written where the store has it. With `expect` raises as `add` does."""
        id_ = ObjectId.of(data)
        if expect is not None and id_ != expect:
            raise _other_bytes(expect, id_)
        if id_ in self._staged or self.holds(id_, len(data)):
            return Added(id_, len(data), reused=True)
        return self.add([data])

    def folder(self) -> str:
        """Return the absolute path of this batch's folder in `tmp/`, for programs that write files to be added."""
        return self._staging.folder()

    def holds(self, id_: ObjectId, size: int) -> bool:
        """Whether the store has this object, whole.

        A damaged copy is replaced when the object is added and committed.
        """
        if id_ in self._resident:
            return True
        if self._media.vacant(id_):
            return False
        try:
            row = confirm_object(self._media, self._index, id_, size)
        except NotFound:
            return False
        except Corrupt:
            self._bad[id_] = size
            return False
        except Unavailable as error:
            # Only a bad sector (EIO) counts as a damaged copy: the caller has the right bytes. Other errors may pass.
            if error.errno != errno.EIO:
                raise
            self._bad[id_] = size
            return False
        if row is not None:
            self._resident[id_] = row
        return True

    def commit(self) -> None:
        """Do steps 2 to 5 for everything staged, and for resident objects that may not be durable yet."""
        if not self._staged and not self._resident:
            return
        with self._healing():
            objects = self._media.absolute(OBJECTS)
            names = {id_: object_path(id_) for id_ in (*self._staged, *self._resident)}
            paths = {id_: self._media.absolute(name) for id_, name in names.items()}
            self._disk.sync_files([*self._staged.values(), *(paths[id_] for id_ in self._resident)])  # 2
            for id_ in self._bad:
                self._set_aside(id_)
            shards = {os.path.dirname(path) for path in paths.values()}
            new = sorted(shard for shard in shards if not os.path.lexists(shard))
            for shard in new:
                self._disk.make_directory(shard)
            self._staging.unsettled = True
            for id_, path in self._staged.items():
                self._disk.rename(path, paths[id_])  # 3
            parent = [objects] if new or self._resident else []
            self._disk.sync_directories([*sorted(shards), *parent])  # 4
            self._staging.unsettled = False
        if self._index is not None:
            now = int(time.time())
            # The bytes were hashed while they were written, into a file that only this process could change.
            rows = {id_: Row.of(self._media.stamp(names[id_]), inserted=now, verified=now) for id_ in self._staged}
            self._index.commit(objects={**rows, **self._resident})  # 5
        self._staged.clear()
        self._resident.clear()
        self._bad.clear()

    @contextmanager
    def _healing(self) -> Iterator[None]:
        """Hold the lock `heal` while damaged objects are replaced, if there are any.

        Without it, two processes with the same damaged object would each move the other's right copy to quarantine. An
        object that another process has healed meanwhile counts as resident.
        """
        self._bad = {id_: size for id_, size in self._bad.items() if id_ in self._staged}
        if not self._bad:
            yield
            return
        with exclusive(self._media.path, self._disk, "heal", "the healing of objects", timeout=-1):
            for id_, size in list(self._bad.items()):
                if self.holds(id_, size):
                    self._disk.remove(self._staged.pop(id_))
                    del self._bad[id_]
            yield

    def _set_aside(self, id_: ObjectId) -> None:
        """Move whatever lies in an object's place to quarantine, if anything does."""
        name = object_path(id_)
        shard = os.path.dirname(name)
        # A link in place of the shard's directory leads out of the store: then the link itself is moved.
        with suppress(NotFound):
            set_aside(self._media, self._disk, name if self._media.file_type(shard) == "directory" else shard)


@contextmanager
def inserting(media: Media, disk: Disk, index: Index | None) -> Iterator[Batch]:
    """Yield a batch. Objects that are not committed when the block ends are dropped."""
    with Staging(media, disk) as staging:
        yield Batch(media, disk, index, staging)


def confirm_object(media: Media, index: Index | None, id_: ObjectId, size: int) -> Row | None:
    """Raise NotFound or Corrupt unless the store has this object, whole.

    Returns None where the hash record in the index shows that the file did not change since it was last hashed in full;
    otherwise the file is hashed now, and its new row for the index is returned. Never used aboard.
    """
    stamp = media.stamp(object_path(id_))
    row = index.object(id_) if index is not None else None
    if stamp.size == size and row is not None and row.fresh(stamp):
        return None
    stamp = media.digest(id_, size)
    now = int(time.time())
    return Row.of(stamp, inserted=row.inserted if row else now, verified=now)


def hashed(path: str) -> tuple[ObjectId, int]:
    """Return the id and the size of a regular file. No link is followed. Raises as `read_chunks` does."""
    hasher, size = blake3(), 0
    for chunk in read_chunks(path, follow=False):
        hasher.update(chunk)
        size += len(chunk)
    return ObjectId(hasher.digest()), size


def read_chunks(path: str, *, follow: bool = True) -> Iterator[bytes]:
    """Yield the content of a file, at most CHUNK bytes at a time. Raises Unavailable where it cannot be read."""
    try:
        fd, status = open_file(path, follow=follow)
        done = 0
        try:
            while chunk := os.read(fd, CHUNK):
                yield chunk
                done += len(chunk)
                if len(chunk) < CHUNK and done == status.st_size:
                    return  # the end, without one more call to see it
        finally:
            os.close(fd)
    except OtherType as error:
        text = f"{path}: expected a regular file, found a {type_name(error.mode)}"
        raise Corrupt(text, kind="wrong-type", path=path) from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", kind="unreadable", path=path) from error


def _other_bytes(expected: ObjectId, actual: ObjectId) -> Corrupt:
    return Corrupt(
        f"the source of object {expected} has bytes that hash to {actual}",
        kind="bit-flip",
        object=expected,
        expected=str(expected),
        actual=str(actual),
    )
