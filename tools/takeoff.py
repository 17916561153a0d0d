"""The commands around takeoff: the check, the signatures that a mission lacks, and the proof of a single entry."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from builders.extras import require_build_extra
from store.disk import log
from store.disk.layout import check_format
from store.disk.media import Media
from store.errors import Corrupt, Invalid, NotFound, Untrusted
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT
from store.ground.as_of import EvidenceAsOf, check_pinned
from store.ground.issuing import discard_draft, sign_draft
from store.ground.repository import Repository
from store.takeoff.aircraft import check
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Binding, OperatorCheck, Verdict
from store.takeoff.proof import PROOF_LIMIT, Proof, prove
from store.takeoff.verify import pinned_root, verify_mission
from store.trust.root import MAX_STEPS, ROOT_FILE_LIMIT, SignedRoot
from tools import keyfiles, render
from tools.arguments import Json, Keys, PassphraseFile, SignerCommand, moment, print_lines, store_and, store_then
from tools.progress import bytes_bar
from tools.status import NO, OK, UNKNOWN, command, print_json, say

Trust = Annotated[Path | None, typer.Option(readable=False, help="The pinned trust root; never the store's own.")]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command("sign")(sign)
    app.command("discard")(discard)
    app.command("verify")(verify)
    app.command("prove")(prove_command)
    app.command("check-proof")(check_proof)


@command
def sign(
    store_and_mission: Annotated[list[str], typer.Argument(metavar="[STORE] MISSION", show_default=False)],
    key: Keys,
    signer: SignerCommand = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> int:
    """Sign the draft of a mission; with enough signatures it is published."""
    store, mission = store_and(store_and_mission, needed=True)
    signers = keyfiles.signers(key, keyfiles.passphrase_from(passphrase_file), signer)
    with Repository.open(store) as repository:
        done = sign_draft(repository, mission or "", signers, now=int(time.time()))
    if as_json:
        print_json(
            {"mission": mission, "manifest": str(done.manifest) if done.manifest else None, "sequence": done.sequence}
            | {"signatures": done.signatures, "threshold": done.threshold}
        )
    elif done.manifest is not None:
        say(f"published {mission}, sequence {done.sequence}, manifest {done.manifest}")
    else:
        say(f"{mission} has {done.signatures} of {done.threshold} signatures: it is a draft still")
    return OK


@command
def discard(
    store_and_mission: Annotated[list[str], typer.Argument(metavar="[STORE] MISSION", show_default=False)],
    as_json: Json = False,
) -> int:
    """Throw the draft of a mission away, with its signatures. What is published stays."""
    store, mission = store_and(store_and_mission, needed=True)
    with Repository.open(store) as repository:
        signatures = discard_draft(repository, mission or "")
    if as_json:
        print_json({"discarded": mission, "signatures": signatures})
    else:
        say(f"discarded the draft of {mission}, with {render.many(signatures, 'signature')}")
    return OK


@command
def verify(
    store_and_mission: Annotated[
        list[str] | None, typer.Argument(metavar="[STORE] [MISSION]", show_default=False)
    ] = None,
    trust: Trust = None,
    state: Annotated[str | None, typer.Option(help="The aircraft's state: its memory, and the root it has.")] = None,
    flight: Annotated[str | None, typer.Option(help="The flight that is meant.")] = None,
    aircraft: Annotated[str | None, typer.Option(help="This aircraft's id; with --state it is known.")] = None,
    host: Annotated[str | None, typer.Option(help="This aircraft's host class; with --state it is known.")] = None,
    clock: Annotated[
        str | None, typer.Option(metavar="trusted", help="With --state: the clock of this computer can be trusted.")
    ] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="Would it have been GO then? For auditors.")] = None,
    tiles: Annotated[
        list[Path] | None,
        typer.Option(
            readable=False, metavar="SOURCE", help="On the ground: are these the tiles that it was built from?"
        ),
    ] = None,
    anchor: Annotated[
        str | None, typer.Option(metavar="HASH", help="The log must go on from this line; see `flightbag log`.")
    ] = None,
    as_json: Json = False,
) -> int:
    """The takeoff check: GO, or NO-GO with every reason. Without MISSION, every mission in the store."""
    store, mission = store_and(store_and_mission or [], needed=False)
    if (trust is None) == (state is None):
        raise Invalid(
            "one of --trust and --state is needed",
            remedy="give the pinned trust root's file, or the aircraft's state, which has one",
        )
    if state is not None and (aircraft or host or at or tiles):
        raise Invalid("--state is for the aircraft: not with --aircraft, --host, --at or --tiles")
    if clock is not None and (clock != "trusted" or state is None):
        raise Invalid("--clock trusted belongs to --state")
    for option, inside in (("--trust", trust), ("--state", state)):
        if inside is not None:
            keyfiles.refuse_inside(option, Path(inside), store)
    with Media(store) as media, bytes_bar("verifying") as progress:
        check_format(media)
        if anchor is not None:
            _check_anchor(media, anchor)
        if state is not None:
            evidence = StoreEvidence(media, progress)
            now = int(time.time()) if clock else None
            verdicts = [check(state, evidence, one, now=now, flight=flight) for one in _missions(evidence, mission)]
        else:
            assert trust is not None
            pinned = pinned_root(keyfiles.read_file(trust, ROOT_FILE_LIMIT, "the trust root"))
            evidence, now = _evidence(media, at, pinned, progress)
            binding = Binding(now, aircraft, host, flight)
            operator = _operator(tiles)
            verdicts = [
                verify_mission(evidence, one, pinned, binding, operator) for one in _missions(evidence, mission)
            ]
    if as_json:
        value = {"go": all(verdict.go for verdict in verdicts), "missions": [_verdict_json(v) for v in verdicts]}
        print_json(value if at is None else {**value, "at": moment(at)})
    else:
        if at is not None:
            say(f"as it was at {render.when(moment(at))}; this is no clearance")
        for verdict in verdicts:
            print_lines(render.verdict(verdict, past=at is not None))
    wrong = [verdict for verdict in verdicts if not verdict.go]
    if not wrong:
        return OK
    return UNKNOWN if all(verdict.unknown for verdict in wrong) else NO


def _operator(tiles: list[Path] | None) -> OperatorCheck | None:
    if not tiles:
        return None
    require_build_extra()
    from builders.operator_check import check_tiles

    return check_tiles(tiles)


def _evidence(media: Media, at: str | None, pinned: SignedRoot, progress: Any) -> tuple[StoreEvidence, int]:
    """What is looked at, and the time that is judged by."""
    if at is None:
        return StoreEvidence(media, progress), int(time.time())
    then = moment(at)
    if then > time.time():
        raise Invalid(f"{render.when(then)} is yet to come", remedy="give a time that has passed")
    check_pinned(pinned, then)
    return EvidenceAsOf(media, then, progress), then


def _missions(evidence: StoreEvidence, mission: str | None) -> list[str]:
    found = [mission] if mission else evidence.missions()
    if not found:
        then = " at that time" if isinstance(evidence, EvidenceAsOf) else ""
        raise NotFound(f"{evidence.media.path} has no mission to verify{then}", kind="missing")
    return found


def _check_anchor(media: Media, anchor: str) -> None:
    """Raises Corrupt unless the log chains, and one of its lines has this hash."""
    ObjectId.parse(anchor)
    if anchor not in log.hashes(media):
        raise Corrupt(
            f"no line of the log of {media.path} has the hash {anchor[:16]}…: the log was cut or replaced, "
            "or the hash is of another store's",
            remedy="logs are of each store: compare with `flightbag log` there; store-fsck says what else is wrong",
            kind="bad-log",
            expected=anchor,
        )


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
            "coverage": render.hexed(verdict.mission.manifest.coverage.value()),
            "manifest": str(verdict.mission.manifest_id),
            "code": verdict.mission.code,
            "trust_root_version": verdict.mission.trust_root.version,
        }
    return value


@command
def prove_command(
    args: Annotated[list[str], typer.Argument(metavar="[STORE] MISSION ENTRY", show_default=False)],
    out: Annotated[Path, typer.Option("--out", readable=False, help="Where the proof goes.")],
    as_json: Json = False,
) -> int:
    """Write the proof of one entry: enough to verify that object with nothing else at hand."""
    store, (mission, entry) = store_then(args, 2)
    with Repository.open(store) as repository:
        opened = repository.current(mission)
        envelope = repository.evidence.object(opened.manifest_id, ENVELOPE_LIMIT)
        evidence = repository.evidence
        statements = [evidence.object(id_, ENVELOPE_LIMIT) for id_ in opened.manifest.releases]
        data = Proof.of(
            opened, envelope, evidence.chain(max(1, opened.trust_root.version - MAX_STEPS)), entry, statements
        ).render()
    keyfiles.write_new(out, data)
    if as_json:
        print_json({"mission": mission, "entry": entry, "proof": str(out), "bytes": len(data)})
    else:
        say(f"wrote {out}, {len(data)} bytes: the proof of {entry}")
    return OK


@command
def check_proof(
    proof: Annotated[Path, typer.Argument(readable=False, help="The proof's file.")],
    object_: Annotated[Path, typer.Argument(readable=False, metavar="OBJECT", help="The file that it is about.")],
    trust: Trust = None,
    as_json: Json = False,
) -> int:
    """Verify one object by its proof, with nothing else at hand."""
    if trust is None:
        raise Invalid("--trust is missing", remedy="give the pinned trust root's file")
    if (store := keyfiles.store_above(object_)) is not None:
        keyfiles.refuse_inside("--trust", trust, store)
    pinned = pinned_root(keyfiles.read_file(trust, ROOT_FILE_LIMIT, "the trust root"))
    try:
        shown = prove(Proof.parse(keyfiles.read_file(proof, PROOF_LIMIT, "the proof")), pinned)
    except (Corrupt, Untrusted) as error:
        raise error.restated(f"{proof}: {error.message}") from error
    entry, facts, issue = shown.entry, shown.manifest.mission, shown.manifest.issue
    folder, name = os.path.split(os.path.abspath(object_))
    with Media(folder) as media:
        try:
            media.digest(entry.id, entry.size, name=name)
        except Corrupt as error:
            raise error.restated(f"{object_} is not {entry.name}: {error.message}") from error
    if as_json:
        print_json(
            {"entry": entry.name, "object": str(entry.id), "bytes": entry.size, "mission": facts.id}
            | {"flight": facts.flight, "sequence": issue.sequence, "trust_root_version": shown.root.root.version}
            | {"not_judged": list(_NOT_SHOWN)}
        )
    else:
        say(f"{object_} is {entry.name} of {facts.id}, flight {facts.flight}, sequence {issue.sequence}")
        say(f"  signed under trust root {shown.root.root.version}; not judged: {', '.join(_NOT_SHOWN)}")
    return OK


# What a proof cannot show.
_NOT_SHOWN = (
    "whether the mission is current",
    "later revocations",
    "aircraft",
    "host class",
    "flight",
    "expiry",
    "the other entries",
)
