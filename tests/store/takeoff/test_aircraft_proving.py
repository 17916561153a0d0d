"""A probe aboard: what it records, what it takes away, and what it never does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from store.disk.durable import Disk
from store.disk.media import Media, object_path
from store.errors import Conflict, Corrupt, Refused, Unavailable
from store.takeoff.aircraft import Proving, check, consume, enrol, prove, read_state
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Verdict, VerifiedMission
from store.trust.aircraft_state import MAX_PROOFS, AircraftState
from tests.faults.disks import PowerCut, PowerFails, Recorded
from tests.support.missions import FACTS, ISSUE, NOW, PROBED, ROOT, UNPROVEN, flight, next_root, pinned, role, sign_root
from tests.support.stores import listing, make_store, publish

ID, HOST = "uav-07", "cpu-x86_64-avx2"
STATE = AircraftState.initial(ID, HOST, pinned())
MISSION = flight(PROBED, unproven=(UNPROVEN,))


@dataclass(frozen=True)
class Shown:
    """What an engine showed."""

    value: int | None = UNPROVEN.least
    name: str = UNPROVEN.name
    recipe: bytes = UNPROVEN.recipe


@pytest.fixture
def state(tmp_path: Path) -> Path:
    enrol(tmp_path / "state", STATE)
    return tmp_path / "state"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a mission whose engine nobody has run. No test changes it."""
    return make_store(tmp_path_factory.mktemp("proving") / "store", MISSION)


def probe(
    state: Path, store: Path, *shown: Shown, disk: Disk | None = None, mission: str = MISSION.id
) -> Proving[Shown]:
    with Media(store) as media:
        return prove(state, StoreEvidence(media), mission, lambda _: shown, disk=disk)


def takeoff(state: Path, store: Path, mission: str = MISSION.id) -> Verdict:
    with Media(store) as media:
        return check(state, StoreEvidence(media), mission, now=NOW)


def kinds(verdict: Verdict | None) -> list[str]:
    return [finding.kind for finding in verdict.findings] if verdict is not None else []


def test_no_go_then_a_probe_then_go(state: Path, store: Path) -> None:
    assert kinds(takeoff(state, store)) == ["unproven"]
    assert probe(state, store, Shown()) == Proving(None, (Shown(),), (UNPROVEN.name,), ())
    assert takeoff(state, store).go
    before = listing(state, but=("lock", "tmp"))
    assert probe(state, store, Shown()).held == (UNPROVEN.name,)
    assert listing(state, but=("lock", "tmp")) == before, "what is known already writes nothing"


def test_it_accepts_nothing(state: Path, store: Path) -> None:
    assert probe(state, store, Shown()).refused is None
    kept = read_state(state).state
    assert kept == replace(STATE, proofs=kept.proofs)
    assert len(kept.proofs) == 1


@pytest.mark.parametrize(
    "shown",
    [
        [Shown(UNPROVEN.least - 1)],
        [Shown(None)],
        [Shown(recipe=bytes(32))],
        [Shown(name="fidelity/other")],
        [Shown(name="self@1/net")],
        [],
    ],
)
def test_what_does_not_hold_records_nothing(state: Path, store: Path, shown: Sequence[Shown]) -> None:
    assert probe(state, store, *shown).held == ()
    assert read_state(state).state == STATE
    assert kinds(takeoff(state, store)) == ["unproven"]


def test_a_probe_that_fails_takes_the_proof_away(state: Path, store: Path) -> None:
    probe(state, store, Shown())
    assert takeoff(state, store).go
    assert probe(state, store, Shown(UNPROVEN.least - 1)).failed == (UNPROVEN.name,)
    assert read_state(state).state.proofs == ()
    assert kinds(takeoff(state, store)) == ["unproven"]
    probe(state, store, Shown())
    probe(state, store, Shown(None))
    assert takeoff(state, store).go, "nothing was measured, so nothing was refuted"


@pytest.mark.parametrize("error", [Refused("no"), Corrupt("no"), Unavailable("no"), KeyError("no")], ids=repr)
def test_an_engine_that_does_not_run_changes_nothing(state: Path, store: Path, error: Exception) -> None:
    def fails(_mission: VerifiedMission) -> Sequence[Shown]:
        raise error

    probe(state, store, Shown())
    before = listing(state, but=("lock", "tmp"))
    with Media(store) as media, pytest.raises(type(error)):
        prove(state, StoreEvidence(media), MISSION.id, fails)
    assert listing(state, but=("lock", "tmp")) == before


def test_other_bytes_need_another_probe(state: Path, store: Path, tmp_path: Path) -> None:
    """Engines and probes under the same key, and so with the same recipe."""
    probe(state, store, Shown())
    for name in ("engines/net/net.onnx", "probes/net.safetensors"):
        other = make_store(
            tmp_path / name.replace("/", "-"), flight({**PROBED, name: b"other bytes"}, unproven=(UNPROVEN,))
        )
        assert kinds(takeoff(state, other)) == ["unproven"]
    other = flight(PROBED, unproven=(replace(UNPROVEN, least=1),), mission=replace(FACTS, id="laxer", flight="l"))
    assert kinds(takeoff(state, make_store(tmp_path / "laxer", other), "laxer")) == ["unproven"]


def test_another_mission_with_the_same_engine_and_probe_needs_no_other(
    state: Path, store: Path, tmp_path: Path
) -> None:
    probe(state, store, Shown())
    camera = {"files/calibration/camera.yaml": b"fx: 2.0\n"}
    other = flight({**PROBED, **camera}, unproven=(UNPROVEN,), mission=replace(FACTS, id="next", flight="next"))
    assert takeoff(state, make_store(tmp_path / "next", other), "next").go


