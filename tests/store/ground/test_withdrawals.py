"""Withdrawals on the ground: signed by one key after the other, logged, carried, audited, collected around."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from store.audit.fsck import fsck
from store.audit.scope import FULL, Scope
from store.disk import log
from store.disk.durable import Disk
from store.disk.media import Media
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Refused, Unavailable, Untrusted
from store.format.cbor import INT_MAX
from store.format.manifest import SKEW
from store.format.withdrawal import Withdrawal, of_mission
from store.ground import releases, withdrawals
from store.ground.as_of import EvidenceAsOf
from store.ground.gc import collect
from store.ground.issuing import highest_issued
from store.ground.repository import Repository
from store.ground.sync import apply_sync, plan_sync
from store.ground.trust_chain import put_into_effect
from store.ground.withdrawals import Outcome, Pending
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Binding
from store.takeoff.verify import verify_mission
from store.trust.keys import PrivateKey
from tests.faults.disks import PowerCut, PowerFails, Recorded
from tests.support.missions import (
    ISSUE,
    NOW,
    ROOT,
    by,
    flight,
    key,
    next_root,
    pinned,
    role,
    sign_root,
    sign_withdrawal,
    withdrawal,
)
from tests.support.stores import NORTH, SOUTH, audit, check, listing, make_store, publish

TWO = replace(ROOT, mission=role("pilot", "co-pilot", threshold=2))
NAME = of_mission(NORTH.id)
AGAIN = flight(issue=replace(ISSUE, sequence=NOW + 5))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store", NORTH, SOUTH)


def begin(
    store: Path, *keys: PrivateKey, name: str = NAME, now: int = NOW, disk: Disk | None = None, reason: str = "smoke"
) -> Outcome:
    with Repository.open(store, disk) as repository:
        return withdrawals.begin(repository, name, by(*keys), reason=reason, now=now)


def sign(store: Path, *keys: PrivateKey, expect: str | None = None, now: int = NOW) -> Outcome:
    with Repository.open(store) as repository:
        return withdrawals.sign_draft(repository, NAME, by(*keys), now=now, expect=expect)


def kinds(store: Path, mission: str = NORTH.id) -> list[str]:
    return [finding.kind for finding in check(store, mission).findings]


def sync(source: Path, target: Path, missions: Sequence[str] = ()) -> list[str]:
    with Repository.open(source) as there:
        if target.exists():
            with Repository.open(target) as here:
                plan = plan_sync(there, here, missions)
        else:
            plan = plan_sync(there, None, missions)
        apply_sync(plan, there, target)
    return [file.name for file in plan.files]


class TestOneKey:
    def test_it_takes_effect_and_is_logged(self, store: Path) -> None:
        outcome = begin(store, key("pilot"))
        assert (outcome.in_effect, outcome.signatures, outcome.threshold) == (True, 1, 1)
        assert kinds(store) == ["withdrawn"]
        assert kinds(store, SOUTH.id) == []
        with Media(store) as media:
            event = log.events(media)[-1]
        assert (event.event, event.facts) == ("withdrawn", {"mission": NORTH.id, "epoch": 1, "sequence": NOW})
        assert not (store / "drafts" / NAME).exists()

    def test_what_is_published_afterwards_flies(self, store: Path) -> None:
        begin(store, key("pilot"))
        with Repository.open(store) as repository:
            assert highest_issued(repository, NORTH.id) == (1, NOW)
        publish(store, AGAIN)
        assert check(store, NORTH.id).go

    def test_it_reaches_what_a_station_with_a_fast_clock_has_published(self, store: Path) -> None:
        publish(store, AGAIN)
        assert begin(store, key("pilot")).pending.value.order == (1, NOW + 5)
        assert kinds(store) == ["withdrawn"]

    def test_a_sequence_of_an_earlier_epoch_counts_for_nothing(self, store: Path) -> None:
        publish(store, AGAIN)
        with Repository.open(store) as repository:
            put_into_effect(repository, 2, sign_root(next_root(ROOT, epoch=2, issued_at=NOW), "root-a"), at=NOW)
        assert begin(store, key("pilot")).pending.value.order == (2, NOW)

    def test_a_clock_that_is_behind_the_trust_root(self, store: Path) -> None:
        now = ROOT.issued_at - 10 * SKEW
        for work in (begin, sign):
            with pytest.raises(Refused) as refused:
                work(store, key("pilot"), now=now)
            assert refused.value.kind == "issued-in-future"

    @pytest.mark.parametrize(
        ("name", "reason", "error"),
        [
            ("nowhere.mission", "x", NotFound),
            ("../etc.mission", "x", Invalid),
            (NAME, "", Invalid),
            (NAME, "x" * 201, Invalid),
            (NAME, "\x1b[2J", Invalid),
            (NAME, "\udcff", Invalid),
        ],
    )
    def test_what_is_refused_writes_nothing(
        self, store: Path, name: str, reason: str, error: type[FlightbagError]
    ) -> None:
        before = listing(store, but=("lock",))
        with pytest.raises(error) as caught:
            begin(store, key("pilot"), name=name, reason=reason)
        assert caught.value.remedy
        with pytest.raises(Untrusted):
            begin(store, key("lab"))
        assert listing(store, but=("lock",)) == before


class TestThreshold:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Path:
        north = flight(root=TWO, by=["pilot", "co-pilot"])
        return make_store(tmp_path / "store", north, root=sign_root(TWO, "root-a"))

    def test_a_draft_grounds_nothing_until_it_has_its_signatures(self, store: Path) -> None:
        first = begin(store, key("pilot"))
        assert (first.in_effect, first.signatures, first.threshold) == (False, 1, 2)
        with Media(store) as media:
            assert log.events(media)[-1].facts == {"withdrawal": NAME, "kids": [key("pilot").public.kid.hex()]}
        assert audit(store).findings == ()
        assert not (store / "withdrawn").exists()
        with pytest.raises(Refused) as refused:
            sign(store, key("co-pilot"), expect="00000-00000")
        assert refused.value.kind == "other-code"
        assert sign(store, key("co-pilot"), expect=first.pending.signing_code).in_effect
        assert audit(store).missions == {NORTH.id: "withdrawn"}

    def test_a_draft_that_somebody_changed(self, store: Path) -> None:
        begin(store, key("pilot"))
        path = store / "drafts" / NAME
        for value, why in (
            (withdrawal(sequence=INT_MAX), "nobody has given yet"),
            (withdrawal(epoch=2), "epoch"),
            (withdrawal(sequence=1), "published since"),
            (withdrawal(issued_at=NOW + 10**6), "future"),
        ):
            path.write_bytes(sign_withdrawal(value, TWO, by=()))
            with pytest.raises(Refused, match=why) as refused:
                sign(store, key("co-pilot"))
            assert refused.value.kind == "stale-draft"
        path.write_bytes(sign_withdrawal(withdrawal(), TWO, by=("stranger",)))
        with Repository.open(store) as repository, pytest.raises(Untrusted):
            withdrawals.sign_draft(repository, NAME, lambda _: pytest.fail("nobody is asked to sign that"), now=NOW)
        # What is said to help does.
        assert begin(store, key("pilot"), reason="again").replaced == 1
        assert sign(store, key("co-pilot")).in_effect

    def test_another_draft_takes_the_place_of_one_also_without_a_key(self, store: Path) -> None:
        before = begin(store, key("pilot")).pending
        outcome = begin(store, reason="another one")
        assert (outcome.signatures, outcome.replaced) == (0, 1)
        with Repository.open(store) as repository:
            assert withdrawals.draft_of(repository, NAME) == outcome.pending != before

    def test_one_that_a_sync_completes_takes_effect_unless_it_is_stale(self, store: Path) -> None:
        whole = sign_withdrawal(withdrawal(), TWO, by=("pilot", "co-pilot"))
        publish(store, flight(root=TWO, by=["pilot", "co-pilot"], issue=AGAIN.manifest.issue))
        with Repository.open(store) as repository:
            withdrawals.keep_or_put_into_effect(repository, NAME, whole, TWO, at=NOW)
        assert ((store / "drafts" / NAME).exists(), (store / "withdrawn").exists()) == (True, False)

    @pytest.mark.parametrize(("begun", "stays"), [(NOW, False), (NOW + 1, True)])
    def test_a_draft_of_no_more_than_what_arrives_goes(
        self, store: Path, tmp_path: Path, begun: int, stays: bool
    ) -> None:
        sync(store, tmp_path / "copy")
        begin(tmp_path / "copy", key("pilot"), now=begun)
        begin(store, key("pilot"), key("co-pilot"))
        sync(store, tmp_path / "copy")
        assert (tmp_path / "copy/withdrawn" / NAME).exists()
        assert (tmp_path / "copy/drafts" / NAME).exists() == stays

    def test_discarded(self, store: Path) -> None:
        begin(store, key("pilot"))
        with Repository.open(store) as repository:
            assert withdrawals.discard(repository, NAME) == 1
            with pytest.raises(NotFound):
                withdrawals.draft_of(repository, NAME)


class TestReleases:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Path:
        store = make_store(tmp_path / "store", SOUTH)
        with Repository.open(store) as repository:
            data = releases.drafted("winter", "cpu-x86_64", _approvals(), now=NOW)
            signed, _ = releases.signed(data, ROOT, by(key("lab")))
            id_ = releases.add(repository, signed)
        publish(store, flight(releases=(id_,)))
        return store

    def test_missions_that_rest_on_it_do_not_fly_and_builds_refuse_it(self, store: Path) -> None:
        with Repository.open(store) as repository:
            name = withdrawals.name_of_release(repository, "winter")
            assert releases.approving(repository, ROOT, _approvals())[1] == ()
        assert begin(store, key("lab"), name=name).in_effect
        assert (kinds(store), kinds(store, SOUTH.id)) == (["withdrawn"], [])
        with Repository.open(store) as repository:
            assert releases.approving(repository, ROOT, _approvals()) == ((), tuple(_approvals()))
            data = (store / _object(store, "winter")).read_bytes()
            with pytest.raises(Refused) as refused:
                releases.add(repository, data)
            assert refused.value.kind == "withdrawn"
            # What is said to help does: the same name, made again.
            again, _ = releases.signed(
                releases.drafted("winter", "cpu-x86_64", _approvals(), now=NOW + 1), ROOT, by(key("lab"))
            )
            releases.add(repository, again)
            assert releases.approving(repository, ROOT, _approvals())[1] == ()
            with pytest.raises(NotFound):
                withdrawals.name_of_release(repository, "summer")

    def test_the_keys_of_missions_withdraw_none(self, store: Path) -> None:
        with Repository.open(store) as repository:
            name = withdrawals.name_of_release(repository, "winter")
        with pytest.raises(Untrusted):
            begin(store, key("pilot"), name=name)


def _approvals() -> list[releases.Approval]:
    return [releases.Approval.of(one) for one in NORTH.table.entries if one.kind == "engine"]


def _object(store: Path, name: str) -> str:
    id_ = (store / "trust/releases" / name).read_text().strip()
    return f"objects/{id_[:2]}/{id_[2:]}"


class TestSync:
    def test_it_travels_and_never_back(self, store: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        sync(store, target)
        begin(store, key("pilot"))
        older = tmp_path / "older"
        shutil.copytree(store, older)
        assert sync(store, target) == [f"withdrawn/{NAME}"]
        assert kinds(target) == ["withdrawn"]
        assert sync(store, target) == []
        with Media(target) as media:
            assert [event.event for event in log.events(media)].count("withdrawn") == 1
        begin(store, key("pilot"), now=NOW + 60)
        assert sync(store, target, [NORTH.id]) == [f"withdrawn/{NAME}"]
        assert sync(older, target) == []
        assert sync(target, older) == [f"withdrawn/{NAME}"]

    def test_what_does_not_hold_stays_where_it_is(self, store: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        sync(store, target)
        (store / "withdrawn").mkdir()
        (store / "withdrawn" / NAME).write_bytes(sign_withdrawal(withdrawal(), by=("stranger",)))
        assert sync(store, target) == []
        assert check(target, NORTH.id).go
        # One that holds takes the place of one that does not.
        shutil.copytree(store / "withdrawn", target / "withdrawn")
        (store / "withdrawn" / NAME).write_bytes(sign_withdrawal(withdrawal()))
        assert sync(store, target) == [f"withdrawn/{NAME}"]
        assert kinds(target) == ["withdrawn"]

    @pytest.mark.parametrize("by_now", ["revoked", "removed", "planted", "damaged", "at the target"])
    def test_no_mission_is_go_where_it_goes_and_not_where_it_comes_from(
        self, store: Path, tmp_path: Path, by_now: str
    ) -> None:
        """Whoever withdrew it, and whatever became of their keys: a new stick does not fly what the ground does not."""
        both = replace(ROOT, mission=role("pilot", "co-pilot"))
        north = flight(root=both, by=("co-pilot",))
        store = make_store(tmp_path / "both", north, root=sign_root(both, "root-a"))
        begin(store, key("pilot"))
        path, target = store / "withdrawn" / NAME, tmp_path / "target"
        revoked = role("pilot").keys if by_now == "revoked" else ()
        second = next_root(both, mission=role("co-pilot"), revoked=revoked)
        if by_now == "at the target":
            other = flight(root=both, by=("co-pilot",), mission=SOUTH.manifest.mission)
            make_store(target, other, root=sign_root(both, "root-a"))
        if by_now == "planted":
            path.write_bytes(sign_withdrawal(withdrawal(), both, by=("stranger",)))
        elif by_now == "damaged":
            path.write_bytes(path.read_bytes()[:-1])
        else:
            place = target if by_now == "at the target" else store
            (place / "trust/2.root.cbor").write_bytes(sign_root(second, "root-a"))
        with Repository.open(store) as there:
            here = Repository.open(target) if target.exists() else None
            plan = plan_sync(there, here, ())
            ((refused, why),) = plan.refused
            assert (refused, [move.mission for move in plan.moves]) == (NORTH.id, [])
            assert NAME in why
            with pytest.raises(Corrupt) as caught:
                plan_sync(there, here, [NORTH.id])
            assert caught.value.remedy
            apply_sync(plan, there, target)
        assert not (target / "missions" / NORTH.id).exists()
        # What the remedy says: it is withdrawn again, by keys of the newest root.
        if by_now in ("revoked", "removed"):
            begin(store, key("co-pilot"), now=NOW + 60)
            assert f"withdrawn/{NAME}" in sync(store, target)
            with Media(target) as media:
                verdict = verify_mission(StoreEvidence(media), NORTH.id, pinned(both), Binding())
            assert [finding.kind for finding in verdict.findings] == ["withdrawn"]

    def test_one_that_cannot_be_read_is_no_sync(
        self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / "target"
        sync(store, target)
        begin(store, key("pilot"))
        real = StoreEvidence.withdrawal

        def fails(evidence: StoreEvidence, name: str) -> bytes:
            if evidence.media.path == str(store):
                raise Unavailable("bad sector", kind="unreadable")
            return real(evidence, name)

        monkeypatch.setattr(StoreEvidence, "withdrawal", fails)
        with pytest.raises(Unavailable):
            sync(store, target)

    def test_of_another_mission_only_to_who_has_it(self, store: Path, tmp_path: Path) -> None:
        begin(store, key("pilot"))
        assert sync(store, tmp_path / "target", [SOUTH.id]) == []

    def test_a_later_one_that_came_meanwhile_stays(self, store: Path, tmp_path: Path) -> None:
        target = tmp_path / "target"
        sync(store, target)
        begin(store, key("pilot"))
        with Repository.open(store) as there, Repository.open(target) as here:
            plan = plan_sync(there, here, ())
            begin(target, key("pilot"), now=NOW + 9)
            apply_sync(plan, there, target)
            assert withdrawals.standing(here, NAME, ROOT) == replace(
                withdrawal(sequence=NOW + 9), reason="smoke", issued_at=NOW + 9
            )


class TestAudit:
    def test_a_withdrawn_mission_is_no_error_and_not_flyable(self, store: Path) -> None:
        begin(store, key("pilot"))
        found = audit(store)
        assert not found.errors
        assert found.missions == {NORTH.id: "withdrawn", SOUTH.id: "flyable"}
        assert found.notes["withdrawn"] == 1

    @pytest.mark.parametrize("data", [b"", b"junk", sign_withdrawal(withdrawal(), by=("stranger",))])
    def test_what_does_not_hold_grounds_its_mission(self, store: Path, data: bytes) -> None:
        (store / "withdrawn").mkdir()
        (store / "withdrawn" / NAME).write_bytes(data)
        found = audit(store)
        (finding,) = (one for one in found.findings if not one.information)
        assert (finding.kind, finding.path) == ("bad-withdrawal", str(store / "withdrawn" / NAME))
        assert found.missions[NORTH.id] == "grounded"
        assert finding.remedy

    @pytest.mark.parametrize("name", ["other.mission", f"{'0' * 64}.release"])
    @pytest.mark.parametrize("folder", ["withdrawn", "drafts"])
    def test_damage_that_concerns_no_mission_here(self, store: Path, folder: str, name: str) -> None:
        (store / folder).mkdir()
        (store / folder / name).write_bytes(b"junk")
        assert [one.kind for one in audit(store).findings] == ["bad-withdrawal"]

    def test_names_that_are_none(self, store: Path) -> None:
        (store / "withdrawn").mkdir()
        (store / "withdrawn" / NORTH.id).write_bytes(b"")
        assert [one.kind for one in audit(store).findings] == ["stray"]

    def test_an_aircrafts_store_may_carry_one_and_no_draft(self, store: Path) -> None:
        begin(store, key("pilot"))
        with Media(store) as media:
            assert not fsck(media, replace(FULL, exclusive=True)).errors
        begin(store, now=NOW + 1)
        with Media(store) as media:
            assert fsck(media, replace(FULL, exclusive=True)).errors

    def test_one_mission(self, store: Path) -> None:
        begin(store, key("pilot"))
        with Media(store) as media:
            assert fsck(media, Scope("full", mission=NORTH.id)).missions == {NORTH.id: "withdrawn"}


def test_a_collection_keeps_what_was_withdrawn(store: Path) -> None:
    begin(store, key("pilot"))
    begin(store, now=NOW + 1)
    with Repository.open(store) as repository:
        assert not collect(repository, now=NOW + 10**9, grace=0).trash
    assert kinds(store) == ["withdrawn"]


def test_as_of(store: Path) -> None:
    """The log says when the withdrawal came, and when what it is about was published again."""

    def then(at: int) -> list[str]:
        with Media(store) as media:
            return [one.kind for one in verify_mission(EvidenceAsOf(media, at), NORTH.id, pinned(), Binding()).findings]

    with Media(store) as media:
        published = log.events(media)[-1].at
    begin(store, key("pilot"), now=published + 100)
    assert (then(published + 99), then(published + 100)) == ([], ["withdrawn"])
    (store / "withdrawn" / NAME).unlink()
    assert then(published + 100) == ["unreadable"]


@pytest.mark.parametrize("damage", [False, True])
def test_as_of_a_store_whose_log_has_no_line_of_it(store: Path, damage: bool) -> None:
    """A plain copy of the file, or a bag that tar unpacked. As of a trust root without a line, its time of issue
    counts; of one that is damaged nobody knows the time."""
    with Media(store) as media:
        published = log.events(media)[-1].at
    (store / "withdrawn").mkdir()
    data = sign_withdrawal(withdrawal(issued_at=published + 100))
    (store / "withdrawn" / NAME).write_bytes(data[:-1] if damage else data)

    def then(at: int) -> list[str]:
        with Media(store) as media:
            return [one.kind for one in verify_mission(EvidenceAsOf(media, at), NORTH.id, pinned(), Binding()).findings]

    expected = (["not-canonical"], ["not-canonical"]) if damage else ([], ["withdrawn"])
    assert (then(published + 99), then(published + 100)) == expected


def test_a_root_that_takes_the_signers_out_leaves_newer_missions_alone(store: Path) -> None:
    begin(store, key("pilot"))
    second = next_root(ROOT, mission=role("co-pilot"))
    (store / "trust/2.root.cbor").write_bytes(sign_root(second, "root-a"))
    assert kinds(store) == ["unknown-signer"]
    publish(store, flight(root=second, by=("co-pilot",), issue=replace(ISSUE, sequence=NOW + 5)))
    assert check(store, NORTH.id).go


def test_a_power_cut_at_any_operation(store: Path, tmp_path: Path) -> None:
    """The mission flies, or it is withdrawn and logged; the command can be run again."""
    counted, folder = Recorded(), tmp_path / "counted"
    shutil.copytree(store, folder)
    begin(folder, key("pilot"), disk=counted)
    assert len(counted.operations) > 6
    for stop in range(len(counted.operations)):
        folder = tmp_path / str(stop)
        shutil.copytree(store, folder)
        with pytest.raises(PowerFails):
            begin(folder, key("pilot"), disk=PowerCut(stop))
        with Media(folder) as media:
            logged = log.events(media)[-1].event == "withdrawn"
        assert kinds(folder) in ([], ["withdrawn"])
        assert logged or kinds(folder) == []
        assert not audit(folder, full=False).errors
        begin(folder, key("pilot"), now=NOW + 1)
        assert kinds(folder) == ["withdrawn"]


def test_what_is_shown_is_what_is_signed(store: Path) -> None:
    shown: list[Pending] = []

    def approve(pending: Pending) -> Sequence[PrivateKey]:
        shown.append(pending)
        return [key("pilot")]

    with Repository.open(store) as repository:
        outcome = withdrawals.begin(repository, NAME, approve, reason="smoke", now=NOW)
    assert shown[0].value == outcome.pending.value == Withdrawal("smoke", NOW, NORTH.id, 1, NOW)
