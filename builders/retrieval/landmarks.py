"""Landmarks: pictures with known places, which a search in the map must find there.

This is the only figure that sees a map in the wrong place. A map that is asked with its own tiles answers right also
where all of it is mirrored, or lies a kilometre beside the world. A landmark is a feature of a GeoJSON file: a Point,
and the properties `image` (the path of a picture from the folder of the file) and, where they are known, `metres` (the
ground that the longer side of the picture shows) and `heading` (the direction of its top).

A landmark is found if the centre of the view that the map answers first, of all zooms that its picture fills, lies
within the given distance of the point, measured over the ground. Landmarks are few by nature and each must be found, so
no least number of them is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from builders.activity import doing
from builders.areas.geojson import GeoJsonFile
from builders.areas.geometry import member_place, value_text
from builders.descriptors.photo import MAX_BYTES, decode_photo, size_of_photo
from builders.files import read_regular
from builders.grid.tiles import tile_from_id, tiles_of_bbox
from builders.onboard.camera import Camera, Ground
from builders.onboard.exact import NO_ROW
from builders.onboard.flying import FlyingEngine, engine_of, flying_engine, sets_of
from builders.onboard.layers import MapLayer
from builders.onboard.measurement import Measurement
from builders.onboard.retriever import Match, Retriever, described_views, located
from builders.recipe import RowRecipe
from store.errors import Corrupt, Invalid, Refused, Unavailable
from store.format.area import LON_MAX, Area
from store.format.cbor import Value, encode
from store.format.ids import BuildKey, derive
from store.format.manifest import PPM
from store.takeoff.fidelity import FIGURE_CONTEXT
from store.takeoff.mission import VerifiedMission
from store.takeoff.quality import LANDMARKS

SCHEMA = "flightbag/landmarks/1"
MAX_LANDMARKS = 256
LEAST_PPM = PPM  # each must be found
_LATITUDE_END = 850511287  # 1e-7 degree
_EARTH_RADIUS_M = 6371008.8  # the mean radius of WGS 84
_NONE = np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True)
class Landmark:
    """A picture and its place. `feature` is its place in the GeoJSON file, `digest` the BLAKE3 of the picture's bytes,
    `size` its sides in pixels; `lon` and `lat` are in 1e-7 degree."""

    feature: str
    path: Path
    digest: bytes
    size: tuple[int, int]
    lon: int
    lat: int
    camera: Camera

    def fields(self) -> list[Value]:
        """Return all that its figure depends on; millimetres and thousandths of a degree, empty where unknown."""
        facts = [self.camera.metres, self.camera.heading]
        return [self.digest, self.lon, self.lat, *([] if fact is None else [round(fact * 1000)] for fact in facts)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the map answers for a landmark: the best match, and the metres from the landmark to its centre."""

    landmark: Landmark
    match: Match
    metres: float

    def missed(self, within_m: float) -> str:
        """Return where the landmark was found instead, for people."""
        latitude, longitude = self.match.centre
        return (
            f"{self.landmark.path.name} ({self.landmark.feature}) was found at {latitude:.6f}, {longitude:.6f} "
            f"({self.match.tile}), {self.metres:.0f} m from its place, at most {within_m:g} m is allowed"
        )


