"""What operating systems drop on a stick: information, in nobody's way, and removed by `sync --clean` alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from store.audit.fsck import fsck
from store.audit.scope import Scope
from store.disk.durable import Disk
from store.disk.media import Media
from store.errors import Invalid
from store.ground.cleaning import clean, droppings
from store.ground.gc import pins, plan_gc
from store.ground.releases import listed
from store.ground.repository import Repository
from tests.support.commands import flightbag
from tests.support.missions import NOW
from tests.support.stores import NORTH, audit, check, copy_of, make_store


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("cleaning") / "original", NORTH)


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return copy_of(original, tmp_path / "store")


def carried(store: Path) -> list[str]:
    """Leave what a Mac, Windows, a Linux desktop and Syncthing leave, and return the names."""
    shard = next(path.name for path in (store / "objects").iterdir())
    for folder in ("drafts", "pins", "trust/releases", "trash"):
        (store / folder).mkdir(exist_ok=True)
    files = [
        *(".DS_Store", "._flightbag.toml", "desktop.ini", "Thumbs.db", ".Spotlight-V100/Store-V2/x/0.index"),
        *(".Trashes/501/old", "System Volume Information/WPSettings.dat", "$RECYCLE.BIN/S-1-5-21/desktop.ini"),
        *("lost+found/#1", "log.sync-conflict-20261130-101500-ABCDEFG", "._log", "objects/.DS_Store"),
        *(f"objects/{shard}/.DS_Store", f"objects/{shard}/._{'0' * 62}", "missions/.DS_Store", "trash/.DS_Store"),
        *(
            "missions/._north-ridge",
            "missions/north-ridge.sync-conflict-20261130-101500-ABCDEFG",
            "drafts/._north-ridge",
        ),
        *("pins/.DS_Store", "trust/._1.root.cbor", "trust/releases/desktop.ini", "trust/releases/._winter"),
        *("trust/1.root.sync-conflict-20261130-101500-ABCDEFG.cbor", "lock/Thumbs.db", "index/.DS_Store"),
    ]
    for name in files:
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(b"dropped")
    tops = ("Spotlight", "Trashes", "System", "$", "lost")
    return sorted(name.split("/")[0] if name.lstrip(".").startswith(tops) else name for name in files)


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_it_is_information_and_an_error_where_the_store_is_the_aircrafts_own(store: Path) -> None:
    names = carried(store)
    found = audit(store)
    assert not found.errors
    assert not found.inconclusive
    strays = [finding for finding in found.findings if finding.kind == "stray"]
    assert sorted(os.path.relpath(finding.path, store) for finding in strays) == names
    assert all(finding.information and "sync --clean" in finding.remedy for finding in strays)
    with Media(store) as media:
        exclusive = fsck(media, Scope("full", exclusive=True))
    assert exclusive.errors
    strays = [finding for finding in exclusive.findings if finding.kind == "stray"]
    assert sorted(os.path.relpath(finding.path, store) for finding in strays) == names
    assert all("sync --clean" in finding.remedy for finding in strays)


def test_it_stops_no_collection_and_no_takeoff(store: Path) -> None:
    carried(store)
    assert check(store, NORTH.id).go
    with Repository.open(store) as repository:
        assert (pins(repository), listed(repository), repository.evidence.drafts()) == ({}, {}, [])
        plan = plan_gc(repository, lambda first: {}, now=NOW, grace=0)
        assert not plan.trash
        assert not plan.folders
    assert flightbag("gc", store, "--grace", "0s").status == 0
    assert check(store, NORTH.id).go


def test_what_is_of_the_store_stays_and_the_rest_goes(store: Path, original: Path) -> None:
    before = contents(store)
    names = carried(store)
    with Media(store) as media:
        assert sorted(droppings(media)) == names
        removed, left = clean(media, Disk())
        assert (sorted(removed), left) == (names, [])
        assert droppings(media) == []
    assert contents(store) == before
    assert not audit(store).findings


def test_what_cannot_be_removed_is_told_after_the_copy_and_the_rest_is_gone(
    store: Path, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = carried(store)
    real = os.rmdir

    def refusing(path: str) -> None:
        if path.endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied")
        real(path)

    monkeypatch.setattr(os, "rmdir", refusing)
    ran = flightbag("sync", original, store, "--clean")
    assert ran.status == 1
    assert "copied 0 objects" in ran.out
    assert f"NOT removed: {store}/lost+found cannot" in ran.out
    with Media(store) as media:
        assert droppings(media) == ["lost+found"]
    again = flightbag("sync", original, store, "--clean", "--json")
    assert (again.status, again.json["destinations"][0]["removed"]) == (1, [])
    assert [one["path"] for one in again.json["destinations"][0]["not_removed"]] == ["lost+found"]
    assert len(names) > 20


def test_a_link_is_removed_and_not_followed(store: Path, tmp_path: Path) -> None:
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "kept").write_bytes(b"x")
    (store / ".Trashes").symlink_to(tmp_path / "else")
    with Media(store) as media:
        assert clean(media, Disk()) == ([".Trashes"], [])
    assert (tmp_path / "else" / "kept").exists()


def test_by_the_command_line(store: Path, original: Path) -> None:
    names = carried(store)
    args = ("sync", original, store, "--clean", "--json")
    assert sorted(flightbag(*args, "--dry-run").json["destinations"][0]["removed"]) == names
    assert flightbag("sync", original, store, "--json").json["destinations"][0]["removed"] == []
    assert flightbag("fsck", store, "--exclusive").status == 4
    ran = flightbag(*args)
    assert (ran.status, sorted(ran.json["destinations"][0]["removed"])) == (0, names)
    assert flightbag("fsck", store, "--full").status == 0
    assert flightbag("sync", original, store, "--clean").status == 0


def test_a_stick_that_was_elsewhere_before_is_empty(original: Path, tmp_path: Path) -> None:
    for name in (".Spotlight-V100", "System Volume Information", "lost+found"):
        (tmp_path / "stick" / name).mkdir(parents=True)
    (tmp_path / "stick" / ".DS_Store").write_bytes(b"x")
    assert flightbag("sync", original, tmp_path / "stick").status == 0
    assert check(tmp_path / "stick", NORTH.id).go
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_bytes(b"x")
    assert flightbag("init", tmp_path / "other").status == 2


def test_a_release_does_not_hide_behind_such_a_name(store: Path) -> None:
    from store.format.cose import Envelope
    from store.format.ids import ObjectId
    from store.format.release import CONTENT_TYPE, Approval, Release
    from store.ground.releases import add

    approval = Approval("engines/x", "engine", ObjectId(bytes(32)), 1, "cpu")
    data = Envelope(CONTENT_TYPE, Release("desktop.ini", NOW, "cpu", (approval,)).render()).render()
    with Repository.open(store) as repository, pytest.raises(Invalid, match="cannot be the name of a release"):
        add(repository, data)
