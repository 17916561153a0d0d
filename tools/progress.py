"""Progress bars on standard error, for people at a terminal. Elsewhere, and with -q, nothing is printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from tools.lines import is_quiet
from tools.printable import printable
from tools.streams import painting_stream

# Where progress goes instead of to a bar: see `forwarded`.
_forward: Callable[[str, int, int, bool], None] | None = None


def is_shown() -> bool:
    """Whether there is anybody to see a bar."""
    return _forward is not None or (sys.stderr.isatty() and not is_quiet())


@contextmanager
def bytes_bar(label: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Yield a function that adds bytes to a bar with rate and time left. Any thread may call it."""
    with _bars(is_bytes=True) as advance:
        yield lambda count: advance(label, count, total or 0)


@contextmanager
def reading_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that adds bytes to a bar and sets its total: (bytes read now, bytes in all)."""
    with _bars(is_bytes=True) as advance:
        yield lambda count, total: advance(label, count, total)


@contextmanager
def reading_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that adds bytes to the bar of a kind of work: (kind, bytes now, bytes in all, 0 if unknown)."""
    with _bars(is_bytes=True) as advance:
        yield advance


@contextmanager
def forwarded(forward: Callable[[str, int, int, bool], None]) -> Iterator[None]:
    """Let no bar be shown in the block: `forward` gets what would move it, and whether it counts bytes."""
    global _forward
    _forward = forward
    try:
        yield
    finally:
        _forward = None


@contextmanager
def work_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that adds units to the bar of a kind of work: (kind, units now, units in all, 0 if unknown)."""
    with _bars(is_bytes=False) as advance:
        yield advance


@contextmanager
def _bars(*, is_bytes: bool) -> Iterator[Callable[[str, int, int], None]]:
    if (forward := _forward) is not None:
        yield lambda what, count, total: forward(what, count, total, is_bytes)
        return
    if not is_shown():
        yield lambda _what, _count, _total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        Task,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amount = (DownloadColumn(), TransferSpeedColumn()) if is_bytes else (MofNCompleteColumn(),)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *amount, TimeRemainingColumn())
    tasks: dict[str, Task] = {}
    guard = Lock()
    terminal = painting_stream()
    # By default the bar takes standard output over and prints it on standard error: a pipe would stay empty.
    with Progress(
        *columns, console=Console(file=terminal), transient=True, redirect_stdout=False, redirect_stderr=False
    ) as progress:

        def advance(what: str, count: int, total: int) -> None:
            with guard:
                if what not in tasks:
                    progress.add_task(printable(what), total=total or None)
                    tasks[what] = progress.tasks[-1]
                if not total:
                    tasks[what].total = None
                # Work of an unknown amount has ended, as far as anybody knows, when other work goes on: its bar stops,
                # or goes where nothing was counted.
                for name, task in tasks.items():
                    if name != what and task.total is None:
                        progress.update(task.id, total=task.completed, visible=task.completed > 0)
                progress.update(tasks[what].id, advance=count, total=total or None, visible=True)

        yield advance
