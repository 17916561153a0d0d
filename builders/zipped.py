"""ZIP files from outside, in memory: a KMZ, arrays of numpy. Their directory is counted before it is read. Pure.

Law: whatever is wrong with the bytes is a ValueError, also where it shows in the middle of reading.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

_ENTRY = b"PK\x01\x02"  # what an entry of the directory begins with
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    OSError,
    ValueError,
)


@contextmanager
def opened_zip(data: bytes, most: int) -> Iterator[zipfile.ZipFile]:
    """A context with the ZIP file in `data`. Raises ValueError for more than `most` members, and for damage that
    opening finds, or reading within the context."""
    # zipfile makes an object of each entry when it opens a file. Packed bytes may hold a few of these four by chance.
    if (entries := data.count(_ENTRY)) > most:
        raise ValueError(f"it has {entries} members, at most {most} are read")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield archive
    except _DAMAGE as error:
        raise ValueError(f"the ZIP is damaged: {error}") from error


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    """The bytes of a member, at most one more than `limit`. Raises ValueError for one that is encrypted, or packed
    otherwise than by deflate."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise ValueError("it is encrypted, or packed in a rare way")
    with archive.open(member) as file:
        return file.read(limit + 1)
