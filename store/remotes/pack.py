"""Packs missions of a store into a bag (FORMAT.md 12): one tar, or parts, for a pipe, a data diode, FAT32 or a radio.

A bag is the plan of a sync, written down: the objects that the other side lacks, then the trust roots, the small files
and the refs. The same store and missions give the same bytes. The store is read only, each object once (one that is
split, twice), and hashed while it is written. Memory is that of one chunk. `store.remotes.unpack` reads a bag.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from blake3 import blake3

from store.disk import log
from store.disk.durable import Disk
from store.disk.layout import BAGS, MISSIONS, TOML, TOML_LIMIT, store_above
from store.disk.media import CHUNK, FOLDER_LIMIT, Media, object_path
from store.disk.medium import largest_file
from store.disk.opening import OtherType, open_file, type_name
from store.errors import Corrupt, Invalid, NotFound, Unavailable, Untrusted
from store.format.cose import Envelope
from store.format.ids import ObjectId
from store.format.manifest import CONTENT_TYPE, ENVELOPE_LIMIT, PAYLOAD_LIMIT, Manifest
from store.format.ref import ref_id
from store.ground import receipts
from store.ground.needs import need_of_stored
from store.ground.repository import Repository, SmallFile
from store.ground.sync import SyncPlan, plan_sync
from store.remotes.delta import LARGEST, difference, is_worth
from store.remotes.tar import BLOCK, END, SIZE_MAX, Member, TarReader, padding, render, render_comment
from store.takeoff.evidence import root_name
from store.trust.root import SignedRoot
from store.values import dataclass, replace

if TYPE_CHECKING:
    from typing_extensions import Self

CONTEXT = "flightbag 2026 pack v1"
FORMAT = 1
# A part is marked in a folder, and a folder has no more names (FORMAT.md 2.1).
MAX_PARTS = FOLDER_LIMIT
# The folder of differences in a bag; no store has it.
DELTAS = "deltas"
# A number in a name or a head.
NUMBER = r"(0|[1-9][0-9]{0,18})"
_HEAD = re.compile(
    rf"flightbag pack {FORMAT} bag=([0-9a-f]{{32}}) part={NUMBER}/{NUMBER} domain=([0-9a-f]{{64}}) "
    rf"members={NUMBER} bytes={NUMBER}"
)
_ANY_HEAD = re.compile(r"flightbag pack ([1-9][0-9]{0,8}) .*")
_FRAME = 2 * BLOCK + len(END)


@dataclass(frozen=True, slots=True)
class Head:
    """What the comment of a bag says: which bag, which part of how many, of which trust domain, how much it holds.

    Nothing vouches for it: it only lets a reader refuse early, and count.
    """

    bag: str
    part: int
    parts: int
    domain: str
    members: int
    bytes: int

    def render(self) -> str:
        return (
            f"flightbag pack {FORMAT} bag={self.bag} part={self.part}/{self.parts} domain={self.domain} "
            f"members={self.members} bytes={self.bytes}"
        )

    @classmethod
    def read(cls, reader: TarReader) -> Self:
        """Return the head of the bag that a reader stands before. Raise Corrupt (kind bad-bag or other-format)."""
        text = reader.comment()
        if match := _HEAD.fullmatch(text):
            bag, part, parts, domain, members, size = match.groups()
            head = cls(bag, int(part), int(parts), domain, int(members), int(size))
            if 1 <= head.part <= head.parts <= MAX_PARTS:
                return head
        if (other := _ANY_HEAD.fullmatch(text)) and int(other[1]) != FORMAT:
            remedy = "unpack it with the version of flightbag that packed it, or a newer one"
            raise reader.bad(
                "other-format", f"a bag of format {other[1]}, and this program reads {FORMAT}", remedy=remedy
            )
        raise reader.bad("bad-bag", "it does not begin as a bag does", remedy="give a file that `flightbag pack` wrote")


@dataclass(frozen=True, slots=True)
class Item:
    """A member of a bag that is to be written: `data`, or `size` bytes of an object from `offset` on.

    Of an object of which `whole` is more than `size`, it is a piece; with a `base` the difference from that object.
    """

    path: str
    size: int
    data: bytes | None = None
    object: ObjectId | None = None
    offset: int = 0
    whole: int = 0
    base: ObjectId | None = None

    @property
    def padded(self) -> int:
        return Member(TOML, self.size).padded  # every name takes the same room


@dataclass(frozen=True, slots=True)
class Pack:
    """The parts of a bag, each with its head and its members. `plan` is what the bag carries."""

    plan: SyncPlan
    heads: tuple[Head, ...]
    parts: tuple[tuple[Item, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The bytes of each part."""
        return tuple(_FRAME + sum(item.padded for item in items) for items in self.parts)

    @property
    def differences(self) -> tuple[Item, ...]:
        """The members that are differences."""
        return tuple(item for items in self.parts for item in items if item.base is not None)


