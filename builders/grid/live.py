"""Live rows: the rows of a map that a search may return (FORMAT.md 6.5, decision 0012). Pure.

The view of a live row shows at least one tile of the area and no missing tile. The ground and the aircraft call these
same functions, so both search the same rows. Knows no image and no tile source.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from builders.grid.views import View
from store.format.missing import MissingList

# How many tile ids of footprints are in memory at the same time.
_FOOTPRINT_IDS = 1 << 22


def find(ids: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Look up ids among others. Return (bool[n], int64[n]): whether each of `wanted`, uint64[n], is among the ascending
    `ids`, and its index there; the index of an absent id means nothing."""
    places = np.searchsorted(ids, wanted).astype(np.int64)
    present = places < len(ids)
    present[present] = ids[places[present]] == wanted[present]
    return present, places


def pieces(side: int, origins: NDArray[np.uint64]) -> Iterator[NDArray[np.uint64]]:
    """Yield the origins in pieces whose footprints fit the memory; each view has `side` by `side` tiles."""
    step = max(1, _FOOTPRINT_IDS // side**2)
    for start in range(0, len(origins), step):
        yield origins[start : start + step]


def is_live(
    zoom: int, view: View, origins: NDArray[np.uint64], required: NDArray[np.uint64], missing: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Return bool[n]: whether the row of each view, by its origin in uint64[n], is live.

    `required` are the tiles of the area and `missing` its missing tiles: uint64, ascending, of the same zoom.
    """
    parts = [np.empty(0, np.bool_)]
    for part in pieces(view.tiles, origins):
        footprint = view.footprint(zoom, part)
        inside, bad = (find(tiles, footprint.ravel())[0].reshape(footprint.shape) for tiles in (required, missing))
        parts.append(np.asarray(inside.any(axis=(1, 2)) & ~bad.any(axis=(1, 2)), np.bool_))
    return np.concatenate(parts)


def live(
    zoom: int, view: View, origins: NDArray[np.uint64], required: NDArray[np.uint64], missing: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """Return uint64[k]: the origins whose rows are live, with the arguments of `is_live`."""
    return origins[is_live(zoom, view, origins, required, missing)]


def missing_at(listed: MissingList, required: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return uint64[k], ascending: the tiles of `required` (ascending, of one zoom) that the list names."""
    missing = np.zeros(len(required), bool)
    for first, tiles, _ in listed.runs:
        start, end = np.searchsorted(required, np.array([first, first + tiles], np.uint64))
        missing[start:end] = True
    return required[missing]
