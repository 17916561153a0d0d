"""The command that adds an extra works from where the package was installed. One test installs a wheel; the others
have the metadata that an installer leaves."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from store.installation import install_remedy
from tests.support.release import REPOSITORY, build, unreachable, uv

HERE = [sys.executable, "-m", "pip", "install"]


def command(remedy: str) -> list[str]:
    """The words of the command that a remedy is."""
    match = re.fullmatch("`([^`]+)`\n?", remedy)
    assert match is not None, remedy
    return shlex.split(match[1])


@pytest.fixture
def metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The metadata of the package that Python finds first, as pip leaves it for one of an index; no pip on the path."""
    folder = tmp_path / "first" / "flightbag-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: flightbag\nVersion: 0.1.0\n")
    (folder / "INSTALLER").write_text("pip\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setenv("PATH", str(tmp_path))
    return folder


def came_from(metadata: Path, url: str, **facts: object) -> None:
    (metadata / "direct_url.json").write_text(json.dumps({"url": url, **facts}))


def test_from_an_index_it_is_the_name(metadata: Path) -> None:
    assert command(install_remedy("build")) == [*HERE, "flightbag[build]"]
    assert command(install_remedy()) == [*HERE, "flightbag"]


def test_from_a_folder_it_is_the_folder_and_an_editable_install_stays_editable(metadata: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my checkouts" / "flightbag"
    folder.mkdir(parents=True)
    came_from(metadata, folder.as_uri(), dir_info={"editable": True})
    assert "%20" in folder.as_uri()
    assert command(install_remedy("build")) == [*HERE, "-e", f"{folder}[build]"]
    came_from(metadata, folder.as_uri(), dir_info={})
    assert command(install_remedy("tensorrt-rtx")) == [*HERE, f"{folder}[tensorrt-rtx]"]


@pytest.mark.parametrize("name", ["flightbag-0.1.0-py3-none-any.whl", "flightbag-0.1.0.tar.gz"])
def test_from_a_file_it_is_the_file(metadata: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    came_from(metadata, (tmp_path / name).as_uri(), archive_info={"hash": "sha256=00"})
    assert command(install_remedy("ssh")) == [*HERE, f"{tmp_path / name}[ssh]"]


def test_what_it_came_from_is_named_where_it_is_gone(metadata: Path, tmp_path: Path) -> None:
    came_from(metadata, (tmp_path / "stick/flightbag.whl").as_uri(), archive_info={})
    text = install_remedy("report")
    assert f"{tmp_path}/stick/flightbag.whl, which is gone" in text
    assert text.endswith("install it with the extra report")
    assert "extra" not in install_remedy()


@pytest.mark.parametrize(
    ("url", "facts", "place"),
    [
        ("https://example.org/f.whl", {"archive_info": {}}, "https://example.org/f.whl"),
        ("file:///srv/f", {"vcs_info": {"vcs": "git", "commit_id": "ab12"}}, "git+file:///srv/f@ab12"),
        (
            "https://example.org/f",
            {"vcs_info": {"vcs": "git", "commit_id": "ab12"}, "subdirectory": "a/b"},
            "git+https://example.org/f@ab12#subdirectory=a/b",
        ),
        ("file:///srv/f.tar.gz", {"archive_info": {}, "subdirectory": "a"}, "file:///srv/f.tar.gz#subdirectory=a"),
    ],
)
def test_from_another_place_it_is_a_direct_reference(
    metadata: Path, url: str, facts: dict[str, object], place: str
) -> None:
    came_from(metadata, url, **facts)
    requirement = Requirement(command(install_remedy("build"))[-1])
    assert (requirement.name, requirement.extras, requirement.url) == ("flightbag", {"build"}, place)


def test_a_checkout_that_is_not_installed_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_distribution(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", no_distribution)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command(install_remedy("build")) == [*HERE, "-e", f"{REPOSITORY}[build]"]


def test_pip_is_called_by_its_name_where_it_is_that_of_the_python_that_runs(
    metadata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip = tmp_path / "pip"
    for python, expected in ((sys.executable, ["pip", "install"]), ("/usr/bin/another-python", HERE)):
        pip.write_text(f"#!{python}\n")
        pip.chmod(0o755)
        assert command(install_remedy("ssh")) == [*expected, "flightbag[ssh]"]


def test_an_environment_of_uv_has_no_pip(metadata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (metadata / "INSTALLER").write_text("uv")
    assert command(install_remedy("ssh")) == [*HERE, "flightbag[ssh]"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    uv_here = ["uv", "pip", "install", "--python", sys.executable]
    assert command(install_remedy("ssh")) == [*uv_here, "flightbag[ssh]"]


def test_the_command_of_an_installed_wheel_can_be_carried_out(tmp_path: Path) -> None:
    """With `--no-deps` the extra itself brings nothing, and the installer still has to take the command."""
    if why := unreachable():
        pytest.skip(why)
    environment = tmp_path / "environment"
    wheel = build(REPOSITORY, tmp_path / "wheels", "1700000000", "--wheel")
    uv("venv", "--python", sys.executable, environment)
    python = environment / "bin/python"
    uv("pip", "install", "--no-deps", "--offline", "--python", python, wheel)
    code = "from store.installation import install_remedy; print(install_remedy('ssh'))"
    ran = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    words = command(ran.stdout)
    assert words == ["uv", "pip", "install", "--python", str(python), f"{wheel}[ssh]"]
    uv(*words[1:], "--no-deps", "--offline", "--reinstall")
    os.unlink(wheel)
    ran = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert f"{wheel}, which is gone" in ran.stdout
