"""The small files that travel: their names and bounds."""

from __future__ import annotations

import doctest

import pytest

from store.disk.layout import PINS, SMALL_FILES
from store.remotes import small_files
from store.remotes.small_files import BY_FOLDER, limit_of


def test_examples() -> None:
    assert doctest.testmod(small_files).failed == 0


def test_every_folder_of_small_files_but_the_pins_travels() -> None:
    assert {*BY_FOLDER} == {*SMALL_FILES} - {PINS}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/flightbag.toml",
        "missions/flightbag.toml",
        "/missions/north",
        "log",
        "missions",
        "missions/",
        "missions/North",
        "north/missions/north",
        "missions/north.mission",
        "missions/north\n",
        "trust/releases/winter",
        "trust/01.root.cbor",
        "orders/north",
        f"receipts/{'A' * 64}",
        "withdrawn/north",
        "objects/ab",
    ],
)
def test_no_other_name_travels(name: str) -> None:
    assert limit_of(name) is None
