"""A map of 10^8 tiles on 1 to 1,000 workers: the seconds of each station are measured here, the rest is simulated.

Measured: describing, reading and hashing tiles, sending a cell to another process and taking a shard back over a socket
of this machine, storing shards, planning, and the entry table. Imagery and backbone are the shared ones where they are
at hand. Seconds are those of a core, which other work on the machine hardly changes, but for the barrier of the disk:
there the quickest counts. Not measured, and named in what is printed: the slow backbone, the spread of units, the link.
"""

from __future__ import annotations

import datetime
import pickle
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import numpy as np

from builders.artifacts.shard import GROUP, ShardRequest, ShardResult, describe_cell, forget_networks
from builders.artifacts.store import ArtifactStore
from builders.artifacts.task import silent
from builders.compose import EMBED_BATCH
from builders.descriptors.embed import CellRequest, Description
from builders.descriptors.preprocess import Preprocess
from builders.descriptors.rows import CachedCell, RowCache, view_digests
from builders.descriptors.shard import write_shard
from builders.grid.tiles import MAX_AREA_TILES, Tile, tile_id, tiles_of_bbox
from builders.imagery.inventory import LevelRequest, SourceSpec, TileSources, cells_of
from builders.inspection import inspect
from builders.recipe import RowRecipe
from store.format.entries import MAX_ENTRIES, TABLE_LIMIT, Entry, EntryTable, sorted_table
from store.format.ids import BuildKey, ObjectId
from store.ground.repository import Repository
from store.ground.writer import writing
from tests.bench import maps
from tests.bench.simulation import Run, Unit, simulate
from tests.support.field import make_store

TILES = 10**8
CELL = 256
WIDTH = 512  # numbers of a row
WORKERS = (1, 8, 32, 100, 1000)
# Assumed. Large transformers describe a few tiles a second on a CPU; a gigabit link carries 118 MB/s.
SLOW = 5.0
SPREAD = 0.2
BANDWIDTH = 118e6
MEMORY_TILES = 40_000
# Of a cluster: cells of a round, and cells under way, for each worker.
ROUNDS, AHEAD = 8, 3


def scale(folder: Path, *, small: bool) -> dict[str, Any]:
    measured = measure(folder, small=small)
    print("measured here:")
    for name, value in measured.items():
        print(f"  {name:44}{value:>14,.6g}")
    result: dict[str, Any] = {"measured": measured, "simulated": []}
    tiles = 100_000 if small else TILES
    print(f"\nsimulated: {tiles:,} tiles; assumed: units differ by {SPREAD:.0%}, a link of {BANDWIDTH / 1e6:.0f} MB/s")
    print(f"{'backbone':>20}{'workers':>9}{'under way':>11}{'tiles/s':>10}{'days':>9}{'driver':>8}{'link':>7}  limit")
    for name, rate in (("measured", measured["tiles described a second by a core"]), ("slow, assumed", SLOW)):
        for workers in WORKERS:
            for way, round_, window in (
                (f"{GROUP}", GROUP, GROUP),
                (f"{AHEAD} a worker", max(GROUP, ROUNDS * workers), AHEAD * workers),
            ):
                run = _run(measured, rate, tiles, workers, round_, window)
                result["simulated"].append(
                    {"backbone": name, "workers": workers, "under_way": way, "rate": tiles / run.seconds}
                    | {"seconds": run.seconds, "driver": run.driver, "link": run.link, "limit": run.limit}
                )
                print(
                    f"{name:>20}{workers:>9}{way:>11}{tiles / run.seconds:>10,.0f}{run.seconds / 86400:>9,.2f}"
                    f"{run.driver:>8.0%}{run.link:>7.0%}  {run.limit}",
                    flush=True,
                )
    return result


