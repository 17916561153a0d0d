"""`meets` is reflexive and transitive; host classes and needs come from a closed list and have one form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Invalid
from store.format.host import (
    CPU_FEATURES,
    CPU_LEVELS,
    FAMILIES,
    FAMILY_NAMES,
    Fit,
    at_least,
    class_of,
    contradicted,
    fit,
    is_host_class,
    meets,
    objection,
    require_host_class,
    unjudged_text,
    with_least,
)

# Few values, so that classes often are narrower forms of each other, and versions often near.
VERSIONS = st.lists(st.sampled_from([0, 1, 9, 10, 22]), min_size=1, max_size=4).map(lambda v: ".".join(map(str, v)))
COMPONENTS = {
    "ampere-plus": st.just("ampere-plus"),
    "cpu": st.sampled_from(["cpu", "cpu-x86_64", "cpu-x86_64-avx2", "cpu-x86_64-avx512_amx", "cpu-aarch64-neon"]),
    "cuda": st.sampled_from(["cuda12.4", "cuda12.40"]),
    "driver": st.sampled_from(["driver-55", "driver-550"]),
    "faiss": VERSIONS.map("faiss-{}".format),
    "l4t": st.sampled_from(["l4t-36.4", "l4t-36.4.3"]),
    "linux": st.sampled_from(["linux-x86_64", "linux-aarch64"]),
    "ort": VERSIONS.map("ort-{}".format),
    "sm": st.sampled_from(["sm87", "sm87-orin", "sm87-orin-16sm", "sm87-orin-16sm-64gb"]),
    "trt": st.sampled_from(["trt9", "trt10", "trt10-10.3.0.30", "trt10-10.13.0.30", "trt11-11.0.0.0"]),
    "trtrtx": st.sampled_from(["trtrtx-1.7.1.116", "trtrtx-1.7.1.11"]),
}
LEAST = {name: VERSIONS.map((name + ">={}").format) for name in ("faiss", "ort", "trt")}


def joined(parts: dict[str, str]) -> str:
    return "+".join(sorted(parts.values()))


CLASSES = st.fixed_dictionaries({}, optional=COMPONENTS).filter(bool).map(joined)
NEEDS = (
    st.fixed_dictionaries({}, optional=COMPONENTS | {f"{name}>=": least for name, least in LEAST.items()})
    .filter(bool)
    .map(joined)
)


@given(CLASSES)
def test_reflexive(host: str) -> None:
    assert is_host_class(host)
    assert meets(host, host)


@given(NEEDS)
def test_a_need_meets_itself(need: str) -> None:
    assert objection(need, need=True) == ""
    assert is_host_class(need) is (">=" not in need)
    assert meets(need, need)


@given(CLASSES, CLASSES, NEEDS)
def test_transitive(a: str, b: str, c: str) -> None:
    if meets(a, b) and meets(b, c):
        assert meets(a, c)


@given(CLASSES, CLASSES, NEEDS)
def test_who_meets_a_class_lacks_nothing_that_the_class_has(a: str, b: str, c: str) -> None:
    """A host that meets the mission's class may lack only what the mission's class left unjudged."""
    if meets(a, b):
        assert set(fit(a, c).lacking) <= {*fit(b, c).lacking, *fit(b, c).unjudged}


@given(CLASSES, CLASSES, NEEDS)
def test_more_at_hand_never_lacks_more(host: str, extra: str, need: str) -> None:
    more = "+".join(sorted({*host.split("+"), *(e for e in extra.split("+") if e not in host)}))
    assert not meets(host, need) or meets(more, need)


@given(CLASSES, NEEDS)
def test_each_component_is_met_lacking_or_unjudged(host: str, need: str) -> None:
    answer = fit(host, need)
    assert answer.holds is meets(host, need)
    assert not set(answer.lacking) & set(answer.unjudged)
    assert {*answer.lacking, *answer.unjudged} <= set(need.split("+"))
    assert all(">=" in part for part in answer.unjudged)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_versions_are_compared_number_by_number(has: list[int], least: list[int]) -> None:
    def text(numbers: list[int]) -> str:
        return ".".join(map(str, numbers))

    longest = [(numbers + [0] * 4)[:4] for numbers in (has, least)]
    assert meets(f"ort-{text(has)}", f"ort>={text(least)}") is (longest[0] >= longest[1])


@pytest.mark.parametrize(
    ("have", "need", "answer"),
    [
        ("cpu-x86_64-avx2", "cpu-x86_64", True),
        ("cpu-x86_64-avx2", "cpu", True),
        ("cpu-x86_64", "cpu-x86_64-avx2", False),
        ("cpu-x86_64-avx512", "cpu-x86_64-avx", False),
        ("cpu-aarch64", "cpu-x86_64", False),
        ("cpu-aarch64+sm87-orin-16sm-64gb+trt10-10.3.0.30", "cpu-aarch64", True),
        ("cpu-aarch64+sm87-orin-16sm-64gb+trt10-10.3.0.30", "sm87+trt10", True),
        ("cpu-aarch64+sm87-orin-16sm-64gb+trt10-10.3.0.30", "sm87+trt10-10.3.0.3", False),
        ("cpu-aarch64", "cpu-aarch64+sm87", False),
        ("cpu-x86_64+ort-1.10.0", "cpu+ort>=1.9", True),
        ("cpu-x86_64+ort-1.9", "cpu+ort>=1.10", False),
        ("cpu-x86_64+ort-1.22", "cpu+ort>=1.22.0", True),
        ("cpu-x86_64+ort-1.22.0", "cpu+ort>=1.22.0.1", False),
        ("cpu+faiss-1.15.1", "cpu+faiss>=1.15.1+ort>=1.9", False),
        ("cpu+faiss-1.15.1+ort-1.9", "cpu+faiss>=1.15.1+ort>=1.9", True),
        ("trt11-11.4.0.106", "trt11+trt>=11.4.0.106", True),
        ("trt11-11.3.0.9", "trt11+trt>=11.4.0.106", False),
        ("trt12-12.0.0.1", "trt11+trt>=11.4.0.106", False),
    ],
)
def test_cases(have: str, need: str, answer: bool) -> None:
    assert meets(have, need) is answer


@pytest.mark.parametrize(
    ("have", "need", "answer"),
    [
        ("cpu-x86_64", "cpu+ort>=1.22", Fit((), ("ort>=1.22",))),
        ("cpu-x86_64", "cpu-aarch64+ort>=1.22", Fit(("cpu-aarch64",), ("ort>=1.22",))),
        ("cpu+ort-1.21.1", "cpu+faiss>=1.15+ort>=1.22", Fit(("ort>=1.22",), ("faiss>=1.15",))),
        ("trt11", "trt11+trt>=11.4", Fit((), ("trt>=11.4",))),
        ("trt11", "trt>=11.0.0.0", Fit((), ())),
        ("trt11", "trt>=10.16", Fit((), ())),
        ("trt10", "trt>=11", Fit(("trt>=11",), ())),
    ],
)
def test_a_class_without_the_version_leaves_it_unjudged(have: str, need: str, answer: Fit) -> None:
    assert fit(have, need) == answer


def test_the_least_version_of_a_need() -> None:
    assert with_least("cpu", "ort", "1.22") == with_least("cpu+ort>=1.9", "ort", "1.22") == "cpu+ort>=1.22"
    assert with_least("sm87+trt11", "faiss", "1.15") == "faiss>=1.15+sm87+trt11"
    assert class_of("cpu+faiss>=1.15+ort>=1.22+sm87") == "cpu+sm87"
    assert unjudged_text("engines/net/net.onnx", "ort>=1.22", "cpu-x86_64") == (
        "ONNX Runtime: engines/net/net.onnx needs at least 1.22, and the host class cpu-x86_64 names no version"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "+", "cpu+", "+cpu", "ort-1+cpu", "cpu+cpu", "cpu+cpu-x86_64", "CPU", "cpu x", "-cpu", "cpu-", "cpu\n"),
        *("auto", "banana", "jetson", "é", "cpu-arm", "cpu-x86-64", "cpu-amd64", "cpu-x86_64-avx3", "cpu-x86_64-neon"),
        *(
            "cpu-x86_64-amx",
            "cpu-x86_64-avx512_amx_avxvnni",
            "cpu-x86_64-avx512-amx",
            "cpu-aarch64-neon_amx",
            "gpu-sm87",
            "sm8",
            "sm087",
        ),
        *("ort", "ort-", "ort-1.", "ort-01", "ort-1.2.3.4.5", "ort-1.22.0rc1", "ort1.22", "ort-1234567890"),
        *("trt10.3", "trt10-10.3", "trt10-11.4.0.106", "trt", "cuda12", "driver-550.54", "linux", "linux-arm64", "l4t"),
        *("ort>=1.22", "cpu+ort>=1.22", "ampere", "ampere-plus-2", "+".join(f"sm{n}" for n in range(10, 99))),
    ],
)
def test_no_host_class(text: str) -> None:
    assert not is_host_class(text)
    with pytest.raises(Invalid) as caught:
        require_host_class(text)
    assert FAMILY_NAMES in caught.value.remedy


@pytest.mark.parametrize("text", ["ort>1", "ort>=", "ort>=x", "cuda>=12.4", "cpu>=1", "ort>=1+ort>=2", "ort>=1+cpu"])
def test_no_need(text: str) -> None:
    assert objection(text, need=True)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("cpu-arm", "cpu-aarch64"),
        ("cpu-x86-64", "cpu-x86_64"),
        ("cpu-amd64-avx2", "cpu-x86_64-avx2"),
        ("cpu-arm64", "cpu-aarch64"),
        ("linux-arm64", "linux-aarch64"),
        ("gpu-sm87", "sm87"),
        ("sm_87+trt10", "sm87"),
        ("cpu-aarch64-neonfp15", "cpu-aarch64-neonfp16"),
    ],
)
def test_the_nearest_is_named(text: str, nearest: str) -> None:
    assert objection(text).endswith(f"the nearest is {nearest}")


def test_every_family_is_named_and_every_level_is_a_class() -> None:
    assert set(FAMILY_NAMES.replace(" and ", ", ").split(", ")) == set(FAMILIES)
    for architecture, levels in CPU_LEVELS.items():
        for level in levels:
            everything = f"cpu-{architecture}-{'_'.join((level, *CPU_FEATURES[architecture]))}"
            assert is_host_class(everything)
            assert meets(everything, f"cpu-{architecture}")
            # What was made without the features is made for another CPU.
            assert not meets(everything, f"cpu-{architecture}-{level}")
            assert not meets(f"cpu-{architecture}-{level}", everything)


def test_the_longest_host_class() -> None:
    parts = [f"cpu-aarch64-neon{''.join('_' + name for name in CPU_FEATURES['aarch64'])}", f"sm87-{'a' * 40}-1sm-1gb"]
    assert is_host_class("+".join(parts))
    assert not is_host_class(f"sm87-{'a' * 41}-1sm-1gb")
    assert "1 to 255 characters" in objection("a" * 256)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.lists(st.integers(0, 12), min_size=1, max_size=4))
def test_of_two_least_versions_one_is_at_least_the_other(one: list[int], other: list[int]) -> None:
    a, b = (f"ort>={'.'.join(map(str, numbers))}" for numbers in (one, other))
    padded = [numbers + [0] * (4 - len(numbers)) for numbers in (one, other)]
    assert at_least(a, b) == (padded[0] >= padded[1])


@pytest.mark.parametrize(
    ("have", "other", "found"),
    [
        ("cpu-x86_64-avx2+ort-1.32.0", "cpu-x86_64-avx2+ort-1.32.0", ()),
        ("cpu-x86_64-avx2+ort-1.32.0", "cpu-x86_64", ()),
        ("cpu-x86_64-avx2+ort-1.32.0", "cpu-aarch64", ("cpu-aarch64",)),
        ("cpu-x86_64-avx2+ort-1.32.0", "cpu-x86_64-avx512+ort-1.22.0", ("cpu-x86_64-avx512", "ort-1.22.0")),
        ("cpu-x86_64-avx2+ort-1.32.0", "faiss-1.9+sm87+trt10", ()),
        ("linux-x86_64+sm89-rtx+trt10-10.3.0.30", "cpu-x86_64+sm87+trt10", ("sm87",)),
    ],
)
def test_what_a_machine_surely_is_not(have: str, other: str, found: tuple[str, ...]) -> None:
    assert contradicted(have, other) == found
