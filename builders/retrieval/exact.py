"""Exact search: the rows with the greatest cosine to each query, of any number of rows, in bounded memory. Pure NumPy.

Rows come in blocks, as small as the shards are; they are gathered into pieces, made float32 there, and only the best of
each piece are kept. A row's score does not depend on the rows beside it: which answers come, and in which order, is
the same however the rows are cut into blocks, but for rounding in the last bits of a score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from store.errors import Corrupt, Invalid

# (ids [n], rows [n, d]).
Block: TypeAlias = tuple[NDArray[np.uint64], NDArray[np.float16] | NDArray[np.float32]]
MAX_TOP = 1000
# Stands where there are fewer rows than were asked for.
NOBODY = 2**64 - 1
# Of a piece as float32: as much as a core's cache holds, so that it is read from there.
_PIECE_BYTES = 1 << 20
_LEAST_PIECE = 256


def search(
    blocks: Iterable[Block],
    queries: NDArray[np.float32],
    top: int,
    keep: Callable[[NDArray[np.uint64]], NDArray[np.bool_]] | None = None,
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """(ids uint64 [q, top], cosines float32 [q, top]) of the best rows for queries float32 [q, d], the best first.

    Only rows of which `keep` says so count. Of equal scores the lower id is better; where there are fewer rows than
    `top`, NOBODY and -inf follow. Raises Invalid for queries that are none, and Corrupt for a row that is not finite or
    has no direction: nobody who builds a map writes one.
    """
    if queries.ndim != 2 or not queries.size or queries.dtype != np.float32 or not 1 <= top <= MAX_TOP:
        raise Invalid(f"no search: {queries.dtype} queries of shape {queries.shape}, the best {top} of 1 to {MAX_TOP}")
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise Invalid("a query is not finite, or has no direction")
    asked = np.ascontiguousarray((queries / lengths).T)
    best_ids = np.full((len(queries), top), NOBODY, np.uint64)
    best = np.full((len(queries), top), -np.inf, np.float32)
    for ids, rows in _pieces(blocks, queries.shape[1], keep):
        scores = (rows @ asked).T
        # Whatever does not beat the worst of the best so far need not be sorted; an equal one may have a lower id.
        for number in np.flatnonzero((scores >= best[:, -1:]).any(axis=1)).tolist():
            near = np.flatnonzero(scores[number] >= best[number, -1])
            if len(near) > 4 * top:
                least = np.partition(scores[number, near], len(near) - top)[len(near) - top]
                near = near[scores[number, near] >= least]
            both = np.concatenate([best[number], scores[number, near]])
            both_ids = np.concatenate([best_ids[number], ids[near]])
            order = np.lexsort((both_ids, -both))[:top]
            best[number], best_ids[number] = both[order], both_ids[order]
    return best_ids, best


def _pieces(
    blocks: Iterable[Block], dim: int, keep: Callable[[NDArray[np.uint64]], NDArray[np.bool_]] | None
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.float32]]]:
    """The rows that count, float32 and of length 1, in pieces that fill one buffer again and again."""
    size = max(_LEAST_PIECE, _PIECE_BYTES // (4 * dim))
    buffer = np.empty((size, dim), np.float32)
    ids = np.empty(size, np.uint64)
    filled = 0
    for block_ids, rows in blocks:
        if rows.ndim != 2 or rows.shape != (len(block_ids), dim) or rows.dtype not in (np.float16, np.float32):
            raise Invalid(
                f"a block of {len(block_ids)} ids and {rows.dtype} rows {rows.shape} for {dim} numbers a query"
            )
        if keep is not None:
            kept = keep(block_ids)
            if not kept.all():
                block_ids, rows = block_ids[kept], rows[kept]
        start = 0
        while start < len(rows):
            count = min(size - filled, len(rows) - start)
            ids[filled : filled + count] = block_ids[start : start + count]
            buffer[filled : filled + count] = rows[start : start + count]
            filled, start = filled + count, start + count
            if filled == size:
                yield ids, _directions(ids, buffer)
                filled = 0
    if filled:
        yield ids[:filled], _directions(ids[:filled], buffer[:filled])


def _directions(ids: NDArray[np.uint64], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows divided by their lengths, in place."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    wrong = ~(np.isfinite(lengths) & (lengths > 0))
    if wrong.any():
        raise Corrupt(
            f"the row of tile {int(ids[wrong][0])} is not finite, or has no direction",
            kind="bad-shard",
            tile_id=int(ids[wrong][0]),
        )
    rows /= lengths[:, None]
    return rows
