"""PMTiles 3 as a tile source: the encoded bytes of the tiles of one cell, in the order of their ids.

Ids here are PMTiles ids, so a cell is one range of ids and is found by walking that range through the directories: the
root, and up to three levels of leaf directories below it. The archive may be clustered or not; tiles that share their
bytes (runs, equal offsets) come once each.

The file is input from outside: every size is bounded before anything is read or inflated, and a directory is taken as
a whole or not at all. It must hold at least one entry; its ids must ascend, its runs may not overlap, all of it must
lie between the ids that the directory above gives it, and what it points at must lie inside its section. So two leaf
directories never share an id, and a cell of 256 ids leads to at most 256 of them a level, however they are nested.

Reads one descriptor: a file that is put in the place of this one is not seen, and `stamp` refuses it. To an archive
that is written to in place there is no snapshot; `stamp` refuses that too. Decodes no image and judges none: a tile
that is empty, too large or badly compressed is yielded as empty bytes, which no decoder takes, so that such a tile is
present and undecodable, never absent.
"""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from builders.extras import import_extra
from builders.files import open_regular
from builders.grid.tiles import CELL_ZOOMS, MAX_TILE_BYTES, MAX_ZOOM, Tile, cell_range, tile_id
from builders.imagery.stamps import SourceStamp, check_same, stamp_of
from store.errors import Corrupt, Invalid, Unavailable

TILE_TYPES = ("png", "jpeg", "webp")
MAX_LEAF_LEVELS = 3  # what the readers of the format's authors follow; writers make one
# Writers put some 4096 entries into a directory, more only to keep the root small: this is for 900 million tiles.
MAX_ENTRIES = 1 << 18
MAX_DIRECTORY_BYTES = 16 * MAX_ENTRIES  # an entry takes 4 numbers, of hardly more than 8 bytes in all
CACHED_ENTRIES = MAX_ENTRIES  # of leaf directories, 48 bytes each: cells are asked for along the curve
_HEADER_BYTES = 127
_VERSION = 3
_END_ID = ((1 << 64) - 1) // 3  # the ids of zooms 0..31, which is all that the format has
_MAX_LENGTH = (1 << 32) - 1  # of a tile or a leaf directory, and of a run (specification, chapter 4)
_VARINT_BYTES = 9  # 63 bits
_GZIP = 31  # zlib: a window of 32 KiB, and a gzip header
_COMPRESSIONS = ("none", "gzip")
_AGAIN = "get it again from where it came, and check it with 'pmtiles verify'"
_OTHER_COMPRESSION = "make it again with gzip or without compression, as 'pmtiles convert' does from MBTiles"


