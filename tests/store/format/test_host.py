"""`meets` is reflexive and transitive; a host class has one form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.format.host import is_host_class, meets

# Few letters, so that classes often are narrower forms of each other.
COMPONENTS = st.lists(st.sampled_from(["a", "b", "a1"]), min_size=1, max_size=3).map("-".join)
CLASSES = st.lists(COMPONENTS, min_size=1, max_size=3, unique=True).map(lambda parts: "+".join(sorted(parts)))


@given(CLASSES)
def test_reflexive(host: str) -> None:
    assert is_host_class(host)
    assert meets(host, host)


@given(CLASSES, CLASSES, CLASSES)
def test_transitive(a: str, b: str, c: str) -> None:
    if meets(a, b) and meets(b, c):
        assert meets(a, c)


@given(CLASSES, COMPONENTS)
def test_more_at_hand_never_meets_less(host: str, extra: str) -> None:
    assert meets("+".join(sorted({*host.split("+"), extra})), host)


@pytest.mark.parametrize(
    ("have", "need", "answer"),
    [
        ("cpu-x86_64-avx2", "cpu-x86_64", True),
        ("cpu-x86_64-avx2", "cpu", True),
        ("cpu-x86_64", "cpu-x86_64-avx2", False),
        ("cpu-x86_64", "cpu-x86", False),
        ("cpu-aarch64", "cpu-x86_64", False),
        ("cpu-aarch64+trt10.3-sm87", "cpu-aarch64", True),
        ("cpu-aarch64+trt10.3-sm87", "trt10.3", True),
        ("cpu-aarch64+trt10.3-sm87", "trt10.3-sm8", False),
        ("cpu-aarch64", "cpu-aarch64+trt10.3-sm87", False),
        ("cpu-aarch64-big+trt10.3-sm87", "cpu-aarch64+trt10.3-sm87", True),
    ],
)
def test_cases(have: str, need: str, answer: bool) -> None:
    assert meets(have, need) is answer


@pytest.mark.parametrize(
    "text",
    ["", "+", "a+", "+a", "b+a", "a+a", "A", "a b", "-a", "a-", "a\n", "é", "a" * 65, "+".join("abcdefghij" * 30)],
)
def test_no_host_class(text: str) -> None:
    assert not is_host_class(text)


def test_the_longest_host_class() -> None:
    parts = [letter * 63 for letter in "abcd"]
    assert is_host_class("+".join(parts))
    assert not is_host_class("+".join([*parts, "e"]))
