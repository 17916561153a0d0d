"""Build keys: the hash of everything that determines an artifact's meaning, looked up before anything is built.

A recipe is a value that can be shown field by field. Paths, times, host names and thread counts are never in it; facts
of the mission (takeoff, flight, area) are not either, so re-planning a route builds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from store.format.cbor import encode
from store.format.ids import BuildKey, derive

if TYPE_CHECKING:
    from builders.engines.base import EngineSpec

KEY_CONTEXT = "flightbag 2026 build key v1"
CELL_CONTEXT = "flightbag 2026 cell tiles v1"
SHARD_SCHEMA = "flightbag/shard/1"
ENGINE_SCHEMA = "flightbag/engine/2"
QUANTISED_SCHEMA = "flightbag/quantised/1"
# The rows are the output of the model as it is.
NORMALISE = "none"


@dataclass(frozen=True, slots=True)
class Recipe:
    """The fields of a build key: text, integers, bytes, arrays and maps of these."""

    fields: Mapping[str, Any]

    @property
    def key(self) -> BuildKey:
        return BuildKey(derive(KEY_CONTEXT, encode(dict(self.fields))))


def tile_list(tiles: Sequence[tuple[int, bytes]]) -> bytes:
    """(tile id, 32-byte hash) pairs as bytes: 8 little-endian bytes of id, then the hash."""
    return b"".join(number.to_bytes(8, "little") + digest for number, digest in tiles)


def engine_recipe(spec: EngineSpec, host: str, backend: Mapping[str, Any], caster: str) -> Recipe:
    """The recipe of an engine: what every backend's depends on, and the fields that are `backend`'s own.

    The names and dtypes of inputs and outputs follow from the model's digest, their ranges are given. `caster` is the
    tool that casts the network to another precision, "" where none does.
    """
    common = {
        "schema": ENGINE_SCHEMA,
        "salt": spec.salt,
        "model": spec.model.digest,
        "inputs": [
            [item.name, list(item.shape), list(item.range or ())]
            for item in sorted(spec.inputs, key=lambda item: item.name)
        ],
        "precision": spec.precision,
        "caster": caster,
        "quantised": spec.quantised,
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
    tiles: Sequence[tuple[int, bytes]],
) -> Recipe:
    """The recipe of a network in int8: `tiles` is (tile id, BLAKE3 of its bytes) of the calibration tiles, ascending,
    which `preprocess` makes rows of; `tool` the name and version of what quantises."""
    return Recipe(
        {
            "schema": QUANTISED_SCHEMA,
            "salt": salt,
            "model": model,
            "method": method,
            "tool": tool,
            "preprocess": dict(preprocess),
            "count": len(tiles),
            "tiles": derive(CELL_CONTEXT, tile_list(tiles)),
        }
    )


def shard_recipe(
    *,
    model: bytes,
    output: str,
    preprocess: Mapping[str, Any],
    dtype: str,
    zoom: int,
    tiles: Sequence[tuple[int, bytes]],
) -> Recipe:
    """The recipe of a shard.

    `model` is the digest of the ONNX, never of an engine; `tiles` is (tile id, BLAKE3 of its bytes) of every tile that
    the cell has in the source, ascending. The numeric class says in which arithmetic the vectors come about, not on
    which machine: other hardware may give other bits, and then the first result is everyone's.
    """
    return Recipe(
        {
            "schema": SHARD_SCHEMA,
            "model": model,
            "output": output,
            "preprocess": dict(preprocess),
            "dtype": dtype,
            "normalise": NORMALISE,
            "numeric": "onnxruntime-cpu-fp32",
            "zoom": zoom,
            "tiles": derive(CELL_CONTEXT, tile_list(tiles)),
        }
    )
