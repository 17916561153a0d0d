"""What the graph of a model says without being run, and that such models give engines that run, or say why not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builders.engines.base import InputRange
from builders.engines.graph import fix_defaults, irreproducible, nodes, require_operators, widen_half
from builders.engines.model import snapshot_model
from builders.engines.precision import CalibrationSet, quantise
from builders.engines.session import open_session
from store.errors import Invalid
from tests.builders.engines.networks import ROW, compiled, elementwise, part, save, small_network, spec_of

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def constant(name: str, value: Any, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def listing_weights(model: onnx.ModelProto, ir: int) -> onnx.ModelProto:
    """The network with every weight among its inputs, as IR version 3 has them."""
    model.ir_version = ir
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return model


def branch(*inside: onnx.NodeProto, taken: bool) -> onnx.ModelProto:
    """A network with an If: one branch has these nodes, from `x` to `b`, the other copies `x`."""
    ends = [helper.make_tensor_value_info("b", TensorProto.FLOAT, ["N", 4])]
    plain = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "plain", [], ends)
    other = helper.make_graph([*inside], "other", [], ends)
    model = elementwise([helper.make_node("If", ["on"], ["y"], then_branch=other, else_branch=plain)])
    model.graph.initializer.append(constant("on", taken, bool))
    return model


def in_function(*inside: onnx.NodeProto, called: bool = True) -> onnx.ModelProto:
    """A network with a function of its own, from `a` to `b`, which it calls or not."""
    model = elementwise([helper.make_node("Step", ["x"], ["y"], domain="own") if called
                         else helper.make_node("Relu", ["x"], ["y"])])  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "Step", ["a"], ["b"], [*inside], opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def noise(source: str, into: str) -> list[onnx.NodeProto]:
    return [helper.make_node("RandomUniformLike", [source], ["n"], name="noise"),
            helper.make_node("Add", [source, "n"], [into])]  # fmt: skip


def dropout(training: bool) -> onnx.ModelProto:
    model = elementwise([helper.make_node("Dropout", ["x", "ratio", "on"], ["y"], name="drop")])
    model.graph.initializer.extend([constant("ratio", 0.5), constant("on", training, bool)])
    return model


def test_nodes_of_subgraphs_and_of_called_functions_count() -> None:
    assert {node.op_type for node in nodes(branch(*noise("x", "b"), taken=False))} == {
        "If", "Identity", "RandomUniformLike", "Add",
    }  # fmt: skip
    assert {node.op_type for node in nodes(in_function(*noise("a", "b")))} == {"Step", "RandomUniformLike", "Add"}
    assert {node.op_type for node in nodes(in_function(*noise("a", "b"), called=False))} == {"Relu"}


def test_nodes_of_every_overload_of_a_called_function_count() -> None:
    model = in_function(*noise("a", "b"))
    other = model.functions.add()
    other.CopyFrom(in_function(helper.make_node("Relu", ["a"], ["b"])).functions[0])
    other.overload = "quiet"
    assert {node.op_type for node in nodes(model)} == {"Step", "RandomUniformLike", "Add", "Relu"}


# Operators


EP = helper.make_node("EPContext", ["x"], ["y"], name="blob", domain="com.microsoft", ep_cache_context=b"x")


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (elementwise([EP]), "the node blob is EPContext of the domain com.microsoft: a network compiled"),
        (elementwise([helper.make_node("Warp", ["x"], ["y"], domain="com.example")]),
         "the node y is Warp of the domain com.example, which ONNX Runtime does not have"),
        (branch(helper.make_node("Warp", ["x"], ["b"], domain="ai.onnx.contrib"), taken=False), "ai.onnx.contrib"),
        (in_function(helper.make_node("Warp", ["a"], ["b"], domain="com.example")), "com.example"),
    ],
    ids=["compiled", "domain", "branch not taken", "function"],
)  # fmt: skip
def test_an_operator_that_cannot_run_is_named_before_anything_is_compiled(
    tmp_path: Path, model: onnx.ModelProto, says: str
) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        snapshot_model(save(tmp_path, model), tmp_path / "copy")
    assert caught.value.kind == "unsupported-op"
    assert "net.onnx" in caught.value.message
    assert caught.value.remedy


def test_functions_of_the_model_and_of_the_library_are_no_unknown_operators(tmp_path: Path) -> None:
    require_operators(in_function(helper.make_node("Relu", ["a"], ["b"])), "net")
    require_operators(in_function(helper.make_node("Warp", ["a"], ["b"], domain="com.example"), called=False), "net")
    require_operators(elementwise([helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")]), "net")
    path = save(tmp_path, in_function(helper.make_node("Relu", ["a"], ["b"])))
    assert compiled(spec_of(path, ROW), tmp_path).check.worst.relative_error == 0


# Inputs that nobody has to feed


@pytest.mark.parametrize("ir", [3, 8])
@pytest.mark.parametrize("kind", ["portable", "fast", "int8"])
def test_weights_that_are_inputs_give_an_engine_that_runs(tmp_path: Path, ir: int, kind: str) -> None:
    """Two equal weights: the library shares them, and would leave one input without its default."""
    model = small_network(channels=32)
    for name in ("s", "t"):
        model.graph.initializer.append(constant(name, [2.0]))
    model.graph.node[-1].output[0] = "f"
    model.graph.node.append(helper.make_node("Mul", ["f", "s"], ["g"]))
    model.graph.node.append(helper.make_node("Mul", ["g", "t"], ["descriptor"]))
    model.opset_import[0].version = 8 if ir == 3 else 17
    path = save(tmp_path, listing_weights(model, ir))
    before = path.read_bytes()
    if kind == "int8":
        rows = CalibrationSet(np.random.default_rng(1).random((4, 3, 16, 16), np.float32))
        quantise(path, rows, "minmax", tmp_path / "int8.onnx")
        engine = compiled(spec_of(path, precision="int8"), tmp_path, quantised=tmp_path / "int8.onnx",
                          rows=rows)  # fmt: skip
    else:
        engine = compiled(spec_of(path, mode=kind), tmp_path)
    assert [end[0] for end in engine.inputs] == ["image"]
    assert [end.name for end in onnx.load(part(engine), load_external_data=False).graph.input] == ["image"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", ["portable", "fast"])
@pytest.mark.parametrize("name", ["light_squeezenet", "light_resnet50"])
def test_published_models_of_ir_version_3_give_engines(tmp_path: Path, name: str, mode: str) -> None:
    path = Path(shutil.copy(LIGHT / f"{name}.onnx", tmp_path / "net.onnx"))
    model = onnx.load(path)
    assert model.ir_version == 3
    weights = {tensor.name for tensor in model.graph.initializer}
    (image,) = [end.name for end in model.graph.input if end.name not in weights]
    engine = compiled(spec_of(path, InputRange(image, (1, 3, 224, 224)), mode=mode), tmp_path)
    assert [end[0] for end in engine.inputs] == [image]


def test_a_sparse_weight_and_an_input_with_a_default_are_constants(tmp_path: Path) -> None:
    model = elementwise([helper.make_node("Mul", ["x", "w"], ["m"]), helper.make_node("Mul", ["m", "gain"], ["y"])])
    values, where = constant("w", [2.0, 3.0]), constant("", [0, 3], np.int64)
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, where, [4]))
    model.graph.input.append(helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1]))
    model.graph.initializer.append(constant("gain", [5.0]))
    path = save(tmp_path, model)
    engine = compiled(spec_of(path, ROW), tmp_path)
    assert [end[0] for end in engine.inputs] == ["x"]
    given = {"x": np.ones((1, 4), np.float32)}
    assert open_session(part(engine).read_bytes(), "all").run(given)["y"].tolist() == [[10, 0, 0, 15]]


def test_a_model_without_defaults_stays_as_it_is() -> None:
    model = small_network()
    before = model.SerializeToString()
    assert not fix_defaults(model)
    assert model.SerializeToString() == before


# Models that differ from themselves


def loop(*inside: onnx.NodeProto) -> onnx.ModelProto:
    """A network that runs these nodes, from `v` to `w`, twice."""
    flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "on")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("v", "w")]
    step = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    count = helper.make_node("Identity", ["go"], ["on"])
    body = helper.make_graph([count, *inside], "body", [step, flags[0], values[0]], [flags[1], values[1]])
    twice = helper.make_node("Constant", [], ["rounds"], value_int=2)
    return elementwise([twice, helper.make_node("Loop", ["rounds", "", "x"], ["y"], body=body)])


WIDE = InputRange("x", ("N", 4), 1, 8, 16)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (dropout(True), "Dropout drop"),
        (elementwise(noise("x", "y")), "RandomUniformLike noise"),
        (elementwise([helper.make_node("RandomUniformLike", ["x"], ["n"], seed=1.0),
                      helper.make_node("Add", ["x", "n"], ["y"])]), "RandomUniformLike n"),
        (branch(*noise("x", "b"), taken=True), "RandomUniformLike noise"),
        (loop(*noise("v", "w")), "RandomUniformLike noise"),
        (in_function(*noise("a", "b")), "RandomUniformLike noise"),
    ],
    ids=["dropout", "random", "seeded", "branch", "loop", "function"],
)  # fmt: skip
def test_a_model_that_differs_from_itself_is_refused_before_it_is_compiled(
    tmp_path: Path, model: onnx.ModelProto, names: str
) -> None:
    says = rf"net\.onnx differs from itself in two runs on the same input: output y .*; it has {names}"
    with pytest.raises(Invalid, match=says) as caught:
        compiled(spec_of(save(tmp_path, model), WIDE), tmp_path)
    assert caught.value.kind == "not-repeatable"
    assert "model.eval()" in caught.value.remedy
    rows = CalibrationSet(np.random.default_rng(1).random((4, 4), np.float32))
    with pytest.raises(Invalid, match=says):
        quantise(tmp_path / "net.onnx", rows, "minmax", tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize(
    "model",
    [dropout(False), branch(*noise("x", "b"), taken=False),
     elementwise([helper.make_node("RandomUniformLike", ["x"], ["unused"]), helper.make_node("Relu", ["x"], ["y"])])],
    ids=["dropout that does not train", "branch not taken", "unused"],
)  # fmt: skip
def test_random_numbers_that_reach_no_output_are_no_fault(tmp_path: Path, model: onnx.ModelProto) -> None:
    assert irreproducible(model)
    compiled(spec_of(save(tmp_path, model), WIDE), tmp_path)


def test_a_torn_tensor_of_half_precision_is_named() -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT16, dims=[1], raw_data=b"abc")
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    with pytest.raises(Invalid, match=r"tensor 'w' has half precision and 3 bytes") as caught:
        widen_half(model)
    assert caught.value.kind == "invalid-model"
