"""The untrained form of a network: other weights of the same kind, the same graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from builders.engines.untrained import LEAST_NUMBERS, untrained
from builders.example.backbone import write_backbone
from store.errors import Invalid, Refused


def model(*initializers: onnx.TensorProto, nodes: Any = ()) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"]), *nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        list(initializers),
    )
    data: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return data


def weights(data: bytes) -> dict[str, np.ndarray[Any, Any]]:
    return {one.name: numpy_helper.to_array(one) for one in onnx.load_model_from_string(data).graph.initializer}


@given(st.lists(st.floats(-10, 10, width=32), min_size=LEAST_NUMBERS, max_size=200))
def test_every_weight_is_one_of_its_own_tensor(numbers: list[float]) -> None:
    given_ = np.array(numbers, np.float32)
    data = model(numpy_helper.from_array(given_, "w"))
    other = weights(untrained(data, "net"))["w"]
    assert (other.shape, other.dtype) == (given_.shape, given_.dtype)
    assert set(other.tolist()) <= set(given_.tolist())
    assert untrained(data, "net") == untrained(data, "net")


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8", "uint8"])
@pytest.mark.parametrize("raw", [True, False])
def test_weights_of_every_type_in_every_field(dtype: str, raw: bool) -> None:
    values = np.arange(100).astype(dtype)
    if raw:
        tensor = numpy_helper.from_array(values, "w")
    else:
        tensor = helper.make_tensor("w", helper.np_dtype_to_tensor_dtype(values.dtype), values.shape, values.tolist())
    other = weights(untrained(model(tensor), "net"))["w"]
    assert other.dtype == values.dtype
    assert (other != values).mean() > 0.5
    assert set(other.tolist()) <= set(values.tolist())


def test_the_graph_keeps_its_shapes_indices_and_small_tensors() -> None:
    kept = {
        "shape": np.arange(64, dtype=np.int64),
        "index": np.arange(64, dtype=np.int32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "epsilon": np.array(1e-5, np.float32),
    }
    drawn = numpy_helper.from_array(np.arange(64, dtype=np.float32), "w")
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.arange(64, dtype=np.float32)))
    data = model(drawn, *(numpy_helper.from_array(value, name) for name, value in kept.items()), nodes=[constant])
    other = untrained(data, "net")
    for name, value in kept.items():
        assert (weights(other)[name] == value).all()
    node = onnx.load_model_from_string(other).graph.node[1]
    assert (numpy_helper.to_array(node.attribute[0].t) != np.arange(64)).any()


def test_a_real_network_runs_with_its_other_weights(tmp_path: Path) -> None:
    write_backbone(tmp_path / "net.onnx")
    data = (tmp_path / "net.onnx").read_bytes()
    other = untrained(data, "net")
    onnx.checker.check_model(onnx.load_model_from_string(other), full_check=True)
    assert weights(other)["w3"].std() == pytest.approx(weights(data)["w3"].std(), rel=0.1)
    assert (weights(other)["w3"] != weights(data)["w3"]).mean() > 0.9


@pytest.mark.parametrize(
    "tensors",
    [
        [],
        [numpy_helper.from_array(np.ones(3, np.float32), "small")],
        [helper.make_tensor("packed", TensorProto.INT4, [64], [1] * 64)],
    ],
    ids=["none", "small", "packed"],
)
def test_a_network_without_an_untrained_form_is_not_measured(tensors: list[onnx.TensorProto]) -> None:
    with pytest.raises(Refused) as caught:
        untrained(model(*tensors), "net")
    assert caught.value.kind == "not-measured"
    assert "net has" in caught.value.message


def test_only_a_network_has_weights() -> None:
    with pytest.raises(Invalid):
        untrained(b"no model", "net")
