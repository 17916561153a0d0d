"""Only what was judged is opened: devices, FIFOs and sockets stay closed, also where the kernel helps less."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from store.disk import opening
from store.disk.opening import OtherType, open_file, open_or_create, type_name
from tests.support.opens import make_device, make_socket, opens_of

THINGS: dict[str, Callable[[Path], object]] = {
    "device": make_device,
    "fifo": os.mkfifo,
    "socket": make_socket,
    "directory": os.mkdir,
    "link": lambda path: path.symlink_to(path.with_name("file")),
}


@pytest.fixture(params=["O_PATH", "no /proc", "no O_PATH"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The three systems that `opening` knows."""
    if request.param == "no O_PATH":
        monkeypatch.setattr(opening, "_LOOK", 0)
    if request.param == "no /proc":
        real = os.open

        def without_proc(path: str | os.PathLike[str], *arguments: int, dir_fd: int | None = None) -> int:
            if os.fspath(path).startswith("/proc/"):
                raise FileNotFoundError
            return real(path, *arguments, dir_fd=dir_fd)

        monkeypatch.setattr(os, "open", without_proc)
    return str(request.param)


@pytest.mark.parametrize("name", ["O_PATH", None])
def test_which_systems_look_first(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    if name is not None:
        monkeypatch.delattr(os, name)
    spec = opening.__spec__
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if name is not None:
        assert not module._LOOK
        return
    following, always = os.O_PATH, os.O_NOCTTY
    assert following == module._FOLLOWING & ~os.O_CLOEXEC
    assert following | os.O_NOFOLLOW == module._LOOK & ~os.O_CLOEXEC
    assert always == module._ALWAYS & ~os.O_CLOEXEC


@pytest.mark.parametrize("access", [os.O_WRONLY, os.O_RDWR])
def test_a_file_is_opened_or_made(tmp_path: Path, access: int) -> None:
    path = tmp_path / "file"
    before = os.umask(0)
    try:
        fd = open_or_create(str(path), access)
    finally:
        os.umask(before)
    assert os.write(fd, b"abc") == 3
    os.close(fd)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    fd = open_or_create(str(path), access)
    assert os.fstat(fd).st_size == 3, "it is not truncated"
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == access
    os.close(fd)


@pytest.mark.parametrize("thing", ["fifo", "directory", "link", "socket"])
def test_another_thing_is_neither_opened_nor_replaced(tmp_path: Path, thing: str) -> None:
    THINGS[thing](tmp_path / "thing")
    with pytest.raises(OtherType):
        open_or_create(str(tmp_path / "thing"), os.O_WRONLY)
    assert not (tmp_path / "file").exists(), "nothing is made through a link to nowhere"


def test_a_file_that_another_process_makes_meanwhile_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "file", os.open

    def racing(name: str | os.PathLike[str], flags: int, *arguments: int, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            path.write_bytes(b"theirs")
        return real(name, flags, *arguments, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", racing)
    fd = open_or_create(str(path), os.O_RDWR)
    assert os.read(fd, 9) == b"theirs"
    os.close(fd)


def test_names_of_types() -> None:
    assert [type_name(mode) for mode in (stat.S_IFREG | 0o644, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO)] == [
        *("file", "directory", "symlink", "fifo")
    ]
    assert [type_name(mode) for mode in (stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK)] == ["socket", "device", "device"]


@pytest.mark.parametrize("thing", THINGS)
def test_another_thing_is_not_opened(tmp_path: Path, way: str, thing: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    THINGS[thing](tmp_path / "thing")
    before = len(os.listdir("/proc/self/fd"))
    with opens_of(tmp_path / "thing") as opens, pytest.raises(OtherType):
        open_file(tmp_path / "thing")
    assert opens == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_is_opened_by_the_asked_access(tmp_path: Path, way: str) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for path, dir_fd, follow in ((tmp_path / "file", None, False), ("file", folder, False), ("link", folder, True)):
        fd, status = open_file(path, os.O_RDWR, dir_fd=dir_fd, follow=follow)
        assert (status.st_size, os.read(fd, 9), os.write(fd, b"")) == (3, b"abc", 0)
        assert not os.get_inheritable(fd)
        os.close(fd)
    os.close(folder)
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "absent")


def test_what_the_caller_accepts(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fd, status = open_file(tmp_path / "fifo", accept=stat.S_ISFIFO)
    os.close(fd)
    assert stat.S_ISFIFO(status.st_mode)


@pytest.mark.parametrize("thing", ["device", "fifo", "link"])
def test_what_is_swapped_in_after_the_look_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thing: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"right")
    real = os.fstat

    def swapping(fd: int) -> os.stat_result:
        status = real(fd)
        if path.is_file() and not path.is_symlink():
            path.unlink()
            THINGS[thing](path)
        return status

    monkeypatch.setattr(os, "fstat", swapping)
    fd, _ = open_file(path)
    assert os.read(fd, 9) == b"right"
    os.close(fd)


def test_without_o_path_what_is_swapped_in_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_LOOK", 0)
    path = tmp_path / "file"
    path.write_bytes(b"right")
    real = os.stat

    def swapping(path_: Path, *, dir_fd: int | None, follow_symlinks: bool) -> os.stat_result:
        status = real(path_, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        path.unlink()
        os.mkfifo(path)
        return status

    monkeypatch.setattr(opening.os, "stat", swapping)
    with pytest.raises(OtherType):
        open_file(path)
