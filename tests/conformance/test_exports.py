"""Backbones that torch's exporters write, dynamo and legacy, and one that a wheel ships: each drives a mission to GO.

torch lives in an environment of its own, which is made here; where it cannot be had, the tests skip and say why.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import store
from builders.example.terrain import render
from builders.grid.tiles import Tile
from builders.onboard import Retriever, flying_engine, probe
from tests.support.field import Desk

pytestmark = pytest.mark.skipif("FLIGHTBAG_DRILL" not in os.environ, reason="FLIGHTBAG_DRILL is not set")
EXPORTS = Path(__file__).with_name("exports.py")
# Of this version a build for the CPU alone is preferred where there is one; one for a GPU does not start without its
# libraries, which are not installed.
TORCH = "torch==2.13.0"
# What torch's exporters import.
NEEDS = ("filelock", "typing-extensions", "sympy", "networkx", "jinja2", "fsspec", "numpy", "onnx", "onnxscript")
TILE = Tile(15, 7357, 11522)


def install(*command: object, seconds: int = 1800) -> None:
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=seconds, check=False)
    if ran.returncode:
        pytest.skip(f"{' '.join(map(str, command))[:200]} failed: {ran.stderr.strip()[-500:]}")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    python = folder / "venv/bin/python"
    install(sys.executable, "-m", "venv", folder / "venv")
    install(python, "-m", "pip", "install", "--quiet", "--no-deps", TORCH)
    install(python, "-m", "pip", "install", "--quiet", *NEEDS)
    install(python, "-c", "import torch")
    ran = subprocess.run([python, EXPORTS, folder], capture_output=True, text=True, timeout=600, check=False)
    assert ran.returncode == 0, ran.stderr
    return folder


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text recogniser of a wheel: Paddle's exporter, four dimensions open, a token for each column."""
    folder = tmp_path_factory.mktemp("shipped")
    install(
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder, "rapidocr-onnxruntime==1.4.4"
    )
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (folder / "shipped.onnx").write_bytes(archive.read("rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"))
    return folder


def fly(
    desk: Desk, model: Path, output: str, side: tuple[int, int], *changes: tuple[str, str], of_set: str = ""
) -> None:
    """Build a mission with the backbone; describe, probe, and find a tile with it."""
    mission = desk.write_mission("left", model=model, files=(), zooms=(15,), of_set=of_set)
    text = mission.read_text()
    height, width = side
    for old, new in (
        ('output = "descriptor"', f'output = "{output}"'),
        ("[64, 64]", f"[{height}, {width}]"),
        ('["N", 3, 64, 64]', f'["N", 3, {height}, {width}]'),
        ("opt = 8, max = 32", "opt = 4, max = 8"),
        *changes,
    ):
        assert old in text
        text = text.replace(old, new)
    mission.write_text(text)
    desk.built(mission)
    verified = store.takeoff_check(desk.store, "left", trust=desk.root.read_bytes(), now=int(time.time())).mission
    assert verified is not None
    assert probe(verified, "embedder").holds
    with Retriever(verified, "embedder") as retriever:
        found = retriever.search(flying_engine(verified, "embedder").describe([render(TILE)]), top=1)[0]
    assert [match.tile for match in found] == [TILE]


def reference(model: Path) -> tuple[str, str]:
    return 'precision = "fp32"', f'precision = "fp32"\nreference = "{model.with_suffix(".npz")}"'


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
@pytest.mark.parametrize("pool", ["cls", "mean", "gem"])
def test_tokens_of_a_transformer(desk: Desk, exported: Path, exporter: str, pool: str) -> None:
    model = exported / f"tokens-{exporter}.onnx"
    fly(desk, model, "tokens", (112, 112), reference(model), of_set=f'pool = "{pool}"\nnormalise = "l2"')


def test_convolutions_with_their_weights_beside_them(desk: Desk, exported: Path) -> None:
    model = exported / "convolutions-dynamo.onnx"
    fly(desk, model, "descriptor", (64, 64), reference(model))


def test_pixels_in_bytes(desk: Desk, exported: Path) -> None:
    model = exported / "bytes-legacy.onnx"
    ends = ('["N", 3, 64, 64]', '["N", 64, 64, 3]'), ('"0..1"', '"0..255"')
    fly(desk, model, "descriptor", (64, 64), *ends, reference(model))


def test_half_precision(desk: Desk, exported: Path) -> None:
    model = exported / "half-legacy.onnx"
    fly(desk, model, "descriptor", (64, 64), reference(model))


def test_bfloat16(desk: Desk, exported: Path) -> None:
    fly(desk, exported / "bfloat16-dynamo.onnx", "descriptor", (64, 64))


def test_a_network_that_a_wheel_ships(desk: Desk, shipped: Path) -> None:
    name = ("inputs = { image", "inputs = { x")
    fly(desk, shipped / "shipped.onnx", "softmax_11.tmp_0", (48, 96), name, of_set='pool = "mean"\nnormalise = "l2"')
