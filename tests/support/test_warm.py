"""A warm process finds what a cold one finds. `python -m tests.support.test_warm RESULT HOW` is what both run."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders.engines import isolation
from tests.support.warm import Starter

pytestmark = pytest.mark.skipif(Starter().cold, reason="processes are warm on Linux x86_64 only")


MODULE = "tests.support.test_warm"


@pytest.fixture(scope="module")
def starter() -> Iterator[Starter]:
    starter = Starter()
    yield starter
    starter.close()


def start(processes: Any, folder: Path, how: str, **variables: str) -> tuple[int, dict[str, Any], str]:
    """Start as `run_worker` does, and return the status, what the process found, and what it printed."""
    environment = {**isolation._environment(folder), **variables}
    ours, theirs = os.pipe()
    found, log = folder / "found.json", folder / "log"
    found.unlink(missing_ok=True)
    command = [sys.executable, "-X", "faulthandler", "-c", isolation._START, str(os.getpid()), MODULE]
    with log.open("wb") as output:
        process = processes.Popen(
            [*command, str(found), how, str(theirs)],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs,),
            start_new_session=True,
        )
    os.close(theirs)
    with open(ours, "rb") as messages, process:
        assert messages.readline() == b"begun\n"
        assert process.stdin is not None
        if how == "wait":
            process.terminate()
        else:
            process.stdin.write(b"go\n")
            process.stdin.flush()
        assert messages.read() == b"", "nobody holds the pipe when the process has ended"
        status = process.wait()
    return status, json.loads(found.read_text()), log.read_text()


@pytest.mark.parametrize("how", ["return", "fail", "abort", "wait"])
def test_a_warm_process_is_as_a_cold_one(
    how: str, starter: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, found, log = start(starter.installed(), tmp_path, how)
    assert found.pop("was warm")
    monkeypatch.setattr(starter, "cold", True)
    cold_status, cold, cold_log = start(starter.installed(), tmp_path, how)
    assert not cold.pop("was warm")
    assert (status, found, log.partition("\n\n")[0]) == (cold_status, cold, cold_log.partition("\n\n")[0])


@pytest.mark.parametrize("name", ["PYTHONPATH", "OMP_NUM_THREADS", "LD_LIBRARY_PATH"])
def test_what_a_start_reads_makes_it_cold_where_it_differs(name: str, starter: Starter, tmp_path: Path) -> None:
    assert start(starter.installed(), tmp_path, "return")[1]["was warm"]
    value = os.pathsep.join([str(tmp_path), *(os.path.abspath(one) for one in sys.path)]) if "PATH" in name else "1"
    assert not start(starter.installed(), tmp_path, "return", **{name: value})[1]["was warm"]


def test_a_variable_of_the_test_is_passed_on(starter: Starter, tmp_path: Path) -> None:
    status, found, _ = start(starter.installed(), tmp_path, "return", XDG_CACHE_HOME="elsewhere")
    assert (status, found["variables"]["XDG_CACHE_HOME"], found["was warm"]) == (0, "elsewhere", True)


def test_a_worker_of_a_warm_worker_is_warm(starter: Starter, tmp_path: Path) -> None:
    status, outer, _ = start(starter.installed(), tmp_path, "nested")
    inner = json.loads((tmp_path / "inner/found.json").read_text())
    assert status == 0
    assert outer["was warm"]
    assert inner["was warm"]
    assert inner["session"]
    assert len(inner["descriptors"]) == len(outer["descriptors"])


def test_the_workers_of_the_other_tests_are_warm(warm_starter: Starter, tmp_path: Path) -> None:
    from tests.builders.engines.networks import compiled, save, small_network, spec_of  # this module is a worker too

    before = warm_starter.forked
    compiled(spec_of(save(tmp_path, small_network())), tmp_path)
    assert warm_starter.forked == before + 1


def is_socket(fd: int) -> bool:
    return stat.S_ISSOCK(os.fstat(fd).st_mode)


def facts() -> dict[str, Any]:
    return {
        "was warm": "builders.orchestrator" in sys.modules,
        "arguments": sys.argv[:-1],
        "folder": os.getcwd(),
        "variables": {name: value for name, value in os.environ.items() if name != "LC_CTYPE"},
        # But for the socket of the server.
        "descriptors": [fd for fd in range(1000) if Path(f"/proc/self/fd/{fd}").exists() and not is_socket(fd)],
        "signals": {one.name: repr(signal.getsignal(one)).partition(" at ")[0] for one in signal.Signals},
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "limits": [resource.getrlimit(one) for one in (resource.RLIMIT_DATA, resource.RLIMIT_NOFILE)],
        "session": os.getsid(0) == os.getpgid(0) == os.getppid(),
        "path": sys.path,
        "flags": list(sys.flags),
        "threads": threading.active_count(),
        "tasks": len(os.listdir("/proc/self/task")),
        "main": threading.current_thread() is threading.main_thread(),
    }


if __name__ == "__main__":
    result, how, pipe = sys.argv[1:]
    Path(result).write_text(json.dumps(facts()))
    os.write(int(pipe), b"begun\n")
    sys.stdin.readline()
    print("read", flush=True)
    if how == "nested":
        inner = Path("inner")
        inner.mkdir()
        start(isolation.subprocess, inner.absolute(), "return")
    if how == "fail":
        sys.exit(3)
    if how == "abort":
        os.abort()
