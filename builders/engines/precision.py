"""Other precisions as networks of their own: ONNX in, ONNX out. Backends compile the result as it is.

`float16_copy` casts. `quantise` puts quantise and dequantise nodes around the operators that gain from int8 (static
QDQ, both symmetric and signed, as TensorRT demands), with ranges from a calibration set. Equal inputs and versions give
equal bytes.

A calibration set is a file of input rows that is never read without its digest.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from builders.engines.check import as_inputs, require_repeatable
from builders.engines.failures import failure, words_of
from builders.engines.graph import fix_defaults, irreproducible
from builders.engines.model import session_source
from builders.engines.session import open_session
from builders.extras import import_extra, import_onnxruntime
from store.errors import Invalid
from store.format.ids import derive

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"

CALIBRATION_CONTEXT = "flightbag 2026 calibration set v1"
METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
# The first opset whose operators take one scale for each channel.
_LEAST_OPSET = 13
# Rows that show whether a network differs from itself: over so many, random numbers do not fall out alike.
_TRIED_TWICE = 8


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """The rows that a network is calibrated with: `rows` [n, ...] of its one input."""

    rows: Array

    @property
    def digest(self) -> bytes:
        """The digest over dtype, shape and numbers, as `save` writes them."""
        return derive(CALIBRATION_CONTEXT, self._npy())

    def save(self, path: Path) -> None:
        """Write the set to a file, its digest first."""
        data = self._npy()
        path.write_bytes(derive(CALIBRATION_CONTEXT, data) + data)

    @staticmethod
    def open(path: Path) -> CalibrationSet:
        """Return the set in a file. Raise a failure `calibration` for a file that `save` did not write."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise failure("calibration", f"the calibration set cannot be read: {error.strerror}") from error
        if derive(CALIBRATION_CONTEXT, data[32:]) != data[:32]:
            raise failure("calibration", "the calibration set does not match its digest", path=str(path))
        return CalibrationSet(import_extra("numpy").load(io.BytesIO(data[32:]), allow_pickle=False))

    def _npy(self) -> bytes:
        file = io.BytesIO()
        np = import_extra("numpy")
        np.save(file, np.ascontiguousarray(self.rows), allow_pickle=False)
        return file.getvalue()


def quantiser_version() -> str:
    """Return the names and versions of the tools that quantise a network and read its tiles, for build keys."""
    return f"{caster_version()}, pillow {import_extra('PIL').__version__}"


def caster_version() -> str:
    """Return the names and versions of the tools that cast, for build keys."""
    return f"onnxruntime {import_onnxruntime().__version__}, onnx {import_extra('onnx').__version__}"


def float16_copy(network: Path, into: Path) -> None:
    """Write the network to `into` with float16 inside, its inputs and outputs unchanged. Raise a failure
    `invalid-model` if the tool refuses the network."""
    onnx, library = import_extra("onnx"), import_extra("onnxruntime.transformers.float16")
    model = onnx.load(network)  # with its external data
    try:
        cast = library.convert_float_to_float16(model, keep_io_types=True)
    except (ValueError, RuntimeError) as error:
        raise failure("invalid-model", f"the network cannot be cast to float16: {words_of(error)}") from error
    into.write_bytes(cast.SerializeToString(deterministic=True))


def quantise(network: Path, calibration: CalibrationSet, method: str, into: Path) -> None:
    """Write the network in int8 to `into`, with one scale for each channel of its weights.

    `method` is one of `METHODS`. Raise a failure `calibration` unless the network has exactly one input that must be
    fed, and the rows fit it and are finite; `not-repeatable` for a network that differs from itself.
    """
    onnx, np = import_extra("onnx"), import_extra("numpy")
    library = import_extra("onnxruntime.quantization")
    source = session_source(network)
    model = onnx.load(network) if isinstance(source, Path) else onnx.load_model_from_string(source)
    fix_defaults(model)
    inputs = [tensor.name for tensor in model.graph.input]
    if len(inputs) != 1:
        raise failure("calibration", f"the network has {len(inputs)} inputs; calibration with tiles needs exactly one")
    if not len(calibration.rows) or not np.isfinite(calibration.rows).all():
        raise failure("calibration", "the calibration set is empty or holds numbers that are not finite")
    session = open_session(source, "off")
    rows = as_inputs(calibration.rows, session.inputs[0].dtype)
    try:
        session.run({inputs[0]: rows[:1]})
    except Invalid as error:
        raise failure("calibration", error.message) from error
    for row in rows[:_TRIED_TWICE]:
        require_repeatable(session, {inputs[0]: row[None]}, network.name, lambda: irreproducible(model))
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if opset < _LEAST_OPSET:
        model = onnx.version_converter.convert_version(model, _LEAST_OPSET)

    class Reader(library.CalibrationDataReader):  # type: ignore[misc, name-defined] # a class of an optional module
        def __init__(self) -> None:
            self._rows: Iterator[Array] = iter(rows)

        def get_next(self) -> dict[str, Array] | None:
            row = next(self._rows, None)
            return None if row is None else {inputs[0]: row[None]}

    library.quantize_static(
        model,
        str(into),
        Reader(),
        quant_format=library.QuantFormat.QDQ,
        per_channel=True,
        activation_type=library.QuantType.QInt8,
        weight_type=library.QuantType.QInt8,
        calibrate_method=getattr(library.CalibrationMethod, METHODS[method]),
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
