"""The process that compiles one engine with ONNX Runtime and measures it against the reference.

Run as `python -m builders.engines.worker REQUEST RESULT`, both JSON files whose keys `onnxruntime` knows as
well. What is wrong with the model is an answer (status 0, `refused` in the result); any other end of the
process means that it is not known. It never outlives the process that started it.

Compiles and measures; judges nothing. The reference is the source with every optimisation off.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builders.engines.base import (
    InputRange,
    ModelSource,
    TensorInfo,
    external_locations,
    onnx_bytes,
    parse_onnx,
)
from builders.engines.session import OnnxRuntimeSession, open_session
from store.errors import Invalid

Array: TypeAlias = NDArray[Any]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SEED = 20260718
# Where both norms of a row are this small beside the greatest, its direction is noise; the error counts it.
_NEGLIGIBLE = 1e-6


def main(request_path: Path, result_path: Path) -> None:
    """Does what the request says and writes the result, last and whole: half a result is no JSON."""
    request = json.loads(request_path.read_bytes())
    _die_with(request["parent"])
    try:
        result = _work(request)
    except Invalid as error:
        result = {"refused": {"message": error.message, "remedy": error.remedy}}
    result_path.write_text(json.dumps(result, allow_nan=False))


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends. Only Linux offers that."""
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


def _work(request: Mapping[str, Any]) -> dict[str, Any]:
    """Compiles `request["model"]` to `request["engine"]`; the result as the parent takes it."""
    given = request["model"]
    name: str = given["name"]
    model = ModelSource(name, Path(given["path"]), b"", given["size"], tuple(given["external"]))
    inputs = [InputRange(name, tuple(shape), *sizes) for name, shape, sizes in request["inputs"]]
    source = onnx_bytes(model)
    reference = _open(source, "off", name)
    _check_inputs(reference, inputs, request["backbone"], name)
    engine_path = Path(request["engine"])
    _open(source, "extended", name, save_as=engine_path)
    del source
    data = engine_path.read_bytes()
    if external_locations(parse_onnx(data, f"the engine of {name}")):
        raise Invalid(f"the engine of {name} keeps weights in a file of their own", remedy="export it again")
    engine = _open(data, "all", f"the engine of {name}")
    return {
        "check": _measure(reference, engine, request["cases"], name),
        "inputs": [[end.name, end.dtype, list(end.shape)] for end in engine.inputs],
        "outputs": [[end.name, end.dtype, list(end.shape)] for end in engine.outputs],
    }


def _open(data: bytes, level: Any, what: str, save_as: Path | None = None) -> OnnxRuntimeSession:
    try:
        return open_session(data, level, save_as=save_as)
    except Invalid as error:
        raise Invalid(f"{what} {error.message}", remedy=error.remedy) from error


def _check_inputs(session: OnnxRuntimeSession, declared: list[InputRange], backbone: str, model: str) -> None:
    """Raises Invalid unless the mission file declares the inputs that the model has."""
    key = f"backbones[{backbone}].inputs"
    actual = {end.name: end for end in session.inputs}
    problems = [
        f"{key}.{name} is missing, {model} takes {actual[name].dtype} {list(actual[name].shape)}"
        for name in sorted(actual.keys() - {item.name for item in declared})
    ]
    for item in declared:
        end = actual.get(item.name)
        if end is None:
            problems.append(f"{key}.{item.name} is declared, {model} takes {', '.join(sorted(actual)) or 'none'}")
        elif len(end.shape) != len(item.shape) or not all(map(_fits, item.shape, end.shape)):
            problems.append(f"{key}.{item.name} declares shape {list(item.shape)}, {model} takes {list(end.shape)}")
    if problems:
        raise Invalid("; ".join(problems), remedy="declare the inputs as the model has them, or export it again")


def _fits(declared: int | str, actual: int | str) -> bool:
    """A size may be declared where the model leaves it open, not the other way round."""
    return isinstance(actual, str) or declared == actual


