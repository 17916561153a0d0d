"""A trust root takes effect in one order: checks, log line, file."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from store.disk import log
from store.disk.durable import Disk
from store.errors import Corrupt, FlightbagError, NotFound, Refused, Unavailable, Untrusted
from store.format.manifest import SKEW
from store.ground.repository import Repository
from store.ground.trust_chain import check_continues_chain, put_into_effect, rotate
from store.trust.draft import RootDraft
from store.trust.root import SignedRoot
from tests.support.missions import NOW, ROOT, key, next_root, sign_root
from tests.support.stores import NORTH, listing, make_store

SECOND = next_root(ROOT, issued_at=NOW)
THIRD = next_root(SECOND)
SIGNED = sign_root(SECOND, "root-a")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store", NORTH)


def rotated(store: Path) -> list[object]:
    with Repository.open(store) as repository:
        return [event.facts["version"] for event in log.events(repository.media) if event.event == "rotated"]


def test_the_root_has_a_line_and_a_file_and_judges(store: Path) -> None:
    with Repository.open(store) as repository:
        assert put_into_effect(repository, 2, SIGNED, at=NOW).root == SECOND
        assert repository.trust_root().root == SECOND
        event = log.events(repository.media)[-1]
    assert (event.at, event.event) == (NOW, "rotated")
    assert event.facts == {"version": 2, "digest": SECOND.digest.hex()}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", Corrupt),
        (sign_root(SECOND), Untrusted),
        (sign_root(SECOND, "pilot"), Untrusted),
        (sign_root(next_root(ROOT, epoch=2, previous=bytes(32)), "root-a"), Untrusted),
        (sign_root(THIRD, "root-a"), NotFound),
        (sign_root(replace(ROOT, domain="elsewhere"), "root-a"), Corrupt),
    ],
    ids=["no root", "unsigned", "another signer", "another root before it", "a hole in the chain", "a first root"],
)
def test_nothing_is_written_for_a_root_that_does_not_continue_the_chain(
    store: Path, data: bytes, expected: type[FlightbagError]
) -> None:
    version = 3 if data == sign_root(THIRD, "root-a") else 2
    before = listing(store)
    with Repository.open(store) as repository:
        with pytest.raises(expected):
            check_continues_chain(repository, version, data)
        with pytest.raises(expected):
            put_into_effect(repository, version, data, at=NOW)
    assert listing(store) == before


def test_nothing_is_written_through_a_link(store: Path, tmp_path: Path) -> None:
    (store / "trust").rename(tmp_path / "elsewhere")
    (store / "trust").symlink_to(tmp_path / "elsewhere")
    before = listing(tmp_path)
    with Repository.open(store) as repository, pytest.raises(FlightbagError):
        put_into_effect(repository, 2, SIGNED, at=NOW)
    assert listing(tmp_path) == before


class _NoFile(Disk):
    """A disk that writes the log and takes no other file."""

    def rename(self, source: str, target: str) -> None:
        raise Unavailable(f"{target} cannot be written", kind="unwritable")


def test_the_line_comes_before_the_file(store: Path) -> None:
    with Repository.open(store, _NoFile()) as repository, pytest.raises(Unavailable):
        put_into_effect(repository, 2, SIGNED, at=NOW)
    assert rotated(store) == [1, 2]
    assert not (store / "trust/2.root.cbor").exists()


def test_a_draft_from_the_future_is_refused(store: Path) -> None:
    with Repository.open(store) as repository:
        draft = RootDraft.after(repository.trust_root(), now=NOW + SKEW + 1).with_signature(key("root-a"))
        with pytest.raises(Refused) as caught:
            rotate(repository, draft, now=NOW)
        assert caught.value.kind == "issued-in-future"
        assert repository.trust_root().root == ROOT
        rotate(repository, draft, now=NOW + 1)
        assert repository.trust_root().root.version == 2


@pytest.mark.parametrize(("ahead", "taken"), [(SKEW, True), (SKEW + 1, False)])
def test_clocks_differ_by_a_day_and_no_more(store: Path, ahead: int, taken: bool) -> None:
    with Repository.open(store) as repository:
        draft = RootDraft.after(repository.trust_root(), now=NOW + ahead).with_signature(key("root-a"))
        with nullcontext() if taken else pytest.raises(Refused):
            rotate(repository, draft, now=NOW)
        assert repository.trust_root().root.version == 1 + taken


def test_a_root_under_the_name_of_another_is_not_continued(store: Path) -> None:
    """The file of version 2 holds root 1: what continues root 1 is not root 3."""
    (store / "trust/2.root.cbor").write_bytes((store / "trust/1.root.cbor").read_bytes())
    with Repository.open(store) as repository:
        with pytest.raises(Corrupt) as caught:
            check_continues_chain(repository, 3, SIGNED)
        assert caught.value.kind == "bad-trust-chain"
        with pytest.raises(Corrupt) as caught:
            check_continues_chain(repository, 3, sign_root(THIRD, "root-a"))
        assert (caught.value.fields["expected"], caught.value.fields["actual"]) == (2, 1)


def test_a_first_root_starts_a_chain(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "new") as repository:
        data = sign_root(ROOT, "root-a")
        assert put_into_effect(repository, 1, data, at=NOW) == SignedRoot.parse(data)
    assert rotated(tmp_path / "new") == [1]
