"""The fold over the events of a log: what each kind of line adds, and what malformed facts do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from store.disk import log
from store.disk.log import MOVES, Event
from store.disk.media import Media
from store.format.ids import ObjectId
from store.ground.log_history import LogHistory, RefMove, Rotation
from store.ground.repository import Repository
from store.ground.writer import writing
from tests.support.missions import ROOT
from tests.support.stores import NORTH, SOUTH, later, make_store, publish

A, B, C = (ObjectId.of(data) for data in (b"a", b"b", b"c"))


def move(at: int, mission: str, manifest: ObjectId, event: str = "published", sequence: int = 1) -> Event:
    return Event(at, event, {"mission": mission, "manifest": str(manifest), "sequence": sequence})


def of(*events: Event) -> LogHistory:
    return LogHistory.of(events)


def test_an_empty_log() -> None:
    assert of() == LogHistory({}, {}, {}, 0, {}, {}, {})
    assert of().published("north") == ()
    assert of().missions() == []


def test_moves_are_kept_in_order_and_manifests_once_the_newest_first() -> None:
    history = of(
        move(1, "north", A), move(2, "north", B, "received"), move(3, "south", C), move(4, "north", A, "rolled-back")
    )
    assert history.moves["north"] == (
        RefMove(1, "published", A),
        RefMove(2, "received", B),
        RefMove(4, "rolled-back", A),
    )
    assert history.retained == {"north": (A, B), "south": (C,)}
    assert history.missions() == ["north", "south"]


def test_a_repair_moves_refs_and_publishes_nothing() -> None:
    repaired = Event(5, "repaired", {"refs": {"north": str(B), "south": str(C)}, "stage": "begun"})
    history = of(move(1, "north", A), repaired)
    assert history.retained == {"north": (B, A), "south": (C,)}
    assert [one.manifest for one in history.published("north")] == [A]
    assert history.missions() == ["north"]
    assert len(history.moves["south"]) == 1


def test_a_collection_gives_manifests_up_until_they_are_current_again() -> None:
    collected = Event(3, "collected", {"manifests": [str(A), "no id", 5]})
    assert of(move(1, "north", A), move(2, "north", B), collected).retained == {"north": (B,)}
    assert of(move(1, "north", A), collected, move(4, "north", A)).retained == {"north": (A,)}
    assert len(of(move(1, "north", A), collected).moves["north"]) == 1


def removed(at: int, mission: str, manifest: ObjectId) -> Event:
    return Event(at, "removed", {"mission": mission, "manifest": str(manifest)})


def test_a_removal_ends_what_is_kept_of_a_mission_but_its_last_manifest() -> None:
    history = of(move(1, "north", A), move(2, "north", B), move(3, "south", C), removed(4, "north", B))
    assert history.retained == {"south": (C,)}
    assert (history.removed, history.lines) == ({"north": B}, {"north": 0, "south": 1})
    assert history.is_removed("north")
    assert not history.is_removed("south")
    assert history.missions() == ["south"]
    assert len(history.moves["north"]) == 2, "the past stays"


def test_a_copy_brings_a_mission_back_and_only_a_publication_ends_the_removal() -> None:
    lines = [move(1, "north", A), removed(2, "north", A), move(3, "north", B, "received")]
    assert (of(*lines).removed, of(*lines).lines) == ({"north": A}, {"north": 1})
    assert of(*lines).retained == {"north": (B,)}
    repaired = Event(4, "repaired", {"refs": {"north": str(B)}, "stage": "done"})
    assert of(*lines[:2], repaired).removed == {"north": A}
    assert not of(*lines[:2], repaired).is_removed("north")
    for event in ("published", "rolled-back"):
        assert of(*lines, move(4, "north", C, event)).removed == {}
        assert of(*lines[:2], move(4, "north", C, event)).retained == {"north": (C,)}


def test_rotations_and_the_newest_root() -> None:
    history = of(
        Event(1, "rotated", {"version": 1, "digest": "aa"}),
        Event(2, "rotated", {"version": 2}),
        Event(3, "repaired", {"root": 4, "refs": {}}),
    )
    assert history.rotations == {1: Rotation(1, "aa"), 2: Rotation(2, "")}
    assert history.newest_root == 4


def test_drafts_by_mission_and_sequence() -> None:
    signed = [
        Event(1, "signed", {"mission": "north", "sequence": 7, "for": event}) for event in ("rolled-back", "other")
    ]
    assert of(*signed).drafts == {("north", 7): "rolled-back"}


FACTS: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just(str(A)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["refs", "manifests", "version", "digest", "root", "mission", "sequence", "for"])


@given(
    st.lists(
        st.builds(
            Event,
            st.integers(0, 9),
            st.sampled_from(["signed", "rotated", "repaired", "collected", "removed"]),
            st.dictionaries(NAMES, FACTS),
        )
    )
)
def test_facts_of_any_type_are_no_error(events: list[Event]) -> None:
    """The log checks the facts of the events that publish alone; who forges another line gains no crash."""
    history = LogHistory.of(events)
    assert all(type(one.manifest) is ObjectId for moves in history.moves.values() for one in moves)
    assert not any(history.published(mission) for mission in history.moves)


@given(st.lists(st.tuples(st.sampled_from(["north", "south"]), st.sampled_from([A, B, C]), st.sampled_from(MOVES))))
def test_the_last_move_is_the_newest_manifest(given: list[tuple[str, ObjectId, str]]) -> None:
    history = of(*(move(at, mission, manifest, event) for at, (mission, manifest, event) in enumerate(given)))
    for mission, moves in history.moves.items():
        assert history.retained[mission][0] == moves[-1].manifest
        assert set(history.retained[mission]) == {one.manifest for one in moves}


def test_the_history_of_a_real_store(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    new = later(NORTH)
    publish(store, new)
    with Media(store) as media:
        history = LogHistory.of(log.events(media))
    assert history.retained == {NORTH.id: (new.manifest_id, NORTH.manifest_id), SOUTH.id: (SOUTH.manifest_id,)}
    assert {version: one.digest for version, one in history.rotations.items()} == {1: ROOT.digest.hex()}
    with Repository.open(store) as repository, writing(repository):
        assert history.newest_root == max(repository.evidence.root_versions())


def test_a_later_line_takes_no_digest_back() -> None:
    lines = [Event(1, "rotated", {"version": 2, "digest": "ab"}), Event(2, "rotated", {"version": 2})]
    assert of(*lines).rotations == {2: Rotation(2, "ab")}
    assert of(Event(1, "rotated", {"version": 2, "digest": None})).rotations[2].digest not in ("", "ab")
