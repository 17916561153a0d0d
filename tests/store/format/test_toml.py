"""TOML of bounded shape: what is refused before the parser, and what means the same as before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.format.toml import (
    MAX_KEY_PARTS,
    MAX_LINE,
    MAX_NESTING,
    MAX_VALUES,
    TomlError,
    parse_toml,
    tomllib,  # of Python, or on 3.10 tomli
)

BOMBS = {
    "a key of 40,000 parts": ".".join("a" * 40_000) + " = 1",
    "the same with spaces": " . ".join("a" * 20_000) + " = 1",
    "the same of quoted parts": ".".join(['"a.b"'] * 10_000) + " = 1",
    "a table's name of 40,000 parts": f"[{'.'.join('a' * 40_000)}]",
    "an array of tables with such a name": f"[[{'.'.join('a' * 40_000)}]]",
    "keys below a long name": f"[{'.'.join('a' * 400)}]\n" + "".join(f"k{i}=1\n" for i in range(20_000)),
    "a long key in an inline table": "x = { " + ".".join("a" * 30_000) + " = 1 }",
    "arrays": "x = " + "[" * 100_000,
    "inline tables": "x = " + "{a=" * 30_000,
    "arrays and inline tables in turn": "x = " + "[{a=" * 30_000,
    "arrays over many lines": "x = " + "[\n" * 100_000,
    "many short keys of many parts": "".join(f"a{i}.b.c.d.e.f.g.h.i.j.k.l.m.n.o=1\n" for i in range(16_000)),
    "empty tables": "x = [" + "{},\n" * 200_000 + "]",
    "tables": "".join(f"[t{i}]\n" for i in range(100_000)),
    "a long line": f'x = "{"a" * 500_000}"',
    "quotes that hide nothing": '""".""" = 1\n' + ".".join("a" * 40_000) + " = 1",
    "a key behind a string that does not end": 'x = "\n' + ".".join("a" * 40_000) + " = 1",
    "a key behind a comment with a quote": "# it's\n" + ".".join("a" * 30_000) + " = 1 # '",
}


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfa = 1\n[b]\nc = 2\n",
        b"a = 1\r\n[b]\r\nc = 2\r\n",
        b"\ta\t=\t1\t# one\n\t[b]\t\n\t\tc\t= 2",
        b"\xef\xbb\xbf# x\r\na\t= 1\r\n\r\n[b]\r\n\tc = 2",
    ],
)
def test_text_as_editors_write_it(data: bytes) -> None:
    assert parse_toml(data) == {"a": 1, "b": {"c": 2}}


def test_a_place_is_counted_without_the_mark() -> None:
    for mark, end in ((b"", b"\n"), (b"\xef\xbb\xbf", b"\r\n")):
        with pytest.raises(TomlError) as caught:
            parse_toml(mark + b"a = 1" + end + b"b = = 2" + end)
        assert (caught.value.line, caught.value.column) == (2, 5)
        with pytest.raises(TomlError) as caught:
            parse_toml(mark + b"= 1" + end)
        assert (caught.value.line, caught.value.column) == (1, 1)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_text_in_utf_16_is_named_and_the_remedy_works(encoding: str) -> None:
    data = ("\ufeff" if encoding == "utf-16-be" else "").encode(encoding) + "a = 1\n".encode(encoding)
    with pytest.raises(TomlError, match="UTF-16, must be UTF-8: save it as UTF-8"):
        parse_toml(data)
    assert parse_toml(data.decode("utf-16").encode()) == {"a": 1}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused_before_it_is_parsed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tomllib, "loads", None)
    with pytest.raises(TomlError) as caught:
        parse_toml(text.encode())
    assert caught.value.line >= 1


def test_the_memory_is_bounded() -> None:
    """80 kB took 6.4 GB."""
    program = (
        "import resource; from store.format.toml import parse_toml\n"
        "resource.setrlimit(resource.RLIMIT_AS, (256 << 20,) * 2)\n"
        f"for text in ({'.'.join('a' * 40_000)!r} + '=1', "
        "''.join(f'a{i}.b.c=1\\n' for i in range(20_000)), "
        "'x=[' + '[],' * 60_000 + ']'):\n"
        "    try: parse_toml(text.encode())\n"
        "    except ValueError: pass\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_limits() -> None:
    assert (MAX_KEY_PARTS, MAX_NESTING, MAX_LINE, MAX_VALUES) == (16, 16, 65_536, 65_536)


def nested(depth: int) -> str:
    return "x = " + "[" * depth + "]" * depth


def test_what_keeps_the_limits_is_read() -> None:
    key = ".".join("a" * MAX_KEY_PARTS)
    for text in (f"{key} = 1", f"[{key}]", nested(MAX_NESTING), f"x = '{'y' * (MAX_LINE - 6)}'"):
        assert parse_toml(text.encode()) == tomllib.loads(text)
    many = "x = [" + "1,\n" * (MAX_VALUES - 2) + "]"
    assert len(parse_toml(many.encode())["x"]) == MAX_VALUES - 2


@pytest.mark.parametrize(
    "text",
    [
        f"{'.'.join('a' * (MAX_KEY_PARTS + 1))} = 1",
        nested(MAX_NESTING + 1),
        f"x = '{'y' * (MAX_LINE - 5)}'",
        "x = [" + "1,\n" * (MAX_VALUES - 1) + "]",
    ],
    ids=["key", "nesting", "line", "values"],
)
def test_one_more_is_refused(text: str) -> None:
    with pytest.raises(TomlError, match="limit"):
        parse_toml(text.encode())


def test_dots_and_brackets_in_strings_and_comments_do_not_count() -> None:
    dots, brackets = "." * 100, "[" * 100
    text = (
        f"# {dots} {brackets} ''' \"\"\"\n"
        f'a = "{dots}{brackets} \\" # {dots}"\nb = \'{dots}"{brackets}\'\n'
        f'c = """{dots}\n"" {brackets} \\""" {dots}""""" # {brackets}\n'
        f"d = '''{dots}\n'' {brackets} \\''' # {brackets}\n"
        f"\"{dots}\" = {{ '{brackets}' = 1 }}\n"
    )
    assert parse_toml(text.encode()) == tomllib.loads(text)


