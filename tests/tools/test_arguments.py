"""The values that the text of an argument stands for, and the store that a command takes where none is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Invalid, NoStore
from store.ground.repository import Repository
from tests.support.commands import Ran, flightbag
from tools.arguments import moment
from tools.start import app


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-25T12:00:00Z",
        "2026-11-25t12:00:00z",
        "2026-11-25 12:00Z",
        "2026-11-25T12:00:00.5Z",
        "2026-11-25T12:00:00.123456789+00:00",
        "2026-11-25T14:30:00+02:30",
        "2026-11-24T23:00:00-13:00",
        "1795608000",
    ],
)
def test_a_moment_is_the_same_on_every_python(text: str) -> None:
    assert moment(text) == 1_795_608_000


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-25T12:00:00",
        "2026-11-25",
        "20261125T120000Z",
        "2026-W48-3T12:00:00Z",
        "2026-02-30T12:00:00Z",
        "2026-11-25T25:00:00Z",
        "1969-12-31T23:59:59Z",
        "٢٠٢٦-11-25T12:00:00Z",
        "2026-11-25T12:00:00+25:00",
        "noon",
        "",
    ],
)
def test_what_is_no_moment_has_a_remedy(text: str) -> None:
    with pytest.raises(Invalid, match="is not a time with a time zone") as caught:
        moment(text)
    assert "2026-11-25T12:00:00Z" in caught.value.remedy


# -- STORE, and where it comes from


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stores `one` and `two`, folders in and beside them, and a file."""
    folder = tmp_path_factory.mktemp("places")
    for name in ("one", "two"):
        Repository.init(folder / name).close()
        (folder / name / "objects" / "ab").mkdir()
    (folder / "beside").mkdir()
    (folder / "next.draft").write_text("")
    return folder


