"""The order of the rows of a tile source: from the south (`tms`) or from the north (`xyz`). Pure.

The wrong order exchanges north and south: far from the equator every tile is absent, near it the map is wrong. MBTiles
1.3 prescribes `tms`, a folder z/x/y is `xyz` by custom, and both exist the other way round. The metadata may state a
`scheme`, but some tools mean the order in which they serve the tiles. So the order is decided by two witnesses that
agree, never by one.

1. The mission file or the command line names the order: that decides. If the bounds contradict it, it is an error.
2. Otherwise the claim is what the metadata state, else what the format prescribes. It holds if the rows agree with the
   bounds in the metadata in this order only. If they agree in the other order only, it is an error.
3. Bounds that fit both orders or neither (absent, the whole world, symmetric about the equator) are no evidence. Then
   the area of the mission is: the claim holds if tiles lie in the area in this order only; if in the other order only,
   it is an error. Somebody gave this source for this area; that it shows the mirrored place instead, with rows that
   happen to fit, is less likely than that it is what it was given for, and the claim has to agree.
4. Where neither decides it is an error, also where the metadata state what the format prescribes: those are two texts
   of one program, and no place. A source without a tile in the area in either order has nothing to decide: the claim
   holds.

The rows that count are those in the columns of the area, at the zooms that the mission uses. Every error names the key
that ends it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from builders.grid.tiles import rows_and_columns, rows_between
from store.errors import Invalid, either

if TYPE_CHECKING:
    from typing_extensions import Self

Scheme: TypeAlias = Literal["tms", "xyz"]
SCHEMES: Final[tuple[Scheme, Scheme]] = ("tms", "xyz")
_FROM: Final[dict[Scheme, str]] = {"tms": "from the south (tms)", "xyz": "from the north (xyz)"}
_DEGREE = 10**7
# Tools round bounds, and pad them to whole tiles.
_MARGIN = 1


class SourcePath(NamedTuple):
    """The path of a tile source, and the order of its rows where somebody named it."""

    path: Path
    scheme: Scheme | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The source that a command line names: PATH, tms:PATH or xyz:PATH."""
        for scheme in SCHEMES:
            if text.startswith(f"{scheme}:"):
                return cls(Path(text[len(scheme) + 1 :]), scheme)
        return cls(Path(text))


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a mission looks for tiles: a box (west, south, east, north in 1e-7 degree) at some zooms."""

    bbox: tuple[int, int, int, int]
    zooms: tuple[int, ...]

    def columns(self, zoom: int) -> list[range]:
        """The columns of the box at a zoom: two ranges if it crosses the antimeridian."""
        return rows_and_columns(self.bbox, zoom)[1]

    def rows(self, zoom: int, scheme: Scheme) -> range:
        """The rows of the box at a zoom, as a source of this order numbers them."""
        rows = rows_and_columns(self.bbox, zoom)[0]
        last = (1 << zoom) - 1
        return rows if scheme == "xyz" else range(last - rows[-1], last - rows[0] + 1)


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The rows of the tiles of one zoom in the columns of an area, as the source numbers them: the lowest and the
    highest, and how many tiles lie in the area if rows count from the south (`tms`) and from the north (`xyz`)."""

    zoom: int
    lowest: int
    highest: int
    tms: int
    xyz: int

    def count(self, scheme: Scheme) -> int:
        return self.tms if scheme == "tms" else self.xyz

    def from_north(self, scheme: Scheme) -> tuple[int, int]:
        """(first, last) row counted from the north, if the source has this order."""
        last = (1 << self.zoom) - 1
        return (self.lowest, self.highest) if scheme == "xyz" else (last - self.highest, last - self.lowest)


@dataclass(frozen=True, slots=True)
class Claims:
    """What the metadata of a source claim: a `scheme`, "" for none, and bounds (south, north in degrees)."""

    scheme: str = ""
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class RowOrder:
    """The order of the rows of a source. `tiles` of it lie in the box of the area; `flipped` would in the other
    order."""

    scheme: Scheme
    tiles: int
    flipped: int

    def hint(self, path: Path) -> str:
        """What to say of a source where most tiles of the area are absent; "" unless more are there flipped."""
        if self.flipped <= self.tiles:
            return ""
        scheme = other(self.scheme)
        return (
            f"{self.flipped} tiles of {path} lie in the area if its rows count {_FROM[scheme]}, {self.tiles} as it is "
            f'read: check the signs of the latitudes of the area, or set tiles[].scheme = "{scheme}"'
        )


def other(scheme: Scheme) -> Scheme:
    return "xyz" if scheme == "tms" else "tms"


