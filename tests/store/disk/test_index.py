"""The index is a view: whatever happens to its files, it is used or made again, and no process dies of it.

LMDB maps its file, so a damaged one can end the process that opens it. All damage is therefore done and met in a
process of its own, whose end is looked at.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from store.disk import index as index_module
from store.disk.durable import Disk
from store.disk.index import Index, Record, Row, open_index, open_index_for_reading
from store.disk.locks import SharedLock
from store.disk.media import FileStamp, Media
from store.errors import Unavailable
from store.format.ids import BuildKey, ObjectId
from store.ground.repository import Repository
from store.ground.writer import writing
from tests.faults.test_kill import child
from tests.support.missions import CONTENTS, build_key, flight
from tests.support.stores import (
    ENGINE,
    NORTH,
    REPOSITORY_ROOT,
    SHARD,
    SOUTH,
    copy_of,
    file_of,
    known_ids,
    listing,
    make_store,
    publish,
)

KEYED = (ENGINE, SHARD)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("made") / "store")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def use(store: Path) -> str:
    """Opens the index for writing, reads all of it, and says why it was rebuilt, if it was."""
    with Repository.open(store) as repository, writing(repository) as writer:
        known = known_ids(writer.index)
        for one in (NORTH, SOUTH):
            assert writer.index.absorbed(one.manifest_id)
            for name in KEYED:
                entry = one.entry(name)
                record = writer.index.record(build_key(name))
                assert record is not None
                assert record.ids == (entry.id,)
                writer.check_object(entry.id, entry.size)
        files = {ObjectId.parse(f.parent.name + f.name) for f in (store / "objects").glob("*/*")}
        assert files <= known
        return writer.index.rebuilt


class TestWhatIsKept:
    def test_a_closed_index_is_used_as_it_is(self, store: Path) -> None:
        assert use(store) == ""
        assert use(store) == ""

    def test_rows_and_records(self, store: Path) -> None:
        key, other = BuildKey(bytes(32)), BuildKey(b"\x01" * 32)
        ids = (ObjectId.of(b"a"), ObjectId.of(b"b"))
        row = Row.of(FileStamp(1, 2, 3, 4), inserted=5, verified=6)
        with Repository.open(store) as repository, writing(repository) as writer:
            index = writer.index
            index.commit(objects={ids[0]: row}, records={key: Record(ids, {"host": "here"})}, absorbed=[ids[1]])
            index.commit(records={key: Record((), {"host": "late"}), other: Record((), {})})
            assert index.object(ids[0]) == row
            assert index.object(ids[1]) is None
            assert index.record(key) == Record(ids, {"host": "here"}), "the first writer wins"
            assert index.record(other) == Record((), {})
            assert index.absorbed(ids[1])
            assert not index.absorbed(ids[0])
            index.commit(records={key: Record((), {"host": "late"})}, replace=True)
            assert index.record(key) == Record((), {"host": "late"})

    @pytest.mark.parametrize("changed", ["size", "mtime", "ctime", "inode"])
    def test_a_row_is_fresh_only_for_the_very_same_stamp(self, changed: str) -> None:
        stamp = FileStamp(10, 20, 30, 40)
        row = Row.of(stamp, inserted=1, verified=2)
        assert row.fresh(stamp)
        assert not row.fresh(stamp._replace(**{changed: 99}))
        assert not Row.of(stamp, inserted=1, verified=0).fresh(stamp)


class TestRebuilding:
    @pytest.mark.parametrize("field", ["left", "boot"])
    def test_an_owner_file_that_lacks_how_it_was_left_is_damaged(self, store: Path, field: str) -> None:
        with Media(store) as media:
            assert index_module._why_unusable(media) == ""
            path = store / "index/owner"
            owner = json.loads(path.read_text())
            del owner[field]
            path.write_text(json.dumps(owner))
            assert index_module._why_unusable(media) == f"it is damaged: '{field}'"
        assert use(store) == f"it is damaged: '{field}'"

    @pytest.mark.parametrize("error", [Unavailable("gone", kind="unreadable"), OSError("gone"), KeyError("gone")])
    def test_what_goes_away_at_the_look_is_damaged(
        self, store: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fail(media: Media) -> list[int]:
            raise error

        monkeypatch.setattr(index_module, "_left", fail)
        with Media(store) as media:
            assert index_module._why_unusable(media).startswith("it is damaged: ")
            assert "gone" in index_module._why_unusable(media)

    @pytest.mark.parametrize("problems", [[], ["a page is lost", "and another"]])
    def test_what_the_check_of_the_file_finds(
        self, store: Path, monkeypatch: pytest.MonkeyPatch, problems: list[str]
    ) -> None:
        monkeypatch.setattr(index_module.lmdb.verify, "verify", lambda *_, **__: problems)
        monkeypatch.setattr(index_module, "_boot", lambda: "another boot")
        with Media(store) as media:
            assert index_module._why_unusable(media) == ("it is damaged: a page is lost" if problems else "")

    def test_without_an_id_of_the_boot_every_index_is_checked(
        self, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checked: list[str] = []

        def verify(path: str, *, subdir: bool) -> list[str]:
            checked.append(path)
            assert not subdir
            return []

        monkeypatch.setattr(index_module.lmdb.verify, "verify", verify)
        monkeypatch.setattr(index_module, "_boot", lambda: "")
        path = store / "index/owner"
        path.write_text(json.dumps({**json.loads(path.read_text()), "boot": ""}))
        with Media(store) as media:
            assert index_module._why_unusable(media) == ""
        assert checked == [str(store / "index/data.mdb")]

    @pytest.mark.parametrize("what", ["index", "index/data.mdb", "index/owner", "index/lock.mdb"])
    def test_what_is_removed_comes_back(self, store: Path, what: str) -> None:
        path = store / what
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert (use(store) == "") == (what == "index/lock.mdb")
        assert use(store) == ""

    def test_while_the_repository_stays_open(self, store: Path) -> None:
        """A long-lived process must see the new folder, not the one that it once opened."""
        with Repository.open(store) as repository:
            for _ in range(3):
                with writing(repository) as writer:
                    assert writer.index.record(build_key(ENGINE)) is not None
                shutil.rmtree(store / "index")

    @pytest.mark.parametrize("by", ["copy", "copy over itself", "moved away"])
    def test_a_copied_index_is_not_believed(self, store: Path, tmp_path: Path, by: str) -> None:
        if by == "moved away":
            store = store.rename(tmp_path / "other")
        else:
            copy = copy_of(store, tmp_path / "copy")
            if by == "copy":
                store = copy
            else:
                shutil.rmtree(store)
                store = copy.rename(store)
        assert use(store) == "it was copied from another place"
        assert use(store) == ""

    def test_bytes_copied_over_the_same_file_are_doubted_and_checked(self, store: Path, tmp_path: Path) -> None:
        """`cp -a BACKUP/. STORE/`: path, inode, size and mtime are the old ones; only the ctime tells."""
        shutil.copytree(store, tmp_path / "backup")
        use(store)
        for name in ("data.mdb", "owner", "lock.mdb"):
            source, target = tmp_path / "backup" / "index" / name, store / "index" / name
            target.write_bytes(source.read_bytes())
            os.utime(target, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
        with Media(store) as media:
            owner = json.loads((store / "index" / "owner").read_text())
            assert owner["left"] != index_module._left(media)
        assert use(store) == ""

    @pytest.mark.parametrize(
        ("field", "value", "rebuilt"),
        [
            ("format", 2, True),
            ("store", "/another/store", True),
            ("file", [1, 2], True),
            ("boot", "another boot", False),  # checked offline, and whole
            ("left", None, False),  # the last user did not close it
        ],
    )
    def test_what_the_owner_file_says(self, store: Path, field: str, value: object, rebuilt: bool) -> None:
        path = store / "index" / "owner"
        path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
        assert bool(use(store)) == rebuilt

    @pytest.mark.parametrize("text", ["", "{", "[]", "5", "{}", "[" * 4000, "x" * 5000, '{"format": 1}', "\x00" * 40])
    def test_an_owner_file_that_is_none(self, store: Path, text: str) -> None:
        (store / "index" / "owner").write_text(text)
        assert use(store) != ""
        assert use(store) == ""

    @pytest.mark.parametrize("name", ["owner", "data.mdb"])
    @pytest.mark.parametrize("thing", ["symlink", "fifo", "directory"])
    def test_another_thing_in_the_place_of_a_file(self, store: Path, tmp_path: Path, name: str, thing: str) -> None:
        (tmp_path / "outside").write_bytes(b"not ours")
        path = store / "index" / name
        path.unlink()
        if thing == "symlink":
            path.symlink_to(tmp_path / "outside")
        elif thing == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()
        assert use(store) != ""
        assert (tmp_path / "outside").read_bytes() == b"not ours"

    def test_a_link_in_the_place_of_the_folder_is_refused_and_nothing_behind_it_is_touched(
        self, store: Path, tmp_path: Path
    ) -> None:
        outside = tmp_path / "outside"
        (store / "index").rename(outside)
        (store / "index").symlink_to(outside)
        before = listing(outside)
        with Repository.open(store) as repository, pytest.raises(Unavailable), writing(repository):
            pass
        assert listing(outside) == before

    def test_a_rebuild_that_fails_leaves_nothing_half_filled(self, store: Path) -> None:
        shutil.rmtree(store / "index")

        def fail(index: Index) -> None:
            index.commit(objects={ObjectId.of(b""): Row(0, 1, 1, 1, 1, 1)})
            raise Unavailable("the medium is gone")

        with Media(store) as media:
            with pytest.raises(Unavailable):
                open_index(media, Disk(), fail)
            assert open_index_for_reading(media) is None
        assert use(store) == "there was no index"

    def test_strays_under_objects_are_no_rows(self, store: Path) -> None:
        shutil.rmtree(store / "index")
        count = len(list((store / "objects").glob("*/*")))
        name = str(ObjectId.of(b"x"))
        for stray in ("README", f"AB/{name[2:]}", f"{name[:3]}/{name[3:]}", f"{name[:2]}/short"):
            path = store / "objects" / stray
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"")
        (store / "objects" / "ff").mkdir(exist_ok=True)
        (store / "objects" / "ff" / ("0" * 62)).symlink_to("/nowhere")
        with Repository.open(store) as repository, writing(repository) as writer:
            assert len(known_ids(writer.index)) == count


class TestRecords:
    """Build keys come from manifests that verify, and from nothing else."""

    def test_they_come_back_after_a_rebuild(self, store: Path) -> None:
        shutil.rmtree(store / "index")
        assert use(store) == "there was no index"
        with Repository.open(store) as repository, writing(repository) as writer:
            record = writer.index.record(build_key(ENGINE))
        assert record is not None
        assert record.provenance["from"] == "manifest"

    @pytest.mark.parametrize("by", [(), ("stranger",), ("root-a",)], ids=["unsigned", "stranger", "wrong role"])
    def test_a_planted_manifest_teaches_nothing(self, store: Path, by: tuple[str, ...]) -> None:
        planted = flight({"engines/evil/evil.onnx": b"evil"}, by=by)
        for data in (planted.signed, planted.table.render(), b"evil"):
            path = file_of(store, ObjectId.of(data))
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        (store / "missions" / "planted").write_text(f"{planted.manifest_id}\n")
        shutil.rmtree(store / "index")
        with Repository.open(store) as repository, writing(repository) as writer:
            assert writer.index.record(build_key("engines/evil/evil.onnx")) is None
            assert not writer.index.absorbed(planted.manifest_id)
        assert use(store) == ""

    def test_a_table_that_is_not_the_signed_one_teaches_nothing(self, store: Path) -> None:
        path = file_of(store, NORTH.manifest.table)
        path.chmod(0o644)
        path.write_bytes(flight({**CONTENTS, ENGINE: b"another"}).table.render())
        shutil.rmtree(store / "index")
        with Repository.open(store) as repository, writing(repository) as writer:
            assert not writer.index.absorbed(NORTH.manifest_id)
            assert writer.index.absorbed(SOUTH.manifest_id)
            record = writer.index.record(build_key(ENGINE))
            assert record is not None
            assert record.ids == (SOUTH.entry(ENGINE).id,)


DAMAGER = """
import random, shutil, sys, time
from pathlib import Path
from store.errors import FlightbagError
from tests.store.disk.test_index import spoil_and_use
print("ready", flush=True)
for number in range(int(sys.argv[3])):
    print(sys.argv[2], number, flush=True)
    spoil_and_use(Path(sys.argv[1]), Path(sys.argv[1] + f"-{number}"), sys.argv[2], random.Random(number))
