"""Host classes and needs (FORMAT.md 4.5): what an aircraft has, and what an engine or an index needs of it.

A class is one or more components joined by `+`, strictly ascending: `cpu-x86_64`, `cpu-aarch64+ort-1.23.2`. Each
component is of a family of a closed list, at most one of each family. A component narrows from left to right at
hyphens: every `cpu-x86_64-avx2` is a `cpu-x86_64`, and every `cpu-x86_64` is a `cpu`. Classes know no order:
`ort-1.23.2` does not meet `ort-1.22.0`.

A need is a class that may also have least versions of libraries: `cpu+ort>=1.22`. Versions are compared number by
number. A class that does not name the version of a library leaves the least version unjudged: `Fit` lists it. This
module detects no hardware.

Laws: `meets` is reflexive and transitive; `fit(a, b).holds` exactly where `meets(a, b)`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

from store.errors import Invalid
from store.values import dataclass

MAX_CLASS = 255
FAMILY_NAMES = "cpu, ort, faiss, linux, sm, ampere-plus, cuda, driver, l4t, trt and trtrtx"
# A first, coarse look at a text that is read: the characters and the length. `objection` judges the rest.
NEED = re.compile(rf"[a-z0-9._+>=-]{{1,{MAX_CLASS}}}")

# Architecture -> the instruction sets for which ONNX Runtime has kernels of their own, the widest first.
CPU_LEVELS: Mapping[str, tuple[str, ...]] = {
    "x86_64": ("avx512", "avx512f", "avx2", "avx", "sse2"),
    "aarch64": ("neonfp16", "neon"),
}
# Architecture -> the features by which its kernels choose within an instruction set, in the order of a class. They are
# one word with it, so that what was made without a feature is not met by a CPU with it: that would run other kernels.
CPU_FEATURES: Mapping[str, tuple[str, ...]] = {
    "x86_64": ("avxvnni", "avx512vnni", "avxvnniint8", "amx"),
    "aarch64": ("dot", "i8mm", "bf16", "sve", "sme", "sme2"),
}
# Other names of the architectures, as systems and people give them.
_ARCHITECTURES: Mapping[str, str] = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
# Library -> its name for people.
LIBRARIES: Mapping[str, str] = {"faiss": "FAISS", "ort": "ONNX Runtime", "trt": "TensorRT"}

_NUMBER = r"(?:0|[1-9][0-9]{0,8})"
_VERSION = rf"{_NUMBER}(?:\.{_NUMBER}){{0,3}}"
_ARCHITECTURE = f"(?:{'|'.join(CPU_LEVELS)})"


def _cpu(architecture: str) -> str:
    features = "".join(f"(?:_{feature})?" for feature in CPU_FEATURES[architecture])
    return f"{architecture}(?:-(?:{'|'.join(CPU_LEVELS[architecture])}){features})?"


# Family -> the form of its components, compiled where a class needs it: every takeoff check imports this module.
FAMILIES: Mapping[str, str] = {
    "ampere-plus": "ampere-plus",
    "cpu": f"cpu(?:-(?:{'|'.join(map(_cpu, CPU_LEVELS))}))?",
    "cuda": rf"cuda{_NUMBER}\.{_NUMBER}",
    "driver": f"driver-{_NUMBER}",
    "faiss": f"faiss-{_VERSION}",
    "l4t": f"l4t-{_VERSION}",
    "linux": f"linux-{_ARCHITECTURE}",
    "ort": f"ort-{_VERSION}",
    "sm": r"sm[1-9][0-9]{1,2}(?:-[a-z0-9_]{1,40}(?:-[0-9]{1,5}sm(?:-[0-9]{1,5}gb)?)?)?",
    "trt": rf"trt({_NUMBER})(?:-\1(?:\.{_NUMBER}){{3}})?",
    "trtrtx": rf"trtrtx-{_NUMBER}(?:\.{_NUMBER}){{3}}",
}
_LEAST = re.compile(f"({'|'.join(LIBRARIES)})>=({_VERSION})")
# One of each form, to find the nearest to what somebody wrote.
_EXAMPLES = (
    "cpu",
    *(f"cpu-{name}" for name in CPU_LEVELS),
    *(f"cpu-{name}-{level}" for name, levels in CPU_LEVELS.items() for level in levels),
    *(f"linux-{name}" for name in CPU_LEVELS),
    *("ampere-plus", "cuda12.6", "driver-550", "faiss-1.15.1", "l4t-36.4.3", "ort-1.23.2", "sm87", "trt10"),
    *("trt10-10.3.0.30", "trtrtx-1.7.1.116"),
)
CLASS_REMEDY = (
    f"name components of the families {FAMILY_NAMES}, in ascending order; on the aircraft's computer "
    "`flightbag engines host` prints its class"
)


def architecture(machine: str) -> str:
    """Return the one name of an architecture: x86_64, aarch64, or the lower-case name that the machine reports."""
    machine = machine.lower()
    return _ARCHITECTURES.get(machine, machine)


def is_host_class(text: str) -> bool:
    """Whether `text` is a host class in its only form."""
    return not objection(text)


def objection(text: str, *, need: bool = False) -> str:
    """Return what is wrong with `text` as a host class, or with `need` as a need; "" for a right one."""
    if not NEED.fullmatch(text):
        return f"{text[:80]!r} is not a host class: expected 1 to {MAX_CLASS} characters of a-z 0-9 . _ - and +"
    components = text.split("+")
    families: dict[str, str] = {}
    for component in components:
        if (least := _LEAST.fullmatch(component)) is not None:
            if not need:
                return f"{component} is a least version; a host has one version, such as {least[1]}-{least[2]}"
            family = f"{least[1]}>="
        elif (of_class := _family(component)) is not None:
            family = of_class
        else:
            nearest = f"; the nearest is {near}" if (near := _nearest(component)) else ""
            return f"{component!r} is not a component of a host class{nearest}"
        if family in families:
            return f"{text} names {family} twice, as {families[family]} and as {component}"
        families[family] = component
    for a, b in itertools.pairwise(components):
        if a >= b:
            return f"the components of the host class {text} do not ascend: {b} stands after {a}"
    return ""


def require_host_class(text: str) -> None:
    """Raise Invalid, with the families as the remedy, unless `text` is a host class."""
    if wrong := objection(text):
        raise Invalid(wrong, remedy=CLASS_REMEDY)


@dataclass(frozen=True, slots=True)
class Fit:
    """How a host fits a need. `lacking` are the components of the need that the host does not meet. `unjudged` are the
    least versions in it of libraries whose version the host's class does not name."""

    lacking: tuple[str, ...]
    unjudged: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the host meets the whole need for sure."""
        return not self.lacking and not self.unjudged


def fit(have: str, need: str) -> Fit:
    """Return how a host of class `have` fits the need `need`, component by component."""
    components = have.split("+")
    lacking, unjudged = [], []
    for part in need.split("+"):
        if any(one == part or one.startswith(part + "-") for one in components):
            continue
        least = _LEAST.fullmatch(part)
        judged = _at_least(components, least[1], least[2]) if least is not None else False
        if judged is None:
            unjudged.append(part)
        elif not judged:
            lacking.append(part)
    return Fit(tuple(lacking), tuple(unjudged))


def meets(have: str, need: str) -> bool:
    """Whether a host of class `have` meets the need `need` for sure: nothing is lacking, and nothing unjudged."""
    return fit(have, need).holds


def contradicted(have: str, other: str) -> tuple[str, ...]:
    """Return the components of the class `other` that a machine of class `have` surely has not: those of families that
    `have` names."""
    families = {_family(part) for part in have.split("+")}
    return tuple(part for part in fit(have, other).lacking if _family(part) in families)


def class_of(need: str) -> str:
    """Return a need without its least versions; "" for one that has nothing else."""
    return "+".join(part for part in need.split("+") if _LEAST.fullmatch(part) is None)


def with_least(need: str, library: str, version: str) -> str:
    """Return a need, "" for none, with the least version of a library added, or in the place of the one before."""
    others = (part for part in need.split("+") if part and not part.startswith(f"{library}>="))
    return "+".join(sorted([*others, f"{library}>={version}"]))


def at_least(a: str, b: str) -> bool:
    """Whether the least version `a` is `b` or newer, both of one library."""
    return _numbers(a.partition(">=")[2]) >= _numbers(b.partition(">=")[2])


def unjudged_text(subject: str, need: str, have: str) -> str:
    """Return why a least version of `Fit.unjudged` of what `subject` names was not judged against the class `have`."""
    library, _, version = need.partition(">=")
    return f"{LIBRARIES[library]}: {subject} needs at least {version}, and the host class {have} names no version"


def _at_least(components: list[str], library: str, least: str) -> bool | None:
    """Whether the library has at least this version by the components of a class; None where they do not say."""
    wanted = _numbers(least)
    for component in components:
        name, _, version = component.partition("-")
        if name == library and version:
            return _numbers(version) >= wanted
        if library == "trt" and _family(component) == "trt":
            if version:
                return _numbers(version) >= wanted
            major = _numbers(name.removeprefix("trt"))  # any version of this major
            return None if major < wanted and major == wanted[:1] else major >= wanted
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a version without the zeros at the end: 1.22 and 1.22.0 are one version."""
    numbers = [int(number) for number in version.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _family(component: str) -> str | None:
    return next((family for family, form in FAMILIES.items() if re.fullmatch(form, component)), None)


def _nearest(component: str) -> str:
    """Return the component that somebody may have meant, "" if none is near."""
    from difflib import get_close_matches  # takes milliseconds, and only a mistake needs it

    parts = component.replace("x86-64", "x86_64").split("-")
    name = "-".join(map(architecture, parts))
    if _family(name) is not None:
        return name
    return next(iter(get_close_matches(name, _EXAMPLES, 1)), "")
