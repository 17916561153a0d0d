"""Stamps of files: which changes they show, and what cannot be stamped."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.imagery.stamps import SourceStamp, check_same, identity_of, stamp_of
from store.errors import Unavailable


def test_a_stamp_of_nothing() -> None:
    assert stamp_of([]) == stamp_of([])
    assert stamp_of([]).newest == 0
    assert len(stamp_of([]).digest) == 32


def test_absence_is_stamped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    absent = stamp_of([path])
    assert absent.newest == 0
    assert absent != stamp_of([])
    path.write_bytes(b"")
    there = stamp_of([path])
    assert there.digest != absent.digest
    assert there.newest == max(path.stat().st_mtime_ns, path.stat().st_ctime_ns)
    assert stamp_of([path / "below a file"]).newest == 0
    path.unlink()
    assert stamp_of([path]) == absent


def test_the_newest_of_all_times_is_told(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"")
    (tmp_path / "future").write_bytes(b"")
    os.utime(tmp_path / "old", ns=(0, -(10**9)))  # before 1970
    os.utime(tmp_path / "future", ns=(0, 2**62))
    assert stamp_of([tmp_path / "old"]).newest == (tmp_path / "old").stat().st_ctime_ns
    assert stamp_of([tmp_path / "future", tmp_path / "old"]).newest == (tmp_path / "future").stat().st_mtime_ns


def test_a_link_is_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    shutil.copy2(tmp_path / "file", tmp_path / "copy")
    (tmp_path / "link").symlink_to("file")
    first = stamp_of([tmp_path / "link"])
    assert first == stamp_of([tmp_path / "file"])
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("copy")
    assert stamp_of([tmp_path / "link"]).digest != first.digest


def test_what_cannot_be_told_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / ("x" * 300)):
        with pytest.raises(Unavailable) as caught:
            stamp_of([path])
        assert caught.value.fields["path"] == str(path)
        with pytest.raises(Unavailable):
            check_same(path, (1, 1))


def test_a_replaced_file_is_not_the_same(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    opened = identity_of(path)
    path.write_bytes(b"more")
    check_same(path, opened)
    shutil.copy2(path, tmp_path / "copy")
    os.replace(tmp_path / "copy", path)
    with pytest.raises(Unavailable, match="was replaced"):
        check_same(path, opened)
    path.unlink()
    with pytest.raises(Unavailable, match="was replaced"):
        check_same(path, opened)


NAMES = st.lists(st.sampled_from(["a", "ab", "b", "a/b", "absent", "gone"]), max_size=5)


@given(NAMES, NAMES)
def test_two_stamps_are_equal_only_for_the_same_names_in_the_same_order(left: list[str], right: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("ab", "b", "a/b"):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(b"")
        one, other = (stamp_of(folder / name for name in names) for names in (left, right))
    assert (one.digest == other.digest) == (left == right)


def test_a_stamp_is_a_value() -> None:
    stamp = SourceStamp(bytes(32), 7)
    assert stamp == SourceStamp(bytes(32), 7)
    with pytest.raises(AttributeError):
        stamp.newest = 8  # type: ignore[misc]
