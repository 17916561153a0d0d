"""A backbone without its training that describes pictures as the backbone of a descriptor set does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.network import Network
from builders.descriptors.preprocess import Preprocess
from builders.engines.untrained import untrained
from builders.extras import import_onnxruntime
from builders.recipe import RowRecipe
from store.errors import FlightbagError

_BATCH = 4


class UntrainedNetwork:
    """The network of a row recipe with other weights (`builders.engines.untrained`), in a session of the CPU.

    `model` gives the ONNX of the backbone `name`, weights inside, or its path where they are too large for that: then
    it has no untrained form. Nobody's mission depends on this network, so a failure of it stops nothing: `why` says
    what failed, and is "" until then."""

    def __init__(self, model: Callable[[], bytes | Path], name: str, recipe: RowRecipe) -> None:
        self.why = ""
        self._preprocess = Preprocess.of_fields(recipe.preprocess)
        self._network: Network | None = None
        try:
            source = model()
            if isinstance(source, Path):
                self.why = f"{name} is larger than the 2 GiB of one ONNX file, so it has no untrained form"
                return
            self._network = Network(untrained(source, name), recipe.output, self._preprocess, _BATCH, recipe.pool)
        except FlightbagError as error:
            self.why = error.message

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32] | None:
        """Return float32 [n, d]: a descriptor of each of n >= 1 images, each uint8 [height, width, 3]; None from the
        first failure on."""
        if self._network is None or self.why:
            return None
        least = self._network.batch
        tensors = np.zeros((-(-len(images) // least) * least, *self._preprocess.shape), np.float32)
        for number, image in enumerate(images):
            tensors[number] = self._preprocess.tensor(image)
        try:
            rows = self._network.run(tensors, len(images), import_onnxruntime().RunOptions())
        except FlightbagError as error:
            self.why = error.message
            return None
        if not np.isfinite(rows).all() or not rows.any(axis=1).all():
            self.why = "with other weights the network gives descriptors that are zero or not finite"
            return None
        return rows
