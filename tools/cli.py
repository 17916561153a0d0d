"""The command `flightbag`: parses, calls, renders. Everything that is decided is decided below it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from builders.extras import require_build_extra
from store.disk.layout import check_free
from store.errors import FlightbagError, Invalid, NotFound, Unavailable
from store.ground.issuing import draft_of, overtaken
from store.ground.repository import Repository
from store.ground.sync import apply_sync, plan_sync
from store.takeoff.coverage import read_missing
from tools import aircraft, engines, fsck, keyfiles, missions, releases, render, retention, retrieval, takeoff, trust
from tools.arguments import (
    ENV,
    Json,
    MissionFilePath,
    PassphraseFile,
    SignerCommand,
    SomeKeys,
    Store,
    cache_folder,
    print_lines,
    store_and,
)
from tools.program import run_program
from tools.progress import bytes_bar, work_bars
from tools.status import NO, OK, UNKNOWN, USAGE, command, print_json, say

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Build, seal, carry and verify the engines and map descriptors of aircraft that navigate by sight.",
)
keys_app = typer.Typer(no_args_is_help=True, help="Make and show signing keys.")
app.add_typer(keys_app, name="keys")


def _version(asked: bool) -> None:
    if asked:
        from importlib import metadata  # here: it takes longer to load than all of the program

        say(f"flightbag {metadata.version('flightbag')}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which it is.")
    ] = False,
) -> None:
    """Options of the program itself."""


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


@app.command()
@command
def plan(
    mission_file: MissionFilePath,
    store: Annotated[str, typer.Option(envvar=ENV, help="The store's folder.", show_default=False)],
    as_json: Json = False,
) -> int:
    """Show what a build would do. Writes nothing."""
    require_build_extra()
    from builders.artifacts.plan import plan as make_plan
    from builders.compose import open_context

    with work_bars() as progress, open_context(mission_file, store, cache_folder()) as context:
        made = make_plan(context, progress, now=int(time.time()))
    if as_json:
        print_json(made.as_json())
    else:
        print_lines(render.plan(made))
    return OK if made.gates.allows(made.shortfall.missing, made.inventory.tiles) else NO


@app.command()
@command
def build(
    mission_file: MissionFilePath,
    store: Annotated[str, typer.Option(envvar=ENV, help="The store's folder.", show_default=False)],
    key: SomeKeys = None,
    signer: SignerCommand = None,
    passphrase_file: PassphraseFile = None,
    no_stat_cache: Annotated[
        bool, typer.Option("--no-stat-cache", help="Read every tile, also where no source has changed.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Build what is missing, check the coverage, sign and publish; with too few keys, leave a draft."""
    require_build_extra()
    from builders.compose import open_context
    from builders.orchestrator import build as run_build

    signers = keyfiles.signers(key or [], keyfiles.passphrase_from(passphrase_file), signer)
    with work_bars() as progress, open_context(mission_file, store, cache_folder()) as context:
        report = run_build(context, signers, now=int(time.time()), progress=progress, remembered=not no_stat_cache)
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
        for mission in repository.evidence.drafts():
            row = {"mission": mission, "draft": True}
            try:
                draft, root = draft_of(repository, mission), repository.trust_root().root
                signatures = {"signatures": draft.signatures(root), "threshold": root.mission.threshold}
                row |= {
                    "flight": draft.manifest.mission.flight,
                    "sequence": draft.manifest.issue.sequence,
                    **signatures,
                }
            except FlightbagError as error:
                row["error"] = error.message
                wrong.append(error)
            rows.append(row)
    if as_json:
        print_json(rows)
    else:
        print_lines(render.table([(row["mission"], _listed(row)) for row in rows]))
    if not wrong:
        return OK
    return UNKNOWN if all(isinstance(error, Unavailable) for error in wrong) else NO


def _listed(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{'its draft ' if 'draft' in row else ''}DOES NOT HOLD: {row['error']}"
    if "draft" in row:
        return f"a draft, flight {row['flight']}: {row['signatures']} of {row['threshold']} signatures"
    return f"flight {row['flight']}  {row['entries']} entries  {render.size(row['bytes'])}"


@app.command()
@command
def show(
    store_and_mission: Annotated[list[str], typer.Argument(metavar="[STORE] MISSION", show_default=False)],
    draft: Annotated[bool, typer.Option("--draft", help="The draft: what whoever signs should see.")] = False,
    as_json: Json = False,
) -> int:
    """Show one mission's manifest and entries."""
    store, mission = store_and(store_and_mission, needed=True)
    with Repository.open(store) as repository:
        state: dict[str, Any] = {}
        if draft:
            found, root = draft_of(repository, mission or ""), repository.trust_root().root
            opened = found.opened(repository.evidence, root)
            state = {
                "signed": [signature.kid.hex() for signature in found.envelope.signatures],
                "signatures": found.signatures(root),
                "threshold": root.mission.threshold,
                "overtaken": overtaken(repository, found.manifest, root, now=int(time.time())),
            }
        else:
            opened = repository.current(mission or "")
        listed = read_missing(opened, repository.evidence)
    if as_json:
        runs = [{"first": run.first, "tiles": run.tiles, "reason": run.reason} for run in listed.runs]
        print_json({**render.mission_json(opened), "missing": runs, **state})
        return OK
    print_lines(render.mission(opened, listed))
    if state:
        say(f"a draft, with {state['signatures']} of {state['threshold']} signatures")
        for kid in state["signed"]:
            say(f"  signed by {kid}")
        if state["overtaken"]:
            say(f"it cannot be published: {state['overtaken']}; build it again")
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
        "refused": [{"mission": mission, "why": why} for mission, why in made.refused],
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
        for one, why in made.refused:
            say(f"NOT copied: {one}: {why}")
        if made.roots:
            what = ", ".join(map(str, made.roots))
            say(f"{'would bring' if dry_run else 'brought'} trust root {what}")
    return NO if made.newer or made.refused else OK


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


app.command("fsck")(fsck.run)
trust.add_to(app)
releases.add_to(app)
takeoff.add_to(app)
aircraft.add_to(app)
retention.add_to(app)
missions.add_to(app)
engines.add_to(app)
retrieval.add_to(app)


def main() -> None:
    """The program `flightbag`. Its `fsck` is `store-fsck`, down to the status of a mistake in the arguments."""
    if sys.argv[1:2] == ["fsck"]:
        run_program(app, usage=fsck.USAGE, could_not_do=fsck.COULD_NOT_CHECK)
    run_program(app, usage=USAGE, could_not_do=UNKNOWN)
