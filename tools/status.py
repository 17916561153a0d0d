"""Exit statuses, and how an error becomes one. Scripts may rely on these numbers.

0  done, or GO
1  the answer is no: NO-GO, coverage failed, no such mission
2  usage or invalid input
3  could not tell or could not do: locked, unreadable, disk full, a missing extra
"""

from __future__ import annotations

import functools
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, ParamSpec

from store.errors import FlightbagError, Invalid, Unavailable

OK, NO, USAGE, UNKNOWN = 0, 1, 2, 3
P = ParamSpec("P")


def status_of(error: FlightbagError) -> int:
    """The exit status that an error stands for."""
    if isinstance(error, Invalid):
        return USAGE
    return UNKNOWN if isinstance(error, Unavailable) else NO


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, sort_keys=True, default=str))


def fail(error: FlightbagError, *, as_json: bool) -> None:
    """Tells an error: on standard error for people, as a document on standard output for machines."""
    if as_json:
        facts = {key: value for key, value in error.fields.items() if key not in ("kind", "findings")}
        kind = str(error.fields.get("kind", type(error).__name__.lower()))
        print_json({"error": {"kind": kind, "message": error.message, "remedy": error.remedy, **facts}})
    print(f"flightbag: {error.message}", file=sys.stderr)
    if error.remedy:
        print(f"  -> {error.remedy}", file=sys.stderr)


def command(function: Callable[P, int]) -> Callable[P, None]:
    """Runs a command that returns its status; errors become statuses, and nothing else is caught."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            status = function(*args, **kwargs)
            sys.stdout.flush()
        except FlightbagError as error:
            fail(error, as_json=bool(kwargs.get("as_json")))
            status = status_of(error)
        except BrokenPipeError:
            # The reader went away; a second complaint at exit would help nobody.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = UNKNOWN
        except KeyboardInterrupt:
            print("flightbag: interrupted; what was finished is kept", file=sys.stderr)
            status = 130
        except Exception:  # noqa: BLE001 - a bug of ours is "could not tell", never Python's 1, which would be "no"
            traceback.print_exc()
            status = UNKNOWN
        raise SystemExit(status)

    return run
