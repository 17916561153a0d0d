"""Files of a mission: stored as they are, under `files/`. A file has no build key and needs no work unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from blake3 import blake3

from builders.activity import doing
from builders.artifacts.store import ArtifactStore
from builders.artifacts.task import UnkeyedTask
from builders.compose import BuildContext
from store.disk.media import object_path
from store.disk.objects import read_chunks
from store.errors import Corrupt, NotFound
from store.format.entries import Entry
from store.format.ids import ObjectId


@dataclass(frozen=True, slots=True)
class FileTask(UnkeyedTask):
    """A file of the mission file's `[[files]]`, read when the plan was made."""

    path: Path


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is in the store."""

    task: FileTask
    seconds: float | None
    figures: None = None

    def entries(self) -> Iterator[Entry]:
        yield Entry(self.task.name, self.task.id, self.task.size, None, {})


def file_tasks(context: BuildContext) -> Iterator[FileTask]:
    """Yield the files of the mission file, each read and hashed."""
    for file in context.mission.files:
        hasher, size = blake3(), 0
        with doing(f"reading {file.path}"):
            for chunk in read_chunks(str(file.path)):
                hasher.update(chunk)
                size += len(chunk)
        id_ = ObjectId(hasher.digest())
        try:
            present = context.repository.media.stamp(object_path(id_)).size == size
        except (NotFound, Corrupt):
            present = False
        yield FileTask(f"files/{file.name}", id_, size, present, file.path)


def store_file(store: ArtifactStore, task: FileTask) -> StoredFile:
    """Insert the file. Raise Corrupt where it is no longer the one that was planned."""
    insertion = store.insert_file(task.path, (task.id, task.size))
    return StoredFile(replace(task, complete=True), insertion.seconds)
