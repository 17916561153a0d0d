"""The source of a backbone: one ONNX file and the external-data files that it names, under one digest.

`hash_model` computes the digest for a plan. `snapshot_model` copies the model into a private folder while it hashes:
the bytes that are compiled are the bytes that were hashed, whatever happens to the original meanwhile. Both compute the
same digest for the same bytes. The digest does not depend on paths: a model moved elsewhere is the same model.

Of an external-data file only what the tensors of the model name is read: such a file may be shared with other models,
and a file with holes may have terabytes.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from blake3 import blake3

from builders.engines.failures import failure, words_of
from builders.engines.graph import (
    FixedInput,
    fields_of,
    fix_defaults,
    fix_inputs,
    has_half,
    require_operators,
    widen_half,
)
from builders.extras import import_extra
from builders.files import open_regular
from store.errors import FlightbagError, Invalid, Unavailable
from store.format.cbor import encode
from store.format.ids import derive

# The largest message that Protobuf can hold.
MAX_ONNX_BYTES = 2**31 - 1
# Of all external data of a model: more than fits into the memory of a machine that could run it.
MAX_EXTERNAL_BYTES = 1 << 36
MODEL_CONTEXT = "flightbag 2026 model source v1"
FIXED_CONTEXT = "flightbag 2026 fixed inputs v1"
_PIECE = 2**20
# Bytes of an element of the largest type that ONNX has.
_MAX_ITEM = 16


# Files that are taken for an ONNX model: at which byte they have which bytes, what they are, and the remedy.
_OTHER_FILES = (
    (
        0,
        b"version https://git-lfs.github.com/",
        ", but the pointer of Git LFS to one",
        "load the file itself with `git lfs pull`; a pointer is all that a clone without Git LFS has",
    ),
    (
        0,
        b"PK\x03\x04",
        ", but an archive or a checkpoint of PyTorch",
        "export the network with torch.onnx.export, or unpack it",
    ),
    (4, b"ORTM", ", but a model in the format ORT", "give the .onnx file that it was converted from"),
)


def _silent() -> None:
    """Progress for nobody."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """An ONNX model with the digest of its bytes.

    `name` is the file name for messages; `path` the ONNX file; `digest` 32 bytes over the ONNX, each external-data
    file, as far as tensors name it, and the values of fixed inputs; `size` the bytes of all files; `external` the
    locations of the latter, ascending."""

    name: str
    path: Path
    digest: bytes
    size: int
    external: tuple[str, ...]


def hash_model(path: Path, progress: Callable[[], None] = _silent, fixed: Sequence[FixedInput] = ()) -> ModelSource:
    """Return the model at `path`, with these values of fixed inputs, and its digest. Read every byte and copy none.
    Raise as `snapshot_model`.

    `progress` is called for each MiB.
    """
    return _hash(path, None, progress, fixed)


def snapshot_model(path: Path, into: Path, fixed: Sequence[FixedInput] = ()) -> ModelSource:
    """Copy the model, under its name, and its external data into the folder `into`; return the copy with the digest of
    the bytes that were written, and of the values of fixed inputs.

    An absent folder `into` is made; an existing file is never overwritten (Unavailable). Raise Invalid if the model or
    a file that it names is absent, is not a regular file, cannot be parsed, is larger than 2 GiB (the ONNX) or 64 GiB
    (its external data), or lies outside the model's folder (by `..`, an absolute location, or a link) and outside the
    folder that the model itself lies in behind its links, and if the model has an operator that cannot run
    (`graph.require_operators`). Raise Unavailable if a file cannot be read or written."""
    try:
        into.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise _unwritten(into, error) from error
    return _hash(path, into, _silent, fixed)


def onnx_bytes(model: ModelSource) -> bytes:
    """Return the model as one ONNX file with every weight inside: the same bytes wherever `model.path` lies.

    Raise Invalid if that file would be larger than 2 GiB, or if external data is shorter than the model declares.
    """
    if model.size > MAX_ONNX_BYTES:
        raise Invalid(
            f"{model.name} is larger than the 2 GiB of one ONNX file",
            remedy="use a smaller backbone",
            model=model.name,
        )
    if not model.external:
        return model.path.read_bytes()
    parsed = parse_onnx(model.path.read_bytes(), model.name)
    _load_external(parsed, model.path)
    data: bytes = parsed.SerializeToString(deterministic=True)
    return data


def _load_external(parsed: Any, path: Path) -> None:
    """Read the external data of the model at `path` into the parsed model."""
    import_extra("onnx")
    from onnx.external_data_helper import load_external_data_for_model

    try:
        load_external_data_for_model(parsed, str(path.parent))
    except (ValueError, OSError) as error:
        raise Invalid(
            f"the external data of {path.name} cannot be read into the model: {words_of(error)}",
            remedy="export the network again",
            model=path.name,
        ) from error


def session_source(path: Path) -> bytes | Path:
    """Return what a session over the private copy at `path` is opened from: the bytes of the whole model, or the path
    if they do not fit in one ONNX file."""
    model = hash_model(path)
    return onnx_bytes(model) if model.size <= MAX_ONNX_BYTES else path


def make_compilable(path: Path, fixed: Sequence[FixedInput] = ()) -> None:
    """Rewrite a private copy of a model in the form in which it is compiled and run: every input that has a default or
    a fixed value is a constant (`graph.fix_defaults`, `fix_inputs`), and half precision is float32
    (`graph.widen_half`).

    Raise Invalid for fixed inputs that the model does not have so, and for a model in half precision whose weights are
    larger than the 2 GiB of one ONNX file in float32.
    """
    model = parse_onnx(path.read_bytes(), path.name)
    changed = fix_defaults(model)
    if has_half(model):
        _load_external(model, path)
        widen_half(model)
        if _bytes_of(model) > MAX_ONNX_BYTES:
            raise Invalid(
                f"{path.name} has half precision, and in float32 it is larger than the 2 GiB of one ONNX file",
                remedy="export the network in float32, with its weights in a file of their own (external data)",
                model=path.name,
            )
        changed = True
    if fixed:
        fix_inputs(model, fixed, path.name)
        changed = True
    if changed:
        path.write_bytes(model.SerializeToString(deterministic=True))


def _bytes_of(model: Any) -> int:
    """Return the bytes of a parsed model; more than MAX_ONNX_BYTES where Protobuf cannot say how many."""
    try:
        return int(model.ByteSize())
    except import_extra("google.protobuf.message").EncodeError:
        return MAX_ONNX_BYTES + 1


def external_locations(model: Any, name: str) -> dict[str, int]:
    """Return the locations of the external data of a parsed model as the model writes them, each with the bytes from
    the start of the file to the end of the last tensor in it: those of every tensor, also in constants and in
    subgraphs. Raise Invalid for an offset or a length that is no number of bytes; `name` is the model's in messages."""
    from onnx import TensorProto  # with the build extra only

    locations: dict[str, int] = {}
    pending = [model]
    while pending:
        message = pending.pop()
        if isinstance(message, TensorProto):
            if message.data_location == TensorProto.EXTERNAL:
                facts = {entry.key: entry.value for entry in message.external_data}
                if "location" in facts:
                    length = facts.get("length") or str(_size(message))
                    end = sum(_bytes(text, message, name) for text in (facts.get("offset", "0"), length))
                    locations[facts["location"]] = max(end, locations.get(facts["location"], 0))
            continue
        for _, value in message.ListFields():
            # A repeated field is a sequence; only messages have fields of their own.
            for item in value if hasattr(value, "__getitem__") else (value,):
                if not hasattr(item, "ListFields"):
                    break
                pending.append(item)
    return locations


