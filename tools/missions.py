"""The commands for the history and the content of missions: log, rollback, diff, stats, checkout."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from store.disk import log
from store.disk.media import Media, object_path
from store.errors import FlightbagError, Invalid, NotFound, instead_of
from store.format.ids import ObjectId, is_hex
from store.format.ref import ref_id
from store.ground.checkout import check_checkout, checkout
from store.ground.history import Diff, Stats, diff, rollback, stats
from store.ground.issuing import Review
from store.ground.naming import manifest_named
from store.ground.repository import Repository
from store.ground.signers import Roster
from store.takeoff.coverage import read_missing
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Binding
from store.takeoff.verify import verify_mission
from store.trust.keys import Signer
from store.trust.root import SignedRoot
from tools import keyfiles, lines, render
from tools.arguments import (
    Json,
    Keys,
    Mission,
    NeededTrust,
    OptionalMission,
    PassphraseFile,
    SignerCommand,
    Store,
    StoreBeforeName,
    StoreOrMission,
    before_names,
    leading,
    print_lines,
)
from tools.parameters import Argument, Option
from tools.progress import reading_bars
from tools.review import Expect, show_and_ask
from tools.status import NO, OK, UNKNOWN, action, command, exits, insist, print_json, say, status_of_findings
from tools.verdicts import findings_of, print_verdicts


@command
def log_command(
    store: StoreOrMission,
    mission: OptionalMission = None,
    as_json: Json = False,
) -> int:
    """Show the log of a store, the newest event last. For one mission, also show which manifests the store still has,
    and who has signed them.

    The last line is the hash of the newest event, for `flightbag verify --anchor`.

    Example: flightbag log ground north-ridge
    """
    with Repository.open(store) as repository:
        current = _current(repository, mission) if mission else None
        roster = _roster(repository)
        rows = []
        for event, hash_ in zip(log.events(repository.media), log.hashes(repository.media), strict=False):
            if mission and event.facts.get("mission") != mission:
                continue
            row: dict[str, Any] = {"at": event.at, "event": event.event, "hash": hash_, **event.facts}
            if mission and event.event in log.MOVES:
                id_ = ObjectId.parse(event.facts["manifest"])
                row |= {"current": id_ == current, "there": _is_present(repository.media, id_)}
                row |= _signers(roster, () if roster is None else roster.signers(repository, id_))
            elif kids := _kids(event.facts.get("kids")):
                row |= _signers(roster, kids)
            rows.append(row)
        if mission and not rows:
            known = sorted(
                {str(one.facts["mission"]) for one in log.events(repository.media) if "mission" in one.facts}
            )
            text = f"the log of {repository.media.path} has no mission {mission[:80]}"
            remedy = instead_of(mission, known) or "check that this is the right store: its log has no mission"
            raise NotFound(text, remedy=remedy, kind="missing")
    if as_json:
        print_json({"events": rows})
    else:
        print_lines(lines.table([_event(row) for row in rows]) if rows else ["no events"])
        if rows:
            say(f"hash of the last line: {rows[-1]['hash']}")
    return OK


def _roster(repository: Repository) -> Roster | None:
    """Return the keys of a store and their names; None where its trust roots cannot say them."""
    with suppress(FlightbagError):
        return Roster.of(repository)
    return None


def _kids(value: object) -> list[bytes]:
    """Return the kids of a line of the log, which nobody signs: none for anything else than a list of them."""
    kids = value if isinstance(value, list) else []
    return [bytes.fromhex(kid) for kid in kids] if all(type(kid) is str and is_hex(kid) for kid in kids) else []


def _signers(roster: Roster | None, kids: Iterable[bytes]) -> dict[str, Any]:
    names = {} if roster is None else roster.names
    return {"signers": [{"kid": kid.hex(), "name": names.get(kid, "")} for kid in kids]}


def _current(repository: Repository, mission: str) -> ObjectId | None:
    try:
        return ref_id(repository.evidence.ref(mission))
    except FlightbagError:
        return None


def _is_present(media: Media, id_: ObjectId) -> bool:
    try:
        media.stamp(object_path(id_))
    except FlightbagError:
        return False
    return True


def _event(row: dict[str, Any]) -> tuple[str, ...]:
    told = ("at", "event", "hash", "current", "there", "signers", *(["kids"] if "signers" in row else []))
    facts = {key: value for key, value in row.items() if key not in told}
    if signers := row.get("signers"):
        facts["signed by"] = [lines.short(one["kid"]) + (f" ({one['name']})" if one["name"] else "") for one in signers]
    state = "current" if row.get("current") else "" if row.get("there", True) else "collected or lost"
    text = "  ".join(f"{key} {lines.shortened(_plain(value))}" for key, value in facts.items())
    return render.when(row["at"]), row["event"], state, text


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items()) or "none"
    return ", ".join(map(_plain, value)) or "none" if isinstance(value, list) else str(value)


@action
def rollback_command(
    store: StoreBeforeName,
    mission: Mission,
    key: Keys,
    signer: SignerCommand = None,
    to: Annotated[
        str | None,
        Option(
            metavar="ID",
            help="The manifest to go back to: the first digits of its id. The default is the one before the current.",
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    expect: Expect = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Show which manifest it would go back to. Write nothing.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Publish the entries of an earlier manifest again, signed, with a new sequence.

    It is valid for as long as the earlier one was, counted from now: also where the
    mission file gave that a fixed end (valid_until).

    The code of that manifest says that it is the one you mean: --dry-run prints it. Without a terminal, give it as
    --expect, or the whole id of the manifest as --to.

    Example: flightbag rollback ground north-ridge --key planner.key --expect 4X7QK-09DZM
    """
    keys = keyfiles.keys_for_later(key, passphrase_file, signer)
    with Repository.open(store) as repository:
        now = int(time.time())
        target = None if to is None else manifest_named(repository, mission, to)

        def approve(review: Review) -> Sequence[Signer]:
            facts = render.review(review, read_missing(review.opened, repository.evidence), now)
            how = "see `flightbag rollback --dry-run`, and give the code as --expect CODE, or the whole id as --to ID"
            # A script that gives --to whole has named the manifest: no log, which nobody signs, has chosen it.
            is_named = to is not None and is_hex(to)
            named = expect or (review.named.signing_code if is_named and not sys.stdin.isatty() else None)
            if (code := show_and_ask(facts, expect=named, as_json=as_json, how=how)) is not None:
                review.require(code)
            return keys.open()

        outcome = rollback(repository, mission, approve, now=now, to=target, expect=expect, dry_run=dry_run)
    if as_json:
        value = {name: str(item) if isinstance(item, ObjectId) else item for name, item in asdict(outcome).items()}
        print_json({**value, "dry_run": dry_run})
    elif outcome.unchanged:
        say(f"unchanged: {outcome.mission} already has the entries of {lines.short(outcome.to)}")
    else:
        verb = "would go back" if dry_run else "went back" if outcome.manifest else "has a draft that goes back"
        say(f"{outcome.mission} {verb} to the entries of {lines.short(outcome.to)}, as sequence {outcome.sequence}")
        say(f"the manifest that it {'would go' if dry_run else 'goes'} back to has the signing code {outcome.to_code}")
        say(f"valid: {render.validity(outcome.valid_from, outcome.expires_at, now)}")
        if outcome.replaced:
            say(f"this replaced an earlier draft with {render.many(outcome.replaced, 'signature')}")
        if outcome.manifest:
            say(f"manifest {lines.short(outcome.manifest)}")
        elif not dry_run:
            insist(
                f"NOT PUBLISHED: it has {outcome.signatures} of {outcome.threshold} signatures; "
                f"the next key signs with `flightbag sign`, signing code {outcome.signing_code}"
            )
    return OK


