"""Drafts that were signed in parallel: a sync joins their signatures, and tells two drafts of one thing apart."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from store.errors import Corrupt
from store.findings import Finding
from store.format.withdrawal import of_mission
from store.ground import withdrawals
from store.ground.issuing import draft_of, issue, issuing, sign_draft
from store.ground.repository import Repository
from store.ground.sync import SyncPlan, apply_sync, plan_sync
from store.takeoff.check import takeoff_check
from tests.support.missions import ISSUE, NOW, ROOT, Flight, by, flight, key, role, sign_manifest, sign_root
from tests.support.stores import audit, flip, make_store

THREE = replace(ROOT, mission=role("pilot", "co-pilot", "chief", threshold=2))
NORTH = flight(root=THREE, by=["pilot", "chief"])
ID = NORTH.id
NEXT = flight(root=THREE, by=[], issue=replace(ISSUE, sequence=NOW, issued_at=NOW, previous=NORTH.manifest_id))
DRAFT = f"drafts/{ID}"


def keep(store: Path, one: Flight, *names: str) -> None:
    """Make the manifest of a mission the draft of a store, signed by these keys."""
    with Repository.open(store) as repository, issuing(repository, one.id, "a test") as writer:
        with writer.inserting() as batch:
            for data in one.contents.values():
                batch.add_bytes(data)
            batch.commit()
        issue(writer, one.manifest, one.table, [key(name) for name in names], THREE, hold=True)


def sync(source: Path, target: Path, between: Callable[[], object] = lambda: None) -> SyncPlan:
    with Repository.open(source) as there:
        if target.exists():
            with Repository.open(target) as here:
                plan = plan_sync(there, here, ())
        else:
            plan = plan_sync(there, None, ())
        between()
        apply_sync(plan, there, target)
    return plan


def signers(store: Path) -> set[bytes]:
    with Repository.open(store) as repository:
        return {signature.kid for signature in draft_of(repository, ID).envelope.signatures}


def kids(*names: str) -> set[bytes]:
    return {key(name).public.kid for name in names}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = make_store(tmp_path / "ground", NORTH, root=sign_root(THREE, "root-a"))
    keep(store, NEXT)
    return store


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    sync(store, tmp_path / "copy")
    return tmp_path / "copy"


def test_it_travels_with_all_that_it_needs_and_is_published_there(store: Path, copy: Path) -> None:
    assert signers(copy) == set()
    assert not audit(copy).errors
    with Repository.open(copy) as repository:
        assert sign_draft(repository, ID, by(key("pilot"), key("co-pilot")), now=NOW).manifest
    # Published there, it is no draft any more: neither way brings it back.
    assert [file.name for file in sync(store, copy).files] == []
    assert sync(copy, store).moves
    assert [file.name for file in sync(store, copy).files] == []


def test_signatures_of_both_sides_are_joined(store: Path, copy: Path) -> None:
    for where, name in ((store, "pilot"), (copy, "co-pilot")):
        with Repository.open(where) as repository:
            assert sign_draft(repository, ID, by(key(name)), now=NOW).manifest is None
    assert [file.name for file in sync(copy, store).files] == [DRAFT]
    assert signers(store) == kids("pilot", "co-pilot")
    assert [file.name for file in sync(copy, store).files] == []
    # It has enough by now: nobody has to sign again to publish it.
    with Repository.open(store) as repository:
        assert sign_draft(repository, ID, by(), now=NOW).manifest
    assert not (store / DRAFT).exists()


def test_two_drafts_of_one_mission_are_named_and_stay(store: Path, copy: Path) -> None:
    other = flight(root=THREE, by=[], issue=replace(NEXT.manifest.issue, sequence=NOW + 1))
    keep(copy, other, "chief")
    before = (copy / DRAFT).read_bytes()
    plan = sync(store, copy)
    ((mission, why),) = plan.refused
    assert mission == ID
    with Repository.open(store) as a, Repository.open(copy) as b:
        for repository in (a, b):
            draft = draft_of(repository, ID)
            assert draft.opened_with(NEXT.table, THREE).signing_code in why
    assert "and 1 signature:" in why
    assert (copy / DRAFT).read_bytes() == before
    # What is said to help does.
    (copy / DRAFT).unlink()
    assert sync(store, copy).refused == ()
    assert signers(copy) == set()


def test_what_was_signed_while_the_sync_ran_is_kept(store: Path, copy: Path) -> None:
    with Repository.open(store) as repository:
        sign_draft(repository, ID, by(key("pilot")), now=NOW)

    def signs() -> None:
        with Repository.open(copy) as repository:
            sign_draft(repository, ID, by(key("co-pilot")), now=NOW)

    sync(store, copy, signs)
    assert signers(copy) == kids("pilot", "co-pilot")


def test_another_draft_that_was_made_while_the_sync_ran_stays(store: Path, copy: Path) -> None:
    with Repository.open(store) as repository:
        sign_draft(repository, ID, by(key("pilot")), now=NOW)
    other = flight(root=THREE, by=[], issue=replace(NEXT.manifest.issue, sequence=NOW + 1))
    sync(store, copy, lambda: keep(copy, other, "chief"))
    assert signers(copy) == kids("chief")


@pytest.mark.parametrize("names", [["stranger"], ["lab"]])
def test_a_draft_with_a_signature_that_does_not_count_goes_nowhere(store: Path, copy: Path, names: list[str]) -> None:
    (store / DRAFT).write_bytes(sign_manifest(NEXT.manifest, THREE, names))
    assert [mission for mission, _ in sync(store, copy).refused] == [ID]
    assert signers(copy) == set()


def test_nothing_is_joined_to_a_draft_with_a_signature_that_does_not_count(store: Path, copy: Path) -> None:
    with Repository.open(store) as repository:
        sign_draft(repository, ID, by(key("pilot")), now=NOW)
    (copy / DRAFT).write_bytes(sign_manifest(NEXT.manifest, THREE, ["stranger"]))
    assert [mission for mission, _ in sync(store, copy).refused] == [ID]
    assert signers(copy) == kids("stranger")


def test_of_another_mission(store: Path, copy: Path) -> None:
    shutil.copy(store / DRAFT, store / "drafts/other")
    assert [mission for mission, _ in sync(store, copy).refused] == ["other"]


def test_a_damaged_one_is_replaced(store: Path, copy: Path) -> None:
    flip(copy / DRAFT)
    with pytest.raises(Corrupt):
        signers(copy)
    assert [file.name for file in sync(store, copy).files] == [DRAFT]
    assert signers(copy) == set()


def test_a_draft_that_lacks_objects_stays(store: Path, copy: Path) -> None:
    (copy / DRAFT).unlink()
    other = flight({**NEXT.contents, "files/new": b"new"}, root=THREE, by=[], issue=NEXT.manifest.issue)
    keep(store, other)
    lost = other.manifest.table
    (store / f"objects/{str(lost)[:2]}/{str(lost)[2:]}").unlink()
    assert [mission for mission, _ in sync(store, copy).refused] == [ID]


def test_no_more_come_than_a_folder_may_have(store: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can make drafts, and nobody reads a folder with too many: neither syncs nor collections go on then."""
    monkeypatch.setattr("store.ground.drafts.FOLDER_LIMIT", 1)
    with Repository.open(store) as repository:
        sign_draft(repository, ID, by(key("pilot")), now=NOW)
    assert [file.name for file in sync(store, copy).files] == [DRAFT], "it takes no other name"
    (copy / DRAFT).rename(copy / "drafts" / "another")
    plan = sync(store, copy)
    assert ([mission for mission, _ in plan.refused], plan.files) == ([ID], ())
    assert sorted(path.name for path in (copy / "drafts").iterdir()) == ["another"]


