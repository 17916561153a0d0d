"""The composition root: it connects the tile sources and backends of a mission file to a store."""

from __future__ import annotations

import datetime
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache as cached
from pathlib import Path

import numpy as np
from blake3 import blake3

from builders.activity import doing
from builders.areas.covering import tiles_of_area
from builders.descriptors.embed import Description
from builders.descriptors.preprocess import LAYOUTS, Preprocess
from builders.engines.backends import backend as backend_of
from builders.engines.base import EngineBackend, EngineSpec, InputRange, Plugin, Reference
from builders.engines.check import TOLERANCES, Tolerance
from builders.engines.compiling import CompileSettings
from builders.engines.graph import FixedInput
from builders.engines.isolation import Limits, usable_memory
from builders.engines.model import ModelSource, hash_model, make_compilable, session_source, snapshot_model
from builders.engines.providers import Device, device_of
from builders.files import read_pieces
from builders.grid.tiles import rows_and_columns
from builders.grid.views import View
from builders.imagery.coverage import Gates
from builders.imagery.inventory import Inventory, LevelRequest, SourceSpec, TileSources, cells_of, cells_over
from builders.imagery.statcache import StatCache
from builders.mission.reader import load_mission
from builders.mission.schema import Backbone, Descriptors, MissionFile, Target, TensorRt, TensorRtRtx, scaled
from builders.mission.tiles import specs_of
from builders.recipe import RowRecipe
from builders.retrieval.self_retrieval import LEAST
from store.errors import Corrupt, Invalid, Refused, Unavailable
from store.format.area import Area
from store.format.manifest import Takeoff
from store.ground.repository import Repository

# Tiles in one run of the session. More of them take more memory and, on a CPU, more time a tile (`make bench`).
EMBED_BATCH = 4
# The same on another device, which has more to do at once; where its memory runs out, half of it.
DEVICE_BATCH = 64


