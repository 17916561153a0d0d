"""Collection: nothing that is needed ever goes, and all else does, after the grace time."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from calendar import timegm
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from store.disk import log
from store.disk.durable import Disk
from store.disk.index import Row
from store.disk.locks import Locked
from store.disk.media import Media, object_path
from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NotFound, Refused, Unavailable
from store.format.ids import ObjectId
from store.ground.gc import GRACE, GcPlan, collect, peeked_rows, pin, pins, plan_gc, unpin
from store.ground.repository import Repository
from store.ground.trust_chain import rotate
from store.ground.writer import writing
from tests.faults.disks import Failing, Medium, PowerCut, PowerFails, Recorded, bad_sectors, index_watched
from tests.support.missions import NOW, Flight, flight, root_draft
from tests.support.stores import (
    CAMERA,
    ENGINE,
    NORTH,
    REPOSITORY_ROOT,
    ROOT_FILE,
    SOUTH,
    audit,
    check,
    copy_of,
    file_of,
    flip,
    known_ids,
    later,
    listing,
    make_store,
    publish,
)

DAY = 86400.0
LONE = b"nobody needs this"
# North, published three times, each with a camera of its own.
SECOND, THIRD = (later(NORTH, step, **{"calibration/camera.yaml": b"fx: %d\n" % step}) for step in (1, 2))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = make_store(tmp_path_factory.mktemp("gc") / "store")
    publish(store, SECOND)
    publish(store, THIRD)
    insert(store, LONE)
    return store


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return copy_of(made, tmp_path / "store")


def insert(store: Path, *data: bytes) -> None:
    with Repository.open(store) as repository, writing(repository) as writer, writer.inserting() as batch:
        for one in data:
            batch.add_bytes(one)
        batch.commit()


def run(store: Path, *, after: float = 15 * DAY, disk: Disk | None = None, **options: float) -> GcPlan:
    """A collection as it would be `after` seconds from now: a ctime cannot be set."""
    with Repository.open(store, disk) as repository:
        return collect(repository, now=time.time() + after, **options)  # type: ignore[arg-type]


def plan(store: Path, *, after: float = 15 * DAY, **options: float) -> GcPlan:
    with Repository.open(store) as repository, peeked_rows(repository.media) as rows:
        return plan_gc(repository, rows, now=time.time() + after, **options)  # type: ignore[arg-type]


def ids(plan: GcPlan) -> set[ObjectId]:
    return {id_ for id_, _ in plan.trash}


def objects(store: Path) -> set[ObjectId]:
    with Media(store) as media:
        return {id_ for first in range(256) for id_, _ in media.objects(first)}


OLD_CAMERA = NORTH.entry(CAMERA).id


def test_what_nothing_needs_goes_to_the_trash_and_then_for_good(store: Path) -> None:
    before = objects(store)
    done = run(store)
    gone = {ObjectId.of(LONE), NORTH.manifest_id, NORTH.manifest.table, OLD_CAMERA}
    assert ids(done) == gone
    assert set(done.manifests) == {NORTH.manifest_id}
    assert objects(store) == before - gone
    (folder,) = (store / "trash").iterdir()
    assert {path.name for path in folder.iterdir()} == {str(id_) for id_ in gone}
    with Media(store) as media:
        event = log.events(media)[-1]
    assert (event.event, event.facts["objects"], event.facts["trash"]) == ("collected", len(gone), folder.name)
    assert not audit(store).errors
    assert check(store, NORTH.id).go
    assert check(store, SOUTH.id).go
    assert not ids(run(store, after=16 * DAY)), "there is nothing more to collect"
    assert folder.exists(), "the trash is younger than the grace time"
    assert [one.path for one in run(store, after=30 * DAY).folders] == [f"trash/{folder.name}"]
    assert list((store / "trash").iterdir()) == []
    with Repository.open(store) as repository, writing(repository) as writer:
        assert known_ids(writer.index) == objects(store)


@pytest.mark.parametrize(("keep", "gone"), [(1, [NORTH, SECOND]), (2, [NORTH]), (3, [])])
def test_the_last_manifests_of_the_log_are_kept(store: Path, keep: int, gone: list[Flight]) -> None:
    assert set(plan(store, keep_last=keep).manifests) == {one.manifest_id for one in gone}


def test_nothing_young_goes(store: Path) -> None:
    with Repository.open(store) as repository, writing(repository):
        pass  # the copy's index is made, and says that everything was inserted now
    found = plan(store, after=13 * DAY)
    assert (len(found.trash), found.young) == (0, 4)
    assert plan(store, after=-DAY, grace=0).young == 4, "a clock before the object's time is no proof of age"
    assert len(plan(store, after=1, grace=0).trash) == 4


def test_the_ctime_decides_where_there_is_no_index(store: Path) -> None:
    shutil.rmtree(store / "index", ignore_errors=True)
    assert len(plan(store).trash) == 4
    assert len(plan(store, after=0).trash) == 0


def test_a_plan_writes_nothing_and_is_what_a_collection_does(store: Path) -> None:
    with Repository.open(store) as repository, writing(repository):
        pass
    before = listing(store)
    planned = plan(store)
    assert listing(store) == before
    assert ids(planned) == ids(run(store))


def test_a_release_statement_is_kept(store: Path) -> None:
    release = b"a release statement"
    new = flight(NORTH.contents, releases=(ObjectId.of(release),), issue=later(NORTH, 9).manifest.issue)
    insert(store, release)
    publish(store, new)
    assert ObjectId.of(release) not in ids(plan(store))


def test_a_release_that_no_mission_names_is_kept_as_long_as_it_has_its_name(store: Path) -> None:
    insert(store, b"a release")
    plant(store, "trust/releases/winter", f"{ObjectId.of(b'a release')}\n".encode())
    assert ObjectId.of(b"a release") not in ids(plan(store))
    (store / "trust/releases/winter").unlink()
    assert ObjectId.of(b"a release") in ids(plan(store))


@pytest.mark.parametrize(("age", "goes"), [(GRACE - 1, False), (GRACE, True), (GRACE + 1, True)])
@pytest.mark.parametrize("inserted_later_by", [0, 100])
def test_exactly_the_grace_time_is_old_enough(store: Path, age: float, goes: bool, inserted_later_by: int) -> None:
    """The later one of ctime and insertion counts: a copy that was restored has an old insertion and a new ctime."""
    lone = ObjectId.of(LONE)
    with Repository.open(store) as repository:
        stamp = repository.media.stamp(object_path(lone))
        since = int(os.stat(file_of(store, lone)).st_ctime) + 1 + inserted_later_by
        for inserted, ctime in ((since, since - 1), (0, since)):
            row = Row.of(stamp, inserted=inserted, verified=0)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Media, "objects", staticmethod(partial(aged, Media.objects, repository.media, ctime)))
                found = plan_gc(repository, lambda first, row=row: {lone: row}, now=since + age)
            assert (lone in ids(found)) is goes


def aged(real: Callable[..., Any], media: Media, ctime: float, first: int) -> Iterator[tuple[ObjectId, Any]]:
    """The files of a folder with another ctime, which no call can set."""
    for id_, status in real(media, first):
        fields = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
        yield id_, SimpleNamespace(**{**fields, "st_ctime": ctime})


@pytest.mark.parametrize("after", [GRACE - 1, GRACE])
def test_a_folder_of_the_trash_goes_at_exactly_the_grace_time(store: Path, after: float) -> None:
    (store / "trash/20261101T000000Z").mkdir(parents=True)
    (store / "trash/today").mkdir()
    since = timegm((2026, 11, 1, 0, 0, 0))
    with Repository.open(store) as repository:
        found = plan_gc(repository, lambda _: {}, now=since + after)
    assert [one.path for one in found.folders] == (["trash/20261101T000000Z"] if after >= GRACE else [])


def test_each_name_is_durable_before_what_relies_on_it(store: Path) -> None:
    """The folder of the trash before an object is in it; both folders of each object before the index forgets it."""
    run(store, after=0)
    disk = Recorded()
    done = run(store, disk=disk)
    (made,) = (store / "trash").iterdir()
    trash, folder = str(made.parent), str(made)
    steps = [(name, path.rstrip("/")) for name, path in disk.operations]
    first = next(at for at, (name, path) in enumerate(steps) if name == "rename" and path.startswith(folder))
    for name, holder in ((trash, str(store)), (folder, trash)):
        at = steps.index(("mkdir", name))
        assert ("sync-directory", holder) in steps[at:first], f"{name} is not durable before it holds an object"
    for id_ in ids(done):
        at = steps.index(("rename", f"{folder}/{id_}"))
        rest = steps[at:]
        assert ("sync-directory", folder) in rest
        assert ("sync-directory", str(store / "objects" / str(id_)[:2])) in rest
    again = Recorded()
    run(store, after=30 * DAY, disk=again)
    rest = again.operations[again.operations.index(("remove", folder)) :]
    assert ("sync-directory", trash) in rest


def test_not_known_because_unreadable_is_another_answer_than_lost(store: Path) -> None:
    """Only where every need is unreadable may a better reader help."""
    current, table = file_of(store, THIRD.manifest_id), file_of(store, SOUTH.manifest.table)
    for lost in (False, True):
        if lost:
            table.unlink()
        with pytest.MonkeyPatch.context() as patch:
            bad_sectors(patch, current.stat().st_ino)
            with pytest.raises(Refused if lost else Unavailable) as caught:
                plan(store)
        assert caught.value.kind == "needs-unknown"


class TestEmpty:
    """Trash and quarantine, whatever their age: only where that is asked for, and what goes is named."""

    @pytest.fixture
    def aside(self, store: Path, tmp_path: Path) -> Path:
        run(store)
        day = store / "quarantine/20261101T000000Z"
        (day / "a-folder/deep").mkdir(parents=True)
        (day / "a-folder/deep/file").write_bytes(b"12345")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere/kept").write_bytes(b"kept")
        (day / "link").symlink_to(tmp_path / "elsewhere")
        return store

    def test_all_of_it_goes_and_is_counted(self, aside: Path, tmp_path: Path) -> None:
        (trash,) = (aside / "trash").iterdir()
        size = sum(path.stat().st_size for path in trash.iterdir())
        planned = plan(aside, after=0, empty=True)
        assert trash.exists()
        done = run(aside, after=0, empty=True)
        assert planned.folders == done.folders
        assert [(one.path, one.things) for one in done.folders] == [
            (f"trash/{trash.name}", 4),
            ("quarantine/20261101T000000Z", 4),
        ]
        assert done.folders[0].bytes == size
        assert done.folders[1].bytes >= 5
        assert [*(aside / "trash").iterdir(), *(aside / "quarantine").iterdir()] == []
        assert (tmp_path / "elsewhere/kept").read_bytes() == b"kept", "no link is followed"
        assert check(aside, NORTH.id).go

    def test_nobody_asked_for_it(self, aside: Path) -> None:
        assert [one.path.split("/")[0] for one in run(aside, after=60 * DAY).folders] == ["trash"]
        assert list((aside / "quarantine").iterdir())

    def test_what_this_collection_takes_out_stays_in_the_trash(self, store: Path) -> None:
        assert run(store, empty=True).folders == ()
        assert list((store / "trash").iterdir())

    def test_a_power_cut_at_any_operation(self, aside: Path, tmp_path: Path) -> None:
        counted = Recorded()
        run(copy_of(aside, tmp_path / "counted"), after=0, empty=True, disk=counted)
        for stop in range(len(counted.operations)):
            folder = copy_of(aside, tmp_path / str(stop))
            with pytest.raises(PowerFails):
                run(folder, after=0, empty=True, disk=PowerCut(stop))
            assert check(folder, NORTH.id).go
            assert len(run(folder, after=0, empty=True).folders) <= 2
            assert [*(folder / "trash").iterdir(), *(folder / "quarantine").iterdir()] == []


class TestPins:
    def test_a_pinned_manifest_keeps_its_closure(self, store: Path) -> None:
        with Repository.open(store) as repository:
            pin(repository, "first", NORTH.manifest_id)
            assert pins(repository) == {"first": NORTH.manifest_id}
            assert ids(run(store)) == {ObjectId.of(LONE)}
            unpin(repository, "first")
            assert pins(repository) == {}
        assert OLD_CAMERA in ids(run(store))

    def test_a_pinned_object_is_kept_alone(self, store: Path) -> None:
        with Repository.open(store) as repository:
            pin(repository, "lone", ObjectId.of(LONE))
        assert ObjectId.of(LONE) not in ids(plan(store))
        assert OLD_CAMERA in ids(plan(store))

    def test_pins_that_are_refused(self, store: Path) -> None:
        with Repository.open(store) as repository:
            pin(repository, "x", OLD_CAMERA)
            with pytest.raises(Conflict):
                pin(repository, "x", ObjectId.of(LONE))
            with pytest.raises(NotFound):
                pin(repository, "y", ObjectId.of(b"not here"))
            with pytest.raises(Invalid):
                pin(repository, "../x", OLD_CAMERA)
            with pytest.raises(NotFound):
                unpin(repository, "y")
            flip(file_of(store, OLD_CAMERA))
            with pytest.raises(Corrupt):
                pin(repository, "y", OLD_CAMERA)
            assert list(pins(repository)) == ["x"]

    def test_a_manifest_that_is_not_whole_is_not_pinned(self, store: Path) -> None:
        file_of(store, OLD_CAMERA).unlink()
        with Repository.open(store) as repository, pytest.raises(NotFound):
            pin(repository, "first", NORTH.manifest_id)


def plant(store: Path, name: str, data: bytes) -> None:
    (store / name).parent.mkdir(exist_ok=True)
    (store / name).write_bytes(data)


UNREADABLE = {
    "current manifest": lambda s: flip(file_of(s, THIRD.manifest_id), 50),
    "current table": lambda s: file_of(s, SOUTH.manifest.table).unlink(),
    "ref": lambda s: (s / "missions" / NORTH.id).write_bytes(b""),
    "stray among the missions": lambda s: plant(s, "missions/North", b""),
    "manifest of the log": lambda s: file_of(s, SECOND.manifest_id).unlink(),
    "table of the log": lambda s: flip(file_of(s, SECOND.manifest.table)),
    "log": lambda s: (s / "log").write_bytes(b"noise\n"),
    "draft": lambda s: plant(s, "drafts/north-ridge", b"noise"),
    "pin": lambda s: plant(s, "pins/x", b"noise"),
    "pinned object": lambda s: plant(s, "pins/x", b"0" * 64 + b"\n"),
    "trust chain": lambda s: (s / "trust" / "1.root.cbor").unlink(),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_cannot_be_read_might_need_anything(store: Path, what: str) -> None:
    UNREADABLE[what](store)
    before = objects(store)
    with pytest.raises(FlightbagError):
        run(store)
    assert objects(store) == before
    assert not (store / "trash").exists()


def test_a_manifest_that_was_collected_may_be_asked_for_later(store: Path) -> None:
    run(store, keep_last=1)
    assert ids(run(store, keep_last=3)) == set()


def test_a_draft_keeps_what_it_names(store: Path) -> None:
    new = later(NORTH, 7, camera3=b"fx: 7.0\n")
    insert(store, new.table.render(), b"fx: 7.0\n")
    assert ObjectId.of(b"fx: 7.0\n") in ids(plan(store))
    plant(store, f"drafts/{NORTH.id}", flight(new.contents, by=()).signed)
    assert ObjectId.of(b"fx: 7.0\n") not in ids(plan(store))


def test_what_is_needed_again_is_inserted_again(store: Path) -> None:
    run(store)
    insert(store, LONE)
    assert ObjectId.of(LONE) in objects(store)
    assert len(run(store, after=16 * DAY).trash) == 1
    assert not audit(store).errors


HOLD = """
import sys, time
from store.ground.repository import Repository
from store.ground.writer import writing
with Repository.open(sys.argv[1]) as repository, writing(repository):
    print("holding", flush=True)
    time.sleep(60)
