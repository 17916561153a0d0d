"""The audit's ledger: the time at which each object of a store was last read in full and found whole.

An audit writes nothing into the store, so the ledger lies outside it (decision 0007), in an SQLite file of the caller's
choice. A row counts only while size, mtime, ctime and inode of the object's file stay the same, so a copied store
starts with an empty ledger. The ledger only sets which objects are read first: no object is reported as whole because
of it. A damaged ledger is replaced by an empty one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from store.disk.media import FileStamp
from store.disk.opening import OtherType, open_file
from store.errors import Unavailable
from store.format.ids import DIGEST_SIZE, ObjectId

if TYPE_CHECKING:
    from typing_extensions import Self

_FORMAT = 1
# PRAGMA application_id (sqlite.org/fileformat2.html, offset 68 of the header) distinguishes a ledger from other files.
_APPLICATION = 0x466C4267
_TABLE = (
    "CREATE TABLE read (id BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER, inode INTEGER, at INTEGER)"
    " WITHOUT ROWID"
)
# SQLite's integers have 64 bits and a sign. Only changes of a stamp matter, so its values may wrap around.
_SIGNED = 2**63


class Ledger:
    """An open ledger. Times are unix seconds."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the ledger at `path`; make it and its folder if they do not exist.

        Raise Unavailable if the ledger cannot be used, and for a file that is not a ledger, which stays as it is.
        """
        self.path = os.fspath(path)
        _check_ours(self.path)
        try:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            try:
                self._db = self._opened()
            except sqlite3.OperationalError:
                raise  # locked, or on a failing medium: the ledger itself may be whole
            except sqlite3.DatabaseError:
                # Torn: without its rows every object counts as never read, which is safe.
                for name in (self.path, f"{self.path}-wal", f"{self.path}-shm", f"{self.path}-journal"):
                    with suppress(FileNotFoundError):
                        Path(name).unlink()
                self._db = self._opened()
        except (OSError, sqlite3.Error) as error:
            raise _unusable(self.path, error) from error

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, timeout=60)
        try:
            # A ledger that a power cut has torn is replaced, so a write need not wait for the medium.
            db.execute("PRAGMA synchronous = OFF")
            (format_,) = db.execute("PRAGMA user_version").fetchone()
            if format_ not in (0, _FORMAT):
                raise sqlite3.DatabaseError("another format")
            if format_ == 0:
                db.execute(f"PRAGMA application_id = {_APPLICATION}")
                db.execute("BEGIN IMMEDIATE")
                db.execute("DROP TABLE IF EXISTS read")
                db.execute(_TABLE)
                db.execute(f"PRAGMA user_version = {_FORMAT}")
                db.execute("COMMIT")
            db.execute("SELECT id, size, mtime, ctime, inode, at FROM read LIMIT 1").fetchone()
        except BaseException:
            db.close()
            raise
        return db

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def read_at(self, first: int, stamps: Mapping[ObjectId, FileStamp]) -> dict[ObjectId, int]:
        """Return when these objects were last found whole, for those whose files have the same stamps still.

        All ids begin with the byte `first`. An object without a valid row counts as never read, and is left out.
        """
        span = (bytes([first]), bytes([first]) + b"\xff" * (DIGEST_SIZE - 1))
        query = "SELECT id, at, size, mtime, ctime, inode FROM read WHERE id BETWEEN ? AND ?"
        try:
            rows = self._db.execute(query, span).fetchall()
        except sqlite3.Error:
            return {}
        row_by_id = {bytes(id_): (at, tuple(fields)) for id_, at, *fields in rows}
        return {
            id_: row_by_id[id_][0]
            for id_, stamp in stamps.items()
            if id_ in row_by_id and type(row_by_id[id_][0]) is int and row_by_id[id_][1] == _fields(stamp)
        }

    def enter(self, whole: Iterable[tuple[ObjectId, FileStamp]], bad: Iterable[ObjectId], at: int) -> None:
        """Record the whole objects, and delete the rows of damaged ones. Raise Unavailable."""
        rows = [(bytes(id_), *_fields(stamp), at) for id_, stamp in whole]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO read VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._db.executemany("DELETE FROM read WHERE id = ?", [(bytes(id_),) for id_ in bad])
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from error


def _check_ours(path: str) -> None:
    """Raise Unavailable for a file that is neither empty nor a ledger."""
    try:
        fd, _ = open_file(path, follow=True)
        with open(fd, "rb") as file:
            head = file.read(72)
    except FileNotFoundError:
        return
    except OtherType:
        head = b"?"
    except OSError as error:
        raise _unusable(path, error) from error
    if head and not (head.startswith(b"SQLite format 3\0") and head[68:] == _APPLICATION.to_bytes(4, "big")):
        raise Unavailable(
            f"{path} is not a ledger of audits, and stays as it is",
            remedy="give another file with --ledger; a ledger is made if the file does not exist",
            kind="not-a-ledger",
            path=path,
        )


def _fields(stamp: FileStamp) -> tuple[int, int, int, int]:
    size, mtime, ctime, inode = (
        (value + _SIGNED) % (2 * _SIGNED) - _SIGNED for value in (stamp.size, stamp.mtime, stamp.ctime, stamp.inode)
    )
    return size, mtime, ctime, inode


def _unusable(path: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"the ledger {path} cannot be used: {error}",
        remedy="with --ledger, give a file that this user may write",
        kind="unwritable",
        path=path,
    )
