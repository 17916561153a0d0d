"""Exact search against a brute force in float64, however rows are cut, ordered, scaled and kept."""

from __future__ import annotations

import itertools
import resource
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.onboard import exact
from builders.onboard.exact import NO_ROW, RowBlock, search
from store.errors import Corrupt, Invalid

Rows = NDArray[np.float16] | NDArray[np.float32]


def check(
    found: tuple[NDArray[np.uint64], NDArray[np.float32]],
    ids: NDArray[np.uint64],
    rows: Rows,
    queries: NDArray[np.float32],
    top: int,
) -> None:
    """`found` is what a brute force in float64 finds; neighbours as near as its rounding may have changed places."""
    wide, asked = rows.astype(np.float64), queries.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)[None, :] * np.linalg.norm(asked, axis=1)[:, None]
    # Pair by pair: a product of matrices may round equal rows differently.
    cosines = np.stack([(wide * one).sum(axis=1) for one in asked]) / norms if len(asked) else norms
    count = min(top, len(ids))
    assert (found[0][:, count:] == NO_ROW).all()
    assert (found[1][:, count:] == -np.inf).all()
    for got, scores, row in zip(found[0], found[1], cosines.astype(np.float32), strict=True):
        order = np.lexsort((ids, -row))[:count]
        np.testing.assert_allclose(scores[:count], row[order], rtol=3e-7, atol=1e-12)
        own = dict(zip(ids.tolist(), row.tolist(), strict=True))
        for number, other, score in zip(got.tolist(), ids[order].tolist(), scores.tolist(), strict=False):
            assert number == other or own[number] == pytest.approx(score, rel=3e-7, abs=1e-12)
        assert len(set(got[:count].tolist())) == count


def world(seed: int, n: int, d: int, kind: type, copies: bool) -> tuple[NDArray[np.uint64], Rows]:
    """Rows of any length but zero; with `copies`, many of them are the same row or a multiple of it."""
    rng = np.random.default_rng(seed)
    rows: Rows = rng.standard_normal((n, d)).astype(kind)
    rows[np.abs(rows).max(axis=1) == 0] = 1
    if copies and n:
        rows[rng.random(n) < 0.5] = rows[0]
        rows[rng.random(n) < 0.3] *= kind(2)
    return rng.permutation(np.arange(n, dtype=np.uint64) * 7), rows


def cut(ids: NDArray[np.uint64], rows: Rows, places: list[int]) -> Iterator[RowBlock]:
    edges = [0, *sorted(min(place, len(ids)) for place in places), len(ids)]
    for start, end in itertools.pairwise(edges):
        yield ids[start:end], rows[start:end]


@given(
    seed=st.integers(0, 2**32),
    n=st.integers(0, 400),
    d=st.integers(1, 70),
    kind=st.sampled_from([np.float16, np.float32]),
    copies=st.booleans(),
    q=st.integers(0, 4),
    top=st.sampled_from([1, 2, 5, 40, 1000]),
    places=st.lists(st.integers(0, 400), max_size=8),
)
def test_equals_brute_force_and_depends_on_the_rows_alone(
    seed: int, n: int, d: int, kind: type, copies: bool, q: int, top: int, places: list[int]
) -> None:
    ids, rows = world(seed, n, d, kind, copies)
    queries = np.random.default_rng(seed + 1).standard_normal((q, d)).astype(np.float32)
    if copies and n and q:
        queries[0] = rows[0]
    whole = search([(ids, rows)], queries, top)
    check(whole, ids, rows, queries, top)
    assert whole[0].dtype == np.uint64
    assert whole[1].dtype == np.float32
    assert whole[0].shape == whole[1].shape == (q, top)

    pieces = search(cut(ids, rows, places), queries, top)
    order = np.random.default_rng(seed + 2).permutation(n)
    shuffled = search(cut(ids[order], rows[order], places), queries, top)
    alone = [search([(ids, rows)], queries[number : number + 1], top) for number in range(q)]
    for part in (0, 1):
        np.testing.assert_array_equal(pieces[part], whole[part])
        np.testing.assert_array_equal(shuffled[part], whole[part])
        for number in range(q):
            np.testing.assert_array_equal(alone[number][part][0], whole[part][number])


