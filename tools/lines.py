"""Lines for people, as wide as they may be: as the terminal, and 80 columns where the output is no terminal.

A word is never cut, and what stands in backquotes, a command, is one word: a path, a name or a command can be copied.
So only a line of one word may be longer.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import TextIO, TypeVar

T = TypeVar("T")
# The columns of an output that is no terminal, and the fewest of one that is.
PIPED, _FEWEST = 80, 40
# The fewest columns that the last column of a table gets, and any other.
_LAST, _OTHER = 24, 8
_ID_DIGITS = 12
_WORD = re.compile(r"( *)((?:`[^`]+`|[^ `]|`)+)")
_ID = re.compile(r"\b[0-9a-f]{64}\b")


class Loudness(Enum):
    """How much a command tells people: with -q, without an option, with -v."""

    QUIET = "--quiet"
    NORMAL = ""
    VERBOSE = "--verbose"


_loudness = Loudness.NORMAL


def set_loudness(loudness: Loudness) -> None:
    """Say how much is told from now on."""
    global _loudness
    _loudness = loudness


def is_quiet() -> bool:
    """Whether progress, notices and the results of work that succeeded are left out (-q)."""
    return _loudness is Loudness.QUIET


def is_verbose() -> bool:
    """Whether ids are whole and lists are not cut (-v)."""
    return _loudness is Loudness.VERBOSE


def short(id_: object) -> str:
    """Return an id, a build key, a kid or a hash as people read it: its first 12 hex digits, all of them with -v."""
    return str(id_) if is_verbose() else str(id_)[:_ID_DIGITS]


def cut(items: Sequence[T], most: int) -> tuple[Sequence[T], int]:
    """Return the first items of a list as people read it, and how many more there are: with -v all of them, and 0."""
    named = items if is_verbose() else items[:most]
    return named, len(items) - len(named)


def shortened(text: str) -> str:
    """Return a text with each id in it as `short` gives it."""
    return _ID.sub(lambda it: short(it[0]), text)


def colours() -> bool:
    """Whether standard output is a terminal that may be painted: not with NO_COLOR (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width(stream: TextIO | None = None) -> int:
    """Return the columns of an output, by default standard output: those of its terminal (or of COLUMNS), else 80."""
    stream = stream or sys.stdout
    if not stream.isatty():
        return PIPED
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size(stream.fileno()).columns)
    except (OSError, ValueError):
        columns = 0
    return max(columns, _FEWEST) if columns else PIPED


def columns_of(text: str) -> int:
    """Return the columns that a text takes: letters of East Asia take two, marks above or below a letter none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width  # not above: names are seldom of another script

    return sum(0 if combining(one) else 2 if east_asian_width(one) in "WF" else 1 for one in text)


def wrapped(text: str, first: str, rest: str, most: int | None = None) -> list[str]:
    """Return the lines of a paragraph of at most `most` columns, by default those of standard output, where its words
    allow it: the first one and the rest indented by these."""
    most = width() if most is None else most
    lines, line, empty = [], first, True
    for gap, word in _WORD.findall(text):
        if empty:
            line += word
        elif columns_of(line + gap + word) <= most:
            line += gap + word
        else:
            lines.append(line)
            line = rest + word
        empty = False
    return [*lines, line]


def fitted(line: str, stream: TextIO | None = None) -> list[str]:
    """Return a line as lines that fit an output: the second and the following ones are indented deeper."""
    most = width(stream)
    if len(line) <= most and columns_of(line) <= most:
        return [line]
    text = line.lstrip(" ")
    first = " " * (len(line) - len(text))
    return wrapped(text, first, first + ("   " if text.startswith("-> ") else "    "), most)


def table(rows: Sequence[Sequence[str]], most: int | None = None) -> Iterator[str]:
    """Yield rows as lines of at most `most` columns, by default those of standard output, where their words allow it.

    The columns are aligned by spaces. A text of the last column that is too long goes on beneath; one of another column
    that is, has the line for itself, and its row goes on in the next one.
    """
    if not rows:
        return
    most = width() if most is None else most
    widths = _widths(rows, most)
    starts = [sum(widths[:column]) + 2 * column for column in range(len(widths) + 1)]
    for row in rows:
        line = ""
        for start, wanted, cell in zip(starts, widths, row, strict=False):
            if columns_of(cell) <= wanted:
                line = _padded(line, start) + cell
            else:
                if line.strip():
                    yield line
                yield from wrapped(cell, " " * start, " " * start, most)
                line = ""
        if not row[-1] and not line.strip():
            continue
        yield from (one.rstrip() for one in wrapped(row[-1], _padded(line, starts[-1]), " " * starts[-1], most))


def _widths(rows: Sequence[Sequence[str]], most: int) -> list[int]:
    """Return the widths of all columns but the last, so that enough is left for that one."""
    longest = [max(columns_of(row[column]) for row in rows) for column in range(len(rows[0]))]
    *widths, last = longest
    room = most - 2 * len(widths) - min(last, _LAST)
    while widths and sum(widths) > room and max(widths) > _OTHER:
        widths[widths.index(max(widths))] -= 1
    return widths


def _padded(line: str, start: int) -> str:
    return line + " " * (start - columns_of(line))
