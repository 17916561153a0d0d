"""Locks of the kernel: who holds one is said, nothing survives its holder, nothing falls back."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from store.disk import locks
from store.disk.durable import Disk
from store.disk.locks import Locked, SharedLock, exclusive
from store.errors import Unavailable
from tests.faults.test_kill import child
from tests.support.stores import listing

HOLD = """
import sys, time
from store.disk.durable import Disk
from store.disk.locks import SharedLock, exclusive
if sys.argv[2] == "exclusive":
    with exclusive(sys.argv[1], Disk(), "x", "the thing"):
        print("holding", flush=True)
        time.sleep(60)
lock = SharedLock(sys.argv[1], Disk(), "x", "the thing")
lock.hold_shared(wait=False) if sys.argv[2] == "shared" else lock.try_exclusive()
print("holding", flush=True)
time.sleep(60)
"""


def test_a_held_lock_says_who_holds_it_and_what_to_do(tmp_path: Path) -> None:
    began = int(time.time())
    with child(HOLD, tmp_path, "exclusive") as process:
        with pytest.raises(Locked) as caught, exclusive(str(tmp_path), Disk(), "x", "the thing"):
            pass
        fields = caught.value.fields
        assert (fields["pid"], fields["host"]) == (process.pid, socket.gethostname())
        assert began <= fields["since"] <= time.time()  # type: ignore[operator]
        assert "exclusive" in str(fields["command"])
        assert str(process.pid) in caught.value.message
        assert caught.value.remedy


@pytest.mark.parametrize("how", ["exclusive", "shared", "alone"])
def test_a_kill_frees_the_lock(tmp_path: Path, how: str) -> None:
    with child(HOLD, tmp_path, how) as process:
        with pytest.raises(Locked), exclusive(str(tmp_path), Disk(), "x", "the thing"):
            pass
        process.kill()
        process.wait()
        with exclusive(str(tmp_path), Disk(), "x", "the thing"):
            pass


def test_exclusive_waits_as_long_as_it_is_told(tmp_path: Path) -> None:
    with exclusive(str(tmp_path), Disk(), "x", "the thing"):
        with pytest.raises(Locked) as caught, exclusive(str(tmp_path), Disk(), "x", "the thing", timeout=0.05):
            pass
        assert caught.value.fields["pid"] == os.getpid()
        with exclusive(str(tmp_path), Disk(), "y", "another thing"):
            pass
    with exclusive(str(tmp_path), Disk(), "x", "the thing"):
        pass


def test_many_share_and_one_alone_has_none_beside_it(tmp_path: Path) -> None:
    one, two = (SharedLock(str(tmp_path), Disk(), "x", "the thing") for _ in range(2))
    one.hold_shared(wait=False)
    two.hold_shared(wait=False)
    assert not one.try_exclusive()
    two.close()
    assert one.try_exclusive()
    three = SharedLock(str(tmp_path), Disk(), "x", "the thing")
    with pytest.raises(Locked):
        three.hold_shared(wait=False)
    one.close()
    three.hold_shared(wait=True)
    three.close()


def test_a_lock_that_nobody_took_is_not_made_by_looking(tmp_path: Path) -> None:
    assert SharedLock.existing(str(tmp_path), "x", "the thing") is None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "text", [b"", b"5", b"[1]", b"{", b'"x"', b"[" * 4000, b"\xff\xfe", b'{"pid": 1}', b"null", b"x" * 9000]
)
def test_whatever_is_in_the_file_locked_is_locked(tmp_path: Path, text: bytes) -> None:
    """The text may be torn, copied or planted; it decides nothing."""
    lock = SharedLock(str(tmp_path), Disk(), "x", "the thing")
    assert lock.try_exclusive()
    (tmp_path / "lock" / "x").write_bytes(text)
    with pytest.raises(Locked) as caught, exclusive(str(tmp_path), Disk(), "x", "the thing"):
        pass
    assert caught.value.fields["kind"] == "locked"
    lock.close()
    with exclusive(str(tmp_path), Disk(), "x", "the thing"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_an_error_never_a_soft_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def none(fd: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(Unavailable) as caught, exclusive(str(tmp_path), Disk(), "x", "the thing"):
        pass
    assert not isinstance(caught.value, Locked)
    lock = SharedLock(str(tmp_path), Disk(), "x", "the thing")
    for take in (lock.try_exclusive, lambda: lock.hold_shared(wait=False)):
        with pytest.raises(Unavailable):
            take()
    lock.close()


def test_no_lock_is_taken_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "store" / "lock").mkdir(parents=True)
    (tmp_path / "store" / "lock" / "x").symlink_to(tmp_path / "outside" / "planted")
    store = str(tmp_path / "store")
    with pytest.raises(Unavailable), exclusive(store, Disk(), "x", "the thing"):
        pass
    with pytest.raises(Unavailable):
        SharedLock(store, Disk(), "x", "the thing")
    with pytest.raises(Unavailable):
        SharedLock.existing(store, "x", "the thing")
    assert os.listdir(tmp_path / "outside") == []
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "lock").symlink_to(tmp_path / "outside")
    with pytest.raises(Unavailable), exclusive(str(tmp_path / "linked"), Disk(), "x", "the thing"):
        pass
    assert os.listdir(tmp_path / "outside") == []


def test_what_a_lock_file_says_of_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["flightbag", "x" * 5000])
    began = int(time.time())
    for take in ("exclusive", "shared class"):
        path = tmp_path / "lock" / take
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"y" * 9000)
        if take == "exclusive":
            with exclusive(str(tmp_path), Disk(), take, "the thing"):
                text = path.read_bytes()
        else:
            lock = SharedLock(str(tmp_path), Disk(), take, "the thing")
            lock.hold_exclusive(wait=False)
            text = path.read_bytes()
            lock.close()
        holder = json.loads(text)
        assert list(holder) == ["pid", "host", "since", "command"]
        assert (holder["pid"], holder["host"]) == (os.getpid(), socket.gethostname())
        assert began <= holder["since"] <= time.time()
        assert holder["command"] == ("flightbag " + "x" * 5000)[:400]


def test_a_lock_file_of_the_right_size_is_not_truncated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FAT driver refuses to truncate a file to the size that it has."""
    cut: list[int] = []
    monkeypatch.setattr(locks.os, "ftruncate", lambda fd, size: cut.append(size))
    monkeypatch.setattr(locks, "_holder", lambda: b"{}")
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    for length, cuts in ((0, []), (2, []), (3, [2])):
        os.pwrite(fd, b"x" * length, 0)
        locks._write_holder(fd)
        assert cut == cuts
    os.close(fd)


