"""A store on the ground, opened: its roots, its missions, its lock and its small files.

Objects are inserted and missions are published by `store.ground.writer`.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from store.disk import log
from store.disk.durable import Disk, replace_file
from store.disk.layout import FORMAT, TOML, check_format, check_free, no_store
from store.disk.locks import SharedLock, exclusive
from store.disk.media import Media
from store.disk.staging import Staging
from store.errors import Corrupt, Invalid, NotFound, Unavailable
from store.format.ids import ObjectId
from store.format.manifest import MISSION_ID
from store.format.ref import ref_id
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Opened
from store.takeoff.verify import open_manifest
from store.trust.root import SignedRoot

# How far apart the clocks of two ground stations may be, in seconds.
CLOCKS_DIFFER = 86400
# How many missions an error names.
_NAMED = 8


class Repository:
    """An open store. Holds directory descriptors until it is closed."""

    def __init__(self, media: Media, disk: Disk) -> None:
        self.media = media
        self.disk = disk
        self.evidence = StoreEvidence(media)

    @classmethod
    def open(cls, path: str | os.PathLike[str], disk: Disk | None = None) -> Self:
        """The store at `path`. Raises NotFound where there is none, Invalid for another format."""
        try:
            media = Media(path)
        except NotFound as error:
            raise no_store(path) from error
        try:
            check_format(media)
        except BaseException:
            media.close()
            raise
        return cls(media, disk or Disk())

    @classmethod
    def init(cls, path: str | os.PathLike[str], disk: Disk | None = None) -> Self:
        """Makes a store at `path`, which must not exist or be empty. An interrupted `init` may be run again."""
        disk = disk or Disk()
        top = os.path.realpath(path)
        disk.make_directory(top)
        check_free(top)
        # missions before objects: a copy that walks in this order never has a ref without having begun the objects
        # later, so what a torn copy lacks are objects, which verify finds.
        for name in ("missions", "objects", "trust"):
            disk.make_directory(os.path.join(top, name))
        # A store is what has a flightbag.toml: by then the rest of it is there, and stays.
        disk.sync_directory(top)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = f'format = {FORMAT}\nid = "{secrets.token_hex(16)}"\ncreated = {created}\n'
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
        """Root 1 of the store: where its own chain starts. Raises NotFound where there is none."""
        try:
            data = self.evidence.root_file(1)
        except NotFound as error:
            raise NotFound(
                f"{self.media.path} has no trust root",
                remedy="make one with `flightbag trust new`",
                kind="bad-trust-chain",
            ) from error
        signed = SignedRoot.parse(data)
        if signed.root.version != 1:
            raise Corrupt("trust/1.root.cbor is of another version", kind="bad-trust-chain")
        return signed

    def trust_root(self) -> SignedRoot:
        """The newest root of the store's own chain. It vouches for nothing to a verifier, who has a pinned one."""
        return self.evidence.newest(self.first_trust_root())

    def missions(self) -> list[str]:
        """The ids of the published missions, ascending."""
        return self.evidence.missions()

    def current(self, mission: str) -> Opened:
        """The published manifest and table of a mission, signed under the store's own chain.

        Raises NotFound for no such mission, Corrupt for a ref that leads elsewhere, and as `opened` does.
        """
        try:
            manifest_id = ref_id(self.evidence.ref(mission))
        except NotFound as error:
            there = ", ".join(self.missions()[:_NAMED]) or "none"
            remedy = f"the missions there are: {there}"
            text = f"{self.media.path} has no mission {mission}"
            raise NotFound(text, remedy=remedy, kind="missing", mission=mission) from error
        opened = self.opened(manifest_id, f"the manifest of {mission}")
        other = opened.manifest.mission.id
        if other != mission:  # a ref is unsigned and only a pointer
            raise Corrupt(
                f"the ref of {mission} leads to the manifest of {other}", kind="bad-ref", expected=mission, actual=other
            )
        return opened

    def opened(self, manifest: ObjectId, what: str, evidence: StoreEvidence | None = None) -> Opened:
        """The manifest of this id and its table, if they hold under the store's own chain.

        Else raises Corrupt, or Unavailable where nothing is known to be wrong, with the findings.
        """
        opened = open_manifest(evidence or self.evidence, manifest, self.trust_root())
        if not isinstance(opened, Opened):
            unread = all(finding.unreadable for finding in opened)
            raise (Unavailable if unread else Corrupt)(
                f"{what} does not verify: " + "; ".join(finding.message for finding in opened),
                remedy=opened[0].remedy or "run store-fsck: it says what is wrong, and what mends it",
                kind="bad-manifest",
                object=manifest,
                findings=opened,
            )
        return opened

    @contextmanager
    def locked(self, *, alone: bool = False, wait: bool = False) -> Iterator[None]:
        """The store's lock: shared between writers, or held alone, so that nobody writes.

        Raises Locked where that cannot be had now, unless `wait`.
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
        """Adds a line to the log, alone (step 6)."""
        with exclusive(self.media.path, self.disk, "log", "the log", timeout=60):
            log.append(self.media, self.disk, event)

    def replace(self, name: str, data: bytes) -> None:
        """Replaces a small file of the store by name, durably. Refuses a folder that is a link."""
        self.media.directory(os.path.dirname(name))
        with Staging(self.media, self.disk) as staging:
            replace_file(self.disk, self.media.absolute(name), data, staging.folder())

    def move_ref(self, mission: str, manifest: ObjectId, event: str, sequence: int) -> None:
        """Steps 6 and 7: the log line, then the ref. Everything the manifest names is durable by now."""
        if not MISSION_ID.fullmatch(mission):
            raise Invalid(f"{mission[:80]!r} is no mission id")
        self.media.directory("missions")  # before the log speaks of it
        facts = {"mission": mission, "manifest": str(manifest), "sequence": sequence}
        self.append_log(log.Event(int(time.time()), event, facts))
        self.replace(f"missions/{mission}", f"{manifest}\n".encode())
