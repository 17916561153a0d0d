"""The report of a build, as one value: its outcome, artifacts, coverage and figures, for people and for machines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from builders.engines.card import Card
from builders.grid.tiles import MAX_AREA_TILES, tile_from_id
from builders.imagery.coverage import FAULTS, Gates, Shortfall
from builders.imagery.repetition import Repeats
from store.errors import FlightbagError, Invalid
from store.format.entries import Entry
from store.format.manifest import PPM, Figure, Unproven
from store.format.missing import MissingList, Run
from store.takeoff.quality import AGAINST, Training, figure_title, recall_rows, trainings

if TYPE_CHECKING:
    from typing_extensions import Self

Action = Literal["built", "reused"]

# How many of the largest artifacts a refusal names.
_LARGEST = 5
# What to do where an engine takes places of its own map for one another.
_CONFUSES = (
    'set precision = "fp32" (TensorRT: or "fp16"), try another calibration (method = "percentile", or more tiles), or '
    "allow less in [tolerances] self_retrieval"
)


@dataclass(frozen=True, slots=True)
class ArtifactReport:
    """One entry: built now or reused. `seconds` is None when reused, `key` empty where the kind has no build key."""

    name: str
    action: Action
    id: str
    key: str
    bytes: int
    seconds: float | None = None
    figures: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure that gates a build: parts per million, rounded down, the least that is asked for, the number of queries
    that it rests on, and the digest of the recipe that measured it. `missed` says of single queries, for people, what
    became of them. `chance` is what answers in a random order would reach, None where that says nothing or was not
    counted. `engine` is the entry of the engine that was asked, "" where nobody says."""

    name: str
    value: int
    least: int
    queries: int
    recipe: bytes
    missed: tuple[str, ...] = ()
    chance: int | None = None
    engine: str = ""

    @classmethod
    def signed(cls, figure: Figure) -> Self:
        """Return a figure of a manifest."""
        return cls(figure.name, figure.value, figure.least, figure.queries, figure.recipe)

    @property
    def holds(self) -> bool:
        return self.value >= self.least

    def figure(self) -> Figure:
        """As the manifest has it."""
        return Figure(self.name, self.value, self.least, self.queries, self.recipe)


@dataclass(frozen=True, slots=True)
class Missing:
    """A tile of the area that is not described, and why (FORMAT.md 6.5)."""

    tile_id: int
    reason: str
    detail: str = ""

    @property
    def tile(self) -> str:
        """z/x/y."""
        return str(tile_from_id(self.tile_id))


@dataclass(frozen=True, slots=True)
class MissingTiles:
    """The missing tiles of an area, ascending, as runs (FORMAT.md 6.5); `details` say, by tile id, what is wrong with
    the bytes of bad tiles. Raise Invalid for runs that break their rule, and for more tiles than an area may have."""

    runs: tuple[Run, ...] = ()
    details: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if MissingList(self.runs).total > MAX_AREA_TILES:
            raise Invalid(f"more than {MAX_AREA_TILES} tiles are missing")

    @classmethod
    def of(cls, shortfall: Shortfall, details: Mapping[int, str]) -> Self:
        """Return what an area lacks; of the details those of tiles that are missing for their bytes."""
        bad = {number for number, reason in shortfall.reasons().items() if reason in FAULTS} if details else set()
        return cls(shortfall.as_list().runs, {number: text for number, text in details.items() if number in bad})

    def __iter__(self) -> Iterator[Missing]:
        for first, tiles, reason in self.runs:
            for number in range(first, first + tiles):
                yield Missing(number, reason, self.details.get(number, "") if reason in FAULTS else "")

    def __len__(self) -> int:
        return sum(run.tiles for run in self.runs)

    def as_json(self) -> list[dict[str, str]]:
        return [{"tile": one.tile, "reason": one.reason, "detail": one.detail} for one in self]


