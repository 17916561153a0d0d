"""Desks that more than one test of the command line uses: each is made once, and every test has a copy of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.field import RIGHT, Desk, copy_of


@pytest.fixture(scope="session")
def _first_twice(_first_built: Desk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = copy_of(_first_built, tmp_path_factory.mktemp("twice") / "desk")
    (desk.folder / "camera.yaml").write_text("fx: 800.0\n")
    desk.built(desk.write_mission("left"))
    desk.built(desk.write_mission("right", bbox=RIGHT))
    return desk


@pytest.fixture
def twice(_first_twice: Desk, tmp_path: Path) -> Desk:
    """`left` built, then built again with another camera file; and `right`, which shares cells and the engine."""
    return copy_of(_first_twice, tmp_path / "desk")


@pytest.fixture(scope="session")
def _first_equipped(_first_built: Desk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = copy_of(_first_built, tmp_path_factory.mktemp("equipped") / "desk")
    from tests.support.every_command import equip  # draws pictures, and what flies has no pillow

    equip(desk)
    return desk


@pytest.fixture
def equipped(_first_equipped: Desk, tmp_path: Path) -> Desk:
    """A desk on which every command has something to do (see `every_command`)."""
    return copy_of(_first_equipped, tmp_path / "desk")
