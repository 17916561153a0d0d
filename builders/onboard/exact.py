"""The rows nearest to a query by the angle between them: exact, and in bounded memory whatever the number of rows.

Rows are gathered into pieces. A product in float32 selects the rows of a piece that may be among the best. Only these
are scored again, in float64 and each by itself, and merged into the best so far.

Law: the answer is that of a brute force in float64, with scores rounded to float32 and equal scores ordered by id. It
depends on the rows only: not on their order, the cut into blocks, the other queries, or the BLAS. The search needs the
time of one product, unless very many rows are as near as the best.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from store.errors import Corrupt, Invalid

# (ids [n], rows [n, d]).
RowBlock: TypeAlias = tuple[NDArray[np.uint64], NDArray[np.float16] | NDArray[np.float32]]

# Stands for the id of a row where the map has fewer rows than were asked for; no tile has this id.
NO_ROW = 2**64 - 1
MAX_TOP = 1000

_PIECE_ROWS = 8192
_PIECE_BYTES = 16 << 20
# Rows that are widened together stay in the cache of a core.
_STRIP_BYTES = 256 << 10
_RESCORED_BYTES = 4 << 20
_QUERIES = 256
# Bounds of the square of a row's length: between them, sums in float32 neither overflow nor lose small numbers. A row
# with an infinity or NaN of float16 is above the upper one, because `_widen` makes 2**16 and more of these.
_LOW, _HIGH = np.float32(2.0**-60), np.float32(2.0**31)


def search(
    blocks: Iterable[RowBlock],
    queries: NDArray[np.float32],
    top: int,
    keep: Callable[[NDArray[np.uint64]], NDArray[np.bool_]] | None = None,
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Return (ids uint64 [q, top], cosines float32 [q, top]) of the rows nearest to each query, float32 [q, d], the
    nearest first.

    `keep` maps ids uint64[n] to bool[n]: the rows to search; None stands for all. With fewer than `top` rows to search,
    NO_ROW and -inf follow. Neither rows nor queries need length 1. Raises Invalid for wrong shapes or types, a query
    that is zero or not finite, and `top` outside 1..1000; Corrupt for a searched row that is zero or not finite.
    """
    if not 1 <= top <= MAX_TOP:
        raise Invalid(f"a search returns 1 to {MAX_TOP} rows, not {top}", remedy=f"ask for 1 to {MAX_TOP}", top=top)
    units = _units(queries)
    piece = _Piece(units.shape[1])
    best = _Best(units, top)
    for ids, rows in _strips(blocks, units.shape[1], keep):
        start = 0
        while start < len(ids):
            start += piece.add(ids[start:], rows[start:])
            if piece.full:
                best.offer(piece)
                piece.count = 0
    best.offer(piece)
    return best.ids, best.scores


