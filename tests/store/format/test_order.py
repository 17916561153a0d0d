"""Orders: what is written is what is read, and nothing else is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt
from store.format.cbor import decode, encode
from store.format.ids import BUILD_KEY_CONTEXT, ObjectId, derive
from store.format.order import (
    MAX_FILES,
    MAX_NETWORK_BYTES,
    MAX_PROBES,
    MODEL,
    NANO,
    ORDER_LIMIT,
    Order,
    OrderFile,
    OrderProbe,
)
from tests.support.orders import FIELDS, NEED, ORDER, PROBE, file, id_of, order

_ids = st.builds(ObjectId, st.binary(min_size=32, max_size=32))
_sizes = st.integers(0, 2**30)
_files = st.builds(OrderFile, st.from_regex(r"[a-z0-9]{1,5}(/[a-z]{1,5}\.data)?", fullmatch=True), _ids, _sizes)
_networks = st.lists(_files, max_size=3, unique_by=lambda one: one.name.split("/")[0]).map(
    lambda files: tuple(sorted([*files, file(MODEL, b"x")]))
)
_probes = st.lists(
    st.builds(
        OrderProbe,
        st.from_regex("[a-z0-9]{1,9}", fullmatch=True),
        _ids,
        _sizes,
        st.binary(min_size=32, max_size=32),
        st.integers(0, 10**6),
    ),
    max_size=3,
    unique_by=lambda one: one.set,
).map(lambda probes: tuple(sorted(probes)))
made = st.builds(
    Order,
    recipe=st.integers(0, 9).map(lambda n: encode({**FIELDS, "n": n})),
    steps=st.sampled_from([(), (("quantised", encode({"tool": "x"})),)]),
    backbone=st.from_regex("[a-z0-9]{1,9}", fullmatch=True),
    network=_networks,
    source=_networks,
    compare=st.sets(st.text("abc", min_size=1, max_size=3), max_size=3).map(lambda names: tuple(sorted(names))),
    tolerance=st.tuples(st.integers(0, NANO), st.integers(0, NANO)),
    probes=_probes,
    rows=st.none() | _files,
    reference=st.none() | _files,
    engine=st.sampled_from([(), (id_of(b"a"), id_of(b"b")), (id_of(b"a"), id_of(b"b"), id_of(b"c"))]),
)


@given(made)
def test_a_rendered_order_parses_to_itself(one: Order) -> None:
    data = one.render()
    assert Order.parse(data) == one
    assert Order.parse(data).render() == data


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        Order.parse(data)


def test_the_key_is_of_the_fields() -> None:
    assert ORDER.key == derive(BUILD_KEY_CONTEXT, encode(FIELDS))
    assert (ORDER.need, ORDER.backend) == (NEED, "onnxruntime")
    assert ORDER.key != order(recipe=encode({**FIELDS, "salt": "x"})).key


def test_it_needs_every_object_that_it_names() -> None:
    engine = (id_of(b"card"), id_of(b"model"))
    full = order(rows=file("rows", b"rows"), reference=file("reference.npz", b"npz"), engine=engine)
    names = (b"a network", b"a source", PROBE, b"rows", b"npz", b"card", b"model")
    assert full.objects == dict(map(id_of, names))


def values() -> dict[str, dict[str, Any]]:
    """Payloads that differ from a good one by their name."""
    good = decode(ORDER.render(), limit=ORDER_LIMIT, what="it")
    one, (probe,) = good["network"][0], good["probes"]

    def recipe(**changes: Any) -> dict[str, Any]:
        return {"recipe": encode({**FIELDS, **changes})}

    def named(*names: str) -> dict[str, Any]:
        return {"network": sorted([one, *([name, *one[1:]] for name in names)])}

    return {
        "schema of another version": {"schema": "flightbag/order/2"},
        "recipe that is no map": {"recipe": encode([1])},
        "recipe that is not canonical": {"recipe": b"\xa1\x61x\x18\x01"},
        "recipe of 33 KiB": recipe(salt="x" * 33 * 2**10),
        "recipe without a need": {"recipe": encode({"backend": "onnxruntime"})},
        "recipe of a need that is none": recipe(host="cpu-z80"),
        "recipe without a backend": {"recipe": encode({"host": "cpu"})},
        "recipe of a backend with a newline": recipe(backend="x\n"),
        "recipe of a backend that is a path": recipe(backend="../x"),
        "step that is no map": {"steps": [["quantised", encode([])]]},
        "step without a name": {"steps": [["", encode({})]]},
        "steps twice": {"steps": [["a", encode({})], ["a", encode({})]]},
        "five steps": {"steps": [[name, encode({})] for name in "abcde"]},
        "backbone with a slash": {"backbone": "a/b"},
        "no network": {"network": []},
        "network without a model": {"network": [["weights", *one[1:]]]},
        "network twice": {"network": [one, one]},
        "network in another order": {"network": [["z", *one[1:]], one]},
        "file one step up": named("../passwd"),
        "file one step up inside": named("a/../b"),
        "file at the root": named("/etc/passwd"),
        "file with a backslash": named("a\\b"),
        "file that begins with a dot": named(".bashrc"),
        "file in a folder that begins with a dot": named("a/.ssh/b"),
        "file with a newline": named("a\nb"),
        "file with a zero": named("a\0b"),
        "file without a name": named(""),
        "file with an empty folder": named("a//b"),
        "file that is a folder of another": named("a", "a/b"),
        "file that is the model in another case": named("MODEL.onnx"),
        "file below the model": named("Model.onnx/b"),
        "file with a long name": named("a" * 129),
        "file nine folders deep": named("/".join("abcdefghi")),
        "file of another size type": {"network": [[MODEL, one[1], "1"]]},
        "file of a negative size": {"network": [[MODEL, one[1], -1]]},
        "file with a short id": {"network": [[MODEL, one[1][:31], 1]]},
        "file with more": {"network": [[*one, 1]]},
        "more bytes than any machine runs": {"network": [[MODEL, one[1], MAX_NETWORK_BYTES + 1]]},
        "source without a model": {"source": [["weights", *one[1:]]]},
        "compare twice": {"compare": ["a", "a"]},
        "compare nothing": {"compare": [""]},
        "compare a control character": {"compare": ["a\x1b[2K"]},
        "compare a number": {"compare": [1]},
        "tolerance of one number": {"tolerance": [1]},
        "tolerance below zero": {"tolerance": [-1, 1]},
        "tolerance of a cosine above one": {"tolerance": [1, NANO + 1]},
        "tolerance in text": {"tolerance": ["1", 1]},
        "probe with a least above one": {"probes": [[*probe[:4], 10**6 + 1]]},
        "probe with a short recipe": {"probes": [[*probe[:3], bytes(31), 1]]},
        "probe of a set with a slash": {"probes": [["a/b", *probe[1:]]]},
        "probes twice": {"probes": [probe, probe]},
        "more probes": {"probes": [[f"s{n:02}", *probe[1:]] for n in range(MAX_PROBES + 1)]},
        "more files": named(*(f"f{n:03}" for n in range(MAX_FILES))),
        "rows that are a list of files": {"rows": [one]},
        "rows one step up": {"rows": ["..", *one[1:]]},
        "reference with more": {"reference": [*one, 1]},
        "engine without a card": {"engine": [one[1:]]},
        "engine of four parts": {"engine": [one[1:]] * 4},
        "engine without sizes": {"engine": [one[1], one[1]]},
        "unknown key": {"plugins": []},
    }


@pytest.mark.parametrize("name", values())
def test_refuses(name: str) -> None:
    good = decode(ORDER.render(), limit=ORDER_LIMIT, what="it")
    assert Order.parse(encode(good)) == ORDER
    with pytest.raises(Corrupt) as caught:
        Order.parse(encode({**good, **values()[name]}))
    assert caught.value.kind in {"bad-field", "bad-order", "not-canonical", "too-large"}


@pytest.mark.parametrize("key", decode(ORDER.render(), limit=ORDER_LIMIT, what="it"))
def test_refuses_what_lacks(key: str) -> None:
    good = decode(ORDER.render(), limit=ORDER_LIMIT, what="it")
    with pytest.raises(Corrupt, match=key):
        Order.parse(encode({name: value for name, value in good.items() if name != key}))


def test_what_keeps_a_bound_exactly_is_read() -> None:
    deep, long = "/".join("abcdefgh"), "a" * 128
    network = tuple(sorted((replace(ORDER.network[0], size=MAX_NETWORK_BYTES), file(deep, b""), file(long, b""))))
    for one in (order(network=network), order(tolerance=(1000 * NANO, NANO))):
        assert Order.parse(one.render()) == one


def test_is_never_larger_than_its_bound() -> None:
    with pytest.raises(Corrupt) as caught:
        Order.parse(ORDER.render() + bytes(ORDER_LIMIT))
    assert caught.value.kind == "too-large"


def test_a_value_that_breaks_a_rule_is_not_written() -> None:
    with pytest.raises(Corrupt):
        order(network=()).render()
