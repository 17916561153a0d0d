"""The short code: its alphabet, and golden values that two crews must both read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from store.takeoff.code import short_code


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_code_is_ten_characters_of_crockford(a: bytes, b: bytes) -> None:
    code = short_code(a, b)
    assert len(code) == 11
    assert set(code) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ-")
    assert (short_code(b, a) == code) == (a == b)


def test_the_code_of_known_digests() -> None:
    """Golden: two crews must read the same."""
    assert short_code(bytes(32)) == "XBZY5-2GJ7Z"
    assert short_code(bytes(range(32)), bytes(32)) == "FPYEK-EACHM"
