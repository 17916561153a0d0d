"""The figures that a mission is gated by: fidelity (the engine that flies agrees with the map), self-retrieval (it
tells the places of the map apart), recall (the map answers) and landmarks (it answers with the right places).

A question is what one measurement answers: it names its figures, the least value of each, and how they are measured.
The plan holds the questions; `FigureMeter` answers them with what is in the store, before anything is signed. It
decides nothing: the orchestrator refuses a mission whose figures are too low.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol, TypeAlias

from builders.activity import doing
from builders.artifacts.elsewhere import measured_by_device, measured_elsewhere
from builders.artifacts.engine import BuiltEngine, EngineTask
from builders.artifacts.probe import BuiltProbe, ProbeTask
from builders.artifacts.shard import BuiltMap
from builders.artifacts.store import ArtifactStore
from builders.artifacts.task import Progress
from builders.compose import BuildContext
from builders.engines.base import EngineSession
from builders.engines.failures import failure
from builders.engines.model import session_source
from builders.engines.session import open_session
from builders.imagery.coverage import Shortfall
from builders.imagery.inventory import Inventory
from builders.mission.schema import Quality, scaled
from builders.onboard.camera import Ground
from builders.onboard.flying import FlyingEngine, batches_of
from builders.onboard.loading import open_parts
from builders.recipe import RowRecipe
from builders.report import Measured
from builders.retrieval.landmarks import LEAST_PPM, Landmarks, figure_of, read_landmarks
from builders.retrieval.quality import Imagery, RecallFigure, RecallMeasurement
from builders.retrieval.recall import Recall, chance, total
from builders.retrieval.self_retrieval import SelfRetrieval
from builders.retrieval.untrained import UntrainedNetwork
from store.errors import FlightbagError, Invalid, Refused
from store.format.entries import EntryTable
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import FIDELITY, PPM, Unproven
from store.ground.repository import Repository
from store.takeoff.fidelity import fidelity_recipe
from store.takeoff.quality import AGAINST, LEAST_QUERIES


@dataclass(frozen=True, slots=True)
class Gate:
    """A figure that will be measured: its name, the least value in parts per million, and the digest of its recipe."""

    name: str
    least: int
    recipe: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """The value of a figure in parts per million, rounded down, and the number of queries that it rests on. `missed`
    says of single queries, for people, what became of them. `chance` is what answers in a random order would reach,
    None where that says nothing."""

    value: int
    queries: int
    missed: tuple[str, ...] = ()
    chance: int | None = None


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """The answer for a figure that cannot be measured, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The answer for a figure that this machine cannot measure and no device has, and why. Each aircraft may prove it,
    if the mission file lets it."""

    reason: str
    aboard: bool


Answers: TypeAlias = Mapping[str, Answer | Unmeasured | Elsewhere]


class Question(Protocol):
    """What is measured of one descriptor set in one go: a value, made while planning."""

    @property
    def engine(self) -> EngineTask:
        """The engine that is asked, or in whose place its network is."""
        ...

    @property
    def gates(self) -> Sequence[Gate]:
        """The figures that it answers with."""
        ...

    @property
    def inventories(self) -> Sequence[Inventory]:
        """What it rests on besides the map's own tiles."""
        ...

    def answer(self, meter: FigureMeter) -> Answers:
        """Return the answer for each gate, by its name. Raises as `FigureMeter.measure` does."""
        ...


