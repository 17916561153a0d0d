"""The start of the program: each command is the same as among all of them, and one that flies loads only what flies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tests.support.stores import NORTH, ROOT_FILE, make_store
from tools import cli
from tools.start import _ALONE, _app_of

WHOLE: Any = get_command(cli.app)
LOADED = """
import atexit, json, os, sys
from tools.start import main
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
sys.argv[0] = "flightbag"
main()
"""


def described(command: Any) -> Any:
    """What a user sees of a command or a group."""
    below = {name: described(one) for name, one in getattr(command, "commands", {}).items()}
    return command.help, [(one.name, one.opts, getattr(one, "help", "")) for one in command.params], below


@pytest.mark.parametrize("name", WHOLE.commands)
def test_a_command_alone_is_the_one_among_all(name: str) -> None:
    alone: Any = get_command(_app_of(name))
    assert list(alone.commands) == [name]
    assert described(alone.commands[name]) == described(WHOLE.commands[name])
    assert (alone.help, alone.name) == (WHOLE.help, WHOLE.name)


@pytest.mark.parametrize("name", ["", "--help", "--version", "verfy", "-v", "keys new", "VERIFY"])
def test_any_other_word_is_answered_by_all_commands(name: str) -> None:
    assert list(get_command(_app_of(name)).commands) == list(WHOLE.commands)  # type: ignore[attr-defined]


def test_verify_loads_what_flies(tmp_path: Path) -> None:
    store, root = make_store(tmp_path / "store", NORTH), tmp_path / "root"
    root.write_bytes(ROOT_FILE)
    command = [sys.executable, "-c", LOADED, "verify", store, "--trust", root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "GO  north-ridge" in done.stdout, done.stderr
    loaded = json.loads(done.stderr.splitlines()[-1])
    ground = ("store.ground", "store.audit", "builders", "lmdb", "filelock", "sqlite3", "numpy", "tools.cli", "rich")
    assert [name for name in loaded if name.startswith(ground)] == ["builders", "builders.extras"]


def test_the_table_names_functions_of_these_commands() -> None:
    assert set(_ALONE) <= set(WHOLE.commands)
