"""The store as a build uses it: a build key is believed only while every byte of its objects is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builders.artifacts.store import ArtifactStore, lookup_of
from builders.artifacts.supply import Offer, Supply
from store.errors import Corrupt, Unavailable
from store.format.ids import BuildKey, ObjectId
from store.ground.repository import Repository
from store.ground.trust_chain import rotate
from store.ground.writer import writing
from tests.faults.disks import bad_sectors
from tests.support.missions import NOW, ROOT, build_key, key, role, root_draft, sign_root
from tests.support.stores import ENGINE, NORTH, SHARD, file_of, flip, make_store

KEY = build_key("one")
DATA, OTHER = b"made for a key", b"made again, otherwise"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store", NORTH)


@pytest.fixture
def artifacts(path: Path) -> Iterator[ArtifactStore]:
    with Repository.open(path) as repository, writing(repository) as writer:
        yield ArtifactStore(writer, 0)


def made(artifacts: ArtifactStore, data: bytes = DATA, of: BuildKey = KEY) -> bool:
    """Whether `keyed` made the object of the key now."""
    calls = []

    def make() -> tuple[bytes, ObjectId]:
        calls.append(1)
        return data, ObjectId.of(data)

    insertion = artifacts.keyed(of, make, "tests", bytes)
    assert (insertion.seconds is not None) == bool(calls)
    return bool(calls)


def test_a_key_is_built_once(artifacts: ArtifactStore) -> None:
    assert artifacts.lookup(KEY) is None
    assert [made(artifacts), made(artifacts), made(artifacts, OTHER)] == [True, False, False]
    assert artifacts.lookup(KEY) == ((ObjectId.of(DATA), len(DATA)),)


@pytest.mark.parametrize("damage", ["bit-flip", "cut", "gone", "longer"])
def test_what_is_not_whole_is_built_again(artifacts: ArtifactStore, path: Path, damage: str) -> None:
    made(artifacts)
    file = file_of(path, ObjectId.of(DATA))
    file.chmod(0o644)
    if damage == "bit-flip":
        flip(file)
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes(DATA[:-1] if damage == "cut" else DATA + b"!")
    assert artifacts.lookup(KEY) is None
    assert made(artifacts, OTHER)
    assert artifacts.lookup(KEY) == ((ObjectId.of(OTHER), len(OTHER)),), "the record is that of the new object"


def test_one_of_several_objects_that_is_not_whole_is_enough(artifacts: ArtifactStore, path: Path) -> None:
    ids = [artifacts.insert_bytes(data).id for data in (DATA, OTHER)]
    artifacts.remember({KEY: (tuple(ids), 1.0)}, "tests")
    assert artifacts.lookup(KEY) == ((ids[0], len(DATA)), (ids[1], len(OTHER)))
    flip(file_of(path, ids[1]))
    assert artifacts.lookup(KEY) is None


def test_what_cannot_be_read_is_neither_there_nor_absent(
    artifacts: ArtifactStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(artifacts)
    file = file_of(path, ObjectId.of(DATA))
    file.touch()  # doubted, so it must be read
    bad_sectors(monkeypatch, file.stat().st_ino)
    with pytest.raises(Unavailable):
        artifacts.lookup(KEY)
    with pytest.raises(Unavailable):
        made(artifacts, OTHER)


def test_bytes_of_another_id_are_not_stored(artifacts: ArtifactStore, path: Path) -> None:
    with pytest.raises(Corrupt):
        artifacts.keyed(KEY, lambda: (DATA, ObjectId.of(OTHER)), "tests", bytes)
    assert artifacts.lookup(KEY) is None
    assert not file_of(path, ObjectId.of(DATA)).exists()


def test_chunks_of_another_object_than_planned_are_not_stored(artifacts: ArtifactStore) -> None:
    with pytest.raises(Corrupt):
        artifacts.insert_chunks(lambda: [DATA], (ObjectId.of(OTHER), len(DATA)))
    first, again = (artifacts.insert_chunks(lambda: [DATA], (ObjectId.of(DATA), len(DATA))) for _ in range(2))
    assert (first.seconds is None, again.seconds is None) == (False, True)


@pytest.mark.parametrize("index", [True, False])
def test_a_plan_finds_what_a_published_mission_has(path: Path, index: bool) -> None:
    """Without an index, the manifests that verify say what was built for a key."""
    if not index:
        for file in (path / "index").iterdir():
            file.unlink()
        (path / "index").rmdir()
    engine, shard = NORTH.entry(ENGINE), NORTH.entry(SHARD)
    assert engine.key is not None
    assert shard.key is not None
    with Repository.open(path) as repository:
        with lookup_of(repository) as lookup:
            assert lookup(engine.key) == ((engine.id, engine.size),)
            assert lookup(KEY) is None
        file_of(path, engine.id).unlink()
        with lookup_of(repository) as lookup:
            assert lookup(engine.key) is None
            assert lookup(shard.key) == ((shard.id, shard.size),)
        if not index:
            flip(file_of(path, NORTH.manifest_id))
            with lookup_of(repository) as lookup:
                assert lookup(shard.key) is None, "a manifest that does not verify vouches for nothing"


class TestWhatASharedCacheOffers:
    @pytest.fixture(params=["orin", "stranger"])
    def signer(self, request: pytest.FixtureRequest) -> str:
        name: str = request.param
        return name

    @pytest.fixture
    def offered(self, tmp_path: Path, signer: str) -> Iterator[ArtifactStore]:
        """A store that has the object of a key for which a cache has a record, by this signer."""
        root = sign_root(replace(ROOT, builder=role("orin")), "root-a")
        with Repository.init(tmp_path / "fleet") as repository, writing(repository) as writer:
            rotate(repository, root_draft(root), now=NOW)
            with writer.inserting() as batch:
                added = batch.add_bytes(DATA)
                batch.commit()
            offer = Offer(((added.id, added.size),), (key(signer).public.kid.hex(),))
            asked: list[dict[BuildKey, int]] = []
            store = ArtifactStore(writer, 0, Supply(lambda keys: (asked.append(dict(keys)), {KEY: offer})[1]))
            assert store.lookup(KEY) is None
            assert store.take_supply({KEY: 1000})
            assert asked == [{KEY: 1000}]
            yield store

    @pytest.mark.parametrize("signer", ["orin"], indirect=True)
    def test_is_taken_once_its_kind_has_looked_at_it(self, offered: ArtifactStore) -> None:
        assert offered.lookup(KEY) == ((ObjectId.of(DATA), len(DATA)),)
        assert not made(offered)
        record = offered.writer.index.record(KEY)
        assert record is not None
        assert record.provenance["from"] == "cache"
        assert not made(ArtifactStore(offered.writer, 0))

    @pytest.mark.parametrize("signer", ["orin"], indirect=True)
    def test_is_made_where_its_kind_refuses_it(self, offered: ArtifactStore) -> None:
        def check(_data: bytes) -> None:
            raise Corrupt("it is another", kind="bad-probe")

        insertion = offered.keyed(KEY, lambda: (OTHER, ObjectId.of(OTHER)), "tests", check)
        assert (insertion.id, insertion.seconds is None) == (ObjectId.of(OTHER), False)
        assert offered.supply is not None
        assert offered.supply.refused[KEY].kind == "bad-probe"
        assert offered.lookup(KEY) == ((ObjectId.of(OTHER), len(OTHER)),)

    def test_counts_as_long_as_its_signer_is_a_builder(self, offered: ArtifactStore, signer: str) -> None:
        offered.take([KEY])
        present = None if signer == "stranger" else ((ObjectId.of(DATA), len(DATA)),)
        assert ArtifactStore(offered.writer, 0).lookup(KEY) == present
