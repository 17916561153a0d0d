"""Repair: every damage that an audit names is mended from a replica, and nothing is made worse."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from store.audit.fsck import Audit, fsck
from store.audit.repair import Repaired, apply_repair, repair
from store.audit.repair_plan import RepairPlan, plan_repair
from store.audit.scope import FULL, QUICK, Scope
from store.disk import log
from store.disk.durable import Disk
from store.disk.index import Row
from store.disk.locks import Locked
from store.disk.media import Media, object_path
from store.errors import Unavailable
from store.format.ids import ObjectId
from store.ground.gc import collect, pin, plan_gc
from store.ground.history import stats
from store.ground.repository import Repository
from store.ground.trust_chain import rotate
from store.ground.writer import writing
from store.trust import draft as drafts
from store.trust.draft import RootDraft, with_revoked
from tests.faults.damages import BOTH, CASES, OTHER, OWN, SHARED, everything_at_once, misname, plant
from tests.faults.disks import Failing, PowerCut, PowerFails, Recorded, bad_sectors, index_watched
from tests.support.missions import NOW, ROOT, Flight, flight, key, next_root, sign_root
from tests.support.stores import (
    CAMERA,
    ENGINE,
    NORTH,
    SHARD,
    SOUTH,
    audit,
    check,
    copy_of,
    file_of,
    flip,
    later,
    listing,
    make_store,
    overwrite,
    publish,
)


def mend(store: Path, *replicas: Path, scope: Scope = FULL, disk: Disk | None = None) -> Repaired:
    opened = [Repository.open(replica) for replica in replicas]
    try:
        return repair(store, scope, opened, audited=fsck, show=lambda _: None, disk=disk)
    finally:
        for one in opened:
            one.close()


def plan_of(store: Path, found: Audit, *replicas: Path) -> RepairPlan:
    opened = [Repository.open(replica) for replica in replicas]
    with Repository.open(store) as repository:
        plan = plan_repair(repository, found, opened)
    for one in opened:
        one.close()
    return plan


@pytest.mark.parametrize("name", CASES)
def test_every_damage_is_mended_from_a_replica(
    store: Path, first_store: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    case = CASES[name]
    case.damage(store)
    replica = listing(first_store)
    before = listing(store)
    case.medium(monkeypatch, store)
    plan = plan_of(store, audit(store), first_store)
    assert listing(store) == before, "a plan writes nothing"
    done = mend(store, first_store)
    assert listing(first_store) == replica, "a replica is read, never written"
    assert bool(plan.unsolved) == (case.hopeless or case.kind == "transient")
    assert done.audit.errors == case.hopeless
    assert not done.audit.inconclusive
    assert done.audit.missions == dict.fromkeys(BOTH, "flyable")
    assert all(check(store, mission).go for mission in BOTH)


def stamps(store: Path, but: set[ObjectId]) -> dict[ObjectId, object]:
    """What a write to the other objects would change."""
    with Media(store) as media:
        found = {id_: status for first in range(256) for id_, status in media.objects(first)}
    return {id_: (s.st_ino, s.st_mtime_ns, s.st_ctime_ns, s.st_size) for id_, s in found.items() if id_ not in but}


def test_every_kind_of_damage_at_once(store: Path, first_store: Path) -> None:
    hurt = everything_at_once(store)
    outside = Path("/etc/passwd").stat()
    healthy = stamps(store, hurt)
    found = audit(store)
    kinds = {finding.kind for finding in found.findings if not finding.information}
    assert {"bad-trust-chain", "bad-log", "stray", "wrong-type", "misnamed"} <= kinds
    assert set(found.missions.values()) == {"grounded"}
    done = mend(store, first_store)
    assert [finding for finding in done.audit.findings if not finding.information] == []
    assert done.audit.missions == dict.fromkeys(BOTH, "flyable")
    assert all(check(store, mission).go for mission in BOTH)
    assert healthy.items() <= stamps(store, hurt).items(), "a healthy object was touched"
    after = Path("/etc/passwd").stat()
    assert (outside.st_mtime_ns, outside.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
    kept = [path for path in (store / "quarantine").rglob("*") if path.is_file() and not path.is_symlink()]
    assert {b"not yours", b"not yours either", b"in the way"} <= {path.read_bytes() for path in kept}
    with Media(store) as media:
        assert log.events(media)[-1].event == "repaired"
    assert mend(store, first_store).steps == (), "a second repair has nothing to do"


def test_without_a_replica_nothing_is_made_worse(store: Path) -> None:
    hurt = everything_at_once(store)
    healthy = stamps(store, hurt)
    bytes_before = {path.read_bytes() for path in store.rglob("*") if path.is_file() and not path.is_symlink()}
    found = mend(store).audit
    assert found.errors
    assert healthy.items() <= stamps(store, hurt).items()
    bytes_after = {path.read_bytes() for path in store.rglob("*") if path.is_file() and not path.is_symlink()}
    lost = bytes_before - bytes_after
    assert all(b"noise" in one or one.startswith((b"{", b"\0")) for one in lost), "only log, locks and index may differ"


def test_replicas_are_asked_in_order_and_not_believed(store: Path, first_store: Path, tmp_path: Path) -> None:
    """The first replica has the damage too, the second only part of what is needed."""
    first, second = copy_of(first_store, tmp_path / "first"), copy_of(first_store, tmp_path / "second")
    flip(file_of(first, SHARED), 7)
    file_of(first, OWN).unlink()
    file_of(second, OTHER).unlink()
    for id_ in (SHARED, OWN, OTHER):
        file_of(store, id_).unlink()
    seen = listing(first), listing(second)
    done = mend(store, first, second)
    assert done.audit.missions == dict.fromkeys(BOTH, "flyable")
    assert (listing(first), listing(second)) == seen


def test_a_replica_that_has_nothing_right_leaves_the_damage(store: Path, first_store: Path, tmp_path: Path) -> None:
    bad = copy_of(first_store, tmp_path / "bad")
    flip(file_of(bad, SHARED))
    flip(file_of(store, SHARED), 9)
    before = file_of(store, SHARED).read_bytes()
    done = mend(store, bad)
    assert [finding.kind for finding in done.audit.findings] == ["bit-flip"]
    assert file_of(store, SHARED).read_bytes() == before, "what cannot be replaced stays"


def test_the_trash_and_the_quarantine_are_sources(store: Path) -> None:
    for id_, folder in ((SHARED, "trash"), (OWN, "quarantine")):
        place = store / folder / "20261123T000000Z"
        place.mkdir(parents=True)
        file_of(store, id_).rename(place / str(id_))
    done = mend(store)
    assert done.audit.missions == dict.fromkeys(BOTH, "flyable")
    assert {step.source for step in done.steps} == {"trash/20261123T000000Z", "quarantine/20261123T000000Z"}


def test_a_torn_ref_gets_the_last_whole_manifest_of_the_log(store: Path) -> None:
    new = later(NORTH, camera2=b"fx: 9.0\n")
    publish(store, new)
    (store / "missions" / NORTH.id).write_bytes(b"")
    mend(store)
    assert check(store, NORTH.id).mission.manifest_id == new.manifest_id  # type: ignore[union-attr]
    file_of(store, ObjectId.of(b"fx: 9.0\n")).unlink()
    (store / "missions" / NORTH.id).write_bytes(b"")
    mend(store)
    assert check(store, NORTH.id).mission.manifest_id == NORTH.manifest_id  # type: ignore[union-attr]


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_a_lost_ref_leads_to_the_newest_manifest_and_not_to_one_of_a_greater_id(store: Path, order: str) -> None:
    def next_of(before: Flight) -> Flight:
        """An issue after it, whose id is above or below the id before."""
        for number in range(100):
            one = later(before, camera2=b"fx: %d\n" % number)
            if (one.manifest_id > before.manifest_id) == (order == "ascending"):
                return one
        raise AssertionError("ids are random")

    second = next_of(NORTH)
    third = next_of(second)
    publish(store, second)
    publish(store, third)
    (store / "missions" / NORTH.id).write_bytes(b"")
    assert not mend(store).audit.errors
    assert (store / "missions" / NORTH.id).read_text() == f"{third.manifest_id}\n"


@pytest.mark.parametrize("name", ["missions", "trust", "objects", "log"])
def test_a_replica_that_cannot_be_read_hides_none_of_the_others(store: Path, tmp_path: Path, name: str) -> None:
    """Something else lies in the place of one of its folders. It is asked first, and another one after it."""
    with Repository.open(store) as repository:
        rotate(repository, RootDraft.after(repository.trust_root(), now=NOW).with_signature(key("root-a")), now=NOW)
    whole = copy_of(store, tmp_path / "whole")
    broken = copy_of(whole, tmp_path / "broken")
    os.rename(broken / name, broken / "elsewhere")
    (broken / name).symlink_to("/nowhere")
    (store / "trust" / "2.root.cbor").unlink()
    (store / "missions" / NORTH.id).write_bytes(b"")
    file_of(store, SHARED).unlink()
    done = mend(store, broken, whole)
    assert not done.audit.errors
    assert done.audit.missions == dict.fromkeys(BOTH, "flyable")


def test_the_first_root_of_the_store_itself_needs_no_witness(tmp_path: Path) -> None:
    """Neither a line of the log nor a mission names it. Root 2 is lost, and comes back from a replica."""
    second = next_root(ROOT)
    with Repository.init(tmp_path / "store") as repository:
        for version, root in enumerate((ROOT, second, next_root(second)), 1):
            repository.replace(f"trust/{version}.root.cbor", sign_root(root, "root-a"))
    replica = copy_of(tmp_path / "store", tmp_path / "replica")
    (tmp_path / "store" / "trust" / "2.root.cbor").unlink()
    assert "bad-trust-chain" in {finding.kind for finding in audit(tmp_path / "store").findings}
    mend(tmp_path / "store", replica)
    assert (tmp_path / "store" / "trust" / "2.root.cbor").read_bytes() == sign_root(second, "root-a")


def test_a_mission_with_holes_is_not_set_back(store: Path) -> None:
    """Its ref is right: to lead it to an older mission would be a decision, not a repair."""
    new = later(NORTH, camera2=b"fx: 9.0\n")
    publish(store, new)
    file_of(store, ObjectId.of(b"fx: 9.0\n")).unlink()
    done = mend(store)
    assert done.audit.missions == {NORTH.id: "grounded", SOUTH.id: "flyable"}
    assert (store / "missions" / NORTH.id).read_text() == f"{new.manifest_id}\n"


def test_a_newer_mission_of_a_replica_takes_the_place_of_a_lost_ref(
    store: Path, first_store: Path, tmp_path: Path
) -> None:
    replica = copy_of(first_store, tmp_path / "replica")
    new = later(NORTH, camera2=b"fx: 9.0\n")
    publish(replica, new)
    (store / "missions" / NORTH.id).write_bytes(b"")
    mend(store, replica)
    assert check(store, NORTH.id).mission.manifest_id == new.manifest_id  # type: ignore[union-attr]
    with Media(store) as media:
        assert [event.facts["manifest"] for event in log.events(media) if event.event == "received"] == [
            str(new.manifest_id)
        ]


def test_a_strangers_mission_at_a_replica_is_not_taken(store: Path, first_store: Path, tmp_path: Path) -> None:
    replica = copy_of(first_store, tmp_path / "replica")
    bad = flight(NORTH.contents, by=("stranger",))
    for data in (bad.signed, bad.table.render()):
        plant(replica, object_path(ObjectId.of(data)), data)
    (replica / "missions" / NORTH.id).write_text(f"{bad.manifest_id}\n")
    (store / "missions" / NORTH.id).write_bytes(b"")
    mend(store, replica)
    assert check(store, NORTH.id).mission.manifest_id == NORTH.manifest_id  # type: ignore[union-attr]


def test_a_root_of_another_domain_is_not_taken(store: Path, tmp_path: Path) -> None:
    (store / "trust" / "1.root.cbor").unlink()
    stranger = tmp_path / "stranger"
    with Repository.init(stranger) as repository:
        repository.replace("trust/1.root.cbor", sign_root(replace(ROOT, salt=bytes(16)), "root-a"))
    done = mend(store, stranger)
    assert set(done.audit.missions.values()) == {"grounded"}
    assert not (store / "trust" / "1.root.cbor").exists()


def test_a_root_that_was_lost_after_a_rotation_comes_back(store: Path, first_store: Path, tmp_path: Path) -> None:
    """Root 2 is lost or damaged: to forget it would forget its revocations, so only a replica mends that."""
    replica = copy_of(first_store, tmp_path / "replica")
    second = sign_root(next_root(ROOT), "root-a")
    for one in (store, replica):
        with Repository.open(one) as repository:
            facts = {"version": 2, "digest": next_root(ROOT).digest.hex()}
            repository.append_log(log.Event(1_795_000_000, "rotated", facts))
            repository.replace("trust/2.root.cbor", second)
    flip(store / "trust" / "2.root.cbor", 40)
    assert mend(store).audit.errors
    assert (store / "trust" / "2.root.cbor").exists()
    assert not mend(store, replica).audit.errors
    assert (store / "trust" / "2.root.cbor").read_bytes() == second


def test_a_planted_root_goes_to_quarantine_where_a_replica_knows_of_none(store: Path, first_store: Path) -> None:
    """The log knows of no rotation. But a log can be cut, and a damaged root may be what revokes a key."""
    plant(store, "trust/2.root.cbor", sign_root(next_root(ROOT), "x"))
    assert mend(store).audit.errors
    assert (store / "trust" / "2.root.cbor").exists()
    assert not mend(store, first_store).audit.errors
    assert [path.name for path in (store / "quarantine").glob("*/*")] == ["trust--2.root.cbor"]


def test_another_first_root_is_replaced_by_that_of_the_log(store: Path, first_store: Path) -> None:
    plant(store, "trust/1.root.cbor", sign_root(replace(ROOT, salt=bytes(16)), "root-a"))
    assert mend(store).audit.errors
    assert not mend(store, first_store).audit.errors
    assert (store / "trust" / "1.root.cbor").read_bytes() == (first_store / "trust" / "1.root.cbor").read_bytes()


def test_a_replica_that_changes_after_the_plan_gives_no_root(store: Path, first_store: Path, tmp_path: Path) -> None:
    replica = copy_of(first_store, tmp_path / "replica")
    (store / "trust" / "1.root.cbor").unlink()
    with Repository.open(store) as repository, Repository.open(replica) as one:
        plan = plan_repair(repository, audit(store), [one])
        assert [step.action for step in plan.steps] == ["root"]
        plant(replica, "trust/1.root.cbor", b"garbage")
        assert apply_repair(plan, repository, [one]) == []
    assert not (store / "trust" / "1.root.cbor").exists()


def test_what_was_published_after_the_plan_stays(store: Path) -> None:
    (store / "missions" / NORTH.id).write_bytes(b"")
    new = later(NORTH, 9)
    with Repository.open(store) as repository:
        plan = plan_repair(repository, audit(store), [])
        publish(store, new)
        assert apply_repair(plan, repository, []) == []
    mission = check(store, NORTH.id).mission
    assert mission is not None
    assert mission.manifest_id == new.manifest_id


@pytest.mark.parametrize("came", [True, False], ids=["the right one came", "its bytes are wrong"])
def test_no_name_is_given_to_wrong_bytes_or_over_a_whole_object(store: Path, came: bool) -> None:
    path = file_of(store, SHARED)
    right = path.read_bytes()
    flip(path, 3)
    misname(path)
    with Repository.open(store) as repository:
        plan = plan_repair(repository, audit(store), [])
        if came:
            path.write_bytes(right)
        apply_repair(plan, repository, [])
    assert path.exists() == came
    if came:
        assert path.read_bytes() == right
    assert len(list((store / "quarantine").glob("*/*"))) == 1


def test_a_pinned_object_of_any_size_is_fetched(tmp_path: Path) -> None:
    """Pinned by its id, of which no size is known, and needed by a mission besides."""
    big = flight({**NORTH.contents, "files/big.bin": bytes(300_000)}, issue=later(NORTH).manifest.issue)
    for name in ("both", "replica"):
        publish(make_store(tmp_path / name), big)
    store, replica = tmp_path / "both", tmp_path / "replica"
    id_ = big.entry("files/big.bin").id
    with Repository.open(store) as repository:
        pin(repository, "big", id_)
    file_of(store, id_).unlink()
    assert not mend(store, replica).audit.errors
    assert file_of(store, id_).exists()


def test_the_table_of_a_pinned_manifest_is_fetched(store: Path) -> None:
    for step in (1, 2):
        publish(store, later(NORTH, step, own=b"another table"))
    replica = copy_of(store, store.with_name("replica"))
    with Repository.open(store) as repository:
        pin(repository, "old", NORTH.manifest_id)
    file_of(store, NORTH.manifest.table).unlink()
    assert [one.kind for one in audit(store).findings if not one.information] == ["incomplete-closure"]
    assert not mend(store, replica).audit.errors


def test_a_ref_comes_back_from_a_line_behind_the_damage_of_the_log(store: Path) -> None:
    """The line is not believed; the manifest that it names is signed."""
    overwrite(store / "log", lambda data: data.replace(b"rotated", b"rotates", 1))
    (store / "missions" / SOUTH.id).write_bytes(b"")
    done = mend(store)
    assert not done.audit.errors
    assert check(store, SOUTH.id).go


def test_a_lost_ref_comes_back(store: Path, first_store: Path) -> None:
    """Published once: the log cannot tell it from a publication that was cut short, but it is signed and whole."""
    (store / "missions" / SOUTH.id).unlink()
    assert not audit(store).errors
    file_of(store, OTHER).unlink()
    mend(store)
    assert not (store / "missions" / SOUTH.id).exists(), "not without all that it needs"
    mend(store, first_store)
    assert check(store, SOUTH.id).go


def test_an_unreadable_log_is_not_begun_anew(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (store / "log").read_bytes()
    with monkeypatch.context() as patch:
        bad_sectors(patch, (store / "log").stat().st_ino)
        assert plan_of(store, audit(store)).steps == ()
    assert (store / "log").read_bytes() == before


def test_one_thing_that_may_not_be_moved_stops_nothing_else(
    store: Path, first_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(store, "of-root", b"of root")
    flip(file_of(store, SHARED), 3)
    real = Disk.rename

    def refusing(self: Disk, source: str, target: str) -> None:
        if source.endswith("of-root"):
            raise Unavailable("no", kind="unwritable", errno=errno.EACCES)
        real(self, source, target)

    monkeypatch.setattr(Disk, "rename", refusing)
    done = mend(store, first_store)
    assert [one.kind for one in done.audit.findings if not one.information] == ["stray"]
    assert done.audit.missions == dict.fromkeys(BOTH, "flyable")


def test_an_index_that_lies_is_mended_and_keeps_its_records(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    key = next(entry.key for entry in NORTH.table.entries if entry.key is not None)
    with Repository.open(store) as repository, writing(repository) as writer:
        writer.index.commit(objects={ObjectId.of(b"gone"): Row(4, 1, 1, 1, 1, 1)}, gone=[OWN])
        assert writer.index.record(key) is not None
    assert audit(store).notes == {"index-only": 1, "file-only": 1}
    done = mend(store, scope=QUICK)
    assert (done.steps, done.audit.findings) == ((), ())
    with Repository.open(store) as repository, writing(repository) as writer:
        assert writer.index.record(key) is not None


def test_unreadable_is_replaced_and_kept(store: Path, first_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad sector: the file goes to quarantine, where somebody may still save what can be read of it."""
    inode = file_of(store, SHARED).stat().st_ino
    bad_sectors(monkeypatch, inode)
    found = audit(store)
    assert [finding.kind for finding in found.findings] == ["unreadable"]
    assert not found.errors
    assert mend(store).audit.inconclusive, "without a replica it stays where it is"
    assert file_of(store, SHARED).stat().st_ino == inode
    assert not mend(store, first_store).audit.inconclusive
    (kept,) = (store / "quarantine").glob("*/*")
    assert kept.stat().st_ino == inode


