"""Whether an engine computes what its model does: both are run on the same inputs, measured, and judged.

`measure` runs in the process that compiles and only says what it saw; `require_tolerance` decides, on figures that
may as well come from an engine's card. The reference is the source network with every optimisation off, on ONNX Runtime's CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from builders.engines.base import EngineSession, TensorInfo
from builders.engines.failures import failure
from store.errors import FlightbagError, Invalid

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"

SEED = 20260718
# Where both norms of a row are this small beside the greatest, its direction is noise; the error counts it.
_NEGLIGIBLE = 1e-6
_FLOATS = ("float16", "float32", "float64")
_INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """`relative_error`: the greatest error, as a part of the reference's greatest magnitude; `cosine`: the least."""

    relative_error: float
    cosine: float


# What the arithmetic loses at worst in a sound network. int8 goes by what a small backbone (288 numbers) lost on real
# imagery: a least cosine of 0.962 and 0.40 of the greatest value.
TOLERANCES = {
    "fp32": Tolerance(relative_error=1e-3, cosine=0.9999),
    "fp16": Tolerance(relative_error=2e-2, cosine=0.999),
    "int8": Tolerance(relative_error=0.5, cosine=0.95),
}


@dataclass(frozen=True, slots=True)
class CaseFigures:
    """One set of shapes: input name -> shape, and how far the outputs were from the reference's.

    `max_abs_error` and `reference_max` (the reference's greatest magnitude) are of the output that is worst by their
    quotient; `cosine` is the least over all outputs and their rows (the first dimension).
    """

    shapes: Mapping[str, Sequence[int]]
    max_abs_error: float
    reference_max: float
    cosine: float

    @property
    def relative_error(self) -> float:
        """`max_abs_error / reference_max`; 0 where both are 0."""
        if self.reference_max > 0:
            return self.max_abs_error / self.reference_max
        return 0.0 if self.max_abs_error == 0 else float("inf")


@dataclass(frozen=True, slots=True)
class CheckFigures:
    """How the outputs of an engine compare to the reference's, on the same inputs, for each set of shapes.

    `faults` says in words what cannot be a number: a missing output, another shape or dtype, a value that is not
    finite.
    """

    cases: tuple[CaseFigures, ...]
    faults: tuple[str, ...] = ()

    @property
    def worst(self) -> CaseFigures:
        """The case of the greatest relative error."""
        return max(self.cases, key=lambda case: case.relative_error)

    @property
    def cosine(self) -> float:
        """The least."""
        return min(case.cosine for case in self.cases)

    def as_json(self) -> dict[str, Any]:
        return {
            "cases": [{**asdict(case), "relative_error": case.relative_error} for case in self.cases],
            "faults": list(self.faults),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> CheckFigures:
        """Raises KeyError, TypeError or ValueError for what `as_json` has not made."""
        cases = tuple(
            CaseFigures(
                {name: tuple(map(int, shape)) for name, shape in case["shapes"].items()},
                *(float(case[key]) for key in ("max_abs_error", "reference_max", "cosine")),
            )
            for case in value["cases"]
        )
        return CheckFigures(cases, tuple(map(str, value["faults"])))


def require_tolerance(figures: CheckFigures, tolerance: Tolerance) -> None:
    """Raises Refused, with the figures, unless the engine is as close to the reference as `tolerance` asks."""
    reasons = list(figures.faults)
    for case in figures.cases:
        # Written so that a figure that is not a number fails.
        if not case.relative_error <= tolerance.relative_error:
            reasons.append(
                f"the greatest error at {_shapes(case.shapes)} is {case.max_abs_error:.3g} where the reference's "
                f"greatest value is {case.reference_max:.3g}; allowed is {tolerance.relative_error:g} of it"
            )
        if not case.cosine >= tolerance.cosine:
            reasons.append(
                f"the cosine to the reference at {_shapes(case.shapes)} is {case.cosine:.6f}, at least "
                f"{tolerance.cosine:g} is asked"
            )
    if not figures.cases:
        reasons.append("nothing could be compared")
    if reasons:
        what = "the engine does not compute what its model does: " + "; ".join(reasons)
        raise failure("wrong-output", what, check=figures.as_json())


def check_inputs(session: EngineSession, declared: Mapping[str, tuple[int | str, ...]], key: str, model: str) -> None:
    """Raises Invalid unless the mission file declares (at `key`) the inputs that the model has: name -> shape."""
    actual = {end.name: end for end in session.inputs}
    problems = [
        f"{key}.{name} is missing, {model} takes {actual[name].dtype} {list(actual[name].shape)}"
        for name in sorted(actual.keys() - declared.keys())
    ]
    for name, shape in declared.items():
        end = actual.get(name)
        if end is None:
            problems.append(f"{key}.{name} is declared, {model} takes {', '.join(sorted(actual)) or 'none'}")
        elif len(end.shape) != len(shape) or not all(map(_fits, shape, end.shape)):
            problems.append(f"{key}.{name} declares shape {list(shape)}, {model} takes {list(end.shape)}")
    if problems:
        raise failure("wrong-inputs", "; ".join(problems))


def measure(
    reference: EngineSession,
    engine: EngineSession,
    cases: Sequence[Mapping[str, Sequence[int]]],
    model: str,
    rows: Array | None = None,
) -> CheckFigures:
    """Runs both on the same inputs of each shape.

    `rows` are inputs of the network's own kind, one a row, taken in the place of seeded numbers: all of them at the
    middle shape, as many as fit at the others. Raises Invalid for a network that itself does not run on such inputs.
    """
    faults = _ends_that_differ(reference.outputs, engine.outputs)
    if rows is not None and not all(
        _takes_rows(end, case[end.name], rows) for end in reference.inputs for case in cases
    ):
        faults.append(f"the rows to check with are {rows.dtype} {list(rows.shape[1:])}, which the inputs do not take")
    measured = []
    for case in cases:
        count = next((case[end.name][0] for end in reference.inputs if case[end.name]), 1)
        every = rows is not None and case is cases[len(cases) // 2]
        starts = range(0, len(rows), count) if rows is not None and every else (0,)
        worst: CaseFigures | None = None
        for start in starts:
            feeds = {end.name: _feed(end, case[end.name], rows, start) for end in reference.inputs}
            found = _compare(reference, engine, feeds, model, faults)
            if found is not None:
                error, greatest, cosine = found
                now = CaseFigures(dict(case), error, greatest, cosine)
                if worst is None:
                    worst = now
                else:
                    further = max(worst, now, key=lambda one: one.relative_error)
                    least = min(worst.cosine, cosine)
                    worst = CaseFigures(dict(case), further.max_abs_error, further.reference_max, least)
        if worst is not None:
            measured.append(worst)
    return CheckFigures(tuple(measured), tuple(dict.fromkeys(faults)))


def _compare(
    reference: EngineSession, engine: EngineSession, feeds: Mapping[str, Array], model: str, faults: list[str]
) -> tuple[float, float, float] | None:
    """(greatest error, the reference's greatest value, least cosine) on these inputs; None, and more in `faults`, where
    they cannot be compared."""
    import numpy as np  # with the build extra only; `require_tolerance` needs none

    try:
        expected = reference.run(feeds)
    except Invalid as error:
        remedy = "declare shapes that it was exported for, or export it again"
        raise failure("wrong-inputs", f"{model} {error.message}", remedy=remedy) from error
    except FlightbagError as error:
        raise failure(str(error.fields["kind"]), f"{model} {error.message}", remedy=error.remedy) from error
    try:
        actual = engine.run(feeds)
    except Invalid as error:
        faults.append(f"the engine {error.message}")
        return None
    except FlightbagError as error:
        what = f"the engine of {model} {error.message}"
        raise failure(str(error.fields["kind"]), what, remedy=error.remedy) from error
    pairs, cosine = [], 1.0
    for name in sorted(expected.keys() & actual.keys()):
        a, b = expected[name], actual[name]
        if fault := _fault(a, b):
            faults.append(f"output {name} {fault}")
            continue
        a, b = a.astype(np.float64), b.astype(np.float64)
        far, greatest = _distance(a, b)
        if not (np.isfinite(far) and np.isfinite(greatest)):
            faults.append(f"output {name} is too large to be compared")
        elif greatest == 0 and far > 0:
            faults.append(f"output {name} is up to {far:.3g} where the reference's is all zero")
        else:
            pairs.append((far, greatest))
            cosine = min(cosine, least_cosine(a, b))
    if not any(greatest > 0 for _, greatest in pairs):
        # All that can be said is that nothing was said: a check that could not look is none.
        faults.append(f"every output of {model} is empty or zero, so nothing could be compared")
        return None
    return *max(pairs, key=lambda pair: pair[0] / (pair[1] or 1.0)), cosine


def _distance(a: Array, b: Array) -> tuple[float, float]:
    """(greatest difference, greatest magnitude of a)."""
    import numpy as np

    with np.errstate(over="ignore"):
        return float(np.abs(a - b).max(initial=0)), float(np.abs(a).max(initial=0))


def _shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))


