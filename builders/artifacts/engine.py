"""Engines, under `engines/`, and their cards, under `cards/`. Work units: quantise a network, compile a model for a
host class.

Each engine is built once per key across processes, in a process of its own, checked against its source, and recorded.
An int8 engine is compiled from a quantised network, which has a key of its own and does not fly.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from builders.activity import doing
from builders.artifacts.executor import Executor, LocalExecutor, Needs, Packed, Travel, Work
from builders.artifacts.store import ArtifactStore, only
from builders.artifacts.supply import Supply
from builders.artifacts.task import Lookup, Progress, StoredObject, StoredObjects, silent
from builders.bounded import values_in
from builders.compose import BuildContext
from builders.descriptors.decoding import Undecodable, decode, resized
from builders.engines.base import EngineBackend, EngineSpec, not_here, require_target
from builders.engines.card import CARD_LIMIT, Card, EngineRecipes
from builders.engines.check import Tolerance, check_ends, require_author, require_tolerance
from builders.engines.compiling import (
    CompiledEngine,
    CompileSettings,
    HashedFile,
    compile_engine,
    compiled_engine,
    engine_result,
    quantise_network,
)
from builders.engines.failures import failure
from builders.engines.model import session_source
from builders.engines.precision import CalibrationSet, caster_version, quantiser_version
from builders.engines.recipe import engine_recipe, quantised_recipe
from builders.engines.session import open_session
from builders.grid.live import find
from builders.grid.tiles import tile_from_id
from builders.imagery.inventory import Inventory
from builders.mission.schema import Backbone, Calibration, Target
from builders.mission.schema import Descriptors as DescriptorSet
from builders.recipe import Recipe, tile_list
from builders.report import EngineReport, PlanRow
from store.disk.media import object_path
from store.disk.objects import read_chunks
from store.errors import Corrupt, FlightbagError, Invalid, Refused, Unavailable
from store.format.cbor import Value
from store.format.entries import Entry, kind_of, most_bytes
from store.format.host import class_of, fit, is_host_class
from store.format.ids import BuildKey, ObjectId
from store.format.release import Approval
from store.ground.repository import Repository
from store.ground.writer import writing

_MAX_SEGMENT = 64
# Of the JSON that says what an engine is: an inspector lists its layers.
_MAX_VALUES = 1_000_000
# The most bytes of an engine of a shared cache: the weights in several layouts, and what is beside them.
_MOST_COPIES, _MOST_BESIDE = 4, 64 * 2**20
# An engine of a network that finds nothing in noise is checked on so many tiles.
_CHECKED_TILES = 8


@dataclass(frozen=True, slots=True)
class TargetHost:
    """A target of the mission file: `key` is its place there, `host` its class."""

    key: str
    file: Target
    host: str


@dataclass(frozen=True, slots=True)
class QuantiseTask:
    """A network in int8 that an engine is compiled from. `tiles` uint64[n], ascending, are the ids of the calibration
    tiles; `set` says how a tile becomes an input."""

    recipe: Recipe
    set: DescriptorSet
    method: str
    tiles: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class EngineTask:
    """An engine that the mission needs.

    `name` is the engine's. `host` is the need (FORMAT 4.5) that it is compiled for, `need` the one that its card has,
    or `host` where the store has no engine. `targets` are those of the mission file that it is for. `present` are the
    engine's objects, if the store has them: its card, the engine, and its weights where they are in a file of their
    own.
    """

    most_entries: ClassVar[int] = 3

    name: str
    recipe: Recipe
    backend: EngineBackend
    spec: EngineSpec
    host: str
    need: str
    targets: tuple[TargetHost, ...]
    step: QuantiseTask | None
    present: StoredObjects | None

    @property
    def aboard(self) -> bool:
        """Whether each aircraft may prove that it equals the map, where no machine has measured that."""
        return all(target.file.proof == "aboard" for target in self.targets)

    @property
    def elsewhere(self) -> str:
        """Why this machine does not run the engine, "" where it does."""
        return not_here(self.backend, self.need)

    @property
    def recipes(self) -> EngineRecipes:
        """The recipes that its build key is made of."""
        return EngineRecipes(self.recipe, {"quantised": self.step.recipe} if self.step is not None else {})

    @property
    def names(self) -> tuple[str, str, str]:
        """Of its entries, ascending, which is the order in a build record: card, engine, and weights if it has such."""
        folder, _, file = self.name.removeprefix("engines/").rpartition("/")
        stem = file.removesuffix(self.backend.suffix)
        return f"cards/{folder}/{stem}.json", self.name, f"engines/{folder}/{stem}.weights"

    @property
    def most_bytes(self) -> int:
        return sum(map(most_bytes, self.names))

    @property
    def complete(self) -> bool:
        return self.present is not None

    @property
    def objects(self) -> Mapping[str, StoredObject]:
        return dict(zip(self.names, self.present or (), strict=False))

    @property
    def identities(self) -> Mapping[str, bytes]:
        """Which files an engine has is known when it is in the store."""
        return {name: bytes(self.recipe.key) for name in self.objects}

    @property
    def approvals(self) -> Iterator[Approval]:
        """The approvals that a release must give, where the trust root requires releases."""
        for name, (id_, size) in self.objects.items():
            if kind_of(name) == "engine":
                yield Approval(name, "engine", id_, size, self.need)

    def row(self) -> PlanRow:
        size = sum(size for _, size in self.present) if self.present is not None else None
        hosts = tuple(target.host for target in self.targets)
        return PlanRow(self.name, str(self.recipe.key), self.complete, size, hosts=hosts)


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine that is in the store, with its card."""

    task: EngineTask
    card: Card
    seconds: float | None

    @property
    def stored(self) -> StoredObjects:
        """Its objects, as in `EngineTask.present`."""
        return self.task.present or ()

    @property
    def figures(self) -> dict[str, float] | None:
        check = self.card.check
        return None if self.seconds is None else {"max_abs_error": check.worst.max_abs_error, "cosine": check.cosine}

    def entries(self) -> Iterator[Entry]:
        task = self.task
        for name, (id_, size) in task.objects.items():
            meta: dict[str, Any] = {"engine": task.name}
            if kind_of(name) == "engine":
                meta = {
                    "backbone": task.spec.backbone,
                    "backend": task.backend.name,
                    "host": task.need,
                    "model": task.spec.model.digest,
                    "part": "model" if name == task.name else "weights",
                    "precision": task.spec.precision,
                }
            yield Entry(name, id_, size, task.recipe.key, meta)


