"""What a report says, as values: collected from the functions that the other commands print. Nothing is decided here.

A part of a store that cannot be read is named among `problems`, and the report has the rest: it is read when something
is wrong, too.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from builders.atlas import MOST, SAMPLE_SIDE, Cell, grid
from builders.atlas import cells as cells_of
from store.audit.ledger import Ledger
from store.disk import log
from store.disk.media import FileStamp
from store.errors import Conflict, FlightbagError, NotFound
from store.findings import Finding
from store.format.code import short_code
from store.format.cose import Envelope
from store.format.ids import ObjectId
from store.format.manifest import CONTENT_TYPE, ENVELOPE_LIMIT, FIDELITY, PAYLOAD_LIMIT, PPM, Figure
from store.format.missing import MissingList
from store.ground import receipts
from store.ground.history import stats
from store.ground.log_history import LogHistory
from store.ground.repository import Repository
from store.takeoff import quality
from store.takeoff.aircraft import check
from store.takeoff.coverage import read_missing
from store.takeoff.engines import engines_of
from store.takeoff.evidence import StoreEvidence
from store.takeoff.fidelity import claims, fidelity_recipe
from store.takeoff.mission import Binding, Opened, Verdict
from store.takeoff.verify import verify_mission
from store.takeoff.withdrawn import withdrawn
from store.trust.root import ROLES, TrustRoot, advance
from tools import keyfiles, render, render_engines
from tools.fsck import ledger_path
from tools.legend import DESCRIBED, SIGNS, Sign
from tools.maps import MOST_COMPARED, others_of
from tools.progress import reading_bar
from tools.receipts import flown_row, verified_row
from tools.report.charts import Bar, Line, Map, bar, map_of, steps
from tools.trust import rules_of

if TYPE_CHECKING:
    from builders.engines.card import Card

# The most entries and receipts, groups of shards, and trust roots that a page lists one by one.
LISTED = 200
_GROUPS = 24
_ROOTS = 20
# The most manifests of the past that the growth of a store is made of.
_GROWTH = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """What a report is asked for: of which store, at which time in unix seconds, and what it is told besides."""

    store: str
    now: int
    trust: Path | None
    state: str | None
    fleet: Mapping[bytes, str]
    tiles: tuple[str, ...]

    @property
    def judges(self) -> bool:
        return self.trust is not None or self.state is not None


class Key(NamedTuple):
    """A key: its kid in hex, and its name by the trust root, "" for none."""

    kid: str
    name: str


class Root(NamedTuple):
    """A trust root: its version, code, time of issue, rules, keys by role with their threshold, and revoked keys."""

    version: int
    code: str
    issued: str
    rules: list[tuple[str, str]]
    roles: Sequence[tuple[str, int, list[Key]]]
    revoked: list[Key]


class Engine(NamedTuple):
    """An engine: its entry, what its card says, whether it ran where it was built, and who has proven it since."""

    name: str
    rows: list[tuple[str, str]]
    ran: bool
    proofs: list[str]


class Shown(NamedTuple):
    """A figure: its title, value, least and number of queries as text, and a bar with a mark for the least."""

    title: str
    value: str
    least: str
    queries: str
    bar: Bar | None


class Size(NamedTuple):
    """The entries of a kind: how many, their bytes, those of objects that other missions need too, and a bar."""

    kind: str
    entries: int
    bytes: int
    shared: int
    bar: Bar


@dataclass
class Facts:
    """What both pages have. `verdicts` are GO, NO-GO or UNKNOWN by mission, where a verdict was asked for."""

    at: str
    title: str
    summary: str = ""
    verdicts: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    roots: list[Root] = field(default_factory=list)
    receipts: list[tuple[str, ...]] = field(default_factory=list)
    unknown_receipts: int = 0

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """Note what keeps a part of the page from being shown, and go on."""
        try:
            yield
        except FlightbagError as error:
            self.problems.append(f"{what}: {error.message}")


@dataclass
class MissionPage(Facts):
    """The page of a mission."""

    verdict: str = ""
    code: str = ""
    not_judged: list[str] = field(default_factory=list)
    grounded: list[str] = field(default_factory=list)
    rows: list[tuple[str, str]] = field(default_factory=list)
    maps: list[Map] = field(default_factory=list)
    legend: list[tuple[Sign, str, int, str]] = field(default_factory=list)
    sharing: list[tuple[str, int]] = field(default_factory=list)
    cells: int = 0
    uncounted: int = 0
    unopened: int = 0
    tiles: list[tuple[str, str]] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    figures: list[Shown] = field(default_factory=list)
    figure_notes: list[str] = field(default_factory=list)
    signers: list[Key] = field(default_factory=list)
    threshold: int = 0
    signing_code: str = ""
    sizes: list[Size] = field(default_factory=list)
    entries: list[tuple[str, str, str, str]] = field(default_factory=list)
    more_entries: int = 0


@dataclass
class StorePage(Facts):
    """The page of a store. `groups` are the shards that exactly the same missions have: their number, their bytes and
    the missions."""

    missions: list[tuple[str, str, str, str]] = field(default_factory=list)
    totals: list[tuple[str, str]] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    groups: list[tuple[int, int, frozenset[str]]] = field(default_factory=list)
    more_groups: int = 0
    ungrouped: int = 0
    growth: Line | None = None
    moments: list[tuple[str, str, str]] = field(default_factory=list)
    lost: int = 0
    audit: list[tuple[str, str]] = field(default_factory=list)


def mission_facts(asked: Asked, mission: str) -> MissionPage:
    """Return the page of a mission. Raise NotFound for a mission that the store does not have, and as `open_store` and
    the takeoff check do."""
    facts = MissionPage(render.when(asked.now), f"Mission {mission}")
    with Repository.open(asked.store) as repository:
        if mission not in repository.missions():
            repository.evidence.ref(mission)  # raises, and names those that the store has
        opened = None
        with facts.part("the manifest"):
            opened = repository.current(mission)
        if asked.judges:
            _judge(asked, facts, mission, opened)
        if opened is not None:
            _describe(asked, facts, repository, opened)
        with facts.part("the trust roots"):
            facts.roots = list(_roots(repository))
        with facts.part("the receipts"):
            _receipts(asked, facts, repository, mission)
    facts.summary = facts.verdict or "no verdict was asked for: give --trust or --state"
    return facts


def _judge(asked: Asked, facts: MissionPage, mission: str, opened: Opened | None) -> None:
    verdict = next(_verdicts(asked, [mission]))
    facts.verdict = facts.verdicts[mission] = _word(verdict)
    facts.findings, facts.not_judged = list(verdict.findings), list(verdict.not_judged)
    if verdict.mission is not None:
        facts.code = verdict.mission.code
        if opened is not None and verdict.mission.manifest_id != opened.manifest_id:
            raise Conflict(f"mission {mission} was published anew meanwhile", remedy="make the report again")


def _verdicts(asked: Asked, missions: Sequence[str]) -> Iterator[Verdict]:
    """Yield the verdict on each mission, as `verify` does."""
    with keyfiles.open_to_verify(asked.store, asked.trust, asked.state) as media, reading_bar("verifying") as progress:
        evidence = StoreEvidence(media, progress)
        for mission in missions:
            if asked.state is not None:
                yield check(asked.state, evidence, mission, now=None, flight=None)
            else:
                assert asked.trust is not None
                yield verify_mission(evidence, mission, keyfiles.pinned(asked.trust), Binding(asked.now))


def _word(verdict: Verdict) -> str:
    return "GO" if verdict.go else "UNKNOWN" if verdict.unknown else "NO-GO"


def _describe(asked: Asked, facts: MissionPage, repository: Repository, opened: Opened) -> None:
    """Fill in what a manifest and its objects say."""
    manifest, table = opened.manifest, opened.table
    listed = MissingList(())
    with facts.part("the missing tiles"):
        listed = read_missing(opened, repository.evidence)
    facts.rows = render.mission_facts(opened, listed, asked.now)
    facts.signing_code = opened.signing_code
    facts.grounded = [finding.message for finding in withdrawn(repository.evidence, opened).findings]
    cells: list[Cell] = []
    others, facts.uncounted, facts.unopened = others_of(repository, opened)
    with facts.part("the cells"):
        cells = cells_of(opened, others)
        facts.cells = len(cells)
        facts.sharing = Counter(mission for cell in cells for mission in cell.shared).most_common(LISTED)
    # Without the list, a tile that nobody describes would look described.
    if listed.total == manifest.coverage.missing:
        with facts.part("the map"):
            area, takeoff = manifest.mission.area, manifest.mission.takeoff
            zooms = manifest.coverage.zooms
            most = MOST if manifest.coverage.tiles <= MOST else MOST // len(zooms)
            grids = [grid(area, zoom, listed, most=most) for zoom in reversed(zooms)]
            facts.maps = [map_of(one, cells, area, takeoff) for one in grids]
            counts = {DESCRIBED: manifest.coverage.tiles - manifest.coverage.missing, **listed.by_reason}
            facts.legend = [(SIGNS[name], name, count, SIGNS[name].meaning) for name, count in counts.items()]
    if asked.tiles:
        from builders.confinement import samples
        from builders.grid.tiles import tile_from_id
        from builders.painting import png_of_rgb

        for number, pixels in samples(asked.store, opened, asked.tiles):
            facts.tiles.append(
                (str(tile_from_id(number)), b64encode(png_of_rgb(pixels, SAMPLE_SIDE, SAMPLE_SIDE)).decode())
            )
    with facts.part("the engines"):
        facts.engines = list(_engines(asked, repository, opened))
    facts.figures, facts.figure_notes = _figures(opened), list(render.baselines(manifest.quality, {}))
    with facts.part("the signatures"):
        envelope = Envelope.parse(
            repository.evidence.object(opened.manifest_id, ENVELOPE_LIMIT), CONTENT_TYPE, PAYLOAD_LIMIT
        )
        root = repository.trust_root().root
        facts.signers = [_key(root, signature.kid) for signature in envelope.signatures]
        facts.threshold = root.mission.threshold
    facts.sizes = _sizes(
        [(entry.kind, entry.id, entry.size) for entry in table.entries]
        + [("manifest and table", opened.manifest_id, opened.manifest_size)]
        + [("manifest and table", manifest.table, manifest.table_size)],
        {id_ for other in others.values() for id_ in other.closure()},
    )
    facts.entries = [(e.name, e.kind, render.size(e.size), str(e.id)) for e in table.entries[:LISTED]]
    facts.more_entries = max(0, len(table.entries) - LISTED)


def _sizes(items: Sequence[tuple[str, ObjectId, int]], others: set[ObjectId]) -> list[Size]:
    """Return the sizes by kind, the largest first. Each object counts once in its kind."""
    by_kind: dict[str, dict[ObjectId, int]] = {}
    entries = Counter(kind for kind, _, _ in items)
    for kind, id_, size in items:
        by_kind.setdefault(kind, {})[id_] = size
    rows = []
    for kind, sizes in by_kind.items():
        shared = sum(size for id_, size in sizes.items() if id_ in others)
        rows.append((kind, entries[kind], sum(sizes.values()), shared))
    most = max(total for _, _, total, _ in rows)
    return [
        Size(kind, count, total, shared, bar([total - shared, shared], most))
        for kind, count, total, shared in sorted(rows, key=lambda row: -row[2])
    ]


def _engines(asked: Asked, repository: Repository, opened: Opened) -> Iterator[Engine]:
    from builders.artifacts.cards import cards_of_mission

    texts: dict[str, list[str]] = {}
    for claim in claims(opened, None):
        proven = "nobody has proven it yet"
        if claim.proof is not None and (by := _provers(asked, repository, claim.proof)):
            proven = f"proven aboard by {', '.join(by)}"
        texts.setdefault(claim.engine, []).append(f"{quality.figure_title(claim.figure.name)}: {proven}")
    for name, figure in _fidelity(opened):
        text = f"{quality.figure_title(figure.name)}: {render.signed_figure(figure)}"
        texts.setdefault(name, []).append(text)
    try:
        cards: Mapping[str, Card] = cards_of_mission(repository, opened.manifest.mission.id)
    except NotFound:
        if not opened.table.of_kind("engine"):
            return
        raise
    for name, card in cards.items():
        yield Engine(name, render_engines.card_rows(card.as_json()), card.proven, texts.get(name, []))


def _fidelity(opened: Opened) -> Iterator[tuple[str, Figure]]:
    """Yield each signed figure of fidelity, with the name of the engine that it is about."""
    engines = [one for group in engines_of(opened.table.of_kind("engine")).values() for one in group]
    for figure in opened.manifest.quality:
        probe = opened.table.find(f"probes/{figure.name.removeprefix(FIDELITY)}.safetensors")
        if not figure.name.startswith(FIDELITY) or probe is None or probe.key is None:
            continue
        for engine in engines:
            if figure.recipe == fidelity_recipe(probe.key, engine.key):
                yield engine.name, figure


def _provers(asked: Asked, repository: Repository, proof: bytes) -> list[str]:
    """Return whose receipts say that a figure was proven aboard; of unknowns nothing counts."""
    shown = receipts.overview(repository, asked.fleet).verified
    return sorted(
        {one.whose for one in shown if one.whose and one.receipt.verified and proof in one.receipt.verified.proofs}
    )


def _figures(opened: Opened) -> list[Shown]:
    manifest = opened.manifest
    rows = [
        Shown(
            quality.figure_title(one.name),
            render.share(one.value),
            render.share(one.least) if one.least else "",
            str(one.queries),
            bar([one.value], PPM, [one.least] if one.least else []),
        )
        for one in manifest.quality
        if not quality.is_baseline(one.name)
    ]
    rows += [
        Shown(quality.figure_title(one.name), "UNPROVEN", render.share(one.least), "to be probed aboard", None)
        for one in manifest.unproven
    ]
    lacking = quality.without_recall(manifest.quality, opened.table)
    return rows + [Shown(f"recall of {set_}", "not measured", "", "", None) for set_ in lacking]


def _key(root: TrustRoot, kid: bytes) -> Key:
    return Key(kid.hex(), root.name_of(kid))


def _roots(repository: Repository) -> Iterator[Root]:
    """Yield the last trust roots of a store's own chain, the newest first."""
    signed = repository.first_trust_root()
    last = deque([signed.root], maxlen=_ROOTS)
    for version in repository.evidence.root_versions()[1:]:
        signed = advance(signed, [repository.evidence.root_file(version)])
        last.append(signed.root)
    for root in reversed(last):
        yield _root(root)


