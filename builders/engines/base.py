"""What an engine backend offers, and the values that pass between it, the process that compiles, and the orchestrator.

Knows no particular backend, no store and no process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from builders.engines.graph import FixedInput
from builders.engines.model import ModelSource
from store.errors import FlightbagError, Invalid
from store.format.cbor import Value
from store.format.host import fit

# Called during a compilation with the name of the phase, the units finished in it, and the units in all (0 if unknown).
PhaseProgress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class InputRange:
    """One input of a backbone: its dimensions, at most one of them a symbol.

    `min`, `opt` and `max` are the sizes that the symbol stands for, min <= opt <= max; None if every dimension is
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
                remedy="give positive sizes and at most one symbol, and min <= opt <= max if and only if there is one",
                input=self.name,
            )

    @property
    def range(self) -> tuple[int, int, int] | None:
        """(min, opt, max) of the symbol, None for a fixed shape."""
        if self.min is None or self.opt is None or self.max is None:
            return None
        return self.min, self.opt, self.max

    def at(self, size: int | None) -> tuple[int, ...]:
        """Return the shape with `size` in place of the symbol."""
        dims = [size if isinstance(dim, str) else dim for dim in self.shape]
        return tuple(dim for dim in dims if dim is not None)


@dataclass(frozen=True, slots=True)
class Plugin:
    """A library of operators that the engine needs: `digest` is the BLAKE3 of its bytes."""

    path: Path
    digest: bytes


@dataclass(frozen=True, slots=True)
class Reference:
    """What the author's framework gave for one input: an .npz file, and the BLAKE3 of its bytes."""

    path: Path
    digest: bytes


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What is to be compiled.

    `backbone` is a name for people; `precision` is "fp32", "fp16" or "int8"; `salt` is text that is in the build key
    and nowhere else. `options` are the backend's own, each by its name, with the default where the mission file names
    none. `quantised` is the build key of the quantised network, for int8. `inputs` are those that are fed; the model's
    digest holds the values of those that are fixed, `fixed`. `compare` names the outputs by which the engine is
    checked, all where it is empty; `reference` is the file of inputs and outputs that the model must compute. Both are
    a check, and in no key."""

    backbone: str
    model: ModelSource
    precision: str
    inputs: tuple[InputRange, ...]
    salt: str = ""
    options: Mapping[str, Value] = field(default_factory=dict)
    plugins: tuple[Plugin, ...] = ()
    quantised: bytes = b""
    fixed: tuple[FixedInput, ...] = ()
    compare: tuple[str, ...] = ()
    reference: Reference | None = None

    def cases(self) -> tuple[Mapping[str, tuple[int, ...]], ...]:
        """Return maps from input name to shape: every symbol at its min, at its opt and at its max; each case once."""
        cases = [{item.name: item.at(item.range[i] if item.range else None) for item in self.inputs} for i in range(3)]
        return tuple(case for i, case in enumerate(cases) if case not in cases[:i])


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output: its dtype as NumPy names it; a dimension is a size, or the name of an open one ("?")."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class CompileJob:
    """What a backend is given to compile, in a process and a folder of its own.

    `network` is the ONNX to compile, a private copy with its external data beside it: the source, cast to float16 for
    fp16, or for int8 the quantised network. `host` is the need that the backend's `engine_host` gave. The backend
    writes only in `folder` and in `cache`, the user's cache directory, which may not exist yet. `progress` is called at
    each step. `cancelled` returns whether to stop; the backend may call it often.
    """

    spec: EngineSpec
    network: Path
    host: str
    folder: Path
    cache: Path
    progress: PhaseProgress
    cancelled: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class BackendResult:
    """What a backend made of a job: `model`, the engine's file; `weights`, the file of its weights if they are apart;
    `need`, what the engine needs of a host (FORMAT 4.5): the job's host class, and the least version of the library if
    the engine has one; `tools`, the name and version of each tool that took part; `inspector`, the backend's
    description of the inside of the engine, as JSON."""

    model: Path
    weights: Path | None
    need: str
    tools: Mapping[str, str]
    inspector: Any = None


def require_target(subject: str, need: str, target: str, reason: str) -> None:
    """Raise Invalid if the host class `target` surely lacks something of the need of `subject`. A least version that
    the target does not judge is judged aboard. `reason` says where the need comes from, "" where that is not known."""
    if lacking := fit(target, need).lacking:
        raise Invalid(
            f"{subject} needs {' and '.join(lacking)}, the target is {target}{'; ' if reason else ''}{reason}",
            remedy="install a newer library on the aircraft, and name it in target.host; for ONNX Runtime, or export "
            "the network with a lower opset and IR version",
            target=target,
            needed=need,
        )


def not_here(backend: EngineBackend, need: str) -> str:
    """Return why this machine does not run an engine with this need, "" if it does. The machine may be of another
    class, lack the library, or not show what it is: that is the usual case where missions are planned, and no error."""
    try:
        host = backend.describe_host()
    except FlightbagError as error:
        return error.message
    return f"it needs {need}, this machine is {host}" if fit(host, need).lacking else ""


class EngineSession(Protocol):
    """An engine ready to run."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The arrays that `run` takes."""

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The arrays that `run` returns."""

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Return output name -> array, for input name -> array of the dtype and shape that `inputs` lists.

        Raise Invalid for feeds that the engine does not take, Unavailable if memory runs out.
        """


class EngineBackend(Protocol):
    """One way to compile and run backbones. Equal key fields mean engines that may stand in for one another.

    Host classes are those of FORMAT 4.5. `make` runs in a process of its own, which may be killed at any moment.
    """

    @property
    def name(self) -> str:
        """The name, as in `backend` of the mission file."""

    @property
    def version(self) -> str:
        """The full version of the library that compiles. Raises Unavailable if it is not installed."""

    @property
    def suffix(self) -> str:
        """The end of the name of an engine in the store, such as ".onnx"."""

    def describe_host(self) -> str:
        """Return all that this backend knows of this machine, as a host class.

        Raise Unavailable if the machine does not show it.
        """

    def target(self, spec: EngineSpec) -> str:
        """Return the host class that `host = "auto"` means for this engine: the part of this machine's class that the
        engine depends on, which an aircraft of the same make has too."""

    def engine_host(self, spec: EngineSpec, target: str) -> str:
        """Return the need of the engine (FORMAT 4.5) for the host class `target`, as far as it is known before the
        engine exists: `make` may add the least version of the library.

        The text of the target decides, and not this machine: every machine names the same need. Raise Invalid if the
        target does not name what the engine depends on, or if no engine of this model could run on it.
        """

    def key_fields(self, spec: EngineSpec, need: str) -> Mapping[str, Value]:
        """Return by name what determines the engine's meaning and is the backend's to know: its name, and the `version`
        of the library that compiles, which is that of the need where an engine is tied to one. The model, inputs,
        precision, options, plug-ins, need and salt belong to every backend: `engine_recipe` adds them."""

    def makes(self, need: str) -> str:
        """Return why this machine does not make an engine with this need, "" if it does. The machine may be of another
        class, or lack the library: that is the usual case where missions are planned, and no error."""

    def make(self, job: CompileJob) -> BackendResult:
        """Compile. Raise FlightbagError with a `kind` of `failures` where the cause is known."""

    def load(self, engine: bytes | memoryview, host: str, weights: Path | None = None) -> EngineSession:
        """Return a session over the bytes of an engine with the need `host`, ready for any number of runs.

        `weights` is a private file with the engine's weights if they are apart; the caller may remove it when this
        returns. Raise Invalid if the bytes are not an engine, Refused if this machine is not what the engine needs.
        """
