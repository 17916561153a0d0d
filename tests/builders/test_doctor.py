"""The checks of a machine, each on what it may find."""

from __future__ import annotations

import os
import platform
import resource
import tomllib
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from builders import doctor
from builders.doctor import Check, against_log, clock, examine, of_store, one_runtime, python
from builders.libraries import Library
from store.disk import medium as medium_module
from store.disk.layout import open_store
from store.errors import Unavailable
from store.installation import install_remedy
from tests.support.field import Desk
from tests.support.release import REPOSITORY

NOW = 1_800_000_000.0
REQUIRES = [
    "blake3<2,>=1.0.5",
    "tomli<3,>=2.0.1; python_version < '3.11'",
    "numpy<3,>=2.0; extra == 'onboard'",
    "onnxruntime<2,>=1.19; extra == 'onboard'",
    "onnxruntime<2,>=1.19; extra == 'build'",
    "onnxruntime<2,>=1.22; extra == 'build'",
    "tensorrt<12,>=10.3; (platform_system == 'Linux' and platform_machine == 'other') and extra == 'tensorrt'",
    "ruff<1,>=0.15; extra == 'dev'",
]


def extras(**versions: str) -> dict[str, Check]:
    installed = {name.replace("_", "-"): version for name, version in versions.items()}
    return {check.name: check for check in doctor._extras(REQUIRES, installed.get)}


def test_each_extra_is_installed_absent_or_wrong() -> None:
    found = extras(blake3="1.0.9", numpy="2.3.1", onnxruntime="1.32.0")
    assert {name: check.state for name, check in found.items()} == {
        "base": "ok",
        "extra onboard": "ok",
        "extra build": "ok",
    }
    found = extras(blake3="1.0.9", numpy="2.3.1", onnxruntime="1.20.1")
    assert found["extra onboard"].state == "ok"
    assert found["extra build"] == Check(
        "extra build",
        "problem",
        "plans and builds missions: onnxruntime 1.20.1, must be < 2, >= 1.22",
        install_remedy("build"),
    )
    found = extras(blake3="1.0.4")
    assert (found["base"].state, found["extra onboard"].state) == ("problem", "note")
    assert "not installed: numpy, onnxruntime" in found["extra onboard"].text
    assert extras()["base"].state == "problem"


