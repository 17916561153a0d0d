"""The records of the bench: what was measured, when, on which machine, with which versions and command lines.

A bench that has run leaves its record in `.bench/`, which git ignores. `python -m tests.bench write` takes the records
over into `results.json`, which is committed, and makes docs/benchmarks.md of them. A bench that did not run keeps the
record that it has, with its date.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results.json"
LATEST = ROOT / ".bench"
# Programs and libraries that stand beside ours, or that ours use. Each program says its version when asked so.
PROGRAMS = {
    "cp": "--version",
    "b3sum": "--version",
    "rsync": "--version",
    "restic": "version",
    "borg": "--version",
    "ostree": "--version",
    "model_signing": "--version",
}
LIBRARIES = ("blake3", "cbor2", "cryptography", "lmdb", "numpy", "onnxruntime", "faiss-cpu", "ray", "obstore")
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_DIGITS = 4


def write_record(name: str, figures: Mapping[str, Any], commands: Mapping[str, list[str]]) -> Path:
    """Write the record of a bench that has just run, and return its path."""
    LATEST.mkdir(exist_ok=True)
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "commands": dict(commands),
        "figures": rounded(figures),
    }
    path = LATEST / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def take_over() -> list[str]:
    """Put the records in `.bench/` in the place of those in `results.json`. Return the names of these benches."""
    results, names = read(), []
    for path in sorted(LATEST.glob("*.json")):
        results[path.stem] = json.loads(path.read_text())
        names.append(path.stem)
    RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1, ensure_ascii=False) + "\n")
    return names


def read() -> dict[str, Any]:
    """Return the committed record of each bench, by its name."""
    results: dict[str, Any] = json.loads(RESULTS.read_text())
    return results


def rounded(value: Any) -> Any:
    """Return figures with four digits that count: the others are noise."""
    if isinstance(value, Mapping):
        return {str(key): rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def machine() -> str:
    """Return the processor, the memory, the file system of the bench and the system of this machine, as one line."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{cores} cores of {_processor()}, {memory:.0f} GiB, {_file_system(tempfile.gettempdir())}, "
        f"Linux {platform.release()}"
    )


def versions() -> dict[str, str]:
    """Return the version of each program and library that is installed."""
    result = {"Python": platform.python_version()}
    for name, flag in PROGRAMS.items():
        if shutil.which(name):
            done = subprocess.run([name, flag], capture_output=True, text=True, check=False)
            match = _VERSION.search(done.stdout + done.stderr)
            result[name] = match[0] if match else "unknown"
    for name in LIBRARIES:
        try:
            result[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return result


def command_line(command: tuple[object, ...]) -> str:
    """Return a command as a person would type it in the folder of the bench."""
    words = [str(word) for word in command]
    words[0] = "python" if words[0] == sys.executable else os.path.basename(words[0])
    text = re.sub(r"[^\s'=]*/flightbag-bench-[^/\s']+/?", "", " ".join(words))
    return re.sub(r"\b([a-z]+)-\d+(?=\s|::|'|/|$)", r"\1", text)


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system(folder: str) -> str:
    device = os.stat(folder).st_dev
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        mounts = [line.split() for line in file]
    types = [f[f.index("-") + 1] for f in mounts if f[2] == f"{os.major(device)}:{os.minor(device)}"]
    return types[-1] if types else "an unknown file system"
