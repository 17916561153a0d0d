"""The plan of a build: what the mission needs, under which keys, and what of it the store has.

A plan is a value; making one reads every tile of the area's cells and writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from builders.compose import BuildContext, preprocess_of
from builders.descriptors.embed import Embedder
from builders.descriptors.shard import EMPTY_SIZE
from builders.engines.base import EngineBackend, EngineSpec
from builders.engines.card import Keyed
from builders.engines.failures import failure
from builders.engines.precision import caster_version, quantiser_version
from builders.grid.live import live
from builders.grid.tiles import Tile, cell_range, tile_from_id
from builders.grid.views import View
from builders.imagery.coverage import Gates, Shortfall, code, shortfall, with_views
from builders.imagery.inventory import Inventory, Level, cells_of
from builders.mission.schema import Backbone, Calibration, Descriptors, scaled
from builders.onboard.probes import ROWS as PROBE_ROWS
from builders.recipe import KEYS_CONTEXT, Recipe, RowRecipe, engine_recipe, fidelity_recipe, quantised_recipe, tile_list
from builders.retrieval.pictures import sample
from builders.retrieval.quality import AGAINST, Imagery, RecallMeasurement
from store.disk.index import peek_index
from store.disk.media import object_path
from store.disk.objects import read_chunks
from store.errors import Corrupt, FlightbagError, Invalid, NotFound
from store.format.entries import MAX_ENTRIES
from store.format.host import is_host_class, meets
from store.format.ids import BuildKey, ObjectId, derive
from store.format.manifest import MAX_FIGURES, PPM, SECONDS_A_DAY, MissionFacts, Takeoff, identity
from store.format.missing import ENTRY as MISSING_ENTRY
from store.ground.repository import Repository
from store.ground.upkeep import records_of

# (object id, size) of each object that was once built for a key, if all are there; None where it has to be built.
Found: TypeAlias = tuple[tuple[ObjectId, int], ...]
Lookup: TypeAlias = Callable[[BuildKey], Found | None]
_MAX_SEGMENT = 64
INDEX_SCHEMA = "flightbag/index/1"
QUANTISER_SCHEMA = "flightbag/quantiser/1"


@dataclass(frozen=True, slots=True)
class QuantiseTask:
    """A network in int8 that an engine is compiled from; it does not fly. `tiles` uint64[n], ascending, are the ids of
    the calibration tiles, which `set` says how to take."""

    recipe: Recipe
    set: Descriptors
    method: str
    tiles: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class EngineTask:
    """An engine that the mission needs, and the objects it was built to, if they are there: its card, the engine, and
    its weights where they are in a file of their own. `name` is the engine's."""

    name: str
    recipe: Recipe
    backend: EngineBackend
    spec: EngineSpec
    host: str
    step: QuantiseTask | None
    present: Found | None

    @property
    def keyed(self) -> Keyed:
        """What its key is made of."""
        return Keyed(self.recipe, {"quantised": self.step.recipe} if self.step is not None else {})

    @property
    def names(self) -> tuple[str, str, str]:
        """Of its entries, ascending, which is the order in a build record: card, engine, and weights if it has such."""
        folder, _, file = self.name.removeprefix("engines/").rpartition("/")
        stem = file.removesuffix(self.backend.suffix)
        return f"cards/{folder}/{stem}.json", self.name, f"engines/{folder}/{stem}.weights"

    def named(self, found: Found) -> dict[str, tuple[ObjectId, int]]:
        """The objects by the names of their entries."""
        return dict(zip(self.names, found, strict=False))


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A shard that the mission needs, and the one object it was built to, if it is there. `origins` uint64[n],
    ascending: the views of the cell of which the sources have every tile; `shows` uint64[m], ascending: all tiles of
    theirs."""

    name: str
    recipe: Recipe
    rows: RowRecipe
    set: Descriptors
    zoom: int
    cell: Tile
    view: View
    origins: NDArray[np.uint64]
    shows: NDArray[np.uint64]
    present: Found | None


@dataclass(frozen=True, slots=True)
class ProbeTask:
    """The probe of a descriptor set: `origins` uint64[n] of the views of the area that it is made of, at one zoom."""

    name: str
    recipe: Recipe
    rows: RowRecipe
    set: Descriptors
    zoom: int
    view: View
    origins: NDArray[np.uint64]
    present: Found | None


@dataclass(frozen=True, slots=True)
class IndexTask:
    """An approximate index over the rows of a set at one zoom, and, for some methods, the quantiser that it shares with
    other missions' indexes. `host` is the class that it needs."""

    name: str
    recipe: Recipe
    quantiser: Recipe | None
    method: str
    set: str
    zoom: int
    host: str
    present: Found | None
    quantiser_present: Found | None

    @property
    def whole(self) -> bool:
        """Whether all of it is there."""
        return self.present is not None and (self.quantiser is None or self.quantiser_present is not None)

    @property
    def quantiser_name(self) -> str:
        return f"{self.name.removesuffix('.faiss')}.quantiser"

    def named(self) -> dict[str, tuple[ObjectId, int]]:
        """The objects that are there by the names of their entries."""
        parts = ((self.name, self.present), (self.quantiser_name, self.quantiser_present))
        return {name: found[0] for name, found in parts if found is not None}


