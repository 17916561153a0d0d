"""Changes to bytes: plain ones, and ones that know where CBOR has its heads. All chance is the caller's Random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import cbor2

# Ends of ranges: those of CBOR heads, of machine integers, and of what the format counts.
NUMBERS = sorted({n + d for n in (1, 24, 32, 64, *(2**b for b in (7, 8, 15, 16, 31, 32, 63))) for d in (-1, 0, 1)})
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}
# Longer byte strings are payloads, which are CBOR again; shorter ones digests, keys and signatures.
_SIGNATURE_SIZE = 64


def mutants(seeds: Sequence[bytes], random: Random, limit: int) -> Iterator[bytes]:
    """The seeds, then mutants of them without end, of at most `limit` bytes."""
    yield from seeds
    while True:
        data = random.choice(seeds)
        for _ in range(1 << random.randrange(4)):
            start, end, new = _change(data, random.choice(seeds), random)
            data = data[:start] + new + data[end:]
        yield data[:limit]


def heads(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(start, end, argument) of what would be CBOR heads (RFC 8949, section 3), also of payloads."""
    at = 0
    while at < len(data):
        major, low = data[at] >> 5, data[at] & 31
        end = at + 1 + _WIDTHS.get(low, 0)
        argument = int.from_bytes(data[at + 1 : end], "big") if low in _WIDTHS else low
        yield at, end, argument
        at = end + (argument if major == 3 or (major == 2 and argument <= _SIGNATURE_SIZE) else 0)


def _change(data: bytes, other: bytes, random: Random) -> tuple[int, int, bytes]:
    """What to put in place of data[start:end]."""
    start = random.randint(0, len(data))
    end = min(len(data), start + random.choice((1, 2, 4, 8, 32, 128)))
    match random.randrange(9):
        case 0:  # one bit
            return start, start + 1, bytes(byte ^ 1 << random.randrange(8) for byte in data[start : start + 1])
        case 1:
            return start, start, random.randbytes(1)
        case 2:
            return start, end, b""
        case 3:  # truncated
            return start, len(data), b""
        case 4:  # doubled
            return end, end, data[start:end]
        case 5:  # spliced
            return start, len(data), other[random.randint(0, len(other)) :]
        case 6:
            width = random.choice((1, 2, 4, 8))
            number = random.choice(NUMBERS) % (1 << 8 * width)
            return start, start + width, number.to_bytes(width, random.choice(("big", "little")))
        case _:
            found = list(heads(data))
            return _other_head(data, *random.choice(found), random) if found else (0, 0, b"\x80")


def _other_head(data: bytes, start: int, end: int, argument: int, random: Random) -> tuple[int, int, bytes]:
    major = data[start] & 0xE0
    match random.randrange(3):
        case 0:  # of another major type
            return start, end, bytes([random.randrange(8) << 5 | data[start] & 31]) + data[start + 1 : end]
        case 1:  # of another number, whose head is that of an integer but for the major type
            number = random.choice((argument + 1, argument - 1, random.choice(NUMBERS))) % 2**64
            head = cbor2.dumps(number)
            return start, end, bytes([major | head[0]]) + head[1:]
        case _:  # of the same number too wide or too narrow, of a reserved width, or indefinite
            low = random.randrange(24, 32)
            width = _WIDTHS.get(low, 0)
            return start, end, bytes([major | low]) + (argument % (1 << 8 * width)).to_bytes(width, "big")
