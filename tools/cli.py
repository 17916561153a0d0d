"""The command `flightbag`: parses, calls, renders. Everything that is decided is decided below it."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from builders.extras import require_build_extra
from store.errors import FlightbagError, Invalid, NotFound, Unavailable
from store.evidence import StoreEvidence
from store.media import Media
from store.repository import Repository, check_format, check_free
from store.sync import apply_sync, plan_sync
from store.trust.root import ROOT_FILE_LIMIT, SALT_SIZE, first_root
from store.verify import Binding, Verdict, pinned_root, verify_mission
from tools import fsck, keeping, keyfiles, missions, render
from tools.arguments import ENV, Json, MissionFilePath, PassphraseFile, Store, print_lines, store_and
from tools.progress import bytes_bar, work_bars
from tools.status import NO, OK, UNKNOWN, USAGE, command, print_json, say

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Build, seal, carry and verify the engines and map descriptors of aircraft that navigate by sight.",
)
keys_app = typer.Typer(no_args_is_help=True, help="Make and show signing keys.")
trust_app = typer.Typer(no_args_is_help=True, help="Say who may sign.")
app.add_typer(keys_app, name="keys")
app.add_typer(trust_app, name="trust")


@app.command()
@command
def init(store: Store, as_json: Json = False) -> int:
    """Make an empty store."""
    with Repository.init(store) as repository:
        if as_json:
            print_json({"store": repository.media.path})
        else:
            say(f"made the store {repository.media.path}")
    return OK


@keys_app.command("new")
@command
def keys_new(
    file: Annotated[Path, typer.Argument(help="Where the private key goes; FILE.pub beside it.")],
    passphrase_file: PassphraseFile = None,
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="Leave the key in the clear.")] = False,
    as_json: Json = False,
) -> int:
    """Make an Ed25519 key: encrypted PKCS#8 in FILE, the public key in FILE.pub."""
    if no_passphrase and passphrase_file is not None:
        raise Invalid("--no-passphrase and --passphrase-file exclude each other")
    ask = None if no_passphrase else keyfiles.passphrase_from(passphrase_file)
    public = keyfiles.new_key(file, ask, confirm=passphrase_file is None)
    return _show_key(public.kid, public.raw, as_json=as_json)


