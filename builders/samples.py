"""Imagery of a mission for people to look at: a strip of described tiles, and what a query found.

The tiles come from the sources, since a store has none, and only if these are the tiles that the mission was built
from. They are decoded in the confined process; what crosses are pixels, which nobody has to parse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.activity import doing
from builders.atlas import SAMPLE_SIDE, SAMPLES, described
from builders.descriptors.decoding import BadTile, tile_pixels
from builders.grid.tiles import Tile, tile_from_id, tile_id
from builders.grid.views import View
from builders.imagery.inventory import Inventory, TileSources
from builders.imagery.roworder import SourcePath
from builders.onboard.flying import recipe_of
from builders.operator_check import tiles_of
from builders.retrieval.pictures import pictures, spread
from store.errors import Refused
from store.takeoff.coverage import read_missing
from store.takeoff.mission import Evidence, Opened, VerifiedMission


def samples(evidence: Evidence, opened: Opened, sources: Sequence[SourcePath]) -> list[tuple[int, bytes]]:
    """Return the ids of described tiles at the highest zoom that has some, evenly spread, each with SAMPLE_SIDE
    rows of SAMPLE_SIDE pixels of three bytes.

    Raise Refused (kind other-tiles) for sources with other tiles than the mission was built from.
    """
    area, listed = opened.manifest.mission.area, read_missing(opened, evidence)
    strip: list[tuple[int, bytes]] = []
    with _own_tiles(evidence, opened, sources) as (open_sources, inventory, tile_size):
        for zoom in reversed(opened.manifest.coverage.zooms):
            chosen = spread(described(area, zoom, listed), SAMPLES)
            if not len(chosen):
                continue
            for number, data in open_sources.read_again(inventory.level(zoom), chosen):
                with doing("decoding tile", number), suppress(BadTile):  # another decoder than that of the build
                    small = Image.fromarray(tile_pixels(data, tile_size)).resize((SAMPLE_SIDE, SAMPLE_SIDE))
                    strip.append((number, np.asarray(small, np.uint8).tobytes()))
            break
    return sorted(strip)


def views(
    mission: VerifiedMission, set_: str, origins: Sequence[Tile], sources: Sequence[SourcePath]
) -> dict[Tile, NDArray[np.uint8]]:
    """Return uint8[s, s, 3] of the rows of a descriptor set with these north-western tiles. Raise as `samples` does."""
    found: dict[Tile, NDArray[np.uint8]] = {}
    with _own_tiles(mission.evidence, mission, sources) as (open_sources, inventory, tile_size):
        for zoom in {tile.z for tile in origins}:
            ids = np.array(sorted(tile_id(tile) for tile in origins if tile.z == zoom), np.uint64)
            view = View(*recipe_of(mission, set_, zoom).view)
            for number, pixels in pictures(open_sources, inventory.level(zoom), view, tile_size, ids, 0):
                found[tile_from_id(number)] = pixels
    return found


@contextmanager
def _own_tiles(
    evidence: Evidence, opened: Opened | VerifiedMission, sources: Sequence[SourcePath]
) -> Iterator[tuple[TileSources, Inventory, int]]:
    """Yield what `tiles_of` does. Raise Refused (kind other-tiles) unless it is what the mission was built from."""
    with tiles_of(evidence, opened, sources) as (open_sources, inventory, tile_size):
        if inventory.digest != opened.manifest.coverage.digest:
            raise Refused(
                f"the tiles of the area are not the ones that mission {opened.manifest.mission.id} was built from",
                remedy="give the sources that it was built from, in the same order",
                kind="other-tiles",
            )
        yield open_sources, inventory, tile_size
