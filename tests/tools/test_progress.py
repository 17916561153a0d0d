"""The bars that a terminal gets on standard error."""

from __future__ import annotations

import io
import re
import sys

import pytest

from tools.progress import is_shown, reading_bar, work_bars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return screen


def last_frame(screen: Terminal) -> dict[str, str]:
    """What each bar said last, by its label."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    return {found[1]: found[0] for found in re.finditer(r"(\w+) [━╸╺ ]+ *(.*)", text)}


def test_a_bar_of_bytes_has_a_total_a_rate_and_the_time_left(terminal: Terminal) -> None:
    with reading_bar("verifying") as advance:
        for _ in range(3):
            advance(10**9, 40 * 10**9)
    assert re.search(r"3\.0/40\.0 GB +\S+ \S+/s +(\d+:\d\d:\d\d|-:--:--)", last_frame(terminal)["verifying"])


def test_work_of_an_unknown_amount_stops_when_other_work_goes_on(terminal: Terminal) -> None:
    with work_bars() as advance:
        advance("parsing", 3, 0)
        advance("embedding", 1, 4)
    assert "3/3" in last_frame(terminal)["parsing"]
    assert "1/4" in last_frame(terminal)["embedding"]


def test_work_that_goes_on_after_all_has_an_open_end_again(terminal: Terminal) -> None:
    with work_bars() as advance:
        advance("parsing", 3, 0)
        advance("asking", 1, 0)
        advance("parsing", 2, 0)
    assert "5/?" in last_frame(terminal)["parsing"]
    assert "1/1" in last_frame(terminal)["asking"]


def test_elsewhere_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with reading_bar("verifying") as advance:
        advance(1, 2)
    assert (sys.stderr.getvalue(), is_shown()) == ("", False)  # type: ignore[attr-defined]
