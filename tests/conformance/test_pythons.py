"""What flies runs on Python 3.10, the one of JetPack 6, and what docs/support.md says was run, was."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support import pythons, release
from tests.support.commands import code_of, flightbag
from tests.support.field import Desk

REPOSITORY = release.REPOSITORY
OLDEST = "3.10"
# The fast ones of `pythons.TESTS`.
PART = ("tests/store/test_examples.py", "tests/store/disk/test_layout.py", "tests/store/takeoff/test_loading.py")
PART += ("tests/tools/test_arguments.py",)


@pytest.fixture(scope="module")
def python() -> Path:
    """Python 3.10 in an environment that has what flies."""
    found = pythons.interpreter(OLDEST)
    if found is None:
        pytest.skip(f"no Python {OLDEST} is on the path or among those of pyenv")
    if why := release.unreachable():
        pytest.skip(why)
    return pythons.environment(OLDEST, found)


def ran(python: Path, *command: object, status: int = 0) -> str:
    """What Python, or a program beside it, prints."""
    program = [python] if str(command[0]).startswith("-") else []
    words = [str(python.parent / command[0]) if not program else command[0], *command[1:]]
    done = subprocess.run([*program, *map(str, words)], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_part_of_the_tests_passes(python: Path) -> None:
    assert pythons.run(python, PART).returncode == 0


def test_a_mission_is_carried_checked_and_flown(python: Path, built: Desk, tmp_path: Path) -> None:
    stick, state = tmp_path / "stick", tmp_path / "state"
    host = json.loads(ran(python, "flightbag", "engines", "host", "--json"))["host"]
    assert re.fullmatch(r"cpu-\S+\+ort-[0-9.]+", host)
    ran(python, "flightbag", "sync", built.store, stick)
    assert "clean" in ran(python, "store-fsck", stick, "--full")
    ran(
        python,
        "flightbag",
        "aircraft",
        "enrol",
        "--state",
        state,
        "--id",
        "uav-07",
        "--host",
        host,
        "--trust",
        built.root,
    )
    flight = "2026-11-23-01"
    assert "\nGO  left" in ran(python, "flightbag", "verify", stick, "--state", state, "--flight", flight)
    assert "embedder" in ran(python, "flightbag", "probe", stick, "left", "--state", state)
    assert "onnxruntime" in ran(python, "flightbag", "engines", "show", stick, "left")
    ran(python, "flightbag", "aircraft", "consume", flight, "--state", state)
    refused = ran(python, "flightbag", "verify", stick, "--state", state, "--flight", flight, status=1)
    assert "\nNO-GO  " in refused

    probe = json.loads(ran(python, "-m", "tests.support.runtime_probe", stick, built.root, "left", "embedder"))
    assert (probe["go"], probe["holds"], probe["matches"]) == (True, True, 1)


def test_what_builds_names_the_python_that_it_needs(python: Path, built: Desk) -> None:
    text = ran(python, "flightbag", "plan", built.folder / "left.toml", "--store", built.store, status=3)
    assert "needs Python 3.11 or newer" in text
    assert "-> install flightbag with Python 3.11 or newer" in text
    code = "from builders import build"
    assert "needs Python 3.11 or newer" in ran(python, "-c", code, status=1)


def test_what_compiles_an_engine_is_imported(python: Path) -> None:
    """A device fulfils orders: every module that it may use, without a library of the ground."""
    modules = [f"builders.engines.{path.stem}" for path in (REPOSITORY / "builders/engines").glob("[a-z]*.py")]
    code = f"import importlib\nfor name in {[*modules, 'builders.fulfilment']!r}: importlib.import_module(name)"
    ran(python, "-c", code)


def test_a_device_fulfils_an_order(python: Path, desk: Desk, tmp_path: Path) -> None:
    """Its ONNX Runtime is another than that of the ground, and so its fast engines are of another host class."""
    if "FLIGHTBAG_DRILL" not in os.environ:
        pytest.skip("a part of make drill")
    host = json.loads(ran(python, "flightbag", "engines", "host", "--json"))["host"]
    key, draft, stick = tmp_path / "orin.key", tmp_path / "draft", tmp_path / "stick"
    mission = desk.write_mission("left", host=host)
    mission.write_text(mission.read_text().replace('"fp32"', '"fp32"\nmode = "fast"'))
    code = ("--expect", "")
    for command in (
        ("keys", "new", key, "--no-passphrase"),
        ("trust", "add-key", desk.store, draft, "builder", f"{key}.pub"),
        ("trust", "sign", draft, "--key", desk.folder / "owner.key", *code),
        ("trust", "rotate", desk.store, draft, *code),
        ("engines", "order", mission, "--store", desk.store),
    ):
        words = [code_of("trust", "show", draft) if word == "" else word for word in command]
        assert (done := flightbag(*words)).status == 0, done.err
    shutil.copytree(desk.store, stick)
    assert "fulfilled  embedder" in ran(python, "flightbag", "engines", "fulfil", stick, "--key", key)
    assert flightbag("engines", "accept", desk.store, "--from", stick).status == 0
    engines = [one for one in desk.built(mission)["artifacts"] if one["name"].startswith("engines/")]
    assert {one["action"] for one in engines} == {"reused"}


def test_an_interpreter_is_one_that_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, output in (("shims", ""), ("root/versions/3.99.2/bin", "3.99"), ("root/versions/3.99.10/bin", "3.99")):
        program = tmp_path / folder / ("python3.99" if folder == "shims" else "python")
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho {output}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "root"))
    assert pythons.interpreter("3.99") == tmp_path / "root/versions/3.99.10/bin/python"
    assert pythons.interpreter("3.98") is None


def test_where_no_interpreter_is_found_the_run_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pythons, "interpreter", lambda version: None)
    assert pythons.main(["3.12", "3.14"]) == 1
    assert capsys.readouterr().out.count("not run: no interpreter is here") == 2


def test_the_page_has_the_counts_of_the_last_runs() -> None:
    section = (REPOSITORY / "docs/support.md").read_text().split("\n## What runs where\n")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| (?:Python|Linux) ([a-z0-9.]+) \| [^|]+ \| ([^|]+) \|$", section, re.MULTILINE))
    assert set(rows) == {*pythons.VERSIONS, "aarch64"}
    counts = pythons.counts()
    for name, text in rows.items():
        if name in counts:
            passed, skipped = (int(counts[name][what]) for what in ("passed", "skipped"))
            assert text.startswith(f"{passed:,} tests passed, {skipped:,} skipped"), name
        else:
            assert text.startswith("not run"), name
    assert "#tensorrt-and-tensorrt-for-rtx" in section, "the licence of TensorRT stands beside what runs where"


def test_pyproject_allows_each_python_that_is_run() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == f">={OLDEST}"
    assert project["tool"]["mypy"]["python_version"] == OLDEST