# -- what the mission needs


def target_hosts(context: BuildContext) -> tuple[TargetHost, ...]:
    """Return the targets of the mission file, ascending by class; "auto" is as much of this machine's as the engines
    depend on. Raise Invalid where two are one class."""
    several = len(context.mission.target) > 1
    targets: dict[str, TargetHost] = {}
    for number, file in enumerate(context.mission.target):
        key = f"target[{number}]" if several else "target"
        host: str = file.host
        if host == "auto":
            with context.about(f"{key}.host"):
                parts = {
                    part
                    for backbone in context.mission.backbones
                    for part in context.backend(backbone, file).target(context.spec(backbone, file)).split("+")
                }
            # Of `cpu-x86_64` and `cpu-x86_64-avx2` the second says it all.
            host = "+".join(sorted(part for part in parts if not any(other.startswith(part + "-") for other in parts)))
        assert is_host_class(host)
        if host in targets:
            raise Invalid(
                f"{context.path}: {key}.host is {host} on this machine, which {targets[host].key} names too",
                remedy="leave one of the two out",
            )
        targets[host] = TargetHost(key, file, host)
    return tuple(targets[host] for host in sorted(targets))


def engine_tasks(
    context: BuildContext, targets: Sequence[TargetHost], inventory: Inventory | None, lookup: Lookup
) -> tuple[EngineTask, ...]:
    """Return the engines of each backbone: one for each target, and one for all targets with the same build key. Only
    int8 needs the inventory."""
    tasks: dict[tuple[str, BuildKey], EngineTask] = {}
    for backbone in context.mission.backbones:
        for target in targets:
            task = engine_task(context, backbone, target, inventory, lookup)
            same = tasks.get((backbone.name, task.recipe.key))
            others = () if same is None else same.targets
            tasks[backbone.name, task.recipe.key] = replace(task, targets=(*others, target))
    return tuple(tasks.values())