@pytest.mark.parametrize(
    ("text", "by"),
    [
        (b'{"pid": 5, "host": "h", "command": "c"}', "process 5 on h (c)"),
        (b'{"pid": 5, "host": "h", "since": 7, "command": "c", "more": 1}', "process 5 on h (c)"),
        (b'{"pid": 5, "host": "h"}', "another process"),
        (b'{"pid": 5, "command": "c"}', "another process"),
        (b'{"host": "h", "command": "c"}', "another process"),
        (b'{"pid": 5, "host": "h", "command": "c"}' + b" " * 4096, "process 5 on h (c)"),
        (b" " * 4096 + b'{"pid": 5, "host": "h", "command": "c"}', "another process"),
    ],
)
def test_without_the_table_of_the_kernel_the_text_names_the_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, by: str
) -> None:
    monkeypatch.setattr(locks, "_by_kernel", lambda _: {})
    (tmp_path / "x").write_bytes(text)
    error = locks._locked(str(tmp_path / "x"), "the thing")
    assert error.message == f"the thing is locked by {by}"
    facts = {"pid", "host", "since", "command"}
    assert facts <= set(error.fields)
    if by != "another process":
        assert (error.fields["pid"], error.fields["host"], error.fields["command"]) == (5, "h", "c")


@pytest.mark.parametrize(("pid", "named"), [(5, 5), (7, 7), (6, 5), ("5", 5), (True, 5)])
def test_the_kernel_says_who_holds_it_and_the_text_which_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: object, named: int
) -> None:
    holders = {number: {"pid": number, "host": "h", "command": "c"} for number in (5, 7)}
    monkeypatch.setattr(locks, "_by_kernel", lambda _: holders)
    (tmp_path / "x").write_text(json.dumps({"pid": pid, "host": "g", "since": 3, "command": "d"}))
    error = locks._locked(str(tmp_path / "x"), "the thing")
    assert error.fields["pid"] == named
    assert error.fields["since"] == (3 if pid == named and pid is not True else None)


