"""Orders: what a planner's machine writes down for hardware that it has not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from builders.engines.precision import CalibrationSet
from builders.engines.session import open_session
from builders.report import OrderReport
from store.format.order import MODEL, Order
from store.ground.orders import ordered_here, read_order
from store.ground.repository import Repository
from tests.builders.test_fulfilment import SMALL, the_order
from tests.support.commands import flightbag
from tests.support.field import Desk
from tests.support.here import confine_here

ORIN = "cuda12.6+l4t-36.4.3+linux-aarch64+sm87-orin-16sm-64gb+trt10-10.3.0.30"
ONNXRUNTIME = ('backend = "onnxruntime"', 'backend = "tensorrt"')
FP16 = ('precision = "fp32"', 'precision = "fp16"')
INT8 = ('precision = "fp32"', 'precision = "int8"')


@pytest.fixture(scope="module")
def _mapped(_first_desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk for whose area every order is: confined tasks run in this process."""
    folder = tmp_path_factory.mktemp("orders") / "desk"
    shutil.copytree(_first_desk.folder, folder)
    with pytest.MonkeyPatch.context() as patch:
        confine_here(patch)
        yield Desk(folder)


@pytest.fixture
def desk(_mapped: Desk) -> Desk:
    shutil.rmtree(_mapped.store / "orders", ignore_errors=True)
    return _mapped


def mission(desk: Desk, *changes: tuple[str, str], host: str = ORIN) -> Path:
    path = desk.write_mission("left", host=host, files=(), **SMALL)
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def ordered(desk: Desk, path: Path) -> tuple[OrderReport, Order]:
    ran = flightbag("engines", "order", path, "--store", desk.store, "--json")
    assert ran.status == 0, ran.err
    report = OrderReport(**ran.json["orders"][0])
    assert report.outcome == "ordered", report.why
    with Repository.open(desk.store) as repository:
        order = the_order(repository)
        assert str(order.key) == report.key
        assert ordered_here(repository.media, order.key) == read_order(repository.evidence, order.key)[0]
        for id_, size in order.objects.items():
            repository.media.digest(id_, size)
    return report, order


def content(desk: Desk, order: Order, part: str) -> bytes:
    (file,) = getattr(order, part)
    assert file.name == MODEL
    with Repository.open(desk.store) as repository:
        return bytes(repository.evidence.bytes_of(file.id, file.size))


def test_a_laptop_without_the_library_orders_for_the_device(desk: Desk) -> None:
    report, order = ordered(desk, mission(desk, ONNXRUNTIME, FP16))
    assert report.why
    assert (order.need, order.backend, order.fields["version"]) == (ORIN, "tensorrt", "10.3.0.30")
    types = {one.data_type for one in onnx.load_from_string(content(desk, order, "network")).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in types, "it is cast here: a device has no tools for that"
    assert onnx.TensorProto.FLOAT16 not in {
        one.data_type for one in onnx.load_from_string(content(desk, order, "source")).graph.initializer
    }
    assert (order.probes[0].figure, order.probes[0].least) == ("fidelity/embedder", 999_000)
    assert (order.rows, order.reference, order.engine) == (None, None, ())


def test_a_network_in_int8_comes_with_what_it_is_checked_on(desk: Desk) -> None:
    model = desk.folder / "embedder.onnx"
    image = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    run = open_session(model.read_bytes(), "off").run({"image": image})
    np.savez(desk.folder / "io.npz", image=image, **run)
    path = mission(desk, ONNXRUNTIME, (INT8[0], f'{INT8[1]}\nreference = "io.npz"\ncompare = ["descriptor"]'))
    _, order = ordered(desk, path)
    assert [name for name, _ in order.steps] == ["quantised"]
    assert "QuantizeLinear" in {
        node.op_type for node in onnx.load_from_string(content(desk, order, "network")).graph.node
    }
    assert order.compare == ("descriptor",)
    assert order.rows is not None
    assert order.reference is not None
    with Repository.open(desk.store) as repository:
        rows = desk.folder / "rows"
        rows.write_bytes(repository.evidence.bytes_of(order.rows.id, order.rows.size))
        assert CalibrationSet.open(rows).rows.shape[1:] == (3, 64, 64)
        reference = bytes(repository.evidence.bytes_of(order.reference.id, order.reference.size))
        assert reference == (desk.folder / "io.npz").read_bytes()


def test_weights_in_a_file_of_their_own_come_along(desk: Desk, tmp_path: Path) -> None:
    model = desk.folder / "embedder.onnx"
    whole = model.read_bytes()
    try:
        onnx.save(onnx.load(model), model, save_as_external_data=True, location="w.data", size_threshold=16)
        _, order = ordered(desk, mission(desk, ONNXRUNTIME))
        session = open_session(content(desk, order, "network"), "off")
        assert [one.name for one in session.inputs] == ["image"]
    finally:
        model.write_bytes(whole)


def test_an_engine_that_is_made_here_is_not_ordered(desk: Desk) -> None:
    ran = flightbag("engines", "order", mission(desk, host="auto"), "--store", desk.store, "--json")
    assert (ran.status, ran.json["orders"][0]["outcome"], ran.json["orders"][0]["why"]) == (0, "not needed", "")
    assert not (desk.store / "orders").exists()


def test_an_engine_with_plug_ins_is_not_ordered(desk: Desk) -> None:
    (desk.folder / "warp.so").write_bytes(b"code")
    path = mission(desk, (ONNXRUNTIME[0], f'{ONNXRUNTIME[1]}\ntensorrt = {{ plugins = ["warp.so"] }}'))
    ran = flightbag("engines", "order", path, "--store", desk.store)
    assert (ran.status, "code for a device is not carried" in ran.err) == (2, True)
    assert "build the engine on a machine like the aircraft's" in ran.err
    assert not (desk.store / "orders").exists()


def test_a_model_that_no_engine_could_be_of_is_not_ordered(desk: Desk) -> None:
    path = mission(desk, ONNXRUNTIME, ("image = {", "picture = {"))
    ran = flightbag("engines", "order", path, "--store", desk.store)
    assert (ran.status, "picture" in ran.err) == (2, True)
    assert not (desk.store / "orders").exists()
