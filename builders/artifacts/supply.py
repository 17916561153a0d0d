"""What a shared cache offers for the keys of a build (FORMAT.md 5.6), until the build has looked at it.

The parent of the confined process asks the cache, and inserts the objects of records that are signed as they must be.
That an artifact is what its key asks for, its kind decides, here beside no key: it is taken, and recorded, or refused,
and made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from builders.artifacts.task import StoredObjects
from store.errors import Corrupt, FlightbagError
from store.format.entries import MAX_ENTRIES
from store.format.ids import DIGEST_SIZE, BuildKey, ObjectId

# The files in which a confined process asks, and its parent answers.
WANTED, SUPPLIED = "wanted", "supplied.json"
# A plan has at most so many entries, and asks for a few steps before them.
_MAX_KEYS = 2 * MAX_ENTRIES
_LIMIT_SIZE = 8
WANTED_LIMIT = _MAX_KEYS * (_LIMIT_SIZE + DIGEST_SIZE)


@dataclass(frozen=True, slots=True)
class Offer:
    """The objects of a record of the cache, which are in the store, and the kids that signed it, in hex."""

    objects: StoredObjects
    by: tuple[str, ...]


# Given each key that a plan asked for, and the most bytes that it can be built to, or 0 where the store has it, returns
# what the cache offers for those that the store lacks.
Ask: TypeAlias = Callable[[Mapping[BuildKey, int]], Mapping[BuildKey, Offer]]


@dataclass(slots=True)
class Supply:
    """The offers of a cache, each until it is taken or refused. `refused` says why."""

    ask: Ask
    offers: dict[BuildKey, Offer] = field(default_factory=dict)
    refused: dict[BuildKey, FlightbagError] = field(default_factory=dict)

    def refuse(self, key: BuildKey, error: FlightbagError) -> None:
        """Drop an offer that is not what its key asks for."""
        self.offers.pop(key, None)
        self.refused[key] = error


def wanted_to_bytes(asked: Mapping[BuildKey, int]) -> bytes:
    """Return a question as the bytes of a file: of each key the limit in 8 bytes, big-endian, and the key."""
    return b"".join(limit.to_bytes(_LIMIT_SIZE, "big") + key for key, limit in asked.items())


def wanted_from_bytes(data: bytes) -> dict[BuildKey, int]:
    """Return the question in the bytes of a confined process. Raise Corrupt for bytes that are none."""
    step = _LIMIT_SIZE + DIGEST_SIZE
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    if len(data) > WANTED_LIMIT or any(len(one) != step for one in pieces):
        text = "the confined process asked the shared cache for something else than build keys"
        raise Corrupt(text, remedy="report this as a defect", kind="failed")
    return {BuildKey(one[_LIMIT_SIZE:]): int.from_bytes(one[:_LIMIT_SIZE], "big") for one in pieces}


def offers_to_json(offers: Mapping[BuildKey, Offer]) -> dict[str, Any]:
    """Return offers as JSON can hold them."""
    return {
        str(key): {"objects": [[str(id_), size] for id_, size in one.objects], "by": list(one.by)}
        for key, one in offers.items()
    }


def offers_from_json(value: Mapping[str, Any]) -> dict[BuildKey, Offer]:
    """Return the offers that `offers_to_json` wrote."""
    return {
        BuildKey.parse(key): Offer(tuple((ObjectId.parse(id_), size) for id_, size in one["objects"]), tuple(one["by"]))
        for key, one in value.items()
    }
