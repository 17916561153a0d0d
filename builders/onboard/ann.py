"""Approximate search with faiss: indexes as bytes, built from blocks of rows, and opened memory-mapped.

There are two methods. `ivf` puts rows into lists around the centroids of a coarse quantiser, which is trained once and
kept in a file of its own; a search reads the nearest few lists. `hnsw` is a graph of near neighbours; a search walks
it. Both hold rows of length 1 as float16, and the ids of their tiles. Equal rows in equal order give equal bytes for
one version and one SIMD level of the library (`version` has both), however the rows are cut into blocks and whatever
the number of threads. A search can miss a row that `exact.search` finds; how often depends on the effort.

An index is plain little-endian data: it loads at every SIMD level, and the level that made it changes only the last
bits of a score.
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
from store.errors import Corrupt, Invalid, Refused, Unavailable
from store.format.host import fit
from store.installation import install_remedy

METHODS = ("ivf", "hnsw")
MAX_DIM = 1 << 16
# A graph's links are signed 32-bit row numbers.
MAX_ROWS = 2**31 - 1
MAX_LISTS = 1 << 16
# nprobe and efSearch.
MAX_EFFORT = 1 << 16
# In older versions, a graph's bytes depend on the number of threads: none of them builds an index.
_OLDEST = (1, 15, 1)
# Older versions cannot read an index where it is mapped. From this one on, each reads what those up to _PROVEN build:
# nothing in a file says so, `tests/builders/onboard/test_ann_versions.py` tries it.
_OLDEST_READER = (1, 11)
_PROVEN = (1, 15)
# The library's own bounds: below the first it warns of poor centroids, beyond the second it ignores further rows.
_LEAST_ROWS_A_LIST = 39
_MOST_SAMPLES_A_LIST = 256
# The size of the sample as float32; wide rows get fewer samples a list.
_SAMPLE_BYTES = 1 << 30
_ITERATIONS = 10
_SEED = 2026
_LINKS = 16
# Of what an index has beside rows and centroids.
_MOST_HEAD = 1 << 16
_EF_CONSTRUCTION = 80
# The size of the rows that are added together, as float32. A graph's bytes depend on it.
_PIECE_BYTES = 1 << 26
# Measured on 60,000 x 288 rows, in 1024 lists: recall@1 of 0.999 and more for 600 clusters; 0.984 and 0.996 for 6000
# that overlap, the hardest of the sets.
_DEFAULT_EFFORT = {"ivf": 64, "hnsw": 128}


def version() -> str:
    """Return the library's version and the SIMD level that it uses now, such as `faiss-1.15.1+avx512`.

    Raises Unavailable where the library is missing or older than 1.15.1.
    """
    faiss = _faiss()
    return f"faiss-{faiss.__version__}+{faiss.SIMDConfig.get_level_name()}".lower()


def host_component() -> str:
    """Return the component of a host class that names the library, such as `faiss-1.15.1`.

    Raises Unavailable where the library is missing or cannot read an index.
    """
    return f"faiss-{_text(_numbers(_faiss(_OLDEST_READER)))}"


def least_version() -> str:
    """Return the least version of the library that reads the indexes that this one builds, for a need (FORMAT 4.5).

    It is proven for known versions; an index of a newer one needs that version. Raises Unavailable as `version` does.
    """
    built_with = _numbers(_faiss())
    return _text(_OLDEST_READER if built_with[:2] <= _PROVEN else built_with)


def require_reader(need: str) -> None:
    """Raise Refused if the library is older than the least version in the need of an index, Unavailable as
    `host_component` does."""
    have = host_component()
    for part in fit(have, need).lacking:
        if part.startswith("faiss>="):
            raise Refused(
                f"the index needs {part}, this machine has {have}",
                remedy="install a newer faiss-cpu, or build the mission for this machine without an index",
                kind="wrong-host",
                needed=need,
                host=have,
            )


def suggested_nlist(rows: int) -> int:
    """Return the number of lists for an index of `rows` rows: the power of two nearest to 4 sqrt(rows), at most 65,536,
    with 39 rows or more a list; 1 for fewer rows. Raises Invalid for a number of rows outside 0..MAX_ROWS."""
    if not 0 <= rows <= MAX_ROWS:
        raise Invalid(f"an index has 0 to {MAX_ROWS} rows, not {rows}")
    most = min(MAX_LISTS, rows // _LEAST_ROWS_A_LIST)
    if most < 1:
        return 1
    return 1 << min(round(math.log2(16 * rows) / 2), most.bit_length() - 1)


def most_bytes(rows: int, dim: int, nlist: int = 0) -> int:
    """Return the most bytes that an index of so many rows of `dim` numbers, or a quantiser of `nlist` lists of them,
    can have."""
    a_row = 2 * dim + 8 + 8 * _LINKS * 4  # float16, the id, and the links of a graph on all its levels
    return _MOST_HEAD + rows * a_row + nlist * (4 * dim + 16)


def train_quantiser(blocks: Callable[[], Iterable[RowBlock]], dim: int, nlist: int) -> bytes:
    """Return the bytes of a coarse quantiser: `nlist` centroids of length 1 for rows of `dim` numbers, by spherical
    k-means over a sample.

    `blocks` gives the same rows each time: it is called twice, to count them and to take the sample, evenly spaced. The
    sample is bounded: 256 rows a list at most, and 1 GiB. Raises Invalid for fewer rows than lists, and Corrupt for a
    row that is zero or not finite.
    """
    faiss = _faiss()
    _check_dim(dim)
    total = sum(len(ids) for ids, _ in blocks())
    if not 1 <= nlist <= min(MAX_LISTS, total):
        raise Invalid(f"a quantiser for {total} rows has 1 to {min(MAX_LISTS, total)} lists, not {nlist}")
    count = min(total, _MOST_SAMPLES_A_LIST * nlist, max(nlist, _SAMPLE_BYTES // (4 * dim)))
    picks = np.arange(count) * total // count
    sample = np.empty((count, dim), np.float32)
    passed = filled = 0
    for ids, rows in blocks():
        _check_block(ids, rows, dim)
        here = picks[filled : np.searchsorted(picks, passed + len(rows))] - passed
        sample[filled : filled + len(here)] = _directions(ids[here], rows[here].astype(np.float32))
        passed, filled = passed + len(rows), filled + len(here)
    if passed != total:
        raise Invalid(f"the blocks gave {total} rows the first time and {passed} the second time")
    kmeans = faiss.Clustering(dim, nlist)
    kmeans.niter, kmeans.seed, kmeans.spherical = _ITERATIONS, _SEED, True
    # The sample has its final size: the library shall neither warn about it nor sample it again.
    kmeans.min_points_per_centroid, kmeans.max_points_per_centroid = 1, count
    # Sums of products depend on how threads divide them.
    with _one_thread(faiss):
        quantiser = faiss.IndexFlatIP(dim)
        kmeans.train(sample, quantiser)
    return _bytes(faiss, quantiser)


def check_quantiser(data: bytes, dim: int, nlist: int) -> None:
    """Raise Corrupt (kind bad-index) unless the bytes are a quantiser of `nlist` lists of rows of `dim` numbers."""
    if (count := _quantiser(_faiss(), data, dim).ntotal) != nlist:
        raise Corrupt(f"the quantiser has {count} lists, not {nlist}", kind="bad-index")


def build_ivf(quantiser: bytes, blocks: Iterable[RowBlock], dim: int) -> bytes:
    """Return the bytes of an index of lists around the centroids of `quantiser`: bytes of `train_quantiser` that the
    caller has verified.

    Raises Corrupt for bytes that do not hold a quantiser of `dim` numbers, and as `build_hnsw` does.
    """
    faiss = _faiss()
    _check_dim(dim)
    centroids = _quantiser(faiss, quantiser, dim)
    index = faiss.IndexIVFScalarQuantizer(
        centroids, dim, centroids.ntotal, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    # The nearest list depends on the last bits of products.
    with _one_thread(faiss):
        _fill(index, blocks, dim)
    return _bytes(faiss, index)


def build_hnsw(blocks: Iterable[RowBlock], dim: int) -> bytes:
    """Return the bytes of an index that is a graph of near neighbours.

    Raises Invalid for no rows, too many or too wide rows, and for an id of 2**63 or more; Corrupt for a row that is
    zero or not finite.
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
    """An open index of `rows` rows of `dim` numbers. Several searches may run at the same time."""

    method: str
    dim: int
    rows: int
    _index: Any
    # Kept as long as the index, which points into it.
    _mapped: NDArray[np.uint8]

    def search(
        self, queries: NDArray[np.float32], top: int, effort: int | None = None
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
        """Return (ids uint64 [q, top], cosines float32 [q, top]) of near rows for queries float32 [q, d], the nearest
        first.

        `effort` is the number of lists that are searched, or of candidates that the walk keeps; more effort finds more
        rows and needs more time. Equal cosines are ordered by id. Where the search finds fewer than `top` rows,
        2**64 - 1 and -inf follow. Cosines are those of rows rounded to float16, and off by 0.001 at most. Raises
        Invalid for queries of another shape or type, zero, or not finite, and for `top` or `effort` out of range.
        """
        effort = _DEFAULT_EFFORT[self.method] if effort is None else effort
        if queries.ndim != 2 or not len(queries) or queries.dtype != np.float32 or queries.shape[1] != self.dim:
            raise Invalid(
                f"queries are float32 [q, {self.dim}]; these are {queries.dtype} {list(queries.shape)}",
                remedy="search with descriptors of the set that the index is of",
            )
        if not (1 <= top <= MAX_TOP and 1 <= effort <= MAX_EFFORT):
            raise Invalid(
                f"a search returns 1 to {MAX_TOP} rows with an effort of 1 to {MAX_EFFORT}, not {top} with {effort}"
            )
        # In double precision, like the exact search: the square of a float32 may overflow float32.
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise Invalid("a query has no direction: it is zero or not finite")
        faiss = _faiss(_OLDEST_READER)
        # The library ignores parameters of the other kind.
        if self.method == "ivf":
            parameters = faiss.SearchParametersIVF(nprobe=effort)
        else:
            parameters = faiss.SearchParametersHNSW(efSearch=effort)
        units = np.ascontiguousarray(queries / lengths, np.float32)
        scores, numbers = self._index.search(units, top, params=parameters)
        ids = numbers.astype(np.uint64)
        scores[ids == NO_ROW] = -np.inf
        order = np.lexsort((ids, -scores), axis=1)
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)


