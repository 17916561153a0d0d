"""The list of missing tiles: its law, its order, and what it counts. The golden vectors are in tests/conformance."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt, Invalid
from store.format import missing
from store.format.cbor import encode
from store.format.missing import REASONS, MissingList, Run


@st.composite
def lists(draw: st.DrawFn) -> MissingList:
    """Runs with gaps of some tiles, or of none where the reason is another."""
    runs: list[Run] = []
    at = draw(st.integers(0, 10**9))
    for _ in range(draw(st.integers(0, 12))):
        reason = draw(st.sampled_from(REASONS))
        gap = draw(st.integers(0, 5))
        if runs and runs[-1].reason == reason:
            gap += 1
        run = Run(at + gap, draw(st.integers(1, 100)), reason)
        runs.append(run)
        at = run.first + run.tiles
    return MissingList(tuple(runs))


@given(lists())
def test_what_is_rendered_parses(one: MissingList) -> None:
    assert MissingList.parse(one.render()) == one
    assert set(one.by_reason) == {run.reason for run in one.runs}
    assert sum(one.by_reason.values()) == one.total == sum(run.tiles for run in one.runs)


@given(lists(), st.integers(0, 10**6), st.integers(1, 255))
def test_another_byte_is_another_list_or_none(one: MissingList, place: int, flip: int) -> None:
    data = bytearray(one.render())
    data[place % len(data)] ^= flip
    with suppress(Corrupt):
        assert MissingList.parse(bytes(data)) != one


def test_a_list_is_bounded_before_it_is_parsed() -> None:
    with pytest.raises(Corrupt, match="at most"):
        MissingList.parse(bytes(16 * 2**20 + 1))


@pytest.mark.parametrize(
    "runs",
    [
        (Run(5, 0, "absent"),),
        (Run(-1, 1, "absent"),),
        (Run(5, 1, "lost"),),
        (Run(5, 2, "absent"), Run(6, 1, "blank")),
        (Run(5, 2, "absent"), Run(7, 1, "absent")),
        (Run((4**25 - 1) // 3 - 1, 2, "absent"),),
    ],
)
def test_what_is_no_list_cannot_be_made(runs: tuple[Run, ...]) -> None:
    with pytest.raises(Invalid):
        MissingList(runs)


@pytest.mark.parametrize(
    "value",
    [
        {},
        "runs",
        [1],
        [[5, 1]],
        [[5, 1, "absent", 1]],
        [["5", 1, "absent"]],
        [[5, b"1", "absent"]],
        [[5, 1, b"absent"]],
    ],
)
def test_bytes_that_are_no_list_of_runs_are_refused(value: object) -> None:
    with pytest.raises(Corrupt) as caught:
        MissingList.parse(encode(value))  # type: ignore[arg-type]
    assert caught.value.fields == {"kind": "bad-field", "field": "missing"}


def test_a_list_is_rendered_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    one = MissingList((Run(5, 1, "absent"),))
    data = one.render()
    monkeypatch.setattr(missing, "LIST_LIMIT", len(data))
    assert one.render() == data
    monkeypatch.setattr(missing, "LIST_LIMIT", len(data) - 1)
    with pytest.raises(Invalid):
        one.render()


def test_the_last_tile_of_all_zooms_is_the_last_id() -> None:
    last = (4**25 - 1) // 3 - 1
    assert MissingList((Run(last, 1, "absent"),)).total == 1
    assert MissingList((Run(0, 1, "absent"),)).total == 1
