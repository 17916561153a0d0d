"""The laws of the strict CBOR, and every form that it refuses, by name."""

from __future__ import annotations

import contextlib
import itertools
import re
from typing import Any

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from store.errors import Corrupt, Invalid
from store.format.cbor import (
    INT_MAX,
    INT_MIN,
    MAX_DEPTH,
    Fields,
    ascending,
    decode,
    encode,
    encode_array,
    encode_bytes,
    encode_integer,
    encode_text,
    integers,
    load,
    load_items,
)

KEYS = st.text(max_size=23).filter(lambda key: len(key.encode()) <= 23)
SCALARS = st.integers(INT_MIN, INT_MAX) | st.text(max_size=30) | st.binary(max_size=30)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)


def read(data: bytes) -> Any:
    return decode(data, limit=2**20, what="the test")


@given(VALUES)
def test_what_is_encoded_decodes_to_itself(value: Any) -> None:
    assert read(encode(value)) == value


@given(st.binary(max_size=200))
@example(bytes.fromhex("fb3ff0000000000000"))
def test_arbitrary_bytes_parse_canonically_or_are_corrupt(data: bytes) -> None:
    with contextlib.suppress(Corrupt):
        assert encode(read(data)) == data


@given(VALUES, st.data())
def test_any_other_bytes_of_a_value_are_refused_or_mean_something_else(value: Any, data: st.DataObject) -> None:
    good = encode(value)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    with contextlib.suppress(Corrupt):
        assert read(bad) != value


@given(st.dictionaries(KEYS, st.integers(0, 9), min_size=2, max_size=5))
def test_a_map_has_one_order(value: dict[str, int]) -> None:
    keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
    assert list(read(encode(value))) == keys
    backwards = bytes([0xA0 | len(keys)]) + b"".join(encode(k) + encode(value[k]) for k in reversed(keys))
    with pytest.raises(Corrupt):
        read(backwards)


@given(st.lists(SCALARS, max_size=300))
def test_an_array_of_encoded_items_is_the_array(items: list[Any]) -> None:
    assert encode_array([encode(item) for item in items]) == encode(items)


@pytest.mark.parametrize("length", [0, 1, 23, 24, 255, 256, 65535, 65536])
def test_the_head_of_an_array_is_the_shortest(length: int) -> None:
    assert encode_array([b"\x00"] * length) == cbor2.dumps([0] * length, canonical=True)


