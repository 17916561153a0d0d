"""A store is made once, and opened if it is of this format."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from store.errors import Corrupt, Invalid, NoStore, NotFound, Unavailable, Untrusted
from store.format.toml import tomllib
from store.ground.repository import Repository, SmallFile
from tests.faults.disks import PowerCut, PowerFails, Recorded
from tests.support.missions import (
    ROOT,
)
from tests.support.missions import sign_root as sign
from tests.support.stores import (
    NORTH,
    SOUTH,
    audit,
    listing,
    make_store,
)


class TestInit:
    def test_makes_an_empty_store(self, tmp_path: Path) -> None:
        with Repository.init(tmp_path / "store") as repository:
            assert repository.missions() == []
        value = tomllib.loads((tmp_path / "store" / "flightbag.toml").read_text())
        assert value["format"] == 1
        assert len(value["id"]) == 32
        assert {"missions", "objects", "trust"} <= set(os.listdir(tmp_path / "store"))
        assert not audit(tmp_path / "store").findings

    def test_each_store_has_an_id_of_its_own(self, tmp_path: Path) -> None:
        ids = set()
        for name in "ab":
            Repository.init(tmp_path / name).close()
            ids.add(tomllib.loads((tmp_path / name / "flightbag.toml").read_text())["id"])
        assert len(ids) == 2

    def test_in_an_empty_folder_and_through_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "mounted").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "mounted")
        Repository.init(tmp_path / "link").close()
        Repository.open(tmp_path / "mounted").close()

    def test_refuses_a_folder_with_something_in_it(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_bytes(b"precious")
        before = listing(tmp_path)
        with pytest.raises(Invalid):
            Repository.init(tmp_path)
        assert listing(tmp_path) == before

    def test_refuses_a_store_and_a_file(self, tmp_path: Path) -> None:
        Repository.init(tmp_path / "store").close()
        before = listing(tmp_path)
        with pytest.raises(Invalid):
            Repository.init(tmp_path / "store")
        assert listing(tmp_path) == before
        (tmp_path / "file").write_bytes(b"")
        for bad in ("file", "no/parent"):
            with pytest.raises(Unavailable):
                Repository.init(tmp_path / bad)


class TestFormat:
    """That the check of the format (tests/store/disk/test_layout.py) is asked before a store is opened."""

    def test_another_format(self, tmp_path: Path) -> None:
        Repository.init(tmp_path / "store").close()
        path = tmp_path / "store" / "flightbag.toml"
        path.write_text(path.read_text().replace("format = 1", "format = 2"))
        with pytest.raises(NoStore):
            Repository.open(tmp_path / "store")

    def test_no_store(self, tmp_path: Path) -> None:
        for where in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(NoStore) as caught:
                Repository.open(where)
            assert caught.value.kind == "no-store"


class TestReading:
    def test_current(self, tmp_path: Path) -> None:
        with Repository.open(make_store(tmp_path / "store")) as repository:
            assert repository.missions() == [NORTH.id, SOUTH.id]
            assert repository.trust_root().root == ROOT
            opened = repository.current(NORTH.id)
            assert (opened.manifest, opened.manifest_id, opened.table) == (
                NORTH.manifest,
                NORTH.manifest_id,
                NORTH.table,
            )
            for absent in ("none", "../missions/north-ridge", ""):
                with pytest.raises(NotFound):
                    repository.current(absent)

    def test_what_is_no_mission_id_is_no_mission(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        for name in (".DS_Store", "._north-ridge", "North", "a b"):
            (store / "missions" / name).write_bytes(b"")
        with Repository.open(store) as repository:
            assert repository.missions() == [NORTH.id, SOUTH.id]

    def test_without_a_trust_root(self, tmp_path: Path) -> None:
        with Repository.init(tmp_path / "store") as repository, pytest.raises(NotFound):
            repository.trust_root()

    def test_a_root_of_another_version_is_not_the_first(self, tmp_path: Path) -> None:
        second = replace(ROOT, version=2, parent_domain=ROOT.domain_id, previous=ROOT.digest)
        with Repository.init(tmp_path / "store") as repository:
            repository.replace("trust/1.root.cbor", sign(second, "root-a"))
            with pytest.raises((Corrupt, Untrusted)):
                repository.trust_root()

    def test_unreadable_is_not_corrupt(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def bad(*arguments: object) -> int:
            raise OSError(5, "Input/output error")

        with Repository.open(make_store(tmp_path / "store")) as repository:
            monkeypatch.setattr(os, "readv", bad)
            with pytest.raises(Unavailable):
                repository.current(NORTH.id)

    def test_reading_a_store_writes_nothing(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        before = listing(store)
        with Repository.open(store) as repository:
            repository.current(NORTH.id)
            repository.trust_root()
        assert listing(store) == before

    def test_a_mission_id_that_is_none_is_flight(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        with Repository.open(store) as repository, pytest.raises(Invalid):
            repository.move_ref("../escape", NORTH.manifest_id, "published", 1)
        assert not (store / "escape").exists()


class TestPlace:
    FILES = (SmallFile("drafts/a", b"first"), SmallFile("trust/releases/b", b"second"), SmallFile("drafts/a", b"third"))

    def test_the_last_of_a_name_stays_and_folders_are_made(self, tmp_path: Path) -> None:
        with Repository.init(tmp_path / "store") as repository:
            repository.place([])
            repository.place(self.FILES)
            assert repository.media.read("drafts/a", 99) == b"third"
            assert repository.media.read("trust/releases/b", 99) == b"second"
            assert repository.media.names("tmp") == []

    @pytest.mark.parametrize("link", ["drafts", "trust/releases"])
    def test_nothing_is_placed_through_a_link(self, tmp_path: Path, link: str) -> None:
        (tmp_path / "elsewhere").mkdir()
        with Repository.init(tmp_path / "store") as repository:
            (tmp_path / "store" / link).symlink_to(tmp_path / "elsewhere")
            with pytest.raises((Corrupt, Unavailable)):
                repository.place(self.FILES)
            assert not list((tmp_path / "elsewhere").iterdir())
            assert not [*(tmp_path / "store").glob("drafts/a"), *(tmp_path / "store").glob("trust/releases/b")]

    def test_a_stop_anywhere_leaves_each_file_whole(self, tmp_path: Path) -> None:
        with Repository.init(tmp_path / "counted", counted := Recorded()) as repository:
            made = len(counted.operations)
            repository.place(self.FILES)
        for stop in range(len(counted.operations) - made):
            store = tmp_path / str(stop)
            with Repository.init(store) as repository:
                repository.place([SmallFile("drafts/a", b"before")])
            with Repository.open(store, PowerCut(stop)) as repository, pytest.raises(PowerFails):
                repository.place(self.FILES)
            assert (store / "drafts" / "a").read_bytes() in (b"before", b"first", b"third")
            for path in store.glob("trust/releases/*"):
                assert path.read_bytes() == b"second"