@contextmanager
def within(folder: Path, store: str | None) -> Iterator[None]:
    """The current folder, and the store that the environment names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if store is None:
            patch.delenv("FLIGHTBAG_STORE", raising=False)
        else:
            patch.setenv("FLIGHTBAG_STORE", store)
        yield


# What follows STORE: the numbers of arguments that a command takes there, as it declares them.
SHAPES = {
    "ls": {0},
    "show": {1},
    "diff": {2},
    "verify": {0, 1},
    "pin": {0, 2},
    "trust new-epoch": {1},
    "trust remove-key": {3},
    "prove": {2},
}
NEEDED = {"prove": ("-o", "x")}


def parsed(name: str, words: list[str]) -> dict[str, Any]:
    """What a command gets of a command line: its parameters, with the store as it is found."""
    command: Any = app
    context = app.make_context("flightbag", name.split(), resilient_parsing=True)
    for word in name.split():
        command = command.get_command(context, word)
    made = command.make_context(name, [*words, *NEEDED.get(name, ())])
    return {key: value.look() if hasattr(value, "look") else value for key, value in made.params.items()}


@given(
    name=st.sampled_from(sorted(SHAPES)),
    count=st.integers(0, 4),
    environment=st.sampled_from([None, "", "one", "two", "nowhere"]),
    folder=st.sampled_from([".", "beside", "one", "one/objects/ab", "two"]),
    is_given=st.booleans(),
)
def test_the_number_of_arguments_the_environment_and_the_folder_decide(
    places: Path, name: str, count: int, environment: str | None, folder: str, is_given: bool
) -> None:
    """A store that is given is never replaced. Else it is that of the environment, else the one around the folder."""
    if count not in SHAPES[name]:
        return
    words = [str(places / "two")] * is_given + ["word"] * count
    store = None if not environment else str(places / environment)
    around = folder.split("/")[0]
    with within(places / folder, "" if environment == "" else store):
        if is_given:
            assert parsed(name, words)["store"] == str(places / "two")
        elif store:
            assert parsed(name, words)["store"] == store
        elif around in ("one", "two"):
            assert parsed(name, words)["store"] == str(places / around)
        else:
            with pytest.raises(NoStore):
                parsed(name, words)


@pytest.mark.parametrize(("environment", "folder", "by"), [("two", "one", "FLIGHTBAG_STORE"), (None, "two", "current")])
def test_a_store_that_nobody_gave_is_named(places: Path, environment: str | None, folder: str, by: str) -> None:
    with within(places / folder, None if environment is None else str(places / environment)):
        ran = flightbag("ls")
    assert (ran.status, ran.out) == (0, "no missions\n")
    assert ran.err.startswith(f"flightbag: store {places / 'two'}")
    assert by in ran.err
    assert (f"not {places / 'one'}" in ran.err) == (folder == "one")


def test_a_store_that_is_given_is_not_named(places: Path) -> None:
    with within(places / "one", str(places / "one")):
        assert flightbag("ls", places / "two") == Ran(0, "no missions\n", "")


@pytest.mark.parametrize("word", ["beside", "./stick", "/media/stick/store", ".", "..", "next.draft", "s3://b/p"])
def test_what_is_a_path_is_never_taken_for_a_mission(places: Path, word: str) -> None:
    with within(places, str(places / "one")):
        assert parsed("verify", [word])["store"] == word
        assert parsed("verify", ["stick"]) | {"store": ""} == parsed("verify", ["two", "stick"]) | {"store": ""}


def test_one_word_without_any_store_is_the_store_that_was_meant(places: Path) -> None:
    with within(places, None):
        ran = flightbag("verify", "stick", "--trust", "x")
    assert ran.status == 3
    assert "stick does not exist" in ran.err
    assert f"{places}/one" in ran.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("show", "one"), "one is a store, and what follows STORE is missing"),
        (("trust", "new-epoch", "one"), "one is a store, and what follows STORE is missing"),
        (("show", "media/stick"), "media/stick is a path, and the name that follows STORE is missing"),
        (("show", "ridge", "one"), "give STORE first: one ridge"),
        (("trust", "new-epoch", "next.draft", "one"), "give STORE first: one next.draft"),
        (("unpack", "next.draft", "one"), "give STORE first: one next.draft"),
    ],
)
def test_a_store_is_not_taken_for_another_argument(places: Path, words: tuple[str, ...], says: str) -> None:
    with within(places, str(places / "two")):
        ran = flightbag(*words)
    assert (ran.status, says in ran.err) == (2, True), ran.err


def test_where_no_store_is_the_error_says_where_it_was_looked_for(places: Path) -> None:
    with within(places / "beside", None):
        ran = flightbag("ls")
        asked = flightbag("doctor", "--json")
    assert (ran.status, ran.out) == (3, "")
    assert f"FLIGHTBAG_STORE is not set, and neither {places}/beside nor a folder above it is a store" in ran.err
    assert "STORE" not in asked.err
    with within(places, None):
        assert f"give {places}/one or {places}/two" in flightbag("ls").err


@pytest.mark.parametrize("names", [("objects/ab/x",), ("objects", "trust"), ("missions", "trust")])
def test_what_looks_like_a_store_hides_the_one_above(places: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    Repository.init(tmp_path / "store").close()
    half = tmp_path / "store" / "half"
    for name in names:
        (half / name).mkdir(parents=True)
    (half / "deep").mkdir()
    with within(half / "deep", None):
        ran = flightbag("ls")
    assert (ran.status, f"{half} is not a store" in ran.err) == (3, True), ran.err


def test_a_broken_store_is_not_passed_over(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "inner"):
        Repository.init(folder).close()
    (tmp_path / "inner" / "flightbag.toml").write_text("format = ")
    with within(tmp_path / "inner" / "trust", None):
        ran = flightbag("ls")
    assert (ran.status, "inner/flightbag.toml is malformed" in ran.err) == (3, True), ran.err


def test_a_folder_that_was_removed(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    with within(tmp_path / "gone", None):
        (tmp_path / "gone").rmdir()
        ran = flightbag("ls")
    assert (ran.status, "the current folder cannot be looked at" in ran.err) == (3, True), ran.err
