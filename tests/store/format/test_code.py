"""The short code: its alphabet, and golden values that two crews must both read."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Invalid
from store.format.code import read_code, short_code


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


@given(st.binary(min_size=32, max_size=32), st.randoms())
def test_a_code_is_read_as_people_write_it(digest: bytes, random: Random) -> None:
    code = short_code(digest)
    swaps = {"0": "0Oo", "1": "1IiLl", "-": ("-", "")}
    written = "".join(random.choice(swaps.get(one, (one, one.lower()))) for one in code)
    assert read_code(code) == read_code(f" {written}\n") == code


@pytest.mark.parametrize(
    "text", ["", "4X7QK", "4X7QK-09DZ", "4X7QK-09DZMM", "4X7QK-09DZU", "4X7QK 09DZM", "yes", "٠" * 10]
)
def test_what_is_no_code(text: str) -> None:
    with pytest.raises(Invalid, match="is not a code"):
        read_code(text)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 9), st.sampled_from("0123456789ABCDEFGHJKMNPQRSTVWXYZ"))
def test_another_character_is_another_code(digest: bytes, at: int, other: str) -> None:
    code = short_code(digest).replace("-", "")
    changed = code[:at] + other + code[at + 1 :]
    assert (read_code(changed) == read_code(code)) == (changed == code)
