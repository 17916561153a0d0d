"""Build missions: prepare them in a confined process, then sign and publish in this one.

    >>> from builders import build
    >>> report = build(mission_file, store_path, [key], cache=cache_folder)
    >>> report.outcome, report.coverage.described == report.coverage.tiles
    ('built', True)
    >>> build(mission_file, store_path, [key], cache=cache_folder).outcome
    'unchanged'

All that reads foreign bytes or runs a network happens in the process that `confinement` starts (decision 19). What it
gives back is a payload: a manifest and its table. This process parses both as strictly as an aircraft does, compares
the manifest with the mission file, opens the keys last, when that process has ended, and publishes. A build that fails
publishes nothing, and the previous manifest stays current.
"""

from __future__ import annotations

import os
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders import confinement
from builders.files import MAX_MISSION_FILE, read_regular
from builders.sharing import CacheOfBuild, Sharing
from store.disk.locks import exclusive
from store.errors import Corrupt, NotFound, Refused
from store.format.area import Area
from store.format.cose import Envelope
from store.format.duration import duration_text
from store.format.entries import EntryTable
from store.format.ids import ObjectId
from store.format.manifest import CONTENT_TYPE, MISSION_ID, Issue, Manifest
from store.ground.issuing import Draft, Issued, Keys, draft_of, issue, overtaken
from store.ground.repository import Repository
from store.ground.writer import Writer, writing
from store.takeoff.fidelity import claims, unmeasured
from store.trust.keys import Signer
from store.trust.review import require_code, signing_code
from store.trust.root import TrustRoot

if TYPE_CHECKING:
    from typing_extensions import Self

    from builders.mission.schema import Target
    from builders.report import BuildReport

Progress = Callable[[str, int, int], None]


def build_mission(
    mission_file: str | os.PathLike[str],
    store: str | os.PathLike[str],
    signers: Sequence[Signer],
    *,
    cache: str | os.PathLike[str],
    now: int | None = None,
    progress: Progress = lambda _activity, _done, _total: None,
    shared_cache: str = "",
    builders: Sequence[Signer] = (),
) -> BuildReport:
    """Build a mission file into a store: what is missing is built, then the manifest is signed and published.

    `cache` is a folder for what the next build may reuse; `now` is unix seconds, by default the clock's. `shared_cache`
    is where other stations' work is looked for, "" for nowhere, and `builders` sign what is put there. The work is done
    in a process of its own, which ends before this function returns. Returns and raises as `build`.
    """
    at = int(time.time()) if now is None else now
    sharing = Sharing(shared_cache, Keys.of(builders)) if shared_cache else None
    keys = Keys.of(signers)
    return build(Path(mission_file), store, keys, cache=Path(cache), now=at, progress=progress, sharing=sharing)


def build(
    mission_file: Path,
    store: str | os.PathLike[str],
    keys: Keys,
    *,
    cache: Path,
    now: int,
    progress: Progress,
    remembered: bool = True,
    expect: str | None = None,
    sharing: Sharing | None = None,
    executor: str = "local",
) -> BuildReport:
    """Build what is missing, walk the coverage, sign and publish.

    The keys are opened last, and not at all where nothing is to be signed. `expect` is the code of the draft that a
    second pilot builds again (FORMAT.md 10.3): Refused (kind other-code), with nothing signed, if this build makes
    another manifest.

    The report says `failed`, with every missing tile and its reason, where the coverage is not what the policy demands;
    other failures raise. `now` is unix seconds and becomes the time of issue. Without `remembered` every tile is read,
    also where no source has changed since the last time. What the shared cache has is not built; what was built is put
    there when all is done. `executor` says where the work is done: "local", "ray" or "ray://HOST:PORT"
    (`builders.cluster`).
    """
    start = time.monotonic()
    # The locks are held from before the first byte is written until the mission is published.
    with Repository.open(store) as repository, ExitStack() as locks:
        keys.check(repository.trust_root().root, now=now)
        shared = None if sharing is None else CacheOfBuild(repository, sharing, now=now, progress=progress)
        missions: list[str] = []
        stated: list[bytes] = []
        places: list[str] = []

        def lock(mission: str) -> None:
            if missions or not MISSION_ID.fullmatch(mission):
                raise Corrupt(f"the confined process named {mission[:80]!r} as its mission", kind="failed")
            missions.append(mission)
            # Now: that process has read this file and nothing else yet, so nothing that it reads has changed the file.
            stated.append(read_regular(mission_file, MAX_MISSION_FILE, "mission file"))
            what = f"the build of mission {mission}"
            locks.enter_context(exclusive(repository.media.path, repository.disk, f"mission-{mission}", what))
            locks.enter_context(repository.locked())

        def note_place(place: str) -> None:
            if not places:
                places.append(place)

        result = confinement.build(
            mission_file,
            store,
            cache,
            keys=keys.count,
            now=now,
            remembered=remembered,
            progress=progress,
            opened=lock,
            placed=note_place,
            supply=None if shared is None else shared.supply,
            executor=executor,
        )
        from builders.crossing import from_json
        from builders.report import BuildReport

        report = from_json(BuildReport, result.get("report"))
        payload = _Payload.of(result.get("payload"))
        if missions != [report.mission]:
            raise _other_report("the report of a mission that it did not name")
        if payload is not None:
            _check_report(report, "built", payload.manifest, payload.table)
            _require_stated(mission_file, stated[0], places, payload, repository.trust_root().root, now)
            with writing(repository) as writer:
                report = _publish(writer, report.mission, payload, report, keys, now, expect)
        else:
            report = _unsigned(repository, report)
            if expect is not None and report.outcome == "unchanged":
                require_code(report.signing_code, expect, f"the published manifest of mission {report.mission}")
        if shared is not None:
            shared.refuse(result.get("unfit"))
            if report.outcome != "failed":
                shared.give()
            report = replace(report, cache=shared.report())
    return replace(report, seconds=round(time.monotonic() - start, 3))


