"""The least version is found from the network, fails closed, and is what older libraries really load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builders.engines.onnxruntime_needs import features, imported, least_version
from builders.engines.onnxruntime_versions import NEWEST, OLDEST
from tests.conformance.runtimes import needs, verdict
from tests.support import runtimes

FLOAT, UINT8, INT8, INT32, INT64 = (
    TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT64
)  # fmt: skip


def network(
    *nodes: onnx.NodeProto,
    opset: int,
    ir: int = 8,
    kind: int = FLOAT,
    out: int | None = None,
    shape: tuple[int, ...] = (1, 4, 4, 4),
    weights: Mapping[str, Any] | None = None,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A network from `x` to `y`; `kind` is the type of `x`, `out` that of `y`."""
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind if out is None else out, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(*one) for one in (domains or {}).items())]
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = ir
    return model


def one(op: str, *more: str, opset: int, ir: int = 8, **given: Any) -> onnx.ModelProto:
    settings = {name: given.pop(name) for name in ("kind", "out", "shape", "weights", "domains") if name in given}
    return network(helper.make_node(op, ["x", *more], ["y"], **given), opset=opset, ir=ir, **settings)


def signal(opset: int, **attributes: int) -> onnx.ModelProto:
    shape = {"shape": (1, 8, 2)}
    axis = {"axis": 1} if opset < 20 else {}
    return one("DFT", opset=opset, ir=9, **shape, **axis, **attributes)


def long_name(model: onnx.ModelProto) -> onnx.ModelProto:
    model.opset_import[0].domain = "ai.onnx"
    return model


# Name -> (a network, the least version that loads it).
NETWORKS: dict[str, tuple[onnx.ModelProto, str]] = {
    "opset-8": (one("Relu", opset=8), OLDEST),
    "opset-17-by-the-long-name-of-its-set": (long_name(one("Relu", opset=17)), OLDEST),
    "opset-22-by-the-long-name-of-its-set": (long_name(one("Relu", opset=22, ir=10)), "1.21"),
    "opset-21": (one("Relu", opset=21, ir=10), OLDEST),
    "opset-22": (one("Relu", opset=22, ir=10), "1.21"),
    "opset-23": (one("Relu", opset=23, ir=11), "1.23"),
    "opset-23-of-an-older-ir": (one("Relu", opset=23, ir=10), "1.23"),
    "opset-25": (one("Relu", opset=25, ir=13), "1.24"),
    "opset-26": (one("Relu", opset=26, ir=13), "1.25"),
    "opset-28": (one("Relu", opset=28, ir=14), "1.32"),
    "ir-11": (one("Relu", opset=17, ir=11), "1.23"),
    "ir-14": (one("Relu", opset=17, ir=14), "1.32"),
    "a-kernel-that-came-after-its-opset": (one("LpNormalization", opset=22, ir=10, axis=1), "1.25"),
    "the-same-in-an-opset-before": (one("LpNormalization", opset=21, ir=10, axis=1), OLDEST),
    "max-of-float": (one("Max", "x", opset=13), OLDEST),
    "max-of-uint8": (one("Max", "x", opset=13, kind=UINT8), "1.24"),
    "space-to-depth-of-int8": (one("SpaceToDepth", opset=13, kind=INT8, blocksize=2), "1.28"),
    "space-to-depth-of-float": (one("SpaceToDepth", opset=13, blocksize=2), OLDEST),
    "triangle-of-int32-behind-a-cast": (
        network(
            helper.make_node("Cast", ["x"], ["i"], to=INT32),
            helper.make_node("Trilu", ["i"], ["y"]),
            opset=14,
            out=INT32,
        ),
        "1.29",
    ),
    "triangle-of-int64-behind-a-cast": (
        network(
            helper.make_node("Cast", ["x"], ["i"], to=INT64),
            helper.make_node("Trilu", ["i"], ["y"]),
            opset=14,
            out=INT64,
        ),
        OLDEST,
    ),
    "an-attribute": (
        one(
            "GatherBlockQuantized", "i", "s", opset=21, ir=10, kind=UINT8, out=FLOAT, shape=(4, 32), bits=8,
            block_size=32, domain="com.microsoft", domains={"com.microsoft": 1},
            weights={"i": np.zeros(2, np.int64), "s": np.ones((4, 1), np.float32)},
        ),
        "1.23",
    ),
    "inverse-and-onesided": (signal(20, inverse=1, onesided=1), "1.25"),
    "inverse": (signal(17, inverse=1), OLDEST),
}  # fmt: skip


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, str]:
    folder = tmp_path_factory.mktemp("engines")
    networks = {name: model.SerializeToString() for name, (model, _) in NETWORKS.items()}
    return needs(networks, folder)


