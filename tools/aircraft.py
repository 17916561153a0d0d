"""The commands for the state of an aircraft: enrol it on the ground, consume a flight after landing, show it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from store.format.code import short_code
from store.takeoff.aircraft import consume, enrol, read_state
from store.takeoff.verify import named_domain
from store.trust.aircraft_state import AircraftState
from tools import keyfiles, render
from tools.arguments import Json, print_lines
from tools.status import OK, command, print_json, say, warn

app = typer.Typer(
    no_args_is_help=True,
    help="Enrol an aircraft, and keep what it remembers: its id, its trust root, the missions and flights it has seen.",
)

State = Annotated[
    str, typer.Argument(metavar="STATE", help="The folder of the aircraft's state. It must not lie in a store.")
]


def add_to(parent: typer.Typer) -> None:
    """Register the commands."""
    parent.add_typer(app, name="aircraft")


@app.command("enrol")
@command
def enrol_command(
    state: State,
    id_: Annotated[str, typer.Option("--id", metavar="ID", help="The id of the aircraft, as mission files name it.")],
    host: Annotated[str, typer.Option(metavar="CLASS", help="Its host class; see `flightbag engines host`.")],
    trust: Annotated[Path, typer.Option(readable=False, metavar="ROOT", help="The file of its first trust root.")],
    again: Annotated[
        bool, typer.Option("--again", help="Change host class or trust root. The aircraft keeps what it remembers.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Create the state of an aircraft: its id, its host class and its first trust root.

    Example: flightbag aircraft enrol state --id uav-07 --host cpu-x86_64 --trust pinned.root.cbor
    """
    root = keyfiles.pinned(trust)
    enrolment = enrol(state, AircraftState.initial(id_, host, root), again=again)
    kept = enrolment.state
    newest = kept.root.root
    code = short_code(newest.digest)
    counts = {"missions": len(kept.missions), "accepted": len(kept.accepted), "consumed": len(kept.consumed)}
    if as_json:
        print_json(
            {"id": id_, "host": host, "root": newest.version, "code": code, "forgot": enrolment.forgot, "kept": counts}
            | {"left_domains": sorted({one.root.root.domain_id.hex() for one in enrolment.left})}
        )
        return OK
    say(f"enrolled {id_} ({host}) in {newest.domain}, trust root {newest.version}, code {code}")
    if enrolment.forgot:
        warn("flightbag: no slot of the earlier state could be read: the flights that it had consumed are forgotten")
    elif again:
        say(
            f"  keeps {render.many(counts['missions'], 'mission')}, {render.many(counts['consumed'], 'flight')} flown, "
            f"{counts['accepted']} accepted and not flown"
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
    return OK


@app.command("consume")
@command
def consume_command(
    state: State,
    flight: Annotated[str, typer.Argument(metavar="FLIGHT", help="The id of the flight.")],
    as_json: Json = False,
) -> int:
    """Record after landing that a flight was flown. From then on its missions are NO-GO.

    It cannot be undone. The flight must be one that `verify --state` has accepted.

    Example: flightbag aircraft consume state 2026-11-23-01
    """
    consumed_before = not consume(state, flight)
    if as_json:
        print_json({"consumed": flight, "before": consumed_before})
    else:
        say(f"{flight} was consumed before" if consumed_before else f"consumed {flight}")
    return OK


@app.command("show")
@command
def show(state: State, as_json: Json = False) -> int:
    """Show what an aircraft remembers. Write nothing.

    Example: flightbag aircraft show state
    """
    stored = read_state(state)
    aircraft, root = stored.state, stored.state.root.root
    if as_json:
        print_json(
            {
                "id": aircraft.id,
                "host": aircraft.host,
                "root": root.version,
                "domain_id": root.domain_id.hex(),
                "code": short_code(root.digest),
                "epoch": root.epoch,
                "floor": aircraft.floor,
                "missions": {
                    name: {"epoch": seen.epoch, "sequence": seen.sequence, "payload": seen.digest.hex()}
                    for name, seen in aircraft.missions.items()
                },
                "accepted": list(aircraft.accepted),
                "consumed": list(aircraft.consumed),
                "changes": stored.number,
                "one_slot_lost": stored.mend,
            }
        )
        return OK
    print_lines(
        render.table(
            [
                ("aircraft", aircraft.id),
                ("host", aircraft.host),
                ("trust root", f"{root.version} of {root.domain}, code {short_code(root.digest)}, epoch {root.epoch}"),
                ("not before", render.when(aircraft.floor)),
                *(("mission", f"{name}, sequence {seen.sequence}") for name, seen in aircraft.missions.items()),
                *(("accepted", flight) for flight in aircraft.accepted),
                *(("flown", flight) for flight in aircraft.consumed),
                *([("slots", "one of the two is damaged or old; the next change writes both")] if stored.mend else []),
            ]
        )
    )
    return OK
