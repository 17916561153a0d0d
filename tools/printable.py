"""The characters that a terminal gets. Names and messages come from files, media and libraries, and may be hostile.

`printable` returns text for one line: every character that moves the cursor, changes the order of others, paints, or
shows nothing becomes an escape such as \\x1b, \\u202e or \\udc80. Letters of every script stay as they are. `say` uses
it for each line, and the standard streams of the two programs for everything else (see `streams`).

Law: `printable(text)` has only characters that show, and `printable(printable(text)) == printable(text)`.
"""

from __future__ import annotations

import re

# `str.isprintable` is false for the categories Cc, Cf, Cs, Co, Cn, Zl, Zp, and Zs but for the space: controls, escape
# sequences, bidi marks, joiners and lone surrogates. These letters and marks show nothing all the same
# (Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties, and the blank of Braille).
_SHOWS_NOTHING = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def printable(text: str) -> str:
    """Return the text for one line: with an escape for each character that does not show, newlines too."""
    if text.isprintable() and not _SHOWS_NOTHING.search(text):
        return text
    return "".join(c if c.isprintable() and not _SHOWS_NOTHING.match(c) else _escape(c) for c in text)


def printable_lines(text: str) -> str:
    """Return the text with an escape for each character that does not show. Newlines stay."""
    return "\n".join(map(printable, text.split("\n")))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
