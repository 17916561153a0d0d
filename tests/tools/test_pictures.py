"""Maps as pictures, and the picture of a query."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.commands import flightbag
from tests.support.field import Desk
from tests.tools.test_maps import Maps
from tests.tools.test_maps import maps as maps


def test_a_picture_has_each_reason_and_its_legend(maps: Maps, tmp_path: Path) -> None:
    path = tmp_path / "ridge.png"
    for _ in range(2):
        assert flightbag("map", maps.store, "ridge", "-o", path).status == 0
    pixels = np.asarray(Image.open(path).convert("RGB"))
    colours = {tuple(pixel) for pixel in pixels[::3, ::3].reshape(-1, 3).tolist()}
    assert {(143, 208, 185), (240, 228, 66), (213, 94, 0), (0, 114, 178)} <= colours
    ran = flightbag("map", maps.store, "large", "-o", path, "--json")
    assert ran.status == 0
    with Image.open(path) as image:
        assert max(image.size) < 2000
    assert ran.json["zooms"][0]["missing"] == 0


def test_a_query_draws_the_frame_beside_its_matches(equipped: Desk, tmp_path: Path) -> None:
    query = ("query", equipped.store, "left", equipped.folder / "frame.png", "--trust", equipped.root)
    sizes = []
    for more in ((), ("--tiles", equipped.folder / "terrain.mbtiles")):
        path = tmp_path / "out.png"
        ran = flightbag(*query, "--picture", path, *more)
        assert ran.status == 0, ran.err
        pixels = np.asarray(Image.open(path).convert("RGB"))
        frame = np.asarray(Image.open(equipped.folder / "frame.png").convert("RGB").resize((480, 480)))
        assert (pixels[40 : 40 + 480, 16 : 16 + 480] == frame).all()
        sizes.append(pixels.shape)
    assert sizes[1][0] > sizes[0][0], "with what the matches show"
    best = pixels[-250:, 16:196].reshape(-1, 3)
    assert len(np.unique(best, axis=0)) > 100, "imagery"
    for wrong, text in (
        ((*query, "--tiles", equipped.folder / "terrain.mbtiles"), "--picture"),
        ((*query, "--picture", equipped.folder / "frame.png"), "would be lost"),
        ((*query, "--picture", equipped.store / "x.png"), str(equipped.store)),
    ):
        ran = flightbag(*wrong)
        assert (ran.status, text in ran.err) == (2, True), ran.err