def test_each_need(engines: dict[Path, str]) -> None:
    found = {path.stem: need for path, need in engines.items()}
    assert found == {name: f"cpu+ort>={least}" for name, (_, least) in NETWORKS.items()}


@pytest.mark.parametrize("version", [*runtimes.SOME, runtimes.FIRST[-1]])
def test_the_verdict_is_what_the_library_does(engines: dict[Path, str], version: str) -> None:
    if why := runtimes.environment(version)[1]:
        pytest.skip(why)
    errors = runtimes.loads(version, [*engines])
    assert {path.stem: not error for path, error in zip(engines, errors, strict=True)} == {
        path.stem: verdict(version, need) for path, need in engines.items()
    }


def test_imports_are_features_of_their_own() -> None:
    model = one("Relu", opset=25, ir=10, domains={"com.microsoft": 1, "ai.onnx.training": 1})
    assert sorted(imported(model)) == ["ai.onnx/25", "com.microsoft/1", "ir/10"]
    least = least_version(imported(model), "1.32.0")
    assert (least.version, least.reason) == ("1.24", "1.24 came with ai.onnx/25")
    assert least_version(imported(one("Relu", opset=17)), "1.32.0").reason == ""


@pytest.mark.parametrize(
    "model",
    [
        one("Relu", opset=99),
        one("Relu", opset=17, ir=99),
        one("Magic", opset=17, domain="org.example", domains={"org.example": 1}),
        one("Magic", opset=17),
        one("Conv", "w", opset=17, domain="com.microsoft.nchwc", domains={"com.microsoft.nchwc": 1}),
    ],
    ids=["opset", "ir", "domain", "operator", "layout-of-one-cpu"],
)
def test_the_unknown_needs_the_version_of_the_builder(model: onnx.ModelProto) -> None:
    assert least_version(features(model), "1.27.3").version == "1.27.3"


def test_a_function_of_the_model_is_unknown() -> None:
    model = one("F", opset=17, domain="local", domains={"local": 1})
    body = helper.make_node("Relu", ["a"], ["b"])
    model.functions.append(helper.make_function("local", "F", ["a"], ["b"], [body], [helper.make_opsetid("", 17)]))
    assert least_version(features(model), "1.27.3").version == "1.27.3"


def test_a_builder_newer_than_the_table_needs_itself() -> None:
    newer = ".".join([*NEWEST.split(".")[:1], str(int(NEWEST.split(".")[1]) + 1), "2"])
    assert least_version(imported(one("Relu", opset=17)), newer).version == newer
    assert least_version(imported(one("Relu", opset=17)), f"{NEWEST}.9+cu128").version == OLDEST


def test_nodes_inside_of_branches_count() -> None:
    def branch(name: str, op: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(f"{name}.y", FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["x"], [f"{name}.y"])], name, [], [value])

    inside = helper.make_node(
        "If", ["c"], ["y"], then_branch=branch("then", "Relu"), else_branch=branch("else", "LpNormalization")
    )
    reduced = helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0)
    compared = helper.make_node("Greater", ["m", "z"], ["c"])
    model = network(reduced, compared, inside, opset=22, ir=10, weights={"z": np.float32(0)})
    assert least_version(features(model), "1.32.0").version == "1.25"
