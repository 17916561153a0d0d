"""Run in a confined process what reads foreign bytes or runs a network; see decision 19.

Each function starts `python -m builders.confined` on one task, passes its progress on, and returns what it gave back,
read by the types that are expected. Ctrl-C is heard at once, also while a network runs. The process inherits no key, no
descriptor and no secret of the environment; it has bounds of memory and of time without progress; and when a function
returns, it has ended, and so has every process that it started (`builders.engines.keeper`).
"""

from __future__ import annotations

import json
import os
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builders.activity import Recorder
from builders.artifacts.supply import SUPPLIED, WANTED, WANTED_LIMIT, Ask, offers_to_json, wanted_from_bytes
from builders.engines.isolation import Job, Limits, Worker, run_worker, usable_memory
from store.disk.media import Media
from store.errors import Corrupt, Invalid, Unavailable
from store.findings import Finding
from store.takeoff.mission import Evidence, Opened, OperatorCheck

if TYPE_CHECKING:
    from builders.engines.card import EngineRecipes
    from builders.inspection import Inspected
    from builders.report import Comparison, EngineReport, NodeReport, OrderReport, PlanReport

# A table has at most 22 MB in base64, the artifacts of its report 40 MB, and a million runs of missing tiles 30 MB.
_MAX_RESULT = 128 * 2**20
# Until the mission file is read, which states the limits.
_SECONDS = 4 * 3600.0
# A driver of a cluster shows its token; see decision 31.
_CLUSTER_SECRETS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
# A message with a larger number, or of one more kind of work, is none of ours.
_MAX_NUMBER, _MAX_ACTIVITIES = 2**53, 100

Progress = Callable[[str, int, int], None]


class ConfinedError(Exception):
    """An error of this program in the confined process; the message is its traceback."""


def run_confined(
    task: str,
    request: dict[str, Any],
    about: str,
    progress: Progress,
    opened: Callable[[str], None] = lambda _mission: None,
    placed: Callable[[str], None] = lambda _place: None,
    *,
    module: str = "builders.confined",
    supply: Ask | None = None,
) -> dict[str, Any]:
    """Return the result of a task of `module`. `about` names the file that it is about; `opened` gets the id of the
    mission, `placed` the digest of its place (`crossing.place_digest`). `supply` asks a shared cache for build keys.

    Raise what the task raised, Unavailable (kind `out-of-memory`, `timed-out` or `failed`) where it did not come to an
    end, and ConfinedError for an error of this program.
    """
    with tempfile.TemporaryDirectory(prefix="flightbag-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        job = Job(
            module=module,
            does=f"reads {about}",
            doing=f"the process that reads {about}",
            cwd=Path.cwd(),
            max_result=_MAX_RESULT,
            secrets=() if request.get("executor", "local") == "local" else _CLUSTER_SECRETS,
        )

        activities: set[str] = set()

        def receive(line: bytes, worker: Worker) -> None:
            try:
                what, text, number, total = json.loads(line)
                text, number, total = str(text), int(number), int(total)
            except (ValueError, TypeError, OverflowError, RecursionError):
                return
            if max(abs(number), abs(total)) > _MAX_NUMBER:
                return
            if what == "progress":
                activities.add(text)
                if len(activities) <= _MAX_ACTIVITIES:
                    progress(text, number, total)
            elif what == "placed":
                placed(text)
            elif what == "wanted" and supply is not None:
                _answer(folder, supply)
                worker.send(b"\n")
            elif what == "loaded":
                opened(text)
                worker.seconds = number
                worker.send(b"\n")
                _load_while_it_works()

        with closing(Recorder(folder / "recorder", _tile)) as recorder:
            full = {**request, "task": task, "about": about, "recorder": str(folder / "recorder")}
            full["supply"] = "" if supply is None else str(folder)
            result, _ = run_worker(job, full, folder, Limits(usable_memory(), _SECONDS), receive, recorder)
    if "failure" in result:
        from builders.crossing import error_from_json

        raise error_from_json(result["failure"])
    if "unexpected" in result:
        raise ConfinedError(str(result["unexpected"]))
    return result


