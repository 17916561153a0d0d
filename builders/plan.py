"""The plan of a build: what the mission needs, under which keys, and what of it the store has. A value, made without
writing anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from builders.recipe import Recipe
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import Coverage, MissionFacts, identity

if TYPE_CHECKING:
    from builders.descriptors.inventory import CellTiles, Inventory
    from builders.engines.base import EngineBackend, EngineSpec
    from builders.mission_file import Descriptors

# (object id, size) of what was once built for a key and is there; None where it has to be built.
Lookup = Callable[[BuildKey], "tuple[ObjectId, int] | None"]


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

    @cached_property
    def identity(self) -> bytes:
        """The identity that the manifest will carry (no quality gate and no release yet)."""
        return identity(self.facts, self.host, self.coverage, (), (), self.artifacts)

    @property
    def artifacts(self) -> Mapping[str, bytes]:
        """Entry name -> build key, or object id where the kind has none."""
        keyed: list[EngineTask | ShardTask] = [*self.engines, *self.shards]
        return {
            **{task.name: bytes(task.recipe.key) for task in keyed},
            **{task.name: bytes(task.id) for task in self.files},
        }
