"""Approximate indexes: the same bytes however they are made, what they answer, what is not opened.

Laws: suggested_nlist is a power of two that leaves 39 rows a list, and grows with the rows; bytes do not depend on how
rows are cut into blocks.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.onboard import ann, exact
from builders.onboard.exact import NO_ROW, RowBlock
from store.errors import Corrupt, Invalid, Unavailable
from store.installation import install_remedy

faiss = pytest.importorskip("faiss")

DIM = 32
LISTS = 32


def clustered(count: int, dim: int = DIM, seed: int = 7) -> tuple[NDArray[np.uint64], NDArray[np.float16]]:
    """Ids, not in order, and rows of any length around a hundredth as many middles; every fiftieth row twice."""
    random = np.random.default_rng(seed)
    middles = random.standard_normal((max(2, count // 100), dim))
    rows = middles[random.integers(len(middles), size=count)] + 0.5 * random.standard_normal((count, dim))
    rows *= random.uniform(0.5, 20, (count, 1))
    rows[50::50] = rows[49:-1:50]
    return random.permutation(count).astype(np.uint64) * 3 + 2**40, rows.astype(np.float16)


def cut(ids: NDArray[np.uint64], rows: NDArray[np.float16], size: int) -> Iterator[RowBlock]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size], rows[start : start + size]


def built(method: str, ids: NDArray[np.uint64], rows: NDArray[np.float16], size: int = 700) -> bytes:
    dim = rows.shape[1]
    if method == "hnsw":
        return ann.build_hnsw(cut(ids, rows, size), dim)
    quantiser = ann.train_quantiser(lambda: cut(ids, rows, size), dim, min(LISTS, len(ids)))
    return ann.build_ivf(quantiser, cut(ids, rows, size), dim)


def opened(folder: Path, method: str, data: bytes, rows: int, dim: int = DIM) -> ann.AnnIndex:
    path = folder / "index.faiss"
    path.write_bytes(data)
    index = ann.open_index(path, method, dim, rows)
    path.unlink()
    return index


@pytest.fixture(scope="module")
def bundle() -> tuple[NDArray[np.uint64], NDArray[np.float16], dict[str, bytes]]:
    ids, rows = clustered(4000)
    return ids, rows, {method: built(method, ids, rows) for method in ann.METHODS}


def asked(rows: NDArray[np.float16], count: int = 200) -> NDArray[np.float32]:
    random = np.random.default_rng(8)
    near = rows[random.choice(len(rows), count, replace=False)].astype(np.float32)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    noise = 0.4 / np.sqrt(rows.shape[1]) * random.standard_normal(near.shape)
    return np.asarray(near + noise, np.float32)


def test_the_version_is_a_token_with_the_level_in_use() -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9._+-]{0,62}[a-z0-9])?", ann.version())
    script = "from builders.onboard import ann; print(ann.version())"
    slow = {**os.environ, "FAISS_SIMD_LEVEL": "NONE"}
    said = subprocess.run([sys.executable, "-c", script], env=slow, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == f"faiss-{faiss.__version__}+none"


def test_a_library_that_is_missing_or_old_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "__version__", "1.15.0")
    with pytest.raises(Unavailable, match=re.escape(install_remedy("faiss"))):
        ann.version()
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(Unavailable, match=re.escape(install_remedy("faiss"))):
        ann.build_hnsw([], DIM)


@given(st.integers(0, ann.MAX_ROWS))
def test_lists_are_a_power_of_two_with_enough_rows_each(rows: int) -> None:
    lists = ann.suggested_nlist(rows)
    assert lists.bit_count() == 1
    assert 1 <= lists <= ann.MAX_LISTS
    assert lists == 1 or lists * 39 <= rows
    assert lists <= ann.suggested_nlist(min(rows + 1, ann.MAX_ROWS))


@pytest.mark.parametrize(("rows", "lists"), [(0, 1), (77, 1), (78, 2), (3300, 64), (60_000, 1024), (2**31 - 1, 65536)])
def test_lists_for_some_sizes(rows: int, lists: int) -> None:
    assert ann.suggested_nlist(rows) == lists


def test_the_quantiser_has_centroids_of_length_one() -> None:
    ids, rows = clustered(4000)
    threads = faiss.omp_get_max_threads()
    data = ann.train_quantiser(lambda: cut(ids, rows, 700), DIM, LISTS)
    assert faiss.omp_get_max_threads() == threads
    index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
    assert (type(index), index.d, index.ntotal) == (faiss.IndexFlatIP, DIM, LISTS)
    np.testing.assert_allclose(np.linalg.norm(index.reconstruct_n(0, LISTS), axis=1), 1, rtol=1e-5)


def test_a_sample_of_a_large_map_is_bounded_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two kinds of rows, the second half of the map, both have a centroid, in a tenth of the memory."""
    monkeypatch.setattr(ann, "_SAMPLE_BYTES", 4 * DIM * 100)
    rows = np.zeros((1000, DIM), np.float16)
    rows[:500, 0] = rows[500:, 1] = 1
    data = ann.train_quantiser(lambda: cut(np.arange(1000, dtype=np.uint64), rows, 300), DIM, 2)
    index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
    assert sorted(index.reconstruct_n(0, 2)[:, 0].tolist()) == [0, 1]


