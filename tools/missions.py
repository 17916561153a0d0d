"""The commands for the life of missions: log, rollback, diff, stats, checkout."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from store.disk import log
from store.disk.layout import check_format
from store.disk.media import Media, object_path
from store.errors import FlightbagError, Invalid
from store.format.ids import ObjectId
from store.format.ref import ref_id
from store.ground.checkout import check_checkout, checkout
from store.ground.history import Diff, Stats, diff, rollback, stats
from store.ground.repository import Repository
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Binding
from store.takeoff.verify import pinned_root, verify_mission
from store.trust.root import ROOT_FILE_LIMIT, SignedRoot
from tools import keyfiles, render
from tools.arguments import Json, Keys, PassphraseFile, SignerCommand, Store, print_lines, store_and, store_then
from tools.progress import bytes_bar
from tools.status import NO, OK, UNKNOWN, command, print_json, say

Trust = Annotated[Path | None, typer.Option(readable=False, help="The pinned trust root; never the store's own.")]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command("log")(log_command)
    app.command("rollback")(rollback_command)
    app.command("diff")(diff_command)
    app.command("stats")(stats_command)
    app.command("checkout")(checkout_command)


@command
def log_command(
    store_and_mission: Annotated[
        list[str] | None, typer.Argument(metavar="[STORE] [MISSION]", show_default=False)
    ] = None,
    as_json: Json = False,
) -> int:
    """Show what happened, the newest last; of a mission, which manifest is current and which are there still."""
    store, mission = store_and(store_and_mission or [], needed=False)
    with Repository.open(store) as repository:
        current = _current(repository, mission) if mission else None
        rows = []
        for event, hash_ in zip(log.events(repository.media), log.hashes(repository.media), strict=False):
            if mission and event.facts.get("mission") != mission:
                continue
            row: dict[str, Any] = {"at": event.at, "event": event.event, "hash": hash_, **event.facts}
            if mission and event.event in log.MOVES:
                id_ = ObjectId.parse(event.facts["manifest"])
                row |= {"current": id_ == current, "there": _there(repository.media, id_)}
            rows.append(row)
    if as_json:
        print_json(rows)
    else:
        print_lines(render.table([_event(row) for row in rows]))
        if rows:
            say(f"the last of these lines: {rows[-1]['hash']}")
    return OK


def _current(repository: Repository, mission: str) -> ObjectId | None:
    try:
        return ref_id(repository.evidence.ref(mission))
    except FlightbagError:
        return None


def _there(media: Media, id_: ObjectId) -> bool:
    try:
        media.stamp(object_path(id_))
    except FlightbagError:
        return False
    return True


def _event(row: dict[str, Any]) -> tuple[str, ...]:
    facts = {key: value for key, value in row.items() if key not in ("at", "event", "hash", "current", "there")}
    state = "current" if row.get("current") else "" if row.get("there", True) else "collected or lost"
    text = "  ".join(f"{key} {_plain(value)}" for key, value in facts.items())
    return render.when(row["at"]), row["event"], state, text


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items()) or "none"
    return ", ".join(map(_plain, value)) or "none" if isinstance(value, list) else str(value)


@command
def rollback_command(
    store_and_mission: Annotated[list[str], typer.Argument(metavar="[STORE] MISSION", show_default=False)],
    key: Keys,
    signer: SignerCommand = None,
    to: Annotated[str | None, typer.Option(help="The manifest to go back to; else the one before.")] = None,
    passphrase_file: PassphraseFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would go back to.")] = False,
    as_json: Json = False,
) -> int:
    """Publish an earlier manifest's entries anew, signed with a new sequence."""
    store, mission = store_and(store_and_mission, needed=True)
    signers = keyfiles.signers(key, keyfiles.passphrase_from(passphrase_file), signer)
    target = None if to is None else ObjectId.parse(to)
    with Repository.open(store) as repository:
        done = rollback(repository, mission or "", signers, now=int(time.time()), to=target, dry_run=dry_run)
    if as_json:
        value = {name: str(item) if isinstance(item, ObjectId) else item for name, item in asdict(done).items()}
        print_json({**value, "dry_run": dry_run})
    elif done.unchanged:
        say(f"unchanged: {done.mission} says already what {done.to} says")
    else:
        verb = "would go back" if dry_run else "went back" if done.manifest else "has a draft to go back"
        say(f"{done.mission} {verb} to the entries of {done.to}, as sequence {done.sequence}")
        if done.replaced:
            say(f"the draft before it is gone, with {render.many(done.replaced, 'signature')}")
        if done.manifest:
            say(f"manifest {done.manifest}")
        elif not dry_run:
            say(f"NOT PUBLISHED: it has {done.signatures} of {done.threshold} signatures: flightbag sign")
    return OK


