"""Syncs to a bucket and back, over a real S3 server: the bucket is a store, and nothing is lost by two at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from store.audit.scope import FULL
from store.disk.media import object_path
from store.errors import Conflict, Corrupt, NoStore, Unavailable
from store.format.ids import ObjectId
from store.ground.repository import Repository
from store.ground.sync import apply_sync, plan_sync
from store.ground.trust_chain import rotate
from store.remotes import bucket_store
from store.remotes.bucket import BucketClient
from store.remotes.bucket_audit import fsck_bucket
from store.remotes.bucket_store import pulled, push
from tests.store.ground.test_receipts import a_file
from tests.support.missions import NOW, ROOT, root_draft, sign_root
from tests.support.s3 import BUCKET, Asked, Proxy, Server, raw_put
from tests.support.stores import NORTH, SHARD, SOUTH, audit, check, file_of, later, make_store, publish


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that no test changes."""
    return make_store(tmp_path_factory.mktemp("ground") / "store")


def send(source: Path, client: BucketClient, *missions: str, checksum: bool = False) -> int:
    """Sync a store to a bucket. Return how many objects went."""
    with Repository.open(source) as store:
        return len(push(store, client, missions, checksum=checksum).missing)


def fetch(client: BucketClient, target: Path, *, checksum: bool = False) -> int:
    """Sync a bucket to a folder. Return how many objects came."""
    with there(target) as destination, pulled(client, destination.media if destination else None) as (source, far):
        plan = plan_sync(source, destination, (), checksum=checksum)
        apply_sync(plan, source, target, bring=lambda items, store: far.bring(items, store, lambda _: None))
    return len(plan.missing)


@contextmanager
def there(path: Path) -> Iterator[Repository | None]:
    if not path.exists():
        yield None
        return
    with Repository.open(path) as store:
        yield store


def copied_down(client: BucketClient, folder: Path) -> Path:
    """What any client of the storage makes of the bucket: one file a name."""
    for name, size in client.names():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(client.chunks(name, size)))
    return folder


def is_whole(store: Path, *missions: str) -> None:
    assert all(check(store, mission).go for mission in missions)
    assert not audit(store).errors


def test_there_and_back(client: BucketClient, ground: Path, tmp_path: Path) -> None:
    assert send(ground, client) > 5
    is_whole(copied_down(client, tmp_path / "plain"), NORTH.id, SOUTH.id)
    assert fetch(client, tmp_path / "back") > 5
    is_whole(tmp_path / "back", NORTH.id, SOUTH.id)
    assert send(ground, client) == fetch(client, tmp_path / "back") == 0


def refs(client: BucketClient) -> dict[str, bytes]:
    return {name: client.read(name, 65)[0] for name, _ in client.names("missions")}


def test_what_nobody_changed_is_not_sent_again(
    spoilt: tuple[BucketClient, Proxy], ground: Path, tmp_path: Path
) -> None:
    client, proxy = spoilt
    send(ground, client)
    fetch(client, tmp_path / "back")
    proxy.asked.clear()
    assert send(ground, client) == fetch(client, tmp_path / "back") == 0
    assert {asked.method for asked in proxy.asked} == {"GET"}
    assert not any("/objects/" in asked.path for asked in proxy.asked)


def test_objects_come_before_roots_and_these_before_refs(spoilt: tuple[BucketClient, Proxy], ground: Path) -> None:
    client, proxy = spoilt
    send(ground, client)
    put = [
        asked.path.partition(client.name.partition(f"{BUCKET}/")[2] + "/")[2]
        for asked in proxy.asked
        if asked.method == "PUT"
    ]
    # Whether the storage heeds conditions is tried on the file that is there already.
    kinds = [name.partition("/")[0] for number, name in enumerate(put) if not number or name != "flightbag.toml"]
    order = ["flightbag.toml", "objects", "log", "trust", "missions"]
    assert [*dict.fromkeys(kinds)] == order
    assert kinds == sorted(kinds, key=order.index)


def test_two_stations_at_once_both_arrive(client: BucketClient, tmp_path: Path) -> None:
    stations = [make_store(tmp_path / "left", NORTH), make_store(tmp_path / "right", SOUTH)]
    errors: list[BaseException] = []

    def sync(store: Path) -> None:
        try:
            send(store, client)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=sync, args=(store,)) for store in stations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    is_whole(copied_down(client, tmp_path / "plain"), NORTH.id, SOUTH.id)


