"""The state of an aircraft (FORMAT.md 10.1, 10.2): its memory between flights, and what it refuses.

Missions are compared by mission id, because an aircraft may carry Wednesday's mission before it flies Tuesday's. It
refuses an (epoch, sequence) that is older than the last one that it accepted for the mission, and the same one with
another payload. A flight that was accepted can be consumed, and a consumed flight does not fly again: consuming cannot
be undone, so that a flight that the aircraft does not know is refused.

The floor is a time that has passed, as far as the aircraft was told: a mission that has expired stays expired, also
without a clock. It has two parts (decision 17). What signed times of issue say counts for their epoch: a new epoch
ends a floor that stolen keys or a wrong clock on the ground drove up. What a trusted clock said is of no epoch. A
person at the aircraft can lower both, and loses nothing else.

Pure: bytes come in and go out. `takeoff.aircraft` keeps the two slots on disk (decision 0008).

A proof says that an engine, which nobody had run before, agreed with its map on this machine (`takeoff.fidelity`). It
is of bytes and of the machine: no root and no mission ends it, another host class does.

A withdrawal that was seen stays seen, also when the next stick lacks it: of a mission until a newer manifest passes
every step or a new epoch begins, of a release for good.

Laws: `AircraftState.parse(s.render()) == s`, and only canonical bytes parse. Nothing but `consuming` adds a consumed
flight, and nothing takes one away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from store.errors import Conflict, Corrupt, Invalid, NotFound, Refused
from store.format.cbor import INT_MAX, Fields, ascending, decode, encode
from store.format.host import NEED, objection, require_host_class
from store.format.ids import DIGEST_SIZE, ObjectId
from store.format.manifest import AIRCRAFT_ID, FLIGHT_ID, MISSION_ID, SKEW, TIME_MAX, Manifest, utc
from store.format.withdrawal import Withdrawal, of_release
from store.trust.root import ROOT_FILE_LIMIT, SignedRoot
from store.values import dataclass, replace

if TYPE_CHECKING:
    from typing_extensions import Self

FORMAT = 1
# The bounds below fit into it.
STATE_LIMIT = 6 * 2**20
MAX_MISSIONS = 10_000
MAX_ACCEPTED = 10_000
MAX_CONSUMED = 50_000
MAX_PROOFS = 10_000
MAX_RELEASES = 1_000
_NEAREST = 3
_FORGET_PROOFS = (
    "enrol the aircraft again (flightbag aircraft enrol --again) with another host class, then with its own: that "
    "forgets the proofs; then probe the missions that it is to fly"
)
_NEW_EPOCH = "give the trust domain a new epoch: the missions before it are forgotten"
_NEW_FOLDER = "give the trust domain a new epoch, and enrol the aircraft in a new folder: no mission before it flies"


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The last manifest of a mission that passed every step: its epoch and sequence, and the BLAKE3 of its payload.

    `digest` is b"" where the aircraft has seen a withdrawal since: none up to this (epoch, sequence) flies.
    """

    epoch: int
    sequence: int
    digest: bytes

    @property
    def order(self) -> tuple[int, int]:
        """The (epoch, sequence)."""
        return self.epoch, self.sequence

    @property
    def rank(self) -> tuple[int, int, bool, bytes]:
        """The order of which of two is remembered: a withdrawal before an acceptance of the same sequence."""
        return self.epoch, self.sequence, not self.digest, self.digest


