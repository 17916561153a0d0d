"""The evidence of a store directory: what `store.takeoff.verify` asks for, read from the medium. Writes nothing.

Every object is read in full.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from store.disk.layout import ROOT_FILE
from store.disk.media import CHUNK, FileStamp, Media, object_path
from store.errors import Corrupt, FlightbagError, NotFound, Unavailable
from store.format.ids import ObjectId
from store.format.manifest import MISSION_ID
from store.format.ref import REF_SIZE
from store.takeoff.mission import Outcome
from store.trust.root import MAX_STEPS, ROOT_FILE_LIMIT, SignedRoot, advance

MAX_MISSIONS = 10_000
# Objects found whole that are not read again for the next mission: what keeps the memory that of a mission.
_REMEMBERED = 200_000


class StoreEvidence:
    """`store.takeoff.verify.Evidence` over a directory. For many missions it reads an object once.

    `progress` gets the number of bytes as they are hashed. `whole` gets each object that `check_objects` has read and
    found whole, with the stamp of the file. Both may be called from any thread.
    """

    def __init__(
        self,
        media: Media,
        progress: Callable[[int], None] | None = None,
        whole: Callable[[ObjectId, FileStamp], None] | None = None,
    ) -> None:
        self.media = media
        self._progress = progress
        self._whole = whole
        # What `check_objects` was asked about before: those found whole, with their sizes, and the others.
        self._sound: dict[ObjectId, int] = {}
        self._failed: dict[tuple[ObjectId, int], FlightbagError] = {}

    def missions(self) -> list[str]:
        """The ids of the missions that have a ref, ascending. What else lies there, fsck tells."""
        names = self.media.names_if_there("missions")
        if len(names) > MAX_MISSIONS:
            raise Unavailable(f"{self.media.path} has {len(names)} missions, at most {MAX_MISSIONS} are allowed")
        return [name for name in names if MISSION_ID.fullmatch(name)]

    def drafts(self) -> list[str]:
        """The ids of the missions that have a draft, ascending."""
        return [name for name in self.media.names_if_there("drafts") if MISSION_ID.fullmatch(name)]

    def ref(self, mission: str) -> bytes:
        if not MISSION_ID.fullmatch(mission):  # `..` among them
            raise NotFound(f"{mission[:80]!r} is no mission id", kind="missing")
        return self.media.read(f"missions/{mission}", REF_SIZE)

    def chain(self, after: int) -> Sequence[bytes]:
        versions = [v for v in self.root_versions() if v > after]
        if versions != list(range(after + 1, after + 1 + len(versions))):
            raise Corrupt(
                f"the trust chain of {self.media.path} has a gap after version {after}",
                kind="bad-trust-chain",
                actual=versions,
            )
        if len(versions) > MAX_STEPS:
            raise Corrupt(
                f"the trust chain of {self.media.path} is more than {MAX_STEPS} versions ahead",
                remedy="pin a newer root of the domain: enrol the aircraft again with it",
                kind="bad-trust-chain",
            )
        return [self.root_file(version) for version in versions]

    def newest(self, first: SignedRoot) -> SignedRoot:
        """The newest root of a store's own chain, which may be longer than a verifier follows. Raises as `advance`."""
        current = first
        while True:
            after = current.root.version
            window = range(after + 1, min(after + MAX_STEPS, max(self.root_versions(), default=0)) + 1)
            if not window:
                return current
            current = advance(current, [self.root_file(version) for version in window])

    def root_versions(self) -> list[int]:
        """The versions of the root files that are there, ascending."""
        matches = (ROOT_FILE.fullmatch(name) for name in self.media.names_if_there("trust"))
        return sorted(int(match[1]) for match in matches if match)

    def root_file(self, version: int) -> bytes:
        return self.media.read(f"trust/{version}.root.cbor", ROOT_FILE_LIMIT)

    def object(self, id_: ObjectId, limit: int) -> bytes:
        with _about(id_):
            size = self.media.stamp(object_path(id_)).size
            if size > limit:
                raise Corrupt(
                    f"object {id_} has {size} bytes, at most {limit} are allowed",
                    kind="oversized",
                    expected=limit,
                    actual=size,
                )
            return bytes(self.bytes_of(id_, size))

    def bytes_of(self, id_: ObjectId, size: int) -> bytearray:
        with _about(id_):
            # The size on the medium first: the signed size may be large, and memory is taken for what is there.
            actual = self.media.stamp(object_path(id_)).size
            data = bytearray(size if actual == size else 0)
            self.media.digest(id_, size, into=data, progress=self._progress)
            return data

    def check_objects(self, objects: Iterable[tuple[ObjectId, int]]) -> Iterator[tuple[ObjectId, Outcome]]:
        wanted = list(objects)
        new = sorted(item for item in wanted if self._sound.get(item[0]) != item[1] and item not in self._failed)
        if len(self._sound) > _REMEMBERED:
            self._sound = {id_: size for id_, size in wanted if self._sound.get(id_) == size}
        # Hashing a large object leaves the interpreter free; over small ones threads would only wait for each other.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            large = {item: pool.submit(self._outcome, item) for item in new if item[1] >= CHUNK}
            for item in new:
                if item[1] < CHUNK:
                    self._keep(item, self._outcome(item))
            for item, future in large.items():
                self._keep(item, future.result())
        for item in wanted:
            yield item[0], self._failed.get(item)

    def _keep(self, item: tuple[ObjectId, int], outcome: Outcome) -> None:
        if outcome is None:
            self._sound[item[0]] = item[1]
        else:
            self._failed[item] = outcome

    def _outcome(self, item: tuple[ObjectId, int]) -> Outcome:
        try:
            stamp = self.media.digest(*item, progress=self._progress)
        except FlightbagError as error:
            return _named(item[0], error)
        if self._whole is not None:
            self._whole(item[0], stamp)
        return None


@contextmanager
def _about(id_: ObjectId) -> Iterator[None]:
    """Adds the object's id to what goes wrong while it is read."""
    try:
        yield
    except FlightbagError as error:
        raise _named(id_, error) from error.__cause__


def _named(id_: ObjectId, error: FlightbagError) -> FlightbagError:
    error.fields.setdefault("object", id_)
    if isinstance(error, NotFound):
        error.message = f"object {id_} is not there"
    return error