def test_of_two_that_write_one_ref_at_once_the_newer_one_stays(
    spoilt: tuple[BucketClient, Proxy], tmp_path: Path, client: BucketClient
) -> None:
    """While the older mission is on its way, the newer one arrives, just before the ref of the older one."""
    through, proxy = spoilt
    newer = later(NORTH, 5, **{"notes.txt": b"newer"})
    stations = make_store(tmp_path / "old", NORTH), make_store(tmp_path / "new", newer)
    begun = threading.Event()

    def fault(asked: Asked) -> None:
        if asked.method == "PUT" and "/missions/" in asked.path and not begun.is_set():
            begun.set()
            send(stations[1], client)

    proxy.fault = fault
    send(stations[0], through)
    assert refs(client) == {f"missions/{NORTH.id}": f"{newer.manifest_id}\n".encode()}
    is_whole(copied_down(client, tmp_path / "plain"), NORTH.id)


def test_who_never_gets_a_turn_learns_that_the_store_changes(
    spoilt: tuple[BucketClient, Proxy], ground: Path, monkeypatch: pytest.MonkeyPatch, client: BucketClient
) -> None:
    monkeypatch.setattr(bucket_store, "_PAUSE", 0)
    monkeypatch.setattr(bucket_store, "_ATTEMPTS", 2)
    through, proxy = spoilt
    turns = count()

    def fault(asked: Asked) -> None:
        if asked.method == "PUT" and asked.path.endswith("/log"):
            client.put_object("log", ObjectId.of(b"%d" % (number := next(turns))), 1, lambda: [b"%d" % number])

    proxy.fault = fault
    with pytest.raises(Conflict, match=r"somebody changed s3://.*/log while the sync ran") as error:
        send(ground, through)
    assert error.value.kind == "changed"
    assert "run the sync again" in error.value.remedy
    assert not refs(client)


def test_a_storage_that_ignores_conditions_is_refused_before_anything_is_published(
    spoilt: tuple[BucketClient, Proxy], ground: Path
) -> None:
    client, proxy = spoilt
    proxy.fault = lambda asked: "rash" if asked.method == "PUT" else None
    with pytest.raises(Unavailable, match="ignores the conditions of a write"):
        send(ground, client)
    assert not refs(client)
    assert {name.partition("/")[0] for name, _ in client.names()} == {"flightbag.toml", "objects"}


def test_another_trust_root_of_the_same_version_is_never_replaced(
    client: BucketClient, ground: Path, tmp_path: Path
) -> None:
    send(ground, client)
    other = tmp_path / "other"
    with Repository.init(other) as repository:
        rotate(repository, root_draft(sign_root(replace(ROOT, salt=bytes(16)), "root-a")), now=NOW)
    root = client.read("trust/1.root.cbor", 66 * 1024)
    with pytest.raises(Conflict) as error:
        send(other, client)
    assert error.value.kind == "bad-trust-chain"
    assert client.read("trust/1.root.cbor", 66 * 1024) == root


