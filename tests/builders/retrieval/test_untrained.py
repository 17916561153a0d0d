"""The untrained network that describes pictures, and what is said where it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builders.descriptors.preprocess import Preprocess
from builders.example.backbone import write_backbone
from builders.recipe import RowRecipe
from builders.retrieval.untrained import UntrainedNetwork
from store.errors import Unavailable

PREPROCESS = Preprocess((64, 64), "RGB", "0..1", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear")
RECIPE = RowRecipe("", bytes(32), "descriptor", PREPROCESS.fields(), 256, (1, 1), "float16", "none")
PICTURES = [np.random.default_rng(seed).integers(0, 256, (100, 80, 3), np.uint8) for seed in range(5)]


@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_it_describes_as_the_backbone_does(tmp_path: Path, batch: int | str) -> None:
    """Whatever the batch of the model: one picture after another gives the same."""
    write_backbone(tmp_path / "net.onnx", batch=batch)
    network = UntrainedNetwork((tmp_path / "net.onnx").read_bytes, "net", RECIPE)
    rows = network.describe(PICTURES)
    assert rows is not None
    assert (rows.shape, rows.dtype, network.why) == ((5, 32), np.float32, "")
    single = [network.describe([picture]) for picture in PICTURES]
    assert np.allclose(np.concatenate([one for one in single if one is not None]), rows, atol=1e-5)


def test_a_model_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    def gone() -> bytes:
        raise Unavailable("the model is gone")

    network = UntrainedNetwork(gone, "net", RECIPE)
    assert network.why == "the model is gone"
    assert network.describe(PICTURES) is None


def test_descriptors_without_a_direction_are_no_descriptors() -> None:
    """Weights that are all zero stay so."""
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["f"], axis=1),
            helper.make_node("MatMul", ["f", "w"], ["descriptor"]),
        ],
        "zero",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 64, 64])],
        [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.zeros((3 * 64 * 64, 4), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    network = UntrainedNetwork(lambda: onnx.ModelProto.SerializeToString(model), "net", RECIPE)
    assert network.describe(PICTURES) is None
    assert "zero or not finite" in network.why
    assert network.describe(PICTURES) is None
