"""A process of its own for each compilation: bounded in memory and time, its output kept, ended with its parent.

`run_worker` starts `builders.engines.worker` on a request in a private folder, and returns its result or raises its
failure. However `run_worker` ends, the worker and every process that it started have ended too; if this
process is killed, the kernel kills the worker. The caller removes the files that the worker leaves in the folder.

The two processes exchange files and pipes: the request and the result are JSON files, progress comes as JSON lines over
a pipe, and closing the worker's standard input asks the worker to stop.
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
_LOG_TAIL = 4096
# The time that a worker has to stop when it is asked to, before it is killed.
_GRACE_S = 5.0
_POLL_S = 0.5
# The last words of a process that ran out of memory and could not write a result.
_NO_MEMORY = ("bad_alloc", "MemoryError", "Memory allocation", "pthread_create failed, error code: 12")


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one compilation may use: bytes of private memory, and seconds."""

    memory: int
    seconds: float


def machine_memory() -> int:
    """Return the bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def run_worker(
    request: Mapping[str, Any], folder: Path, limits: Limits, progress: PhaseProgress, model: str
) -> tuple[dict[str, Any], str]:
    """Run a worker on `request` and return (its result, the end of its log); `model` is a name for messages.

    Raise the failure that the worker reports, or one for a worker that ends without a result.
    """
    request_path, result_path, log_path = (folder / name for name in ("request.json", "result.json", "worker.log"))
    progress_end, worker_end = os.pipe()
    process: subprocess.Popen[bytes] | None = None
    try:
        request_path.write_text(json.dumps({**request, "parent": os.getpid(), "memory": limits.memory}))
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-X", "faulthandler", "-m", "builders.engines.worker",
                 str(request_path), str(result_path), str(worker_end)],
                cwd=folder,
                env=_environment(folder),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(worker_end,),
                start_new_session=True,  # this process handles Ctrl-C, and ends the worker below
            )  # fmt: skip
        os.close(worker_end)
        worker_end = -1
        status = _follow(process, progress_end, limits.seconds, progress)
        if status is None:
            _ask_to_stop(process)
    except OSError as error:
        message = f"the process that compiles {model} cannot be started in {folder}: {error.strerror}"
        raise failure("failed", message, remedy="free some space in that folder", model=model) from error
    except BaseException:
        if process is not None:
            _ask_to_stop(process)
        raise
    finally:
        if process is not None:
            _kill(process)
        os.close(progress_end)
        if worker_end >= 0:
            os.close(worker_end)
    tail = _tail(log_path)
    if status is None:
        message = f"compiling {model} took more than {limits.seconds:g} s"
        raise failure("timed-out", message, model=model, log=tail)
    if status != 0:
        raise _no_result(status, model, tail)
    result = _result(result_path, model, tail)
    if "failure" in result:
        raise from_json(result["failure"], model=model, log=tail)
    return result, tail


def _environment(folder: Path) -> dict[str, str]:
    """The worker imports the modules of this process from the same places, and none that lie in its current folder."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        "ORT_DISABLE_TELEMETRY": "1",
        "TMPDIR": str(folder),
    }


def _follow(process: subprocess.Popen[bytes], pipe: int, seconds: float, progress: PhaseProgress) -> int | None:
    """Report progress until the process ends. Return its exit status, or None if the time ran out first."""
    deadline = time.monotonic() + seconds
    partial = b""
    is_open = True
    while (remaining := deadline - time.monotonic()) > 0:
        if is_open:
            ready, _, _ = select.select([pipe], [], [], min(remaining, _POLL_S))
            if ready:
                data = os.read(pipe, 65536)
                is_open = bool(data)
                *lines, partial = (partial + data).split(b"\n")
                partial = partial[-_MAX_LINE:]
                for line in lines[-1:]:  # the newest line replaces the ones before it
                    _report(line, progress)
        else:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=min(remaining, _POLL_S))
        if process.poll() is not None:
            return process.returncode
    return None


def _report(line: bytes, progress: PhaseProgress) -> None:
    with suppress(ValueError, TypeError, OverflowError):
        phase, count, total = json.loads(line)
        progress(str(phase), int(count), int(total))


def _ask_to_stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the worker to stop, and wait a few seconds for it to end by itself."""
    assert process.stdin is not None
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE_S)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker and every process of its group that still runs."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def _no_result(status: int, model: str, tail: str) -> FlightbagError:
    """The failure for a worker that ended with this status and without a result."""
    last_line = tail.rstrip().rpartition("\n")[2]
    if status < 0:
        message = f"the process that compiles {model} was ended by {_signal(-status)}"
        remedy = "check whether the machine ran out of memory, then build again"
    else:
        message = f"the process that compiles {model} ended with status {status}"
        remedy = "read the end of its log:\n" + "\n".join(tail.rstrip().split("\n")[-4:])
    # A library that finds no memory may end the process without raising an error.
    kind = "out-of-memory" if any(words in tail for words in _NO_MEMORY) else "failed"
    return failure(
        kind, f"{message}: {last_line}" if last_line else message, remedy=remedy if kind == "failed" else "",
        model=model, status=status, log=tail,
    )  # fmt: skip


def _signal(number: int) -> str:
    return next((one.name for one in signal.Signals if one == number), f"signal {number}")


def _result(path: Path, model: str, tail: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_RESULT + 1)
        if len(data) > _MAX_RESULT:
            message = f"the process that compiles {model} wrote a result of more than {_MAX_RESULT} bytes"
            raise failure("failed", message, remedy="report this as a defect", log=tail)
        result: dict[str, Any] = json.loads(data)
    except (OSError, ValueError) as error:  # its status is 0, but it wrote no whole result
        raise _no_result(0, model, tail) from error
    return result


def _tail(path: Path) -> str:
    """The end of the log as text for people, without control characters except line ends."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG_TAIL))
        text = file.read(_LOG_TAIL).decode(errors="replace")
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n")
