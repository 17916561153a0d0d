"""Shards: the descriptors of a cell, under `descriptors/`. The work unit is the description of one cell.

Shards are built a group of keys at a time, each once across processes, and rows that an earlier shard already has are
taken over (decision 0013). When something fails, or somebody interrupts, what was finished is stored and recorded
first: the next build goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from random import SystemRandom
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builders.activity import doing
from builders.artifacts.executor import Executor, Needs, Packed, Travel, Work
from builders.artifacts.store import ArtifactStore, only
from builders.artifacts.task import KeyedTask, Lookup, Progress, StoredObject, StoredObjects
from builders.compose import BuildContext
from builders.descriptors.decoding import BAD_TILES, BadTile, tile_pixels
from builders.descriptors.embed import CellRequest, CellResult, Description, Embedder
from builders.descriptors.rows import CachedCell, RowCache, view_digests
from builders.descriptors.shard import EMPTY_SIZE, Descriptors, Shard, most_bytes, read_shard, write_shard
from builders.grid.live import find, live
from builders.grid.tiles import Tile, cell_range, tile_from_id, tile_id
from builders.grid.views import View
from builders.imagery.coverage import Shortfall
from builders.imagery.inventory import Inventory, Level, cells_of
from builders.mission.schema import Descriptors as DescriptorSet
from builders.onboard.exact import RowBlock
from builders.onboard.layers import MapLayer
from builders.recipe import RowRecipe, tile_list
from builders.report import PlanRow
from store.disk.objects import Batch
from store.errors import Corrupt, NotFound, Refused, Unavailable
from store.format.cbor import Value
from store.format.entries import Entry
from store.format.ids import BuildKey, ObjectId

# Cells that are made durable together; as many, or on a cluster more, are built under one set of locks.
GROUP = 32
# Cells under one set of locks, for each that can be under way at once: where they end, machines wait for the last.
_ROUNDS = 8
# Of what a worker on another machine says of a bad tile.
_MAX_DETAIL = 300
# Tiles that are decoded at once, only to see whether they can be.
_JUDGED = 256
# Rows of a shared cache that are described again, of each set and view: 1 of 16, but at least and at most so many.
_LEAST, _MOST = 8, 128
# How close they are to those of another machine, and how close a row of length 1 is to it (float16 has eleven bits).
_COSINE, _LENGTH = 0.999, 0.02
# No rows of an earlier shard.
_NOTHING = (np.empty(0, np.uint64), np.empty((0, 0), np.float16))


@dataclass(frozen=True, slots=True)
class ShardTask(KeyedTask):
    """A shard that the mission needs. `origins` uint64[n], ascending: the views of the cell of which the sources have
    every tile; `shows` uint64[m], ascending: all tiles of theirs. `present` is its one object, if the store has it."""

    rows: RowRecipe
    set: DescriptorSet
    zoom: int
    cell: Tile
    view: View
    origins: NDArray[np.uint64]
    shows: NDArray[np.uint64]

    @property
    def identities(self) -> Mapping[str, bytes]:
        """The key of the shard; nothing for a shard without a row, because it makes no entry."""
        empty = self.present is not None and self.present[0][1] <= EMPTY_SIZE
        return {} if empty else {self.name: bytes(self.recipe.key)}

    def row(self) -> PlanRow:
        size = self.present[0][1] if self.present is not None else None
        detail = f"{len(self.origins)} rows"
        return PlanRow(self.name, str(self.recipe.key), self.complete, size, len(self.shows), detail)


@dataclass(frozen=True, slots=True)
class BuiltShard:
    """A shard that is in the store: the origins of its rows (uint64[n], ascending), and the numbers that a row has.
    `embedded` rows were described for it now."""

    task: ShardTask
    id: ObjectId
    size: int
    origins: NDArray[np.uint64]
    dim: int
    seconds: float | None = None
    embedded: int = 0
    figures: None = None

    def entries(self) -> Iterator[Entry]:
        if self.size > EMPTY_SIZE:
            meta = {"dim": self.dim, "dtype": self.task.set.dtype, "rows": len(self.origins), **self.task.rows.meta()}
            yield Entry(self.task.name, self.id, self.size, self.task.recipe.key, meta)


@dataclass(frozen=True, slots=True)
class Fault:
    """A bad tile: `reason` as in FORMAT.md 6.5, `detail` for people."""

    reason: str
    detail: str


# -- what the mission needs


def shard_tasks(context: BuildContext, inventory: Inventory, lookup: Lookup) -> Iterator[ShardTask]:
    """Yield a task for each descriptor set, zoom and cell that has a whole view over the area."""
    for set_ in context.mission.descriptors:
        for level in inventory.levels:
            view, rows = context.view(set_, level.zoom), context.rows(set_, level.zoom)
            for cell, origins, shows, hashes in _cells(level, view):
                if len(origins):
                    recipe = rows.shard(level.zoom, tile_list(shows, hashes))
                    name = f"descriptors/{set_.name}/{level.zoom}/{cell.z}-{cell.x}-{cell.y}.safetensors"
                    present = lookup(recipe.key)
                    yield ShardTask(name, recipe, present, rows, set_, level.zoom, cell, view, origins, shows)


def _cells(
    level: Level, view: View
) -> Iterator[tuple[Tile, NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint8]]]:
    """Of each cell with a view over the area: the origins of its views of which every tile is there, the ids of all
    tiles that its views have, and their hashes."""
    cells = [tile_from_id(n) for n in cells_of(level.zoom, view.origins_over(level.zoom, level.required)).tolist()]
    if view.tiles == 1:
        # A cell is a slice: a country has thousands of them.
        ranges = np.array([cell_range(cell, level.zoom) for cell in cells], np.uint64).reshape(-1, 2)
        for cell, (start, end) in zip(cells, np.searchsorted(level.ids, ranges).tolist(), strict=True):
            yield cell, level.ids[start:end], level.ids[start:end], level.hashes[start:end]
        return
    for cell in cells:
        footprint = view.footprint(level.zoom, view.origins_in_cell(cell, level.zoom))
        inside = level.find(footprint.ravel())[0].reshape(footprint.shape)
        shows = np.unique(footprint[inside])
        yield cell, footprint[inside.all(axis=(1, 2)), 0, 0], shows, level.hashes[level.find(shows)[1]]


def limits(tasks: Iterable[ShardTask], widths: Mapping[str, int]) -> dict[BuildKey, int]:
    """Return the most bytes of each of these shards, given the numbers in a row of each descriptor set."""
    return {task.recipe.key: most_bytes(len(task.origins), widths[task.set.name], task.set.dtype) for task in tasks}


def origins_by_set(
    sets: Iterable[str], origins: Iterable[tuple[ShardTask, NDArray[np.uint64]]]
) -> list[dict[int, tuple[View, NDArray[np.uint64]]]]:
    """Return, for each descriptor set, by zoom: its view, and the origins of these shards' rows, ascending."""
    gathered: dict[str, dict[int, tuple[View, list[NDArray[np.uint64]]]]] = {name: {} for name in sets}
    for task, some in origins:
        gathered[task.set.name].setdefault(task.zoom, (task.view, []))[1].append(some)
    return [
        {zoom: (view, np.sort(np.concatenate(parts))) for zoom, (view, parts) in zooms.items()}
        for zooms in gathered.values()
    ]