def _answer(folder: Path, supply: Ask) -> None:
    """Answer the question of a confined process, once. What that process wrote may be anything."""
    with Media(folder) as media:
        asked = wanted_from_bytes(media.read(WANTED, WANTED_LIMIT))
    data = json.dumps(offers_to_json(supply(asked))).encode()
    try:
        with (folder / SUPPLIED).open("xb") as file:  # through no link
            file.write(data)
    except FileExistsError as error:
        text = "the confined process asked the shared cache a second time"
        raise Corrupt(text, remedy="report this as a defect", kind="failed") from error


def _tile(number: int) -> str:
    from builders.grid.tiles import tile_from_id

    return str(tile_from_id(number))


def _load_while_it_works() -> None:
    """Load what reads the result. Loading it before the worker starts would add to the time of every build."""
    import builders.crossing
    import builders.report  # noqa: F401


def build(
    mission_file: Path,
    store: str | os.PathLike[str],
    cache: Path,
    *,
    keys: int,
    now: int,
    remembered: bool,
    progress: Progress,
    opened: Callable[[str], None],
    placed: Callable[[str], None],
    supply: Ask | None = None,
    executor: str = "local",
) -> dict[str, Any]:
    """Prepare a mission, and return what `confined.build` returns. `opened` takes the mission's lock. `executor` is as
    `cluster.driver.address_of` reads it."""
    request = {
        **_request(mission_file, store, cache),
        "keys": keys,
        "now": now,
        "remembered": remembered,
        "executor": executor,
    }
    return run_confined("build", request, str(mission_file), progress, opened, placed, supply=supply)


def plan(mission_file: Path, store: str | os.PathLike[str], cache: Path, *, now: int, progress: Progress) -> PlanReport:
    """Return the plan of a mission file, as the store is now."""
    from builders.crossing import from_json
    from builders.report import PlanReport

    request = {**_request(mission_file, store, cache), "now": now}
    return from_json(PlanReport, run_confined("plan", request, str(mission_file), progress).get("report"))


def compare(
    mission_file: Path,
    store: str | os.PathLike[str],
    cache: Path,
    *,
    now: int,
    progress: Progress,
    opened: Callable[[str], None],
) -> Comparison:
    """Return a mission file beside the published mission: see `comparison.compare`. `opened` gets the id of the
    mission, before anything is opened that the mission file names."""
    from builders.crossing import from_json
    from builders.report import Comparison

    request = {**_request(mission_file, store, cache), "now": now}
    result = run_confined("compare", request, str(mission_file), progress, opened)
    return from_json(Comparison, result.get("comparison"))


def engines(
    mission_file: Path,
    store: str | os.PathLike[str],
    cache: Path,
    *,
    now: int,
    progress: Progress,
    supply: Ask | None = None,
    executor: str = "local",
) -> tuple[list[EngineReport], Any]:
    """Build the engines of a mission file into the store: see `artifacts.engine.build_engines`. Return the report, and
    what of a shared cache did not fit, as `confined.build` does."""
    from builders.crossing import error_from_json, from_json
    from builders.engines.card import Card
    from builders.report import EngineReport

    request = {**_request(mission_file, store, cache), "now": now, "executor": executor}
    result = run_confined("engines", request, str(mission_file), progress, supply=supply)
    report = [
        replace(
            from_json(EngineReport, one["report"]),
            card=None if one["card"] is None else Card.parse(one["card"].encode()),
            error=None if one["error"] is None else error_from_json(one["error"]),
        )
        for one in result["engines"]
    ]
    return report, result.get("unfit")


