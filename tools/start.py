"""The start of the program `flightbag`: its app and its options, and the import of the command that is asked for.

A crew waits for `verify`, and half of that wait was for imports: it loads what flies, and typer examines its parameters
alone. Every other command loads all of them (`tools.cli`).
"""

from __future__ import annotations

import copy
import importlib
import sys
from typing import Annotated

import typer
from typer.models import CommandInfo

from tools.program import run_program
from tools.status import UNKNOWN, USAGE, say

# The commands that load only the module that has them, and their functions there.
_ALONE = {"verify": ("tools.takeoff", "verify"), "fsck": ("tools.fsck", "run")}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # the streams take no control sequences, and [STORE] is no markup
    help="Build, seal, carry and verify the engines and map descriptors of aircraft that navigate by sight.\n\n"
    "Example: flightbag verify /media/stick/store --trust pinned.root.cbor",
)


def _version(requested: bool) -> None:
    if requested:
        from importlib import metadata  # not above: it loads slower than the rest of the program

        say(f"flightbag {metadata.version('flightbag')}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options of the program itself."""


def main() -> None:
    """Run the program `flightbag`. Its command `fsck` has the statuses of `store-fsck`, also for wrong arguments."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    usage, could_not_do = USAGE, UNKNOWN
    if name == "fsck":
        from tools import fsck

        usage, could_not_do = fsck.USAGE, fsck.COULD_NOT_CHECK
    run_program(_app_of(name), usage=usage, could_not_do=could_not_do)


def _app_of(name: str) -> typer.Typer:
    """Return the app with the command of this name; with every command where there is none of the name."""
    one = copy.copy(app)
    if name in _ALONE:
        module, function = _ALONE[name]
        one.registered_commands, one.registered_groups = [], []
        one.command(name)(getattr(importlib.import_module(module), function))
        return one
    importlib.import_module("tools.cli")  # it registers the commands
    commands = [each for each in app.registered_commands if _name(each) == name]
    groups = [each for each in app.registered_groups if each.name == name]
    if commands or groups:
        one.registered_commands, one.registered_groups = commands, groups
    return one


def _name(command: CommandInfo) -> str:
    return command.name or (command.callback.__name__ if command.callback else "")
