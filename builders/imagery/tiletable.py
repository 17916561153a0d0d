"""A table of tiles in a database from outside: the encoded bytes of the tiles of one cell, in the order of their ids.

MBTiles and GeoPackages have the same four columns. They differ in how they number zooms and rows: see `Grid`.

All access is read-only SQL: the table may be a view, and the database may be in WAL mode. All reads between opening and
closing see one snapshot, so the bytes that are described are the bytes that were hashed for a build key. This module
writes nothing; SQLite itself keeps a `-wal` and a `-shm` file beside a database in WAL mode.

A table without an index on its columns is walked once for each zoom, and then read by the numbers of its rows. A view
without one is walked for each cell, as far as a query may take.

No image is decoded here. A row whose data is NULL is no tile. A row whose data is not a blob, or is too large for a
tile, gives empty bytes, which no decoder accepts: such a tile is present and undecodable, not absent.
"""

from __future__ import annotations

import itertools
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from builders.grid.tiles import MAX_TILE_BYTES, Bounds, Tile, bounds_of_tiles, cell_spans, tile_id, tile_ids
from builders.imagery.inflate import unpacked
from builders.imagery.sqlite import Database
from builders.imagery.stamps import SourceStamp
from store.errors import Corrupt

if TYPE_CHECKING:
    from typing_extensions import Self

# A cell is in memory as a whole: 256 tiles of a megabyte each, or more tiles if some are stored twice.
MAX_CELL_BYTES = 256 << 20
MAX_ROWS = 1024
MAX_WALKED = 1 << 22  # rows of one zoom in a table without an index: 24 bytes each in memory
_AT_ONCE = 1 << 17
_TOGETHER = 200  # rows in one query; SQLite's limit of variables is 256
DATA = "CASE WHEN typeof(tile_data) = 'blob' AND length(tile_data) <= ? THEN tile_data ELSE x'' END"
_PLACES = ("zoom_level", "tile_column", "tile_row")
_BY_INDEX = re.compile(r"\btile_(column|row)[=<>]")
_WALKS = re.compile(r"^SCAN (?!CONSTANT ROW|\(?subquery)", re.IGNORECASE)


class Grid(NamedTuple):
    """How a table numbers the tiles of one zoom: `level` is its zoom_level, `columns` and `rows` are those of the
    world that it covers, and `row` is what it calls the first of `rows`; further ones follow by `step`."""

    level: int
    columns: range
    rows: range
    row: int
    step: int

    def stored(self, rows: range) -> range:
        """What the table calls these rows of the world, ascending."""
        ends = [self.row + self.step * (row - self.rows[0]) for row in (rows[0], rows[-1])]
        return range(min(ends), max(ends) + 1)


class _Walked(NamedTuple):
    """The rows of one zoom, by column: int64[n] each."""

    columns: NDArray[np.int64]
    rows: NDArray[np.int64]
    numbers: NDArray[np.int64]