@pytest.mark.parametrize("method", ann.METHODS)
@pytest.mark.parametrize("size", [1, 333, 4000])
def test_bytes_do_not_depend_on_the_blocks(
    method: str, size: int, bundle: tuple[NDArray[np.uint64], NDArray[np.float16], dict[str, bytes]]
) -> None:
    ids, rows, indexes = bundle
    assert built(method, ids, rows, size) == indexes[method]
    assert built(method, ids, rows.astype(np.float32), size) == indexes[method]


@pytest.mark.parametrize("method", ann.METHODS)
def test_bytes_depend_on_the_rows_and_ids(
    method: str, bundle: tuple[NDArray[np.uint64], NDArray[np.float16], dict[str, bytes]]
) -> None:
    ids, rows, indexes = bundle
    assert built(method, ids + np.uint64(1), rows) != indexes[method]
    assert built(method, ids, rows[::-1]) != indexes[method]


@pytest.mark.parametrize("method", ann.METHODS)
def test_rows_that_take_several_pieces_are_all_there(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, rows = clustered(1000)
    monkeypatch.setattr(ann, "_PIECE_BYTES", 4 * DIM * 300)
    index = opened(tmp_path, method, built(method, ids, rows, 17), len(ids))
    found, _ = index.search(rows[1:49].astype(np.float32), 1, 1024)
    assert found[:, 0].tolist() == ids[1:49].tolist()


@pytest.mark.parametrize("method", ann.METHODS)
def test_bytes_do_not_depend_on_the_threads(method: str, tmp_path: Path) -> None:
    script = (
        "import sys, hashlib, faiss; from tests.builders.onboard.test_ann import built, clustered\n"
        "faiss.omp_set_num_threads(int(sys.argv[1])); print(hashlib.sha256(built(sys.argv[2], *clustered(6000, 96)))"
        ".hexdigest(), faiss.omp_get_max_threads())"
    )
    said = {}
    for threads in ("1", "2", "5"):
        command = [sys.executable, "-c", script, threads, method]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said[threads], after = done.stdout.split()
        assert after == threads
    assert set(said.values()) == {hashlib.sha256(built(method, *clustered(6000, 96))).hexdigest()}


@pytest.mark.parametrize("method", ann.METHODS)
def test_the_default_effort_finds_what_the_exact_search_finds(method: str, tmp_path: Path) -> None:
    ids, rows = clustered(12_000, 96)
    lists = ann.suggested_nlist(len(ids))
    if method == "ivf":
        quantiser = ann.train_quantiser(lambda: cut(ids, rows, 1000), 96, lists)
        data = ann.build_ivf(quantiser, cut(ids, rows, 1000), 96)
    else:
        data = ann.build_hnsw(cut(ids, rows, 1000), 96)
    index = opened(tmp_path, method, data, len(ids), 96)
    queries = asked(rows, 500)
    true_ids, true_scores = exact.search(cut(ids, rows, 1000), queries, 5)
    found, scores = index.search(queries, 5)
    # A row that is there twice has one cosine: float16 rounds both alike, so the lower id is first in both.
    hit = found[:, 0] == true_ids[:, 0]
    assert np.mean(hit) >= 0.99
    np.testing.assert_allclose(scores[hit, 0], true_scores[hit, 0], atol=1e-3)
    assert found.dtype == np.uint64
    assert scores.dtype == np.float32
    assert (np.diff(scores, axis=1) <= 0).all()
    less, _ = index.search(queries, 5, 1)
    assert np.mean(less[:, 0] == true_ids[:, 0]) < np.mean(hit)


@pytest.mark.parametrize("method", ann.METHODS)
def test_equal_rows_come_by_id_and_nobody_fills_up(method: str, tmp_path: Path) -> None:
    rows = np.ones((5, DIM), np.float16)
    rows[2] = 0
    rows[2, 0] = 1
    ids = np.array([9, 4, 2**62, 7, 1], np.uint64)
    index = opened(tmp_path, method, built(method, ids, rows), 5)
    found, scores = index.search(np.ones((2, DIM), np.float32), 7)
    assert found.tolist() == [[1, 4, 7, 9, 2**62, NO_ROW, NO_ROW]] * 2
    np.testing.assert_allclose(scores[:, :5], [[1, 1, 1, 1, DIM**-0.5]] * 2, atol=1e-3)
    assert np.isneginf(scores[:, 5:]).all()


@pytest.mark.parametrize("method", ann.METHODS)
def test_searches_at_the_same_time_answer_as_one_after_the_other(
    method: str, tmp_path: Path, bundle: tuple[NDArray[np.uint64], NDArray[np.float16], dict[str, bytes]]
) -> None:
    ids, rows, indexes = bundle
    index = opened(tmp_path, method, indexes[method], len(ids))
    queries = asked(rows)
    efforts = [1, 4, 16, 64] * 4
    one = [index.search(queries, 3, effort)[0].tolist() for effort in efforts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda effort: index.search(queries, 3, effort)[0].tolist(), efforts)) == one


