"""What is fuzzed: each reader of bytes that nobody vouches for yet, with inputs to begin from.

A target lets pass the refusals that its reader names; whatever else comes out of it is a crash, and a broken law too.
The keys are those of the tests, and no mutation makes a signature: what is accepted must be bytes that somebody signed.
"""

from __future__ import annotations

import atexit
import base64
import fcntl
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from builders.descriptors.shard import read_shard, write_shard
from builders.onboard.probes import Probe
from builders.recipe import RowRecipe
from store.audit.ledger import Ledger
from store.disk import log
from store.disk.durable import Disk
from store.disk.layout import TOML, check_format
from store.disk.locks import Locked, SharedLock
from store.disk.media import FileStamp, Media
from store.errors import Corrupt, FlightbagError, Invalid, NoStore, NotFound, Unavailable, Untrusted
from store.format import manifest as manifests
from store.format import merkle
from store.format.built import Built
from store.format.cbor import decode, encode
from store.format.cose import Envelope
from store.format.entries import EntryTable
from store.format.ids import ObjectId, derive
from store.format.manifest import Manifest
from store.format.missing import MissingList
from store.format.order import Order
from store.format.receipt import Receipt, Verified
from store.format.ref import ref_id
from store.format.release import Release
from store.format.result import Result
from store.format.withdrawal import Withdrawal
from store.remotes.pack import Head
from store.remotes.tar import END, Member, TarReader, padding, render, render_comment
from store.takeoff.aircraft import CONTEXT as STATE_CONTEXT
from store.takeoff.aircraft import StoredState, read_state
from store.takeoff.proof import Proof, Proven, prove
from store.takeoff.verify import verify_mission
from store.trust import ed25519
from store.trust.aircraft_state import AircraftState
from store.trust.draft import RootDraft
from store.trust.keys import PrivateKey, PublicKey
from store.trust.root import SignedRoot, TrustRoot, advance
from tests.support import missions, orders
from tests.support.memory import MemoryEvidence
from tests.support.missions import ROOT, key, sign_manifest, sign_root

VECTORS = Path(__file__).parents[1] / "conformance" / "vectors"
INDEX: dict[str, dict[str, str]] = json.loads((VECTORS / "index.json").read_text())
Read = Callable[[bytes], Any]
Law = Callable[[Any, bytes], bool]
Refusals = type[FlightbagError] | tuple[type[FlightbagError], ...]


@dataclass(frozen=True, slots=True)
class Target:
    """A reader with its laws. `limit` is how many bytes an input may have: more shows nothing new here."""

    name: str
    seeds: list[bytes]
    run: Callable[[bytes], None]
    limit: int = 4096


def reading(read: Read, law: Law, refusals: Refusals = Corrupt) -> Callable[[bytes], None]:
    """Reads the bytes; where they are not refused, the law must hold for what was read of them."""

    def run(data: bytes) -> None:
        try:
            value = read(data)
        except refusals as error:
            if of_memory(error):
                raise MemoryError("memory ran out, and that was told as a refusal") from error
            return
        assert law(value, data), "the law of the reader is broken"

    return run


