"""What differs between what a mission file asks for now and a manifest that was issued, kind by kind, for people.

`comparison` decides whether anything differs. This module names it: artifacts by their build keys, the fields of a key
where the store still has the recipe of the old one, and the views of the map where this station described them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np

from builders.artifacts.engine import EngineTask
from builders.artifacts.figures import Gate
from builders.artifacts.missing import ListTask
from builders.artifacts.plan import Plan
from builders.artifacts.shard import ShardTask
from builders.artifacts.task import Task
from builders.compose import BuildContext
from builders.descriptors.rows import RowCache, view_digests
from builders.descriptors.shard import EMPTY_SIZE, read_shard
from builders.engines.card import CARD_LIMIT, Card, differences, plain
from builders.grid.live import find
from builders.grid.tiles import tile_id
from builders.imagery.coverage import Shortfall
from builders.recipe import RowRecipe
from builders.report import Difference, Views
from store.errors import FlightbagError, Unavailable
from store.format.entries import Entry, EntryTable, kind_of
from store.format.manifest import Manifest
from store.takeoff.mission import Opened


def fact_changes(plan: Plan, manifest: Manifest, coverage: Shortfall | None) -> Iterator[Difference]:
    """Yield what differs in the facts of the mission, its hosts, and the tiles of its area. `coverage` is what the area
    lacks now, None where the published list of missing tiles holds no more."""
    if fields := _fields(plan.facts.value(), manifest.mission.value()):
        yield Difference("mission", plan.facts.id, "changed", fields)
    if plan.hosts != manifest.hosts:
        text = f"{' and '.join(plan.hosts)}, and it was {' and '.join(manifest.hosts)}"
        yield Difference("hosts", "", "changed", detail=text)
    if coverage is None:
        text = f"{plan.shortfall.missing} as far as the sources show, {manifest.coverage.missing} when it was issued"
        yield Difference("coverage", "missing tiles", "changed", detail=text)
    else:
        now, before = asdict(coverage.coverage(plan.gates)), asdict(manifest.coverage)
        # The digest is over the bytes of all tiles: the map says which of them changed.
        if fields := tuple(name for name in _fields(now, before) if name != "digest"):
            yield Difference("coverage", "tiles", "changed", fields)


def gate_changes(gates: tuple[Gate, ...], manifest: Manifest) -> Iterator[Difference]:
    """Yield the figures of quality that are asked for now and were not, or no more, or with another least value."""
    now = {gate.name: gate.least for gate in gates}
    before = {figure.name: figure.least for figure in manifest.quality}
    before |= {figure.name: figure.least for figure in manifest.unproven}
    for name in sorted(now.keys() | before.keys()):
        if now.get(name) != before.get(name):
            change = "new" if name not in before else "gone" if name not in now else "changed"
            yield Difference("quality", name, change)


def artifact_changes(context: BuildContext, plan: Plan, opened: Opened) -> Iterator[Difference]:
    """Yield the artifacts that are new, changed or gone beside those of a manifest, the map by set and zoom, and those
    that are the same and that the store has lost. Raise Unavailable where something cannot be read."""
    table = opened.table
    tasks = [task for task in plan.tasks if not isinstance(task, ListTask)]
    engines = _Engines(context, table, tasks)
    layers: dict[tuple[str, int], _Layer] = {}
    for task in tasks:
        if isinstance(task, ShardTask):
            layers.setdefault((task.set.name, task.zoom), _Layer(context, plan)).add(task, table.find(task.name))
        elif isinstance(task, EngineTask):
            yield from engines.change(task)
        else:
            yield from _change(task, table.find(task.name))
    known = {task.name for task in tasks} | engines.replaced
    for entry in table.entries:
        if entry.name in known or entry.kind in ("card", "coverage") or entry.meta.get("part") in _PARTS:
            continue
        _, *folders, _ = entry.name.split("/")
        if entry.kind == "descriptors" and len(folders) == 2 and folders[1].isdecimal():
            layers.setdefault((folders[0], int(folders[1])), _Layer(context, plan)).lose(entry)
        else:
            yield Difference(entry.kind, entry.name, "gone")
    for (set_, zoom), layer in sorted(layers.items()):
        yield from layer.changes(f"{set_}/{zoom}")


# Files beside an engine or an index: its build key is theirs, or has theirs.
_PARTS = ("weights", "quantiser")


def _change(task: Task, entry: Entry | None) -> Iterator[Difference]:
    kind = kind_of(task.name)
    if entry is None:
        yield Difference(kind, task.name, "new")
    elif task.identities[task.name] != _identity(entry):
        yield Difference(kind, task.name, "changed")
    elif not task.complete and entry.key is not None:
        yield Difference(kind, task.name, "lost")


def _identity(entry: Entry) -> bytes:
    return bytes(entry.id if entry.key is None else entry.key)


def _fields(now: Mapping[str, object], before: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(name for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name))


class _Engines:
    """The engines of a manifest beside those of a plan. One whose name changed, by its library or its host class, is
    the same engine still: that of its backbone which no other task has. `replaced` are the names of such."""

    def __init__(self, context: BuildContext, table: EntryTable, tasks: list[Task]) -> None:
        self._context, self._table = context, table
        self.replaced: set[str] = set()
        names = {task.name for task in tasks}
        engines = (entry for entry in table.of_kind("engine") if entry.meta.get("part") == "model")
        self._other = [entry for entry in engines if entry.name not in names]

    def change(self, task: EngineTask) -> Iterator[Difference]:
        entry = self._table.find(task.name)
        if entry is None:
            entry = next((one for one in self._other if one.meta.get("backbone") == task.spec.backbone), None)
            if entry is None:
                yield Difference("engine", task.name, "new")
                return
            self._other.remove(entry)
            self.replaced.add(entry.name)
        if entry.key != task.recipe.key:
            yield Difference("engine", task.name, "changed", self._changed_fields(task, entry))
        elif not task.complete:
            yield Difference("engine", task.name, "lost")

    def _changed_fields(self, task: EngineTask, entry: Entry) -> tuple[str, ...]:
        """Return the fields of the build key that differ; none where the store has no card of the old engine."""
        cards = (one for one in self._table.of_kind("card") if one.meta.get("engine") == entry.name)
        try:
            for one in cards:
                card = Card.parse(self._context.repository.evidence.object(one.id, CARD_LIMIT))
                return tuple(change["field"] for change in differences(task.recipes, card))
        except Unavailable:
            raise
        except FlightbagError:
            pass  # an audit reports the damage
        return ()


@dataclass
class _Layer:
    """The shards of one set and zoom, summed up: the cells that differ, and the views of them."""

    context: BuildContext
    plan: Plan
    cells: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    fields: tuple[str, ...] | None = None
    views: Views = Views()  # noqa: RUF009 - frozen
    kept: int = 0

    def add(self, task: ShardTask, entry: Entry | None) -> None:
        count = len(task.origins)
        if entry is None:
            if task.present is None or task.present[0][1] > EMPTY_SIZE:
                self.cells.append(task.name)
                self._count(new=count)
        elif bytes(task.recipe.key) == _identity(entry):
            self.kept += 1
            if not task.complete:
                self.lost.append(task.name)
        else:
            self.cells.append(task.name)
            if self.fields is None:
                self.fields = self._changed_fields(task, entry)
            if self.fields:
                self._count(changed=count)
            else:
                self._compare(task, entry)

    def lose(self, entry: Entry) -> None:
        self.cells.append(entry.name)
        self._count(gone=int(entry.meta["rows"]))

    def changes(self, name: str) -> Iterator[Difference]:
        if self.lost:
            yield Difference("descriptors", name, "lost", cells=len(self.lost))
        if self.cells:
            views = self.views
            left = self.kept or self.fields is not None or (views.new and views.gone)
            change = "changed" if left else "new" if views.new else "gone"
            yield Difference("descriptors", name, change, self.fields or (), cells=len(self.cells), views=views)

    def _count(self, new: int = 0, changed: int = 0, gone: int = 0, unknown: int = 0) -> None:
        one = self.views
        self.views = Views(one.new + new, one.changed + changed, one.gone + gone, one.unknown + unknown)

    def _changed_fields(self, task: ShardTask, entry: Entry) -> tuple[str, ...]:
        """Return the fields that differ in how a row is made; none where only tiles do, or where the old shard does not
        say."""
        try:
            shard = read_shard(self.context.repository.evidence.bytes_of(entry.id, entry.size))
            before = RowRecipe.of_metadata(shard.metadata).fields()
        except Unavailable:
            raise
        except FlightbagError:
            return ()  # an audit reports the damage
        return _fields(plain(task.rows.fields()), plain(before))

    def _compare(self, task: ShardTask, entry: Entry) -> None:
        """Count the views that differ, if this station described the published shard: of each it noted the bytes."""
        cached = RowCache(self.context.cache / "rows").find(task.rows, task.zoom, tile_id(task.cell))
        if cached is None or cached.shard != entry.id:
            self._count(unknown=len(task.origins))
            return
        level = self.plan.inventory.level(task.zoom)
        shows = view_digests(task.view.footprint(task.zoom, task.origins), level.ids, level.hashes)
        both, places = find(cached.origins, task.origins)
        changed = int((cached.digests[places[both]] != shows[both]).any(axis=1).sum())
        stay = int(np.count_nonzero(both))
        self._count(new=len(task.origins) - stay, changed=changed, gone=len(cached.origins) - stay)
