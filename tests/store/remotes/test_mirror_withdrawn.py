"""Withdrawals, drafts and a log of several files travel to a far store as to a folder."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from store.disk import log
from store.disk.media import Media
from store.format.withdrawal import of_mission
from store.ground import withdrawals
from store.ground.repository import Repository
from store.ground.sync import SyncPlan
from store.ground.withdrawals import Outcome
from store.remotes.mirror import apply_push, mirrored, plan_push
from store.remotes.unpack import unpack
from store.takeoff.check import takeoff_check
from tests.store.remotes.test_pack import packed
from tests.support.far import FolderFar
from tests.support.missions import NOW, ROOT, by, flight, key, role, sign_root
from tests.support.stores import audit, later, make_store, publish

TWO = replace(ROOT, mission=role("pilot", "co-pilot", threshold=2))
NORTH = flight(root=TWO, by=["pilot", "co-pilot"])
NAME = of_mission(NORTH.id)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_store(tmp_path / "source", NORTH, root=sign_root(TWO, "root-a"))


@pytest.fixture
def far(tmp_path: Path, source: Path) -> FolderFar:
    far = FolderFar(tmp_path / "far")
    push(source, far)
    return far


def push(source: Path, far: FolderFar) -> SyncPlan:
    with Repository.open(source) as repository, mirrored(far, repository.media, ()) as mirror:
        plan = plan_push(repository, mirror, ())
        apply_push(plan, repository, mirror, lambda _: None)
    return plan


def begin(store: Path, *names: str, now: int = NOW) -> Outcome:
    with Repository.open(store) as repository:
        signers = by(*(key(name) for name in names))
        return withdrawals.begin(repository, NAME, signers, reason="smoke", now=now)


def kinds(store: Path) -> list[str]:
    verdict = takeoff_check(store, NORTH.id, trust=sign_root(TWO, "root-a"), now=NOW)
    return [finding.kind for finding in verdict.findings]


def test_a_withdrawal_goes_before_the_refs_and_never_back(source: Path, far: FolderFar, tmp_path: Path) -> None:
    begin(source, "pilot", "co-pilot")
    older = push_copy(source, tmp_path)
    assert [file.name for file in push(source, far).files] == [f"withdrawn/{NAME}"]
    assert kinds(tmp_path / "far") == ["withdrawn"]
    assert not audit(tmp_path / "far").errors
    assert push(source, far).files == ()
    begin(source, "pilot", "co-pilot", now=NOW + 60)
    push(source, far)
    assert push(older, far).files == ()


def push_copy(source: Path, tmp_path: Path) -> Path:
    copy = FolderFar(tmp_path / "older")
    push(source, copy)
    return tmp_path / "older"


def test_signatures_of_both_sides_are_joined_and_take_effect_there(
    source: Path, far: FolderFar, tmp_path: Path
) -> None:
    first = begin(source, "pilot")
    push(source, far)
    there = tmp_path / "far"
    assert kinds(there) == []
    # On the far copy, the other key has signed the same payload.
    with Repository.open(there) as repository:
        repository.replace(f"drafts/{NAME}", replace(first.pending.envelope, signatures=()).render())
        withdrawals.sign_draft(repository, NAME, by(key("co-pilot")), now=NOW)
    push(source, far)
    assert kinds(there) == ["withdrawn"]
    assert not audit(there).errors
    assert push(source, far).files == ()


def test_a_log_of_several_files_there(
    source: Path, far: FolderFar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "LOG_LIMIT", 900)
    for number in range(1, 7):
        one = later(NORTH, number)
        publish(source, flight(root=TWO, by=["pilot", "co-pilot"], issue=one.manifest.issue))
        push(source, far)
    assert (tmp_path / "far/log.1").exists()
    published = [name for call, names in far.calls if call == "publish" for name in names]
    assert published.count("log.1") == 1  # a part does not change
    with Media(tmp_path / "far") as media:
        assert [event.event for event in log.events(media)].count("received") == 7
    assert not audit(tmp_path / "far").errors


def test_in_a_bag(source: Path, tmp_path: Path) -> None:
    begin(source, "pilot", "co-pilot")
    begin(source, "pilot", now=NOW + 1)
    (bag,) = packed(source)
    unpack(io.BytesIO(bag), "the bag", tmp_path / "target")
    assert kinds(tmp_path / "target") == ["withdrawn"]
    assert (tmp_path / "target/drafts" / NAME).exists()
    assert not audit(tmp_path / "target").errors
