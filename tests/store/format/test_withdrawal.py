from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt
from store.format.cbor import INT_MAX, decode, encode
from store.format.manifest import MISSION_ID, TIME_MAX
from store.format.withdrawal import NAME, PAYLOAD_LIMIT, REASON, Withdrawal, require_name

REASONS = st.from_regex(REASON, fullmatch=True)
TIMES = st.integers(0, TIME_MAX)
COUNTS = st.integers(1, INT_MAX)
WITHDRAWALS = st.one_of(
    st.builds(Withdrawal, REASONS, TIMES, st.from_regex(MISSION_ID, fullmatch=True), COUNTS, COUNTS),
    st.builds(Withdrawal, REASONS, TIMES, release=st.binary(min_size=32, max_size=32)),
)
MISSION = Withdrawal("wrong imagery", 1, "north-ridge", 2, 3)
RELEASE = Withdrawal("wrong engine", 1, release=bytes(32))


@given(WITHDRAWALS)
def test_what_was_rendered_parses(value: Withdrawal) -> None:
    data = value.render()
    assert Withdrawal.parse(data) == value
    assert len(data) <= PAYLOAD_LIMIT
    assert NAME.fullmatch(value.name)


@given(WITHDRAWALS, st.data())
def test_only_canonical_bytes_parse(value: Withdrawal, draw: st.DataObject) -> None:
    data = bytearray(value.render())
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= 1 << draw.draw(st.integers(0, 7))
    with suppress(Corrupt):
        assert Withdrawal.parse(bytes(data)).render() == data


def test_a_mission_and_a_release_never_have_one_name() -> None:
    assert MISSION.name == "north-ridge.mission"
    assert Withdrawal("x", 1, "0" * 64, 1, 1).name != RELEASE.name


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda m: m | {"version": 2}, id="version"),
        pytest.param(lambda m: m | {"reason": ""}, id="no-reason"),
        pytest.param(lambda m: m | {"reason": "x" * 201}, id="long-reason"),
        pytest.param(lambda m: m | {"reason": "two\nlines"}, id="lines"),
        pytest.param(lambda m: m | {"reason": "caf\u00e9"}, id="not-ascii"),
        pytest.param(lambda m: m | {"reason": " x"}, id="space"),
        pytest.param(lambda m: m | {"epoch": 0}, id="epoch"),
        pytest.param(lambda m: m | {"sequence": 0}, id="sequence"),
        pytest.param(lambda m: m | {"mission": "North"}, id="mission"),
        pytest.param(lambda m: m | {"release": bytes(32)}, id="both"),
        pytest.param(lambda m: {key: m[key] for key in ("version", "reason", "issued_at")}, id="neither"),
        pytest.param(lambda m: m | {"more": 1}, id="more"),
        pytest.param(lambda m: m | {"issued_at": -1}, id="time"),
    ],
)
def test_the_schema_is_closed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    value = decode(MISSION.render(), limit=PAYLOAD_LIMIT, what="the test")
    with pytest.raises(Corrupt) as failed:
        Withdrawal.parse(encode(change(value)))
    assert failed.value.kind == "bad-field"


def test_a_withdrawal_in_another_place() -> None:
    require_name(MISSION, "north-ridge.mission")
    with pytest.raises(Corrupt) as failed:
        require_name(MISSION, "south-ridge.mission")
    assert failed.value.kind == "bad-withdrawal"
