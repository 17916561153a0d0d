"""Proofs of one entry: laws and edges. What attackers do is in tests/conformance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt, FlightbagError, NotFound, Untrusted
from store.format import release
from store.format.cbor import decode, encode
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT
from store.takeoff.mission import Opened
from store.takeoff.proof import ENTRY_LIMIT, PROOF_LIMIT, Proof, prove
from store.takeoff.verify import ISSUED_TOO_EARLY, OLD_ROOT, WRONG_EPOCH
from store.trust.root import ROOT_FILE_LIMIT, TrustRoot
from tests.support.missions import ISSUE, NOW, ROOT, Flight, flight, next_root, pinned, sign_payload, sign_root
from tests.support.stores import CAMERA, ENGINE, NORTH


@given(count=st.integers(1, 70), index=st.integers(0, 69))
def test_every_entry_of_every_mission(count: int, index: int) -> None:
    one = flight({f"files/x/{number}": b"%d" % number for number in range(count)})
    opened = Opened(one.manifest, one.manifest_id, len(one.signed), one.table, ROOT)
    entry = one.table.entries[index % count]
    data = Proof.of(opened, one.signed, [], entry.name).render()
    assert len(data) < PROOF_LIMIT
    assert Proof.parse(data).render() == data
    shown = prove(Proof.parse(data), pinned())
    assert (shown.entry, shown.manifest) == (entry, one.manifest)


def test_no_such_entry() -> None:
    opened = Opened(NORTH.manifest, NORTH.manifest_id, len(NORTH.signed), NORTH.table, ROOT)
    with pytest.raises(NotFound):
        Proof.of(opened, NORTH.signed, [], "files/none")


def test_roots_before_the_pinned_one_are_passed_over() -> None:
    second = next_root(ROOT)
    third = next_root(second)
    opened = Opened(NORTH.manifest, NORTH.manifest_id, len(NORTH.signed), NORTH.table, ROOT)
    files = [sign_root(second, "root-a"), sign_root(third, "root-a")]
    proof = Proof.of(opened, NORTH.signed, files, ENGINE)
    for root, names in ((ROOT, ()), (second, ("root-a",)), (third, ("root-a",))):
        assert prove(proof, pinned(root, *names)).root.root == third


def proof_of(
    one: Flight = NORTH, name: str = ENGINE, roots: Sequence[bytes] = (), releases: Sequence[bytes] = ()
) -> Proof:
    opened = Opened(one.manifest, one.manifest_id, len(one.signed), one.table, ROOT)
    return Proof.of(opened, one.signed, roots, name, releases)


def test_the_fullest_proof_has_room_and_no_more() -> None:
    full = Proof(
        bytes(ENVELOPE_LIMIT),
        (bytes(ROOT_FILE_LIMIT),) * 32,
        bytes(4096),
        99_999,
        (bytes(32),) * 17,
        (bytes(ENVELOPE_LIMIT),) * 64,
    )
    assert Proof.parse(full.render()) == full
    assert Proof.parse(replace(full, roots=(), index=0, hashes=(), releases=()).render()).index == 0
    for more in (
        replace(full, manifest=full.manifest + b"x"),
        replace(full, roots=(*full.roots, b"")),
        replace(full, roots=(full.roots[0] + b"x",)),
        replace(full, entry=full.entry + b"x"),
        replace(full, index=100_000),
        replace(full, index=-1),
        replace(full, hashes=(*full.hashes, b"")),
        replace(full, hashes=(bytes(33),)),
        replace(full, releases=(*full.releases, b"")),
        replace(full, releases=(full.releases[0] + b"x",)),
    ):
        with pytest.raises(Corrupt):
            Proof.parse(more.render())


@pytest.mark.parametrize("fields", [{"format": 2}, {"format": 0}, {"roots": ["text"]}, {"hashes": [1]}, {"more": 1}])
def test_a_proof_that_breaks_a_rule_is_corrupt(fields: dict[str, object]) -> None:
    value = decode(proof_of().render(), limit=PROOF_LIMIT, what="the proof")
    with pytest.raises(Corrupt) as caught:
        Proof.parse(encode({**value, **fields}))
    assert caught.value.kind == "bad-field"


def test_another_entry_is_not_proven() -> None:
    proof = proof_of()
    other = proof_of(name=CAMERA)
    for changed in (
        replace(proof, entry=other.entry),
        replace(proof, index=other.index),
        replace(proof, hashes=other.hashes),
        replace(proof, manifest=flight({"files/a": b"a"}).signed),
    ):
        with pytest.raises(Corrupt) as caught:
            prove(changed, pinned())
        assert caught.value.kind == "bad-proof"


def test_an_entry_that_is_too_long_is_not_parsed() -> None:
    with pytest.raises(Corrupt):
        prove(replace(proof_of(), entry=bytes(ENTRY_LIMIT + 1)), pinned())


SECOND = next_root(ROOT)
NEW_EPOCH = next_root(ROOT, epoch=2)


@pytest.mark.parametrize(
    ("issue", "root", "kind", "message", "remedy"),
    [
        ({}, SECOND, "", "", ""),
        ({}, NEW_EPOCH, "wrong-epoch", WRONG_EPOCH, "publish the mission again"),
        ({"epoch": 2}, SECOND, "wrong-epoch", WRONG_EPOCH, "the newest trust root"),
        ({"min_root_version": 2}, SECOND, "", "", ""),
        ({"min_root_version": 3}, SECOND, "old-root", OLD_ROOT, "the newest trust root"),
        ({}, replace(SECOND, issued_after=ISSUE.issued_at), "", "", ""),
        (
            {},
            replace(SECOND, issued_after=ISSUE.issued_at + 1),
            "issued-too-early",
            ISSUED_TOO_EARLY,
            "publish the mission again",
        ),
    ],
)
def test_a_manifest_that_the_newest_root_does_not_accept(
    issue: dict[str, int], root: TrustRoot, kind: str, message: str, remedy: str
) -> None:
    one = flight(issue=replace(ISSUE, **issue))
    proof = proof_of(one, roots=[sign_root(root, "root-a")])
    if not kind:
        assert prove(proof, pinned()).root.root == root
        return
    with pytest.raises(Untrusted) as caught:
        prove(proof, pinned())
    assert (caught.value.kind, caught.value.message) == (kind, message)
    assert remedy in caught.value.remedy


class TestReleases:
    """A root that requires releases wants one that the manifest names, of the release role, for engines and indexes."""

    DEMANDS = next_root(ROOT, releases="required")

    def release(self, *names: str, contents: Flight = NORTH, by: str = "lab") -> bytes:
        entries = [entry for entry in contents.table.entries if entry.name in names]
        payload = release.Release.of("winter", "cpu-x86_64", entries, issued_at=NOW).render()
        return sign_payload(payload, release.CONTENT_TYPE, self.DEMANDS.aad(release.AAD_LABEL), [by])

    def prove(self, name: str, named: Sequence[bytes], shown: Sequence[bytes], root: TrustRoot) -> str:
        one = flight(releases=tuple(sorted(map(ObjectId.of, named))))
        try:
            prove(proof_of(one, name, [sign_root(root, "root-a")], shown), pinned())
        except Untrusted as error:
            return error.kind
        return ""

    def test_it_counts_only_where_one_is_required(self) -> None:
        approval = self.release(ENGINE)
        assert self.prove(ENGINE, [approval], [approval], self.DEMANDS) == ""
        assert self.prove(ENGINE, [approval], [], self.DEMANDS) == "unreleased"
        assert self.prove(ENGINE, [], [], self.DEMANDS) == "unreleased"
        assert self.prove(ENGINE, [], [], SECOND) == ""
        assert self.prove(CAMERA, [], [], self.DEMANDS) == ""

    def test_one_that_the_manifest_does_not_name_counts_for_nothing(self) -> None:
        assert self.prove(ENGINE, [], [self.release(ENGINE)], self.DEMANDS) == "unreleased"
        assert self.prove(ENGINE, [], [self.release(ENGINE, by="pilot")], self.DEMANDS) == "unreleased"

    def test_one_by_another_role_or_of_another_engine_approves_nothing(self) -> None:
        stranger = self.release(ENGINE, by="pilot")
        assert self.prove(ENGINE, [stranger], [stranger], self.DEMANDS) == "wrong-role"
        other = self.release(ENGINE, contents=flight({ENGINE: b"another engine"}))
        assert self.prove(ENGINE, [other], [other], self.DEMANDS) == "unreleased"
        both = [other, self.release(ENGINE)]
        assert self.prove(ENGINE, both, both, self.DEMANDS) == ""


@given(st.binary(max_size=300))
def test_arbitrary_bytes(data: bytes) -> None:
    with pytest.raises(FlightbagError):
        Proof.parse(data)
