"""Networks in other precisions, what they are calibrated with, and engines in int8 from end to end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from blake3 import blake3
from onnx import TensorProto, helper, numpy_helper

from builders.engines.base import EngineSpec, InputRange
from builders.engines.check import TOLERANCES
from builders.engines.compiling import CompileSettings, HashedFile, quantise_network
from builders.engines.isolation import Limits
from builders.engines.model import hash_model, onnx_bytes
from builders.engines.onnxruntime import OnnxRuntimeBackend
from builders.engines.precision import (
    METHODS,
    CalibrationSet,
    caster_version,
    float16_copy,
    quantise,
    quantiser_version,
)
from builders.engines.session import open_session
from store.errors import Conflict, FlightbagError, Invalid, Unavailable
from store.format.ids import ObjectId
from tests.builders.engines.networks import (
    MEMORY,
    SECONDS,
    batches,
    compiled,
    elementwise,
    endless,
    part,
    save,
    save_external,
    shared_model,
    small_network,
    spec_of,
)

EMBEDDER_INPUT = InputRange("image", ("N", 3, 256, 256), 1, 2, 4)


def rows(count: int = 6) -> np.ndarray:
    return np.random.default_rng(1).random((count, 3, 16, 16), np.float32)


def of_opset(number: int) -> onnx.ModelProto:
    model = small_network()
    model.opset_import[0].version = number
    return model


def network_in_int8(
    spec: EngineSpec, calibration: CalibrationSet, folder: Path, method: str = "minmax", **limits: Any
) -> HashedFile:
    settings = CompileSettings(Limits(**{"memory": MEMORY, "seconds": SECONDS, **limits}), folder / "cache")
    made, seconds = quantise_network(spec, calibration, method, folder, settings=settings, progress=lambda *_: None)
    assert seconds > 0
    return made


def is_calibration(error: FlightbagError) -> bool:
    return isinstance(error, Invalid) and error.kind == "calibration"


# float16


@pytest.mark.parametrize("keep", [save, save_external], ids=["inside", "outside"])
def test_a_network_in_float16_takes_and_gives_what_it_did(tmp_path: Path, keep: Any) -> None:
    path = keep(tmp_path, small_network())
    float16_copy(path, tmp_path / "half.onnx")
    half = onnx.load(tmp_path / "half.onnx", load_external_data=False)
    weights = [each for each in half.graph.initializer if each.name.startswith("w")]
    assert [each.data_type for each in weights] == [TensorProto.FLOAT16]
    whole, cast = open_session(onnx_bytes(hash_model(path)), "off"), open_session((tmp_path / "half.onnx"), "off")
    assert (cast.inputs, cast.outputs) == (whole.inputs, whole.outputs)
    right, found = (each.run({"image": rows()})["descriptor"] for each in (whole, cast))
    assert found.dtype == np.float32
    assert 0 < np.abs(found - right).max() <= TOLERANCES["fp16"].relative_error * np.abs(right).max()


def test_a_network_is_cast_to_equal_bytes_wherever_it_lies(tmp_path: Path) -> None:
    made = set()
    for folder in ("one", "two/deep"):
        path = save(tmp_path / folder, small_network())
        before = path.read_bytes()
        float16_copy(path, path.with_name("half.onnx"))
        assert path.read_bytes() == before
        made.add(path.with_name("half.onnx").read_bytes())
    assert len(made) == 1


def test_the_tools_are_named_with_their_versions() -> None:
    import PIL

    assert caster_version() == f"onnxruntime {OnnxRuntimeBackend().version}, onnx {onnx.__version__}"
    assert quantiser_version() == f"{caster_version()}, pillow {PIL.__version__}"


# int8


@pytest.mark.parametrize("method", METHODS)
def test_a_network_is_quantised_to_equal_bytes_and_stays_close(tmp_path: Path, method: str) -> None:
    made = set()
    for folder in ("one", "two/deep"):
        path = save(tmp_path / folder, small_network())
        before = path.read_bytes()
        quantise(path, CalibrationSet(rows()), method, path.with_name("int8.onnx"))
        assert path.read_bytes() == before
        made.add(path.with_name("int8.onnx").read_bytes())
    (data,) = made
    operators = [node.op_type for node in onnx.load_model_from_string(data).graph.node]
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= set(operators)
    whole, cast = open_session(path.read_bytes(), "off"), open_session(data, "off")
    assert [(end.name, end.dtype) for end in cast.inputs] == [("image", "float32")]
    right, found = (each.run({"image": rows()})["descriptor"] for each in (whole, cast))
    assert 0 < np.abs(found - right).max() <= 0.05 * np.abs(right).max()


def test_scales_are_symmetric_signed_and_by_channel(tmp_path: Path) -> None:
    """What TensorRT asks: no zero point but 0, int8 alone, and a scale for each channel of the weights."""
    quantise(save(tmp_path, small_network()), CalibrationSet(rows()), "minmax", tmp_path / "int8.onnx")
    made = {each.name: each for each in onnx.load(tmp_path / "int8.onnx").graph.initializer}
    points = [each for name, each in made.items() if name.endswith("_zero_point")]
    assert points
    assert all(each.data_type == TensorProto.INT8 for each in points)
    assert all(not numpy_helper.to_array(each).any() for each in points)
    assert list(made["w_scale"].dims) == [4]
    assert made["w_quantized"].data_type == TensorProto.INT8


def test_weights_outside_are_quantised_as_those_inside(tmp_path: Path) -> None:
    results = []
    for keep, folder in ((save, "in"), (save_external, "out")):
        path = keep(tmp_path / folder, small_network())
        quantise(path, CalibrationSet(rows()), "minmax", path.with_name("int8.onnx"))
        session = open_session(path.with_name("int8.onnx").read_bytes(), "off")
        results.append(session.run({"image": rows()})["descriptor"].tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize(("opset", "then"), [(11, 13), (12, 13), (13, 13), (17, 17)])
def test_a_network_of_an_old_opset_is_converted(tmp_path: Path, opset: int, then: int) -> None:
    quantise(save(tmp_path, of_opset(opset)), CalibrationSet(rows()), "minmax", tmp_path / "int8.onnx")
    made = onnx.load(tmp_path / "int8.onnx")
    assert [each.version for each in made.opset_import if each.domain == ""] == [then]
    session = open_session((tmp_path / "int8.onnx").read_bytes(), "off")
    assert session.run({"image": rows()})["descriptor"].shape == (6, 4)


def test_the_rows_are_what_the_ranges_come_from(tmp_path: Path) -> None:
    path = save(tmp_path, small_network())
    for name, by in (("one", 1), ("two", 2)):
        quantise(path, CalibrationSet(rows() * np.float32(by)), "minmax", tmp_path / name)
    scales = [
        numpy_helper.to_array(next(each for each in onnx.load(tmp_path / name).graph.initializer
                                   if each.name == "image_scale"))
        for name in ("one", "two")
    ]  # fmt: skip
    assert scales[1] == pytest.approx(2 * scales[0])
    assert scales[0] == pytest.approx(rows().max() / 127, rel=0.01)


def test_a_network_of_more_than_one_input_is_not_calibrated(tmp_path: Path) -> None:
    model = elementwise([helper.make_node("Add", ["x", "z"], ["y"])])
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4]))
    with pytest.raises(Invalid, match="2 inputs") as caught:
        quantise(save(tmp_path, model), CalibrationSet(np.ones((2, 4), np.float32)), "minmax", tmp_path / "int8.onnx")
    assert is_calibration(caught.value)
    assert not (tmp_path / "int8.onnx").exists()


def test_weights_that_are_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    model = small_network()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3]))
    quantise(save(tmp_path, model), CalibrationSet(rows()), "minmax", tmp_path / "int8.onnx")
    session = open_session((tmp_path / "int8.onnx").read_bytes(), "off")
    assert session.run({"image": rows()})["descriptor"].shape == (6, 4)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_calibrate_nothing(tmp_path: Path, wrong: float) -> None:
    given = rows()
    given[3, 1, 2, 3] = wrong
    with pytest.raises(Invalid, match="not finite") as caught:
        quantise(save(tmp_path, small_network()), CalibrationSet(given), "minmax", tmp_path / "int8.onnx")
    assert is_calibration(caught.value)


def test_no_rows_calibrate_nothing(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="empty") as caught:
        quantise(save(tmp_path, small_network()), CalibrationSet(rows(0)), "minmax", tmp_path / "int8.onnx")
    assert is_calibration(caught.value)


@pytest.mark.parametrize(
    "given",
    [np.ones((2, 1, 16, 16), np.float32), np.ones((2, 3, 16), np.float32), np.ones((2, 3, 16, 16), np.float64)],
    ids=["channels", "rank", "dtype"],
)
def test_rows_that_the_network_does_not_take_calibrate_nothing(tmp_path: Path, given: np.ndarray) -> None:
    with pytest.raises(Invalid) as caught:
        quantise(save(tmp_path, small_network()), CalibrationSet(given), "minmax", tmp_path / "int8.onnx")
    assert is_calibration(caught.value)


# The set


@pytest.mark.parametrize(
    "given", [rows(), rows(0), np.arange(6, dtype=np.uint8).reshape(2, 3)[:, ::-1]], ids=["rows", "none", "view"]
)
def test_a_set_is_read_as_it_was_written(tmp_path: Path, given: np.ndarray) -> None:
    CalibrationSet(given).save(tmp_path / "rows")
    found = CalibrationSet.open(tmp_path / "rows")
    np.testing.assert_array_equal(found.rows, given)
    assert found.rows.dtype == given.dtype
    assert found.digest == CalibrationSet(given).digest
    assert (tmp_path / "rows").read_bytes()[:32] == found.digest


def test_the_digest_is_of_the_numbers_their_kind_and_their_shape() -> None:
    given = np.arange(12, dtype=np.float32).reshape(3, 4)
    other = given.copy()
    other[1, 1] = np.nextafter(other[1, 1], np.float32(9))
    sets = [given, other, given.reshape(4, 3), given.astype(np.float64), given.view(np.int32), given[::-1]]
    assert len({CalibrationSet(each).digest for each in sets}) == len(sets)
    assert CalibrationSet(np.asfortranarray(given)).digest == CalibrationSet(given).digest


def test_a_set_of_which_one_byte_flipped_is_never_another_set(tmp_path: Path) -> None:
    CalibrationSet(rows(1)).save(tmp_path / "rows")
    data = (tmp_path / "rows").read_bytes()
    opened = []
    for place in [*range(40), *range(32 + 128, len(data), 97)]:
        (tmp_path / "flipped").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            opened.append(CalibrationSet.open(tmp_path / "flipped"))
        except Invalid as error:
            opened += [] if is_calibration(error) else [error]
    assert opened == []


@pytest.mark.parametrize("bit", [1, 2, 4, 16, 64])
def test_a_flipped_byte_in_the_head_of_a_set_is_a_failure_of_calibration_too(tmp_path: Path, bit: int) -> None:
    """The head is a line of Python, read by NumPy."""
    CalibrationSet(rows(1)).save(tmp_path / "rows")
    data = (tmp_path / "rows").read_bytes()
    for place in range(40, 32 + 128):
        (tmp_path / "flipped").write_bytes(data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :])
        try:
            found = CalibrationSet.open(tmp_path / "flipped")
        except Invalid as error:
            found = CalibrationSet(rows(1)) if is_calibration(error) else CalibrationSet(rows(2))
        # Such as "=f4" for "<f4": the same rows.
        assert found.digest == CalibrationSet(rows(1)).digest


def test_a_set_that_was_cut_is_a_failure_of_calibration(tmp_path: Path) -> None:
    CalibrationSet(rows(1)).save(tmp_path / "rows")
    data = (tmp_path / "rows").read_bytes()
    for size in (0, 31, 32, 33, 40, 100, 160, 161, len(data) // 2, len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:size])
        with pytest.raises(Invalid) as caught:
            CalibrationSet.open(tmp_path / "cut")
        assert is_calibration(caught.value)
    with pytest.raises(Invalid, match="cannot be read") as caught:
        CalibrationSet.open(tmp_path / "absent")
    assert is_calibration(caught.value)


def test_a_set_never_brings_code_with_it(tmp_path: Path) -> None:
    with (tmp_path / "rows").open("wb") as file:
        file.write(bytes(32))
        np.save(file, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(Invalid) as caught:
        CalibrationSet.open(tmp_path / "rows")
    assert is_calibration(caught.value)


# From end to end


@dataclass(frozen=True)
class Int8:
    """A network in int8 that the tests share, the path of its source, and what it was calibrated with."""

    path: Path
    calibration: CalibrationSet
    network: HashedFile


@pytest.fixture(scope="module")
def small_int8(tmp_path_factory: pytest.TempPathFactory) -> Int8:
    folder = tmp_path_factory.mktemp("small")
    path, calibration = save(folder, small_network(channels=32)), CalibrationSet(rows())
    return Int8(path, calibration, network_in_int8(spec_of(path, precision="int8"), calibration, folder))


@pytest.fixture(scope="module")
def embedder_int8(tmp_path_factory: pytest.TempPathFactory) -> Int8:
    path = shared_model("place-embedder.onnx")
    # Smooth pictures: what the network saw in training is no noise, and noise is all alike to it.
    coarse = np.random.default_rng(3).random((4, 3, 8, 8), np.float32)
    calibration = CalibrationSet(np.ascontiguousarray(coarse.repeat(32, axis=2).repeat(32, axis=3)))
    spec = spec_of(path, EMBEDDER_INPUT, precision="int8")
    return Int8(path, calibration, network_in_int8(spec, calibration, tmp_path_factory.mktemp("embedder")))


@pytest.mark.parametrize("mode", ["portable", "fast"])
def test_an_engine_in_int8_is_compiled_from_the_quantised_network_and_measured_on_the_rows(
    tmp_path: Path, small_int8: Int8, mode: str
) -> None:
    spec, made = spec_of(small_int8.path, mode=mode, precision="int8"), small_int8.network
    assert (made.name, made.id) == ("model", ObjectId(blake3(made.path.read_bytes()).digest()))
    engine = compiled(spec, tmp_path, quantised=made.path, rows=small_int8.calibration)
    assert batches(engine) == (1, 2, 5)
    assert 1e-6 < engine.check.worst.relative_error <= TOLERANCES["int8"].relative_error
    assert engine.check.cosine >= TOLERANCES["int8"].cosine
    backend = OnnxRuntimeBackend()
    host = "cpu" if mode == "portable" else backend.describe_host()
    weights = part(engine, "weights") if len(engine.parts) > 1 else None
    session = backend.load(part(engine).read_bytes(), host, weights)
    right = open_session(small_network(channels=32).SerializeToString(), "off").run({"image": rows()})["descriptor"]
    found = session.run({"image": rows()})["descriptor"]
    assert 0 < np.abs(found - right).max() <= 0.1 * np.abs(right).max()


def test_an_engine_in_int8_is_the_same_bytes_twice(tmp_path: Path, small_int8: Int8) -> None:
    folder = tmp_path / "two/deep"
    spec = spec_of(save(folder, small_network(channels=32)), precision="int8")
    network = network_in_int8(spec, CalibrationSet(rows()), folder)
    assert network.id == small_int8.network.id
    engines = [
        compiled(spec_of(path, precision="int8"), folder, quantised=quantised.path, rows=CalibrationSet(rows()))
        for path, quantised in ((small_int8.path, small_int8.network), (spec.model.path, network))
    ]
    assert [each.id for each in engines[0].parts] == [each.id for each in engines[1].parts]


def test_what_cannot_be_quantised_says_why_across_the_process(tmp_path: Path) -> None:
    spec = spec_of(save(tmp_path, small_network()), precision="int8")
    with pytest.raises(Invalid, match="not finite") as caught:
        network_in_int8(spec, CalibrationSet(rows() * np.float32("nan")), tmp_path)
    assert is_calibration(caught.value)
    assert caught.value.fields["model"] == "net.onnx"
    assert "log" in caught.value.fields


def test_a_model_that_changed_since_the_plan_is_not_quantised(tmp_path: Path) -> None:
    path = save(tmp_path, small_network())
    spec = spec_of(path, precision="int8")
    save(tmp_path, small_network(side=17))
    with pytest.raises(Conflict, match="changed while the mission was being built"):
        network_in_int8(spec, CalibrationSet(rows()), tmp_path)


def test_quantising_has_its_time_too(tmp_path: Path) -> None:
    spec = spec_of(save(tmp_path, endless()), InputRange("x", (1, 4)), precision="int8")
    with pytest.raises(Unavailable, match=r"took more than 1\.5 s") as caught:
        network_in_int8(spec, CalibrationSet(np.ones((1, 4), np.float32)), tmp_path, seconds=1.5)
    assert caught.value.kind == "timed-out"


@pytest.mark.parametrize("mode", ["portable", "fast"])
def test_the_shared_place_embedder_is_compiled_in_int8(tmp_path: Path, embedder_int8: Int8, mode: str) -> None:
    spec = spec_of(embedder_int8.path, EMBEDDER_INPUT, mode=mode, precision="int8")
    quantised, calibration = embedder_int8.network.path, embedder_int8.calibration
    engine = compiled(spec, tmp_path, quantised=quantised, rows=calibration)
    assert batches(engine) == (1, 2, 4)
    assert engine.check.cosine >= TOLERANCES["int8"].cosine
    assert engine.outputs[0][2] == ["N", 288]
