"""The list of missing tiles, under `coverage/`: an artifact of every mission that lacks some. It has no build key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from builders.artifacts.store import ArtifactStore
from builders.artifacts.task import UnkeyedTask
from builders.imagery.coverage import Shortfall
from store.format.entries import Entry
from store.format.ids import ObjectId
from store.format.missing import ENTRY


@dataclass(frozen=True, slots=True)
class ListTask(UnkeyedTask):
    """A list of `missing` tiles; its bytes are known once every tile has been decoded."""

    missing: int


@dataclass(frozen=True, slots=True)
class StoredList:
    """A list that is in the store."""

    task: ListTask
    seconds: float | None
    figures: None = None

    def entries(self) -> Iterator[Entry]:
        yield Entry(self.task.name, self.task.id, self.task.size, None, {"missing": self.task.missing})


def list_tasks(shortfall: Shortfall) -> tuple[ListTask, ...]:
    """Return the task of listing these missing tiles; none where no tile is missing."""
    if not shortfall.missing:
        return ()
    data = shortfall.as_list().render()
    return (ListTask(ENTRY, ObjectId.of(data), len(data), False, shortfall.missing),)


def store_lists(store: ArtifactStore, shortfall: Shortfall) -> Iterator[StoredList]:
    """Insert the list, where a tile is missing."""
    for task in list_tasks(shortfall):
        yield StoredList(replace(task, complete=True), store.insert_bytes(shortfall.as_list().render()).seconds)
