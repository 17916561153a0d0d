"""The audit of a store in a bucket: that of a folder, over a listing. Writes nothing.

Names, sizes, refs, signatures, closures and log are examined as in a folder; with a scope that reads, objects are read
from the bucket and hashed. A bucket has no index, no locks and no kinds of files, so there are no findings about these.
What cannot be looked at is a finding, as everywhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from store.audit.collector import REMOVE, RESTORE
from store.audit.fsck import Audit, Progress, fsck
from store.audit.scope import QUICK, Scope
from store.disk.layout import TOML, TOML_LIMIT
from store.disk.media import FOLDER_LIMIT, OBJECTS, SHARD_LIMIT, FileStamp, Media, object_path
from store.disk.medium import Reading
from store.errors import Corrupt, FlightbagError, NotFound, Unavailable
from store.findings import COPY_AGAIN, Finding
from store.format.ids import ObjectId
from store.remotes.bucket import BucketClient, is_marker
from store.remotes.bucket_store import no_store
from store.values import replace

# The most names of a listing that are no objects in their places, folders among them.
_OTHERS = 1_000_000
_BY_HAND = "remove it with the tools of the bucket's provider"


def fsck_bucket(
    bucket: BucketClient,
    scope: Scope = QUICK,
    *,
    progress: Progress | None = None,
) -> Audit:
    """Audit a store in a bucket, and return the result. The parameters are those of `fsck`.

    Raise NoStore where the prefix has no store of this format, Unavailable where it cannot be listed, and Corrupt for a
    name in it that no path could be.
    """

    def here(finding: Finding) -> Finding:
        restore = f"run `flightbag sync --checksum STORE {bucket.name}` from a store that has it whole"
        if finding.kind in ("stray", "misnamed", "too-many") or finding.remedy == REMOVE:
            return replace(finding, remedy=_BY_HAND)
        if finding.kind == "bad-log":
            return replace(finding, remedy="find out who changed the log; the refs hold without it")
        restored = finding.remedy in (RESTORE, COPY_AGAIN) or finding.kind == "bad-ref"
        return replace(finding, remedy=restore) if restored else finding

    with BucketMedia(bucket) as media:
        audit = fsck(media, scope, progress=progress)
    return replace(audit, findings=tuple(map(here, audit.findings)))


class BucketMedia(Media):
    """A bucket, read as the folder of a store is. Names and sizes are those of one listing, when it was made."""

    remote = True

    def __init__(self, bucket: BucketClient) -> None:
        self._directories = {}
        self._bucket = bucket
        self.path = bucket.name
        self._prefix = f"{self.path}/"
        self.reading = Reading()
        try:
            bucket.read(TOML, TOML_LIMIT)
        except NotFound as error:
            raise no_store(self.path) from error
        except Corrupt:
            pass  # check_format says so
        # The names in each folder with their sizes, None for a folder. These three are folders also while empty.
        self._folders: dict[str, dict[str, int | None]] = {"": {}}
        self._crowded: set[str] = set()
        self._others = 0
        for name in ("missions", OBJECTS, "trust"):
            self._folder(name)
        for name, size in bucket.names():
            if is_marker(name, size):
                self._folder(name)
            else:
                self._enter(name, size)

    def _folder(self, name: str) -> dict[str, int | None]:
        names = self._folders.get(name)
        if names is None:
            self._enter(name, None)
            names = self._folders[name] = {}
        return names

    def _enter(self, name: str, size: int | None) -> None:
        folder, _, last = name.rpartition("/")
        in_shard = folder.startswith(f"{OBJECTS}/")
        self._others += not in_shard
        if self._others > _OTHERS:
            raise Unavailable(
                f"{self.path} has more than {_OTHERS} names that are no objects",
                remedy="move what does not belong there out of the store",
                kind="too-many",
                path=self.path,
            )
        names = self._folder(folder)
        if len(names) > (SHARD_LIMIT if in_shard else FOLDER_LIMIT):
            self._crowded.add(folder)  # a reader refuses its listing, and asks for single names
        elif size is None or last not in names:
            names[last] = size

    def directory(self, name: str) -> int:
        raise Unavailable(f"{self.absolute(name)} is no folder of this machine", kind="unreadable")

    def again(self) -> Media:
        return BucketMedia(self._bucket)

    def _size(self, name: str) -> int | None:
        """Return the size of a name, None for a folder. Raise NotFound."""
        if not name:
            return None
        folder, _, last = name.rpartition("/")
        names = self._folders.get(folder, {})
        if last in names:
            return names[last]
        if folder in self._crowded:
            return self._bucket.look(name)[0]
        path = self.absolute(name)
        raise NotFound(f"{path} does not exist", kind="missing", path=path)

    def stamp(self, name: str) -> FileStamp:
        size = self._size(name)
        if size is None:
            path = self.absolute(name)
            raise Corrupt(f"{path}: expected a regular file, found a directory", kind="wrong-type", path=path)
        return FileStamp(size, 0, 0, 0)

    def file_type(self, name: str) -> str:
        return "directory" if self._size(name) is None else "file"

    def read(self, name: str, limit: int) -> bytes:
        return self._bucket.read(name, limit)[0]

    def digest(
        self,
        id_: ObjectId,
        size: int,
        *,
        name: str | None = None,
        into: bytearray | None = None,
        cached: bool = False,  # noqa: ARG002 - there is no page cache
        progress: Callable[[int], None] | None = None,
    ) -> FileStamp:
        self._bucket.digest(name or object_path(id_), id_, size, into, progress)
        return FileStamp(size, 0, 0, 0)

    def chunks(self, name: str, size: int, progress: Callable[[int], None] | None = None) -> Iterator[bytes]:
        return self._bucket.chunks(name, min(self.stamp(name).size, size + 1), progress)

    def first_names(self, name: str, most: int = FOLDER_LIMIT, *, folders: bool = False) -> list[str]:
        if self._size(name) is not None:
            path = self.absolute(name)
            raise Corrupt(f"{path}: expected a directory, found a regular file", kind="wrong-type", path=path)
        names = self._folders[name]
        return [one for one, size in names.items() if not folders or size is None][:most]

    def statuses(self, name: str, most: int) -> Iterator[tuple[str, os.stat_result | FlightbagError]]:
        for inner in self.names(name, most):
            size = self._folders[name][inner]
            mode = stat.S_IFDIR if size is None else stat.S_IFREG
            yield inner, os.stat_result((mode, 0, 0, 1, 0, 0, size or 0, 0, 0, 0))
