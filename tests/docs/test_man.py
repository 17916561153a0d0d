"""The manual pages are what the program says of itself, and a reader of manual pages shows them as they are meant."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.commands import flightbag
from tests.support.every_command import commands
from tests.support.man import escaped, manual
from tests.support.reference import MAN
from tools.start import app

PAGES = manual()
MANDOC, GROFF = shutil.which("mandoc"), shutil.which("groff")


def shown(text: str) -> str:
    """What a terminal shows of a page, without bold. Skips where nothing reads manual pages."""
    if MANDOC:
        command = [MANDOC, "-T", "utf8", "-O", "width=200"]
    elif GROFF:
        command = [GROFF, "-man", "-Tutf8", "-P-c", "-rLL=200n"]
    else:
        pytest.skip("neither mandoc nor groff is installed")
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return re.sub(r".\x08", "", done.stdout)


def test_the_pages_are_as_the_program_says() -> None:
    assert {path.name: path.read_text() for path in MAN.iterdir()} == PAGES, "run `make reference`"


@pytest.mark.skipif(not (MANDOC or GROFF), reason="neither mandoc nor groff is installed")
def test_no_page_has_a_mistake_of_roff() -> None:
    for path in sorted(MAN.iterdir()):
        command = [MANDOC, "-T", "lint", "-W", "warning"] if MANDOC else [str(GROFF), "-man", "-ww", "-z"]
        done = subprocess.run([*command, path], capture_output=True, text=True)
        said = [line for line in (done.stdout + done.stderr).splitlines() if line]
        # A page has the date of the release, and a version that is not out has none.
        assert [line for line in said if "missing date" not in line] == []


def test_each_command_has_a_page_with_its_usage_and_all_options() -> None:
    assert {"flightbag.1", "store-fsck.1"} < PAGES.keys()
    for name, _ in commands(app):
        page = "".join(shown(PAGES[f"flightbag-{name.replace(' ', '-')}.1"]).split())
        told = flightbag(*name.split(), "--help").out
        usage, _, rest = told.partition("\n\n")
        assert "".join(usage.removeprefix("Usage: ").split()) in page
        for option in re.findall(r"^  (?:-\w, )?(--[a-z-]+)", rest, re.MULTILINE):
            assert option in page, (name, option)
        example = re.search(r"Example: (.+?)(?:\n\n|\Z)", told, re.DOTALL)
        assert example is not None
        assert "".join(example[1].split()) in page, name


def test_the_overview_lists_the_commands_the_environment_and_the_statuses() -> None:
    page = shown(PAGES["flightbag.1"])
    for name, _ in commands(app):
        assert f"flightbag-{name.replace(' ', '-')}(1)" in page
    assert "FLIGHTBAG_STORE" in page
    assert "nobody reads the output" in page


@given(st.text(st.characters(min_codepoint=0x20, exclude_categories=("Cc", "Cs"), exclude_characters="\\")))
def test_any_text_is_escaped_to_ascii_of_which_no_character_is_roffs(text: str) -> None:
    line = escaped(text)
    assert line.isascii()
    assert not line.startswith((".", "'"))
    back = re.sub(r"\\\[u([0-9A-F]+)\]", lambda match: chr(int(match[1], 16)), line.removeprefix("\\&"))
    for roff, one in (("\\-", "-"), ("\\(aq", "'"), ("\\(ti", "~"), ("\\(ha", "^"), ("\\(ga", "`")):
        back = back.replace(roff, one)
    assert back == text


@pytest.mark.parametrize(
    "text", [".so /etc/passwd", "'so x", "a\\fBb", "--dry-run -n", "it's ~/x ^ `", "ü → …", "..", "\\"]
)
def test_a_line_is_shown_as_it_was_given(text: str) -> None:
    assert text in shown(f'.TH X 1 "" "" ""\n.SH NAME\n.nf\n{escaped(text)}\n.fi\n')
