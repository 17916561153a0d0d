"""A shared cache in a folder: the verbs of a `bucket` that a cache needs, over files.

Contract, as of a bucket: a name has its whole bytes or none, whoever writes at the same time. Nothing is synced to the
medium: what a power cut tears has another hash, or no signature, and is built again (FORMAT.md 5.6).

Whoever can write to the folder decides what a read brings: no link is followed, nothing but a regular file is opened,
and nothing is read beyond its bound.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from blake3 import blake3

from store.disk.durable import Disk
from store.disk.layout import TMP
from store.disk.media import SHARD_LIMIT, Media
from store.errors import Corrupt, FlightbagError, NotFound, Unavailable
from store.format.ids import ObjectId
from store.remotes.bucket import Stored, Version

# Of a file in `tmp/` that nobody has finished, in seconds.
_OLD = 86400


class CacheFolder:
    """The folder of a shared cache. It may not exist yet. `name` is its path, for messages."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._disk = Disk()
        self._opened: Media | None = None

    @property
    def _media(self) -> Media:
        """The open folder. Raises NotFound where it does not exist."""
        if self._opened is None:
            self._opened = Media(self.name)
        return self._opened

    def names(self, folder: str) -> Iterator[Stored]:
        """Yield the names of the files in a folder, none where it does not exist. Their sizes are not looked at."""
        with suppress(NotFound):
            yield from (Stored(f"{folder}/{name}", 0) for name in self._media.names(folder, SHARD_LIMIT))

    def read(self, name: str, limit: int) -> tuple[bytes, Version]:
        """Return the bytes of a name and their version. Raise NotFound, and Corrupt (kind too-large) for more than
        `limit`."""
        data = self._media.read(name, limit)
        return data, Version(blake3(data).hexdigest(), None)

    def look(self, name: str) -> tuple[int, Version]:
        """Return the size of the bytes of a name, and their version. Raise NotFound."""
        return self._media.stamp(name).size, Version(None, None)

    def chunks(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the bytes of a name, which has `size` of them."""
        return self._media.chunks(name, size)

    def create(self, name: str, data: bytes) -> bool:
        """Give a new name its bytes. Return False, and change nothing, where the name has bytes already."""
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
            with self._staged([data]) as staged:
                self._disk.rename(staged, self._ready(name))
        return same

    def put_object(self, name: str, id_: ObjectId, size: int, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Give a name the bytes that `chunks` makes up; other bytes that it has go. Raise Corrupt (kind bit-flip) for
        a source of other bytes, of which nothing becomes visible."""
        hasher = blake3()

        def hashed() -> Iterator[bytes]:
            for chunk in chunks():
                hasher.update(chunk)
                yield chunk

        with self._staged(hashed()) as staged:
            if hasher.digest() != id_:
                text = f"the source of object {id_} has bytes that hash to {hasher.hexdigest()}, and not its {size}"
                raise Corrupt(text, kind="bit-flip", object=id_, expected=str(id_), actual=hasher.hexdigest())
            self._disk.rename(staged, self._ready(name))

    @contextmanager
    def _staged(self, chunks: Iterable[bytes]) -> Iterator[str]:
        """Yield the path of a new file with these bytes, which goes with the block unless it was renamed."""
        staged = f"{self._ready(TMP)}/{secrets.token_hex(16)}"
        try:
            fd = self._disk.create(staged)
            try:
                for chunk in chunks:
                    self._disk.write(fd, chunk, staged)
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
            for name in self._media.names_if_there(TMP):
                with suppress(OSError):
                    path = self._media.absolute(f"{TMP}/{name}")
                    if os.lstat(path).st_mtime < time.time() - _OLD:
                        os.unlink(path)
