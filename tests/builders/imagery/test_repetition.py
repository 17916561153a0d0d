"""Repeated tiles: which show the picture of another one, what a summary says, and that metadata do not count."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from builders.grid.tiles import tile_from_id
from builders.imagery.repetition import picture_of, repetition

PIXELS = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_a_tile_is_repeated_where_another_shows_its_picture(pictures: list[int]) -> None:
    ids = np.arange(1000, 1000 + len(pictures), dtype=np.uint64)
    found = repetition(ids, np.array(pictures, np.uint64))
    counts = {picture: count for picture, count in Counter(pictures).items() if picture and count > 1}
    assert (found.pictures >= 0).tolist() == [picture in counts for picture in pictures]
    numbers = found.pictures.tolist()
    pairs = {(number, picture) for number, picture in zip(numbers, pictures, strict=True) if number >= 0}
    assert len(pairs) == len({number for number, _ in pairs}) == len(counts)
    summary = found.summary()
    assert (summary.tiles, summary.pictures) == (sum(counts.values()), len(counts))
    assert summary.most == max(counts.values(), default=0)
    assert len(summary.examples) == min(summary.most, 3)
    named = {picture for n, picture in zip(ids, pictures, strict=True) if str(tile_from_id(int(n))) in summary.examples}
    assert len(named) <= 1


def test_nothing_at_all_repeats_nothing() -> None:
    assert repetition(np.empty(0, np.uint64), np.empty(0, np.uint64)).summary().tiles == 0


def encoded(form: str, text: str, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]] = PIXELS) -> bytes:
    """An image with a text in its metadata, in every way that the form has; none where it is empty."""
    image, file, options = Image.fromarray(pixels), io.BytesIO(), {}
    if text:
        exif = image.getexif()
        exif[0x0132] = text
        options = {"exif": exif, "icc_profile": text.encode()}
        if form == "JPEG":
            options["comment"] = text.encode()
        if form == "PNG":
            about = PngInfo()
            about.add_text("date:create", text)
            about.add_itxt("note", text)
            options["pnginfo"] = about
        if form == "WEBP":
            options["xmp"] = text.encode()
    lossless = {"lossless": True} if form == "WEBP" else {}
    image.save(file, form, **options, **lossless)
    return file.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_metadata_are_no_part_of_the_picture(form: str) -> None:
    files = [encoded(form, text) for text in ("", "2026-11-23 10:00:00", "2026-11-23 10:00:01, by another tool")]
    assert len(set(files)) == 3
    assert len(set(map(picture_of, files))) == 1
    other = PIXELS.copy()
    other[8, 8] ^= 255
    assert picture_of(encoded(form, "", other)) != picture_of(files[0])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@given(more=st.binary(max_size=40))
def test_what_follows_the_end_is_no_part_of_the_picture(form: str, more: bytes) -> None:
    """A server adds a number or a time to each answer, and no decoder minds."""
    whole = encoded(form, "when")
    assert picture_of(whole + more) == picture_of(whole)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@given(data=st.data())
def test_a_damaged_file_is_a_picture_of_its_own(form: str, data: st.DataObject) -> None:
    """Wherever it was cut: a cut file has no end and no metadata to leave out beyond it."""
    whole = encoded(form, "when")
    length = data.draw(st.integers(16, len(whole) - 1))
    assert 0 < picture_of(whole[:length]) < 2**64
    assert picture_of(whole[:length] + b"more") != picture_of(whole[:length])
    flipped = bytearray(whole)
    flipped[data.draw(st.integers(12, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    assert 0 < picture_of(bytes(flipped)) < 2**64


def test_transparency_is_part_of_a_png() -> None:
    palette, files = Image.fromarray(PIXELS).quantize(8), []
    for opaque in (None, 3, 4):
        file = io.BytesIO()
        palette.save(file, "PNG", **({} if opaque is None else {"transparency": opaque}))
        files.append(file.getvalue())
    assert len(set(map(picture_of, files))) == 3
