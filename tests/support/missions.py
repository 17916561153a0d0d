"""Signed missions as values: deterministic keys, a trust root, a table, a signed manifest, evidence that holds them.

A test changes a value with `dataclasses.replace` and signs it again; times are fixed. `tests.support.stores` puts
these missions on a disk; `tests.support.field` has missions that a build makes from imagery.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from store.format import manifest as manifests
from store.format import withdrawal as withdrawals
from store.format.area import Area
from store.format.cose import Envelope
from store.format.entries import Entry, EntryTable, kind_of, sorted_table
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import Coverage, Figure, Issue, Manifest, MissionFacts, Takeoff, Unproven, identity_of
from store.format.withdrawal import Withdrawal
from store.ground.repository import Repository
from store.ground.writer import writing
from store.takeoff.fidelity import fidelity_recipe
from store.takeoff.mission import Binding
from store.trust import root as roots
from store.trust.draft import RootDraft
from store.trust.keys import PrivateKey, sign
from store.trust.root import Role, SignedRoot, TrustRoot
from tests.support.memory import MemoryEvidence

# A hundred seconds after a midnight UTC, at which ISSUE is: dates of capture are midnights too.
NOW = 1_794_960_100
BINDING = Binding(NOW, aircraft="uav-07", host="cpu-x86_64-avx2")


def key(name: str) -> PrivateKey:
    """The private key of a name. Equal names have equal keys."""
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest()))


def by(*keys: PrivateKey) -> Callable[[object], Sequence[PrivateKey]]:
    """Approval of whatever is shown: these keys sign it."""
    return lambda _: keys


def plus_order_2(raw: bytes) -> bytes:
    """The point of a public key plus the point of order 2, which gives (-x, -y): it is outside of the subgroup."""
    number = int.from_bytes(raw, "little")
    return (2**255 - 19 - number % 2**255 | (~number >> 255 & 1) << 255).to_bytes(32, "little")


def role(*names: str, threshold: int = 1) -> Role:
    return Role(tuple(sorted(key(name).public for name in names)), threshold)


ROOT = TrustRoot(
    version=1,
    domain="ridge fleet",
    epoch=1,
    issued_at=NOW - 1000,
    salt=bytes(range(16)),
    root=role("root-a"),
    mission=role("pilot"),
    release=role("lab"),
)


def next_root(after: TrustRoot, **changes: Any) -> TrustRoot:
    """The root of the next version, which differs from the one before by `changes`."""
    fields = {"version": after.version + 1, "parent_domain": after.domain_id, "previous": after.digest}
    return replace(after, **{**fields, **changes})


def sign_root(root: TrustRoot, *names: str) -> bytes:
    """The root file, signed by the keys of these names."""
    return sign_payload(root.render(), roots.CONTENT_TYPE, root.aad(roots.AAD_LABEL), names)


def root_draft(data: bytes) -> RootDraft:
    """The complete draft that puts a root file into effect."""
    signed = SignedRoot.parse(data)
    return RootDraft(None, signed.root, signed.envelope)


def sign_payload(payload: bytes, content_type: str, aad: bytes, names: Sequence[str]) -> bytes:
    envelope = Envelope(content_type, payload)
    for name in names:
        envelope = sign(envelope, key(name), aad)
    return envelope.render()


ENGINE_META = {
    "backbone": "net",
    "backend": "onnxruntime1.22.0",
    "host": "cpu-x86_64",
    "model": hashlib.sha256(b"net").digest(),
    "part": "model",
    "precision": "fp32",
}
ROWS_META = {"dim": 4, "dtype": "float16", "rows": 2}
METAS: dict[str, dict[str, Any]] = {
    "engine": ENGINE_META,
    "card": {"engine": "engines/net/net.onnx"},
    "descriptors": ROWS_META,
    "probe": ROWS_META,
    "index": {"dim": 4, "host": "cpu-x86_64", "method": "ivf16", "part": "index", "rows": 2},
    "coverage": {"missing": 1},
    "file": {},
}


def build_key(name: str) -> BuildKey:
    return BuildKey(hashlib.sha256(b"build key of " + name.encode()).digest())


def entry(name: str, data: bytes, **changes: Any) -> Entry:
    """The entry for these bytes, of the kind that its name names."""
    kind = kind_of(name)
    unkeyed = kind in ("coverage", "file")
    made = Entry(name, ObjectId.of(data), len(data), None if unkeyed else build_key(name), METAS[kind])
    return replace(made, **changes)


CONTENTS: dict[str, bytes] = {
    "cards/net/net.json": b'{"engine": "net"}',
    "descriptors/net/16/12-1150-1410.safetensors": b"\x10\x11" * 40,
    "engines/net/net.onnx": b"the engine of net" * 5,
    "files/calibration/camera.yaml": b"fx: 1.0\n",
}

# With a probe, which its engine has to agree with, and the figure that nobody measured of that.
PROBED = {**CONTENTS, "probes/net.safetensors": b"\x12\x13" * 20}
UNPROVEN = Unproven(
    "fidelity/net", 990_000, fidelity_recipe(build_key("probes/net.safetensors"), build_key("engines/net/net.onnx"))
)
# The same, measured.
MEASURED = Figure(UNPROVEN.name, 999_000, UNPROVEN.least, 8, UNPROVEN.recipe)


def fleet_table(needs: Mapping[str, str]) -> tuple[EntryTable, dict[str, bytes]]:
    """The table of a mission with an engine for each of these names, and its contents. `needs` maps the names to the
    needs of the engines (FORMAT 4.5)."""
    others = {name: data for name, data in CONTENTS.items() if not name.startswith("engines/")}
    engines = {f"engines/net/{name}.onnx": f"the engine {name}".encode() for name in needs}
    rows = [entry(name, data) for name, data in others.items()]
    rows += [
        entry(name, data, meta={**ENGINE_META, "host": needs[name.removeprefix("engines/net/").removesuffix(".onnx")]})
        for name, data in engines.items()
    ]
    return sorted_table(rows), {**others, **engines}


FACTS = MissionFacts(
    id="north-ridge",
    flight="2026-11-23-01",
    aircraft=("uav-07", "uav-08"),
    takeoff=Takeoff(470201000, -991602000, 480000),
    area=Area((-991750000, 470080000, -991350000, 470330000)),
    sector="stable_rear",
)
ISSUE = Issue(epoch=1, sequence=NOW - 100, issued_at=NOW - 100, min_root_version=1, expires_at=NOW + 1000)
CAPTURED = ISSUE.issued_at - 10 * 86400
COVERAGE = Coverage(
    digest=bytes(32), tiles=312, missing=0, required_ppm=10**6, zooms=(16, 17), oldest=CAPTURED, newest=CAPTURED
)


def table_of(contents: Mapping[str, bytes]) -> EntryTable:
    return sorted_table([entry(name, data) for name, data in contents.items()])


def manifest_of(table: EntryTable, **changes: Any) -> Manifest:
    """A manifest that commits to the table; its identity is derived again after `changes` unless they name it."""
    data = table.render()
    manifest = Manifest(
        mission=FACTS,
        issue=ISSUE,
        hosts=("cpu-x86_64",),
        coverage=COVERAGE,
        quality=(
            Figure("landmarks/net", 10**6, 10**6, 3, bytes(32)),
            Figure("recall@1/net/shift", 990_000, 950_000, 128, bytes(32)),
        ),
        releases=(),
        count=len(table.entries),
        merkle_root=table.merkle_root,
        table=ObjectId.of(data),
        table_size=len(data),
        identity=bytes(32),
    )
    manifest = replace(manifest, **changes)
    return manifest if "identity" in changes else replace(manifest, identity=identity_of(manifest, table))


def sign_manifest(manifest: Manifest, root: TrustRoot = ROOT, by: Sequence[str] = ("pilot",)) -> bytes:
    aad = root.aad(manifests.AAD_LABEL)
    return sign_payload(manifest.render(), manifests.CONTENT_TYPE, aad, by)


@dataclass(frozen=True, slots=True)
class Flight:
    """A signed mission: the bytes of its manifest and table, and the contents of its entries by name."""

    manifest: Manifest
    signed: bytes
    table: EntryTable
    contents: Mapping[str, bytes]

    @property
    def id(self) -> str:
        return self.manifest.mission.id

    @property
    def manifest_id(self) -> ObjectId:
        return ObjectId.of(self.signed)

    def entry(self, name: str) -> Entry:
        found = self.table.find(name)
        assert found is not None
        return found

    def place(self, evidence: MemoryEvidence) -> MemoryEvidence:
        """Puts everything of the mission into the evidence, its ref included."""
        for data in (*self.contents.values(), self.table.render(), self.signed):
            evidence.put(data)
        evidence.refs[self.id] = f"{self.manifest_id}\n".encode()
        return evidence


def flight(
    contents: Mapping[str, bytes] = CONTENTS,
    *,
    root: TrustRoot = ROOT,
    by: Sequence[str] = ("pilot",),
    table: EntryTable | None = None,
    **changes: Any,
) -> Flight:
    """A signed mission over `contents` (or a table made otherwise); `changes` are fields of its manifest."""
    table = table or table_of(contents)
    manifest = manifest_of(table, **changes)
    return Flight(manifest, sign_manifest(manifest, root, by), table, contents)


def pinned(root: TrustRoot = ROOT, *names: str) -> SignedRoot:
    """The root as a verifier pins it."""
    return SignedRoot.parse(sign_root(root, *(names or ("root-a",))))


def evidence_of(*flights: Flight, root: TrustRoot = ROOT) -> MemoryEvidence:
    """Evidence that holds the root and these missions."""
    evidence = MemoryEvidence(roots={1: sign_root(root, "root-a")})
    for one in flights:
        one.place(evidence)
    return evidence


def write_store(path: Path, *flights: Flight, root: TrustRoot = ROOT) -> None:
    """Write a store with the root and these missions, in the order in which a build publishes them."""
    with Repository.init(path) as repository:
        repository.replace("trust/1.root.cbor", sign_root(root, "root-a"))
        with writing(repository) as writer:
            for one in flights:
                with writer.inserting() as batch:
                    for data in one.contents.values():
                        batch.add_bytes(data)
                    batch.commit()
                writer.publish(one.id, one.signed, one.table.render())


def withdrawal(one: Flight | None = None, **changes: Any) -> Withdrawal:
    """The withdrawal of a mission up to this manifest."""
    one = one or flight()
    issue = one.manifest.issue
    value = Withdrawal("wrong imagery", NOW, one.id, issue.epoch, issue.sequence)
    return replace(value, **changes)


def sign_withdrawal(value: Withdrawal, root: TrustRoot = ROOT, by: Sequence[str] = ("pilot",)) -> bytes:
    """The file of a withdrawal, signed by the keys of these names."""
    return sign_payload(value.render(), withdrawals.CONTENT_TYPE, root.aad(withdrawals.AAD_LABEL), by)
