"""The manifest (FORMAT.md 4.2): the signed header of one mission. Its payload as a value, and as canonical bytes.

A manifest states who flies where and when, on which hardware, over which map, and commits to every artifact through the
Merkle root. This module knows neither signatures (`cose`) nor who may sign (`store.trust`), and reads no clock.

Law: `Manifest.parse(m.render()) == m`, and only canonical bytes of a valid manifest parse.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

from store.errors import Corrupt
from store.format.area import LAT_MAX, LON_MAX, Area
from store.format.cbor import (
    INT_MAX,
    Fields,
    Value,
    ascending,
    decode,
    encode,
    encode_array,
    encode_bytes,
    encode_text,
    integers,
)
from store.format.cose import OVERHEAD_LIMIT
from store.format.entries import MAX_ENTRIES, SEGMENT, TABLE_LIMIT, EntryTable
from store.format.host import objection
from store.format.ids import ObjectId, derive
from store.values import dataclass

CONTENT_TYPE = "application/vnd.flightbag.manifest+cbor"
AAD_LABEL = "flightbag/manifest/1"
PAYLOAD_LIMIT = 64 * 2**10
# Bytes of a manifest or a release with its signatures.
ENVELOPE_LIMIT = PAYLOAD_LIMIT + OVERHEAD_LIMIT
VERSION = 1

MISSION_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
MISSION_ID_REMEDY = "give 1 to 64 characters out of a-z 0-9 -, a letter or digit first"
FLIGHT_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
AIRCRAFT_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
FIGURE = re.compile(r"[a-z0-9][a-z0-9./@_-]{0,127}")
SECTORS = ("stable_rear", "active_conflict")
MAX_ZOOM = 24
# The last second of the year 9999 in unix seconds: a later time cannot be printed as a date.
TIME_MAX = 253402300799
PPM = 1_000_000
SECONDS_A_DAY = 86400
# The seconds by which two clocks may differ (FORMAT.md 7.1). A time that is more than this ahead is refused.
SKEW = SECONDS_A_DAY
MAX_FIGURES = 256
MAX_HOSTS = 16
MAX_QUERIES = 2**40
# Before the name of a descriptor set: the figure that the engine of the set equals its rows.
FIDELITY = "fidelity/"
IDENTITY_CONTEXT = "flightbag 2026 mission identity v1"


@dataclass(frozen=True, slots=True)
class Takeoff:
    """The takeoff origin: latitude and longitude in 1e-7 degree, altitude in millimetres."""

    lat: int
    lon: int
    alt: int


@dataclass(frozen=True, slots=True)
class MissionFacts:
    """The flight: ids of mission, flight and aircraft, the takeoff origin, the area, the sector classification.

    `takeoff_outside` says that the takeoff is outside the area, where the map shows nothing, and that the planner
    allowed that.
    """

    id: str
    flight: str
    aircraft: tuple[str, ...]
    takeoff: Takeoff
    area: Area
    sector: str
    takeoff_outside: bool = False

    def value(self) -> dict[str, Value]:
        """Return the map as it is encoded in the payload."""
        value: dict[str, Value] = {
            "id": self.id,
            "flight": self.flight,
            "aircraft": list(self.aircraft),
            "takeoff": [self.takeoff.lat, self.takeoff.lon, self.takeoff.alt],
            "area": self.area.value(),
            "sector": self.sector,
        }
        if self.takeoff_outside:
            value["takeoff_outside"] = 1
        return value

    @classmethod
    def parse(cls, fields: Fields) -> MissionFacts:
        """Return the facts of a decoded map. Raises Corrupt (kind bad-field or bad-order) for any other map."""
        aircraft = fields.array("aircraft", 1, 64)
        for item in aircraft:
            if type(item) is not str or not AIRCRAFT_ID.fullmatch(item):
                raise Corrupt(
                    "mission.aircraft holds something else than aircraft ids",
                    kind="bad-field",
                    field="mission.aircraft",
                )
        ascending(aircraft, "mission.aircraft")
        takeoff = fields.array("takeoff", 3, 3)
        lat, lon, alt = integers(takeoff, -LON_MAX, LON_MAX, "mission.takeoff")
        if abs(lat) > LAT_MAX:
            raise Corrupt("mission.takeoff has a latitude beyond a pole", kind="bad-field", field="mission.takeoff")
        facts = cls(
            id=fields.text("id", MISSION_ID),
            flight=fields.text("flight", FLIGHT_ID),
            aircraft=tuple(aircraft),
            takeoff=Takeoff(lat, lon, alt),
            area=Area.parse(fields.fields("area")),
            sector=fields.choice("sector", SECTORS),
            takeoff_outside="takeoff_outside" in fields and fields.integer("takeoff_outside", 1, 1) == 1,
        )
        fields.end()
        if facts.takeoff_outside and facts.area.contains(lat, lon):
            raise Corrupt(
                "mission.takeoff_outside is set, and the takeoff is inside the area",
                kind="bad-field",
                field="mission.takeoff_outside",
            )
        return facts


@dataclass(frozen=True, slots=True)
class Issue:
    """When and under which trust root a manifest was issued, and when it may fly.

    Times are unix seconds. `valid_from` is the first second of its validity, None where it is valid at once;
    `expires_at` the last one, None where it never expires. `previous` is the manifest before.
    """

    epoch: int
    sequence: int
    issued_at: int
    min_root_version: int
    valid_from: int | None = None
    expires_at: int | None = None
    previous: ObjectId | None = None

    @property
    def order(self) -> tuple[int, int]:
        """The key that orders the manifests of a mission, the newest last: the epoch, then the sequence."""
        return self.epoch, self.sequence

    def value(self) -> dict[str, Value]:
        """Return the map as it is encoded in the payload."""
        value: dict[str, Value] = {
            "epoch": self.epoch,
            "sequence": self.sequence,
            "issued_at": self.issued_at,
            "min_root_version": self.min_root_version,
        }
        if self.valid_from is not None:
            value["valid_from"] = self.valid_from
        if self.expires_at is not None:
            value["expires_at"] = self.expires_at
        if self.previous is not None:
            value["previous"] = bytes(self.previous)
        return value

    @classmethod
    def parse(cls, fields: Fields) -> Issue:
        """Return the issue of a decoded map. Raises Corrupt (kind bad-field or bad-order) for any other map."""
        issue = cls(
            epoch=fields.integer("epoch", 1, INT_MAX),
            sequence=fields.integer("sequence", 1, INT_MAX),
            issued_at=fields.integer("issued_at", 0, TIME_MAX),
            min_root_version=fields.integer("min_root_version", 1, INT_MAX),
            valid_from=fields.integer("valid_from", 0, TIME_MAX) if "valid_from" in fields else None,
            expires_at=fields.integer("expires_at", 0, TIME_MAX) if "expires_at" in fields else None,
            previous=ObjectId(fields.binary("previous", 32)) if "previous" in fields else None,
        )
        fields.end()
        if issue.expires_at is not None and issue.expires_at < max(issue.issued_at, issue.valid_from or 0):
            raise Corrupt(
                "issue.expires_at is before issue.issued_at or issue.valid_from",
                kind="bad-field",
                field="issue.expires_at",
            )
        return issue


def utc(seconds: int) -> str:
    """Return unix seconds as a time in UTC, to the second, also those that no calendar has."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"


