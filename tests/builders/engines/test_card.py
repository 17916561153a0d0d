"""Engine cards: what is written is what is read, and nothing else is read; and how two keys differ."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.engines.card import CARD_LIMIT, SCHEMA, Card, EngineRecipes, differences
from builders.engines.check import TOLERANCES, AuthorFigures, CaseFigures, CheckFigures, Tolerance
from builders.recipe import Recipe
from store.errors import Corrupt

# A map of nothing but "hex" stands for bytes on a card; no recipe has such a field.
_keys = st.text(max_size=5).filter(lambda key: key != "hex")
_atoms = st.text(max_size=8) | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=8)
_values = st.recursive(
    _atoms, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=3), max_leaves=6
)
_recipes = st.dictionaries(_keys, _values, max_size=4).map(Recipe)
_shapes = st.lists(st.integers(0, 2**31), max_size=4)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_ends = st.lists(st.tuples(st.text(max_size=5), st.sampled_from(["float32", "uint8"]), _shapes).map(list), max_size=2)
_figures = st.builds(
    CheckFigures,
    st.lists(
        st.builds(
            CaseFigures,
            st.dictionaries(st.text(max_size=5), _shapes.map(tuple), max_size=2),
            *[st.floats(0, 1e30), st.floats(1e-30, 1e30), st.floats(-1, 1)],
        ),
        max_size=3,
    ).map(tuple),
    outputs=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    inputs=st.sampled_from(["noise", "tiles"]),
    of=st.sampled_from(["engine", "network"]),
    author=st.none()
    | st.builds(
        AuthorFigures, st.just("ab" * 32), st.floats(0, 1e30), st.floats(0, 1e30), st.floats(-1, 1), st.booleans()
    ),
)
cards = st.builds(
    Card,
    recipe=_recipes,
    steps=st.dictionaries(st.text(max_size=5), _recipes, max_size=2),
    parts=st.dictionaries(
        st.sampled_from(["model", "weights"]), st.tuples(st.text(max_size=64), st.integers(0, 2**40)).map(list)
    ),
    inputs=_ends,
    outputs=_ends,
    check=_figures,
    tolerance=st.builds(Tolerance, st.floats(0, 1), st.floats(-1, 1)),
    need=st.sampled_from(["cpu", "cpu+ort>=1.22", "linux-x86_64+sm89+trt11+trt>=11.4.0.106"]),
    tools=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    inspector=_json,
    seconds=st.floats(0, 1e9),
)


AUTHOR = {"digest": "ab" * 32, "max_abs_error": 0.0, "reference_max": 1.0, "cosine": 1.0, "half": False}


def card() -> Card:
    return Card(
        recipe=Recipe({"backend": "onnxruntime", "model": b"\1\2", "inputs": [["x", ["N", 4], [1, 2, 3]]], "n": 3}),
        steps={"quantised": Recipe({"method": "minmax", "preprocess": {"scale": "1"}})},
        parts={"model": ["ab" * 32, 100], "weights": ["cd" * 32, 200]},
        need="cpu+ort>=1.22",
        inputs=[["x", "float32", ["N", 4]]],
        outputs=[["y", "float32", ["N", 4]]],
        check=CheckFigures((CaseFigures({"x": (1, 4)}, 1e-7, 0.5, 0.99999),)),
        tolerance=TOLERANCES["fp32"],
        tools={"onnxruntime": "1.0"},
        inspector={"operators": {"Conv": 2}},
        seconds=1.5,
    )


def written(value: Any) -> bytes:
    """JSON in the one form of a card, whatever it says."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def changed(*path: str | int, to: Any) -> bytes:
    """The card with another value at a place."""
    value = copy.deepcopy(card().as_json())
    at: Any = value
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = to
    return written(value)


def refused(data: bytes) -> None:
    with pytest.raises(Corrupt, match="not an engine card") as caught:
        Card.parse(data)
    assert caught.value.kind == "bad-card"


def parsed(data: bytes) -> Card | None:
    """The card, None where it is refused as it should be."""
    try:
        return Card.parse(data)
    except Corrupt:
        refused(data)
        return None


@given(cards)
def test_what_is_written_is_what_is_read(one: Card) -> None:
    data = one.render()
    assert Card.parse(data) == one
    assert Card.parse(memoryview(data)).render() == data
    assert Card.parse(data).recipe.key == one.recipe.key