@dataclass(frozen=True, slots=True)
class FileTask:
    """A file that is stored as it is."""

    name: str
    path: Path
    id: ObjectId
    size: int
    present: bool


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """What became of an index: (object id, size) of it, and of its quantiser where it has one; how many rows it has,
    and how many numbers each; seconds where something of it was built now."""

    index: tuple[ObjectId, int]
    quantiser: tuple[ObjectId, int] | None
    rows: int
    dim: int
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """Everything the mission's manifest will name, but for what is only known when the tiles have been decoded: which
    of them are missing. `shortfall` is what is missing by what the sources tell."""

    facts: MissionFacts
    host: str
    inventory: Inventory
    gates: Gates
    shortfall: Shortfall
    sets: tuple[str, ...]
    engines: tuple[EngineTask, ...]
    shards: tuple[ShardTask, ...]
    probes: tuple[ProbeTask, ...]
    indexes: tuple[IndexTask, ...]
    files: tuple[FileTask, ...]
    questions: tuple[RecallMeasurement, ...]
    gated: tuple[tuple[str, int, bytes], ...]

    @property
    def fresh(self) -> bool:
        """Whether all tiles that it rests on were read now."""
        others = [question.against.inventory for question in self.questions if question.against is not None]
        return all(inventory.fresh for inventory in (self.inventory, *others))

    def without_view(self, zoom: int) -> NDArray[np.uint64]:
        """uint64[n], ascending: the tiles of the area that are there and that some set has no whole view of."""
        level = self.inventory.level(zoom)
        unseen: NDArray[np.uint64] = level.required[self.shortfall.level(zoom) == code("no-view")]
        return unseen

    def engine_of(self, set_: Descriptors) -> EngineTask:
        """The engine that describes camera frames for a set."""
        return next(task for task in self.engines if task.spec.backbone == set_.backbone)

    def identity(self, missing: Shortfall, releases: tuple[ObjectId, ...] = ()) -> bytes:
        """The identity that the manifest will carry with these releases, if this is what is missing."""
        artifacts = dict(self.artifacts)
        if missing.missing:
            artifacts[MISSING_ENTRY] = bytes(ObjectId.of(missing.as_list().render()))
        return identity(self.facts, self.host, missing.coverage(self.gates), self.gated, releases, artifacts)

    @property
    def known(self) -> dict[ObjectId, tuple[str, int]]:
        """Every object that is there, or whose size is known: its name and size."""
        return {
            **{id_: (name, size) for t in self.engines for name, (id_, size) in t.named(t.present or ()).items()},
            **{id_: (task.name, size) for task in self.shards for id_, size in task.present or ()},
            **{id_: (task.name, size) for task in self.probes for id_, size in task.present or ()},
            **{id_: (name, size) for task in self.indexes for name, (id_, size) in task.named().items()},
            **{task.id: (task.name, task.size) for task in self.files},
        }

    def with_built(self, engines: Mapping[str, Found], shards: Mapping[str, Found]) -> Plan:
        """The plan when every engine and shard is there: name -> objects. A shard without a row is no entry."""
        return replace(
            self,
            engines=tuple(replace(task, present=engines[task.name]) for task in self.engines),
            shards=tuple(
                replace(task, present=shards[task.name]) for task in self.shards if shards[task.name][0][1] > EMPTY_SIZE
            ),
        )

    def with_indexes(self, built: Mapping[str, BuiltIndex]) -> Plan:
        """The plan when every index is there: name -> what was built."""
        return replace(
            self,
            indexes=tuple(
                replace(
                    task,
                    present=(built[task.name].index,),
                    quantiser_present=None if (one := built[task.name].quantiser) is None else (one,),
                )
                for task in self.indexes
            ),
        )

    @property
    def keyed(self) -> tuple[EngineTask | ShardTask | ProbeTask | IndexTask, ...]:
        """The tasks that have a build key."""
        return (*self.engines, *self.shards, *self.probes, *self.indexes)

    @property
    def artifacts(self) -> Mapping[str, bytes]:
        """Entry name -> build key, or object id where the kind has none. Which files an engine has is known when it is
        there."""
        return {
            **{task.name: bytes(task.recipe.key) for task in self.shards},
            **{task.name: bytes(task.recipe.key) for task in self.probes},
            **{task.name: bytes(task.recipe.key) for task in self.indexes},
            **{task.quantiser_name: bytes(task.quantiser.key) for task in self.indexes if task.quantiser is not None},
            **{name: bytes(task.recipe.key) for task in self.engines for name in task.named(task.present or ())},
            **{task.name: bytes(task.id) for task in self.files},
        }

    def as_json(self) -> dict[str, Any]:
        """A plan for machines: each artifact present or missing, sizes in bytes where they are known."""
        return {
            "mission": self.facts.id,
            "host": self.host,
            "tiles": self.inventory.tiles,
            "missing": [
                {"tile": str(tile_from_id(number)), "reason": reason}
                for number, reason in self.shortfall.reasons().items()
            ],
            "artifacts": [
                {
                    "name": task.name,
                    "key": str(task.recipe.key),
                    "present": task.present is not None,
                    "bytes": sum(size for _, size in task.present) if task.present else None,
                    "tiles": len(task.shows) if isinstance(task, ShardTask) else None,
                }
                for task in self.keyed
            ]
            + [
                {"name": file.name, "key": "", "present": file.present, "bytes": file.size, "tiles": None}
                for file in self.files
            ],
        }


