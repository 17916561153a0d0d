"""The client of a bucket, over a real S3 server and over a store in memory, with faults between."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.disk.media import object_path
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Unavailable
from store.format.ids import ObjectId
from store.installation import install_remedy
from store.remotes import bucket as bucket_module
from store.remotes.bucket import BucketClient, at_once, is_marker, parsed
from tests.support.s3 import ACCESS, BUCKET, SECRET, Proxy, Server, raw_put, uploads

SMALL = b"a shard of the map\n" * 40
LARGE = bytes(range(256)) * 1024 * 9 * 4 + b"the end"


@pytest.fixture(params=["s3", "memory"])
def either(request: pytest.FixtureRequest) -> BucketClient:
    if request.param == "s3":
        client: BucketClient = request.getfixturevalue("client")
        return client
    return BucketClient(pytest.importorskip("obstore.store").MemoryStore(), "s3://memory")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests as small as S3 takes parts."""
    monkeypatch.setattr(bucket_module, "PART", 5 * 2**20)


def put(client: BucketClient, data: bytes, source: bytes | None = None) -> str:
    """Put an object, whose source has other bytes where they are given. Return its name."""
    id_ = ObjectId.of(data)
    text = data if source is None else source

    def chunks() -> Iterator[bytes]:
        return (text[at : at + 2**20] for at in range(0, len(text), 2**20))

    client.put_object(object_path(id_), id_, len(data), chunks)
    return object_path(id_)


def read(client: BucketClient, name: str, size: int) -> bytes:
    return b"".join(client.chunks(name, size))


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_an_object_has_its_bytes_and_its_size(either: BucketClient, data: bytes, parts: None) -> None:
    name = put(either, data)
    assert [*either.names()] == [(name, len(data))]
    assert read(either, name, len(data)) == data
    assert either.look(name)[0] == len(data)
    into = bytearray(len(data))
    either.digest(name, ObjectId.of(data), len(data), into)
    assert into == data
    either.remove(name)
    either.remove(name)
    assert [*either.names()] == []


def test_a_small_file_is_made_once_and_replaced_by_who_has_read_it(either: BucketClient) -> None:
    assert either.create("missions/north", b"first")
    assert not either.create("missions/north", b"other")
    data, version = either.read("missions/north", 65)
    assert data == b"first"
    assert either.replace("missions/north", b"second", version)
    assert not either.replace("missions/north", b"third", version)
    assert not either.replace("missions/south", b"third", version)
    assert either.read("missions/north", 65)[0] == b"second"
    with pytest.raises(NotFound, match=r"/missions/south does not exist"):
        either.read("missions/south", 65)


def test_nothing_is_read_beyond_its_bound(either: BucketClient) -> None:
    either.create("log", b"x" * 100)
    assert either.read("log", 100)[0] == b"x" * 100
    with pytest.raises(Corrupt, match="more than 99 bytes") as error:
        either.read("log", 99)
    assert error.value.kind == "too-large"


@pytest.mark.parametrize(
    ("other", "kind"), [(SMALL[:-1], "truncated"), (SMALL + b"x", "oversized"), (b"A" + SMALL[1:], "bit-flip")]
)
def test_other_bytes_under_the_name_of_an_object_are_seen(either: BucketClient, other: bytes, kind: str) -> None:
    id_ = ObjectId.of(SMALL)
    either.create(object_path(id_), other)
    with pytest.raises(Corrupt) as error:
        either.digest(object_path(id_), id_, len(SMALL))
    assert (error.value.kind, error.value.object_id) == (kind, str(id_))


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_of_a_source_that_changed_nothing_becomes_visible(either: BucketClient, data: bytes, parts: None) -> None:
    with pytest.raises(Corrupt, match="the source of object") as error:
        put(either, data, data[:-1] + b"?")
    assert error.value.kind == "bit-flip"
    assert [*either.names()] == []


