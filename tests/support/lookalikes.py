"""Imagery of many places that look alike, such as dunes or fields of one crop: a network in full precision tells them
apart, and one that is rounded to int8 does not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Levels of 128 by which a place differs from the others: `builders.example.backbone` finds each in fp32, and three in
# four in int8.
FAINT = 3


def lookalikes(count: int, side: int, faint: float = FAINT, seed: int = 3) -> list[NDArray[np.uint8]]:
    """`count` pictures uint8 [side, side, 3]: one pattern, and on it a faint pattern of each place."""
    random = np.random.default_rng(seed)

    def pattern() -> NDArray[np.float64]:
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(np.float64) - 128

    common = pattern() * 0.8 + 128
    return [np.clip(common + pattern() * faint / 128, 0, 255).round().astype(np.uint8) for _ in range(count)]
