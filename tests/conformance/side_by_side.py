"""Two verifiers, one verdict: the reader of `store` and `independent`, which was written from FORMAT.md alone.

`python -m tests.conformance.side_by_side [--stores 10000] [--seed 0]` makes stores, changes something in each (a field,
an encoding, a signer, a root, a file, the question) and signs what it changed anew by a rightful key, so that nothing
but the rule in question can refuse it. Both verifiers judge each store, and must agree as `agree` says. It prints a
line for each kind of change; the status is 1 after a disagreement. `test_side_by_side.py` runs a sample.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from store.disk.layout import open_store
from store.errors import FlightbagError, NoStore
from store.takeoff import aircraft
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Binding
from store.takeoff.verify import pinned_root, verify_mission
from tests.conformance import independent
from tests.conformance.independent import DAY, LAST, Ask, Fault, derive, kid
from tests.support.missions import plus_order_2

NOW = 1_795_000_000
MIDNIGHT = NOW // DAY * DAY
DEGREE = 10**7
# An answer: GO or not, and the findings as (step, kind); or why no verdict is given.
Answer = tuple[bool, frozenset[tuple[str, str]]] | str


def private(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())


def public(name: str) -> bytes:
    return private(name).public_key().public_bytes_raw()


@dataclass(frozen=True)
class Raw:
    """Bytes in the place of an encoded value."""

    data: bytes


def encode(value: Any) -> bytes:
    """CBOR, canonical but for what is Raw."""
    if isinstance(value, Raw):
        return value.data
    if type(value) is list:
        return independent.head(4, len(value)) + b"".join(map(encode, value))
    if type(value) is dict:
        pairs = sorted((encode(key), encode(item)) for key, item in value.items())
        return independent.head(5, len(value)) + b"".join(key + item for key, item in pairs)
    return independent.encode(value)


# A store as values


@dataclass
class Signed:
    """A payload and who signs it; `seal` changes the file at last, `touch` the signatures [kid, signature]."""

    type: str
    payload: Any
    by: list[str]
    touch: Callable[[list[list[bytes]]], object] | None = None
    seal: Callable[[bytes], bytes] | None = None
    encoded: Callable[[bytes], bytes] | None = None
    label: str = ""
    content_type: str = ""

    @property
    def data(self) -> bytes:
        """The payload's bytes."""
        data = encode(self.payload)
        return self.encoded(data) if self.encoded else data

    def file(self, domain: bytes) -> bytes:
        kind = self.content_type or self.type
        body = b"\xa1\x10" + independent.encode(f"application/vnd.flightbag.{kind}+cbor")
        aad = independent.encode([f"flightbag/{self.label or self.type}/1", domain])
        rows = []
        for name in self.by:
            header = bytes.fromhex("a20132045820") + kid(public(name))
            what = independent.encode(["Signature", body, header, aad, self.data])
            rows.append([header, private(name).sign(what)])
        rows.sort()
        if self.touch:
            self.touch(rows)
        data = b"\xd8\x62" + encode([body, {}, self.data, [[header, {}, signature] for header, signature in rows]])
        return self.seal(data) if self.seal else data


@dataclass
class World:
    """Everything that a takeoff check sees."""

    roots: list[Signed]
    entries: list[list[Any]]
    contents: dict[bytes, bytes]
    manifest: Signed
    releases: list[Signed] = field(default_factory=list)
    withdrawals: list[tuple[str, Signed]] = field(default_factory=list)
    pinned: int = 1
    mission: str = "north-ridge"
    ask: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] | None = None
    slots: tuple[tuple[str, int], ...] = (("a", 7), ("b", 7))
    stale: set[str] = field(default_factory=set)  # derived fields of the manifest that are left as they are
    table: Callable[[bytes], bytes] | None = None
    slot: Callable[[str, bytes], bytes] | None = None
    files: list[Callable[[Path], object]] = field(
        default_factory=list
    )  # what is done to the files, pipes and links last

    @property
    def domain(self) -> bytes:
        return derive("trust root", self.roots[0].data)


def role(*names: str, threshold: int = 1) -> dict[str, Any]:
    return {"keys": sorted(public(name) for name in names), "threshold": threshold}


