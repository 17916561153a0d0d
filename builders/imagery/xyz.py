"""A folder of tiles as a tile source: `z/x/y.ext`, the row y counted from the north.

The extension is jpg, jpeg, png or webp, in upper or lower case. It marks a file as a tile; the bytes of the file decide
its format. A name with another extension, or with a number in another form (`007`, `+7`), is ignored. Links are
followed: a link to a file or a folder counts as that file or folder. Anything but a regular file in the place of a
tile, or but a folder in the place of a folder, is Corrupt, not absent. Nothing here waits for a FIFO.

Tiles are read when they are requested, so a folder has no snapshot as a database has: a caller who needs one compares
hashes or stamps. No image is decoded here. A file that is too large for a tile gives empty bytes, which no decoder
accepts: such a tile is present and undecodable, not absent.
"""

from __future__ import annotations

import errno
import io
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from builders.files import open_regular
from builders.grid.tiles import CELL_ZOOMS, MAX_TILE_BYTES, MAX_ZOOM, Tile, cell_range, tile_id, tile_ids
from builders.imagery.stamps import SourceStamp, Stamper, check_same, identity_of
from store.errors import Corrupt, FlightbagError, Invalid, Unavailable

EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp"})
_ZOOMS = {str(zoom): zoom for zoom in range(MAX_ZOOM + 1)}


