"""Engine cards: what an engine is, what it was made from and by, and how close it is to its source.

An object beside each engine, with the engine's build key (FORMAT 6.4): JSON, keys sorted, floats as figures. The fields
of the build key are in it exactly, so `parse` proves that the key is theirs. It says nothing of names: two backbones
that are one engine share one card.

Law: `Card.parse(card.render()) == card`, and only what `render` writes parses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builders.engines.check import CheckFigures, Tolerance
from builders.recipe import Recipe
from store.errors import Corrupt, Invalid
from store.format.cbor import Value, encode
from store.format.ids import BuildKey, ObjectId

SCHEMA = "flightbag/card/1"
# An inspector's words are bounded where they are taken; this is for whatever else may have been planted.
CARD_LIMIT = 16 * 2**20
_KEYS = frozenset(
    {"schema", "key", "fields", "steps", "parts", "inputs", "outputs", "check", "tolerance", "tools", "inspector",
     "seconds"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EngineRecipes:
    """What the key of an engine is made of, as in `Card`, before there is one."""

    recipe: Recipe
    steps: Mapping[str, Recipe]


@dataclass(frozen=True, slots=True)
class Card:
    """`recipe` gives the build key; `steps` are the recipes of networks that the engine was made from (int8), by name;
    `parts` maps `model` and `weights` to [object id in hex, bytes]; inputs and outputs are [name, dtype, shape] each;
    `tools` name and version; `seconds` what compiling took; `inspector` what the backend tells of the inside."""

    recipe: Recipe
    steps: Mapping[str, Recipe]
    parts: Mapping[str, Sequence[Any]]
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    check: CheckFigures
    tolerance: Tolerance
    tools: Mapping[str, str]
    inspector: Any
    seconds: float

    def describes(self, key: BuildKey, found: Sequence[tuple[ObjectId, int]]) -> bool:
        """Whether this is the card of the engine with this key and these objects, (id, size) of model[, weights]. What
        it says of the check was measured on the objects that it names and on no other."""
        stored = {name: [str(id_), size] for name, (id_, size) in zip(("model", "weights"), found, strict=False)}
        return self.recipe.key == key and {name: list(part) for name, part in self.parts.items()} == stored

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "key": str(self.recipe.key),
            "fields": plain(self.recipe.fields),
            "steps": {name: plain(step.fields) for name, step in self.steps.items()},
            "parts": {name: list(part) for name, part in self.parts.items()},
            "inputs": [list(end) for end in self.inputs],
            "outputs": [list(end) for end in self.outputs],
            "check": self.check.as_json(),
            "tolerance": {"relative_error": self.tolerance.relative_error, "cosine": self.tolerance.cosine},
            "tools": dict(self.tools),
            "inspector": self.inspector,
            "seconds": self.seconds,
        }

    def render(self) -> bytes:
        return _dump(self.as_json())

    @staticmethod
    def parse(data: bytes | bytearray | memoryview) -> Card:
        """Raises Corrupt for what `render` has not written."""
        try:
            if len(data) > CARD_LIMIT:
                raise ValueError(f"it has {len(data)} bytes")
            value = json.loads(bytes(data))
            if value.keys() != _KEYS or value["schema"] != SCHEMA:
                raise ValueError(f"it is no {SCHEMA}")
            card = Card(
                recipe=_recipe(value["fields"]),
                steps={name: _recipe(step) for name, step in value["steps"].items()},
                parts=value["parts"],
                inputs=value["inputs"],
                outputs=value["outputs"],
                check=CheckFigures.from_json(value["check"]),
                tolerance=Tolerance(**value["tolerance"]),
                tools=value["tools"],
                inspector=value["inspector"],
                seconds=value["seconds"],
            )
            if card.render() != bytes(data):
                raise ValueError("it is not in its one form, or its key is not that of its fields")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ArithmeticError, Invalid) as error:
            raise Corrupt(f"no engine card: {error}", kind="bad-card") from error
        return card


def differences(new: Card | EngineRecipes, old: Card | EngineRecipes) -> list[dict[str, Any]]:
    """What differs between two keys, field by field: [{"field", "new", "old"}], None where one has no such field."""
    a, b = _flat(new), _flat(old)
    return [
        {"field": name, "new": a.get(name), "old": b.get(name)}
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name)
    ]


def _flat(keyed: Card | EngineRecipes) -> dict[str, Any]:
    fields = dict(plain(keyed.recipe.fields))
    for step, recipe in keyed.steps.items():
        fields |= {f"{step}.{name}": value for name, value in plain(recipe.fields).items()}
    return fields


def plain(value: Value | Mapping[str, Any]) -> Any:
    """A value of a recipe as JSON: bytes are {"hex": …}."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, str | int):
        return value
    return [plain(item) for item in value]


def _exact(value: Any) -> Any:
    """`plain` undone."""
    if isinstance(value, dict):
        if value.keys() == {"hex"}:
            return bytes.fromhex(value["hex"])
        return {key: _exact(item) for key, item in value.items()}
    return [_exact(item) for item in value] if isinstance(value, list) else value


def _recipe(value: Any) -> Recipe:
    if not isinstance(value, dict):
        raise TypeError("the fields of a key are a map")
    recipe = Recipe(_exact(value))
    encode(dict(recipe.fields))  # raises Invalid for what no recipe holds
    return recipe


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
