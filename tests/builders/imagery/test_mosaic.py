"""Which rasters a path names: a folder, a list, or a VRT, which is compared with the files that it names."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.grid.tiles import Tile, tile_id
from builders.imagery.geotiff import GeoTiffSource
from builders.imagery.sources import SourceStamp, TileSource, open_source
from store.errors import Invalid
from tests.builders.imagery.containers import NOWHERE
from tests.support.orthophotos import HIGH, SIDE, WIDE, X0, Y0, ZOOM, land, nine, vrt, write

rasterio = pytest.importorskip("rasterio", reason="the extra geotiff is not installed")

TILES = [Tile(ZOOM, X0 + x, Y0 + y) for y in range(HIGH) for x in range(WIDE)]


def tiles_of(source: TileSource) -> list[bytes | None]:
    with source:
        return [source.read(tile) for tile in TILES]


def opened(path: Path, **keys: Any) -> TileSource:
    return open_source(path, SIDE, NOWHERE, **keys)


@pytest.fixture
def sheets(tmp_path: Path) -> list[Path]:
    """Nine rasters in a folder of their own, whose seams lie within tiles."""
    (tmp_path / "ortho").mkdir()
    return nine(tmp_path / "ortho")


@pytest.fixture
def merged(tmp_path: Path) -> list[bytes | None]:
    """The tiles of the same land in one raster."""
    return tiles_of(opened(write(tmp_path / "merged.tif", land())))


def test_a_list_a_folder_and_a_vrt_are_one_source(sheets: list[Path], merged: list[bytes | None]) -> None:
    assert None not in merged
    assert tiles_of(opened(sheets[0], beside=sheets[1:])) == merged
    assert tiles_of(opened(sheets[0].parent)) == merged
    assert tiles_of(opened(vrt(sheets[0].parent / "all.vrt", sheets))) == merged
    # And parts of a list may be folders and VRTs.
    folder = sheets[0].parent / "south"
    folder.mkdir()
    for path in sheets[6:]:
        path.rename(folder / path.name)
    part = vrt(sheets[0].parent / "north.vrt", sheets[:3])
    assert tiles_of(opened(part, beside=[*sheets[3:6], folder])) == merged


def test_the_vrt_that_gdal_itself_reads_shows_the_same(sheets: list[Path], tmp_path: Path) -> None:
    """The VRTs of these tests are what GDAL takes for one, with the pixels that we take."""
    pixels = land()
    top = write(tmp_path / "ortho/top.tif", 255 - pixels[40:90, 30:100], column=30, row=40)
    path = vrt(tmp_path / "ortho/all.vrt", [*sheets, top])
    with rasterio.open(path) as raster:
        shown = raster.read().transpose(1, 2, 0)
    with GeoTiffSource(path, SIDE) as source, GeoTiffSource(write(tmp_path / "one.tif", shown), SIDE) as one:
        assert [source.read(tile) for tile in TILES] == [one.read(tile) for tile in TILES]


def test_a_vrt_that_gdal_wrote_of_one_raster_is_read(tmp_path: Path, merged: list[bytes | None]) -> None:
    from rasterio.shutil import copy

    copy(tmp_path / "merged.tif", tmp_path / "copy.vrt", driver="VRT")
    assert b"<VRTDataset" in (tmp_path / "copy.vrt").read_bytes()
    assert tiles_of(opened(tmp_path / "copy.vrt")) == merged


def test_a_folder_has_parts_of_rasters_and_other_files_beside(sheets: list[Path], merged: list[bytes | None]) -> None:
    folder = sheets[0].parent
    (folder / f"{sheets[0].name}.ovr").write_bytes(sheets[1].read_bytes())
    for name in ("delivery.pdf", "sheet.tfw", ".DS_Store", "empty.tif"):
        (folder / name).write_bytes(b"" if name == "empty.tif" else b"%PDF")
    (folder / "more").mkdir()
    (folder / "more/other.tif").write_bytes(sheets[0].read_bytes())
    os.mkfifo(folder / "pipe.tif")
    assert tiles_of(opened(folder)) == merged
    # By its bytes: the name says nothing.
    sheets[4].rename(folder / "sheet.dat")
    assert tiles_of(opened(folder)) == merged


def test_a_folder_of_tiles_stays_one(sheets: list[Path]) -> None:
    tile = sheets[0].parent / f"{TILES[0]}.png"
    tile.parent.mkdir(parents=True)
    tile.write_bytes(b"a tile")
    with opened(sheets[0].parent, scheme="xyz") as source:
        assert list(source.cell(TILES[0], ZOOM)) == [(tile_id(TILES[0]), b"a tile")]


@pytest.mark.parametrize("how", ["list", "folder", "vrt"])
def test_the_last_is_on_top_and_shows_what_lies_below_where_it_is_masked(tmp_path: Path, how: str) -> None:
    """Three rasters that cover the same; the one on top has a hole, the one below it is behind."""
    pixels = np.maximum(land(), 2)
    (tmp_path / "ortho").mkdir()
    hole = pixels.copy()
    hole[50:60, 50:60] = 0
    layers = (np.full_like(pixels, 9), pixels[::-1], hole)
    paths = [write(tmp_path / f"ortho/{n}.tif", layer, nodata=0) for n, layer in enumerate(layers)]
    expected = pixels.copy()
    expected[50:60, 50:60] = pixels[::-1][50:60, 50:60]
    source = {
        "list": lambda: opened(paths[0], beside=paths[1:]),
        "folder": lambda: opened(paths[0].parent),
        "vrt": lambda: opened(vrt(tmp_path / "ortho/all.vrt", paths, nodata=0)),
    }[how]()
    assert tiles_of(source) == tiles_of(opened(write(tmp_path / "one.tif", expected)))


def test_a_vrt_says_which_bands_which_part_and_what_is_no_data(tmp_path: Path) -> None:
    """As `gdalbuildvrt -b 3 -b 2 -b 1 -te ... -srcnodata 7` writes it."""
    pixels = np.where(land() == 7, 8, land()).astype(np.uint8)
    infrared = np.dstack([pixels, pixels[:, :, :1] // 2])
    infrared[60, 60] = 7
    path = write(tmp_path / "rgbn.tif", infrared, alpha="NO")
    expected = pixels[:, :, ::-1].copy()
    mask = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    mask[60, 60], mask[:, :SIDE] = 0, 0
    one = write(tmp_path / "one.tif", np.dstack([expected, mask]), alpha="YES")
    part = SIDE, 0, WIDE * SIDE, HIGH * SIDE
    shown = vrt(tmp_path / "part.vrt", [path], bands=(3, 2, 1), nodata=7, part=part)
    assert tiles_of(opened(shown)) == tiles_of(opened(one))
    # The bands of the mission file are those of the VRT.
    unlabelled = vrt(tmp_path / "bare.vrt", [path], bands=(4, 3, 2, 1), nodata=7, part=part, labels=())
    with pytest.raises(Invalid, match="without labels") as caught:
        opened(unlabelled)
    assert "bands = [1, 2, 3]" in caught.value.remedy
    assert tiles_of(opened(unlabelled, bands=(2, 3, 4))) == tiles_of(opened(one))
    with pytest.raises(Invalid, match="no band 5"):
        opened(unlabelled, bands=(5, 1, 2))


def test_the_stamp_is_that_of_all_files_and_of_what_names_them(sheets: list[Path]) -> None:
    folder = sheets[0].parent
    all_of_them = vrt(folder / "all.vrt", sheets)
    for path, beside in ((folder, []), (all_of_them, []), (sheets[0], sheets[1:])):
        stamps: set[SourceStamp] = set()
        for changed in (None, sheets[5], path):
            if changed is not None:
                os.utime(changed, ns=(1, 10**18 + len(stamps)))
            with opened(path, beside=beside) as source:
                stamps.add(source.stamp([]))
                assert source.stamp([]) in stamps
        assert len(stamps) == 3


def test_another_way_from_files_to_tiles_has_another_stamp(sheets: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of tiles holds as long as the libraries and the recipe that made them."""
    stamps: set[SourceStamp] = set()
    for name, value in (("", ""), ("RECIPE", "cubic 1")):
        if name:
            monkeypatch.setattr(f"builders.imagery.geotiff.{name}", value)
        with opened(sheets[0].parent) as source:
            stamps.add(source.stamp([]))
    monkeypatch.setattr(rasterio, "__gdal_version__", "4.0.0")
    with opened(sheets[0].parent) as source:
        stamps.add(source.stamp([]))
    assert len(stamps) == 3


