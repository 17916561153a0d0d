"""A shared cache (FORMAT.md 5.6): what other stations have built, signed by keys that this store's trust root names.

    cache = SharedCache(shelf_of("s3://fleet/cache"), trust_root)
    found = cache.find(keys)                        records that hold
    whole = cache.fetch(found, limits, writer.inserting)
                                                    of these, those whose objects the store has now, hashed as they came
    cache.push(records, media)                      objects first, records last

A cache is a convenience. What does not hold is passed over, by kind; and a cache that does not answer is asked nothing
more, so that a build goes on as if there were none. `tally` says what happened. Nothing here parses an artifact: that
what a trusted key signed is what a build key asks for, whoever uses it has to look at (`builders.artifacts`).

A cache that cannot be what was meant (no address, a store) raises Invalid; all else that goes wrong is in the tally.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from store.disk.layout import TOML
from store.disk.media import Media, object_path
from store.disk.objects import Batch
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Unavailable, Untrusted
from store.format.built import AAD_LABEL, CONTENT_TYPE, FILE_LIMIT, PAYLOAD_LIMIT, Built
from store.format.cose import Envelope
from store.format.ids import BuildKey, ObjectId
from store.ground.sync import batches
from store.remotes.bucket import AT_ONCE, BucketClient, Stored, Version, at_once
from store.remotes.cache_folder import CacheFolder
from store.remotes.place import Bucket, Host, place_of
from store.trust.keys import Signer, sign
from store.trust.root import TrustRoot, check_signatures, check_signer

# Records are small: what they take is the way there and back.
_LOOKS = 32
# For more keys than this the names are listed first, folder by folder, and only those that exist are asked for; but a
# folder of many more names than are asked for is not listed: a page has a thousand, and takes as long as a record.
_LISTED_FROM, _PAGE, _NAMES_A_KEY = 512, 1000, 16
# After so many failures in a row nothing more is asked, and so many seconds are given to the first answer.
_FAILURES, _FIRST_S = 3, 10.0
# So many refusals are told in words, the others counted.
_TOLD = 5

T = TypeVar("T")


class Shelf(Protocol):
    """Where a cache lies: the verbs of `BucketClient` that a cache needs, with their contract."""

    name: str

    def names(self, folder: str) -> Iterator[Stored]: ...
    def read(self, name: str, limit: int) -> tuple[bytes, Version]: ...
    def look(self, name: str) -> tuple[int, Version]: ...
    def chunks(self, name: str, size: int) -> Iterator[bytes]: ...
    def create(self, name: str, data: bytes) -> bool: ...
    def replace(self, name: str, data: bytes, version: Version) -> bool: ...
    def put_object(self, name: str, id_: ObjectId, size: int, chunks: Callable[[], Iterable[bytes]]) -> None: ...


def shelf_of(text: str) -> Shelf:
    """Return where a cache lies: a bucket or a folder. Raise Invalid for another place, and as `BucketClient.connect`
    does."""
    place = place_of(text)
    if isinstance(place, Host):
        remedy = "give a folder, or s3://BUCKET/PREFIX"
        raise Invalid(f"a shared cache lies in a folder or in a bucket, not at {place}", remedy=remedy)
    return BucketClient.connect(place.url, patient=False) if isinstance(place, Bucket) else CacheFolder(place.path)


class Found(NamedTuple):
    """A build record that holds, and the kids of the keys that signed it."""

    built: Built
    kids: tuple[bytes, ...]


@dataclass(slots=True)
class Tally:
    """What was asked of a cache, and what it gave: `asked` keys that the store lacked, of which `hits` came; `refused`
    by kind, and why, of the first few; `bytes` that came; records and bytes that were pushed, and the number of those
    that could not be. `down` is the error after which nothing more was asked, None for a cache that answered."""

    asked: int = 0
    hits: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)
    bytes: int = 0
    pushed: int = 0
    pushed_bytes: int = 0
    unpushed: int = 0
    down: FlightbagError | None = None

    def refuse(self, key: BuildKey, error: FlightbagError) -> None:
        """Count what the cache has for a key as refused."""
        self.refused[error.kind or "unreadable"] += 1
        self.tell(key, error)

    def tell(self, key: BuildKey, error: FlightbagError) -> None:
        """Keep what went wrong with a key, in words, of the first few."""
        if len(self.reasons) < _TOLD:
            self.reasons.append(f"{str(key)[:16]}: {error.message}")


def parsed_built(data: bytes, key: BuildKey, root: TrustRoot) -> Found:
    """Return the build record in these bytes, if it counts for a key under a trust root. Raise Corrupt, Untrusted."""
    try:
        envelope = Envelope.parse(data, CONTENT_TYPE, PAYLOAD_LIMIT)
        check_signatures(envelope, root, AAD_LABEL, "builder", "the build record")
        built = Built.parse(envelope.payload)
    except Corrupt as error:
        raise Corrupt(f"the build record does not hold: {error.message}", kind="bad-record") from error
    if built.key != key:
        raise Corrupt(f"the build record is of the key {built.key}", kind="other-key")
    if built.epoch != root.epoch:
        text = f"the build record is of epoch {built.epoch}, the trust root of {root.epoch}"
        raise Untrusted(text, kind="wrong-epoch", expected=root.epoch, actual=built.epoch)
    if root.issued_after is not None and built.issued_at < root.issued_after:
        text = "the build record is of a time before which nothing counts, by the trust root"
        raise Untrusted(text, kind="issued-too-early")
    return Found(built, tuple(one.kid for one in envelope.signatures))


def signed_built(built: Built, signers: Sequence[Signer], root: TrustRoot) -> bytes:
    """Return the bytes of a build record, signed by keys of the role builder. Raise Untrusted for another key, and for
    fewer than the role needs."""
    envelope = Envelope(CONTENT_TYPE, built.render())
    for signer in signers:
        check_signer(root, signer.public, "builder")
        envelope = sign(envelope, signer, root.aad(AAD_LABEL))
    check_signatures(envelope, root, AAD_LABEL, "builder", "the build record")
    return envelope.render()


class SharedCache:
    """A cache as one build uses it. The first question is on its way when this returns."""

    def __init__(self, shelf: Shelf, root: TrustRoot) -> None:
        self.tally = Tally()
        self._shelf = shelf
        self._root = root
        self._folder = f"built/{root.domain_id.hex()}"
        self._guard = threading.Lock()
        self._failures = 0
        # What lies under the name of a key, as it was read; None where that has no version, because it was too large.
        self._versions: dict[BuildKey, Version | None] = {}
        self._first: list[FlightbagError] = []
        self._answer = threading.Thread(target=self._begin, daemon=True)
        self._answer.start()

    def _begin(self) -> None:
        """Ask for something, to know whether anything answers: for what a store has and a cache has not."""
        try:
            self._shelf.look(TOML)
        except NotFound:
            return
        except FlightbagError as error:
            self._first.append(error)
            return
        text = f"{self._shelf.name} is a store, and no shared cache"
        self._first.append(Invalid(text, remedy="give a folder or a prefix of its own to the cache"))

    def _answers(self) -> bool:
        """Whether the cache is to be asked. Raise Invalid where a store lies there."""
        self._answer.join(_FIRST_S)
        if self._answer.is_alive():
            text = f"{self._shelf.name} has not answered for {_FIRST_S:g} s"
            self._first.append(Unavailable(text, remedy="look at the network or the mount", kind="unreadable"))
        for error in self._first:
            if isinstance(error, Invalid):
                raise error
            self.tally.down = error
        return self.tally.down is None

    def _ask(self, question: Callable[[], T]) -> T:
        """Return the answer to a question. Raise Unavailable, and ask nothing, once too many have failed in a row."""
        if self.tally.down is not None:
            raise self.tally.down
        try:
            answer = question()
        except Unavailable as error:
            with self._guard:
                self._failures += 1
                if self._failures >= _FAILURES and self.tally.down is None:
                    self.tally.down = error
            raise
        except FlightbagError:
            self._failures = 0
            raise
        self._failures = 0
        return answer

    def _name(self, key: BuildKey) -> str:
        return f"{self._folder}/{str(key)[:2]}/{key}"

    # -- taking

    def find(self, keys: Iterable[BuildKey]) -> dict[BuildKey, Found]:
        """Return the records that hold, of those that the cache has of these keys."""
        wanted, found = list(dict.fromkeys(keys)), dict[BuildKey, Found]()
        if not wanted or not self._answers():
            return found

        def look(key: BuildKey) -> None:
            try:
                data, version = self._ask(lambda: self._shelf.read(self._name(key), FILE_LIMIT))
            except NotFound:
                return
            except FlightbagError as error:
                if not isinstance(error, Unavailable):
                    self._versions[key] = None
                self._refuse(key, error)
                return
            self._versions[key] = version
            try:
                found[key] = parsed_built(data, key, self._root)
            except (Corrupt, Untrusted) as error:
                self._refuse(key, error)

        at_once(look, self._listed(wanted) if len(wanted) > _LISTED_FROM else wanted, _LOOKS)
        return {key: found[key] for key in wanted if key in found}

    def _listed(self, keys: Sequence[BuildKey]) -> list[BuildKey]:
        """Return those of these keys that have a name in the cache; all of a folder that is not listed."""
        counts = Counter(str(key)[:2] for key in keys)
        shards = sorted(counts)

        def names(shard: str) -> set[str] | None:
            folder, most = f"{self._folder}/{shard}", _PAGE + _NAMES_A_KEY * counts[shard]
            try:
                listed = self._ask(lambda: {one.name for one in islice(self._shelf.names(folder), most + 1)})
            except FlightbagError:
                return None
            return listed if len(listed) <= most else None

        listed = dict(zip(shards, at_once(names, shards, _LOOKS), strict=True))
        return [key for key in keys if (of := listed[str(key)[:2]]) is None or self._name(key) in of]

    def _refuse(self, key: BuildKey, error: FlightbagError) -> None:
        with self._guard:
            if error is not self.tally.down:
                self.tally.refuse(key, error)

    def fetch(
        self,
        found: Mapping[BuildKey, Found],
        limits: Mapping[BuildKey, int],
        inserting: Callable[[], AbstractContextManager[Batch]],
        progress: Callable[[int, int], None] = lambda _count, _total: None,
    ) -> dict[BuildKey, Found]:
        """Insert the objects of these records into a store, durably, each hashed as it comes. Return the records of
        which the store has every object. `limits` has the most bytes that the objects of each key may have together: a
        record of more is refused (kind too-large). `progress` gets the bytes that came, and those of all.

        Raise what inserting raises: the disk of the store is no matter of the cache.
        """
        allowed = {}
        for key, record in found.items():
            if (size := sum(size for _, size in record.built.objects)) <= limits[key]:
                allowed[key] = record
            else:
                text = f"its objects have {size} bytes, what it asks for at most {limits[key]}"
                self._refuse(key, Corrupt(text, kind="too-large", expected=limits[key], actual=size))
        wanted = sorted({one for record in allowed.values() for one in record.built.objects})
        total = sum(size for _, size in wanted)
        failed: dict[tuple[ObjectId, int], FlightbagError] = {}
        for group in batches(wanted):
            with inserting() as batch:
                batch.folder()  # before the threads start: only one may make it
                missing = [one for one in group if not batch.holds(*one)]
                for one, error in zip(missing, at_once(partial(self._bring, batch), missing), strict=True):
                    if error is not None:
                        failed[one] = error
                    else:
                        self.tally.bytes += one[1]
                batch.commit()
            progress(sum(size for _, size in group), total)
        whole = {}
        for key, record in allowed.items():
            error = next((failed[one] for one in record.built.objects if one in failed), None)
            if error is None:
                whole[key] = record
            else:
                self._refuse(key, error)
        return whole

    def _bring(self, batch: Batch, item: tuple[ObjectId, int]) -> FlightbagError | None:
        """Stage an object of the cache. Return why not, None where it is staged."""
        id_, size = item
        name = object_path(id_)
        try:
            added = batch.add(self._chunks(name, size), expect=id_)
        except _FromCacheError as error:
            return error.cause
        except Corrupt as error:
            return self._other_size(name, item) or error
        return None if added.size == size else self._other_size(name, item)

    def _chunks(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the bytes of an object of the cache. Errors of the cache are not taken for those of the store."""
        chunks = iter(self._shelf.chunks(name, size))
        while True:
            try:
                chunk = self._ask(lambda: next(chunks, None))
            except FlightbagError as error:
                raise _FromCacheError(error) from error
            if chunk is None:
                return
            yield chunk

    def _other_size(self, name: str, item: tuple[ObjectId, int]) -> FlightbagError | None:
        """Return the error for an object that has another size than its record says, None for one that has not."""
        id_, size = item
        try:
            actual = self._ask(lambda: self._shelf.look(name))[0]
        except FlightbagError as error:
            return error
        if actual == size:
            return None
        kind = "truncated" if actual < size else "oversized"
        return Corrupt(f"object {id_} has {actual} bytes, its record says {size}", kind=kind, object=id_)

    # -- giving

    def push(
        self,
        records: Sequence[tuple[Built, bytes]],
        media: Media,
        progress: Callable[[int, int], None] = lambda _count, _total: None,
    ) -> None:
        """Put build records, as values and signed, into the cache: of each its objects, which the store has, then the
        record. One that somebody else put there since `find` stays. `progress` gets bytes as they are put, and all."""
        if not records or not self._answers():
            return
        total = sum(size for built, _ in records for _, size in built.objects)

        def put(record: tuple[Built, bytes]) -> None:
            built, data = record
            count = sum(size for _, size in built.objects)
            try:
                for id_, size in built.objects:
                    self._ask(partial(self._put_object, media, id_, size))
                is_new = self._ask(lambda: self._place(built.key, data))
            except FlightbagError as error:
                with self._guard:
                    self.tally.unpushed += 1
                    self.tally.tell(built.key, error)
                return
            with self._guard:
                self.tally.pushed += is_new
                self.tally.pushed_bytes += count if is_new else 0
            progress(count, total)

        at_once(put, records, AT_ONCE)
        if isinstance(self._shelf, CacheFolder):
            self._shelf.tidy()

    def _put_object(self, media: Media, id_: ObjectId, size: int) -> None:
        name = object_path(id_)
        self._shelf.put_object(name, id_, size, lambda: media.chunks(name, size))

    def _place(self, key: BuildKey, data: bytes) -> bool:
        """Give the name of a key its record. Return False where somebody else did, since it was read."""
        name = self._name(key)
        if key not in self._versions:
            return self._shelf.create(name, data)
        return self._shelf.replace(name, data, self._versions[key] or self._shelf.look(name)[1])


class _FromCacheError(Exception):
    """An error of the cache, on its way past the store that its bytes were for."""

    def __init__(self, cause: FlightbagError) -> None:
        super().__init__(str(cause))
        self.cause = cause
