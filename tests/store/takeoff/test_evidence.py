"""The contract of all evidence, over a store folder and in memory alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store.disk.media import CHUNK, Media
from store.errors import Corrupt, NotFound, Unavailable
from store.format.ids import ObjectId
from store.takeoff import evidence as evidence_module
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Evidence
from store.trust.root import MAX_STEPS
from tests.support.memory import MemoryEvidence
from tests.support.missions import ROOT, next_root, pinned, sign_root
from tests.support.stores import file_of, overwrite

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
        unreadable = {self.ID, "ref/m", "root/1"}
        evidence = MemoryEvidence({self.ID: self.DATA}, {"m": b""}, {1: b""}, unreadable=unreadable)
        assert self.outcome(evidence, self.ID, 9) == "unreadable"
        looks: list[Callable[[], object]] = [
            lambda: evidence.object(self.ID, 9), lambda: evidence.bytes_of(self.ID, 9),
            lambda: evidence.ref("m"), lambda: evidence.chain(0),
        ]  # fmt: skip
        for look in looks:
            with pytest.raises(Unavailable):
                look()


def stored(path: Path, **parts: Any) -> StoreEvidence:
    MemoryEvidence(**parts).write_to(path)
    return StoreEvidence(Media(path))


class TestMissions:
    def evidence(self, tmp_path: Path, *missions: str) -> StoreEvidence:
        return stored(tmp_path / "store", refs=dict.fromkeys(missions, b"r" * 65))

    def remedy(self, evidence: StoreEvidence, mission: str) -> str:
        with pytest.raises(NotFound) as caught:
            evidence.ref(mission)
        assert caught.value.kind == "missing"
        return caught.value.remedy

    def test_other_names_are_passed_over(self, tmp_path: Path) -> None:
        evidence = self.evidence(tmp_path, "b", "a")
        (tmp_path / "store/missions/.partial").touch()
        (tmp_path / "store/drafts").mkdir()
        (tmp_path / "store/drafts/c").touch()
        (tmp_path / "store/drafts/C~").touch()
        assert (evidence.missions(), evidence.drafts()) == (["a", "b"], ["c"])

    def test_a_store_without_the_folder_has_none(self, tmp_path: Path) -> None:
        evidence = StoreEvidence(Media(tmp_path))
        assert (evidence.missions(), evidence.drafts()) == ([], [])
        assert self.remedy(evidence, "a").startswith("check that this is the right store, which has no mission")

    def test_a_file_in_place_of_the_folder_is_corrupt(self, tmp_path: Path) -> None:
        (tmp_path / "missions").touch()
        with pytest.raises(Corrupt):
            StoreEvidence(Media(tmp_path)).missions()

    def test_the_remedy_names_those_whose_ids_are_like_it_or_the_first_three(self, tmp_path: Path) -> None:
        evidence = self.evidence(tmp_path, "north-ridge", "south", "west", "x")
        assert self.remedy(evidence, "NORTH-RIDGE") == "give north-ridge"
        assert self.remedy(evidence, "north-bridge") == "give north-ridge, or sync north-bridge to this store"
        more = "give north-ridge, south, west or one of 1 more"
        assert self.remedy(evidence, "../../flight") == more
        assert self.remedy(evidence, "q") == f"{more}, or sync q to this store"
        three = self.evidence(tmp_path / "other", "a", "b", "c")
        assert self.remedy(three, "QQQQQ") == "give a, b or c"


class TestRoots:
    def test_they_are_asked_for_by_name_up_to_a_hole(self, tmp_path: Path) -> None:
        evidence = stored(tmp_path / "store", roots=dict.fromkeys(range(1, 71), b"x"))
        assert evidence.root_versions() == list(range(1, 71))
        for version in (34, *range(35, 68)):
            (tmp_path / f"store/trust/{version}.root.cbor").unlink()
        assert evidence.root_versions() == list(range(1, 34))
        with pytest.raises(NotFound):
            evidence.root_file(34)
        assert (evidence.root_file(33), evidence.first_root()) == (b"x", b"x")

    def test_more_than_a_store_may_have(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        evidence = stored(tmp_path / "store", roots=dict.fromkeys(range(1, 41), b"x"))
        monkeypatch.setattr(evidence_module, "MAX_ROOTS", 40)
        assert len(evidence.root_versions()) == 40
        monkeypatch.setattr(evidence_module, "MAX_ROOTS", 39)
        with pytest.raises(Corrupt) as caught:
            evidence.root_versions()
        assert caught.value.kind == "bad-trust-chain"

    @pytest.mark.parametrize("count", [1, 2, MAX_STEPS + 1, MAX_STEPS + 2, 2 * MAX_STEPS + 2])
    def test_the_newest_of_a_chain_of_any_length(self, tmp_path: Path, count: int) -> None:
        root, files = ROOT, {1: sign_root(ROOT, "root-a")}
        for version in range(2, count + 1):
            root = next_root(root)
            files[version] = sign_root(root, "root-a")
        evidence = stored(tmp_path / "store", roots=files)
        assert evidence.newest(pinned()).root == root
        assert evidence.newest(pinned(root)).root == root


class TestReading:
    SMALL, LARGE = b"small", bytes(CHUNK) + b"x"

    def evidence(self, path: Path, *data: bytes) -> tuple[StoreEvidence, list[int], list[ObjectId]]:
        """Evidence that keeps how many bytes it hashed, and what it found whole."""
        MemoryEvidence({ObjectId.of(one): one for one in data}).write_to(path)
        hashed: list[int] = []
        whole: list[ObjectId] = []
        return (
            StoreEvidence(Media(path), lambda count, _: hashed.append(count), lambda id_, _: whole.append(id_)),
            hashed,
            whole,
        )

    def test_what_was_read_once_is_not_read_again(self, tmp_path: Path) -> None:
        evidence, hashed, whole = self.evidence(tmp_path / "store", self.SMALL, self.LARGE)
        objects = [(ObjectId.of(data), len(data)) for data in (self.SMALL, self.LARGE)]
        for _ in range(2):
            assert dict(evidence.check_objects(objects)) == dict.fromkeys([id_ for id_, _ in objects])
            assert sum(hashed) == len(self.SMALL) + len(self.LARGE)
            assert sorted(whole) == sorted(id_ for id_, _ in objects)

    def test_progress_says_how_much_is_asked_for_in_all(self, tmp_path: Path) -> None:
        """Before the first byte of a mission, and with `expect` before that: else a bar would begin again and again."""
        small, large = ((ObjectId.of(data), len(data)) for data in (self.SMALL, self.LARGE))
        self.evidence(tmp_path / "store", self.SMALL, self.LARGE)
        told: list[tuple[int, int]] = []
        evidence = StoreEvidence(Media(tmp_path / "store"), lambda count, total: told.append((count, total)))
        evidence.bytes_of(*small)
        evidence.expect(small[1] + large[1])
        list(evidence.check_objects([small]))
        list(evidence.check_objects([small, large]))
        first, *rest = [total for _, total in told]
        assert (first, {*rest}) == (small[1], {2 * small[1] + large[1]})
        assert sum(count for count, _ in told) == rest[-1]
        evidence.bytes_of(*small)
        assert told[-1] == (small[1], 3 * small[1] + large[1]), "what nobody expected counts as well"

    @pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
    def test_what_is_wrong_is_not_read_again_and_not_whole(self, tmp_path: Path, data: bytes) -> None:
        evidence, hashed, whole = self.evidence(tmp_path / "store", data)
        id_ = ObjectId.of(data)
        overwrite(file_of(tmp_path / "store", id_), lambda bytes_: b"X" + bytes_[1:])
        for _ in range(2):
            ((checked, outcome),) = evidence.check_objects([(id_, len(data))])
            assert (checked, outcome is not None and outcome.kind) == (id_, "bit-flip")
            assert (sum(hashed), whole) == (len(data), [])

    def test_another_size_is_another_question(self, tmp_path: Path) -> None:
        evidence, _, _ = self.evidence(tmp_path / "store", self.SMALL)
        id_, size = ObjectId.of(self.SMALL), len(self.SMALL)
        for asked in (size, size + 1, size, size - 1, size):
            ((_, outcome),) = evidence.check_objects([(id_, asked)])
            assert (outcome is None) is (asked == size)

    def test_the_memory_of_what_was_read_is_bounded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = [bytes([number]) for number in range(4)]
        objects = [(ObjectId.of(one), 1) for one in data]
        evidence, hashed, _ = self.evidence(tmp_path / "store", *data)
        monkeypatch.setattr(evidence_module, "_REMEMBERED", 3)
        for asked, read in ((objects[:3], 3), (objects[:3], 3), (objects, 4), (objects[3:], 4), (objects[2:], 5)):
            assert set(dict(evidence.check_objects(asked)).values()) == {None}
            assert len(hashed) == read

    def test_an_object_of_exactly_the_limit(self, tmp_path: Path) -> None:
        evidence, _, _ = self.evidence(tmp_path / "store", self.LARGE)
        id_, size = ObjectId.of(self.LARGE), len(self.LARGE)
        assert evidence.object(id_, size) == bytes(evidence.bytes_of(id_, size)) == self.LARGE
        with pytest.raises(Corrupt, match=f"has {size} bytes") as caught:
            evidence.object(id_, size - 1)
        fields = caught.value.fields
        assert (fields["object"], fields["expected"], fields["actual"]) == (id_, size - 1, size)

    def test_a_missing_object_is_named(self, tmp_path: Path) -> None:
        evidence, _, _ = self.evidence(tmp_path / "store")
        with pytest.raises(NotFound, match=f"object {ObjectId(bytes(32))} is missing"):
            evidence.bytes_of(ObjectId(bytes(32)), 1)


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
