"""Unpacks a bag (FORMAT.md 12) into a store: verifies while it reads, once and forwards, and keeps no copy of the bag.

The steps, for one tar:

 1. the head: which bag, which part, of which trust domain; nothing is made before it holds
 2. objects are hashed as they come and inserted as a sync inserts them, in durable batches; the pieces of a split
    object go to `bags/<bag>/` once they hash to their name
 3. the small files (`flightbag.toml`, trust roots, orders and the like, refs) are placed as they are in a folder of
    their own, which then looks like the store that was packed: in `tmp/`, or of a split bag in `bags/<bag>/`
 4. once every part is in, or all of them that the store needs, pieces are joined, hashed as a whole, and inserted
 5. that folder, over the objects of the destination, is the source of a sync, whose plan judges everything as of a
    stick. Only if every closure is whole do roots, small files and refs go over, in the order of every sync

A bag that is cut off, damaged or made up is refused by kind, and moves no ref. What came whole before that stays:
objects are what their names say, and another try does not write them again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from typing import BinaryIO

from blake3 import blake3

from store.disk import log
from store.disk.durable import Disk
from store.disk.layout import BAGS, MISSIONS, TMP, TOML, TRUST, check_format, check_free
from store.disk.locks import exclusive
from store.disk.media import FOLDER_LIMIT, OBJECTS, SHARD_LIMIT, Media, object_path
from store.disk.medium import check_file_sizes
from store.disk.objects import Batch, inserting
from store.disk.quarantine import present
from store.disk.staging import Staging, remove_tree, sweep
from store.errors import Conflict, Corrupt, FlightbagError, NoStore, NotFound, Unavailable
from store.format.ids import ObjectId
from store.ground.repository import Repository, SmallFile
from store.ground.sync import SyncPlan, apply_sync, plan_sync
from store.remotes.delta import LARGEST, applied
from store.remotes.pack import DELTAS, NUMBER, Head
from store.remotes.small_files import limit_of
from store.remotes.tar import SIZE_MAX, Member, TarReader
from store.takeoff.verify import open_mission
from store.values import dataclass

# The most objects, and about the most bytes, in one durable batch, as of a sync; and the same of small files.
_BATCH_OBJECTS, _BATCH_BYTES = 2_000, 256 * 2**20
_FILES, _FILES_BYTES = 1_000, 4 * 2**20
# What the most trust roots and missions make.
_LOG_LIMIT = 8 * 2**20
_OBJECT = re.compile(rf"{OBJECTS}/([0-9a-f]{{2}})/([0-9a-f]{{62}})")
_PIECE = re.compile(rf"{BAGS}/([0-9a-f]{{32}})/(pieces/([0-9a-f]{{64}})-{NUMBER})/({NUMBER}-([0-9a-f]{{64}}))")
_DELTA = re.compile(rf"{DELTAS}/([0-9a-f]{{64}})-{NUMBER}/([0-9a-f]{{64}})")
_OF_PIECES = re.compile(rf"([0-9a-f]{{64}})-{NUMBER}")
_NAME_OF_PIECE = re.compile(rf"{NUMBER}-[0-9a-f]{{64}}")
# The order of publication, by the first part of a path: objects, pieces and differences come before these.
_RANK = {TOML: 1, log.LOG: 2, TRUST: 3, MISSIONS: 5}
_RANK_OF_OTHERS = 4
_MARK = re.compile(r"[1-9][0-9]{0,4}")
# In the mark of the part that has `flightbag.toml`: it and the parts after it hold the small files.
_BEGINS = b"small files\n"
# Below this size the system says itself that no space is left, and little was written.
_LARGE = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What became of one tar. `inserted` objects with `bytes` came new, `present` ones the store had.

    `lacking` are the numbers of the parts of the bag that are still to come; `plan` is what took effect, None while
    parts are to come.
    """

    head: Head
    inserted: int
    bytes: int
    present: int
    lacking: tuple[int, ...]
    plan: SyncPlan | None


