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
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from urllib.parse import quote

from builders.grid.tiles import MAX_TILE_BYTES

FUNCTIONS = frozenset(
    ("abs", "ceil", "coalesce", "count", "floor", "ifnull", "iif", "length", "max", "min", "nullif", "pow", "power",
     "round", "sum", "typeof")
)  # fmt: skip
MAX_VALUE_BYTES = 2 * MAX_TILE_BYTES  # of a value, and of a row
MAX_MEMORY = 512 << 20  # of SQLite, for all databases that this process has open
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


def connect(path: str | os.PathLike[str]) -> sqlite3.Connection:
    """Return a connection to the database at `path` that only reads. Raises what sqlite3 raises."""
    # Not immutable: SQLite would ignore the content of a write-ahead log.
    name = f"file:{quote(os.path.abspath(path))}?mode=ro"
    db = sqlite3.connect(name, BUSY_SECONDS, uri=True, isolation_level=None)
    for limit, value in _LIMITS:
        db.setlimit(limit, value)
    return db


def begin(db: sqlite3.Connection, interrupted: Callable[[], bool]) -> set[str]:
    """Begin a snapshot and confine all further queries; return the names of the tables and views.

    A query ends with SQLITE_INTERRUPT soon after `interrupted` returns True. Raises what sqlite3 raises.
    """
    db.set_progress_handler(interrupted, _INSTRUCTIONS)
    for pragma in (
        "trusted_schema = OFF",
        "query_only = ON",
        "cell_size_check = ON",
        "temp_store = MEMORY",  # a sort of terabytes fills no disk, and meets the next limit
        f"hard_heap_limit = {MAX_MEMORY}",
    ):
        db.execute(f"PRAGMA {pragma}")
    db.execute("BEGIN")
    names = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
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