class XyzSource:
    """An open folder of tiles; a context manager, for one thread.

    Raises Invalid unless the path is a folder of tiles, Unavailable if the system cannot read it, Corrupt for anything
    but a file or a folder where a tile or a folder of tiles belongs. All of them name the file.
    """

    resolution_m: None = None

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        zooms: list[int] = []
        try:
            self._opened = identity_of(self.path)
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if entry.name in _ZOOMS:
                        if not entry.is_dir():
                            raise self._no_folder(entry.path)
                        zooms.append(_ZOOMS[entry.name])
        except FileNotFoundError:
            raise self._not_xyz("it does not exist") from None
        except NotADirectoryError:
            raise self._not_xyz("it is not a folder") from None
        except OSError as error:
            raise _unreadable(str(self.path), error) from error
        if not zooms:
            raise self._not_xyz(f"it has no folder of a zoom, 0 to {MAX_ZOOM}")
        self.zooms: tuple[int, int] = min(zooms), max(zooms)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Do nothing: no file stays open between two calls."""

    def cell(self, cell: Tile, zoom: int) -> Iterator[tuple[int, bytes]]:
        """(tile id, encoded bytes) of every tile of `cell` at `zoom` that the folder has, ids ascending.

        The bytes are empty if the file is empty or larger than 16 MiB. Raises Corrupt if a tile has two files with
        different bytes, under two extensions.
        """
        columns, rows = _spans(cell, zoom)
        names = {str(row): row for row in rows}
        x: list[int] = []
        y: list[int] = []
        files: list[list[str]] = []
        for column in columns:
            for name, paths in self._tiles(zoom, column, names).items():
                x.append(column)
                y.append(names[name])
                files.append(paths)
        if not files:
            return
        ids = tile_ids(zoom, np.array(x, np.int64), np.array(y, np.int64))
        for place in np.argsort(ids).tolist():
            yield int(ids[place]), self._bytes(Tile(zoom, x[place], y[place]), files[place])

    def read(self, tile: Tile) -> bytes | None:
        """The encoded bytes of one tile, None if the folder lacks it; empty in the cases that `cell` names."""
        tile_id(tile)  # raises Invalid for a tile that does not exist
        row = str(tile.y)
        paths = self._tiles(tile.z, tile.x, (row,)).get(row)
        return None if paths is None else self._bytes(tile, paths)

    def reach(self, zoom: int, ids: NDArray[np.uint64]) -> None:
        """None: the source is not a raster."""

    def stamp(self, cells: Sequence[tuple[Tile, int]]) -> SourceStamp:
        """The stamp of every tile of these cells, and of the folders `z` and `z/x` that hold or could hold them.

        The state of a folder changes with any file that is added or removed, even if it is not a tile of these cells.
        The stamp costs one `stat` for each file. Raises Unavailable if the path leads to another folder than the open
        one.
        """
        wanted: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
        for cell, zoom in cells:
            columns, rows = _spans(cell, zoom)
            names = [str(row) for row in rows]
            for column in columns:
                wanted[zoom, column].update(names)
        check_same(self.path, self._opened)
        stamper = Stamper()
        for zoom in sorted({zoom for zoom, _ in wanted}):
            stamper.path(self.path / str(zoom))
        for (zoom, column), rows_wanted in sorted(wanted.items()):
            stamper.path(self._folder(zoom, column))
            for _, entry in self._entries(zoom, column, rows_wanted):
                stamper.entry(entry)
        return stamper.stamp()

    def _tiles(self, zoom: int, column: int, rows: Collection[str]) -> dict[str, list[str]]:
        """Row -> paths of its files, for those of these rows that a column has."""
        paths: dict[str, list[str]] = {}
        for row, entry in self._entries(zoom, column, rows):
            paths.setdefault(row, []).append(entry.path)
        return paths

    def _entries(self, zoom: int, column: int, rows: Collection[str]) -> list[tuple[str, os.DirEntry[str]]]:
        """(row, entry) of the files of these rows that a column has, sorted by name; none if its folder is absent.

        Lists the folder once for all rows: the extension of a file is not known before.
        """
        folder = self._folder(zoom, column)
        matches: list[tuple[str, os.DirEntry[str]]] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    # `rows` has numbers in the form of `str` only.
                    row, _, extension = entry.name.partition(".")
                    if row in rows and extension.lower() in EXTENSIONS:
                        matches.append((row, entry))
        except FileNotFoundError:
            if os.path.lexists(folder):
                raise self._no_folder(folder) from None
            # A folder is also missing if its disk was unmounted: then tiles are not absent but unavailable.
            check_same(self.path, self._opened)
            return []
        except NotADirectoryError:
            raise self._no_folder(folder) from None
        except OSError as error:
            raise _unreadable(folder, error) from error
        matches.sort(key=lambda item: item[1].name)
        return matches

    def _folder(self, zoom: int, column: int) -> str:
        return f"{os.fspath(self.path)}/{zoom}/{column}"

    def _bytes(self, tile: Tile, paths: list[str]) -> bytes:
        """The bytes of a tile, which all of its files hold."""
        data = _read(paths[0])
        for path in paths[1:]:
            if _read(path) != data:
                raise Corrupt(
                    f"{self.path} has tile {tile} twice with different bytes: {paths[0]} and {path}",
                    path=str(self.path),
                    tile=str(tile),
                    remedy="remove one of the two files",
                )
        return data

    def _no_folder(self, path: str) -> Corrupt:
        return Corrupt(
            f"{path}: expected a folder of tiles, found a file or a broken link",
            path=path,
            remedy="restore the folder or remove the path",
        )

    def _not_xyz(self, why: str) -> Invalid:
        return Invalid(
            f"{self.path} is not a usable folder of tiles: {why}",
            path=str(self.path),
            remedy="give a folder with tiles z/x/y.jpg, .png or .webp",
        )


def _spans(cell: Tile, zoom: int) -> tuple[range, range]:
    """The columns and the rows of the tiles of a cell. Raises Invalid for a cell that does not exist or belongs to
    another zoom."""
    first, last = cell_range(cell, zoom)
    if last - first > 1 << (2 * CELL_ZOOMS):
        raise Invalid(f"{cell} is not a cell of tiles of zoom {zoom}", tile=str(cell), zoom=zoom)
    depth = zoom - cell.z
    return range(cell.x << depth, (cell.x + 1) << depth), range(cell.y << depth, (cell.y + 1) << depth)


def _read(path: str) -> bytes:
    """The bytes of the file of a tile, empty if it is too large. Raises Corrupt unless it is a regular file."""
    try:
        # Buffered: one read of the file itself may return less than it has.
        with open_regular(Path(path), "tile") as raw, io.BufferedReader(raw) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_TILE_BYTES:
                return b""
            data = file.read(size + 1)
    except Invalid as error:
        # The folder lists this name: a path that leads to nothing is a broken link, not an absent tile.
        raise _no_tile(path, error) from None
    except Unavailable as error:
        if error.errno == errno.ELOOP:
            raise _no_tile(path, error) from None
        raise
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) != size:
        raise Unavailable(
            f"{path} was written to while it was read", path=path, remedy="build again when nothing writes to it"
        )
    return data


def _no_tile(path: str, error: FlightbagError) -> Corrupt:
    return Corrupt(error.message, path=path, remedy="restore the file or remove it")


def _unreadable(path: str, error: OSError) -> Unavailable:
    return Unavailable(
        f"{path} cannot be read: {error.strerror}",
        path=path,
        remedy="make it readable, and check that its disk is mounted",
        errno=error.errno,
    )
