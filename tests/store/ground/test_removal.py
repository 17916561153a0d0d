"""Removal: what goes, what stays, and that the sequence of a mission goes on after it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from store.audit.fsck import fsck
from store.audit.repair import repair
from store.audit.scope import FULL
from store.disk import log
from store.disk.durable import Disk
from store.disk.locks import Locked
from store.errors import Conflict, Corrupt, NotFound
from store.format.ids import ObjectId
from store.ground.as_of import EvidenceAsOf
from store.ground.gc import collect, pin
from store.ground.issuing import highest_issued, issue, issuing, last_issued, mission_lock, next_issue
from store.ground.removal import RemovalPlan, plan_removal, remove
from store.ground.repository import Repository
from store.ground.sync import apply_sync, plan_sync
from tests.faults.disks import PowerCut, PowerFails, Recorded
from tests.support.missions import ISSUE, ROOT, flight
from tests.support.stores import ENGINE, NORTH, SOUTH, audit, check, file_of, flip, later, listing, make_store, publish

OTHER = "files/calibration/other.yaml"
LATE = 4_000_000_000.0
# Issued after North by a station whose clock goes wrong: no time that a next one gives is after it.
AHEAD = flight(NORTH.contents, issue=replace(ISSUE, sequence=9_000_000_000))


def removed(store: Path, mission: str = SOUTH.id, disk: Disk | None = None) -> RemovalPlan:
    with Repository.open(store, disk) as repository:
        return remove(repository, mission)


def gather(store: Path) -> None:
    with Repository.open(store) as repository:
        collect(repository, now=LATE, grace=0)


def events(store: Path) -> list[str]:
    with Repository.open(store) as repository:
        return [event.event for event in log.events(repository.media)]


def problems(store: Path) -> list[str]:
    return [one.kind for one in audit(store).findings if not one.information]


def test_a_plan_writes_nothing_and_says_what_goes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    before = listing(store)
    with Repository.open(store) as repository:
        plan = plan_removal(repository, SOUTH.id)
    assert listing(store) == before
    assert (plan.mission, plan.manifest, plan.sequence) == (SOUTH.id, SOUTH.manifest_id, SOUTH.manifest.issue.sequence)
    assert (plan.pins, plan.unknown) == ((), ())
    assert removed(store) == plan
    with Repository.open(store) as repository:
        gone = collect(repository, now=LATE, grace=0)
    assert (plan.objects, plan.bytes) == (len(gone.trash), gone.trash_bytes)


def test_only_what_no_other_mission_needs_goes_and_the_last_manifest_stays(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    removed(store)
    gather(store)
    assert not (store / "missions" / SOUTH.id).exists()
    assert not file_of(store, SOUTH.entry(OTHER).id).exists()
    assert not file_of(store, SOUTH.manifest.table).exists()
    assert file_of(store, SOUTH.manifest_id).exists()
    assert file_of(store, NORTH.entry(ENGINE).id).exists()
    assert check(store, NORTH.id).go
    assert problems(store) == []
    gather(store)
    assert file_of(store, SOUTH.manifest_id).exists()


def test_the_log_line_comes_before_the_ref_goes_and_both_are_durable(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    disk = Recorded()
    removed(store, disk=disk)
    seen = [(what, path.removeprefix(f"{store}/")) for what, path in disk.operations]
    order = [("append", "log"), ("sync", "log"), ("remove", f"missions/{SOUTH.id}"), ("sync-directory", "missions")]
    assert [one for one in seen if one in order] == order
    assert events(store)[-1] == "removed"


def test_after_a_crash_the_mission_is_still_there_and_goes_at_the_second_time(tmp_path: Path) -> None:
    before = make_store(tmp_path / "before")
    disk = Recorded()
    shutil.copytree(before, tmp_path / "counted")
    removed(tmp_path / "counted", disk=disk)
    notes = set()
    for stop in range(len(disk.operations)):
        store = tmp_path / str(stop)
        shutil.copytree(before, store)
        with pytest.raises(PowerFails):
            removed(store, disk=PowerCut(stop))
        assert problems(store) == []
        if (store / "missions" / SOUTH.id).exists():
            assert check(store, SOUTH.id).go
            notes |= {one.kind for one in audit(store).findings if one.information and SOUTH.id in one.path}
            gather(store)
            assert check(store, SOUTH.id).go, "a line that is ahead of its ref takes nothing"
            removed(store)
        assert problems(store) == []
        assert not (store / "missions" / SOUTH.id).exists()
        shutil.rmtree(store)
    assert "bad-ref" in notes, "an audit tells of a removal that was cut short"


@pytest.mark.parametrize("collected", [False, True])
def test_the_sequence_goes_on_whatever_the_clock_says(tmp_path: Path, collected: bool) -> None:
    store = make_store(tmp_path / "store", AHEAD, SOUTH)
    removed(store, NORTH.id)
    if collected:
        gather(store)
    with Repository.open(store) as repository:
        assert last_issued(repository, NORTH.id) is None
        highest = highest_issued(repository, NORTH.id)
        assert highest == AHEAD.manifest.issue.order
        assert next_issue(ROOT, None, highest, now=5).sequence == AHEAD.manifest.issue.sequence + 1


def test_an_old_copy_brings_an_old_mission_back_and_the_sequence_goes_on_all_the_same(tmp_path: Path) -> None:
    store, stick = make_store(tmp_path / "store"), make_store(tmp_path / "stick")
    publish(store, AHEAD)
    removed(store, NORTH.id)
    gather(store)
    with Repository.open(stick) as source:
        with Repository.open(store) as target:
            plan = plan_sync(source, target, ())
        assert [move.mission for move in plan.moves] == [NORTH.id], "a removal is of one store"
        apply_sync(plan, source, store)
    gather(store)
    assert check(store, NORTH.id).go
    assert problems(store) == []
    with Repository.open(store) as repository:
        assert highest_issued(repository, NORTH.id) == AHEAD.manifest.issue.order
    publish(store, later(AHEAD))
    gather(store)
    assert problems(store) == []


def test_a_removal_takes_a_mission_from_no_other_store(tmp_path: Path) -> None:
    store, stick = make_store(tmp_path / "store"), make_store(tmp_path / "stick")
    removed(store)
    with Repository.open(store) as source:
        with Repository.open(stick) as target:
            plan = plan_sync(source, target, ())
        assert plan.moves == ()
        apply_sync(plan, source, stick)
    assert check(stick, SOUTH.id).go


def test_a_repair_does_not_bring_it_back_and_an_audit_misses_the_manifest_that_stays(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    publish(store, later(SOUTH))  # two lines: a ref that is lost would be an error
    removed(store)
    repair(store, FULL, [], audited=fsck, show=lambda _: None)
    assert not (store / "missions" / SOUTH.id).exists()
    replica = make_store(tmp_path / "replica")
    publish(replica, later(SOUTH))
    file_of(store, later(SOUTH).manifest_id).unlink()
    assert problems(store) == ["incomplete-closure"]
    with Repository.open(replica) as source:
        repair(store, FULL, [source], audited=fsck, show=lambda _: None)
    assert problems(store) == []
    assert not (store / "missions" / SOUTH.id).exists()


def test_the_past_knows_it_until_it_went(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    removed(store)
    with Repository.open(store) as repository:
        last = log.events(repository.media)[-1].at
        assert EvidenceAsOf(repository.media, last).missions() == [NORTH.id]
        with pytest.raises(NotFound, match="had been removed"):
            EvidenceAsOf(repository.media, last).ref(SOUTH.id)


def test_a_draft_keeps_its_mission_and_a_pin_its_objects(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    with Repository.open(store) as repository:
        pin(repository, "kept", SOUTH.manifest_id)
        plan = plan_removal(repository, SOUTH.id)
        assert (plan.pins, plan.objects) == (("kept",), 0)
    removed(store)
    gather(store)
    assert file_of(store, SOUTH.entry(OTHER).id).exists()
    with Repository.open(store) as repository:
        new = later(NORTH)
        with issuing(repository, NORTH.id, "the draft") as writer:
            issue(writer, new.manifest, new.table, (), ROOT)
    before = listing(store, but=("lock",))
    with pytest.raises(Conflict) as caught:
        removed(store, NORTH.id)
    assert caught.value.kind == "draft-waits"
    assert "flightbag discard" in caught.value.remedy
    assert listing(store, but=("lock",)) == before
    assert check(store, NORTH.id).go


def test_what_is_not_there_or_damaged_is_not_removed(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    with pytest.raises(NotFound, match="south-ridge") as missing:
        removed(store, "south-rigde")
    assert missing.value.kind == "missing"
    flip(file_of(store, SOUTH.manifest_id), 30)
    with pytest.raises(Corrupt, match="the manifest of mission south-ridge, ") as damaged:
        removed(store)
    assert "--repair --from" in damaged.value.remedy
    (store / "missions" / SOUTH.id).write_text(f"{NORTH.manifest_id}\n")
    with pytest.raises(Corrupt, match="names the manifest of mission north-ridge"):
        removed(store)
    assert events(store)[-1] != "removed"


def test_what_would_be_freed_is_unknown_where_another_need_is(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    flip(file_of(store, NORTH.manifest_id), 30)
    plan = removed(store)
    assert (plan.objects, plan.bytes) == (None, None)
    assert [finding.kind for finding in plan.unknown] == ["needs-unknown"]
    assert not (store / "missions" / SOUTH.id).exists()


def test_a_mission_that_somebody_publishes_is_not_removed(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    with Repository.open(store) as repository, mission_lock(repository, SOUTH.id, "a build"), pytest.raises(Locked):
        removed(store)
    assert ObjectId.parse((store / "missions" / SOUTH.id).read_text().strip()) == SOUTH.manifest_id