def test_a_card_is_plain_json_with_its_schema_and_its_key() -> None:
    value = json.loads(card().render())
    assert value["schema"] == SCHEMA
    assert value["key"] == str(card().recipe.key)
    assert value["fields"]["model"] == {"hex": "0102"}
    assert value["parts"]["weights"] == ["cd" * 32, 200]


def test_equal_cards_are_equal_bytes_in_whatever_order_they_were_made() -> None:
    other = replace(card(), parts=dict(reversed(card().parts.items())))
    assert other.render() == card().render()


def test_no_byte_of_a_card_can_be_changed_but_to_another_card() -> None:
    """What says nothing of the key, such as a second more, is not proven by the card; its form is."""
    data = card().render()
    for place in range(len(data)):
        for bit in (1, 0x20, 0x80):
            other = bytearray(data)
            other[place] ^= bit
            if (found := parsed(bytes(other))) is not None:
                assert found.render() == other != data
                assert found.recipe.key == card().recipe.key


def test_a_field_of_the_key_cannot_be_changed() -> None:
    data = card().render()
    assert data.count(b'"n":3') == 1
    refused(data.replace(b'"n":3', b'"n":4'))
    refused(changed("fields", "backend", to="tensorrt"))
    refused(changed("fields", "model", to={"hex": "0103"}))
    refused(changed("fields", "more", to=1))
    refused(changed("key", to="0" * 64))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"noise",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"3",
        b"{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 10_000,
        card().render()[:-1],
        card().render() + b"\n",
        b" " + card().render(),
        json.dumps(card().as_json()).encode(),
        card().render().replace(b'"n":3', b'"n":3,"n":3'),
        card().render().replace(b'"n":3', b'"n":3.0'),
        card().render().replace(b'"seconds":1.5', b'"seconds":NaN'),
        card().render().replace(b'"seconds":1.5', b'"seconds":Infinity'),
        card().render().replace(b'"seconds":1.5', b'"seconds":1e999'),
        card().render().replace(b'"seconds":1.5', b'"seconds":1.50'),
        b'{"seconds":1.5,' + card().render()[1:],
    ],
    ids=lambda data: repr(data[:20]),
)
def test_what_was_not_written_here_is_no_card(data: bytes) -> None:
    refused(data)


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("schema",), "flightbag/card/2"),
        (("check", "of"), "nothing"),
        (("check", "of"), ["engine"]),
        (("schema",), None),
        (("more",), 1),
        (("fields",), None),
        (("fields",), []),
        (("fields", "n"), "3"),
        (("steps",), []),
        (("parts",), 3),
        (("parts", "model"), 3),
        (("inputs",), 3),
        (("inputs",), [3]),
        (("check",), None),
        (("check", "cases"), 3),
        (("check", "faults"), []),
        (("check", "faults"), ["one"]),
        (("check", "cases", 0, "shapes"), []),
        (("check", "cases", 0, "shapes", "x"), ["N"]),
        (("check", "cases", 0, "max_abs_error"), "much"),
        (("check", "cases", 0, "max_abs_error"), None),
        (("check", "cases", 0, "max_abs_error"), float("nan")),
        (("check", "cases", 0, "max_abs_error"), float("inf")),
        (("check", "cases", 0, "reference_max"), float("nan")),
        (("check", "cases", 0, "cosine"), float("nan")),
        (("check", "cases", 0, "relative_error"), 0.0),
        (("check", "outputs"), [3]),
        (("check", "outputs"), None),
        (("check", "inputs"), 3),
        (("check", "author"), 3),
        *(
            (("check", "author"), {**AUTHOR, name: value})
            for name, value in (
                ("digest", 3),
                ("max_abs_error", "0"),
                ("reference_max", None),
                ("cosine", [1]),
                ("half", 0),
                ("half", "no"),
                ("more", 1),
            )
        ),
        (("tolerance",), {}),
        (("tolerance",), {"relative_error": 0.1, "cosine": 0.1, "more": 1}),
        (("tolerance", "cosine"), float("nan")),
        (("tools",), 3),
    ],
    ids=repr,
)
def test_a_card_of_another_shape_is_no_card(path: tuple[str | int, ...], to: Any) -> None:
    refused(changed(*path, to=to))


