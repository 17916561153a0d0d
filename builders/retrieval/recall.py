"""Recall: the part of queries that a search answers right at once, and among its first five answers; and what it has to
be compared with. Pure.

Figures are parts per million, rounded down, so that no figure meets a threshold that its counts do not meet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from store.errors import Invalid
from store.format.manifest import PPM


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts: of `queries` queries, `at1` had the true answer first and `at5` among the first five.

    Raises Invalid unless 0 <= at1 <= at5 <= queries and queries >= 1: no query has no recall.
    """

    at1: int
    at5: int
    queries: int

    def __post_init__(self) -> None:
        if not 0 <= self.at1 <= self.at5 <= self.queries or not self.queries:
            raise Invalid(
                f"{self.at1} right answers at 1 and {self.at5} at 5 of {self.queries} queries: expected "
                "0 <= at 1 <= at 5 <= queries, and a query"
            )

    def ppm(self, top: int) -> int:
        """Return the recall at `top`, 1 or 5, in parts per million, rounded down. Raises Invalid for another `top`."""
        if top not in (1, 5):
            raise Invalid(f"recall is counted at 1 and at 5, not at {top}", top=top)
        return (self.at1 if top == 1 else self.at5) * PPM // self.queries


@dataclass(frozen=True, slots=True)
class Recall:
    """The recall of one way at one zoom: among the `rows` rows of the map; among the sampled views alone, which are the
    true answers of the queries; and there by the same network untrained, None where that was not measured."""

    rows: int
    whole: Tally
    sampled: Tally
    untrained: Tally | None

    def of(self, kind: str) -> tuple[int, Tally | None]:
        """Return the number of rows to choose from, and the counts, for a kind of figure: `recall`, `sampled` or
        `untrained`. The sampled views are those of the queries."""
        if kind == "recall":
            return self.rows, self.whole
        return self.sampled.queries, self.sampled if kind == "sampled" else self.untrained


def tally(right: NDArray[np.bool_]) -> Tally:
    """Return the counts of answers, bool [q, k], k >= 5: whether each is right, nearest first. Raises Invalid for
    another shape or type, and for no queries."""
    if right.ndim != 2 or right.shape[1] < 5 or right.dtype != np.bool_:
        raise Invalid(f"recall counts answers bool [q, 5 or more]; these are {right.dtype} {list(right.shape)}")
    return Tally(int(np.count_nonzero(right[:, 0])), int(np.count_nonzero(right[:, :5].any(axis=1))), len(right))


def total(tallies: Iterable[Tally]) -> Tally:
    """Return all queries as one tally. Raises Invalid for none."""
    counted = list(tallies)
    return Tally(sum(t.at1 for t in counted), sum(t.at5 for t in counted), sum(t.queries for t in counted))


def chance(choices: Iterable[tuple[int, int]], top: int) -> int:
    """Return what answers in a random order would reach at `top`, pooled as recall is, in parts per million, rounded
    down. `choices` are (queries, rows to choose from) of each zoom. Raises Invalid for none."""
    counted = list(choices)
    if not counted:
        raise Invalid("no query has no chance to be answered right")
    hits = sum(Fraction(queries * min(top, rows), rows) for queries, rows in counted)
    return int(hits * PPM / sum(queries for queries, _ in counted))
