"""Sample tiles: those of the source, small; none of another source; and nothing else from the confined process."""

from __future__ import annotations

import io
import time
from base64 import b64encode
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders import confinement
from builders.atlas import SAMPLE_SIDE, SAMPLES
from builders.example.terrain import render, write_terrain
from builders.grid.tiles import Tile, tile_from_id
from builders.imagery.roworder import SourcePath
from builders.samples import samples, views
from store.errors import Corrupt, Refused
from store.ground.repository import Repository
from store.takeoff.check import takeoff_check
from tests.support.field import WORLD, ZOOMS, Desk

PIXELS = b64encode(bytes(3 * SAMPLE_SIDE**2)).decode()


@pytest.mark.confined
def test_samples_and_views_are_the_imagery_of_the_build(built: Desk) -> None:
    source = SourcePath.parse(str(built.folder / "terrain.mbtiles"))
    with Repository.open(built.store) as repository:
        strip = samples(repository.evidence, repository.current("left"), [source])
    assert len(strip) == SAMPLES
    for number, pixels in strip:
        tile = tile_from_id(number)
        assert tile.z == 15
        assert _near(np.frombuffer(pixels, np.uint8).reshape(SAMPLE_SIDE, SAMPLE_SIDE, 3), tile)
    verdict = takeoff_check(built.store, "left", trust=built.root.read_bytes(), now=int(time.time()))
    assert verdict.mission is not None
    wanted = [tile_from_id(strip[0][0]), Tile(14, 3679, 5761)]
    shown = views(verdict.mission, "embedder", wanted, [source])
    assert set(shown) == set(wanted)
    assert all(_near(pixels, tile) for tile, pixels in shown.items())


def _near(pixels: Any, tile: Tile) -> bool:
    """Whether these are the pixels of a tile, but for what JPEG and a smaller size change."""
    file = io.BytesIO()
    Image.fromarray(render(tile)).save(file, "PNG")
    other = np.asarray(Image.open(file).resize(pixels.shape[1::-1]), np.int16)
    return bool(np.abs(other - pixels).mean() < 12)


def test_other_tiles_are_refused(built: Desk) -> None:
    write_terrain(built.folder / "other.mbtiles", WORLD, ZOOMS, seed=2)
    other = SourcePath.parse(str(built.folder / "other.mbtiles"))
    with Repository.open(built.store) as repository, pytest.raises(Refused) as caught:
        samples(repository.evidence, repository.current("left"), [other])
    assert caught.value.kind == "other-tiles"
    assert caught.value.remedy


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"tiles": None},
        {"tiles": [[1]]},
        {"tiles": [["1", PIXELS]]},
        {"tiles": [[1, PIXELS[:-4]]]},
        {"tiles": [[1, PIXELS + "AAAA"]]},
        {"tiles": [[1, 7]]},
        {"tiles": [[1, "<svg onload=alert(1)>"]]},
        {"tiles": [[-1, PIXELS]]},
        {"tiles": [[2**60, PIXELS]]},
        {"tiles": [[True, PIXELS]]},
        {"tiles": [[number, PIXELS] for number in range(SAMPLES + 1)]},
    ],
)
def test_nothing_but_tiles_and_pixels_is_taken(
    built: Desk, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    monkeypatch.setattr(confinement, "run_confined", lambda *_, **__: answer)
    with Repository.open(built.store) as repository, pytest.raises(Corrupt) as caught:
        confinement.samples(built.store, repository.current("left"), ["terrain.mbtiles"])
    assert caught.value.kind == "failed"
