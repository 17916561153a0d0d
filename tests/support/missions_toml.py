"""Mission files for the demo and the tests: the text, with the parts that vary as arguments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def mission_toml(
    *,
    mission: str,
    tiles: Path,
    model: Path,
    bbox: tuple[float, float, float, float],
    zooms: Sequence[int],
    takeoff: tuple[float, float],
    resize: int = 64,
    batch: str | int = "N",
    name: str = "embedder",
    flight: str = "2026-11-23-01",
    dtype: str = "float16",
    host: str = "auto",
    files: Sequence[tuple[str, Path]] = (),
) -> str:
    """A mission file for one source, one backbone and one descriptor set. `bbox` and `takeoff` in degrees."""
    ranges = ", min = 1, opt = 8, max = 32" if isinstance(batch, str) else ""
    dim = f'"{batch}"' if isinstance(batch, str) else str(batch)
    text = f"""
[mission]
id = "{mission}"
flight = "{flight}"
aircraft = ["uav-07"]
takeoff = {{ lat = {takeoff[0]}, lon = {takeoff[1]}, alt_m = 480.0 }}
area = {{ bbox = {list(bbox)} }}
sector = "stable_rear"

[target]
host = "{host}"

[[tiles]]
source = "{tiles}"
zooms = {list(zooms)}
captured = 2018-07-16

[[backbones]]
name = "{name}"
model = "{model}"
backend = "onnxruntime"
precision = "fp32"
inputs = {{ image = {{ shape = [{dim}, 3, {resize}, {resize}]{ranges} }} }}

[[descriptors]]
name = "{name}"
backbone = "{name}"
output = "descriptor"
dtype = "{dtype}"
preprocess = {{ resize = [{resize}, {resize}], colour = "RGB", scale = "0..1" }}
"""
    return text.lstrip() + "".join(f'\n[[files]]\nname = "{name}"\npath = "{path}"\n' for name, path in files)