def open_index(path: Path, method: str, dim: int, rows: int) -> AnnIndex:
    """Return the index in a file, which is mapped and not read: the system reads pages when a search touches them.

    The caller guarantees that `path` is a private file of verified bytes, and that nobody changes it while the index is
    in use: the library trusts what it parses, so a file of somebody else can corrupt memory. The file may be unlinked
    when this returns. Raises Corrupt for an index with another method, dimension or number of rows, Unavailable for a
    file that cannot be read, Invalid for a method or number of rows that no index has.
    """
    _check_dim(dim)
    if method not in METHODS or not 1 <= rows <= MAX_ROWS:
        raise Invalid(
            f"an index of the method {method!r} with {rows} rows cannot exist",
            remedy=f"give a method of {', '.join(METHODS)}, and 1 to {MAX_ROWS} rows",
        )
    faiss = _faiss(_OLDEST_READER)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < rows * dim * 2:
                raise _wrong(path, f"it has {size} bytes, too few for {rows} rows of {dim} numbers")
            mapped = np.memmap(file, np.uint8, "r")
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    # The library's own mapping (IO_FLAG_MMAP_IFC) does the same without reporting where the index ends: it would read
    # beyond the end of a file that is a few bytes short.
    reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(mapped), len(mapped))
    try:
        index = faiss.read_index(reader)
    except RuntimeError as error:
        raise _wrong(path, str(error)) from error
    if reader.rp_ != len(mapped):
        raise _wrong(path, f"it has {len(mapped)} bytes, its index {reader.rp_}")
    actual = _properties(faiss, index)
    if actual != (expected := (method, dim, rows)):
        raise _wrong(path, f"its method, dimension and rows are {actual}, not {expected}")
    return AnnIndex(method, dim, rows, index, mapped)