def test_many_pieces_and_many_queries() -> None:
    ids, rows = world(3, 20_000, 24, np.float16, copies=False)
    queries = np.random.default_rng(4).standard_normal((600, 24)).astype(np.float32)
    whole = search([(ids, rows)], queries, 5)
    check((whole[0][:40], whole[1][:40]), ids, rows, queries[:40], 5)
    small = search(cut(ids, rows, list(range(0, 20_000, 256))), queries, 5)
    order = np.argsort(-(rows.astype(np.float32) @ queries[0]))[::-1]
    ascending = search([(ids[order], rows[order])], queries, 5)
    for part in (0, 1):
        np.testing.assert_array_equal(small[part], whole[part])
        np.testing.assert_array_equal(ascending[part], whole[part])


@pytest.mark.parametrize("d", [8448, 49152])
def test_the_longest_descriptors(d: int) -> None:
    rng = np.random.default_rng(5)
    base = rng.standard_normal(d)
    # All within what float32 cannot tell apart, so what float32 says does not decide.
    rows = (base + 1e-3 * rng.standard_normal((600, d))).astype(np.float32)
    ids = np.arange(600, dtype=np.uint64)
    queries = base.astype(np.float32)[None]
    check(search([(ids, rows)], queries, 5), ids, rows, queries, 5)


def test_of_equal_rows_the_lowest_ids_come_first_wherever_they_lie() -> None:
    row = np.random.default_rng(6).standard_normal(129).astype(np.float16)
    ids = np.random.default_rng(7).permutation(np.arange(9001, dtype=np.uint64))
    rows = np.tile(row, (9001, 1))
    found, scores = search([(ids, rows)], row.astype(np.float32)[None], 7)
    assert found[0].tolist() == list(range(7))
    assert set(scores[0].tolist()) == {1.0}


@given(st.integers(-45, 38), st.sampled_from([np.float16, np.float32]))
def test_lengths_do_not_matter(power: int, kind: type) -> None:
    limits = (-7, 4) if kind is np.float16 else (-44, 37)
    scale = 10.0 ** min(max(power, limits[0]), limits[1])
    signs = np.array([[3, 0, 0], [2, 2, 0], [-1, 3, 0], [0, 0, -6]])
    rows: Rows = (signs * scale).astype(kind)
    ids = np.arange(4, dtype=np.uint64)
    queries = np.array([[1, 1, 0], [0, 0, -1]], np.float32) * np.float32(10.0 ** max(min(power, 37), -44))
    check(search([(ids, rows)], queries, 4), ids, rows, queries, 4)