@command
def diff_command(
    store: StoreBeforeName,
    a: Annotated[str, Argument(metavar="A", help="The id of a mission.")],
    b: Annotated[str, Argument(metavar="B", help="The id of the mission to compare it with.")],
    as_json: Json = False,
) -> int:
    """Show which entries two missions share, which differ, and how many bytes sharing saves.

    Signs: = same name and object, ! same name but other object,
    ~ same object under other names, - only in A, + only in B.

    Example: flightbag diff ground north-ridge south-ridge
    """
    with Repository.open(store) as repository:
        difference = diff(repository.current(a), repository.current(b))
    if as_json:
        print_json(asdict(difference))
    else:
        print_lines(_diff(difference))
    return OK


def _diff(item: Diff) -> Iterator[str]:
    rows = [("=", name) for name in item.same]
    rows += [("!", name) for name in item.changed]
    rows += [("~", f"{name_a} in {item.a}, {name_b} in {item.b}") for name_a, name_b in item.moved]
    rows += [("-", name) for name in item.only_a] + [("+", name) for name in item.only_b]
    yield from lines.table(sorted(rows, key=lambda row: row[1]))
    yield (
        f"shared {render.size(item.shared_bytes)} (=, ~); only in {item.a} {render.size(item.own_a_bytes)} (-, !), "
        f"only in {item.b} {render.size(item.own_b_bytes)} (+, !)"
    )


