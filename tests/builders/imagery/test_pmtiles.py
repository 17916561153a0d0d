"""PMTiles as a source: leaf directories, runs and shared bytes, damage and bombs, and what is not PMTiles of images."""

from __future__ import annotations

import gzip
import os
import random
import sqlite3
import sys
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pmtiles.convert import mbtiles_to_pmtiles
from pmtiles.tile import (
    Compression,
    Entry,
    TileType,
    deserialize_directory,
    deserialize_header,
    serialize_directory,
    serialize_header,
)
from pmtiles.writer import Writer, build_roots_leaves

from builders.grid.tiles import MAX_TILE_BYTES, Tile, cell_of, cell_range, tile_from_id, tile_id
from builders.imagery import pmtiles
from builders.imagery.mbtiles import MBTilesSource
from builders.imagery.pmtiles import MAX_DIRECTORY_BYTES, MAX_ENTRIES, PMTilesSource
from builders.imagery.stamps import stamp_of
from store.errors import Corrupt, FlightbagError, Invalid, Unavailable
from tests.builders.imagery.containers import change_in_place, open_mbtiles, wait_past

AREA = (-991750000, 470080000, -991600000, 470200000)
ZOOM = 15
WORLD = Tile(0, 0, 0)
JPEG = b"\xff\xd8\xff\xe0 a tile"
Row = tuple[int, int, int, int]  # first id, run, offset, length


def written(path: Path, tiles: Iterable[tuple[int, bytes]], **header: Any) -> Path:
    """An archive as the library of the format's authors writes it."""
    said = {"tile_type": TileType.PNG, "tile_compression": Compression.NONE} | header
    with path.open("wb") as file:
        writer: Any = Writer(file)  # type: ignore[no-untyped-call]
        for number, data in tiles:
            writer.write_tile(number, data)
        writer.finalize(said, {})
    return path


def directory(rows: Sequence[Row]) -> bytes:
    """A directory before compression. Unlike the library's, it takes any order and any offset; -1: it follows."""
    numbers = [len(rows)]
    numbers += [row[0] - before for row, before in zip(rows, [0, *(row[0] for row in rows)], strict=False)]
    numbers += [run for _, run, _, _ in rows]
    numbers += [length for *_, length in rows]
    numbers += [offset + 1 for _, _, offset, _ in rows]
    return b"".join(map(varint, numbers))


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    digits = []
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def assembled(path: Path, root: bytes, leaves: bytes = b"", data: bytes = b"", **header: Any) -> Path:
    """An archive of these sections, each as it is."""
    said: Any = {
        "root_offset": 127,
        "root_length": len(root),
        "metadata_offset": 127 + len(root),
        "metadata_length": 2,
        "leaf_directory_offset": 129 + len(root),
        "leaf_directory_length": len(leaves),
        "tile_data_offset": 129 + len(root) + len(leaves),
        "tile_data_length": len(data),
        "clustered": True,
        "internal_compression": Compression.NONE,
        "tile_compression": Compression.NONE,
        "tile_type": TileType.JPEG,
        "min_zoom": 0,
        "max_zoom": 9,
    } | header
    path.write_bytes(serialize_header(said) + root + b"{}" + leaves + data)
    return path


def header_of(path: Path) -> Any:
    return deserialize_header(path.read_bytes()[:127])


def cells_of(numbers: Iterable[int]) -> list[tuple[Tile, int]]:
    """The cells of tiles, each with the zoom of its tiles, in the order of ids."""
    tiles = map(tile_from_id, numbers)
    return sorted({(cell_of(tile), tile.z) for tile in tiles}, key=lambda item: cell_range(*item))


def everything(source: PMTilesSource | MBTilesSource, numbers: Iterable[int]) -> list[tuple[int, bytes]]:
    return [item for cell, zoom in cells_of(numbers) for item in source.cell(cell, zoom)]