def never(_mission: VerifiedMission) -> Sequence[Shown]:
    raise AssertionError("the engine of a mission that does not verify was run")


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda store: (store / "missions" / MISSION.id).unlink(), "missing"),
        (lambda store: (store / object_path(MISSION.entry("engines/net/net.onnx").id)).unlink(), "missing"),
        (lambda store: (store / object_path(MISSION.entry("probes/net.safetensors").id)).unlink(), "missing"),
        (lambda store: (store / "missions" / MISSION.id).write_text("no id"), "bad-ref"),
    ],
)
def test_only_what_passes_every_other_step_is_run(
    state: Path, store: Path, tmp_path: Path, damage: Callable[[Path], None], kind: str
) -> None:
    shutil.copytree(store, tmp_path / "bad")
    damage(tmp_path / "bad")
    with Media(tmp_path / "bad") as media:
        refused = prove(state, StoreEvidence(media), MISSION.id, never).refused
    assert kinds(refused) == [kind]
    assert read_state(state).state == STATE


def test_for_this_aircraft_only(store: Path, tmp_path: Path) -> None:
    for id_, host, kind in (("uav-99", HOST, "wrong-aircraft"), (ID, "cpu-aarch64", "wrong-host")):
        enrol(tmp_path / host, AircraftState.initial(id_, host, pinned()))
        with Media(store) as media:
            refused = prove(tmp_path / host, StoreEvidence(media), MISSION.id, never).refused
        assert kinds(refused) == [kind]
    with Media(store) as media:
        assert kinds(prove(tmp_path / "none", StoreEvidence(media), MISSION.id, never).refused) == ["no-state"]
    assert not (tmp_path / "none").exists()


def test_a_flown_flight_is_not_probed(state: Path, store: Path) -> None:
    probe(state, store, Shown())
    assert takeoff(state, store).go
    consume(state, FACTS.flight)
    assert kinds(probe(state, store, Shown()).refused) == ["consumed-flight"]


def test_a_newer_root_is_kept_also_where_it_refuses(state: Path, tmp_path: Path) -> None:
    second = next_root(ROOT, mission=role("co-pilot"), revoked=role("pilot").keys)
    bad = make_store(tmp_path / "bad", MISSION)
    (bad / "trust/2.root.cbor").write_bytes(sign_root(second, "root-a"))
    assert kinds(probe(state, bad, Shown()).refused) == ["revoked-key"]
    assert read_state(state).state == STATE.with_root(pinned(second))


def test_an_aircraft_that_is_another_meanwhile_has_proven_nothing(state: Path, store: Path) -> None:
    def enrolled_meanwhile(_mission: VerifiedMission) -> Sequence[Shown]:
        enrol(state, AircraftState.initial(ID, "cpu-x86_64-avx512", pinned()), again=True)
        return [Shown()]

    with Media(store) as media, pytest.raises(Conflict) as caught:
        prove(state, StoreEvidence(media), MISSION.id, enrolled_meanwhile)
    assert caught.value.kind == "enrolled"
    assert read_state(state).state.proofs == ()


def test_a_check_does_not_wait_for_the_engine(state: Path, store: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other")

    def checks_meanwhile(_mission: VerifiedMission) -> Sequence[Shown]:
        assert takeoff(state, other, "south-ridge").go
        return [Shown()]

    with Media(store) as media:
        prove(state, StoreEvidence(media), MISSION.id, checks_meanwhile)
    kept = read_state(state).state
    assert (set(kept.missions), len(kept.proofs)) == ({"south-ridge"}, 1)


def test_a_full_state_says_so(tmp_path: Path, store: Path) -> None:
    full = replace(STATE, proofs=tuple(number.to_bytes(32, "big") for number in range(MAX_PROOFS)))
    enrol(tmp_path / "full", full)
    with pytest.raises(Refused) as caught:
        probe(tmp_path / "full", store, Shown())
    assert caught.value.kind == "state-full"
    assert read_state(tmp_path / "full").state == full


def test_enrolled_again_it_keeps_its_proofs_for_the_same_class(state: Path, store: Path) -> None:
    probe(state, store, Shown())
    enrol(state, STATE, again=True)
    assert takeoff(state, store).go
    enrol(state, AircraftState.initial(ID, "cpu-x86_64-avx512", pinned()), again=True)
    assert kinds(takeoff(state, store)) == ["unproven"]


@pytest.mark.parametrize("shown", [Shown(), Shown(0)], ids=["held", "failed"])
def test_a_power_cut_at_any_operation(state: Path, store: Path, tmp_path: Path, shown: Shown) -> None:
    """The state before counts or the one after, and it can be probed again."""
    if not shown.value:
        probe(state, store, Shown())
    before = read_state(state).state
    counted, folder = Recorded(), tmp_path / "counted"
    shutil.copytree(state, folder)
    probe(folder, store, shown, disk=counted)
    after = read_state(folder).state
    assert before != after
    assert len(counted.operations) > 8
    for stop in range(len(counted.operations)):
        folder = tmp_path / str(stop)
        shutil.copytree(state, folder)
        with pytest.raises(PowerFails):
            probe(folder, store, shown, disk=PowerCut(stop))
        assert read_state(folder).state in (before, after)
        probe(folder, store, shown)
        assert read_state(folder).state == after
        assert not read_state(folder).mend


def test_it_is_published_and_carried_all_the_same(tmp_path: Path) -> None:
    """A ground store takes it, and another issue of it."""
    store = make_store(tmp_path / "store", MISSION)
    publish(store, flight(PROBED, unproven=(UNPROVEN,), issue=replace(ISSUE, sequence=ISSUE.sequence + 1)))