def _fits(declared: int | str, actual: int | str) -> bool:
    """A size may be declared where the model leaves it open, not the other way round."""
    return isinstance(actual, str) or declared == actual


def _ends_that_differ(reference: tuple[TensorInfo, ...], engine: tuple[TensorInfo, ...]) -> list[str]:
    """Outputs have to keep their names, order and dtypes; the names of open dimensions may change."""
    has, had = ([f"{end.name} {end.dtype}" for end in ends] for ends in (engine, reference))
    return [] if has == had else [f"outputs are {', '.join(has)}, the reference's {', '.join(had)}"]


def _fault(expected: Array, actual: Array) -> str:
    """Why these two cannot be compared as numbers; empty if they can."""
    import numpy as np

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
    import numpy as np

    if not expected.size:
        return 1.0
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


def _takes_rows(end: TensorInfo, shape: Sequence[int], rows: Array) -> bool:
    return end.dtype == str(rows.dtype) and tuple(shape[1:]) == rows.shape[1:]


def _feed(end: TensorInfo, shape: Sequence[int], rows: Array | None, start: int) -> Array:
    """Rows from `start` on, over and over, where they fit; else seeded numbers: 0..1 for floats, 0..255 for bytes, 0 or
    1 for other integers, which may be indices."""
    import numpy as np

    if rows is not None and _takes_rows(end, shape, rows):
        return np.take(rows, range(start, start + shape[0]), axis=0, mode="wrap")
    random = np.random.default_rng(SEED)
    if end.dtype in _FLOATS:
        return random.random(shape, np.float32).astype(end.dtype)
    if end.dtype == "uint8":
        return random.integers(0, 256, shape, np.uint8)
    if end.dtype in _INTEGERS:
        return random.integers(0, 2, shape, np.int64).astype(end.dtype)
    raise _not_numbers(end)


def _not_numbers(end: TensorInfo) -> FlightbagError:
    remedy = "export a backbone that takes numbers"
    return failure("wrong-inputs", f"the input {end.name} is {end.dtype}", remedy=remedy)
