"""The signing of a draft: what was shown is what is signed, and no key is opened before everything was checked.

Builds, rollbacks and the commands have their own tests of what is published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from store.disk.locks import Locked
from store.errors import Corrupt, FlightbagError, Refused, Untrusted
from store.format.cose import Envelope
from store.format.manifest import CONTENT_TYPE, Takeoff
from store.ground.issuing import Review, discard_draft, draft_of, issue, issuing, sign_draft
from store.ground.repository import Repository
from store.trust.keys import PrivateKey
from store.trust.review import signing_code
from tests.support.missions import ISSUE, NOW, Flight, by, flight, key
from tests.support.stores import NORTH, listing, make_store, publish

PILOT = key("pilot")
DRAFT = flight(issue=replace(ISSUE, sequence=NOW, issued_at=NOW, previous=NORTH.manifest_id))
# What somebody puts in the place of the draft: it takes off elsewhere in the area.
ELSEWHERE = replace(DRAFT.manifest.mission, takeoff=Takeoff(470_210_000, -991_610_000, 480_000))
SWAPPED = flight(mission=ELSEWHERE, issue=DRAFT.manifest.issue)


def code_of(one: Flight) -> str:
    return signing_code(Envelope(CONTENT_TYPE, one.manifest.render()))


def draft_bytes(one: Flight) -> bytes:
    return Envelope(CONTENT_TYPE, one.manifest.render()).render()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a mission, and a draft that nobody has signed."""
    store = make_store(tmp_path / "store")
    publish(store, NORTH)
    with Repository.open(store) as repository, issuing(repository, NORTH.id, "the draft") as writer:
        issue(writer, DRAFT.manifest, DRAFT.table, (), repository.trust_root().root)
    return store


def never_asked(review: Review) -> Sequence[PrivateKey]:
    raise AssertionError("a key is opened before everything was checked")


def test_the_draft_that_was_expected_is_published(store: Path) -> None:
    with Repository.open(store) as repository:
        issued = sign_draft(repository, NORTH.id, by(PILOT), now=NOW, expect=code_of(DRAFT))
        assert issued.signing_code == code_of(DRAFT) == repository.current(NORTH.id).signing_code
        assert repository.current(NORTH.id).manifest == DRAFT.manifest


def test_a_person_is_shown_the_draft_and_what_it_replaces(store: Path) -> None:
    shown: list[Review] = []

    def approve(review: Review) -> Sequence[PrivateKey]:
        shown.append(review)
        review.require(code_of(DRAFT))
        return (PILOT,)

    with Repository.open(store) as repository:
        sign_draft(repository, NORTH.id, approve, now=NOW)
    (review,) = shown
    assert review.opened.manifest == DRAFT.manifest
    assert review.opened.table == DRAFT.table
    assert review.before is not None
    assert review.before.manifest_id == NORTH.manifest_id
    assert review.named is review.opened


def test_another_draft_than_the_expected_one(store: Path) -> None:
    (store / "drafts" / NORTH.id).write_bytes(draft_bytes(SWAPPED))
    before = listing(store, but=("lock",))
    with Repository.open(store) as repository:
        with pytest.raises(Refused) as caught:
            sign_draft(repository, NORTH.id, never_asked, now=NOW, expect=code_of(DRAFT))
        assert caught.value.kind == "other-code"
        assert caught.value.fields["expected"] == code_of(DRAFT)
        assert caught.value.fields["actual"] == code_of(SWAPPED)
    assert listing(store, but=("lock",)) == before


@pytest.mark.parametrize("path", ["drafts", "missions", "objects"])
def test_what_was_shown_is_signed_whatever_lies_there_by_then(store: Path, path: str) -> None:
    """The draft, the ref or the draft's table is swapped while the person looks at what is shown."""

    def approve(review: Review) -> Sequence[PrivateKey]:
        review.require(code_of(DRAFT))
        target = store / path / NORTH.id
        if path == "drafts":
            target.write_bytes(draft_bytes(SWAPPED))
        elif path == "missions":
            target.write_bytes(b"0" * 64 + b"\n")
        else:
            table = str(review.opened.manifest.table)
            target = store / path / table[:2] / table[2:]
            target.chmod(0o644)
            target.write_bytes(target.read_bytes()[:-1] + b"x")
        return (PILOT,)

    with Repository.open(store) as repository:
        sign_draft(repository, NORTH.id, approve, now=NOW)
        opened = repository.current(NORTH.id)
    assert opened.manifest == DRAFT.manifest
    assert opened.table == DRAFT.table


def test_nobody_else_issues_the_mission_meanwhile(store: Path) -> None:
    def approve(review: Review) -> Sequence[PrivateKey]:
        with Repository.open(store) as other, pytest.raises(Locked):
            discard_draft(other, NORTH.id)
        return (PILOT,)

    with Repository.open(store) as repository:
        assert sign_draft(repository, NORTH.id, approve, now=NOW).manifest


@pytest.mark.parametrize("key_name", ["second", "lab", "root-a"])
def test_a_key_of_another_role(store: Path, key_name: str) -> None:
    before = listing(store, but=("lock",))
    with Repository.open(store) as repository, pytest.raises(Untrusted):
        sign_draft(repository, NORTH.id, by(key(key_name)), now=NOW, expect=code_of(DRAFT))
    assert listing(store, but=("lock",)) == before


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (b"", Corrupt),
        (b"\x00" * 300, Corrupt),
        (draft_bytes(flight(issue=replace(DRAFT.manifest.issue, sequence=NOW + 5))), Refused),
        (draft_bytes(flight(issue=replace(DRAFT.manifest.issue, previous=None))), Refused),
        (draft_bytes(replace(DRAFT, manifest=replace(DRAFT.manifest, count=1))), FlightbagError),
    ],
    ids=["empty", "zeroes", "another_sequence", "overtaken", "another_table"],
)
def test_no_key_is_opened_for_a_draft_that_does_not_hold(
    store: Path, damage: bytes, error: type[FlightbagError]
) -> None:
    (store / "drafts" / NORTH.id).write_bytes(damage)
    with Repository.open(store) as repository, pytest.raises(error):
        sign_draft(repository, NORTH.id, never_asked, now=NOW)


def test_who_refuses_at_the_terminal_leaves_the_draft(store: Path) -> None:
    def approve(review: Review) -> Sequence[PrivateKey]:
        raise KeyboardInterrupt

    before = listing(store, but=("lock",))
    with Repository.open(store) as repository:
        with pytest.raises(KeyboardInterrupt):
            sign_draft(repository, NORTH.id, approve, now=NOW)
        assert draft_of(repository, NORTH.id).manifest == DRAFT.manifest
    assert listing(store, but=("lock",)) == before
