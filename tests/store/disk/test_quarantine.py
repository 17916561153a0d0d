"""What goes to quarantine keeps its bytes and its name, replaces nothing, and is durable there."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from store.disk.durable import Disk
from store.disk.media import Media, object_path
from store.disk.quarantine import copy_aside, present, set_aside
from store.errors import Corrupt, NotFound
from store.format.ids import ObjectId
from store.ground.repository import Repository
from tests.faults.disks import Recorded

ID = ObjectId.of(b"object")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    Repository.init(tmp_path / "store").close()
    return tmp_path / "store"


def put(store: Path, name: str, data: bytes = b"bad") -> Path:
    path = store / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "last"),
    [
        (object_path(ID), str(ID)),
        ("objects/ab", "ab"),
        ("missions/north", "missions--north"),
        ("trust/releases/winter", "trust--releases--winter"),
        ("log", "log"),
        ("objects", "objects"),
    ],
)
def test_names(store: Path, name: str, last: str) -> None:
    if name == "objects":
        (store / "objects" / "ab").mkdir()
    else:
        put(store, name)
    with Media(store) as media:
        target = set_aside(media, Disk(), name)
        assert re.fullmatch(rf"quarantine/\d{{8}}T\d{{6}}Z/{last}", target)
        assert present(media, target)
        assert not present(media, name)


def test_nothing_in_quarantine_is_replaced(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda *_: "20261122T090000Z")  # all in one second
    with Media(store) as media:
        targets = []
        for data in (b"one", b"two", b"three"):
            put(store, "log", data)
            targets.append(set_aside(media, Disk(), "log"))
        assert [os.path.basename(target) for target in targets] == ["log", "log.1", "log.2"]
        assert [media.read(target, 10) for target in targets] == [b"one", b"two", b"three"]


def test_a_name_is_cut_to_what_a_file_system_takes(store: Path) -> None:
    name = "x" * 240
    put(store, f"missions/{name}")
    with Media(store) as media:
        target = set_aside(media, Disk(), f"missions/{name}")
    assert os.path.basename(target) == "x" * 200


def test_every_folder_is_durable_when_it_returns(store: Path) -> None:
    put(store, "missions/north")
    disk = Recorded()
    with Media(store) as media:
        target = set_aside(media, disk, "missions/north")
    after = disk.operations[disk.operations.index(("rename", str(store / target))) + 1 :]
    folders = (os.path.dirname(target), "quarantine", "", "missions")
    assert after == [("sync-directory", os.path.join(store, folder)) for folder in folders]


def test_quarantine_itself_can_go_there(store: Path) -> None:
    put(store, "quarantine", b"a file in its place")
    with Media(store) as media:
        target = set_aside(media, Disk(), "quarantine")
        assert media.read(target, 100) == b"a file in its place"
        assert media.file_type("quarantine") == "directory"


def test_a_link_is_moved_and_not_followed(store: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"")
    (store / "missions" / "north").symlink_to(tmp_path / "outside")
    (store / "pins").symlink_to(tmp_path / "outside")
    with Media(store) as media:
        target = set_aside(media, Disk(), "missions/north")
        assert media.file_type(target) == "symlink"
        with pytest.raises(Corrupt):
            set_aside(media, Disk(), "pins/file")
        with pytest.raises(NotFound):
            set_aside(media, Disk(), "missions/north")
    assert (tmp_path / "outside" / "file").exists()


def test_a_copy_leaves_the_file_in_its_place(store: Path) -> None:
    path = put(store, "log", b"lines\n")
    with Media(store) as media:
        target = copy_aside(media, Disk(), "log", 100)
        assert media.read(target, 100) == path.read_bytes() == b"lines\n"
        with pytest.raises(Corrupt):
            copy_aside(media, Disk(), "log", 5)


def test_a_copy_and_its_folders_are_durable_when_it_returns(store: Path) -> None:
    put(store, "log", b"lines\n")
    disk = Recorded()
    with Media(store) as media:
        target = copy_aside(media, disk, "log", 6)
    path = str(store / target)
    folders = (os.path.dirname(target), "quarantine", "")
    synced = [("sync-directory", os.path.join(store, folder)) for folder in folders]
    operations = disk.operations[disk.operations.index(("create", path)) :]
    assert operations == [("create", path), ("write", path), ("sync", path), *synced]


def test_what_is_not_there_is_not_present(store: Path) -> None:
    put(store, "drafts/north")
    with Media(store) as media:
        assert [present(media, name) for name in ("drafts", "drafts/north", "drafts/south", "x/y")] == [
            *(True, True, False, False)
        ]
