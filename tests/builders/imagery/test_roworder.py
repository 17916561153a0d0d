"""The order of rows: decided by two witnesses that agree, otherwise an error that names the key."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.grid.tiles import Tile, tile_bounds, tile_from_id, tile_id, tiles_of_bbox
from builders.imagery.roworder import (
    SCHEMES,
    Claims,
    Extent,
    RowOrder,
    Scheme,
    SourcePath,
    StoredRows,
    bounds_of,
    other,
    row_order,
)
from builders.imagery.sources import open_source
from store.errors import Invalid

ZOOM = 14
Box = tuple[int, int, int, int]
# Far from the equator; on one side of it and near; across it, as far on both sides.
FAR: Box = (-991750000, 470080000, -991350000, 470330000)
NEAR: Box = (300000000, 1000000, 300600000, 2000000)
ACROSS: Box = (300000000, -600000, 300600000, 600000)
BOXES = pytest.mark.parametrize("box", [FAR, NEAR, ACROSS], ids=["far", "near", "across"])
ORDERS = pytest.mark.parametrize("order", SCHEMES)
Write = Callable[[Path, Box, Scheme, str, str], None]


def tiles_of(box: Box) -> list[Tile]:
    return [tile_from_id(number) for number in tiles_of_bbox(box, ZOOM).tolist()]


def name_of(tile: Tile) -> bytes:
    return str(tile).encode()


def stored(tile: Tile, order: Scheme) -> int:
    return tile.y if order == "xyz" else (1 << tile.z) - 1 - tile.y


def degrees(box: Box) -> str:
    return ",".join(f"{value / 10**7:.7f}" for value in box)


def write_mbtiles(path: Path, box: Box, order: Scheme, scheme: str = "", bounds: str = "", zoom: int = ZOOM) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE metadata (name text, value text)")
        rows = [("format", "png"), ("scheme", scheme), ("bounds", bounds)]
        db.executemany("INSERT INTO metadata VALUES (?, ?)", [row for row in rows if row[1]])
        db.execute("CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, tile_data blob)")
        db.executemany(
            "INSERT INTO tiles VALUES (?, ?, ?, ?)",
            [(tile.z, tile.x, stored(tile, order), name_of(tile)) for tile in tiles_of(box)],
        )


def write_folder(path: Path, box: Box, order: Scheme, scheme: str = "", bounds: str = "") -> None:
    for tile in tiles_of(box):
        file = path / f"{tile.z}/{tile.x}/{stored(tile, order)}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name_of(tile))
    if scheme or bounds:
        (path / "metadata.json").write_text(json.dumps({"scheme": scheme, "bounds": bounds}))


# How a container is written, and the order that its format prescribes.
CONTAINERS = pytest.mark.parametrize(
    ("write", "prescribed"), [(write_mbtiles, "tms"), (write_folder, "xyz")], ids=["mbtiles", "folder"]
)


def read(path: Path, box: Box, scheme: Scheme | None = None, area: Box | None = None) -> Scheme:
    """The order that was decided, after every tile of the box was found in its place."""
    with open_source(path, 256, Extent(area or box, (ZOOM,)), scheme) as source:
        for tile in tiles_of(box):
            assert source.read(tile) == name_of(tile)
        assert source.row_order is not None
        return source.row_order.scheme


def refused(path: Path, box: Box, scheme: Scheme | None = None) -> Invalid:
    with pytest.raises(Invalid) as caught, open_source(path, 256, Extent(box, (ZOOM,)), scheme):
        pass
    assert caught.value.kind == "row-order"
    assert caught.value.fields["path"] == str(path)
    return caught.value


@CONTAINERS
@ORDERS
@BOXES
def test_the_key_decides(write: Write, prescribed: Scheme, order: Scheme, box: Box, tmp_path: Path) -> None:
    write(tmp_path / "tiles", box, order, "", "")
    assert read(tmp_path / "tiles", box, order) == order


@CONTAINERS
@ORDERS
def test_a_key_against_the_bounds_is_refused(write: Write, prescribed: Scheme, order: Scheme, tmp_path: Path) -> None:
    write(tmp_path / "tiles", NEAR, order, "", degrees(NEAR))
    error = refused(tmp_path / "tiles", NEAR, other(order))
    assert f'scheme = "{order}"' in error.remedy
    assert "bounds" in error.remedy


@CONTAINERS
@ORDERS
@pytest.mark.parametrize("box", [FAR, NEAR], ids=["far", "near"])
def test_what_the_metadata_state_holds_if_the_bounds_agree(
    write: Write, prescribed: Scheme, order: Scheme, box: Box, tmp_path: Path
) -> None:
    write(tmp_path / "tiles", box, order, order, degrees(box))
    assert read(tmp_path / "tiles", box) == order
    write(tmp_path / "lying", box, order, other(order), degrees(box))
    assert f'scheme = "{order}"' in refused(tmp_path / "lying", box).remedy


@CONTAINERS
@pytest.mark.parametrize("box", [FAR, NEAR], ids=["far", "near"])
def test_what_the_format_prescribes_holds_if_the_bounds_agree(
    write: Write, prescribed: Scheme, box: Box, tmp_path: Path
) -> None:
    write(tmp_path / "right", box, prescribed, "", degrees(box))
    assert read(tmp_path / "right", box) == prescribed
    write(tmp_path / "wrong", box, other(prescribed), "", degrees(box))
    assert f'scheme = "{other(prescribed)}"' in refused(tmp_path / "wrong", box).remedy


@CONTAINERS
@pytest.mark.parametrize(
    "bounds", ["", "-180.0,-85,180,85", "-180,-85.0511,180,85.0511", "1,2,3", "a,b,c,d", "0,9,1,9"]
)
def test_without_bounds_the_area_has_to_agree(write: Write, prescribed: Scheme, bounds: str, tmp_path: Path) -> None:
    write(tmp_path / "right", FAR, prescribed, "", bounds)
    assert read(tmp_path / "right", FAR) == prescribed
    write(tmp_path / "wrong", FAR, other(prescribed), "", bounds)
    assert "latitudes" in refused(tmp_path / "wrong", FAR).remedy
    write(tmp_path / "stated", FAR, other(prescribed), other(prescribed), bounds)
    assert read(tmp_path / "stated", FAR) == other(prescribed)


@CONTAINERS
@ORDERS
def test_what_fits_both_is_refused_whatever_metadata_and_format_say(
    write: Write, prescribed: Scheme, order: Scheme, tmp_path: Path
) -> None:
    for name, scheme in (("silent", ""), ("other", other(prescribed)), ("agreed", prescribed)):
        write(tmp_path / name, ACROSS, order, scheme, degrees(ACROSS))
        error = refused(tmp_path / name, ACROSS)
        assert 'scheme = "tms" or "xyz"' in error.remedy


@CONTAINERS
def test_bounds_that_tell_decide_for_an_area_across_the_equator(
    write: Write, prescribed: Scheme, tmp_path: Path
) -> None:
    box = (300000000, -600000, 300600000, 3000000)
    write(tmp_path / "tiles", box, prescribed, "", degrees(box))
    assert read(tmp_path / "tiles", box, area=ACROSS) == prescribed


@CONTAINERS
def test_bounds_may_be_padded_or_too_small(write: Write, prescribed: Scheme, tmp_path: Path) -> None:
    west, south, east, north = NEAR
    for name, box in (
        ("padded", (west - 10**7, south - 10**5, east + 10**7, north + 40 * 10**7)),
        ("small", (west, south + 300000, east, north - 300000)),
    ):
        write(tmp_path / name, NEAR, prescribed, "", degrees(box))
        assert read(tmp_path / name, NEAR) == prescribed


@CONTAINERS
def test_a_source_of_another_place_has_nothing_to_decide(write: Write, prescribed: Scheme, tmp_path: Path) -> None:
    write(tmp_path / "tiles", FAR, prescribed, "", "")
    with open_source(tmp_path / "tiles", 256, Extent(NEAR, (ZOOM,))) as source:
        assert source.row_order == RowOrder(prescribed, 0, 0)


@pytest.mark.parametrize("scheme", ["XYZ", " xyz "])
def test_a_scheme_in_capitals_is_one(scheme: str, tmp_path: Path) -> None:
    write_mbtiles(tmp_path / "tiles", NEAR, "xyz", scheme, degrees(NEAR))
    assert read(tmp_path / "tiles", NEAR) == "xyz"


@CONTAINERS
def test_an_unknown_scheme_is_refused_unless_the_key_decides(write: Write, prescribed: Scheme, tmp_path: Path) -> None:
    write(tmp_path / "tiles", NEAR, prescribed, "zxy", degrees(NEAR))
    assert "zxy" in refused(tmp_path / "tiles", NEAR).message
    assert read(tmp_path / "tiles", NEAR, prescribed) == prescribed


def test_two_schemes_in_the_metadata_are_refused(tmp_path: Path) -> None:
    write_mbtiles(tmp_path / "tiles", NEAR, "tms", "tms", degrees(NEAR))
    with closing(sqlite3.connect(tmp_path / "tiles")) as db, db:
        db.execute("INSERT INTO metadata VALUES ('scheme', 'xyz')")
    assert "tms and xyz" in refused(tmp_path / "tiles", NEAR).message


def resource(box: tuple[float, float, float, float]) -> str:
    return (
        '<?xml version="1.0"?><TileMap><SRS>EPSG:3857</SRS>'
        f'<BoundingBox minx="{box[0]}" miny="{box[1]}" maxx="{box[2]}" maxy="{box[3]}"/></TileMap>'
    )


@pytest.mark.parametrize(
    "bounds",
    [
        (30.0, 0.1, 30.06, 0.2),
        (3339584.7, 11131.9, 3346263.9, 22263.9),  # metres of web mercator
        (0.1, 30.0, 0.2, 30.06),  # x and y exchanged, as old versions of gdal2tiles do: no evidence
    ],
)
def test_the_folder_of_gdal2tiles_counts_from_the_south(
    bounds: tuple[float, float, float, float], tmp_path: Path
) -> None:
    write_folder(tmp_path / "tiles", NEAR, "tms")
    (tmp_path / "tiles/tilemapresource.xml").write_text(resource(bounds))
    assert read(tmp_path / "tiles", NEAR) == "tms"


def test_a_tile_map_resource_beside_rows_from_the_north_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "tiles", NEAR, "xyz")
    (tmp_path / "tiles/tilemapresource.xml").write_text(resource((30.0, 0.1, 30.06, 0.2)))
    assert 'scheme = "xyz"' in refused(tmp_path / "tiles", NEAR).remedy


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 10**5])
def test_metadata_that_are_not_json_are_refused(content: bytes, tmp_path: Path) -> None:
    write_folder(tmp_path / "tiles", NEAR, "xyz")
    (tmp_path / "tiles/metadata.json").write_bytes(content)
    with pytest.raises(Invalid, match=r"metadata\.json"):
        read(tmp_path / "tiles", NEAR)


@pytest.mark.parametrize("content", ["[]", "7", '{"scheme": 3, "bounds": {"a": 1}}', '{"bounds": [1, 2, null, 4]}'])
def test_metadata_of_another_shape_state_nothing(content: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "tiles", NEAR, "xyz")
    (tmp_path / "tiles/metadata.json").write_text(content)
    assert read(tmp_path / "tiles", NEAR) == "xyz"


def test_zooms_of_two_orders_are_refused(tmp_path: Path) -> None:
    rows = [StoredRows(14, 5000, 5010, 10, 0), StoredRows(15, 10000, 10010, 0, 10)]
    with pytest.raises(Invalid, match="at one zoom"):
        row_order(tmp_path, "tms", Claims("tms"), rows, None)
    assert row_order(tmp_path, "tms", Claims(), rows, "xyz").scheme == "xyz"


def test_a_scheme_of_a_container_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raster.tif").write_bytes(b"II*\0" + bytes(100))
    with pytest.raises(Invalid, match="only MBTiles files and folders"):
        open_source(tmp_path / "raster.tif", 256, Extent(FAR, (ZOOM,)), "xyz")


def test_an_area_across_the_antimeridian_has_columns_on_both_sides(tmp_path: Path) -> None:
    box = (1799500000, 100000000, -1799500000, 100500000)
    write_mbtiles(tmp_path / "tiles", box, "tms")
    assert read(tmp_path / "tiles", box) == "tms"


def test_a_hint_names_the_tiles_that_lie_in_the_area_in_the_other_order(tmp_path: Path) -> None:
    assert RowOrder("tms", 3, 3).hint(tmp_path) == ""
    assert '"xyz"' in RowOrder("tms", 0, 7).hint(tmp_path)
    assert "latitudes" in RowOrder("xyz", 0, 7).hint(tmp_path)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("a/b.mbtiles", SourcePath(Path("a/b.mbtiles"))),
        ("xyz:a/b.mbtiles", SourcePath(Path("a/b.mbtiles"), "xyz")),
        ("tms:xyz:b", SourcePath(Path("xyz:b"), "tms")),
        ("./xyz:b", SourcePath(Path("xyz:b"))),
    ],
)
def test_a_command_line_names_a_path_and_perhaps_an_order(text: str, source: SourcePath) -> None:
    assert SourcePath.parse(text) == source


latitudes = st.tuples(*[st.integers(-840_000_000, 840_000_000)] * 2).filter(lambda both: abs(both[0] - both[1]) > 10)


@given(latitudes, latitudes, st.integers(0, 20), st.sampled_from(SCHEMES), st.sampled_from(["", "tms", "xyz"]))
def test_with_true_bounds_the_other_order_is_decided_only_where_it_fits_them_too(
    held: tuple[int, int], area: tuple[int, int], zoom: int, order: Scheme, stated: str
) -> None:
    box = Extent((0, min(held), 10**6, max(held)), (zoom,))
    extent = Extent((0, min(area), 10**6, max(area)), (zoom,))
    rows, mirrored, there = box.rows(zoom, order), box.rows(zoom, other(order)), box.rows(zoom, "xyz")
    tms, xyz = (_shared(rows, extent.rows(zoom, scheme)) for scheme in ("tms", "xyz"))
    claims = Claims(stated, (box.bbox[1] / 10**7, box.bbox[3] / 10**7))
    try:
        decided = row_order(Path("tiles"), "tms", claims, [StoredRows(zoom, rows[0], rows[-1], tms, xyz)], None)
    except Invalid:
        return
    flipped = mirrored if order == "xyz" else rows  # the rows from the north, if the order is taken for the other one
    fits_both = there[0] - 1 <= flipped[0] <= flipped[-1] <= there[-1] + 1
    assert decided.scheme == order or fits_both


def _shared(rows: range, there: range) -> int:
    return max(0, min(rows.stop, there.stop) - max(rows.start, there.start))


def test_rows_of_a_box_are_mirrored_by_the_other_order() -> None:
    extent = Extent(NEAR, (ZOOM,))
    last = (1 << ZOOM) - 1
    assert [last - row for row in reversed(extent.rows(ZOOM, "xyz"))] == list(extent.rows(ZOOM, "tms"))
    top = tile_from_id(tile_id(Tile(ZOOM, 9557, extent.rows(ZOOM, "xyz")[0])))
    assert tile_bounds(top)[1] * 10**7 <= NEAR[3] <= tile_bounds(top)[3] * 10**7


def test_bounds_are_four_numbers_on_the_earth() -> None:
    assert bounds_of([1, 2, 3, 4]) == (2, 4)
    for wrong in ([1, 2, 3], [1, 4, 3, 2], [1, -91, 3, 4], [1, 2, 3, float("nan")], [1, 2, float("inf"), 4]):
        assert bounds_of(wrong) is None
