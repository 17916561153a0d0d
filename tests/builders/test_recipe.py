"""Recipes: what is in a key comes back."""

from __future__ import annotations

import pytest

from builders.recipe import RowRecipe
from store.errors import Corrupt


def test_a_recipe_comes_back_from_the_metadata_of_a_shard() -> None:
    preprocess = {"resize": [8, 9], "mean": [1, 2, 3]}
    recipe = RowRecipe("s", bytes(range(32)), "out", preprocess, 512, (4, 2), "float32", "l2")
    metadata = {**recipe.metadata(), "cell": "1/2/3", "zoom": "5"}
    assert RowRecipe.of_metadata(metadata) == recipe
    for key in recipe.metadata():
        with pytest.raises(Corrupt):
            RowRecipe.of_metadata({name: value for name, value in metadata.items() if name != key})
        if key not in ("salt", "output"):  # which are any text
            for bad in ("x", "[]", "null", "[1, null]"):
                with pytest.raises(Corrupt):
                    RowRecipe.of_metadata({**metadata, key: bad})
