"""A mirror: the small files of a store that lies elsewhere, in a local folder, as an ordinary store without its
artifacts.

The planner reads a mirror as it reads a stick: roots, refs, signatures and tables are verified by the same code. Which
objects the far store has, a listing answers. What changes at the far store is changed in its mirror first, by the code
that changes a folder, and then published from there.

Whoever writes at the far side decides what a listing says and what a fetch brings. So names become paths only if they
are names of a store, sizes are bounded before anything is fetched, and a file that breaks a bound is an empty file
here, which no reader takes for anything. This module knows no transport.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from store.disk.droppings import is_dropping
from store.disk.layout import DRAFTS, MISSIONS, ORDERS, RESULTS, SMALL_FILES, TMP, TOML, TRUST, WITHDRAWN
from store.disk.log import LOG, LOG_LIMIT, PART
from store.disk.log import files as files_of_log
from store.disk.media import FOLDER_LIMIT, OBJECTS, SHARD_LIMIT, Media, object_path
from store.disk.quarantine import present
from store.errors import Conflict, Corrupt, FlightbagError, NoStore, Unavailable
from store.format import manifest
from store.format.cose import Envelope
from store.format.entries import TABLE_LIMIT
from store.format.ids import ObjectId, is_hex
from store.format.manifest import ENVELOPE_LIMIT, Manifest
from store.format.order import ORDER_LIMIT
from store.format.ref import REF_SIZE, ref_id
from store.ground.repository import Repository
from store.ground.sync import SyncPlan, held, of_source, plan_sync, publish
from store.remotes.small_files import limit_of

# The most names of a listing, and the most bytes of a mirror: what a hostile listing takes of memory and disk.
_NAMES, _BYTES = 2**21, 2**30
# The folders of a store that a sync judges by, and what lies in them.
_FOLDERS = (OBJECTS, *SMALL_FILES)
LISTED = ("*", f"{OBJECTS}/*/*", *(f"{folder}/*" for folder in _FOLDERS))


class Listed(NamedTuple):
    """A name below the folder of a far store. `size` is None for what is no regular file: a folder, a link."""

    name: str
    size: int | None
    folder: bool = False


class Far(Protocol):
    """A store that lies elsewhere, as a transport reaches it. Every method raises Unavailable where that fails."""

    @property
    def name(self) -> str:
        """The name for messages."""

    def listing(self) -> Iterator[Listed]:
        """Yield what lies at the places `LISTED` of the far store, in any order; nothing where none exists."""

    def fetch(self, files: Mapping[str, int], folder: str) -> None:
        """Bring these files into a local folder, each under its name; one that has more bytes than the number given,
        or that went meanwhile, is left out."""

    def send(self, items: Sequence[tuple[ObjectId, int]], source: Media, progress: Callable[[int], None]) -> None:
        """Send objects of a local store. On return they are whole at the far side. Raise Corrupt for a source object
        that is not whole; nothing else but its bytes takes its name there."""

    def altered(self, items: Sequence[tuple[ObjectId, int]], source: Media) -> set[ObjectId]:
        """Return which of these objects, of a size that is right, have other bytes at the far side."""

    def publish(self, names: Sequence[str], folder: str) -> None:
        """Place small files of a local folder at the far side, one after the other, each whole at any moment."""


@dataclass(slots=True)
class Mirror:
    """The small files of a far store in `folder`. `objects` has its objects with their sizes; `files` the sizes of the
    small files that it had."""

    far: Far
    folder: str
    objects: dict[bytes, int] = field(default_factory=dict)
    files: dict[str, int | None] = field(default_factory=dict)
    exists: bool = False

    def resident(self, id_: bytes, size: int) -> bool:
        """Return whether the far store has a file with the object's name and size."""
        return self.objects.get(id_) == size

    @contextmanager
    def opened(self) -> Iterator[Repository | None]:
        """Yield the mirror as a store, None where the far store does not exist yet. Errors name the far store."""
        with self.named():
            if not self.exists:
                yield None
                return
            with Repository.open(self.folder) as repository:
                yield repository

    @contextmanager
    def named(self) -> Iterator[None]:
        """Let errors name the far store, and not the folder of its mirror."""
        try:
            yield
        except FlightbagError as error:
            if self.folder not in f"{error} {error.fields.get('path', '')}":
                raise
            path = error.fields.get("path")
            facts = {"path": path.replace(self.folder, self.far.name)} if isinstance(path, str) else {}
            message, remedy = (text.replace(self.folder, self.far.name) for text in (error.message, error.remedy))
            raise error.restated(message, remedy=remedy, **facts) from error


