"""A store that may not be written to: whoever only looks needs no flag, and leaves no trace.

Each test runs every reading command (`tests.support.looking`) on one such store: behind a read-only bind mount, of
another user, on exFAT and on FAT32; and under strace, on a store that could be written to, to see that no call that
writes is so much as tried.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import flightbag
from tests.support.field import Desk
from tests.support.mounts import Image, behind_read_only_bind, exfat, fat, need_root
from tests.support.stores import REPOSITORY_ROOT, listing

NOBODY = 65534


def trace(folder: Path) -> Mapping[str, tuple[object, ...]]:
    """Everything that a write would change in a folder and of the folder itself; reading changes the atime alone."""
    status = folder.lstat()
    return {
        ".": (status.st_mode, status.st_mtime_ns, status.st_ctime_ns, status.st_uid, status.st_gid),
        **listing(folder),
    }


def look(store: Path, desk: Desk, scratch: Path, *before: str, user: int | None = None) -> None:
    """Runs every reading command on `store`, in one process behind the words `before`."""
    scratch.mkdir(exist_ok=True)
    words = [*before, sys.executable, "-m", "tests.support.looking", store, desk.folder, scratch]
    if user is not None:
        words.append(str(user))
    done = subprocess.run(words, cwd=REPOSITORY_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    received = Desk(desk.folder).verify(scratch / "target")
    assert received.status == 0, received.out


def test_behind_a_read_only_bind_mount(built: Desk, tmp_path: Path) -> None:
    words = behind_read_only_bind(built.store)
    assert flightbag("init", built.folder / "new").status == 0, "only the store is read-only"
    before = trace(built.store)
    look(built.store, built, tmp_path / "scratch", *words)
    assert trace(built.store) == before


def test_what_would_write_behind_it_says_that_the_medium_is_read_only(built: Desk) -> None:
    words = behind_read_only_bind(built.store)
    before = trace(built.store)
    done = subprocess.run(
        [*words, str(Path(sys.executable).parent / "flightbag"), "pin", str(built.store), "kept", "left"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert trace(built.store) == before


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that any user can reach; those of pytest are for one user alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


def test_owned_by_another_user(built: Desk, reachable: Path) -> None:
    need_root("becoming another user")
    desk, store, scratch = Desk(reachable / "desk"), reachable / "store", reachable / "scratch"
    shutil.copytree(built.folder, desk.folder)
    desk.folder.chmod(0o755)  # pytest's folders are for one user alone
    shutil.copytree(built.store, store)
    for path in sorted((*store.rglob("*"), store), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    scratch.mkdir()
    os.chown(scratch, NOBODY, NOBODY)
    before = trace(store)
    look(store, desk, scratch, user=NOBODY)
    assert trace(store) == before
    assert (scratch / "target").stat().st_uid == NOBODY, "it was that user who looked"


def image_with_the_store(image: Image, desk: Desk) -> None:
    """A plain copy, as anybody makes one on a stick."""
    with image.mounted() as medium:
        subprocess.run(["cp", "-r", desk.store, medium / "ground"], check=True)


@pytest.mark.parametrize("kind", [exfat, fat])
def test_on_a_stick(built: Desk, tmp_path: Path, kind: Any) -> None:
    image = kind(tmp_path / "image")
    image_with_the_store(image, built)
    with image.mounted() as medium:
        before = trace(medium)
        look(medium / "ground", built, tmp_path / "scratch")
        assert trace(medium) == before


@pytest.mark.parametrize("kind", [exfat, fat])
def test_on_a_stick_with_its_switch_at_read_only(built: Desk, tmp_path: Path, kind: Any) -> None:
    image = kind(tmp_path / "image")
    image_with_the_store(image, built)
    before = hashlib.sha256(image.file.read_bytes()).hexdigest()
    with image.mounted(read_only=True) as medium:
        look(medium / "ground", built, tmp_path / "scratch")
    assert hashlib.sha256(image.file.read_bytes()).hexdigest() == before


# What a process may call to change a file system. `open` and its kin are judged by their flags, `mmap` by its
# protection, calls on descriptors by the path that strace gives each.
_CHANGES = """
    creat mkdir mkdirat mknod mknodat rename renameat renameat2 unlink unlinkat rmdir link linkat symlink symlinkat
    chmod fchmod fchmodat chown fchown lchown fchownat truncate ftruncate fallocate utime utimes utimensat futimesat
    setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr write writev pwrite64 pwritev pwritev2
    sendfile copy_file_range splice fsync fdatasync sync_file_range syncfs
