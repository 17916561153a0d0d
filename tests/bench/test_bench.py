"""The bench itself works, on very little: parts of it always, all of it in `make drill`. No figure decides anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stores import REPOSITORY_ROOT

MAPS = ["throughput", "country", "scale", "orthophotos", "recall", "search"]
EACH = [
    *("side", "memory", "million", "takeoff", "sync", "bucket", "cluster", "cache", "engines", "delta", "report"),
    *MAPS,
]
TRIED = EACH if "FLIGHTBAG_DRILL" in os.environ else ["side", "search"]


@pytest.mark.parametrize("what", TRIED)
def test_it_runs_and_writes_its_figures(tmp_path: Path, what: str) -> None:
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", what, "--small", "--rounds", "1", "--json", figures],
        cwd=REPOSITORY_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(figures.read_text())
