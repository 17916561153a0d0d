"""What a node declares, and what a unit asks for: a unit asks for no more than a machine of its need declares."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.artifacts.executor import Needs
from builders.cluster.node import Facts, demands, lacking
from store.errors import Corrupt
from store.format.cbor import encode
from store.format.host import is_host_class, meets

HOSTS = (
    "cpu",
    "cpu-x86_64",
    "cpu-x86_64-avx2",
    "cpu-x86_64-avx512",
    "cpu-aarch64-neon",
    "cpu-aarch64-neon+l4t-36.4.3+sm87-orin-16sm+trt10-10.3.0.30",
    "cpu-x86_64+ort-1.23.2",
    "sm87",
    "trt10",
)
ORIN = Facts(HOSTS[5], ("cpu", "cuda"), {"onnxruntime": "1.23.2", "tensorrt": "10.3.0"}, 8, "0.1.0", "3.12.1")


@given(st.sampled_from(HOSTS), st.sampled_from(HOSTS))
def test_a_unit_finds_its_resources_exactly_where_the_host_meets_its_need(have: str, need: str) -> None:
    declared = replace(ORIN, host=have).resources
    assert (demands(Needs(need)).keys() <= declared.keys()) == meets(have, need)


def test_a_least_version_is_judged_by_the_unit() -> None:
    assert demands(Needs("cpu+ort>=1.22")).keys() == demands(Needs("cpu")).keys()
    assert demands(Needs("ort>=1.22")) == {}


def test_a_unit_takes_a_trifle_of_what_it_needs() -> None:
    needed = demands(Needs("sm87+trt10-10.3.0.30", "cuda"))
    assert needed.keys() <= ORIN.resources.keys()
    assert set(ORIN.resources.values()) == {1.0}
    assert max(needed.values()) < 0.001
    assert demands(Needs()) == {}


def test_what_a_node_lacks_is_named_without_our_prefix() -> None:
    wanted = demands(Needs("sm90", "rocm"))
    assert lacking(ORIN.resources, wanted) == ["sm90", "rocm"]
    assert lacking(ORIN.resources, demands(Needs("sm87", "cuda"))) == []


def test_this_machine_is_of_a_class() -> None:
    facts = Facts.of_this_machine()
    assert is_host_class(facts.host)
    assert "cpu" in facts.providers
    assert "onnxruntime" in facts.backends
    assert Facts.parse(facts.render()) == facts
    assert demands(Needs("cpu", "cpu")).keys() <= facts.resources.keys()


@pytest.mark.parametrize(
    "change",
    [
        {"host": "a table"},
        {"cpus": "8"},
        {"providers": ["cp\x1b[31mu"]},
        {"providers": 7},
        {"backends": ["onnxruntime"]},
        {"flightbag": 1},
    ],
)
def test_what_is_no_description_of_a_node_is_refused(change: dict[str, object]) -> None:
    value = {
        "host": ORIN.host,
        "providers": list(ORIN.providers),
        "backends": dict(ORIN.backends),
        "cpus": 8,
        "flightbag": "0.1.0",
        "python": "3.12",
    }
    assert Facts.parse(encode(value)).host == ORIN.host
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError, Corrupt)):
        Facts.parse(encode({**value, **change}))  # type: ignore[dict-item]
