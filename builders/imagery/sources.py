"""Tile sources: where the imagery of a map comes from, whatever it is kept in.

`open_source` looks at what a path leads to, not at its name: a folder is XYZ, a file is MBTiles, PMTiles or GeoTIFF by
its first bytes. Everything above sees a `TileSource` only.

Reads no tile and parses nothing itself; each kind of source checks again what it opens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from builders.files import open_regular
from builders.grid.tiles import Tile
from builders.imagery.mbtiles import MBTilesSource
from builders.imagery.stamps import SourceStamp
from builders.imagery.xyz import XyzSource
from store.errors import Invalid, Unavailable

__all__ = ["SourceStamp", "TileSource", "open_source"]

_REMEDY = "give the path of an MBTiles, PMTiles or GeoTIFF file, or of a folder of tiles z/x/y"
_SQLITE = b"SQLite format 3\0"
# Versions 1 and 2 begin otherwise; that they are too old, the source says.
_PMTILES = (b"PMTiles", b"PM\x01\0", b"PM\x02\0")
# TIFF and BigTIFF, of either byte order.
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class TileSource(Protocol):
    """An open source of image tiles; a context manager, for one thread.

    All errors name the file: Corrupt for what is damaged, Invalid for what is no such source or a cell or tile that
    does not exist, Unavailable for what cannot be read, or is no longer what was opened.
    """

    @property
    def path(self) -> Path:
        """What was opened."""

    @property
    def zooms(self) -> tuple[int, int] | None:
        """(lowest, highest) zoom that the source says it has, None where it says nothing."""

    @property
    def resolution_m(self) -> float | None:
        """Native ground resolution in metres a pixel at the middle of the source, None where it does not know."""

    def cell(self, cell: Tile, zoom: int) -> Iterator[tuple[int, bytes]]:
        """(PMTiles id, encoded bytes) of every tile of `cell` at `zoom` that the source has, ids ascending.

        `zoom` lies at most four below the cell. The bytes are those of an image file of any format, not yet looked
        at; empty for a tile that is there and can be none, such as one of more than 16 MiB.
        """

    def read(self, tile: Tile) -> bytes | None:
        """The encoded bytes of one tile, None where the source has none; empty as `cell` says."""

    def stamp(self, cells: Sequence[tuple[Tile, int]]) -> SourceStamp:
        """What differs whenever a tile of these cells, each with the zoom of its tiles, may have changed.

        Reads no tile. A source may stamp more than the cells: a whole file.
        """

    def close(self) -> None:
        """Closes the source. Closing twice is fine."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_source(path: Path, tile_size: int) -> TileSource:
    """The source at `path`, open. `tile_size` (pixels a side) is for sources that cut tiles themselves.

    Raises Invalid for what is none of the accepted kinds, Unavailable for what cannot be read or needs a library that
    is not installed, and whatever the source of that kind raises.
    """
    if os.path.isdir(path):
        return XyzSource(path)
    start = _first_bytes(path)
    if start == _SQLITE:
        return MBTilesSource(path)
    if start.startswith(_PMTILES):
        from builders.imagery.pmtiles import PMTilesSource

        return PMTilesSource(path)
    if start.startswith(_TIFF):
        from builders.imagery.geotiff import GeoTiffSource

        return GeoTiffSource(path, tile_size)
    raise Invalid(f"tile source {path} is {'of no known kind' if start else 'empty'}", path=str(path), remedy=_REMEDY)


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
