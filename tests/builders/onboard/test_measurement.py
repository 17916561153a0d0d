"""Figures measured again: when one holds, is too low, or shows nothing."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from builders.onboard.measurement import Measurement
from store.format.manifest import Figure, Unproven

FIGURE = Figure("fidelity/net", 990_000, 950_000, 8, b"r" * 32)
UNPROVEN = Unproven("fidelity/far", 950_000, b"r" * 32)
MISSION: Any = SimpleNamespace(manifest=SimpleNamespace(quality=(FIGURE,), unproven=(UNPROVEN,)))


@pytest.mark.parametrize(
    ("value", "recipe", "low", "unsure"),
    [
        (950_000, b"r" * 32, False, False),
        (949_999, b"r" * 32, True, False),
        (990_000, b"x" * 32, False, True),
        (0, b"x" * 32, True, True),
    ],
)
def test_a_signed_figure(value: int, recipe: bytes, low: bool, unsure: bool) -> None:
    figure = Measurement.of(MISSION, "fidelity/net", value, recipe, {15: value}, 8)
    assert (figure.low, figure.unsure, figure.holds) == (low, unsure, not low and not unsure)
    assert (figure.signed, figure.least) == (990_000, 950_000)
    assert figure.as_json()["zooms"] == {"15": value}


@pytest.mark.parametrize(
    ("value", "recipe", "low", "unsure"),
    [(950_000, b"r" * 32, False, False), (949_999, b"r" * 32, True, False), (990_000, b"x" * 32, False, True)],
)
def test_a_figure_that_nobody_had_measured(value: int, recipe: bytes, low: bool, unsure: bool) -> None:
    figure = Measurement.of(MISSION, "fidelity/far", value, recipe, {}, 8)
    assert (figure.low, figure.unsure, figure.unproven, figure.recipe) == (low, unsure, True, recipe)
    assert (figure.signed, figure.least) == (None, 950_000)


def test_of_several_engines_that_of_the_recipe_counts() -> None:
    other = replace(FIGURE, least=1, recipe=b"a" * 32)
    last = Unproven("fidelity/net", 980_000, b"z" * 32)
    mission: Any = SimpleNamespace(manifest=SimpleNamespace(quality=(other, FIGURE), unproven=(last,)))
    for recipe, least, unproven in ((b"a" * 32, 1, False), (b"r" * 32, 950_000, False), (b"z" * 32, 980_000, True)):
        figure = Measurement.of(mission, "fidelity/net", 1, recipe, {}, 8)
        assert (figure.least, figure.unproven, figure.unsure) == (least, unproven, False)
    assert Measurement.of(mission, "fidelity/net", 1, b"x" * 32, {}, 8).unsure


def test_a_figure_that_the_manifest_does_not_have_cannot_be_too_low() -> None:
    figure = Measurement.of(MISSION, "recall@1/net/shift", 1, b"r" * 32, {}, 8)
    assert (figure.signed, figure.least, figure.low, figure.unsure) == (None, None, False, False)


def test_a_figure_that_was_not_measured_shows_nothing() -> None:
    figure = Measurement.unmeasured(Figure("recall@1/net/against", 990_000, 950_000, 20, bytes(32)))
    assert (figure.value, figure.signed, figure.least, figure.queries) == (None, 990_000, 950_000, 0)
    assert (figure.low, figure.unsure, figure.holds) == (False, True, False)
