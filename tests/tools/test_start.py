"""The start of the program: its table is whole, and a command loads what it needs and nothing else."""

from __future__ import annotations

import re
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
from tests.support.commands import flightbag, too_wide
from tests.support.every_command import commands
from tests.support.missions import flight
from tests.support.release import REPOSITORY
from tests.support.stores import NORTH, ROOT_FILE, make_store
from tools.commands import Commands, first_sentence
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
    names = app.list_commands(context)
    shown = flightbag("--help", columns=80).out
    assert re.findall(r"^  ([a-z-]+)  ", shown.partition("First use:")[2], re.MULTILINE) == names
    assert [one for one in ("doctor", "plan", "keys", "sync", "aircraft", "ls", "fsck") if one in names] == re.findall(
        r"^[A-Z][a-z ]+:\n  ([a-z-]+)  ", shown.partition("Options:")[2], re.MULTILINE
    )


@pytest.mark.parametrize("group", [(), ("trust",), ("aircraft",)])
def test_the_list_of_a_group_has_the_whole_first_sentence_of_each_command(group: tuple[str, ...]) -> None:
    ran = flightbag(*group, "--help", columns=80)
    for name, one in commands(app):
        if name.split()[:-1] == list(group):
            assert first_sentence(one) in ran.words.replace("self- retrieval", "self-retrieval")
    assert too_wide(ran) == []
    assert "..." not in ran.out.partition("ARGS]...")[2]


def test_every_command_of_the_table_can_be_loaded() -> None:
    assert {name: one.name for name, one in commands(app)} == {name: name.split()[-1] for name, _ in commands(app)}


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("verfy",), "`flightbag` has no command verfy -> give verify or query see `flightbag -h`"),
        (("keys", "nwe"), "`flightbag keys` has no command nwe -> give new see `flightbag keys -h`"),
        (("VERIFY",), "has no command VERIFY -> usage: flightbag [OPTIONS] COMMAND [ARGS]... see `flightbag -h`"),
        (("-x",), "`flightbag` has no option -x -> usage:"),
        (("-v",), "missing command -> usage:"),
        (("verify", "--trsut", "x"), "`flightbag verify` has no option --trsut -> give --trust or --host see"),
        (("show",), "MISSION is missing -> usage: flightbag show [OPTIONS] [STORE] MISSION see `flightbag show -h`"),
        (("ls", "a", "b", "c"), "got unexpected extra arguments (b c) -> usage: flightbag ls [OPTIONS] [STORE] see"),
        (("gc", "a", "--keep-last", "0"), "--keep-last: 0 is not in the range x>=1 -> usage: flightbag gc"),
        (("pack", "a", "-o"), "option '-o' requires an argument -> usage: flightbag pack"),
        (("fsck", "--ful"), "`flightbag fsck` has no option --ful -> give --full see `flightbag fsck -h`"),
    ],
)
def test_a_slip_is_answered_with_what_there_is(words: tuple[str, ...], answer: str) -> None:
    ran = flightbag(*words, columns=80)
    assert (ran.status, ran.out) == (16 if words[0] == "fsck" else 2, "")
    assert " ".join(ran.err.split()).startswith("flightbag: ")
    assert answer in " ".join(ran.err.split())
    assert too_wide(ran) == []


@pytest.mark.parametrize("words", [(), ("keys",)])
def test_a_group_without_a_command_shows_its_help(words: tuple[str, ...]) -> None:
    ran = flightbag(*words)
    assert (ran.status, "Commands:" in ran.err or "First use:" in ran.err) == (2, True)


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