def test_nothing_is_mended_while_somebody_uses_the_store(store: Path, first_store: Path) -> None:
    flip(file_of(store, SHARED))
    with Repository.open(store) as repository, repository.locked(), pytest.raises(Locked) as caught:
        mend(store, first_store)
    assert caught.value.fields["pid"] == os.getpid()
    assert mend(store, first_store).audit.missions == dict.fromkeys(BOTH, "flyable")


def hurt_a_little(store: Path) -> None:
    flip(file_of(store, SHARED), 3)
    file_of(store, OWN).unlink()
    (store / "missions" / SOUTH.id).write_bytes(b"")
    overwrite(store / "log", lambda data: data + b"noise\n")
    plant(store, "objects/README", b"x")


@pytest.mark.parametrize("share", range(2))
def test_a_crash_at_any_operation_makes_nothing_worse(first_store: Path, tmp_path: Path, share: int) -> None:
    counted = Recorded()
    hurt_a_little(store := copy_of(first_store, tmp_path / "counted"))
    with pytest.MonkeyPatch.context() as patch, index_watched(counted, patch):
        mend(store, first_store, disk=counted)
    assert len(counted.operations) > 40
    for stop in range(share, len(counted.operations), 8):  # all of them are in the drill
        hurt_a_little(store := copy_of(first_store, tmp_path / str(stop)))
        healthy = stamps(store, {SHARED, OWN})
        disk = PowerCut(stop)
        with pytest.MonkeyPatch.context() as patch, index_watched(disk, patch), pytest.raises(PowerFails):
            mend(store, first_store, disk=disk)
        assert healthy.items() <= stamps(store, {SHARED, OWN}).items()
        assert not mend(store, first_store).audit.errors
        assert all(check(store, mission).go for mission in BOTH)