"""


def torn(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    end = min(len(data), at + chance.choice([1, 8, 100, 4096, 20_000]))
    return data[:at] + chance.randbytes(end - at) + data[end:]


def zero_filled(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes(len(data) - at)


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "torn": torn,
    "truncated": lambda data, chance: data[: chance.randrange(len(data))],
    "zero-filled": zero_filled,
    "pages swapped": lambda data, chance: data[4096 : 2 * 4096] + data[:4096] + data[2 * 4096 :],
    "empty": lambda data, chance: b"",
    "noise": lambda data, chance: chance.randbytes(len(data)),
    "grown": lambda data, chance: data + chance.randbytes(4096 * 3),
}


def answers(store: Path) -> str:
    """Asks the index everything; says why it was rebuilt, if it was.

    A damage may pass every check of the file's structure and change a value. Then the answer is another one, never a
    crash or an object that is not checked.
    """
    with Repository.open(store) as repository, writing(repository) as writer:
        for id_ in known_ids(writer.index):
            writer.index.object(id_)
        for one in (NORTH, SOUTH):
            writer.index.absorbed(one.manifest_id)
            for entry in one.table.entries:
                writer.check_object(entry.id, entry.size)
                if entry.key is not None:
                    writer.index.record(entry.key)
                    writer.record({entry.key: Record((entry.id,), {})})
                    assert writer.index.record(entry.key) is not None
        return writer.index.rebuilt


def spoil_and_use(store: Path, copy: Path, damage: str, chance: random.Random) -> None:
    """Damages the index of a copy whose index is known there, then uses it."""
    shutil.copytree(store, copy)
    use(copy)
    path = copy / "index" / "data.mdb"
    data = path.read_bytes()
    time.sleep(0.005)  # the clock of a file system is coarse, and a damage is not an instant after a close
    with path.open("r+b") as file:  # in place: the same inode
        spoiled = DAMAGES[damage](data, chance)
        file.write(spoiled)
        file.truncate(len(spoiled))
    rebuilt = answers(copy)
    assert rebuilt or damage not in ("noise", "empty", "pages swapped"), "these leave no valid file"
    assert (use if rebuilt else answers)(copy) == ""
    shutil.rmtree(copy)


@pytest.mark.parametrize(
    ("damage", "times"),
    [
        ("torn", 40),
        ("truncated", 12),
        ("zero-filled", 12),
        ("grown", 4),
        ("noise", 3),
        ("empty", 1),
        ("pages swapped", 1),
    ],
)
def test_a_damaged_file_is_used_or_rebuilt_and_crashes_no_process(
    made: Path, tmp_path: Path, damage: str, times: int
) -> None:
    shutil.copytree(made, tmp_path / "store")
    done = subprocess.run(
        [sys.executable, "-c", DAMAGER, str(tmp_path / "store"), damage, str(times)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout[-200:], done.stderr[-2000:])


USER = """
import sys
from pathlib import Path
from tests.store.disk.test_index import use
if "say" in sys.argv: print("started", flush=True)
print(use(Path(sys.argv[1])))
"""

WRITER = """
import sys
from store.format.ids import ObjectId
from store.disk.index import Row
from store.ground.repository import Repository
from store.ground.writer import writing
with Repository.open(sys.argv[1]) as repository, writing(repository) as writer:
    print("writing", flush=True)
    for step in range(10**6):
        row = Row(1, 1, 0, 1, 1, 1)
        writer.index.commit(objects={ObjectId.of(b"%d %d" % (step, n)): row for n in range(50)})
