"""Building engines into a store: each once per key across processes, checked, with its card, and recorded.

`ArtifactStore` is what building any keyed artifact shares: what a key was built to, the lock of a key, the record.
`EngineBuilder` builds engines with it, for a mission or by themselves.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.artifacts.plan import EngineTask, Found, Progress, QuantiseTask, plan_engines, silent
from builders.compose import BuildContext, preprocess_of
from builders.descriptors.decoding import Undecodable, decode, resized
from builders.engines.base import EngineSpec
from builders.engines.card import CARD_LIMIT, Card
from builders.engines.check import judge
from builders.engines.compiling import CompiledEngine, compile_engine, quantise_network
from builders.engines.failures import failure
from builders.engines.precision import CalibrationSet
from builders.grid.live import find
from builders.grid.tiles import tile_from_id
from builders.imagery.inventory import Inventory
from store.disk.index import Record
from store.disk.locks import exclusive
from store.disk.media import object_path
from store.disk.objects import read_chunks
from store.errors import Corrupt, FlightbagError, NotFound, Unavailable
from store.format.ids import BuildKey, ObjectId
from store.ground.writer import Writer, writing


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """What became of an engine: its objects, as in `EngineTask.present`; its card; seconds where it was built now."""

    found: Found
    card: Card
    seconds: float | None


class ArtifactStore:
    """A store that artifacts are built into, by whoever holds its lock."""

    def __init__(self, writer: Writer, now: int) -> None:
        self.writer = writer
        self.now = now

    def lookup(self, key: BuildKey) -> Found | None:
        """What a key was built to, if every byte of it is there still."""
        record = self.writer.index.record(key)
        if record is None:
            return None
        found = []
        for id_ in record.ids:
            try:
                size = self.writer.repository.media.stamp(object_path(id_)).size
                self.writer.check(id_, size)
            except (NotFound, Corrupt):
                return None
            found.append((id_, size))
        return tuple(found) or None

    def read(self, id_: ObjectId, size: int) -> bytes:
        """The bytes of an object. Raises NotFound, Corrupt or Unavailable where it is not there, whole."""
        return bytes(self.writer.repository.evidence.bytes_of(id_, size))

    @contextmanager
    def key_lock(self, key: BuildKey) -> Iterator[None]:
        """One build per key across processes; keys share 256 locks, and a process holds one of them at a time."""
        repository = self.writer.repository
        name = f"build-{key.hex()[:2]}"
        with exclusive(repository.media.path, repository.disk, name, "a build of the same artifact", timeout=-1):
            yield

    def remember(self, built: Mapping[BuildKey, tuple[tuple[ObjectId, ...], float]], tools: str) -> None:
        """Records what keys were built to, and in how many seconds, behind their locks."""
        about = {"from": "build", "user": _user(), "host": socket.gethostname(), "tools": tools, "at": self.now}
        # A record that is there was looked up, and what it names not found whole.
        self.writer.record(
            {
                key: Record(ids, {**about, "milliseconds": round(seconds * 1000)})
                for key, (ids, seconds) in built.items()
            },
            replace=True,
        )


class EngineBuilder:
    """Builds engines of a mission file with a workbench."""

    def __init__(
        self, context: BuildContext, artifacts: ArtifactStore, inventory: Inventory | None, progress: Progress
    ) -> None:
        self.context = context
        self.artifacts = artifacts
        self.inventory = inventory
        self.progress = progress

    def engine(self, task: EngineTask) -> BuiltEngine:
        """The engine, from the store if it is there, else built now.

        Raises Refused where it is further from its source than the mission file allows, also if it was built under
        another tolerance.
        """
        if (there := self.present(task)) is None:
            try:
                # Before the engine's lock: a process holds one at a time.
                quantised = self.quantised(task.spec, task.step) if task.step is not None else None
                with self.artifacts.key_lock(task.recipe.key):
                    # Somebody else may have built it while this process waited.
                    there = self.present(task) or self.build(task, quantised)
            except OSError as error:
                what = f"what {task.spec.backbone} is built from or to cannot be read or written: {error.strerror}"
                raise Unavailable(what, remedy="free some space in the store", path=error.filename) from error
        self.judge(task, there.card)
        return there

    def present(self, task: EngineTask) -> BuiltEngine | None:
        """The engine as it is in the store; None where it, its card or a part of it is not."""
        found = self.artifacts.lookup(task.recipe.key)
        card = self.card_of(task, found) if found is not None else None
        return None if found is None or card is None else BuiltEngine(found, card, None)

    def card_of(self, task: EngineTask, found: Found) -> Card | None:
        """The card of these objects (card, model[, weights]), if they are the engine of the task and were checked at
        the shapes that it asks for; None otherwise."""
        if len(found) not in (2, 3):
            return None
        try:
            card = Card.parse(self.artifacts.writer.repository.evidence.object(found[0][0], CARD_LIMIT))
        except Unavailable:
            raise
        except FlightbagError:
            return None
        checked = [{name: tuple(shape) for name, shape in case.shapes.items()} for case in card.check.cases]
        if not card.describes(task.recipe.key, found[1:]) or checked != [dict(case) for case in task.spec.cases()]:
            return None
        return card

    def judge(self, task: EngineTask, card: Card) -> None:
        """Raises Refused where the engine is further from its source than the mission file allows now."""
        with self.context.about(f"backbones[{task.spec.backbone}]"):
            judge(card.check, self.context.tolerance(task.spec.precision))

    def build(self, task: EngineTask, quantised: ObjectId | None) -> BuiltEngine:
        """Compiles, checks and stores the engine, behind its key's lock."""
        spec, start = task.spec, time.monotonic()
        with self.artifacts.writer.inserting() as batch, self.context.about(f"backbones[{spec.backbone}]"):
            folder = Path(batch.folder())
            network = None
            if quantised is not None:
                network = folder / "quantised.onnx"
                network.write_bytes(self.object(quantised))
            compiled = compile_engine(
                task.backend,
                spec,
                task.host,
                folder,
                tolerance=self.context.tolerance(spec.precision),
                surroundings=self.context.surroundings,
                tell=self.teller(f"compiling {spec.backbone}"),
                quantised=network,
                calibration=self.calibration(spec, task.step) if task.step is not None else None,
            )
            parts = {part.name: batch.add(read_chunks(str(part.path)), expect=part.id) for part in compiled.parts}
            card = self.card(task, compiled, {name: [str(one.id), one.size] for name, one in parts.items()})
            added = [batch.add_bytes(card.render()), *(parts[name] for name in ("model", "weights") if name in parts)]
            batch.commit()
        seconds = time.monotonic() - start
        tools = f"{task.backend.name} {task.backend.version}"
        self.artifacts.remember({task.recipe.key: (tuple(one.id for one in added), seconds)}, tools)
        return BuiltEngine(tuple((one.id, one.size) for one in added), card, seconds)

    def card(self, task: EngineTask, compiled: CompiledEngine, parts: Mapping[str, Any]) -> Card:
        return Card(
            recipe=task.recipe,
            steps=task.keyed.steps,
            parts=parts,
            inputs=compiled.ends["inputs"],
            outputs=compiled.ends["outputs"],
            check=compiled.check,
            tolerance=self.context.tolerance(task.spec.precision),
            tools=compiled.tools,
            inspector=compiled.inspector,
            seconds=round(compiled.seconds, 3),
        )

    def quantised(self, spec: EngineSpec, step: QuantiseTask) -> ObjectId:
        """The network in int8, from the store or quantised now."""
        key = step.recipe.key
        with self.artifacts.key_lock(key):
            if (found := self.artifacts.lookup(key)) is not None:
                return found[0][0]
            with self.artifacts.writer.inserting() as batch, self.context.about(f"backbones[{spec.backbone}]"):
                part, seconds = quantise_network(
                    spec,
                    self.calibration(spec, step),
                    step.method,
                    Path(batch.folder()),
                    surroundings=self.context.surroundings,
                    tell=self.teller(f"quantising {spec.backbone}"),
                )
                added = batch.add(read_chunks(str(part.path)), expect=part.id)
                batch.commit()
            self.artifacts.remember({key: ((added.id,), seconds)}, str(step.recipe.fields["tool"]))
            return added.id

    def calibration(self, spec: EngineSpec, step: QuantiseTask) -> CalibrationSet:
        """The calibration tiles as rows of the network's input. What was planned is what is read."""
        import numpy as np

        assert self.inventory is not None
        preprocess = preprocess_of(step.set)
        rows = []
        for level in self.inventory.levels:
            wanted = step.tiles[find(level.required, step.tiles)[0]]
            for number, data in self.context.sources.read_again(level, wanted):
                try:
                    rows.append(preprocess.tensor(resized(decode(data), preprocess)))
                except Undecodable as error:
                    what = f"the calibration tile {tile_from_id(number)} of {spec.backbone} cannot be decoded"
                    raise failure("calibration", f"{what}: {error.message}") from error
        return CalibrationSet(np.stack(rows))

    def object(self, id_: ObjectId) -> bytes:
        repository = self.artifacts.writer.repository
        return bytes(repository.evidence.bytes_of(id_, repository.media.stamp(object_path(id_)).size))

    def teller(self, label: str) -> Progress:
        """Passes on what a worker tells: of each phase how far it is, under one label."""
        done: dict[str, int] = {}

        def tell(phase: str, now: int, total: int) -> None:
            self.progress(f"{label}: {phase}", max(now - done.get(phase, 0), 0), total)
            done[phase] = now

        return tell