def _root(root: TrustRoot) -> Root:
    roles = [
        (name, root.role(name).threshold, [_key(root, key.kid) for key in root.role(name).keys])
        for name in ROLES
        if root.role(name).keys
    ]
    rules = [("domain", f"{root.domain}, id {root.domain_id.hex()}"), *((a, b) for a, b in rules_of(root) if b)]
    revoked = [_key(root, key.kid) for key in root.revoked]
    return Root(root.version, short_code(root.digest), render.when(root.issued_at), rules, roles, revoked)


def _receipts(asked: Asked, facts: Facts, repository: Repository, mission: str | None) -> None:
    """Fill in the receipts of a mission, or of all: whose, what was done, and the rest as `receipts` prints it."""
    shown = receipts.overview(repository, asked.fleet)
    rows = [
        (one.whose, "verified", *verified_row(one))
        for one in shown.verified
        if mission is None or (one.receipt.verified is not None and one.receipt.verified.mission == mission)
    ]
    if mission is None:
        rows += [(one.whose, "flown", "", *flown_row(one), "") for one in shown.flown]
    facts.unknown_receipts = sum(not row[0] for row in rows)
    facts.receipts = [row for row in rows if row[0]][:LISTED]
    facts.problems += [f"a receipt: {why}" for _, why in shown.refused[:LISTED]]


