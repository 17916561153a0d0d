"""The pages of the documentation, as a terminal shows them. Pure but for `folder` and `read`.

Markdown is taken apart as far as the pages use it: headings, paragraphs, lists, tables and fenced blocks. A row of a
table becomes a paragraph of its own, because a terminal is narrower than a table.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from store.errors import Unavailable
from store.values import dataclass

_HEADING = re.compile(r"(#{1,4}) +(.+)")
_FENCE = re.compile(r"\s*```")
_ITEM = re.compile(r"( *)([-*]|\d+\.) +(.*)")
_RULE = re.compile(r"\|[ :|-]+\|")
_CELL = re.compile(r"(?<!\\)\|")
_LINK = re.compile(r"!?\[([^\]]*)\]\(([^)\s]*)\)")
_STRONG = re.compile(r"\*\*([^*]+)\*\*|(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_KIND = re.compile(r"`([a-z][a-z-]*)`")


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its name (`carrying`), its title, and its text as Markdown."""

    name: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table: the title of the section and of the paragraph above it, and (column, cell) of each cell."""

    section: str
    cells: tuple[tuple[str, str], ...]


def folder() -> Path:
    """Return the folder of the pages: in an installed package beside this module, else in the sources above it. Raise
    Unavailable where they are in neither."""
    here = Path(__file__).parent
    for one in (here / "docs", here.parent / "docs"):
        if (one / "concepts.md").is_file():
            return one
    text = "the pages of the documentation are not installed with this program"
    raise Unavailable(text, remedy="install it again; `flightbag COMMAND --help` works without them")


def read(top: Path) -> dict[str, Page]:
    """Return the pages of a folder by name."""
    pages = {}
    for path in sorted([*top.glob("*.md"), *top.glob("tutorials/*.md")]):
        text = path.read_text(encoding="utf-8")
        title = next((match[2] for line in text.split("\n") if (match := _HEADING.fullmatch(line))), path.stem)
        pages[path.stem] = Page(path.stem, plain(title), text)
    return pages


def slug(title: str) -> str:
    """Return the topic of a heading: its words in lower case, with hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", plain(title).lower()).strip("-")


def sections(page: Page) -> dict[str, str]:
    """Return the sections of a page by their topics, each with its heading."""
    found: dict[str, str] = {}
    current, fenced = "", False
    for line in page.text.split("\n"):
        fenced ^= _FENCE.match(line) is not None
        match = None if fenced else _HEADING.fullmatch(line)
        if match and len(match[1]) == 2:
            current = slug(match[2])
            found[current] = ""
        if current:
            found[current] += f"{line}\n"
    return found


def rows_of(page: Page) -> dict[str, list[Row]]:
    """Return the table rows of a page by each word in backquotes in their first cell: of audit.md, the kinds."""
    found: dict[str, list[Row]] = {}
    section = above = ""
    head: Sequence[str] = ()
    for line in page.text.split("\n"):
        if match := _HEADING.fullmatch(line):
            section, above = plain(match[2]), ""
        elif line.startswith("**"):
            above = plain(line)
        if not line.startswith("|"):
            head = ()
        elif not head:
            head = _cells(line)
        elif not _RULE.fullmatch(line):
            cells = _cells(line)
            pairs = tuple((column, cell) for column, cell in zip(head, cells, strict=False) if cell)
            where = f"{section}: {above}" if above else section
            for kind in _KIND.findall(cells[0]):
                found.setdefault(kind, []).append(Row(where, pairs))
    return found


def rendered(text: str, width: int) -> Iterator[str]:
    """Yield the lines of a page or of a part of one, at most `width` columns where words and commands allow it."""
    lines = iter(_COMMENT.sub("", text).split("\n"))
    paragraph: list[str] = []
    indent, rest, blank = "", "", True
    head: tuple[str, ...] = ()

    def flush() -> Iterator[str]:
        if paragraph:
            yield from _wrapped(" ".join(paragraph), width, indent, rest)
            paragraph.clear()

    for line in lines:
        if _FENCE.match(line):
            yield from flush()
            for inner in lines:
                if _FENCE.match(inner):
                    break
                yield f"    {inner}".rstrip()
            blank = False
        elif match := _HEADING.fullmatch(line):
            yield from flush()
            title = plain(match[2])
            yield from ("" for _ in range(not blank))
            yield from _wrapped(title.upper() if len(match[1]) < 3 else title, width, "", "")
            blank = False
        elif line.startswith("|"):
            yield from flush()
            if not head:
                head = tuple(_cells(line))
            elif not _RULE.fullmatch(line):
                yield from _row(head, _cells(line), width)
                blank = False
        elif match := _ITEM.fullmatch(line):
            yield from flush()
            indent = f"{match[1]}  {match[2]} "
            rest = " " * len(indent)
            paragraph.append(match[3])
            blank = False
        elif not line.strip():
            yield from flush()
            indent = rest = ""
            head = ()
            if not blank:
                yield ""
            blank = True
        else:
            paragraph.append(line.strip())
            blank = False
    yield from flush()


def plain(text: str) -> str:
    """Return the text of Markdown without its marks; a link to another page names it.

    >>> plain("**Not**: see [the map](maps.md#figures), or `verify`")
    'Not: see the map (maps.md), or `verify`'
    """
    text = _LINK.sub(lambda match: _linked(match[1], match[2]), text)
    return _STRONG.sub(lambda match: match[1] or match[2], text).replace("\\|", "|").strip()


def _linked(text: str, target: str) -> str:
    page = target.partition("#")[0].rpartition("/")[2]
    return f"{text} ({page})" if page.endswith(".md") and page not in text else text


def _cells(line: str) -> list[str]:
    return [plain(cell) for cell in _CELL.split(line.strip())[1:-1]]


def _row(head: Sequence[str], cells: Sequence[str], width: int) -> Iterator[str]:
    first, *others = cells
    if len(others) == 1:
        yield from _wrapped(f"{first}  {others[0]}", width, "  ", "      ")
        return
    yield from _wrapped(first, width, "  ", "    ")
    for column, cell in zip(head[1:], others, strict=False):
        if cell:
            yield from _wrapped(f"{column}: {cell}" if column else cell, width, "      ", "        ")


def _wrapped(text: str, width: int, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        plain(text),
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
