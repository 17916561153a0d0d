"""Where a mission stands: what of its mission file is stale beside the store, and what has to be done next.

What reads imagery and models runs in a confined process (decision 19); this module adds what the store says by itself,
also where the mission file cannot be compared. It writes nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from builders import confinement
from builders.confinement import Progress
from store.errors import Corrupt, FlightbagError, Unavailable
from store.findings import Finding
from store.format.manifest import MISSION_ID, Issue
from store.ground.issuing import draft_of, overtaken
from store.ground.repository import Repository
from store.takeoff.withdrawn import withdrawn
from store.trust.root import TrustRoot
from store.values import replace

if TYPE_CHECKING:
    from builders.report import Comparison

Next = Literal["look", "plan", "build", "sign", "order", "fulfil", "accept", "carry"]


@dataclass(frozen=True, slots=True)
class Signer:
    """A key of the role mission: its kid in hex, and what the trust root calls it, "" without a name."""

    kid: str
    name: str


@dataclass(frozen=True, slots=True)
class Published:
    """The published manifest of a mission, as it is signed; times are unix seconds. `withdrawn` says why it was
    withdrawn, "" where it was not."""

    manifest: str
    flight: str
    aircraft: tuple[str, ...]
    epoch: int
    sequence: int
    issued_at: int
    valid_from: int | None
    expires_at: int | None
    signers: tuple[Signer, ...]
    withdrawn: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A draft that lacks signatures: `signers` have signed, and of the keys `others` as many have to as `threshold`
    asks for. `overtaken` says why nobody can publish it any more, "" where somebody can."""

    flight: str
    sequence: int
    issued_at: int
    valid_from: int | None
    expires_at: int | None
    signing_code: str
    threshold: int
    signers: tuple[Signer, ...]
    others: tuple[Signer, ...]
    overtaken: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a mission stands. `published` is None where nothing is published that can be read, `draft` where there is
    no draft. `comparison` is None where the mission file could not be compared; `unknown` says why, and what else could
    not be looked at."""

    mission: str
    published: Published | None
    draft: Waiting | None
    comparison: Comparison | None
    unknown: tuple[Finding, ...]

    @property
    def state(self) -> Literal["up-to-date", "stale", "unknown"]:
        """`up-to-date` where a build has nothing to do, and `unknown` where something could not be looked at."""
        if self.unknown or self.comparison is None:
            return "unknown"
        return "stale" if self.comparison.differences or self.comparison.refused else "up-to-date"

    @property
    def next(self) -> Next:
        """What to do next: `look` at what could not be looked at; `plan`, which names what a build refuses; `sign` the
        draft that says what the mission file says; `accept` a result, `order` an engine or have an order `fulfil`led;
        `build`; or `carry` the mission."""
        one = self.comparison
        if self.unknown or one is None:
            return "look"
        if one.refused:
            return "plan"
        if not one.differences:
            return "carry"
        if self.draft is not None and not self.draft.overtaken and one.draft == ():
            return "sign"
        states = {engine.state for engine in one.engines}
        for state, what in (("result", "accept"), ("to order", "order"), ("ordered", "fulfil")):
            if state in states:
                return what  # type: ignore[return-value] # of the three above
        return "build"

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        one = self.comparison
        return {
            "mission": self.mission,
            "state": self.state,
            "next": self.next,
            "published": None if self.published is None else asdict(self.published),
            "draft": None if self.draft is None else asdict(self.draft),
            "comparison": None if one is None else asdict(one),
        }


def mission_standing(
    mission_file: str | os.PathLike[str],
    store: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str],
    now: int | None = None,
    progress: Progress = lambda _activity, _done, _total: None,
) -> Standing:
    """Return where the mission of a mission file stands in a store.

    It decodes no tile and compiles nothing, and reads no tile of sources that have not changed since they were read.
    `cache` is the folder where builds note that, `now` unix seconds, by default the clock's. What cannot be read is in
    `unknown`. Raise Invalid for a mission file with mistakes, and as `Repository.open` and `trust_root` do.
    """
    at = int(time.time()) if now is None else now
    with Repository.open(store) as repository:
        root = repository.trust_root().root
        missions: list[str] = []
        unknown: list[Finding] = []
        comparison = None

        def note(mission: str) -> None:
            if missions or not MISSION_ID.fullmatch(mission):
                raise Corrupt(f"the confined process named {mission[:80]!r} as its mission", kind="failed")
            missions.append(mission)

        path, folder = Path(mission_file), Path(cache)
        try:
            comparison = confinement.compare(path, store, folder, now=at, progress=progress, opened=note)
        except FlightbagError as error:
            if not missions:
                raise  # the mission file itself
            unknown += _findings(error)
        (mission,) = missions
        published, draft = None, None
        try:
            published = _published(repository, mission)
        except FlightbagError as error:
            _note(unknown, error, comparison)
        try:
            draft = _draft(repository, mission, root, at)
        except FlightbagError as error:
            _note(unknown, error, comparison)
    return Standing(mission, published, draft, comparison, tuple(unknown))


def _note(unknown: list[Finding], error: FlightbagError, comparison: Comparison | None) -> None:
    """Note what could not be read. Damage is known where the comparison has seen it."""
    if comparison is None or isinstance(error, Unavailable):
        unknown += _findings(error)


def _findings(error: FlightbagError) -> list[Finding]:
    """Return a finding for each error that one stands for."""
    one = Finding.of(error)
    return [replace(one, message=message) for message in error.problems or (error.message,)]


def _published(repository: Repository, mission: str) -> Published | None:
    if mission not in repository.missions():
        return None
    opened = repository.current(mission)
    manifest, issue = opened.manifest, opened.manifest.issue
    findings = withdrawn(repository.evidence, opened).findings
    return Published(
        str(opened.manifest_id),
        manifest.mission.flight,
        manifest.mission.aircraft,
        issue.epoch,
        **_issued(issue),
        signers=_signers(opened.trust_root, opened.signers),
        withdrawn="; ".join(finding.message for finding in findings),
    )


def _draft(repository: Repository, mission: str, root: TrustRoot, now: int) -> Waiting | None:
    if mission not in repository.evidence.drafts():
        return None
    draft = draft_of(repository, mission)
    draft.signatures(root)
    kids = draft.envelope.kids
    others = [key.kid for key in root.mission.keys if key.kid not in kids]
    return Waiting(
        draft.manifest.mission.flight,
        **_issued(draft.manifest.issue),
        signing_code=draft.opened(repository.evidence, root).signing_code,
        threshold=root.mission.threshold,
        signers=_signers(root, kids),
        others=_signers(root, others),
        overtaken=overtaken(repository, draft.manifest, root, now=now),
    )


def _issued(issue: Issue) -> dict[str, Any]:
    names = ("sequence", "issued_at", "valid_from", "expires_at")
    return {name: getattr(issue, name) for name in names}


def _signers(root: TrustRoot, kids: Iterable[bytes]) -> tuple[Signer, ...]:
    return tuple(Signer(kid.hex(), root.name_of(kid)) for kid in kids)