def test_the_table_of_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of another kind or of another file count for nothing, and neither does who only waits."""
    path = tmp_path / "x"
    path.touch()
    status = path.stat()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    me = os.getpid()
    table: list[str] = []
    real = open

    def fake(name: str, *arguments: object, **options: object) -> object:
        return nullcontext(table) if name == "/proc/locks" else real(name, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", fake)
    for lines, holders in (
        ([f"1: FLOCK  ADVISORY  WRITE {me} {place} 0 EOF"], {me}),
        ([f"1: FLOCK ADVISORY READ {me} {place} 0 EOF", f"2: FLOCK ADVISORY READ 1 {place} 0 EOF"], {me, 1}),
        ([f"1: POSIX ADVISORY WRITE {me} {place} 0 EOF"], set()),
        ([f"1: -> FLOCK ADVISORY WRITE {me} {place} 0 EOF"], set()),
        ([f"1: FLOCK ADVISORY WRITE {me} {place}1 0 EOF"], set()),
        ([f"1: FLOCK ADVISORY WRITE {2**30} {place} 0 EOF"], set()),
        (["garbage"], set()),
    ):
        table[:] = lines
        assert set(locks._by_kernel(str(path))) == holders
    table[:] = [f"1: FLOCK ADVISORY WRITE {me} {place} 0 EOF"]
    (holder,) = locks._by_kernel(str(path)).values()
    assert (holder["pid"], holder["host"]) == (me, socket.gethostname())
    command = Path("/proc/self/cmdline").read_bytes()[:400].replace(b"\0", b" ").decode(errors="replace").strip()
    assert holder["command"] == command
    assert locks._by_kernel(str(tmp_path / "none")) == {}


def test_whoever_waits_gets_the_lock_later(tmp_path: Path) -> None:
    one, two = (SharedLock(str(tmp_path), Disk(), "x", "the thing") for _ in range(2))
    one.hold_exclusive(wait=True)
    for take in (two.hold_shared, two.hold_exclusive):
        with pytest.raises(Locked, match="the thing is locked by process"):
            take(wait=False)
        timer = threading.Timer(0.05, one.release)
        timer.start()
        take(wait=True)
        timer.join()
        assert not one.try_exclusive()
        two.release()
        assert one.try_exclusive()
    one.close()
    two.close()


def test_a_lock_that_exists_is_taken_shared_without_a_write(tmp_path: Path) -> None:
    SharedLock(str(tmp_path), Disk(), "x", "the thing").close()
    before = listing(tmp_path)
    lock = SharedLock.existing(str(tmp_path), "x", "the thing")
    assert lock is not None
    lock.hold_shared(wait=False)
    alone = SharedLock(str(tmp_path), Disk(), "x", "it")
    assert not alone.try_exclusive()
    lock.close()
    assert alone.try_exclusive()
    alone.close()
    assert listing(tmp_path) == before
    assert SharedLock.existing(str(tmp_path), "y", "the thing") is None


def test_the_holder_of_a_copied_lock_file_holds_nothing(tmp_path: Path) -> None:
    with exclusive(str(tmp_path), Disk(), "x", "the thing"):
        (tmp_path / "copy" / "lock").mkdir(parents=True)
        (tmp_path / "copy" / "lock" / "x").write_bytes((tmp_path / "lock" / "x").read_bytes())
        with exclusive(str(tmp_path / "copy"), Disk(), "x", "the thing"):
            pass
    assert sys.argv[0] in (tmp_path / "copy" / "lock" / "x").read_text()


def test_lmdb_and_filelock_are_loaded_only_where_an_index_or_a_lock_is_opened() -> None:
    """A flight computer imports the takeoff check and its state without either."""
    program = (
        "import sys\n"
        "sys.modules['lmdb'] = None; sys.modules['filelock'] = None\n"
        "import store, store.takeoff.aircraft, store.takeoff.check, store.disk.locks\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
