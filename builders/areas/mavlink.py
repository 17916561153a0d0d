"""Mission items of MAVLink: the route that they fly, the fences that they draw, and the plain-text file of them.

`Items` knows what the commands mean (MAV_CMD, mavlink.io/en/messages/common.html), for a waypoint file and for a
QGroundControl plan alike. `WaypointFile` reads `QGC WPL 110` (mavlink.io/en/file_formats), which Mission Planner,
MAVProxy, pymavlink and QGroundControl write: its item 0 is the home position.

Law: a route has every leg that the items fly between places, also jumps back and the way home; an item whose way is not
known (a local frame, an unknown navigation command) is an error, never passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from builders.areas.geometry import MAX_POSITIONS, NUMBER, Geometry, GeometryFile, Home, value_text

# Altitude above sea level, above home, above the terrain; the last three are the same with integers.
GLOBAL_FRAMES = (0, 3, 10, 5, 6, 11)
_ABSOLUTE_FRAMES = (0, 5)
_WAYPOINT, _LOITERS, _SPLINE, _HOME, _JUMP = 16, (17, 18, 19, 31), 82, 20, 177
# Navigation commands (below 96) with a place: waypoints, loiter, land, take off, splines, VTOL, payload; and
# WAYPOINT_USER_1 to 5.
_PLACES = (_WAYPOINT, *_LOITERS, 21, 22, _SPLINE, 84, 85, 94, *range(31000, 31005))
# Without a way of their own: keep the course, regions of interest, path planning, altitude wait, delay.
_STANDING = (30, 80, 81, 83, 93)
_GUIDED, _SET_HOME, _REPOSITION, _JUMP_TO_TAG = 92, 179, 192, 601
_LAST_NAVIGATION = 95
_RADIUS_AT = {17: 2, 18: 2, 19: 2, 31: 1}
_RETURN, _INCLUSION, _EXCLUSION, _CIRCLE, _NO_CIRCLE, _RALLY = 5000, 5001, 5002, 5003, 5004, 5100
_DRAW_LINE = "draw the route as a line, in KML or GeoJSON, and give that as the corridor"
_FIELDS = 12

Position = list[Decimal]


@dataclass(frozen=True, slots=True)
class Item:
    """A mission item: its place in the file, its number there, MAV_FRAME, MAV_CMD, and seven parameters."""

    place: str
    number: int
    frame: int
    command: int
    parameters: tuple[Decimal | None, ...]

    @property
    def position(self) -> Position | None:
        """[longitude, latitude]; None where the item stands for the place where the aircraft is."""
        lat, lon = self.parameters[4:6]
        return None if lat is None or lon is None or lat == lon == 0 else [lon, lat]


def home_of(file: GeometryFile, place: str, lat: object, lon: object, altitude: object) -> Home:
    """Return the home position; refuse one that was never set."""
    if not (isinstance(lat, Decimal) and isinstance(lon, Decimal)) or lat == lon == 0:
        at = f"{value_text(lat)}, {value_text(lon)}"
        file.refuse(
            place,
            f"is the home position {at}: it was never set",
            "set home in the plan, or give takeoff = { lat = …, lon = …, alt_m = … }",
        )
    return Home(*file.point(Geometry(place, "Point", [lon, lat])), altitude if isinstance(altitude, Decimal) else None)


def whole(file: GeometryFile, place: str, number: object, remedy: str) -> int:
    """Return a whole number; refuse anything else."""
    if not isinstance(number, Decimal) or number != int(number):
        file.refuse(place, f"is {value_text(number)}, must be a whole number", remedy)
    return int(number)


class Items:
    """The items of a mission, in their order. `home` is where it begins, None where that is not known."""

    def __init__(self, file: GeometryFile, items: Sequence[Item], home: Position | None) -> None:
        self._file = file
        self._items = items
        self._home = home

    def route(self, place: str, legs: dict[int, list[Position]]) -> Iterator[Geometry]:
        """Yield the lines that are flown. `legs` are the positions of the things that are no simple item, by the number
        of the item that they follow (-1: before all)."""
        line: list[Position] = [] if self._home is None else [self._home]
        line += legs.get(-1, [])
        begins: dict[int, int] = {}  # by the number of an item: where its way begins in the line
        jumps: list[tuple[Item, Position]] = []
        times = Counter(item.number for item in self._items)
        for index, item in enumerate(self._items):
            self._require_known(item)
            begins[item.number] = len(line)
            if item.command in _PLACES:
                if item.position is not None:
                    line.append(item.position)
                self._note_curves(item)
            elif item.command == _HOME:
                if self._home is None:
                    self._file.refuse(item.place, "returns to a home position that the file does not have", _DRAW_LINE)
                line.append(self._home)
            elif item.command == _JUMP and line:
                jumps.append((item, line[-1]))
            elif item.command == _GUIDED:
                self._file.pass_over(item.place, "hands over to a companion computer: its way is not in the corridor")
            line += legs.get(index, [])
        if len({tuple(position) for position in line}) > 1:
            yield Geometry(place, "LineString", [*line])
        for item, start in jumps:
            # An item that only sets a speed leads to the next place.
            target = item.parameters[0]
            number = None if target is None or target != int(target) else int(target)
            if number is not None and times[number] > 1:
                what = f"jumps to the item {number}, and {times[number]} have that number"
                self._file.refuse(item.place, what, _DRAW_LINE)
            at = -1 if number is None else begins.get(number, -1)
            if not 0 <= at < len(line):
                self._file.refuse(item.place, f"jumps to the item {value_text(target)}, which has no place", _DRAW_LINE)
            if line[at] != start:
                yield Geometry(item.place, "LineString", [start, line[at]])

    def _require_known(self, item: Item) -> None:
        """Refuse an item whose way is not known."""
        if item.command in (_SET_HOME, _REPOSITION, _JUMP_TO_TAG):
            self._file.refuse(item.place, f"is the command {item.command}, which changes the way in flight", _DRAW_LINE)
        if item.command <= _LAST_NAVIGATION and item.command not in (*_PLACES, *_STANDING, _HOME, _GUIDED):
            self._file.refuse(
                item.place, f"is the navigation command {item.command}, whose way is not known", _DRAW_LINE
            )
        if item.command in _PLACES and item.position is not None and item.frame not in GLOBAL_FRAMES:
            self._file.refuse(item.place, f"is in the frame {item.frame}, which is not of the globe", _DRAW_LINE)

    def _note_curves(self, item: Item) -> None:
        if item.command == _SPLINE:
            self._file.pass_over(item.place, "is a spline: the corridor follows the straight line")
        radius = item.parameters[_RADIUS_AT[item.command]] if item.command in _RADIUS_AT else None
        if radius:
            self._file.pass_over(item.place, f"circles at {abs(radius)} m: the corridor follows the straight line")

    def fences(self) -> Iterator[Geometry]:
        """Yield the fences that include ground: polygons, whose vertices follow one another, and circles."""
        open_: list[Item] = []
        for item in self._items:
            if item.command == _INCLUSION:
                if open_ and open_[0].parameters[0] != item.parameters[0]:
                    self._file.refuse(item.place, "begins a fence before the last one is complete", _DRAW_FENCE)
                open_.append(item)
                if len(open_) == item.parameters[0]:
                    corners = [self._corner(one) for one in open_]
                    yield Geometry(open_[0].place, "Polygon", [[*corners, corners[0]]])
                    open_ = []
            elif item.command == _CIRCLE:
                metres = item.parameters[0]
                if metres is None:
                    self._file.refuse(item.place, "is a circle without a radius", _DRAW_FENCE)
                yield Geometry(item.place, "Circle", self._corner(item), metres=metres)
            elif item.command in (_EXCLUSION, _NO_CIRCLE):
                self._file.pass_over(item.place, "excludes ground: passed over, the map shows it all the same")
            elif item.command in (_RETURN, _RALLY):
                self._file.pass_over(item.place, "is a place to return to: passed over")
        if open_:
            self._file.refuse(open_[0].place, "begins a fence that lacks vertices", _DRAW_FENCE)

    def _corner(self, item: Item) -> Position:
        if item.position is None or item.frame not in GLOBAL_FRAMES:
            self._file.refuse(item.place, "is a fence without a place on the globe", _DRAW_FENCE)
        return item.position


_DRAW_FENCE = "draw the fence again, and save it"


class WaypointFile(GeometryFile):
    """A waypoint file: the line `QGC WPL 110`, then one line of twelve fields for each item."""

    what = "MAVLink waypoint"

    def __init__(self, path: Path, data: bytes) -> None:
        super().__init__(path)
        try:
            first, *lines = data.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            self.refuse("", f"is not UTF-8: {error.reason} at byte {error.start}", "save it as UTF-8")
        if first.split() not in (["QGC", "WPL", "110"], ["QGC", "WPL", "120"]):
            self.refuse("line 1", f"is {value_text(first)}, must be QGC WPL 110", "save it again as version 110")
        if len(lines) > MAX_POSITIONS:
            self.refuse("", f"has {len(lines)} lines, at most {MAX_POSITIONS} are read", "divide the mission")
        numbered = [(n, line.split()) for n, line in enumerate(lines, 2) if line.strip() and not line.startswith("#")]
        self._all = [self._item(f"line {n}", fields) for n, fields in numbered]

    def shapes(self, kinds: tuple[str, ...], select: str | None) -> Iterator[Geometry]:
        if select is not None:
            self.refuse("", "is a waypoint file, whose items have no names", "leave out select")
        if "Polygon" in kinds:
            yield from Items(self, self._all, None).fences()
        else:
            home = self._home_item()
            items = self._all if home is None else self._all[1:]
            yield from Items(self, items, None if home is None else home.position).route("the route", {})

    def home(self, select: str | None) -> Home:
        item = self._home_item()
        if item is None or select is not None:
            self.refuse(
                "",
                "has no home position: its item 0 is no waypoint with a height above sea level",
                "set home and save it again, or give takeoff = { lat = …, lon = …, alt_m = … }",
            )
        lat, lon, altitude = item.parameters[4:7]
        return home_of(self, item.place, lat, lon, altitude)

    def _home_item(self) -> Item | None:
        """Item 0, where it is the home position by its command and frame."""
        first = next(iter(self._all), None)
        if first and (first.number, first.command) == (0, _WAYPOINT) and first.frame in _ABSOLUTE_FRAMES:
            return first
        return None

    def _item(self, place: str, fields: list[str]) -> Item:
        numbers = [Decimal(text) if NUMBER.fullmatch(text) else None for text in fields]
        unread = (text for text, number in zip(fields, numbers, strict=True) if number is None)
        wrong = next((text for text in unread if text.lower() != "nan"), None)
        if len(fields) != _FIELDS or wrong is not None:
            what = f"has {len(fields)} fields" if wrong is None else f"has {value_text(wrong)} for a number"
            self.refuse(
                place, f"{what}, an item has {_FIELDS} numbers", "save the file again, with points for decimals"
            )
        number, _, frame, command = (
            whole(self, f"{place}, field {n}", one, "save the file again") for n, one in enumerate(numbers[:4], 1)
        )
        return Item(place, number, frame, command, tuple(numbers[4:11]))