class TestWithdrawals:
    NAME = of_mission(ID)

    def begin(self, store: Path, name: str, now: int = NOW) -> withdrawals.Outcome:
        with Repository.open(store) as repository:
            return withdrawals.begin(repository, self.NAME, by(key(name)), reason="smoke", now=now)

    def test_joined_signatures_take_effect(self, store: Path, copy: Path) -> None:
        self.begin(store, "pilot")
        sync(store, copy)
        assert (copy / "drafts" / self.NAME).exists()
        draft = (store / "drafts" / self.NAME).read_bytes()
        with Repository.open(store) as repository:
            # Signed on a third copy, which never met the second.
            third = repository.media.path + "-third"
        shutil.copytree(store, third)
        with Repository.open(third) as repository:
            assert withdrawals.sign_draft(repository, self.NAME, by(key("chief")), now=NOW).in_effect
        assert (store / "drafts" / self.NAME).read_bytes() == draft
        sync(Path(third), copy)
        assert [finding.kind for finding in check_by(copy)] == ["withdrawn"]
        # It has nothing left to ask of anybody.
        assert not (copy / "drafts" / self.NAME).exists()

    def test_a_draft_that_withdraws_more_than_what_comes_stays(self, store: Path, copy: Path) -> None:
        later = Path(shutil.copytree(store, f"{store}-later"))
        self.begin(store, "pilot")
        for name in ("co-pilot", "chief"):
            with Repository.open(store) as repository:
                done = withdrawals.sign_draft(repository, self.NAME, by(key(name)), now=NOW)
                if done.in_effect:
                    break
        assert done.in_effect
        self.begin(later, "pilot", NOW + 1)
        sync(store, later)
        assert [finding.kind for finding in check_by(later)] == ["withdrawn"]
        assert (later / "drafts" / self.NAME).exists()

    def test_two_keys_in_parallel(self, store: Path, copy: Path) -> None:
        outcome = self.begin(store, "pilot")
        sync(store, copy)
        name = f"drafts/{self.NAME}"
        # The other key signs the same payload on the copy, where the first signature is not.
        with Repository.open(copy) as repository:
            bare = replace(outcome.pending.envelope, signatures=())
            repository.replace(name, bare.render())
            withdrawals.sign_draft(repository, self.NAME, by(key("co-pilot")), now=NOW)
        assert [file.name for file in sync(copy, store).files] == [f"withdrawn/{self.NAME}"]
        assert [finding.kind for finding in check_by(store)] == ["withdrawn"]
        assert not (store / name).exists()

    def test_two_withdrawals_of_one_mission(self, store: Path, copy: Path) -> None:
        self.begin(store, "pilot")
        self.begin(copy, "pilot", NOW + 1)
        assert [name for name, _ in sync(store, copy).refused] == [self.NAME]


def check_by(store: Path) -> tuple[Finding, ...]:
    return takeoff_check(store, ID, trust=sign_root(THREE, "root-a"), now=NOW).findings
