"""Drafts that somebody swapped, codes of something else, and key files that hold more than a key.

What a person reviewed is what is signed, and the key that is enrolled is the one that the person looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from store.errors import FlightbagError
from store.format.cose import Envelope
from store.format.manifest import CONTENT_TYPE
from store.format.release import Approval
from store.ground import releases
from store.ground.history import rollback
from store.ground.issuing import Review, issue, issuing, sign_draft
from store.ground.repository import Repository
from store.trust.draft import RootDraft, with_key
from store.trust.keys import PrivateKey, PublicKey
from store.trust.review import signing_code
from store.trust.root import SignedRoot
from tests.conformance.wrong import wrong
from tests.support.missions import FACTS, ISSUE, NOW, ROOT, Flight, by, flight, key
from tests.support.stores import ENGINE, NORTH, ROOT_FILE, later, make_store, publish

DRAFT = flight(issue=replace(ISSUE, sequence=NOW, issued_at=NOW, previous=NORTH.manifest_id))
ELSEWHERE = replace(FACTS.takeoff, lat=FACTS.takeoff.lat + 1000)
SWAPPED = flight(mission=replace(FACTS, takeoff=ELSEWHERE), issue=DRAFT.manifest.issue)


def unsigned(one: Flight) -> Envelope:
    return Envelope(CONTENT_TYPE, one.manifest.render())


def code_of(one: Flight) -> str:
    return signing_code(unsigned(one))


def outcome(work: Callable[[], str]) -> str:
    try:
        return work()
    except FlightbagError as error:
        return error.kind or type(error).__name__


def signed(folder: Path, *, expect: str | None, swapped_before: bool = False, swapped_while: bool = False) -> str:
    """Somebody reviews a draft and signs. Return the takeoff that is published, or the kind of the error."""
    store = make_store(folder / "store", NORTH)
    draft = store / "drafts" / NORTH.id
    with Repository.open(store) as repository:
        with issuing(repository, NORTH.id, "the draft") as writer:
            issue(writer, DRAFT.manifest, DRAFT.table, (), ROOT)
        if swapped_before:
            draft.write_bytes(unsigned(SWAPPED).render())

        def approve(review: Review) -> Sequence[PrivateKey]:
            if swapped_while:
                review.require(code_of(DRAFT))
                draft.write_bytes(unsigned(SWAPPED).render())
            return (key("pilot"),)

        def work() -> str:
            sign_draft(repository, NORTH.id, approve, now=NOW, expect=expect)
            takeoff = repository.current(NORTH.id).manifest.mission.takeoff
            return "published elsewhere" if takeoff == ELSEWHERE else "published"

        return outcome(work)


@wrong("signing", "the draft that was reviewed (nothing is wrong)", before="published", now="published")
def the_reviewed_draft(folder: Path) -> str:
    return signed(folder, expect=code_of(DRAFT))


@wrong("signing", "a draft with another takeoff, put there between `show` and `sign`", before="published elsewhere",
       now="other-code")  # fmt: skip
def a_swapped_draft(folder: Path) -> str:
    return signed(folder, expect=code_of(DRAFT), swapped_before=True)


@wrong("signing", "a draft with another takeoff, put there while the pilot reads the first one",
       before="published elsewhere", now="published")  # fmt: skip
def a_draft_swapped_while_it_is_read(folder: Path) -> str:
    return signed(folder, expect=None, swapped_while=True)


@wrong("signing", "the code of the published manifest in place of the draft's", before="published", now="other-code")
def the_code_of_the_published_one(folder: Path) -> str:
    return signed(folder, expect=code_of(NORTH))


@wrong("signing", "a draft's code with one character changed", before="published", now="other-code")
def a_mistyped_code(folder: Path) -> str:
    code = code_of(DRAFT)
    return signed(folder, expect=code[:-1] + ("0" if code[-1] != "0" else "1"))


@wrong("signing", "the code in small letters, without hyphen, O for 0 and l for 1 (nothing is wrong)",
       before="published", now="published")  # fmt: skip
def a_code_as_people_write_it(folder: Path) -> str:
    return signed(folder, expect=code_of(DRAFT).replace("-", "").lower().replace("0", "o").replace("1", "l"))


@wrong("signing", "a release with the code of another one", before="signed", now="other-code")
def another_release(folder: Path) -> str:
    approval = Approval.of(NORTH.entry(ENGINE))
    one, other = (releases.drafted("winter", "cpu-x86_64", [approval], now=at) for at in (NOW, NOW + 1))

    def work() -> str:
        releases.signed(other, ROOT, by(key("lab")), expect=releases.code_of(one))
        return "signed"

    return outcome(work)


@wrong("signing", "a trust root with a stranger's mission key, by the code of the draft without it", before="signed",
       now="other-code")  # fmt: skip
def another_root(folder: Path) -> str:
    before = SignedRoot.parse(ROOT_FILE)
    one = RootDraft.after(before, now=NOW)
    other = with_key(one, "mission", key("stranger").public)

    def work() -> str:
        other.require(one.code)
        return "signed"

    return outcome(work)


@wrong("signing", "the code of a manifest for a release of the same bytes", before="signed", now="other-code")
def the_code_of_another_type(folder: Path) -> str:
    data = releases.drafted("winter", "cpu-x86_64", [Approval.of(NORTH.entry(ENGINE))], now=NOW)
    code = signing_code(Envelope(CONTENT_TYPE, releases.parsed(data)[0].payload))

    def work() -> str:
        releases.signed(data, ROOT, by(key("lab")), expect=code)
        return "signed"

    return outcome(work)


@wrong("signing", "a rollback whose target another log has chosen", before="rolled back", now="other-code")
def a_log_that_chooses(folder: Path) -> str:
    """Three manifests, of which the log names the first and the third: the second was to be gone back to."""
    middle, last = later(NORTH, 1, camera=b"fx: 2.0\n"), later(NORTH, 2, camera=b"fx: 3.0\n")
    store = make_store(folder / "store", NORTH)
    publish(store, last)

    def work() -> str:
        with Repository.open(store) as repository:
            rollback(repository, NORTH.id, by(key("pilot")), now=NOW, expect=code_of(middle))
        return "rolled back"

    return outcome(work)


def enrolled(data: bytes) -> str:
    def work() -> str:
        return "enrolled" if PublicKey.of_pem(data) == key("pilot").public else "another key"

    return outcome(work)


@wrong("signing", "a .pub with the key that was looked at, after another one", before="another key", now="Invalid")
def two_keys_in_a_file(folder: Path) -> str:
    return enrolled(key("stranger").public.pem() + key("pilot").public.pem())


@wrong("signing", "a .pub with a comment that names the pilot", before="enrolled", now="Invalid")
def a_comment_beside_a_key(folder: Path) -> str:
    return enrolled(b"pilot of the second shift\n" + key("pilot").public.pem())


@wrong("signing", "a .pub with the bytes of a second key inside of the first", before="Invalid", now="Invalid")
def two_keys_in_a_block(folder: Path) -> str:
    first, second = (key(name).public.pem().splitlines() for name in ("pilot", "stranger"))
    return enrolled(b"\n".join([first[0], first[1], second[1], first[2], b""]))