def _properties(faiss: Any, index: Any) -> tuple[str, int, int]:
    """(method, dim, rows) of an index whose parts agree on them; the method is "" for any other index."""
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
        raise Corrupt(f"expected a quantiser, found a {type(index).__name__}", kind="bad-index")
    if index.d != dim or not 1 <= index.ntotal <= MAX_LISTS:
        raise Corrupt(f"the quantiser has {index.ntotal} centroids of {index.d} numbers, not {dim}", kind="bad-index")
    return index


def _fill(index: Any, blocks: Iterable[RowBlock], dim: int) -> None:
    # Nothing is left to train, and the library demands the call.
    index.train(np.zeros((1, dim), np.float32))
    for ids, rows in _pieces(blocks, dim):
        if index.ntotal + len(ids) > MAX_ROWS:
            raise Invalid(f"an index has at most {MAX_ROWS} rows, these are more")
        index.add_with_ids(rows, ids)
    if not index.ntotal:
        raise Invalid("an index needs at least one row")


def _pieces(blocks: Iterable[RowBlock], dim: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield (ids int64, rows of length 1) in pieces of one size, whatever the blocks; all pieces share one buffer."""
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
        raise Corrupt(
            f"the row of tile {number} has no direction: it is zero or not finite", kind="bad-shard", tile_id=number
        )
    np.divide(rows, lengths[:, None], out=rows, casting="same_kind")
    return rows


def _check_block(ids: NDArray[np.uint64], rows: NDArray[np.float16] | NDArray[np.float32], dim: int) -> None:
    if rows.ndim != 2 or rows.shape != (len(ids), dim) or rows.dtype not in (np.float16, np.float32):
        raise Invalid(
            f"a block is ids [n] and rows float16 or float32 [n, {dim}]; this is {len(ids)} ids and {rows.dtype} "
            f"{list(rows.shape)}"
        )
    # The library's ids are signed, and -1 stands for no row.
    if len(ids) and int(ids.max()) >= 1 << 63:
        raise Invalid(f"the id {int(ids.max())} is 2**63 or more")


def _check_dim(dim: int) -> None:
    if not 1 <= dim <= MAX_DIM:
        raise Invalid(f"a row of an index has 1 to {MAX_DIM} numbers, not {dim}")


def _bytes(faiss: Any, index: Any) -> bytes:
    # serialize_index would hold three copies of the index in memory.
    buffer = io.BytesIO()
    writer = faiss.PyCallbackIOWriter(buffer.write)
    faiss.write_index(index, writer)
    # The writer writes its last bytes when it is deleted.
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
    return Corrupt(
        f"the index {path} is damaged: {what}", remedy="build the mission again", kind="bad-index", path=str(path)
    )


def _numbers(faiss: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", faiss.__version__)[:3])


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _faiss(oldest: tuple[int, ...] = _OLDEST) -> Any:
    faiss = import_extra("faiss", "faiss")
    if _numbers(faiss) < oldest:
        raise Unavailable(
            f"faiss {faiss.__version__} is older than {_text(oldest)}",
            remedy=install_remedy("faiss"),
            library="faiss",
            extra="faiss",
        )
    return faiss
