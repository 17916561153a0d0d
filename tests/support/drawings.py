"""What people draw areas and routes in, written by hand: plans of QGroundControl, KML, KMZ, waypoint files.

The shapes follow the documents that the readers cite; `tests/builders/areas/test_drawing.py` reads files of the tools'
own libraries too.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from builders.areas.corridor import read_corridor
from builders.areas.drawing import open_drawing, read_area
from store.format.area import Area

# [latitude, longitude], as a plan has them.
LatLon = list[float]
HOME: list[Any] = [47.02, -99.16, 480]
RING: list[LatLon] = [[47.01, -99.17], [47.01, -99.15], [47.03, -99.15], [47.03, -99.17]]
ROUTE: list[LatLon] = [[47.012, -99.165], [47.025, -99.155], [47.028, -99.168]]


def area_in(path: Path, select: str | None = None) -> Area:
    return read_area(open_drawing(path), select)


def corridor_in(path: Path, width_m: Decimal | float, select: str | None = None) -> Area:
    return read_corridor(open_drawing(path), width_m, select)


def written(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def ring_e7(ring: Iterable[LatLon] = RING) -> tuple[int, ...]:
    """A ring of an area, of the positions of a plan."""
    return tuple(round(number * 10**7) for lat, lon in ring for number in (lon, lat))


def simple(command: int, *place: float | None, number: int = 1, first: Iterable[float | None] = ()) -> dict[str, Any]:
    """A simple item of a plan; `first` are its parameters 1 to 4, `place` latitude and longitude."""
    four = [*first, 0, 0, 0, None][:4]
    lat, lon = place or (0, 0)
    return {
        "AMSLAltAboveTerrain": None,
        "Altitude": 50,
        "AltitudeMode": 1,
        "autoContinue": True,
        "command": command,
        "doJumpId": number,
        "frame": 3,
        "params": [*four, lat, lon, 50],
        "type": "SimpleItem",
    }


def route(places: Iterable[LatLon] = ROUTE) -> list[dict[str, Any]]:
    """A takeoff, a waypoint at each place, and the way home."""
    items = [simple(22, number=1), *(simple(16, *place, number=n) for n, place in enumerate(places, 2))]
    return [*items, simple(20, number=len(items) + 1)]


def survey(ring: list[LatLon] = RING, transects: list[LatLon] = ROUTE) -> dict[str, Any]:
    return {
        "TransectStyleComplexItem": {"TurnAroundDistance": 10, "VisualTransectPoints": transects, "version": 2},
        "angle": 0,
        "complexItemType": "survey",
        "polygon": ring,
        "type": "ComplexItem",
        "version": 5,
    }


def corridor_scan(line: list[LatLon] = ROUTE, width: float = 200) -> dict[str, Any]:
    return {
        "CorridorWidth": width,
        "TransectStyleComplexItem": {"VisualTransectPoints": line, "version": 2},
        "complexItemType": "CorridorScan",
        "polyline": line,
        "type": "ComplexItem",
        "version": 2,
    }


def fence(ring: list[LatLon] = RING, *, inclusion: bool = True) -> dict[str, Any]:
    return {"inclusion": inclusion, "polygon": ring, "version": 1}


def circle(centre: LatLon, radius: float, *, inclusion: bool = True) -> dict[str, Any]:
    return {"circle": {"center": centre, "radius": radius}, "inclusion": inclusion, "version": 1}


def plan(
    *,
    polygons: Iterable[Any] = (),
    circles: Iterable[Any] = (),
    items: Iterable[Any] = (),
    home: Any = HOME,
    rally: Iterable[Any] = (),
    **changes: Any,
) -> str:
    """A plan, as QGroundControl saves it."""
    value = {
        "fileType": "Plan",
        "geoFence": {"circles": list(circles), "polygons": list(polygons), "version": 2},
        "groundStation": "QGroundControl",
        "mission": {
            "cruiseSpeed": 15,
            "firmwareType": 12,
            "globalPlanAltitudeMode": 1,
            "hoverSpeed": 5,
            "items": list(items),
            "plannedHomePosition": home,
            "vehicleType": 2,
            "version": 2,
        },
        "rallyPoints": {"points": list(rally), "version": 2},
        "version": 1,
        **changes,
    }
    return json.dumps(value, indent=4)


def coordinates(places: Iterable[LatLon]) -> str:
    return "<coordinates>" + " ".join(f"{lon},{lat},0" for lat, lon in places) + "</coordinates>"


def kml_polygon(ring: list[LatLon] = RING, *holes: list[LatLon]) -> str:
    inner = "".join(
        f"<innerBoundaryIs><LinearRing>{coordinates([*hole, hole[0]])}</LinearRing></innerBoundaryIs>" for hole in holes
    )
    outer = f"<outerBoundaryIs><LinearRing>{coordinates([*ring, ring[0]])}</LinearRing></outerBoundaryIs>"
    return f"<Polygon>{outer}{inner}</Polygon>"


def kml_line(places: Iterable[LatLon] = ROUTE) -> str:
    return f"<LineString>{coordinates(places)}</LineString>"


def kml_point(lat: float, lon: float, height: float | None = None) -> str:
    mode = "" if height is None else "<altitudeMode>absolute</altitudeMode>"
    return f"<Point>{mode}<coordinates>{lon},{lat}{'' if height is None else f',{height}'}</coordinates></Point>"


def placemark(geometry: str, name: str = "") -> str:
    return f"<Placemark>{f'<name>{name}</name>' if name else ''}{geometry}</Placemark>"


def kml(*placemarks: str, head: str = '<?xml version="1.0" encoding="UTF-8"?>\n') -> str:
    body = "\n".join(placemarks)
    return f'{head}<kml xmlns="http://www.opengis.net/kml/2.2"><Document><Folder>\n{body}\n</Folder></Document></kml>\n'


def kmz(**files: str | bytes) -> bytes:
    """A KMZ; an underscore in the name of a file stands for its dot."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("_", "."), data)
    return buffer.getvalue()


def waypoints(*items: tuple[float, ...], ending: str = "\r\n") -> str:
    """A waypoint file: (frame, command, parameters 1 to 7) of each item."""
    lines = ["QGC WPL 110"]
    for n, (frame, command, *parameters) in enumerate(items):
        numbers = [n, int(n == 0), frame, command, *(f"{number:.8f}" for number in parameters), 1]
        lines.append("\t".join(map(str, numbers)))
    return ending.join([*lines, ""])


def at(command: int, lat: float, lon: float, *, frame: int = 3, first: tuple[float, ...] = (0, 0, 0, 0)) -> Any:
    """An item of a waypoint file."""
    return (frame, command, *first, lat, lon, 50)
