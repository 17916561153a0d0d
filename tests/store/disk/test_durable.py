"""The operations of `Disk` one by one, and the two sequences over them. Whole publications: tests/faults."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from store.disk import durable
from store.disk.durable import Disk, replace_file, write_new_file
from store.errors import Unavailable
from tests.faults.disks import PowerCut, PowerFails, Recorded

DISK = Disk()


def test_make_directory_is_idempotent_and_takes_no_link_or_file(tmp_path: Path) -> None:
    DISK.make_directory(str(tmp_path / "a"))
    DISK.make_directory(str(tmp_path / "a"))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "file").write_bytes(b"")
    for name in ("link", "file", "no/parent"):
        with pytest.raises(Unavailable):
            DISK.make_directory(str(tmp_path / name))


def test_create_never_opens_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for name in ("file", "link"):
        with pytest.raises(Unavailable):
            DISK.create(str(tmp_path / name))
    assert (tmp_path / "file").read_bytes() == b"kept"
    assert not (tmp_path / "new").exists()


def test_write_goes_on_after_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:3])))
    path = str(tmp_path / "file")
    fd = DISK.create(path)
    DISK.write(fd, b"a longer text", path)
    os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"a longer text"


def test_seal_makes_read_only_and_forgives_a_medium_without_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    fd = DISK.create(str(path))
    DISK.seal(fd, str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o444

    def refuse(number: int) -> None:
        def fchmod(fd: int, mode: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fchmod", fchmod)

    refuse(errno.EPERM)  # FAT
    DISK.seal(fd, str(path))
    refuse(errno.EIO)
    with pytest.raises(Unavailable):
        DISK.seal(fd, str(path))
    os.close(fd)


def test_sync_files_raises_what_any_of_them_raised(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in "abc"]
    for path in paths:
        Path(path).write_bytes(b"")
    DISK.sync_files(paths)
    Path(paths[1]).unlink()
    with pytest.raises(Unavailable) as caught:
        DISK.sync_files(paths)
    assert caught.value.fields["path"] == paths[1]


def test_sync_files_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(Unavailable):
        DISK.sync_files([str(tmp_path / "link")])


def test_remove_takes_files_links_and_empty_directories(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("folder", "link", "gone"):
        DISK.remove(str(tmp_path / name))
    assert os.listdir(tmp_path) == ["kept"]
    with pytest.raises(Unavailable):
        DISK.remove(str(tmp_path / "kept"))


def test_append_cuts_first(tmp_path: Path) -> None:
    path = tmp_path / "log"
    DISK.append(str(path), b"one\n", 0)
    DISK.append(str(path), b"two\n", 4)
    with path.open("ab") as file:
        file.write(b"a torn line that is longer than the next")
    DISK.append(str(path), b"three\n", 8)
    assert path.read_bytes() == b"one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("number", "word"), [(errno.ENOSPC, "space"), (errno.EROFS, "read-only"), (errno.EACCES, "may not")]
)
def test_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, word: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(Unavailable) as caught:
        DISK.rename(str(tmp_path / "a"), str(tmp_path / "b"))
    assert word in caught.value.remedy
    assert caught.value.fields == {"kind": "unwritable", "path": str(tmp_path / "b"), "errno": number}


class TestReplaceFile:
    def test_order(self, tmp_path: Path) -> None:
        disk = Recorded()
        (tmp_path / "tmp").mkdir()
        replace_file(disk, str(tmp_path / "ref"), b"new", str(tmp_path / "tmp"))
        assert [name for name, _ in disk.operations] == [
            "remove",
            "create",
            "write",
            "sync",
            "rename",
            "sync-directory",
        ]
        assert (tmp_path / "ref").read_bytes() == b"new"

    def test_old_or_new_after_a_crash_at_any_point(self, tmp_path: Path) -> None:
        for stop in range(6):
            staging = tmp_path / str(stop)
            staging.mkdir()
            (tmp_path / "ref").write_bytes(b"old")
            with pytest.raises(PowerFails):
                replace_file(PowerCut(stop), str(tmp_path / "ref"), b"new", str(staging))
            assert (tmp_path / "ref").read_bytes() == (b"new" if stop == 5 else b"old")
            replace_file(DISK, str(tmp_path / "ref"), b"new", str(staging))
            assert (tmp_path / "ref").read_bytes() == b"new"


class TestWriteNewFile:
    def test_mode_content_and_never_over_another(self, tmp_path: Path) -> None:
        path = tmp_path / "key"
        write_new_file(DISK, str(path), b"secret", 0o600)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(Unavailable):
            write_new_file(DISK, str(path), b"other", 0o600)
        assert path.read_bytes() == b"secret"

    def test_nothing_is_left_of_one_that_failed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(fd: int, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(Unavailable):
            write_new_file(DISK, str(tmp_path / "key"), b"secret", 0o600)
        assert os.listdir(tmp_path) == []


class TestManyFiles:
    def made(self, folder: Path, count: int) -> list[str]:
        paths = [folder / str(number) for number in range(count)]
        for path in paths:
            path.write_bytes(b"x")
        return [str(path) for path in paths]

    def test_one_call_for_a_file_system_that_is_known(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each file by itself where syncfs proves nothing; either way every file is on the medium."""
        synced: list[str] = []

        class Counting(Disk):
            def sync_file(self, fd: int, path: str) -> None:
                synced.append(path)
                super().sync_file(fd, path)

        paths = self.made(tmp_path, durable._MANY)
        for reaches in (True, False):
            monkeypatch.setattr(durable, "_sync_all", lambda _, reaches=reaches: reaches)
            Counting().sync_files(paths)
            assert sorted(synced) == ([] if reaches else sorted(paths))
        synced.clear()
        monkeypatch.setattr(durable, "_sync_all", lambda _: True)
        Counting().sync_files(paths[1:])
        assert len(synced) == len(paths) - 1, "few files are synced by themselves"

    def test_memory_and_fuse_are_not_known(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        if Path("/dev/shm").is_dir():
            assert not durable._sync_all("/dev/shm")
        monkeypatch.setattr(durable, "_SYNCFS", frozenset())
        assert not durable._sync_all(str(tmp_path))

    def test_an_old_kernel_tells_of_no_failed_write(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="5.7.19"))
        assert not durable._sync_all(str(tmp_path))
