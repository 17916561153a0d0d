"""Files that nobody would give on purpose, in the place of each file that a command reads: an answer, and no more.

None of them is waited for, read beyond its bound, or printed as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.commands import flightbag
from tests.support.field import Desk

CONTROLS = "\x1b[31m\x07\u202e\u2066[red]<b>"
KINDS: Mapping[str, Callable[[Path], object]] = {
    "a pipe that nobody writes": os.mkfifo,
    "a device without an end": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a folder": Path.mkdir,
    "8 GiB of zeros": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**33),
    "nothing": Path.touch,
    "a line of a megabyte": lambda path: path.write_text("name: " + "a" * 2**20 + "\n"),
    "lists in lists": lambda path: path.write_text("[" * 200_000),
    "a number of 5,000 digits": lambda path: path.write_text(f'{{"version": {"9" * 5000}}}'),
    "a number of 400 digits": lambda path: path.write_text(f"version = {10**400}\n"),
    "three million numbers": lambda path: path.write_text(f"a = [{'1,' * 3_000_000}]\n"),
    "a name of control characters": lambda path: path.write_text(f"name: {CONTROLS}\n-----BEGIN PUBLIC KEY-----\n"),
}


def commands(desk: Desk, file: Path) -> Mapping[str, tuple[object, ...]]:
    """Each command that reads a file from outside, with this one in its place; `unpack` also reads pipes, and waits."""
    store, owner = desk.store, desk.folder / "owner.key"
    report = ("report", store, "left", "-o", desk.folder / "r.html")
    return {
        "keys show": ("keys", "show", file),
        "trust add-key": ("trust", "add-key", store, desk.folder / "draft", "mission", file),
        "trust show": ("trust", "show", file),
        "trust sign": ("trust", "sign", file, "--key", owner),
        "new, imagery": ("new", desk.folder / "n.toml", "--imagery", file, "--model", desk.folder / "embedder.onnx"),
        "new, model": ("new", desk.folder / "n.toml", "--imagery", desk.folder / "terrain.mbtiles", "--model", file),
        "plan": ("plan", file, "--store", store),
        "report, fleet": (*report, "--fleet", file),
        "report, trust": (*report, "--trust", file),
        "report, state": (*report, "--state", file),
        "report, tiles": (*report, "--tiles", file),
        "report, store": ("report", file, "-o", desk.folder / "s.html"),
        "receipts": ("receipts", store, "--fleet", file),
        "doctor": ("doctor", file),
        "verify": ("verify", store, "--trust", file),
        "query": ("query", store, "left", file, "--trust", desk.root),
        "aircraft show": ("aircraft", "show", "--state", file),
        "check-proof": ("check-proof", file, file, "--trust", desk.root),
        "release show": ("release", "show", file),
    }


@pytest.fixture(scope="module")
def one_desk(_first_built: Desk) -> Desk:
    """Nothing is changed on it."""
    return _first_built


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_answers(kind: str, one_desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / (CONTROLS if kind == "a name of control characters" else "file").replace("/", "")
    KINDS[kind](file)
    for name, words in commands(one_desk, file).items():
        ran = flightbag(*words)
        told = ran.out + ran.err
        no_aircraft = kind == "nothing" and "--fleet" in words
        assert ran.status in ((0,) if no_aircraft else (1, 2, 3)), (name, ran)
        assert "Usage:" not in told, (name, told)
        assert all(letter == "\n" or letter.isprintable() for letter in told), (name, told)
        assert 0 < len(told) < 2000, (name, len(told))
