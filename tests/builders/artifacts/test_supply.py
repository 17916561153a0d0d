"""What crosses between a confined process and its parent of a shared cache."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.artifacts.supply import (
    WANTED_LIMIT,
    Offer,
    offers_from_json,
    offers_to_json,
    wanted_from_bytes,
    wanted_to_bytes,
)
from store.errors import Corrupt
from store.format.ids import BuildKey, ObjectId

keys = st.builds(BuildKey, st.binary(min_size=32, max_size=32))
ids = st.builds(ObjectId, st.binary(min_size=32, max_size=32))
offers = st.builds(
    Offer, st.lists(st.tuples(ids, st.integers(0, 2**36)), max_size=3).map(tuple), st.lists(st.text()).map(tuple)
)


@settings(max_examples=25)
@given(st.dictionaries(keys, st.integers(0, 2**64 - 1), max_size=5))
def test_a_question_crosses(asked: dict[BuildKey, int]) -> None:
    assert wanted_from_bytes(wanted_to_bytes(asked)) == asked


@settings(max_examples=25)
@given(st.dictionaries(keys, offers, max_size=3))
def test_an_answer_crosses(answer: dict[BuildKey, Offer]) -> None:
    assert offers_from_json(json.loads(json.dumps(offers_to_json(answer)))) == answer


@pytest.mark.parametrize("data", [b"\x01", bytes(39), bytes(41), bytes(WANTED_LIMIT + 40)])
def test_what_is_no_question_is_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt, match="something else than build keys"):
        wanted_from_bytes(data)
