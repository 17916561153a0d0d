"""The text of a mission file, for the demo, the bench and the tests; the parts that vary are arguments."""

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
    area: str = "",
    sector: str = "stable_rear",
    of_mission: str = "",
    of_tiles: str = "",
    of_set: str = "",
    more: str = "",
) -> str:
    """The text of a mission file with one source, one backbone and one descriptor set.

    `bbox` and `takeoff` are in degrees. `area` replaces the box in its table; `of_mission`, `of_tiles` and
    `of_set` add lines to those tables, `more` adds tables.
    """
    ranges = ", min = 1, opt = 8, max = 32" if isinstance(batch, str) else ""
    dim = f'"{batch}"' if isinstance(batch, str) else str(batch)
    text = f"""
[mission]
id = "{mission}"
flight = "{flight}"
aircraft = ["uav-07"]
takeoff = {{ lat = {takeoff[0]}, lon = {takeoff[1]}, alt_m = 480.0 }}
area = {{ {area or f"bbox = {list(bbox)}"} }}
sector = "{sector}"
{of_mission}

[target]
host = "{host}"

[[tiles]]
source = "{tiles}"
zooms = {list(zooms)}
captured = 2018-07-16
{of_tiles}

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
{of_set}

{more}
"""
    return text.lstrip() + "".join(f'\n[[files]]\nname = "{name}"\npath = "{path}"\n' for name, path in files)
