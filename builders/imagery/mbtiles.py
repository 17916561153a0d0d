"""MBTiles 1.3 as a tile source: the encoded bytes of the tiles of one cell, in the order of their ids.

The specification counts rows from the south. `builders.imagery.roworder` decides which order a file really has.

All access is read-only SQL: `tiles` may be a view, and the database may be in WAL mode. All reads between opening and
closing see one snapshot, so the bytes that are described are the bytes that were hashed for a build key. This module
writes nothing; SQLite itself keeps a `-wal` and a `-shm` file beside a database in WAL mode. The file comes from
outside: `sqlite` bounds what its views may do.

No image is decoded here. A row whose data is not a blob, or is too large for a tile, gives empty bytes, which no
decoder accepts: such a tile is present and undecodable, not absent.
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

import numpy as np
from numpy.typing import NDArray

from builders.files import regular_status
from builders.grid.tiles import CELL_ZOOMS, MAX_TILE_BYTES, MAX_ZOOM, Tile, check_zoom, tile_id, tile_ids
from builders.imagery.roworder import Claims, Extent, RowOrder, Scheme, StoredRows, bounds_of, row_order
from builders.imagery.sqlite import FUNCTIONS, MAX_VALUE_BYTES, begin, connect
from builders.imagery.stamps import SourceStamp, check_same, stamp_of
from store.errors import Corrupt, FlightbagError, Invalid, Unavailable

# A cell is in memory as a whole: 256 tiles of a megabyte each, or more tiles if some are stored twice.
MAX_CELL_BYTES = 256 << 20
MAX_ROWS = 1024
MAX_QUERY_SECONDS = 60.0
MAX_EVIDENCE = 1 << 20  # rows of one zoom that decide the order of rows: seconds, also for a view
FORMATS = ("jpg", "jpeg", "png", "webp")
_ZOOMS = frozenset(map(str, range(MAX_ZOOM + 1)))
_BOUNDS_BYTES = 256  # four numbers of full precision
_AS_TABLES = (
    "make `tiles` and `metadata` plain tables, or views of plain tables, without recursion and generated columns, "
    f"that call no function but {', '.join(sorted(FUNCTIONS))}"
)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


class MBTilesSource:
    """An open MBTiles file; a context manager, for one thread.

    `extent` is where the mission looks for tiles, and `scheme` the order of the rows where somebody named it. Raises
    Invalid unless the file is MBTiles with images and the order of its rows is decided, Unavailable if it cannot be
    opened or read (a locked file, a disk error), Corrupt for a damaged database. All of them name the file.

    `zooms` are (minzoom, maxzoom) of the metadata; None if they are absent, repeated or not a range of zooms.
    """

    zooms: tuple[int, int] | None = None
    resolution_m: None = None

    def __init__(self, path: str | os.PathLike[str], extent: Extent, scheme: Scheme | None = None) -> None:
        self.path = Path(path)
        state = regular_status(self.path, "tile source")
        self._opened = state.st_dev, state.st_ino
        self._deadline = time.monotonic() + MAX_QUERY_SECONDS
        with self._reading():
            self._db = connect(self.path)
        try:
            self._begin()
            # SQLite opens by path and does not expose its descriptor: the path must lead to one file before and after.
            check_same(self.path, self._opened)
            self.row_order: RowOrder = self._decide(extent, scheme)
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
        """End the snapshot and close the database. A second call does nothing."""
        self._db.close()

    def cell(self, cell: Tile, zoom: int) -> Iterator[tuple[int, bytes]]:
        """(tile id, encoded bytes) of every tile of `cell` at `zoom` that the file has, ids ascending.

        The bytes are empty if the row has no blob or more than 16 MiB. Raises Corrupt if two rows have the same tile
        with different bytes.
        """
        tile_id(cell)  # raises Invalid for a cell that does not exist
        check_zoom(zoom)
        depth = zoom - cell.z
        if not 0 <= depth <= CELL_ZOOMS:
            raise Invalid(f"{cell} is not a cell of tiles of zoom {zoom}", tile=str(cell), zoom=zoom)
        side = 1 << depth
        columns = range(cell.x << depth, (cell.x + 1) << depth)
        first_row = cell.y << depth if self._from_north else (1 << zoom) - ((cell.y + 1) << depth)
        rows = self._select(zoom, columns, range(first_row, first_row + side))
        if not rows:
            return
        x, stored, data = zip(*rows, strict=True)
        y = np.array(stored, np.int64) if self._from_north else (1 << zoom) - 1 - np.array(stored, np.int64)
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
        """The encoded bytes of one tile, None if the file lacks it; empty in the cases that `cell` names."""
        tile_id(tile)  # raises Invalid for a tile that does not exist
        row = tile.y if self._from_north else (1 << tile.z) - 1 - tile.y
        versions = {data for _, _, data in self._select(tile.z, range(tile.x, tile.x + 1), range(row, row + 1))}
        if len(versions) > 1:
            raise self._twice(tile)
        return versions.pop() if versions else None

    def reach(self, zoom: int, ids: NDArray[np.uint64]) -> None:
        """None: the source is not a raster."""

    def stamp(self, cells: Sequence[tuple[Tile, int]]) -> SourceStamp:  # noqa: ARG002 - a database has one stamp
        """The stamp of the database and of its `-wal` and `-journal`, for any cells.

        SQLite under root sets the owner of a log that it opens, which changes the file: a database with a log or a
        journal beside it then has another stamp each time it is opened. Raises Unavailable if the path leads to another
        file than the open one.
        """
        check_same(self.path, self._opened)
        database = os.path.realpath(self.path)  # SQLite keeps its logs beside this file, not beside a link to it
        return stamp_of([database, *(log for log in (f"{database}-wal", f"{database}-journal") if _has_content(log))])

    def _begin(self) -> None:
        """Check that this is MBTiles with images, and begin the snapshot."""
        with self._reading():
            try:
                names = begin(self._db, lambda: time.monotonic() > self._deadline)
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
                    raise self._not_mbtiles(str(error), _AS_TABLES) from None
                raise
        if len(formats) != 1 or formats[0] not in FORMATS:
            values = " and ".join(map(repr, formats)) or "missing"
            raise self._not_mbtiles(
                f"the format in its metadata is {values}, must be one of {', '.join(FORMATS)}",
                remedy="give an MBTiles file of image tiles; vector tiles cannot be described",
            )
        if lowest is not None and highest is not None and lowest <= highest:
            self.zooms = lowest, highest

    @property
    def _from_north(self) -> bool:
        return self.row_order.scheme == "xyz"

    def _decide(self, extent: Extent, scheme: Scheme | None) -> RowOrder:
        self._deadline = time.monotonic() + MAX_QUERY_SECONDS
        with self._reading():
            schemes = self._metadata("scheme")
            bounds = self._metadata("bounds", _BOUNDS_BYTES)
            rows = [one for zoom in extent.zooms if (one := self._stored_rows(zoom, extent)) is not None]
        stated = " and ".join(sorted({text for text in schemes if text is not None}))
        return row_order(self.path, "tms", Claims(stated, _bounds(bounds)), rows, scheme)

    def _stored_rows(self, zoom: int, extent: Extent) -> StoredRows | None:
        """The rows of one zoom in the columns of the area, of at most MAX_EVIDENCE tiles. Reads the index of the table,
        if it has the usual one."""
        spans = [(columns[0], columns[-1]) for columns in extent.columns(zoom)]
        tms, xyz = (extent.rows(zoom, scheme) for scheme in ("tms", "xyz"))
        query = f"""
            SELECT min(tile_row), max(tile_row),
                   coalesce(sum(tile_row BETWEEN ? AND ?), 0), coalesce(sum(tile_row BETWEEN ? AND ?), 0)
            FROM (
                SELECT tile_row FROM tiles
                WHERE zoom_level = ? AND ({" OR ".join(["tile_column BETWEEN ? AND ?"] * len(spans))})
                      AND tile_row BETWEEN 0 AND ? AND typeof(tile_row) = 'integer'
                LIMIT {MAX_EVIDENCE}
            )
            """  # noqa: S608 - only question marks and a constant are inserted
        edges = [edge for span in spans for edge in span]
        lowest, highest, from_south, from_north = self._db.execute(
            query, (tms[0], tms[-1], xyz[0], xyz[-1], zoom, *edges, (1 << zoom) - 1)
        ).fetchone()
        return None if lowest is None else StoredRows(zoom, lowest, highest, from_south, from_north)

    def _metadata(self, name: str, limit: int = 16) -> list[str | None]:
        """At most two values of a name in the metadata; None for a value that is neither a text nor a whole number of
        at most `limit` bytes."""
        # The length of the blob: SQLite counts a text only up to its first zero byte.
        rows = self._db.execute(
            "SELECT CASE WHEN typeof(value) IN ('text', 'integer') AND length(CAST(value AS BLOB)) <= ? "
            "THEN CAST(value AS TEXT) END FROM metadata WHERE name = ? LIMIT 2",
            (limit, name),
        )
        return [value for (value,) in rows]

    def _select(self, zoom: int, columns: range, rows: range) -> list[tuple[int, int, bytes]]:
        """(column, stored row, bytes) of the tiles in a rectangle of columns and stored rows, in no order."""
        # IN over at most 16 columns instead of BETWEEN: SQLite then uses the usual index (zoom, column, row) for rows
        # too, and reads the rows of the cell only, not those of 16 whole columns.
        query = f"""
            SELECT tile_column, tile_row,
                   CASE WHEN typeof(tile_data) = 'blob' AND length(tile_data) <= ? THEN tile_data ELSE x'' END
            FROM tiles
            WHERE zoom_level = ? AND tile_column IN ({", ".join("?" * len(columns))}) AND tile_row BETWEEN ? AND ?
            """  # noqa: S608 - only question marks are inserted
        tiles: list[tuple[int, int, bytes]] = []
        room = MAX_CELL_BYTES
        self._deadline = time.monotonic() + MAX_QUERY_SECONDS
        with self._reading():
            for item in self._db.execute(query, (MAX_TILE_BYTES, zoom, *columns, rows[0], rows[-1])):
                tiles.append(item)
                room -= len(item[2])
                if room < 0 or len(tiles) > MAX_ROWS:
                    raise Corrupt(
                        f"{self.path} has more than {MAX_ROWS} rows or {MAX_CELL_BYTES} bytes "
                        f"for {len(columns) * len(rows)} tiles of zoom {zoom}",
                        path=str(self.path),
                        remedy="give a file with one image of a usual size for each tile",
                    )
        for column, row, _ in tiles:
            if type(column) is not int or type(row) is not int:
                raise Corrupt(
                    f"{self.path} has a tile at column {column!r}, row {row!r} of zoom {zoom}: both must be integers",
                    path=str(self.path),
                    remedy="correct or remove that row of the table tiles",
                )
        return tiles

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """A context in which the errors of SQLite become errors that name the file."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._failed(error) from error
        except MemoryError as error:  # also SQLite's own, at its limit
            raise Unavailable(
                f"{self.path} needs more memory than a query may take",
                path=str(self.path),
                remedy="check its view `tiles`, or free memory",
            ) from error

    def _failed(self, error: sqlite3.Error) -> FlightbagError:
        code = _code(error)
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
                remedy="check its view `tiles`, or add an index on zoom, column and row",
            )
        if code == sqlite3.SQLITE_AUTH:
            return self._not_mbtiles(f"a view in it does more than to read tables: {error}", _AS_TABLES)
        if code == sqlite3.SQLITE_TOOBIG:
            return Corrupt(
                f"{self.path} has a value of more than {MAX_VALUE_BYTES} bytes",
                path=str(self.path),
                remedy="check its view `tiles`: a tile has at most 16 MiB",
            )
        return Unavailable(
            f"{self.path} cannot be read: {error}",
            path=str(self.path),
            remedy="close other programs that use the file; if it is in WAL mode, make its folder writable "
            "or leave that mode with PRAGMA journal_mode = DELETE",
        )

    def _twice(self, tile: Tile) -> Corrupt:
        return Corrupt(
            f"{self.path} has tile {tile} twice with different bytes",
            path=str(self.path),
            tile=str(tile),
            remedy="remove one of the two rows",
        )

    def _not_mbtiles(self, why: str, remedy: str = "give an MBTiles file of image tiles") -> Invalid:
        return Invalid(f"{self.path} is not a usable MBTiles file: {why}", path=str(self.path), remedy=remedy)


def _code(error: sqlite3.Error) -> int | None:
    """The primary result code of SQLite; None for an error of Python's module itself (text that is not UTF-8)."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _zoom(values: list[str | None]) -> int | None:
    """The zoom in the values of one metadata name; None unless there is exactly one, an integer of 0..24."""
    if len(values) != 1 or values[0] not in _ZOOMS:
        return None
    return int(values[0])


def _bounds(values: list[str | None]) -> tuple[float, float] | None:
    """(south, north) of the values of `bounds` in the metadata; None unless there is one, and it is a box."""
    if len(values) != 1 or values[0] is None:
        return None
    try:
        return bounds_of([float(part) for part in values[0].split(",")])
    except ValueError:
        return None


def _has_content(log: str) -> bool:
    """Whether a log of SQLite exists and has content.

    SQLite makes an empty log when it reads a database in WAL mode. If an empty log were stamped, reading would change
    the stamp.
    """
    try:
        return os.stat(log).st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise Unavailable(
            f"the state of {log} cannot be read: {error.strerror}",
            path=log,
            remedy="make its folder searchable",
            errno=error.errno,
        ) from error
