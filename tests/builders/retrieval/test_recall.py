"""Tallies count what they say, and their figures never round up."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.onboard.exact import NO_ROW
from builders.retrieval.recall import Tally, tally, total
from store.errors import Invalid

answers = st.lists(
    st.tuples(st.integers(0, 9), st.lists(st.integers(0, 9), min_size=7, max_size=7, unique=True)), min_size=1
)


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    queries = draw(st.integers(1, 10**7))
    at5 = draw(st.integers(0, queries))
    return Tally(draw(st.integers(0, at5)), at5, queries)


@given(answers)
def test_counts_the_first_and_the_first_five(given_: list[tuple[int, list[int]]]) -> None:
    true = np.array([one for one, _ in given_], np.uint64)
    found = np.array([five for _, five in given_], np.uint64)
    assert tally(true, found) == Tally(
        sum(one == five[0] for one, five in given_), sum(one in five[:5] for one, five in given_), len(given_)
    )


@given(tallies())
def test_ppm_is_the_greatest_that_the_counts_meet(counted: Tally) -> None:
    for top, hits in ((1, counted.at1), (5, counted.at5)):
        exact = Fraction(hits * 10**6, counted.queries)
        assert counted.ppm(top) <= exact < counted.ppm(top) + 1


@given(st.lists(tallies(), min_size=1))
def test_a_total_counts_every_query_once(counted: list[Tally]) -> None:
    assert total(counted) == Tally(
        sum(t.at1 for t in counted), sum(t.at5 for t in counted), sum(t.queries for t in counted)
    )
    assert total(iter(counted)) == total(counted)


def test_an_answer_that_is_not_there_is_no_hit() -> None:
    assert tally(np.array([7], np.uint64), np.full((1, 5), NO_ROW, np.uint64)) == Tally(0, 0, 1)


@pytest.mark.parametrize("top", [0, 2, 10])
def test_other_ranks_are_not_counted(top: int) -> None:
    with pytest.raises(Invalid):
        Tally(1, 1, 1).ppm(top)


@pytest.mark.parametrize("counts", [(0, 0, 0), (2, 1, 3), (1, 4, 3), (-1, 0, 1), (0, 0, -1)])
def test_counts_that_cannot_be(counts: tuple[int, int, int]) -> None:
    with pytest.raises(Invalid):
        Tally(*counts)


def test_recall_of_nothing_is_not_a_figure() -> None:
    with pytest.raises(Invalid):
        total([])
    with pytest.raises(Invalid):
        tally(np.empty(0, np.uint64), np.empty((0, 5), np.uint64))


@pytest.mark.parametrize(
    ("true", "found"),
    [
        (np.zeros(2, np.uint64), np.zeros((2, 4), np.uint64)),
        (np.zeros(2, np.uint64), np.zeros((3, 5), np.uint64)),
        (np.zeros(2, np.uint64), np.zeros(2, np.uint64)),
        (np.zeros((2, 1), np.uint64), np.zeros((2, 5), np.uint64)),
        (np.zeros(2, np.int64), np.zeros((2, 5), np.uint64)),
        (np.zeros(2, np.uint64), np.zeros((2, 5), np.float64)),
    ],
)
def test_other_shapes_and_types_are_invalid(true: NDArray[np.uint64], found: NDArray[np.uint64]) -> None:
    with pytest.raises(Invalid):
        tally(true, found)
