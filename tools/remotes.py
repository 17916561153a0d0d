"""Syncs to stores that lie elsewhere and from them: opens the transport that a place names, and carries a plan over it.

Whether ssh may ask for a passphrase depends on a terminal, and is decided here.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from store.errors import Invalid, NoStore
from store.findings import Finding
from store.ground.repository import Repository
from store.ground.sync import SyncPlan, apply_sync, plan_sync
from store.remotes import bucket_store
from store.remotes.bucket import BucketClient
from store.remotes.mirror import apply_push, mirrored, plan_push
from store.remotes.place import Bucket, Folder, Host
from store.remotes.ssh import Verdicts, apply_pull, connected
from tools import render
from tools.progress import bytes_bar, reading_bars
from tools.status import NO, OK, UNKNOWN

_VERIFY = "run `flightbag verify` there"


def check_places(source: Folder | Host | Bucket, targets: Sequence[Folder | Host | Bucket], *, clean: bool) -> None:
    """Raise Invalid for what no transport can do."""
    if not isinstance(source, Folder) and (len(targets) > 1 or not isinstance(targets[0], Folder)):
        remedy = "sync to one folder of this machine, and from there to the others"
        raise Invalid(f"a sync from {source} goes to one folder", remedy=remedy)
    if clean and any(not isinstance(place, Folder) for place in targets):
        raise Invalid("--clean removes nothing from another machine", remedy="leave it out, or run it there")


def push(
    source: Repository, place: Host | Bucket, missions: Sequence[str], *, checksum: bool, dry_run: bool
) -> tuple[SyncPlan, Verdicts | None]:
    """Sync a local store to another machine or a bucket. Return the plan, and what the machine says of its copy if it
    changed."""
    if isinstance(place, Bucket):
        client = BucketClient.connect(place.url)
        with reading_bars() as advance:
            sent = partial(advance, f"sending to {client.name}")
            plan = bucket_store.push(source, client, missions, checksum=checksum, dry_run=dry_run, progress=sent)
        return plan, None
    with (
        connected(place, _station(source.media.path), interactive=_interactive()) as ssh,
        mirrored(ssh, source.media, missions) as mirror,
    ):
        plan = plan_push(source, mirror, missions, checksum=checksum)
        if dry_run:
            return plan, None
        with bytes_bar(f"sending to {place.host}", plan.bytes) as progress:
            apply_push(plan, source, mirror, progress)
        ssh.tidy()
        carried = [*(move.mission for move in plan.moves), *plan.unchanged]
        if not carried or not (checksum or plan.missing or plan.roots or plan.files or plan.moves):
            return plan, None
        return plan, ssh.verdicts(carried, source.trust_root().envelope.render())


def pull(
    place: Host | Bucket,
    path: str,
    target: Repository | None,
    missions: Sequence[str],
    *,
    checksum: bool,
    dry_run: bool,
) -> SyncPlan:
    """Sync the store of another machine or a bucket to the folder `path`, which has the store `target`, None for none.
    Return the plan. Raise NoStore where none is there."""
    if isinstance(place, Bucket):
        client = BucketClient.connect(place.url)
        with bucket_store.pulled(client, None if target is None else target.media, missions) as (source, far):
            plan = plan_sync(source, target, missions, checksum=checksum)
            if not dry_run:
                with bytes_bar(f"copying from {client.name}", plan.bytes) as progress:
                    apply_sync(plan, source, path, bring=partial(far.bring, progress=progress))
        return plan
    with (
        connected(place, _station(path), interactive=_interactive()) as ssh,
        mirrored(ssh, None if target is None else target.media, missions) as mirror,
    ):
        with mirror.opened() as source:
            if source is None:
                remedy = "check the host and the path; a relative path is below the home folder of the user there"
                raise NoStore(f"{place} does not exist", remedy=remedy, kind="no-store", path=str(place))
            plan = plan_sync(source, target, missions, checksum=checksum)
        if not dry_run:
            with bytes_bar(f"copying from {place.host}", plan.bytes) as progress:
                apply_pull(plan, mirror, ssh, path, progress)
    return plan


def _station(path: str) -> str:
    return f"{socket.gethostname()}:{os.path.realpath(path)}"


def _interactive() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def status_of_verdicts(verdicts: Verdicts) -> int:
    """Return the exit status that the verdicts of another machine stand for."""
    if any(one.wrong and not one.unknown for one in verdicts.missions.values()):
        return NO
    failed = verdicts.why and not verdicts.absent
    return UNKNOWN if failed or any(one.unknown for one in verdicts.missions.values()) else OK


def findings_of_verdicts(verdicts: Verdicts, target: str) -> list[Finding]:
    """Return what another machine found wrong in its copy, or could not look at."""
    found = []
    if verdicts.why and not verdicts.absent:
        found.append(Finding("not-verified", verdicts.why, path=target, remedy=_VERIFY, unreadable=True))
    for mission, one in verdicts.missions.items():
        if one.unknown or one.wrong:
            message = (one.wrong or one.against or ("",))[0]
            remedy = _VERIFY if one.unknown else "sync again with --checksum"
            found.append(
                Finding(
                    "not-verified", message, path=target, remedy=remedy, missions=(mission,), unreadable=one.unknown
                )
            )
    return found


def verdicts_json(verdicts: Verdicts) -> dict[str, Any]:
    missions = {
        mission: {
            "whole": not one.wrong and not one.unknown,
            "could_not_look": one.unknown,
            "wrong": list(one.wrong),
            "against": list(one.against),
        }
        for mission, one in verdicts.missions.items()
    }
    return {"missions": missions, "why_not": verdicts.why}


def verdict_lines(verdicts: Verdicts) -> Iterator[str]:
    """Yield what another machine says of its copy, for people."""
    if verdicts.absent:
        yield f"not verified there: {verdicts.why}"
    elif verdicts.why:
        yield f"could NOT be verified there: {verdicts.why}; {_VERIFY}"
    whole = [mission for mission, one in verdicts.missions.items() if not one.wrong and not one.unknown]
    if whole:
        yield from render.listed("verified there:", whole)
    for mission, one in verdicts.missions.items():
        if one.unknown:
            yield f"could NOT be verified there: {mission}: {(one.wrong or one.against or ('',))[0]}; {_VERIFY}"
        elif one.wrong:
            yield f"NOT whole there: {mission}: {one.wrong[0]}; sync again with --checksum"
        elif one.against:
            yield f"whole there, and yet NO-GO: {mission}: {one.against[0]}"
