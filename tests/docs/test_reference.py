"""The reference pages are what the program says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.reference import MARK, PAGES, page
from tests.support.release import REPOSITORY


@pytest.mark.parametrize("path", PAGES, ids=str)
def test_the_page_is_as_the_program_says(path: Path) -> None:
    text = (REPOSITORY / path).read_text()
    assert MARK in text
    assert text == page(path), "run `make reference`"
