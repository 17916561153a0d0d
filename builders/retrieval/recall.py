"""Recall: of so many queries, how many were answered right at once, and how many among the first five. Pure.

Figures are parts per million rounded down, so that none ever meets a threshold that the counts do not.
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
    """Of `queries` queries, `at1` had the true answer first and `at5` among the first five.

    Raises Invalid unless 0 <= at1 <= at5 <= queries and there is a query: recall of none is nothing.
    """

    at1: int
    at5: int
    queries: int

    def __post_init__(self) -> None:
        if not 0 <= self.at1 <= self.at5 <= self.queries or not self.queries:
            raise Invalid(f"{self.at1} right at 1 and {self.at5} at 5 of {self.queries} queries is no recall")

    def ppm(self, top: int) -> int:
        """Recall at `top`, 1 or 5, in parts per million, rounded down. Raises Invalid for another `top`."""
        if top not in (1, 5):
            raise Invalid(f"recall is counted at 1 and at 5, not at {top}", top=top)
        return (self.at1 if top == 1 else self.at5) * PPM // self.queries


def tally(true: NDArray[np.uint64], found: NDArray[np.uint64]) -> Tally:
    """How often the true ids, uint64[q], are among those found, uint64 [q, k], k >= 5, nearest first. Raises Invalid
    for other shapes or types, and for no queries."""
    shapes = true.ndim == 1 and found.ndim == 2 and len(found) == len(true) and found.shape[1] >= 5
    if not shapes or true.dtype != np.uint64 or found.dtype != np.uint64:
        raise Invalid(
            "recall is of true ids uint64 [q] and found ones uint64 [q, 5 and more], these are "
            f"{true.dtype} {list(true.shape)} and {found.dtype} {list(found.shape)}"
        )
    hits = found[:, :5] == true[:, None]
    return Tally(int(np.count_nonzero(hits[:, 0])), int(np.count_nonzero(hits.any(axis=1))), len(true))


def total(tallies: Iterable[Tally]) -> Tally:
    """All queries as one tally. Raises Invalid for none."""
    counted = list(tallies)
    return Tally(sum(t.at1 for t in counted), sum(t.at5 for t in counted), sum(t.queries for t in counted))
