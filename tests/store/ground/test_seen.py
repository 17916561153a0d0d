"""What a sync saw: it spares a look, and never says that objects are there which went."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from store.disk.durable import Disk
from store.disk.media import Media
from store.ground import seen as module
from store.ground.gc import collect
from store.ground.repository import Repository
from store.ground.seen import Seen
from store.ground.sync import SyncPlan, apply_sync, plan_sync
from tests.support.stores import (
    CAMERA,
    NORTH,
    SOUTH,
    check,
    file_of,
    flip,
    later,
    listing,
    make_store,
    overwrite,
    publish,
)

HOUR = 3600 * 10**9
MISSIONS = (NORTH.id, SOUTH.id)


class Vouching(Disk):
    """A disk of a file system that is known to write everything out, wherever the tests run; `synced` counts that."""

    def __init__(self) -> None:
        self.synced = 0

    def sync_file_system(self, folder: str) -> bool:
        self.synced += 1
        return True


class Trip:
    """A source, a target that was synced an hour ago, and the records."""

    def __init__(self, folder: Path, made: Path) -> None:
        self.source, self.target, self.cache = folder / "source", folder / "target", folder / "cache"
        self.disk: Disk = Vouching()
        shutil.copytree(made, self.source)
        self.sync()

    def plan(self, *missions: str, checksum: bool = False, cache: Path | None = None) -> SyncPlan:
        with Repository.open(self.source) as here, Repository.open(self.target, self.disk) as there:
            return plan_sync(here, there, missions, checksum=checksum, seen=Seen(cache or self.cache))

    def sync(self) -> SyncPlan:
        with Repository.open(self.source) as here:
            plan = self.plan() if self.target.exists() else plan_sync(here, None, ())
            apply_sync(plan, here, self.target)
            return plan

    @property
    def record(self) -> Path:
        (path,) = self.cache.iterdir()
        return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("made") / "source")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clock of the records: an hour ahead, so that nothing was changed a moment ago. Its item is how far."""
    ahead = [HOUR]
    real = time.time_ns
    monkeypatch.setattr(module.time, "time_ns", lambda: real() + ahead[0])
    return ahead


@pytest.fixture
def trip(tmp_path: Path, made: Path, clock: list[int]) -> Trip:
    trip = Trip(tmp_path, made)
    assert trip.plan().seen == ()
    assert trip.plan().seen == MISSIONS
    return trip


