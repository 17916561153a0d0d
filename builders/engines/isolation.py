"""A process of its own for each compilation: bounded in memory and time, its output kept, ended with its parent.

`run` starts `builders.engines.worker` on a request in a private folder and gives back its answer, or raises what went
wrong. However `run` is left, the process and whatever it started are gone; when this process is killed, the kernel
kills the worker. What the worker leaves in the folder is the caller's to remove.

The two talk by files and pipes: the request and the result are JSON files, progress comes as JSON lines over a pipe,
and the closing of the worker's standard input asks it to stop.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.engines.base import PhaseProgress
from builders.engines.failures import failure, from_json
from store.errors import FlightbagError

_MAX_RESULT = 16 * 2**20
_MAX_LINE = 4096
_TAIL = 4096
# How long a worker that was asked to stop may take before it is killed.
_GRACE_S = 5.0
_LOOK_S = 0.5
# What a process says that found no memory and could not go on to say so properly.
_NO_MEMORY = ("bad_alloc", "MemoryError", "Memory allocation", "pthread_create failed, error code: 12")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one compilation may take: bytes of memory of its own, and seconds."""

    memory: int
    seconds: float


def machine_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def run(
    request: Mapping[str, Any], folder: Path, limits: Limits, progress: PhaseProgress, model: str
) -> tuple[dict[str, Any], str]:
    """(result, end of the log) of a worker on `request`; `model` is a name for messages.

    Raises the typed failure that the worker met, or one for a worker that gave no answer.
    """
    request_path, result_path, log_path = (folder / name for name in ("request.json", "result.json", "worker.log"))
    news, said = os.pipe()
    process: subprocess.Popen[bytes] | None = None
    try:
        request_path.write_text(json.dumps({**request, "parent": os.getpid(), "memory": limits.memory}))
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-X", "faulthandler", "-m", "builders.engines.worker",
                 str(request_path), str(result_path), str(said)],
                cwd=folder,
                env=_environment(folder),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(said,),
                start_new_session=True,  # Ctrl-C is this process's to handle; it ends the worker below
            )  # fmt: skip
        os.close(said)
        said = -1
        status = _follow(process, news, limits.seconds, progress)
        if status is None:
            _ask_to_stop(process)
    except OSError as error:
        what = f"the process that compiles {model} cannot be started in {folder}: {error.strerror}"
        raise failure("failed", what, remedy="free some space there", model=model) from error
    except BaseException:
        if process is not None:
            _ask_to_stop(process)
        raise
    finally:
        if process is not None:
            _end(process)
        os.close(news)
        if said >= 0:
            os.close(said)
    tail = _tail(log_path)
    if status is None:
        what = f"compiling {model} took more than {limits.seconds:g} s"
        raise failure("timed-out", what, model=model, log=tail)
    if status != 0:
        raise _no_answer(status, model, tail)
    result = _result(result_path, model, tail)
    if "failure" in result:
        raise from_json(result["failure"], model=model, log=tail)
    return result, tail


def _environment(folder: Path) -> dict[str, str]:
    """The same modules as here, wherever they were found, and none that happen to lie in the current folder."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        "ORT_DISABLE_TELEMETRY": "1",
        "TMPDIR": str(folder),
    }


def _follow(process: subprocess.Popen[bytes], news: int, seconds: float, progress: PhaseProgress) -> int | None:
    """Passes progress on until the process ends; its status, or None where the time was over first."""
    deadline = time.monotonic() + seconds
    rest = b""
    listening = True
    while (left := deadline - time.monotonic()) > 0:
        if listening:
            ready, _, _ = select.select([news], [], [], min(left, _LOOK_S))
            if ready:
                data = os.read(news, 65536)
                listening = bool(data)
                *lines, rest = (rest + data).split(b"\n")
                rest = rest[-_MAX_LINE:]
                for line in lines[-1:]:  # of several only the newest is news
                    _pass_on(line, progress)
        else:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=min(left, _LOOK_S))
        if process.poll() is not None:
            return process.returncode
    return None


def _pass_on(line: bytes, progress: PhaseProgress) -> None:
    with suppress(ValueError, TypeError, OverflowError):
        what, done, total = json.loads(line)
        progress(str(what), int(done), int(total))


def _ask_to_stop(process: subprocess.Popen[bytes]) -> None:
    """Lets a worker that can end what it is at; it has a few seconds."""
    assert process.stdin is not None
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the worker and whatever it started that is still there."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def _no_answer(status: int, model: str, tail: str) -> FlightbagError:
    last = tail.rstrip().rpartition("\n")[2]
    if status < 0:
        what = f"the process that compiles {model} was ended by {_signal(-status)}"
        remedy = "see whether memory ran out, then build again"
    else:
        what = f"the process that compiles {model} ended with status {status}"
        remedy = "see what the end of its log says:\n" + "\n".join(tail.rstrip().split("\n")[-4:])
    # The library ends the process where it finds no memory and cannot say so.
    kind = "out-of-memory" if any(sign in tail for sign in _NO_MEMORY) else "failed"
    return failure(
        kind, f"{what}: {last}" if last else what, remedy=remedy if kind == "failed" else "",
        model=model, status=status, log=tail,
    )  # fmt: skip


def _signal(number: int) -> str:
    return next((one.name for one in signal.Signals if one == number), f"signal {number}")


def _result(path: Path, model: str, tail: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_RESULT + 1)
        if len(data) > _MAX_RESULT:
            raise failure("failed", f"the process that compiles {model} wrote too much", remedy="report it", log=tail)
        result: dict[str, Any] = json.loads(data)
    except (OSError, ValueError) as error:  # it ended well by its own account, and wrote nothing whole
        raise _no_answer(0, model, tail) from error
    return result


def _tail(path: Path) -> str:
    """The end of the log as text for people: no control characters but line ends."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        text = file.read(_TAIL).decode(errors="replace")
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n")
