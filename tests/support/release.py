"""What flies, pinned by hash, and a release with the list of its parts.

    python -m tests.support.release lock    writes docs/install again: the newest versions that pyproject.toml allows
    python -m tests.support.release dist    writes dist/ again, from the last commit

`docs/install/base.txt` and `onboard.txt` pin what the base install and the extra `onboard` bring, with the hash of each
file of these versions. One version of each package serves every machine that flies, and every Python from 3.11 on; no
version of numpy and ONNX Runtime serves 3.10 and 3.14, so `base-3.10.txt` and `onboard-3.10.txt` are for that one.
`backend.txt` pins what builds the wheel. `dist/` has the sources (sdist), the wheel that is built from them, the four
files with the hash of the wheel as their last line, and for each `onboard` the list of parts (CycloneDX) with their
versions, licences and hashes. The same commit gives the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from uv import find_uv_bin

REPOSITORY = Path(__file__).parents[2]
LOCKS = Path("docs/install")
# File -> the extra that it has.
INSTALLS = {"base": "", "onboard": "onboard", "base-3.10": "", "onboard-3.10": "onboard"}
# Read in the wheel: the metadata of these packages name no licence.
LICENCES = {"protobuf": "BSD-3-Clause"}


def uv(*arguments: str | Path, cwd: Path = REPOSITORY, text: str | None = None, epoch: str = "") -> str:
    """Return what uv prints, without the settings of whoever runs it; raises CalledProcessError."""
    command = [find_uv_bin(), *map(str, arguments), "--no-config", "--quiet"]
    variables = {**os.environ, "VIRTUAL_ENV": "", **({"SOURCE_DATE_EPOCH": epoch} if epoch else {})}
    return subprocess.run(
        command, cwd=cwd, input=text, env=variables, check=True, capture_output=True, text=True
    ).stdout


@functools.cache
def unreachable() -> str:
    """Why no package can be had here; "" if packages can."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            uv("pip", "install", "--dry-run", "--refresh", "--no-deps", "--target", folder, "filelock")
        except subprocess.CalledProcessError as error:
            return f"no package registry can be reached: {error.stderr.strip()[-300:]}"
    return ""


def lock(tree: Path, *, upgrade: bool) -> None:
    """Write the files of LOCKS in a tree with pyproject.toml; without `upgrade` their versions stay where they can."""
    backend = tomllib.loads((tree / "pyproject.toml").read_text())["build-system"]["requires"]
    options = ["--generate-hashes", "--only-binary", ":all:", "--emit-build-options"]
    options += ["--custom-compile-command", "make lock", *(["--upgrade"] if upgrade else [])]
    newer = [*options, "--python-version", "3.11", "--universal", "--fork-strategy", "fewest"]
    # For one Python alone, uv sees which versions have no file for it.
    oldest = [*options, "--python-version", "3.10", "--python-platform", "x86_64-manylinux_2_28"]
    for name, extra in INSTALLS.items():
        chosen = [*(oldest if name.endswith("3.10") else newer), *(["--extra", extra] if extra else [])]
        uv("pip", "compile", "pyproject.toml", *chosen, "--output-file", LOCKS / f"{name}.txt", cwd=tree)
    into = LOCKS / "backend.txt"
    uv("pip", "compile", "-", "--no-annotate", *newer, "--output-file", into, cwd=tree, text="\n".join(backend))


def pins(text: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Return package -> its version and the SHA-256 hashes of its files, of a file of LOCKS."""
    found = {}
    for line in text.replace("\\\n", " ").splitlines():
        if match := re.match(r"([a-z0-9-]+)(?:\[\w+\])?==(\S+)", line):
            found[match[1]] = (match[2], frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", line)))
    return found


def committed(into: Path) -> str:
    """Write the files of the last commit there, and return its time: what is not committed is in no release."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=REPOSITORY, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", into], input=archive, check=True)
    log = ["git", "log", "-1", "--format=%ct"]
    return subprocess.run(log, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.strip()


def build(tree: Path, into: Path, epoch: str, *kinds: str) -> Path:
    """Build the sdist of a tree, and the wheel of that, with exactly the packages of `backend.txt`; return the wheel.
    With `--wheel` build that from the tree itself, and no sdist."""
    options = ["--build-constraints", LOCKS / "backend.txt", "--require-hashes", "--no-create-gitignore"]
    uv("build", *kinds, *options, "--out-dir", into, tree, cwd=tree, epoch=epoch)
    [wheel] = into.glob("*.whl")
    return wheel


def parts(tree: Path, into: Path, name: str, epoch: str) -> dict[str, Any]:
    """Return the CycloneDX list of what a file of `into` installs on Linux, with the hashes of that file."""
    text = (into / f"{name}.txt").read_text()
    with tempfile.TemporaryDirectory() as folder:
        uv("venv", "--python", sys.executable, folder)
        options = ["--require-hashes", "--find-links", into, "--requirement", into / f"{name}.txt"]
        # The oldest Python that the file serves needs the most: what the list has does not depend on who makes it.
        oldest = "3.10" if name.endswith("3.10") else "3.11"
        uv("pip", "install", "--python", folder, "--python-version", oldest, *options)
        command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
        command += ["--pyproject", str(tree / "pyproject.toml"), folder]
        variables = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
        done = subprocess.run(command, env=variables, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    pinned = pins(text)
    for component in (found["metadata"]["component"], *found["components"]):
        name = canonicalize_name(component["name"])
        version, hashes = pinned[name]
        if component["version"] != version:
            raise ValueError(f"{name} {component['version']} was installed, {version} is pinned")
        component["hashes"] = [{"alg": "SHA-256", "content": one} for one in sorted(hashes)]
        if name in LICENCES:
            component.setdefault("licenses", [{"license": {"id": LICENCES[name]}}])
    return found


def dist(into: Path) -> None:
    """Write a release of the last commit into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        epoch = committed(tree)
        wheel = build(tree, into, epoch)
        name, version = wheel.name.split("-")[:2]
        for lock_name, extra in INSTALLS.items():
            own = f"{name}{extra and f'[{extra}]'}=={version}"
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            text = (tree / LOCKS / f"{lock_name}.txt").read_text()
            (into / f"{lock_name}.txt").write_text(f"{text}{own} \\\n    --hash=sha256:{digest}\n")
        for lock_name, suffix in (("onboard", ""), ("onboard-3.10", "-python3.10")):
            listed = json.dumps(parts(tree, into, lock_name, epoch), indent=2, sort_keys=True)
            (into / f"{name}-{version}{suffix}.cdx.json").write_text(listed + "\n")


def main(command: str) -> None:
    if command == "lock":
        lock(REPOSITORY, upgrade=True)
        return
    into = REPOSITORY / "dist"
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    dist(into)
    for path in sorted(into.iterdir()):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
