"""Capture dates of tiles from the footprints of the scenes of a mosaic: `read_footprints`, `Footprints.captured`.

Laws: a tile has the date of the oldest scene whose interior its interior meets, and no newer date than the default
unless the scenes together cover it wholly; the order of the scenes does not matter; the cost depends on the number of
ids in the call.

Needs shapely, and raises Unavailable without it. Tile sources are the subject of `sources`.
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
from builders.areas.geojson import GeoJsonFile
from builders.areas.geometry import cut_at_antimeridian, member_place, value_text
from builders.grid.tiles import Tile, cell_range
from store.errors import Invalid
from store.format.area import Polygon

MAX_FOOTPRINTS = 4096
MAX_FOOTPRINT_POLYGONS = 1 << 14
FIRST_YEAR = 1900

_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
# The second 60 is a leap second. Seconds do not change the day, so they are matched and not used.
_DATE_TIME = re.compile(
    rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})(?:[Tt ]({_CLOCK}):(?:[0-5][0-9]|60)(?:\.[0-9]+)?([Zz]|[+-]{_CLOCK}))?"
)


@dataclass(frozen=True, slots=True)
class Footprint:
    """The place and the date of a scene: polygons like those of an area; `captured` in unix seconds at midnight UTC."""

    captured: int
    polygons: tuple[Polygon, ...]


@dataclass(frozen=True, slots=True)
class Footprints:
    """The scenes of a mosaic, in the order of their file. At least one."""

    footprints: tuple[Footprint, ...]

    def captured(self, zoom: int, ids: NDArray[np.uint64], default: int) -> Ints:
        """The capture date of each tile, the oldest that it may have: unix seconds, int64[n] in the order of `ids`.

        This is the oldest date of the footprints whose interior its interior meets. `default` is the date of the ground
        that no footprint covers. It counts too unless the footprints together cover the tile wholly; gaps of 1e-7
        degree come from rounding in the file and are ignored. Raises Invalid for ids of another zoom.
        """
        wanted, place = np.unique(ids.astype(np.int64), return_inverse=True)
        first, last = cell_range(Tile(0, 0, 0), zoom)
        if wanted.size and not (first <= wanted[0] and wanted[-1] < last):
            raise Invalid(f"a tile id belongs to another zoom than {zoom}", zoom=zoom)
        polygons = [polygon for footprint in self.footprints for polygon in footprint.polygons]
        dates = np.repeat([f.captured for f in self.footprints], [len(f.polygons) for f in self.footprints])
        ranges = descend(polygons, zoom, wanted)
        start, stop = np.searchsorted(wanted, ranges.start), np.searchsorted(wanted, ranges.stop)
        covered = np.zeros(len(wanted), np.bool_)
        covered[expand(*merged(start[ranges.whole], stop[ranges.whole]))] = True
        met = np.zeros(len(wanted), np.bool_)
        taken = np.full(len(wanted), default, np.int64)
        for date in np.unique(dates)[::-1]:  # from the newest to the oldest: an older date replaces a newer one
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
    """The footprints of a GeoJSON file: features of Polygon or MultiPolygon with a property `datetime`.

    `datetime` is a date-time of RFC 3339, as in STAC, or a date. Its day in UTC counts. Raises the errors of
    `areas.drawing.read_area`, and Invalid for a day that is missing or not in the years 1900 to 9999.
    """
    file = GeoJsonFile.open(path)
    footprints: dict[str, tuple[int, list[Polygon]]] = {}
    polygons = 0
    for geometry in file.geometries(("Polygon", "MultiPolygon")):
        if geometry.feature is None:
            file.refuse(geometry.place, "is not part of a Feature", "give features with a property datetime")
        place, properties = geometry.feature
        if place not in footprints:
            footprints[place] = _day(file, place, properties), []
        more = file.polygons(geometry)
        footprints[place][1].extend(more)
        polygons += len(more)
        if len(footprints) > MAX_FOOTPRINTS or polygons > MAX_FOOTPRINT_POLYGONS:
            file.refuse(
                place,
                f"exceeds the limit of {MAX_FOOTPRINTS} footprints and {MAX_FOOTPRINT_POLYGONS} polygons",
                "divide the mosaic into several tile sources",
            )
    if not footprints:
        file.refuse("", "has no footprint", "give a FeatureCollection of polygons")
    return Footprints(tuple(Footprint(day, tuple(parts)) for day, parts in footprints.values()))


def _day(file: GeoJsonFile, place: str, properties: object) -> int:
    """Midnight UTC, in unix seconds, of the day of the property `datetime`."""
    value = properties.get("datetime") if isinstance(properties, dict) else None
    match = _DATE_TIME.fullmatch(value) if isinstance(value, str) else None
    try:
        if match is None:
            raise ValueError
        date, clock, zone = match.groups()
        moment = datetime.datetime.fromisoformat(f"{date}T{clock or '00:00'}{(zone or 'Z').upper()}")
        day = moment.astimezone(datetime.timezone.utc).date()
        if day.year < FIRST_YEAR:
            raise ValueError
    except (ValueError, OverflowError):
        file.refuse(
            member_place(place, "properties.datetime"),
            f"is {value_text(value)}, must be a date-time of RFC 3339 or a date in the years {FIRST_YEAR} to 9999",
            "give a date; if the STAC item has a range, give its start_datetime",
        )
    return (day.toordinal() - datetime.date(1970, 1, 1).toordinal()) * 86400


def _covered_together(polygons: Sequence[Polygon], zoom: int, wanted: Ints) -> Ints:
    """The indices into `wanted`, ascending ids, of the tiles that the union of the polygons covers wholly."""
    if not wanted.size:
        return wanted
    ranges = descend(cut_at_antimeridian(shapes_of(polygons)), zoom, wanted)
    start, stop = np.searchsorted(wanted, ranges.start), np.searchsorted(wanted, ranges.stop)
    return expand(*merged(start[ranges.whole], stop[ranges.whole]))
