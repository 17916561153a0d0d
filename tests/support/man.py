"""The manual pages, made from the program: `docs/man/flightbag.1`, one page a command, and `store-fsck.1`.

`make reference` writes them. The macros are those of man(7), which mandoc and groff both read.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator

import click

import tools
from tests.support.every_command import STORE_FSCK
from tests.support.every_command import commands as every_one
from tests.support.release import REPOSITORY
from tools import fsck, pages, status
from tools.commands import first_sentence
from tools.start import app

_EXAMPLE = "Example: "
# Characters that roff reads as its own, or prints as others than those that a shell takes.
_ROFF = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "~": "\\(ti", "^": "\\(ha", "`": "\\(ga"}
_CODE = re.compile(r"`([^`]+)`")


def manual() -> dict[str, str]:
    """Return the text of every page by the name of its file."""
    commands = sorted(every_one(app))
    found = {"flightbag.1": _overview(commands)}
    for name, command in commands:
        found[f"{_file(name)}.1"] = _page(_file(name), f"flightbag {name}", command)
    return {**found, f"{STORE_FSCK}.1": _page(STORE_FSCK, STORE_FSCK, dict(commands)["fsck"])}


def _file(name: str) -> str:
    """Return the name of the page of a command."""
    return f"flightbag-{name.replace(' ', '-')}"


def escaped(text: str) -> str:
    """Return a line of text as roff prints it, character by character; no line of it is a request.

    >>> print(escaped(".so it's a-b \\\\ ü"))
    \\&.so it\\(aqs a\\-b \\e \\[u00FC]
    """
    text = "".join(_ROFF.get(one, one) if one.isascii() else f"\\[u{ord(one):04X}]" for one in text)
    return f"\\&{text}" if text.startswith(".") else text


def _prose(text: str) -> str:
    """Return a paragraph, with what stands in backquotes in bold."""
    parts = _CODE.split(" ".join(text.split()))
    line = "".join(f"\\fB{escaped(part)}\\fR" if number % 2 else escaped(part) for number, part in enumerate(parts))
    return f"\\&{line}" if line.startswith(".") else line


def _title(name: str) -> str:
    released = re.search(r"^## \S+ \((\d{4}-\d{2}-\d{2})\)$", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    date = released[1] if released else ""
    return f'.TH "{escaped(name.upper())}" 1 "{date}" "Flightbag {tools.__version__}" "Flightbag"'


def _section(title: str, paragraphs: Iterable[str]) -> Iterator[str]:
    for number, paragraph in enumerate(paragraphs):
        yield ".PP" if number else f".SH {title}"
        yield paragraph


def _definitions(title: str, items: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a section of terms and what they are. A term is printed in bold."""
    for number, (term, text) in enumerate(items):
        if not number:
            yield f".SH {title}"
        yield from (".TP", f"\\fB{escaped(term)}\\fR", _prose(text))


def _page(file: str, typed: str, command: click.Command) -> str:
    """Return the page of a command that is called by what is `typed`."""
    context = click.Context(command, info_name=typed, **command.context_settings)
    texts = inspect.cleandoc(command.help or "").split("\n\n")
    examples = [" ".join(text.removeprefix(_EXAMPLE).split()) for text in texts if text.startswith(_EXAMPLE)]
    records = [
        (one, record) for one in command.get_params(context) if (record := one.get_help_record(context)) is not None
    ]
    arguments = [record for one, record in records if isinstance(one, click.Argument)]
    options = [record for one, record in records if isinstance(one, click.Option)]
    synopsis = " ".join(command.collect_usage_pieces(context))
    lines = [
        _title(file),
        ".SH NAME",
        f"{escaped(file)} \\- {_prose(first_sentence(command).rstrip('.'))}",
        *_section("SYNOPSIS", [f"\\fB{escaped(typed)}\\fR {escaped(synopsis)}"]),
        *_section("DESCRIPTION", [_prose(text) for text in texts if not text.startswith(_EXAMPLE)]),
        *_definitions("ARGUMENTS", arguments),
        *_definitions("OPTIONS", options),
        *_statuses(is_fsck=command.name == "fsck"),
        *([".SH EXAMPLE", ".nf", *map(escaped, examples), ".fi"] if examples else []),
        *_see_also(),
    ]
    return "\n".join(lines) + "\n"


def _overview(commands: list[tuple[str, click.Command]]) -> str:
    texts = inspect.cleandoc(app.help or "").split("\n\n")
    items = [(f"{_file(name)}(1)", first_sentence(one)) for name, one in commands]
    lines = [
        _title("flightbag"),
        ".SH NAME",
        f"flightbag \\- {_prose(texts[0]).rstrip('.')}",
        *_section("SYNOPSIS", ["\\fBflightbag\\fR COMMAND [OPTIONS] [ARGUMENTS]"]),
        *_section(
            "DESCRIPTION",
            [_prose(texts[0]), _prose("`flightbag help TOPIC` explains a command, a subject or a finding.")],
        ),
        *_definitions("COMMANDS", items),
        *_definitions("ENVIRONMENT", _environment()),
        *_statuses(is_fsck=False),
        *_see_also(),
    ]
    return "\n".join(lines) + "\n"


def _see_also() -> Iterator[str]:
    yield from _section("SEE ALSO", ["\\fBflightbag\\fR(1), \\fBflightbag help\\fR"])


def _statuses(*, is_fsck: bool) -> Iterator[str]:
    meanings = fsck.MEANINGS if is_fsck else status.MEANINGS
    yield from _definitions("EXIT STATUS", [(str(one), meaning) for one, meaning in meanings.items()])
    if is_fsck:
        yield from (".PP", "The first five are bits, which add up: 12 is 4 and 8.")


def _environment() -> Iterator[tuple[str, str]]:
    """Yield the variables of the section Environment of docs/commands.md, and what each means."""
    page = pages.read(REPOSITORY / "docs")["commands"]
    for line in pages.sections(page)["environment"].split("\n"):
        if match := re.fullmatch(r"\| `([A-Z_]+)` \| (.+) \|", line):
            yield match[1], pages.plain(match[2])