"""


def test_a_build_that_is_under_way_is_named_and_its_end_frees_the_store(store: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)}
    command = [sys.executable, "-c", HOLD, str(store)]
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(Locked) as caught:
            run(store)
        assert caught.value.fields["pid"] == process.pid
        assert sys.executable in str(caught.value.fields["command"])
        process.kill()
    assert len(run(store).trash) == 4


def test_nobody_writes_while_it_collects(store: Path) -> None:
    with Repository.open(store) as repository, repository.locked(alone=True):
        with pytest.raises(Locked) as caught, Repository.open(store) as other, writing(other):
            pass
        assert caught.value.fields["pid"] == os.getpid()


def whole(store: Path) -> None:
    assert check(store, NORTH.id).go
    assert check(store, SOUTH.id).go
    assert not audit(store).errors


@pytest.mark.parametrize("share", range(2))
def test_a_crash_at_any_operation_loses_nothing_that_is_needed(made: Path, tmp_path: Path, share: int) -> None:
    counted = Recorded()
    with pytest.MonkeyPatch.context() as patch, index_watched(counted, patch):
        run(copy_of(made, tmp_path / "counted"), disk=counted)
    assert len(counted.operations) > 15
    for stop in range(share, len(counted.operations), 8):  # all of them are in the drill
        store = copy_of(made, tmp_path / str(stop))
        disk = PowerCut(stop)
        with pytest.MonkeyPatch.context() as patch, index_watched(disk, patch), pytest.raises(PowerFails):
            run(store, disk=disk)
        whole(store)
        run(store)
        whole(store)
        assert ObjectId.of(LONE) not in objects(store)


def test_a_power_cut_loses_nothing_that_is_needed(made: Path, tmp_path: Path) -> None:
    store = copy_of(made, tmp_path / "store")
    run(store, after=0)  # the index is made
    states = 0

    def look(medium: Medium) -> None:
        nonlocal states
        for names in ("durable", "all"):
            left = medium.leave(tmp_path / "left", names=names)
            whole(left)
            shutil.rmtree(left)
            states += 1

    run(store, disk=Medium(store, look))
    assert states > 30


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_every_failing_call_is_told(made: Path, tmp_path: Path, number: int) -> None:
    stop = 0
    while True:
        store = copy_of(made, tmp_path / f"{number}-{stop}")
        failing = Failing(stop, number)
        raised: Unavailable | None = None
        try:
            with pytest.MonkeyPatch.context() as patch, failing.installed(patch):
                run(store)
        except Unavailable as error:
            raised = error
        if raised is not None:
            assert raised.fields["errno"] == number, failing.failed
        else:
            assert not failing.failed or failing.failed.startswith(("unlink", "rmdir")), failing.failed
        whole(store)
        if not failing.failed:
            break
        stop += 1
    assert stop > 15


class Collecting(RuleBasedStateMachine):
    """Publishing, pinning and collecting against a model: what is needed is a set of ids."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(os.environ["XDG_STATE_HOME"]) / f"gc-{os.getpid()}-{id(self)}"
        self.store = self.folder / "store"
        self.folder.mkdir()
        with Repository.init(self.store) as repository:
            rotate(repository, root_draft(ROOT_FILE), now=NOW)
        self.published: dict[str, list[Flight]] = {NORTH.id: [], SOUTH.id: []}
        self.pinned: dict[str, Flight] = {}
        self.lone: set[ObjectId] = set()
        self.step = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @rule(which=st.sampled_from([NORTH, SOUTH]), content=st.integers(0, 3))
    def publishes(self, which: Flight, content: int) -> None:
        self.step += 1
        new = later(which, self.step, **{"calibration/camera.yaml": b"%d" % content})
        publish(self.store, new)
        self.published[new.id].append(new)

    @rule(content=st.integers(10, 13))
    def inserts(self, content: int) -> None:
        insert(self.store, b"%d" % content)
        self.lone.add(ObjectId.of(b"%d" % content))

    @precondition(lambda self: self.published[NORTH.id])
    @rule(name=st.sampled_from("ab"))
    def pins(self, name: str) -> None:
        one = self.published[NORTH.id][-1]
        with Repository.open(self.store) as repository:
            if name in self.pinned:
                unpin(repository, name)
            pin(repository, name, one.manifest_id)
        self.pinned[name] = one

    @precondition(lambda self: self.pinned)
    @rule()
    def unpins(self) -> None:
        name = min(self.pinned)
        with Repository.open(self.store) as repository:
            unpin(repository, name)
        del self.pinned[name]

    @rule(keep=st.integers(1, 3), young=st.booleans())
    def collects(self, keep: int, young: bool) -> None:
        before = objects(self.store)
        done = run(self.store, after=0 if young else 15 * DAY, keep_last=keep)
        needed = self.needed(keep)
        if young:
            assert ids(done) == set()
        else:
            assert ids(done) == before - needed
            self.lone.clear()

    def needed(self, keep: int) -> set[ObjectId]:
        ones = [one for series in self.published.values() for one in series[-keep:]] + list(self.pinned.values())
        found: set[ObjectId] = set()
        for one in ones:
            found |= {one.manifest_id, one.manifest.table, *(entry.id for entry in one.table.entries)}
        return found

    @invariant()
    def nothing_needed_is_lost(self) -> None:
        if hasattr(self, "store"):
            assert self.needed(1) | self.lone <= objects(self.store)
            assert not [one for one in audit(self.store).findings if not one.information]


