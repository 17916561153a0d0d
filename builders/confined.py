"""The confined process: all of a command that reads foreign bytes or runs a network, beside no key.

`confinement` runs it as `python -m builders.confined REQUEST RESULT FD`: the first two are JSON files, FD takes
messages. A task takes a request, and returns its result as JSON can hold it. An error of a known class is a result too
(status 0, `failure` in the result); any other exception is one with its traceback. Closing standard input interrupts
the task, as Ctrl-C would: what it has finished is stored first.

The process writes into the store, and signs nothing.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from builders.activity import doing, record_in
from builders.artifacts.supply import SUPPLIED, WANTED, Offer, Supply, offers_from_json, wanted_to_bytes
from builders.compose import BuildContext, open_context
from builders.crossing import error_to_json, place_digest, to_json
from builders.engines.card import plain
from builders.engines.failures import failure, unexpected_failure
from builders.engines.isolation import Limits, begin, end_without_clean_up, limit_memory
from builders.imagery.roworder import SourcePath
from builders.report import BuildReport, Comparison, EngineReport, OrderReport, PlanReport
from store.disk.layout import open_store
from store.errors import FlightbagError
from store.findings import Finding
from store.format.area import Area
from store.format.cose import Envelope
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import CONTENT_TYPE, ENVELOPE_LIMIT, PAYLOAD_LIMIT, Manifest, Takeoff
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Opened
from store.takeoff.verify import read_table
from store.trust.root import TrustRoot

_INTERVAL_S = 0.1
_OBJECTS_BETWEEN_COLLECTIONS = 100_000
_MAX_TEXT = 300

Request: TypeAlias = Mapping[str, Any]


class Messages:
    """The messages to the parent. `go` waits until the parent allows the task to go on."""

    def __init__(self, send: Callable[[list[Any]], None], go: Callable[[], object]) -> None:
        self._send = send
        self._go = go
        self._guard = threading.Lock()
        self._sums: dict[str, tuple[int, int]] = {}
        self._last = 0.0

    def progress(self, activity: str, done: int, total: int) -> None:
        """Report units of work, those of each interval as one message."""
        with self._guard:
            is_new = activity not in self._sums
            self._sums[activity] = (self._sums.get(activity, (0, 0))[0] + done, total)
            now = time.monotonic()
            if is_new or now - self._last >= _INTERVAL_S:
                self._last = now
                self._pass_on(activity)

    def _pass_on(self, activity: str) -> None:
        done, total = self._sums[activity]
        self._send(["progress", activity[:200], done, total])
        self._sums[activity] = (0, total)

    def flush(self) -> None:
        """Report what was not reported yet."""
        for activity, (done, _) in list(self._sums.items()):
            if done:
                self._pass_on(activity)

    def loaded(self, mission: str, limits: Limits) -> None:
        """Name the mission, whose lock the parent takes now, and its limits."""
        limit_memory(limits.memory)
        self._send(["loaded", mission, limits.seconds, 0])
        self._go()

    def ask(self, folder: Path, asked: Mapping[BuildKey, int]) -> dict[BuildKey, Offer]:
        """Ask the parent what the shared cache has for keys. Question and answer are files, in a folder of the two."""
        (folder / WANTED).write_bytes(wanted_to_bytes(asked))
        self._send(["wanted", "", len(asked), 0])
        self._go()
        return offers_from_json(json.loads((folder / SUPPLIED).read_bytes()))

    def placed(self, area: Area, takeoff: Takeoff) -> None:
        """State the place of the mission, which nothing that is read from now on can take back."""
        self._send(["placed", place_digest(area, takeoff), 0, 0])


def build(request: Request, messages: Messages) -> dict[str, Any]:
    """Prepare a mission: see `orchestrator.prepare`."""
    from builders.cluster.driver import executor_of
    from builders.orchestrator import prepare

    supply = _supply(request, messages)
    with _opened(request, messages) as context, executor_of(request["executor"], messages.progress) as executor:
        report, payload = prepare(
            context,
            keys=request["keys"],
            now=request["now"],
            progress=messages.progress,
            remembered=request["remembered"],
            supply=supply,
            executor=executor,
        )
        notes = (*context.notes, *executor.notes)
    result: dict[str, Any] = {
        "report": to_json(BuildReport, replace(report, notes=(*notes, *report.notes))),
        "unfit": _unfit(supply),
    }
    if payload is not None:
        result["payload"] = {
            "manifest": b64encode(payload.manifest.render()).decode(),
            "table": b64encode(payload.table.render()).decode(),
            "draft": payload.draft,
            "lacking": payload.lacking,
        }
    return result


def plan(request: Request, messages: Messages) -> dict[str, Any]:
    """Plan a mission: see `artifacts.plan.plan`."""
    from builders.artifacts.plan import plan

    with _opened(request, messages) as context:
        report = plan(context, messages.progress, now=request["now"]).report(context.repository)
        return {"report": to_json(PlanReport, replace(report, notes=context.notes))}


def compare(request: Request, messages: Messages) -> dict[str, Any]:
    """Compare a mission file with the published mission: see `comparison.compare`."""
    from builders.comparison import compare

    with _opened(request, messages) as context:
        return {"comparison": to_json(Comparison, compare(context, messages.progress, now=request["now"]))}


def engines(request: Request, messages: Messages) -> dict[str, Any]:
    """Build the engines of a mission: see `artifacts.engine.build_engines`."""
    from builders.artifacts.engine import build_engines
    from builders.cluster.driver import executor_of

    supply = _supply(request, messages)
    with _opened(request, messages) as context, executor_of(request["executor"], messages.progress) as executor:
        report = build_engines(
            context, now=request["now"], progress=messages.progress, supply=supply, executor=executor
        )
    return {
        "unfit": _unfit(supply),
        "engines": [
            {
                "report": to_json(EngineReport, replace(one, card=None, error=None)),
                "card": None if one.card is None else one.card.render().decode(),
                "error": None if one.error is None else error_to_json(one.error),
            }
            for one in report
        ],
    }


def order(request: Request, messages: Messages) -> dict[str, Any]:
    """Order the engines of a mission: see `ordering.order_engines`."""
    from builders.ordering import order_engines

    with _opened(request, messages) as context:
        reports = order_engines(context, now=request["now"], progress=messages.progress)
    return {"orders": to_json(tuple[OrderReport, ...], tuple(reports))}


def nodes(request: Request, _messages: Messages) -> dict[str, Any]:
    """Return what each node of a cluster can build: see `cluster.driver.described`."""
    from builders.cluster.driver import address_of, connected, described
    from builders.report import NodeReport

    with connected(address_of(request["executor"]) or "auto") as executor:
        return {"nodes": to_json(tuple[NodeReport, ...], tuple(described(executor)))}


def recipes(request: Request, messages: Messages) -> dict[str, Any]:
    """Return what the build key of an engine is made of: see `artifacts.engine.explained`."""
    from builders.artifacts.engine import explained

    with _opened(request, messages) as context:
        keyed = explained(context, request["backbone"], request["host"], messages.progress).recipes
    return {
        "recipe": plain(keyed.recipe.fields),
        "steps": {name: plain(step.fields) for name, step in keyed.steps.items()},
    }


def tiles(request: Request, _messages: Messages) -> dict[str, Any]:
    """Compare tile sources with a mission: see `operator_check`."""
    from builders.operator_check import check_tiles

    with _verified(request) as (evidence, opened):
        check = check_tiles([SourcePath.parse(one) for one in request["tiles"]])
        findings = tuple(check(evidence, opened))
    return {"findings": to_json(tuple[Finding, ...], findings)}


def _supply(request: Request, messages: Messages) -> Supply | None:
    """Return what a shared cache offers, None where the parent has none."""
    return Supply(partial(messages.ask, Path(request["supply"]))) if request["supply"] else None


def _unfit(supply: Supply | None) -> list[list[str]]:
    """Return key, kind and message of what was offered and refused."""
    refused = {} if supply is None else supply.refused
    return [[str(key), error.kind, error.message[:_MAX_TEXT]] for key, error in refused.items()]


def inspect(request: Request, _messages: Messages) -> dict[str, Any]:
    """Return what a tile source and a model say of themselves: see `inspection.inspect`."""
    from builders.inspection import Inspected, inspect

    return {"inspected": to_json(Inspected, inspect(request["imagery"], Path(request["model"])))}


def samples(request: Request, _messages: Messages) -> dict[str, Any]:
    """Return a few tiles of a mission as pixels: see `builders.samples`."""
    from builders.samples import samples

    with _verified(request) as (evidence, opened):
        strip = samples(evidence, opened, [SourcePath.parse(one) for one in request["tiles"]])
    return {"tiles": [[number, b64encode(pixels).decode()] for number, pixels in strip]}


Tasks: TypeAlias = Mapping[str, Callable[[Request, Messages], dict[str, Any]]]

TASKS: Tasks = {
    "build": build,
    "compare": compare,
    "engines": engines,
    "inspect": inspect,
    "nodes": nodes,
    "order": order,
    "plan": plan,
    "recipes": recipes,
    "samples": samples,
    "tiles": tiles,
}


@contextmanager
def _opened(request: Request, messages: Messages) -> Iterator[BuildContext]:
    folder = Path(request["cache"])
    file = Path(request["mission_file"])
    with open_context(file, request["store"], folder, messages.progress, messages.loaded, messages.placed) as context:
        yield context


@contextmanager
def _verified(request: Request) -> Iterator[tuple[StoreEvidence, Opened]]:
    """Open the store of a request, and its mission, whose manifest and objects the parent verified."""
    with open_store(request["store"]) as media:
        evidence, id_ = StoreEvidence(media), ObjectId.parse(request["manifest"])
        data = evidence.object(id_, ENVELOPE_LIMIT)
        manifest = Manifest.parse(Envelope.parse(data, CONTENT_TYPE, PAYLOAD_LIMIT).payload)
        root = TrustRoot.parse(b64decode(request["root"]))
        yield evidence, Opened(manifest, id_, len(data), read_table(evidence, manifest), root)


def result_of(request: Request, messages: Messages, tasks: Tasks = TASKS) -> dict[str, Any]:
    """Return the result of a request, or its failure as a result."""
    try:
        with doing(f"reading {request['about']}"):
            result = tasks[request["task"]](request, messages)
        messages.flush()
        return result
    except FlightbagError as error:
        return {"failure": error_to_json(error)}
    except MemoryError as error:
        at = getattr(error, "__notes__", [f"reading {request['about']}"])[0]
        return {"failure": error_to_json(failure("out-of-memory", f"memory ran out while it was {at}"))}
    except Exception as error:  # noqa: BLE001 - the parent raises it
        cause = unexpected_failure(error, tempfile.gettempdir())
        return {"failure": error_to_json(cause)} if cause.kind == "no-space" else {"unexpected": traceback.format_exc()}


def main(request_path: Path, result_path: Path, pipe: int, tasks: Tasks = TASKS) -> None:
    """Do the task of the request, and write the result last."""
    request = json.loads(request_path.read_bytes())
    begin(request["memory"])
    record_in(Path(request["recorder"]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # As `tools.program` does: tables and inventories are large, and have no cycles.
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    allowed = threading.Semaphore(0)
    main_thread = threading.get_ident()

    def watch() -> None:
        while os.read(0, 1):
            allowed.release()
        signal.pthread_kill(main_thread, signal.SIGINT)

    def send(message: list[Any]) -> None:
        os.write(pipe, json.dumps(message).encode() + b"\n")

    threading.Thread(target=watch, daemon=True).start()
    result_path.write_text(json.dumps(result_of(request, Messages(send, allowed.acquire), tasks)))
    end_without_clean_up()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
