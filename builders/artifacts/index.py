"""Approximate indexes over the rows of a descriptor set, under `indexes/`. Work units: train a quantiser, build an
index.

Each index is built once per key. A quantiser is shared with the indexes of other missions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import SystemRandom
from typing import ClassVar

import numpy as np

from builders.activity import doing
from builders.artifacts.engine import TargetHost
from builders.artifacts.executor import Executor, Work
from builders.artifacts.shard import ShardTask
from builders.artifacts.store import ArtifactStore, Insertion
from builders.artifacts.task import Lookup, Progress, StoredObject, StoredObjects, silent
from builders.compose import BuildContext
from builders.engines.base import require_target
from builders.grid.live import live
from builders.imagery.coverage import Shortfall
from builders.onboard import ann
from builders.onboard.exact import RowBlock
from builders.onboard.layers import MapLayer
from builders.recipe import KEYS_CONTEXT, Recipe
from builders.report import PlanRow
from store.errors import Corrupt, Refused
from store.format.entries import Entry, most_bytes
from store.format.host import meets, with_least
from store.format.ids import BuildKey, ObjectId, derive
from store.format.release import Approval

INDEX_SCHEMA = "flightbag/index/1"
QUANTISER_SCHEMA = "flightbag/quantiser/1"
# Rows that are looked for in an index of a shared cache, and among so many answers.
_SAMPLED, _AMONG = 16, 64


@dataclass(frozen=True, slots=True)
class IndexTask:
    """An index over the rows of a set at one zoom, and for some methods its quantiser. `host` is its need
    (FORMAT 4.5)."""

    most_entries: ClassVar[int] = 2

    name: str
    recipe: Recipe
    quantiser: Recipe | None
    method: str
    set: str
    zoom: int
    host: str
    present: StoredObjects | None
    quantiser_present: StoredObjects | None

    @property
    def most_bytes(self) -> int:
        return most_bytes(self.name) + most_bytes(self.quantiser_name)

    @property
    def complete(self) -> bool:
        return self.present is not None and (self.quantiser is None or self.quantiser_present is not None)

    @property
    def quantiser_name(self) -> str:
        return f"{self.name.removesuffix('.faiss')}.quantiser"

    @property
    def objects(self) -> Mapping[str, StoredObject]:
        parts = ((self.name, self.present), (self.quantiser_name, self.quantiser_present))
        return {name: objects[0] for name, objects in parts if objects is not None}

    @property
    def identities(self) -> Mapping[str, bytes]:
        keys = {self.name: bytes(self.recipe.key)}
        return keys if self.quantiser is None else {**keys, self.quantiser_name: bytes(self.quantiser.key)}

    @property
    def approvals(self) -> Iterator[Approval]:
        """The approvals that a release must give, where the trust root requires releases."""
        for name, (id_, size) in self.objects.items():
            yield Approval(name, "index", id_, size, self.host)

    def row(self) -> PlanRow:
        size = self.present[0][1] if self.present is not None and self.complete else None
        return PlanRow(self.name, str(self.recipe.key), self.complete, size, detail=f"{self.method} at z{self.zoom}")


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """An index that is in the store: `count` rows of `dim` numbers."""

    task: IndexTask
    count: int
    dim: int
    seconds: float | None
    figures: None = None

    def entries(self) -> Iterator[Entry]:
        task = self.task
        about = {"dim": self.dim, "host": task.host, "method": task.method, "rows": self.count}
        for name, (id_, size) in task.objects.items():
            part, key = "index", task.recipe.key
            if task.quantiser is not None and name == task.quantiser_name:
                part, key = "quantiser", task.quantiser.key
            yield Entry(name, id_, size, key, {**about, "part": part})


def index_tasks(
    context: BuildContext,
    shards: Sequence[ShardTask],
    missing: Shortfall,
    targets: Sequence[TargetHost],
    lookup: Lookup,
) -> Iterator[IndexTask]:
    """Yield a task for each index of the mission file and each zoom that has shards.

    An index is of the rows that a search may find: the shards, the area and the gates say which.
    """
    if not context.mission.indexes:
        return
    # Its bytes are read alike on every CPU; classes without one say in what they are alike where the mission flies.
    alike = set.intersection(*(set(target.host.split("+")) for target in targets))
    cpu = all(meets(target.host, "cpu") for target in targets)
    need = with_least("cpu" if cpu else "+".join(sorted(alike)), "faiss", ann.least_version())
    for target in targets:
        with context.about(f"{target.key}.host"):
            require_target("the indexes of the mission", need, target.host, f"they are built by {ann.host_component()}")
    for keys in context.mission.indexes:
        for level, codes in zip(missing.inventory.levels, missing.codes, strict=True):
            tasks = [task for task in shards if (task.set.name, task.zoom) == (keys.set, level.zoom)]
            if not tasks:
                continue
            area = level.required.tobytes() + codes.tobytes()
            # Rows of other sets make tiles missing, too.
            beside = [bytes(t.recipe.key) for t in shards if t.zoom == level.zoom]
            fields = {"method": keys.method, "library": ann.version()}
            quantiser = None
            if keys.method == "ivf":
                missing_ids = level.required[codes > 0]
                rows = sum(len(live(level.zoom, t.view, t.origins, level.required, missing_ids)) for t in tasks)
                lists = {"schema": QUANTISER_SCHEMA, "lists": ann.suggested_nlist(rows), "zoom": level.zoom}
                quantiser = Recipe({**fields, **lists, "rows": tasks[0].rows.fields()})
                fields["quantiser"] = quantiser.key.hex()
            recipe = Recipe(
                {
                    **fields,
                    "schema": INDEX_SCHEMA,
                    "shards": derive(KEYS_CONTEXT, b"".join(bytes(task.recipe.key) for task in tasks)),
                    "beside": derive(KEYS_CONTEXT, b"".join(beside)),
                    "area": derive(KEYS_CONTEXT, area),
                }
            )
            yield IndexTask(
                f"indexes/{keys.set}/{keys.name}/{level.zoom}.faiss",
                recipe,
                quantiser,
                keys.method,
                keys.set,
                level.zoom,
                need,
                lookup(recipe.key),
                lookup(quantiser.key) if quantiser is not None else None,
            )


def limits(tasks: Iterable[IndexTask], shards: Sequence[ShardTask], widths: Mapping[str, int]) -> dict[BuildKey, int]:
    """Return the most bytes of each of these indexes and quantisers over rows of these shards, given the numbers in a
    row of each descriptor set."""
    most = {}
    for task in tasks:
        rows = sum(len(one.origins) for one in shards if (one.set.name, one.zoom) == (task.set, task.zoom))
        lists = 0 if task.quantiser is None else int(task.quantiser.fields["lists"])
        most[task.recipe.key] = ann.most_bytes(rows, widths[task.set], lists)
        if task.quantiser is not None:
            most[task.quantiser.key] = ann.most_bytes(0, widths[task.set], lists)
    return most


# -- the work units


class Rows:
    """Blocks of rows, (origins uint64[n], rows [n, d]), that can be walked several times.

    On this machine each walk reads the shards of the store; pickled, the blocks themselves travel.
    """

    def __init__(self, walk: Callable[[], Iterable[RowBlock]]) -> None:
        self._walk = walk

    def __call__(self) -> Iterable[RowBlock]:
        return self._walk()

    def __reduce__(self) -> tuple[type[_ShippedRows], tuple[tuple[RowBlock, ...]]]:
        return _ShippedRows, (tuple(self()),)


class _ShippedRows(Rows):
    def __init__(self, blocks: tuple[RowBlock, ...]) -> None:
        super().__init__(lambda: blocks)


@dataclass(frozen=True, slots=True)
class QuantiserRequest:
    """Rows of `dim` numbers to train a quantiser of `lists` lists on."""

    rows: Rows
    dim: int
    lists: int


@dataclass(frozen=True, slots=True)
class IndexRequest:
    """Rows of `dim` numbers to index: with lists over this quantiser, or as a graph where there is none."""

    rows: Rows
    dim: int
    quantiser: bytes | None


@dataclass(frozen=True, slots=True)
class IndexResult:
    """The bytes of a quantiser or an index, and their id."""

    data: bytes
    id: ObjectId


def train_quantiser(request: QuantiserRequest, _progress: Progress) -> IndexResult:
    """Return the trained quantiser of a request."""
    data = ann.train_quantiser(request.rows, request.dim, request.lists)
    return IndexResult(data, ObjectId.of(data))


def build_index(request: IndexRequest, _progress: Progress) -> IndexResult:
    """Return the index of a request."""
    if request.quantiser is not None:
        data = ann.build_ivf(request.quantiser, request.rows(), request.dim)
    else:
        data = ann.build_hnsw(request.rows(), request.dim)
    return IndexResult(data, ObjectId.of(data))


TRAIN = Work(train_quantiser)
INDEX = Work(build_index)


# -- building


@dataclass
class IndexBuilder:
    """Builds indexes into a store."""

    store: ArtifactStore
    executor: Executor
    progress: Progress = silent

    def build(self, task: IndexTask, layer: MapLayer) -> BuiltIndex:
        """Return the index of a layer, from the store or built now. Raise Refused for a layer without rows."""
        count, dim = 0, 0
        for origins, rows in layer.rows():
            count, dim = count + len(origins), rows.shape[1]
        if not count:
            raise Refused(
                f"the index {task.name} would have no rows",
                remedy=f"leave zoom {layer.zoom} out of tiles[].zooms, or leave the index out",
            )
        rows_of, quantiser, data = Rows(layer.rows), None, None
        if task.quantiser is not None:
            training = QuantiserRequest(rows_of, dim, int(task.quantiser.fields["lists"]))
            with doing(f"training the quantiser of {task.name}"):
                quantiser = self._keyed(
                    task.quantiser,
                    lambda: self.executor.run_one(TRAIN, training),
                    lambda data: ann.check_quantiser(data, dim, training.lists),
                )
            data = self.store.read(quantiser.id, quantiser.size)
        indexing = IndexRequest(rows_of, dim, data)
        with doing(f"building {task.name}"):
            index = self._keyed(
                task.recipe,
                lambda: self.executor.run_one(INDEX, indexing),
                lambda data: _check_offer(data, task.method, layer, dim, count),
            )
        self.progress("indexing", 1, 0)
        complete = replace(
            task,
            present=((index.id, index.size),),
            quantiser_present=None if quantiser is None else ((quantiser.id, quantiser.size),),
        )
        parts = [part.seconds for part in (index, quantiser) if part is not None and part.seconds is not None]
        return BuiltIndex(complete, count, dim, sum(parts) if parts else None)

    def _keyed(self, recipe: Recipe, make: Callable[[], IndexResult], check: Callable[[bytes], object]) -> Insertion:
        def made() -> tuple[bytes, ObjectId]:
            result = make()
            return result.data, result.id

        return self.store.keyed(recipe.key, made, ann.version(), check)


def _check_offer(data: bytes, method: str, layer: MapLayer, dim: int, count: int) -> None:
    """Raise Corrupt unless a shared cache's index is one of these rows: some that nobody can foresee are found in it.

    The library trusts what it parses (FORMAT.md 6.8): it does so here beside no key, and aboard not before a GO.
    """
    wanted = set(SystemRandom().sample(range(count), min(count, _SAMPLED)))
    ids, rows, done = [], [], 0
    for origins, block in layer.rows():
        places = sorted(place - done for place in wanted if 0 <= place - done < len(origins))
        ids += origins[places].tolist()
        rows += list(block[places].astype(np.float32))
        done += len(origins)
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        index = ann.open_index(Path(file.name), method, dim, count)
        nearest, cosines = index.search(np.stack(rows), min(_AMONG, count), ann.MAX_EFFORT)
    # Rows of views that look alike share the first places.
    if (
        not all(number in some for number, some in zip(ids, nearest.tolist(), strict=True))
        or cosines[:, 0].min() < 0.99
    ):
        raise Corrupt("rows of the map are not found in the index", kind="bad-index")
