"""What `builders` gives: `build` and `onboard`, each imported when it is first used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import builders
from store.installation import install_remedy
from tests.support.examples import run_examples
from tests.support.field import Desk


def test_importing_builders_loads_no_library_of_an_extra() -> None:
    code = "import sys, builders; print(*sorted({'numpy', 'onnxruntime', 'PIL', 'pydantic'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_onboard_loads_nothing_of_the_ground() -> None:
    code = """
import sys
from builders import onboard
ground = ("builders.artifacts", "builders.imagery", "builders.mission", "builders.orchestrator", "builders.retrieval")
print(*[name for name in (*ground, "PIL", "onnx", "pmtiles", "pydantic", "shapely", "click") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


@pytest.mark.parametrize(("name", "library"), [("build", "pmtiles"), ("onboard", "onnxruntime"), ("onboard", "numpy")])
def test_a_missing_library_names_the_extra(name: str, library: str) -> None:
    code = f"""
import sys
sys.modules[{library!r}] = None
try:
    from builders import {name}
except Exception as error:
    print(type(error).__name__, error.remedy)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == f"Unavailable {install_remedy(name)}\n"


def test_the_example_of_building_runs(desk: Desk, tmp_path: Path) -> None:
    names = {"mission_file": desk.write_mission("left"), "folder": desk.store, "key_file": desk.key}
    assert run_examples(builders, {**names, "cache": tmp_path / "cache"}) > 3
    assert desk.verify(None, "left").status == 0


def test_no_other_name_is_public() -> None:
    assert sorted(builders.__all__) == ["build", "onboard"]
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = builders.other  # type: ignore[attr-defined]
