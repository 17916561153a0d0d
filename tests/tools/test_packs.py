"""`pack` and `unpack`: files, pipes and parts; what people and machines read of them; statuses."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from store.errors import Invalid
from tests.store.remotes.test_pack import a_receipt
from tests.support.commands import BIN, flightbag, program
from tests.support.missions import ROOT, flight, sign_root
from tests.support.sshd import needs_sshd, running
from tests.support.stores import NORTH, ROOT_FILE, SOUTH, check, copy_of, flip, later, make_store, publish
from tools.packs import size_of

BIG = later(NORTH, big=os.urandom(300_000))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("packs") / "ground", BIG, SOUTH)


def test_a_file_there_and_back(source: Path, tmp_path: Path) -> None:
    ran = flightbag("pack", source, NORTH.id, "-o", tmp_path / "bag.tar")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.splitlines()[1:] == [
        f"missions: {NORTH.id}",
        f"wrote {tmp_path / 'bag.tar'}, {(tmp_path / 'bag.tar').stat().st_size / 1000:.1f} kB",
    ]
    ran = flightbag("unpack", tmp_path / "stick", tmp_path / "bag.tar")
    assert (ran.status, ran.err) == (0, "")
    assert "updated north-ridge" in ran.out
    assert check(tmp_path / "stick", NORTH.id).go
    again = flightbag("unpack", tmp_path / "stick", tmp_path / "bag.tar", "--json")
    assert again.status == 0
    (bag,) = again.json["bags"]
    assert (bag["inserted"], bag["missions"], bag["unchanged"], bag["lacking"]) == (0, [], [NORTH.id], [])


def test_parts_in_any_order_at_once_and_one_by_one(source: Path, tmp_path: Path) -> None:
    ran = flightbag("pack", source, "-o", tmp_path / "bag.tar", "--split", "100kB", "--json")
    assert ran.status == 0
    paths = [one["path"] for one in ran.json["files"]]
    assert len(paths) > 3
    assert all(one["bytes"] == os.path.getsize(one["path"]) <= 100_000 for one in ran.json["files"])
    assert flightbag("unpack", tmp_path / "at-once", *reversed(paths)).status == 0
    assert check(tmp_path / "at-once", NORTH.id).go
    ran = flightbag("unpack", tmp_path / "stick", paths[2])
    assert ran.status == 1
    assert ran.out.splitlines()[1].startswith("still to come: parts 1, 2, 4")
    assert not check(tmp_path / "stick", NORTH.id).go
    for path in (*paths[:2], *paths[3:-1]):
        assert flightbag("unpack", tmp_path / "stick", path).status == 1
    assert flightbag("unpack", tmp_path / "stick", paths[-1]).status == 0
    assert check(tmp_path / "stick", NORTH.id).go


def test_a_damaged_part_stops_no_other(source: Path, tmp_path: Path) -> None:
    ran = flightbag("pack", source, "-o", tmp_path / "bag.tar", "--split", "100kB", "--json")
    paths = [Path(one["path"]) for one in ran.json["files"]]
    good = paths[1].read_bytes()
    flip(paths[1], 50_000)
    ran = flightbag("unpack", tmp_path / "stick", *paths)
    assert ran.status == 1
    assert "still to come: part 2 of" in ran.out
    assert str(paths[1]) in ran.err
    ran = flightbag("unpack", tmp_path / "stick", *paths, "--json")
    assert ran.status == 1
    assert [one["error"]["kind"] for one in ran.json["bags"] if "error" in one] == ["bit-flip"]
    paths[1].write_bytes(good)
    assert flightbag("unpack", tmp_path / "stick", paths[1]).status == 0


def test_against_a_store(source: Path, tmp_path: Path) -> None:
    stick = make_store(tmp_path / "stick", SOUTH)
    whole = flightbag("pack", source, "-o", tmp_path / "whole.tar", "--json").json
    ran = flightbag("pack", source, "-o", tmp_path / "bag.tar", "--against", stick, "--json")
    assert ran.json["objects"] == whole["objects"] - len(list(stick.glob("objects/*/*")))
    assert flightbag("unpack", stick, tmp_path / "bag.tar").status == 0
    assert check(stick, NORTH.id).go
    newer = later(SOUTH)
    publish(stick, newer)
    ran = flightbag("pack", source, "-o", tmp_path / "bag.tar", "--against", stick)
    assert ran.status == 1
    assert "NOT packed, because the other side has a newer one: south-ridge" in ran.out


def test_against_a_receipt(source: Path, tmp_path: Path) -> None:
    (tmp_path / "receipt").write_bytes(a_receipt(make_store(tmp_path / "stick", NORTH)).data)
    ground = make_store(tmp_path / "ground", NORTH)
    publish(ground, BIG)
    ran = flightbag("pack", ground, "-o", tmp_path / "bag.tar", "--against", tmp_path / "receipt", "--json")
    assert (ran.status, ran.json["objects"]) == (0, 3)
    assert flightbag("unpack", tmp_path / "stick", tmp_path / "bag.tar").status == 0
    assert check(tmp_path / "stick", NORTH.id).go
    ran = flightbag("pack", ground, "-o", tmp_path / "bag.tar", "--against", tmp_path / "receipt", "--delta")
    assert (ran.status, "--delta needs --against STORE" in ran.err) == (2, True)
    ran = flightbag("pack", ground, "-o", tmp_path / "bag.tar", "--against", tmp_path / "bag.tar")
    assert ran.status == 1
    assert f"{tmp_path / 'bag.tar'} is no receipt" in ran.err
    assert "-> give the folder of a store, or a file of receipts/" in ran.err
    ran = flightbag("unpack", tmp_path / "bag.tar", tmp_path / "new")
    assert (ran.status, f"give the store first: {tmp_path / 'new'}" in ran.err) == (2, True)
    ran = flightbag("unpack", tmp_path / "new", tmp_path / "there")
    assert (ran.status, "STORE comes first, then the bags" in ran.err) == (3, True)


def test_through_a_pipe_between_programs(source: Path, tmp_path: Path) -> None:
    packer = subprocess.Popen(
        [BIN / "flightbag", "pack", source, "-o", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    unpacker = program("flightbag", "unpack", tmp_path / "stick", "-", stdin=packer.stdout)
    assert packer.stdout is not None
    packer.stdout.close()
    _, told = packer.communicate(timeout=60)
    assert (packer.returncode, unpacker.status) == (0, 0), told + unpacker.err.encode()
    assert told.decode().splitlines()[-1].startswith("wrote standard output, ")
    assert check(tmp_path / "stick", NORTH.id).go


@needs_sshd
def test_through_ssh(source: Path, tmp_path: Path) -> None:
    with running(tmp_path / "sshd") as server:
        there = f"{BIN}/flightbag unpack {tmp_path}/stick -"
        line = f"{BIN}/flightbag pack {source} -o - | ssh hangar {there}"
        env = {**os.environ, "PATH": server.path}
        ran = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, env=env, timeout=120
        )
    assert ran.returncode == 0, ran.stderr
    assert "updated north-ridge, south-ridge" in ran.stdout
    assert check(tmp_path / "stick", NORTH.id).go


def test_a_reader_that_goes(source: Path) -> None:
    with subprocess.Popen(
        [BIN / "flightbag", "pack", source, "-o", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as packer:
        assert packer.stdout is not None
        packer.stdout.close()
        assert packer.wait(60) == 141


def test_through_a_fifo(source: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with subprocess.Popen([BIN / "flightbag", "unpack", tmp_path / "stick", tmp_path / "fifo"]) as unpacker:
        assert flightbag("pack", source, "-o", tmp_path / "fifo").status == 0
        assert unpacker.wait(60) == 0
    assert check(tmp_path / "stick", NORTH.id).go


@pytest.mark.parametrize(
    ("status", "args"),
    [
        (2, ("pack", "STORE")),
        (2, ("pack", "STORE", "-o", "-", "--split", "1MB")),
        (2, ("pack", "STORE", "-o", "-", "--json")),
        (2, ("pack", "STORE", "-o", "/dev/null", "--split", "1MB")),
        (2, ("pack", "STORE", "-o", "STORE/bag.tar")),
        (2, ("pack", "STORE", "-o", "OUT/bag.tar", "--split", "1 megabyte")),
        (2, ("pack", "STORE", "-o", "OUT/bag.tar", "--split", "1kB")),
        (1, ("pack", "STORE", "nowhere", "-o", "OUT/bag.tar")),
        (3, ("pack", "STORE", "-o", "OUT/no/folder/bag.tar")),
        (3, ("pack", "STORE", "-o", "OUT/bag.tar", "--against", "OUT")),
        (0, ("pack", "STORE", "-o", "/dev/null")),
        (3, ("unpack", "OUT/bag.tar")),
        (3, ("unpack", "OUT/stick", "OUT/none.tar")),
        (2, ("unpack", "OUT/stick", "OUT")),
        (1, ("unpack", "OUT/stick", "STORE/flightbag.toml")),
        (1, ("unpack", "OUT/stick", "/dev/null")),
    ],
)
def test_statuses(source: Path, tmp_path: Path, status: int, args: tuple[str, ...]) -> None:
    given = [one.replace("STORE", str(source)).replace("OUT", str(tmp_path)) for one in args]
    ran = flightbag(*given)
    assert ran.status == status, ran.out + ran.err
    assert os.listdir(tmp_path) == []


def test_two_parts_given_and_no_store(source: Path, tmp_path: Path) -> None:
    paths = [
        one["path"]
        for one in flightbag("pack", source, "-o", tmp_path / "b.tar", "--split", "200kB", "--json").json["files"]
    ]
    ran = flightbag("unpack", *paths)
    assert ran.status == 2
    assert "is not a folder" in ran.err


def test_sizes() -> None:
    assert [size_of(text) for text in ("1", "700MB", "4GB", "1.5 kB", "512B", "2TB")] == [
        1,
        700_000_000,
        4_000_000_000,
        1500,
        512,
        2 * 10**12,
    ]
    for text in ("", "-1", "1KB", "4GiB", "1e9", "MB", "4gb", "0x10"):
        with pytest.raises(Invalid):
            size_of(text)


def test_a_bag_from_elsewhere_is_refused(source: Path, tmp_path: Path) -> None:
    root = replace(ROOT, domain="elsewhere")
    make_store(tmp_path / "other", flight(root=root), root=sign_root(root, "root-a"))
    flightbag("pack", tmp_path / "other", "-o", tmp_path / "bag.tar")
    stick = make_store(tmp_path / "stick", SOUTH, root=ROOT_FILE)
    ran = flightbag("unpack", stick, tmp_path / "bag.tar")
    assert ran.status == 1
    assert "another trust domain" in ran.err
    assert check(stick, SOUTH.id).go


def test_a_difference_needs_what_it_is_from(source: Path, tmp_path: Path) -> None:
    ran = flightbag("pack", source, "-o", tmp_path / "bag.tar", "--delta")
    assert ran.status == 2
    assert "--against STORE" in ran.err
    there = copy_of(source, tmp_path / "there")
    ran = flightbag("pack", source, "-o", tmp_path / "bag.tar", "--against", there, "--delta", "--json")
    assert json.loads(ran.out)["differences"] == 0
