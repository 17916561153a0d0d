"""Tile sources: the imagery of a map, in one of five containers, behind one protocol.

`open_source` decides by the content of a path, not by its name: a folder is one of tiles z/x/y; a file is PMTiles,
GeoTIFF or a database by its first bytes, and a database is a GeoPackage or MBTiles by its tables. All other modules see
a `TileSource` only.

This module reads no tile and parses no container. Each kind of source checks for itself what it opens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from builders.files import open_regular
from builders.grid.tiles import Tile
from builders.imagery.geopackage import GeoPackageSource
from builders.imagery.mbtiles import MBTilesSource
from builders.imagery.roworder import Extent, RowOrder, Scheme
from builders.imagery.sqlite import Database
from builders.imagery.stamps import SourceStamp
from builders.imagery.xyz import XyzSource
from store.errors import Invalid, Unavailable

__all__ = ["SourceStamp", "TileSource", "open_source"]

_REMEDY = "give the path of an MBTiles, GeoPackage, PMTiles or GeoTIFF file, or of a folder of tiles z/x/y"
_SQLITE = b"SQLite format 3\0"
# The last two are versions 1 and 2, which the source refuses with a message of its own.
_PMTILES = (b"PMTiles", b"PM\x01\0", b"PM\x02\0")
# TIFF and BigTIFF, of either byte order.
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class TileSource(Protocol):
    """An open source of image tiles; a context manager, for one thread.

    All errors name the file. Corrupt: the container is damaged. Invalid: the file is not such a container, or the cell
    or tile does not exist. Unavailable: the system cannot read the file, or somebody replaced or changed it since it
    was opened.
    """

    @property
    def path(self) -> Path:
        """The path that was opened."""

    @property
    def zooms(self) -> tuple[int, int] | None:
        """(lowest, highest) zoom by the metadata of the source; None without such metadata."""

    @property
    def resolution_m(self) -> float | None:
        """Native ground resolution in metres per pixel at the middle of the source; None if it is not known."""

    @property
    def row_order(self) -> RowOrder | None:
        """The order of the rows in the source; None where the container numbers its tiles itself."""

    @property
    def stated(self) -> str:
        """The format of its tiles by the metadata of the source, in its own words; "" without any."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is unusual about the source, and what to do about it. The tiles are read all the same."""

    def cell(self, cell: Tile, zoom: int) -> Iterator[tuple[int, bytes]]:
        """(PMTiles id, encoded bytes) of every tile of `cell` at `zoom` that the source has, ids ascending.

        `zoom` is at most four above that of the cell. The bytes are an image file of any format, which nobody has
        decoded yet. They are empty for a tile that is present and cannot be decoded, such as one of more than 16 MiB.
        """

    def read(self, tile: Tile) -> bytes | None:
        """The encoded bytes of one tile, None if the source lacks it; empty in the cases that `cell` names."""

    def reach(self, zoom: int, ids: NDArray[np.uint64]) -> NDArray[np.uint8] | None:
        """uint8[n] of a raster: how much of each of these tiles lies in it, 0 no pixel, 1 some, 2 all of them. None of
        a source whose tiles are files: it has a tile, or lacks it."""

    def stamp(self, cells: Sequence[tuple[Tile, int]]) -> SourceStamp:
        """The stamp of these cells, each with the zoom of its tiles: any change of a tile in them changes it.

        Reads no tile. A source may stamp more than the cells, such as the whole file.
        """

    def close(self) -> None:
        """Close the source. A second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_source(
    path: Path,
    tile_size: int,
    extent: Extent,
    scheme: Scheme | None = None,
    bands: tuple[int, ...] | None = None,
) -> TileSource:
    """The open source at `path`. `tile_size`, in pixels a side, and `bands`, those of the colours, are for sources that
    cut tiles from a raster.

    `extent` is where the mission looks for tiles, and `scheme` the order of the rows of an MBTiles file or a folder
    where somebody named it. Raises Invalid for a path of none of the five kinds and for a scheme of another container,
    Unavailable if the system cannot read it or a library is not installed, and the errors of the source of its kind.
    """
    start = b"" if os.path.isdir(path) else _first_bytes(path)
    if bands is not None and not start.startswith(_TIFF):
        raise Invalid(
            f"tile source {path} has no bands to choose from: it is not a GeoTIFF",
            path=str(path),
            remedy="remove bands from its table [[tiles]]",
        )
    if os.path.isdir(path):
        return XyzSource(path, tile_size, extent, scheme)
    if start == _SQLITE:
        database = Database(path)
        if database.kind == "MBTiles file":
            return MBTilesSource(database, extent, scheme)
        if scheme is None:
            return GeoPackageSource(database)
        database.close()
        raise _no_scheme(path, scheme)
    if scheme is not None and start.startswith((*_PMTILES, *_TIFF)):
        raise _no_scheme(path, scheme)
    if start.startswith(_PMTILES):
        from builders.imagery.pmtiles import PMTilesSource

        return PMTilesSource(path)
    if start.startswith(_TIFF):
        from builders.imagery.geotiff import GeoTiffSource

        return GeoTiffSource(path, tile_size, bands)
    raise Invalid(f"tile source {path} is {'of no known kind' if start else 'empty'}", path=str(path), remedy=_REMEDY)


def _no_scheme(path: Path, scheme: Scheme) -> Invalid:
    return Invalid(
        f'tile source {path} has no scheme = "{scheme}": only MBTiles files and folders have rows of either order',
        path=str(path),
        remedy="leave the scheme out",
    )


def _first_bytes(path: Path) -> bytes:
    """The first 16 bytes of a file, fewer of a smaller one."""
    try:
        with open_regular(path, "tile source") as file:
            return file.read(len(_SQLITE))
    except Invalid as error:  # the remedy is for somebody who knows which kinds of source exist
        raise Invalid(error.message, remedy=_REMEDY, path=str(path)) from None
    except OSError as error:
        raise Unavailable(
            f"tile source {path} cannot be read: {error.strerror}",
            path=str(path),
            remedy="check that its disk is mounted and sound",
            errno=error.errno,
        ) from error
