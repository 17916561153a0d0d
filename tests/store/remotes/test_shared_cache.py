"""A shared cache, over a folder and over a bucket: what holds comes; of every attack and fault on it the kind is told,
nothing of it is believed, and the next push puts it right."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from store.disk.media import object_path
from store.errors import Invalid, Unavailable, Untrusted
from store.format.built import AAD_LABEL, CONTENT_TYPE, FILE_LIMIT, Built
from store.format.ids import BuildKey, ObjectId
from store.format.result import AAD_LABEL as RESULT_LABEL
from store.format.result import CONTENT_TYPE as RESULT_TYPE
from store.ground.repository import Repository
from store.ground.writer import writing
from store.remotes import cache_folder, shared_cache
from store.remotes.bucket import BucketClient
from store.remotes.cache_folder import CacheFolder
from store.remotes.shared_cache import SharedCache, Shelf, Tally, shelf_of, signed_built
from store.trust.root import TrustRoot
from tests.store.remotes.conftest import plain
from tests.support import mounts
from tests.support.missions import NOW, ROOT, build_key, key, next_root, role, sign_payload
from tests.support.s3 import BUCKET, Asked, Proxy, Server

FLEET = next_root(ROOT, builder=role("orin"), epoch=3, issued_after=NOW)
OTHER_DOMAIN = next_root(replace(ROOT, salt=bytes(16)), builder=role("orin"), epoch=3)
KEY, OTHER = build_key("one"), build_key("another")
ENGINE, CARD = b"an engine " * 100, b"its card"


def built(of: BuildKey = KEY, *contents: bytes, **changes: Any) -> Built:
    objects = tuple((ObjectId.of(data), len(data)) for data in contents or (CARD, ENGINE))
    return replace(Built(of, objects, FLEET.epoch, NOW), **changes)


def signed(
    record: Built, *names: str, root: TrustRoot = FLEET, label: str = AAD_LABEL, kind: str = CONTENT_TYPE
) -> bytes:
    return sign_payload(record.render(), kind, root.aad(label), names or ("orin",))


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that has what it made: an engine and its card, and a shard."""
    path = tmp_path_factory.mktemp("station") / "store"
    Repository.init(path).close()
    with Repository.open(path) as repository, writing(repository) as writer, writer.inserting() as batch:
        for data in (ENGINE, CARD, b"a shard"):
            batch.add_bytes(data)
        batch.commit()
    return path


def push(shelf: Shelf, station: Path, *records: Built, before: tuple[BuildKey, ...] = ()) -> Tally:
    """Look for these keys, then push the records, as a station does."""
    cache = SharedCache(shelf, FLEET)
    cache.find(before)
    with Repository.open(station) as repository:
        cache.push([(one, signed(one)) for one in records], repository.media)
    return cache.tally


def pull(
    shelf: Shelf, path: Path, *keys: BuildKey, root: TrustRoot = FLEET, limit: int = 2**40
) -> tuple[set[BuildKey], Tally]:
    """Take what a cache has into a new store. Return the keys that came, whose objects are whole, and the tally."""
    cache = SharedCache(shelf, root)
    if not path.exists():
        Repository.init(path).close()
    with Repository.open(path) as repository, writing(repository) as writer:
        whole = cache.fetch(cache.find(keys or (KEY,)), dict.fromkeys(keys or (KEY,), limit), writer.inserting)
        for record in whole.values():
            for one in record.built.objects:
                writer.check_object(*one)
    return set(whole), cache.tally