@dataclass(frozen=True, slots=True)
class FidelityQuestion:
    """How near an engine of a set comes to the set's rows. Keeps to `Question`."""

    probe: ProbeTask
    engine: EngineTask
    gates: tuple[Gate]
    inventories: tuple[Inventory, ...] = ()

    def answer(self, meter: FigureMeter) -> Answers:
        (gate,), set_ = self.gates, self.probe.set.name
        built, engine = meter.probe(set_), meter.engines[self.engine.name]
        meter.progress("probing", 1, 0)
        if why := self.engine.elsewhere:
            probe = next(built.entries()).id
            ids = [entry.id for entry in engine.entries() if entry.kind == "engine"]
            measured = self.by_device(meter.context.repository, ids, probe)
            return {gate.name: Elsewhere(why, self.engine.aboard) if measured is None else Answer(*measured)}
        cosine = built.probe.fidelity(meter.engine(set_, self.engine))
        return {gate.name: Answer(int(min(max(cosine, 0.0), 1.0) * PPM), len(built.probe.images))}

    def by_device(self, repository: Repository, engine: Sequence[ObjectId], probe: ObjectId) -> tuple[int, int] | None:
        """Return (value, queries) as a device has measured it with these objects; None where none has."""
        root = repository.trust_root().root
        return measured_elsewhere(repository, root, engine, probe, self.gates[0].recipe)

    def measured(self, repository: Repository) -> bool:
        """Return whether a device has measured it of the engine that the store has. A build also compares the probe."""
        if self.engine.present is None:
            return False
        return measured_by_device(repository, self.engine.recipe.key, self.engine.present[1:], self.gates[0].recipe)

    def unproven(self, repository: Repository, table: EntryTable) -> Unproven | None:
        """Return the figure if nobody has measured it with the objects of this table; None if somebody has."""
        if not self.engine.elsewhere:
            return None
        (gate,), probe = self.gates, table.find(self.probe.name)
        parts = [entry.id for name in self.engine.names[1:] if (entry := table.find(name)) is not None]
        if probe is not None and self.by_device(repository, parts, probe.id) is not None:
            return None
        return Unproven(gate.name, gate.least, gate.recipe)


@dataclass(frozen=True, slots=True)
class RecallQuestion:
    """How often a search in the map of a set finds the right view. Keeps to `Question`."""

    measurement: RecallMeasurement
    engine: EngineTask
    gates: tuple[Gate, ...]

    @property
    def inventories(self) -> tuple[Inventory, ...]:
        against = self.measurement.against
        return () if against is None else (against.inventory,)

    def answer(self, meter: FigureMeter) -> Answers:
        set_ = self.measurement.set
        named = {gate.name for gate in self.gates}
        figures = [one for way in self.measurement.ways for one in self.measurement.figures(way) if one.name in named]
        untrained = meter.untrained(set_) if any(one.kind == "untrained" for one in figures) else None
        results = self.measurement.measure(
            meter.map.layers(set_),
            meter.engine(set_, self.engine),
            untrained,
            lambda count: meter.progress(f"asking {set_}", count, 0),
        )
        why = "" if untrained is None else untrained.why
        return {one.name: _answer(one, results[one.way], why) for one in figures}

    def measurable(self, missing: Shortfall) -> bool:
        """Return whether there are queries enough for some of its figures, if these tiles of the area are missing."""
        return any(self.queries(way, missing) >= LEAST_QUERIES for way in self.measurement.ways)

    def queries(self, way: str, missing: Shortfall) -> int:
        """Return how many queries there will be of a way, if these tiles of the area are missing."""
        return sum(
            len(self.measurement.askable(way, level.zoom, level.required, missing.ids(level.zoom)))
            for level in missing.inventory.levels
        )


def _answer(figure: RecallFigure, zooms: Mapping[int, Recall], why: str) -> Answer | Unmeasured:
    """Return the figure of these recalls; `why` says why the untrained network was not asked."""
    queries = sum(one.whole.queries for one in zooms.values())
    if queries < LEAST_QUERIES:
        return Unmeasured(too_few(queries))
    tallies = [(rows, counts) for rows, counts in (one.of(figure.kind) for one in zooms.values()) if counts is not None]
    if len(tallies) < len(zooms):
        return Unmeasured(why)
    by_chance = chance(((counts.queries, rows) for rows, counts in tallies), figure.top)
    return Answer(total(counts for _, counts in tallies).ppm(figure.top), queries, chance=by_chance)


