"""What a node of a cluster can build, and how Ray learns it: custom resources named after its host class. No Ray here.

A node declares, when it starts, one resource for each component of its class and for each coarser one: a
`cpu-x86_64-avx2` is a `cpu-x86_64` and a `cpu` as well (FORMAT 4.5). A unit asks for a trifle of each component that it
needs, so that Ray starts it only where all of them are declared. The unit itself checks the machine that it runs on:
what a node declares, somebody typed.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from builders.artifacts.executor import Needs
from builders.engines.backends import BACKENDS, backend, runs_nothing, this_host
from builders.engines.onnxruntime import cpu_host
from builders.engines.providers import providers
from store.errors import FlightbagError
from store.format.cbor import Value, decode, encode
from store.format.host import class_of, objection

if TYPE_CHECKING:
    from typing_extensions import Self

PREFIX = "flightbag:"
# Of a resource of which a node has 1: any number of units share it.
TRIFLE = 0.0001
LIMIT = 16 * 2**10
# ONNX Runtime's providers that run on a GPU which Ray hands out, one to a unit.
GPU_PROVIDERS = frozenset({"cuda", "migraphx", "rocm", "tensorrt"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What a machine can build: its host class; the execution providers of its ONNX Runtime; its backends, by name:
    the version, or why it cannot be used; its CPUs; its versions of flightbag and Python."""

    host: str
    providers: tuple[str, ...]
    backends: Mapping[str, str]
    cpus: int
    flightbag: str
    python: str

    @classmethod
    def of_this_machine(cls) -> Self:
        backends = {}
        for name in BACKENDS:
            try:
                backends[name] = backend(name).version
                backend(name).describe_host()
            except FlightbagError as error:
                backends.pop(name, None)
                if not runs_nothing(error):
                    backends[name] = f"not usable: {error.message}"[:200]
        try:
            host = this_host(BACKENDS)
        except FlightbagError:
            host = ""
        return cls(
            "+".join(sorted({*cpu_host().split("+"), *filter(None, host.split("+"))})),
            tuple(providers()),
            backends,
            os.cpu_count() or 1,
            metadata.version("flightbag"),
            platform.python_version(),
        )

    def render(self) -> bytes:
        value: dict[str, Value] = {
            "host": self.host,
            "providers": list(self.providers),
            "backends": dict(self.backends),
            "cpus": self.cpus,
            "flightbag": self.flightbag,
            "python": self.python,
        }
        return encode(value)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return what `render` wrote. Raise Corrupt, AttributeError, KeyError, TypeError or ValueError for what it did
        not."""
        value = decode(data, limit=LIMIT, what="what a node can build")
        if objection(value["host"]) or type(value["cpus"]) is not int:
            raise ValueError("a node without host class or CPUs")
        return cls(
            value["host"],
            tuple(map(_word, value["providers"])),
            {_word(name): _word(text) for name, text in value["backends"].items()},
            value["cpus"],
            _word(value["flightbag"]),
            _word(value["python"]),
        )

    @property
    def resources(self) -> dict[str, float]:
        """The resources to start this node with."""
        names = [name for part in self.host.split("+") for name in _coarser(part)]
        return dict.fromkeys(sorted({*(_host(one) for one in names), *(_provider(one) for one in self.providers)}), 1.0)


def demands(needs: Needs) -> dict[str, float]:
    """Return the resources that a unit asks for. A least version is not among them: the unit judges it."""
    components = class_of(needs.host).split("+") if needs.host else []
    names = [_host(part) for part in components if part] + ([_provider(needs.provider)] if needs.provider else [])
    return dict.fromkeys(names, TRIFLE)


def lacking(have: Iterable[str], wanted: Iterable[str]) -> Sequence[str]:
    """Return what a node with these resources lacks of the wanted ones, for people."""
    return [name.removeprefix(PREFIX).partition(":")[2] for name in sorted({*wanted} - {*have})]


def _coarser(component: str) -> list[str]:
    words = component.split("-")
    return ["-".join(words[: count + 1]) for count in range(len(words))]


def _host(component: str) -> str:
    return f"{PREFIX}host:{component}"


def _provider(name: str) -> str:
    return f"{PREFIX}provider:{name}"


def _word(text: Any) -> str:
    if type(text) is not str or not text.isprintable():
        raise TypeError("expected a text")
    return text[:300]
