"""The list of the missing tiles of an area, each with its reason (FORMAT.md 6.5, decision 0012): a value, and bytes.

A missing tile is a tile of the area that the mission does not describe. Tiles are named by their PMTiles ids and held
as runs, because missing tiles mostly lie together: off a coast, or beyond the edge of a source. This module decides for
no tile whether it is missing; `builders.imagery` does.

Law: `MissingList.parse(m.render()) == m`, and only canonical bytes of a valid list parse.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from store.errors import Corrupt, Invalid
from store.format.cbor import decode, encode
from store.format.manifest import MAX_ZOOM
from store.values import dataclass

LIST_LIMIT = 16 * 2**20
# The name of the entry that holds the list: the only entry of its kind.
ENTRY = "coverage/missing.cbor"
# In this order: a tile has the first reason that applies.
REASONS = (
    "outside-zooms",  # no source has the zoom of the tile
    "absent",  # no source has the tile
    "outside-raster",  # a raster is the source, and no pixel of the tile lies in it
    "partly-outside",  # a raster is the source, and some pixels of the tile lie beyond its edge
    "masked",  # a raster is the source, and some pixels of the tile are masked, without data or never written
    "repeated",  # another tile of the area shows the same: a placeholder shows no place
    "undecodable",  # the bytes do not decode to an image
    "wrong-size",  # the image has another size than the tiles of the mission
    "transparent",  # some pixel is not opaque: its colour is no imagery
    "blank",  # every pixel has the same colour: the tile shows no place
    "too-old",  # the imagery is older than the mission allows
    "too-coarse",  # the imagery has a coarser ground resolution than the mission demands
    "no-view",  # no view of some descriptor set shows the tile whole, because a neighbour is missing
)
# The number of tiles of all zooms together: every id is below it.
_IDS = ((1 << (2 * (MAX_ZOOM + 1))) - 1) // 3


class Run(NamedTuple):
    """`tiles` missing tiles with the ids `first`, `first` + 1, …, all for the same reason."""

    first: int
    tiles: int
    reason: str


@dataclass(frozen=True, slots=True)
class MissingList:
    """Runs, ascending and as long as possible: two adjacent runs have different reasons.

    Raises Invalid for runs that break the rule.
    """

    runs: tuple[Run, ...]

    def __post_init__(self) -> None:
        end, last_reason = -1, ""
        for first, tiles, reason in self.runs:
            if reason not in REASONS:
                raise Invalid(f"{reason!r} is not a reason of the list of missing tiles", reason=reason)
            if tiles < 1 or first < max(end, 0) or first + tiles > _IDS or (first == end and reason == last_reason):
                raise Invalid(
                    f"the run of {tiles} missing tiles from id {first} is out of range or out of order", first=first
                )
            end, last_reason = first + tiles, reason

    @property
    def total(self) -> int:
        """The number of missing tiles."""
        return sum(run.tiles for run in self.runs)

    @property
    def by_reason(self) -> dict[str, int]:
        """The number of missing tiles by reason; reasons without tiles are left out."""
        tiles = {reason: sum(run.tiles for run in self.runs if run.reason == reason) for reason in REASONS}
        return {reason: count for reason, count in tiles.items() if count}

    def render(self) -> bytes:
        """Return the canonical bytes. Raises Invalid for more than LIST_LIMIT bytes."""
        data = encode([list(run) for run in self.runs])
        if len(data) > LIST_LIMIT:
            raise Invalid(
                f"the list of missing tiles would have {len(data)} bytes, at most {LIST_LIMIT} are allowed",
                remedy="cut the area off where the sources end",
            )
        return data

    @classmethod
    def parse(cls, data: bytes) -> MissingList:
        """Return the list of canonical bytes; raises Corrupt for any other bytes."""
        value = decode(data, limit=LIST_LIMIT, what="the list of missing tiles")
        if type(value) is not list:
            raise Corrupt("the list of missing tiles is not an array", kind="bad-field", field="missing")
        try:
            return cls(tuple(_run(item) for item in value))
        except Invalid as error:
            raise Corrupt(error.message, kind="bad-field", field="missing") from error


def _run(item: Any) -> Run:
    if type(item) is not list or [type(part) for part in item] != [int, int, str]:
        raise Invalid("a run of missing tiles is not [first id, number, reason]")
    first, tiles, reason = item
    return Run(first, tiles, reason)
