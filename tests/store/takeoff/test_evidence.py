"""The contract of all evidence, over a store folder and in memory alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from store.disk.media import Media
from store.errors import Corrupt, NotFound, Unavailable
from store.format.ids import ObjectId
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Evidence
from store.trust.root import MAX_STEPS
from tests.support.memory import MemoryEvidence

Present = Callable[[MemoryEvidence], Evidence]


@pytest.fixture(params=["memory", "directory"])
def present(request: pytest.FixtureRequest, tmp_path: Path) -> Present:
    """How evidence is shown to the check: as it is, or as the files of a store."""

    def as_files(evidence: MemoryEvidence) -> Evidence:
        evidence.write_to(tmp_path / "store")
        return StoreEvidence(Media(tmp_path / "store"))

    return as_files if request.param == "directory" else lambda evidence: evidence


class TestEvidence:
    """What `store.takeoff.verify.Evidence` promises, over both implementations."""

    DATA = b"an object"
    ID = ObjectId.of(DATA)

    def evidence(self, present: Present, data: bytes = DATA) -> Evidence:
        return present(MemoryEvidence({self.ID: data}, {"m": b"r" * 65}, {1: b"one", 2: b"two", 3: b"three"}))

    def outcome(self, evidence: Evidence, id_: ObjectId, size: int) -> str:
        ((checked, outcome),) = evidence.check_objects([(id_, size)])
        assert checked == id_
        return "" if outcome is None else str(outcome.fields["kind"])

    def test_bytes(self, present: Present) -> None:
        evidence = self.evidence(present)
        assert evidence.object(self.ID, 9) == evidence.object(self.ID, 10) == self.DATA
        assert type(evidence.object(self.ID, 9)) is bytes
        assert evidence.bytes_of(self.ID, 9) == self.DATA
        assert self.outcome(evidence, self.ID, 9) == ""

    def test_the_bytes_handed_out_are_the_callers_own(self, present: Present) -> None:
        evidence = self.evidence(present)
        evidence.bytes_of(self.ID, 9)[0] ^= 1
        assert evidence.bytes_of(self.ID, 9) == self.DATA

    def test_an_empty_object(self, present: Present) -> None:
        empty = ObjectId.of(b"")
        evidence = present(MemoryEvidence({empty: b""}))
        assert evidence.object(empty, 0) == b""
        assert evidence.bytes_of(empty, 0) == b""
        assert self.outcome(evidence, empty, 0) == ""

    @pytest.mark.parametrize(
        ("data", "size", "kind"),
        [
            (b"an object", 10, "truncated"),
            (b"", 9, "truncated"),
            (b"an object", 8, "oversized"),
            (b"an object and more", 9, "oversized"),
            (b"An object", 9, "bit-flip"),
        ],
    )
    def test_other_bytes(self, present: Present, data: bytes, size: int, kind: str) -> None:
        evidence = self.evidence(present, data)
        assert self.outcome(evidence, self.ID, size) == kind
        with pytest.raises(Corrupt) as caught:
            evidence.bytes_of(self.ID, size)
        assert caught.value.fields["kind"] == kind
        assert caught.value.fields["object"] == self.ID

    def test_more_than_the_limit(self, present: Present) -> None:
        with pytest.raises(Corrupt) as caught:
            self.evidence(present).object(self.ID, 8)
        assert caught.value.fields["kind"] == "oversized"

    def test_bytes_that_are_not_those_of_the_id(self, present: Present) -> None:
        with pytest.raises(Corrupt) as caught:
            self.evidence(present, b"An object").object(self.ID, 100)
        assert caught.value.fields["kind"] == "bit-flip"

    def test_nothing_there(self, present: Present) -> None:
        evidence, other = self.evidence(present), ObjectId(bytes(32))
        assert self.outcome(evidence, other, 0) == "missing"
        for look in (lambda: evidence.object(other, 9), lambda: evidence.bytes_of(other, 9)):
            with pytest.raises(NotFound) as caught:
                look()
            assert caught.value.fields["object"] == other

    def test_every_object_asked_for_gets_an_outcome(self, present: Present) -> None:
        objects = {ObjectId.of(bytes([i])): bytes([i]) for i in range(200)}
        bad = list(objects)[7]
        evidence = present(MemoryEvidence({**objects, bad: b"\xff"}))
        outcomes = dict(evidence.check_objects((id_, 1) for id_ in objects))
        assert set(outcomes) == set(objects)
        assert [id_ for id_, outcome in outcomes.items() if outcome is not None] == [bad]

    def test_refs(self, present: Present) -> None:
        evidence = self.evidence(present)
        assert evidence.ref("m") == b"r" * 65
        with pytest.raises(NotFound):
            evidence.ref("n")

    def test_a_ref_that_is_too_long(self, present: Present) -> None:
        with pytest.raises(Corrupt):
            present(MemoryEvidence(refs={"m": b"r" * 66})).ref("m")

    def test_chains(self, present: Present) -> None:
        evidence = self.evidence(present)
        assert [list(evidence.chain(n)) for n in range(5)] == [
            [b"one", b"two", b"three"], [b"two", b"three"], [b"three"], [], []
        ]  # fmt: skip

    @pytest.mark.parametrize("versions", [(3,), (1, 3), (2, 4), tuple(range(2, MAX_STEPS + 3))])
    def test_chains_with_a_gap_or_too_long(self, present: Present, versions: tuple[int, ...]) -> None:
        evidence = present(MemoryEvidence(roots=dict.fromkeys(versions, b"x")))
        with pytest.raises(Corrupt) as caught:
            evidence.chain(1)
        assert caught.value.fields["kind"] == "bad-trust-chain"

    def test_the_longest_chain(self, present: Present) -> None:
        evidence = present(MemoryEvidence(roots=dict.fromkeys(range(2, MAX_STEPS + 2), b"x")))
        assert len(evidence.chain(1)) == MAX_STEPS

    def test_what_cannot_be_read_is_unavailable(self) -> None:
        evidence = MemoryEvidence({self.ID: self.DATA}, {"m": b""}, {1: b""}, {self.ID, "ref/m", "root/1"})
        assert self.outcome(evidence, self.ID, 9) == "unreadable"
        looks: list[Callable[[], object]] = [
            lambda: evidence.object(self.ID, 9), lambda: evidence.bytes_of(self.ID, 9),
            lambda: evidence.ref("m"), lambda: evidence.chain(0),
        ]  # fmt: skip
        for look in looks:
            with pytest.raises(Unavailable):
                look()


def test_the_most_missions_are_listed_and_one_more_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "missions"
    folder.mkdir()
    for number in range(10_000):
        (folder / f"m{number}").touch()
    with Media(tmp_path) as medium:
        assert len(StoreEvidence(medium).missions()) == 10_000
        (folder / "one-more").touch()
        with pytest.raises(Unavailable):
            StoreEvidence(medium).missions()
