"""Unpack: what arrives is what was packed, or is refused by kind; no half of it moves a ref; any order, resumable."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest
from blake3 import blake3

from store.disk import log
from store.disk.durable import Disk
from store.disk.locks import Locked
from store.disk.media import Media, object_path
from store.errors import Conflict, FlightbagError, Invalid, Unavailable
from store.format.ids import ObjectId
from store.ground.repository import Repository
from store.ground.trust_chain import put_into_effect
from store.remotes.unpack import Unpacked, unpack
from tests.conformance.attacks_packs import bags
from tests.faults.disks import PowerCut, PowerFails, Recorded
from tests.faults.kills import killed_after
from tests.store.remotes.test_pack import BIG, packed
from tests.support.missions import NOW, ROOT, entry, flight, next_root, sign_root, sorted_table
from tests.support.stores import (
    ENGINE,
    NORTH,
    REPOSITORY_ROOT,
    SOUTH,
    audit,
    check,
    copy_of,
    file_of,
    flip,
    later,
    listing,
    make_store,
    publish,
)

SPLIT = 400_000
# A part has one or two small files.
TIGHT = 5632


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("made") / "source")


@pytest.fixture(scope="module")
def bag(made: Path) -> bytes:
    return packed(made)[0]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A bag in parts, with an object in three pieces."""
    return packed(make_store(tmp_path_factory.mktemp("parts") / "source", BIG, SOUTH), split=SPLIT)


def take(data: bytes, target: Path, disk: Disk | None = None) -> Unpacked:
    return unpack(io.BytesIO(data), "bag.tar", target, disk=disk)


def refused(data: bytes, target: Path) -> FlightbagError:
    with pytest.raises(FlightbagError) as caught:
        take(data, target)
    return caught.value


def published(store: Path) -> list[str]:
    return sorted(os.listdir(store / "missions"))


