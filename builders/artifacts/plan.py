"""The plan of a build: what the mission needs, under which keys, and what of it the store has.

A plan is a value: facts, gates, inventory and tasks. Making one reads the tiles of the area's cells, unless no source
has changed since they were read last (`statcache`), and writes nothing to the store.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from builders.artifacts.engine import EngineTask, check_model, engine_tasks, target_hosts
from builders.artifacts.figures import (
    FidelityQuestion,
    Gate,
    Question,
    RecallQuestion,
    fidelity_questions,
    landmark_questions,
    recall_questions,
    self_questions,
)
from builders.artifacts.file import file_tasks
from builders.artifacts.index import index_tasks
from builders.artifacts.missing import ListTask, list_tasks
from builders.artifacts.probe import probe_tasks
from builders.artifacts.shard import ShardTask, forget_networks, load_networks, origins_by_set, shard_tasks
from builders.artifacts.store import lookup_of
from builders.artifacts.task import Artifact, Lookup, Progress, Task, silent
from builders.compose import BuildContext
from builders.imagery.coverage import Gates, Shortfall, code, shortfall, with_views
from builders.imagery.inventory import Inventory
from builders.mission.validity import Validity
from builders.report import Measured, MissingTiles, PlanReport
from store.errors import FlightbagError, Invalid, Refused
from store.format.entries import MAX_ENTRIES, EntryTable
from store.format.ids import ObjectId
from store.format.manifest import MAX_FIGURES, SECONDS_A_DAY, MissionFacts, Unproven, identity
from store.ground.repository import Repository
from store.takeoff.quality import figure_title

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Plan:
    """Everything that the mission's manifest will name, but for what only decoding the tiles can show: which of them
    are missing. `shortfall` is what is missing as far as the sources show. `questions` are measured before the mission
    is signed; `unmeasured` says what cannot be, and why. `validity` is that of a manifest that is issued `now`."""

    facts: MissionFacts
    validity: Validity
    now: int
    hosts: tuple[str, ...]
    inventory: Inventory
    gates: Gates
    shortfall: Shortfall
    sets: tuple[str, ...]
    tasks: tuple[Task, ...]
    questions: tuple[Question, ...]
    unmeasured: tuple[str, ...]

    def of(self, kind: type[Kind]) -> tuple[Kind, ...]:
        """Return the tasks of one kind."""
        return tuple(task for task in self.tasks if isinstance(task, kind))

    @property
    def fresh(self) -> bool:
        """Whether all tiles that it rests on were read now."""
        others = [inventory for question in self.questions for inventory in question.inventories]
        return all(inventory.fresh for inventory in (self.inventory, *others))

    def gates_beside(self, published: Collection[tuple[str, bytes]], missing: Shortfall) -> tuple[Gate, ...]:
        """Return the figures that a published mission with these figures, by name and recipe, would have, if it is
        still what would be built and these tiles are missing. What was asked and not answered then cannot be answered
        now."""
        gates: list[Gate] = []
        for question in self.questions:
            asked = [gate for gate in question.gates if (gate.name, gate.recipe) in published]
            if not asked and isinstance(question, RecallQuestion) and not question.measurable(missing):
                continue
            gates += asked or question.gates
        return tuple(gates)

    def without_view(self, zoom: int) -> NDArray[np.uint64]:
        """Return uint64[n], ascending: the area's tiles that the sources have and some set has no whole view of."""
        level = self.inventory.level(zoom)
        unseen: NDArray[np.uint64] = level.required[self.shortfall.level(zoom) == code("no-view")]
        return unseen

    @property
    def hints(self) -> tuple[str, ...]:
        """What is unusual about the sources, and what is perhaps wrong where most tiles of the area are absent."""
        others = [inventory for question in self.questions for inventory in question.inventories]
        return tuple(dict.fromkeys(hint for inventory in (self.inventory, *others) for hint in inventory.hints))

    def fulfilled(self, artifacts: Iterable[Artifact]) -> Plan:
        """Return the plan with the tasks of these artifacts, whose objects are known, in the place of its own."""
        return replace(self, tasks=tuple(artifact.task for artifact in artifacts))

    def unproven(self, repository: Repository, table: EntryTable) -> tuple[Unproven, ...]:
        """Return the figures of a mission with this table that nobody has measured, as its manifest has them."""
        asked = (question.unproven(repository, table) for question in self.questions_of(FidelityQuestion))
        return tuple(sorted((one for one in asked if one), key=lambda one: (one.name, one.recipe)))

    def may_lack(self, unproven: Collection[Unproven]) -> bool:
        """Return whether the mission file lets aircraft prove these figures."""
        recipes = {figure.recipe for figure in unproven}
        return all(
            question.engine.aboard
            for question in self.questions_of(FidelityQuestion)
            if question.gates[0].recipe in recipes
        )

    def identity(
        self,
        missing: Shortfall,
        figures: Iterable[Gate | Measured],
        unproven: tuple[Unproven, ...] = (),
        releases: tuple[ObjectId, ...] = (),
    ) -> bytes:
        """Return the identity that the manifest will carry with these figures and releases, if these tiles are
        missing."""
        tasks = (*(task for task in self.tasks if not isinstance(task, ListTask)), *list_tasks(missing))
        artifacts = {name: key for task in tasks for name, key in task.identities.items()}
        gates = tuple(sorted((figure.name, figure.least, figure.recipe) for figure in figures))
        return identity(self.facts, self.hosts, missing.coverage(self.gates), gates, unproven, releases, artifacts)

    def report(self, repository: Repository) -> PlanReport:
        """Return what it shows to people and machines. `repository` has the results of devices."""
        valid_from, expires_at = self.validity.window(self.now)
        return PlanReport(
            mission=self.facts.id,
            flight=self.facts.flight,
            hosts=self.hosts,
            valid_from=valid_from,
            expires_at=expires_at,
            tiles=self.inventory.tiles,
            missing=MissingTiles.of(self.shortfall, self.inventory.no_image),
            enough=self.gates.allows(self.shortfall.missing, self.inventory.tiles),
            repeated=self.inventory.repetition.summary(),
            hints=(*self.inventory.gaps, *self.hints),
            artifacts=tuple(task.row() for task in self.tasks),
            not_measured=(*self._elsewhere(repository), *self.unmeasured),
        )

    def _elsewhere(self, repository: Repository) -> Iterator[str]:
        """Yield the figures that this machine cannot measure, and no device has."""
        for question in self.questions_of(FidelityQuestion):
            engine, title = question.engine, figure_title(question.gates[0].name)
            if engine.present is None and (why := engine.backend.makes(engine.host)):
                yield (
                    f"{title}: this machine does not make the engine: {why}; a build fails: `flightbag engines order`"
                )
            elif (why := engine.elsewhere) and not question.measured(repository):
                proof = "each aircraft proves it" if engine.aboard else "a build fails: `flightbag engines order`"
                yield f"{title}: this machine does not run the engine: {why}; {proof}"

    def questions_of(self, kind: type[Kind]) -> tuple[Kind, ...]:
        """Return the questions of one kind."""
        return tuple(question for question in self.questions if isinstance(question, kind))


