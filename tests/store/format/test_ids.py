"""Digests against the official BLAKE3 vectors, and how they are printed and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Invalid
from store.format.ids import BuildKey, ObjectId, derive, deriving


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
