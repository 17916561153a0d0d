"""The aircraft's state against a model of it, through any order of what may happen to an aircraft.

The model keeps what was heard in a list of facts, and derives what the state must be from the whole list each time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from store.errors import FlightbagError, Refused
from store.format.manifest import SKEW
from store.trust.aircraft_state import AircraftState
from store.trust.root import SignedRoot
from tests.support.missions import (
    CONTENTS,
    FACTS,
    ISSUE,
    NOW,
    ROOT,
    manifest_of,
    next_root,
    pinned,
    sign_root,
    table_of,
)

TABLE = table_of(CONTENTS)
FLIGHTS = ["monday", "tuesday", "wednesday"]
# Around now, a day away, and a year away.
times = st.builds(
    lambda around, by: NOW + around + by,
    st.sampled_from([0, SKEW, -SKEW, 365 * SKEW, -365 * SKEW]),
    st.integers(-2, 2),
)
clocks = st.none() | times
proofs = st.sampled_from([bytes([number]) * 32 for number in range(4)])


@dataclass(frozen=True)
class Heard:
    """A time that the aircraft was told: in an epoch, or by a clock (epoch 0)."""

    epoch: int
    at: int


class Weeks(RuleBasedStateMachine):
    @initialize()
    def enrols(self) -> None:
        self.root = ROOT
        self.state = AircraftState.initial("uav-07", "cpu", pinned())
        self.heard = [Heard(1, ROOT.issued_at)]
        self.accepted: set[str] = set()
        self.consumed: set[str] = set()
        self.proofs: set[bytes] = set()
        self.host = "cpu"

    def latest(self, epoch: int) -> int:
        return max((one.at for one in self.heard if one.epoch == epoch), default=0)

    @rule(flight=st.sampled_from(FLIGHTS), issued_at=times, life=st.none() | st.integers(0, SKEW), clock=clocks)
    def has_a_go(self, flight: str, issued_at: int, life: int | None, clock: int | None) -> None:
        """Step E has judged it: it is not ahead of the clock, not expired, and its flight was not flown."""
        end = None if life is None else issued_at + life
        if flight in self.consumed or (clock is not None and issued_at > clock + SKEW):
            return
        if end is not None and max(clock or 0, issued_at) > end:
            return
        issue = replace(ISSUE, epoch=self.root.epoch, issued_at=issued_at, expires_at=end)
        manifest = manifest_of(TABLE, issue=issue, mission=replace(FACTS, id=flight, flight=flight))
        self.state = self.state.accepting(manifest, now=clock or 0)
        self.heard.append(Heard(self.root.epoch, issued_at))
        if clock is not None and end is not None:
            self.heard.append(Heard(0, clock))
        self.accepted.add(flight)

    @rule(flight=st.sampled_from(FLIGHTS))
    def flies(self, flight: str) -> None:
        try:
            self.state = self.state.consuming(flight)
        except FlightbagError:
            assert flight not in self.accepted | self.consumed
            return
        assert flight in self.accepted | self.consumed
        self.consumed.add(flight)
        self.accepted.discard(flight)

    @rule(issued_at=times, new_epoch=st.booleans(), clock=clocks)
    def sees_a_newer_root(self, issued_at: int, new_epoch: bool, clock: int | None) -> None:
        self.root = next_root(self.root, issued_at=issued_at, epoch=self.root.epoch + new_epoch)
        self.state = self.state.with_root(self.signed(), now=clock)
        if clock is None or issued_at <= clock + SKEW:
            self.heard.append(Heard(self.root.epoch, issued_at))

    @rule(held=st.sets(proofs), failed=st.sets(proofs))
    def is_probed(self, held: set[bytes], failed: set[bytes]) -> None:
        self.state = self.state.proving(held, failed)
        self.proofs = (self.proofs | held) - failed

    @rule(host=st.sampled_from(["cpu", "cpu-x86_64"]))
    def is_enrolled_again(self, host: str) -> None:
        """With the root that it has, so that the aircraft hears its time of issue for sure."""
        fresh = AircraftState.initial("uav-07", host, self.signed())
        self.state = fresh.continuing([self.state])
        self.proofs = self.proofs if host == self.host else set()
        self.host = host
        self.heard.append(Heard(self.root.epoch, self.root.issued_at))

    @rule(at=times)
    def is_lowered(self, at: int) -> None:
        before = self.state
        if self.root.issued_at > at + SKEW:
            with pytest.raises(Refused):
                before.lowering(at)
            return
        self.state = before.lowering(at)
        assert self.state.floor <= max(at, self.root.issued_at)
        assert self.state == replace(before, issued=self.state.issued, clock=self.state.clock)
        most = max(at, self.root.issued_at)
        self.heard = [replace(one, at=min(one.at, most if one.epoch else at)) for one in self.heard]

    def signed(self) -> SignedRoot:
        return SignedRoot.parse(sign_root(self.root, "root-a"))

    @invariant()
    def is_what_was_heard(self) -> None:
        if not hasattr(self, "state"):
            return
        state = self.state
        assert (state.issued, state.clock) == (self.latest(self.root.epoch), self.latest(0))
        assert state.floor == max(state.issued, state.clock)
        assert {*state.proofs} == self.proofs
        assert ({*state.accepted}, {*state.consumed}) == (self.accepted, self.consumed)
        assert all(seen.epoch == self.root.epoch for seen in state.missions.values())
        assert AircraftState.parse(state.render()) == state


TestWeeks = Weeks.TestCase
TestWeeks.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
