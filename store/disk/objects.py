"""Inserting objects: steps 1 to 5 of the publication order (see `durable`), many objects to a barrier.

Contract of a batch: after `commit` returns, every object added is in the store, whole, and survives a power cut;
before, none of them may be relied on. Adding what is there already costs a look at it: the size, and the hash unless
the ledger says that the file is untouched since its last full hash. A bad resident copy goes to quarantine when the
right bytes are durable beside it, and is replaced, never kept.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from threading import Lock

from blake3 import blake3

from store.disk.durable import Disk
from store.disk.index import Index, Row
from store.disk.locks import exclusive
from store.disk.media import CHUNK, Media, object_path
from store.disk.quarantine import set_aside
from store.disk.staging import Staging
from store.errors import Corrupt, NotFound, Unavailable
from store.format.ids import ObjectId


@dataclass(frozen=True, slots=True)
class Added:
    """One object of a batch; `reused` where the store had it already."""

    id: ObjectId
    size: int
    reused: bool


class Batch:
    """Objects on their way in. Made by `inserting`; used by one thread, but for those of `add_all`."""

    def __init__(self, media: Media, disk: Disk, index: Index | None, staging: Staging) -> None:
        self._media = media
        self._disk = disk
        self._index = index
        self._staging = staging
        self._lock = Lock()
        self._staged: dict[ObjectId, str] = {}
        # What was there, whole, but not by the ledger: its writer may not have come to its barriers yet.
        self._found: dict[ObjectId, Row] = {}
        # Objects whose resident copy is damaged, with their sizes. It stays until the right bytes are durable.
        self._bad: dict[ObjectId, int] = {}
        self._numbers = count()
        self._stopped = False

    def add(self, chunks: Iterable[bytes | bytearray | memoryview], expect: ObjectId | None = None) -> Added:
        """Stages the object that the chunks make up, hashing while writing; memory is that of a chunk.

        With `expect`, raises Corrupt, keeping nothing, unless the bytes have that id.
        """
        path = os.path.join(self._staging.folder(), str(next(self._numbers)))
        hasher, size = blake3(), 0
        fd = self._disk.create(path)
        try:
            for chunk in chunks:
                if self._stopped:
                    raise Unavailable("stopped, as another object of the batch failed", kind="stopped")
                hasher.update(chunk)
                size += len(chunk)
                self._disk.write(fd, chunk, path)
            self._disk.seal(fd, path)
        finally:
            os.close(fd)
        id_ = ObjectId(hasher.digest())
        if expect is not None and id_ != expect:
            self._disk.remove(path)
            raise Corrupt(
                f"object {expect} hashes to {id_} at its source",
                kind="bit-flip",
                object=expect,
                expected=str(expect),
                actual=str(id_),
            )
        with self._lock:
            reused = id_ in self._staged or self.holds(id_, size)
            if not reused:
                self._staged[id_] = path
        if reused:
            self._disk.remove(path)
        return Added(id_, size, reused)

    def add_all(self, objects: Iterable[tuple[Iterable[bytes], ObjectId | None]]) -> list[Added]:
        """Stages many objects, a few at a time: for each its chunks, and the id that they are expected to have.

        Chunks are asked for by other threads. Raises what the first that fails raises.
        """
        self._staging.folder()  # made by one thread

        def stop() -> None:
            self._stopped = True

        try:
            return self._disk.at_once(lambda one: self.add(*one), objects, stop=stop)
        finally:
            self._stopped = False

    def add_bytes(self, data: bytes) -> Added:
        """Stages one object; nothing is written where the store has it."""
        id_ = ObjectId.of(data)
        if id_ in self._staged or self.holds(id_, len(data)):
            return Added(id_, len(data), reused=True)
        return self.add([data])

    def folder(self) -> str:
        """The folder of this batch in `tmp/`, for programs that write what is to be added."""
        return self._staging.folder()

    def holds(self, id_: ObjectId, size: int) -> bool:
        """Whether the store has this object, whole. A bad copy is replaced when the object is added and committed."""
        if id_ in self._found:
            return True
        try:
            row = confirm_object(self._media, self._index, id_, size)
        except NotFound:
            return False
        except Corrupt:
            self._bad[id_] = size
            return False
        except Unavailable as error:
            # A bad sector is no reason to go without: the right bytes are at hand. Anything else may be a passing want.
            if error.errno != errno.EIO:
                raise
            self._bad[id_] = size
            return False
        if row is not None:
            self._found[id_] = row
        return True

    def commit(self) -> None:
        """Steps 2 to 5 for everything staged, and for what was found but is not known to be durable."""
        if not self._staged and not self._found:
            return
        with self._healing():
            objects = self._media.absolute("objects")
            places = {id_: self._media.absolute(object_path(id_)) for id_ in (*self._staged, *self._found)}
            self._disk.sync_files([*self._staged.values(), *(places[id_] for id_ in self._found)])  # 2
            for id_ in self._bad:
                self._set_aside(id_)
            shards = {os.path.dirname(place) for place in places.values()}
            new = sorted(shards - {os.path.join(objects, name) for name in self._media.names("objects")})
            for shard in new:
                self._disk.make_directory(shard)
            self._staging.unsettled = True
            for id_, path in self._staged.items():
                self._disk.rename(path, places[id_])  # 3
            for shard in sorted(shards):
                self._disk.sync_directory(shard)  # 4
            if new or self._found:
                self._disk.sync_directory(objects)
            self._staging.unsettled = False
        if self._index is not None:
            now = int(time.time())
            # The bytes were hashed on their way in, into a file that only this process could write.
            rows = {
                id_: Row.of(self._media.stamp(object_path(id_)), inserted=now, verified=now) for id_ in self._staged
            }
            self._index.commit(objects={**rows, **self._found})  # 5
        self._staged.clear()
        self._found.clear()
        self._bad.clear()

    @contextmanager
    def _healing(self) -> Iterator[None]:
        """Alone in replacing damaged objects: else two that found the same one would set each other's right copy aside.

        What somebody else has healed meanwhile counts as found.
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
        """Moves what lies in an object's place to quarantine, if anything does."""
        name = object_path(id_)
        shard = os.path.dirname(name)
        # A link in place of the shard's directory would be followed out of the store: then that is what goes.
        with suppress(NotFound):
            set_aside(self._media, self._disk, name if self._media.file_type(shard) == "directory" else shard)


@contextmanager
def inserting(media: Media, disk: Disk, index: Index | None) -> Iterator[Batch]:
    """A batch; what was not committed when the block ends is gone."""
    with Staging(media, disk) as staging:
        yield Batch(media, disk, index, staging)


def confirm_object(media: Media, index: Index | None, id_: ObjectId, size: int) -> Row | None:
    """Raises NotFound or Corrupt unless the store has this object, whole.

    Reads it in full and returns its new row for the ledger, unless the ledger of the index says that the file is
    untouched since that was last done: then None. Never used aboard.
    """
    stamp = media.stamp(object_path(id_))
    row = index.object(id_) if index is not None else None
    if stamp.size == size and row is not None and row.fresh(stamp):
        return None
    stamp = media.digest(id_, size)
    now = int(time.time())
    return Row.of(stamp, inserted=row.inserted if row else now, verified=now)


def read_chunks(path: str) -> Iterator[bytes]:
    """The content of a regular file, a chunk at a time."""
    try:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", kind="unreadable", path=path) from error
