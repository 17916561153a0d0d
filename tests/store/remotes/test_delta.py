"""An object as a difference: what comes out is the object, or nothing."""

from __future__ import annotations

import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt
from store.format.ids import ObjectId
from store.remotes.delta import applied, difference, is_worth

zstd: Any = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
BASE = bytes(range(256)) * 400
DATA = BASE[:70_000] + b"new" + BASE[70_000:]
FRAME = difference(BASE, DATA)


@given(base=st.binary(max_size=2000), data=st.binary(max_size=2000), copied=st.integers(0, 2000))
def test_what_was_taken_apart_is_put_together(base: bytes, data: bytes, copied: int) -> None:
    data += base[:copied]
    frame = difference(base, data)
    assert applied(base, frame, ObjectId.of(data), len(data)) == data


def test_a_difference_is_as_small_as_what_is_new() -> None:
    assert len(FRAME) < 200
    assert is_worth(FRAME, len(DATA))
    assert not is_worth(bytes(len(DATA)), len(DATA))


@pytest.mark.parametrize(
    ("base", "frame"),
    [
        (b"", FRAME),
        (BASE[:-1], FRAME),
        (bytes(len(BASE)), FRAME),
        (BASE, b""),
        (BASE, FRAME[:-1]),
        (BASE, FRAME + b"\0"),
        (BASE, FRAME + FRAME),
        (BASE, b"\0" * 40),
        (BASE, difference(BASE, DATA + b"more")),
        (BASE, difference(BASE, DATA[:-1])),
        (BASE, difference(BASE, DATA[:-1] + b"?")),
        (BASE, DATA),
    ],
    ids=["no base", "a shorter base", "another base", "nothing", "cut off", "a byte more", "a frame more", "no frame",
         "more bytes", "fewer bytes", "other bytes", "the object itself"],
)  # fmt: skip
def test_a_wrong_difference_gives_nothing(base: bytes, frame: bytes) -> None:
    with pytest.raises(Corrupt) as caught:
        applied(base, frame, ObjectId.of(DATA), len(DATA))
    assert caught.value.kind == "bad-delta"


def test_a_frame_of_far_more_bytes_takes_no_memory() -> None:
    """With a window that is no reason to refuse it before."""
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 16})
    bomb = b"".join(compressor.compress(bytes(2**20)) for _ in range(64)) + compressor.flush()
    tracemalloc.start()
    with pytest.raises(Corrupt, match="other bytes"):
        applied(BASE, bomb, ObjectId.of(DATA), len(DATA))
    assert tracemalloc.get_traced_memory()[1] < 10 * len(DATA)
    tracemalloc.stop()


def test_a_frame_without_an_end_is_none() -> None:
    compressor = zstd.ZstdCompressor(zstd_dict=zstd.ZstdDict(BASE, is_raw=True).as_prefix)
    frame = compressor.compress(DATA, zstd.ZstdCompressor.FLUSH_BLOCK)
    with pytest.raises(Corrupt, match="other bytes"):
        applied(BASE, frame, ObjectId.of(DATA), len(DATA))
    assert applied(BASE, frame + compressor.flush(), ObjectId.of(DATA), len(DATA)) == DATA


def test_a_frame_does_not_ask_for_a_window_beyond_what_there_is() -> None:
    options = {zstd.CompressionParameter.window_log: 27}
    compressor = zstd.ZstdCompressor(options=options)
    frame = compressor.compress(DATA, zstd.ZstdCompressor.FLUSH_BLOCK) + compressor.flush()
    with pytest.raises(Corrupt, match="does not apply"):
        applied(b"", frame, ObjectId.of(DATA), len(DATA))
