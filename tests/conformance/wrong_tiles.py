"""Maps of which a part shows no place: pictures that a server gives for "no imagery here", and what a raster lacks.

The area has 16 tiles of zoom 15 and the 4 of zoom 14 above them. A case writes the imagery, builds a mission from it
and verifies it. Where the build refuses, the verdict counts the missing tiles by their reasons: by default every tile
must be good.
"""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from builders.example.backbone import write_backbone
from builders.grid.tiles import Tile, tile_bounds
from builders.grid.views import EQUATOR
from builders.imagery.png import write_png
from tests.conformance.wrong import wrong
from tests.support.commands import flightbag
from tests.support.field import make_store
from tests.support.missions_toml import mission_toml

SIDE = 32
# One cell of each zoom has the area and the ring round it.
X0, Y0 = 7348, 11526
FINE = [Tile(15, X0 + x, Y0 + y) for y in range(4) for x in range(4)]
COARSE = [Tile(14, X0 // 2 + x, Y0 // 2 + y) for y in range(2) for x in range(2)]
ALL = [*COARSE, *FINE]
# Raw pixels of the area at zoom 15.
Pixels = NDArray[np.uint8]


def land(seed: int = 13, side: int = 4 * SIDE) -> Pixels:
    """uint8 [side, side, 3]: coarse noise without black, of which no two parts are alike."""
    coarse = np.random.default_rng(seed).integers(8, 250, (side // 4, side // 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BILINEAR))


def placeholder(**text: str) -> bytes:
    """The picture of a server: "no imagery here" in two colours."""
    pixels = np.full((SIDE, SIDE, 3), 221, np.uint8)
    pixels[12:20, 4:28:3] = 90
    file, about = io.BytesIO(), PngImagePlugin.PngInfo()
    for key, value in text.items():
        about.add_text(key, value)
    Image.fromarray(pixels).save(file, "PNG", pnginfo=about)
    return file.getvalue()


def compressed(level: int) -> bytes:
    """The placeholder again, without loss: as a PNG of one of three sizes, or as a WebP."""
    image, file = Image.open(io.BytesIO(placeholder())), io.BytesIO()
    if level < 3:
        image.save(file, "PNG", compress_level=level * 3)
    else:
        image.save(file, "WEBP", lossless=True)
    return file.getvalue()


def folder_of(path: Path, instead: dict[Tile, bytes]) -> Path:
    """A folder of tiles of the area; those in `instead` have these bytes."""
    for number, tile in enumerate(ALL):
        file = path / f"{tile}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(instead.get(tile) or write_png(land(number, SIDE)))
    return path


def raster(
    path: Path, pixels: NDArray[Any], *, west: int = 0, south: int = 0, mask: Pixels | None = None, **options: Any
) -> Path:
    """A GeoTIFF on the grid of zoom 15, which begins `west` pixels east and `south` pixels south of the area."""
    import rasterio
    import rasterio.transform

    pixel = EQUATOR / (1 << 15) / SIDE
    left, top = (X0 * SIDE + west) * pixel - EQUATOR / 2, EQUATOR / 2 - (Y0 * SIDE + south) * pixel
    settings = {
        "driver": "GTiff",
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "count": pixels.shape[2],
        "dtype": "uint8",
        "crs": "EPSG:3857",
        "transform": rasterio.transform.from_origin(left, top, pixel, pixel),  # type: ignore[no-untyped-call]
        "photometric": "RGB",
        **options,
    }
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=mask is not None), rasterio.open(path, "w", **settings) as file:
        file.write(pixels.transpose(2, 0, 1))
        if mask is not None:
            file.write_mask(mask)
    return path


def with_band(pixels: Pixels, band: Pixels | int) -> Pixels:
    return np.dstack([pixels, np.broadcast_to(np.uint8(band), pixels.shape[:2])])


def verdict(folder: Path, source: Path, of_tiles: str = "", coverage: str = "") -> str:
    """GO with what is signed of repeated tiles; the missing tiles by reason; or the key that the error names."""
    write_backbone(folder / "net.onnx", size=SIDE)
    desk = make_store(folder)
    (west, _, _, north), (_, south, east, _) = tile_bounds(FINE[0]), tile_bounds(FINE[-1])
    inset = 1e-5
    text = mission_toml(
        mission="m",
        tiles=source,
        model=Path("net.onnx"),
        bbox=(west + inset, south + inset, east - inset, north - inset),
        zooms=(14, 15),
        takeoff=((south + north) / 2, (west + east) / 2),
        resize=SIDE,
        of_tiles=of_tiles,
        more=f"[coverage]\ntile_size = {SIDE}\n{coverage}\n",
    )
    (folder / "m.toml").write_text(text)
    ran = desk.build(folder / "m.toml")
    if ran.status > 1 or not ran.out:
        keys = [name for name in ("bands", "stretch", "gdal_translate") if name in ran.err]
        return f"error that names {' and '.join(keys)}"
    if ran.status:
        counts = Counter(one["reason"] for one in ran.json["coverage"]["missing"])
        low = [one["name"] for one in ran.json["figures"] if one["value"] < one["least"]]
        return "refused: " + ", ".join([f"{count} {reason}" for reason, count in sorted(counts.items())] + low)
    verified = desk.verify()
    assert verified.status == 0, verified.out
    repeated = flightbag("show", desk.store, "m", "--json").json["coverage"].get("repeated")
    return f"GO, {repeated} repeated tiles signed" if repeated else "GO"


# Placeholders


@wrong("map", "half the tiles are one placeholder", before="GO", now="refused: 10 repeated")
def half_placeholders(folder: Path) -> str:
    return verdict(folder, folder_of(folder / "tiles", dict.fromkeys(ALL[::2], placeholder())))


@wrong("map", "all tiles are one placeholder", before="GO", now="refused: 20 repeated")
def all_placeholders(folder: Path) -> str:
    return verdict(folder, folder_of(folder / "tiles", dict.fromkeys(ALL, placeholder())))


@wrong("map", "one placeholder at each of two zooms", before="GO", now="refused: 2 repeated")
def placeholder_at_two_zooms(folder: Path) -> str:
    return verdict(folder, folder_of(folder / "tiles", {COARSE[1]: placeholder(), FINE[6]: placeholder()}))


@wrong("map", "open water, which the planner allows", before="GO, unsaid", now="GO, 3 repeated tiles signed")
def water_that_is_allowed(folder: Path) -> str:
    water = write_png(land(99, SIDE) // 16)
    return verdict(folder, folder_of(folder / "tiles", dict.fromkeys(FINE[:3], water)), coverage='repeated = "allowed"')


@wrong("map", "half a placeholder, half another (unnamed)", before="GO", now="refused: 20 repeated")
def two_placeholders(folder: Path) -> str:
    other = write_png(land(98, SIDE))
    tiles = {tile: placeholder() if number % 2 else other for number, tile in enumerate(ALL)}
    return verdict(folder, folder_of(folder / "tiles", tiles))


@wrong("map", "placeholders with the time in each file (unnamed)", before="GO", now="refused: 10 repeated")
def placeholders_with_the_time(folder: Path) -> str:
    files = {tile: placeholder(time=f"2026-11-23 10:00:{second}") for second, tile in enumerate(ALL[::2], 10)}
    return verdict(folder, folder_of(folder / "tiles", files))


@wrong(
    "map", "placeholders with a number behind the end of each file (unnamed)", before="GO", now="refused: 10 repeated"
)
def placeholders_with_a_number_behind(folder: Path) -> str:
    files = {tile: placeholder() + str(number).encode() for number, tile in enumerate(ALL[::2])}
    return verdict(folder, folder_of(folder / "tiles", files))


@wrong("map", "a placeholder compressed in four ways (unnamed)", before="GO", now="refused: self@1/embedder")
def placeholders_compressed_in_four_ways(folder: Path) -> str:
    """No two have the same bytes, and all have the same pixels: the map does not find its own tiles."""
    files = {tile: compressed(level) for level, tile in enumerate(ALL[:8:2])}
    return verdict(folder, folder_of(folder / "tiles", files))


@wrong("map", "a grey placeholder, allowed (unnamed)", before="refused: 10 blank", now="refused: 10 blank")
def grey_that_is_allowed(folder: Path) -> str:
    grey = write_png(np.full((SIDE, SIDE, 3), 221, np.uint8))
    source = folder_of(folder / "tiles", dict.fromkeys(ALL[::2], grey))
    return verdict(folder, source, coverage='repeated = "allowed"')


@wrong(
    "map",
    "tiles of a folder, transparent where the raster behind them ends (unnamed)",
    before="GO",
    now="refused: 5 transparent",
)
def ends_within_the_tiles_of_a_folder(folder: Path) -> str:
    files = {}
    for number, tile in enumerate(ALL[::4]):
        image = Image.fromarray(land(number, SIDE)).convert("RGBA")
        image.paste((0, 0, 0, 0), (0, 0, SIDE // 2, SIDE))
        file = io.BytesIO()
        image.save(file, "PNG")
        files[tile] = file.getvalue()
    return verdict(folder, folder_of(folder / "tiles", files))


# Rasters


@wrong(
    "map",
    "near infrared that is labelled alpha",
    before="refused: 20 absent",
    now="error that names bands and gdal_translate",
)
def infrared(folder: Path) -> str:
    return verdict(folder, raster(folder / "r.tif", with_band(land(), land(7)[:, :, 0]), alpha="YES"))


@wrong("map", "near infrared that is labelled alpha, with bands", before="refused: 20 absent", now="GO")
def infrared_with_bands(folder: Path) -> str:
    path = raster(folder / "r.tif", with_band(land(), land(7)[:, :, 0]), alpha="YES")
    return verdict(folder, path, of_tiles="bands = [1, 2, 3]")


@wrong(
    "map",
    "a raster that ends within the area",
    before="refused: 6 absent",
    now="refused: 4 outside-raster, 2 partly-outside",
)
def partly_outside(folder: Path) -> str:
    return verdict(folder, raster(folder / "r.tif", land()[:, : 3 * SIDE]))


@wrong("map", "a raster that begins within a tile", before="refused: 6 absent", now="refused: 6 partly-outside")
def within_a_tile(folder: Path) -> str:
    return verdict(folder, raster(folder / "r.tif", land()[:, 5:], west=5))


@wrong("map", "a raster beside the area", before="refused: 20 absent", now="refused: 20 outside-raster")
def outside(folder: Path) -> str:
    return verdict(folder, raster(folder / "r.tif", land(), west=64 * SIDE))


@wrong("map", "a raster with a mask over one tile", before="refused: 2 absent", now="refused: 2 masked")
def masked(folder: Path) -> str:
    mask = np.full((4 * SIDE, 4 * SIDE), 255, np.uint8)
    mask[40:50, 40:50] = 0
    return verdict(folder, raster(folder / "r.tif", land(), mask=mask))


@wrong(
    "map",
    "black shadows in a raster whose value for no data is 0 (unnamed)",
    before="refused: 2 absent",
    now="refused: 2 masked",
)
def black_shadows(folder: Path) -> str:
    pixels = land().copy()
    pixels[40:44, 40:44] = 0
    return verdict(folder, raster(folder / "r.tif", pixels, nodata=0))


@wrong(
    "map", "an alpha of 0 and 1 (unnamed)", before="refused: 20 absent", now="error that names bands and gdal_translate"
)
def alpha_of_ones(folder: Path) -> str:
    return verdict(folder, raster(folder / "r.tif", with_band(land(), 1), alpha="YES"))


@wrong("map", "a mask in a file beside the raster (unnamed)", before="GO", now="error that names gdal_translate")
def mask_beside(folder: Path) -> str:
    path = raster(folder / "r.tif", land())
    raster(folder / "r.tif.msk", np.zeros((4 * SIDE, 4 * SIDE, 1), np.uint8), photometric="MINISBLACK")
    return verdict(folder, path)


@wrong(
    "map",
    "bands that pass over a real alpha (unnamed)",
    before="refused: 10 absent",
    now="error that names bands and gdal_translate",
)
def bands_without_the_alpha(folder: Path) -> str:
    alpha = np.full((4 * SIDE, 4 * SIDE), 255, np.uint8)
    alpha[:40] = 0
    path = raster(folder / "r.tif", with_band(land(), alpha), alpha="YES")
    return verdict(folder, path, of_tiles="bands = [1, 2, 3]")


def quarters(folder: Path, pixels: Pixels) -> list[Path]:
    """The area in four rasters in a folder, whose seams lie within tiles."""
    folder.mkdir()
    at = 2 * SIDE + 9
    return [
        raster(folder / f"{top}-{left}.tif", pixels[rows, columns], west=left, south=top)
        for top, rows in ((0, slice(at)), (at, slice(at, None)))
        for left, columns in ((0, slice(at)), (at, slice(at, None)))
    ]


@wrong("map", "the area in four rasters, in a folder", before="error: no folder of a zoom", now="GO")
def four_rasters(folder: Path) -> str:
    quarters(folder / "ortho", land())
    return verdict(folder, folder / "ortho")


@wrong(
    "map",
    "a folder of rasters that lacks one (unnamed)",
    before="error: no folder of a zoom",
    now="refused: 1 outside-raster, 4 partly-outside",
)
def three_of_four_rasters(folder: Path) -> str:
    quarters(folder / "ortho", land())[3].unlink()
    return verdict(folder, folder / "ortho")


@wrong(
    "map",
    "a raster of 16 bits",
    before="error that names gdal_translate, which makes it white",
    now="error that names stretch and gdal_translate",
)
def sixteen_bits(folder: Path) -> str:
    return verdict(folder, raster(folder / "r.tif", deep(), dtype="uint16"))


@wrong("map", "a raster of 16 bits, with a stretch", before="error that names gdal_translate", now="GO")
def sixteen_bits_stretched(folder: Path) -> str:
    return verdict(folder, raster(folder / "r.tif", deep(), dtype="uint16"), of_tiles="stretch = [400, 3000]")


@wrong(
    "map",
    "a stretch that makes everything white (unnamed)",
    before="error that names gdal_translate",
    now="refused: 20 repeated",
)
def stretched_to_white(folder: Path) -> str:
    return verdict(folder, raster(folder / "r.tif", deep(), dtype="uint16"), of_tiles="stretch = [0, 255]")


def deep() -> NDArray[np.uint16]:
    """The land as a sensor of 12 bits gives it."""
    return (400 + land().astype(np.float64) * 10).astype(np.uint16)
