"""A store in a bucket, as a sync reaches it: the `Far` of a `mirror`, in the layout that a folder has.

A bucket takes no lock, and needs none: an object is what its name says, a trust root is made and never replaced, and
the log and a ref are replaced only by who has read them. So of two stations that write at once, one learns that the
store changed, plans again and goes on. Nothing is lost silently.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice

from store.disk.layout import MISSIONS, TOML, TOML_LIMIT
from store.disk.media import FOLDER_LIMIT, OBJECTS, Media, object_path
from store.disk.objects import inserting
from store.errors import Conflict, Corrupt, NoStore, NotFound, Unavailable
from store.format.ids import ObjectId
from store.format.ref import REF_SIZE
from store.ground.repository import Repository
from store.ground.sync import SyncPlan, batches
from store.remotes.bucket import AT_ONCE, BucketClient, Version, at_once, is_marker
from store.remotes.mirror import Listed, apply_push, mirrored, plan_push
from store.values import replace

# So often a sync begins again because somebody else wrote, and about so many seconds later, more each time.
_ATTEMPTS, _PAUSE = 10, 0.2


def push(
    source: Repository,
    client: BucketClient,
    missions: Sequence[str] = (),
    *,
    checksum: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda _count, _total: None,
) -> SyncPlan:
    """Bring `missions` (none: all) of a local store to a bucket, and return what was done; with `dry_run`, what would
    be. A prefix without a store gets one.

    With `checksum`, objects that the bucket has are read, and damaged ones are sent again. `progress` gets the number
    of bytes as they are sent, and that of all. Raise as `plan_sync` and `apply_push` do.
    """
    sent: dict[ObjectId, int] = {}
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with mirrored(BucketStore(client), source.media, missions) as mirror:
                plan = plan_push(source, mirror, missions, checksum=checksum)
                if not dry_run:
                    sent.update(plan.missing)
                    apply_push(plan, source, mirror, partial(_advance, progress, plan.bytes))
                before = sent.keys() - {id_ for id_, _ in plan.missing}
                return replace(plan, missing=(*sent.items(),) or plan.missing, present=plan.present - len(before))
        except Conflict as error:
            if error.kind != "changed" or attempt == _ATTEMPTS:
                raise
            time.sleep(_PAUSE * attempt * random.random())  # noqa: S311 - no secret: two stations part ways
    raise AssertionError


def _advance(progress: Callable[[int, int], None], total: int, count: int) -> None:
    progress(count, total)


@contextmanager
def pulled(
    client: BucketClient, local: Media | None = None, missions: Sequence[str] = ()
) -> Iterator[tuple[Repository, BucketStore]]:
    """Yield the store of a bucket as a source of `plan_sync`, and what brings its objects (`bring`), for as long as the
    block lasts. What `local` has of the objects that a plan reads is not fetched. Raise NoStore where the prefix has no
    store."""
    far = BucketStore(client)
    with mirrored(far, local, missions) as mirror, mirror.opened() as source:
        if source is None:
            raise no_store(client.name)
        yield source, far


def no_store(name: str) -> NoStore:
    """Return the error for a prefix in which no store lies."""
    return NoStore(
        f"{name} is not a store: it has no {TOML}",
        remedy="check the address; `flightbag sync STORE s3://BUCKET/PREFIX` brings a store there",
        kind="no-store",
        path=name,
    )


class BucketStore:
    """A `Far` over a bucket. It remembers the version of each small file that it has fetched."""

    def __init__(self, bucket: BucketClient) -> None:
        self._bucket = bucket
        self._small: set[str] = set()
        self._versions: dict[str, Version] = {}
        self._refs: dict[str, bytes] = {}

    @property
    def name(self) -> str:
        return self._bucket.name

    def listing(self) -> Iterator[Listed]:
        # The refs first, with their bytes: what they lead to was there before them, so the listing has it. A ref that
        # appears after that is of a publication that this look does not see yet.
        names = [one.name for one in islice(self._bucket.names(MISSIONS), FOLDER_LIMIT + 1)]
        self._refs = {}
        at_once(self._read_ref, names)
        for name, size in self._bucket.names():
            if is_marker(name, size) or name.startswith(f"{MISSIONS}/"):
                continue
            if not name.startswith(f"{OBJECTS}/") and len(self._small) < FOLDER_LIMIT:
                self._small.add(name)
            yield Listed(name, size)
        for name, data in self._refs.items():
            yield Listed(name, len(data))

    def _read_ref(self, name: str) -> None:
        try:
            self._refs[name], self._versions[name] = self._bucket.read(name, REF_SIZE)
        except NotFound:
            return
        except Corrupt:
            self._refs[name], self._versions[name] = b"", self._bucket.look(name)[1]  # no reader takes it for a ref

    def fetch(self, files: Mapping[str, int], folder: str) -> None:
        def fetch(item: tuple[str, int]) -> None:
            name, limit = item
            try:
                data = self._refs[name] if name in self._refs else self._read(name, limit)
            except (NotFound, Corrupt):
                return
            with open(os.path.join(folder, name), "xb") as file:
                file.write(data)

        at_once(fetch, files.items())

    def _read(self, name: str, limit: int) -> bytes:
        data, self._versions[name] = self._bucket.read(name, limit)
        return data

    def send(self, items: Sequence[tuple[ObjectId, int]], source: Media, progress: Callable[[int], None]) -> None:
        def send(item: tuple[ObjectId, int]) -> None:
            id_, size = item
            name = object_path(id_)
            self._bucket.put_object(name, id_, size, lambda: source.chunks(name, size, progress))

        for batch in batches(items):
            at_once(send, batch)

    def altered(self, items: Sequence[tuple[ObjectId, int]], source: Media) -> set[ObjectId]:  # noqa: ARG002 - a bucket is read
        def altered(item: tuple[ObjectId, int]) -> bool:
            try:
                self._bucket.digest(object_path(item[0]), *item)
            except (NotFound, Corrupt):
                return True
            return False

        return {id_ for (id_, _), other in zip(items, at_once(altered, items), strict=True) if other}

    def publish(self, names: Sequence[str], folder: str) -> None:
        if TOML not in names:
            self._check_conditions()
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
            if not self._place(name, data):
                self._check_placed(name, data)

    def _check_conditions(self) -> None:
        """Raise Unavailable for a storage that ignores conditions: what it must refuse here would change nothing."""
        data, version = self._bucket.read(TOML, TOML_LIMIT)
        other = Version('"' + "0" * 32 + '"', None if version.version is None else "1")
        if self._bucket.create(TOML, data) or self._bucket.replace(TOML, data, other):
            raise Unavailable(
                f"the storage of {self.name} ignores the conditions of a write: two stations at once could lose a ref",
                remedy="use one that heeds If-Match and If-None-Match, or a newer version of this one",
                kind="unwritable",
                path=self.name,
            )

    def _place(self, name: str, data: bytes) -> bool:
        """Give a name these bytes. Return False where it has others than those that were fetched."""
        if name not in self._versions and name not in self._small:
            return self._bucket.create(name, data)
        # One that was not fetched breaks a bound, so no reader takes it.
        version = self._versions.get(name) or self._bucket.look(name)[1]
        return self._bucket.replace(name, data, version)

    def _check_placed(self, name: str, data: bytes) -> None:
        """Raise Conflict unless a name has exactly these bytes: a request that was repeated had arrived before."""
        try:
            present, self._versions[name] = self._bucket.read(name, len(data))
        except (NotFound, Corrupt):
            present = b""
        if present != data:
            raise Conflict(
                f"somebody changed {self.name}/{name} while the sync ran",
                remedy="run the sync again: what arrived is not sent again",
                kind="changed",
            )

    def bring(
        self, items: Sequence[tuple[ObjectId, int]], destination: Repository, progress: Callable[[int], None]
    ) -> None:
        """Insert objects of the bucket in a local store, durably, each hashed as it comes."""
        with inserting(destination.media, destination.disk, None) as batch:
            chunks = ((self._bucket.chunks(object_path(id_), size, progress), id_) for id_, size in items)
            batch.add_all(chunks, threads=AT_ONCE)
            batch.commit()
