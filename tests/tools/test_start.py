"""The start of the program: its table is whole, and a command loads what it needs and nothing else."""

from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tools
from tests.support.commands import flightbag
from tests.support.every_command import commands
from tests.support.missions import flight
from tests.support.release import REPOSITORY
from tests.support.stores import NORTH, ROOT_FILE, make_store
from tools.commands import Commands
from tools.start import app

LOADED = """
import atexit, os, sys
from tools.start import main
atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))
sys.argv[0] = "flightbag"
main()
"""
# What no crew waits for: parts of the ground, and libraries that load slowly.
GROUND = ("store.audit", "store.ground", "store.remotes", "builders.", "tools.cli", "lmdb", "filelock", "sqlite3")
SLOW = (
    "asyncio",
    "email",
    "importlib.metadata",
    "numpy",
    "pydantic",
    "rich",
    "subprocess",
    "tempfile",
    "typer",
    "yaml",
)
# Besides Flightbag itself.
MOST_PACKAGES = 13


def loaded(*args: object) -> tuple[str, list[str]]:
    """What a command prints in a process of its own, and the modules that are loaded at its end."""
    command = [sys.executable, "-c", LOADED, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    modules = done.stderr.splitlines()[-1].split()
    return done.stdout, modules


def of(modules: list[str], *names: str) -> list[str]:
    return [one for one in modules if one.startswith(names)]


@pytest.fixture
def verify(tmp_path: Path) -> tuple[object, ...]:
    issue, now = NORTH.manifest.issue, int(time.time())
    fresh = flight(issue=replace(issue, issued_at=now - 60, expires_at=now + 600))
    store, root = make_store(tmp_path / "store", fresh), tmp_path / "root"
    root.write_bytes(ROOT_FILE)
    return "verify", store, "--trust", root


def test_verify_loads_what_flies(verify: tuple[object, ...]) -> None:
    printed, modules = loaded(*verify)
    assert "\nGO  north-ridge" in printed
    assert of(modules, *GROUND, *SLOW, "tempfile", "concurrent", "ctypes") == ["builders.extras"]


def test_the_version_loads_neither_a_command_nor_a_store() -> None:
    printed, modules = loaded("--version")
    assert printed == f"flightbag {tools.__version__}\n"
    assert of(modules, *GROUND, *SLOW, "store.", "cryptography", "cbor2", "blake3", "json", "pathlib") == [
        "store.errors"
    ]


def test_a_sync_loads_no_check_of_a_takeoff_and_no_key(tmp_path: Path) -> None:
    _, modules = loaded("sync", make_store(tmp_path / "store", NORTH), tmp_path / "copy")
    assert of(modules, "store.audit", "store.remotes.ssh", "store.remotes.bucket", "builders.", *SLOW, "socket") == []


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert tools.__version__ == project["version"]


def test_a_group_is_listed_in_the_order_of_its_table() -> None:
    context = click.Context(app)
    first = ["doctor", "init", "new", "plan", "build"]
    assert [name for name in app.list_commands(context) if name in first] == first
    shown = flightbag("--help").out
    assert [shown.index(f"  {name} ") for name in ("init", "plan", "verify", "keys")] == sorted(
        shown.index(f"  {name} ") for name in ("init", "plan", "verify", "keys")
    )


def test_every_command_of_the_table_can_be_loaded() -> None:
    assert {name: one.name for name, one in commands(app)} == {name: name.split()[-1] for name, _ in commands(app)}


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("verfy",), "'verify'"),
        (("keys", "nwe"), "'new'"),
        (("VERIFY",), "No such command 'VERIFY'"),
        (("-v",), "No such option '-v'"),
        (("verify", "--trsut", "x"), "'--trust'"),
    ],
)
def test_a_slip_is_answered_with_what_there_is(words: tuple[str, ...], answer: str) -> None:
    ran = flightbag(*words)
    assert (ran.status, answer in ran.err) == (2, True), ran.err


@pytest.mark.parametrize("words", [(), ("keys",)])
def test_a_group_without_a_command_shows_its_help(words: tuple[str, ...]) -> None:
    ran = flightbag(*words)
    assert (ran.status, "Commands:" in ran.err) == (2, True)


def test_no_two_groups_share_their_commands() -> None:
    groups = [one for one in app.commands.values() if isinstance(one, Commands)]
    assert len({id(one.commands) for one in groups}) == len(groups)


def test_the_base_install_is_small() -> None:
    """Counted over the requirements of the installed packages: what pip brings with `pip install flightbag`."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    packages: set[str] = set()
    wanted = [Requirement(one) for one in project["dependencies"]]
    while wanted:
        one = wanted.pop()
        name = canonicalize_name(one.name)
        if name in packages or (one.marker is not None and not one.marker.evaluate({"extra": ""})):
            continue
        packages.add(name)
        wanted += map(Requirement, metadata.requires(name) or ())
    assert len(packages) <= MOST_PACKAGES, sorted(packages)
    assert not packages & {"pydantic", "typer", "numpy"}
