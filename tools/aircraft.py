"""The commands of the aircraft's own stored: enrolled on the ground, read by verify, told after landing what flew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from store.takeoff.aircraft import consume, enrol, read_state
from store.takeoff.code import short_code
from store.takeoff.verify import pinned_root
from store.trust.aircraft_state import AircraftState
from store.trust.root import ROOT_FILE_LIMIT
from tools import keyfiles, render
from tools.arguments import Json, print_lines
from tools.status import OK, command, print_json, say

app = typer.Typer(no_args_is_help=True, help="What an aircraft remembers: its id, its trust root, what it has seen.")

State = Annotated[
    str, typer.Argument(metavar="STATE", help="The folder of the aircraft's state, outside of every store.")
]


def add_to(parent: typer.Typer) -> None:
    """Registers the commands."""
    parent.add_typer(app, name="aircraft")


@app.command("enrol")
@command
def enrol_command(
    state: State,
    id_: Annotated[str, typer.Option("--id", help="The aircraft's id, as missions name it.")],
    host: Annotated[str, typer.Option(help="Its host class.")],
    trust: Annotated[Path, typer.Option(readable=False, help="The trust root that it starts from.")],
    again: Annotated[
        bool, typer.Option("--again", help="Over a state that is there: what it had seen is forgotten.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Make the state of an aircraft: who it is, and which trust root it starts from."""
    root = pinned_root(keyfiles.read_file(trust, ROOT_FILE_LIMIT, "the trust root"))
    enrol(state, AircraftState.initial(id_, host, root), again=again)
    code = short_code(root.root.digest)
    if as_json:
        print_json({"id": id_, "host": host, "root": root.root.version, "code": code})
    else:
        say(f"enrolled {id_} ({host}) in {root.root.domain}, root {root.root.version}, code {code}")
    return OK


@app.command("consume")
@command
def consume_command(
    state: State, flight: Annotated[str, typer.Argument(help="The flight's id.")], as_json: Json = False
) -> int:
    """Say after landing that a flight was flown: it does not fly again."""
    known = flight in read_state(state).state.consumed
    if not known:
        consume(state, flight)
    if as_json:
        print_json({"consumed": flight, "before": known})
    else:
        say(f"{flight} was consumed before" if known else f"consumed {flight}")
    return OK


@app.command("show")
@command
def show(state: State, as_json: Json = False) -> int:
    """Show what an aircraft remembers. Writes nothing."""
    stored = read_state(state)
    known, root = stored.state, stored.state.root.root
    if as_json:
        print_json(
            {
                "id": known.id,
                "host": known.host,
                "root": root.version,
                "domain_id": root.domain_id.hex(),
                "code": short_code(root.digest),
                "epoch": root.epoch,
                "floor": known.floor,
                "missions": {
                    name: {"epoch": seen.epoch, "sequence": seen.sequence, "payload": seen.digest.hex()}
                    for name, seen in known.missions.items()
                },
                "consumed": list(known.consumed),
                "changes": stored.number,
                "one_slot_lost": stored.mend,
            }
        )
        return OK
    print_lines(
        render.table(
            [
                ("aircraft", known.id),
                ("host", known.host),
                ("root", f"{root.version} of {root.domain}, code {short_code(root.digest)}, epoch {root.epoch}"),
                ("not before", render.when(known.floor)),
                *(("mission", f"{name}, sequence {seen.sequence}") for name, seen in known.missions.items()),
                *(("flown", flight) for flight in known.consumed),
                *([("slots", "one is lost or behind; the next change writes both")] if stored.mend else []),
            ]
        )
    )
    return OK