@dataclass(frozen=True, slots=True)
class CoverageReport:
    """The tiles of the area: how many there are, described, and each that is missing. `repeated` is in short which of
    them have the bytes of another one; whether these are missing is the policy's. `hints` say what is perhaps wrong
    with the sources."""

    tiles: int
    described: int
    missing: MissingTiles
    by_zoom: dict[int, int]
    repeated: Repeats
    hints: tuple[str, ...] = ()

    @classmethod
    def of(cls, shortfall: Shortfall, details: Mapping[int, str]) -> Self:
        """Return the coverage of an area; `details` say, by tile id, what is wrong with the bytes of bad tiles."""
        missing = MissingTiles.of(shortfall, {**shortfall.inventory.no_image, **details})
        total = shortfall.inventory.tiles
        by_zoom = {level.zoom: len(level.required) for level in shortfall.inventory.levels}
        repeats = shortfall.inventory.repetition.summary()
        return cls(
            total,
            total - len(missing),
            missing,
            by_zoom,
            repeats,
            (*shortfall.inventory.gaps, *shortfall.inventory.hints),
        )


@dataclass(frozen=True, slots=True)
class CacheReport:
    """What a shared cache was asked and gave: of `asked` keys that the store lacked, `hits` (by a plan: records alone);
    what was refused, by kind, and why, of the first few; `bytes` that came; what was pushed, and how much could not be.
    `down` is why no more was asked of it, "" where it answered."""

    place: str
    asked: int
    hits: int
    refused: dict[str, int]
    bytes: int
    pushed: int
    pushed_bytes: int
    unpushed: int
    reasons: tuple[str, ...]
    down: str

    @property
    def misses(self) -> int:
        """The keys that the cache did not help with."""
        return self.asked - self.hits

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "misses": self.misses, "down": self.down or None}


@dataclass(frozen=True, slots=True)
class PlanRow:
    """The line of a task in a plan: `key` is "" for a kind without build keys, `bytes` None where the size is not known
    yet, `tiles` the number of tiles that a shard shows; `outside` the path of a file that is stored from outside the
    folder of the mission file, "" for all else; `detail` is for people, where no size is known; `hosts` are the classes
    that an engine is for; `cached` is whether a shared cache has a record of it."""

    name: str
    key: str
    present: bool
    bytes: int | None
    tiles: int | None = None
    detail: str = ""
    outside: str = ""
    hosts: tuple[str, ...] = ()
    cached: bool = False

    def as_json(self) -> dict[str, Any]:
        value = asdict(self)
        del value["detail"]
        return value


@dataclass(frozen=True, slots=True)
class PlanReport:
    """What a build would make, what the store has of it, and the tiles that the area lacks as far as the sources show.
    `enough` is whether the policy allows that. `repeated` and `hints` as in `CoverageReport`; `not_measured` says which
    figures a build would not measure, and why; `notes` what was passed over in the files of the area and the takeoff.
    `valid_from` and `expires_at` are those of a manifest that is issued now, as in `BuildReport`."""

    mission: str
    flight: str
    hosts: tuple[str, ...]
    valid_from: int | None
    expires_at: int | None
    tiles: int
    missing: MissingTiles
    enough: bool
    repeated: Repeats
    hints: tuple[str, ...]
    artifacts: tuple[PlanRow, ...]
    not_measured: tuple[str, ...]
    notes: tuple[str, ...] = ()
    cache: CacheReport | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the plan for machines: each artifact present or missing, sizes in bytes where they are known."""
        return {
            "mission": self.mission,
            "hosts": list(self.hosts),
            "valid_from": self.valid_from,
            "expires_at": self.expires_at,
            "tiles": self.tiles,
            "missing": self.missing.as_json(),
            "repeated": asdict(self.repeated),
            "hints": list(self.hints),
            "artifacts": [row.as_json() for row in self.artifacts],
            "not_measured": list(self.not_measured),
            "notes": list(self.notes),
            "cache": None if self.cache is None else self.cache.as_json(),
        }


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node of a cluster: its name and address, the CPUs and GPUs that it lends. `why` says why it runs no units, ""
    where it does; the rest is empty where it did not answer: its host class, providers, backends (name: version, or why
    it cannot be used) and versions."""

    name: str
    address: str
    cpus: int
    gpus: int
    why: str
    host: str = ""
    providers: tuple[str, ...] = ()
    backends: tuple[tuple[str, str], ...] = ()
    flightbag: str = ""
    python: str = ""

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "backends": dict(self.backends)}


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The outcome: `built` (published), `unchanged` (nothing to do), `draft` (nothing published yet: it lacks what
    `why` says) or `failed` (nothing published; `why`). `unproven` are the figures that each aircraft has to prove;
    `not_measured` says which figures it lacks, and why; `notes` what was passed over in the files of the area and the
    takeoff. `rows` are those of all shards, `embedded` of these the ones that were described now. `signing_code` is
    that of the manifest or the draft (FORMAT.md 10.3). `valid_from` and `expires_at` are those of the manifest or the
    draft, in unix seconds; None where it is valid at once, or for ever."""

    outcome: Literal["built", "unchanged", "draft", "failed"]
    mission: str
    coverage: CoverageReport
    manifest: str = ""
    sequence: int = 0
    signing_code: str = ""
    valid_from: int | None = None
    expires_at: int | None = None
    artifacts: tuple[ArtifactReport, ...] = ()
    figures: tuple[Measured, ...] = ()
    unproven: tuple[Unproven, ...] = ()
    not_measured: tuple[str, ...] = ()
    rows: int = 0
    embedded: int = 0
    seconds: float = 0.0
    why: str = ""
    notes: tuple[str, ...] = ()
    cache: CacheReport | None = None

    def of(self, action: Action) -> tuple[ArtifactReport, ...]:
        """The artifacts that were built, or those that were reused."""
        return tuple(artifact for artifact in self.artifacts if artifact.action == action)

    @property
    def saved_bytes(self) -> int:
        """Bytes that the store had already and that were not built again."""
        return sum(artifact.bytes for artifact in self.of("reused"))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What its figures do not show, though it would be expected of them."""
        return tuple(untrained_warning(one) for one in trainings(self.figures) if not one.shows)

    def as_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["coverage"]["missing"] = self.coverage.missing.as_json()
        value["figures"] = [{**one, "recipe": one["recipe"].hex()} for one in value["figures"]]
        value["unproven"] = [{**one, "recipe": one["recipe"].hex()} for one in value["unproven"]]
        value["manifest"] = self.manifest or None
        value["saved_bytes"] = self.saved_bytes
        value["cache"] = None if self.cache is None else self.cache.as_json()
        return value


