"""Runs tests over a mutant, in a process of its own that is forked from one that has loaded what the tests need.

A change inside a function replaces the code of that function in a process that has collected the tests. A change in
what runs at import is made in a process that has loaded the libraries only, before it imports the module.
Either way the first test that fails ends the process: the mutant is caught. So is one that runs without end.
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType

import pytest

from tests.mutate.mutants import Mutations, functions
from tests.mutate.trace import OPTIONS, ROOT

CAUGHT, SURVIVED, ENDLESS = "caught", "survived", "endless"
NO_CHANGE = -1
# Of each test. An endless loop uses processor time; what waits without end uses none. Other work delays both.
PROCESSOR_SECONDS = 20
SILENT_SECONDS = 120
MEMORY = 4 * 2**30


@dataclass(frozen=True, slots=True)
class Job:
    """Mutant `number` of a module, and the tests in the order in which they run.

    `quick`: tests whose file can be imported before the change, because its import runs nothing of what changes.
    `others`: tests that run after these, in a process that imports everything with the change in it.
    """

    path: str
    number: int
    quick: tuple[str, ...]
    others: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutant, and the test that was running when it did."""

    path: str
    number: int
    status: str
    test: str


class _Runner:
    """A plugin of pytest that runs chosen tests in a given order; the first failure ends the process with status 1."""

    def __init__(self, loop: Callable[[dict[str, pytest.Item]], None]) -> None:
        self._loop = loop

    @pytest.hookimpl
    def pytest_sessionstart(self) -> None:
        from hypothesis import Phase, settings

        # That an example fails is enough: a smaller one is not looked for.
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile("mutate", settings.default, phases=phases, report_multiple_bugs=False, database=None)
        settings.load_profile("mutate")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[object]) -> None:
        if call.excinfo is not None and not issubclass(call.excinfo.type, pytest.skip.Exception):
            os._exit(1)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            os._exit(1)  # a file of tests cannot be imported
        self._loop({item.nodeid: item for item in session.items})
        return True


def load(libraries: Iterable[str]) -> None:
    """Imports libraries that the tests will need, so that no fork imports them again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in libraries:
            if name != "__main__":
                with suppress(Exception):
                    importlib.import_module(name)


def outcomes(jobs: Sequence[Job], sources: dict[str, str]) -> Iterator[Outcome]:
    """What becomes of each job. The process must have imported nothing of the project but `tests.mutate`."""
    mutations = {path: Mutations(path, source) for path, source in sources.items()}
    with tempfile.TemporaryDirectory(prefix="flightbag-mutate-", dir=_memory()) as scratch:
        left = [job for job in jobs if not job.quick]
        quick = [job for job in jobs if job.quick]
        if quick:
            for job, outcome in zip(quick, _collected(quick, mutations, Path(scratch)), strict=True):
                if outcome.status == SURVIVED and job.others:
                    left.append(job)
                else:
                    yield outcome
        for job in left:

            def start(fd: int, job: Job = job) -> None:
                _import_changed(job, mutations, scratch, fd)

            yield _attempt(job, job.others, Path(scratch), start)


def _import_changed(job: Job, mutations: dict[str, Mutations], scratch: str, fd: int) -> None:
    _quiet()
    if job.number != NO_CHANGE:
        file = str(ROOT / job.path)
        sys.meta_path.insert(0, _Finder(job.path, mutations[job.path].code(job.number, file)))
    runner = _Runner(lambda items: _run(job.others, items, fd))
    pytest.main([*_options(scratch), *_files(job.others)], plugins=[runner])


def _collected(jobs: Sequence[Job], mutations: dict[str, Mutations], scratch: Path) -> Iterator[Outcome]:
    """The jobs in a process that has collected their tests; it sends what came of each through a pipe."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _quiet()

        def loop(items: dict[str, pytest.Item]) -> None:
            index = _functions({str(ROOT / path) for path in mutations})
            gc.freeze()
            for job in jobs:

                def start(fd: int, job: Job = job) -> None:
                    if job.number != NO_CHANGE:
                        file = str(ROOT / job.path)
                        _replace(index, file, mutations[job.path].code(job.number, file))
                    _run(job.quick, items, fd)

                outcome = _attempt(job, job.quick, scratch, start)
                os.write(writer, "\0".join([outcome.status, outcome.test]).encode() + b"\n")

        files = _files([test for job in jobs for test in job.quick])
        try:
            pytest.main([*_options(str(scratch)), *files], plugins=[_Runner(loop)])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as lines:
        for job, line in zip(jobs, lines, strict=False):
            status, _, test = line.rstrip("\n").partition("\0")
            yield Outcome(job.path, job.number, status, test)
    os.waitpid(pid, 0)