class PMTilesSource:
    """An open PMTiles archive; a context manager, for one thread.

    Raises Invalid for what is not a PMTiles 3 archive of images, Unavailable for what cannot be opened or read,
    Corrupt for a damaged archive. All of them name the file. Raises Unavailable, naming the extra, where the library
    pmtiles is not installed.

    `zooms` are (lowest, highest) of the header, None where they are senseless.
    """

    zooms: tuple[int, int] | None = None
    resolution_m: None = None

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        library = import_extra("pmtiles.tile")
        self._leaves: OrderedDict[tuple[int, int, int, int], _Directory] = OrderedDict()
        self._cached = 0
        # A file object, not a number: after closing, the number may be that of another file.
        self._file = open_regular(self.path, "tile source")
        try:
            self._opened = self._state()
            header = self._header(library, self._opened.st_size)
            self._gzipped = header["tile_compression"].name == "GZIP"
            self._gzipped_inside = header["internal_compression"].name == "GZIP"
            root, _, self._leaf_section, self._tile_section = _sections(header)
            if header["min_zoom"] <= header["max_zoom"] <= MAX_ZOOM:
                self.zooms = header["min_zoom"], header["max_zoom"]
            self._root = self._directory(root, 0, _END_ID)
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
        """Closes the file. Closing twice is fine."""
        self._file.close()

    def cell(self, cell: Tile, zoom: int) -> Iterator[tuple[int, bytes]]:
        """(tile id, encoded bytes) of every tile of `cell` at `zoom` that the archive has, ids ascending.

        Tile compression is undone. The bytes are empty where the tile has none or more than 16 MiB, or is not the
        gzip that the header says.
        """
        first, last = cell_range(cell, zoom)
        if last - first > 1 << (2 * CELL_ZOOMS):
            raise Invalid(f"{cell} is not the cell of a tile at zoom {zoom}", tile=str(cell), zoom=zoom)
        for run, span in self._runs(self._root, first, last):
            data = self._tile(span)
            for number in run:
                yield number, data

    def read(self, tile: Tile) -> bytes | None:
        """The encoded bytes of one tile, None where the archive has none; empty as `cell` says."""
        number = tile_id(tile)
        for _, span in self._runs(self._root, number, number + 1):
            return self._tile(span)
        return None

    def stamp(self, cells: Sequence[tuple[Tile, int]]) -> SourceStamp:  # noqa: ARG002 - an archive has one stamp
        """The stamp of the archive, whatever the cells.

        Raises Unavailable where the path names another file than that which was opened, or the file was written to
        since: its directories may be those of before.
        """
        check_same(self.path, (self._opened.st_dev, self._opened.st_ino))
        if _trace(self._state()) != _trace(self._opened):
            raise self._written_to()
        return stamp_of([self.path])

    def _header(self, library: Any, size: int) -> dict[str, Any]:
        """The header, whose sections lie inside the file, of an archive of images that can be read."""
        data = self._read(_Span(0, min(_HEADER_BYTES, size)))
        for version in (1, 2):
            if data.startswith(b"PM" + version.to_bytes(2, "little")):
                raise self._other_version(version)
        if not data.startswith(b"PMTiles"):
            raise self._not_pmtiles("it does not begin like one")
        if len(data) < _HEADER_BYTES:
            raise self._damaged(f"its header has {len(data)} bytes, not {_HEADER_BYTES}")
        if data[7] != _VERSION:
            raise self._other_version(data[7])
        try:
            header: dict[str, Any] = library.deserialize_header(data)
        except ValueError as error:  # a number that no compression or tile type has
            raise self._not_pmtiles(f"its header says that {error}", _AGAIN) from None
        tile_type = header["tile_type"].name.lower()
        if tile_type not in TILE_TYPES:
            raise self._not_pmtiles(
                f"its tiles are {tile_type}, not one of {', '.join(TILE_TYPES)}",
                "give an archive of image tiles of these types; vector tiles cannot be described",
            )
        for what in ("internal", "tile"):
            name = header[f"{what}_compression"].name.lower()
            if name not in _COMPRESSIONS:
                raise self._not_pmtiles(
                    f"its {what} compression is {name}, not one of {', '.join(_COMPRESSIONS)}", _OTHER_COMPRESSION
                )
        for span in _sections(header):
            if span.offset + span.length > size:
                raise self._damaged(f"it has {size} bytes, its header says {span.offset + span.length} or more")
        return header

    def _runs(self, directory: _Directory, first: int, last: int, level: int = 0) -> Iterator[tuple[range, _Span]]:
        """(the ids of a run that lie in [first, last), where its bytes are) of all runs with any, ids ascending."""
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
        """A leaf directory, read or remembered."""
        # With the bounds: what is sound between these is not between others.
        key = (*span, start, stop)
        found = self._leaves.get(key)
        if found is not None:
            self._leaves.move_to_end(key)
            return found
        leaf = self._leaves[key] = self._directory(span, start, stop)
        self._cached += len(leaf.ids)
        while self._cached > CACHED_ENTRIES:
            _, oldest = self._leaves.popitem(last=False)
            self._cached -= len(oldest.ids)
        return leaf

    def _directory(self, span: _Span, start: int, stop: int) -> _Directory:
        """The directory at `span`, of ids in [start, stop)."""
        try:
            if span.length > MAX_DIRECTORY_BYTES:
                raise _Damage(f"of {span.length} bytes, more than {MAX_DIRECTORY_BYTES}")
            data = self._read(span)
            if self._gzipped_inside:
                data = _inflate(data, MAX_DIRECTORY_BYTES)
            return _parse(data, start, stop, self._tile_section.length, self._leaf_section.length)
        except _Damage as error:
            raise self._damaged(f"its directory at byte {span.offset} is {error}") from None

    def _tile(self, span: _Span) -> bytes:
        if span.length > MAX_TILE_BYTES:
            return b""
        data = self._read(span)
        if not self._gzipped:
            return data
        try:
            return _inflate(data, MAX_TILE_BYTES)
        except _Damage:
            return b""

    def _read(self, span: _Span) -> bytes:
        """All bytes of a span that lay inside the file when it was opened."""
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
            remedy="run it again when nothing writes to the tile source",
        )

    def _unreadable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"{self.path} cannot be read: {error.strerror}",
            path=str(self.path),
            remedy="see whether it may be read and its disk is there",
        )

    def _other_version(self, version: int) -> Invalid:
        return self._not_pmtiles(
            f"it is of version {version} of the format, not {_VERSION}",
            "write it as version 3, as 'pmtiles convert' does from older ones",
        )

    def _not_pmtiles(self, why: str, remedy: str = "name a PMTiles file of image tiles") -> Invalid:
        return Invalid(f"{self.path} is not a usable PMTiles archive: {why}", path=str(self.path), remedy=remedy)


class _Damage(Exception):
    """What is wrong with a compressed block or a directory; whoever knows the file makes it Corrupt."""


