"""The parts of an image file: what is counted, and that nothing hides a part."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from builders.descriptors.decoding import BadTile, decode
from builders.example.terrain import render
from builders.grid.tiles import MAX_TILE_BYTES, Tile
from builders.imagery.structure import MAX_PARTS, MAX_SCANS, objection, objection_to_exif, size_of

PIXELS = render(Tile(15, 7357, 11522))
END = b"\xff\xd9"


def encoded(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


JPEG, PROGRESSIVE, PNG = encoded("JPEG"), encoded("JPEG", progressive=True), encoded("PNG")
WEBP = encoded("WEBP", lossless=True)


def segment(code: int, body: bytes) -> bytes:
    return bytes((0xFF, code)) + struct.pack(">H", len(body) + 2) + body


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def scans(count: int, between: bytes = b"") -> bytes:
    """A JPEG with so many scans, and these bytes before each of those that are added."""
    last = PROGRESSIVE.rindex(b"\xff\xda")
    had = scans_of(PROGRESSIVE)
    return PROGRESSIVE[:-2] + (between + PROGRESSIVE[last:-2]) * (count - had) + END


def scans_of(data: bytes) -> int:
    """The scans of a progressive JPEG without a thumbnail: no other bytes look like the marker of one."""
    return data.count(b"\xff\xda")


def in_png(*chunks: bytes) -> bytes:
    return PNG[:33] + b"".join(chunks) + PNG[33:]


def exif_of(entries: int, size: int) -> bytes:
    """EXIF data of which each entry names the same bytes."""
    head = b"II*\0" + struct.pack("<IH", 8, entries)
    rows = b"".join(struct.pack("<HHII", 0x8000 + i, 7, size // 2, 0) for i in range(entries))
    return (head + rows).ljust(size, b"\0")


PROFILE = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 20)))

BOMBS = {
    "scans": scans(MAX_SCANS + 1),
    "scans behind restarts": scans(MAX_SCANS + 1, b"\xff\xd3" * 40),
    "scans behind a second start": scans(MAX_SCANS + 1, b"\xff\xd8"),
    "scans behind fill bytes": scans(MAX_SCANS + 1, b"\xff" * 9),
    "scans behind stray bytes": scans(MAX_SCANS + 1, b"junk\xff\0"),
    "scans behind an end in a comment": scans(MAX_SCANS + 1, segment(0xFE, END * 4)),
    "comments": JPEG[:2] + segment(0xFE, b"") * (MAX_PARTS + 1) + JPEG[2:],
    "profiles of a JPEG": JPEG[:2] + segment(0xE2, b"ICC_PROFILE\0") * (MAX_PARTS + 1) + JPEG[2:],
    "EXIF segments": JPEG[:2] + segment(0xE1, b"Exif\0\0" + bytes(1000)) * 17 + JPEG[2:],
    "EXIF entries": JPEG[:2] + segment(0xE1, b"Exif\0\0" + exif_of(4000, 60_000)) + JPEG[2:],
    "EXIF entries in two segments": JPEG[:2]
    + segment(0xE1, b"Exif\0\0" + exif_of(4000, 60_000)[:20_000])
    + segment(0xE1, b"Exif\0\0" + exif_of(4000, 60_000)[20_000:])
    + JPEG[2:],
    "empty chunks of pixels": in_png(chunk(b"IDAT") * 70_000),
    "frames": in_png(chunk(b"fdAT", b"\0" * 4) * 70_000),
    "texts": in_png(chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20))) * (MAX_PARTS + 1)),
    "profiles": in_png(PROFILE, PROFILE),
    "a profile behind the pixels": PNG[:-12] + PROFILE * 2 + PNG[-12:],
    "chunks of a WebP": WEBP + b"JUNK\0\0\0\0" * (MAX_PARTS + 1),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_refused(data: bytes) -> None:
    assert objection(data)


HONEST = {
    "JPEG": JPEG,
    "progressive": PROGRESSIVE,
    "as many scans as may be": scans(MAX_SCANS),
    "a profile of megabytes": JPEG[:2] + segment(0xE2, b"ICC_PROFILE\0" + bytes(60_000)) * 60 + JPEG[2:],
    "a restart at each row": encoded("JPEG", restart_marker_rows=1),
    "what follows the end": JPEG + scans(MAX_SCANS + 1),
    "EXIF": encoded("JPEG", exif=Image.Exif().tobytes()),
    "EXIF as large as may be": encoded("JPEG", exif=b"Exif\0\0" + exif_of(60, 60_000)),
    "PNG": PNG,
    "a chunk for each row": in_png(*[chunk(b"IDAT")] * 4096),
    "a PNG with a profile": in_png(PROFILE),
    "WebP": WEBP,
    "an animation": encoded("WEBP", save_all=True, append_images=[Image.fromarray(PIXELS[::-1])] * 3),
}


@pytest.mark.parametrize("data", HONEST.values(), ids=HONEST)
def test_what_writers_make_is_not_refused(data: bytes) -> None:
    assert objection(data) == ""


def test_exif_data_with_and_without_a_prefix() -> None:
    for exif in (exif_of(4000, 60_000), b"Exif\0\0" + exif_of(4000, 60_000)):
        assert objection_to_exif(exif)
    for exif in (b"", b"Exif\0\0", b"II*\0", b"MM\0*\xff\xff\xff\xff", exif_of(1000, 60_000), b"\xff" * 60):
        assert objection_to_exif(exif) == ""


START = st.sampled_from([JPEG[:3], PNG[:8], WEBP[:12], JPEG[:400], PNG[:80], WEBP[:60]])


@given(START, st.binary(max_size=300))
def test_any_bytes_have_an_answer(start: bytes, rest: bytes) -> None:
    assert isinstance(objection(start + rest), str)


@pytest.mark.parametrize("fill", [b"\xff", b"\0", b"\xff\0", b"\xff\xd0", b"\xff\xd8", b"\xff\xfe\0\2"])
@pytest.mark.parametrize("start", [JPEG[:400], PNG[:33], WEBP[:30]], ids=["JPEG", "PNG", "WebP"])
def test_the_largest_tile_has_an_answer(start: bytes, fill: bytes) -> None:
    assert isinstance(objection(start + fill * ((MAX_TILE_BYTES - len(start)) // len(fill))), str)


def test_noise_has_an_answer() -> None:
    noise = np.random.default_rng(7).integers(0, 256, 1 << 20, np.uint8).tobytes()
    for start in (JPEG[:3], PNG[:8], WEBP[:12]):
        assert isinstance(objection(start + noise), str)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (300, 17), (16383, 2)])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}), ("JPEG", {"progressive": True, "comment": b"\xff\xc0 \xff\xd9" * 5}),
        ("JPEG", {"exif": exif_of(1, 99)}),
        ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("WEBP", {"exif": exif_of(1, 99)}),
    ],
)  # fmt: skip
def test_the_size_in_the_header_is_that_of_the_decoder(
    kind: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    file = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(file, kind, **options)
    data = file.getvalue()
    assert size_of(data) == Image.open(io.BytesIO(data)).size == size


@given(st.sampled_from([JPEG, PROGRESSIVE, PNG, WEBP]), st.data())
def test_a_size_is_that_of_whatever_decodes(data: bytes, draw: st.DataObject) -> None:
    """A tile of the right size is never called one of another size."""
    at = draw.draw(st.integers(0, min(60, len(data) - 1)))
    changed = data[:at] + bytes([draw.draw(st.integers(0, 255))]) + data[at + 1 :]
    try:
        image = decode(changed)
    except BadTile:
        size_of(changed)
        return
    assert size_of(changed) in (None, image.size)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff", JPEG[:20], PNG[:20], WEBP[:25], b"\x89PNG\r\n\x1a\n" + bytes(40)]
)
def test_what_has_no_whole_header_has_no_size(data: bytes) -> None:
    assert size_of(data) is None