def _attempt(job: Job, tests: Sequence[str], scratch: Path, start: Callable[[int], None]) -> Outcome:
    """Forks, calls `start` in the child, and watches it: a byte comes at the start of each test."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.setsid()
        limit = PROCESSOR_SECONDS + int(5 * job.seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        try:
            start(writer)
        finally:
            os._exit(2)  # the tests were not even collected
    os.close(writer)
    begun, silent = 0, False
    while not silent:
        ready, _, _ = select.select([reader], [], [], SILENT_SECONDS)
        silent = not ready
        if ready:
            data = os.read(reader, 4096)
            if not data:
                break
            begun += len(data)
            if data[-1:] == b"!":
                begun -= 1
                break
    os.close(reader)
    if silent:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what the tests started and a failure left running
    for left in scratch.iterdir():
        shutil.rmtree(left, ignore_errors=True)
    code = os.waitstatus_to_exitcode(status)
    test = tests[min(begun, len(tests)) - 1] if begun else "import"
    if code == 0:
        return Outcome(job.path, job.number, SURVIVED, "")
    return Outcome(job.path, job.number, ENDLESS if code in (-signal.SIGKILL, -signal.SIGXCPU) else CAUGHT, test)


def _files(tests: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(test.partition("::")[0] for test in tests))


def _run(tests: Sequence[str], items: dict[str, pytest.Item], fd: int) -> None:
    """Runs the tests, and ends the process: with 0 if all pass."""
    chosen = [items[test] for test in tests if test in items]
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    for item, following in zip(chosen, [*chosen[1:], None], strict=True):
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + PROCESSOR_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (min(limit, most), most))
        os.write(fd, b".")
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    os.write(fd, b"!")
    os._exit(0)


def _options(scratch: str) -> list[str]:
    """The caches and folders of the tests lie in `scratch`, which is emptied after each mutant."""
    os.environ["TMPDIR"] = scratch
    tempfile.tempdir = None
    return [*OPTIONS, "-W", "ignore::pytest.PytestAssertRewriteWarning", f"--basetemp={scratch}/pytest"]


def _memory() -> str | None:
    return "/dev/shm" if os.path.isdir("/dev/shm") else None


def _quiet() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)


def _functions(files: set[str]) -> dict[tuple[str, str, int], list[FunctionType]]:
    """All functions of the files, by where they begin."""
    found: dict[tuple[str, str, int], list[FunctionType]] = {}
    for value in gc.get_objects():
        if isinstance(value, FunctionType) and value.__code__.co_filename in files:
            code = value.__code__
            found.setdefault((code.co_filename, code.co_qualname, code.co_firstlineno), []).append(value)
    return found


def _replace(index: dict[tuple[str, str, int], list[FunctionType]], file: str, changed: CodeType) -> None:
    for code in functions(changed):
        for function in index.get((file, code.co_qualname, code.co_firstlineno), ()):
            if function.__code__ != code:
                function.__code__ = code


class _Finder:
    """Gives one module other code."""

    def __init__(self, path: str, code: CodeType) -> None:
        self._name = path.removesuffix(".py").replace("/", ".")
        self._code = code

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        spec = PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(name, spec.origin, self._code)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._changed = code

    def get_code(self, fullname: str) -> CodeType:
        return self._changed
