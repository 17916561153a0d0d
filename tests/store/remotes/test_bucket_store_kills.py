"""A sync to a bucket that ends at any moment: what is there is whole, and the next one sends the rest.

A bucket changes by requests alone, so a process that dies leaves what a network leaves that ends after a request: each
of them is the last one here, both arrived and not. Real kills of a real process come on top, a few; with
FLIGHTBAG_DRILL a hundred.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from store.disk.media import object_path
from store.errors import Unavailable
from store.remotes.bucket import BucketClient
from store.remotes.bucket_audit import fsck_bucket
from tests.store.remotes.conftest import plain
from tests.store.remotes.test_bucket_store import copied_down, fetch, is_whole, refs, send
from tests.support.s3 import BUCKET, Asked, Proxy, Server, server
from tests.support.stores import NORTH, REPOSITORY_ROOT, later, make_store, publish

KILLS = 100 if "FLIGHTBAG_DRILL" in os.environ else 2
NEXT = later(NORTH, 1, **{"notes.txt": b"the next issue"})
MANY = later(NORTH, 2, **{f"tile-{number}.bin": b"%d" % number * 50 for number in range(150)})


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("ground") / "store", NORTH)


@pytest.fixture(scope="module")
def advanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same store with the next issue of its mission."""
    store = make_store(tmp_path_factory.mktemp("advanced") / "store", NORTH)
    publish(store, NEXT)
    return store


def writes(proxy: Proxy) -> list[Asked]:
    return [asked for asked in proxy.asked if asked.method in ("PUT", "POST")]


@pytest.mark.parametrize(("first", "arrives"), [(True, False), (True, True), (False, True)])
def test_after_any_request_what_is_there_is_whole_and_the_rest_follows(
    spoilt: tuple[BucketClient, Proxy],
    storage: Server,
    ground: Path,
    advanced: Path,
    tmp_path: Path,
    first: bool,
    arrives: bool,
) -> None:
    _, proxy = spoilt
    source = ground if first else advanced
    last = 0
    while True:
        prefix = f"kills/{first}-{arrives}-{last}"
        direct = BucketClient(plain(storage.endpoint, prefix), f"s3://{BUCKET}/{prefix}")
        # Nobody asks twice: the network is gone.
        through = BucketClient(plain(proxy.endpoint, prefix, retries=0), direct.name)
        if not first:
            send(ground, direct)
        proxy.asked.clear()

        def fault(asked: Asked, last: int = last) -> str | None:
            number = len(writes(proxy)) - (asked.method in ("PUT", "POST"))
            if number < last:
                return None
            return "lost" if arrives and number == last and asked.method == "PUT" else "drop"

        proxy.fault = fault
        try:
            send(source, through)
        except Unavailable:
            pass
        else:
            break  # it was over before
        if refs(direct):
            is_whole(copied_down(direct, tmp_path / str(last)), NORTH.id)
        proxy.fault = lambda _: None
        proxy.asked.clear()
        had = {name for name, _ in direct.names("objects")}
        send(source, through)
        # Of a mission that has no ref there, nobody takes manifest and table for whole by their names.
        doubted = {object_path(id_) for one in (NORTH, NEXT) for id_ in (one.manifest_id, one.manifest.table)}
        assert not {asked.path.partition(f"{prefix}/")[2] for asked in writes(proxy)} & (had - doubted)
        assert not fsck_bucket(direct).errors
        last += 1
    assert last > 4
    is_whole(copied_down(direct, tmp_path / "end"), NORTH.id)


def test_a_download_that_ends_after_any_request_goes_on(
    spoilt: tuple[BucketClient, Proxy], ground: Path, tmp_path: Path
) -> None:
    client, proxy = spoilt
    send(ground, client)
    through = BucketClient(plain(proxy.endpoint, client.name.removeprefix(f"s3://{BUCKET}/"), retries=0), client.name)
    last = 0
    while True:
        target = tmp_path / str(last)
        proxy.asked.clear()
        proxy.fault = lambda _, last=last: "drop" if len(proxy.asked) > last else None
        try:
            fetch(through, target)
        except Unavailable:
            proxy.fault = lambda _: None
            fetch(client, target)
            is_whole(target, NORTH.id)
        else:
            break
        last += 4
    assert last > 8


PROGRAM = """
import sys
from pathlib import Path
from tests.store.remotes.conftest import plain
from tests.store.remotes.test_bucket_store import send
from tests.support.s3 import BUCKET
from store.remotes.bucket import BucketClient
endpoint, prefix, store = sys.argv[1:]
send(Path(store), BucketClient(plain(endpoint, prefix), f"s3://{BUCKET}/{prefix}"))
"""


def test_a_process_that_is_killed_at_a_random_moment_loses_nothing(
    between: Proxy, storage: Server, tmp_path: Path
) -> None:
    random = Random("kills")
    store = make_store(tmp_path / "store", NORTH, MANY)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY_ROOT)}
    killed = 0
    for number in range(KILLS):
        prefix = f"killed/{number}"
        direct = BucketClient(plain(storage.endpoint, prefix), f"s3://{BUCKET}/{prefix}")
        between.asked.clear()
        command = [sys.executable, "-c", PROGRAM, between.endpoint, prefix, str(store)]
        process = subprocess.Popen(command, env=environment, cwd=REPOSITORY_ROOT, stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + 60
            moment = random.randrange(len(MANY.contents) + 12)
            while len(writes(between)) <= moment and process.poll() is None and time.monotonic() < end:
                time.sleep(0.001)
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            killed += process.wait(30) == -signal.SIGKILL
        if refs(direct):
            is_whole(copied_down(direct, tmp_path / f"copy-{number}"), NORTH.id)
        had = {name for name, _ in direct.names("objects")}
        sent = send(store, direct)
        assert sent <= len({name for name, _ in direct.names("objects")} - had) + 4  # manifests and tables
        is_whole(copied_down(direct, tmp_path / f"after-{number}"), NORTH.id)
    assert killed


@pytest.mark.skipif("FLIGHTBAG_DRILL" not in os.environ, reason="the server takes half a minute: FLIGHTBAG_DRILL=1")
def test_a_server_that_goes_and_comes_back_has_what_it_confirmed(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = make_store(tmp_path_factory.mktemp("store") / "store", NORTH)
    with server(tmp_path_factory.mktemp("s3")) as one:
        one.make_bucket(BUCKET)
        client = BucketClient(plain(one.endpoint, "north"), f"s3://{BUCKET}/north")
        send(store, client)
        one.stop()
        with pytest.raises(Unavailable, match="does not answer"):
            send(store, client)
        one.start()
        publish(store, NEXT)
        end = time.monotonic() + 60
        while True:
            try:
                send(store, client)
                break
            except Unavailable:  # it answers before it has found all of its parts
                assert time.monotonic() < end
                time.sleep(0.2)
        is_whole(copied_down(client, tmp_path_factory.mktemp("copy") / "store"), NORTH.id)