def test_a_damaged_object_in_the_bucket_is_never_inserted_and_is_mended(
    client: BucketClient, ground: Path, tmp_path: Path
) -> None:
    send(ground, client)
    name = object_path(NORTH.entry(SHARD).id)
    data = client.read(name, 10_000)[0]
    client.remove(name)
    client.create(name, bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(Corrupt, match="has bytes that hash to") as error:
        fetch(client, tmp_path / "back")
    assert error.value.kind == "bit-flip"
    assert not file_of(tmp_path / "back", NORTH.entry(SHARD).id).exists()
    assert not list((tmp_path / "back" / "missions").iterdir())
    assert send(ground, client) == 0
    assert send(ground, client, checksum=True) == 1
    assert fetch(client, tmp_path / "back") > 0
    is_whole(tmp_path / "back", NORTH.id, SOUTH.id)


@pytest.mark.parametrize("damage", [b"", b"no ref", b"x" * 100])
def test_a_damaged_ref_log_or_root_is_mended(client: BucketClient, ground: Path, tmp_path: Path, damage: bytes) -> None:
    send(ground, client)
    for name in (f"missions/{NORTH.id}", "trust/1.root.cbor"):
        client.remove(name)
        client.create(name, damage if "missions" in name else damage * 700)
    send(ground, client)
    is_whole(copied_down(client, tmp_path / "plain"), NORTH.id, SOUTH.id)


@pytest.mark.parametrize("fault", ["cut", "short", "wrong", "drop", "500"])
def test_what_breaks_off_on_the_way_down_goes_on(
    spoilt: tuple[BucketClient, Proxy], ground: Path, tmp_path: Path, fault: str
) -> None:
    client, proxy = spoilt
    send(ground, client)
    proxy.fault = lambda asked: fault if asked.path.endswith(object_path(SOUTH.entry(SHARD).id)) else None
    with pytest.raises((Corrupt, Unavailable)):
        fetch(client, tmp_path / "back")
    assert not (tmp_path / "back" / "missions").exists() or not list((tmp_path / "back" / "missions").iterdir())
    proxy.fault = lambda _: None
    fetch(client, tmp_path / "back")
    is_whole(tmp_path / "back", NORTH.id, SOUTH.id)


def test_receipts_travel_up_and_down(client: BucketClient, tmp_path: Path) -> None:
    stick = make_store(tmp_path / "stick", NORTH)
    receipt = a_file()
    with Repository.open(stick) as repository:
        repository.place([receipt])
    send(stick, client)
    assert client.read(receipt.name, 8192)[0] == receipt.data
    ground = make_store(tmp_path / "ground", NORTH)
    fetch(client, ground)
    assert (ground / receipt.name).read_bytes() == receipt.data
    assert not fsck_bucket(client, FULL).errors


def test_a_prefix_with_other_things_is_no_place_for_a_store(client: BucketClient, ground: Path, tmp_path: Path) -> None:
    client.create("holiday.jpg", b"?")
    with pytest.raises(NoStore, match="is not a store"):
        send(ground, client)
    with pytest.raises(NoStore):
        fetch(client, tmp_path / "back")
    assert [name for name, _ in client.names()] == ["holiday.jpg"]


def test_where_nothing_lies_no_store_comes_from(client: BucketClient, tmp_path: Path) -> None:
    with pytest.raises(NoStore, match=r"has no flightbag\.toml") as error:
        fetch(client, tmp_path / "back")
    assert error.value.kind == "no-store"


def test_empty_objects_in_the_place_of_folders_do_no_harm(
    client: BucketClient, storage: Server, ground: Path, tmp_path: Path
) -> None:
    prefix = client.name.removeprefix(f"s3://{BUCKET}/")
    for folder in ("", "missions/", "objects/", "objects/ab/", "trust/"):
        raw_put(storage, BUCKET, f"{prefix}/{folder}", b"")
    send(ground, client)
    fetch(client, tmp_path / "back")
    is_whole(tmp_path / "back", NORTH.id, SOUTH.id)
    assert not fsck_bucket(client, FULL).findings


def test_names_and_sizes_that_lead_elsewhere_come_nowhere(client: BucketClient, ground: Path, tmp_path: Path) -> None:
    send(ground, client)
    for name in ("missions/UPPER", "objects/zz/top", "trust/..root.cbor", "elsewhere/file", "tmp/x/y"):
        client.create(name, b"x" * 200)
    fetch(client, tmp_path / "back")
    is_whole(tmp_path / "back", NORTH.id, SOUTH.id)
    assert {path.name for path in (tmp_path / "back").iterdir()} <= {
        "flightbag.toml",
        "log",
        "missions",
        "objects",
        "trust",
        "lock",
        "tmp",
    }


def test_a_publication_in_the_middle_of_a_look_is_seen_whole_or_not_at_all(
    spoilt: tuple[BucketClient, Proxy], tmp_path: Path, client: BucketClient
) -> None:
    through, proxy = spoilt
    store = make_store(tmp_path / "store", NORTH)
    send(store, client)
    publish(store, SOUTH)
    listed = threading.Event()

    def fault(asked: Asked) -> None:
        # The first listing is that of the refs; the second one, of everything, waits for the other station.
        if "list-type=2" in asked.path and "missions" not in asked.path and not listed.is_set():
            listed.set()
            send(store, client)

    proxy.fault = fault
    fetch(through, tmp_path / "back")
    assert listed.is_set()
    is_whole(tmp_path / "back", NORTH.id)
    assert fetch(client, tmp_path / "back") > 0
    is_whole(tmp_path / "back", NORTH.id, SOUTH.id)
