"""The command `receipts`: who carries what, verified when, flew what; and the receipts that other commands leave.

A receipt comes after the result of its command, and changes neither that nor the exit status: one that cannot be
written is told on standard error.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from store.errors import FlightbagError, Invalid
from store.findings import Finding
from store.format.manifest import utc
from store.ground import receipts
from store.ground.issuing import Keys
from store.ground.repository import Repository
from store.takeoff.aircraft import read_key, read_state
from store.takeoff.mission import Verdict
from store.trust.keys import PublicKey
from tools import keyfiles, lines, render
from tools.arguments import Json, Store, print_lines
from tools.parameters import Option
from tools.patience import Bound, patience
from tools.status import NO, OK, command, print_json, say, warn

if TYPE_CHECKING:
    from store.format.receipt import Receipt
    from store.ground.receipts import Overview, Shown

# The most receipts of unknowns that the text lists: anybody can make them.
_UNKNOWNS = 20
_NONE = "there is no receipt"


Fleet = Annotated[
    Path | None,
    Option(
        "--fleet",
        metavar="FILE",
        help="The keys of your aircraft: a line each, as `aircraft show` prints it. It must not lie in the store.",
    ),
]


@command
def run(
    store: Store,
    fleet: Fleet = None,
    as_json: Json = False,
) -> int:
    """Show which aircraft carries what, when it was verified, and which flights were flown, by the receipts.

    A receipt by a key that is neither in FILE nor in the trust root is listed as
    UNKNOWN, whatever it says.
    The status is 1 if a receipt does not hold.

    Example: flightbag receipts ground --fleet fleet.keys
    """
    known = {} if fleet is None else fleet_of(fleet, store)
    with Repository.open(store) as repository:
        shown = receipts.overview(repository, known)
    if as_json:
        print_json(
            {
                "verified": [_json(one) for one in shown.verified],
                "flown": [_json(one) for one in shown.flown],
            },
            [Finding("bad-receipt", why, path=name) for name, why in shown.refused],
        )
    else:
        print_lines(_lines(shown, store))
    return NO if shown.refused else OK


def fleet_of(path: Path, store: str) -> dict[bytes, str]:
    keyfiles.refuse_inside("--fleet", path, store)
    data = keyfiles.read_file(path, receipts.FLEET_LIMIT, "the list of keys")
    try:
        return receipts.read_fleet(data)
    except Invalid as error:
        raise error.restated(f"{path}: {error.message}", remedy=error.remedy) from error


def _lines(shown: Overview, store: str) -> Iterator[str]:
    """Yield the receipts for people: those of the known, then some of the unknown."""
    if not (shown.verified or shown.flown or shown.refused):
        yield "no receipts"
    for title, rows, tell in (("verified", shown.verified, verified_row), ("flown", shown.flown, flown_row)):
        known = [one for one in rows if one.whose]
        unknown = [one for one in rows if not one.whose]
        if rows:
            yield title
        yield from (f"  {line}" for line in lines.table([(one.whose, *tell(one)) for one in known]))
        named, more = lines.cut(unknown, _UNKNOWNS)
        for one in named:
            claim = f", says {one.receipt.aircraft}" if one.receipt.aircraft else ""
            yield f"  UNKNOWN key {lines.short(_kid(one.receipt))}{claim}: {'  '.join(tell(one))}"
        if more:
            yield f"  and {render.many(more, 'more receipt')} of unknown keys (see -v)"
    refused, more = lines.cut(shown.refused, _UNKNOWNS)
    for _, why in refused:
        yield f"NOT a receipt: {why}"
    if more:
        yield f"and {more} more that are none (see -v)"
    if shown.refused:
        yield f"  -> `{shlex.join(('store-fsck', store, '--repair'))}` moves what is no receipt to quarantine/"


def verified_row(one: Shown) -> tuple[str, ...]:
    verified = one.receipt.verified
    assert verified is not None
    issue = "current" if one.current else f"NOT current, sequence {verified.sequence}"
    issue = "WITHDRAWN" if one.withdrawn else issue
    return verified.mission, one.receipt.flight, _when(one.receipt), issue


def flown_row(one: Shown) -> tuple[str, ...]:
    return one.receipt.flight, _when(one.receipt)


def _kid(receipt: Receipt) -> str:
    return PublicKey(receipt.key).kid.hex()


def _when(receipt: Receipt) -> str:
    return ("" if receipt.clock == "trusted" else "after ") + utc(receipt.at)


def _json(one: Shown) -> dict[str, Any]:
    receipt = one.receipt
    value: dict[str, Any] = {
        "receipt": one.name,
        "whose": one.whose or None,
        "kid": _kid(receipt),
        "says": receipt.aircraft,
        "flight": receipt.flight,
        "at": receipt.at,
        "clock": receipt.clock,
    }
    if (verified := receipt.verified) is not None:
        value |= {
            "mission": verified.mission,
            "manifest": str(verified.manifest),
            "current": one.current,
            "withdrawn": one.withdrawn,
            "epoch": verified.epoch,
            "sequence": verified.sequence,
            "trust_root_version": verified.root,
            "host": verified.host,
            "objects": verified.objects,
            "bytes": verified.bytes_read,
            "from_medium": verified.from_medium,
            "proofs": [proof.hex() for proof in verified.proofs],
        }
    return value


def after_check(store: str, state: str, verdicts: Iterable[Verdict], *, quiet: bool) -> None:
    """Leave a receipt of each GO by an aircraft's state: first in the state, and then in the store, with those that the
    state kept; `quiet` for no line where that is done."""
    go = [(one, one.mission) for one in verdicts if one.mission is not None]

    def keep() -> int:
        aircraft, key = read_state(state).state, read_key(state)
        for verdict, mission in go:
            receipt = receipts.of_check(verdict, key.public, aircraft)
            receipts.keep(state, receipts.signed(receipt, key, mission.trust_root))
        return len(go)

    if go:
        _done(state, keep, _NONE)
        _delivered(store, state, quiet=quiet)
    else:
        with suppress(FlightbagError, OSError):  # the verdict has said what there is to say
            _deliver(store, state)


def after_flight(state: str, flight: str, store: str | None, *, quiet: bool) -> None:
    """Leave a receipt of a consumed flight in the state, and in a store if one is given."""

    def keep() -> int:
        aircraft, key = read_state(state).state, read_key(state)
        receipts.keep(state, receipts.signed(receipts.of_flight(aircraft, flight, key.public), key, aircraft.root.root))
        return 1

    _done(state, keep, _NONE)
    if store is not None:
        _delivered(store, state, quiet=quiet)


def after_desk_check(store: str, keys: Keys, verdicts: Iterable[Verdict], *, quiet: bool) -> None:
    """Leave a receipt of each GO, signed by a person's key, in the store."""
    go = [(one, one.mission) for one in verdicts if one.mission is not None]

    def leave() -> int:
        (signer,) = keys.open()
        with Repository.open(store) as repository:
            for verdict, mission in go:
                file = receipts.signed(receipts.of_check(verdict, signer.public), signer, mission.trust_root)
                receipts.leave(repository, [file], mission.trust_root)
        return len(go)

    if go and (count := _done(store, leave, _NONE)) and not quiet:
        say(f"{render.many(count, 'receipt')} left in {store}")


def _delivered(store: str, state: str, *, quiet: bool) -> None:
    count = _done(store, lambda: _deliver(store, state), "the receipts stay in the aircraft's state")
    if count and not quiet:
        say(f"{render.many(count, 'receipt')} left in {store}")


def _deliver(store: str, state: str) -> int:
    with Repository.open(store) as repository:
        return receipts.deliver(state, repository, read_state(state).state.root.root)


def _done(place: str, work: Callable[[], int], otherwise: str) -> int:
    """Return what `work` returns; what keeps it from its end is told, changes nothing, and gives 0."""
    try:
        with patience(Bound(place, None)):
            return work()
    except FlightbagError as error:
        warn(f"flightbag: {otherwise}: {error.message}", *([f"  -> {error.remedy}"] if error.remedy else []))
    except OSError as error:
        warn(f"flightbag: {otherwise}: {error}")
    return 0