def looks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The ids of the objects that are looked at from now on."""
    seen: list[bytes] = []
    real = Media.lacking

    def counted(media: Media, objects: object) -> object:
        items = list(objects)  # type: ignore[call-overload]
        seen.extend(id_ for id_, _ in items)
        return real(media, items)

    monkeypatch.setattr(Media, "lacking", counted)
    return seen


def test_what_was_seen_is_not_looked_at_again(trip: Trip, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = looks(monkeypatch)
    plan = trip.plan()
    assert (plan.unchanged, plan.seen, plan.missing, looked) == (MISSIONS, MISSIONS, (), [])


def test_a_plan_with_nothing_new_to_record_writes_no_record_and_waits_for_no_medium(trip: Trip) -> None:
    before, synced = listing(trip.cache), trip.disk.synced  # type: ignore[attr-defined]
    trip.plan()
    assert (listing(trip.cache), trip.disk.synced) == (before, synced)  # type: ignore[attr-defined]


def test_only_what_changed_is_looked_at(trip: Trip, monkeypatch: pytest.MonkeyPatch) -> None:
    new = later(NORTH, own=b"its own")
    publish(trip.source, new)
    trip.sync()
    assert check(trip.target, NORTH.id).go
    looked = looks(monkeypatch)
    plan = trip.plan()
    assert plan.seen == (SOUTH.id,)
    assert plan.missing == ()
    # The objects of the new manifest, and of the other mission those in the folders that changed.
    theirs = {entry.id for entry in new.table.entries} | {new.manifest_id, new.manifest.table}
    folders = {id_[0] for id_ in (*theirs, SOUTH.manifest_id)}
    assert theirs <= set(looked)
    assert all(id_ in theirs or id_[0] in folders for id_ in looked)
    assert trip.plan().seen == MISSIONS


CHANGES: dict[str, Callable[[Trip, Path], object]] = {
    "removed": lambda trip, path: path.unlink(),
    "removed, and its folder": lambda trip, path: shutil.rmtree(path.parent),
    "renamed": lambda trip, path: path.rename(path.with_name("x" * 62)),
    "replaced by a shorter one": lambda trip, path: (path.unlink(), path.write_bytes(b"")),
    "replaced by a link": lambda trip, path: (path.unlink(), path.symlink_to("/nowhere")),
    "a folder that is a copy": lambda trip, path: (
        shutil.copytree(path.parent, trip.target / "copy"),
        shutil.rmtree(path.parent),
        (trip.target / "copy" / path.name).unlink(),
        (trip.target / "copy").rename(path.parent),
    ),
    "all of them": lambda trip, path: shutil.rmtree(trip.target / "objects"),
    "another store in its place": lambda trip, path: (
        shutil.rmtree(trip.target),
        shutil.copytree(trip.source, trip.target),
        file_of(trip.target, NORTH.entry(CAMERA).id).unlink(),
    ),
    "a link in place of the objects": lambda trip, path: (
        (trip.target / "objects").rename(trip.target.parent / "objects"),
        (trip.target / "objects").symlink_to(trip.target.parent / "objects"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_objects_that_went_are_missed(trip: Trip, change: str) -> None:
    CHANGES[change](trip, file_of(trip.target, NORTH.entry(CAMERA).id))
    assert NORTH.entry(CAMERA).id in dict(trip.plan().missing)
    assert NORTH.entry(CAMERA).id in dict(trip.plan().missing)


def test_a_collection_at_the_target_is_noticed(trip: Trip) -> None:
    """Also where the source goes back to what was collected, by a plain copy of an older store."""
    newest = later(NORTH, own=b"own")
    old = trip.source.with_name("old")
    shutil.copytree(trip.source, old)
    publish(trip.source, newest)
    trip.sync()
    trip.plan()
    with Repository.open(trip.target) as there:
        assert collect(there, now=time.time() + 90 * 86400, grace=0, keep_last=1).trash
    shutil.rmtree(trip.target / "missions")
    shutil.copytree(old / "missions", trip.target / "missions")
    shutil.rmtree(trip.source)
    old.rename(trip.source)
    assert trip.plan().missing
    trip.sync()
    assert check(trip.target, NORTH.id).go


def test_a_change_within_a_file_is_for_the_checksum_and_the_takeoff_check(trip: Trip) -> None:
    """What a look at folders cannot see. docs/carrying.md says so."""
    overwrite(file_of(trip.target, NORTH.entry(CAMERA).id), lambda data: data[:-1])
    assert trip.plan().missing == ()
    assert not check(trip.target, NORTH.id).go
    plan = trip.plan(checksum=True)
    assert (dict(plan.missing).keys(), plan.seen) == ({NORTH.entry(CAMERA).id}, ())
    assert NORTH.entry(CAMERA).id in dict(trip.plan(cache=trip.cache.with_name("none")).missing)


@pytest.mark.parametrize("what", ["manifest", "table"])
def test_a_manifest_or_table_that_does_not_hold_is_seen_all_the_same(trip: Trip, what: str) -> None:
    id_ = NORTH.manifest_id if what == "manifest" else NORTH.manifest.table
    flip(file_of(trip.target, id_), 30)
    assert id_ in dict(trip.plan().missing)


def test_what_changed_a_moment_ago_is_not_trusted(
    trip: Trip, clock: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder may change again without a change of its times (the rule of git for racy timestamps)."""
    clock[0] = 0
    for path in (trip.target / "objects").iterdir():
        (path / "touched").touch()
        (path / "touched").unlink()
    assert trip.plan().seen == ()
    assert trip.plan().seen == ()
    clock[0] = HOUR
    assert trip.plan().seen == ()
    assert trip.plan().seen == MISSIONS


def test_nothing_is_recorded_where_nobody_vouches_for_the_medium(
    tmp_path: Path, made: Path, clock: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.disk.durable._SYNCFS", frozenset())
    trip = Trip(tmp_path, made)
    trip.disk = Disk()
    for _ in range(3):
        assert trip.plan().seen == ()
    assert not trip.cache.exists()


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"[" * 100_000, b"\xff", b'{"version": 1}', None])
def test_a_record_that_does_not_hold_counts_as_none(trip: Trip, data: bytes | None) -> None:
    whole = json.loads(trip.record.read_bytes())
    trip.record.write_bytes(json.dumps({**whole, "manifests": ["x"]}).encode() if data is None else data)
    assert trip.plan().seen == ()
    assert trip.plan().seen == MISSIONS


def test_a_record_of_another_store_at_the_same_path_counts_as_none(trip: Trip) -> None:
    with (trip.target / "flightbag.toml").open("a") as file:
        file.write("# another\n")
    assert trip.plan().seen == ()


def test_a_cache_that_cannot_be_written_costs_time_only(trip: Trip) -> None:
    (blocked := trip.cache.with_name("blocked")).write_bytes(b"")
    for _ in range(2):
        assert (trip.plan(cache=blocked).seen, trip.plan(cache=blocked).missing) == ((), ())


def test_old_records_go(trip: Trip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_RECORDS", 3)
    for number in range(5):
        (path := trip.cache / f"{number}.json").write_bytes(b"")
        os.utime(path, (number, number))
    (file_of(trip.target, NORTH.manifest_id).parent / "new").touch()
    trip.plan()
    assert len(list(trip.cache.iterdir())) == 3
