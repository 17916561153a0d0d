"""What a search finds: the mission's map asked with its own tiles, changed, and with those of another date."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from builders.example.terrain import write_terrain
from builders.imagery.roworder import SourcePath
from builders.onboard.flying import engine_of, flying_engine, sets_of
from builders.onboard.retriever import Retriever
from builders.retrieval.quality import RecallMeasurement
from builders.retrieval.query import imagery_of, wanted_of
from builders.retrieval.recall import tally
from store.takeoff.check import takeoff_check
from tests.support.commands import flightbag
from tests.support.field import LEFT, TAKEOFF, WORLD, make_desk

METHODS = ("exact", "ivf", "hnsw")
_TOP = 5


def table(folder: Path, *, small: bool) -> dict[str, Any]:
    """The figures, printed and given."""
    desk = make_desk(folder)
    shared = "" if small else os.environ.get("FLIGHTBAG_SHARED", "")
    settings: dict[str, Any]
    if shared:
        data = Path(shared) / "data"
        map_, other = (data / f"imagery/naip-{date}.mbtiles" for date in ("20180716", "20190904"))
        settings = {"tiles": map_, "model": data / "models/place-embedder.onnx", "resize": 256}
        settings |= {"bbox": (-99.175, 47.008, -99.135, 47.033), "zooms": (16, 17)}
    else:
        map_, other = folder / "terrain.mbtiles", folder / "other.mbtiles"
        write_terrain(other, WORLD, (14, 15), seed=2)
        settings = {"bbox": LEFT, "zooms": (15,)}
    indexes = "".join(f'[[indexes]]\nname = "{m}"\nset = "embedder"\nmethod = "{m}"\n' for m in METHODS[1:])
    mission = desk.write_mission("map", takeoff=TAKEOFF, files=(), more=indexes, **settings)
    ran = flightbag("build", mission, "--store", desk.store, "--key", desk.key, "--json")
    if ran.status:
        raise SystemExit(ran.out + ran.err)
    verdict = takeoff_check(desk.store, "map", trust=desk.root.read_bytes(), now=int(time.time()))
    assert verdict.mission is not None
    result = asked(verdict.mission, map_, other)
    print(
        f"{'asked with':14}{'zoom':>5}{'rows':>6}{'asked':>6}" + "".join(f"{m + ' @1':>10}{'@5':>8}" for m in METHODS)
    )
    for row in result["recall"]:
        figures = "".join(f"{row[m][0]:>10.3f}{row[m][1]:>8.3f}" for m in METHODS)
        print(f"{row['way']:14}{row['zoom']:>5}{row['rows']:>6}{row['queries']:>6}{figures}")
    for method in METHODS:
        print(f"{method}: {result['ms'][method]:.3f} ms a query, {result['bytes'][method]} bytes")
    return result


def asked(mission: Any, map_: Path, other: Path) -> dict[str, Any]:
    """Recall of each way, zoom and method, milliseconds a query, and bytes of what is searched."""
    (set_,) = sets_of(mission)
    rows: list[dict[str, Any]] = []
    times: dict[str, list[float]] = {method: [] for method in METHODS}
    with ExitStack() as stack:
        layers = stack.enter_context(Retriever(mission, set_)).layers
        wanted = wanted_of(mission, layers)
        here, there = (
            imagery_of(stack, [SourcePath(path)], layers[0].recipe.tile_size, mission.facts.area.bbox, wanted)
            for path in (map_, other)
        )
        key = engine_of(mission, set_, layers[0].recipe).key
        assert key is not None
        question = RecallMeasurement(set_, key, tuple(layer.recipe for layer in layers), here, there, 128)
        engine = flying_engine(mission, set_)
        for layer in layers:
            count = sum(len(ids) for ids, _ in layer.rows())
            opened = {
                method: stack.enter_context(
                    Retriever(mission, set_, zoom=layer.zoom, index="" if method == "exact" else method)
                )
                for method in METHODS
            }
            for way in question.ways:
                queries = list(question.queries([way], layer))
                true = np.array([origin for origin, _, _ in queries], np.uint64)
                described = engine.describe([picture for _, _, [picture] in queries])
                row: dict[str, Any] = {"way": way, "zoom": layer.zoom, "rows": count, "queries": len(queries)}
                for method, retriever in opened.items():
                    start = time.perf_counter()
                    found = [retriever.nearest(described[i : i + 1], _TOP)[0] for i in range(len(described))]
                    times[method].append((time.perf_counter() - start) * 1e3 / len(described))
                    one = tally(np.concatenate(found) == true[:, None])
                    row[method] = (one.ppm(1) / 10**6, one.ppm(5) / 10**6)
                rows.append(row)
    sizes = {
        method: sum(
            entry.size
            for entry in mission.table.entries
            if entry.name.startswith("descriptors/" if method == "exact" else f"indexes/{set_}/{method}/")
        )
        for method in METHODS
    }
    return {"recall": rows, "ms": {m: float(np.median(ms)) for m, ms in times.items()}, "bytes": sizes}
