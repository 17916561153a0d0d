"""Short ids of the objects and manifests of a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.errors import Invalid, NotFound
from store.format.ids import ObjectId
from store.ground.naming import manifest_named, object_named
from store.ground.repository import Repository
from tests.support.stores import NORTH, SOUTH, make_store


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.open(make_store(tmp_path / "store", NORTH, SOUTH))


def test_an_object_by_its_first_digits(repository: Repository) -> None:
    whole = str(NORTH.manifest_id)
    for digits in (6, 12, 63, 64):
        assert object_named(repository, whole[:digits]) == NORTH.manifest_id
        assert object_named(repository, whole[:digits].upper() if digits < 64 else whole) == NORTH.manifest_id


def test_a_slip_is_answered_with_the_nearest_of_the_store(repository: Repository) -> None:
    whole = str(NORTH.manifest_id)
    wrong = whole[1] + whole[0] + whole[2:12]
    with pytest.raises(NotFound) as caught:
        object_named(repository, wrong)
    assert whole[:12] in caught.value.remedy


@pytest.mark.parametrize("text", ["", "abc", "abcde", "nothex", "abcdefg", "../../etc", "a" * 65])
def test_what_begins_no_id(repository: Repository, text: str) -> None:
    with pytest.raises(Invalid, match="is not the beginning of an id"):
        object_named(repository, text)


def test_a_whole_id_is_not_looked_for(repository: Repository) -> None:
    assert object_named(repository, "00" * 32) == ObjectId(bytes(32))
    assert manifest_named(repository, "north-ridge", "00" * 32) == ObjectId(bytes(32))


def test_a_manifest_of_another_mission_is_not_meant(repository: Repository) -> None:
    with pytest.raises(NotFound, match="no manifest of north-ridge has an id that begins with"):
        manifest_named(repository, NORTH.id, str(SOUTH.manifest_id)[:12])