def store_facts(asked: Asked) -> StorePage:
    """Return the page of a whole store. Raise as `open_store` and the takeoff check do."""
    facts = StorePage(render.when(asked.now), "Store")
    with Repository.open(asked.store) as repository:
        missions = repository.missions()
        if asked.judges:
            for verdict in _verdicts(asked, missions):
                facts.verdicts[verdict.mission_id] = _word(verdict)
                facts.findings += verdict.findings
        # One mission at a time: thousands of entry tables would take all memory.
        shards = Shards()
        for mission in missions:
            opened = None
            with facts.part(f"mission {mission}"):
                opened = repository.current(mission)
                if shards.entries < MOST_COMPARED:
                    shards.add(mission, opened)
                else:
                    facts.ungrouped += 1
            facts.missions.append(_listed(asked, facts, repository, mission, opened))
        with facts.part("the sizes"):
            _totals(facts, repository)
        _groups(facts, shards)
        with facts.part("the growth"):
            _growth(facts, repository)
        with facts.part("the last audit"):
            facts.audit = list(_audit(asked.store, repository))
        with facts.part("the trust roots"):
            facts.roots = list(_roots(repository))
        with facts.part("the receipts"):
            _receipts(asked, facts, repository, None)
    counts = Counter(facts.verdicts.values())
    judged = ", ".join(f"{count} {word}" for word, count in counts.items())
    facts.summary = f"{render.many(len(missions), 'mission')}; " + (judged or "no verdict was asked for: give --trust")
    return facts