@dataclass(frozen=True, slots=True)
class Landmarks:
    """The landmarks of a GeoJSON file, in its order, and the millimetres within which each must be found."""

    path: Path
    within_mm: int
    landmarks: tuple[Landmark, ...]

    @property
    def within_m(self) -> float:
        return self.within_mm / 1000

    def require_fit(self, area: Area, grounds: Sequence[Ground]) -> None:
        """Raise Invalid for a landmark that the map could not answer: outside the area, or with a picture that shows
        less ground than each of these rows; and for one that any answer would find."""
        west, south, east, north = (edge / 10**7 for edge in area.bbox)
        corners = [(latitude, longitude) for latitude in (south, north) for longitude in (west, east)]
        for one in self.landmarks:
            if not area.contains(one.lat, one.lon):
                raise self._error(
                    one,
                    f"is at latitude {one.lat / 10**7:g}, longitude {one.lon / 10**7:g}, outside the mission's area",
                    "leave the feature out; GeoJSON has the longitude first",
                )
            if abs(one.lat) >= _LATITUDE_END:
                raise self._error(one, "lies beyond the tiles of web maps, which end at 85.05 degrees", "leave it out")
            if not any(one.camera.fills(one.size, ground) for ground in grounds):
                with self._about(one):
                    one.camera.require_filled(one.size, min(grounds, key=lambda ground: ground.metres))
            place = one.lat / 10**7, one.lon / 10**7
            if (farthest := max(metres_between(place, corner) for corner in corners)) <= self.within_m:
                raise self._error(
                    one,
                    f"is found by any answer: all of the area lies within {farthest:.0f} m of it, and "
                    f"{self.within_m:g} m are allowed",
                    "allow fewer metres, such as the side of a view of the map",
                )

    def recipe(self, engine: BuildKey, rows: Sequence[RowRecipe]) -> bytes:
        """Return the digest of everything that the figure of a descriptor set depends on: `engine` is the build key of
        the engine that describes the pictures, `rows` the row recipe of each zoom."""
        value: dict[str, Value] = {
            "schema": SCHEMA,
            "engine": bytes(engine),
            "rows": [one.fields() for one in rows],
            "within": self.within_mm,
            "landmarks": [one.fields() for one in self.landmarks],
        }
        return derive(FIGURE_CONTEXT, encode(value))

    def ask(
        self,
        layers: Sequence[MapLayer],
        engine: FlyingEngine,
        latitude: float,
        progress: Callable[[int], None] | None = None,
    ) -> list[Answer]:
        """Return what the map answers for each landmark.

        `latitude` is the middle one of the mission's area, in degrees; `progress` gets the number of landmarks since
        its last call. Raises Invalid for a picture that cannot be read, or that shows less ground than a row of every
        zoom, Corrupt for one that changed since the file was read, Refused for a place that no row of the map shows.
        """
        grounds = [Ground.of(layer.recipe, layer.zoom, latitude) for layer in layers]
        # (number of the landmark, descriptor) by zoom: each layer is read once, and not for each landmark.
        asked: dict[int, list[tuple[int, NDArray[np.float32]]]] = {layer.zoom: [] for layer in layers}
        for number, one in enumerate(self.landmarks):
            with self._about(one):
                for ground, query in zip(
                    *described_views(engine, self._picture(one), one.camera, grounds), strict=True
                ):
                    asked[ground.zoom].append((number, query))
            if progress is not None:
                progress(1)
        matches: list[list[Match]] = [[] for _ in self.landmarks]
        seen: set[int] = set()
        for layer in layers:
            if not asked[layer.zoom]:
                continue
            origins = np.concatenate([_NONE, *(origins for origins, _ in layer.rows())])
            ids, scores = layer.search(np.stack([query for _, query in asked[layer.zoom]]), 1)
            for (number, _), id_, score in zip(
                asked[layer.zoom], ids[:, 0].tolist(), scores[:, 0].tolist(), strict=True
            ):
                if id_ != NO_ROW:
                    matches[number].append(located(tile_from_id(id_), layer.view, score))
                if np.isin(_views_of(layer, self.landmarks[number]), origins).any():
                    seen.add(number)
        answers = []
        for number, one in enumerate(self.landmarks):
            if number not in seen:
                raise self._error(
                    one,
                    "is where no row of the map shows the ground at a zoom that its picture fills",
                    "leave the feature out, or give a tile source that has its place",
                    Refused,
                )
            best = max(matches[number], key=lambda match: match.score)
            answers.append(Answer(one, best, metres_between((one.lat / 10**7, one.lon / 10**7), best.centre)))
        return answers

    def ppm(self, answers: Sequence[Answer]) -> int:
        """Return the share of landmarks that were found within the distance, in parts per million, rounded down."""
        return sum(one.metres <= self.within_m for one in answers) * PPM // len(answers)

    def missed(self, answers: Sequence[Answer]) -> tuple[str, ...]:
        """Return where each landmark was found that was not found within the distance, for people."""
        return tuple(one.missed(self.within_m) for one in answers if one.metres > self.within_m)

    def _picture(self, landmark: Landmark) -> NDArray[np.uint8]:
        data = read_regular(landmark.path, MAX_BYTES, "picture")
        if blake3(data).digest() != landmark.digest:
            raise Corrupt(
                f"the picture {landmark.path} of a landmark changed during the measurement",
                remedy="measure again when no program writes to it",
                path=str(landmark.path),
            )
        with doing(f"decoding the picture {landmark.path}"):
            return decode_photo(data)

    @contextmanager
    def _about(self, landmark: Landmark) -> Iterator[None]:
        """Name the file, the feature and the picture in every Invalid that the block raises."""
        try:
            yield
        except Invalid as error:
            raise self._error(landmark, f"({landmark.path}): {error.message}", error.remedy) from error

    def _error(
        self, landmark: Landmark, what: str, remedy: str, error: type[Invalid] | type[Refused] = Invalid
    ) -> Invalid | Refused:
        text = f"{self.path}: {landmark.feature} {what}"
        return error(text, remedy=remedy, kind="bad-landmark", path=str(self.path))


def figure_of(set_: str) -> str:
    """Return the name of the figure of a descriptor set in the manifest."""
    return f"{LANDMARKS}{set_}"


