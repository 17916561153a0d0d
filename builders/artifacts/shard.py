"""Building shards into a store: a group of keys at a time, each once across processes, rows that are known taken over.

What was finished when something went wrong, or somebody interrupted, is stored and recorded first: the next build goes
on from there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from builders.artifacts.engine import ArtifactStore
from builders.artifacts.plan import Found, Progress, ShardTask
from builders.compose import BuildContext
from builders.descriptors.decoding import BadTile, tile_image
from builders.descriptors.embed import CellJob, CellResult, Embedder
from builders.descriptors.rows import CachedCell, RowCache, view_digests
from builders.descriptors.shard import Descriptors, Shard, read_shard, write_shard
from builders.grid.live import find
from builders.grid.tiles import tile_id
from builders.grid.views import View
from builders.imagery.inventory import Inventory
from store.disk.objects import Batch
from store.errors import Corrupt, NotFound
from store.format.ids import BuildKey, ObjectId

# Cells that are built under one set of locks and made durable together.
GROUP = 32
# Tiles that are decoded at once, only to see whether they can be.
_JUDGED = 256


@dataclass(frozen=True, slots=True)
class BuiltShard:
    """What became of a shard: its object, the origins of its rows (uint64[n], ascending), how many numbers a row has;
    seconds where it was built now, and how many of its rows were embedded then."""

    id: ObjectId
    size: int
    origins: NDArray[np.uint64]
    dim: int
    seconds: float | None = None
    embedded: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with the bytes of a tile: `reason` as in FORMAT.md 6.5, `detail` for people."""

    reason: str
    detail: str