def unpack(
    stream: BinaryIO,
    what: str,
    target: str | os.PathLike[str],
    *,
    disk: Disk | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Unpacked:
    """Unpack one bag, or one part of one, into the store `target`, which may not exist yet. All is durable on return.

    `what` names the bag in messages; `progress` gets (bytes now, bytes in all). Raise Corrupt, with the kinds of
    FORMAT.md 12, for a bag that does not hold or lacks objects that the store lacks too; Conflict for a store of
    another trust domain, and as `plan_sync` does; Locked during a collection, or while another part is unpacked;
    Unavailable where the bag cannot be read or the store not be written.
    """
    disk = disk or Disk()
    reader = TarReader(stream, what)
    head = Head.read(reader)
    try:
        destination = Repository.open(target, disk)
    except NoStore as error:
        if error.kind != "no-store":
            raise
        if os.path.lexists(target):
            check_free(target)
        destination = Repository.init(target, disk)
    with destination, destination.locked():
        _check_domain(destination, head.domain, reader)
        sweep(destination.media, disk)
        path = destination.media.path
        alone = exclusive(path, disk, "bags", "a bag in parts at the target") if head.parts > 1 else nullcontext()
        with alone, Staging(destination.media, disk) as staging:
            folder = f"{BAGS}/{head.bag}" if head.parts > 1 else f"{TMP}/{os.path.basename(staging.folder())}/bag"
            intake = _Intake(destination, reader, head, folder, progress)
            intake.run()
            lacking: tuple[int, ...] = ()
            plan: SyncPlan | None
            if head.parts == 1:
                plan = _publish(destination, folder, head, reader)
            else:
                lacking, plan = _end_part(destination, folder, head, reader, intake)
        return Unpacked(head, intake.inserted, intake.bytes, intake.present, lacking, plan)


def _end_part(
    destination: Repository, folder: str, head: Head, reader: TarReader, intake: _Intake
) -> tuple[tuple[int, ...], SyncPlan | None]:
    """Remember that a part was read to its end, and let the bag take effect if the store then has all that it needs.

    Return the numbers of the parts that are still to come, and the plan that took effect, None without. What other
    parts hold, the store may have already: then the bag ends without them.
    """
    media, disk = destination.media, destination.disk
    if not intake.inserted and not intake.small_files and not present(media, folder):
        # As of a bag that took effect before: nothing is to be remembered.
        return tuple(part for part in range(1, head.parts + 1) if part != head.part), None
    destination.place([SmallFile(f"{folder}/parts/{head.part}", _BEGINS if intake.begins_small_files else b"")])
    marks = [name for name in media.names_if_there(f"{folder}/parts") if _MARK.fullmatch(name)]
    lacking = tuple(sorted({*range(1, head.parts + 1)} - {*map(int, marks)}))
    first = [int(name) for name in marks if media.read(f"{folder}/parts/{name}", len(_BEGINS)) == _BEGINS]
    if lacking and (not first or lacking[-1] > min(first)):
        return lacking, None  # some of the small files are
    try:
        _join_pieces(destination, folder, all_came=not lacking)
        plan = _publish(destination, folder, head, reader)
    except Corrupt as error:
        if lacking and error.kind == "incomplete-bag":
            return lacking, None
        # What came once and is lost since comes with its part again.
        remove_tree(disk, media.absolute(f"{folder}/parts"))
        raise
    remove_tree(disk, media.absolute(folder))
    return (), plan


def _check_domain(destination: Repository, domain: str, reader: TarReader) -> None:
    """Raise Conflict for a bag whose head names another trust domain than the store is of."""
    try:
        own = destination.first_trust_root().root.digest.hex()
    except (NotFound, Corrupt):
        return  # the plan judges a damaged root
    if own != domain:
        raise Conflict(
            f"{reader.what} is of another trust domain than {destination.media.path}",
            remedy="unpack it to a store of its trust domain, or to a folder that does not exist yet",
            kind="bad-trust-chain",
            expected=own,
            actual=domain,
        )


class _Intake:
    """Takes in the members of one tar: objects and pieces, then small files."""

    def __init__(
        self,
        destination: Repository,
        reader: TarReader,
        head: Head,
        folder: str,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.inserted = self.bytes = self.present = 0
        self.small_files = 0
        self.begins_small_files = False
        self._destination = destination
        self._reader = reader
        self._head = head
        self._folder = folder
        self._progress = progress
        self._staged = self._pending = 0  # objects of the batch, and bytes that it will insert
        self._in_shard: dict[str, int] = {}  # how many names each folder of objects has by now
        self._files: list[SmallFile] = []
        self._files_bytes = 0

    def run(self) -> None:
        """Take in everything. Raise Corrupt for the first member that does not hold; what came before it stays."""
        # A set of names takes less memory than the tables that these objects are in.
        seen: set[bytes] = set()
        in_folder: dict[str, int] = {}
        members = size = rank = 0
        with inserting(self._destination.media, self._destination.disk, None) as batch:
            try:
                for member in self._reader.members():
                    members, size = members + 1, size + member.size
                    if members > self._head.members or size > self._head.bytes:
                        raise self._bad("bad-bag", "it has more than its head says")
                    rank = self._check_place(member, rank, in_folder)
                    key = _key(member.name)
                    if key in seen:
                        raise self._bad("doubled", f"{member.name} comes twice")
                    seen.add(key)
                    self._take(member, batch)
            except FlightbagError:
                # What is staged came whole: the next try does not need it again.
                with suppress(FlightbagError):
                    batch.commit()
                raise
            batch.commit()
        if (members, size) != (self._head.members, self._head.bytes):
            raise self._bad("bad-bag", "it has less than its head says")
        self._flush()

    def _bad(self, kind: str, why: str) -> Corrupt:
        return self._reader.bad(kind, why)

    def _check_place(self, member: Member, rank: int, in_folder: dict[str, int]) -> int:
        """Return the rank of a member in the order of publication. Raise Corrupt for a name that no bag carries, for
        one out of the order, and for a small file that is too large."""
        name = member.name
        place = 0
        if not (_OBJECT.fullmatch(name) or self._is_piece(member) or self._is_difference(member)):
            # The log is for a plain tar: a store writes one of its own.
            limit = _LOG_LIMIT if name == log.LOG else limit_of(name)
            if limit is None:
                raise self._bad("bad-name", f"{name[:200]!r} is no path that a bag carries")
            place = _RANK.get(name.partition("/")[0], _RANK_OF_OTHERS)
            if member.size > limit:
                raise self._bad("too-large", f"{name} has {member.size} bytes, and the most is {limit}")
            folder = os.path.dirname(name)
            in_folder[folder] = in_folder.get(folder, 0) + 1
            if in_folder[folder] > FOLDER_LIMIT:
                raise self._bad("too-many", f"it has more than {FOLDER_LIMIT} files for {folder}/")
        if place < rank:
            raise self._bad("out-of-order", f"{name} comes after what is published later")
        return place

    def _is_piece(self, member: Member) -> bool:
        match = _PIECE.fullmatch(member.name)
        return (
            match is not None
            and self._head.parts > 1
            and match[1] == self._head.bag
            and int(match[6]) + member.size <= int(match[4]) <= SIZE_MAX
            and member.size > 0
        )

    def _is_difference(self, member: Member) -> bool:
        match = _DELTA.fullmatch(member.name)
        return match is not None and max(member.size, int(match[2])) <= LARGEST

    def _take(self, member: Member, batch: Batch) -> None:
        if match := _OBJECT.fullmatch(member.name):
            self._take_object(ObjectId.parse(match[1] + match[2]), member.size, batch)
        elif match := _DELTA.fullmatch(member.name):
            self._take_difference(ObjectId.parse(match[1]), int(match[2]), ObjectId.parse(match[3]), batch)
        elif match := _PIECE.fullmatch(member.name):
            self._take_piece(ObjectId.parse(match[3]), int(match[4]), f"{match[2]}/{match[5]}", match[7], member.size)
        else:
            self.small_files += 1
            self.begins_small_files |= member.name == TOML
            self._files.append(SmallFile(f"{self._folder}/{member.name}", self._reader.data()))
            self._files_bytes += member.size
            if len(self._files) >= _FILES or self._files_bytes >= _FILES_BYTES:
                self._flush()

    def _flush(self) -> None:
        self._destination.place(self._files)
        self._files.clear()
        self._files_bytes = 0

    def _chunks(self) -> Iterator[bytes]:
        for chunk in self._reader.chunks():
            yield chunk
            if self._progress is not None:
                self._progress(len(chunk), self._head.bytes)

    def _take_object(self, id_: ObjectId, size: int, batch: Batch) -> None:
        if batch.holds(id_, size):
            hasher = blake3()
            for chunk in self._chunks():
                hasher.update(chunk)
            if hasher.digest() != id_:
                raise self._other_bytes(id_, hasher.hexdigest())
            self.present += 1
        else:
            self._check_shard(id_)
            self._check_room(id_, size, size)
            try:
                batch.add(self._chunks(), expect=id_)
            except Corrupt as error:
                if error.kind == "bit-flip":
                    raise self._other_bytes(id_, str(error.fields["actual"])) from error
                raise
            self._count(size)
        self._commit_if_full(batch)

    def _count(self, size: int) -> None:
        self.inserted += 1
        self.bytes += size
        self._pending += size

    def _commit_if_full(self, batch: Batch) -> None:
        self._staged += 1
        if self._staged >= _BATCH_OBJECTS or self._pending >= _BATCH_BYTES:
            batch.commit()
            self._staged = self._pending = 0

    def _take_difference(self, id_: ObjectId, size: int, base: ObjectId, batch: Batch) -> None:
        """Insert an object that the difference from another one gives; the store has to have that one."""
        frame = b"".join(self._chunks())
        if batch.holds(id_, size):
            self.present += 1
            return
        media = self._destination.media
        try:
            of = media.read(object_path(base), LARGEST)
        except (NotFound, Corrupt) as error:
            raise self._reader.bad(
                "incomplete-bag",
                f"{media.path} lacks object {base}, from which the bag has a difference",
                remedy="pack against a copy of this store as it is, or without --delta",
            ) from error
        self._check_shard(id_)
        self._check_room(id_, size, size)
        try:
            batch.add([applied(of, frame, id_, size)], expect=id_)
        except Corrupt as error:
            raise error.restated(f"{self._reader.what}: {error.message}") from error
        self._count(size)
        self._commit_if_full(batch)

    def _other_bytes(self, id_: ObjectId, actual: str) -> Corrupt:
        text = f"{self._reader.what}: object {id_} has bytes that hash to {actual}"
        remedy = "carry the bag again from where it was packed"
        return Corrupt(text, remedy=remedy, kind="bit-flip", path=self._reader.what, object=id_, actual=actual)

    def _check_shard(self, id_: ObjectId) -> None:
        """Raise Corrupt for one more object than a folder may have: a store with more is collected no more, and no
        signature says yet that anybody needs what a bag brings."""
        media, shard = self._destination.media, os.path.dirname(object_path(id_))
        if shard not in self._in_shard:
            with suppress(NotFound):
                self._in_shard[shard] = len(media.first_names(shard, SHARD_LIMIT))
        self._in_shard[shard] = self._in_shard.get(shard, 0) + 1
        if self._in_shard[shard] > SHARD_LIMIT:
            text = f"{media.absolute(shard)} would have more than {SHARD_LIMIT} objects"
            remedy = "find out who made the bag; `flightbag gc --grace 0d` takes out what nothing needs"
            raise self._reader.bad("too-many", text, remedy=remedy)

    def _check_room(self, id_: ObjectId, size: int, whole: int) -> None:
        """Raise Unavailable for a large object that finds no room, before it is written."""
        if size < _LARGE:
            return
        path = self._destination.media.path
        check_file_sizes(path, [(id_, whole)])
        status = os.statvfs(path)
        free = status.f_bavail * status.f_frsize
        if status.f_blocks and size > free:
            raise Unavailable(
                f"{path} has {free} bytes of free space, and object {id_} of {self._reader.what} takes {size}",
                remedy="free some space and run this again; finished work is kept",
                kind="no-space",
                path=path,
                expected=size,
                actual=free,
            )

    def _take_piece(self, id_: ObjectId, whole: int, name: str, digest: str, size: int) -> None:
        """Place a piece of an object, durably, if it hashes to its name; the store may have the object already."""
        media, disk = self._destination.media, self._destination.disk
        with suppress(NotFound, Corrupt):
            if media.stamp(object_path(id_)).size == whole:
                self.present += 1
                return
        self._check_room(id_, size, whole)
        target = media.absolute(f"{self._folder}/{name}")
        hasher = blake3()
        with Staging(media, disk) as staging:
            staged = os.path.join(staging.folder(), "piece")
            fd = disk.create(staged)
            try:
                for chunk in self._chunks():
                    hasher.update(chunk)
                    disk.write(fd, chunk, staged)
                disk.sync_file(fd, staged)
            finally:
                os.close(fd)
            if hasher.hexdigest() != digest:
                raise self._other_bytes(id_, hasher.hexdigest())
            self._destination.make_folders(os.path.dirname(f"{self._folder}/{name}"))
            disk.rename(staged, target)
            disk.sync_directory(os.path.dirname(target))
        self.inserted += 1
        self.bytes += size


def _key(name: str) -> bytes:
    if match := _OBJECT.fullmatch(name):
        return bytes.fromhex(match[1] + match[2])
    return bytes.fromhex(match[1]) if (match := _DELTA.fullmatch(name)) else name.encode()


def _join_pieces(destination: Repository, folder: str, *, all_came: bool) -> None:
    """Insert each object whose pieces came, and remove these. Raise Corrupt for pieces that do not make it up, which go
    as well; unless all came, wait for the others."""
    media = destination.media
    for name in media.names_if_there(f"{folder}/pieces"):
        match = _OF_PIECES.fullmatch(name)
        place = f"{folder}/pieces/{name}"
        if match is None:
            continue
        id_, whole = ObjectId.parse(match[1]), int(match[2])
        pieces = sorted((int(one[1]), one[0]) for one in map(_NAME_OF_PIECE.fullmatch, media.names(place)) if one)
        if not all_came and sum(media.stamp(f"{place}/{piece}").size for _, piece in pieces) < whole:
            continue
        try:
            with inserting(media, destination.disk, None) as batch:
                if not batch.holds(id_, whole):
                    batch.add(_joined(destination, place, pieces, whole), expect=id_)
                batch.commit()
        except Corrupt:
            # Each piece is what its name says, and not all are of this object: the right ones come again.
            remove_tree(destination.disk, media.absolute(place))
            raise
        remove_tree(destination.disk, media.absolute(place))


def _joined(destination: Repository, place: str, pieces: list[tuple[int, str]], whole: int) -> Iterator[bytes]:
    at = 0
    for offset, name in pieces:
        size = destination.media.stamp(f"{place}/{name}").size
        if offset != at:
            break
        yield from destination.media.chunks(f"{place}/{name}", size)
        at += size
    if at != whole:
        path = destination.media.absolute(place)
        raise Corrupt(
            f"{path} has pieces of the first {at} bytes of {whole}",
            remedy="unpack every part of the bag again",
            kind="truncated",
            path=path,
            expected=whole,
            actual=at,
        )


class _BagMedia(Media):
    """The small files of a bag as they lie in their folder, over the objects of the store that it is unpacked to."""

    def __init__(self, path: str, destination: Media) -> None:
        super().__init__(path)
        self._destination = destination
        self._directories[OBJECTS] = os.dup(destination.directory(OBJECTS))

    def absolute(self, name: str) -> str:
        return self._destination.absolute(name) if name.startswith(OBJECTS) else super().absolute(name)


def _publish(destination: Repository, folder: str, head: Head, reader: TarReader) -> SyncPlan:
    """Let roots, small files and refs take effect if the store has every object that they need. Return the plan."""
    with Repository(_BagMedia(destination.media.absolute(folder), destination.media), destination.disk) as bag:
        try:
            check_format(bag.media)
            if bag.first_trust_root().root.digest.hex() != head.domain:
                raise reader.bad("bad-bag", "it is of another trust domain than its head says")
        except (NoStore, NotFound) as error:
            if error.kind == "other-format":
                raise
            raise reader.bad("bad-bag", f"it lacks {TOML} or trust root 1") from error
        plan = plan_sync(bag, destination, ())
        lost = [str(id_) for id_, _ in plan.missing]
        for mission, _ in plan.refused:
            findings = open_mission(bag.evidence, mission, bag.trust_root())
            lost += [one.object for one in findings if one.kind == "missing"] if isinstance(findings, tuple) else []
        if lost:
            again = "unpack every part of the bag again; if it was packed with --against, pack"
            do = again if head.parts > 1 else "pack"
            raise reader.bad(
                "incomplete-bag",
                f"{destination.media.path} lacks {len(lost)} objects that the bag does not carry, {lost[0]} among them",
                remedy=f"{do} against a copy of this store as it is, or without --against",
            )
        apply_sync(plan, bag, destination.media.path, disk=destination.disk)
        return plan
