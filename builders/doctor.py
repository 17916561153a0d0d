"""What this machine can build and fly, and what is wrong with it: one check for each thing that was looked at.

Looks at the program and its libraries, at the machine, and at a store. Writes nothing to the store. What could not be
looked at is a check of its own, with the state `unknown`: it is never taken for good.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from builders.engines.isolation import machine_memory
from builders.engines.onnxruntime import cpu_host
from builders.engines.tensorrt_host import DRIVER_FILE, L4T_FILE
from builders.libraries import NAMES, look
from store.disk import log
from store.disk.layout import MISSIONS, open_store
from store.disk.media import Media
from store.disk.medium import file_system_of, medium_of
from store.errors import FlightbagError, Unavailable
from store.format.host import architecture
from store.installation import install_remedy

# ok: as it should be. note: the machine can do less, or something is worth knowing. problem: something is wrong.
State = Literal["ok", "note", "problem", "unknown"]

# What flies, and what builds (`extras`).
_FLIES, _BUILDS = (3, 10), (3, 11)
# What the extras are for; one without a line here has its name alone.
_EXTRAS = {
    "onboard": "flies, and makes engines that were ordered",
    "build": "plans and builds missions",
    "geotiff": "tiles cut from GeoTIFFs",
    "faiss": "approximate search",
    "remotes": "stores in object storage, differences in bags",
    "ssh": "encrypted keys of OpenSSH",
    "tensorrt": "engines of TensorRT",
    "tensorrt-rtx": "engines of TensorRT for RTX",
}
_LEAST_FREE = 256 * 2**20
_LEAST_MEMORY = 2 * 2**30
_LEAST_FILES = 256
# This program was written later.
_EARLIEST = 1_767_225_600  # 2026-01-01
# Clocks of machines that are in step differ by less.
_SLACK_S = 300
_RSYNC = (3, 2, 4)
# Each build of ONNX Runtime for an accelerator is a distribution of its own.
_RUNTIMES = ("onnxruntime", *(f"onnxruntime-{one}" for one in ("gpu", "openvino", "directml", "rocm", "migraphx")))
_BOUND = re.compile(r"(>=|<)([0-9]+(?:\.[0-9]+)*)")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)((?:(?:>=|<)[0-9]+(?:\.[0-9]+)*,?)*)\s*(?:;\s*(.*))?")
_JOINED = re.compile(r"[()\s]|\band\b")
_TERM = re.compile(r"(python_version|platform_system|platform_machine|extra)\s*(==|<|>=)\s*['\"]([^'\"]*)['\"]")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `remedy` is what to do about a problem, "" where nothing is to be done."""

    name: str
    state: State
    text: str
    remedy: str = ""


def examine(store: str | None, cache: Path, *, now: float) -> Iterator[Check]:
    """Yield the checks of this machine, and of a store where one is given. `now` is unix seconds, `cache` the folder of
    the user's cache.

    Raise what `open_store` raises, before anything is looked at.
    """
    with ExitStack() as stack:
        media = None if store is None else stack.enter_context(open_store(store))
        yield from of_machine(cache, now=now)
        if media is not None:
            yield from of_store(media, now=now)


def of_machine(cache: Path, *, now: float) -> Iterator[Check]:
    """Yield the checks of the program, of what runs networks, and of the machine."""
    yield from _program()
    yield _cpu()
    for name in NAMES:
        yield _library(name)
    yield _gpu_driver(DRIVER_FILE, L4T_FILE)
    yield _memory(machine_memory())
    yield from _limits()
    yield clock(now, _in_step())
    yield _free("temporary files", Path(tempfile.gettempdir()), "name another folder in TMPDIR")
    yield _free("cache", cache, "name another folder in XDG_CACHE_HOME")
    yield _rsync()


# -- the program


def _program() -> Iterator[Check]:
    place = Path(__file__).parents[1]
    try:
        installed = metadata.distribution("flightbag")
    except metadata.PackageNotFoundError:
        text = f"in {place}, not installed: what it needs is not known"
        yield Check("flightbag", "unknown", text, "install it with pip")
    else:
        yield Check("flightbag", "ok", f"{installed.version} in {place}")
        yield from _extras(installed.requires or ())
        yield from one_runtime()
    yield python(sys.version_info[:3])
    system, machine = platform.system(), platform.machine()
    libc = " ".join(platform.libc_ver())
    about = f"{system} {platform.release()}, {machine}{', ' if libc.strip() else ''}{libc}"
    if system == "Linux":
        yield Check("system", "ok", about)
    else:
        yield Check("system", "note", f"{about}: this program is tested on Linux")


