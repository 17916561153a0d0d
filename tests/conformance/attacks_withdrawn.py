"""Attacks on withdrawals: what was withdrawn flies nowhere, and nobody but its signers withdraws a mission for good.

The groups are those of `attacks`. What somebody gains by them is a flight with what was withdrawn, or a fleet that
stands: by another word in the place of the withdrawal, by an older one, or by a medium that lacks it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from store.disk.media import Media
from store.errors import FlightbagError
from store.format import release as releases
from store.format import withdrawal as withdrawals
from store.format.cbor import INT_MAX
from store.format.cose import Envelope
from store.format.ids import ObjectId
from store.format.release import Release
from store.format.withdrawal import Withdrawal
from store.takeoff.aircraft import check, enrol
from store.takeoff.evidence import StoreEvidence
from store.takeoff.withdrawn import check_withdrawal, parsed
from store.trust.aircraft_state import AircraftState
from store.trust.review import digest_of_payload
from store.trust.root import TrustRoot
from tests.conformance.attacks import GO, Groups, Row, Scene, scene, takeoff
from tests.support.missions import (
    FACTS,
    ISSUE,
    NOW,
    ROOT,
    Flight,
    flight,
    next_root,
    role,
    sign_payload,
    sign_root,
    sign_withdrawal,
    withdrawal,
)

GOOD = flight()
NEXT = flight(issue=replace(ISSUE, sequence=ISSUE.sequence + 1))
PLACE = withdrawal().name
TWO = replace(ROOT, mission=role("pilot", "co-pilot", threshold=2))
BOTH = ["pilot", "co-pilot"]
# The mission key is revoked in its second root; in the third an epoch begins.
REVOKED = next_root(ROOT, mission=role("co-pilot"), revoked=(role("pilot").keys[0],))
EPOCH = next_root(ROOT, epoch=2)
TYPE, AAD = withdrawals.CONTENT_TYPE, withdrawals.AAD_LABEL


def shows(
    data: bytes, one: Flight = GOOD, place: str = PLACE, root: TrustRoot = ROOT, chain: Sequence[bytes] = ()
) -> Scene:
    """A medium with a mission, and with these bytes in the place of a withdrawal."""
    made = scene(one, root=root, chain=chain)
    made.evidence.withdrawn[place] = data
    return made


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def by_the_store() -> Iterator[Row]:
    """One check, by a pinned root alone. What does not hold brings no mission back."""
    data = sign_withdrawal(withdrawal())
    yield "the-original", GO, scene(GOOD)
    yield "withdrawn", "E withdrawn", shows(data)
    yield "published-again", GO, shows(data, NEXT)
    yield "of-the-newer-one-too", "E withdrawn", shows(sign_withdrawal(withdrawal(NEXT)), NEXT)
    yield "of-an-older-one", GO, shows(sign_withdrawal(withdrawal(sequence=ISSUE.sequence - 1)))
    yield "of-the-last-of-all", "E withdrawn", shows(sign_withdrawal(withdrawal(sequence=INT_MAX)), NEXT)

    yield "forged", "E unknown-signer", shows(sign_withdrawal(withdrawal(), by=["stranger"]))
    yield (
        "forged-beside-a-rightful-key",
        "E unknown-signer",
        shows(sign_withdrawal(withdrawal(), by=["stranger", "pilot"])),
    )
    yield "by-nobody", "E threshold", shows(sign_withdrawal(withdrawal(), by=[]))
    yield "by-the-keys-of-releases", "E wrong-role", shows(sign_withdrawal(withdrawal(), by=["lab"]))
    yield "by-the-keys-of-the-root", "E wrong-role", shows(sign_withdrawal(withdrawal(), by=["root-a"]))
    yield "by-former-keys-of-what-is-newer", GO, shows(sign_withdrawal(withdrawal(), by=["stranger"]), NEXT)
    yield "of-another-domain", "E bad-signature", shows(sign_withdrawal(withdrawal(), replace(ROOT, salt=bytes(16))))
    yield "of-another-mission", "E bad-withdrawal", shows(sign_withdrawal(withdrawal(mission="south-ridge")))
    yield (
        "another-missions-in-its-place",
        GO,
        shows(sign_withdrawal(withdrawal(mission="south-ridge")), place="south-ridge.mission"),
    )
    yield (
        "a-releases-in-its-place",
        "E bad-withdrawal",
        shows(sign_withdrawal(Withdrawal("x", NOW, release=bytes(32)), by=["lab"])),
    )
    yield "the-manifest-in-its-place", "E bad-envelope", shows(GOOD.signed[:3000])
    yield (
        "signed-as-a-manifest",
        "E bad-signature",
        shows(sign_payload(withdrawal().render(), TYPE, ROOT.aad("flightbag/manifest/1"), ["pilot"])),
    )

    yield "one-of-two", "E threshold", shows(sign_withdrawal(withdrawal(), TWO), flight(root=TWO, by=BOTH), root=TWO)
    yield (
        "two-of-two",
        "E withdrawn",
        shows(sign_withdrawal(withdrawal(), TWO, BOTH), flight(root=TWO, by=BOTH), root=TWO),
    )
    second = sign_root(REVOKED, "root-a")
    again = {"root": REVOKED, "by": ["co-pilot"]}
    yield "by-a-revoked-key", "E revoked-key", shows(data, flight(**again), chain=[second])
    yield (
        "by-a-revoked-key-of-what-is-newer",
        GO,
        shows(data, flight(**again, issue=NEXT.manifest.issue), chain=[second]),
    )
    yield (
        "by-a-revoked-key-beyond-what-is-newer",
        "E revoked-key",
        shows(sign_withdrawal(withdrawal(sequence=INT_MAX)), flight(**again), chain=[second]),
    )
    newer = flight(root=EPOCH, issue=replace(ISSUE, epoch=2, sequence=1))
    epoch = [sign_root(EPOCH, "root-a")]
    yield "of-an-epoch-that-ended", GO, shows(sign_withdrawal(withdrawal(sequence=INT_MAX)), newer, chain=epoch)

    for number, at in enumerate((2, 60, 90, 120, 150, len(data) - 1)):
        made = shows(flipped(data, at))
        yield f"a-flipped-bit-{number}", _kind_of(flipped(data, at)), made
    yield "cut", "E not-canonical", shows(data[:-1])
    yield "empty", "E bad-envelope", shows(b"")
    yield "longer", "E not-canonical", shows(data + b"\x00")
    yield "huge", "E too-large", shows(bytes(10_000))
    yield (
        "a-huge-payload",
        "E bad-envelope",
        shows(sign_payload(withdrawal().render() + bytes(1000), TYPE, ROOT.aad(AAD), ["pilot"])),
    )
    yield "a-link-in-its-place", "E wrong-type", replace(shows(data), before=_link)


def _kind_of(data: bytes) -> str:
    """The refusal of a damaged withdrawal, whichever rule a reader comes to first: it is never GO."""
    try:
        envelope, value = parsed(data, PLACE)
        check_withdrawal(envelope, value, ROOT)
    except FlightbagError as error:
        return f"E {error.kind}"
    return GO


def _link(store: Path) -> None:
    path = store / "withdrawn" / PLACE
    path.unlink()
    path.symlink_to("/dev/null")


def of_releases() -> Iterator[Row]:
    """A mission that rests on a release, and the withdrawal of it."""
    approved = Release.of("winter", "cpu-x86_64", GOOD.table.entries, issued_at=NOW)
    data = sign_payload(approved.render(), releases.CONTENT_TYPE, ROOT.aad(releases.AAD_LABEL), ["lab"])
    digest = digest_of_payload(Envelope.parse(data, releases.CONTENT_TYPE, releases.PAYLOAD_LIMIT))
    two = replace(ROOT, release=role("lab", "lab-b", threshold=1))

    def resting(value: Withdrawal | None, by: str = "lab", root: TrustRoot = ROOT, file: bytes = data) -> Scene:
        made = scene(flight(root=root, releases=(ObjectId.of(file),)), root=root)
        made.evidence.put(file)
        if value is not None:
            made.evidence.withdrawn[value.name] = sign_withdrawal(value, root, [by])
        return made

    of = Withdrawal("it drifts", NOW, release=digest)
    yield "the-original", GO, resting(None)
    yield "withdrawn", "E withdrawn", resting(of)
    yield "another-release", GO, resting(Withdrawal("it drifts", NOW, release=bytes(32)))
    yield "by-the-keys-of-missions", "E wrong-role", resting(of, "pilot")
    yield "forged", "E unknown-signer", resting(of, "stranger")
    other = sign_payload(approved.render(), releases.CONTENT_TYPE, two.aad(releases.AAD_LABEL), ["lab-b"])
    yield "signed-by-another-key-meanwhile", "E withdrawn", resting(of, root=two, file=other)
    again = replace(approved, issued_at=NOW + 1)
    anew = sign_payload(again.render(), releases.CONTENT_TYPE, ROOT.aad(releases.AAD_LABEL), ["lab"])
    yield "released-again", GO, resting(of, file=anew)


Shown = list[Scene]


def aboard(shown: Shown, folder: Path) -> str:
    """One aircraft looks at one medium after another; what it says of the last one counts."""
    state = folder / "state"
    enrol(state, AircraftState.initial("uav-07", "cpu-x86_64-avx2", shown[0].pinned))
    came = ""
    for one in shown:
        store = folder / "store"
        shutil.rmtree(store, ignore_errors=True)
        one.evidence.write_to(store)
        with Media(store) as media:
            verdict = check(state, StoreEvidence(media), one.mission, now=NOW)
        came = ", ".join(sorted({f"{finding.step} {finding.kind}" for finding in verdict.findings})) or GO
    return came


def seen() -> Iterator[Row]:
    """What an aircraft has seen withdrawn, against media that know nothing of it."""
    gone = shows(sign_withdrawal(withdrawal()))
    older = shows(sign_withdrawal(withdrawal(sequence=1)))
    newest = sign_withdrawal(withdrawal(sequence=INT_MAX))
    epoch = [sign_root(EPOCH, "root-a")]
    newer = flight(root=EPOCH, issue=replace(ISSUE, epoch=2, sequence=1))
    yield "the-original", GO, [scene(GOOD), scene(GOOD)]
    yield "deleted-after-it-was-seen", "E withdrawn", [gone, scene(GOOD)]
    yield "deleted-after-a-go", "E withdrawn", [scene(GOOD), gone, scene(GOOD)]
    yield "an-older-one-put-back", "E withdrawn", [gone, older]
    yield "damaged-after-it-was-seen", "E bad-envelope, E withdrawn", [gone, shows(b"")]
    yield "published-again", GO, [gone, scene(NEXT)]
    yield "the-old-medium-after-that", "E rolled-back", [gone, scene(NEXT), scene(GOOD)]
    yield "replayed-after-it-was-published-again", GO, [gone, scene(NEXT), shows(sign_withdrawal(withdrawal()), NEXT)]
    yield "forged-ones-are-not-remembered", GO, [
        shows(sign_withdrawal(withdrawal(), by=["stranger"])), scene(GOOD)]  # fmt: skip
    yield (
        "another-missions-are-not",
        GO,
        [shows(sign_withdrawal(withdrawal(mission="south-ridge")), place="south-ridge.mission"), scene(GOOD)],
    )
    yield "of-the-last-of-all", "E withdrawn", [shows(newest), scene(NEXT)]
    yield "ended-by-an-epoch", GO, [shows(newest), scene(newer, chain=epoch)]
    yield "of-an-epoch-to-come", GO, [
        shows(sign_withdrawal(withdrawal(epoch=INT_MAX, sequence=INT_MAX))), scene(NEXT)]  # fmt: skip
    south = flight(mission=replace(FACTS, id="south-ridge"))
    yield "another-mission-flies", GO, [gone, replace(scene(south), mission="south-ridge")]


GROUPS: Groups = {
    "withdrawn": (takeoff, by_the_store),
    "withdrawn-releases": (takeoff, of_releases),
    "withdrawn-and-seen": (aboard, seen),
}
