"""`flightbag help`: every topic that it lists is answered, and a mistyped one with the nearest."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.commands import flightbag
from tests.support.every_command import commands
from tests.support.reference import MAN
from tests.support.release import REPOSITORY, build, unreachable
from tools.pages import read, rows_of
from tools.start import app

PAGES = read(REPOSITORY / "docs")


def answer(*words: str) -> str:
    ran = flightbag("help", *words)
    assert ran.status == 0, ran.err
    return ran.out


def test_each_command_is_explained_as_by_itself() -> None:
    for name, _ in commands(app):
        shown = answer(*name.split())
        assert shown.startswith(flightbag(*name.split(), "--help").out.rstrip("\n")), name
        assert answer(name) == shown, "as one word in quotes"


def test_a_group_is_explained_too() -> None:
    assert "rotate" in answer("trust")


def test_each_page_is_shown_and_one_with_the_name_of_a_command_is_named() -> None:
    for name, page in PAGES.items():
        assert page.title.upper() in answer(f"{name}.md")
    assert "page: flightbag help report.md" in answer("report")
    assert "CONCEPTS" in answer("concepts")


def test_each_kind_of_finding_says_what_happened_and_what_to_do() -> None:
    for kind in rows_of(PAGES["audit"]):
        assert kind in answer(kind)
    shown = " ".join(answer("unproven").split())
    assert "what happened: an engine has not been held against the map here" in shown
    assert "what to do: `flightbag probe STORE MISSION --state STATE`" in shown


@pytest.mark.parametrize(("topic", "word"), [("statuses", "the answer is no"), ("environment", "FLIGHTBAG_STORE")])
def test_statuses_and_environment_are_topics(topic: str, word: str) -> None:
    assert word in answer(topic)


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (("snyc",), "sync"),
        (("trust", "sgn"), "trust sign"),
        (("unprooven",), "unproven"),
        (("carying",), "carrying"),
        (("enviroment",), "environment"),
        (("statusses",), "statuses"),
    ],
)
def test_a_mistyped_topic_is_answered_with_the_nearest(words: tuple[str, ...], nearest: str) -> None:
    ran = flightbag("help", *words)
    assert ran.status == 1
    assert nearest in ran.err


def test_without_a_topic_everything_is_listed() -> None:
    shown = answer()
    assert all(f"  {name} " in shown for name in PAGES)
    assert all(f"  {name.split()[0]} " in shown for name, _ in commands(app))


def test_lines_fit_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (50, 80, 300):
        monkeypatch.setenv("COLUMNS", str(columns))
        shown = [line for line in answer("time").splitlines() if not line.startswith("    ")]
        assert max(map(len, shown)) <= min(columns, 100)
        assert max(map(len, shown)) > min(columns, 100) - 15


def test_the_answer_is_a_document() -> None:
    value = flightbag("help", "unproven", "--json").json
    assert value["topic"] == "unproven"
    assert "probe" in value["text"]


def test_an_installed_program_has_the_pages_and_the_manual(tmp_path: Path) -> None:
    if why := unreachable():
        pytest.skip(why)
    wheel = build(REPOSITORY, tmp_path / "wheels", "1700000000", "--wheel")
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        files.extractall(tmp_path / "lib")
    assert {f"tools/docs/{name}.md" for name in PAGES} <= {re.sub("tutorials/", "", name) for name in names}
    installed = {name.rpartition("/")[2] for name in names if "/data/share/man/man1/" in name}
    assert installed == {path.name for path in (MAN).iterdir()}
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'lib')!r}); from tools.start import main; main()"
    command = [sys.executable, "-I", "-c", code, "help", "unproven"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "an engine has not been held against the map here" in " ".join(ran.stdout.split())
