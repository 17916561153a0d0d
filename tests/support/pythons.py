"""The other Pythons: each in an environment of its own, `.venvs/<version>` of the repository.

    python -m tests.support.pythons [VERSION …]    runs on each that is here what it has to run, and notes the counts

On 3.10, the Python of JetPack 6, runs what flies, in an environment that has the extra `onboard` and nothing of the
ground; on the others runs everything. An interpreter is looked for on the path and among those of pyenv. `COUNTS` has
the last run of each, which docs/support.md shows; a run that fails changes nothing there.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement

from tests.support.release import REPOSITORY, uv

ROOT = REPOSITORY / ".venvs"
COUNTS = Path(__file__).with_suffix(".csv")
FLIES, EVERYTHING = "what flies", "everything"
VERSIONS = {"3.10": FLIES, "3.12": EVERYTHING, "3.13": EVERYTHING, "3.14": EVERYTHING}
# The tests of what flies: those that need no library of the ground.
TESTS = {FLIES: ("tests/store", "tests/tools/test_arguments.py", "tests/tools/test_status.py"), EVERYTHING: ("tests",)}


def interpreter(version: str) -> Path | None:
    """Return the newest interpreter of a version that is here: a name on the path may be one that starts nothing."""
    named = shutil.which(f"python{version}")
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    of_pyenv = sorted(versions.glob(f"{version}.*/bin/python"), key=lambda path: (len(path.parts[-3]), path))
    for path in (*([Path(named)] if named else ()), *reversed(of_pyenv)):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return path
    return None


def environment(version: str, interpreter: Path) -> Path:
    """Return the interpreter of the environment of a version, made unless it is here as pyproject.toml asks."""
    root, project = ROOT / version, REPOSITORY / "pyproject.toml"
    stamp, wanted = root / "stamp", hashlib.sha256(bytes(interpreter) + project.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return root / "bin/python"
    uv("venv", "--clear", "--python", interpreter, root)
    options: list[str | Path] = ["--python", root]
    if VERSIONS[version] == FLIES:
        extras = tomllib.loads(project.read_text())["project"]["optional-dependencies"]
        tools = [one for one in extras["dev"] if Requirement(one).name in ("hypothesis", "pytest")]
        uv("pip", "install", *options, "--extra", "onboard", "--extra", "ssh", "--requirement", project)
        uv("pip", "install", *options, *tools)
    else:
        uv("pip", "install", *options, "--extra", "dev", "--requirement", project)
        uv("pip", "install", "--python", root, "pip")  # makes environments in tests
    uv("pip", "install", "--python", root, "--no-deps", "--editable", REPOSITORY)
    if VERSIONS[version] == EVERYTHING:
        subprocess.run([root / "bin/python", "-m", "tests.support.bindings"], cwd=REPOSITORY, check=True)
    stamp.write_text(wanted)
    return root / "bin/python"


def run(python: Path, arguments: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run pytest with an interpreter."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "VIRTUAL_ENV"))}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=variables, check=False, text=True)


def counts() -> dict[str, dict[str, str]]:
    """Return version, or other machine, -> the row of its last run."""
    with COUNTS.open(newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def counted(run: str, runs: str, report: Path) -> dict[str, str]:
    """Return the row of a run, from pytest's report in the XML of JUnit."""
    suites = ElementTree.parse(report).getroot().findall("testsuite")
    tests, skipped = (sum(int(one.get(what, "0")) for one in suites) for what in ("tests", "skipped"))
    return {"run": run, "runs": runs, "passed": str(tests - skipped), "skipped": str(skipped)}


def note(*new: dict[str, str]) -> None:
    """Write the rows of runs."""
    rows = counts() | {row["run"]: row for row in new}
    with COUNTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("run", "runs", "passed", "skipped"), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[one] for one in sorted(rows))


def main(versions: Sequence[str]) -> int:
    """Run what each version has to run; return 1 where one fails or none is here."""
    wanted = versions or tuple(VERSIONS)
    found = {version: path for version in wanted if (path := interpreter(version)) is not None}
    failed, passed = [], []
    for version, path in found.items():
        report = ROOT / f"{version}.xml"
        python = environment(version, path)
        workers = ("-n", "2") if VERSIONS[version] == EVERYTHING else ()
        if run(python, [*workers, f"--junitxml={report}", *TESTS[VERSIONS[version]]]).returncode == 0:
            passed.append(counted(version, VERSIONS[version], report))
        else:
            failed.append(version)
    note(*passed)  # after the last run, because each of them compares the page with the counts
    for version in wanted:
        word = "failed" if version in failed else "passed" if version in found else "not run: no interpreter is here"
        print(f"Python {version}, {VERSIONS[version]}: {word}")
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
