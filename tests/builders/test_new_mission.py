"""A new mission file: its names, its dates, and that nothing is written over."""

from __future__ import annotations

import datetime
import errno
import os
from pathlib import Path

import pytest

from builders import confinement, new_mission
from builders.inspection import Imagery, Inspected
from builders.mission.template import Tensor
from builders.new_mission import write_new
from store.disk.durable import Disk
from store.errors import Invalid, Unavailable

TODAY = datetime.date(2026, 11, 30)
SEEN = Inspected(
    Imagery((16,), 15, 16, (-991750000, 470080000, -991350000, 470330000), 256, "JPEG", None, 0.0, ("a note\nof two",)),
    (Tensor("image", "float32", ("N", 3, 64, 64), 4),),
    (Tensor("descriptor", "float32", ("N", 32), 2),),
)


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading is the subject of `builders.inspection`."""
    monkeypatch.setattr(confinement, "inspect", lambda *_args, **_options: SEEN)


def write(folder: Path, name: str = "north.toml", imagery: str = "a.mbtiles", model: str = "b.onnx") -> str:
    (folder / imagery).touch()
    write_new(folder / name, str(folder / imagery), folder / model, today=TODAY, progress=lambda *_: None)
    return (folder / name).read_text()


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("north.toml", "north"),
        ("Nord Grat 2.toml", "nord-grat-2"),
        ("\u5317.toml", "mission"),
        ("x" * 90 + ".toml", "x" * 64),
    ],
)
def test_the_mission_is_named_after_its_file(tmp_path: Path, name: str, id_: str) -> None:
    assert f'\nid = "{id_}" ' in write(tmp_path, name)


def test_what_only_the_planner_knows_is_marked(tmp_path: Path) -> None:
    marked = {line.split(" = ")[0] for line in write(tmp_path).splitlines() if line.endswith("CORRECT IT")}
    assert marked == {"aircraft", "lat", "lon", "alt_m", "captured", "scale"}


def test_the_imagery_is_dated_by_its_file_and_never_in_the_future(tmp_path: Path) -> None:
    for at, date in ((1_531_699_200, "2018-07-16"), (4_000_000_000, "2026-11-30"), (-86400, "1969-12-31")):
        (tmp_path / "a.mbtiles").touch()
        os.utime(tmp_path / "a.mbtiles", (at, at))
        (tmp_path / "north.toml").unlink(missing_ok=True)
        write_new(tmp_path / "north.toml", str(tmp_path / "a.mbtiles"), tmp_path / "b", today=TODAY, progress=print)
        assert f"\ncaptured = {date} " in (tmp_path / "north.toml").read_text()


def test_a_note_of_a_source_stays_in_its_comment(tmp_path: Path) -> None:
    assert "JPEG, a note?of two." in write(tmp_path)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    for name in ("a\udcff.mbtiles", "a\nb.mbtiles"):
        with pytest.raises(Invalid, match="cannot stand in a mission file") as caught:
            write_new(tmp_path / "n.toml", name, Path("b.onnx"), today=TODAY, progress=print)
        assert caught.value.remedy


def test_a_file_that_appears_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def inspect(*_args: object, **_options: object) -> Inspected:
        (tmp_path / "north.toml").write_text("mine")
        return SEEN

    monkeypatch.setattr(confinement, "inspect", inspect)
    with pytest.raises(Invalid, match="exists already"):
        write(tmp_path)
    assert (tmp_path / "north.toml").read_text() == "mine"


@pytest.mark.parametrize("step", ["write", "sync_file"])
def test_a_write_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(_disk: Disk, *_arguments: object) -> None:
        raise Unavailable("no space left", kind="no-space", errno=errno.ENOSPC, remedy="free some")

    monkeypatch.setattr(confinement, "inspect", lambda *_args, **_options: SEEN)
    with monkeypatch.context() as patch:
        patch.setattr(Disk, step, fail)
        with pytest.raises(Unavailable, match="no space left; free some"):
            write(tmp_path)
    assert not (tmp_path / "north.toml").exists()
    assert write(tmp_path)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mbtiles").touch()
    with pytest.raises(Unavailable, match="No such file or directory") as caught:
        write_new(tmp_path / "no/n.toml", str(tmp_path / "a.mbtiles"), Path("b"), today=TODAY, progress=print)
    assert "folder that exists" in caught.value.remedy
    assert new_mission._date_of(tmp_path / "nothing", TODAY) == TODAY