def many(seed: int = 1) -> dict[int, bytes]:
    """20,000 tiles of zoom 8, some of them alike, in runs and apart: more than a root directory takes."""
    draw = random.Random(seed)
    first, last = cell_range(WORLD, 4)[0], cell_range(Tile(4, 15, 0), 8)[1]
    numbers = sorted(draw.sample(range(first, last), 20_000))
    common = [draw.randbytes(40) for _ in range(3)]
    tiles: dict[int, bytes] = {}
    for number in numbers:
        tiles[number] = draw.choice(common) if draw.random() < 0.2 else draw.randbytes(draw.randrange(1, 60))
    for number in range(first + 5000, first + 5600):
        tiles[number] = b"sea"
    return dict(sorted(tiles.items()))


@pytest.fixture(scope="module")
def tiles() -> dict[int, bytes]:
    return many()


@pytest.fixture(scope="module")
def archive(tiles: dict[int, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = written(tmp_path_factory.mktemp("archive") / "many.pmtiles", tiles.items())
    header = header_of(path)
    assert header["leaf_directory_length"] > 0
    assert header["clustered"]
    assert header["tile_contents_count"] < header["tile_entries_count"] < header["addressed_tiles_count"]
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return written(tmp_path / "small.pmtiles", [(number, bytes([number])) for number in range(21)])


def test_every_tile_of_an_archive_with_leaf_directories_is_found(archive: Path, tiles: dict[int, bytes]) -> None:
    with PMTilesSource(archive) as source:
        assert everything(source, tiles) == list(tiles.items())
        for number in [*tiles][::97]:
            assert source.read(tile_from_id(number)) == tiles[number]
        absent = set(range(min(tiles), max(tiles))) - set(tiles)
        for number in sorted(absent)[::97]:
            assert source.read(tile_from_id(number)) is None


def test_an_archive_that_is_not_clustered_is_the_same_source(
    archive: Path, tiles: dict[int, bytes], tmp_path: Path
) -> None:
    order = list(tiles.items())
    random.Random(2).shuffle(order)
    path = written(tmp_path / "shuffled.pmtiles", order)
    assert not header_of(path)["clustered"]
    with PMTilesSource(path) as source:
        assert everything(source, tiles) == list(tiles.items())


STEPS = st.tuples(
    st.sampled_from([0, 1, 300, 1 << 45]),
    st.sampled_from([0, 1, 7, 1 << 20]),
    st.sampled_from([1, 5, 200, 1 << 31]),
    st.none() | st.integers(0, 1 << 50),
)


@given(st.lists(STEPS, min_size=1, max_size=40))
def test_a_directory_is_what_the_library_reads_in_it(steps: list[tuple[int, int, int, int | None]]) -> None:
    entries = []
    number = offset = 0
    for gap, run, length, given_offset in steps:
        number += gap
        offset = offset if given_offset is None else given_offset
        entries.append(Entry(number, offset, length, run))
        number += max(run, 1)
        offset += length
    packed = serialize_directory(entries)
    parsed = pmtiles._parse(gzip.decompress(packed), 0, 1 << 62, 1 << 60, 1 << 60)
    assert [parsed.entry(place)[:4] for place in range(len(parsed.ids))] == [
        (entry.tile_id, entry.run_length, entry.offset, entry.length) for entry in deserialize_directory(packed)
    ]


TILES = st.dictionaries(st.integers(0, 1400), st.sampled_from([b"a", b"bb", b"ccc", b""]), min_size=1, max_size=60)


@given(TILES, st.integers(1, 5), st.integers(0, 3), st.booleans())
def test_a_cell_is_its_range_whatever_the_directories(
    tmp_path_factory: pytest.TempPathFactory, tiles: dict[int, bytes], leaf_size: int, levels: int, plain: bool
) -> None:
    """Levels of leaf directories from none to three, each of a few entries; runs across the edges of cells."""
    store = b"abbccc"
    rows: list[Row] = []
    for number, data in sorted(tiles.items()):
        if rows and rows[-1][0] + rows[-1][1] == number and rows[-1][2:] == (store.index(data), len(data)):
            rows[-1] = (rows[-1][0], rows[-1][1] + 1, *rows[-1][2:])
        else:
            rows.append((number, 1, store.index(data), len(data)))
    pack = bytes if plain else gzip.compress
    leaves = b""
    for _ in range(levels):
        above: list[Row] = []
        for at in range(0, len(rows), leaf_size):
            leaf = pack(directory(rows[at : at + leaf_size]))
            above.append((rows[at][0], 0, len(leaves), len(leaf)))
            leaves += leaf
        rows = above
    path = tmp_path_factory.getbasetemp() / "law.pmtiles"
    inside = Compression.NONE if plain else Compression.GZIP
    assembled(path, pack(directory(rows)), leaves, store, internal_compression=inside)
    with PMTilesSource(path) as source:
        for cell, zoom in [
            (WORLD, 0),
            (WORLD, 2),
            (WORLD, 4),
            (Tile(1, 0, 0), 5),
            (Tile(1, 1, 1), 5),
            (Tile(5, 3, 2), 5),
        ]:
            wanted = range(*cell_range(cell, zoom))
            assert list(source.cell(cell, zoom)) == [item for item in sorted(tiles.items()) if item[0] in wanted]
        for number in range(0, 1400, 7):
            assert source.read(tile_from_id(number)) == tiles.get(number)


def test_leaf_directories_of_the_library_of_any_size(tiles: dict[int, bytes], tmp_path: Path) -> None:
    data = b"".join(tiles.values())
    entries = []
    offset = 0
    for number, tile in tiles.items():
        entries.append(Entry(number, offset, len(tile), 1))
        offset += len(tile)
    for leaf_size in (64, 4096):
        root, leaves, _ = build_roots_leaves(entries, leaf_size)  # type: ignore[no-untyped-call]
        path = assembled(tmp_path / "a.pmtiles", root, leaves, data, internal_compression=Compression.GZIP)
        with PMTilesSource(path) as source:
            assert everything(source, tiles) == list(tiles.items())


def test_a_run_is_given_a_tile_at_a_time(tmp_path: Path) -> None:
    """One that begins long before a cell and ends long after it, of more tiles than could be held."""
    path = assembled(tmp_path / "sea.pmtiles", directory([(0, (1 << 32) - 1, 0, 3), (1 << 33, 1, 0, 3)]), data=b"sea")
    with PMTilesSource(path) as source:
        for cell, zoom in [(WORLD, 0), (Tile(8, 200, 3), 12), (Tile(12, 7, 7), 15)]:
            assert list(source.cell(cell, zoom)) == [(number, b"sea") for number in range(*cell_range(cell, zoom))]
        assert list(source.cell(Tile(20, 5, 5), 24)) == []


def test_only_the_directories_of_a_cell_are_read_and_they_are_remembered(
    archive: Path, tiles: dict[int, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where fewer entries may be remembered than a leaf directory has."""
    read: list[int] = []
    header = header_of(archive)
    leaves = range(header["leaf_directory_offset"], header["tile_data_offset"])
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        if offset in leaves:
            read.append(offset)
        return pread(fd, size, offset)

    monkeypatch.setattr("os.pread", counted)
    with PMTilesSource(archive) as source:
        assert read == []
        everything(source, tiles)
        once = sorted(set(read))
        assert len(once) > 1
        assert read == once
        assert source._cached == sum(len(leaf.ids) for leaf in source._leaves.values())
    monkeypatch.setattr(pmtiles, "CACHED_ENTRIES", 5000)
    with PMTilesSource(archive) as source:
        for _ in range(2):
            assert everything(source, tiles) == list(tiles.items())
            assert source._cached == sum(len(leaf.ids) for leaf in source._leaves.values()) <= 5000
    monkeypatch.setattr(pmtiles, "CACHED_ENTRIES", 10)
    with PMTilesSource(archive) as source:
        assert everything(source, tiles) == list(tiles.items())
        assert source._cached == 0


def test_the_directory_that_was_asked_for_longest_ago_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves = [directory([(number, 1, 0, 1)]) for number in (1, 2, 3)]
    size = len(leaves[0])
    root = directory([(number, 0, size * place, size) for place, number in enumerate((1, 2, 3))])
    monkeypatch.setattr(pmtiles, "CACHED_ENTRIES", 2)
    with PMTilesSource(assembled(tmp_path / "a.pmtiles", root, b"".join(leaves), b"x")) as source:
        for number in (1, 2, 1, 3):
            assert source.read(tile_from_id(number)) == b"x"
        assert [int(leaf.ids[0]) for leaf in source._leaves.values()] == [1, 3]


# What a tile holds


def test_the_compression_of_tiles_is_undone(tmp_path: Path) -> None:
    tiles = {number: bytes([number]) * 100 for number in range(21)}
    packed = [(number, gzip.compress(data, mtime=0)) for number, data in tiles.items()]
    path = written(tmp_path / "packed.pmtiles", packed, tile_compression=Compression.GZIP)
    with PMTilesSource(path) as source:
        assert everything(source, tiles) == list(tiles.items())


def test_the_largest_tile_that_inflates(tmp_path: Path) -> None:
    data = gzip.compress(bytes(MAX_TILE_BYTES), mtime=0)
    rows = directory([(0, 1, 0, len(data))])
    path = assembled(tmp_path / "a.pmtiles", rows, data=data, tile_compression=Compression.GZIP)
    with PMTilesSource(path) as source:
        assert source.read(WORLD) == bytes(MAX_TILE_BYTES)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        gzip.compress(b"cut off", mtime=0)[:-1],
        gzip.compress(b"wrong checksum", mtime=0)[:-8] + bytes(8),
        gzip.compress(b"two", mtime=0) * 2,
        gzip.compress(bytes(MAX_TILE_BYTES + 1), mtime=0),
    ],
)
def test_what_does_not_inflate_is_present_and_empty(tmp_path: Path, data: bytes) -> None:
    path = assembled(
        tmp_path / "a.pmtiles",
        directory([(1, 2, 0, len(data))]),
        data=data,
        tile_compression=Compression.GZIP,
    )
    with PMTilesSource(path) as source:
        assert list(source.cell(WORLD, 1)) == [(1, b""), (2, b"")]
        assert source.read(tile_from_id(2)) == b""
        assert source.read(tile_from_id(3)) is None


def test_a_tile_too_large_is_present_and_empty_and_not_read(tmp_path: Path) -> None:
    """The file is sparse."""
    rows = [(1, 1, 0, MAX_TILE_BYTES + 1), (2, 1, 0, MAX_TILE_BYTES), (3, 1, 0, 0)]
    path = assembled(tmp_path / "a.pmtiles", directory(rows), tile_data_length=MAX_TILE_BYTES + 1)
    os.truncate(path, path.stat().st_size + MAX_TILE_BYTES + 1)
    with PMTilesSource(path) as source:
        found = [(number, len(data)) for number, data in source.cell(WORLD, 1)]
    assert found == [(1, 0), (2, MAX_TILE_BYTES), (3, 0)]


# The header


@pytest.mark.parametrize(
    ("lowest", "highest", "zooms"),
    [(3, 18, (3, 18)), (0, 0, (0, 0)), (0, 24, (0, 24)), (0, 25, None), (4, 3, None), (255, 255, None)],
)
def test_the_zooms_are_those_of_the_header(
    tmp_path: Path, lowest: int, highest: int, zooms: tuple[int, int] | None
) -> None:
    path = assembled(tmp_path / "a.pmtiles", directory([(0, 1, 0, 1)]), data=b"x", min_zoom=lowest, max_zoom=highest)
    with PMTilesSource(path) as source:
        assert source.zooms == zooms


@pytest.mark.parametrize("tile_type", [TileType.MVT, TileType.AVIF, TileType.MLT])
def test_tiles_that_are_no_images_of_ours_are_invalid(tmp_path: Path, tile_type: TileType) -> None:
    path = written(tmp_path / "a.pmtiles", [(0, b"x")], tile_type=tile_type)
    with pytest.raises(Invalid, match=tile_type.name.lower()) as caught:
        PMTilesSource(path)
    assert caught.value.remedy
    with PMTilesSource(written(path, [(0, JPEG)], tile_type=tile_type)) as source:
        assert source.read(WORLD) == JPEG
        assert source.stated == tile_type.name.lower()


def test_what_the_header_says_of_a_tile_does_not_decide(tmp_path: Path) -> None:
    tiles = [(0, JPEG), (1, gzip.compress(JPEG)), (2, gzip.compress(gzip.compress(JPEG)))]
    for tile_type in (TileType.UNKNOWN, TileType.PNG):
        for compression in (Compression.UNKNOWN, Compression.NONE, Compression.GZIP):
            path = written(tmp_path / "a.pmtiles", tiles, tile_type=tile_type, tile_compression=compression)
            with PMTilesSource(path) as source:
                assert source.read(WORLD) == source.read(tile_from_id(1)) == JPEG
                assert source.read(tile_from_id(2)) == gzip.compress(JPEG)
                assert source.stated == ("png" if tile_type == TileType.PNG else "")


@pytest.mark.parametrize("stated", ["jpg", "jpeg", "png", "webp", "image/jpeg", "JPG", "mixed"])
def test_what_the_converter_of_the_library_writes_is_read(tmp_path: Path, stated: str) -> None:
    """For `jpg`, which MBTiles prescribes, it writes tile type 0."""
    database = tmp_path / "a.mbtiles"
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("CREATE TABLE metadata (name, value)")
        db.execute("INSERT INTO metadata VALUES ('format', ?), ('minzoom', '0'), ('maxzoom', '0')", (stated,))
        db.execute("CREATE TABLE tiles (zoom_level, tile_column, tile_row, tile_data)")
        db.execute("INSERT INTO tiles VALUES (0, 0, 0, ?)", (JPEG,))
    mbtiles_to_pmtiles(str(database), str(tmp_path / "a.pmtiles"), None)  # type: ignore[no-untyped-call]
    with PMTilesSource(tmp_path / "a.pmtiles") as source:
        assert source.read(WORLD) == JPEG


@pytest.mark.parametrize(
    ("what", "compression"),
    [
        ("internal", Compression.UNKNOWN), ("internal", Compression.BROTLI), ("internal", Compression.ZSTD),
        ("tile", Compression.BROTLI), ("tile", Compression.ZSTD),
    ],
)  # fmt: skip
def test_other_compressions_are_invalid(tmp_path: Path, what: str, compression: Compression) -> None:
    header: Any = {f"{what}_compression": compression}
    path = assembled(tmp_path / "a.pmtiles", directory([(0, 1, 0, 1)]), data=b"x", **header)
    with pytest.raises(Invalid, match=f"{what} compression is {compression.name.lower()}") as caught:
        PMTilesSource(path)
    assert "pmtiles convert" in caught.value.remedy


@pytest.mark.parametrize("start", [b"PM\x01\x00", b"PM\x02\x00", b"PMTiles\x02", b"PMTiles\x04"])
def test_another_version_is_invalid(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "old.pmtiles"
    path.write_bytes(start + bytes(5000))
    with pytest.raises(Invalid, match="version") as caught:
        PMTilesSource(path)
    assert "pmtiles convert" in caught.value.remedy


def test_a_file_that_is_not_pmtiles_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    for content in (b"", b"PMTile", b"neither PMTiles nor anything", b"x" * 5000):
        path.write_bytes(content)
        with pytest.raises(Invalid) as caught:
            PMTilesSource(path)
        assert caught.value.fields["path"] == str(path)


def test_without_the_library_it_is_unavailable(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pmtiles.tile", None)
    with pytest.raises(Unavailable) as caught:
        PMTilesSource(small)
    assert caught.value.fields["library"] == "pmtiles"


# Damage


def read_all(path: Path) -> list[tuple[int, bytes]]:
    """Zooms 0 to 4, where the damaged archives have their tiles, and some tiles one by one."""
    with PMTilesSource(path) as source:
        for number in (0, 1, 84, 340):
            source.read(tile_from_id(number))
        return [item for zoom in range(5) for item in source.cell(WORLD, zoom)]


@contextmanager
def little_memory(limit: int = 4 << 20) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def damage(path: Path) -> FlightbagError | None:
    """The error that comes out of reading a file: one of ours that names it, or none."""
    try:
        read_all(path)
    except FlightbagError as error:
        found = error
    else:
        return None
    assert found.fields["path"] == str(path)
    assert found.remedy
    return found


def nested(path: Path, inside: Compression) -> Path:
    """Two levels of leaf directories, runs, shared bytes."""
    pack = gzip.compress if inside is Compression.GZIP else bytes
    data = random.Random(3).randbytes(500)
    rows = [(3 * n, 1 + n % 3, 7 * (n % 50), 1 + n % 90) for n in range(30)]
    leaves = b""
    for size in (5, 2):
        above: list[Row] = []
        for at in range(0, len(rows), size):
            leaf = pack(directory(rows[at : at + size]))
            above.append((rows[at][0], 0, len(leaves), len(leaf)))
            leaves += leaf
        rows = above
    return assembled(path, pack(directory(rows)), leaves, data, internal_compression=inside)


@pytest.mark.parametrize("inside", [Compression.NONE, Compression.GZIP])
def test_a_file_that_is_cut_off_is_refused_wherever(tmp_path: Path, inside: Compression) -> None:
    path = nested(tmp_path / "whole.pmtiles", inside)
    assert damage(path) is None
    whole = path.read_bytes()
    with little_memory():
        for length in {*range(130), *range(130, len(whole), 7), len(whole) - 1}:
            path.write_bytes(whole[:length])
            assert isinstance(damage(path), Invalid if length < 7 else Corrupt)


@pytest.mark.parametrize("inside", [Compression.NONE, Compression.GZIP])
def test_flipped_bits_end_in_our_errors_or_none(tmp_path: Path, inside: Compression) -> None:
    path = nested(tmp_path / "flipped.pmtiles", inside)
    whole = path.read_bytes()
    header = header_of(path)
    draw = random.Random(4)
    before_tiles = header["tile_data_offset"]
    assert before_tiles + header["tile_data_length"] == len(whole)
    # Every bit of the header but of its counts of tiles and its bounds, which are not looked at.
    places = [(byte, bit) for byte in (*range(72), *range(96, 102)) for bit in range(8)]
    places += [(draw.randrange(127, before_tiles), draw.randrange(8)) for _ in range(300)]
    found: Counter[type] = Counter()  # an error itself would keep what its frames hold
    with little_memory():
        for byte, bit in places:
            data = bytearray(whole)
            data[byte] ^= 1 << bit
            path.write_bytes(data)
            found[type(damage(path))] += 1
    assert found[Corrupt] > len(places) // 3
    assert set(found) <= {type(None), Corrupt, Invalid}


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_as_a_directory_end_in_our_errors_or_none(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, as_leaf: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pmtiles"
    root = directory([(0, 0, 0, len(data))]) if as_leaf else data
    assembled(path, root, data, b"tiles")
    with little_memory():
        damage(path)


LIMIT = (1 << 64) // 3


@pytest.mark.parametrize(
    ("why", "rows"),
    [
        ("without entries", []),
        ("63 bits", [(5, 1, 0, 1), (4, 1, 0, 1)]),
        ("order", [(5, 1, 0, 1), (5, 1, 0, 1)]),
        ("overlap", [(5, 2, 0, 1), (6, 1, 0, 1)]),
        ("overlap", [(5, 1 << 31, 0, 1), (6, 1, 0, 1)]),
        ("more than", [(5, 1 << 32, 0, 1)]),
        ("more than", [(5, 1, 0, 1 << 32)]),
        ("lead out of its ids", [(LIMIT, 1, 0, 1)]),
        ("lead out of its ids", [(LIMIT - 1, 2, 0, 1)]),
        ("lead out of its ids", [(LIMIT, 0, 0, 1)]),
        ("63 bits", [((1 << 63) + 3, 1, 0, 1)]),
        ("order", [((1 << 63) - 1, 1, 0, 1), ((1 << 64) - 3, 1, 0, 1)]),
        ("out of its section", [(5, 1, 1 << 40, 1)]),
        ("out of its section", [(5, 1, (1 << 63) - 2, 1)]),
        ("out of its section", [(5, 1, 0, 6)]),
        ("out of its section", [(5, 1, 5, 1)]),
        ("out of its section", [(5, 0, 0, 1)]),
        ("out of its section", [(5, 1, (1 << 63) - 2, (1 << 32) - 1), (6, 1, -1, 1)]),
        ("empty leaf", [(5, 0, 0, 0)]),
    ],
)
def test_a_directory_is_taken_as_a_whole_or_not_at_all(tmp_path: Path, why: str, rows: list[Row]) -> None:
    sound = [(0, 1, 0, 1), (1, 2, 4, 1), (3, 1, 1, 4)] if rows else []
    path = assembled(tmp_path / "a.pmtiles", directory([*sound, *rows]), data=b"tiles")
    with pytest.raises(Corrupt, match=why):
        PMTilesSource(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        b"\x01",
        b"\x02\x00\x01\x01\x01",
        b"\x01\x00\x01\x01\x01\x01",
        b"\x01\x00\x01\x01\x81",
        b"\x01\x00\x01\x01\x00",
    ],
)
def test_numbers_too_few_too_many_or_cut_off(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Corrupt):
        PMTilesSource(assembled(tmp_path / "a.pmtiles", data, data=b"tiles"))


def test_numbers_need_not_be_short(tmp_path: Path) -> None:
    """1 as 0x81 0x00 is a number too, up to nine bytes."""
    path = assembled(tmp_path / "a.pmtiles", b"\x81" + b"\x80" * 7 + b"\x00" + b"\x81\x00\x01\x01\x01", data=b"x")
    with PMTilesSource(path) as source:
        assert list(source.cell(WORLD, 1)) == [(1, b"x")]


@pytest.mark.parametrize(
    "leaf",
    [
        [(4, 1, 0, 1)],  # before its own first id
        [(5, 1, 0, 1), (9, 1, 0, 1)],  # an id of the next leaf directory
        [(5, 5, 0, 1)],  # a run into it
        [(5, 0, 0, 1), (9, 0, 0, 1)],
        [],
    ],
)
def test_a_leaf_directory_keeps_to_its_ids(tmp_path: Path, leaf: list[Row]) -> None:
    inner = directory(leaf)
    path = assembled(
        tmp_path / "a.pmtiles", directory([(1, 1, 0, 1), (5, 0, 0, len(inner)), (9, 1, 1, 1)]), inner, b"tiles"
    )
    with PMTilesSource(path) as source:
        assert list(source.cell(WORLD, 0)) == []
        assert list(source.cell(WORLD, 1)) == [(1, b"t")]
        with pytest.raises(Corrupt):
            list(source.cell(WORLD, 2))
        assert source.read(tile_from_id(9)) == b"i"


def test_a_leaf_directory_of_two_places_is_sound_in_one_at_most(tmp_path: Path) -> None:
    inner = directory([(5, 1, 0, 1)])
    root = directory([(1, 0, 0, len(inner)), (5, 0, 0, len(inner)), (9, 0, 0, len(inner))])
    with PMTilesSource(assembled(tmp_path / "a.pmtiles", root, inner, b"x")) as source:
        assert source.read(tile_from_id(5)) == b"x"
        for number in (1, 9):
            with pytest.raises(Corrupt):
                source.read(tile_from_id(number))


def test_leaf_directories_that_go_round_in_a_circle_end(tmp_path: Path) -> None:
    inner = directory([(1, 0, 0, 5)])
    assert len(inner) == 5
    path = assembled(tmp_path / "a.pmtiles", directory([(1, 0, 0, 5)]), inner)
    with PMTilesSource(path) as source, pytest.raises(Corrupt, match="nested"):
        list(source.cell(WORLD, 1))


# Bombs


@pytest.mark.parametrize("as_leaf", [False, True])
@pytest.mark.parametrize("byte", [b"\x00", b"\x01", b"\x80"])
@pytest.mark.parametrize("size", [MAX_DIRECTORY_BYTES, MAX_DIRECTORY_BYTES + 1, 1 << 30])
def test_a_bomb_is_refused_before_it_is_large(tmp_path: Path, as_leaf: bool, byte: bytes, size: int) -> None:
    """A directory of a few kilobytes that inflates without end, to what has many numbers or one."""
    step = 1 << 20
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(byte * min(step, size - at)) for at in range(0, min(size, 64 << 20), step))
    bomb += packer.flush()
    root = gzip.compress(directory([(0, 0, 0, len(bomb))])) if as_leaf else bomb
    path = assembled(tmp_path / "bomb.pmtiles", root, bomb, internal_compression=Compression.GZIP)
    with little_memory(4 * MAX_DIRECTORY_BYTES):
        assert isinstance(damage(path), Corrupt)


def test_a_directory_too_large_is_not_read(tmp_path: Path) -> None:
    """The file is sparse."""
    path = assembled(tmp_path / "a.pmtiles", b"", root_length=1 << 40)
    os.truncate(path, 1 << 41)
    with little_memory():
        assert isinstance(damage(path), Corrupt)


def test_a_directory_has_a_limited_number_of_entries(tmp_path: Path) -> None:
    for count in (MAX_ENTRIES, MAX_ENTRIES + 1):
        root = varint(count) + b"\x01" * (3 * count) + b"\x01" * count
        path = assembled(tmp_path / "a.pmtiles", root, data=b"x")
        if count > MAX_ENTRIES:
            with pytest.raises(Corrupt, match="entries"):
                PMTilesSource(path)
        else:
            with PMTilesSource(path) as source:
                assert source.read(tile_from_id(count)) == b"x"
                assert source.read(tile_from_id(count + 1)) is None


# Changes


def test_a_file_that_shrinks_while_it_is_open_is_unavailable(small: Path) -> None:
    with PMTilesSource(small) as source:
        os.truncate(small, small.stat().st_size - 1)
        with pytest.raises(Unavailable, match="written to"):
            list(source.cell(WORLD, 2))
        with pytest.raises(Unavailable, match="written to"):
            source.stamp([])


def test_an_archive_that_was_written_to_has_no_stamp(small: Path, tmp_path: Path) -> None:
    """Its directories may be those of before. What is read from a file that was removed stays what was opened."""
    before = stamp_of([small])
    with PMTilesSource(small) as source:
        assert source.stamp([]) == before
        wait_past(before, tmp_path)
        change_in_place(small)
        with pytest.raises(Unavailable, match="written to"):
            source.stamp([])
        small.unlink()
        assert source.read(tile_from_id(1)) == b"\x01"


def test_the_aerial_imagery_is_the_same_as_pmtiles(shared: Path, tmp_path: Path) -> None:
    imagery = shared / "imagery/naip-20180716.mbtiles"
    with closing(sqlite3.connect(f"file:{imagery}?mode=ro", uri=True)) as db:
        places = db.execute("SELECT zoom_level, tile_column, tile_row FROM tiles WHERE zoom_level <= 17").fetchall()
    numbers = sorted(tile_id(Tile(z, x, (1 << z) - 1 - row)) for z, x, row in places)
    with open_mbtiles(imagery) as mbtiles:
        expected = everything(mbtiles, numbers)
        assert [number for number, _ in expected] == numbers
    with PMTilesSource(written(tmp_path / "naip.pmtiles", expected, tile_type=TileType.JPEG)) as source:
        assert everything(source, numbers) == expected
