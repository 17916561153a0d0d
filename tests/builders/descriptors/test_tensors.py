"""Canonical safetensors: the dtypes, shapes and sizes at their limits, and headers that promise more than there is."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.descriptors.tensors import ALIGNMENT, MAX_HEADER, read_tensors, write_tensors
from store.errors import Corrupt, Invalid

DTYPES = {"F16": np.float16, "F32": np.float32, "U64": np.uint64, "U8": np.uint8}


def header_of(shape: Any, *, dtype: Any = "U8", end: int = 0, offsets: Any = None, name: str = "a") -> bytes:
    """The bytes of a file with one tensor, of which nothing but the header is written; `end` bytes of data follow."""
    fields = {"__metadata__": {}, name: {"data_offsets": offsets or [0, end], "dtype": dtype, "shape": shape}}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    size = -(-(len(text) + 8) // ALIGNMENT) * ALIGNMENT - 8
    return size.to_bytes(8, "little") + text.ljust(size) + bytes(end)


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=9).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 3), max_size=8)),
        max_size=4,
    )
)
def test_reading_gives_what_was_written_in_every_dtype_and_shape(kinds: dict[str, tuple[str, list[int]]]) -> None:
    random = np.random.default_rng(1)
    arrays = {name: random.integers(0, 99, shape).astype(DTYPES[kind]) for name, (kind, shape) in kinds.items()}
    data = write_tensors(arrays, {"a": "b"})
    found = read_tensors(data)
    assert {name: (array.dtype, array.shape) for name, array in found.arrays.items()} == {
        name: (array.dtype, array.shape) for name, array in arrays.items()
    }
    assert all((found.arrays[name] == array).all() for name, array in arrays.items())
    assert write_tensors(*found) == data


@pytest.mark.parametrize(
    "dtype", ["F64", "I64", "I32", "I8", "BOOL", "BF16", "U16", "U32", "F8_E4M3", "f16", "", None, 1, ["U8"], {}]
)
def test_another_dtype_is_corrupt(dtype: Any) -> None:
    for end in (1, 2, 4, 8):
        with pytest.raises(Corrupt, match="header"):
            read_tensors(header_of([1], dtype=dtype, end=end))


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32, np.int8, np.bool_, np.uint16, np.uint32])
def test_another_dtype_is_not_written(dtype: Any) -> None:
    with pytest.raises(Invalid):
        write_tensors({"a": np.zeros(1, dtype)}, {})


@pytest.mark.parametrize(
    "shape",
    [
        [0, 2**62],
        [2**62, 0],
        [0, 2**49],
        [0, 2**31, 2**31],
        [2**25, 0, 2**24],
        [2**63],
        [0, 10**4000],
        [0, -1],
        [-1, -1],
        [0] * 9,
        [1] * 9,
        [1.0],
        [True],
        ["1"],
        [None],
        {"0": 1},
        "1",
        1,
        None,
    ],
    ids=lambda shape: str(shape)[:20],
)
def test_a_shape_that_no_array_should_have_is_corrupt(shape: Any) -> None:
    """An empty array with a huge side has no bytes, so no length contradicts it: the library would fail on it."""
    for end in (0, 1):
        with pytest.raises(Corrupt, match="header"):
            read_tensors(header_of(shape, end=end))


def test_the_largest_shape_is_read_and_one_more_is_not() -> None:
    assert read_tensors(header_of([0, 2**48])).arrays["a"].shape == (0, 2**48)
    assert read_tensors(header_of([1] * 8, end=1)).arrays["a"].shape == (1,) * 8
    with pytest.raises(Corrupt, match="header"):
        read_tensors(header_of([0, 2**48 + 1]))


def test_a_header_is_as_large_as_it_may_be_and_no_larger() -> None:
    """With its length, a header fills whole blocks of 4096 bytes: the largest is 8 bytes below 64 KiB."""

    def written(spare: int) -> bytes:
        return write_tensors({}, {"a": "x" * (MAX_HEADER - 8 - len('{"__metadata__":{"a":""}}') - spare)})

    full = written(0)
    assert len(full) == MAX_HEADER
    assert read_tensors(full).metadata["a"] == "x" * (MAX_HEADER - 8 - 25)
    with pytest.raises(Invalid):
        written(-1)
    text = full[8:] + b" " * ALIGNMENT
    with pytest.raises(Corrupt, match="expected canonical safetensors"):
        read_tensors((MAX_HEADER - 8 + ALIGNMENT).to_bytes(8, "little") + text)


@pytest.mark.parametrize("length", [0, 1, 4087, 4089, 8184, 2**31, 2**63, 2**64 - 1])
def test_the_length_of_the_header_lies(length: int) -> None:
    data = write_tensors({"a": np.zeros(3, np.uint8)}, {})
    with pytest.raises(Corrupt):
        read_tensors(length.to_bytes(8, "little") + data[8:])


def test_no_byte_of_one_tensor_is_another_s() -> None:
    for offsets in ([0, 2], [1, 2], [2, 1], [0, -1], [0, 1, 1], [0], None):
        with pytest.raises(Corrupt):
            read_tensors(header_of([1], end=2, offsets=offsets))
    with pytest.raises(Corrupt):
        read_tensors(header_of([1], end=1) + b"\0")


def test_text_alone_is_metadata() -> None:
    for metadata in ({"a": 1}, {1: "a"}, {"a": b"b"}, {"a": None}):
        with pytest.raises(Invalid):
            write_tensors({}, metadata)  # type: ignore[arg-type]