@dataclass(frozen=True)
class BuildContext:
    """An open mission file: all that a plan or a build works with.

    `specs` are the backbones, and `variants`, by the names of a backbone and a backend, the same with the options of
    the backend.
    """

    path: Path
    mission: MissionFile
    area: Area
    takeoff: Takeoff
    notes: tuple[str, ...]
    store: Repository | None
    sources: TileSources
    against: TileSources | None
    cache: Path
    backends: dict[str, EngineBackend]
    specs: dict[str, EngineSpec]
    variants: dict[tuple[str, str], EngineSpec]
    compile_settings: CompileSettings
    _snapshot: Callable[[Path, tuple[FixedInput, ...]], ModelSource]

    @property
    def repository(self) -> Repository:
        """The store of the build. Only `explain-key` opens a mission file without one, and does not ask."""
        assert self.store is not None
        return self.store

    def backend(self, backbone: Backbone, target: Target) -> EngineBackend:
        """Return the backend that compiles a backbone for a target."""
        return self.backends[target.backend or backbone.backend]

    def spec(self, backbone: Backbone, target: Target) -> EngineSpec:
        """Return what that backend compiles."""
        return self.variants[backbone.name, target.backend or backbone.backend]

    def tolerance(self, precision: str) -> Tolerance:
        """Return how far an engine of this precision may be from its source."""
        given = self.mission.tolerances.get(precision)  # type: ignore[call-overload] # precisions are a closed list
        if given is None:
            return TOLERANCES[precision]
        return Tolerance(float(given.relative_error), float(given.cosine))

    def self_retrieval(self, precision: str) -> Decimal:
        """Return the least share of its own map that an engine of this precision must find first."""
        given = self.mission.tolerances.get(precision)  # type: ignore[call-overload] # precisions are a closed list
        if given is None or given.self_retrieval is None:
            return Decimal(str(LEAST[precision]))
        share: Decimal = given.self_retrieval
        return share

    def set_of(self, backbone: str) -> Descriptors | None:
        """Return the descriptor set whose preprocessing makes inputs of this backbone: the first of its sets."""
        return next((set_ for set_ in self.mission.descriptors if set_.backbone == backbone), None)

    def preprocess_of(self, set_: Descriptors) -> Preprocess:
        """Return the preprocessing of a descriptor set; the layout is that of the backbone's input, unless the mission
        file names one."""
        keys = set_.preprocess
        layouts = keys.layouts(self.specs[set_.backbone].inputs[0].shape)
        return Preprocess(
            resize=keys.resize,
            colour=keys.colour,
            scale=keys.scale,
            mean=tuple(map(float, keys.mean)),
            std=tuple(map(float, keys.std)),
            filter=keys.filter,
            layout=keys.layout or (layouts[0] if layouts else LAYOUTS[0]),
        )

    @contextmanager
    def about(self, key: str) -> Iterator[None]:
        """Name the mission file and the key in every Invalid, Refused and Unavailable that the block raises, but for
        those that name the file and a nearer key."""
        try:
            yield
        except (Invalid, Refused, Unavailable) as error:
            if error.message.startswith(f"{self.path}: "):
                raise
            raise error.restated(f"{self.path}: {key}: {error.message}") from error

    def view(self, set_: Descriptors, zoom: int) -> View:
        """Return the view that a row of a descriptor set shows at a zoom. Metres hold in the middle of the area."""
        if set_.view is None:
            return View()
        with self.about(f"descriptors[{self.mission.descriptors.index(set_)}].view"):
            if set_.view.tiles is not None:
                return View(set_.view.tiles, set_.view.stride or 1)
            metres, overlap = float(set_.view.metres or 0), float(set_.view.overlap or 0)
            return View.of_metres(metres, overlap, zoom, self.area.middle_latitude)

    def rows(self, set_: Descriptors, zoom: int) -> RowRecipe:
        """Return how the rows of a descriptor set are made at a zoom."""
        view, backbone = self.view(set_, zoom), self.specs[set_.backbone]
        return RowRecipe(
            salt=backbone.salt,
            model=backbone.model.digest,
            output=set_.output,
            preprocess=self.preprocess_of(set_).fields(),
            tile_size=self.mission.coverage.tile_size,
            view=(view.tiles, view.stride),
            dtype=set_.dtype,
            normalise=set_.normalise,
            pool=set_.pool or "none",
            numeric=self.device(set_).numeric,
        )

    def device(self, set_: Descriptors) -> Device:
        """Return what describes the views of a descriptor set."""
        with self.about(f"descriptors[{self.mission.descriptors.index(set_)}].device"):
            return device_of(set_.device, set_.numeric)

    def wanted(self) -> dict[int, LevelRequest]:
        """Return what a build needs to know of the tile sources, by zoom: the area's tiles, and the cells that hold
        every tile of the views over them and of all views of their cells."""
        wanted = {}
        for zoom in self.sources.zooms:
            with self.about("mission.area"):
                required = tiles_of_area(self.area, zoom)
            cells = [cells_of(zoom, required)]
            for view in {self.view(set_, zoom) for set_ in self.mission.descriptors}:
                # Recall is measured with the surroundings of single tiles too.
                if view != View() or self.mission.quality.sample:
                    cells.append(cells_over(zoom, view, required))
            wanted[zoom] = LevelRequest(required, np.unique(np.concatenate(cells)))
        return wanted

    def inventory(self, progress: Callable[[str, int, int], None], *, remembered: bool = False) -> Inventory:
        """Return what the tile sources have of the area. Reads every tile, unless what was read before may be believed
        (`remembered`) and no source has changed since."""
        return self.sources.inventory(self.wanted(), lambda n: progress("reading tiles", n, 0), remembered=remembered)

    def gates(self, now: int) -> Gates:
        """Return what the mission file demands of the tiles; `now` is unix seconds."""
        keys = self.mission.coverage
        return Gates(
            tile_size=keys.tile_size,
            required_ppm=scaled(keys.at_least, 6),
            repeated=keys.repeated == "allowed",
            max_age_days=self.mission.freshness.max_age_days if self.mission.freshness is not None else None,
            min_resolution_mm=None if keys.min_resolution_m is None else scaled(keys.min_resolution_m, 3),
            now=now,
        )

    def about_set(self, set_: Descriptors) -> AbstractContextManager[None]:
        """Name the mission file and the descriptor set in every Invalid and Refused that the block raises."""
        return self.about(f"descriptors[{self.mission.descriptors.index(set_)}]")

    def description(self, set_: Descriptors, view: View) -> Description:
        """Return how the views of a descriptor set are described: by its backbone, on its device."""
        spec, device = self.private(set_.backbone), self.device(set_)
        batch = min(EMBED_BATCH, max((i.opt or 1 for i in spec.inputs), default=1))
        if not device.is_cpu:
            batch = min(DEVICE_BATCH, max((i.max or i.opt or 1 for i in spec.inputs), default=1))
        return Description(
            session_source(spec.model.path),
            set_.output,
            self.preprocess_of(set_),
            batch,
            view,
            self.mission.coverage.tile_size,
            set_.normalise,
            set_.pool or "none",
            device,
        )

    def private(self, backbone: str) -> EngineSpec:
        """Return the spec of a backbone with a private copy of its model, hashed while it was copied, in the form in
        which it runs (`make_compilable`): the model that is compiled and run is the one in the build keys. Raise
        Corrupt if it is not the planned one any more."""
        spec = self.specs[backbone]
        with doing(f"reading the model {spec.model.path}"), self.about(f"backbones[{backbone}]"):
            model = self._snapshot(spec.model.path, spec.fixed)
        if model.digest != spec.model.digest:
            raise Corrupt(
                f"the model {spec.model.path} changed during the build",
                remedy="build again when no program writes to the model",
                path=str(spec.model.path),
            )
        return replace(spec, model=model)


