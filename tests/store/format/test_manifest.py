"""The manifest: one canonical form, every field there, of its type and within its bounds; and the identity."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt, FlightbagError
from store.format import manifest as manifests
from store.format.area import LAT_MAX, LON_MAX, Area
from store.format.cbor import INT_MAX, decode, encode
from store.format.entries import EntryTable
from store.format.ids import ObjectId, derive
from store.format.manifest import (
    MAX_QUERIES,
    PAYLOAD_LIMIT,
    PPM,
    TIME_MAX,
    Coverage,
    Figure,
    Issue,
    Manifest,
    MissionFacts,
    Takeoff,
    Unproven,
    identity_of,
)
from tests.support.missions import CONTENTS, FACTS, UNPROVEN, build_key, entry, manifest_of, table_of

TABLE = table_of(CONTENTS)
# Every optional field is there, so that each is tried.
DAY = 86400
FULL = manifest_of(
    TABLE,
    mission=replace(
        FACTS, area=Area(FACTS.area.bbox, (((-991700000, 470100000, -991400000, 470100000, -991500000, 470300000),),))
    ),
    issue=Issue(1, 7, 8, 1, 9, 30 * DAY, ObjectId.of(b"before")),
    coverage=Coverage(bytes(32), 10, 1, 900_000, (16, 17), -DAY, DAY, 30, 500, 9),
    releases=(ObjectId(bytes(32)), ObjectId(b"\x01" * 32)),
    unproven=(Unproven("fidelity/far", 0, bytes(32)), UNPROVEN),
)

DIGESTS = st.binary(min_size=32, max_size=32)
# What each of the patterns lets pass; BOUNDS tries their edges.
WORDS = st.text("az09", min_size=1, max_size=64)
TIMES = st.integers(0, TIME_MAX)
DATES = st.integers(-(TIME_MAX // DAY), TIME_MAX // DAY).map(lambda day: day * DAY)
OPTIONAL_TIMES = st.none() | TIMES
IDS = st.builds(ObjectId, DIGESTS)


def ascending(items: st.SearchStrategy[Any], least: int = 0, most: int = 4) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, min_size=least, max_size=most, unique=True).map(lambda found: tuple(sorted(found)))


@st.composite
def areas(draw: st.DrawFn) -> Area:
    west, east = sorted(draw(st.lists(st.integers(-LON_MAX, LON_MAX), min_size=2, max_size=2, unique=True)))
    south, north = sorted(draw(st.lists(st.integers(-LAT_MAX, LAT_MAX), min_size=2, max_size=2, unique=True)))
    vertices = st.tuples(st.integers(west, east), st.integers(south, north))
    rings = st.lists(vertices, min_size=3, max_size=5).map(lambda found: tuple(n for v in found for n in v))
    polygons = st.lists(st.lists(rings, min_size=1, max_size=2).map(tuple), max_size=2).map(tuple)
    return Area((west, south, east, north), draw(polygons))


@st.composite
def coverages(draw: st.DrawFn) -> Coverage:
    tiles = draw(st.integers(1, 2**40))
    missing = draw(st.integers(0, tiles))
    oldest, newest = sorted((draw(DATES), draw(DATES)))
    return Coverage(
        draw(DIGESTS), tiles, missing, draw(st.integers(0, (tiles - missing) * PPM // tiles)),
        draw(ascending(st.integers(0, 24), least=1)), oldest, newest,
        draw(st.none() | st.integers(0, 10**6)), draw(st.none() | st.integers(1, 10**9)),
        draw(st.none() | st.integers(1, tiles - missing)) if missing < tiles else None,
    )  # fmt: skip


MISSIONS = st.builds(
    MissionFacts,
    id=WORDS,
    flight=WORDS,
    aircraft=ascending(WORDS, least=1),
    takeoff=st.builds(
        Takeoff, st.integers(-LAT_MAX, LAT_MAX), st.integers(-LON_MAX, LON_MAX), st.integers(-LON_MAX, LON_MAX)
    ),
    area=areas(),
    sector=st.sampled_from(manifests.SECTORS),
    takeoff_outside=st.booleans(),
).map(lambda facts: replace(facts, takeoff_outside=facts.takeoff_outside and not within(facts)))
ISSUES = st.builds(
    lambda issued, start, end, **others: Issue(
        issued_at=issued, valid_from=start, expires_at=None if end is None else max(end, issued, start or 0), **others
    ),
    TIMES, OPTIONAL_TIMES, OPTIONAL_TIMES,
    epoch=st.integers(1, INT_MAX), sequence=st.integers(1, INT_MAX), min_root_version=st.integers(1, INT_MAX),
    previous=st.none() | IDS,
)  # fmt: skip
FIGURES = st.builds(
    lambda name, least, more, queries, recipe: Figure(name, least + more, least, queries, recipe),
    WORDS, st.integers(0, PPM // 2), st.integers(0, PPM // 2), st.integers(1, MAX_QUERIES), DIGESTS,
)  # fmt: skip
MANIFESTS = st.builds(
    Manifest,
    mission=MISSIONS,
    issue=ISSUES,
    hosts=st.sampled_from([("cpu",), ("cpu-aarch64+sm87+trt10", "cpu-x86_64")]),
    coverage=coverages(),
    quality=st.lists(FIGURES, max_size=3, unique_by=lambda figure: (figure.name, figure.recipe)).map(
        lambda found: tuple(sorted(found, key=lambda figure: (figure.name, figure.recipe)))
    ),
    releases=ascending(IDS),
    count=st.integers(1, 100_000),
    merkle_root=DIGESTS,
    table=IDS,
    table_size=st.integers(1, 16 * 2**20),
    identity=DIGESTS,
    unproven=ascending(st.tuples(WORDS, DIGESTS)).map(
        lambda found: tuple(Unproven(f"fidelity/{name}", recipe[0], recipe) for name, recipe in found)
    ),
).map(lambda manifest: fresh(manifest))


def within(facts: MissionFacts) -> bool:
    return facts.area.contains(facts.takeoff.lat, facts.takeoff.lon)


def fresh(manifest: Manifest) -> Manifest:
    """Without the limit of age, where it does not hold."""
    coverage = manifest.coverage
    most = (coverage.max_age_days or 0) * DAY
    if coverage.missing < coverage.tiles and manifest.issue.issued_at - coverage.oldest > most:
        return replace(manifest, coverage=replace(coverage, max_age_days=None))
    return manifest


@given(MANIFESTS)
def test_a_rendered_manifest_parses_to_itself(manifest: Manifest) -> None:
    assert Manifest.parse(manifest.render()) == manifest


@given(MANIFESTS, st.data())
def test_a_changed_byte_makes_another_manifest_or_none(manifest: Manifest, data: st.DataObject) -> None:
    good = manifest.render()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    try:
        parsed = Manifest.parse(bad)
    except Corrupt:
        return
    assert parsed != manifest
    assert parsed.render() == bad


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        Manifest.parse(data)


Path = tuple[str | int, ...]


def value_of(manifest: Manifest = FULL) -> dict[str, Any]:
    decoded: dict[str, Any] = decode(manifest.render(), limit=PAYLOAD_LIMIT, what="the manifest")
    return decoded


def paths(value: Any, prefix: Path = ()) -> list[Path]:
    """The paths of everything in a decoded value."""
    found = [prefix] if prefix else []
    items = value.items() if type(value) is dict else enumerate(value) if type(value) is list else ()
    for key, item in items:
        found += paths(item, (*prefix, key))
    return found


def change(path: Path, how: Callable[[Any, str | int], None]) -> bytes:
    """The canonical payload of FULL after a change to what holds `path`'s last step."""
    value = value_of()
    holder: Any = value
    for step in path[:-1]:
        holder = holder[step]
    how(holder, path[-1])
    return encode(value)


