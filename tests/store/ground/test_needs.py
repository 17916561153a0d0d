"""Needs: what a manifest needs is in it, whoever has signed it."""

from __future__ import annotations

from pathlib import Path

from store.format.ids import ObjectId
from store.ground.needs import Need, is_manifest, need_of, need_of_stored, need_of_unsigned
from store.ground.repository import Repository
from store.ground.writer import writing
from tests.support.missions import flight
from tests.support.stores import NORTH, SOUTH, later, make_store, publish

RELEASE = b"a release"


def ids(need: Need) -> set[ObjectId]:
    return {id_ for first in range(256) for id_, _ in need.of_shard(first)}


def test_a_manifest_needs_its_table_entries_and_releases(tmp_path: Path) -> None:
    new = flight(NORTH.contents, releases=(ObjectId.of(RELEASE),), issue=later(NORTH, 9).manifest.issue)
    store = make_store(tmp_path / "store")
    entries = {ObjectId.of(data) for data in new.contents.values()}
    rest = {new.manifest.table, ObjectId.of(RELEASE)}
    with Repository.open(store) as repository:
        with writing(repository) as writer, writer.inserting() as batch:
            batch.add_bytes(RELEASE)
            batch.commit()
        publish(store, new)
        evidence = repository.evidence
        assert ids(need_of("x", repository.current(NORTH.id))) == entries | rest | {new.manifest_id}
        assert ids(need_of_unsigned("x", new.signed, evidence)) == entries | rest
        assert ids(need_of_stored("x", new.manifest_id, evidence)) == entries | rest | {new.manifest_id}
        assert is_manifest(evidence, SOUTH.manifest_id)
        assert not is_manifest(evidence, ObjectId.of(RELEASE))
        assert not is_manifest(evidence, new.manifest.table)
