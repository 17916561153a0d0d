"""Build keys: the hash of everything that determines an artifact's meaning, looked up before anything is built.

A recipe is a value that can be shown field by field. Paths, times, host names and thread counts are never in it; facts
of the mission (takeoff, flight, area) are not either, so re-planning a route builds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store.format.cbor import encode
from store.format.ids import BuildKey, derive

KEY_CONTEXT = "flightbag 2026 build key v1"
CELL_CONTEXT = "flightbag 2026 cell tiles v1"
SHARD_SCHEMA = "flightbag/shard/1"
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
