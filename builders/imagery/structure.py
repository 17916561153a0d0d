"""The parts of an image file, counted before a decoder gets the bytes, and its size. Pure.

A decoder takes time for each scan of a JPEG, however few bytes it has, memory for each entry of EXIF data that names
the same bytes again, and Python time for each chunk of a PNG. So some kilobytes may ask for minutes or gigabytes. The
limits here are far above what writers make: a progressive JPEG has about ten scans.

Law: `objection` and `size_of` read every byte at most once, and take memory for none of them.
"""

from __future__ import annotations

import re
from typing import Literal

from builders.imagery.signature import JPEG, PNG, is_webp

MAX_SCANS = 100
# Segments of a JPEG; chunks of a PNG but for those of pixels; chunks of a WebP.
MAX_PARTS = 1024
MAX_PIXEL_CHUNKS = 1 << 16
MAX_EXIF_SEGMENTS = 16
# Entries of EXIF data by their bytes: what a reader copies where each entry names all bytes.
MAX_EXIF_COPIES = 64 << 20
# A marker with a segment, and SOI, EOI and TEM, but no restart and no FF of the pixels (ITU T.81, B.1.1).
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_WITHOUT_LENGTH = (0x01, 0xD8)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF, but DHT, JPG and DAC
_EXIF = b"Exif\0\0"


def objection(data: bytes) -> str:
    """Why no decoder may get the bytes of a JPEG, PNG or WebP file; "" where one may."""
    if data.startswith(JPEG):
        return _of_jpeg(data)
    return _of_png(data) if data.startswith(PNG) else _of_webp(data)


def size_of(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels by the header of a JPEG, PNG or WebP file; None where it gives none."""
    if data.startswith(JPEG):
        return _size_of_jpeg(data)
    if data.startswith(PNG):
        whole = data[12:16] == b"IHDR" and len(data) >= 24
        return (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) if whole else None
    return _size_of_webp(data) if is_webp(data) else None


def _size_of_jpeg(data: bytes) -> tuple[int, int] | None:
    """By the first frame header (ITU T.81, B.2.2)."""
    at = 2
    for _ in range(MAX_PARTS):
        marker = _MARKER.search(data, at)
        if marker is None or data[marker.end() - 1] in (_SCAN, _END):
            return None
        at = marker.end()
        code = data[at - 1]
        if code in _FRAMES:
            whole = len(data) >= at + 7
            height, width = (int.from_bytes(data[at + k : at + k + 2], "big") for k in (3, 5))
            return (width, height) if whole else None
        at += 0 if code in _WITHOUT_LENGTH else int.from_bytes(data[at : at + 2], "big")
    return None


def _size_of_webp(data: bytes) -> tuple[int, int] | None:
    """By the first chunk (RFC 9649, 2.5 to 2.7; RFC 6386, 9.1)."""
    if len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = (int.from_bytes(data[k : k + 2], "little") & 0x3FFF for k in (26, 28))
    return (width, height) if kind == b"VP8 " else None


def objection_to_exif(exif: bytes) -> str:
    """Why no reader may get these EXIF data (with or without their prefix); "" where one may."""
    tiff = exif[:24].removeprefix(_EXIF).removeprefix(_EXIF)
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
    start = len(exif[:24]) - len(tiff) + int.from_bytes(tiff[4:8], order)
    entries = int.from_bytes(exif[start : start + 2], order)
    if entries * len(exif) > MAX_EXIF_COPIES:
        return f"its EXIF data have {entries} entries in {len(exif)} bytes"
    return ""


def _of_jpeg(data: bytes) -> str:
    segments = scans = 0
    exif: list[bytes] = []
    at = 2
    while marker := _MARKER.search(data, at):
        at = marker.end()
        code = data[at - 1]
        if code == _END:
            break
        length = 0 if code in _WITHOUT_LENGTH else int.from_bytes(data[at : at + 2], "big")
        segments += 1
        scans += code == _SCAN
        if code == _APP1 and data.startswith(_EXIF, at + 2):
            exif.append(data[at + 2 + (len(_EXIF) if exif else 0) : at + length])
        if scans > MAX_SCANS:
            return f"it has more than {MAX_SCANS} scans"
        if segments > MAX_PARTS:
            return f"it has more than {MAX_PARTS} segments"
        if len(exif) > MAX_EXIF_SEGMENTS:
            return f"its EXIF data are in more than {MAX_EXIF_SEGMENTS} segments"
        at += length
    return objection_to_exif(b"".join(exif))


def _of_png(data: bytes) -> str:
    chunks = {True: 0, False: 0}
    profiles = 0
    at = len(PNG)
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 8]
        chunks[kind in (b"IDAT", b"fdAT")] += 1
        profiles += kind == b"iCCP"
        # A profile is inflated wherever it stands; Pillow bounds the text chunks together, and profiles one by one.
        if profiles > 1:
            return "it has more than one colour profile"
        if chunks[False] > MAX_PARTS or chunks[True] > MAX_PIXEL_CHUNKS:
            return f"it has more than {MAX_PIXEL_CHUNKS} chunks of pixels, or {MAX_PARTS} others"
        if kind == b"IEND":
            break
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return ""


def _of_webp(data: bytes) -> str:
    chunks = 0
    at = 12
    while at + 8 <= len(data):
        chunks += 1
        if chunks > MAX_PARTS:
            return f"it has more than {MAX_PARTS} chunks"
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return ""
