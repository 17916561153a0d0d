"""Reading without trusting: types, links, bounds, growth, bad sectors, memory."""

from __future__ import annotations

import errno
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from store.disk.media import CHUNK, Media, object_path
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Unavailable
from store.format.ids import ObjectId
from store.takeoff.evidence import StoreEvidence
from tests.support.opens import make_socket
from tests.support.stores import NORTH, check, make_store

DATA = b"an object"
ID = ObjectId.of(DATA)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder with one object, a ref and a root file; what they say does not matter here."""
    store = tmp_path / "store"
    for name, data in ((object_path(ID), DATA), ("missions/m", b"ref"), ("trust/1.root.cbor", b"root")):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(data)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(DATA)
    return store


def link_to_file(path: Path) -> None:
    path.symlink_to(path.parents[len(path.relative_to(store_of(path)).parts)] / "outside" / "file")


def store_of(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "store")


def device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 7))  # /dev/full
    except PermissionError:
        pytest.skip("only root makes device files")


IN_PLACE: dict[str, Callable[[Path], object]] = {
    "symlink": link_to_file,
    "symlink to nowhere": lambda path: path.symlink_to("/nowhere/at/all"),
    "fifo": os.mkfifo,
    "socket": make_socket,
    "directory": os.mkdir,
    "device": device,
}


@pytest.mark.parametrize("thing", IN_PLACE)
@pytest.mark.parametrize("name", [object_path(ID), "missions/m", "trust/1.root.cbor"])
def test_another_thing_in_the_place_of_a_file_is_a_finding_never_a_detour(store: Path, name: str, thing: str) -> None:
    (store / name).unlink()
    IN_PLACE[thing](store / name)
    with Media(store) as media:
        looks: list[Callable[[], object]] = [lambda: media.read(name, 100), lambda: media.stamp(name)]
        if name == object_path(ID):
            looks.append(lambda: media.digest(ID, len(DATA)))
        for look in looks:
            with pytest.raises(Corrupt) as caught:
                look()
            assert caught.value.fields["kind"] == "wrong-type"
        assert media.file_type(name) == thing.split()[0]


@pytest.mark.parametrize("thing", ["symlink", "file", "fifo"])
@pytest.mark.parametrize("folder", [os.path.dirname(object_path(ID)), "objects"])
def test_another_thing_in_the_place_of_a_directory_is_a_finding(
    store: Path, tmp_path: Path, folder: str, thing: str
) -> None:
    elsewhere = tmp_path / "outside" / "moved"
    (store / folder).rename(elsewhere)
    if thing == "symlink":
        (store / folder).symlink_to(elsewhere)
    elif thing == "file":
        (store / folder).write_bytes(b"")
    else:
        os.mkfifo(store / folder)
    with Media(store) as media:
        for look in (lambda: media.digest(ID, len(DATA)), lambda: media.names(folder)):
            with pytest.raises(Corrupt) as caught:
                look()
            assert caught.value.fields["kind"] == "wrong-type"


def test_the_path_of_the_store_itself_may_be_a_link(store: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store)
    with Media(tmp_path / "link") as media:
        assert media.read("missions/m", 10) == b"ref"


@pytest.mark.parametrize(
    "name", ["missions/../../outside/file", "missions/..", "..", "", "missions/.", "missions/a\0b"]
)
def test_a_name_cannot_climb_out_of_the_store(store: Path, name: str) -> None:
    with Media(store) as media:
        for look in (media.stamp, media.file_type, lambda name: media.read(name, 100)):
            with pytest.raises(Invalid):
                look(name)


@pytest.mark.parametrize("mission", ["../../outside/file", "..", "a\0b", "North", "", "x" * 65])
def test_a_mission_of_an_impossible_name_is_not_found(store: Path, mission: str) -> None:
    with Media(store) as media, pytest.raises(NotFound):
        StoreEvidence(media).ref(mission)


def test_absent_is_not_found(store: Path) -> None:
    with Media(store) as media:
        with pytest.raises(NotFound):
            media.read("missions/other", 10)
        with pytest.raises(NotFound):
            media.digest(ObjectId.of(b"absent"), 6)
        assert media.names_if_there("nothing") == []
    with pytest.raises(NotFound):
        Media(store / "nowhere")


class TestLacking:
    """Law: an object lacks unless its stamp can be taken and has its size."""

    def test_whole_missing_other_size_other_thing_and_no_shard(self, store: Path, tmp_path: Path) -> None:
        whole, absent, short, linked = (ObjectId.of(bytes([n])) for n in range(4))
        for id_, size in ((whole, 7), (short, 3)):
            (path := store / object_path(id_)).parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(size))
        (path := store / object_path(linked)).parent.mkdir(exist_ok=True)
        (tmp_path / "elsewhere").write_bytes(bytes(7))
        path.symlink_to(tmp_path / "elsewhere")
        objects = [(id_, 7) for id_ in (linked, whole, absent, short)]
        with Media(store) as media:
            assert media.lacking(iter(objects)) == [(id_, 7) for id_ in (linked, absent, short)]
            assert media.lacking([]) == []

    def test_a_link_or_a_file_in_the_place_of_a_shard_has_no_objects(self, store: Path, tmp_path: Path) -> None:
        id_ = ObjectId.of(b"one")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / str(id_)[2:]).write_bytes(b"one")
        shard = (store / object_path(id_)).parent
        shard.parent.mkdir(exist_ok=True)
        shard.symlink_to(tmp_path / "elsewhere")
        with Media(store) as media:
            assert media.lacking([(id_, 3)]) == [(id_, 3)]
        shard.unlink()
        shard.write_bytes(b"")
        with Media(store) as media:
            assert media.lacking([(id_, 3)]) == [(id_, 3)]

    def test_a_look_that_fails_is_not_an_absence(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        id_ = ObjectId.of(b"one")
        (store / object_path(id_)).parent.mkdir(parents=True, exist_ok=True)

        def broken(*_: object, **__: object) -> None:
            raise OSError(errno.EIO, "bad sector")

        with Media(store) as media:
            media.directory(f"objects/{str(id_)[:2]}")
            monkeypatch.setattr(os, "stat", broken)
            with pytest.raises(Unavailable) as caught:
                media.lacking([(id_, 3)])
        assert caught.value.errno == errno.EIO


class TestVacant:
    OTHER = ObjectId(bytes([ID[0]]) + bytes(31))

    def test_nothing_in_the_place_and_no_shard(self, store: Path) -> None:
        with Media(store) as media:
            for used in (False, True):  # before the folder of the shard was opened, and after
                assert media.vacant(ObjectId(bytes([ID[0] ^ 1]) + bytes(31)))
                assert not media.vacant(ID)
                assert media.vacant(self.OTHER) == used  # unopened, the folder may hold anything
                media.stamp(object_path(ID))

    @pytest.mark.parametrize("thing", ["a folder", "a link to nowhere", "a FIFO"])
    def test_whatever_lies_there_lies_there(self, store: Path, thing: str) -> None:
        path = store / object_path(self.OTHER)
        if thing == "a folder":
            path.mkdir()
        elif thing == "a link to nowhere":
            path.symlink_to("/nowhere")
        else:
            os.mkfifo(path)
        with Media(store) as media:
            media.stamp(object_path(ID))
            assert not media.vacant(self.OTHER)

    def test_a_link_in_the_place_of_a_shard_is_not_followed(self, store: Path, tmp_path: Path) -> None:
        """Nothing lies where it leads to, and still it has to be moved before an object is put there."""
        (store / "objects" / "00").symlink_to(tmp_path / "outside")
        with Media(store) as media:
            assert not media.vacant(ObjectId(bytes(32)))

    def test_a_look_that_fails_is_not_an_absence(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with Media(store) as media:
            media.stamp(object_path(ID))

            def failing(*_: object, **__: object) -> None:
                raise OSError(errno.EIO, "bad sector")

            monkeypatch.setattr(os, "stat", failing)
            assert not media.vacant(self.OTHER)


class TestShardState:
    def test_it_changes_with_a_name_that_comes_or_goes_and_not_with_a_look(self, store: Path) -> None:
        shard = store / "objects" / "ab"
        with Media(store) as media:
            states = [media.shard_state(0xAB)]
        for change in (
            lambda: shard.mkdir(parents=True),
            lambda: (shard / "one").touch(),
            lambda: (shard / "one").rename(shard / "two"),
            lambda: (shard / "two").unlink(),
        ):
            change()
            with Media(store) as media:
                states.append(media.shard_state(0xAB))
                assert media.shard_state(0xAB) == states[-1]
        assert len({state.digest for state in states if state is not None}) == 5

    def test_one_of_too_many_names_has_none(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("store.disk.media.SHARD_LIMIT", 2)
        (shard := store / "objects" / "ab").mkdir(parents=True)
        for number in range(3):
            (shard / f"{number}").touch()
        with Media(store) as media:
            assert media.shard_state(0xAB) is None


class TestDigest:
    @pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
    @pytest.mark.parametrize("keep", [False, True])
    def test_hashes_and_keeps_exactly_the_bytes(self, store: Path, size: int, keep: bool) -> None:
        data = bytes(range(251)) * (size // 251 + 1)
        data = data[:size]
        id_ = ObjectId.of(data)
        (store / object_path(id_)).parent.mkdir(exist_ok=True)
        (store / object_path(id_)).write_bytes(data)
        into = bytearray(size) if keep else None
        told: list[int] = []
        with Media(store) as media:
            stamp = media.digest(id_, size, into=into, progress=told.append)
            assert stamp == media.stamp(object_path(id_))
        assert into is None or bytes(into) == data
        assert sum(told) == size
        assert max(told, default=0) <= CHUNK

    @pytest.mark.parametrize(("change", "kind"), [(-1, "oversized"), (1, "truncated"), (10**9, "truncated")])
    def test_another_size_is_told_without_reading(
        self, store: Path, monkeypatch: pytest.MonkeyPatch, change: int, kind: str
    ) -> None:
        def never(*_: object) -> int:
            raise AssertionError("read")

        monkeypatch.setattr(os, "readv", never)
        with Media(store) as media, pytest.raises(Corrupt) as caught:
            media.digest(ID, len(DATA) + change)
        error = caught.value.fields
        assert (error["kind"], error["object"]) == (kind, ID)
        assert (error["expected"], error["actual"]) == (len(DATA) + change, len(DATA))

    @given(at=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
    def test_any_flipped_bit_is_found(self, tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
        store = tmp_path_factory.mktemp("flip")
        path = store / object_path(ID)
        path.parent.mkdir(parents=True)
        path.write_bytes(DATA[:at] + bytes([DATA[at] ^ 1 << bit]) + DATA[at + 1 :])
        with Media(store) as media, pytest.raises(Corrupt) as caught:
            media.digest(ID, len(DATA))
        assert caught.value.fields["kind"] == "bit-flip"
        assert caught.value.fields["expected"] == str(ID)
        assert caught.value.fields["actual"] == str(ObjectId.of(path.read_bytes()))

    @pytest.mark.parametrize(("change", "kind"), [(b"more", "oversized"), (b"", "truncated")])
    def test_a_file_that_changes_size_while_it_is_read_is_found(
        self, store: Path, monkeypatch: pytest.MonkeyPatch, change: bytes, kind: str
    ) -> None:
        path = store / object_path(ID)

        def changing(real: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object) -> object:
                if change:
                    with path.open("ab") as file:
                        file.write(change)
                else:
                    os.truncate(path, 3)
                return real(*arguments)

            return call

        for name in ("read", "readv"):
            monkeypatch.setattr(os, name, changing(getattr(os, name)))
        with Media(store) as media, pytest.raises(Corrupt) as caught:
            media.digest(ID, len(DATA))
        assert caught.value.fields["kind"] == kind

    def test_short_reads_are_no_damage(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read, readv = os.read, os.readv
        monkeypatch.setattr(os, "read", lambda fd, count: read(fd, min(count, 2)))
        monkeypatch.setattr(os, "readv", lambda fd, buffers: readv(fd, [buffers[0][:2]]))
        into = bytearray(len(DATA))
        with Media(store) as media:
            media.digest(ID, len(DATA), into=into)
            media.digest(ID, len(DATA))
        assert into == DATA

    @pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM, errno.ESTALE])
    def test_a_bad_sector_is_unreadable_not_damage(
        self, store: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        def bad(*arguments: object) -> int:
            raise OSError(number, os.strerror(number))

        for name in ("read", "readv"):
            monkeypatch.setattr(os, name, bad)
        with Media(store) as media:
            with pytest.raises(Unavailable) as caught:
                media.digest(ID, len(DATA))
            assert caught.value.fields["kind"] == "unreadable"
            assert caught.value.fields["errno"] == number
            ((_, outcome),) = StoreEvidence(media).check_objects([(ID, len(DATA))])
        assert isinstance(outcome, Unavailable)
        assert outcome.fields["object"] == ID

    def test_memory_is_that_of_a_chunk(self, store: Path) -> None:
        """128 MB, sparse on the medium, hashed in less than 3 MB."""
        size = 128 * 10**6
        path = store / "big"
        with path.open("wb") as file:
            file.truncate(size)
        hasher = blake3()
        for _ in range(size // 10**6):
            hasher.update(bytes(10**6))
        id_ = ObjectId(hasher.digest())
        (store / object_path(id_)).parent.mkdir(exist_ok=True)
        path.rename(store / object_path(id_))
        tracemalloc.start()
        try:
            with Media(store) as media:
                media.digest(id_, size)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 3 * 2**20


class TestSmallFiles:
    @pytest.mark.parametrize("size", [0, 1, 64, 65])
    def test_up_to_the_limit(self, store: Path, size: int) -> None:
        (store / "missions/m").write_bytes(b"x" * size)
        with Media(store) as media:
            assert media.read("missions/m", 65) == b"x" * size

    def test_above_the_limit_is_corrupt_and_not_read(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with (store / "missions/m").open("wb") as file:
            file.truncate(2**40)
        read = 0
        real = os.read

        def counting(fd: int, count: int) -> bytes:
            nonlocal read
            data = real(fd, count)
            read += len(data)
            return data

        monkeypatch.setattr(os, "read", counting)
        with Media(store) as media, pytest.raises(Corrupt) as caught:
            media.read("missions/m", 65)
        assert caught.value.fields["kind"] == "too-large"
        assert read <= 66

    def test_eio(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def bad(fd: int, count: int) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "read", bad)
        with Media(store) as media, pytest.raises(Unavailable):
            media.read("missions/m", 65)


def test_reading_writes_nothing_and_leaves_no_descriptor(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert check(store, NORTH.id).go
        with pytest.raises(FlightbagError), Media(store) as media:
            media.read("missions/none", 1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_listing_is_whole_beside_another_of_the_same_folder(store: Path) -> None:
    for name in range(100):
        (store / "missions" / f"m{name}").touch()
    whole = sorted(os.listdir(store / "missions"))
    with Media(store) as media, os.scandir(media.directory("missions")) as another:
        next(another)
        assert media.names("missions") == whole
        assert len(media.first_names("missions", 5)) == 5
        assert media.names("missions") == whole


def test_names_are_sorted_and_any_bytes(store: Path) -> None:
    for name in (b"b", b"a", b"\xff"):
        (Path(os.fsdecode(os.fsencode(store) + b"/missions/" + name))).write_bytes(b"")
    with Media(store) as media:
        assert media.names("missions") == ["a", "b", "m", "\udcff"]
        assert media.read("missions/\udcff", 1) == b""
