"""Build keys: the hash of everything that determines the meaning of an artifact, looked up before anything is built.

A recipe is a value that can be shown field by field. It never has paths, times, host names or thread counts; it has no
facts of the mission (takeoff, flight, area) either, so re-planning a route builds nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from store.errors import Corrupt
from store.format.cbor import encode
from store.format.entries import NUMERIC
from store.format.ids import BUILD_KEY_CONTEXT, DIGEST_SIZE, BuildKey, derive

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

CELL_CONTEXT = "flightbag 2026 cell tiles v1"
KEYS_CONTEXT = "flightbag 2026 shard keys v1"
SHARD_SCHEMA = "flightbag/shard/4"
PROBE_SCHEMA = "flightbag/probe/2"
# The arithmetic of rows: of ONNX Runtime's own kernels, of another provider (`builders.engines.providers`), or any.
CPU_NUMERIC = "onnxruntime-cpu-fp32"
ANY_NUMERIC = "any"
# Of an output [N, T, d], for each image; "none" for one that is [N, d].
POOLS = ("none", "cls", "mean", "gem")
# The bytes of a tile in `tile_list`.
TILE_PAIR = 8 + DIGEST_SIZE


@dataclass(frozen=True, slots=True)
class Recipe:
    """The fields of a build key: text, integers, bytes, arrays and maps of these."""

    fields: Mapping[str, Any]

    @property
    def key(self) -> BuildKey:
        return BuildKey(derive(BUILD_KEY_CONTEXT, encode(dict(self.fields))))


def tile_list(ids: NDArray[np.uint64], hashes: NDArray[np.uint8]) -> bytes:
    """Return tile ids (uint64[n]) and hashes (uint8[n, 32]) as bytes: for each tile its id, 8 bytes little-endian, then
    its hash."""
    import numpy as np  # not above: cards are read without it

    pairs = np.empty(len(ids), [("id", "<u8"), ("hash", "u1", DIGEST_SIZE)])
    pairs["id"], pairs["hash"] = ids, hashes
    return pairs.tobytes()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class RowRecipe:
    """How a row of a descriptor set is made, whichever tiles it shows.

    `model` is the digest of the ONNX, never of an engine; `pool` makes one row of the tokens of an image; `view` is
    (tiles, stride); `tile_size` the pixels of a side of a tile. `numeric` names the arithmetic of the vectors, not the
    machine: other hardware may give other bits, and then all missions use the first result.

    Law: `RowRecipe.of_metadata(recipe.metadata()) == recipe`, so a shard shows how to make more rows like its own.
    """

    salt: str
    model: bytes
    output: str
    preprocess: Mapping[str, Any]
    tile_size: int
    view: tuple[int, int]
    dtype: str
    normalise: str
    pool: str = "none"
    numeric: str = CPU_NUMERIC

    def fields(self) -> dict[str, Any]:
        return {
            "schema": SHARD_SCHEMA,
            "salt": self.salt,
            "model": self.model,
            "output": self.output,
            "pool": self.pool,
            "preprocess": dict(self.preprocess),
            "tile_size": self.tile_size,
            "view": list(self.view),
            "dtype": self.dtype,
            "normalise": self.normalise,
            "numeric": self.numeric,
        }

    def meta(self) -> dict[str, str]:
        """Return what the entries of shards and probes say of the arithmetic: nothing of the CPU's."""
        return {} if self.numeric == CPU_NUMERIC else {"numeric": self.numeric}

    def metadata(self) -> dict[str, str]:
        """Return the fields as the metadata of a shard has them: text, or JSON with byte strings as hex."""
        fields = {**self.fields(), "model": self.model.hex()}
        return {key: value if isinstance(value, str) else _json(value) for key, value in fields.items()}

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """Return the recipe in the metadata of a shard. Raise Corrupt for metadata of another version."""
        try:
            tiles, stride = json.loads(metadata["view"])
            recipe = cls(
                salt=metadata["salt"],
                model=bytes.fromhex(metadata["model"]),
                output=metadata["output"],
                preprocess=json.loads(metadata["preprocess"]),
                tile_size=json.loads(metadata["tile_size"]),
                view=(tiles, stride),
                dtype=metadata["dtype"],
                normalise=metadata["normalise"],
                pool=metadata["pool"],
                numeric=metadata["numeric"],
            )
            valid = recipe.dtype in ("float16", "float32") and recipe.normalise in ("none", "l2")
            valid &= recipe.pool in POOLS
            valid &= recipe.numeric == CPU_NUMERIC or NUMERIC.fullmatch(recipe.numeric) is not None
            valid &= {type(n) for n in (tiles, stride, recipe.tile_size)} == {int} and type(recipe.preprocess) is dict
            same = valid and recipe.metadata().items() <= metadata.items()
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise Corrupt(
                f"the metadata of the shard has no valid recipe of its rows: {error}", kind="bad-shard"
            ) from None
        if not same:
            raise Corrupt(
                "the rows of the shard were made by a recipe that this version does not know", kind="bad-shard"
            )
        return recipe

    def shard(self, zoom: int, tiles: bytes) -> Recipe:
        """Return the recipe of a shard. `tiles` is the list (`tile_list`), ascending, of every tile that the sources
        have of the views of its cell."""
        return Recipe({**self.fields(), "zoom": zoom, "tiles": derive(CELL_CONTEXT, tiles)})

    def probe(self, tiles: bytes, shards: Sequence[bytes]) -> Recipe:
        """Return the recipe of a probe. `tiles` is the list of the tiles of its views, view by view, `shards` are the
        keys of the shards of its set and zoom."""
        return Recipe(
            {
                **self.fields(),
                "schema": PROBE_SCHEMA,
                "tiles": derive(CELL_CONTEXT, tiles),
                "shards": derive(KEYS_CONTEXT, b"".join(shards)),
            }
        )
