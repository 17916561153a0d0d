"""A shared cache in a folder: the verbs of a `bucket` that a cache needs, over files.

Contract, as of a bucket: a name has its whole bytes or none, whoever writes at the same time. Nothing is durable: what
a power cut tears has another hash, or no signature, and is built again (FORMAT.md 5.6).

Whoever can write to the folder decides what a read brings: no link is followed, nothing but a regular file is opened,
and nothing is read beyond its bound.

A folder on a mount that has died answers nothing, for ever. Each question is asked by a thread of its own, which is
left behind after a minute without a sign of life; from then on every question fails at once.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import TypeVar

from blake3 import blake3

from store.disk.durable import Disk
from store.disk.layout import TMP
from store.disk.media import SHARD_LIMIT, Media
from store.errors import Corrupt, FlightbagError, NotFound, Unavailable
from store.format.ids import ObjectId
from store.remotes.bucket import Stored, Version

# Of a file in `tmp/` that nobody has finished, in seconds.
_OLD = 86400
# As long as one request to a bucket may take.
_SILENCE_S = 60.0
# A network mount takes bytes in, and sends them while the file is closed: at most so many, in one time without a sign.
_UNSENT = 16 * 2**20

T = TypeVar("T")


class CacheFolder:
    """The folder of a shared cache. It may not exist yet. `name` is its path, for messages.

    Every method raises Unavailable within a minute where the folder does not answer.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        self._disk = Disk()
        self._opened: Media | None = None
        self._silent: Unavailable | None = None

    def _answer(self, question: Callable[[Callable[[], None]], T]) -> T:
        """Return the answer to a question, which calls its argument as a sign of life."""
        if self._silent is not None:
            raise self._silent
        answer, heard = Future[T](), [time.monotonic()]

        def alive() -> None:
            heard[0] = time.monotonic()

        def ask() -> None:
            try:
                answer.set_result(question(alive))
            except BaseException as error:  # noqa: BLE001 # it is raised where the answer is waited for
                answer.set_exception(error)

        threading.Thread(target=ask, daemon=True).start()
        while (left := heard[0] + _SILENCE_S - time.monotonic()) > 0:
            if wait([answer], left).done:
                return answer.result()
        self._silent = Unavailable(
            f"{self.name} has not answered for {_SILENCE_S:g} s", remedy="look at the mount", kind="unreadable"
        )
        raise self._silent

    @property
    def _media(self) -> Media:
        """The open folder. Raises NotFound where it does not exist."""
        if self._opened is None:
            self._opened = Media(self.name)
        return self._opened

    def names(self, folder: str) -> Iterator[Stored]:
        """Yield the names of the files in a folder, none where it does not exist. Their sizes are not looked at."""
        with suppress(NotFound):
            names = self._answer(lambda _: list(self._media.names(folder, SHARD_LIMIT)))
            yield from (Stored(f"{folder}/{name}", 0) for name in names)

    def read(self, name: str, limit: int) -> tuple[bytes, Version]:
        """Return the bytes of a name and their version. Raise NotFound, and Corrupt (kind too-large) for more than
        `limit`."""
        data = self._answer(lambda _: self._media.read(name, limit))
        return data, Version(blake3(data).hexdigest(), None)

    def look(self, name: str) -> tuple[int, Version]:
        """Return the size of the bytes of a name, and their version. Raise NotFound."""
        return self._answer(lambda _: self._media.stamp(name).size), Version(None, None)

    def chunks(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the bytes of a name, which has `size` of them."""
        chunks = self._answer(lambda _: self._media.chunks(name, size))
        while (chunk := self._answer(lambda _: next(chunks, None))) is not None:
            yield chunk

    def create(self, name: str, data: bytes) -> bool:
        """Give a new name its bytes. Return False, and change nothing, where the name has bytes already."""
        return self._answer(lambda _: self._create(name, data))

    def _create(self, name: str, data: bytes) -> bool:
        with self._staged([data]) as staged:
            try:
                self._disk.link(staged, self._ready(name))
            except FlightbagError:
                if not os.path.lexists(self._media.absolute(name)):
                    # A file system without links: of two writers at once the later one's bytes stay.
                    self._disk.rename(staged, self._media.absolute(name))
                    return True
                return False
        return True

    def replace(self, name: str, data: bytes, version: Version) -> bool:
        """Give a name other bytes. Return False, and change nothing, where it no longer has those of this version; of
        two writers at the very same time the later one's bytes stay."""
        try:
            same = version.e_tag is None or self.read(name, 2**20)[1] == version
        except (NotFound, Corrupt):
            same = False
        if same:
            self._answer(lambda _: self._place(name, [data]))
        return same

    def _place(self, name: str, chunks: Iterable[bytes]) -> None:
        with self._staged(chunks) as staged:
            self._disk.rename(staged, self._ready(name))

    def put_object(self, name: str, id_: ObjectId, size: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Give a name the bytes that `chunks` makes up; other bytes that it has go. Raise Corrupt (kind bit-flip) for
        a source of other bytes, of which nothing becomes visible."""

        def hashed(alive: Callable[[], None]) -> Iterator[bytes]:
            hasher = blake3()
            for chunk in chunks():
                hasher.update(chunk)
                yield chunk
                alive()
            if hasher.digest() != id_:
                text = f"the source of object {id_} has bytes that hash to {hasher.hexdigest()}, and not its {size}"
                raise Corrupt(text, kind="bit-flip", object=id_, expected=str(id_), actual=hasher.hexdigest())

        self._answer(lambda alive: self._place(name, hashed(alive)))

    @contextmanager
    def _staged(self, chunks: Iterable[bytes]) -> Iterator[str]:
        """Yield the path of a new file with these bytes, which goes with the block unless it was renamed."""
        staged = f"{self._ready(TMP)}/{secrets.token_hex(16)}"
        try:
            fd = self._disk.create(staged)
            unsent = 0
            try:
                for chunk in chunks:
                    self._disk.write(fd, chunk, staged)
                    unsent += len(chunk)
                    if unsent >= _UNSENT:
                        self._disk.sync_file(fd, staged)
                        unsent = 0
            finally:
                os.close(fd)
            yield staged
        finally:
            self._disk.remove(staged)

    def _ready(self, name: str) -> str:
        """Return the absolute path of a name, in a folder that exists. Raise Corrupt where a link lies on the way."""
        parts = name.split("/")[: None if name == TMP else -1]
        try:
            if self._opened is None:
                os.makedirs(self.name, exist_ok=True)
            for depth in range(1, len(parts) + 1):
                with suppress(FileExistsError):
                    os.mkdir(self._media.absolute("/".join(parts[:depth])))  # a team shares it as the umask allows
        except OSError as error:
            text = f"{self.name} cannot be written: {error.strerror}"
            remedy = "let this user write there, or leave --builder-key out"
            raise Unavailable(text, remedy=remedy, kind="unwritable", path=self.name) from error
        self._media.directory("/".join(parts))
        return self._media.absolute(name)

    def tidy(self) -> None:
        """Remove what somebody began to write long ago and never finished."""
        with suppress(FlightbagError):
            self._answer(lambda _: self._tidy())

    def _tidy(self) -> None:
        for name in self._media.names_if_there(TMP):
            with suppress(OSError):
                path = self._media.absolute(f"{TMP}/{name}")
                if os.lstat(path).st_mtime < time.time() - _OLD:
                    os.unlink(path)
