"""A process of its own for what may hang, crash or take all memory: bounded, its output kept, ended with its parent.

Two kinds of worker run in such a process: `builders.engines.worker` compiles one model; `builders.confined` does all of
a build, or of another command, that reads foreign bytes or runs a network. `run_worker` starts one on a request in a
private folder, and returns its result or raises its failure. However `run_worker` ends, the worker and every process
that it started have ended too, also if this process is killed: `builders.engines.keeper` sees to that. The caller
removes the files that the worker leaves in the folder.

The two processes exchange files and pipes: the request and the result are JSON files, messages come as JSON lines over
a pipe, and closing the worker's standard input asks the worker to stop. A worker inherits no other descriptor, and no
variable of the environment that names a secret.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from builders.activity import Recorder, getting_on
from builders.bounded import MAX_VALUES, values_in
from builders.engines.base import PhaseProgress
from builders.engines.failures import failure, from_json, is_full
from builders.engines.stillness import Stillness
from store.disk.opening import OtherType, open_file
from store.errors import NO_SPACE, FlightbagError, no_space

_MAX_RESULT = 16 * 2**20
_MAX_LINE = 4096
_LOG_TAIL = 4096
# The time that a worker has to stop when it is asked to, before it is killed.
_GRACE_S = 5.0
_POLL_S = 0.5
# A compilation that uses no CPU time for so long, and says nothing, never will: a library whose allocation failed may
# wait for itself.
STILL_S = 60.0
# A worker that stands still has run out of memory if it held so much of what it may use.
_NEARLY_ALL = 0.9
# The last words of a process that ran out of memory and could not write a result.
_NO_MEMORY = ("bad_alloc", "MemoryError", "Memory allocation", "pthread_create failed, error code: 12")
# Variables that a worker does not get: those of this program, the sockets of agents that sign, and secrets by name.
_SECRET = re.compile(
    r"^(FLIGHTBAG_(?!STORE$)|SSH_|GPG_)|PASS|SECRET|TOKEN|CREDENTIAL|(^|_)PIN(_|$)|API_?KEY", re.IGNORECASE
)
# Starts a worker. Nothing is imported from the folder where it runs: as `python -P`, which Python 3.10 has not.
_START = (
    "import sys; sys.path[:1] = filter(None, sys.path[:1]); import runpy; "
    "runpy.run_module('builders.engines.keeper', run_name='__main__', alter_sys=True)"
)
# Where a container says how much memory it has (cgroup 2 and 1).
_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_PROGRESS_INTERVAL_S = 0.1


# -- in the parent


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a worker may use: bytes of private memory, and seconds. The seconds of a compilation are those of
    all of it; of a confined command, those without progress."""

    memory: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is for. `module` is what Python runs; `does` ("compiles net.onnx") and `doing` ("compiling
    net.onnx") are for messages, `facts` are fields of every failure. `cwd` is its working directory. `still_s` are the
    seconds without CPU time and messages after which it is ended, 0 for one that may wait. `secrets` are variables that
    it gets although their names say that they are secret."""

    module: str
    does: str
    doing: str
    cwd: Path
    facts: Mapping[str, Any] = field(default_factory=dict)
    max_result: int = _MAX_RESULT
    still_s: float = 0.0
    secrets: Sequence[str] = ()


def machine_memory() -> int:
    """Return the bytes of memory that this machine has, or the container that this process runs in."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _CGROUP:
        with suppress(OSError, ValueError):
            memory = min(memory, int(path.read_text()))
    return memory


def usable_memory() -> int:
    """Return the bytes that a worker may use where nobody states a limit. An eighth is for the rest of the machine: at
    its end the kernel ends whatever process it likes."""
    return machine_memory() * 7 // 8


def compile_in_worker(
    request: Mapping[str, Any],
    folder: Path,
    limits: Limits,
    progress: PhaseProgress,
    model: str,
    module: str = "builders.engines.worker",
) -> tuple[dict[str, Any], str]:
    """Run a compiling worker on `request` and return (its result, the end of its log); `model` is a name for messages.

    Raise the failure that the worker reports, or one for a worker that ends without a result.
    """
    does, doing = f"compiles {model}", f"compiling {model}"
    job = Job(module, does, doing, folder, {"model": model}, still_s=STILL_S)

    def receive(line: bytes, _worker: Worker) -> None:
        getting_on()  # of this process, where it is a worker itself
        _report(line, progress)

    result, tail = run_worker(job, request, folder, limits, receive)
    if "failure" in result:
        raise from_json(result["failure"], model=model, log=tail)
    return result, tail


class Worker:
    """A worker that runs, as those see it who receive its messages. `seconds` may be changed at any time."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._process = process
        self.seconds = seconds

    def send(self, line: bytes) -> None:
        """Write to its standard input."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(line)
            self._process.stdin.flush()


def run_worker(
    job: Job,
    request: Mapping[str, Any],
    folder: Path,
    limits: Limits,
    receive: Callable[[bytes, Worker], None],
    recorder: Recorder | None = None,
) -> tuple[dict[str, Any], str]:
    """Run a worker on `request` and return (its result, the end of its log).

    `receive` gets each line that the worker writes. With a `recorder`, the seconds of `limits` begin anew whenever the
    worker gets on. Raise a failure for a worker that ends without a result, is killed, does not get on, or stands
    still.
    """
    request_path, result_path, log_path = (folder / name for name in ("request.json", "result.json", "worker.log"))
    message_end, worker_end = os.pipe()
    process: subprocess.Popen[bytes] | None = None
    held = None
    try:
        request_path.write_text(json.dumps({**request, "memory": limits.memory}))
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-c", _START, str(os.getpid()), job.module,
                 str(request_path), str(result_path), str(worker_end)],
                cwd=job.cwd,
                env=_environment(folder, job.secrets),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(worker_end,),
                start_new_session=True,  # this process handles Ctrl-C, and ends the worker below
            )  # fmt: skip
        os.close(worker_end)
        worker_end = -1
        worker = Worker(process, limits.seconds)
        stillness = Stillness(process.pid, job.still_s) if job.still_s else None
        with _terminable():
            status = _follow(process, message_end, worker, receive, recorder, stillness)
        at = _at(recorder)
        if status is None:
            held = stillness.held if stillness is not None else None
            _ask_to_stop(process)
    except OSError as error:
        if process is not None:
            raise
        if error.errno in NO_SPACE:
            raise no_space(str(error.filename or folder), error.errno) from error
        path = error.filename or folder
        message = f"the process that {job.does} cannot be started: {path}: {error.strerror}"
        remedy = "check that this user may use that path"
        raise failure("failed", message, remedy=remedy, **job.facts) from error
    except BaseException:
        if process is not None:
            _ask_to_stop(process)
        raise
    finally:
        if process is not None:
            _kill(process)
        os.close(message_end)
        if worker_end >= 0:
            os.close(worker_end)
    tail = _tail(log_path)
    if held is not None:
        raise _stood_still(job, held, limits.memory, tail)
    if status is None:
        message, remedy = f"{job.doing} took more than {worker.seconds:g} s", ""
        if recorder is not None:
            message = f"{job.doing} has made no progress for {worker.seconds:g} s{at}"
            remedy = "give another model or file, or allow more in [compile] timeout_s"
        raise failure("timed-out", message, remedy=remedy, **job.facts, log=tail)
    if status != 0:
        raise _no_result(status, job, folder, tail, at)
    return _result(result_path, job, tail), tail


