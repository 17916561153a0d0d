"""The bars that a terminal gets on standard error."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable

import pytest

from tools import lines
from tools.lines import Loudness
from tools.progress import is_shown, reading_bar, work_bars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


Shown = Callable[[Callable[[], None]], dict[str, str]]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Runs something at a terminal, and returns what each bar said last, by its label."""

    def run(work: Callable[[], None]) -> dict[str, str]:
        screen = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", screen)
            patch.setenv("TERM", "xterm")
            patch.setenv("COLUMNS", "100")
            work()
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
        return {line.split()[0]: line for line in re.split("[\r\n]+", text) if line.strip()}

    return run


def test_a_bar_of_bytes_has_a_total_a_rate_and_the_time_left(shown: Shown) -> None:
    def work() -> None:
        with reading_bar("verifying") as advance:
            for _ in range(3):
                advance(10**9, 40 * 10**9)

    assert re.search(r"3\.0/40\.0 GB +\S+ \S+/s +(\d+:\d\d:\d\d|-:--:--)", shown(work)["verifying"])


def test_work_of_an_unknown_amount_stops_when_other_work_goes_on(shown: Shown) -> None:
    def work() -> None:
        with work_bars() as advance:
            advance("parsing", 3, 0)
            advance("embedding", 1, 4)

    said = shown(work)
    assert ("3/3" in said["parsing"], "1/4" in said["embedding"]) == (True, True)


def test_a_bar_that_counted_nothing_goes_when_other_work_goes_on(shown: Shown) -> None:
    def work() -> None:
        with work_bars() as advance:
            advance("reading", 0, 0)
            advance("embedding", 1, 4)

    said = shown(work)
    assert ("0/0" in said.get("reading", ""), "1/4" in said["embedding"]) == (False, True)


def test_work_that_goes_on_after_all_has_an_open_end_again(shown: Shown) -> None:
    def work() -> None:
        with work_bars() as advance:
            advance("parsing", 3, 0)
            advance("asking", 1, 0)
            advance("parsing", 2, 0)

    said = shown(work)
    assert ("5/?" in said["parsing"], "1/1" in said["asking"]) == (True, True)


def test_elsewhere_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with reading_bar("verifying") as advance:
        advance(1, 2)
    assert (pipe.getvalue(), is_shown()) == ("", False)


def test_quiet_shows_no_bar(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        with reading_bar("verifying") as advance:
            advance(1, 2)

    assert list(shown(work)) == ["verifying"]
    monkeypatch.setattr(lines, "_loudness", Loudness.QUIET)
    assert shown(work) == {}
