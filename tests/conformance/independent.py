"""A second verifier, written from `store/FORMAT.md` alone: what the text does not say, it does not know.

It imports nothing of Flightbag (a test holds that), decodes CBOR and checks Ed25519 by itself, and answers with the set
of (step, kind) of FORMAT 7. `side_by_side.py` shows both verifiers the same stores: where they differ, the text, the
reader or this module is wrong. It is written for reading beside FORMAT, not for speed: section numbers are in comments.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tomllib
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256, sha512
from itertools import pairwise
from pathlib import Path
from typing import Any

from blake3 import blake3


class Fault(Exception):
    """A rule that does not hold; `kind` is that of FORMAT 7."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


def want(holds: object, kind: str = "bad-field") -> None:
    if not holds:
        raise Fault(kind)


def derive(context: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=f"flightbag 2026 {context} v1").digest()


# 3 Deterministic CBOR


def decode(data: bytes, depth: int = 12) -> Any:
    value, end = _item(data, 0, depth)
    want(end == len(data), "not-canonical")
    return value


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    want(at < len(data), "not-canonical")
    major, low = data[at] >> 5, data[at] & 31
    at += 1
    number = low
    if low >= 24:
        want(low <= 27, "not-canonical")
        width = 1 << (low - 24)
        number = int.from_bytes(data[at : at + width], "big")
        want(at + width <= len(data) and number >= (24, 2**8, 2**16, 2**32)[low - 24], "not-canonical")
        at += width
    if major in (0, 1):
        want(number < 2**63, "not-canonical")
        return (number if major == 0 else -1 - number), at
    if major in (2, 3):
        want(number <= len(data) - at, "not-canonical")
        raw = data[at : at + number]
        try:
            return (raw if major == 2 else raw.decode()), at + number
        except UnicodeDecodeError:
            raise Fault("not-canonical") from None
    want(major in (4, 5) and depth > 0 and number <= len(data) - at, "not-canonical")
    if major == 4:
        items = []
        for _ in range(number):
            value, at = _item(data, at, depth - 1)
            items.append(value)
        return items, at
    fields: dict[str, Any] = {}
    before = b""
    for _ in range(number):
        begin = at
        key, at = _item(data, at, depth - 1)
        want(type(key) is str and at - begin <= 24 and data[begin:at] > before, "not-canonical")
        before = data[begin:at]
        fields[key], at = _item(data, at, depth - 1)
    return fields, at


def encode(value: Any) -> bytes:
    if type(value) is int:
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if type(value) is bytes:
        return head(2, len(value)) + value
    if type(value) is str:
        return head(3, len(value.encode())) + value.encode()
    if type(value) is list:
        return head(4, len(value)) + b"".join(map(encode, value))
    return head(5, len(value)) + b"".join(k + encode(v) for k, v in sorted((encode(k), v) for k, v in value.items()))


def head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    code = next(code for code in (0, 1, 2, 3) if number < 1 << (8 << code))
    return bytes([major << 5 | 24 + code]) + number.to_bytes(1 << code, "big")


# Closed schemas: a check raises Fault for a value that it refuses

Check = Callable[[Any], object]


def number(least: int, most: int = 2**63 - 1, *, kind: str = "bad-field") -> Check:
    return lambda value: want(type(value) is int and least <= value <= most, kind)


def text(pattern: str, *, kind: str = "bad-field") -> Check:
    return lambda value: want(type(value) is str and re.fullmatch(pattern, value), kind)


def octets(least: int, most: int | None = None, *, kind: str = "bad-field") -> Check:
    return lambda value: want(type(value) is bytes and least <= len(value) <= (most or least), kind)


def row(*checks: Check, kind: str = "bad-field") -> Check:
    def check(value: Any) -> None:
        want(type(value) is list and len(value) == len(checks), kind)
        for one, item in zip(checks, value, strict=True):
            one(item)

    return check


def array(item: Check, least: int, most: int, by: Callable[[Any], Any] | None = None) -> Check:
    """An array; with `by` strictly ascending by that."""

    def check(value: Any) -> None:
        want(type(value) is list and least <= len(value) <= most)
        for one in value:
            item(one)
        want(by is None or ascends([by(one) for one in value]), "bad-order")

    return check


def fields(required: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    def check(value: Any) -> None:
        checks = required | (optional or {})
        want(type(value) is dict and set(required) <= set(value) <= set(checks))
        for name, item in value.items():
            checks[name](item)

    return check


def ascends(values: Sequence[Any]) -> bool:
    return all(a < b for a, b in pairwise(values))


def itself(value: Any) -> Any:
    return value


LAST = 253402300799  # the end of the year 9999
DAY = 86_400
PPM = 1_000_000
SEGMENT = "[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?"
WORD = "[a-z0-9]([a-z0-9._+-]{0,62}[a-z0-9])?"
MISSION = "[a-z0-9][a-z0-9-]{0,63}"
AIRCRAFT = "[a-z0-9][a-z0-9._-]{0,63}"
FLIGHT = "[A-Za-z0-9._:-]{1,64}"
ID = octets(32)
TIME = number(0, LAST)
ONE = number(1, 1)


# 4.1 Ed25519, strictly (RFC 8032)

Q = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, Q) % Q
Point = tuple[int, int, int, int]
ZERO: Point = (0, 1, 1, 0)


