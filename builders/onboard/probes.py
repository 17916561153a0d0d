"""Probes: a few views as the engine takes them, with the rows that the map has of them (FORMAT.md 6.6).

`probe` compares the engine that flies with the map that it flies over, on the ground and aboard:

    >>> from builders.onboard.probes import probe
    >>> agreement = probe(mission, "embedder")
    >>> agreement.name, agreement.holds, agreement.queries
    ('fidelity/embedder', True, 8)

A probe is an object of a mission: canonical safetensors of `images` U8 [n, height, width, 3], already of the size that
the backbone takes, `tiles` U64 [n] and `descriptors` [n, d]; its metadata are those of a shard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.shard import Descriptors
from builders.descriptors.tensors import read_tensors, write_tensors
from builders.engines.backends import backend
from builders.engines.failures import failure
from builders.onboard.flying import FlyingEngine, batches_of, card_of, engine_of, sets_of
from builders.onboard.loading import open_engine
from builders.onboard.measurement import Measurement
from builders.recipe import PROBE_SCHEMA, SHARD_SCHEMA, RowRecipe
from store.errors import Corrupt, NotFound
from store.format.entries import Entry
from store.format.host import contradicted
from store.format.manifest import PPM
from store.takeoff.fidelity import fidelity_recipe
from store.takeoff.loading import load
from store.takeoff.mission import VerifiedMission

# Views of a probe; fewer where the area has fewer.
ROWS = 8


@dataclass(frozen=True)
class Probe:
    """`images` uint8 [n, height, width, 3]; `origins` uint64[n] and `rows` [n, d] as the shards have them.

    Law: `Probe.parse(one.render())` equals the probe `one`, and only what `render` writes parses.
    """

    recipe: RowRecipe
    images: NDArray[np.uint8]
    origins: NDArray[np.uint64]
    rows: Descriptors

    def render(self) -> bytes:
        """Return the bytes of the object."""
        metadata = {**self.recipe.metadata(), "schema": PROBE_SCHEMA}
        return write_tensors({"images": self.images, "tiles": self.origins, "descriptors": self.rows}, metadata)

    @classmethod
    def parse(cls, data: bytes | bytearray | memoryview) -> Probe:
        """Return the probe in `data`. Raises Corrupt for bytes that `render` does not write."""
        arrays, metadata = read_tensors(data)
        if arrays.keys() != {"images", "tiles", "descriptors"} or metadata.get("schema") != PROBE_SCHEMA:
            raise Corrupt(
                f"a probe holds images, tiles and descriptors with schema {PROBE_SCHEMA}; these bytes do not",
                kind="bad-probe",
            )
        recipe = RowRecipe.of_metadata({**metadata, "schema": SHARD_SCHEMA})
        images, origins, rows = (arrays[name] for name in ("images", "tiles", "descriptors"))
        shapes = images.ndim == 4 and images.shape[3] == 3 and rows.ndim == 2 and origins.ndim == 1
        if not shapes or not len(images) == len(origins) == len(rows) >= 1 or images.dtype != np.uint8:
            raise Corrupt("the arrays of the probe differ in their number of views, or have none", kind="bad-probe")
        return cls(recipe, images, origins, rows)

    def fidelity(self, engine: FlyingEngine) -> float:
        """Return the least cosine, -1..1, between the engine's descriptor of a view and the row that the map has of it.

        Raises Corrupt where the engine's descriptors have another length than the rows, and as `describe` does.
        """
        described = engine.describe(list(self.images)).astype(np.float64)
        rows = self.rows.astype(np.float64)
        if described.shape != rows.shape:
            raise Corrupt(
                f"a descriptor of the engine has {described.shape[1]} numbers, a row of the map has {rows.shape[1]}",
                kind="bad-probe",
            )
        lengths = np.linalg.norm(described, axis=1) * np.linalg.norm(rows, axis=1)
        if not lengths.all():
            return 0.0
        return float(((described * rows).sum(axis=1) / lengths).min())


def probe(mission: VerifiedMission, set_: str) -> Measurement:
    """Return how well the engine that flies agrees with the map: the figure `fidelity/<set>`, measured on this machine.

    The engine describes the images of the set's signed probe; the value is the least cosine between a descriptor and
    the row of the same view, in parts per million. `holds` is the answer. Raises NotFound for a set that has no probe,
    Refused for an unproven figure where this machine is not of the class that the mission was verified for, and as
    `open_engine` and `FlyingEngine.describe` do.
    """
    entry = mission.table.find(f"probes/{set_}.safetensors")
    if entry is None or entry.key is None:
        raise NotFound(
            f"mission {mission.facts.id} has no probe of the descriptor set {set_}",
            remedy=f"its descriptor sets are {', '.join(sets_of(mission)) or 'none'}",
            set=set_,
        )
    views = Probe.parse(load(mission, entry.name, kind="probe"))
    engine = engine_of(mission, set_, views.recipe)
    recipe = fidelity_recipe(entry.key, engine.key) if engine.key is not None else b""
    if mission.host is not None and any(one.recipe == recipe for one in mission.manifest.unproven):
        _require_aboard(engine, mission.host)
    flying = FlyingEngine(
        open_engine(mission, engine.meta["backbone"]), views.recipe, batches_of(card_of(mission, engine))
    )
    value = int(max(views.fidelity(flying), 0.0) * PPM)
    return Measurement.of(mission, f"fidelity/{set_}", value, recipe, {}, len(views.images))


def _require_aboard(engine: Entry, host: str) -> None:
    """Raise Refused where the backend of an engine knows that this machine is not of the class `host`: what it shows
    here, it does not show aboard."""
    machine = backend(engine.meta["backend"]).describe_host()
    if other := contradicted(machine, host):
        raise failure(
            "wrong-host",
            f"the aircraft has {' and '.join(other)}, and this machine is {machine}: it proves nothing for that one",
            remedy="run the probe on the aircraft's computer; if this is it, enrol the aircraft again with its class "
            "(flightbag aircraft enrol --again)",
            host=host,
        )


def probe_sets(mission: VerifiedMission) -> list[Measurement]:
    """Return `probe` of every descriptor set. Raises NotFound for a mission without any: nothing would be compared."""
    sets = sets_of(mission)
    if not sets:
        raise NotFound(f"mission {mission.facts.id} has no descriptor sets, so no engine can be probed")
    return [probe(mission, set_) for set_ in sets]
