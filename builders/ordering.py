"""Orders for the engines of a mission file that this machine cannot make, or cannot hold against the map (FORMAT 6.9).

An order needs the probes, and so the map: both are made here, by the networks themselves. What a device has no tools
for is done here too: a network is cast, quantised, and brought into the form that compilers take.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from builders.activity import doing
from builders.artifacts.engine import EngineBuilder, EngineTask
from builders.artifacts.executor import Executor, LocalExecutor
from builders.artifacts.plan import Plan, make_plan
from builders.artifacts.probe import BuiltProbe, ProbeBuilder, ProbeTask
from builders.artifacts.shard import BuiltMap, ShardBuilder, ShardTask, forget_networks, origins_by_set
from builders.artifacts.store import ArtifactStore
from builders.artifacts.task import Progress, silent
from builders.compose import BuildContext
from builders.engines.check import check_ends, feeds_of, is_nothing, require_repeatable
from builders.engines.graph import irreproducible
from builders.engines.model import external_locations, parse_onnx, session_source
from builders.engines.precision import CalibrationSet, float16_copy
from builders.engines.session import open_session
from builders.imagery.coverage import shortfall, with_views
from builders.report import OrderReport, too_few_tiles
from store.disk.media import object_path
from store.disk.objects import Batch, read_chunks
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Refused, Unavailable
from store.format.cbor import encode
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import FIDELITY, PPM
from store.format.order import MAX_PROBES, MODEL, NANO, Order, OrderFile, OrderProbe
from store.ground.orders import accepted_result, open_order, ordered_here, read_order
from store.ground.writer import writing
from store.takeoff.fidelity import fidelity_recipe


def order_engines(context: BuildContext, *, now: int, progress: Progress = silent) -> list[OrderReport]:
    """Order every engine of a mission file that this machine cannot make or prove. Return a report for each engine.

    The map is built for its probes, and stays for the build. Takes no mission's lock. Raises as a build does.
    """
    with writing(context.repository) as writer:
        ordering = _Ordering(context, ArtifactStore(writer, now), LocalExecutor(), now, progress)
        try:
            return ordering.run()
        finally:
            forget_networks()


@dataclass(frozen=True)
class _Ordering:
    context: BuildContext
    store: ArtifactStore
    executor: Executor
    now: int
    progress: Progress

    def run(self) -> list[OrderReport]:
        plan = make_plan(self.context, self.store.lookup, self.progress, now=self.now, remembered=False)
        tasks = {task.recipe.key: task for task in plan.of(EngineTask)}
        reasons = {key: self.reason(plan, task) for key, task in tasks.items()}
        probes = self.probes(plan) if any(reasons.values()) else []
        reports = []
        for key, task in tasks.items():
            outcome = "ordered" if reasons[key] else "not needed"
            if reasons[key]:
                with self.context.about(f"backbones[{task.spec.backbone}]"), self.store.key_lock(key):
                    outcome = self.place(plan, task, probes)
            about = (task.spec.backbone, task.name, str(key), task.need)
            reports.append(OrderReport(*about, outcome, reasons[key]))
        return reports

    def reason(self, plan: Plan, task: EngineTask) -> str:
        """Return why an engine has to be ordered, "" if nothing of it is lacking, or can be made here."""
        if task.present is None:
            return task.backend.makes(task.host)
        if not (why := task.elsewhere):
            return ""
        root, asked = self.context.repository.trust_root().root, plan.of(ProbeTask)
        recipes = {
            fidelity_recipe(probe.recipe.key, task.recipe.key)
            for probe in asked
            if probe.set.backbone == task.spec.backbone
        }
        try:
            result = accepted_result(self.context.repository.evidence, task.recipe.key, root)
        except NotFound:
            return f"nothing has measured it: {why}"
        except FlightbagError as error:
            return f"{error.message}: {why}"
        proven = result.engine == task.present[1:] and recipes <= {figure.recipe for figure in result.figures}
        return "" if proven else f"nothing has measured it: {why}"

    def probes(self, plan: Plan) -> list[BuiltProbe]:
        """Return the probes of the mission, made of its map, which is built as a build of the mission would."""
        context = self.context
        shards = ShardBuilder(context, self.store, plan.inventory, self.executor, self.progress)
        if not plan.gates.allows(plan.shortfall.missing, plan.inventory.tiles):
            raise Refused(f"{context.path}: {too_few_tiles(plan.shortfall, plan.gates)}", kind="incomplete")
        shards.load(plan.of(ShardTask))
        built = shards.shards(plan.of(ShardTask))
        views = origins_by_set(plan.sets, ((one.task, one.origins) for one in built.values()))
        faults = {number: fault.reason for number, fault in shards.faults.items()}
        missing = with_views(shortfall(plan.inventory, plan.gates, faults), views)
        map_ = BuiltMap(self.store, plan.inventory, built, missing)
        map_.require_rows(plan.sets, context.path)
        builder = ProbeBuilder(context, self.store, map_)
        return [builder.build(task) for task in plan.of(ProbeTask)]

    def place(self, plan: Plan, task: EngineTask, probes: list[BuiltProbe]) -> str:
        """Insert the order of an engine and all that it names, and make its pointer lead to it. Return what became of
        it."""
        if task.spec.plugins:
            raise Invalid(
                f"the engine of {task.spec.backbone} has plug-ins, and code for a device is not carried in a store",
                remedy="build the engine on a machine like the aircraft's",
                kind="has-plugins",
            )
        builder = EngineBuilder(self.context, self.store, plan.inventory, self.executor, self.progress)
        quantised = builder.quantised(task)
        with self.store.inserting() as batch:
            order = self.order(task, probes, builder, quantised, batch)
            try:
                data = order.render()
            except Corrupt as error:  # nothing was read: the mission file has more than an order holds
                raise Invalid(f"the order would break the format: {error.message}") from error
            added = batch.add_bytes(data)
            batch.commit()
        repository = self.store.writer.repository
        return "ordered" if open_order(repository, order, added.id, now=self.now) else "already ordered"

    def order(
        self,
        task: EngineTask,
        probes: list[BuiltProbe],
        builder: EngineBuilder,
        quantised: ObjectId | None,
        batch: Batch,
    ) -> Order:
        spec, folder = self.context.private(task.spec.backbone), Path(batch.folder())
        source = _added(batch, spec.model.path)
        network = source
        if quantised is not None:
            size = self.store.writer.repository.media.stamp(object_path(quantised)).size
            network = (OrderFile(MODEL, quantised, size),)
        elif task.spec.precision == "fp16":
            with doing(f"casting the model {spec.model.path}"):
                float16_copy(spec.model.path, folder / "float16.onnx")
            network = _added(batch, folder / "float16.onnx")
        rows = builder.checked_rows(task, self.finds_nothing(task, spec.model.path))
        tolerance = self.context.tolerance(task.spec.precision)
        reference = task.spec.reference
        return Order(
            recipe=encode(dict(task.recipe.fields)),
            steps=tuple(sorted((name, encode(dict(step.fields))) for name, step in task.recipes.steps.items())),
            backbone=task.spec.backbone,
            network=network,
            source=source,
            compare=tuple(sorted(task.spec.compare)),
            tolerance=(round(tolerance.relative_error * NANO), round(tolerance.cosine * NANO)),
            probes=self.asked(task, probes, int(tolerance.cosine * PPM)),
            rows=None if rows is None else _of_rows(batch, rows, folder / "rows"),
            reference=None if reference is None else _file(batch, "reference.npz", reference.path, reference.digest),
            engine=task.present or (),
        )

    def asked(self, task: EngineTask, probes: list[BuiltProbe], least: int) -> tuple[OrderProbe, ...]:
        """Return what an engine is measured on: the probes of this mission and those that it is measured on already, or
        is about to be, for other missions: a key has one order and one result."""
        by_recipe: dict[bytes, OrderProbe] = {}
        for one in itertools.chain(_probes(task, probes, least), self.earlier(task.recipe.key)):
            if len(by_recipe) < MAX_PROBES:
                by_recipe.setdefault(one.recipe, one)
        return tuple(sorted(by_recipe.values(), key=lambda one: (one.set, one.recipe)))

    def earlier(self, key: BuildKey) -> Iterator[OrderProbe]:
        """Yield the probes of this store's open order of a key, and of the result that it has taken, where they are
        still there."""
        repository = self.context.repository
        with suppress(NotFound, Corrupt):
            id_, order = read_order(repository.evidence, key)
            if ordered_here(repository.media, key) == id_:
                yield from order.probes
        try:
            figures = accepted_result(repository.evidence, key, repository.trust_root().root).figures
        except Unavailable:
            raise
        except FlightbagError:
            return  # it counts for no mission
        for figure in figures:
            with suppress(NotFound):
                size = repository.media.stamp(object_path(figure.probe)).size
                set_ = figure.name.removeprefix(FIDELITY)
                yield OrderProbe(set_, figure.probe, size, figure.recipe, figure.least)

    def finds_nothing(self, task: EngineTask, private: Path) -> bool:
        """Return whether the network finds nothing in noise, so that an engine of it is checked on tiles. Raise what
        its compilation would, before anything is carried to a device."""
        name = task.spec.model.path.name
        with doing(f"running the model {task.spec.model.path}"):
            session = open_session(session_source(private), "off", name=name)
            outputs = check_ends(session, task.spec, name)
            cases = task.spec.cases()
            first = require_repeatable(
                session,
                feeds_of(session, cases[len(cases) // 2]),
                name,
                lambda: irreproducible(parse_onnx(private.read_bytes(), name)),
                outputs,
            )
        return is_nothing(first, outputs)


def _probes(task: EngineTask, probes: list[BuiltProbe], least: int) -> Iterator[OrderProbe]:
    for built in probes:
        if built.task.set.backbone == task.spec.backbone:
            ((id_, size),) = built.task.present or ()
            yield OrderProbe(
                built.task.set.name, id_, size, fidelity_recipe(built.task.recipe.key, task.recipe.key), least
            )


def _added(batch: Batch, path: Path) -> tuple[OrderFile, ...]:
    """Insert a network of a private folder: as one file, or, where that would be larger than 2 GiB, with the external
    data that it names."""
    whole = session_source(path)
    if isinstance(whole, bytes):
        added = batch.add_bytes(whole)
        return (OrderFile(MODEL, added.id, added.size),)
    locations = external_locations(parse_onnx(path.read_bytes(), path.name), path.name)
    files = [(MODEL, path), *((location, path.parent / location) for location in locations)]
    return tuple(sorted(_file(batch, name, file) for name, file in files))


def _file(batch: Batch, name: str, path: Path, expect: bytes | None = None) -> OrderFile:
    added = batch.add(read_chunks(str(path)), expect=None if expect is None else ObjectId(expect))
    return OrderFile(name, added.id, added.size)


def _of_rows(batch: Batch, rows: CalibrationSet, path: Path) -> OrderFile:
    rows.save(path)
    return _file(batch, "rows", path)