@dataclass(frozen=True, slots=True)
class AircraftState:
    """The whole memory of one aircraft.

    `root` is the newest trust root that the aircraft has seen, `missions` maps mission ids to the last acceptance.
    `accepted` are the ids of the flights that had a GO and were not consumed, `consumed` of those that were flown; no
    flight is both. `issued` is the latest time of issue, in unix seconds, of the roots and manifests that the aircraft
    accepted in the epoch of `root`. `clock` is the latest reading of a trusted clock that a mission's end bounds. Both
    are 0 where there is none. `proofs` are the digests, 32 bytes each, of what was proven aboard (FORMAT.md 10.5).
    `releases` are the digests of the payloads of releases that were withdrawn, ascending.
    """

    id: str
    host: str
    root: SignedRoot
    missions: Mapping[str, Acceptance]
    accepted: tuple[str, ...]
    consumed: tuple[str, ...]
    issued: int
    clock: int
    proofs: tuple[bytes, ...] = ()
    releases: tuple[bytes, ...] = ()

    @property
    def floor(self) -> int:
        """The time, in unix seconds, that has passed as far as the aircraft was told."""
        return max(self.issued, self.clock)

    @classmethod
    def initial(cls, id_: str, host: str, root: SignedRoot) -> Self:
        """Return the state of a newly enrolled aircraft. Raises Invalid for a bad aircraft id or host class."""
        if not AIRCRAFT_ID.fullmatch(id_):
            raise Invalid(
                f"{id_[:80]!r} is not an aircraft id", remedy="give 1 to 64 of a-z 0-9 . _ -, first a letter or digit"
            )
        require_host_class(host)
        return cls(id_, host, root, {}, (), (), issued=root.root.issued_at, clock=0)

    def render(self) -> bytes:
        """Return the canonical bytes. Raises Corrupt where the state exceeds a bound of the format."""
        data = encode(
            {
                "format": FORMAT,
                "id": self.id,
                "host": self.host,
                "root": self.root.envelope.render(),
                "missions": [[id_, s.epoch, s.sequence, s.digest] for id_, s in sorted(self.missions.items())],
                "accepted": list(self.accepted),
                "consumed": list(self.consumed),
                "issued": self.issued,
                "clock": self.clock,
                "proofs": list(self.proofs),
                "releases": list(self.releases),
            }
        )
        self.parse(data)
        return data

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the state of canonical bytes.

        Raises Corrupt for any other bytes, Untrusted for a root without its threshold.
        """
        fields = Fields(decode(data, limit=STATE_LIMIT, what="the aircraft's state"), "state")
        fields.integer("format", FORMAT, FORMAT)
        root = fields.blob("root", ROOT_FILE_LIMIT)
        rows = [_row(item) for item in fields.array("missions", 0, MAX_MISSIONS)]
        accepted = _flights(fields.array("accepted", 0, MAX_ACCEPTED), "state.accepted")
        consumed = _flights(fields.array("consumed", 0, MAX_CONSUMED), "state.consumed")
        if not set(accepted).isdisjoint(consumed):
            raise Corrupt("a flight of state.accepted is consumed", kind="bad-field", field="state.accepted")
        state = cls(
            id=fields.text("id", AIRCRAFT_ID),
            host=fields.text("host", NEED),
            root=SignedRoot.parse(root),
            missions=dict(rows),
            accepted=accepted,
            consumed=consumed,
            issued=fields.integer("issued", 0, TIME_MAX),
            clock=fields.integer("clock", 0, TIME_MAX),
            proofs=_digests(fields.array("proofs", 0, MAX_PROOFS), "state.proofs"),
            releases=_digests(fields.array("releases", 0, MAX_RELEASES), "state.releases"),
        )
        fields.end()
        if wrong := objection(state.host):
            raise Corrupt(f"state.host: {wrong}", kind="bad-field", field="state.host")
        ascending([id_ for id_, _ in rows], "state.missions")
        return state

    def objections(self, manifest: Manifest) -> Iterator[tuple[str, str, object, object]]:
        """Yield why this aircraft refuses a genuine manifest: (kind of finding, message, expected, actual) each."""
        facts, issue = manifest.mission, manifest.issue
        last = self.missions.get(facts.id)
        if last is not None and not last.digest:
            last = None  # a withdrawal: `takeoff.withdrawn` tells of it
        if last is not None and issue.order < last.order:
            text = f"the aircraft has accepted a newer issue of the mission, of sequence {last.sequence}"
            yield "rolled-back", text, last.sequence, issue.sequence
        elif last is not None and issue.order == last.order:
            digest = payload_digest(manifest)
            if digest != last.digest:
                text = f"the aircraft has accepted another mission of the same sequence {last.sequence}"
                yield "same-sequence", text, last.digest.hex(), digest.hex()
        if facts.flight in self.consumed:
            yield "consumed-flight", f"the flight {facts.flight} was flown already", "", facts.flight

    def with_root(self, root: SignedRoot, *, now: int | None = None) -> Self:
        """Return the state with a newer trust root. The caller has followed the chain from the root before to it.

        Missions of earlier epochs are forgotten, as they cannot fly any more, and so is what these epochs said of time.
        `now` is the time by a trusted clock, None without one: a root that it refuses as issued in the future enters
        the state, because its revocations count, and its time of issue does not.
        """
        new = root.root
        missions = {id_: last for id_, last in self.missions.items() if last.epoch >= new.epoch}
        believed = new.issued_at if now is None or now > TIME_MAX or new.issued_at <= now + SKEW else 0
        before = self.issued if new.epoch == self.root.root.epoch else 0
        return replace(self, root=root, missions=missions, issued=max(before, believed))

    def accepting(self, manifest: Manifest, *, now: int) -> Self:
        """Return the state after a mission passed every step. Raises Refused for one more than the state can hold.

        `now` is the trusted clock that judged it, 0 for none. It enters the floor only where the mission can run out,
        and so bounds it: else a clock that was once years ahead would end every later mission.
        """
        issue, facts = manifest.issue, manifest.mission
        missions = {**self.missions, facts.id: Acceptance(issue.epoch, issue.sequence, payload_digest(manifest))}
        accepted = tuple(sorted({*self.accepted, facts.flight}))
        ends = issue.expires_at is not None or manifest.coverage.ages
        if len(missions) > MAX_MISSIONS:
            raise _full("missions", MAX_MISSIONS, _NEW_EPOCH)
        if len(accepted) > MAX_ACCEPTED:
            raise _full("accepted flights", MAX_ACCEPTED, "consume the flights that were flown")
        return replace(
            self,
            missions=missions,
            accepted=accepted,
            issued=max(self.issued, issue.issued_at),
            clock=max(self.clock, now if ends else 0),
        )

    def withdrawn(self, name: str) -> tuple[int, int] | None:
        """Return up to which (epoch, sequence) the aircraft has seen a mission withdrawn, (0, 0) for a release, None
        where it has seen nothing. `name` is that of the withdrawal (`store.format.withdrawal`)."""
        last = self.missions.get(name.removesuffix(".mission"))
        if last is not None and not last.digest:
            return last.order
        return (0, 0) if any(of_release(digest) == name for digest in self.releases) else None

    def with_withdrawals(self, withdrawals: Iterable[Withdrawal]) -> Self:
        """Return the state that remembers withdrawals, which hold under its trust root: the same state if that changes
        nothing. Those of a mission are remembered in the epoch of the root, which ends them. Raises Refused for more
        than the state can hold."""
        missions, releases = dict(self.missions), {*self.releases}
        for one in withdrawals:
            if one.release:
                releases.add(one.release)
            elif one.epoch == self.root.root.epoch:
                seen = Acceptance(one.epoch, one.sequence, b"")
                missions[one.mission] = max(seen, missions.get(one.mission, seen), key=lambda last: last.rank)
        if (missions, releases) == (self.missions, {*self.releases}):
            return self
        if len(missions) > MAX_MISSIONS:
            raise _full("missions", MAX_MISSIONS, _NEW_EPOCH)
        if len(releases) > MAX_RELEASES:
            raise _full("withdrawn releases", MAX_RELEASES, _NEW_FOLDER)
        return replace(self, missions=missions, releases=tuple(sorted(releases)))

    def proving(self, held: Collection[bytes], failed: Collection[bytes]) -> Self:
        """Return the state with the proofs that a probe gave, and without those that it refuted: the same state if that
        changes nothing. Raises Refused for more than the state can hold."""
        proofs = tuple(sorted({*self.proofs, *held} - {*failed}))
        if proofs == self.proofs:
            return self
        if len(proofs) > MAX_PROOFS:
            raise _full("proofs", MAX_PROOFS, _FORGET_PROOFS)
        return replace(self, proofs=proofs)

    def lowering(self, at: int) -> Self:
        """Return the state with a floor of at most `at`, the time now in unix seconds, for which a person vouches.

        The floor stays at or above the time of issue of the trust root; nothing else changes. Raises Invalid for no
        time, Refused for a trust root that itself is from the future: another one has to take its place.
        """
        if not 0 <= at <= TIME_MAX:
            raise Invalid(f"{at} is not a time from 1970 to 9999", remedy="give the time now in unix seconds")
        root = self.root.root
        if root.issued_at > at + SKEW:
            raise Refused(
                f"the aircraft's trust root {root.version} was issued at {utc(root.issued_at)}, in the future of "
                f"{utc(at)}: the floor cannot go below that",
                remedy="check the time; if it is right, have a new epoch begun by a machine with a right clock, "
                "`flightbag trust new-epoch`, sync the store, and verify with it",
                kind="issued-in-future",
            )
        return replace(self, issued=min(self.issued, max(at, root.issued_at)), clock=min(self.clock, at))

    def consuming(self, flight: str) -> Self:
        """Return the state after a flight was flown: the same state if it was consumed before.

        Raises Invalid for a bad flight id, NotFound for a flight of which this aircraft has accepted no mission, and
        Refused for one more than the state can hold.
        """
        if not FLIGHT_ID.fullmatch(flight):
            raise Invalid(f"{flight[:80]!r} is not a flight id", remedy=self._flights_to_consume(flight))
        if flight in self.consumed:
            return self
        if flight not in self.accepted:
            raise NotFound(
                f"the aircraft {self.id} has had no GO for the flight {flight}",
                remedy=self._flights_to_consume(flight),
                kind="unknown-flight",
                flight=flight,
            )
        if len(self.consumed) == MAX_CONSUMED:
            raise _full("consumed flights", MAX_CONSUMED, _NEW_FOLDER)
        return replace(
            self,
            accepted=tuple(one for one in self.accepted if one != flight),
            consumed=tuple(sorted((*self.consumed, flight))),
        )

    def _flights_to_consume(self, flight: str) -> str:
        """Return the remedy for a flight that is not known: those that are, the nearest first."""
        if not self.accepted:
            return (
                "`flightbag verify` with --state accepts a flight by its GO, before takeoff: none can be consumed now"
            )
        from difflib import get_close_matches  # takes milliseconds, and only a mistake needs it

        near = get_close_matches(flight[:64], self.accepted, _NEAREST) or self.accepted[:_NEAREST]
        others = len(self.accepted) - len(near)
        more = f", and {others} more (`flightbag aircraft show`)" if others else ""
        return f"check the id; flights that can be consumed, the nearest first: {', '.join(near)}{more}"

    def continuing(self, earlier: Sequence[Self]) -> Self:
        """Return this newly enrolled state with what earlier states of the same aircraft remember.

        Flights and the reading of the clock stay, and in the same trust domain the missions, the newest trust root and
        the times of issue of its epoch; of proofs those that each of the states has, where it has this host class: they
        are of this machine. Raises Conflict where the earlier states are of another aircraft, Refused for
        more than a state can hold.
        """
        own = [one for one in earlier if one.id == self.id]
        if earlier and not own:
            raise Conflict(
                f"the state is of the aircraft {earlier[0].id}, not of {self.id}",
                remedy=f"give --id {earlier[0].id}, or enrol {self.id} in a folder of its own",
                kind="wrong-aircraft",
            )
        proven = [set(one.proofs) if one.host == self.host else set[bytes]() for one in own]
        state = replace(self, proofs=tuple(sorted(set.intersection(*proven)))) if proven else self
        for one in own:
            consumed = {*state.consumed, *one.consumed}
            accepted = {*state.accepted, *one.accepted} - consumed
            state = replace(
                state,
                accepted=tuple(sorted(accepted)),
                consumed=tuple(sorted(consumed)),
                clock=max(state.clock, one.clock),
            )
            if one.root.root.domain_id == state.root.root.domain_id:
                newest = max(state.root, one.root, key=lambda root: root.root.version)
                # What either has heard of the newest epoch counts, and nothing of the epochs before.
                issued = max(side.issued for side in (state, one) if side.root.root.epoch == newest.root.epoch)
                missions = dict(state.missions)
                for id_, last in one.missions.items():
                    missions[id_] = max(last, missions.get(id_, last), key=lambda one: one.rank)
                releases = tuple(sorted({*state.releases, *one.releases}))
                state = replace(state, missions=missions, releases=releases)
                state = replace(state.with_root(newest), issued=issued)
        for what, count, most in (
            ("missions", len(state.missions), MAX_MISSIONS),
            ("accepted flights", len(state.accepted), MAX_ACCEPTED),
            ("consumed flights", len(state.consumed), MAX_CONSUMED),
            ("withdrawn releases", len(state.releases), MAX_RELEASES),
        ):
            if count > most:
                raise _full(what, most, _NEW_FOLDER)
        return state


def payload_digest(manifest: Manifest) -> bytes:
    """Return the BLAKE3 of the payload, 32 bytes: equal for equal manifests, whoever has signed them."""
    return bytes(ObjectId.of(manifest.render()))


def _full(what: str, most: int, remedy: str) -> Refused:
    return Refused(f"the aircraft's state holds {most} {what}, and cannot hold more", remedy=remedy, kind="state-full")


def _flights(items: list[Any], where: str) -> tuple[str, ...]:
    if not all(type(item) is str and FLIGHT_ID.fullmatch(item) for item in items):
        raise Corrupt(f"{where} holds something else than flight ids", kind="bad-field", field=where)
    ascending(items, where)
    return tuple(items)


def _digests(items: list[Any], where: str) -> tuple[bytes, ...]:
    if not all(type(item) is bytes and len(item) == DIGEST_SIZE for item in items):
        raise Corrupt(f"{where} holds something else than digests", kind="bad-field", field=where)
    ascending(items, where)
    return tuple(items)


def _row(item: object) -> tuple[str, Acceptance]:
    if type(item) is not list or [type(part) for part in item] != [str, int, int, bytes]:
        raise Corrupt(
            "an item of state.missions is not [mission, epoch, sequence, digest]", kind="bad-field", field="state"
        )
    id_, epoch, sequence, digest = item
    valid = MISSION_ID.fullmatch(id_) and 1 <= epoch <= INT_MAX and 1 <= sequence <= INT_MAX
    if not valid or len(digest) not in (0, DIGEST_SIZE):
        raise Corrupt(f"the item {id_[:80]!r} of state.missions is not valid", kind="bad-field", field="state.missions")
    return id_, Acceptance(epoch, sequence, digest)
