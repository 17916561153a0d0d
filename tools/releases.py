"""The commands for releases: which engines the release keys approve for a host class."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Untrusted
from store.findings import Finding
from store.format.entries import SEGMENT
from store.format.host import fit
from store.format.manifest import ENVELOPE_LIMIT
from store.format.release import KINDS, Approval, Release
from store.ground import releases
from store.ground.issuing import draft_of, overtaken
from store.ground.repository import Repository
from store.takeoff.verify import parse_release, read_table
from store.trust.keys import Signer
from store.trust.root import TrustRoot
from store.values import replace
from tools import keyfiles, lines, render
from tools.arguments import Json, OptionalKeys, PassphraseFile, SignerCommand, StoreBeforeFile, leading, print_lines
from tools.parameters import Argument, Option
from tools.review import Expect, show_and_ask
from tools.status import NO, OK, action, command, lacks_signatures, print_json, say

ReleaseFile = Annotated[Path, Argument(metavar="FILE", help="The file of the release, to carry.")]


@action
def new(
    store: StoreBeforeFile,
    file: ReleaseFile,
    name: Annotated[str, Option(metavar="NAME", help="The name of the release.")],
    mission: Annotated[
        list[str],
        Option(metavar="ID", help="A mission, or its draft, whose engines to approve. May be repeated."),
    ],
    host: Annotated[
        str | None, Option(metavar="CLASS", help="The host class. The default is that of the missions.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Write a release that approves the engines of missions. The release keys sign it with `flightbag release sign`.

    Example: flightbag release new ground winter.release --name winter --mission north-ridge
    """
    if not SEGMENT.fullmatch(name):
        raise Invalid(
            f"{name[:80]!r} is not a name of a release", remedy="give 1 to 64 characters out of a-z 0-9 . _ -"
        )
    with Repository.open(store) as repository:
        engines = [_engines(repository, one) for one in mission]
    hosts = {one for mission_hosts, _ in engines for one in mission_hosts}
    if host is None:
        if len(hosts) != 1:
            raise Invalid(
                "the missions are for several host classes", remedy=f"name one with --host: {', '.join(sorted(hosts))}"
            )
        (host,) = hosts
    approvals = [
        approval
        for mission_hosts, approvals in engines
        for approval in approvals
        # Of the engines of a mission for several classes, those that this one takes.
        if host not in mission_hosts or not fit(host, approval.host).lacking
    ]
    data = releases.drafted(name, host, approvals, now=int(time.time()))
    keyfiles.write_new(file, data)
    return _show(data, file, as_json=as_json)


def _engines(repository: Repository, mission: str) -> tuple[tuple[str, ...], list[Approval]]:
    """Return the host classes of a mission and its entries that need approval, from its draft or else its manifest."""
    manifest = None
    with suppress(NotFound):
        of_draft = draft_of(repository, mission).manifest
        root = repository.trust_root().root
        if of_draft.mission.id == mission and not overtaken(repository, of_draft, root, now=int(time.time())):
            manifest = of_draft
    manifest = manifest or repository.current(mission).manifest
    table = read_table(repository.evidence, manifest)
    return manifest.hosts, [Approval.of(entry) for entry in table.entries if entry.kind in KINDS]