# -- the work unit: describe one cell


@dataclass(frozen=True, slots=True)
class ShardRequest:
    """A shard to make: how its rows are described, the cell's views and their tiles, the rows that are taken over from
    an earlier shard, and the metadata of the shard."""

    description: Description
    dtype: Literal["float16", "float32"]
    cell: CellRequest
    earlier: tuple[NDArray[np.uint64], Descriptors]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ShardResult:
    """A shard: its bytes and their id; the origins of its rows and their width; the rows that were described for it;
    and (tile id, reason, detail) of bad tiles."""

    data: bytes
    id: ObjectId
    origins: NDArray[np.uint64]
    dim: int
    embedded: int
    faults: tuple[tuple[int, str, str], ...]


def describe_cells(requests: Iterable[ShardRequest], progress: Progress) -> Iterator[ShardResult]:
    """Yield the shards of requests of one description, in their order; threads go on into the next cells meanwhile.

    `progress` is called with "" and the number of views that were described, taken over or left out.
    """
    under_way: list[ShardRequest] = []

    def cells(requests: Iterator[ShardRequest]) -> Iterator[CellRequest]:
        for request in requests:
            under_way.append(replace(request, cell=CellRequest(request.cell.zoom, (), ())))  # its tiles are handed on
            yield request.cell

    requests = iter(requests)
    first = next(requests, None)
    if first is None:
        return
    embedder, dtype = _embedder(first.description), first.dtype
    results = embedder.embed(cells(chain(iter([first]), requests)), dtype, lambda count: progress("", count, 0))
    del first  # and the tiles of its cell, which go when they are decoded
    with closing(results):  # ending early ends the workers
        for result in results:
            request = under_way.pop(0)
            progress("", len(request.earlier[0]), 0)
            yield _shard(request, result)