def add(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % Q, (p[1] + p[0]) * (q[1] + q[0]) % Q
    c, d = 2 * p[3] * q[3] * D % Q, 2 * p[2] * q[2] % Q
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % Q, g * h % Q, f * g % Q, e * h % Q


def times(scalar: int, p: Point) -> Point:
    total = ZERO
    for bit in range(scalar.bit_length()):
        if scalar >> bit & 1:
            total = add(total, p)
        p = add(p, p)
    return total


def same(p: Point, q: Point) -> bool:
    return (p[0] * q[2] - q[0] * p[2]) % Q == 0 and (p[1] * q[2] - q[1] * p[2]) % Q == 0


def point(data: bytes) -> Point | None:
    """A canonically encoded point that is not of order 1, 2, 4 or 8."""
    y, odd = int.from_bytes(data, "little") & 2**255 - 1, data[31] >> 7
    square = (y * y - 1) * pow(D * y * y + 1, -1, Q) % Q
    x = pow(square, (Q + 3) // 8, Q)
    if (x * x - square) % Q:
        x = x * pow(2, (Q - 1) // 4, Q) % Q
    if y >= Q or (x * x - square) % Q or (x == 0 and odd):
        return None
    if x & 1 != odd:
        x = Q - x
    p = (x, y, 1, x * y % Q)
    return None if same(times(8, p), ZERO) else p


BASE = point((4 * pow(5, -1, Q) % Q).to_bytes(32, "little")) or ZERO


@lru_cache(maxsize=4096)
def public(key: bytes) -> Point | None:
    p = point(key)
    return p if p and same(times(L, p), ZERO) else None


@lru_cache(maxsize=65536)
def signed(key: bytes, message: bytes, signature: bytes) -> bool:
    a, r, s = public(key), point(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    k = int.from_bytes(sha512(signature[:32] + key + message).digest(), "little") % L
    return same(times(s, BASE), add(r, times(k, a)))


# 4.1 Envelope


@dataclass(frozen=True)
class Envelope:
    type: str
    body: bytes
    payload: bytes
    signatures: dict[bytes, tuple[bytes, bytes]]

    def good(self, key: bytes, domain: bytes) -> bool:
        """Whether the signature by this key's kid is good."""
        protected, signature = self.signatures[kid(key)]
        aad = encode([f"flightbag/{self.type}/1", domain])
        return signed(key, encode(["Signature", self.body, protected, aad, self.payload]), signature)


def kid(key: bytes) -> bytes:
    return sha256(bytes.fromhex("a301012006215820") + key).digest()


def envelope(data: bytes, type_: str) -> Envelope:
    want(len(data) <= 66 * 1024, "too-large")
    want(data[:2] == b"\xd8\x62", "bad-envelope")
    parts = decode(data[2:])
    body = encode({"": 0})[:1] + encode(16) + encode(f"application/vnd.flightbag.{type_}+cbor")
    want(type(parts) is list and len(parts) == 4 and parts[:2] == [body, {}], "bad-envelope")
    want(type(parts[2]) is bytes and 0 < len(parts[2]) <= 64 * 1024, "bad-envelope")
    want(type(parts[3]) is list and len(parts[3]) <= 8, "bad-envelope")
    rows: dict[bytes, tuple[bytes, bytes]] = {}
    for one in parts[3]:
        row(octets(38, kind="bad-envelope"), fields({}), octets(64, kind="bad-envelope"), kind="bad-envelope")(one)
        want(one[0][:6] == bytes.fromhex("a20132045820") and one[1] == {}, "bad-envelope")
        rows.setdefault(one[0][6:], (one[0], one[2]))
    want(len(rows) == len(parts[3]) and ascends(list(rows)), "bad-order")
    return Envelope(type_, body, parts[2], rows)


# 4.5 Host classes

NUMBER = "(?:0|[1-9][0-9]{0,8})"
VERSION = rf"{NUMBER}(?:\.{NUMBER}){{0,3}}"
X86 = "x86_64(?:-(?:avx512|avx512f|avx2|avx|sse2)(?:_avxvnni)?(?:_avx512vnni)?(?:_avxvnniint8)?(?:_amx)?)?"
ARM = "aarch64(?:-(?:neonfp16|neon)(?:_dot)?(?:_i8mm)?(?:_bf16)?(?:_sve)?(?:_sme)?(?:_sme2)?)?"
FAMILIES = {
    "cpu": f"cpu(?:-(?:{X86}|{ARM}))?",
    "ort": f"ort-(?P<version>{VERSION})",
    "faiss": f"faiss-(?P<version>{VERSION})",
    "linux": "linux-(?:x86_64|aarch64)",
    "sm": "sm[1-9][0-9]{1,2}(?:-[a-z0-9_]{1,40}(?:-[0-9]{1,5}sm(?:-[0-9]{1,5}gb)?)?)?",
    "ampere-plus": "ampere-plus",
    "cuda": rf"cuda{NUMBER}\.{NUMBER}",
    "driver": f"driver-{NUMBER}",
    "l4t": f"l4t-{VERSION}",
    "trt": rf"trt(?P<major>{NUMBER})(?:-(?P<version>(?P=major)(?:\.{NUMBER}){{3}}))?",
    "trtrtx": rf"trtrtx-{NUMBER}(?:\.{NUMBER}){{3}}",
}
LEAST = f"(?P<library>ort|faiss|trt)>=(?P<version>{VERSION})"


def need(value: Any) -> None:
    want(type(value) is str and 0 < len(value) <= 255)
    parts = value.split("+")
    families = [_family(part) for part in parts]
    want(all(families) and len(set(families)) == len(parts) and ascends(parts))


def host_class(value: Any) -> None:
    need(value)
    want(">=" not in value)


def _family(part: str) -> str | None:
    if least := re.fullmatch(LEAST, part):
        return f"{least['library']}>="
    return next((name for name, form in FAMILIES.items() if re.fullmatch(form, part)), None)


def refused(need: str, by: str) -> bool:
    """Whether a host of class `by` refuses a component of the need."""
    have = by.split("+")
    for part in need.split("+"):
        if least := re.fullmatch(LEAST, part):
            named = next((m for one in have if (m := re.fullmatch(FAMILIES[least["library"]], one))), None)
            wanted = _numbers(least["version"])
            if named and named["version"]:
                if _numbers(named["version"]) < wanted:
                    return True
            elif named and int(named["major"]) < wanted[0]:
                return True
        elif not any(one == part or one.startswith(part + "-") for one in have):
            return True
    return False


def _numbers(version: str) -> list[int]:
    return ([int(one) for one in version.split(".")] + [0, 0, 0])[:4]


# 5 Trust roots


def _key(value: Any) -> None:
    ID(value)
    want(public(value))


_LIFETIME = number(1, LAST)
_ROLE = fields({"keys": array(_key, 0, 64, itself), "threshold": number(1, 8)})
_ROOT = fields(
    {
        "format": ONE, "version": number(1), "domain": text("[A-Za-z0-9]([A-Za-z0-9 ._-]{0,62}[A-Za-z0-9])?"),
        "epoch": number(1), "issued_at": TIME, "salt": octets(16), "releases": text("optional|required"),
        "roles": fields({"root": _ROLE, "mission": _ROLE, "release": _ROLE}, {"builder": _ROLE}),
        "revoked": array(ID, 0, 1024, itself),
    },
    {
        "domain_id": ID, "previous": ID, "issued_after": TIME, "max_lifetime": _LIFETIME, "default_lifetime": _LIFETIME,
        "names": array(row(ID, text("[A-Za-z0-9]([A-Za-z0-9 ._-]{0,30}[A-Za-z0-9])?")), 1, 1280, lambda one: one[0]),
    },
)  # fmt: skip


@dataclass(frozen=True)
class Root:
    data: bytes
    envelope: Envelope
    fields: dict[str, Any]

    @property
    def version(self) -> int:
        return self.fields["version"]

    @property
    def digest(self) -> bytes:
        return derive("trust root", self.envelope.payload)

    @property
    def domain(self) -> bytes:
        return self.fields.get("domain_id", self.digest)

    def kids(self, role: str) -> dict[bytes, bytes]:
        return {kid(key): key for key in self.fields["roles"][role]["keys"]}

    def threshold(self, role: str, envelope: Envelope) -> None:
        good = set(self.kids(role)) & set(envelope.signatures)
        want(len(good) >= self.fields["roles"][role]["threshold"], "threshold")

    def signers(self, envelope: Envelope, role: str) -> None:
        """Refuse an envelope that the role's keys, at least its threshold and nobody else, did not sign."""
        known = self.kids(role)
        everybody = set().union(*(self.kids(name) for name in self.fields["roles"]))
        revoked = {kid(key) for key in self.fields["revoked"]}
        want(not revoked & set(envelope.signatures), "revoked-key")
        want(not (everybody - set(known)) & set(envelope.signatures), "wrong-role")
        _all_good(envelope, known, self.domain)
        self.threshold(role, envelope)


def _all_good(envelope: Envelope, known: dict[bytes, bytes], domain: bytes, strangers: bool = False) -> None:
    for signer in envelope.signatures:
        want(strangers or signer in known, "unknown-signer")
        want(signer not in known or envelope.good(known[signer], domain), "bad-signature")


def root(data: bytes) -> Root:
    """A root file as it may be pinned: it carries its own threshold, and only after the first unknown signatures."""
    e = envelope(data, "root")
    f = decode(e.payload)
    _ROOT(f)
    first = f["version"] == 1
    want(all((name in f) is not first for name in ("domain_id", "previous")))
    want(f.get("default_lifetime", 1) <= f.get("max_lifetime", LAST))
    roles = f["roles"]
    for name, role in roles.items():
        want(len(role["keys"]) >= role["threshold"] or (name == "release" and f["releases"] == "optional"))
    want(not set(roles["release"]["keys"]) & set(roles["mission"]["keys"]))
    others = set().union(*(role["keys"] for name, role in roles.items() if name != "builder"))
    want(not others & set(roles.get("builder", {"keys": ()})["keys"]))
    want(not any(set(f["revoked"]) & set(role["keys"]) for role in roles.values()))
    named, called = ([one[at] for one in f.get("names", ())] for at in (0, 1))
    want(len({*called}) == len(called))
    want({*named} <= {*f["revoked"]}.union(*(role["keys"] for role in roles.values())))
    this = Root(data, e, f)
    _all_good(e, this.kids("root"), this.domain, strangers=not first)
    this.threshold("root", e)
    return this


def step(old: Root, data: bytes) -> Root:
    """The root that continues `old`."""
    new = root(data)
    same_ = all(new.fields[name] == old.fields[name] for name in ("domain", "salt")) and new.domain == old.domain
    follows = new.version == old.version + 1 and new.fields["previous"] == old.digest
    onward = set(new.fields["revoked"]) >= set(old.fields["revoked"]) and new.fields["epoch"] >= old.fields["epoch"]
    want(same_ and follows and onward, "bad-trust-chain")
    _all_good(new.envelope, old.kids("root") | new.kids("root"), new.domain)
    old.threshold("root", new.envelope)
    return new


# 4.2 Payload

LATITUDE, LONGITUDE = number(-90 * 10**7, 90 * 10**7), number(-180 * 10**7, 180 * 10**7)
_AREA = fields(
    {
        "bbox": array(LONGITUDE, 4, 4),
        "polygons": array(array(array(LONGITUDE, 6, 8192), 1, 8192), 0, 256),
    }
)
_FIGURE = row(text("[a-z0-9][a-z0-9./@_-]{0,127}"), number(0, PPM), number(0, PPM), number(1, 2**40), ID)
_UNPROVEN = row(text(f"fidelity/{SEGMENT}"), number(0, PPM), ID)
_MISSION = fields(
    {
        "id": text(MISSION), "flight": text(FLIGHT), "aircraft": array(text(AIRCRAFT), 1, 64, itself), "area": _AREA,
        "takeoff": row(LATITUDE, LONGITUDE, number(-1_800_000_000, 1_800_000_000)),
        "sector": text("stable_rear|active_conflict"),
    },
    {"takeoff_outside": ONE},
)  # fmt: skip
_ISSUE = fields(
    {"epoch": number(1), "sequence": number(1), "issued_at": TIME, "min_root_version": number(1)},
    {"valid_from": TIME, "expires_at": TIME, "previous": ID},
)
_COVERAGE = fields(
    {
        "digest": ID, "tiles": number(1, 2**40), "missing": number(0, 2**40), "required_ppm": number(0, PPM),
        "zooms": array(number(0, 24), 1, 25, itself), "oldest": number(-LAST, LAST), "newest": number(-LAST, LAST),
    },
    {"max_age_days": number(0, PPM), "min_resolution_mm": number(1, 10**9), "repeated": number(1, 2**40)},
)  # fmt: skip
_PAYLOAD = fields(
    {
        "version": ONE, "mission": _MISSION, "issue": _ISSUE, "hosts": array(host_class, 1, 16, itself),
        "coverage": _COVERAGE,
        "quality": array(_FIGURE, 0, 256, lambda figure: [figure[0], figure[4]]), "releases": array(ID, 0, 64, itself),
        "count": number(1, 100_000), "root": ID, "table": row(ID, number(1, 16 * 2**20)), "identity": ID,
    },
    {"unproven": array(_UNPROVEN, 1, 256, lambda figure: [figure[0], figure[2]])},
)  # fmt: skip


def payload(data: bytes) -> dict[str, Any]:
    f = decode(data)
    _PAYLOAD(f)
    m = f["mission"]
    _area(m["area"])
    want("takeoff_outside" not in m or not inside(m["area"], *m["takeoff"][:2]))
    c = f["coverage"]
    described = c["tiles"] - c["missing"]
    want(described * PPM >= c["required_ppm"] * c["tiles"] and 0 <= described >= c.get("repeated", 0))
    want(c["oldest"] <= c["newest"] and c["oldest"] % DAY == 0 == c["newest"] % DAY)
    want(not stale(c, f["issue"]["issued_at"]))
    begin = max(f["issue"]["issued_at"], f["issue"].get("valid_from", 0))
    want(begin <= f["issue"].get("expires_at", LAST))
    want(all(value >= least for _, value, least, _, _ in f["quality"]))
    measured = [[name, recipe] for name, _, _, _, recipe in f["quality"]]
    want(not any([name, recipe] in measured for name, _, recipe in f.get("unproven", ())))
    return f


def stale(coverage: dict[str, Any], at: int) -> bool:
    """7.1: more than `max_age_days` whole days after `oldest`, where any tile is described."""
    ages = "max_age_days" in coverage and coverage["missing"] < coverage["tiles"]
    return ages and at > coverage["oldest"] + coverage["max_age_days"] * DAY


def _area(area: dict[str, Any]) -> None:
    west, south, east, north = area["bbox"]
    want(-90 * 10**7 <= south < north <= 90 * 10**7)
    want(west != east and (west, east) != (180 * 10**7, -180 * 10**7))
    rings = [ring for polygon in area["polygons"] for ring in polygon]
    want(sum(map(len, rings)) <= 8192)
    for ring in rings:
        want(len(ring) % 2 == 0 and all(_in_box(area["bbox"], lat, lon) for lon, lat in _vertices(ring)))


def _vertices(ring: list[int]) -> list[tuple[int, int]]:
    return list(zip(ring[::2], ring[1::2], strict=True))


def _in_box(bbox: list[int], lat: int, lon: int) -> bool:
    west, south, east, north = bbox
    return (west <= lon <= east if west < east else lon >= west or lon <= east) and south <= lat <= north


def inside(area: dict[str, Any], lat: int, lon: int) -> bool:
    """4.2: whether a place is in the area. Borders belong to it, also those of holes; rings count by even and odd."""
    if abs(lat) == 90 * 10**7:  # a pole has every longitude
        outer = [y for polygon in area["polygons"] for _, y in _vertices(polygon[0])]
        return lat in (outer or area["bbox"][1::2])
    for x in {lon, -lon} if abs(lon) == 180 * 10**7 else {lon}:  # the antimeridian has two names
        rings = ([_in_ring(ring, lat, x) for ring in polygon] for polygon in area["polygons"])
        within = any(outer >= 0 and all(hole <= 0 for hole in holes) for outer, *holes in rings)
        if _in_box(area["bbox"], lat, x) and (within or not area["polygons"]):
            return True
    return False


def _in_ring(ring: list[int], lat: int, lon: int) -> int:
    """1 inside, 0 on the border, -1 outside."""
    corners = _vertices(ring)
    odd = False
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        side = (x2 - x1) * (lat - y1) - (y2 - y1) * (lon - x1)
        if side == 0 and min(x1, x2) <= lon <= max(x1, x2) and min(y1, y2) <= lat <= max(y1, y2):
            return 0
        if (y1 > lat) != (y2 > lat) and (side > 0) == (y2 > y1):
            odd = not odd
    return 1 if odd else -1


# 4.3 Entry table and Merkle tree, 4.4 Identity

NAME = f"{SEGMENT}(/{SEGMENT}){{1,3}}"
_DIM = number(1, 2**20)
_NUMERIC = text("any|onnxruntime-(?!cpu-)[a-z0-9]{1,32}-[0-9a-z.]{1,32}-[a-z0-9_]{1,32}-fp32")
_ROWS = fields({"dim": _DIM, "dtype": text("float16|float32"), "rows": _DIM}, {"numeric": _NUMERIC})
_ENGINE = fields(
    {
        "backbone": text(SEGMENT), "backend": text(WORD), "host": need, "model": ID, "part": text("model|weights"),
        "precision": text(WORD),
    }
)  # fmt: skip
_INDEX = fields(
    {"dim": _DIM, "host": need, "method": text(WORD), "part": text("index|quantiser"), "rows": number(1, 2**40)}
)
# Kind -> the first segment of its names, whether it has a build key, and its meta.
KINDS: dict[str, tuple[str, bool, Check]] = {
    "engine": ("engines", True, _ENGINE),
    "card": ("cards", True, fields({"engine": text(f"engines(/{SEGMENT}){{1,3}}")})),
    "descriptors": ("descriptors", True, _ROWS),
    "probe": ("probes", True, _ROWS),
    "index": ("indexes", True, _INDEX),
    "coverage": ("coverage", False, fields({"missing": number(1, 2**40)})),
    "file": ("files", False, fields({}, {"origin": text("outside")})),
}


def table(data: bytes) -> list[list[Any]]:
    entries = decode(data)
    want(type(entries) is list and 0 < len(entries) <= 100_000, "bad-table")
    for one in entries:
        entry(one)
    names = [one[0] for one in entries]
    want(ascends(names), "bad-order")
    want(not {name.rsplit("/", cut)[0] for name in names for cut in (1, 2)} & set(names), "bad-entry")
    return entries


def bad(check: Callable[..., Check], *bounds: Any) -> Check:
    return check(*bounds, kind="bad-entry")


_ENTRY = row(
    bad(text, NAME), bad(text, "|".join(KINDS)), bad(octets, 32), bad(number, 0), bad(octets, 0, 32), itself,
    kind="bad-entry",
)  # fmt: skip


def entry(value: Any) -> None:
    _ENTRY(value)
    name, kind, _, _, key, meta = value
    folder, keyed, check = KINDS[kind]
    want(name.split("/")[0] == folder and len(key) == 32 * keyed and type(meta) is dict, "bad-entry")
    check(meta)


def leaf_hash(data: bytes) -> bytes:
    return derive("manifest merkle", b"\x00" + data)


def node_hash(left: bytes, right: bytes) -> bytes:
    return derive("manifest merkle", b"\x01" + left + right)


def merkle(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << ((len(leaves) - 1).bit_length() - 1)
    return node_hash(merkle(leaves[:k]), merkle(leaves[k:]))


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes], merkle_root: bytes) -> bool:
    """RFC 9162 section 2.1.3.2."""
    if not 0 <= index < size:
        return False
    fn, sn, r = index, size - 1, leaf
    for p in path:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and r == merkle_root


def identity(f: dict[str, Any], entries: list[list[Any]]) -> bytes:
    figures = [[name, least, recipe] for name, _, least, _, recipe in f["quality"]]
    keys = [[one[0], one[4] or one[2]] for one in entries]
    unproven = f.get("unproven", [])
    value = [f["mission"], f["hosts"], f["coverage"], figures, unproven, f["releases"], keys]
    return derive("mission identity", encode(value))


# 5.1 Releases

_APPROVAL = row(text(NAME), text("engine|index"), ID, number(0), need)
_RELEASE = fields(
    {
        "version": ONE, "name": text(SEGMENT), "issued_at": TIME, "host": host_class,
        "entries": array(_APPROVAL, 1, 256, itself),
    }
)  # fmt: skip


def release(data: bytes, newest: Root) -> list[list[Any]]:
    """What a release approves, where the release role has signed it."""
    e = envelope(data, "release")
    newest.signers(e, "release")
    f = decode(e.payload)
    _RELEASE(f)
    for name, kind, _, _, host in f["entries"]:
        want(name.split("/")[0] == KINDS[kind][0] and not refused(host, f["host"]))
    return f["entries"]


# 5.5 Withdrawals

_OF_ALL = {"version": ONE, "reason": text("[!-~]([ -~]{0,198}[!-~])?"), "issued_at": TIME}
_OF_MISSION = fields({**_OF_ALL, "mission": text(MISSION), "epoch": number(1), "sequence": number(1)})
_OF_RELEASE = fields({**_OF_ALL, "release": ID})


def withdrawal(data: bytes, name: str, newest: Root, order: list[int]) -> dict[str, Any] | None:
    """The withdrawal in the place of this name, where it holds; None where it is passed over."""
    e = envelope(data, "withdrawal")
    want(len(e.payload) <= 1024, "bad-envelope")
    f = decode(e.payload)
    want(type(f) is dict)
    (_OF_RELEASE if "release" in f else _OF_MISSION)(f)
    want(name == (f"{f['release'].hex()}.release" if "release" in f else f"{f['mission']}.mission"), "bad-withdrawal")
    role = "release" if "release" in f else "mission"
    try:
        newest.signers(e, role)
    except Fault:
        mine = {one: key for one, key in newest.kids(role).items() if one in e.signatures}
        good = all(e.good(key, newest.domain) for key in mine.values())
        if role == "mission" and good and [f["epoch"], f["sequence"]] < order:
            return None
        raise
    return f


# 2.1 Reading


def opened(base: Path, path: str, flags: int) -> int:
    """A descriptor reached through no link."""
    at = -1
    try:
        at = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
        *folders, name = path.split("/")
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        return os.open(name, flags | os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    except OSError as error:
        wrong_type = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)
        kind = "wrong-type" if error.errno in wrong_type else "missing" if error.errno == errno.ENOENT else "unreadable"
        raise Fault(kind) from None
    finally:
        if at >= 0:
            os.close(at)


def read(base: Path, path: str, limit: int) -> bytes:
    """A regular file of at most `limit` bytes."""
    file = opened(base, path, 0)
    try:
        want(stat.S_ISREG(os.fstat(file).st_mode), "wrong-type")
        data = b""
        while len(data) <= limit and (piece := os.read(file, min(limit + 1 - len(data), 2**20))):
            data += piece
    finally:
        os.close(file)
    want(len(data) <= limit, "too-large")
    return data


def object_(store: Path, id_: bytes, *, size: int | None = None, others: Container[bytes] = ()) -> bytes:
    """An object of a signed size, or an envelope; `others` are the objects of the same mission."""
    path = f"objects/{id_.hex()[:2]}/{id_.hex()[2:]}"
    try:
        data = read(store, path, 66 * 1024 if size is None else size)
    except Fault as fault:
        raise Fault("oversized" if fault.kind == "too-large" else fault.kind) from None
    want(size is None or len(data) == size, "truncated")
    actual = blake3(data).digest()
    want(actual == id_, "swapped" if actual in others else "bit-flip")
    return data


# 10.1 The state of an aircraft


def _seen(value: Any) -> None:
    want(type(value) is bytes and len(value) in (0, 32))


_STATE = fields(
    {
        "format": ONE, "id": text(AIRCRAFT), "host": host_class, "root": octets(1, 66 * 1024),
        "missions": array(row(text(MISSION), number(1), number(1), _seen), 0, 10_000, lambda one: one[0]),
        "accepted": array(text(FLIGHT), 0, 10_000, itself), "consumed": array(text(FLIGHT), 0, 50_000, itself),
        "proofs": array(ID, 0, 10_000, itself), "releases": array(ID, 0, 1_000, itself),
        "issued": TIME, "clock": TIME,
    }
)  # fmt: skip


def slot(data: bytes) -> tuple[int, bytes]:
    """The number of the change, and the CBOR, of a slot that is whole."""
    whole = len(data) > 40 and derive("aircraft state", data[32:]) == data[:32] and data[32] < 128
    want(whole, "bad-state")
    return int.from_bytes(data[32:40], "big"), data[40:]


def state(folder: Path) -> dict[str, Any]:
    """The newer of two slots; one is enough where the other is lost, torn or one number behind."""
    whole = []
    lost = 0
    for name in ("a", "b"):
        try:
            whole.append(slot(read(folder, name, 6 * 2**20 + 40)))
        except Fault as fault:
            lost += fault.kind == "missing"
    want(lost < 2, "no-state")
    want(whole, "bad-state")
    older, newer = min(whole), max(whole)
    want(older == newer or newer[0] == older[0] + 1, "bad-state")
    try:
        f = decode(newer[1])
        _STATE(f)
        want(not set(f["accepted"]) & set(f["consumed"]))
        root(f["root"])
    except Fault:
        raise Fault("bad-state") from None
    return f


# 7 The takeoff check


@dataclass(frozen=True)
class Ask:
    """What is asked of a mission, besides its being genuine; `state` is the folder of an aircraft's state."""

    aircraft: str | None = None
    host: str | None = None
    flight: str | None = None
    clock: int | None = None
    state: Path | None = None


Answer = tuple[bool, frozenset[tuple[str, str]]]


def verify(store: Path, mission: str, pinned: bytes, ask: Ask) -> Answer:
    """GO or not, and every finding as (step, kind). With a state, aircraft, class and root are those of the state.

    Raises Fault where the folder is no store, and for a pinned root that is none.
    """
    _is_store(store)
    return judge(store, mission, pinned, ask)


def judge(store: Path, mission: str, pinned: bytes, ask: Ask) -> Answer:
    """`verify`, of any folder."""
    memory = None
    try:
        if ask.state is not None:
            memory = state(ask.state)
            ask = replace(ask, aircraft=memory["id"], host=memory["host"])
            pinned = memory["root"]
    except Fault as fault:
        return False, frozenset({("E", fault.kind)})
    try:
        first = root(pinned)
    except Fault:
        raise Fault("bad-pinned-root") from None
    found = frozenset(_check(store, mission, first, ask, memory))
    return not found, found


def _is_store(store: Path) -> None:
    try:
        toml = tomllib.loads(read(store, "flightbag.toml", 4096).decode())
    except (Fault, ValueError):
        raise Fault("no-store") from None
    id_ = toml.get("id")
    want(type(toml.get("format")) is int and toml["format"] == 1, "no-store")
    want(type(id_) is str and re.fullmatch("[0-9a-f]{32}", id_), "no-store")


def _check(
    store: Path, mission: str, pinned: Root, ask: Ask, memory: dict[str, Any] | None
) -> Iterator[tuple[str, str]]:
    sealed = newest = None
    try:
        sealed = envelope(object_(store, _ref(store, mission)), "manifest")
    except Fault as fault:
        yield "A", fault.kind
    try:
        newest = chain(store, pinned)
    except Fault as fault:
        yield "B", fault.kind
    if sealed is None or newest is None:
        return
    try:
        newest.signers(sealed, "mission")
    except Fault as fault:
        yield "C", fault.kind
        return
    try:
        f = payload(sealed.payload)
        entries = table(object_(store, f["table"][0], size=f["table"][1]))
        lists = [(one[0], one[5]["missing"]) for one in entries if one[1] == "coverage"]
        missing = f["coverage"]["missing"]
        want(all(name == "coverage/missing.cbor" for name, _ in lists), "bad-coverage")
        want(len(entries) == f["count"], "bad-count")
        want([count for _, count in lists] == [missing] * (missing > 0), "bad-coverage")
        want(merkle([leaf_hash(encode(one)) for one in entries]) == f["root"], "bad-merkle-root")
        want(identity(f, entries) == f["identity"], "bad-identity")
    except Fault as fault:
        yield "D", fault.kind
        return
    if memory is not None:
        memory = moved(memory, newest, ask.clock if ask.clock is not None and ask.clock <= LAST else None)
    found = {("E", kind) for kind in binding(f, entries, newest, mission, ask)}
    found |= {("E", kind) for kind in passed(f, newest, ask, memory)}
    found |= {("E", kind) for kind in remembered(f, sealed, memory)}
    found |= {("E", kind) for kind in withdrawn(store, f, newest, memory)}
    found |= {("E", kind) for kind in proven(f, entries, ask, memory)}
    found |= {("E", kind) for kind in approved(store, f, entries, newest)}
    found |= {("F", kind) for kind in closure(store, f, entries)}
    yield from found or {("E", kind) for kind in full(f, memory)}


def _ref(store: Path, mission: str) -> bytes:
    text(MISSION, kind="missing")(mission)
    data = read(store, f"missions/{mission}", 65)
    want(re.fullmatch(rb"[0-9a-f]{64}\n", data), "bad-ref")
    return bytes.fromhex(data[:64].decode())


def chain(store: Path, pinned: Root) -> Root:
    """Step B: the newest root of the store that the pinned one leads to. Roots are asked for by name (2.1)."""
    try:
        folder = opened(store, "trust", os.O_DIRECTORY)
    except Fault as fault:
        want(fault.kind == "missing", fault.kind)
        return pinned
    versions = []
    try:
        for version in range(pinned.version + 1, pinned.version + 34):
            with contextlib.suppress(FileNotFoundError):
                os.stat(f"{version}.root.cbor", dir_fd=folder, follow_symlinks=False)
                versions.append(version)
    finally:
        os.close(folder)
    after = pinned.version + 1
    want(versions == list(range(after, after + len(versions))) and len(versions) <= 32, "bad-trust-chain")
    newest = pinned
    for data in [read(store, f"trust/{version}.root.cbor", 66 * 1024) for version in versions]:
        newest = step(newest, data)
    return newest


def binding(f: dict[str, Any], entries: list[list[Any]], newest: Root, mission: str, ask: Ask) -> Iterator[str]:
    """Step E: names, hardware, place and root."""
    m, i, r = f["mission"], f["issue"], newest.fields
    if m["id"] != mission:
        yield "wrong-mission"
    if ask.aircraft is not None and ask.aircraft not in m["aircraft"]:
        yield "wrong-aircraft"
    if ask.flight is not None and ask.flight != m["flight"]:
        yield "wrong-flight"
    if not fits(f["hosts"], entries, ask.host):
        yield "wrong-host"
    if "takeoff_outside" not in m and not inside(m["area"], m["takeoff"][0], m["takeoff"][1]):
        yield "takeoff-outside-area"
    if i["epoch"] != r["epoch"]:
        yield "wrong-epoch"
    if i["min_root_version"] > r["version"]:
        yield "old-root"
    if i["issued_at"] < r.get("issued_after", 0):
        yield "issued-too-early"


def fits(hosts: list[str], entries: list[list[Any]], aboard: str | None) -> bool:
    """4.5: whether every class has an engine of each backbone and reads each index, and every engine has a class."""
    engines: dict[str, dict[bytes, set[str]]] = {}
    indexes = set()
    for _, kind, _, _, key, meta in entries:
        if kind == "engine":
            engines.setdefault(meta["backbone"], {}).setdefault(key, set()).add(meta["host"])
        elif kind == "index":
            indexes.add(meta["host"])
    classes = hosts if aboard is None else [*hosts, aboard]

    def taken(needs: set[str], by: list[str]) -> list[str]:
        return [one for one in by if not any(refused(need, one) for need in needs)]

    return (
        (aboard is None or any(not refused(host, aboard) for host in hosts))
        and taken(indexes, classes) == classes
        and all(taken(needs, hosts) for keys in engines.values() for needs in keys.values())
        and all(any(taken(needs, [one]) for needs in keys.values()) for keys in engines.values() for one in classes)
    )


def passed(f: dict[str, Any], newest: Root, ask: Ask, memory: dict[str, Any] | None) -> Iterator[str]:
    """Step E: time (7.1) and lifetime (5)."""
    issue, most = f["issue"], newest.fields.get("max_lifetime", LAST)
    if "max_lifetime" in newest.fields and issue.get("expires_at", LAST + most + 1) - issue["issued_at"] > most:
        yield "lifetime"
    clock = ask.clock if ask.clock is not None and ask.clock <= LAST else None
    signed_at = [issue["issued_at"], newest.fields["issued_at"]]
    floor = [memory["issued"], memory["clock"]] if memory else []
    if any(ahead(at, clock) for at in signed_at):
        yield "issued-in-future"
    if any(ahead(at, clock) for at in floor):
        yield "floor-ahead"
    known = [at for at in signed_at + floor if not ahead(at, clock)]
    now = max(known if clock is None else [*known, clock])
    if now > issue.get("expires_at", LAST):
        yield "expired"
    if clock is not None and "valid_from" in issue and now < issue["valid_from"]:
        yield "not-yet-valid"
    if stale(f["coverage"], now):
        yield "stale-imagery"


def ahead(at: int, clock: int | None) -> bool:
    """7.1: whether a known time is more than the skew after a trusted clock."""
    return clock is not None and at > clock + DAY


def moved(memory: dict[str, Any], newest: Root, clock: int | None) -> dict[str, Any]:
    """10.2: the state after it has seen a newer root."""
    before = root(memory["root"])
    if newest.version == before.version:
        return memory
    at = 0 if ahead(newest.fields["issued_at"], clock) else newest.fields["issued_at"]
    issued = at if newest.fields["epoch"] > before.fields["epoch"] else max(at, memory["issued"])
    missions = [one for one in memory["missions"] if one[1] >= newest.fields["epoch"]]
    return {**memory, "issued": issued, "missions": missions}


def remembered(f: dict[str, Any], sealed: Envelope, memory: dict[str, Any] | None) -> Iterator[str]:
    """Step E: the state of an aircraft (10.2)."""
    if memory is None:
        return
    order = [f["issue"]["epoch"], f["issue"]["sequence"]]
    for id_, epoch, sequence, digest in memory["missions"]:
        if id_ == f["mission"]["id"] and digest:
            if order < [epoch, sequence]:
                yield "rolled-back"
            if order == [epoch, sequence] and blake3(sealed.payload).digest() != digest:
                yield "same-sequence"
    if f["mission"]["flight"] in memory["consumed"]:
        yield "consumed-flight"


def withdrawn(store: Path, f: dict[str, Any], newest: Root, memory: dict[str, Any] | None) -> Iterator[str]:
    """Step E: the mission and the releases that it names, by the store (5.5) and by the state (10.2)."""
    order = [f["issue"]["epoch"], f["issue"]["sequence"]]
    missions = {one[0]: one[1:] for one in memory["missions"]} if memory else {}
    releases = set(memory["releases"]) if memory else set()
    names = [f"{f['mission']['id']}.mission"]
    for id_ in f["releases"]:
        with contextlib.suppress(Fault):
            names.append(f"{derive('release payload', envelope(object_(store, id_), 'release').payload).hex()}.release")
    for name in names:
        subject = name.split(".")[0]
        ends = False
        try:
            found = withdrawal(read(store, f"withdrawn/{name}", 3 * 1024), name, newest, order)
        except Fault as fault:
            found = None
            if fault.kind != "missing":
                yield fault.kind
        if found is not None and "release" in found:
            ends = True
            releases.add(found["release"])
        elif found is not None:
            upto = [found["epoch"], found["sequence"]]
            ends = order <= upto
            if upto[0] == newest.fields["epoch"] and upto >= missions.get(subject, upto)[:2]:
                missions[subject] = [*upto, b""]
        if name.endswith(".release"):
            ends = ends or (memory is not None and bytes.fromhex(subject) in memory["releases"])
        else:
            for id_, *seen, digest in memory["missions"] if memory else ():
                ends = ends or (id_ == subject and not digest and order <= seen)
        if ends:
            yield "withdrawn"
    if memory and (len(missions) > 10_000 or len(releases) > 1_000):
        yield "state-full"


def proven(f: dict[str, Any], entries: list[list[Any]], ask: Ask, memory: dict[str, Any] | None) -> Iterator[str]:
    """Step E: the figures that each aircraft proves itself (10.5), but for those of engines that it does not load."""
    engines: dict[str, dict[bytes, list[list[Any]]]] = {}
    for one in entries:
        if one[1] == "engine":
            engines.setdefault(one[5]["backbone"], {}).setdefault(one[4], []).append(one)
    aboard = [group for keys in engines.values() for group in keys.values()]
    if ask.host is not None:
        aboard = [loaded(list(keys.values()), ask.host) for keys in engines.values()]
    for figure, least, recipe in f.get("unproven", ()):
        probe = next((one for one in entries if one[0] == f"probes/{figure[9:]}.safetensors"), None)
        mine = [
            group
            for keys in engines.values()
            for key, group in keys.items()
            if probe is not None and recipe == fidelity(probe[4], key)
        ]
        if mine and not any(group in aboard for group in mine):
            continue
        parts = {part: {one[2] for group in mine for one in group if one[5]["part"] == part} for part in PARTS}
        if probe is None or len(parts["model"]) != 1 or len(parts["weights"]) > 1:
            yield "unproven"
            continue
        objects = [id_ for part in PARTS for id_ in parts[part]]
        proof = derive("proof aboard", encode([figure, least, recipe, probe[2], objects]))
        if memory is None or proof not in memory["proofs"]:
            yield "unproven"


PARTS = ("model", "weights")


def fidelity(probe: bytes, engine: bytes) -> bytes:
    """6.7: the recipe of a figure of fidelity."""
    return derive("quality recipe", encode({"schema": "flightbag/fidelity/1", "probe": probe, "engine": engine}))


def loaded(engines: list[list[list[Any]]], host: str) -> list[list[Any]] | None:
    """4.5: of the engines of a backbone, each its entries, the one that a host of this class loads."""
    taken = [group for group in engines if not any(refused(one[5]["host"], host) for one in group)]
    first = [group[0] for group in taken]
    ranks = [(-len(one[5]["host"].split("+")), -len(one[5]["host"]), one[4]) for one in first]
    return taken[ranks.index(min(ranks))] if taken else None


def full(f: dict[str, Any], memory: dict[str, Any] | None) -> Iterator[str]:
    """What a GO adds to the state has room in it (10.1)."""
    if memory is not None:
        missions = {one[0] for one in memory["missions"]} | {f["mission"]["id"]}
        if len(missions) > 10_000 or len({*memory["accepted"], f["mission"]["flight"]}) > 10_000:
            yield "state-full"


def approved(store: Path, f: dict[str, Any], entries: list[list[Any]], newest: Root) -> Iterator[str]:
    """Step E: where releases are required, every engine and index is in one that holds."""
    if newest.fields["releases"] == "optional":
        return
    good = []
    for id_ in f["releases"]:
        try:
            good += release(object_(store, id_), newest)
        except Fault as fault:
            if fault.kind != "missing":  # that is of step F
                yield fault.kind
    for name, kind, id_, size, _, meta in entries:
        if kind in ("engine", "index") and [name, kind, id_, size, meta["host"]] not in good:
            yield "unreleased"


def closure(store: Path, f: dict[str, Any], entries: list[list[Any]]) -> Iterator[str]:
    """Step F: every object, by size and hash."""
    sizes = {one[2]: one[3] for one in entries}
    if any(sizes[one[2]] != one[3] for one in entries):
        yield "bad-entry"
    wanted = [*sizes.items(), *((id_, None) for id_ in f["releases"])]
    others = {id_ for id_, _ in wanted}
    for id_, size in wanted:
        try:
            object_(store, id_, size=size, others=others)
        except Fault as fault:
            yield fault.kind


# 10.4 Proofs

_FILE = octets(0, 66 * 1024)
_PROOF = fields(
    {
        "format": ONE, "manifest": _FILE, "roots": array(_FILE, 0, 32), "entry": octets(0, 4096),
        "index": number(0, 99_999), "hashes": array(octets(0, 32), 0, 17), "releases": array(_FILE, 0, 64),
    }
)  # fmt: skip


def prove(data: bytes, pinned: bytes) -> list[Any]:
    """The entry that a proof shows. Raises Fault."""
    f = decode(data)
    _PROOF(f)
    newest = first = root(pinned)
    for one in f["roots"]:
        if root(one).version > first.version:
            newest = step(newest, one)
    sealed = envelope(f["manifest"], "manifest")
    newest.signers(sealed, "mission")
    p = payload(sealed.payload)
    want(included(leaf_hash(f["entry"]), f["index"], p["count"], f["hashes"], p["root"]), "bad-proof")
    shown = decode(f["entry"])
    entry(shown)
    want(p["issue"]["epoch"] == newest.fields["epoch"], "wrong-epoch")
    want(p["issue"]["min_root_version"] <= newest.version, "old-root")
    want(p["issue"]["issued_at"] >= newest.fields.get("issued_after", 0), "issued-too-early")
    if newest.fields["releases"] == "required" and shown[1] in ("engine", "index"):
        named = [one for one in f["releases"] if blake3(one).digest() in p["releases"]]
        good = [approval for one in named for approval in release(one, newest)]
        want([*shown[:4], shown[5]["host"]] in good, "unreleased")
    return shown