def _measure(
    reference: OnnxRuntimeSession,
    engine: OnnxRuntimeSession,
    cases: list[dict[str, Sequence[int]]],
    model: str,
) -> dict[str, Any]:
    """The keys of CheckFigures that are measured, over all cases."""
    faults = _ends_that_differ(reference.outputs, engine.outputs)
    error: dict[str, float] = {}
    greatest: dict[str, float] = {}
    cosine = 1.0
    for case in cases:
        feeds = {end.name: _feed(end, case[end.name]) for end in reference.inputs}
        try:
            expected = reference.run(feeds)
        except Invalid as failure:
            raise Invalid(
                f"{model} {failure.message}", remedy="declare shapes that it was exported for, or export it again"
            ) from failure
        try:
            actual = engine.run(feeds)
        except Invalid as failure:
            faults.append(f"the engine {failure.message}")
            continue
        for name in sorted(expected.keys() & actual.keys()):
            a, b = expected[name], actual[name]
            if fault := _fault(a, b):
                faults.append(f"output {name} {fault}")
                continue
            a, b = a.astype(np.float64), b.astype(np.float64)
            error[name] = max(error.get(name, 0.0), float(np.abs(a - b).max(initial=0)))
            greatest[name] = max(greatest.get(name, 0.0), float(np.abs(a).max(initial=0)))
            cosine = min(cosine, least_cosine(a, b))
    worst = max(error, key=lambda name: (error[name] / (greatest[name] or 1e-300), name), default=None)
    return {
        "max_abs_error": error[worst] if worst is not None else 0.0,
        "reference_max": greatest[worst] if worst is not None else 0.0,
        "cosine": cosine,
        "faults": faults,
    }


def _ends_that_differ(reference: tuple[TensorInfo, ...], engine: tuple[TensorInfo, ...]) -> list[str]:
    """Outputs have to keep their names, order and dtypes; the names of open dimensions may change."""
    has, had = ([f"{end.name} {end.dtype}" for end in ends] for ends in (engine, reference))
    return [] if has == had else [f"outputs are {', '.join(has)}, the reference's {', '.join(had)}"]


def _fault(expected: Array, actual: Array) -> str:
    """Why these two cannot be compared as numbers; empty if they can."""
    if expected.dtype != actual.dtype or expected.shape != actual.shape:
        has, had = (f"{array.dtype} {list(array.shape)}" for array in (actual, expected))
        return f"is {has}, the reference's {had}"
    if not np.isfinite(expected).all():
        return "of the reference is not finite"
    if not np.isfinite(actual).all():
        return "is not finite"
    return ""


def least_cosine(expected: Array, actual: Array) -> float:
    """The least cosine between rows (over the first dimension) of two float64 arrays of one shape.

    An array of fewer than two dimensions is one row. Two negligible rows do not count; where only one is
    zero the cosine is 0.
    """
    a, b = (array.reshape(len(array) if array.ndim > 1 else 1, -1) for array in (expected, actual))
    scale = max(float(np.abs(a).max(initial=0)), float(np.abs(b).max(initial=0)))
    if scale == 0:
        return 1.0
    a, b = a / scale, b / scale  # squares of large numbers would overflow
    norms_a, norms_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    counts = np.maximum(norms_a, norms_b) > _NEGLIGIBLE * max(norms_a.max(), norms_b.max())
    norms = (norms_a * norms_b)[counts]
    dots = np.einsum("ij,ij->i", a, b)[counts]
    return float(np.minimum(np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0), 1.0).min())


def _feed(end: TensorInfo, shape: Sequence[int]) -> Array:
    """Seeded numbers: 0..1 for floats, 0..255 for bytes, 0 or 1 for other integers, which may be indices."""
    random = np.random.default_rng(_SEED)
    if end.dtype in ("float16", "float32", "float64"):
        return random.random(shape, np.float32).astype(end.dtype)
    if end.dtype == "uint8":
        return random.integers(0, 256, shape, np.uint8)
    if end.dtype in ("bool", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"):
        return random.integers(0, 2, shape, np.int64).astype(end.dtype)
    raise Invalid(f"the input {end.name} is {end.dtype}", remedy="export a backbone that takes numbers")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
