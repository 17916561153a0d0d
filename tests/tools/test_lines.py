"""Lines fit, words stay whole, and a table stays one where names are long."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools import lines
from tools.lines import Loudness, columns_of, cut, fitted, short, shortened, table, wrapped

WORDS = st.text(st.sampled_from("ab-/日é'"), min_size=1, max_size=30)
TEXTS = st.lists(WORDS, max_size=30).map(" ".join)


@settings(deadline=None)
@given(TEXTS, st.integers(0, 12), st.integers(0, 12))
def test_a_paragraph_has_all_its_words_and_only_a_word_alone_is_wider(text: str, first: int, rest: int) -> None:
    made = wrapped(text, " " * first, " " * rest, 40)
    assert " ".join(made).split() == text.split()
    for line in made:
        assert columns_of(line) <= 40 or len(line.split()) == 1
    assert all(line.startswith(" " * rest) for line in made[1:])


@settings(deadline=None)
@given(st.lists(st.tuples(WORDS | st.just(""), TEXTS, TEXTS), max_size=5))
def test_a_table_has_all_its_words_and_only_a_word_alone_is_wider(rows: list[tuple[str, str, str]]) -> None:
    made = list(table(rows, 60))
    assert " ".join(made).split() == " ".join(" ".join(row) for row in rows).split()
    for line in made:
        assert columns_of(line) <= 60 or len(line.split()) == 1


def test_a_table_that_fits_is_aligned() -> None:
    rows = [("mission", "flight", "valid"), ("ridge", "2026-11-23-01", "never expires")]
    assert list(table(rows)) == ["mission  flight         valid", "ridge    2026-11-23-01  never expires"]
    assert list(table([])) == []


def test_a_long_last_cell_goes_on_beneath_and_another_long_one_has_a_line() -> None:
    rows = [("a", "one two three four five six seven eight nine"), ("x" * 50, "ten")]
    assert list(table(rows, 40)) == [
        "a               one two three four five",
        "                six seven eight nine",
        "x" * 50,
        "                ten",
    ]


def test_letters_of_east_asia_take_two_columns() -> None:
    assert (columns_of("日本"), columns_of("e\u0301"), columns_of("ab")) == (4, 1, 2)
    assert wrapped("日本 日本", "", "", 8) == ["日本", "日本"]


def test_a_command_stays_on_one_line() -> None:
    text = "the index is damaged: run `flightbag sync --checksum` from a whole copy"
    assert wrapped(text, "", "  ", 40) == [
        "the index is damaged: run",
        "  `flightbag sync --checksum` from a",
        "  whole copy",
    ]
    assert wrapped("run `a b c d`, now", "", "", 6) == ["run", "`a b c d`,", "now"]
    assert wrapped("one ` two three", "", "", 6) == ["one `", "two", "three"]


def test_a_line_that_fits_stays_as_it_is_and_a_longer_one_is_indented_deeper() -> None:
    assert fitted("a  b") == ["a  b"]
    assert fitted("x" * 90) == ["x" * 90]
    assert fitted("  -> " + "word " * 20)[1].startswith("     word")
    assert fitted("  " + "word " * 20)[1].startswith("      word")


def test_ids_are_short_for_people_and_whole_if_they_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = "0123456789abcdef" * 4
    monkeypatch.setattr(lines, "_loudness", Loudness.NORMAL)
    assert (short(id_), short("ab")) == ("0123456789ab", "ab")
    text = f"object {id_} has 4096 bytes"
    assert shortened(text) == "object 0123456789ab has 4096 bytes"
    assert shortened(f"objects/01/{id_[2:]}") == f"objects/01/{id_[2:]}"
    assert cut([1, 2, 3], 2) == ([1, 2], 1)
    lines.set_loudness(Loudness.VERBOSE)
    assert (short(id_), shortened(text)) == (id_, text)
    assert cut([1, 2, 3], 2) == ([1, 2, 3], 0)
    lines.set_loudness(Loudness.QUIET)
    assert short(id_) == "0123456789ab"


@pytest.mark.parametrize(("columns", "expected"), [(132, 132), (80, 80), (20, 40), (0, 80)])
def test_the_width_is_that_of_the_terminal_and_80_elsewhere(
    monkeypatch: pytest.MonkeyPatch, columns: int, expected: int
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert lines.width(io.StringIO()) == 80
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with os.fdopen(theirs, "w") as terminal:
            assert lines.width(terminal) == expected
    finally:
        os.close(ours)


def test_no_colour_where_nobody_sees_it_or_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for stream, variables, painted in (
        (Terminal(), {}, True),
        (io.StringIO(), {}, False),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout", stream)
            for name, value in variables.items():
                patch.setenv(name, value)
            assert lines.colours() is painted
