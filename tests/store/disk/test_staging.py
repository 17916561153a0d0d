"""A transaction's folder goes when it ends; what a dead one left goes with the next, and nothing else does."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from store.disk import staging as staging_module
from store.disk.durable import Disk
from store.disk.locks import Locked
from store.disk.media import FOLDER_LIMIT, Media
from store.disk.staging import Staging, empty, kept, list_names, remove_tree, sweep
from store.errors import Unavailable
from store.ground.repository import Repository
from tests.faults.disks import PowerFails, Recorded


@pytest.fixture
def store(tmp_path: Path) -> Path:
    Repository.init(tmp_path / "store").close()
    return tmp_path / "store"


def test_a_folder_is_made_at_first_use_and_goes_with_its_content(store: Path) -> None:
    with Media(store) as media, Staging(media, Disk()) as staging:
        assert os.listdir(store / "tmp") == []
        folder = Path(staging.folder())
        assert folder == Path(staging.folder())
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_bytes(b"")
        (folder / "link").symlink_to(store / "objects")
    assert os.listdir(store / "tmp") == []
    assert (store / "objects").is_dir()


def test_no_number_of_files_hides_a_dead_transaction(store: Path) -> None:
    """One is made before the files and one after them: a medium lists one of them beyond the bound."""
    tmp = store / "tmp"
    (tmp / "1-first").mkdir()
    for number in range(FOLDER_LIMIT):
        (tmp / f"{number:05}").touch()
    (tmp / "2-last").mkdir()
    disk = Recorded()
    with Media(store) as media:
        assert sweep(media, disk) == 2
    assert not [path for path in tmp.iterdir() if path.is_dir()]
    assert ("sync-directory", str(store / "objects")) in disk.operations


def test_sweep_takes_the_dead_and_leaves_the_living(store: Path) -> None:
    with Media(store) as media, Staging(media, Disk()) as living:
        folder = Path(living.folder())
        (folder / "file").write_bytes(b"")
        dead = store / "tmp" / "1-dead"
        (dead / "deep").mkdir(parents=True)
        (dead / "deep" / "file").write_bytes(b"")
        assert sweep(media, Disk()) == 1
        assert os.listdir(store / "tmp") == [folder.name]
        assert (folder / "file").exists()
        assert sweep(media, Disk()) == 0


def test_sweep_follows_no_link_and_passes_over_what_is_no_folder(store: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"")
    (store / "tmp" / "link").symlink_to(tmp_path / "outside")
    (store / "tmp" / "file").write_bytes(b"")
    with Media(store) as media:
        assert sweep(media, Disk()) == 0
    assert (tmp_path / "outside" / "file").exists()


def test_sweep_follows_no_link_that_takes_the_place_of_a_folder(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies there only after the look at the folders, before the sweep opens it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"")
    (store / "tmp" / "link").symlink_to(tmp_path / "outside")
    (store / "tmp" / "file").write_bytes(b"")
    monkeypatch.setattr(staging_module, "_first_folders", lambda _: ["link", "file", "none"])
    disk = Recorded()
    with Media(store) as media:
        assert sweep(media, disk) == 0
    assert (tmp_path / "outside" / "file").exists()
    assert disk.operations == []


def test_a_folder_that_a_sweep_took_before_it_was_locked_is_made_again(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [True]
    real = fcntl.flock

    def taken(fd: int, operation: int) -> None:
        real(fd, operation)
        if left and operation == fcntl.LOCK_EX:
            left.clear()
            (folder,) = (store / "tmp").iterdir()
            folder.rmdir()

    monkeypatch.setattr(fcntl, "flock", taken)
    before = len(os.listdir("/proc/self/fd"))
    with Media(store) as media, Staging(media, Disk()) as staging:
        assert os.path.isdir(staging.folder())
    assert len(os.listdir("/proc/self/fd")) == before
    assert left == []
    assert os.listdir(store / "tmp") == []


def test_the_folder_is_let_go_even_if_it_cannot_be_removed(store: Path) -> None:
    class Stuck(Disk):
        def remove(self, path: str) -> None:
            raise PowerFails

    with Media(store) as media:
        with pytest.raises(PowerFails), Staging(media, Stuck()) as staging:
            Path(staging.folder(), "file").write_bytes(b"")
        assert sweep(media, Disk()) == 1


def test_a_medium_without_locks_is_an_error(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with Media(store) as media, Staging(media, Disk()) as staging, pytest.raises(Unavailable):
        staging.folder()


def test_sweep_makes_durable_what_the_dead_may_have_renamed(store: Path) -> None:
    """Steps 4 and 7 for every folder of objects and of small files, before the mark of the dead transaction goes."""
    (store / "objects" / "ab").mkdir()
    (store / "trust" / "releases").mkdir()
    (store / "drafts").symlink_to(store / "trust")
    (store / "objects" / "link").symlink_to(store / "missions")
    (store / "tmp" / "1-dead").mkdir()
    disk = Recorded()
    with Media(store) as media:
        assert sweep(media, disk) == 1
    synced = [path for name, path in disk.operations if name == "sync-directory"]
    assert synced == [str(store / name) for name in ("objects/ab", "objects", "missions", "trust", "trust/releases")]
    assert disk.operations[-1] == ("remove", str(store / "tmp" / "1-dead"))


def test_what_cannot_be_made_durable_keeps_its_mark_and_is_told(store: Path) -> None:
    """The next transaction takes the renamed objects for present, and would publish them."""

    class Failing(Disk):
        def sync_directory(self, path: str) -> None:
            raise Unavailable(f"{path} cannot be written", kind="unwritable", errno=errno.EIO)

    (store / "tmp" / "1-dead").mkdir()
    with Media(store) as media:
        with pytest.raises(Unavailable) as caught:
            sweep(media, Failing())
        assert caught.value.errno == errno.EIO
        assert os.listdir(store / "tmp") == ["1-dead"]
        assert sweep(media, Disk()) == 1


def test_an_end_before_the_directories_are_synced_leaves_the_mark(store: Path) -> None:
    with Media(store) as media:
        with Staging(media, Disk()) as staging:
            Path(staging.folder(), "file").write_bytes(b"")
            staging.unsettled = True
        (mark,) = (store / "tmp").iterdir()
        assert os.listdir(mark) == []
        assert sweep(media, Disk()) == 1
    assert os.listdir(store / "tmp") == []


class TestKept:
    def interrupt(self, store: Path) -> None:
        def run() -> None:
            with Media(store) as media, kept(media, Disk(), "arriving") as folder:
                Path(folder, "half").write_bytes(b"1")
                assert sweep(media, Disk()) == 0
                raise PowerFails

        with pytest.raises(PowerFails):
            run()

    def test_what_an_interrupted_run_left_is_found_and_goes_with_a_whole_one(self, store: Path) -> None:
        self.interrupt(store)
        with Media(store) as media, kept(media, Disk(), "arriving") as folder:
            assert os.listdir(folder) == ["half"]
        assert os.listdir(store / "tmp") == []

    def test_of_a_dead_run_a_sweep_removes_it(self, store: Path) -> None:
        self.interrupt(store)
        with Media(store) as media:
            assert sweep(media, Disk()) == 1

    def test_one_at_a_time(self, store: Path) -> None:
        with (
            Media(store) as media,
            kept(media, Disk(), "arriving"),
            pytest.raises(Locked),
            kept(media, Disk(), "arriving"),
        ):
            pass

    def test_a_link_in_its_place_is_not_followed(self, store: Path, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (store / "tmp" / "arriving").symlink_to(tmp_path / "outside")
        with Media(store) as media, pytest.raises(Unavailable), kept(media, Disk(), "arriving"):
            pass


def test_removal_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"")
    folder = tmp_path / "folder"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_bytes(b"")
    (folder / "a" / "link").symlink_to(tmp_path / "outside")
    empty(Disk(), str(folder))
    assert list_names(str(folder)) == []
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    remove_tree(Disk(), str(tmp_path / "link"))
    assert (tmp_path / "outside" / "file").exists()


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        list_names(str(tmp_path / "none"))
