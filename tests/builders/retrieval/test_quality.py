"""Recall of a descriptor set: every query counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from builders.retrieval.quality import RecallMeasurement
from store.errors import Refused
from store.format.ids import BuildKey

PICTURE = np.zeros((4, 4, 3), np.uint8)


class Fixed(RecallMeasurement):
    """With so many queries of each way, whatever the imagery."""

    COUNT = 0

    def queries(self, way: str, layer: Any) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        return ((origin, PICTURE) for origin in range(self.COUNT))


class Engine:
    def describe(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return np.ones((len(images), 2), np.float32)


class Answers:
    """A layer whose every answer is 0, 1, 2, 3, 4."""

    zoom = 15

    def search(self, queries: NDArray[np.float32], top: int) -> tuple[NDArray[np.uint64], None]:
        return np.tile(np.arange(top, dtype=np.uint64), (len(queries), 1)), None


def measure(count: int, progress: list[int]) -> Any:
    class Counted(Fixed):
        COUNT = count

    imagery: Any = SimpleNamespace()
    recall = Counted("set", BuildKey(bytes(32)), (), imagery, None)
    layers, engine = [Answers()], Engine()
    return recall.measure(layers, engine, progress.append)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 65, 128])
def test_every_query_counts(count: int) -> None:
    progress: list[int] = []
    for zooms in measure(count, progress).values():
        [tally] = zooms.values()
        assert (tally.queries, tally.at1, tally.at5) == (count, 1, min(count, 5))
    assert sum(progress) == 4 * count


def test_no_query_at_all_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        measure(0, [])
    assert caught.value.kind == "not-measured"
