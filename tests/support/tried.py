"""A release tried as its users meet it: installed from the wheel, in a clean environment of each Python.

    python -m tests.support.tried [VERSION …]    of those in VERSIONS that are here

From the last commit it builds the wheel and the files with its hash. On 3.10, which only flies, it installs what an
aircraft installs, without and with the extra `onboard`, and verifies, audits and probes a store that was built
elsewhere: the one of `tests/conformance/released`. On the others it installs the extra `build` from the wheel, and
types the first mission of README up to GO. It ends with 1 where something else comes out than should, or no Python is
here.
"""

from __future__ import annotations

import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support import release
from tests.support.pages import blocks, steps
from tests.support.pythons import interpreter

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
RELEASED = release.REPOSITORY / "tests/conformance/released/0.1.0"


class Tried:
    """A clean environment, and an empty folder in which its commands run."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv/bin"
        release.uv("venv", "--python", python, folder / "venv")
        # Nothing of this machine's Python leaks in, neither paths nor caches of the program.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        self.environment = {**kept, "PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(folder)}

    def install(self, *what: str | Path) -> None:
        release.uv("pip", "install", "--python", self.folder / "venv", *what)

    def run(self, *command: str | Path, status: int = 0, says: str = "") -> str:
        """Run a program; raise SystemExit where it ends with another status, or does not say that."""
        done = subprocess.run(
            list(map(str, command)), cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode != status or says not in done.stdout:
            said = f"{' '.join(map(str, command))}: status {done.returncode}, {status} and {says!r} were expected"
            raise SystemExit(f"{said}\n{done.stdout}{done.stderr}")
        return done.stdout


def first_mission(tried: Tried, version: str) -> int:
    """Type the first mission of README, as somebody who gives no passphrases; return the number of commands."""
    [block] = [one for one in blocks(release.REPOSITORY / "README.md") if "flightbag example first" in one.text]
    tried.run("flightbag", "--version", says=version)
    tried.run("flightbag", "doctor")  # ends with 1 for a problem
    count = 0
    for step in steps(block):
        for line in step.line.split(" && "):
            count += 1
            if line.startswith("cd "):
                tried.folder /= line.removeprefix("cd ")
            else:
                passphrase = " --no-passphrase" if line.startswith("flightbag keys new") else ""
                says = "GO  ridge" if line.startswith("flightbag verify") else ""
                tried.run("/bin/sh", "-ec", line + passphrase, says=says)
    return count


def aboard(tried: Tried, version: str, *, onboard: bool) -> None:
    """Verify and audit a store that was built elsewhere, by an aircraft's state; with the extra also run its engine."""
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress((RELEASED / "written.tar.xz").read_bytes()))) as tar:
        tar.extractall(tried.folder, filter="tar")
    tried.run("flightbag", "--version", says=version)
    tried.run("flightbag", "doctor")
    tried.run("flightbag", "engines", "host")
    tried.run("flightbag", "verify", "stick", "ridge", "--state", "state", says="GO  ridge")
    tried.run("flightbag", "fsck", "stick", "--full", says="0 findings")
    tried.run("flightbag", "plan", "ridge.toml", "--store", "stick", status=3)
    if onboard:
        tried.run("flightbag", "probe", "stick", "ridge", "--state", "state")


def main(versions: Sequence[str]) -> int:
    found = {version: path for version in versions or VERSIONS if (path := interpreter(version)) is not None}
    with tempfile.TemporaryDirectory() as name:
        dist = Path(name) / "dist"
        dist.mkdir()
        release.dist(dist)
        [wheel] = dist.glob("*.whl")
        version = wheel.name.split("-")[1]
        for number, path in found.items():
            if number == "3.10":
                for lock in ("base-3.10", "onboard-3.10"):
                    folder = Path(name) / lock
                    folder.mkdir()
                    tried = Tried(path, folder)
                    tried.install("--require-hashes", "--find-links", dist, "--requirement", dist / f"{lock}.txt")
                    aboard(tried, version, onboard=lock.startswith("onboard"))
                    print(f"Python {number}, {lock}.txt: a store built elsewhere is GO, and clean", flush=True)
            else:
                folder = Path(name) / number
                folder.mkdir()
                tried = Tried(path, folder)
                tried.install(f"flightbag[build] @ {wheel.as_uri()}")
                count = first_mission(tried, version)
                print(f"Python {number}, flightbag[build]: GO after {count} commands", flush=True)
            shutil.rmtree(folder)
    for number in versions or VERSIONS:
        if number not in found:
            print(f"Python {number}: not tried, no interpreter is here")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
