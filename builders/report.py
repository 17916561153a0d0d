"""What a build has to say, as one value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from builders.grid.tiles import tile_from_id
from store.format.manifest import Figure

Action = Literal["built", "reused"]


@dataclass(frozen=True, slots=True)
class Artifact:
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
    """A figure that gates a build: parts per million, rounded down, the least that is asked for, and the digest of the
    recipe that measured it."""

    name: str
    value: int
    least: int
    recipe: bytes

    @property
    def holds(self) -> bool:
        return self.value >= self.least

    def figure(self) -> Figure:
        """As the manifest has it."""
        return Figure(self.name, self.value, self.least, self.recipe)


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
class CoverageReport:
    """The tiles of the area: how many there are, described, and each that is missing."""

    tiles: int
    described: int
    missing: tuple[Missing, ...]
    by_zoom: dict[int, int]


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The outcome: `built` (published), `unchanged` (nothing to do), `draft` (nothing published yet: it lacks what
    `why` says) or `failed` (nothing published; `why`). `rows` are those of all shards, `embedded` of these the ones
    that were described now."""

    outcome: Literal["built", "unchanged", "draft", "failed"]
    mission: str
    coverage: CoverageReport
    manifest: str = ""
    sequence: int = 0
    artifacts: tuple[Artifact, ...] = ()
    figures: tuple[Measured, ...] = ()
    rows: int = 0
    embedded: int = 0
    seconds: float = 0.0
    why: str = ""

    def of(self, action: Action) -> tuple[Artifact, ...]:
        """The artifacts that were built, or those that were reused."""
        return tuple(artifact for artifact in self.artifacts if artifact.action == action)

    @property
    def saved_bytes(self) -> int:
        """Bytes that the store had already and that were not built again."""
        return sum(artifact.bytes for artifact in self.of("reused"))

    def as_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["coverage"]["missing"] = [
            {"tile": tile.tile, "reason": tile.reason, "detail": tile.detail} for tile in self.coverage.missing
        ]
        value["figures"] = [{**one, "recipe": one["recipe"].hex()} for one in value["figures"]]
        value["manifest"] = self.manifest or None
        value["saved_bytes"] = self.saved_bytes
        return value