def bounds_of(numbers: Sequence[float]) -> tuple[float, float] | None:
    """(south, north) of bounds west, south, east, north in degrees; None if they are none."""
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        return None
    _, south, _, north = numbers
    return (south, north) if -90 <= south < north <= 90 else None


def row_order(
    path: Path, prescribed: Scheme, claims: Claims, rows: Sequence[StoredRows], named: Scheme | None
) -> RowOrder:
    """The order of the rows of the source at `path`, whose format prescribes one.

    `named` is what the mission file or the command line says. Raises Invalid, of the kind `row-order`, for a
    contradiction and where nothing decides.
    """
    by_bounds = _by_bounds(rows, *claims.bounds) if claims.bounds is not None else None
    if named is not None:
        if by_bounds == other(named):
            raise _wrong(
                path,
                f'scheme = "{named}" counts its rows {_FROM[named]}, but they lie within the bounds of its metadata '
                f"only {_FROM[by_bounds]}",
                f'set scheme = "{by_bounds}", or leave it out; correct the bounds in its metadata if they are wrong',
            )
        return _order(named, rows)
    stated = claims.scheme.strip().lower()
    claim: Scheme = "tms" if stated == "tms" else "xyz" if stated == "xyz" else prescribed
    if stated not in ("", *SCHEMES):
        raise _wrong(path, f"the scheme in its metadata is {stated[:40]!r}, must be tms or xyz", _named_by(claim))
    by = "its metadata" if stated else "its format"
    if by_bounds == other(claim):
        raise _wrong(
            path,
            f"by {by} its rows count {_FROM[claim]}, but they lie within the bounds of its metadata only "
            f"{_FROM[by_bounds]}",
            f"{_named_by(by_bounds)} if the bounds are right; otherwise correct them",
        )
    fits_area = _fitting_the_area(rows)
    if not fits_area and by_bounds is None:
        raise _wrong(
            path,
            f"its tiles lie in the area only {_FROM['tms']} at one zoom and only {_FROM['xyz']} at another",
            f"make the source anew with one order for all zooms; otherwise {_named_by(*SCHEMES)}",
        )
    by_area = fits_area[0] if len(fits_area) == 1 else None
    if by_bounds is None and by_area == other(claim):
        raise _wrong(
            path,
            f"by {by} its rows count {_FROM[claim]}, but its tiles lie in the area only {_FROM[by_area]}",
            f"check the signs of the latitudes of the area; {_named_by(by_area)} if they are right",
        )
    proven = claim in (by_bounds, by_area)
    if not proven and any(one.tms or one.xyz for one in rows):
        says = f"its metadata say {stated}, its format {prescribed}" if stated else "its metadata do not say"
        raise _wrong(
            path,
            "whether its rows count from the south (tms) or from the north (xyz) cannot be decided: "
            f"{says}, and both fit the area{'' if claims.bounds is None else ' and its bounds'}",
            _named_by(*SCHEMES),
        )
    return _order(claim, rows)


def _order(scheme: Scheme, rows: Sequence[StoredRows]) -> RowOrder:
    flipped = other(scheme)
    return RowOrder(scheme, sum(one.count(scheme) for one in rows), sum(one.count(flipped) for one in rows))


def _by_bounds(rows: Sequence[StoredRows], south: float, north: float) -> Scheme | None:
    """The only order in which all rows lie within bounds; failing that, the only one in which some of each zoom do."""
    within, overlapping = set(SCHEMES), set(SCHEMES)
    for one in rows:
        inside = rows_between(round(south * _DEGREE), round(north * _DEGREE), one.zoom)
        for scheme in SCHEMES:
            first, last = one.from_north(scheme)
            if not inside[0] - _MARGIN <= first <= last <= inside[-1] + _MARGIN:
                within.discard(scheme)
            if last < inside[0] - _MARGIN or first > inside[-1] + _MARGIN:
                overlapping.discard(scheme)
    fitting = within or overlapping
    return fitting.pop() if len(fitting) == 1 else None


def _fitting_the_area(rows: Sequence[StoredRows]) -> list[Scheme]:
    """The orders in which the area has tiles at each zoom that has any in either order."""
    return [
        scheme for scheme in SCHEMES if not any(one.count(scheme) == 0 and one.count(other(scheme)) > 0 for one in rows)
    ]


def _named_by(*schemes: Scheme) -> str:
    keys = either([f'"{scheme}"' for scheme in schemes])
    paths = either([f"{scheme}:PATH" for scheme in schemes])
    return (
        f"compare a tile with a map, then set scheme = {keys} in its [[tiles]] (against_scheme in [quality]), "
        f"or give {paths} to a command"
    )


def _wrong(path: Path, what: str, remedy: str) -> Invalid:
    return Invalid(f"tile source {path}: {what}", remedy=remedy, kind="row-order", path=str(path))
