"""TOML from outside: one look at its size and shape, and only then the parser of Python.

The parser of Python takes memory by the square of the parts of a dotted key, and time by the parts of a table's name
for each key below it. So 80 kB may ask for gigabytes. `parse_toml` counts before it parses: parts of a key, brackets
that are open at once, characters of a line, and values. Pure.

Law: text that keeps the limits means what `tomllib` says; any other text is refused before a parser gets it.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Callable
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # the same parser, before it was a part of Python

MAX_KEY_PARTS = 16
MAX_NESTING = 16
MAX_LINE = 1 << 16
# Keys, parts of keys, tables, arrays, and elements of arrays, of the whole file.
MAX_VALUES = 1 << 16
_TOKEN = re.compile(r"""\#[^\n]* | (?P<quote>\"{3}|'{3}|["']) | (?P<mark>[][{}.,=\n])""", re.VERBOSE)
# What may follow in a string that has begun, up to its end. A piece is short: the memory of a search grows with it.
_INSIDE = {
    '"""': re.compile(r'(?:[^"\\]|\\.|"(?!"")){1,500}', re.DOTALL),
    "'''": re.compile(r"(?:[^']|'(?!'')){1,500}"),
    '"': re.compile(r'(?:[^"\\\n]|\\.){1,500}', re.DOTALL),
    "'": re.compile(r"[^'\n]+"),
}
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
        tables: dict[str, Any] = tomllib.loads(text, parse_float=parse_float)
        return tables
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
    parts, depth, values, at = 1, 0, 0, 0
    while token := _TOKEN.search(text, at):
        at, mark = token.end(), token["mark"]
        if token["quote"] is not None:
            at = _end_of_string(text, token["quote"], at)
            if at < 0:
                return  # the parser gets no further either
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


def _end_of_string(text: str, quote: str, at: int) -> int:
    """Return where the string ends that `quote` has begun before `at`; -1 if it does not end."""
    while inside := _INSIDE[quote].match(text, at):
        at = inside.end()
    if not text.startswith(quote, at):
        return -1
    at += len(quote)
    for _ in range(2 * (len(quote) == 3)):  # the last quotes of the text itself
        at += text.startswith(quote[0], at)
    return at


def _end_of(text: str) -> tuple[int, int]:
    """Line and column, counted from 1, of the character after `text`."""
    return text.count("\n") + 1, len(text) - text.rfind("\n")