def put(new: Any) -> Callable[[Any, str | int], None]:
    def how(holder: Any, key: str | int) -> None:
        holder[key] = new

    return how


def remove(holder: Any, key: str | int) -> None:
    del holder[key]


def refused(data: bytes) -> Corrupt:
    with pytest.raises(Corrupt) as caught:
        Manifest.parse(data)
    return caught.value


KEYS = [path for path in paths(value_of()) if type(path[-1]) is str]
OPTIONAL = {
    ("issue", "valid_from"),
    ("issue", "expires_at"),
    ("issue", "previous"),
    ("coverage", "max_age_days"),
    ("coverage", "min_resolution_mm"),
    ("coverage", "repeated"),
    ("unproven",),
}


@pytest.mark.parametrize("path", KEYS, ids=lambda path: ".".join(path))
def test_every_key_is_needed_but_for_the_optional_ones(path: Path) -> None:
    data = change(path, remove)
    if path in OPTIONAL:
        assert Manifest.parse(data) != FULL
    else:
        assert refused(data).fields["field"] == ".".join(("manifest", *map(str, path)))


@pytest.mark.parametrize("path", paths(value_of()), ids=lambda path: ".".join(map(str, path)))
def test_everything_has_its_exact_type(path: Path) -> None:
    for wrong in (7, -7, "seven", b"seven", [], {}, [7], {"seven": 7}):
        value: Any = value_of()
        for step in path:
            value = value[step]
        if type(wrong) is not type(value):
            assert refused(change(path, put(wrong))).fields["kind"] == "bad-field"


