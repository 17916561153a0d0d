"""The engine that flies: from camera frames to descriptors, as the rows of a descriptor set were made.

>>> from builders.onboard.flying import flying_engine
>>> engine = flying_engine(mission, "embedder")
>>> engine.describe([frame]).shape
(1, 32)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.outputs import rows_of
from builders.descriptors.preprocess import Preprocess
from builders.descriptors.shard import read_shard
from builders.engines.base import EngineSession
from builders.engines.card import CARD_LIMIT, Card
from builders.onboard.camera import check_frame
from builders.onboard.loading import engine_aboard, open_engine
from builders.recipe import RowRecipe
from store.errors import Corrupt, Invalid, NotFound
from store.format.entries import Entry
from store.format.manifest import FIDELITY
from store.takeoff.engines import Engine, engines_of
from store.takeoff.fidelity import fidelity_recipe
from store.takeoff.loading import load
from store.takeoff.mission import VerifiedMission


class FlyingEngine:
    """An engine that describes images in the way of a row recipe: of a verified mission, or of a build before its
    mission is signed.

    `batches` is (least, most): how many images one run of the engine takes. Raises Invalid for an engine with more than
    one input, without the recipe's output, or whose input does not hold the numbers of the recipe's preprocessing.
    """

    def __init__(self, session: EngineSession, recipe: RowRecipe, batches: tuple[int, int]) -> None:
        self.recipe = recipe
        self.preprocess = Preprocess.of_fields(recipe.preprocess)
        self._session = session
        self._batches = batches
        inputs, outputs = ([tensor.name for tensor in tensors] for tensors in (session.inputs, session.outputs))
        if len(inputs) != 1 or recipe.output not in outputs:
            raise Invalid(
                f"the engine has the inputs {', '.join(inputs)} and the outputs {', '.join(outputs)}; to describe "
                f"images, it needs one input and the output {recipe.output}"
            )
        self._input = session.inputs[0]
        self.preprocess.require_dtype(self._input.dtype)

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return float32 [n, d]: the descriptors of n >= 1 images, each uint8 [height, width, 3], RGB, of any size.

        The whole of an image is taken for the ground of a row of the map, north up, whatever its sides; `view_of` cuts
        that out of a frame. RGB and BGR cannot be told apart: BGR gives other descriptors. Raises Invalid for other
        images, and for descriptors that are not finite or, where the recipe scales them to length 1, zero; Invalid and
        Unavailable as `EngineSession.run` does.
        """
        if isinstance(images, np.ndarray) and images.ndim == 3:
            raise Invalid(
                f"an engine describes a list of images, and got one array {list(images.shape)}",
                remedy="put the image into a list: describe([image])",
            )
        for image in images:
            check_frame(image, "an image")
        if not len(images):
            raise Invalid("an engine describes one image or more, and got none", remedy="give an image")
        least, most = self._batches
        rows = []
        for start in range(0, len(images), most):
            part = [self.preprocess.tensor(image) for image in images[start : start + most]]
            tensor = np.stack(part + [part[-1]] * (least - len(part))).astype(self._input.dtype)
            output = self._session.run({self._input.name: tensor})[self.recipe.output]
            rows.append(rows_of(output, self.recipe.output, len(tensor), self.recipe.pool)[: len(part)])
        descriptors: NDArray[np.float32] = np.concatenate(rows)
        if self.recipe.normalise == "l2":
            descriptors = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
        if not np.isfinite(descriptors).all():
            raise Invalid("the engine gives descriptors that are not finite", kind="wrong-output")
        return descriptors


def flying_engine(mission: VerifiedMission, set_: str) -> FlyingEngine:
    """Return the engine of a mission that describes camera frames for a descriptor set, ready to run here.

    Raises NotFound where the mission has no such set or no engine that flies for it, and as `open_engine` does.
    """
    recipe = recipe_of(mission, set_)
    entry = engine_of(mission, set_, recipe)
    return FlyingEngine(open_engine(mission, entry.meta["backbone"]), recipe, batches_of(card_of(mission, entry)))


def sets_of(mission: VerifiedMission) -> list[str]:
    """Return the names of the mission's descriptor sets, ascending."""
    return sorted({entry.name.split("/")[1] for entry in mission.table.entries if entry.kind == "descriptors"})


def engine_of(mission: VerifiedMission, set_: str, recipe: RowRecipe) -> Entry:
    """Return the engine that flies here for a set: of the engines of its model whose fidelity is signed, or is to be
    proven aboard, the one of `engine_aboard`. Raises NotFound where there is none, and as `engine_aboard` does."""
    name, manifest = f"{FIDELITY}{set_}", mission.manifest
    signed = {figure.recipe for figure in manifest.quality if figure.name == name}
    signed |= {figure.recipe for figure in manifest.unproven if figure.name == name}
    probe = mission.table.find(f"probes/{set_}.safetensors")

    def model(engine: Engine) -> Entry | None:
        """The model of an engine of the set, None for another engine."""
        if probe is None or probe.key is None or fidelity_recipe(probe.key, engine.key) not in signed:
            return None
        parts = (one for one in engine.entries if one.meta["part"] == "model" and one.meta["model"] == recipe.model)
        return next(parts, None)

    for backbone, engines in engines_of(mission.table.entries).items():
        if any(model(engine) for engine in engines) and (entry := model(engine_aboard(mission, backbone))):
            return entry
    raise NotFound(
        f"mission {mission.facts.id} has no engine with a signed fidelity to the descriptor set {set_}", set=set_
    )


def recipe_of(mission: VerifiedMission, set_: str, zoom: int | None = None) -> RowRecipe:
    """Return how the rows of a descriptor set were made, at a zoom or at its first. Raises NotFound where the mission
    has no such rows."""
    for entry in mission.table.entries:
        if entry.kind == "descriptors":
            _, name, at, _ = entry.name.split("/")
            if name == set_ and zoom in (None, int(at)):
                return RowRecipe.of_metadata(read_shard(load(mission, entry.name, kind="descriptors")).metadata)
    names = [entry.name.split("/") for entry in mission.table.entries if entry.kind == "descriptors"]
    zooms = sorted({parts[2] for parts in names if parts[1] == set_})
    if zooms:
        raise NotFound(
            f"mission {mission.facts.id} has no descriptor set {set_} at zoom {zoom}",
            remedy=f"it has the set at zoom {', '.join(zooms)}",
            set=set_,
        )
    raise NotFound(
        f"mission {mission.facts.id} has no descriptor set {set_}",
        remedy=f"its descriptor sets are {', '.join(sets_of(mission)) or 'none'}",
        set=set_,
    )


def card_of(mission: VerifiedMission, engine: Entry) -> Card:
    """Return the card of an engine of the mission. Raises NotFound, Corrupt."""
    for entry in mission.table.entries:
        if entry.kind == "card" and entry.meta["engine"] == engine.name:
            if entry.size > CARD_LIMIT:
                break
            return Card.parse(load(mission, entry.name, kind="card"))
    raise NotFound(f"mission {mission.facts.id} has no card of {engine.name}", entry=engine.name)


def batches_of(card: Card) -> tuple[int, int]:
    """Return (least, most): how many images one run of this engine takes. The engine was checked at both."""
    sizes = [shape[0] for case in card.check.cases for shape in case.shapes.values()]
    if not sizes:
        raise Corrupt("the engine's card names no shape that the engine was checked at", kind="bad-card")
    return min(sizes), max(sizes)
