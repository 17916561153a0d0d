"""The process that compiles: its bounds, its end, and what it says; however it ends, nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from builders.bounded import MAX_VALUES
from builders.engines import isolation
from builders.engines.isolation import machine_memory
from store.errors import Unavailable
from tests.builders.engines.networks import ROW, batches, compiled, endless, huge, save, small_network, spec_of
from tests.support.workers import workers

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")


def worker_pid(folder: Path) -> int:
    """The pid of the worker on a request under `folder`, waited for until it has begun to read it."""
    for _ in range(2000):
        for pid in workers("builders.engines.worker", folder):
            return pid
        time.sleep(0.005)
    raise AssertionError("no worker was seen")


def is_alive(pid: int) -> bool:
    try:
        return b"\nState:\tZ" not in Path(f"/proc/{pid}/status").read_bytes()
    except FileNotFoundError:
        return False


def wait_until_dead(pid: int) -> None:
    for _ in range(2000):
        if not is_alive(pid):
            return
        time.sleep(0.005)
    raise AssertionError(f"{pid} goes on")


def wait_until_busy(pid: int) -> None:
    """Until the worker has loaded the library: past its first line, where it asks the kernel to end with its parent."""
    for _ in range(4000):
        try:
            if b"onnxruntime_pybind11_state" in Path(f"/proc/{pid}/maps").read_bytes():
                return
        except OSError as error:
            raise AssertionError(f"{pid} has ended") from error
        time.sleep(0.005)
    raise AssertionError(f"{pid} never loaded the library")


@contextmanager
def watched(folder: Path, act: Callable[[int], None] = lambda _: None) -> Iterator[list[int]]:
    """Acts on the worker under `folder` when there is one; gives its pid."""
    seen: list[int] = []

    def watch() -> None:
        seen.append(worker_pid(folder))
        act(seen[0])

    thread = threading.Thread(target=watch)
    thread.start()
    yield seen
    thread.join()


def library(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Has the worker import `code` where it would import ONNX Runtime: what stands there happens in the worker."""
    (folder / "first").mkdir()
    (folder / "first/onnxruntime.py").write_text(code)
    monkeypatch.setattr(sys, "path", [str(folder / "first"), *sys.path])


# The end of a worker


@LINUX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_that_is_killed_is_unavailable(tmp_path: Path, number: signal.Signals) -> None:
    path = save(tmp_path, small_network())
    with (
        watched(tmp_path, lambda pid: os.kill(pid, number)),
        pytest.raises(Unavailable, match=rf"compiles net\.onnx was ended by {number.name}") as caught,
    ):
        compiled(spec_of(path), tmp_path)
    assert caught.value.fields["status"] == -number
    assert caught.value.kind == "failed"
    assert "log" in caught.value.fields


@LINUX
def test_a_worker_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    path = save(tmp_path, endless())
    start = time.monotonic()
    with (
        watched(tmp_path) as seen,
        pytest.raises(Unavailable, match=r"compiling net\.onnx took more than 1\.5 s") as caught,
    ):
        compiled(spec_of(path, ROW), tmp_path, seconds=1.5)
    # It did not ask for the time of one that can stop: it ended when it was told to.
    assert 1.5 <= time.monotonic() - start < 1.5 + isolation._GRACE_S
    assert caught.value.kind == "timed-out"
    assert "timeout_s" in caught.value.remedy
    assert "log" in caught.value.fields
    assert not is_alive(seen[0])


# What a library does that waits for itself: a thread in a futex, no CPU time, and standard input is not looked at.
STUCK = """
import threading
held = bytearray({mib} << 20)
lock = threading.Lock()
lock.acquire()
lock.acquire()
"""


@LINUX
@pytest.mark.parametrize(("mib", "kind"), [(0, "failed"), (1100, "out-of-memory")])
def test_a_worker_that_stands_still_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mib: int, kind: str
) -> None:
    library(tmp_path, monkeypatch, STUCK.format(mib=mib))
    monkeypatch.setattr(isolation, "STILL_S", 0.5)
    path = save(tmp_path, small_network())
    with (
        watched(tmp_path) as seen,
        pytest.raises(Unavailable, match=r"net\.onnx has used no CPU time for 0\.5 s") as caught,
    ):
        compiled(spec_of(path), tmp_path, host="cpu", memory=1300 << 20)
    assert caught.value.kind == kind
    assert ("of the 1300 MiB that it may use" in caught.value.message) == (kind == "out-of-memory")
    assert caught.value.remedy
    assert "log" in caught.value.fields
    assert not is_alive(seen[0])


