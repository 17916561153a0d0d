"""PMTiles 3 as a tile source: the encoded bytes of the tiles of one cell, in the order of their ids.

A cell is one range of PMTiles ids. The search walks this range through the directories: the root, and up to three
levels of leaf directories below it. The archive may be clustered or not. Tiles that share their bytes (runs, equal
offsets) come once each.

The file comes from outside, so every size is bounded before bytes are read or inflated, and a directory is either valid
as a whole or refused. A valid directory has at least one entry, its ids ascend, its runs do not overlap, all of its ids
lie in the range that the directory above gives, and its entries point into their section. So two leaf directories never
share an id, and a cell of 256 ids leads to at most 256 leaf directories per level, however they are nested.

All reads use one descriptor. A file that replaces this one is not read, and `stamp` refuses it. An archive that
somebody writes to has no snapshot; `stamp` refuses it too. No image is decoded here: a tile that is empty, too large or
badly compressed gives empty bytes, which no decoder accepts, so such a tile is present and undecodable, not absent.
"""

from __future__ import annotations

import itertools
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from builders.extras import import_extra
from builders.files import open_regular
from builders.grid.tiles import (
    CELL_ZOOMS,
    MAX_TILE_BYTES,
    MAX_ZOOM,
    Bounds,
    Tile,
    bounds_of_tiles,
    cell_range,
    tile_id,
    tile_xy,
)
from builders.imagery.inflate import inflate, unpacked
from builders.imagery.signature import FOREIGN, format_of
from builders.imagery.stamps import SourceStamp, check_same, stamp_of, trace_of
from store.errors import Corrupt, Invalid, Unavailable

if TYPE_CHECKING:
    from typing_extensions import Self

# Runs of tiles that are looked at, to say where tiles lie.
_LOOKED_AT = 1 << 16
MAX_LEAF_LEVELS = 3  # the limit of the readers by the authors of the format; writers make one level
# Writers put about 4096 entries into a directory, and more only to keep the root small: enough for 900 million tiles.
MAX_ENTRIES = 1 << 18
MAX_DIRECTORY_BYTES = 16 * MAX_ENTRIES  # an entry has 4 numbers, usually of 8 bytes in all
CACHED_ENTRIES = MAX_ENTRIES  # of leaf directories, 48 bytes each: cells are requested along the curve
_HEADER_BYTES = 127
_VERSION = 3
_END_ID = ((1 << 64) - 1) // 3  # the ids of zooms 0..31, which is all that the format has
_MAX_LENGTH = (1 << 32) - 1  # of a tile or a leaf directory, and of a run (specification, chapter 4)
_VARINT_BYTES = 9  # 63 bits
_COMPRESSIONS = ("none", "gzip")
_AGAIN = "copy the file again from its origin, and check it with 'pmtiles verify'"
_OTHER_COMPRESSION = (
    "make the archive with gzip or without compression, for instance with 'pmtiles convert' from MBTiles"
)