class TestWhatHolds:
    @pytest.fixture(params=["folder", "bucket"])
    def shelf(self, request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
        if request.param == "folder":
            return CacheFolder(str(tmp_path / "cache"))
        return BucketClient(pytest.importorskip("obstore.store").MemoryStore(), "s3://memory")

    def test_comes_to_every_station(self, shelf: Shelf, station: Path, tmp_path: Path) -> None:
        assert pull(shelf, tmp_path / "empty")[1] == Tally()
        pushed = push(shelf, station, built(), built(OTHER, b"a shard"), before=(KEY, OTHER))
        assert (pushed.pushed, pushed.pushed_bytes, pushed.refused) == (2, len(ENGINE + CARD) + 7, {})
        whole, tally = pull(shelf, tmp_path / "new", KEY, OTHER, build_key("third"))
        assert whole == {KEY, OTHER}
        assert (tally.bytes, tally.refused, tally.down) == (len(ENGINE + CARD) + 7, {}, None)
        assert pull(shelf, tmp_path / "new", KEY)[1].bytes == 0  # it is there

    def test_of_many_keys_those_are_asked_for_that_the_listing_has(
        self, shelf: Shelf, station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shared_cache, "_LISTED_FROM", 3)
        push(shelf, station, built(), built(OTHER, b"a shard"))
        asked, read = [], shelf.read
        monkeypatch.setattr(shelf, "read", lambda name, limit: (asked.append(name), read(name, limit))[1])
        absent = [build_key(str(number)) for number in range(50)]
        assert pull(shelf, tmp_path / "new", KEY, *absent, OTHER)[0] == {KEY, OTHER}
        assert len(asked) == 2
        # A folder of many more names than are wanted is not listed to its end.
        monkeypatch.setattr(shared_cache, "_PAGE", 0)
        monkeypatch.setattr(shared_cache, "_NAMES_A_KEY", 0)
        assert pull(shelf, tmp_path / "new", KEY, *absent[:5], OTHER)[0] == {KEY, OTHER}
        assert len(asked) == 4

    def test_of_two_stations_that_push_at_once_one_record_stays(
        self, shelf: Shelf, station: Path, tmp_path: Path
    ) -> None:
        first, second = SharedCache(shelf, FLEET), SharedCache(shelf, FLEET)
        with Repository.open(station) as repository:
            for cache in (first, second):
                assert cache.find([KEY]) == {}
            other = built(KEY, b"a shard")
            first.push([(built(), signed(built()))], repository.media)
            second.push([(other, signed(other))], repository.media)
        assert (first.tally.pushed, second.tally.pushed) == (1, 0)
        assert pull(shelf, tmp_path / "new")[0] == {KEY}

    def test_domains_share_a_cache_and_see_nothing_of_each_other(
        self, shelf: Shelf, station: Path, tmp_path: Path
    ) -> None:
        push(shelf, station, built())
        whole, tally = pull(shelf, tmp_path / "new", root=OTHER_DOMAIN)
        assert (whole, tally.refused) == (set(), {})


# -- attacks: what somebody can do who writes to the cache


Attack = Callable[[Path, Path], None]


def record_of(cache: Path, of: BuildKey = KEY) -> Path:
    return cache / "built" / FLEET.domain_id.hex() / str(of)[:2] / str(of)


def object_of(cache: Path, data: bytes = ENGINE) -> Path:
    return cache / object_path(ObjectId.of(data))


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def record(data: bytes) -> Attack:
    return lambda cache, _: put(record_of(cache), data)


def changed(change: Callable[[bytes], bytes], path: Callable[[Path], Path] = record_of) -> Attack:
    return lambda cache, _: put(path(cache), change(path(cache).read_bytes()))


def instead(make: Callable[[Path, Path], object], path: Callable[[Path], Path] = record_of) -> Attack:
    """Put something else in the place of a file; `make` gets the place and the file as it was, elsewhere."""

    def attack(cache: Path, elsewhere: Path) -> None:
        shutil.move(path(cache), elsewhere / "as-it-was")
        make(path(cache), elsewhere / "as-it-was")

    return attack


def flipped(data: bytes, at: int = -1) -> bytes:
    place = at % len(data)
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


GOOD = signed(built())
LARGE = built(KEY, CARD, b"x")
ATTACKS: Mapping[str, tuple[str, Attack]] = {
    "a bit of the signature": ("bad-signature", changed(flipped)),
    "a bit of the payload": ("bad-signature", changed(lambda data: flipped(data, data.index(bytes(KEY))))),
    "a bit of the head": ("bad-record", changed(lambda data: flipped(data, 0))),
    "a truncated record": ("bad-record", changed(lambda data: data[:-1])),
    "an empty record": ("bad-record", record(b"")),
    "bytes after its end": ("bad-record", changed(lambda data: data + b"\0")),
    "an unsigned record": ("threshold", record(sign_payload(built().render(), CONTENT_TYPE, FLEET.aad(AAD_LABEL), ()))),
    "signed by a stranger": ("unknown-signer", record(signed(built(), "stranger"))),
    "signed by a stranger too": ("unknown-signer", record(signed(built(), "orin", "stranger"))),
    "signed by a mission key": ("wrong-role", record(signed(built(), "pilot"))),
    "the record of another key": ("other-key", record(signed(built(OTHER)))),
    "a record of the epoch before": ("wrong-epoch", record(signed(built(epoch=2)))),
    "a record of a time that counts no more": ("issued-too-early", record(signed(built(issued_at=NOW - 1)))),
    "a record of another domain": ("bad-signature", record(signed(built(), root=OTHER_DOMAIN))),
    "a result in its place": ("bad-record", record(signed(built(), kind=RESULT_TYPE, label=RESULT_LABEL))),
    "a signature for a result": ("bad-signature", record(signed(built(), label=RESULT_LABEL))),
    "a payload of another kind": (
        "bad-record",
        record(sign_payload(b"\xa0", CONTENT_TYPE, FLEET.aad(AAD_LABEL), ("orin",))),
    ),
    "a record that is too large": ("too-large", record(bytes(FILE_LIMIT + 1))),
    "a link to a record": ("wrong-type", instead(lambda place, old: place.symlink_to(old))),
    "a pipe": ("wrong-type", instead(lambda place, _: os.mkfifo(place))),
    "a folder": ("wrong-type", instead(lambda place, _: place.mkdir())),
    "no object": ("missing", lambda cache, _: object_of(cache).unlink()),
    "a truncated object": ("truncated", changed(lambda data: data[:-1], object_of)),
    "an object that is too long": ("oversized", changed(lambda data: data + b"x" * 2**20, object_of)),
    "a bit of an object": ("bit-flip", changed(flipped, object_of)),
    "another object under its name": ("truncated", lambda cache, _: put(object_of(cache), CARD)),
    "a pipe for an object": ("wrong-type", instead(lambda place, _: os.mkfifo(place), object_of)),
    "a link for an object": ("wrong-type", instead(lambda place, old: place.symlink_to(old), object_of)),
    "a record that makes an object smaller": (
        "oversized",
        record(signed(built(objects=((ObjectId.of(CARD), 3), (ObjectId.of(ENGINE), len(ENGINE)))))),
    ),
    "a record that makes an object larger": (
        "truncated",
        record(signed(built(objects=((ObjectId.of(CARD), 2**36), (ObjectId.of(ENGINE), len(ENGINE)))))),
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_by_its_kind_and_put_right(name: str, station: Path, tmp_path: Path) -> None:
    kind, attack = ATTACKS[name]
    cache, new = tmp_path / "cache", tmp_path / "new"
    push(CacheFolder(str(cache)), station, built())
    attack(cache, tmp_path)
    whole, tally = pull(CacheFolder(str(cache)), new)
    assert (whole, dict(tally.refused), tally.down) == (set(), {kind: 1}, None)
    assert tally.reasons
    # Whoever makes it again puts it there again; what is no record of anything, nobody of us removes.
    again = push(CacheFolder(str(cache)), station, built(), before=(KEY,))
    if kind == "wrong-type" and "object" not in name:
        assert (again.pushed, again.unpushed) == (0, 1)
        return
    assert again.pushed == 1
    assert pull(CacheFolder(str(cache)), tmp_path / "newer")[0] == {KEY}


def test_no_more_is_fetched_than_a_key_can_be_built_to(
    station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has a builder's key names objects of 64 GiB: no byte of them comes."""
    shelf, size = CacheFolder(str(tmp_path / "cache")), len(CARD + ENGINE)
    push(shelf, station, built(), built(OTHER, b"a shard"))
    asked, chunks = [], shelf.chunks
    monkeypatch.setattr(shelf, "chunks", lambda name, size: (asked.append(name), chunks(name, size))[1])
    whole, tally = pull(shelf, tmp_path / "new", KEY, OTHER, limit=size - 1)
    assert (whole, dict(tally.refused), tally.down) == ({OTHER}, {"too-large": 1}, None)
    assert f"{size} bytes, what it asks for at most {size - 1}" in tally.reasons[0]
    assert asked == [object_path(ObjectId.of(b"a shard"))]
    assert pull(shelf, tmp_path / "new", KEY, limit=size)[0] == {KEY}


def test_a_revoked_key_vouches_for_nothing(station: Path, tmp_path: Path) -> None:
    shelf = CacheFolder(str(tmp_path / "cache"))
    push(shelf, station, built())
    after = next_root(FLEET, builder=role("spare"), revoked=(key("orin").public,))
    whole, tally = pull(shelf, tmp_path / "new", root=after)
    assert (whole, dict(tally.refused)) == (set(), {"revoked-key": 1})


def test_two_signatures_where_the_role_needs_two(station: Path, tmp_path: Path) -> None:
    shelf, both = CacheFolder(str(tmp_path / "cache")), replace(FLEET, builder=role("orin", "spare", threshold=2))
    push(shelf, station, built())
    assert dict(pull(shelf, tmp_path / "new", root=both)[1].refused) == {"threshold": 1}
    assert signed_built(built(), [key("orin"), key("spare")], both)
    with pytest.raises(Untrusted, match="1 of 2"):
        signed_built(built(), [key("orin")], both)
    with pytest.raises(Untrusted, match="not in the role builder"):
        signed_built(built(), [key("pilot")], both)


def test_a_record_counts_only_with_every_object(station: Path, tmp_path: Path) -> None:
    """A push that ended early leaves objects, which say nothing; a record is never there before they are."""
    order: list[str] = []
    shelf = CacheFolder(str(tmp_path / "cache"))
    real = shelf._disk.rename, shelf._disk.link
    shelf._disk.rename = lambda a, b: (order.append(os.path.relpath(b, shelf.name)), real[0](a, b))[1]  # type: ignore[method-assign]
    shelf._disk.link = lambda a, b: (order.append(os.path.relpath(b, shelf.name)), real[1](a, b))[1]  # type: ignore[method-assign]
    push(shelf, station, built())
    assert [one.split("/")[0] for one in order] == ["objects", "objects", "built"]
    for stop in range(3):
        cache = CacheFolder(str(tmp_path / f"stopped-{stop}"))
        count = iter(range(9))

        def stopping(real: Callable[[str, str], None], stop: int = stop, count: Iterator[int] = count) -> Any:
            def call(source: str, target: str) -> None:
                if next(count) >= stop:
                    raise Unavailable("the station lost its power", kind="unwritable")
                real(source, target)

            return call

        cache._disk.rename, cache._disk.link = stopping(cache._disk.rename), stopping(cache._disk.link)  # type: ignore[method-assign]
        assert push(cache, station, built()).pushed == 0
        assert pull(CacheFolder(cache.name), tmp_path / f"new-{stop}")[0] == set()
        assert push(CacheFolder(cache.name), station, built()).pushed == 1
        assert pull(CacheFolder(cache.name), tmp_path / f"new-{stop}")[0] == {KEY}


def test_what_nobody_finished_goes_after_a_day(station: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "tmp").mkdir(parents=True)
    for name, age in (("old", 86500), ("young", 10)):
        (cache / "tmp" / name).write_bytes(b"x")
        os.utime(cache / "tmp" / name, (time.time() - age,) * 2)
    push(CacheFolder(str(cache)), station, built())
    assert [one.name for one in (cache / "tmp").iterdir()] == ["young"]


def test_a_folder_that_cannot_be_written_is_named(station: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    shelf = CacheFolder(str(tmp_path / "file" / "cache"))
    with pytest.raises(Unavailable, match="cannot be written") as error:
        shelf.create("built/x", b"")
    assert "leave --builder-key out" in error.value.remedy
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "objects").write_bytes(b"")
    assert push(CacheFolder(str(tmp_path / "cache")), station, built()).unpushed == 1


def test_a_store_is_no_cache(station: Path, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="is a store, and no shared cache") as error:
        pull(CacheFolder(str(station)), tmp_path / "new")
    assert error.value.remedy
    with pytest.raises(Invalid, match="lies in a folder or in a bucket"):
        shelf_of("crew@hangar:cache")
    assert isinstance(shelf_of(str(tmp_path)), CacheFolder)


# -- faults: a cache that answers badly, or not at all


@contextmanager
def black_hole() -> Iterator[str]:
    """An address at which connections open and nothing is ever said."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_cache_that_never_answers_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore")
    monkeypatch.setattr(shared_cache, "_FIRST_S", 0.2)
    with black_hole() as endpoint:
        client = BucketClient(plain(endpoint, retries=0), "s3://fleet/cache")
        whole, tally = pull(client, tmp_path / "new", *(build_key(str(number)) for number in range(1000)))
    assert (whole, dict(tally.refused)) == (set(), {})
    assert tally.down is not None
    assert "has not answered" in str(tally.down)


def test_a_folder_that_never_answers_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a network mount whose server went."""
    monkeypatch.setattr(shared_cache, "_FIRST_S", 0.2)
    shelf, gone = CacheFolder(str(tmp_path / "cache")), threading.Event()
    monkeypatch.setattr(shelf, "look", lambda _: gone.wait(30))
    tally = pull(shelf, tmp_path / "new")[1]
    gone.set()
    assert tally.down is not None


class TestAMountThatDies:
    """In the middle: whoever waits for it goes on without it, and leaves a thread behind that waits for ever."""

    @pytest.fixture
    def dead(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
        """The mount lives again when this is set."""
        monkeypatch.setattr(cache_folder, "_SILENCE_S", 0.3)
        event = threading.Event()
        yield event
        event.set()

    @pytest.mark.parametrize("call", ["read", "chunks", "names", "stamp"])
    def test_while_it_gives(
        self, call: str, dead: threading.Event, station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shelf = CacheFolder(str(tmp_path / "cache"))
        keys = [build_key(str(number)) for number in range(20)]
        push(shelf, station, *(built(one) for one in keys))
        if call == "names":
            monkeypatch.setattr(shared_cache, "_LISTED_FROM", 3)
        asked: list[str] = []

        def hanging(name: str, *_: object) -> Any:
            asked.append(name)
            dead.wait()
            raise Unavailable("it was away", kind="unreadable")

        def hanging_later(name: str, *_: object) -> Iterator[bytes]:
            yield b"an engine "
            hanging(name)

        shelf.look(object_path(ObjectId.of(ENGINE)))  # it is open
        after_first = SharedCache(shelf, FLEET)
        assert after_first._answers()
        monkeypatch.setattr(shelf._opened, call, hanging_later if call == "chunks" else hanging)
        if call == "stamp":
            put(tmp_path / "cache" / object_path(ObjectId.of(ENGINE)), b"short")  # its size is looked at
        Repository.init(tmp_path / "new").close()
        with Repository.open(tmp_path / "new") as repository, writing(repository) as writer:
            found = after_first.find(keys)
            whole = after_first.fetch(found, dict.fromkeys(found, 2**40), writer.inserting)
        assert whole == {}
        assert "has not answered for 0.3 s" in str(after_first.tally.down or shelf._silent)
        count = len(asked)
        assert count <= 32
        with pytest.raises(Unavailable, match="has not answered"):
            shelf.look("anything")
        assert len(asked) == count  # nothing more is asked

    @pytest.mark.parametrize("call", ["write", "rename", "create", "link"])
    def test_while_it_takes(
        self, call: str, dead: threading.Event, station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shelf = CacheFolder(str(tmp_path / "cache"))

        def hanging(*_: object) -> Any:
            dead.wait()
            raise Unavailable("it was away", kind="unwritable")

        monkeypatch.setattr(shelf._disk, call, hanging)
        tally = push(shelf, station, *(built(build_key(str(number))) for number in range(20)))
        assert (tally.pushed, tally.unpushed) == (0, 20)
        assert "has not answered" in str(tally.down)

    def test_slow_is_not_dead(
        self, dead: threading.Event, station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An object that takes longer than the silence that is allowed, and comes piece by piece."""
        data = os.urandom(2**20)
        shelf = CacheFolder(str(tmp_path / "cache"))
        monkeypatch.setattr(cache_folder, "_SILENCE_S", 5.0)

        def pieces() -> Iterator[bytes]:
            for at in range(0, len(data), 2**16):
                time.sleep(0.4)
                yield data[at : at + 2**16]

        shelf.put_object("objects/x", ObjectId.of(data), len(data), pieces)
        assert (tmp_path / "cache/objects/x").read_bytes() == data


def test_a_real_mount_that_dies_holds_no_build(station: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver stops: each call on it waits in the kernel, where nothing interrupts it."""
    image = mounts.exfat(tmp_path / "medium")
    monkeypatch.setattr(cache_folder, "_SILENCE_S", 0.5)
    with image.mounted() as point, ExitStack() as opened:

        def shelf() -> CacheFolder:
            one = CacheFolder(str(point / "cache"))
            opened.callback(lambda: one._opened.close() if one._opened is not None else None)
            return one

        assert push(shelf(), station, built()).pushed == 1
        dying = shelf()
        cache = SharedCache(dying, FLEET)
        assert cache._answers()
        others = set(threading.enumerate())
        with mounts.stopped(point):
            assert cache.find([OTHER]) == {}
            with Repository.open(station) as repository:
                cache.push([(built(OTHER), signed(built(OTHER)))], repository.media)
            assert cache.tally.unpushed == 1
            assert "has not answered" in str(dying._silent)
        left_behind = set(threading.enumerate()) - others
        assert left_behind
        for thread in left_behind:  # they end, now that the mount answers, and have files of it open until then
            thread.join()
        assert pull(shelf(), tmp_path / "new")[0] == {KEY}


def test_after_three_failures_in_a_row_nothing_more_is_asked(station: Path, tmp_path: Path) -> None:
    shelf = CacheFolder(str(tmp_path / "cache"))
    keys = [build_key(str(number)) for number in range(200)]
    push(shelf, station, *(built(one) for one in keys))
    asked = []

    def failing(name: str, _limit: int) -> Any:
        asked.append(name)
        raise Unavailable("the storage answered 503", kind="unreadable")

    shelf.read = failing  # type: ignore[method-assign]
    whole, tally = pull(shelf, tmp_path / "new", *keys)
    assert (whole, str(tally.down)) == (set(), "the storage answered 503")
    assert len(asked) < 3 + 32  # those that were on their way
    assert sum(tally.refused.values()) <= 3


# What happens between a station and the server, and the kinds that are told of a look-up then; without any, all comes.
FAULTS: Mapping[str, tuple[set[str], Callable[[Asked], str | None]]] = {
    "slow": (set(), lambda _: "slow"),
    "cut once": (set(), lambda asked: "cut" if asked.method == "GET" and asked.number == 1 else None),
    "dropped once": (set(), lambda asked: "drop" if asked.number == 1 else None),
    "500 once": (set(), lambda asked: "500" if asked.method == "GET" and asked.number == 0 else None),
    "a bit of each record": (
        {"bad-signature", "bad-record"},
        lambda asked: "wrong" if "/built/" in asked.path else None,
    ),
    "half of each record": ({"bad-record"}, lambda asked: "short" if "/built/" in asked.path else None),
    "a bit of each object": ({"bit-flip"}, lambda asked: "wrong" if "/objects/" in asked.path else None),
    "half of each object": ({"bit-flip", "truncated"}, lambda asked: "short" if "/objects/" in asked.path else None),
    "denied": ({"down"}, lambda _: "403"),
    "always 500": ({"down"}, lambda _: "500"),
    "always dropped": ({"down"}, lambda _: "drop"),
    "objects always 500": ({"unreadable", "down"}, lambda asked: "500" if "/objects/" in asked.path else None),
}


def test_faults_between_a_station_and_a_real_server(
    storage: Server, spoilt: tuple[BucketClient, Proxy], prefix: str, station: Path, tmp_path: Path
) -> None:
    through, proxy = spoilt
    straight = BucketClient(plain(storage.endpoint, prefix), f"s3://{BUCKET}/{prefix}")
    assert push(straight, station, built(), built(OTHER, b"a shard"), before=(KEY, OTHER)).pushed == 2
    for number, (name, (kinds, fault)) in enumerate(FAULTS.items()):
        proxy.asked.clear()
        proxy.fault = fault
        whole, tally = pull(through, tmp_path / str(number), KEY, OTHER)
        told = set(tally.refused) | ({"down"} if tally.down is not None else set())
        assert told <= kinds, name
        assert bool(told) == bool(kinds), name
        assert whole == (set() if kinds else {KEY, OTHER}), name
    # A push: a byte that changes on its way is found before the record is there, and one that got lost is no error.
    for number, (name, fault, arrives) in enumerate(
        (
            ("spoilt", lambda asked: "spoilt" if "/objects/" in asked.path and asked.method == "PUT" else None, False),
            ("denied", lambda asked: "403" if asked.method == "PUT" else None, False),
            ("lost", lambda asked: "lost" if asked.method == "PUT" and asked.number == 0 else None, True),
        )
    ):
        of = build_key(f"pushed {name}")
        proxy.asked.clear()
        proxy.fault = fault
        push(through, station, built(of), before=(of,))
        proxy.fault = lambda _: None
        assert (pull(straight, tmp_path / f"after-{number}", of)[0] == {of}) == arrives, name