def test_every_finite_float16_is_read_as_itself() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    out = np.empty((1, len(every)), np.float32)
    exact._widen(every[None], out)
    np.testing.assert_array_equal(out[0].view(np.uint32), every.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("value", [0.0, -0.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("whole", [False, True])
def test_a_row_without_direction_is_corrupt_only_if_it_counts(kind: type, value: float, whole: bool) -> None:
    ids, rows = world(8, 300, 16, kind, copies=False)
    rows[150] = value if whole or value == 0 else rows[150]
    rows[150, 3] = value
    queries = np.ones((1, 16), np.float32)
    with pytest.raises(Corrupt) as caught:
        search([(ids, rows)], queries, 3)
    assert caught.value.fields["row"] == ids[150]
    kept = np.arange(300) != 150
    found = search([(ids, rows)], queries, 3, lambda some: some != ids[150])
    check(found, ids[kept], rows[kept], queries, 3)


@given(st.integers(0, 2**32), st.integers(0, 10))
def test_only_kept_rows_are_found(seed: int, tenths: int) -> None:
    ids, rows = world(seed, 700, 9, np.float16, copies=True)
    kept = np.random.default_rng(seed).random(700) * 10 < tenths
    chosen = np.sort(ids[kept])
    queries = np.random.default_rng(seed + 1).standard_normal((3, 9)).astype(np.float32)
    found = search(cut(ids, rows, [256, 512]), queries, 5, lambda some: np.isin(some, chosen))
    expected = search([(ids[kept], rows[kept])], queries, 5)
    for part in (0, 1):
        np.testing.assert_array_equal(found[part], expected[part])


def test_fewer_rows_than_asked_for() -> None:
    ids, rows = world(9, 3, 4, np.float32, copies=False)
    found, scores = search([(ids, rows)], rows[:1].astype(np.float32), 1000)
    assert sorted(found[0, :3].tolist()) == [0, 7, 14]
    assert (found[0, 3:] == NO_ROW).all()
    assert (scores[0, 3:] == -np.inf).all()
    found, scores = search([], np.ones((2, 4), np.float32), 2)
    assert (found == NO_ROW).all()
    assert (scores == -np.inf).all()


def test_rows_are_neither_changed_nor_need_they_be_contiguous_or_writable() -> None:
    ids, rows = world(10, 500, 20, np.float16, copies=False)
    wide = np.repeat(np.asarray(rows, np.float16), 2, axis=1)[:, ::2]
    wide.flags.writeable = False
    before = rows.copy()
    queries = np.ones((1, 20), np.float32)
    np.testing.assert_array_equal(search([(ids, wide)], queries, 9)[0], search([(ids, rows)], queries, 9)[0])
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("top", [0, -1, 1001])
def test_top_is_bounded(top: int) -> None:
    with pytest.raises(Invalid):
        search([], np.ones((1, 4), np.float32), top)


@pytest.mark.parametrize(
    "queries",
    [
        np.ones(4, np.float32),
        np.ones((1, 4), np.float64),
        np.ones((1, 0), np.float32),
        np.zeros((1, 4), np.float32),
        np.array([[1, np.nan]], np.float32),
        np.array([[1, np.inf]], np.float32),
    ],
)
def test_queries_without_direction_are_invalid(queries: NDArray[np.float32]) -> None:
    with pytest.raises(Invalid):
        search([], queries, 1)


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        (np.zeros(2, np.int64), np.ones((2, 4), np.float16)),
        (np.zeros(2, np.uint64), np.ones((2, 4), np.float64)),
        (np.zeros(2, np.uint64), np.ones((2, 4), ">f2")),
        (np.zeros(2, np.uint64), np.ones((3, 4), np.float16)),
        (np.zeros(2, np.uint64), np.ones((2, 5), np.float16)),
        (np.zeros((2, 1), np.uint64), np.ones((2, 1, 4), np.float16)),
        (np.zeros(2, np.uint64), np.ones(2, np.float16)),
    ],
)
def test_blocks_of_another_kind_are_invalid(ids: NDArray[np.uint64], rows: Rows) -> None:
    with pytest.raises(Invalid):
        search([(ids, rows)], np.ones((1, 4), np.float32), 1)


def test_what_keeps_must_say_so_of_every_row() -> None:
    ids, rows = world(11, 5, 4, np.float16, copies=False)
    queries = np.ones((1, 4), np.float32)
    with pytest.raises(Invalid):
        search([(ids, rows)], queries, 1, lambda some: np.ones(3, np.bool_))
    with pytest.raises(Invalid):
        search([(ids, rows)], queries, 1, lambda some: some)  # type: ignore[arg-type,return-value]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the unit of ru_maxrss is that of Linux")
def test_memory_does_not_grow_with_the_rows() -> None:
    ids, rows = world(12, 2048, 256, np.float16, copies=False)
    queries = np.random.default_rng(13).standard_normal((300, 256)).astype(np.float32)

    def many() -> Iterator[RowBlock]:
        for start in range(200):
            yield ids + np.uint64(start * 2**20), rows

    search(iter([(ids, rows)] * 5), queries, 5)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    search(many(), queries, 5)
    # In float32 the rows are 400 MiB, and all their scores 470 MiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