@pytest.mark.parametrize("method", ann.METHODS)
def test_queries_that_are_none_are_invalid(
    method: str, tmp_path: Path, bundle: tuple[NDArray[np.uint64], NDArray[np.float16], dict[str, bytes]]
) -> None:
    ids, _, indexes = bundle
    index = opened(tmp_path, method, indexes[method], len(ids))
    good = np.ones((1, DIM), np.float32)
    wrong: list[NDArray[Any]] = [good[0], good[:0], good[:, 1:], good.astype(np.float64), good * 0, good * np.nan]
    for bad in wrong:
        with pytest.raises(Invalid):
            index.search(bad, 1)
    for top, effort in ((0, 1), (exact.MAX_TOP + 1, 1), (1, 0), (1, ann.MAX_EFFORT + 1)):
        with pytest.raises(Invalid):
            index.search(good, top, effort)


def test_rows_that_are_none_are_refused() -> None:
    ids = np.arange(3, dtype=np.uint64)
    good = np.eye(3, DIM, dtype=np.float32)
    quantiser = ann.train_quantiser(lambda: [(ids, good)], DIM, 2)
    wrong: list[tuple[type[Exception], list[RowBlock]]] = [
        (Invalid, []),
        (Invalid, [(ids, good[:, 1:])]),
        (Invalid, [(ids[1:], good)]),
        (Invalid, [(ids, good.astype(np.int16))]),  # type: ignore[list-item]
        (Invalid, [(ids + np.uint64(2**63), good)]),
        (Corrupt, [(ids, good * np.float32("nan"))]),
        (Corrupt, [(ids, good * np.array([[1], [0], [1]], np.float32))]),
    ]
    for kind, blocks in wrong:
        with pytest.raises(kind):
            ann.build_hnsw(blocks, DIM)
        with pytest.raises(kind):
            ann.build_ivf(quantiser, blocks, DIM)
        with pytest.raises(kind):
            ann.train_quantiser(lambda blocks=blocks: blocks, DIM, 2)  # type: ignore[misc]
    for dim in (0, ann.MAX_DIM + 1):
        with pytest.raises(Invalid):
            ann.build_hnsw([(ids, good)], dim)
    for lists in (0, 4):
        with pytest.raises(Invalid):
            ann.train_quantiser(lambda: [(ids, good)], DIM, lists)
    with pytest.raises(Invalid):
        ann.suggested_nlist(-1)


def test_rows_that_change_between_counting_and_sampling_are_refused() -> None:
    counts = iter([100, 60, 100, 140])
    for _ in range(2):
        with pytest.raises(Invalid):
            ann.train_quantiser(lambda: cut(*clustered(next(counts)), 30), DIM, 2)