class TestOneBag:
    def test_it_makes_a_store_that_verifies(self, bag: bytes, tmp_path: Path) -> None:
        target = tmp_path / "target"
        done = take(bag, target)
        assert done.plan is not None
        assert [move.mission for move in done.plan.moves] == [NORTH.id, SOUTH.id]
        assert (done.present, done.lacking, done.inserted) == (0, (), len(list(target.glob("objects/*/*"))))
        assert check(target, NORTH.id).go
        assert check(target, SOUTH.id).go
        assert not audit(target).findings
        assert not (target / "index").exists()
        assert os.listdir(target / "tmp") == []
        with Media(target) as media:
            assert [one.event for one in log.events(media)] == ["rotated", "received", "received"]

    def test_again_it_changes_nothing(self, bag: bytes, tmp_path: Path) -> None:
        target = tmp_path / "target"
        first = take(bag, target)
        before = {name: value for name, value in listing(target, but=("lock", "tmp")).items() if name != "tmp"}
        again = take(bag, target)
        assert (again.inserted, again.present) == (0, first.inserted)
        assert again.plan is not None
        assert (again.plan.moves, again.plan.unchanged) == ((), (NORTH.id, SOUTH.id))
        assert {name: value for name, value in listing(target, but=("lock", "tmp")).items() if name != "tmp"} == before

    def test_what_the_store_has_is_not_written_again_and_what_is_damaged_heals(
        self, made: Path, bag: bytes, tmp_path: Path
    ) -> None:
        target = copy_of(made, tmp_path / "target")
        publish(target, later(SOUTH))
        flip(file_of(target, NORTH.entry(ENGINE).id))
        disk = Recorded()
        done = take(bag, target, disk)
        assert done.inserted == 1
        assert done.plan is not None
        assert (done.plan.unchanged, done.plan.newer) == ((NORTH.id,), (SOUTH.id,))
        assert check(target, NORTH.id).go
        mission = check(target, SOUTH.id).mission
        assert mission is not None
        assert mission.manifest_id == later(SOUTH).manifest_id

    def test_the_order_is_objects_roots_refs(self, bag: bytes, tmp_path: Path) -> None:
        disk = Recorded()
        take(bag, tmp_path / "target", disk)
        names = [path.removeprefix(f"{tmp_path / 'target'}/") for name, path in disk.operations if name == "rename"]
        objects = [at for at, name in enumerate(names) if name.startswith("objects/")]
        roots = [at for at, name in enumerate(names) if name.startswith("trust/")]
        refs = [at for at, name in enumerate(names) if name.startswith("missions/")]
        assert max(objects) < min(roots) <= max(roots) < min(refs)

    def test_large_and_many_objects_in_several_batches(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("store.remotes.unpack._BATCH_OBJECTS", 2)
        monkeypatch.setattr("store.remotes.unpack._FILES", 2)
        source = make_store(tmp_path / "source", BIG, SOUTH)
        take(packed(source)[0], tmp_path / "target")
        assert not audit(tmp_path / "target").findings
        assert check(tmp_path / "target", BIG.id).go

    def test_no_folder_of_objects_gets_more_than_it_may_have(
        self, bag: bytes, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A store with more cannot be collected, and a bag may hold what nobody has signed."""
        largest = max(len(list(shard.iterdir())) for shard in (made / "objects").iterdir())
        monkeypatch.setattr("store.remotes.unpack.SHARD_LIMIT", largest)
        target = tmp_path / "target"
        assert take(bag, target).plan is not None
        path = file_of(target, NORTH.entry(ENGINE).id)
        path.unlink()
        others = [path.with_name(f"{number:062x}") for number in range(largest)]
        for other in others:
            other.touch()
        error = refused(bag, target)
        assert (error.kind, str(path.parent) in error.message) == ("too-many", True)
        for other in others:
            other.unlink()
        assert take(bag, target).inserted == 1

    def test_a_newer_root_comes_along_and_judges(self, made: Path, tmp_path: Path) -> None:
        source, target = copy_of(made, tmp_path / "source"), copy_of(made, tmp_path / "target")
        with Repository.open(source) as repository:
            put_into_effect(repository, 2, sign_root(next_root(ROOT, issued_at=NOW), "root-a"), at=NOW)
        done = take(packed(source)[0], target)
        assert done.plan is not None
        assert done.plan.roots == (2,)
        assert (target / "trust/2.root.cbor").exists()

    def test_a_store_of_another_domain_is_not_touched(self, bag: bytes, tmp_path: Path) -> None:
        root = replace(ROOT, domain="elsewhere")
        target = make_store(tmp_path / "target", flight(root=root), root=sign_root(root, "root-a"))
        before = listing(target, but=("lock",))
        with pytest.raises(Conflict):
            take(bag, target)
        assert listing(target, but=("lock",)) == before

    def test_a_head_that_hides_another_domain(self, made: Path, bag: bytes, tmp_path: Path) -> None:
        root = replace(ROOT, domain="elsewhere")
        other = make_store(tmp_path / "other", flight(root=root), root=sign_root(root, "root-a"))
        data = packed(other)[0]
        lie = data[:512] + re.sub(rb"domain=[0-9a-f]{64}", head_domain(bag), data[512:1024]) + data[1024:]
        target = copy_of(made, tmp_path / "target")
        before = published(target)
        assert refused(lie, target).kind == "bad-bag"
        assert published(target) == before
        assert check(target, NORTH.id).go

    def test_it_was_packed_against_another_store(self, made: Path, tmp_path: Path) -> None:
        there = make_store(tmp_path / "there", SOUTH)
        data = packed(made, against=there)[0]
        target = tmp_path / "target"
        error = refused(data, target)
        assert error.kind == "incomplete-bag"
        assert published(target) == []
        # The remedy: pack without --against.
        take(packed(made)[0], target)
        assert check(target, SOUTH.id).go

    def test_nothing_is_made_for_what_is_no_bag(self, tmp_path: Path) -> None:
        for data in (b"", b"PK\3\4" + bytes(2000), b"\x1f\x8b"):
            assert refused(data, tmp_path / "target").kind in ("bad-bag", "truncated")
        assert os.listdir(tmp_path) == []

    def test_a_target_that_is_something_else(self, bag: bytes, tmp_path: Path) -> None:
        (tmp_path / "target").mkdir()
        (tmp_path / "target" / "photo.jpg").touch()
        with pytest.raises(Invalid):
            take(bag, tmp_path / "target")

    def test_during_a_collection(self, made: Path, bag: bytes, tmp_path: Path) -> None:
        target = copy_of(made, tmp_path / "target")
        with Repository.open(target) as repository, repository.locked(alone=True), pytest.raises(Locked):
            take(bag, target)


def head_domain(bag: bytes) -> bytes:
    found = re.search(rb"domain=[0-9a-f]{64}", bag[512:1024])
    assert found is not None
    return found[0]


def test_every_kind_of_refusal_is_documented_and_has_an_attack() -> None:
    text = (REPOSITORY_ROOT / "store" / "FORMAT.md").read_text()
    listed = set(re.findall(r"`([a-z-]+)`(?=[ ,])", text[text.index("Kinds of refusals:") :]))
    code = "".join(path.read_text() for path in (REPOSITORY_ROOT / "store" / "remotes").glob("*pack.py"))
    code += (REPOSITORY_ROOT / "store" / "remotes" / "tar.py").read_text()
    used = set(re.findall(r"bad\(\s*\"([a-z-]+)\"", code))
    assert used <= listed, used - listed
    attacked = {refusal for _, refusal, _ in bags()}
    assert used - attacked == {"too-many"}  # ten thousand files of one folder: test_too_many_files


def test_too_many_files(bag: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.remotes.unpack.FOLDER_LIMIT", 1)
    assert refused(bag, tmp_path / "target").kind == "too-many"
    assert published(tmp_path / "target") == []


class TestBagsThatEndEarly:
    def test_at_any_place_no_ref_moves_and_the_rest_is_not_written_again(self, bag: bytes, tmp_path: Path) -> None:
        cuts = [*sorted(Random(17).sample(range(len(bag)), 12)), len(bag) - 512, len(bag) - 1]
        for number, cut in enumerate(cuts):
            target = tmp_path / str(number)
            assert refused(bag[:cut], target).kind == "truncated", cut
            assert not (target / "missions").exists() or published(target) == []
            whole = len(list(target.glob("objects/*/*")))
            done = take(bag, target)
            assert done.present == whole, cut
            assert check(target, NORTH.id).go

    def test_no_flipped_bit_moves_a_ref_to_what_does_not_verify(self, made: Path, bag: bytes, tmp_path: Path) -> None:
        chance = Random(17)
        for number in range(24):
            data, at = bytearray(bag), chance.randrange(len(bag))
            data[at] ^= 1 << chance.randrange(8)
            target = tmp_path / str(number)
            with suppress(FlightbagError):
                take(bytes(data), target)
            missions = published(target) if (target / "missions").exists() else []
            assert all(check(target, mission).go for mission in missions), at
            assert not target.exists() or not audit(target).errors, at

    def test_a_stream_that_fails(self, bag: bytes, tmp_path: Path) -> None:
        class Pulled(io.BytesIO):
            def read(self, count: int | None = -1, /) -> bytes:
                if self.tell() > 5000:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return super().read(count)

        with pytest.raises(Unavailable) as caught:
            unpack(Pulled(bag), "bag.tar", tmp_path / "target")
        assert (caught.value.kind, caught.value.errno) == ("unreadable", errno.EIO)
        assert published(tmp_path / "target") == []
        assert take(bag, tmp_path / "target").present > 0

    @pytest.mark.parametrize("pieces", [1, 700, 2**16])
    def test_through_a_slow_fifo(self, bag: bytes, tmp_path: Path, pieces: int) -> None:
        """However the bytes come in, they are the same."""
        os.mkfifo(tmp_path / "fifo")

        def write() -> None:
            with open(tmp_path / "fifo", "wb", buffering=0) as out:
                for at in range(0, len(bag), pieces):
                    out.write(bag[at : at + pieces])

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        with open(tmp_path / "fifo", "rb") as stream:
            assert unpack(stream, "fifo", tmp_path / "target").plan is not None
        thread.join(30)
        assert check(tmp_path / "target", SOUTH.id).go


class TestParts:
    @pytest.mark.parametrize("seed", range(4))
    def test_any_order_makes_the_store_with_the_last_one(self, parts: list[bytes], tmp_path: Path, seed: int) -> None:
        order = list(enumerate(parts, 1))
        Random(seed).shuffle(order)
        assert len(order) > 3
        target = tmp_path / "target"
        left = set(range(1, len(parts) + 1))
        for number, data in order:
            assert not (target / "missions").exists() or published(target) == []
            done = take(data, target)
            left.discard(number)
            assert set(done.lacking) == left
            assert (done.plan is None) == bool(left)
            if left:  # an audit tells of it, and finds nothing wrong
                found = audit(target)
                assert [one.information for one in found.findings if one.path.endswith(done.head.bag)] == [True]
        assert check(target, BIG.id).go
        assert check(target, SOUTH.id).go
        assert not audit(target).findings
        assert not list((target / "bags").iterdir())

    def test_a_part_twice_and_a_damaged_one_again(self, parts: list[bytes], tmp_path: Path) -> None:
        target = tmp_path / "target"
        whole = [n for n, part in enumerate(parts) if b"/pieces/" in part]
        damaged = bytearray(parts[whole[0]])
        damaged[len(damaged) // 2] ^= 1
        error = refused(bytes(damaged), target)
        assert error.kind == "bit-flip"
        for data in (*parts[1:], *parts[1:], parts[0]):
            done = take(data, target)
        assert done.plan is not None
        assert check(target, BIG.id).go

    def test_a_store_that_lost_what_came_is_given_the_parts_again(self, parts: list[bytes], tmp_path: Path) -> None:
        target = tmp_path / "target"
        for data in parts[:-1]:
            take(data, target)
        next(target.glob("objects/*/*")).unlink()
        next((target / "bags").glob("*/pieces/*/0-*")).unlink()
        error = refused(parts[-1], target)
        assert error.kind == "truncated"
        assert "every part" in error.remedy
        for data in parts[:-1]:
            assert take(data, target).lacking
        assert take(parts[-1], target).plan is not None
        assert check(target, SOUTH.id).go
        assert check(target, BIG.id).go

    @pytest.mark.parametrize("foreign", ["beside", "alone", "of another size"])
    def test_pieces_that_somebody_else_made_block_no_bag(
        self, parts: list[bytes], tmp_path: Path, foreign: str
    ) -> None:
        target = tmp_path / "target"
        for data in parts[:-1]:
            take(data, target)
        piece = next((target / "bags").glob("*/pieces/*/0-*"))
        other = bytes(piece.stat().st_size)
        folder = piece.parent if foreign != "of another size" else piece.parent.with_name(f"{piece.parent.name}0")
        folder.mkdir(exist_ok=True)
        (folder / f"0-{blake3(other).hexdigest()}").write_bytes(other)
        if foreign == "alone":
            piece.unlink()
        assert refused(parts[-1], target).kind in ("truncated", "bit-flip")
        assert published(target) == []
        for data in parts:  # the remedy
            done = take(data, target)
        assert done.plan is not None
        assert check(target, BIG.id).go

    @pytest.mark.parametrize("lost", ["an object", "the table", "the manifest"])
    def test_an_object_that_is_lost(self, parts: list[bytes], tmp_path: Path, lost: str) -> None:
        target = tmp_path / "target"
        ids = {"an object": SOUTH.entry(ENGINE).id, "the table": BIG.manifest.table, "the manifest": BIG.manifest_id}
        first = next(part for part in parts if object_path(ids[lost]).encode() in part)
        rest = [data for data in parts if data is not first]
        assert take(first, target).lacking
        file_of(target, ids[lost]).unlink()
        for data in rest[:-1]:
            take(data, target)
        error = refused(rest[-1], target)
        assert (error.kind, published(target)) == ("incomplete-bag", [])
        for data in parts:  # the remedy
            done = take(data, target)
        assert done.plan is not None
        assert check(target, BIG.id).go
        assert check(target, SOUTH.id).go

    def test_a_store_that_has_some_needs_no_part_with_only_that(self, parts: list[bytes], tmp_path: Path) -> None:
        target = make_store(tmp_path / "target", SOUTH)
        for data in parts:  # it lacks the objects of the part that comes last
            take(data, target)
        assert check(target, BIG.id).go
        for data in (parts[-1], *parts[:-1]):  # again, in another order: nothing stays of it
            done = take(data, target)
            assert (done.plan is not None) == (data is parts[-1])
            assert len(done.lacking) in (0, len(parts) - 1)
        assert not list((target / "bags").iterdir())
        newer = make_store(tmp_path / "newer", BIG, later(SOUTH, new=b"small"))
        again = packed(newer, split=SPLIT)
        assert len(again) > 2
        new = object_path(ObjectId.of(b"small")).encode()
        needed = dict.fromkeys([again[-1], *(part for part in again if new in part)])
        assert len(needed) < len(again)
        assert [take(data, target).plan for data in needed][-1] is not None

    def test_none_takes_effect_before_all_of_its_small_files_came(self, made: Path, tmp_path: Path) -> None:
        """Also where the store has all objects, so that it needs no other part."""
        parts = packed(made, split=TIGHT)
        first = next(number for number, part in enumerate(parts) if b"flightbag.toml" in part)
        assert 0 < first < len(parts) - 2
        target = make_store(tmp_path / "target", NORTH)
        take(packed(made)[0], target)
        (target / "missions" / SOUTH.id).unlink()
        for number in (first, *range(len(parts) - 1, first + 1, -1)):
            assert take(parts[number], target).plan is None
            assert published(target) == [NORTH.id]
        assert take(parts[first + 1], target).plan is not None
        assert published(target) == [NORTH.id, SOUTH.id]

    def test_two_at_once_wait_for_each_other(self, parts: list[bytes], tmp_path: Path) -> None:
        target = tmp_path / "target"
        take(parts[0], target)
        errors: list[str] = []

        class Slow(io.BytesIO):
            def read(self, count: int | None = -1, /) -> bytes:
                if self.tell() == 1024:
                    errors.append(refused(parts[2], target).kind)
                return super().read(count)

        unpack(Slow(parts[1]), "bag.tar", target)
        assert errors == ["locked"]


def test_a_crash_at_any_operation_is_resumed(tmp_path: Path) -> None:
    """What was published stays whole, and unpacking again ends it. `tests.faults` cuts the power at every operation."""
    source = make_store(tmp_path / "source", later(SOUTH, big=bytes(range(250)) * 40))
    before, parts = make_store(tmp_path / "before", NORTH), packed(source, split=8192)

    def run(target: Path, disk: Disk | None) -> None:
        for data in parts:
            take(data, target, disk)

    counted = copy_of(before, tmp_path / "counted")
    disk = Recorded()
    run(counted, disk)
    seen = [(name, path.removeprefix(f"{counted}/")) for name, path in disk.operations]
    # The last of each kind: the same operation under the same top folder.
    kinds = {(name, path.partition("/")[0]): at for at, (name, path) in enumerate(seen)}
    assert len(kinds) > 15
    for stop in sorted(kinds.values()):
        target = copy_of(before, tmp_path / "target")
        with pytest.raises(PowerFails):
            run(target, PowerCut(stop))
        assert check(target, NORTH.id).go, seen[stop]
        assert not (target / "missions" / SOUTH.id).exists() or check(target, SOUTH.id).go, seen[stop]
        run(target, None)
        assert check(target, SOUTH.id).go, seen[stop]
        assert not audit(target).errors, seen[stop]
        shutil.rmtree(target)


def test_kills_at_random_moments_lose_nothing_and_nothing_is_written_twice(tmp_path: Path) -> None:
    """SIGKILL to the one that unpacks, whole bags and parts; `make drill` kills it a hundred times."""
    source = make_store(tmp_path / "source", BIG, SOUTH)
    chance, target = Random(17), tmp_path / "target"
    started = time.monotonic()
    datas = (packed(source), packed(source, split=SPLIT))
    for data in datas[1]:
        take(data, target)
    seconds = time.monotonic() - started

    def work(bags: list[bytes]) -> int:
        for data in bags:
            take(data, target)
        return 0

    for _ in range(100 if "FLIGHTBAG_DRILL" in os.environ else 6):
        shutil.rmtree(target)
        bags = chance.choice(datas)
        killed_after(partial(work, bags), chance.random() * seconds)
        assert not list(target.glob("missions/*")) or check(target, BIG.id).go
        whole = {path.name for path in target.glob("objects/*/*")}
        outcomes = [take(data, target) for data in bags]
        assert outcomes[-1].plan is not None
        assert sum(one.present for one in outcomes) >= len(whole)
        assert check(target, BIG.id).go
        assert check(target, SOUTH.id).go
        assert not audit(target).errors


def test_an_object_that_finds_no_room_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.remotes.unpack._LARGE", 1000)
    source = make_store(tmp_path / "source", BIG)
    data = packed(source)[0]
    real = os.statvfs

    class Full:
        f_bavail, f_frsize, f_blocks = 1, 4096, 100

    monkeypatch.setattr(os, "statvfs", lambda path: Full() if isinstance(path, str) else real(path))
    error = refused(data, tmp_path / "target")
    assert (error.kind, error.fields["actual"]) == ("no-space", 4096)
    monkeypatch.undo()
    take(data, tmp_path / "target")
    assert check(tmp_path / "target", BIG.id).go


def publish_sparse(store: Path, size: int) -> None:
    """Publish NORTH anew with one more object, of zeros that take no room."""
    hasher = blake3()
    for _ in range(size // 2**20):
        hasher.update(bytes(2**20))
    id_ = ObjectId(hasher.digest())
    file_of(store, id_).parent.mkdir(exist_ok=True)
    with open(file_of(store, id_), "wb") as file:
        file.truncate(size)
    table = sorted_table([*NORTH.table.entries, replace(entry("files/zeros", b""), id=id_, size=size)])
    facts, issue = NORTH.manifest.mission, NORTH.manifest.issue
    publish(store, flight(table=table, mission=facts, issue=replace(issue, sequence=issue.sequence + 1)))


@pytest.mark.parametrize("size", [300 * 2**20 if "FLIGHTBAG_DRILL" not in os.environ else 4 * 2**30])
def test_memory_is_constant_over_a_pipe(tmp_path: Path, size: int) -> None:
    """One large object, sparse at its source, from one process through a pipe into another; each counts its memory."""
    source = tmp_path / "source"
    publish_sparse(make_store(source, NORTH), size)
    script = """
import resource, sys, threading
from store.ground.repository import Repository
from store.remotes.pack import plan_pack, write_part
from store.remotes.unpack import unpack
if sys.argv[1] == "pack":
    with Repository.open(sys.argv[2]) as source:
        write_part(plan_pack(source, None, ()), 0, source, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
else:
    assert unpack(sys.stdin.buffer, "-", sys.argv[2]).plan
with open("/proc/self/status") as file:
    print(next(line for line in file if line.startswith("VmHWM")).split()[1], file=sys.stderr)
"""
    packer = subprocess.Popen(
        [sys.executable, "-c", script, "pack", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False
    )
    unpacker = subprocess.run(
        [sys.executable, "-c", script, "unpack", tmp_path / "target"],
        stdin=packer.stdout,
        capture_output=True,
        timeout=500,
    )
    _, told = packer.communicate(timeout=60)
    assert (packer.returncode, unpacker.returncode) == (0, 0), told + unpacker.stderr
    for peak in (int(told), int(unpacker.stderr)):
        assert peak < 120_000, peak  # KiB; an interpreter with the store's modules has some 50,000
    assert check(tmp_path / "target", NORTH.id).go
