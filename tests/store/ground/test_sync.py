"""Sync: what is missing, hashed as it is copied, refs last; two truths are a conflict; the source is not touched."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from store.disk import log
from store.disk.durable import Disk
from store.disk.media import Media
from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NotFound, Unavailable
from store.format.ids import ObjectId
from store.ground.gc import collect
from store.ground.repository import Repository
from store.ground.sync import SyncPlan, apply_sync, apply_syncs, plan_sync
from store.ground.trust_chain import rotate
from store.ground.writer import writing
from store.trust.draft import RootDraft, with_revoked
from store.trust.root import TrustRoot
from tests.faults.disks import Medium, Orderly, PowerCut, PowerFails, Recorded, bad_sectors
from tests.support.missions import (
    FACTS,
    ISSUE,
    NOW,
    ROOT,
    Flight,
    build_key,
    flight,
    key,
    next_root,
    role,
    sign_manifest,
    sign_root,
)
from tests.support.stores import (
    CAMERA,
    ENGINE,
    NORTH,
    ROOT_FILE,
    SHARD,
    SOUTH,
    audit,
    check,
    file_of,
    flip,
    later,
    listing,
    make_store,
    overwrite,
    publish,
)

NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user whom modes bind, where this is root."""
    if os.geteuid() != 0:
        yield
        return
    import filelock  # noqa: F401 - imported at use, from where nobody may not read

    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def replace_all(one: Flight) -> Flight:
    """The mission published anew with nothing of what it was."""
    contents = {name: data + b"new" for name, data in one.contents.items()}
    issue = replace(one.manifest.issue, sequence=one.manifest.issue.sequence + 1)
    return flight(contents, mission=one.manifest.mission, issue=issue)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("made") / "source")


@pytest.fixture
def source(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "source")
    return tmp_path / "source"


def plan(source: Path, target: Path, *missions: str) -> SyncPlan:
    with Repository.open(source) as here:
        if not (target / "flightbag.toml").exists():
            return plan_sync(here, None, missions)
        with Repository.open(target) as there:
            return plan_sync(here, there, missions)


def sync(source: Path, target: Path, *missions: str, disk: Disk | None = None) -> SyncPlan:
    made = plan(source, target, *missions)
    with Repository.open(source) as here:
        apply_sync(made, here, target, disk=disk)
    return made


def instead(path: Path) -> Path:
    """The path, with nothing there any more."""
    path.unlink()
    return path


def refused(*_: object) -> None:
    """In the place of something that must not be called."""
    raise AssertionError


def current(store: Path, mission: str) -> ObjectId | None:
    verdict = check(store, mission)
    return verdict.mission.manifest_id if verdict.mission else None


