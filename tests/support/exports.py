"""The backbone of the tests as other people's exporters write it: another layout, number format, ends, fixed batch.

Each way changes the ends of `write_backbone` and nothing in between, so that its descriptors are those of the original,
up to the rounding of half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from builders.example.backbone import write_backbone

SIDE = 64
# Of a channel, before its mean: points brighter than all noise of 0..1, and than no tile.
THRESHOLD = 1.5


def write_export(path: Path, *ways: str, size: int = SIDE) -> None:
    """Write the backbone of the tests, exported in these ways, of `WAYS`."""
    write_backbone(path, size=size)
    model = onnx.load(path)
    for way in ways:
        WAYS[way](model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _image(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    return next(one for one in model.graph.input if one.name == "image")


def _in_front(model: onnx.ModelProto, node: Callable[[str], list[onnx.NodeProto]], type_: int, *dims: Any) -> None:
    """Put nodes between the input, of a new type and shape, and what takes it now; `node` gets the name of their
    end."""
    inner = f"image{len(model.graph.node)}"
    for one in model.graph.node:
        one.input[:] = [inner if name == "image" else name for name in one.input]
    for place, new in enumerate(node(inner)):
        model.graph.node.insert(place, new)
    _image(model).CopyFrom(helper.make_tensor_value_info("image", type_, dims))


def _dims(model: onnx.ModelProto) -> list[Any]:
    return [dim.dim_value or dim.dim_param for dim in _image(model).type.tensor_type.shape.dim]


def _type(model: onnx.ModelProto) -> int:
    return int(_image(model).type.tensor_type.elem_type)


def uint8(model: onnx.ModelProto) -> None:
    """Pixels of 0..255 in bytes."""
    model.graph.initializer.append(numpy_helper.from_array(np.array(1 / 255, np.float32), "factor"))

    def nodes(inner: str) -> list[onnx.NodeProto]:
        cast = helper.make_node("Cast", ["image"], [f"{inner}f"], to=TensorProto.FLOAT)
        return [cast, helper.make_node("Mul", [f"{inner}f", "factor"], [inner])]

    _in_front(model, nodes, TensorProto.UINT8, *_dims(model))


def nhwc(model: onnx.ModelProto) -> None:
    n, c, h, w = _dims(model)
    _in_front(
        model,
        lambda inner: [helper.make_node("Transpose", ["image"], [inner], perm=[0, 3, 1, 2])],
        _type(model), n, h, w, c,
    )  # fmt: skip


def grey(model: onnx.ModelProto) -> None:
    """One channel, taken for all three."""
    n, _, h, w = _dims(model)
    _in_front(
        model,
        lambda inner: [helper.make_node("Concat", ["image"] * 3, [inner], axis=1)],
        _type(model), n, 1, h, w,
    )  # fmt: skip


def half(model: onnx.ModelProto) -> None:
    _narrow(model, TensorProto.FLOAT16)


def bfloat16(model: onnx.ModelProto) -> None:
    _narrow(model, TensorProto.BFLOAT16)


def _narrow(model: onnx.ModelProto, to: int) -> None:
    """All of a float32 network in half precision, ends too."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            numbers = numpy_helper.to_array(tensor)
            upper = (numbers.view(np.uint32) >> 16).astype(np.uint16)
            tensor.raw_data = (numbers.astype(np.float16) if to == TensorProto.FLOAT16 else upper).tobytes()
            tensor.data_type = to
    for end in (*model.graph.input, *model.graph.output):
        if end.type.tensor_type.elem_type == TensorProto.FLOAT:
            end.type.tensor_type.elem_type = to
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = to


