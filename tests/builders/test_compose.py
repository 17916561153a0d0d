"""What a build opens of its mission file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders.compose import open_context
from builders.files import read_regular
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

    monkeypatch.setattr("builders.areas.geojson.read_regular", counted)
    with open_context(mission, None, tmp_path / "cache") as context:
        assert context.area.bbox == tuple(round(value * 10**7) for value in LEFT)
    assert files == ["area.geojson"]