@LINUX
def test_a_worker_that_waits_and_says_so_is_left_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that waits for the lock of a GPU: it says so again and again."""
    talk = "import os, sys, time\nfor _ in range(6):\n    os.write(int(sys.argv[-1]), b'[]\\n')\n    time.sleep(0.15)\n"
    library(tmp_path, monkeypatch, talk + "raise RuntimeError('waited long enough')\n")
    monkeypatch.setattr(isolation, "STILL_S", 0.5)
    path = save(tmp_path, small_network())
    with pytest.raises(Unavailable, match="waited long enough"):
        compiled(spec_of(path), tmp_path, host="cpu")


@LINUX
def test_a_worker_that_does_not_listen_is_killed_after_its_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(tmp_path, monkeypatch, "import os, time\nos.dup2(os.open('/dev/zero', os.O_RDONLY), 0)\ntime.sleep(3600)\n")
    monkeypatch.setattr(isolation, "_GRACE_S", 0.3)
    path = save(tmp_path, small_network())
    with watched(tmp_path) as seen, pytest.raises(Unavailable) as caught:
        compiled(spec_of(path), tmp_path, host="cpu", seconds=1.5)
    assert caught.value.kind == "timed-out"
    assert not is_alive(seen[0])


@LINUX
def test_an_interrupt_ends_the_worker(tmp_path: Path) -> None:
    path = save(tmp_path, endless())  # it is still at it, however late the interrupt comes

    def interrupt(pid: int) -> None:
        # Not while it is being started: what is interrupted there dies with its parent, which here is pytest.
        wait_until_busy(pid)
        os.kill(os.getpid(), signal.SIGINT)

    # Whoever started the tests in the background had it ignored, and that is inherited.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with watched(tmp_path, interrupt) as seen, pytest.raises(KeyboardInterrupt):
            compiled(spec_of(path, ROW), tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not is_alive(seen[0])


@LINUX
def test_whoever_listens_may_give_up_and_the_worker_ends(tmp_path: Path) -> None:
    def tell(what: str, done: int, total: int) -> None:
        raise LookupError("no longer wanted")

    path = save(tmp_path, endless())
    with watched(tmp_path) as seen, pytest.raises(LookupError, match="no longer wanted"):
        compiled(spec_of(path, ROW), tmp_path, progress=tell)
    assert not is_alive(seen[0])


SLEEPER = """
import os, subprocess, sys, time
from pathlib import Path
if {daemon}:
    pids = Path({pids!r})
    code = "import os, subprocess; os.setsid(); p = subprocess.Popen(['sleep', '3600']); "
    code += f"open({pids!r}, 'w').write(str(p.pid))"
    subprocess.run([sys.executable, "-c", code])
    pid = pids.read_text()
