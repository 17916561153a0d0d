"""The process that makes one artifact of a backbone: an engine, compiled and measured, or a quantised network.

Run by `isolation` as `python -m builders.engines.worker REQUEST RESULT FD`: the first two are JSON files, FD takes
progress. What is known to be wrong is an answer (status 0, `failure` in the result), and so is an error that nobody
foresaw, in its own words; any other end of the process means that it is not known. It never outlives the process that
started it, and takes no more memory than it is allowed.

Compiles and measures; judges nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from builders.engines.backends import backend
from builders.engines.base import EngineSpec, InputRange, Job, Made, PhaseProgress, Plugin, TensorInfo
from builders.engines.check import check_inputs, measure
from builders.engines.failures import as_it_came, failure, to_json
from builders.engines.model import ModelSource, loadable
from builders.engines.precision import CalibrationSet, quantise
from builders.engines.session import open_session
from store.errors import FlightbagError, Invalid

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PIECE = 2**20
_TOLD_S = 0.1


def main(request_path: Path, result_path: Path, news: int) -> None:
    """Does what the request says and writes the result, last and whole: half a result is no JSON."""
    request = json.loads(request_path.read_bytes())
    _die_with(request["parent"])
    _allow(request["memory"])
    work = {"compile": _compile, "quantise": _quantise}[request["task"]]
    try:
        result = json.dumps(work(request, _teller(news), _asked_to_stop()), allow_nan=False)
    except FlightbagError as error:
        result = json.dumps({"failure": to_json(error)})
    except MemoryError:
        result = json.dumps({"failure": to_json(failure("out-of-memory", "memory ran out"))})
    except Exception as error:  # noqa: BLE001 - it crosses as it is
        traceback.print_exc()
        result = json.dumps({"failure": to_json(as_it_came(error))})
    result_path.write_text(result)
    # Not by way of the libraries' own ends: a crash there would say that what is done was not.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends. Only Linux offers that."""
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def _allow(memory: int) -> None:
    """Bounds private memory. Not the address space: a GPU's driver reserves far more of that than it uses."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = memory if most == resource.RLIM_INFINITY else min(memory, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def _teller(news: int) -> PhaseProgress:
    last = 0.0

    def progress(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _TOLD_S and done not in (0, total):
            return
        last = now
        os.write(news, json.dumps([what[:200], done, total]).encode() + b"\n")

    return progress


def _asked_to_stop() -> Callable[[], bool]:
    """Whether standard input was closed. Who never asks is ended at once when it is."""
    stop = threading.Event()
    asks = threading.Event()

    def watch() -> None:
        while os.read(0, 1):
            pass
        stop.set()
        if not asks.is_set():
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

    def cancelled() -> bool:
        asks.set()
        return stop.is_set()

    return cancelled


def _compile(request: Mapping[str, Any], progress: PhaseProgress, cancelled: Callable[[], bool]) -> dict[str, Any]:
    """Compiles and measures; the result as `compiling` takes it."""
    spec, name = _spec(request), request["model"]
    maker = backend(request["backend"])
    reference = _open_reference(Path(request["source"]), name)
    key = f"backbones[{spec.backbone}].inputs"
    check_inputs(reference, {item.name: item.shape for item in spec.inputs}, key, name)
    job = Job(
        spec,
        Path(request["network"]),
        request["host"],
        Path(request["folder"]),
        Path(request["cache"]),
        progress,
        cancelled,
    )
    start = time.monotonic()
    made = maker.make(job)
    seconds = time.monotonic() - start
    progress("checking the engine", 0, 0)
    try:
        engine = maker.load(made.model.read_bytes(), request["host"], made.weights)
    except Invalid as error:
        raise failure("failed", f"the engine that was made of {name} cannot be loaded: {error.message}") from error
    rows = CalibrationSet.open(Path(request["rows"])).rows if request["rows"] else None
    figures = measure(reference, engine, [*spec.cases()], name, rows)
    return {
        "parts": _parts(made),
        "tools": dict(made.tools),
        "inspector": made.inspector,
        "check": figures.as_json(),
        "seconds": seconds,
        "inputs": _ends(engine.inputs),
        "outputs": _ends(engine.outputs),
    }


def _quantise(request: Mapping[str, Any], progress: PhaseProgress, _cancelled: Callable[[], bool]) -> dict[str, Any]:
    progress("quantising", 0, 0)
    into = Path(request["into"])
    quantise(Path(request["source"]), CalibrationSet.open(Path(request["rows"])), request["method"], into)
    return {"parts": {"model": {"path": str(into), "digest": _digest(into)}}}


def _spec(request: Mapping[str, Any]) -> EngineSpec:
    given = request["spec"]
    return EngineSpec(
        backbone=given["backbone"],
        model=ModelSource(request["model"], Path(request["source"]), b"", 0, ()),
        precision=given["precision"],
        inputs=tuple(InputRange(name, tuple(shape), *sizes) for name, shape, sizes in given["inputs"]),
        options=given["options"],
        plugins=tuple(Plugin(Path(path), bytes.fromhex(digest)) for path, digest in given["plugins"]),
    )


def _open_reference(source: Path, name: str) -> Any:
    try:
        return open_session(loadable(source), "off")
    except FlightbagError as error:
        if "kind" not in error.fields:
            raise
        kind = str(error.fields["kind"])
        raise failure(kind, f"{name} {error.message}", remedy=error.remedy) from error


def _parts(made: Made) -> dict[str, Any]:
    files = {"model": made.model} | ({"weights": made.weights} if made.weights else {})
    return {part: {"path": str(path), "digest": _digest(path)} for part, path in files.items()}


def _digest(path: Path) -> str:
    """Of what was measured: whoever stores it goes by this."""
    hasher = blake3()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            hasher.update(piece)
    return hasher.hexdigest()


def _ends(ends: tuple[TensorInfo, ...]) -> list[list[Any]]:
    return [[end.name, end.dtype, list(end.shape)] for end in ends]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
