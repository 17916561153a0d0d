"""The verifier that was written from FORMAT.md alone: it stands alone, and agrees with the vectors and the attacks."""

from __future__ import annotations

import ast
import hashlib
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from store.errors import FlightbagError
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Binding, Verdict
from store.trust import ed25519
from store.trust.root import SignedRoot
from tests.conformance import attacks, independent
from tests.conformance.attacks import Attack, Raided
from tests.conformance.independent import Ask, Fault
from tests.conformance.make_vectors import FOLDER
from tests.conformance.side_by_side import Answer, agree, encode, shown, twist
from tests.support.missions import key, plus_order_2

INDEX: dict[str, dict[str, str]] = json.loads((FOLDER / "index.json").read_text())


def test_it_imports_nothing_of_flightbag() -> None:
    source = Path(independent.__file__).read_text()
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." * node.level for node in imports if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) == {"blake3"}
    assert "__import__" not in source
    assert "importlib" not in source


# the vectors


def read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def first_root() -> independent.Root:
    return independent.root(read("valid/root-1.cbor"))


def check_manifest(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        table = read("valid/table.cbor")
        for name, file in (("trust/1.root.cbor", read("valid/root-1.cbor")), *map(object_of, (data, table))):
            (store / name).parent.mkdir(parents=True, exist_ok=True)
            (store / name).write_bytes(file)
        (store / "missions").mkdir()
        (store / "missions/north-ridge").write_text(blake3(data).hexdigest() + "\n")
        _, findings = independent.judge(store, "north-ridge", read("valid/root-1.cbor"), Ask())
    for _, kind in [one for one in sorted(findings) if one[0] < "E"]:
        raise Fault(kind)


def object_of(data: bytes) -> tuple[str, bytes]:
    id_ = blake3(data).hexdigest()
    return f"objects/{id_[:2]}/{id_[2:]}", data


def check_proof(data: bytes) -> None:
    leaf, index, size, path, merkle_root = independent.decode(data)
    independent.want(independent.included(independent.leaf_hash(leaf), index, size, path, merkle_root), "bad-proof")


def check_slot(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a", "b"):
            (Path(folder) / name).write_bytes(data)
        independent.state(Path(folder))


# The list of missing tiles and the draft of a root are no part of the takeoff check.
READERS: dict[str, Callable[[bytes], object]] = {
    "cbor": independent.decode,
    "table": independent.table,
    "payload": independent.payload,
    "root": independent.root,
    "step": lambda data: independent.step(first_root(), data),
    "manifest": check_manifest,
    "proof": check_proof,
    "release": lambda data: independent.release(data, first_root()),
    "withdrawal": lambda data: independent.withdrawal(data, "north-ridge.mission", first_root(), [1, 1]),
    "slot": check_slot,
    "entry-proof": lambda data: independent.prove(data, read("valid/root-1.cbor")),
}


@pytest.mark.parametrize("name", [name for name in INDEX if INDEX[name]["reader"] in READERS])
def test_vector(name: str) -> None:
    kind = None
    try:
        READERS[INDEX[name]["reader"]](read(name))
    except Fault as fault:
        kind = fault.kind
    assert kind == INDEX[name].get("kind")


def test_the_vectors_that_are_not_read_are_few() -> None:
    assert {said["reader"] for said in INDEX.values()} - set(READERS) == {"missing", "draft"}


# Ed25519


def alike(public: bytes, signature: bytes, message: bytes) -> bool:
    """What both say of a signature."""
    one = ed25519.verify(public, signature, message)
    assert independent.signed(public, message, signature) is one
    return one


def test_wycheproof(shared: Path) -> None:
    suite: dict[str, Any] = json.loads((shared / "vectors" / "wycheproof-ed25519.json").read_text())
    for group in suite["testGroups"]:
        public = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            signature = bytes.fromhex(case["sig"])
            if len(signature) == 64:  # an envelope has no other
                assert alike(public, signature, bytes.fromhex(case["msg"])) is (case["result"] == "valid"), case["tcId"]


def test_speccheck(shared: Path) -> None:
    for case in json.loads((shared / "vectors" / "ed25519-speccheck.json").read_text()):
        public, signature, message = (bytes.fromhex(case[name]) for name in ("pub_key", "signature", "message"))
        assert not alike(public, signature, message)


def test_signatures_that_are_malleable_or_not_in_the_subgroup() -> None:
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"pilot").digest())
    public = private.public_key().public_bytes_raw()
    for number in range(8):
        message = b"message %d" % number
        good = private.sign(message)
        r, s = good[:32], int.from_bytes(good[32:], "little")
        assert alike(public, good, message)
        assert not alike(public, r + (s + independent.L).to_bytes(32, "little"), message)
        assert not alike(public, plus_order_2(r) + good[32:], message), "it would hold times 8"
        assert not alike(plus_order_2(public), good, message)
        assert not alike(public, good, message + b"x")
        assert not alike(public, bytes(32) + good[32:], message)


