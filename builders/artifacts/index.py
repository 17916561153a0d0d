"""Building approximate indexes into a store, from the rows of the map that a search may find; each once per key."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from builders.artifacts.engine import ArtifactStore
from builders.artifacts.plan import BuiltIndex, IndexTask, Progress
from builders.onboard import ann
from builders.onboard.layers import MapLayer
from builders.recipe import Recipe
from store.errors import Refused
from store.format.ids import ObjectId


@dataclass
class IndexBuilder:
    """Builds indexes with a workbench."""

    artifacts: ArtifactStore
    progress: Progress

    def build(self, task: IndexTask, layer: MapLayer) -> BuiltIndex:
        """The index of a layer, from the store or built now. Raises Refused for a layer without rows."""
        rows, dim = 0, 0
        for origins, found in layer.rows():
            rows, dim = rows + len(origins), found.shape[1]
        if not rows:
            raise Refused(
                f"the index {task.name} would have no rows", remedy=f"leave out zoom {layer.zoom}, or the index"
            )
        start = time.monotonic()
        quantiser = None
        data = b""
        made_one = made_two = False
        if task.quantiser is not None:
            nlist = int(task.quantiser.fields["lists"])
            quantiser, data, made_one = self._keyed(task.quantiser, lambda: ann.train_quantiser(layer.rows, dim, nlist))
            index, _, made_two = self._keyed(task.recipe, lambda: ann.build_ivf(data, layer.rows(), dim), read=False)
        else:
            index, _, made_two = self._keyed(task.recipe, lambda: ann.build_hnsw(layer.rows(), dim), read=False)
        self.progress("indexing", 1, 0)
        seconds = time.monotonic() - start if made_one or made_two else None
        return BuiltIndex(index, quantiser, rows, dim, seconds)

    def _keyed(
        self, recipe: Recipe, make: Callable[[], bytes], *, read: bool = True
    ) -> tuple[tuple[ObjectId, int], bytes, bool]:
        """((object id, size), bytes if they are asked for, whether it was made now)."""
        key = recipe.key
        with self.artifacts.key_lock(key):
            if (found := self.artifacts.lookup(key)) is not None:
                return found[0], self.artifacts.read(*found[0]) if read else b"", False
            start = time.monotonic()
            data = make()
            with self.artifacts.writer.inserting() as batch:
                added = batch.add_bytes(data)
                batch.commit()
            self.artifacts.remember({key: ((added.id,), time.monotonic() - start)}, ann.version())
            return (added.id, added.size), data, True
