"""Locks of the kernel: who holds one is said, nothing survives its holder, nothing falls back."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from store.disk.durable import Disk
from store.disk.locks import Locked, SharedLock, exclusive
from store.errors import Unavailable
from tests.faults.test_kill import child

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
