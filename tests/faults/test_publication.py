"""A publication that stops anywhere: what was published stays, what is new is there wholly or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from store.disk.durable import Disk
from store.disk.media import object_path
from store.disk.objects import inserting
from store.errors import FlightbagError, Unavailable
from store.format.ids import ObjectId
from store.ground.repository import Repository
from store.ground.trust_chain import rotate
from store.ground.writer import writing
from tests.faults.disks import Failing, Medium, PowerCut, PowerFails, Recorded, Watched, index_watched
from tests.support.missions import NOW, flight, root_draft
from tests.support.stores import CAMERA, NORTH, ROOT_FILE, SOUTH, audit, check, later, listing, make_store, publish

# North anew, with one object of its own: the ref is replaced, most objects are reused, one shard may be new.
NEW = later(NORTH, camera2=b"fx: 3.0\n")
# The crash points are shared out, so that test processes run side by side.
SHARES = 4
# `make drill` sets it: every crash point instead of one of each kind.
DRILL = "FLIGHTBAG_DRILL" in os.environ
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with NORTH and SOUTH and no index, so that a publication makes that too."""
    store = make_store(tmp_path_factory.mktemp("faults") / "store")
    shutil.rmtree(store / "index")
    return store


def assert_whole_or_absent(store: Path) -> None:
    """Nothing that was published is hurt; north is either the old or the new mission, wholly."""
    assert check(store, SOUTH.id).go
    verdict = check(store, NORTH.id)
    assert verdict.mission is not None, verdict.findings
    assert verdict.mission.manifest_id in (NORTH.manifest_id, NEW.manifest_id)
    found = audit(store)
    assert not found.errors, found.findings


def operations(before: Path, folder: Path) -> list[tuple[str, str]]:
    disk = Recorded()
    store = folder / "counted"
    shutil.copytree(before, store)
    with pytest.MonkeyPatch.context() as patch, index_watched(disk, patch):
        publish(store, NEW, disk=disk)
    return [(operation, path.removeprefix(f"{store}/")) for operation, path in disk.operations]


def test_the_order_of_operations_is_the_published_one(before: Path, tmp_path: Path) -> None:
    """durable.py's numbered list, read off a recording of one publication."""
    seen = operations(before, tmp_path)

    def at(operation: str, start: str) -> int:
        found = [n for n, (name, path) in enumerate(seen) if name == operation and path.startswith(start)]
        assert found, (operation, start)
        return found[-1]

    def place(one: bytes) -> str:
        return object_path(ObjectId.of(one))

    artifact, table, manifest = place(b"fx: 3.0\n"), place(NEW.table.render()), place(NEW.signed)
    for data, name in ((b"fx: 3.0\n", artifact), (NEW.table.render(), table), (NEW.signed, manifest)):
        renamed = at("rename", name)
        # 1 and 2: written, sealed and synced in tmp/, after that 3: renamed
        staged = [n for n, (o, p) in enumerate(seen[:renamed]) if o == "write" and p.startswith("tmp/")]
        synced = [n for n, (o, p) in enumerate(seen[:renamed]) if o == "sync" and p.startswith("tmp/")]
        assert staged
        assert synced[-1] > staged[-1], name
        # 4: its directory is synced, then 5: the index is committed
        assert renamed < at("sync-directory", name[:10])
        assert ("index", "") in seen[renamed:], data
    assert at("rename", artifact) < at("rename", table) < at("rename", manifest)
    # 6: the log, 7: the ref, last of all but the tidying up
    last_index_before_log = max(n for n in range(at("append", "log")) if seen[n][0] == "index")
    assert at("rename", manifest) < last_index_before_log < at("append", "log")
    assert at("append", "log") < at("sync", "log") < at("rename", "missions/") < at("sync-directory", "missions")
    after = {name for name, _ in seen[at("sync-directory", "missions") + 1 :]}
    assert after <= {"remove", "index"}


def test_a_new_shard_directory_is_made_durable_in_its_parent(before: Path, tmp_path: Path) -> None:
    seen = operations(before, tmp_path)
    made = [path for operation, path in seen if operation == "mkdir" and path.startswith("objects/")]
    assert made, "the new objects fall into shards that are there: choose other contents"
    for shard in made:
        where = seen.index(("mkdir", shard))
        assert ("sync-directory", shard) in seen[where:]
        assert ("sync-directory", "objects") in seen[where:]


