"""What a build opens of its mission file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders.compose import open_context
from builders.files import read_regular
from store.errors import Invalid
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
