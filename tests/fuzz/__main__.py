"""The fuzzer: `make fuzz`, or

    python -m tests.fuzz [--seconds N] [--seed N] [--only WORD] [--engine atheris|mutate]

Each target runs in a process of its own for its share of the time: under Atheris, which goes where the code has not
been, or else through the mutations of `mutation`. A crash is an exception that is no refusal, a broken law, or an input
that takes more than 10 s or 64 MiB. The shortest input for each crash is kept, and the status is 1.

The memory of an input is that by which the process grows beyond its peak so far; beyond 1 GiB the system refuses more.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz.mutation import mutants

ROOT = Path(__file__).parents[2]
CHILD = (sys.executable, "-m", "tests.fuzz")
SECONDS_AN_INPUT = 10
MEMORY = 2**30
MEMORY_AN_INPUT = 64 * 2**20
MEMORY_AT_FIRST = 256 * 2**20  # the first input may load a library
# Written in Python, so Atheris sees their branches.
SEEN = ["store", "tomllib", "json"]


def _peak() -> int:
    """The most memory that this process has had, in bytes. `ru_maxrss` may be that of the program that started it."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


class Watch:
    """Runs a target and keeps count in files, which outlive a process that is killed.

    `state` says executions and the slowest in ms, and after a newline the input at hand; `crash-…` the same way what
    happened, and the input.
    """

    def __init__(self, run: Callable[[bytes], None], folder: Path) -> None:
        self.executions = 0
        self.slowest = 0.0
        self.crashes: dict[str, bytes] = {}
        self._run = run
        self._folder = folder
        self._state = os.open(folder / "state", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)

    def __call__(self, data: bytes) -> None:
        self._note(data)
        begun, before = time.perf_counter(), _peak()
        try:
            self._run(data)
            most = MEMORY_AN_INPUT if self.executions else MEMORY_AT_FIRST
            if _peak() - before > most:
                raise MemoryError(f"it took more than {most >> 20} MiB")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of Rust is no Exception
            self._keep(data, error)
        self.slowest = max(self.slowest, 1000 * (time.perf_counter() - begun))
        self.executions += 1

    def close(self) -> None:
        self._note(b"")
        os.close(self._state)

    def _note(self, data: bytes) -> None:
        state = b"%d %f\n" % (self.executions, self.slowest) + data
        os.ftruncate(self._state, os.pwrite(self._state, state, 0))

    def _keep(self, data: bytes, error: BaseException) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} at {where.filename}:{where.lineno}"
        if place not in self.crashes or len(data) < len(self.crashes[place]):
            self.crashes[place] = data
            name = f"crash-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
            text = ascii(f"{place}: {error}")[1:-1][:500]
            (self._folder / name).write_bytes(text.encode() + b"\n" + data)