def earliest_capture(max_age_days: int, at: int) -> int:
    """Return the earliest capture date of imagery that is at most so many days old at a time, in unix seconds."""
    return at - max_age_days * SECONDS_A_DAY


def age_in_days(captured: int, at: int) -> int:
    """Return the age of imagery at a time, in days; a day that has begun counts as a whole one."""
    return -((captured - at) // SECONDS_A_DAY)


@dataclass(frozen=True, slots=True)
class Coverage:
    """The coverage of the area: how much of it the map describes (decision 0012).

    `digest` is over every tile of the area (FORMAT.md 6.2). `tiles` counts these tiles, `missing` those of them that
    are not described. `required_ppm` is the policy: the least fraction of described tiles in parts per million.
    `oldest` and `newest` are capture dates, each as the unix seconds of its midnight UTC. `max_age_days` and
    `min_resolution_mm` are the gates that the imagery passed, None where the mission sets none. `repeated` counts the
    described tiles that show the same as another tile of the area, which the mission allows; None where no described
    tile does.
    """

    digest: bytes
    tiles: int
    missing: int
    required_ppm: int
    zooms: tuple[int, ...]
    oldest: int
    newest: int
    max_age_days: int | None = None
    min_resolution_mm: int | None = None
    repeated: int | None = None

    @property
    def ages(self) -> bool:
        """Whether the map can become too old: the mission sets a limit, and describes a tile."""
        return self.max_age_days is not None and self.missing < self.tiles

    def too_old_at(self, at: int) -> bool:
        """Whether the oldest described tile is older than the mission allows, at a time in unix seconds."""
        return self.ages and self.oldest < earliest_capture(self.max_age_days or 0, at)

    def age_days_at(self, at: int) -> int | None:
        """Return the age of the oldest described tile at a time, in days; None where no tile is described."""
        return None if self.missing == self.tiles else age_in_days(self.oldest, at)

    def value(self) -> dict[str, Value]:
        """Return the map as it is encoded in the payload."""
        value: dict[str, Value] = {
            "digest": self.digest,
            "tiles": self.tiles,
            "missing": self.missing,
            "required_ppm": self.required_ppm,
            "zooms": list(self.zooms),
            "oldest": self.oldest,
            "newest": self.newest,
        }
        if self.max_age_days is not None:
            value["max_age_days"] = self.max_age_days
        if self.min_resolution_mm is not None:
            value["min_resolution_mm"] = self.min_resolution_mm
        if self.repeated is not None:
            value["repeated"] = self.repeated
        return value

    @classmethod
    def parse(cls, fields: Fields) -> Coverage:
        """Return the coverage of a decoded map. Raises Corrupt (kind bad-field or bad-order) for any other map."""
        zooms = fields.array("zooms", 1, MAX_ZOOM + 1)
        coverage = cls(
            digest=fields.binary("digest", 32),
            tiles=fields.integer("tiles", 1, 2**40),
            missing=fields.integer("missing", 0, 2**40),
            required_ppm=fields.integer("required_ppm", 0, PPM),
            zooms=integers(zooms, 0, MAX_ZOOM, "coverage.zooms"),
            # Imagery may be older than 1970.
            oldest=fields.integer("oldest", -TIME_MAX, TIME_MAX),
            newest=fields.integer("newest", -TIME_MAX, TIME_MAX),
            max_age_days=fields.integer("max_age_days", 0, 10**6) if "max_age_days" in fields else None,
            min_resolution_mm=(
                fields.integer("min_resolution_mm", 1, 10**9) if "min_resolution_mm" in fields else None
            ),
            repeated=fields.integer("repeated", 1, 2**40) if "repeated" in fields else None,
        )
        fields.end()
        ascending(coverage.zooms, "coverage.zooms")
        for name, date in (("oldest", coverage.oldest), ("newest", coverage.newest)):
            if date % SECONDS_A_DAY:
                raise Corrupt(f"coverage.{name} is not midnight UTC", kind="bad-field", field=f"coverage.{name}")
        if coverage.oldest > coverage.newest:
            raise Corrupt("coverage.oldest is after coverage.newest", kind="bad-field", field="coverage.oldest")
        if (coverage.tiles - coverage.missing) * PPM < coverage.required_ppm * coverage.tiles:
            raise Corrupt(
                f"coverage.missing is {coverage.missing} of {coverage.tiles} tiles, more than required_ppm allows",
                kind="bad-field",
                field="coverage.missing",
            )
        if (coverage.repeated or 0) > coverage.tiles - coverage.missing:
            raise Corrupt(
                f"coverage.repeated is {coverage.repeated}, more than the tiles that are described",
                kind="bad-field",
                field="coverage.repeated",
            )
        return coverage


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of quality that gated the build (FORMAT.md 6.7).

    `value` is at least `least`, both in parts per million (0 to 1,000,000); `queries` is the number of queries that it
    rests on; `recipe` is the digest, 32 bytes, of how it was measured.
    """

    name: str
    value: int
    least: int
    queries: int
    recipe: bytes

    def as_value(self) -> Value:
        """Return the array as it is encoded in the payload."""
        return [self.name, self.value, self.least, self.queries, self.recipe]

    @classmethod
    def parse(cls, item: object) -> Figure:
        """Return the figure of a decoded value. Raises Corrupt (kind bad-field) for any other value."""
        if type(item) is not list or [type(part) for part in item] != [str, int, int, int, bytes]:
            raise Corrupt(
                "a figure of quality is not [name, value, least, queries, recipe]", kind="bad-field", field="quality"
            )
        name, value, least, queries, recipe = item
        counted = 1 <= queries <= MAX_QUERIES
        if not FIGURE.fullmatch(name) or len(recipe) != 32 or not 0 <= least <= value <= PPM or not counted:
            raise Corrupt(f"the figure of quality {name[:128]!r} is not valid", kind="bad-field", field="quality")
        return cls(name, value, least, queries, recipe)


@dataclass(frozen=True, slots=True)
class Unproven:
    """A figure of fidelity that the builder could not measure: each aircraft has to prove it (FORMAT.md 10.5).

    `least` is in parts per million, `recipe` the digest, 32 bytes, of how it is measured.
    """

    name: str
    least: int
    recipe: bytes

    @property
    def set(self) -> str:
        """The name of its descriptor set."""
        return self.name.removeprefix(FIDELITY)

    def as_value(self) -> Value:
        """Return the array as it is encoded in the payload."""
        return [self.name, self.least, self.recipe]

    @classmethod
    def parse(cls, item: object) -> Unproven:
        """Return the figure of a decoded value. Raises Corrupt (kind bad-field) for any other value."""
        if type(item) is not list or [type(part) for part in item] != [str, int, bytes]:
            raise Corrupt("an unproven figure is not [figure, least, recipe]", kind="bad-field", field="unproven")
        one = cls(*item)
        named = one.name.startswith(FIDELITY) and SEGMENT.fullmatch(one.set) is not None
        if not named or len(one.recipe) != 32 or not 0 <= one.least <= PPM:
            raise Corrupt(f"the unproven figure {one.name[:128]!r} is not valid", kind="bad-field", field="unproven")
        return one


@dataclass(frozen=True, slots=True)
class Manifest:
    """The payload of a manifest.

    `table` and `table_size` are the object id and the size in bytes of the entry table, `count` is the number of its
    entries, `merkle_root` their Merkle root. `releases` are the object ids of releases, `identity` is that of FORMAT
    4.4. `hosts` are the host classes of the aircraft that it is for, `unproven` the figures
    that each aircraft has to prove.
    """

    mission: MissionFacts
    issue: Issue
    hosts: tuple[str, ...]
    coverage: Coverage
    quality: tuple[Figure, ...]
    releases: tuple[ObjectId, ...]
    count: int
    merkle_root: bytes
    table: ObjectId
    table_size: int
    identity: bytes
    unproven: tuple[Unproven, ...] = ()

    def render(self) -> bytes:
        """Return the canonical payload. Raises Corrupt where the value breaks a rule of the format."""
        value: dict[str, Value] = {
            "version": VERSION,
            "mission": self.mission.value(),
            "issue": self.issue.value(),
            "hosts": list(self.hosts),
            "coverage": self.coverage.value(),
            "quality": [figure.as_value() for figure in self.quality],
            "releases": [bytes(release) for release in self.releases],
            "count": self.count,
            "root": self.merkle_root,
            "table": [bytes(self.table), self.table_size],
            "identity": self.identity,
        }
        if self.unproven:
            value["unproven"] = [figure.as_value() for figure in self.unproven]
        data = encode(value)
        # Writer and reader share one set of rules: nobody signs a payload that a verifier would refuse.
        self.parse(data)
        return data

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Return the manifest of a canonical payload; raises Corrupt for any other bytes."""
        fields = Fields(decode(data, limit=PAYLOAD_LIMIT, what="the manifest"), "manifest")
        fields.integer("version", VERSION, VERSION)
        table = fields.array("table", 2, 2)
        if type(table[0]) is not bytes or len(table[0]) != 32:
            raise Corrupt("manifest.table is not [object id, size]", kind="bad-field", field="manifest.table")
        (table_size,) = integers(table[1:], 1, TABLE_LIMIT, "manifest.table")
        manifest = cls(
            mission=MissionFacts.parse(fields.fields("mission")),
            issue=Issue.parse(fields.fields("issue")),
            hosts=_hosts(fields.array("hosts", 1, MAX_HOSTS)),
            coverage=Coverage.parse(fields.fields("coverage")),
            quality=tuple(Figure.parse(item) for item in fields.array("quality", 0, MAX_FIGURES)),
            releases=tuple(_id(item) for item in fields.array("releases", 0, 64)),
            count=fields.integer("count", 1, MAX_ENTRIES),
            merkle_root=fields.binary("root", 32),
            table=ObjectId(table[0]),
            table_size=table_size,
            identity=fields.binary("identity", 32),
            unproven=(
                tuple(Unproven.parse(item) for item in fields.array("unproven", 1, MAX_FIGURES))
                if "unproven" in fields
                else ()
            ),
        )
        fields.end()
        coverage, issued_at = manifest.coverage, manifest.issue.issued_at
        if coverage.too_old_at(issued_at):
            raise Corrupt(
                f"the oldest imagery was {age_in_days(coverage.oldest, issued_at)} days old when the mission was "
                f"issued, at most {coverage.max_age_days} are allowed",
                kind="bad-field",
                field="coverage.oldest",
            )
        ascending([(figure.name, figure.recipe) for figure in manifest.quality], "manifest.quality")
        ascending(manifest.releases, "manifest.releases")
        ascending([(figure.name, figure.recipe) for figure in manifest.unproven], "manifest.unproven")
        measured = {(figure.name, figure.recipe) for figure in manifest.quality}
        if not measured.isdisjoint((figure.name, figure.recipe) for figure in manifest.unproven):
            raise Corrupt(
                "a figure of manifest.unproven is measured in manifest.quality",
                kind="bad-field",
                field="manifest.unproven",
            )
        return manifest


def _hosts(items: Sequence[object]) -> tuple[str, ...]:
    hosts: list[str] = []
    for item in items:
        wrong = objection(item) if isinstance(item, str) else "it holds something else than host classes"
        if wrong:
            raise Corrupt(f"manifest.hosts: {wrong}", kind="bad-field", field="manifest.hosts")
        hosts.append(str(item))
    ascending(hosts, "manifest.hosts")
    return tuple(hosts)


def _id(item: object) -> ObjectId:
    if type(item) is not bytes or len(item) != 32:
        raise Corrupt(
            "manifest.releases holds something else than object ids", kind="bad-field", field="manifest.releases"
        )
    return ObjectId(item)


def identity(
    mission: MissionFacts,
    hosts: tuple[str, ...],
    coverage: Coverage,
    gates: tuple[tuple[str, int, bytes], ...],
    unproven: tuple[Unproven, ...],
    releases: tuple[ObjectId, ...],
    artifacts: Mapping[str, bytes],
) -> bytes:
    """Return the identity of a mission (FORMAT.md 4.4, decision 0005), 32 bytes.

    It is independent of the time of the build and of the bytes that a builder happens to produce. `gates` are (name,
    least, recipe) of each figure of quality; its value and queries are known only once it was measured. `unproven` are
    those that each aircraft has to prove. `artifacts`
    maps the name of each entry to its build key, or to its object id where its kind has none. A builder derives it
    before anything is built, and every verifier derives it again from manifest and table.
    """
    value: list[Value] = [
        mission.value(),
        list(hosts),
        coverage.value(),
        [list(gate) for gate in gates],
        [figure.as_value() for figure in unproven],
        [bytes(release) for release in releases],
    ]
    rows = [b"\x82" + encode_text(name) + encode_bytes(artifacts[name]) for name in sorted(artifacts)]
    return derive(IDENTITY_CONTEXT, encode_array([*map(encode, value), encode_array(rows)]))


def identity_of(manifest: Manifest, table: EntryTable) -> bytes:
    """Return the identity that a manifest with this table must carry, 32 bytes."""
    return identity(
        manifest.mission,
        manifest.hosts,
        manifest.coverage,
        tuple((figure.name, figure.least, figure.recipe) for figure in manifest.quality),
        manifest.unproven,
        manifest.releases,
        {entry.name: entry.key or entry.id for entry in table.entries},
    )
