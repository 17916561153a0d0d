"""What an aircraft remembers of withdrawals: whatever the next medium has, and through every power cut."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from store.disk.durable import Disk
from store.disk.media import Media
from store.errors import Refused
from store.format.withdrawal import Withdrawal
from store.takeoff.aircraft import check, enrol, prove, read_state
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Verdict
from store.trust.aircraft_state import AircraftState
from tests.faults.disks import PowerCut, PowerFails, Recorded
from tests.support.missions import ISSUE, NOW, flight, next_root, pinned, sign_root, sign_withdrawal, withdrawal
from tests.support.stores import NORTH, file_of, make_store, publish

STATE = AircraftState.initial("uav-07", "cpu-x86_64-avx2", pinned())
AGAIN = flight(issue=replace(ISSUE, sequence=ISSUE.sequence + 5))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    enrol(tmp_path / "state", STATE)
    return tmp_path / "state"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store", NORTH)


def withdraw(store: Path, value: Withdrawal | None = None, by: str = "pilot") -> Path:
    """Put a signed withdrawal into a store; return its file."""
    value = value or withdrawal()
    (store / "withdrawn").mkdir(exist_ok=True)
    path = store / "withdrawn" / value.name
    path.write_bytes(sign_withdrawal(value, by=(by,)))
    return path


def takeoff(state: Path, store: Path, disk: Disk | None = None) -> Verdict:
    with Media(store) as media:
        return check(state, StoreEvidence(media), NORTH.id, now=NOW, disk=disk)


def kinds(verdict: Verdict) -> list[str]:
    return [finding.kind for finding in verdict.findings]


def test_a_withdrawal_that_was_seen_stays_though_its_file_is_gone(state: Path, store: Path) -> None:
    assert takeoff(state, store).go
    path = withdraw(store)
    assert kinds(takeoff(state, store)) == ["withdrawn"]
    path.unlink()
    (verdict,) = takeoff(state, store).findings
    assert (verdict.kind, verdict.step) == ("withdrawn", "E")
    assert "has seen" in verdict.message
    # One that is older, or damaged, changes nothing.
    withdraw(store, withdrawal(sequence=1))
    assert kinds(takeoff(state, store)) == ["withdrawn"]
    publish(store, AGAIN)
    assert takeoff(state, store).go
    assert read_state(state).state.withdrawn(withdrawal().name) is None


@pytest.mark.parametrize("damaged", ["ref", "manifest", "table"])
def test_it_is_seen_on_a_medium_whose_mission_is_damaged(
    state: Path, store: Path, tmp_path: Path, damaged: str
) -> None:
    """The crew takes last week's medium in its place."""
    old = Path(shutil.copytree(store, tmp_path / "old"))
    withdraw(store)
    path = {
        "ref": store / "missions" / NORTH.id,
        "manifest": file_of(store, NORTH.manifest_id),
        "table": file_of(store, NORTH.manifest.table),
    }[damaged]
    path.unlink()
    assert kinds(takeoff(state, store)) == ["missing"]
    assert kinds(takeoff(state, old)) == ["withdrawn"]


def test_what_does_not_hold_is_not_remembered(state: Path, store: Path) -> None:
    path = withdraw(store, by="stranger")
    assert kinds(takeoff(state, store)) == ["unknown-signer"]
    assert read_state(state).state == STATE
    path.unlink()
    assert takeoff(state, store).go


def test_a_withdrawal_of_a_later_mission_than_the_one_on_the_medium(state: Path, store: Path) -> None:
    withdraw(store, withdrawal(AGAIN))
    assert kinds(takeoff(state, store)) == ["withdrawn"]
    with pytest.raises(Refused) as refused:  # the ground publishes nothing that cannot fly
        publish(store, AGAIN)
    assert refused.value.kind == "withdrawn"
    shutil.rmtree(store / "withdrawn")
    publish(store, AGAIN)
    assert kinds(takeoff(state, store)) == ["withdrawn"]


def test_a_new_epoch_ends_it(state: Path, store: Path) -> None:
    withdraw(store, withdrawal(sequence=2**63 - 1))
    assert kinds(takeoff(state, store)) == ["withdrawn"]
    second = next_root(pinned().root, epoch=2)
    (store / "trust/2.root.cbor").write_bytes(sign_root(second, "root-a"))
    publish(store, flight(root=second, issue=replace(ISSUE, epoch=2, sequence=1)))
    assert takeoff(state, store).go


def test_a_probe_remembers_it_too(state: Path, store: Path) -> None:
    withdraw(store)
    with Media(store) as media:
        proving = prove(state, StoreEvidence(media), NORTH.id, lambda _: [], now=NOW)
    assert proving.refused is not None
    assert read_state(state).state.withdrawn(withdrawal().name) == ISSUE.order


def test_a_full_state_says_so_beside_the_withdrawal(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.trust.aircraft_state.MAX_MISSIONS", 0)
    enrol(tmp_path / "full", STATE)
    withdraw(store)
    assert kinds(takeoff(tmp_path / "full", store)) == ["withdrawn", "state-full"]


def test_a_power_cut_at_any_operation(state: Path, store: Path, tmp_path: Path) -> None:
    """The state stays whole, and what was not written yet is written when the medium is looked at again."""
    path = withdraw(store)
    stick = tmp_path / "stick"
    shutil.copytree(store, stick)
    (stick / "withdrawn" / path.name).unlink()
    counted, folder = Recorded(), tmp_path / "counted"
    shutil.copytree(state, folder)
    assert kinds(takeoff(folder, store, counted)) == ["withdrawn"]
    assert len(counted.operations) > 8
    for stop in range(len(counted.operations)):
        folder = tmp_path / str(stop)
        shutil.copytree(state, folder)
        with pytest.raises(PowerFails):
            takeoff(folder, store, PowerCut(stop))
        assert read_state(folder).state.id == STATE.id
        assert kinds(takeoff(folder, store)) == ["withdrawn"]
        assert kinds(takeoff(folder, stick)) == ["withdrawn"]
