"""The capture dates that the footprints of a mosaic's scenes give to tiles: `read_footprints`, `Footprints.captured`.

Laws: a tile is as old as the oldest scene whose interior its interior meets, and no newer than the default where the
scenes together do not cover it wholly; the order of the scenes changes nothing; the cost is that of the ids asked for.

Needs shapely, and raises Unavailable without it. Knows nothing of tile sources.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from builders.areas.covering import Ints, descend, expand, merged, shapes_of
from builders.areas.geojson import Document, cut, join, shown
from builders.grid.tiles import Tile, cell_range
from store.errors import Invalid
from store.format.area import Polygon

MAX_FOOTPRINTS = 4096
MAX_FOOTPRINT_POLYGONS = 1 << 14
FIRST_YEAR = 1900

_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
# The second 60 is a leap second; seconds change no day, and are not read.
_DATE_TIME = re.compile(
    rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})(?:[Tt ]({_CLOCK}):(?:[0-5][0-9]|60)(?:\.[0-9]+)?([Zz]|[+-]{_CLOCK}))?"
)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where a scene lies and when it was taken: `captured` in unix seconds at midnight UTC, polygons as an area's."""

    captured: int
    polygons: tuple[Polygon, ...]


@dataclass(frozen=True, slots=True)
class Footprints:
    """The scenes of a mosaic, in the order of their file. At least one."""

    footprints: tuple[Footprint, ...]

    def captured(self, zoom: int, ids: NDArray[np.uint64], default: int) -> Ints:
        """When each tile was taken (unix seconds, int64[n] in the order of `ids`): the oldest date that may be in it.

        That is the oldest of the footprints whose interior its interior meets. `default` is the date of what no
        footprint covers: it counts too unless the footprints together cover the tile wholly (gaps of 1e-7 degree, the
        rounding of the file, are none). Raises Invalid for ids that are not of the zoom.
        """
        wanted, place = np.unique(ids.astype(np.int64), return_inverse=True)
        first, last = cell_range(Tile(0, 0, 0), zoom)
        if wanted.size and not (first <= wanted[0] and wanted[-1] < last):
            raise Invalid(f"there are tile ids that are not of zoom {zoom}", zoom=zoom)
        polygons = [polygon for footprint in self.footprints for polygon in footprint.polygons]
        dates = np.repeat([f.captured for f in self.footprints], [len(f.polygons) for f in self.footprints])
        ranges = descend(polygons, zoom, wanted)
        start, stop = np.searchsorted(wanted, ranges.start), np.searchsorted(wanted, ranges.stop)
        covered = np.zeros(len(wanted), np.bool_)
        covered[expand(*merged(start[ranges.whole], stop[ranges.whole]))] = True
        met = np.zeros(len(wanted), np.bool_)
        taken = np.full(len(wanted), default, np.int64)
        for date in np.unique(dates)[::-1]:  # the newest first: an older one replaces it
            these = dates[ranges.of] == date
            here = expand(*merged(start[these], stop[these]))
            met[here] = True
            taken[here] = date
        seams = np.flatnonzero(met & ~covered)
        covered[seams[_covered_together(polygons, zoom, wanted[seams])]] = True
        partly = met & ~covered
        taken[partly] = np.minimum(taken[partly], default)
        return taken[place]


def read_footprints(path: Path) -> Footprints:
    """The footprints of a mosaic's scenes: features of Polygon or MultiPolygon with a property `datetime`.

    `datetime` is a date-time of RFC 3339, as in STAC, or a date; of it, the day in UTC counts. Raises as
    `read_geojson_area` does, and Invalid for a day that is missing or not in the years 1900 to 9999.
    """
    document = Document(path)
    footprints: dict[str, tuple[int, list[Polygon]]] = {}
    polygons = 0
    for found in document.geometries(("Polygon", "MultiPolygon")):
        if found.feature is None:
            document.wrong(found.where, "is in no Feature", "give features with a property datetime")
        where, properties = found.feature
        if where not in footprints:
            footprints[where] = _day(document, where, properties), []
        more = document.polygons(found)
        footprints[where][1].extend(more)
        polygons += len(more)
        if len(footprints) > MAX_FOOTPRINTS or polygons > MAX_FOOTPRINT_POLYGONS:
            document.wrong(
                where,
                f"is one too many: at most {MAX_FOOTPRINTS} footprints and {MAX_FOOTPRINT_POLYGONS} polygons are read",
                "divide the mosaic",
            )
    if not footprints:
        document.wrong("", "holds no footprint", "give a FeatureCollection of polygons")
    return Footprints(tuple(Footprint(day, tuple(parts)) for day, parts in footprints.values()))


def _day(document: Document, where: str, properties: object) -> int:
    """Midnight UTC, in unix seconds, of the day of the property `datetime`."""
    given = properties.get("datetime") if isinstance(properties, dict) else None
    match = _DATE_TIME.fullmatch(given) if isinstance(given, str) else None
    try:
        if match is None:
            raise ValueError
        date, clock, zone = match.groups()
        moment = datetime.datetime.fromisoformat(f"{date}T{clock or '00:00'}{(zone or 'Z').upper()}")
        day = moment.astimezone(datetime.UTC).date()
        if day.year < FIRST_YEAR:
            raise ValueError
    except (ValueError, OverflowError):
        document.wrong(
            join(where, "properties.datetime"),
            f"is {shown(given)}, must be a date-time of RFC 3339 or a date in the years {FIRST_YEAR} to 9999",
            "where STAC gives a range, give its start_datetime as datetime",
        )
    return (day.toordinal() - datetime.date(1970, 1, 1).toordinal()) * 86400


def _covered_together(polygons: Sequence[Polygon], zoom: int, wanted: Ints) -> Ints:
    """The places in `wanted`, ascending ids, of the tiles that the union of the polygons covers wholly."""
    if not wanted.size:
        return wanted
    ranges = descend(cut(shapes_of(polygons)), zoom, wanted)
    start, stop = np.searchsorted(wanted, ranges.start), np.searchsorted(wanted, ranges.stop)
    return expand(*merged(start[ranges.whole], stop[ranges.whole]))