REFUSED = {
    "half_float": "f93c00",
    "float": "fa3fc00000",
    "double": "fb3ff199999999999a",
    "double_that_is_a_whole_number": "fb4028000000000000",
    "minus_zero": "f98000",
    "not_a_number": "f97e00",
    "false": "f4",
    "true": "f5",
    "null": "f6",
    "undefined": "f7",
    "simple_0": "e0",
    "simple_255": "f8ff",
    "tag_date": "c074323031332d30332d32315432303a30343a30305a",
    "tag_epoch": "c11a514b67b0",
    "tag_bignum": "c249010000000000000000",
    "tag_bignum_of_a_small_number": "c24101",
    "tag_decimal": "c48221196ab3",
    "tag_bigfloat_of_a_huge_power": "c5821b00000000ffffffff01",
    "tag_rational_over_zero": "d81e820100",
    "tag_regular_expression": "d8236161",
    "tag_uuid": "d8254101",
    "tag_self_described": "d9d9f700",
    "tag_set": "d901028101",
    "tag_string_reference": "d9010081d81900",
    "tag_shareable": "d81c80",
    "tag_shared_within_itself": "d81c81d81d00",
    "tag_unknown": "da0001000000",
    "indefinite_array": "9f01ff",
    "indefinite_map": "bf616101ff",
    "indefinite_text": "7f6161ff",
    "indefinite_bytes": "5f4101ff",
    "break_alone": "ff",
    "duplicate_key": "a2616101616102",
    "unsorted_keys": "a2616201616101",
    "longer_key_first": "a262616101616202",
    "key_of_24_bytes": "a17818" + "61" * 24 + "00",
    "integer_key": "a10102",
    "byte_string_key": "a1416101",
    "array_key": "a1800a",
    "integer_0_in_two_bytes": "1800",
    "integer_255_in_three_bytes": "1900ff",
    "integer_in_nine_bytes": "1b0000000000000001",
    "negative_integer_in_two_bytes": "3800",
    "length_of_text_in_two_bytes": "780161",
    "length_of_bytes_in_three_bytes": "59000161",
    "length_of_array_in_two_bytes": "980100",
    "length_of_map_in_two_bytes": "b801616100",
    "integer_of_2_to_the_63": "1b8000000000000000",
    "integer_of_64_bits_without_a_sign": "1bffffffffffffffff",
    "negative_integer_below_64_bits": "3b8000000000000000",
    "reserved_additional_information": "1c",
    "text_that_is_no_utf8": "61ff",
    "text_of_a_surrogate": "63eda080",
    "trailing_byte": "0000",
    "nothing": "",
    "cut_in_an_integer": "19ff",
    "cut_in_text": "6261",
    "cut_in_an_array": "8201",
    "cut_in_a_map": "a16161",
    "bytes_of_claimed_terabytes": "5b00000fffffffffff",
    "text_of_claimed_terabytes": "7b00000fffffffffff",
    "array_of_claimed_terabytes": "9b00000fffffffffff",
    "map_of_claimed_terabytes": "bb00000fffffffffff",
    "array_of_2_to_the_64": "9bffffffffffffffff",
    "nested_deeper_than_allowed": "81" * (MAX_DEPTH + 1) + "00",
    "maps_nested_deeper_than_allowed": "a16161" * (MAX_DEPTH + 1) + "00",
    "maps_and_arrays_nested_deeper_than_allowed": "a1616181" * (MAX_DEPTH // 2) + "8100",
    "nested_fifty_thousand_deep": "81" * 50_000 + "00",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    with pytest.raises(Corrupt) as caught:
        read(bytes.fromhex(REFUSED[name]))
    assert caught.value.fields["kind"] == "not-canonical"


@pytest.mark.parametrize(
    "data",
    ["9fff", "bf616101ff", "5f4101ff", "7f6161ff", "a2616101616102", "a18000", "81" * (MAX_DEPTH + 2) + "00"],
    ids=["array", "map", "bytes", "text", "key_twice", "key_of_an_array", "deep"],
)
def test_what_no_canonical_form_has_is_refused_while_it_is_loaded(data: str) -> None:
    """The caller renders what was loaded again, which must not be endless or ambiguous."""
    with pytest.raises(Corrupt) as caught:
        load(bytes.fromhex(data), limit=2**20, what="the test")
    assert caught.value.fields["kind"] == "not-canonical"


@pytest.mark.parametrize("name", [name for name in REFUSED if name.startswith("tag_")])
def test_a_tag_is_refused_before_what_it_marks_is_built(name: str) -> None:
    with pytest.raises(Corrupt, match="tag"):
        load(bytes.fromhex(REFUSED[name]), limit=2**20, what="the test")


def test_shared_references_that_unfold_without_end_are_refused_at_once() -> None:
    # Each level holds a hundred references to the one before: 10**18 items in 4 KB, if anything were to walk them.
    levels = b"".join(b"\xd8\x1c\x98\x64" + (b"\xd8\x1d" + bytes([i])) * 100 for i in range(9))
    with pytest.raises(Corrupt, match="tag"):
        read(b"\x8a\xd8\x1c\x80" + levels)


def test_the_size_is_judged_before_anything_is_parsed() -> None:
    data = encode(b"x" * 100)
    assert decode(data, limit=len(data), what="the test") == b"x" * 100
    with pytest.raises(Corrupt) as caught:
        decode(data, limit=len(data) - 1, what="the test")
    assert caught.value.fields == {"kind": "too-large", "actual": len(data)}


@pytest.mark.parametrize("kinds", ["list", "dict", "list dict", "dict list dict"])
def test_the_deepest_nesting_passes_and_one_level_more_does_not(kinds: str) -> None:
    around = itertools.cycle(
        [(lambda value: [value]) if kind == "list" else (lambda value: {"a": value}) for kind in kinds.split()]
    )
    value: Any = 0
    for _ in range(MAX_DEPTH):
        value = next(around)(value)
    assert read(encode(value)) == value
    with pytest.raises(Invalid):
        encode(next(around)(value))


@pytest.mark.parametrize(
    "value",
    [
        1.5, 12.0, True, None, 2**63, -(2**63) - 1, {1, 2}, bytearray(b"x"), ["ok", 1j], {"a": [1.0]}, "\ud800",
        {"\ud800": 1}, {b"a": 1}, {1: 2}, {"k" * 24: 1}, {"é" * 12: 1},
    ],
    ids=ascii,
)  # fmt: skip
def test_encode_refuses(value: Any) -> None:
    with pytest.raises(Invalid):
        encode(value)


def test_key_and_integer_bounds_pass() -> None:
    for value in ({"k" * 23: INT_MAX}, {"é" * 11: INT_MIN}, INT_MAX, INT_MIN):
        assert read(encode(value)) == value


class TestFields:
    def fields(self, **values: Any) -> Fields:
        return Fields(values, "thing")

    @pytest.mark.parametrize(
        ("method", "arguments", "good", "bad"),
        [
            ("integer", (1, 9), [1, 9], [0, 10, True, "1", 1.0, None]),
            ("text", (re.compile("[a-c]+"),), ["abc"], ["", "abd", "abc\n", b"abc", 1]),
            ("choice", (("x", "y"),), ["x", "y"], ["z", "", b"x", 1]),
            ("binary", (2,), [b"ab"], [b"a", b"abc", "ab", [1, 2]]),
            ("blob", (2,), [b"", b"a", b"ab"], [b"abc", "ab", [1, 2]]),
            ("array", (1, 2), [[0], [0, 0]], [[], [0, 0, 0], (0,), "ab", {}]),
        ],
    )
    def test_types_and_bounds(self, method: str, arguments: tuple[Any, ...], good: list[Any], bad: list[Any]) -> None:
        for value in good:
            assert getattr(self.fields(key=value), method)("key", *arguments) == value
        for value in bad:
            with pytest.raises(Corrupt) as caught:
                getattr(self.fields(key=value), method)("key", *arguments)
            assert caught.value.fields == {"kind": "bad-field", "field": "thing.key"}
        with pytest.raises(Corrupt, match="missing"):
            getattr(self.fields(), method)("key", *arguments)

    def test_a_map_within_is_named_by_its_path(self) -> None:
        inner = self.fields(key={"a": 1}).fields("key")
        with pytest.raises(Corrupt) as caught:
            inner.integer("a", 2, 3)
        assert caught.value.fields["field"] == "thing.key.a"

    def test_what_nobody_asked_for_is_refused(self) -> None:
        fields = self.fields(a=1, b=2)
        assert "a" in fields
        fields.integer("a", 0, 9)
        with pytest.raises(Corrupt) as caught:
            fields.end()
        assert caught.value.fields["field"] == "thing.b"
        fields.integer("b", 0, 9)
        fields.end()
        with pytest.raises(Corrupt, match="missing"):
            fields.integer("a", 0, 9)

    def test_keys_that_are_no_text_are_refused(self) -> None:
        with pytest.raises(Corrupt):
            Fields({b"a": 1, "b": 2}, "thing").end()

    @pytest.mark.parametrize("value", [[], 1, None, "map"])
    def test_only_a_map_has_fields(self, value: object) -> None:
        with pytest.raises(Corrupt):
            Fields(value, "thing")


@given(st.lists(st.integers(-3, 3), max_size=5))
def test_ascending_is_order_and_uniqueness(values: list[int]) -> None:
    if values == sorted(set(values)):
        ascending(values, "values")
    else:
        with pytest.raises(Corrupt) as caught:
            ascending(values, "values")
        assert caught.value.fields["kind"] == "bad-order"


def test_integers_are_exact_and_bounded() -> None:
    assert integers([1, 2, 3], 1, 3, "x") == (1, 2, 3)
    for bad in ([0], [4], [True], ["1"], [1.0]):
        with pytest.raises(Corrupt):
            integers(bad, 1, 3, "x")


@given(st.lists(VALUES, max_size=4))
def test_the_items_of_an_array_are_loaded_one_after_another(items: list[Any]) -> None:
    data = encode(items)
    assert list(load_items(data, limit=len(data), most=4, what="it")) == items
    for most, cut in ((len(items) - 1, data), (4, data[:-1])):
        with pytest.raises(Corrupt) as caught:
            list(load_items(cut, limit=len(data), most=most, what="it"))
        assert caught.value.fields["kind"] == "not-canonical"


@pytest.mark.parametrize("count", [0, 1, 23, 24, 255, 256, 65535, 65536])
def test_an_array_of_each_head_is_loaded(count: int) -> None:
    data = encode([0] * count)
    assert list(load_items(data, limit=len(data), most=count, what="it")) == [0] * count


@pytest.mark.parametrize("data", ["", "a0", "01", "60", "9fff", "9b0000000000000000", "98", "9a0000", "8101ff"])
def test_what_is_no_array_has_no_items_or_more_bytes(data: str) -> None:
    with contextlib.suppress(Corrupt):
        items = list(load_items(bytes.fromhex(data), limit=9, most=9, what="it"))
        assert encode(items) != bytes.fromhex(data)


@pytest.mark.parametrize("value", [0, 1, 23, 24, 255, 256, 65535, 65536, INT_MAX, -1, INT_MIN])
def test_an_integer_alone(value: int) -> None:
    assert encode_integer(value) == encode(value)


@pytest.mark.parametrize("length", [0, 1, 23, 24, 255, 256, 65536])
def test_a_text_and_bytes_alone(length: int) -> None:
    assert encode_text("x" * length) == encode("x" * length)
    assert encode_bytes(b"x" * length) == encode(b"x" * length)
    assert encode_text("é" * length) == encode("é" * length)