@dataclass(frozen=True, slots=True)
class _Payload:
    """What the confined process wants signed; see `orchestrator.Payload`."""

    manifest: Manifest
    table: EntryTable
    draft: bool
    lacking: str

    @classmethod
    def of(cls, value: Any) -> Self | None:
        """Read it as strictly as an aircraft does. Raise Corrupt for what no aircraft would take."""
        if value is None:
            return None
        try:
            manifest = Manifest.parse(b64decode(value["manifest"], validate=True))
            table_bytes = b64decode(value["table"], validate=True)
            draft, lacking = value["draft"], value["lacking"]
            if type(draft) is not bool or type(lacking) is not str:
                raise TypeError("draft or lacking")
        except (KeyError, TypeError, ValueError) as error:
            text = "the confined process gave back something else than a payload"
            raise Corrupt(text, remedy="report this as a defect", kind="failed") from error
        if (ObjectId.of(table_bytes), len(table_bytes)) != (manifest.table, manifest.table_size):
            raise Corrupt("the confined process gave back a table of another manifest", kind="bad-table")
        return cls(manifest, EntryTable.parse(table_bytes), draft, lacking)


def _check_report(report: BuildReport, outcome: str, manifest: Manifest, table: EntryTable) -> None:
    """Raise Corrupt unless the report has this outcome and shows what this manifest and table say: people read it."""
    coverage = report.coverage
    if (
        (report.outcome, report.mission) != (outcome, manifest.mission.id)
        or tuple(one.figure() for one in report.figures) != manifest.quality
        or report.unproven != manifest.unproven
        or (coverage.tiles, coverage.tiles - coverage.described, len(coverage.missing))
        != (manifest.coverage.tiles, manifest.coverage.missing, manifest.coverage.missing)
        or sorted((row.name, row.id, row.bytes) for row in report.artifacts)
        != [(entry.name, str(entry.id), entry.size) for entry in table.entries]
    ):
        raise _other_report("a report of something else than what is signed")


def _require_stated(
    path: Path, data: bytes, places: Sequence[str], payload: _Payload, trust_root: TrustRoot, now: int
) -> None:
    """Raise Refused unless the manifest says what the mission file says: that process has read foreign bytes since.

    `places` holds the digest of the area and the takeoff, which that process gave when it had read nothing but the
    files that state these.
    """
    from builders.crossing import place_digest
    from builders.mission.reader import mission_of, targets_of
    from builders.mission.schema import AUTO, scaled
    from builders.mission.validity import Validity

    manifest = payload.manifest
    stated, facts = mission_of(path, data), manifest.mission
    exact, alt_m = stated.takeoff.exact, stated.takeoff.alt_m
    altitude = {} if alt_m is None else {"alt": scaled(alt_m, 3)}
    pairs: dict[str, tuple[object, object]] = {
        "id": (stated.id, facts.id),
        "flight": (stated.flight, facts.flight),
        "aircraft": (stated.aircraft_ids, facts.aircraft),
        "takeoff": (exact or replace(facts.takeoff, **altitude), facts.takeoff),
        "takeoff_outside": (stated.takeoff_outside, facts.takeoff_outside),
        "sector": (stated.sector, facts.sector),
        "validity": (True, Validity.of(stated, trust_root).kept_by(manifest.issue, now=now)),
    }
    targets = dict(_by_host(targets_of(path, data), manifest.hosts, AUTO))
    pairs["target.host"] = (sorted(targets), list(manifest.hosts))
    unproven = [host for host, one in targets.items() if one.proof == "required" and any(claims(payload, host))]
    pairs["target.proof"] = ([], unproven)
    # A build asks of every engine whether it equals the map: one of which nothing is said was not asked.
    pairs["the figures of its engines"] = ([], [host for host in manifest.hosts if any(unmeasured(payload, host))])
    if stated.area.bbox_e7 is not None:
        pairs["area"] = (Area(stated.area.bbox_e7), facts.area)
    if "area" not in pairs or exact is None:
        pairs["place"] = (list(places), [place_digest(facts.area, facts.takeoff)])
    differing = [name for name, (one, other) in pairs.items() if one != other]
    if differing:
        raise Refused(
            f"the manifest of {facts.id} differs from {path} in {', '.join(differing)}, and is not signed",
            remedy="if you changed the file meanwhile, build again; if not, check every input that came from outside",
            kind="other-mission",
        )


