"""The commands around takeoff: sign and discard a draft, verify a mission, and prove a single entry.

`verify` is waited for at the aircraft: what only the others need is imported where they need it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from builders.extras import require_build_extra
from store.disk.layout import store_above
from store.disk.media import Media
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Unavailable, Untrusted
from store.format.host import require_host_class
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT
from store.takeoff.coverage import read_missing
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Binding, Opened, OperatorCheck, Verdict
from store.takeoff.proof import PROOF_LIMIT, Proof, prove
from store.takeoff.verify import open_mission, verify_mission
from store.trust.root import MAX_STEPS, SignedRoot
from tools import keyfiles, lines, render
from tools.arguments import (
    DropCache,
    GiveUp,
    Json,
    Mission,
    NeededTrust,
    OptionalKeys,
    OptionalMission,
    PassphraseFile,
    SignerCommand,
    State,
    StoreBeforeName,
    StoreOrMission,
    Trust,
    moment,
    past_moment,
    patience_of,
    place_text,
    print_lines,
    require_either,
)
from tools.commands import came_from_environment
from tools.parameters import Argument, Option
from tools.patience import Bound, patience
from tools.progress import is_shown, reading_bar
from tools.review import Expect, show_and_ask
from tools.status import (
    NO,
    OK,
    UNKNOWN,
    action,
    command,
    exits,
    insist,
    lacks_signatures,
    print_document,
    print_json,
    say,
)
from tools.verdicts import findings_of, print_verdicts

if TYPE_CHECKING:
    from store.ground.issuing import Review
    from store.trust.keys import Signer


@action
def sign(
    store: StoreBeforeName,
    mission: Mission,
    key: OptionalKeys = None,
    signer: SignerCommand = None,
    passphrase_file: PassphraseFile = None,
    expect: Expect = None,
    as_json: Json = False,
) -> int:
    """Sign the draft of a mission. With enough signatures, publish it. Without a key, only publish it.

    The command shows the draft, and signs it if you give its code, which `flightbag show --draft` prints.

    Example: flightbag sign ground north-ridge --key copilot.key --expect 4X7QK-09DZM
    """
    from store.ground.issuing import sign_draft
    from store.ground.repository import Repository

    keys = keyfiles.keys_for_later(key or [], passphrase_file, signer)
    with Repository.open(store) as repository:
        now = int(time.time())

        def approve(review: Review) -> Sequence[Signer]:
            if not key:
                return ()
            facts = render.review(review, read_missing(review.opened, repository.evidence), now)
            how = f"look at it with `flightbag show {store} {mission} --draft`, and give its code as --expect CODE"
            if (code := show_and_ask(facts, expect=expect, as_json=as_json, how=how)) is not None:
                review.require(code)
            return keys.open()

        outcome = sign_draft(repository, mission, approve, now=now, expect=expect)
    issue = outcome.issue
    if as_json:
        print_json(
            {"mission": mission, "manifest": str(outcome.manifest) if outcome.manifest else None}
            | {"sequence": issue.sequence, "signatures": outcome.signatures, "threshold": outcome.threshold}
            | {"valid_from": issue.valid_from, "expires_at": issue.expires_at, "signing_code": outcome.signing_code},
            () if outcome.manifest or key else [lacks_signatures(outcome.signatures, outcome.threshold)],
        )
        return OK if outcome.manifest or key else NO
    if outcome.manifest is not None:
        say(f"published {mission}, sequence {issue.sequence}, manifest {lines.short(outcome.manifest)}")
    else:
        insist(f"{mission} is still a draft, with {outcome.signatures} of {outcome.threshold} signatures")
    say(f"valid: {render.validity(issue.valid_from, issue.expires_at, now)}")
    return OK if outcome.manifest or key else NO


@action
def discard(store: StoreBeforeName, mission: Mission, as_json: Json = False) -> int:
    """Delete the draft of a mission and its signatures. The published mission stays.

    Example: flightbag discard ground north-ridge
    """
    from store.ground.issuing import discard_draft
    from store.ground.repository import Repository

    with Repository.open(store) as repository:
        signatures = discard_draft(repository, mission)
    if as_json:
        print_json({"discarded": mission, "signatures": signatures})
    else:
        say(f"discarded the draft of {mission}, with {render.many(signatures, 'signature')}")
    return OK


@exits(kept="without a verdict no mission is GO; verify again")
def verify(
    store: StoreOrMission,
    mission: OptionalMission = None,
    trust: Trust = None,
    state: State = None,
    flight: Annotated[
        str | None, Option(metavar="ID", help="The flight to be flown. NO-GO if the mission is for another.")
    ] = None,
    aircraft: Annotated[
        str | None, Option(metavar="ID", help="The id of this aircraft. The state holds it already.")
    ] = None,
    host: Annotated[
        str | None, Option(metavar="CLASS", help="The host class of this aircraft. The state holds it already.")
    ] = None,
    clock: Annotated[
        str | None, Option(metavar="trusted", help="With --state: trust the clock of this computer.")
    ] = None,
    at: Annotated[
        str | None,
        Option(metavar="TIME", help="For auditors: would the verdict have been GO at this time?"),
    ] = None,
    tiles: Annotated[
        list[Path] | None,
        Option(
            metavar="SOURCE",
            help="On the ground: compare this imagery with the imagery of the build. May be repeated. tms:SOURCE and "
            "xyz:SOURCE name the order of its rows, as `scheme` does in the mission file. The mission file itself "
            "names its sources, with bands and stretch.",
        ),
    ] = None,
    receipt_key: Annotated[
        Path | None,
        Option(
            "--receipt-key",
            metavar="FILE",
            help="With --trust: leave a receipt of each GO in the store, signed by this key of yours, or with --signer "
            "by that of a .pub file. With --state the aircraft leaves one, signed by its own key.",
        ),
    ] = None,
    signer: SignerCommand = None,
    passphrase_file: PassphraseFile = None,
    anchor: Annotated[
        str | None,
        Option(metavar="HASH", help="A hash that `flightbag log` printed: the log must still contain that line."),
    ] = None,
    drop_cache: DropCache = False,
    give_up: GiveUp = None,
    as_json: Json = False,
) -> int:
    """Run the takeoff check of a mission: GO, or NO-GO with every reason. Without MISSION, check every mission.

    Give --trust, or --state aboard an aircraft. The status is 0 for GO, 1 for
    NO-GO, and 3 where there is no store, or not all of it can be read. The letter
    of a reason is the step that failed: A the ref and the manifest, B the chain of
    trust roots, C the signatures, D the entry table, E whether it is for this
    flight, F every byte, G the imagery (--tiles). After a GO aboard, a receipt is
    left in the store if it can be written, else in the state.

    Example: flightbag verify /media/stick/store --state /var/lib/flightbag
    """
    require_either(trust, state)
    if state is not None and (aircraft or host or at or tiles or receipt_key):
        raise Invalid(
            "--state excludes --aircraft, --host, --at, --tiles and --receipt-key",
            remedy="leave them out: the state holds the id, the host class and the key of the aircraft",
        )
    if receipt_key is None and (signer or (passphrase_file and not came_from_environment("passphrase_file"))):
        raise Invalid("--signer and --passphrase-file need --receipt-key", remedy="leave them out, or give the key")
    if receipt_key is not None and at:
        raise Invalid("--receipt-key excludes --at", remedy="leave out --at: a receipt is of now")
    keys = None if receipt_key is None else keyfiles.keys_for_later([receipt_key], passphrase_file, signer)
    if clock is not None and (clock != "trusted" or state is None):
        raise Invalid("--clock takes only the value trusted, and only with --state", remedy="leave it out")
    if host is not None:
        require_host_class(host)
    with (
        patience(Bound(store, patience_of(give_up), as_json=as_json)) as answered,
        keyfiles.open_to_verify(store, trust, state, drop_cache=drop_cache or None) as media,
        reading_bar("verifying") as progress,
    ):
        if anchor is not None:
            _check_anchor(media, anchor)
        if state is not None:
            from store.takeoff.aircraft import check, read_state

            evidence = StoreEvidence(media, progress)
            missions = _missions(evidence, mission)
            with suppress(FlightbagError):  # the check says what is wrong with the state
                _expect(evidence, missions, read_state(state).state.root)
            now = int(time.time()) if clock else None
            verdicts = [check(state, evidence, one, now=now, flight=flight) for one in missions]
        else:
            assert trust is not None
            pinned = keyfiles.pinned(trust)
            evidence, now = _evidence(media, at, pinned, progress)
            binding = Binding(now, aircraft, host, flight)
            operator = _operator(store, tiles)
            missions = _missions(evidence, mission)
            _expect(evidence, missions, pinned)
            verdicts = [verify_mission(evidence, one, pinned, binding, operator) for one in missions]
    no_go = [verdict for verdict in verdicts if not verdict.go]
    status = OK if not no_go else UNKNOWN if all(verdict.unknown for verdict in no_go) else NO
    if as_json:
        value: dict[str, Any] = {"store": place_text(store), "missions": [_verdict_json(one) for one in verdicts]}
        value |= {"at": None if at is None else moment(at)}
        print_json(value, [finding for one in verdicts for finding in findings_of(one)])
        print_document(status)  # no verdict waits for its receipt
    else:
        say(f"store {place_text(store)}")
        if at is not None:
            say(f"the verdict at {render.when(moment(at))}; this is not a clearance")
        print_verdicts(verdicts, past=at is not None)
    answered(status)
    if state is not None:
        from tools.receipts import after_check

        after_check(store, state, verdicts, quiet=as_json)
    elif keys is not None:
        from tools.receipts import after_desk_check

        after_desk_check(store, keys, verdicts, quiet=as_json)
    return status


def _expect(evidence: StoreEvidence, missions: Sequence[str], pinned: SignedRoot) -> None:
    """Let a bar, where one is shown, count on all bytes of several missions: of one the check does so by itself."""
    sizes: dict[ObjectId, int] = {}
    for mission in missions if is_shown() and len(missions) > 1 else ():
        opened = open_mission(evidence, mission, pinned)
        if isinstance(opened, Opened):
            sizes |= opened.closure()
    evidence.expect(sum(sizes.values()))


def _operator(store: str, tiles: list[Path] | None) -> OperatorCheck | None:
    if not tiles:
        return None
    require_build_extra()
    from builders.confinement import check_tiles

    return check_tiles(store, [str(one) for one in tiles])


def _evidence(media: Media, at: str | None, pinned: SignedRoot, progress: Any) -> tuple[StoreEvidence, int]:
    """Return the evidence to check, and the time to judge by: now, or the time `at` with the evidence of then."""
    if at is None:
        return StoreEvidence(media, progress), int(time.time())
    from store.ground.as_of import EvidenceAsOf, check_pinned

    then = past_moment(at, "--at")
    check_pinned(pinned, then)
    return EvidenceAsOf(media, then, progress), then


def _missions(evidence: StoreEvidence, mission: str | None) -> list[str]:
    missions = [mission] if mission else evidence.missions()
    if not missions:
        then = "" if type(evidence) is StoreEvidence else " at that time"
        text = f"{evidence.media.path} has no mission{then}: a check of nothing is not GO"
        remedy = "check that this is the right store, or sync a mission to it"
        raise NotFound(text, remedy=remedy, kind="missing")
    return missions


def _check_anchor(media: Media, anchor: str) -> None:
    """Raise Corrupt unless the log chains and one of its lines has this hash."""
    from store.disk import log

    ObjectId.parse(anchor)
    if anchor not in log.hashes(media):
        raise Corrupt(
            f"the log of {media.path} has no line with the hash {anchor[:16]}…: somebody cut or replaced the log, "
            "or the hash comes from the log of another store",
            remedy="each store has a log of its own: run `flightbag log` on the store that printed the hash; "
            "run store-fsck on this one",
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
        "judged_at": verdict.judged_at,
        "from_medium": verdict.from_medium,
    }
    if verdict.mission is not None:
        coverage = verdict.mission.manifest.coverage
        at = verdict.mission.manifest.issue.issued_at if verdict.judged_at is None else verdict.judged_at
        value |= {
            "signers": render.signers_json(verdict.mission.trust_root, verdict.mission.signers),
            "imagery_age_days": coverage.age_days_at(at),
            "facts": verdict.mission.facts.value(),
            "valid_from": verdict.mission.manifest.issue.valid_from,
            "expires_at": verdict.mission.manifest.issue.expires_at,
            "hosts": list(verdict.mission.manifest.hosts),
            "coverage": render.hexed(coverage.value()),
            "manifest": str(verdict.mission.manifest_id),
            "code": verdict.mission.code,
            "trust_root_version": verdict.mission.trust_root.version,
        }
    return value


@action
def prove_command(
    store: StoreBeforeName,
    mission: Mission,
    entry: Annotated[str, Argument(metavar="ENTRY", help="The name of the entry.")],
    output: Annotated[Path, Option("-o", "--output", metavar="FILE", help="The new file of the proof.")],
    as_json: Json = False,
) -> int:
    """Write the proof of one entry, for a computer that has the object of that entry and no store.

    Example: flightbag prove ground north-ridge files/camera.yaml -o camera.proof
    """
    from store.ground.repository import Repository

    with Repository.open(store) as repository:
        opened = repository.current(mission)
        envelope = repository.evidence.object(opened.manifest_id, ENVELOPE_LIMIT)
        evidence = repository.evidence
        statements = [evidence.object(id_, ENVELOPE_LIMIT) for id_ in opened.manifest.releases]
        data = Proof.of(
            opened, envelope, evidence.chain(max(1, opened.trust_root.version - MAX_STEPS)), entry, statements
        ).render()
    keyfiles.write_new(output, data)
    if as_json:
        print_json({"mission": mission, "entry": entry, "proof": str(output), "bytes": len(data)})
    else:
        say(f"wrote the proof of {entry} to {output}, {len(data)} bytes")
    return OK


@command
def check_proof(
    proof: Annotated[Path, Argument(metavar="PROOF", help="The file of the proof.")],
    object_: Annotated[Path, Argument(metavar="OBJECT", help="The file to verify.")],
    trust: NeededTrust,
    as_json: Json = False,
) -> int:
    """Verify one file by its proof and a pinned trust root, without a store.

    Example: flightbag check-proof camera.proof camera.yaml --trust pinned.root.cbor
    """
    if (store := store_above(object_)) is not None:
        keyfiles.refuse_inside("--trust", trust, store)
    pinned = keyfiles.pinned(trust)
    try:
        proven = prove(_parsed(proof, object_), pinned)
    except (Corrupt, Untrusted) as error:
        remedy = error.remedy or (
            "check that the trust root is of the proof's trust domain; else make the proof again: `flightbag prove`"
        )
        raise error.restated(f"{proof}: {error.message}", remedy=remedy) from error
    entry, facts, issue = proven.entry, proven.manifest.mission, proven.manifest.issue
    folder, name = os.path.split(os.path.abspath(object_))
    with Media(folder) as media:
        try:
            media.digest(entry.id, entry.size, name=name)
        except NotFound as error:
            remedy = "check the path; if it lies on a medium, mount it"
            text = f"{object_} does not exist"
            raise Unavailable(text, remedy=remedy, kind="missing", path=str(object_)) from error
        except Corrupt as error:
            raise error.restated(f"{object_} is not {entry.name}: {error.message}") from error
    if as_json:
        print_json(
            {"entry": entry.name, "object": str(entry.id), "bytes": entry.size, "mission": facts.id}
            | {"flight": facts.flight, "sequence": issue.sequence, "trust_root_version": proven.root.root.version}
            | {"signers": render.signers_json(proven.root.root, proven.signers)}
            | {"not_judged": list(_NOT_JUDGED)}
        )
    else:
        say(f"{object_} is {entry.name} of {facts.id}, flight {facts.flight}, sequence {issue.sequence}")
        for label, text in render.signed_by(proven.root.root, proven.signers):
            say(f"  {label} {text}")
        say(f"  judged by trust root {proven.root.root.version}")
        print_lines(f"  {line}" for line in render.listed("not judged:", _NOT_JUDGED))
    return OK


def _parsed(path: Path, other: Path) -> Proof:
    """Return the proof in a file. Raise Corrupt for other bytes, and Invalid where `other` is the file of a proof."""
    try:
        return Proof.parse(keyfiles.read_file(path, PROOF_LIMIT, "the proof"))
    except Invalid as error:
        if error.kind != "missing":
            raise
        raise Unavailable(error.message, remedy=error.remedy, kind="missing", path=str(path)) from error
    except Corrupt as error:
        if _is_proof(other):
            text = f"{path} is not a proof, and {other} is one"
            raise Invalid(text, remedy=f"give the proof first: {other} {path}", path=str(path)) from error
        remedy = "give the file that `flightbag prove` wrote, and after it the file to verify"
        raise error.restated(f"it is not a proof: {error.message}", remedy=remedy) from error


def _is_proof(path: Path) -> bool:
    try:
        Proof.parse(keyfiles.read_file(path, PROOF_LIMIT, "the file"))
    except FlightbagError:
        return False
    return True


# A proof shows nothing about these.
_NOT_JUDGED = (
    "whether the mission is current",
    "later revocations",
    "aircraft",
    "host class",
    "flight",
    "expiry",
    "the other entries",
)
