"""The oldest versions that pyproject.toml allows, in an environment of their own: `oldest` in that of the tests.

    python -m tests.support.oldest [ARGUMENT …]    runs pytest there, with these arguments

What the packages of pyproject.toml need themselves is in its newest version: nobody else says which works.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from tests.support.release import REPOSITORY, uv

ROOT = Path(sys.prefix) / "oldest"
# Published as source only, in Python alone.
SOURCES = ("simplekml",)


def install() -> None:
    """Make the environment, unless it is there and pyproject.toml has not changed since."""
    project = REPOSITORY / "pyproject.toml"
    stamp, wanted = ROOT / "stamp", hashlib.sha256(project.read_bytes()).hexdigest()
    with FileLock(f"{ROOT}.lock"):
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        uv("venv", "--clear", "--python", sys.executable, ROOT)
        options = ["--python", ROOT, "--resolution", "lowest-direct", "--only-binary", ":all:"]
        options += ["--no-binary", ",".join(SOURCES)]
        uv("pip", "install", *options, "--extra", "dev", "--requirement", project)
        uv("pip", "install", "--python", ROOT, "--no-deps", "--editable", REPOSITORY)
        stamp.write_text(wanted)


def versions() -> dict[str, str]:
    """Return package -> version of what is in the environment."""
    listed = uv("pip", "list", "--python", ROOT, "--format", "freeze")
    return {name: version for name, _, version in (line.partition("==") for line in listed.splitlines())}


def run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run pytest in the environment."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [ROOT / "bin/python", "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=variables, check=False, text=True)


if __name__ == "__main__":
    install()
    sys.exit(run(sys.argv[1:]).returncode)
