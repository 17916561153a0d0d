"""The index (FORMAT.md 9): an LMDB view of the objects and manifests of a store, and the records of local builds.

    objects   id -> size, time of insertion, and the hash record: when the file was last hashed in full, its stamp then
    records   build key -> ids of the objects once produced for it, and their provenance; the first writer wins
    absorbed  ids of the manifests whose build keys are in `records`

Nothing published depends on the index: delete `index/`, and the next user makes it again. It holds no kinds of entries,
and an unusable index is removed, not set aside (decision 0001).

A copied or torn LMDB file can crash the process that opens it, so a data file is opened only if it was made here: the
text file `owner` beside it names the real path of the store, device and inode of the data file, the boot, and the size
and times that the last user left. On another path or inode the index is removed and built again; after a reboot, or
after a user that did not close it, the file is checked offline first. Users of one index share the lock `index`; the
process that has the lock exclusively does the checks.

Only this module imports lmdb, and nothing that flies imports this module. The index is not the ledger of the audit
(`audit.ledger`), which lies outside the store (decision 0007).
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import lmdb
import lmdb.verify

from store.disk.durable import Disk, not_a_file
from store.disk.layout import INDEX
from store.disk.locks import SharedLock
from store.disk.media import FileStamp, Media
from store.disk.opening import OtherType, open_or_create
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Unavailable, no_space
from store.format.cbor import decode, encode
from store.format.ids import DIGEST_SIZE, BuildKey, ObjectId
from store.values import dataclass

if TYPE_CHECKING:
    from typing_extensions import Self

_OWNER, _DATA, _LOCK = "owner", "data.mdb", "lock.mdb"
_FORMAT = 1
_FIRST_MAP = 64 * 2**20
_RECORD_LIMIT = 64 * 2**10
# size (bytes), inserted, verified (unix seconds; 0 is never), and the stamp at `verified`: mtime, ctime (ns), inode
_ROW = struct.Struct("<QqqQQQ")
# A time in nanoseconds may be before 1970 or need more than 63 bits. Only whether it changed matters.
_TIME_BITS = 2**64 - 1
# How often `open_index` tries again when other processes made the index unusable meanwhile, and the pause in seconds.
_TRIES, _PAUSE = 20, 0.05

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """The row of one object: size in bytes, unix times of insertion and of the last full hash, stamp of the file.

    `verified` is 0 where no full hash is recorded. `verified` and the stamp are the hash record.
    """

    size: int
    inserted: int
    verified: int
    mtime: int
    ctime: int
    inode: int

    @classmethod
    def of(cls, stamp: FileStamp, *, inserted: int, verified: int) -> Row:
        """Return the row of a file with this stamp."""
        mtime, ctime = stamp.mtime & _TIME_BITS, stamp.ctime & _TIME_BITS
        return cls(stamp.size, inserted, verified, mtime, ctime, stamp.inode)

    def fresh(self, stamp: FileStamp) -> bool:
        """Whether a file with this stamp did not change since it was last hashed in full."""
        return self.verified > 0 and self == Row.of(stamp, inserted=self.inserted, verified=self.verified)

    def pack(self) -> bytes:
        """Return the bytes of the row in the index."""
        return _ROW.pack(self.size, self.inserted, self.verified, self.mtime, self.ctime, self.inode)


@dataclass(frozen=True, slots=True)
class Record:
    """Ids of the objects that were once produced for a build key, and their provenance (who, host, versions, when)."""

    ids: tuple[ObjectId, ...]
    provenance: Mapping[str, Any]

    def pack(self) -> bytes:
        """Return the bytes of the record in the index."""
        return encode({"ids": [bytes(id_) for id_ in self.ids], "by": dict(self.provenance)})

    @classmethod
    def of_bytes(cls, data: bytes) -> Self | None:
        """Return the record of the bytes; None for damaged bytes, as if nothing had been built for the key."""
        try:
            value = decode(data, limit=_RECORD_LIMIT, what="the build record")
            return cls(tuple(ObjectId(id_) for id_ in value["ids"]), dict(value["by"]))
        except (Corrupt, Invalid, TypeError, ValueError, KeyError):
            return None


class Index:
    """An open index, made by `open_index` or `open_index_for_reading`.

    `rebuilt` is the reason why the index was built again when it was opened, "" where it was not. An index that is not
    closed is checked before its next use. Methods raise Unavailable (kind unusable-index) where LMDB fails.
    """

    def __init__(
        self, env: lmdb.Environment, media: Media, lock: SharedLock, *, rebuilt: str = "", writable: bool = True
    ) -> None:
        self._env = env
        self._media = media
        self._lock = lock
        self._writable = writable
        self.rebuilt = rebuilt
        self._objects, self._records, self._absorbed = (
            self._retried(partial(env.open_db, name, create=writable)) for name in (b"objects", b"records", b"absorbed")
        )

    def close(self) -> None:
        """Close the index. The last user records how it leaves the data file."""
        self._env.close()
        # Only the last user can record that: otherwise other processes still write.
        if self._writable and self._lock.try_exclusive():
            with suppress(FlightbagError):
                _write_owner(self._media, clean=True)
        self._lock.close()
        self._media.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _retried(self, work: Callable[[], T]) -> T:
        """The result of `work`, which is repeated after the map was grown, here or by another process."""
        while True:
            try:
                return work()
            except lmdb.MapFullError:
                self._env.set_mapsize(self._env.info()["map_size"] * 2)
            except lmdb.MapResizedError:
                self._env.set_mapsize(0)
            except lmdb.Error as error:
                raise _unusable(self._media, error) from error

    def _get(self, db: Any, key: bytes) -> bytes | None:
        def get() -> bytes | None:
            with self._env.begin(db=db) as txn:
                value: bytes | None = txn.get(key)
                return value

        return self._retried(get)

    def object(self, id_: ObjectId) -> Row | None:
        """Return the row of an object; None where the index has none."""
        data = self._get(self._objects, id_)
        return Row(*_ROW.unpack(data)) if data is not None and len(data) == _ROW.size else None

    def record(self, key: BuildKey) -> Record | None:
        """Return the record of a build key; None where the index has none, or a damaged one."""
        data = self._get(self._records, key)
        return None if data is None else Record.of_bytes(data)

    def absorbed(self, manifest: ObjectId) -> bool:
        """Whether the build keys of a manifest are in the records."""
        return self._get(self._absorbed, manifest) is not None

    def commit(
        self,
        *,
        objects: Mapping[ObjectId, Row] | None = None,
        records: Mapping[BuildKey, Record] | None = None,
        absorbed: Iterable[ObjectId] = (),
        gone: Iterable[ObjectId] = (),
        replace: bool = False,
    ) -> None:
        """Write everything or nothing. It is durable when this returns.

        An existing record stays unless it is damaged or `replace` is true. The rows of `gone` are deleted.
        """
        rows = [(bytes(id_), row.pack()) for id_, row in (objects or {}).items()]
        entries = [(bytes(key), record.pack()) for key, record in (records or {}).items()]
        manifests = [bytes(manifest) for manifest in absorbed]
        deletions = [bytes(id_) for id_ in gone]

        def write() -> None:
            with self._env.begin(write=True) as txn:
                for id_ in deletions:
                    txn.delete(id_, db=self._objects)
                for id_, row in rows:
                    txn.put(id_, row, db=self._objects)
                for key, record in entries:
                    existing = txn.get(key, db=self._records)
                    if replace or existing is None or Record.of_bytes(existing) is None:
                        txn.put(key, record, db=self._records)
                for manifest in manifests:
                    txn.put(manifest, b"", db=self._absorbed)

        self._retried(write)

    def rows(self, first: int) -> dict[ObjectId, Row]:
        """Return the rows of all objects whose ids begin with the byte `first`: those of one folder of `objects/`."""
        return {id_: Row(*_ROW.unpack(data)) for id_, data in self._of_shard(first)}

    def ids(self, first: int) -> set[ObjectId]:
        """Return the ids of all objects that have a row and begin with the byte `first`."""
        return {id_ for id_, _ in self._of_shard(first)}

    def keys(self, first: int) -> list[BuildKey]:
        """Return the build keys that have a record and begin with the byte `first`."""
        return [BuildKey(key) for key, _ in self._beginning(self._records, first) if len(key) == DIGEST_SIZE]

    def _of_shard(self, first: int) -> list[tuple[ObjectId, bytes]]:
        every = self._beginning(self._objects, first)
        return [(ObjectId(key), data) for key, data in every if len(key) == DIGEST_SIZE and len(data) == _ROW.size]

    def _beginning(self, db: Any, first: int) -> list[tuple[bytes, bytes]]:
        rows = []
        with self._retried(lambda: self._env.begin(db=db)) as txn:
            cursor = txn.cursor()
            if cursor.set_range(bytes([first])):
                for key, data in cursor.iternext():
                    if key[0] != first:
                        break
                    rows.append((key, data))
        return rows


def open_index(media: Media, disk: Disk, rebuild: Callable[[Index], None]) -> Index:
    """Open the index of a store.

    An index that cannot be used unchanged is removed and made again, and `rebuild` fills it. Waits while another
    process rebuilds it. Raises Unavailable where the index cannot be made or used.
    """
    media = Media(media.path)  # opened again: the folder `index/` may have been replaced since the store was opened
    lock = SharedLock(media.path, disk, "index", "the index")
    try:
        reason = ""
        for _ in range(_TRIES):
            if lock.try_exclusive():
                reason = _why_unusable(media)
                if reason:
                    _build(media, disk, lock, rebuild)
                _write_owner(media, clean=False)
            lock.hold_shared(wait=True)
            # A process that had the lock in between may have been killed at its work, or may only have read the index.
            if not _why_foreign(media) and _in_use(media):
                return Index(_environment(media), media, lock, rebuilt=reason)
            lock.release()  # so that one of the waiting processes can take it exclusively
            time.sleep(_PAUSE)
        raise Unavailable(
            f"the index of {media.path} was removed or replaced while other processes use it",
            remedy="wait until those processes end and run this again",
            kind="locked",
        )
    except BaseException:
        lock.close()
        raise


def open_index_for_reading(media: Media) -> Index | None:
    """Open the index for reading, without a single write. Returns None unless the index can be used as it is.

    The lock is held exclusively, so that no other process writes: LMDB then needs no reader table, which would be a
    write. An index that another process uses is left alone: None.
    """
    media = Media(media.path)
    try:
        lock = SharedLock.existing(media.path, "index", "the index")
        if lock is None:
            return None
        try:
            if not lock.try_exclusive() or _why_unusable(media):
                lock.close()
                return None
            return Index(_environment(media, readonly=True), media, lock, writable=False)
        except BaseException:
            lock.close()
            raise
    except FlightbagError:
        return None


def _environment(media: Media, *, readonly: bool = False) -> lmdb.Environment:
    """The open LMDB environment. The caller has checked the data file."""
    try:
        return lmdb.open(
            media.absolute(INDEX),
            max_dbs=4,
            map_size=_FIRST_MAP,
            max_readers=512,
            readonly=readonly,
            lock=not readonly,
        )
    except lmdb.Error as error:
        raise _unusable(media, error) from error


def _unusable(media: Media, error: lmdb.Error) -> Unavailable:
    if isinstance(error, lmdb.DiskError):  # ENOSPC
        return no_space(media.absolute(INDEX))
    if not _maps_shared(media):
        return Unavailable(
            f"the file system of {media.path} lets no programs share the memory map of a file, which the index needs "
            "(9p, sshfs and other folders of another machine do not)",
            remedy=f"copy the store to a disk of this machine (cp -r {media.path} DIR), work there, and bring missions "
            f"back with `flightbag sync DIR {media.path}`, which needs no index",
            kind="unusable-index",
            path=media.absolute(INDEX),
        )
    return Unavailable(
        f"the index of {media.path} cannot be used: {error}",
        remedy="if the medium has room and no other process uses the index, remove the folder index/: it is made again",
        kind="unusable-index",
        path=media.absolute(INDEX),
    )


def _maps_shared(media: Media) -> bool:
    """Whether the file system of a store maps files into memory that several processes write, as LMDB maps its lock."""
    import tempfile  # not above: an index that can be used needs none

    try:
        with tempfile.TemporaryFile(dir=media.absolute(INDEX)) as file:
            file.truncate(mmap.PAGESIZE)
            mmap.mmap(file.fileno(), mmap.PAGESIZE).close()
    except OSError as error:
        return error.errno not in (errno.EINVAL, errno.ENODEV, errno.ENOSYS, errno.EOPNOTSUPP)
    return True


def _build(media: Media, disk: Disk, lock: SharedLock, rebuild: Callable[[Index], None]) -> None:
    """Replace whatever index exists by a new one. The caller has the lock exclusively."""
    # First of all: this refuses a link, through which the removals would leave the store.
    disk.make_directory(media.absolute(INDEX))
    _remove(media, disk)
    env = _environment(media)
    try:
        rebuild(Index(env, media, lock))
    except BaseException:
        # A half-filled index must not be taken for a whole one.
        env.close()
        _remove(media, disk)
        raise
    env.close()


def _remove(media: Media, disk: Disk) -> None:
    for name in (_OWNER, _DATA, _LOCK):
        disk.remove(media.absolute(f"{INDEX}/{name}"))


def _why_unusable(media: Media) -> str:
    """Why the index cannot be used as it is; "" if it can. The caller has the lock exclusively."""
    foreign = _why_foreign(media)
    if foreign:
        return foreign
    try:
        owner = _read_owner(media)
        if owner["left"] == _left(media) and owner["boot"] == _boot() != "":
            return ""
        problems: list[str] = lmdb.verify.verify(media.absolute(f"{INDEX}/{_DATA}"), subdir=False)  # type: ignore[no-untyped-call]
    except (lmdb.verify.VerifyError, OSError, FlightbagError, KeyError) as error:
        return f"it is damaged: {str(error)[:200]}"
    return f"it is damaged: {problems[0][:200]}" if problems else ""


def _why_foreign(media: Media) -> str:
    """Why the index was not made for this store in this place, or does not exist; "" where it was made here."""
    try:
        owner = _read_owner(media)
        if owner["format"] != _FORMAT:
            return "it is of another format"
        with suppress(NotFound):
            media.stamp(f"{INDEX}/{_LOCK}")  # raises for a link, which LMDB would follow
        if owner["store"] != os.path.realpath(media.path) or owner["file"] != _file(media):
            return "it was copied from another place"
    except NotFound:
        return "there was no index"
    except (FlightbagError, KeyError) as error:
        return f"it is damaged: {str(error)[:200]}"
    return ""


def _in_use(media: Media) -> bool:
    """Whether a process that had the lock exclusively has checked the index in this boot and uses it."""
    try:
        owner = _read_owner(media)
    except FlightbagError:
        return False
    return owner.get("left", []) is None and owner.get("boot") == _boot()


def _read_owner(media: Media) -> dict[str, Any]:
    """The content of `owner`. Raises NotFound where there is no index, Corrupt where it is malformed."""
    media.stamp(f"{INDEX}/{_DATA}")  # raises NotFound or Corrupt before anything of the owner file counts
    try:
        value = json.loads(media.read(f"{INDEX}/{_OWNER}", 4096))
    except (ValueError, RecursionError) as error:
        raise Corrupt("its owner file is malformed") from error
    if type(value) is not dict:
        raise Corrupt("its owner file is malformed")
    return value


def _file(media: Media) -> list[int]:
    """Device and inode of the data file: a copy has others."""
    return [os.fstat(media.directory(INDEX)).st_dev, media.stamp(f"{INDEX}/{_DATA}").inode]


def _left(media: Media) -> list[int]:
    """Size, mtime and ctime of the data file: another write changes them. The ctime can be neither copied nor set."""
    stamp = media.stamp(f"{INDEX}/{_DATA}")
    return [stamp.size, stamp.mtime, stamp.ctime]


def _write_owner(media: Media, *, clean: bool) -> None:
    """Write `owner`; `clean` when the last user closes the index, false while it is in use."""
    value = {
        "format": _FORMAT,
        "store": os.path.realpath(media.path),
        "file": _file(media),
        "boot": _boot(),
        "left": _left(media) if clean else None,
    }
    path = media.absolute(f"{INDEX}/{_OWNER}")
    try:
        # Not durable on purpose: a power cut changes the boot id, so the index is checked whatever this file says.
        fd = open_or_create(path, os.O_WRONLY)
        with open(fd, "w", encoding="utf-8") as file:
            os.ftruncate(fd, 0)
            json.dump(value, file)
    except OtherType as error:
        raise not_a_file(path, error) from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}", kind="unwritable", path=path) from error


def _boot() -> str:
    """The id of this boot; "" where the system has none, and then every index is checked before use."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
