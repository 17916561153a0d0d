"""Named remotes: kept for the user, used wherever a place is taken, never shadowing a folder, never with a secret."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from store.errors import Invalid
from tests.support.commands import Ran, flightbag, program
from tests.support.stores import NORTH, check, make_store
from tools.arguments import config_folder
from tools.named_remotes import checked_place, place_named, remote_names


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the remotes of a user who has none yet; the current folder is empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config/flightbag/remotes.toml"


def add(name: str, place: object) -> Ran:
    return flightbag("remote", "add", name, place)


def test_a_name_stands_for_its_place_in_a_sync_and_says_so(tmp_path: Path) -> None:
    store, stick = make_store(tmp_path / "ground"), tmp_path / "stick"
    assert add("ground", store).status == add("stick", stick).status == 0
    ran = flightbag("sync", "ground", "stick")
    assert ran.status == 0, ran.err
    assert f"stick is the remote {stick}" in ran.err
    assert check(stick, NORTH.id).go
    assert not Path("stick").exists()
    assert flightbag("fsck", "stick", "--full").status == 0


def test_every_place_takes_a_name(tmp_path: Path) -> None:
    store = make_store(tmp_path / "ground")
    other = make_store(tmp_path / "replica")
    for name, place in (("replica", other), ("new", tmp_path / "new"), ("far", "crew@hangar:store")):
        assert add(name, place).status == 0
    packed = flightbag("pack", store, "-o", tmp_path / "bag.tar", "--against", "replica", "--json")
    assert (packed.status, packed.json["objects"]) == (0, 0)
    assert flightbag("pack", store, "-o", tmp_path / "whole.tar").status == 0
    assert flightbag("unpack", "new", tmp_path / "whole.tar").status == 0
    assert check(tmp_path / "new", NORTH.id).go
    assert flightbag("fsck", store, "--repair", "--from", "replica").status == 0
    for args in (
        ("pack", store, "-o", tmp_path / "x.tar", "--against", "far"),
        ("unpack", "far", tmp_path / "whole.tar"),
        ("engines", "accept", store, "--from", "far"),
    ):
        ran = flightbag(*args)
        assert ran.status == 2
        assert "run `flightbag sync far FOLDER` first" in ran.err
    assert flightbag("fsck", "far").status == 16
    assert flightbag("fsck", store, "--repair", "--from", "far").status == 16


def test_a_shell_is_offered_the_names_and_nothing_of_a_file_that_is_wrong(tmp_path: Path) -> None:
    assert remote_names(None) == []
    for name in ("new", "hangar"):
        assert add(name, tmp_path / name).status == 0
    assert remote_names(None) == remote_names("ground") == ["hangar", "new"]
    (config_folder() / "remotes.toml").write_text("[remotes")
    assert remote_names(None) == []


def test_a_folder_of_the_name_is_neither_taken_nor_passed_over(tmp_path: Path) -> None:
    store = make_store(tmp_path / "ground")
    assert add("stick", tmp_path / "far").status == 0
    Path("stick").mkdir()
    ran = flightbag("sync", store, "stick")
    assert ran.status == 2
    assert "give ./stick for the one here" in ran.err
    assert list(Path("stick").iterdir()) == []
    assert not (tmp_path / "far").exists()
    assert flightbag("sync", store, "./stick").status == 0
    assert check(Path("stick"), NORTH.id).go
    told = add("other", tmp_path / "far").out
    Path("third").mkdir()
    assert "also lies in the current folder" in add("third", tmp_path / "far").out
    assert "also lies" not in told


def test_the_environment_names_a_folder_and_never_a_remote(tmp_path: Path) -> None:
    assert add("hangar", make_store(tmp_path / "other")).status == 0
    for command in ("fsck", "ls"):
        ran = flightbag(command, env={"FLIGHTBAG_STORE": "hangar"})
        assert ran.status == (8 if command == "fsck" else 3), ran.out
        assert f"{os.getcwd()}/hangar does not exist" in ran.err


def test_a_mistyped_name_is_a_new_folder_and_the_remote_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "ground")
    assert add("hangar", tmp_path / "far").status == 0
    ran = flightbag("sync", store, "hanger")
    assert ran.status == 0
    assert "no remote is called hanger" in ran.err
    assert "a remote is called hangar" in ran.err


def test_what_is_listed_is_what_was_added_and_a_folder_is_absolute(config: Path) -> None:
    assert flightbag("remote", "ls").out == "no remotes\n"
    places = {"stick": "media/store", "hangar": "crew@hangar:store", "fleet": "s3://fleet/north", "x": "s3"}
    for name, place in places.items():
        assert add(name, place).status == 0
    rows = flightbag("remote", "ls", "--json").json["remotes"]
    assert [(row["name"], row["place"], row["kind"]) for row in rows] == [
        ("fleet", "s3://fleet/north", "bucket"),
        ("hangar", "crew@hangar:store", "host"),
        ("stick", str(Path.cwd() / "media/store"), "folder"),
        ("x", str(Path.cwd() / "s3"), "folder"),
    ]
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert "crew@hangar:store" in flightbag("remote", "ls").words
    assert [path.name for path in config.parent.iterdir()] == ["remotes.toml"]
    assert flightbag("remote", "remove", "hangar").status == 0
    ran = flightbag("remote", "remove", "hangr")
    assert (ran.status, "the remote hangr does not exist" in ran.err) == (1, True)
    ran = flightbag("remote", "remove", "stik")
    assert "give stick" in ran.err


def test_a_name_is_given_once(tmp_path: Path) -> None:
    assert add("stick", tmp_path / "a").status == 0
    ran = add("stick", tmp_path / "b")
    assert ran.status == 1
    assert str(tmp_path / "a") in ran.err
    assert place_named("stick") == str(tmp_path / "a")


@pytest.mark.parametrize(
    "place",
    [
        "s3://AKIA:secret@fleet/north",
        "s3://user@fleet/north",
        "https://planner:secret@storage/fleet",
        "planner:secret@hangar:store",
        "s3://fleet/north?X-Amz-Signature=secret",
        "az://fleet/north?sv=1&sig=secret",
    ],
)
def test_no_secret_is_kept_or_repeated(place: str, config: Path) -> None:
    ran = add("fleet", place)
    assert ran.status == 2
    assert "secret" not in ran.err + ran.out
    assert not config.exists() or "fleet" not in config.read_text()


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "-x", ".", "a b", "x" * 65, "ä"])
def test_a_name_is_one_word(name: str) -> None:
    ran = flightbag("remote", "add", "--", name, "/media/stick")
    assert ran.status == 2


@pytest.mark.parametrize("place", ["", "a\nb", "ftp://fleet/north", "hangar:", "hangar::module"])
def test_a_place_is_one_that_a_sync_takes(place: str) -> None:
    with pytest.raises(Invalid):
        checked_place(place)


@pytest.mark.parametrize(
    "text",
    ["nonsense", "remotes = 3", '[remotes]\n"a/b" = "x"', "[remotes]\na = 3", "[other]", '[remotes]\na = "u:p@h:x"'],
)
def test_a_file_that_is_none_is_named_and_stays(text: str, config: Path, tmp_path: Path) -> None:
    config.parent.mkdir(parents=True)
    config.write_text(text)
    for args in (("remote", "ls"), ("remote", "add", "b", "/x"), ("sync", make_store(tmp_path / "g"), "b")):
        ran = flightbag(*args)
        assert ran.status == 2
        assert str(config) in ran.err
    assert config.read_text() == text


def test_one_that_cannot_be_read_is_unknown(config: Path) -> None:
    config.mkdir(parents=True)
    assert flightbag("remote", "ls").status == 3


def test_two_at_once_lose_nothing() -> None:
    names = [f"n{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        ran = list(pool.map(lambda name: program("flightbag", "remote", "add", name, f"/media/{name}"), names))
    assert [one.status for one in ran] == [0] * 6
    assert [row["name"] for row in flightbag("remote", "ls", "--json").json["remotes"]] == names


def test_a_link_to_the_file_stays_a_link(config: Path, tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    config.parent.mkdir(parents=True)
    os.symlink(tmp_path / "dotfiles/remotes.toml", config)
    assert add("stick", "/media/stick").status == 0
    assert config.is_symlink()
    assert "stick" in (tmp_path / "dotfiles/remotes.toml").read_text()
