"""`sync` and `fsck` with a bucket, as they are typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.disk.media import object_path
from tests.support.commands import flightbag
from tests.support.s3 import ACCESS, SECRET, Server
from tests.support.stores import NORTH, SHARD, SOUTH, check, make_store

URL = "s3://fleet/typed"


@pytest.fixture(scope="module", autouse=True)
def environment(storage: Server) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in storage.environment.items():
            patch.setenv(name, value)
        yield


def test_there_back_and_audited(tmp_path: Path) -> None:
    ground, stick = make_store(tmp_path / "ground"), tmp_path / "stick"
    planned = flightbag("sync", ground, URL, "--dry-run", "--json")
    assert planned.status == 0
    assert flightbag("fsck", URL).status == 8  # nothing is there yet
    sent = flightbag("sync", ground, URL, stick, "--json")
    assert sent.status == 0, sent.err
    assert [one["copied"] for one in sent.json["destinations"]] == [planned.json["copied"]] * 2
    again = flightbag("sync", ground, URL)
    assert again.out.startswith("copied 0 objects")
    assert "unchanged north-ridge, south-ridge" in again.out
    assert flightbag("sync", URL, tmp_path / "back", "--mission", NORTH.id).status == 0
    assert check(tmp_path / "back", NORTH.id).go
    assert flightbag("sync", URL, tmp_path / "back", "--clean").status == 0
    assert check(tmp_path / "back", SOUTH.id).go
    full = flightbag("fsck", URL, "--full")
    assert full.status == 0
    assert full.out.splitlines()[-1].startswith("clean: ")
    assert flightbag("fsck", URL, "--json").status == 0


def test_a_damage_is_named_with_a_remedy_that_mends(tmp_path: Path) -> None:
    from obstore.store import S3Store

    url = "s3://fleet/damaged"
    ground = make_store(tmp_path / "ground")
    assert flightbag("sync", ground, url).status == 0
    S3Store("fleet").put(f"damaged/{object_path(NORTH.entry(SHARD).id)}", b"?" * NORTH.entry(SHARD).size)
    assert flightbag("fsck", url).status == 0
    found = flightbag("fsck", url, "--full")
    assert found.status == 4
    assert f"flightbag sync --checksum STORE {url}" in found.out
    assert flightbag("sync", url, tmp_path / "stick").status == 1
    assert flightbag("sync", "--checksum", ground, url).status == 0
    assert flightbag("fsck", url, "--full").status == 0


@pytest.mark.parametrize(
    ("more", "status", "text"),
    [
        (("sync", "{ground}", "s3://fleet/a", "--clean"), 2, "--clean removes nothing from another machine"),
        (("sync", "s3://fleet/a", "s3://fleet/b"), 2, "goes to one folder"),
        (("sync", "{ground}", "s3://fleet/../a"), 2, "address of the bucket is malformed"),
        (("sync", "{ground}", "s3://nowhere/a"), 3, "the bucket does not exist"),
        (("sync", "s3://fleet/nothing", "{tmp}/new"), 3, "has no flightbag.toml"),
        (("fsck", "s3://fleet/nothing"), 8, "has no flightbag.toml"),
        (("fsck", "s3://fleet/a", "--repair"), 16, "are for folders"),
        (("fsck", "s3://nowhere/a"), 8, "the bucket does not exist"),
    ],
)
def test_what_cannot_be_done_says_why(tmp_path: Path, more: tuple[str, ...], status: int, text: str) -> None:
    ground = make_store(tmp_path / "ground", NORTH)
    ran = flightbag(*(one.format(ground=ground, tmp=tmp_path) for one in more))
    assert (ran.status, text in ran.out + ran.err) == (status, True), ran.out + ran.err
    assert not (tmp_path / "new").exists()


def test_no_secret_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ground = make_store(tmp_path / "ground", NORTH)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "words-that-nobody-may-read")
    for command in (
        ("sync", ground, URL),
        ("sync", URL, tmp_path / "new"),
        ("fsck", URL),
        ("sync", ground, URL, "--json"),
    ):
        ran = flightbag(*command)
        assert ran.status in (3, 8)
        assert "the credentials are refused" in ran.out + ran.err
        assert not {"words-that-nobody-may-read", SECRET} & set((ran.out + ran.err).split())
        assert "Signature=" not in ran.out + ran.err
    ran = flightbag("sync", ground, f"s3://{ACCESS}:words-that-nobody-may-read@fleet/north")
    assert ran.status == 2
    assert "words-that-nobody-may-read" not in ran.out + ran.err


def test_a_bucket_is_one_of_several_destinations(tmp_path: Path) -> None:
    ground = make_store(tmp_path / "ground", NORTH)
    ran = flightbag("sync", ground, "s3://nowhere/a", tmp_path / "stick", "s3://fleet/several", "--json")
    assert ran.json["failed"] == ["s3://nowhere/a"]
    assert check(tmp_path / "stick", NORTH.id).go
    assert flightbag("fsck", "s3://fleet/several", "--full").status == 0
