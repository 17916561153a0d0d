"""Inserting: batches, healing, and the hash record that spares a second hash."""

from __future__ import annotations

import errno
import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.disk.durable import MANY, Disk
from store.disk.media import CHUNK, Media
from store.disk.objects import Batch, confirm_object, inserting, read_chunks
from store.errors import Corrupt, NotFound, Unavailable
from store.format.ids import ObjectId
from store.ground.repository import Repository
from store.ground.writer import Writer, writing
from tests.faults.disks import PowerFails, Recorded, bad_sectors
from tests.support.stores import file_of, flip, listing, overwrite


@pytest.fixture
def store(tmp_path: Path) -> Path:
    Repository.init(tmp_path / "store").close()
    return tmp_path / "store"


@pytest.fixture
def writer(store: Path) -> Iterator[Writer]:
    with Repository.open(store) as repository, writing(repository) as writer:
        yield writer


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_a_file_is_read_to_its_end(store: Path, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    (store / "trust" / "file").write_bytes(data)
    assert b"".join(read_chunks(str(tmp_path / "file"))) == data
    with Media(store) as media:
        assert b"".join(media.chunks("trust/file", size)) == data


def test_a_file_of_unknown_size_is_read_to_its_end() -> None:
    """What the kernel makes at each read has the size 0."""
    assert os.stat("/proc/self/mountinfo").st_size == 0
    assert b"".join(read_chunks("/proc/self/mountinfo")) == Path("/proc/self/mountinfo").read_bytes()


def test_the_medium_begins_to_write_large_objects_and_those_of_large_batches(store: Path, tmp_path: Path) -> None:
    begun: list[int] = []

    class Counting(Disk):
        def start_writing(self, fd: int) -> None:
            begun.append(os.fstat(fd).st_size)
            super().start_writing(fd)

    with Media(store) as media, inserting(media, Counting(), None) as batch:
        batch.add([bytes(CHUNK), b"rest"])
        assert begun == [CHUNK]
        for number in range(1, MANY):
            batch.add([b"%d" % number])
        assert begun == [CHUNK]
        batch.add([b"one more"])
        assert begun == [CHUNK, 8]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[ObjectId]:
    """The objects that were hashed from the medium, in order."""
    seen: list[ObjectId] = []
    digest = Media.digest

    def counting(self: Media, id_: ObjectId, size: int, **options: object) -> object:
        seen.append(id_)
        return digest(self, id_, size, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Media, "digest", counting)
    return seen


def insert(writer: Writer, *contents: bytes) -> list[bool]:
    """Adds and commits; says for each whether it was reused."""
    with writer.inserting() as batch:
        reused = [batch.add_bytes(data).reused for data in contents]
        batch.commit()
    return reused


class TestBatch:
    @pytest.mark.parametrize("size", [0, 1, 2**20 + 1])
    def test_an_object_is_its_bytes_read_only_under_its_id(self, store: Path, writer: Writer, size: int) -> None:
        data = bytes(size)
        insert(writer, data)
        path = file_of(store, ObjectId.of(data))
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == 0o444

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
    @given(chunks=st.lists(st.binary(max_size=40), max_size=8))
    def test_the_cut_into_chunks_does_not_matter(self, store: Path, writer: Writer, chunks: list[bytes]) -> None:
        whole = b"".join(chunks)
        with writer.inserting() as batch:
            added = batch.add(chunks)
            batch.commit()
        assert (added.id, added.size) == (ObjectId.of(whole), len(whole))
        assert file_of(store, added.id).read_bytes() == whole

    def test_nothing_is_there_before_the_commit_or_without_it(self, store: Path, writer: Writer) -> None:
        with writer.inserting() as batch:
            batch.add_bytes(b"never committed")
            assert os.listdir(store / "objects") == []
        assert os.listdir(store / "objects") == []
        assert os.listdir(store / "tmp") == []

    def test_the_same_object_twice_is_one(self, store: Path, writer: Writer) -> None:
        with writer.inserting() as batch:
            assert [batch.add_bytes(b"same").reused, batch.add([b"sa", b"me"]).reused] == [False, True]
            batch.commit()
        assert insert(writer, b"same") == [True]

    def test_an_expected_id_that_does_not_come_is_kept_nowhere(self, store: Path, writer: Writer) -> None:
        with writer.inserting() as batch:
            with pytest.raises(Corrupt) as caught:
                batch.add([b"something else"], expect=ObjectId.of(b"expected"))
            assert caught.value.fields["kind"] == "bit-flip"
            batch.add([b"expected"], expect=ObjectId.of(b"expected"))
            batch.commit()
        (shard,) = (store / "objects").iterdir()
        assert len(list(shard.iterdir())) == 1

    @pytest.mark.parametrize("also_new", [False, True])
    def test_an_object_of_unknown_origin_is_durable_before_a_commit_relies_on_it(
        self, store: Path, also_new: bool
    ) -> None:
        """Whoever wrote it may have been stopped before it was synced, and the index does not know it."""
        data = b"here before"
        path = file_of(store, ObjectId.of(data))
        path.parent.mkdir()
        path.write_bytes(data)
        disk = Recorded()
        with Repository.open(store, disk) as repository, writing(repository) as writer:
            disk.operations.clear()
            contents = [data, b"new"] if also_new else [data]
            assert insert(writer, *contents) == [True, False][: len(contents)]
        for synced in (("sync", path), ("sync-directory", path.parent), ("sync-directory", store / "objects")):
            assert (synced[0], str(synced[1])) in disk.operations

    @pytest.mark.parametrize("failing", range(4))
    def test_a_large_object_whose_write_fails_leaves_nothing(self, store: Path, failing: int) -> None:
        """Its chunks are written by a thread: what fails there is told here."""
        data = [bytes([number]) * CHUNK for number in range(3)] + [b"end"]

        class Full(Disk):
            count = -1

            def write(self, fd: int, data: bytes | bytearray | memoryview, path: str) -> None:
                self.count += 1
                if self.count == failing:
                    raise Unavailable("full", errno=errno.ENOSPC)
                super().write(fd, data, path)

        with Media(store) as media, inserting(media, Full(), None) as batch:
            with pytest.raises(Unavailable, match="full"):
                batch.add(data)
            added = batch.add(data)
            batch.commit()
        assert added.id == ObjectId.of(b"".join(data))
        assert file_of(store, added.id).read_bytes() == b"".join(data)
        assert os.listdir(store / "tmp") == []

    def test_a_source_that_fails_leaves_the_batch_usable(self, store: Path, writer: Writer) -> None:
        def torn() -> Iterator[bytes]:
            yield b"begun"
            raise Unavailable("the source is gone")

        with writer.inserting() as batch:
            with pytest.raises(Unavailable):
                batch.add(torn())
            batch.add_bytes(b"good")
            batch.commit()
        assert insert(writer, b"good") == [True]
        assert os.listdir(store / "tmp") == []

    def test_many_objects_one_barrier(self, store: Path) -> None:
        disk = Recorded()
        contents = [b"%d" % n for n in range(50)]
        with Repository.open(store, disk) as repository, writing(repository) as writer:
            disk.operations.clear()
            insert(writer, *contents)
        names = [name for name, path in disk.operations]
        # All syncs of files come before all renames, and each directory is synced once after them.
        last_sync = max(n for n, name in enumerate(names) if name == "sync")
        first_rename, last_rename = names.index("rename"), len(names) - 1 - names[::-1].index("rename")
        assert names.count("sync") == names.count("rename") == 50
        assert last_sync < first_rename
        synced = [path for name, path in disk.operations[last_rename:] if name == "sync-directory"]
        shards = {str(ObjectId.of(data))[:2] for data in contents}
        assert sorted(synced) == sorted([f"{store}/objects", *(f"{store}/objects/{shard}" for shard in shards)])

    def test_memory_is_that_of_a_chunk(self, store: Path, writer: Writer) -> None:
        """128 MB through `add`, in less than 4 MB."""
        chunk = bytes(2**20)
        tracemalloc.start()
        try:
            with writer.inserting() as batch:
                added = batch.add(chunk for _ in range(128))
                batch.commit()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert added.size == 128 * 2**20
        assert file_of(store, added.id).stat().st_size == added.size
        assert peak < 4 * 2**20

    def test_the_chunks_of_a_file(self, store: Path, writer: Writer, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"from a file")
        with writer.inserting() as batch:
            assert batch.add(read_chunks(str(tmp_path / "file"))).id == ObjectId.of(b"from a file")
            with pytest.raises(Unavailable) as caught:
                batch.add(read_chunks(str(tmp_path / "none")))
        assert caught.value.kind == "unreadable"

    def test_a_file_is_read_through_a_link_and_nothing_else_is(self, tmp_path: Path) -> None:
        data = bytes(CHUNK) + b"x"
        (tmp_path / "file").write_bytes(data)
        (tmp_path / "link").symlink_to("file")
        assert list(map(len, read_chunks(str(tmp_path / "link")))) == [CHUNK, 1]
        with pytest.raises(Corrupt, match="found a directory") as caught:
            list(read_chunks(str(tmp_path)))
        assert caught.value.kind == "wrong-type"


def spoil(path: Path, how: str, outside: Path) -> None:
    """Puts something bad in the place of an object."""
    if how == "bit-flip":
        flip(path)
    elif how == "truncated":
        overwrite(path, lambda data: data[:-1])
    elif how == "oversized":
        overwrite(path, lambda data: data + b"x")
    elif how == "empty":
        overwrite(path, lambda _: b"")
    elif how == "shard":
        path.parent.rename(outside / "moved")
        path.parent.symlink_to(outside / "moved")
    else:
        path.unlink()
        if how == "directory":
            path.mkdir()
        elif how == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to(outside / "kept")


class TestHealing:
    DATA = b"a resident object"

    @pytest.mark.parametrize(
        "how", ["bit-flip", "truncated", "oversized", "empty", "symlink", "directory", "fifo", "shard"]
    )
    @pytest.mark.parametrize("by", ["bytes", "chunks"])
    def test_a_bad_copy_goes_to_quarantine_and_is_replaced(
        self, store: Path, tmp_path: Path, how: str, by: str
    ) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "kept").write_bytes(b"not ours")
        with Repository.open(store) as repository, writing(repository) as writer:
            insert(writer, self.DATA)
        path = file_of(store, ObjectId.of(self.DATA))
        spoil(path, how, outside)
        seen_outside = listing(outside)
        with Repository.open(store) as repository, writing(repository) as writer, writer.inserting() as batch:
            added = batch.add_bytes(self.DATA) if by == "bytes" else batch.add([self.DATA])
            batch.commit()
            writer.check_object(added.id, added.size)
        assert not added.reused
        assert path.read_bytes() == self.DATA
        assert path.lstat().st_size == len(self.DATA)
        assert not path.parent.is_symlink()
        (moment,) = (store / "quarantine").iterdir()
        assert [name.name for name in moment.iterdir()] == [path.parent.name if how == "shard" else str(added.id)]
        assert listing(outside) == seen_outside, "a link was followed out of the store"

    def test_a_bad_copy_stays_until_the_right_one_is_at_hand(self, store: Path, writer: Writer) -> None:
        """Else a crash, or an error, would leave less than there was."""
        insert(writer, self.DATA)
        path = file_of(store, ObjectId.of(self.DATA))
        flip(path)
        damaged = path.read_bytes()
        with writer.inserting() as batch:
            assert not batch.add_bytes(self.DATA).reused
        assert path.read_bytes() == damaged
        assert not (store / "quarantine").exists()

    def test_what_somebody_else_has_healed_meanwhile_stays(self, store: Path, writer: Writer) -> None:
        insert(writer, self.DATA)
        path = file_of(store, ObjectId.of(self.DATA))
        flip(path)
        with (
            Media(store) as media,
            inserting(media, Disk(), None) as first,
            inserting(media, Disk(), None) as second,
        ):
            for batch in (first, second):
                assert not batch.add_bytes(self.DATA).reused
            first.commit()
            healed = path.stat().st_ino
            second.commit()
        assert (path.read_bytes(), path.stat().st_ino) == (self.DATA, healed)
        assert len(list((store / "quarantine").glob("*/*"))) == 1

    def test_a_bad_copy_that_vanishes_meanwhile_is_replaced_like_a_missing_one(
        self, store: Path, writer: Writer
    ) -> None:
        insert(writer, self.DATA)
        path = file_of(store, ObjectId.of(self.DATA))
        flip(path)
        with writer.inserting() as batch:
            assert not batch.add_bytes(self.DATA).reused
            path.unlink()
            batch.commit()
        assert path.read_bytes() == self.DATA

    @pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE])
    def test_unreadable_is_never_deleted(
        self, store: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        """A bad sector is replaced by the right bytes and kept; where only this process may not look, all stays."""
        insert(writer, self.DATA)
        path = file_of(store, ObjectId.of(self.DATA))
        os.utime(path)
        inode = path.stat().st_ino
        bad_sectors(monkeypatch, inode, number=number)
        if number == errno.EIO:
            insert(writer, self.DATA)
            (kept,) = (store / "quarantine").glob("*/*")
            assert kept.stat().st_ino == inode
            assert path.stat().st_ino != inode
        else:
            with pytest.raises(Unavailable):
                insert(writer, self.DATA)
            assert path.stat().st_ino == inode
            assert not (store / "quarantine").exists()
        assert path.read_bytes() == self.DATA

    def test_links_above_the_shards_are_refused(self, store: Path, tmp_path: Path) -> None:
        (store / "objects").rename(tmp_path / "elsewhere")
        (store / "objects").symlink_to(tmp_path / "elsewhere")
        with Media(store) as media, inserting(media, Disk(), None) as batch:
            batch.add_bytes(b"must not go there")
            with pytest.raises(Corrupt):
                batch.commit()
        assert os.listdir(tmp_path / "elsewhere") == []


class TestHashRecord:
    def test_what_was_inserted_is_not_read_again(self, writer: Writer, reads: list[ObjectId]) -> None:
        insert(writer, b"one", b"two")
        assert insert(writer, b"one", b"two") == [True, True]
        writer.check_object(ObjectId.of(b"one"), 3)
        assert reads == []

    @pytest.mark.parametrize("touch", ["mtime", "rewritten", "replaced", "mode", "restored times"])
    def test_what_was_touched_is_read_again_once(
        self, store: Path, writer: Writer, reads: list[ObjectId], touch: str
    ) -> None:
        id_ = ObjectId.of(b"one")
        insert(writer, b"one")
        path = file_of(store, id_)
        before = path.stat()
        time.sleep(0.02)  # the clock of a file system is coarse
        if touch == "mtime":
            os.utime(path)
        elif touch == "rewritten":
            overwrite(path, lambda data: data)
        elif touch == "replaced":
            path.rename(path.with_name("old"))
            path.with_name("old").write_bytes(b"one")
            (path.parent / "copy").write_bytes(b"one")
            (path.parent / "copy").rename(path)
        elif touch == "mode":
            path.chmod(0o400)
        else:
            overwrite(path, lambda data: data)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        writer.check_object(id_, 3)
        assert reads == [id_]
        writer.check_object(id_, 3)
        assert reads == [id_]

    def test_a_change_of_the_same_size_with_its_times_restored_is_found(self, store: Path, writer: Writer) -> None:
        """The change time is what gives it away: it cannot be set."""
        insert(writer, b"one")
        path = file_of(store, ObjectId.of(b"one"))
        before = path.stat()
        time.sleep(0.02)
        flip(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(Corrupt):
            writer.check_object(ObjectId.of(b"one"), 3)

    def test_another_size_than_the_one_that_was_checked_is_refused(self, store: Path, writer: Writer) -> None:
        """Also before the hash record exists: two entries may give one object two sizes."""
        insert(writer, b"one")
        file_of(store, ObjectId.of(b"one")).touch()
        writer.check_object(ObjectId.of(b"one"), 3)
        with pytest.raises(Corrupt):
            writer.check_object(ObjectId.of(b"one"), 4)

    def test_an_object_that_came_by_copying_is_read_once(
        self, store: Path, writer: Writer, reads: list[ObjectId]
    ) -> None:
        id_ = ObjectId.of(b"copied in")
        file_of(store, id_).parent.mkdir()
        file_of(store, id_).write_bytes(b"copied in")
        assert insert(writer, b"copied in") == [True]
        assert insert(writer, b"copied in") == [True]
        assert reads == [id_]

    def test_a_bad_object_is_never_entered(self, store: Path, writer: Writer) -> None:
        insert(writer, b"one")
        flip(file_of(store, ObjectId.of(b"one")))
        for _ in range(2):
            with pytest.raises(Corrupt):
                writer.check_object(ObjectId.of(b"one"), 3)

    @pytest.mark.parametrize("moment", [-(10**18), 2**63 + 1])
    def test_times_before_1970_and_far_ahead(self, store: Path, writer: Writer, moment: int) -> None:
        insert(writer, b"one")
        path = file_of(store, ObjectId.of(b"one"))
        os.utime(path, ns=(moment, moment))
        if path.stat().st_mtime_ns != moment:
            pytest.skip("this file system cannot keep such a time")
        writer.check_object(ObjectId.of(b"one"), 3)
        writer.enter_checked()
        assert confirm_object(writer.repository.media, writer.index, ObjectId.of(b"one"), 3) is None

    def test_without_an_index_everything_is_read(self, store: Path, writer: Writer, reads: list[ObjectId]) -> None:
        insert(writer, b"one")
        for _ in range(2):
            assert confirm_object(writer.repository.media, None, ObjectId.of(b"one"), 3) is not None
        assert len(reads) == 2

    def test_absent(self, writer: Writer) -> None:
        with pytest.raises(NotFound):
            writer.check_object(ObjectId.of(b"absent"), 6)


def test_a_batch_of_programs_that_write_beside_it(store: Path, writer: Writer) -> None:
    """A file made in the batch's own folder is added and goes away with it."""
    with writer.inserting() as batch:
        assert isinstance(batch, Batch)
        made = Path(batch.folder()) / "out"
        made.write_bytes(b"compiled")
        added = batch.add(read_chunks(str(made)))
        batch.commit()
    assert file_of(store, added.id).read_bytes() == b"compiled"
    assert os.listdir(store / "tmp") == []


class TestTake:
    def test_a_file_moves_into_the_store_and_is_read_only(self, store: Path, writer: Writer) -> None:
        (store / "tmp" / "arrived").write_bytes(b"arrived")
        with writer.inserting() as batch:
            added = batch.take(str(store / "tmp" / "arrived"), ObjectId.of(b"arrived"))
            assert (added.size, added.reused) == (7, False)
            assert not file_of(store, added.id).exists()
            batch.commit()
        assert file_of(store, added.id).read_bytes() == b"arrived"
        assert file_of(store, added.id).stat().st_mode & 0o777 == 0o444
        assert os.listdir(store / "tmp") == []

    def test_what_the_store_has_is_not_taken_twice(self, store: Path, writer: Writer) -> None:
        insert(writer, b"resident")
        before = listing(store, but=("index", "lock", "tmp"))
        (store / "tmp" / "arrived").write_bytes(b"resident")
        with writer.inserting() as batch:
            assert batch.take(str(store / "tmp" / "arrived"), ObjectId.of(b"resident")).reused
            batch.commit()
        assert listing(store, but=("index", "lock", "tmp")) == before
        assert os.listdir(store / "tmp") == []

    @pytest.mark.parametrize("kind", ["other bytes", "link", "folder", "fifo"])
    def test_anything_else_stays_where_it_lies(self, store: Path, writer: Writer, tmp_path: Path, kind: str) -> None:
        path = store / "tmp" / "arrived"
        (tmp_path / "outside").write_bytes(b"wanted")
        if kind == "other bytes":
            path.write_bytes(b"wantec")
        elif kind == "link":
            path.symlink_to(tmp_path / "outside")
        elif kind == "folder":
            path.mkdir()
        else:
            os.mkfifo(path)
        with writer.inserting() as batch:
            with pytest.raises(Corrupt):
                batch.take(str(path), ObjectId.of(b"wanted"))
            batch.commit()
        assert os.path.lexists(path)
        assert not file_of(store, ObjectId.of(b"wanted")).exists()

    def test_a_power_cut_between_renames_and_barrier_leaves_the_mark(self, store: Path) -> None:
        (store / "tmp" / "arrived").write_bytes(b"arrived")

        class Cut(Disk):
            def sync_directory(self, path: str) -> None:
                raise PowerFails

        def taken() -> None:
            with Media(store) as media, inserting(media, Cut(), None) as batch:
                batch.take(str(store / "tmp" / "arrived"), ObjectId.of(b"arrived"))
                batch.commit()

        with pytest.raises(PowerFails):
            taken()
        assert len(os.listdir(store / "tmp")) == 1


def test_many_objects_are_added_at_once(store: Path) -> None:
    contents = [b"object %d" % (n % 400) * 50 for n in range(500)]
    with (
        Repository.open(store) as repository,
        writing(repository) as writer,
        writer.inserting() as batch,
    ):
        added = batch.add_all(([data[:7], data[7:]], ObjectId.of(data)) for data in contents)
        batch.commit()
        assert [one.id for one in added] == [ObjectId.of(data) for data in contents]
        assert sum(not one.reused for one in added) == 400
        assert all(repository.evidence.object(one.id, 2**20) == data for one, data in zip(added, contents, strict=True))
    assert not os.listdir(store / "tmp")


def test_the_first_that_fails_ends_all(store: Path) -> None:
    """What another thread is at ends with its next chunk, however many are to come."""
    begun = Event()

    def endless() -> Iterator[bytes]:
        while True:
            begun.set()
            yield b"more"

    def wrong() -> Iterator[bytes]:
        begun.wait()
        yield b"wrong"

    with Repository.open(store) as repository, inserting(repository.media, Disk(), None) as batch:
        with pytest.raises(Corrupt) as caught:
            batch.add_all([(endless(), None), (endless(), None), (wrong(), ObjectId.of(b"right"))])
        assert caught.value.fields["kind"] == "bit-flip"
        batch.add_all([([b"well"], None)])
        batch.commit()
        assert repository.evidence.object(ObjectId.of(b"well"), 10) == b"well"
    assert not os.listdir(store / "tmp")