@pytest.mark.parametrize("share", range(SHARES))
def test_a_crash_at_any_operation_leaves_whole_missions(before: Path, tmp_path: Path, share: int) -> None:
    seen = operations(before, tmp_path)
    assert len(seen) > 40
    # The last of each kind: the same operation under the same top folder.
    kinds = {(operation, path.partition("/")[0]): number for number, (operation, path) in enumerate(seen)}
    stops = range(len(seen)) if DRILL else sorted(kinds.values())
    for stop in stops[share::SHARES]:
        store = tmp_path / str(stop)
        shutil.copytree(before, store)
        disk = PowerCut(stop)
        with pytest.MonkeyPatch.context() as patch, index_watched(disk, patch), pytest.raises(PowerFails):
            publish(store, NEW, disk=disk)
        assert_whole_or_absent(store)
        # The next one finds nothing in its way and nothing left over.
        publish(store, NEW)
        verdict = check(store, NORTH.id)
        assert verdict.mission is not None
        assert verdict.mission.manifest_id == NEW.manifest_id
        assert list((store / "tmp").iterdir()) == []
        assert not audit(store).errors
        shutil.rmtree(store)


@pytest.mark.parametrize("share", range(SHARES))
def test_an_error_at_any_system_call_is_typed_and_publishes_nothing_by_halves(
    before: Path, tmp_path: Path, share: int
) -> None:
    """Every call fails once, with the errors taking turns."""
    stop, done = share, False
    while not done:
        store = tmp_path / str(stop)
        shutil.copytree(before, store)
        number = ERRORS[(stop // SHARES + share) % len(ERRORS)]
        failing = Failing(stop, number)
        raised: FlightbagError | None = None
        try:
            with pytest.MonkeyPatch.context() as patch, failing.installed(patch):
                publish(store, NEW)
        except FlightbagError as error:
            raised = error
        if raised is None:
            # Only the tidying up may fail unnoticed: the next run does it.
            assert not failing.failed or failing.failed.startswith(("unlink", "rmdir")), failing.failed
        else:
            assert isinstance(raised, Unavailable), failing.failed
            assert raised.errno == number, failing.failed
        assert_whole_or_absent(store)
        publish(store, NEW)
        assert list((store / "tmp").iterdir()) == [], failing.failed
        done = not failing.failed
        shutil.rmtree(store)
        stop += SHARES
    assert stop > 40


def cut_everywhere(before: Path, folder: Path, deaf: tuple[str, ...] = (), *, at_once: bool = False) -> list[str]:
    """Publishes NEW on a `Medium` and looks at what a power cut before each operation leaves; says what is wrong
    first."""
    store = folder / "store"
    shutil.copytree(before, store)
    wrong: list[str] = []

    def look(medium: Medium) -> None:
        for names in ("durable", "all"):
            left = medium.leave(folder / "left", names=names)
            try:
                assert_whole_or_absent(left)
            except AssertionError as error:
                wrong.append(f"{names} names, before {medium.operations[-1]}: {str(error)[:200]}")
                raise PowerFails from None
            shutil.rmtree(left)

    medium = Medium(store, look, deaf, at_once=at_once)
    try:
        publish(store, NEW, disk=medium)
        look(medium)
    except PowerFails:
        return wrong
    # Published means durable: a cut right after the end leaves the new mission.
    left = medium.leave(folder / "left", names="durable")
    mission = check(left, NORTH.id).mission
    if mission is None or mission.manifest_id != NEW.manifest_id:
        wrong.append("published, but not durable")
    return wrong


@pytest.mark.parametrize("at_once", [False, True])
def test_a_power_cut_at_any_operation_leaves_whole_missions(before: Path, tmp_path: Path, at_once: bool) -> None:
    """Unlike a crash, it takes back whatever was not synced: names, or contents, or both."""
    assert cut_everywhere(before, tmp_path, at_once=at_once) == []


@pytest.mark.parametrize("deaf", ["sync", "sync-directory", "syncfs"])
def test_the_medium_notices_a_barrier_that_is_left_out(before: Path, tmp_path: Path, deaf: str) -> None:
    assert cut_everywhere(before, tmp_path, (deaf,), at_once=deaf == "syncfs") != []


def test_objects_of_a_killed_run_are_made_durable_before_they_are_relied_on(tmp_path: Path) -> None:
    """Killed between rename and barrier, a run leaves names that are there but may not survive a power cut."""
    store = make_store(tmp_path / "store", SOUTH)
    folders_before = {path.name for path in (store / "objects").iterdir()}

    class KilledBeforeStep4(Watched):
        def before(self, operation: str, path: str) -> None:
            if operation == "sync-directory" and "/objects" in path:
                raise PowerFails

    with pytest.raises(PowerFails):
        publish(store, NORTH, disk=KilledBeforeStep4())
    medium = Medium(store, lambda _: None)
    # The names that the killed run made are on no medium yet.
    medium.forget(*(path.name for path in (store / "objects").iterdir() if path.name not in folders_before))
    publish(store, NORTH, disk=medium)
    left = medium.leave(tmp_path / "left", names="durable")
    assert check(left, NORTH.id).go, check(left, NORTH.id).findings


def test_objects_that_a_live_run_has_renamed_are_made_durable_before_they_are_relied_on(tmp_path: Path) -> None:
    """Two builds share an artifact: the second may not lean on names that the first has not synced yet."""
    store = make_store(tmp_path / "store", SOUTH)

    class Paused(Watched):
        def before(self, operation: str, path: str) -> None:
            if operation == "sync-directory" and "/objects" in path:
                medium = Medium(store, lambda _: None)
                medium.forget(NORTH.entry(CAMERA).id.hex()[:2])
                second.append(medium)
                raise PowerFails  # what the first does later changes nothing for the second

    second: list[Medium] = []
    with Repository.open(store, Paused()) as repository, writing(repository) as writer, writer.inserting() as batch:
        batch.add_bytes(NORTH.contents[CAMERA])
        with pytest.raises(PowerFails):
            batch.commit()
        publish_beside(store, second[0])
    left = second[0].leave(tmp_path / "left", names="durable")
    assert check(left, NORTH.id).go, check(left, NORTH.id).findings


def publish_beside(store: Path, disk: Disk) -> None:
    """Publishes NORTH through objects and refs alone: one process has one environment of the index."""
    with Repository.open(store, disk) as repository:
        with inserting(repository.media, disk, None) as batch:
            for data in (*NORTH.contents.values(), NORTH.table.render(), NORTH.signed):
                batch.add_bytes(data)
            batch.commit()
        repository.move_ref(NORTH.id, NORTH.manifest_id, "published", NORTH.manifest.issue.sequence)


@pytest.mark.parametrize("share", range(2))
def test_init_interrupted_at_any_operation_is_run_again(tmp_path: Path, share: int) -> None:
    disk = Recorded()
    Repository.init(tmp_path / "counted", disk).close()
    assert len(disk.operations) > 8
    for stop in range(share, len(disk.operations), 2):
        store = tmp_path / str(stop)
        with pytest.raises(PowerFails):
            Repository.init(store, PowerCut(stop))
        if not (store / "flightbag.toml").exists():
            Repository.init(store).close()
        with Repository.open(store) as repository:
            rotate(repository, root_draft(ROOT_FILE), now=NOW)
        publish(store, NORTH)
        assert check(store, NORTH.id).go
        assert not audit(store).findings


def test_a_mission_that_cannot_fly_is_refused_before_anything_is_written(before: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(before, store)
    publish(store)  # the index is made, the locks are there
    kept = ("index", "lock", "tmp")
    seen = listing(store, but=kept)
    stranger = flight(NORTH.contents, by=("stranger",))
    for bad in (stranger, flight(NORTH.contents, mission=SOUTH.manifest.mission)):
        with Repository.open(store) as repository, writing(repository) as writer, pytest.raises(FlightbagError):
            writer.publish(NORTH.id, bad.signed, bad.table.render())
    assert listing(store, but=kept) == seen