"""


def test_an_index_copied_while_it_is_written_is_never_opened(store: Path, tmp_path: Path) -> None:
    with child(WRITER, store):
        for number in range(4):
            copy = copy_of(store, tmp_path / f"copy-{number}")
            done = subprocess.run(
                [sys.executable, "-c", USER, str(copy)],
                env={**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stdout) == (0, "it was copied from another place\n"), done.stderr


def test_a_killed_writer_leaves_an_index_that_is_checked_and_used(store: Path) -> None:
    for seconds in (0.0, 0.02, 0.05):
        with child(WRITER, store) as process:
            time.sleep(seconds)
            process.kill()
            process.wait()
        assert json.loads((store / "index" / "owner").read_text())["left"] is None
        assert use(store) == ""


FILL = """
import sys
from store.disk import index
from store.format.ids import ObjectId
index._FIRST_MAP = 2**20
from store.disk.index import Row
from store.ground.repository import Repository
from store.ground.writer import writing
from tests.support.stores import known_ids
with Repository.open(sys.argv[1]) as repository, writing(repository) as writer:
    print("open", flush=True)
    sys.stdin.readline()
    rows = {ObjectId.of(b"%d" % n): Row(n, 1, 1, 1, 1, 1) for n in range(30_000)}
    writer.index.commit(objects=rows)
    print("filled", flush=True)
    sys.stdin.readline()
    print(len(known_ids(writer.index)), flush=True)
