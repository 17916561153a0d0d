"""The five containers of tiles, for tests that hold for each of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.imagery.containers import CONTAINERS, Container, tile_pixels


@pytest.fixture(params=CONTAINERS, ids=lambda container: container.name)
def container(request: pytest.FixtureRequest) -> Container:
    kind: Container = request.param
    if kind.name == "geotiff":
        pytest.importorskip("rasterio", reason="the extra geotiff is not installed")
    return kind


@pytest.fixture
def imagery(container: Container, tmp_path: Path) -> Path:
    """The tiles of `tile_pixels` in the container, under a name that says nothing about it."""
    (tmp_path / "sources").mkdir()
    path = tmp_path / "sources" / "imagery.data"
    container.write(path, tile_pixels())
    return path
