"""A folder becomes a store only if nothing is lost by it, and is opened as one only if its format is known."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from store.disk import layout
from store.disk.layout import FORMAT, ROOT_FILE, TOML, check_format, check_free, no_store, open_store
from store.disk.media import Media
from store.errors import Invalid, NoStore, Unavailable
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
    def test_another_format_is_named(self, tmp_path: Path, number: str) -> None:
        write(tmp_path, f'format = {number}\nid = "{ID}"\n')
        with pytest.raises(NoStore, match=f"format {number}; .* format {FORMAT}") as caught:
            check(tmp_path)
        assert (caught.value.kind, bool(caught.value.remedy)) == ("other-format", True)

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
    def test_a_file_without_format_and_id_is_malformed(self, tmp_path: Path, text: str | bytes) -> None:
        write(tmp_path, text)
        with pytest.raises(NoStore) as caught:
            check(tmp_path)
        assert (caught.value.kind, bool(caught.value.remedy)) == ("bad-store", True)

    def test_a_folder_that_is_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(NoStore) as caught:
            check(tmp_path)
        assert (caught.value.kind, caught.value.message) == ("no-store", no_store(tmp_path).message)

    def test_half_of_a_copy(self, tmp_path: Path) -> None:
        """Objects without the file are a store that lost it, and the message says so."""
        (tmp_path / "objects" / "ab").mkdir(parents=True)
        with pytest.raises(NoStore) as caught:
            check(tmp_path)
        assert caught.value.kind == "no-store"
        assert "incomplete" in caught.value.message
        assert TOML in caught.value.remedy


def stick(folder: Path, store: str = "store") -> Path:
    """A medium with a store on it."""
    (folder / store).mkdir(parents=True)
    write(folder / store, f'format = {FORMAT}\nid = "{ID}"\n')
    (folder / store / "missions").mkdir()
    return folder


def words(path: Path) -> str:
    with pytest.raises(NoStore) as caught:
        open_store(path)
    return f"{caught.value.kind}: {caught.value.message} -> {caught.value.remedy}"


class TestWhatLiesThere:
    """The error for a path that is not a store says what lies there, and where a store lies."""

    @pytest.mark.parametrize("deep", ["store", "carried/store"])
    def test_a_folder_above_a_store(self, tmp_path: Path, deep: str) -> None:
        top = stick(tmp_path / "stick", deep)
        assert words(top) == f"no-store: {top} is not a store, and one lies below it -> give {top / deep}"

    def test_a_store_three_levels_below_is_not_looked_for(self, tmp_path: Path) -> None:
        assert "flightbag.toml" in words(stick(tmp_path / "stick", "a/b/store"))

    def test_several_stores(self, tmp_path: Path) -> None:
        for number in range(5):
            stick(tmp_path / "stick", f"store-{number}")
        text = words(tmp_path / "stick")
        assert "several lie below it" in text
        assert text.endswith(f", {tmp_path}/stick/store-2 or one of 2 more")

    def test_no_link_is_followed_and_the_look_has_an_end(self, tmp_path: Path) -> None:
        stick(tmp_path / "elsewhere")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "link").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "full" / "loop").symlink_to(tmp_path / "full")
        for number in range(1200):
            (tmp_path / "full" / f"{number}.jpg").touch()
        assert "it has no flightbag.toml" in words(tmp_path / "full")

    @pytest.mark.parametrize(("most", "found"), [(5, True), (4, False)])
    def test_the_look_takes_in_so_many_names(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, found: bool
    ) -> None:
        """One name in the folder, four in the folder below it: the store is perhaps the last of them."""
        monkeypatch.setattr(layout, "_LOOKED_AT", most)
        inner = stick(tmp_path / "stick" / "inner", "store")
        order = iter((["inner"], ["x", "y", "z", "store"]))
        (tmp_path / "stick" / "inner" / "x").mkdir()

        def names(folder: str, most: int = 1000) -> list[str]:
            return next(order)[:most]

        monkeypatch.setattr(layout, "_names", names)
        assert layout._stores_below(str(tmp_path / "stick")) == ([str(inner / "store")] if found else [])

    def test_a_listing_has_an_end(self, tmp_path: Path) -> None:
        for number in range(1001):
            (tmp_path / str(number)).touch()
        assert len(layout._names(str(tmp_path))) == 1000
        assert len(layout._names(str(tmp_path), 7)) == 7
        assert layout._names(str(tmp_path / "none")) == []

    @pytest.mark.parametrize(("count", "named"), [(1, "a"), (3, "a, b or c"), (4, "a, b, c or one of 1 more")])
    def test_three_stores_are_named(self, count: int, named: str) -> None:
        assert layout._listed(list("abcd")[:count]) == named

    def test_a_medium_that_is_not_mounted(self, tmp_path: Path) -> None:
        (tmp_path / "stick").mkdir()
        for path in (tmp_path / "stick", tmp_path / "stick" / "store"):
            assert "empty" in words(path)
            assert "mount" in words(path)

    def test_a_slip_of_the_pen(self, tmp_path: Path) -> None:
        top = stick(tmp_path / "stick")
        assert words(top / "stor").endswith(f"does not exist -> give {top}/store")
        assert words(tmp_path / "stik" / "store").endswith(f"give {top}/store")
        (top / "store").rename(tmp_path / "gone")
        (tmp_path / "gone" / TOML).unlink()
        assert "check the path; if it lies on a medium, mount it" in words(tmp_path / "stik" / "store")

    def test_a_link_to_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("/media/gone/store")
        assert "is a link to /media/gone/store, which does not exist" in words(tmp_path / "link")

    @pytest.mark.parametrize("inner", ["missions", "flightbag.toml", "objects/ab", "flightbag.toml/x"])
    def test_a_path_in_a_store(self, tmp_path: Path, inner: str) -> None:
        top = stick(tmp_path / "stick")
        assert words(top / "store" / inner).startswith("in-store: ")
        assert words(top / "store" / inner).endswith(f" -> give {top}/store")

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "store.zip").write_bytes(b"PK")
        assert "is a file, and a store is a folder" in words(tmp_path / "store.zip")

    def test_a_checkout_and_its_record(self, tmp_path: Path) -> None:
        (tmp_path / "ridge" / ".flightbag" / "objects" / "ab").mkdir(parents=True)
        for path in (tmp_path / "ridge", tmp_path / "ridge" / ".flightbag"):
            assert f"flightbag checkout --check {tmp_path}/ridge" in words(path)

    def test_the_state_of_an_aircraft(self, tmp_path: Path) -> None:
        for folder in ("lock", "tmp", "receipts"):
            (tmp_path / "state" / folder).mkdir(parents=True)
        for name in ("a", "key"):
            (tmp_path / "state" / name).touch()
        assert "--state" in words(tmp_path / "state")

    def test_a_folder_that_cannot_be_read_is_unavailable_and_not_absent(self, tmp_path: Path) -> None:
        path = tmp_path / ("x" * 300)  # ENAMETOOLONG
        with pytest.raises(Unavailable) as caught:
            open_store(path)
        assert not isinstance(caught.value, NoStore)


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
