"""The public API: what `import store` gives and needs, and the examples at the heads of the public modules.

The takeoff check needs neither an index nor a lock, and the check by an aircraft's state needs no index.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import store
from store import errors
from store.disk import media
from store.disk.medium import Medium
from tests.support.examples import run_examples
from tests.support.missions import NOW, pinned
from tests.support.stores import NORTH, REPOSITORY_ROOT, ROOT_FILE, make_store

PUBLIC = ("store", "store.takeoff.aircraft", "store.takeoff.check", "store.takeoff.loading")


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(name)
    # What the tests write to may be no medium that is known, and a verdict would say so.
    monkeypatch.setattr(media, "medium_of", lambda fd: Medium(False))
    names: dict[str, Any] = {
        "now": NOW,
        "root_bytes": ROOT_FILE,
        "state_folder": tmp_path / "state",
        "store_path": make_store(tmp_path / "store"),
    }
    assert run_examples(module, names) > 2


def test_every_error_class_and_every_name_is_exported() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    rest = {"Finding", "Verdict", "VerifiedMission", "aircraft", "load", "takeoff_check"}
    assert set(store.__all__) == classes | rest
    assert all(getattr(store, name) is not None for name in store.__all__)


def run_without(blocked: tuple[str, ...], code: str, *arguments: object) -> str:
    """Run code in a process where some packages cannot be imported."""
    block = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in blocked)
    done = subprocess.run(
        [sys.executable, "-c", block + code, *map(str, arguments)], capture_output=True, text=True, cwd=REPOSITORY_ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TAKEOFF = f"""
import pathlib, store
trust = pathlib.Path(sys.argv[2]).read_bytes()
verdict = store.takeoff_check(sys.argv[1], {NORTH.id!r}, trust=trust, now={NOW})
print(verdict.go, bytes(store.load(verdict.mission, "files/calibration/camera.yaml", kind="file")))
"""
AIRCRAFT = f"""
import store
from store import aircraft
assert store.aircraft is aircraft
print(store.aircraft.check(sys.argv[2], sys.argv[1], {NORTH.id!r}, now={NOW}).findings)
"""
NUMERIC = ("numpy", "onnx", "onnxruntime", "PIL", "shapely")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store", NORTH)


def test_the_takeoff_check_needs_neither_lmdb_nor_filelock(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(ROOT_FILE)
    told = run_without(("lmdb", "filelock", *NUMERIC), TAKEOFF, folder, tmp_path / "root")
    assert told == "True b'fx: 1.0\\n'\n"


def test_the_check_by_an_aircrafts_state_needs_no_lmdb(folder: Path, tmp_path: Path) -> None:
    state = store.aircraft.AircraftState.initial("uav-07", "cpu-x86_64-avx2", pinned())
    store.aircraft.enrol(tmp_path / "state", state)
    assert run_without(("lmdb", *NUMERIC), AIRCRAFT, folder, tmp_path / "state") == "()\n"


def test_importing_the_package_loads_no_index_lock_or_numeric_library() -> None:
    loaded = run_without((), f"import store\nprint(sorted({{'lmdb', 'filelock', *{NUMERIC!r}}} & set(sys.modules)))")
    assert loaded == "[]\n"


def test_a_cold_takeoff_check_loads_only_what_it_needs(folder: Path, tmp_path: Path) -> None:
    """Each of these takes as long to load as a tenth of the check of a small mission, or longer."""
    slow = ("asyncio", "concurrent.futures", "cryptography.hazmat.primitives.serialization", "logging", "sqlite3")
    slow += ("store.ground", "store.audit", "store.takeoff.aircraft", "typing_extensions")
    (tmp_path / "root").write_bytes(ROOT_FILE)
    code = f"{TAKEOFF}print(sorted({{*{slow!r}}} & set(sys.modules)))"
    assert run_without((), code, folder, tmp_path / "root").splitlines()[-1] == "[]"