class TestPlan:
    def test_everything_to_a_target_that_is_not_there(self, source: Path, tmp_path: Path) -> None:
        made = plan(source, tmp_path / "target")
        files = list((source / "objects").glob("*/*"))
        assert (len(made.missing), made.present) == (len(files), 0)
        assert made.bytes == sum(file.stat().st_size for file in files)
        assert [move.mission for move in made.moves] == [NORTH.id, SOUTH.id]
        assert (made.roots, made.unchanged, made.newer) == ((1,), (), ())

    def test_manifests_come_after_what_they_name(self, source: Path, tmp_path: Path) -> None:
        ids = [id_ for id_, _ in plan(source, tmp_path / "target").missing]
        assert set(ids[-2:]) == {NORTH.manifest_id, SOUTH.manifest_id}

    def test_shared_objects_are_copied_once(self, source: Path, tmp_path: Path) -> None:
        ids = [id_ for id_, _ in plan(source, tmp_path / "target").missing]
        assert len(ids) == len(set(ids))
        sync(source, tmp_path / "target", NORTH.id)
        second = plan(source, tmp_path / "target", SOUTH.id)
        assert NORTH.entry(ENGINE).id not in dict(second.missing)
        assert second.present == len({NORTH.entry(name).id for name in (ENGINE, SHARD, "cards/net/net.json")})

    def test_what_did_not_change_costs_no_look_into_a_table(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sync(source, tmp_path / "target")
        monkeypatch.setattr("store.takeoff.verify.read_table", refused)
        made = plan(source, tmp_path / "target")
        assert (made.unchanged, made.missing, made.moves) == ((NORTH.id, SOUTH.id), (), ())
        assert made.present == len(list((source / "objects").glob("*/*")))
        monkeypatch.undo()
        publish(source, later(NORTH))
        monkeypatch.setattr("store.takeoff.verify.read_table", refused)
        with pytest.raises(AssertionError):  # a table that is new is judged
            plan(source, tmp_path / "target")

    def test_a_signer_who_was_revoked_since_is_noticed_though_nothing_changed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = replace(ROOT, mission=role("pilot", "co-pilot"))
        source = make_store(tmp_path / "source", flight(root=root), root=sign_root(root, "root-a"))
        sync(source, tmp_path / "target")
        with Repository.open(source) as repository:
            draft = with_revoked(RootDraft.after(repository.trust_root(), now=NOW), key("pilot").public)
            rotate(repository, draft.with_signature(key("root-a")), now=NOW)
        made = sync(source, tmp_path / "target")
        assert ([mission for mission, _ in made.refused], made.unchanged, made.roots) == ([NORTH.id], (), (2,))

    @pytest.mark.parametrize("table", [b"\x80", b"\x81\x80", b"\x00", b"", b"\x81\x86\x00\x00\x41\x00\x00\x00\x00"])
    def test_a_signed_table_that_names_no_objects_is_refused(self, tmp_path: Path, table: bytes) -> None:
        """Also where both stores have it: whoever signed it, nothing is said of a mission that nobody can look into."""
        id_ = ObjectId.of(table)
        one = replace(NORTH, manifest=replace(NORTH.manifest, table=id_, table_size=max(1, len(table))))
        one = replace(one, signed=sign_manifest(one.manifest))
        for store in ("source", "target"):
            make_store(tmp_path / store)
            for data in (table, one.signed):
                path = file_of(tmp_path / store, ObjectId.of(data))
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
            (tmp_path / store / "missions" / NORTH.id).write_text(f"{one.manifest_id}\n")
        made = plan(tmp_path / "source", tmp_path / "target")
        assert ([mission for mission, _ in made.refused], made.unchanged) == ([NORTH.id], (SOUTH.id,))

    def test_a_plan_writes_nothing(self, source: Path, tmp_path: Path) -> None:
        sync(source, tmp_path / "target", NORTH.id)
        before = listing(tmp_path)
        plan(source, tmp_path / "target")
        plan(source, tmp_path / "nowhere")
        assert listing(tmp_path) == before

    def test_a_listing_may_answer_what_the_target_has(self, source: Path, tmp_path: Path) -> None:
        """For a far target, of which the folder at hand has only the small evidence."""
        target = tmp_path / "target"
        sync(source, target)
        far = {id_: size for id_, size in plan(source, tmp_path / "nowhere").missing if id_ != NORTH.entry(CAMERA).id}
        shutil.rmtree(target / "objects")
        with Repository.open(source) as here, Repository.open(target) as there:
            made = plan_sync(here, there, (), resident=lambda id_, size: far.get(id_) == size)
        # A manifest or a table that cannot be looked at is copied: nobody knows whether it holds.
        seen = {NORTH.manifest_id, NORTH.manifest.table, SOUTH.manifest_id, SOUTH.manifest.table}
        assert dict(made.missing).keys() == {NORTH.entry(CAMERA).id, *seen}

    def test_a_mission_that_is_not_there(self, source: Path, tmp_path: Path) -> None:
        for absent in ("none", "../x"):
            with pytest.raises(NotFound):
                plan(source, tmp_path / "target", absent)


class TestApply:
    def test_the_target_verifies_has_no_index_and_says_what_it_received(self, source: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        sync(source, target)
        assert check(target, NORTH.id).go
        assert check(target, SOUTH.id).go
        assert not audit(target).findings
        assert not (target / "index").exists()
        assert os.listdir(target / "tmp") == []
        with Media(target) as media:
            assert [(e.event, e.facts.get("mission")) for e in log.events(media)] == [
                ("rotated", None),
                ("received", NORTH.id),
                ("received", SOUTH.id),
            ]

    def test_again_it_does_nothing(self, source: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        sync(source, target)
        before = listing(target, but=("lock",))
        again = sync(source, target)
        assert (again.missing, again.moves, again.roots) == ((), (), ())
        assert again.unchanged == (NORTH.id, SOUTH.id)
        assert listing(target, but=("lock",)) == before

    def test_only_what_is_missing_is_read_and_written(self, source: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        sync(source, target)
        new = later(NORTH, own=b"its own")
        publish(source, new)
        disk = Recorded()
        made = sync(source, target, disk=disk)
        assert {id_ for id_, _ in made.missing} == {new.manifest_id, new.manifest.table, ObjectId.of(b"its own")}
        created = [path for name, path in disk.operations if name == "create"]
        assert len([path for path in created if NORTH.id not in path]) == 3
        assert current(target, NORTH.id) == new.manifest_id

    def test_the_order_is_objects_roots_log_refs(self, source: Path, tmp_path: Path) -> None:
        disk = Recorded()
        target = tmp_path / "target"
        sync(source, target, disk=disk)
        names = [(name, path.removeprefix(f"{target}/")) for name, path in disk.operations]
        last_object = max(n for n, (name, path) in enumerate(names) if name == "rename" and path.startswith("objects/"))
        root = names.index(("rename", "trust/1.root.cbor"))
        refs = [n for n, (name, path) in enumerate(names) if name == "rename" and path.startswith("missions/")]
        logs = [n for n, (name, path) in enumerate(names) if (name, path) == ("append", "log")]
        assert last_object < logs[0] < root < logs[1] < refs[0] < logs[2] < refs[1]

    def test_progress_tells_the_bytes(self, source: Path, tmp_path: Path) -> None:
        told: list[int] = []
        with Repository.open(source) as here:
            made = plan_sync(here, None, [])
            apply_sync(made, here, tmp_path / "target", progress=told.append)
        assert sum(told) == made.bytes

    def test_large_objects_in_several_batches(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("store.ground.sync._BATCH_OBJECTS", 2)
        source = make_store(tmp_path / "source", later(NORTH, big=bytes(3 * 2**20 + 1), empty=b""))
        sync(source, tmp_path / "target")
        assert check(tmp_path / "target", NORTH.id).go
        assert not audit(tmp_path / "target").findings

    def test_to_a_folder_that_is_something_else(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "target").mkdir()
        (tmp_path / "target" / "photo.jpg").write_bytes(b"")
        with pytest.raises(Invalid):
            sync(source, tmp_path / "target")
        assert os.listdir(tmp_path / "target") == ["photo.jpg"]


class TestARootThatIsSwappedMeanwhile:
    """The source's file of a root becomes that of another root between the plan and the copy."""

    SECOND = next_root(ROOT, issued_at=NOW, revoked=(key("x").public,))
    THIRD = next_root(SECOND)

    @pytest.mark.parametrize(
        ("root", "brings"),
        [(replace(ROOT, domain="elsewhere"), 2), (next_root(ROOT, issued_at=NOW), 3)],
        ids=["a first root of another domain", "a fork of root 2 that revokes nobody"],
    )
    def test_no_root_of_the_target_is_replaced(self, tmp_path: Path, root: TrustRoot, brings: int) -> None:
        chain = {2: sign_root(self.SECOND, "root-a"), 3: sign_root(self.THIRD, "root-a")}
        source, target = make_store(tmp_path / "source"), make_store(tmp_path / "target")
        for version in range(2, brings + 1):
            (source / f"trust/{version}.root.cbor").write_bytes(chain[version])
        for version in range(2, brings):
            (target / f"trust/{version}.root.cbor").write_bytes(chain[version])
        with Repository.open(source) as a, Repository.open(target) as b:
            plan = plan_sync(a, b, ())
        assert plan.roots == (brings,)
        (source / f"trust/{brings}.root.cbor").write_bytes(sign_root(root, "root-a"))
        before = {path.name: path.read_bytes() for path in (target / "trust").iterdir()}
        with Repository.open(source) as a, pytest.raises(Corrupt) as caught:
            apply_sync(plan, a, target)
        assert caught.value.kind == "bad-trust-chain"
        assert {path.name: path.read_bytes() for path in (target / "trust").iterdir()} == before


class TestTheSource:
    def test_it_is_never_written(self, source: Path, tmp_path: Path) -> None:
        before = listing(source)
        sync(source, tmp_path / "target")
        sync(source, tmp_path / "target")
        assert listing(source) == before

    def test_it_may_be_read_only(self, source: Path) -> None:
        """For a user who really may not write there: root may everywhere."""
        folder = Path(tempfile.mkdtemp())  # the folders of the tests are closed to other users
        try:
            folder.chmod(0o755)
            shutil.copytree(source, folder / "source")
            (folder / "out").mkdir()
            (folder / "out").chmod(0o777)
            for path in (folder / "source").rglob("*"):
                path.chmod(0o555 if path.is_dir() else 0o444)
            (folder / "source").chmod(0o555)
            before = listing(folder / "source")
            with as_nobody():
                with pytest.raises(PermissionError):
                    (folder / "source" / "written").touch()
                sync(folder / "source", folder / "out" / "target")
            assert check(folder / "out" / "target", NORTH.id).go
            assert listing(folder / "source") == before
        finally:
            for path in (folder, *folder.rglob("*")):
                if path.is_dir():
                    path.chmod(0o755)
            shutil.rmtree(folder)

    @pytest.mark.parametrize("damage", ["bit-flip", "truncated", "grown"])
    def test_a_bad_object_is_refused_and_no_ref_moves(self, source: Path, tmp_path: Path, damage: str) -> None:
        path = file_of(source, NORTH.entry(ENGINE).id)
        if damage == "bit-flip":
            flip(path, 20)
        else:
            overwrite(path, lambda data: data[:-1] if damage == "truncated" else data + bytes(2**21))
        target = tmp_path / "target"
        with pytest.raises(Corrupt) as caught:
            sync(source, target)
        assert caught.value.fields["object"] == NORTH.entry(ENGINE).id
        assert os.listdir(target / "missions") == []
        assert not file_of(target, NORTH.entry(ENGINE).id).exists()
        shutil.copyfile(file_of(make_store(tmp_path / "whole"), NORTH.entry(ENGINE).id), tmp_path / "good")
        overwrite(path, lambda _: (tmp_path / "good").read_bytes())
        sync(source, target)
        assert check(target, NORTH.id).go

    @pytest.mark.parametrize("damage", ["missing object", "bad manifest", "torn ref"])
    def test_a_mission_that_does_not_hold_is_not_begun(self, source: Path, tmp_path: Path, damage: str) -> None:
        if damage == "missing object":
            file_of(source, NORTH.entry(ENGINE).id).unlink()
        elif damage == "bad manifest":
            flip(file_of(source, NORTH.manifest_id), 30)
        else:
            overwrite(source / "missions" / NORTH.id, lambda data: data[:30])
        with pytest.raises((Corrupt, NotFound)):
            sync(source, tmp_path / "target", NORTH.id)
        assert not list((tmp_path / "target").glob("missions/*"))

    @pytest.mark.parametrize("damage", ["bad manifest", "torn ref", "revoked"])
    def test_of_all_missions_the_others_and_the_roots_travel(self, tmp_path: Path, damage: str) -> None:
        """Above all the root that revokes a signer: it must not wait until every mission is built again."""
        root = replace(ROOT, mission=role("pilot", "co-pilot"))
        signed = sign_root(root, "root-a")
        mine, theirs = flight(root=root), flight(root=root, by=("co-pilot",), mission=replace(FACTS, id="south-ridge"))
        source = make_store(tmp_path / "both", mine, theirs, root=signed)
        if damage == "bad manifest":
            flip(file_of(source, mine.manifest_id), 30)
        elif damage == "torn ref":
            overwrite(source / "missions" / mine.id, lambda data: data[:30])
        with Repository.open(source) as repository:
            draft = RootDraft.after(repository.trust_root(), now=NOW)
            if damage == "revoked":
                draft = with_revoked(draft, key("pilot").public)
            rotate(repository, draft.with_signature(key("root-a")), now=NOW)
        plan = sync(source, tmp_path / "target")
        assert [mission for mission, _ in plan.refused] == [mine.id]
        assert [move.mission for move in plan.moves] == [theirs.id]
        with Repository.open(tmp_path / "target") as target:
            assert target.trust_root().root.version == 2
            assert target.missions() == [theirs.id]

    def test_a_root_that_took_effect_meanwhile_stays(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            make_store(tmp_path / name)
        with Repository.open(tmp_path / "a") as a, Repository.open(tmp_path / "b") as b:
            begun = RootDraft.after(a.trust_root(), now=NOW)
            rotate(a, begun.with_signature(key("root-a")), now=NOW)
            plan = plan_sync(a, b, ())
            other = with_revoked(begun, key("x").public)
            rotate(b, other.with_signature(key("root-a")), now=NOW)
            with pytest.raises(Conflict):
                apply_sync(plan, a, tmp_path / "b")
            assert b.trust_root().root.revoked == (key("x").public,)


class TestInterrupted:
    @pytest.mark.parametrize("share", range(2))
    def test_at_any_operation_it_is_resumed(self, source: Path, tmp_path: Path, share: int) -> None:
        counted = Recorded()
        sync(source, tmp_path / "counted", NORTH.id, disk=counted)
        assert len(counted.operations) > 60
        for stop in range(share, len(counted.operations), 2):
            target = tmp_path / f"target-{stop}"
            with pytest.raises(PowerFails):
                sync(source, target, NORTH.id, disk=PowerCut(stop))
            if (target / "missions" / NORTH.id).exists():
                assert check(target, NORTH.id).go
            sync(source, target, NORTH.id)
            assert check(target, NORTH.id).go
            assert os.listdir(target / "tmp") == []
            shutil.rmtree(target)

    def test_finished_batches_are_kept(self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("store.ground.sync._BATCH_OBJECTS", 2)
        counted = Recorded()
        sync(source, tmp_path / "counted", disk=counted)
        target = tmp_path / "target"
        with pytest.raises(PowerFails):
            sync(source, target, disk=PowerCut(len(counted.operations) // 2))
        assert plan(source, target).present > 2

    @pytest.mark.parametrize("stop", ["sync-directory", "rename"])
    def test_what_an_interrupted_sync_left_is_durable_after_the_next(
        self, source: Path, tmp_path: Path, stop: str
    ) -> None:
        """The first one is stopped, or fails, between its renames and their barrier; a power cut comes after the
        second."""

        class Broken(Recorded):
            def before(self, operation: str, path: str) -> None:
                if operation == "sync-directory" and "/objects" in path:
                    raise PowerFails if stop == "rename" else Unavailable("bad stick")

        target = tmp_path / "target"
        with pytest.raises((PowerFails, Unavailable)):
            sync(source, target, disk=Broken())
        medium = Medium(target, lambda _: None)
        medium.forget(*os.listdir(target / "objects"))
        sync(source, target, disk=medium)
        left = medium.leave(tmp_path / "left", names="durable")
        assert check(left, NORTH.id).go, check(left, NORTH.id).findings

    @pytest.mark.parametrize("folder", ["missions", "trust"])
    @pytest.mark.parametrize("stop", ["killed", "failed"])
    def test_a_ref_or_root_whose_folder_was_never_synced_is_durable_after_the_next(
        self, source: Path, tmp_path: Path, folder: str, stop: str
    ) -> None:
        """The next sync finds it in its place, and has nothing to move."""
        target = tmp_path / "target"
        renamed: list[str] = []

        class Broken(Recorded):
            def before(self, operation: str, path: str) -> None:
                renamed.extend([path] if operation == "rename" and f"/{folder}/" in path else [])
                if operation == "sync-directory" and path.endswith(f"/{folder}") and renamed:
                    raise PowerFails if stop == "killed" else Unavailable("bad stick")

        with pytest.raises((PowerFails, Unavailable)):
            sync(source, target, NORTH.id, disk=Broken())
        assert renamed
        sync(source, target, NORTH.id, disk=(after := Recorded()))
        assert ("sync-directory", f"{target}/{folder}") in after.operations
        assert check(target, NORTH.id).go
        assert os.listdir(target / "tmp") == []


class Failing(Orderly):
    """Fails, or does `instead`, from operation number `at` on in one folder; `operations` counts those there."""

    def __init__(self, folder: Path, at: int = sys.maxsize, instead: Callable[[], object] | None = None) -> None:
        self.operations = 0
        self._folder, self._at, self._instead = folder, at, instead

    def before(self, path: str) -> None:
        if Path(path).is_relative_to(self._folder):
            self.operations += 1
            if self.operations > self._at:
                if self._instead is None:
                    raise Unavailable("the stick is gone", kind="unwritable")
                self._instead()

    def create(self, path: str, mode: int = 0o644) -> int:
        self.before(path)
        return super().create(path, mode)

    def write(self, fd: int, data: bytes | bytearray | memoryview, path: str) -> None:
        self.before(path)
        super().write(fd, data, path)

    def rename(self, source: str, target: str) -> None:
        self.before(target)
        super().rename(source, target)

    def sync_directory(self, path: str) -> None:
        self.before(path)
        super().sync_directory(path)


class TestSeveral:
    def sync(self, source: Path, targets: list[Path], disk: Disk | None = None) -> dict[str, FlightbagError]:
        plans = {str(target): plan(source, target) for target in targets}
        with Repository.open(source) as here:
            return apply_syncs(plans, here, disk=disk)

    def test_four_cost_one_reading(self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        targets = [tmp_path / f"stick-{number}" for number in range(4)]
        sync(source, targets[1], SOUTH.id)
        read: list[int] = []
        real = Media.chunks

        def counted(media: Media, name: str, size: int) -> Iterator[bytes]:
            assert media.path == str(source)
            for chunk in real(media, name, size):
                read.append(len(chunk))
                yield chunk

        monkeypatch.setattr(Media, "chunks", counted)
        assert not self.sync(source, targets)
        assert sum(read) == sum(file.stat().st_size for file in (source / "objects").glob("*/*"))
        for target in targets:
            assert check(target, NORTH.id).go
            assert check(target, SOUTH.id).go
            assert not audit(target).findings

    def test_one_that_fails_at_any_operation_stops_no_other_and_is_resumed(self, source: Path, tmp_path: Path) -> None:
        self.sync(source, [tmp_path / "a", tmp_path / "b"], counted := Failing(tmp_path / "a"))
        assert counted.operations > 60
        for at in range(0, counted.operations, 7):
            targets = [tmp_path / f"{at}" / name for name in "ab"]
            targets[0].parent.mkdir()
            errors = self.sync(source, targets, Failing(targets[0], at))
            assert list(errors) == [str(targets[0])]
            assert check(targets[1], NORTH.id).go
            assert not self.sync(source, targets)
            assert check(targets[0], NORTH.id).go
            assert os.listdir(targets[0] / "tmp") == []

    @pytest.mark.parametrize("at", [1, 12, 30, 60])
    @pytest.mark.parametrize("how", ["pulled", "full", "read-only"])
    def test_a_cable_that_is_pulled_and_a_disk_that_is_full(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, at: int
    ) -> None:
        """The real error of the system, wherever it meets the sync; then the same sync again."""
        bad, good = tmp_path / "bad", tmp_path / "good"

        def happens() -> None:
            if how == "pulled":
                shutil.rmtree(bad, ignore_errors=True)
            else:
                number = errno.ENOSPC if how == "full" else errno.EROFS
                raise Unavailable(f"{bad} cannot be written", kind="unwritable", path=str(bad), errno=number)

        errors = self.sync(source, [bad, good], Failing(bad, at, happens))
        assert set(errors) == {str(bad)}
        assert isinstance(errors[str(bad)], Unavailable)
        for mission in (NORTH.id, SOUTH.id):
            assert check(good, mission).go
        assert not self.sync(source, [bad, good])
        for mission in (NORTH.id, SOUTH.id):
            assert check(bad, mission).go
        assert not audit(bad).errors

    def test_one_that_hangs_keeps_no_other_waiting(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It hangs until the other is whole, and then goes on."""
        monkeypatch.setattr("store.ground.fanout._PATIENCE", 0.1)
        monkeypatch.setattr("store.ground.fanout._QUEUE_ITEMS", 3)
        source = make_store(tmp_path / "source", *(later(NORTH, 0, **{f"f{n}": bytes([n]) for n in range(12)}),))
        slow, fast = tmp_path / "slow", tmp_path / "fast"

        def wait_for_the_other() -> None:
            for _ in range(600):
                if (fast / "missions" / NORTH.id).exists():
                    return
                time.sleep(0.1)
            raise AssertionError

        disk = Failing(slow, 14, wait_for_the_other)
        assert not self.sync(source, [slow, fast], disk)
        assert disk.operations > 14
        for target in (slow, fast):
            assert check(target, NORTH.id).go
            assert not audit(target).findings

    def test_what_is_no_error_of_a_store_is_raised_when_the_others_are_whole(
        self, source: Path, tmp_path: Path
    ) -> None:
        def defect() -> None:
            raise ZeroDivisionError

        targets = [tmp_path / "a", tmp_path / "b"]
        with pytest.raises(ZeroDivisionError):
            self.sync(source, targets, Failing(targets[0], 9, defect))
        assert check(targets[1], NORTH.id).go

    def test_an_interrupt_ends_all_of_them_and_they_are_resumed(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(_: object) -> None:
            raise KeyboardInterrupt

        targets = [tmp_path / "a", tmp_path / "b"]
        with monkeypatch.context() as patch:
            patch.setattr("store.ground.fanout.Fanout.read", interrupted)
            patch.setattr("store.ground.sync._GRACE", 60)
            with pytest.raises(KeyboardInterrupt):
                self.sync(source, targets)
        assert [os.listdir(target / "missions") for target in targets] == [[], []]
        assert [os.listdir(target / "tmp") for target in targets] == [[], []]
        assert not self.sync(source, targets)
        assert check(targets[0], NORTH.id).go


class TestTheTarget:
    def test_of_another_domain_is_a_conflict(self, source: Path, tmp_path: Path) -> None:
        other = replace(ROOT, domain="another fleet")
        with Repository.init(tmp_path / "target") as repository:
            repository.replace("trust/1.root.cbor", sign_root(other, "root-a"))
        before = listing(tmp_path / "target")
        with pytest.raises(Conflict):
            plan(source, tmp_path / "target")
        assert listing(tmp_path / "target") == before

    def test_a_newer_mission_stays(self, source: Path, tmp_path: Path) -> None:
        new = later(NORTH, own=b"newer")
        target = make_store(tmp_path / "target", new)
        made = sync(source, target)
        assert made.newer == (NORTH.id,)
        assert [move.mission for move in made.moves] == [SOUTH.id]
        assert current(target, NORTH.id) == new.manifest_id
        assert current(target, SOUTH.id) == SOUTH.manifest_id

    @pytest.mark.parametrize("newer_came", [True, False], ids=["a newer one came", "the same came"])
    def test_who_was_faster_since_the_plan_was_made_is_not_set_back(
        self, source: Path, tmp_path: Path, newer_came: bool
    ) -> None:
        target = make_store(tmp_path / "target", SOUTH)
        newest = later(NORTH, 5)
        with Repository.open(source) as here:
            with Repository.open(target) as there:
                late = plan_sync(here, there, ())
            publish(target, newest if newer_came else NORTH)
            log_before = (target / "log").read_bytes()
            apply_sync(late, here, target)
        assert (target / "log").read_bytes() == log_before
        mission = check(target, NORTH.id).mission
        assert mission is not None
        assert mission.manifest_id == (newest if newer_came else NORTH).manifest_id

    def test_what_was_collected_at_the_target_since_the_plan_was_made_is_noticed(
        self, source: Path, tmp_path: Path
    ) -> None:
        """No ref is moved to a mission that is not there."""
        target = tmp_path / "target"
        shutil.copytree(source, target)
        publish(source, later(NORTH, 5))
        publish(target, *(replace_all(one) for one in (NORTH, SOUTH)))
        with Repository.open(source) as here:
            with Repository.open(target) as there:
                late = plan_sync(here, there, [NORTH.id])
                assert late.present
                collect(there, now=time.time() + 90 * 86400, keep_last=1)
            with pytest.raises(Unavailable):
                apply_sync(late, here, target)
        assert all(check(target, mission).go for mission in (NORTH.id, SOUTH.id))

    def test_another_mission_of_the_same_sequence_is_a_conflict(self, source: Path, tmp_path: Path) -> None:
        target = make_store(tmp_path / "target", later(NORTH, 0, own=b"the other station's"))
        with pytest.raises(Conflict):
            plan(source, target)

    def test_the_same_mission_with_another_signature_moves(self, tmp_path: Path) -> None:
        root = replace(ROOT, mission=role("pilot", "second"))
        file = sign_root(root, "root-a")
        one = flight(root=root)
        two = replace(one, signed=sign_manifest(one.manifest, root, ("pilot", "second")))
        source = make_store(tmp_path / "source", two, root=file)
        target = make_store(tmp_path / "target", one, root=file)
        made = sync(source, target)
        assert [move.manifest for move in made.moves] == [two.manifest_id]
        assert (target / "missions" / NORTH.id).read_text() == f"{two.manifest_id}\n"

    @pytest.mark.parametrize("text", [b"", b"abc", b"0" * 64, b"0" * 64 + b"\n", b"x" * 200])
    def test_a_torn_ref_is_mended(self, source: Path, tmp_path: Path, text: bytes) -> None:
        sync(source, tmp_path / "target")
        (tmp_path / "target" / "missions" / NORTH.id).write_bytes(text)
        made = sync(source, tmp_path / "target")
        assert [move.mission for move in made.moves] == [NORTH.id]
        assert check(tmp_path / "target", NORTH.id).go

    DAMAGES: dict[str, Callable[[Path], object]] = {  # noqa: RUF012 - a table, never written to
        "missing": Path.unlink,
        "truncated": lambda path: overwrite(path, lambda data: data[:-1]),
        "oversized": lambda path: overwrite(path, lambda data: data + b"x"),
        "empty": lambda path: overwrite(path, lambda _: b""),
        "link": lambda path: instead(path).symlink_to("/nowhere"),
        "folder": lambda path: instead(path).mkdir(),
    }

    @pytest.mark.parametrize("damage", DAMAGES)
    @pytest.mark.parametrize("what", ["artifact", "table", "manifest"])
    def test_damage_of_another_size_is_mended(self, source: Path, tmp_path: Path, damage: str, what: str) -> None:
        target = tmp_path / "target"
        sync(source, target)
        id_ = {"artifact": NORTH.entry(CAMERA).id, "table": NORTH.manifest.table, "manifest": NORTH.manifest_id}[what]
        self.DAMAGES[damage](file_of(target, id_))
        assert not check(target, NORTH.id).go
        sync(source, target)
        assert check(target, NORTH.id).go
        assert not audit(target).errors

    @pytest.mark.parametrize("what", ["manifest", "table"])
    def test_a_manifest_or_table_that_does_not_hold_is_mended_whatever_its_size(
        self, source: Path, tmp_path: Path, what: str
    ) -> None:
        """Else it would say that it updated a mission that stays grounded."""
        target = tmp_path / "target"
        sync(source, target)
        flip(file_of(target, NORTH.manifest_id if what == "manifest" else NORTH.manifest.table), 30)
        sync(source, target)
        assert check(target, NORTH.id).go

    @pytest.mark.parametrize("inside", ["", "sub", "objects/00"])
    def test_a_store_is_not_copied_into_itself(self, source: Path, inside: str) -> None:
        before = listing(source)
        with Repository.open(source) as here, pytest.raises(Invalid):
            apply_sync(plan_sync(here, None, ()), here, source / inside)
        assert listing(source) == before

    def test_a_damaged_root_file_is_mended(self, source: Path, tmp_path: Path) -> None:
        sync(source, tmp_path / "target")
        (tmp_path / "target" / "trust" / "1.root.cbor").write_bytes(ROOT_FILE[:100])
        assert sync(source, tmp_path / "target").roots == (1,)
        assert not audit(tmp_path / "target").findings

    def test_unreadable_is_not_taken_for_absent(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else a bad sector would let an older mission take a newer one's place."""
        new = later(NORTH, own=b"newer")
        target = make_store(tmp_path / "target", new)
        bad_sectors(monkeypatch, file_of(target, new.manifest_id).stat().st_ino)
        with pytest.raises(Unavailable):
            plan(source, target)

    @pytest.mark.parametrize("free", [0, 10, None])
    def test_too_little_room_is_said_before_anything_is_copied(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int | None
    ) -> None:
        blocks = SimpleNamespace(f_frsize=4096, f_bavail=free, f_blocks=1000)
        if free is None:  # the file system does not say
            blocks = SimpleNamespace(f_frsize=0, f_bavail=0, f_blocks=0)
        monkeypatch.setattr(os, "statvfs", lambda _: blocks)
        if free is None:
            sync(source, tmp_path / "target")
            assert check(tmp_path / "target", NORTH.id).go
            return
        with pytest.raises(Unavailable) as caught:
            sync(source, tmp_path / "target")
        assert caught.value.fields["kind"] == "no-space"
        assert not (tmp_path / "target").exists()


def add_root(store: Path, root: TrustRoot, *names: str) -> None:
    with Repository.open(store) as repository:
        repository.replace(f"trust/{root.version}.root.cbor", sign_root(root, *names))


class TestTrustRoots:
    def test_a_newer_chain_travels_before_the_missions_that_need_it(self, source: Path, tmp_path: Path) -> None:
        sync(source, tmp_path / "target")
        second = next_root(ROOT, mission=role("pilot", "second"))
        add_root(source, second, "root-a")
        new = flight(root=second, by=("second",), issue=replace(ISSUE, sequence=ISSUE.sequence + 1, min_root_version=2))
        publish(source, new)
        made = sync(source, tmp_path / "target")
        assert made.roots == (2,)
        assert current(tmp_path / "target", NORTH.id) == new.manifest_id

    def test_a_forked_chain_is_a_conflict(self, source: Path, tmp_path: Path) -> None:
        sync(source, tmp_path / "target")
        add_root(source, next_root(ROOT, epoch=2), "root-a")
        add_root(tmp_path / "target", next_root(ROOT, epoch=3), "root-a")
        with pytest.raises(Conflict):
            plan(source, tmp_path / "target")

    @pytest.mark.parametrize("change", ["revoked", "epoch"])
    def test_what_the_targets_newer_root_does_not_accept_is_a_conflict(
        self, source: Path, tmp_path: Path, change: str
    ) -> None:
        """Else a mission that verifies under an old root would replace one that flies."""
        target = tmp_path / "target"
        sync(source, target)
        if change == "revoked":
            second = next_root(ROOT, mission=role("second"), revoked=role("pilot").keys)
        else:
            second = next_root(ROOT, epoch=2)
        add_root(target, second, "root-a")
        publish(source, later(NORTH))
        with pytest.raises(Conflict):
            plan(source, target, NORTH.id)
        assert current(source, NORTH.id) == later(NORTH).manifest_id

    def test_a_newer_root_at_the_target_that_accepts_changes_nothing(self, source: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        sync(source, target)
        add_root(target, next_root(ROOT, mission=role("pilot", "second")), "root-a")
        new = later(NORTH)
        publish(source, new)
        assert sync(source, target).roots == ()
        assert current(target, NORTH.id) == new.manifest_id


def test_sync_learns_no_build_key_at_the_target(source: Path, tmp_path: Path) -> None:
    """It has no index; the first build there learns them from the manifests that verify."""
    sync(source, tmp_path / "target")
    with Repository.open(tmp_path / "target") as repository, writing(repository) as writer:
        record = writer.index.record(build_key(ENGINE))
        assert record is not None
        assert record.ids == (NORTH.entry(ENGINE).id,)


def test_a_ref_to_another_mission_is_not_passed_on(source: Path, tmp_path: Path) -> None:
    sync(source, tmp_path / "target")
    (source / "missions" / SOUTH.id).write_text(f"{later(NORTH).manifest_id}\n")
    publish(source, later(NORTH))
    with pytest.raises(Corrupt):
        sync(source, tmp_path / "target", SOUTH.id)
    assert check(tmp_path / "target", SOUTH.id).go
