"""Loading: only from a verified mission, only as what it is, only the bytes that were hashed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from store.disk.media import Media, object_path
from store.errors import Corrupt, Invalid, NotFound, Unavailable
from store.format.entries import KINDS
from store.format.ids import ObjectId
from store.takeoff.evidence import StoreEvidence
from store.takeoff.loading import load
from store.takeoff.mission import Evidence, Outcome, VerifiedMission
from store.takeoff.verify import verify_mission
from tests.support.memory import MemoryEvidence
from tests.support.missions import BINDING, CONTENTS, evidence_of, flight, pinned

ENGINE, SHARD = "engines/net/net.onnx", "descriptors/net/16/12-1150-1410.safetensors"
GOOD = flight()


def verified(evidence: Evidence) -> VerifiedMission:
    mission = verify_mission(evidence, GOOD.id, pinned(), BINDING).mission
    assert mission is not None
    return mission


@pytest.mark.parametrize("name", CONTENTS)
def test_the_bytes_of_an_entry(name: str) -> None:
    data = load(verified(evidence_of(GOOD)), name, kind=GOOD.entry(name).kind)
    assert data == CONTENTS[name]
    assert data.readonly


def test_the_bytes_of_a_store(tmp_path: Path) -> None:
    evidence_of(GOOD).write_to(tmp_path / "store")
    mission = verified(StoreEvidence(Media(tmp_path / "store")))
    assert load(mission, ENGINE, kind="engine") == CONTENTS[ENGINE]
    path = tmp_path / "store" / object_path(GOOD.entry(ENGINE).id)
    path.write_bytes(b"the engine of foe" * 5)
    with pytest.raises(Corrupt) as caught:
        load(mission, ENGINE, kind="engine")
    assert caught.value.fields["kind"] == "bit-flip"


def test_no_such_entry() -> None:
    mission = verified(evidence_of(GOOD))
    for name in ("engines/net/other.onnx", "", "engines/net", "../net", "engines/net/NET.onnx"):
        with pytest.raises(NotFound):
            load(mission, name, kind="engine")


@pytest.mark.parametrize("name", CONTENTS)
def test_nothing_is_loaded_as_what_it_is_not(name: str) -> None:
    mission = verified(evidence_of(GOOD))
    for kind in (*KINDS, "", "engines", "model"):
        if kind != GOOD.entry(name).kind:
            with pytest.raises(Invalid) as caught:
                load(mission, name, kind=kind)
            assert caught.value.fields["entry"] == name


def test_bytes_swapped_after_the_check_are_never_handed_out() -> None:
    evidence = evidence_of(GOOD)
    mission = verified(evidence)
    id_ = GOOD.entry(ENGINE).id
    for swapped, kind in (
        (b"f" * 85, "bit-flip"),
        (b"f" * 84, "truncated"),
        (b"", "truncated"),
        (b"f" * 86, "oversized"),
    ):
        evidence.objects[id_] = swapped
        with pytest.raises(Corrupt) as caught:
            load(mission, ENGINE, kind="engine")
        assert caught.value.fields["kind"] == kind
    del evidence.objects[id_]
    with pytest.raises(NotFound):
        load(mission, ENGINE, kind="engine")
    evidence.unreadable.add(id_)
    with pytest.raises(Unavailable):
        load(mission, ENGINE, kind="engine")


class OneRead(MemoryEvidence):
    """A medium that gives the right bytes once, and others each time after that."""

    def check_objects(self, objects: Iterable[tuple[ObjectId, int]]) -> Iterator[tuple[ObjectId, Outcome]]:
        for id_, _ in objects:
            yield id_, None

    def bytes_of(self, id_: ObjectId, size: int) -> bytearray:
        data = super().bytes_of(id_, size)
        self.objects[id_] = bytes(len(data))
        return data


def test_the_bytes_used_are_those_that_were_hashed() -> None:
    one = OneRead(**vars(evidence_of(GOOD)))
    mission = verified(one)
    data = load(mission, SHARD, kind="descriptors")
    assert one.objects[GOOD.entry(SHARD).id] == bytes(len(data))
    assert data == CONTENTS[SHARD]
    with pytest.raises(Corrupt):
        load(mission, SHARD, kind="descriptors")


def test_what_one_caller_has_no_other_can_change() -> None:
    mission = verified(evidence_of(GOOD))
    with pytest.raises(TypeError):
        load(mission, ENGINE, kind="engine")[0] = 0
    first, second = load(mission, ENGINE, kind="engine"), load(mission, ENGINE, kind="engine")
    assert first.obj is not second.obj