def _by_host(targets: Sequence[Target], hosts: Sequence[str], auto: str) -> Iterator[tuple[str, Target]]:
    """Yield the class of each target, and the target. The class that the file leaves to this machine, as `auto`, is the
    one of these that it does not name."""
    named = {target.host for target in targets}
    others = [host for host in hosts if host not in named]
    for target in targets:
        yield (others[0] if target.host == auto and len(others) == 1 else target.host), target


def _unsigned(repository: Repository, report: BuildReport) -> BuildReport:
    """Return the report of a build that has nothing to sign: it failed, or the published manifest stays. What that
    manifest is, this process says. Raise Corrupt for another outcome, and as `Repository.current` does."""
    if report.outcome == "failed":
        return replace(report, manifest="", sequence=0, signing_code="", valid_from=None, expires_at=None)
    published = repository.current(report.mission)
    _check_report(report, "unchanged", published.manifest, published.table)
    issued = published.manifest.issue
    return replace(
        report,
        manifest=str(published.manifest_id),
        sequence=issued.sequence,
        signing_code=published.signing_code,
        valid_from=issued.valid_from,
        expires_at=issued.expires_at,
    )


def _other_report(what: str) -> Corrupt:
    return Corrupt(f"the confined process gave back {what}", remedy="report this as a defect", kind="failed")


def _publish(
    writer: Writer,
    mission: str,
    payload: _Payload,
    report: BuildReport,
    keys: Keys,
    now: int,
    expect: str | None,
) -> BuildReport:
    """Sign the manifest and publish it, or keep it as a draft where it lacks something."""
    repository, manifest = writer.repository, payload.manifest
    trust_root = repository.trust_root().root
    draft = _draft(repository, mission, payload, trust_root, now)
    if expect is not None:
        code = signing_code(Envelope(CONTENT_TYPE, manifest.render()))
        require_code(code, expect, f"the manifest that this build makes of mission {mission}")
    why_other = "" if draft is not None else _why_other(repository, manifest, trust_root, now)
    # Nobody signs what cannot be published: its approval will make another manifest of it.
    signers = () if payload.lacking else keys.open()
    issued = issue(writer, manifest, payload.table, signers, trust_root, draft=draft, hold=bool(payload.lacking))
    return replace(
        report,
        outcome="built" if issued.manifest is not None else "draft",
        manifest="" if issued.manifest is None else str(issued.manifest),
        sequence=issued.issue.sequence,
        signing_code=issued.signing_code,
        valid_from=issued.issue.valid_from,
        expires_at=issued.issue.expires_at,
        why=_unpublished(issued, payload.lacking, why_other),
    )


def _draft(repository: Repository, mission: str, payload: _Payload, trust_root: TrustRoot, now: int) -> Draft | None:
    """Return the draft whose signatures stay, if the payload is that of a draft.

    Raise Refused unless the payload is what may be signed now: of the mission whose lock is held, and the issue that
    follows.
    """
    manifest = payload.manifest
    why = "" if manifest.mission.id == mission else f"it is of mission {manifest.mission.id}"
    why = why or overtaken(repository, manifest, trust_root, now=now)
    draft = draft_of(repository, mission) if payload.draft else None
    if draft is not None and draft.manifest != manifest:
        why = why or "the draft was changed meanwhile"
    if why:
        raise Refused(f"the manifest of {mission} cannot be signed: {why}", remedy="build again", kind="stale-draft")
    return draft


def _why_other(repository: Repository, manifest: Manifest, trust_root: TrustRoot, now: int) -> str:
    """Return why a mission's draft is not the one that this manifest would continue; "" where there is no draft."""
    try:
        before = draft_of(repository, manifest.mission.id).manifest
    except (NotFound, Corrupt):
        return ""
    if why := overtaken(repository, before, trust_root, now=now):
        return why
    if (before.identity, before.quality) != (manifest.identity, manifest.quality):
        return "the mission file, or what it names, is another now"
    length = _length(manifest.issue)
    if length is None or length != _length(before.issue) or before.issue.valid_from != manifest.issue.valid_from:
        return "the mission file or the trust root gives another validity now"
    return (
        f"less than half of its {duration_text(length)} is left, and a build then issues a mission anew: "
        "`flightbag sign` adds a signature to a draft of any age"
    )


def _length(issued: Issue) -> int | None:
    """Return for how many seconds an issue is valid, from its first one on."""
    return None if issued.expires_at is None else issued.expires_at - max(issued.issued_at, issued.valid_from or 0)


def _unpublished(issued: Issued, lacking: str, why_other: str) -> str:
    """Return why a manifest is only a draft, and what became of the draft before it; "" where it is published."""
    why = ""
    if issued.manifest is None:
        why = f"it has {issued.signatures} of {issued.threshold} required signatures: flightbag sign"
    if lacking:
        why = lacking
    if count := issued.replaced:
        lost = f"whose {count} signature{'s are' if count > 1 else ' is'} lost"
        why += f"{'; ' if why else ''}it replaces the draft before it, {lost}: {why_other}"
    return why
