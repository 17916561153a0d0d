"""Results: what is written is what is read, and nothing else is read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt
from store.format.cbor import decode, encode
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import TIME_MAX
from store.format.result import MAX_FIGURES, PAYLOAD_LIMIT, Result, ResultFigure
from tests.support.orders import DEVICE, NEED, figure, id_of, result

_ids = st.builds(ObjectId, st.binary(min_size=32, max_size=32))
_objects = st.tuples(_ids, st.integers(0, 2**62))
_ppm = st.integers(0, 10**6)
made = st.builds(
    Result,
    order=_ids,
    key=st.builds(BuildKey, st.binary(min_size=32, max_size=32)),
    host=st.sampled_from([DEVICE, "cpu-x86_64", "linux-aarch64+sm87"]),
    need=st.sampled_from([NEED, "cpu+ort>=1.22"]),
    card=_objects,
    engine=st.lists(_objects, min_size=1, max_size=2).map(tuple),
    figures=st.lists(
        st.builds(
            ResultFigure,
            st.from_regex("[a-z][a-z/@0-9]{1,9}", fullmatch=True),
            _ppm,
            _ppm,
            st.integers(1, 2**40),
            st.binary(min_size=32, max_size=32),
            _ids,
        ),
        max_size=3,
        unique_by=lambda one: one.name,
    ).map(lambda figures: tuple(sorted(figures))),
    issued_at=st.integers(0, TIME_MAX),
)


@given(made)
def test_a_rendered_result_parses_to_itself(one: Result) -> None:
    data = one.render()
    assert Result.parse(data) == one
    assert Result.parse(data).render() == data
    assert one.objects == (one.card, *one.engine)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        Result.parse(data)


def values() -> dict[str, dict[str, Any]]:
    """Payloads that differ from a good one by their name."""
    good = decode(result().render(), limit=PAYLOAD_LIMIT, what="it")
    card, (one,) = good["card"], good["figures"]
    return {
        "version 2": {"version": 2},
        "order short": {"order": bytes(31)},
        "key as text": {"key": "x" * 32},
        "host that is a need": {"host": "cpu+ort>=1.22"},
        "host that is none": {"host": "z80"},
        "host in another order": {"host": "ort-1.22.0+cpu-x86_64"},
        "need that is none": {"need": "ort>1"},
        "card without a size": {"card": card[:1]},
        "card of a negative size": {"card": [card[0], -1]},
        "card of a short id": {"card": [card[0][:31], 1]},
        "no engine": {"engine": []},
        "three parts": {"engine": [card] * 3},
        "engine of text": {"engine": [["x", 1]]},
        "value above one": {"figures": [[one[0], 10**6 + 1, *one[2:]]]},
        "value below zero": {"figures": [[one[0], -1, *one[2:]]]},
        "no queries": {"figures": [[*one[:3], 0, *one[4:]]]},
        "figure with a space": {"figures": [["a b", *one[1:]]]},
        "recipe short": {"figures": [[*one[:4], bytes(31), one[5]]]},
        "figure without a probe": {"figures": [one[:5]]},
        "figures twice": {"figures": [one, one]},
        "more figures": {"figures": [[f"f{n:02}", *one[1:]] for n in range(MAX_FIGURES + 1)]},
        "issued before time": {"issued_at": -1},
        "issued after all calendars": {"issued_at": TIME_MAX + 1},
        "unknown key": {"mission": "x"},
    }


@pytest.mark.parametrize("name", values())
def test_refuses(name: str) -> None:
    good = decode(result().render(), limit=PAYLOAD_LIMIT, what="it")
    assert Result.parse(encode(good)) == result()
    with pytest.raises(Corrupt):
        Result.parse(encode({**good, **values()[name]}))


@pytest.mark.parametrize("key", decode(result().render(), limit=PAYLOAD_LIMIT, what="it"))
def test_refuses_what_lacks(key: str) -> None:
    good = decode(result().render(), limit=PAYLOAD_LIMIT, what="it")
    with pytest.raises(Corrupt, match=key):
        Result.parse(encode({name: value for name, value in good.items() if name != key}))


def test_a_value_below_its_least_is_a_result() -> None:
    """A device states what it measured; the ground refuses it."""
    low = result(figures=(figure(value=1),))
    assert Result.parse(low.render()) == low
    assert id_of(b"")[1] == 0
