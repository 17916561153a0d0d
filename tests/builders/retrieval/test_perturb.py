"""Perturbed pictures show the place, changed as the way says, with no edge in view, and are the same each time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.retrieval import perturb
from builders.retrieval.perturb import MARGIN, PERTURBATIONS, Change, change, fields, perturb_picture
from store.errors import Invalid
from store.format.cbor import decode, encode

ways = st.sampled_from(sorted(PERTURBATIONS))
seeds = st.integers(0, 2**64 - 1)
GEOMETRIC = ("shift", "rotation", "scale")


def least(side: int) -> int:
    """The smallest mosaic that is enough for a picture of this side."""
    return side + 2 * math.ceil(side / MARGIN)


def middle(mosaic: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    at = (len(mosaic) - side) // 2
    return mosaic[at : at + side, at : at + side]


def smooth(size: int) -> NDArray[np.uint8]:
    """A mosaic whose grey levels tell the place: red grows to the right, green downwards."""
    mosaic = np.full((size, size, 3), 128, np.uint8)
    mosaic[..., 0] = 40 + np.arange(size)[None, :] * 120 // size
    mosaic[..., 1] = 40 + np.arange(size)[:, None] * 120 // size
    return mosaic


@given(side=st.integers(1, 90), way=st.sampled_from(GEOMETRIC), seed=seeds, rim=st.integers(0, 5), dark=st.booleans())
def test_nothing_beyond_a_sixth_comes_into_view(side: int, way: str, seed: int, rim: int, dark: bool) -> None:
    size = least(side)
    mosaic = np.full((size + 2 * rim, size + 2 * rim, 3), 0 if dark else 255, np.uint8)
    mosaic[rim : rim + size, rim : rim + size] = 100
    assert (perturb_picture(mosaic, side, way, seed) == 100).all()


@pytest.mark.parametrize("way", GEOMETRIC)
@pytest.mark.parametrize("side", [256, 514])
def test_nothing_beyond_a_sixth_comes_into_view_at_the_sides_of_views(way: str, side: int) -> None:
    size = least(side)
    mosaic = np.zeros((size + 6, size + 6, 3), np.uint8)
    mosaic[3:-3, 3:-3] = 100
    for seed in range(40):
        assert (perturb_picture(mosaic, side, way, seed) == 100).all()


@given(side=st.integers(1, 64), way=ways, seed=seeds)
def test_the_same_picture_each_time_of_the_right_shape(side: int, way: str, seed: int) -> None:
    mosaic = np.random.default_rng(side).integers(0, 256, (least(side), least(side), 3), np.uint8)
    before = mosaic.copy()
    first = perturb_picture(mosaic, side, way, seed)
    assert first.shape == (side, side, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, perturb_picture(np.asfortranarray(mosaic), side, way, seed))
    np.testing.assert_array_equal(mosaic, before)


@given(ways, seeds)
def test_changes_keep_to_their_ranges(way: str, seed: int) -> None:
    plan = change(way, seed)
    unchanged = Change()
    if way == "shift":
        assert abs(math.hypot(*plan.move_ppm) - 10**6 * 20 / 256) < 1
        assert (math.degrees(math.atan2(*plan.move_ppm)) + 360) % 45 == pytest.approx(0, abs=1e-3) or (
            math.degrees(math.atan2(*plan.move_ppm)) + 360
        ) % 45 == pytest.approx(45, abs=1e-3)
        assert replace(plan, move_ppm=(0, 0)) == unchanged
    elif way == "rotation":
        assert 3000 <= abs(plan.turn_mdeg) <= 10000
        assert replace(plan, turn_mdeg=0) == unchanged
    elif way == "scale":
        assert 900_000 <= plan.scale_ppm <= 970_000 or 1_030_000 <= plan.scale_ppm <= 1_100_000
        assert replace(plan, scale_ppm=10**6) == unchanged
    else:
        assert 700_000 <= plan.gain_ppm <= 1_300_000
        assert -20 <= plan.offset <= 20
        assert replace(plan, gain_ppm=10**6, offset=0) == unchanged


def test_seeds_reach_everything() -> None:
    plans = {way: [change(way, seed) for seed in range(4000)] for way in PERTURBATIONS}
    assert len({plan.move_ppm for plan in plans["shift"]}) == 8
    turns = [plan.turn_mdeg for plan in plans["rotation"]]
    assert min(turns) < -9900
    assert max(turns) > 9900
    assert min(map(abs, turns)) < 3100
    scales = [plan.scale_ppm for plan in plans["scale"]]
    assert min(scales) < 901_000
    assert max(scales) > 1_099_000
    assert {plan.offset for plan in plans["brightness"]} == set(range(-20, 21))


def test_a_shift_along_an_axis_is_the_picture_beside_it() -> None:
    size = 256 + 2 * 256
    mosaic = np.random.default_rng(1).integers(0, 256, (size, size, 3), np.uint8)
    seen = set()
    for seed in range(100):
        right, down = change("shift", seed).move_ppm
        if right and down:
            continue
        dx, dy = round(right * 256 / 10**6), round(down * 256 / 10**6)
        assert {abs(dx), abs(dy)} == {0, 20}
        expected = mosaic[256 - dy : 512 - dy, 256 - dx : 512 - dx]
        np.testing.assert_array_equal(perturb_picture(mosaic, 256, "shift", seed), expected)
        seen.add((dx, dy))
    assert len(seen) == 4


@pytest.mark.parametrize("way", GEOMETRIC)
def test_the_picture_is_where_the_change_puts_it(way: str) -> None:
    """What lies at p from the middle comes to scale * R(turn) p + move, y downwards."""
    side, size = 240, 480
    mosaic = smooth(size)
    for seed in range(12):
        plan = change(way, seed)
        picture = perturb_picture(mosaic, side, way, seed).astype(float)
        angle, scale = math.radians(plan.turn_mdeg / 1000), plan.scale_ppm / 10**6
        for x, y in ((-60, -40), (0, 0), (50, 70), (70, -50)):
            # Counter-clockwise as seen, so with y downwards.
            to_x = scale * (math.cos(angle) * x - math.sin(angle) * y) + plan.move_ppm[0] * side / 10**6
            to_y = scale * (math.sin(angle) * x + math.cos(angle) * y) + plan.move_ppm[1] * side / 10**6
            got = picture[round(to_y + side / 2 - 0.5), round(to_x + side / 2 - 0.5)]
            assert abs(got[0] - (40 + (x + size / 2) * 120 / size)) <= 1.5
            assert abs(got[1] - (40 + (y + size / 2) * 120 / size)) <= 1.5


@given(seeds)
def test_brightness_is_a_gain_and_an_offset_clipped(seed: int) -> None:
    plan = change("brightness", seed)
    mosaic = np.zeros((24, 24, 3), np.uint8)
    mosaic[4:20, 4:20] = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    lit = perturb_picture(mosaic, 16, "brightness", seed)[..., 0].ravel().astype(float)
    expected = np.clip(np.arange(256) * (plan.gain_ppm / 10**6) + plan.offset, 0, 255)
    assert np.abs(lit - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("way", sorted(PERTURBATIONS))
def test_every_way_changes_a_picture(way: str) -> None:
    mosaic = np.random.default_rng(2).integers(0, 256, (90, 90, 3), np.uint8)
    for seed in range(20):
        assert (perturb_picture(mosaic, 60, way, seed) != middle(mosaic, 60)).mean() > 0.3


def test_the_changes_are_these() -> None:
    """Recall can only be compared where everybody asks with the same pictures."""
    made = {
        way: blake3(repr([change(way, seed) for seed in range(1000)]).encode()).hexdigest() for way in PERTURBATIONS
    }
    assert {way: digest[:16] for way, digest in made.items()} == {
        "brightness": "3d02c9b6a6a9f1a7",
        "rotation": "530cba76305a5e2f",
        "scale": "d98543279d78435e",
        "shift": "b0789ae50eed4150",
    }


def test_fields_are_canonical_and_say_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode(encode(fields()), limit=4096, what="fields") == fields()
    before = encode(fields())
    for way, numbers in PERTURBATIONS.items():
        for name in numbers:
            other = {**PERTURBATIONS, way: {**numbers, name: numbers[name] + 1}}
            with monkeypatch.context() as patch:
                patch.setattr(perturb, "PERTURBATIONS", other)
                assert encode(fields()) != before


@pytest.mark.parametrize(
    ("shape", "side"),
    [
        ((32, 32, 3), 32),
        ((36, 36, 3), 32),
        ((43, 43, 3), 32),
        ((44, 46, 3), 32),
        ((44, 44), 32),
        ((44, 44, 4), 32),
        ((), 32),
        ((44, 44, 3), 0),
        ((44, 44, 3), -32),
        ((0, 0, 3), 0),
        ((20, 20, 3), 40),
    ],
)
def test_mosaics_that_do_not_fit_are_invalid(shape: tuple[int, ...], side: int) -> None:
    with pytest.raises(Invalid):
        perturb_picture(np.zeros(shape, np.uint8), side, "shift", 1)


def test_other_arguments_are_invalid() -> None:
    mosaic = np.zeros((44, 44, 3), np.uint8)
    for way, seed in (("against", 1), ("", 1), ("shift", -1), ("shift", 2**64)):
        with pytest.raises(Invalid):
            perturb_picture(mosaic, 32, way, seed)
    with pytest.raises(Invalid):
        perturb_picture(mosaic.astype(np.int16), 32, "shift", 1)