def plan_pack(
    source: Repository,
    target: Repository | None,
    missions: Sequence[str],
    *,
    split: int | None = None,
    carried: Container[ObjectId] = frozenset(),
    delta: bool = False,
) -> Pack:
    """Return the bag of `missions` (none: all) for a store as `target` is, None for one that has nothing yet.

    With `split`, no part has more bytes. `carried` are objects that the other side has as well. With `delta`, an object
    that is much like one that the target has for the same mission goes as the difference from that one. Raise as
    `plan_sync` does, and Invalid for a `split` that is too small. The caller holds the source (`held`) until the bag is
    written.
    """
    plan = plan_sync(source, target, sorted(missions))
    lacking = [(id_, size) for id_, size in plan.missing if id_ not in carried]
    plan = replace(plan, missing=tuple(lacking), present=plan.present + len(plan.missing) - len(lacking))
    items = [Item(object_path(id_), size, object=id_, whole=size) for id_, size in lacking]
    if delta and target is not None:
        bases = _bases(source, target, plan)
        items = [_smaller(item, bases, source, sys.maxsize if split is None else _room(split)) for item in items]
    whole = target is None and len(lacking) == len(plan.closure)
    items += [Item(file.name, len(file.data), file.data) for file in _small_files(source, plan, whole=whole)]
    parts = into_parts(items, split)
    bag = blake3(derive_key_context=CONTEXT)
    bag.update((split or 0).to_bytes(8, "big"))
    for item in items:
        bag.update(render(Member(item.path, item.size)))
        bag.update(item.data or b"")
    domain = source.first_trust_root().root.digest.hex()
    heads = (
        Head(bag.hexdigest()[:32], number, len(parts), domain, len(part), sum(item.size for item in part))
        for number, part in enumerate(parts, 1)
    )
    return Pack(plan, tuple(heads), tuple(map(tuple, parts)))


def carried_by(source: Repository, data: bytes, what: str) -> set[ObjectId]:
    """Return the objects that the writer of a receipt has verified: the closure of the mission that it names.

    The receipt is a claim of its key: where it does not hold, `unpack` lacks something and says so. `what` names it in
    messages. Raise as `receipts.parsed` does, Invalid for a receipt of a flight, and NotFound where the source has that
    manifest no more.
    """
    root = source.trust_root().root
    try:
        receipt = receipts.parsed(data, root)
    except (Corrupt, Untrusted) as error:
        remedy = "give the folder of a store, or a file of receipts/ in a store that came back"
        raise error.restated(f"{what} is no receipt: {error.message}", remedy=remedy) from error
    if receipt.verified is None:
        text = "the receipt is of a flight, and names no objects"
        raise Invalid(text, remedy="give the receipt of a takeoff check, or a store", kind="bad-receipt")
    manifest = receipt.verified.manifest
    try:
        return {id_ for id_, _ in need_of_stored("the receipt", manifest, source.evidence)}
    except NotFound as error:
        text = f"{source.media.path} lacks the manifest {manifest}, which the receipt names, or its table"
        raise error.restated(text, remedy="pack without --against", object=manifest) from error


