"""Packs: the same store gives the same bytes, in publication order; any tar reads them; no part is too large."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from store.disk.durable import Disk
from store.disk.locks import Locked
from store.disk.media import object_path
from store.errors import Conflict, Corrupt, Invalid, NotFound, Unavailable, Untrusted
from store.format.ids import ObjectId
from store.ground import receipts
from store.ground.gc import collect
from store.ground.repository import Repository, SmallFile
from store.ground.sync import held
from store.ground.trust_chain import put_into_effect
from store.remotes.pack import Item, Pack, carried_by, into_parts, plan_pack, write_files, write_part
from store.remotes.tar import BLOCK
from store.remotes.unpack import unpack
from tests.faults.disks import PowerCut, PowerFails, Recorded
from tests.support.missions import NOW, ROOT, flight, key, next_root, sign_root
from tests.support.stores import (
    ENGINE,
    NORTH,
    SOUTH,
    audit,
    check,
    copy_of,
    file_of,
    flip,
    later,
    listing,
    make_store,
    overwrite,
    publish,
)

BIG = later(NORTH, big=bytes(range(256)) * 4000, small=b"")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("made") / "source")


@pytest.fixture
def source(made: Path, tmp_path: Path) -> Path:
    return copy_of(made, tmp_path / "source")


def packed(source: Path, *missions: str, against: Path | None = None, split: int | None = None) -> list[bytes]:
    """The bytes of each part."""
    with Repository.open(source) as here:
        if against is None:
            pack = plan_pack(here, None, missions, split=split)
        else:
            with Repository.open(against) as there:
                pack = plan_pack(here, there, missions, split=split)
        return [part_of(pack, number, here) for number in range(len(pack.parts))]


def part_of(pack: Pack, number: int, source: Repository) -> bytes:
    out = bytearray()
    write_part(pack, number, source, out.extend)
    assert len(out) == pack.sizes[number]
    return bytes(out)


def names_in(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getnames()


class TestTheBag:
    def test_the_same_store_and_missions_give_the_same_bytes(self, source: Path, tmp_path: Path) -> None:
        first = packed(source, NORTH.id, SOUTH.id)
        os.utime(source / "trust/1.root.cbor", (1, 1))
        assert packed(copy_of(source, tmp_path / "copy"), SOUTH.id, NORTH.id, NORTH.id) == first
        assert packed(source, NORTH.id) != first

    def test_the_order_is_the_one_of_a_publication(self, source: Path) -> None:
        names = names_in(packed(source)[0])
        manifests = sorted([object_path(NORTH.manifest_id), object_path(SOUTH.manifest_id)])
        tail = ["flightbag.toml", "log", "trust/1.root.cbor", f"missions/{NORTH.id}", f"missions/{SOUTH.id}"]
        assert names[-7:] == [*manifests, *tail]
        assert all(name.startswith("objects/") for name in names[:-5])
        assert names[:-7] == sorted(names[:-7])
        assert len(names) == len(set(names)) == len(list((source / "objects").glob("*/*"))) + 5

    def test_nothing_of_this_machine_is_in_it(self, source: Path) -> None:
        with tarfile.open(fileobj=io.BytesIO(packed(source)[0])) as tar:
            assert {(one.mtime, one.uid, one.gid, one.uname, one.gname) for one in tar} == {(0, 0, 0, "", "")}

    @pytest.mark.parametrize("program", ["tar", "bsdtar"])  # GNU's, and the one of macOS and Windows
    def test_plain_tar_makes_a_store_of_it(self, source: Path, tmp_path: Path, program: str) -> None:
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} (libarchive-tools)")
        (tmp_path / "out").mkdir()
        data = packed(source)[0]
        ran = subprocess.run(
            [program, "-xf", "-"], cwd=tmp_path / "out", input=data, capture_output=True, check=True, timeout=60
        )
        assert ran.stderr == b""
        assert check(tmp_path / "out", NORTH.id).go
        assert check(tmp_path / "out", SOUTH.id).go
        assert not audit(tmp_path / "out").findings

    @pytest.mark.parametrize("cut", [0.3, 0.7, 0.95])
    def test_plain_tar_that_ends_early_leaves_no_mission(self, source: Path, tmp_path: Path, cut: float) -> None:
        (tmp_path / "out").mkdir()
        data = packed(source)[0]
        data = data[: int((len(data) - 4 * BLOCK - 1024) * cut)]
        subprocess.run(["tar", "xf", "-"], cwd=tmp_path / "out", input=data, capture_output=True, timeout=60)
        assert not (tmp_path / "out" / "missions").exists()

    def test_names_are_safe_everywhere(self, source: Path) -> None:
        for name in names_in(packed(source)[0]):
            assert name == name.lower()
            assert name.isascii()
            assert not set(name) & set('<>:"\\|?* ')

    def test_a_mission_that_is_not_there(self, source: Path) -> None:
        with pytest.raises(NotFound):
            packed(source, "nowhere")

    def test_all_trust_roots_go(self, source: Path) -> None:
        root = next_root(ROOT, issued_at=NOW)
        with Repository.open(source) as repository:
            put_into_effect(repository, 2, sign_root(root, "root-a"), at=NOW)
        assert names_in(packed(source)[0])[-4:-2] == ["trust/1.root.cbor", "trust/2.root.cbor"]


class TestAgainst:
    def test_only_what_the_other_side_lacks_and_every_ref(self, source: Path, tmp_path: Path) -> None:
        there = make_store(tmp_path / "there", NORTH)
        names = names_in(packed(source, against=there)[0])
        objects = [name for name in names if name.startswith("objects/")]
        assert objects
        assert not any((there / name).exists() for name in objects)
        assert names[-2:] == [f"missions/{NORTH.id}", f"missions/{SOUTH.id}"]
        assert unpack(io.BytesIO(packed(source, against=there)[0]), "bag.tar", there).plan is not None
        assert check(there, SOUTH.id).go

    def test_a_store_of_another_domain(self, source: Path, tmp_path: Path) -> None:
        root = replace(ROOT, domain="elsewhere")
        there = make_store(tmp_path / "there", flight(root=root), root=sign_root(root, "root-a"))
        with pytest.raises(Conflict):
            packed(source, against=there)


class TestAgainstAReceipt:
    """What an aircraft has verified stays at home."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        store = make_store(tmp_path / "source", NORTH)
        publish(store, later(NORTH, new=b"small"))
        return store

    def pack(self, source: Path, receipt: bytes) -> bytes:
        with Repository.open(source) as here:
            return part_of(plan_pack(here, None, (), carried=carried_by(here, receipt, "uav.receipt")), 0, here)

    def test_only_what_it_does_not_name(self, source: Path, tmp_path: Path) -> None:
        there = make_store(tmp_path / "there", NORTH)
        data = self.pack(source, a_receipt(there).data)
        new = later(NORTH, new=b"small")
        objects = {name for name in names_in(data) if name.startswith("objects/")}
        assert objects == {object_path(id_) for id_ in (ObjectId.of(b"small"), new.manifest.table, new.manifest_id)}
        assert "log" not in names_in(data)
        assert unpack(io.BytesIO(data), "bag.tar", there).plan is not None
        assert check(there, NORTH.id).go
        with pytest.raises(Corrupt) as caught:  # a receipt is a claim
            unpack(io.BytesIO(data), "bag.tar", tmp_path / "elsewhere")
        assert caught.value.kind == "incomplete-bag"

    def test_what_is_no_such_receipt(self, source: Path, tmp_path: Path) -> None:
        there = make_store(tmp_path / "there", NORTH)
        whole = a_receipt(there).data
        with pytest.raises((Corrupt, Untrusted)):
            self.pack(source, whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(Corrupt, match=r"uav\.receipt is no receipt") as caught:
            self.pack(source, bytes(100_000))
        assert "receipts/" in caught.value.remedy
        flown = replace(receipts.parsed(whole, ROOT), verified=None, aircraft="uav-07", clock="known")
        with pytest.raises(Invalid):
            self.pack(source, receipts.signed(flown, key("uav"), ROOT).data)

    def test_a_manifest_that_is_gone(self, source: Path, tmp_path: Path) -> None:
        receipt = a_receipt(make_store(tmp_path / "there", NORTH)).data
        file_of(source, NORTH.manifest_id).unlink()
        with pytest.raises(NotFound) as caught:
            self.pack(source, receipt)
        assert str(NORTH.manifest_id) in caught.value.message


def a_receipt(store: Path) -> SmallFile:
    """The receipt of a takeoff check of NORTH."""
    signer = key("uav")
    return receipts.signed(receipts.of_check(check(store, NORTH.id), signer.public), signer, ROOT)


class TestParts:
    @pytest.mark.parametrize("split", [100_000, 40_448, 50_001])
    def test_no_part_is_larger_and_together_they_are_the_bag(self, tmp_path: Path, split: int) -> None:
        source = make_store(tmp_path / "source", BIG)
        parts = packed(source, split=split)
        assert len(parts) > 10
        assert all(len(part) <= split for part in parts)
        assert packed(source, split=split) == parts
        whole = set(names_in(packed(source)[0]))
        big = object_path(BIG.entry("files/big").id)
        in_parts = [name for part in parts for name in names_in(part)]
        assert {name for name in in_parts if not name.startswith("bags/")} == whole - {big}
        pieces = [name for name in in_parts if name.startswith("bags/")]
        assert all(big.replace("objects/", "").replace("/", "") in name for name in pieces)

    @given(st.lists(st.integers(0, 60_000), max_size=12), st.integers(0, 3), st.integers(6_000, 40_000))
    def test_every_byte_is_in_one_part(self, sizes: list[int], small: int, split: int) -> None:
        """Whatever the objects are: in their order, none twice, none lost, no part too large, none empty."""
        objects = [Item(str(at), size, object=ObjectId(bytes(32)), whole=size) for at, size in enumerate(sizes)]
        files = [Item(f"missions/{at}", 65, bytes(65)) for at in range(small)]
        parts = into_parts([*objects, *files], split)
        room = split // BLOCK * BLOCK - 4 * BLOCK
        assert all(sum(item.padded for item in part) <= room for part in parts)
        assert all(parts) or parts == [[]]
        bytes_of = {item.path: 0 for item in (*objects, *files)}
        for item in (item for part in parts for item in part):
            assert item.offset == bytes_of[item.path]
            bytes_of[item.path] += item.size
        assert bytes_of == {item.path: item.size for item in (*objects, *files)}
        assert list(dict.fromkeys(item.path for part in parts for item in part)) == list(bytes_of)

    def test_pieces_hash_to_their_names_and_make_up_the_object(self, tmp_path: Path) -> None:
        source = make_store(tmp_path / "source", BIG)
        whole = b""
        for part in packed(source, split=100_000):
            with tarfile.open(fileobj=io.BytesIO(part)) as tar:
                for one in tar:
                    if one.name.startswith("bags/"):
                        data = tar.extractfile(one).read()  # type: ignore[union-attr]
                        offset, digest = one.name.rsplit("/", 1)[1].split("-")
                        assert (int(offset), digest) == (len(whole), blake3(data).hexdigest())
                        whole += data
        assert hashlib.sha256(whole).digest() == hashlib.sha256(BIG.contents["files/big"]).digest()

    def test_parts_that_are_too_small_say_how_large_they_must_be(self, source: Path) -> None:
        with pytest.raises(Invalid) as caught:
            packed(source, split=2048)
        least = int(caught.value.remedy.split()[2])
        assert all(len(part) <= least for part in packed(source, split=least))
        with pytest.raises(Invalid):
            packed(source, split=least - BLOCK)

    def test_parts_that_no_file_could_be(self, source: Path) -> None:
        assert len(packed(source, split=2**63 - 1)) == 1
        for split in (2**63, 2**64, 10**24):
            with pytest.raises(Invalid, match="leave out --split"):
                packed(source, split=split)

    def test_too_many_parts(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("store.remotes.pack.MAX_PARTS", 1)
        with pytest.raises(Invalid):
            packed(source, split=6000)


class TestADamagedStore:
    @pytest.mark.parametrize("damage", ["bit-flip", "truncated", "oversized"])
    @pytest.mark.parametrize("split", [None, 100_000])
    def test_no_bag_comes_of_a_damaged_object(self, tmp_path: Path, damage: str, split: int | None) -> None:
        source = make_store(tmp_path / "source", BIG)
        path = file_of(source, BIG.entry("files/big").id)
        if damage == "bit-flip":
            flip(path, 700_000)
        else:
            overwrite(path, lambda data: data[:-1] if damage == "truncated" else data + b"x")
        with Repository.open(source) as here:
            pack = plan_pack(here, None, (), split=split)
            with pytest.raises(Corrupt) as caught:
                write_files(pack, here, tmp_path / "bag.tar")
        assert (caught.value.kind, caught.value.object_id) == (damage, str(BIG.entry("files/big").id))
        assert not [name for name in os.listdir(tmp_path) if name.endswith(".partial")]
        assert not (tmp_path / "bag.tar").exists()

    def test_an_object_that_is_missing(self, source: Path) -> None:
        file_of(source, NORTH.entry(ENGINE).id).unlink()
        with pytest.raises(NotFound):
            packed(source)


class TestFiles:
    def test_they_are_whole_or_absent(self, source: Path, tmp_path: Path) -> None:
        with Repository.open(source) as here:
            pack = plan_pack(here, None, ())
            disk = Recorded()
            assert write_files(pack, here, tmp_path / "bag.tar", disk=disk) == [str(tmp_path / "bag.tar")]
            names = [name for name, _ in disk.operations]
            assert names == ["remove", "create", "write", "sync", "rename", "sync-directory"]
            (tmp_path / "bag.tar").unlink()
            for stop in range(len(names) - 1):
                with pytest.raises(PowerFails):
                    write_files(pack, here, tmp_path / "bag.tar", disk=PowerCut(stop))
                assert not (tmp_path / "bag.tar").exists()
            # What a crash left is in nobody's way, and a bag that lies there is replaced.
            write_files(pack, here, tmp_path / "bag.tar")
            write_files(pack, here, tmp_path / "bag.tar")
        assert (tmp_path / "bag.tar").read_bytes() == packed(source)[0]
        assert sorted(os.listdir(tmp_path)) == ["bag.tar", "source"]

    def test_parts_are_named_in_their_order(self, tmp_path: Path) -> None:
        source = make_store(tmp_path / "source", BIG)
        with Repository.open(source) as here:
            paths = write_files(plan_pack(here, None, (), split=100_000), here, tmp_path / "bag.tar")
        assert len(paths) > 10
        assert [os.path.basename(path) for path in paths[:2]] == [
            f"bag.01-of-{len(paths)}.tar",
            f"bag.02-of-{len(paths)}.tar",
        ]
        assert paths == sorted(paths)

    def test_nothing_else_is_replaced(self, source: Path, tmp_path: Path) -> None:
        (tmp_path / "map.tif").write_bytes(b"II*\0")
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "fifo")
        with Repository.open(source) as here:
            pack = plan_pack(here, None, ())
            for target in ("map.tif", "folder", "fifo", "source/bag.tar", "source/objects/bag.tar"):
                with pytest.raises(Invalid):
                    write_files(pack, here, tmp_path / target)
        assert (tmp_path / "map.tif").read_bytes() == b"II*\0"

    def test_a_folder_that_is_not_there_and_a_full_one(self, source: Path, tmp_path: Path) -> None:
        with Repository.open(source) as here:
            pack = plan_pack(here, None, ())
            with pytest.raises(Unavailable):
                write_files(pack, here, tmp_path / "nowhere" / "bag.tar")

            class Full(Disk):
                def write(self, fd: int, data: bytes | bytearray | memoryview, path: str) -> None:
                    raise Unavailable("full", kind="unwritable")

            with pytest.raises(Unavailable):
                write_files(pack, here, tmp_path / "bag.tar", disk=Full())
        assert os.listdir(tmp_path) == ["source"]


def test_the_store_is_only_read_and_a_collection_waits(source: Path) -> None:
    publish(source)  # the lock is there
    before = listing(source, but=("lock",))
    with Repository.open(source) as here, held(here):
        with pytest.raises(Locked):
            collect(here, now=NOW, grace=0.0)
        packed(source)
    assert listing(source, but=("lock",)) == before
    shutil.rmtree(source / "lock")
    with Repository.open(source) as here, held(here):
        assert not (source / "lock").exists()
