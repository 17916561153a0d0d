"""The commands of releases: which engines are approved for a host class, and by whom."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from store.errors import Corrupt, FlightbagError, Invalid, NotFound
from store.format.entries import SEGMENT
from store.format.manifest import ENVELOPE_LIMIT
from store.format.release import KINDS, Approval, Release
from store.ground import releases
from store.ground.issuing import draft_of, overtaken
from store.ground.repository import Repository
from store.takeoff.verify import parse_release, read_table
from tools import keyfiles, render
from tools.arguments import Json, PassphraseFile, SignerCommand, SomeKeys, StoreFirst, print_lines
from tools.status import NO, OK, command, print_json, say

app = typer.Typer(no_args_is_help=True, help="Approve engines for a host class.")

ReleaseFile = Annotated[Path, typer.Argument(readable=False, metavar="FILE", help="The release's file, to carry.")]


def add_to(parent: typer.Typer) -> None:
    """Registers the commands."""
    parent.add_typer(app, name="release")


@app.command("new")
@command
def new(
    store: StoreFirst,
    file: ReleaseFile,
    name: Annotated[str, typer.Option(help="What people know the release by.")],
    mission: Annotated[list[str], typer.Option(help="Its engines are approved, draft or current; may be repeated.")],
    host: Annotated[str | None, typer.Option(help="The host class; else that of the missions.")] = None,
    as_json: Json = False,
) -> int:
    """Write a release of the engines of missions, to be signed by the release keys."""
    if not SEGMENT.fullmatch(name):
        raise Invalid(f"{name[:80]!r} is no name of a release", remedy="1 to 64 of a-z 0-9 . _ -")
    with Repository.open(store) as repository:
        found = [_engines(repository, one) for one in mission]
    hosts = {one for one, _ in found}
    if host is None and len(hosts) != 1:
        raise Invalid("the missions are for several host classes", remedy="say which with --host")
    data = releases.drafted(name, host or hosts.pop(), [a for _, some in found for a in some], now=int(time.time()))
    keyfiles.write_new(file, data)
    return _told(data, file, as_json=as_json)


def _engines(repository: Repository, mission: str) -> tuple[str, list[Approval]]:
    """The host class of a mission, and its entries that need approval: those of its draft, or else of its manifest."""
    manifest = None
    with suppress(NotFound):
        drafted = draft_of(repository, mission).manifest
        root = repository.trust_root().root
        if drafted.mission.id == mission and not overtaken(repository, drafted, root, now=int(time.time())):
            manifest = drafted
    manifest = manifest or repository.current(mission).manifest
    table = read_table(repository.evidence, manifest)
    return manifest.host, [Approval.of(entry) for entry in table.entries if entry.kind in KINDS]


@app.command("sign")
@command
def sign(
    store: StoreFirst,
    file: ReleaseFile,
    key: SomeKeys = None,
    signer: SignerCommand = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> int:
    """Sign a release; with enough signatures it is added to the store. Without a key, only that."""
    signers = keyfiles.signers(key or [], keyfiles.passphrase_from(passphrase_file), signer)
    data = keyfiles.read_file(file, ENVELOPE_LIMIT, "the release")
    with Repository.open(store) as repository:
        root = repository.trust_root().root
        try:
            data, count = releases.signed(data, root, signers)
        except Corrupt as error:
            raise error.restated(f"{file}: {error.message}") from error
        added = releases.add(repository, data) if count >= root.release.threshold else None
    if signers:
        keyfiles.write_over(file, data)
    if as_json:
        print_json(
            _json(data)
            | {"signatures": count, "threshold": root.release.threshold, "object": str(added) if added else None}
        )
    elif added is not None:
        say(f"the release {releases.parsed(data)[1].name} is in the store, object {added}")
    else:
        say(f"signed by {count} of the {root.release.threshold} release keys that it takes: carry {file} to the next")
    return OK if added is not None or signers else NO


@app.command("show")
@command
def show(
    what: Annotated[str, typer.Argument(metavar="STORE|FILE", help="A store, or a release's file.")],
    as_json: Json = False,
) -> int:
    """Show the releases of a store and whether they hold under its newest root, or what a file says."""
    if not os.path.isdir(what):
        return _told(keyfiles.read_file(Path(what), ENVELOPE_LIMIT, "the release"), None, as_json=as_json)
    rows: list[dict[str, Any]] = []
    with Repository.open(what) as repository:
        root = repository.trust_root().root
        for name, id_ in releases.listed(repository).items():
            row: dict[str, Any] = {"name": name, "object": str(id_), "holds": True}
            try:
                data = repository.evidence.object(id_, ENVELOPE_LIMIT)
                row |= _json(data)
                parse_release(data, root)
            except FlightbagError as error:
                row |= {"holds": False, "why": error.message}
            rows.append(row)
    if as_json:
        print_json(rows)
    else:
        print_lines(
            render.table(
                [
                    (
                        row["name"],
                        row.get("host", ""),
                        render.many(len(row.get("entries", ())), "entry")
                        if len(row.get("entries", ())) == 1
                        else f"{len(row.get('entries', ()))} entries",
                        "holds" if row["holds"] else f"DOES NOT HOLD: {row['why']}",
                    )
                    for row in rows
                ]
            )
        )
    return OK


def _json(data: bytes) -> dict[str, Any]:
    envelope, release = releases.parsed(data)
    return {
        "name": release.name,
        "issued_at": release.issued_at,
        "host": release.host,
        "entries": [
            {"name": a.name, "kind": a.kind, "id": str(a.id), "size": a.size, "host": a.host} for a in release.approvals
        ],
        "kids": [signature.kid.hex() for signature in envelope.signatures],
    }


def _told(data: bytes, file: Path | None, *, as_json: bool) -> int:
    if as_json:
        print_json(_json(data))
    else:
        print_lines(_lines(releases.parsed(data)[1], len(releases.parsed(data)[0].signatures), file))
    return OK


def _lines(release: Release, signatures: int, file: Path | None) -> Iterator[str]:
    yield f"release {release.name} for {release.host}, issued {render.when(release.issued_at)}"
    yield from render.table([(a.kind, a.host, str(a.id)[:12], a.name) for a in release.approvals])
    yield render.many(signatures, "signature")
    if file is not None:
        yield f"carry {file} to the release keys: flightbag release sign STORE {file} --key KEY"
