"""Attacks on receipts: forged ones, those of another domain or another key, and what lies in their folder on a stick.

A receipt decides no verdict, so the refusal is what reading it answers, or what an audit finds. `unknown` is a receipt
that holds and is nobody's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeAlias

from store.audit.fsck import fsck
from store.audit.scope import FULL
from store.disk.layout import RECEIPTS
from store.disk.media import FOLDER_LIMIT
from store.errors import FlightbagError
from store.format.cose import Envelope, Signature
from store.format.ids import ObjectId
from store.format.receipt import AAD_LABEL, CONTENT_TYPE, PAYLOAD_LIMIT, RECEIPT_LIMIT, Receipt
from store.ground import receipts
from store.ground.repository import Repository
from store.ground.sync import plan_sync
from store.takeoff.evidence import StoreEvidence
from store.takeoff.verify import verify_mission
from store.trust.keys import PublicKey, sign
from tests.conformance.attacks import GO, Groups, Row
from tests.support.missions import BINDING, ROOT, evidence_of, key, next_root, pinned, plus_order_2
from tests.support.stores import NORTH, make_store

UAV, THIEF = key("uav"), key("thief")
OTHER = replace(ROOT, salt=bytes(16))
FLEET = {UAV.public.kid: "uav-07", key("uav-08").public.kid: "uav-08"}
Make: TypeAlias = Callable[[Path], object]


@cache
def genuine(aircraft: str = "uav-07") -> Receipt:
    """What uav-07 says of NORTH."""
    verdict = verify_mission(evidence_of(NORTH), NORTH.id, pinned(), BINDING)
    return replace(receipts.of_check(verdict, UAV.public), aircraft=aircraft)


def read(data: bytes, _folder: Path) -> str:
    """Whose the receipt in these bytes is, by the list of the fleet and the trust root."""
    try:
        receipt = receipts.parsed(data, ROOT)
    except FlightbagError as error:
        return f"{type(error).__name__} {error.kind}"
    return GO if receipts.whose(receipt, ROOT, FLEET) == "uav-07" else "unknown"


def forged() -> Iterator[Row]:
    good = receipts.signed(genuine(), UAV, ROOT).data
    envelope = Envelope.parse(good, CONTENT_TYPE, PAYLOAD_LIMIT)
    aad = ROOT.aad(AAD_LABEL)

    def under(label: str, content_type: str = CONTENT_TYPE) -> bytes:
        return sign(Envelope(content_type, genuine().render()), UAV, ROOT.aad(label)).render()

    def by(public: PublicKey) -> bytes:
        """Of this key, signed by the aircraft's own."""
        one = Envelope(CONTENT_TYPE, replace(genuine(), key=public.raw).render())
        return one.with_signature(Signature(public.kid, UAV.sign(one.to_be_signed(public.kid, aad)))).render()

    yield "the-original", GO, good
    yield "under-a-later-root", GO, receipts.signed(genuine(), UAV, next_root(ROOT)).data
    yield "unsigned", "Untrusted bad-signature", Envelope(CONTENT_TYPE, genuine().render()).render()
    yield "signed-by-another", "Untrusted bad-signature", receipts.signed(genuine(), THIEF, ROOT).data
    # Signatures are in the order of their keys: the aircraft's own comes first, and last.
    for name in ("thief", "pilot", "lab", "uav-08"):
        yield f"signed-by-{name}-too", "Untrusted bad-signature", sign(envelope, key(name), aad).render()
    yield "of-a-swapped-key", "Untrusted bad-signature", by(THIEF.public)
    yield "of-the-key-of-another-aircraft", "Untrusted bad-signature", by(key("uav-08").public)
    yield "of-a-key-outside-the-subgroup", "Untrusted bad-signature", by(PublicKey(plus_order_2(UAV.public.raw)))
    yield "of-a-key-that-is-no-point", "Untrusted bad-signature", by(PublicKey(b"\xff" * 32))
    yield "of-another-domain", "Untrusted bad-signature", receipts.signed(genuine(), UAV, OTHER).data
    for kind in ("result", "manifest", "release", "root", "withdrawal"):
        yield f"signed-as-a-{kind}", "Untrusted bad-signature", under(f"flightbag/{kind}/1")
    yield "of-another-type", "Corrupt bad-envelope", under(AAD_LABEL, "application/vnd.flightbag.result+cbor")
    yield "a-manifest", "Corrupt bad-envelope", NORTH.signed
    yield "empty", "Corrupt bad-envelope", b""
    yield "with-a-byte-behind-it", "Corrupt not-canonical", good + b"\0"
    yield "cut", "Corrupt not-canonical", good[:-1]
    yield "too-large", "Corrupt too-large", good + bytes(RECEIPT_LIMIT)
    yield "by-a-stranger", "unknown", receipts.signed(replace(genuine(), key=THIEF.public.raw), THIEF, ROOT).data
    yield "of-another-id", "unknown", receipts.signed(genuine("uav-08"), UAV, ROOT).data
    yield (
        "by-another-aircraft",
        "unknown",
        receipts.signed(replace(genuine(), key=key("uav-08").public.raw), key("uav-08"), ROOT).data,
    )
    pilot = key("pilot")
    yield (
        "by-the-pilot-for-an-aircraft",
        "unknown",
        receipts.signed(replace(genuine(), key=pilot.public.raw), pilot, ROOT).data,
    )