# Told as the work goes on: what is being done, units done now, units in all (0 where not known).
Progress = Callable[[str, int, int], None]


def silent(_what: str, _done: int, _total: int) -> None:
    """Progress for nobody."""


def make_plan(
    context: BuildContext, lookup: Lookup, progress: Progress = silent, *, now: int, remembered: bool = False
) -> Plan:
    """What the mission needs and what of it is there. Reads every tile of the area's cells, unless what was read before
    may be believed (`remembered`) and no source has changed since; writes nothing to the store."""
    mission = context.mission
    host = target_host(context)
    inventory = take_inventory(context, progress, remembered=remembered)
    gates = context.gates(now)
    newest = max((int(level.captured.max()) for level in inventory.levels if len(level.captured)), default=0)
    if newest > now + SECONDS_A_DAY:
        raise Invalid(
            f"{context.path}: imagery is dated {time.strftime('%Y-%m-%d', time.gmtime(newest))}, which is yet to come",
            remedy="mend tiles[].captured, or the datetime in tiles[].footprints",
        )
    engines = tuple(engine_task(context, backbone, host, inventory, lookup) for backbone in mission.backbones)
    shards = tuple(_shard_tasks(context, inventory, lookup))
    probes = tuple(_probe_tasks(context, inventory, shards, lookup))
    # An engine has a card, and may have weights in a file of their own; then there may be a list of missing tiles.
    missing = with_views(shortfall(inventory, gates, {}), _candidates(context, shards))
    indexes = tuple(_index_tasks(context, shards, missing, host, lookup))
    count = 3 * len(engines) + len(shards) + len(probes) + 2 * len(indexes) + len(mission.files) + 1
    if count > MAX_ENTRIES:
        raise Invalid(
            f"{context.path}: the mission would have up to {count} entries, at most {MAX_ENTRIES} are allowed",
            remedy="make the area smaller, or leave out a zoom or a descriptor set",
        )
    questions = tuple(_questions(context, inventory, engines, progress, remembered=remembered))
    gated = tuple(sorted([*_fidelity(context, engines, probes), *_recall(context, questions)]))
    if len(gated) > MAX_FIGURES:
        raise Invalid(
            f"{context.path}: {len(gated)} figures would be measured, at most {MAX_FIGURES} fit a mission",
            remedy="leave out [quality] or some of the descriptor sets",
        )
    return Plan(
        facts=_facts(context),
        host=host,
        inventory=inventory,
        gates=gates,
        shortfall=missing,
        sets=tuple(set_.name for set_ in mission.descriptors),
        engines=engines,
        shards=shards,
        probes=probes,
        indexes=indexes,
        files=tuple(_file_tasks(context)),
        questions=questions,
        gated=gated,
    )


