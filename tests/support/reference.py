"""What is made from the program: docs/commands.md and the manual pages from its commands and its exit statuses,
docs/mission-file.md from the schema, docs/json.md from the fields that the tests hold every JSON document to.

python -m tests.support.reference    writes all of it again
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from builders.example.files import RIDGE, mission_text
from builders.mission.schema import MissionFile
from tests.support.documents import FIELDS, MORE, Field
from tests.support.every_command import STORE_FSCK
from tests.support.every_command import commands as every_one
from tests.support.man import manual
from tests.support.release import REPOSITORY
from tools import fsck, status
from tools.commands import first_sentence
from tools.start import app

MARK = "<!-- `make reference` writes what follows from the program; a test compares. -->\n"


def commands() -> str:
    """A table of all commands, and the help of each."""
    pages = [(name, *_help(name, command)) for name, command in sorted(every_one(app))]
    table = "".join(f"| [`{name}`](#{_anchor(name)}) | {_cell(first)} |\n" for name, first, _ in pages)
    body = "".join(f"\n## {name}\n\n```text\n{text.rstrip()}\n```\n" for name, _, text in pages)
    return f"{_statuses()}\n## All commands\n\n| command | what it does |\n| --- | --- |\n{table}{body}"


def _statuses() -> str:
    """The exit statuses of the commands, and those of an audit."""
    ours, audits = (
        "| status | meaning |\n| --- | --- |\n" + "".join(f"| {number} | {text} |\n" for number, text in table.items())
        for table in (status.MEANINGS, fsck.MEANINGS)
    )
    return (
        f"\n## Statuses\n\n{ours}\n`fsck` and `store-fsck`, which are the same, have the bits of fsck(8), "
        f"which add up: 12 is 4 and 8.\n\n{audits}"
    )


def documents() -> str:
    """The fields of the JSON document of each command, a table for those that have the same."""
    names: dict[tuple[Field, ...], list[str]] = {}
    for name in sorted(FIELDS.keys() - {STORE_FSCK}):
        names.setdefault(FIELDS[name], []).append(name)
    return "".join(f"\n## {', '.join(those)}\n\n{_table(own)}" for own, those in names.items())


def _table(own: tuple[Field, ...]) -> str:
    rows = "".join(f"| `{one.name}`{'?' * one.optional} | {_value(one)} | {_cell(one.about)} |\n" for one in own)
    return f"| field | value | what it says |\n| --- | --- | --- |\n{rows}"


def _value(one: Field) -> str:
    if not one.row:
        return one.value
    names = (name if name == MORE else f"`{name.rstrip('?')}`{'?' * name.endswith('?')}" for name in one.row)
    return f"objects: {', '.join(names)}"


def _help(name: str, command: click.Command) -> tuple[str, str]:
    """The first sentence of the help of a command, and all of it as the program prints it."""
    settings: dict[str, Any] = dict(command.context_settings)
    context = click.Context(command, info_name=f"flightbag {name}", terminal_width=80, max_content_width=80, **settings)
    return first_sentence(command), command.get_help(context)


def mission_file() -> str:
    """An example, and the keys of each table."""
    example = mission_text("ridge", RIDGE)
    head = f"\n## An example\n\n`flightbag example` writes this one:\n\n```toml\n{example}```\n"
    return head + "".join(_tables(MissionFile, ""))


def _tables(model: type[BaseModel], within: str) -> Iterator[str]:
    """A section for each table of a model: what it is, its keys, then the tables in it."""
    for key, field in model.model_fields.items():
        inner = _models(field.annotation)
        if not inner:
            continue
        title = _title(key, field, within)
        rows = [
            f"| `{name}` | {_cell(one.description or '')} | {_default(one)} |\n" for name, one in _keys(inner).items()
        ]
        about = " ".join(inspect.cleandoc(inner[0].__doc__ or "").split())
        yield f"\n## {title}\n\n{about}\n\n| key | value | if absent |\n| --- | --- | --- |\n{''.join(rows)}"
        for one in inner:
            yield from _tables(one, f"{within}.{key}".lstrip("."))


def _keys(models: list[type[BaseModel]]) -> dict[str, FieldInfo]:
    return {name: field for model in models for name, field in model.model_fields.items()}


def _title(key: str, field: FieldInfo, within: str) -> str:
    if within:
        return f"{key} in {within}"
    return f"[[{key}]]" if _has(field.annotation, tuple) else f"[{key}]"


def _has(annotation: Any, origin: type) -> bool:
    return typing.get_origin(annotation) is origin or any(_has(one, origin) for one in typing.get_args(annotation))


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The tables that a value may be."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for one in typing.get_args(annotation) for model in _models(one)]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None or isinstance(value, (BaseModel, Mapping)) or value in ((), ""):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


MAN = REPOSITORY / "docs" / "man"
PAGES = {
    Path("docs/commands.md"): commands,
    Path("docs/json.md"): documents,
    Path("docs/mission-file.md"): mission_file,
}


def page(path: Path) -> str:
    """The text that a page should have: its own down to the mark, then what the program says."""
    by_hand, mark, _ = (REPOSITORY / path).read_text().partition(MARK)
    return by_hand + mark + PAGES[path]()


def main() -> None:
    for path in PAGES:
        (REPOSITORY / path).write_text(page(path))
    MAN.mkdir(exist_ok=True)
    for stale in MAN.glob("*.1"):
        stale.unlink()
    for name, text in manual().items():
        (MAN / name).write_text(text)


if __name__ == "__main__":
    main()
