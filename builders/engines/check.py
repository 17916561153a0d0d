"""The check that an engine computes what its model does: both run on the same inputs, and their outputs are compared.

`measure` runs in the process that compiles and decides nothing. `require_tolerance` decides, on figures that `measure`
has returned or that an engine's card holds. The reference is the source network with every optimisation off, on ONNX
Runtime's CPU. Before anything is compared with it, `require_repeatable` holds it against itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from builders.engines.base import Ends, EngineSession, EngineSpec, TensorInfo
from builders.engines.failures import KINDS, failure
from builders.engines.graph import FixedInput
from store.errors import FlightbagError, Invalid, either

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"

SEED = 20260718
# If both norms of a row are this small beside the greatest norm, its direction is noise. The error still counts it.
_NEGLIGIBLE = 1e-6
# Of the greatest value: what sums of float32 in another order differ by. Random numbers differ by far more.
REPEATABLE = 1e-5
# Batches that an export may have baked in, tried where a network does not run on the one that is declared.
_BAKED = (1, 2, 4, 8, 16, 32)
_FLOATS = ("float16", "float32", "float64")
_SUBJECTS = ("engine", "network")
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
class AuthorFigures:
    """How far the network is from what its author's framework gave (`reference` of the mission file): `digest` is the
    BLAKE3 of that file in hex, the rest as in `CaseFigures`; `half` says that the author computed in float16."""

    digest: str
    max_abs_error: float
    reference_max: float
    cosine: float
    half: bool


@dataclass(frozen=True, slots=True)
class CheckFigures:
    """How the outputs of an engine compare to the reference's on the same inputs, for each set of shapes.

    `faults` are sentences about what a number cannot express: a missing output, another shape or dtype, a value that
    is not finite. `outputs` are the outputs that were compared, ascending, and `inputs` what they were compared on:
    "noise", or "tiles" of the area. `author` are the figures of the network itself, None where nobody asked. `of` says
    what was compared: the "engine", or, where nothing here runs the engine, the "network" that it was compiled from.
    """

    cases: tuple[CaseFigures, ...]
    faults: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    inputs: str = "noise"
    author: AuthorFigures | None = None
    of: str = "engine"

    @property
    def worst(self) -> CaseFigures:
        """The case of the greatest relative error."""
        return max(self.cases, key=lambda case: case.relative_error)

    @property
    def cosine(self) -> float:
        """The least cosine of all cases."""
        return min(case.cosine for case in self.cases)

    @property
    def remedy(self) -> str:
        """The remedy for figures of several outputs, "" for those of one."""
        if len(self.outputs) < 2:
            return ""
        return (
            'name the outputs that are used, such as compare = ["descriptor"] in the table of the backbone: others, '
            f"such as indices, are not compared then (it has {', '.join(self.outputs)}); or {KINDS['wrong-output'][1]}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures as a JSON value."""
        return {
            "cases": [{**asdict(case), "relative_error": case.relative_error} for case in self.cases],
            "faults": list(self.faults),
            "outputs": list(self.outputs),
            "inputs": self.inputs,
            "author": asdict(self.author) if self.author is not None else None,
            "of": self.of,
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
        author = _author(value["author"]) if value["author"] is not None else None
        faults, outputs = (tuple(map(str, value[key])) for key in ("faults", "outputs"))
        if value["of"] not in _SUBJECTS:
            raise ValueError(f"expected {either(list(_SUBJECTS))} for what was compared")
        return CheckFigures(cases, faults, outputs, str(value["inputs"]), author, value["of"])


def _author(value: Mapping[str, Any]) -> AuthorFigures:
    if type(value["half"]) is not bool:
        raise TypeError("expected true or false for the author's half")
    error, greatest, cosine = (float(value[key]) for key in ("max_abs_error", "reference_max", "cosine"))
    return AuthorFigures(str(value["digest"]), error, greatest, cosine, value["half"])


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
        raise failure("wrong-output", message, remedy=figures.remedy, check=figures.as_json())


def require_author(author: AuthorFigures | None, tolerance_of: Callable[[str], Tolerance]) -> None:
    """Raise Refused, with the figures, unless the network is as close to what its author's framework gave as the
    tolerance for its precision demands: that of fp16 where the author computed in float16, else of fp32."""
    if author is None:
        return
    tolerance = tolerance_of("fp16" if author.half else "fp32")
    relative = author.max_abs_error / author.reference_max if author.reference_max else author.max_abs_error
    if not (relative <= tolerance.relative_error and author.cosine >= tolerance.cosine):
        raise failure(
            "wrong-export",
            "the model does not compute what its reference holds: the greatest error is "
            f"{author.max_abs_error:.3g} where the greatest value is {author.reference_max:.3g}, of which at most "
            f"{tolerance.relative_error:g} is allowed; the cosine is {author.cosine:.6f}, at least "
            f"{tolerance.cosine:g} is required",
            author=asdict(author),
        )


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
    session: EngineSession,
    feeds: Mapping[str, Array],
    model: str,
    suspects: Callable[[], str],
    outputs: Sequence[str] = (),
) -> Mapping[str, Array]:
    """Return `outputs` (or all) of a run of the network `model`. Raise a failure `not-repeatable` unless a second run
    on the same feeds gives the same.

    `suspects` returns the nodes that may be why, for the message (`graph.irreproducible`).
    """
    first, second = (
        {name: array for name, array in run(feeds).items() if not outputs or name in outputs}
        for run in (lambda given: _expected(session, given), session.run)
    )
    if differs := difference(first, second):
        raise not_repeatable(model, f"two runs on the same input: {differs}", suspects())
    return first


