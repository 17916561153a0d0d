"""A small convolutional backbone with seeded weights: real enough to tell tiles apart, small enough for tests.

Two strided convolutions and a pool on a 4 x 4 grid keep where in the tile something lies; what all places have
in common is taken off before a random projection, so that descriptors of different tiles are far apart, and
those of one tile stay near each other under small changes. Not trained, and no measure of what a trained
network reaches.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# Old enough for every onnxruntime that pyproject allows.
OPSET = 17
IR_VERSION = 8
GRID = 4
CHANNELS = (16, 32)


def write_backbone(path: Path, *, size: int = 64, dim: int = 32, batch: str | int = "N", seed: int = 1) -> None:
    """Writes an ONNX model: input `image` float32 [batch, 3, size, size], RGB of 0..1; output `descriptor`
    float32 [batch, dim] of length 1. `size` is a multiple of 16. The same arguments give the same bytes."""
    random = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> onnx.TensorProto:
        scale = 1 / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array((random.standard_normal(shape) * scale).astype(np.float32), name)

    first, second = CHANNELS
    edges = numpy_helper.to_array(weights("w1", first, 3, 5, 5))
    # The first filters see edges and colours, not the brightness of the day.
    edges = edges - edges.mean(axis=(1, 2, 3), keepdims=True)
    tensors = [
        numpy_helper.from_array(np.ascontiguousarray(edges), "w1"),
        numpy_helper.from_array(np.full(first, 0.02, np.float32), "b1"),
        weights("w2", second, first, 3, 3),
        numpy_helper.from_array(np.full(second, 0.02, np.float32), "b2"),
        _projection(random, second * GRID * GRID, dim),
    ]
    pool = size // 4 // GRID
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], kernel_shape=[5, 5], strides=[2, 2], pads=[2] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("AveragePool", ["r2"], ["p"], kernel_shape=[pool, pool], strides=[pool, pool]),
        helper.make_node("ReduceMean", ["p"], ["m"], axes=[2, 3], keepdims=1),
        helper.make_node("Sub", ["p", "m"], ["d"]),
        helper.make_node("Flatten", ["d"], ["f"], axis=1),
        helper.make_node("MatMul", ["f", "w3"], ["y"]),
        helper.make_node("LpNormalization", ["y"], ["descriptor"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "backbone",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, [batch, dim])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "flightbag example"
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _projection(random: np.random.Generator, wide: int, narrow: int) -> onnx.TensorProto:
    matrix: NDArray[np.float32] = random.standard_normal((wide, narrow)).astype(np.float32)
    return numpy_helper.from_array(matrix, "w3")
