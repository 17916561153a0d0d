"""The start of the program `flightbag`: its table of commands and its options.

A command is loaded when it is called, with what it needs and nothing else: a crew waits for `verify`. Only the help of
a group loads all of its commands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from tools import __version__
from tools.commands import Commands, command_of
from tools.program import run_program
from tools.status import UNKNOWN, USAGE, say


def _version(context: click.Context, _parameter: click.Parameter, requested: bool) -> None:
    if requested:
        say(f"flightbag {__version__}")
        context.exit()


_KEYS = Commands(
    "keys",
    {"Commands": {"new": "tools.cli:keys_new", "rewrap": "tools.cli:keys_rewrap", "show": "tools.cli:keys_show"}},
    help="Create signing keys, protect them, show their kids.",
)
_TRUST = Commands(
    "trust",
    {
        "Commands": {
            "new": "tools.trust:new",
            "add-key": "tools.trust:add_key",
            "remove-key": "tools.trust:remove_key",
            "revoke": "tools.trust:revoke",
            "set-threshold": "tools.trust:set_threshold",
            "set-releases": "tools.trust:set_releases",
            "set-lifetime": "tools.trust:set_lifetime",
            "new-epoch": "tools.trust:new_epoch",
            "set-issued-after": "tools.trust:set_issued_after",
            "sign": "tools.trust:sign",
            "join": "tools.trust:join",
            "rotate": "tools.trust:rotate",
            "show": "tools.trust:show",
        }
    },
    help="Decide which keys may sign missions, releases, engines and trust roots.",
)
_RELEASE = Commands(
    "release",
    {
        "Commands": {
            "new": "tools.releases:new",
            "sign": "tools.releases:sign",
            "withdraw": "tools.withdraw:release",
            "show": "tools.releases:show",
        }
    },
    help="Approve engines for a host class, signed by the release keys.",
)
_AIRCRAFT = Commands(
    "aircraft",
    {
        "Commands": {
            "enrol": "tools.aircraft:enrol_command",
            "consume": "tools.aircraft:consume_command",
            "lower-floor": "tools.aircraft:lower_floor_command",
            "show": "tools.aircraft:show",
        }
    },
    help="Enrol an aircraft, and keep what it remembers: its id, its trust root, the missions and flights it has seen.",
)
_REMOTE = Commands(
    "remote",
    {
        "Commands": {
            "add": "tools.named_remotes:add",
            "ls": "tools.named_remotes:ls",
            "remove": "tools.named_remotes:remove",
        }
    },
    help="Name the places that missions are carried to and from: hosts, buckets, media.",
)
_ENGINES = Commands(
    "engines",
    {
        "Commands": {
            "build": "tools.engines:build",
            "order": "tools.engines:order",
            "fulfil": "tools.engines:fulfil",
            "accept": "tools.engines:accept",
            "show": "tools.engines:show",
            "host": "tools.engines:host",
        }
    },
    help="Build engines, show their cards, name the host class of this machine.",
)

app = Commands(
    "flightbag",
    {
        "First use": {
            "doctor": "tools.doctor:doctor",
            "example": "tools.example:run",
            "init": "tools.cli:init",
            "new": "tools.new:new",
            "help": "tools.help:run",
            "completion": "tools.completion:run",
        },
        "Plan and build": {
            "plan": "tools.cli:plan",
            "status": "tools.standing:status",
            "build": "tools.cli:build",
            "engines": _ENGINES,
            "quality": "tools.retrieval:quality",
            "explain-key": "tools.engines:explain_key",
            "nodes": "tools.cluster:nodes",
        },
        "Sign and trust": {
            "keys": _KEYS,
            "trust": _TRUST,
            "sign": "tools.takeoff:sign",
            "discard": "tools.takeoff:discard",
            "rollback": "tools.missions:rollback_command",
            "withdraw": "tools.withdraw:mission",
            "release": _RELEASE,
        },
        "Carry": {
            "sync": "tools.sync:run",
            "pack": "tools.packs:pack_command",
            "unpack": "tools.packs:unpack_command",
            "checkout": "tools.missions:checkout_command",
            "remote": _REMOTE,
        },
        "Fly": {
            "aircraft": _AIRCRAFT,
            "verify": "tools.takeoff:verify",
            "probe": "tools.retrieval:probe",
            "query": "tools.retrieval:query",
            "prove": "tools.takeoff:prove_command",
            "check-proof": "tools.takeoff:check_proof",
        },
        "Look": {
            "ls": "tools.cli:list_missions",
            "show": "tools.cli:show",
            "map": "tools.maps:run",
            "report": "tools.report:run",
            "log": "tools.missions:log_command",
            "diff": "tools.missions:diff_command",
            "stats": "tools.missions:stats_command",
            "receipts": "tools.receipts:run",
        },
        "Audit and upkeep": {
            "fsck": "tools.fsck:run",
            "gc": "tools.retention:gc",
            "pin": "tools.retention:pin_command",
            "unpin": "tools.retention:unpin_command",
            "remove": "tools.removal:remove",
        },
    },
    help="Build, seal, carry and verify the engines and map descriptors of aircraft that navigate by sight.\n\n"
    "Example: flightbag verify /media/stick/store --trust pinned.root.cbor",
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Print the version and exit.",
        )
    ],
)


def statuses(args: Sequence[str]) -> tuple[int, int]:
    """Return the statuses for a mistake in the arguments, and for output that cannot be written: those of `store-fsck`
    for the command `fsck`."""
    if next((one for one in args if not one.startswith("-")), "") != "fsck":
        return USAGE, UNKNOWN
    from tools import fsck

    return fsck.USAGE, fsck.COULD_NOT_CHECK


def main() -> None:
    """Run the program `flightbag`."""
    usage, could_not_do = statuses(sys.argv[1:])
    if "FLIGHTBAG_COMPLETE" in os.environ:
        from tools.completion import answer

        run_program(command_of("flightbag", answer), usage=usage, could_not_do=could_not_do)
    run_program(app, usage=usage, could_not_do=could_not_do)