class PMTilesSource:
    """An open PMTiles archive; a context manager, for one thread.

    Raises Invalid unless the file is a PMTiles 3 archive of images, Unavailable if it cannot be opened or read, Corrupt
    for a damaged archive. All of them name the file. Raises Unavailable, with the name of the extra, if the library
    pmtiles is not installed.

    `zooms` are (lowest, highest) of the header, None if they are not a range of zooms. `stated` is its tile type, ""
    for an unknown one: some writers know no `jpg`.
    """

    zooms: tuple[int, int] | None = None
    resolution_m: None = None
    row_order: None = None
    notes: tuple[str, ...] = ()

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        library = import_extra("pmtiles.tile")
        self._leaves: OrderedDict[tuple[int, int, int, int], _Directory] = OrderedDict()
        self._cached = 0
        # A file object instead of a descriptor: after closing, the number may belong to another file.
        self._file = open_regular(self.path, "tile source")
        try:
            self._opened = self._state()
            header = self._header(library, self._opened.st_size)
            self._gzipped_inside = header["internal_compression"].name == "GZIP"
            root, _, self._leaf_section, self._tile_section = _sections(header)
            west, south, east, north = (
                header[f"{end}_e7"] / 10**7 for end in ("min_lon", "min_lat", "max_lon", "max_lat")
            )
            self._box: Bounds = (west, south, east, north)
            if header["min_zoom"] <= header["max_zoom"] <= MAX_ZOOM:
                self.zooms = header["min_zoom"], header["max_zoom"]
            self._root = self._directory(root, 0, _END_ID)
            if self.stated in FOREIGN and not self._has_image():
                raise self._not_pmtiles(
                    f"its tiles are {self.stated}, must be JPEG, PNG or WebP images",
                    "give an archive of image tiles; vector tiles cannot be described",
                )
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        self._file.close()

    def cell(self, cell: Tile, zoom: int) -> Iterator[tuple[int, bytes]]:
        """(tile id, encoded bytes) of every tile of `cell` at `zoom` that the archive has, ids ascending.

        Tiles in gzip are inflated, whatever the header says. The bytes are empty if the tile has none or more than
        16 MiB, or if its gzip is damaged.
        """
        first, last = cell_range(cell, zoom)
        if last - first > 1 << (2 * CELL_ZOOMS):
            raise Invalid(f"{cell} is not a cell of tiles of zoom {zoom}", tile=str(cell), zoom=zoom)
        for run, span in self._runs(self._root, first, last):
            data = self._tile(span)
            for number in run:
                yield number, data

    def read(self, tile: Tile) -> bytes | None:
        """The encoded bytes of one tile, None if the archive lacks it; empty in the cases that `cell` names."""
        number = tile_id(tile)
        for _, span in self._runs(self._root, number, number + 1):
            return self._tile(span)
        return None

    def reach(self, zoom: int, ids: NDArray[np.uint64]) -> None:
        """None: the source is not a raster."""

    def bounds(self, zoom: int) -> Bounds | None:
        """The box in which its tiles of a zoom lie: of many tiles, by the header."""
        runs = itertools.islice(self._runs(self._root, *cell_range(Tile(0, 0, 0), zoom)), _LOOKED_AT + 1)
        ends = [end for run, _ in runs for end in (run[0], run[-1])]
        if len(ends) > 2 * _LOOKED_AT:
            return self._box
        if not ends:
            return None
        x, y = tile_xy(zoom, np.array(ends, np.uint64))
        return bounds_of_tiles(zoom, (int(x.min()), int(x.max())), (int(y.min()), int(y.max())))

    def stamp(self, cells: Sequence[tuple[Tile, int]]) -> SourceStamp:  # noqa: ARG002 - an archive has one stamp
        """The stamp of the archive, for any cells.

        Raises Unavailable if the path leads to another file than the open one, or somebody wrote to the file: the
        directories in memory may be out of date.
        """
        check_same(self.path, (self._opened.st_dev, self._opened.st_ino))
        if trace_of(self._state()) != trace_of(self._opened):
            raise self._written_to()
        return stamp_of([self.path])

    def _has_image(self) -> bool:
        """Whether the first tile of the archive is an image, whatever its header says."""
        first = next(self._runs(self._root, 0, _END_ID), None)
        return first is not None and format_of(self._tile(first[1])) != ""

    def _header(self, library: Any, size: int) -> dict[str, Any]:
        """The header. Raises unless this is an archive of images in a supported form with all sections in the file."""
        data = self._read(_Span(0, min(_HEADER_BYTES, size)))
        for version in (1, 2):
            if data.startswith(b"PM" + version.to_bytes(2, "little")):
                raise self._other_version(version)
        if not data.startswith(b"PMTiles"):
            raise self._not_pmtiles("it does not begin with the bytes PMTiles")
        if len(data) < _HEADER_BYTES:
            raise self._damaged(f"its header has {len(data)} bytes, must have {_HEADER_BYTES}")
        if data[7] != _VERSION:
            raise self._other_version(data[7])
        try:
            header: dict[str, Any] = library.deserialize_header(data)
        except ValueError as error:  # a number that no compression or tile type has
            raise self._not_pmtiles(f"its header has an unknown value: {error}", _AGAIN) from None
        tile_type = header["tile_type"].name.lower()
        self.stated = "" if tile_type == "unknown" else tile_type
        for what, allowed in (("internal", _COMPRESSIONS), ("tile", (*_COMPRESSIONS, "unknown"))):
            name = header[f"{what}_compression"].name.lower()
            if name not in allowed:
                raise self._not_pmtiles(
                    f"its {what} compression is {name}, must be one of {', '.join(_COMPRESSIONS)}", _OTHER_COMPRESSION
                )
        for span in _sections(header):
            if span.offset + span.length > size:
                raise self._damaged(f"it has {size} bytes, its header gives {span.offset + span.length} or more")
        return header

    def _runs(self, directory: _Directory, first: int, last: int, level: int = 0) -> Iterator[tuple[range, _Span]]:
        """(ids, span of the bytes) of every run with ids in [first, last), ascending; the ids are those in the
        range."""
        for place in directory.places(first, last):
            start, run, offset, length, stop = directory.entry(place)
            if run:
                ids = range(max(start, first), min(start + run, last))
                if ids:
                    yield ids, _Span(self._tile_section.offset + offset, length)
                continue
            if level == MAX_LEAF_LEVELS:
                raise self._damaged(f"its leaf directories are nested more than {MAX_LEAF_LEVELS} deep")
            leaf = self._leaf(_Span(self._leaf_section.offset + offset, length), start, stop)
            yield from self._runs(leaf, first, last, level + 1)

    def _leaf(self, span: _Span, start: int, stop: int) -> _Directory:
        """A leaf directory, from the file or from the cache."""
        # The key has the bounds: a directory that is valid within these may be invalid within others.
        key = (*span, start, stop)
        cached = self._leaves.get(key)
        if cached is not None:
            self._leaves.move_to_end(key)
            return cached
        leaf = self._leaves[key] = self._directory(span, start, stop)
        self._cached += len(leaf.ids)
        while self._cached > CACHED_ENTRIES:
            _, oldest = self._leaves.popitem(last=False)
            self._cached -= len(oldest.ids)
        return leaf

    def _directory(self, span: _Span, start: int, stop: int) -> _Directory:
        """The directory at `span`, whose ids must lie in [start, stop)."""
        try:
            if span.length > MAX_DIRECTORY_BYTES:
                raise ValueError(f"it has {span.length} bytes; the limit is {MAX_DIRECTORY_BYTES}")
            data = self._read(span)
            if self._gzipped_inside:
                data = inflate(data, MAX_DIRECTORY_BYTES)
            return _parse(data, start, stop, self._tile_section.length, self._leaf_section.length)
        except ValueError as error:
            raise self._damaged(f"its directory at byte {span.offset} is invalid: {error}") from None

    def _tile(self, span: _Span) -> bytes:
        if span.length > MAX_TILE_BYTES:
            return b""
        return unpacked(self._read(span))

    def _read(self, span: _Span) -> bytes:
        """All bytes of a span. Raises Unavailable if the file no longer has them."""
        parts = []
        offset, left = span
        while left:
            try:
                part = os.pread(self._file.fileno(), left, offset)
            except OSError as error:
                raise self._unreadable(error) from error
            if not part:
                raise self._written_to()
            parts.append(part)
            offset += len(part)
            left -= len(part)
        return b"".join(parts)

    def _state(self) -> os.stat_result:
        try:
            return os.fstat(self._file.fileno())
        except OSError as error:
            raise self._unreadable(error) from error

    def _damaged(self, why: str) -> Corrupt:
        return Corrupt(f"{self.path} is damaged: {why}", path=str(self.path), remedy=_AGAIN)

    def _written_to(self) -> Unavailable:
        return Unavailable(
            f"{self.path} was written to while it was open",
            path=str(self.path),
            remedy="run the command again when nothing writes to the tile source",
        )

    def _unreadable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"{self.path} cannot be read: {error.strerror}",
            path=str(self.path),
            remedy="check that its disk is mounted and sound",
            errno=error.errno,
        )

    def _other_version(self, version: int) -> Invalid:
        return self._not_pmtiles(
            f"it has version {version} of the format, must have {_VERSION}",
            "convert it to version 3 with 'pmtiles convert'",
        )

    def _not_pmtiles(self, why: str, remedy: str = "give a PMTiles file of image tiles") -> Invalid:
        return Invalid(f"{self.path} is not a usable PMTiles archive: {why}", path=str(self.path), remedy=remedy)