def test_every_failing_call_is_told(first_store: Path, tmp_path: Path) -> None:
    stop = 0
    while True:
        hurt_a_little(store := copy_of(first_store, tmp_path / str(stop)))
        failing = Failing(stop, errno.ENOSPC)
        raised: Unavailable | None = None
        try:
            with pytest.MonkeyPatch.context() as patch, failing.installed(patch):
                mend(store, first_store)
        except Unavailable as error:
            raised = error
        assert raised is not None or not failing.failed or failing.failed.startswith(("unlink", "rmdir"))
        assert not mend(store, first_store).audit.errors
        if not failing.failed:
            break
        stop += 3
    assert stop > 30


def test_a_folder_in_capitals_beside_the_right_one_is_emptied_into_it(store: Path) -> None:
    right = file_of(store, NORTH.entry(SHARD).id).parent
    wrong = right.with_name(right.name.upper())
    assert wrong.name != right.name
    plant(store, f"objects/{right.name}/{'0' * 62}", b"so that the folder stays")
    wrong.mkdir()
    file_of(store, NORTH.entry(SHARD).id).rename(wrong / file_of(store, NORTH.entry(SHARD).id).name)
    (wrong / "README").write_bytes(b"not yours")
    done = mend(store)
    assert done.audit.missions == dict.fromkeys(BOTH, "flyable")
    assert not wrong.exists()
    kept = [path for path in (store / "quarantine").rglob("*") if path.is_file()]
    assert b"not yours" in {path.read_bytes() for path in kept}


