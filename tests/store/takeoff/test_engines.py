"""The engines of a mission, and which of them a host loads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.format.entries import Entry
from store.format.host import fit
from store.takeoff.engines import engine_for, engines_of
from tests.support.missions import ENGINE_META, build_key, entry

ORIN = "cpu-aarch64-neon+linux-aarch64+ort-1.23.2+sm87-orin-16sm-64gb+trt10-10.3.0.30"
NEEDS = ("cpu", "cpu+ort>=1.17", "cpu-x86_64", "cpu-x86_64-avx2+ort-1.23.2", "linux-aarch64+sm87+trt10-10.3.0.30")
HOSTS = ("cpu-x86_64", "cpu-x86_64-avx2+ort-1.23.2", "cpu-x86_64-avx512+ort-1.22.0", ORIN)


def engine(name: str, need: str, backbone: str = "net", **meta: str) -> Entry:
    return entry(f"engines/{backbone}/{name}", b"", meta={**ENGINE_META, "backbone": backbone, "host": need, **meta})


def loaded(host: str, *needs: str) -> str | None:
    """The need of the engine that a host loads out of those with these needs."""
    (engines,) = engines_of(engine(f"{number}.onnx", need) for number, need in enumerate(needs)).values()
    one = engine_for(engines, host)
    return None if one is None else one.need


@pytest.mark.parametrize(
    ("host", "needs", "expected"),
    [
        ("cpu-x86_64-avx2+ort-1.23.2", ["cpu+ort>=1.17", "cpu-x86_64-avx2+ort-1.23.2"], "cpu-x86_64-avx2+ort-1.23.2"),
        ("cpu-x86_64-avx2+ort-1.22.0", ["cpu+ort>=1.17", "cpu-x86_64-avx2+ort-1.23.2"], "cpu+ort>=1.17"),
        (ORIN, ["cpu+ort>=1.17", "linux-aarch64+sm87+trt10-10.3.0.30"], "linux-aarch64+sm87+trt10-10.3.0.30"),
        ("cpu-x86_64-avx2", ["cpu", "cpu-x86_64"], "cpu-x86_64"),
        ("cpu-x86_64-avx2", ["cpu", "cpu+ort>=1.17"], "cpu+ort>=1.17"),
        ("cpu-x86_64-avx2", ["cpu-aarch64", "sm87"], None),
    ],
)
def test_a_host_loads_the_engine_that_is_most_of_its_own(host: str, needs: list[str], expected: str | None) -> None:
    assert loaded(host, *needs) == expected
    assert loaded(host, *needs[::-1]) == expected


@given(host=st.sampled_from(HOSTS), needs=st.lists(st.sampled_from(NEEDS), min_size=1, unique=True))
def test_what_a_host_loads_it_takes_and_the_order_of_the_table_decides_nothing(host: str, needs: list[str]) -> None:
    chosen = loaded(host, *needs)
    taken = [need for need in needs if not fit(host, need).lacking]
    assert (chosen is None) is (not taken)
    assert chosen is None or chosen in taken
    assert chosen == loaded(host, *sorted(needs))
    assert all(chosen.count("+") >= need.count("+") for need in taken if chosen is not None)


def test_of_two_engines_with_one_need_the_build_key_decides() -> None:
    one, other = engine("a.onnx", "cpu"), engine("b.onnx", "cpu")
    (engines,) = engines_of([one, other]).values()
    least = min(one, other, key=lambda entry: bytes(entry.key or b""))
    chosen = engine_for(engines, "cpu-x86_64")
    assert chosen is not None
    assert chosen.entries == (least,)


def test_the_parts_of_an_engine_stand_together_and_a_host_takes_all_or_none() -> None:
    key = build_key("one engine")
    model = replace(engine("a.onnx", "cpu"), key=key)
    weights = replace(engine("a.weights", "cpu-aarch64", part="weights"), key=key)
    other = engine("b.onnx", "cpu", backbone="other")
    engines = engines_of([model, weights, other, entry("files/a", b"")])
    assert {backbone: [one.entries for one in found] for backbone, found in engines.items()} == {
        "net": [(model, weights)],
        "other": [(other,)],
    }
    (one,) = engines["net"]
    assert (one.name, one.key, one.lacking("cpu-x86_64")) == (model.name, key, ("cpu-aarch64",))
    assert engine_for(engines["net"], "cpu-x86_64") is None