def describe_cell(request: ShardRequest, progress: Progress) -> ShardResult:
    """Return the shard of one request."""
    return next(describe_cells([request], progress))


def _pack(result: ShardResult) -> Packed:
    return [list(fault) for fault in result.faults], [result.data]


def _reader(request: ShardRequest) -> Callable[[Any, Sequence[bytes]], ShardResult]:
    """Return what reads the shard of a request: it holds ids, and no tile."""
    if isinstance(request.description.model, Path):
        raise Unavailable(
            "a network that is larger than the 2 GiB of one ONNX file does not travel to the nodes of a cluster",
            remedy="build with --executor local",
        )
    earlier, metadata, dtype = request.earlier[0], dict(request.metadata), np.dtype(request.dtype)
    view, zoom = request.description.view, request.cell.zoom
    asked = np.union1d(np.array(request.cell.origins, np.uint64), earlier)
    tiles = np.array(sorted(number for number, _ in request.cell.tiles), np.uint64)

    def read(value: Any, parts: Sequence[bytes]) -> ShardResult:
        (data,) = parts
        shard = read_shard(data)
        if dict(shard.metadata) != metadata or shard.descriptors.dtype != dtype:
            raise ValueError("a shard of another cell, or of another recipe")
        if not (find(asked, shard.tiles)[0].all() and find(shard.tiles, earlier)[0].all()):
            raise ValueError("a shard with other rows than those asked for")
        faults = tuple((int(number), str(reason), _words(str(detail))) for number, reason, detail in value)
        bad = np.array(sorted(number for number, _, _ in faults), np.uint64)
        if any(reason not in BAD_TILES for _, reason, _ in faults) or not find(tiles, bad)[0].all():
            raise ValueError("a fault of an unknown kind, or of a tile that was not sent")
        left_out = view.footprint(zoom, np.setdiff1d(asked, shard.tiles, assume_unique=True))
        if not find(bad, left_out.ravel())[0].reshape(left_out.shape).any(axis=(1, 2)).all():
            raise ValueError("a shard that leaves out a view without a bad tile")
        origins, dim = shard.tiles.copy(), int(shard.descriptors.shape[1])
        return ShardResult(data, ObjectId.of(data), origins, dim, len(origins) - len(earlier), faults)

    return read


def _words(text: str) -> str:
    return "".join(filter(str.isprintable, text))[:_MAX_DETAIL]


def _same(request: ShardRequest) -> Mapping[str, Value]:
    return {"preprocessing": dict(request.description.preprocess.fields())}


def _needs(request: ShardRequest) -> Needs:
    return Needs(provider=request.description.device.provider)


def _common(request: ShardRequest) -> object:
    return request.description


DESCRIBE = Work(describe_cell, describe_cells, Travel(_pack, _reader, _same, _needs, _common))


# A group of cells may need every network: none gives way to another before `forget_networks`.
@cache
def _embedder(description: Description) -> Embedder:
    """The embedder of a description: a worker that gets one cell after another loads the network once."""
    return Embedder(description)


def _shard(request: ShardRequest, result: CellResult) -> ShardResult:
    origins, rows = result.tile_ids, result.descriptors
    earlier, earlier_rows = request.earlier
    if len(earlier):
        origins = np.concatenate([earlier, result.tile_ids])
        rows = np.concatenate([earlier_rows, result.descriptors.astype(earlier_rows.dtype)])
        order = np.argsort(origins)
        origins, rows = origins[order], rows[order]
    data = write_shard(origins, rows, dict(request.metadata))
    return ShardResult(data, ObjectId.of(data), origins, rows.shape[1], len(result.tile_ids), result.faults)


def forget_networks() -> None:
    """Drop the networks that were loaded in this process: each may take gigabytes."""
    _embedder.cache_clear()


# -- building