@dataclass(frozen=True, slots=True)
class Views:
    """How many views of a map are new, changed and gone; of `unknown` more this station cannot say which changed."""

    new: int = 0
    changed: int = 0
    gone: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which a mission file as it is now differs from a manifest.

    `kind` is that of an artifact (engine, descriptors, probe, index, file), or mission, hosts, coverage, quality,
    unproven, releases, validity, withdrawn, limits, store or other. `name` is an entry, of descriptors the set and the
    zoom, or "". `change` is `new`, `changed`, `gone`, `lost` (the store lacks it), `refused` (a build refuses it) or
    `due` (time has passed). `fields` are what differs in a build key, the mission, its tiles or its validity, as far as
    the store has it. `cells` and `views` count those of a map. `detail` says more, for people.
    """

    kind: str
    name: str
    change: str
    fields: tuple[str, ...] = ()
    detail: str = ""
    cells: int = 0
    views: Views | None = None


@dataclass(frozen=True, slots=True)
class EngineState:
    """An engine that the store lacks and that is made elsewhere, or that nobody has measured: its backbone, build key
    and `state`: `to order` (this machine does not make it, and there is no order), `ordered`, or `result` (a device has
    sent a result, which nobody has accepted)."""

    backbone: str
    key: str
    state: Literal["to order", "ordered", "result"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A mission file as it is now beside what a store has of the mission. `differences` are those from the published
    manifest, one of kind `mission` and change `new` where nothing is published; `draft` those from the draft, None
    where there is none. `missing` is how many of the `artifacts` a build would make. `refused` are things that a build
    would refuse."""

    differences: tuple[Difference, ...]
    draft: tuple[Difference, ...] | None
    refused: tuple[Difference, ...]
    engines: tuple[EngineState, ...]
    artifacts: int
    missing: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OrderReport:
    """An engine of a mission file: its backbone, name, build key and need, what became of its order (`ordered`,
    `already ordered`, `not needed`), and why it is ordered."""

    backbone: str
    name: str
    key: str
    need: str
    outcome: str
    why: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class EngineReport:
    """One engine of a build of engines: `action` is `built`, `reused` or `failed`, then with `error`; `bytes` of the
    engine and its weights; `seconds` where it was built now."""

    backbone: str
    entry: str
    key: str
    action: str
    bytes: int = 0
    seconds: float | None = None
    card: Card | None = None
    error: FlightbagError | None = None

    def as_json(self) -> dict[str, Any]:
        error = self.error
        return {
            "backbone": self.backbone,
            "entry": self.entry,
            "key": self.key,
            "action": self.action,
            "bytes": self.bytes,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "card": None if self.card is None else self.card.as_json(),
            "error": None
            if error is None
            else {
                "kind": error.kind or None,
                "message": error.message,
                "remedy": error.remedy,
                "log": error.fields.get("log"),
            },
        }


