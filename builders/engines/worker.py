"""The process that makes one artifact of a backbone: an engine, compiled and measured, or a quantised network.

`isolation` runs it as `python -m builders.engines.worker REQUEST RESULT FD`: the first two are JSON files, FD takes
progress. A failure of a known kind is a result (status 0, `failure` in the result), and so is any other exception, in
its own words. Any other end of the process means that the cause is unknown. The process never outlives the one that
started it, and uses no more memory than it is allowed.

It compiles and measures; its parent decides on the figures.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

from blake3 import blake3

from builders.engines.backends import backend
from builders.engines.base import (
    BackendResult,
    CompileJob,
    EngineSession,
    EngineSpec,
    InputRange,
    PhaseProgress,
    Plugin,
    Reference,
    TensorInfo,
)
from builders.engines.check import (
    AuthorFigures,
    as_inputs,
    author_figures,
    check_ends,
    feeds_of,
    is_nothing,
    measure,
    nothing_compared,
    require_repeatable,
    without_fixed,
)
from builders.engines.failures import failure, to_json, unexpected_failure
from builders.engines.graph import FixedInput, irreproducible
from builders.engines.isolation import begin, end_without_clean_up, progress_writer
from builders.engines.model import ModelSource, make_compilable, parse_onnx, session_source
from builders.engines.npz import read_npz
from builders.engines.precision import CalibrationSet, quantise
from builders.engines.session import open_session
from store.errors import FlightbagError, Invalid, Unavailable

_PIECE = 2**20


# A request, progress, and whether to stop, to a result.
Task: TypeAlias = Callable[[Mapping[str, Any], PhaseProgress, Callable[[], bool]], dict[str, Any]]


def main(tasks: Mapping[str, Task], request_path: Path, result_path: Path, progress_fd: int) -> None:
    """Do the task of the request, and write the result last. Half a result is not JSON, so the parent notices it."""
    request = json.loads(request_path.read_bytes())
    begin(request["memory"])
    try:
        made = tasks[request["task"]](request, progress_writer(progress_fd), _stop_requested())
        result = json.dumps(made, allow_nan=False)
    except FlightbagError as error:
        result = json.dumps({"failure": to_json(error)})
    except MemoryError:
        no_memory = failure("out-of-memory", "the process that compiles ran out of memory")
        result = json.dumps({"failure": to_json(no_memory)})
    except Exception as error:  # noqa: BLE001 - the parent raises it as a failure
        traceback.print_exc()
        result = json.dumps({"failure": to_json(unexpected_failure(error, result_path.parent))})
    result_path.write_text(result)
    end_without_clean_up()


def _stop_requested() -> Callable[[], bool]:
    """Return a function that returns whether the parent has closed standard input. Until its first call, the closing
    ends this process at once: a library that never asks cannot be stopped in another way."""
    stop = threading.Event()
    is_polled = threading.Event()

    def watch() -> None:
        while os.read(0, 1):
            pass
        stop.set()
        if not is_polled.is_set():
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

    def cancelled() -> bool:
        is_polled.set()
        return stop.is_set()

    return cancelled


def _compile(request: Mapping[str, Any], progress: PhaseProgress, cancelled: Callable[[], bool]) -> dict[str, Any]:
    """Compile the model and measure the engine. Return the result in the form that `compiling` reads."""
    spec, source, network = spec_of_request(request), Path(request["source"]), Path(request["network"])
    make_compilable(source, spec.fixed)
    if spec.precision == "fp16":
        from builders.engines.precision import float16_copy

        network = Path(request["folder"]) / "float16.onnx"
        float16_copy(Path(request["network"]), network)
    return checked(request, spec, session_source(source), network, progress, cancelled)[0]


def checked(
    request: Mapping[str, Any],
    spec: EngineSpec,
    source: bytes | Path,
    network: Path,
    progress: PhaseProgress,
    cancelled: Callable[[], bool],
    engine: BackendResult | None = None,
) -> tuple[dict[str, Any], EngineSession]:
    """Compile `network`, unless there is an `engine` of it, and measure the engine against `source`; both in the form
    in which they run. Return the result in the form that `compiling` reads, and the engine."""
    name, compiler = request["model"], backend(request["backend"])
    reference = open_session(source, "off", name=name)
    outputs = check_ends(reference, spec, name)
    rows = None
    if request["rows"]:
        rows = as_inputs(CalibrationSet.open(Path(request["rows"])).rows, reference.inputs[0].dtype)
    cases = spec.cases()
    progress("checking the model", 0, 0)
    author = _author(spec, reference, outputs) if spec.reference is not None else None
    feeds = feeds_of(reference, cases[len(cases) // 2], rows)
    first = require_repeatable(reference, feeds, name, lambda: _suspects(request["source"], name), outputs)
    if rows is None and is_nothing(first, outputs):
        raise failure("empty-output", nothing_compared(name, outputs, "noise"), model=name)
    job = CompileJob(
        spec,
        network,
        request["host"],
        Path(request["folder"]),
        Path(request["cache"]),
        progress,
        cancelled,
    )
    start = time.monotonic()
    compiled = engine or compiler.make(job)
    seconds = time.monotonic() - start
    progress("checking the engine", 0, 0)
    try:
        session = compiler.load(compiled.model.read_bytes(), compiled.need, compiled.weights)
    except Invalid as error:
        raise failure("failed", f"the compiled engine of {name} cannot be loaded: {error.message}") from error
    figures = replace(measure(reference, session, cases, name, rows, outputs), author=author)
    result = {
        "parts": _parts(compiled),
        "need": compiled.need,
        "tools": dict(compiled.tools),
        "inspector": compiled.inspector,
        "check": figures.as_json(),
        "seconds": seconds,
        "inputs": _tensor_lists(session.inputs),
        "outputs": _tensor_lists(session.outputs),
    }
    return result, session


def _suspects(source: str, name: str) -> str:
    """Return the nodes that may be why a network differs from itself, as far as the library is here that reads it."""
    try:
        return irreproducible(parse_onnx(Path(source).read_bytes(), name))
    except Unavailable:
        return ""


def _quantise(request: Mapping[str, Any], progress: PhaseProgress, _cancelled: Callable[[], bool]) -> dict[str, Any]:
    progress("quantising", 0, 0)
    into, source = Path(request["into"]), Path(request["source"])
    make_compilable(source, _fixed(request["fixed"]))
    quantise(source, CalibrationSet.open(Path(request["rows"])), request["method"], into)
    return {"parts": {"model": {"path": str(into), "digest": _digest(into)}}}


def _author(spec: EngineSpec, reference: EngineSession, outputs: Sequence[str]) -> AuthorFigures:
    assert spec.reference is not None
    path = spec.reference.path
    data, arrays = read_npz(path, path.name)
    if (digest := blake3(data).digest()) != spec.reference.digest:
        raise failure("bad-reference", f"{path.name} changed during the build", remedy="build again", path=str(path))
    arrays = without_fixed(arrays, spec.fixed, path.name)
    return author_figures(reference, arrays, digest.hex(), outputs, path.name)


def _fixed(items: Sequence[Sequence[Any]]) -> tuple[FixedInput, ...]:
    return tuple(FixedInput(name, tuple(shape), tuple(map(Decimal, values))) for name, shape, values in items)


def spec_of_request(request: Mapping[str, Any]) -> EngineSpec:
    """Return the spec that `compiling.spec_request` described."""
    fields = request["spec"]
    return EngineSpec(
        backbone=fields["backbone"],
        model=ModelSource(request["model"], Path(request["source"]), b"", 0, ()),
        precision=fields["precision"],
        inputs=tuple(InputRange(name, tuple(shape), *sizes) for name, shape, sizes in fields["inputs"]),
        options=fields["options"],
        plugins=tuple(Plugin(Path(path), bytes.fromhex(digest)) for path, digest in fields["plugins"]),
        fixed=_fixed(fields["fixed"]),
        compare=tuple(fields["compare"]),
        reference=Reference(Path(fields["reference"][0]), bytes.fromhex(fields["reference"][1]))
        if fields["reference"]
        else None,
    )


def _parts(compiled: BackendResult) -> dict[str, Any]:
    files = {"model": compiled.model} | ({"weights": compiled.weights} if compiled.weights else {})
    return {part: {"path": str(path), "digest": _digest(path)} for part, path in files.items()}


def _digest(path: Path) -> str:
    """The BLAKE3 of the file that was measured: whoever stores it expects this hash."""
    hasher = blake3()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            hasher.update(piece)
    return hasher.hexdigest()


def _tensor_lists(tensors: tuple[TensorInfo, ...]) -> list[list[Any]]:
    return [[tensor.name, tensor.dtype, list(tensor.shape)] for tensor in tensors]


if __name__ == "__main__":
    main({"compile": _compile, "quantise": _quantise}, Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
