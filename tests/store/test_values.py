"""Values are as the library `dataclasses` makes them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from dataclasses import InitVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import values
from store.errors import Invalid
from store.findings import Finding
from tests.support.missions import ROOT
from tests.support.stores import NORTH


def of(library: Any) -> tuple[Any, ...]:
    """The same declarations, made by `library`."""

    @library.dataclass(frozen=True, slots=True, order=True)
    class Point:
        """A point."""

        x: int
        y: int = 0
        name: str = ""

        def __post_init__(self) -> None:
            if self.x < -1000:
                raise ValueError("x")

        @property
        def double(self) -> int:
            return 2 * self.x

    @library.dataclass(frozen=True, slots=True)
    class One:
        value: object

        def __repr__(self) -> str:
            return "One(…)"

    @library.dataclass(frozen=True)
    class Kept:
        shown: int
        hidden: int = library.field(repr=False)
        made_by: InitVar[object]
        last: str = library.field(default="", repr=False)

        def __post_init__(self, made_by: object) -> None:
            if made_by is not True:
                raise TypeError("made_by")

    return Point, One, Kept


OURS, THEIRS = of(values), of(dataclasses)
POINT = OURS[0]
POINTS = st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.sampled_from(["", "a", "b"]))


def outcome(function: Any, *args: Any, **kwargs: Any) -> object:
    """What a call gives: its value as text, or its error."""
    try:
        return repr(function(*args, **kwargs))
    except Exception as error:
        return type(error), str(error)


@given(POINTS, POINTS)
def test_equality_order_hash_and_text_are_those_of_the_library(a: Any, b: Any) -> None:
    ours, theirs = [OURS[0](*one) for one in (a, b)], [THEIRS[0](*one) for one in (a, b)]
    assert repr(ours) == repr(theirs)
    assert hash(ours[0]) == hash(theirs[0]) == hash(a)
    for operator in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"):
        assert getattr(ours[0], operator)(ours[1]) == getattr(theirs[0], operator)(theirs[1])
        assert getattr(ours[0], operator)(a) is NotImplemented
    assert ours[0].double == theirs[0].double


@given(st.integers() | st.text() | st.tuples(st.integers()))
def test_a_value_of_one_field(value: object) -> None:
    ours, theirs = OURS[1](value), THEIRS[1](value)
    assert (hash(ours), repr(ours)) == (hash(theirs), repr(theirs))
    assert ours == OURS[1](value)
    assert ours != value


@pytest.mark.parametrize(
    ("number", "args", "named"),
    [
        (0, (), {}),
        (0, (1, 2, "c", 4), {}),
        (0, (1,), {"z": 2}),
        (0, (1,), {"x": 2}),
        (0, (-2000,), {}),
        (0, (1,), {"name": "n"}),
        (1, (), {}),
        (2, (1, 2, False), {}),
        (2, (1, 2), {}),
        (2, (1, 2, True), {}),
        (2, (1, 2, True), {"last": "x"}),
    ],
)
def test_arguments_and_errors_are_those_of_the_library(number: int, args: Any, named: Any) -> None:
    assert outcome(OURS[number], *args, **named) == outcome(THEIRS[number], *args, **named)


@pytest.mark.parametrize("library", [OURS, THEIRS], ids=["ours", "theirs"])
def test_a_value_is_frozen(library: Any) -> None:
    for one in (library[0](1), library[2](1, 2, True)):
        name = one.__match_args__[0]
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot assign to field '{name}'"):
            setattr(one, name, 3)
        with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot delete field '{name}'"):
            delattr(one, name)
    assert not hasattr(library[0](1), "__dict__")
    assert library[0].__slots__ == ("x", "y", "name")
    assert library[0].__doc__ == "A point."


def test_the_functions_of_the_library_take_these_values() -> None:
    point = OURS[0](1, name="n")
    assert dataclasses.replace(point, y=2) == values.replace(point, y=2) == OURS[0](1, 2, "n")
    assert dataclasses.asdict(point) == {"x": 1, "y": 0, "name": "n"}
    assert [one.name for one in dataclasses.fields(OURS[2])] == ["shown", "hidden", "last"]
    for replace in (values.replace, dataclasses.replace):
        with pytest.raises(ValueError, match="x"):
            replace(point, x=-2000)
        with pytest.raises((TypeError, ValueError, AttributeError)):
            replace(OURS[2](1, 2, True), shown=2)  # who made it is not kept


def test_a_value_is_copied_and_pickled_as_it_is() -> None:
    for one in (ROOT, NORTH.manifest, Finding("kind", "message", missions=("a",))):
        assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == copy.copy(one) == one
        assert type(pickle.loads(pickle.dumps(one))) is type(one)


def test_a_value_that_comes_from_another_process_is_checked() -> None:
    entry = NORTH.table.entries[0]
    data, name = pickle.dumps(entry), entry.name.encode()
    assert pickle.loads(data) == entry
    with pytest.raises(Invalid, match="entry name"):
        pickle.loads(data.replace(name, name.upper()))


def test_a_match_takes_the_fields_in_their_order() -> None:
    match OURS[0](1, 2, "n"):
        case POINT(x, y, name):
            assert (x, y, name) == (1, 2, "n")
        case _:
            raise AssertionError


def test_a_takeoff_check_does_not_load_the_library() -> None:
    code = "import store, sys; store.takeoff_check; print([n for n in ('dataclasses', 'inspect') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