def engine_task(
    context: BuildContext, backbone: Backbone, target: TargetHost, inventory: Inventory | None, lookup: Lookup
) -> EngineTask:
    """Return the engine of a backbone, for a target. Only int8 needs the inventory."""
    backend, spec = context.backend(backbone, target.file), context.spec(backbone, target.file)
    with context.about(f"{target.key}.host"), doing(f"reading the model {spec.model.path}"):
        need = backend.engine_host(spec, target.host)
    step = None
    if backbone.precision == "int8":
        assert inventory is not None
        step = _quantise_task(context, backbone, inventory)
        spec = replace(spec, quantised=bytes(step.recipe.key))
    caster = caster_version() if spec.precision == "fp16" else ""
    recipe = engine_recipe(spec, need, fields := backend.key_fields(spec, need), caster)
    version = str(fields["version"])
    name = engine_name(backbone.name, backend.name, version, class_of(need), spec.precision, backend.suffix)
    task = EngineTask(name, recipe, backend, spec, need, need, (target,), step, lookup(recipe.key))
    if task.present is None:
        return task
    card = card_of(context.repository, task, task.present)
    return with_card(context, task, card) if card is not None else replace(task, present=None)


def with_card(context: BuildContext, task: EngineTask, card: Card) -> EngineTask:
    """Return the task with the need that its engine has by its card. Raise Invalid where a target lacks something."""
    for target in task.targets:
        with context.about(f"{target.key}.host"):
            require_target(f"the engine of {task.spec.backbone}", card.need, target.host, _reason(card))
    return replace(task, need=card.need)


def _reason(card: Card) -> str:
    """Return what in the engine needs the version of its library, as its backend says it; "" where it says nothing."""
    needs = card.inspector.get("needs") if isinstance(card.inspector, dict) else None
    return needs if isinstance(needs, str) else ""


def card_of(repository: Repository, task: EngineTask, objects: StoredObjects) -> Card | None:
    """Return the card of these objects (card, model[, weights]), if they are the engine of the task and were checked at
    the shapes, by the outputs, and against the reference that it asks for; None otherwise (decision 0011)."""
    if len(objects) not in (2, 3):
        return None
    try:
        card = Card.parse(repository.evidence.object(objects[0][0], CARD_LIMIT))
    except Unavailable:
        raise
    except FlightbagError:
        return None
    checked = [{name: tuple(shape) for name, shape in case.shapes.items()} for case in card.check.cases]
    if not card.describes(task.recipe.key, objects[1:]) or checked != [dict(case) for case in task.spec.cases()]:
        return None
    outputs, reference = task.spec.compare or tuple(name for name, *_ in card.outputs), task.spec.reference
    if not set(outputs) <= set(card.check.outputs):
        return None
    if reference is not None and (card.check.author is None or card.check.author.digest != reference.digest.hex()):
        return None
    return card


def judge(context: BuildContext, task: EngineTask, card: Card) -> None:
    """Raise Refused where the engine of a card is further from its source than the mission file allows now."""
    with context.about(f"backbones[{task.spec.backbone}]"):
        require_tolerance(card.check, context.tolerance(task.spec.precision))
        if task.spec.reference is not None:
            require_author(card.check.author, context.tolerance)


def explained(context: BuildContext, name: str, host: str | None = None, progress: Progress = silent) -> EngineTask:
    """Return the engine of one backbone for the target with this class, which may be None where the backbone has one
    engine, with its key. Raise Invalid for a backbone or class that the mission file lacks."""
    backbone = next((one for one in context.mission.backbones if one.name == name), None)
    if backbone is None:
        names = ", ".join(backbone.name for backbone in context.mission.backbones)
        raise Invalid(f"{context.path} has no backbone {name!r}", remedy=f"name one of {names}")
    inventory = context.inventory(progress) if backbone.precision == "int8" else None
    targets = target_hosts(context)
    asked = [target for target in targets if host in (None, target.host)]
    tasks = {
        task.recipe.key: task
        for task in (engine_task(context, backbone, one, inventory, lambda _key: None) for one in asked)
    }
    if len(tasks) != 1:
        what = f"{len(tasks)} engines" if tasks else f"no target {host}"
        classes = ", ".join(target.host for target in targets)
        raise Invalid(
            f"{context.path} has {what} for the backbone {name}", remedy=f"name a target with --host: {classes}"
        )
    return next(iter(tasks.values()))