@command
def diff_command(
    store_and_missions: Annotated[list[str], typer.Argument(metavar="[STORE] A B", show_default=False)],
    as_json: Json = False,
) -> int:
    """Show what two missions share."""
    store, (a, b) = store_then(store_and_missions, 2)
    with Repository.open(store) as repository:
        found = diff(repository.current(a), repository.current(b))
    if as_json:
        print_json(asdict(found))
    else:
        print_lines(_diff(found))
    return OK


def _diff(found: Diff) -> Iterator[str]:
    rows = [("=", name) for name in found.same]
    rows += [("!", name) for name in found.changed]
    rows += [("~", f"{one} is {other} there") for one, other in found.moved]
    rows += [("-", name) for name in found.only_a] + [("+", name) for name in found.only_b]
    yield from render.table(sorted(rows, key=lambda row: row[1]))
    yield (
        f"shared {render.size(found.shared_bytes)} (=, ~); own of {found.a} {render.size(found.own_a_bytes)} (-, !), "
        f"of {found.b} {render.size(found.own_b_bytes)} (+, !)"
    )


@command
def stats_command(store: Store, as_json: Json = False) -> int:
    """Show what a store holds, what each mission takes, and what sharing saves."""
    with Repository.open(store) as repository:
        found = stats(repository)
    if as_json:
        print_json({**asdict(found), "dedup_ratio": round(found.dedup_ratio, 4)})
    else:
        print_lines(_stats(found))
    return OK


def _stats(found: Stats) -> Iterator[str]:
    rows = [("mission", "objects", "bytes", "shared", "own")]
    for name, one in found.missions.items():
        sizes = (render.size(one.bytes), render.size(one.shared_bytes), render.size(one.own_bytes))
        rows.append((name, str(one.objects), *sizes))
    yield from render.table(rows)
    yield f"in the store: {found.objects} objects, {render.size(found.bytes)}"
    yield f"needed by no mission: {found.unreferenced_objects} objects, {render.size(found.unreferenced_bytes)}"
    yield (
        f"dedup ratio {found.dedup_ratio:.2f}: the missions apart would take {render.size(found.closure_bytes)}, "
        f"together they take {render.size(found.unique_bytes)}"
    )


@command
def checkout_command(
    args: Annotated[list[str], typer.Argument(metavar="[STORE] MISSION DIR | DIR", show_default=False)],
    trust: Trust = None,
    check: Annotated[bool, typer.Option("--check", help="Check the checkout DIR: changed, missing, extra.")] = False,
    hard_link: Annotated[
        bool, typer.Option("--hard-link", help="Share the store's files; a write to one would damage the store.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Write a verified mission as plain files, or check such a folder."""
    if trust is None:
        raise Invalid("--trust is missing", remedy="give the pinned trust root's file")
    root = pinned_root(keyfiles.read_file(trust, ROOT_FILE_LIMIT, "the trust root"))
    if check:
        if len(args) != 1 or hard_link:
            raise Invalid("--check takes one folder", remedy="flightbag checkout --check DIR --trust ROOT")
        keyfiles.refuse_inside("--trust", trust, args[0])
        return _check(args[0], root, as_json=as_json)
    if len(args) < 2:
        raise Invalid("MISSION and DIR are needed", remedy="flightbag checkout STORE MISSION DIR --trust ROOT")
    store, mission = store_and(args[:-1], needed=True)
    keyfiles.refuse_inside("--trust", trust, store)
    return _checkout(store, mission or "", args[-1], root, hard_link=hard_link, as_json=as_json)


def _checkout(store: str, mission: str, target: str, root: SignedRoot, *, hard_link: bool, as_json: bool) -> int:
    with Media(store) as media, bytes_bar("verifying") as progress:
        check_format(media)
        evidence = StoreEvidence(media, progress)
        verdict = verify_mission(evidence, mission, root, Binding(int(time.time())))
        if verdict.mission is None:
            if as_json:
                print_json({"go": False, "findings": [finding.as_json() for finding in verdict.findings]})
            else:
                print_lines(render.verdict(verdict))
            return UNKNOWN if verdict.unknown else NO
        done = checkout(verdict.mission, evidence, target, hard_link=hard_link)
    if as_json:
        print_json({"go": True, "directory": target, "files": done.files, "bytes": done.bytes, "how": dict(done.how)})
    else:
        ways = ", ".join(f"{count} by {way}" for way, count in sorted(done.how.items()))
        say(f"checked out {mission} to {target}: {done.files} files, {render.size(done.bytes)}; {ways}")
    return OK


def _check(folder: str, root: SignedRoot, *, as_json: bool) -> int:
    findings = check_checkout(folder, root)
    if as_json:
        print_json({"clean": not findings, "findings": [finding.as_json() for finding in findings]})
    else:
        for finding in findings:
            print_lines(render.finding(finding))
        say(f"{folder}: {render.many(len(findings), 'finding')}" if findings else f"{folder}: as it was checked out")
    if not findings:
        return OK
    return UNKNOWN if all(finding.unreadable for finding in findings) else NO
