"""Pages as a terminal shows them: every page of the documentation, and the parts of Markdown one by one."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from tests.support.release import REPOSITORY
from tools import pages
from tools.pages import Page, plain, read, rendered, rows_of, sections

PAGES = read(REPOSITORY / "docs")
WORD = re.compile(r"[A-Za-z0-9]{3,}")


def lines(text: str, width: int = 40) -> list[str]:
    return list(rendered(textwrap.dedent(text).strip("\n"), width))


def test_each_file_of_the_documentation_is_a_page() -> None:
    files = [*(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "docs/tutorials").glob("*.md")]
    assert {path.stem for path in files} == PAGES.keys()
    assert len(files) == len(PAGES), "two pages of one name"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [40, 80])
def test_a_page_keeps_its_words_and_its_width(name: str, width: int) -> None:
    shown = list(rendered(PAGES[name].text, width))
    text = re.sub(r"<!--.*?-->", "", PAGES[name].text, flags=re.DOTALL)
    text = re.sub(r"\]\([^)\s]*\)", "]", text)
    text = re.sub(r"^ *```.*$|^\|.*\n(?=\|[ :|-]+\|$)", "", text, flags=re.MULTILINE)  # languages, heads of tables
    assert {*WORD.findall(text.lower())} <= {*WORD.findall(" ".join(shown).lower())}
    prose = [line for line in shown if not line.startswith("    ")]
    long = [line for line in prose if len(line) > width]
    assert all(max(map(len, line.split())) > width - 12 for line in long), "one word alone may be longer"
    assert "\n\n\n" not in "\n".join(shown)
    assert not [line for line in shown if line != line.rstrip()]


def test_paragraphs_and_lists_are_wrapped_and_blocks_are_not() -> None:
    assert lines(
        """
        # A title

        Words that go on
        and on, over the width of the terminal.

        - one item that is longer than a line may be
        - two

        ```console
        $ flightbag sync ground /media/stick/store --mission north-ridge   # long
        ```
        """
    ) == [
        "A TITLE",
        "",
        "Words that go on and on, over the width",
        "of the terminal.",
        "",
        "  - one item that is longer than a line",
        "    may be",
        "  - two",
        "",
        "    $ flightbag sync ground /media/stick/store --mission north-ridge   # long",
    ]


def test_a_row_of_a_table_is_a_paragraph() -> None:
    assert lines("| a | b |\n| --- | --- |\n| `x` | y or z |\n") == ["  `x`  y or z"]
    assert lines("| kind | what | do |\n| --- | --- | --- |\n| `x` | it fell | lift it |") == [
        "  `x`",
        "      what: it fell",
        "      do: lift it",
    ]


def test_marks_go_and_names_with_stars_stay() -> None:
    assert plain("**Not** *this*, `--a*b*`, 2*3*4") == "Not this, `--a*b*`, 2*3*4"
    assert plain("[a](b.md#c) [d.md](d.md) [e](https://f)") == "a (b.md) d.md e"


def test_a_heading_in_a_block_is_none() -> None:
    page = Page("x", "X", "# X\n\n## One two\n\n```console\n## no heading\n```\n\n## Three\nend\n")
    assert [*sections(page)] == ["one-two", "three"]
    assert "no heading" in sections(page)["one-two"]


def test_every_kind_is_found_with_what_to_do() -> None:
    rows = rows_of(PAGES["audit"])
    for kind in ("unproven", "bit-flip", "draft-waits", "threshold"):
        assert all(len(row.cells) >= 2 and row.section for row in rows[kind]), kind


def test_where_the_pages_are_not_installed_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pages.folder() == REPOSITORY / "docs"
    monkeypatch.setattr(pages, "__file__", str(tmp_path / "lib/tools/pages.py"))
    with pytest.raises(pages.Unavailable, match="not installed"):
        pages.folder()
    (tmp_path / "lib/tools/docs").mkdir(parents=True)
    (tmp_path / "lib/tools/docs/concepts.md").write_text("# Concepts\n")
    assert pages.folder() == tmp_path / "lib/tools/docs"
