"""GeoTIFF: tiles cut on the fly, exact where the raster lies on the grid, and never half a tile."""

from __future__ import annotations

import itertools
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.descriptors.decoding import decode
from builders.example.terrain import render
from builders.grid.tiles import Tile, cell_of, tile_from_id, tile_ids
from builders.grid.views import EQUATOR
from builders.imagery.geotiff import GeoTiffSource
from builders.imagery.png import write_png
from builders.imagery.raster import HALF, Raster
from store.errors import FlightbagError, Invalid, Unavailable
from tests.support.commands import flightbag
from tests.support.field import LEFT, WORLD, Desk

rasterio = pytest.importorskip("rasterio", reason="the extra geotiff is not installed")
pytest.importorskip("rasterio.warp")

ZOOM, SIDE = 15, 256
# A corner of the world of the tests: 6 x 5 tiles.
X0, Y0, WIDE, HIGH = 7355, 11519, 6, 5


UTM: dict[str, Any] = {"crs": "EPSG:32614", "transform": rasterio.Affine(3.3, 0, 487_000, 0, -3.3, 5_208_000)}


def tiles() -> dict[Tile, NDArray[np.uint8]]:
    return {Tile(ZOOM, X0 + i, Y0 + j): render(Tile(ZOOM, X0 + i, Y0 + j)) for j in range(HIGH) for i in range(WIDE)}


def picture(found: dict[Tile, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    rows = [np.concatenate([found[Tile(ZOOM, X0 + i, Y0 + j)] for i in range(WIDE)], axis=1) for j in range(HIGH)]
    return np.concatenate(rows)


def write(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    """A raster [h, w, bands] in web mercator on the grid of the zoom, its first pixel that of the first tile."""
    pixel = EQUATOR / (1 << ZOOM) / SIDE
    settings = {
        "driver": "GTiff",
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "count": pixels.shape[2],
        "dtype": pixels.dtype,
        "crs": "EPSG:3857",
        "transform": rasterio.transform.from_origin(X0 * pixel * SIDE - HALF, HALF - Y0 * pixel * SIDE, pixel, pixel),
        "photometric": "RGB" if pixels.shape[2] >= 3 else "MINISBLACK",
        **options,
    }
    with rasterio.open(path, "w", **settings) as raster:
        raster.write(pixels.transpose(2, 0, 1))
    return path


def everything(source: Any, zoom: int = ZOOM) -> list[tuple[int, bytes]]:
    cells = {cell_of(Tile(zoom, X0 + i, Y0 + j)) for i in range(WIDE) for j in range(HIGH)}
    return sorted(item for cell in cells for item in source.cell(cell, zoom))


def each_tile(source: Any) -> list[bytes | None]:
    """The tiles of the raster one by one: a whole cell has hundreds beside it."""
    return [source.read(Tile(ZOOM, X0 + i, Y0 + j)) for j in range(HIGH) for i in range(WIDE)]


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("raster") / "aligned.tif", picture(tiles()), tiled=True)


def test_a_raster_on_the_grid_gives_its_own_pixels(aligned: Path) -> None:
    with GeoTiffSource(aligned, SIDE) as source:
        assert source.zooms == (ZOOM - 2, ZOOM)
        assert source.resolution_m == pytest.approx(EQUATOR / (1 << ZOOM) / SIDE * np.cos(np.radians(47.0)), rel=0.01)
        found = {tile_from_id(number): data for number, data in everything(source)}
    assert found == {tile: write_png(pixels) for tile, pixels in tiles().items()}


def test_a_tile_that_is_not_whole_is_not_there(tmp_path: Path) -> None:
    pixels = picture(tiles())
    with_alpha = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], axis=2)
    with_alpha[300, 300, 3] = 0  # in the second tile of the second row
    masked = Tile(ZOOM, X0 + 1, Y0 + 1)
    with GeoTiffSource(write(tmp_path / "alpha.tif", with_alpha, alpha="YES"), SIDE) as source:
        assert {tile_from_id(n) for n, _ in everything(source)} == tiles().keys() - {masked}
    without = pixels.copy()
    without[without == 0] = 1
    without[300, 300] = 0
    with GeoTiffSource(write(tmp_path / "nodata.tif", without, nodata=0), SIDE) as source:
        assert {tile_from_id(n) for n, _ in everything(source)} == tiles().keys() - {masked}
    # Half a tile of the raster is cut off.
    with GeoTiffSource(write(tmp_path / "cut.tif", pixels[:, :-128]), SIDE) as source:
        assert {tile_from_id(n).x for n, _ in everything(source)} == set(range(X0, X0 + WIDE - 1))