class TileTable(ABC):
    """A table of tiles as a tile source; a context manager, for one thread. It closes the database.

    A kind of source says which table it is (its `name`, and `table`, the same as SQL), and gives the grid of each zoom.
    """

    name: str
    table: str
    stated: str = ""
    zooms: tuple[int, int] | None = None
    resolution_m: None = None

    def __init__(self, database: Database) -> None:
        self._database = database
        self._walked: dict[int, _Walked] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def grid(self, zoom: int) -> Grid | None:
        """How the table numbers the tiles of a zoom, None if it has none of that zoom."""

    @property
    def path(self) -> Path:
        return self._database.path

    def close(self) -> None:
        """End the snapshot and close the database. A second call does nothing."""
        self._database.close()

    def cell(self, cell: Tile, zoom: int) -> Iterator[tuple[int, bytes]]:
        """(tile id, encoded bytes) of every tile of `cell` at `zoom` that the file has, ids ascending.

        Bytes in gzip are inflated. They are empty if the row has no blob or more than 16 MiB. Raises Corrupt if two
        rows have the same tile with different bytes.
        """
        columns, rows = cell_spans(cell, zoom)
        yield from self._tiles(zoom, columns, rows)

    def read(self, tile: Tile) -> bytes | None:
        """The encoded bytes of one tile, None if the file lacks it; empty in the cases that `cell` names."""
        tile_id(tile)  # raises Invalid for a tile that does not exist
        versions = dict(self._tiles(tile.z, range(tile.x, tile.x + 1), range(tile.y, tile.y + 1)))
        return next(iter(versions.values()), None)

    def reach(self, zoom: int, ids: NDArray[np.uint64]) -> NDArray[np.uint8] | None:  # noqa: ARG002 - of the protocol
        """None: the source is not a raster."""
        return None

    def bounds(self, zoom: int) -> Bounds | None:
        """The box in which its tiles of a zoom lie."""
        grid = self.grid(zoom)
        if grid is None:
            return None
        query = f"""
            SELECT min(tile_column), max(tile_column), min(tile_row), max(tile_row) FROM {self.table}
            WHERE zoom_level = ? AND typeof(tile_column) = 'integer' AND typeof(tile_row) = 'integer'
                  AND tile_column BETWEEN 0 AND ? AND tile_row BETWEEN ? AND ?
            """  # noqa: S608 - a quoted name
        rows = grid.stored(grid.rows)
        with self._database.querying():
            values = (grid.level, len(grid.columns) - 1, rows[0], rows[-1])
            ((left, right, lowest, highest),) = self._database.rows(query, values)
        if left is None:
            return None
        ends = sorted((row - grid.row) * grid.step + grid.rows[0] for row in (lowest, highest))
        first = grid.columns[0]
        return bounds_of_tiles(zoom, (left + first, right + first), (ends[0], ends[1]))

    def stamp(self, cells: Sequence[tuple[Tile, int]]) -> SourceStamp:  # noqa: ARG002 - a database has one stamp
        """The stamp of the database, for any cells."""
        return self._database.stamp()

    @property
    def notes(self) -> tuple[str, ...]:
        """What makes reading slow, and the command that ends it; none where an index leads to each cell."""
        if self._is_indexed:
            return ()
        if self._is_view:
            return (f"its view {self.name} walks whole tables for each cell: add indexes to the tables under it",)
        return (f"it has no index on the place of its tiles, so each zoom is walked: run {self._create_index}",)

    @property
    def _create_index(self) -> str:
        return self._command(f"CREATE INDEX of_tiles ON {self.table} (zoom_level, tile_column, tile_row)")

    def _command(self, statements: str) -> str:
        return f"sqlite3 {shlex.quote(str(self.path))} {shlex.quote(statements)}"

    def inspect(self) -> None:
        """Look at the table: its four columns, whether it is a view, and whether an index leads to a tile.

        Raises Invalid if it lacks one of them, and for a table of places in fractions, or in text: SQLite compares text
        letter by letter, and finds "9" after "10".
        """
        with self._database.querying():
            present = self._database.columns(self.table)
        if lacking := [column for column in (*_PLACES, "tile_data") if column not in present]:
            raise self._database.unusable(
                f"{self.name} lacks the columns {', '.join(lacking)}",
                "convert it to MBTiles with the program that made it, or make a view that names its columns so",
            )
        # IN instead of = as in the queries below.
        query = (
            f"SELECT tile_data FROM {self.table} "  # noqa: S608 - a quoted name
            "WHERE zoom_level = 1 AND tile_column IN (1, 2) AND tile_row BETWEEN 1 AND 2"
        )
        with self._database.querying():
            plan = [row[3] for row in self._database.rows(f"EXPLAIN QUERY PLAN {query}")]
        self._is_view = self._database.names[self.name.lower()] == "view"
        if self._is_view:
            self._is_indexed = not any(_WALKS.match(line) for line in plan)
            return
        self._is_indexed = any(_BY_INDEX.search(line) for line in plan)
        of_place = (f"CASE WHEN typeof({p}) <> 'real' OR {p} = round({p}) THEN typeof({p}) END" for p in _PLACES)
        first = f"SELECT {', '.join(of_place)} FROM {self.table} LIMIT 1"  # noqa: S608 - quoted names
        with self._database.querying():
            types = next(self._database.rows(first), ())
        if wrong := {"text", "real"} & set(types):
            statements = (
                f"ALTER TABLE {self.table} RENAME TO of_text",
                f"CREATE TABLE {self.table} ({' INTEGER, '.join(_PLACES)} INTEGER, tile_data BLOB)",
                f"INSERT INTO {self.table} SELECT {', '.join(_PLACES)}, tile_data FROM of_text",  # noqa: S608
                "DROP TABLE of_text",
            )
            raise self._database.unusable(
                f"the columns {', '.join(_PLACES)} of {self.name} hold {' and '.join(sorted(wrong))} "
                "instead of whole numbers",
                f"make them whole numbers: {self._command('; '.join(statements))}",
            )

    def _tiles(self, zoom: int, columns: range, rows: range) -> Iterator[tuple[int, bytes]]:
        """(tile id, bytes) of the tiles in a rectangle of the world, ids ascending."""
        grid = self.grid(zoom)
        if grid is None:
            return
        columns, rows = _common(columns, grid.columns), _common(rows, grid.rows)
        if not columns or not rows:
            return
        left = grid.columns[0]
        stored = self._select(grid.level, range(columns[0] - left, columns[-1] - left + 1), grid.stored(rows))
        if not stored:
            return
        x, y, data = zip(*stored, strict=True)
        world_x = np.array(x, np.int64) + left
        world_y = (np.array(y, np.int64) - grid.row) * grid.step + grid.rows[0]
        ids = tile_ids(zoom, world_x, world_y)
        last: tuple[int, bytes] | None = None
        for place in np.argsort(ids, kind="stable").tolist():
            this = int(ids[place]), data[place]
            if last is None or this[0] != last[0]:
                yield this[0], unpacked(this[1])
            elif this[1] != last[1]:
                raise self._twice(Tile(zoom, int(world_x[place]), int(world_y[place])))
            last = this

    def _select(self, level: int, columns: range, rows: range) -> list[tuple[int, int, bytes]]:
        """(column, row, bytes) of the tiles in a rectangle of the table, in no order."""
        tiles: list[tuple[int, int, bytes]] = []
        room = MAX_CELL_BYTES
        with self._database.querying():
            for item in self._selected(level, columns, rows):
                tiles.append(item)
                room -= len(item[2])
                if room < 0 or len(tiles) > MAX_ROWS:
                    raise Corrupt(
                        f"{self.path} has more than {MAX_ROWS} rows or {MAX_CELL_BYTES} bytes "
                        f"for {len(columns) * len(rows)} tiles of zoom {level}",
                        path=str(self.path),
                        remedy="give a file with one image of a usual size for each tile",
                    )
        for column, row, _ in tiles:
            self._check_place(level, column, row)
        return tiles

    def _selected(self, level: int, columns: range, rows: range) -> Iterator[tuple[int, int, bytes]]:
        if self._is_indexed or self._is_view:
            # IN over at most 16 columns instead of BETWEEN: SQLite then uses the usual index (zoom, column, row) for
            # rows too, and reads the rows of the cell only, not those of 16 whole columns.
            yield from self._database.rows(
                f"""
                SELECT tile_column, tile_row, {DATA} FROM {self.table}
                WHERE zoom_level = ? AND tile_column IN ({_marks(len(columns))}) AND tile_row BETWEEN ? AND ?
                      AND tile_data IS NOT NULL
                """,  # noqa: S608 - a quoted name, constants and question marks
                (MAX_TILE_BYTES, level, *columns, rows[0], rows[-1]),
            )
            return
        if level not in self._walked:
            self._walked[level] = self._walk(level)
        walked = self._walked[level]
        some = slice(*np.searchsorted(walked.columns, (columns[0], columns[-1] + 1)).tolist())
        within = (walked.rows[some] >= rows[0]) & (walked.rows[some] <= rows[-1])
        numbers = np.sort(walked.numbers[some][within]).tolist()
        for start in range(0, len(numbers), _TOGETHER):
            part = numbers[start : start + _TOGETHER]
            yield from self._database.rows(
                f"SELECT tile_column, tile_row, {DATA} FROM {self.table} "  # noqa: S608 - as above
                f"WHERE _rowid_ IN ({_marks(len(part))}) AND tile_data IS NOT NULL",
                (MAX_TILE_BYTES, *part),
            )

    def _walk(self, level: int) -> _Walked:
        """The places of all tiles of a zoom, by column."""
        query = (
            f"SELECT tile_column, tile_row, _rowid_ FROM {self.table} "  # noqa: S608 - a quoted name
            "WHERE zoom_level = ? AND tile_column IS NOT NULL AND tile_row IS NOT NULL"
        )
        found = np.empty((0, 3), np.int64)
        rows = self._database.rows(query, (level,))
        while part := [self._checked(level, place) for place in itertools.islice(rows, _AT_ONCE)]:
            found = np.concatenate([found, np.array(part, np.int64)])
            if len(found) > MAX_WALKED:
                raise self._database.unusable(
                    f"it has more than {MAX_WALKED} tiles of zoom {level} and no index", f"run {self._create_index}"
                )
        return _Walked(*found[np.argsort(found[:, 0], kind="stable")].T)

    def _checked(self, level: int, place: tuple[int, int, int]) -> tuple[int, int, int]:
        """The column, row and number of a row; one by one, since a row may have texts of many megabytes."""
        self._check_place(level, *place[:2])
        return place

    def _check_place(self, level: int, column: object, row: object) -> None:
        if type(column) is not int or type(row) is not int:
            place = f"column {repr(column)[:40]}, row {repr(row)[:40]} of zoom {level}"
            raise Corrupt(
                f"{self.path} has a tile at {place}: both must be integers",
                path=str(self.path),
                remedy=f"correct or remove that row of the table {self.name}",
            )

    def _twice(self, tile: Tile) -> Corrupt:
        return Corrupt(
            f"{self.path} has tile {tile} twice with different bytes",
            path=str(self.path),
            tile=str(tile),
            remedy="remove one of the two rows",
        )


def _common(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))


def _marks(count: int) -> str:
    return ", ".join("?" * count)
