"""The attacks by name, each with the one refusal that has to come of it.

`python -m tests.conformance.attacks` mounts them all and prints what each of them runs into; the status is 1 if one of
them runs into anything else. `test_attacks.py` does the same in the tests.

A group is a list of rows (name, refusal, what is shown) and the judge that they are shown to; groups are in `GROUPS` of
this module and of each module `attacks_<subject>.py` beside it. Every group has rows with the refusal GO: the
unmodified original, and what must stay allowed. So a judge that refuses everything shows as well.

A refusal is the step of the takeoff check and the kind of the finding (FORMAT 7); where no step applies, the word for
what was done. The takeoff check is made twice, over evidence in memory and over the files of a store, and both must say
the same. Where an attack is not on the signatures themselves, what it changes is signed anew by a rightful key, so that
nothing but the rule in question can refuse it.

Weak keys, odd points and other forms of a signature have their vectors in tests/store/trust/test_ed25519.py.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import stat
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import cbor2
from blake3 import blake3

from store.disk.media import Media, object_path
from store.errors import FlightbagError, Untrusted
from store.format import manifest as manifests
from store.format import merkle
from store.format import release as releases
from store.format.area import LAT_MAX, LON_MAX, MAX_NUMBERS, Area
from store.format.cbor import INT_MAX, MAX_DEPTH, decode, encode
from store.format.cose import MAX_SIGNATURES, Envelope, Signature
from store.format.entries import MAX_ENTRIES, TABLE_LIMIT, EntryTable
from store.format.ids import ObjectId
from store.format.manifest import PAYLOAD_LIMIT, TIME_MAX, Takeoff
from store.format.release import KINDS as RELEASED
from store.format.release import Approval, Release
from store.takeoff import proof as proofs_
from store.takeoff.aircraft import check, consume, enrol
from store.takeoff.evidence import StoreEvidence
from store.takeoff.loading import load
from store.takeoff.mission import Binding, Evidence, Opened
from store.takeoff.verify import pinned_root, verify_mission
from store.trust import draft as drafts
from store.trust import root as roots
from store.trust.aircraft_state import AircraftState
from store.trust.root import MAX_KEYS, MAX_STEPS, SignedRoot, TrustRoot
from tests.support.memory import MemoryEvidence
from tests.support.missions import (
    BINDING,
    CONTENTS,
    COVERAGE,
    ENGINE_META,
    FACTS,
    ISSUE,
    NOW,
    ROOT,
    Flight,
    build_key,
    entry,
    evidence_of,
    fleet_table,
    flight,
    key,
    next_root,
    pinned,
    plus_order_2,
    role,
    sign_manifest,
    sign_payload,
    sign_root,
    table_of,
)

GO = "GO"
# An open FIFO or a device that never ends would hang a check that falls for it.
SECONDS = 60
# What Python may allocate at the peak of the check of a small mission, whatever sizes it is told of. The largest thing
# that it has to read is a mebibyte in the place of a root, or an array of 100,001 items.
MEMORY = 2 * 2**20
GIB = 2**30

ENGINE, SHARD, CARD, CAMERA = (
    "engines/net/net.onnx",
    "descriptors/net/16/12-1150-1410.safetensors",
    "cards/net/net.json",
    "files/calibration/camera.yaml",
)

_HERE = Path(__file__).parent

Row: TypeAlias = tuple[str, str, Any]
Hook: TypeAlias = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Attack:
    """One row of the list. `shown` is what the judge of its group gets to see."""

    group: str
    name: str
    refusal: str
    shown: Any

    def __str__(self) -> str:
        return f"{self.group}/{self.name}"

    def run(self, folder: Path) -> str:
        """What comes of it; `folder` is an empty one. Raises TimeoutError for a judge that hangs."""
        judge = groups()[self.group][0]
        came: list[str | BaseException] = []

        def work() -> None:
            try:
                came.append(judge(self.shown, folder))
            except BaseException as error:
                came.append(error)

        # A daemon, so that one that hangs keeps nobody from ending.
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        worker.join(SECONDS)
        if not came:
            raise TimeoutError(f"{self} hangs")
        if isinstance(came[0], BaseException):
            raise came[0]
        return came[0]


# the judges


@dataclass(frozen=True)
class Scene:
    """A medium, who looks at it, and who reaches into it: `before` the check, `during` it as soon as its first object
    (the manifest) is read, and while `checking`, when the first object of the closure was found whole."""

    evidence: MemoryEvidence
    pinned: SignedRoot
    binding: Binding = BINDING
    mission: str = FACTS.id
    before: Hook | None = None
    during: Hook | None = None
    checking: Hook | None = None


class Raided(StoreEvidence):
    """A store that somebody changes while it is read."""

    def __init__(self, media: Media, store: Path, scene: Scene) -> None:
        super().__init__(media, whole=lambda _id, _stamp: self._reach("checking"))
        self._store = store
        self._hooks = {name: hook for name in ("during", "checking") if (hook := getattr(scene, name))}

    def object(self, id_: ObjectId, limit: int) -> bytes:
        data = super().object(id_, limit)
        self._reach("during")
        return data

    def _reach(self, moment: str) -> None:
        hook = self._hooks.pop(moment, None)
        if hook is not None:
            hook(self._store)


class Believing(MemoryEvidence):
    """A medium that hashes nothing: what is signed has to catch other bytes alone. It has no files."""

    def bytes_of(self, id_: ObjectId, size: int) -> bytearray:
        return bytearray(self.objects[id_])


Look: TypeAlias = Callable[[Evidence, Scene], str]


def looked(evidence: Evidence, scene: Scene) -> str:
    """The findings of one takeoff check."""
    verdict = verify_mission(evidence, scene.mission, scene.pinned, scene.binding)
    assert verdict.go is not bool(verdict.findings)
    return ", ".join(sorted({f"{finding.step} {finding.kind}" for finding in verdict.findings})) or GO


def measured(evidence: Evidence, scene: Scene) -> str:
    """`looked`, within MEMORY."""
    tracemalloc.start()
    try:
        came = looked(evidence, scene)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY, f"the check took {peak} bytes of memory"
    return came


def takeoff(scene: Scene, folder: Path, look: Look = looked) -> str:
    """The takeoff check, over memory and over files, as far as the scene can be had of both."""
    came = []
    if not (scene.before or scene.during or scene.checking):
        came.append(look(scene.evidence, scene))
    if not isinstance(scene.evidence, Believing):
        store = folder / "store"
        scene.evidence.write_to(store)
        if scene.before:
            scene.before(store)
        with Media(store) as media:
            came.append(look(Raided(media, store, scene), scene))
    assert len(set(came)) == 1, f"memory and files do not agree: {came}"
    return came[0]


def pinning(data: bytes, _folder: Path) -> str:
    """The use of a root file as the pinned one. There is one kind for all that is wrong; its cause says more."""
    try:
        pinned_root(data)
    except Untrusted as error:
        refusal = error
    else:
        return GO
    assert refusal.fields["kind"] == "bad-pinned-root"
    cause = refusal.__cause__
    assert isinstance(cause, FlightbagError)
    return f"pinned {cause.fields['kind']}"


@dataclass(frozen=True)
class Proof:
    """An inclusion proof, and what its reader knows: the data of the leaf, the signed size and root of the tree."""

    leaf: bytes
    index: int
    size: int
    hashes: tuple[bytes, ...]
    root: bytes


def proving(proof: Proof, _folder: Path) -> str:
    """The check of an inclusion proof. Comparing the roots is the caller's: that refusal has no error of its own."""
    try:
        leads_to = merkle.root_from_inclusion(merkle.leaf_hash(proof.leaf), proof.index, proof.size, proof.hashes)
    except FlightbagError as error:
        return f"proof {error.fields['kind']}"
    return GO if leads_to == proof.root else "proof another-root"


@dataclass(frozen=True)
class Loading:
    """A load from a mission that is GO, and who reaches into the store: `between` check and load, or while `reading`,
    when the first MiB of the artifact is read."""

    name: str = ENGINE
    kind: str = "engine"
    between: Hook | None = None
    reading: Hook | None = None


def loading(shown: Loading, folder: Path) -> str:
    """What is handed out is what was hashed, or the load is refused."""
    store = folder / "store"
    evidence_of(HEAVY).write_to(store)
    hooks: list[Hook] = []
    with Media(store) as media:
        evidence = StoreEvidence(media, progress=lambda _bytes, _asked_for: hooks.pop()(store) if hooks else None)
        mission = verify_mission(evidence, HEAVY.id, pinned(), BINDING).mission
        assert mission is not None
        if shown.between:
            shown.between(store)
        if shown.reading:
            hooks.append(shown.reading)
        try:
            data = load(mission, shown.name, kind=shown.kind)
        except FlightbagError as error:
            return f"load {error.fields.get('kind', type(error).__name__)}"
    assert data == HEAVY.contents[shown.name], "the load handed out what nobody signed"
    return GO


# what is shown

