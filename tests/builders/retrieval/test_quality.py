"""Recall of a descriptor set: every query counts, the same bytes are the same place, and what it stands beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from builders.imagery.inventory import Inventory, Level
from builders.onboard.layers import MapLayer
from builders.recipe import RowRecipe
from builders.retrieval.quality import Imagery, RecallMeasurement
from store.format.ids import BuildKey
from tests.builders.retrieval.test_pictures import ZOOM, level
from tests.builders.retrieval.test_untrained import PREPROCESS

SIDE = 8


class Sources:
    """Sources whose tile is one PNG of the colours that its bytes stand for."""

    def __init__(self, level: Level) -> None:
        self.level = level

    def read_again(self, level: Level, ids: NDArray[np.uint64]) -> list[tuple[int, bytes]]:
        from builders.imagery.png import write_png

        places = self.level.find(ids)[1]
        tiles = []
        for number, digest in zip(ids.tolist(), self.level.hashes[places], strict=True):
            random = np.random.default_rng(digest.tolist())
            tiles.append((number, write_png(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8))))
        return tiles


class Eye:
    """Describes a picture by its pixels: finds everything that it was shown. `blind` to all but the mean colour."""

    def __init__(self, *, blind: bool = False) -> None:
        self.blind = blind
        self.asked = 0

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        self.asked += len(images)
        if self.blind:
            return np.ones((len(images), 4), np.float32)
        pixels = np.stack([image.reshape(-1) for image in images]).astype(np.float32)
        return pixels - pixels.mean(axis=1, keepdims=True)


class Failing:
    def __init__(self, after: int) -> None:
        self.left = after

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32] | None:
        self.left -= len(images)
        return Eye().describe(images) if self.left >= 0 else None


def recipe() -> RowRecipe:
    return RowRecipe("", bytes(32), "descriptor", PREPROCESS.fields(), SIDE, (1, 1), "float32", "none")


def measurement(level: Level, sample: int) -> tuple[RecallMeasurement, MapLayer]:
    sources: Any = Sources(level)
    imagery = Imagery(sources, Inventory((level,), True))
    eye = Eye()
    tiles = dict(sources.read_again(level, level.required))
    from builders.descriptors.decoding import decode

    rows = eye.describe([np.asarray(decode(tiles[number])) for number in level.required.tolist()])
    layer = MapLayer(ZOOM, recipe(), level.required, np.empty(0, np.uint64), lambda: iter([(level.required, rows)]))
    return RecallMeasurement("net", BuildKey(bytes(32)), (recipe(),), imagery, None, sample), layer


@pytest.mark.parametrize("count", [1, 7, 8, 9, 36])
def test_every_query_counts(count: int) -> None:
    recall, layer = measurement(level(6), count)
    progress: list[int] = []
    eye = Eye()
    results = recall.measure([layer], eye, Eye(), progress.append)
    assert set(results) == {"brightness", "rotation", "scale", "shift"}
    for zooms in results.values():
        (one,) = zooms.values()
        assert one.rows == 36
        assert one.whole.queries == one.sampled.queries == count
        assert one.untrained is not None
        assert one.untrained.queries == count
    # The pixels of a darker picture point the same way.
    (lit,) = results["brightness"].values()
    assert lit.whole.at1 > count * 0.9 - 1
    assert sum(progress) == eye.asked == 4 * count


def test_a_map_that_answers_by_chance_has_that_recall() -> None:
    recall, layer = measurement(level(6), 36)
    same = MapLayer(
        ZOOM, recipe(), layer.required, layer.missing, lambda: iter([(layer.required, np.ones((36, 4), np.float32))])
    )
    for zooms in recall.measure([same], Eye(blind=True), Eye(blind=True)).values():
        (one,) = zooms.values()
        assert (one.whole.at1, one.whole.at5, one.sampled.at1) == (1, 5, 1)
        assert one.untrained is not None
        assert one.untrained.at1 == 1


def test_any_of_the_places_with_the_same_bytes_is_right() -> None:
    """Half of the area shows one picture: that is one query, and each of its places answers it."""
    sea = {(x, y): 7 for x in range(6) for y in range(6) if x < 3}
    recall, layer = measurement(level(6, sea), 100)
    (one,) = recall.measure([layer], Eye(), None)["brightness"].values()
    assert one.rows == 36
    assert one.whole.queries == 18 + 1
    assert one.whole.at1 == 19


def test_an_untrained_network_that_fails_is_not_measured() -> None:
    recall, layer = measurement(level(6), 36)
    for after in (0, 50):
        for zooms in recall.measure([layer], Eye(), Failing(after)).values():
            (one,) = zooms.values()
            assert one.untrained is None
            assert one.whole.queries == 36


def test_where_nothing_can_be_asked_there_is_no_recall() -> None:
    """Without a ring there is no view that could be shifted."""
    whole = level(2)
    ring = frozenset(set(whole.ids.tolist()) - set(whole.required.tolist()))
    recall, layer = measurement(level(2, absent=ring), 36)
    assert all(not zooms for zooms in recall.measure([layer], Eye(), Eye()).values())


def test_the_recipe_depends_on_what_is_measured() -> None:
    recall, _ = measurement(level(6), 36)
    digests = [recall.recipe(figure) for way in recall.ways for figure in recall.figures(way)]
    # Both recalls of a way are one measurement.
    assert len(set(digests)) == 3 * 4
    for other in (measurement(level(6), 35)[0], measurement(level(6, {(0, 0): 5}), 36)[0]):
        assert not {other.recipe(figure) for way in other.ways for figure in other.figures(way)} & set(digests)
    same = measurement(level(6), 36)[0]
    assert [same.recipe(figure) for way in same.ways for figure in same.figures(way)] == digests
