"""Files of a mission are stored as they were planned, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builders.artifacts.file import file_tasks, store_file
from builders.artifacts.store import ArtifactStore
from builders.compose import open_context
from store.errors import Corrupt
from store.ground.repository import Repository
from store.ground.writer import writing
from tests.support.field import Desk


def test_a_file_that_changed_since_the_plan_is_not_stored(desk: Desk, tmp_path: Path) -> None:
    with (
        open_context(desk.write_mission("left"), desk.store, tmp_path) as context,
        writing(context.repository) as writer,
    ):
        store = ArtifactStore(writer, 0)
        (task,) = file_tasks(context)
        (desk.folder / "camera.yaml").write_text("fx: 0.0\n")
        with pytest.raises(Corrupt):
            store_file(store, task)
        assert not task.complete
        (now,) = file_tasks(context)
        first = store_file(store, now)
        again = store_file(store, now)
        assert first.seconds is not None
        assert again.seconds is None
        assert again.task == first.task == replace(now, complete=True)
        (entry,) = again.entries()
        assert (entry.name, entry.id, entry.size) == ("files/calibration/camera.yaml", now.id, now.size)
    with Repository.open(desk.store) as repository:
        assert bytes(repository.evidence.bytes_of(now.id, now.size)) == b"fx: 0.0\n"
