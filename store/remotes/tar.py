"""The tar of a bag (FORMAT.md 12): the few headers of POSIX tar that a pack writes, and their strict reader.

Every program that reads tar reads a bag. This reader takes only what this module writes, byte for byte: regular files
of root, without times, and one comment at the head. A header is parsed, rendered again and compared.

Python's tarfile is not used. It follows GNU's long names, sparse maps and base-256 numbers, keeps pax records of any
size in memory, looks for the next header after a bad one, and takes a stream that ends at a header for a whole one.

Laws: `parse(render(m)) == m`, and no other bytes parse.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from store.disk.media import CHUNK
from store.errors import Corrupt, Unavailable
from store.values import dataclass

BLOCK = 512
END = bytes(2 * BLOCK)
# The size field has eleven octal digits; a larger file has its size in a pax record (POSIX, pax, "extended header").
_OCTAL_MAX = 8**11 - 1
SIZE_MAX = 2**63 - 1
_NAME_MAX, _PREFIX_MAX = 100, 155
_RECORD = re.compile(rb"[0-9]{1,3} (comment|size)=([\x20-\x7e]{1,400})\n")
_PAX_NAME = "PaxHeader"
_TYPES = {
    b"1": "a hard link",
    b"2": "a symlink",
    b"3": "a device",
    b"4": "a device",
    b"5": "a directory",
    b"6": "a fifo",
    b"S": "a sparse file",
}
_REMEDY = "carry the bag again from where it was packed"


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a bag: its name in the store, and its size in bytes."""

    name: str
    size: int

    @property
    def padded(self) -> int:
        """The bytes that the member takes in the bag, its header included."""
        return len(render(self)) + -(-self.size // BLOCK) * BLOCK


def render(member: Member) -> bytes:
    """Return the header of a member: one block, or three for a size of 8 GiB or more."""
    if member.size <= _OCTAL_MAX:
        return _block(member.name, member.size, b"0")
    return _pax(b"x", "size", str(member.size)) + _block(member.name, 0, b"0")


def render_comment(text: str) -> bytes:
    """Return the head of a bag: a comment of at most 400 ASCII characters, which programs that read tar pass over."""
    return _pax(b"g", "comment", text)


def padding(size: int) -> bytes:
    """Return the zeros that follow `size` bytes up to the next block."""
    return bytes(-size % BLOCK)


def _pax(kind: bytes, key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode("ascii")
    # The record begins with its own length in decimal digits, these included.
    length = next(n for digits in (1, 2, 3) if len(str(n := len(rest) + digits)) == digits)
    record = str(length).encode() + rest
    return _block(_PAX_NAME, len(record), kind) + record + padding(len(record))


def _block(name: str, size: int, kind: bytes) -> bytes:
    prefix, last = "", name
    if len(name) > _NAME_MAX:
        cut = name.rindex("/", 0, _PREFIX_MAX + 1)
        prefix, last = name[:cut], name[cut + 1 :]
    mode = 0o444 if name.startswith("objects/") else 0o644
    fields = (
        (last.encode("ascii"), 100),
        (b"%07o" % mode, 8),
        (b"%07o" % 0, 8),  # uid
        (b"%07o" % 0, 8),  # gid
        (b"%011o" % size, 12),
        (b"%011o" % 0, 12),  # mtime
        (b" " * 8, 8),  # the checksum is that of a header with eight spaces here
        (kind, 1),
        (b"", 100),  # link
        (b"ustar\x0000", 8),
        (b"", 32),  # user
        (b"", 32),  # group
        (b"%07o" % 0, 8),
        (b"%07o" % 0, 8),
        (prefix.encode("ascii"), 155),
        (b"", 12),
    )
    block = b"".join(value.ljust(width, b"\0") for value, width in fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


class TarReader:
    """Reads a bag from a stream, once and forwards. Memory is that of one chunk.

    `what` names the bag in messages. Raises Corrupt for everything that this module would not write, with the kinds of
    FORMAT.md 12, and Unavailable where the stream cannot be read.
    """

    def __init__(self, stream: BinaryIO, what: str) -> None:
        self.what = what
        self._stream = stream
        self._at = 0
        self._left = 0  # bytes of the current member that were not read yet

    def comment(self) -> str:
        """Return the comment at the head."""
        data = self._read(2 * BLOCK)
        if len(data) < 2 * BLOCK and data[: len(_PAX_NAME)] == _PAX_NAME.encode()[: len(data)]:
            raise self.truncated()
        text = _record(data, b"comment")
        if text is None or render_comment(text) != data:
            remedy = "give a file that `flightbag pack` wrote; unpack one that is compressed first"
            raise self.bad("bad-bag", "it does not begin as a bag does", remedy=remedy)
        return text

    def members(self) -> Iterator[Member]:
        """Yield the members in their order. What was not read of one by then is passed over."""
        while (member := self._next()) is not None:
            self._left = member.size
            yield member
            for _ in self.chunks():
                pass
            if any(pad := self._exactly(-member.size % BLOCK)):
                raise self.bad("bad-header", f"{len(pad)} bytes after {member.name} are not zeros")

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes of the current member."""
        while self._left:
            chunk = self._exactly(min(self._left, CHUNK))
            self._left -= len(chunk)
            yield chunk

    def data(self) -> bytes:
        """Return the bytes of the current member, whose size the caller has bounded."""
        return b"".join(self.chunks())

    def bad(self, kind: str, why: str, *, remedy: str = _REMEDY) -> Corrupt:
        """Return the error about the bag."""
        return Corrupt(f"{self.what}: {why}", remedy=remedy, kind=kind, path=self.what)

    def truncated(self) -> Corrupt:
        """Return the error about a bag that ends early."""
        return self.bad("truncated", f"it ends after {self._at} bytes, before the end of the bag")

    def _next(self) -> Member | None:
        start = self._at
        header = self._exactly(BLOCK)
        if not any(header):
            if any(self._exactly(BLOCK)):
                raise self.bad("bad-header", f"one block of zeros at byte {start}, and the end of a bag has two")
            if self._read(1):
                raise self.bad("trailing", f"bytes follow its end at byte {self._at - 1}")
            return None
        if found := _TYPES.get(header[156:157]):
            raise self.bad("wrong-type", f"expected a regular file at byte {start}, found {found}")
        size = None
        if header[156:157] == b"x":
            header += self._exactly(2 * BLOCK)
            text = _record(header[: 2 * BLOCK], b"size")
            size = int(text) if text is not None and text.isdecimal() else -1
        member = _member(header[-BLOCK:], size)
        if member is None or render(member) != header:
            raise self.bad("bad-header", f"the header at byte {start} is none that a pack writes")
        return member

    def _read(self, count: int) -> bytes:
        try:
            data = self._stream.read(count)
        except OSError as error:
            text = f"{self.what} cannot be read: {error.strerror}"
            raise Unavailable(text, kind="unreadable", path=self.what, errno=error.errno) from error
        self._at += len(data)
        return data

    def _exactly(self, count: int) -> bytes:
        data = self._read(count)
        if len(data) != count:
            raise self.truncated()
        return data


def _record(blocks: bytes, key: bytes) -> str | None:
    """Return the value of the one record in a pax header; the caller compares the blocks."""
    match = _RECORD.match(blocks, BLOCK)
    return match[2].decode("ascii") if match and match[1] == key else None


def _member(block: bytes, size: int | None) -> Member | None:
    """Return the member of a header's last block, None where it is surely none; the caller compares the block."""
    try:
        last, prefix = (block[a:b].rstrip(b"\0").decode("ascii") for a, b in ((0, 100), (345, 500)))
        size = int(block[124:135], 8) if size is None else size
    except ValueError:
        return None
    name = f"{prefix}/{last}" if prefix else last
    splits = len(name) <= _NAME_MAX or "/" in name[: _PREFIX_MAX + 1]
    return Member(name, size) if splits and 0 <= size <= SIZE_MAX else None
