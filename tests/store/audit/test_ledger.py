"""The audit's ledger: it orders what is read, and never calls anything whole."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.audit.ledger import Ledger
from store.disk.media import FileStamp
from store.errors import Unavailable
from store.format.ids import ObjectId

ONE, TWO = (ObjectId(bytes([7]) + bytes([number]) * 31) for number in (1, 2))
numbers = st.integers(min_value=-(2**63), max_value=2**64 - 1)
stamps = st.builds(FileStamp, *[numbers] * 4)


@given(stamps, stamps)
def test_an_entry_counts_only_while_the_stamp_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, was: FileStamp, now: FileStamp
) -> None:
    with Ledger(tmp_path_factory.mktemp("ledger") / "x") as ledger:
        ledger.enter([(ONE, was)], [], 5)
        assert ledger.read_at(7, {ONE: was}) == {ONE: 5}
        modulo = [value % 2**64 for value in (was.size, was.mtime, was.ctime, was.inode)]
        same = modulo == [value % 2**64 for value in (now.size, now.mtime, now.ctime, now.inode)]
        assert ledger.read_at(7, {ONE: now}) == ({ONE: 5} if same else {})


def test_what_was_bad_is_forgotten_and_other_folders_are_not_mixed_in(tmp_path: Path) -> None:
    stamp = FileStamp(1, 2, 3, 4)
    path = tmp_path / "deep" / "ledger"
    with Ledger(path) as ledger:
        ledger.enter([(ONE, stamp), (TWO, stamp)], [], 5)
        ledger.enter([], [ONE], 6)
    with Ledger(path) as ledger:
        assert ledger.read_at(7, {ONE: stamp, TWO: stamp}) == {TWO: 5}
        assert ledger.read_at(8, {TWO: stamp}) == {}


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_damaged_ledger_is_begun_anew(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "ledger"
    with Ledger(path) as ledger:
        ledger.enter([(ONE, FileStamp(1, 2, 3, 4))], [], 5)
    path.write_bytes(path.read_bytes()[:keep] + b"noise" * 1000 * (keep > 0))
    with Ledger(path) as ledger:
        assert ledger.read_at(7, {ONE: FileStamp(1, 2, 3, 4)}) == {}
        ledger.enter([(ONE, FileStamp(1, 2, 3, 4))], [], 5)
        assert ledger.read_at(7, {ONE: FileStamp(1, 2, 3, 4)}) == {ONE: 5}


def test_another_file_is_no_ledger_and_is_left_alone(tmp_path: Path) -> None:
    """A key, a note, the database of another program: whatever was named by mistake."""
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE read (id)")
    db.close()
    (tmp_path / "note").write_bytes(b"my key")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unavailable):
        Ledger(tmp_path / "pipe")
    for path in (other, tmp_path / "note"):
        before = path.read_bytes()
        with pytest.raises(Unavailable) as caught:
            Ledger(path)
        assert caught.value.fields["kind"] == "not-a-ledger"
        assert path.read_bytes() == before


def test_a_ledger_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable):
        Ledger(tmp_path / "file" / "ledger")
