"""SIGKILL: a process that dies at any moment leaves no lock, no live-looking folder and no half mission."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store.disk.durable import Disk
from store.disk.locks import Locked, exclusive
from store.disk.media import Media
from store.disk.staging import sweep
from store.ground.repository import Repository
from store.ground.writer import writing
from tests.support.stores import NORTH, REPOSITORY_ROOT, SOUTH, audit, check, later, make_store, publish

HOLDER = """
import sys, time
from store.ground.repository import Repository
from store.ground.writer import writing
from store.disk.locks import exclusive
with Repository.open(sys.argv[1]) as r, exclusive(r.media.path, r.disk, "mission-x", "the mission x"), \\
        writing(r) as writer, writer.inserting() as batch:
    batch.add_bytes(b"half of something" * 1000)
    with exclusive(r.media.path, r.disk, "log", "the log"):
        print("holding", flush=True)
        time.sleep(60)
"""

PUBLISHER = """
import sys
from pathlib import Path
from tests.support.stores import NORTH, later, publish
print("ready", flush=True)
for step in range(1, 1000):
    publish(Path(sys.argv[1]), later(NORTH, step, camera2=b"fx: %d" % step))
"""


@contextmanager
def child(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has said its first line; it is killed at the end."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_everything_is_free_after_a_kill(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    disk = Disk()
    with child(HOLDER, store) as process:
        with pytest.raises(Locked) as caught, exclusive(str(store), disk, "mission-x", "the mission x"):
            pass
        assert caught.value.fields["pid"] == process.pid
        folders = os.listdir(store / "tmp")
        assert len(folders) == 1
        with Media(store) as media:
            assert sweep(media, disk) == 0, "the transaction is alive"
        process.kill()
        process.wait()
    for name in ("mission-x", "log"):
        with exclusive(str(store), disk, name, name):
            pass
    assert os.listdir(store / "tmp") == folders, "a kill cleans nothing up"
    publish(store, later(NORTH))
    assert os.listdir(store / "tmp") == []
    assert not audit(store).errors


def test_a_living_transaction_is_left_alone_by_another_publication(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    with Repository.open(store) as repository, writing(repository) as writer, writer.inserting() as batch:
        batch.add_bytes(b"slow")
        with child("from tests.faults.test_kill import beside; import sys; beside(sys.argv[1])", store) as process:
            assert process.wait() == 0
        batch.commit()
    assert check(store, NORTH.id).mission.manifest_id == later(NORTH).manifest_id  # type: ignore[union-attr]
    assert os.listdir(store / "tmp") == []


def beside(store: str) -> None:
    publish(Path(store), later(NORTH))
    print("done", flush=True)


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.03, 0.05, 0.08, 0.12])
def test_a_publisher_killed_at_some_moment_leaves_whole_missions(tmp_path: Path, seconds: float) -> None:
    store = make_store(tmp_path / "store")
    with child(PUBLISHER, store) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert check(store, NORTH.id).go
    assert check(store, SOUTH.id).go
    assert not audit(store).errors
    last = later(NORTH, 2000)
    publish(store, last)
    assert check(store, NORTH.id).mission.manifest_id == last.manifest_id  # type: ignore[union-attr]
    assert os.listdir(store / "tmp") == []
    assert [finding.kind for finding in audit(store).findings if not finding.information] == []


def test_two_publishers_at_once_both_get_through(tmp_path: Path) -> None:
    """One process publishes north, another south, over and over, with shared objects, index, log and locks."""
    store = make_store(tmp_path / "store")
    program = """
import sys
from pathlib import Path
from tests.support import stores
one = getattr(stores, sys.argv[2])
print("ready", flush=True)
for step in range(1, 16):
    stores.publish(Path(sys.argv[1]), stores.later(one, step, extra=b"shared %d" % step))
"""
    with child(program, store, "NORTH") as north, child(program, store, "SOUTH") as south:
        assert north.wait() == 0
        assert south.wait() == 0
    found = audit(store)
    assert {finding.kind for finding in found.findings} <= {"unreferenced"}
    for one in (NORTH, SOUTH):
        verdict = check(store, one.id)
        assert verdict.mission is not None
        assert verdict.mission.manifest.issue.sequence == one.manifest.issue.sequence + 15