GOOD = flight()
OTHER = flight(mission=replace(FACTS, id="south-ridge"))
# An artifact that is read in several pieces.
HEAVY = flight({**CONTENTS, ENGINE: bytes(range(256)) * (3 * 2**20 // 256), "files/net.onnx": CONTENTS[ENGINE]})


def scene(one: Flight = GOOD, *, root: TrustRoot = ROOT, chain: Sequence[bytes] = (), **changes: Any) -> Scene:
    """A medium with one mission, under a pinned root 1 and the roots 2 and up of `chain`."""
    evidence = evidence_of(one, root=root)
    evidence.roots.update(enumerate(chain, 2))
    return replace(Scene(evidence, pinned(root)), **changes)


def with_manifest(data: bytes, one: Flight = GOOD, **changes: Any) -> Scene:
    """A mission with these bytes for its manifest, under their own id: what an attacker would do."""
    made = scene(one, **changes)
    made.evidence.refs[one.id] = f"{made.evidence.put(data)}\n".encode()
    return made


def with_payload(payload: bytes) -> Scene:
    """A mission with these bytes for its payload, signed by the pilot."""
    return with_manifest(sign_payload(payload, manifests.CONTENT_TYPE, ROOT.aad(manifests.AAD_LABEL), ["pilot"]))


def value_of(payload: bytes) -> Any:
    return decode(payload, limit=PAYLOAD_LIMIT, what="the original")


def with_fields(*path: str, **changes: Any) -> Scene:
    """A mission with other fields in its payload (in the map at `path`), whatever the writer's rules say."""
    value = value_of(GOOD.manifest.render())
    group = value
    for name in path:
        group = group[name]
    group |= changes
    return with_payload(cbor2.dumps(value, canonical=True))


def with_table(data: bytes, one: Flight) -> Scene:
    """A mission whose manifest is signed over these bytes for a table, and is that of `one` otherwise."""
    manifest = replace(one.manifest, table=ObjectId.of(data), table_size=len(data))
    made = with_manifest(sign_manifest(manifest), one)
    made.evidence.put(data)
    return made


LONE = flight({"files/a": b"a"})


def with_entries(*values: Any) -> Scene:
    """A mission with these values for its entries."""
    return with_table(cbor2.dumps(list(values), canonical=True), LONE)


def with_entry(**changes: Any) -> Scene:
    """A mission of one entry that differs from a good one."""
    good = dict(zip(("name", "kind", "id", "size", "key", "meta"), LONE.entry("files/a").value(), strict=True))  # type: ignore[arg-type]
    return with_entries(list((good | changes).values()))


def with_root(payload: bytes) -> Scene:
    """A mission in a store with this payload for root 2, signed by the root holder."""
    return scene(chain=[sign_payload(payload, roots.CONTENT_TYPE, ROOT.aad(roots.AAD_LABEL), ["root-a"])])


def envelope_of(data: bytes, content_type: str = manifests.CONTENT_TYPE) -> Envelope:
    return Envelope.parse(data, content_type, PAYLOAD_LIMIT)


def signature(
    envelope: Envelope, name: str, *, kid: bytes = b"", root: TrustRoot = ROOT, label: str = manifests.AAD_LABEL
) -> Signature:
    """A genuine signature by the key of a name, under its kid or under another."""
    kid = kid or key(name).public.kid
    return Signature(kid, key(name).sign(envelope.to_be_signed(kid, root.aad(label))))


def bearing(envelope: Envelope, *signatures: Signature) -> bytes:
    """The envelope with exactly these signatures, in the order that the format asks for."""
    return replace(envelope, signatures=tuple(sorted(signatures, key=lambda one: one.kid))).render()


# signatures and signers

CREW = replace(ROOT, mission=role("pilot", "co-pilot", "navigator", threshold=2), revoked=role("thief").keys)
CREWED = flight(root=CREW, by=("pilot", "co-pilot"))


def signatures() -> Iterator[Row]:
    """Two of three pilots have to sign; `thief` is a revoked key."""
    bare = replace(envelope_of(CREWED.signed), signatures=())
    by = partial(signature, bare, root=CREW)
    kid = {name: key(name).public.kid for name in ("co-pilot", "navigator", "stranger")}

    def signed(*given: Signature) -> Scene:
        return with_manifest(bearing(bare, *given), CREWED, root=CREW)

    pilot, copilot = by("pilot"), by("co-pilot")
    yield "the-original", GO, scene(CREWED, root=CREW)
    yield "all-three-sign", GO, signed(pilot, copilot, by("navigator"))
    yield "empty-signature-list", "C threshold", signed()
    yield "one-of-two", "C threshold", signed(pilot)
    yield "duplicate-signature", "A bad-order", signed(pilot, pilot)
    yield "duplicate-signature-beside-enough", "A bad-order", signed(pilot, copilot, copilot)
    yield "signatures-in-another-order", "A bad-order", with_manifest(
        replace(bare, signatures=envelope_of(CREWED.signed).signatures[::-1]).render(), CREWED, root=CREW)  # fmt: skip
    yield "same-key-under-two-kids", "C bad-signature", signed(pilot, by("pilot", kid=kid["co-pilot"]))
    yield "same-signature-under-two-kids", "C bad-signature", signed(pilot, replace(pilot, kid=kid["co-pilot"]))
    yield "same-key-under-a-kid-of-nobody", "C unknown-signer", signed(pilot, by("pilot", kid=bytes(32)))
    yield "unknown-key-alone", "C unknown-signer", signed(by("stranger"))
    yield "two-unknown-keys", "C unknown-signer", signed(by("stranger"), by("passer-by"))
    yield "unknown-key-appended", "C unknown-signer", signed(pilot, copilot, by("stranger"))
    yield "unknown-key-under-a-known-kid", "C bad-signature", signed(pilot, by("stranger", kid=kid["co-pilot"]))
    yield "one-good-one-forged", "C bad-signature", signed(pilot, replace(copilot, signature=bytes(64)))
    yield "two-good-one-forged", "C bad-signature", signed(pilot, copilot, Signature(kid["navigator"], bytes(64)))
    flipped = bytes([copilot.signature[0] ^ 1]) + copilot.signature[1:]
    yield "one-bit-of-a-signature", "C bad-signature", signed(pilot, replace(copilot, signature=flipped))
    yield "two-signatures-swapped", "C bad-signature", signed(
        replace(pilot, signature=copilot.signature), replace(copilot, signature=pilot.signature))  # fmt: skip
    another = replace(bare, payload=flight(root=CREW, mission=replace(FACTS, flight="2026-11-23-09")).manifest.render())
    yield "signatures-of-another-payload", "C bad-signature", with_manifest(
        bearing(another, pilot, copilot), CREWED, root=CREW)  # fmt: skip
    yield "signed-as-a-root", "C bad-signature", signed(pilot, by("co-pilot", label=roots.AAD_LABEL))
    yield "revoked-key-alone", "C revoked-key", signed(by("thief"))
    yield "revoked-key-beside-enough", "C revoked-key", signed(pilot, copilot, by("thief"))
    yield "root-key-for-a-mission", "C wrong-role", signed(by("root-a"))
    yield "release-key-for-a-mission", "C wrong-role", signed(pilot, by("lab"))
    yield "key-of-another-role-beside-enough", "C wrong-role", signed(pilot, copilot, by("root-a"))
    nine = [signature(bare, f"pilot {number}", root=CREW) for number in range(MAX_SIGNATURES + 1)]
    yield "nine-signatures", "A bad-envelope", with_manifest(
        laid_out(CREWED.signed, signatures=[signer(one) for one in sorted(nine, key=lambda one: one.kid)]),
        CREWED, root=CREW)  # fmt: skip


# the envelope


def signer(one: Signature, **header: Any) -> list[Any]:
    """The value of a signature; `header` may name another `alg`."""
    return [cbor2.dumps({1: header.get("alg", -19), 4: one.kid}), {}, one.signature]


def laid_out(data: bytes, **changes: Any) -> bytes:
    """An envelope put together from its parts, some of them changed."""
    envelope = envelope_of(data)
    parts: dict[str, Any] = {
        "tag": 98, "body": cbor2.dumps({16: envelope.content_type}), "unprotected": {}, "payload": envelope.payload,
        "signatures": [signer(one) for one in envelope.signatures], "more": [],
    } | changes  # fmt: skip
    value = [parts["body"], parts["unprotected"], parts["payload"], parts["signatures"], *parts["more"]]
    return cbor2.dumps(cbor2.CBORTag(parts["tag"], value), canonical=True)


def envelopes() -> Iterator[Row]:
    """What is not signed in an envelope has one form, so that nothing can be hidden in it."""
    data = GOOD.signed
    (pilot,) = envelope_of(data).signatures
    head = data[:3]
    assert head == b"\xd8\x62\x84"
    length = b"\x59" + len(GOOD.manifest.render()).to_bytes(2, "big")
    assert data.count(length) == 1
    yield "the-original", GO, scene()
    yield "put-together-anew", GO, with_manifest(laid_out(data))
    bad: dict[str, tuple[str, bytes]] = {
        "trailing-byte": ("not-canonical", data + b"\x00"),
        "a-second-manifest-appended": ("not-canonical", data + OTHER.signed),
        "cut-by-a-byte": ("not-canonical", data[:-1]),
        "nothing": ("bad-envelope", b""),
        "tag-alone": ("not-canonical", data[:2]),
        "no-tag": ("bad-envelope", data[2:]),
        "tag-in-three-bytes": ("bad-envelope", b"\xd9\x00\x62" + data[2:]),
        "tag-twice": ("not-canonical", data[:2] + data),
        "tag-of-cose-sign1": ("bad-envelope", laid_out(data, tag=18)),
        "tag-of-a-cwt-around-it": ("bad-envelope", b"\xd8\x3d" + data),
        "self-described": ("bad-envelope", b"\xd9\xd9\xf7" + data),
        "array-of-indefinite-length": ("not-canonical", data[:2] + b"\x9f" + data[3:] + b"\xff"),
        "payload-of-indefinite-length": ("not-canonical", data.replace(length, b"\x5f" + length).replace(
            GOOD.manifest.render(), GOOD.manifest.render() + b"\xff")),
        "array-head-in-two-bytes": ("not-canonical", data[:2] + b"\x98\x04" + data[3:]),
        "payload-length-in-five-bytes": ("not-canonical", data.replace(length, b"\x5a\x00\x00" + length[1:])),
        "payload-detached": ("not-canonical", laid_out(data, payload=None)),
        "payload-empty": ("bad-envelope", laid_out(data, payload=b"")),
        "payload-as-text": ("bad-envelope", laid_out(data, payload="x")),
        "payload-as-a-value": ("bad-envelope", laid_out(data, payload=value_of(GOOD.manifest.render()))),
        "a-fifth-item": ("bad-envelope", laid_out(data, more=[b"more"])),
        "unprotected-header": ("bad-envelope", laid_out(data, unprotected={"kid": b"pilot"})),
        "unprotected-header-of-a-signature": ("bad-envelope", laid_out(data, signatures=[
            [signer(pilot)[0], {"alg": "none"}, pilot.signature]])),
        "type-of-a-root": ("bad-envelope", laid_out(data, body=cbor2.dumps({16: roots.CONTENT_TYPE}))),
        "type-left-out": ("bad-envelope", laid_out(data, body=b"")),
        "type-header-in-two-bytes": ("bad-envelope", laid_out(data, body=b"\xa1\x18\x10" + cbor2.dumps(
            manifests.CONTENT_TYPE))),
        "signatures-null": ("not-canonical", laid_out(data, signatures=None)),
        "signature-of-63-bytes": ("bad-envelope", laid_out(data, signatures=[
            [signer(pilot)[0], {}, pilot.signature[:63]]])),
        "signature-of-65-bytes": ("bad-envelope", laid_out(data, signatures=[
            [signer(pilot)[0], {}, pilot.signature + b"\x00"]])),
        "algorithm-eddsa-by-its-old-number": ("bad-envelope", laid_out(data, signatures=[signer(pilot, alg=-8)])),
        "algorithm-ecdsa": ("bad-envelope", laid_out(data, signatures=[signer(pilot, alg=-7)])),
        "algorithm-hmac": ("bad-envelope", laid_out(data, signatures=[signer(pilot, alg=5)])),
        "algorithm-none": ("bad-envelope", laid_out(data, signatures=[signer(pilot, alg=0)])),
        "a-root-in-its-place": ("bad-envelope", sign_root(ROOT, "root-a")),
        "the-table-in-its-place": ("bad-envelope", GOOD.table.render()),
    }  # fmt: skip
    for name, (kind, changed) in bad.items():
        yield name, f"A {kind}", with_manifest(changed)


# CBOR: each form in a payload, in a table and in a trust root, all of them signed by who may

# A value in the place of the integer 1 or 2, and the kind of the refusal. A table is parsed field by field, so that a
# wrong type in it is a bad field (first) and not bad CBOR (second).
VALUES: dict[str, tuple[str, str]] = {
    "half-float": ("f93c00", "bad-field"),
    "double-float": ("fb3ff0000000000000", "bad-field"),
    "minus-zero": ("f98000", "bad-field"),
    "not-a-number": ("f97e00", "bad-field"),
    "true-for-an-integer": ("f5", "bad-field"),
    "false-for-an-integer": ("f4", "bad-field"),
    "null": ("f6", "bad-field"),
    "undefined": ("f7", "bad-field"),
    "simple-value": ("e0", "bad-field"),
    "integer-in-two-bytes": ("18VV", "not-canonical"),
    "integer-in-three-bytes": ("1900VV", "not-canonical"),
    "integer-in-nine-bytes": ("1b00000000000000VV", "not-canonical"),
    "integer-of-2-to-the-63": ("1b8000000000000000", "bad-field"),
    "integer-of-2-to-the-64-less-1": ("1bffffffffffffffff", "bad-field"),
    "bignum": ("c249010000000000000000", "not-canonical"),
    "bignum-of-a-small-number": ("c241VV", "not-canonical"),
    "negative-bignum": ("c34100", "not-canonical"),
    "tag-date": ("c1VV", "not-canonical"),
    "tag-decimal": ("c48200VV", "not-canonical"),
    "tag-self-described": ("d9d9f7VV", "not-canonical"),
    "tag-shared": ("d81cVV", "not-canonical"),
    "tag-of-no-meaning": ("da00010000VV", "not-canonical"),
    "array-of-indefinite-length": ("9fVVff", "not-canonical"),
    "text-of-indefinite-length": ("7f6131ff", "not-canonical"),
    "text-that-is-no-utf8": ("61ff", "not-canonical"),
    "length-in-two-bytes": ("780131", "bad-field"),
    "reserved-head": ("1c", "not-canonical"),
}


@dataclass(frozen=True)
class Container:
    """Canonical bytes that end with a map, of which `pair` is one field with a small integer and not the first."""

    step: str
    data: bytes
    head: int
    pair: bytes
    show: Callable[[bytes], Scene]

    def fields(self, more: int, change: Callable[[bytes], bytes]) -> bytes:
        """The bytes with other fields in the map, `more` of them than there are."""
        inside = self.data[self.head + 1 :]
        assert inside.count(self.pair) == 1
        assert not inside.startswith(self.pair)
        return self.data[: self.head] + bytes([self.data[self.head] + more]) + change(inside)

    def pair_as(self, *others: bytes) -> bytes:
        """The bytes with other fields in the place of the one."""
        return self.fields(len(others) - 1, lambda inside: inside.replace(self.pair, b"".join(others)))


SECOND = next_root(ROOT)
ROWS = flight({"probes/net.safetensors": b"\x12\x13"})
CONTAINERS = {
    "payload": Container("D", GOOD.manifest.render(), 0, b"\x67version\x01", with_payload),
    "table": Container(
        "D", ROWS.table.render(), ROWS.table.render().rindex(b"\xa3"), b"\x64rows\x02", partial(with_table, one=ROWS)
    ),
    "root": Container("B", SECOND.render(), 0, b"\x65epoch\x01", with_root),
}


def cbor(name: str) -> Iterator[Row]:
    """One value, one encoding: for each of the three things that are signed."""
    box = CONTAINERS[name]
    key_, number = box.pair[:-1], box.pair[-1:]
    typed = "bad-field" if name == "table" else "not-canonical"

    def row(lesson: str, kind: str, data: bytes) -> Row:
        assert data != box.data
        return lesson, f"{box.step} {kind}", box.show(data)

    yield "the-original", GO, box.show(box.data)
    for lesson, (hexed, in_a_table) in VALUES.items():
        kind = in_a_table if name == "table" else "not-canonical"
        yield row(lesson, kind, box.pair_as(key_ + bytes.fromhex(hexed.replace("VV", number.hex()))))
    yield row("trailing-byte", "not-canonical", box.data + b"\x00")
    yield row("itself-appended", "not-canonical", box.data * 2)
    yield row("cut-by-a-byte", "not-canonical", box.data[:-1])
    yield row("duplicate-key", "not-canonical", box.pair_as(box.pair, box.pair))
    yield row("duplicate-key-with-another-value", "not-canonical", box.pair_as(box.pair, key_ + b"\x09"))
    yield row("duplicate-key-with-another-value-first", "not-canonical", box.pair_as(key_ + b"\x09", box.pair))
    yield row("unsorted-keys", "not-canonical", box.fields(0, lambda rest: box.pair + rest.replace(box.pair, b"")))
    yield row("map-of-indefinite-length", "not-canonical", box.data[: box.head] + b"\xbf"
              + box.data[box.head + 1 :] + b"\xff")  # fmt: skip
    yield row("map-head-in-two-bytes", "not-canonical", box.data[: box.head] + b"\xb8"
              + bytes([box.data[box.head] & 0x1F]) + box.data[box.head + 1 :])  # fmt: skip
    yield row("key-length-in-two-bytes", "not-canonical", box.pair_as(
        bytes([0x78, key_[0] & 0x1F]) + key_[1:] + number))  # fmt: skip
    yield row("key-in-bytes", typed, box.pair_as(bytes([key_[0] - 0x20]) + key_[1:] + number))
    yield row("key-of-an-integer", "not-canonical", box.pair_as(b"\x01" + number))
    yield row("key-of-24-bytes", typed, box.fields(1, lambda rest: rest + b"\x78\x18" + b"z" * 24 + b"\x01"))
    yield row("key-null", "not-canonical", box.pair_as(b"\xf6" + number))
    yield row("unknown-field", "bad-field", box.fields(1, lambda rest: rest + b"\x77" + b"z" * 23 + b"\x01"))
    yield row("missing-field", "bad-field", box.pair_as())
    yield row("text-for-an-integer", "bad-field", box.pair_as(key_ + b"\x611"))
    yield row("bytes-for-an-integer", "bad-field", box.pair_as(key_ + b"\x411"))
    yield row("array-for-an-integer", "bad-field", box.pair_as(key_ + b"\x81" + number))
    yield row("zero-where-it-counts-from-one", "bad-field", box.pair_as(key_ + b"\x00"))
    yield row("negative", "bad-field", box.pair_as(key_ + b"\x20"))


# bombs


def claim(head: int, size: int) -> bytes:
    """20 bytes that say they are more: a head with a length of four or eight bytes, and zeroes."""
    wide = b"\x1a" + size.to_bytes(4, "big") if size < 2**32 else b"\x1b" + size.to_bytes(8, "big")
    return (bytes([head | wide[0]]) + wide[1:]).ljust(20, b"\x00")


def grown(name: str, size: int = GIB) -> Hook:
    """Makes a file as large as that, without taking room for it."""
    return lambda store: os.truncate(store / name, size)


def bombs() -> Iterator[Row]:
    """Little that says it is much, and much that no rule asks to read: refused, and within a small memory."""
    yield "the-original", GO, scene()
    yield "the-original-with-a-chain", GO, scene(chain=[sign_root(SECOND, "root-a")])
    for name, head in {"bytes": 0x40, "text": 0x60, "array": 0x80, "map": 0xA0}.items():
        for size, much in (("a-billion", GIB), ("a-trillion", 2**40), ("2-to-the-64-less-1", 2**64 - 1)):
            yield f"payload-claims-{name}-of-{size}", "D not-canonical", with_payload(claim(head, much))
        yield f"envelope-claims-{name}-of-a-billion", "A not-canonical", with_manifest(b"\xd8\x62" + claim(head, GIB))
        yield f"table-claims-{name}-of-a-billion", "D not-canonical", with_table(claim(head, GIB), GOOD)
        yield f"root-claims-{name}-of-a-billion", "B not-canonical", with_root(claim(head, GIB))
    many = 50_000
    yield "payload-nested-one-too-deep", "D not-canonical", with_payload(b"\x81" * (MAX_DEPTH + 1) + b"\x00")
    yield "payload-nested-50000-deep", "D not-canonical", with_payload(b"\x81" * many + b"\x00")
    yield "payload-of-maps-nested-9000-deep", "D not-canonical", with_payload(b"\xa1\x61a" * 9000 + b"\x00")
    yield "payload-of-tags-nested-50000-deep", "D not-canonical", with_payload(b"\xc1" * many + b"\x00")
    yield "envelope-nested-50000-deep", "A not-canonical", with_manifest(b"\xd8\x62" + b"\x81" * many + b"\x00")
    yield "table-nested-50000-deep", "D not-canonical", with_table(b"\x81" * many + b"\x00", GOOD)
    yield "root-nested-50000-deep", "B not-canonical", with_root(b"\x81" * many + b"\x00")
    # Each of them some bytes that a tag makes large or slow.
    tags = {
        "shared-references": "82d81c8a" + "80" * 10 + "d81d00",
        "reference-to-itself": "d81c81d81d00",
        "power-of-ten": "c4821b00000000ffffffff01",
        "power-of-two": "c5821b00000000ffffffff01",
        "regular-expression": "d8236628612b292b24",
        "rational-over-zero": "d81e820100",
        "string-references": "d9010081d81900",
        "cbor-in-cbor": "d8184181",
    }
    for name, hexed in tags.items():
        yield f"tag-of-a-{name}", "D not-canonical", with_payload(bytes.fromhex(hexed))
    yield "payload-of-a-byte-too-much", "A bad-envelope", with_payload(bytes(PAYLOAD_LIMIT + 1))
    yield "payload-of-a-mebibyte", "A oversized", with_payload(bytes(2**20))
    yield "payload-of-nothing", "A bad-envelope", with_payload(b"")
    yield "root-of-nothing", "B bad-envelope", with_root(b"")
    yield "table-of-nothing", "D bad-field", with_fields(table=[bytes(ObjectId.of(b"")), 0])
    yield "root-of-a-mebibyte", "B too-large", with_root(bytes(2**20))
    yield "table-of-one-entry-too-many", "D bad-table", with_table(encode([0] * (MAX_ENTRIES + 1)), GOOD)
    yield "count-of-one-entry-too-many", "D bad-field", with_fields(count=MAX_ENTRIES + 1)
    yield "table-signed-larger-than-any", "D bad-field", with_fields(table=[bytes(32), TABLE_LIMIT + 1])
    yield "table-signed-as-16-mib", "D truncated", with_fields(table=[bytes(GOOD.manifest.table), TABLE_LIMIT])
    yield "entry-signed-as-8-eib", "F truncated", scene(flight(table=lied(ENGINE, INT_MAX)))
    west, south, east, north = FACTS.area.bbox
    yield "area-of-too-many-vertices", "D bad-field", with_fields(
        "mission", "area", polygons=[[[west, south] * (MAX_NUMBERS // 2 + 1)]])  # fmt: skip
    yield "area-of-too-many-polygons", "D bad-field", with_fields(
        "mission", "area", polygons=[[[west, south, east, south, east, north]]] * 257)  # fmt: skip
    yield "too-many-aircraft", "D bad-field", with_fields("mission", aircraft=[f"a{n:02}" for n in range(65)])
    roles = value_of(SECOND.render())["roles"]
    keys = [bytes([0, n]) * 16 for n in range(MAX_KEYS + 1)]
    yield "root-with-too-many-keys", "B bad-field", with_root(encode(
        value_of(SECOND.render()) | {"roles": {**roles, "mission": {"keys": keys, "threshold": 1}}}))  # fmt: skip
    yield "chain-of-too-many-roots", "B bad-trust-chain", scene(chain=[b""] * (MAX_STEPS + 1))
    for name, path, refusal in (
        ("manifest", object_path(GOOD.manifest_id), "A oversized"),
        ("table", object_path(GOOD.manifest.table), "D oversized"),
        ("artifact", object_path(GOOD.entry(ENGINE).id), "F oversized"),
        ("ref", f"missions/{GOOD.id}", "A too-large"),
        ("root", "trust/2.root.cbor", "B too-large"),
    ):
        chain = [sign_root(SECOND, "root-a")]
        yield f"{name}-as-a-file-of-a-gibibyte", refusal, scene(chain=chain, before=grown(path))


# names and entries


def names() -> Iterator[Row]:
    """A name is what becomes a path in a checkout: one form, nothing that any file system reads otherwise."""
    yield "the-original", GO, with_entry()
    bad = {
        "dot-dot": "files/..",
        "dot-dot-inside": "files/../engines",
        "dot-dot-at-the-end": "files/a/..",
        "dot-dot-first": "../files/a",
        "dot": "files/./a",
        "absolute": "/files/a",
        "absolute-elsewhere": "/etc/passwd",
        "home": "~/files/a",
        "double-slash": "files//a",
        "slash-at-the-end": "files/a/",
        "folder-alone": "files",
        "nothing": "",
        "upper-case": "files/A",
        "upper-case-folder": "Files/a",
        "hidden-file": "files/.a",
        "record-of-a-checkout": ".flightbag/missions",
        "option": "files/-a",
        "backslash": "files\\a",
        "backslash-dot-dot": "files/..\\a",
        "drive": "c:/files/a",
        "stream": "files/a:b",
        "space": "files/a b",
        "dot-at-the-end": "files/a.",
        "space-at-the-end": "files/a ",
        "newline-at-the-end": "files/a\n",
        "nul": "files/a\x00b",
        "escape": "files/a\x1b[2j",
        "percent": "files/%2e%2e",
        "cyrillic-a": "files/\u0430",
        "cyrillic-folder": "f\u0456les/a",
        "fullwidth": "files/\uff41",
        "fullwidth-dot-dot": "files/\uff0e\uff0e",
        "division-slash": "files\u2215a",
        "accent": "files/\u00e9",
        "accent-combined": "files/e\u0301",
        "ligature": "\ufb01les/a",
        "kelvin-sign": "files/\u212a",
        "long-s": "file\u017f/a",
        "dotless-i": "f\u0131les/a",
        "arabic-digit": "files/\u0661",
        "superscript-digit": "files/\u00b2",
        "right-to-left": "files/\u202ea",
        "zero-width-space": "files/a\u200b",
        "byte-order-mark": "\ufefffiles/a",
        "five-segments": "files/a/b/c/d",
        "segment-of-65": "files/" + "a" * 65,
        "unknown-folder": "models/a",
        "folder-in-the-singular": "file/a",
    }
    for lesson, name in bad.items():
        yield lesson, "D bad-entry", with_entry(name=name)
    yield "name-twice", "D bad-order", with_entries(*(entry(n, b"a").value() for n in ("files/a", "files/a")))
    yield "names-unsorted", "D bad-order", with_entries(*(entry(n, b"a").value() for n in ("files/b", "files/a")))
    yield "name-that-is-a-folder-of-another", "D bad-entry", with_entries(
        *(entry(n, b"a").value() for n in ("files/a", "files/a-b", "files/a/b")))  # fmt: skip
    yield "name-in-bytes", "D bad-entry", with_entry(name=b"files/a")


def lied(name: str, size: int) -> EntryTable:
    """A table that gives an artifact another size."""
    return EntryTable(tuple(replace(e, size=size) if e.name == name else e for e in table_of(CONTENTS).entries))


def entries() -> Iterator[Row]:
    """Kinds are a closed list that follows from the name; ids and sizes are exact."""
    good, size = GOOD.entry(ENGINE), len(CONTENTS[ENGINE])
    keyed = {"key": bytes(build_key(ENGINE)), "meta": ENGINE_META}
    twice = replace(entry("files/copy", CONTENTS[CAMERA]), size=len(CONTENTS[CAMERA]) + 1)
    yield "the-original", GO, scene()
    yield "the-original-of-one-entry", GO, with_entry()
    yield "one-object-under-two-names", GO, scene(flight({**CONTENTS, "files/copy": CONTENTS[CAMERA]}))
    yield "engine-filed-under-files", "D bad-entry", with_entry(kind="engine", **keyed)
    yield "engine-filed-under-files-without-a-key", "D bad-entry", with_entry(kind="engine")
    yield "file-filed-under-engines", "D bad-entry", with_entry(name=ENGINE)
    yield "file-filed-under-engines-with-a-key", "D bad-entry", with_entry(name=ENGINE, **keyed)
    yield "descriptors-filed-under-engines", "D bad-entry", with_entry(name=ENGINE, kind="descriptors", **keyed)
    yield "unknown-kind", "D bad-entry", with_entry(kind="model")
    yield "kind-in-upper-case", "D bad-entry", with_entry(kind="File")
    yield "file-with-a-build-key", "D bad-entry", with_entry(key=bytes(32))
    yield "engine-without-a-build-key", "D bad-entry", with_entry(name=ENGINE, kind="engine", meta=ENGINE_META)
    yield "build-key-of-31-bytes", "D bad-entry", with_entry(
        name=ENGINE, kind="engine", key=bytes(31), meta=ENGINE_META)  # fmt: skip
    yield "meta-of-a-file", "D bad-field", with_entry(meta={"mode": 0o4755})
    yield "meta-with-a-path", "D bad-field", with_entry(
        name=CARD, kind="card", key=keyed["key"], meta={"engine": "engines/../files/a"})  # fmt: skip
    for length in (0, 20, 31, 33, 64):
        yield f"id-of-{length}-bytes", "D bad-entry", with_entry(id=bytes(length))
    yield "id-in-hex", "D bad-entry", with_entry(id=str(ObjectId.of(b"a")))
    yield "id-of-nothing-there", "F missing", scene(flight(table=EntryTable(tuple(
        replace(e, id=ObjectId(bytes(32))) if e.name == ENGINE else e for e in GOOD.table.entries))))  # fmt: skip
    yield "five-fields", "D bad-entry", with_entries(LONE.entry("files/a").value()[:5])  # type: ignore[index]
    yield "seven-fields", "D bad-entry", with_entries([*LONE.entry("files/a").value(), 0])  # type: ignore[misc]
    yield "no-entry-at-all", "D bad-table", with_entries()
    yield "map-for-a-table", "D bad-table", with_table(encode({"files/a": b"a"}), LONE)
    yield "size-negative", "D bad-entry", with_entry(size=-1)
    yield "size-true", "D bad-entry", with_entry(size=True)
    yield "size-a-float", "D bad-entry", with_entry(size=1.0)
    yield "size-in-text", "D bad-entry", with_entry(size="1")
    yield "size-of-2-to-the-63", "D bad-entry", with_entry(size=2**63)
    yield "size-one-more-than-there-is", "F truncated", scene(flight(table=lied(good.name, size + 1)))
    yield "size-one-less-than-there-is", "F oversized", scene(flight(table=lied(good.name, size - 1)))
    yield "size-zero", "F oversized", scene(flight(table=lied(good.name, 0)))
    yield "one-object-of-two-sizes", "F bad-entry, F truncated", scene(
        flight(table=EntryTable((*GOOD.table.entries, twice))))  # fmt: skip
    table_size = GOOD.manifest.table_size
    yield "table-one-byte-more-than-there-is", "D truncated", scene(flight(table_size=table_size + 1))
    yield "table-one-byte-less-than-there-is", "D oversized", scene(flight(table_size=table_size - 1))
    yield "table-id-of-31-bytes", "D bad-field", with_fields(table=[bytes(31), table_size])
    yield "table-in-another-order", "D bad-order", with_table(
        encode([one.value() for one in reversed(GOOD.table.entries)]), GOOD)  # fmt: skip


# what the manifest commits to


def with_commitments(one: Flight = GOOD, **changes: Any) -> Scene:
    return with_manifest(sign_manifest(replace(one.manifest, **changes)), one)


def believed(table: EntryTable) -> Scene:
    """A medium that gives another table under the signed id, and says that it hashed it."""
    made = scene()
    made.evidence.objects[GOOD.manifest.table] = table.render()
    return replace(made, evidence=Believing(**vars(made.evidence)))


def commitments() -> Iterator[Row]:
    """Count, Merkle root and identity are computed again, and no other tree has the signed root."""
    odd = flight({name: data for name, data in CONTENTS.items() if name != CARD})
    leaves = odd.table.leaves
    assert len(leaves) == 3
    yield "the-original", GO, scene()
    yield "the-original-of-three-entries", GO, scene(odd)
    yield "the-original-on-a-believing-medium", GO, believed(GOOD.table)
    yield "count-one-more", "D bad-count", with_commitments(count=5)
    yield "count-one-less", "D bad-count", with_commitments(count=3)
    yield "root-of-zeroes", "D bad-merkle-root", with_commitments(merkle_root=bytes(32))
    yield "root-of-no-entries", "D bad-merkle-root", with_commitments(merkle_root=merkle.root([]))
    yield "root-of-another-mission", "D bad-merkle-root", with_commitments(merkle_root=odd.table.merkle_root)
    yield "root-with-the-odd-leaf-doubled", "D bad-merkle-root", with_commitments(
        odd, merkle_root=merkle.root([*leaves, leaves[-1]]))  # fmt: skip
    yield "root-of-leaves-in-another-order", "D bad-merkle-root", with_commitments(
        odd, merkle_root=merkle.root(leaves[::-1]))  # fmt: skip
    hashed = [merkle.tree_hash(leaf) for leaf in leaves]
    yield "root-without-the-prefix-of-a-leaf", "D bad-merkle-root", with_commitments(
        odd, merkle_root=merkle.node_hash(merkle.node_hash(hashed[0], hashed[1]), hashed[2]))  # fmt: skip
    yield "root-with-leaves-hashed-as-nodes", "D bad-merkle-root", with_commitments(odd, merkle_root=merkle.node_hash(
        merkle.node_hash(merkle.node_hash(leaves[0], b""), merkle.node_hash(leaves[1], b"")),
        merkle.node_hash(leaves[2], b"")))  # fmt: skip
    yield "root-with-nodes-hashed-as-leaves", "D bad-merkle-root", with_commitments(odd, merkle_root=merkle.leaf_hash(
        merkle.leaf_hash(merkle.leaf_hash(leaves[0]) + merkle.leaf_hash(leaves[1])) + merkle.leaf_hash(leaves[2]))
    )  # fmt: skip
    yield "root-under-sha256", "D bad-merkle-root", with_commitments(
        odd, merkle_root=merkle.root(leaves, lambda data: hashlib.sha256(data).digest()))  # fmt: skip
    yield "root-under-blake3-without-its-context", "D bad-merkle-root", with_commitments(
        odd, merkle_root=merkle.root(leaves, lambda data: blake3(data).digest()))  # fmt: skip
    yield "root-that-is-the-id-of-the-table", "D bad-merkle-root", with_commitments(
        merkle_root=bytes(GOOD.manifest.table))  # fmt: skip
    yield "root-of-31-bytes", "D bad-field", with_fields(root=bytes(31))
    yield "identity-of-zeroes", "D bad-identity", with_commitments(identity=bytes(32))
    yield "identity-of-another-mission", "D bad-identity", with_commitments(identity=OTHER.manifest.identity)
    # The takeoff of one mission and the identity of another: what a builder would take for built already.
    yield "takeoff-changed-under-its-identity", "D bad-identity", with_commitments(
        mission=replace(FACTS, takeoff=replace(FACTS.takeoff, alt=0)))  # fmt: skip
    yield "table-of-another-mission", "D bad-count", with_table(odd.table.render(), GOOD)
    first, second, *rest = GOOD.table.entries
    swapped = EntryTable((replace(first, id=second.id, size=second.size),
                          replace(second, id=first.id, size=first.size), *rest))  # fmt: skip
    yield "believed-table-with-two-objects-swapped", "D bad-merkle-root", believed(swapped)
    yield "believed-table-without-an-entry", "D bad-count", believed(EntryTable((first, second, *rest[:-1])))
    yield "believed-table-with-another-size", "D bad-merkle-root", believed(lied(ENGINE, 0))
    other = replace(GOOD.entry(ENGINE), meta={**ENGINE_META, "precision": "fp16"})
    yield "believed-table-of-another-meta", "D bad-merkle-root", believed(
        EntryTable(tuple(other if one.name == ENGINE else one for one in GOOD.table.entries)))  # fmt: skip


# inclusion proofs


def proofs() -> Iterator[Row]:
    """The sixth of seven entries. The size of the tree is signed: it is the count of the manifest."""
    leaves = table_of({f"files/{letter}": letter.encode() for letter in "abcdefg"}).leaves
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    good = Proof(leaves[5], 5, 7, merkle.inclusion_proof(leaves, 5), merkle.root(leaves))
    last = replace(good, leaf=leaves[6], index=6, hashes=merkle.inclusion_proof(leaves, 6))
    node = merkle.node_hash(hashes[4], hashes[5])
    sibling, *above = good.hashes
    assert sibling == hashes[4]
    bad, elsewhere = "proof bad-proof", "proof another-root"
    yield "the-original", GO, good
    yield "the-odd-last-leaf", GO, last
    yield "the-only-leaf", GO, Proof(leaves[0], 0, 1, (), merkle.root(leaves[:1]))
    yield "every-other-leaf-at-its-place", GO, replace(
        good, leaf=leaves[2], index=2, hashes=merkle.inclusion_proof(leaves, 2))  # fmt: skip
    yield "node-given-as-leaf", elsewhere, replace(good, leaf=hashes[4] + hashes[5], index=2, size=4,
                                                   hashes=tuple(above))  # fmt: skip
    yield "node-with-its-prefix-given-as-leaf", elsewhere, replace(
        good, leaf=b"\x01" + hashes[4] + hashes[5], index=2, size=4, hashes=tuple(above))  # fmt: skip
    yield "node-given-as-leaf-under-the-signed-size", bad, replace(
        good, leaf=hashes[4] + hashes[5], index=2, hashes=tuple(above[:1]))  # fmt: skip
    yield "hash-of-a-node-given-as-leaf", elsewhere, replace(good, leaf=node, index=2, size=4, hashes=tuple(above))
    yield "hash-of-the-leaf-given-as-leaf", elsewhere, replace(good, leaf=hashes[5])
    yield "leaf-given-as-node", elsewhere, replace(
        good, hashes=(merkle.node_hash(leaves[4][:32], leaves[4][32:]), *above))  # fmt: skip
    yield "leaf-given-as-node-one-level-up", elsewhere, replace(good, index=2, size=4, hashes=tuple(above))
    yield "leaf-given-for-its-hash", bad, replace(good, hashes=(leaves[4], *above))
    yield "odd-leaf-doubled-at-the-end", elsewhere, Proof(
        leaves[6], 7, 8, merkle.inclusion_proof([*leaves, leaves[6]], 7), good.root)  # fmt: skip
    yield "odd-leaf-doubled-under-the-signed-size", bad, Proof(
        leaves[6], 7, 7, merkle.inclusion_proof([*leaves, leaves[6]], 7), good.root)  # fmt: skip
    yield "odd-leaf-with-itself-for-a-sibling", bad, replace(last, hashes=(hashes[6], *last.hashes))
    yield "first-hash-missing", bad, replace(good, hashes=good.hashes[1:])
    yield "last-hash-missing", bad, replace(good, hashes=good.hashes[:-1])
    yield "no-hash-at-all", bad, replace(good, hashes=())
    yield "no-hash-and-the-root-for-a-leaf", bad, replace(good, leaf=good.root, hashes=())
    yield "extra-hash-at-the-end", bad, replace(good, hashes=(*good.hashes, good.root))
    yield "extra-hash-at-the-beginning", bad, replace(good, hashes=(hashes[5], *good.hashes))
    yield "a-million-hashes", bad, replace(good, hashes=(*good.hashes, *[bytes(32)] * 10**6))
    yield "hash-of-31-bytes", bad, replace(good, hashes=(sibling[:31], *above))
    yield "hash-of-33-bytes", bad, replace(good, hashes=(sibling + b"\x00", *above))
    yield "hash-of-nothing", bad, replace(good, hashes=(b"", *above))
    yield "hashes-backwards", elsewhere, replace(good, hashes=good.hashes[::-1])
    yield "one-bit-of-a-hash", elsewhere, replace(good, hashes=(bytes([sibling[0] ^ 1]) + sibling[1:], *above))
    yield "index-out-of-range", bad, replace(good, index=7)
    yield "index-far-out-of-range", bad, replace(good, index=INT_MAX)
    yield "index-negative", bad, replace(good, index=-2)
    yield "index-in-a-tree-of-none", bad, replace(good, index=0, size=0, hashes=())
    yield "index-of-its-neighbour", elsewhere, replace(good, index=4)
    yield "leaf-of-its-neighbour", elsewhere, replace(good, leaf=leaves[4])
    yield "leaf-with-a-byte-more", elsewhere, replace(good, leaf=leaves[5] + b"\x00")
    yield "leaf-of-nothing", elsewhere, replace(good, leaf=b"")
    yield "proof-from-a-tree-of-six", bad, replace(good, hashes=merkle.inclusion_proof(leaves[:6], 5))
    yield "proof-from-another-tree", elsewhere, replace(
        good, hashes=merkle.inclusion_proof([b"x", *leaves[1:]], 5))  # fmt: skip


# trust roots

OURS = next_root(ROOT, root=role("root-b"), mission=role("co-pilot"), epoch=2)
OURS_3 = next_root(OURS)
STEP_2, STEP_3 = sign_root(OURS, "root-a", "root-b"), sign_root(OURS_3, "root-b")
CHAINED = flight(root=OURS_3, by=("co-pilot",), issue=replace(ISSUE, epoch=2, min_root_version=3))
REVOKING = next_root(ROOT, mission=role("co-pilot"), revoked=role("pilot").keys)


def chained(*files: bytes, one: Flight = CHAINED, first: int = 2, at: SignedRoot | None = None) -> Scene:
    """A medium with a mission of root 3 and these root files from version `first` on."""
    made = scene(one)
    made.evidence.roots.update(enumerate(files, first))
    return made if at is None else replace(made, pinned=at)


def root_with(root: TrustRoot, *by: Signature) -> bytes:
    return bearing(Envelope(roots.CONTENT_TYPE, root.render()), *by)


def chains() -> Iterator[Row]:
    """Root 1 is pinned and held by root-a, roots 2 and 3 by root-b; the mission is of root 3."""

    def by(signed: TrustRoot, name: str, **changes: Any) -> Signature:
        bare = Envelope(roots.CONTENT_TYPE, signed.render())
        return signature(bare, name, **{"root": signed, "label": roots.AAD_LABEL, **changes})

    broken = "B bad-trust-chain"
    plain, third = sign_root(SECOND, "root-a"), pinned(OURS_3, "root-b")
    yield "the-original", GO, chained(STEP_2, STEP_3)
    yield "the-newest-is-pinned", GO, chained(STEP_2, STEP_3, at=third)
    yield "the-newest-is-pinned-and-the-store-is-behind", GO, chained(at=third)
    yield "one-plain-step", GO, scene(chain=[plain])
    # versions and order
    yield "version-skipped", broken, chained(STEP_3)
    yield "version-skipped-alone", broken, scene(chain=[sign_root(next_root(ROOT, version=3), "root-a")])
    yield "file-left-out", broken, chained(STEP_3, first=3)
    yield "version-repeated", broken, chained(STEP_2, STEP_2)
    yield "files-in-another-order", broken, chained(STEP_3, STEP_2)
    yield "version-of-2-to-the-63-less-1", broken, chained(STEP_2, sign_root(
        next_root(OURS, version=INT_MAX), "root-b"))  # fmt: skip
    other = replace(OURS, issued_at=OURS.issued_at + 1)
    yield "branch", broken, chained(STEP_2, sign_root(next_root(other), "root-b"))
    yield "branch-of-the-first", broken, chained(sign_root(replace(OURS, previous=bytes(32)), "root-a", "root-b"))
    yield "stale-root-after-the-newest", broken, chained(STEP_2, first=4, at=third)
    yield "first-root-after-the-newest", broken, chained(sign_root(ROOT, "root-a"), first=4, at=third)
    yield "whole-stale-chain-after-the-newest", broken, chained(STEP_2, STEP_3, first=4, at=third)
    yield "newest-withheld", "E old-root", chained(STEP_2)
    yield "whole-chain-withheld", "C unknown-signer", chained()
    yield "garbage", "B bad-envelope", chained(STEP_2, b"garbage")
    yield "nothing", "B bad-envelope", chained(b"", STEP_3)
    yield "a-manifest-in-its-place", "B bad-envelope", chained(GOOD.signed)
    yield "longer-than-any-chain", broken, chained(*[STEP_2] * (MAX_STEPS + 1))
    # who signs
    stranger = next_root(ROOT, root=role("thief"), mission=role("thief"))
    theirs = flight(root=ROOT, by=("thief",))
    forged = Signature(key("root-a").public.kid, bytes(64))
    lifted = next(s for s in envelope_of(STEP_2, roots.CONTENT_TYPE).signatures if s.kid == key("root-a").public.kid)
    yield "self-signed-by-strangers", "B threshold", chained(sign_root(stranger, "thief"), one=theirs)
    yield "self-signed-beside-a-forged-old-signature", "B bad-signature", chained(
        root_with(stranger, by(stranger, "thief"), forged), one=theirs)  # fmt: skip
    yield "self-signed-beside-a-lifted-old-signature", "B bad-signature", chained(
        root_with(stranger, by(stranger, "thief"), lifted), one=theirs)  # fmt: skip
    yield "signed-by-the-old-alone", "B threshold", chained(sign_root(OURS, "root-a"), STEP_3)
    yield "signed-by-the-new-alone", "B threshold", chained(sign_root(OURS, "root-b"), STEP_3)
    yield "signed-by-nobody", "B threshold", scene(chain=[sign_root(SECOND)])
    yield "signed-by-the-pilot", "B threshold", scene(chain=[sign_root(SECOND, "pilot")])
    yield "signed-by-the-pilot-too", "B unknown-signer", scene(chain=[sign_root(SECOND, "root-a", "pilot")])
    yield "unknown-key-appended", "B unknown-signer", scene(chain=[sign_root(SECOND, "root-a", "stranger")])
    yield "rotated-out-key-signs-too", "B unknown-signer", chained(STEP_2, sign_root(OURS_3, "root-a", "root-b"))
    yield "rotated-out-key-alone", "B threshold", chained(STEP_2, sign_root(OURS_3, "root-a"))
    once = by(SECOND, "root-a")
    yield "duplicate-signature", "B bad-order", scene(chain=[root_with(SECOND, once, once)])
    two = next_root(ROOT, root=role("root-a", "root-b", threshold=2))
    yield "one-of-two", "B threshold", scene(chain=[sign_root(two, "root-a")])
    yield "same-key-under-two-kids", "B bad-signature", scene(chain=[
        root_with(two, by(two, "root-a"), by(two, "root-a", kid=key("root-b").public.kid))])  # fmt: skip
    yield "one-good-one-forged", "B bad-signature", scene(chain=[root_with(
        two, by(two, "root-a"), Signature(key("root-b").public.kid, bytes(64)))])  # fmt: skip
    yield "signed-as-a-manifest", "B bad-signature", scene(chain=[
        root_with(SECOND, by(SECOND, "root-a", label=manifests.AAD_LABEL))])  # fmt: skip
    yield "signed-for-another-domain", "B bad-signature", scene(chain=[
        root_with(SECOND, by(SECOND, "root-a", root=replace(ROOT, domain="valley fleet")))])  # fmt: skip
    yield "typed-as-a-manifest", "B bad-envelope", scene(chain=[
        sign_payload(SECOND.render(), manifests.CONTENT_TYPE, ROOT.aad(roots.AAD_LABEL), ["root-a"])])  # fmt: skip
    # what a new root may not say, whoever signs it
    yield "another-salt", broken, scene(chain=[sign_root(next_root(ROOT, salt=bytes(16)), "root-a")])
    yield "another-label", broken, scene(chain=[sign_root(next_root(ROOT, domain="valley fleet"), "root-a")])
    yield "another-domain-id", broken, scene(chain=[sign_root(next_root(ROOT, parent_domain=bytes(32)), "root-a")])
    back = replace(next_root(REVOKING), revoked=(), mission=role("pilot"))
    yield "revocation-taken-back", broken, scene(chain=[sign_root(REVOKING, "root-a"), sign_root(back, "root-a")])
    yield "epoch-taken-back", broken, chained(STEP_2, sign_root(next_root(OURS, epoch=1), "root-b"))
    pilot = key("pilot").public.raw
    for name, kind, change in (
        ("threshold-0", "bad-field", {"keys": [pilot], "threshold": 0}),
        ("threshold-0-of-no-keys", "bad-field", {"keys": [], "threshold": 0}),
        ("threshold-negative", "bad-field", {"keys": [pilot], "threshold": -1}),
        ("threshold-beyond-its-keys", "bad-field", {"keys": [pilot], "threshold": 2}),
        ("threshold-1-of-no-keys", "bad-field", {"keys": [], "threshold": 1}),
        ("key-enrolled-twice", "bad-order", {"keys": [pilot, pilot], "threshold": 2}),
        ("key-of-31-bytes", "bad-field", {"keys": [pilot[:31]], "threshold": 1}),
        # The point of order 1 verifies nearly everything where it is taken for a key.
        ("key-of-order-1", "bad-field", {"keys": [(1).to_bytes(32, "little")], "threshold": 1}),
        ("key-of-order-2", "bad-field", {"keys": [(2**255 - 20).to_bytes(32, "little")], "threshold": 1}),
        ("key-that-is-no-point", "bad-field", {"keys": [(2).to_bytes(32, "little")], "threshold": 1}),
        ("key-outside-of-the-subgroup", "bad-field", {"keys": [plus_order_2(pilot)], "threshold": 1}),
        ("key-of-the-releases-for-missions", "bad-field", {"keys": [key("lab").public.raw], "threshold": 1}),
    ):
        value = value_of(SECOND.render())
        yield name, f"B {kind}", with_root(encode(value | {"roles": {**value["roles"], "mission": change}}))
    value = value_of(SECOND.render())
    root_0 = {"keys": value["roles"]["root"]["keys"], "threshold": 0}
    yield "threshold-0-of-the-root", "B bad-field", with_root(
        encode(value | {"roles": {**value["roles"], "root": root_0}}))  # fmt: skip
    yield "a-fourth-role", "B bad-field", with_root(encode(value | {"roles": {**value["roles"], "captain": root_0}}))
    yield "revoked-key-in-a-role", "B bad-field", with_root(encode(value | {"revoked": [pilot]}))
    # what a new root means for what was signed before
    revoked, ended = sign_root(REVOKING, "root-a"), sign_root(next_root(ROOT, epoch=2), "root-a")
    yield "key-revoked-in-the-store", "C revoked-key", scene(chain=[revoked])
    yield "old-stick-after-a-revocation", "C revoked-key", scene(pinned=pinned(REVOKING))
    yield "old-stick-after-a-retirement", "C unknown-signer", scene(
        pinned=pinned(next_root(ROOT, mission=role("co-pilot"))))  # fmt: skip
    yield "old-stick-after-an-epoch", "E wrong-epoch", scene(pinned=pinned(next_root(ROOT, epoch=2)))
    yield "epoch-ended-in-the-store", "E wrong-epoch", scene(chain=[ended])
    late = next_root(ROOT, issued_after=ISSUE.issued_at + 1)
    yield "issued-before-anything-counts", "E issued-too-early", scene(chain=[sign_root(late, "root-a")])


def domains() -> Iterator[Row]:
    """Nothing crosses between trust domains, and a store vouches for no root of its own."""
    salted = replace(ROOT, salt=bytes(16))
    renamed = replace(ROOT, domain="valley fleet")
    thieves = replace(ROOT, root=role("thief"), mission=role("thief"))

    def signed_in(domain: TrustRoot, *files: TrustRoot, by: str = "pilot", holder: str = "root-a") -> Scene:
        """A mission of another domain, in a store with that domain's roots."""
        made = scene(flight(root=domain, by=(by,)))
        made.evidence.roots.update({one.version: sign_root(one, holder) for one in files})
        return made

    yield "the-original", GO, signed_in(ROOT, ROOT, SECOND)
    bare = scene()
    bare.evidence.roots.clear()
    yield "no-root-in-the-store", GO, bare
    yield "manifest-of-another-domain", "C bad-signature", signed_in(renamed)
    yield "manifest-of-a-domain-of-the-same-name-and-keys", "C bad-signature", signed_in(salted)
    yield "manifest-of-a-domain-founded-a-second-later", "C bad-signature", signed_in(
        replace(ROOT, issued_at=ROOT.issued_at + 1))  # fmt: skip
    yield "manifest-of-strangers", "C unknown-signer", signed_in(thieves, by="thief")
    yield "first-root-of-strangers", "C unknown-signer", signed_in(thieves, thieves, by="thief", holder="thief")
    yield "first-root-of-the-same-name-and-keys", "C bad-signature", signed_in(salted, salted)
    yield "whole-chain-of-strangers", "B bad-trust-chain", signed_in(
        thieves, thieves, next_root(thieves), next_root(next_root(thieves)), by="thief", holder="thief")  # fmt: skip
    yield "whole-chain-of-the-same-name-and-keys", "B bad-trust-chain", signed_in(
        salted, salted, next_root(salted), next_root(next_root(salted)))  # fmt: skip
    yield "whole-chain-of-another-domain", "B bad-trust-chain", signed_in(renamed, renamed, next_root(renamed))
    grafted = next_root(thieves, parent_domain=ROOT.domain_id, previous=ROOT.digest)
    yield "chain-of-strangers-grafted-on-the-pinned-root", "B threshold", signed_in(
        ROOT, thieves, grafted, next_root(grafted), by="thief", holder="thief")  # fmt: skip
    yield "second-root-of-another-domain-after-ours", "B bad-trust-chain", signed_in(ROOT, ROOT, next_root(salted))


def pins() -> Iterator[Row]:
    """The pinned root is handed out by other means, and still must be whole."""
    two = replace(ROOT, root=role("root-a", "root-b", threshold=2))
    bare = Envelope(roots.CONTENT_TYPE, two.render())
    by = partial(signature, bare, root=two, label=roots.AAD_LABEL)
    value = value_of(ROOT.render())
    zero = {**value["roles"], "root": {"keys": value["roles"]["root"]["keys"], "threshold": 0}}
    good = sign_root(two, "root-a", "root-b")
    yield "the-original", GO, good
    yield "a-later-root-with-its-old-signature", GO, STEP_2
    yield "signed-by-nobody", "pinned threshold", sign_root(two)
    yield "signed-by-one-of-two", "pinned threshold", sign_root(two, "root-a")
    yield "same-key-under-two-kids", "pinned bad-signature", bearing(
        bare, by("root-a"), by("root-a", kid=key("root-b").public.kid))  # fmt: skip
    yield "duplicate-signature", "pinned bad-order", bearing(bare, by("root-a"), by("root-a"))
    yield "unknown-key-alone", "pinned unknown-signer", sign_root(two, "stranger")
    yield "unknown-key-appended", "pinned unknown-signer", sign_root(two, "root-a", "root-b", "stranger")
    yield "one-good-one-forged", "pinned bad-signature", bearing(
        bare, by("root-a"), Signature(key("root-b").public.kid, bytes(64)))  # fmt: skip
    yield "signed-by-the-pilot-and-the-lab", "pinned unknown-signer", sign_root(two, "pilot", "lab")
    yield "later-root-signed-by-the-one-before-alone", "pinned threshold", sign_root(OURS, "root-a")
    yield "signed-as-a-manifest", "pinned bad-signature", bearing(
        bare, by("root-a", label=manifests.AAD_LABEL), by("root-b"))  # fmt: skip
    yield "threshold-0", "pinned bad-field", sign_payload(
        encode(value | {"roles": zero}), roots.CONTENT_TYPE, ROOT.aad(roots.AAD_LABEL), [])  # fmt: skip
    yield "trailing-byte", "pinned not-canonical", good + b"\x00"
    yield "cut-by-a-byte", "pinned not-canonical", good[:-1]
    yield "payload-alone", "pinned bad-envelope", two.render()
    yield "a-manifest", "pinned bad-envelope", GOOD.signed
    yield "garbage", "pinned bad-envelope", b"garbage"
    yield "nothing", "pinned bad-envelope", b""
    yield "a-mebibyte", "pinned too-large", b"\xd8\x62" + bytes(2**20)


# the flight


def bindings() -> Iterator[Row]:
    """A genuine mission that is not for this flight."""

    def asked(**changes: Any) -> Scene:
        return scene(binding=replace(BINDING, **changes))

    def issued(**changes: Any) -> Scene:
        return scene(flight(issue=replace(ISSUE, **changes)))

    def of_fleet(needs: Mapping[str, str], aboard: str | None = BINDING.host) -> Scene:
        table, contents = fleet_table(needs)
        one = flight(contents, table=table, hosts=("cpu-aarch64+sm87", "cpu-x86_64"))
        return scene(one, binding=replace(BINDING, host=aboard))

    yield "the-original", GO, scene()
    yield "in-its-last-second", GO, asked(now=ISSUE.expires_at)
    yield "without-an-end", GO, issued(expires_at=None)
    yield "exactly-its-host", GO, asked(host="cpu-x86_64")
    yield "the-other-aircraft", GO, asked(aircraft="uav-08")
    # Only aircraft state can tell that it is a leap; the number itself is one of the format.
    yield "sequence-of-2-to-the-63-less-1", GO, issued(sequence=INT_MAX)
    yield "expired-by-a-second", "E expired", asked(now=NOW + 1001)
    yield "expired-at-the-dawn-of-time", "D bad-field", with_fields("issue", expires_at=0)
    yield "expires-after-all-calendars", "D bad-field", with_fields("issue", expires_at=TIME_MAX + 1)
    yield "expires-never-in-text", "D bad-field", with_fields("issue", expires_at="never")
    yield "epoch-of-2-to-the-63-less-1", "E wrong-epoch", issued(epoch=INT_MAX)
    yield "epoch-of-2-to-the-63", "D not-canonical", with_fields("issue", epoch=2**63)
    yield "epoch-of-2-to-the-64", "D not-canonical", with_fields("issue", epoch=2**64)
    yield "epoch-0", "D bad-field", with_fields("issue", epoch=0)
    yield "epoch-ahead", "E wrong-epoch", issued(epoch=2)
    yield "sequence-of-2-to-the-63", "D not-canonical", with_fields("issue", sequence=2**63)
    yield "sequence-of-2-to-the-64", "D not-canonical", with_fields("issue", sequence=2**64)
    yield "sequence-0", "D bad-field", with_fields("issue", sequence=0)
    yield "sequence-negative", "D bad-field", with_fields("issue", sequence=-1)
    yield "root-of-2-to-the-63-less-1-needed", "E old-root", issued(min_root_version=INT_MAX)
    yield "root-0-needed", "D bad-field", with_fields("issue", min_root_version=0)
    yield "another-aircraft", "E wrong-aircraft", asked(aircraft="uav-09")
    yield "aircraft-whose-name-begins-alike", "E wrong-aircraft", asked(aircraft="uav-070")
    yield "aircraft-whose-name-is-a-part", "E wrong-aircraft", asked(aircraft="uav-0")
    yield "aircraft-in-upper-case", "E wrong-aircraft", asked(aircraft="UAV-07")
    yield "aircraft-with-a-look-alike", "E wrong-aircraft", asked(aircraft="u\u0430v-07")
    yield "both-aircraft-at-once", "E wrong-aircraft", asked(aircraft="uav-07, uav-08")
    yield "aircraft-of-no-name", "E wrong-aircraft", asked(aircraft="")
    yield "any-aircraft", "D bad-field", with_fields("mission", aircraft=["*"])
    yield "no-aircraft", "D bad-field", with_fields("mission", aircraft=[])
    yield "aircraft-twice", "D bad-order", with_fields("mission", aircraft=["uav-07", "uav-07"])
    yield "another-host", "E wrong-host", asked(host="cpu-aarch64")
    yield "a-less-able-host", "E wrong-host", asked(host="cpu")
    yield "host-whose-name-begins-alike", "E wrong-host", asked(host="cpu-x86_64x")
    yield "host-of-no-name", "E wrong-host", asked(host="")
    yield "host-of-no-family", "D bad-field", with_fields(hosts=["banana"])
    yield "host-of-no-architecture", "D bad-field", with_fields(hosts=["cpu-arm"])
    yield "host-with-a-least-version", "D bad-field", with_fields(hosts=["cpu-x86_64+ort>=1.9"])
    yield "host-with-two-of-one-library", "D bad-field", with_fields(hosts=["cpu-x86_64+ort-1.9+ort-1.32"])
    yield "host-in-upper-case", "E wrong-host", asked(host="CPU-X86_64")
    yield "host-as-text", "D bad-field", with_fields(hosts="cpu-x86_64")
    yield "no-host", "D bad-field", with_fields(hosts=[])
    yield "host-twice", "D bad-order", with_fields(hosts=["cpu-x86_64", "cpu-x86_64"])
    yield "seventeen-hosts", "D bad-field", with_fields(hosts=[f"ort-{number}" for number in range(10, 27)])
    yield "one-more-host-than-was-signed-for", "D bad-identity", with_fields(hosts=["cpu-x86_64", "sm87"])
    fleet, orin = {"orin": "sm87", "rack": "cpu-x86_64"}, "cpu-aarch64+sm87-orin-16sm-64gb"
    yield "an-aircraft-of-a-fleet", GO, of_fleet(fleet)
    yield "the-other-aircraft-of-a-fleet", GO, of_fleet(fleet, aboard=orin)
    yield "an-aircraft-of-no-class-of-the-fleet", "E wrong-host", of_fleet(fleet, aboard="cpu-aarch64")
    yield "no-engine-for-one-class-of-the-fleet", "E wrong-host", of_fleet({"rack": "cpu-x86_64"})
    yield "no-engine-for-this-class-of-the-fleet", "E wrong-host", of_fleet({"rack": "cpu-x86_64"}, aboard=orin)
    yield "an-engine-of-no-class-of-the-fleet", "E wrong-host", of_fleet({**fleet, "stray": "sm89"})
    yield "an-aircraft-too-old-for-its-engine-of-the-fleet", "E wrong-host", of_fleet(
        {**fleet, "rack": "cpu-x86_64+ort>=1.22"}, aboard="cpu-x86_64-avx2+ort-1.9")  # fmt: skip
    # The mission says that it is for every machine; its engine does not.
    yield "mission-for-a-lesser-host-than-its-engine", "E wrong-host", scene(flight(hosts=("cpu",)))
    yield "mission-for-another-host-than-its-engine", "E wrong-host", scene(
        flight(hosts=("cpu-aarch64",)), binding=replace(BINDING, host="cpu-aarch64"))  # fmt: skip
    required = replace(ROOT, releases="required")
    yield "engine-without-a-release-where-one-is-required", "E unreleased", scene(
        flight(root=required), root=required)  # fmt: skip
    every_way = ("expired", "old-root", "takeoff-outside-area", "wrong-aircraft", "wrong-epoch", "wrong-host")
    nowhere = replace(FACTS, takeoff=Takeoff(0, 0, 0))
    yield "in-every-way-at-once", ", ".join(f"E {kind}" for kind in every_way), scene(
        flight(mission=nowhere, issue=replace(ISSUE, epoch=2, min_root_version=2)),
        binding=Binding(NOW + 1001, "uav-09", "cpu-aarch64"))  # fmt: skip


DEGREE = 10**7


def areas() -> Iterator[Row]:
    """The takeoff origin must lie in the area, also where longitudes meet."""

    def box(west: int, south: int, east: int, north: int) -> Area:
        return Area((west * DEGREE, south * DEGREE, east * DEGREE, north * DEGREE))

    def at(lat: int, lon: int, area: Area) -> Scene:
        return scene(flight(mission=replace(FACTS, takeoff=Takeoff(lat, lon, 0), area=area)))

    def ring(west: int, south: int, east: int, north: int) -> tuple[int, ...]:
        return tuple(DEGREE * n for n in (west, south, east, south, east, north, west, north))

    outside = "E takeoff-outside-area"
    west, south, east, north = FACTS.area.bbox
    yield "the-original", GO, scene()
    yield "on-the-corner", GO, at(south, west, FACTS.area)
    yield "just-south", outside, at(south - 1, west, FACTS.area)
    away = replace(FACTS, takeoff=Takeoff(south - 1, west, 0), takeoff_outside=True)
    yield "just-south-as-the-mission-allows", GO, scene(flight(mission=away))
    yield "just-west", outside, at(south, west - 1, FACTS.area)
    yield "just-north", outside, at(north + 1, east, FACTS.area)
    yield "just-east", outside, at(north, east + 1, FACTS.area)
    yield "latitude-and-longitude-exchanged", outside, at(45 * DEGREE, 5 * DEGREE, box(40, 0, 50, 10))
    yield "mirrored-at-the-equator", outside, at(-north, west, FACTS.area)
    yield "mirrored-at-greenwich", outside, at(north, -west, FACTS.area)
    across = box(179, -1, -179, 1)
    for name, lon in {"west-of": 1795 * 10**6, "east-of": -1795 * 10**6, "on": LON_MAX, "on-as-west": -LON_MAX}.items():
        yield f"{name}-the-antimeridian", GO, at(0, lon, across)
    yield "the-long-way-round", outside, at(0, 0, across)
    yield "just-west-of-an-area-across-the-antimeridian", outside, at(0, 179 * DEGREE - 1, across)
    yield "just-east-of-an-area-across-the-antimeridian", outside, at(0, -179 * DEGREE + 1, across)
    yield "north-of-an-area-across-the-antimeridian", outside, at(DEGREE + 1, LON_MAX, across)
    up_to = box(179, -1, 180, 1)
    yield "on-the-antimeridian-by-its-other-name", GO, at(0, -LON_MAX, up_to)
    yield "just-beyond-the-antimeridian", outside, at(0, -LON_MAX + 1, up_to)
    cut = replace(across, polygons=((ring(179, -1, 180, 0),), (ring(-180, 0, -179, 1),)))
    yield "in-an-area-cut-at-the-antimeridian", GO, at(-5 * 10**6, 1795 * 10**6, cut)
    yield "in-the-other-part-of-an-area-cut-at-the-antimeridian", GO, at(5 * 10**6, -1795 * 10**6, cut)
    yield "in-the-box-of-an-area-cut-at-the-antimeridian-alone", outside, at(5 * 10**6, 1795 * 10**6, cut)
    cap = box(0, 80, 90, 90)
    yield "at-the-pole-on-any-meridian", GO, at(LAT_MAX, -120 * DEGREE, cap)
    yield "at-the-other-pole", outside, at(-LAT_MAX, 10 * DEGREE, cap)
    yield "just-below-the-pole-on-another-meridian", outside, at(LAT_MAX - 1, -120 * DEGREE, cap)
    short = Area((0, 80 * DEGREE, 90 * DEGREE, LAT_MAX - 1))
    yield "at-the-pole-of-an-area-that-stops-short-of-it", outside, at(LAT_MAX, 10 * DEGREE, short)
    below = replace(cap, polygons=((ring(0, 80, 90, 89),),))
    yield "at-the-pole-of-a-box-whose-polygon-stops-short-of-it", outside, at(LAT_MAX, 10 * DEGREE, below)
    yield "at-the-south-pole-of-an-area-of-the-north", outside, at(-LAT_MAX, 0, box(-180, 0, 180, 90))
    yield "at-the-south-pole", GO, at(-LAT_MAX, 77 * DEGREE, box(-180, -90, 180, -60))
    square = Area(box(0, 0, 4, 4).bbox, ((ring(0, 0, 4, 4), ring(1, 1, 3, 3)),))
    yield "beside-the-hole", GO, at(5 * 10**6, 5 * 10**6, square)
    yield "in-the-hole", outside, at(2 * DEGREE, 2 * DEGREE, square)
    corner = replace(box(0, 0, 4, 4), polygons=((ring(0, 0, 1, 1),),))
    yield "in-the-box-and-not-in-the-polygon", outside, at(2 * DEGREE, 2 * DEGREE, corner)
    line = Area(box(0, 0, 4, 4).bbox, (((0, 0, DEGREE, DEGREE, 2 * DEGREE, 2 * DEGREE),),))
    yield "beside-a-polygon-without-inside", outside, at(DEGREE, DEGREE + 1, line)
    shapes: dict[str, Any] = {
        "area-of-the-antimeridian-alone": {"bbox": [LON_MAX, 0, -LON_MAX, 1]},
        "area-of-no-width": {"bbox": [0, 0, 0, 1]},
        "area-upside-down": {"bbox": [0, 1, 1, 0]},
        "area-beyond-the-pole": {"bbox": [0, 0, 1, LAT_MAX + 1]},
        "area-beyond-the-antimeridian": {"bbox": [0, 0, LON_MAX + 1, 1]},
        "polygon-outside-its-box": {"bbox": [0, 0, 4, 4], "polygons": [[[0, 0, 5, 0, 0, 4]]]},
        "polygon-of-two-vertices": {"bbox": [0, 0, 4, 4], "polygons": [[[0, 0, 4, 4]]]},
        "polygon-of-half-a-vertex": {"bbox": [0, 0, 4, 4], "polygons": [[[0, 0, 4, 4, 0, 4, 1]]]},
    }
    for name, change in shapes.items():
        yield name, "D bad-field", with_fields("mission", "area", **change)
    yield "takeoff-beyond-the-pole", "D bad-field", with_fields("mission", takeoff=[LAT_MAX + 1, 0, 0])
    yield "takeoff-beyond-the-antimeridian", "D bad-field", with_fields("mission", takeoff=[0, LON_MAX + 1, 0])
    yield "takeoff-in-degrees", "D not-canonical", with_fields("mission", takeoff=[47.02, -99.16, 480.0])


# refs


def refs() -> Iterator[Row]:
    """A ref is unsigned: it may lead anywhere, and only to what carries its own mission id."""

    def leads(data: bytes) -> Scene:
        made = scene()
        OTHER.place(made.evidence)
        made.evidence.put(sign_root(ROOT, "root-a"))
        made.evidence.refs[GOOD.id] = data
        return made

    hexed = str(GOOD.manifest_id).encode()
    yield "the-original", GO, leads(hexed + b"\n")
    yield "the-other-mission-by-its-name", GO, replace(leads(b""), mission=OTHER.id)
    yield "to-another-missions-manifest", "E wrong-mission", leads(f"{OTHER.manifest_id}\n".encode())
    yield "to-the-table", "A bad-envelope", leads(f"{GOOD.manifest.table}\n".encode())
    yield "to-an-artifact", "A bad-envelope", leads(f"{GOOD.entry(ENGINE).id}\n".encode())
    yield "to-a-trust-root", "A bad-envelope", leads(f"{ObjectId.of(sign_root(ROOT, 'root-a'))}\n".encode())
    yield "to-nothing", "A missing", leads(b"0" * 64 + b"\n")
    yield "of-a-path", "A bad-ref", leads(b"../../../etc/passwd".ljust(64, b"/") + b"\n")
    yield "in-upper-case", "A bad-ref", leads(hexed.upper() + b"\n")
    yield "without-newline", "A bad-ref", leads(hexed)
    yield "with-a-newline-of-dos", "A too-large", leads(hexed + b"\r\n")
    yield "with-two-lines", "A too-large", leads(hexed + b"\n" + hexed + b"\n")
    yield "with-a-nul", "A bad-ref", leads(hexed[:63] + b"\x00\n")
    yield "with-digits-of-another-script", "A bad-ref", leads(hexed[:63].ljust(64, b"\xb2") + b"\n")
    yield "torn", "A bad-ref", leads(hexed[:40])
    yield "empty", "A bad-ref", leads(b"")
    missions = {
        "folder-above": "..",
        "path": "../trust/1.root.cbor",
        "absolute-path": "/etc/passwd",
        "upper-case": "NORTH-RIDGE",
        "look-alike": "n\u043erth-ridge",
        "newline": "north-ridge\n",
        "nul": "north-ridge\x00",
        "nothing": "",
    }
    for name, mission in missions.items():
        yield f"asked-for-a-mission-by-{name}", "A missing", replace(leads(hexed + b"\n"), mission=mission)


# the medium


def changed(id_: ObjectId, change: Callable[[bytes], bytes] | None) -> Scene:
    """A medium with other bytes under an id, or none."""
    made = scene(EVEN)
    if change is None:
        del made.evidence.objects[id_]
    else:
        made.evidence.objects[id_] = change(made.evidence.objects[id_])
    return made


# Engine and shard of one length.
EVEN = flight({**CONTENTS, ENGINE: b"e" * len(CONTENTS[SHARD])})


def flip(data: bytes) -> bytes:
    return data[:5] + bytes([data[5] ^ 1]) + data[6:]


def objects() -> Iterator[Row]:
    """Every object of the closure is read in full, and has the size and the hash that are signed."""
    yield "the-original", GO, scene(EVEN)
    things = {"manifest": (EVEN.manifest_id, "A"), "table": (EVEN.manifest.table, "D")}
    artifacts = {"engine": ENGINE, "shard": SHARD, "file": CAMERA}
    things |= {name: (EVEN.entry(path).id, "F") for name, path in artifacts.items()}
    for name, (id_, step) in things.items():
        # The size of a manifest is signed nowhere: its hash has to tell.
        shorter, longer = ("bit-flip", "bit-flip") if name == "manifest" else ("truncated", "oversized")
        yield f"{name}-taken-away", f"{step} missing", changed(id_, None)
        yield f"{name}-with-one-bit-flipped", f"{step} bit-flip", changed(id_, flip)
        yield f"{name}-of-zeroes", f"{step} bit-flip", changed(id_, lambda data: bytes(len(data)))
        yield f"{name}-cut-by-a-byte", f"{step} {shorter}", changed(id_, lambda data: data[:-1])
        yield f"{name}-emptied", f"{step} {shorter}", changed(id_, lambda _: b"")
        yield f"{name}-longer-by-a-byte", f"{step} {longer}", changed(id_, lambda data: data + b"\x00")
    exchanged = scene(EVEN)
    held, first, second = exchanged.evidence.objects, EVEN.entry(ENGINE).id, EVEN.entry(SHARD).id
    held[first], held[second] = held[second], held[first]
    yield "two-artifacts-exchanged", "F swapped", exchanged
    yield "artifact-in-anothers-place", "F swapped", changed(first, lambda _: EVEN.contents[SHARD])
    yield "another-missions-manifest-under-the-id", "A bit-flip", changed(EVEN.manifest_id, lambda _: OTHER.signed)
    statement = b"a release statement"
    yield "release-taken-away", "F missing", scene(flight(releases=(ObjectId.of(statement),)))


Thing: TypeAlias = Callable[[Path, Path], object]


def instead(name: str, make: Thing | bytes | None) -> Hook:
    """Moves what lies under a name out of the store, and puts bytes, a thing or nothing in its place. A thing is made
    of its path, and of where the right one lies now."""

    def hook(store: Path) -> None:
        path, aside = store / name, store.parent / "aside"
        path.rename(aside)
        if isinstance(make, bytes):
            path.write_bytes(make)
        elif make is not None:
            make(path, aside)

    return hook


THINGS: dict[str, Thing] = {
    "link-to-it": lambda path, aside: path.symlink_to(aside),
    "link-to-nothing": lambda path, _: path.symlink_to("nothing"),
    "link-to-itself": lambda path, _: path.symlink_to(path.name),
    "link-to-a-device": lambda path, _: path.symlink_to("/dev/zero"),
    "fifo": lambda path, _: os.mkfifo(path),
    "socket": lambda path, _: os.mknod(path, 0o600 | stat.S_IFSOCK),
}
FIFO = THINGS["fifo"]


def a_folder(path: Path, _aside: Path) -> None:
    path.mkdir()


def media() -> Iterator[Row]:
    """What is no regular file in no regular folder is never followed, waited for or read; before and during a check."""
    second: Any = {"chain": [sign_root(SECOND, "root-a")]}
    shard = f"objects/{str(GOOD.entry(ENGINE).id)[:2]}"
    paths = {
        "manifest": (object_path(GOOD.manifest_id), "A wrong-type"),
        "table": (object_path(GOOD.manifest.table), "D wrong-type"),
        "engine": (object_path(GOOD.entry(ENGINE).id), "F wrong-type"),
        "ref": (f"missions/{GOOD.id}", "A wrong-type"),
        "root": ("trust/2.root.cbor", "B wrong-type"),
        "shard": (shard, "F wrong-type"),
        "objects": ("objects", "A wrong-type"),
        "missions": ("missions", "A wrong-type"),
        "trust": ("trust", "B wrong-type"),
    }
    folders = ("shard", "objects", "missions", "trust")
    assert len({str(id_)[:2] for id_ in (GOOD.manifest_id, GOOD.manifest.table, GOOD.entry(ENGINE).id)}) == 3
    yield "the-original", GO, scene(**second, before=lambda _store: None)
    yield "refs-replaced-after-they-were-read", GO, scene(during=instead("missions", FIFO))
    yield "roots-replaced-after-they-were-read", GO, scene(**second, checking=instead("trust", FIFO))
    # The folder that was opened is the one that is read: what takes its name later is not looked at.
    yield "objects-replaced-after-they-were-opened", GO, scene(during=instead("objects", FIFO))
    for name, (path, refusal) in paths.items():
        things: dict[str, Thing | bytes] = {**THINGS}
        things |= {"file": b"x"} if name in folders else {"folder": a_folder}
        for thing, make in things.items():
            yield f"{thing}-for-the-{name}", refusal, scene(**second, before=instead(path, make))
    yield "shard-taken-away", "F missing", scene(before=instead(shard, None))
    yield "refs-taken-away", "A missing", scene(before=instead("missions", None))
    for name in ("table", "engine", "shard"):
        path, refusal = paths[name]
        for thing, make in THINGS.items():
            yield f"{thing}-for-the-{name}-during-the-check", refusal, scene(during=instead(path, make))
    for name, id_, step in (
        ("manifest", GOOD.manifest_id, "F"),
        ("table", GOOD.manifest.table, "D"),
        ("engine", GOOD.entry(ENGINE).id, "F"),
    ):
        path, data = object_path(id_), evidence_of(GOOD).objects[id_]
        for thing, kind, instead_of_it in (
            ("taken-away", "missing", None),
            ("flipped", "bit-flip", flip(data)),
            ("cut", "truncated", data[:-1]),
            ("longer", "oversized", data + b"\x00"),
        ):
            yield f"{name}-{thing}-during-the-check", f"{step} {kind}", scene(during=instead(path, instead_of_it))
    yield "link-for-the-manifest-during-the-check", "F wrong-type", scene(
        during=instead(paths["manifest"][0], THINGS["link-to-it"]))  # fmt: skip
    # The closure is read in the order of the ids.
    closure = {GOOD.manifest_id, GOOD.manifest.table, *(one.id for one in GOOD.table.entries)}
    last = max(closure)
    path = object_path(last)
    for thing, make in THINGS.items():
        yield f"{thing}-for-the-last-object-at-the-last-moment", "F wrong-type", scene(checking=instead(path, make))
    yield "last-object-flipped-at-the-last-moment", "F bit-flip", scene(
        checking=instead(path, flip(evidence_of(GOOD).objects[last])))  # fmt: skip
    yield "last-object-taken-away-at-the-last-moment", "F missing", scene(checking=instead(path, None))


# from the check to the use


def loads() -> Iterator[Row]:
    """What was verified is loaded as what it is, and as the bytes that were hashed."""
    heavy = HEAVY.contents[ENGINE]
    path = object_path(HEAVY.entry(ENGINE).id)
    shard = path.rpartition("/")[0]

    def rewrite(at: int, data: bytes) -> Hook:
        """Changes bytes of the file itself, as somebody would who has it open."""

        def hook(store: Path) -> None:
            with open(store / path, "r+b") as file:
                file.seek(at)
                file.write(data)

        return hook

    yield "the-original", GO, Loading()
    yield "a-file-as-a-file", GO, Loading("files/net.onnx", "file")
    # Read already, or another file by now: what is handed out is what was hashed.
    yield "rewritten-behind-the-reader", GO, Loading(reading=rewrite(0, b"forged"))
    yield "replaced-while-it-is-read", GO, Loading(reading=instead(path, b"forged"))
    yield "taken-away-while-it-is-read", GO, Loading(reading=instead(path, None))
    yield "folder-replaced-after-it-was-opened", GO, Loading(between=instead(shard, FIFO))
    yield "engine-filed-under-files", "load Invalid", Loading("files/net.onnx")
    yield "shard-as-an-engine", "load Invalid", Loading(SHARD)
    yield "engine-as-a-file", "load Invalid", Loading(kind="file")
    yield "engine-as-anything", "load Invalid", Loading(kind="")
    yield "name-of-no-entry", "load NotFound", Loading("engines/net/other.onnx")
    yield "name-in-upper-case", "load NotFound", Loading(ENGINE.upper())
    yield "name-with-dot-dot", "load NotFound", Loading("files/../engines/net/net.onnx")
    yield "name-of-a-folder", "load NotFound", Loading("engines/net")
    yield "name-of-an-object", "load NotFound", Loading(path)
    yield "flipped-after-the-check", "load bit-flip", Loading(between=instead(path, flip(heavy)))
    yield "flipped-in-place-after-the-check", "load bit-flip", Loading(between=rewrite(2**20, b"\xff"))
    yield "exchanged-after-the-check", "load truncated", Loading(between=instead(path, HEAVY.contents[SHARD]))
    yield "cut-after-the-check", "load truncated", Loading(between=instead(path, heavy[:-1]))
    yield "emptied-after-the-check", "load truncated", Loading(between=instead(path, b""))
    yield "longer-after-the-check", "load oversized", Loading(between=instead(path, heavy + b"\x00"))
    yield "taken-away-after-the-check", "load missing", Loading(between=instead(path, None))
    for thing, make in {**THINGS, "folder": a_folder}.items():
        yield f"{thing}-after-the-check", "load wrong-type", Loading(between=instead(path, make))
    yield "rewritten-ahead-of-the-reader", "load bit-flip", Loading(reading=rewrite(2 * 2**20, b"forged"))
    yield "cut-while-it-is-read", "load truncated", Loading(reading=lambda store: os.truncate(store / path, 2**20))
    yield "emptied-while-it-is-read", "load truncated", Loading(reading=lambda store: os.truncate(store / path, 0))
    yield "longer-while-it-is-read", "load oversized", Loading(reading=rewrite(len(heavy), b"forged"))


# releases

RELEASING = replace(
    ROOT, releases="required", release=role("lab", "lab-2", "lab-3", threshold=2), revoked=role("old-lab").keys
)
NEEDED = [Approval.of(one) for one in GOOD.table.entries if one.kind in RELEASED]


def release_of(
    *by: str, approvals: Sequence[Approval] = NEEDED, root: TrustRoot = RELEASING, label: str = releases.AAD_LABEL
) -> bytes:
    payload = Release("winter", NOW - 500, "cpu-x86_64", tuple(sorted(approvals))).render()
    return sign_payload(payload, releases.CONTENT_TYPE, root.aad(label), by)


def approved(*statements: bytes, kept: bool = True, root: TrustRoot = RELEASING) -> Scene:
    """A mission that relies on these releases; they travel with it if `kept`."""
    ids = tuple(sorted(ObjectId.of(data) for data in statements))
    made = scene(flight(root=root, releases=ids), root=root)
    for data in statements if kept else ():
        made.evidence.put(data)
    return made


def with_release_fields(**changes: Any) -> Scene:
    """A release with other fields in its payload, signed by the lab, whatever the writer's rules say."""
    value = value_of(envelope_of(release_of(), releases.CONTENT_TYPE).payload) | changes
    payload = cbor2.dumps(value, canonical=True)
    return approved(sign_payload(payload, releases.CONTENT_TYPE, RELEASING.aad(releases.AAD_LABEL), LAB))


LAB = ("lab", "lab-2")


def released() -> Iterator[Row]:
    """No engine flies that the lab, two of three, has not approved: this object, under this name, for this host."""
    good = release_of(*LAB)
    (need,) = NEEDED
    yield "the-original", GO, approved(good)
    yield "where-none-is-asked-for", GO, scene()
    yield "beside-one-that-approves-nothing-of-it", GO, approved(
        good, release_of(*LAB, approvals=[replace(need, name="engines/net/other.onnx")]))  # fmt: skip
    yield "none", "E unreleased", approved()
    for name, other in {
        "of-another-object": replace(need, id=ObjectId.of(b"forged")),
        "of-another-size": replace(need, size=need.size + 1),
        "under-another-name": replace(need, name="engines/net/other.onnx"),
        "for-another-host": replace(need, host="cpu"),
        "as-an-index": replace(need, name="indexes/net/net.onnx", kind="index"),
    }.items():
        yield name, "E unreleased", approved(release_of(*LAB, approvals=[other]))
    for name, refusal, data in (
        ("signed-by-one-of-two", "threshold", release_of("lab")),
        ("signed-by-nobody", "threshold", release_of()),
        ("signed-by-the-pilot", "wrong-role", release_of("lab", "pilot")),
        ("signed-by-a-root-key", "wrong-role", release_of("lab", "root-a")),
        ("signed-by-a-stranger", "unknown-signer", release_of("lab", "stranger")),
        ("stranger-appended", "unknown-signer", release_of(*LAB, "stranger")),
        ("signed-with-a-revoked-key", "revoked-key", release_of("lab", "old-lab")),
        ("of-another-domain", "bad-signature", release_of(*LAB, root=replace(RELEASING, salt=bytes(16)))),
        ("signed-as-a-manifest", "bad-signature", release_of(*LAB, label=manifests.AAD_LABEL)),
        ("a-manifest-in-its-place", "bad-envelope", GOOD.signed),
        ("trailing-byte", "not-canonical", good + b"\x00"),
        ("cut", "not-canonical", good[:-1]),
    ):
        yield name, ", ".join(sorted(("E unreleased", f"E {refusal}"))), approved(data)
    for name, changes in {
        "unknown-field": {"more": 1}, "version-2": {"version": 2}, "no-entries": {"entries": []},
        "entry-of-five": {"entries": [["engines/net/net.onnx", "engine", bytes(need.id), need.size]]},
        "a-file-approved": {"entries": [["files/x", "file", bytes(need.id), need.size, "cpu"]]},
        "kind-that-the-name-denies": {"entries": [["engines/net/net.onnx", "index", bytes(need.id), need.size, "cpu"]]},
        "id-of-31-bytes": {"entries": [["engines/net/net.onnx", "engine", bytes(31), need.size, "cpu"]]},
        "host-that-the-release-has-not": {"host": "cpu-aarch64"},
    }.items():  # fmt: skip
        yield name, "E bad-field, E unreleased", with_release_fields(**changes)
    yield "entry-twice", "E bad-order, E unreleased", with_release_fields(
        entries=value_of(envelope_of(good, releases.CONTENT_TYPE).payload)["entries"] * 2)  # fmt: skip
    yield "left-behind", "E unreleased, F missing", approved(good, kept=False)
    flipped = approved(good)
    flipped.evidence.objects[ObjectId.of(good)] = flip(good)
    yield "flipped", "E bit-flip, E unreleased, F bit-flip", flipped


# the aircraft


@dataclass(frozen=True)
class Flying:
    """What an aircraft was shown `before`, GO or not; what somebody then did to its state; and what it is shown now, by
    a trusted clock if `now`."""

    shown: Scene
    before: Sequence[Scene | str] = ()
    damage: Hook | None = None
    now: int | None = NOW
    flight: str | None = None
    aircraft: str = "uav-07"
    host: str = "cpu-x86_64-avx2"


def flying(shown: Flying, folder: Path) -> str:
    """The takeoff check with the aircraft's memory. A text in `before` is a flight that was flown."""
    state = folder / "state"
    enrol(state, AircraftState.initial(shown.aircraft, shown.host, shown.shown.pinned))
    for number, one in enumerate([*shown.before, shown.shown]):
        if isinstance(one, str):
            consume(state, one)
            continue
        if one is shown.shown and shown.damage:
            shown.damage(state)
        store = folder / f"store-{number}"
        one.evidence.write_to(store)
        with Media(store) as media:
            verdict = check(state, StoreEvidence(media), one.mission, now=shown.now, flight=shown.flight)
    return ", ".join(sorted({f"{finding.step} {finding.kind}" for finding in verdict.findings})) or GO


def issued(*, chain: Sequence[bytes] = (), root: TrustRoot = ROOT, mission: Any = None, **issue: Any) -> Scene:
    """The mission, issued otherwise."""
    one = flight(root=root, issue=replace(ISSUE, **issue), mission=mission or FACTS)
    return scene(one, chain=chain)


def slots(change: Callable[[bytes], bytes | None], *names: str) -> Hook:
    """Changes slots of the state, or takes them away."""

    def hook(state: Path) -> None:
        for name in names or ("a", "b"):
            data = change((state / name).read_bytes())
            (state / name).unlink()
            if data is not None:
                (state / name).write_bytes(data)

    return hook


def states() -> Iterator[Row]:
    """What is genuine, and refused all the same: by who the aircraft is, and what it has seen."""
    newer = issued(sequence=ISSUE.sequence + 10)
    yield "the-original", GO, Flying(scene())
    yield "the-same-again", GO, Flying(scene(), [scene()])
    yield "a-newer-one", GO, Flying(newer, [scene()])
    south = replace(issued(sequence=1, mission=replace(FACTS, id="south-ridge")), mission="south-ridge")
    yield "an-older-mission-of-another-id", GO, Flying(south, [newer])
    yield "older", "E rolled-back", Flying(scene(), [newer])
    yield "older-by-one", "E rolled-back", Flying(issued(sequence=ISSUE.sequence + 9), [newer])
    yield "same-sequence-other-flight", "E same-sequence", Flying(
        issued(mission=replace(FACTS, flight="2026-11-23-09")), [scene()])  # fmt: skip
    yield "same-sequence-later-expiry", "E same-sequence", Flying(issued(expires_at=NOW + 10**6), [scene()])
    yield "flown", "E consumed-flight", Flying(scene(), [scene(), FACTS.flight])
    yield "flown-under-a-new-sequence", "E consumed-flight", Flying(newer, [scene(), FACTS.flight])
    yield "another-flight-than-meant", "E wrong-flight", Flying(scene(), flight="2026-11-23-02")
    yield "another-aircraft", "E wrong-aircraft", Flying(scene(), aircraft="uav-99")
    yield "another-host", "E wrong-host", Flying(scene(), host="cpu-aarch64")
    yield "another-domain", "C bad-signature", Flying(
        replace(scene(), pinned=pinned(replace(ROOT, salt=bytes(16)))))  # fmt: skip
    end = ISSUE.expires_at
    assert end is not None
    yield "at-the-last-second", GO, Flying(scene(), now=end)
    yield "a-second-late", "E expired", Flying(scene(), now=end + 1)
    yield "a-clock-of-1970", "E floor-ahead, E issued-in-future", Flying(scene(), now=5)
    day = 86400
    limited = replace(COVERAGE, oldest=ISSUE.issued_at - day, newest=ISSUE.issued_at, max_age_days=1)
    yield "imagery-at-its-last-second", GO, Flying(scene(flight(coverage=limited)), now=ISSUE.issued_at)
    yield "imagery-a-second-older", "E stale-imagery", Flying(scene(flight(coverage=limited)), now=ISSUE.issued_at + 1)
    late = replace(FACTS, id="later", flight="later")
    passed = issued(mission=late, issued_at=end + 1, expires_at=None, sequence=end)
    passed = replace(passed, mission="later")
    yield "expired-by-what-has-passed-without-a-clock", "E expired", Flying(scene(), [passed], now=None)
    yield "clock-set-back", "E expired", Flying(scene(), [passed], now=NOW)
    yield "clock-set-back-to-1970", "E floor-ahead, E issued-in-future", Flying(scene(), [passed], now=5)
    revoking = next_root(ROOT, mission=role("co-pilot"), revoked=role("pilot").keys)
    second = sign_root(revoking, "root-a")
    yield "stick-with-the-revocation", "C revoked-key", Flying(scene(chain=[second]))
    yield "old-stick-after-the-revocation", "C revoked-key", Flying(scene(), [scene(chain=[second])])
    yield "a-fork-of-the-chain", "C revoked-key", Flying(
        scene(chain=[sign_root(next_root(ROOT, domain="fork"), "root-a")]), [scene(chain=[second])])  # fmt: skip
    after = next_root(ROOT, epoch=2)
    new_epoch = sign_root(after, "root-a")
    fast = issued(sequence=INT_MAX)
    yield "last-of-all-sequences", GO, Flying(fast)
    yield "new-epoch-after-that", GO, Flying(issued(chain=[new_epoch], root=after, epoch=2, sequence=1), [fast])
    yield "anything-older-after-that", "E rolled-back", Flying(newer, [fast])
    yield "the-old-epoch-again", "E rolled-back, E wrong-epoch", Flying(
        fast, [issued(chain=[new_epoch], root=after, epoch=2, sequence=1)])  # fmt: skip
    yield "one-slot-torn", GO, Flying(scene(), damage=slots(lambda data: data[:100], "a"))
    yield "one-slot-lost", GO, Flying(scene(), damage=slots(lambda _: None, "b"))
    yield "both-slots-torn", "E bad-state", Flying(scene(), damage=slots(lambda data: data[:100]))
    yield "both-slots-flipped", "E bad-state", Flying(scene(), damage=slots(flip))
    yield "both-slots-empty", "E bad-state", Flying(scene(), damage=slots(lambda _: b""))
    yield "both-slots-lost", "E no-state", Flying(scene(), damage=slots(lambda _: None))
    yield "state-gone", "E no-state", Flying(scene(), damage=shutil.rmtree)
    yield "longer-slots", "E bad-state", Flying(scene(), damage=slots(lambda data: data + b"\x00"))


# one entry by its proof, and a root by its draft


def proof_file(**changes: Any) -> bytes:
    """The proof of the engine, some of its fields others."""
    opened = Opened(GOOD.manifest, GOOD.manifest_id, len(GOOD.signed), GOOD.table, ROOT)
    return replace(proofs_.Proof.of(opened, GOOD.signed, [], ENGINE), **changes).render()


def proven(data: bytes, _folder: Path) -> str:
    """The check of a proof file, and that what it shows is the engine."""
    try:
        shown = proofs_.prove(proofs_.Proof.parse(data), pinned())
    except FlightbagError as error:
        return f"proof {error.fields['kind']}"
    return GO if shown.entry == GOOD.entry(ENGINE) else "proof another-entry"


def proof_files() -> Iterator[Row]:
    """A proof says nothing but what is signed."""
    data = proof_file()
    whole = proofs_.Proof.parse(data)
    forged = encode(entry(ENGINE, b"forged").value())
    left, right = merkle.leaf_hash(GOOD.table.leaves[0]), merkle.leaf_hash(GOOD.table.leaves[1])
    first = next_root(ROOT, mission=role("pilot", "co-pilot"))
    yield "the-original", GO, data
    yield "through-a-newer-root", GO, proof_file(roots=(sign_root(first, "root-a"),))
    yield "another-engine", "proof bad-proof", proof_file(entry=forged)
    yield "another-index", "proof bad-proof", proof_file(index=whole.index ^ 1)
    yield "index-behind-the-last", "proof bad-proof", proof_file(index=GOOD.manifest.count)
    yield "hash-more", "proof bad-proof", proof_file(hashes=(*whole.hashes, bytes(32)))
    yield "hash-less", "proof bad-proof", proof_file(hashes=whole.hashes[:-1])
    yield "hashes-in-another-order", "proof bad-proof", proof_file(hashes=whole.hashes[::-1])
    yield "hash-of-31-bytes", "proof bad-proof", proof_file(hashes=(whole.hashes[0][:31], *whole.hashes[1:]))
    yield "node-for-a-leaf", "proof bad-proof", proof_file(entry=left + right, index=0, hashes=whole.hashes[:-1])
    yield "manifest-of-another-mission", "proof bad-proof", proof_file(manifest=flight({"files/a": b"a"}).signed)
    yield "manifest-unsigned", "proof threshold", proof_file(manifest=flight(by=()).signed)
    yield "manifest-by-a-stranger", "proof unknown-signer", proof_file(manifest=flight(by=("stranger",)).signed)
    yield "manifest-of-another-domain", "proof bad-signature", proof_file(
        manifest=flight(root=replace(ROOT, salt=bytes(16))).signed)  # fmt: skip
    yield "root-by-a-stranger", "proof threshold", proof_file(
        roots=(sign_root(next_root(ROOT, root=role("stranger")), "stranger"),))  # fmt: skip
    revoking = next_root(ROOT, mission=role("co-pilot"), revoked=role("pilot").keys)
    yield "root-that-revokes-the-signer", "proof revoked-key", proof_file(roots=(sign_root(revoking, "root-a"),))
    yield "trailing-byte", "proof not-canonical", data + b"\x00"
    yield "cut", "proof not-canonical", data[:-1]
    value = decode(data, limit=2**20, what="it")
    yield "unknown-field", "proof bad-field", encode({**value, "more": 1})
    yield "field-left-out", "proof bad-field", encode({k: v for k, v in value.items() if k != "roots"})
    yield "format-2", "proof bad-field", encode({**value, "format": 2})
    yield "larger-than-any", "proof too-large", data + bytes(proofs_.PROOF_LIMIT)
    yield "eighteen-hashes", "proof bad-field", encode({**value, "hashes": [bytes(32)] * 18})


def completing(data: bytes, _folder: Path) -> str:
    """What it takes to put the draft of a root into effect."""
    try:
        drafts.complete(drafts.RootDraft.parse(data), pinned())
    except FlightbagError as error:
        return f"draft {error.fields['kind']}"
    return GO


def draft_file(root: TrustRoot, *by: str, before: SignedRoot | None = None, forged: Signature | None = None) -> bytes:
    envelope = Envelope.parse(sign_root(root, *by), roots.CONTENT_TYPE, PAYLOAD_LIMIT)
    if forged:
        envelope = envelope.with_signature(forged)
    return drafts.RootDraft(before or pinned(), root, envelope).render()


def root_drafts() -> Iterator[Row]:
    """A draft is carried by hands that nobody knows: it becomes a root by its signatures alone."""
    good = next_root(ROOT, mission=role("pilot", "co-pilot"))
    other = replace(ROOT, domain="other fleet")
    yield "the-original", GO, draft_file(good, "root-a")
    yield "unsigned", "draft threshold", draft_file(good)
    yield "signed-by-the-pilot", "draft unknown-signer", draft_file(good, "root-a", "pilot")
    yield "new-key-alone", "draft threshold", draft_file(next_root(ROOT, root=role("thief")), "thief")
    yield "old-key-alone", "draft threshold", draft_file(next_root(ROOT, root=role("root-b")), "root-a")
    yield "forged-signature", "draft bad-signature", draft_file(
        good, forged=Signature(key("root-a").public.kid, bytes(64)))  # fmt: skip
    yield "two-versions-on", "draft bad-trust-chain", draft_file(next_root(next_root(ROOT)), "root-a")
    yield "of-another-domain", "draft stale-draft", draft_file(next_root(other), "root-a", before=pinned(other))
    yield "before-exchanged", "draft bad-trust-chain", draft_file(good, "root-a", before=pinned(other))
    yield "before-by-a-stranger", "draft unknown-signer", encode(
        [drafts.MAGIC, sign_root(ROOT, "root-a", "stranger"), sign_root(good, "root-a")])  # fmt: skip
    yield "no-root-before", "draft bad-draft", encode([drafts.MAGIC, b"", sign_root(good, "root-a")])
    yield "a-second-first-root", "draft stale-draft", encode([drafts.MAGIC, b"", sign_root(other, "root-a")])
    yield "revocation-taken-back", "draft bad-trust-chain", draft_file(
        next_root(replace(ROOT, revoked=role("thief").keys), revoked=()), "root-a",
        before=pinned(replace(ROOT, revoked=role("thief").keys)))  # fmt: skip
    yield "epoch-taken-back", "draft bad-trust-chain", draft_file(
        next_root(replace(ROOT, epoch=2), epoch=1), "root-a", before=pinned(replace(ROOT, epoch=2)))  # fmt: skip
    yield "a-root-for-a-draft", "draft not-canonical", sign_root(good, "root-a")
    yield "trailing-byte", "draft not-canonical", draft_file(good, "root-a") + b"\x00"
    yield "larger-than-any", "draft too-large", bytes(drafts.DRAFT_LIMIT + 1)


Groups: TypeAlias = dict[str, tuple[Callable[[Any, Path], str], Callable[[], Iterable[Row]]]]

GROUPS: Groups = {
    "signatures": (takeoff, signatures),
    "envelope": (takeoff, envelopes),
    **{f"cbor-of-a-{name}": (takeoff, partial(cbor, name)) for name in CONTAINERS},
    "bombs": (partial(takeoff, look=measured), bombs),
    "names": (takeoff, names),
    "entries": (takeoff, entries),
    "commitments": (takeoff, commitments),
    "proofs": (proving, proofs),
    "chain": (takeoff, chains),
    "domains": (takeoff, domains),
    "pinned": (pinning, pins),
    "binding": (takeoff, bindings),
    "area": (takeoff, areas),
    "ref": (takeoff, refs),
    "objects": (takeoff, objects),
    "medium": (takeoff, media),
    "loading": (loading, loads),
    "releases": (takeoff, released),
    "aircraft": (flying, states),
    "proof-files": (proven, proof_files),
    "root-drafts": (completing, root_drafts),
}


def groups() -> Groups:
    """The groups of this module, then those of the modules beside it."""
    beside = (importlib.import_module(f"tests.conformance.{path.stem}") for path in sorted(_HERE.glob("attacks_*.py")))
    return GROUPS | {name: group for module in beside for name, group in module.GROUPS.items()}


def every() -> list[Attack]:
    """Attacks and controls, in the order of the groups."""
    return [Attack(group, *row) for group, (_, rows) in groups().items() for row in rows()]


def main() -> int:
    rows = every()
    width = max(len(str(row)) for row in rows)
    wrong = 0
    for row in rows:
        with tempfile.TemporaryDirectory() as folder:
            try:
                came = row.run(Path(folder))
            except Exception as error:
                came = f"{type(error).__name__}: {error}"
        fine = came == row.refusal
        wrong += not fine
        print(f"{row!s:{width}}  {came}" + ("" if fine else f"   WRONG, must be {row.refusal}"))
    attacks = sum(row.refusal != GO for row in rows)
    print(f"{attacks} attacks, {len(rows) - attacks} controls, {wrong} of them not as they must be")
    return 1 if wrong else 0


if __name__ == "__main__":
    # The modules beside this one import it by its name, and not as `__main__`.
    from tests.conformance import attacks as suite

    sys.exit(suite.main())
