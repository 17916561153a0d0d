"""The golden vectors: made again they are the same bytes, and each is accepted or refused as the index says."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from store.errors import Corrupt, FlightbagError
from store.format import merkle
from store.format.cbor import decode
from store.format.entries import EntryTable
from store.format.ids import ObjectId
from store.format.manifest import Manifest
from store.format.missing import MissingList
from store.takeoff.aircraft import SLOTS, read_state
from store.takeoff.mission import Opened
from store.takeoff.proof import Proof, prove
from store.takeoff.verify import open_manifest, parse_release
from store.takeoff.withdrawn import check_withdrawal, parsed
from store.trust.draft import RootDraft
from store.trust.root import SignedRoot, advance
from tests.conformance.make_vectors import CONTENTS, FOLDER, files
from tests.support.memory import MemoryEvidence
from tests.support.missions import table_of

INDEX: dict[str, dict[str, str]] = json.loads((FOLDER / "index.json").read_text())


def read(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def test_the_vectors_are_those_that_the_script_makes() -> None:
    stored = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}
    assert stored == files()


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 120_000


def first_root() -> SignedRoot:
    return SignedRoot.parse(read("valid/root-1.cbor"))


def check_manifest(data: bytes) -> None:
    evidence = MemoryEvidence()
    evidence.put(table_of(CONTENTS).render())
    opened = open_manifest(evidence, evidence.put(data), first_root())
    if not isinstance(opened, Opened):
        (finding,) = opened
        raise Corrupt(finding.message, kind=finding.kind, step=finding.step)


def check_proof(data: bytes) -> None:
    leaf, index, size, proof, root = decode(data, limit=2**16, what="the proof")
    if merkle.root_from_inclusion(merkle.leaf_hash(leaf), index, size, proof) != root:
        raise Corrupt("the proof leads to another root", kind="bad-proof")


def renders(read: Callable[[bytes], Manifest | EntryTable | MissingList]) -> Callable[[bytes], object]:
    def check(data: bytes) -> None:
        assert read(data).render() == data

    return check


def check_withdrawn(data: bytes) -> None:
    check_withdrawal(*parsed(data, "north-ridge.mission"), first_root().root)


def check_slot(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in SLOTS:
            (Path(folder) / name).write_bytes(data)
        read_state(folder)


READERS: dict[str, Callable[[bytes], object]] = {
    "cbor": lambda data: decode(data, limit=2**16, what="the vector"),
    "table": renders(EntryTable.parse),
    "payload": renders(Manifest.parse),
    "root": SignedRoot.parse,
    "step": lambda data: advance(first_root(), [data]),
    "manifest": check_manifest,
    "proof": check_proof,
    "missing": renders(MissingList.parse),
    "release": lambda data: parse_release(data, first_root().root),
    "withdrawal": check_withdrawn,
    "draft": RootDraft.parse,
    "slot": check_slot,
    "entry-proof": lambda data: prove(Proof.parse(data), first_root()),
}


@pytest.mark.parametrize("name", [name for name in INDEX if name.startswith("valid/")])
def test_accepted(name: str) -> None:
    assert "kind" not in INDEX[name]
    READERS[INDEX[name]["reader"]](read(name))


@pytest.mark.parametrize("name", [name for name in INDEX if name.startswith("invalid/")])
def test_refused(name: str) -> None:
    with pytest.raises(FlightbagError) as caught:
        READERS[INDEX[name]["reader"]](read(name))
    assert caught.value.fields["kind"] == INDEX[name]["kind"]
    assert caught.value.fields.get("step", "") == INDEX[name].get("refused_by", "")


def test_every_reader_has_both() -> None:
    assert {(name.split("/")[0], said["reader"]) for name, said in INDEX.items()} == {
        (folder, reader) for folder in ("valid", "invalid") for reader in READERS
    }


def test_the_root_of_the_table_is_fixed() -> None:
    """A change of the hash, the leaf or the tree's shape shows here, whatever the other vectors do."""
    table = EntryTable.parse(read("valid/table.cbor"))
    assert ObjectId(table.merkle_root) == ObjectId.parse(
        "cca3a4212f150ae57f704efe63cbfaaeaa56fcb5ee9303212a92a62e030c86a7"
    )