def _listed(
    asked: Asked, facts: StorePage, repository: Repository, mission: str, opened: Opened | None
) -> tuple[str, str, str, str]:
    """Return mission, flight, verdict, and whether it may fly, as `ls` says it."""
    verdict = facts.verdicts.get(mission, "not judged")
    if opened is None:
        return mission, "", verdict, "DOES NOT HOLD"
    manifest = opened.manifest
    valid = render.validity_in_short(manifest.issue.valid_from, manifest.issue.expires_at, asked.now)
    if grounding := withdrawn(repository.evidence, opened).findings:
        valid = f"DOES NOT FLY: {grounding[0].message}"
    return mission, manifest.mission.flight, verdict, valid


def _totals(facts: StorePage, repository: Repository) -> None:
    counts = stats(repository)
    most = max((one.bytes for one in counts.missions.values()), default=0)
    facts.sizes = [
        Size(name, one.objects, one.bytes, one.shared_bytes, bar([one.own_bytes, one.shared_bytes], most))
        for name, one in counts.missions.items()
    ]
    facts.totals = [
        ("in the store", f"{render.many(counts.objects, 'object')}, {render.size(counts.bytes)}"),
        (
            "needed by no mission",
            f"{render.many(counts.unreferenced_objects, 'object')}, {render.size(counts.unreferenced_bytes)}",
        ),
        ("dedup ratio", f"{counts.dedup_ratio:.2f}"),
        ("without sharing", render.size(counts.closure_bytes)),
        ("with it", render.size(counts.unique_bytes)),
    ]


