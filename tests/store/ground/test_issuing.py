"""Issuing: which manifest is the last one, which sequence follows, and which draft was overtaken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from store.errors import Refused, Unavailable
from store.format.cbor import INT_MAX
from store.format.ids import ObjectId
from store.format.manifest import SKEW
from store.ground.issuing import highest_issued, last_issued, next_issue, overtaken
from store.ground.repository import Repository
from tests.faults.disks import bad_sectors
from tests.support.missions import ISSUE, NOW, ROOT
from tests.support.stores import NORTH, SOUTH, file_of, flip, later, make_store, publish

SECOND, THIRD = later(NORTH, 1, **{"calibration/camera.yaml": b"2"}), later(NORTH, 2)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    made = make_store(tmp_path / "store")
    publish(made, SECOND, THIRD)
    return made


def last_of(store: Path) -> ObjectId | None:
    with Repository.open(store) as repository:
        opened = last_issued(repository, NORTH.id)
        return None if opened is None else opened.manifest_id


def test_the_last_manifest_is_the_current_one_or_the_last_of_the_log_that_verifies(store: Path) -> None:
    assert last_of(store) == THIRD.manifest_id
    flip(file_of(store, THIRD.manifest_id))
    assert last_of(store) == SECOND.manifest_id
    file_of(store, SECOND.manifest.table).unlink()
    assert last_of(store) == NORTH.manifest_id
    flip(file_of(store, NORTH.manifest_id))
    assert last_of(store) is None


def test_the_manifest_of_another_mission_is_not_the_last(store: Path) -> None:
    (store / "missions" / NORTH.id).write_text(f"{SOUTH.manifest_id}\n")
    assert last_of(store) == THIRD.manifest_id


@pytest.mark.parametrize("number", [0, 1])
def test_a_manifest_that_cannot_be_read_is_not_passed_over(
    store: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It may be the last one: what is issued beside it would follow an earlier manifest."""
    if number:
        flip(file_of(store, THIRD.manifest_id))
    bad_sectors(monkeypatch, file_of(store, (THIRD, SECOND)[number].manifest_id).stat().st_ino)
    with pytest.raises(Unavailable):
        last_of(store)


def test_the_highest_sequence_is_found_at_the_end_of_a_long_log(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", NORTH)
    for step in range(1, 19):
        publish(store, later(NORTH, step))
    with Repository.open(store) as repository:
        assert highest_issued(repository, NORTH.id) == (ROOT.epoch, ISSUE.sequence + 18)
        assert highest_issued(repository, "nobody") == (0, 0)


@pytest.mark.parametrize(
    ("highest", "sequence"),
    [
        ((0, 0), NOW),
        ((1, NOW - 1), NOW),
        ((1, NOW), NOW + 1),
        ((1, NOW + 5), NOW + 6),
        ((1, INT_MAX - 1), INT_MAX),
        ((1, INT_MAX), None),
        ((2, INT_MAX), NOW),
        ((0, INT_MAX), NOW),
    ],
)
def test_the_next_sequence(highest: tuple[int, int], sequence: int | None) -> None:
    """One more than the highest of this epoch, or the time."""
    if sequence is None:
        with pytest.raises(Refused) as caught:
            next_issue(ROOT, None, highest, now=NOW)
        assert caught.value.kind == "no-sequence"
    else:
        assert next_issue(ROOT, None, highest, now=NOW).sequence == sequence


def test_a_draft_is_overtaken_by_anything_that_it_does_not_follow(store: Path) -> None:
    with Repository.open(store) as repository:
        last = last_issued(repository, NORTH.id)
        highest = highest_issued(repository, NORTH.id)

        def why(now: int = NOW, made: int = NOW, **changes: object) -> str:
            issue = replace(next_issue(ROOT, last, highest, now=made), **changes)  # type: ignore[arg-type]
            return overtaken(repository, replace(NORTH.manifest, issue=issue), ROOT, now=now)

        assert why() == ""
        assert why(made=NOW + SKEW) == ""
        assert "time of issue" in why(made=NOW + SKEW + 1)
        assert "trust root" in why(epoch=ROOT.epoch + 1)
        assert "trust root" in why(min_root_version=ROOT.version + 1)
        for previous in (None, SECOND.manifest_id):
            assert "published since" in why(previous=previous)
        for step in (-1, 1):
            assert "sequence" in why(sequence=max(highest[1] + 1, NOW) + step)
