"""What an engine backend offers, and the values that pass between it, the process that compiles, and the orchestrator.

Knows no backend, no store and no process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from builders.engines.model import ModelSource
from store.errors import Invalid
from store.format.cbor import Value

# Told as a compilation goes on: what is being done, units done by now, units in all (0 where not known).
PhaseProgress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class InputRange:
    """One input of a backbone: dimensions, at most one of them a symbol.

    `min`, `opt` and `max` are what the symbol stands for, min <= opt <= max; None where every dimension is
    fixed. Raises Invalid for anything else.
    """

    name: str
    shape: tuple[int | str, ...]
    min: int | None = None
    opt: int | None = None
    max: int | None = None

    def __post_init__(self) -> None:
        symbols = [dim for dim in self.shape if isinstance(dim, str)]
        sizes = [dim for dim in self.shape if not isinstance(dim, str)]
        given = [size for size in (self.min, self.opt, self.max) if size is not None]
        if (
            len(symbols) > 1
            or len(given) != 3 * len(symbols)
            or given != sorted(given)
            or min([*sizes, *given], default=1) < 1
        ):
            raise Invalid(
                f"the input {self.name} has shape {list(self.shape)} with min, opt, max {given}",
                remedy="give positive sizes, at most one symbol, and min <= opt <= max exactly for a symbol",
                input=self.name,
            )

    @property
    def range(self) -> tuple[int, int, int] | None:
        """(min, opt, max) of the symbol, None for a fixed shape."""
        if self.min is None or self.opt is None or self.max is None:
            return None
        return self.min, self.opt, self.max

    def at(self, size: int | None) -> tuple[int, ...]:
        """The shape with `size` in the symbol's place."""
        dims = [size if isinstance(dim, str) else dim for dim in self.shape]
        return tuple(dim for dim in dims if dim is not None)


@dataclass(frozen=True, slots=True)
class Plugin:
    """A library of operators that the engine needs: `digest` is the BLAKE3 of its bytes."""

    path: Path
    digest: bytes


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What is to be compiled.

    `backbone` is a name for people; `precision` is "fp32", "fp16" or "int8"; `salt` is text that is in the key and
    nowhere else. `options` are the backend's own, each by its name and with its default where the mission file says
    nothing. `quantised` is the build key of the quantised network, for int8.
    """

    backbone: str
    model: ModelSource
    precision: str
    inputs: tuple[InputRange, ...]
    salt: str = ""
    options: Mapping[str, Value] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()
    quantised: bytes = b""

    def cases(self) -> tuple[Mapping[str, tuple[int, ...]], ...]:
        """Input name -> shape, with every symbol at its min, its opt and its max; each case once."""
        cases = [{item.name: item.at(item.range[i] if item.range else None) for item in self.inputs} for i in range(3)]
        return tuple(case for i, case in enumerate(cases) if case not in cases[:i])


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output: dtype as NumPy names it; a dimension is a size, or the name of what varies ("?")."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """What a backend is given to compile, in a process and a folder of its own.

    `network` is the ONNX to compile, a private copy with its external data beside it: the source, or for int8 the
    quantised network. `host` is the class that the engine is to need. Everything is written in `folder`. `cache` is
    the user's cache directory, which may not exist yet. `cancelled` says whether to stop; it may be asked often.
    """

    spec: EngineSpec
    network: Path
    host: str
    folder: Path
    cache: Path
    progress: PhaseProgress
    cancelled: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Made:
    """What a backend made of a job: the engine's file, its weights where they are in a file of their own, the name
    and version of each tool that had a part, and what the backend can tell of the engine's inside, as JSON."""

    model: Path
    weights: Path | None
    tools: Mapping[str, str]
    inspector: Any = None


class EngineSession(Protocol):
    """An engine ready to run."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What `run` takes."""

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What `run` gives."""

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Output name -> array, for input name -> array of the dtype and shape that `inputs` says.

        Raises Invalid for feeds that the engine does not take, Unavailable where memory ran out.
        """


class EngineBackend(Protocol):
    """One way to compile and run backbones. Equal key fields mean engines that may stand in for one another.

    Host classes are those of FORMAT 4.5. `make` runs in a process of its own, which may be killed at any moment.
    """

    @property
    def name(self) -> str:
        """As in the mission file's `backend`."""

    @property
    def version(self) -> str:
        """The full version of the library that compiles. Raises Unavailable where it is not installed."""

    @property
    def suffix(self) -> str:
        """How the name of an engine in the store ends, such as ".onnx"."""

    def describe_host(self) -> str:
        """All that this backend can tell of this machine, as a host class.

        Raises Unavailable where it cannot tell.
        """

    def target(self, spec: EngineSpec) -> str:
        """What `host = "auto"` means for this engine: as much of this machine's class as it depends on, and what an
        aircraft of the same make says of itself."""

    def engine_host(self, spec: EngineSpec, target: str) -> str:
        """The host class that the engine needs, built here for the host class `target`.

        Raises Invalid where this machine cannot build for that target.
        """

    def key_fields(self, spec: EngineSpec, host: str) -> Mapping[str, Value]:
        """All that determines what the engine means and is this backend's to know, by name: versions, options, and
        the host class `host` that it needs. The model, inputs, precision and salt are not, they are every backend's."""

    def make(self, job: Job) -> Made:
        """Compiles. Raises FlightbagError with a `kind` of `failures` where it is known what is wrong."""

    def load(self, engine: bytes | memoryview, host: str, weights: Path | None = None) -> EngineSession:
        """A session over the bytes of an engine that needs `host`, ready for any number of runs.

        `weights` is a private file with its weights, where it has such; it may be removed when this returns. Raises
        Invalid where these are no engine, Refused where this machine is not what the engine needs.
        """
