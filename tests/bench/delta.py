"""What a delta would save: pairs of large objects of which a store has one and needs the other.

Three ways, each with the best base that there could be: blocks that both have at any offset (rsync's algorithm); chunks
cut where their content says so (a gear hash, 16 KiB on average), of which only new ones would travel; and a Zstandard
frame with the old object as its prefix, which is what `pack --delta` writes. Beside them a frame without a prefix.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from blake3 import blake3
from numpy.typing import NDArray
from onnx import numpy_helper

from builders.engines.base import CompileJob, EngineSpec, InputRange
from builders.engines.model import hash_model
from builders.engines.onnxruntime import ANY_CPU, OnnxRuntimeBackend
from builders.engines.precision import CalibrationSet, float16_copy, quantise
from builders.engines.tensorrt_rtx import OPTIONS, TensorRtRtxBackend
from store.format.entries import sorted_table
from store.remotes.delta import difference
from tests.bench.engines import SIDE, write_network
from tests.support import bindings
from tests.support.missions import entry

# The least, the average (a power of two) and the most bytes of a chunk.
LEAST, AVERAGE, MOST = 4 * 2**10, 16 * 2**10, 64 * 2**10
_GEAR = np.random.default_rng(0).integers(0, 2**32, 256, np.uint32)


def delta(folder: Path, *, small: bool) -> dict[str, Any]:
    """The figures, printed and given: pair -> bytes of the new object, and the shares of it that would travel."""
    result = {}
    print(f"{'a store has -> needs':58}{'MB':>7}{'rsync':>8}{'chunks':>8}{'prefix':>8}{'alone':>8}")
    for name, old, new in pairs(folder, small=small):
        base, data = old.read_bytes(), new.read_bytes()
        sent = {
            "rsync": rsync_bytes(old, new),
            "chunks": chunk_bytes(base, data),
            "prefix": len(difference(base, data)),
            "alone": len(difference(b"", data)),
        }
        result[name] = {"bytes": len(data), **{way: count / len(data) for way, count in sent.items()}}
        shares = "".join(f"{count / len(data):>8.1%}" for count in sent.values())
        print(f"{name:58}{len(data) / 1e6:>7.1f}{shares}", flush=True)
    return result


def pairs(folder: Path, *, small: bool) -> Iterator[tuple[str, Path, Path]]:
    """What is there and what is needed, by name."""
    source = folder / "net.onnx"
    write_network(source, channels=32 if small else 256, layers=6 if small else 12)
    network = onnx.load(source)
    head = changed(network, folder / "head.onnx", lambda name, _: name == network.graph.initializer[-1].name)
    tuned = changed(network, folder / "tuned.onnx", lambda *_: True)
    half = folder / "half.onnx"
    float16_copy(source, half)
    small_numbers = folder / "int8.onnx"
    rows = CalibrationSet(np.random.default_rng(1).random((4, 3, SIDE, SIDE), np.float32))
    quantise(source, rows, "minmax", small_numbers)
    yield "model: float32 -> float16", source, half
    yield "model: float32 -> int8", source, small_numbers
    yield "model: -> its last layer trained again", source, head
    yield "model: -> every weight trained on (by 0.1 %)", source, tuned
    portable = onnxruntime_engine(folder, source, "portable")
    yield "ONNX Runtime: model -> its portable engine", source, portable
    yield "ONNX Runtime: portable -> fast (weights)", portable, onnxruntime_engine(folder, source, "fast")
    yield "ONNX Runtime: portable -> last layer trained again", portable, onnxruntime_engine(folder, head, "portable")
    if not bindings.missing(bindings.RTX):
        with bindings.reachable(bindings.RTX):
            engine = rtx_engine(folder, source, "sm89")
            yield "TensorRT for RTX: -> made again", engine, rtx_engine(folder, source, "sm89")
            yield "TensorRT for RTX: sm89 -> sm120", engine, rtx_engine(folder, source, "sm120")
            other = rtx_engine(folder, source, "sm89", workspace_mib=64)
            yield "TensorRT for RTX: -> another workspace", engine, other
            yield "TensorRT for RTX: float32 -> float16", engine, rtx_engine(folder, half, "sm89")
            yield "TensorRT for RTX: -> last layer trained again", engine, rtx_engine(folder, head, "sm89")
    count = 1000 if small else 100_000
    before, after = tables(folder, count)
    yield f"table of {count:,} entries: -> one shard is new", before, after


def changed(network: onnx.ModelProto, into: Path, chosen: Callable[[str, int], bool]) -> Path:
    """The network with other numbers in the chosen weights."""
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    random = np.random.default_rng(2)
    for i, tensor in enumerate(copy.graph.initializer):
        if chosen(tensor.name, i):
            values = numpy_helper.to_array(tensor)
            moved = values * (1 + 1e-3 * random.standard_normal(values.shape).astype(np.float32))
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    into.write_bytes(copy.SerializeToString())
    return into


def onnxruntime_engine(folder: Path, source: Path, mode: str) -> Path:
    """The largest part of an engine for ONNX Runtime."""
    backend = OnnxRuntimeBackend()
    spec = _spec(source, {"mode": mode})
    made = backend.make(_job(folder, spec, ANY_CPU if mode == "portable" else backend.describe_host()))
    return max(filter(None, (made.model, made.weights)), key=lambda path: path.stat().st_size)


def rtx_engine(folder: Path, source: Path, capability: str, **options: int) -> Path:
    """An engine of TensorRT for RTX for a capability."""
    backend = TensorRtRtxBackend()
    spec = _spec(source, {**OPTIONS, **options})
    return backend.make(_job(folder, spec, f"{capability}+trtrtx-{backend.version}")).model


def _spec(source: Path, options: dict[str, Any]) -> EngineSpec:
    return EngineSpec(
        "net", hash_model(source), "fp32", (InputRange("image", ("N", 3, SIDE, SIDE), 1, 2, 4),), options=options
    )


def _job(folder: Path, spec: EngineSpec, host: str) -> CompileJob:
    place = folder / f"made{len(list(folder.glob('made*')))}"
    place.mkdir()
    return CompileJob(spec, spec.model.path, host, place, place, lambda *_: None, lambda: False)


def tables(folder: Path, count: int) -> tuple[Path, Path]:
    """The tables of a mission before and after one of its shards changed."""
    names = [f"descriptors/net/16/12-{1000 + i // 300}-{1000 + i % 300}.safetensors" for i in range(count)]
    paths = folder / "before.table", folder / "after.table"
    for path, new in zip(paths, (b"", b"new"), strict=True):
        path.write_bytes(
            sorted_table([entry(name, name.encode() + new * (name == names[count // 3])) for name in names]).render()
        )
    return paths


def rsync_bytes(old: Path, new: Path) -> int:
    """The bytes that rsync's algorithm would send for `new` where `old` is."""
    there = new.with_name("there")
    there.write_bytes(old.read_bytes())
    command = ["rsync", "--no-whole-file", "--ignore-times", "--stats", "--no-human-readable", new, there]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}).stdout
    match = re.search(r"^Literal data: ([0-9,]+) bytes", said, re.M)
    assert match is not None, said
    return int(match[1].replace(",", ""))


def chunk_bytes(old: bytes, new: bytes) -> int:
    """The bytes of the chunks of `new` that `old` lacks, each once."""
    have = {blake3(chunk).digest() for chunk in chunks(old)}
    needed = {blake3(chunk).digest(): len(chunk) for chunk in chunks(new)}
    return sum(size for digest, size in needed.items() if digest not in have)


def chunks(data: bytes) -> Iterator[bytes]:
    """Cut where the hash of the last 32 bytes ends in zeros."""
    ends = np.flatnonzero((_gear(np.frombuffer(data, np.uint8)) & np.uint32(AVERAGE - 1) << np.uint32(18)) == 0) + 1
    start, at = 0, 0
    while start < len(data):
        at = int(np.searchsorted(ends, start + LEAST))
        end = min(int(ends[at]) if at < len(ends) else len(data), start + MOST, len(data))
        yield data[start:end]
        start = end


def _gear(data: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The sum over the last 32 bytes of a number for each, shifted by its distance: by doubling the distance."""
    total = _GEAR[data]
    for distance in (1, 2, 4, 8, 16):
        total[distance:] += total[:-distance] << np.uint32(distance)
    return total
