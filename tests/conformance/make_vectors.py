"""The golden vectors of format 1: fixed keys, fixed times, the same bytes on every run.

`python -m tests.conformance.make_vectors` writes them anew; `test_vectors.py` makes them again and compares byte for
byte. Another implementation of FORMAT.md reads `index.json`: for each file the reader that it is for and, where it
must be refused, the kind of the refusal.

- `cbor`: FORMAT 3. `table`: 4.3. `payload`: 4.2.
- `root`: a trust root on its own (5). `step`: what follows `valid/root-1.cbor`.
- `manifest`: a signed manifest (4.1, 4.2) under `valid/root-1.cbor`; `refused_by` is the step of the takeoff check.
- `release`: 5.1, under `valid/root-1.cbor`. `draft`: the draft of a root (5).
- `slot`: 10.1. `entry-proof`: 10.4, under `valid/root-1.cbor`.
- `proof`: CBOR [leaf data, index, size, [sibling …], root]: an inclusion proof (RFC 9162, 2.1.3) under the hash of 4.3.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from store.format import manifest as manifests
from store.format import merkle
from store.format import release as releases
from store.format import withdrawal as withdrawals
from store.format.area import Area
from store.format.cbor import decode, encode
from store.format.cose import Envelope, Signature
from store.format.ids import ObjectId, derive
from store.format.manifest import PAYLOAD_LIMIT, Coverage, Figure, Issue
from store.format.release import KINDS as RELEASED
from store.format.release import Approval, Release
from store.takeoff.fidelity import proof_digest
from store.takeoff.mission import Opened
from store.takeoff.proof import Proof
from store.trust import root as roots
from store.trust.aircraft_state import Acceptance, AircraftState, payload_digest
from store.trust.draft import MAGIC, RootDraft
from store.trust.root import ROOT_LIMIT, SignedRoot
from tests.support.missions import (
    COVERAGE,
    FACTS,
    ISSUE,
    METAS,
    NOW,
    ROOT,
    UNPROVEN,
    entry,
    key,
    manifest_of,
    next_root,
    role,
    sign_manifest,
    sign_payload,
    sign_root,
    sign_withdrawal,
    table_of,
    withdrawal,
)

FOLDER = Path(__file__).parent / "vectors"
# One entry of every kind.
CONTENTS = {
    "cards/net/net.json": b'{"engine": "net"}',
    "coverage/missing.cbor": b"\x80",
    "descriptors/net/16/12-1150-1410.safetensors": b"\x10\x11" * 40,
    "engines/net/net.onnx": b"the engine of net",
    "files/camera.yaml": b"fx: 1.0\n",
    "indexes/net.faiss": b"an index",
    "probes/net.safetensors": b"\x12\x13" * 20,
}


@dataclass(frozen=True, slots=True)
class Vector:
    """One file. `kind` is empty for what must be accepted; `refused_by` is said of manifests alone."""

    lesson: str
    reader: str
    data: bytes
    kind: str = ""
    refused_by: str = ""

    @property
    def name(self) -> str:
        return f"{'invalid' if self.kind else 'valid'}/{self.lesson}.cbor"

    def as_json(self) -> dict[str, str]:
        said = {"reader": self.reader, "kind": self.kind, "refused_by": self.refused_by}
        return {name: value for name, value in said.items() if value}


def value_of(data: bytes, limit: int = PAYLOAD_LIMIT) -> Any:
    return decode(data, limit=limit, what="the vector")


def cbor() -> Iterator[Vector]:
    yield Vector("cbor-every-type", "cbor", encode({"int": -1, "text": "ü", "bytes": b"\x00", "list": [[], {}]}))
    yield Vector("cbor-int64-bounds", "cbor", encode([2**63 - 1, -(2**63)]))
    refused = {
        "float": "fb3ff8000000000000", "whole-float": "f94200", "minus-zero": "f98000", "null": "f6", "true": "f5",
        "undefined": "f7", "simple-0": "e0", "bignum": "c249010000000000000000", "small-bignum": "c24101",
        "date": "c11a514b67b0", "self-described": "d9d9f700", "shared-reference": "82d81c8001d81d00",
        "indefinite-array": "9f01ff", "indefinite-text": "7f6161ff", "duplicate-key": "a2616101616102",
        "unsorted-keys": "a2616201616101", "integer-key": "a10102", "key-of-24-bytes": "a17818" + "61" * 24 + "00",
        "long-integer": "1817", "long-length": "780161", "integer-of-65-bits": "1b8000000000000000",
        "trailing-byte": "0000", "cut": "8201", "bad-utf8": "61ff", "claimed-terabytes": "9b00000fffffffffff",
        "nested-too-deep": "81" * 13 + "00", "empty": "",
    }  # fmt: skip
    for lesson, data in refused.items():
        yield Vector(f"cbor-{lesson}", "cbor", bytes.fromhex(data), "not-canonical")


def tables() -> Iterator[Vector]:
    good = table_of(CONTENTS)
    values: list[Any] = [one.value() for one in good.entries]
    yield Vector("table", "table", good.render())
    yield Vector("table-names-that-begin-alike", "table", encode(named("files/a", "files/a-b", "files/ab/c")))

    def changed(position: int, new: Any, at: int = 3) -> bytes:
        copy = [list(value) for value in values]
        copy[at][position] = new
        return encode(copy)

    yield Vector("table-empty", "table", encode([]), "bad-table")
    yield Vector("table-unsorted", "table", encode(values[::-1]), "bad-order")
    yield Vector("table-duplicate-name", "table", encode(named("files/a", "files/a")), "bad-order")
    yield Vector("table-folder-of-another", "table", encode(named("files/a", "files/a-b", "files/a/b")), "bad-entry")
    for lesson, name in {
        "dot-dot": "files/../a", "absolute": "/files/a", "capital": "files/A", "unicode": "files/é",
        "dot-file": "files/.a", "backslash": "files/a\\b", "five-segments": "files/a/b/c/d",
        "unknown-folder": "models/a", "nul": "files/a\x00", "segment-of-65": "files/" + "a" * 65,
        "newline": "files/a\n",
    }.items():  # fmt: skip
        value: Any = [name, "file", bytes(32), 0, b"", {}]
        yield Vector(f"table-name-{lesson}", "table", encode([value]), "bad-entry")
    yield Vector("table-kind-of-another-folder", "table", changed(1, "file"), "bad-entry")
    yield Vector("table-unknown-kind", "table", changed(1, "model"), "bad-entry")
    yield Vector("table-short-id", "table", changed(2, bytes(31)), "bad-entry")
    yield Vector("table-negative-size", "table", changed(3, -1), "bad-entry")
    yield Vector("table-engine-without-key", "table", changed(4, b""), "bad-entry")
    yield Vector("table-file-with-key", "table", changed(4, bytes(32), at=4), "bad-entry")
    yield Vector("table-unknown-meta", "table", changed(5, {**METAS["engine"], "more": 1}), "bad-field")
    yield Vector("table-missing-meta", "table", changed(5, {}), "bad-field")
    least = {**METAS["engine"], "host": "cpu+ort>=1.22"}
    yield Vector("table-least-version", "table", changed(5, least))
    for lesson, host in {
        "unsorted": "sm87+cpu", "of-no-family": "banana", "of-no-architecture": "cpu-arm", "twice": "cpu+cpu-x86_64",
        "least-version-twice": "cpu+ort>=1.22+ort>=1.9", "least-version-of-a-cpu": "cpu>=1.22",
    }.items():  # fmt: skip
        meta = {**METAS["engine"], "host": host}
        yield Vector(f"table-host-{lesson}", "table", changed(5, meta), "bad-field")
    yield Vector("table-five-fields", "table", encode([value[:5] for value in values]), "bad-entry")
    yield Vector("table-long-head", "table", b"\x98\x07" + good.render()[1:], "not-canonical")


def named(*names: str) -> list[Any]:
    return [entry(name, b"").value() for name in names]


def payloads() -> Iterator[Vector]:
    table = table_of(CONTENTS)
    least = manifest_of(table, quality=(), issue=Issue(1, 1, 0, 1), coverage=COVERAGE)
    box = FACTS.area.bbox
    ring = (box[0], box[1], box[2], box[1], box[2], box[3], box[0], box[3])
    hole = (box[0] + 9, box[1] + 9, box[0] + 99, box[1] + 9, box[0] + 9, box[1] + 99)
    most = manifest_of(
        table,
        mission=replace(FACTS, area=Area(box, ((ring, hole), (ring,)))),
        issue=replace(ISSUE, previous=ObjectId(bytes(32)), valid_from=NOW),
        coverage=Coverage(bytes(32), 312, 10, 950_000, (16, 17), -11_574 * 86_400, 0, 10**5, 500, 9),
        releases=(ObjectId(bytes(32)),),
    )
    yield Vector("payload-least", "payload", least.render())
    yield Vector("payload-most", "payload", most.render())
    two = (Figure("fidelity/net", 2, 1, 8, bytes(32)), Figure("fidelity/net", 3, 1, 8, bytes([1]) * 32))
    fleet = manifest_of(table, hosts=("cpu-aarch64+sm87", "cpu-x86_64"), quality=two)
    yield Vector("payload-of-two-hosts", "payload", fleet.render())
    over = replace(FACTS, area=Area((1799000000, 470080000, -1799000000, 470330000)))
    yield Vector("payload-across-the-antimeridian", "payload", manifest_of(table, mission=over).render())

    good = value_of(most.render())

    def changed(group: str, **changes: Any) -> bytes:
        return encode({**good, group: {**good[group], **changes}})

    def without(group: str, field: str) -> bytes:
        return encode({**good, group: {name: value for name, value in good[group].items() if name != field}})

    bad: dict[str, bytes] = {
        "version-2": encode({**good, "version": 2}),
        "unknown-key": encode({**good, "more": 1}),
        "no-identity": encode({name: value for name, value in good.items() if name != "identity"}),
        "no-entries": encode({**good, "count": 0}),
        "table-of-17-mib": encode({**good, "table": [bytes(32), 17 * 2**20]}),
        "host-unsorted": encode({**good, "hosts": ["sm87+cpu"]}),
        "host-of-a-least-version": encode({**good, "hosts": ["cpu+ort>=1.22"]}),
        "no-hosts": encode({**good, "hosts": []}),
        "hosts-of-17": encode({**good, "hosts": [f"ort-{number}" for number in range(10, 27)]}),
        "figure-below-its-least": encode({**good, "quality": [["recall", 1, 2, 1, bytes(32)]]}),
        "figure-of-more-than-all": encode({**good, "quality": [["recall", 10**6 + 1, 1, 1, bytes(32)]]}),
        "figure-of-less-than-nothing": encode({**good, "quality": [["recall", 0, -1, 1, bytes(32)]]}),
        "figure-on-no-query": encode({**good, "quality": [["recall", 2, 1, 0, bytes(32)]]}),
        "mission-id-in-capitals": changed("mission", id="North"),
        "no-aircraft": changed("mission", aircraft=[]),
        "unknown-sector": changed("mission", sector="front"),
        "takeoff-beyond-the-pole": changed("mission", takeoff=[900000001, 0, 0]),
        "takeoff-outside-and-inside": changed("mission", takeoff_outside=1),
        "area-of-no-height": changed("mission", area={"bbox": [0, 1, 1, 1], "polygons": []}),
        "area-outside-its-box": changed("mission", area={"bbox": [0, 0, 9, 9], "polygons": [[[0, 0, 9, 0, 10, 9]]]}),
        "ring-of-two-vertices": changed("mission", area={"bbox": [0, 0, 9, 9], "polygons": [[[0, 0, 9, 9]]]}),
        "no-epoch": without("issue", "epoch"),
        "expires-as-text": changed("issue", expires_at="never"),
        "expires-before-its-issue": changed("issue", expires_at=ISSUE.issued_at - 1, valid_from=0),
        "expires-before-it-is-valid": changed("issue", valid_from=NOW + 2, expires_at=NOW + 1),
        "valid-from-before-1970": changed("issue", valid_from=-1),
        "more-missing-than-allowed": changed("coverage", missing=16),
        "repeated-more-than-described": changed("coverage", repeated=303),
        "repeated-none": changed("coverage", repeated=0),
        "oldest-after-newest": changed("coverage", oldest=86_400),
        "oldest-at-noon": changed("coverage", oldest=-43_200),
        "newest-a-second-after-midnight": changed("coverage", newest=1),
        "older-than-its-own-limit": changed("coverage", max_age_days=900),
    }
    for lesson, data in bad.items():
        yield Vector(f"payload-{lesson}", "payload", data, "bad-field")
    figures = [["fidelity/net", 990_000, bytes(32)], ["fidelity/net", 0, b"\x01" * 32]]
    small = {**value_of(least.render()), "unproven": figures}
    yield Vector("payload-unproven", "payload", encode(small))
    yield Vector("payload-unproven-unsorted", "payload", encode({**small, "unproven": figures[::-1]}), "bad-order")
    for lesson, changes in {
        "and-measured": {"quality": [["fidelity/net", 1, 1, 1, bytes(32)]]},
        "recall": {"unproven": [["recall@1/net/shift", 1, bytes(32)]]},
        "of-more-than-all": {"unproven": [["fidelity/net", 10**6 + 1, bytes(32)]]},
        "empty": {"unproven": []},
    }.items():
        yield Vector(f"payload-unproven-{lesson}", "payload", encode({**small, **changes}), "bad-field")
    yield Vector("payload-aircraft-unsorted", "payload", changed("mission", aircraft=["b", "a"]), "bad-order")
    yield Vector("payload-hosts-unsorted", "payload", encode({**good, "hosts": ["sm87", "cpu"]}), "bad-order")
    yield Vector("payload-host-twice", "payload", encode({**good, "hosts": ["cpu", "cpu"]}), "bad-order")
    twice = [["recall", value, 1, 1, bytes(32)] for value in (2, 3)]
    yield Vector("payload-figure-twice-with-one-recipe", "payload", encode({**good, "quality": twice}), "bad-order")
    yield Vector("payload-recipes-of-a-figure-unsorted", "payload", encode(
        {**good, "quality": [figure.as_value() for figure in two[::-1]]}), "bad-order")  # fmt: skip
    yield Vector("payload-zooms-twice", "payload", changed("coverage", zooms=[16, 16]), "bad-order")
    yield Vector("payload-of-a-float", "payload", b"\xfb\x3f\xf8" + bytes(6), "not-canonical")


def trust() -> Iterator[Vector]:
    second = next_root(ROOT, root=role("root-b"), revoked=role("stolen").keys, epoch=2, issued_after=NOW)
    yield Vector("root-1", "root", sign_root(ROOT, "root-a"))
    yield Vector("root-2", "step", sign_root(second, "root-a", "root-b"))
    full = replace(ROOT, release=role("lab", "lab-b", threshold=2), releases="required")
    yield Vector("root-releases-required", "root", sign_root(full, "root-a"))

    lifetimes = replace(ROOT, default_lifetime=86400, max_lifetime=86400)
    yield Vector("root-lifetimes", "root", sign_root(lifetimes, "root-a"))

    named = tuple(sorted([(key("pilot").public, "Pia of the ridge"), (key("root-a").public, "Ada")]))
    yield Vector("root-names", "root", sign_root(replace(ROOT, names=named), "root-a"))

    good = value_of(ROOT.render(), ROOT_LIMIT)
    pilot = {"keys": [key("pilot").public.raw], "threshold": 1}

    def signed(**changes: Any) -> bytes:
        return sign_payload(encode({**good, **changes}), roots.CONTENT_TYPE, ROOT.aad(roots.AAD_LABEL), ["root-a"])

    yield Vector("root-unsigned", "root", sign_root(ROOT), "threshold")
    yield Vector("root-signed-by-the-mission-key", "root", sign_root(ROOT, "pilot"), "unknown-signer")
    yield Vector("root-a-stranger-signs-too", "root", sign_root(ROOT, "root-a", "stranger"), "unknown-signer")
    other_label = sign_payload(ROOT.render(), roots.CONTENT_TYPE, ROOT.aad(manifests.AAD_LABEL), ["root-a"])
    yield Vector("root-signed-as-a-manifest", "root", other_label, "bad-signature")
    yield Vector("root-typed-as-a-manifest", "root", sign_payload(
        ROOT.render(), manifests.CONTENT_TYPE, ROOT.aad(roots.AAD_LABEL), ["root-a"]), "bad-envelope")  # fmt: skip
    yield Vector("root-unknown-key", "root", signed(more=1), "bad-field")
    yield Vector("root-lifetime-of-nothing", "root", signed(max_lifetime=0), "bad-field")
    yield Vector("root-default-lifetime-beyond-the-maximum", "root", signed(
        default_lifetime=2, max_lifetime=1), "bad-field")  # fmt: skip
    yield Vector("root-name-of-an-unlisted-key", "root", signed(names=[[key("x").public.raw, "Ada"]]), "bad-field")
    yield Vector("root-name-of-two-keys", "root", signed(
        names=[[one.raw, "Ada"] for one, _ in named]), "bad-field")  # fmt: skip
    yield Vector("root-name-with-an-escape", "root", signed(names=[[pilot["keys"][0], "A\x1b[2K"]]), "bad-field")
    yield Vector("root-threshold-beyond-its-keys", "root", signed(
        roles={**good["roles"], "mission": {**pilot, "threshold": 2}}), "bad-field")  # fmt: skip
    yield Vector("root-key-for-release-and-mission", "root", signed(
        roles={**good["roles"], "release": pilot}), "bad-field")  # fmt: skip
    yield Vector("root-revoked-key-in-a-role", "root", signed(revoked=pilot["keys"]), "bad-field")

    steps = {
        "self-signed": ("threshold", sign_root(next_root(ROOT, root=role("thief")), "thief")),
        "signed-by-the-old-key-alone": ("threshold", sign_root(second, "root-a")),
        "signed-by-the-new-key-alone": ("threshold", sign_root(second, "root-b")),
        "signed-by-a-stranger-too": ("unknown-signer", sign_root(next_root(ROOT), "root-a", "stranger")),
        "skips-a-version": ("bad-trust-chain", sign_root(next_root(ROOT, version=3), "root-a")),
        "of-another-branch": ("bad-trust-chain", sign_root(next_root(ROOT, previous=bytes(32)), "root-a")),
        "of-another-domain": ("bad-trust-chain", sign_root(next_root(replace(ROOT, domain="valley")), "root-a")),
        "same-version": ("bad-trust-chain", sign_root(ROOT, "root-a")),
    }
    for lesson, (kind, data) in steps.items():
        yield Vector(f"step-{lesson}", "step", data, kind)


def signed_manifests() -> Iterator[Vector]:
    # The table names a list of one missing tile.
    coverage = replace(COVERAGE, missing=1, required_ppm=990_000)
    good = manifest_of(table_of(CONTENTS), coverage=coverage)
    more = manifest_of(table_of(CONTENTS), coverage=replace(coverage, missing=2))
    none = manifest_of(table_of(CONTENTS), coverage=COVERAGE)
    data = sign_manifest(good)
    yield Vector("manifest", "manifest", data)
    envelope = Envelope.parse(data, manifests.CONTENT_TYPE, PAYLOAD_LIMIT)
    (pilot,) = envelope.signatures
    stranger = replace(pilot, kid=key("stranger").public.kid)
    forged = replace(pilot, signature=bytes([pilot.signature[0] ^ 1]) + pilot.signature[1:])
    small = Signature(pilot.kid, (1).to_bytes(32, "little") + pilot.signature[32:])
    kid_at = data.index(pilot.kid)
    refused: dict[str, tuple[str, str, bytes]] = {
        "unsigned": ("C", "threshold", sign_manifest(good, by=())),
        "signed-by-a-stranger": ("C", "unknown-signer", sign_manifest(good, by=["stranger"])),
        "a-stranger-signs-too": ("C", "unknown-signer", sign_manifest(good, by=["pilot", "stranger"])),
        "signed-in-another-role": ("C", "wrong-role", sign_manifest(good, by=["lab"])),
        "signed-in-another-domain": ("C", "bad-signature", sign_manifest(good, replace(ROOT, domain="valley"))),
        "forged-signature": ("C", "bad-signature", replace(envelope, signatures=(forged,)).render()),
        "small-order-r": ("C", "bad-signature", replace(envelope, signatures=(small,)).render()),
        "signature-under-another-kid": ("C", "unknown-signer", replace(envelope, signatures=(stranger,)).render()),
        "payload-changed": ("C", "bad-signature", data.replace(b"north-ridge", b"south-ridge")),
        "signature-twice": ("A", "bad-order", replace(envelope, signatures=(pilot, pilot)).render()),
        "trailing-byte": ("A", "not-canonical", data + b"\x00"),
        "cose-sign1": ("A", "bad-envelope", b"\xd2" + data[2:]),
        "long-tag": ("A", "bad-envelope", b"\xd9\x00\x62" + data[2:]),
        "old-eddsa-number": ("A", "bad-envelope", data[: kid_at - 4] + b"\x27" + data[kid_at - 3 :]),
        "empty-payload": ("A", "bad-envelope", b"\xd8\x62" + encode([*value_of(data[2:])[:2], b"", []])),
        "misses-more-tiles-than-it-lists": ("D", "bad-coverage", sign_manifest(more)),
        "lists-tiles-and-misses-none": ("D", "bad-coverage", sign_manifest(none)),
        "signed-garbage": ("D", "not-canonical", sign_payload(
            b"\xff", manifests.CONTENT_TYPE, ROOT.aad(manifests.AAD_LABEL), ["pilot"])),
    }  # fmt: skip
    for lesson, (step, kind, bad) in refused.items():
        yield Vector(f"manifest-{lesson}", "manifest", bad, kind, step)


def proofs() -> Iterator[Vector]:
    table = table_of(CONTENTS)
    leaves, size = table.leaves, len(table.leaves)
    proof = merkle.inclusion_proof(leaves, 5)

    def vector(lesson: str, kind: str = "", **changes: Any) -> Vector:
        good: dict[str, Any] = {
            "leaf": leaves[5],
            "index": 5,
            "size": size,
            "proof": list(proof),
            "root": table.merkle_root,
        }
        return Vector(f"proof-{lesson}", "proof", encode(list((good | changes).values())), kind)

    yield vector("of-seven")
    last = merkle.inclusion_proof(leaves, 6)
    yield vector("of-the-odd-last-leaf", leaf=leaves[6], index=6, proof=list(last))
    refused: dict[str, dict[str, Any]] = {
        "of-another-leaf": {"leaf": leaves[4]},
        "at-another-index": {"index": 4},
        "beyond-the-tree": {"index": 7},
        "too-short": {"proof": list(proof[:-1])},
        "too-long": {"proof": [*proof, table.merkle_root]},
        "of-a-short-hash": {"proof": [*proof[:-1], proof[-1][:31]]},
        "to-another-root": {"root": bytes(32)},
    }
    for lesson, changes in refused.items():
        yield vector(lesson, "bad-proof", **changes)


def missing_tiles() -> Iterator[Vector]:
    """Lists of missing tiles (6.5)."""

    def vector(lesson: str, runs: Any, kind: str = "bad-field") -> Vector:
        return Vector(f"missing-{lesson}", "missing", encode(runs), kind)

    yield vector("none", [], "")
    runs = [[5, 2, "absent"], [7, 1, "blank"], [9, 3, "blank"], [2**40, 1, "too-old"]]
    yield vector("runs", runs, "")
    yield vector("no-array", {})
    yield vector("of-nothing", [[5, 0, "absent"]])
    yield vector("overlapping", [[5, 2, "absent"], [6, 1, "blank"]])
    yield vector("descending", [[9, 1, "absent"], [5, 1, "absent"]])
    yield vector("one-run-cut-in-two", [[5, 2, "absent"], [7, 1, "absent"]])
    yield vector("unknown-reason", [[5, 1, "lost"]])
    yield vector("beyond-the-last-zoom", [[2**60, 1, "absent"]])
    yield vector("negative", [[-1, 2, "absent"]])
    yield vector("two-numbers", [[5, 1]])
    yield Vector("missing-trailing-byte", "missing", encode(runs) + b"\x00", "not-canonical")


def aboard() -> Iterator[Vector]:
    """Releases (5.1), withdrawals (5.5), drafts of roots (5), slots of an aircraft's state (10.1) and proofs of entries
    (10.4)."""
    table = table_of(CONTENTS)
    approvals = tuple(sorted(Approval.of(one) for one in table.entries if one.kind in RELEASED))
    payload = Release("winter", NOW - 500, "cpu-x86_64", approvals).render()

    def release(data: bytes, *by: str) -> bytes:
        return sign_payload(data, releases.CONTENT_TYPE, ROOT.aad(releases.AAD_LABEL), by)

    yield Vector("release", "release", release(payload, "lab"))
    yield Vector("release-unsigned", "release", release(payload), "threshold")
    yield Vector("release-by-the-pilot", "release", release(payload, "pilot"), "wrong-role")
    value = value_of(payload)
    yield Vector("release-of-nothing", "release", release(encode({**value, "entries": []}), "lab"), "bad-field")
    backwards = encode({**value, "entries": value["entries"][::-1]})
    yield Vector("release-unsorted", "release", release(backwards, "lab"), "bad-order")

    gone = withdrawal()
    yield Vector("withdrawal", "withdrawal", sign_withdrawal(gone))
    other = sign_withdrawal(replace(gone, mission="south-ridge"))
    yield Vector("withdrawal-of-another-mission", "withdrawal", other, "bad-withdrawal")
    of_both = encode({**value_of(gone.render()), "release": bytes(32)})
    both = sign_payload(of_both, withdrawals.CONTENT_TYPE, ROOT.aad(withdrawals.AAD_LABEL), ("pilot",))
    yield Vector("withdrawal-of-both", "withdrawal", both, "bad-field")

    first = SignedRoot.parse(sign_root(ROOT, "root-a"))
    second = next_root(ROOT, issued_at=NOW, root=role("root-a", "root-b"))

    def draft(*by: str) -> bytes:
        envelope = Envelope.parse(sign_root(second, *by), roots.CONTENT_TYPE, ROOT_LIMIT)
        return RootDraft(first, second, envelope).render()

    yield Vector("draft", "draft", draft("root-a"))
    yield Vector("draft-without-the-root-before", "draft", encode([MAGIC, b"", sign_root(second)]), "bad-draft")
    yield Vector("draft-by-a-stranger", "draft", draft("root-a", "stranger"), "unknown-signer")

    seen = {FACTS.id: Acceptance(ISSUE.epoch, ISSUE.sequence, payload_digest(manifest_of(table)))}
    seen["south-ridge"] = Acceptance(ISSUE.epoch, ISSUE.sequence, b"")
    state = replace(AircraftState.initial("uav-07", "cpu-x86_64", first), missions=seen, consumed=("2026-11-22-01",))
    state = replace(state, proofs=(proof_digest(UNPROVEN, ObjectId.of(b"probe"), (ObjectId.of(b"engine"),)),))
    state = replace(state, releases=(bytes(32),))

    def slot(number: int, data: bytes) -> bytes:
        body = number.to_bytes(8, "big") + data
        return derive("flightbag 2026 aircraft state v1", body) + body

    good = slot(3, state.render())
    yield Vector("slot", "slot", good)
    yield Vector("slot-flipped", "slot", good[:-1] + bytes([good[-1] ^ 1]), "bad-state")
    yield Vector("slot-cut", "slot", good[:-1], "bad-state")
    proofs = encode({**value_of(state.render()), "proofs": [bytes(31)]})
    yield Vector("slot-short-proof", "slot", slot(3, proofs), "bad-state")
    yield Vector("slot-unknown-field", "slot", slot(3, encode({**value_of(state.render()), "more": 1})), "bad-state")

    manifest = manifest_of(table)
    signed = sign_manifest(manifest)
    opened = Opened(manifest, ObjectId.of(signed), len(signed), table, ROOT)
    made = Proof.of(opened, signed, [], "engines/net/net.onnx")
    yield Vector("entry-proof", "entry-proof", made.render())
    yield Vector("entry-proof-another-index", "entry-proof", replace(made, index=made.index ^ 1).render(), "bad-proof")
    yield Vector("entry-proof-another-entry", "entry-proof", replace(made, entry=table.leaves[0]).render(), "bad-proof")


def vectors() -> dict[str, Vector]:
    """Every vector by its file name."""
    groups = (cbor(), tables(), payloads(), trust(), signed_manifests(), proofs(), missing_tiles(), aboard())
    made = [vector for group in groups for vector in group]
    by_name = {vector.name: vector for vector in made}
    assert len(by_name) == len(made)
    return by_name


def files() -> dict[str, bytes]:
    """Every file of the folder by its name in it."""
    made = vectors()
    index = {name: made[name].as_json() for name in sorted(made)}
    text = json.dumps(index, indent=1) + "\n"
    return {"index.json": text.encode()} | {name: vector.data for name, vector in made.items()}


def main() -> None:
    for old in FOLDER.glob("*/*.cbor"):
        old.unlink()
    for name, data in files().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