@contextmanager
def open_context(
    mission_file: Path,
    store: str | os.PathLike[str] | None,
    cache: Path,
    progress: Callable[[str, int, int], None] = lambda _activity, _done, _total: None,
    loaded: Callable[[str, Limits], None] = lambda _mission, _limits: None,
    placed: Callable[[Area, Takeoff], None] = lambda _area, _takeoff: None,
) -> Iterator[BuildContext]:
    """Open everything that the mission file names. Writes nothing to the store, which may be None where only build keys
    are needed. `cache` is the user's cache folder. `progress` gets the MiB of models that are read, `loaded` the id of
    the mission and its limits, before anything is opened that the mission file names, and `placed` its area and its
    takeoff, before anything is opened but the files that state these.

    Raises Invalid for a mission file with mistakes, Unavailable for a backend that this installation lacks.
    """

    def limits_of(mission: MissionFile) -> Limits:
        memory = mission.compile.memory_mib
        return Limits(memory * 2**20 if memory else usable_memory(), mission.compile.timeout_s)

    mission, area, takeoff, notes = load_mission(mission_file, lambda one: loaded(one.mission.id, limits_of(one)))
    placed(area, takeoff)
    try:
        rows_and_columns(area.bbox, 0)
    except Invalid as error:
        raise error.restated(f"{mission_file}: mission.area: {error.message}") from error
    with ExitStack() as stack:
        repository = stack.enter_context(Repository.open(store)) if store is not None else None
        stat_cache = StatCache(cache / "tiles")
        sources = stack.enter_context(
            TileSources(specs_of(mission.tiles), mission.coverage.tile_size, area.bbox, stat_cache)
        )
        against = None
        if mission.quality.against is not None:
            scheme = mission.quality.against_scheme
            other = SourceSpec(mission.quality.against, sources.zooms, datetime.date(1970, 1, 1), scheme=scheme)
            against = stack.enter_context(TileSources([other], mission.coverage.tile_size, area.bbox, stat_cache))
        specs = {one.name: _spec(one, lambda: progress("reading models (MiB)", 1, 0)) for one in mission.backbones}
        variants: dict[tuple[str, str], EngineSpec] = {}
        for one in mission.backbones:
            for backend in {target.backend or one.backend for target in mission.target}:
                variants[one.name, backend] = _with_options(specs[one.name], one, backend)
        backends: dict[str, EngineBackend] = {name: backend_of(name) for _, name in variants}

        @cached
        def snapshot(model: Path, fixed: tuple[FixedInput, ...]) -> ModelSource:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="flightbag-"))
            copy = snapshot_model(model, Path(folder) / "model", fixed)
            make_compilable(copy.path, fixed)
            return copy

        compile_settings = CompileSettings(limits_of(mission), cache)
        yield BuildContext(
            mission_file,
            mission,
            area,
            takeoff,
            notes,
            repository,
            sources,
            against,
            cache,
            backends,
            specs,
            variants,
            compile_settings,
            snapshot,
        )


def _with_options(spec: EngineSpec, backbone: Backbone, backend: str) -> EngineSpec:
    """Return the spec with the backbone's options and plug-ins for a backend."""
    if backend == "tensorrt-rtx":
        return replace(spec, options=dict(backbone.tensorrt_rtx or TensorRtRtx()))
    if backend != "tensorrt":
        return replace(spec, options={"mode": backbone.mode or "portable"})
    table = backbone.tensorrt or TensorRt()
    # Key fields know no booleans.
    options = {key: int(value) if isinstance(value, bool) else value for key, value in table if key != "plugins"}
    plugins = tuple(Plugin(path, _digest(path, "plug-in library")) for path in table.plugins)
    return replace(spec, options=options, plugins=plugins)


def _spec(backbone: Backbone, progress: Callable[[], None]) -> EngineSpec:
    inputs = sorted(backbone.inputs.items())
    fixed = tuple(FixedInput(name, tuple(i.shape), i.value) for name, i in inputs if i.value is not None)
    reference = None
    if backbone.reference is not None:
        reference = Reference(backbone.reference, _digest(backbone.reference, "reference"))
    with doing(f"reading the model {backbone.model}"):
        model = hash_model(backbone.model, progress, fixed)
    return EngineSpec(
        backbone=backbone.name,
        model=model,
        precision=backbone.precision,
        inputs=tuple(InputRange(name, tuple(i.shape), i.min, i.opt, i.max) for name, i in inputs if i.value is None),
        salt=backbone.salt,
        fixed=fixed,
        compare=backbone.compare,
        reference=reference,
    )


def _digest(path: Path, what: str) -> bytes:
    hasher = blake3()
    for piece in read_pieces(path, what):
        hasher.update(piece)
    return hasher.digest()
