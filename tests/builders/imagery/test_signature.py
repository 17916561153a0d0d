"""The first bytes of a tile: what they say is what the decoder says, for whatever begins like no image."""

from __future__ import annotations

import gzip
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.descriptors.decoding import Undecodable, decode
from builders.example.terrain import render_jpeg
from builders.grid.tiles import Tile
from builders.imagery.png import write_png
from builders.imagery.signature import FAULTS, contradiction, fault_of

PNG = write_png(np.zeros((16, 16, 3), np.uint8))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "no bytes"),
        (gzip.compress(PNG, mtime=0), "gzip"),
        (zlib.compress(PNG, 1), "zlib"),
        (zlib.compress(PNG, 9), "zlib"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd"),
        (b"\x1a\x10\x0a\x05roads", "vector tile"),
        (b"\n <html>404 Not Found</html>", "text"),
        (b'{"message": "quota"}', "text"),
        (b"GIF89a", "not a JPEG, PNG or WebP"),
        (b"RIFF\0\0\0\0WAVE", "not a JPEG, PNG or WebP"),
        (b"\0" * 100, "not a JPEG, PNG or WebP"),
    ],
)
def test_what_is_no_image_is_named_without_decoding(data: bytes, word: str) -> None:
    assert word in FAULTS[fault_of(data)]
    with pytest.raises(Undecodable, match=word):
        decode(data)


def test_images_have_no_fault_whatever_follows_their_first_bytes() -> None:
    for data in (PNG, render_jpeg(Tile(15, 7355, 11519)), b"RIFF\x24\0\0\0WEBPVP8 ", PNG[:9]):
        assert fault_of(data) == 0


@given(st.binary(max_size=200))
def test_a_tile_with_a_fault_never_decodes(data: bytes) -> None:
    if fault := fault_of(data):
        with pytest.raises(Undecodable) as caught:
            decode(data)
        assert caught.value.message == FAULTS[fault]


JPEG = render_jpeg(Tile(15, 7355, 11519))


@pytest.mark.parametrize(
    ("stated", "data"),
    [
        ("jpg", JPEG), ("jpeg", JPEG), ("JPG", JPEG), (" image/jpeg ", JPEG), ("image/jpg", JPEG), (".jfif", JPEG),
        ("png", PNG), ("image/png", PNG), ("png8", PNG), ("PNG32", PNG), ("webp", b"RIFF\x24\0\0\0WEBPVP8 "),
        ("", PNG), ("hybrid", PNG), ("mixed", JPEG), ("png", b"no image"), ("jpg", b""),
    ],
)  # fmt: skip
def test_a_format_in_any_usual_spelling_agrees(stated: str, data: bytes) -> None:
    assert contradiction(stated, data) == ""


@pytest.mark.parametrize(
    ("stated", "data", "real"),
    [("png", JPEG, "JPEG"), ("image/jpeg", PNG, "PNG"), ("pbf", JPEG, "JPEG"), ("anything", PNG, "PNG"),
     ("jpg and png", PNG, "PNG"), ("x" * 10**6, JPEG, "JPEG")],
)  # fmt: skip
def test_a_format_that_the_bytes_contradict_is_told(stated: str, data: bytes, real: str) -> None:
    text = contradiction(stated, data)
    assert repr(stated[:40]) in text
    assert f"are {real}" in text
    assert len(text) < 200
