"""The commands that withdraw what was published: a mission, and with `release withdraw` a release."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from store.errors import FlightbagError, Invalid, NotFound
from store.findings import Finding
from store.format.withdrawal import Withdrawal, of_mission
from store.ground import withdrawals
from store.ground.issuing import Keys
from store.ground.repository import Repository
from store.ground.withdrawals import Outcome, Pending
from store.trust.keys import Signer
from store.trust.root import TrustRoot
from tools import keyfiles, lines, render
from tools.arguments import (
    Json,
    OptionalKeys,
    PassphraseFile,
    SignerCommand,
    StoreBeforeName,
    print_lines,
)
from tools.commands import came_from_environment
from tools.parameters import Argument, Option
from tools.review import Expect, show_and_ask
from tools.status import NO, OK, exits, insist, print_json, say

Reason = Annotated[
    str | None,
    Option("--reason", metavar="TEXT", help="Begin the withdrawal. Crews read why, in at most 200 ASCII characters."),
]
Discard = Annotated[
    bool, Option("--discard", help="Delete the draft of the withdrawal. One in effect stays in effect.")
]


def _acts(given: Mapping[str, Any]) -> bool:
    """Whether the command begins, signs or discards a withdrawal, and does not only show one."""
    signs = _sign(given["key"], given["reason"], given["expect"])
    return signs or given["discard"] or given["reason"] is not None


@exits(acts=_acts)
def mission(
    store: StoreBeforeName,
    id_: Annotated[str, Argument(metavar="MISSION", help="The id of the mission.")],
    reason: Reason = None,
    key: OptionalKeys = None,
    signer: SignerCommand = None,
    passphrase_file: PassphraseFile = None,
    expect: Expect = None,
    discard: Discard = False,
    as_json: Json = False,
) -> int:
    """Withdraw a mission: no aircraft that sees the withdrawal flies what was issued of it so far.

    The keys that publish a mission withdraw it, as many as it takes. With --reason
    the first of them begins; the next ones sign with --key and the code. Without an
    option, show the withdrawal. Build or roll back the mission to fly it again.

    Example: flightbag withdraw ground north-ridge --reason "old imagery" --key planner.key
    """
    keys = keyfiles.keys_for_later(key or [], passphrase_file, signer)
    again = f"flightbag withdraw {store} {id_}"
    with Repository.open(store) as repository:
        return _run(
            repository,
            of_mission(id_),
            reason,
            keys if _sign(key, reason, expect) else None,
            expect,
            again,
            discard=discard,
            as_json=as_json,
        )


@exits(acts=_acts)
def release(
    store: StoreBeforeName,
    name: Annotated[str, Argument(metavar="NAME", help="The name of the release.")],
    reason: Reason = None,
    key: OptionalKeys = None,
    signer: SignerCommand = None,
    passphrase_file: PassphraseFile = None,
    expect: Expect = None,
    discard: Discard = False,
    as_json: Json = False,
) -> int:
    """Withdraw a release: builds refuse it, and no mission that rests on it flies.

    The release keys withdraw it, as many as it takes: the first with --reason, the
    next ones with --key and the code. Without an option, show the withdrawal.

    Example: flightbag release withdraw ground winter --reason "it drifts" --key lab.key
    """
    keys = keyfiles.keys_for_later(key or [], passphrase_file, signer)
    again = f"flightbag release withdraw {store} {name}"
    with Repository.open(store) as repository:
        file = withdrawals.name_of_release(repository, name)
        return _run(
            repository,
            file,
            reason,
            keys if _sign(key, reason, expect) else None,
            expect,
            again,
            discard=discard,
            as_json=as_json,
        )


def _sign(key: Sequence[Path] | None, reason: str | None, expect: str | None) -> bool:
    """Return whether the keys sign. FLIGHTBAG_KEY by itself does not turn a look at a withdrawal into a signature."""
    return bool(key) and not (reason is None and expect is None and came_from_environment("key"))


def _run(
    repository: Repository,
    name: str,
    reason: str | None,
    keys: Keys | None,
    expect: str | None,
    again: str,
    *,
    discard: bool,
    as_json: bool,
) -> int:
    now = int(time.time())
    if discard:
        if reason is not None or keys is not None:
            raise Invalid("--discard goes with neither --reason nor --key", remedy="give one of them")
        return _discarded(withdrawals.discard(repository, name), as_json=as_json)
    if reason is None and keys is None:
        return _show(repository, name, again, as_json=as_json)

    def approve(pending: Pending) -> Sequence[Signer]:
        # What this very command made of the person's own words needs no code.
        if reason is None:
            how = f"look at it with `{again}`, and give its code as --expect CODE"
            if (code := show_and_ask(_lines(pending), expect=expect, as_json=as_json, how=how)) is not None:
                pending.require(code)
        return () if keys is None else keys.open()

    if reason is not None:
        outcome = withdrawals.begin(repository, name, approve, reason=reason, now=now, expect=expect)
    else:
        outcome = withdrawals.sign_draft(repository, name, approve, now=now, expect=expect)
    if as_json:
        pending, state = _json(outcome.pending), "in_effect" if outcome.in_effect else "draft"
        print_json(
            {"in_effect": None, "draft": None, state: pending, "signing_code": outcome.pending.signing_code}
            | {"signatures": outcome.signatures, "threshold": outcome.threshold}
        )
    else:
        if reason is not None:  # else the review has shown it
            print_lines(_lines(outcome.pending))
        told = _outcome(outcome, again)
        print_lines(told) if outcome.in_effect else insist(*told)
    return OK


def _outcome(outcome: Outcome, again: str) -> Iterator[str]:
    if outcome.replaced:
        yield f"this replaced an earlier draft with {render.many(outcome.replaced, 'signature')}"
    if outcome.in_effect:
        yield "WITHDRAWN: sync it to every medium and every station; only an aircraft that sees it knows of it"
    else:
        yield f"NOT WITHDRAWN: it has {outcome.signatures} of {outcome.threshold} signatures"
        yield f"the next key signs with `{again} --key KEY --expect {outcome.pending.signing_code}`"


def _lines(pending: Pending) -> Iterator[str]:
    yield from lines.table(
        [
            ("withdraws", _subject(pending.value)),
            ("reason", pending.value.reason),
            ("begun", render.when(pending.value.issued_at)),
            ("signing code", pending.signing_code),
        ]
    )


def _subject(value: Withdrawal) -> str:
    if value.mission:
        return f"mission {value.mission}, up to sequence {value.sequence} of epoch {value.epoch}"
    return f"release {lines.short(value.release.hex())}"


def _json(pending: Pending) -> dict[str, Any]:
    value = pending.value
    subject: dict[str, Any] = (
        {"mission": value.mission, "epoch": value.epoch, "sequence": value.sequence}
        if value.mission
        else {"release": value.release.hex()}
    )
    return subject | {
        "reason": value.reason,
        "issued_at": value.issued_at,
        "signing_code": pending.signing_code,
        "kids": [signature.kid.hex() for signature in pending.envelope.signatures],
    }


def _discarded(signatures: int, *, as_json: bool) -> int:
    if as_json:
        print_json({"signatures": signatures})
    else:
        say(f"discarded the draft of the withdrawal, with {render.many(signatures, 'signature')}")
    return OK


def _show(repository: Repository, name: str, again: str, *, as_json: bool) -> int:
    """Show what is in effect and the draft. Raise NotFound where there is neither."""
    root = repository.trust_root().root
    shown: dict[str, Any] = {"in_effect": None, "draft": None}
    for state, read in (("in_effect", withdrawals.in_effect), ("draft", withdrawals.draft_of)):
        try:
            pending = read(repository, name)
        except NotFound:
            continue
        why = _wrong(pending, root, draft=state == "draft")
        shown[state] = _json(pending) | {"why": why}
        # The code that a person asks for is that of the draft, if there is one.
        shown["signing_code"] = pending.signing_code
        if as_json:
            continue
        say("a draft, which withdraws nothing yet" if state == "draft" else "in effect")
        print_lines(_lines(pending))
        for signature in pending.envelope.signatures:
            print_lines(render.key_lines(root, signature.kid, "has signed"))
        if why:
            say(f"DOES NOT HOLD: {why}")
    states = [one for one in (shown["in_effect"], shown["draft"]) if one is not None]
    if not states:
        raise NotFound(
            f"{repository.media.path} has no withdrawal of {withdrawals.subject_of(name)}",
            remedy=f"`{again} --reason TEXT --key KEY` begins one",
            kind="missing",
        )
    if as_json:
        print_json(shown, [Finding("bad-withdrawal", one["why"]) for one in states if one["why"]])
    return OK if not any(one["why"] for one in states) else NO


def _wrong(pending: Pending, root: TrustRoot, *, draft: bool) -> str:
    """Return why a withdrawal does not hold, or why its draft never can; "" where nothing is against it."""
    try:
        if draft:
            pending.signatures(root)
        else:
            pending.check(root)
    except FlightbagError as error:
        return error.message
    return ""
