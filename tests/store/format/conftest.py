"""The folder of public test vectors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def vectors() -> Path:
    shared = os.environ.get("FLIGHTBAG_SHARED")
    folder = Path(shared or ".") / "data" / "vectors"
    if not shared or not folder.is_dir():
        pytest.skip("FLIGHTBAG_SHARED names no folder with data/vectors")
    return folder
