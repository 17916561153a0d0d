"""Driving the command line in tests: in this process for speed, or as the installed program."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from tools.cli import app

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def flightbag(*args: object, env: dict[str, str] | None = None) -> Ran:
    """Runs `flightbag` in this process."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], env=env)
    return Ran(result.exit_code, result.stdout, result.stderr)


def program(name: str, *args: object, **options: Any) -> Ran:
    """Runs an installed program of this project in a process of its own."""
    done = subprocess.run([BIN / name, *map(str, args)], capture_output=True, text=True, timeout=300, **options)
    return Ran(done.returncode, done.stdout, done.stderr)


def listing(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, tuple[str, int, int, bytes]]:
    """Every path below a folder with type, mode, mtime and content, top-level names in `without` left out."""
    result = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.split("/")[0] not in without:
            status = path.lstat()
            kind = "d" if path.is_dir() else "f"
            result[name] = (kind, status.st_mode, status.st_mtime_ns, b"" if kind == "d" else path.read_bytes())
    return result