def test_another_projection_is_warped_and_always_the_same(tmp_path: Path) -> None:
    pixels = picture(tiles())
    transform = rasterio.transform.from_origin(487_000, 5_208_000, 3.3, 3.3)
    path = write(tmp_path / "utm.tif", pixels, crs="EPSG:32614", transform=transform)
    with rasterio.open(path) as raster:
        west, south, east, north = rasterio.warp.transform_bounds(raster.crs, "EPSG:3857", *raster.bounds)
    runs = []
    for _ in range(2):
        with GeoTiffSource(path, SIDE) as source:
            assert source.zooms == (13, 15)
            span = EQUATOR / (1 << 15)
            x, y = int(((west + east) / 2 + HALF) / span), int((HALF - (south + north) / 2) / span)
            runs.append([source.read(Tile(15, x + i, y)) for i in (-1, 0, 1)])
    assert runs[0] == runs[1]
    assert all(data is not None and decode(data).size == (SIDE, SIDE) for data in runs[0])


def test_lower_zooms_and_none_above_its_own(aligned: Path) -> None:
    with GeoTiffSource(aligned, SIDE) as source:
        above = Tile(ZOOM - 1, (X0 + 1) // 2, (Y0 + 1) // 2)
        data = source.read(above)
        assert data is not None
        children = [tiles()[Tile(ZOOM, 2 * above.x + i, 2 * above.y + j)] for j in (0, 1) for i in (0, 1)]
        mean = np.mean([child.mean() for child in children])
        assert np.asarray(decode(data)).mean() == pytest.approx(mean, abs=2)
        below = Tile(ZOOM + 1, 2 * X0, 2 * Y0)
        assert source.read(below) is None
        assert list(source.cell(cell_of(below), ZOOM + 1)) == []


def test_grey_is_taken_and_what_has_no_plain_reading_is_not(tmp_path: Path) -> None:
    pixels = picture(tiles())
    with GeoTiffSource(write(tmp_path / "grey.tif", pixels[:, :, :1]), SIDE) as source:
        data = source.read(Tile(ZOOM, X0, Y0))
        assert data is not None
        assert (np.asarray(decode(data)) == pixels[:SIDE, :SIDE, :1]).all()
    for name, bad, options in (
        ("deep", pixels.astype(np.uint16), {}),
        ("float", pixels[:, :, :1].astype(np.float32), {}),
        ("two", pixels[:, :, :2], {}),
        ("nowhere", pixels, {"crs": None}),
    ):
        with pytest.raises(Invalid) as caught:
            GeoTiffSource(write(tmp_path / f"{name}.tif", bad, **options), SIDE)
        assert name in str(caught.value)
        assert caught.value.remedy


def test_files_beside_it_change_nothing(aligned: Path, tmp_path: Path) -> None:
    path = tmp_path / "raster.tif"
    path.write_bytes(aligned.read_bytes())
    with GeoTiffSource(path, SIDE) as source:
        before = everything(source)
    aux = '<PAMDataset><PAMRasterBand band="1"><ColorInterp>Alpha</ColorInterp></PAMRasterBand></PAMDataset>'
    (tmp_path / "raster.tif.aux.xml").write_text(aux)
    (tmp_path / "raster.tfw").write_text("1\n0\n0\n-1\n0\n0\n")
    (tmp_path / "raster.tif.ovr").write_bytes(b"no overview")
    names = sorted(tmp_path.iterdir())
    with GeoTiffSource(path, SIDE) as source:
        assert everything(source) == before
        stamp = source.stamp([])
        assert source.stamp([]) == stamp
    assert sorted(tmp_path.iterdir()) == names


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("raster.tif.msk", b"a mask"),
        ("raster.tif.aux.xml", b"<PAMDataset><PAMRasterBand band='1'><NoDataValue>34</NoDataValue></PAMRasterBand>"),
    ],
)
def test_a_mask_beside_the_file_is_refused_and_not_forgotten(
    aligned: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / "raster.tif"
    path.write_bytes(aligned.read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Invalid) as caught:
        GeoTiffSource(path, SIDE)
    assert name in caught.value.message
    assert "gdal_translate" in caught.value.remedy


def read_one(path: Path, bands: tuple[int, ...] | None = None) -> None:
    """Reads a tile: only then is an alpha band judged, since that takes time."""
    with GeoTiffSource(path, SIDE, bands) as source:
        source.read(Tile(ZOOM, X0 + 1, Y0 + 1))


def spectrum(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The colours, and a fourth band as bright as plants are in near infrared; beyond a corner there is no imagery."""
    infrared = 255 - pixels[:, :, 2:] // 2
    four = np.concatenate([pixels, infrared], axis=2)
    four[:200, :200] = 0
    return four


def labelled(path: Path, pixels: NDArray[np.uint8], label: str) -> Path:
    """A raster whose last band is labelled so: `alpha`, or `undefined` as NAIP is when it is copied."""
    return write(path, pixels, alpha="YES" if label == "alpha" else "NO")


@pytest.mark.parametrize("label", ["alpha", "undefined"])
def test_near_infrared_is_no_mask(tmp_path: Path, label: str) -> None:
    path = labelled(tmp_path / "rgbn.tif", spectrum(picture(tiles())), label)
    with pytest.raises(Invalid, match="band 4") as caught:
        read_one(path)
    assert "bands = [1, 2, 3]" in caught.value.remedy
    with GeoTiffSource(path, SIDE, (1, 2, 3)) as source:
        data = source.read(Tile(ZOOM, X0 + 1, Y0 + 1))
    assert data == write_png(tiles()[Tile(ZOOM, X0 + 1, Y0 + 1)])
    with GeoTiffSource(path, SIDE, (4, 1, 2)) as source:
        infrared = source.read(Tile(ZOOM, X0 + 1, Y0 + 1))
    assert infrared is not None
    assert (np.asarray(decode(infrared))[:, :, 1] == tiles()[Tile(ZOOM, X0 + 1, Y0 + 1)][:, :, 0]).all()
    with GeoTiffSource(path, SIDE, (4,)) as source:
        grey = source.read(Tile(ZOOM, X0 + 1, Y0 + 1))
    assert grey is not None
    assert (np.asarray(decode(grey)) == np.asarray(decode(infrared))[:, :, :1]).all()


def alphas() -> dict[str, NDArray[np.uint8]]:
    """Bands of alpha as tools write them, of the size of the picture: with a hole, and seams of some softness."""
    height, width = HIGH * SIDE, WIDE * SIDE
    away = np.minimum(*np.meshgrid(np.abs(np.arange(width) - 700), np.abs(np.arange(height) - 700))).astype(np.float64)
    return {
        "hard": np.where(away > 40, 255, 0).astype(np.uint8),
        "soft": np.clip((away - 20) * 64, 0, 255).astype(np.uint8),
        "feathered": np.clip((away - 20) * 2, 0, 255).astype(np.uint8),
        "opaque": np.full((height, width), 255, np.uint8),
    }


@pytest.mark.parametrize("kind", list(alphas()))
def test_an_alpha_is_a_mask_however_soft_its_seam(tmp_path: Path, kind: str) -> None:
    alpha = alphas()[kind]
    path = labelled(tmp_path / "rgba.tif", np.dstack([picture(tiles()), alpha]), "alpha")
    whole = alpha.reshape(HIGH, SIDE, WIDE, SIDE).min(axis=(1, 3)) == 255
    with GeoTiffSource(path, SIDE) as source:
        assert [data is not None for data in each_tile(source)] == whole.ravel().tolist()
    # Whoever names the colours says that no other band is a mask: not where one is.
    if kind == "opaque":
        with GeoTiffSource(path, SIDE, (1, 2, 3)) as source:
            assert None not in each_tile(source)
    else:
        with pytest.raises(Invalid, match="masks pixels") as caught:
            read_one(path, (1, 2, 3))
        assert "-mask 4" in caught.value.remedy


@pytest.mark.parametrize("value", [1, 128, 254])
def test_an_alpha_that_never_reaches_the_maximum_is_refused(tmp_path: Path, value: int) -> None:
    alpha = np.full((HIGH * SIDE, WIDE * SIDE), value, np.uint8)
    alpha[:300] = 0
    with pytest.raises(Invalid, match="labelled alpha and is no mask: of its values above 0, 100%"):
        read_one(labelled(tmp_path / "rgba.tif", np.dstack([picture(tiles()), alpha]), "alpha"))


def test_of_a_large_alpha_a_few_blocks_are_read(tmp_path: Path) -> None:
    """And they lie all over it: infrared in one corner of 8 x 8 is no reason to refuse, and in all but one it is."""
    height, width = 4096, 8192
    for name, masks in (("mask", True), ("infrared", False)):
        alpha = np.full((height, width), 255 if masks else 200, np.uint8)
        alpha[:512, :1024] = 200 if masks else 255
        pixels = np.dstack([np.full((height, width), 9, np.uint8)] * 3 + [alpha])
        path = write(tmp_path / f"{name}.tif", pixels, alpha="YES", tiled=True, blockxsize=64, blockysize=64)
        if masks:
            read_one(path)
        else:
            with pytest.raises(Invalid):
                read_one(path)


@pytest.mark.parametrize("how", ["nodata", "mask", "nodata and mask"])
def test_named_colours_have_the_mask_and_the_value_for_no_data_still(tmp_path: Path, how: str) -> None:
    base = np.maximum(picture(tiles()), 1)
    four = np.concatenate([base, np.full((*base.shape[:2], 1), 90, np.uint8)], axis=2)
    with GeoTiffSource(hidden(tmp_path / "raster.tif", four, how, 300, 300, alpha="YES"), SIDE, (1, 2, 3)) as source:
        lost = [i for i, data in enumerate(each_tile(source)) if data is None]
    assert lost == [WIDE + 1]


def test_bands_that_are_no_colours_are_refused(tmp_path: Path) -> None:
    pixels = picture(tiles())
    with pytest.raises(Invalid, match="has no band 5"):
        GeoTiffSource(labelled(tmp_path / "four.tif", spectrum(pixels), "undefined"), SIDE, (5, 1, 2))
    palette = write(tmp_path / "palette.tif", pixels[:, :, :1], photometric="PALETTE")
    with rasterio.open(palette, "r+") as raster:
        raster.write_colormap(1, {i: (i, 0, 255 - i, 255) for i in range(256)})
    for bands in (None, (1,)):
        with pytest.raises(Invalid, match="palette") as caught:
            GeoTiffSource(palette, SIDE, bands)
        assert "-expand rgb" in caught.value.remedy
    # GDAL turns a file of four inks into red, green and blue with an opaque alpha; bands of ink are no colours.
    with GeoTiffSource(write(tmp_path / "cmyk.tif", spectrum(pixels), photometric="CMYK"), SIDE) as source:
        assert source.read(Tile(ZOOM, X0 + 1, Y0 + 1)) is not None
    inks = labelled(tmp_path / "inks.tif", spectrum(pixels), "undefined")
    with rasterio.open(inks, "r+") as raster:
        kinds = rasterio.enums.ColorInterp
        raster.colorinterp = kinds.cyan, kinds.magenta, kinds.yellow, kinds.black
    for bands in (None, (1, 2, 3)):
        with pytest.raises(Invalid, match="cyan"):
            GeoTiffSource(inks, SIDE, bands)
    with pytest.raises(Invalid, match="uint16"):
        GeoTiffSource(write(tmp_path / "deep.tif", pixels.astype(np.uint16)), SIDE, (1, 2, 3))


PLACES: dict[str, dict[str, Any]] = {"mercator": {}, "utm": UTM, "polar": {**UTM, "crs": "EPSG:3413"}}


@pytest.mark.parametrize("place", list(PLACES))
def test_a_tile_that_is_lacking_is_outside_partly_or_masked(tmp_path: Path, place: str) -> None:
    """Whole in the raster and lacking means masked. How much lies in the raster is counted here pixel by pixel."""
    base = np.maximum(picture(tiles()), 1)[: 4 * SIDE + 7, : 4 * SIDE + 7]
    path = hidden(tmp_path / "raster.tif", base, "nodata", 500, 501, **PLACES[place])
    exact, masked = place == "mercator", 0
    with GeoTiffSource(path, SIDE) as source, rasterio.open(path) as raster:
        west, south, east, north = rasterio.warp.transform_bounds(raster.crs, "EPSG:3857", *raster.bounds)
        for zoom in range(source.zooms[0], source.zooms[1] + 1):
            span = EQUATOR / (1 << zoom)
            x = np.arange(int((west + HALF) / span) - 1, int((east + HALF) / span) + 2)
            y = np.arange(int((HALF - north) / span) - 1, int((HALF - south) / span) + 2)
            ids = np.sort(tile_ids(zoom, *(part.ravel() for part in np.meshgrid(x, y))))
            for number, reach in zip(ids.tolist(), source.reach(zoom, ids).tolist(), strict=True):
                tile = tile_from_id(number)
                steps = (np.arange(0, SIDE, 1 if exact else 4) + 0.5) * span / SIDE
                columns, rows = np.meshgrid(tile.x * span - HALF + steps, HALF - tile.y * span - steps)
                there = columns.ravel(), rows.ravel()
                if not exact:
                    there = rasterio.warp.transform("EPSG:3857", raster.crs, *there)
                column, row = ~raster.transform * (np.array(there[0]), np.array(there[1]))
                share = ((column > 0) & (column < raster.width) & (row > 0) & (row < raster.height)).mean()
                if exact or 0.01 < share < 1:
                    assert reach == (2 if share == 1 else share > 0)
                else:  # a strip of less than four pixels may lie between those that are looked at
                    assert reach in ((1, 2) if share == 1 else (0, 1))
                there_whole = source.read(tile) is not None
                assert reach == 2 or not there_whole
                masked += reach == 2 and not there_whole
    assert masked


def test_damage_is_an_error_or_other_bytes_and_never_the_end(aligned: Path, tmp_path: Path) -> None:
    whole = aligned.read_bytes()
    chance = random.Random(1)
    path = tmp_path / "damaged.tif"
    cuts = [whole[: chance.randrange(8, len(whole))] for _ in range(12)]
    for _ in range(25):
        flipped = bytearray(whole)
        flipped[chance.randrange(0, 4096 if chance.random() < 0.7 else len(whole))] ^= 1 << chance.randrange(8)
        cuts.append(bytes(flipped))
    for data in cuts:
        path.write_bytes(data)
        with suppress(FlightbagError), GeoTiffSource(path, SIDE) as source:
            each_tile(source)


def test_a_mission_is_built_from_a_raster(desk: Desk) -> None:
    """The digest of the coverage is that of the same tiles in another container, and in nine rasters."""
    found = {}
    west, south, east, north = (value / 10**7 for value in WORLD)
    side = 1 << ZOOM
    columns = range(int((west + 180) / 360 * side) - 1, int((east + 180) / 360 * side) + 2)
    rows = [int((1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2 * side) for lat in (north, south)]
    for x in columns:
        for y in range(rows[0] - 1, rows[1] + 2):
            found[x, y] = render(Tile(ZOOM, x, y))
    pixels = np.concatenate(
        [np.concatenate([found[x, y] for x in columns], axis=1) for y in range(rows[0] - 1, rows[1] + 2)]
    )
    pixel = EQUATOR / side / SIDE
    origin = rasterio.transform.from_origin(
        columns[0] * pixel * SIDE - HALF, HALF - (rows[0] - 1) * pixel * SIDE, pixel, pixel
    )
    write(desk.folder / "raster.tif", pixels, transform=origin, tiled=True)
    for (x, y), tile in found.items():
        path = desk.folder / f"folder/{ZOOM}/{x}/{y}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(write_png(tile))
    (desk.folder / "ortho").mkdir()
    high, wide = pixels.shape[:2]
    for top, bottom in itertools.pairwise((0, high // 3 + 7, high // 2 + 1, high)):
        for left, right in itertools.pairwise((0, wide // 3 + 5, wide // 2 + 90, wide)):
            part = origin * rasterio.Affine.translation(left, top)
            write(desk.folder / f"ortho/{top}-{left}.tif", pixels[top:bottom, left:right], transform=part, tiled=True)
    reports = []
    listed = [f"ortho/{path.name}" for path in sorted((desk.folder / "ortho").iterdir())]
    for mission, source in (("raster", "raster.tif"), ("folder", "folder"), ("nine", "LIST")):
        path = desk.write_mission(mission, tiles=Path(source), zooms=(ZOOM,), bbox=LEFT)
        path.write_text(path.read_text().replace('"LIST"', str(listed)))
        reports.append(desk.built(path))
    assert reports[0]["coverage"] == reports[1]["coverage"] == reports[2]["coverage"]
    shards = [{a["name"]: a["id"] for a in r["artifacts"] if a["name"].startswith("desc")} for r in reports]
    assert shards[0] == shards[1] == shards[2]
    shown = [
        flightbag("show", desk.store, m, "--json").json["coverage"]["digest"] for m in ("raster", "folder", "nine")
    ]
    assert len(set(shown)) == 1
    for tiles in (desk.folder / "ortho", desk.folder / "nine.toml"):
        ran = flightbag("verify", desk.store, "nine", "--trust", desk.root, "--tiles", tiles)
        assert ran.status == 0, ran.out
    assert desk.built(desk.folder / "folder.toml")["outcome"] == "unchanged"


def hidden(path: Path, pixels: NDArray[np.uint8], how: str, row: int, column: int, **options: Any) -> Path:
    """A raster with one pixel masked."""
    mask = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    mask[row, column] = 0
    if how.startswith("alpha"):
        both = {"nodata": 77} if how == "alpha and nodata" else {}
        return write(path, np.concatenate([pixels, mask], axis=2), alpha="YES", **both, **options)
    if how == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            write(path, pixels, **options)
            with rasterio.open(path, "r+") as raster:
                raster.write_mask(mask[:, :, 0])
        return path
    bare = pixels.copy()
    bare[row, column] = 0
    write(path, bare, nodata=0, **options)
    if how == "nodata and mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
            raster.write_mask(np.full(mask.shape[:2], 255, np.uint8))
    return path


@pytest.mark.parametrize("how", ["alpha", "nodata", "mask", "alpha and nodata", "nodata and mask"])
@pytest.mark.parametrize("place", [{}, UTM], ids=["mercator", "utm"])
def test_one_masked_pixel_shows_at_every_zoom(tmp_path: Path, how: str, place: dict[str, Any]) -> None:
    """Wherever it lies in the tile: a tile that is there is whole."""
    base = np.maximum(picture(tiles()), 1)
    path = tmp_path / "raster.tif"
    with GeoTiffSource(write(path, base, **place), SIDE) as source:
        whole = {zoom: cells_of(source, zoom) for zoom in range(source.zooms[0], source.zooms[1] + 1)}
    assert whole[ZOOM]
    assert whole[ZOOM - 1]
    for row, column in ((700, 701), (511, 513)):
        with GeoTiffSource(hidden(path, base, how, row, column, **place), SIDE) as source:
            for zoom, before in whole.items():
                lost = before - cells_of(source, zoom)
                # In one tile, or where it lies on an edge in its neighbours too.
                assert 1 <= len(lost) <= 4 if before else not lost


@given(st.integers(0, 255), st.integers(0, 255))
def test_a_masked_pixel_of_the_least_weight_shows(hidden_in_a_large_one: Path, dx: int, dy: int) -> None:
    """Two zooms down, wherever in 256 x 256: the masked pixel is moved by moving the raster."""
    pixel = EQUATOR / (1 << ZOOM) / SIDE
    with rasterio.open(hidden_in_a_large_one, "r+") as raster:
        # A third of a pixel off the grid, so that the weights are of every size.
        raster.transform = rasterio.Affine(
            pixel,
            0,
            X0 * pixel * SIDE - HALF - (dx + 1 / 3) * pixel,
            0,
            -pixel,
            HALF - (Y0 * SIDE - dy - 1 / 3) * pixel,
        )
    with GeoTiffSource(hidden_in_a_large_one, SIDE) as source:
        x, y = (X0 + (2000 - dx) // SIDE) >> 2, (Y0 + (2000 - dy) // SIDE) >> 2
        assert source.read(Tile(ZOOM - 2, x, y)) is None
        assert source.read(Tile(ZOOM - 2, x - 1, y)) is not None


@pytest.fixture(scope="module")
def hidden_in_a_large_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pixels = np.full((3072, 3072, 1), 9, np.uint8)
    return hidden(tmp_path_factory.mktemp("raster") / "large.tif", pixels, "nodata", 2000, 2000, tiled=True)


def test_a_tile_reaches_nowhere_beyond_the_raster(tmp_path: Path) -> None:
    """Not by half a pixel either; and what ends with the tile has it, a zoom lower too."""
    pixels = picture(tiles())
    pixel = EQUATOR / (1 << ZOOM) / SIDE
    path = tmp_path / "raster.tif"
    left, top = X0 * pixel * SIDE - HALF, HALF - (Y0 + 1) * pixel * SIDE
    for shift, there in ((0.0, True), (0.3, False)):
        place = rasterio.Affine(pixel, 0, left + shift * pixel, 0, -pixel, top)
        with GeoTiffSource(write(path, pixels, transform=place), SIDE) as source:
            assert (source.read(Tile(ZOOM, X0, Y0 + 1)) is not None) == there
            assert source.read(Tile(ZOOM - 1, (X0 + 1) >> 1, (Y0 + 1) >> 1)) is not None
            assert source.read(Tile(ZOOM - 1, X0 >> 1, (Y0 + 1) >> 1)) is None


def test_what_the_projection_does_not_know_is_not_there(tmp_path: Path) -> None:
    pixels = picture(tiles())
    for number, crs in enumerate(("EPSG:32614", "EPSG:27700", "EPSG:3413")):
        with GeoTiffSource(write(tmp_path / f"{number}.tif", pixels, **{**UTM, "crs": crs}), SIDE) as source:
            zoom = source.zooms[1]
            last = (1 << zoom) - 1
            for x, y in ((0, 0), (last, last), (last // 2 + 1, last // 2 + 1), (last, last // 2), (last // 2, 0)):
                assert source.read(Tile(zoom, x, y)) is None


def cells_of(source: GeoTiffSource, zoom: int) -> set[Tile]:
    """The tiles that the source has of all that the raster may touch."""
    scale = 1 << (ZOOM - zoom)
    columns, rows = range(X0 // scale - 2, X0 // scale + 9), range(Y0 // scale - 2, Y0 // scale + 9)
    return {Tile(zoom, x, y) for x in columns for y in rows if source.read(Tile(zoom, x, y)) is not None}


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("place", [{}, UTM], ids=["mercator", "utm"])
def test_what_was_never_written_is_not_black(tmp_path: Path, interleave: str, place: dict[str, Any]) -> None:
    """One block of one band is enough; a block that is written and black is a block."""
    pixels = np.full((HIGH * SIDE, WIDE * SIDE, 3), 9, np.uint8)
    pixels[:SIDE, :SIDE] = 0
    options = {"tiled": True, "blockxsize": SIDE, "blockysize": SIDE, "interleave": interleave, **place}
    found = []
    for name in ("whole", "sparse"):
        path = write(tmp_path / f"{name}.tif", pixels, **options)
        if name == "sparse":
            part = pixels.copy()
            part[2 * SIDE : 3 * SIDE, 3 * SIDE : 4 * SIDE, 1 if interleave == "band" else slice(None)] = 0
            write(path, part, sparse_ok=True, **options)
        with GeoTiffSource(path, SIDE) as source:
            found.append(cells_of(source, ZOOM))
    lost = found[0] - found[1]
    assert found[1] < found[0]
    assert place or lost == {Tile(ZOOM, X0, Y0), Tile(ZOOM, X0 + 3, Y0 + 2)}


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("compress", ["none", "deflate"])
def test_a_file_of_one_strip_is_whole(tmp_path: Path, interleave: str, compress: str) -> None:
    """GDAL would show it in rows, none of which tells where it lies."""
    pixels = np.random.default_rng(0).integers(1, 256, (2048, 2048, 3), np.uint8)
    path = write(tmp_path / "strip.tif", pixels, blockysize=2048, interleave=interleave, compress=compress)
    with GeoTiffSource(path, SIDE) as source:
        data = source.read(Tile(ZOOM, X0 + 6, Y0 + 7))
    assert data is not None
    assert (np.asarray(decode(data)) == pixels[7 * SIDE :, 6 * SIDE : 7 * SIDE]).all()


def test_too_much_at_once_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "raster.tif", picture(tiles()), tiled=True)
    with monkeypatch.context() as patch:
        patch.setattr("builders.imagery.geotiff.MAX_WINDOW", 500 * 500)
        with GeoTiffSource(path, SIDE) as source:
            with pytest.raises(Invalid) as caught:
                source.read(Tile(ZOOM - 1, (X0 + 1) >> 1, (Y0 + 1) >> 1))
            assert "gdal_translate" in caught.value.remedy
    with pytest.raises(Invalid):
        # A block of 12,288 x 12,288 pixels, unpacked as a whole.
        GeoTiffSource(
            write(
                tmp_path / "block.tif", np.zeros((12_288, 12_288, 1), np.uint8), blockysize=12_288, compress="deflate"
            ),
            SIDE,
        )
    with pytest.raises(Invalid):
        GeoTiffSource(path, 4096)


@pytest.mark.parametrize("big", ["NO", "YES"])
@pytest.mark.parametrize("endianness", ["LITTLE", "BIG"])
def test_a_long_chain_of_directories_is_refused_before_gdal_reads_it(tmp_path: Path, big: str, endianness: str) -> None:
    """GDAL takes seconds for 60,000 of them, and minutes for ten times as many."""
    path = write(tmp_path / "chain.tif", picture(tiles())[:256, :256], BIGTIFF=big, ENDIANNESS=endianness)
    order: Literal["little", "big"] = "little" if endianness == "LITTLE" else "big"
    counting, entry, size, at = (8, 20, 8, 8) if big == "YES" else (2, 12, 4, 4)
    data = bytearray(path.read_bytes())
    start = int.from_bytes(data[at : at + size], order)
    length = counting + int.from_bytes(data[start : start + counting], order) * entry
    directory = bytes(data[start : start + length])
    for count in (200, 100_000):
        chained = bytearray(data)
        chained[start + length : start + length + size] = len(data).to_bytes(size, order)
        for number in range(1, count):
            following = len(data) + number * (length + size) if number < count - 1 else 0
            chained += directory + following.to_bytes(size, order)
        path.write_bytes(chained)
        if count == 200:
            with GeoTiffSource(path, SIDE) as source:
                assert source.read(Tile(ZOOM, X0, Y0)) is not None
        else:
            with pytest.raises(Invalid, match="more than 256 images or overviews"):
                GeoTiffSource(path, SIDE)


def test_a_chain_of_directories_that_is_a_circle_is_an_error(aligned: Path, tmp_path: Path) -> None:
    data = bytearray(aligned.read_bytes())
    start = int.from_bytes(data[4:8], "little")
    end = start + 2 + int.from_bytes(data[start : start + 2], "little") * 12
    for target in (start, 2**32 - 1, 7):
        data[end : end + 4] = target.to_bytes(4, "little")
        (tmp_path / "circle.tif").write_bytes(data)
        with suppress(FlightbagError), GeoTiffSource(tmp_path / "circle.tif", SIDE) as source:
            assert source.read(Tile(ZOOM, X0, Y0)) is not None


def test_a_raster_with_holes_of_terabytes_opens_at_once(aligned: Path, tmp_path: Path) -> None:
    """Its stamp is that of the file's state, and only the blocks of a tile are read."""
    path = tmp_path / "sparse.tif"
    path.write_bytes(aligned.read_bytes())
    os.truncate(path, 1 << 42)
    with GeoTiffSource(path, SIDE) as source:
        assert source.read(Tile(ZOOM, X0, Y0)) == write_png(tiles()[Tile(ZOOM, X0, Y0)])
        assert source.stamp([])


def test_zooms_that_the_full_pixels_make_use_no_overview(aligned: Path, tmp_path: Path) -> None:
    path = tmp_path / "raster.tif"
    path.write_bytes(aligned.read_bytes())
    above = Tile(ZOOM - 1, (X0 + 1) // 2, (Y0 + 1) // 2)
    with GeoTiffSource(path, SIDE) as source:
        before = source.read(above)
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4], rasterio.enums.Resampling.nearest)
        assert raster.overviews(1) == [2, 4]
    with GeoTiffSource(path, SIDE) as source:
        assert source.read(above) == before


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_raster_that_lies_nowhere_or_askew_is_refused_and_no_hang(tmp_path: Path) -> None:
    pixels = picture(tiles())
    for number, transform in enumerate(
        (
            rasterio.Affine(-8.8e299, 0, 0, 0, -1, 0),
            rasterio.Affine(8.8e299, 0, 0, 0, -1, 0),
            rasterio.Affine(1, 0, 1e300, 0, -1, 0),
            rasterio.Affine(1e-300, 0, 0, 0, -1e-300, 0),
            rasterio.Affine(float("nan"), 0, 0, 0, -1, 0),
            rasterio.Affine(1, 0.1, 0, 0.1, -1, 0),
            rasterio.Affine(2, 0, 10, 0, 2, 10),
            rasterio.Affine(-2, 0, 10, 0, -2, 10),
            rasterio.Affine.identity(),
        )
    ):
        with pytest.raises(Invalid) as caught:
            GeoTiffSource(write(tmp_path / f"{number}.tif", pixels, transform=transform), SIDE)
        assert f"{number}.tif" in str(caught.value)
        assert "gdalwarp" in caught.value.remedy


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_world_file_gives_no_place(tmp_path: Path) -> None:
    path = write(tmp_path / "raster.tif", picture(tiles()), transform=None)
    pixel = EQUATOR / (1 << ZOOM) / SIDE
    left, top = X0 * pixel * SIDE - HALF, HALF - Y0 * pixel * SIDE
    (tmp_path / "raster.tfw").write_text(f"{pixel}\n0\n0\n{-pixel}\n{left + pixel / 2}\n{top - pixel / 2}\n")
    with pytest.raises(Invalid):
        GeoTiffSource(path, SIDE)


def test_fewer_bits_than_a_byte_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        GeoTiffSource(write(tmp_path / "four.tif", picture(tiles()) >> 4, nbits=4), SIDE)
    assert "4 bits" in str(caught.value)


def test_the_zoom_whose_pixels_are_nearest(tmp_path: Path) -> None:
    pixel = EQUATOR / (1 << ZOOM) / SIDE
    pixels = picture(tiles())[:SIDE, :SIDE]
    # Pixels of a size between two zooms, by its logarithm, fall to the finer one.
    for factor, zoom in ((1.0, 15), (1.41, 15), (1.42, 14), (0.71, 15), (0.70, 16)):
        place = rasterio.Affine(
            pixel * factor, 0, X0 * pixel * SIDE - HALF, 0, -pixel * factor, HALF - Y0 * pixel * SIDE
        )
        with GeoTiffSource(write(tmp_path / "raster.tif", pixels, transform=place), SIDE) as source:
            assert source.zooms == (zoom - 2, zoom)


def test_black_stays_black_beside_a_value_for_none(tmp_path: Path) -> None:
    pixels = np.full((HIGH * SIDE, WIDE * SIDE, 3), 80, np.uint8)
    pixels[:, :, 1:] = 0
    alpha = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], axis=2)
    for given_as, options in ((alpha, {"alpha": "YES"}), (pixels, {"nodata": 0})):
        with GeoTiffSource(write(tmp_path / "red.tif", given_as, **options, **UTM), SIDE) as source:
            found = [source.read(tile) for tile in cells_of(source, 15)]
        assert found
        assert all(data is not None and (np.asarray(decode(data)) == (80, 0, 0)).all() for data in found)


