"""The composition root: wires a mission file's sources, backends and locks to a store. Nothing else constructs them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache as cached
from pathlib import Path

from blake3 import blake3

from builders.descriptors.embed import Embedder
from builders.descriptors.inventory import SourceSpec, TileSources
from builders.descriptors.preprocess import Preprocess
from builders.engines.backends import backend as backend_of
from builders.engines.base import EngineBackend, EngineSpec, InputRange, Plugin
from builders.engines.check import TOLERANCES, Tolerance
from builders.engines.compiling import Surroundings
from builders.engines.isolation import Limits, machine_memory
from builders.engines.model import ModelSource, hash_model, onnx_bytes, snapshot_model
from builders.mission_file import Backbone, Descriptors, MissionFile, TensorRt
from builders.mission_reader import load_mission
from store.errors import Corrupt, Invalid, Refused
from store.format.cbor import Value
from store.objects import read_chunks
from store.repository import Repository


@dataclass(frozen=True)
class Workshop:
    """A mission file, opened: what a plan or a build works with."""

    path: Path
    mission: MissionFile
    store: Repository | None
    sources: TileSources
    backends: dict[str, EngineBackend]
    specs: dict[str, EngineSpec]
    surroundings: Surroundings
    _snapshot: Callable[[Path], ModelSource]

    @property
    def repository(self) -> Repository:
        """The store that is built into, or would be."""
        assert self.store is not None  # whoever asks was given one
        return self.store

    def backend(self, backbone: Backbone) -> EngineBackend:
        return self.backends[backbone.backend]

    def tolerance(self, precision: str) -> Tolerance:
        """How far an engine of this precision may be from its source."""
        given = self.mission.tolerances.get(precision)  # type: ignore[call-overload] # precisions are a closed list
        if given is None:
            return TOLERANCES[precision]
        return Tolerance(float(given.relative_error), float(given.cosine))

    def preprocess(self, backbone: str) -> Descriptors:
        """The descriptor set that says how a tile becomes an input of this backbone: the first that has it."""
        return next(set_ for set_ in self.mission.descriptors if set_.backbone == backbone)

    @contextmanager
    def about(self, key: str) -> Iterator[None]:
        """Names the mission file and the key in whatever is Invalid or Refused in the block."""
        try:
            yield
        except (Invalid, Refused) as error:
            raise type(error)(f"{self.path}: {key}: {error.message}", remedy=error.remedy, **error.fields) from error

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
def workshop(mission_file: Path, store: str | os.PathLike[str] | None, cache: Path) -> Iterator[Workshop]:
    """Opens everything that the mission file names. Writes nothing to the store, which only keys alone do
    without. `cache` is the user's cache directory.

    Raises Invalid for a mission file with mistakes, Unavailable for a backend that this version does not have.
    """
    mission = load_mission(mission_file)
    with ExitStack() as stack:
        repository = stack.enter_context(Repository.open(store)) if store is not None else None
        sources = stack.enter_context(TileSources([SourceSpec(t.source, t.zooms, t.captured) for t in mission.tiles]))
        backends: dict[str, EngineBackend] = {b.backend: backend_of(b.backend) for b in mission.backbones}
        specs = {backbone.name: _spec(backbone) for backbone in mission.backbones}
        memory = mission.compile.memory_mib
        limits = Limits(memory * 2**20 if memory else machine_memory(), mission.compile.timeout_s)

        @cached
        def snapshot(model: Path) -> ModelSource:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="flightbag-"))
            return snapshot_model(model, Path(folder) / "model")

        surroundings = Surroundings(limits, cache)
        yield Workshop(mission_file, mission, repository, sources, backends, specs, surroundings, snapshot)


def _spec(backbone: Backbone) -> EngineSpec:
    options: Mapping[str, Value]
    plugins: tuple[Plugin, ...] = ()
    if backbone.backend == "tensorrt":
        table = backbone.tensorrt or TensorRt()
        # Key fields know no booleans.
        options = {key: int(value) if isinstance(value, bool) else value for key, value in table if key != "plugins"}
        plugins = tuple(Plugin(path, _digest(path)) for path in table.plugins)
    else:
        options = {"mode": backbone.mode or "portable"}
    return EngineSpec(
        backbone=backbone.name,
        model=hash_model(backbone.model),
        precision=backbone.precision,
        inputs=tuple(
            InputRange(name, tuple(i.shape), i.min, i.opt, i.max) for name, i in sorted(backbone.inputs.items())
        ),
        salt=backbone.salt,
        options=options,
        plugins=plugins,
    )


def _digest(path: Path) -> bytes:
    hasher = blake3()
    for chunk in read_chunks(str(path)):
        hasher.update(chunk)
    return hasher.digest()


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