def _quantise_task(context: BuildContext, backbone: Backbone, inventory: Inventory) -> QuantiseTask:
    """Return the step before an int8 engine. The calibration tiles are spread evenly over the tiles of the area, by
    tile id: equal areas of equal imagery have equal ones."""
    wishes = backbone.calibration or Calibration()
    ids, hashes = _spread_tiles(inventory, wishes.tiles)
    if not len(ids):
        raise failure(
            "calibration", f"{context.path}: the sources have no tile in the area to calibrate {backbone.name} with"
        )
    set_ = context.set_of(backbone.name)
    assert set_ is not None  # the reader demands one for int8
    recipe = quantised_recipe(
        salt=backbone.salt,
        model=context.specs[backbone.name].model.digest,
        method=wishes.method,
        tool=quantiser_version(),
        preprocess=context.preprocess_of(set_).fields(),
        tiles=tile_list(ids, hashes),
    )
    return QuantiseTask(recipe, set_, wishes.method, ids)


def _spread_tiles(inventory: Inventory, most: int) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Return the ids uint64[n], ascending, and hashes uint8[n, 32] of up to `most` tiles, spread evenly over those of
    the area that the sources have."""
    ids = np.concatenate([level.required[level.present] for level in inventory.levels])
    hashes = np.concatenate([level.required_hashes[level.present] for level in inventory.levels])
    count = min(most, len(ids))
    places = np.unique(np.arange(count) * len(ids) // max(count, 1))
    return ids[places], hashes[places]


def engine_name(backbone: str, backend: str, version: str, host: str, precision: str, suffix: str) -> str:
    """Return `engines/<backbone>/<backbone>__<backend><version>__<host>__<precision><suffix>`.

    The folder already says which backbone, so the file does not where that would be longer than a segment may be; then
    a host class that is too long is cut, with some of its hash.
    """
    # Weights lie beside the engine under the longer suffix.
    room = _MAX_SEGMENT - max(len(suffix), len(".weights"))

    def named(host: str) -> str:
        return f"{backend}{version}__{host}__{precision}".replace("+", "_").lower()

    short = f"{host.split('+')[0][:16]}-{blake3(host.encode()).hexdigest()[:8]}"
    names = (f"{backbone}__{named(host)}", named(host), named(short))
    return f"engines/{backbone}/{next((name for name in names if len(name) <= room), names[-1])}{suffix}"


# -- the work units


@dataclass(frozen=True, slots=True)
class CompileRequest:
    """A model to compile for a host class, in a process of its own.

    The spec names the model by path and digest: on another machine its files lie elsewhere. The parts of the result are
    files in a new folder under `workdir`, with the ids of their bytes. An int8 engine is compiled from the bytes of
    `quantised`. The engine is checked on `rows`, or on noise.
    """

    backend: EngineBackend
    spec: EngineSpec
    host: str
    tolerance: Tolerance
    settings: CompileSettings
    workdir: Path
    quantised: Path | None = None
    rows: CalibrationSet | None = None


@dataclass(frozen=True, slots=True)
class QuantiseRequest:
    """A network to quantise; model and workdir as in `CompileRequest`."""

    spec: EngineSpec
    method: str
    settings: CompileSettings
    workdir: Path
    calibration: CalibrationSet


def compile_unit(request: CompileRequest, progress: Progress) -> CompiledEngine:
    """Return the engine of a request, checked. Raises as `compile_engine`."""
    return compile_engine(
        request.backend,
        request.spec,
        request.host,
        request.workdir,
        tolerance=request.tolerance,
        settings=request.settings,
        progress=progress,
        quantised=request.quantised,
        rows=request.rows,
    )


def quantise_unit(request: QuantiseRequest, progress: Progress) -> tuple[HashedFile, float]:
    """Return (the network of a request in int8, the seconds it took). Raises as `quantise_network`."""
    return quantise_network(
        request.spec,
        request.calibration,
        request.method,
        request.workdir,
        settings=request.settings,
        progress=progress,
    )


def _pack(engine: CompiledEngine) -> Packed:
    return json.dumps([engine_result(engine), engine.log]), [part.path.read_bytes() for part in engine.parts]


def _reader(request: CompileRequest) -> Callable[[Any, Sequence[bytes]], CompiledEngine]:
    def read(value: Any, parts: Sequence[bytes]) -> CompiledEngine:
        if values_in(value.encode()) > _MAX_VALUES or len(parts) not in (1, 2):
            raise ValueError("too many values or parts for an engine")
        result, log = json.loads(value)
        folder = Path(tempfile.mkdtemp(prefix="engine-", dir=request.workdir))
        files = {}
        for name, data in zip(("model", "weights"), parts, strict=False):
            (folder / name).write_bytes(data)
            files[name] = {"path": str(folder / name), "digest": ObjectId.of(data).hex()}
        return compiled_engine({**result, "parts": files}, request.tolerance, str(log))

    return read


def _same(request: CompileRequest) -> Mapping[str, Value]:
    caster = caster_version() if request.spec.precision == "fp16" else ""
    return {**request.backend.key_fields(request.spec, request.host), "caster": caster}


def _needs(request: CompileRequest) -> Needs:
    return Needs(host=request.host, waits=True)


def _files(request: CompileRequest) -> Mapping[Path, Sequence[str]]:
    spec = request.spec
    alone = [plugin.path for plugin in spec.plugins]
    alone += [spec.reference.path] if spec.reference is not None else []
    alone += [request.quantised] if request.quantised is not None else []
    return {spec.model.path: spec.model.external, **dict.fromkeys(alone, ())}


COMPILE = Work(compile_unit, travel=Travel(_pack, _reader, _same, _needs, files=_files))
QUANTISE = Work(quantise_unit)


# -- building


def check_model(context: BuildContext, task: EngineTask) -> None:
    """Raise Invalid, naming the mission file, unless the model of an engine loads, and has the inputs and outputs that
    the mission file declares: what its compilation checks first."""
    path = task.spec.model.path
    try:
        with doing(f"loading the model {path}"):
            private = context.private(task.spec.backbone).model.path
            check_ends(open_session(session_source(private), "off", name=path.name), task.spec, path.name)
    except Invalid as error:
        message = error.message.removeprefix(f"{context.path}: ")
        raise error.restated(f"{context.path}: {message}") from error


@dataclass
class EngineBuilder:
    """Builds the engines of a mission file into a store. Only int8 needs the inventory."""

    context: BuildContext
    store: ArtifactStore
    inventory: Inventory | None
    executor: Executor
    progress: Progress = silent

    def engine(self, task: EngineTask) -> BuiltEngine:
        """Return the engine, from the store if it has it, else built now.

        Raise Refused where it is further from its source than the mission file allows, also if it was built under
        another tolerance.
        """
        if (engine := self.present(task)) is None:
            self._require_made_here(task)
            try:
                # Before the engine's lock: a process holds one at a time.
                quantised = self.quantised(task)
                with self.store.key_lock(task.recipe.key):
                    # Somebody else may have built it while this process waited.
                    engine = self.present(task) or self._build(task, quantised)
            except OSError as error:
                what = (
                    f"a file that {task.spec.backbone} is built from or to cannot be read or written: {error.strerror}"
                )
                raise Unavailable(
                    what, remedy="free some space in the store", path=error.filename, errno=error.errno
                ) from error
        judge(self.context, task, engine.card)
        return engine

    def present(self, task: EngineTask) -> BuiltEngine | None:
        """Return the engine as the store has it; None where it, its card or a part of it is absent or damaged."""
        objects = self.store.lookup(task.recipe.key)
        card = card_of(self.store.writer.repository, task, objects) if objects is not None else None
        if card is None:
            return None
        return BuiltEngine(replace(with_card(self.context, task, card), present=objects), card, None)

    def _require_made_here(self, task: EngineTask) -> None:
        """Raise Refused where no machine that the executor has makes the engine."""
        if why := self.executor.makes(task.backend, task.host):
            what = f"nothing here makes the engine of {task.spec.backbone}"
            order = f"flightbag engines order {self.context.path} --store {self.store.writer.repository.media.path}"
            remedy = f"run `{order}`, and fulfil the order on a machine like the aircraft's"
            raise failure("wrong-host", f"{self.context.path}: {what}: {why}", remedy=remedy)

    def judge_offers(self, tasks: Sequence[EngineTask]) -> None:
        """Take those of these engines that a shared cache offers and that are what they must be: by their cards, as of
        a result of a device (FORMAT.md 5.3). A quantised network, which does not fly, is judged by the engine of it."""
        for task in tasks:
            self.store.judge_offer(task.recipe.key, partial(self._check_offer, task))
            if task.step is not None:
                self.store.judge_offer(task.step.recipe.key, only)

    def _check_offer(self, task: EngineTask, objects: StoredObjects) -> None:
        card = card_of(self.store.writer.repository, task, objects)
        if card is None:
            text = "its card is none of the engine that the key asks for, as the mission file has it checked"
            raise Corrupt(text, kind="bad-card")
        if not card.proven:
            raise failure("unproven", "by its card, nothing has run the engine")
        if lost := fit(card.need, task.host).lacking:
            raise Corrupt(f"the engine needs {card.need}, and not {' and '.join(lost)}", kind="bad-card")
        for target in task.targets:
            if lacking := fit(target.host, card.need).lacking:
                raise failure("wrong-host", f"the engine needs {' and '.join(lacking)}, which {target.host} has not")
        judge(self.context, task, card)

    def _build(self, task: EngineTask, quantised: ObjectId | None) -> BuiltEngine:
        """Compile, check and insert the engine, behind its key's lock."""
        spec, start = task.spec, time.monotonic()
        with self.store.inserting() as batch, self.context.about(f"backbones[{spec.backbone}]"):
            folder = Path(batch.folder())
            network = None
            if quantised is not None:
                network = folder / "quantised.onnx"
                network.write_bytes(self._object(quantised))
            request = CompileRequest(
                task.backend,
                spec,
                task.host,
                self.context.tolerance(spec.precision),
                self.context.compile_settings,
                folder,
                network,
                self._rows(spec, task.step.set, task.step.tiles) if task.step is not None else None,
            )
            with doing(f"compiling the model {spec.model.path}"):
                compiled = self._compiled(request)
            parts = {part.name: batch.add(read_chunks(str(part.path)), expect=part.id) for part in compiled.parts}
            card = self._card(task, compiled, {name: [str(one.id), one.size] for name, one in parts.items()})
            added = [batch.add_bytes(card.render()), *(parts[name] for name in ("model", "weights") if name in parts)]
            batch.commit()
        seconds = time.monotonic() - start
        tools = f"{task.backend.name} {task.backend.version}"
        self.store.remember({task.recipe.key: (tuple(one.id for one in added), seconds)}, tools)
        task = with_card(self.context, task, card)
        return BuiltEngine(replace(task, present=tuple((one.id, one.size) for one in added)), card, seconds)

    def _compiled(self, request: CompileRequest) -> CompiledEngine:
        """Compile, and check on tiles of the area where the network finds nothing in noise, as those that look for
        points do."""
        label = f"compiling {request.spec.backbone}"
        try:
            return self.executor.run_one(COMPILE, request, self._phases(label))
        except Refused as error:
            if error.kind != "empty-output" or request.rows is not None:
                raise
            if (rows := self._spread_rows(request.spec)) is None:
                raise
        return self.executor.run_one(COMPILE, replace(request, rows=rows), self._phases(f"{label}, checked on tiles"))

    def _spread_rows(self, spec: EngineSpec) -> CalibrationSet | None:
        """Return tiles of the area as inputs of the network; None where no descriptor set says how, or the area has
        none."""
        set_ = self.context.set_of(spec.backbone)
        if set_ is None:
            return None
        if self.inventory is None:
            self.inventory = self.context.inventory(self.progress)
        ids, _ = _spread_tiles(self.inventory, _CHECKED_TILES)
        return self._rows(spec, set_, ids) if len(ids) else None

    def checked_rows(self, task: EngineTask, finds_nothing: bool) -> CalibrationSet | None:
        """Return what an engine that is made elsewhere is checked on, None for noise: the calibration tiles for int8,
        and tiles of the area for a network that finds nothing in noise."""
        if task.step is not None:
            return self._rows(task.spec, task.step.set, task.step.tiles)
        return self._spread_rows(task.spec) if finds_nothing else None

    def _card(self, task: EngineTask, compiled: CompiledEngine, parts: Mapping[str, Any]) -> Card:
        return Card(
            recipe=task.recipe,
            steps=task.recipes.steps,
            parts=parts,
            need=compiled.need,
            inputs=compiled.inputs,
            outputs=compiled.outputs,
            check=compiled.check,
            tolerance=self.context.tolerance(task.spec.precision),
            tools=compiled.tools,
            inspector=compiled.inspector,
            seconds=round(compiled.seconds, 3),
        )

    def quantised(self, task: EngineTask) -> ObjectId | None:
        """Return the network in int8, from the store or quantised now; None for an engine of another precision."""
        spec, step = task.spec, task.step
        if step is None:
            return None
        key = step.recipe.key
        with self.store.key_lock(key):
            if (objects := self.store.lookup(key)) is not None:
                return objects[0][0]
            with self.store.inserting() as batch, self.context.about(f"backbones[{spec.backbone}]"):
                calibration = self._rows(spec, step.set, step.tiles)
                settings = self.context.compile_settings
                request = QuantiseRequest(spec, step.method, settings, Path(batch.folder()), calibration)
                label = f"quantising {spec.backbone}"
                with doing(f"quantising the model {spec.model.path}"):
                    part, seconds = self.executor.run_one(QUANTISE, request, self._phases(label))
                added = batch.add(read_chunks(str(part.path)), expect=part.id)
                batch.commit()
            self.store.remember({key: ((added.id,), seconds)}, str(step.recipe.fields["tool"]))
            return added.id

    def _rows(self, spec: EngineSpec, set_: DescriptorSet, tiles: NDArray[np.uint64]) -> CalibrationSet:
        """Return these tiles as rows of the network's input. The tiles that were planned are read."""
        assert self.inventory is not None
        preprocess = self.context.preprocess_of(set_)
        rows = []
        for level in self.inventory.levels:
            wanted = tiles[find(level.required, tiles)[0]]
            for number, data in self.context.sources.read_again(level, wanted):
                try:
                    with doing("decoding tile", number):
                        rows.append(preprocess.tensor(resized(np.asarray(decode(data)), preprocess)))
                except Undecodable as error:
                    what = f"the calibration tile {tile_from_id(number)} of {spec.backbone} cannot be decoded"
                    raise failure("calibration", f"{what}: {error.message}") from error
        return CalibrationSet(np.stack(rows))

    def _object(self, id_: ObjectId) -> bytes:
        repository = self.store.writer.repository
        return self.store.read(id_, repository.media.stamp(object_path(id_)).size)

    def _phases(self, label: str) -> Progress:
        """Pass on how far each phase of a worker is, under one label."""
        reached: dict[str, int] = {}

        def progress(phase: str, now: int, total: int) -> None:
            self.progress(f"{label}: {phase}", max(now - reached.get(phase, 0), 0), total)
            reached[phase] = now

        return progress


