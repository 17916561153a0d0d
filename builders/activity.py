"""What a worker is doing at this moment, in words, in a file that outlives it: the flight recorder of a process.

Code that decodes foreign bytes or runs a network says so with `doing`. In a worker (see `builders.engines.isolation`)
the words go into a small file, which the parent reads when the worker has ended or no longer gets on; anywhere else
they go nowhere. Each block that begins or ends counts as progress.

    >>> with doing("decoding tile 15/9/4"):
    ...     pass
"""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path
from types import TracebackType

# As many threads as can be told apart, and the bytes of each: a counter, the length of the words, and the words.
_SLOTS, _SLOT, _HEAD = 32, 512, 10


class Recorder:
    """The parent's side: the file, and what stands in it."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_SLOTS * _SLOT))
        self._fd = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        os.close(self._fd)

    def _read(self) -> bytes:
        # Not mapped here: a worker that truncates the file must not end its parent with SIGBUS.
        return os.pread(self._fd, _SLOTS * _SLOT, 0).ljust(_SLOTS * _SLOT, b"\0")

    @property
    def count(self) -> int:
        """A number that differs whenever the worker has got on."""
        data = self._read()
        return sum(int.from_bytes(data[at : at + 8], "little") for at in range(0, _SLOTS * _SLOT, _SLOT))

    @property
    def doing(self) -> tuple[str, ...]:
        """What each thread of the worker does, in its own words; without control characters, because a worker may
        write anything."""
        texts, data = [], self._read()
        for at in range(0, _SLOTS * _SLOT, _SLOT):
            length = min(int.from_bytes(data[at + 8 : at + _HEAD], "little"), _SLOT - _HEAD)
            text = data[at + _HEAD : at + _HEAD + length].decode(errors="replace")
            texts.append("".join(letter for letter in text if letter.isprintable()))
        return tuple(dict.fromkeys(text for text in texts if text))


class _Box:
    """The worker's side: one slot for each thread that is doing something."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SLOTS * _SLOT)
        self._free = list(range(_SLOTS))
        self._guard = threading.Lock()
        self._own = threading.local()

    def begin(self, what: str) -> None:
        stack: list[bytes] | None = getattr(self._own, "stack", None)
        if not stack:
            with self._guard:
                self._own.slot = self._free.pop(0) if self._free else -1
            stack = self._own.stack = []
        stack.append(what.encode(errors="replace")[: _SLOT - _HEAD])
        self._write(stack[-1])

    def end(self) -> None:
        stack: list[bytes] = self._own.stack
        stack.pop()
        self._write(stack[-1] if stack else b"")
        if not stack and self._own.slot >= 0:
            with self._guard:
                self._free.insert(0, self._own.slot)

    def _write(self, text: bytes) -> None:
        if self._own.slot >= 0:
            at = self._own.slot * _SLOT
            count = int.from_bytes(self._map[at : at + 8], "little") + 1
            self._map[at : at + _HEAD + len(text)] = (
                count.to_bytes(8, "little") + len(text).to_bytes(2, "little") + text
            )


_box: _Box | None = None


def record_in(path: Path) -> None:
    """Let `doing` write into the file of a `Recorder` from now on."""
    global _box
    _box = _Box(path)


class doing:  # noqa: N801 - it reads as a statement: with doing("decoding tile 15/9/4")
    """A block of work, named for people as a participle: `with doing("decoding tile 15/9/4"): ...`. Blocks may nest."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        if _box is not None:
            _box.begin(self._what)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, MemoryError) and not hasattr(error, "__notes__"):
            error.add_note(self._what)
        if _box is not None:
            _box.end()


def getting_on() -> None:
    """Count as progress: for code that waits for a process with limits of its own."""
    with doing("waiting for a process that compiles"):
        pass
