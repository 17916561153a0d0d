"""Pictures of queries: which files are read, and which error each other file raises."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from builders.descriptors.photo import MAX_BYTES
from builders.imagery.png import write_png
from builders.retrieval.query import read_picture
from store.errors import Invalid


def test_a_picture_is_read_as_its_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path = tmp_path / "picture.png"
    path.write_bytes(write_png(pixels))
    assert (read_picture(path) == pixels).all()


def test_a_file_that_is_not_a_picture_is_invalid_and_nothing_waits(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no picture")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", MAX_BYTES + 1)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "text", tmp_path / "large", tmp_path / "pipe"):
        with pytest.raises(Invalid) as caught:
            read_picture(path)
        assert caught.value.fields["path"] == str(path)
        assert caught.value.remedy


def test_a_picture_that_does_not_exist_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"picture .* does not exist"):
        read_picture(tmp_path / "none.png")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(Invalid, match=r"picture .* is empty"):
        read_picture(tmp_path / "empty.jpg")