def python(version: tuple[int, ...]) -> Check:
    """Return what this Python can do."""
    text = ".".join(map(str, version))
    if version >= _BUILDS:
        return Check("python", "ok", f"{text}: flies and builds")
    if version >= _FLIES:
        return Check("python", "note", f"{text}: flies; what builds needs Python {'.'.join(map(str, _BUILDS))}")
    needed = ".".join(map(str, _FLIES))
    return Check("python", "problem", f"{text} is too old", f"install flightbag with Python {needed} or newer")


@dataclass(frozen=True, slots=True)
class _Need:
    """A distribution that is needed here, and its bounds: pairs of a comparison and a version."""

    name: str
    bounds: tuple[tuple[str, str], ...]


def _extras(requires: Sequence[str], version_of: Callable[[str], str | None] | None = None) -> Iterator[Check]:
    """Yield the check of the base install, and of each extra."""
    needs: dict[str, list[_Need]] = {"": [], **{name: [] for name in _EXTRAS}}
    for text in requires:
        try:
            found = _need(text)
        except ValueError:
            remedy = "compare it with `pip show --verbose flightbag`, and report this as a defect"
            yield Check("base", "unknown", f"the requirement {text!r} of this program cannot be read", remedy)
            continue
        if found is not None:
            extra, need = found
            needs.setdefault(extra, []).append(need)
    for extra, wanted in needs.items():
        if extra != "dev" and (wanted or not extra):
            yield _installed(extra, wanted, version_of or _version_of)


def _need(text: str) -> tuple[str, _Need] | None:
    """Return (extra, "" for the base install; what is needed) of a requirement; None where it is none of this machine.

    Every term of its condition must hold. Raise ValueError for all that the requirements of this project have not: an
    `or`, another term, another comparison than >= and <.
    """
    match = _REQUIREMENT.fullmatch(text)
    if match is None or _JOINED.sub("", _TERM.sub("", match[3] or "")):
        raise ValueError(text)
    name, bounds, condition = match.groups()
    extra = ""
    here = {"platform_system": platform.system(), "platform_machine": platform.machine()}
    for what, comparison, value in _TERM.findall(condition or ""):
        if what == "extra":
            extra = value
        elif what == "python_version":
            older = sys.version_info[:2] < _numbers(value)[:2]
            if older != (comparison == "<"):
                return None
        elif here[what] != value:
            return None
    return extra, _Need(name, tuple(_BOUND.findall(bounds)))


def _installed(extra: str, wanted: Sequence[_Need], version_of: Callable[[str], str | None]) -> Check:
    absent, wrong, present = [], [], {}
    for need in wanted:
        version = version_of(need.name)
        if version is None:
            absent.append(need.name)
            continue
        present[need.name] = version
        if not all(_holds(version, *bound) for bound in need.bounds):
            bounds = ", ".join(f"{comparison} {least}" for comparison, least in need.bounds)
            wrong.append(f"{need.name} {version}, must be {bounds}")
    title = f"extra {extra}" if extra else "base"
    does = f"{_EXTRAS[extra]}: " if extra in _EXTRAS else ""
    remedy = install_remedy(extra)
    if wrong:
        return Check(title, "problem", f"{does}{'; '.join(dict.fromkeys(wrong))}", remedy)
    if absent:
        state: State = "note" if extra else "problem"
        return Check(title, state, f"{does}not installed: {', '.join(dict.fromkeys(absent))}", remedy)
    listed = ", ".join(f"{name} {version}" for name, version in present.items())
    return Check(title, "ok", f"{does}{listed}")


def _version_of(name: str) -> str | None:
    for one in _RUNTIMES if name == "onnxruntime" else (name,):
        try:
            return metadata.version(one)
        except metadata.PackageNotFoundError:
            continue
    return None


def one_runtime(version_of: Callable[[str], str | None] = _version_of) -> Iterator[Check]:
    """Yield a problem where several builds of ONNX Runtime are installed: they have the same files, and the last one
    that was installed or removed wins."""
    present = [name for name in _RUNTIMES if version_of(name) is not None]
    if len(present) > 1:
        names = " ".join(present)
        text = f"{' and '.join(present)} are installed, which overwrite each other's files"
        yield Check("onnxruntime", "problem", text, f"pip uninstall {names}, then install one of them")


