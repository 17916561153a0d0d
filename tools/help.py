"""The command `help`: commands, pages of the documentation, sections of them, and kinds of findings."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated

import click

from store.errors import FlightbagError, NotFound, instead_of
from tools import pages
from tools.arguments import Json, print_lines
from tools.commands import Commands
from tools.pages import Page, Row
from tools.parameters import Argument
from tools.status import OK, command, print_json

_MOST_COLUMNS = 100
_TOPICS = (
    "Topics are these commands and pages; `environment`, `statuses` and the other sections of the pages; and each kind "
    "of finding that a command prints, such as `unproven`."
)


def _offered(_first: str | None) -> list[str]:
    """Return the topics of one word, for a shell to offer; those of the documentation where it is installed."""
    from tools.start import app  # not above: it has the table in which this module is

    with suppress(FlightbagError):
        return [name for name in _topics(app, pages.read(pages.folder())) if " " not in name]
    return [name for name in _commands(app) if " " not in name]


@command
def run(
    topic: Annotated[
        list[str] | None,
        Argument(
            metavar="TOPIC",
            help="A command, a page such as carrying, a section of one, or a kind of finding.",
            offers=_offered,
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Explain a command, a subject, or a kind of finding: what happened, and what to do.

    Without a topic, list them. Where a command and a page have one name, NAME.md is the page.

    Example: flightbag help unproven
    """
    app = click.get_current_context().find_root().command
    assert isinstance(app, Commands)
    width = min(shutil.get_terminal_size().columns, _MOST_COLUMNS)
    found = pages.read(pages.folder())
    words = [word for given in topic or () for word in given.split()]
    lines = list(_answer(app, found, words, width) if words else _contents(app, found, width))
    if as_json:
        print_json({"topic": " ".join(words), "text": "\n".join(lines)})
    else:
        print_lines(lines)
    return OK


def _answer(app: Commands, found: dict[str, Page], words: list[str], width: int) -> Iterator[str]:
    """Yield what there is of a topic: the command, the kind of finding, else the page, else the section."""
    topic = " ".join(words)
    page = found.get(topic.removesuffix(".md").rpartition("/")[2])
    if page is not None and topic.endswith(".md"):
        yield from pages.rendered(page.text, width)
        return
    kinds = pages.rows_of(found["audit"])
    helps, rows = _command(app, words), kinds.get(topic, [])
    if helps is not None:
        yield from helps.split("\n")
    if rows:
        yield from ("" for _ in range(helps is not None))
        yield from _kind(topic, rows, width)
    if page is not None and not (helps or rows):
        yield from pages.rendered(page.text, width)
    elif page is not None:
        yield from ("", f"page: flightbag help {page.name}.md")
    if helps or rows or page:
        return
    slugs = {name: (one, text) for one in found.values() for name, text in pages.sections(one).items()}
    if (name := pages.slug(topic)) in slugs:
        one, text = slugs[name]
        yield from pages.rendered(text, width)
        yield f"from the page: flightbag help {one.name}.md"
        return
    names = _topics(app, found)
    text = f"the topic {topic[:80]!r} does not exist"
    raise NotFound(text, remedy=f"{instead_of(topic, names)}; `flightbag help` lists them", kind="missing")


def _topics(app: Commands, found: dict[str, Page]) -> list[str]:
    return [*_commands(app), *found, *pages.rows_of(found["audit"]), "statuses", "environment"]


def _command(app: Commands, words: list[str]) -> str | None:
    """Return the help of a command, None for words that name none."""
    context = click.Context(app, info_name="flightbag", **app.context_settings)
    one: click.Command = app
    for word in words:
        child = one.get_command(context, word) if isinstance(one, Commands) else None
        if child is None:
            return None
        context = click.Context(child, info_name=word, parent=context, **child.context_settings)
        one = child
    return one.get_help(context)


def _commands(app: Commands, above: str = "") -> Iterator[str]:
    context = click.Context(app)
    for name in app.list_commands(context):
        yield above + name
        if (child := app.subgroup(name)) is not None:
            yield from _commands(child, f"{above}{name} ")


def _kind(kind: str, rows: list[Row], width: int) -> Iterator[str]:
    yield f"{kind}, a kind of finding"
    for row in rows:
        yield from pages.rendered(f"### {row.section}", width)
        (_, named), *others = row.cells
        # Several kinds may share a row.
        cells = [("kinds", named), *others] if named != f"`{kind}`" else others
        yield from pages.rendered("\n".join(f"- {column}: {cell}" for column, cell in cells), width)
        yield ""
    yield "page: flightbag help audit.md"


def _contents(app: Commands, found: dict[str, Page], width: int) -> Iterator[str]:
    yield from app.get_help(click.Context(app, info_name="flightbag", **app.context_settings)).split("\n")
    yield from ("", "Pages:")
    longest = max(map(len, found))
    for page in found.values():
        yield f"  {page.name.ljust(longest)}  {page.title}"
    yield ""
    yield from pages.rendered(_TOPICS, width)