else:
    pid = subprocess.Popen(["sleep", "3600"], start_new_session={session}).pid
    Path({pids!r}).write_text(str(pid))
{end}
"""
ENDS = {
    "fails": "raise LookupError('on purpose')",
    "is killed": "os.kill(os.getpid(), 9)",
    "does not listen": "time.sleep(3600)",
}


@LINUX
@pytest.mark.parametrize(
    ("started", "end"),
    [(how, "fails") for how in ("in its group", "in a session", "as a daemon")]
    + [("as a daemon", "is killed"), ("in a session", "does not listen")],
)
def test_what_a_worker_started_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: str, end: str
) -> None:
    """Also what left its session, and lost the process that started it."""
    pids = tmp_path / "pids"
    code = SLEEPER.format(
        daemon=started == "as a daemon", session=started == "in a session", pids=str(pids), end=ENDS[end]
    )
    library(tmp_path, monkeypatch, code)
    if end == "does not listen":

        def timed_out(*_: object) -> None:
            while not (pids.exists() and pids.read_text()):
                time.sleep(0.01)

        monkeypatch.setattr(isolation, "_follow", timed_out)
        monkeypatch.setattr(isolation, "_GRACE_S", 0.5)
    path = save(tmp_path, small_network())
    with pytest.raises(Unavailable):
        compiled(spec_of(path), tmp_path, host="cpu")
    assert not is_alive(int(pids.read_text()))


PARENT = """
import sys
from pathlib import Path
from tests.builders.engines.networks import ROW, compiled, spec_of
compiled(spec_of(Path(sys.argv[1]), ROW), Path(sys.argv[2]))
"""


@LINUX
def test_a_worker_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    path = save(tmp_path, endless())
    (tmp_path / "work").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(path), str(tmp_path / "work")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
    ) as parent:
        pid = worker_pid(tmp_path / "work")
        wait_until_busy(pid)
        parent.kill()
    wait_until_dead(pid)


@LINUX
def test_a_worker_whose_parent_is_gone_before_it_begins_ends_itself(tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text(json.dumps({"memory": 2**30, "task": "compile"}))
    done = subprocess.run(
        [sys.executable, "-m", "builders.engines.keeper", str(os.getppid()), "builders.engines.worker",
         tmp_path / "request.json", tmp_path / "result.json", "1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "result.json").exists()


# Memory


def test_a_worker_that_runs_out_of_memory_is_unavailable(tmp_path: Path) -> None:
    """A model whose one tensor no machine holds: ONNX Runtime fails to allocate, the model is not to blame."""
    path = save(tmp_path, huge(2**45))
    # The model itself is run first, in a session that prints nothing: the words of the library are in the message.
    with pytest.raises(Unavailable, match=r"net\.onnx ran out of memory: .*(allocat|bad_alloc)") as caught:
        compiled(spec_of(path, ROW), tmp_path, memory=machine_memory())
    assert caught.value.kind == "out-of-memory"
    assert caught.value.fields["model"] == "net.onnx"
    assert "log" in caught.value.fields


@LINUX
@pytest.mark.parametrize("mode", ["portable", "fast"])
def test_a_worker_takes_no_more_memory_than_it_is_allowed(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path, huge(2**28))  # 1 GiB
    with pytest.raises(Unavailable, match=r"net\.onnx") as caught:
        compiled(spec_of(path, ROW, mode=mode), tmp_path, memory=2**29)
    assert caught.value.kind == "out-of-memory"
    assert "memory_mib" in caught.value.remedy
    small = save(tmp_path / "small", huge(2**20))
    assert batches(compiled(spec_of(small, ROW, mode=mode), tmp_path, memory=2**29), "x") == (1,)


@LINUX
@pytest.mark.parametrize("mib", [64, 100])
def test_libraries_for_which_there_is_no_memory_are_not_said_to_be_absent(tmp_path: Path, mib: int) -> None:
    """64 MiB is the least that a mission file may name; nothing is compiled in that."""
    path = save(tmp_path, small_network())
    with pytest.raises(Unavailable) as caught:
        compiled(spec_of(path), tmp_path, memory=mib * 2**20)
    assert "not installed" not in caught.value.message
    assert "pip install" not in caught.value.remedy


@LINUX
@pytest.mark.parametrize(
    "says",
    [
        "OpenBLAS error: Memory allocation still failed after 10 retries, giving up.",
        "std::bad_alloc",
        "MemoryError",
    ],
)
def test_an_end_with_words_for_a_want_of_memory_is_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    library(tmp_path, monkeypatch, f"import os\nprint({says!r}, flush=True)\nos._exit(1)\n")
    path = save(tmp_path, small_network())
    with pytest.raises(Unavailable, match=r"ended with status 1") as caught:
        compiled(spec_of(path), tmp_path, host="cpu")
    assert caught.value.kind == "out-of-memory"


@pytest.mark.parametrize("code", ["raise MemoryError('no room')", "bytearray(2**60)"])
def test_memory_that_python_misses_is_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    library(tmp_path, monkeypatch, code)
    path = save(tmp_path, small_network())
    with pytest.raises(Unavailable, match="memory") as caught:
        compiled(spec_of(path), tmp_path, host="cpu")
    assert caught.value.kind == "out-of-memory"


@LINUX
def test_an_abort_for_want_of_memory_is_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = "terminate called after throwing an instance of 'std::bad_alloc'"
    library(tmp_path, monkeypatch, f"import os, sys\nprint({says!r}, file=sys.stderr, flush=True)\nos.abort()\n")
    path = save(tmp_path, small_network())
    with pytest.raises(Unavailable, match=r"compiles net\.onnx was ended by SIGABRT") as caught:
        compiled(spec_of(path), tmp_path, host="cpu")
    assert caught.value.kind == "out-of-memory"
    assert says in str(caught.value.fields["log"])


# What it says


def test_what_is_being_done_arrives(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    path = save(tmp_path, small_network())
    compiled(spec_of(path), tmp_path, progress=lambda *news: told.append(news))
    assert told
    assert set(told) <= {("checking the model", 0, 0), ("optimising", 0, 0), ("checking the engine", 0, 0)}


def test_news_are_thinned_but_for_their_beginning_and_end() -> None:
    news, said = os.pipe()
    tell = isolation.progress_writer(said)
    for done in range(1001):
        tell("x" * 1000, done, 1000)
    os.close(said)
    with open(news, "rb") as file:
        lines = [json.loads(line) for line in file]
    assert [lines[0][1], lines[-1][1]] == [0, 1000]
    assert len(lines) < 1001
    # Far below what a pipe takes in one piece.
    assert all(len(line[0]) == 200 for line in lines)


def test_news_that_make_no_sense_are_no_news() -> None:
    told: list[object] = []
    for line in (b"", b"noise", b"[]", b"[1, 2]", b'["a", "b", 3]', b"{", b"\xff"):
        isolation._report(line, lambda *news: told.append(news))
    assert told == []
    isolation._report(b'["a", 2, 3]', lambda *news: told.append(news))
    assert told == [("a", 2, 3)]


def test_news_of_another_form_are_no_news() -> None:
    for line in (b"3", b"null", b'["a", null, 3]', b'["a", [], 3]', b'["a", 1e999, 3]'):
        isolation._report(line, lambda *_: None)


def test_an_error_that_nobody_foresaw_crosses_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(tmp_path, monkeypatch, "raise LookupError('the moon is in the way')")
    path = save(tmp_path, small_network())
    with pytest.raises(Unavailable, match=r"^LookupError: the moon is in the way") as caught:
        compiled(spec_of(path), tmp_path, host="cpu")
    assert caught.value.kind == "failed"
    assert caught.value.fields["model"] == "net.onnx"
    # And where it happened.
    assert "Traceback" in str(caught.value.fields["log"])
    assert "onnxruntime.py" in str(caught.value.fields["log"])


@pytest.mark.parametrize("code", ["import os; os._exit(7)", "raise SystemExit(7)"])
def test_a_worker_that_ends_without_an_answer_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    library(tmp_path, monkeypatch, f"print('early'); print('last words', flush=True); {code}")
    path = save(tmp_path, small_network())
    with pytest.raises(Unavailable, match=r"compiles net\.onnx ended with status 7: last words") as caught:
        compiled(spec_of(path), tmp_path, host="cpu")
    assert caught.value.kind == "failed"
    assert caught.value.fields["status"] == 7
    assert "early\nlast words" in caught.value.remedy


@pytest.mark.parametrize("code", ["import os; os._exit(0)", "raise SystemExit(0)"])
def test_a_worker_that_says_all_is_well_and_gives_nothing_has_given_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    library(tmp_path, monkeypatch, code)
    with pytest.raises(Unavailable, match=r"compiles net\.onnx ended with status 0") as caught:
        compiled(spec_of(save(tmp_path, small_network())), tmp_path)
    assert caught.value.kind == "failed"


def test_a_result_for_which_there_is_no_space_names_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "print('OSError: [Errno 28] No space left on device', flush=True); import os; os._exit(1)"
    library(tmp_path, monkeypatch, code)
    with pytest.raises(Unavailable, match="no space is left for /") as caught:
        compiled(spec_of(save(tmp_path, small_network())), tmp_path, host="cpu")
    assert caught.value.kind == "no-space"


def test_a_signal_without_a_name_is_told_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(tmp_path, monkeypatch, "import os; os.kill(os.getpid(), 37)")
    with pytest.raises(Unavailable, match="was ended by signal 37"):
        compiled(spec_of(save(tmp_path, small_network())), tmp_path)


@LINUX
def test_an_interrupt_while_the_worker_is_being_started_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    close = os.close

    def interrupted(fd: int) -> None:
        if not started:
            return close(fd)
        monkeypatch.undo()
        raise KeyboardInterrupt

    path = save(tmp_path, endless())
    monkeypatch.setattr(isolation.subprocess, "Popen", Popen)
    monkeypatch.setattr(isolation.os, "close", interrupted)
    monkeypatch.setattr(isolation, "_GRACE_S", 0.1)
    with pytest.raises(KeyboardInterrupt):
        compiled(spec_of(path, ROW), tmp_path)
    assert started[0].returncode is not None


def test_the_log_is_its_end_without_control_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os; os.write(1, b'x' * 10**6 + b'\\n\\x1b[31mred\\x07\\xff\\x00 end'); raise LookupError"
    library(tmp_path, monkeypatch, code)
    path = save(tmp_path, small_network())
    with pytest.raises(Unavailable) as caught:
        compiled(spec_of(path), tmp_path, host="cpu")
    log = str(caught.value.fields["log"])
    assert len(log) <= 4096
    assert "[31mred" in log
    assert "LookupError" in log
    assert all(letter.isprintable() or letter == "\n" for letter in log)


def test_the_folder_of_a_worker_is_where_its_temporary_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(
        tmp_path,
        monkeypatch,
        "import os, tempfile\nraise LookupError(tempfile.gettempdir() + '|' + os.getcwd() + '|' + "
        "os.environ['ORT_DISABLE_TELEMETRY'])\n",
    )
    (tmp_path / "work").mkdir()
    path = save(tmp_path, small_network())
    with pytest.raises(Unavailable) as caught:
        compiled(spec_of(path), tmp_path / "work", host="cpu")
    (folder,) = (tmp_path / "work").iterdir()
    assert caught.value.message == f"LookupError: {folder}|{folder}|1"


def test_the_worker_finds_the_package_from_any_folder_and_takes_none_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, small_network())
    for name in ("onnxruntime", "runpy", "builders"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    assert batches(compiled(spec_of(path), tmp_path)) == (1, 2, 5)


def test_nothing_is_written_but_in_one_new_folder(tmp_path: Path) -> None:
    path = save(tmp_path / "source", small_network())
    (tmp_path / "work").mkdir()
    engine = compiled(spec_of(path, mode="fast"), tmp_path / "work")
    (folder,) = (tmp_path / "work").iterdir()
    assert all(each.path.is_relative_to(folder) for each in engine.parts)
    assert [entry.name for entry in (tmp_path / "source").iterdir()] == ["net.onnx"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["source", "work"]


# Failures as they cross


def _forged(folder: Path, data: bytes, most: int) -> tuple[str, int]:
    """The message for a result of these bytes, and the most memory that it took beside them."""
    (folder / "result.json").write_bytes(data)
    job = isolation.Job("module", "reads m.toml", "reading m.toml", folder, max_result=most)
    tracemalloc.start()
    try:
        with pytest.raises(Unavailable) as caught:
            isolation._result(folder / "result.json", job, "")
        return caught.value.message, tracemalloc.get_traced_memory()[1] - len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        b'{"report": [' + b"{}," * MAX_VALUES + b"{}]}",
        b'{"report": [' + b"[]," * MAX_VALUES + b"[]]}",
        b"[" * (MAX_VALUES + 1),
        b'{"report": "' + b"x" * 2**25 + "\U0001f6e9".encode() + b'"}',  # which Python would hold in 4 bytes a letter
        b'{"report": "' + b"x" * 2**25 + b'"}',
    ],
    ids=["objects", "arrays", "brackets", "letters", "long"],
)
def test_a_result_that_would_fill_the_memory_is_not_parsed(tmp_path: Path, data: bytes) -> None:
    message, memory = _forged(tmp_path, data, len(data) - (b"xx" in data and b"\xf0" not in data))
    assert message.startswith("the process that reads m.toml wrote a result that is too large, or is none: ")
    assert memory < 2**24 + len(data)  # the bytes themselves, twice where a file grows
