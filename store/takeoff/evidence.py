"""The evidence of a store folder: the bytes that `store.takeoff.verify` asks for. Reads the medium, writes nothing.

Every object is read in full.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from store.disk.layout import WITHDRAWN
from store.disk.media import CHUNK, FileStamp, Media, object_path
from store.disk.medium import Reading
from store.errors import Corrupt, FlightbagError, NotFound, Unavailable, instead_of
from store.format.ids import ObjectId
from store.format.manifest import MISSION_ID
from store.format.ref import REF_SIZE
from store.format.withdrawal import FILE_LIMIT, NAME
from store.takeoff.mission import Outcome
from store.trust.root import MAX_STEPS, ROOT_FILE_LIMIT, SignedRoot, advance

MAX_MISSIONS = MAX_ROOTS = 10_000
# So many whole objects are remembered, and not read again for the next mission. The bound keeps the memory small.
_REMEMBERED = 200_000


def root_name(version: int) -> str:
    """Return the name of a root file in a store."""
    return f"trust/{version}.root.cbor"


class StoreEvidence:
    """`store.takeoff.mission.Evidence` over a store folder. Objects that missions share are read once.

    `progress` gets the number of bytes as they are hashed, and how many in all are asked for (see `expect`). `whole`
    gets each object that `check_objects` has read and found whole, with the stamp of the file. Both may be called from
    any thread.
    """

    def __init__(
        self,
        media: Media,
        progress: Callable[[int, int], None] | None = None,
        whole: Callable[[ObjectId, FileStamp], None] | None = None,
    ) -> None:
        self.media = media
        self._asked_for = 0
        self._expected = 0
        self._hashed = None if progress is None else lambda count: progress(count, max(self._expected, self._asked_for))
        self._whole = whole
        # The outcomes of earlier calls of `check_objects`: whole objects with their sizes, and the others.
        self._sound: dict[ObjectId, int] = {}
        self._failed: dict[tuple[ObjectId, int], FlightbagError] = {}

    @property
    def reading(self) -> Reading:
        return self.media.reading

    def expect(self, size: int) -> None:
        """Let `progress` count on so many bytes that will be asked for later."""
        self._expected = self._asked_for + size

    def missions(self) -> list[str]:
        """Return the ids of the missions that have a ref, ascending. Other names in the folder are passed over."""
        try:
            names = self.media.names("missions", MAX_MISSIONS)
        except NotFound:
            return []
        except Corrupt as error:
            if error.kind != "too-many":
                raise
            remedy = "give the id of the mission; move what does not belong there out of the store"
            raise Unavailable(
                error.message, remedy=remedy, kind=error.kind, path=self.media.absolute("missions")
            ) from error
        return [name for name in names if MISSION_ID.fullmatch(name)]

    def _instead_of(self, mission: str) -> str:
        """Return which missions to give instead."""
        missions: list[str] = []
        with suppress(FlightbagError):
            missions = self.missions()
        return instead_of(mission, missions) or "check that this is the right store, which has no mission"

    def drafts(self) -> list[str]:
        """Return the ids of the missions that have a draft, ascending."""
        return [name for name in self.media.names_if_there("drafts") if MISSION_ID.fullmatch(name)]

    def ref(self, mission: str) -> bytes:
        if not MISSION_ID.fullmatch(mission):  # `..` among them
            text = f"{mission[:80]!r} is not a valid mission id"
            raise NotFound(text, remedy=self._instead_of(mission), kind="missing")
        try:
            return self.media.read(f"missions/{mission}", REF_SIZE)
        except NotFound as error:
            text = f"{self.media.path} has no mission {mission}"
            remedy = f"{self._instead_of(mission)}, or sync {mission} to this store"
            raise error.restated(text, remedy=remedy, mission=mission) from error

    def withdrawal(self, name: str) -> bytes:
        if not NAME.fullmatch(name):
            raise NotFound(f"{name[:80]!r} is not the name of a withdrawal", kind="missing")
        return self.media.read(f"{WITHDRAWN}/{name}", FILE_LIMIT)

    def chain(self, after: int) -> Sequence[bytes]:
        versions = self._roots_after(after)
        if versions != list(range(after + 1, after + 1 + len(versions))):
            raise Corrupt(
                f"the trust chain of {self.media.path} lacks a root after version {after}",
                kind="bad-trust-chain",
                actual=versions,
            )
        if len(versions) > MAX_STEPS:
            raise Corrupt(
                f"the trust chain of {self.media.path} is more than {MAX_STEPS} versions ahead of the pinned root",
                remedy="pin a newer root of the trust domain; enrol an aircraft again with that root",
                kind="bad-trust-chain",
            )
        return [self.root_file(version) for version in versions]

    def first_root(self) -> bytes:
        return self.root_file(1)

    def newest(self, first: SignedRoot) -> SignedRoot:
        """Return the newest trust root of the store's own chain, however long it is. Raise as `advance` does."""
        current = first
        while True:
            after = current.root.version
            window = range(after + 1, min(after + MAX_STEPS, max(self.root_versions(), default=0)) + 1)
            if not window:
                return current
            current = advance(current, [self.root_file(version) for version in window])

    def root_versions(self) -> list[int]:
        """Return the versions of the root files in the store, ascending.

        They are asked for by name: whatever else lies in the folder takes neither time nor memory. Raise Corrupt for
        more than `MAX_ROOTS`.
        """
        versions: list[int] = []
        while more := self._roots_after(versions[-1] if versions else 0):
            versions += more
            if len(versions) > MAX_ROOTS:
                path = self.media.absolute("trust")
                raise Corrupt(
                    f"{path} has more than {MAX_ROOTS} trust roots",
                    remedy="move what is no trust root of this domain out of the store",
                    kind="bad-trust-chain",
                    path=path,
                )
        return versions

    def _roots_after(self, after: int) -> list[int]:
        """Return which of the next versions have a file: one more than a chain may have, so that holes show."""
        return [version for version in range(after + 1, after + MAX_STEPS + 2) if self._has_root(version)]

    def _has_root(self, version: int) -> bool:
        try:
            self.media.file_type(root_name(version))
        except NotFound:
            return False
        return True

    def root_file(self, version: int) -> bytes:
        """Return the bytes of a root file. Raise NotFound, Corrupt or Unavailable."""
        return self.media.read(root_name(version), ROOT_FILE_LIMIT)

    def object(self, id_: ObjectId, limit: int) -> bytes:
        with _about(id_):
            size = self.media.stamp(object_path(id_)).size
            if size > limit:
                raise Corrupt(
                    f"object {id_} has {size} bytes, and the most is {limit}",
                    kind="oversized",
                    expected=limit,
                    actual=size,
                )
            return bytes(self._bytes_of(id_, size, cached=False))

    def bytes_of(self, id_: ObjectId, size: int) -> bytearray:
        # These bytes are hashed as they are handed out: where they come from does not matter.
        return self._bytes_of(id_, size, cached=True)

    def _bytes_of(self, id_: ObjectId, size: int, *, cached: bool) -> bytearray:
        with _about(id_):
            # The size on the medium decides how much memory is taken: the signed size may be far larger.
            actual = self.media.stamp(object_path(id_)).size
            data = bytearray(size if actual == size else 0)
            self._asked_for += size
            self.media.digest(id_, size, into=data, cached=cached, progress=self._hashed)
            return data

    def check_objects(self, objects: Iterable[tuple[ObjectId, int]]) -> Iterator[tuple[ObjectId, Outcome]]:
        wanted = list(objects)
        new = sorted(item for item in wanted if self._sound.get(item[0]) != item[1] and item not in self._failed)
        self._asked_for += sum(size for _, size in new)
        if len(self._sound) > _REMEMBERED:
            self._sound = {id_: size for id_, size in wanted if self._sound.get(id_) == size}
        # Hashing a large object releases the interpreter's lock, and so does a network. Over small objects of a folder
        # threads would only wait.
        least = 0 if self.media.remote else CHUNK
        large = [item for item in new if item[1] >= least]
        with ExitStack() as stack:
            if large:
                from concurrent.futures import ThreadPoolExecutor  # not above: it loads logging

                pool = stack.enter_context(ThreadPoolExecutor(8 if self.media.remote else min(8, os.cpu_count() or 1)))
                futures = [pool.submit(self._outcome, item) for item in large]
            for item in new:
                if item[1] < least:
                    self._keep(item, self._outcome(item))
            if large:
                for item, future in zip(large, futures, strict=True):
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
            stamp = self.media.digest(*item, progress=self._hashed)
        except FlightbagError as error:
            return _about_object(item[0], error)
        if self._whole is not None:
            self._whole(item[0], stamp)
        return None


@contextmanager
def _about(id_: ObjectId) -> Iterator[None]:
    """Add the object's id to the errors that reading it raises."""
    try:
        yield
    except FlightbagError as error:
        raise _about_object(id_, error) from error.__cause__


def _about_object(id_: ObjectId, error: FlightbagError) -> FlightbagError:
    """Return the error with the id of the object."""
    message = f"object {id_} is missing" if isinstance(error, NotFound) else error.message
    return error.restated(message) if error.object_id else error.restated(message, object=id_)