def test_settings_are_nobody_elses(aligned: Path) -> None:
    """Sources close in any order, and between two tiles nothing of theirs is left in the thread."""
    one, other = GeoTiffSource(aligned, SIDE), GeoTiffSource(aligned, SIDE)
    tile = Tile(ZOOM, X0, Y0)
    found = one.cell(cell_of(tile), ZOOM)
    next(found)
    assert not rasterio.env.hasenv()
    with rasterio.Env(GDAL_PAM_ENABLED="YES"):
        next(found)
        assert one.read(tile) == other.read(tile)
        assert rasterio.env.getenv()["GDAL_PAM_ENABLED"] == "YES"
        one.close()
        assert other.read(tile) is not None
    assert not rasterio.env.hasenv()
    assert other.read(tile) is not None
    other.close()
    other.close()


@pytest.mark.parametrize(
    "options",
    [
        {"compress": "deflate", "tiled": True},
        {"compress": "jpeg"},
        {},
        {"compress": "deflate", **UTM},
        {"compress": "lzw", "nodata": 0, **UTM},
    ],
    ids=["deflate", "jpeg", "plain", "utm", "utm-nodata"],
)
def test_flipped_bits_are_typed_errors_or_other_bytes(tmp_path: Path, options: dict[str, Any]) -> None:
    pixels = picture(tiles())[:512, :512]
    whole = write(tmp_path / "whole.tif", pixels, **options).read_bytes()
    chance = random.Random(2)
    path = tmp_path / "damaged.tif"
    path.write_bytes(whole)
    with GeoTiffSource(path, SIDE) as source:
        assert any(each_tile(source))
    for _ in range(60):
        data = bytearray(whole)
        data[chance.randrange(0, 1024 if chance.random() < 0.8 else len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        # A warning or an error of another kind fails the test.
        with suppress(FlightbagError), GeoTiffSource(path, SIDE) as source:
            each_tile(source)


def test_a_raster_that_was_written_to_has_no_stamp(aligned: Path, tmp_path: Path) -> None:
    path = tmp_path / "raster.tif"
    path.write_bytes(aligned.read_bytes())
    with GeoTiffSource(path, SIDE) as source:
        source.stamp([])
        with path.open("r+b") as file:
            file.seek(100)
            file.write(b"x")
        with pytest.raises(Unavailable, match="written to"):
            source.stamp([])


def test_a_raster_that_changes_while_it_is_opened_is_unavailable(
    aligned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "raster.tif", tmp_path / "other.tif"
    path.write_bytes(aligned.read_bytes())
    other.write_bytes(aligned.read_bytes())
    inspect = Raster._inspect

    def replaced(self: Raster, raster: Any) -> None:
        inspect(self, raster)
        other.replace(path)

    monkeypatch.setattr(Raster, "_inspect", replaced)
    with pytest.raises(Unavailable):
        GeoTiffSource(path, SIDE)
