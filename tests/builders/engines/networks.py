"""Small networks for the tests of this folder, with weights inside or beside them, and how they are compiled there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builders.engines.base import EngineSpec, InputRange
from builders.engines.check import TOLERANCES
from builders.engines.compiling import CompiledEngine, CompileSettings, compile_engine
from builders.engines.isolation import Limits
from builders.engines.model import hash_model
from builders.engines.onnxruntime import ANY_CPU, OnnxRuntimeBackend

CHANNELS = 4
DYNAMIC = InputRange("image", ("N", 3, 16, 16), 1, 2, 5)
ROW = InputRange("x", ("N", 4), 1, 1, 1)  # what `elementwise` takes
# Far more than anything here needs, and far less than would hold up whoever waits.
MEMORY, SECONDS = 4 * 2**30, 120.0


def spec_of(
    path: Path, *inputs: InputRange, mode: str = "portable", precision: str = "fp32", **more: Any
) -> EngineSpec:
    return EngineSpec("net", hash_model(path), precision, inputs or (DYNAMIC,), options={"mode": mode}, **more)


def compiled(
    spec: EngineSpec,
    folder: Path,
    *,
    host: str = "",
    memory: int = MEMORY,
    seconds: float = SECONDS,
    progress: Any = lambda *_: None,
    **more: Any,
) -> CompiledEngine:
    """The spec compiled for ONNX Runtime under `folder`: for any CPU where it is portable, else for this one."""
    backend = OnnxRuntimeBackend()
    return compile_engine(
        backend,
        spec,
        host or (ANY_CPU if spec.options["mode"] == "portable" else backend.describe_host()),
        folder,
        tolerance=TOLERANCES[spec.precision],
        settings=CompileSettings(Limits(memory, seconds), folder / "cache"),
        progress=progress,
        **more,
    )


def part(engine: CompiledEngine, name: str = "model") -> Path:
    """Where a part of a compiled engine lies."""
    return next(part.path for part in engine.parts if part.name == name)


def batches(engine: CompiledEngine, name: str = "image") -> tuple[int, ...]:
    """The batch of each case that an engine was checked with."""
    return tuple(case.shapes[name][0] for case in engine.check.cases)


def shared_model(name: str) -> Path:
    root = os.environ.get("FLIGHTBAG_SHARED")
    if not root or not (path := Path(root) / "data/models" / name).exists():
        pytest.skip("FLIGHTBAG_SHARED names no folder with the shared models")
    return path


def small_network(batch: int | str = "N", side: int = 16, channels: int = CHANNELS) -> onnx.ModelProto:
    """`image` float32 [batch, 3, side, side] -> `descriptor` float32 [batch, channels]: a convolution that ONNX
    Runtime fuses with the activation behind it, and a mean."""
    weights = np.random.default_rng(7).standard_normal((channels, 3, 3, 3)).astype(np.float32)
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
        [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, [batch, channels])],
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


def endless() -> onnx.ModelProto:
    """A network that takes an hour: a loop of very many rounds."""
    count = helper.make_node("Constant", [], ["rounds"], value_int=10**12)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Mul", ["v", "v"], ["w"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["N", 4]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, ["N", 4]),
        ],
    )
    return elementwise([count, helper.make_node("Loop", ["rounds", "", "x"], ["y"], body=body)])


def huge(numbers: int) -> onnx.ModelProto:
    """A network that holds a tensor of so many float32 while it runs."""
    return elementwise(
        [
            helper.make_node("Constant", [], ["s"], value_ints=[numbers]),
            helper.make_node("ConstantOfShape", ["s"], ["huge"]),
            helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
            helper.make_node("Add", ["x", "sum"], ["y"]),
        ]
    )


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
