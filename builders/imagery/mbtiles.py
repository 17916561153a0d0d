"""MBTiles 1.3 as a tile source: the encoded bytes of the tiles of one cell, in the order of their ids.

Reads only, and only through SQL: `tiles` may be a view, the database may be in WAL mode. Everything read
between opening and closing is one snapshot, so the bytes that were hashed for a build key are the bytes that
are described. Writes nothing, though SQLite itself keeps a `-wal` and a `-shm` beside a database in WAL mode.
The file is input from outside: its schema is not trusted to call functions with side effects.

Decodes no image and judges none: a row whose data is not a blob, or too large to be a tile, is yielded as
empty bytes, which no decoder takes, so that such a tile is present and undecodable, never absent.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import numpy as np

from builders.files import regular_status
from builders.grid.tiles import CELL_ZOOMS, MAX_TILE_BYTES, MAX_ZOOM, Tile, check_zoom, tile_id, tile_ids
from builders.imagery.stamps import SourceStamp, check_same, stamp_of
from store.errors import Corrupt, FlightbagError, Invalid, Unavailable

BUSY_SECONDS = 5.0  # how long a file that somebody is writing is waited for
# A cell is held in memory as a whole: 256 tiles of a megabyte, and room for tiles that come twice.
MAX_CELL_BYTES = 256 << 20
MAX_ROWS = 1024
MAX_QUERY_SECONDS = 60.0
FORMATS = ("jpg", "jpeg", "png", "webp")
_ZOOMS = frozenset(map(str, range(MAX_ZOOM + 1)))
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


class MBTilesSource:
    """An open MBTiles file; a context manager, for one thread.

    Raises Invalid for what is not an MBTiles file of images, Unavailable for what cannot be opened or read
    (a locked file, a disk error), Corrupt for a damaged database. All of them name the file.

    `zooms` are (minzoom, maxzoom) of the metadata, None where they are absent, twice there or senseless.
    """

    zooms: tuple[int, int] | None = None
    resolution_m: None = None

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        state = regular_status(self.path, "tile source")
        self._opened = state.st_dev, state.st_ino
        self._deadline = time.monotonic() + MAX_QUERY_SECONDS
        with self._reading():
            # Not immutable: that would miss what a write-ahead log still holds.
            self._db = sqlite3.connect(
                f"file:{quote(os.path.abspath(self.path))}?mode=ro", BUSY_SECONDS, uri=True, isolation_level=None
            )
        try:
            self._begin()
            # SQLite opens by path and does not show its descriptor: the file before is the file after.
            check_same(self.path, self._opened)
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the snapshot. Closing twice is fine."""
        self._db.close()

    def cell(self, cell: Tile, zoom: int) -> Iterator[tuple[int, bytes]]:
        """(tile id, encoded bytes) of every tile of `cell` at `zoom` that the file has, ids ascending.

        The bytes are empty where the row holds no blob or more than 16 MiB. A tile that comes twice must
        have the same bytes both times: anything else is Corrupt.
        """
        tile_id(cell)  # refuses a cell that does not exist
        check_zoom(zoom)
        depth = zoom - cell.z
        if not 0 <= depth <= CELL_ZOOMS:
            raise Invalid(f"{cell} is not the cell of a tile at zoom {zoom}", tile=str(cell), zoom=zoom)
        side = 1 << depth
        first_row = (1 << zoom) - ((cell.y + 1) << depth)  # TMS counts rows from the south
        columns = range(cell.x << depth, (cell.x + 1) << depth)
        rows = self._select(zoom, columns, range(first_row, first_row + side))
        if not rows:
            return
        x, tms, data = zip(*rows, strict=True)
        y = (1 << zoom) - 1 - np.array(tms, np.int64)
        ids = tile_ids(zoom, np.array(x, np.int64), y)
        last: tuple[int, bytes] | None = None
        for place in np.argsort(ids, kind="stable").tolist():
            this = int(ids[place]), data[place]
            if last is None or this[0] != last[0]:
                yield this
            elif this[1] != last[1]:
                raise self._twice(Tile(zoom, x[place], int(y[place])))
            last = this

    def read(self, tile: Tile) -> bytes | None:
        """The encoded bytes of one tile, None where the file has none; empty as `cell` says."""
        tile_id(tile)  # refuses a tile that does not exist
        row = (1 << tile.z) - 1 - tile.y
        found = {data for _, _, data in self._select(tile.z, range(tile.x, tile.x + 1), range(row, row + 1))}
        if len(found) > 1:
            raise self._twice(tile)
        return found.pop() if found else None

    def stamp(self, cells: Sequence[tuple[Tile, int]]) -> SourceStamp:  # noqa: ARG002 - a database has one stamp
        """The stamp of the database and of its `-wal` and `-journal`, whatever the cells.

        Run by root, SQLite sets the owner of a log that it opens, which is a change: a database with frames or a
        journal left beside it then has another stamp each time it is opened. Raises Unavailable where the path names
        another file than that which was opened.
        """
        check_same(self.path, self._opened)
        database = os.path.realpath(self.path)  # beside this SQLite keeps its logs, not beside a link to it
        return stamp_of([database, *(log for log in (f"{database}-wal", f"{database}-journal") if _has_content(log))])

    def _begin(self) -> None:
        """Checks that this is an MBTiles file of images and takes the snapshot."""
        with self._reading():
            try:
                # A view may compute without end; SQLite asks now and then whether it should go on.
                self._db.set_progress_handler(lambda: time.monotonic() > self._deadline, 100_000)
                self._db.execute("PRAGMA trusted_schema = OFF")
                self._db.execute("PRAGMA query_only = ON")
                self._db.execute("BEGIN")
                names = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master")}
            except sqlite3.DatabaseError as error:
                if _code(error) == sqlite3.SQLITE_NOTADB:
                    raise self._not_mbtiles("it is not an SQLite database") from None
                raise
            for name in ("tiles", "metadata"):
                if name not in names:
                    raise self._not_mbtiles(f"it has no table or view {name}")
            try:
                self._db.execute("SELECT zoom_level, tile_column, tile_row, tile_data FROM tiles LIMIT 0")
                formats = self._metadata("format")
                lowest, highest = (_zoom(self._metadata(name)) for name in ("minzoom", "maxzoom"))
            except sqlite3.OperationalError as error:
                if _code(error) == sqlite3.SQLITE_ERROR:  # a column or a table under the view is missing
                    raise self._not_mbtiles(str(error)) from None
                raise
        if len(formats) != 1 or formats[0] not in FORMATS:
            said = " and ".join(map(repr, formats)) or "nothing"
            raise self._not_mbtiles(
                f"its metadata says {said} as format, not one of {', '.join(FORMATS)}",
                remedy="give an MBTiles file of image tiles; vector tiles cannot be described",
            )
        if lowest is not None and highest is not None and lowest <= highest:
            self.zooms = lowest, highest

    def _metadata(self, name: str) -> list[str | None]:
        """What the metadata says under a name, at most two values; None for one that is no short text or number."""
        # The length as a blob: that of a text ends at its first zero, wherever the text does.
        rows = self._db.execute(
            "SELECT CASE WHEN typeof(value) IN ('text', 'integer') AND length(CAST(value AS BLOB)) <= 16 "
            "THEN CAST(value AS TEXT) END FROM metadata WHERE name = ? LIMIT 2",
            (name,),
        )
        return [value for (value,) in rows]

    def _select(self, zoom: int, columns: range, rows: range) -> list[tuple[int, int, bytes]]:
        """(column, TMS row, bytes) of the tiles in a rectangle, in no order."""
        # IN over at most 16 columns, not BETWEEN: so the usual index (zoom, column, row) is sought by row too,
        # and a cell of a large file costs its own rows, not those of 16 whole columns.
        query = f"""
            SELECT tile_column, tile_row,
                   CASE WHEN typeof(tile_data) = 'blob' AND length(tile_data) <= ? THEN tile_data ELSE x'' END
            FROM tiles
            WHERE zoom_level = ? AND tile_column IN ({", ".join("?" * len(columns))}) AND tile_row BETWEEN ? AND ?
            """  # noqa: S608 - only question marks are put in
        found: list[tuple[int, int, bytes]] = []
        room = MAX_CELL_BYTES
        self._deadline = time.monotonic() + MAX_QUERY_SECONDS
        with self._reading():
            for item in self._db.execute(query, (MAX_TILE_BYTES, zoom, *columns, rows[0], rows[-1])):
                found.append(item)
                room -= len(item[2])
                if room < 0 or len(found) > MAX_ROWS:
                    raise Corrupt(
                        f"{self.path} has more than {MAX_ROWS} rows or {MAX_CELL_BYTES} bytes "
                        f"for {len(columns) * len(rows)} tiles of zoom {zoom}",
                        path=str(self.path),
                        remedy="give a source with one image of a usual size for each tile",
                    )
        for column, row, _ in found:
            if type(column) is not int or type(row) is not int:
                raise Corrupt(
                    f"{self.path} has a tile at column {column!r}, row {row!r} of zoom {zoom}, not whole numbers",
                    path=str(self.path),
                )
        return found

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turns what SQLite raises into errors that name the file."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _failed(self, error: sqlite3.Error) -> FlightbagError:
        code = _code(error)
        if code in _DAMAGED or (code is None and isinstance(error, sqlite3.OperationalError)):
            return Corrupt(
                f"{self.path} is damaged: {error}",
                path=str(self.path),
                remedy="check it with 'PRAGMA integrity_check' and get it again from where it came",
            )
        if code == sqlite3.SQLITE_INTERRUPT:
            return Corrupt(
                f"{self.path} did not answer within {MAX_QUERY_SECONDS:g} seconds",
                path=str(self.path),
                remedy="see what its view `tiles` does, or give it an index on zoom, column and row",
            )
        return Unavailable(
            f"{self.path} could not be read: {error}",
            path=str(self.path),
            remedy="see whether another program holds it, and whether its folder can be written "
            "where it is in WAL mode (PRAGMA journal_mode = DELETE ends that)",
        )

    def _twice(self, tile: Tile) -> Corrupt:
        return Corrupt(
            f"{self.path} has tile {tile} twice with different bytes",
            path=str(self.path),
            tile=str(tile),
            remedy="remove one of the two rows",
        )

    def _not_mbtiles(self, why: str, remedy: str = "name an MBTiles file of image tiles") -> Invalid:
        return Invalid(f"{self.path} is not a usable MBTiles file: {why}", path=str(self.path), remedy=remedy)


def _code(error: sqlite3.Error) -> int | None:
    """The primary result code; None where Python's module found the fault itself (text that is not UTF-8)."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _zoom(said: list[str | None]) -> int | None:
    """The zoom that the metadata says; None where it says none, or several, or no whole number of 0..24."""
    if len(said) != 1 or said[0] not in _ZOOMS:
        return None
    return int(said[0])


def _has_content(log: str) -> bool:
    """Whether SQLite's log is there and not empty.

    An empty one holds nothing, and SQLite itself makes one when it reads a database in WAL mode: were it stamped, to
    read would be to change.
    """
    try:
        return os.stat(log).st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise Unavailable(
            f"{log} cannot be looked at: {error.strerror}", path=log, remedy="see whether its folder may be searched"
        ) from error