@pytest.mark.parametrize("number", range(24))
def test_keys_near_every_edge(number: int) -> None:
    edges = [0, 1, 2, 3, independent.Q - 2, independent.Q - 1, independent.Q, independent.Q + 1, 2**255 - 1, 4, 5, 6]
    raw = (edges[number // 2] | (number % 2) << 255).to_bytes(32, "little")
    assert (independent.public(raw) is not None) is ed25519.is_enrollable(raw)


def test_keys_that_are_enrolled() -> None:
    for name in ("pilot", "root-a", "lab"):
        raw = key(name).public.raw
        assert independent.public(raw) is not None
        assert independent.public(plus_order_2(raw)) is None


# the attacks


class Watched:
    """Asks `independent` whatever the judge of an attack asks the reader, before it does, and notes both answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[tuple[Answer, Answer]] = []
        self._verify, self._check = attacks.verify_mission, attacks.check
        monkeypatch.setattr(attacks, "verify_mission", self.verify)
        monkeypatch.setattr(attacks, "check", self.check)

    def verify(self, evidence: Any, mission: str, pinned: SignedRoot, binding: Binding) -> Verdict:
        other = None
        # Memory has no files, and nobody changes a store under this verifier at the same moment.
        if isinstance(evidence, StoreEvidence) and not (isinstance(evidence, Raided) and evidence._hooks):
            ask = Ask(binding.aircraft, binding.host, binding.flight, binding.now)
            root = pinned.envelope.render()
            other = independent.judge(Path(evidence.media.path), mission, root, ask)
        verdict = self._verify(evidence, mission, pinned, binding)
        self._note(verdict, other)
        return verdict

    def check(self, state: Path, evidence: StoreEvidence, mission: str, **asked: Any) -> Verdict:
        ask = Ask(flight=asked["flight"], clock=asked["now"], state=state)
        other = independent.judge(Path(evidence.media.path), mission, b"", ask)
        verdict = self._check(state, evidence, mission, **asked)
        self._note(verdict, other)
        return verdict

    def _note(self, verdict: Verdict, other: Answer | None) -> None:
        if other is not None:
            findings = frozenset((finding.step, finding.kind) for finding in verdict.findings)
            self.answers.append(((verdict.go, findings), other))


ROWS = attacks.every()
JUDGED = [row for row in ROWS if attacks.groups()[row.group][0] in (attacks.takeoff, attacks.flying)]


@pytest.mark.parametrize("row", JUDGED, ids=str)
def test_attack(row: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    row.run(tmp_path)
    for reader, other in watched.answers:
        assert agree(reader, other) != "no", f"reader {shown(reader)} | independent {shown(other)}"


@pytest.mark.parametrize("row", [row for row in ROWS if row.group == "proof-files"], ids=str)
def test_proof(row: Attack) -> None:
    said = "GO"
    try:
        independent.prove(row.shown, attacks.pinned().envelope.render())
    except Fault as fault:
        said = f"proof {fault.kind}"
    assert (said == "GO") is (row.refusal == "GO"), said


def test_changed_proofs() -> None:
    rng = random.Random(7)
    data = next(row.shown for row in ROWS if str(row) == "proof-files/through-a-newer-root")
    pinned = attacks.pinned()
    seen = set()
    for _ in range(300):
        value = independent.decode(data)
        twist(rng, value)
        changed = encode(value)
        said = []
        for prove in (
            lambda: independent.prove(changed, pinned.envelope.render()),  # noqa: B023
            lambda: attacks.proofs_.prove(attacks.proofs_.Proof.parse(changed), pinned),  # noqa: B023
        ):
            try:
                prove()
                said.append("GO")
            except (Fault, FlightbagError) as refusal:
                said.append(refusal.kind)
        assert (said[0] == "GO") is (said[1] == "GO"), (said, value)
        seen |= set(said)
    assert {"GO", "bad-proof", "bad-field", "not-canonical"} <= seen