def test_what_is_wrong_is_named_with_its_place() -> None:
    for data, line, column, reason in (
        (b"a = 1\nb = = 3\n", 2, 5, "Invalid value"),
        (b"a = 1\nb = '\xff'", 2, 6, "the text is not UTF-8"),
        (b"a = 1\n" + b"." * 40 + b"=1", 2, 16, "the limit of 16 parts in one key is exceeded"),
        (b"x = " + b"9" * 5000, 1, 5005, "a number has too many digits"),
    ):
        with pytest.raises(TomlError) as caught:
            parse_toml(data)
        assert (caught.value.line, caught.value.column, caught.value.reason) == (line, column, reason)


PIECES = st.sampled_from(
    ["a", "b", ".", "=", "[", "]", "{", "}", ",", "\n", '"', "'", '"""', "'''", "\\", "#", " ", "1", "1.5"]
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_text_means_what_the_parser_says(text: str) -> None:
    assert _outcome(parse_toml, text.encode()) in (_outcome(tomllib.loads, text), "limit")


def _outcome(parse: Callable[[Any], dict[str, Any]], text: str | bytes) -> object:
    try:
        return parse(text)
    except TomlError as error:
        return "limit" if "limit" in error.reason else "refused"
    except (tomllib.TOMLDecodeError, RecursionError):
        return "refused"


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a = 1\n#" + "x" * MAX_LINE + "\n# short", 2, MAX_LINE + 1),
        ("a = 1\nb = 2\n\nx = " + "[" * (MAX_NESTING + 1), 4, 5 + MAX_NESTING),
        ("[[a]]\n  " + ".".join("k" * (MAX_KEY_PARTS + 1)) + " = 1", 2, 2 + 2 * MAX_KEY_PARTS),
    ],
    ids=["line", "nesting", "key"],
)
def test_what_exceeds_a_limit_is_named_with_its_place(text: str, line: int, column: int) -> None:
    with pytest.raises(TomlError, match="limit") as caught:
        parse_toml(text.encode())
    assert (caught.value.line, caught.value.column) == (line, column)
