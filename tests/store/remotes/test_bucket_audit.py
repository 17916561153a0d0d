"""The audit of a store in a bucket finds what that of its copy in a folder finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from store.audit.fsck import Audit
from store.audit.scope import FULL, QUICK, Scope
from store.disk.media import object_path
from store.errors import Corrupt, NoStore, Unavailable
from store.ground.repository import Repository
from store.remotes import bucket_audit
from store.remotes.bucket import BucketClient
from store.remotes.bucket_audit import fsck_bucket
from store.remotes.bucket_store import push
from tests.store.remotes.test_bucket_store import copied_down
from tests.support.s3 import BUCKET, Proxy, Server, raw_put
from tests.support.stores import NORTH, SHARD, SOUTH, audit, make_store

ENGINE_PATH = object_path(NORTH.entry("engines/net/net.onnx").id)
SHARD_PATH = object_path(NORTH.entry(SHARD).id)
TABLE_PATH = object_path(NORTH.manifest.table)
MANIFEST_PATH = object_path(NORTH.manifest_id)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("ground") / "store")


def send(ground: Path, client: BucketClient, *, checksum: bool = False) -> None:
    with Repository.open(ground) as store:
        push(store, client, checksum=checksum)


def kinds(found: Audit) -> list[tuple[str, str, tuple[str, ...], str]]:
    """What an audit found, but for its words, and for the index that a bucket has not."""
    return sorted(
        (one.kind, one.object, one.missions, one.entry)
        for one in found.findings
        if one.kind not in ("file-only", "index-only")
    )


def replaced(client: BucketClient, name: str, change: Callable[[bytes], bytes]) -> None:
    data = client.read(name, 2**20)[0]
    client.remove(name)
    client.create(name, change(data))


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def test_a_whole_store_has_no_findings(client: BucketClient, ground: Path) -> None:
    send(ground, client)
    full, quick = fsck_bucket(client, FULL), fsck_bucket(client)
    assert not full.findings
    assert full.missions == {NORTH.id: "flyable", SOUTH.id: "flyable"}
    assert full.unread == 0
    assert quick.missions == {NORTH.id: "not-read", SOUTH.id: "not-read"}
    assert quick.read_objects == 0
    assert fsck_bucket(client, Scope(mission=NORTH.id)).missions == {NORTH.id: "not-read"}
    assert not fsck_bucket(client, Scope("full", exclusive=True)).errors


DAMAGES: dict[str, Callable[[BucketClient], None]] = {
    "missing": lambda client: client.remove(SHARD_PATH),
    "truncated": lambda client: replaced(client, SHARD_PATH, lambda data: data[:-1]),
    "oversized": lambda client: replaced(client, SHARD_PATH, lambda data: data + b"x"),
    "bit-flip": lambda client: replaced(client, ENGINE_PATH, flipped),
    "a table": lambda client: replaced(client, TABLE_PATH, flipped),
    "a manifest": lambda client: replaced(client, MANIFEST_PATH, flipped),
    "a manifest that is gone": lambda client: client.remove(MANIFEST_PATH),
    "a ref": lambda client: replaced(client, f"missions/{NORTH.id}", lambda _: b"no ref"),
    "a ref to another mission": lambda client: replaced(
        client, f"missions/{NORTH.id}", lambda _: f"{SOUTH.manifest_id}\n".encode()
    ),
    "a ref that is gone": lambda client: client.remove(f"missions/{NORTH.id}"),
    "a root": lambda client: replaced(client, "trust/1.root.cbor", flipped),
    "a root that is gone": lambda client: client.remove("trust/1.root.cbor"),
    "a log": lambda client: replaced(client, "log", flipped),
    "a log that is gone": lambda client: client.remove("log"),
    "a log that lacks lines": lambda client: replaced(client, "log", lambda data: data[: data.index(b"\n") + 1]),
    "strays": lambda client: [client.create(f"missions/{name}", b"") for name in ("UPPER", "x.txt")] and None,
    "a shard in upper case": lambda client: client.create("objects/AB/x", b"") and None,
    "all of them": lambda client: [client.remove(name) for name, _ in client.names("objects")] and None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_findings_are_those_of_a_copy_in_a_folder(
    client: BucketClient, ground: Path, tmp_path: Path, damage: str
) -> None:
    send(ground, client)
    DAMAGES[damage](client)
    copy = copied_down(client, tmp_path / "copy")
    for folder in ("missions", "objects", "trust"):  # a copy of nothing makes no folder
        (copy / folder).mkdir(exist_ok=True)
    for full in (False, True):
        there, here = audit(copy, full=full), fsck_bucket(client, FULL if full else QUICK)
        assert kinds(here) == kinds(there)
        assert here.missions == there.missions
        assert (here.objects, here.bytes, here.errors) == (there.objects, there.bytes, there.errors)
        assert all(one.path.startswith(client.name) for one in here.findings if one.path)
        assert not any("--repair" in one.remedy for one in here.findings)


@pytest.mark.parametrize(
    "damage", [name for name in DAMAGES if name not in ("strays", "a shard in upper case") and "log" not in name]
)
def test_the_remedy_mends(client: BucketClient, ground: Path, damage: str) -> None:
    send(ground, client)
    DAMAGES[damage](client)
    found = fsck_bucket(client, FULL)
    if damage != "a ref that is gone":
        assert found.errors
    assert {one.remedy for one in found.findings} & {
        f"run `flightbag sync --checksum STORE {client.name}` from a store that has it whole"
    }
    send(ground, client, checksum=True)
    assert not fsck_bucket(client, FULL).errors


@pytest.mark.parametrize("fault", ["500", "drop"])
def test_what_cannot_be_looked_at_is_no_success(spoilt: tuple[BucketClient, Proxy], ground: Path, fault: str) -> None:
    client, proxy = spoilt
    send(ground, client)
    proxy.fault = lambda asked: fault if "list-type" in asked.path else None
    with pytest.raises(Unavailable):
        fsck_bucket(client)
    proxy.fault = lambda asked: fault if asked.path.endswith(SHARD_PATH) else None
    found = fsck_bucket(client, FULL)
    assert found.inconclusive
    assert [one.kind for one in found.findings] == ["unreadable"]
    assert found.missions == {NORTH.id: "grounded", SOUTH.id: "grounded"}


def test_wrong_bytes_on_the_way_once_are_transient(spoilt: tuple[BucketClient, Proxy], ground: Path) -> None:
    client, proxy = spoilt
    send(ground, client)
    seen: list[str] = []

    def fault(asked: object) -> str | None:
        path = asked.path  # type: ignore[attr-defined]
        seen.append(path)
        return "wrong" if path.endswith(SHARD_PATH) and sum(one.endswith(SHARD_PATH) for one in seen) == 1 else None

    proxy.fault = fault
    assert [one.kind for one in fsck_bucket(client, FULL).findings] == ["transient"]


def test_a_prefix_without_a_store_is_none(client: BucketClient) -> None:
    with pytest.raises(NoStore, match=r"has no flightbag\.toml"):
        fsck_bucket(client)
    client.create("flightbag.toml", b"format = 2\n")
    with pytest.raises(NoStore) as error:
        fsck_bucket(client)
    assert error.value.kind in ("other-format", "bad-store")


def test_a_name_that_no_path_could_be_stops_the_audit(client: BucketClient, storage: Server, ground: Path) -> None:
    send(ground, client)
    raw_put(storage, BUCKET, f"{client.name.removeprefix(f's3://{BUCKET}/')}/missions/a\nb", b"")
    with pytest.raises(Corrupt, match="no path of a store could be"):
        fsck_bucket(client)


def test_a_crowded_folder_is_not_listed_and_what_is_needed_is_asked_for(
    client: BucketClient, ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(ground, client)
    shard = SHARD_PATH[:10]
    for number in range(3):
        client.create(f"{shard}/{number:062x}", b"")
    monkeypatch.setattr(bucket_audit, "SHARD_LIMIT", 2)
    monkeypatch.setattr("store.audit.objects.SHARD_LIMIT", 2)
    found = fsck_bucket(client)
    assert "too-many" in {one.kind for one in found.findings}
    assert found.missions == {NORTH.id: "not-read", SOUTH.id: "not-read"}


def test_a_listing_without_end_is_refused(client: BucketClient, ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send(ground, client)
    monkeypatch.setattr(bucket_audit, "_OTHERS", 10)
    with pytest.raises(Unavailable, match="more than 10 names"):
        fsck_bucket(client)