@pytest.mark.parametrize(("driver", "name"), [("JP2OpenJPEG", "JPEG 2000"), ("PNG", "PNG"), ("JPEG", "JPEG")])
def test_a_picture_of_another_kind_is_named_and_the_remedy_makes_a_raster(
    tmp_path: Path, merged: list[bytes | None], driver: str, name: str
) -> None:
    from rasterio.shutil import copy

    lossless = {"QUALITY": "100", "REVERSIBLE": "YES", "YCBCR420": "NO"} if driver == "JP2OpenJPEG" else {}
    copy(tmp_path / "merged.tif", tmp_path / "picture", driver=driver, **lossless)
    with pytest.raises(Invalid, match=f"is a {name} file") as caught:
        opened(tmp_path / "picture")
    assert "gdal_translate -of GTiff" in caught.value.remedy
    with rasterio.open(tmp_path / "picture") as picture:
        write(tmp_path / "made.tif", picture.read().transpose(1, 2, 0))
    tiles = tiles_of(opened(tmp_path / "made.tif"))
    assert tiles == merged or (driver == "JPEG" and None not in tiles)


# What a VRT may not be


def edited(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def renamed(name: str, text: str) -> str:
    return text.replace("sheet-0-0.tif", name)


OUTSIDE = "/vsicurl/http://example.com/a.tif", "/etc/passwd", "../merged.tif", "link.tif"
WRONG: dict[str, tuple[Callable[[str], str], str]] = {
    "document type": (lambda text: '<?xml version="1.0"?><!DOCTYPE v [<!ENTITY x "y">]>' + text, "document type"),
    "no XML": (lambda text: text[:-20], "not XML"),
    "many elements": (lambda text: edited(text, ("</VRTDataset>", "<a/>" * (1 << 18) + "</VRTDataset>")), "elements"),
    "deep": (lambda text: edited(text, ("</VRTDataset>", "<a>" * 50 + "</a>" * 50 + "</VRTDataset>")), "deep"),
    "warped": (lambda text: edited(text, ("<VRTDataset ", '<VRTDataset subClass="VRTWarpedDataset" ')), "computes"),
    "pixel function": (
        lambda text: edited(text, ('band="1"', 'band="1" subClass="VRTDerivedRasterBand"')),
        "band 1 is computed",
    ),
    "scaled": (
        lambda text: edited(text, ("</SimpleSource>", "<ScaleRatio>2</ScaleRatio></SimpleSource>")),
        "ScaleRatio",
    ),
    "filtered": (
        lambda text: text.replace("SimpleSource", "KernelFilteredSource"),
        "KernelFilteredSource",
    ),
    "other files in another band": (lambda text: edited(text, ("0-1.tif", "0-2.tif")), "same files"),
    "elsewhere": (lambda text: text.replace('<DstRect xOff="0" ', '<DstRect xOff="9" '), "says"),
    "another projection": (lambda text: edited(text, ("EPSG:3857", "EPSG:32614")), "projection"),
    "no numbers": (lambda text: edited(text, ('<SrcRect xOff="0"', '<SrcRect xOff="nan"')), "SrcRect"),
    "no file": (lambda text: text.replace("sheet-0-0.tif", "no.tif"), "no.tif"),
    "no path": (lambda text: text.replace("sheet-0-0.tif", "http://example.com/a.tif"), "does not exist"),
    "no TIFF": (lambda text: text.replace("sheet-0-0.tif", "text.tif"), "TIFF"),
    **{name: (partial(renamed, name), "outside") for name in OUTSIDE},
}


@pytest.mark.parametrize("what", list(WRONG))
def test_a_vrt_that_computes_contradicts_or_reaches_out_is_refused(
    sheets: list[Path], merged: list[bytes | None], what: str
) -> None:
    change, expected = WRONG[what]
    folder = sheets[0].parent
    (folder / "text.tif").write_text("no TIFF")
    (folder / "link.tif").symlink_to(folder.parent / "merged.tif")
    path = vrt(folder / "all.vrt", sheets)
    path.write_text(change(path.read_text()))
    with pytest.raises(Invalid) as caught:
        opened(path)
    assert expected in caught.value.message
    assert str(folder) in caught.value.message
    # The remedy works: the files themselves, or their folder.
    assert "GeoTIFF" in caught.value.remedy
    if "source" in caught.value.remedy:
        assert tiles_of(opened(sheets[0], beside=sheets[1:])) == merged


def test_a_path_twice_too_many_or_of_another_kind_is_refused(
    sheets: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Invalid, match="twice"):
        opened(sheets[0], beside=[sheets[0].parent])
    other = sheets[0].parent / "other"
    other.write_text("text")
    with pytest.raises(Invalid, match="neither a GeoTIFF nor a VRT"):
        opened(sheets[0], beside=[other])
    with pytest.raises(Invalid, match="other is not a GeoTIFF, and a list of paths") as caught:
        opened(other, beside=sheets)
    assert "[[tiles]]" in caught.value.remedy
    (sheets[0].parent / "empty").mkdir()
    with pytest.raises(Invalid, match="without a GeoTIFF"):
        opened(sheets[0], beside=[sheets[0].parent / "empty"])
    monkeypatch.setattr("builders.imagery.mosaic.MAX_RASTERS", 8)
    with pytest.raises(Invalid, match="more than 8"):
        opened(sheets[0].parent)
