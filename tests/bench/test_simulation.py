"""The laws of the simulation, and cases that can be counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.simulation import Unit, simulate

SECONDS = st.floats(0.001, 10)
UNITS = st.builds(
    Unit,
    SECONDS,
    SECONDS,
    SECONDS,
    SECONDS,
    st.integers(1, 9),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.just(0.0),
)
CASES = {"cells": st.integers(1, 40), "round_": st.integers(1, 40), "window": st.integers(1, 40)}


@given(unit=UNITS, workers=st.integers(1, 9), **CASES)
def test_no_build_is_faster_than_any_station(unit: Unit, workers: int, cells: int, round_: int, window: int) -> None:
    run = simulate(unit, cells=cells, workers=workers, round_=round_, window=window, bandwidth=1e6)
    assert run.seconds >= cells * (unit.send + unit.take) * (1 - 1e-9)
    assert run.seconds >= cells * unit.describe / workers * (1 - 1e-9)
    assert max(run.driver, run.link, run.worker) <= 1 + 1e-9


@given(unit=UNITS, workers=st.integers(1, 9), **CASES)
def test_more_workers_take_no_longer(unit: Unit, workers: int, cells: int, round_: int, window: int) -> None:
    one, more = (
        simulate(unit, cells=cells, workers=count, round_=round_, window=window, bandwidth=1e6).seconds
        for count in (workers, workers + 1)
    )
    assert more <= one * (1 + 1e-9)


@pytest.mark.parametrize(
    ("workers", "round_", "window", "seconds"),
    [
        (1, 8, 8, 80),  # one after another
        (4, 8, 8, 20),
        (8, 8, 8, 10),
        (8, 8, 1, 80),  # one under way
        (8, 2, 8, 40),  # a round of two waits for both
        (8, 3, 8, 30),  # 3, 3 and 2
    ],
)
def test_waiting_is_counted_by_hand(workers: int, round_: int, window: int, seconds: float) -> None:
    unit = Unit(send=0, describe=10, take=0, barrier=0, durable=1, sent=0, returned=0)
    run = simulate(unit, cells=8, workers=workers, round_=round_, window=window, bandwidth=1)
    assert run.seconds == pytest.approx(seconds)


def test_what_is_made_durable_at_once_is_paid_once() -> None:
    unit = Unit(send=0, describe=0, take=1, barrier=10, durable=4, sent=0, returned=0)
    for round_, seconds in ((8, 8 + 20), (6, 8 + 30), (100, 8 + 20)):
        run = simulate(unit, cells=8, workers=1, round_=round_, window=3, bandwidth=1)
        assert run.seconds == pytest.approx(seconds), round_


def test_the_station_that_is_busy_is_named() -> None:
    def limit(round_: int = 1000, workers: int = 4, **changed: float) -> str:
        given: dict[str, Any] = {"send": 0.001, "describe": 0.001, "take": 0.001, "barrier": 0.0, "durable": 32}
        unit = Unit(**{**given, "sent": 1, "returned": 1, **changed})
        return simulate(unit, cells=1000, workers=workers, round_=round_, window=64, bandwidth=1e6).limit

    assert limit(describe=100) == "workers"
    assert limit(take=100) == "driver"
    assert limit(sent=100_000_000) == "link"
    assert limit(describe=1, round_=10, workers=100) == "rounds"
