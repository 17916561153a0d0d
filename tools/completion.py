"""The command `completion`: the lines with which a shell completes commands, options and files; and its answers.

The lines let the shell call the program with `COMPLETE` in the environment, and click answers.
"""

from __future__ import annotations

import os
from typing import Annotated

from click.shell_completion import ShellComplete, get_completion_class

from store.errors import Invalid, instead_of
from tools.arguments import Json
from tools.parameters import Argument
from tools.status import OK, command, print_json
from tools.streams import write_output

COMPLETE = "FLIGHTBAG_COMPLETE"


@command
def run(
    shell: Annotated[str, Argument(metavar="bash|zsh|fish", help="The shell that completes.")],
    as_json: Json = False,
) -> int:
    """Print the lines that let a shell complete commands, options and files with the Tab key.

    bash and zsh read them at their start from ~/.bashrc and ~/.zshrc, fish from
    ~/.config/fish/completions/flightbag.fish.

    Example: flightbag completion bash >> ~/.bashrc
    """
    lines = _completer(shell).source()
    if as_json:
        print_json({"shell": shell, "lines": lines})
    else:
        print(lines.strip())  # not for people: no line may be wrapped
    return OK


@command
def answer() -> int:
    """Answer a shell that completes a line."""
    shell = os.environ[COMPLETE].partition("_")[0]
    write_output(_completer(shell).complete().encode() + b"\n")
    return OK


def _completer(shell: str) -> ShellComplete:
    from tools.start import app

    if (kind := get_completion_class(shell)) is None:
        raise Invalid(f"there are no lines for the shell {shell!r}", remedy=instead_of(shell, ("bash", "zsh", "fish")))
    return kind(app, {}, "flightbag", COMPLETE)
