"""What the signed figures say of the descriptor sets of a mission (FORMAT.md 6.7). Pure.

The check holds no figure against a bound of its own: a build does, before it signs. But a set whose recall nobody
measured is not judged, and the verdict says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Protocol

from store.format.entries import EntryTable
from store.format.manifest import PPM
from store.values import dataclass

# Queries that a recall rests on at least: with this number one wrong answer moves it by 5 %.
LEAST_QUERIES = 20
# Which weights an untrained network happens to have moves its share too: of eight draws of the shared backbone, asked
# for the NAIP imagery, from 0.75 to 0.89, with a standard deviation of 0.05 beyond that of the queries.
DRAW_DEVIATION = 0.05
# The way of the queries that are imagery of another source.
AGAINST = "against"
# Before the name of a descriptor set: the figure that sees where its map lies.
LANDMARKS = "landmarks/"


class Figure(Protocol):
    """A figure, signed or measured now: `value` in parts per million, of so many queries."""

    @property
    def name(self) -> str: ...

    @property
    def value(self) -> int: ...

    @property
    def queries(self) -> int: ...


@dataclass(frozen=True, slots=True)
class RecallRow:
    """The recall at 1 of one way: among all rows of the map, among the sampled views alone, and there by the same
    network untrained; parts per million, None where it is not among the figures."""

    set: str
    way: str
    queries: int
    whole: int
    sampled: int | None
    untrained: int | None


@dataclass(frozen=True, slots=True)
class Training:
    """A descriptor set's backbone beside the same network untrained: right first answers among the sampled views, in
    parts per million of `queries`, all perturbations together."""

    set: str
    trained: int
    untrained: int
    queries: int

    @property
    def shows(self) -> bool:
        """Whether the backbone is better by more than chance explains, that of the queries and that of the weights of
        two untrained networks: by two standard errors of the difference."""
        shares = [value / PPM for value in (self.trained, self.untrained)]
        error = math.sqrt(sum(share * (1 - share) for share in shares) / self.queries + 2 * DRAW_DEVIATION**2)
        return shares[0] - shares[1] > 2 * error


def figure_title(name: str) -> str:
    """Return a figure's name as people read it. Fidelity says that the engine equals the map, and not that either is
    any good."""
    kind, _, rest = name.partition("/")
    return f"engine equals map/{rest}" if kind == "fidelity" else name


def is_baseline(name: str) -> bool:
    """Whether a figure says nothing of a mission by itself: others have to be compared with it."""
    return name.startswith(("sampled@", "untrained@"))


def recall_rows(figures: Iterable[Figure]) -> tuple[RecallRow, ...]:
    """Return the recall at 1 that these figures state, by set and way: of several engines that of the worst."""
    by_name: dict[str, Figure] = {}
    for figure in figures:
        if figure.name not in by_name or figure.value < by_name[figure.name].value:
            by_name[figure.name] = figure
    rows = []
    for name, figure in sorted(by_name.items()):
        kind, _, rest = name.partition("/")
        set_, _, way = rest.rpartition("/")
        if kind == "recall@1" and set_:
            others = (by_name.get(f"{other}@1/{rest}") for other in ("sampled", "untrained"))
            sampled, untrained = (None if other is None else other.value for other in others)
            rows.append(RecallRow(set_, way, figure.queries, figure.value, sampled, untrained))
    return tuple(rows)


def trainings(figures: Iterable[Figure]) -> Iterator[Training]:
    """Yield what these figures say of each set's training, where they do. Imagery of another source is left out: both
    networks may fail on it."""
    by_set: dict[str, list[tuple[int, int, int]]] = {}
    for row in recall_rows(figures):
        if row.way != AGAINST and row.sampled is not None and row.untrained is not None:
            by_set.setdefault(row.set, []).append((row.queries, row.sampled, row.untrained))
    for set_, rows in by_set.items():
        queries = sum(count for count, _, _ in rows)
        trained, untrained = (sum(row[0] * row[column] for row in rows) // queries for column in (1, 2))
        yield Training(set_, trained, untrained, queries)


def without_recall(figures: Iterable[Figure], table: EntryTable) -> tuple[str, ...]:
    """Return the descriptor sets of a mission whose recall is not measured, ascending."""
    measured = {row.set for row in recall_rows(figures) if row.queries >= LEAST_QUERIES}
    return tuple(sorted(_sets(table) - measured))


def without_landmarks(figures: Iterable[Figure], table: EntryTable) -> tuple[str, ...]:
    """Return the descriptor sets of a mission that no figure shows to lie in the right place, ascending."""
    names = {figure.name for figure in figures}
    return tuple(sorted(set_ for set_ in _sets(table) if f"{LANDMARKS}{set_}" not in names))


def _sets(table: EntryTable) -> set[str]:
    return {entry.name.split("/")[1] for entry in table.of_kind("descriptors")}
