"""The plan of QGroundControl (docs.qgroundcontrol.com, "Plan File Format"): `PlanFile`.

The area of a plan is its geofence (polygons and circles that include ground) or its surveys (Survey, StructureScan,
CorridorScan), its route all that its items fly from the home position on. Where it has both a fence and surveys, the
mission file says which is the area.

Law: whatever a plan has beside what is read is listed; an item whose way is not known is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from builders.areas.geometry import Geometry, GeometryFile, Home, value_text
from builders.areas.mavlink import Item, Items, Position, home_of, whole
from store.errors import either

FENCE, SURVEY = "geofence", "survey"
_SAVE_AGAIN = "open it in QGroundControl, and save it again"
_VERSIONS = {"mission": (2,), "geoFence": (1, 2)}
_APPROACHES = ("landingApproachCoordinate", "loiterCoordinate")  # of a landing pattern


class PlanFile(GeometryFile):
    """A parsed plan: `value` is what `geojson.parse_json` returned for it."""

    what = "QGroundControl plan"

    def __init__(self, path: Path, value: dict[str, Any]) -> None:
        super().__init__(path)
        self._value = value
        self._version(value, "version", (1,))
        self._mission = self._section("mission")
        self._fence = self._section("geoFence")
        items = self._list(self._mission.get("items", []), "mission.items")
        self._items = [self._table(one, f"mission.items[{i}]") for i, one in enumerate(items)]

    def shapes(self, kinds: tuple[str, ...], select: str | None) -> Iterator[Geometry]:
        if "Polygon" not in kinds:
            if select is not None:
                self.refuse("", "is a plan, which has one route", "leave out select")
            yield from self._route()
            return
        drawn = {FENCE: list(self._fences()), SURVEY: list(self._surveys())}
        if select is None:
            both = [name for name, geometries in drawn.items() if geometries]
            if len(both) > 1:
                self.refuse(
                    "",
                    "has a geofence and surveys, either of which may be the area",
                    f'add select = "{FENCE}" or select = "{SURVEY}" to the area',
                )
            select = both[0] if both else FENCE
        if select not in drawn:
            self.refuse("", f"has no {value_text(select)}", f'select "{FENCE}" or "{SURVEY}"')
        if points := self._table(self._value.get("rallyPoints", {}), "rallyPoints").get("points"):
            self.pass_over("rallyPoints", f"has {len(self._list(points, 'rallyPoints.points'))} points: passed over")
        yield from drawn[select]

    def home(self, select: str | None) -> Home:
        if select is not None:
            self.refuse("", "is a plan, which has one home position", "leave out select")
        place = "mission.plannedHomePosition"
        lat, lon, altitude, *_ = [*self._list(self._mission.get("plannedHomePosition") or [], place), None, None, None]
        return home_of(self, place, lat, lon, altitude)

    # -- the area

    def _fences(self) -> Iterator[Geometry]:
        if polygon := self._fence.get("polygon"):  # of version 1, which had one
            yield Geometry("geoFence.polygon", "Polygon", [self._closed(polygon, "geoFence.polygon")])
        for i, one in enumerate(self._list(self._fence.get("polygons", []), "geoFence.polygons")):
            place = f"geoFence.polygons[{i}]"
            if self._includes(self._table(one, place), place):
                yield Geometry(f"{place}.polygon", "Polygon", [self._closed(one.get("polygon"), f"{place}.polygon")])
        for i, one in enumerate(self._list(self._fence.get("circles", []), "geoFence.circles")):
            place = f"geoFence.circles[{i}]"
            if self._includes(self._table(one, place), place):
                circle = self._table(one.get("circle"), f"{place}.circle")
                centre = self._position(circle.get("center"), f"{place}.circle.center")
                metres = self._number(circle.get("radius"), f"{place}.circle.radius")
                yield Geometry(f"{place}.circle", "Circle", centre, metres=metres)

    def _includes(self, fence: dict[str, Any], place: str) -> bool:
        inclusion = fence.get("inclusion", True)
        if not isinstance(inclusion, bool):
            self.refuse(f"{place}.inclusion", f"is {value_text(inclusion)}, must be true or false", _SAVE_AGAIN)
        if not inclusion:
            self.pass_over(place, "excludes ground: passed over, the map shows it all the same")
        return inclusion

    def _surveys(self) -> Iterator[Geometry]:
        for i, item in enumerate(self._items):
            place, kind = f"mission.items[{i}]", item.get("complexItemType")
            if kind in ("survey", "StructureScan"):
                yield Geometry(f"{place}.polygon", "Polygon", [self._closed(item.get("polygon"), f"{place}.polygon")])
            elif kind == "CorridorScan":
                line = self._places(item.get("polyline"), f"{place}.polyline")
                width = self._number(item.get("CorridorWidth"), f"{place}.CorridorWidth")
                # QGroundControl draws no transect beside a line of no width.
                yield Geometry(f"{place}.polyline", "Strip", line, metres=max(width / 2, Decimal(1)))

    # -- the route

    def _route(self) -> Iterator[Geometry]:
        home: Position | None = None
        planned = self._mission.get("plannedHomePosition")
        if isinstance(planned, list) and len(planned) >= 2 and planned[:2] != [0, 0]:
            home = self._position(planned, "mission.plannedHomePosition")
        else:
            self.pass_over("mission.plannedHomePosition", "is not set: the corridor begins at the first item")
        simple: list[Item] = []
        legs: dict[int, list[Position]] = {}
        for i, item in enumerate(self._items):
            place = f"mission.items[{i}]"
            if item.get("type") == "SimpleItem":
                simple.append(self._simple(item, place))
            else:
                legs.setdefault(len(simple) - 1, []).extend(self._flown(item, place))
        if self._items:
            yield from Items(self, simple, home).route("mission.items", legs)

    def _simple(self, item: dict[str, Any], place: str) -> Item:
        parameters = self._list(item.get("params"), f"{place}.params")
        if len(parameters) != 7 or not all(isinstance(one, Decimal | None) for one in parameters):
            self.refuse(f"{place}.params", "must be seven numbers, or null", _SAVE_AGAIN)
        frame, command, number = (
            whole(self, f"{place}.{key}", item.get(key, absent), _SAVE_AGAIN)
            for key, absent in (("frame", None), ("command", None), ("doJumpId", Decimal(-1)))
        )
        return Item(place, number, frame, command, tuple(parameters))

    def _flown(self, item: dict[str, Any], place: str) -> list[Position]:
        """The places of a complex item, in the order of flight."""
        kind = item.get("complexItemType")
        if kind in ("survey", "CorridorScan"):
            key = "TransectStyleComplexItem"
            transects = self._table(item.get(key), f"{place}.{key}").get("VisualTransectPoints")
            return self._places(transects, f"{place}.{key}.VisualTransectPoints")
        if kind in ("fwLandingPattern", "vtolLandingPattern"):
            self.pass_over(place, "circles before it lands: the corridor follows the straight line")
            # Older plans have the one approach, newer ones the other.
            approach = _APPROACHES[0] if _APPROACHES[0] in item else _APPROACHES[1]
            return [self._position(item.get(key), f"{place}.{key}") for key in (approach, "landCoordinate")]
        raise self.error(
            place,
            f"is {value_text(kind or item.get('type'))}, whose way is not known",
            "draw the route as a line, in KML or GeoJSON, and give that as the corridor",
        )

    # -- values

    def _section(self, name: str) -> dict[str, Any]:
        table = self._table(self._value.get(name, {}), name)
        if table:
            self._version(table, f"{name}.version", _VERSIONS[name])
        return table

    def _version(self, table: dict[str, Any], place: str, known: tuple[int, ...]) -> None:
        if (version := table.get("version")) not in known:
            listed = either([str(one) for one in known])
            self.refuse(
                place, f"is {value_text(version)}, must be {listed}", "save it with QGroundControl 3.5 or later"
            )

    def _table(self, value: object, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.refuse(place, f"is {value_text(value)}, must be an object", _SAVE_AGAIN)
        return value

    def _list(self, value: object, place: str) -> list[Any]:
        if not isinstance(value, list):
            self.refuse(place, f"is {value_text(value)}, must be an array", _SAVE_AGAIN)
        return value

    def _number(self, value: object, place: str) -> Decimal:
        if not isinstance(value, Decimal):
            self.refuse(place, f"is {value_text(value)}, must be a number", _SAVE_AGAIN)
        return value

    def _position(self, value: object, place: str) -> Position:
        """[longitude, latitude] of a place, which a plan writes latitude first."""
        if not isinstance(value, list) or not 2 <= len(value) <= 3:
            self.refuse(place, f"is {value_text(value)}, must be [latitude, longitude]", _SAVE_AGAIN)
        return [self._number(value[1], place), self._number(value[0], place)]

    def _places(self, value: object, place: str) -> list[Position]:
        return [self._position(one, f"{place}[{i}]") for i, one in enumerate(self.array(value, place))]

    def _closed(self, value: object, place: str) -> list[Position]:
        """The positions of a ring, which a plan leaves open."""
        positions = self._places(value, place)
        return [*positions, positions[0]]
