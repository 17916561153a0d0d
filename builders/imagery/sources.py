"""Tile sources: the imagery of a map, in one of five containers, behind one protocol.

`open_source` decides by the content of a path, not by its name: a folder is one of tiles z/x/y, or of GeoTIFFs; a file
is PMTiles, GeoTIFF, a VRT or a database by its first bytes, and a database is a GeoPackage or MBTiles by its tables.
All other modules see a `TileSource` only.

This module reads no tile and parses no container. Each kind of source checks for itself what it opens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from builders.files import open_regular
from builders.grid.tiles import Bounds, Tile
from builders.imagery.geopackage import GeoPackageSource
from builders.imagery.mbtiles import MBTilesSource
from builders.imagery.mosaic import is_raster
from builders.imagery.roworder import Extent, RowOrder, Scheme
from builders.imagery.sqlite import Database
from builders.imagery.stamps import SourceStamp
from builders.imagery.xyz import XyzSource
from store.disk.opening import nearest
from store.errors import Invalid, Unavailable

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SourceStamp", "TileSource", "open_source"]

_REMEDY = "name an MBTiles, GeoPackage, PMTiles or GeoTIFF file, a VRT, or a folder of tiles z/x/y or of GeoTIFFs"
# What orthophotos are delivered in beside GeoTIFF.
_PICTURES = {
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xffO\xffQ": "JPEG 2000",
    b"msid": "MrSID",
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
}
_SQLITE = b"SQLite format 3\0"
# The last two are versions 1 and 2, which the source refuses with a message of its own.
_PMTILES = (b"PMTiles", b"PM\x01\0", b"PM\x02\0")


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

    def bounds(self, zoom: int) -> Bounds | None:
        """The box in which its tiles of a zoom lie, as far as that can be known without walking all of them; None where
        it has none of that zoom."""

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
    *,
    beside: Sequence[Path] = (),
    bands: tuple[int, ...] | None = None,
    stretch: tuple[int, int] | None = None,
) -> TileSource:
    """The open source at `path`. `tile_size`, in pixels a side, `bands`, those of the colours, and `stretch`, of
    16 bits, are for sources that cut tiles from rasters. `beside` are further rasters of the same source.

    `extent` is where the mission looks for tiles, and `scheme` the order of the rows of an MBTiles file or a folder
    where somebody named it. Raises Invalid for a path of none of the five kinds and for a scheme of another container,
    Unavailable if the system cannot read it or a library is not installed, and the errors of the source of its kind.
    """
    start = b"" if os.path.isdir(path) else _first_bytes(path)
    if is_raster(path, start):
        if scheme is not None:
            raise _no_scheme(path, scheme)
        from builders.imagery.geotiff import GeoTiffSource

        return GeoTiffSource((path, *beside), tile_size, bands, stretch)
    for key, given, remedy in (
        ("bands", bands, "remove bands from its table [[tiles]]"),
        ("stretch", stretch, "remove stretch from its table [[tiles]]"),
        ("a list of paths", beside or None, "give each source a table [[tiles]] of its own"),
    ):
        if given is not None:
            raise Invalid(
                f"tile source {path} is not a GeoTIFF, and {key} is for GeoTIFFs only", path=str(path), remedy=remedy
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
    if scheme is not None and start.startswith(_PMTILES):
        raise _no_scheme(path, scheme)
    if start.startswith(_PMTILES):
        from builders.imagery.pmtiles import PMTilesSource

        return PMTilesSource(path)
    for magic, kind in _PICTURES.items():
        if start.startswith(magic):
            raise Invalid(
                f"tile source {path} is a {kind} file",
                path=str(path),
                remedy="make a GeoTIFF of it with gdal_translate -of GTiff, and -a_srs if the file has no projection, "
                f"or {_REMEDY}",
            )
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
        near = "" if os.path.lexists(path) else nearest(path)
        remedy = f"give {near}, or {_REMEDY}" if near else _REMEDY
        raise Invalid(error.message, remedy=remedy, path=str(path)) from None
    except OSError as error:
        raise Unavailable(
            f"tile source {path} cannot be read: {error.strerror}",
            path=str(path),
            remedy="check that its disk is mounted and sound",
            errno=error.errno,
        ) from error