@pytest.mark.parametrize(
    "path", [(), ("mission",), ("mission", "area"), ("issue",), ("coverage",)], ids=lambda path: ".".join(path) or "top"
)
def test_an_unknown_key_is_refused(path: Path) -> None:
    assert refused(change((*path, "more"), put(1))).fields["field"] == ".".join(("manifest", *map(str, path), "more"))


ID31, ID32, ID33 = bytes(31), bytes(32), bytes(33)
# A value and a least value of which one is not in parts per million, though the one is not below the other.
OUTSIDE_OF_PPM = ([PPM + 1, 0], [PPM + 1, PPM + 1], [9_200_000_000_000, PPM], [0, -1], [-1, -1], [PPM, -(2**63)])
TWO_RECIPES = [["a", 1, 1, 1, ID32], ["a", 1, 1, 1, bytes([255]) * 32]]
BOUNDS: list[tuple[str, list[Any], list[Any]]] = [
    ("version", [1], [0, 2, -1]),
    ("hosts", [["cpu"], ["cpu+sm87"], ["cpu", "cpu-x86_64", "sm87"], [f"faiss-{n}" for n in range(9)]],
              [[], "cpu", ["sm87", "cpu"], ["cpu", "cpu"], [b"cpu"], [f"faiss-{n}" for n in range(10, 27)]]),
    ("hosts", [], [[bad] for bad in
              ("", "sm87+cpu", "cpu+cpu", "CPU", "cpu-arm", "cpu+ort>=1.22", "cpu" * 90, "cpu\n")]),
    ("count", [1, 100_000], [0, -1, 100_001]),
    ("root", [bytes(32)], [b"", ID31, ID33]),
    ("identity", [bytes(32)], [b"", ID31, ID33]),
    ("table", [[bytes(32), 1], [bytes(32), 2**24]], [[], [bytes(32)], [bytes(32), 1, 1], [ID31, 1], [ID33, 1]]),
    ("table", [], [[bytes(32), 0], [bytes(32), 2**24 + 1], [1, 1], [bytes(32), bytes(32)]]),
    ("releases", [[], [bytes(32)]], [[ID31], ["x"], [bytes(32)] * 2, [b"\x01" * 32, bytes(32)]]),
    ("releases", [], [[bytes([0, i]) * 16 for i in range(65)]]),
    ("quality", [[], [["a", 1, 1, 1, ID32]]], [[["a", 0, 1, 1, ID32]], [["a", 1, 1, 1, ID31]], [["A", 1, 1, 1, ID32]]]),
    ("quality", [], [[["a", 1, 1, ID32]], [["a", 1, 1, 1, ID32, 1]], [["a", 1, 1, 1, ID32]] * 2, ["a"], [[1] * 5]]),
    ("quality", [], [[["b", 1, 1, 1, ID32], ["a", 1, 1, 1, ID32]], [["a", "1", 1, 1, ID32]], [["", 1, 1, 1, ID32]]]),
    ("quality", [[["a", 1, 1, 2**40, ID32]]], [[["a", 1, 1, n, ID32]] for n in (0, -1, 2**40 + 1, "1", ID32)]),
    ("quality", [[["a", PPM, 0, 1, ID32]]], [[["a", *value, 1, ID32]] for value in OUTSIDE_OF_PPM]),
    ("quality", [TWO_RECIPES], [TWO_RECIPES[::-1]]),
    ("quality", [], [[[f"a{i:03}", 1, 1, 1, bytes(32)] for i in range(257)]]),
    ("unproven", [[["fidelity/a", n, ID32]] for n in (0, PPM)], []),
    ("unproven", [], [[["fidelity/a", n, ID32]] for n in (-1, PPM + 1, "1")]),
    ("unproven", [[["fidelity/a", 1, ID32], ["fidelity/a", 1, b"\1" * 32]]], [[["fidelity/a", 1, ID32]] * 2]),
    ("unproven", [], [[["fidelity/a", 1, one]] for one in (ID31, ID33, b"", "a", 1)]),
    ("unproven", [], [[[name, 1, ID32]] for name in ("fidelity/", "fidelity/a/b", "self@1/a", "fidelity/A", "a", 1)]),
    ("unproven", [], [[["fidelity/b", 1, ID32], ["fidelity/a", 1, ID32]], [["fidelity/a", 1]], [], ["a"], [[1] * 3]]),
    ("unproven", [], [[["fidelity/a", 1, ID32, 1]], [[f"fidelity/a{i:03}", 1, bytes(32)] for i in range(257)]]),
    ("mission.id", ["a", "0-", "a" * 64], ["", "-a", "A", "a_b", "a.b", "a/b", "a" * 65, "a\n", "..", "é"]),
    ("mission.flight", ["A", "2026:1.2_3-4"], ["", " ", "a b", "a" * 65, "a\n", "a/b"]),
    ("mission.aircraft", [["a"], ["a", "b"]], [[], ["b", "a"], ["a", "a"], ["A"], [1], [""]]),
    ("mission.aircraft", [], [[f"a{i:02}" for i in range(65)]]),
    ("mission.sector", list(manifests.SECTORS), ["", "stable", "Stable_rear"]),
    ("mission.takeoff", [[0, 0, 0], [LAT_MAX, LON_MAX, -1]], [[], [0, 0], [0, 0, 0, 0], [LAT_MAX + 1, 0, 0]]),
    ("mission.takeoff", [], [[0, LON_MAX + 1, 0], [-LAT_MAX - 1, 0, 0], ["0", 0, 0], [0, 0, LON_MAX + 1]]),
    ("mission.area.bbox", [], [[], [0, 0, 1], [0, 0, 0, 1], [0, 1, 1, 0], [0, 0, 1, LAT_MAX + 1]]),
    ("mission.area.bbox", [], [[0, 0, LON_MAX + 1, 1], ["0", 0, 1, 1]]),
    ("issue.epoch", [1, INT_MAX], [0, -1]),
    ("issue.sequence", [1, INT_MAX], [0, -1]),
    ("issue.issued_at", [0, 29 * DAY], [-1, TIME_MAX + 1]),
    ("issue.min_root_version", [1, INT_MAX], [0, -1]),
    ("issue.valid_from", [0, 30 * DAY], [-1, 30 * DAY + 1, TIME_MAX + 1]),
    ("issue.expires_at", [9, TIME_MAX], [-1, 7, 8, TIME_MAX + 1]),
    ("issue.previous", [bytes(32)], [b"", ID31, ID33]),
    ("coverage.digest", [bytes(32)], [b"", ID31, ID33]),
    ("coverage.tiles", [10, 2**40], [0, -1, 2**40 + 1, 9]),
    ("coverage.missing", [0, 1], [-1, 2, 11]),
    ("coverage.required_ppm", [0, 900_000], [-1, 900_001, PPM + 1]),
    ("coverage.zooms", [[0], [0, 24]], [[], [-1], [25], [1, 0], [1, 1], ["1"]]),
    ("coverage.oldest", [-DAY, 0, DAY], [-TIME_MAX - 1, 2 * DAY, 1, -1, DAY - 1, -DAY + 1, 43200]),
    ("coverage.newest", [-DAY, TIME_MAX // DAY * DAY], [-2 * DAY, TIME_MAX + 1, TIME_MAX, 1, -1, DAY + 1, 43200]),
    ("coverage.max_age_days", [30, 10**6], [-1, 10**6 + 1]),
    ("coverage.min_resolution_mm", [1, 10**9], [0, 10**9 + 1]),
    ("coverage.repeated", [1, 9], [0, 10]),
]  # fmt: skip


@pytest.mark.parametrize(("field", "good", "bad"), BOUNDS)
def test_bounds(field: str, good: list[Any], bad: list[Any]) -> None:
    path = tuple(field.split("."))
    for value in good:
        Manifest.parse(change(path, put(value)))
    for value in bad:
        error = refused(change(path, put(value)))
        assert error.fields["kind"] in ("bad-field", "bad-order")
        assert set(path) & set(str(error.fields["field"]).split("."))


def test_what_is_measured_is_not_unproven() -> None:
    measured = Figure(UNPROVEN.name, PPM, UNPROVEN.least, 8, UNPROVEN.recipe)
    with pytest.raises(Corrupt) as caught:
        replace(FULL, quality=(measured,)).render()
    assert caught.value.fields["field"] == "manifest.unproven"
    # Another engine of the same descriptor set was measured.
    replace(FULL, quality=(replace(measured, recipe=bytes(32)),)).render()


def test_a_takeoff_that_is_said_to_be_outside_is_outside() -> None:
    west, south, _, _ = FULL.mission.area.bbox
    path: Path = ("mission", "takeoff_outside")
    away: Any = value_of()
    away["mission"]["takeoff"] = [south - 1, west, 0]
    assert not Manifest.parse(encode(away)).mission.takeoff_outside
    away["mission"]["takeoff_outside"] = 1
    assert Manifest.parse(encode(away)).mission.takeoff_outside
    for wrong in (0, 2, -1, "1", b"1"):
        away["mission"]["takeoff_outside"] = wrong
        assert refused(encode(away)).fields["field"] == "manifest.mission.takeoff_outside"
    inside: Any = value_of()
    inside["mission"]["takeoff"] = [470100000, -991600000, 0]
    Manifest.parse(encode(inside))
    inside["mission"]["takeoff_outside"] = 1
    assert refused(encode(inside)).fields["field"] == ".".join(path)


@pytest.mark.parametrize(("late", "holds"), [(0, True), (1, False)])
def test_imagery_is_no_older_than_allowed_when_the_mission_is_issued(late: int, holds: bool) -> None:
    value = value_of()
    value["coverage"] |= {"oldest": -DAY, "newest": DAY, "max_age_days": 30}
    value["issue"]["issued_at"] = 29 * DAY + late
    if holds:
        Manifest.parse(encode(value))
    else:
        assert refused(encode(value)).fields["field"] == "coverage.oldest"
    # Where nothing is described, nothing is too old.
    value["coverage"] |= {"missing": 10, "required_ppm": 0}
    del value["coverage"]["repeated"]
    Manifest.parse(encode(value))


def test_missing_tiles_cannot_outnumber_tiles_even_where_none_is_required() -> None:
    value = value_of()
    value["coverage"] |= {"tiles": 10, "missing": 10, "required_ppm": 0}
    del value["coverage"]["repeated"]
    Manifest.parse(encode(value))
    value["coverage"]["missing"] = 11
    refused(encode(value))


def test_an_area_has_a_tile() -> None:
    value = value_of()
    value["coverage"] |= {"tiles": 1, "missing": 1, "required_ppm": 0}
    del value["coverage"]["repeated"]
    Manifest.parse(encode(value))
    value["coverage"] |= {"tiles": 0, "missing": 0}
    assert refused(encode(value)).fields["field"] == "manifest.coverage.tiles"


def test_the_payload_is_bounded() -> None:
    assert refused(encode({"version": 1, "mission": "x" * PAYLOAD_LIMIT})).fields["kind"] == "too-large"


@pytest.mark.parametrize("data", [b"", encode([]), encode("manifest"), FULL.render() + b"\x00", FULL.render()[:-1]])
def test_no_manifest(data: bytes) -> None:
    refused(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 0},
        {"hosts": ("b+a",)},
        {"merkle_root": b""},
        {"table_size": 0},
        {"releases": (ObjectId(bytes(32)),) * 2},
        {"unproven": (UNPROVEN, UNPROVEN)},
    ],
    ids=str,
)
def test_nothing_is_rendered_that_would_not_parse(changes: dict[str, Any]) -> None:
    with pytest.raises(FlightbagError):
        replace(FULL, **changes).render()


