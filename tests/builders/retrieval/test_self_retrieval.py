"""Self-retrieval: every view of the sample is asked for once, and finds itself or is a fault."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.grid.tiles import tile_ids
from builders.imagery.png import write_png
from builders.onboard.layers import MapLayer
from builders.recipe import RowRecipe
from builders.retrieval.self_retrieval import SAMPLE, SelfRetrieval
from store.errors import Refused
from store.format.ids import BuildKey
from tests.support.lookalikes import lookalikes

SIDE, ZOOM = 8, 12
Picture = NDArray[np.uint8]


def describe(image: Picture, step: float = 0.0) -> NDArray[np.float32]:
    """The pixels without their mean, rounded to multiples of `step`."""
    row = image.astype(np.float64).ravel()
    row -= row.mean()
    return (np.round(row / step) * step if step else row).astype(np.float32)


@dataclass
class Engine:
    step: float = 0.0

    def describe(self, images: Sequence[Picture]) -> NDArray[np.float32]:
        return np.stack([describe(image, self.step) for image in images])


@dataclass
class World:
    """A map of single tiles, described in full precision, and the imagery that it was made from."""

    layer: MapLayer
    level: Any
    data: dict[int, bytes]

    @staticmethod
    def of(images: Sequence[Picture], missing: Sequence[int] = ()) -> World:
        x, y = np.divmod(np.arange(len(images)), 16)
        ids = tile_ids(ZOOM, x + 100, y + 100)
        order = np.argsort(ids)
        ids, images = ids[order], [images[i] for i in order]
        data = [write_png(image) for image in images]
        hashes = np.array([list(blake3(one).digest()) for one in data], np.uint8)
        level = SimpleNamespace(zoom=ZOOM, ids=ids, hashes=hashes)
        recipe = RowRecipe("", bytes(32), "d", {}, SIDE, (1, 1), "float16", "none")
        rows = np.stack([describe(image) for image in images]).astype(np.float16)
        dead = ids[list(missing)]
        return World(MapLayer(ZOOM, recipe, ids, dead, lambda: iter([(ids, rows)])), level,
                     dict(zip(ids.tolist(), data, strict=True)))  # fmt: skip

    def read_again(self, level: Any, wanted: NDArray[np.uint64]) -> Iterator[tuple[int, bytes]]:
        return ((number, self.data[number]) for number in wanted.tolist())

    def measure(self, engine: Engine, progress: Any = lambda _: None) -> Any:
        inventory: Any = SimpleNamespace(level=lambda _: self.level, digest=bytes(32))
        imagery: Any = SimpleNamespace(sources=self, inventory=inventory)
        own = SelfRetrieval("set", BuildKey(bytes(32)), (self.layer.recipe,), imagery)
        return own.measure([self.layer], engine, progress)  # type: ignore[arg-type]


def distinct(count: int, seed: int = 1) -> list[Picture]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8))


@pytest.mark.parametrize("count", [1, 31, 32, 33, SAMPLE, SAMPLE + 70])
def test_every_view_of_the_sample_finds_itself_in_full_precision(count: int) -> None:
    seen: list[int] = []
    asked = min(count, SAMPLE)
    assert World.of(distinct(count)).measure(Engine(), seen.append) == {ZOOM: (asked, asked)}
    assert sum(seen) == asked


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 60), st.integers(0, 1000))
def test_the_faults_are_those_of_a_brute_force(count: int, seed: int) -> None:
    """With places that look alike, and an engine that rounds as int8 does."""
    images = lookalikes(count, SIDE, seed=seed)
    engine = Engine(step=12.0)
    world = World.of(images)
    asked = [describe(image, 12.0).astype(np.float64) for image in images]
    rows = np.stack([describe(image).astype(np.float16).astype(np.float64) for image in images])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    scores = np.array([rows @ (one / np.linalg.norm(one)) for one in asked])
    best = scores.max(axis=1)
    # Where the two best are as good as equal, either answer will do.
    second = np.sort(scores, axis=1)[:, -2]
    clear = best - second > 1e-6
    right = (scores.argmax(axis=1) == np.arange(count)) & clear
    [(found, queries)] = world.measure(engine).values()
    assert queries == count
    assert right.sum() <= found <= right.sum() + (~clear).sum()


def test_a_coarse_engine_takes_one_place_for_another_where_a_fine_one_does_not() -> None:
    world = World.of(lookalikes(96, SIDE))
    assert world.measure(Engine()) == {ZOOM: (96, 96)}
    [(found, queries)] = world.measure(Engine(step=40.0)).values()
    assert found < 0.9 * queries


def test_views_of_the_same_bytes_count_once_and_find_any_of_them() -> None:
    images = distinct(6)
    images[4] = images[1]
    images[5] = images[1]
    assert World.of(images).measure(Engine()) == {ZOOM: (4, 4)}


def test_two_places_with_one_descriptor_are_told_apart_by_nobody() -> None:
    """Other bytes, the same row: the network is blind for what differs, and the map finds the wrong one of the two."""
    images = distinct(4)
    images[3] = np.clip(images[2].astype(int) // 2 + 1, 0, 255).astype(np.uint8)
    images[2] = images[3] + 1  # another brightness, which `describe` takes off
    assert World.of(images).measure(Engine()) == {ZOOM: (3, 4)}


def test_rows_that_no_search_finds_are_not_asked_for() -> None:
    assert World.of(distinct(5), missing=[0, 3]).measure(Engine()) == {ZOOM: (3, 3)}


def test_a_map_without_a_row_is_not_measured() -> None:
    with pytest.raises(Refused, match="self-retrieval of the set set cannot be measured") as caught:
        World.of(distinct(2), missing=[0, 1]).measure(Engine())
    assert caught.value.kind == "not-measured"
