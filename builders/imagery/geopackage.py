"""GeoPackages with raster tiles (OGC 12-128r19, chapter 2.2) as a tile source.

A GeoPackage says where its tiles lie: a tile matrix set has a box in a reference system, and a tile matrix cuts it for
each zoom_level, from its upper left corner. Its tiles are those of web maps if the system is web mercator and each cut
lies on their grid, which this module computes from the numbers: the box may be the whole world or a part of it, and a
zoom_level may have any number. Anything else would have to be warped, which GDAL does.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from builders.grid.tiles import MAX_ZOOM
from builders.grid.views import EQUATOR
from builders.imagery.sqlite import Database
from builders.imagery.tiletable import Grid, TileTable
from store.errors import Invalid

_TABLES = ("gpkg_contents", "gpkg_spatial_ref_sys", "gpkg_tile_matrix_set", "gpkg_tile_matrix")
_MATRIX = ("zoom_level", "matrix_width", "matrix_height", "tile_width", "tile_height", "pixel_x_size", "pixel_y_size")
_NAME_BYTES = 256
_MAX_TABLES = 20
_MAX_LEVELS = 100
# The names that web mercator has had, by organization.
_WEB_MERCATOR = frozenset(
    (("epsg", 3857), ("epsg", 3785), ("epsg", 900913), ("osgeo", 900913), ("esri", 102100), ("esri", 102113))
)
_WARPED = (
    "make a GeoPackage on the grid of web maps: gdal_translate -of GPKG -co TILING_SCHEME=GoogleMapsCompatible IN.gpkg "
    "OUT.gpkg, or 'rio convert' with the same options; gdaladdo adds lower zooms"
)


class GeoPackageSource(TileTable):
    """The tiles of the one table of tiles in a GeoPackage.

    Raises Invalid unless there is one, on the grid of web maps, and what `Database` raises. All of them name the file.
    Closes the database then.
    """

    row_order: None = None

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        try:
            for table in _TABLES:
                if table not in database.names:
                    raise database.unusable(f"it has no table {table}", "give a GeoPackage of raster tiles")
            self.name = self._only_table()
            self.table = '"' + self.name.replace('"', '""') + '"'
            self.inspect()
            self._grids, self._off = self._matrices()
        except BaseException:
            database.close()
            raise
        self.zooms = min(self._grids), max(self._grids)

    def grid(self, zoom: int) -> Grid | None:
        return self._grids.get(zoom)

    @property
    def notes(self) -> tuple[str, ...]:
        if not self._off:
            return super().notes
        levels = ", ".join(map(str, self._off))
        return (*super().notes, f"its zoom_level {levels} is not on the grid of web maps, and is not read")

    def _only_table(self) -> str:
        query = f"""
            SELECT CASE WHEN typeof(table_name) = 'text' AND length(CAST(table_name AS BLOB)) <= {_NAME_BYTES}
                   THEN table_name END FROM gpkg_contents WHERE data_type = 'tiles' LIMIT {_MAX_TABLES}
            """  # noqa: S608 - constants
        names = [name for (name,) in self._rows(query)]
        known = sorted(str(name) for name in names if name is not None and name.lower() in self._database.names)
        if len(known) == 1:
            return known[0]
        if not known:
            raise self._unusable(
                "it has no table of raster tiles" + (", though it lists one" if names else ""),
                "give a GeoPackage of raster tiles; features and elevations cannot be described",
            )
        wanted = known[0].replace("'", "''")
        statement = f"DELETE FROM gpkg_contents WHERE data_type = 'tiles' AND table_name <> '{wanted}'"  # noqa: S608
        raise self._unusable(
            f"it has {len(known)} tables of tiles ({', '.join(map(repr, known))}), and one is needed",
            f"copy the file, and leave one in the list of the copy: sqlite3 COPY.gpkg {shlex.quote(statement)}",
        )

    def _matrices(self) -> tuple[dict[int, Grid], list[int]]:
        """The grid of each zoom, and the zoom_levels that are on none."""
        boxes = self._of_table(("srs_id", "min_x", "min_y", "max_x", "max_y"), "gpkg_tile_matrix_set", 2)
        if len(boxes) != 1:
            raise self._unusable(f"{self.name} has {len(boxes)} tile matrix sets, must have one", _WARPED)
        srs, *edges = boxes[0]
        self._check_system(srs)
        box = _Box(*(self._number(edge, "the box of its tile matrix set") for edge in edges))
        grids: dict[int, Grid] = {}
        off: list[int] = []
        for level, *numbers in self._of_table(_MATRIX, "gpkg_tile_matrix", _MAX_LEVELS):
            numbers = [self._number(number, f"a tile matrix of {self.name}") for number in numbers]
            if type(level) is not int or not all(number > 0 for number in numbers):
                raise self._unusable(f"a tile matrix of {self.name} has a number that is not above 0", _WARPED)
            placed = _grid(box, level, *numbers)
            if isinstance(placed, str):
                raise self._unusable(f"zoom_level {level} of {self.name}: {placed}", _WARPED)
            if placed is None:
                off.append(level)
                continue
            zoom, grid = placed
            if zoom in grids:
                raise self._unusable(f"{self.name} has two tile matrices of zoom {zoom}", _WARPED)
            grids[zoom] = grid
        if not grids:
            why = "none of its tile matrices is on the grid of web maps" if off else "it has no tile matrix"
            raise self._unusable(f"{self.name}: {why}", _WARPED)
        return grids, off

    def _check_system(self, srs: object) -> None:
        query = f"""
            SELECT CASE WHEN typeof(organization) = 'text' AND length(CAST(organization AS BLOB)) <= {_NAME_BYTES}
                   THEN organization END, {_number("organization_coordsys_id")}
            FROM gpkg_spatial_ref_sys WHERE srs_id = ? LIMIT 2
            """  # noqa: S608 - constants
        systems = [(str(organization).lower(), number) for organization, number in self._rows(query, (srs,))]
        if len(systems) != 1 or systems[0] not in _WEB_MERCATOR:
            names = " and ".join(f"{organization.upper()}:{number}" for organization, number in systems)
            raise self._unusable(f"{self.name} is in {names or 'no known system'}, must be in EPSG:3857", _WARPED)

    def _of_table(self, columns: Sequence[str], table: str, limit: int) -> list[tuple[Any, ...]]:
        """The numbers in these columns of the rows that a table of the standard has for the table of tiles."""
        query = (
            f"SELECT {', '.join(map(_number, columns))} FROM {table} WHERE table_name = ? COLLATE NOCASE LIMIT {limit}"  # noqa: S608
        )
        return self._rows(query, (self.name,))

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._database.querying():
            return list(self._database.rows(query, values))

    def _number(self, value: object, what: str) -> float:
        if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
            raise self._unusable(f"{what} has a value that is no number", _WARPED)
        return float(value)  # type: ignore[arg-type]

    def _unusable(self, why: str, remedy: str) -> Invalid:
        return self._database.unusable(why, remedy)


def _number(column: str) -> str:
    """The SQL of a number in a column, NULL for anything else: a view may give texts of any length."""
    return f"CASE WHEN typeof({column}) IN ('integer', 'real') THEN {column} END"


class _Box(NamedTuple):
    """Metres of web mercator."""

    west: float
    south: float
    east: float
    north: float


def _grid(
    box: _Box, level: int, wide: float, high: float, tile_x: float, tile_y: float, pixel_x: float, pixel_y: float
) -> tuple[int, Grid] | str | None:
    """(zoom, grid) of a tile matrix; None if it is off the grid of web maps by more than half a pixel anywhere; what
    contradicts what, if its box and its pixels give other tiles."""
    across, down = tile_x * pixel_x, tile_y * pixel_y
    if not 0 < across <= 2 * EQUATOR:
        return None
    if abs(across * wide - (box.east - box.west)) > pixel_x or abs(down * high - (box.north - box.south)) > pixel_y:
        return (
            f"its {wide:g} x {high:g} tiles of {tile_x:g} x {tile_y:g} pixels of {pixel_x:g} x {pixel_y:g} m do not "
            f"fill the box of {box.east - box.west:g} x {box.north - box.south:g} m"
        )
    zoom = round(math.log2(EQUATOR / across))
    if not 0 <= zoom <= MAX_ZOOM:
        return None
    side, world = EQUATOR / (1 << zoom), 1 << zoom
    edges = {
        "west": (box.west + EQUATOR / 2) / side,
        "east": (box.east + EQUATOR / 2) / side,
        "north": (EQUATOR / 2 - box.north) / side,
        "south": (EQUATOR / 2 - box.south) / side,
    }
    if any(abs(edge - min(max(round(edge), 0), world)) > 0.5 / max(tile_x, tile_y) for edge in edges.values()):
        return None
    columns = range(round(edges["west"]), round(edges["east"]))
    rows = range(round(edges["north"]), round(edges["south"]))
    return (zoom, Grid(level, columns, rows, 0, 1)) if (len(columns), len(rows)) == (wide, high) else None
