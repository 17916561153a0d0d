"""The plan of a build: what the mission needs, under which keys, and what of it the store has.

A plan is a value; making one reads every tile of the area's cells and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from builders.compose import Workshop, preprocess_of
from builders.descriptors.embed import Embedder
from builders.descriptors.inventory import CellTiles, Inventory
from builders.descriptors.tiles import tile_from_id
from builders.engines.base import EngineBackend, EngineSpec
from builders.mission_file import Descriptors, MissionFile
from builders.recipe import Recipe, shard_recipe
from store.errors import Corrupt, FlightbagError, Invalid, NotFound
from store.format.area import Area
from store.format.entries import MAX_ENTRIES
from store.format.host import is_host_class, meets
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import PPM, Coverage, MissionFacts, Takeoff, identity
from store.index import peek_index
from store.media import object_path
from store.objects import read_chunks
from store.repository import records_of

# (object id, size) of what was once built for a key and is there; None where it has to be built.
Lookup = Callable[[BuildKey], tuple[ObjectId, int] | None]


@dataclass(frozen=True, slots=True)
class EngineTask:
    """An engine that the mission needs, and the object it was built to, if it is there."""

    name: str
    recipe: Recipe
    backend: EngineBackend
    spec: EngineSpec
    host: str
    present: tuple[ObjectId, int] | None


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A shard that the mission needs, and the object it was built to, if it is there."""

    name: str
    recipe: Recipe
    set: Descriptors
    cell: CellTiles
    present: tuple[ObjectId, int] | None


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
    def keyed(self) -> tuple[EngineTask | ShardTask, ...]:
        """The tasks that have a build key."""
        return (*self.engines, *self.shards)

    @property
    def artifacts(self) -> Mapping[str, bytes]:
        """Entry name -> build key, or object id where the kind has none."""
        return {
            **{task.name: bytes(task.recipe.key) for task in self.keyed},
            **{task.name: bytes(task.id) for task in self.files},
        }

    def as_json(self) -> dict[str, Any]:
        """A plan for machines: each artifact present or missing, sizes in bytes where they are known."""
        return {
            "mission": self.facts.id,
            "host": self.host,
            "identity": self.identity().hex(),
            "tiles": len(self.inventory.required),
            "absent": [str(tile_from_id(number)) for number in self.inventory.absent],
            "artifacts": [
                {
                    "name": task.name,
                    "key": str(task.recipe.key),
                    "present": task.present is not None,
                    "bytes": task.present[1] if task.present else None,
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
    host = _target_host(shop)
    with shop.about("mission.area.bbox"):
        inventory = shop.sources.inventory(mission.mission.area.bbox_e7, lambda n: progress("reading tiles", n, 0))
    shards = len(mission.descriptors) * sum(1 for cell in inventory.cells if cell.tiles)
    if (count := len(mission.backbones) + shards + len(mission.files)) > MAX_ENTRIES:
        raise Invalid(
            f"{shop.path}: the mission would have {count} entries, at most {MAX_ENTRIES} are allowed",
            remedy="make the area smaller, or leave out a zoom or a descriptor set",
        )
    return Plan(
        facts=_facts(mission),
        host=host,
        coverage=_coverage(inventory),
        inventory=inventory,
        engines=tuple(_engine_tasks(shop, host, lookup)),
        shards=tuple(_shard_tasks(shop, inventory, lookup)),
        files=tuple(_file_tasks(shop)),
    )


def plan(shop: Workshop, progress: Progress = silent) -> Plan:
    """The plan as the store is now, found out without writing a byte to it."""
    repository = shop.repository
    index = peek_index(repository.media)
    published = {}
    for mission in repository.missions():
        try:
            published.update(records_of(repository.current(mission).table))
        except FlightbagError:
            continue  # a build would not believe it either

    def lookup(key: BuildKey) -> tuple[ObjectId, int] | None:
        record = index.record(key) if index is not None else None
        ids = record.ids if record is not None else published.get(key, ())
        try:
            return (ids[0], repository.media.stamp(object_path(ids[0])).size) if ids else None
        except (NotFound, Corrupt):
            return None

    try:
        made = make_plan(shop, lookup, progress)
        open_embedders(shop, made)
        return made
    finally:
        if index is not None:
            index.close()


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


def _target_host(shop: Workshop) -> str:
    host: str = shop.mission.target.host
    if host == "auto":
        host = "+".join(sorted({backend.describe_host() for backend in shop.backends.values()}))
    assert is_host_class(host)
    return host


def _engine_tasks(shop: Workshop, host: str, lookup: Lookup) -> Iterator[EngineTask]:
    for backbone in shop.mission.backbones:
        backend, spec = shop.backend(backbone), shop.specs[backbone.name]
        with shop.about("target.host"):
            need = backend.engine_host(host)
            if not meets(host, need):
                raise Invalid(
                    f"is {host}, the backbone {backbone.name} would be built for {need}",
                    remedy=f"name a target whose class begins with {need}, or another backend",
                )
        recipe = Recipe({"schema": "flightbag/engine/1", **backend.build_key_fields(spec)})
        name = engine_name(backbone.name, backend.name, backend.version, need, spec.precision, backend.suffix)
        yield EngineTask(name, recipe, backend, spec, need, lookup(recipe.key))


def engine_name(backbone: str, backend: str, version: str, host: str, precision: str, suffix: str) -> str:
    """`engines/<backbone>/<backbone>__<backend><version>__<host>__<precision><suffix>`; the folder already says which
    backbone, so the file does not where that would be longer than a segment may be."""
    rest = f"{backend}{version}__{host}__{precision}{suffix}".replace("+", "_").lower()
    full = f"{backbone}__{rest}"
    return f"engines/{backbone}/{full if len(full) <= 64 else rest}"


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
