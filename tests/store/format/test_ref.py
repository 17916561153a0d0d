"""A ref is 64 hex digits and a newline, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt
from store.format.ids import ObjectId
from store.format.ref import REF_SIZE, ref_id

ID = ObjectId.of(b"manifest")
REF = f"{ID}\n".encode()


@given(st.binary(min_size=32, max_size=32).map(ObjectId))
def test_a_ref_names_its_manifest(id_: ObjectId) -> None:
    data = f"{id_}\n".encode()
    assert len(data) == REF_SIZE
    assert ref_id(data) == id_


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        REF[:-1],
        REF[:30],
        REF + b"\n",
        REF[:-1] + b" ",
        REF[:-1] + b"\r\n",
        b" " + REF[1:],
        REF.upper(),
        b"g" + REF[1:],
        b"\x00" * REF_SIZE,
        b"\xff" + REF[1:],
        "٠".encode() * 32 + b"\n",  # digits, but not those of ASCII
    ],
)
def test_anything_else_is_a_bad_ref(data: bytes) -> None:
    with pytest.raises(Corrupt) as caught:
        ref_id(data)
    assert caught.value.kind == "bad-ref"
    assert caught.value.remedy
    assert (caught.value.fields["expected"], caught.value.fields["actual"]) == ("65 bytes", f"{len(data)} bytes")


@given(st.binary(max_size=2 * REF_SIZE))
def test_only_the_canonical_text_parses(data: bytes) -> None:
    try:
        id_ = ref_id(data)
    except Corrupt:
        return
    assert f"{id_}\n".encode() == data
