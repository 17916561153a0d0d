"""ZIP files from outside: counted before they are opened, and damaged in one way."""

from __future__ import annotations

import contextlib
import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.zipped import opened_zip, read_member


def zipped(count: int, packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for n in range(count):
            archive.writestr(f"{n}", b"content" * 20)
    return file.getvalue()


def contents(data: bytes, limit: int = 1000) -> list[bytes]:
    with opened_zip(data, 4) as archive:
        return [read_member(archive, member, limit) for member in archive.infolist()]


def test_members_are_read_up_to_a_limit() -> None:
    assert contents(zipped(4)) == [b"content" * 20] * 4
    assert contents(zipped(1), 5) == [b"conten"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (zipped(5), "it has 5 members, at most 4 are read"),
        (zipped(1, zipfile.ZIP_LZMA), "packed in a rare way"),
        (zipped(1)[:-4], "the ZIP is damaged"),
        (b"", "the ZIP is damaged"),
    ],
)
def test_refuses(data: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        contents(data)


@settings(max_examples=300, deadline=None)
@given(at=st.integers(1, 150), to=st.binary(min_size=1, max_size=8))
def test_whatever_the_directory_says_is_a_value_error_or_read(at: int, to: bytes) -> None:
    data = bytearray(zipped(2))
    data[len(data) - at : len(data) - at + len(to)] = to
    with contextlib.suppress(ValueError):
        contents(bytes(data))
