"""What a build opens of its mission file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders.compose import open_context
from builders.files import read_regular
from store.errors import Invalid, Unavailable
from tests.support.field import LEFT, Desk


def test_the_area_file_is_opened_once(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    west, south, east, north = LEFT
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    (desk.folder / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    mission = desk.write_mission("polygon", area='geojson = "area.geojson"')
    files: list[str] = []

    def counted(path: Path, *arguments: Any, **options: Any) -> bytes:
        files.append(path.name)
        return read_regular(path, *arguments, **options)

    monkeypatch.setattr("builders.areas.drawing.read_regular", counted)
    with open_context(mission, None, tmp_path / "cache") as context:
        assert context.area.bbox == tuple(round(value * 10**7) for value in LEFT)
    assert files == ["area.geojson"]


def test_an_area_that_no_tile_can_cover_is_named_before_a_source_is_opened(desk: Desk, tmp_path: Path) -> None:
    mission = desk.write_mission("polar", bbox=(10, 86, 11, 87), takeoff=(86.5, 10.5))
    with (
        pytest.raises(Invalid, match=r"polar\.toml: mission\.area: .* web-mercator"),
        open_context(mission, None, tmp_path),
    ):
        pass


def test_a_device_that_is_absent_is_named_by_file_and_key(desk: Desk, tmp_path: Path) -> None:
    mission = desk.write_mission("far", of_set='device = "cuda"')
    with open_context(mission, None, tmp_path) as context, pytest.raises(Unavailable) as caught:
        context.rows(context.mission.descriptors[0], 15)
    assert caught.value.message.startswith(f"{mission}: descriptors[0].device: ONNX Runtime ")
    assert "pip install onnxruntime-gpu" in caught.value.remedy


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (
            'device = "CUDAExecutionProvider"',
            r'device is "CUDAExecutionProvider", must be the name .* such as "cpu", "cuda"',
        ),
        ("device = 0", "device is 0, must be the name"),
        ('numeric = "float16"', 'numeric is "float16", must be "exact" or "any"'),
    ],
)
def test_a_wrong_device_says_what_is_right(desk: Desk, tmp_path: Path, line: str, says: str) -> None:
    mission = desk.write_mission("far", of_set=line)
    with pytest.raises(Invalid, match=says), open_context(mission, None, tmp_path):
        pass


def test_any_arithmetic_is_in_the_keys_and_goes_with_the_description(desk: Desk, tmp_path: Path) -> None:
    keys = []
    for line in ("", 'numeric = "any"'):
        with open_context(desk.write_mission("far", of_set=line), None, tmp_path) as context:
            set_ = context.mission.descriptors[0]
            rows = context.rows(set_, 15)
            assert context.description(set_, context.view(set_, 15)).device.numeric == rows.numeric
            keys.append(rows.shard(15, b"").key)
    assert len(set(keys)) == 2


@pytest.mark.parametrize(
    ("device", "batch", "runs"), [("cpu", "N", 4), ("openvino", "N", 32), ("openvino", 2, 1), ("cpu", 2, 1)]
)
def test_the_batch_follows_the_device(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, batch: str | int, runs: int
) -> None:
    """`max` is 32, `opt` is 8; a model with a fixed batch has neither, and runs on that many."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["OpenVINOExecutionProvider"])
    mission = desk.write_mission("far", of_set=f'device = "{device}"\nnumeric = "any"', batch=batch)
    with open_context(mission, None, tmp_path) as context:
        set_ = context.mission.descriptors[0]
        assert context.description(set_, context.view(set_, 15)).batch == runs