def test_an_upload_that_ended_early_leaves_no_parts(
    client: BucketClient, storage: Server, prefix: str, parts: None
) -> None:
    with pytest.raises(Corrupt):
        put(client, LARGE, LARGE[:-1] + b"?")
    assert uploads(storage, BUCKET, prefix) == 0
    assert put(client, LARGE)


def test_the_digest_of_the_storage_confirms_without_a_read(spoilt: tuple[BucketClient, Proxy], parts: None) -> None:
    client, proxy = spoilt
    put(client, SMALL)
    put(client, LARGE)
    assert "GET" not in {asked.method for asked in proxy.asked}


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_where_the_storage_names_no_digest_the_object_is_read_back(
    spoilt: tuple[BucketClient, Proxy], data: bytes, parts: None
) -> None:
    client, proxy = spoilt
    proxy.fault = lambda asked: "etag" if asked.method in ("PUT", "POST") and "partNumber" not in asked.path else None
    name = put(client, data)
    assert "GET" in {asked.method for asked in proxy.asked}
    assert read(client, name, len(data)) == data


def test_an_object_that_the_storage_has_with_other_bytes_each_time_is_removed(
    spoilt: tuple[BucketClient, Proxy],
) -> None:
    client, proxy = spoilt
    proxy.fault = lambda asked: {"PUT": "etag", "GET": "wrong"}.get(asked.method)
    with pytest.raises(Unavailable, match="stored other bytes of object") as error:
        put(client, SMALL)
    assert sum(asked.method == "PUT" for asked in proxy.asked) == 3
    assert error.value.kind == "unwritable"
    proxy.fault = lambda _: None
    assert [*client.names()] == []


def test_a_byte_that_changes_on_the_way_up_is_never_stored(spoilt: tuple[BucketClient, Proxy]) -> None:
    client, proxy = spoilt
    proxy.fault = lambda asked: "spoilt" if asked.method == "PUT" else None
    with pytest.raises(FlightbagError):
        put(client, SMALL)
    proxy.fault = lambda _: None
    assert (
        not [size for _, size in client.names()] or read(client, object_path(ObjectId.of(SMALL)), len(SMALL)) == SMALL
    )


@pytest.mark.parametrize("fault", ["500", "503", "drop", "slow", "lost"])
def test_a_fault_that_passes_is_not_seen(spoilt: tuple[BucketClient, Proxy], fault: str) -> None:
    client, proxy = spoilt
    proxy.fault = lambda asked: fault if asked.number == 0 else None
    name = put(client, SMALL)
    assert [*client.names()] == [(name, len(SMALL))]
    assert read(client, name, len(SMALL)) == SMALL


@pytest.mark.parametrize("fault", ["cut", "short", "wrong"])
def test_an_answer_that_is_not_whole_is_asked_for_again_or_refused(
    spoilt: tuple[BucketClient, Proxy], fault: str
) -> None:
    client, proxy = spoilt
    name = put(client, SMALL)
    proxy.fault = lambda asked: fault if asked.method == "GET" else None
    with pytest.raises((Corrupt, Unavailable)):
        client.digest(name, ObjectId.of(SMALL), len(SMALL))


@pytest.mark.parametrize("fault", ["500", "503", "drop"])
def test_a_storage_that_stays_away_is_an_error_that_says_so(spoilt: tuple[BucketClient, Proxy], fault: str) -> None:
    client, proxy = spoilt
    proxy.fault = lambda _: fault
    with pytest.raises(Unavailable, match=f"s3://{BUCKET}/.* cannot be written") as error:
        put(client, SMALL)
    assert (f"answered {fault}" if fault.isdigit() else "does not answer") in error.value.message
    assert "what arrived whole is not sent again" in error.value.remedy
    with pytest.raises(Unavailable, match="cannot be read"):
        [*client.names()]


