"""The recipes of engines and of the quantised networks that int8 engines are made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builders.engines.base import EngineSpec
from builders.engines.graph import fields_of
from builders.recipe import CELL_CONTEXT, TILE_PAIR, Recipe
from store.format.ids import derive

ENGINE_SCHEMA = "flightbag/engine/4"
QUANTISED_SCHEMA = "flightbag/quantised/1"


def engine_recipe(spec: EngineSpec, host: str, backend: Mapping[str, Any], caster: str) -> Recipe:
    """Return the recipe of an engine: the fields that every backend depends on, and `backend`, the backend's own.

    The names and dtypes of inputs and outputs follow from the model's digest (decision 0011); the ranges of the inputs
    are fields.
    `caster` is the tool that casts the network to another precision, "" if the network is not cast.
    """
    common = {
        "schema": ENGINE_SCHEMA,
        "salt": spec.salt,
        "model": spec.model.digest,
        "inputs": [
            [item.name, list(item.shape), list(item.range or ())]
            for item in sorted(spec.inputs, key=lambda item: item.name)
        ],
        "fixed": fields_of(spec.fixed),
        "precision": spec.precision,
        "caster": caster,
        "quantised": spec.quantised,
        # Pairs, because the key of a CBOR map has 23 bytes at most and some names are longer.
        "options": [[name, value] for name, value in sorted(spec.options.items())],
        "plugins": sorted(plugin.digest for plugin in spec.plugins),
        "host": host,
    }
    return Recipe({**backend, **common})


def quantised_recipe(
    *,
    salt: str,
    model: bytes,
    method: str,
    tool: str,
    preprocess: Mapping[str, Any],
    tiles: bytes,
) -> Recipe:
    """Return the recipe of a network in int8.

    `tiles` is the list (`tile_list`) of the calibration tiles, ascending; `preprocess` turns each into a row of the
    input. `tool` is the name and version of the tool that quantises.
    """
    return Recipe(
        {
            "schema": QUANTISED_SCHEMA,
            "salt": salt,
            "model": model,
            "method": method,
            "tool": tool,
            "preprocess": dict(preprocess),
            "count": len(tiles) // TILE_PAIR,
            "tiles": derive(CELL_CONTEXT, tiles),
        }
    )
