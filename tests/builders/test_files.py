"""Files that the user names: what is read, what is refused, and that nothing waits."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from builders.files import lies_in, open_regular, read_pieces, read_regular, regular_status
from store.errors import Invalid, NotFound, Unavailable

LIMIT = 10


def read(path: Path) -> bytes:
    return read_regular(path, LIMIT, "key file")


def opened(path: Path) -> BinaryIO:
    return open_regular(path, "key file")


def status(path: Path) -> os.stat_result:
    return regular_status(path, "key file")


def pieces(path: Path) -> bytes:
    return b"".join(read_pieces(path, "key file", limit=LIMIT))


READERS = [read, pieces, opened, status]
Reader = Callable[[Path], object]


def descriptors() -> list[str]:
    return os.listdir("/proc/self/fd")


@pytest.mark.parametrize("size", [0, 1, LIMIT])
def test_a_regular_file_is_read_whole_up_to_the_limit(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"k" * size)
    assert read(path) == pieces(path) == b"k" * size
    assert status(path).st_size == size
    with opened(path) as file:
        assert file.read() == b"k" * size
        assert not os.get_inheritable(file.fileno())


def test_a_link_is_the_file_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"key")
    (tmp_path / "link").symlink_to("file")
    assert read(tmp_path / "link") == b"key"
    assert status(tmp_path / "link").st_ino == (tmp_path / "file").stat().st_ino


@pytest.mark.parametrize("size", [LIMIT + 1, 1 << 40])
def test_a_file_above_the_limit_is_invalid_and_not_read(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, size)
    with pytest.raises(Invalid) as caught:
        read_regular(path, LIMIT, "area file", too_large="simplify it")
    assert caught.value.message == f"area file {path} has more than {LIMIT} bytes"
    assert caught.value.remedy == "simplify it"
    assert caught.value.fields == {"path": str(path)}
    with pytest.raises(Invalid, match=f"has more than {LIMIT} bytes"):
        next(read_pieces(path, "key file", limit=LIMIT))


@pytest.mark.skipif(not os.path.exists("/proc/version"), reason="no file at hand that has more bytes than its size")
def test_a_file_with_more_bytes_than_its_size_keeps_to_the_limit() -> None:
    assert os.stat("/proc/version").st_size == 0
    with pytest.raises(Invalid, match="more than 10 bytes"):
        read(Path("/proc/version"))
    with pytest.raises(Invalid, match="more than 10 bytes"):
        pieces(Path("/proc/version"))
    assert read_regular(Path("/proc/version"), 1 << 16, "file") == Path("/proc/version").read_bytes()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("place", ["nothing", "file/below", "link"])
def test_a_path_that_leads_to_nothing_is_invalid(tmp_path: Path, reader: Reader, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(Invalid) as caught:
        reader(tmp_path / place)
    assert caught.value.message == f"key file {tmp_path / place} does not exist"
    assert caught.value.remedy == "give the path of the key file"
    assert caught.value.fields == {"path": str(tmp_path / place)}


def test_the_caller_may_name_the_class_of_a_missing_file(tmp_path: Path) -> None:
    for reading in (
        lambda: read_regular(tmp_path / "none", LIMIT, "picture", absent=NotFound),
        lambda: open_regular(tmp_path / "none", "picture", absent=NotFound),
    ):
        with pytest.raises(NotFound):
            reading()
    with pytest.raises(Invalid):
        read_regular(tmp_path, LIMIT, "picture", absent=NotFound)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("place", "kind"),
    [(".", "directory"), ("pipe", "fifo"), ("socket", "socket"), ("/dev/zero", "device")],
)
def test_anything_but_a_regular_file_is_invalid_and_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Reader, place: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    os.mkfifo("pipe")
    before = descriptors()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(Invalid) as caught:
            reader(Path(place))
    assert caught.value.message == f"key file {place}: expected a regular file, found a {kind}"
    assert caught.value.remedy == "give the path of the key file"
    assert caught.value.fields == {"path": place}
    assert descriptors() == before


@pytest.mark.parametrize("reader", READERS)
def test_a_path_that_the_system_cannot_follow_is_unavailable(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path, number in ((tmp_path / "loop", errno.ELOOP), (tmp_path / ("x" * 300), errno.ENAMETOOLONG)):
        with pytest.raises(Unavailable) as caught:
            reader(path)
        assert (caught.value.errno, caught.value.fields["path"]) == (number, str(path))
        assert caught.value.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("reader", [read, opened])
def test_a_file_without_permission_is_unavailable(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "file"
    path.touch(mode=0)
    with pytest.raises(Unavailable) as caught:
        reader(path)
    assert caught.value.errno == errno.EACCES


def test_a_medium_that_fails_is_unavailable_and_nothing_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"key")

    def fail(_: int) -> os.stat_result:
        raise OSError(errno.EIO, "Input/output error")

    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr("builders.files.os.fstat", fail)
        for reader in (read, opened):
            with pytest.raises(Unavailable) as caught:
                reader(path)
            assert caught.value.errno == errno.EIO
    assert descriptors() == before


def test_a_file_that_vanishes_is_read_to_its_end_once_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"key")
    with opened(path) as file:
        path.unlink()
        assert file.read() == b"key"
    with pytest.raises(Invalid, match="does not exist"):
        read(path)


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("in/file", True),
        ("in/deep/file", True),
        ("in/absent", True),
        ("in/../in/file", True),
        ("in/link-within", True),
        ("in", True),
        ("secret", False),
        ("in/../secret", False),
        ("in/link", False),
        ("in/folder-link/secret", False),
        ("in/deep/../../secret", False),
        ("in-and-more", False),
        ("back/link-within", True),
    ],
)
def test_what_lies_in_a_folder_through_every_link(tmp_path: Path, path: str, inside: bool) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("in/file", "in/deep/file", "secret", "in-and-more"):
        (tmp_path / name).touch()
    (tmp_path / "in/link").symlink_to("../secret")
    (tmp_path / "in/link-within").symlink_to("deep/file")
    (tmp_path / "in/folder-link").symlink_to("..")
    (tmp_path / "back").symlink_to("in")
    for folder in (tmp_path / "in", tmp_path / "back"):
        assert lies_in(tmp_path / path, folder) is inside
