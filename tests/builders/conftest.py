"""A GeoJSON file, for the tests of areas and of footprints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.builders.areas.shapes import Write


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Writes a value, or text as it is, to a file. Of the module, so that laws can use it."""
    path = tmp_path_factory.mktemp("area") / "area.geojson"

    def to_file(value: object) -> Path:
        path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
        return path

    return to_file