def test_two_builds_of_onnx_runtime_are_a_problem() -> None:
    """`_version_of` asks for any of them where the library is asked for by its own name."""
    [problem] = one_runtime({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.30.0"}.get)
    assert (problem.state, problem.remedy[:42]) == ("problem", "pip uninstall onnxruntime onnxruntime-gpu,")
    assert not list(one_runtime({"onnxruntime-gpu": "1.30.0"}.get))
    assert not list(one_runtime())


@pytest.mark.parametrize("version", ["2", "2.0.0", "2.10", "10.0"])
def test_versions_are_compared_by_number(version: str) -> None:
    assert extras(blake3="1.5", numpy=version)["extra onboard"].text.count("must be") == (version == "10.0")


def test_the_requirements_of_this_project_are_read_as_the_standard_reads_them() -> None:
    """The reader is small: it knows what pyproject.toml has, and fails on anything else."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    for text in texts:
        standard = Requirement(text)
        if standard.extras:
            continue
        applies = standard.marker is None or standard.marker.evaluate()
        found = doctor._need(str(standard))
        assert (found is not None) == applies, text
        if found is not None:
            bounds = {(one.operator, one.version) for one in standard.specifier}
            assert (found[1].name, set(found[1].bounds)) == (standard.name, bounds)


@pytest.mark.parametrize(
    "text",
    [
        "numpy @ https://example.org/numpy.whl",
        "numpy!=2.1",
        "numpy~=2.1",
        "numpy>=2.0; sys_platform == 'linux'",
        "numpy>=2.0; extra == 'build' or extra == 'onboard'",
        "numpy[fast]>=2.0",
    ],
)
def test_a_requirement_that_is_not_understood_is_not_taken_for_met(text: str) -> None:
    found = [check for check in doctor._extras([text], lambda _name: "2.0") if check.state == "unknown"]
    assert [text in check.text for check in found] == [True]
    assert found[0].remedy


def test_a_program_that_is_not_installed_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "distribution", absent)
    found = {check.name: check for check in doctor._program()}
    assert (found["flightbag"].state, "base" in found) == ("unknown", False)


def test_a_python_that_is_too_old_for_something_says_for_what() -> None:
    assert [python(one).state for one in ((3, 9, 1), (3, 10, 12), (3, 11, 0))] == ["problem", "note", "ok"]


@pytest.mark.parametrize(
    ("now", "in_step", "state"),
    [(NOW, True, "ok"), (NOW, False, "note"), (NOW, None, "unknown"), (0.0, True, "problem"), (0.0, None, "problem")],
)
def test_a_clock_that_is_wrong_is_a_problem(now: float, in_step: bool | None, state: str) -> None:
    assert clock(now, in_step).state == state


def test_a_clock_behind_the_log_of_a_store_is_a_problem() -> None:
    assert against_log(NOW, int(NOW) + 60).state == "ok"
    late = against_log(NOW, int(NOW) + 3 * 86400)
    assert (late.state, "3.0 days ahead" in late.text) == ("problem", True)


def test_a_library_that_fails_is_a_problem_and_one_that_is_absent_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(kind: str) -> Any:
        def look(name: str) -> Library:
            raise Unavailable(f"{name} ended by SIGILL", remedy="again", kind=kind)

        return look

    for look, state in (
        (failing("failed"), "problem"),
        (failing("timed-out"), "unknown"),
        (lambda name: Library(name, error="not installed", remedy="pip", absent=True), "note"),
        (lambda name: Library(name, error="version 9", absent=False), "problem"),
        (lambda name: Library(name, host="cpu", version="1", providers=("A", "B")), "ok"),
    ):
        monkeypatch.setattr(doctor, "look", look)
        check = doctor._library("x")
        assert check.state == state
        assert check.remedy or state == "ok"


def test_limits_that_are_in_the_way_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_FSIZE: 4096, resource.RLIMIT_NOFILE: 64}
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda which: (limits[which], limits[which]))
    assert [check.state for check in doctor._limits()] == ["problem", "problem"]


def test_little_room_and_a_folder_of_somebody_else_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    assert doctor._free("cache", tmp_path / "not/yet", "").state == "ok"
    # What nobody may look at, or no file system takes, is not there: the folder above it is looked at.
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop/cache", "x" * 5000):
        assert doctor._free("cache", tmp_path / name, "").state == "ok"
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _path: usage(10**9, 10**9, 10**6))
    assert doctor._free("cache", tmp_path, "name another").remedy == "free some space there, or name another"
    monkeypatch.setattr(doctor.os, "access", lambda *_args: False)
    assert doctor._free("cache", tmp_path, "name another") == Check(
        "cache", "problem", f"{tmp_path} cannot be written", "name another"
    )


def checked(store: Path, now: float) -> dict[str, Check]:
    with open_store(store) as media:
        return {check.name: check for check in of_store(media, now=now)}


def states(store: Path, now: float) -> dict[str, str]:
    return {name: check.state for name, check in checked(store, now).items()}


@pytest.mark.parametrize(
    ("file_system", "state", "words"),
    [
        ("ext4", "ok", "ext4"),
        ("vfat", "note", "4 GiB"),
        ("exfat", "note", "hard links"),
        ("tmpfs", "note", "restart"),
        ("nfs4", "problem", "another machine"),
        ("9p", "problem", "another machine"),
    ],
)
def test_what_a_file_system_lacks_is_said(
    built: Desk, monkeypatch: pytest.MonkeyPatch, file_system: str, state: str, words: str
) -> None:
    monkeypatch.setattr(medium_module, "_mount", lambda _fd, _proc: ("8:1", file_system, "/dev/sda1"))
    found = checked(built.store, NOW * 2)["file system"]
    assert (found.state, words in found.text) == (state, True)
    monkeypatch.setattr(medium_module, "_mount", lambda _fd, _proc: None)
    assert states(built.store, NOW * 2)["file system"] == "unknown"


def test_a_store_whose_log_is_ahead_of_the_clock_or_damaged(built: Desk) -> None:
    assert states(built.store, NOW * 2)["log"] == "ok"
    assert states(built.store, 0.0)["log"] == "problem"
    (built.store / "log").write_text("no log\n")
    assert states(built.store, NOW * 2)["log"] == "problem"


def test_a_full_and_a_read_only_file_system(built: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    about = namedtuple("about", "f_bavail f_frsize f_flag f_files f_favail")
    for value, state in (
        (about(10**9, 4096, 0, 100, 10), "ok"),
        (about(10, 4096, 0, 100, 10), "problem"),
        (about(10**9, 4096, 0, 100, 0), "problem"),
        (about(10**9, 4096, 0, 0, 0), "ok"),  # btrfs counts no inodes
        (about(10, 4096, os.ST_RDONLY, 100, 10), "note"),
    ):
        monkeypatch.setattr(doctor.os, "fstatvfs", lambda _fd, value=value: value)
        assert states(built.store, NOW * 2)["room"] == state


def test_this_machine_is_looked_at_without_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "look", lambda name: Library(name, host="cpu"))
    found = {check.name: check for check in examine(None, tmp_path, now=NOW)}
    assert platform.machine() in found["system"].text
    assert found["base"].state == "ok", found["base"]
    assert "store" not in found
    assert all(check.remedy for check in found.values() if check.state in ("problem", "unknown"))