def make_plan(
    context: BuildContext,
    lookup: Lookup,
    progress: Progress = silent,
    *,
    now: int,
    remembered: bool = False,
    inventory: Inventory | None = None,
) -> Plan:
    """Return what the mission needs, and what of it the store has.

    Reads every tile of the area's cells, unless what was read before may be believed (`remembered`) and no source has
    changed since; writes nothing to the store. `now` is unix seconds. `inventory` is that of the area, where it was
    read before.
    """
    mission = context.mission
    repository = context.repository
    root = repository.trust_root().root if repository.evidence.root_versions() else None
    validity = Validity.of(mission.mission, root)
    validity.require(context.path, now=now)
    targets = target_hosts(context)
    if inventory is None:
        inventory = context.inventory(progress, remembered=remembered)
    gates = context.gates(now)
    newest = max((int(level.captured.max()) for level in inventory.levels if len(level.captured)), default=0)
    if newest > now + SECONDS_A_DAY:
        raise Invalid(
            f"{context.path}: the imagery is dated {time.strftime('%Y-%m-%d', time.gmtime(newest))}, in the future",
            remedy="correct tiles[].captured, or the datetime in tiles[].footprints",
        )
    engines = engine_tasks(context, targets, inventory, lookup)
    shards = tuple(shard_tasks(context, inventory, lookup))
    probes = tuple(probe_tasks(context, inventory, shards, lookup))
    views = origins_by_set((s.name for s in mission.descriptors), ((task, task.origins) for task in shards))
    missing = with_views(shortfall(inventory, gates, {}), views)
    indexes = tuple(index_tasks(context, shards, missing, targets, lookup))
    tasks: tuple[Task, ...] = (*engines, *shards, *probes, *indexes, *file_tasks(context, progress))
    count = sum(task.most_entries for task in tasks) + ListTask.most_entries
    if count > MAX_ENTRIES:
        raise Invalid(
            f"{context.path}: the mission would have up to {count} entries, at most {MAX_ENTRIES} are allowed",
            remedy="make the area smaller, or leave out a zoom or a descriptor set",
        )
    recall = recall_questions(context, missing, engines, progress, remembered=remembered)
    questions: tuple[Question, ...] = (
        *fidelity_questions(context, engines, probes),
        *self_questions(context, inventory, engines),
        *landmark_questions(context, inventory, engines),
        *recall.questions,
    )
    count = sum(len(question.gates) for question in questions)
    if count > MAX_FIGURES:
        raise Invalid(
            f"{context.path}: {count} figures would be measured, at most {MAX_FIGURES} fit a mission",
            remedy="leave out some of the descriptor sets, or set [quality] sample = 0",
        )
    return Plan(
        facts=_facts(context),
        validity=validity,
        now=now,
        hosts=tuple(target.host for target in targets),
        inventory=inventory,
        gates=gates,
        shortfall=missing,
        sets=tuple(set_.name for set_ in mission.descriptors),
        tasks=tasks,
        questions=questions,
        unmeasured=recall.unmeasured,
    )