class _Span(NamedTuple):
    """A part of the file, in bytes from its beginning."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class _Directory:
    """A checked directory: int64[n] each, n >= 1. A run of 0 is a leaf directory, whose ids end at the next entry's,
    or at `stop`."""

    ids: NDArray[np.int64]
    runs: NDArray[np.int64]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    stop: int

    def places(self, first: int, last: int) -> range:
        """The entries that may have ids in [first, last)."""
        start = int(np.searchsorted(self.ids, first, "right")) - 1
        return range(max(start, 0), int(np.searchsorted(self.ids, last, "left")))

    def entry(self, place: int) -> tuple[int, int, int, int, int]:
        """(first id, run, offset in its section, length, the id before which the next entry begins)."""
        stop = int(self.ids[place + 1]) if place + 1 < len(self.ids) else self.stop
        columns = (self.ids, self.runs, self.offsets, self.lengths)
        first, run, offset, length = (int(column[place]) for column in columns)
        return first, run, offset, length, stop


def _sections(header: dict[str, Any]) -> tuple[_Span, ...]:
    """The root directory, the metadata, the leaf directories and the tiles."""
    names = ("root", "metadata", "leaf_directory", "tile_data")
    return tuple(_Span(header[f"{name}_offset"], header[f"{name}_length"]) for name in names)


def _trace(state: os.stat_result) -> tuple[int, int, int]:
    """What a write changes."""
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _inflate(data: bytes, limit: int) -> bytes:
    """The content of one gzip member, of at most `limit` bytes, whose checksum is right."""
    inflater = zlib.decompressobj(_GZIP)
    try:
        content = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise _Damage(f"not sound gzip: {error}") from None
    if len(content) > limit:
        raise _Damage(f"of more than {limit} bytes when inflated")
    if not inflater.eof or inflater.unused_data:
        raise _Damage("not one whole piece of gzip")
    return content


def _parse(data: bytes, start: int, stop: int, tile_bytes: int, leaf_bytes: int) -> _Directory:
    """The directory that `data` is, of ids in [start, stop) (specification, chapter 4).

    What it points at lies inside `tile_bytes` of tiles and `leaf_bytes` of leaf directories.
    """
    numbers = _varints(data)
    count = int(numbers[0])
    if len(numbers) != 4 * count + 1:
        raise _Damage(f"of {len(numbers) - 1} numbers, not of the {4 * count} of {count} entries")
    if not count:
        raise _Damage("without entries")
    deltas, runs, lengths, coded = numbers[1:].reshape(4, count)
    # A sum beyond 63 bits turns negative, and is out of order.
    ids = np.cumsum(deltas)
    if int(ids[0]) < start or (ids[1:] <= ids[:-1]).any():
        raise _Damage("not in the order of its ids")
    is_leaf = runs == 0
    if max(int(runs.max()), int(lengths.max())) > _MAX_LENGTH:
        raise _Damage(f"with a run or a length of more than {_MAX_LENGTH}")
    if (np.maximum(runs, 1) > np.diff(ids, append=stop)).any():
        raise _Damage("with runs that overlap, or lead out of its ids")
    if (lengths[is_leaf] == 0).any():
        raise _Damage("with an empty leaf directory")
    # 0: right after the entry before. Others are one more than the offset.
    follows = coded == 0
    if follows[0]:
        raise _Damage("without the offset of its first entry")
    before = np.cumsum(lengths) - lengths
    anchors = np.maximum.accumulate(np.where(follows, 0, np.arange(count)))
    offsets = coded[anchors] - 1 + before - before[anchors]
    # Where a sum goes beyond 63 bits, an entry before leads out already.
    if (offsets > np.where(is_leaf, leaf_bytes, tile_bytes) - lengths).any():
        raise _Damage("with an entry that leads out of its section")
    return _Directory(ids, runs, offsets, lengths, stop)


def _varints(data: bytes) -> NDArray[np.int64]:
    """The numbers (int64[n], n >= 1, none negative) that `data` is: little-endian, 7 bits a byte, the last byte of each
    below 128."""
    raw = np.frombuffer(data, np.uint8)
    final = raw < 0x80
    if not raw.size or not final[-1]:
        raise _Damage("cut off within a number")
    if np.count_nonzero(final) > 4 * MAX_ENTRIES + 1:
        raise _Damage(f"of more than {MAX_ENTRIES} entries")
    ends = np.flatnonzero(final)
    sizes = np.diff(ends, prepend=-1)
    longest = int(sizes.max())
    if longest > _VARINT_BYTES:
        raise _Damage("with a number of more than 63 bits")
    starts = ends - sizes + 1
    numbers = (raw[starts] & 0x7F).astype(np.int64)
    for byte in range(1, longest):
        longer = np.flatnonzero(sizes > byte)
        numbers[longer] |= (raw[starts[longer] + byte] & 0x7F).astype(np.int64) << (7 * byte)
    return numbers
