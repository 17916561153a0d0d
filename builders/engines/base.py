"""What an engine backend offers, and the values that pass between it and the orchestrator.

The source of a backbone is one ONNX file and the external-data files that it names. `hash_model` gives its
digest for a plan; `snapshot_model` copies it into a private folder while hashing, so that what was hashed is
what is compiled, whatever happens to the original meanwhile. Both give the same digest for the same bytes.

Knows no backend and no store. The digest says nothing of paths: a model moved elsewhere is the same model.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from blake3 import blake3

from builders.extras import import_extra
from store.errors import Invalid, Unavailable
from store.format.cbor import Value
from store.format.ids import derive

# Protobuf cannot hold more in one message.
MAX_ONNX_BYTES = 2**31 - 1
MODEL_CONTEXT = "flightbag 2026 model source v1"
_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class ModelSource:
    """An ONNX model with the digest of its bytes.

    `name` is the file name for messages; `path` the ONNX file; `digest` 32 bytes over the ONNX and each
    external-data file; `size` the bytes of all of them; `external` the locations of the latter, ascending.
    """

    name: str
    path: Path
    digest: bytes
    size: int
    external: tuple[str, ...]


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
class EngineSpec:
    """What is to be compiled. `backbone` is a name for people; `precision` is "fp32", "fp16" or "int8"."""

    backbone: str
    model: ModelSource
    precision: str
    inputs: tuple[InputRange, ...]

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
class CheckFigures:
    """How the outputs of an engine compare to the reference's, on the same inputs.

    `max_abs_error` and `reference_max` (the reference's greatest magnitude) are of the output that is worst
    by their quotient; `cosine` is the least over all outputs and their rows (the first dimension). `batches`
    are the first dimensions of the first input that were tried. `faults` says in words what cannot be a
    number: a missing output, another shape or dtype, a value that is not finite.
    """

    max_abs_error: float
    reference_max: float
    cosine: float
    batches: tuple[int, ...]
    faults: tuple[str, ...] = ()

    @property
    def relative_error(self) -> float:
        """`max_abs_error / reference_max`; 0 where both are 0."""
        if self.reference_max > 0:
            return self.max_abs_error / self.reference_max
        return 0.0 if self.max_abs_error == 0 else float("inf")


@dataclass(frozen=True, slots=True)
class CompiledEngine:
    """A compiled engine that passed its check: the file, what it takes and gives, and how it was made.

    `path` lies in the work folder that the caller gave, and is the caller's to move or delete; `seconds` is
    wall-clock time; `log_tail` the end of the compiler's output.
    """

    path: Path
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    check: CheckFigures
    seconds: float
    log_tail: str


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

        Raises Invalid for feeds that the engine does not take.
        """


class EngineBackend(Protocol):
    """One way to compile and run backbones.

    Equal `build_key_fields` mean engines that may stand in for one another. `compile` takes the model as the
    digest in the spec says or not at all, returns only an engine that passed the check against the
    reference, and writes nowhere but in `workdir`; whatever ends it early, no process of it goes on.
    """

    @property
    def name(self) -> str:
        """As in the mission file's `backend`."""

    @property
    def version(self) -> str:
        """The full version of the library that compiles."""

    @property
    def suffix(self) -> str:
        """How the name of an engine in the store ends, such as ".onnx"."""

    def describe_host(self) -> str:
        """The host class of this machine, as far as this backend can tell."""

    def engine_host(self, target: str) -> str:
        """The host class that an engine for the host class `target` needs."""

    def build_key_fields(self, spec: EngineSpec) -> Mapping[str, Value]:
        """Everything that determines the meaning of the engine: no path, time, machine name or thread count."""

    def compile(self, spec: EngineSpec, workdir: Path) -> CompiledEngine:
        """Compiles and checks.

        Raises Invalid for a model that cannot be compiled as the spec says, Refused for an engine that does
        not compute what the model does, Unavailable where it could not be done (killed, out of memory).
        """

    def load(self, engine: bytes) -> EngineSession:
        """A session over the bytes of an engine that `compile` made. Raises Invalid where they are none."""


def hash_model(path: Path) -> ModelSource:
    """The model at `path` with its digest; reads every byte, copies none. Raises as `snapshot_model`."""
    return _take(path, None)


def snapshot_model(path: Path, into: Path) -> ModelSource:
    """Copies the model, under its name, and its external data into the folder `into`, hashing what is written.

    `into` is made where it is absent; a file that is there already is not written over (Unavailable). Raises
    Invalid where the model or a file that it names is absent, is no regular file, cannot be parsed, is larger
    than 2 GiB (the ONNX), or lies outside the model's folder (by `..`, an absolute location, or a link).
    Raises Unavailable where something cannot be read or written.
    """
    try:
        into.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{into} cannot be made: {error.strerror}", path=str(into)) from error
    return _take(path, into)


def onnx_bytes(model: ModelSource) -> bytes:
    """The model as one ONNX file with every weight inside, the same bytes wherever `model.path` lies.

    Raises Invalid where that would be larger than 2 GiB, or a file says less than the model promises.
    """
    if model.size > MAX_ONNX_BYTES:
        raise too_large(model.name)
    if not model.external:
        return model.path.read_bytes()
    import_extra("onnx")
    from onnx.external_data_helper import load_external_data_for_model

    parsed = parse_onnx(model.path.read_bytes(), model.name)
    try:
        load_external_data_for_model(parsed, str(model.path.parent))
        data: bytes = parsed.SerializeToString(deterministic=True)
    except (ValueError, OSError) as error:
        raise Invalid(
            f"the external data of {model.name} cannot be taken in: {error}",
            remedy="export it again",
            model=model.name,
        ) from error
    return data


def external_locations(model: Any) -> tuple[str, ...]:
    """Where the tensors of a parsed model (wherever they are in it) keep their data, as written; each once."""
    from onnx import TensorProto  # with the build extra only

    found: dict[str, None] = {}
    left = [model]
    while left:
        message = left.pop()
        if isinstance(message, TensorProto):
            if message.data_location == TensorProto.EXTERNAL:
                found |= {entry.value: None for entry in message.external_data if entry.key == "location"}
            continue
        for _, value in message.ListFields():
            # A repeated field is a sequence; only messages have fields of their own.
            for item in value if hasattr(value, "__getitem__") else (value,):
                if not hasattr(item, "ListFields"):
                    break
                left.append(item)
    return tuple(found)


def parse_onnx(data: bytes, name: str) -> Any:
    """The ModelProto, external data not loaded. Raises Invalid where `data` holds none."""
    onnx = import_extra("onnx")
    try:
        model = onnx.load_model_from_string(data)
    except import_extra("google.protobuf.message").DecodeError as error:
        raise _no_onnx(name) from error
    if not model.HasField("graph"):
        raise _no_onnx(name)
    return model


def _no_onnx(name: str) -> Invalid:
    return Invalid(f"{name} is no ONNX model", remedy="export the backbone to ONNX again", model=name)


def _take(path: Path, into: Path | None) -> ModelSource:
    """Hashes the model, and copies it where `into` is given."""
    name = path.name
    data = bytearray()
    copy = into / name if into else None
    digest, size = _pass(path, name, copy, data)
    # Every external file is named under this key. Parsing is slow, and most plans need none.
    locations = external_locations(parse_onnx(bytes(data), name)) if into or b"location" in data else ()
    del data
    folder = os.path.realpath(path.parent)
    rows = [digest]
    external = sorted({_normal(location, name) for location in locations})
    for location in external:
        original = os.path.realpath(os.path.join(folder, location))
        if os.path.commonpath([folder, original]) != folder:
            raise _outside(name, location)
        copied = into / location if into else None
        digest, count = _pass(Path(original), f"external data {location!r} of {name}", copied)
        size += count
        text = location.encode()
        rows += [len(text).to_bytes(8, "big"), text, digest]
    return ModelSource(name, copy or path, derive(MODEL_CONTEXT, b"".join(rows)), size, tuple(external))


def _normal(location: str, model: str) -> str:
    """A location in its one form, `a/b`. Raises Invalid where it may not be read."""
    parts = PurePosixPath(location).parts
    if not parts or ".." in parts or location[:1] == "/" or "\\" in location or "\0" in location:
        raise _outside(model, location)
    if parts == (model,):
        raise Invalid(f"{model} names itself as its external data", remedy="export it again", model=model)
    return "/".join(parts)


def _outside(model: str, location: str) -> Invalid:
    return Invalid(
        f"{model} names external data {location!r}, which is outside the model's folder",
        remedy="put the file itself, no link to another folder, beside the model and export it again",
        model=model,
        location=location,
    )


def _pass(path: Path, what: str, copy: Path | None, keep: bytearray | None = None) -> tuple[bytes, int]:
    """(BLAKE3, size) of the file; each piece that is hashed is the one that is written and kept."""
    hasher, size = blake3(), 0
    with contextlib.ExitStack() as files:
        source = files.enter_context(_open(path, what))
        if keep is not None and os.fstat(source.fileno()).st_size > MAX_ONNX_BYTES:
            raise too_large(what)
        try:
            target = files.enter_context(_create(copy, what)) if copy else None
            while piece := source.read(_PIECE):
                size += len(piece)
                hasher.update(piece)
                if target:
                    _write(target, piece, what)
                if keep is not None:
                    keep += piece
                    if size > MAX_ONNX_BYTES:  # it has grown
                        raise too_large(what)
        except OSError as error:
            raise Unavailable(f"{what} cannot be read: {error.strerror}", path=str(path)) from error
    return hasher.digest(), size


def _write(target: BinaryIO, piece: bytes, what: str) -> None:
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[target.write(rest) :]
    except OSError as error:
        raise _unwritten(Path(target.name), what, error) from error


def _unwritten(path: Path, what: str, error: OSError) -> Unavailable:
    return Unavailable(
        f"the private copy of {what} cannot be written to {path}: {error.strerror}",
        remedy="free some space there, or name another folder for temporary files in TMPDIR",
        path=str(path),
    )


def too_large(what: str) -> Invalid:
    """The error for a model that does not fit one ONNX file."""
    return Invalid(
        f"{what} is larger than the 2 GiB of one ONNX file",
        remedy="use a smaller backbone: engines with weights in a file of their own are not offered",
        model=what,
    )


def _open(path: Path, what: str) -> BinaryIO:
    """The regular file at `path`, unbuffered; a pipe is refused instead of waited for."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Invalid(f"{what}: there is no {path}", path=str(path)) from error
    except OSError as error:
        raise Unavailable(f"{what}: {path} cannot be read: {error.strerror}", path=str(path)) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Invalid(f"{what}: {path} is no regular file", path=str(path))
    return open(fd, "rb", buffering=0)


def _create(path: Path, what: str) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path.open("xb", buffering=0)
    except OSError as error:
        raise _unwritten(path, what, error) from error