def take_inventory(context: BuildContext, progress: Progress, *, remembered: bool = False) -> Inventory:
    """What the tile sources have of the area. Reads every tile, unless what was read before may be believed."""
    return context.sources.inventory(context.wanted(), lambda n: progress("reading tiles", n, 0), remembered=remembered)


def plan_engines(
    context: BuildContext, lookup: Lookup, progress: Progress = silent
) -> tuple[tuple[EngineTask, ...], Inventory | None]:
    """The engines alone, and the inventory if one of them is calibrated with tiles: else none is read."""
    backbones, host = context.mission.backbones, target_host(context)
    inventory = take_inventory(context, progress) if any(b.precision == "int8" for b in backbones) else None
    return tuple(engine_task(context, backbone, host, inventory, lookup) for backbone in backbones), inventory


@contextmanager
def looking(repository: Repository) -> Iterator[Lookup]:
    """What was built, as the store is now, found out without writing a byte to it."""
    index = peek_index(repository.media)
    published = {}
    for mission in repository.missions():
        try:
            published.update(records_of(repository.current(mission).table))
        except FlightbagError:
            continue  # a build would not believe it either

    def lookup(key: BuildKey) -> Found | None:
        record = index.record(key) if index is not None else None
        ids = record.ids if record is not None else published.get(key, ())
        try:
            return tuple((id_, repository.media.stamp(object_path(id_)).size) for id_ in ids) or None
        except (NotFound, Corrupt):
            return None

    try:
        yield lookup
    finally:
        if index is not None:
            index.close()


def plan(context: BuildContext, progress: Progress = silent, *, now: int) -> Plan:
    """The plan as the store is now, found out without writing a byte to it."""
    with looking(context.repository) as lookup:
        made = make_plan(context, lookup, progress, now=now)
        open_embedders(context, made)
        return made


def _facts(context: BuildContext) -> MissionFacts:
    m = context.mission.mission
    return MissionFacts(
        id=m.id,
        flight=m.flight,
        aircraft=m.aircraft_ids,
        takeoff=Takeoff(m.takeoff.lat_e7, m.takeoff.lon_e7, m.takeoff.alt_mm),
        area=context.area,
        sector=m.sector,
    )


def explained(context: BuildContext, name: str, progress: Progress = silent) -> EngineTask:
    """The engine of one backbone, with its key. Raises Invalid for a backbone that the mission file has not."""
    for backbone in context.mission.backbones:
        if backbone.name == name:
            inventory = take_inventory(context, progress) if backbone.precision == "int8" else None
            return engine_task(context, backbone, target_host(context), inventory, lambda _key: None)
    known = ", ".join(backbone.name for backbone in context.mission.backbones)
    raise Invalid(f"{context.path} has no backbone {name!r}", remedy=f"name one of {known}")


def target_host(context: BuildContext) -> str:
    """The host class of the mission; "auto" is as much of this machine's as its engines depend on."""
    host: str = context.mission.target.host
    if host == "auto":
        parts = {
            part
            for backbone in context.mission.backbones
            for part in context.backend(backbone).target(context.specs[backbone.name]).split("+")
        }
        # Of `cpu-x86_64` and `cpu-x86_64-avx2` the second says it all.
        host = "+".join(sorted(part for part in parts if not any(other.startswith(part + "-") for other in parts)))
    assert is_host_class(host)
    return host


def engine_task(
    context: BuildContext, backbone: Backbone, host: str, inventory: Inventory | None, lookup: Lookup
) -> EngineTask:
    """The engine of a backbone for the host class of the mission. `inventory` is needed for int8 alone."""
    backend, spec = context.backend(backbone), context.specs[backbone.name]
    with context.about("target.host"):
        need = backend.engine_host(spec, host)
    step = None
    if backbone.precision == "int8":
        assert inventory is not None
        step = _quantise_task(context, backbone, inventory)
        spec = replace(spec, quantised=bytes(step.recipe.key))
    caster = caster_version() if spec.precision == "fp16" else ""
    recipe = engine_recipe(spec, need, backend.key_fields(spec, need), caster)
    name = engine_name(backbone.name, backend.name, backend.version, need, spec.precision, backend.suffix)
    return EngineTask(name, recipe, backend, spec, need, step, lookup(recipe.key))


