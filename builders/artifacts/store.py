"""The store as a build uses it: what build keys were built to, their locks, and the one place that inserts artifacts.

Work units make bytes; `ArtifactStore` inserts them and records them under their keys, and so what a shared cache offers
once its kind has looked at it. `lookup_of` answers the same question without writing a byte.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from builders.artifacts.supply import Supply
from builders.artifacts.task import Lookup, StoredObject, StoredObjects
from store.disk.index import Record, open_index_for_reading
from store.disk.layout import RESULTS
from store.disk.locks import exclusive
from store.disk.media import object_path
from store.disk.objects import Batch
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Refused
from store.format.ids import BuildKey, ObjectId
from store.ground.orders import keys_in
from store.ground.repository import Repository
from store.ground.upkeep import records_of, result_record
from store.ground.writer import Writer


@dataclass(frozen=True, slots=True)
class Insertion:
    """An object of the store, and the seconds that making it took; None where the store had it."""

    id: ObjectId
    size: int
    seconds: float | None


class ArtifactStore:
    """A store that artifacts are built into, by whoever holds its lock. `now` is unix seconds, for the records;
    `supply` is what a shared cache offers, None without one. `asked` are the keys that were looked up, with whether the
    store had them."""

    def __init__(self, writer: Writer, now: int, supply: Supply | None = None) -> None:
        self.writer = writer
        self.now = now
        self.supply = supply
        self.asked: dict[BuildKey, bool] = {}

    def lookup(self, key: BuildKey) -> StoredObjects | None:
        """Return the objects that a key was built to, if every byte of them is still there; else those that a shared
        cache offers, which counts until its kind has refused it."""
        objects = self._recorded(key)
        self.asked[key] = objects is not None
        if objects is None and self.supply is not None and (offer := self.supply.offers.get(key)) is not None:
            return offer.objects
        return objects

    def take_supply(self, limits: Mapping[BuildKey, int]) -> bool:
        """Ask the shared cache for what was looked up and is not in the store. Return whether it offers something.
        `limits` has the most bytes that each of these keys can be built to: no more is fetched."""
        assert self.supply is not None
        asked = {key: 0 if present else limits[key] for key, present in self.asked.items()}
        self.supply.offers.update(self.supply.ask(asked))
        return bool(self.supply.offers)

    def judge_offer(self, key: BuildKey, check: Callable[[StoredObjects], object]) -> None:
        """Take what a shared cache offers for a key, if it offers something, or refuse it where `check` raises."""
        if self.fits(key, check):
            self.take([key])

    def fits(self, key: BuildKey, check: Callable[[StoredObjects], object]) -> bool:
        """Whether a shared cache offers something for a key, and `check` does not raise; if it does, that is
        refused."""
        offer = None if self.supply is None else self.supply.offers.get(key)
        if offer is None or self.supply is None:
            return False
        try:
            check(offer.objects)
        except (Corrupt, NotFound, Refused, Invalid) as error:
            self.supply.refuse(key, error)
            return False
        return True

    def take(self, keys: Iterable[BuildKey]) -> None:
        """Record what a shared cache offers for these keys: from now on the store has it."""
        assert self.supply is not None
        offers = {key: self.supply.offers.pop(key) for key in keys}
        self.writer.record(
            {
                key: Record(
                    tuple(id_ for id_, _ in offer.objects), {"from": "cache", "by": list(offer.by), "at": self.now}
                )
                for key, offer in offers.items()
            },
            replace=True,
        )

    @cached_property
    def _counts(self) -> Callable[[BuildKey, Record], bool]:
        return counting(self.writer.repository)

    def _recorded(self, key: BuildKey) -> StoredObjects | None:
        record = self.writer.index.record(key)
        if record is None or not self._counts(key, record):
            return None
        objects = []
        for id_ in record.ids:
            try:
                size = self.writer.repository.media.stamp(object_path(id_)).size
                self.writer.check_object(id_, size)
            except (NotFound, Corrupt):
                return None
            objects.append((id_, size))
        return tuple(objects) or None

    def read(self, id_: ObjectId, size: int) -> bytes:
        """Return the bytes of an object. Raise NotFound, Corrupt or Unavailable where it is absent or not whole."""
        return bytes(self.writer.repository.evidence.bytes_of(id_, size))

    @contextmanager
    def key_lock(self, key: BuildKey) -> Iterator[None]:
        """One build per key across processes; keys share 256 locks, and a process holds one of them at a time."""
        repository = self.writer.repository
        name = f"build-{key.hex()[:2]}"
        with exclusive(repository.media.path, repository.disk, name, "a build of the same artifact", timeout=-1):
            yield

    @contextmanager
    def inserting(self) -> Iterator[Batch]:
        """A batch of objects of the store; see `store.disk.objects`."""
        with self.writer.inserting() as batch:
            yield batch

    def keyed(
        self,
        key: BuildKey,
        make: Callable[[], tuple[bytes, ObjectId]],
        tools: str,
        check: Callable[[bytes], object],
    ) -> Insertion:
        """Return the one object of a key: from the store, or what `make` returns now, behind the key's lock.

        `make` returns the bytes and their id. Raise Corrupt for bytes of another id. `check` is given what a shared
        cache offers, and raises where that is not what the key asks for.
        """
        with self.key_lock(key):
            self.judge_offer(key, lambda objects: check(self.read(*only(objects))))
            if (objects := self.lookup(key)) is not None:
                return Insertion(*objects[0], None)
            start = time.monotonic()
            data, id_ = make()
            with self.inserting() as batch:
                added = batch.add_bytes(data, expect=id_)
                batch.commit()
            seconds = time.monotonic() - start
            self.remember({key: ((added.id,), seconds)}, tools)
            return Insertion(added.id, added.size, seconds)

    def insert_bytes(self, data: bytes) -> Insertion:
        """Insert bytes that have no build key."""
        with self.inserting() as batch:
            start = time.monotonic()
            added = batch.add_bytes(data)
            batch.commit()
        return Insertion(added.id, added.size, None if added.reused else time.monotonic() - start)

    def insert_chunks(self, chunks: Callable[[], Iterable[bytes]], expected: StoredObject) -> Insertion:
        """Insert what `chunks` yields, unless the store has it. Raise Corrupt where it is not the expected object."""
        id_, size = expected
        with self.inserting() as batch:
            start = time.monotonic()
            if batch.holds(id_, size):
                batch.commit()  # whoever put it there may not have come to the barriers yet
                return Insertion(id_, size, None)
            added = batch.add(chunks(), expect=id_)
            batch.commit()
        return Insertion(added.id, added.size, time.monotonic() - start)

    def remember(self, built: Mapping[BuildKey, tuple[tuple[ObjectId, ...], float]], tools: str) -> None:
        """Record what keys were built to, and in how many seconds, behind their locks."""
        about = {"from": "build", "user": _user(), "host": socket.gethostname(), "tools": tools, "at": self.now}
        # `lookup` has looked at a record that exists, and not found its objects whole.
        self.writer.record(
            {
                key: Record(ids, {**about, "milliseconds": round(seconds * 1000)})
                for key, (ids, seconds) in built.items()
            },
            replace=True,
        )


def only(objects: StoredObjects) -> StoredObject:
    """Return the one object of a key of one object. Raise Corrupt for more."""
    if len(objects) != 1:
        raise Corrupt(f"the record has {len(objects)} objects, the key one", kind="bad-record")
    return objects[0]


def counting(repository: Repository) -> Callable[[BuildKey, Record], bool]:
    """Return what says whether a record still counts: that of a result as long as the result does, and that of a shared
    cache as long as the keys that signed it are in the role builder."""
    role: list[tuple[frozenset[str], int]] = []

    def counts(key: BuildKey, record: Record) -> bool:
        origin = record.provenance.get("from")
        if origin == "result":
            return result_record(repository, key) is not None
        if origin != "cache":
            return True
        if not role:
            builder = repository.trust_root().root.role("builder")
            role.append((frozenset(one.kid.hex() for one in builder.keys), max(builder.threshold, 1)))
        by = record.provenance.get("by")
        return isinstance(by, list) and len(role[0][0].intersection(map(str, by))) >= role[0][1]

    return counts


@contextmanager
def lookup_of(repository: Repository) -> Iterator[Lookup]:
    """Give a `Lookup` of the store in its present state. It writes no byte to the store."""
    index, counts = open_index_for_reading(repository.media), counting(repository)
    published = {}
    for mission in repository.missions():
        try:
            published.update(records_of(repository.current(mission).table))
        except FlightbagError:
            continue  # a build would not believe it either
    for key in keys_in(repository.media, RESULTS):
        if key not in published and (found := result_record(repository, key)) is not None:
            published[key] = found.ids

    def lookup(key: BuildKey) -> StoredObjects | None:
        record = index.record(key) if index is not None else None
        if record is not None and not counts(key, record):
            return None
        ids = record.ids if record is not None else published.get(key, ())
        try:
            return tuple((id_, repository.media.stamp(object_path(id_)).size) for id_ in ids) or None
        except (NotFound, Corrupt):
            return None

    try:
        yield lookup
    finally:
        if index is not None:
            index.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
