"""Commands that read foreign bytes or run a network and hold no key: each runs whole in a confined process.

`confined` makes such a command of a function. Arguments cross as JSON; what the function prints and its status come
back, and its errors as they are. `builders.confinement` has the limits, and `builders.confined` the same for commands
that end with a signature or a verdict.
"""

from __future__ import annotations

import functools
import importlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.extras import require_build_extra
from tools import progress
from tools.lines import Loudness, loudness, set_loudness
from tools.status import carried_json, print_carried

if TYPE_CHECKING:
    from builders.confined import Messages

_MODULE = "tools.confined"
_BYTES = "bytes: "


def confined(function: Callable[..., int]) -> Callable[..., int]:
    """Let a function of keywords, which returns an exit status, run in a confined process."""

    @functools.wraps(function)
    def run(**arguments: Any) -> int:
        require_build_extra()
        from builders.confinement import run_confined

        request = {
            "module": function.__module__,
            "function": function.__name__,
            "arguments": {name: _plain(value) for name, value in arguments.items()},
            "loudness": loudness().value,
        }
        with _bars() as advance:
            result = run_confined("command", request, f"the input of {function.__name__}", advance, module=_MODULE)
        sys.stderr.write(str(result["err"]))
        sys.stdout.write(str(result["out"]))
        print_carried(result["document"])
        return int(result["status"])

    return run


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that moves bars of bytes and bars of units of work; a terminal shows one kind at a time."""
    kinds = {True: progress.reading_bars, False: progress.work_bars}
    open_bars: dict[bool, tuple[Any, Callable[[str, int, int], None]]] = {}

    def advance(what: str, count: int, total: int) -> None:
        is_bytes = what.startswith(_BYTES)
        if is_bytes not in open_bars:
            close()
            context = kinds[is_bytes]()
            open_bars[is_bytes] = context, context.__enter__()
        open_bars[is_bytes][1](what.removeprefix(_BYTES), count, total)

    def close() -> None:
        while open_bars:
            open_bars.popitem()[1][0].__exit__(None, None, None)

    try:
        yield advance
    finally:
        close()


def _plain(value: Any) -> Any:
    """Return an argument as JSON; `_exact` is the inverse."""
    if isinstance(value, Path):
        return {"path": str(value)}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _exact(value: Any) -> Any:
    if isinstance(value, dict):
        return Path(value["path"])
    return [_exact(one) for one in value] if isinstance(value, list) else value


def command(request: Mapping[str, Any], messages: Messages) -> dict[str, Any]:
    """Run a command in this process, which is confined, and return its status and what it printed."""
    run = getattr(importlib.import_module(request["module"]), request["function"])
    while hasattr(run, "__wrapped__"):
        run = run.__wrapped__
    arguments = {name: _exact(value) for name, value in request["arguments"].items()}
    set_loudness(Loudness(request["loudness"]))
    out, err = io.StringIO(), io.StringIO()

    def forward(what: str, count: int, total: int, is_bytes: bool) -> None:
        messages.progress(_BYTES + what if is_bytes else what, count, total)

    with redirect_stdout(out), redirect_stderr(err), progress.forwarded(forward):
        status = run(**arguments)
    return {"status": status, "out": out.getvalue(), "err": err.getvalue(), "document": carried_json()}


if __name__ == "__main__":
    from builders.confined import main

    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), {"command": command})