def world(rng: random.Random) -> World:
    """One of many stores that are GO."""
    needs_releases = rng.random() < 0.4
    pilots = rng.choice([("pilot",), ("pilot", "copilot"), ("pilot", "copilot", "chief")])
    first = {
        "format": 1,
        "version": 1,
        "domain": "ridge fleet",
        "epoch": rng.choice([1, 3]),
        "issued_at": NOW - 9000,
        "salt": bytes(range(16)),
        "roles": {
            "root": role("root-a", "root-b", threshold=rng.choice([1, 2])),
            "mission": role(*pilots, threshold=rng.choice([1, len(pilots)])),
            "release": role("lab", "lab-b"),
        },
        "releases": "required" if needs_releases else "optional",
        "revoked": sorted([public("lost")]),
    }
    if rng.random() < 0.3:
        first["issued_after"] = NOW - 5000
    if rng.random() < 0.5:
        first["names"] = sorted([[public("lost"), "The lost one"], [public(pilots[0]), "Pia"]])
    expires = rng.random() < 0.6
    if expires and rng.random() < 0.3:
        first |= {"max_lifetime": 2000, "default_lifetime": 1000}
    roots = [Signed("root", first, ["root-a", "root-b"])]
    for version in range(2, rng.choice([2, 2, 3, 4])):
        after = {**copy.deepcopy(first), "version": version, "domain_id": b"", "previous": b""}
        after["issued_at"] = NOW - 9000 + version
        if version == 3:
            after["roles"]["root"] = role("root-b", "root-c")
        by = (
            ["root-a", "root-b", "root-c"]
            if version == 3
            else ["root-b", "root-c"]
            if version > 3
            else ["root-a", "root-b"]
        )
        if version > 3:
            after["roles"]["root"] = role("root-b", "root-c")
        roots.append(Signed("root", after, by))
    contents: dict[bytes, bytes] = {}
    entries = []

    def entry(name: str, kind: str, meta: dict[str, Any], *, keyed: bool = True) -> None:
        data = (f"the bytes of {name} " * rng.randint(1, 9)).encode()
        id_ = blake3(data).digest()
        contents[id_] = data
        entries.append([name, kind, id_, len(data), sha256(name.encode()).digest() if keyed else b"", meta])

    need = rng.choice(["cpu", "cpu-x86_64", "cpu-x86_64+ort>=1.22", "cpu-x86_64-avx2+ort-1.23.2"])
    engine = {"backbone": "net", "backend": "onnxruntime1.23", "host": need, "model": bytes(32), "part": "model"}
    entry("engines/net/net.onnx", "engine", {**engine, "precision": "fp32"})
    entry("cards/net/net.json", "card", {"engine": "engines/net/net.onnx"})
    entry("files/camera.yaml", "file", {}, keyed=False)
    rows: dict[str, Any] = {"dim": 4, "dtype": "float16", "rows": 2}
    if rng.random() < 0.2:
        rows["numeric"] = rng.choice(["any", "onnxruntime-cuda-1.32.0-sm90-fp32", "onnxruntime-cpu-fp32"])
    entry("descriptors/net/16/12-1150-1410.safetensors", "descriptors", rows)
    if rng.random() < 0.5:
        entry("probes/net.safetensors", "probe", dict(rows))
        index = {"dim": 4, "host": "cpu", "method": "ivf", "part": "index", "rows": 2}
        entry("indexes/net/all/16.faiss", "index", index)
    missing = rng.choice([0, 0, 3])
    if missing:
        entry("coverage/missing.cbor", "coverage", {"missing": missing}, keyed=False)
    releases = []
    if needs_releases or rng.random() < 0.2:
        approved = [
            [one[0], one[1], one[2], one[3], one[5]["host"]] for one in entries if one[1] in ("engine", "index")
        ]
        host = "cpu-x86_64-avx2+faiss-1.15.1+ort-1.23.2"
        body = {"version": 1, "name": "july", "issued_at": NOW - 8000, "host": host, "entries": sorted(approved)}
        releases.append(Signed("release", body, ["lab"]))
    box = [-991_750_000, 470_080_000, -991_350_000, 470_330_000]
    takeoff = [470_201_000, -991_602_000, 480_000]
    ring = [box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3]]
    hole = [box[0] + 9, box[1] + 9, box[0] + 99, box[1] + 9, box[0] + 9, box[1] + 99]
    payload = {
        "version": 1,
        "mission": {
            "id": "north-ridge",
            "flight": "2026-11-23-01",
            "aircraft": ["uav-07", "uav-08"],
            "takeoff": takeoff,
            "area": {"bbox": box, "polygons": rng.choice([[], [[ring, hole]], [[ring[:6]], [ring]]])},
            "sector": "stable_rear",
        },
        "issue": {
            "epoch": first["epoch"],
            "sequence": NOW - 100,
            "issued_at": NOW - 100,
            "min_root_version": 1,
        },
        "hosts": ["cpu-x86_64-avx2+ort-1.23.2"],
        "coverage": {
            "digest": bytes(32),
            "tiles": 312,
            "missing": missing,
            "required_ppm": 10**6 if not missing else 900_000,
            "zooms": [16, 17],
            "oldest": MIDNIGHT - 10 * DAY,
            "newest": MIDNIGHT - 9 * DAY,
        },
        "quality": [
            ["landmarks/net", 10**6, 10**6, 3, bytes(32)],
            ["recall@1/net/shift", 990_000, 950_000, 128, bytes(32)],
        ],
        "releases": [],
        "count": 0,
        "root": b"",
        "table": [],
        "identity": b"",
    }
    if expires:
        payload["issue"]["expires_at"] = NOW + 1000
    if rng.random() < 0.3:
        payload["issue"]["valid_from"] = NOW - rng.choice([0, 5000])
    if rng.random() < 0.3:
        payload["issue"]["previous"] = bytes(32)
    if rng.random() < 0.4:
        payload["coverage"]["max_age_days"] = 30
    if rng.random() < 0.3:
        payload["coverage"] |= {"min_resolution_mm": 500, "repeated": 9}
    made = World(
        roots, sorted(entries, key=lambda one: one[0]), contents, Signed("manifest", payload, list(pilots)), releases
    )
    made.ask = rng.choice(
        [
            {},
            {"clock": NOW},
            {"clock": NOW, "aircraft": "uav-07", "host": "cpu-x86_64-avx2+ort-1.23.2"},
            {"clock": NOW, "flight": "2026-11-23-01"},
        ]
    )
    made.pinned = rng.choice([1, len(roots)])
    if rng.random() < 0.3:
        made.ask = {key: value for key, value in made.ask.items() if key in ("clock", "flight")}
        made.state = {
            "format": 1,
            "id": "uav-07",
            "host": "cpu-x86_64-avx2+ort-1.23.2",
            "root": b"",
            "missions": [
                ["north-ridge", first["epoch"], NOW - 500, bytes(32)],
                ["south", first["epoch"], 5, bytes(32)],
            ],
            "accepted": ["f-1"],
            "consumed": ["f-2"],
            "proofs": [],
            "releases": [],
            "issued": NOW - 500,
            "clock": rng.choice([0, NOW - 400]),
        }
    return made


# From values to files


def write(world: World, folder: Path) -> bytes:
    """Write the store, and the state where there is one; return the pinned root's file."""
    before = b""
    files: dict[str, bytes] = {}
    roots = []
    for number, one in enumerate(world.roots, 1):
        if type(one.payload) is dict and number > 1:
            for name, value in (("previous", before), ("domain_id", world.domain)):
                if one.payload.get(name) == b"":
                    one.payload[name] = value
        before = derive("trust root", one.data)
        roots.append(one.file(world.domain))
        files[f"trust/{number}.root.cbor"] = roots[-1]
    ids = []
    for one in world.releases:
        data = one.file(world.domain)
        ids.append(blake3(data).digest())
        files[_object(ids[-1])] = data
    table = encode(world.entries)
    table = world.table(table) if world.table else table
    files[_object(blake3(table).digest())] = table
    for id_, data in world.contents.items():
        files[_object(id_)] = data
    _derive(world, table, ids)
    for name, one in world.withdrawals:
        files[f"withdrawn/{name}"] = one.file(world.domain)
    manifest = world.manifest.file(world.domain)
    files[_object(blake3(manifest).digest())] = manifest
    files[f"missions/{world.mission}"] = blake3(manifest).hexdigest().encode() + b"\n"
    files["flightbag.toml"] = f'format = 1\nid = "{"0" * 32}"\ncreated = 2026-11-23T00:00:00Z\n'.encode()
    for name in ("objects", "missions", "trust"):
        (folder / "store" / name).mkdir(parents=True)
    for name, data in files.items():
        path = folder / "store" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    if world.state is not None:
        (folder / "state").mkdir()
        if world.state.get("root") == b"":
            world.state["root"] = roots[world.pinned - 1]
        for name, number in world.slots:
            body = number.to_bytes(8, "big") + encode(world.state)
            data = derive("aircraft state", body) + body
            (folder / "state" / name).write_bytes(world.slot(name, data) if world.slot else data)
    for change in world.files:
        with contextlib.suppress(FileNotFoundError):  # an earlier one, or another release, left no such file
            change(folder)
    return roots[world.pinned - 1]


def _object(id_: bytes) -> str:
    return f"objects/{id_.hex()[:2]}/{id_.hex()[2:]}"


def _derive(world: World, table: bytes, releases: list[bytes]) -> None:
    """Fill in what the manifest commits to, but for what is to be left stale."""
    p, entries = world.manifest.payload, world.entries
    if type(p) is not dict:
        return
    derived: dict[str, Callable[[], Any]] = {
        "releases": lambda: sorted(releases),
        "table": lambda: [blake3(table).digest(), len(table)],
        "count": lambda: len(entries),
        "root": lambda: independent.merkle([independent.leaf_hash(encode(one)) for one in entries]),
        "identity": lambda: _identity(p, entries),
    }
    for name, value in derived.items():
        if name in p and name not in world.stale and p[name] in ([], b"", 0):
            try:
                p[name] = value()
            except (TypeError, ValueError, KeyError, IndexError, RecursionError):
                p[name] = bytes(32)


def _identity(p: dict[str, Any], entries: list[Any]) -> bytes:
    figures = [[figure[0], figure[2], figure[4]] for figure in p["quality"]]
    keys = [[one[0], one[4] or one[2]] for one in entries]
    value = [p["mission"], p["hosts"], p["coverage"], figures, p.get("unproven", []), p["releases"], keys]
    return derive("mission identity", encode(value))


