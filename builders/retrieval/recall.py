"""Recall: how often the right row is found first, or among the first five. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.errors import Invalid
from store.format.manifest import PPM

TOP = 5


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of `queries` found the right row first (`first`), and among the first five (`five`).

    Raises Invalid for counts that cannot be, and where nothing was asked: what was not measured is not fine.
    """

    first: int
    five: int
    queries: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.five <= self.queries or not self.queries:
            raise Invalid(f"recall of {self.first} and {self.five} of {self.queries} queries is none")

    def ppm(self, top: int) -> int:
        """Recall at 1 or at 5 in parts per million, rounded down. Raises Invalid for another number."""
        hits = {1: self.first, TOP: self.five}.get(top)
        if hits is None:
            raise Invalid(f"recall is measured at 1 and at {TOP}, not at {top}")
        return hits * PPM // self.queries


def tally(true: NDArray[np.uint64], found: NDArray[np.uint64]) -> Tally:
    """The tally of queries whose right rows are `true` uint64[q] and whose answers, the best first, `found` uint64[q,
    k], k >= 5. Raises Invalid."""
    if true.ndim != 1 or found.ndim != 2 or len(true) != len(found) or found.shape[1] < TOP:
        raise Invalid(f"{true.shape} right rows and {found.shape} answers are no queries")
    hits = found[:, :TOP] == true[:, None]
    return Tally(int(hits[:, 0].sum()), int(hits.any(axis=1).sum()), len(true))


def total(tallies: Iterable[Tally]) -> Tally:
    """The tally of all these queries together. Raises Invalid where there are none."""
    parts = list(tallies)
    return Tally(sum(p.first for p in parts), sum(p.five for p in parts), sum(p.queries for p in parts))
