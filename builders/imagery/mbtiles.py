"""MBTiles as a tile source, by version 1.3 of its specification and as the world writes it.

The specification counts rows from the south. `builders.imagery.roworder` decides which order a file really has.

The metadata decide nothing: many files have none, or a `format` of their own. The bytes of the tiles are what they are.
Only a file that calls its tiles vectors, and shows no image, is refused.
"""

from __future__ import annotations

from builders.grid.tiles import MAX_TILE_BYTES, MAX_ZOOM
from builders.imagery.inflate import unpacked
from builders.imagery.roworder import Claims, Extent, RowOrder, Scheme, StoredRows, bounds_of, row_order
from builders.imagery.signature import FOREIGN, format_of, plain_name
from builders.imagery.sqlite import Database
from builders.imagery.tiletable import DATA, Grid, TileTable

MAX_EVIDENCE = 1 << 20  # rows of one zoom that decide the order of rows: seconds, also for a view
_ZOOMS = frozenset(map(str, range(MAX_ZOOM + 1)))
_BOUNDS_BYTES = 256  # four numbers of full precision
_FORMAT_BYTES = 64


class MBTilesSource(TileTable):
    """The tiles of an MBTiles file.

    `extent` is where the mission looks for tiles, and `scheme` the order of the rows where somebody named it. Raises
    Invalid unless the file has a table or view `tiles` of images and the order of its rows is decided, and what
    `Database` raises. All of them name the file. Closes the database then.

    `zooms` are (minzoom, maxzoom) of the metadata; None if they are absent, repeated or not a range of zooms. `stated`
    is the format in the metadata, "" for none.
    """

    name = table = "tiles"

    def __init__(self, database: Database, extent: Extent, scheme: Scheme | None = None) -> None:
        super().__init__(database)
        try:
            if "tiles" not in database.names:
                raise database.unusable("it has no table or view tiles", "give an MBTiles file of image tiles")
            self.inspect()
            self.row_order: RowOrder = self._opened(extent, scheme)
        except BaseException:
            database.close()
            raise

    def grid(self, zoom: int) -> Grid:
        world = range(1 << zoom)
        if self.row_order.scheme == "xyz":
            return Grid(zoom, world, world, 0, 1)
        return Grid(zoom, world, world, world[-1], -1)

    def _opened(self, extent: Extent, scheme: Scheme | None) -> RowOrder:
        """Read the metadata, and return the order of the rows."""
        with self._database.querying():
            formats = self._metadata("format", _FORMAT_BYTES)
            lowest, highest = (_zoom(self._metadata(name)) for name in ("minzoom", "maxzoom"))
            schemes = self._metadata("scheme")
            bounds = self._metadata("bounds", _BOUNDS_BYTES)
        if lowest is not None and highest is not None and lowest <= highest:
            self.zooms = lowest, highest
        self.stated = " and ".join(sorted({text for text in formats if text}))
        if plain_name(self.stated) in FOREIGN and not self._has_image():
            raise self._database.unusable(
                f"the format in its metadata is {self.stated!r}, and it shows no image",
                "give an MBTiles file of image tiles; vector tiles cannot be described",
            )
        with self._database.querying():
            rows = [one for zoom in extent.zooms if (one := self._stored_rows(zoom, extent)) is not None]
        stated = " and ".join(sorted({text for text in schemes if text is not None}))
        return row_order(self.path, "tms", Claims(stated, _bounds(bounds)), rows, scheme)

    def _has_image(self) -> bool:
        """Whether the first tile of the file is an image, whatever its metadata say."""
        query = f"SELECT {DATA} FROM tiles WHERE tile_data IS NOT NULL LIMIT 1"  # noqa: S608 - a constant
        with self._database.querying():
            return any(format_of(unpacked(data)) for (data,) in self._database.rows(query, (MAX_TILE_BYTES,)))

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
        values = (tms[0], tms[-1], xyz[0], xyz[-1], zoom, *edges, (1 << zoom) - 1)
        ((lowest, highest, from_south, from_north),) = self._database.rows(query, values)
        return None if lowest is None else StoredRows(zoom, lowest, highest, from_south, from_north)

    def _metadata(self, name: str, limit: int = 16) -> list[str | None]:
        """At most two values of a name in the metadata; None for a value that is neither a text nor a whole number of
        at most `limit` bytes. A file without metadata, or with a table of other columns, has none."""
        if "metadata" not in self._database.names or not self._database.columns("metadata") >= {"name", "value"}:
            return []
        # The length of the blob: SQLite counts a text only up to its first zero byte.
        rows = self._database.rows(
            "SELECT CASE WHEN typeof(value) IN ('text', 'integer') AND length(CAST(value AS BLOB)) <= ? "
            "THEN CAST(value AS TEXT) END FROM metadata WHERE name = ? LIMIT 2",
            (limit, name),
        )
        return [value for (value,) in rows]


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
