"""Durations are read as they are written, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Invalid
from store.format.duration import duration_text, lifetime_of, seconds_of
from store.format.manifest import TIME_MAX


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("72h", 259200), ("14d", 1209600), ("0.5h", 1800), ("0s", 0), ("1.25s", 1.25)],
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "72", "h", "72 h", "-1h", "1e3s", "1h30m", "72H", ".5h", "1.0001s", "9" * 13 + "s", "1w", "٣h"]
)
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(Invalid, match="is not a duration"):
        seconds_of(text)


def test_a_lifetime_is_whole_seconds_up_to_the_last_time() -> None:
    assert [lifetime_of(text) for text in ("1s", "0.5h", f"{TIME_MAX}s")] == [1, 1800, TIME_MAX]
    for text in ("0s", "0.5s", "1.5s", "1.001h", f"{TIME_MAX + 1}s", "999999999999d", "72"):
        with pytest.raises(Invalid):
            lifetime_of(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(259200, "3d"), (259201, "259201s"), (5400, "90m"), (3600, "1h"), (1, "1s")]
)
def test_the_greatest_unit_that_divides(seconds: int, text: str) -> None:
    assert duration_text(seconds) == text


@given(st.integers(0, TIME_MAX))
def test_a_duration_comes_back_as_it_was(seconds: int) -> None:
    assert seconds_of(duration_text(seconds)) == seconds
