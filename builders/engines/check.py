"""The check that an engine computes what its model does: both run on the same inputs, and their outputs are compared.

`measure` runs in the process that compiles and decides nothing. `require_tolerance` decides, on figures that `measure`
has returned or that an engine's card holds. The reference is the source network with every optimisation off, on ONNX
Runtime's CPU. Before anything is compared with it, `require_repeatable` holds it against itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from builders.engines.base import EngineSession, TensorInfo
from builders.engines.failures import failure
from store.errors import FlightbagError, Invalid

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"

SEED = 20260718
# If both norms of a row are this small beside the greatest norm, its direction is noise. The error still counts it.
_NEGLIGIBLE = 1e-6
# Of the greatest value: what sums of float32 in another order differ by. Random numbers differ by far more.
REPEATABLE = 1e-5
_FLOATS = ("float16", "float32", "float64")
_INTEGERS = ("bool", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far an engine may be from the reference. `relative_error`: the greatest error that is allowed, as a part of
    the reference's greatest magnitude; `cosine`: the least cosine that is allowed."""

    relative_error: float
    cosine: float


# The most that the arithmetic loses in a sound network. The figures for int8 leave room for what a small backbone (288
# numbers) lost on real imagery: a least cosine of 0.962, and 0.40 of the greatest value.
TOLERANCES = {
    "fp32": Tolerance(relative_error=1e-3, cosine=0.9999),
    "fp16": Tolerance(relative_error=2e-2, cosine=0.999),
    "int8": Tolerance(relative_error=0.5, cosine=0.95),
}


