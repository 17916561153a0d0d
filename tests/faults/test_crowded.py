"""Folders with far more names than a store has: they take little memory, are findings, and what is whole flies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import BIN
from tests.support.missions import ISSUE, flight
from tests.support.stores import ENGINE, ROOT_FILE, file_of, make_store

# It flies at any time.
MISSION = flight(issue=replace(ISSUE, expires_at=None))
# A listing of them takes 40 MB, and 300 MB with a finding for each.
MANY = 300_000
# More than a folder may have, where the memory is not measured.
SOME = 12_000
# What a command may take in bytes beyond what it takes for the same store without them.
MARGIN = 32 * 2**20
SHARD = str(file_of(Path(), MISSION.entry(ENGINE).id).parent)
DRILL = "FLIGHTBAG_DRILL" in os.environ
FOLDERS = (
    *(
        "",
        "missions",
        "trust",
        "trust/releases",
        "drafts",
        "pins",
        "receipts",
        "tmp",
        "trash",
        "quarantine",
        "lock",
        "index",
    ),
    *("objects", SHARD, "objects/AB", "trash/20261123T000000Z", "quarantine/20261123T000000Z"),
)


def crowd(folder: Path, number: int, name: str = "{:064x}") -> None:
    """So many empty files in a folder, and one whose name is no UTF-8."""
    folder.mkdir(parents=True, exist_ok=True)
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for one in range(number):
        os.close(os.open(name.format(one), os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here))
    os.close(os.open(b"\xff\xfe", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here))
    os.close(here)


def run(folder: Path, *words: object) -> tuple[int, dict[str, Any], int]:
    """Run a command: its status, its JSON document, and the most memory that it had, in bytes."""
    out = folder / "out"
    command = [str(BIN / "flightbag"), *map(str, words), "--json"]
    with out.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "HOME": str(folder)})
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    text = out.read_text()
    assert "Traceback" not in text, text[-3000:]
    document, _ = json.JSONDecoder().raw_decode(text, text.index("{\n"))
    return process.returncode, document, usage.ru_maxrss * 1024


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "pinned").write_bytes(ROOT_FILE)
    return make_store(tmp_path / "store", MISSION)


def commands(store: Path) -> dict[str, tuple[object, ...]]:
    root = store.parent / "pinned"
    return {
        "verify": ("verify", store, MISSION.id, "--trust", root),
        "verify all": ("verify", store, "--trust", root),
        "fsck": ("fsck", store, "--full"),
        "fsck --exclusive": ("fsck", store, "--exclusive"),
        "sync": ("sync", store, store.parent / "target", "--mission", MISSION.id),
        "gc": ("gc", store, "--dry-run"),
        "checkout": ("checkout", store, MISSION.id, store.parent / "files", "--trust", root),
    }


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("missions", "m{}"),
        *([("trust", "{}.root.cbor.x"), (SHARD, "{:062x}")] if DRILL else []),
    ],
)
def test_no_listing_takes_the_memory_of_an_aircraft(store: Path, folder: str, name: str) -> None:
    few = {what: run(store.parent, *words) for what, words in commands(store).items()}
    for made in ("target", "files"):
        shutil.rmtree(store.parent / made)
    crowd(store / folder, MANY, name)
    for what, words in commands(store).items():
        status, _, peak = run(store.parent, *words)
        assert peak < few[what][2] + MARGIN, f"{what}: {peak >> 20} MB, {few[what][2] >> 20} MB without them"
        if what in ("verify", "sync", "checkout"):
            assert status == few[what][0] == 0, what
    shutil.rmtree(store)  # pytest keeps folders


@pytest.mark.parametrize("folder", FOLDERS if DRILL else (*FOLDERS[:3], SHARD))
def test_a_crowded_folder_is_a_finding_and_what_is_whole_flies(store: Path, folder: str) -> None:
    crowd(store / folder, 70_000 if folder == SHARD else SOME)
    words = commands(store)
    assert run(store.parent, *words["verify"])[0] == 0
    status, said, _ = run(store.parent, *words["fsck"])
    found = [finding for finding in said["findings"] if finding["kind"] in ("too-many", "stray")]
    # In the folders of what was taken out any names may lie, and in tmp: there they are no errors, and not listed.
    if folder.count("/") == 1 and folder.startswith(("trash", "quarantine")):
        assert (status, found) == (0, [])
    else:
        assert (status, [finding["kind"] for finding in found].count("too-many")) == (4, 1), found[:3]
        assert len(found) <= 10_002
    states = {one["mission"]: one["state"] for one in said["missions"]}
    if folder != "objects/AB":
        assert set(states.values()) == {"flyable"}, states
    assert run(store.parent, *words["sync"])[0] == 0
