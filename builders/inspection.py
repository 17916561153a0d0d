"""What a tile source and a model say of themselves: the facts of a new mission file. Reads one tile and no pixel more.

The area is the largest that the bounds of the source allow: whole tiles at every zoom that is proposed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builders.activity import doing
from builders.engines.model import MAX_ONNX_BYTES, parse_onnx
from builders.files import read_regular
from builders.grid.tiles import (
    MAX_AREA_TILES,
    MAX_ZOOM,
    Bounds,
    Tile,
    bounds_of_tiles,
    cell_of,
    rows_and_columns,
    tile_ids,
)
from builders.imagery.roworder import Extent, Scheme, SourcePath
from builders.imagery.signature import format_of
from builders.imagery.sources import TileSource, open_source
from builders.imagery.structure import size_of
from builders.mission.template import Tensor
from store.errors import Invalid

_WORLD = (-180 * 10**7, -90 * 10**7, 180 * 10**7, 90 * 10**7)
_DEGREE = 10**7
_TILE_SIZE = 256
# So far inside of the outermost tiles, in 1e-7 degree, that rounding adds none.
_INSIDE = 2
# Cells in which a first tile is looked for, and tiles that are looked at for whether they lie in a raster.
_CELLS, _REACHED = 256, 1 << 14
_MAX_ENDS = 64


@dataclass(frozen=True, slots=True)
class Imagery:
    """A tile source: the zooms that a mission can have, the box of whole tiles (west, south, east, north in 1e-7
    degree), the pixels a side of its tiles and their format, and the order of its rows where somebody named it.
    `first`, `last` are the zooms of its metadata; `resolution_m` is 0 where it is not known."""

    zooms: tuple[int, ...]
    first: int
    last: int
    bbox: tuple[int, int, int, int]
    tile_size: int
    format: str
    scheme: Scheme | None
    resolution_m: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a source and a model say of themselves."""

    imagery: Imagery
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def inspect(imagery: str, model: Path) -> Inspected:
    """Return what the source (PATH, tms:PATH or xyz:PATH) and the ONNX model say.

    Raise Invalid where one of them is none, and where the order of the rows of a source is not decided.
    """
    source = SourcePath.parse(imagery)
    with doing(f"reading {source.path}"):
        seen = _imagery(source)
    with doing(f"reading the model {model}"):
        inputs, outputs = ends_of(model)
    return Inspected(seen, inputs, outputs)


# -- imagery


def _imagery(named: SourcePath) -> Imagery:
    path, scheme = named
    with open_source(path, _TILE_SIZE, Extent(_WORLD, ()), scheme) as source:
        zooms = [zoom for zoom in _zooms(source) if source.bounds(zoom) is not None]
    if not zooms:
        raise Invalid(f"tile source {path} has no tiles", remedy="give a source that has tiles", path=str(path))
    # Opened with its zooms, a source whose rows nobody has named decides their order.
    chosen = tuple(zooms[-2:] if zooms[-2:] == [zooms[-1] - 1, zooms[-1]] else zooms[-1:])
    with open_source(path, _TILE_SIZE, Extent(_WORLD, chosen), scheme) as source:
        zooms_and_box = next(_boxes(source, zooms), None)
        if zooms_and_box is None:
            raise Invalid(
                f"tile source {path} has no area of whole tiles",
                remedy="give a source that covers at least one tile of its finest zoom",
                path=str(path),
            )
        chosen, box = zooms_and_box
        size, kind = _first_tile(source, chosen[-1], box)
        return Imagery(
            zooms=chosen,
            first=zooms[0],
            last=zooms[-1],
            bbox=box,
            tile_size=size,
            format=kind or source.stated,
            scheme=scheme,
            resolution_m=source.resolution_m or 0.0,
            notes=tuple(source.notes),
        )


def _zooms(source: TileSource) -> range:
    first, last = source.zooms or (0, MAX_ZOOM)
    return range(first, last + 1)


def _boxes(source: TileSource, zooms: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[int, int, int, int]]]:
    """Yield the finest zooms that have an area, two of them where they can, each with its box."""
    for last in reversed(zooms):
        for chosen in ((last - 1, last), (last,)):
            if set(chosen) <= set(zooms) and (box := _box(source, chosen)) is not None:
                yield chosen, box


def _box(source: TileSource, zooms: Sequence[int]) -> tuple[int, int, int, int] | None:
    """Return the box of the tiles of the coarsest of these zooms that lie within the bounds of all; None where there
    are none, or more tiles than an area may have."""
    bounds = [one for one in map(source.bounds, zooms) if one is not None]
    west, south = (max(one[side] for one in bounds) for side in (0, 1))
    east, north = (min(one[side] for one in bounds) for side in (2, 3))
    if len(bounds) < len(zooms) or west >= east or south >= north:
        return None
    span = _whole_tiles(zooms[0], (west, south, east, north))
    if span is None or (span := _reached(source, zooms[0], *span)) is None:
        return None
    box = _inside(bounds_of_tiles(zooms[0], *span))
    rows, columns = rows_and_columns(box, zooms[-1])
    return box if len(rows) * sum(map(len, columns)) <= MAX_AREA_TILES else None


