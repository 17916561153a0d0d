"""The pages that users read, and the fenced blocks in them, run as a reader would.

A block is run by its language: `console` (commands, after `$` or the name of a machine and `$`), `python`, `toml` (a
part of a mission file). `text` is output or a drawing. The comment of a command stands behind it or above it. A command
whose comment has the word NO-GO says so and ends with 1, one whose comment says `status N` ends with N, any other
with 0.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from builders.example.files import RIDGE, mission_text
from builders.mission.schema import MissionFile
from tests.support.commands import BIN, code_of, flightbag
from tests.support.release import REPOSITORY

PAGES = (
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "store/decisions/README.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
)
LANGUAGES = ("console", "python", "toml", "text", "mermaid")
_FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_PROMPT = re.compile(r"(?:([a-z]+)\$|\$) +(.*)", re.DOTALL)
# What a shell does with a line; other lines run in this process.
_SHELL = re.compile(r"[|<>;&`*$]")
_LOOP = re.compile(r"for ([a-z]+) in ([^;]*); do ([^;]*); done")
# Makes this machine the one that a prompt names.
Machine = Callable[[str], AbstractContextManager[Any]]
PROGRAMS = {"flightbag": (), "store-fsck": ("fsck",)}


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its fence, its language and its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


@dataclass(frozen=True)
class Step:
    """A command line: the machine that its prompt names, "" for none, the status it ends with, what it then says."""

    block: Block
    machine: str
    line: str
    status: int
    says: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [Block(page, text.count("\n", 0, match.start()) + 1, match[2], match[3]) for match in _FENCE.finditer(text)]


def steps(block: Block) -> Iterator[Step]:
    """The command lines of a console block. A prompt may be left out in a block that has none."""
    above = ""
    for given in block.text.replace("\\\n", " ").splitlines():
        line, _, beside = (part.strip() for part in re.sub(r"(^|\s)#", "\0", given, count=1).partition("\0"))
        comment = f"{above} {beside}".strip()
        above = "" if line else comment
        if line:
            match = _PROMPT.fullmatch(line)
            said = re.search(r"status (\d+)", comment)
            says = "NO-GO" if "NO-GO" in comment else ""
            status = int(said[1]) if said else int(bool(says))
            yield Step(block, (match[1] or "") if match else "", match[2] if match else line, status, says)


@dataclass
class Reader:
    """Somebody who types what a page says, in the current folder. `places` are names of the page that are others here.

    A person who makes a key types a passphrase, and who signs types a code; this one gives `--no-passphrase` and
    `--expect`, with the code that the view of what is signed prints.
    """

    places: Mapping[str, str] = field(default_factory=dict)
    # Programs of a page that are not run, each with what is checked in their place.
    elsewhere: Mapping[str, Any] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=dict)
    machine: Machine = nullcontext

    def here(self, text: str) -> str:
        for word, place in self.places.items():
            text = text.replace(word, place)
        return text

    def read(self, page: Path) -> None:
        """Run every block of a page, in its order."""
        for block in blocks(page):
            self.run(block)

    def run(self, block: Block) -> None:
        if block.language == "console":
            for step in steps(block):
                self.type(step)
        elif block.language == "python":
            exec(compile(self.here(block.text), str(block), "exec"), self.names)
        elif block.language == "toml":
            self.check(tomllib.loads(block.text, parse_float=Decimal))
        else:
            assert block.language in LANGUAGES, f"{block}: a block needs one of the languages {', '.join(LANGUAGES)}"

    def check(self, part: dict[str, Any]) -> None:
        """A part of a mission file fits into the example."""
        whole = tomllib.loads(mission_text("ridge", RIDGE), parse_float=Decimal)
        for name, given in part.items():
            match whole.get(name), given:
                case [dict(), *_] as tables, [one] if isinstance(tables, list):
                    tables[0] |= one
                case dict() as table, dict():
                    table |= given
                case _:
                    whole[name] = given
        MissionFile.model_validate(whole, context={"folder": REPOSITORY})

    def type(self, step: Step) -> None:
        line = self.here(step.line)
        if loop := _LOOP.fullmatch(line):
            each = (loop[3].replace(f"${loop[1]}", word) for word in loop[2].split())
        else:
            each = line.split(" && ")
        for one in each:
            with self.machine(step.machine):
                self._type(step, one)

    def _type(self, step: Step, line: str) -> None:
        program, *args = shlex.split(line)
        if program == "cd":
            os.chdir(args[0])
        elif program in self.elsewhere:
            self.elsewhere[program](args)
        elif program in PROGRAMS and not _SHELL.search(line):
            ran = flightbag(*PROGRAMS[program], *self.typed(args))
            said = f"{step.block}: {line}\n{ran.out}{ran.err}"
            assert ran.status == step.status, said
            assert step.says in ran.out, said
        else:
            done = subprocess.run(
                ["/bin/sh", "-ec", f'PATH="{BIN}:$PATH"\n{line}'], capture_output=True, text=True, timeout=120
            )
            assert done.returncode == step.status, f"{step.block}: {line}\n{done.stdout}{done.stderr}"

    def typed(self, args: list[str]) -> list[str]:
        """The arguments, with what the person is asked for at the terminal."""
        if args[:2] == ["keys", "new"]:
            return [*args, "--no-passphrase"]
        view = self.view(args)
        return [*args, "--expect", code_of(*view)] if view and "--expect" not in args else args

    def view(self, args: list[str]) -> list[str]:
        """The command that shows what these arguments sign; none where nothing is asked."""
        match args:
            case ["sign", store, mission, *_]:
                return ["show", store, mission, "--draft"]
            case ["trust", "sign", draft, *_]:
                return ["trust", "show", draft]
            case ["trust", "rotate", _, draft, *more] if "--dry-run" not in more:
                return ["trust", "show", draft]
            case ["release", "sign", _, file, *_]:
                return ["release", "show", file]
            case ["withdraw", store, mission, "--key", *_]:
                return ["withdraw", store, mission]
        return []
