"""Stations that share a cache: the second builds nothing; what a trusted key signed and is not what its key asks for is
refused by kind and made; a cache that is down changes nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.artifacts.engine import EngineBuilder, EngineTask
from builders.artifacts.executor import LocalExecutor
from builders.artifacts.plan import make_plan
from builders.artifacts.shard import ShardBuilder, ShardTask
from builders.artifacts.store import ArtifactStore
from builders.artifacts.supply import Offer, Supply
from builders.artifacts.task import silent
from builders.compose import open_context
from builders.descriptors.shard import read_shard, write_shard
from builders.engines.card import Card
from builders.grid.tiles import tile_from_id, tiles_of_bbox
from builders.onboard.probes import Probe
from store.format.built import CONTENT_TYPE, PAYLOAD_LIMIT, Built
from store.format.cose import Envelope
from store.format.ids import BuildKey, ObjectId
from store.ground.repository import Repository
from store.ground.writer import writing
from store.remotes.shared_cache import signed_built
from store.trust.keys import PrivateKey
from tests.builders.test_orchestrator_map import picture, set_tile
from tests.support.commands import Ran, code_of, flightbag
from tests.support.field import TAKEOFF, Desk
from tests.support.here import confine_here

SMALL: dict[str, Any] = {"bbox": (-99.180, 47.008, -99.155, 47.030), "zooms": (14,), "takeoff": TAKEOFF, "files": ()}
INDEXES = "".join(
    f'[[indexes]]\nname = "{name}"\nset = "embedder"\nmethod = "{method}"\n'
    for name, method in (("coarse", "ivf"), ("graph", "hnsw"))
)


def trusting(desk: Desk, *keys: str) -> None:
    """Let the desk's trust root name keys of the role builder: new ones."""
    for name in keys:
        draft = desk.folder / f"{name}.draft"
        for args in (
            ("keys", "new", desk.folder / name, "--no-passphrase"),
            ("trust", "add-key", desk.store, draft, "builder", desk.folder / f"{name}.pub"),
        ):
            assert flightbag(*args).status == 0
        rotated(desk, draft)


def rotated(desk: Desk, draft: Path) -> None:
    code = code_of("trust", "show", draft)
    signed = flightbag("trust", "sign", draft, "--key", desk.folder / "owner.key", "--expect", code)
    assert signed.status == 0, signed.err
    assert flightbag("trust", "rotate", desk.store, draft).status == 0