TestCollecting = Collecting.TestCase
TestCollecting.settings = settings(max_examples=12, stateful_step_count=12)


@pytest.mark.parametrize("name", ["log", "missions"])
def test_without_log_or_refs_nobody_knows_what_is_needed(store: Path, name: str) -> None:
    path = store / name
    path.unlink() if name == "log" else shutil.rmtree(path)
    with Repository.open(store) as repository, pytest.raises(Refused):
        collect(repository, now=time.time() + 30 * 86400, keep_last=1)


def test_a_file_in_place_of_a_folder_of_the_trash_stops_nothing(store: Path) -> None:
    (store / "trash").mkdir()
    (store / "trash" / "20200101T000000Z").write_bytes(b"odd")
    with Repository.open(store) as repository:
        collect(repository, now=time.time(), keep_last=1)
    assert [one.kind for one in audit(store).findings if not one.information] == ["stray"]


def test_refusals_say_every_reason(store: Path) -> None:
    plant(store, "pins/x", b"noise")
    plant(store, "drafts/north-ridge", b"noise")
    with pytest.raises(Refused) as caught:
        plan(store)
    assert len(caught.value.fields["findings"]) == 2  # type: ignore[arg-type]
    assert SOUTH.entry(ENGINE).id in objects(store)


def test_each_thing_is_told_as_moved_or_deleted(store: Path) -> None:
    told: dict[str, tuple[int, int]] = {}

    def progress(what: str, count: int, total: int) -> None:
        told[what] = told.get(what, (0, 0))[0] + count, total

    with Repository.open(store) as repository:
        plan = collect(repository, now=time.time() + 30 * DAY, keep_last=1, progress=progress)
        assert told == {"moving to the trash": (len(plan.trash), len(plan.trash))}
        assert plan.trash
        told.clear()
        plan = collect(repository, now=time.time() + 60 * DAY, empty=True, progress=progress)
    things = sum(one.things for one in plan.folders)
    assert told == {"deleting": (things, things)}
    assert things