def _bases(source: Repository, target: Repository, plan: SyncPlan) -> dict[ObjectId, tuple[ObjectId, int]]:
    """Return object -> what the target has that is likely to be much like it, where the source has both.

    That is the entry of the same name in the target's version of the mission; of an engine of another name, the engine
    of its backbone that is nearest in size; of the table, the table.
    """
    bases: dict[ObjectId, tuple[ObjectId, int]] = {}
    for move in plan.moves:
        old = target.current(move.mission) if move.replaces is not None else None
        if old is None:
            continue
        new = source.current(move.mission)
        bases[new.manifest.table] = (old.manifest.table, old.manifest.table_size)
        named = {entry.name: entry for entry in old.table.entries}
        engines = [entry for entry in old.table.entries if entry.kind == "engine"]
        for entry in new.table.entries:
            base = named.get(entry.name)
            if base is None and entry.kind == "engine":
                like = [one for one in engines if _sort_of(one.name) == _sort_of(entry.name)]
                size = entry.size
                base = min(like, key=lambda one: (abs(one.size - size), one.name), default=None)
            if base is not None:
                bases[entry.id] = (base.id, base.size)
    return {id_: base for id_, base in bases.items() if _has(source, *base)}


def _sort_of(name: str) -> tuple[str, str]:
    return os.path.dirname(name), os.path.splitext(name)[1]


def _has(source: Repository, id_: ObjectId, size: int) -> bool:
    try:
        return source.media.stamp(object_path(id_)).size == size
    except (NotFound, Corrupt):
        return False


def _smaller(item: Item, bases: Mapping[ObjectId, tuple[ObjectId, int]], source: Repository, room: int) -> Item:
    """Return a difference in the place of an object, where it is worth it and fits a part."""
    if item.object is None or item.object not in bases:
        return item
    base, size = bases[item.object]
    if max(size, item.whole) > LARGEST:
        return item
    frame = _difference(source, base, item.object)
    made = replace(item, path=f"{DELTAS}/{item.object}-{item.whole}/{base}", size=len(frame), base=base)
    return made if is_worth(frame, item.whole) and made.padded <= room else item


def _difference(source: Repository, base: ObjectId, id_: ObjectId) -> bytes:
    return difference(source.evidence.object(base, LARGEST), source.evidence.object(id_, LARGEST))


def _small_files(source: Repository, plan: SyncPlan, *, whole: bool) -> Iterator[SmallFile]:
    """Yield what follows the objects, in the order of publication. All trust roots go, so that a bag shows by itself
    that it holds, and the refs of missions that the other side may have already."""
    yield SmallFile(TOML, source.media.read(TOML, TOML_LIMIT))
    versions = range(1, source.trust_root().root.version + 1)
    roots = [SmallFile(root_name(version), source.evidence.root_file(version)) for version in versions]
    # As the plan saw them: a build may publish meanwhile.
    current = {move.mission: move.manifest for move in plan.moves}
    current |= {mission: ref_id(source.evidence.ref(mission)) for mission in plan.unchanged}
    refs = [SmallFile(f"{MISSIONS}/{mission}", f"{id_}\n".encode()) for mission, id_ in sorted(current.items())]
    if whole:
        yield SmallFile(log.LOG, log.rendered([*map(_rotated, roots), *(_received(source, ref) for ref in refs)]))
    yield from (*roots, *plan.files, *refs)


def _rotated(file: SmallFile) -> log.Event:
    root = SignedRoot.parse(file.data).root
    return log.Event(root.issued_at, "rotated", {"version": root.version, "digest": root.digest.hex()})


def _received(source: Repository, file: SmallFile) -> log.Event:
    """Return the line of a mission as a sync writes it, but at the time of its issue: a bag knows no other."""
    id_ = ref_id(file.data)
    envelope = Envelope.parse(source.evidence.object(id_, ENVELOPE_LIMIT), CONTENT_TYPE, PAYLOAD_LIMIT)
    manifest = Manifest.parse(envelope.payload)
    facts = {"mission": manifest.mission.id, "manifest": str(id_), "sequence": manifest.issue.sequence}
    return log.Event(manifest.issue.issued_at, "received", facts)