def order(
    mission_file: Path, store: str | os.PathLike[str], cache: Path, *, now: int, progress: Progress
) -> tuple[OrderReport, ...]:
    """Order the engines of a mission file that this machine cannot make or prove: see `ordering.order_engines`."""
    from builders.crossing import from_json
    from builders.report import OrderReport

    request = {**_request(mission_file, store, cache), "now": now}
    result = run_confined("order", request, str(mission_file), progress)
    return from_json(tuple[OrderReport, ...], result.get("orders"))


def recipes(mission_file: Path, backbone: str, cache: Path, *, host: str | None, progress: Progress) -> EngineRecipes:
    """Return what the build key of the engine of a backbone is made of, for the target with this class."""
    from builders.engines.card import EngineRecipes

    request = {**_request(mission_file, None, cache), "backbone": backbone, "host": host}
    result = run_confined("recipes", request, str(mission_file), progress)
    return EngineRecipes.of_plain(result["recipe"], result["steps"])


def inspect(imagery: str, model: Path, *, progress: Progress) -> Inspected:
    """Return what a tile source and a model say of themselves: see `inspection.inspect`."""
    from builders.crossing import from_json
    from builders.inspection import Inspected

    request = {"imagery": imagery, "model": str(model)}
    result = run_confined("inspect", request, f"{imagery} and {model}", progress)
    return from_json(Inspected, result.get("inspected"))


def nodes(executor: str) -> tuple[NodeReport, ...]:
    """Return what each node of a cluster can build."""
    from builders.crossing import from_json
    from builders.report import NodeReport

    about = f"the nodes of {executor}"
    result = run_confined("nodes", {"executor": executor}, about, lambda _what, _done, _total: None)
    return from_json(tuple[NodeReport, ...], result.get("nodes"))


def check_tiles(store: str | os.PathLike[str], tiles: Sequence[str]) -> OperatorCheck:
    """Return step G of the takeoff check against these sources: see `operator_check.check_tiles`."""

    def check(_evidence: Evidence, opened: Opened) -> Iterator[Finding]:
        try:
            result = run_confined("tiles", _of_mission(store, opened, tiles), ", ".join(tiles), lambda *_: None)
        except Unavailable as error:
            yield Finding.of(error, step="G", entry="coverage")
            return
        from builders.crossing import from_json

        yield from from_json(tuple[Finding, ...], result.get("findings"))

    return check


def samples(store: str | os.PathLike[str], opened: Opened, tiles: Sequence[str]) -> list[tuple[int, bytes]]:
    """Return a few tiles of a mission from these sources, as pixels: see `builders.samples`. Raise Corrupt for anything
    else than tiles that exist and their pixels."""
    result = run_confined("samples", _of_mission(store, opened, tiles), ", ".join(tiles), lambda *_: None)
    from builders.atlas import SAMPLE_SIDE, SAMPLES

    strip: list[tuple[int, bytes]] = []
    try:
        for number, text in result["tiles"]:
            pixels = b64decode(text, validate=True)
            if type(number) is not int or len(pixels) != 3 * SAMPLE_SIDE**2:
                raise ValueError
            _tile(number)
            strip.append((number, pixels))
        if len(strip) > SAMPLES:
            raise ValueError
    except (KeyError, TypeError, ValueError, Invalid) as error:
        text = "the confined process gave back something else than tiles"
        raise Corrupt(text, remedy="report this as a defect", kind="failed") from error
    return strip


def _of_mission(store: str | os.PathLike[str], opened: Opened, tiles: Sequence[str]) -> dict[str, Any]:
    return {
        "store": os.fspath(store),
        "manifest": str(opened.manifest_id),
        "root": b64encode(opened.trust_root.render()).decode(),
        "tiles": list(tiles),
    }


def _request(mission_file: Path, store: str | os.PathLike[str] | None, cache: Path) -> dict[str, Any]:
    return {
        "mission_file": str(mission_file),
        "store": None if store is None else os.fspath(store),
        "cache": str(cache),
    }