def test_a_card_lacks_nothing() -> None:
    for name in card().as_json():
        value = card().as_json()
        del value[name]
        refused(written(value))


@pytest.mark.parametrize(
    "value",
    [None, 1.5, True, 2**63, {"a" * 24: 1}, {"hex": 3}, {"hex": "zz"}, {"hex": "AB"}, [[[[[[[[[[[[[[1]]]]]]]]]]]]]]],
    ids=repr,
)
def test_a_key_field_that_no_recipe_holds_is_no_card(value: Any) -> None:
    refused(changed("fields", "n", to=value))


@pytest.mark.parametrize("value", [None, 1.5, True, 2**63, {"a" * 24: 1}, {"hex": 3}], ids=repr)
def test_a_field_of_a_step_that_no_recipe_holds_is_no_card(value: Any) -> None:
    refused(changed("steps", "quantised", "method", to=value))


@pytest.mark.parametrize("value", [3, "text", [], ["a"], None, {"hex": "00"}], ids=repr)
def test_a_step_that_is_no_map_of_fields_is_no_card(value: Any) -> None:
    refused(changed("steps", "quantised", to=value))


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("check", "cases", 0, "max_abs_error"), 10**400),
        (("check", "cases", 0, "shapes", "x"), [float("inf")]),
    ],
    ids=["error", "shape"],
)
def test_figures_beyond_all_numbers_are_no_card(path: tuple[str | int, ...], to: Any) -> None:
    refused(changed(*path, to=to))


@given(_json, st.sampled_from(sorted(card().as_json())))
def test_whatever_stands_in_a_card_is_a_card_or_corrupt(value: Any, name: str) -> None:
    data = changed(name, to=value)
    found = parsed(data)
    assert found is None or found.render() == data


def test_a_card_beyond_the_limit_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", lambda data: pytest.fail("it was parsed"))
    refused(b" " * (CARD_LIMIT + 1))


def test_a_card_never_holds_what_is_no_number() -> None:
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            replace(card(), seconds=wrong).render()


# Differences


def test_equal_keys_do_not_differ_whatever_else_does() -> None:
    assert differences(card(), replace(card(), seconds=9.0, tools={})) == []
    assert differences(EngineRecipes(card().recipe, card().steps), card()) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda fields: fields | {"n": 4}, {"field": "n", "new": 4, "old": 3}),
        (lambda fields: fields | {"more": "x"}, {"field": "more", "new": "x", "old": None}),
        (lambda fields: fields | {"model": b"\3"}, {"field": "model", "new": {"hex": "03"}, "old": {"hex": "0102"}}),
        (
            lambda fields: {name: value for name, value in fields.items() if name != "backend"},
            {"field": "backend", "new": None, "old": "onnxruntime"},
        ),
    ],
)
def test_what_differs_is_named_with_both_values(
    change: Callable[[dict[str, Any]], dict[str, Any]], found: dict[str, Any]
) -> None:
    new = EngineRecipes(Recipe(change(dict(card().recipe.fields))), card().steps)
    assert differences(new, card()) == [found]
    assert differences(card(), new) == [{"field": found["field"], "new": found["old"], "old": found["new"]}]


def test_what_differs_in_a_step_is_named_with_the_step() -> None:
    new = EngineRecipes(card().recipe, {"quantised": Recipe({"method": "entropy", "preprocess": {"scale": "2"}})})
    assert differences(new, card()) == [
        {"field": "quantised.method", "new": "entropy", "old": "minmax"},
        {"field": "quantised.preprocess", "new": {"scale": "2"}, "old": {"scale": "1"}},
    ]
    assert [each["field"] for each in differences(EngineRecipes(card().recipe, {}), card())] == [
        "quantised.method",
        "quantised.preprocess",
    ]


@given(_recipes, _recipes)
def test_keys_differ_exactly_where_their_fields_do(one: Recipe, two: Recipe) -> None:
    assert (differences(EngineRecipes(one, {}), EngineRecipes(two, {})) == []) == (one.key == two.key)


def test_a_card_with_the_figures_of_the_network_alone_proves_no_engine() -> None:
    assert card().proven
    network = replace(card(), check=replace(card().check, of="network"))
    assert not network.proven
    assert not Card.parse(network.render()).proven
