"""Exit statuses, the status that an error stands for, and the printing of text. Scripts may rely on the numbers.

0  done, or GO
1  the answer is no: NO-GO, coverage failed, no such mission
2  wrong arguments or invalid input
3  unknown: locked, unreadable, disk full, a missing extra, output that cannot be written
130  interrupted
141  nobody reads the output (see `program`)

`store-fsck` has statuses of its own (see `fsck`).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TextIO

from store.errors import NO_SPACE, FlightbagError, Invalid, Unavailable, no_space
from tools.lines import fitted, shortened
from tools.printable import printable
from tools.streams import OutputLost, discard

OK, NO, USAGE, UNKNOWN, INTERRUPTED = 0, 1, 2, 3, 130
P = ParamSpec("P")


def status_of(error: FlightbagError) -> int:
    """Return the exit status that an error stands for."""
    if isinstance(error, Invalid):
        return USAGE
    return UNKNOWN if isinstance(error, Unavailable) else NO


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line for people, as several where it is too wide: on standard output, or on `file`."""
    for line in fitted(printable(text), file):
        print(line, file=file or sys.stdout)


def warn(*lines: str) -> None:
    """Print lines on standard error. The command goes on where nobody can read them."""
    try:
        for line in lines:
            say(line, sys.stderr)
        sys.stderr.flush()
    except OutputLost as lost:
        discard(lost.stream)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output, in ASCII."""
    import json  # not above: each start of the program would wait for it

    print(json.dumps(value, indent=2, sort_keys=True, default=str))


def error_json(error: FlightbagError) -> dict[str, Any]:
    """Return an error for machines: its kind, its message, its remedy, and its facts."""
    facts = {key: value for key, value in error.fields.items() if key not in ("kind", "findings")}
    kind = error.kind or type(error).__name__.lower()
    return {"kind": kind, "message": error.message, "remedy": error.remedy, **facts}


def fail(error: FlightbagError, *, as_json: bool) -> None:
    """Print an error: on standard error for people, and with `as_json` on standard output as a document on one line."""
    if as_json:
        import json

        print(json.dumps({"type": "error", "error": error_json(error)}, sort_keys=True, default=str))
    for message in error.problems or (error.message,):
        say(f"flightbag: {shortened(message)}", sys.stderr)
    if error.remedy:
        first, *more = error.remedy.split("\n")
        say(f"  -> {first}", sys.stderr)
        for line in more:
            say(f"     {line}", sys.stderr)


def _exhausted(error: MemoryError | RecursionError) -> Unavailable:
    """Return the error for an input that needs more than the process may have. A reader names its file itself."""
    if isinstance(error, MemoryError):
        return Unavailable(
            "the command needs more memory than it may have",
            remedy="free memory, or raise the limit of the process; if an input came from outside, check it",
            kind="out-of-memory",
        )
    return Unavailable(
        "an input is nested more deeply than this program reads", remedy="check the inputs that came from outside"
    )


def _defect(unknown: int) -> int:
    """Print the traceback of the error that is being handled, and return the status of an error of the program."""
    import traceback  # not above: only errors need it, and each start of the program would wait for it

    say("flightbag: an error of this program; a report of it needs these lines:", sys.stderr)
    for line in traceback.format_exc().split("\n"):
        say(f"  | {line}".rstrip(), sys.stderr)  # no message of an exception begins a line of ours
    return unknown


def exits(
    *,
    error_status: Callable[[FlightbagError], int] = status_of,
    unknown: int = UNKNOWN,
    interrupted: int = INTERRUPTED,
) -> Callable[[Callable[P, int]], Callable[P, None]]:
    """Return a decorator that makes a command of a function that returns its status: every error becomes a status.

    `error_status` gives the status of a FlightbagError, `unknown` is the status of an error of the program itself.
    """

    def decorate(function: Callable[P, int]) -> Callable[P, None]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                status = function(*args, **kwargs)
                sys.stdout.flush()
            except FlightbagError as error:
                fail(error, as_json=bool(kwargs.get("as_json")))
                status = error_status(error)
            except (MemoryError, RecursionError) as error:
                exhausted = _exhausted(error)
                fail(exhausted, as_json=bool(kwargs.get("as_json")))
                status = error_status(exhausted)
            except OutputLost:  # `program` ends the process
                raise
            except OSError as error:
                if error.errno not in NO_SPACE:
                    status = _defect(unknown)
                else:
                    full = no_space(str(error.filename or ""), error.errno)
                    fail(full, as_json=bool(kwargs.get("as_json")))
                    status = error_status(full)
            except KeyboardInterrupt:
                say("flightbag: interrupted", sys.stderr)
                status = interrupted
            except Exception:  # noqa: BLE001 - an error of the program is "unknown", never Python's 1, which means "no"
                status = _defect(unknown)
            raise SystemExit(status)

        return run

    return decorate


command = exits()