def inputs(model: onnx.ModelProto) -> None:
    """Three more inputs: a mask of booleans for each image, a size of two integers, and a scalar. The descriptor is
    that of the original for a mask of true, sizes of 64 and a scalar of 2."""
    model.graph.node[-1].output[0] = "plain"
    size = [SIDE, SIDE]
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.array(size, np.int64), "size64"), numpy_helper.from_array(np.float32(2), "two")]
    )
    model.graph.node.extend(
        [
            helper.make_node("Equal", ["size", "size64"], ["as64"]),
            helper.make_node("Cast", ["as64"], ["as64f"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMin", ["as64f"], ["fits"], keepdims=0),
            helper.make_node("Cast", ["mask"], ["maskf"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMin", ["maskf"], ["kept"], axes=[1], keepdims=1),
            helper.make_node("Div", ["gain", "two"], ["one"]),
            helper.make_node("Mul", ["plain", "kept"], ["m1"]),
            helper.make_node("Mul", ["m1", "fits"], ["m2"]),
            helper.make_node("Mul", ["m2", "one"], ["descriptor"]),
        ]
    )
    model.graph.input.extend(
        [
            helper.make_tensor_value_info("mask", TensorProto.BOOL, ["N", 3]),
            helper.make_tensor_value_info("size", TensorProto.INT64, [1, 2]),
            helper.make_tensor_value_info("gain", TensorProto.FLOAT, []),
        ]
    )


# What `inputs` takes, as a mission file writes it.
FIXED = 'mask = { shape = ["N", 3], value = true }, size = { shape = [1, 2], value = [64, 64] }, gain = { shape = [], value = 2 }'  # noqa: E501


def tokens(model: onnx.ModelProto) -> None:
    """Tokens [N, 3, d]: the descriptor, and it times 2 and 3."""
    model.graph.node[-1].output[0] = "whole"
    factors = np.array([1, 2, 3], np.float32).reshape(1, 3, 1)
    model.graph.initializer.append(numpy_helper.from_array(factors, "factors"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis1"))
    model.graph.node.extend(
        [
            helper.make_node("Unsqueeze", ["whole", "axis1"], ["token"]),
            helper.make_node("Mul", ["token", "factors"], ["descriptor"]),
        ]
    )
    n, d = (dim.dim_value or dim.dim_param for dim in model.graph.output[0].type.tensor_type.shape.dim)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, [n, 3, d]))


def reshape(model: onnx.ModelProto) -> None:
    """A batch of 1 baked into a Reshape, as a flatten with a size that was known is exported."""
    _bake(model, [1, 512])


def reshape_rows(model: onnx.ModelProto) -> None:
    """The same, so that it runs on any number of images and gives one row of all."""
    _bake(model, [1, -1])
    projection = next(tensor for tensor in model.graph.initializer if tensor.name == "w3")
    model.graph.initializer.remove(projection)
    for node in model.graph.node:
        if node.op_type == "MatMul":
            node.op_type = "Identity"
            node.input[:] = node.input[:1]


def _bake(model: onnx.ModelProto, shape: list[int]) -> None:
    """Bake a shape in, from a number that no shape inference follows: else the output shows it."""
    graph = model.graph
    for name, value in (("rest", np.array(shape[1:])), ("none", np.zeros(1, np.float32))):
        graph.initializer.append(numpy_helper.from_array(value, name))
    place = next(place for place, node in enumerate(graph.node) if node.op_type == "Flatten")
    flatten = graph.node[place]
    flatten.CopyFrom(helper.make_node("Reshape", [flatten.input[0], "baked"], list(flatten.output)))
    one = [
        helper.make_node("ReduceMax", ["image"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "none"], ["lit"]),
        helper.make_node("Cast", ["lit"], ["one"], to=TensorProto.INT64),
        helper.make_node("Concat", ["one", "rest"], ["baked"], axis=0),
    ]
    for number, node in enumerate(one):
        graph.node.insert(place + number, node)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "M"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "d"


def open_dims(model: onnx.ModelProto) -> None:
    """Every dimension of the input has a name."""
    for dim, name in zip(_image(model).type.tensor_type.shape.dim, ("batch", "channels", "h", "w"), strict=True):
        dim.dim_param = name


def keypoints(model: onnx.ModelProto) -> None:
    """Two more outputs: `points`, the places where the first channel of the first image lies above a threshold, and
    `scores` there."""
    model.graph.initializer.append(numpy_helper.from_array(np.array(THRESHOLD, np.float32), "threshold"))
    model.graph.node.extend(
        [
            helper.make_node("Greater", ["image", "threshold"], ["bright"]),
            helper.make_node("NonZero", ["bright"], ["where"]),
            helper.make_node("Transpose", ["where"], ["points"]),
            helper.make_node("GatherND", ["image", "points"], ["scores"]),
        ]
    )
    model.graph.output.extend(
        [
            helper.make_tensor_value_info("points", TensorProto.INT64, ["K", 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["K"]),
        ]
    )


WAYS: Mapping[str, Callable[[onnx.ModelProto], None]] = {
    "uint8": uint8,
    "nhwc": nhwc,
    "grey": grey,
    "half": half,
    "bfloat16": bfloat16,
    "inputs": inputs,
    "tokens": tokens,
    "reshape": reshape,
    "reshape rows": reshape_rows,
    "open": open_dims,
    "keypoints": keypoints,
}