class TestIdentity:
    def test_is_of_its_context_and_value(self) -> None:
        assert FULL.identity == identity_of(FULL, TABLE)
        value = value_of()
        expected = [
            value["mission"], value["hosts"], value["coverage"],
            [[name, least, recipe] for name, _, least, _, recipe in value["quality"]],
            value["unproven"],
            value["releases"],
            [[one.name, bytes(one.key or one.id)] for one in TABLE.entries],
        ]  # fmt: skip
        assert FULL.identity == derive("flightbag 2026 mission identity v1", encode(expected))

    @pytest.mark.parametrize(
        "changes",
        [
            {"mission": replace(FULL.mission, flight="other")},
            {"mission": replace(FULL.mission, takeoff=Takeoff(470201000, -991602000, 480001))},
            {"hosts": ("cpu-aarch64",)},
            {"hosts": (*FULL.hosts, "sm87")},
            {"coverage": replace(FULL.coverage, digest=b"\x01" * 32)},
            {"coverage": replace(FULL.coverage, required_ppm=0)},
            {"quality": (Figure("recall@1/net/shift", 990_000, 940_000, 128, bytes(32)),)},
            {"quality": ()},
            {"unproven": ()},
            {"unproven": (Unproven("fidelity/far", 1, bytes(32)), UNPROVEN)},
            {"releases": ()},
        ],
        ids=str,
    )
    def test_tells_apart(self, changes: dict[str, Any]) -> None:
        assert identity_of(replace(FULL, **changes), TABLE) != FULL.identity

    @pytest.mark.parametrize(
        "changes",
        [
            {"issue": Issue(2, 9, 9, 2)},
            {
                "quality": (
                    Figure("landmarks/net", 10**6, 10**6, 9, bytes(32)),
                    Figure("recall@1/net/shift", 999_999, 950_000, 99, bytes(32)),
                )
            },
            {"count": 9, "merkle_root": b"\x01" * 32, "table": ObjectId.of(b"x"), "table_size": 9},
        ],
        ids=str,
    )
    def test_is_the_same_whenever_and_by_whomever_it_was_built(self, changes: dict[str, Any]) -> None:
        assert identity_of(replace(FULL, **changes), TABLE) == FULL.identity

    def test_follows_keys_where_there_are_any_and_ids_elsewhere(self) -> None:
        def with_entry(name: str, **changes: Any) -> bytes:
            entries = tuple(replace(e, **changes) if e.name == name else e for e in TABLE.entries)
            return identity_of(FULL, EntryTable(entries))

        other = ObjectId.of(b"other bytes")
        assert with_entry("engines/net/net.onnx", id=other, size=11) == FULL.identity
        assert with_entry("engines/net/net.onnx", key=build_key("other")) != FULL.identity
        assert with_entry("files/calibration/camera.yaml", id=other, size=11) != FULL.identity
        more = EntryTable((*TABLE.entries, entry("files/more", b"")))
        assert identity_of(FULL, more) != FULL.identity


def test_parsing_leaves_its_input_alone() -> None:
    value = value_of()
    before = deepcopy(value)
    Manifest.parse(encode(value))
    assert value == before


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01 00:00:00Z"),
        (TIME_MAX, "9999-12-31 23:59:59Z"),
        (-1, "1969-12-31 23:59:59Z"),
        (2**62, f"{2**62} s after 1970"),
        (10**30, f"{10**30} s after 1970"),
    ],
)
def test_any_number_of_seconds_is_printed(seconds: int, text: str) -> None:
    """Also a number that no calendar has: a message about a wrong time must not fail itself."""
    assert manifests.utc(seconds) == text
