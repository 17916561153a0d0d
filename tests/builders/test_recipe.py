"""Recipes: what is in a key comes back."""

from __future__ import annotations

import pytest

from builders.recipe import RowRecipe
from store.errors import Corrupt

NUMERICS = (
    "onnxruntime-cpu-fp32",
    "any",
    "onnxruntime-cuda-1.32.0-sm90-fp32",
    "onnxruntime-openvino-1.24.1-x86_64-fp32",
)


@pytest.mark.parametrize("numeric", NUMERICS)
def test_a_recipe_comes_back_from_the_metadata_of_a_shard(numeric: str) -> None:
    preprocess = {"resize": [8, 9], "mean": [1, 2, 3]}
    recipe = RowRecipe("s", bytes(range(32)), "out", preprocess, 512, (4, 2), "float32", "l2", numeric=numeric)
    metadata = {**recipe.metadata(), "cell": "1/2/3", "zoom": "5"}
    assert RowRecipe.of_metadata(metadata) == recipe
    for key in recipe.metadata():
        with pytest.raises(Corrupt):
            RowRecipe.of_metadata({name: value for name, value in metadata.items() if name != key})
        if key not in ("salt", "output"):  # which are any text
            for bad in ("x", "[]", "null", "[1, null]"):
                with pytest.raises(Corrupt):
                    RowRecipe.of_metadata({**metadata, key: bad})


def test_each_arithmetic_has_keys_of_its_own_and_the_entries_name_all_but_the_cpus() -> None:
    recipes = [RowRecipe("", bytes(32), "y", {}, 8, (1, 1), "float32", "none", numeric=one) for one in NUMERICS]
    assert len({recipe.shard(16, b"").key for recipe in recipes}) == len(NUMERICS)
    assert [recipe.meta().get("numeric", NUMERICS[0]) for recipe in recipes] == list(NUMERICS)
    assert recipes[0].meta() == {}


@pytest.mark.parametrize(
    "numeric", ["onnxruntime-cpu-1.32.0-x86_64-fp32", "onnxruntime-cuda-1.32.0-sm90-fp16", "ANY", ""]
)
def test_no_arithmetic(numeric: str) -> None:
    metadata = RowRecipe("", bytes(32), "y", {}, 8, (1, 1), "float32", "none", numeric=numeric).metadata()
    with pytest.raises(Corrupt):
        RowRecipe.of_metadata(metadata)