def _quantise_task(context: BuildContext, backbone: Backbone, inventory: Inventory) -> QuantiseTask:
    """The step before an int8 engine. The calibration tiles are spread evenly over the tiles of the area, by tile id:
    equal areas of equal imagery have equal ones."""
    asked = backbone.calibration or Calibration()
    there = [level.required[level.present] for level in inventory.levels]
    ids = np.concatenate(there)
    if not len(ids):
        raise failure("calibration", f"{context.path}: there is no tile in the area to calibrate {backbone.name} with")
    count = min(asked.tiles, len(ids))
    places = np.unique(np.arange(count) * len(ids) // count)
    hashes = np.concatenate([level.required_hashes[level.present] for level in inventory.levels])
    set_ = context.preprocess(backbone.name)
    recipe = quantised_recipe(
        salt=backbone.salt,
        model=context.specs[backbone.name].model.digest,
        method=asked.method,
        tool=quantiser_version(),
        preprocess=preprocess_of(set_).fields(),
        tiles=tile_list(ids[places], hashes[places]),
    )
    return QuantiseTask(recipe, set_, asked.method, ids[places])


def engine_name(backbone: str, backend: str, version: str, host: str, precision: str, suffix: str) -> str:
    """`engines/<backbone>/<backbone>__<backend><version>__<host>__<precision><suffix>`; the folder already says which
    backbone, so the file does not where that would be longer than a segment may be; then a host class that is too long
    is cut, with some of its hash."""
    # Weights lie beside the engine under the longer suffix.
    room = _MAX_SEGMENT - max(len(suffix), len(".weights"))

    def named(host: str) -> str:
        return f"{backend}{version}__{host}__{precision}".replace("+", "_").lower()

    short = f"{host.split('+')[0][:16]}-{blake3(host.encode()).hexdigest()[:8]}"
    names = (f"{backbone}__{named(host)}", named(host), named(short))
    return f"engines/{backbone}/{next((name for name in names if len(name) <= room), names[-1])}{suffix}"


def _shard_tasks(context: BuildContext, inventory: Inventory, lookup: Lookup) -> Iterator[ShardTask]:
    for set_ in context.mission.descriptors:
        for level in inventory.levels:
            view, rows = context.view(set_, level.zoom), context.rows(set_, level.zoom)
            for cell, origins, shows, hashes in _cells(level, view):
                if not len(origins):
                    continue
                recipe = rows.shard(level.zoom, tile_list(shows, hashes))
                name = f"descriptors/{set_.name}/{level.zoom}/{cell.z}-{cell.x}-{cell.y}.safetensors"
                found = lookup(recipe.key)
                yield ShardTask(name, recipe, rows, set_, level.zoom, cell, view, origins, shows, found)


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
        there = level.find(footprint.ravel())[0].reshape(footprint.shape)
        shows = np.unique(footprint[there])
        yield cell, footprint[there.all(axis=(1, 2)), 0, 0], shows, level.hashes[level.find(shows)[1]]


def _probe_tasks(
    context: BuildContext, inventory: Inventory, shards: Sequence[ShardTask], lookup: Lookup
) -> Iterator[ProbeTask]:
    """The probe of each set is of its finest zoom that has views of the area."""
    for set_ in context.mission.descriptors:
        for level in reversed(inventory.levels):
            view, rows = context.view(set_, level.zoom), context.rows(set_, level.zoom)
            origins = sample(level, view, 0, PROBE_ROWS)
            if len(origins):
                shows = view.footprint(level.zoom, origins).ravel()
                # Where all of these are bad, it is made of others that the shards have.
                keys = [bytes(t.recipe.key) for t in shards if (t.set.name, t.zoom) == (set_.name, level.zoom)]
                recipe = rows.probe(tile_list(shows, level.hashes[level.find(shows)[1]]), keys)
                name = f"probes/{set_.name}.safetensors"
                yield ProbeTask(name, recipe, rows, set_, level.zoom, view, origins, lookup(recipe.key))
                break


def _index_tasks(
    context: BuildContext, shards: Sequence[ShardTask], missing: Shortfall, host: str, lookup: Lookup
) -> Iterator[IndexTask]:
    """An index is of the rows that a search may find: which those are follows from the shards, the area and the
    gates."""
    if not context.mission.indexes:
        return
    # Only who asks for an index needs the library.
    from builders.onboard import ann

    # Its bytes are read alike on every CPU; a host class without one says where the mission flies.
    need = "cpu" if meets(host, "cpu") else host
    for keys in context.mission.indexes:
        for level, codes in zip(missing.inventory.levels, missing.codes, strict=True):
            tasks = [task for task in shards if (task.set.name, task.zoom) == (keys.set, level.zoom)]
            if not tasks:
                continue
            area = level.required.tobytes() + codes.tobytes()
            # Rows of other sets say of tiles that they are missing, too.
            beside = [bytes(t.recipe.key) for t in shards if t.zoom == level.zoom]
            fields = {"method": keys.method, "library": ann.version()}
            quantiser = None
            if keys.method == "ivf":
                lost = level.required[codes > 0]
                rows = sum(len(live(level.zoom, t.view, t.origins, level.required, lost)) for t in tasks)
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


def _fidelity(
    context: BuildContext, engines: Sequence[EngineTask], probes: Sequence[ProbeTask]
) -> Iterator[tuple[str, int, bytes]]:
    """How near the engines of a set have to come to its rows: as near as the mission file has them come to the
    network."""
    for probe in probes:
        engine = next(task for task in engines if task.spec.backbone == probe.set.backbone)
        least = int(context.tolerance(engine.spec.precision).cosine * PPM)
        yield f"fidelity/{probe.set.name}", least, fidelity_recipe(probe.recipe.key, engine.recipe.key)


def _questions(
    context: BuildContext, inventory: Inventory, engines: Sequence[EngineTask], progress: Progress, *, remembered: bool
) -> Iterator[RecallMeasurement]:
    if context.mission.quality is None:
        return
    against = None
    if context.against is not None:
        other = context.against.inventory(
            context.wanted(), lambda n: progress("reading other tiles", n, 0), remembered=remembered
        )
        if other.digest == inventory.digest:
            raise Invalid(
                f"{context.path}: quality.against has the same tiles as the map: what it asks, the map knows",
                remedy="give imagery of another day, or leave it out",
            )
        against = Imagery(context.against, other)
    for set_ in context.mission.descriptors:
        engine = next(task for task in engines if task.spec.backbone == set_.backbone)
        layers = tuple(context.rows(set_, level.zoom) for level in inventory.levels)
        yield RecallMeasurement(set_.name, engine.recipe.key, layers, Imagery(context.sources, inventory), against)


def _candidates(context: BuildContext, shards: Sequence[ShardTask]) -> list[dict[int, tuple[View, NDArray[np.uint64]]]]:
    """Of each descriptor set, by zoom, the views that have a row if every tile is good."""
    found: dict[str, dict[int, tuple[View, list[NDArray[np.uint64]]]]] = {
        s.name: {} for s in context.mission.descriptors
    }
    for task in shards:
        found[task.set.name].setdefault(task.zoom, (task.view, []))[1].append(task.origins)
    return [
        {zoom: (view, np.sort(np.concatenate(parts))) for zoom, (view, parts) in zooms.items()}
        for zooms in found.values()
    ]


def _recall(context: BuildContext, questions: Sequence[RecallMeasurement]) -> Iterator[tuple[str, int, bytes]]:
    quality = context.mission.quality
    for question in questions:
        assert quality is not None
        for name, way, top in question.figures():
            least: Decimal | None = quality.recall_at_1 if top == 1 else quality.recall_at_5
            if way == AGAINST:
                least = quality.against_recall_at_1 if top == 1 else quality.against_recall_at_5
            yield name, scaled(least or Decimal(0), 6), question.recipe(way)


def open_embedders(context: BuildContext, made: Plan) -> dict[tuple[str, View], Embedder]:
    """By name and view, an embedder for each descriptor set that has a shard to build.

    Raises Invalid, naming file and key, where set and model do not fit: before anything is compiled.
    """
    sets = {(task.set.name, task.view): task.set for task in made.shards if task.present is None}
    return {(name, view): context.embedder(set_, view) for (name, view), set_ in sets.items()}


def _file_tasks(context: BuildContext) -> Iterator[FileTask]:
    for file in context.mission.files:
        hasher, size = blake3(), 0
        for chunk in read_chunks(str(file.path)):
            hasher.update(chunk)
            size += len(chunk)
        id_ = ObjectId(hasher.digest())
        try:
            present = context.repository.media.stamp(object_path(id_)).size == size
        except (NotFound, Corrupt):
            present = False
        yield FileTask(f"files/{file.name}", file.path, id_, size, present)
