"""Why figures refuse a mission."""

from __future__ import annotations

from builders.report import Measured, too_low
from store.format.manifest import PPM


def figure(name: str, value: float, *, least: float = 0, chance: float | None = None) -> Measured:
    return Measured(
        name, int(value * PPM), int(least * PPM), 100, bytes(32), (), None if chance is None else int(chance * PPM)
    )


def test_figures_that_hold_refuse_nothing() -> None:
    assert not too_low([figure("self@1/a", 0.95, least=0.95), figure("recall@1/a/shift", 0.9, chance=0.1)])


def test_each_figure_has_its_own_remedy() -> None:
    """A map that finds nothing says nothing of the engine, whatever else is too low."""
    low = [
        figure("recall@1/a/shift", 0.1, chance=0.1),
        figure("self@1/a", 0.5, least=0.95),
        figure("self@1/b", 0.6, least=0.95),
    ]
    why = too_low(low)
    assert why.startswith("self@1/a is 0.5")
    assert why.count("self_retrieval") == 2
    assert "self_retrieval" not in why.rpartition("finds nothing")[2]


def test_imagery_of_another_source_may_find_nothing() -> None:
    found = figure("recall@1/a/shift", 0.9, chance=0.1)
    assert not too_low([figure("recall@1/a/against", 0.1, chance=0.1), found])
    assert "finds nothing" in too_low(
        [figure("recall@1/a/shift", 0.1, chance=0.1), figure("recall@1/b/shift", 0.9, chance=0.1)]
    )
