"""A folder of tiles as a tile source: `z/x/y.ext`.

By custom the row y counts from the north. `builders.imagery.roworder` decides which order a folder really has; a
`tilemapresource.xml` (gdal2tiles) states that it counts from the south, and a `metadata.json` (TileJSON, mbutil) may
state a `scheme`. Both may have bounds.

The extension is jpg, jpeg, jfif, png or webp, in upper or lower case, or absent; `@2x` may stand before it, as in
`5@2x.png`. It marks a file as a tile; the bytes of the file decide its format and its size. A file with another
extension, or with a number in another form (`007`, `+7`), is not read; `notes` count them. Links are followed: a link
to a file or a folder counts as that file or folder. Anything but a regular file in the place of a tile, or but a folder
in the place of a folder, is Corrupt, not absent. Nothing here waits for a FIFO.

Tiles are read when they are requested, so a folder has no snapshot as a database has: a caller who needs one compares
hashes or stamps. No image is decoded here. A file that is too large for a tile gives empty bytes, which no decoder
accepts: such a tile is present and undecodable, not absent.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from builders.files import open_regular, read_regular
from builders.grid.tiles import MAX_TILE_BYTES, MAX_ZOOM, Bounds, Tile, bounds_of_tiles, cell_spans, tile_id, tile_ids
from builders.imagery.inflate import unpacked
from builders.imagery.roworder import Claims, Extent, RowOrder, Scheme, StoredRows, bounds_of, row_order
from builders.imagery.stamps import SourceStamp, Stamper, check_same, identity_of
from builders.imagery.structure import size_of
from store.errors import Corrupt, FlightbagError, Invalid, Unavailable

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_METADATA_BYTES = 1 << 20
_HALF = 20037508.342789244  # metres from the equator to the edge of web mercator
_BOX = re.compile(rb"<BoundingBox\s([^>]{1,1000})>")
_EDGE = re.compile(rb"\b(minx|miny|maxx|maxy)\s*=\s*[\"']\s*([-+.0-9eE]{1,40})\s*[\"']")
_NUMBER = re.compile("0|[1-9][0-9]{0,8}")
_TILE = re.compile(rf"({_NUMBER.pattern})(?:@2x)?(?:\.(jpg|jpeg|jfif|png|webp))?", re.IGNORECASE)
# Columns of which the rows are looked at, to say where tiles lie.
_LOOKED_AT = 16
_ZOOMS = {str(zoom): zoom for zoom in range(MAX_ZOOM + 1)}


class XyzSource:
    """An open folder of tiles; a context manager, for one thread.

    `extent` is where the mission looks for tiles, and `scheme` the order of the rows where somebody named it. Where a
    tile has several files, such as `5.png` and `5@2x.png`, those of `tile_size` pixels a side count. Raises Invalid
    unless the path is a folder of tiles and the order of its rows is decided, Unavailable if the system cannot read it,
    Corrupt for anything but a file or a folder where a tile or a folder of tiles belongs. All of them name the file.

    `stated` is the only extension of the tiles in the columns of the area, "" of several.
    """

    resolution_m: None = None

    def __init__(
        self, path: str | os.PathLike[str], tile_size: int, extent: Extent, scheme: Scheme | None = None
    ) -> None:
        self.path = Path(path)
        self._tile_size = tile_size
        self._extensions: set[str] = set()
        self._others: list[str] = []
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
        stored = [self._stored_rows(zoom, extent) for zoom in extent.zooms if zoom in zooms]
        rows = [one for one in stored if one is not None]
        self.row_order: RowOrder = row_order(self.path, "xyz", self._claims(), rows, scheme)

    @property
    def stated(self) -> str:
        return next(iter(self._extensions)) if len(self._extensions) == 1 else ""

    @property
    def notes(self) -> tuple[str, ...]:
        """How many files in the columns of the area have a name that no tile has."""
        if not self._others:
            return ()
        return (
            f"files of other names among its tiles, which are not read: {len(self._others)}, "
            f"such as {min(self._others)}",
        )

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

        Bytes in gzip are inflated. They are empty if the file is empty or larger than 16 MiB. Raises Corrupt if a tile
        has two files with different bytes, unless one of them alone has the size of a tile.
        """
        columns, rows = cell_spans(cell, zoom)
        names = {self._name(zoom, row): row for row in rows}
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
        row = self._name(tile.z, tile.y)
        paths = self._tiles(tile.z, tile.x, (row,)).get(row)
        return None if paths is None else self._bytes(tile, paths)

    def reach(self, zoom: int, ids: NDArray[np.uint64]) -> None:
        """None: the source is not a raster."""

    def bounds(self, zoom: int) -> Bounds | None:
        """The box in which its tiles of a zoom lie, by the rows of some of its columns."""
        side = 1 << zoom
        names = (entry.name for entry in self._listed(f"{os.fspath(self.path)}/{zoom}"))
        columns = sorted({int(name) for name in names if _NUMBER.fullmatch(name) and int(name) < side})
        step = max(1, len(columns) // _LOOKED_AT)
        listed = (_parts(tile)[0] for column in columns[::step] for tile in self._listed(self._folder(zoom, column)))
        rows = [int(row) for row in listed if row and int(row) < side]
        if not rows:
            return None
        first, last = min(rows), max(rows)
        if self.row_order.scheme == "tms":
            first, last = side - 1 - last, side - 1 - first
        return bounds_of_tiles(zoom, (columns[0], columns[-1]), (first, last))

    def stamp(self, cells: Sequence[tuple[Tile, int]]) -> SourceStamp:
        """The stamp of every tile of these cells, and of the folders `z` and `z/x` that hold or could hold them.

        The state of a folder changes with any file that is added or removed, even if it is not a tile of these cells.
        The stamp costs one `stat` for each file. Raises Unavailable if the path leads to another folder than the open
        one.
        """
        wanted: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
        for cell, zoom in cells:
            columns, rows = cell_spans(cell, zoom)
            names = [self._name(zoom, row) for row in rows]
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

    def _name(self, zoom: int, row: int) -> str:
        """The name, without its extension, of the file of a row that is counted from the north."""
        return str(row if self.row_order.scheme == "xyz" else (1 << zoom) - 1 - row)

    def _claims(self) -> Claims:
        """What the files beside the tiles state."""
        schemes, boxes = [], []
        xml = self._metadata("tilemapresource.xml")
        if xml is not None:
            schemes.append("tms")
            boxes.append(_bounds_of_xml(xml))
        metadata = self._metadata("metadata.json")
        if metadata is not None:
            try:
                value = json.loads(metadata)
            except (ValueError, RecursionError):
                path = str(self.path / "metadata.json")
                raise Invalid(f"{path} is not JSON", path=path, remedy="correct or remove it") from None
            if isinstance(value, dict):
                if isinstance(scheme := value.get("scheme"), str):
                    schemes.append(scheme.strip().lower())
                boxes.append(_bounds_of_json(value.get("bounds")))
        return Claims(" and ".join(sorted({*schemes} - {""})), next((box for box in boxes if box is not None), None))

    def _metadata(self, name: str) -> bytes | None:
        path = self.path / name
        if not os.path.lexists(path):
            return None
        return read_regular(path, MAX_METADATA_BYTES, "metadata", too_large="remove it if it is not of the tiles")

    def _stored_rows(self, zoom: int, extent: Extent) -> StoredRows | None:
        """The rows of one zoom in the columns of the area. Lists folders, and opens no file."""
        side = 1 << zoom
        rows: list[int] = []
        spans = extent.columns(zoom)
        for entry in self._listed(f"{os.fspath(self.path)}/{zoom}"):
            if _NUMBER.fullmatch(entry.name) and any(int(entry.name) in span for span in spans):
                for tile in self._listed(entry.path):
                    row, extension = _parts(tile)
                    if row and int(row) < side:
                        rows.append(int(row))
                        self._extensions.add(extension)
                    elif not tile.name.startswith("."):
                        self._others.append(tile.path)
        if not rows:
            return None
        tms, xyz = (extent.rows(zoom, scheme) for scheme in ("tms", "xyz"))
        return StoredRows(zoom, min(rows), max(rows), sum(row in tms for row in rows), sum(row in xyz for row in rows))

    def _listed(self, folder: str) -> list[os.DirEntry[str]]:
        """The entries of a folder; none if it is absent."""
        try:
            with os.scandir(folder) as entries:
                return list(entries)
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
        matches = [
            # `rows` has numbers in the form of `str` only.
            (row, entry)
            for entry in self._listed(self._folder(zoom, column))
            if (row := _parts(entry)[0]) in rows
        ]
        matches.sort(key=lambda item: item[1].name)
        return matches

    def _folder(self, zoom: int, column: int) -> str:
        return f"{os.fspath(self.path)}/{zoom}/{column}"

    def _bytes(self, tile: Tile, paths: list[str]) -> bytes:
        """The bytes of a tile, which all of its files hold, or the only one of the size of a tile."""
        contents = {unpacked(_read(path)): path for path in paths}
        if len(contents) > 1:
            side = self._tile_size
            fitting = [data for data in contents if size_of(data) == (side, side)]
            if len(fitting) != 1:
                first, second = list(contents.values())[:2]
                raise Corrupt(
                    f"{self.path} has tile {tile} twice with different bytes: {first} and {second}",
                    path=str(self.path),
                    tile=str(tile),
                    remedy="remove one of the two files",
                )
            return fitting[0]
        return next(iter(contents))

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
            remedy="give a folder with tiles z/x/y.jpg, .jfif, .png or .webp, or without extension",
        )