@dataclass
class ShardBuilder:
    """Builds the shards of a mission file with a workbench. `faults` has what was found wrong with tiles on the way."""

    context: BuildContext
    artifacts: ArtifactStore
    inventory: Inventory
    progress: Progress
    faults: dict[int, Fault] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cache = RowCache(self.context.cache / "rows")
        self._total = 0

    def shards(
        self, tasks: Sequence[ShardTask], embedders: Mapping[tuple[str, View], Embedder]
    ) -> dict[str, BuiltShard]:
        """By name, every shard: from the store, or built now."""
        done = {task.name: self.reuse(task, task.present) for task in tasks if task.present is not None}
        missing = sorted((task for task in tasks if task.present is None), key=lambda task: task.recipe.key)
        self._total = sum(len(task.origins) for task in missing)
        for start in range(0, len(missing), GROUP):
            done |= self._group(missing[start : start + GROUP], embedders)
        if missing:
            self._cache.prune()
        return done

    def reuse(self, task: ShardTask, present: Found) -> BuiltShard:
        """The shard as it is in the store. What its rows leave out is looked at again, to say why."""
        id_, size = present[0]
        shard = self._read(id_, size)
        without = np.setdiff1d(task.origins, shard.tiles, assume_unique=True)
        if len(without):
            self.judge(task.zoom, np.unique(task.view.footprint(task.zoom, without)))
        return BuiltShard(id_, size, shard.tiles, int(shard.descriptors.shape[1]))

    def judge(self, zoom: int, ids: NDArray[np.uint64]) -> None:
        """Decodes these tiles, as far as they are there, and notes what is wrong with each."""
        side = self.context.mission.coverage.tile_size
        tiles = self.context.sources.read_again(self.inventory.level(zoom), ids)
        with ThreadPoolExecutor() as pool:
            while batch := [tile for _, tile in zip(range(_JUDGED), tiles, strict=False)]:
                for (number, _), fault in zip(batch, pool.map(partial(_fault, side), batch), strict=True):
                    if fault is not None:
                        self.faults[number] = fault
                self.progress("checking tiles", len(batch), 0)

    def _group(
        self, tasks: Sequence[ShardTask], embedders: Mapping[tuple[str, View], Embedder]
    ) -> dict[str, BuiltShard]:
        """Builds the shards of some keys, ascending, under the locks of all of them and with one barrier."""
        done: dict[str, BuiltShard] = {}
        # Built by somebody else while this process waited, or under another name in this very group.
        later: list[ShardTask] = []
        todo: dict[BuildKey, ShardTask] = {}
        with ExitStack() as locks:
            # Every process takes them in the same order, so none waits for one that waits for it.
            for key in {task.recipe.key.hex()[:2]: task.recipe.key for task in tasks}.values():
                locks.enter_context(self.artifacts.key_lock(key))
            for task in tasks:
                if task.recipe.key in todo or self.artifacts.lookup(task.recipe.key) is not None:
                    later.append(task)
                else:
                    todo[task.recipe.key] = task
            with self.artifacts.writer.inserting() as batch:
                built: dict[BuildKey, tuple[ShardTask, BuiltShard]] = {}
                try:
                    for which in {(task.set.name, task.view): None for task in todo.values()}:
                        same = [task for task in todo.values() if (task.set.name, task.view) == which]
                        for task, shard in self._built(same, embedders[which], batch):
                            built[task.recipe.key] = task, shard
                finally:
                    # Also what was finished before somebody pressed Ctrl-C, or the next cell failed.
                    batch.commit()
                    self.artifacts.remember(
                        {key: ((one.id,), one.seconds or 0.0) for key, (_, one) in built.items()}, "onnxruntime"
                    )
            for task, shard in built.values():
                done[task.name] = shard
                self._keep(task, shard)
        for task in later:
            present = self.artifacts.lookup(task.recipe.key)
            if present is None:
                raise Corrupt(f"the shard {task.name} was damaged while the mission was being built")
            done[task.name] = self.reuse(task, present)
        return done

    def _built(
        self, tasks: Sequence[ShardTask], embedder: Embedder, batch: Batch
    ) -> Iterator[tuple[ShardTask, BuiltShard]]:
        """Embeds and stages the shards of one set, in order; workers embed the next ones while this thread writes."""
        known = [self._known(task) for task in tasks]
        label = f"embedding {tasks[0].set.name}"
        jobs = (
            CellJob(task.zoom, tuple(fresh.tolist()), partial(self._tiles, task, fresh))
            for task, old in zip(tasks, known, strict=True)
            for fresh in [np.setdiff1d(task.origins, old.tiles, assume_unique=True)]
        )
        start = time.monotonic()
        embedding = embedder.embed(jobs, tasks[0].set.dtype, lambda count: self.progress(label, count, self._total))
        with closing(embedding) as results:  # what ends this ends the workers
            for task, old, result in zip(tasks, known, results, strict=True):
                self.faults.update({number: Fault(reason, detail) for number, reason, detail in result.faults})
                self.progress(label, len(old.tiles), self._total)
                origins, rows = _merged(old, result)
                metadata = {"cell": str(task.cell), "zoom": str(task.zoom), **task.rows.metadata()}
                added = batch.add_bytes(write_shard(origins, rows, metadata))
                end = time.monotonic()
                yield task, BuiltShard(added.id, added.size, origins, rows.shape[1], end - start, len(result.tile_ids))
                start = end

    def _tiles(self, task: ShardTask, origins: NDArray[np.uint64]) -> Iterator[tuple[int, bytes]]:
        """The tiles that these views of a cell show."""
        wanted = np.unique(task.view.footprint(task.zoom, origins))
        return self.context.sources.read_again(self.inventory.level(task.zoom), wanted)

    # -- rows that are known

    def _known(self, task: ShardTask) -> Shard:
        """Rows of the cell that were described before and show the same bytes still."""
        nothing = Shard(np.empty(0, np.uint64), np.empty((0, 0), task.set.dtype), {})
        seen = self._cache.find(task.rows, task.zoom, tile_id(task.cell))
        if seen is None:
            return nothing
        try:
            shard = self._read(seen.shard, seen.size)
        except (NotFound, Corrupt):
            return nothing
        there, places = find(seen.origins, shard.tiles)
        now, at = find(task.origins, shard.tiles)
        same = there & now
        shows = self._shown(task)
        same[same] = (seen.digests[places[same]] == shows[at[same]]).all(axis=1)
        return Shard(shard.tiles[same], shard.descriptors[same], {})

    def _keep(self, task: ShardTask, shard: BuiltShard) -> None:
        seen = CachedCell(shard.id, shard.size, task.origins, self._shown(task))
        self._cache.keep(task.rows, task.zoom, tile_id(task.cell), seen)

    def _shown(self, task: ShardTask) -> NDArray[np.uint8]:
        level = self.inventory.level(task.zoom)
        return view_digests(task.view.footprint(task.zoom, task.origins), level.ids, level.hashes)

    def _read(self, id_: ObjectId, size: int) -> Shard:
        return read_shard(self.artifacts.read(id_, size))


def _merged(old: Shard, new: CellResult) -> tuple[NDArray[np.uint64], Descriptors]:
    """Known and new rows, ascending."""
    if not len(old.tiles):
        return new.tile_ids, new.descriptors
    origins = np.concatenate([old.tiles, new.tile_ids])
    rows: Descriptors = np.concatenate([old.descriptors, new.descriptors.astype(old.descriptors.dtype)])
    order = np.argsort(origins)
    return origins[order], rows[order]


def _fault(side: int, tile: tuple[int, bytes]) -> Fault | None:
    try:
        tile_image(tile[1], side)
    except BadTile as error:
        return Fault(error.reason, error.message)
    return None
