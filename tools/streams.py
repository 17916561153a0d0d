"""Standard output and standard error of the two programs, so that no report is lost in silence.

`open_streams` puts streams in place that raise `OutputLost` when a write fails, whoever writes: a command, the help
text, a progress bar. Python's own streams raise OSError instead, which a command cannot tell from an error of a store,
and fail a second time when the interpreter ends. SIGPIPE stays ignored: a signer or a compiler whose pipe breaks must
not end a program that is writing a store.

The streams escape what does not show (see `printable`), whoever writes: also the warnings of a library.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import IO, TYPE_CHECKING, NoReturn, TextIO, cast

from store.errors import Unavailable
from tools.printable import printable_lines

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STANDARD_OUTPUT, STANDARD_ERROR = "standard output", "standard error"
_DESCRIPTORS = {STANDARD_OUTPUT: 1, STANDARD_ERROR: 2}


class OutputLost(Exception):
    """A standard stream cannot be written: its reader has gone (EPIPE), or its device is full (ENOSPC)."""

    def __init__(self, stream: str, number: int) -> None:
        super().__init__(f"{stream} cannot be written: {os.strerror(number)}")
        self.stream = stream
        self.errno = number


class _RawStream(io.FileIO):
    """A standard stream without a buffer. Raises OutputLost where a write fails."""

    def __init__(self, stream: str) -> None:
        super().__init__(_DESCRIPTORS[stream], "w", closefd=False)
        self._stream = stream

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            written = super().write(data)
        except OSError as error:
            raise OutputLost(self._stream, error.errno or 0) from error
        if written is None:  # a pipe that does not wait, and is full
            raise OutputLost(self._stream, errno.EAGAIN)
        return written


class _EscapingStream(io.TextIOWrapper):
    """A standard stream that escapes every character that does not show, but for the newline."""

    def write(self, text: str, /) -> int:
        super().write(printable_lines(text))
        return len(text)

    @property
    def buffer(self) -> NoReturn:
        """Nothing: click would write around this stream, where the encoding of the terminal is ASCII."""
        raise AttributeError("buffer")

    def write_controls(self, text: str) -> int:
        """Write text with the control sequences that this program makes itself."""
        return super().write(text)


class _PaintingStream(io.TextIOBase):
    """Standard error as a file that takes control sequences."""

    def write(self, text: str, /) -> int:
        stream = sys.stderr
        return stream.write_controls(text) if isinstance(stream, _EscapingStream) else stream.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()

    def fileno(self) -> int:
        return sys.stderr.fileno()


def painting_stream() -> IO[str]:
    """Return standard error as a file that takes control sequences. The caller escapes every name in what it writes."""
    return cast(IO[str], _PaintingStream())


def write_controls(text: str) -> None:
    """Write text with control sequences to standard output. The caller escapes every name in it."""
    stream = sys.stdout
    if isinstance(stream, _EscapingStream):
        stream.write_controls(text)
    else:
        stream.write(text)


def open_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr` by streams that raise OutputLost where a write fails.

    Raise Unavailable if standard output is closed. A closed standard input or standard error becomes /dev/null.
    """
    # The numbers 0 to 2 are taken before a store is opened: a library that prints would write into a file of the store.
    closed = [number for number in (0, 1, 2) if _take(number)]
    if 0 in closed or sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 - it stays open as long as the program runs
    without_output = 1 in closed or sys.stdout is None
    sys.stdout = _text_stream(STANDARD_OUTPUT, sys.stdout)
    sys.stderr = _text_stream(STANDARD_ERROR, sys.stderr)
    if without_output:
        raise Unavailable("standard output is closed", remedy="redirect it to a file, or to /dev/null")


def write_output(data: bytes | bytearray) -> None:
    """Write all of these bytes to standard output, around the stream for text. Raise OutputLost where that fails."""
    raw = _RawStream(STANDARD_OUTPUT)
    view = memoryview(data)
    while view:
        view = view[raw.write(view) :]


def flush_streams() -> None:
    """Write what the buffers of both streams hold. Raise OutputLost where that fails."""
    sys.stdout.flush()
    sys.stderr.flush()


def empty_streams() -> None:
    """Write what the buffers of both streams hold, to /dev/null if need be: the interpreter flushes both as it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OutputLost as lost:
            discard(lost.stream)


def discard(stream: str) -> None:
    """Send the rest of a stream to /dev/null, so that the interpreter can end without an error."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, _DESCRIPTORS[stream])
    os.close(null)


def _take(number: int) -> bool:
    """Open /dev/null under a number of a standard stream that is closed. Return whether it was closed."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
        return True
    return False


def _text_stream(stream: str, before: TextIO | None) -> TextIO:
    # An encoding that lacks a letter gives an escape: a name in a message must not end the program.
    buffer, errors = io.BufferedWriter(_RawStream(stream)), "backslashreplace"
    if not isinstance(before, io.TextIOWrapper):
        return _EscapingStream(buffer, "utf-8", errors)
    return _EscapingStream(
        buffer, before.encoding, errors, line_buffering=before.line_buffering or before.write_through
    )
