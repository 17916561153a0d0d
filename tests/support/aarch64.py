"""A flight computer of 64-bit ARM, emulated: a root from Debian's packages in `.aarch64`, run by qemu-user-static.

    python -m tests.support.aarch64    makes what is missing of it, runs its tests, and notes their counts

The root has Debian's Python and nothing else; beside it lie the files that `docs/install` pins for this architecture.
No privilege is needed, and no registered binary format: so a program in it starts no other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support import pythons
from tests.support.release import LOCKS, REPOSITORY, uv

ROOT = REPOSITORY / ".aarch64"
EMULATOR = "qemu-aarch64-static"
PYTHON = "3.11"  # of Debian 12
PACKAGES = (f"python{PYTHON}", f"libpython{PYTHON}-stdlib", "libstdc++6", "libgomp1")
CPU = "cortex-a72"
# As a kernel shows it. The emulator shows that of the machine that it runs on, and ONNX Runtime crashes on it.
CPUINFO = """\
processor\t: 0
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
TESTS = "tests/conformance/test_aarch64.py"


def missing() -> str:
    """Why nothing can be emulated here; "" if it can."""
    for program, package in ((EMULATOR, "qemu-user-static"), ("apt-get", "apt"), ("dpkg", "dpkg")):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install {package}"
    return ""


def root() -> Path:
    """Return the root of the emulated machine; its packages are fetched once. Raises CalledProcessError."""
    folder, begun = ROOT / "root", ROOT / "root.part"
    if folder.is_dir():
        return folder
    shutil.rmtree(begun, ignore_errors=True)
    apt = ROOT / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()  # nothing is installed: every package that these need is fetched
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "Dir::State": apt,
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Debug::NoLocking": "true",
        "APT::Sandbox::User": "",
    }
    command = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    subprocess.run([*command, "update"], check=True)
    options = ["--download-only", "--no-install-recommends", "--yes"]
    subprocess.run([*command, "install", *options, *PACKAGES], check=True, stdout=subprocess.DEVNULL)
    begun.mkdir()
    for package in sorted((apt / "cache/archives").glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, begun], check=True)
    shutil.rmtree(apt)
    (begun / "proc").mkdir()
    (begun / "proc/cpuinfo").write_text(CPUINFO)
    begun.rename(folder)
    return folder


def packages(name: str) -> Path:
    """Return the folder with what `docs/install/<name>.txt` pins, for this architecture."""
    lock = REPOSITORY / LOCKS / f"{name}.txt"
    folder, begun = ROOT / name, ROOT / f"{name}.part"
    if not folder.is_dir() or (folder / "lock.txt").read_bytes() != lock.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(begun, ignore_errors=True)
        options = ["--python-version", PYTHON, "--python-platform", "aarch64-manylinux_2_28", "--require-hashes"]
        uv("pip", "install", *options, "--target", begun, "--requirement", lock)
        shutil.copy(lock, begun / "lock.txt")
        begun.rename(folder)
    return folder


def run(extra: str, arguments: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run the emulated Python with the packages of `base` or `onboard`."""
    folder = root()
    path = os.pathsep.join(map(str, (packages(extra), REPOSITORY)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHOME": str(folder / "usr")}
    environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(ROOT / "compiled")}
    command = [EMULATOR, "-cpu", CPU, "-L", folder, folder / f"usr/bin/python{PYTHON}", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def main() -> int:
    """Run the tests; return the status of pytest, or 1 where nothing can be emulated."""
    if why := missing():
        print(why)
        return 1
    root()
    for name in ("base", "onboard"):
        packages(name)
    report = ROOT / "report.xml"
    os.environ["FLIGHTBAG_AARCH64"] = "1"
    done = pythons.run(Path(sys.executable), [f"--junitxml={report}", TESTS])
    if done.returncode == 0:
        pythons.note(pythons.counted("aarch64", pythons.FLIES, report))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
