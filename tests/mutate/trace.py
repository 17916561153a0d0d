"""Which test runs which lines of the modules, how long it takes, and which libraries the tests load.

A test file is traced again when it or a traced module changed. A test that does not pass is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OPTIONS = ["-o", "addopts=--strict-markers --import-mode=importlib", "-p", "no:cacheprovider", "-q"]
OURS = {"store", "builders", "tools", "tests"}
# The plugins of pytest rewrite these as they are loaded.
LATER = {"_hypothesis_pytestplugin", "xdist", "coverage"}


@dataclass(slots=True)
class Trace:
    """Of each test: its seconds, and the lines of each module that it runs. At "" of a file: what importing it runs."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[str, set[int]]] = field(default_factory=dict)
    libraries: list[str] = field(default_factory=list)


def trace(files: Sequence[str], modules: Sequence[str], folder: Path, jobs: int) -> Trace:
    """The trace of the test files, most of it from `folder`, where it is kept."""
    folder.mkdir(exist_ok=True)
    sources = hashlib.sha256(b"".join((ROOT / module).read_bytes() for module in modules)).hexdigest()

    def traced(file: str) -> Path:
        key = hashlib.sha256(f"{file} {sources}".encode() + (ROOT / file).read_bytes()).hexdigest()[:24]
        kept = folder / f"trace-{key}.json"
        if not kept.exists():
            print(f"tracing {file}", flush=True)
            command = [sys.executable, "-m", "tests.mutate.trace", str(kept), file, *modules]
            run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if not kept.exists():
                raise SystemExit(f"{file}: no trace\n{run.stdout}\n{run.stderr}")
        return kept

    result = Trace()
    libraries: set[str] = set()
    with ThreadPoolExecutor(jobs) as pool:
        traces = list(pool.map(traced, files))
    for kept in traces:
        content = json.loads(kept.read_bytes())
        result.seconds.update(content["seconds"])
        libraries.update(content["libraries"])
        for test, of_test in content["lines"].items():
            result.lines[test] = {module: set(lines) for module, lines in of_test.items()}
    result.libraries = sorted(libraries)
    return result


class _Tracer:
    def __init__(self, coverage: Any) -> None:
        self.seconds: dict[str, float] = {}
        self._coverage = coverage

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._coverage.switch_context(item.nodeid)
        begun = time.process_time()
        self.seconds[item.nodeid] = 0
        result = yield
        if item.nodeid in self.seconds:
            self.seconds[item.nodeid] = round(time.process_time() - begun, 4)
        return result

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed" or hasattr(report, "wasxfail"):
            self.seconds.pop(report.nodeid, None)


def main(kept: Path, file: str, modules: Sequence[str]) -> None:
    """Traces one test file in this process, which has loaded nothing of the project yet."""
    os.environ["COVERAGE_CORE"] = "ctrace"  # the one that tells tests apart
    import coverage

    paths = [str(ROOT / module) for module in modules]
    measure = coverage.Coverage(data_file=None, include=paths, config_file=False)
    measure.start()
    tracer = _Tracer(measure)
    pytest.main([*OPTIONS, file], plugins=[tracer])
    measure.stop()
    data = measure.get_data()
    lines: dict[str, dict[str, list[int]]] = {test: {} for test in tracer.seconds}
    lines[f"{file}::"] = {}
    for module, path in zip(modules, paths, strict=True):
        for line, contexts in data.contexts_by_lineno(path).items():
            for test in contexts:
                if (name := test or f"{file}::") in lines:
                    lines[name].setdefault(module, []).append(line)
    libraries = {name for name in sys.modules if name.partition(".")[0] not in OURS | LATER and name[0] != "_"}
    libraries = {name for name in libraries if not name.startswith("hypothesis.")}  # its plugin warns of these
    content = {"seconds": tracer.seconds, "lines": lines, "libraries": sorted(libraries)}
    part = kept.with_suffix(".part")
    part.write_text(json.dumps(content))
    part.rename(kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