def rows_of(
    entries: Iterable[Entry], seconds: float | None = None, figures: dict[str, float] | None = None
) -> list[ArtifactReport]:
    """Return a row for each entry of an artifact, which was built in so many seconds, or which the store had."""
    return [_row(entry, seconds, figures) for entry in entries]


def _row(entry: Entry, seconds: float | None, figures: dict[str, float] | None) -> ArtifactReport:
    key = str(entry.key) if entry.key else ""
    action: Action = "reused" if seconds is None else "built"
    rounded = None if seconds is None else round(seconds, 3)
    return ArtifactReport(entry.name, action, str(entry.id), key, entry.size, rounded, figures)


def too_few_tiles(missing: Shortfall, gates: Gates) -> str:
    """Return why a mission that lacks these tiles is refused."""
    tiles = missing.inventory.tiles
    why = f"{missing.missing} of {tiles} tiles of the area are missing"
    if gates.required_ppm < PPM:
        why += f"; coverage.at_least allows {tiles * (PPM - gates.required_ppm) // PPM}"
    return why


def too_large(sizes: Iterable[tuple[str, int]], limit: int, *, complete: bool) -> str:
    """Return why a mission of these parts (name, bytes) is refused; "" where they fit `limit` bytes. Unless `complete`,
    more parts will come."""
    parts = list(sizes)
    total = sum(size for _, size in parts)
    if total <= limit:
        return ""
    room = ", ".join(f"{name} {size}" for name, size in sorted(parts, key=lambda part: (-part[1], part[0]))[:_LARGEST])
    least = "" if complete else "at least "
    return f"the mission has {least}{total} bytes; limits.max_bytes allows {limit}; the largest parts are {room}"


def too_low(figures: Iterable[Measured]) -> str:
    """Return why a mission with these figures is refused, a line for each reason; "" where all of them hold, and every
    map finds something."""
    figures = tuple(figures)
    names = Counter(one.name for one in figures)
    low: list[str] = []
    for one in figures:
        if not one.holds:
            title = figure_title(one.name) + (f" ({one.engine})" if names[one.name] > 1 else "")
            low.append(f"{title} is {one.value / PPM:g}, at least {one.least / PPM:g} is required")
            low += (*one.missed, *([_CONFUSES] if one.name.startswith("self@") else []))
    low += [
        f"the map of the descriptor set {set_} finds nothing: recall at 1 is {value / PPM:.4f} of {queries} queries, "
        f"and chance alone gives {chance / PPM:.4f}"
        for set_, value, chance, queries in _blind(figures)
    ]
    return "\n".join(low)


def _blind(figures: Sequence[Measured]) -> Iterator[tuple[str, int, int, int]]:
    """Yield (set, recall at 1, chance, queries) of each set that answers its perturbed views no better than chance, by
    two standard errors. Imagery of another source is left out: a good map may fail on that."""
    chances = {one.name: one.chance for one in figures}
    by_set: dict[str, list[tuple[int, int, int]]] = {}
    for row in recall_rows(figures):
        by_chance = chances[f"recall@1/{row.set}/{row.way}"]
        if row.way != AGAINST and by_chance is not None:
            by_set.setdefault(row.set, []).append((row.queries, row.whole, by_chance))
    for set_, rows in by_set.items():
        queries = sum(count for count, _, _ in rows)
        value, chance = (sum(row[0] * row[column] for row in rows) // queries for column in (1, 2))
        share = chance / PPM
        if value / PPM <= share + 2 * math.sqrt(share * (1 - share) / queries):
            yield set_, value, chance, queries


def untrained_warning(training: Training) -> str:
    """Return what to say of a backbone that is not clearly better than itself untrained."""
    return (
        f"nothing shows that the backbone of {training.set} is trained for this: among the sampled views it answers "
        f"{training.trained / PPM:.4f} right, the same network with random weights {training.untrained / PPM:.4f}, of "
        f"{training.queries} queries"
    )