def too_few(queries: int) -> str:
    """Return why so few queries measure no recall."""
    return f"{queries} different views can be asked for, and a recall rests on at least {LEAST_QUERIES}"


@dataclass(frozen=True, slots=True)
class SelfQuestion:
    """How often an engine of a set finds the map's own views first. Keeps to `Question`."""

    measurement: SelfRetrieval
    engine: EngineTask
    gates: tuple[Gate]
    inventories: tuple[Inventory, ...] = ()

    def answer(self, meter: FigureMeter) -> Answers:
        set_ = self.measurement.set
        counts = self.measurement.measure(
            meter.map.layers(set_),
            meter.engine(set_, self.engine),
            lambda count: meter.progress(f"asking {set_}", count, 0),
        ).values()
        right, queries = (sum(part) for part in zip(*counts, strict=True))
        return {self.measurement.name: Answer(right * PPM // queries, queries)}


@dataclass(frozen=True, slots=True)
class LandmarkQuestion:
    """How many landmarks are found in the map of a set, by an engine that flies. Keeps to `Question`."""

    landmarks: Landmarks
    set: str
    engine: EngineTask
    latitude: float
    gates: tuple[Gate]
    inventories: tuple[Inventory, ...] = ()

    def answer(self, meter: FigureMeter) -> Answers:
        answers = self.landmarks.ask(
            meter.map.layers(self.set),
            meter.engine(self.set, self.engine),
            self.latitude,
            lambda count: meter.progress(f"landmarks of {self.set}", count, len(self.landmarks.landmarks)),
        )
        value = Answer(self.landmarks.ppm(answers), len(answers), self.landmarks.missed(answers))
        return {self.gates[0].name: value}


def fidelity_questions(
    context: BuildContext, engines: Sequence[EngineTask], probes: Sequence[ProbeTask]
) -> Iterator[FidelityQuestion]:
    """Yield how near each engine of each set has to come to the set's rows: as near as the mission file has it come to
    the network."""
    for probe in probes:
        for engine in engines:
            if engine.spec.backbone == probe.set.backbone:
                least = int(context.tolerance(engine.spec.precision).cosine * PPM)
                recipe = fidelity_recipe(probe.recipe.key, engine.recipe.key)
                yield FidelityQuestion(probe, engine, (Gate(f"{FIDELITY}{probe.set.name}", least, recipe),))


def self_questions(
    context: BuildContext, inventory: Inventory, engines: Sequence[EngineTask]
) -> Iterator[SelfQuestion]:
    """Yield how often each engine of each set has to find the map's own views first."""
    for set_ in context.mission.descriptors:
        rows = tuple(context.rows(set_, level.zoom) for level in inventory.levels)
        for key, engine in asked_of(engines, set_.backbone).items():
            own = SelfRetrieval(set_.name, key, rows, Imagery(context.sources, inventory))
            least = scaled(context.self_retrieval(engine.spec.precision), 6)
            yield SelfQuestion(own, engine, (Gate(own.name, least, own.recipe),))


@dataclass(frozen=True, slots=True)
class RecallQuestions:
    """What is asked of the descriptor sets of a mission, and what cannot be asked: texts that say why."""

    questions: tuple[RecallQuestion, ...]
    unmeasured: tuple[str, ...]


def recall_questions(
    context: BuildContext, missing: Shortfall, engines: Sequence[EngineTask], progress: Progress, *, remembered: bool
) -> RecallQuestions:
    """Return what `[quality]` asks of each descriptor set, if these tiles are missing. Reads the other imagery that it
    names. Raises Refused (kind not-measured) where a bound is set on a recall that nothing can measure."""
    quality, inventory = context.mission.quality, missing.inventory
    if not quality.sample:
        off = "[quality] sample is 0"
        return RecallQuestions((), tuple(_unmeasured(set_.name, off) for set_ in context.mission.descriptors))
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
    questions, unmeasured = [], []
    for set_ in context.mission.descriptors:
        layers: tuple[RowRecipe, ...] = tuple(context.rows(set_, level.zoom) for level in inventory.levels)
        own = Imagery(context.sources, inventory)
        for number, (key, engine) in enumerate(asked_of(engines, set_.backbone).items()):
            recall = RecallMeasurement(set_.name, key, layers, own, against, quality.sample)
            question, texts = _recall_question(context, recall, engine, missing, first=not number)
            questions.append(question)
            unmeasured += texts
    return RecallQuestions(tuple(one for one in questions if one.gates), tuple(dict.fromkeys(unmeasured)))


def _recall_question(
    context: BuildContext, recall: RecallMeasurement, engine: EngineTask, missing: Shortfall, *, first: bool
) -> tuple[RecallQuestion, list[str]]:
    """Return what is asked of an engine of one set, the `first` of them or another, and what cannot be asked. The same
    network untrained is asked once."""
    gates: list[Gate] = []
    texts: dict[str, None] = {}
    for way in recall.ways:
        queries = RecallQuestion(recall, engine, ()).queries(way, missing)
        for figure in recall.figures(way):
            if figure.kind == "untrained" and not first:
                continue
            least = _least(context.mission.quality, figure)
            if queries >= LEAST_QUERIES:
                gates.append(Gate(figure.name, least, recall.recipe(figure)))
                continue
            if least:
                raise not_measured(f"{context.path}: [quality] asks for {figure.name}", too_few(queries))
            texts[_unmeasured(recall.set if way != AGAINST else f"{recall.set} ({way})", too_few(queries))] = None
    return RecallQuestion(recall, engine, tuple(gates)), list(texts)


def _least(quality: Quality, figure: RecallFigure) -> int:
    """Return the bound that the mission file sets on a figure; 0 where it sets none."""
    if figure.kind != "recall":
        return 0
    bounds = (quality.recall_at_1, quality.recall_at_5)
    if figure.way == AGAINST:
        bounds = (quality.against_recall_at_1, quality.against_recall_at_5)
    return scaled(bounds[0 if figure.top == 1 else 1] or Decimal(0), 6)


def _unmeasured(set_: str, why: str) -> str:
    return f"recall of the descriptor set {set_}: {why}"


def not_measured(what: str, why: str) -> Refused:
    """The error for a bound on a figure that nothing can measure: it holds no bound."""
    return Refused(
        f"{what}, which cannot be measured: {why}",
        remedy="make the area or the sample larger, or give sources that reach a tile beyond the area, "
        "or set no bounds in [quality]",
        kind="not-measured",
    )


def landmark_questions(
    context: BuildContext, inventory: Inventory, engines: Sequence[EngineTask]
) -> Iterator[LandmarkQuestion]:
    """Yield how many landmarks of the mission file have to be found in each descriptor set: each of them. Reads their
    pictures."""
    quality = context.mission.quality
    if quality.landmarks is None or quality.landmarks_within_m is None:
        return
    with context.about("quality.landmarks"):
        landmarks = read_landmarks(quality.landmarks, scaled(quality.landmarks_within_m, 3))
        for set_ in context.mission.descriptors:
            rows = {level.zoom: context.rows(set_, level.zoom) for level in inventory.levels}
            latitude = context.area.middle_latitude
            landmarks.require_fit(context.area, [Ground.of(row, zoom, latitude) for zoom, row in rows.items()])
            for key, engine in asked_of(engines, set_.backbone).items():
                gate = Gate(figure_of(set_.name), LEAST_PPM, landmarks.recipe(key, tuple(rows.values())))
                yield LandmarkQuestion(landmarks, set_.name, engine, latitude, (gate,))


def asked_of(engines: Sequence[EngineTask], backbone: str) -> Mapping[BuildKey, EngineTask]:
    """Return what describes the queries of a backbone's descriptor sets, by what stands for it in a recipe: each of its
    engines by its key; and for those that this machine does not run the first of them, by the digest of the model: the
    queries go through the network that made the rows."""
    asked: dict[BuildKey, EngineTask] = {}
    for task in engines:
        if task.spec.backbone == backbone:
            asked.setdefault(BuildKey(task.spec.model.digest) if task.elsewhere else task.recipe.key, task)
    return asked


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

    def measure(
        self, questions: Sequence[Question]
    ) -> tuple[tuple[Measured, ...], tuple[Unproven, ...], tuple[str, ...]]:
        """Return the figure of every gate, ascending by name and recipe; those that each aircraft has to prove; and for
        each that was not measured a text that says why.

        Raise Refused where a figure has a bound and was not measured: a figure that was not measured is not good. The
        kind is not-measured, or unproven for an engine that does not run here and that no aircraft may prove.
        """
        figures: list[Measured] = []
        unproven: list[Unproven] = []
        unmeasured: list[str] = []
        for question in questions:
            names = ", ".join(gate.name for gate in question.gates)
            with doing(f"measuring {names}"):
                answers = question.answer(self)
            for gate in question.gates:
                answer = answers[gate.name]
                if isinstance(answer, Answer):
                    figures.append(
                        Measured(
                            gate.name,
                            answer.value,
                            gate.least,
                            answer.queries,
                            gate.recipe,
                            answer.missed,
                            answer.chance,
                            question.engine.name,
                        )
                    )
                elif isinstance(answer, Elsewhere):
                    if not answer.aboard:
                        raise self._unproven(gate, answer)
                    unproven.append(Unproven(gate.name, gate.least, gate.recipe))
                elif gate.least:
                    raise not_measured(f"{self.context.path} asks for {gate.name}", answer.reason)
                else:
                    unmeasured.append(f"{gate.name}: {answer.reason}")
        return (
            tuple(sorted(figures, key=lambda figure: (figure.name, figure.recipe))),
            tuple(sorted(unproven, key=lambda figure: (figure.name, figure.recipe))),
            tuple(dict.fromkeys(unmeasured)),
        )

    def _unproven(self, gate: Gate, answer: Elsewhere) -> FlightbagError:
        path, store = self.context.path, self.context.repository.media.path
        return failure(
            "unproven",
            f"{path}: nobody has measured {gate.name}: this machine does not run the engine: {answer.reason}",
            remedy=f"run `flightbag engines order {path} --store {store}` and fulfil the order on a machine that runs "
            'it; or set proof = "aboard" in [target], and probe the mission on each aircraft',
        )

    def untrained(self, set_: str) -> UntrainedNetwork:
        """Return the network of a descriptor set without its training."""
        task = self.probe(set_).task
        backbone = task.set.backbone
        return UntrainedNetwork(lambda: session_source(self.context.private(backbone).model.path), backbone, task.rows)

    def probe(self, set_: str) -> BuiltProbe:
        """Return the probe of a descriptor set."""
        return next(built for built in self.probes if built.task.set.name == set_)

    def engine(self, set_: str, task: EngineTask) -> FlyingEngine:
        """Return what describes the queries for a descriptor set, with the set's preprocessing: an engine that flies,
        or the network that made the rows where this machine does not run that."""
        probe, built = self.probe(set_).task, self.engines[task.name]
        task = built.task
        if task.elsewhere:
            if task.name not in self._sessions:
                path = self.context.private(task.spec.backbone).model.path
                self._sessions[task.name] = open_session(session_source(path), "all", name=path.name)
            return FlyingEngine(self._sessions[task.name], probe.rows, batches_of(built.card))
        with self.context.about(f"backbones[{task.spec.backbone}]: its engine cannot be held against the map"):
            if task.name not in self._sessions:
                parts = [memoryview(self.store.read(id_, size)).toreadonly() for id_, size in built.stored[1:]]
                with doing(f"loading the engine of the model {task.spec.model.path}"):
                    self._sessions[task.name] = open_parts(
                        task.backend, task.need, parts[0], parts[1] if len(parts) > 1 else None
                    )
            # Sets of one backbone may take its images otherwise.
            return FlyingEngine(self._sessions[task.name], probe.rows, batches_of(built.card))