def read_landmarks(path: Path, within_mm: int) -> Landmarks:
    """Return the landmarks of a GeoJSON file, 1 to 256. Reads and hashes each picture, and decodes none.

    Raises Invalid, with file and feature, for anything but features of a Point with the property `image`, for `metres`
    and `heading` that are no numbers or out of range, for a picture that cannot be read, and for the same picture
    twice; Unavailable if the system cannot read a file.
    """
    file = GeoJsonFile.open(path)
    landmarks: dict[bytes, Landmark] = {}
    for geometry in file.geometries(("Point",)):
        if geometry.feature is None:
            file.refuse(geometry.place, "is not part of a Feature", "give features with a property image")
        feature, properties = geometry.feature
        facts = properties if isinstance(properties, dict) else {}
        place = member_place(feature, "properties")
        image = facts.get("image")
        if not isinstance(image, str) or not image or "\0" in image:
            file.refuse(f"{place}.image", f"is {value_text(image)}, must be the path of a picture", "give its path")
        picture = path.parent / image
        try:
            data = read_regular(picture, MAX_BYTES, "picture")
            size = size_of_photo(data)
        except (Invalid, Unavailable) as error:
            raise error.restated(f"{path}: {place}.image ({picture}): {error.message}", path=str(path)) from error
        lon, lat = file.point(geometry)
        landmark = Landmark(feature, picture, blake3(data).digest(), size, lon, lat, _camera(file, place, facts))
        if (other := landmarks.setdefault(landmark.digest, landmark)) is not landmark:
            file.refuse(f"{place}.image", f"is the picture of {other.feature}", "leave one of the two features out")
        if len(landmarks) > MAX_LANDMARKS:
            file.refuse(feature, f"is more than the {MAX_LANDMARKS} landmarks that are read", "leave some out")
    if not landmarks:
        file.refuse("", "has no landmark", "give a FeatureCollection of points with a property image")
    return Landmarks(path, within_mm, tuple(landmarks.values()))


def landmarks_of(path: Path | None, within_m: float | None) -> Landmarks | None:
    """Return the landmarks of the options of a command, None without any. Raises Invalid where one of the two is
    missing or the metres are not from 0.001 to 1,000,000, and as `read_landmarks` does."""
    if path is None and within_m is None:
        return None
    if path is None or within_m is None or not 0.001 <= within_m <= 10**6:
        raise Invalid(
            "landmarks need a GeoJSON file, and the metres within which each must be found",
            remedy="give --landmarks and --within, from 0.001 to 1000000, as quality.landmarks_within_m of the mission",
        )
    return read_landmarks(path, round(within_m * 1000))


def measure_landmarks(
    mission: VerifiedMission, landmarks: Landmarks | None, progress: Callable[[str, int, int], None]
) -> list[Measurement]:
    """Return how many landmarks are found in each descriptor set of a mission now; without landmarks, the signed
    figures without a value.

    `progress` gets (what, landmarks done now, number of landmarks). Raises as `Landmarks.require_fit` and `ask` do.
    """
    if landmarks is None:
        return [Measurement.unmeasured(one) for one in mission.manifest.quality if one.name.startswith(LANDMARKS)]
    figures = []
    for set_ in sets_of(mission):
        with Retriever(mission, set_) as retriever:
            landmarks.require_fit(mission.facts.area, retriever.grounds)
            recipe = retriever.layers[0].recipe
            key = engine_of(mission, set_, recipe).key
            assert key is not None  # an engine has a build key
            answers = landmarks.ask(
                retriever.layers,
                flying_engine(mission, set_),
                mission.facts.area.middle_latitude,
                lambda count: progress("landmarks", count, len(landmarks.landmarks)),
            )
            rows = tuple(layer.recipe for layer in retriever.layers)
            measured = Measurement.of(
                mission, figure_of(set_), landmarks.ppm(answers), landmarks.recipe(key, rows), {}, len(answers)
            )
            figures.append(replace(measured, missed=landmarks.missed(answers)))
    return figures


def _camera(file: GeoJsonFile, place: str, facts: dict[str, object]) -> Camera:
    numbers: dict[str, float | None] = {}
    for name in ("metres", "heading"):
        value = facts.get(name)
        if value is not None and not (isinstance(value, Decimal) and abs(value) <= 10**6):
            file.refuse(
                f"{place}.{name}", f"is {value_text(value)}, must be a number", "give a number, or leave it out"
            )
        # As the recipe has it: to a millimetre, and to a thousandth of a degree.
        numbers[name] = None if value is None else round(float(value) * 1000) / 1000
    try:
        return Camera(numbers["metres"], numbers["heading"])
    except Invalid as error:
        file.refuse(place, f"cannot be used: {error.message}", error.remedy)


def _views_of(layer: MapLayer, landmark: Landmark) -> NDArray[np.uint64]:
    """uint64[n]: the origins of the views that show a place."""
    lon = min(landmark.lon, LON_MAX - 1)
    tiles = tiles_of_bbox((lon, landmark.lat, lon + 1, landmark.lat + 1), layer.zoom)
    return layer.view.origins_over(layer.zoom, tiles)


def metres_between(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the metres over the ground between two places, (latitude, longitude) in degrees, on a sphere."""
    (north, east), (to_north, to_east) = (tuple(map(math.radians, place)) for place in (one, other))
    half = (
        math.sin((to_north - north) / 2) ** 2
        + math.cos(north) * math.cos(to_north) * math.sin((to_east - east) / 2) ** 2
    )
    return 2 * _EARTH_RADIUS_M * math.asin(math.sqrt(min(half, 1.0)))