def _at(recorder: Recorder | None) -> str:
    """What the worker was doing last, as the end of a sentence."""
    texts = recorder.doing if recorder is not None else ()
    return f", while it was {'; '.join(texts[:4])}" if texts else ""


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end this process as an exception would, so that worker and folder go too."""
    usual = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not usual:
        yield
        return

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _environment(folder: Path, secrets: Sequence[str]) -> dict[str, str]:
    """The worker imports the modules of this process from the same places, and none that lie in its current folder."""
    return {
        **{name: value for name, value in os.environ.items() if name in secrets or not _SECRET.search(name)},
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        "ORT_DISABLE_TELEMETRY": "1",
        "TMPDIR": str(folder),
    }


def _follow(
    process: subprocess.Popen[bytes],
    pipe: int,
    worker: Worker,
    receive: Callable[[bytes, Worker], None],
    recorder: Recorder | None,
    stillness: Stillness | None,
) -> int | None:
    """Pass messages on until the process ends. Return its exit status, or None if the time ran out first, or the worker
    stood still."""
    began = time.monotonic()
    partial_line = b""
    is_open = True
    count = 0
    while True:
        if recorder is not None and (now := recorder.count) != count:
            began, count = time.monotonic(), now
        remaining = began + worker.seconds - time.monotonic()
        if remaining <= 0 or (stillness is not None and stillness.lasts()):
            return None
        if is_open:
            ready, _, _ = select.select([pipe], [], [], min(remaining, _POLL_S))
            if ready:
                data = os.read(pipe, 65536)
                is_open = bool(data)
                *lines, partial_line = (partial_line + data).split(b"\n")
                partial_line = partial_line[-_MAX_LINE:]
                for line in lines:
                    receive(line, worker)
                if stillness is not None and lines:
                    stillness.begin()
                if recorder is not None and lines:
                    began = time.monotonic()
        else:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=min(remaining, _POLL_S))
        if not is_open or not ready:
            getting_on()
        if process.poll() is not None and not (is_open and ready):
            return process.returncode


def _stood_still(job: Job, held: int, allowed: int, tail: str) -> FlightbagError:
    what = f"{job.doing} has used no CPU time for {job.still_s:g} s"
    if held >= _NEARLY_ALL * allowed:
        message = f"{what}; it had {min(held, allowed) >> 20} of the {allowed >> 20} MiB that it may use"
        return failure("out-of-memory", message, **job.facts, log=tail)
    remedy = "build again; if it stands still again, read the end of its log and report it"
    return failure("failed", f"{what}: it waits for something that does not come", remedy=remedy, **job.facts, log=tail)


def _report(line: bytes, progress: PhaseProgress) -> None:
    with suppress(ValueError, TypeError, OverflowError):
        phase, count, total = json.loads(line)
        progress(str(phase), int(count), int(total))


def _ask_to_stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the worker to stop, and wait a few seconds for it to end by itself."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_GRACE_S)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the worker's keeper, and with it the worker and every process that it started."""
    if sys.platform == "linux":
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def _no_result(status: int, job: Job, folder: Path, tail: str, at: str = "") -> FlightbagError:
    """The failure for a worker that ended with this status, and without a result in its folder."""
    last_line = tail.rstrip().rpartition("\n")[2]
    # A worker that cannot write its result says so in its last line.
    if is_full(folder) or any(f"[Errno {number}]" in last_line for number in NO_SPACE):
        return no_space(str(folder))
    if status < 0:
        message = f"the process that {job.does} was ended by {_signal(-status)}"
        remedy = "check whether the machine ran out of memory, then build again"
    else:
        message = f"the process that {job.does} ended with status {status}"
        remedy = "read the end of its log:\n" + "\n".join(tail.rstrip().split("\n")[-4:])
    # A library that finds no memory may end the process without raising an error.
    kind = "out-of-memory" if any(words in tail for words in _NO_MEMORY) else "failed"
    return failure(
        kind, message + (at or (f": {last_line}" if last_line else "")), remedy=remedy if kind == "failed" else "",
        **job.facts, status=status, log=tail,
    )  # fmt: skip