@dataclass(frozen=True, slots=True)
class EngineReport:
    """One engine of a build of engines: `action` is `built`, `reused` or `failed`, then with `error`; `bytes` of the
    engine and its weights; `seconds` where it was built now."""

    backbone: str
    entry: str
    key: str
    action: str
    bytes: int = 0
    seconds: float | None = None
    card: Card | None = None
    error: FlightbagError | None = None

    def as_json(self) -> dict[str, Any]:
        error = self.error
        return {
            "backbone": self.backbone,
            "entry": self.entry,
            "key": self.key,
            "action": self.action,
            "bytes": self.bytes,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "card": None if self.card is None else self.card.as_json(),
            "error": None
            if error is None
            else {
                "kind": error.fields.get("kind"),
                "message": error.message,
                "remedy": error.remedy,
                "log": error.fields.get("log"),
            },
        }


def build_engines(context: BuildContext, *, now: int, progress: Progress = silent) -> list[EngineReport]:
    """Builds the engines of a mission file and nothing else; one whose building fails does not keep the others back.
    What keeps a key from being told, such as a backend that is not installed, is raised before anything is built.

    What is built is in the store under its key, for the missions to come. Takes no mission's lock.
    """
    with writing(context.repository) as writer:
        artifacts = ArtifactStore(writer, now)
        tasks, inventory = plan_engines(context, artifacts.lookup, progress)
        builder = EngineBuilder(context, artifacts, inventory, progress)
        return [_report(builder, task) for task in tasks]


def _report(builder: EngineBuilder, task: EngineTask) -> EngineReport:
    about = (task.spec.backbone, task.name, str(task.recipe.key))
    try:
        one = builder.engine(task)
    except FlightbagError as error:
        return EngineReport(*about, "failed", error=error)
    size = sum(size for _, size in one.found[1:])
    return EngineReport(*about, "reused" if one.seconds is None else "built", size, one.seconds, one.card)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