def build_engines(
    context: BuildContext,
    *,
    now: int,
    progress: Progress = silent,
    supply: Supply | None = None,
    executor: Executor | None = None,
) -> list[EngineReport]:
    """Build the engines of a mission file and nothing else; one whose building fails does not keep the others back.
    `supply` is what a shared cache offers.

    They are in the store under their keys, for the missions to come. Takes no mission's lock. Raises, before anything
    is built, where a key cannot be computed, such as for a backend that is not installed.
    """
    with writing(context.repository) as writer:
        store, targets = ArtifactStore(writer, now, supply), target_hosts(context)
        calibrated = any(backbone.precision == "int8" for backbone in context.mission.backbones)
        inventory = context.inventory(progress) if calibrated else None
        tasks = engine_tasks(context, targets, inventory, store.lookup)
        builder = EngineBuilder(context, store, inventory, executor or LocalExecutor(), progress)
        if supply is not None:
            look_up_steps(store, tasks)
            if store.take_supply(limits(tasks)):
                builder.judge_offers(tasks)
        return [_report(builder, task) for task in tasks]


def look_up_steps(store: ArtifactStore, tasks: Sequence[EngineTask]) -> None:
    """Look up what missing engines are compiled from: planning asks for the engines alone."""
    for task in tasks:
        if task.step is not None and not task.complete:
            store.lookup(task.step.recipe.key)


def limits(tasks: Sequence[EngineTask]) -> dict[BuildKey, int]:
    """Return the most bytes that a shared cache may send for each engine and each int8 network: one with more is made
    here."""
    most = {}
    for task in tasks:
        network = _MOST_COPIES * task.spec.model.size + _MOST_BESIDE
        most[task.recipe.key] = CARD_LIMIT + network
        if task.step is not None:
            most[task.step.recipe.key] = network
    return most


def _report(builder: EngineBuilder, task: EngineTask) -> EngineReport:
    about = (task.spec.backbone, task.name, str(task.recipe.key))
    try:
        one = builder.engine(task)
    except FlightbagError as error:
        return EngineReport(*about, "failed", error=error)
    size = sum(size for _, size in one.stored[1:])
    return EngineReport(*about, "reused" if one.seconds is None else "built", size, one.seconds, one.card)