@dataclass(frozen=True, slots=True)
class CaseFigures:
    """One set of shapes (input name -> shape), and how far the outputs are from the reference's.

    `max_abs_error` and `reference_max` (the reference's greatest magnitude) are those of the output whose quotient of
    the two is the greatest; `cosine` is the least over all outputs and their rows (the first dimension).
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
    """How the outputs of an engine compare to the reference's on the same inputs, for each set of shapes.

    `faults` are sentences about what a number cannot express: a missing output, another shape or dtype, a value that
    is not finite.
    """

    cases: tuple[CaseFigures, ...]
    faults: tuple[str, ...] = ()

    @property
    def worst(self) -> CaseFigures:
        """The case of the greatest relative error."""
        return max(self.cases, key=lambda case: case.relative_error)

    @property
    def cosine(self) -> float:
        """The least cosine of all cases."""
        return min(case.cosine for case in self.cases)

    def as_json(self) -> dict[str, Any]:
        """Return the figures as a JSON value."""
        return {
            "cases": [{**asdict(case), "relative_error": case.relative_error} for case in self.cases],
            "faults": list(self.faults),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> CheckFigures:
        """Return the figures that `as_json` described. Raise KeyError, TypeError or ValueError for any other value."""
        cases = tuple(
            CaseFigures(
                {name: tuple(map(int, shape)) for name, shape in case["shapes"].items()},
                *(float(case[key]) for key in ("max_abs_error", "reference_max", "cosine")),
            )
            for case in value["cases"]
        )
        return CheckFigures(cases, tuple(map(str, value["faults"])))


def require_tolerance(figures: CheckFigures, tolerance: Tolerance) -> None:
    """Raise Refused, with the figures, unless the engine is as close to the reference as `tolerance` demands."""
    reasons = list(figures.faults)
    for case in figures.cases:
        # `not <=` and `not >=`: a figure that is NaN fails.
        if not case.relative_error <= tolerance.relative_error:
            reasons.append(
                f"the greatest error at {_shapes(case.shapes)} is {case.max_abs_error:.3g} and the reference's "
                f"greatest value is {case.reference_max:.3g}; at most {tolerance.relative_error:g} of it is allowed"
            )
        if not case.cosine >= tolerance.cosine:
            reasons.append(
                f"the cosine to the reference at {_shapes(case.shapes)} is {case.cosine:.6f}; at least "
                f"{tolerance.cosine:g} is required"
            )
    if not figures.cases:
        reasons.append("no outputs could be compared")
    if reasons:
        message = "the engine does not compute what its model does: " + "; ".join(reasons)
        raise failure("wrong-output", message, check=figures.as_json())


def difference(first: Mapping[str, Array], second: Mapping[str, Array], allowed: float = REPEATABLE) -> str:
    """Return how the outputs of two runs of one network differ by more than `allowed`, a part of the greatest value;
    empty if they do not."""
    import numpy as np

    for name in sorted(first):
        a, b = first[name], second[name]
        if a.shape != b.shape:
            return f"output {name} is {list(a.shape)} once and {list(b.shape)} once"
        if a.dtype.kind not in "fiub":
            if not np.array_equal(a, b):
                return f"output {name} is not the same twice"
            continue
        a, b = a.astype(np.float64), b.astype(np.float64)
        both = np.isfinite(a) & np.isfinite(b)
        if not np.array_equal(a[~both], b[~both], equal_nan=True):
            return f"output {name} is finite once and once not"
        apart, greatest = _distance(a[both], b[both])
        if apart > allowed * greatest:
            return f"output {name} differs by up to {apart:.3g} where its greatest value is {greatest:.3g}"
    return ""


def require_repeatable(
    session: EngineSession, feeds: Mapping[str, Array], model: str, suspects: Callable[[], str]
) -> None:
    """Raise a failure `not-repeatable` unless two runs of the network `model` on the same feeds give the same outputs.

    `suspects` returns the nodes that may be why, for the message (`graph.irreproducible`).
    """
    if differs := difference(_expected(session, feeds), session.run(feeds)):
        raise not_repeatable(model, f"two runs on the same input: {differs}", suspects())


def not_repeatable(model: str, differs: str, suspects: str, remedy: str = "") -> FlightbagError:
    """Return the failure for a network that is no function of its input: no engine and no map can agree with it."""
    cause = f"; it has {suspects}" if suspects else ""
    return failure("not-repeatable", f"{model} differs from itself in {differs}{cause}", remedy=remedy, model=model)


def check_inputs(session: EngineSession, declared: Mapping[str, tuple[int | str, ...]], key: str, model: str) -> None:
    """Raise Invalid unless the mission file declares, at `key`, exactly the inputs of the model.

    `declared` maps name to shape; `model` is a name for messages.
    """
    actual = {tensor.name: tensor for tensor in session.inputs}
    problems = [
        f"{key}.{name} is missing, {model} takes {actual[name].dtype} {list(actual[name].shape)}"
        for name in sorted(actual.keys() - declared.keys())
    ]
    for name, shape in declared.items():
        tensor = actual.get(name)
        if tensor is None:
            problems.append(f"{key}.{name} is declared, {model} takes {', '.join(sorted(actual)) or 'none'}")
        elif len(tensor.shape) != len(shape) or not all(map(_fits, shape, tensor.shape)):
            problems.append(f"{key}.{name} declares shape {list(shape)}, {model} takes {list(tensor.shape)}")
    if problems:
        raise failure("wrong-inputs", "; ".join(problems))


def check_outputs(session: EngineSession, model: str) -> None:
    """Raise a failure `invalid-model` for a network with an output that no number compares: a sequence, a map, text."""
    others = [f"{one.name} {one.dtype}" for one in session.outputs if one.dtype not in (*_FLOATS, *_INTEGERS, "uint8")]
    if others:
        raise failure(
            "invalid-model",
            f"{model} has the output {', '.join(others)}, and an engine is checked by tensors of numbers",
            remedy="export the network without this output",
            model=model,
        )


def measure(
    reference: EngineSession,
    engine: EngineSession,
    cases: Sequence[Mapping[str, Sequence[int]]],
    model: str,
    rows: Array | None = None,
) -> CheckFigures:
    """Return how the outputs of both compare on the same inputs of each shape in `cases`.

    `rows` are inputs of the network's own kind, one a row, and take the place of seeded numbers: all of them at the
    middle shape, as many as fit at the others. `model` is a name for messages. Raise Invalid if the reference itself
    does not run on such inputs, Unavailable if memory runs out.
    """
    faults = _output_mismatches(reference.outputs, engine.outputs)
    if rows is not None and not all(
        _takes_rows(tensor, case[tensor.name], rows) for tensor in reference.inputs for case in cases
    ):
        faults.append(f"the rows to check with are {rows.dtype} {list(rows.shape[1:])}, which the inputs do not take")
    measured = []
    for case in cases:
        count = next((case[tensor.name][0] for tensor in reference.inputs if case[tensor.name]), 1)
        every = rows is not None and case is cases[len(cases) // 2]
        starts = range(0, len(rows), count) if rows is not None and every else (0,)
        worst: CaseFigures | None = None
        for start in starts:
            feeds = {tensor.name: _feed(tensor, case[tensor.name], rows, start) for tensor in reference.inputs}
            distance = _compare(reference, engine, feeds, model, faults)
            if distance is not None:
                error, greatest, cosine = distance
                current = CaseFigures(dict(case), error, greatest, cosine)
                if worst is None:
                    worst = current
                else:
                    further = max(worst, current, key=lambda one: one.relative_error)
                    least = min(worst.cosine, cosine)
                    worst = CaseFigures(dict(case), further.max_abs_error, further.reference_max, least)
        if worst is not None:
            measured.append(worst)
    return CheckFigures(tuple(measured), tuple(dict.fromkeys(faults)))


def _compare(
    reference: EngineSession, engine: EngineSession, feeds: Mapping[str, Array], model: str, faults: list[str]
) -> tuple[float, float, float] | None:
    """Return (greatest error, the reference's greatest value, least cosine) on these inputs. If the outputs cannot be
    compared, return None and append the reasons to `faults`."""
    import numpy as np  # with the build extra only; `require_tolerance` needs none

    expected = _expected(reference, feeds)
    try:
        actual = engine.run(feeds)
    except Invalid as error:
        faults.append(error.message)
        return None
    except FlightbagError as error:
        raise error.restated(f"{model}: {error.message}") from error
    pairs, cosine = [], 1.0
    for name in sorted(expected.keys() & actual.keys()):
        a, b = expected[name], actual[name]
        if fault := _fault(a, b):
            faults.append(f"output {name} {fault}")
            continue
        a, b = a.astype(np.float64), b.astype(np.float64)
        difference, greatest = _distance(a, b)
        if not (np.isfinite(difference) and np.isfinite(greatest)):
            faults.append(f"output {name} is too large to be compared")
        elif greatest == 0 and difference > 0:
            faults.append(f"output {name} is up to {difference:.3g} where the reference's is all zero")
        else:
            pairs.append((difference, greatest))
            cosine = min(cosine, least_cosine(a, b))
    if not any(greatest > 0 for _, greatest in pairs):
        # Outputs without a number prove nothing, and a check that compared nothing has not passed.
        faults.append(f"every output of {model} is empty or zero, so nothing could be compared")
        return None
    return *max(pairs, key=lambda pair: pair[0] / (pair[1] or 1.0)), cosine


def _expected(reference: EngineSession, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    try:
        return reference.run(feeds)
    except Invalid as error:
        remedy = "declare shapes that the network was exported for, or export it again"
        raise failure("wrong-inputs", error.message, remedy=remedy) from error


def _distance(a: Array, b: Array) -> tuple[float, float]:
    """Return (greatest difference, greatest magnitude of a)."""
    import numpy as np

    with np.errstate(over="ignore"):
        return float(np.abs(a - b).max(initial=0)), float(np.abs(a).max(initial=0))


def _shapes(shapes: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))


def _fits(declared: int | str, actual: int | str) -> bool:
    """The mission file may declare a size where the model leaves the dimension open, not the other way round."""
    return isinstance(actual, str) or declared == actual


def _output_mismatches(reference: tuple[TensorInfo, ...], engine: tuple[TensorInfo, ...]) -> list[str]:
    """Outputs must keep their names, order and dtypes; the names of open dimensions may change."""
    actual, expected = ([f"{tensor.name} {tensor.dtype}" for tensor in outputs] for outputs in (engine, reference))
    return [] if actual == expected else [f"outputs are {', '.join(actual)}, the reference's {', '.join(expected)}"]


def _fault(expected: Array, actual: Array) -> str:
    """Return why these two cannot be compared as numbers; empty if they can."""
    import numpy as np

    if expected.dtype != actual.dtype or expected.shape != actual.shape:
        shown, shown_expected = (f"{array.dtype} {list(array.shape)}" for array in (actual, expected))
        return f"is {shown}, the reference's {shown_expected}"
    if not np.isfinite(expected).all():
        return "of the reference is not finite"
    if not np.isfinite(actual).all():
        return "is not finite"
    return ""


def least_cosine(expected: Array, actual: Array) -> float:
    """Return the least cosine between rows (over the first dimension) of two float64 arrays of one shape.

    An array of fewer than two dimensions is one row. A pair of negligible rows does not count; if only one of a pair
    is zero, its cosine is 0.
    """
    import numpy as np

    if not expected.size:
        return 1.0
    a, b = (array.reshape(len(array) if array.ndim > 1 else 1, -1) for array in (expected, actual))
    scale = max(float(np.abs(a).max(initial=0)), float(np.abs(b).max(initial=0)))
    if scale == 0:
        return 1.0
    a, b = a / scale, b / scale  # the squares of large numbers would overflow
    norms_a, norms_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    counts = np.maximum(norms_a, norms_b) > _NEGLIGIBLE * max(norms_a.max(), norms_b.max())
    norms = (norms_a * norms_b)[counts]
    dots = np.einsum("ij,ij->i", a, b)[counts]
    return float(np.minimum(np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0), 1.0).min())


def _takes_rows(tensor: TensorInfo, shape: Sequence[int], rows: Array) -> bool:
    return tensor.dtype == str(rows.dtype) and tuple(shape[1:]) == rows.shape[1:]


def feeds_of(session: EngineSession, case: Mapping[str, Sequence[int]], rows: Array | None = None) -> dict[str, Array]:
    """Return what `measure` feeds the inputs of a network at the shapes of a case, first."""
    return {tensor.name: _feed(tensor, case[tensor.name], rows, 0) for tensor in session.inputs}


def _feed(tensor: TensorInfo, shape: Sequence[int], rows: Array | None, start: int) -> Array:
    """Return rows from `start` on, repeated as often as needed, if they fit the input; else seeded numbers: 0..1 for
    floats, 0..255 for bytes, 0 or 1 for other integers, which may be indices."""
    import numpy as np

    if rows is not None and _takes_rows(tensor, shape, rows):
        return np.take(rows, range(start, start + shape[0]), axis=0, mode="wrap")
    random = np.random.default_rng(SEED)
    if tensor.dtype in _FLOATS:
        return random.random(shape, np.float32).astype(tensor.dtype)
    if tensor.dtype == "uint8":
        return random.integers(0, 256, shape, np.uint8)
    if tensor.dtype in _INTEGERS:
        return random.integers(0, 2, shape, np.int64).astype(tensor.dtype)
    raise _not_numeric(tensor)


def _not_numeric(tensor: TensorInfo) -> FlightbagError:
    remedy = "export a backbone that takes numbers"
    return failure("wrong-inputs", f"the input {tensor.name} has the dtype {tensor.dtype}", remedy=remedy)