@pytest.fixture(scope="module")
def _station(_first_desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk whose trust root names a builder, with a mission of an engine, shards, a probe and indexes."""
    folder = tmp_path_factory.mktemp("station") / "desk"
    shutil.copytree(_first_desk.folder, folder)
    desk = Desk(folder)
    trusting(desk, "station.key")
    desk.write_mission("left", more=INDEXES, **SMALL)
    return desk


@pytest.fixture(scope="module")
def given(_station: Desk) -> Desk:
    """The same, after a build that gave what it made to the folder `cache` beside the desk."""
    with pytest.MonkeyPatch.context() as patch:
        confine_here(patch)
        first = copied(_station, _station.folder.parent / "first")
        ran = build(first, _station.folder.parent / "cache")
        assert ran.status == 0, ran.err
        (_station.folder.parent / "first-report.json").write_text(ran.out)
    return _station


def copied(desk: Desk, folder: Path) -> Desk:
    shutil.copytree(desk.folder, folder)
    return Desk(folder)


@pytest.fixture
def second(given: Desk, tmp_path: Path) -> Desk:
    """Another station, which has built nothing yet, with a cache of its own, as the first one left it."""
    shutil.copytree(given.folder.parent / "cache", tmp_path / "cache")
    return copied(given, tmp_path / "second")


def build(desk: Desk, cache: object, *more: object, key: str = "station.key") -> Ran:
    keys = ("--builder-key", desk.folder / key) if key else ()
    return desk.build(desk.folder / "left.toml", "--shared-cache", cache, *keys, *more)


def made(report: Mapping[str, Any]) -> list[str]:
    return [one["name"] for one in report["artifacts"] if one["action"] == "built" and one["key"]]


def records(cache: Path) -> dict[BuildKey, Path]:
    return {BuildKey.parse(path.name): path for path in cache.glob("built/*/*/*")}


def objects_of(desk: Desk, cache: Path, key: BuildKey) -> list[bytes]:
    built = Built.parse(Envelope.parse(records(cache)[key].read_bytes(), CONTENT_TYPE, PAYLOAD_LIMIT).payload)
    return [(cache / "objects" / str(id_)[:2] / str(id_)[2:]).read_bytes() for id_, _ in built.objects]


def plant(desk: Desk, cache: Path, key: BuildKey, *contents: bytes) -> None:
    """Put a record of other objects under a key, signed by the station's key, which went bad."""
    objects = []
    for data in contents:
        id_ = ObjectId.of(data)
        path = cache / "objects" / str(id_)[:2] / str(id_)[2:]
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        objects.append((id_, len(data)))
    with Repository.open(desk.store) as repository:
        root = repository.trust_root().root
    signer = PrivateKey.of_pem((desk.folder / "station.key").read_bytes(), None)
    records(cache)[key].unlink()
    next(cache.glob(f"built/*/{str(key)[:2]}")).joinpath(str(key)).write_bytes(
        signed_built(Built(key, tuple(objects), root.epoch, 0), [signer], root)
    )


def key_of(desk: Desk, cache: Path, name: str) -> BuildKey:
    """The build key of the first entry whose name begins so."""
    plan = flightbag("plan", desk.folder / "left.toml", "--store", desk.store, "--json").json
    return BuildKey.parse(next(row["key"] for row in plan["artifacts"] if row["name"].startswith(name)))


class TestTwoStations:
    def test_the_second_builds_nothing(self, second: Desk, tmp_path: Path, given: Desk) -> None:
        cache = tmp_path / "cache"
        planned = flightbag(
            "plan", second.folder / "left.toml", "--store", second.store, "--shared-cache", cache, "--json"
        )
        assert planned.status == 0, planned.err
        assert all(row["cached"] for row in planned.json["artifacts"])
        assert planned.json["cache"]["hits"] == len({row["key"] for row in planned.json["artifacts"]})
        assert planned.json["cache"]["bytes"] == 0
        text = flightbag("plan", second.folder / "left.toml", "--store", second.store, "--shared-cache", cache).out
        assert "of them in the shared cache" in text
        ran = build(second, cache, key="")
        assert ran.status == 0, ran.out + ran.err
        report = ran.json
        assert (report["outcome"], made(report), report["embedded"]) == ("built", [], 0)
        assert report["cache"]["misses"] == report["cache"]["pushed"] == 0
        assert (report["cache"]["refused"], report["cache"]["down"]) == ({}, None)
        assert report["cache"]["bytes"] > 0
        assert second.verify().json["ok"]
        assert flightbag("fsck", second.store, "--full").status == 0
        first = given.folder.parent / "first"
        same = [flightbag("show", one, "left", "--json").json["identity"] for one in (first / "ground", second.store)]
        assert same[0] == same[1]
        again = build(second, cache, key="")
        assert (again.json["outcome"], again.json["cache"]["asked"]) == ("unchanged", 0)

    def test_a_shard_of_two_sets_is_judged_once(self, second: Desk, tmp_path: Path) -> None:
        mission = second.write_mission("left", **SMALL)
        set_ = mission.read_text().partition("[[descriptors]]")[2]
        mission.write_text(
            f"{mission.read_text()}\n[[descriptors]]{set_}".replace('name = "embedder"\nb', 'name = "again"\nb', 1)
        )
        report = build(second, tmp_path / "cache", key="").json
        assert (report["outcome"], report["embedded"], report["cache"]["refused"]) == ("built", 0, {})

    def test_rows_that_came_are_taken_over_as_ones_own(
        self, second: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of a cell that came, one tile that changes is described, and not the cell (decision 13)."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
        west, south, east, north = (round(one * 10**7) for one in SMALL["bbox"])
        (tile, *_) = tiles_of_bbox((west, south, east, north), 14).tolist()
        assert build(second, tmp_path / "cache", key="").json["embedded"] == 0
        set_tile(second.folder / "terrain.mbtiles", tile_from_id(tile), picture(256))
        assert build(second, tmp_path / "cache", "--no-stat-cache", key="").json["embedded"] == 1

    def test_engines_alone_come_too(self, second: Desk, tmp_path: Path) -> None:
        args = ("engines", "build", second.folder / "left.toml", "--store", second.store)
        ran = flightbag(*args, "--shared-cache", tmp_path / "cache", "--json")
        assert ran.status == 0, ran.err
        assert [one["action"] for one in ran.json["engines"]] == ["reused"]
        assert (ran.json["cache"]["hits"], ran.json["cache"]["misses"]) == (1, 0)
        text = flightbag(*args, "--shared-cache", tmp_path / "other", "--builder-key", second.folder / "station.key")
        assert text.status == 0, text.err
        assert "1 put there" not in text.out  # it came from another cache: whoever made it gives it

    def test_what_one_station_lacks_the_other_gives(self, second: Desk, tmp_path: Path) -> None:
        """Of a part of the cache that was lost, what is lost is made and put there; what is there is taken."""
        cache = tmp_path / "cache"
        lost = key_of(second, cache, "descriptors/")
        records(cache)[lost].unlink()
        report = build(second, cache).json
        assert [name.split("/")[0] for name in made(report)] == ["descriptors"]
        assert (report["cache"]["misses"], report["cache"]["pushed"]) == (1, 1)
        assert lost in records(cache)

    def test_a_store_gives_later_what_it_made_while_the_cache_was_down(self, second: Desk, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        ran = build(second, tmp_path / "file" / "cache")
        assert (ran.status, ran.json["outcome"]) == (0, "built")
        assert ran.json["cache"]["down"]
        later = build(second, tmp_path / "new").json
        assert (later["outcome"], later["cache"]["asked"]) == ("unchanged", 0)
        assert later["cache"]["pushed"] == len(records(tmp_path / "cache"))
        assert records(tmp_path / "new").keys() == records(tmp_path / "cache").keys()


# -- a key of the role builder that went bad: what it signs is judged all the same


def shard(change: Callable[..., tuple[Any, Any, Any]]) -> Callable[[list[bytes]], list[bytes]]:
    def changed(contents: list[bytes]) -> list[bytes]:
        tiles, rows, metadata = read_shard(contents[0])
        return [write_shard(*change(tiles.copy(), rows.copy(), dict(metadata)))]

    return changed


def card(change: Callable[[Card], Card]) -> Callable[[list[bytes]], list[bytes]]:
    return lambda contents: [change(Card.parse(contents[0])).render(), *contents[1:]]


def changed_probe(data: bytes) -> bytes:
    one = Probe.parse(data)
    return replace(one, images=one.images ^ 1).render()


def other_rows(tiles: Any, rows: Any, metadata: Any) -> tuple[Any, Any, Any]:
    return tiles, rows[::-1].copy(), metadata


def not_finite(tiles: Any, rows: Any, metadata: Any) -> tuple[Any, Any, Any]:
    rows[0, 0] = np.inf
    return tiles, rows, metadata


WORSE = 0.5
BAD: Mapping[str, tuple[str, str, Callable[[list[bytes]], list[bytes]]]] = {
    "a card that is none": ("engines/", "bad-card", lambda contents: [b"{}", *contents[1:]]),
    "an engine without a card": ("engines/", "bad-card", lambda contents: contents[1:]),
    "another engine beside the card": ("engines/", "bad-card", lambda contents: [contents[0], b"another engine"]),
    "an engine that nothing ran": (
        "engines/",
        "unproven",
        card(lambda one: replace(one, check=replace(one.check, of="network"))),
    ),
    "an engine that is too far from its model": (
        "engines/",
        "wrong-output",
        card(
            lambda one: replace(
                one, check=replace(one.check, cases=tuple(replace(c, cosine=WORSE) for c in one.check.cases))
            )
        ),
    ),
    "an engine that needs more than the aircraft has": (
        "engines/",
        "wrong-host",
        card(lambda one: replace(one, need=one.need + "+sm87")),
    ),
    "a shard that is none": ("descriptors/", "bad-shard", lambda _: [b"no shard" * 1000]),
    "two objects for a shard": ("descriptors/", "bad-record", lambda contents: [*contents, b"another"]),
    "rows in another order": ("descriptors/", "other-rows", shard(other_rows)),
    "rows of noise": (
        "descriptors/",
        "other-rows",
        shard(lambda t, r, m: (t, np.random.default_rng(1).normal(size=r.shape).astype(r.dtype), m)),
    ),
    "rows of another width": ("descriptors/", "other-rows", shard(lambda t, r, m: (t, r[:, :-1].copy(), m))),
    "a row that is not finite": ("descriptors/", "bad-shard", shard(not_finite)),
    "a good tile left out": ("descriptors/", "bad-shard", shard(lambda t, r, m: (t[1:].copy(), r[1:].copy(), m))),
    "no row at all": ("descriptors/", "bad-shard", shard(lambda t, r, m: (t[:0].copy(), r[:0].copy(), m))),
    "a tile of elsewhere": ("descriptors/", "bad-shard", shard(lambda t, r, m: (t + np.uint64(10**6), r, m))),
    "rows of another cell": ("descriptors/", "bad-shard", shard(lambda t, r, m: (t, r, {**m, "cell": "1/0/0"}))),
    "rows of another recipe": ("descriptors/", "bad-shard", shard(lambda t, r, m: (t, r, {**m, "salt": "x"}))),
}


@pytest.fixture(scope="module")
def judge(given: Desk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., dict[BuildKey, str]]]:
    """Judges what is offered for keys of the mission, on a station that has built nothing: the kinds of what is refused
    by key, and "" of what is taken."""
    desk = copied(given, tmp_path_factory.mktemp("judge") / "desk")
    context_of = open_context(desk.folder / "left.toml", desk.store, tmp_path_factory.mktemp("cache"))
    with context_of as context, writing(context.repository) as writer:
        planned = make_plan(context, lambda _key: None, now=int(time.time()))

        def judged(contents: Mapping[BuildKey, list[bytes]]) -> dict[BuildKey, str]:
            offers = {}
            with writer.inserting() as batch:
                for key, parts in contents.items():
                    added = [batch.add_bytes(data) for data in parts]
                    offers[key] = Offer(tuple((one.id, one.size) for one in added), ("orin",))
                batch.commit()
            supply = Supply(lambda _asked: offers)
            store = ArtifactStore(writer, int(time.time()), supply)
            assert store.take_supply({})
            args = (context, store, planned.inventory, LocalExecutor(), silent)
            EngineBuilder(*args).judge_offers(planned.of(EngineTask))
            ShardBuilder(*args).judge_offers(planned.of(ShardTask))
            assert not supply.offers
            return {key: supply.refused[key].kind if key in supply.refused else "" for key in contents}

        yield judged


@pytest.fixture(scope="module")
def good(given: Desk) -> dict[str, tuple[BuildKey, list[bytes]]]:
    """What the first station made: by the beginning of its name, its key and objects."""
    cache = given.folder.parent / "cache"
    keys = {place: key_of(given, cache, place) for place in ("engines/", "descriptors/")}
    return {place: (key, objects_of(given, cache, key)) for place, key in keys.items()}


@pytest.mark.parametrize("name", BAD)
def test_what_a_bad_builder_signed_is_refused_by_its_kind(
    name: str, good: dict[str, tuple[BuildKey, list[bytes]]], judge: Callable[..., dict[BuildKey, str]]
) -> None:
    place, kind, change = BAD[name]
    key, contents = good[place]
    assert judge({key: change(contents)}) == {key: kind}


def test_what_the_first_station_made_is_taken(
    good: dict[str, tuple[BuildKey, list[bytes]]], judge: Callable[..., dict[BuildKey, str]]
) -> None:
    assert judge(dict(good.values())) == dict.fromkeys((key for key, _ in good.values()), "")


def test_what_is_refused_is_made_and_put_there(second: Desk, tmp_path: Path) -> None:
    cache, other = tmp_path / "cache", copied(second, tmp_path / "other")
    for place, change in (
        ("engines/", card(lambda one: replace(one, check=replace(one.check, of="network")))),
        ("descriptors/", shard(other_rows)),
        ("probes/", lambda contents: [changed_probe(contents[0])]),
        ("indexes/embedder/graph", lambda _: [b"no index" * 4000]),
    ):
        key = key_of(second, cache, place)
        plant(second, cache, key, *change(objects_of(second, cache, key)))
    ran = build(second, cache)
    assert ran.status == 0, ran.err
    report = ran.json
    kinds = {"unproven": 1, "other-rows": 1, "bad-probe": 1, "bad-index": 1}
    assert {kind: report["cache"]["refused"].get(kind) for kind in kinds} == kinds
    assert len(report["cache"]["reasons"]) >= len(kinds)
    assert report["cache"]["pushed"] == sum(report["cache"]["refused"].values())
    text = flightbag("build", second.folder / "left.toml", "--store", second.store, "--shared-cache", cache).out
    assert "shared cache: 0 hits, 0 misses" in text
    # Whoever comes next finds what was made.
    after = build(other, cache).json
    assert (made(after), after["cache"]["refused"]) == ([], {})


def test_no_more_is_fetched_than_the_work_could_make(second: Desk, tmp_path: Path) -> None:
    """Each kind of artifact has a bound, to which its own work keeps and a record of gigabytes does not."""
    cache = tmp_path / "cache"
    with Repository.open(second.store) as repository:
        root = repository.trust_root().root
    signer = PrivateKey.of_pem((second.folder / "station.key").read_bytes(), None)
    places = ("engines/", "descriptors/", "probes/", "indexes/embedder/graph", "indexes/embedder/coarse")
    for place in places:
        key = key_of(second, cache, place)
        huge = Built(
            key, ((ObjectId.of(place.encode()), 2**33),), root.epoch, 0
        )  # there is none: that would be `missing`
        records(cache)[key].write_bytes(signed_built(huge, [signer], root))
    report = build(second, cache).json
    assert report["cache"]["refused"] == {"too-large": len(places)}
    assert (report["outcome"], report["cache"]["pushed"]) == ("built", len(places))


class TestTheKeys:
    def test_who_is_no_builder_gets_nothing_and_gives_nothing(self, second: Desk, desk: Desk, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        mission = desk.write_mission("left", **SMALL)
        refused = desk.build(mission, "--shared-cache", cache)
        assert (refused.status, refused.json["error"]["kind"]) == (1, "no-builder")
        assert "trust add-key STORE DRAFT builder KEY" in refused.json["error"]["remedy"]
        wrong = second.build(second.folder / "left.toml", "--shared-cache", cache, "--builder-key", second.key)
        assert (wrong.status, wrong.json["error"]["kind"]) == (1, "unknown-signer")
        alone = second.build(second.folder / "left.toml", "--builder-key", second.folder / "station.key")
        assert (alone.status, "--builder-key needs --shared-cache" in alone.err) == (2, True)
        for place in ("crew@hangar:cache", second.store):
            assert build(second, place).status == 2
        assert flightbag("ls", second.store, "--json").json["missions"] == []

    def test_what_a_revoked_key_signed_counts_no_more_even_where_it_was_taken(
        self, second: Desk, tmp_path: Path
    ) -> None:
        cache = tmp_path / "cache"
        engines = ("engines", "build", second.folder / "left.toml", "--store", second.store, "--shared-cache", cache)
        assert flightbag(*engines, "--json").json["engines"][0]["action"] == "reused"
        trusting(second, "spare.key")
        assert flightbag(*engines, "--json").json["engines"][0]["action"] == "reused"
        draft = second.folder / "revoked.draft"
        assert flightbag("trust", "revoke", second.store, draft, second.folder / "station.key.pub").status == 0
        rotated(second, draft)
        planned = flightbag("plan", second.folder / "left.toml", "--store", second.store, "--json").json
        assert not any(row["present"] for row in planned["artifacts"])
        ran = flightbag(*engines, "--builder-key", second.folder / "spare.key", "--json").json
        assert (ran["engines"][0]["action"], ran["cache"]["refused"]) == ("built", {"revoked-key": 1})
        assert ran["cache"]["pushed"] == 1