def _whole_tiles(zoom: int, bounds: Bounds) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the first and last column and row of the tiles that lie in a box; None for none. An edge that is off by a
    rounding error lies on the edge of its tile."""
    west, south, east, north = (round(edge * _DEGREE) for edge in bounds)
    inner = (west + _INSIDE, south + _INSIDE, east - _INSIDE, north - _INSIDE)
    if inner[0] >= inner[2] or inner[1] >= inner[3]:
        return None
    rows, columns = rows_and_columns(inner, zoom)
    first, last, top, bottom = columns[0][0], columns[-1][-1], rows[0], rows[-1]
    edges = bounds_of_tiles(zoom, (first, last), (top, bottom))
    cut = [
        abs(round(edge * _DEGREE) - here) > _INSIDE
        for edge, here in zip(edges, (west, south, east, north), strict=True)
    ]
    first, last, top, bottom = first + cut[0], last - cut[2], top + cut[3], bottom - cut[1]
    return ((first, last), (top, bottom)) if first <= last and top <= bottom else None


def _reached(
    source: TileSource, zoom: int, columns: tuple[int, int], rows: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the columns and rows of tiles without those at the edge that do not lie in a raster, which may be turned:
    of the four edges the worst goes first."""
    left, right = columns
    top, bottom = rows
    if (right - left + 1) * (bottom - top + 1) > _REACHED:
        return columns, rows
    x, y = np.meshgrid(np.arange(left, right + 1), np.arange(top, bottom + 1))
    reach = source.reach(zoom, tile_ids(zoom, x.ravel(), y.ravel()))
    if reach is None:
        return columns, rows
    lacks = (reach != 2).reshape(x.shape)  # 2: all of the tile
    while lacks.size and lacks.any():
        edges = [lacks[0].mean(), lacks[-1].mean(), lacks[:, 0].mean(), lacks[:, -1].mean()]
        worst = int(np.argmax(edges))
        if not edges[worst]:
            break  # what is missing lies inside
        lacks = (lacks[1:], lacks[:-1], lacks[:, 1:], lacks[:, :-1])[worst]
        top, bottom = top + (worst == 0), bottom - (worst == 1)
        left, right = left + (worst == 2), right - (worst == 3)
    return ((left, right), (top, bottom)) if lacks.size else None


def _inside(bounds: Bounds) -> tuple[int, int, int, int]:
    west, south, east, north = (round(edge * _DEGREE) for edge in bounds)
    return west + _INSIDE, south + _INSIDE, east - _INSIDE, north - _INSIDE


def _first_tile(source: TileSource, zoom: int, box: tuple[int, int, int, int]) -> tuple[int, str]:
    """Return the pixels a side and the format of one tile of the box; (256, "") where none is found soon."""
    rows, columns = rows_and_columns(box, zoom)
    tiles = (Tile(zoom, x, y) for y in rows[::16] for span in columns for x in span[::16])
    for _, cell in zip(range(_CELLS), dict.fromkeys(map(cell_of, tiles)), strict=False):
        for _number, data in source.cell(cell, zoom):
            size = size_of(data)
            if size is not None and size[0] == size[1]:
                return size[0], format_of(data) or ""
    return _TILE_SIZE, ""


# -- the model


def ends_of(path: Path) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the inputs and outputs that the ONNX model at `path` declares. Raise Invalid for another file."""
    model = parse_onnx(read_regular(path, MAX_ONNX_BYTES, "model"), path.name)
    weights = {one.name for one in model.graph.initializer}
    inputs = tuple(_end(one) for one in model.graph.input if one.name not in weights)
    outputs = tuple(map(_end, model.graph.output))
    if max(len(inputs), len(outputs)) > _MAX_ENDS:
        raise Invalid(
            f"the model {path} has {len(inputs)} inputs and {len(outputs)} outputs, at most {_MAX_ENDS} are taken",
            remedy="export the network with the output that describes an image alone",
            path=str(path),
        )
    return inputs, outputs


def _end(value: Any) -> Tensor:
    from onnx import helper  # with the build extra only

    tensor = value.type.tensor_type
    try:
        dtype = str(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, TypeError, ValueError):
        dtype = "unknown"
    if not tensor.HasField("shape"):
        return Tensor(value.name[:255], dtype, (), -1)
    dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param[:64] for dim in tensor.shape.dim]
    shape = tuple(dim if isinstance(dim, str) or dim > 0 else "" for dim in dims)
    return Tensor(value.name[:255], dtype, shape, len(shape))
