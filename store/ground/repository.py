"""An open store on the ground: its trust roots, missions, lock and small files.

`store.ground.writer` inserts objects and publishes missions; `store.ground.trust_chain` puts trust roots into effect.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from store.disk import log
from store.disk.durable import Disk, replace_file
from store.disk.layout import FORMAT, TOML, check_free, open_store
from store.disk.locks import SharedLock, exclusive
from store.disk.media import Media
from store.disk.staging import Staging
from store.errors import Corrupt, Invalid, NotFound, Unavailable
from store.format.ids import ObjectId
from store.format.manifest import MISSION_ID, MISSION_ID_REMEDY
from store.format.ref import ref_id
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Opened
from store.takeoff.verify import open_manifest
from store.trust.root import SignedRoot

if TYPE_CHECKING:
    from typing_extensions import Self


class SmallFile(NamedTuple):
    """A small file in a folder of a store: its name, such as `orders/<key>`, and all its bytes."""

    name: str
    data: bytes


def names_at(target: Repository | None, folder: str) -> set[str]:
    """Return the names in a folder of the target of a sync, of too many only as many as it may have: it takes another
    name only where these are fewer than FOLDER_LIMIT, for nobody reads a folder with more. None without a folder."""
    try:
        return set() if target is None else set(target.media.first_names(folder))
    except (NotFound, Corrupt):
        return set()


class Repository:
    """An open store. It holds directory descriptors until it is closed."""

    def __init__(self, media: Media, disk: Disk) -> None:
        self.media = media
        self.disk = disk
        self.evidence = StoreEvidence(media)

    @classmethod
    def open(cls, path: str | os.PathLike[str], disk: Disk | None = None) -> Self:
        """Open the store at `path`. Raise as `open_store` does."""
        return cls(open_store(path), disk or Disk())

    @classmethod
    def init(cls, path: str | os.PathLike[str], disk: Disk | None = None) -> Self:
        """Make a store at `path`, which must be empty or not exist, and open it. An interrupted `init` can be repeated.

        Raise Invalid for a folder that holds other things, Unavailable if it cannot be written.
        """
        disk = disk or Disk()
        top = os.path.realpath(path)
        disk.make_directory(top)
        check_free(top)
        # missions before objects: a copy in this order has the refs before the objects, so that a torn copy lacks
        # objects, which the takeoff check finds.
        for name in ("missions", "objects", "trust"):
            disk.make_directory(os.path.join(top, name))
        # The file flightbag.toml makes a folder a store. By then its folders are durable.
        disk.sync_directory(top)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = f'format = {FORMAT}\nid = "{os.urandom(16).hex()}"\ncreated = {created}\n'
        with Media(top) as media, Staging(media, disk) as staging:
            replace_file(disk, os.path.join(top, TOML), text.encode(), staging.folder())
        disk.sync_directory(os.path.dirname(top))
        return cls.open(top, disk)

    def close(self) -> None:
        self.media.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def first_trust_root(self) -> SignedRoot:
        """Return trust root 1 of the store, the start of its own chain. Raise NotFound if it has none."""
        try:
            data = self.evidence.root_file(1)
        except NotFound as error:
            raise NotFound(
                f"{self.media.path} has no trust root",
                remedy="make a trust root with `flightbag trust new`",
                kind="bad-trust-chain",
            ) from error
        signed = SignedRoot.parse(data)
        if signed.root.version != 1:
            raise Corrupt(f"trust/1.root.cbor holds trust root {signed.root.version}", kind="bad-trust-chain")
        return signed

    def trust_root(self) -> SignedRoot:
        """Return the newest trust root of the store's own chain. A verifier relies on a pinned root instead."""
        return self.evidence.newest(self.first_trust_root())

    def missions(self) -> list[str]:
        """Return the ids of the published missions, ascending."""
        return self.evidence.missions()

    def current(self, mission: str) -> Opened:
        """Return the published manifest and table of a mission, verified under the store's own chain.

        Raise NotFound if the store has no such mission, Corrupt for a ref to another mission, and as `opened` does.
        """
        manifest_id = ref_id(self.evidence.ref(mission))
        opened = self.opened(manifest_id, f"the manifest of {mission}")
        other = opened.manifest.mission.id
        if other != mission:  # a ref is unsigned and only a pointer
            raise Corrupt(
                f"the ref of mission {mission} names the manifest of mission {other}",
                kind="bad-ref",
                expected=mission,
                actual=other,
            )
        return opened

    def opened(
        self,
        manifest: ObjectId,
        what: str,
        evidence: StoreEvidence | None = None,
        pinned: SignedRoot | None = None,
    ) -> Opened:
        """Return a manifest and its table if they verify under the store's own chain, or from a `pinned` root of it;
        `what` names them in an error.

        Else raise Corrupt, or Unavailable if the only findings are that data could not be read, with the findings.
        """
        opened = open_manifest(evidence or self.evidence, manifest, pinned or self.trust_root())
        if not isinstance(opened, Opened):
            unread = all(finding.unreadable for finding in opened)
            raise (Unavailable if unread else Corrupt)(
                f"{what} does not verify: " + "; ".join(finding.message for finding in opened),
                remedy=opened[0].remedy or "run store-fsck, which names the damage and its remedy",
                kind="bad-manifest",
                object=manifest,
                findings=opened,
            )
        return opened

    @contextmanager
    def locked(self, *, alone: bool = False, wait: bool = False) -> Iterator[None]:
        """Hold the store's lock: shared with other writers, or with `alone` so that no other process writes.

        Raise Locked if the lock is not free now, unless `wait`.
        """
        lock = SharedLock(self.media.path, self.disk, "store", "the store")
        try:
            if alone:
                lock.hold_exclusive(wait=wait)
            else:
                lock.hold_shared(wait=wait)
            yield
        finally:
            lock.close()

    def append_log(self, event: log.Event) -> None:
        """Add a line to the log, durably, under the log's lock (step 6 of a publication)."""
        with exclusive(self.media.path, self.disk, "log", "the log", timeout=60):
            log.append(self.media, self.disk, event)

    def replace(self, name: str, data: bytes) -> None:
        """Replace a small file of the store, durably. Raise Corrupt if its folder is a link."""
        self.media.directory(os.path.dirname(name))
        with Staging(self.media, self.disk) as staging:
            folder, staging.unsettled = staging.folder(), True
            replace_file(self.disk, self.media.absolute(name), data, folder)
            staging.unsettled = False

    def make_folders(self, folder: str) -> None:
        """Make a folder of the store, and those that it lies in, durably. Raise Corrupt or Unavailable if one is a
        link."""
        parts = folder.split("/")
        for path in (self.media.absolute("/".join(parts[:depth])) for depth in range(1, len(parts) + 1)):
            self.disk.make_directory(path)
            self.disk.sync_directory(os.path.dirname(path))
        self.media.directory(folder)

    def place(self, files: Sequence[SmallFile]) -> None:
        """Place small files, in this order, durably. Each is whole at any moment, or the file that was there before.

        A folder that the store lacks is made. Raise Corrupt or Unavailable if a folder on the way is a link.
        """
        folders = sorted({os.path.dirname(file.name) for file in files})
        for folder in folders:
            self.make_folders(folder)
        with Staging(self.media, self.disk) as staging:
            staged = [os.path.join(staging.folder(), str(number)) for number, _ in enumerate(files)]
            for path, file in zip(staged, files, strict=True):
                fd = self.disk.create(path)
                try:
                    self.disk.write(fd, file.data, path)
                finally:
                    os.close(fd)
            self.disk.sync_files(staged)
            staging.unsettled = True
            for path, file in zip(staged, files, strict=True):
                self.disk.rename(path, self.media.absolute(file.name))
            for folder in folders:
                self.disk.sync_directory(self.media.absolute(folder))
            staging.unsettled = False

    def move_ref(self, mission: str, manifest: ObjectId, event: str, sequence: int) -> None:
        """Move a mission's ref to a manifest, durably: the log line, then the ref (steps 6 and 7 of a publication).

        Everything that the manifest names is durable before the call.
        """
        if not MISSION_ID.fullmatch(mission):
            raise Invalid(f"{mission[:80]!r} is not a valid mission id", remedy=MISSION_ID_REMEDY)
        self.media.directory("missions")  # checked before the log line about the move
        facts = {"mission": mission, "manifest": str(manifest), "sequence": sequence}
        self.append_log(log.Event(int(time.time()), event, facts))
        self.replace(f"missions/{mission}", f"{manifest}\n".encode())