@dataclass
class Shards:
    """Which missions have which shards: `holders` and `sizes` by object; of all that were added, `entries`."""

    holders: dict[ObjectId, set[str]] = field(default_factory=dict)
    sizes: dict[ObjectId, int] = field(default_factory=dict)
    entries: int = 0

    def add(self, mission: str, opened: Opened) -> None:
        """Add those of a mission."""
        self.entries += len(opened.table.entries)
        for entry in opened.table.of_kind("descriptors"):
            self.holders.setdefault(entry.id, set()).add(mission)
            self.sizes[entry.id] = entry.size


def _groups(facts: StorePage, shards: Shards) -> None:
    """Fill in which missions share which shards."""
    grouped: dict[frozenset[str], list[int]] = {}
    for id_, names in shards.holders.items():
        counted = grouped.setdefault(frozenset(names), [0, 0])
        counted[0] += 1
        counted[1] += shards.sizes[id_]
    groups = sorted(
        ((count, size, names) for names, (count, size) in grouped.items()), key=lambda one: (-one[1], sorted(one[2]))
    )
    facts.groups, facts.more_groups = groups[:_GROUPS], max(0, len(groups) - _GROUPS)


def _growth(facts: StorePage, repository: Repository) -> None:
    """Fill in how the bytes that missions have ever needed grew, by the log; manifests that are gone are counted."""
    history = LogHistory.of(log.events(repository.media))
    moves = sorted(
        ((move.at, mission, move.manifest) for mission in history.moves for move in history.published(mission)),
        key=lambda move: move[0],
    )[-_GROWTH:]
    seen: set[ObjectId] = set()
    total, points = 0, []
    for at, mission, manifest in moves:
        try:
            closure = repository.opened(manifest, f"the manifest of {mission}").closure()
        except FlightbagError:
            facts.lost += 1
            continue
        more = sum(size for id_, size in closure.items() if id_ not in seen)
        seen |= closure.keys()
        total += more
        points.append((at, total))
        facts.moments.append((render.when(at), mission, render.size(more)))
    facts.growth = steps(points)
    facts.moments = facts.moments[-LISTED:]


def _audit(store: str, repository: Repository) -> Iterator[tuple[str, str]]:
    """Yield what the ledger of this user says of the objects of a store."""
    path = ledger_path(store)
    if not os.path.exists(path):
        yield "audits", "none is recorded by this user on this machine: store-fsck --full"
        return
    times: list[int] = []
    objects = 0
    with Ledger(path) as ledger:
        for first in range(256):
            stamps = {id_: FileStamp.of(status) for id_, status in repository.media.objects(first)}
            objects += len(stamps)
            times += ledger.read_at(first, stamps).values()
    yield "read in full since they were written", f"{len(times)} of {render.many(objects, 'object')}"
    if times:
        yield "the longest ago", render.when(min(times))
        yield "the last", render.when(max(times))
