"""Host classes of machines with TensorRT, and host classes that engines need, without any library."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders.engines.tensorrt_host import MachineFacts, host_class, required_host
from store.errors import Invalid
from store.format.host import fit, is_host_class, meets

FACTS = MachineFacts("10.16.1.11", "12.4", (8, 9), "NVIDIA GeForce RTX 4090", 128, 24 << 30, "550.90.07", "", "x86_64")


@pytest.mark.parametrize(
    ("compatibility", "versions", "need"),
    [
        ("none", False, "cuda12.4+driver-550+linux-x86_64+sm89-geforce_rtx_4090-128sm-24gb+trt10-10.16.1.11"),
        ("none", True, "linux-x86_64+sm89-geforce_rtx_4090-128sm-24gb+trt10+trt>=10.16.1.11"),
        ("same_compute_capability", False, "cuda12.4+driver-550+linux-x86_64+sm89+trt10-10.16.1.11"),
        ("same_compute_capability", True, "linux-x86_64+sm89+trt10+trt>=10.16.1.11"),
        ("ampere_plus", False, "ampere-plus+cuda12.4+driver-550+linux-x86_64+trt10-10.16.1.11"),
        ("ampere_plus", True, "ampere-plus+linux-x86_64+trt10+trt>=10.16.1.11"),
    ],
)
def test_what_an_engine_needs(compatibility: str, versions: bool, need: str) -> None:
    assert required_host(FACTS, compatibility, versions) == need
    assert is_host_class(need) is not versions
    assert meets(host_class(FACTS), need)
    older = host_class(replace(FACTS, version="10.16.1.10"))
    assert not meets(older, need)
    assert fit(older, need).unjudged == ()
    newer = host_class(replace(FACTS, version="10.17.0.1", cuda="13.0", driver="999"))
    assert meets(newer, need) is versions


@pytest.mark.parametrize(
    "other",
    [
        replace(FACTS, version="10.16.1.12"),
        replace(FACTS, cuda="12.8"),
        replace(FACTS, driver="560.1"),
        replace(FACTS, multiprocessors=114),
        replace(FACTS, memory=16 << 30),
        replace(FACTS, name="NVIDIA GeForce RTX 4090 D"),
        replace(FACTS, capability=(8, 6)),
        replace(FACTS, machine="aarch64"),
        replace(FACTS, driver="", l4t="36.4.3"),
    ],
)
def test_no_other_machine_meets_what_is_not_declared_compatible(other: MachineFacts) -> None:
    assert not meets(host_class(other), required_host(FACTS, "none", False))


@pytest.mark.parametrize(
    ("gib", "sold"),
    [(7.4, 8), (11.7, 12), (15.3, 16), (23.6, 24), (39.4, 40), (44.5, 48), (61.3, 64), (79.6, 80), (1, 1)],
)
def test_memory_class(gib: float, sold: int) -> None:
    assert host_class(replace(FACTS, memory=int(gib * 2**30))).split("+")[4].endswith(f"-{sold}gb")


def test_names_of_devices_stay_components() -> None:
    odd = host_class(replace(FACTS, name="NVIDIA " + "A-très (long) name/" * 9))
    assert is_host_class(odd)
    assert is_host_class(host_class(replace(FACTS, name="")))


def test_ampere_plus_needs_ampere() -> None:
    with pytest.raises(Invalid, match=r"compute capability 7\.5"):
        required_host(replace(FACTS, capability=(7, 5)), "ampere_plus", False)