def _bounds_of_json(value: object) -> tuple[float, float] | None:
    """(south, north) of `bounds`: an array of four numbers (TileJSON), or their text with commas (MBTiles)."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list):
        return None
    try:
        return bounds_of([float(part) for part in parts])
    except (TypeError, ValueError, OverflowError):
        return None


def _bounds_of_xml(data: bytes) -> tuple[float, float] | None:
    """(south, north) of the BoundingBox of a tile map resource, in degrees.

    gdal2tiles writes degrees also for web mercator, other tools metres. Its old versions exchange x and y, which gives
    bounds that fit the rows in neither order, so no evidence.
    """
    box = _BOX.search(data)
    if box is None:
        return None
    try:
        edges = {name: float(value) for name, value in _EDGE.findall(box[1])}
    except ValueError:
        return None
    if edges.keys() != {b"minx", b"miny", b"maxx", b"maxy"}:
        return None
    numbers = [edges[name] for name in (b"minx", b"miny", b"maxx", b"maxy")]
    if max(map(abs, numbers)) > 180:  # metres of web mercator
        numbers = [math.degrees(math.atan(math.sinh(max(-4.0, min(4.0, one / _HALF)) * math.pi))) for one in numbers]
    return bounds_of(numbers)


def _parts(entry: os.DirEntry[str]) -> tuple[str, str]:
    """(row, extension in lower case) in the name of a tile; ("", "") of anything else."""
    match = _TILE.fullmatch(entry.name)
    if match is None or (match[2] is None and entry.is_dir()):
        return "", ""
    return match[1], (match[2] or "").lower()


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