@pytest.mark.parametrize("fault", ["500", "lost", "drop"])
@pytest.mark.parametrize("which", [("POST", 0), ("PUT", 1), ("POST", 1)], ids=["begin", "part", "end"])
def test_a_fault_in_an_upload_of_parts_that_passes_is_not_seen(
    spoilt: tuple[BucketClient, Proxy],
    storage: Server,
    prefix: str,
    parts: None,
    which: tuple[str, int],
    fault: str,
) -> None:
    client, proxy = spoilt
    proxy.fault = lambda asked: fault if (asked.method, asked.number) == which else None
    name = put(client, LARGE)
    assert [*client.names()] == [(name, len(LARGE))]
    client.digest(name, ObjectId.of(LARGE), len(LARGE))
    # Of an upload whose beginning nobody heard of, the rule of the bucket takes care (docs/buckets.md).
    assert uploads(storage, BUCKET, prefix) == (which == ("POST", 0) and fault == "lost")


def test_a_write_whose_answer_was_lost_is_no_write_of_somebody_else(spoilt: tuple[BucketClient, Proxy]) -> None:
    client, proxy = spoilt
    proxy.fault = lambda asked: "lost" if asked.method == "PUT" and asked.number == 0 else None
    # Whether the library asks again or gives up: the bytes are there, and who looks finds them.
    with suppress(Unavailable):
        assert client.create("missions/north", b"first") in (True, False)
    assert client.read("missions/north", 65)[0] == b"first"


def test_errors_name_the_bucket_and_what_to_set(storage: Server) -> None:
    def failing(store: object) -> FlightbagError:
        with pytest.raises(FlightbagError) as error:
            [*BucketClient(store, "s3://fleet/north").names()]  # type: ignore[arg-type]
        assert error.value.message.startswith("s3://fleet/north cannot be read: ")
        return error.value

    from obstore.store import S3Store

    here = {"endpoint": storage.endpoint, "region": "us-east-1", "retry_config": {"max_retries": 0}}
    http = {"client_options": {"allow_http": True, "timeout": "5s"}}
    keys = {"access_key_id": ACCESS, "secret_access_key": SECRET}
    assert "the bucket does not exist" in failing(S3Store("nowhere", **here, **http, **keys)).message
    refused = failing(S3Store(BUCKET, **here, **http, **{**keys, "secret_access_key": "another-secret"}))
    assert "the credentials are refused (SignatureDoesNotMatch)" in refused.message
    unknown = failing(S3Store(BUCKET, **here, **http, **{**keys, "access_key_id": "NOBODY"}))
    assert "the credentials are refused (InvalidAccessKeyId)" in unknown.message
    assert "AWS_ACCESS_KEY_ID" in unknown.remedy
    assert "AWS_ALLOW_HTTP=true" in failing(S3Store(BUCKET, **here, **keys)).remedy
    gone = failing(S3Store(BUCKET, **{**here, "endpoint": "http://127.0.0.1:1"}, **http, **keys))
    assert "AWS_ENDPOINT_URL and AWS_REGION" in gone.remedy
    none = failing(
        S3Store(BUCKET, **here, client_options={"allow_http": True, "timeout": "1s", "connect_timeout": "1s"})
    )
    assert "no credentials" in none.message
    for error in (refused, unknown, gone, none):
        assert SECRET not in repr((error, error.fields, error.__cause__, error.__context__))


def test_no_error_carries_the_text_of_the_library(storage: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    from obstore.store import S3Store

    store = S3Store(
        BUCKET,
        endpoint=storage.endpoint,
        region="us-east-1",
        access_key_id=ACCESS,
        secret_access_key="a-wrong-secret",
        client_options={"allow_http": True},
    )
    with pytest.raises(Unavailable) as error:
        BucketClient(store, "s3://fleet").read("log", 10)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
    assert "Signature=" not in str(error.value) + caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "s3://",
        "s3:///north",
        "s3://f/north",
        "s3://fleet//north",
        "s3://fleet/../other",
        "s3://fleet/./north",
        "s3://fleet/a%2fb",
        "s3://fleet/nor\nth",
        "s3://fleet/north?versionId=1",
        "s3://key:secret-words@fleet/north",
        "ftp://fleet/north",
        "s3://fleet/" + "n" * 300,
    ],
)
def test_what_is_no_address_of_a_bucket_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(Invalid) as error:
        parsed(text)
    assert "secret-words" not in str(error.value)
    assert "s3://BUCKET/PREFIX" in error.value.remedy


