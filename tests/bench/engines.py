"""Engines: how soon it is known that one is there and whole, and how long and how much a cold load takes.

Each load is a process of its own, medians over interleaved rounds: `python -m tests.bench.engines FOLDER HOW` is one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from blake3 import blake3
from onnx import TensorProto, helper, numpy_helper

from builders.artifacts.engine import build_engines
from builders.artifacts.store import ArtifactStore
from builders.compose import open_context
from builders.engines.session import open_session
from builders.extras import import_onnxruntime
from builders.onboard.loading import open_engine
from store.disk.media import object_path
from store.format.ids import BuildKey
from store.ground.writer import writing
from store.takeoff.check import takeoff_check
from store.takeoff.loading import load
from tests.support.commands import flightbag
from tests.support.field import make_desk

ROOT = Path(__file__).parents[2]
SIDE = 64
ROUNDS = 5
LOADS = ("plain, from its path", "plain, from bytes", "portable", "fast", "fast, weights in memory")


def write_network(path: Path, channels: int, layers: int) -> None:
    """A stack of convolutions, of some channels^2 * 36 bytes a layer."""
    random = np.random.default_rng(0)
    nodes, weights, x, given = [], [], "image", 3
    for i in range(layers):
        values = (random.standard_normal((channels, given, 3, 3)) * (2 / (9 * given)) ** 0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{i}"))
        stride = [2, 2] if i < 4 else [1, 1]
        nodes.append(helper.make_node("Conv", [x, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1], strides=stride))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        x, given = f"r{i}", channels
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["g"]))
    nodes.append(helper.make_node("Flatten", ["g"], ["descriptor"]))
    ends = [("image", ["N", 3, SIDE, SIDE]), ("descriptor", ["N", channels])]
    image, descriptor = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends)
    graph = helper.make_graph(nodes, "net", [image], [descriptor], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def engines(folder: Path, *, small: bool) -> dict[str, Any]:
    """The figures, printed and given."""
    desk = make_desk(folder)
    write_network(folder / "embedder.onnx", channels=32 if small else 536, layers=6 if small else 20)
    mission = desk.write_mission("left", zooms=(14,), files=(), resize=SIDE)
    text = mission.read_text()
    backbone = text.partition("[[backbones]]")[2].partition("[[descriptors]]")[0]
    quick = backbone.replace('name = "embedder"', 'name = "quick"').replace("precision", 'mode = "fast"\nprecision')
    mission.write_text(text.replace("[[descriptors]]", f"[[backbones]]{quick}[[descriptors]]"))
    ran = flightbag("build", mission, "--store", desk.store, "--key", desk.key)
    if ran.status:
        raise SystemExit(ran.out + ran.err)
    result: dict[str, Any] = {"hit": hit(desk.store, mission, folder / "cache")}
    found = result["hit"]
    print(
        f"an engine of {found['bytes'] / 1e6:.0f} MB is there and whole: p50 {found['p50_us']:.0f} us, p99 "
        f"{found['p99_us']:.0f} us; hashing its file {found['hash_ms']:.1f} ms"
    )
    loads: dict[str, list[dict[str, float]]] = {how: [] for how in LOADS}
    for _ in range(1 if small else ROUNDS):
        for how, rows in loads.items():
            done = subprocess.run(
                [sys.executable, "-m", "tests.bench.engines", str(folder), how],
                cwd=ROOT, capture_output=True, text=True, check=True,
            )  # fmt: skip
            rows.append(json.loads(done.stdout))
    result["loads"] = {how: {k: statistics.median(r[k] for r in rows) for k in rows[0]} for how, rows in loads.items()}
    print(f"{'cold load, one thread':26}{'read s':>8}{'open s':>8}{'run s':>8}{'MB after':>10}{'peak MB':>9}")
    for how, row in result["loads"].items():
        figures = (
            f"{row['read']:>8.3f}{row['open']:>8.3f}{row['run']:>8.3f}{row['after_mb']:>10.0f}{row['peak_mb']:>9.0f}"
        )
        print(f"{how:26}{figures}")
    return result


def hit(store: Path, mission: Path, cache: Path) -> dict[str, float]:
    """How long the store takes to say that an engine is there, every byte of it, against hashing the file."""
    with open_context(mission, store, cache) as shop:
        key = BuildKey(bytes.fromhex(build_engines(shop, now=1)[0].key))
        with writing(shop.repository) as writer:
            bench = ArtifactStore(writer, 1)
            found = bench.lookup(key)
            assert found is not None
            times = []
            for _ in range(2000):
                start = time.perf_counter()
                bench.lookup(key)
                times.append((time.perf_counter() - start) * 1e6)
            path = Path(store) / object_path(found[1][0])
    hashed = []
    for _ in range(5):
        start = time.perf_counter()
        hasher = blake3()
        with path.open("rb", buffering=0) as file:
            while piece := file.read(2**20):
                hasher.update(piece)
        hashed.append((time.perf_counter() - start) * 1e3)
    p99 = statistics.quantiles(times, n=100)[98]
    size = path.stat().st_size
    return {"bytes": size, "p50_us": statistics.median(times), "p99_us": p99, "hash_ms": statistics.median(hashed)}


def one_load(folder: Path, how: str) -> dict[str, float]:
    """One load in this process, after a takeoff check; `read` is reading and hashing, `open` the library's part."""
    verdict = takeoff_check(
        folder / "ground", "left", trust=(folder / "pinned.root.cbor").read_bytes(), now=int(time.time())
    )
    assert verdict.mission is not None
    import_onnxruntime().set_default_logger_severity(3)
    model = folder / "embedder.onnx"
    before = _memory()
    read: float = 0.0
    session: Any
    start = time.perf_counter()
    if how == "plain, from its path":
        session = open_session(model, "all")
    elif how == "plain, from bytes":
        data = model.read_bytes()
        read = time.perf_counter() - start
        session = open_session(data, "all")
        del data
    elif how in ("portable", "fast"):
        session = open_engine(verdict.mission, "embedder" if how == "portable" else "quick")
    else:
        parts = {e.meta["part"]: load(verdict.mission, e.name, kind="engine") for e in verdict.mission.table.entries
                 if e.kind == "engine" and e.meta["backbone"] == "quick"}  # fmt: skip
        read = time.perf_counter() - start
        session = _in_memory(bytes(parts["model"]), bytes(parts["weights"]))
        del parts
    opened = time.perf_counter() - start - read
    after = _memory()
    image = np.random.default_rng(1).random((1, 3, SIDE, SIDE), np.float32)
    start = time.perf_counter()
    session.run({"image": image})
    ran = time.perf_counter() - start
    peak = max(after["VmHWM"], _memory()["VmHWM"])
    return {"read": read, "open": opened, "run": ran, "after_mb": _memory()["VmRSS"] - before["VmRSS"],
            "peak_mb": peak - before["VmRSS"]}  # fmt: skip


class _Raw:
    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, feeds: dict[str, Any]) -> Any:
        return self._session.run(None, feeds)


def _in_memory(model: bytes, weights: bytes) -> Any:
    """What the library offers for weights that are in memory already."""
    library = import_onnxruntime()
    options = library.SessionOptions()
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_external_initializers_from_files_in_memory(["engine.weights"], [weights], [len(weights)])
    return _Raw(library.InferenceSession(model, options, providers=["CPUExecutionProvider"]))


def _memory() -> dict[str, float]:
    """Megabytes of this process, shared memory with them."""
    with open("/proc/self/status") as file:
        return {k: int(v.split()[0]) / 1000 for k, _, v in (line.partition(":") for line in file) if k.startswith("Vm")}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(json.dumps(one_load(Path(sys.argv[1]), sys.argv[2])))
