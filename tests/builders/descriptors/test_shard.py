"""Shards: only canonical bytes are read, and the stock reader opens them."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from builders.descriptors.shard import MAX_DIMENSION, Descriptors, read_shard, write_shard
from builders.descriptors.tensors import MAX_HEADER, write_tensors
from store.errors import Corrupt, Invalid

METADATA = {"zoom": "17", "backbone": "Größe"}


def some(count: int = 3, width: int = 5, dtype: Any = np.float16) -> tuple[np.ndarray[Any, Any], Descriptors]:
    numbers = np.random.default_rng(count).standard_normal((count, width)).astype(dtype)
    return np.arange(10, 10 + 2 * count, 2, dtype=np.uint64), numbers


@given(
    st.sets(st.integers(0, 2**64 - 1), max_size=20),
    st.integers(1, 9),
    st.sampled_from([np.float16, np.float32]),
    st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3),
)
def test_reading_gives_what_was_written(ids: set[int], width: int, dtype: Any, metadata: dict[str, str]) -> None:
    tiles = np.array(sorted(ids), np.uint64)
    descriptors = np.random.default_rng(1).standard_normal((len(ids), width)).astype(dtype)
    try:
        data = write_shard(tiles, descriptors, metadata)
    except Invalid:  # a lone surrogate has no UTF-8
        assert any("\ud800" <= c <= "\udfff" for pair in metadata.items() for text in pair for c in text)
        return
    shard = read_shard(data)
    assert shard.tiles.tolist() == tiles.tolist()
    assert shard.descriptors.dtype == dtype
    assert shard.descriptors.tobytes() == descriptors.tobytes()
    assert shard.metadata == metadata
    assert write_shard(*shard) == data
    assert (8 + int.from_bytes(data[:8], "little")) % 4096 == 0


@pytest.mark.parametrize(("count", "dtype"), [(3, np.float16), (3, np.float32), (0, np.float16)])
def test_the_stock_reader_opens_it(count: int, dtype: Any) -> None:
    tiles, descriptors = some(count, dtype=dtype)
    found = safetensors.numpy.load(write_shard(tiles, descriptors, METADATA))
    assert set(found) == {"tiles", "descriptors"}
    assert (found["tiles"] == tiles).all()
    assert found["descriptors"].dtype == dtype
    assert (found["descriptors"] == descriptors).all()


def test_the_bytes_are_the_format() -> None:
    """Not to be changed: shards that were stored have these bytes."""
    data = write_shard(np.array([5, 9], np.uint64), np.array([[1, 2], [3, -4]], np.float16), {"b": "2", "a": "1"})
    header = (
        b'{"__metadata__":{"a":"1","b":"2"},'
        b'"descriptors":{"data_offsets":[16,24],"dtype":"F16","shape":[2,2]},'
        b'"tiles":{"data_offsets":[0,16],"dtype":"U64","shape":[2]}}'
    )
    assert data == (4088).to_bytes(8, "little") + header.ljust(4088) + bytes.fromhex(
        "05000000000000000900000000000000003c0040004200c4"
    )


def test_the_bytes_do_not_depend_on_layout_or_order() -> None:
    tiles, descriptors = some(4, 6, np.float32)
    data = write_shard(tiles, descriptors, METADATA)
    assert write_shard(tiles, np.asfortranarray(descriptors), dict(reversed(METADATA.items()))) == data
    assert write_shard(tiles.astype(">u8"), descriptors.astype(">f4"), METADATA) == data


def test_reading_copies_nothing() -> None:
    data = bytearray(write_shard(*some(), {}))
    shard = read_shard(memoryview(data))
    data[-2:] = np.float16(7).tobytes()
    assert shard.descriptors[-1, -1] == 7


@given(st.data())
def test_one_byte_changed_in_the_header_is_corrupt_or_canonical(data: st.DataObject) -> None:
    shard = bytearray(write_shard(*some(), METADATA))
    end = 8 + len(bytes(shard[8:4096]).rstrip())
    place = data.draw(st.one_of(st.integers(0, end), st.integers(0, 4095)))
    shard[place] ^= data.draw(st.integers(1, 255))
    changed = bytes(shard)
    with suppress(Corrupt):
        assert write_shard(*read_shard(changed)) == changed


@given(st.binary(max_size=64), st.integers(0, 4096))
def test_bytes_put_anywhere_are_corrupt_or_canonical(noise: bytes, place: int) -> None:
    shard = write_shard(*some(), METADATA)
    changed = shard[:place] + noise + shard[place + len(noise) :]
    with suppress(Corrupt):
        assert write_shard(*read_shard(changed)) == changed


def rewritten(header: Any) -> bytes:
    """The shard of `some()` under another header."""
    text = header if isinstance(header, bytes) else json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    size = -(-(len(text) + 8) // 4096) * 4096 - 8
    return size.to_bytes(8, "little") + text.ljust(size) + write_shard(*some(), {})[4096:]


def changed(name: str, key: str, value: object) -> Any:
    header = {
        "__metadata__": {},
        "descriptors": {"data_offsets": [24, 54], "dtype": "F16", "shape": [3, 5]},
        "tiles": {"data_offsets": [0, 24], "dtype": "U64", "shape": [3]},
    }
    header[name] = {**header[name], key: value}
    return header


def test_the_helper_writes_a_whole_shard() -> None:
    assert read_shard(rewritten(changed("tiles", "dtype", "U64"))).tiles.tolist() == [10, 12, 14]


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 60000,
        b'{"a":' * 10000,
        b'{"a":' + b"9" * 20000 + b"}",
        changed("tiles", "dtype", "I64"),
        changed("tiles", "shape", [4]),
        changed("tiles", "shape", [3, 1]),
        changed("tiles", "data_offsets", [0, 32]),
        changed("tiles", "extra", 1),
        changed("descriptors", "dtype", "BF16"),
        changed("descriptors", "dtype", ["F16"]),
        changed("descriptors", "shape", [3, 6]),
        changed("descriptors", "shape", [5, 3]),
        changed("descriptors", "shape", [3, 0]),
        changed("descriptors", "shape", [-3, -5]),
        changed("descriptors", "shape", [3.0, 5]),
        changed("descriptors", "shape", [True, 5]),
        changed("descriptors", "shape", [2**62, 2**62]),
        changed("descriptors", "data_offsets", [24, 55]),
        changed("__metadata__", "a", 1),
        changed("__metadata__", "a", None),
        {**changed("tiles", "dtype", "U64"), "other": {}},
        {**changed("tiles", "dtype", "U64"), "__metadata__": []},
        json.dumps(changed("tiles", "dtype", "U64"), sort_keys=True).encode(),
        b'{"__metadata__":{"a":"\\ud800"},"descriptors":{"data_offsets":[24,54],"dtype":"F16","shape":[3,5]},'
        b'"tiles":{"data_offsets":[0,24],"dtype":"U64","shape":[3]}}',
    ],
)
def test_a_header_that_is_not_canonical_is_corrupt(header: Any) -> None:
    with pytest.raises(Corrupt):
        read_shard(rewritten(header))


def test_damage_beyond_the_header_is_corrupt() -> None:
    data = write_shard(*some(), METADATA)
    unsorted = bytearray(data)
    unsorted[4096:4104] = (12).to_bytes(8, "little")
    for bad in (b"", data[:4], data[:4000], data[:4096], data[:-1], data + b"\0", bytes(unsorted)):
        with pytest.raises(Corrupt):
            read_shard(bad)


def test_what_is_no_shard_is_not_written() -> None:
    tiles, descriptors = some()
    for bad in (
        lambda: write_shard(tiles[::-1], descriptors, {}),
        lambda: write_shard(np.array([1, 1, 2], np.uint64), descriptors, {}),
        lambda: write_shard(tiles[:2], descriptors, {}),
        lambda: write_shard(tiles.astype(np.int64), descriptors, {}),  # type: ignore[arg-type]
        lambda: write_shard(tiles, descriptors.astype(np.float64), {}),  # type: ignore[arg-type]
        lambda: write_shard(tiles, descriptors[:, :0], {}),
        lambda: write_shard(tiles, descriptors.ravel(), {}),
        lambda: write_shard(tiles, descriptors, {"a": 1}),  # type: ignore[dict-item]
        lambda: write_shard(tiles, descriptors, {"a": "x" * MAX_HEADER}),
    ):
        with pytest.raises(Invalid):
            bad()


def test_a_descriptor_is_as_long_as_it_may_be_and_no_longer() -> None:
    none = np.zeros(0, np.uint64)
    widest = write_shard(none, np.zeros((0, MAX_DIMENSION), np.float16), {})
    assert read_shard(widest).descriptors.shape == (0, MAX_DIMENSION)
    too_wide = np.zeros((0, MAX_DIMENSION + 1), np.float16)
    with pytest.raises(Invalid):
        write_shard(none, too_wide, {})
    with pytest.raises(Corrupt):
        read_shard(write_tensors({"tiles": none, "descriptors": too_wide}, {}))


def test_a_large_shard_is_what_it_was() -> None:
    tiles = np.arange(256, dtype=np.uint64)
    data = write_shard(tiles, np.zeros((256, 2048), np.float16), {})
    assert len(data) == 4096 + 256 * (8 + 2 * 2048)
    assert hashlib.sha256(data).hexdigest() == hashlib.sha256(write_shard(*read_shard(data))).hexdigest()
