"""The example is ready for a first mission, is the same each time, and takes no folder that has files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builders.example.files import write_example
from store.errors import Invalid, Unavailable
from tests.support.commands import flightbag


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `flightbag example` wrote: it makes the folders above, too."""
    folder = tmp_path_factory.mktemp("example") / "some" / "where"
    ran = flightbag("example", folder, "--json")
    assert ran.status == 0, ran.err
    assert ran.own == {"folder": str(folder), "files": sorted(os.listdir(folder))}
    return folder


@pytest.mark.parametrize("mission", ["ridge", "valley"])
def test_its_missions_can_be_planned(folder: Path, tmp_path: Path, mission: str) -> None:
    assert flightbag("init", tmp_path / "ground").status == 0
    ran = flightbag("plan", folder / f"{mission}.toml", "--store", tmp_path / "ground")
    assert ran.status == 0, ran.out + ran.err
    assert f"mission {mission}, " in ran.out


def test_it_is_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    assert set(write_example(again)) == {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("name", ["ridge.toml", ".hidden"])
def test_a_folder_that_has_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(Invalid, match="has files already") as caught:
        write_example(tmp_path)
    assert caught.value.remedy
    assert os.listdir(tmp_path) == [name]


def test_what_cannot_be_written_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/example")):
        with pytest.raises(Unavailable, match="cannot be written") as caught:
            write_example(folder)
        assert caught.value.remedy
        assert flightbag("example", folder).status == 3


def test_the_command_says_which_extra_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builders.extras._BUILD", ("no_such_library",))
    ran = flightbag("example", tmp_path / "first")
    assert (ran.status, "[build]" in ran.err) == (3, True)
    assert not (tmp_path / "first").exists()