class _Span(NamedTuple):
    """A part of the file: offset and length in bytes."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class _Directory:
    """A valid directory: int64[n] each, n >= 1. An entry with a run of 0 is a leaf directory, whose ids end before
    those of the next entry, or before `stop`."""

    ids: NDArray[np.int64]
    runs: NDArray[np.int64]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    stop: int

    def places(self, first: int, last: int) -> range:
        """The indices of the entries that may have ids in [first, last)."""
        start = int(np.searchsorted(self.ids, first, "right")) - 1
        return range(max(start, 0), int(np.searchsorted(self.ids, last, "left")))

    def entry(self, place: int) -> tuple[int, int, int, int, int]:
        """(first id, run, offset in its section, length, first id of the next entry)."""
        stop = int(self.ids[place + 1]) if place + 1 < len(self.ids) else self.stop
        columns = (self.ids, self.runs, self.offsets, self.lengths)
        first, run, offset, length = (int(column[place]) for column in columns)
        return first, run, offset, length, stop


def _sections(header: dict[str, Any]) -> tuple[_Span, ...]:
    """The root directory, the metadata, the leaf directories and the tiles."""
    names = ("root", "metadata", "leaf_directory", "tile_data")
    return tuple(_Span(header[f"{name}_offset"], header[f"{name}_length"]) for name in names)


def _parse(data: bytes, start: int, stop: int, tile_bytes: int, leaf_bytes: int) -> _Directory:
    """The directory in `data` (specification, chapter 4).

    Raises ValueError unless its ids lie in [start, stop), and its entries point into `tile_bytes` bytes of tiles and
    `leaf_bytes` bytes of leaf directories.
    """
    numbers = _varints(data)
    count = int(numbers[0])
    if len(numbers) != 4 * count + 1:
        raise ValueError(f"it has {len(numbers) - 1} numbers, {count} entries have {4 * count}")
    if not count:
        raise ValueError("it is without entries")
    deltas, runs, lengths, coded = numbers[1:].reshape(4, count)
    # A sum beyond 63 bits turns negative, so the ids are out of order.
    ids = np.cumsum(deltas)
    if int(ids[0]) < start or (ids[1:] <= ids[:-1]).any():
        raise ValueError("its ids are out of order")
    is_leaf = runs == 0
    if max(int(runs.max()), int(lengths.max())) > _MAX_LENGTH:
        raise ValueError(f"a run or a length is more than {_MAX_LENGTH}")
    if (np.maximum(runs, 1) > np.diff(ids, append=stop)).any():
        raise ValueError("its runs overlap, or lead out of its ids")
    if (lengths[is_leaf] == 0).any():
        raise ValueError("it has an empty leaf directory")
    # A coded offset of 0 means: right after the entry before. Other values are the offset plus one.
    follows = coded == 0
    if follows[0]:
        raise ValueError("its first entry has no offset")
    before = np.cumsum(lengths) - lengths
    anchors = np.maximum.accumulate(np.where(follows, 0, np.arange(count)))
    offsets = coded[anchors] - 1 + before - before[anchors]
    # Before a sum exceeds 63 bits, an earlier entry leads out of its section.
    if (offsets > np.where(is_leaf, leaf_bytes, tile_bytes) - lengths).any():
        raise ValueError("an entry leads out of its section")
    return _Directory(ids, runs, offsets, lengths, stop)


def _varints(data: bytes) -> NDArray[np.int64]:
    """The numbers in `data`: int64[n], n >= 1, none negative.

    Each number is little-endian with 7 bits a byte; its last byte is below 128.
    """
    raw = np.frombuffer(data, np.uint8)
    final = raw < 0x80
    if not raw.size or not final[-1]:
        raise ValueError("it ends within a number")
    if np.count_nonzero(final) > 4 * MAX_ENTRIES + 1:
        raise ValueError(f"it has more than {MAX_ENTRIES} entries")
    ends = np.flatnonzero(final)
    sizes = np.diff(ends, prepend=-1)
    longest = int(sizes.max())
    if longest > _VARINT_BYTES:
        raise ValueError("a number has more than 63 bits")
    starts = ends - sizes + 1
    numbers = (raw[starts] & 0x7F).astype(np.int64)
    for byte in range(1, longest):
        longer = np.flatnonzero(sizes > byte)
        numbers[longer] |= (raw[starts[longer] + byte] & 0x7F).astype(np.int64) << (7 * byte)
    return numbers
