"""Probes as bytes, and the agreement of an engine with the map."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from builders.descriptors.tensors import write_tensors
from builders.onboard.probes import Probe
from builders.recipe import PROBE_SCHEMA, SHARD_SCHEMA, RowRecipe
from store.errors import Corrupt

RECIPE = RowRecipe("", bytes(32), "y", {"resize": [2, 2]}, 256, (1, 1), "float32", "none")
IMAGES = np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3)
ROWS = np.array([[1, 0], [0, 2], [3, 4]], np.float32)
PROBE = Probe(RECIPE, IMAGES, np.array([5, 6, 9], np.uint64), ROWS)


class Engine:
    """Gives these descriptors, whatever the images."""

    def __init__(self, descriptors: Any) -> None:
        self.descriptors: NDArray[np.float32] = np.array(descriptors, np.float32)

    def describe(self, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        assert len(images) == len(self.descriptors)
        return self.descriptors


def fidelity(descriptors: Any) -> float:
    return PROBE.fidelity(Engine(descriptors))  # type: ignore[arg-type]


def test_what_is_rendered_parses() -> None:
    again = Probe.parse(PROBE.render())
    assert again.recipe == RECIPE
    for name in ("images", "origins", "rows"):
        assert np.array_equal(getattr(again, name), getattr(PROBE, name))
    assert again.render() == PROBE.render()


@pytest.mark.parametrize(
    "change",
    [
        {"images": IMAGES[:2]},
        {"origins": PROBE.origins[:1]},
        {"images": IMAGES[..., :2]},
        {"images": IMAGES.astype(np.float32)},
        {"images": IMAGES[:0], "origins": PROBE.origins[:0], "rows": ROWS[:0]},
    ],
    ids=["images", "origins", "channels", "floats", "none"],
)
def test_arrays_that_do_not_fit_each_other_are_corrupt(change: dict[str, Any]) -> None:
    with pytest.raises(Corrupt) as caught:
        Probe.parse(replace(PROBE, **change).render())
    assert caught.value.kind == "bad-probe"


def test_a_shard_is_not_a_probe() -> None:
    arrays: dict[str, NDArray[Any]] = {"images": IMAGES, "tiles": PROBE.origins, "descriptors": ROWS}
    without_images = {name: array for name, array in arrays.items() if name != "images"}
    for parts, schema in ((arrays, SHARD_SCHEMA), (without_images, PROBE_SCHEMA)):
        with pytest.raises(Corrupt) as caught:
            Probe.parse(write_tensors(parts, {**RECIPE.metadata(), "schema": schema}))
        assert caught.value.kind == "bad-probe"


def test_fidelity_is_the_least_cosine() -> None:
    assert fidelity(ROWS * [[1], [7], [0.5]]) == pytest.approx(1.0)
    assert fidelity([[1, 1], [0, 1], [3, 4]]) == pytest.approx(0.5**0.5)
    assert fidelity([[-1, 0], [0, 1], [3, 4]]) == pytest.approx(-1.0)


def test_a_descriptor_without_a_direction_agrees_with_nothing() -> None:
    assert fidelity([[0, 0], [0, 1], [3, 4]]) == 0.0


def test_descriptors_of_another_length_are_corrupt() -> None:
    with pytest.raises(Corrupt, match="3 numbers, a row of the map has 2"):
        fidelity(np.ones((3, 3)))
