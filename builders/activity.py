"""What a worker is doing at this moment, in words, in a file that outlives it: the flight recorder of a process.

Code that decodes foreign bytes or runs a network says so with `doing`. In a worker (see `builders.engines.isolation`)
the words go into a small file, which the parent reads when the worker has ended or no longer gets on; anywhere else
they go nowhere. Each block that begins or ends counts as progress.

    >>> with doing("reading a mission file"):
    ...     with doing("decoding tile", 357913941):
    ...         pass
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from store.errors import FlightbagError

# As many threads as can be told apart, and the bytes of each: a counter, a number or -1, the length of the words, and
# the words.
_SLOTS, _SLOT = 32, 512
_HEAD = struct.Struct("<QqH")


class Recorder:
    """The parent's side: the file, and what stands in it. `name_of` names the thing that a number stands for."""

    def __init__(self, path: Path, name_of: Callable[[int], str] = str) -> None:
        path.write_bytes(bytes(_SLOTS * _SLOT))
        self._fd = os.open(path, os.O_RDONLY)
        self._name_of = name_of

    def close(self) -> None:
        os.close(self._fd)

    def _read(self) -> Iterator[tuple[int, int, str]]:
        """Yield (counter, number, words) of each slot. The worker may have written anything."""
        # Not mapped here: a worker that truncates the file must not end its parent with SIGBUS.
        data = os.pread(self._fd, _SLOTS * _SLOT, 0).ljust(_SLOTS * _SLOT, b"\0")
        for at in range(0, _SLOTS * _SLOT, _SLOT):
            count, number, length = _HEAD.unpack_from(data, at)
            start = at + _HEAD.size
            text = data[start : start + min(length, _SLOT - _HEAD.size)].decode(errors="replace")
            yield count, number, "".join(letter for letter in text if letter.isprintable())

    @property
    def count(self) -> int:
        """A number that differs whenever the worker has got on."""
        return sum(count for count, _, _ in self._read())

    @property
    def doing(self) -> tuple[str, ...]:
        """What each thread of the worker does, in its own words, without control characters."""
        texts = [f"{text} {self._name(number)}" if number >= 0 else text for _, number, text in self._read() if text]
        return tuple(dict.fromkeys(texts))

    def _name(self, number: int) -> str:
        try:
            return self._name_of(number)
        except (ValueError, OverflowError, FlightbagError):
            return str(number)


class _Box:
    """The worker's side: the file, and its slots that no thread has."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), _SLOTS * _SLOT)
        self.free = list(range(_SLOTS))
        self.own = threading.local()

    def slot(self) -> _Slot:
        slot: _Slot | None = getattr(self.own, "slot", None)
        if slot is None:
            slot = self.own.slot = _Slot(self)
        return slot


class _Slot:
    """The slot of a thread, which goes back when the thread ends. Without a free one, it notes nothing."""

    def __init__(self, box: _Box) -> None:
        self._box = box
        try:
            self._place = box.free.pop()  # atomic, as is `append`
        except IndexError:
            self._place = -1
        self._count = 0
        if self._place >= 0:
            self._count = int(_HEAD.unpack_from(box.map, self._place * _SLOT)[0])
        self._stack: list[tuple[bytes, int]] = []

    def __del__(self) -> None:
        if self._place >= 0:
            self._box.free.append(self._place)

    def begin(self, what: str, number: int) -> None:
        self._stack.append((what.encode(errors="replace")[: _SLOT - _HEAD.size], number))
        self._write(*self._stack[-1])

    def end(self) -> None:
        self._stack.pop()
        self._write(*(self._stack[-1] if self._stack else (b"", -1)))

    def _write(self, text: bytes, number: int) -> None:
        if self._place >= 0:
            at = self._place * _SLOT
            self._count += 1
            _HEAD.pack_into(self._box.map, at, self._count, number, len(text))
            self._box.map[at + _HEAD.size : at + _HEAD.size + len(text)] = text


_box: _Box | None = None


def record_in(path: Path) -> None:
    """Let `doing` write into the file of a `Recorder` from now on."""
    global _box
    _box = _Box(path)


class doing:  # noqa: N801 - it reads as a statement: with doing("decoding tile", number)
    """A block of work, named for people as a participle: `with doing("decoding tile", number): ...`. Blocks may nest.

    `number` is the id of a tile, from 0; its name is made only where somebody reads it.
    """

    __slots__ = ("_number", "_what")

    def __init__(self, what: str, number: int = -1) -> None:
        self._what = what
        self._number = number

    def __enter__(self) -> None:
        if _box is not None:
            _box.slot().begin(self._what, self._number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, MemoryError) and not hasattr(error, "__notes__"):
            # As `add_note` does, which Python 3.10 has not.
            error.__notes__ = [self._what if self._number < 0 else f"{self._what} {self._number}"]  # type: ignore[attr-defined]
        if _box is not None:
            _box.slot().end()


def getting_on() -> None:
    """Count as progress: for code that waits for a process with limits of its own."""
    with doing("waiting for a process that compiles"):
        pass
