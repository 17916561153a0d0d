"""Flights that are consumed: what cannot be undone is not done to a flight that nobody flew, and stays done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from store import aircraft
from store.errors import FlightbagError
from tests.conformance.wrong import wrong
from tests.support.missions import FACTS, ISSUE, ROOT, flight, next_root, pinned, sign_root
from tests.support.stores import make_store

HOST = "cpu-x86_64-avx2"
ENROLLED = aircraft.AircraftState.initial("uav-07", HOST, pinned())
NEXT = flight(mission=replace(FACTS, flight="2026-11-24-01"), issue=replace(ISSUE, sequence=ISSUE.sequence + 1))


def aboard(folder: Path) -> tuple[Path, Path]:
    """An aircraft's state that has accepted the mission, and the store."""
    state, store = folder / "state", make_store(folder / "store", flight())
    aircraft.enrol(state, ENROLLED)
    assert aircraft.check(state, store, FACTS.id).go
    return state, store


def consumed(state: Path, flight_id: str) -> str:
    try:
        aircraft.consume(state, flight_id)
    except FlightbagError as error:
        return error.kind or type(error).__name__
    return "consumed"


def flies(state: Path, store: Path) -> str:
    verdict = aircraft.check(state, store, FACTS.id)
    return ", ".join(finding.kind for finding in verdict.findings) or "GO"


@wrong("words", "consume a mistyped flight", before="consumed", now="unknown-flight")
def a_typo(folder: Path) -> str:
    state, _ = aboard(folder)
    return consumed(state, "2026-11-23-10")


@wrong("words", "consume the mission's id in place of the flight's", before="consumed", now="unknown-flight")
def the_missions_id(folder: Path) -> str:
    state, _ = aboard(folder)
    return consumed(state, FACTS.id)


@wrong("words", "consume tomorrow's flight, which had no GO yet, then fly it", before="consumed, consumed-flight",
       now="unknown-flight, GO")  # fmt: skip
def a_flight_without_a_go(folder: Path) -> str:
    state, _ = aboard(folder)
    outcome = consumed(state, NEXT.manifest.mission.flight)
    return f"{outcome}, {flies(state, make_store(folder / 'next', NEXT))}"


@wrong("words", "enrol again with another host class, then fly a consumed flight", before="GO", now="consumed-flight")
def enrolled_again(folder: Path) -> str:
    state, store = aboard(folder)
    aircraft.consume(state, FACTS.flight)
    aircraft.enrol(state, aircraft.AircraftState.initial("uav-07", "cpu-x86_64-avx512", pinned()), again=True)
    return flies(state, store)


@wrong("words", "enrol again after one slot of the state was torn, then fly a consumed flight", before="GO",
       now="consumed-flight")  # fmt: skip
def enrolled_again_with_one_slot(folder: Path) -> str:
    state, store = aboard(folder)
    aircraft.consume(state, FACTS.flight)
    (state / "a").write_bytes(b"torn")
    aircraft.enrol(state, ENROLLED, again=True)
    return flies(state, store)


@wrong("words", "enrol again with the first root, then fly what a revoked key signed", before="GO",
       now="revoked-key")  # fmt: skip
def enrolled_again_with_an_old_root(folder: Path) -> str:
    state, store = aboard(folder)
    revoking = next_root(ROOT, mission=replace(ROOT.mission, keys=ROOT.root.keys), revoked=ROOT.mission.keys)
    (store / "trust/2.root.cbor").write_bytes(sign_root(revoking, "root-a"))
    assert flies(state, store) == "revoked-key"
    (store / "trust/2.root.cbor").unlink()
    aircraft.enrol(state, ENROLLED, again=True)
    return flies(state, store)


@wrong("words", "enrol again, then fly an older issue of an accepted mission", before="GO", now="rolled-back")
def enrolled_again_and_rolled_back(folder: Path) -> str:
    state, store = aboard(folder)
    assert flies(state, make_store(folder / "next", NEXT)) == "GO"
    aircraft.enrol(state, ENROLLED, again=True)
    return flies(state, store)


@wrong("words", "a mission planned again for the next flight before landing: consume the flight in the air",
       before="consumed", now="consumed")  # fmt: skip
def planned_again_before_landing(folder: Path) -> str:
    state, _ = aboard(folder)
    assert flies(state, make_store(folder / "next", NEXT)) == "GO"
    return consumed(state, FACTS.flight)


@wrong(
    "words", "enrol the state of uav-07 again as uav-08", before="enrolled, and flights forgotten", now="wrong-aircraft"
)
def enrolled_as_another(folder: Path) -> str:
    state, _ = aboard(folder)
    try:
        aircraft.enrol(state, aircraft.AircraftState.initial("uav-08", HOST, pinned()), again=True)
    except FlightbagError as error:
        return error.kind
    return "enrolled, and flights forgotten" if not aircraft.read_state(state).state.consumed else "enrolled"