def test_an_address_is_told_without_its_slashes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    assert BucketClient.connect("s3://fleet/north/").name == "s3://fleet/north"
    assert BucketClient.connect("gs://fleet").name == "gs://fleet"
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(Unavailable, match="no credentials") as error:
        BucketClient.connect("az://fleet/north")
    assert "AZURE_STORAGE_ACCOUNT_NAME" in error.value.remedy


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(Unavailable, match="needs obstore") as error:
        BucketClient.connect("s3://fleet/north")
    assert (error.value.extra, error.value.remedy) == ("remotes", install_remedy("remotes"))


@pytest.mark.parametrize("name", ["missions/north\nnorth", "missions/\u202enorth"])
def test_a_name_that_no_path_could_be_fails_the_listing(client: BucketClient, storage: Server, name: str) -> None:
    prefix = client.name.removeprefix(f"s3://{BUCKET}/")
    raw_put(storage, BUCKET, f"{prefix}/{name}", b"?")
    with pytest.raises(Corrupt, match="a name that no path of a store could be") as error:
        [*client.names()]
    assert error.value.kind == "stray"
    assert not {"\n", "\x1b"} & set(error.value.message)


def test_empty_objects_in_the_place_of_folders_are_no_files() -> None:
    for name in ("", "missions", "objects", "objects/ab", "trust/releases"):
        assert is_marker(name, 0)
        assert not is_marker(name, 1)
    assert not any(is_marker(name, 0) for name in ("log", "missions/north", "objects/abc", "flightbag.toml"))


def test_tasks_run_a_few_at_a_time_and_the_first_error_ends_them() -> None:
    lock, running, most, begun = threading.Lock(), 0, 0, 0

    def task(number: int) -> int:
        nonlocal running, most, begun
        with lock:
            running, begun = running + 1, begun + 1
            most = max(most, running)
        if number == 20:
            raise Unavailable("stop")
        with lock:
            running -= 1
        return number

    assert at_once(lambda number: number * 2, range(100)) == [number * 2 for number in range(100)]
    with pytest.raises(Unavailable, match="stop"):
        at_once(task, range(3_000))
    assert most <= bucket_module.AT_ONCE
    assert begun < 3_000


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 50))
def test_the_digest_of_the_parts_is_that_of_s3(chunks: list[bytes], part: int) -> None:
    """The ETag of an upload in parts is the MD5 of the MD5s of its parts, and their number; else the MD5."""
    data = b"".join(chunks)
    sent = bucket_module._Sent(ObjectId.of(data), len(data), chunks)
    assert b"".join(sent) == data
    assert sent.is_confirmed(f'"{hashlib.md5(data).hexdigest()}"')
    sent = bucket_module._Sent(ObjectId.of(data), len(data), chunks)
    sent.part = part
    assert b"".join(sent) == data
    digests = [hashlib.md5(data[at : at + part]).digest() for at in range(0, len(data), part)]
    expected = f"{hashlib.md5(b''.join(digests)).hexdigest()}-{len(digests)}"
    assert sent.is_confirmed(f'"{expected}"') == bool(digests)
    assert not sent.is_confirmed(f'"{expected}1"')
    assert not sent.is_confirmed(None)


@given(st.text(), st.text(), st.text())
def test_an_address_is_one_or_is_refused(scheme: str, bucket: str, prefix: str) -> None:
    """Only an address that is made again of what was parsed is one."""
    text = f"{scheme}://{bucket}/{prefix}"
    try:
        scheme_, bucket_, segments = parsed(text)
    except Invalid:
        return
    assert f"{scheme_}://{'/'.join((bucket_, *segments))}" == text.rstrip("/")
