"""The values that a compilation is described by: input ranges and the cases that an engine is checked with."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.engines.base import EngineSpec, InputRange
from builders.engines.model import ModelSource
from store.errors import Invalid


def test_cases_are_the_three_corners_each_once() -> None:
    model = ModelSource("m", Path("m"), b"\0" * 32, 0, ())
    fixed = InputRange("b", (1, 2))
    spec = EngineSpec("m", model, "fp32", (InputRange("a", ("N", 3), 1, 4, 4), fixed))
    assert spec.cases() == ({"a": (1, 3), "b": (1, 2)}, {"a": (4, 3), "b": (1, 2)})
    assert EngineSpec("m", model, "fp32", (fixed,)).cases() == ({"b": (1, 2)},)


@pytest.mark.parametrize(
    "wrong",
    [
        (("N", "M"), 1, 2, 3),
        (("N",), None, None, None),
        (("N",), 1, 2, None),
        (("N",), 3, 2, 1),
        (("N",), 0, 1, 2),
        ((4,), 1, 2, 3),
        ((0,), None, None, None),
    ],
)
def test_a_range_that_makes_no_sense_is_no_value(wrong: tuple[tuple[int | str, ...], int, int, int]) -> None:
    shape, *sizes = wrong
    with pytest.raises(Invalid):
        InputRange("x", shape, *sizes)
