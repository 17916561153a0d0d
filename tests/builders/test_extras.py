"""What needs an extra or a newer Python says so before it begins; what needs none runs without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from builders.engines.onnxruntime import cpu_host
from builders.extras import require_build_extra, require_onboard_extra
from store.errors import Unavailable
from tests.support.field import Desk

# A base install: every library of an extra is absent.
BASE = """
import sys
for name in ("numpy", "onnxruntime", "onnx", "PIL", "pmtiles", "shapely", "faiss", "rasterio", "cuda", "tensorrt"):
    sys.modules[name] = None
from tools.cli import main
main()
"""


def base(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BASE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_ground_needs_a_newer_python_than_what_flies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    with pytest.raises(Unavailable, match=r"needs Python 3\.11 or newer") as caught:
        require_build_extra()
    assert "Python 3.11 or newer" in caught.value.remedy
    require_onboard_extra()


def test_a_base_install_names_the_class_of_its_computer() -> None:
    ran = base("engines", "host", "--json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["host"] == cpu_host()
    assert all("not installed" in one["error"] for one in found["backends"].values())


def test_a_base_install_reads_cards(built: Desk) -> None:
    ran = base("engines", "show", built.store, "left", "--json")
    assert ran.returncode == 0, ran.stderr
    [card] = json.loads(ran.stdout)
    assert card["fields"]["backend"] == "onnxruntime"
    by_key = base("engines", "show", built.store, card["key"], "--json")
    assert json.loads(by_key.stdout) == [{**card, "entry": None}]


def test_what_needs_an_extra_names_it(built: Desk, tmp_path: Path) -> None:
    for extra, *command in (
        ("build", "plan", built.folder / "left.toml", "--store", built.store),
        ("onboard", "probe", built.store, "left", "--trust", built.root),
    ):
        ran = base(*command)
        assert (ran.returncode, ran.stdout) == (3, "")
        assert f"pip install 'flightbag[{extra}]'" in ran.stderr