def _room(split: int) -> int:
    """Return the bytes that members may take in a part."""
    return split // BLOCK * BLOCK - _FRAME


def into_parts(items: Sequence[Item], split: int | None) -> list[list[Item]]:
    """Return the members of each part. An object that no part can take whole begins a part, and is cut to full ones."""
    if split is None:
        return [list(items)]
    if split > SIZE_MAX:
        raise Invalid(f"parts of {split} bytes are larger than any file", remedy="leave out --split")
    room = _room(split)
    least = max([2 * BLOCK, *(item.padded for item in items if item.data is not None)])
    if room < least:
        raise Invalid(
            f"parts of {split} bytes are too small for this bag", remedy=f"give --split {least + _FRAME} or more"
        )
    parts: list[list[Item]] = [[]]
    left = room

    def add(item: Item) -> None:
        nonlocal left
        if item.padded > left and parts[-1]:
            parts.append([])
            left = room
        parts[-1].append(item)
        left -= item.padded

    for item in items:
        if item.padded <= room:
            add(item)
            continue
        if parts[-1]:
            parts.append([])
            left = room
        # A header of a size of 8 GiB or more has three blocks.
        most = room - len(render(Member(TOML, room)))
        for offset in range(0, item.size, most):
            add(Item(item.path, min(most, item.size - offset), None, item.object, offset, item.whole))
    if len(parts) > MAX_PARTS:
        text = f"parts of {split} bytes make {len(parts)} parts, and a bag has at most {MAX_PARTS}"
        raise Invalid(text, remedy="give larger parts, or fewer missions")
    return parts


