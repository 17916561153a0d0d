"""Approximate search with faiss: indexes as bytes, built from blocks of rows, and opened memory-mapped.

Two kinds. `ivf`: rows in lists around the centroids of a coarse quantiser, which is trained once and kept apart; of
the lists the nearest few are searched. `hnsw`: a graph of near neighbours, which is walked. Both hold rows of length 1
as float16, and the ids of their tiles. Equal rows in equal order give equal bytes, however they are cut into blocks
and whatever the number of threads, for one version and one SIMD level of the library: both are in `version`. Answers
can miss a row that `exact.search` finds; how often depends on the effort.

An index is plain little-endian data: which SIMD level made it matters neither for loading nor for what a row scores,
but for the last bits.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.extras import import_extra
from builders.onboard.exact import MAX_TOP, NO_ROW, RowBlock
from store.errors import Corrupt, Invalid, Unavailable

METHODS = ("ivf", "hnsw")
MAX_DIM = 1 << 16
# A graph's links are signed 32-bit row numbers.
MAX_ROWS = 2**31 - 1
MAX_LISTS = 1 << 16
# nprobe and efSearch.
MAX_EFFORT = 1 << 16
# Before it, a graph's bytes depend on the number of threads.
_OLDEST = (1, 15, 1)
# The library's own bounds: below the first it warns of poor centroids, beyond the second more rows change nothing.
_LEAST_ROWS_A_LIST = 39
_MOST_SAMPLES_A_LIST = 256
# Of the sample as float32; wide rows get fewer samples a list.
_SAMPLE_BYTES = 1 << 30
_ITERATIONS = 10
_SEED = 2026
_LINKS = 16
_EF_CONSTRUCTION = 80
# Of rows that are added at a time, as float32. A graph's bytes depend on it.
_PIECE_BYTES = 1 << 26
# Measured on 60,000 x 288 rows, in 1024 lists: recall@1 of 0.999 and more for 600 clusters; 0.984 and 0.996 for 6000
# that overlap, the hardest of the sets.
_DEFAULT_EFFORT = {"ivf": 64, "hnsw": 128}


def version() -> str:
    """The library's version and the SIMD level that it uses now, such as `faiss-1.15.1+avx512`.

    Raises Unavailable where the library is missing or older than 1.15.1.
    """
    faiss = _faiss()
    return f"faiss-{faiss.__version__}+{faiss.SIMDConfig.get_level_name()}".lower()


def suggested_nlist(rows: int) -> int:
    """How many lists so many rows should have: the power of two nearest to 4 sqrt(rows), at most 65,536, with 39 rows
    or more a list; 1 for a few rows or none. Raises Invalid for a count that is none, or beyond MAX_ROWS."""
    if not 0 <= rows <= MAX_ROWS:
        raise Invalid(f"an index of {rows} rows is not made: 0 to {MAX_ROWS}")
    most = min(MAX_LISTS, rows // _LEAST_ROWS_A_LIST)
    if most < 1:
        return 1
    return 1 << min(round(math.log2(16 * rows) / 2), most.bit_length() - 1)


def train_quantiser(blocks: Callable[[], Iterable[RowBlock]], dim: int, nlist: int) -> bytes:
    """A coarse quantiser of `nlist` centroids of length 1 for rows of `dim` numbers: spherical k-means over a sample.

    `blocks` gives the same rows each time: it is called twice, to count them and to take the sample, evenly strided.
    Of bounded memory: 256 rows a list at most, and 1 GiB. Raises Invalid for fewer rows than lists, and Corrupt for a
    row that is not finite or has no direction.
    """
    faiss = _faiss()
    _check_dim(dim)
    total = sum(len(ids) for ids, _ in blocks())
    if not 1 <= nlist <= min(MAX_LISTS, total):
        raise Invalid(f"{nlist} lists for {total} rows: 1 to {MAX_LISTS}, and no more than rows")
    count = min(total, _MOST_SAMPLES_A_LIST * nlist, max(nlist, _SAMPLE_BYTES // (4 * dim)))
    picks = np.arange(count) * total // count
    sample = np.empty((count, dim), np.float32)
    seen = taken = 0
    for ids, rows in blocks():
        _check_block(ids, rows, dim)
        chosen = picks[taken : np.searchsorted(picks, seen + len(rows))] - seen
        sample[taken : taken + len(chosen)] = _directions(ids[chosen], rows[chosen].astype(np.float32))
        seen, taken = seen + len(rows), taken + len(chosen)
    if seen != total:
        raise Invalid(f"{total} rows when they were counted, {seen} when the sample was taken")
    kmeans = faiss.Clustering(dim, nlist)
    kmeans.niter, kmeans.seed, kmeans.spherical = _ITERATIONS, _SEED, True
    # The sample is of the size it should be: neither a warning about it nor another sample of it.
    kmeans.min_points_per_centroid, kmeans.max_points_per_centroid = 1, count
    # Sums of products depend on how they are cut among threads.
    with _one_thread(faiss):
        quantiser = faiss.IndexFlatIP(dim)
        kmeans.train(sample, quantiser)
    return _bytes(faiss, quantiser)


def build_ivf(quantiser: bytes, blocks: Iterable[RowBlock], dim: int) -> bytes:
    """An index of lists around the centroids of `quantiser`, bytes of `train_quantiser` and verified as such.

    Raises Corrupt for bytes that are no quantiser of `dim` numbers, and as `build_hnsw`.
    """
    faiss = _faiss()
    _check_dim(dim)
    centroids = _quantiser(faiss, quantiser, dim)
    index = faiss.IndexIVFScalarQuantizer(
        centroids, dim, centroids.ntotal, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    # Which list is nearest depends on the last bits of products.
    with _one_thread(faiss):
        _fill(index, blocks, dim)
    return _bytes(faiss, index)


def build_hnsw(blocks: Iterable[RowBlock], dim: int) -> bytes:
    """An index that is a graph of near neighbours.

    Raises Invalid for no rows, too many or too wide ones, and for an id of 2**63 or more; Corrupt for a row that is not
    finite or has no direction.
    """
    faiss = _faiss()
    _check_dim(dim)
    graph = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_fp16, _LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = _EF_CONSTRUCTION
    index = faiss.IndexIDMap(graph)
    _fill(index, blocks, dim)
    return _bytes(faiss, index)


@dataclass(frozen=True, slots=True)
class AnnIndex:
    """An open index of `rows` rows of `dim` numbers. Searches may run at the same time."""

    method: str
    dim: int
    rows: int
    _index: Any
    # Lives as long as the index, which points into it.
    _mapped: NDArray[np.uint8]

    def search(
        self, queries: NDArray[np.float32], top: int, effort: int | None = None
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """(ids uint64 [q, top], cosines float32 [q, top]) of near rows for queries float32 [q, d], the best first.

        `effort` is how many lists are searched, or how many candidates the walk keeps; more finds more and takes
        longer. Of equal cosines the lower id is first, of those that were found; where fewer were found than `top`,
        2**64 - 1 and -inf follow. Cosines are those of rows rounded to float16: 0.001 off at most. Raises Invalid for
        queries that are none.
        """
        effort = _DEFAULT_EFFORT[self.method] if effort is None else effort
        if queries.ndim != 2 or not len(queries) or queries.dtype != np.float32 or queries.shape[1] != self.dim:
            raise Invalid(f"{queries.dtype} queries of shape {queries.shape} for rows of {self.dim} numbers")
        if not (1 <= top <= MAX_TOP and 1 <= effort <= MAX_EFFORT):
            raise Invalid(f"the best {top} of 1 to {MAX_TOP}, with effort {effort} of 1 to {MAX_EFFORT}")
        # In double precision, as the exact search has them: squares of what float32 holds may be more than it holds.
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise Invalid("a query is not finite, or has no direction")
        faiss = _faiss()
        # The library ignores parameters of the other kind.
        if self.method == "ivf":
            how = faiss.SearchParametersIVF(nprobe=effort)
        else:
            how = faiss.SearchParametersHNSW(efSearch=effort)
        scores, found = self._index.search(np.ascontiguousarray(queries / lengths, np.float32), top, params=how)
        ids = found.astype(np.uint64)
        scores[ids == NO_ROW] = -np.inf
        order = np.lexsort((ids, -scores), axis=1)
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def open_index(path: Path, method: str, dim: int, rows: int) -> AnnIndex:
    """The index in a file, mapped and not read: pages come in as a search touches them.

    The caller guarantees that `path` is a private file of verified bytes, which nobody changes while the index is in
    use: the library trusts what it parses, so a stranger's file can corrupt memory. The file may be unlinked once this
    has returned. Raises Corrupt for an index that is not what `method`, `dim` and `rows` say, Unavailable for a file
    that cannot be read, Invalid for arguments that no index has.
    """
    _check_dim(dim)
    if method not in METHODS or not 1 <= rows <= MAX_ROWS:
        raise Invalid(f"no index is {method!r} of {rows} rows", remedy=f"one of {', '.join(METHODS)}")
    faiss = _faiss()
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < rows * dim * 2:
                raise _wrong(path, f"{size} bytes, too few for {rows} rows of {dim} numbers")
            mapped = np.memmap(file, np.uint8, "r")
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    # The library's own mapping (IO_FLAG_MMAP_IFC) does the same, but does not tell where the index ends: of a file that
    # is a few bytes short it would map what is not there.
    reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(mapped), len(mapped))
    try:
        index = faiss.read_index(reader)
    except RuntimeError as error:
        raise _wrong(path, str(error)) from error
    if reader.rp_ != len(mapped):
        raise _wrong(path, f"{len(mapped)} bytes, the index takes {reader.rp_}")
    found = _described(faiss, index)
    if found != (wanted := (method, dim, rows)):
        raise _wrong(path, f"{found} instead of {wanted}")
    return AnnIndex(method, dim, rows, index, mapped)


def _described(faiss: Any, index: Any) -> tuple[str, int, int]:
    """(method, dim, rows) of an index, all of which agree within it; the method is "" for what is none of ours."""
    alike = index.metric_type == faiss.METRIC_INNER_PRODUCT and index.is_trained
    if type(index) is faiss.IndexIVFScalarQuantizer:
        centroids = faiss.downcast_index(index.quantizer)
        alike = (
            alike
            and type(centroids) in (faiss.IndexFlatIP, faiss.IndexFlat)
            and centroids.metric_type == faiss.METRIC_INNER_PRODUCT
            and (centroids.d, centroids.ntotal) == (index.d, index.nlist)
            and (index.sq.qtype, index.sq.d) == (faiss.ScalarQuantizer.QT_fp16, index.d)
            and not index.by_residual
            and index.invlists.compute_ntotal() == index.ntotal
        )
        return "ivf" if alike else "", index.d, index.ntotal
    if type(index) is faiss.IndexIDMap:
        graph = faiss.downcast_index(index.index)
        store = faiss.downcast_index(graph.storage) if type(graph) is faiss.IndexHNSWSQ else None
        alike = (
            alike
            and store is not None
            and graph.metric_type == faiss.METRIC_INNER_PRODUCT
            and type(store) is faiss.IndexScalarQuantizer
            and store.metric_type == faiss.METRIC_INNER_PRODUCT
            and (store.sq.qtype, store.sq.d) == (faiss.ScalarQuantizer.QT_fp16, index.d)
            and {graph.d, store.d} == {index.d}
            and {graph.ntotal, store.ntotal, index.id_map.size()} == {index.ntotal}
        )
        return "hnsw" if alike else "", index.d, index.ntotal
    return "", index.d, index.ntotal


def _quantiser(faiss: Any, data: bytes, dim: int) -> Any:
    try:
        index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
    except RuntimeError as error:
        raise Corrupt(f"the quantiser cannot be read: {error}", kind="bad-index") from error
    if type(index) not in (faiss.IndexFlatIP, faiss.IndexFlat) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise Corrupt(f"the quantiser is a {type(index).__name__}", kind="bad-index")
    if index.d != dim or not 1 <= index.ntotal <= MAX_LISTS:
        raise Corrupt(f"the quantiser has {index.ntotal} centroids of {index.d} numbers, not {dim}", kind="bad-index")
    return index


def _fill(index: Any, blocks: Iterable[RowBlock], dim: int) -> None:
    # Nothing is learnt here, yet the library wants to have been asked.
    index.train(np.zeros((1, dim), np.float32))
    for ids, rows in _pieces(blocks, dim):
        if index.ntotal + len(ids) > MAX_ROWS:
            raise Invalid(f"more than {MAX_ROWS} rows")
        index.add_with_ids(rows, ids)
    if not index.ntotal:
        raise Invalid("an index of no rows is not made")


def _pieces(blocks: Iterable[RowBlock], dim: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """(ids int64, rows of length 1) in pieces of one size, however they come, that fill one buffer again and again."""
    size = _PIECE_BYTES // (4 * dim)
    buffer = np.empty((size, dim), np.float32)
    numbers = np.empty(size, np.uint64)
    filled = 0
    for ids, rows in blocks:
        _check_block(ids, rows, dim)
        start = 0
        while start < len(rows):
            count = min(size - filled, len(rows) - start)
            numbers[filled : filled + count] = ids[start : start + count]
            buffer[filled : filled + count] = rows[start : start + count]
            filled, start = filled + count, start + count
            if filled == size:
                yield numbers.astype(np.int64), _directions(numbers, buffer)
                filled = 0
    if filled:
        yield numbers[:filled].astype(np.int64), _directions(numbers[:filled], buffer[:filled])


def _directions(ids: NDArray[np.uint64], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The rows divided by their lengths, in place."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    wrong = ~(np.isfinite(lengths) & (lengths > 0))
    if wrong.any():
        number = int(ids[wrong][0])
        raise Corrupt(f"the row of tile {number} is not finite, or has no direction", kind="bad-shard", tile_id=number)
    np.divide(rows, lengths[:, None], out=rows, casting="same_kind")
    return rows


def _check_block(ids: NDArray[np.uint64], rows: NDArray[np.float16] | NDArray[np.float32], dim: int) -> None:
    if rows.ndim != 2 or rows.shape != (len(ids), dim) or rows.dtype not in (np.float16, np.float32):
        raise Invalid(f"a block of {len(ids)} ids and {rows.dtype} rows {rows.shape} for {dim} numbers a row")
    # The library's ids are signed, and -1 is nobody.
    if len(ids) and int(ids.max()) >= 1 << 63:
        raise Invalid(f"the id {int(ids.max())} is not below 2**63")


def _check_dim(dim: int) -> None:
    if not 1 <= dim <= MAX_DIM:
        raise Invalid(f"rows of {dim} numbers are not indexed: 1 to {MAX_DIM}")


def _bytes(faiss: Any, index: Any) -> bytes:
    # serialize_index would hold the index three times at once.
    buffer = io.BytesIO()
    writer = faiss.PyCallbackIOWriter(buffer.write)
    faiss.write_index(index, writer)
    # It holds what is not written yet until it is gone.
    del writer
    return buffer.getvalue()


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _wrong(path: Path, what: str) -> Corrupt:
    return Corrupt(f"the index {path} is wrong: {what}", kind="bad-index", path=str(path))


def _faiss() -> Any:
    faiss = import_extra("faiss", "faiss")
    found = tuple(int(part) for part in re.findall(r"\d+", faiss.__version__)[:3])
    if found < _OLDEST:
        raise Unavailable(
            f"faiss {faiss.__version__} is older than {'.'.join(map(str, _OLDEST))}",
            remedy="pip install --upgrade 'flightbag[faiss]'",
            library="faiss",
            extra="faiss",
        )
    return faiss
