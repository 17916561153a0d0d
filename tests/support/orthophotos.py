"""Orthophotos as agencies deliver them: adjacent GeoTIFFs, and the VRT that gdalbuildvrt writes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.grid.views import EQUATOR

ZOOM, SIDE = 15, 32
# A rectangle of tiles in the world of the tests.
X0, Y0, WIDE, HIGH = 7355, 11519, 6, 5
PIXEL = EQUATOR / (1 << ZOOM) / SIDE
LEFT, TOP = X0 * SIDE * PIXEL - EQUATOR / 2, EQUATOR / 2 - Y0 * SIDE * PIXEL


def land(seed: int = 15) -> NDArray[np.uint8]:
    """uint8 [160, 192, 3]: noise without black, of which no two parts are alike."""
    return np.random.default_rng(seed).integers(1, 256, (HIGH * SIDE, WIDE * SIDE, 3), np.uint8)


def write(
    path: Path,
    pixels: NDArray[Any],
    *,
    column: float = 0,
    row: float = 0,
    pixel: float = PIXEL,
    overviews: Sequence[int] = (),
    **options: Any,
) -> Path:
    """A GeoTIFF [h, w, bands] in web mercator, `column` and `row` pixels of the zoom from the corner of the
    rectangle."""
    import rasterio
    from rasterio.transform import from_origin

    settings = {
        "driver": "GTiff",
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "count": pixels.shape[2],
        "dtype": pixels.dtype,
        "crs": "EPSG:3857",
        "transform": from_origin(LEFT + column * PIXEL, TOP - row * PIXEL, pixel, pixel),  # type: ignore[no-untyped-call]
        "photometric": "RGB" if pixels.shape[2] >= 3 else "MINISBLACK",
        **options,
    }
    with rasterio.open(path, "w", **settings) as raster:
        raster.write(pixels.transpose(2, 0, 1))
    if overviews:
        with rasterio.open(path, "r+") as raster:
            raster.build_overviews(list(overviews), rasterio.enums.Resampling.average)
    return path


def nine(folder: Path, pixels: NDArray[Any] | None = None, **options: Any) -> list[Path]:
    """Nine adjacent rasters, whose seams lie within tiles."""
    whole = land() if pixels is None else pixels
    columns, rows = (0, 50, 141, whole.shape[1]), (0, 71, 104, whole.shape[0])
    return [
        write(
            folder / f"sheet-{j}-{i}.tif",
            whole[rows[j] : rows[j + 1], columns[i] : columns[i + 1]],
            column=columns[i],
            row=rows[j],
            **options,
        )
        for j in range(3)
        for i in range(3)
    ]


def vrt(
    path: Path,
    rasters: Sequence[Path],
    *,
    bands: Sequence[int] = (1, 2, 3),
    labels: Sequence[str] = ("Red", "Green", "Blue"),
    nodata: float | None = None,
    part: tuple[int, int, int, int] | None = None,
) -> Path:
    """The VRT that `gdalbuildvrt` writes of rasters of one grid. `part` is the box that `-te` leaves, in pixels."""
    import rasterio

    boxes = []
    for one in rasters:
        with rasterio.open(one) as raster:
            t = raster.transform
            column, row = round((t.c - LEFT) / PIXEL), round((TOP - t.f) / PIXEL)
            boxes.append((column, row, column + raster.width, row + raster.height))
    west, north, east, south = part or (
        *(min(box[i] for box in boxes) for i in (0, 1)),
        *(max(box[i] for box in boxes) for i in (2, 3)),
    )
    kind = "SimpleSource" if nodata is None else "ComplexSource"
    lines = [
        f'<VRTDataset rasterXSize="{east - west}" rasterYSize="{south - north}">',
        '  <SRS dataAxisToSRSAxisMapping="1,2">EPSG:3857</SRS>',
        f"  <GeoTransform>{LEFT + west * PIXEL}, {PIXEL}, 0, {TOP - north * PIXEL}, 0, {-PIXEL}</GeoTransform>",
    ]
    for number, band in enumerate(bands, 1):
        lines.append(f'  <VRTRasterBand dataType="Byte" band="{number}">')
        if nodata is not None:
            lines.append(f"    <NoDataValue>{nodata}</NoDataValue>")
        if labels:
            lines.append(f"    <ColorInterp>{labels[number - 1]}</ColorInterp>")
        for one, (left, top, right, bottom) in zip(rasters, boxes, strict=True):
            shown = max(left, west), max(top, north), min(right, east), min(bottom, south)
            size = f'xSize="{shown[2] - shown[0]}" ySize="{shown[3] - shown[1]}"'
            inside = one.is_relative_to(path.parent)
            name = one.relative_to(path.parent) if inside else one
            lines += [
                f"    <{kind}>",
                f'      <SourceFilename relativeToVRT="{int(inside)}">{name}</SourceFilename>',
                f"      <SourceBand>{band}</SourceBand>",
                f'      <SourceProperties RasterXSize="{right - left}" RasterYSize="{bottom - top}" DataType="Byte" />',
                f'      <SrcRect xOff="{shown[0] - left}" yOff="{shown[1] - top}" {size} />',
                f'      <DstRect xOff="{shown[0] - west}" yOff="{shown[1] - north}" {size} />',
                *([] if nodata is None else [f"      <NODATA>{nodata}</NODATA>"]),
                f"    </{kind}>",
            ]
        lines.append("  </VRTRasterBand>")
    path.write_text("\n".join([*lines, "</VRTDataset>", ""]))
    return path
