"""Preprocessing: the formula, and what is in the build key."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from builders.descriptors.preprocess import Preprocess
from builders.example.terrain import render
from builders.grid.tiles import Tile
from store.errors import Invalid

PIXELS = render(Tile(15, 7357, 11522))


@pytest.mark.parametrize(("scale", "low", "high"), [("0..1", 0.0, 1.0), ("0..255", 0.0, 255.0), ("-1..1", -1.0, 1.0)])
def test_scale_says_what_black_and_white_become(scale: str, low: float, high: float) -> None:
    for value, expected in ((0, low), (255, high)):
        tensor = Preprocess((4, 6), scale=scale).tensor(np.full((4, 6, 3), value, np.uint8))
        assert tensor.shape == (3, 4, 6)
        assert tensor.dtype == np.float32
        assert np.allclose(tensor, expected, atol=1e-6)


def test_mean_and_std_are_in_units_of_the_scaled_value() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    tensor = Preprocess((256, 256), mean=mean, std=std).tensor(PIXELS)
    expected = (PIXELS / 255 - np.array(mean)) / np.array(std)
    assert np.allclose(tensor, expected.transpose(2, 0, 1), atol=1e-5)


def test_bgr_turns_the_channels_and_mean_follows_the_channels_of_the_tensor() -> None:
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    tensor = Preprocess((2, 2), colour="BGR", mean=(0.0, 0.0, 0.25)).tensor(red)
    assert tensor[:, 0, 0].tolist() == [0.0, 0.0, 0.75]


def test_resize_is_height_and_width_and_filters_differ() -> None:
    names = ("nearest", "bilinear", "bicubic", "lanczos")
    tensors = [Preprocess((48, 80), filter=name).tensor(PIXELS) for name in names]
    assert {tensor.shape for tensor in tensors} == {(3, 48, 80)}
    assert len({tensor.tobytes() for tensor in tensors}) == 4


def test_a_tensor_can_be_put_into_a_batch() -> None:
    batch = np.full((2, 3, 64, 64), np.nan, np.float32)
    preprocess = Preprocess((64, 64), scale="-1..1")
    preprocess.tensor(PIXELS, out=batch[1])
    assert (batch[1] == preprocess.tensor(PIXELS)).all()
    assert np.isnan(batch[0]).all()


def test_the_fields_are_integers_and_text() -> None:
    assert Preprocess((256, 320), mean=(0.485, 0.456, 0.406), std=(1.0, 0.5, 58.395)).fields() == {
        "decoder": "pillow",
        "resize": [256, 320],
        "colour": "RGB",
        "scale": "0..1",
        "mean": [485000, 456000, 406000],
        "std": [1000000, 500000, 58395000],
        "filter": "bilinear",
        "layout": "NCHW",
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("resize", (0, 256)),
        ("resize", (256, 4097)),
        ("resize", (256,)),
        ("resize", (True, 256)),
        ("resize", (256.0, 256)),
        ("colour", "GRAY"),
        ("scale", "0..2"),
        ("filter", "box"),
        ("mean", (0.0, 0.0)),
        ("mean", (0.0, 0.0, float("nan"))),
        ("mean", (0.0, 0.0, 1e7)),
        ("mean", (0.0, 0.0, 0.1234567)),
        ("std", (1.0, 1.0, 0.0)),
        ("std", (1.0, 1.0, -1.0)),
    ],
)
def test_an_invalid_value_names_its_key(key: str, value: object) -> None:
    arguments: dict[str, Any] = {"resize": (256, 256), key: value}
    with pytest.raises(Invalid) as caught:
        Preprocess(**arguments)
    assert caught.value.fields["key"] == f"preprocess.{key}"
    assert caught.value.remedy
