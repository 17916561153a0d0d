"""The recipes of engines and of the quantised networks that int8 engines are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from builders.engines.base import EngineSpec, InputRange, Reference
from builders.engines.graph import fields_of, fixed_of
from builders.engines.model import ModelSource
from builders.recipe import CELL_CONTEXT, TILE_PAIR, Recipe
from store.errors import Invalid
from store.format.ids import derive

ENGINE_SCHEMA = "flightbag/engine/4"
QUANTISED_SCHEMA = "flightbag/quantised/1"
_MAX_TEXT = 1024


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


def spec_of_fields(
    fields: Mapping[str, Any], backbone: str, model: Path, compare: tuple[str, ...], reference: Reference | None
) -> EngineSpec:
    """Return the spec of an engine by the fields of its build key, which may come from anywhere. `model` is its source.

    Raise Invalid for fields that are not those of an engine, and for one that has plug-ins: no code is taken from
    there.
    """
    try:
        if fields["plugins"]:
            raise Invalid(
                f"the engine of {backbone} has plug-ins, and code for a device is not carried in a store",
                remedy="build the engine on a machine like the aircraft's",
                kind="has-plugins",
            )
        inputs = tuple(
            InputRange(_text(name), tuple(map(_dimension, shape)), *_range(sizes))
            for name, shape, sizes in fields["inputs"]
        )
        spec = EngineSpec(
            backbone=backbone,
            model=ModelSource(model.name, model, bytes(fields["model"]), 0, ()),
            precision={"fp32": "fp32", "fp16": "fp16", "int8": "int8"}[fields["precision"]],
            inputs=inputs,
            salt=_text(fields["salt"]),
            options={_text(name): _option(value) for name, value in fields["options"]},
            quantised=bytes(fields["quantised"]),
            fixed=fixed_of(fields["fixed"]),
            compare=compare,
            reference=reference,
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise Invalid(f"the fields of the key are not those of an engine: {error!r}", kind="bad-order") from error
    return spec


def _text(value: object) -> str:
    if type(value) is not str or not 0 <= len(value) <= _MAX_TEXT:
        raise TypeError("expected a text")
    return value


def _dimension(value: object) -> int | str:
    return value if type(value) is int else _text(value)


def _range(sizes: Sequence[object]) -> tuple[int | None, int | None, int | None]:
    match sizes:
        case []:
            return None, None, None
        case [int(least), int(opt), int(most)]:
            return least, opt, most
    raise TypeError("expected [min, opt, max] or nothing")


def _option(value: object) -> int | str:
    return value if type(value) is int else _text(value)


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
