"""A database from outside, opened so that no text in it decides how long a query takes, or how much memory.

The schema of a database is a program: a view may call functions, join a table with itself, or never end. SQLite calls a
progress handler between two instructions only, and one function over some megabytes is one instruction. So each
value, statement and program is bounded, and an authorizer lets queries do two things: read plain tables and views of
the file, and call the functions of FUNCTIONS, which take no longer for a longer argument, or as long as reading it.

Views of `tiles` in the wild need no function at all: mbutil, Mapbox, tippecanoe, Planetiler and martin join two tables,
and others turn the rows over by arithmetic. The list has what this package itself calls, and what a view may need to
fill gaps or to count rows from the other side.

Virtual tables and recursion are refused where a query meets them, and so are tables with generated columns: SQLite
does not ask the authorizer about the functions of those.

A database in WAL mode needs a file `-shm` beside it, which SQLite cannot make on a read-only medium. Such a database is
opened as one that nobody writes to (`immutable`), but only where no content of a log is missed: no `-wal` with content
lies beside it, no `-shm` shows that a `-wal` was left behind, and the file has all pages that it says it has.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from builders.files import regular_status
from builders.grid.tiles import MAX_TILE_BYTES
from builders.imagery.stamps import SourceStamp, check_same, stamp_of, trace_of
from store.errors import Corrupt, FlightbagError, Invalid, Unavailable

FUNCTIONS = frozenset(
    ("abs", "ceil", "coalesce", "count", "floor", "ifnull", "iif", "length", "max", "min", "nullif", "pow", "power",
     "round", "sum", "typeof")
)  # fmt: skip
MAX_VALUE_BYTES = 2 * MAX_TILE_BYTES  # of a value, and of a row
MAX_MEMORY = 512 << 20  # of SQLite, for all databases that this process has open
MAX_QUERY_SECONDS = 60.0
BUSY_SECONDS = 5.0  # the longest wait for a file that somebody is writing
# Instructions between two calls of the progress handler. Each may touch a value of the greatest size.
_INSTRUCTIONS = 200
_LIMITS = (
    (sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES),
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 1 << 16),
    (sqlite3.SQLITE_LIMIT_COLUMN, 256),
    (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 100),
    (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 64),
    (sqlite3.SQLITE_LIMIT_VDBE_OP, 25_000),
    (sqlite3.SQLITE_LIMIT_FUNCTION_ARG, 16),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
    (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1),
    (sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 256),
    (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 1),
    (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
)
_AS_TABLES = (
    "make its tiles and metadata plain tables, or views of plain tables, without recursion and generated columns, "
    f"that call no function but {', '.join(sorted(FUNCTIONS))}"
)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


class Database:
    """An open database from outside, one snapshot of it. `names` has "table" or "view" for each of its tables and
    views, by its name in lower case, and `kind` is what they make of it.

    Raises Invalid unless the path is an SQLite database, Unavailable if it cannot be opened or read (a locked file, a
    disk error, a log that is missing), Corrupt for a damaged one. All of them name the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.kind = "SQLite database of tiles"
        self.names: dict[str, str] = {}
        self._opened = regular_status(self.path, "tile source")
        self._immutable = False
        self._deadline = 0.0
        with self.querying():
            self._db = self._connect("mode=ro")
            try:
                self._begin()
            except BaseException:
                self._db.close()
                raise
        self.kind = "GeoPackage" if "gpkg_contents" in self.names else "MBTiles file"
        try:
            # SQLite opens by path and does not expose its descriptor: the path must lead to one file before and after.
            check_same(self.path, (self._opened.st_dev, self._opened.st_ino))
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """End the snapshot and close the database. A second call does nothing."""
        self._db.close()

    def rows(self, query: str, values: tuple[object, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query. For use within `querying`."""
        return iter(self._db.execute(query, values))

    def columns(self, table: str) -> frozenset[str]:
        """The columns of a table or view (in SQL), in lower case. For use within `querying`."""
        description = self._db.execute(f"SELECT * FROM {table} LIMIT 0").description  # noqa: S608 - a quoted name
        return frozenset(name.lower() for name, *_ in description)

    @contextmanager
    def querying(self) -> Iterator[None]:
        """A context in which queries have MAX_QUERY_SECONDS together, and the errors of SQLite name the file."""
        self._deadline = time.monotonic() + MAX_QUERY_SECONDS
        try:
            yield
        except sqlite3.Error as error:
            raise self._failed(error) from error
        except MemoryError as error:  # also SQLite's own, at its limit
            raise Unavailable(
                f"{self.path} needs more memory than a query may take",
                path=str(self.path),
                remedy="check its views, or free memory",
            ) from error

    def stamp(self) -> SourceStamp:
        """The stamp of the database and of its `-wal` and `-journal`.

        SQLite under root sets the owner of a log that it opens, which changes the file: a database with a log or a
        journal beside it then has another stamp each time it is opened. Raises Unavailable if the path leads to another
        file than the open one, or if somebody wrote to a file that was opened as one that nobody writes to.
        """
        check_same(self.path, (self._opened.st_dev, self._opened.st_ino))
        if self._immutable and trace_of(regular_status(self.path, "tile source")) != trace_of(self._opened):
            raise Unavailable(
                f"{self.path} was written to while it was open",
                path=str(self.path),
                remedy="run the command again when nothing writes to the tile source",
            )
        return stamp_of([self._real, *(log for log in (self._log("wal"), self._log("journal")) if _size(log))])

    def unusable(self, why: str, remedy: str) -> Invalid:
        """The error for a database that is not what its reader needs."""
        return Invalid(f"{self.path} is not a usable {self.kind}: {why}", path=str(self.path), remedy=remedy)

    @property
    def _real(self) -> str:
        return os.path.realpath(self.path)  # SQLite keeps its logs beside this file, not beside a link to it

    def _log(self, name: str) -> str:
        return f"{self._real}-{name}"

    def _connect(self, mode: str) -> sqlite3.Connection:
        name = f"file:{quote(os.path.abspath(self.path))}?{mode}"
        db = sqlite3.connect(name, timeout=BUSY_SECONDS, uri=True, isolation_level=None)
        for limit, value in _LIMITS:
            db.setlimit(limit, value)
        db.set_progress_handler(lambda: time.monotonic() > self._deadline, _INSTRUCTIONS)
        return db

    def _begin(self) -> None:
        """Begin a snapshot, and confine all further queries. Raises what sqlite3 raises."""
        try:
            self.names = _begin(self._db)
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_CANTOPEN or _size(self._log("wal")):
                raise
            if _size(self._log("wal")) is None and _size(self._log("shm")) is not None:
                raise self._log_is_missing(f"{self._log('shm')} lies beside it, and its -wal does not") from error
            self._db.close()
            self._immutable = True
            self._db = self._connect("mode=ro&immutable=1")
            ((pages,),) = self._db.execute("PRAGMA page_count")
            ((page,),) = self._db.execute("PRAGMA page_size")
            if pages * page != self._opened.st_size:
                raise self._log_is_missing(
                    f"it has {self._opened.st_size} bytes, by its header {pages * page}"
                ) from error
            self.names = _begin(self._db)

    def _log_is_missing(self, why: str) -> Unavailable:
        return Unavailable(
            f"{self.path} is in WAL mode, and a part of it may be missing: {why}",
            path=str(self.path),
            remedy="copy it again together with its -wal file, into a folder that can be written to",
        )

    def _failed(self, error: sqlite3.Error) -> FlightbagError:
        code = _code(error)
        if code == sqlite3.SQLITE_NOTADB and not self.names:
            return self.unusable("it is not an SQLite database", "give an MBTiles file or a GeoPackage of image tiles")
        if code in _DAMAGED or (code is None and isinstance(error, sqlite3.OperationalError)):
            return Corrupt(
                f"{self.path} is damaged: {error}",
                path=str(self.path),
                remedy="check the file with 'PRAGMA integrity_check', and copy it again from its origin",
            )
        if code == sqlite3.SQLITE_INTERRUPT:
            return Corrupt(
                f"{self.path} did not answer within {MAX_QUERY_SECONDS:g} seconds",
                path=str(self.path),
                remedy="check its views, or add an index on zoom, column and row",
            )
        if code == sqlite3.SQLITE_AUTH:
            return self.unusable(f"a view in it does more than to read tables: {error}", _AS_TABLES)
        if code == sqlite3.SQLITE_ERROR:  # a column or a table under a view is missing
            return self.unusable(str(error), _AS_TABLES)
        if code == sqlite3.SQLITE_TOOBIG:
            return Corrupt(
                f"{self.path} has a value of more than {MAX_VALUE_BYTES} bytes",
                path=str(self.path),
                remedy="check its views: a tile has at most 16 MiB",
            )
        if code == sqlite3.SQLITE_CANTOPEN and _size(self._log("wal")):
            return Unavailable(
                f"{self.path} cannot be read: a part of it is in {self._log('wal')}, and their folder is read-only",
                path=str(self.path),
                remedy="copy both files into a folder that can be written to",
            )
        return Unavailable(
            f"{self.path} cannot be read: {error}",
            path=str(self.path),
            remedy="close other programs that use the file; if it is in WAL mode, make its folder writable "
            "or leave that mode with PRAGMA journal_mode = DELETE",
        )


def _begin(db: sqlite3.Connection) -> dict[str, str]:
    """Begin a snapshot and confine all further queries; return "table" or "view" for each name in lower case.
    Raises what sqlite3 raises."""
    for pragma in (
        "trusted_schema = OFF",
        "query_only = ON",
        "cell_size_check = ON",
        "temp_store = MEMORY",  # a sort of terabytes fills no disk, and meets the next limit
        f"hard_heap_limit = {MAX_MEMORY}",
    ):
        db.execute(f"PRAGMA {pragma}")
    db.execute("BEGIN")
    schema = db.execute("SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')")
    names = {name.lower(): kind for name, kind in schema}
    plain = {
        name
        for (name,) in db.execute(
            """
            SELECT name FROM sqlite_master AS one
            WHERE type = 'view'
               OR type = 'table' AND rootpage > 0
                  AND NOT EXISTS (SELECT 1 FROM pragma_table_xinfo(one.name) WHERE hidden > 1)
            """
        )
    }

    def authorize(action: int, first: str | None, second: str | None, _database: str | None, _by: str | None) -> int:
        allowed = (
            action == sqlite3.SQLITE_SELECT
            or (action == sqlite3.SQLITE_READ and first in plain)
            or (action == sqlite3.SQLITE_FUNCTION and second in FUNCTIONS)
        )
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    db.set_authorizer(authorize)
    return names


def _code(error: sqlite3.Error) -> int | None:
    """The primary result code of SQLite; None for an error of Python's module itself (text that is not UTF-8)."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _size(log: str) -> int | None:
    """The size of a log of SQLite, None if there is none.

    SQLite makes an empty log when it reads a database in WAL mode. If an empty log were stamped, reading would change
    the stamp.
    """
    try:
        return os.stat(log).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unavailable(
            f"the state of {log} cannot be read: {error.strerror}",
            path=log,
            remedy="make its folder searchable",
            errno=error.errno,
        ) from error
