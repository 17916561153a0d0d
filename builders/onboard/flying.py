"""The engine that flies, as what describes images: of a verified mission, or of a store before its mission is
signed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.preprocess import Preprocess
from builders.descriptors.shard import read_shard
from builders.engines.base import EngineSession
from builders.engines.card import CARD_LIMIT, Card
from builders.onboard.loading import open_engine
from builders.recipe import RowRecipe, fidelity_recipe
from store.errors import Corrupt, Invalid, NotFound
from store.format.entries import Entry
from store.takeoff.loading import load
from store.takeoff.mission import VerifiedMission


class FlyingEngine:
    """Descriptors by an engine, of images as a row recipe takes them.

    `batches` is (least, most) images that a run of the engine takes. Raises Invalid for an engine with more than one
    input, or without the recipe's output.
    """

    def __init__(self, session: EngineSession, recipe: RowRecipe, batches: tuple[int, int]) -> None:
        self.recipe = recipe
        self.preprocess = Preprocess.of_fields(recipe.preprocess)
        self._session = session
        self._batches = batches
        if len(session.inputs) != 1 or recipe.output not in {output.name for output in session.outputs}:
            ends = ", ".join(end.name for end in (*session.inputs, *session.outputs))
            raise Invalid(f"an engine that describes has one input, and the output {recipe.output}; this has {ends}")
        self._input = session.inputs[0]

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """float32 [n, d] of n >= 1 images, uint8 [height, width, 3], RGB, of any size. Raises Invalid, Unavailable as
        the engine does, and Invalid for descriptors that are not finite or, where they have length 1, zero."""
        least, most = self._batches
        rows = []
        for start in range(0, len(images), most):
            part = [self.preprocess.tensor(image) for image in images[start : start + most]]
            tensor = np.stack(part + [part[-1]] * (least - len(part))).astype(self._input.dtype)
            result = self._session.run({self._input.name: tensor})[self.recipe.output]
            rows.append(np.asarray(result, np.float32).reshape(len(tensor), -1)[: len(part)])
        found: NDArray[np.float32] = np.concatenate(rows)
        if self.recipe.normalise == "l2":
            found = found / np.linalg.norm(found, axis=1, keepdims=True)
        if not np.isfinite(found).all():
            raise Invalid("the engine gives descriptors that are not finite", kind="wrong-output")
        return found


def flying_engine(mission: VerifiedMission, set_: str) -> FlyingEngine:
    """The engine of a mission that describes camera frames for a descriptor set, ready to run here.

    Raises NotFound for a set that the mission has not, or one of which no engine flies, and what `open_engine` raises.
    """
    recipe = recipe_of(mission, set_)
    entry = engine_of(mission, set_, recipe)
    return FlyingEngine(open_engine(mission, entry.meta["backbone"]), recipe, batches_of(card_of(mission, entry)))


def engine_of(mission: VerifiedMission, set_: str, recipe: RowRecipe) -> Entry:
    """The engine of a set: of those of its model, the one whose fidelity was signed. Raises NotFound where there is
    none."""
    signed = next((one.recipe for one in mission.manifest.quality if one.name == f"fidelity/{set_}"), None)
    probe = mission.table.find(f"probes/{set_}.safetensors")
    for entry in mission.table.entries:
        mine = entry.kind == "engine" and entry.meta["part"] == "model" and entry.meta["model"] == recipe.model
        keys = (probe.key, entry.key) if mine and probe is not None else (None, None)
        if keys[0] is not None and keys[1] is not None and signed == fidelity_recipe(keys[0], keys[1]):
            return entry
    raise NotFound(
        f"mission {mission.facts.id} has no engine whose fidelity to the descriptor set {set_} was signed", set=set_
    )


def recipe_of(mission: VerifiedMission, set_: str, zoom: int | None = None) -> RowRecipe:
    """How the rows of a descriptor set came about, at a zoom or at its first. Raises NotFound where there are none."""
    for entry in mission.table.entries:
        if entry.kind == "descriptors":
            _, name, at, _ = entry.name.split("/")
            if name == set_ and zoom in (None, int(at)):
                return RowRecipe.of_metadata(read_shard(load(mission, entry.name, kind="descriptors")).metadata)
    sets = {e.name.split("/")[1] for e in mission.table.entries if e.kind == "descriptors"}
    zooms = {e.name.split("/")[2] for e in mission.table.entries if e.kind == "descriptors"}
    known = sorted(zooms if set_ in sets else sets) or ["none"]
    what = f"a descriptor set {set_}" + (f" at zoom {zoom}" if zoom is not None else "")
    raise NotFound(f"mission {mission.facts.id} has not {what}", remedy=f"it has {', '.join(known)}", set=set_)


def card_of(mission: VerifiedMission, engine: Entry) -> Card:
    """The card of an engine of the mission. Raises NotFound, Corrupt."""
    for entry in mission.table.entries:
        if entry.kind == "card" and entry.meta["engine"] == engine.name:
            if entry.size > CARD_LIMIT:
                break
            return Card.parse(load(mission, entry.name, kind="card"))
    raise NotFound(f"mission {mission.facts.id} has no card of {engine.name}", entry=engine.name)


def batches_of(card: Card) -> tuple[int, int]:
    """(least, most) images that a run of this engine takes: it was checked at both."""
    sizes = [shape[0] for case in card.check.cases for shape in case.shapes.values()]
    if not sizes:
        raise Corrupt("the card of the engine says nothing of its shapes", kind="bad-card")
    return min(sizes), max(sizes)
