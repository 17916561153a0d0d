"""A terminal, as a person sits at it: a program runs at one, its prompts are awaited and answered."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.support.commands import BIN

SECONDS = 60

# What a person waits to see, and what the person then types. A function gets what was seen so far and gives the answer;
# what it does besides happens while the program waits.
Answer = tuple[str, str | Callable[[str], str]]


def at_terminal(
    *args: object, answers: Iterable[Answer] = (), output: Path | None = None, end: bytes = b"\n"
) -> tuple[int, str]:
    """Run `flightbag` with standard input, output and error at a terminal of its own.

    Return its status and everything that was to be seen. Each answer is typed, and ended by `end`, once its prompt is
    seen after the answer before. Standard output may go to a file instead. Raise TimeoutError if a prompt does not
    come.
    """
    master, slave = pty.openpty()
    with open(output or os.devnull, "wb") as file:
        process = subprocess.Popen(
            [BIN / "flightbag", *map(str, args)],
            stdin=slave,
            stdout=slave if output is None else file,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    os.close(slave)
    seen, done = "", 0
    try:
        for prompt, answer in answers:
            while prompt not in seen[done:]:
                part = _read(master)
                if not part:
                    raise AssertionError(f"the program ended before {prompt!r}: {seen}")
                seen += part
            done = len(seen)
            text = answer if isinstance(answer, str) else answer(seen)
            os.write(master, text.encode() + end)
        while part := _read(master):
            seen += part
        return process.wait(SECONDS), seen.replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _read(master: int) -> str:
    """What comes next; "" at the end."""
    if not select.select([master], [], [], SECONDS)[0]:
        raise TimeoutError("nothing more is to be seen")
    try:
        return os.read(master, 65536).decode(errors="replace")
    except OSError:  # EIO: the last program at the terminal has ended
        return ""


def typed(path: Path, text: str) -> Path:
    """A file with one line, for options that take what a person would type."""
    path.write_text(f"{text}\n")
    return path
