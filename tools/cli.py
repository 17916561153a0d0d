"""The commands for stores, keys and builds.

A command parses its arguments, calls `store` or `builders`, and renders the result. It decides nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from builders.extras import require_build_extra
from store.errors import FlightbagError, Invalid
from store.findings import Finding
from store.ground.as_of import opened_then
from store.ground.issuing import draft_of, overtaken
from store.ground.repository import Repository
from store.takeoff.coverage import read_missing
from store.takeoff.withdrawn import withdrawn
from store.trust.keys import PublicKey
from store.trust.review import signing_code
from store.values import replace
from tools import keyfiles, lines, render
from tools.arguments import (
    BuilderKeys,
    ExecutorOption,
    Json,
    Mission,
    MissionFilePath,
    OptionalKeys,
    PassphraseFile,
    SharedCache,
    SignerCommand,
    Store,
    StoreBeforeName,
    StoreOption,
    cache_folder,
    moment,
    past_moment,
    print_lines,
)
from tools.geojson import GeoJson, check_path
from tools.geojson import write as write_geojson
from tools.parameters import Argument, Option
from tools.progress import work_bars
from tools.status import NO, OK, action, command, exits, insist, print_json, say, status_of_findings, writes

if TYPE_CHECKING:
    from builders.report import BuildReport


@action
def init(
    store: Annotated[str, Argument(metavar="STORE", help="The folder of the new store.")], as_json: Json = False
) -> int:
    """Create an empty store in a folder that does not exist yet or is empty.

    Example: flightbag init ground
    """
    with Repository.init(store) as repository:
        if as_json:
            print_json({"store": repository.media.path})
        else:
            say(f"created the store {repository.media.path}")
    return OK


@action
def keys_new(
    file: Annotated[Path, Argument(metavar="FILE", help="The new private key. The public key is FILE.pub.")],
    passphrase_file: PassphraseFile = None,
    no_passphrase: Annotated[bool, Option("--no-passphrase", help="Do not encrypt the private key.")] = False,
    name: Annotated[
        str,
        Option(
            metavar="NAME", help="What people call the key: a trust root that lists it takes the name from FILE.pub."
        ),
    ] = "",
    as_json: Json = False,
) -> int:
    """Create an Ed25519 key: the private key, encrypted, in FILE (PKCS#8), and the public key in FILE.pub.

    Without --passphrase-file, the command asks for a passphrase at the terminal.

    Example: flightbag keys new planner.key --name Pia
    """
    if no_passphrase and passphrase_file is not None:
        raise Invalid("--no-passphrase and --passphrase-file exclude each other", remedy="leave one of them out")
    ask = None if no_passphrase else keyfiles.passphrase_from(passphrase_file)
    public = keyfiles.new_key(file, ask, name, confirm=passphrase_file is None)
    return _show_key(public, name, as_json=as_json)


@action
def keys_rewrap(
    file: Annotated[Path, Argument(metavar="FILE", help="The file of the private key.")],
    passphrase_file: PassphraseFile = None,
    new_passphrase_file: Annotated[
        Path | None,
        Option(metavar="FILE", help="A file whose first line is the new passphrase."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Encrypt a private key again: under another passphrase, and as strongly as a new key. The key stays the same.

    Without the options, the command asks for the passphrases at the terminal. Copies of the old file keep the old one.

    Example: flightbag keys rewrap planner.key
    """
    ask, ask_new = (
        keyfiles.passphrase_from(passphrase_file),
        keyfiles.passphrase_from(new_passphrase_file, "--new-passphrase-file"),
    )
    public = keyfiles.rewrap(file, ask, ask_new, confirm=new_passphrase_file is None)
    return _show_key(public, keyfiles.proposed_name(file, public), as_json=as_json)


@command
def keys_show(
    file: Annotated[Path, Argument(metavar="FILE", help="A private key or a .pub file.")],
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> int:
    """Print the kid of a key, by which trust roots and logs name it, and its name if its public file has one.

    Warn of a private key that is badly protected.

    Example: flightbag keys show planner.key.pub
    """
    weak, remedy = keyfiles.weaknesses(file)
    public = keyfiles.public_key(file, keyfiles.passphrase_from(passphrase_file))
    return _show_key(public, keyfiles.proposed_name(file, public), weak, remedy, as_json=as_json)


def _show_key(public: PublicKey, name: str, weaknesses: Sequence[str] = (), remedy: str = "", *, as_json: bool) -> int:
    if as_json:
        weak = [Finding("weak-key", text, remedy=remedy, information=True) for text in weaknesses]
        print_json({"kid": public.kid.hex(), "public": public.raw.hex(), "name": name}, weak)
        return OK
    say(f"kid {public.kid.hex()}")
    if name:
        say(f"name {name}")
    for text in weaknesses:
        say(f"warning: {text}")
    if weaknesses:
        say(f"  -> {remedy}")
    return OK


@command
def plan(
    mission_file: MissionFilePath,
    store: StoreOption,
    shared_cache: SharedCache = None,
    geojson: GeoJson = None,
    as_json: Json = False,
) -> int:
    """Show what a build would make and what the store already has. Write nothing.

    Example: flightbag plan north-ridge.toml --store ground
    """
    require_build_extra()
    from builders.sharing import plan as make_plan

    check_path(geojson)
    now = int(time.time())
    sharing = keyfiles.sharing(shared_cache)
    with work_bars() as progress:
        report = make_plan(mission_file, store, cache_folder(), now=now, progress=progress, sharing=sharing)
    if geojson is not None:
        write_geojson(geojson, report.missing)
    if as_json:
        short = f"{render.many(len(report.missing), 'tile')} of {report.tiles} are missing: more than the policy allows"
        print_json(report.as_json(), [] if report.enough else [Finding("incomplete", short)])
    else:
        print_lines(render.plan(report, now))
    return OK if report.enough else NO


@exits(
    kept="what was built whole stays in the store, and the mission is published whole or not at all; "
    "the same build goes on from there",
    acts=writes,
)
def build(
    mission_file: MissionFilePath,
    store: StoreOption,
    key: OptionalKeys = None,
    signer: SignerCommand = None,
    passphrase_file: PassphraseFile = None,
    shared_cache: SharedCache = None,
    builder_key: BuilderKeys = None,
    expect: Annotated[
        str | None,
        Option(metavar="CODE", help="The code of a draft: sign nothing if this build makes another manifest."),
    ] = None,
    no_stat_cache: Annotated[
        bool, Option("--no-stat-cache", help="Read every tile, even of sources that have not changed.")
    ] = False,
    geojson: GeoJson = None,
    executor: ExecutorOption = "local",
    as_json: Json = False,
) -> int:
    """Build what is missing of a mission, check its coverage, sign it and publish it. With too few keys, leave a draft.

    Example: flightbag build north-ridge.toml --store ground --key planner.key
    """
    require_build_extra()
    from builders.publication import build as run_build

    check_path(geojson)
    keys = keyfiles.keys_for_later(key or [], passphrase_file, signer)
    sharing = keyfiles.sharing(shared_cache, builder_key or [], passphrase_file, signer)
    now = int(time.time())
    with work_bars() as progress:
        report = run_build(
            mission_file,
            store,
            keys,
            cache=cache_folder(),
            now=now,
            progress=progress,
            remembered=not no_stat_cache,
            expect=expect,
            executor=executor,
            sharing=sharing,
        )
    if geojson is not None:
        write_geojson(geojson, report.coverage.missing)
    if as_json:
        print_json(report.as_json(), _findings(report))
    elif report.outcome == "draft":
        insist(*render.build(report, now))  # who takes it for published would carry the mission before
    else:
        print_lines(render.build(report, now))
        if lines.is_quiet() and report.outcome != "failed":
            insist(*render.build_warnings(report))
    return NO if report.outcome == "failed" else OK


def _findings(report: BuildReport) -> list[Finding]:
    """Return why a build published nothing, and what its figures do not show."""
    why = [Finding("not-published", report.why, information=report.outcome == "draft")] if report.why else []
    why += [
        Finding("unproven", f"{one.name}: each aircraft has to prove it", information=True) for one in report.unproven
    ]
    return why + [Finding("untrained", text, information=True) for text in report.warnings]


@command
def list_missions(store: Store, as_json: Json = False) -> int:
    """List the missions and the drafts of a store, and how long they are valid.

    Example: flightbag ls ground
    """
    rows = []
    findings: list[Finding] = []
    with Repository.open(store) as repository:
        for mission in repository.missions():
            row: dict[str, Any] = {"mission": mission}
            try:
                opened = repository.current(mission)
            except FlightbagError as error:  # one bad mission must not hide the others
                row["error"] = error.message
                findings.append(Finding.of(error, missions=(mission,)))
            else:
                m = opened.manifest
                grounding = withdrawn(repository.evidence, opened).findings
                findings += [replace(one, missions=(mission,), information=True) for one in grounding]
                row |= {
                    "flight": m.mission.flight,
                    "aircraft": list(m.mission.aircraft),
                    "sequence": m.issue.sequence,
                    "valid_from": m.issue.valid_from,
                    "expires_at": m.issue.expires_at,
                    "entries": m.count,
                    "bytes": sum(opened.closure().values()),
                    "manifest": str(opened.manifest_id),
                    "withdrawn": [finding.message for finding in grounding],
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
                    "valid_from": draft.manifest.issue.valid_from,
                    "expires_at": draft.manifest.issue.expires_at,
                    "signing_code": signing_code(draft.envelope),
                    **signatures,
                }
            except FlightbagError as error:
                row["error"] = error.message
                findings.append(Finding.of(error, missions=(mission,)))
            rows.append(row)
    now = int(time.time())
    for row in rows:
        if (end := row.get("expires_at")) is not None and now > end:
            text = f"{row['mission']}: {render.validity_in_short(None, end, now)}"
            findings.append(Finding("expired", text, missions=(row["mission"],), information=True))
    if as_json:
        print_json({"missions": rows}, findings)
    else:
        print_lines(lines.table([(row["mission"], _listed(row, now)) for row in rows]) if rows else ["no missions"])
    return status_of_findings(findings)


def _listed(row: dict[str, Any], now: int) -> str:
    if "error" in row:
        return f"{'draft ' if 'draft' in row else ''}DOES NOT HOLD: {row['error']}"
    valid = render.validity_in_short(row["valid_from"], row["expires_at"], now)
    if "draft" in row:
        signatures = f"{row['signatures']} of {row['threshold']} signatures"
        return f"draft, flight {row['flight']}: {signatures}, signing code {row['signing_code']}; {valid}"
    if row["withdrawn"]:
        return f"flight {row['flight']}  DOES NOT FLY: {row['withdrawn'][0]}"
    return f"flight {row['flight']}  {row['entries']} entries  {render.size(row['bytes'])}  {valid}"


@command
def show(
    store: StoreBeforeName,
    mission: Mission,
    draft: Annotated[bool, Option("--draft", help="Show the draft and its signatures, before you sign it.")] = False,
    at: Annotated[
        str | None,
        Option(
            metavar="TIME", help="Show what was current at this time, by the log, also if its keys were revoked since."
        ),
    ] = None,
    geojson: GeoJson = None,
    as_json: Json = False,
) -> int:
    """Show the manifest of a mission: its facts, coverage, figures, entries, and who has signed it.

    Example: flightbag show ground north-ridge
    """
    if geojson is not None:
        require_build_extra()
        check_path(geojson)
    if draft and at is not None:
        raise Invalid("--at excludes --draft", remedy="leave one of them out: a draft is never current")
    with Repository.open(store) as repository:
        state: dict[str, Any] = {}
        evidence = repository.evidence
        if at is not None:
            opened, evidence = opened_then(repository, mission, past_moment(at, "--at"))
            newest = repository.trust_root().root
            revoked = [key.kid for key in newest.revoked if key.kid in opened.signers]
            state = {"at": moment(at), "trust_root_version": opened.trust_root.version}
            state["revoked_since"] = render.signers_json(newest, revoked)
        elif draft:
            unsigned, root = draft_of(repository, mission), repository.trust_root().root
            opened = unsigned.opened(repository.evidence, root)
            state = {
                "signatures": unsigned.signatures(root),
                "threshold": root.mission.threshold,
                "overtaken": overtaken(repository, unsigned.manifest, root, now=int(time.time())),
            }
        else:
            opened = repository.current(mission)
        withdrawals = withdrawn(evidence, opened).findings
        grounding = [finding.message for finding in withdrawals]
        listed = read_missing(opened, evidence)
    if geojson is not None:
        from builders.report import MissingTiles

        write_geojson(geojson, MissingTiles(listed.runs))
    if as_json:
        runs = [{"first": run.first, "tiles": run.tiles, "reason": run.reason} for run in listed.runs]
        found = [replace(one, missions=(opened.manifest.mission.id,), information=True) for one in withdrawals]
        print_json({**render.mission_json(opened), "missing": runs, "withdrawn": grounding, **state}, found)
        return OK
    if at is not None:
        say(f"as it was at {render.when(moment(at))}, under trust root {opened.trust_root.version}; no clearance")
    print_lines(render.mission(opened, listed, int(time.time()) if at is None else moment(at)))
    for text in grounding:
        say(f"DOES NOT FLY: {text}")
    if at is not None:
        for kid in revoked:
            say(f"revoked since: {newest.key_text(kid)}, which has signed this")
    if draft:
        say(f"draft with {state['signatures']} of {state['threshold']} signatures")
        if state["overtaken"]:
            say(f"this draft cannot be published: {state['overtaken']}; build the mission again")
    return OK
