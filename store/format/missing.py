"""The list of the tiles of an area that a mission does not describe, each with its reason: as a value, and as canonical
bytes (FORMAT.md 6.5).

Tiles are named by their PMTiles ids and held as runs, since what is missing is mostly a coast or the edge of a source.

Law: `MissingList.parse(m.render()) == m`, and only canonical bytes of a valid list parse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from store.errors import Corrupt, Invalid
from store.format.cbor import decode, encode
from store.format.manifest import MAX_ZOOM

LIST_LIMIT = 16 * 2**20
# The entry that holds the list, and there is no other of its kind.
ENTRY = "coverage/missing.cbor"
REASONS = (
    "absent",  # no source has it
    "blank",  # every pixel has one colour: it shows no place
    "no-view",  # no view of some descriptor set shows it whole, because a neighbour is missing
    "outside-zooms",  # no source has its zoom at all
    "too-coarse",  # its imagery has a coarser ground resolution than the mission demands
    "too-old",  # its imagery is older than the mission allows
    "undecodable",  # no image could be made of its bytes
    "wrong-size",  # its image has another size than the tiles of the mission
)
# The number of tiles of all zooms: ids are below it.
_IDS = ((1 << (2 * (MAX_ZOOM + 1))) - 1) // 3


class Run(NamedTuple):
    """`tiles` tiles with the ids `first`, `first` + 1, …, all missing for one reason."""

    first: int
    tiles: int
    reason: str


@dataclass(frozen=True, slots=True)
class MissingList:
    """Runs, ascending, as long as they can be: no two that touch have the same reason. Raises Invalid otherwise."""

    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        end, before = -1, ""
        for first, tiles, reason in self.runs:
            if reason not in REASONS:
                raise Invalid(f"{reason!r} is no reason for a tile to be missing", reason=reason)
            if tiles < 1 or first < max(end, 0) or first + tiles > _IDS or (first == end and reason == before):
                raise Invalid(f"the run of {tiles} missing tiles from {first} is out of place", first=first)
            end, before = first + tiles, reason

    @property
    def total(self) -> int:
        """How many tiles are missing."""
        return sum(run.tiles for run in self.runs)

    @property
    def by_reason(self) -> dict[str, int]:
        """Reason -> how many tiles are missing for it, of those that any is."""
        tiles = {reason: sum(run.tiles for run in self.runs if run.reason == reason) for reason in REASONS}
        return {reason: count for reason, count in tiles.items() if count}

    def render(self) -> bytes:
        """The canonical bytes. Raises Invalid above the limit of the format."""
        data = encode([list(run) for run in self.runs])
        if len(data) > LIST_LIMIT:
            raise Invalid(
                f"the list of missing tiles would have {len(data)} bytes, at most {LIST_LIMIT} are allowed",
                remedy="cut the area where the sources end",
            )
        return data

    @classmethod
    def parse(cls, data: bytes) -> MissingList:
        """The list of canonical bytes; raises Corrupt for any other."""
        value = decode(data, limit=LIST_LIMIT, what="the list of missing tiles")
        if type(value) is not list:
            raise Corrupt("the list of missing tiles is no array", kind="bad-field", field="missing")
        try:
            return cls(tuple(_run(item) for item in value))
        except Invalid as error:
            raise Corrupt(error.message, kind="bad-field", field="missing") from error


def _run(item: Any) -> Run:
    if type(item) is not list or [type(part) for part in item] != [int, int, str]:
        raise Invalid("a run of missing tiles is [first, number, reason]")
    first, tiles, reason = item
    return Run(first, tiles, reason)