"""


class TestTheMap:
    def test_it_grows_with_its_rows(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(index_module, "_FIRST_MAP", 2**20)
        shutil.rmtree(store / "index")
        rows = {ObjectId.of(b"%d" % n): Row(n, 1, 1, 1, 1, 1) for n in range(30_000)}
        with Repository.open(store) as repository, writing(repository) as writer:
            writer.index.commit(objects=rows)
            assert (store / "index" / "data.mdb").stat().st_size > 2**20
            assert all(writer.index.object(id_) == row for id_, row in rows.items())
        assert use(store) == ""

    def test_another_process_that_grew_it_is_followed(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(index_module, "_FIRST_MAP", 2**20)
        shutil.rmtree(store / "index")
        use(store)
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)}
        with subprocess.Popen(
            [sys.executable, "-c", FILL, str(store)],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == "open\n"
                with Repository.open(store) as repository, writing(repository) as writer:
                    before = len(known_ids(writer.index))
                    process.stdin.write("go\n")
                    process.stdin.flush()
                    assert process.stdout.readline() == "filled\n"
                    # Reading, walking and writing each meet the grown map.
                    assert writer.index.object(ObjectId.of(b"29999")) == Row(29_999, 1, 1, 1, 1, 1)
                    assert len(known_ids(writer.index)) == before + 30_000
                    writer.index.commit(objects={ObjectId.of(b"one more"): Row(1, 1, 1, 1, 1, 1)})
                process.stdin.write("go\n")
                process.stdin.flush()
                assert process.stdout.readline() == f"{before + 30_001}\n"
            finally:
                process.kill()

    def test_a_full_medium_is_a_typed_error(self, store: Path) -> None:
        program = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from store.errors import Unavailable
from store.format.ids import ObjectId
from store.disk.index import Row
from store.ground.repository import Repository
from store.ground.writer import writing
with Repository.open(sys.argv[1]) as repository, writing(repository) as writer:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))
    try:
        writer.index.commit(objects={ObjectId.of(b"%d" % n): Row(n, 1, 1, 1, 1, 1) for n in range(30_000)})
    except Unavailable:
        print("typed")
"""
        done = subprocess.run(
            [sys.executable, "-c", program, str(store)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "typed\n"), done.stderr
        use(store)


class TestTogether:
    def test_many_open_a_missing_index_at_once(self, store: Path) -> None:
        """Each round, processes that start together find no index: one makes it, all use it."""
        program = """
import sys, time
from pathlib import Path
from tests.store.disk.test_index import use
print("ready", flush=True)
while not Path(sys.argv[2]).exists(): time.sleep(0.001)
use(Path(sys.argv[1]))
"""
        for attempt in range(2):
            shutil.rmtree(store / "index")
            start = store.parent / f"start-{attempt}"
            with (
                child(program, store, start) as one,
                child(program, store, start) as two,
                child(program, store, start) as three,
            ):
                start.touch()
                assert [process.wait() for process in (one, two, three)] == [0, 0, 0]

    def test_an_index_that_vanishes_under_its_users_is_a_typed_error(
        self, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(index_module, "_PAUSE", 0.001)
        with child(WRITER, store):
            shutil.rmtree(store / "index")
            with Repository.open(store) as repository, pytest.raises(Unavailable) as caught, writing(repository):
                pass
        assert caught.value.fields["kind"] == "locked"
        assert use(store) == "there was no index"

    def test_who_dies_while_making_it_leaves_it_to_who_waits(self, store: Path) -> None:
        """The waiting one finds a half-made index behind the lock, and makes it itself."""
        program = """
import sys
from store.disk import index
from store.disk.durable import Disk
from store.disk.media import Media
def stuck(_):
    print("making", flush=True)
    sys.stdin.readline()
index.open_index(Media(sys.argv[1]), Disk(), stuck)
"""
        shutil.rmtree(store / "index")
        with subprocess.Popen(
            [sys.executable, "-c", program, str(store)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as maker:
            assert maker.stdout is not None
            assert maker.stdout.readline() == "making\n"
            with child(USER, store, "say") as process:
                time.sleep(0.3)
                assert process.poll() is None, "it waits for the maker"
                maker.kill()
                assert process.wait() == 0
                assert process.stdout is not None
                assert process.stdout.read().strip()
        assert use(store) == ""

    def test_one_process_opens_it_once(self, store: Path) -> None:
        one, two = Repository.open(store), Repository.open(store)
        with one, two, writing(one), pytest.raises(Unavailable), writing(two):
            pass
        assert use(store) == ""


def test_a_link_in_the_place_of_the_lock_file_is_not_followed(store: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"not yours")
    (store / "index" / "lock.mdb").unlink(missing_ok=True)
    (store / "index" / "lock.mdb").symlink_to(victim)
    with Repository.open(store) as repository, writing(repository) as writer:
        assert writer.index.rebuilt
    assert victim.read_bytes() == b"not yours"


def test_reading_lets_nobody_open_an_index_that_nobody_has_checked(store: Path) -> None:
    """Who is alone with it for a look does not vouch for it."""
    owner = store / "index" / "owner"
    value = json.loads(owner.read_text())
    owner.write_text(json.dumps({**value, "boot": "another", "left": [1, 2, 3]}))
    (store / "index" / "data.mdb").write_bytes((store / "index" / "data.mdb").read_bytes()[:5000])
    reading = SharedLock.existing(str(store), "index", "the index")
    assert reading is not None
    assert reading.try_exclusive()
    threading.Timer(0.3, reading.close).start()
    with Repository.open(store) as repository, writing(repository) as writer:
        assert writer.index.rebuilt


class TestReadOnly:
    def test_it_reads_and_writes_not_one_byte(self, store: Path) -> None:
        before = listing(store)
        with Media(store) as media:
            index = open_index_for_reading(media)
            assert index is not None
            with index:
                assert index.record(build_key(ENGINE)) is not None
                assert len(known_ids(index)) == len(list((store / "objects").glob("*/*")))
        assert listing(store) == before

    @pytest.mark.parametrize("state", ["none", "no lock", "copied", "damaged", "of another boot and damaged", "a link"])
    def test_none_and_still_not_one_byte(self, store: Path, tmp_path: Path, state: str) -> None:
        if state == "none":
            shutil.rmtree(store / "index")
        elif state == "no lock":
            shutil.rmtree(store / "lock")
        elif state == "copied":
            store = copy_of(store, tmp_path / "copy")
        elif state == "damaged":
            with (store / "index" / "data.mdb").open("r+b") as file:
                file.write(bytes(9000))
        elif state == "a link":
            (store / "index").rename(tmp_path / "outside")
            (store / "index").symlink_to(tmp_path / "outside")
        else:
            path = store / "index" / "owner"
            path.write_text(path.read_text().replace('"boot": "', '"boot": "x'))
            os.truncate(store / "index" / "data.mdb", 5000)
        before = listing(tmp_path)
        with Media(store) as media:
            assert open_index_for_reading(media) is None
        assert listing(tmp_path) == before

    def test_one_in_use_is_left_alone(self, store: Path) -> None:
        with child(WRITER, store), Media(store) as media:
            assert open_index_for_reading(media) is None
        with Repository.open(store) as repository, writing(repository), Media(store) as media:
            assert open_index_for_reading(media) is None

    def test_it_lets_go_of_the_lock(self, store: Path) -> None:
        with Media(store) as media:
            index = open_index_for_reading(media)
            assert index is not None
            index.close()
        with (store / "lock" / "index").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_store_copied_in_use_publishes_and_is_whole(store: Path, tmp_path: Path) -> None:
    with Repository.open(store) as repository, writing(repository):
        copy = copy_of(store, tmp_path / "copy")
    publish(copy, NORTH)
    assert use(copy) == ""
