"""Publication: only a manifest that will verify becomes current, and only with its whole closure."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from store.disk import log
from store.disk.index import Record
from store.disk.locks import Locked, SharedLock
from store.disk.media import Media
from store.errors import Corrupt, FlightbagError, Refused, Unavailable
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import Takeoff
from store.ground.repository import Repository
from store.ground.writer import writing
from tests.support.missions import (
    FACTS,
    ISSUE,
    ROOT,
    Flight,
    entry,
    flight,
    manifest_of,
    sign_manifest,
)
from tests.support.missions import sign_root as sign
from tests.support.stores import (
    CAMERA,
    ENGINE,
    NORTH,
    ROOT_FILE,
    SOUTH,
    check,
    file_of,
    flip,
    later,
    listing,
    make_store,
    publish,
)


class TestWriting:
    def test_a_writer_beside_one_who_has_the_store_alone_is_told_so(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        with Repository.open(store) as repository:
            alone = SharedLock(str(store), repository.disk, "store", "the store")
            assert alone.try_exclusive()
            with pytest.raises(Locked), writing(repository):
                pass
            alone.close()
            with writing(repository):
                pass

    def test_a_record_is_replaced_only_when_said(self, tmp_path: Path) -> None:
        key = BuildKey(bytes(32))
        with Repository.open(make_store(tmp_path / "store")) as repository, writing(repository) as writer:
            for data, replacing, kept in ((b"a", False, b"a"), (b"b", False, b"a"), (b"c", True, b"c")):
                writer.record({key: Record((ObjectId.of(data),), {})}, replace=replacing)
                record = writer.index.record(key)
                assert record is not None
                assert record.ids == (ObjectId.of(kept),)


def of_another_root() -> Flight:
    manifest = manifest_of(NORTH.table, merkle_root=bytes(32))
    return replace(NORTH, manifest=manifest, signed=sign_manifest(manifest))


FLAWED: dict[str, tuple[Flight, type[FlightbagError]]] = {
    "unsigned": (flight(by=()), Corrupt),
    "signed by a stranger": (flight(by=("stranger",)), Corrupt),
    "signed by the wrong role": (flight(by=("root-a",)), Corrupt),
    "of another mission": (flight(mission=replace(FACTS, id="other")), Refused),
    "of another epoch": (flight(issue=replace(ISSUE, epoch=2)), Refused),
    "needs a newer root": (flight(issue=replace(ISSUE, min_root_version=2)), Refused),
    "takeoff outside the area": (flight(mission=replace(FACTS, takeoff=Takeoff(0, 0, 0))), Refused),
    "Merkle root of another table": (of_another_root(), Corrupt),
    "identity of another mission": (flight(identity=bytes(32)), Corrupt),
    "count of another table": (flight(count=3), Corrupt),
}


class TestPublish:
    def test_makes_current_and_logs(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        new = later(NORTH, files=b"")
        publish(store, new)
        assert check(store, NORTH.id).mission.manifest_id == new.manifest_id  # type: ignore[union-attr]
        assert check(store, SOUTH.id).go
        with Media(store) as media:
            moves = [event for event in log.events(media) if event.event in log.MOVES]
        told = [(event.event, event.facts["mission"], event.facts["manifest"]) for event in moves]
        assert told == [("published", one.id, str(one.manifest_id)) for one in (NORTH, SOUTH, new)]

    def test_shared_objects_are_there_once(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        needed = {ObjectId.of(data) for one in (NORTH, SOUTH) for data in one.contents.values()}
        needed |= {id_ for one in (NORTH, SOUTH) for id_ in (one.manifest_id, one.manifest.table)}
        assert len(list((store / "objects").glob("*/*"))) == len(needed)

    @pytest.mark.parametrize("flaw", FLAWED)
    def test_a_flawed_manifest_is_refused_and_nothing_is_written(self, tmp_path: Path, flaw: str) -> None:
        store = make_store(tmp_path / "store")
        publish(store)
        bad, expected = FLAWED[flaw]
        but = ("index", "lock", "tmp")
        before = listing(store, but=but)
        with Repository.open(store) as repository, writing(repository) as writer, pytest.raises(expected):
            writer.publish(NORTH.id, bad.signed, bad.table.render())
        assert listing(store, but=but) == before
        assert check(store, NORTH.id).go

    @pytest.mark.parametrize("damage", ["missing", "bit-flip", "two sizes"])
    def test_a_closure_that_is_not_whole_is_refused_and_the_current_stays(self, tmp_path: Path, damage: str) -> None:
        store = make_store(tmp_path / "store")
        new = later(NORTH, own=b"its own")
        if damage == "two sizes":
            engine = new.contents[ENGINE]
            entries = [*new.table.entries, entry("files/engine.bin", engine, size=len(engine) + 1)]
            table = replace(new.table, entries=tuple(sorted(entries, key=lambda e: e.name)))
            new = flight(new.contents, table=table, issue=new.manifest.issue)
        with Repository.open(store) as repository, writing(repository) as writer:
            with writer.inserting() as batch:
                batch.add_bytes(b"its own")
                batch.commit()
            path = file_of(store, ObjectId.of(b"its own"))
            if damage == "missing":
                path.unlink()
            elif damage == "bit-flip":
                flip(path)
            with pytest.raises(Refused) as caught:
                writer.publish(NORTH.id, new.signed, new.table.render())
        bad = ObjectId.of(new.contents[ENGINE] if damage == "two sizes" else b"its own")
        assert caught.value.fields["objects"] == (bad,)
        assert check(store, NORTH.id).mission.manifest_id == NORTH.manifest_id  # type: ignore[union-attr]

    def test_a_closure_that_cannot_be_read_is_unavailable(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = make_store(tmp_path / "store")
        file_of(store, NORTH.entry(CAMERA).id).touch()  # doubted, so it must be read

        def bad(*arguments: object) -> int:
            raise OSError(5, "Input/output error")

        with Repository.open(store) as repository, writing(repository) as writer:
            opened = repository.current(NORTH.id)
            for name in ("read", "readv"):
                monkeypatch.setattr(os, name, bad)
            with pytest.raises(Unavailable):
                writer.check_closure(opened)

    def test_check_closure_tells_the_bytes_it_went_through(self, tmp_path: Path) -> None:
        told: list[int] = []
        with Repository.open(make_store(tmp_path / "store")) as repository, writing(repository) as writer:
            opened = repository.current(NORTH.id)
            writer.check_closure(opened, told.append)
        assert sum(told) == sum(opened.closure().values())

    def test_a_release_that_is_gone_is_a_hole_in_the_closure(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        new = flight(releases=(ObjectId.of(b"no such release"),), issue=replace(ISSUE, sequence=ISSUE.sequence + 1))
        with pytest.raises(Refused):
            publish(store, new)
        assert check(store, NORTH.id).mission.manifest_id == NORTH.manifest_id  # type: ignore[union-attr]

    def test_another_domain_is_flight(self, tmp_path: Path) -> None:
        other = replace(ROOT, domain="another fleet")
        store = make_store(tmp_path / "store")
        stranger = flight(root=other)
        assert sign(other, "root-a") != ROOT_FILE
        with Repository.open(store) as repository, writing(repository) as writer, pytest.raises(Corrupt):
            writer.publish(NORTH.id, stranger.signed, stranger.table.render())
