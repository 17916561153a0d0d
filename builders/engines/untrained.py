"""The same network, untrained: what a backbone finds is worth only what it finds beyond this.

Every tensor of weights is filled with numbers drawn from its own, with replacement and by a fixed seed: shapes, number
formats and scales stay, variances stay positive, and whatever training put into the tensors is gone. It needs no list
of operators, and quantised weights are no exception. Shapes, indices and tensors of a few numbers (the means of an
input, the factors of a Resize) are parts of the graph and stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.engines.model import parse_onnx
from builders.extras import import_extra
from store.errors import Refused

SCHEMA = "flightbag/untrained/1"
SEED = 20261130
# Tensors of fewer numbers stay.
LEAST_NUMBERS = 16
# The bytes of a number of each type of weights.
_SIZES = {
    "FLOAT": 4, "DOUBLE": 8, "FLOAT16": 2, "BFLOAT16": 2, "INT8": 1, "UINT8": 1,
    "FLOAT8E4M3FN": 1, "FLOAT8E4M3FNUZ": 1, "FLOAT8E5M2": 1, "FLOAT8E5M2FNUZ": 1,
}  # fmt: skip
# Weights too, but two or more of them share a byte.
_PACKED = ("INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2")
_FIELDS = ("float_data", "double_data", "int32_data")


def untrained(model: bytes, name: str) -> bytes:
    """Return the ONNX network `model`, weights inside, with other weights; the same bytes for the same network.

    `name` is the subject of messages. Raise Invalid for bytes that are no ONNX model, and Refused (kind not-measured)
    where the greater part of the weights cannot be replaced, or where there are none.
    """
    tensor_proto = import_extra("onnx").TensorProto
    parsed = parse_onnx(model, name)
    # The stream of a bit generator is the same in every version of numpy; those of its distributions are not.
    random = np.random.PCG64(SEED)
    drawn = kept = 0
    for tensor in _tensors(parsed, tensor_proto):
        numbers = int(np.prod(tensor.dims, dtype=np.int64))
        kind = tensor_proto.DataType.Name(tensor.data_type)
        if numbers < LEAST_NUMBERS or (kind not in _SIZES and kind not in _PACKED):
            continue
        if kind in _SIZES and _draw(tensor, _SIZES[kind], numbers, random):
            drawn += numbers
        else:
            kept += numbers
    if not drawn or kept > drawn:
        why = (
            "has no weights" if not drawn and not kept else f"has weights of a type that cannot be drawn anew ({kept})"
        )
        raise Refused(f"{name} {why}, so it has no untrained form", kind="not-measured")
    data: bytes = parsed.SerializeToString(deterministic=True)
    return data


def _tensors(message: Any, tensor_proto: Any) -> Iterator[Any]:
    """Yield every tensor of a message, in the order of its fields: initializers, constants, those of subgraphs."""
    if isinstance(message, tensor_proto):
        yield message
        return
    for _, value in message.ListFields():
        # A repeated field is a sequence; only messages have fields of their own.
        for item in value if hasattr(value, "__getitem__") else (value,):
            if not hasattr(item, "ListFields"):
                break
            yield from _tensors(item, tensor_proto)


def _draw(tensor: Any, size: int, numbers: int, random: np.random.PCG64) -> bool:
    """Fill a tensor with numbers of its own. Return whether it has as many as its shape says."""
    picks: NDArray[np.uint64] = random.random_raw(numbers) % np.uint64(numbers)
    if tensor.raw_data:
        values = np.frombuffer(tensor.raw_data, f"u{size}")
        if len(values) != numbers:
            return False
        tensor.raw_data = values[picks].tobytes()
        return True
    for field in _FIELDS:
        given = getattr(tensor, field)
        if len(given) == numbers:
            other = np.array(given)[picks].tolist()
            tensor.ClearField(field)
            getattr(tensor, field).extend(other)
            return True
    return False