def of_memory(error: BaseException | None) -> bool:
    """Whether an error comes of one that memory ran out."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def vectors(reader: str) -> list[bytes]:
    """The golden vectors for a reader, good and bad."""
    return [(VECTORS / name).read_bytes() for name, about in INDEX.items() if about["reader"] == reader]


def read_slots(data: bytes) -> StoredState | None:
    """The state of an aircraft whose slots are the two halves of the bytes; the whole in both if there is no mark."""
    first, mark, second = data.partition(SLOT)
    placed("a", first)
    placed("b", second if mark else first)
    return read_state(media().path)


def slots_hold(found: StoredState, data: bytes) -> bool:
    """Only a state that somebody wrote is one: both slots have a checksum."""
    return any(found.state.render() in part for part in data.split(SLOT))


def read_ledger(data: bytes) -> dict[ObjectId, int]:
    """A ledger is a cache: whatever lies there, it is refused, replaced or says when objects were read."""
    for left in Path(media().path).glob("ledger*"):
        left.unlink()
    with Ledger(placed("ledger", data).absolute("ledger")) as ledger:
        return ledger.read_at(7, {ObjectId(b"\7" * 32): FileStamp(1, 2, 3, 4)})


def read_holder(data: bytes) -> None:
    """The name of the holder in a lock file, when the lock is taken."""
    place = Path(media().path)
    (place / "lock").mkdir(exist_ok=True)
    (place / "lock" / "x").write_bytes(data)
    held, other = (SharedLock(media().path, Disk(), "x", "it") for _ in range(2))
    try:
        held._flock(fcntl.LOCK_EX)
        other.hold_shared(wait=False)
    finally:
        held.close()
        other.close()


def renders(value: Any, data: bytes) -> bool:
    return bool(value.render() == data)


def table_holds(table: EntryTable, data: bytes) -> bool:
    """The leaves are those of its entries: the root was computed from what was read."""
    return renders(table, data) and table.merkle_root == EntryTable(table.entries).merkle_root


# Each is signed by just as many as it takes, so that nothing can be left out of it either.
SECOND = missions.next_root(ROOT, root=missions.role("root-b"))
CHAIN = [sign_root(SECOND, "root-a", "root-b"), sign_root(missions.next_root(SECOND), "root-b")]
ROOT_FILES = [sign_root(ROOT, "root-a"), *CHAIN, *vectors("root"), *vectors("step")]
PINNED = missions.pinned()
NEXT = b"<the next root>"


@cache
def signed_payloads() -> frozenset[bytes]:
    """The payloads of those root files that hold by themselves."""
    found = set()
    for data in ROOT_FILES:
        with suppress(Corrupt, Untrusted):
            found.add(SignedRoot.parse(data).envelope.payload)
    return frozenset(found)


def root_holds(signed: SignedRoot, data: bytes) -> bool:
    payload = signed.envelope.payload
    return renders(signed.envelope, data) and renders(signed.root, payload) and payload in signed_payloads()


LEAVES = [bytes([number]) * 3 for number in range(7)]
ROOT_OF_LEAVES = merkle.root(LEAVES)
PROOFS = [
    encode([leaf, index, len(LEAVES), list(merkle.inclusion_proof(LEAVES, index)), ROOT_OF_LEAVES])
    for index, leaf in enumerate(LEAVES)
]


def proven(data: bytes) -> list[Any]:
    """A proof as the vectors have it, with the root that it leads to."""
    value = decode(data, limit=2**16, what="the proof")
    types = [bytes, int, int, list, bytes]
    if type(value) is not list or [type(part) for part in value] != types or {*map(type, value[3])} - {bytes}:
        raise Corrupt("this is no proof")
    leaf, index, size, proof, _ = value
    return [leaf, index, size, proof, merkle.root_from_inclusion(merkle.leaf_hash(leaf), index, size, proof)]


def proof_holds(value: list[Any], _data: bytes) -> bool:
    signed = value[2] == len(LEAVES) and value[4] == ROOT_OF_LEAVES  # the caller has both from what is signed
    return not signed or encode(value) in PROOFS


@cache
def media() -> Media:
    opened = Media(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, opened.path, ignore_errors=True)
    atexit.register(opened.close)
    return opened


def placed(name: str, data: bytes) -> Media:
    """A folder with these bytes as the file `name`."""
    Path(media().absolute(name)).write_bytes(data)
    return media()


def read_bag(data: bytes) -> bytes:
    """The bytes of the bag as its parts would be written again."""
    reader = TarReader(io.BytesIO(data), "the bag")
    rendered = render_comment(Head.read(reader).render())
    for member in reader.members():
        content = reader.data()
        rendered += render(member) + content + padding(len(content))
    return rendered + END


def bag_seed() -> bytes:
    files = (
        (f"objects/ab/{'0' * 62}", b"x"),
        ("missions/north", b"y" * 65),
        (f"bags/{'0' * 32}/pieces/{'1' * 64}-9/x", b""),
    )
    members = b"".join(render(Member(name, len(data))) + data + padding(len(data)) for name, data in files)
    return render_comment(Head("0" * 32, 1, 2, "1" * 64, 3, 66).render()) + members + END


def read_log(data: bytes) -> bytes:
    """The lines that hold. Those who mend a log read it too, and are never refused."""
    place = placed(log.LOG, data)
    claimed, held = list(log.claims(place)), log.before_damage(place)
    lines = b"".join(line for _, line in held)
    assert data.startswith(lines)
    assert log_of(*(json.loads(line) for _, line in held)) == lines
    assert claimed[: len(held)] == [event for event, _ in held]
    assert log.events(place) == [event for event, _ in held]
    return lines


def log_of(*events: dict[str, Any]) -> bytes:
    lines, previous = b"", log.FIRST
    for event in events:
        text = json.dumps({**event, "previous": previous}, sort_keys=True, separators=(",", ":")) + "\n"
        lines, previous = lines + text.encode(), blake3(text.encode()).hexdigest()
    return lines


# The private key `x` of the tests under the passphrase `pw`; encrypted anew it would be other bytes each time.
ENCRYPTED = bytes.fromhex(
    "3081a3305f06092a864886f70d01050d3052303106092a864886f70d01050c30240410cf1d0c31622eaacffcb4c1ca1b7b39a202020800300c"
    "06082a864886f70d02090500301d060960864801650304012a0410568205d355a3e9d596747ca94374bfc70440e7329aad4fd2267952605e9c"
    "28d3ad9791674979e6a0f89499e146a8e9e8c301e1c223a245b72036a753525c8fd15790a2587a83141120bf957a26cbb36ca029"
)
PUBLIC, PRIVATE = key("x").public.pem(), key("x").pem(None)


def ssh_files(private: PrivateKey) -> tuple[bytes, bytes]:
    """The line of a public key and the content of a private one, as OpenSSH has them."""
    one = load_pem_private_key(private.pem(None), None)
    form = serialization.PrivateFormat.OpenSSH
    pem = one.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    public = one.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return public, der(pem)


def armoured(data: bytes, label: bytes) -> bytes:
    """DER as PEM, so that a changed bit is one of DER; PEM as it is."""
    whole = b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, base64.encodebytes(data), label)
    return data if data.startswith(b"-----") else whole


def der(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))


# A private key in the clear, as its encryption needs seconds.
SSH_PUBLIC, OPENSSH = ssh_files(key("x"))


def read_public(data: bytes) -> PublicKey:
    return PublicKey.of_pem(data if data.startswith(b"ssh-") else armoured(data, b"PUBLIC KEY"))


def read_private(data: bytes) -> PrivateKey:
    if data.startswith(ENCRYPTED[:3]) or b"ENCRYPTED" in data:
        return PrivateKey.of_pem(armoured(data, b"ENCRYPTED PRIVATE KEY"), b"pw")
    if data.startswith(OPENSSH[:14]) or b"OPENSSH" in data:
        return PrivateKey.of_pem(armoured(data, b"OPENSSH PRIVATE KEY"), None)
    return PrivateKey.of_pem(armoured(data, b"PRIVATE KEY"), None)


SIGNED = [key(name).public.raw + key(name).sign(text) + text for name, text in (("a", b""), ("b", b"a message"))]


# A key and an R of order 1: without the strict rules they "sign" every message.
NEUTRAL = b"".join(bytes([1]) + bytes(31) for _ in range(2)) + bytes(32)


def verify_signature(data: bytes) -> None:
    if ed25519.verify(data[:32], data[32:96], data[96:]):
        assert data in SIGNED, "a signature that nobody made"


NORTH = missions.flight()
ARTIFACT = NORTH.contents["engines/net/net.onnx"]
REF = f"{NORTH.manifest_id}\n".encode()
TABLES = [NORTH.table.render(), *vectors("table")]
PAYLOADS = [NORTH.manifest.render(), *vectors("payload")]
MANIFESTS = [
    NORTH.signed,
    sign_manifest(NORTH.manifest, by=("root-a",)),
    sign_manifest(NORTH.manifest, by=()),
    sign_manifest(NORTH.manifest, replace(ROOT, domain="other")),
]


def evidence(manifest: bytes = NORTH.signed) -> MemoryEvidence:
    """The mission, with another manifest where its ref leads to."""
    held = missions.evidence_of(NORTH)
    held.roots[2] = CHAIN[0]
    held.refs[NORTH.id] = f"{held.put(manifest)}\n".encode()
    return held


RECEIPT = Receipt(
    key("uav").public.raw,
    "uav-07",
    NORTH.manifest.mission.flight,
    missions.NOW,
    "known",
    Verified(NORTH.id, NORTH.manifest_id, 1, 2, 3, 4, 5, True, "cpu-x86_64", (bytes(32),)),
)
BUILT = Built(missions.build_key("one"), ((ObjectId.of(b"one"), 3), (ObjectId.of(b"two"), 3)), 2, missions.NOW)
RELEASE = Release.of("winter", "cpu-x86_64", NORTH.table.entries, issued_at=missions.NOW).render()
WITHDRAWALS = [missions.withdrawal().render(), Withdrawal("x", missions.NOW, release=bytes(32)).render()]
DRAFTS = [
    RootDraft.of(None, ROOT).render(),
    RootDraft.after(PINNED, now=missions.NOW).with_signature(key("root-a")).render(),
]
STATE = (
    AircraftState.initial("uav-07", "cpu-x86_64", PINNED)
    .accepting(NORTH.manifest, now=missions.NOW)
    .consuming(NORTH.manifest.mission.flight)
    .render()
)
SLOT = b"<the other slot>"
SLOT_A = (7).to_bytes(8, "big") + STATE
SLOTS_SEED = derive(STATE_CONTEXT, SLOT_A) + SLOT_A


def ledger_seed() -> bytes:
    path = Path(media().path) / "seed.ledger"
    with Ledger(path) as ledger:
        ledger.enter([(ObjectId(b"\7" * 32), FileStamp(1, 2, 3, 4))], [], 5)
    return path.read_bytes()


PROOF = Proof(NORTH.signed, (CHAIN[0],), NORTH.table.leaves[1], 1, merkle.inclusion_proof(NORTH.table.leaves, 1))


def proven_entry(data: bytes) -> tuple[Proof, Proven]:
    proof = Proof.parse(data)
    return proof, prove(proof, PINNED)


def proven_holds(found: tuple[Proof, Proven], data: bytes) -> bool:
    proof, proven = found
    return (
        renders(proof, data) and proven.manifest == NORTH.manifest and proven.entry == NORTH.table.entries[proof.index]
    )


def takeoff(right: bytes, with_other: Callable[[bytes], MemoryEvidence]) -> Callable[[bytes], None]:
    """The whole check where one thing is the input: GO exactly if it is what belongs there."""

    def run(data: bytes) -> None:
        verdict = verify_mission(with_other(data), NORTH.id, PINNED, missions.BINDING)
        assert verdict.go == (data == right) == (not verdict.findings), verdict.findings

    return run


def with_object(id_: ObjectId) -> Callable[[bytes], MemoryEvidence]:
    return lambda data: replace(evidence(), objects={**evidence().objects, id_: data})


def signed_manifest(data: bytes) -> None:
    """Whoever has a key may sign anything: the check still ends with a verdict."""
    signed = missions.sign_payload(data, manifests.CONTENT_TYPE, ROOT.aad(manifests.AAD_LABEL), ("pilot",))
    verdict = verify_mission(evidence(signed), NORTH.id, PINNED, missions.BINDING)
    assert verdict.mission is None or renders(verdict.mission.manifest, data)


def signed_table(data: bytes) -> None:
    """The same for a table, under a manifest that commits to as much of it as there is."""
    try:
        manifest = missions.manifest_of(EntryTable.parse(data))
    except Corrupt:
        manifest = replace(NORTH.manifest, table=ObjectId.of(data), table_size=max(1, len(data)))
    held = evidence(sign_manifest(manifest))
    held.put(data)
    verdict = verify_mission(held, NORTH.id, PINNED, missions.BINDING)
    assert verdict.mission is None or renders(verdict.mission.table, data)


STORE_TOML = b'format = 1\nid = "00112233445566778899aabbccddeeff"\ncreated = 2026-11-23T10:00:00Z\n'
ODD_TOML = b"format.a = [[1, 0x2, 1e9], {b = '''c'''}]\r\n[[id]]\nd = 07:32:00.5\n"
MOVED = {"at": 6, "event": "published", "mission": NORTH.id, "manifest": str(NORTH.manifest_id), "sequence": 7}
LOG = log_of({"at": 5, "event": "signed"}, MOVED, {"at": 7, "event": "rotated", "who": "é", "n": [1.5]})

SHARD = write_shard(np.arange(3, dtype=np.uint64), np.ones((3, 2), np.float16), {"a": "b"})
PROBE = Probe(
    RowRecipe("", bytes(32), "y", {}, 8, (1, 1), "float32", "none"),
    np.zeros((1, 2, 2, 3), np.uint8),
    np.arange(1, dtype=np.uint64),
    np.ones((1, 2), np.float32),
).render()

_ALL = [
    Target("cbor", vectors("cbor"), reading(lambda b: decode(b, limit=4096, what="it"), lambda v, b: encode(v) == b)),
    Target(
        "envelope",
        [*MANIFESTS, *vectors("manifest")],
        reading(lambda data: Envelope.parse(data, manifests.CONTENT_TYPE, manifests.PAYLOAD_LIMIT), renders),
    ),
    Target("signed-root", ROOT_FILES, reading(SignedRoot.parse, root_holds, (Corrupt, Untrusted))),
    Target("trust-root", sorted(signed_payloads()), reading(TrustRoot.parse, renders)),
    Target(
        "root-chain",
        [NEXT.join(CHAIN), *ROOT_FILES],
        reading(
            lambda data: advance(PINNED, data.split(NEXT)),
            lambda _, data: set(data.split(NEXT)) <= set(ROOT_FILES),
            (Corrupt, Untrusted),
        ),
    ),
    Target("manifest", PAYLOADS, reading(Manifest.parse, renders)),
    Target("table", TABLES, reading(EntryTable.parse, table_holds)),
    Target("shard", [SHARD], reading(read_shard, lambda shard, data: write_shard(*shard) == data), 6000),
    Target("probe", [PROBE], reading(Probe.parse, renders), 6000),
    Target("missing-tiles", vectors("missing"), reading(MissingList.parse, renders)),
    Target("release", [RELEASE], reading(Release.parse, renders)),
    Target("withdrawal", WITHDRAWALS, reading(Withdrawal.parse, renders)),
    Target("order", [orders.ORDER.render()], reading(Order.parse, renders)),
    Target("built", [BUILT.render()], reading(Built.parse, renders)),
    Target("result", [orders.result().render()], reading(Result.parse, renders)),
    Target("receipt", [RECEIPT.render()], reading(Receipt.parse, renders)),
    Target("root-draft", DRAFTS, reading(RootDraft.parse, renders, (Corrupt, Untrusted))),
    Target("aircraft-state", [STATE], reading(AircraftState.parse, renders, (Corrupt, Untrusted))),
    Target("entry-proof", [PROOF.render()], reading(proven_entry, proven_holds, (Corrupt, Untrusted))),
    Target("merkle-proof", PROOFS + vectors("proof"), reading(proven, proof_holds)),
    Target("ref", [REF], reading(ref_id, lambda id_, data: f"{id_}\n".encode() == data), 130),
    Target("bag", [bag_seed()], reading(read_bag, lambda rendered, data: rendered == data), 2**13),
    Target("log", [LOG, LOG[:-1]], reading(read_log, lambda lines, data: lines == data[: data.rfind(b"\n") + 1])),
    Target(
        "store-toml",
        [STORE_TOML, STORE_TOML.replace(b"1", b"2", 1), ODD_TOML],
        reading(lambda data: check_format(placed(TOML, data)), lambda *_: True, NoStore),
    ),
    Target(
        "public-key",
        [PUBLIC, der(PUBLIC), SSH_PUBLIC],
        reading(read_public, lambda found, _: PublicKey.of_pem(found.pem()) == found, Invalid),
    ),
    Target(
        "private-key",
        [
            *(PRIVATE, der(PRIVATE), ENCRYPTED, armoured(ENCRYPTED, b"ENCRYPTED PRIVATE KEY")),
            *(OPENSSH, armoured(OPENSSH, b"OPENSSH PRIVATE KEY")),
        ],
        reading(
            read_private, lambda found, _: PrivateKey.of_pem(found.pem(None), None).public == found.public, Invalid
        ),
    ),
    Target("ed25519", [*SIGNED, NEUTRAL], verify_signature, 256),
    Target("takeoff-ref", [REF], takeoff(REF, lambda data: replace(evidence(), refs={NORTH.id: data})), 130),
    Target(
        "takeoff-root",
        ROOT_FILES,
        takeoff(CHAIN[0], lambda data: replace(evidence(), roots={1: ROOT_FILES[0], 2: data})),
    ),
    Target("takeoff-manifest", MANIFESTS, takeoff(NORTH.signed, evidence)),
    Target("takeoff-table", TABLES, takeoff(TABLES[0], with_object(NORTH.manifest.table))),
    Target("takeoff-artifact", [*NORTH.contents.values()], takeoff(ARTIFACT, with_object(ObjectId.of(ARTIFACT)))),
    Target("takeoff-signed-manifest", PAYLOADS, signed_manifest),
    Target("takeoff-signed-table", TABLES, signed_table),
]
_ALL += [
    Target("state-slots", [SLOTS_SEED, SLOTS_SEED + SLOT], reading(read_slots, slots_hold, (Corrupt, NotFound))),
    Target("ledger", [ledger_seed()], reading(read_ledger, lambda *_: True, Unavailable), 2**14),
    Target(
        "lock-holder",
        [b'{"command": "flightbag sync", "host": "h", "pid": 1, "since": 1}'],
        reading(read_holder, lambda *_: False, Locked),
    ),
]
TARGETS = {target.name: target for target in _ALL}
