"""Build records of a shared cache: what is written is what is read, and nothing else is read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt
from store.format.built import MAX_SIZE, PAYLOAD_LIMIT, Built
from store.format.cbor import decode, encode
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import TIME_MAX

_ids = st.builds(ObjectId, st.binary(min_size=32, max_size=32))
records = st.builds(
    Built,
    key=st.builds(BuildKey, st.binary(min_size=32, max_size=32)),
    objects=st.lists(
        st.tuples(_ids, st.integers(0, MAX_SIZE)), min_size=1, max_size=3, unique_by=lambda one: one[0]
    ).map(tuple),
    epoch=st.integers(1, 2**63 - 1),
    issued_at=st.integers(0, TIME_MAX),
)
GOOD = Built(BuildKey(bytes(32)), ((ObjectId.of(b"one"), 3), (ObjectId.of(b"three"), 5)), 2, 1_800_000_000)


@given(records)
def test_a_rendered_record_parses_to_itself(one: Built) -> None:
    data = one.render()
    assert Built.parse(data) == one
    assert Built.parse(data).render() == data


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        Built.parse(data)


OBJECT = [bytes(32), 1]


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"key": bytes(31)},
        {"key": "x" * 32},
        {"objects": []},
        {"objects": [[bytes([n]) * 32, n] for n in range(4)]},
        {"objects": [OBJECT, OBJECT]},
        {"objects": [[bytes(31), 1]]},
        {"objects": [[bytes(32), -1]]},
        {"objects": [[bytes(32), MAX_SIZE + 1]]},
        {"objects": [[bytes(32)]]},
        {"epoch": 0},
        {"issued_at": TIME_MAX + 1},
        {"more": 1},
    ],
)
def test_a_record_that_breaks_a_rule_is_corrupt(change: dict[str, Any]) -> None:
    good = decode(GOOD.render(), limit=PAYLOAD_LIMIT, what="it")
    with pytest.raises(Corrupt):
        Built.parse(encode({**good, **change}))
    for name in good:
        with pytest.raises(Corrupt):
            Built.parse(encode({key: value for key, value in good.items() if key != name}))