@contextmanager
def mirrored(far: Far, local: Media | None = None, missions: Sequence[str] = ()) -> Iterator[Mirror]:
    """Yield the mirror of a far store, for as long as the block lasts.

    Of `missions` (none: all) and of every draft, order and result it has the objects that a planner reads. What `local`
    has of these is not fetched. Raise NoStore if the folder there is something else than a store, Corrupt for what no
    store has, Unavailable if it cannot be looked at.
    """
    with tempfile.TemporaryDirectory(prefix="flightbag-") as folder:
        mirror = Mirror(far, os.path.realpath(folder))
        _list(mirror)
        if mirror.exists:
            for name in (MISSIONS, OBJECTS, TRUST):
                os.mkdir(os.path.join(mirror.folder, name))
            small = {name: size for name, size in mirror.files.items() if not _is_log(name)}
            _fetch(mirror, small)
            with mirror.opened() as repository:
                assert repository is not None
                _objects(mirror, repository, local, missions)
        yield mirror


def _list(mirror: Mirror) -> None:
    """Take in the listing of the far store."""
    counts: Counter[str] = Counter()
    other = False
    for number, (name, size, is_folder) in enumerate(mirror.far.listing(), 1):
        if number > _NAMES:
            raise _too_many(mirror.far.name, _NAMES)
        top, _, rest = name.partition("/")
        folder, _, last = name.rpartition("/")
        if is_dropping(last) or is_dropping(top):
            continue
        if is_folder and limit_of(name) is None:
            other |= not rest and top not in (*_FOLDERS, TMP)
            continue
        counts[folder] += 1
        if counts[folder] > (most := SHARD_LIMIT if top == OBJECTS else FOLDER_LIMIT):
            raise _too_many(f"{mirror.far.name}/{folder}", most)
        if top == OBJECTS:
            text = name.removeprefix(f"{OBJECTS}/").replace("/", "", 1)
            if size is not None and is_hex(text) and object_path(ObjectId.parse(text)) == name:
                mirror.objects[ObjectId.parse(text)] = size
            elif size is None and not is_folder and len(rest) <= 2:
                raise _no_folder(mirror.far, name)
        elif size is None and name in _FOLDERS:
            raise _no_folder(mirror.far, name)
        elif (limit := limit_of(name)) is not None or _is_log(name):
            mirror.files[name] = size if size is not None and size <= (limit or LOG_LIMIT) else None
        else:  # a bucket lists no folders, only what lies in them
            other |= not rest or top not in (*_FOLDERS, TMP)
    mirror.exists = TOML in mirror.files
    if not mirror.exists and (other or mirror.files or mirror.objects):
        raise NoStore(
            f"{mirror.far.name} is not a store: it has no {TOML}",
            remedy="give the folder of a store, or one that does not exist yet",
            kind="bad-store",
            path=mirror.far.name,
        )


def _too_many(path: str, most: int) -> Corrupt:
    text = f"{path} has more than {most} names, which is the limit"
    return Corrupt(text, remedy="move what does not belong there out of the store", kind="too-many", path=path)


def _is_log(name: str) -> bool:
    return name == LOG or PART.fullmatch(name) is not None


def _no_folder(far: Far, name: str) -> Corrupt:
    path = f"{far.name}/{name}"
    text = f"{path}: expected a directory, found a thing of another type"
    return Corrupt(text, remedy="find out who put it there, and remove it", kind="wrong-type", path=path)


def _fetch(mirror: Mirror, files: Mapping[str, int | None]) -> None:
    """Fetch files into the mirror. What breaks a bound there is an empty file here."""
    for name in files:
        os.makedirs(os.path.dirname(os.path.join(mirror.folder, name)), exist_ok=True)
    whole = {name: size for name, size in files.items() if size is not None}
    if sum(whole.values()) > _BYTES:
        raise Unavailable(
            f"the manifests and tables of {mirror.far.name} have more than {_BYTES} bytes",
            remedy="sync single missions with --mission",
            kind="too-large",
        )
    if whole:
        mirror.far.fetch(whole, mirror.folder)
    for name, size in files.items():
        path = os.path.join(mirror.folder, name)
        if size is None or not os.path.isfile(path) or os.path.islink(path) or os.path.getsize(path) > size:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            with suppress(FileNotFoundError):
                os.unlink(path)
            with open(path, "xb"):
                pass


def _objects(mirror: Mirror, repository: Repository, local: Media | None, missions: Sequence[str]) -> None:
    """Fetch the objects that a planner reads: manifests, orders and results, then tables and releases."""

    def bring(wanted: Iterable[tuple[ObjectId, int]]) -> list[ObjectId]:
        limits = {id_: limit for id_, limit in wanted if mirror.objects.get(id_, limit + 1) <= limit}
        missing = {}
        for id_ in limits:
            size, name = mirror.objects[id_], object_path(id_)
            if not _copied(local, id_, size, os.path.join(mirror.folder, name)):
                missing[name] = size
        _fetch(mirror, missing)
        return list(limits)

    heads = []
    for folder, limit in ((MISSIONS, ENVELOPE_LIMIT), (ORDERS, ORDER_LIMIT), (RESULTS, ENVELOPE_LIMIT)):
        for name in repository.media.names_if_there(folder):
            if folder != MISSIONS or not missions or name in missions:
                with suppress(FlightbagError):  # a planner takes it for damaged, too
                    heads.append((ref_id(repository.media.read(f"{folder}/{name}", REF_SIZE)), limit))
    manifests = []
    for id_ in bring(heads):
        with suppress(FlightbagError):
            manifests.append(repository.evidence.object(id_, ENVELOPE_LIMIT))
    for name in repository.media.names_if_there(DRAFTS):
        with suppress(FlightbagError):
            manifests.append(repository.media.read(f"{DRAFTS}/{name}", ENVELOPE_LIMIT))
    inner: dict[ObjectId, int] = {}
    for data in manifests:
        with suppress(FlightbagError):  # an order, a result, or a manifest that does not hold
            parsed = Manifest.parse(Envelope.parse(data, manifest.CONTENT_TYPE, manifest.PAYLOAD_LIMIT).payload)
            inner.update({parsed.table: TABLE_LIMIT, **dict.fromkeys(parsed.releases, ENVELOPE_LIMIT)})
    bring(inner.items())