# What shards with one way to describe them share: the name of the descriptor set, and the view.
_How: TypeAlias = tuple[str, View]


def _how(task: ShardTask) -> _How:
    return task.set.name, task.view


def load_networks(context: BuildContext, tasks: Iterable[ShardTask]) -> dict[_How, Description]:
    """Load each network that these shards are described with, and return the descriptions.

    Raise Invalid, naming file and key, where a descriptor set and its model do not fit.
    """
    descriptions: dict[_How, Description] = {}
    for task in tasks:
        if _how(task) not in descriptions:
            model = context.specs[task.set.backbone].model.path
            with context.about_set(task.set), doing(f"loading and trying the model {model}"):
                descriptions[_how(task)] = description = context.description(task.set, task.view)
                _embedder(description)
    return descriptions


@dataclass
class ShardBuilder:
    """Builds the shards of a mission file into a store. `faults` collects the bad tiles, by id."""

    context: BuildContext
    store: ArtifactStore
    inventory: Inventory
    executor: Executor
    progress: Progress
    faults: dict[int, Fault] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._cache = RowCache(self.context.cache / "rows")
        self._total = 0
        self._descriptions: dict[_How, Description] = {}

    def load(self, tasks: Sequence[ShardTask]) -> None:
        """Load each network that the missing shards are described with; a second call loads nothing.

        Raise Invalid, naming file and key, where a descriptor set and its model do not fit.
        """
        missing = [task for task in tasks if not task.complete and _how(task) not in self._descriptions]
        self._descriptions |= load_networks(self.context, missing)

    def widths(self, tasks: Sequence[ShardTask]) -> dict[str, int]:
        """Return by descriptor set the numbers that a row has, by its network or by a shard that the store has."""
        self.load(tasks)
        widths = {how[0]: _embedder(one).network.dimension for how, one in self._descriptions.items()}
        for task in tasks:
            if task.present is not None and task.set.name not in widths:
                widths[task.set.name] = int(self._read(*task.present[0]).descriptors.shape[1])
        return widths

    def shards(self, tasks: Sequence[ShardTask]) -> dict[str, BuiltShard]:
        """Return every shard by its name: from the store, or built now."""
        shards = {task.name: self.reuse(task, task.present) for task in tasks if task.present is not None}
        missing = sorted((task for task in tasks if task.present is None), key=lambda task: task.recipe.key)
        self.load(missing)
        self._total = sum(len(task.origins) for task in missing)
        try:
            step = max(GROUP, _ROUNDS * self.executor.width)
            for start in range(0, len(missing), step):
                shards |= self._group(missing[start : start + step])
        finally:
            forget_networks()
            self._descriptions.clear()  # each holds the bytes of its model
        if missing:
            self._cache.prune()
        return {task.name: shards[task.name] for task in tasks}

    def judge_offers(self, tasks: Sequence[ShardTask]) -> None:
        """Take those of these shards that a shared cache offers and that are what they must be: by their form, and by
        rows that nobody can foresee and that are described again here. Where one of these is another, none of its set
        is taken."""
        by_set: dict[_How, dict[BuildKey, _Offered]] = {}
        for task in {task.recipe.key: task for task in tasks}.values():  # two sets may have one shard
            offered = _Offered(task)
            if self.store.fits(task.recipe.key, partial(self._check_form, offered)):
                by_set.setdefault(_how(task), {})[task.recipe.key] = offered
        for how, shards in by_set.items():
            try:
                with doing(f"describing rows of {how[0]} of a shared cache again"):
                    self._check_rows([one for one in shards.values() if one.rows])
            except Corrupt as error:
                assert self.store.supply is not None
                for key in shards:
                    self.store.supply.refuse(key, error)
            else:
                self.store.take(shards)
                for one in shards.values():
                    self._keep(one.task, *one.object)

    def _check_form(self, offered: _Offered, objects: StoredObjects) -> None:
        """Raise Corrupt unless an object can be the shard of a task; note its rows."""
        task, (id_, size) = offered.task, only(objects)
        try:
            shard = self._read(id_, size)
        except Corrupt as error:
            raise Corrupt(f"the object is no shard: {error.message}", kind="bad-shard") from error
        offered.object, offered.rows = (id_, size), len(shard.tiles)
        why = ""
        if shard.metadata != _metadata(task):
            why = "it is of another cell, or its rows were made in another way"
        elif shard.descriptors.dtype != task.set.dtype or not np.isin(shard.tiles, task.origins).all():
            why = "it has rows of views that the cell has not, or of another type"
        elif not np.isfinite(shard.descriptors).all():
            why = "a row of it is not finite"
        elif task.set.normalise == "l2" and not _are_units(shard.descriptors):
            why = "a row of it has not the length 1"
        elif len(without := np.setdiff1d(task.origins, shard.tiles, assume_unique=True)):
            footprint = task.view.footprint(task.zoom, without)
            self.judge(task.zoom, np.unique(footprint))
            bad = np.isin(footprint, np.fromiter(self.faults, np.uint64, len(self.faults)))
            if not bad.reshape(len(without), -1).any(axis=1).all():
                why = "it leaves out a view that is good"
        if why:
            raise Corrupt(f"the shard is not {task.name}: {why}", kind="bad-shard")

    def _check_rows(self, shards: Sequence[_Offered]) -> None:
        """Raise Corrupt (kind other-rows) where rows of these shards, which are of one set, are not what the network
        makes of their views: a sample that is drawn now, so that nobody can know which rows are looked at."""
        ends = np.cumsum([one.rows for one in shards])
        if not len(ends):
            return
        count = int(ends[-1])
        drawn = np.array(sorted(SystemRandom().sample(range(count), min(count, max(_LEAST, min(_MOST, count // 16))))))
        self.load([one.task for one in shards])
        asked: list[tuple[_Offered, Shard]] = []
        for number in np.unique(shard_of := np.searchsorted(ends, drawn, side="right")).tolist():
            one = shards[number]
            whole = self._read(*one.object)
            places = drawn[shard_of == number] - (int(ends[number]) - one.rows)
            asked.append((one, Shard(whole.tiles[places], whole.descriptors[places].copy(), {})))
        description = self._descriptions[_how(shards[0].task)]
        requests = (self._requested(one.task, description, rows.tiles, _NOTHING) for one, rows in asked)
        with closing(self.executor.run(DESCRIBE, requests)) as results:
            for (one, rows), result in zip(asked, results, strict=True):
                made = read_shard(result.data)
                if not np.array_equal(made.tiles, rows.tiles) or not _are_alike(made.descriptors, rows.descriptors):
                    text = f"rows of {one.task.name} are not what the network makes of their views"
                    raise Corrupt(text, kind="other-rows")

    def reuse(self, task: ShardTask, present: StoredObjects) -> BuiltShard:
        """Return the shard as the store has it. The tiles of views that it leaves out are decoded again, to say why."""
        id_, size = present[0]
        shard = self._read(id_, size)
        without = np.setdiff1d(task.origins, shard.tiles, assume_unique=True)
        if len(without):
            self.judge(task.zoom, np.unique(task.view.footprint(task.zoom, without)))
        complete = replace(task, present=present)
        return BuiltShard(complete, id_, size, shard.tiles, int(shard.descriptors.shape[1]))

    def judge(self, zoom: int, ids: NDArray[np.uint64]) -> None:
        """Decode those of these tiles that the sources have, and note what is wrong with each."""
        side = self.context.mission.coverage.tile_size
        tiles = self.context.sources.read_again(self.inventory.level(zoom), ids)
        with ThreadPoolExecutor() as pool:
            while batch := [tile for _, tile in zip(range(_JUDGED), tiles, strict=False)]:
                for (number, _), fault in zip(batch, pool.map(partial(_fault, side), batch), strict=True):
                    if fault is not None:
                        self.faults[number] = fault
                self.progress("checking tiles", len(batch), 0)

    def _group(self, tasks: Sequence[ShardTask]) -> dict[str, BuiltShard]:
        """Build the shards of some keys, ascending, under the locks of all of them, with a barrier for each GROUP."""
        shards: dict[str, BuiltShard] = {}
        # Built by somebody else while this process waited, or under another name in this very group.
        later: list[ShardTask] = []
        todo: dict[BuildKey, ShardTask] = {}
        with ExitStack() as locks:
            # Every process takes them in the same order, so none waits for one that waits for it.
            for key in {task.recipe.key.hex()[:2]: task.recipe.key for task in tasks}.values():
                locks.enter_context(self.store.key_lock(key))
            for task in tasks:
                if task.recipe.key in todo or self.store.lookup(task.recipe.key) is not None:
                    later.append(task)
                else:
                    todo[task.recipe.key] = task
            with self.store.inserting() as batch:
                built: dict[BuildKey, BuiltShard] = {}
                fresh: dict[BuildKey, tuple[tuple[ObjectId, ...], float]] = {}

                def settle() -> None:
                    batch.commit()
                    self.store.remember(fresh, "onnxruntime")
                    fresh.clear()

                try:
                    for how in {_how(task): None for task in todo.values()}:
                        same = [task for task in todo.values() if _how(task) == how]
                        model = self.context.specs[same[0].set.backbone].model.path
                        with doing(f"describing {how[0]} with the model {model}"):
                            for shard in self._built(same, self._descriptions[how], batch):
                                key = shard.task.recipe.key
                                built[key] = shard
                                fresh[key] = (shard.id,), shard.seconds or 0.0
                                if len(fresh) == GROUP:
                                    settle()
                finally:
                    # Also what was finished before somebody pressed Ctrl-C, or the next cell failed.
                    settle()
            for shard in built.values():
                shards[shard.task.name] = shard
                self._keep(shard.task, shard.id, shard.size)
        for task in later:
            present = self.store.lookup(task.recipe.key)
            if present is None:
                raise Corrupt(
                    f"the shard {task.name} was damaged while the mission was being built",
                    remedy="run store-fsck, then build again",
                )
            shards[task.name] = self.reuse(task, present)
        return shards

    def _built(self, tasks: Sequence[ShardTask], description: Description, batch: Batch) -> Iterator[BuiltShard]:
        """Describe and stage the shards of one set, in order; workers describe the next ones meanwhile."""
        label, start = f"embedding {tasks[0].set.name}", time.monotonic()
        results = self.executor.run(
            DESCRIBE,
            (self._request(task, description) for task in tasks),
            lambda _, count, __: self.progress(label, count, self._total),
        )
        with closing(results):  # ending early ends the workers
            for task, result in zip(tasks, results, strict=True):
                self.faults.update({number: Fault(reason, detail) for number, reason, detail in result.faults})
                added = batch.add_bytes(result.data, expect=result.id)
                end = time.monotonic()
                complete = replace(task, present=((added.id, added.size),))
                yield BuiltShard(
                    complete, added.id, added.size, result.origins, result.dim, end - start, result.embedded
                )
                start = end

    def _request(self, task: ShardTask, description: Description) -> ShardRequest:
        earlier = self._earlier(task)
        fresh = np.setdiff1d(task.origins, earlier.tiles, assume_unique=True)
        return self._requested(task, description, fresh, (earlier.tiles, earlier.descriptors))

    def _requested(
        self,
        task: ShardTask,
        description: Description,
        origins: NDArray[np.uint64],
        earlier: tuple[NDArray[np.uint64], Descriptors],
    ) -> ShardRequest:
        """Return the request for a shard of these views, which are described, and of earlier rows."""
        wanted = np.unique(task.view.footprint(task.zoom, origins))
        tiles = tuple(self.context.sources.read_again(self.inventory.level(task.zoom), wanted))
        cell = CellRequest(task.zoom, tuple(origins.tolist()), tiles)
        return ShardRequest(description, task.set.dtype, cell, earlier, _metadata(task))

    # -- rows of earlier shards

    def _earlier(self, task: ShardTask) -> Shard:
        """Return the rows of the cell that were described before, and show the same bytes still."""
        nothing = Shard(np.empty(0, np.uint64), np.empty((0, 0), task.set.dtype), {})
        cached = self._cache.find(task.rows, task.zoom, tile_id(task.cell))
        if cached is None:
            return nothing
        try:
            shard = self._read(cached.shard, cached.size)
        except (NotFound, Corrupt):
            return nothing
        before, places = find(cached.origins, shard.tiles)
        now, at = find(task.origins, shard.tiles)
        same = before & now
        shows = self._shown(task)
        same[same] = (cached.digests[places[same]] == shows[at[same]]).all(axis=1)
        return Shard(shard.tiles[same], shard.descriptors[same], {})

    def _keep(self, task: ShardTask, id_: ObjectId, size: int) -> None:
        cached = CachedCell(id_, size, task.origins, self._shown(task))
        self._cache.keep(task.rows, task.zoom, tile_id(task.cell), cached)

    def _shown(self, task: ShardTask) -> NDArray[np.uint8]:
        level = self.inventory.level(task.zoom)
        return view_digests(task.view.footprint(task.zoom, task.origins), level.ids, level.hashes)

    def _read(self, id_: ObjectId, size: int) -> Shard:
        return read_shard(self.store.read(id_, size))


@dataclass(slots=True)
class _Offered:
    """A shard that a shared cache offers for a task: its object and the number of its rows, once it was read."""

    task: ShardTask
    object: StoredObject = (ObjectId(bytes(32)), 0)
    rows: int = 0


def _metadata(task: ShardTask) -> dict[str, str]:
    return {"cell": str(task.cell), "zoom": str(task.zoom), **task.rows.metadata()}


def _are_units(rows: Descriptors) -> bool:
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    return bool((np.abs(lengths - 1) < _LENGTH).all())


def _are_alike(made: Descriptors, rows: Descriptors) -> bool:
    """Whether two computations of the same rows differ no more than those of two machines do."""
    if made.shape != rows.shape:
        return False
    a, b = made.astype(np.float64), rows.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    close = (a * b).sum(axis=1) >= _COSINE * lengths[0] * lengths[1]
    return bool(close.all() and (np.abs(lengths[0] - lengths[1]) <= _LENGTH * lengths[0]).all())


def _fault(side: int, tile: tuple[int, bytes]) -> Fault | None:
    try:
        with doing("decoding tile", tile[0]):
            tile_pixels(tile[1], side)
    except BadTile as error:
        return Fault(error.reason, error.message)
    return None


# -- the map that the shards make


@dataclass(frozen=True)
class BuiltMap:
    """The map of a mission, read from its shards in the store; `shortfall` says which of its tiles are missing."""

    store: ArtifactStore
    inventory: Inventory
    shards: Mapping[str, BuiltShard]
    shortfall: Shortfall

    def layers(self, set_: str) -> list[MapLayer]:
        """Return the rows of a descriptor set that a search may find, zoom by zoom."""
        layers = []
        for level in self.inventory.levels:
            shards = [one for one in self.shards.values() if (one.task.set.name, one.task.zoom) == (set_, level.zoom)]
            if shards:
                blocks = partial(self._blocks, shards)
                missing = self.shortfall.ids(level.zoom)
                layers.append(MapLayer(level.zoom, shards[0].task.rows, level.required, missing, blocks))
        return layers

    def layer(self, set_: str, zoom: int) -> MapLayer:
        """Return the rows of a descriptor set at one zoom, which has shards."""
        return next(layer for layer in self.layers(set_) if layer.zoom == zoom)

    def rows(self, set_: str, zoom: int, origins: NDArray[np.uint64]) -> dict[int, NDArray[Any]]:
        """Return the rows of those of these origins that the shards of a set and zoom have, by origin."""
        cells = {tile_from_id(cell) for cell in cells_of(zoom, origins).tolist()}
        rows: dict[int, NDArray[Any]] = {}
        for shard in self.shards.values():
            if (shard.task.set.name, shard.task.zoom) == (set_, zoom) and shard.task.cell in cells:
                ids, descriptors = self._block(shard)
                inside, places = find(ids, origins)
                rows |= dict(zip(origins[inside].tolist(), descriptors[places[inside]], strict=True))
        return rows

    def require_rows(self, sets: Iterable[str], mission_file: Path) -> None:
        """Raise Refused for a descriptor set without a row that a search may find: nothing could be found with it."""
        for name in sets:
            rows = (
                live(task.zoom, task.view, shard.origins, level.required, self.shortfall.ids(task.zoom))
                for shard in self.shards.values()
                for task in [shard.task]
                if task.set.name == name
                for level in [self.inventory.level(task.zoom)]
            )
            if not any(len(some) for some in rows):
                raise Refused(
                    f"{mission_file}: the descriptor set {name} would describe no place of the area",
                    remedy="give sources that have good tiles of it, or raise coverage.at_least",
                    kind="no-rows",
                )

    def _blocks(self, shards: Sequence[BuiltShard]) -> Iterator[RowBlock]:
        return (self._block(shard) for shard in shards)

    def _block(self, shard: BuiltShard) -> RowBlock:
        read = read_shard(self.store.read(shard.id, shard.size))
        return read.tiles, read.descriptors
