"""Tasks and artifacts: the parts that all kinds share.

A mission sets tasks; an artifact fulfils a task.

Each kind is one module beside this one: engine, shard, probe, index, file, and the list of missing tiles. Such a module
says what the mission needs (its tasks), which work units make what is missing, and which entries result. Only
`plan` and the orchestrator go through all kinds, one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

from builders.recipe import Recipe
from store.format.entries import Entry, most_bytes
from store.format.ids import BuildKey, ObjectId

if TYPE_CHECKING:
    from builders.report import PlanRow  # it imports numpy, and cards are read without it

# The id and the size in bytes of an object of the store.
StoredObject: TypeAlias = tuple[ObjectId, int]
# The objects that a build key was built to, in the order of its record.
StoredObjects: TypeAlias = tuple[StoredObject, ...]
# The objects of a build key, if the store has all of them; None where the artifact has to be built.
Lookup: TypeAlias = Callable[[BuildKey], StoredObjects | None]
# Called as the work goes on: the activity, units done since the last call, units in all (0 where not known).
Progress: TypeAlias = Callable[[str, int, int], None]


def silent(_activity: str, _done: int, _total: int) -> None:
    """Progress for nobody."""


class Task(Protocol):
    """One artifact that the mission needs. A value: it is made while planning, and again with its objects when they are
    in the store."""

    # The most entries that can result.
    most_entries: ClassVar[int]

    @property
    def most_bytes(self) -> int:
        """The most bytes of the table that these entries take."""
        ...

    @property
    def name(self) -> str:
        """The name of its entry, or of the first of them."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the store has every object of it."""
        ...

    @property
    def objects(self) -> Mapping[str, StoredObject]:
        """Entry name -> object, of those whose ids are known."""
        ...

    @property
    def identities(self) -> Mapping[str, bytes]:
        """Entry name -> build key, or object id where the kind has no keys: what the mission's identity is made of."""
        ...

    def row(self) -> PlanRow:
        """Return its line in a plan."""
        ...


@dataclass(frozen=True, slots=True)
class KeyedTask:
    """A task of one entry with a build key; `present` is its object, if the store has it. It keeps to `Task`."""

    most_entries: ClassVar[int] = 1

    name: str
    recipe: Recipe
    present: StoredObjects | None

    @property
    def most_bytes(self) -> int:
        return most_bytes(self.name)

    @property
    def complete(self) -> bool:
        return self.present is not None

    @property
    def objects(self) -> Mapping[str, StoredObject]:
        return {} if self.present is None else {self.name: self.present[0]}

    @property
    def identities(self) -> Mapping[str, bytes]:
        return {self.name: bytes(self.recipe.key)}


@dataclass(frozen=True, slots=True)
class UnkeyedTask:
    """A task of one entry without a build key, whose bytes are at hand. Keeps what `Task` promises."""

    most_entries: ClassVar[int] = 1

    name: str
    id: ObjectId
    size: int
    complete: bool

    @property
    def most_bytes(self) -> int:
        return most_bytes(self.name)

    @property
    def objects(self) -> Mapping[str, StoredObject]:
        return {self.name: (self.id, self.size)}

    @property
    def identities(self) -> Mapping[str, bytes]:
        return {self.name: bytes(self.id)}

    def row(self) -> PlanRow:
        return PlanRow(self.name, "", self.complete, self.size)


class Artifact(Protocol):
    """An artifact whose objects are in the store: it fulfils a task."""

    @property
    def task(self) -> Task:
        """The task, with its objects."""
        ...

    @property
    def seconds(self) -> float | None:
        """The seconds that building it took; None where the store had it."""
        ...

    @property
    def figures(self) -> dict[str, float] | None:
        """Figures of the check that it passed, where it was built now."""
        ...

    def entries(self) -> Iterator[Entry]:
        """Yield its entries of the mission's table."""
        ...
