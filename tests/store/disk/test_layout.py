"""A folder becomes a store only if nothing is lost by it, and is opened as one only if its format is known."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from store.disk.layout import FORMAT, ROOT_FILE, TOML, check_format, check_free, no_store
from store.disk.media import Media
from store.errors import Corrupt, Invalid, NotFound
from tests.support.stores import listing

ID = "0123456789abcdef" * 2


def write(folder: Path, text: str | bytes) -> None:
    (folder / TOML).write_bytes(text if isinstance(text, bytes) else text.encode())


def check(folder: Path) -> None:
    with Media(folder) as media:
        check_format(media)


class TestFree:
    @pytest.mark.parametrize("names", [(), ("missions",), ("objects", "trust"), ("missions", "objects", "tmp")])
    def test_an_empty_folder_or_the_start_of_an_init(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        for name in names:
            (tmp_path / name).mkdir()
        check_free(tmp_path)

    @pytest.mark.parametrize("name", ["notes.txt", "objects/ab", "missions/x", "trust/1.root.cbor", "index/data.mdb"])
    def test_refuses_a_folder_with_something_in_it(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / "store" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"precious")
        before = listing(tmp_path)
        with pytest.raises(Invalid):
            check_free(tmp_path / "store")
        assert listing(tmp_path) == before

    @pytest.mark.parametrize("thing", ["file", "symlink", "fifo"])
    def test_refuses_another_thing_under_a_name_of_its_own(self, tmp_path: Path, thing: str) -> None:
        store = tmp_path / "store"
        store.mkdir()
        if thing == "file":
            (store / "objects").write_bytes(b"")
        elif thing == "symlink":
            (store / "objects").symlink_to(tmp_path)
        else:
            os.mkfifo(store / "objects")
        with pytest.raises(Invalid):
            check_free(store)

    def test_refuses_a_store(self, tmp_path: Path) -> None:
        write(tmp_path, f'format = {FORMAT}\nid = "{ID}"\n')
        with pytest.raises(Invalid):
            check_free(tmp_path)


class TestFormat:
    def test_a_store_of_this_format(self, tmp_path: Path) -> None:
        write(tmp_path, f'format = {FORMAT}\nid = "{ID}"\ncreated = 2026-11-22T09:00:00Z\n')
        check(tmp_path)

    @pytest.mark.parametrize("number", ["2", "0", "-1", "99"])
    def test_another_format_is_invalid(self, tmp_path: Path, number: str) -> None:
        write(tmp_path, f'format = {number}\nid = "{ID}"\n')
        with pytest.raises(Invalid):
            check(tmp_path)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "format = 1",
            "format = ",
            'format = 1\nid = "short"',
            "format = 1\nid = 5",
            'format = "1"\nid = "00000000000000000000000000000000"',
            'format = true\nid = "00000000000000000000000000000000"',
            'format = 1.0\nid = "00000000000000000000000000000000"',
            "a = " + "[" * 4000,
            "x" * 5000,
            b"\xff\xfe",
        ],
    )
    def test_a_file_without_format_and_id_is_corrupt(self, tmp_path: Path, text: str | bytes) -> None:
        write(tmp_path, text)
        with pytest.raises(Corrupt):
            check(tmp_path)

    def test_a_folder_that_is_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound) as caught:
            check(tmp_path)
        assert (caught.value.kind, caught.value.message) == ("no-store", no_store(tmp_path).message)

    def test_half_of_a_copy(self, tmp_path: Path) -> None:
        """Objects without the file are a store that lost it, and the message says so."""
        (tmp_path / "objects" / "ab").mkdir(parents=True)
        with pytest.raises(NotFound) as caught:
            check(tmp_path)
        assert caught.value.kind == "no-store"
        assert caught.value.message != no_store(tmp_path).message
        assert TOML in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("1.root.cbor", "1"),
        ("39.root.cbor", "39"),
        ("0.root.cbor", None),
        ("01.root.cbor", None),
        ("x.root.cbor", None),
    ],
)
def test_names_of_root_files(name: str, version: str | None) -> None:
    match = ROOT_FILE.fullmatch(name)
    assert (match and match[1]) == version
