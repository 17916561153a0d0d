"""Rasters of 16 bits: nothing is guessed, the remedy works, and a stretch is that of `gdal_translate -scale`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.descriptors.decoding import decode
from builders.grid.tiles import Tile
from builders.imagery.geotiff import GeoTiffSource
from builders.imagery.raster import _table
from store.errors import Invalid
from tests.support.orthophotos import HIGH, SIDE, WIDE, X0, Y0, ZOOM, land, nine, write

rasterio = pytest.importorskip("rasterio", reason="the extra geotiff is not installed")

INSIDE = Tile(ZOOM, X0 + 1, Y0 + 1)


def deep(kind: type[Any] = np.uint16) -> NDArray[Any]:
    """The land in values from 400 to 3000, as sensors of 12 bits give it; a tenth of a percent is brighter."""
    values = 400 + land().astype(np.float64) * 2600 / 255
    values[::31, ::31] = 9000
    return values.astype(kind)


def pixels_of(source: GeoTiffSource, tile: Tile = INSIDE) -> NDArray[np.uint8]:
    with source:
        data = source.read(tile)
    assert data is not None
    return np.asarray(decode(data))


def scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """What `gdal_translate -ot Byte -scale LOW HIGH 0 255` makes of them."""
    return np.floor(np.clip((values.astype(np.float64) - low) * 255 / (high - low), 0, 255) + 0.5).astype(np.uint8)


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_sixteen_bits_are_refused_with_a_stretch_that_works(tmp_path: Path, kind: type[Any]) -> None:
    values = deep(kind)
    path = write(tmp_path / "deep.tif", values)
    with pytest.raises(Invalid, match="int16, must be uint8") as caught:
        GeoTiffSource(path, SIDE)
    found = re.search(r"add stretch = \[(-?\d+), (-?\d+)\]", caught.value.remedy)
    assert found is not None
    low, high = int(found[1]), int(found[2])
    assert 400 <= low < 500 < 2900 < high <= 3001
    seen = pixels_of(GeoTiffSource(path, SIDE, None, (low, high)))
    square = scaled(values[SIDE : 2 * SIDE, SIDE : 2 * SIDE], low, high)
    assert (seen == square).all()
    assert ((seen > 0) & (seen < 255)).mean() > 0.9
    # The other half of the remedy makes the same.
    scale = re.search(r"-ot Byte -scale (-?\d+) (-?\d+) 0 255", caught.value.remedy)
    assert scale is not None
    assert (int(scale[1]), int(scale[2])) == (low, high)
    assert (pixels_of(GeoTiffSource(write(tmp_path / "byte.tif", scaled(values, low, high)), SIDE)) == seen).all()


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.float64])
def test_other_pixels_are_refused_with_a_scale_and_without_a_stretch(tmp_path: Path, kind: type[Any]) -> None:
    values = deep(kind)
    if kind != np.int32:
        values[0, 0] = np.nan
    path = write(tmp_path / "deep.tif", values)
    for stretch in (None, (0, 100)):
        with pytest.raises(Invalid) as caught:
            GeoTiffSource(path, SIDE, None, stretch)
        assert "stretch" not in caught.value.remedy
        low, high = (int(n) for n in re.findall(r"-scale (-?\d+) (-?\d+)", caught.value.remedy)[0])
        assert 400 <= low < 500 < 2900 < high <= 3001


@given(st.integers(-32768, 65535), st.integers(1, 98303), st.booleans())
def test_a_stretch_is_linear_and_rounds_to_the_nearest(low: int, span: int, signed: bool) -> None:
    values = np.arange(1 << 16, dtype=np.uint16).view(np.int16 if signed else np.uint16)
    table = _table(low, low + span, signed)
    exact = np.clip((values.astype(np.float64) - low) * 255 / span, 0, 255)
    assert (np.abs(table - exact) <= 0.5 + 1e-9).all()
    assert table[values == low].tolist() in ([0], [])
    assert table[values == low + span].tolist() in ([255], [])


@pytest.mark.parametrize("how", ["nodata", "mask", "alpha", "bands and nodata"])
def test_masks_are_those_of_the_raw_values(tmp_path: Path, how: str) -> None:
    """A value for no data is compared before the stretch: what becomes black is imagery."""
    values = deep()
    values[:8, :8] = 100  # below the stretch
    hole = 40, 40
    options: dict[str, Any] = {}
    bands, expected = None, values
    if how == "alpha":
        alpha = np.full((*values.shape[:2], 1), 65535, np.uint16)
        alpha[hole] = 0
        values, options = np.dstack([values, alpha]), {"alpha": "YES"}
    elif how.endswith("nodata"):
        values[hole], options = 0, {"nodata": 0}
        if how.startswith("bands"):
            bands, expected = (3, 2, 1), values[:, :, ::-1]
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = write(tmp_path / "deep.tif", values, **options)
        if how == "mask":
            mask = np.full(values.shape[:2], 255, np.uint8)
            mask[hole] = 0
            with rasterio.open(path, "r+") as raster:
                raster.write_mask(mask)
    with GeoTiffSource(path, SIDE, bands, (400, 3000)) as source:
        assert source.read(INSIDE) is None
        assert source.read(Tile(ZOOM - 1, X0 + 1 >> 1, Y0 + 1 >> 1)) is None
        corner = pixels_of(source, Tile(ZOOM, X0, Y0))
    assert (corner == scaled(expected[:SIDE, :SIDE], 400, 3000)).all()
    assert (corner[:8, :8] == 0).all()


def test_a_mosaic_of_sixteen_bits_is_one_raster(tmp_path: Path) -> None:
    values = deep()
    paths = nine(tmp_path, values)
    merged = write(tmp_path / "one.tif", values)
    read = (3, 2, 1), (400, 3000)
    with GeoTiffSource(paths, SIDE, *read) as source, GeoTiffSource(merged, SIDE, *read) as one:
        tiles = [Tile(ZOOM, X0 + x, Y0 + y) for y in range(HIGH) for x in range(WIDE)]
        assert [source.read(tile) for tile in tiles] == [one.read(tile) for tile in tiles]
    # One of eight bits among them is told, not stretched.
    write(paths[4], land()[71:104, 50:141], column=50, row=71)
    with pytest.raises(Invalid, match=r"sheet-1-1.tif .* 8 bits, and stretch is for 16") as caught:
        GeoTiffSource(paths, SIDE, None, (400, 3000))
    assert "table of their own" in caught.value.remedy


def test_near_infrared_of_sixteen_bits_is_no_mask(tmp_path: Path) -> None:
    values = deep()
    path = write(tmp_path / "rgbn.tif", np.dstack([values, values[:, :, :1]]), alpha="YES")
    with (
        pytest.raises(Invalid, match="labelled alpha and is no mask"),
        GeoTiffSource(path, SIDE, None, (4, 9)) as source,
    ):
        source.read(INSIDE)
    assert (
        pixels_of(GeoTiffSource(path, SIDE, (4,), (400, 3000)))
        == scaled(values[SIDE : 2 * SIDE, SIDE : 2 * SIDE, :1], 400, 3000)
    ).all()


def test_twelve_bits_in_sixteen_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "twelve.tif", np.minimum(deep(), 4095), nbits=12)
    seen = pixels_of(GeoTiffSource(path, SIDE, None, (400, 3000)))
    assert (seen == scaled(np.minimum(deep(), 4095)[SIDE : 2 * SIDE, SIDE : 2 * SIDE], 400, 3000)).all()
