"""Digests against the official BLAKE3 vectors, and how they are printed and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Invalid, NotFound
from store.format.ids import BuildKey, ObjectId, begun_by, derive, deriving


def test_official_blake3_vectors(shared: Path) -> None:
    official: dict[str, Any] = json.loads((shared / "vectors" / "blake3.json").read_text())
    assert len(official["cases"]) >= 35
    for case in official["cases"]:
        data = bytes(i % 251 for i in range(case["input_len"]))
        assert str(ObjectId.of(data)) == case["hash"][:64]
        assert ObjectId.of(memoryview(data)) == ObjectId.of(bytearray(data)) == ObjectId.of(data)
        assert derive(official["context_string"], data).hex() == case["derive_key"][:64]


@given(st.binary(min_size=32, max_size=32))
def test_what_is_printed_parses_to_itself(raw: bytes) -> None:
    id_ = ObjectId(raw)
    assert ObjectId.parse(str(id_)) == id_ == raw
    assert len(str(id_)) == 64
    assert str(id_)[:12] in repr(id_)


@pytest.mark.parametrize(
    "text", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", " " + "0" * 63, "0x" + "0" * 62, "٣" * 64]
)
def test_only_64_lower_case_hex_digits_parse(text: str) -> None:
    with pytest.raises(Invalid):
        ObjectId.parse(text)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_digest_has_32_bytes(size: int) -> None:
    with pytest.raises(Invalid):
        BuildKey(bytes(size))


@given(st.lists(st.binary(max_size=100), max_size=4))
def test_one_hasher_derives_as_many_do(items: list[bytes]) -> None:
    derive_next = deriving("a context")
    assert [derive_next(item) for item in items] == [derive("a context", item) for item in items]


IDS = [bytes([0xAB, 0xCD, 0xEF, last]) + bytes(28) for last in (1, 2)] + [b"\x12" * 32]


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=30), st.integers(6, 64), st.data())
def test_a_beginning_names_its_only_id(ids: list[bytes], digits: int, data: st.DataObject) -> None:
    """`begun_by` returns the id that begins so, or refuses where several do; never another one."""
    chosen = data.draw(st.sampled_from(ids))
    start = chosen.hex()[:digits]
    if sum(id_.hex().startswith(start) for id_ in set(ids)) == 1:
        assert begun_by(start, ids, "object") == chosen
    else:
        with pytest.raises(Invalid, match="ids begin with"):
            begun_by(start, ids, "object")


def test_several_that_begin_so_are_listed() -> None:
    with pytest.raises(Invalid) as caught:
        begun_by("abcdef", IDS, "object")
    assert caught.value.kind == "ambiguous"
    assert "2 ids begin with abcdef: abcdef010000, abcdef020000" in caught.value.message
    assert begun_by("abcdef01", IDS, "object") == IDS[0]


def test_none_that_begins_so_is_answered_with_the_nearest() -> None:
    with pytest.raises(NotFound) as caught:
        begun_by("abcdfe02", IDS, "engine")
    assert "abcdef02" in caught.value.remedy
    with pytest.raises(NotFound) as caught:
        begun_by("abcdfe02", [], "engine")
    assert caught.value.remedy == "there is no engine"
