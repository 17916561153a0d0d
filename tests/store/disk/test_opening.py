"""Only what was judged is opened: devices, FIFOs and sockets stay closed, also where the kernel helps less."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from store.disk import opening
from store.disk.opening import OtherType, open_file
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
