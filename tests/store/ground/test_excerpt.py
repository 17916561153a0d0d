"""A message names the first few of many things, and counts the others."""

from __future__ import annotations

import pytest

from store.ground.excerpt import first_few


@pytest.mark.parametrize(
    ("items", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a; b"), (["a", "b", "c", "d"], "a; b; and 2 more")]
)
def test_at_most_two(items: list[str], text: str) -> None:
    assert first_few(items, limit=2) == text
