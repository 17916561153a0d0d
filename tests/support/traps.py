"""Backbones that never come to an end, or want more memory than there is: what a planner may be handed as a model."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from builders.example.backbone import write_backbone

# In seconds it is an hour, whatever the machine.
_ROUNDS = 10**12


def write_endless(path: Path, *, only_on_tiles: bool = False) -> None:
    """Write a backbone that describes as `write_backbone` does, after a loop without an end.

    With `only_on_tiles` the loop ends at once for noise, which a network is tried with, and not for pictures of ground:
    their neighbouring pixels are alike.
    """
    write_backbone(path)
    model = onnx.load(path)
    graph = model.graph
    if only_on_tiles:
        nodes = [
            helper.make_node("Constant", [], ["zero3"], value_ints=[0]),
            helper.make_node("Constant", [], ["one3"], value_ints=[1]),
            helper.make_node("Constant", [], ["last3"], value_ints=[-1]),
            helper.make_node("Constant", [], ["end3"], value_ints=[2**31]),
            helper.make_node("Constant", [], ["axis3"], value_ints=[3]),
            helper.make_node("Slice", ["image", "one3", "end3", "axis3"], ["right"]),
            helper.make_node("Slice", ["image", "zero3", "last3", "axis3"], ["left"]),
            helper.make_node("Sub", ["right", "left"], ["steps"]),
            helper.make_node("Abs", ["steps"], ["sizes"]),
            helper.make_node("ReduceMean", ["sizes"], ["rough"], keepdims=0),
            helper.make_node("Constant", [], ["smooth"], value_float=0.1),
            helper.make_node("Less", ["rough", "smooth"], ["is_ground"]),
            helper.make_node("Constant", [], ["many"], value_int=_ROUNDS),
            helper.make_node("Cast", ["is_ground"], ["factor"], to=TensorProto.INT64),
            helper.make_node("Mul", ["many", "factor"], ["rounds"]),
        ]
    else:
        nodes = [helper.make_node("Constant", [], ["rounds"], value_int=_ROUNDS)]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Abs", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    nodes.append(helper.make_node("Loop", ["rounds", "", "image"], ["looped"], body=body))
    graph.node[0].input[0] = "looped"
    for at, node in enumerate(nodes):
        graph.node.insert(at, node)
    path.write_bytes(model.SerializeToString(deterministic=True))


def write_huge(path: Path, numbers: int) -> None:
    """Write a backbone that holds a tensor of so many float32 while it runs."""
    write_backbone(path)
    model = onnx.load(path)
    graph = model.graph
    nodes = [
        helper.make_node("Constant", [], ["count"], value_ints=[numbers]),
        helper.make_node("ConstantOfShape", ["count"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Add", ["image", "sum"], ["added"]),
    ]
    graph.node[0].input[0] = "added"
    for at, node in enumerate(nodes):
        graph.node.insert(at, node)
    path.write_bytes(model.SerializeToString(deterministic=True))