# The two verifiers


def by_independent(world: World, folder: Path, pinned: bytes) -> Answer:
    state = folder / "state" if world.state is not None else None
    try:
        return independent.verify(folder / "store", world.mission, pinned, Ask(**world.ask, state=state))
    except Fault as fault:
        return fault.kind


def by_reader(world: World, folder: Path, pinned: bytes) -> Answer:
    store = folder / "store"
    asked = {"now" if name == "clock" else name: value for name, value in world.ask.items()}
    try:
        if world.state is not None:
            verdict = aircraft.check(folder / "state", store, world.mission, **asked)
        else:
            evidence = StoreEvidence(open_store(store))
            verdict = verify_mission(evidence, world.mission, pinned_root(pinned), Binding(**asked))
    except NoStore:
        return "no-store"
    except FlightbagError as error:
        return error.kind
    return verdict.go, frozenset((finding.step, finding.kind) for finding in verdict.findings)


# Changes

Change = Callable[[random.Random, World], object]
CHANGES: dict[str, Change] = {}


def change(function: Change) -> Change:
    CHANGES[function.__name__.strip("_")] = function
    return function


Node = tuple[Any, Any]


def nodes(value: Any) -> Iterator[Node]:
    """Every place of a tree, as a container and a key or an index."""
    keys = list(value) if type(value) is dict else range(len(value)) if type(value) is list else ()
    for key in keys:
        yield value, key
        yield from nodes(value[key])


NUMBERS = (0, 1, -1, 24, 25, 255, 2**31, 2**40, 2**40 + 1, 2**62, 2**63 - 1, -(2**63), 10**6, 10**6 + 1, LAST, LAST + 1)
WEAK = (
    bytes(32),
    b"\x01" + bytes(31),
    b"\xff" * 32,
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
)


