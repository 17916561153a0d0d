"""The host class of a machine that runs TensorRT, and the need of an engine (FORMAT 4.5). `host_class` and
`required_host` are pure.

    linux-<arch>                        engines are not portable between platforms
    sm<capability>-<sku>-<n>sm-<m>gb    the device; m is the class of its memory
    ampere-plus                         compute capability 8.0 or more, not on a Jetson
    cuda<major.minor>                   the newest CUDA that the driver supports
    driver-<branch>, or l4t-<release>   the driver; on a Jetson the whole release
    trt<major>-<all four parts>         the library

An engine needs all of these, unless it is declared compatible when it is built. An engine that is compatible across
hardware needs `sm<capability>` or `ampere-plus` in place of the device. An engine that is compatible across versions
needs `trt<major>` and, because an older library refuses it, `trt>=<all four parts>` in place of the library, the driver
and CUDA.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.engines.failures import failure
from builders.engines.tensorrt_library import cuda_result, library_version
from store.errors import Invalid, Unavailable
from store.format.host import architecture, with_least

DRIVER_FILE = Path("/proc/driver/nvidia/version")
L4T_FILE = Path("/etc/nv_tegra_release")

_DRIVER = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")
_L4T = re.compile(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)")
_HARDWARE = {
    "ampere_plus": "ampere-plus",
    "same_compute_capability": "sm<capability>",
    "none": "sm<capability>-<name>-<n>sm-<m>gb",
}
# FORMAT 4.5. The names of devices on sale are far shorter.
_MAX_SKU = 40


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """The facts that a host class is made of. `l4t` is "" except on a Jetson; `memory` is in bytes."""

    version: str
    cuda: str
    capability: tuple[int, int]
    name: str
    multiprocessors: int
    memory: int
    driver: str
    l4t: str
    machine: str


def machine_facts(
    tensorrt: Any,
    cuda: Any,
    *,
    driver: Path | None = None,
    l4t: Path | None = None,
    machine: str = "",
) -> MachineFacts:
    """Return the facts of this machine and its first visible device. Raise Unavailable if one of them is unknown.

    `driver` and `l4t` are the files that name the driver and the Jetson release, `machine` is the output of `uname -m`;
    the defaults are this machine's.
    """
    driver, l4t = driver or DRIVER_FILE, l4t or L4T_FILE
    # The version of the driver, because the Python package has a runtime of its own with another version.
    newest = cuda_result(cuda, cuda.cudaDriverGetVersion(), "the driver does not report its CUDA version")
    gpu = cuda_result(cuda, cuda.cudaGetDeviceProperties(0), "the driver does not report the properties of the GPU")
    release = _match(_L4T, l4t)
    branch = _match(_DRIVER, driver)
    if not release and not branch:
        raise failure(
            "failed",
            f"neither {driver} nor {l4t} names the version of the driver",
            remedy="install the driver of the GPU",
            path=str(driver),
        )
    return MachineFacts(
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


def host_class(facts: MachineFacts) -> str:
    """Return the host class that the facts make up."""
    ampere = ["ampere-plus"] if _is_ampere_plus(facts) else []
    return "+".join(sorted([_platform(facts), device_component(facts), *ampere, *_software(facts)]))


def required_host(facts: MachineFacts, compatibility: str, version_compatible: bool) -> str:
    """Return the need (FORMAT 4.5) of an engine if it is built on this machine and declared compatible in this way.

    Raise Invalid if this machine does not offer that compatibility.
    """
    if compatibility == "ampere_plus":
        if not _is_ampere_plus(facts):
            machine = "a Jetson" if facts.l4t else f"compute capability {'.'.join(map(str, facts.capability))}"
            raise Invalid(
                f'compatibility = "ampere_plus" is not available on {machine}',
                remedy='set compatibility = "none", or build on a GPU of compute capability 8.0 or more, not a Jetson',
                compatibility=compatibility,
            )
        hardware = "ampere-plus"
    else:
        hardware = device_component(facts)
        if compatibility == "same_compute_capability":
            hardware = hardware.partition("-")[0]
    software = [f"trt{facts.version.partition('.')[0]}"] if version_compatible else _software(facts)
    need = "+".join(sorted([_platform(facts), hardware, *software]))
    return with_least(need, "trt", facts.version) if version_compatible else need


def need_of_target(
    target: str, compatibility: str, version_compatible: bool, installed: Callable[[], str], backbone: str
) -> str:
    """Return the need (FORMAT 4.5) of an engine for the host class `target`, declared compatible in this way: what
    `required_host` returns on a machine of that class.

    `installed` returns the version of the library here: it builds an engine that is compatible across versions, where
    the target names no version. Raise Invalid for a target that lacks something that the engine depends on.
    """
    parts = target.split("+")

    def named(form: str) -> str:
        return next((part for part in parts if re.fullmatch(form, part)), "")

    device, library = named(r"sm[0-9]+(-.*)?"), named(r"trt[0-9]+(-.*)?")
    hardware = {
        "ampere_plus": named("ampere-plus"),
        "same_compute_capability": device.partition("-")[0],
        "none": device if device.endswith("gb") else "",
    }[compatibility]
    wanted = {"linux-<architecture>": named("linux-.*"), _HARDWARE[compatibility]: hardware}
    if version_compatible:
        wanted["trt<major>"] = library.partition("-")[0]
    else:
        wanted["cuda<version>"] = named("cuda.*")
        wanted["driver-<branch> or l4t-<release>"] = named("driver-.*") or named("l4t-.*")
        wanted["trt<major>-<version>"] = library if "-" in library else ""
    if lacking := [name for name, part in wanted.items() if not part]:
        raise Invalid(
            f"an engine of {backbone} for TensorRT depends on {', '.join(lacking)}, which the target {target} does not "
            "name",
            remedy="name the host class that `flightbag engines host` prints on the aircraft's computer",
            target=target,
        )
    need = "+".join(sorted(wanted.values()))
    if not version_compatible:
        return need
    try:
        version = library.partition("-")[2] or installed()
    except Unavailable as error:
        raise Invalid(
            f"the target {target} does not name the version of TensorRT that builds the engine of {backbone}, and none "
            "is installed here",
            remedy=f"name the version, such as {library}-{library.removeprefix('trt')}.3.0.30 in place of {library}",
            target=target,
        ) from error
    return with_least(need, "trt", version)


def version_of(need: str) -> str:
    """Return the version of the library that builds an engine with this need."""
    match = re.search(r"(?:^|\+)trt(?:>=|[0-9]+-)([0-9.]+)", need)
    return match[1] if match else ""


def _platform(facts: MachineFacts) -> str:
    return f"linux-{architecture(facts.machine)}"


def device_component(facts: MachineFacts) -> str:
    """Return the component of the device."""
    sku = re.sub(r"[^a-z0-9]+", "_", facts.name.lower().removeprefix("nvidia ")).strip("_")[:_MAX_SKU].rstrip("_")
    major, minor = facts.capability
    return f"sm{major}{minor}-{sku or 'unnamed'}-{facts.multiprocessors}sm-{_memory_class(facts.memory)}gb"


def _memory_class(memory: int) -> int:
    """Return the GiB that the device is sold with. Firmware and driver reserve amounts that vary, so the size that they
    report is rounded up to a quarter of the power of two below: 7.4 -> 8, 23.6 -> 24, 61.3 -> 64, 79.6 -> 80.
    """
    mib = max(memory >> 20, 1)
    step = max(1 << max(mib.bit_length() - 3, 0), 1024)
    return -(-mib // step) * step // 1024


def _is_ampere_plus(facts: MachineFacts) -> bool:
    # NVIDIA documents hardware compatibility as unsupported on JetPack.
    return facts.capability >= (8, 0) and not facts.l4t


def _software(facts: MachineFacts) -> list[str]:
    driver = f"l4t-{facts.l4t}" if facts.l4t else f"driver-{facts.driver.partition('.')[0]}"
    return [f"cuda{facts.cuda}", driver, f"trt{facts.version.partition('.')[0]}-{facts.version}"]


def _match(pattern: re.Pattern[str], path: Path) -> str:
    """Return the groups of the pattern in the file, joined by dots; "" if the file is absent or does not match."""
    try:
        match = pattern.search(path.read_text(errors="replace"))
    except OSError:
        return ""
    return ".".join(match.groups()) if match else ""