def write_part(
    pack: Pack,
    part: int,
    source: Repository,
    write: Callable[[bytes | bytearray], None],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write one part, from 0, of a bag. Raise Corrupt or Unavailable for an object that is not whole: what was written
    by then is no bag, as it lacks its end."""
    buffer = bytearray()

    def emit(data: bytes) -> None:
        buffer.extend(data)
        if len(buffer) >= CHUNK:
            write(buffer)
            if progress is not None:
                progress(len(buffer))
            buffer.clear()

    emit(render_comment(pack.heads[part].render()))
    for item in pack.parts[part]:
        if item.object is None:
            emit(render(Member(item.path, item.size)) + (item.data or b""))
        elif item.base is not None:
            frame = _difference(source, item.base, item.object)
            emit(render(Member(item.path, item.size)))
            emit(frame)
        elif item.size == item.whole:
            emit(render(Member(item.path, item.size)))
            _emit_object(item, source.media, emit, bytes(item.object))
        else:
            if item.offset == 0:
                source.media.digest(item.object, item.whole)
            hasher = blake3()
            for chunk in _range(item, source.media):
                hasher.update(chunk)
            place = (
                f"{BAGS}/{pack.heads[part].bag}/{piece_name(item.object, item.whole, item.offset, hasher.hexdigest())}"
            )
            emit(render(Member(place, item.size)))
            _emit_object(item, source.media, emit, hasher.digest())
        emit(padding(item.size))
    buffer.extend(END)
    write(buffer)
    if progress is not None:
        progress(len(buffer))


def piece_name(id_: ObjectId, whole: int, offset: int, digest: str) -> str:
    """Return the name of a piece of an object, below the folder of its bag; `digest` is that of its bytes, in hex."""
    return f"pieces/{id_}-{whole}/{offset}-{digest}"


def _emit_object(item: Item, media: Media, emit: Callable[[bytes], None], digest: bytes) -> None:
    hasher = blake3()
    for chunk in _range(item, media):
        hasher.update(chunk)
        emit(chunk)
    if hasher.digest() != digest:
        raise Corrupt(
            f"object {item.object} of {media.path} has bytes that hash to {hasher.hexdigest()}",
            remedy="run store-fsck on the store, which repairs it from another one",
            kind="bit-flip",
            object=item.object,
            actual=hasher.hexdigest(),
        )


def _range(item: Item, media: Media) -> Iterator[bytes]:
    """Yield exactly the bytes of an item. Raise Corrupt where the file of its object has another size."""
    size = media.stamp(item.path).size
    left = item.size
    with media.open(item.path) as fd:
        while left and size == item.whole:
            chunk = os.pread(fd, min(left, CHUNK), item.offset + item.size - left)
            if not chunk:
                break
            left -= len(chunk)
            yield chunk
    if left:
        raise Corrupt(
            f"object {item.object} of {media.path} has {size} bytes, {item.whole} are expected",
            remedy="run store-fsck on the store, which repairs it from another one",
            kind="truncated" if size < item.whole else "oversized",
            object=item.object,
            expected=item.whole,
            actual=size,
        )


def write_files(
    pack: Pack,
    source: Repository,
    target: str | os.PathLike[str],
    *,
    disk: Disk | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Write the parts of a bag as files, durably, and return their paths. A bag that lies there is replaced when the
    new one is whole.

    Raise Invalid for a target in a store, or where something else than a bag lies; Unavailable for too little space.
    """
    disk = disk or Disk()
    target = os.path.abspath(target)
    paths = [_part_path(target, head) for head in pack.heads]
    _check_target(paths, target)
    _check_room(pack, os.path.dirname(target))
    for part, path in enumerate(paths):
        staged = f"{path}.partial"
        disk.remove(staged)
        fd = disk.create(staged)
        try:
            write_part(pack, part, source, lambda data: disk.write(fd, data, staged), progress)  # noqa: B023
            disk.sync_file(fd, staged)
        except BaseException:
            disk.remove(staged)
            raise
        finally:
            os.close(fd)
        disk.rename(staged, path)
        disk.sync_directory(os.path.dirname(path))
    return paths


def _part_path(target: str, head: Head) -> str:
    """Return the path of a part: `bag.tar` is `bag.03-of-12.tar`, so that a listing has them in their order."""
    if head.parts == 1:
        return target
    stem, extension = os.path.splitext(target)
    return f"{stem}.{head.part:0{len(str(head.parts))}}-of-{head.parts}{extension}"


def _check_target(paths: Sequence[str], target: str) -> None:
    if (above := store_above(target)) is not None:
        raise Invalid(f"{target} lies in the store {above}", remedy="give a file outside of every store", path=target)
    for path in paths:
        try:
            fd, _ = open_file(path)
        except FileNotFoundError:
            continue
        except OtherType as error:
            text = f"{path}: expected a bag or nothing, found a {type_name(error.mode)}"
            raise Invalid(text, remedy="give the path of a new file", path=path) from error
        except OSError as error:
            text = f"{path} cannot be read: {error.strerror}"
            raise Unavailable(text, kind="unreadable", path=path, errno=error.errno) from error
        with open(fd, "rb") as file:
            try:
                Head.read(TarReader(file, path))
            except Corrupt as error:
                text = f"{path} exists, and is no bag"
                raise Invalid(text, remedy="give the path of a new file, or remove this one", path=path) from error


def _check_room(pack: Pack, folder: str) -> None:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # whoever writes there will say so
    try:
        most, status = largest_file(fd), os.fstatvfs(fd)
    finally:
        os.close(fd)
    if most is not None and max(pack.sizes) > most:
        raise Unavailable(
            f"the bag has {max(pack.sizes)} bytes, and the file system of {folder}, FAT, takes no file of 4 GiB",
            remedy="give --split 4GB, or format the medium as exFAT",
            kind="file-too-large",
            path=folder,
            expected=most,
            actual=max(pack.sizes),
        )
    needed, free = sum(pack.sizes), status.f_bavail * status.f_frsize
    if status.f_blocks and needed > free:
        raise Unavailable(
            f"{folder} has {free} bytes of free space, and the bag needs {needed}",
            remedy="free some space, or pack fewer missions",
            kind="no-space",
            expected=needed,
            actual=free,
        )