class _Piece:
    """Rows gathered for one product: `count` of them, as float32, each times a power of two where sums need it to stay
    in range; `norms` are their lengths."""

    def __init__(self, dim: int) -> None:
        capacity = max(1, min(_PIECE_ROWS, _PIECE_BYTES // (4 * dim)))
        self.count = 0
        self.ids = np.empty(capacity, np.uint64)
        self.rows = np.empty((capacity, dim), np.float32)
        self.norms = np.empty(capacity, np.float32)

    @property
    def full(self) -> bool:
        return self.count == len(self.ids)

    def add(self, ids: NDArray[np.uint64], rows: NDArray[np.float16] | NDArray[np.float32]) -> int:
        """Add the first rows, as many as have room; return their number. Raises Corrupt as `search` does."""
        number = min(len(ids), len(self.ids) - self.count)
        place = slice(self.count, self.count + number)
        ids, rows, out = ids[:number], rows[:number], self.rows[place]
        with np.errstate(over="ignore", invalid="ignore"):
            _widen(rows, out)
            squares = np.vecdot(out, out)
        odd = np.flatnonzero(~((squares >= _LOW) & (squares <= _HIGH)))
        if len(odd):
            out[odd] = _levelled(ids[odd], rows[odd])
            squares[odd] = np.vecdot(out[odd], out[odd])
        self.ids[place] = ids
        np.sqrt(squares, out=self.norms[place])
        self.count += number
        return number


class _Best:
    """The best rows so far for each query: `ids` uint64 [q, top] and `scores` float32 [q, top], sorted."""

    def __init__(self, units: NDArray[np.float64], top: int) -> None:
        self.ids = np.full((len(units), top), NO_ROW, np.uint64)
        self.scores = np.full((len(units), top), -np.inf, np.float32)
        self._top = top
        self._units = units
        self._rough = units.astype(np.float32)
        # The error of a cosine in float32 is at most 1.5 d + 8 roundings of 2**-24: d of the product, half as many of
        # the norm (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), a few of query, root and quotient. It
        # counts twice, because a row and the row that it is compared with both have it.
        self._slack = np.float32((1.5 * units.shape[1] + 8) * 2.0**-23)

    def offer(self, piece: _Piece) -> None:
        """Merge the rows of a piece that are among the best."""
        for start in range(0, len(self.ids), _QUERIES):
            place = slice(start, start + _QUERIES)
            row, query = self._candidates(piece, place)
            if len(row):
                query += start
                self._merge(query, piece.ids[row], self._scores(piece, row, query))

    def _candidates(self, piece: _Piece, place: slice) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """(row of the piece, query of this place) of all pairs that may be among the best."""
        count = piece.count
        rough = piece.rows[:count] @ self._rough[place].T
        rough /= piece.norms[:count, None]
        likely = rough >= self.scores[place, -1] - self._slack
        crowded = np.flatnonzero(np.count_nonzero(likely, axis=0) > self._top)
        if len(crowded):
            columns = rough[:, crowded]
            likely[:, crowded] &= columns >= np.partition(columns, count - self._top, axis=0)[-self._top] - self._slack
        row, query = np.nonzero(likely)
        return row, query

    def _scores(self, piece: _Piece, row: NDArray[np.intp], query: NDArray[np.intp]) -> NDArray[np.float32]:
        """float32[n]: the cosines of pairs, each computed by itself."""
        scores = np.empty(len(row), np.float32)
        step = max(1, _RESCORED_BYTES // (8 * piece.rows.shape[1]))
        for start in range(0, len(row), step):
            part = slice(start, start + step)
            rows = piece.rows[row[part]].astype(np.float64)
            dots = (rows * self._units[query[part]]).sum(axis=1)
            scores[part] = dots / np.sqrt(np.square(rows, out=rows).sum(axis=1))
        return scores

    def _merge(self, query: NDArray[np.intp], ids: NDArray[np.uint64], scores: NDArray[np.float32]) -> None:
        queries = np.unique(query)
        query = np.concatenate([np.repeat(queries, self._top), query])
        ids = np.concatenate([self.ids[queries].ravel(), ids])
        scores = np.concatenate([self.scores[queries].ravel(), scores])
        order = np.lexsort((ids, -scores, query))
        # Every query has at least `top` rows: its best so far, and the new ones.
        first = np.searchsorted(query[order], queries)
        best = order[first[:, None] + np.arange(self._top)]
        self.ids[queries] = ids[best]
        self.scores[queries] = scores[best]


def _units(queries: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64 [q, d]: the queries at length 1. Raises Invalid as `search` does."""
    if queries.ndim != 2 or queries.dtype != np.float32 or not queries.shape[1]:
        raise Invalid(f"queries are float32 [q, d]; these are {queries.dtype} {list(queries.shape)}")
    wide = queries.astype(np.float64)
    norms = np.sqrt(np.square(wide).sum(axis=1))
    # The length of a finite float32 row is finite in float64, and zero only for the zero row.
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(bad):
        raise Invalid(f"query {bad[0]} has no direction: it is zero or not finite", query=int(bad[0]))
    units: NDArray[np.float64] = wide / norms[:, None]
    return units


def _strips(
    blocks: Iterable[RowBlock], dim: int, keep: Callable[[NDArray[np.uint64]], NDArray[np.bool_]] | None
) -> Iterator[RowBlock]:
    """The rows to search, a strip at a time. Raises Invalid for a block of other shapes or types."""
    step = max(1, _STRIP_BYTES // (4 * dim))
    for ids, rows in blocks:
        fits = ids.ndim == 1 and rows.shape == (len(ids), dim)
        if not fits or ids.dtype != np.uint64 or rows.dtype not in (np.float16, np.float32):
            raise Invalid(
                f"a block is ids uint64 [n] and rows float16 or float32 [n, {dim}]; this is {ids.dtype} "
                f"{list(ids.shape)} and {rows.dtype} {list(rows.shape)}",
                remedy="search with descriptors of the set that the rows are of",
            )
        kept = None
        if keep is not None:
            mask = keep(ids)
            if mask.dtype != np.bool_ or mask.shape != ids.shape:
                raise Invalid(
                    f"`keep` gives {mask.dtype} {list(mask.shape)} for {len(ids)} ids, not bool of that shape"
                )
            # Where all rows are searched, slices avoid the copy.
            kept = None if mask.all() else np.flatnonzero(mask)
        for start in range(0, len(ids) if kept is None else len(kept), step):
            part = slice(start, start + step) if kept is None else kept[start : start + step]
            yield ids[part], rows[part]


def _widen(rows: NDArray[np.float16] | NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write finite rows to `out` as they are; infinities and NaN of float16 become numbers of 2**16 and more.

    numpy converts float16 one by one. A float16 whose bits are moved to the places of float32 is the same number times
    2**-112, subnormal or not, because the exponents are counted from 15 and 127.
    """
    if rows.dtype == np.float32:
        out[...] = rows
        return
    bits = out.view(np.int32)
    bits[...] = rows.view(np.int16)
    np.left_shift(bits, 13, out=bits)
    # The shift left copies of the sign in the four highest bits: keep one.
    np.bitwise_and(bits, np.int32(-0x70002000), out=bits)
    np.multiply(out, np.float32(2.0**112), out=out)


def _levelled(ids: NDArray[np.uint64], rows: NDArray[np.float16] | NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows, each times the power of two that puts its greatest number between a half and one. Raises Corrupt for a
    row that is zero or not finite."""
    wide = rows.astype(np.float64)
    peaks = np.abs(wide).max(axis=1)
    bad = np.flatnonzero(~(np.isfinite(peaks) & (peaks > 0)))
    if len(bad):
        raise Corrupt(
            f"the row of the id {ids[bad[0]]} has no direction: it is zero or not finite",
            remedy="build the map again with a backbone that describes this tile",
            row=int(ids[bad[0]]),
        )
    levelled: NDArray[np.float32] = np.ldexp(wide, -np.frexp(peaks)[1][:, None]).astype(np.float32)
    return levelled
