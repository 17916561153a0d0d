"""Fixtures that more than one part of the tests uses, and where the tests write."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support import s3
from tests.support.field import Desk, make_desk

# A timing never decides a test, and one that failed in CI fails the same way at a desk.
settings.register_profile(
    "flightbag", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("flightbag")

# A shell lets what it starts in the background ignore Ctrl-C, and the programs that the tests start would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Some machines forbid Python to keep what it compiles; each of the thousand processes that the tests start would then
# compile this program again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The tests write to memory where it has room: they sync thousands of times, and a disk needs milliseconds for each.
# No test needs a real disk: a power cut is a model (tests.faults.disks). TMPDIR=/tmp runs them on a disk.
MEMORY = "/dev/shm"
ROOM = 4 * 2**30
TESTS = Path(__file__).parent
if "TMPDIR" not in os.environ and Path(MEMORY).is_dir() and shutil.disk_usage(MEMORY).free >= ROOM:
    os.environ["TMPDIR"] = MEMORY  # child processes write there too
    tempfile.tempdir = None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "confined: the confined process is a subject of the test, which starts it")


@pytest.fixture(autouse=True)
def confined_here(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run confined tasks in the process of the test, unless it is marked `confined`: a process takes half a second of
    a processor to start, and there are hundreds of builds and plans. What a program of its own starts is as ever."""
    # A flight computer has nothing of the ground, and runs tests that build nothing: `tests.support.pythons`.
    builds = request.path.relative_to(TESTS).parts[0] != "store" and importlib.util.find_spec("pydantic") is not None
    # Not the fixture `monkeypatch`: what a test does with that is undone before its folders are removed.
    with pytest.MonkeyPatch.context() as patch:
        if builds and request.node.get_closest_marker("confined") is None:
            from tests.support.here import confine_here

            confine_here(patch)
        yield


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ledgers of audits and caches go to folders of the tests, not to those of whoever runs them; nor are their store
    and their keys taken."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STORE", "TRUST", "STATE", "KEY", "PASSPHRASE_FILE"):
            patch.delenv(f"FLIGHTBAG_{name}", raising=False)
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    """A real S3 server with one bucket, started once. Skips where none is installed."""
    with s3.server(tmp_path_factory.mktemp("s3")) as one:
        one.make_bucket(s3.BUCKET)
        yield one


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared test data; skips where they are absent."""
    given = os.environ.get("FLIGHTBAG_SHARED")
    if not given or not (Path(given) / "data").is_dir():
        pytest.skip("FLIGHTBAG_SHARED does not name a folder with data/: real imagery and backbone are not at hand")
    return Path(given) / "data"


@pytest.fixture(scope="session")
def _first_desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return make_desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture
def desk(_first_desk: Desk, tmp_path: Path) -> Desk:
    """A desk with an empty store, of the test's own."""
    folder = tmp_path / "desk"
    shutil.copytree(_first_desk.folder, folder)
    return Desk(folder)


@pytest.fixture(scope="session")
def _first_built(_first_desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("built") / "desk"
    shutil.copytree(_first_desk.folder, folder)
    desk = Desk(folder)
    desk.built(desk.write_mission("left"))
    return desk


@pytest.fixture
def built(_first_built: Desk, tmp_path: Path) -> Desk:
    """A desk on which the mission `left` is built, of the test's own."""
    folder = tmp_path / "desk"
    shutil.copytree(_first_built.folder, folder)
    return Desk(folder)
