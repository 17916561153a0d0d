"""Opening a source by what it is, and stamps of files."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.grid.tiles import cell_of, tile_from_id, tile_id, tiles_of_bbox
from builders.imagery.mbtiles import MBTilesSource
from builders.imagery.sources import open_source
from builders.imagery.stamps import SourceStamp, check_same, identity_of, stamp_of
from builders.imagery.xyz import XyzSource
from store.errors import Corrupt, Invalid, Unavailable
from tests.support.terrain import write_terrain

AREA = (-991750000, 470080000, -991700000, 470120000)
ZOOM = 15
SIDE = 256


@pytest.fixture
def terrain(tmp_path: Path) -> Path:
    """MBTiles under a name that says something else."""
    write_terrain(tmp_path / "terrain.pmtiles", AREA, [ZOOM])
    return tmp_path / "terrain.pmtiles"


def test_a_file_is_what_it_begins_with_and_a_folder_is_xyz(terrain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder.mbtiles"
    cells = sorted({cell_of(tile_from_id(n)) for n in tiles_of_bbox(AREA, ZOOM).tolist()}, key=tile_id)
    with open_source(terrain, SIDE) as source:
        assert isinstance(source, MBTilesSource)
        assert (source.path, source.zooms, source.resolution_m) == (terrain, (ZOOM, ZOOM), None)
        imagery = [item for cell in cells for item in source.cell(cell, ZOOM)]
    for number, data in imagery:
        path = folder / f"{tile_from_id(number)}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with open_source(folder, SIDE) as source:
        assert isinstance(source, XyzSource)
        assert (source.path, source.zooms, source.resolution_m) == (folder, (ZOOM, ZOOM), None)
        assert [item for cell in cells for item in source.cell(cell, ZOOM)] == imagery
        assert source.read(tile_from_id(imagery[0][0])) == imagery[0][1]
        assert source.stamp([(cells[0], ZOOM)]) == source.stamp([(cells[0], ZOOM)])
    source.close()


@pytest.mark.parametrize(
    ("start", "module"),
    [
        (b"SQLite format 3\0", "mbtiles"),
        (b"PMTiles\x03", "pmtiles"),
        (b"II*\0", "geotiff"),
        (b"MM\0*", "geotiff"),
        (b"II+\0", "geotiff"),
        (b"MM\0+", "geotiff"),
    ],
)
def test_a_file_that_only_begins_like_a_source_is_no_source(tmp_path: Path, start: bytes, module: str) -> None:
    """Or a library for it is missing; nothing else comes out."""
    path = tmp_path / "start"
    for data in (start, start + bytes(5000)):
        path.write_bytes(data)
        with pytest.raises((Corrupt, Invalid, Unavailable)):
            open_source(path, SIDE)


@pytest.mark.parametrize("data", [b"", b"P", b"SQLite format 3", b"\xff\xd8\xff\xe0", b"II*", b"PMTile", b"x" * 5000])
def test_what_is_no_source_is_invalid_and_told_what_is_one(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file.mbtiles"
    path.write_bytes(data)
    with pytest.raises(Invalid) as caught:
        open_source(path, SIDE)
    assert caught.value.fields["path"] == str(path)
    assert ("is empty" in caught.value.message) == (data == b"")
    for kind in ("MBTiles", "PMTiles", "GeoTIFF", "z/x/y"):
        assert kind in caught.value.remedy


def test_what_is_neither_file_nor_folder_is_invalid_and_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    Path("link").symlink_to("nothing")
    for path in (Path("pipe"), Path("socket"), Path("link"), Path("nothing"), Path("/dev/null"), Path("/dev/null/x")):
        with pytest.raises(Invalid) as caught:
            open_source(path, SIDE)
        assert caught.value.fields["path"] == str(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_unavailable(terrain: Path) -> None:
    terrain.chmod(0)
    with pytest.raises(Unavailable):
        open_source(terrain, SIDE)


# Stamps


def test_a_stamp_of_nothing() -> None:
    assert stamp_of([]) == stamp_of([])
    assert stamp_of([]).newest == 0
    assert len(stamp_of([]).digest) == 32


def test_absence_is_stamped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    absent = stamp_of([path])
    assert absent.newest == 0
    assert absent != stamp_of([])
    path.write_bytes(b"")
    there = stamp_of([path])
    assert there.digest != absent.digest
    assert there.newest == max(path.stat().st_mtime_ns, path.stat().st_ctime_ns)
    assert stamp_of([path / "below a file"]).newest == 0
    path.unlink()
    assert stamp_of([path]) == absent


def test_the_newest_of_all_times_is_told(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"")
    (tmp_path / "future").write_bytes(b"")
    os.utime(tmp_path / "old", ns=(0, -(10**9)))  # before 1970
    os.utime(tmp_path / "future", ns=(0, 2**62))
    assert stamp_of([tmp_path / "old"]).newest == (tmp_path / "old").stat().st_ctime_ns
    assert stamp_of([tmp_path / "future", tmp_path / "old"]).newest == (tmp_path / "future").stat().st_mtime_ns


def test_a_link_is_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    shutil.copy2(tmp_path / "file", tmp_path / "copy")
    (tmp_path / "link").symlink_to("file")
    first = stamp_of([tmp_path / "link"])
    assert first == stamp_of([tmp_path / "file"])
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("copy")
    assert stamp_of([tmp_path / "link"]).digest != first.digest


def test_what_cannot_be_told_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / ("x" * 300)):
        with pytest.raises(Unavailable) as caught:
            stamp_of([path])
        assert caught.value.fields["path"] == str(path)
        with pytest.raises(Unavailable):
            check_same(path, (1, 1))


def test_a_replaced_file_is_not_the_same(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    opened = identity_of(path)
    path.write_bytes(b"more")
    check_same(path, opened)
    shutil.copy2(path, tmp_path / "copy")
    os.replace(tmp_path / "copy", path)
    with pytest.raises(Unavailable, match="was replaced"):
        check_same(path, opened)
    path.unlink()
    with pytest.raises(Unavailable, match="was replaced"):
        check_same(path, opened)


NAMES = st.lists(st.sampled_from(["a", "ab", "b", "a/b", "absent", "gone"]), max_size=5)


@given(NAMES, NAMES)
def test_two_stamps_are_equal_only_for_the_same_names_in_the_same_order(left: list[str], right: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("ab", "b", "a/b"):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(b"")
        one, other = (stamp_of(folder / name for name in names) for names in (left, right))
    assert (one.digest == other.digest) == (left == right)


def test_a_stamp_is_a_value() -> None:
    stamp = SourceStamp(bytes(32), 7)
    assert stamp == SourceStamp(bytes(32), 7)
    with pytest.raises(AttributeError):
        stamp.newest = 8  # type: ignore[misc]