def not_repeatable(model: str, differs: str, suspects: str, remedy: str = "") -> FlightbagError:
    """Return the failure for a network that is no function of its input: no engine and no map can agree with it."""
    cause = f"; it has {suspects}" if suspects else ""
    return failure("not-repeatable", f"{model} differs from itself in {differs}{cause}", remedy=remedy, model=model)


def check_ends(session: EngineSession, spec: EngineSpec, model: str) -> tuple[str, ...]:
    """Return the outputs by which an engine of this network is checked. Raise Invalid unless the mission file declares
    the inputs and outputs that the network has: see `check_inputs` and `compared_outputs`."""
    key = f"backbones[{spec.backbone}]"
    check_inputs(session, {item.name: item.shape for item in spec.inputs}, f"{key}.inputs", model)
    return compared_outputs(session, spec.compare, f"{key}.compare", model)


def require_ends(network: EngineSession, ends: Ends, model: str) -> None:
    """Raise Invalid unless an engine has the ends of its network: the names, the dtypes, and no other sizes. A compiler
    may take float64 for float32 without a word."""
    for what, ours, theirs in (("input", network.inputs, ends.inputs), ("output", network.outputs, ends.outputs)):
        expected, actual = ({one.name: one for one in tensors} for tensors in (ours, theirs))
        if expected.keys() != actual.keys():
            names = f"{', '.join(actual) or 'none'}, the model {', '.join(expected) or 'none'}"
            raise failure("wrong-output", f"the engine of {model} has the {what}s {names}")
        for name, one in expected.items():
            there = actual[name]
            if one.dtype != there.dtype:
                raise failure(
                    "unsupported-op",
                    f"the {what} {name} of {model} is {one.dtype}, and the backend makes it {there.dtype}",
                    remedy=f"export the network with {there.dtype} for {name}, or name another backend",
                )
            same = len(one.shape) == len(there.shape) and all(map(_alike, one.shape, there.shape))
            if not same:
                shapes = f"{list(there.shape)}, the model has {list(one.shape)}"
                raise failure("wrong-output", f"the engine of {model} has the {what} {name} {shapes}")


def _alike(a: int | str, b: int | str) -> bool:
    return isinstance(a, str) or isinstance(b, str) or a == b


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


def compared_outputs(session: EngineSession, compare: Sequence[str], key: str, model: str) -> tuple[str, ...]:
    """Return the outputs by which an engine of this network is checked, ascending: those of `compare`, or all where it
    is empty. Raise Invalid for one that the network lacks, at `key` of the mission file, and for one that no number
    compares: a sequence, a map, text."""
    outputs = {one.name: one.dtype for one in session.outputs}
    if absent := [name for name in compare if name not in outputs]:
        raise failure(
            "wrong-inputs",
            f"{key} names {', '.join(absent)}, and {model} has no such output",
            remedy=f"name some of its outputs: {', '.join(outputs)}",
        )
    names = tuple(sorted(compare or outputs))
    others = [f"{name} {outputs[name]}" for name in names if outputs[name] not in (*_FLOATS, *_INTEGERS, "uint8")]
    if others:
        raise failure(
            "invalid-model",
            f"{model} has the output {', '.join(others)}, and an engine is checked by tensors of numbers",
            remedy="export the network without this output, or leave it out of compare",
            model=model,
        )
    return names