@command
def stats_command(store: Store, as_json: Json = False) -> int:
    """Show how many objects and bytes a store holds, how many each mission needs, and how much sharing saves.

    Example: flightbag stats ground
    """
    with Repository.open(store) as repository:
        counts = stats(repository)
    if as_json:
        print_json({**asdict(counts), "dedup_ratio": round(counts.dedup_ratio, 4)})
    else:
        print_lines(_stats(counts))
    return OK


def _stats(item: Stats) -> Iterator[str]:
    rows = [("mission", "objects", "bytes", "shared", "own")]
    for name, one in item.missions.items():
        sizes = (render.size(one.bytes), render.size(one.shared_bytes), render.size(one.own_bytes))
        rows.append((name, str(one.objects), *sizes))
    yield from lines.table(rows)
    yield f"in the store: {item.objects} objects, {render.size(item.bytes)}"
    yield f"needed by no mission: {item.unreferenced_objects} objects, {render.size(item.unreferenced_bytes)}"
    yield (
        f"dedup ratio {item.dedup_ratio:.2f}: the missions need {render.size(item.closure_bytes)} without sharing, "
        f"{render.size(item.unique_bytes)} with it"
    )


def _store_of_checkout(store: str | None, after: Sequence[str]) -> str:
    """Return STORE, "" where there are no arguments: --check needs no store."""
    return before_names(store, after) if store is not None or after else ""


@exits(
    kept="nothing has the name of the folder: what was written lies in DIR.partial, "
    "which the same checkout removes before it begins again",
    acts=lambda given: given["check"] is None,
)
def checkout_command(
    store: Annotated[str, leading("The folder of the store.", _store_of_checkout)],
    trust: NeededTrust,
    what: Annotated[
        tuple[str, str] | None,
        Argument(metavar="MISSION DIR", help="The id of the mission, and the new folder."),
    ] = None,
    check: Annotated[
        str | None,
        Option("--check", metavar="DIR", help="Find each changed, missing and extra file of this checkout."),
    ] = None,
    hard_link: Annotated[
        bool,
        Option(
            "--hard-link",
            help="Link to the files of the store instead of copying them. Writing to one damages the store.",
        ),
    ] = False,
    as_json: Json = False,
) -> int:
    """Write a verified mission as plain files in a new folder, or with --check compare such a folder with what was
    signed.

    Example: flightbag checkout ground north-ridge ridge --trust pinned.root.cbor
    """
    root = keyfiles.pinned(trust)
    if check is not None:
        if store or hard_link:
            text = "--check excludes all arguments, and --hard-link"
            raise Invalid(text, remedy="flightbag checkout --check DIR --trust ROOT")
        keyfiles.refuse_inside("--trust", trust, check)
        return _check(check, root, as_json=as_json)
    if what is None:
        raise Invalid("MISSION or DIR is missing", remedy="flightbag checkout STORE MISSION DIR --trust ROOT")
    mission, target = what
    with keyfiles.open_to_verify(store, trust) as media:
        return _checkout(media, mission, target, root, hard_link=hard_link, as_json=as_json)


def _checkout(media: Media, mission: str, target: str, root: SignedRoot, *, hard_link: bool, as_json: bool) -> int:
    with reading_bars() as progress:
        evidence = StoreEvidence(media, partial(progress, "verifying"))
        verdict = verify_mission(evidence, mission, root, Binding(int(time.time())))
        if verdict.mission is None:
            if as_json:
                print_json({}, findings_of(verdict))
            else:
                print_verdicts([verdict])
            return UNKNOWN if verdict.unknown else NO
        outcome = checkout(verdict.mission, evidence, target, hard_link=hard_link, progress=progress)
    if as_json:
        print_json({"folder": target, "files": outcome.files, "bytes": outcome.bytes, "how": dict(outcome.how)})
    else:
        ways = ", ".join(f"{count} by {way}" for way, count in sorted(outcome.how.items()))
        say(f"checked out {mission} to {target}: {outcome.files} files, {render.size(outcome.bytes)}; {ways}")
    return OK


def _check(folder: str, root: SignedRoot, *, as_json: bool) -> int:
    findings = check_checkout(folder, root)
    if as_json:
        print_json({"folder": folder}, findings)
    else:
        for finding in findings:
            print_lines(render.finding(finding))
        say(
            f"{folder}: {render.many(len(findings), 'finding')}"
            if findings
            else f"{folder}: unchanged since the checkout"
        )
    return status_of_findings(findings)
