"""The host class of a machine that runs TensorRT, and what an engine needs of it. `host_class` and `needed` are pure.

    linux-<arch>                        engines are not portable between platforms
    sm<capability>-<sku>-<n>sm-<m>gb    the device; m is the class of its memory
    ampere-plus                         compute capability 8.0 or more, not on a Jetson
    cuda<major.minor>                   the newest CUDA that the driver takes
    driver-<branch>, or l4t-<release>   the driver; on a Jetson the whole release
    trt<major>-<all four parts>         the library

An engine needs them as they are, save what it was declared compatible over when it was built: over hardware it needs
`sm<capability>` or `ampere-plus` for the device, over versions `trt<major>` for the library, its driver and CUDA.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.engines.failures import failure
from builders.engines.tensorrt_library import answer, library_version
from store.errors import Invalid

DRIVER_FILE = Path("/proc/driver/nvidia/version")
L4T_FILE = Path("/etc/nv_tegra_release")

_DRIVER = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")
_L4T = re.compile(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)")
# A component has 64 characters at most (FORMAT 4.5); no name of a device that is sold comes near.
_MAX_SKU = 40


@dataclass(frozen=True, slots=True)
class Facts:
    """What a host class is made of. `l4t` is "" but on a Jetson; `memory` is in bytes."""

    version: str
    cuda: str
    capability: tuple[int, int]
    name: str
    multiprocessors: int
    memory: int
    driver: str
    l4t: str
    machine: str


def gather(
    tensorrt: Any,
    cuda: Any,
    *,
    driver: Path | None = None,
    l4t: Path | None = None,
    machine: str = "",
) -> Facts:
    """The facts of this machine and its first visible device. Raises Unavailable where they cannot be told."""
    driver, l4t = driver or DRIVER_FILE, l4t or L4T_FILE
    # The driver's: the runtime's is that of the Python package, which carries its own.
    newest = answer(cuda, cuda.cudaDriverGetVersion(), "the CUDA version of the driver cannot be told")
    gpu = answer(cuda, cuda.cudaGetDeviceProperties(0), "the GPU cannot be told")
    release = _match(_L4T, l4t)
    branch = _match(_DRIVER, driver)
    if not release and not branch:
        raise failure("failed", f"neither {driver} nor {l4t} says which driver this is", path=str(driver))
    return Facts(
        version=library_version(tensorrt),
        cuda=f"{newest // 1000}.{newest % 1000 // 10}",
        capability=(gpu.major, gpu.minor),
        name=gpu.name.decode(errors="replace"),
        multiprocessors=gpu.multiProcessorCount,
        memory=gpu.totalGlobalMem,
        driver=branch,
        l4t=release,
        machine=machine or platform.machine(),
    )


def host_class(facts: Facts) -> str:
    """All that the facts say, as a host class."""
    ampere = ["ampere-plus"] if _is_ampere_plus(facts) else []
    return "+".join(sorted([_platform(facts), device(facts), *ampere, *_software(facts)]))


def needed(facts: Facts, compatibility: str, version_compatible: bool) -> str:
    """The host class that an engine needs when it is built here and declared compatible so.

    Raises Invalid where this machine offers no such compatibility.
    """
    if compatibility == "ampere_plus":
        if not _is_ampere_plus(facts):
            what = "a Jetson" if facts.l4t else f"compute capability {'.'.join(map(str, facts.capability))}"
            raise Invalid(
                f'compatibility = "ampere_plus" is not offered on {what}',
                remedy='set compatibility = "none", or build on a GPU of compute capability 8.0 or more, no Jetson',
                compatibility=compatibility,
            )
        hardware = "ampere-plus"
    else:
        hardware = device(facts)
        if compatibility == "same_compute_capability":
            hardware = hardware.partition("-")[0]
    software = [f"trt{facts.version.partition('.')[0]}"] if version_compatible else _software(facts)
    return "+".join(sorted([_platform(facts), hardware, *software]))


def _platform(facts: Facts) -> str:
    machine = facts.machine.lower()
    return "linux-" + {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def device(facts: Facts) -> str:
    """The component of the device."""
    sku = re.sub(r"[^a-z0-9]+", "_", facts.name.lower().removeprefix("nvidia ")).strip("_")[:_MAX_SKU].rstrip("_")
    major, minor = facts.capability
    return f"sm{major}{minor}-{sku or 'unnamed'}-{facts.multiprocessors}sm-{_memory_class(facts.memory)}gb"


def _memory_class(memory: int) -> int:
    """GiB as sold: what firmware and the driver keep for themselves is not always the same.

    Rounded up to a quarter of the power of two below: 7.4 -> 8, 23.6 -> 24, 61.3 -> 64, 79.6 -> 80.
    """
    mib = max(memory >> 20, 1)
    step = max(1 << max(mib.bit_length() - 3, 0), 1024)
    return -(-mib // step) * step // 1024


def _is_ampere_plus(facts: Facts) -> bool:
    # NVIDIA documents hardware compatibility as unsupported on JetPack.
    return facts.capability >= (8, 0) and not facts.l4t


def _software(facts: Facts) -> list[str]:
    driver = f"l4t-{facts.l4t}" if facts.l4t else f"driver-{facts.driver.partition('.')[0]}"
    return [f"cuda{facts.cuda}", driver, f"trt{facts.version.partition('.')[0]}-{facts.version}"]


def _match(pattern: re.Pattern[str], path: Path) -> str:
    """The groups of the pattern in the file, joined by dots; "" where there is no such file or it says nothing such."""
    try:
        found = pattern.search(path.read_text(errors="replace"))
    except OSError:
        return ""
    return ".".join(found.groups()) if found else ""
