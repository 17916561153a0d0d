"""The composition root: wires a mission file's sources, backends and locks to a store. Nothing else constructs them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from builders.descriptors.embed import Embedder
from builders.descriptors.inventory import SourceSpec, TileSources
from builders.descriptors.preprocess import Preprocess
from builders.engines.base import (
    EngineBackend,
    EngineSpec,
    InputRange,
    ModelSource,
    hash_model,
    onnx_bytes,
    snapshot_model,
)
from builders.engines.onnxruntime import OnnxRuntimeBackend
from builders.mission_file import Backbone, Descriptors, MissionFile
from builders.mission_reader import load_mission
from store.errors import Corrupt, Invalid, Unavailable
from store.repository import Repository

BACKENDS: dict[str, Callable[[], EngineBackend]] = {"onnxruntime": OnnxRuntimeBackend}


@dataclass(frozen=True)
class Workshop:
    """A mission file, opened: what a plan or a build works with."""

    path: Path
    mission: MissionFile
    repository: Repository
    sources: TileSources
    backends: dict[str, EngineBackend]
    specs: dict[str, EngineSpec]
    _snapshot: Callable[[Path], ModelSource]

    def backend(self, backbone: Backbone) -> EngineBackend:
        return self.backends[backbone.backend]

    @contextmanager
    def about(self, key: str) -> Iterator[None]:
        """Names the mission file and the key in whatever is Invalid in the block."""
        try:
            yield
        except Invalid as error:
            raise Invalid(f"{self.path}: {key}: {error.message}", remedy=error.remedy, **error.fields) from error

    def embedder(self, set_: Descriptors) -> Embedder:
        """What describes the tiles of a descriptor set: its backbone, in a session of the CPU."""
        with self.about(f"descriptors[{self.mission.descriptors.index(set_)}]"):
            spec = self.private(set_.backbone)
            batch = max((i.opt or 1 for i in spec.inputs), default=1)
            return Embedder(onnx_bytes(spec.model), set_.output, preprocess_of(set_), batch)

    def private(self, backbone: str) -> EngineSpec:
        """The spec with a private copy of its model, hashed while it was copied: what is compiled and run is what is
        in the keys. Raises Corrupt if the model is no longer what was planned."""
        spec = self.specs[backbone]
        model = self._snapshot(spec.model.path)
        if model.digest != spec.model.digest:
            raise Corrupt(
                f"the model {spec.model.path} changed while the mission was being built",
                remedy="build again when nothing writes to it",
                path=str(spec.model.path),
            )
        return replace(spec, model=model)


@contextmanager
def workshop(mission_file: Path, store: str | os.PathLike[str]) -> Iterator[Workshop]:
    """Opens everything that the mission file names. Writes nothing to the store.

    Raises Invalid for a mission file with mistakes, Unavailable for a backend that this version does not have.
    """
    mission = load_mission(mission_file)
    with ExitStack() as stack:
        repository = stack.enter_context(Repository.open(store))
        sources = stack.enter_context(TileSources([SourceSpec(t.source, t.zooms, t.captured) for t in mission.tiles]))
        backends: dict[str, EngineBackend] = {b.backend: _backend(b.backend) for b in mission.backbones}
        specs = {
            backbone.name: EngineSpec(
                backbone=backbone.name,
                model=hash_model(backbone.model),
                precision=backbone.precision,
                inputs=tuple(
                    InputRange(name, tuple(i.shape), i.min, i.opt, i.max) for name, i in sorted(backbone.inputs.items())
                ),
            )
            for backbone in mission.backbones
        }

        @cache
        def snapshot(model: Path) -> ModelSource:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="flightbag-"))
            return snapshot_model(model, Path(folder) / "model")

        yield Workshop(mission_file, mission, repository, sources, backends, specs, snapshot)


def preprocess_of(set_: Descriptors) -> Preprocess:
    """The preprocessing that a descriptor set of the mission file asks for."""
    keys = set_.preprocess
    mean, std = (tuple(float(v) for v in triple) for triple in (keys.mean, keys.std))
    return Preprocess(
        resize=keys.resize,
        colour=keys.colour,
        scale=keys.scale,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        filter=keys.filter,
    )


def _backend(name: str) -> EngineBackend:
    make = BACKENDS.get(name)
    if make is None:
        raise Unavailable(
            f"the backend {name} is not part of this version",
            remedy='set backend = "onnxruntime", which runs anywhere',
            kind="no-backend",
        )
    return make()
