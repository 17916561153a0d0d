"""The plan of a build: what the mission needs, under which keys, and what of it the store has.

A plan is a value; making one reads every tile of the area's cells and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from blake3 import blake3

from builders.compose import Workshop, preprocess_of
from builders.descriptors.embed import Embedder
from builders.descriptors.inventory import CellTiles, Inventory
from builders.descriptors.tiles import tile_from_id
from builders.engines.base import EngineBackend, EngineSpec
from builders.engines.card import Keyed
from builders.engines.failures import failure
from builders.engines.precision import caster_version, quantiser_version
from builders.mission_file import Backbone, Calibration, Descriptors, MissionFile
from builders.recipe import Recipe, engine_recipe, quantised_recipe, shard_recipe
from store.errors import Corrupt, FlightbagError, Invalid, NotFound
from store.format.area import Area
from store.format.entries import MAX_ENTRIES
from store.format.host import is_host_class
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import PPM, Coverage, MissionFacts, Takeoff, identity
from store.index import peek_index
from store.media import object_path
from store.objects import read_chunks
from store.repository import Repository, records_of

# (object id, size) of each object that was once built for a key, if all are there; None where it has to be built.
Found: TypeAlias = tuple[tuple[ObjectId, int], ...]
Lookup: TypeAlias = Callable[[BuildKey], Found | None]
_MAX_SEGMENT = 64


@dataclass(frozen=True, slots=True)
class QuantiseTask:
    """A network in int8 that an engine is compiled from; it does not fly. `tiles` is (tile id, hash) of the calibration
    tiles, which `set` says how to take."""

    recipe: Recipe
    set: Descriptors
    method: str
    tiles: tuple[tuple[int, bytes], ...]


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
    """A shard that the mission needs, and the one object it was built to, if it is there."""

    name: str
    recipe: Recipe
    set: Descriptors
    cell: CellTiles
    present: Found | None


@dataclass(frozen=True, slots=True)
class FileTask:
    """A file that is stored as it is."""

    name: str
    path: Path
    id: ObjectId
    size: int
    present: bool


@dataclass(frozen=True)
class Plan:
    """Everything the mission's manifest will name. `coverage` is that of a build in which every tile is described."""

    facts: MissionFacts
    host: str
    coverage: Coverage
    inventory: Inventory
    engines: tuple[EngineTask, ...]
    shards: tuple[ShardTask, ...]
    files: tuple[FileTask, ...]

    def identity(self, releases: tuple[ObjectId, ...] = ()) -> bytes:
        """The identity that the manifest will carry with these releases (there is no quality gate yet)."""
        return identity(self.facts, self.host, self.coverage, (), releases, self.artifacts)

    @property
    def known(self) -> dict[ObjectId, tuple[str, int]]:
        """Every object that is there, or whose size is known: its name and size."""
        return {
            **{id_: (name, size) for t in self.engines for name, (id_, size) in t.named(t.present or ()).items()},
            **{id_: (task.name, size) for task in self.shards for id_, size in task.present or ()},
            **{task.id: (task.name, task.size) for task in self.files},
        }

    def with_engines(self, found: Mapping[str, Found]) -> Plan:
        """The plan when every engine is there: name -> objects."""
        return replace(self, engines=tuple(replace(task, present=found[task.name]) for task in self.engines))

    @property
    def keyed(self) -> tuple[EngineTask | ShardTask, ...]:
        """The tasks that have a build key."""
        return (*self.engines, *self.shards)

    @property
    def artifacts(self) -> Mapping[str, bytes]:
        """Entry name -> build key, or object id where the kind has none. Which files an engine has is known when it is
        there."""
        return {
            **{task.name: bytes(task.recipe.key) for task in self.shards},
            **{name: bytes(task.recipe.key) for task in self.engines for name in task.named(task.present or ())},
            **{task.name: bytes(task.id) for task in self.files},
        }

    def as_json(self) -> dict[str, Any]:
        """A plan for machines: each artifact present or missing, sizes in bytes where they are known."""
        return {
            "mission": self.facts.id,
            "host": self.host,
            "identity": self.identity().hex() if all(task.present for task in self.engines) else None,
            "tiles": len(self.inventory.required),
            "absent": [str(tile_from_id(number)) for number in self.inventory.absent],
            "artifacts": [
                {
                    "name": task.name,
                    "key": str(task.recipe.key),
                    "present": task.present is not None,
                    "bytes": sum(size for _, size in task.present) if task.present else None,
                    "tiles": len(task.cell.tiles) if isinstance(task, ShardTask) else None,
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


def make_plan(shop: Workshop, lookup: Lookup, progress: Progress = silent) -> Plan:
    """What the mission needs and what of it is there. Reads every tile of the area's cells; writes nothing."""
    mission = shop.mission
    host = target_host(shop)
    inventory = take_inventory(shop, progress)
    shards = len(mission.descriptors) * sum(1 for cell in inventory.cells if cell.tiles)
    # An engine has a card, and may have weights in a file of their own.
    if (count := 3 * len(mission.backbones) + shards + len(mission.files)) > MAX_ENTRIES:
        raise Invalid(
            f"{shop.path}: the mission would have up to {count} entries, at most {MAX_ENTRIES} are allowed",
            remedy="make the area smaller, or leave out a zoom or a descriptor set",
        )
    return Plan(
        facts=_facts(mission),
        host=host,
        coverage=_coverage(inventory),
        inventory=inventory,
        engines=tuple(engine_task(shop, backbone, host, inventory, lookup) for backbone in mission.backbones),
        shards=tuple(_shard_tasks(shop, inventory, lookup)),
        files=tuple(_file_tasks(shop)),
    )


def take_inventory(shop: Workshop, progress: Progress) -> Inventory:
    """What the tile sources have of the area. Reads every tile."""
    with shop.about("mission.area.bbox"):
        return shop.sources.inventory(shop.mission.mission.area.bbox_e7, lambda n: progress("reading tiles", n, 0))


def plan_engines(
    shop: Workshop, lookup: Lookup, progress: Progress = silent
) -> tuple[tuple[EngineTask, ...], Inventory | None]:
    """The engines alone, and the inventory if one of them is calibrated with tiles: else none is read."""
    backbones, host = shop.mission.backbones, target_host(shop)
    inventory = take_inventory(shop, progress) if any(b.precision == "int8" for b in backbones) else None
    return tuple(engine_task(shop, backbone, host, inventory, lookup) for backbone in backbones), inventory


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


def plan(shop: Workshop, progress: Progress = silent) -> Plan:
    """The plan as the store is now, found out without writing a byte to it."""
    with looking(shop.repository) as lookup:
        made = make_plan(shop, lookup, progress)
        open_embedders(shop, made)
        return made


def _facts(mission: MissionFile) -> MissionFacts:
    m = mission.mission
    return MissionFacts(
        id=m.id,
        flight=m.flight,
        aircraft=m.aircraft_ids,
        takeoff=Takeoff(m.takeoff.lat_e7, m.takeoff.lon_e7, m.takeoff.alt_mm),
        area=Area(m.area.bbox_e7),
        sector=m.sector,
    )


def _coverage(inventory: Inventory) -> Coverage:
    """The coverage of a complete build; one that is not complete fails, so there is no other yet."""
    captured = inventory.captured or (0,)
    return Coverage(
        digest=inventory.digest,
        tiles=len(inventory.required),
        missing=0,
        required_ppm=PPM,
        zooms=inventory.zooms,
        oldest=captured[0],
        newest=captured[-1],
    )


def explained(shop: Workshop, name: str, progress: Progress = silent) -> EngineTask:
    """The engine of one backbone, with its key. Raises Invalid for a backbone that the mission file has not."""
    for backbone in shop.mission.backbones:
        if backbone.name == name:
            inventory = take_inventory(shop, progress) if backbone.precision == "int8" else None
            return engine_task(shop, backbone, target_host(shop), inventory, lambda _key: None)
    known = ", ".join(backbone.name for backbone in shop.mission.backbones)
    raise Invalid(f"{shop.path} has no backbone {name!r}", remedy=f"name one of {known}")


def target_host(shop: Workshop) -> str:
    """The host class of the mission; "auto" is as much of this machine's as its engines depend on."""
    host: str = shop.mission.target.host
    if host == "auto":
        parts = {
            part
            for backbone in shop.mission.backbones
            for part in shop.backend(backbone).target(shop.specs[backbone.name]).split("+")
        }
        # Of `cpu-x86_64` and `cpu-x86_64-avx2` the second says it all.
        host = "+".join(sorted(part for part in parts if not any(other.startswith(part + "-") for other in parts)))
    assert is_host_class(host)
    return host


def engine_task(
    shop: Workshop, backbone: Backbone, host: str, inventory: Inventory | None, lookup: Lookup
) -> EngineTask:
    """The engine of a backbone for the host class of the mission. `inventory` is needed for int8 alone."""
    backend, spec = shop.backend(backbone), shop.specs[backbone.name]
    with shop.about("target.host"):
        need = backend.engine_host(spec, host)
    step = None
    if backbone.precision == "int8":
        assert inventory is not None
        step = _quantise_task(shop, backbone, inventory)
        spec = replace(spec, quantised=bytes(step.recipe.key))
    caster = caster_version() if spec.precision == "fp16" else ""
    recipe = engine_recipe(spec, need, backend.key_fields(spec, need), caster)
    name = engine_name(backbone.name, backend.name, backend.version, need, spec.precision, backend.suffix)
    return EngineTask(name, recipe, backend, spec, need, step, lookup(recipe.key))


def _quantise_task(shop: Workshop, backbone: Backbone, inventory: Inventory) -> QuantiseTask:
    """The step before an int8 engine. The calibration tiles are spread evenly over the tiles of the area, by tile id:
    equal areas of equal imagery have equal ones."""
    asked = backbone.calibration or Calibration()
    there = [number for number in inventory.required if number in inventory.hashes]
    if not there:
        raise failure("calibration", f"{shop.path}: there is no tile in the area to calibrate {backbone.name} with")
    count = min(asked.tiles, len(there))
    chosen = sorted({there[i * len(there) // count] for i in range(count)})
    tiles = tuple((number, inventory.hashes[number]) for number in chosen)
    set_ = shop.preprocess(backbone.name)
    recipe = quantised_recipe(
        salt=backbone.salt,
        model=shop.specs[backbone.name].model.digest,
        method=asked.method,
        tool=quantiser_version(),
        preprocess=preprocess_of(set_).fields(),
        tiles=tiles,
    )
    return QuantiseTask(recipe, set_, asked.method, tiles)


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


def _shard_tasks(shop: Workshop, inventory: Inventory, lookup: Lookup) -> Iterator[ShardTask]:
    for set_ in shop.mission.descriptors:
        fields = preprocess_of(set_).fields()
        for cell in inventory.cells:
            if not cell.tiles:
                continue
            recipe = shard_recipe(
                model=shop.specs[set_.backbone].model.digest,
                output=set_.output,
                preprocess=fields,
                dtype=set_.dtype,
                zoom=cell.zoom,
                tiles=cell.tiles,
            )
            z, x, y = cell.cell
            name = f"descriptors/{set_.name}/{cell.zoom}/{z}-{x}-{y}.safetensors"
            yield ShardTask(name, recipe, set_, cell, lookup(recipe.key))


def open_embedders(shop: Workshop, made: Plan) -> dict[str, Embedder]:
    """By name, an embedder for each descriptor set that has a shard to build.

    Raises Invalid, naming file and key, where set and model do not fit: before anything is compiled.
    """
    sets = {task.set.name: task.set for task in made.shards if task.present is None}
    return {name: shop.embedder(set_) for name, set_ in sets.items()}


def _file_tasks(shop: Workshop) -> Iterator[FileTask]:
    for file in shop.mission.files:
        hasher, size = blake3(), 0
        for chunk in read_chunks(str(file.path)):
            hasher.update(chunk)
            size += len(chunk)
        id_ = ObjectId(hasher.digest())
        try:
            present = shop.repository.media.stamp(object_path(id_)).size == size
        except (NotFound, Corrupt):
            present = False
        yield FileTask(f"files/{file.name}", file.path, id_, size, present)
