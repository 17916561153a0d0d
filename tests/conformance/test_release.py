"""What flies is pinned by hash, a release has the same bytes each time, an aircraft installs it as its page says."""

from __future__ import annotations

import email
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import release
from tests.support.field import Desk
from tests.support.pages import blocks, steps

REPOSITORY = release.REPOSITORY
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def wanted(name: str) -> list[Requirement]:
    """What pyproject.toml asks for, on the Python that a file of `release.LOCKS` is for."""
    if name == "backend":
        return [Requirement(one) for one in PROJECT["build-system"]["requires"]]
    extra = release.INSTALLS[name]
    asked = [
        *PROJECT["project"]["dependencies"],
        *(PROJECT["project"]["optional-dependencies"][extra] if extra else ()),
    ]
    python = {"python_version": "3.10" if name.endswith("3.10") else "3.11"}
    return [one for one in map(Requirement, asked) if one.marker is None or one.marker.evaluate(python)]


WANTED = {name: wanted(name) for name in (*release.INSTALLS, "backend")}
MACHINES = ("x86_64", "aarch64")


@pytest.fixture
def registry() -> None:
    """Skips where no package can be had."""
    if why := release.unreachable():
        pytest.skip(why)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of the last commit."""
    if why := release.unreachable():
        pytest.skip(why)
    into = tmp_path_factory.mktemp("release") / "dist"
    into.mkdir()
    release.dist(into)
    return into


def locked(name: str) -> str:
    return (REPOSITORY / release.LOCKS / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", WANTED)
def test_what_pyproject_asks_for_is_pinned_with_hashes(name: str) -> None:
    pinned = release.pins(locked(name))
    for one in WANTED[name]:
        assert one.specifier.contains(pinned[canonicalize_name(one.name)][0]), one
    assert all(hashes for _, hashes in pinned.values())
    named = [line for line in locked(name).splitlines() if line and line[0] not in " #"]
    assert named[0] == "--only-binary :all:"
    assert len(named) == 1 + len(pinned), "one version of each package, and each line is understood"


@pytest.mark.parametrize("python", ["", "-3.10"])
def test_what_only_verifies_is_a_part_of_what_flies(python: str) -> None:
    assert release.pins(locked(f"base{python}")).items() <= release.pins(locked(f"onboard{python}")).items()


def test_the_files_are_what_the_tool_makes_of_pyproject(registry: None, tmp_path: Path) -> None:
    """Nothing was changed by hand, and what pyproject.toml asks for did not change without `make lock`."""
    shutil.copytree(REPOSITORY / release.LOCKS, tmp_path / release.LOCKS)
    text = (REPOSITORY / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(text)
    release.lock(tmp_path, upgrade=False)
    for name in WANTED:
        assert (tmp_path / release.LOCKS / f"{name}.txt").read_text() == locked(name), f"{name}.txt: run make lock"
    (tmp_path / "pyproject.toml").write_text(
        text.replace("dependencies = [", 'dependencies = [\n    "sortedcontainers",')
    )
    release.lock(tmp_path, upgrade=False)
    assert "sortedcontainers" in release.pins((tmp_path / release.LOCKS / "base.txt").read_text())


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
def test_each_machine_that_flies_has_its_wheels(registry: None, tmp_path: Path, python: str, machine: str) -> None:
    lock = REPOSITORY / release.LOCKS / ("onboard-3.10.txt" if python == "3.10" else "onboard.txt")
    options = ["--python-version", python, "--python-platform", f"{machine}-manylinux_2_28", "--target", tmp_path]
    release.uv("pip", "install", "--dry-run", "--require-hashes", *options, "--requirement", lock)


def test_wheel_and_sdist_have_the_same_bytes_wherever_and_whenever_they_are_built(
    registry: None, tmp_path: Path
) -> None:
    """Also the wheel that is built from the tree, and not from the sdist."""
    built = []
    places = (
        ("here", 0o022, "UTC", ()),
        ("in/another folder", 0o077, "Asia/Kathmandu", ()),
        ("wheel", 0o027, "UTC", ("--wheel",)),
    )
    for name, mask, zone, kinds in places:
        tree, into = tmp_path / name, tmp_path / f"{name}.dist"
        tree.mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TZ", zone)
            before = os.umask(mask)
            try:
                epoch = release.committed(tree)
                for path in tree.rglob("*"):
                    os.utime(path, (time.time() - len(built), time.time()))
                release.build(tree, into, epoch, *kinds)
                built.append({path.name: path.read_bytes() for path in into.iterdir()})
            finally:
                os.umask(before)
    assert built[0] == built[1]
    assert [name.rsplit(".", 1)[1] for name in sorted(built[0])] == ["whl", "gz"]
    assert built[2].items() <= built[0].items()
    assert len(built[2]) == 1


def test_a_release_is_the_same_each_time(dist: Path, tmp_path: Path) -> None:
    release.dist(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in dist.iterdir()
    }


def test_the_wheel_says_what_it_is(dist: Path) -> None:
    [wheel] = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        [name] = [one for one in files.namelist() if one.endswith(".dist-info/METADATA")]
        said = email.message_from_string(files.read(name).decode())
        assert any(one.endswith("/LICENSE") for one in files.namelist())
        tops = {one.split("/")[0] for one in files.namelist()}
    own = name.split("/")[0]
    assert tops == {"store", "builders", "tools", own, own.replace(".dist-info", ".data")}
    assert (said["Name"], said["Version"]) == ("flightbag", PROJECT["project"]["version"])
    assert said["License-Expression"] == "Apache-2.0"
    assert said["Description-Content-Type"] == "text/markdown"
    assert said.get_payload().startswith("# Flightbag\n")
    assert said["Keywords"]
    assert said["Requires-Python"] == ">=3.10"
    named = {one.removeprefix("Programming Language :: Python :: ") for one in said.get_all("Classifier")}
    assert {*PYTHONS} - {"3.14"} <= named  # which is not run as a whole yet
    assert "3.14" not in named
    assert said.get_all("Project-URL") is None, "each is a public address of this repository, and of nobody else"


@pytest.mark.parametrize(("name", "suffix"), [("onboard", ""), ("onboard-3.10", "-python3.10")])
def test_the_list_of_parts_has_what_flies_with_hashes_and_licences(dist: Path, name: str, suffix: str) -> None:
    path = dist / f"flightbag-{PROJECT['project']['version']}{suffix}.cdx.json"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text()) is None
    listed = json.loads(path.read_text())
    parts = {canonicalize_name(one["name"]): one for one in listed["components"]}
    pinned = release.pins((dist / f"{name}.txt").read_text())
    [wheel] = dist.glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert pinned["flightbag"][1] == {digest}
    assert listed["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    # What is pinned for Windows does not fly.
    assert {*parts, "flightbag"} == {*pinned} - {"colorama"}
    for package, part in parts.items():
        assert part["version"] == pinned[package][0]
        assert {one["content"] for one in part["hashes"]} == pinned[package][1]
        assert part["licenses"], package
    sets = {one["ref"]: set(one.get("dependsOn", ())) for one in listed["dependencies"]}
    direct = {canonicalize_name(ref.partition("==")[0]) for ref in sets[listed["metadata"]["component"]["bom-ref"]]}
    assert direct >= {canonicalize_name(one.name) for one in WANTED[name]}


def install_lines() -> list[str]:
    """The command lines of the first block of docs/aircraft.md."""
    return [step.line for step in steps(blocks(REPOSITORY / "docs/aircraft.md")[0])]


def test_an_aircraft_is_installed_as_its_page_says(dist: Path, built: Desk, tmp_path: Path) -> None:
    """Every step, with this machine for the aircraft; then the verified engine runs, and a changed wheel is refused."""
    stick, aboard, ground = tmp_path / "stick", tmp_path / "aboard", tmp_path / "ground"
    for folder in (stick, ground):
        folder.mkdir()
    shutil.copytree(dist, ground / "dist")
    shutil.copytree(built.store, stick / "store")
    shutil.copy(built.root, ground / "pinned.root.cbor")
    places = {"/media/stick": str(stick), "/opt/flightbag": str(aboard), "aarch64": platform.machine()}
    places["3.12"] = f"{sys.version_info[0]}.{sys.version_info[1]}"
    programs = {"pip": [sys.executable, "-m", "pip"], "python3": [sys.executable]}
    ran = []
    for line in install_lines():
        for word, here in places.items():
            line = line.replace(word, here)
        command = shlex.split(line)
        if command != ["make", "dist"]:
            command = [*programs.get(command[0], command[:1]), *command[1:]]
            done = subprocess.run(command, cwd=ground, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            ran.append(done.stdout)
    assert "\nGO  left" in ran[-1]

    probe = [str(aboard / "bin/python"), "-P", str(REPOSITORY / "tests/support/runtime_probe.py")]
    probe += [str(built.store), str(built.root), "left", "embedder"]
    done = subprocess.run(probe, cwd=stick, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["go"]
    assert found["holds"]

    [install] = [line for line in install_lines() if " install " in line]
    for wheel in sorted((stick / "wheels").glob("*.whl")):
        if wheel.name.startswith(("cbor2", "flightbag", "shellingham")):
            data = wheel.read_bytes()
            wheel.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            refused = shlex.split(install.replace("/media/stick", str(stick)).replace("/opt/flightbag", str(aboard)))
            done = subprocess.run([*refused, "--force-reinstall"], capture_output=True, text=True, check=False)
            assert done.returncode != 0
            assert "DO NOT MATCH THE HASHES" in done.stderr
            wheel.write_bytes(data)
