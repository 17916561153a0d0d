"""What users read: every fenced block runs, every link leads somewhere, every command line is one of the program."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.commands import flightbag
from tests.support.here import confine_here
from tests.support.pages import Reader, blocks
from tests.support.release import REPOSITORY

README = REPOSITORY / "README.md"
EXTRAS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
CHORES = set(re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def installs(args: list[str]) -> None:
    """What pip is told to install has extras that exist."""
    named = [extra for arg in args for extra in ",".join(re.findall(r"\[([a-z,-]+)\]", arg)).split(",") if extra]
    assert args[0] == "install"
    assert {*named} <= {*EXTRAS}


def makes(args: list[str]) -> None:
    assert {*args} <= CHORES


def nothing(args: list[str]) -> None:
    """It changes the shell of the reader, or is a program of others that may be absent."""


ELSEWHERE = {"pip": installs, ".venv/bin/pip": installs, "make": makes, "python3": nothing, "export": nothing}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """An empty folder, which is the current one; builds run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        confine_here(patch)
        patch.chdir(tmp_path)
        yield patch


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of somebody who has done all that README says."""
    with pytest.MonkeyPatch.context() as patch:
        confine_here(patch)
        patch.chdir(tmp_path_factory.mktemp("readme"))
        reader = Reader(elsewhere=ELSEWHERE)
        reader.read(README)
        assert reader.names["engine"], "the last block loads the engine"
        return Path.cwd()


def test_readme_leads_to_a_go_and_is_short(first: Path) -> None:
    assert {"ground", "stick", "pinned.root.cbor"} <= {*os.listdir(first)}
    assert len(README.read_bytes()) <= 7000


@pytest.fixture
def desk(first: Path, tmp_path: Path, here: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, which is the current one."""
    shutil.copytree(first, tmp_path / "first")
    for medium in ("stick-1", "stick-2"):
        (tmp_path / "first" / medium).mkdir()
    here.chdir(tmp_path / "first")
    return tmp_path / "first"


def places(folder: Path) -> dict[str, str]:
    """The absolute paths of the pages, here."""
    names = {
        "/media/stick": "stick-1",
        "/media/second": "stick-2",
        "/var/lib/flightbag": "state",
        "/data/store": "stick",
    }
    return {path: str(folder / name) for path, name in names.items()}


def read(page: str, desk: Path, *, skip: int = 0, **more: str) -> Reader:
    """Read a page but for its first blocks; `more` are further names that are others here."""
    reader = Reader({**more, **places(desk)}, ELSEWHERE)
    for block in blocks(REPOSITORY / "docs" / page)[skip:]:
        reader.run(block)
    return reader


def test_carrying(desk: Path) -> None:
    read("carrying.md", desk)
    assert (desk / "stick-2/store/missions/ridge").is_file()


def test_aircraft(desk: Path) -> None:
    """The first block is run by tests/conformance/test_release.py."""
    assert flightbag("sync", "ground", desk / "stick-1/store").status == 0
    (desk / "fleet.keys").write_text("")
    read("aircraft.md", desk, skip=1)
    assert os.listdir(desk / "ground/receipts")


def test_time(desk: Path) -> None:
    """The drill is lived by tests/tools/test_takeoff_time.py, with a clock that is ahead."""
    root = ("--trust", desk / "pinned.root.cbor")
    assert flightbag("aircraft", "enrol", desk / "state", "--id", "uav-07", "--host", "cpu", *root).status == 0
    read("time.md", desk, **{"2026-11-23T06:00:00Z": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"})


@pytest.fixture(scope="module")
def example(first: Path) -> tuple[Path, ...]:
    """The files that `flightbag example` wrote there."""
    return tuple(path for path in first.iterdir() if path.suffix in (".mbtiles", ".onnx", ".yaml", ".toml", ".jpg"))


def test_a_first_mission(here: pytest.MonkeyPatch, tmp_path: Path) -> None:
    read("tutorials/first-mission.md", tmp_path)


def test_three_operators(example: tuple[Path, ...], here: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in example:
        shutil.copy(path, tmp_path)
    (tmp_path / "stick-1").mkdir()
    read("tutorials/three-operators.md", tmp_path)