def _holds(version: str, comparison: str, other: str) -> bool:
    have, bound = _numbers(version), _numbers(other)
    return have >= bound if comparison == ">=" else have < bound


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, without the zeros at the end."""
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    numbers = [int(part) for part in match[0].split(".")] if match is not None else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


# -- what runs networks


def _cpu() -> Check:
    try:
        host = cpu_host()
    except FlightbagError as error:
        return Check("cpu", "problem", error.message, error.remedy or "build and fly on another architecture")
    cores = f", {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"
    if host == f"cpu-{architecture(platform.machine())}":
        text = f"{host}{cores}: its instruction set is not known, so it makes and flies no engine with mode fast"
        return Check("cpu", "note", text)
    return Check("cpu", "ok", f"{host}{cores}")


def _library(name: str) -> Check:
    try:
        found = look(name)
    except Unavailable as error:
        return Check(name, "problem" if error.kind == "failed" else "unknown", error.message, error.remedy)
    if not found.error:
        providers = f", providers {', '.join(found.providers)}" if found.providers else ""
        return Check(name, "ok", f"{found.host}{providers}")
    if found.absent:
        return Check(name, "note", found.error, found.remedy)
    return Check(name, "problem", found.error, found.remedy or "install the library again")


def _gpu_driver(driver: Path, l4t: Path) -> Check:
    for path in (l4t, driver):
        try:
            with path.open(errors="replace") as file:
                return Check("gpu driver", "ok", " ".join(file.readline(400).split()))
        except FileNotFoundError:
            continue
        except OSError as error:
            return Check("gpu driver", "unknown", f"{path} cannot be read: {error.strerror}", "read it as another user")
    return Check("gpu driver", "note", "no driver of an NVIDIA GPU, no Jetson")


# -- the machine


def _memory(count: int) -> Check:
    text = f"{count / 1e9:.1f} GB for this process and those that it starts"
    if count < _LEAST_MEMORY:
        return Check("memory", "note", f"{text}: large backbones need more to be built")
    return Check("memory", "ok", text)


def _limits() -> Iterator[Check]:
    """Yield the limits of this process that are in the way."""
    wrong = False
    size = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if size != resource.RLIM_INFINITY:
        wrong = True
        yield Check("limits", "problem", f"no file may have more than {size} bytes", "ulimit -f unlimited")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < _LEAST_FILES:
        wrong = True
        yield Check("limits", "problem", f"at most {files} files may be open", f"ulimit -n {_LEAST_FILES}")
    if not wrong:
        yield Check("limits", "ok", "of file sizes and open files: none that is in the way")


def clock(now: float, in_step: bool | None) -> Check:
    """Return what the clock shows. `in_step` is whether something keeps it right, None where that is not known."""
    shows = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    if now < _EARLIEST:
        return Check("clock", "problem", f"{shows}: this program was written later", "set the clock (date -s TIME)")
    if in_step is None:
        return Check("clock", "unknown", f"{shows}; whether anything keeps it right is not known", "compare it")
    if not in_step:
        return Check("clock", "note", f"{shows}; nothing keeps it right: compare it before a flight")
    return Check("clock", "ok", f"{shows}, kept right by the system")


def _in_step() -> bool | None:
    """Whether the kernel's clock is kept right (adjtimex(2)); None where the kernel does not tell."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(1024))  # all zeros: it is asked, and not set
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != 5  # TIME_ERROR


def _free(name: str, folder: Path, otherwise: str) -> Check:
    """Return how much room a folder has, or the nearest one above it that exists."""
    at = next(one for one in (folder, *folder.parents) if os.path.exists(one))  # what may not be looked at is not
    try:
        free = shutil.disk_usage(at).free
    except OSError as error:
        return Check(name, "unknown", f"{folder} cannot be looked at: {error.strerror}", otherwise)
    text = f"{folder}: {free / 1e9:.1f} GB free"
    if not os.access(at, os.W_OK | os.X_OK):
        return Check(name, "problem", f"{folder} cannot be written", otherwise)
    if free < _LEAST_FREE:
        return Check(name, "problem", text, f"free some space there, or {otherwise}")
    return Check(name, "ok", text)


