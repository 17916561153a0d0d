"""The index: an LMDB view of what the objects and manifests say, and the records of local builds.

    objects   id -> size, inserted, and the ledger: when it was last hashed in full, and the file's stamp then
    records   build key -> object ids that were once produced for it, and by whom; the first writer wins
    absorbed  ids of the manifests whose build keys are in `records`

Nothing published depends on it: delete `index/` and it is made again. A copied or torn LMDB file can crash the
process that opens it, so a file is opened only if it is known: the text file `owner` beside it names the store's real
path, device and inode of the data file, the boot, and how the last user left it. On another path or inode the index is
thrown away and rebuilt; after a reboot or a user that did not close it, the file is checked offline first. Users of one
index share the lock `lock/index`; who is alone with it does the checking.

lmdb is imported here and nowhere else.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import lmdb
import lmdb.verify

from store.disk.durable import Disk
from store.disk.locks import SharedLock
from store.disk.media import FileStamp, Media
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Unavailable
from store.format.cbor import decode, encode
from store.format.ids import DIGEST_SIZE, BuildKey, ObjectId

DIRECTORY = "index"
_OWNER, _DATA, _LOCK = "owner", "data.mdb", "lock.mdb"
_FORMAT = 1
_FIRST_MAP = 64 * 2**20
_RECORD_LIMIT = 64 * 2**10
# size, inserted, verified (unix seconds; 0 is never), and the stamp at that time: mtime, ctime (ns), inode
_ROW = struct.Struct("<QqqQQQ")
# A time in nanoseconds may be before 1970 or need more than 63 bits: only whether it changed matters.
_TIME_BITS = 2**64 - 1
# How often an index is looked at again that others left unusable while it was being opened, and the pause between.
_TRIES, _PAUSE = 20, 0.05

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """What the index knows of one object. `verified` is 0 where this index never saw it hashed in full."""

    size: int
    inserted: int
    verified: int
    mtime: int
    ctime: int
    inode: int

    @classmethod
    def of(cls, stamp: FileStamp, *, inserted: int, verified: int) -> Row:
        mtime, ctime = stamp.mtime & _TIME_BITS, stamp.ctime & _TIME_BITS
        return cls(stamp.size, inserted, verified, mtime, ctime, stamp.inode)

    def fresh(self, stamp: FileStamp) -> bool:
        """Whether the file is untouched since it was last hashed in full."""
        return self.verified > 0 and self == Row.of(stamp, inserted=self.inserted, verified=self.verified)

    def pack(self) -> bytes:
        return _ROW.pack(self.size, self.inserted, self.verified, self.mtime, self.ctime, self.inode)


@dataclass(frozen=True, slots=True)
class Record:
    """What was once produced for a build key, and its provenance (who, host, versions, when)."""

    ids: tuple[ObjectId, ...]
    provenance: Mapping[str, Any]

    def pack(self) -> bytes:
        return encode({"ids": [bytes(id_) for id_ in self.ids], "by": dict(self.provenance)})

    @classmethod
    def of_bytes(cls, data: bytes) -> Self | None:
        """The record; None for damaged bytes: then it is as if nothing had been built for the key."""
        try:
            value = decode(data, limit=_RECORD_LIMIT, what="the build record")
            return cls(tuple(ObjectId(id_) for id_ in value["ids"]), dict(value["by"]))
        except (Corrupt, Invalid, TypeError, ValueError, KeyError):
            return None


class Index:
    """An open index. Use `open_index`; close it, or it will be checked before it is used again."""

    def __init__(
        self, env: lmdb.Environment, media: Media, lock: SharedLock, *, rebuilt: str = "", writable: bool = True
    ) -> None:
        self._env = env
        self._media = media
        self._lock = lock
        self._writable = writable
        self.rebuilt = rebuilt
        self._objects, self._records, self._absorbed = (
            self._settled(partial(env.open_db, name, create=writable)) for name in (b"objects", b"records", b"absorbed")
        )

    def close(self) -> None:
        self._env.close()
        # Who is alone now leaves the index as it will be found; others are still at it otherwise.
        if self._writable and self._lock.try_exclusive():
            with suppress(FlightbagError):
                _write_owner(self._media, clean=True)
        self._lock.close()
        self._media.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _settled(self, work: Callable[[], T]) -> T:
        """The result of `work`, done again after the map was grown, here or by another process."""
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

        return self._settled(get)

    def object(self, id_: ObjectId) -> Row | None:
        data = self._get(self._objects, id_)
        return Row(*_ROW.unpack(data)) if data is not None and len(data) == _ROW.size else None

    def record(self, key: BuildKey) -> Record | None:
        data = self._get(self._records, key)
        return None if data is None else Record.of_bytes(data)

    def absorbed(self, manifest: ObjectId) -> bool:
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
        """Writes all of it or nothing, durable when this returns. A record that is there stays unless `replace`.

        `gone` are objects that are no longer in their places.
        """
        rows = [(bytes(id_), row.pack()) for id_, row in (objects or {}).items()]
        made = [(bytes(key), record.pack()) for key, record in (records or {}).items()]
        learnt = [bytes(manifest) for manifest in absorbed]
        lost = [bytes(id_) for id_ in gone]

        def write() -> None:
            with self._env.begin(write=True) as txn:
                for id_ in lost:
                    txn.delete(id_, db=self._objects)
                for id_, row in rows:
                    txn.put(id_, row, db=self._objects)
                for key, record in made:
                    there = txn.get(key, db=self._records)
                    if replace or there is None or Record.of_bytes(there) is None:
                        txn.put(key, record, db=self._records)
                for manifest in learnt:
                    txn.put(manifest, b"", db=self._absorbed)

        self._settled(write)

    def rows(self, first: int) -> dict[ObjectId, Row]:
        """The rows of all objects whose ids begin with the byte `first`: those of one folder of `objects/`."""
        found: dict[ObjectId, Row] = {}
        with self._settled(lambda: self._env.begin(db=self._objects)) as txn:
            cursor = txn.cursor()
            if cursor.set_range(bytes([first])):
                for key, data in cursor.iternext():
                    if key[0] != first:
                        break
                    if len(key) == DIGEST_SIZE and len(data) == _ROW.size:
                        found[ObjectId(key)] = Row(*_ROW.unpack(data))
        return found


def open_index(media: Media, disk: Disk, rebuild: Callable[[Index], None]) -> Index:
    """The index of a store, checked, and rebuilt by `rebuild` where it cannot be used as it is.

    Waits while another process rebuilds it. Raises Unavailable where it cannot be made.
    """
    media = Media(media.path)  # one of its own: the folder may be another one than when the store was opened
    lock = SharedLock(media.path, disk, "index", "the index")
    try:
        reason = ""
        for _ in range(_TRIES):
            if lock.try_exclusive():
                reason = _why_not(media)
                if reason:
                    _make(media, disk, lock, rebuild)
                _write_owner(media, clean=False)
            lock.hold_shared(wait=True)
            # Who was alone with it in between may have been killed over it, or have only peeked at it.
            if not _why_another(media) and _in_use(media):
                return Index(_environment(media), media, lock, rebuilt=reason)
            lock.release()  # so that one of those who wait can be alone with it
            time.sleep(_PAUSE)
        raise Unavailable(
            f"the index of {media.path} is gone or was replaced while other processes use it",
            remedy="wait for them to end and run this again",
            kind="locked",
        )
    except BaseException:
        lock.close()
        raise


def open_index_for_reading(media: Media) -> Index | None:
    """The index for reading, without writing a byte; None where there is none that can be believed as it is.

    Alone with the index, nothing else can write to it, so it needs no reader table, which would be a write. In use
    by another process it is not looked at.
    """
    media = Media(media.path)
    try:
        lock = SharedLock.existing(media.path, "index", "the index")
        if lock is None:
            return None
        try:
            if not lock.try_exclusive() or _why_not(media):
                lock.close()
                return None
            return Index(_environment(media, readonly=True), media, lock, writable=False)
        except BaseException:
            lock.close()
            raise
    except FlightbagError:
        return None


def _environment(media: Media, *, readonly: bool = False) -> lmdb.Environment:
    try:
        return lmdb.open(
            media.absolute(DIRECTORY),
            max_dbs=4,
            map_size=_FIRST_MAP,
            max_readers=512,
            readonly=readonly,
            lock=not readonly,
        )
    except lmdb.Error as error:
        raise _unusable(media, error) from error


def _unusable(media: Media, error: lmdb.Error) -> Unavailable:
    return Unavailable(
        f"the index of {media.path} cannot be used: {error}",
        remedy="if the medium has room and nobody else uses it, remove its folder index/; it is made again",
        kind="unusable-index",
        path=media.absolute(DIRECTORY),
    )


def _make(media: Media, disk: Disk, lock: SharedLock, rebuild: Callable[[Index], None]) -> None:
    """A new index in place of whatever is there. The caller is alone with it."""
    # Before anything is removed: it refuses a link, through which the removals would leave the store.
    disk.make_directory(media.absolute(DIRECTORY))
    _remove(media, disk)
    env = _environment(media)
    try:
        rebuild(Index(env, media, lock))
    except BaseException:
        # A half-filled index must not pass for a whole one.
        env.close()
        _remove(media, disk)
        raise
    env.close()


def _remove(media: Media, disk: Disk) -> None:
    for name in (_OWNER, _DATA, _LOCK):
        disk.remove(media.absolute(f"{DIRECTORY}/{name}"))


def _why_not(media: Media) -> str:
    """Why the index cannot be used as it is; empty if it can. The caller is alone with it."""
    another = _why_another(media)
    if another:
        return another
    try:
        owner = _read_owner(media)
        if owner["left"] == _left(media) and owner["boot"] == _boot() != "":
            return ""
        problems: list[str] = lmdb.verify.verify(media.absolute(f"{DIRECTORY}/{_DATA}"), subdir=False)  # type: ignore[no-untyped-call]
    except (lmdb.verify.VerifyError, OSError, FlightbagError, KeyError) as error:
        return f"it is damaged: {str(error)[:200]}"
    return f"it is damaged: {problems[0][:200]}" if problems else ""


def _why_another(media: Media) -> str:
    """Why the index is none that was made here, or none at all; empty where it is."""
    try:
        owner = _read_owner(media)
        if owner["format"] != _FORMAT:
            return "it is of another format"
        if _LOCK in media.names(DIRECTORY):
            media.stamp(f"{DIRECTORY}/{_LOCK}")  # LMDB would follow a link
        if owner["store"] != os.path.realpath(media.path) or owner["file"] != _file(media):
            return "it was copied from another place"
    except NotFound:
        return "there was none"
    except (FlightbagError, KeyError) as error:
        return f"it is damaged: {str(error)[:200]}"
    return ""


def _in_use(media: Media) -> bool:
    """Whether somebody who was alone with the index checked it in this boot, and uses it."""
    try:
        owner = _read_owner(media)
    except FlightbagError:
        return False
    return owner.get("left", []) is None and owner.get("boot") == _boot()


def _read_owner(media: Media) -> dict[str, Any]:
    media.stamp(f"{DIRECTORY}/{_DATA}")  # raises NotFound or Corrupt before anything else is believed
    try:
        value = json.loads(media.read(f"{DIRECTORY}/{_OWNER}", 4096))
    except (ValueError, RecursionError) as error:
        raise Corrupt("its owner file is malformed") from error
    if type(value) is not dict:
        raise Corrupt("its owner file is malformed")
    return value


def _file(media: Media) -> list[int]:
    """Which file the data file is: its device and inode."""
    return [os.fstat(media.directory(DIRECTORY)).st_dev, media.stamp(f"{DIRECTORY}/{_DATA}").inode]


def _left(media: Media) -> list[int]:
    """What tells that nobody wrote to the data file since. The ctime cannot be copied or set."""
    stamp = media.stamp(f"{DIRECTORY}/{_DATA}")
    return [stamp.size, stamp.mtime, stamp.ctime]


def _write_owner(media: Media, *, clean: bool) -> None:
    value = {
        "format": _FORMAT,
        "store": os.path.realpath(media.path),
        "file": _file(media),
        "boot": _boot(),
        "left": _left(media) if clean else None,
    }
    path = media.absolute(f"{DIRECTORY}/{_OWNER}")
    try:
        # Not durable on purpose: after a power cut this file is doubted whatever it says, for the boot is another one.
        with open(path, "w", encoding="utf-8") as file:
            json.dump(value, file)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}", kind="unwritable", path=path) from error


def _boot() -> str:
    """An id of this boot; empty where the system has none, and then every index is doubted."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