def _signal(number: int) -> str:
    return next((one.name for one in signal.Signals if one == number), f"signal {number}")


def _result(path: Path, job: Job, tail: str) -> dict[str, Any]:
    try:
        with _open(path) as file:
            data = file.read(job.max_result + 1)
        if len(data) > job.max_result or not data.isascii() or values_in(data) > MAX_VALUES:
            message = f"the process that {job.does} wrote a result that is too large, or is none: {len(data)} bytes"
            remedy = "cut the area off where its sources end; if they do not, report this as a defect"
            raise failure("failed", message, remedy=remedy, log=tail)
        result = json.loads(data)
        if type(result) is not dict:
            raise ValueError("not an object")
    except (OSError, OtherType, ValueError, RecursionError) as error:  # its status is 0, but it wrote no whole result
        raise _no_result(0, job, path.parent, tail) from error
    return result


def _tail(path: Path) -> str:
    """The end of the log as text for people, without control characters except line ends; "" where it is gone."""
    try:
        with _open(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL))
            text = file.read(_LOG_TAIL).decode(errors="replace")
    except (OSError, OtherType):
        return ""
    return "".join(letter for letter in text if letter.isprintable() or letter == "\n")


def _open(path: Path) -> BinaryIO:
    """Open a file that a worker left, and no link. Raise OtherType for a pipe or a device: reading one may not end."""
    fd, _ = open_file(path)
    return os.fdopen(fd, "rb")


# -- in the worker


def begin(memory: int) -> None:
    """Bound this process, a worker: its memory, and what it leaves when it crashes."""
    limit_memory(memory)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # its memory holds what the planner reads
    with suppress(OSError):
        # Where the machine itself runs out of memory, the kernel ends the worker, and nobody else's work.
        Path("/proc/self/oom_score_adj").write_text("1000")


def limit_memory(memory: int) -> None:
    """Bound private memory. The address space stays unbounded: the driver of a GPU reserves far more than it uses."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_DATA)
    limit = memory if hard_limit == resource.RLIM_INFINITY else min(memory, hard_limit)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard_limit))


def progress_writer(pipe: int) -> PhaseProgress:
    """Return a function that writes progress to the pipe: the beginning and end of each phase, and in between one line
    in each interval."""
    last = 0.0

    def progress(phase: str, count: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _PROGRESS_INTERVAL_S and count not in (0, total):
            return
        last = now
        os.write(pipe, json.dumps([phase[:200], count, total]).encode() + b"\n")

    return progress


def end_without_clean_up() -> NoReturn:
    """End this process: a crash in the libraries' clean-up would make a finished task look failed."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