def _rsync() -> Check:
    needed = ".".join(map(str, _RSYNC))
    try:
        done = subprocess.run(["rsync", "--version"], capture_output=True, check=False, timeout=20)  # noqa: S607
        first = done.stdout.decode(errors="replace").partition("\n")[0]
    except FileNotFoundError:
        return Check("rsync", "note", "not installed: sync reaches no store by ssh", f"install rsync {needed} or newer")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("rsync", "unknown", f"rsync does not run: {error}", f"install rsync {needed} or newer")
    match = re.match(r"rsync\s+version\s+v?([0-9.]+)", first)
    if match is None:
        return Check("rsync", "unknown", "rsync does not name its version", f"install rsync {needed} or newer")
    if _numbers(match[1]) < _RSYNC:
        return Check("rsync", "note", f"{match[1]}: too old for stores by ssh", f"install rsync {needed} or newer")
    ssh = "" if shutil.which("ssh") else "; no ssh beside it: sync reaches no store by ssh"
    return Check("rsync", "note" if ssh else "ok", f"{match[1]}{ssh}", "install the client of OpenSSH" if ssh else "")


# -- a store


def of_store(media: Media, *, now: float) -> Iterator[Check]:
    """Yield the checks of a store: what it lies on, its room, and its log against the clock. Writes nothing there."""
    try:
        count = len(media.names_if_there(MISSIONS))
        yield Check("store", "ok", f"{media.path}: {count} {'mission' if count == 1 else 'missions'}")
    except FlightbagError as error:
        yield _of_error("store", error)
    fd = os.open(media.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield _file_system(fd)
        yield _medium(fd)
        yield _room(fd, media.path)
    finally:
        os.close(fd)
    try:
        newest = max((event.at for event in log.events(media)), default=0)
    except FlightbagError as error:
        yield _of_error("log", error)
    else:
        yield against_log(now, newest)


def _of_error(name: str, error: FlightbagError) -> Check:
    state: State = "unknown" if isinstance(error, Unavailable) else "problem"
    return Check(name, state, error.message, error.remedy or "run store-fsck")


def against_log(now: float, newest: int) -> Check:
    """Return whether the clock agrees with the newest line of a store's log."""
    if newest <= now + _SLACK_S:
        return Check("log", "ok", "no line of the store's log is newer than this clock")
    days = (newest - now) / 86400
    text = f"the newest line of the store's log is {days:.1f} days ahead of this clock"
    return Check("log", "problem", text, "set the clock, of this machine or of the one that wrote the line")


def _file_system(fd: int) -> Check:
    found = file_system_of(fd)
    if not found.name:
        return Check("file system", "unknown", "the mount table does not name it", "see `mount`")
    if not found.builds:
        remedy = "build in a store on a disk of this machine, and `flightbag sync` it there"
        return Check("file system", "problem", f"{found.name}: {'; '.join(found.lacks)}", remedy)
    if found.lacks:
        lacks = "; ".join(found.lacks)
        return Check("file system", "note", f"{found.name}: {lacks if len(found.lacks) == 1 else f'without {lacks}'}")
    return Check("file system", "ok", found.name)


def _medium(fd: int) -> Check:
    found = medium_of(fd)
    if found.removable is None:
        return Check("medium", "note", f"whether it can be taken out is not known: {found.obstacle}")
    text = "removable" if found.removable else "not removable"
    if found.removable and found.obstacle:
        text += f"; what is read may come from a cache: {found.obstacle}"
        return Check("medium", "note", text)
    return Check("medium", "ok", text)


def _room(fd: int, path: str) -> Check:
    about = os.fstatvfs(fd)
    free = about.f_bavail * about.f_frsize
    text = f"{free / 1e9:.1f} GB free"
    if about.f_flag & os.ST_RDONLY:
        return Check("room", "note", "mounted read-only: verify, fsck and sync from it work")
    if not os.access(path, os.W_OK | os.X_OK):
        return Check("room", "note", f"{text}; this user may not write: verify, fsck and sync from it work")
    if about.f_files and not about.f_favail:
        return Check("room", "problem", "no file can be added: the file system has no free inode", "remove files there")
    if free < _LEAST_FREE:
        return Check("room", "problem", text, "free some space, or collect what nothing needs with `flightbag gc`")
    return Check("room", "ok", text)