def _size(tensor: Any) -> int:
    """Return the bytes of a tensor by its shape and type; at least as many where several elements share a byte."""
    from onnx.helper import tensor_dtype_to_np_dtype

    try:
        item = tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError, ValueError):
        item = _MAX_ITEM
    return int(math.prod(tensor.dims) * item)


def _bytes(text: str, tensor: Any, name: str) -> int:
    """Return the number of bytes that a text names."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise failure(
            "invalid-model",
            f"{name}: the external data of the tensor {tensor.name!r} begin or end at {text[:40]!r}, not at a byte",
            model=name,
        )
    return int(text)


def parse_onnx(data: bytes, name: str) -> Any:
    """Return the ModelProto in `data`, external data not loaded. Raise Invalid if `data` is not an ONNX model."""
    onnx = import_extra("onnx")
    try:
        model = onnx.load_model_from_string(data)
    except import_extra("google.protobuf.message").DecodeError as error:
        raise _not_onnx(name, data) from error
    if not model.HasField("graph"):
        raise _not_onnx(name, data)
    return model


def _not_onnx(name: str, data: bytes) -> FlightbagError:
    remedy = (
        "give the .onnx file of an export; its weights in a file of their own (.data, .onnx_data) are found beside it"
    )
    others = ((what, right) for at, begin, what, right in _OTHER_FILES if data.startswith(begin, at))
    what, remedy = next(others, ("", remedy))
    return failure("invalid-model", f"{name} is not an ONNX model{what}", remedy=remedy, model=name)


def _hash(path: Path, into: Path | None, progress: Callable[[], None], fixed: Sequence[FixedInput]) -> ModelSource:
    """Hash the model; copy it if `into` is given."""
    name = path.name
    data = bytearray()
    copy = into / name if into else None
    digest, size = _hash_file(path, "model", copy, MAX_ONNX_BYTES, progress, data)
    # The key under which a model names every external file. Parsing is slow, and most plans do without it.
    parsed = parse_onnx(bytes(data), name) if into or b"location" in data else None
    if parsed is not None and into:
        require_operators(parsed, name)
    ends: dict[str, int] = {}
    for location, end in external_locations(parsed, name).items() if parsed is not None else ():
        location = _normal(location, name)
        ends[location] = max(end, ends.get(location, 0))
    if sum(ends.values()) > MAX_EXTERNAL_BYTES:
        raise Invalid(
            f"the tensors of {name} name {sum(ends.values())} bytes of external data, more than {MAX_EXTERNAL_BYTES}",
            remedy="use a smaller backbone, or export the network again",
            model=name,
        )
    del data, parsed
    folder = os.path.realpath(path.parent)
    # Behind links, as the cache of Hugging Face has them, a model and its data lie in another folder. ONNX Runtime
    # takes data there too (onnxruntime, core/framework/tensorprotoutils.cc, ValidateExternalDataPath).
    folders = {folder, os.path.dirname(os.path.realpath(path))}
    rows = [digest]
    external = sorted(ends)
    for location in external:
        original = os.path.realpath(os.path.join(folder, location))
        if not any(os.path.commonpath([one, original]) == one for one in folders):
            raise _outside(name, location)
        location_copy = into / location if into else None
        if not os.path.exists(os.path.join(folder, location)):
            raise _without_data(path, location)
        try:
            digest, count = _hash_file(
                Path(original), f"external data of {name}", location_copy, ends[location], progress
            )
        except Invalid as error:
            remedy = f"put the file {location} of the same export beside {name}, or export the network again"
            raise error.restated(error.message, remedy=remedy) from error
        size += count
        text = location.encode()
        rows += [len(text).to_bytes(8, "big"), text, digest]
    digest = derive(MODEL_CONTEXT, b"".join(rows))
    if fixed:
        digest = derive(FIXED_CONTEXT, digest + encode(fields_of(fixed)))
    return ModelSource(name, copy or path, digest, size, tuple(external))


def _without_data(path: Path, location: str) -> Invalid:
    remedy = f"copy {location} of the same export to {path.parent / location}: the two files belong together"
    real = Path(os.path.realpath(path))
    if os.path.exists(real.parent / location):
        remedy = f"name the file behind the link, {real}: its weights are beside it"
    return Invalid(
        f"the model {path} keeps its weights in a file of their own, {location}, and that is not in the folder "
        f"{path.parent}",
        remedy=remedy,
        model=path.name,
        location=location,
    )


def _normal(location: str, model: str) -> str:
    """Return a location in its one form, `a/b`. Raise Invalid for a location that may not be read."""
    parts = PurePosixPath(location).parts
    if not parts or ".." in parts or location[:1] == "/" or "\\" in location or "\0" in location:
        raise _outside(model, location)
    if parts == (model,):
        raise Invalid(f"{model} names itself as its external data", remedy="export the network again", model=model)
    return "/".join(parts)


def _outside(model: str, location: str) -> Invalid:
    return Invalid(
        f"{model} names external data {location!r}, which is outside the model's folder",
        remedy="put the file itself, not a link to another folder, beside the model, and export the network again",
        model=model,
        location=location,
    )


def _hash_file(
    path: Path,
    what: str,
    copy: Path | None,
    limit: int,
    progress: Callable[[], None],
    keep: bytearray | None = None,
) -> tuple[bytes, int]:
    """Return (BLAKE3, size) of the file, or of its first `limit` bytes. Each piece that is hashed is also the one that
    is written to `copy` and appended to `keep`, which holds at most one ONNX file. `what` names the file in messages.
    """
    hasher, size = blake3(), 0
    with contextlib.ExitStack() as files:
        source = files.enter_context(open_regular(path, what))
        if keep is not None and os.fstat(source.fileno()).st_size > limit:
            raise _too_large(path)
        try:
            target = files.enter_context(_create(copy)) if copy else None
            while piece := source.read(min(_PIECE, limit - size)):
                size += len(piece)
                hasher.update(piece)
                if target:
                    _write(target, piece)
                if keep is not None:
                    keep += piece
                progress()
            if keep is not None and source.read(1):  # the file has grown
                raise _too_large(path)
        except OSError as error:
            raise Unavailable(
                f"{what} {path} cannot be read: {error.strerror}",
                remedy="check the medium of the file, then try again",
                path=str(path),
                errno=error.errno,
            ) from error
    return hasher.digest(), size


def _write(target: BinaryIO, piece: bytes) -> None:
    remaining = memoryview(piece)
    try:
        while remaining:
            remaining = remaining[target.write(remaining) :]
    except OSError as error:
        raise _unwritten(Path(target.name), error) from error


def _create(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path.open("xb", buffering=0)
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> Unavailable:
    return Unavailable(
        f"the private copy {path} cannot be written: {error.strerror}",
        remedy="free some space in that folder, or name another folder for temporary files in TMPDIR",
        path=str(path),
        errno=error.errno,
    )


def _too_large(path: Path) -> Invalid:
    return Invalid(
        f"model {path} is larger than the 2 GiB of one ONNX file",
        remedy="export the network with its weights in a file of their own (external data)",
        model=path.name,
    )