"""
_OPENS = ("open", "openat", "openat2")
_WRITING_FLAGS = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND|__O_TMPFILE|O_TMPFILE")


def attempts(strace: str, store: Path) -> list[str]:
    """The calls in an strace log (with -y) that would change something in `store`, also those that failed."""
    found = []
    inside = re.compile(re.escape(str(store)) + r"(?![^/\">])")
    for line in strace.splitlines():
        match = re.match(r"(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)", line)
        if match is None:
            continue
        call, args = match[1], match[2]
        if call in _OPENS:
            tried = _WRITING_FLAGS.search(args) is not None
        elif call == "mmap":
            tried = "PROT_WRITE" in args and "MAP_SHARED" in args
        else:
            tried = call in _CHANGES.split()
        # What is written somewhere else may speak of the store: of these calls, only the descriptor counts.
        where = args.split(">", 1)[0] + ">" if call.startswith(("write", "pwrite")) else args
        if tried and inside.search(where):
            found.append(line)
    return found


def traced(log: Path, *command: object) -> str:
    """The strace log of a command and all its threads and children."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    calls = ",".join((*_CHANGES.split(), *_OPENS, "mmap"))
    words = ["strace", "-f", "-y", "-s", "256", "--seccomp-bpf", "-o", str(log), "-e", f"trace={calls}"]
    done = subprocess.run(
        [*words, *map(str, command)], cwd=REPOSITORY_ROOT, capture_output=True, text=True, check=False
    )
    if "ptrace" in done.stderr and done.returncode != 0:
        pytest.skip(f"nothing may be traced here: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return log.read_text()


def test_no_call_that_writes_is_tried_in_the_store(built: Desk, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = trace(built.store)
    log = traced(tmp_path / "calls", sys.executable, "-m", "tests.support.looking", built.store, built.folder, scratch)
    # With --drop-cache a check of a disk waits until what others wrote has arrived: that changes no file.
    assert [call for call in attempts(log, built.store) if not re.search(r"\bsyncfs\(", call)] == []
    assert len(re.findall(r"\bsyncfs\(", log)) <= 1, "only the one command that drops the cache waits"
    assert trace(built.store) == before
    assert len(re.findall(re.escape(f"{built.store}/objects"), log)) > 100, "the tracer saw the store being read"
    for written in ("target/lock", "target/tmp", "target/missions", "target/objects"):
        assert attempts(log, scratch / written), f"the tracer sees what is written to {written}"


def test_the_tracer_sees_every_way_to_write(tmp_path: Path) -> None:
    """Each of these is one change; the failing ones count too, and what lies beside the folder does not."""
    program = """
import mmap, os, sys
here = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
fd = os.open("file", os.O_RDONLY, dir_fd=here)
writable = os.open("file", os.O_RDWR, dir_fd=here)
os.pwrite(writable, b"x", 0)
mmap.mmap(writable, 1)
os.mkdir("new", dir_fd=here)
os.rename("file", "other", src_dir_fd=here, dst_dir_fd=here)
os.utime(fd)
os.fchmod(fd, 0o600)
os.truncate(sys.argv[1] + "/other", 0)
for failing, *args in ((os.rmdir, sys.argv[1] + "/absent"), (os.open, sys.argv[1] + "/a/b", os.O_CREAT | os.O_WRONLY)):
    try:
        failing(*args)
    except OSError:
        pass
os.write(1, (sys.argv[1] + "/other").encode())
open(sys.argv[1] + "-beside", "w").close()
"""
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "file").write_text("content")
    log = traced(tmp_path / "calls", sys.executable, "-c", program, folder)
    seen = [re.sub(r"^\d+ +(\w+)\(.*", r"\1", line) for line in attempts(log, folder)]
    assert seen == [
        "openat", "pwrite64", "mmap", "mkdirat", "renameat", "utimensat", "fchmod", "truncate", "rmdir", "openat",
    ]  # fmt: skip
