"""TOML from outside: one look at its size and shape, and only then the parser of Python.

The parser of Python takes memory by the square of the parts of a dotted key, and time by the parts of a table's name
for each key below it. So 80 kB may ask for gigabytes. `parse_toml` counts before it parses: parts of a key, brackets
that are open at once, characters of a line, and values. Pure.

Law: text that keeps the limits means what `tomllib` says; any other text is refused before a parser gets it.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Callable
from typing import Any

MAX_KEY_PARTS = 16
MAX_NESTING = 16
MAX_LINE = 1 << 16
# Keys, parts of keys, tables, arrays, and elements of arrays, of the whole file.
MAX_VALUES = 1 << 16
# Possessive: text is passed over once. A string that does not end is one stray quote, where the parser stops too.
_TOKEN = re.compile(
    r"""
    (?P<skipped> \#[^\n]*+
               | \"{3} (?: [^"\\] | \\. | "(?!"") )*+ \"{3,5}
               | '{3} (?: [^'] | '(?!'') )*+ '{3,5}
               | " (?: [^"\\\n] | \\. )*+ "
               | '[^'\n]*+' )
    | (?P<mark> [][{}.,=\n] )
    """,
    re.VERBOSE | re.DOTALL,
)
_POSITION = re.compile(r"\(at line (\d+), column (\d+)\)\Z")


class TomlError(ValueError):
    """Text that is not TOML, or exceeds a limit. `reason` says why; `line` and `column` count from 1."""

    def __init__(self, reason: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {reason}")
        self.reason = reason
        self.line = line
        self.column = column


def parse_toml(data: bytes, parse_float: Callable[[str], Any] = float) -> dict[str, Any]:
    """Return the tables of a TOML file, with or without a byte-order mark. Raises TomlError. The caller bounds the
    size, to a few MiB.

    `parse_float` makes a number of the text of a float, and raises ValueError for text that it does not take.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise TomlError("the text is UTF-16, must be UTF-8: save it as UTF-8", 1, 1)
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise TomlError("the text is not UTF-8", *_end_of(data[: error.start].decode())) from None
    _check_shape(text)
    try:
        return tomllib.loads(text, parse_float=parse_float)
    except tomllib.TOMLDecodeError as error:
        position = _POSITION.search(str(error))
        line, column = (int(position[1]), int(position[2])) if position else _end_of(text)
        raise TomlError(str(error).rpartition(" (at ")[0], line, column) from None
    except ValueError:
        # A limit of the numbers of Python, which gives no position: thousands of digits, or a huge exponent.
        raise TomlError("a number has too many digits", *_end_of(text)) from None


def _check_shape(text: str) -> None:
    """Raise TomlError where the text exceeds a limit."""
    longest = max(map(len, text.split("\n")))
    if longest > MAX_LINE:
        line = next(number for number, one in enumerate(text.split("\n"), 1) if len(one) == longest)
        raise TomlError(f"the line has {longest} characters, the limit is {MAX_LINE}", line, MAX_LINE + 1)
    parts, depth, values = 1, 0, 0
    for token in _TOKEN.finditer(text):
        mark = token["mark"]
        if mark is None:
            continue
        parts = parts + 1 if mark == "." else 1
        depth = max(depth + (mark in "[{") - (mark in "]}"), 0)
        values += mark in "[{.,="
        for count, limit, what in (
            (parts, MAX_KEY_PARTS, "parts in one key"),
            (depth, MAX_NESTING, "brackets open at once"),
            (values, MAX_VALUES, "keys and values in one file"),
        ):
            if count > limit:
                raise TomlError(f"the limit of {limit} {what} is exceeded", *_end_of(text[: token.start()]))


def _end_of(text: str) -> tuple[int, int]:
    """Line and column, counted from 1, of the character after `text`."""
    return text.count("\n") + 1, len(text) - text.rfind("\n")
