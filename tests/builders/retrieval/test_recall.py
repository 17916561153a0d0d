"""Tallies count what they say, and their figures never round up."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.retrieval.recall import Recall, Tally, chance, tally, total
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
    assert tally(found == true[:, None]) == Tally(
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
        tally(np.empty((0, 5), np.bool_))
    with pytest.raises(Invalid):
        chance([], 1)


@pytest.mark.parametrize("right", [np.zeros((2, 4), np.bool_), np.zeros(5, np.bool_), np.zeros((2, 5), np.uint8)])
def test_other_shapes_and_types_are_invalid(right: NDArray[np.bool_]) -> None:
    with pytest.raises(Invalid):
        tally(right)


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 10**6)), min_size=1), st.sampled_from([1, 5]))
def test_chance_is_that_of_a_random_order(choices: list[tuple[int, int]], top: int) -> None:
    """Of n rows in a random order the true one is among the first k with probability k/n, whatever else."""
    exact = sum(Fraction(queries * min(top, rows), rows) for queries, rows in choices)
    queries = sum(count for count, _ in choices)
    assert chance(choices, top) <= exact * 10**6 / queries < chance(choices, top) + 1
    assert chance(choices, top) <= 10**6


def test_a_recall_has_the_rows_that_it_chose_from() -> None:
    recall = Recall(1000, Tally(1, 2, 4), Tally(2, 3, 4), None)
    assert recall.of("recall") == (1000, Tally(1, 2, 4))
    assert recall.of("sampled") == (4, Tally(2, 3, 4))
    assert recall.of("untrained") == (4, None)