@action
def sign(
    store: StoreBeforeFile,
    file: ReleaseFile,
    key: OptionalKeys = None,
    signer: SignerCommand = None,
    passphrase_file: PassphraseFile = None,
    expect: Expect = None,
    as_json: Json = False,
) -> int:
    """Sign a release. With enough signatures, add it to the store. Without a key, only add it.

    The command shows the release, and signs it if you give its code, which `flightbag release show` prints.

    Example: flightbag release sign ground winter.release --key lab.key --expect 4X7QK-09DZM
    """

    def approve(release: Release) -> Sequence[Signer]:
        if not key:
            return ()
        facts = _lines(release, unsigned, root)
        how = f"look at it with `flightbag release show {file}`, and give its code as --expect CODE"
        if (code := show_and_ask(facts, expect=expect, as_json=as_json, how=how)) is not None:
            releases.require(unsigned, code)
        return keys.open()

    keys = keyfiles.keys_for_later(key or [], passphrase_file, signer)
    unsigned = data = keyfiles.read_file(file, ENVELOPE_LIMIT, "the release")
    with Repository.open(store) as repository:
        root = repository.trust_root().root
        try:
            data, count = releases.signed(data, root, approve, expect=expect)
        except Corrupt as error:
            raise error.restated(f"{file}: {error.message}") from error
        added = releases.add(repository, data) if count >= root.release.threshold else None
    if data != unsigned:
        keyfiles.write_over(file, data)
    if as_json:
        signed = {"signatures": count, "threshold": root.release.threshold, "object": str(added) if added else None}
        lacking = [] if added is not None or key else [lacks_signatures(count, root.release.threshold)]
        print_json(_json(data) | signed, lacking)
    elif added is not None:
        say(f"the release {releases.parsed(data)[1].name} is in the store, object {added}")
    else:
        say(
            f"{count} of {root.release.threshold} required signatures: "
            f"carry {file} to the holder of the next release key"
        )
    return OK if added is not None or key else NO


@command
def show(
    what: Annotated[str, leading("The folder of a store, or the file of a release.", metavar="STORE|FILE")],
    as_json: Json = False,
) -> int:
    """Show the releases of a store, and whether each holds under the newest trust root. Or show the release in a file.

    Example: flightbag release show winter.release
    """
    if not os.path.isdir(what):
        data = keyfiles.read_file(Path(what), ENVELOPE_LIMIT, "the release")
        try:
            return _show(data, None, as_json=as_json)
        except (Corrupt, Untrusted) as error:
            remedy = error.remedy or "give a file that `flightbag release new` wrote"
            raise error.restated(f"{what} is not a release: {error.message}", remedy=remedy) from error
    rows: list[dict[str, Any]] = []
    findings: list[Finding] = []
    with Repository.open(what) as repository:
        root = repository.trust_root().root
        for name, id_ in releases.listed(repository).items():
            row: dict[str, Any] = {"name": name, "object": str(id_), "holds": True}
            try:
                data = repository.evidence.object(id_, ENVELOPE_LIMIT)
                row |= _json(data)
                releases.require_standing(repository, parse_release(data, root))
            except FlightbagError as error:
                row |= {"holds": False, "why": error.message}
                findings.append(replace(Finding.of(error), information=True))
            rows.append(row)
    if as_json:
        print_json({"releases": rows}, findings)
    else:
        print_lines(
            lines.table(
                [
                    (
                        row["name"],
                        row.get("signing_code", ""),
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
        "signing_code": releases.code_of(data),
        "entries": [
            {"name": a.name, "kind": a.kind, "id": str(a.id), "size": a.size, "host": a.host} for a in release.approvals
        ],
        "kids": [signature.kid.hex() for signature in envelope.signatures],
    }


def _show(data: bytes, file: Path | None, *, as_json: bool) -> int:
    if as_json:
        print_json({"releases": [_json(data)]} if file is None else _json(data))
    else:
        print_lines(_lines(releases.parsed(data)[1], data))
        if file is not None:
            print_lines(_next_step(file))
    return OK


def _lines(release: Release, data: bytes, root: TrustRoot | None = None) -> Iterator[str]:
    """Yield what a release says, and the keys that have signed it, with their names by a trust root. Whether they may
    is not judged here."""
    yield f"release {release.name} for {release.host}, issued {render.when(release.issued_at)}"
    yield from lines.table([(a.kind, a.host, lines.short(a.id), a.name) for a in release.approvals])
    kids = releases.parsed(data)[0].kids
    yield render.many(len(kids), "signature")
    for kid in kids:
        yield f"  {lines.short(kid.hex()) if root is None else root.key_text(kid)}"
    yield f"signing code {releases.code_of(data)}"


def _next_step(file: Path) -> Iterator[str]:
    yield f"carry {file} to the holders of the release keys: flightbag release sign STORE {file} --key KEY"