def carried(make: Make | None, folder: Path) -> str:
    """The kinds of errors of an audit of a stick on which somebody did something to `receipts/`. What is whole flies,
    and a sync brings none but those that hold."""
    store = make_store(folder / "store", NORTH)
    file = receipts.signed(genuine(), UAV, ROOT)
    (store / RECEIPTS).mkdir()
    (store / file.name).write_bytes(file.data)
    if make is not None:
        make(store / RECEIPTS)
    with Repository.open(store) as repository:
        assert verify_mission(StoreEvidence(repository.media), NORTH.id, pinned(), BINDING).go
        audit = fsck(repository.media, FULL)
        assert audit.missions[NORTH.id] == "flyable"
        for one in plan_sync(repository, None, ()).files:
            assert one.name == f"{RECEIPTS}/{ObjectId.of(one.data)}"
            receipts.parsed(one.data, ROOT)
    return ", ".join(sorted({one.kind for one in audit.findings if not one.information})) or GO


def sticks() -> Iterator[Row]:
    name = "ab" * 32
    good = receipts.signed(genuine(), UAV, ROOT).data
    replayed = receipts.signed(genuine(), UAV, OTHER).data
    strange = receipts.signed(replace(genuine(), key=THIEF.public.raw), THIEF, ROOT).data

    def write(data: bytes, at: str = "") -> Make:
        return lambda folder: (folder / (at or str(ObjectId.of(data)))).write_bytes(data)

    def crowd(folder: Path) -> None:
        for number in range(FOLDER_LIMIT):
            (folder / f"{number:064x}").touch()

    def link(folder: Path) -> None:
        folder.rename(folder.parent.parent / "aside")
        folder.symlink_to(folder.parent.parent / "aside")

    yield "the-original", GO, None
    yield "a-strangers-beside-it", GO, write(strange)
    yield "one-of-another-domain", "bad-receipt", write(replayed)
    yield "under-another-name", "bad-receipt", write(good, name)
    yield "in-upper-case", "stray", write(good, name.upper())
    yield "under-a-longer-name", "stray", write(good, name + "0")
    yield "larger-than-any", "bad-receipt", write(bytes(2 * RECEIPT_LIMIT))
    yield "a-link-in-its-place", "wrong-type", lambda folder: (folder / name).symlink_to("../log")
    yield "a-folder-in-its-place", "wrong-type", lambda folder: (folder / name).mkdir()
    yield "a-fifo-in-its-place", "wrong-type", lambda folder: os.mkfifo(folder / name)
    yield "a-link-for-the-folder", "wrong-type", link
    yield "more-than-a-folder-may-have", "too-many", crowd


GROUPS: Groups = {"receipts": (read, forged), "receipts-on-a-stick": (carried, sticks)}
