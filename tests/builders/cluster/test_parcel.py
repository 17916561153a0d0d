"""Replies of nodes: what opens is what was sealed, and anything else is an error that names the sender."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from builders.cluster.parcel import HEAD_LIMIT, TEXT_LIMIT, Reply, opened, sealed, sealed_failure, sealed_unexpected
from store.errors import Corrupt, FlightbagError, Invalid, Unavailable
from store.format.cbor import encode
from store.format.ids import ObjectId

values = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=4), inner, max_size=3),
    max_leaves=6,
)
replies = st.builds(
    Reply,
    values,
    st.lists(st.binary(max_size=40), max_size=3).map(tuple),
    st.lists(st.tuples(st.text(max_size=8), st.integers(0, 2**40)), max_size=3).map(tuple),
    st.integers(0, 2**40),
)
ONE = Reply([[7, "blank", "one colour"]], (b"shard", b""), (("", 3),), 12)


@given(replies)
@example(ONE)
def test_what_opens_is_what_was_sealed(reply: Reply) -> None:
    assert opened(sealed(reply), "orin") == reply


@given(replies, st.data())
def test_a_changed_byte_is_another_value_or_refused(reply: Reply, data: st.DataObject) -> None:
    whole = bytearray(sealed(reply))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        outcome = "orin sent another value" if opened(bytes(whole), "orin") != reply else "the same value"
    except FlightbagError as error:
        outcome = error.message
    assert "orin" in outcome


@given(st.binary(max_size=60))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Corrupt, match="orin sent what no unit of work sends") as caught:
        opened(data, "orin")
    assert caught.value.kind == "bad-reply"
    assert "same version" in caught.value.remedy


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_a_reply_that_is_cut_is_refused(cut: int) -> None:
    for data in (sealed(ONE)[:-cut], sealed(ONE) + bytes(cut)):
        with pytest.raises(Corrupt, match="orin"):
            opened(data, "orin")


def framed(head: Any) -> bytes:
    data = encode(head)
    return len(data).to_bytes(4, "big") + data


def head_of(**changes: Any) -> dict[str, Any]:
    return {"result": 1, "parts": [], "done": [], "ms": 1, **changes}


@pytest.mark.parametrize(
    "head",
    [
        [],
        {},
        head_of(more=1),
        head_of(parts=[[0, b"short"]]),
        head_of(parts=[[-1, bytes(32)]]),
        head_of(parts=[[2**62, bytes(32)]]),
        head_of(parts=[[0, bytes(ObjectId.of(b""))]] * 17),
        head_of(ms=-1),
        head_of(ms="1"),
        head_of(done=[["a", -1]]),
        head_of(done=[["a", 1]] * 101),
        {"failure": "[" * 70_000},
        {"failure": "x" * (TEXT_LIMIT + 1)},
        {"failure": "{}"[:1]},
        {"failure": 7},
    ],
)
def test_a_head_of_another_form_is_refused(head: Any) -> None:
    with pytest.raises(FlightbagError, match="orin") as caught:
        opened(framed(head), "orin")
    assert caught.value.kind == "bad-reply"


def test_a_head_that_is_too_large_is_not_parsed() -> None:
    with pytest.raises(Corrupt, match="a head of"):
        opened((HEAD_LIMIT + 1).to_bytes(4, "big") + bytes(HEAD_LIMIT + 1), "orin")


def test_an_error_keeps_class_kind_and_remedy_and_names_the_node() -> None:
    error = Invalid("preprocess.resize is [1, 2]", remedy="set it to [3, 4]", kind="wrong-inputs", key="resize")
    with pytest.raises(Invalid) as caught:
        opened(sealed_failure(error), "orin")
    assert caught.value.message == "preprocess.resize is [1, 2] (on orin)"
    assert (caught.value.remedy, caught.value.kind, caught.value.fields["key"]) == (
        error.remedy,
        "wrong-inputs",
        "resize",
    )


def test_a_long_error_is_cut_and_still_one() -> None:
    with pytest.raises(Unavailable, match=r"xxx.* \(on orin\)"):
        opened(sealed_failure(Unavailable("x" * 100_000)), "orin")


def test_what_is_no_error_of_ours_is_none() -> None:
    text = json.dumps({"class": "SystemExit", "message": "m", "remedy": "", "fields": {}})
    with pytest.raises(Unavailable, match="did not state how"):
        opened(framed({"failure": text}), "orin")


def test_an_unexpected_error_shows_its_last_line_without_control_characters() -> None:
    with pytest.raises(Corrupt, match=r"an error of the program: ValueError: no\[31m"):
        opened(sealed_unexpected("Traceback\nValueError: no\x1b[31m"), "orin")