@keys_app.command("show")
@command
def keys_show(
    file: Annotated[Path, typer.Argument(readable=False, help="A private key or a .pub.")],
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> int:
    """Print a key's kid."""
    public = keyfiles.public_key(file, keyfiles.passphrase_from(passphrase_file))
    return _show_key(public.kid, public.raw, as_json=as_json)


def _show_key(kid: bytes, raw: bytes, *, as_json: bool) -> int:
    if as_json:
        print_json({"kid": kid.hex(), "public": raw.hex()})
    else:
        say(f"kid {kid.hex()}")
    return OK


@trust_app.command("new")
@command
def trust_new(
    store: Store,
    domain: Annotated[str, typer.Option(help="A label for the trust domain.")],
    root_key: Annotated[list[Path], typer.Option(readable=False, help="A root key; a private one signs.")],
    mission_key: Annotated[list[Path], typer.Option(readable=False, help="May sign missions; a .pub will do.")],
    threshold: Annotated[list[str] | None, typer.Option(help="ROLE=N; 1 if not said.", metavar="ROLE=N")] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> int:
    """Write trust root 1 of a store: who may sign missions, and who may change that."""
    thresholds = _thresholds(threshold or [])
    ask = keyfiles.passphrase_from(passphrase_file)
    signers = [keyfiles.private_key(path, ask) for path in root_key if keyfiles.is_private(path)]
    public = [keyfiles.public_key(path, ask) for path in root_key if not keyfiles.is_private(path)]
    signed = first_root(
        domain,
        root_keys=[*public, *(signer.public for signer in signers)],
        mission_keys=[keyfiles.public_key(path, ask) for path in mission_key],
        thresholds=thresholds,
        issued_at=int(time.time()),
        salt=secrets.token_bytes(SALT_SIZE),
        signers=signers,
    )
    root = signed.root
    with Repository.open(store) as repository:
        path = repository.found_domain(signed, now=int(time.time()))
    if as_json:
        print_json({"root": path, "domain": domain, "domain_id": root.domain_id.hex(), "version": 1})
    else:
        say(f"trust domain {domain}, id {root.domain_id.hex()}")
        say(f"wrote {path}")
        say("hand a copy of that file to everyone who verifies, by another way than the store itself")
    return OK


def _thresholds(given: list[str]) -> dict[str, int]:
    thresholds = {"root": 1, "mission": 1}
    for item in given:
        role, _, number = item.partition("=")
        if role not in thresholds or not number.isdecimal() or not 1 <= int(number) <= 8:
            raise Invalid(f"--threshold {item!r} is not ROLE=N", remedy="ROLE is root or mission, N from 1 to 8")
        thresholds[role] = int(number)
    return thresholds


@app.command()
@command
def plan(
    mission_file: MissionFilePath,
    store: Annotated[str, typer.Option(envvar=ENV, help="The store's folder.", show_default=False)],
    as_json: Json = False,
) -> int:
    """Show what a build would do. Writes nothing."""
    require_build_extra()
    from builders.compose import workshop
    from builders.plan import plan as make_plan

    with work_bars() as progress, workshop(mission_file, store) as shop:
        made = make_plan(shop, progress)
    if as_json:
        print_json(made.as_json())
    else:
        print_lines(render.plan(made))
    return NO if made.inventory.absent else OK


@app.command()
@command
def build(
    mission_file: MissionFilePath,
    store: Annotated[str, typer.Option(envvar=ENV, help="The store's folder.", show_default=False)],
    key: Annotated[list[Path], typer.Option(readable=False, help="A mission key; once for each signer.")],
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> int:
    """Build what is missing, check the coverage, sign and publish."""
    require_build_extra()
    from builders.compose import workshop
    from builders.orchestrator import build as run_build

    signers = keyfiles.private_keys(key, keyfiles.passphrase_from(passphrase_file))
    with work_bars() as progress, workshop(mission_file, store) as shop:
        report = run_build(shop, signers, now=int(time.time()), progress=progress)
    if as_json:
        print_json(report.as_json())
    else:
        print_lines(render.build(report))
    return NO if report.outcome == "failed" else OK


@app.command("ls")
@command
def list_missions(store: Store, as_json: Json = False) -> int:
    """List the missions of a store."""
    rows = []
    wrong: list[FlightbagError] = []
    with Repository.open(store) as repository:
        for mission in repository.missions():
            row: dict[str, Any] = {"mission": mission}
            try:
                opened = repository.current(mission)
            except FlightbagError as error:  # one bad mission must not hide the others
                row["error"] = error.message
                wrong.append(error)
            else:
                m = opened.manifest
                row |= {
                    "flight": m.mission.flight,
                    "aircraft": list(m.mission.aircraft),
                    "sequence": m.issue.sequence,
                    "entries": m.count,
                    "bytes": sum(opened.closure().values()),
                    "manifest": str(opened.manifest_id),
                }
            rows.append(row)
    if as_json:
        print_json(rows)
    else:
        print_lines(
            render.table(
                [
                    (r["mission"], f"DOES NOT HOLD: {r['error']}")
                    if "error" in r
                    else (r["mission"], f"flight {r['flight']}  {r['entries']} entries  {render.size(r['bytes'])}")
                    for r in rows
                ]
            )
        )
    if not wrong:
        return OK
    return UNKNOWN if all(isinstance(error, Unavailable) for error in wrong) else NO


@app.command()
@command
def show(
    store_and_mission: Annotated[list[str], typer.Argument(metavar="[STORE] MISSION", show_default=False)],
    as_json: Json = False,
) -> int:
    """Show one mission's manifest and entries."""
    store, mission = store_and(store_and_mission, needed=True)
    with Repository.open(store) as repository:
        opened = repository.current(mission or "")
    if as_json:
        print_json(render.mission_json(opened))
    else:
        print_lines(render.mission(opened))
    return OK


@app.command()
@command
def sync(
    source: Annotated[str, typer.Argument(metavar="SRC", help="The store to copy from.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="The store to copy to; made if it is not there.")],
    mission: Annotated[list[str] | None, typer.Option(help="Only this mission; may be repeated.")] = None,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Read what the target has, and replace what is damaged.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be copied; write nothing.")] = False,
    as_json: Json = False,
) -> int:
    """Copy missions to another store: only missing objects, hashed as they are copied, refs last."""
    with Repository.open(source) as here:
        with _existing(target) as there:
            made = plan_sync(here, there, mission or (), checksum=checksum)
        if not dry_run:
            with bytes_bar("copying", made.bytes) as progress:
                apply_sync(made, here, target, progress=progress)
    value = {
        "copied": len(made.missing),
        "bytes": made.bytes,
        "present": made.present,
        "missions": [move.mission for move in made.moves],
        "unchanged": list(made.unchanged),
        "newer_at_target": list(made.newer),
        "dry_run": dry_run,
    }
    if as_json:
        print_json(value)
    else:
        verb = "would copy" if dry_run else "copied"
        say(f"{verb} {len(made.missing)} objects, {render.size(made.bytes)}; {made.present} were there already")
        for word, missions in (
            ("would update" if dry_run else "updated", [move.mission for move in made.moves]),
            ("unchanged", made.unchanged),
            ("NOT copied, newer at the target:", made.newer),
        ):
            if missions:
                say(f"{word} {', '.join(missions)}")
    return NO if made.newer else OK


@contextmanager
def _existing(path: str) -> Iterator[Repository | None]:
    """The store at `path`; None where there is none yet, and one can be made."""
    try:
        repository = Repository.open(path)
    except NotFound:
        if os.path.lexists(path):
            check_free(path)
        yield None
        return
    with repository:
        yield repository


@app.command()
@command
def verify(
    store_and_mission: Annotated[
        list[str] | None, typer.Argument(metavar="[STORE] [MISSION]", show_default=False)
    ] = None,
    trust: Annotated[
        Path | None, typer.Option(readable=False, help="The pinned trust root; never the store's own.")
    ] = None,
    aircraft: Annotated[str | None, typer.Option(help="This aircraft's id.")] = None,
    host: Annotated[str | None, typer.Option(help="This aircraft's host class.")] = None,
    as_json: Json = False,
) -> int:
    """The takeoff check: GO, or NO-GO with every reason. Without MISSION, every mission in the store."""
    store, mission = store_and(store_and_mission or [], needed=False)
    if trust is None:
        raise Invalid("--trust is missing", remedy="give the pinned trust root's file")
    keyfiles.refuse_inside(trust, store)
    pinned = pinned_root(keyfiles.read_file(trust, ROOT_FILE_LIMIT, "the trust root"))
    with Media(store) as media, bytes_bar("verifying") as progress:
        check_format(media)
        evidence = StoreEvidence(media, progress)
        missions = [mission] if mission else evidence.missions()
        if not missions:
            raise NotFound(f"{media.path} has no mission to verify", kind="missing")
        now = int(time.time())
        verdicts = [verify_mission(evidence, one, pinned, Binding(now, aircraft, host)) for one in missions]
    if as_json:
        print_json({"go": all(verdict.go for verdict in verdicts), "missions": [_verdict_json(v) for v in verdicts]})
    else:
        for verdict in verdicts:
            print_lines(render.verdict(verdict))
    wrong = [verdict for verdict in verdicts if not verdict.go]
    if not wrong:
        return OK
    return UNKNOWN if all(verdict.unknown for verdict in wrong) else NO


def _verdict_json(verdict: Verdict) -> dict[str, Any]:
    value: dict[str, Any] = {
        "mission": verdict.mission_id,
        "go": verdict.go,
        "could_not_look": verdict.unknown,
        "objects": verdict.objects,
        "bytes": verdict.bytes,
        "not_judged": list(verdict.not_judged),
        "findings": [finding.as_json() for finding in verdict.findings],
    }
    if verdict.mission is not None:
        value |= {
            "facts": verdict.mission.facts.value(),
            "host": verdict.mission.manifest.host,
            "manifest": str(verdict.mission.manifest_id),
            "trust_root_version": verdict.mission.root_version,
        }
    return value


app.command("fsck")(fsck.run)
keeping.add_to(app)
missions.add_to(app)


def main() -> None:
    """The program `flightbag`. Its `fsck` is `store-fsck`, down to the status of a mistake in the arguments."""
    fsck.exit_with_usage(app, fsck.USAGE if sys.argv[1:2] == ["fsck"] else USAGE)
