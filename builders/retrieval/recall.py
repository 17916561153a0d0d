"""Recall: the part of queries that a search answers right at once, and among its first five answers. Pure.

Figures are parts per million, rounded down, so that no figure meets a threshold that its counts do not meet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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


def tally(true: NDArray[np.uint64], answers: NDArray[np.uint64]) -> Tally:
    """Return how often the true ids, uint64[q], are among the answers, uint64 [q, k], k >= 5, nearest first. Raises
    Invalid for other shapes or types, and for no queries."""
    shapes = true.ndim == 1 and answers.ndim == 2 and len(answers) == len(true) and answers.shape[1] >= 5
    if not shapes or true.dtype != np.uint64 or answers.dtype != np.uint64:
        raise Invalid(
            "recall compares true ids uint64 [q] with answers uint64 [q, 5 or more]; these are "
            f"{true.dtype} {list(true.shape)} and {answers.dtype} {list(answers.shape)}"
        )
    hits = answers[:, :5] == true[:, None]
    return Tally(int(np.count_nonzero(hits[:, 0])), int(np.count_nonzero(hits.any(axis=1))), len(true))


def total(tallies: Iterable[Tally]) -> Tally:
    """Return all queries as one tally. Raises Invalid for none."""
    counted = list(tallies)
    return Tally(sum(t.at1 for t in counted), sum(t.at5 for t in counted), sum(t.queries for t in counted))
