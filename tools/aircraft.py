"""The commands for the state of an aircraft: enrol it, consume a flight after landing, lower its floor, show it."""

from __future__ import annotations

import sys
from typing import Annotated

from store.disk.layout import store_above
from store.errors import FlightbagError, Invalid
from store.findings import Finding
from store.format.code import short_code
from store.takeoff.aircraft import consume, enrol, lower_floor, read_key, read_state
from store.takeoff.verify import named_domain
from store.trust.aircraft_state import AircraftState
from store.values import replace
from tools import keyfiles, lines, render
from tools.arguments import Json, NeededState, NeededTrust, moment, print_lines
from tools.parameters import Argument, Option
from tools.receipts import after_flight
from tools.review import answer_to
from tools.status import OK, action, command, print_json, say, warn


@action
def enrol_command(
    state: NeededState,
    id_: Annotated[str, Option("--id", metavar="ID", help="The id of the aircraft, as mission files name it.")],
    host: Annotated[str, Option(metavar="CLASS", help="Its host class; see `flightbag engines host`.")],
    trust: NeededTrust,
    again: Annotated[
        bool, Option("--again", help="Change host class or trust root. The aircraft keeps what it remembers.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Create the state of an aircraft: its id, its host class and its first trust root.

    Example: flightbag aircraft enrol --state state --id uav-07 --host cpu-x86_64 --trust pinned.root.cbor
    """
    if (store := store_above(trust)) is not None:
        keyfiles.refuse_inside("--trust", trust, store)
    root = keyfiles.pinned(trust)
    enrolment = enrol(state, AircraftState.initial(id_, host, root), again=again)
    kept = enrolment.state
    newest = kept.root.root
    code = short_code(newest.digest)
    key = read_key(state).public
    counts = {"missions": len(kept.missions), "accepted": len(kept.accepted), "consumed": len(kept.consumed)}
    counts["proofs"] = len(kept.proofs)
    if as_json:
        print_json(
            {
                "id": id_,
                "host": host,
                "trust_root_version": newest.version,
                "code": code,
                "forgot": enrolment.forgot,
                "kept": counts,
            }
            | {"kid": key.kid.hex(), "key": key.raw.hex()}
            | {"left_domains": sorted({one.root.root.domain_id.hex() for one in enrolment.left})}
        )
        return OK
    say(f"enrolled {id_} ({host}) in {newest.domain}, trust root {newest.version}, code {code}")
    if enrolment.forgot:
        warn("flightbag: no slot of the earlier state could be read: the flights that it had consumed are forgotten")
    elif again:
        say(
            f"  keeps {render.many(counts['missions'], 'mission')}, {render.many(counts['consumed'], 'flight')} flown, "
            f"{counts['accepted']} accepted and not flown, {render.many(counts['proofs'], 'proof')} of engines"
        )
    if enrolment.left:
        last = max(enrolment.left, key=lambda one: one.root.root.version)
        warn(
            f"flightbag: the state was of the trust domain {named_domain(last.root.root)}: its trust root "
            f"{last.root.root.version} and {render.many(len(last.missions), 'mission')} are forgotten, and an older "
            "issue of them would fly again under a root of that domain"
        )
    if newest.version > root.root.version:
        say(f"  keeps trust root {newest.version}: the aircraft has seen it after root {root.root.version}")
    say("  its line for `flightbag receipts --fleet`:")
    say(f"{key.kid.hex()} {id_}")
    return OK


@action
def consume_command(
    flight: Annotated[str, Argument(metavar="FLIGHT", help="The id of the flight.")],
    state: NeededState,
    store: Annotated[
        str | None,
        Option("--store", metavar="STORE", help="Leave the receipt in this store, on the stick that goes back."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Record after landing that a flight was flown. From then on its missions are NO-GO.

    It cannot be undone. The flight must be one that `verify --state` has accepted.
    The state keeps a receipt of it for the next store that can be written.

    Example: flightbag aircraft consume 2026-11-23-01 --state state --store /media/stick/store
    """
    consumed_before = not consume(state, flight)
    if as_json:
        print_json({"consumed": flight, "before": consumed_before})
    else:
        say(f"{flight} was consumed before" if consumed_before else f"consumed {flight}")
    after_flight(state, flight, store, quiet=as_json)
    return OK


@action
def lower_floor_command(
    time_: Annotated[
        str, Argument(metavar="TIME", help="The time now, by a clock that you trust: 2026-11-25T12:00:00Z.")
    ],
    state: NeededState,
    yes: Annotated[bool, Option("--yes", help="Do not ask. Without a terminal this is needed.")] = False,
    as_json: Json = False,
) -> int:
    """Lower the time that an aircraft remembers as passed, after a wrong clock drove it up.

    While it is up, missions that expire are NO-GO. The aircraft keeps its missions
    and flights. A TIME that is too early lets an expired mission fly without a clock.

    Example: flightbag aircraft lower-floor 2026-11-25T12:00:00Z --state state
    """
    at = moment(time_)
    before = read_state(state).state
    lowered = before.lowering(at)
    if lowered != before and not yes:
        question = f"lower the floor of {before.id} from {render.when(before.floor)} to {render.when(lowered.floor)}?"
        _confirm(question, as_json=as_json)
    after = lower_floor(state, at)
    if as_json:
        print_json({"id": after.id, "before": before.floor, "floor": after.floor})
    elif after == before:
        say(f"the floor of {after.id} is {render.when(after.floor)}: nothing to lower")
    else:
        say(f"lowered the floor of {after.id} from {render.when(before.floor)} to {render.when(after.floor)}")
    return OK


def _confirm(question: str, *, as_json: bool) -> None:
    """Ask a person at the terminal. Raise Invalid for any answer but yes, and without a terminal."""
    stream = sys.stderr if as_json else sys.stdout
    if not (sys.stdin.isatty() and stream.isatty()):
        raise Invalid("this is confirmed at a terminal", remedy="check the time, and give --yes")
    if answer_to(f"{question} Type yes: ", stream) != "yes":
        raise Invalid("not confirmed: nothing was changed", remedy="type yes to confirm")


@command
def show(state: NeededState, as_json: Json = False) -> int:
    """Show what an aircraft remembers. Write nothing.

    Example: flightbag aircraft show --state state
    """
    stored = read_state(state)
    key, lost = None, None
    try:
        key = read_key(state).public
    except FlightbagError as error:
        lost = error
    aircraft, root = stored.state, stored.state.root.root
    if as_json:
        print_json(
            {
                "id": aircraft.id,
                "host": aircraft.host,
                "kid": None if key is None else key.kid.hex(),
                "key": None if key is None else key.raw.hex(),
                "trust_root_version": root.version,
                "domain_id": root.domain_id.hex(),
                "code": short_code(root.digest),
                "epoch": root.epoch,
                "floor": aircraft.floor,
                "issued": aircraft.issued,
                "clock": aircraft.clock,
                "missions": {
                    name: {"epoch": seen.epoch, "sequence": seen.sequence, "payload": seen.digest.hex()}
                    for name, seen in aircraft.missions.items()
                },
                "withdrawn_releases": [digest.hex() for digest in aircraft.releases],
                "accepted": list(aircraft.accepted),
                "consumed": list(aircraft.consumed),
                "proofs": [proof.hex() for proof in aircraft.proofs],
                "changes": stored.number,
                "one_slot_lost": stored.mend,
            },
            [] if lost is None else [replace(Finding.of(lost), information=True)],
        )
        return OK
    print_lines(
        lines.table(
            [
                ("aircraft", aircraft.id),
                ("host", aircraft.host),
                ("trust root", f"{root.version} of {root.domain}, code {short_code(root.digest)}, epoch {root.epoch}"),
                ("not before", f"{render.when(aircraft.floor)}, by {_told_by(aircraft)}"),
                *(
                    (
                        "mission",
                        f"{name}, sequence {seen.sequence}{'' if seen.digest else ': WITHDRAWN up to this one'}",
                    )
                    for name, seen in aircraft.missions.items()
                ),
                *(("release", f"{lines.short(digest.hex())}: WITHDRAWN") for digest in aircraft.releases),
                *(("accepted", flight) for flight in aircraft.accepted),
                *(("flown", flight) for flight in aircraft.consumed),
                *(("proven", lines.short(proof.hex())) for proof in aircraft.proofs),
                *([("slots", "one of the two is damaged or old; the next change writes both")] if stored.mend else []),
                ("key", "none: it signs no receipts" if key is None else "its line for `flightbag receipts --fleet`:"),
            ]
        )
    )
    if key is not None:
        print(f"{key.kid.hex()} {aircraft.id}")  # one line, to be copied into a file
    if lost is not None:
        warn(f"flightbag: {lost}")
    return OK


def _told_by(aircraft: AircraftState) -> str:
    """Return what the floor rests on."""
    if aircraft.clock > aircraft.issued:
        return "a trusted clock"
    return f"the times of issue of epoch {aircraft.root.root.epoch}"
