"""Files of a mission are stored as they were planned, or not at all."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from builders.artifacts.file import file_tasks, store_file
from builders.artifacts.store import ArtifactStore
from builders.compose import open_context
from store.disk import medium
from store.errors import Corrupt, Invalid, Unavailable
from store.ground.repository import Repository
from store.ground.writer import writing
from tests.support.commands import flightbag
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


def test_a_file_that_the_medium_of_the_store_cannot_take_is_known_to_the_plan(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (desk.folder / "camera.yaml").stat().st_size
    with open_context(desk.write_mission("left"), desk.store, tmp_path) as context:
        monkeypatch.setattr(medium, "largest_file", lambda _fd: size)
        assert len(list(file_tasks(context))) == 1
        monkeypatch.setattr(medium, "largest_file", lambda _fd: size - 1)
        with pytest.raises(Unavailable, match="takes no file of 4 GiB") as caught:
            list(file_tasks(context))
    assert (caught.value.kind, caught.value.fields["actual"]) == ("file-too-large", size)


def test_a_file_from_outside_is_named_in_the_plan_and_signed_as_such(desk: Desk) -> None:
    outside = desk.folder.parent / f"{desk.folder.name}.pem"
    outside.write_text("secret\n")
    mission = desk.write_mission("left", files=[("cal/a", Path("camera.yaml")), ("cal/b", outside)])
    ran = desk.build(mission)
    assert ran.status == 2
    assert "files[1].path" in ran.json["error"]["message"]
    mission.write_text(mission.read_text() + "outside = true\n")
    plan = flightbag("plan", mission, "--store", desk.store)
    assert f"files/cal/b is {outside}, outside the folder of the mission file\n" in plan.out
    assert "files/cal/a is" not in plan.out
    rows = flightbag("plan", mission, "--store", desk.store, "--json").json["artifacts"]
    assert [row["outside"] for row in rows if row["outside"]] == [str(outside)]
    desk.built(mission)
    shown = flightbag("show", desk.store, "left").out
    assert "files/cal/b lay outside the folder of the mission file\n" in shown
    assert "files/cal/a lay" not in shown
    assert desk.verify().status == 0
    # The same bytes in the folder are another thing to sign.
    (desk.folder / "b.pem").write_bytes(outside.read_bytes())
    desk.write_mission("left", files=[("cal/a", Path("camera.yaml")), ("cal/b", Path("b.pem"))])
    assert desk.built(mission)["outcome"] == "built"
    assert "outside" not in flightbag("show", desk.store, "left").out


def test_a_file_with_a_hole_of_terabytes_is_refused_before_it_is_read(desk: Desk, tmp_path: Path) -> None:
    os.truncate(desk.folder / "camera.yaml", 1 << 42)
    with (
        open_context(desk.write_mission("left"), desk.store, tmp_path) as context,
        pytest.raises(Invalid, match=r"camera\.yaml has more than 17179869184 bytes"),
    ):
        list(file_tasks(context))


def test_progress_is_told_for_each_piece(desk: Desk, tmp_path: Path) -> None:
    os.truncate(desk.folder / "camera.yaml", 5 << 20)
    calls: list[tuple[str, int, int]] = []
    with open_context(desk.write_mission("left"), desk.store, tmp_path) as context:
        list(file_tasks(context, lambda *call: calls.append(call)))
    assert calls == [("reading files (MiB)", 1, 0)] * 5
