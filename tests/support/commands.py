"""Run the command line in tests: in this process, which is fast, or as the installed program."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from tools import lines
from tools.program import status_of_run
from tools.start import app, statuses
from tools.streams import flush_streams

BIN = Path(sys.executable).parent
# The fields that every JSON document has, and those of a command that failed.
ENVELOPE = ("schema", "ok", "status", "findings", "error")


@dataclass(frozen=True)
class Ran:
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """The output with one space for each line end and indent: lines are wrapped."""
        return " ".join(self.out.split())

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def own(self) -> dict[str, Any]:
        """The fields of the JSON document that are the command's own."""
        return {name: value for name, value in self.json.items() if name not in ENVELOPE}


def too_wide(ran: Ran, columns: int = 80) -> list[str]:
    """The lines of more columns than this that have more than one word; a command in backquotes is one."""
    lines = (ran.out + ran.err).splitlines()
    return [line for line in lines if len(line) > columns and len(re.sub("`[^`]+`", "`", line).split()) > 1]


@contextmanager
def in_columns(columns: int) -> Iterator[None]:
    """Let what `flightbag` prints in this process have lines of this length."""
    before, lines.PIPED = lines.PIPED, columns
    try:
        yield
    finally:
        lines.PIPED = before


# Where a line breaks depends on the length of the temporary folder's name: in most tests none does.
_UNBROKEN = 10_000


def flightbag(*args: object, env: dict[str, str] | None = None, columns: int = _UNBROKEN) -> Ran:
    """Run `flightbag` in this process, with lines of this many columns."""
    words = [str(arg) for arg in args]
    with CliRunner().isolation(env=env) as (out, err, _), in_columns(columns):
        status = status_of_run(app, words, usage=statuses(words)[0])
        flush_streams()
        texts = [stream.getvalue().decode() for stream in (out, err)]
    return Ran(status, *texts)


def program(name: str, *args: object, **options: Any) -> Ran:
    """Run an installed program of this project in a process of its own."""
    process = subprocess.run([BIN / name, *map(str, args)], capture_output=True, text=True, timeout=300, **options)
    return Ran(process.returncode, process.stdout, process.stderr)


def code_of(*view: object) -> str:
    """The code that a view of something signable prints: the JSON of `show --draft`, `trust show`, `release show`."""
    ran = flightbag(*view, "--json")
    assert ran.status == 0, ran.out + ran.err
    value: dict[str, str] = ran.json["releases"][0] if view[0] == "release" and view[1] == "show" else ran.json
    return value["code" if view[0] == "trust" else "signing_code"]


def listing(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, tuple[str, int, int, bytes]]:
    """Return every path below a folder with its type, mode, mtime and content, except the top-level names `without`."""
    result = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.split("/")[0] not in without:
            status = path.lstat()
            kind = "d" if path.is_dir() else "f"
            result[name] = (kind, status.st_mode, status.st_mtime_ns, b"" if kind == "d" else path.read_bytes())
    return result
