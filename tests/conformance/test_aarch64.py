"""What flies on a flight computer of 64-bit ARM, emulated: `make test-aarch64`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import aarch64
from tests.support.field import Desk, make_desk

FLIGHTBAG = "from tools.start import main; main()"
FSCK = "from tools.fsck import main; main()"


@pytest.fixture(scope="module", autouse=True)
def machine() -> None:
    if "FLIGHTBAG_AARCH64" not in os.environ:
        pytest.skip("takes minutes: make test-aarch64")
    if why := aarch64.missing():
        pytest.skip(why)


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk whose mission is for that machine; nothing in its store is changed by a test."""
    desk = make_desk(tmp_path_factory.mktemp("desk"))
    desk.built(desk.write_mission("left", host="cpu-aarch64"))
    return desk


def ran(extra: str, program: str, *arguments: object, status: int = 0) -> str:
    done = aarch64.run(extra, ["-c", program, *map(str, arguments)])
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_it_is_that_machine_and_the_base_install_has_no_library_of_an_extra() -> None:
    code = (
        "import platform, sys; print(platform.machine(), sys.version_info[:2])\ntry: import numpy\nexcept ImportError: "
    )
    assert ran("base", code + "print('base')").split("\n")[:2] == ["aarch64 (3, 11)", "base"]


def test_the_base_install_names_its_class() -> None:
    answer = json.loads(ran("base", FLIGHTBAG, "engines", "host", "--json"))
    assert answer["host"].startswith("cpu-aarch64-neon")


def test_the_base_install_checks_audits_and_carries_a_store(carried: Desk, tmp_path: Path) -> None:
    stick, state = tmp_path / "stick", tmp_path / "state"
    ran("base", FLIGHTBAG, "sync", carried.store, stick)
    assert "clean" in ran("base", FSCK, stick, "--full")
    host = json.loads(ran("base", FLIGHTBAG, "engines", "host", "--json"))["host"]
    ran(
        "base",
        FLIGHTBAG,
        "aircraft",
        "enrol",
        "--state",
        state,
        "--id",
        "uav-07",
        "--host",
        host,
        "--trust",
        carried.root,
    )
    flight = ("--state", state, "--flight", "2026-11-23-01")
    assert "\nGO  left" in ran("base", FLIGHTBAG, "verify", stick, *flight)
    ran("base", FLIGHTBAG, "aircraft", "consume", "2026-11-23-01", "--state", state)
    assert "\nNO-GO  " in ran("base", FLIGHTBAG, "verify", stick, *flight, status=1)


def test_a_changed_byte_is_no_go_there(carried: Desk, tmp_path: Path) -> None:
    changed = tmp_path / "store"
    shutil.copytree(carried.store, changed)
    large = max((path for path in (changed / "objects").rglob("*") if path.is_file()), key=size)
    large.chmod(0o644)
    with large.open("r+b") as file:
        file.seek(size(large) // 2)
        [byte] = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    verdict = ran("base", FLIGHTBAG, "verify", changed, "--trust", carried.root, "--json", status=1)
    kinds = {finding["kind"] for finding in json.loads(verdict)["findings"]}
    assert kinds == {"bit-flip"}


def size(path: Path) -> int:
    return path.stat().st_size


def test_a_portable_engine_of_another_architecture_flies_and_finds_a_place(carried: Desk) -> None:
    done = aarch64.run(
        "onboard", ["-m", "tests.support.runtime_probe", carried.store, carried.root, "left", "embedder"]
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["host"].startswith("cpu-aarch64-neon")
    assert (found["go"], found["loads"], found["holds"], found["matches"]) == (True, True, True, 1)
    probe = ran("onboard", FLIGHTBAG, "probe", carried.store, "left", "--trust", carried.root)
    assert "embedder" in probe


def test_a_file_of_another_architecture_is_not_loaded() -> None:
    """The files are those of `docs/install` for this architecture: each library in them is for 64-bit ARM."""
    libraries = [path for name in ("base", "onboard") for path in aarch64.packages(name).rglob("*.so")]
    assert len(libraries) > 10
    heads = {path.read_bytes()[18:20] for path in libraries}
    assert heads == {(183).to_bytes(2, "little")}  # EM_AARCH64


def test_what_is_emulated_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "apt-get install qemu-user-static" in aarch64.missing()
    with pytest.raises((OSError, subprocess.CalledProcessError)):
        aarch64.run("base", ["-c", "pass"])