def twisted(rng: random.Random, value: Any) -> Any:
    """Another value in the place of this one."""
    kind = type(value)
    if kind is int:
        near = [value + 1, value - 1, value + DAY, value - DAY, value * 2, -value, value // 2]
        return rng.choice([*near, *rng.sample(NUMBERS, 5), str(value), bytes(8), *odd(rng, value)])
    if kind is str:
        near = [
            "",
            value + "\n",
            value.upper(),
            value + "é",
            value[:-1],
            value + "x",
            value + "x" * 60,
            "-" + value,
            value + ".",
        ]
        return rng.choice(
            [*near, value.encode(), 1, "../" + value, value + "/x", value.replace("-", "_"), *odd(rng, value)]
        )
    if kind is bytes:
        flipped = bytes([value[0] ^ 1]) + value[1:] if value else b"\x00"
        return rng.choice([b"", value[:-1], value + b"\x00", flipped, *WEAK, value.hex(), 0, *odd(rng, value)])
    if kind is list:
        return rng.choice(
            [[], value[1:], value[:-1], value * 2, value[::-1], [*value, *value[-1:]], {}, *odd(rng, value)]
        )
    if kind is dict:
        less = {key: item for key, item in value.items() if key != rng.choice(sorted(value))} if value else {"a": 1}
        return rng.choice([{}, less, {**value, "zz": 0}, [], *odd(rng, value)])
    return value


def odd(rng: random.Random, value: Any) -> list[Raw]:
    """The value in an encoding that is not canonical, or of a type that no field has."""
    data = encode(value)
    forms = [
        b"\xf4",
        b"\xf6",
        b"\xf7",
        b"\xf9\x00\x00",
        b"\xc1" + data,
        b"\xd9\xd9\xf7" + data,
        b"\xc2\x41\x01",
        b"\xe0",
    ]
    major = data[0] & 0xE0
    if data[0] & 31 < 24:
        forms.append(bytes([major | 24, data[0] & 31]) + data[1:])
        forms.append(bytes([major | 25, 0, data[0] & 31]) + data[1:])
        if major in (0x80, 0xA0):
            forms.append(bytes([major | 31]) + data[1:] + b"\xff")
        if major == 0xA0 and type(value) is dict and value:
            pairs = [encode(key) + encode(item) for key, item in sorted(value.items(), reverse=True)]
            forms.append(bytes([data[0]]) + b"".join(pairs))
            forms.append(bytes([data[0] + 1]) + pairs[0] + b"".join(pairs))
    return [Raw(rng.choice(forms))]


def twist(rng: random.Random, tree: Any) -> None:
    container, key = rng.choice(list(nodes(tree)))
    container[key] = twisted(rng, container[key])


def _resigned_payload(rng: random.Random, w: World) -> None:
    twist(rng, w.manifest.payload)


@change
def payload_field(rng: random.Random, w: World) -> None:
    part = rng.choice(["mission", "issue", "coverage", "quality", ""])
    twist(rng, w.manifest.payload[part] if part else w.manifest.payload)


@change
def payload_number(rng: random.Random, w: World) -> None:
    """A number anywhere in the payload, at a bound or beside it."""
    places = [(c, k) for c, k in nodes(w.manifest.payload) if type(c[k]) is int]
    container, key = rng.choice(places)
    value = container[key]
    container[key] = rng.choice(
        [*NUMBERS, value - 1, value + 1, 900_000_000, 900_000_001, 1_800_000_000, -1_800_000_001]
    )


@change
def payload_derived(rng: random.Random, w: World) -> None:
    """What the manifest commits to is another value than the table's."""
    name = rng.choice(["count", "root", "identity", "releases"])
    w.manifest.payload[name] = (
        rng.choice([1, 2, 7]) if name == "count" else [bytes(32)] if name == "releases" else bytes(32)
    )


@change
def time_of_issue(rng: random.Random, w: World) -> None:
    issue, coverage = w.manifest.payload["issue"], w.manifest.payload["coverage"]
    at = rng.choice([NOW - 100, w.roots[-1].payload["issued_at"], w.roots[-1].payload.get("issued_after", NOW)])
    issue["issued_at"] = at + rng.choice([-1, 0, 1, DAY])
    if rng.random() < 0.5:
        issue["expires_at"] = issue["issued_at"] + rng.choice([-1, 0, 1])
    if rng.random() < 0.5:
        coverage["max_age_days"] = rng.choice([0, 1, 9, 10, 11, 12])


@change
def validity(rng: random.Random, w: World) -> None:
    issue, root = w.manifest.payload["issue"], w.roots[-1].payload
    issue["valid_from"] = rng.choice([NOW - 100, NOW, NOW + 1, NOW + 1000, NOW + 1001, 0, LAST])
    issue["expires_at"] = rng.choice([NOW - 101, NOW - 100, NOW - 1, NOW, NOW + 1, NOW + 1000])
    if rng.random() < 0.3:
        del issue["expires_at"]
    if rng.random() < 0.5:
        root["max_lifetime"] = rng.choice([1, 99, 100, 101, 1099, 1100, 1101, LAST])
        root["default_lifetime"] = rng.choice([1, 1100, 1101])
        if rng.random() < 0.5:
            del root["default_lifetime"]


@change
def names(rng: random.Random, w: World) -> None:
    names = [
        [public(who), rng.choice(["Ada", "Ben", "A" * 32, "A" * 33, "A\n", "-a", "A b.c_d-e", "ä", ""])]
        for who in rng.sample(["lost", "root-b", "lab", "nobody", *["lab-b"] * 2], rng.choice([0, 1, 1, 2]))
    ]
    w.roots[-1].payload["names"] = sorted(names) if rng.random() < 0.9 else names[::-1]


@change
def clock(rng: random.Random, w: World) -> None:
    issue, coverage = w.manifest.payload["issue"], w.manifest.payload["coverage"]
    at = [NOW, issue["issued_at"], issue.get("expires_at", NOW), issue.get("valid_from", NOW), LAST, 0, -(2**62)]
    at += [w.roots[-1].payload["issued_at"], coverage["oldest"] + coverage.get("max_age_days", 0) * DAY, NOW - 500]
    at += [issue["issued_at"] - DAY, w.roots[-1].payload["issued_at"] - DAY, NOW - 500 - DAY]
    w.ask["clock"] = rng.choice(at) + rng.choice([-1, 0, 1])


@change
def capture_dates(rng: random.Random, w: World) -> None:
    coverage = w.manifest.payload["coverage"]
    coverage["oldest"] = (
        MIDNIGHT - rng.choice([0, 1, 9, 10, 30, 31, 40_000, 10**6]) * DAY + rng.choice([0, 0, 0, 1, -1])
    )
    coverage["newest"] = coverage["oldest"] + rng.choice([0, DAY, -DAY, 5])
    coverage["max_age_days"] = rng.choice([0, 9, 30, 31, 10**6, 10**6 + 1])


@change
def missing_tiles(rng: random.Random, w: World) -> None:
    coverage = w.manifest.payload["coverage"]
    coverage["tiles"] = rng.choice([1, 3, 312, 2**40, 2**40 + 1])
    coverage["missing"] = rng.choice([0, 1, 3, 31, 32, 312, 313])
    coverage["required_ppm"] = rng.choice([0, 1, 900_000, 990_384, 990_385, 10**6])
    for one in w.entries:
        if one[1] == "coverage" and rng.random() < 0.7:
            one[5]["missing"] = coverage["missing"]


@change
def questions(rng: random.Random, w: World) -> None:
    if w.state is None:
        w.ask["aircraft"] = rng.choice(["uav-07", "uav-08", "uav-09", "uav-0"])
        w.ask["host"] = rng.choice(HOSTS)
    else:
        w.state["id"] = rng.choice(["uav-07", "uav-09"])
        w.state["host"] = rng.choice(HOSTS)
    w.ask["flight"] = rng.choice(["2026-11-23-01", "2026-11-23-02"])


HOSTS = (
    "cpu",
    "cpu-x86_64",
    "cpu-x86_64-avx2",
    "cpu-x86_64-avx2+ort-1.23.2",
    "cpu-x86_64-avx512+ort-1.23.2",
    "cpu-x86_64-avx512_avxvnni+ort-1.23.2",
    "cpu-x86_64-avx2+ort-1.23",
    "cpu-x86_64-avx2+ort-1.9",
    "ampere-plus+cpu-x86_64-avx2+ort-1.23.2+sm87",
    "cpu-aarch64-neon_dot+cuda12.6+driver-550+ort-1.23.2+sm87-orin-16sm-64gb+trt10-10.3.0.30",
    "cpu-x86_64-avx2+faiss-1.15.1+l4t-36.4.3+linux-aarch64+ort-1.23.2+trt10",
    "cpu-x86_64-avx2+faiss-1.15+ort-1.23.2+trt8-8.6.1.6",
    "cpu-x86_64-avx2+sm89-geforce_rtx_4090+trt10+trtrtx-1.7.1.116",
)
NEEDS = (
    *HOSTS,
    "ort>=1.22",
    "cpu+ort>=1.23.2",
    "cpu+ort>=1.23.2.0",
    "cpu+ort>=1.23.3",
    "cpu+ort>=1.9",
    "faiss>=1.15.1",
    "trt10+trt>=10.3",
    "trt>=10.0.0.0",
    "sm89+trtrtx-1.7.1.116",
    "sm89+trtrtx-1.7.1.11",
    "trtrtx-1.7.1",
    "trtrtx",
    "trtrtx>=1.7.1.116",
    "trt>=9.9",
    "trt>=11",
    "trt10-10.3.0.30+trt>=10.3.0.31",
    "cpu-x86",
    "cpu-x86_64-avx2_amx",
    "ort>=1.22+ort>=1.23",
    "ort-1.22+ort>=1.22",
    "linux>=1",
    "ort>=01.2",
    "ort>=1.2.3.4.5",
    "sm8",
    "sm087",
    "sm8700",
    "sm87-orin-016sm",
    "driver-550.1",
    "l4t-36",
    "cuda12",
    "trt10-8.6.1.6",
    "trt10-10.3.0",
    "cpu+",
    "+",
    "cpu+cpu-x86_64",
    "cpu-x86_64-avx_avx512vnni",
    "ort-1.0000000000",
    "ort-999999999",
    "faiss-1+cpu",
)


@change
def hosts_and_needs(rng: random.Random, w: World) -> None:
    what = rng.randrange(3)
    if what != 0:
        for one in w.entries:
            if one[1] in ("engine", "index"):
                one[5]["host"] = rng.choice(NEEDS)
    if what != 1:
        several = rng.choices(NEEDS if rng.random() < 0.3 else HOSTS, k=rng.choice([1, 1, 2, 3]))
        w.manifest.payload["hosts"] = sorted(set(several))
    if rng.random() < 0.5:
        _approve(w)
    if rng.random() < 0.5:
        if w.state is None:
            w.ask["host"] = rng.choice(HOSTS)
        else:
            w.state["host"] = rng.choice(HOSTS)


@change
def another_host_and_engine(rng: random.Random, w: World) -> None:
    """A fleet: an engine more, or a class more, or both."""
    if rng.random() < 0.8:
        data = b"the engine of another class"
        key = sha256(rng.choice([b"another", b"engines/net/net.onnx"])).digest()
        engine = copy.deepcopy(next(one for one in w.entries if one[1] == "engine"))
        engine[0], engine[2:5] = "engines/net/other.onnx", [blake3(data).digest(), len(data), key]
        engine[5] |= {"host": rng.choice(NEEDS[: len(HOSTS) + 6]), "backbone": rng.choice(["net", "net", "net", "eye"])}
        w.contents[engine[2]] = data
        w.entries = sorted([*w.entries, engine])
    if rng.random() < 0.8:
        w.manifest.payload["hosts"] = sorted({*w.manifest.payload["hosts"], rng.choice(HOSTS)})
    if rng.random() < 0.5 and w.state is None:
        w.ask["host"] = rng.choice(HOSTS)
    _approve(w)


def _approve(w: World) -> None:
    for release in w.releases:
        approved = [
            [one[0], one[1], one[2], one[3], one[5]["host"]] for one in w.entries if one[1] in ("engine", "index")
        ]
        release.payload["entries"] = sorted(approved)


@change
def table_field(rng: random.Random, w: World) -> None:
    twist(rng, w.entries)


@change
def table_names(rng: random.Random, w: World) -> None:
    one = rng.choice(w.entries)
    folder = one[0].split("/")[0]
    other = rng.choice(w.entries)
    one[0] = rng.choice(
        [
            f"{folder}/a",
            f"{folder}/a/b/c",
            f"{folder}/a/b/c/d",
            folder,
            f"{folder}/",
            f"/{folder}/a",
            f"{folder}/-a",
            f"{folder}/a.",
            f"{folder}/a..b",
            f"{folder}/A",
            f"{folder}/" + "a" * 64,
            f"{folder}/" + "a" * 65,
            other[0],
            other[0] + "/x",
            "/".join(other[0].split("/")[:2]),
            "things/a",
            "coverage/missing.cbor",
            "coverage/other.cbor",
        ]
    )
    if rng.random() < 0.8:
        w.entries.sort(key=lambda row: row[0])
    if rng.random() < 0.5:
        _approve(w)


@change
def table_rows(rng: random.Random, w: World) -> None:
    """Entries are added, lost, repeated, swapped; one object gets two sizes."""
    one = copy.deepcopy(rng.choice(w.entries))
    what = rng.randrange(6)
    if what == 0:
        w.entries.remove(one)
    elif what == 1:
        w.entries.append(one)
    elif what == 2:
        w.entries.reverse()
    elif what == 3:
        one[0] += "2"
        one[3] += rng.choice([0, 1, -1])
        w.entries = sorted([*w.entries, one], key=lambda row: row[0])
    elif what == 4:
        w.entries.clear()
    else:
        rng.choice(w.entries)[3] += rng.choice([1, -1, 2**40])


@change
def table_bytes(rng: random.Random, w: World) -> None:
    choices: list[Callable[[bytes], bytes]] = [
        lambda data: data + b"\x00",
        lambda data: data[:-1],
        lambda data: b"\x98" + bytes([data[0] & 31]) + data[1:],
        lambda data: b"\x9f" + data[1:] + b"\xff",
        lambda data: b"\xa0",
        lambda data: b"\x80",
        lambda data: b"",
    ]
    w.table = rng.choice(choices)


@change
def root_field(rng: random.Random, w: World) -> None:
    twist(rng, rng.choice(w.roots).payload)


@change
def root_number(rng: random.Random, w: World) -> None:
    places = [(c, k) for c, k in nodes(rng.choice(w.roots).payload) if type(c[k]) is int]
    container, key = rng.choice(places)
    container[key] = rng.choice([*NUMBERS, container[key] - 1, container[key] + 1, 8, 9])


@change
def root_roles(rng: random.Random, w: World) -> None:
    """Keys come and go, also weak ones, those of other roles, and revoked ones."""
    root = rng.choice(w.roots).payload
    role_ = root["roles"][rng.choice(["root", "mission", "release"])]
    extra = rng.choice(
        [public(name) for name in ("pilot", "lab", "root-a", "lost", "stranger")]
        + list(WEAK)
        + [plus_order_2(public("pilot"))]
    )
    what = rng.randrange(4)
    if what == 0:
        role_["keys"] = sorted({*role_["keys"], extra})
    elif what == 1:
        role_["keys"] = role_["keys"][1:]
    elif what == 2:
        role_["threshold"] = rng.choice([0, 1, 2, 3, 8, 9])
    else:
        root["revoked"] = sorted({*root["revoked"], extra})


@change
def root_chain(rng: random.Random, w: World) -> None:
    """A root more, which follows, or does not."""
    new = _follow(w)
    root, names = new.payload, new.by
    what = rng.randrange(14)
    if what == 0:
        root["epoch"] += rng.choice([1, -1])
    elif what == 1:
        root["revoked"] = rng.choice([[], sorted([public("lost"), public("pilot")])])
    elif what == 2:
        root["domain"] = "valley fleet"
    elif what == 3:
        root["salt"] = bytes(16)
    elif what == 4:
        root["previous"] = bytes(32)
    elif what == 5:
        root["domain_id"] = bytes(32)
    elif what == 6:
        root["version"] += rng.choice([1, -1])
    elif what == 7:
        root["issued_after"] = NOW - 100 + rng.choice([-1, 0, 1])
    elif what == 8:
        root["issued_at"] = rng.choice([0, NOW - 100, NOW + 1, NOW + 2000, NOW + DAY, NOW + DAY + 1, LAST])
    elif what == 9:
        new.by = new.by[:1]
    elif what == 10:
        new.by = [*new.by, "stranger"]
    elif what == 11:
        root["roles"]["mission"] = role("chief", "pilot", threshold=rng.choice([1, 2]))
    elif what == 12:
        root["roles"]["root"] = role("root-d", *names)
        new.by = [*new.by, "root-d"]
    elif what == 13:
        root["releases"] = rng.choice(["optional", "required"])


def _follow(w: World, **fields: Any) -> Signed:
    """A root more, which changes these fields, signed by the root keys before it."""
    before = w.roots[-1].payload
    root = {**copy.deepcopy(before), "version": len(w.roots) + 1, "domain_id": b"", "previous": b"", **fields}
    names = [name for name in ("root-a", "root-b", "root-c") if public(name) in root["roles"]["root"]["keys"]]
    w.roots.append(Signed("root", root, names))
    return w.roots[-1]


@change
def many_roots(rng: random.Random, w: World) -> None:
    for _ in range(rng.choice([30, 31, 32, 33])):
        _follow(w)
    w.pinned = rng.choice([1, 2, len(w.roots)])


@change
def root_files(rng: random.Random, w: World) -> None:
    """Names and places of root files."""
    number = rng.randint(1, len(w.roots) + 1)
    name = rng.choice(
        [
            f"0{number}.root.cbor",
            f"{number}.root.cbor.bak",
            f"{number + rng.choice([1, 25, 31, 32, 33, 34])}.root.cbor",
            "x",
            "0.root.cbor",
        ]
    )

    def act(folder: Path) -> None:
        trust = folder / "store/trust"
        source = trust / f"{number}.root.cbor"
        what = rng.randrange(6)
        if what == 0:
            source.unlink(missing_ok=True)
        elif what == 1 and source.exists():
            shutil.copy(source, trust / name)
        elif what == 2:
            (trust / name).write_bytes(b"")
        elif what == 3 and source.exists():
            source.write_bytes(source.read_bytes() + bytes(rng.choice([1, 70_000])))
        elif what == 4:
            shutil.rmtree(trust)
        elif what == 5 and source.exists():
            source.rename(trust / "link")
            source.symlink_to("link")

    w.files.insert(0, act)


def _any_signed(rng: random.Random, w: World) -> Signed:
    return rng.choice([w.manifest, w.manifest, *w.roots, *w.releases])


@change
def signers(rng: random.Random, w: World) -> None:
    one = _any_signed(rng, w)
    names = ["pilot", "copilot", "chief", "lab", "lab-b", "root-a", "root-b", "root-c", "lost", "stranger"]
    one.by = rng.choice(
        [[], one.by[:1], one.by[1:], [*one.by, rng.choice(names)], rng.sample(names, rng.randint(1, 4)), names[:9]]
    )
    one.by = sorted(set(one.by))


@change
def signatures(rng: random.Random, w: World) -> None:
    """Signatures are cut, repeated, reordered, forged, made malleable."""
    one = _any_signed(rng, w)
    what = rng.randrange(9)
    order = independent.L

    def touch(rows: list[list[bytes]]) -> None:
        if not rows:
            return
        row = rng.choice(rows)
        if what == 0:
            row[1] = row[1][:32] + (int.from_bytes(row[1][32:], "little") + order).to_bytes(32, "little")
        elif what == 1:
            row[1] = rng.choice(WEAK) + row[1][32:]
        elif what == 2:
            row[1] = bytes(64)
        elif what == 3:
            rows.append(list(row))
        elif what == 4:
            rows.reverse()
        elif what == 5:
            row[1] = row[1][:-1]
        elif what == 6:
            row[0] = row[0][:-1]
        elif what == 7:
            row[0] = row[0].replace(b"\x01\x32", b"\x01\x27")
        else:
            row[0] = row[0][:6] + kid(public("stranger"))

    one.touch = touch


@change
def envelopes(rng: random.Random, w: World) -> None:
    one = _any_signed(rng, w)
    seals: list[Callable[[bytes], bytes]] = [
        lambda data: data + b"\x00",
        lambda data: data[:-1],
        lambda data: data[2:],
        lambda data: b"\xd9\x00\x62" + data[2:],
        lambda data: b"\xd2" + data[2:],
        lambda data: data + bytes(70_000),
        lambda data: b"",
        lambda data: b"\xd8\x62\x80",
        lambda data: b"\xd8\x62\x85" + data[3:] + b"\x00",
        lambda data: data.replace(b"+cbor\xa0", b"+cbor\xa1\x00\x00"),
    ]
    what = rng.randrange(5)
    if what == 0:
        one.label = rng.choice(["manifest", "root", "release", "other"])
    elif what == 1:
        one.content_type = rng.choice(["manifest", "root", "release", "other"])
    elif what == 2:
        codings: list[Callable[[bytes], bytes]] = [
            lambda data: data + b"\x00",
            lambda data: data[:-1],
            lambda data: b"\xa0",
            lambda data: b"\x80",
            lambda data: b"",
            lambda data: data + bytes(2**16),
            lambda data: b"\x81" * 12 + b"\x00",
            lambda data: b"\x81" * 13 + b"\x00",
        ]
        one.encoded = rng.choice(codings)
    else:
        one.seal = rng.choice(seals)


@change
def release_field(rng: random.Random, w: World) -> None:
    for one in w.releases:
        twist(rng, one.payload)


@change
def release_entries(rng: random.Random, w: World) -> None:
    for one in w.releases:
        rows = one.payload["entries"]
        row = copy.deepcopy(rows[0])
        what = rng.randrange(6)
        if what == 0:
            row[2] = bytes(32)
            one.payload["entries"] = sorted([*rows, row])
        elif what == 1:
            rows[0][3] += 1
        elif what == 2:
            rows[0][4] = rng.choice(NEEDS)
        elif what == 3:
            one.payload["host"] = rng.choice(HOSTS)
        elif what == 4:
            one.payload["entries"] = rows[1:] or [["engines/a/b", "engine", bytes(32), 0, "cpu"]]
        else:
            one.by = rng.choice([["lab-b"], ["lab", "lab-b"], ["pilot"], ["lost"], []])


@change
def release_choice(rng: random.Random, w: World) -> None:
    """The root's demand and the manifest's releases do not go together."""
    if rng.random() < 0.5:
        for root in w.roots:
            root.payload["releases"] = rng.choice(["optional", "required"])
    if w.releases and rng.random() < 0.5:
        extra = copy.deepcopy(w.releases[0])
        extra.payload["name"] = "august"
        w.releases.append(extra)
    elif rng.random() < 0.5:
        w.releases.clear()


@change
def place(rng: random.Random, w: World) -> None:
    """The takeoff at a border, a corner, a pole, the antimeridian; areas and holes of odd forms."""
    mission = w.manifest.payload["mission"]
    west, south, east, north = -10 * DEGREE, -5 * DEGREE, 10 * DEGREE, 5 * DEGREE
    square = [west, south, east, south, east, north, west, north]
    inner = [west // 2, south // 2, east // 2, south // 2, east // 2, north // 2, west // 2, north // 2]
    bow = [west, south, east, north, east, south, west, north]
    star = [0, north, -6 * DEGREE, south, east, 2 * DEGREE, west, 2 * DEGREE, 6 * DEGREE, south]
    spike = [west, south, east, south, 0, 0, east, north, west, north]
    line = [west, 0, east, 0, 0, 0]
    shapes = [
        [],
        [[square]],
        [[square, inner]],
        [[bow]],
        [[star]],
        [[spike]],
        [[line]],
        [[square, bow]],
        [[inner], [square]],
    ]
    shapes += [[[inner, square]], [[square, inner, inner]], [[square + square]], [[]], [[square[:4]]], [[square[:7]]]]
    boxes = [[west, south, east, north]]
    if rng.random() < 0.4:
        boxes = [
            [170 * DEGREE, south, -170 * DEGREE, north],
            [170 * DEGREE, south, 180 * DEGREE, north],
            [-180 * DEGREE, south, -170 * DEGREE, north],
            [-180 * DEGREE, -90 * DEGREE, 180 * DEGREE, 90 * DEGREE],
            [180 * DEGREE, south, -180 * DEGREE, north],
            [180 * DEGREE, south, -170 * DEGREE, north],
            [170 * DEGREE, south, -180 * DEGREE, north],
            [0, 80 * DEGREE, DEGREE, 90 * DEGREE],
            [west, south, west, north],
            [west, north, east, south],
        ]
        shapes = [[]]
        if rng.random() < 0.4:
            boxes = [[0, 80 * DEGREE, 10 * DEGREE, 90 * DEGREE]]
            shapes = [[[[0, 80 * DEGREE, 10 * DEGREE, 80 * DEGREE, 5 * DEGREE, top * DEGREE]]] for top in (89, 90)]
    box = rng.choice(boxes)
    mission["area"] = {"bbox": box, "polygons": rng.choice(shapes)}
    lons = [box[0], box[2], (box[0] + box[2]) // 2, 0, west // 2, east // 2, 180 * DEGREE, -180 * DEGREE, 175 * DEGREE]
    lats = [box[1], box[3], (box[1] + box[3]) // 2, 0, south // 2, north // 2, 2 * DEGREE, 90 * DEGREE, -90 * DEGREE]
    lon, lat = (rng.choice(choices) + rng.choice([0, 0, 0, 1, -1]) for choices in (lons, lats))
    mission["takeoff"] = [lat, lon, rng.choice([0, -10_000, 1_800_000_000, -1_800_000_000, 1_800_000_001])]


@change
def many_vertices(rng: random.Random, w: World) -> None:
    area = w.manifest.payload["mission"]["area"]
    west, south, east, north = area["bbox"]
    line = [number for i in range(rng.choice([4091, 4092, 4093])) for number in (west + i % 2, south)]
    area["polygons"] = [[[west, south, east, south, east, north, west, north]], [line]]


@change
def files(rng: random.Random, w: World) -> None:
    """Files of the store are lost, cut, longer, flipped, swapped, links and folders."""

    def act(folder: Path) -> None:
        store = folder / "store"
        paths = sorted(path for path in store.rglob("*") if path.is_file() and path.name != "flightbag.toml")
        path, other = rng.choice(paths), rng.choice(paths)
        if not path.is_file():
            return
        data = path.read_bytes()
        what = rng.randrange(9)
        if what == 0:
            path.unlink()
        elif what == 1:
            path.write_bytes(data[:-1])
        elif what == 2:
            path.write_bytes(data + b"\x00")
        elif what == 3 and data:
            path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        elif what == 4:
            path.write_bytes(other.read_bytes())
        elif what == 5:
            path.unlink()
            path.symlink_to(other)
        elif what == 6:
            path.unlink()
            path.mkdir()
        elif what == 7:
            parent = path.parent
            parent.rename(folder / "aside")
            parent.symlink_to(folder / "aside")
        else:
            path.unlink()
            os.mkfifo(path)

    w.files.append(act)


@change
def same_size_swap(rng: random.Random, w: World) -> None:
    """An object of the mission in the place of another one of the same size."""
    one, other = w.entries[0], w.entries[1]
    data = w.contents[one[2]][: one[3] - 1] + b"!"
    w.contents[blake3(data).digest()] = data
    other[2], other[3] = blake3(data).digest(), len(data)
    _approve(w)
    target, original = rng.choice([one, *w.releases]), one[2]

    def act(folder: Path) -> None:
        id_ = original if target is one else blake3(target.file(w.domain)).digest()
        (folder / "store" / _object(id_)).write_bytes(data)

    w.files.insert(0, act)


@change
def refs(rng: random.Random, w: World) -> None:
    path = f"store/missions/{w.mission}"
    edits: list[Callable[[bytes], bytes]] = [
        lambda data: data[:-1],
        lambda data: data.upper(),
        lambda data: data + b"\n",
        lambda data: data[:-1] + b" ",
        lambda data: b"",
        lambda data: b"g" * 64 + b"\n",
        lambda data: b"0" * 64 + b"\n",
        lambda data: data[:-1] + b"\r\n",
    ]
    edit = rng.choice(edits)
    w.files.insert(0, lambda folder: (folder / path).write_bytes(edit((folder / path).read_bytes())))


@change
def mission_ids(rng: random.Random, w: World) -> None:
    what = rng.choice(["south", "../x", "a/b", "", "North", "a" * 64])
    if what == "south" or len(what) == 64:
        w.mission = what
    else:
        w.files.append(lambda folder: setattr(w, "mission", what))


@change
def not_a_store(rng: random.Random, w: World) -> None:
    texts = [
        None,
        b"",
        b"format = 2\n",
        b"format = 1\n",
        b'format = 1\nid = "x"\n',
        b"\xff",
        b'format = true\nid = "' + b"0" * 32 + b'"\n',
    ]
    text = rng.choice(texts)
    toml = "store/flightbag.toml"
    w.files.insert(0, lambda folder: (folder / toml).unlink() if text is None else (folder / toml).write_bytes(text))


def _with_state(rng: random.Random, w: World) -> dict[str, Any]:
    while w.state is None:
        other = world(rng)
        w.__dict__.update(other.__dict__)
    return w.state


@change
def state_field(rng: random.Random, w: World) -> None:
    twist(rng, _with_state(rng, w))


@change
def state_memory(rng: random.Random, w: World) -> None:
    """What the aircraft remembers stands against the mission, or just not."""
    state, issue = _with_state(rng, w), w.manifest.payload["issue"]
    what = rng.randrange(5)
    if what == 0:
        state["missions"][0][1:3] = [
            issue["epoch"] + rng.choice([-1, 0, 0, 1]),
            issue["sequence"] + rng.choice([-1, 0, 0, 1]),
        ]
    elif what == 1:
        state["consumed"] = rng.choice([["2026-11-23-01"], ["2026-11-23-01", "f-2"], []])
    elif what == 2:
        ahead = w.ask.get("clock", NOW) + DAY
        for name in rng.choice([["issued"], ["clock"], ["issued", "clock"]]):
            state[name] = rng.choice([0, NOW, NOW + 1000, NOW + 1001, NOW + 40 * DAY, ahead, ahead + 1, LAST])
        if rng.random() < 0.3:
            _follow(
                w, **rng.choice([{}, {"epoch": issue["epoch"] + 1}]), issued_at=rng.choice([NOW - 50, ahead, ahead + 1])
            )
    elif what == 3:
        epoch = w.roots[w.pinned - 1].payload["epoch"]
        state["missions"] = [[f"m-{i:05}", epoch, 1, bytes(32)] for i in range(rng.choice([9_999, 10_000]))]
        if rng.random() < 0.5:  # a newer root ends their epoch
            _follow(w, epoch=epoch + 1)
            issue["epoch"] = epoch + 1
    else:
        state["accepted"] = sorted([*[f"f-{i:05}" for i in range(9_999)], rng.choice(["zz", "2026-11-23-01"])])


@change
def proofs(rng: random.Random, w: World) -> None:
    """A figure that nobody measured, which the aircraft has proven, or just not."""
    if rng.random() < 0.8:
        _with_state(rng, w)
    if not any(one[1] == "probe" for one in w.entries):
        _another(w, "probes/net.safetensors", "probe", b"\x50" * 32, {"dim": 4, "dtype": "float16", "rows": 2})
    if rng.random() < 0.3:
        another_host_and_engine(rng, w)
    engine = copy.deepcopy(rng.choice([one for one in w.entries if one[1] == "engine"]))
    if rng.random() < 0.3:
        meta = {**engine[5], "part": rng.choice(["weights", "weights", "model"])}
        _another(w, "engines/net/net.weights", "engine", engine[4], meta)
    probe = next(one for one in w.entries if one[1] == "probe")
    recipe = independent.fidelity(probe[4], engine[4])
    figure: list[Any] = ["fidelity/net", rng.choice([0, 990_000]), recipe]
    w.manifest.payload["unproven"] = [figure]
    mine = [one for one in w.entries if one[1] == "engine" and one[4] == engine[4]]
    objects = [one[2] for part in ("model", "weights") for one in mine if one[5]["part"] == part]
    if w.state is not None:
        w.state["proofs"] = [derive("proof aboard", encode([*figure, probe[2], objects]))]
    what = rng.randrange(10)
    if what == 0:
        figure[1] += 1
    elif what == 1:
        figure[rng.choice([0, 2])] = rng.choice(["fidelity/eye", "fidelity/", "self@1/net", bytes(32), recipe[1:]])
    elif what in (2, 3):
        one = rng.choice([one for one in w.entries if one[1] in ("engine", "probe")])
        one[2:4] = [blake3(b"other bytes").digest(), 11]
        w.contents[one[2]] = b"other bytes"
    elif what == 4:
        rng.choice([one for one in w.entries if one[1] in ("engine", "probe")])[4] = b"\x51" * 32
    elif what == 5:
        w.entries = [one for one in w.entries if one[1] != rng.choice(["probe", "engine"])]
    elif what == 6 and w.state is not None:
        w.state["proofs"] = rng.choice([[], [bytes(32)], [bytes(32), *w.state["proofs"]], w.state["proofs"] * 2])
    elif what == 7:
        w.manifest.payload["quality"].insert(0, ["fidelity/net", 10**6, 0, 8, rng.choice([recipe, bytes(32)])])
    elif what == 8:
        w.manifest.payload["unproven"] = rng.choice([[], [figure, figure], sorted([figure, [*figure[:2], bytes(32)]])])
    _approve(w)


def _another(w: World, name: str, kind: str, key: bytes, meta: dict[str, Any]) -> None:
    data = f"the bytes of {name}".encode()
    w.contents[blake3(data).digest()] = data
    w.entries = sorted([*w.entries, [name, kind, blake3(data).digest(), len(data), key, meta]], key=lambda one: one[0])


@change
def withdrawals(rng: random.Random, w: World) -> None:
    """Something in the place of a withdrawal, or in the memory of the aircraft."""
    if rng.random() < 0.5:
        _with_state(rng, w)
    issue = w.manifest.payload["issue"]
    order = [issue["epoch"] + rng.choice([0, 0, 0, -1, 1]), issue["sequence"] + rng.choice([0, 0, -1, 1, -1])]
    order[0] = max(order[0], 1)
    about = {"version": 1, "reason": "wrong imagery", "issued_at": NOW}
    made = Signed("withdrawal", {**about, "mission": "north-ridge", "epoch": order[0], "sequence": order[1]}, ["pilot"])
    made.by = list(w.manifest.by)
    name = "north-ridge.mission"
    what = rng.randrange(12)
    if what == 0 and w.releases:
        digest = derive("release payload", w.releases[0].data)
        made = Signed("withdrawal", {**about, "release": rng.choice([digest, digest, bytes(32)])}, ["lab"])
        name = f"{digest.hex()}.release"
        if w.state is not None:
            w.state["releases"] = rng.choice([[], [digest], [bytes(32)]])
    elif what == 1:
        made.by = rng.choice([["lab"], ["stranger"], [], ["lost"], ["pilot", "stranger"], ["pilot"]])
    elif what == 2:
        twist(rng, made.payload)
    elif what == 3:
        name = rng.choice(["south.mission", f"{'0' * 64}.release", "north-ridge"])
    elif what == 4:
        made.label = rng.choice(["manifest", "release", "withdrawal"])
    elif what == 5:
        made.content_type = rng.choice(["manifest", "release", "root"])
    elif what == 6:
        made.seal = rng.choice([lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"x" * 4000])
    elif what == 7 and made.by:
        made.touch = lambda rows: rows[0].__setitem__(1, rng.choice([bytes(64), rows[0][1][::-1]]))
    elif what == 8 and w.state is not None:
        w.state["missions"][0] = ["north-ridge", *order, rng.choice([b"", b"", bytes(32), bytes(31)])]
    elif what == 9 and w.state is not None:
        w.state["missions"] = [[f"m-{i:05}", issue["epoch"], 1, bytes(32)] for i in range(10_000)]
    elif what == 10:
        made.payload["reason"] = rng.choice(["", "x" * 200, "x" * 201, " x", "caf\u00e9", "a\nb", "~"])
    if what not in (8, 9) or rng.random() < 0.3:
        w.withdrawals.append((name, made))


@change
def state_slots(rng: random.Random, w: World) -> None:
    _with_state(rng, w)
    number = rng.choice([7, 8, 9, 2**63, 2**64 - 1])
    w.slots = rng.choice(
        [(("a", 7),), (("b", 7),), (), (("a", 7), ("b", number)), (("a", number), ("b", 7)), (("a", 6), ("b", 7))]
    )
    edits: list[Callable[[str, bytes], bytes]] = [
        lambda name, data: data,
        lambda name, data: data[:-1] if name == "a" else data,
        lambda name, data: data + b"\x00",
        lambda name, data: b"",
        lambda name, data: _sealed(data[32:40] + b"\xa0") if name == "a" else data,
        lambda name, data: _sealed(data[32:40] + data[40:].replace(b"cf-1", b"cf-3")) if name == "a" else data,
    ]
    w.slot = rng.choice(edits)


def _sealed(body: bytes) -> bytes:
    return derive("aircraft state", body) + body


@change
def nothing(_rng: random.Random, _w: World) -> None:
    """The store as it was made."""


# The run


@dataclass
class Disagreement:
    number: int
    changes: tuple[str, ...]
    reader: Answer
    independent: Answer

    def __str__(self) -> str:
        both = f"reader {shown(self.reader)} | independent {shown(self.independent)}"
        return f"store {self.number} ({', '.join(self.changes)}): {both}"


def shown(answer: Answer) -> str:
    if isinstance(answer, str):
        return answer
    return "GO" if answer[0] else ", ".join(f"{step} {kind}" for step, kind in sorted(answer[1]))


def judged(seed: int, number: int) -> tuple[tuple[str, ...], Answer, Answer]:
    """The changes of one store, and both answers. Equal numbers make equal stores."""
    rng = random.Random(f"{seed}/{number}")
    made = world(rng)
    names = list(CHANGES)
    changes = (names[number % len(names)], *((rng.choice(names),) if rng.random() < 0.15 else ()))
    for name in changes:
        # An earlier change may have taken away what this one changes.
        with contextlib.suppress(TypeError, KeyError, AttributeError, IndexError, ValueError):
            CHANGES[name](rng, made)
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        path = Path(folder)
        pinned = write(made, path)
        second = by_independent(made, path, pinned)
        first = by_reader(made, path, pinned)  # the last: an aircraft's check writes its state
    return changes, first, second


def _memory() -> str | None:
    """A folder in memory where there is one: thousands of small stores are made and removed."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


# Kinds of one refusal, of which FORMAT 7 has a reader tell the one that it comes to first: of bytes that break several
# rules, and of several signatures. In step E they are of a release.
PARSED = {"not-canonical", "too-large", "bad-envelope", "bad-field", "bad-order", "bad-entry", "bad-table"}
SIGNED = {"bad-trust-chain", "unknown-signer", "wrong-role", "revoked-key", "bad-signature", "threshold"}


def agree(one: Answer, other: Answer) -> str:
    """`yes`; `by another kind` where FORMAT lets a reader tell any of several broken rules; else `no`."""
    if one == other:
        return "yes"
    if isinstance(one, str) or isinstance(other, str) or one[0] or other[0]:
        return "no"
    for step in "ABCDEF":
        kinds, others = ({kind for at, kind in answer[1] if at == step} for answer in (one, other))
        apart = kinds ^ others
        one_each = len(kinds - others) == len(others - kinds) == 1
        if apart and not (step != "F" and one_each and (apart <= PARSED or apart <= SIGNED)):
            return "no"
    return "by another kind"


def run(stores: int, seed: int, first: int = 0) -> tuple[Counter[tuple[str, str]], list[Disagreement]]:
    """Judge so many stores; return how many of each change had which verdict, and the disagreements."""
    counts: Counter[tuple[str, str]] = Counter()
    differing = []
    for number in range(first, first + stores):
        changes, reader, other = judged(seed, number)
        counts[changes[0], "GO" if reader[0] is True else "NO-GO"] += 1
        agreed = agree(reader, other)
        counts[changes[0], agreed] += 1
        if agreed == "no":
            differing.append(Disagreement(number, changes, reader, other))
            print(differing[-1], flush=True)
    return counts, differing


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.side_by_side")
    parser.add_argument("--stores", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first store")
    arguments = parser.parse_args()
    workers = os.cpu_count() or 1
    shares = [arguments.stores // workers + (number < arguments.stores % workers) for number in range(workers)]
    firsts = [arguments.first + sum(shares[:number]) for number in range(workers)]
    counts: Counter[tuple[str, str]] = Counter()
    differing = []
    with ProcessPoolExecutor(workers) as pool:
        for counted, differed in pool.map(run, shares, [arguments.seed] * workers, firsts):
            counts += counted
            differing += differed
    columns = ("GO", "NO-GO", "by another kind", "no")
    print(f"| change | {' | '.join(columns)} |\n| --- | --- | --- | --- | --- |")
    for name in CHANGES:
        print(f"| {name} | {' | '.join(str(counts[name, column]) for column in columns)} |")
    loose = sum(counts[name, "by another kind"] for name in CHANGES)
    print(
        f"\n{arguments.stores} stores, {len(differing)} disagreements, {loose} refused by another kind", file=sys.stderr
    )
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
