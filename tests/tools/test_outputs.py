"""Files for people: not into a store, over nobody else's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.errors import Invalid
from store.ground.repository import Repository
from tools.outputs import check_output


def test_only_a_new_file_or_one_of_the_same_kind_is_taken(tmp_path: Path) -> None:
    Repository.init(tmp_path / "store").close()
    (tmp_path / "photo.png").write_bytes(b"\x89PNG" + bytes(300))
    (tmp_path / "far.html").write_bytes(bytes(300) + b"MARK")
    for path in (
        tmp_path / "store/x.html",
        tmp_path / "nowhere/x.html",
        tmp_path,
        tmp_path / "photo.png",
        tmp_path / "far.html",
    ):
        with pytest.raises(Invalid) as caught:
            check_output(path, "-o", b"MARK")
        assert str(path) in caught.value.message
        assert caught.value.remedy
    check_output(tmp_path / "new.html", "-o", b"MARK")
    (tmp_path / "ours.html").write_bytes(b"<!-- MARK -->")
    check_output(tmp_path / "ours.html", "-o", b"MARK")