class TestTheManifestBefore:
    """What a rollback would lead to is looked after like a pin, until a collection has let go of it."""

    @pytest.fixture
    def twice(self, tmp_path: Path) -> Path:
        store = make_store(tmp_path / "store")
        publish(store, later(NORTH, **{"calibration/camera.yaml": b"fx: 9.0\n"}))
        assert audit(store).findings == ()
        return store

    @pytest.mark.parametrize("gone", [NORTH.manifest_id, NORTH.manifest.table, OWN], ids=["manifest", "table", "own"])
    def test_lost(self, twice: Path, gone: ObjectId) -> None:
        replica = copy_of(twice, twice.with_name("replica"))
        file_of(twice, gone).unlink()
        found = [one for one in audit(twice).findings if not one.information]
        assert [(one.kind, one.path, one.missions) for one in found] == [("incomplete-closure", str(twice / "log"), ())]
        assert not mend(twice, replica).audit.errors

    @pytest.mark.parametrize("bad", [NORTH.manifest_id, NORTH.manifest.table, OWN], ids=["manifest", "table", "own"])
    def test_damaged(self, twice: Path, bad: ObjectId) -> None:
        replica = copy_of(twice, twice.with_name("replica"))
        flip(file_of(twice, bad), 5)
        found = [one for one in audit(twice).findings if not one.information]
        assert [(one.kind, one.object, one.missions) for one in found] == [("bit-flip", str(bad), ())]
        assert not mend(twice, replica).audit.errors

    def test_collected(self, twice: Path) -> None:
        with Repository.open(twice) as repository:
            collect(repository, now=time.time() + 30 * 86400, keep_last=1)
        assert audit(twice).findings == ()

    def test_young_but_what_it_needs_is_not(self, twice: Path) -> None:
        """A collection lets go of a manifest that only the grace time spares, as what it needs may go."""
        publish(twice, later(NORTH, 2))
        with Repository.open(twice) as repository, writing(repository, alone=True) as writer:
            plan = plan_gc(repository, writer.index.rows, now=time.time(), grace=3600, keep_last=1)
            assert not plan.trash
            assert len(plan.manifests) == 2


