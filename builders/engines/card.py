"""Engine cards: what an engine is, what made it and from what, and how close it is to its source.

A card is an object beside each engine, with the engine's build key (FORMAT 6.4, decision 0011): JSON, keys sorted,
floats as figures. It holds the fields of the build key exactly, so `parse` proves that the key is theirs. It holds no
names: two backbones that are one engine share one card.

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
from store.format.host import objection
from store.format.ids import BuildKey, ObjectId

SCHEMA = "flightbag/card/3"
# The backend bounds the inspector's text; this bounds whatever else somebody may have planted.
CARD_LIMIT = 16 * 2**20
_KEYS = frozenset(
    {"schema", "key", "fields", "steps", "parts", "need", "inputs", "outputs", "check", "tolerance", "tools",
     "inspector", "seconds"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EngineRecipes:
    """The recipes that the key of an engine is made of, as in `Card`, before the engine exists."""

    recipe: Recipe
    steps: Mapping[str, Recipe]

    @classmethod
    def of_plain(cls, fields: Any, steps: Mapping[str, Any]) -> EngineRecipes:
        """Return the recipes whose fields `plain` made JSON of."""
        return cls(_recipe(fields), {name: _recipe(step) for name, step in steps.items()})


@dataclass(frozen=True, slots=True)
class Card:
    """One engine. `recipe` has the build key; `steps` are the recipes of the networks that the engine was made from
    (int8), by name; `parts` maps `model` and `weights` to [object id in hex, bytes]; `need` is what the engine needs of
    a host (FORMAT 4.5); `inputs` and `outputs` hold [name, dtype, shape] each; `tools` maps name to version; `seconds`
    is the time of compiling; `inspector` is the backend's description of the inside."""

    recipe: Recipe
    steps: Mapping[str, Recipe]
    parts: Mapping[str, Sequence[Any]]
    need: str
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    check: CheckFigures
    tolerance: Tolerance
    tools: Mapping[str, str]
    inspector: Any
    seconds: float

    @property
    def proven(self) -> bool:
        """Whether the engine itself ran, and its outputs were compared with its source's. An engine that the machine
        that built it cannot run is not proven: the figures of its check are those of its network."""
        return self.check.of == "engine"

    def describes(self, key: BuildKey, objects: Sequence[tuple[ObjectId, int]]) -> bool:
        """Return whether this is the card of the engine with this key and these objects, (id, size) of
        model[, weights]. The figures of its check were measured on the objects that it names and on no other."""
        stored = {name: [str(id_), size] for name, (id_, size) in zip(("model", "weights"), objects, strict=False)}
        return self.recipe.key == key and {name: list(part) for name, part in self.parts.items()} == stored

    def as_json(self) -> dict[str, Any]:
        """Return the card as a JSON value, with its schema and its key."""
        return {
            "schema": SCHEMA,
            "key": str(self.recipe.key),
            "fields": plain(self.recipe.fields),
            "steps": {name: plain(step.fields) for name, step in self.steps.items()},
            "parts": {name: list(part) for name, part in self.parts.items()},
            "need": self.need,
            "inputs": [list(tensor) for tensor in self.inputs],
            "outputs": [list(tensor) for tensor in self.outputs],
            # An engine with a fault is not published, so that a card has none.
            "check": {key: value for key, value in self.check.as_json().items() if key != "faults"},
            "tolerance": {"relative_error": self.tolerance.relative_error, "cosine": self.tolerance.cosine},
            "tools": dict(self.tools),
            "inspector": self.inspector,
            "seconds": self.seconds,
        }

    def render(self) -> bytes:
        """Return the bytes of the card."""
        return _dump(self.as_json())

    @staticmethod
    def parse(data: bytes | bytearray | memoryview) -> Card:
        """Return the card in `data`. Raise Corrupt (`bad-card`) for bytes that `render` does not write."""
        try:
            if len(data) > CARD_LIMIT:
                raise ValueError(f"it has {len(data)} bytes, more than {CARD_LIMIT}")
            value = json.loads(bytes(data))
            if value.keys() != _KEYS or value["schema"] != SCHEMA:
                raise ValueError(f"expected the fields of {SCHEMA}")
            card = Card(
                recipe=_recipe(value["fields"]),
                steps={name: _recipe(step) for name, step in value["steps"].items()},
                parts=value["parts"],
                need=_need(value["need"]),
                inputs=value["inputs"],
                outputs=value["outputs"],
                check=CheckFigures.from_json({**value["check"], "faults": []}),
                tolerance=Tolerance(**value["tolerance"]),
                tools=value["tools"],
                inspector=value["inspector"],
                seconds=value["seconds"],
            )
            if card.render() != bytes(data):
                raise ValueError("the bytes are not canonical, or the key does not match the fields")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ArithmeticError, Invalid) as error:
            raise Corrupt(f"the bytes are not an engine card: {error}", kind="bad-card") from error
        return card


def differences(new: Card | EngineRecipes, old: Card | EngineRecipes) -> list[dict[str, Any]]:
    """Return the fields that differ between two keys: [{"field", "new", "old"}], None for a field that a key lacks."""
    a, b = _flat(new), _flat(old)
    return [
        {"field": name, "new": a.get(name), "old": b.get(name)}
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name)
    ]


def _flat(recipes: Card | EngineRecipes) -> dict[str, Any]:
    fields = dict(plain(recipes.recipe.fields))
    for step, recipe in recipes.steps.items():
        fields |= {f"{step}.{name}": value for name, value in plain(recipe.fields).items()}
    return fields


def plain(value: Value | Mapping[str, Any]) -> Any:
    """Return a value of a recipe as JSON; bytes become {"hex": …}."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, str | int):
        return value
    return [plain(item) for item in value]


def _exact(value: Any) -> Any:
    """The inverse of `plain`."""
    if isinstance(value, dict):
        if value.keys() == {"hex"}:
            return bytes.fromhex(value["hex"])
        return {key: _exact(item) for key, item in value.items()}
    return [_exact(item) for item in value] if isinstance(value, list) else value


def _recipe(value: Any) -> Recipe:
    if not isinstance(value, dict):
        raise TypeError("expected a map for the fields of a key")
    recipe = Recipe(_exact(value))
    encode(dict(recipe.fields))  # raises Invalid for values that no recipe holds
    return recipe


def _need(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text for the need of the engine")
    if wrong := objection(value, need=True):
        raise ValueError(wrong)
    return value


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
