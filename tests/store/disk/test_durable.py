"""The operations of `Disk` one by one, and the two sequences over them. Whole publications: tests/faults."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable
from contextlib import nullcontext
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

    for number in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):  # FAT
        refuse(number)
        DISK.seal(fd, str(path))
    refuse(errno.EIO)
    with pytest.raises(Unavailable):
        DISK.seal(fd, str(path))
    os.close(fd)


def test_modes_of_what_is_made(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        DISK.make_directory(str(tmp_path / "folder"))
        os.close(DISK.create(str(tmp_path / "file")))
        os.close(DISK.create(str(tmp_path / "key"), 0o600))
        replace_file(DISK, str(tmp_path / "ref"), b"", str(tmp_path))
        replace_file(DISK, str(tmp_path / "note"), b"", str(tmp_path), 0o600)
        DISK.append(str(tmp_path / "log"), b"", 0)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"folder": 0o755, "file": 0o644, "key": 0o600, "ref": 0o644, "note": 0o600, "log": 0o644}


def test_what_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each method that promises it calls fsync for the file or the folder, and no other does."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    file, folder = tmp_path / "file", tmp_path / "folder"

    def after(work: object) -> list[Path]:
        now = [Path(path) for path in synced]
        synced.clear()
        return now

    assert after(DISK.make_directory(str(folder))) == []
    fd = DISK.create(str(file))
    assert after(DISK.write(fd, b"abc", str(file))) == []
    assert after(DISK.seal(fd, str(file))) == []
    assert after(DISK.sync_file(fd, str(file))) == [file]
    os.close(fd)
    assert after(DISK.sync_files([str(file)])) == [file]
    assert after(DISK.sync_directory(str(folder))) == [folder]
    assert after(DISK.append(str(tmp_path / "log"), b"x", 0)) == [tmp_path / "log"]
    assert after(DISK.rename(str(file), str(folder / "file"))) == []
    assert after(DISK.link(str(folder / "file"), str(file))) == []
    assert after(DISK.remove(str(file))) == []
    replaced = after(replace_file(DISK, str(folder / "ref"), b"x", str(tmp_path)))
    assert replaced == [tmp_path / f"ref.{os.getpid()}", folder]
    assert after(write_new_file(DISK, str(folder / "key"), b"x", 0o600)) == [folder / "key", folder]


def test_a_folder_is_synced_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "file").touch()
    before = len(os.listdir("/proc/self/fd"))
    for name in ("link", "file", "absent"):
        with pytest.raises(Unavailable):
            DISK.sync_directory(str(tmp_path / name))
    DISK.sync_directory(str(tmp_path / "folder"))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("reaches", [True, False])
def test_many_folders_are_one_barrier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reaches: bool) -> None:
    """Each folder by itself where syncfs proves nothing, or where they are few; a link is refused either way."""
    synced: list[str] = []

    class Counting(Disk):
        def sync_directory(self, path: str) -> None:
            synced.append(path)
            super().sync_directory(path)

    paths = [str(tmp_path / str(number)) for number in range(durable.MANY)]
    for path in paths:
        Path(path).mkdir()
    monkeypatch.setattr(durable, "_sync_all", lambda _: reaches)
    Counting().sync_directories(paths)
    assert synced == ([] if reaches else paths)
    synced.clear()
    Counting().sync_directories(paths[1:])
    assert synced == paths[1:]
    Counting().sync_directories([])
    Path(paths[5]).rmdir()
    for make in (lambda path: path.touch(), lambda path: path.symlink_to("0")):
        make(Path(paths[5]))
        with pytest.raises(Unavailable) as caught:
            DISK.sync_directories(paths)
        assert caught.value.fields["path"] == paths[5]
        Path(paths[5]).unlink()


@pytest.mark.parametrize("has_it", [True, False])
def test_to_begin_to_write_changes_nothing_and_never_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_it: bool
) -> None:
    if not has_it:
        monkeypatch.setattr(durable, "_sync_file_range", lambda: None)
    path = str(tmp_path / "file")
    fd = DISK.create(path)
    DISK.write(fd, b"x" * 10_000, path)
    DISK.start_writing(fd)
    DISK.write(fd, b"y", path)
    os.close(fd)
    assert Path(path).read_bytes() == b"x" * 10_000 + b"y"
    DISK.start_writing(fd)  # a descriptor that is none: the barrier reports what does not arrive
    read, write = os.pipe()
    DISK.start_writing(write)
    os.close(read)
    os.close(write)


def test_a_link_gets_a_second_name_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    DISK.link(str(tmp_path / "link"), str(tmp_path / "other"))
    assert (tmp_path / "other").is_symlink()
    DISK.link(str(tmp_path / "file"), str(tmp_path / "second"))
    assert (tmp_path / "second").stat().st_nlink == 2
    with pytest.raises(Unavailable):
        DISK.link(str(tmp_path / "file"), str(tmp_path / "second"))


@pytest.mark.parametrize(
    ("number", "raises"),
    [
        *((0, False), (errno.EOPNOTSUPP, False), (errno.ENOTTY, False), (errno.EXDEV, False), (errno.EINVAL, False)),
        *((errno.ENOSYS, False), (errno.EPERM, False), (errno.EIO, True), (errno.ENOSPC, True)),
    ],
)
def test_blocks_are_shared_where_the_file_system_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raises: bool
) -> None:
    asked: list[tuple[int, ...]] = []

    def ioctl(*arguments: int) -> None:
        asked.append(arguments)
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    with nullcontext() if not raises else pytest.raises(Unavailable):
        assert DISK.clone(7, 8, "path") is (number == 0)
    assert asked == [(8, 0x40049409, 7)]  # linux/fs.h: FICLONE of the new file, with the old one


def test_tasks_run_at_once_and_answer_in_order() -> None:
    assert DISK.at_once(lambda one: one * 2, range(100)) == [2 * one for one in range(100)]
    stopped: list[str] = []
    left = iter(range(1000))

    def task(one: int) -> int:
        if one == 0:
            raise ValueError("the first")
        stopping.wait(10)
        return next(left)

    stopping = threading.Event()

    def stop() -> None:
        stopped.append("stop")
        stopping.set()

    with pytest.raises(ValueError, match="the first"):
        DISK.at_once(task, range(100), threads=2, stop=stop)
    assert stopped == ["stop"]
    assert next(left) < 50, "tasks that had not begun are given up"


def test_after_an_error_no_further_task_begins() -> None:
    failed = threading.Event()
    begun: list[int] = []

    def task(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise Unavailable("here")
        assert failed.wait(60)

    with pytest.raises(Unavailable, match="here"):
        Disk().at_once(task, range(100), threads=2, stop=failed.set)
    assert sorted(begun) == [0, 1]
    assert Disk().at_once(str, [], threads=2) == []


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


@pytest.mark.parametrize(
    ("make", "number"), [(os.mkfifo, errno.ENXIO), (lambda path: path.symlink_to("nowhere"), errno.ELOOP)]
)
def test_another_thing_in_the_place_of_the_log(tmp_path: Path, make: Callable[[Path], object], number: int) -> None:
    make(tmp_path / "log")
    with pytest.raises(Unavailable, match="expected a regular file, found a") as caught:
        DISK.append(str(tmp_path / "log"), b"x", 0)
    assert caught.value.fields["errno"] == number
    assert "quarantine" in caught.value.remedy


def test_append_truncates_only_what_is_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FAT driver refuses to truncate a file to the size that it has."""
    path = tmp_path / "log"
    path.write_bytes(b"one\n")

    def refuse(fd: int, size: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "ftruncate", refuse)
    DISK.append(str(path), b"two\n", 4)
    assert path.read_bytes() == b"one\ntwo\n"
    with pytest.raises(Unavailable):
        DISK.append(str(path), b"x", 7)


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

    def test_the_folder_is_durable_last(self, tmp_path: Path) -> None:
        disk = Recorded()
        write_new_file(disk, str(tmp_path / "key"), b"secret", 0o600)
        assert [name for name, _ in disk.operations] == ["create", "write", "sync", "sync-directory"]
        assert disk.operations[-1][1] == str(tmp_path)

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

        paths = self.made(tmp_path, durable.MANY)
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

    @pytest.mark.parametrize(
        ("release", "type_", "reaches"),
        [
            *(("5.8.0", "ext4", True), ("5.7.99", "ext4", False), ("6.1.0-18-amd64", "xfs", True)),
            *(("4.19.0", "ext4", False), ("6.1", "f2fs", True), ("6.1.0", "ext2", False), ("6.1.0", "ext3", True)),
            *(
                ("6.1.0", "overlay", False),
                ("6.1.0", "fuse.x", False),
                ("unknown", "ext4", False),
                ("6", "ext4", False),
            ),
        ],
    )
    def test_which_file_systems_and_kernels_are_known(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, release: str, type_: str, reaches: bool
    ) -> None:
        device = os.stat(tmp_path).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        lines = [
            "1 2 0:999999 / /elsewhere rw - fuse.other fuse rw",
            f"36 35 {number} / /mnt rw,noatime master:1 - {type_} dev rw",
        ]
        called: list[int] = []
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
        monkeypatch.setattr("builtins.open", lambda *_, **__: nullcontext(lines))

        def syncfs(fd: int) -> int:
            called.append(fd)
            return 0

        libc = SimpleNamespace(syncfs=syncfs)
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: libc)
        before = len(os.listdir("/proc/self/fd"))
        assert durable._sync_all(str(tmp_path)) is reaches
        assert bool(called) is reaches
        assert len(os.listdir("/proc/self/fd")) == before

    @pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ENOSYS, errno.EPERM])
    def test_a_failed_write_is_told_and_not_asked_for_again(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
    ) -> None:
        """The error of a file that left the memory is told once, by syncfs: an fsync of that file then succeeds. A
        sandbox that refuses the call is no failed write."""
        device = os.stat(tmp_path).st_dev
        lines = [f"36 35 {os.major(device)}:{os.minor(device)} / /mnt rw - ext4 dev rw"]
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="6.1.0"))

        def syncfs(fd: int) -> int:
            assert fd > 0
            ctypes.set_errno(number)
            return -1

        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(syncfs=syncfs))
        paths, folders = self.made(tmp_path, durable.MANY), [str(tmp_path)] * durable.MANY
        calls = (
            lambda: Disk().sync_files(paths),
            lambda: Disk().sync_directories(folders),
            lambda: Disk().sync_file_system(str(tmp_path)),
        )
        for call in calls:
            with monkeypatch.context() as patch:
                patch.setattr("builtins.open", lambda *_, **__: nullcontext(lines))
                if number in durable._NO_SYNCFS:
                    assert not call()
                    continue
                with pytest.raises(Unavailable) as caught:
                    call()
                assert (caught.value.kind, caught.value.errno) == ("unwritable", number)
                assert caught.value.remedy

    def test_a_device_under_two_types_or_none_is_not_known(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        device = os.stat(tmp_path).st_dev
        number = f"{os.major(device)}:{os.minor(device)}"
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="6.1.0"))
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(syncfs=lambda fd: 0))
        for types in ([], ["ext4", "overlay"]):
            lines = [f"36 35 {number} / /mnt rw - {type_} dev rw" for type_ in types]
            monkeypatch.setattr("builtins.open", lambda *_, lines=lines, **__: nullcontext(lines))
            assert not durable._sync_all(str(tmp_path))

    def test_an_old_kernel_tells_of_no_failed_write(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="5.7.19"))
        assert not durable._sync_all(str(tmp_path))