def measure(
    reference: EngineSession,
    engine: EngineSession,
    cases: Sequence[Mapping[str, Sequence[int]]],
    model: str,
    rows: Array | None = None,
    outputs: Sequence[str] = (),
) -> CheckFigures:
    """Return how the outputs of both compare on the same inputs of each shape in `cases`.

    `rows` are inputs of the network's own kind, one a row, and take the place of seeded numbers: all of them at the
    middle shape; at the others as many as fit, or the next ones where a network finds nothing in these. `outputs` are
    those to compare, or all. `model` is a name for messages. Raise Invalid if the reference itself does not run on such
    inputs, Unavailable if memory runs out.
    """
    faults = _output_mismatches(reference.outputs, engine.outputs)
    if rows is not None and not all(
        _takes_rows(tensor, case[tensor.name], rows) for tensor in reference.inputs for case in cases
    ):
        faults.append(f"the rows to check with are {rows.dtype} {list(rows.shape[1:])}, which the inputs do not take")
    outputs = tuple(sorted(outputs or (one.name for one in reference.outputs)))
    measured = []
    for case in cases:
        count = next((case[tensor.name][0] for tensor in reference.inputs if case[tensor.name]), 1)
        every = case is cases[len(cases) // 2]
        worst: CaseFigures | None = None
        before = len(faults)
        for start in range(0, len(rows), count) if rows is not None else (0,):
            feeds = {tensor.name: _feed(tensor, case[tensor.name], rows, start) for tensor in reference.inputs}
            distance = _compare(reference, engine, feeds, model, outputs, faults)
            if distance is not None:
                error, greatest, cosine = distance
                current = CaseFigures(dict(case), error, greatest, cosine)
                if worst is None:
                    worst = current
                else:
                    further = max(worst, current, key=lambda one: one.relative_error)
                    least = min(worst.cosine, cosine)
                    worst = CaseFigures(dict(case), further.max_abs_error, further.reference_max, least)
            if not every and (worst is not None or len(faults) > before):
                break
        if worst is not None:
            measured.append(worst)
        elif len(faults) == before:
            faults.append(nothing_compared(model, outputs, "noise" if rows is None else f"{len(rows)} tiles"))
    inputs = "noise" if rows is None else "tiles"
    return CheckFigures(tuple(measured), tuple(dict.fromkeys(faults)), outputs, inputs)


def nothing_compared(model: str, outputs: Sequence[str], on: str) -> str:
    """Return the sentence for outputs without a number: they prove nothing, and a check that compared nothing has not
    passed."""
    what = f"the output {outputs[0]}" if len(outputs) == 1 else f"every output of {', '.join(outputs)}"
    return f"{what} of {model} is empty or zero on {on}, so nothing could be compared"


def is_nothing(outputs: Mapping[str, Array], names: Sequence[str]) -> bool:
    """Whether these outputs of a run hold no number but zeros."""
    return not any(outputs[name].any() for name in names)


def _compare(
    reference: EngineSession,
    engine: EngineSession,
    feeds: Mapping[str, Array],
    model: str,
    outputs: Sequence[str],
    faults: list[str],
) -> tuple[float, float, float] | None:
    """Return (greatest error, the reference's greatest value, least cosine) on these inputs. Return None where the
    outputs hold no number, and where they cannot be compared: then the reasons are appended to `faults`."""
    expected = _expected(reference, feeds)
    try:
        actual = engine.run(feeds)
    except Invalid as error:
        faults.append(error.message)
        return None
    except FlightbagError as error:
        raise error.restated(f"{model}: {error.message}") from error
    return _furthest({name: (expected[name], actual[name]) for name in outputs if name in actual}, faults)


def _furthest(pairs_of: Mapping[str, tuple[Array, Array]], faults: list[str]) -> tuple[float, float, float] | None:
    """As `_compare`, of (expected, actual) by the names of outputs."""
    import numpy as np  # with the build extra only; `require_tolerance` needs none

    pairs, cosine = [], 1.0
    for name, (a, b) in sorted(pairs_of.items()):
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
        return None
    return *max(pairs, key=lambda pair: pair[0] / (pair[1] or 1.0)), cosine


def without_fixed(arrays: Mapping[str, Array], fixed: Sequence[FixedInput], file: str) -> dict[str, Array]:
    """Return the arrays of an author's run without those of inputs with a fixed value. Raise a failure `bad-reference`
    where one of these holds another value."""
    import numpy as np

    for item in (one for one in fixed if one.name in arrays):
        array = arrays[item.name]
        sizes = [1 if isinstance(size, str) else size for size in item.shape]
        values = np.array([float(value) for value in item.values])
        try:
            expected = np.broadcast_to(values[0] if len(values) == 1 else values.reshape(sizes), array.shape)
        except ValueError:  # they have another shape
            expected = None
        if expected is None or not (array == expected.astype(array.dtype)).all():
            raise failure(
                "bad-reference",
                f"{file} has another value for the input {item.name} than the mission file",
                remedy=f"give {item.name} the value in backbones.inputs that the author's run had, or save a run with "
                "the value of the mission file",
            )
    return {name: array for name, array in arrays.items() if name not in {one.name for one in fixed}}


def author_figures(
    session: EngineSession, arrays: Mapping[str, Array], digest: str, outputs: Sequence[str], file: str
) -> AuthorFigures:
    """Return how far the network `session` is from the arrays that its author's framework gave: each input of the
    network by its name, and one or more of its outputs, of which those in `outputs` are compared.

    `digest` and `file` are those of the file that holds the arrays. Raise a failure `bad-reference` for arrays that are
    not those of this network.
    """
    inputs = {one.name: one for one in session.inputs}
    names = [one.name for one in session.outputs]
    remedy = (
        f"save the inputs ({', '.join(inputs)}) and outputs ({', '.join(names)}) of one run, each under its name: "
        "numpy.savez(file, name=array, ...)"
    )
    if absent := [name for name in inputs if name not in arrays]:
        raise failure("bad-reference", f"{file} has no array for the input {', '.join(absent)}", remedy=remedy)
    if unknown := [name for name in arrays if name not in inputs and name not in names]:
        raise failure(
            "bad-reference",
            f"{file} has the array {', '.join(unknown)}, no input or output of the model",
            remedy=remedy,
        )
    expected = {name: array for name, array in arrays.items() if name in outputs}
    if not expected:
        raise failure("bad-reference", f"{file} has none of the outputs {', '.join(outputs)}", remedy=remedy)
    feeds = {}
    for name, tensor in inputs.items():
        array = arrays[name]
        halved = array.dtype.kind == "f" and tensor.dtype in _FLOATS
        if str(array.dtype) != tensor.dtype and not halved:
            what = f"{file}: the input {name} is {array.dtype}, the model takes {tensor.dtype}"
            raise failure("bad-reference", what, remedy=f"save {name} as {tensor.dtype}")
        feeds[name] = array.astype(tensor.dtype)
    try:
        actual = session.run(feeds)
    except Invalid as error:
        raise failure("bad-reference", f"{file}: {error.message}", remedy=remedy) from error
    faults: list[str] = []
    half = any(str(array.dtype) == "float16" for array in expected.values())
    pairs = {
        name: (array.astype(actual[name].dtype) if array.dtype.kind == "f" else array, actual[name])
        for name, array in expected.items()
    }
    furthest = _furthest(pairs, faults)
    if furthest is None or faults:
        why = "; ".join(faults) or f"every output in it ({', '.join(expected)}) is empty or zero"
        raise failure("wrong-export", f"the model does not compute what {file} holds: {why}")
    return AuthorFigures(digest, *furthest, half)


def baked_batch(name: str, size: int) -> str:
    """Return the remedy for a network that runs on this number of images only, `name` being its input."""
    return (
        f"the network runs on {size} at a time only, whatever it declares: set min = {size}, opt = {size}, "
        f"max = {size} for {name} in backbones.inputs, or export it with a dynamic batch"
    )


def _expected(reference: EngineSession, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
    try:
        return reference.run(feeds)
    except Invalid as error:
        remedy = (
            _batch_remedy(reference, feeds) or "declare shapes that the network was exported for, or export it again"
        )
        raise failure("wrong-inputs", error.message, remedy=remedy) from error


def _batch_remedy(reference: EngineSession, feeds: Mapping[str, Array]) -> str:
    """Return the remedy where the network runs on another number of images than these, else ""."""
    import numpy as np

    counts = {array.shape[0] for array in feeds.values() if array.ndim}
    for size in _BAKED if len(counts) == 1 and len(feeds) == 1 else ():
        if size in counts:
            continue
        try:
            reference.run({name: np.take(array, range(size), axis=0, mode="wrap") for name, array in feeds.items()})
        except FlightbagError:
            continue
        return baked_batch(next(iter(feeds)), size)
    return ""


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


def as_inputs(rows: Array, dtype: str) -> Array:
    """Return rows of float32, as preprocessing makes them, as this dtype; others as they are. Raise a failure
    `wrong-inputs` where it does not hold the numbers."""
    import numpy as np

    if str(rows.dtype) != "float32" or dtype not in (*_FLOATS, *_INTEGERS, "uint8"):
        return rows
    if np.dtype(dtype).kind in "iu":
        bounds = np.iinfo(dtype)
        if (rows != np.round(rows)).any() or rows.min() < bounds.min or rows.max() > bounds.max:
            what = f"the model takes {dtype}, and preprocess makes numbers from {rows.min():g} to {rows.max():g}"
            raise failure("wrong-inputs", what, remedy='set scale = "0..255" and leave out mean and std')
    return rows.astype(dtype, copy=False)


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