def child(name: str, engine: str, seconds: float, seed: int, folder: Path) -> None:
    """Fuzzes one target until the time is over, or an input kills this process."""
    end = time.monotonic() + seconds
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    atheris = importlib.import_module("atheris") if engine == "atheris" else None
    with atheris.instrument_imports(include=SEEN) if atheris else nullcontext():
        from tests.fuzz.targets import TARGETS
    if name in TARGETS:
        target = TARGETS[name]
    else:
        from tests.fuzz import ground  # slow to load

        target = ground.target(name)
    watch = Watch(target.run, folder)

    def one(data: bytes) -> None:
        # Ends the process, also in native code. Atheris has a handler of its own, which would make it an exception.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, SECONDS_AN_INPUT)
        watch(data)
        if time.monotonic() >= end:
            watch.close()
            os._exit(0)  # an end of libFuzzer's own would count as a crash

    if atheris is None:
        for data in mutants(target.seeds, Random(f"{seed} {name}"), target.limit):
            one(data)
        return
    (folder / "corpus").mkdir()
    for number, data in enumerate(target.seeds):
        (folder / "corpus" / str(number)).write_bytes(data)
    limits = {"max_len": target.limit, "rss_limit_mb": MEMORY >> 20, "timeout": 0}
    options = {**limits, "seed": seed, "verbosity": 0, "artifact_prefix": f"{folder}/libfuzzer-"}
    atheris.Setup([name, str(folder / "corpus"), *(f"-{key}={value}" for key, value in options.items())], one)
    atheris.Fuzz()


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one target: the slowest input in ms, peak memory in MB; what happened, and the file of its input."""

    name: str
    executions: int
    slowest: float
    peak: float
    crashes: list[tuple[str, Path]]


def fuzz(name: str, engine: str, seconds: float, seed: int) -> Row:
    """Fuzzes one target in a process of its own."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # some targets write a file for each input
    with tempfile.TemporaryDirectory(prefix="flightbag-fuzz-", dir=memory) as scratch:
        folder, said = Path(scratch), Path(scratch, "said")
        settings = {"child": scratch, "only": name, "engine": engine, "seconds": seconds, "seed": seed}
        command = [*CHILD, *(f"--{key}={value}" for key, value in settings.items())]
        with said.open("wb") as out:
            environment = {**os.environ, "TMPDIR": scratch}
            process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        state = (folder / "state").read_bytes() if (folder / "state").exists() else b"0 0\n"
        counts, _, at_hand = state.partition(b"\n")
        crashes = [path.read_bytes().partition(b"\n") for path in sorted(folder.glob("crash-*"))]
        if process.returncode == -signal.SIGALRM:
            crashes.append((b"took more than %d s" % SECONDS_AN_INPUT, b"", at_hand))
        elif process.returncode != 0:
            last = said.read_bytes().strip().rpartition(b"\n")[2]
            crashes.append((b"ended with status %d: %b" % (process.returncode, last), b"", at_hand))
    executions, slowest = counts.split()
    kept = [(text.decode(errors="replace"), _kept(name, data)) for text, _, data in crashes]
    return Row(name, int(executions), float(slowest), usage.ru_maxrss / 1024, kept)


def _kept(name: str, data: bytes) -> Path:
    path = Path(tempfile.gettempdir(), f"flightbag-crash-{name}-{hashlib.sha256(data).hexdigest()[:12]}")
    path.write_bytes(data)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    engines = ["atheris", "mutate"] if importlib.util.find_spec("atheris") else ["mutate"]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="bytes for every reader, and its laws")
    parser.add_argument("--seconds", type=float, default=300, help="for all targets together (default: 300)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="WORD", help="targets whose name has this word")
    parser.add_argument("--engine", choices=engines, default=engines[0])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child is not None:
        child(given.only, given.engine, given.seconds, given.seed, given.child)
    from tests.fuzz.ground import READERS
    from tests.fuzz.targets import TARGETS

    every = [*TARGETS, *READERS]
    names = [name for name in every if given.only in name]
    if not names:
        parser.error(f"no target has {given.only!r} in its name; there are {', '.join(every)}")
    workers = min(os.cpu_count() or 1, len(names))
    share = given.seconds * workers / len(names)
    begun = time.monotonic()
    rows: list[Row] = []
    print(f"{given.engine}, seed {given.seed}, {share:.1f} s a target")
    print(f"{'':26}{'executions':>12}{'crashes':>9}{'slowest ms':>12}{'peak MB':>9}")
    with ThreadPoolExecutor(workers) as pool:
        for row in pool.map(lambda name: fuzz(name, given.engine, share, given.seed), names):
            rows.append(row)
            print(
                f"{row.name:26}{row.executions:>12}{len(row.crashes):>9}{row.slowest:>12.1f}{row.peak:>9.0f}",
                flush=True,
            )
            for text, path in row.crashes:
                print(f"  CRASH  {text}\n         input: {path}", flush=True)
    crashes = sum(len(row.crashes) for row in rows)
    print(
        f"{len(rows)} targets, {sum(row.executions for row in rows)} executions: {crashes} crashes; "
        f"slowest {max(row.slowest for row in rows):.1f} ms, peak {max(row.peak for row in rows):.0f} MB "
        f"({time.monotonic() - begun:.0f} s, {given.engine}, seed {given.seed})"
    )
    return 1 if crashes else 0


if __name__ == "__main__":
    raise SystemExit(main())
