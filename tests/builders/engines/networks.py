"""Small networks for the tests of this folder, with weights inside or beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 4


def small_network(batch: int | str = "N", side: int = 16) -> onnx.ModelProto:
    """`image` float32 [batch, 3, side, side] -> `descriptor` float32 [batch, 4]: a convolution that ONNX Runtime
    fuses with the activation behind it, and a mean."""
    weights = np.random.default_rng(7).standard_normal((CHANNELS, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["descriptor"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, [batch, CHANNELS])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="flightbag"
    )


def elementwise(nodes: list[onnx.NodeProto], dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """A network of `nodes` from `x` [N, 4] to `y` [N, 4]."""
    graph = helper.make_graph(
        nodes,
        "elementwise",
        [helper.make_tensor_value_info("x", dtype, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def name_external(model: onnx.ModelProto, location: str) -> onnx.ModelProto:
    """The network, its weights said to be in the file `location`, which is not written."""
    tensor = model.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        tensor.external_data.add(key=key, value=value)
    return model


def save(folder: Path, model: onnx.ModelProto) -> Path:
    """Writes the network as it is to `folder/net.onnx`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def save_external(folder: Path, model: onnx.ModelProto) -> Path:
    """Writes the network to `folder/net.onnx` and its weights to `folder/weights/w.bin`."""
    data = model.graph.initializer[0].raw_data
    path = save(folder, name_external(model, "weights/w.bin"))
    (folder / "weights").mkdir()
    (folder / "weights/w.bin").write_bytes(data)
    return path
