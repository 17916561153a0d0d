"""Work units: what an executor promises, and that each kind of unit runs in any process that has the request."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.artifacts.engine import COMPILE, CompileRequest, engine_tasks, target_hosts
from builders.artifacts.executor import LocalExecutor, Work
from builders.artifacts.index import INDEX, TRAIN, IndexRequest, QuantiserRequest, Rows
from builders.artifacts.shard import DESCRIBE, ShardRequest
from builders.artifacts.task import Progress, silent
from builders.compose import open_context
from builders.descriptors.embed import CellRequest, Description
from builders.descriptors.preprocess import Preprocess
from builders.descriptors.shard import read_shard
from builders.example.backbone import write_backbone
from builders.example.terrain import render_jpeg
from builders.grid.tiles import Tile, tile_from_id, tile_id
from store.format.ids import ObjectId
from tests.support.field import Desk

FIRST = tile_id(Tile(16, 14712, 23040))


def elsewhere(work: Work[Any, Any], request: Any) -> Any:
    """The result of a request in a process that was started for it: request and result travel pickled."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work.one, request, silent).result(timeout=120)


# -- what an executor promises


def double(number: int, progress: Progress) -> int:
    progress("doubling", 1, 0)
    return 2 * number


def test_results_come_in_the_order_of_the_requests() -> None:
    done: list[tuple[str, int, int]] = []
    results = LocalExecutor().run(Work(double), [3, 1, 2], lambda *told: done.append(told))
    assert list(results) == [6, 2, 4]
    assert done == [("doubling", 1, 0)] * 3


def test_requests_are_taken_as_there_is_room() -> None:
    taken: list[int] = []

    def requests() -> Iterator[int]:
        for number in range(3):
            taken.append(number)
            yield number

    results = LocalExecutor().run(Work(double), requests())
    assert taken == []
    assert next(results) == 0
    assert taken == [0]


def test_an_early_end_ends_what_is_under_way() -> None:
    ended: list[str] = []

    def many(requests: Iterable[int], _progress: Progress) -> Iterator[int]:
        try:
            yield from requests
        finally:
            ended.append("ended")

    results = LocalExecutor().run(Work(double, many), [1, 2, 3])
    assert next(results) == 1
    results.close()
    assert ended == ["ended"]


# -- the kinds of units


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Description:
    path = tmp_path_factory.mktemp("backbone") / "backbone.onnx"
    write_backbone(path)
    return Description(path.read_bytes(), "descriptor", Preprocess((64, 64)), 4)


def shard_request(description: Description, first: int, count: int = 5) -> ShardRequest:
    origins = tuple(range(first, first + count))
    tiles = tuple((number, render_jpeg(tile_from_id(number))) for number in origins)
    nothing = np.empty(0, np.uint64), np.empty((0, 0), np.float16)
    return ShardRequest(description, "float16", CellRequest(16, origins, tiles), nothing, {"zoom": "16"})


def test_a_cell_is_described_alike_in_another_process(description: Description) -> None:
    request = shard_request(description, FIRST)
    here, there = DESCRIBE.one(request, silent), elsewhere(DESCRIBE, request)
    assert there.data == here.data
    assert there.id == ObjectId.of(there.data)
    assert (there.embedded, there.dim, there.faults) == (5, here.dim, ())


def test_many_cells_give_what_each_gives(description: Description) -> None:
    requests = [shard_request(description, FIRST + 256 * cell, count) for cell, count in enumerate((5, 1, 3))]
    assert DESCRIBE.many is not None
    together = list(DESCRIBE.many(iter(requests), silent))
    assert [result.data for result in together] == [DESCRIBE.one(request, silent).data for request in requests]
    assert list(DESCRIBE.many([], silent)) == []


def test_rows_of_an_earlier_shard_are_taken_over(description: Description) -> None:
    whole = DESCRIBE.one(shard_request(description, FIRST), silent)
    shard = read_shard(whole.data)
    fresh = shard_request(description, FIRST, 2)
    progress: list[int] = []
    result = DESCRIBE.one(
        replace(fresh, earlier=(shard.tiles[2:], shard.descriptors[2:])), lambda _, count, __: progress.append(count)
    )
    assert result.embedded == 2
    assert sum(progress) == 5
    assert result.data == whole.data


def test_a_bad_tile_is_a_fault_of_the_result(description: Description) -> None:
    request = shard_request(description, FIRST, 3)
    (first, _), *rest = request.cell.tiles
    bad = replace(request, cell=replace(request.cell, tiles=((first, b"no picture"), *rest)))
    result = elsewhere(DESCRIBE, bad)
    assert [(number, reason) for number, reason, _ in result.faults] == [(FIRST, "undecodable")]
    assert result.origins.tolist() == [FIRST + 1, FIRST + 2]


def blocks(count: int = 300, dim: int = 8) -> Callable[[], list[tuple[Any, Any]]]:
    rows = np.random.default_rng(7).normal(size=(count, dim)).astype(np.float16)
    ids = np.arange(count, dtype=np.uint64)
    half = count // 2
    return lambda: [(ids[:half], rows[:half]), (ids[half:], rows[half:])]


def test_rows_are_walked_here_and_travel_as_blocks() -> None:
    walks: list[int] = []

    def walk() -> list[tuple[Any, Any]]:
        walks.append(1)
        return blocks()()

    rows = Rows(walk)
    assert walks == []
    shipped = pickle.loads(pickle.dumps(rows))
    for _ in range(2):  # as often as it takes, without the source
        for (ids, vectors), (same_ids, same_vectors) in zip(shipped(), blocks()(), strict=True):
            assert (ids == same_ids).all()
            assert (vectors == same_vectors).all()
    assert len(walks) == 1


def test_an_index_is_trained_and_built_alike_in_another_process() -> None:
    rows = Rows(blocks())
    training = QuantiserRequest(rows, 8, 4)
    quantiser = TRAIN.one(training, silent)
    assert elsewhere(TRAIN, training) == quantiser
    for request in (IndexRequest(rows, 8, quantiser.data), IndexRequest(rows, 8, None)):
        here = INDEX.one(request, silent)
        assert elsewhere(INDEX, request) == here
        assert here.id == ObjectId.of(here.data)


def test_an_engine_is_compiled_from_a_pickled_request(desk: Desk, tmp_path: Path) -> None:
    with open_context(desk.write_mission("left"), desk.store, tmp_path / "cache") as context:
        (task,) = engine_tasks(context, target_hosts(context), None, lambda _key: None)
        folders = [tmp_path / name for name in ("here", "there")]
        for folder in folders:
            folder.mkdir()
        requests = [
            CompileRequest(
                task.backend,
                task.spec,
                task.host,
                context.tolerance(task.spec.precision),
                context.compile_settings,
                folder,
            )
            for folder in folders
        ]
        here = COMPILE.one(requests[0], silent)
        there = elsewhere(COMPILE, requests[1])
    # ONNX Runtime saves the same bytes for the same model; other backends do not.
    assert [part.id for part in there.parts] == [part.id for part in here.parts]
    assert all(ObjectId.of(part.path.read_bytes()) == part.id for part in there.parts)