def test_a_quantiser_that_is_none_is_corrupt() -> None:
    ids, rows = clustered(100)
    good = ann.train_quantiser(lambda: cut(ids, rows, 30), DIM, 2)
    distances = faiss.IndexFlatL2(DIM)
    distances.add(np.ones((2, DIM), np.float32))
    for data in (b"", b"none", good[:-1], bytes(faiss.serialize_index(distances)), ann.build_hnsw([(ids, rows)], DIM)):
        with pytest.raises(Corrupt):
            ann.build_ivf(data, cut(ids, rows, 30), DIM)
    with pytest.raises(Corrupt):
        ann.build_ivf(good, [(ids, np.ones((100, DIM + 1), np.float32))], DIM + 1)


@pytest.mark.parametrize("method", ann.METHODS)
def test_an_index_that_is_another_is_corrupt(
    method: str, tmp_path: Path, bundle: tuple[NDArray[np.uint64], NDArray[np.float16], dict[str, bytes]]
) -> None:
    _, _, indexes = bundle
    path = tmp_path / "index.faiss"
    path.write_bytes(indexes[method])
    other = next(name for name in ann.METHODS if name != method)
    for expected in ((other, DIM, 4000), (method, DIM - 1, 4000), (method, DIM, 3999), (method, DIM, 10**6)):
        with pytest.raises(Corrupt):
            ann.open_index(path, *expected)
    for invalid in (("flat", DIM, 4000), (method, 0, 4000), (method, DIM, 0), (method, DIM, 2**31)):
        with pytest.raises(Invalid):
            ann.open_index(path, *invalid)
    whole = indexes[method]
    for wrong in (
        *(whole[:length] for length in (0, 3, 50, len(whole) // 2, len(whole) - 8, len(whole) - 1)),
        whole + b"x",
    ):
        path.write_bytes(wrong)
        with pytest.raises(Corrupt):
            ann.open_index(path, method, DIM, 4000)


@pytest.mark.parametrize(
    "factory", ["IVF8,Flat", "HNSW16,Flat", "IDMap,HNSW16,Flat", "IDMap,SQfp16", "Flat", "IVF8,SQ8", "IDMap,HNSW16_SQ8"]
)
@pytest.mark.parametrize("metric", [faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2])
def test_an_index_of_another_kind_is_corrupt(factory: str, metric: int, tmp_path: Path) -> None:
    _, rows = clustered(400)
    index = faiss.index_factory(DIM, factory, metric)
    index.train(rows.astype(np.float32))
    index.add_with_ids(rows.astype(np.float32), np.arange(400)) if factory.startswith("I") else index.add(
        rows.astype(np.float32)
    )
    path = tmp_path / "index.faiss"
    faiss.write_index(index, str(path))
    for method in ann.METHODS:
        with pytest.raises(Corrupt):
            ann.open_index(path, method, DIM, 400)


def test_a_file_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        ann.open_index(tmp_path / "none", "ivf", DIM, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize("method", ann.METHODS)
def test_an_index_is_mapped_and_not_read(method: str, tmp_path: Path) -> None:
    """Opening takes little private memory, and so does a search, of a file that is no longer there."""
    dim, count = 1024, 6000
    rows = np.random.default_rng(1).standard_normal((count, dim)).astype(np.float16)
    ids = np.arange(count, dtype=np.uint64)
    path = tmp_path / "index.faiss"
    if method == "hnsw":
        path.write_bytes(ann.build_hnsw([(ids, rows)], dim))
    else:
        quantiser = ann.train_quantiser(lambda: [(ids[:2000], rows[:2000])], dim, 16)
        path.write_bytes(ann.build_ivf(quantiser, [(ids, rows)], dim))
    script = (
        "import sys, pathlib, faiss, numpy as np; from builders.onboard import ann\n"
        "def private(): return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('RssAnon'))\n"
        "path = pathlib.Path(sys.argv[1]); queries = np.ones((1, 1024), np.float32)\n"
        "faiss.IndexFlatIP(1024).search(queries, 1)\n"
        "size = path.stat().st_size; before = private()\n"
        "index = ann.open_index(path, sys.argv[2], 1024, 6000); path.unlink(); opened = private()\n"
        "assert str(path) in open('/proc/self/maps').read()\n"
        "index.search(queries, 5); print(size, opened - before, private() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path), method], capture_output=True, text=True, check=True)
    size, at_open, at_search = map(int, done.stdout.split())
    assert size > 12_000_000
    assert at_open * 1024 < size / 8
    assert at_search * 1024 < size / 4
