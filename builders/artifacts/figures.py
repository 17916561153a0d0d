"""The figures that a mission is gated by: fidelity (the engine that flies agrees with the map) and recall (the map
answers).

The plan says which figures there will be and the least value of each; `FigureMeter` measures them with what is in the
store, before anything is signed. It decides nothing: the orchestrator refuses a mission whose figures are too low.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from builders.artifacts.engine import BuiltEngine, EngineTask
from builders.artifacts.probe import BuiltProbe, ProbeTask
from builders.artifacts.shard import BuiltMap
from builders.artifacts.store import ArtifactStore
from builders.artifacts.task import Progress
from builders.compose import BuildContext
from builders.engines.base import EngineSession
from builders.imagery.inventory import Inventory
from builders.mission.schema import scaled
from builders.onboard.flying import FlyingEngine, batches_of
from builders.onboard.loading import open_parts
from builders.recipe import RowRecipe, fidelity_recipe
from builders.report import Measured
from builders.retrieval.quality import AGAINST, Imagery, RecallMeasurement
from builders.retrieval.recall import total
from store.errors import Invalid
from store.format.manifest import PPM


@dataclass(frozen=True, slots=True)
class Gate:
    """A figure that will be measured: its name, the least value in parts per million, and the digest of its recipe."""

    name: str
    least: int
    recipe: bytes


def fidelity_gates(context: BuildContext, engines: Sequence[EngineTask], probes: Sequence[ProbeTask]) -> Iterator[Gate]:
    """Yield how near the engine of each set has to come to the set's rows: as near as the mission file has it come to
    the network."""
    for probe in probes:
        engine = engine_of(engines, probe.set.backbone)
        least = int(context.tolerance(engine.spec.precision).cosine * PPM)
        yield Gate(f"fidelity/{probe.set.name}", least, fidelity_recipe(probe.recipe.key, engine.recipe.key))


def recall_gates(context: BuildContext, questions: Sequence[RecallMeasurement]) -> Iterator[Gate]:
    """Yield the figures of the mission file's `[quality]`."""
    quality = context.mission.quality
    for question in questions:
        assert quality is not None
        for name, way, top in question.figures():
            least: Decimal | None = quality.recall_at_1 if top == 1 else quality.recall_at_5
            if way == AGAINST:
                least = quality.against_recall_at_1 if top == 1 else quality.against_recall_at_5
            yield Gate(name, scaled(least or Decimal(0), 6), question.recipe(way))


def questions(
    context: BuildContext, inventory: Inventory, engines: Sequence[EngineTask], progress: Progress, *, remembered: bool
) -> Iterator[RecallMeasurement]:
    """Yield what `[quality]` asks of each descriptor set. Reads the other imagery that it names."""
    if context.mission.quality is None:
        return
    against = None
    if context.against is not None:
        other = context.against.inventory(
            context.wanted(), lambda n: progress("reading other tiles", n, 0), remembered=remembered
        )
        if other.digest == inventory.digest:
            raise Invalid(
                f"{context.path}: quality.against has the same tiles as the map, so the map knows every query",
                remedy="give imagery of another day, or leave quality.against out",
            )
        against = Imagery(context.against, other)
    for set_ in context.mission.descriptors:
        layers: tuple[RowRecipe, ...] = tuple(context.rows(set_, level.zoom) for level in inventory.levels)
        engine = engine_of(engines, set_.backbone)
        yield RecallMeasurement(set_.name, engine.recipe.key, layers, Imagery(context.sources, inventory), against)


def engine_of(engines: Sequence[EngineTask], backbone: str) -> EngineTask:
    """Return the engine of a backbone: the one that describes camera frames for its descriptor sets."""
    return next(task for task in engines if task.spec.backbone == backbone)


@dataclass
class FigureMeter:
    """Measures the figures of a mission whose engines, map and probes are in the store."""

    context: BuildContext
    store: ArtifactStore
    map: BuiltMap
    engines: Mapping[str, BuiltEngine]
    probes: Sequence[BuiltProbe]
    progress: Progress
    _sessions: dict[str, EngineSession] = field(default_factory=dict)

    def measure(self, gates: Sequence[Gate], measurements: Sequence[RecallMeasurement]) -> tuple[Measured, ...]:
        """Return the figure of every gate, in their order.

        Raise Refused for a figure that cannot be measured, and what engines raise that cannot run here: a figure that
        was not measured is not good.
        """
        values: dict[str, int] = {}
        for built in self.probes:
            cosine = built.probe.fidelity(self._engine(built.task))
            values[f"fidelity/{built.task.set.name}"] = int(max(cosine, 0.0) * PPM)
            self.progress("probing", 1, len(self.probes))
        for question in measurements:
            task = next(built.task for built in self.probes if built.task.set.name == question.set)
            label = f"asking {question.set}"
            answers = question.measure(
                self.map.layers(question.set),
                self._engine(task),
                lambda count, label=label: self.progress(label, count, 0),  # type: ignore[misc]
            )
            for name, way, top in question.figures():
                values[name] = total(answers[way].values()).ppm(top)
        return tuple(Measured(gate.name, values[gate.name], gate.least, gate.recipe) for gate in gates)

    def _engine(self, probe: ProbeTask) -> FlyingEngine:
        """Return the engine that flies, with the preprocessing of the probe's descriptor set."""
        built = next(one for one in self.engines.values() if one.task.spec.backbone == probe.set.backbone)
        task = built.task
        with self.context.about(f"backbones[{task.spec.backbone}]: its engine cannot be held against the map"):
            if task.name not in self._sessions:
                parts = [memoryview(self.store.read(id_, size)).toreadonly() for id_, size in built.stored[1:]]
                self._sessions[task.name] = open_parts(
                    task.backend, task.need, parts[0], parts[1] if len(parts) > 1 else None
                )
            # Sets of one backbone may take its images otherwise.
            return FlyingEngine(self._sessions[task.name], probe.rows, batches_of(built.card))