def _run(measured: dict[str, float], rate: float, tiles: int, workers: int, round_: int, window: int) -> Run:
    unit = Unit(
        send=CELL * measured["seconds to read a tile again"] + measured["seconds to send a cell"],
        describe=CELL / rate,
        take=measured["seconds to take a shard"] + measured["seconds to store a shard"],
        barrier=measured[f"seconds to make {GROUP} shards durable"],
        durable=GROUP,
        sent=round(CELL * measured["bytes a tile"]),
        returned=round(measured["bytes a shard"]),
        spread=SPREAD,
    )
    return simulate(unit, cells=-(-tiles // CELL), workers=workers, round_=round_, window=window, bandwidth=BANDWIDTH)


def measure(folder: Path, *, small: bool) -> dict[str, float]:
    """The seconds of each station, and the bytes that pass between them, by what they are."""
    cell, result = _reading(folder, small=small)
    result["tiles described a second by a core"] = CELL / _seconds(lambda: describe_cell(cell, silent))
    forget_networks()
    result |= _crossing(cell, 8 if small else 200)
    result |= _storing(folder / "store", cell, GROUP if small else 20 * GROUP)
    result |= _planning(folder, (400, 900) if small else (40_000, 250_000))
    result |= _table(2000 if small else MAX_ENTRIES)
    return result


# -- reading


def _reading(folder: Path, *, small: bool) -> tuple[ShardRequest, dict[str, float]]:
    """A full cell as it is sent to a worker, and what reading it costs. The cell has the tiles of the real imagery."""
    path, model, side, zoom = maps.imagery(folder, small=small)
    bbox = inspect(f"tms:{path}", model).imagery.bbox
    spec = SourceSpec(path, (zoom,), datetime.date(2018, 7, 16), scheme="tms")
    with TileSources((spec,), 256, bbox) as sources:
        ids = tiles_of_bbox(bbox, zoom)
        request = LevelRequest(ids, cells_of(zoom, ids))
        hashed = _seconds(lambda: sources.inventory({zoom: request}))
        level = sources.inventory({zoom: request}).level(zoom)
        again = _seconds(lambda: list(sources.read_again(level, level.ids)))
        tiles = list(sources.read_again(level, level.ids))
    count = len(tiles)
    # The tiles of one cell are a range of ids: as many real images as a full cell has.
    first = tile_id(Tile(zoom, 0, 0))
    full = tuple((first + place, tiles[place % count][1]) for place in range(CELL))
    preprocess = Preprocess((side, side))
    request_of_cell = ShardRequest(
        Description(model, "descriptor", preprocess, EMBED_BATCH),  # by its path: a worker gets it once
        "float16",
        CellRequest(zoom, tuple(number for number, _ in full), full),
        (np.empty(0, np.uint64), np.empty((0, 0), np.float16)),
        _recipe().metadata(),
    )
    return request_of_cell, {
        "bytes a tile": sum(len(data) for _, data in tiles) / count,
        "seconds to read and hash a tile": hashed / count,
        "seconds to read a tile again": again / count,
    }


def _recipe() -> RowRecipe:
    return RowRecipe("", bytes(32), "descriptor", Preprocess((256, 256)).fields(), 256, (1, 1), "float16", "none")


# -- crossing


def _crossing(cell: ShardRequest, count: int) -> dict[str, float]:
    """Sending cells to a process and taking shards from it, over TCP on this machine: the seconds of the driver."""
    with _other() as connection:
        start = time.process_time()
        for _ in range(count):
            connection.send_bytes(pickle.dumps(cell, protocol=5))
        connection.send_bytes(b"")
        sent = (time.process_time() - start) / count
        start = time.process_time()
        for _ in range(count):
            result = pickle.loads(connection.recv_bytes())
            assert ObjectId.of(result.data) == result.id
        taken = (time.process_time() - start) / count
    return {
        "seconds to send a cell": sent,
        "seconds to take a shard": taken,
        "bytes a shard": float(len(result.data)),
    }


@contextmanager
def _other() -> Iterator[Connection]:
    with Listener(("127.0.0.1", 0)) as listener:
        code = f"from tests.bench.scale import answer; answer({listener.address!r})"
        with subprocess.Popen([sys.executable, "-c", code], cwd=maps.ROOT) as process:
            try:
                with listener.accept() as connection:
                    yield connection
                assert process.wait(60) == 0
            finally:
                process.kill()


def answer(address: tuple[str, int]) -> None:
    """The other process: takes cells until an empty message comes, then sends as many shards."""
    count = 0
    with Client(address) as connection:
        while data := connection.recv_bytes():
            pickle.loads(data)
            count += 1
        result = pickle.dumps(_shard(0, WIDTH), protocol=5)
        for _ in range(count):
            connection.send_bytes(result)


def _shard(seed: int, width: int) -> ShardResult:
    origins = np.arange(CELL, dtype=np.uint64)
    rows = np.random.default_rng(seed).standard_normal((CELL, width)).astype(np.float16)
    data = write_shard(origins, rows, _recipe().metadata())
    return ShardResult(data, ObjectId.of(data), origins, width, CELL, ())


# -- storing


def _storing(store: Path, cell: ShardRequest, count: int) -> dict[str, float]:
    """Storing shards in groups, as `ShardBuilder` does: each shard, and what is done once for the group."""
    cache, hashes = RowCache(store.parent / "rows"), np.zeros((CELL, 32), np.uint8)
    recipe = _recipe()
    added, committed = [], []
    with Repository.init(store) as repository, writing(repository) as writer:
        artifacts = ArtifactStore(writer, 0)
        for start in range(0, count, GROUP):
            shards = [_shard(seed, WIDTH) for seed in range(start, start + GROUP)]
            with artifacts.inserting() as batch:
                spent = time.process_time()
                for shard in shards:
                    batch.add_bytes(shard.data, expect=shard.id)
                spent -= time.process_time()
                begin = time.perf_counter()
                batch.commit()
                artifacts.remember({BuildKey(bytes(one.id)): ((one.id,), 0.0) for one in shards}, "bench")
                committed.append(time.perf_counter() - begin)
            spent += time.process_time()
            for place, shard in enumerate(shards):
                shown = view_digests(shard.origins.reshape(-1, 1, 1), shard.origins, hashes)
                entry = CachedCell(shard.id, len(shard.data), shard.origins, shown)
                cache.keep(recipe, cell.cell.zoom, start + place, entry)
            added.append(time.process_time() - spent)
    return {
        "seconds to store a shard": statistics.median(added) / GROUP,
        f"seconds to make {GROUP} shards durable": min(committed),
    }


# -- planning


def _planning(folder: Path, counts: tuple[int, int]) -> dict[str, float]:
    """What a tile more costs a plan, from two countries of synthetic tiles; and the memory of the inventory."""
    desk = make_store(folder)
    found = []
    for count in counts:
        mission = maps.write_country(folder, count)
        plan = maps.alone("command", "plan", mission, "--store", desk.store)
        found.append((count, plan["core_seconds"]))
    (fewer, short), (more, long) = found
    return {"seconds to plan a tile": (long - short) / (more - fewer), **_memory(mission.with_suffix(".mbtiles"))}


def _memory(path: Path) -> dict[str, float]:
    """The bytes of the inventory of a country for each tile, at its peak and at the end. Reads a part of it."""
    bbox = inspect(f"tms:{path}", path.parent / "tiny.onnx").imagery.bbox
    ids = tiles_of_bbox(bbox, 17)[:MEMORY_TILES]
    with TileSources((SourceSpec(path, (17,), datetime.date(2018, 7, 16), scheme="tms"),), maps.SIDE, bbox) as sources:
        tracemalloc.start()
        inventory = sources.inventory({17: LevelRequest(ids, cells_of(17, ids))})
        now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    count = len(inventory.level(17).ids)
    return {"bytes of memory a tile, at the peak": peak / count, "bytes of memory a tile": now / count}


# -- the table


def _table(count: int) -> dict[str, float]:
    """The entry table: of shards with a short and with the longest name of a descriptor set."""
    result = {}
    for name, text in (("place-embedder", "of place-embedder"), ("n" * 64, "of the longest name")):
        entries = [
            Entry(
                f"descriptors/{name}/17/13-{7000 + place // 300}-{4000 + place % 300}.safetensors",
                ObjectId(place.to_bytes(32, "big")),
                148_000,
                BuildKey(place.to_bytes(32, "little")),
                {"dim": WIDTH, "dtype": "float16", "rows": CELL},
            )
            for place in range(count)
        ]
        size = sum(map(len, sorted_table(entries[:1000]).leaves)) / min(count, 1000)
        result[f"bytes an entry {text}"] = size
        result[f"entries in {TABLE_LIMIT >> 20} MiB {text}"] = float(min(MAX_ENTRIES, int(TABLE_LIMIT / size)))
        if text == "of place-embedder":
            fitting = entries[: int(TABLE_LIMIT / size)]
            start = time.process_time()
            table = sorted_table(fitting)
            data, _ = table.render(), table.merkle_root
            made = time.process_time()
            assert EntryTable.parse(data).merkle_root == table.merkle_root
            result["seconds to make an entry of the table"] = (made - start) / len(fitting)
            result["seconds to check an entry of the table"] = (time.process_time() - made) / len(fitting)
    result["tiles of one zoom of an area, at most"] = float(MAX_AREA_TILES)
    return result


def _seconds(call: Callable[[], object]) -> float:
    """The seconds of a core, the median of five, after one that warms up."""
    times = []
    for _ in range(6):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return statistics.median(times[1:])
