"""Whether an engine computes what its model does: what is measured, and what is judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.engines.base import TensorInfo
from builders.engines.check import (
    TOLERANCES,
    CaseFigures,
    CheckFigures,
    Tolerance,
    check_inputs,
    compared_outputs,
    least_cosine,
    measure,
    require_tolerance,
)
from builders.engines.failures import failure
from store.errors import FlightbagError, Invalid, Refused, Unavailable

FP32 = TOLERANCES["fp32"]


def case(error: float = 0.0, greatest: float = 1.0, cosine: float = 1.0) -> CaseFigures:
    return CaseFigures({"x": (1, 4)}, error, greatest, cosine)


def figures(error: float = 0.0, greatest: float = 1.0, cosine: float = 1.0, *faults: str) -> CheckFigures:
    return CheckFigures((case(error, greatest, cosine),), faults)


# The judgement


@pytest.mark.parametrize(
    "wrong",
    [
        figures(error=1.01e-3),
        figures(error=1e-6, greatest=1e-4),
        figures(error=1e-9, greatest=0.0),
        figures(cosine=0.99989),
        figures(error=float("nan")),
        figures(greatest=float("nan"), error=1.0),
        figures(cosine=float("nan")),
        figures(error=float("inf"), greatest=float("inf")),
        figures(0.0, 1.0, 1.0, "output y is missing"),
        CheckFigures(()),
        # One case that is wrong is not hidden by others, wherever it stands.
        CheckFigures((case(), case(error=0.5), case())),
        CheckFigures((case(), case(), case(cosine=0.5))),
    ],
    ids=repr,
)
def test_an_engine_that_computes_something_else_is_refused(wrong: CheckFigures) -> None:
    with pytest.raises(Refused) as caught:
        require_tolerance(wrong, FP32)
    assert caught.value.kind == "wrong-output"


@pytest.mark.parametrize(
    "right",
    [figures(), figures(error=1e-3), figures(0.0, 0.0), figures(cosine=0.9999), CheckFigures((case(), case(1e-4)))],
    ids=repr,
)
def test_an_engine_within_the_tolerance_passes(right: CheckFigures) -> None:
    require_tolerance(right, FP32)


def test_a_refusal_names_the_figures_and_the_shapes() -> None:
    says = (
        r"error at x \[1, 4\] is 0\.5 .* value is 2; at most 0\.001 of it is allowed; "
        r"the cosine to the reference at x \[1, 4\] is 0\.900000; at least 0\.9999 is required"
    )
    wrong = figures(0.5, 2.0, 0.9)
    with pytest.raises(Refused, match=says) as caught:
        require_tolerance(wrong, FP32)
    assert caught.value.fields["check"] == wrong.as_json()


def test_a_wider_tolerance_lets_pass_what_a_narrower_refuses() -> None:
    for narrow, wide in (("fp32", "fp16"), ("fp16", "int8")):
        between = figures(error=TOLERANCES[wide].relative_error, cosine=TOLERANCES[wide].cosine)
        require_tolerance(between, TOLERANCES[wide])
        with pytest.raises(Refused):
            require_tolerance(between, TOLERANCES[narrow])
    require_tolerance(figures(cosine=0.5), Tolerance(0.0, 0.5))


# The figures


@given(
    st.lists(
        st.builds(
            CaseFigures,
            st.dictionaries(st.text(max_size=5), st.lists(st.integers(1, 9), max_size=4).map(tuple), max_size=3),
            *[st.floats(0, 1e30), st.floats(1e-30, 1e30), st.floats(-1, 1)],
        ),
        max_size=3,
    ).map(tuple),
    st.lists(st.text(max_size=9), max_size=2).map(tuple),
)
def test_figures_are_the_same_after_json(cases: tuple[CaseFigures, ...], faults: tuple[str, ...]) -> None:
    given_ = CheckFigures(cases, faults)
    assert CheckFigures.from_json(json.loads(json.dumps(given_.as_json()))) == given_


def test_the_worst_case_and_the_least_cosine_are_found() -> None:
    found = CheckFigures((case(0.1, 1.0, 0.9), case(0.2, 10.0, 0.8), case(0.01, 0.02, 0.95)))
    assert found.worst == case(0.01, 0.02, 0.95)
    assert found.worst.relative_error == 0.5
    assert found.cosine == 0.8


# The cosine


rows = st.lists(st.floats(-1e30, 1e30), min_size=6, max_size=6).map(lambda v: np.array(v).reshape(2, 3))


@given(rows)
def test_the_cosine_of_anything_with_itself_is_1(array: np.ndarray) -> None:
    assert least_cosine(array, array) == pytest.approx(1.0)


@given(rows, rows, st.floats(1e-3, 1e3))
def test_the_cosine_is_symmetric_bounded_and_free_of_scale(a: np.ndarray, b: np.ndarray, by: float) -> None:
    cosine = least_cosine(a, b)
    assert -1.0 - 1e-9 <= cosine <= 1.0
    assert least_cosine(b, a) == pytest.approx(cosine)
    assert least_cosine(a * 2, b * 2) == pytest.approx(cosine)


def test_one_row_that_turned_is_not_hidden_by_many_that_did_not() -> None:
    a = np.ones((1000, 4))
    b = a.copy()
    b[500] *= -1
    assert least_cosine(a, b) == pytest.approx(-1.0)
    b[500] = 0
    assert least_cosine(a, b) == 0.0


def test_rows_that_are_noise_do_not_count_and_numbers_alone_are_one_row() -> None:
    a, b = np.ones((2, 4)), np.ones((2, 4))
    a[1], b[1] = [1e-9, 0, 0, 0], [-1e-9, 0, 0, 0]
    assert least_cosine(a, b) == pytest.approx(1.0)
    assert least_cosine(np.array(3.0), np.array(5.0)) == pytest.approx(1.0)
    assert least_cosine(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 0.0
    assert least_cosine(np.zeros((2, 3)), np.zeros((2, 3))) == 1.0


def test_outputs_of_no_rows_are_alike_and_prove_nothing() -> None:
    """A detector that finds nothing gives such: nobody can say then whether its engine would find the same."""
    for shape in ((0,), (0, 3), (2, 0), (0, 4, 5)):
        assert least_cosine(np.zeros(shape), np.zeros(shape)) == 1.0
    for nothing in (np.zeros((0, 4), np.float32), np.zeros((2, 4), np.float32)):
        with pytest.raises(
            Refused, match="the output y of net is empty or zero on noise, so nothing could be compared"
        ):
            require_tolerance(measure(of(nothing), of(nothing), CASES, "net"), FP32)


def test_something_where_the_reference_is_zero_is_refused_and_can_be_told() -> None:
    zero, one = np.zeros((2, 4), np.float32), np.ones((2, 4), np.float32)
    found = measure(of(zero), of(one), CASES, "net")
    json.dumps(found.as_json(), allow_nan=False)
    with pytest.raises(Refused, match="up to 1 where the reference's is all zero"):
        require_tolerance(found, FP32)


def test_numbers_too_large_to_be_compared_are_refused_and_can_be_told() -> None:
    large = np.full((2, 4), 1.7e308)
    ends = (TensorInfo("y", "float64", ("N", 4)),)
    found = measure(Session(outputs=ends, y=large), Session(outputs=ends, y=-large), CASES, "net")
    json.dumps(found.as_json(), allow_nan=False)
    with pytest.raises(Refused, match="too large to be compared"):
        require_tolerance(found, FP32)


# The measurement


class Session:
    """A network that gives `results` of its feeds, and remembers these."""

    def __init__(self, inputs: tuple[TensorInfo, ...] = (), outputs: tuple[TensorInfo, ...] = (), **results: Any):
        self.inputs = inputs or (TensorInfo("x", "float32", ("N", 4)),)
        self.outputs = outputs or (TensorInfo("y", "float32", ("N", 4)),)
        self.results = results or {"y": lambda feeds: feeds["x"]}
        self.seen: list[Mapping[str, Any]] = []

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        self.seen.append(feeds)
        return {name: result(feeds) if callable(result) else result for name, result in self.results.items()}


def of(result: Any) -> Session:
    return Session(y=result)


CASES = ({"x": (1, 4)}, {"x": (3, 4)})


class Wrong(Session):
    """Gives its feeds, but for one value of the input that it gets wrong."""

    def __init__(self, bad: float) -> None:
        super().__init__()
        self.bad = bad

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        x = feeds["x"]
        return {"y": np.where(x == self.bad, -x, x)}


@pytest.mark.parametrize("row", [0, 1, 6])
def test_every_row_is_compared_at_the_middle_shape(row: int) -> None:
    """However small the batch: an engine that is wrong on one of the tiles only is found out."""
    rows = np.arange(1, 29, dtype=np.float32).reshape(7, 4)
    cases = [{"x": (1, 4)}, {"x": (2, 4)}, {"x": (3, 4)}]
    for some in (cases, cases[:1]):
        found = measure(Wrong(-1.0), Wrong(float(rows[row, 0])), some, "net", rows)
        with pytest.raises(Refused):
            require_tolerance(found, FP32)
        require_tolerance(measure(Wrong(-1.0), Wrong(-1.0), some, "net", rows), FP32)


def test_both_get_the_same_numbers_each_time() -> None:
    one, two = Session(), Session()
    found = measure(one, two, CASES, "net")
    assert [feeds["x"].shape for feeds in one.seen] == [(1, 4), (3, 4)]
    assert all(a["x"].tobytes() == b["x"].tobytes() for a, b in zip(one.seen, two.seen, strict=True))
    assert found.faults == ()
    assert [(case.shapes, case.max_abs_error) for case in found.cases] == [({"x": (1, 4)}, 0.0), ({"x": (3, 4)}, 0.0)]
    again = Session()
    measure(again, Session(), CASES, "net")
    assert again.seen[1]["x"].tobytes() == one.seen[1]["x"].tobytes()


def test_the_error_and_the_magnitude_are_those_of_the_worst_output() -> None:
    ends = tuple(TensorInfo(name, "float32", (1, 2)) for name in ("big", "little"))
    big, little = np.array([[100.0, 0]], np.float32), np.array([[0.5, 0]], np.float32)
    reference = Session(outputs=ends, big=big, little=little)
    engine = Session(outputs=ends, big=big + np.float32(1), little=little + np.float32(0.25))
    (found,) = measure(reference, engine, CASES[:1], "net").cases
    assert (found.max_abs_error, found.reference_max) == (0.25, 0.5)
    assert found.cosine == pytest.approx(0.75 / np.hypot(0.75, 0.25))


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (
            lambda feeds: feeds["x"].astype(np.float64),
            r"output y is float64 \[1, 4\], the reference's float32 \[1, 4\]",
        ),
        (lambda feeds: feeds["x"][:, :3], r"output y is float32 \[1, 3\]"),
        (lambda feeds: feeds["x"] * np.float32("nan"), "output y is not finite"),
        (lambda feeds: feeds["x"] + np.float32("inf"), "output y is not finite"),
    ],
    ids=["dtype", "shape", "nan", "inf"],
)
def test_what_cannot_be_compared_is_a_fault(result: Any, says: str) -> None:
    found = measure(Session(), of(result), CASES[:1], "net")
    with pytest.raises(Refused, match=says):
        require_tolerance(found, FP32)


def test_a_reference_that_is_not_finite_is_a_fault() -> None:
    result = np.array([[1, np.inf]], np.float32)
    with pytest.raises(Refused, match="output y of the reference is not finite"):
        require_tolerance(measure(of(result), of(result), CASES[:1], "net"), FP32)


@pytest.mark.parametrize(
    "ends",
    [
        (TensorInfo("z", "float32", ("N", 4)),),
        (TensorInfo("y", "float16", ("N", 4)),),
        (TensorInfo("y", "float32", ("N", 4)), TensorInfo("z", "float32", ("N", 4))),
    ],
    ids=["name", "dtype", "one more"],
)
def test_outputs_keep_their_names_and_dtypes(ends: tuple[TensorInfo, ...]) -> None:
    found = measure(Session(), Session(outputs=ends), CASES, "net")
    with pytest.raises(Refused, match=r"outputs are .*, the reference's y float32"):
        require_tolerance(found, FP32)


def test_the_names_of_open_dimensions_may_change() -> None:
    require_tolerance(
        measure(Session(), Session(outputs=(TensorInfo("y", "float32", ("batch", 4)),)), CASES, "net"), FP32
    )


def raising(error: FlightbagError) -> Any:
    def run(feeds: Mapping[str, Any]) -> Any:
        raise error

    return run


def test_a_source_that_does_not_run_is_named_and_an_engine_that_does_not_is_refused() -> None:
    wrong = Invalid("the session does not run on x [1, 4]")
    with pytest.raises(Invalid, match=r"^the session does not run on x \[1, 4\]") as caught:
        measure(of(raising(wrong)), Session(), CASES, "net")
    assert caught.value.kind == "wrong-inputs"
    found = measure(Session(), of(raising(wrong)), CASES, "net")
    with pytest.raises(Refused, match=r"the session does not run on x \[1, 4\]"):
        require_tolerance(found, FP32)


def test_memory_that_ran_out_says_nothing_of_the_engine() -> None:
    with pytest.raises(Unavailable, match="memory ran out"):
        measure(Session(), of(raising(failure("out-of-memory", "memory ran out"))), CASES, "net")


def test_rows_are_fed_over_and_over_where_they_fit() -> None:
    given_ = np.arange(8, dtype=np.float32).reshape(2, 4)
    one = Session()
    measure(one, Session(), CASES, "net", given_)
    assert [feeds["x"].tolist() for feeds in one.seen] == [
        given_[:1].tolist(),
        [*given_.tolist(), given_[0].tolist()],
    ]


@pytest.mark.parametrize(
    "given_",
    [np.full((2, 5), 7, np.float32), np.full((2, 4), 7, np.float64), np.full((2, 4, 1), 7, np.float32)],
    ids=["shape", "dtype", "rank"],
)
def test_rows_that_do_not_fit_are_a_fault(given_: np.ndarray) -> None:
    """Else an engine would be checked on noise, and nobody would know."""
    one = Session()
    found = measure(one, Session(), CASES, "net", given_)
    assert all((feeds["x"] < 1).all() for feeds in one.seen)
    with pytest.raises(Refused, match="which the inputs do not take"):
        require_tolerance(found, FP32)


@pytest.mark.parametrize(
    ("dtype", "greatest"),
    [("float16", 1), ("float32", 1), ("float64", 1), ("uint8", 255), ("bool", 1), ("int8", 1), ("int64", 1)],
)
def test_each_kind_of_input_is_fed_numbers_that_it_may_take(dtype: str, greatest: int) -> None:
    one = Session(inputs=(TensorInfo("x", dtype, ("N", 4)),), y=np.ones((1, 4), np.float32))
    measure(one, of(np.ones((1, 4), np.float32)), [{"x": (64, 4)}], "net")
    fed = one.seen[0]["x"]
    assert fed.dtype == dtype
    assert fed.min() >= 0
    assert 0 < fed.max() <= greatest
    assert len(np.unique(fed)) > 1


@pytest.mark.parametrize("dtype", ["string", "bfloat16"])
def test_an_input_that_takes_no_numbers_is_named(dtype: str) -> None:
    with pytest.raises(Invalid, match=f"the input x has the dtype {dtype}") as caught:
        measure(Session(inputs=(TensorInfo("x", dtype, ("N", 4)),)), Session(), CASES, "net")
    assert caught.value.kind == "wrong-inputs"


# The inputs


def test_inputs_may_be_declared_narrower_than_the_model_has_them_and_not_wider() -> None:
    session = Session(inputs=(TensorInfo("x", "float32", ("N", 4, "?")),))
    check_inputs(session, {"x": ("B", 4, 7)}, "inputs", "net")
    check_inputs(session, {"x": (2, 4, "n")}, "inputs", "net")
    for shape in ((1, "N", 2), (1, 5, 2), (1, 4), (1, 4, 2, 2)):
        with pytest.raises(Invalid, match=r"inputs\.x declares shape") as caught:
            check_inputs(session, {"x": shape}, "inputs", "net")
        assert caught.value.kind == "wrong-inputs"


def test_every_input_that_is_wrong_is_named_at_once() -> None:
    session = Session(inputs=(TensorInfo("a", "float32", (1,)), TensorInfo("b", "uint8", (2,))))
    says = r"^i\.b is missing, net takes uint8 \[2\]; i\.a declares shape \[3\], net takes \[1\]; i\.c is declared, net"
    with pytest.raises(Invalid, match=says):
        check_inputs(session, {"a": (3,), "c": (1,)}, "i", "net")


@pytest.mark.parametrize("dtype", ["seq(tensor(float))", "string", "bfloat16"])
def test_an_output_that_no_number_compares_is_named(dtype: str) -> None:
    outputs = (TensorInfo("y", "float32", ("N", 2)), TensorInfo("odd", dtype, ("N",)))
    session = Session((), outputs)
    with pytest.raises(Invalid, match="odd") as error:
        compared_outputs(session, (), "compare", "embedder.onnx")
    assert error.value.kind == "invalid-model"