def plan(context: BuildContext, progress: Progress = silent, *, now: int) -> Plan:
    """Return the plan as the store is now, without writing a byte to it. `now` is unix seconds.

    It reads no tile of sources that have not changed since they were read: a build reads them again.
    """
    with lookup_of(context.repository) as lookup:
        planned = make_plan(context, lookup, progress, now=now, remembered=True)
        try:
            _check_models(context, planned)
        finally:
            forget_networks()
        return planned


def _check_models(context: BuildContext, planned: Plan) -> None:
    """Raise Invalid for every model that a build would refuse before it compiles or describes anything, all at once,
    and for too few tiles beside them. Too few tiles alone are a report."""
    engines = {task.spec.backbone: task for task in planned.of(EngineTask) if task.present is None}
    checks: list[Callable[[], object]] = [partial(check_model, context, task) for task in engines.values()]
    checks += [partial(load_networks, context, [task]) for task in planned.of(ShardTask) if not task.complete]
    refused: dict[str, FlightbagError] = {}
    for check in checks:
        try:
            check()
        except (Invalid, Refused) as error:
            refused.setdefault(error.message, error)
    if refused and not planned.gates.allows(planned.shortfall.missing, planned.inventory.tiles):
        tiles = _too_few_tiles(context, planned)
        refused[tiles.message] = tiles
    if len(refused) == 1:
        raise next(iter(refused.values()))
    if refused:
        problems = tuple(map(str, refused.values()))
        raise Invalid("\n".join(problems), path=str(context.path), problems=problems)


def _too_few_tiles(context: BuildContext, planned: Plan) -> Invalid:
    counts = Counter[str]()
    for run in planned.shortfall.as_list().runs:
        counts[run.reason] += run.tiles
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    missing, tiles = planned.shortfall.missing, planned.inventory.tiles
    hints = "; ".join((*planned.inventory.gaps, *planned.hints))
    return Invalid(
        f"{context.path}: {missing} of {tiles} tiles of the area are missing: {reasons}",
        remedy=hints or "correct the models, and plan again for the list of the tiles",
    )


def _facts(context: BuildContext) -> MissionFacts:
    m = context.mission.mission
    return MissionFacts(
        id=m.id,
        flight=m.flight,
        aircraft=m.aircraft_ids,
        takeoff=context.takeoff,
        area=context.area,
        sector=m.sector,
        takeoff_outside=m.takeoff_outside,
    )