class TestRootsAndTheLog:
    """A lost root may be what revokes a key: to lose it quietly would let that key sign again."""

    @pytest.fixture
    def rotated(self, store: Path) -> Path:
        with Repository.open(store) as repository:
            draft = with_revoked(RootDraft.after(repository.trust_root(), now=NOW), key("x").public)
            rotate(repository, draft.with_signature(key("root-a")), now=NOW)
        return store

    def test_the_newest_root_is_lost(self, rotated: Path, tmp_path: Path) -> None:
        replica = copy_of(rotated, tmp_path / "replica")
        (rotated / "trust" / "2.root.cbor").unlink()
        (note,) = audit(rotated).findings
        assert (note.kind, note.information) == ("bad-trust-chain", True)
        assert not mend(rotated, replica).audit.findings
        assert (rotated / "trust" / "2.root.cbor").exists()

    def test_two_roots_are_lost(self, rotated: Path, tmp_path: Path) -> None:
        with Repository.open(rotated) as repository:
            rotate(repository, RootDraft.after(repository.trust_root(), now=NOW).with_signature(key("root-a")), now=NOW)
        replica = copy_of(rotated, tmp_path / "replica")
        for version in (2, 3):
            (rotated / "trust" / f"{version}.root.cbor").unlink()
        (finding,) = audit(rotated).findings
        assert (finding.kind, finding.information, len(finding.missions)) == ("bad-trust-chain", False, 2)
        assert not mend(rotated, replica).audit.findings

    def test_no_root_takes_effect_after_a_hole(self, rotated: Path, tmp_path: Path) -> None:
        """A replica that loses root 2 after the plan was made must not leave this store with root 3 alone."""
        with Repository.open(rotated) as repository:
            rotate(repository, RootDraft.after(repository.trust_root(), now=NOW).with_signature(key("root-a")), now=NOW)
        replica = copy_of(rotated, tmp_path / "replica")
        for version in (2, 3):
            (rotated / "trust" / f"{version}.root.cbor").unlink()
        with Repository.open(rotated) as repository, Repository.open(replica) as one:
            plan = plan_repair(repository, audit(rotated), [one])
            assert [step.name for step in plan.steps] == ["trust/2.root.cbor", "trust/3.root.cbor"]
            (replica / "trust" / "2.root.cbor").unlink()
            assert apply_repair(plan, repository, [one]) == []
        assert sorted(os.listdir(rotated / "trust")) == ["1.root.cbor"]

    def test_a_fork_of_the_chain_is_put_in_its_place(self, rotated: Path, tmp_path: Path) -> None:
        """Genuinely signed, and not what took effect here: the revocation would be gone."""
        replica = copy_of(rotated, tmp_path / "replica")
        (rotated / "trust" / "2.root.cbor").write_bytes(sign_root(next_root(ROOT), "root-a"))
        assert [one.kind for one in audit(rotated).findings] == ["bad-trust-chain"]
        assert not mend(rotated, replica).audit.findings
        with Repository.open(rotated) as repository:
            assert repository.trust_root().root.revoked == (key("x").public,)

    def test_a_root_that_a_repaired_log_tells_of_is_not_taken_for_planted(
        self, rotated: Path, first_store: Path, tmp_path: Path
    ) -> None:
        good = copy_of(rotated, tmp_path / "good")
        lines = (rotated / "log").read_bytes().splitlines(keepends=True)
        (rotated / "log").write_bytes(b"".join(lines[:-1]))
        assert [one.kind for one in audit(rotated).findings] == ["bad-log"]
        assert not mend(rotated).audit.findings
        flip(rotated / "trust" / "2.root.cbor", 60)
        assert mend(rotated, first_store).audit.errors, "a replica that is behind knows nothing of it"
        assert (rotated / "trust" / "2.root.cbor").exists()
        assert not mend(rotated, good).audit.findings

    def test_a_chain_longer_than_a_verifier_follows(self, store: Path) -> None:
        with Repository.open(store) as repository:
            for _ in range(2, 40):
                rotate(
                    repository, RootDraft.after(repository.trust_root(), now=NOW).with_signature(key("root-a")), now=NOW
                )
            assert repository.trust_root().root.version == 39
            repository.current(NORTH.id)
        assert not [one for one in audit(store).findings if not one.information]

    def test_a_mission_of_a_revoked_signer_is_not_set_back(self, store: Path) -> None:
        """It is no damage: whoever signs must decide what flies."""
        publish(store, later(NORTH, **{"calibration/camera.yaml": b"fx: 9.0\n"}))
        with Repository.open(store) as repository:
            draft = with_revoked(
                drafts.with_key(RootDraft.after(repository.trust_root(), now=NOW), "mission", key("co-pilot").public),
                key("pilot").public,
            )
            rotate(repository, draft.with_signature(key("root-a")), now=NOW)
        before = (store / "missions" / NORTH.id).read_bytes()
        found = mend(store).audit
        assert {one.kind for one in found.findings} == {"bad-signature"}
        assert "sign" in found.findings[0].remedy
        assert (store / "missions" / NORTH.id).read_bytes() == before
        with Repository.open(store) as repository:
            collect(repository, now=time.time() + 90 * 86400, keep_last=1)
            stats(repository)


def test_a_lost_newest_manifest_is_no_dead_end(store: Path) -> None:
    """Repair goes back to the one before; what is lost is given up with the next collection."""
    newer = later(NORTH)
    publish(store, newer)
    file_of(store, newer.manifest_id).unlink()
    (store / "missions" / NORTH.id).write_bytes(b"")
    mend(store)
    assert check(store, NORTH.id).go
    with Repository.open(store) as repository:
        collect(repository, now=time.time() + 90 * 86400, keep_last=1)
    assert not audit(store).errors


def test_each_object_that_is_fetched_is_told(store: Path, first_store: Path) -> None:
    told: list[tuple[str, int, int]] = []
    for name in (ENGINE, CAMERA):
        file_of(store, NORTH.entry(name).id).unlink()
    with Repository.open(store) as repository, Repository.open(first_store) as one:
        plan = plan_repair(repository, audit(store), [one])
        applied = apply_repair(plan, repository, [one], lambda *now: told.append(now))
    assert len(applied) == 2
    assert told == [("mending", 1, 2)] * 2
