"""What `builders` gives: `build` and `onboard`, each imported when it is first used."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

import builders


def test_importing_builders_loads_no_library_of_an_extra() -> None:
    code = "import sys, builders; print(*sorted({'numpy', 'onnxruntime', 'PIL', 'pydantic'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_onboard_loads_nothing_of_the_ground() -> None:
    code = """
import sys
from builders import onboard
ground = ("builders.artifacts", "builders.imagery", "builders.mission", "builders.orchestrator", "builders.retrieval")
print(*[name for name in (*ground, "PIL", "onnx", "pmtiles", "pydantic", "shapely", "typer") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_build_is_the_orchestrators_build_mission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "builders.orchestrator", SimpleNamespace(build_mission=len))
    assert builders.build is len


def test_no_other_name_is_public() -> None:
    assert sorted(builders.__all__) == ["build", "onboard"]
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = builders.other
