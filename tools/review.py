"""The review before a signature: what is about to be signed is shown, and the person gives its code.

The code is an argument (`--expect`), or is asked for at the terminal. `store` compares it.
"""

from __future__ import annotations

import select
import sys
from collections.abc import Iterable
from typing import Annotated, TextIO

from store.errors import Invalid
from tools.parameters import Option
from tools.status import say

_LOOK_S = 0.2

Expect = Annotated[
    str | None,
    Option(
        "--expect",
        metavar="CODE",
        help="The code of what you reviewed; anything else is refused. Without it, the command asks at a terminal.",
    ),
]


def show_and_ask(facts: Iterable[str], *, expect: str | None, as_json: bool, how: str) -> str | None:
    """Show the facts of what is about to be signed. Return the code that the person types at the terminal.

    Return None where `expect` gives the code. The facts go to standard output, and in place of a JSON document to
    standard error. Raise Invalid (kind unreviewed) where there is neither a code nor a terminal to ask at; `how` is the
    remedy.
    """
    stream = sys.stderr if as_json else sys.stdout
    asks = expect is None
    if asks and not (sys.stdin.isatty() and stream.isatty()):
        raise Invalid("nothing says that this is what was reviewed, so it is not signed", remedy=how, kind="unreviewed")
    if asks or not as_json:
        for line in facts:
            say(line, stream if asks else None)
    if not asks:
        return None
    return answer_to("To sign exactly this, type its code as you know it from the review: ", stream)


def answer_to(question: str, stream: TextIO) -> str:
    """Return the line that the person at the terminal types, "" for none (Ctrl-D)."""
    stream.write(question)
    stream.flush()
    # A Ctrl-C that comes just before a read waits until somebody types a line; Python looks for it between these calls.
    while not select.select([sys.stdin], [], [], _LOOK_S)[0]:
        pass
    return sys.stdin.readline().strip()
