"""From the output of a network to one row for each image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.descriptors.outputs import rows_of
from builders.recipe import POOLS
from store.errors import Invalid

TOKENS = np.array([[[1, 8], [3, 0], [5, 1]], [[2, 2], [2, 2], [2, 2]]], np.float32)


def test_each_pool_is_its_formula() -> None:
    assert rows_of(TOKENS, "y", 2, "cls").tolist() == [[1, 8], [2, 2]]
    assert rows_of(TOKENS, "y", 2, "mean").tolist() == [[3, 3], [2, 2]]
    expected = [[((1 + 27 + 125) / 3) ** (1 / 3), ((512 + 1e-18 + 1) / 3) ** (1 / 3)], [2, 2]]
    assert np.allclose(rows_of(TOKENS, "y", 2, "gem"), expected, atol=1e-6)
    assert np.allclose(rows_of(-TOKENS, "y", 2, "gem"), 1e-6)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.sampled_from(POOLS[1:]))
def test_a_single_token_is_the_row_and_equal_tokens_are_too(n: int, t: int, d: int, pool: str) -> None:
    row = np.random.default_rng(n * 100 + d).random((n, 1, d), np.float32) + np.float32(0.1)
    rows = rows_of(np.repeat(row, t, axis=1), "y", n, pool)
    assert rows.shape == (n, d)
    assert rows.dtype == np.float32
    assert np.allclose(rows, row[:, 0], rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1, 1), (2, 1, 1, 3), (2, 1, 3), (2, 1, 3, 1)])
def test_rows_of_every_number_format_become_float32(dtype: Any, shape: tuple[int, ...]) -> None:
    output = np.arange(6, dtype=dtype).reshape(shape)
    rows = rows_of(output, "y", 2, "none")
    assert rows.dtype == np.float32
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("shape", "pool", "remedy"),
    [
        ((2, 3, 4), "none", "set pool"),
        ((2, 3, 4, 5), "none", "one descriptor for each image"),
        ((2, 3, 1, 4), "none", "one descriptor for each image"),
        ((2, 3), "cls", "leave out pool"),
        ((2, 3, 1, 1), "mean", "leave out pool"),
        ((2, 1, 1, 3), "cls", "leave out pool"),
        ((2, 3, 4, 5), "gem", "with tokens"),
        ((1, 6), "none", "one descriptor for each image"),
        ((2, 0), "none", "one descriptor for each image"),
        ((2, 0, 4), "mean", "one descriptor for each image"),
        ((2,), "none", "one descriptor for each image"),
    ],
)
def test_an_output_of_another_shape_is_refused_with_a_remedy(shape: tuple[int, ...], pool: str, remedy: str) -> None:
    with pytest.raises(Invalid) as caught:
        rows_of(np.ones(shape, np.float32), "y", 2, pool)
    assert remedy in caught.value.remedy
    assert str(list(shape)) in caught.value.message


def test_integers_are_no_descriptor() -> None:
    with pytest.raises(Invalid, match="the output y is int64"):
        rows_of(np.ones((2, 3), np.int64), "y", 2, "none")
