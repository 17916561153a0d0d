"""A full disk is named with its path and a remedy, whichever part of a command meets it first."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import BIN
from tests.support.field import Desk
from tests.support.mounts import need_root

# From a disk that takes no file at all to one on which the build is done.
TEMPORARY = ["4k", "20k", "48k", "80k", "120k", "180k", "64m"]
STORES = ["40k", "100k", "200k", "400k", "800k", "64m"]


def on_small_disk(folder: Path, size: str, *command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command that finds an empty disk of this size at `folder`. It goes with the command."""
    need_root("a mount")
    mount = f'mount -t tmpfs -o size={size},nr_inodes=0 none "$0" && exec "$@"'
    line = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, str(folder), *map(str, command)]
    return subprocess.run(
        line, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}, check=False
    )


@pytest.mark.parametrize("size", TEMPORARY)
def test_temporary_files(desk: Desk, tmp_path: Path, size: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mission = desk.write_mission("left", zooms=(14,))
    command = (BIN / "flightbag", "build", mission, "--store", desk.store, "--key", desk.key, "--json")
    ran = on_small_disk(small, size, *command, TMPDIR=str(small))
    if ran.returncode == 0:
        assert size != TEMPORARY[0]
        return
    assert ran.returncode == 3, ran.stdout + ran.stderr
    assert size != TEMPORARY[-1]
    error = json.loads(ran.stdout)["error"]
    assert error["kind"] == "no-space" or error["errno"] in (28, 122), error
    assert str(small) in error["message"], error
    assert "free some space" in error["remedy"], error
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("size", STORES)
def test_the_store(desk: Desk, tmp_path: Path, size: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mission = desk.write_mission("left", zooms=(14,))
    build = f"{BIN}/flightbag build {mission} --store {small}/ground --key {desk.key} --json"
    ran = on_small_disk(small, size, "sh", "-c", f"cp -r {desk.store} {small}/ground && {build}")
    if "cp: " in ran.stderr:
        pytest.skip("the empty store does not fit")
    if ran.returncode == 0:
        return
    assert ran.returncode == 3, ran.stdout + ran.stderr
    assert size != STORES[-1]
    error = json.loads(ran.stdout)["error"]
    assert error["errno"] in (28, 122), error
    assert str(small) in error["message"], error
    assert "space" in error["remedy"], error
