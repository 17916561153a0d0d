"""Shards on an executor that runs many units at once: one set of locks for more cells, and no more cells between two
barriers."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from pathlib import Path

import pytest

from builders.artifacts import shard
from builders.artifacts.executor import LocalExecutor, Request, Result, Work
from builders.artifacts.task import Progress, silent
from builders.compose import open_context
from builders.orchestrator import prepare
from store.errors import Unavailable
from tests.support.field import Desk

# Cells at both zooms.
WIDE = (-99.189, 46.999, -99.125, 47.04)


class Wide(LocalExecutor):
    """An executor with room for many units, which fails after some. `seen` has the objects of the store before each
    result is taken; `runs` counts the calls."""

    width = 100

    def __init__(self, store: Path, results: int) -> None:
        self._store = store
        self._results = results
        self.seen: list[int] = []
        self.runs = 0

    def run(
        self, work: Work[Request, Result], requests: Iterable[Request], progress: Progress = silent
    ) -> Generator[Result, None, None]:
        self.runs += 1
        for result in super().run(work, requests, progress):
            if len(self.seen) == self._results:
                raise Unavailable("the cluster is gone")
            self.seen.append(sum(len(files) for _, _, files in os.walk(self._store / "objects")))
            yield result


@pytest.mark.parametrize(("group", "kept"), [(1, [0, 1, 2]), (2, [0, 0, 2]), (64, [0, 0, 0])])
def test_cells_are_durable_a_group_at_a_time_also_where_many_are_under_way(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, kept: list[int]
) -> None:
    monkeypatch.setattr(shard, "GROUP", group)
    executor = Wide(desk.store, 3)
    with open_context(desk.write_mission("left", bbox=WIDE), desk.store, tmp_path / "cache") as context:
        with pytest.raises(Unavailable, match="the cluster is gone"):
            prepare(context, keys=1, now=1_800_000_000, executor=executor)
        assert executor.runs == 1
        before = executor.seen[0]
        assert [count - before for count in executor.seen] == kept
        # What was finished when it failed is in the store as well.
        report, payload = prepare(context, keys=1, now=1_800_000_000)
    assert payload is not None
    rows = {one.name for one in report.of("reused") if one.name.startswith("descriptors/")}
    assert len(rows) == 3
