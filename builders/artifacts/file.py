"""Files of a mission: stored as they are, under `files/`. A file has no build key and needs no work unit.

These are the only bytes of the planner's machine that reach the store as they lie there. Models are compiled, imagery
is described, areas and landmarks are parsed; the weights of a model come from its own folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from blake3 import blake3

from builders.activity import doing
from builders.artifacts.store import ArtifactStore
from builders.artifacts.task import Progress, UnkeyedTask, silent
from builders.compose import BuildContext
from builders.files import lies_in, read_pieces
from builders.report import PlanRow
from store.disk.media import object_path
from store.disk.medium import check_file_sizes
from store.errors import Corrupt, NotFound
from store.format.entries import Entry
from store.format.ids import ObjectId


@dataclass(frozen=True, slots=True)
class FileTask(UnkeyedTask):
    """A file of the mission file's `[[files]]`, read when the plan was made. `outside` is whether it lies outside the
    folder of the mission file, which signers are told."""

    path: Path
    outside: bool

    @property
    def entry(self) -> Entry:
        """The entry of the file (FORMAT.md 4.3)."""
        return Entry(self.name, self.id, self.size, None, {"origin": "outside"} if self.outside else {})

    def row(self) -> PlanRow:
        outside = os.path.realpath(self.path) if self.outside else ""
        return PlanRow(self.name, "", self.complete, self.size, outside=outside)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is in the store."""

    task: FileTask
    seconds: float | None
    figures: None = None

    def entries(self) -> Iterator[Entry]:
        yield self.task.entry


def file_tasks(context: BuildContext, progress: Progress = silent) -> Iterator[FileTask]:
    """Yield the files of the mission file, each read and hashed.

    Raise Unavailable (kind file-too-large) for one that the file system of the store cannot take.
    """
    for file in context.mission.files:
        hasher, size = blake3(), 0
        with doing(f"reading {file.path}"):
            for piece in read_pieces(file.path, "file"):
                hasher.update(piece)
                size += len(piece)
                progress("reading files (MiB)", 1, 0)
        id_ = ObjectId(hasher.digest())
        check_file_sizes(context.repository.media.path, [(id_, size)])
        try:
            present = context.repository.media.stamp(object_path(id_)).size == size
        except (NotFound, Corrupt):
            present = False
        outside = not lies_in(file.path, context.path.absolute().parent)
        yield FileTask(f"files/{file.name}", id_, size, present, file.path, outside)


def store_file(store: ArtifactStore, task: FileTask) -> StoredFile:
    """Insert the file. Raise Corrupt where it is no longer the one that was planned."""
    insertion = store.insert_chunks(lambda: read_pieces(task.path, "file"), (task.id, task.size))
    return StoredFile(replace(task, complete=True), insertion.seconds)
