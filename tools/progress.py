"""Progress on standard error, for people at a terminal; silent everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock


@contextmanager
def bytes_bar(label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar that counts bytes, with rate and time left; the function it gives may be called from any thread."""
    with _bars(is_bytes=True) as advance:
        yield lambda count: advance(label, count, total or 0)


@contextmanager
def reading_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for bytes of which the number is known when the reading begins: (bytes read now, bytes in all)."""
    with _bars(is_bytes=True) as advance:
        yield lambda count, total: advance(label, count, total)


@contextmanager
def work_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each kind of work: (what, units done now, units in all, 0 if not known)."""
    with _bars(is_bytes=False) as advance:
        yield advance


@contextmanager
def _bars(*, is_bytes: bool) -> Iterator[Callable[[str, int, int], None]]:
    if not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amount = (DownloadColumn(), TransferSpeedColumn()) if is_bytes else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    guard = Lock()
    # Left to itself the bar takes standard output over and prints it on standard error: a pipe would stay empty.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    ) as progress:

        def advance(what: str, done: int, total: int) -> None:
            with guard:
                if what not in tasks:
                    tasks[what] = progress.add_task(what, total=total or None)
                progress.update(tasks[what], advance=done, total=total or None)

        yield advance