def _copied(local: Media | None, id_: ObjectId, size: int, path: str) -> bool:
    """Copy an object from a local store, if that has it whole."""
    data = bytearray(size)
    try:
        if local is None:
            return False
        local.digest(id_, size, into=data)
    except FlightbagError:
        return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    return True


def plan_push(source: Repository, mirror: Mirror, missions: Sequence[str], *, checksum: bool = False) -> SyncPlan:
    """Return the plan that brings `missions` (none: all) of a local store to a far one. Raise as `plan_sync` does.

    The far side reads, and compares, what it has of a mission without a ref that holds; with `checksum` everything.
    """
    with mirror.opened() as target:
        plan = plan_sync(source, target, missions, resident=mirror.resident)
        doubted = [
            (ObjectId(id_), size)
            for id_, size in (plan.closure if checksum else plan.missing)
            if mirror.resident(id_, size)
        ]
        if not doubted:
            return plan
        altered = mirror.far.altered(doubted, source.media)
        if checksum:
            plan = plan_sync(
                source, target, missions, resident=lambda id_, size: id_ not in altered and mirror.resident(id_, size)
            )
        whole = {id_ for id_, _ in doubted} - altered
        missing = tuple(item for item in plan.missing if item[0] not in whole)
        return replace(plan, missing=missing, present=plan.present + len(plan.missing) - len(missing))


def apply_push(plan: SyncPlan, source: Repository, mirror: Mirror, progress: Callable[[int], None]) -> None:
    """Send objects, then publish the log, trust roots, small files and refs at the far store, in this order.

    Nothing is published unless the far store has the whole closure, and nobody changed it since the plan was made:
    else raise Unavailable or Conflict. A far store cannot be locked; FORMAT.md 2.10 says what that leaves open.
    """
    far = mirror.far
    with held(source), mirror.named():
        if not mirror.exists:
            Repository.init(mirror.folder).close()
            far.publish([TOML], mirror.folder)
        with of_source():
            far.send(plan.missing, source.media, progress)
        if not (plan.roots or plan.files or plan.moves):
            return
        _check_unchanged(plan, mirror)
        names = [name for name in mirror.files if _is_log(name)]
        _fetch(mirror, {name: mirror.files[name] for name in names})
        with Repository.open(mirror.folder) as target:
            publish(plan, source, target)
            roots = [f"trust/{version}.root.cbor" for version in plan.roots]
            refs = [f"{MISSIONS}/{move.mission}" for move in plan.moves]
            # The log first: an audit takes a root or a ref without its line for one that somebody planted.
            logs = [name for name in files_of_log(target.media) if name == LOG or name not in mirror.files]
            small = [file.name for file in plan.files if present(target.media, file.name)]
            # A draft that a signature of the far store completed has taken effect.
            small += [file.name.replace(DRAFTS, WITHDRAWN, 1) for file in plan.files if file.name not in small]
            far.publish([*logs, *roots, *small, *refs], mirror.folder)


def _check_unchanged(plan: SyncPlan, mirror: Mirror) -> None:
    """Look at the far store again. Raise unless it has all that the plan relies on, and the small files of the plan."""
    with tempfile.TemporaryDirectory(prefix="flightbag-") as folder:
        now = Mirror(mirror.far, folder)
        _list(now)
        for id_, size in plan.closure:
            if not now.resident(id_, size):
                raise Unavailable(
                    f"object {ObjectId(id_)} is not at {mirror.far.name}: it was collected, or left out on the way",
                    remedy="run the sync again",
                    kind="missing",
                    object=ObjectId(id_),
                )
        before = {**mirror.files, **({} if mirror.exists else {TOML: now.files.get(TOML)})}
        refs = {name: size for name, size in now.files.items() if name.startswith(f"{MISSIONS}/")}
        _fetch(now, refs)
        same = before == now.files and all(
            _bytes(os.path.join(folder, name)) == _bytes(os.path.join(mirror.folder, name)) for name in refs
        )
        if not same:
            raise Conflict(
                f"somebody changed {mirror.far.name} while the sync ran",
                remedy="run the sync again: what arrived is not sent again",
                kind="changed",
            )


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
