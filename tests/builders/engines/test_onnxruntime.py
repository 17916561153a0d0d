"""Portable engines: compiled for real in their process, measured, judged; and what happens when that goes wrong."""

from __future__ import annotations

import dataclasses
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from builders.engines import onnxruntime as portable
from builders.engines.base import CheckFigures, EngineBackend, EngineSpec, InputRange, hash_model
from builders.engines.onnxruntime import TOLERANCES, OnnxRuntimeBackend, judge
from builders.engines.worker import least_cosine
from store.errors import Conflict, Invalid, Refused, Unavailable
from store.format.cbor import decode, encode
from tests.builders.engines.networks import elementwise, save, save_external, small_network

BACKEND: EngineBackend = OnnxRuntimeBackend()
DYNAMIC = InputRange("image", ("N", 3, 16, 16), 1, 2, 5)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")


def spec_of(path: Path, *inputs: InputRange) -> EngineSpec:
    return EngineSpec("net", hash_model(path), "fp32", inputs or (DYNAMIC,))


def shared_model(name: str) -> Path:
    root = os.environ.get("FLIGHTBAG_SHARED")
    if not root or not (path := Path(root) / "data/models" / name).exists():
        pytest.skip("FLIGHTBAG_SHARED names no folder with the shared models")
    return path


def test_a_dynamic_network_is_compiled_measured_at_three_batches_and_runs(tmp_path: Path) -> None:
    path = save(tmp_path, small_network())
    compiled = BACKEND.compile(spec_of(path), tmp_path)
    assert compiled.check.batches == (1, 2, 5)
    assert compiled.check.reference_max > 0
    assert compiled.check.relative_error <= 1e-3
    assert compiled.check.cosine >= 0.9999
    assert [(end.name, end.dtype, end.shape) for end in compiled.inputs] == [("image", "float32", ("N", 3, 16, 16))]
    assert [(end.name, end.dtype, end.shape) for end in compiled.outputs] == [("descriptor", "float32", ("N", 4))]
    session = BACKEND.load(compiled.path.read_bytes())
    images = np.random.default_rng(1).random((4, 3, 16, 16), np.float32)
    descriptor = session.run({"image": images})["descriptor"]
    weights = onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    expected = np.maximum(np.einsum("nchwij,ocij->nohw", windows, weights), 0).mean(axis=(2, 3))
    np.testing.assert_allclose(descriptor, expected, rtol=1e-4, atol=1e-5)


def test_the_engine_is_an_optimised_network(tmp_path: Path) -> None:
    path = save(tmp_path, small_network())
    compiled = BACKEND.compile(spec_of(path), tmp_path)
    operators = [node.op_type for node in onnx.load(compiled.path).graph.node]
    assert "FusedConv" in operators
    assert "Relu" not in operators


def test_a_network_of_one_fixed_shape_is_compiled(tmp_path: Path) -> None:
    path = save(tmp_path, small_network(batch=1, side=22))
    compiled = BACKEND.compile(spec_of(path, InputRange("image", (1, 3, 22, 22))), tmp_path)
    assert compiled.check.batches == (1,)
    assert compiled.inputs[0].shape == (1, 3, 22, 22)


def test_a_dynamic_network_may_be_declared_with_a_fixed_batch(tmp_path: Path) -> None:
    path = save(tmp_path, small_network())
    assert BACKEND.compile(spec_of(path, InputRange("image", (3, 3, 16, 16))), tmp_path).check.batches == (3,)


def test_the_shared_place_embedder_is_compiled(tmp_path: Path) -> None:
    spec = spec_of(shared_model("place-embedder.onnx"), InputRange("image", ("N", 3, 256, 256), 1, 2, 4))
    compiled = BACKEND.compile(spec, tmp_path)
    assert compiled.check.batches == (1, 2, 4)
    assert compiled.check.cosine >= 0.9999
    assert compiled.outputs[0].shape == ("N", 288)


def test_a_shape_that_a_network_declares_and_does_not_run_on_is_refused(tmp_path: Path) -> None:
    """The shared export of batch 1 and 352 x 352 declares [N, 3, 256, 256] at its ends."""
    path = shared_model("place-embedder-batch1-352.onnx")
    model = onnx.load(path)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    declared = [dim.dim_param or dim.dim_value for dim in dims]
    if declared != ["N", 3, 256, 256]:
        pytest.skip(f"the shared export declares {declared}, as it should")
    with pytest.raises(Invalid, match=r"batch1-352\.onnx does not run on image \[1, 3, 256, 256\]"):
        BACKEND.compile(spec_of(path, InputRange("image", ("N", 3, 256, 256), 1, 1, 1)), tmp_path)
    # With its ends set right it is what the description of the shared data says.
    for dim, size in zip(dims, (1, 3, 352, 352), strict=True):
        dim.dim_value = size
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    right = save(tmp_path / "right", model)
    compiled = BACKEND.compile(spec_of(right, InputRange("image", (1, 3, 352, 352))), tmp_path)
    assert compiled.outputs[0].shape == (1, 288)


def test_equal_sources_give_equal_bytes_wherever_they_lie(tmp_path: Path) -> None:
    engines = set()
    for folder in ("one", "two/with a longer name"):
        path = save(tmp_path / folder, small_network())
        engines.add(BACKEND.compile(spec_of(path), path.parent).path.read_bytes())
    assert len(engines) == 1
    assert str(tmp_path).encode() not in engines.pop()


def test_external_weights_are_taken_in(tmp_path: Path) -> None:
    inside, outside = save(tmp_path / "in", small_network()), save_external(tmp_path / "out", small_network())
    engines = [BACKEND.compile(spec_of(path), path.parent).path for path in (inside, outside)]
    for file in (outside, outside.parent / "weights/w.bin"):
        file.unlink()
    images = {"image": np.full((1, 3, 16, 16), 0.5, np.float32)}
    results = [BACKEND.load(path.read_bytes()).run(images)["descriptor"] for path in engines]
    assert results[0].tobytes() == results[1].tobytes()


def test_a_model_that_changed_since_the_plan_is_not_compiled(tmp_path: Path) -> None:
    path = save_external(tmp_path, small_network())
    spec = spec_of(path)
    weights = path.parent / "weights/w.bin"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    with pytest.raises(Conflict, match="changed while the mission was being built"):
        BACKEND.compile(spec, tmp_path)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([InputRange("image", ("N", 1, 16, 16), 1, 1, 1)], r"inputs\.image declares shape \['N', 1, 16, 16\], .*takes"),
        ([InputRange("image", ("N", 3, 16), 1, 1, 1)], r"inputs\.image declares shape \['N', 3, 16\]"),
        ([InputRange("picture", ("N", 3, 16, 16), 1, 1, 1)], r"inputs\.image is missing, .*inputs\.picture is"),
        ([DYNAMIC, InputRange("mask", (1,))], r"inputs\.mask is declared, net\.onnx takes image"),
    ],
)  # fmt: skip
def test_inputs_that_are_not_the_models_are_named(tmp_path: Path, inputs: list[InputRange], says: str) -> None:
    path = save(tmp_path, small_network())
    with pytest.raises(Invalid, match=r"backbones\[net\]\." + says):
        BACKEND.compile(spec_of(path, *inputs), tmp_path)


def test_a_symbol_where_the_model_has_a_size_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, small_network(batch=1))
    with pytest.raises(Invalid, match=r"declares shape \['N', 3, 16, 16\], net\.onnx takes \[1, 3, 16, 16\]"):
        BACKEND.compile(spec_of(path), tmp_path)


def test_a_model_that_onnx_runtime_refuses_is_invalid_and_carries_the_log(tmp_path: Path) -> None:
    model = elementwise([helper.make_node("NoSuchOperator", ["x"], ["y"])])
    path = save(tmp_path, model)
    with pytest.raises(Invalid, match=r"net\.onnx is refused by ONNX Runtime.*NoSuchOperator") as caught:
        BACKEND.compile(spec_of(path, InputRange("x", ("N", 4), 1, 1, 1)), tmp_path)
    assert "log" in caught.value.fields


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    zero = helper.make_node("Sub", ["x", "x"], ["z"])
    path = save(tmp_path, elementwise([zero, helper.make_node("Div", ["x", "z"], ["y"])]))
    with pytest.raises(Refused, match="is not finite"):
        BACKEND.compile(spec_of(path, InputRange("x", ("N", 4), 1, 1, 1)), tmp_path)


def test_bytes_and_indices_are_fed_as_what_they_are(tmp_path: Path) -> None:
    for dtype in (TensorProto.UINT8, TensorProto.INT64, TensorProto.FLOAT16, TensorProto.BOOL):
        path = save(tmp_path / str(dtype), elementwise([helper.make_node("Cast", ["x"], ["y"], to=1)], dtype))
        compiled = BACKEND.compile(spec_of(path, InputRange("x", ("N", 4), 1, 2, 2)), tmp_path)
        assert compiled.check.reference_max > 0
        assert compiled.check.max_abs_error == 0


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, small_network())
    spec = EngineSpec("net", hash_model(path), "fp16", (DYNAMIC,))
    with pytest.raises(Invalid, match=r"backbones\[net\]\.precision"):
        BACKEND.compile(spec, tmp_path)


def test_a_model_too_large_for_one_file_is_refused_before_it_is_copied(tmp_path: Path) -> None:
    spec = spec_of(save(tmp_path, small_network()))
    large = dataclasses.replace(spec, model=dataclasses.replace(spec.model, size=2**31))
    with pytest.raises(Invalid, match="larger than the 2 GiB"):
        BACKEND.compile(large, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


def test_load_says_what_is_no_engine() -> None:
    with pytest.raises(Invalid, match="refused by ONNX Runtime"):
        BACKEND.load(b"no engine")


def test_feeds_that_an_engine_does_not_take_are_invalid(tmp_path: Path) -> None:
    session = BACKEND.load(small_network().SerializeToString())
    with pytest.raises(Invalid, match="does not run on"):
        session.run({"image": np.zeros((1, 3, 8, 8), np.float32)})
    with pytest.raises(Invalid, match="does not run on"):
        session.run({})


# The process


def worker_pid(folder: Path) -> int:
    """The pid of the worker on a request under `folder`, waited for until it has begun to read it."""
    for _ in range(2000):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if b"builders.engines.worker" in command and str(folder).encode() in command:
                    return int(entry.name)
        time.sleep(0.005)
    raise AssertionError("no worker was seen")


def is_alive(pid: int) -> bool:
    try:
        return b"\nState:\tZ" not in Path(f"/proc/{pid}/status").read_bytes()
    except FileNotFoundError:
        return False


def wait_until_dead(pid: int) -> None:
    for _ in range(2000):
        if not is_alive(pid):
            return
        time.sleep(0.005)
    raise AssertionError(f"{pid} goes on")


@LINUX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_that_is_killed_is_unavailable(tmp_path: Path, number: signal.Signals) -> None:
    path = save(tmp_path, small_network())
    killer = threading.Thread(target=lambda: os.kill(worker_pid(tmp_path), number))
    killer.start()
    with pytest.raises(Unavailable, match=rf"compiles net\.onnx was ended by {number.name}") as caught:
        BACKEND.compile(spec_of(path), tmp_path)
    killer.join()
    assert caught.value.fields["status"] == -number


def test_a_worker_that_runs_out_of_memory_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose one tensor no machine holds: ONNX Runtime fails to allocate, the model is not to blame."""
    size = helper.make_node("Constant", [], ["s"], value_ints=[2**45])
    nodes = [
        size,
        helper.make_node("ConstantOfShape", ["s"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    path = save(tmp_path, elementwise(nodes))
    with pytest.raises(Unavailable, match=r"net\.onnx") as caught:
        BACKEND.compile(spec_of(path, InputRange("x", ("N", 4), 1, 1, 1)), tmp_path)
    assert caught.value.fields["log"]


@LINUX
def test_an_interrupt_ends_the_worker(tmp_path: Path) -> None:
    path = save(tmp_path, endless())  # it is still at it, however late the interrupt comes
    seen: list[int] = []

    def interrupt() -> None:
        seen.append(worker_pid(tmp_path))
        # Not while it is being started: what is interrupted there dies with its parent, which here is pytest.
        wait_until_busy(seen[0])
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        BACKEND.compile(spec_of(path, InputRange("x", ("N", 4), 1, 1, 1)), tmp_path)
    thread.join()
    assert not is_alive(seen[0])


PARENT = """
import sys
from pathlib import Path
from builders.engines.base import EngineSpec, InputRange, hash_model
from builders.engines.onnxruntime import OnnxRuntimeBackend
spec = EngineSpec("net", hash_model(Path(sys.argv[1])), "fp32", (InputRange("x", ("N", 4), 1, 1, 1),))
OnnxRuntimeBackend().compile(spec, Path(sys.argv[2]))
"""


@LINUX
def test_a_worker_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    path = save(tmp_path, endless())
    (tmp_path / "work").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(path), str(tmp_path / "work")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
    ) as parent:
        pid = worker_pid(tmp_path / "work")
        wait_until_busy(pid)
        parent.kill()
    wait_until_dead(pid)


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


def wait_until_busy(pid: int) -> None:
    """Until the worker has loaded the library: past its first line, where it asks the kernel to end with its parent."""
    for _ in range(4000):
        try:
            if b"onnxruntime_pybind11_state" in Path(f"/proc/{pid}/maps").read_bytes():
                return
        except OSError as error:
            raise AssertionError(f"{pid} has ended") from error
        time.sleep(0.005)
    raise AssertionError(f"{pid} never loaded the library")


def test_the_worker_finds_the_package_from_any_folder_and_takes_none_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, small_network())
    (tmp_path / "onnxruntime.py").write_text("raise SystemExit('the wrong module')")
    monkeypatch.chdir(tmp_path)
    assert BACKEND.compile(spec_of(path), tmp_path).check.batches == (1, 2, 5)


# The judgement


def figures(error: float = 0.0, greatest: float = 1.0, cosine: float = 1.0, **more: object) -> CheckFigures:
    return CheckFigures(error, greatest, cosine, **{"batches": (1,), **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [
        figures(error=1.01e-3),
        figures(error=1e-6, greatest=1e-4),
        figures(error=1e-9, greatest=0.0),
        figures(cosine=0.99989),
        figures(error=float("nan")),
        figures(greatest=float("nan"), error=1.0),
        figures(cosine=float("nan")),
        figures(error=float("inf"), greatest=float("inf")),
        figures(faults=("output y is missing",)),
        figures(batches=()),
    ],
    ids=repr,
)
def test_an_engine_that_computes_something_else_is_refused(wrong: CheckFigures) -> None:
    with pytest.raises(Refused):
        judge(wrong, TOLERANCES["fp32"])


@pytest.mark.parametrize("right", [figures(), figures(error=1e-3), figures(0.0, 0.0), figures(cosine=0.9999)], ids=repr)
def test_an_engine_within_the_tolerance_passes(right: CheckFigures) -> None:
    judge(right, TOLERANCES["fp32"])


def test_a_refusal_names_the_figures() -> None:
    with pytest.raises(Refused, match=r"error is 0\.5 .* value is 2.*cosine to the reference is 0\.900000") as caught:
        judge(figures(0.5, 2.0, 0.9), TOLERANCES["fp32"])
    assert caught.value.fields["max_abs_error"] == 0.5


rows = st.lists(st.floats(-1e30, 1e30), min_size=6, max_size=6).map(lambda v: np.array(v).reshape(2, 3))


@given(rows)
def test_the_cosine_of_anything_with_itself_is_1(array: np.ndarray) -> None:
    assert least_cosine(array, array) == pytest.approx(1.0)


@given(rows, rows, st.floats(1e-3, 1e3))
def test_the_cosine_is_symmetric_bounded_and_free_of_scale(a: np.ndarray, b: np.ndarray, by: float) -> None:
    cosine = least_cosine(a, b)
    assert -1.0 - 1e-9 <= cosine <= 1.0
    assert least_cosine(b, a) == pytest.approx(cosine)
    assert least_cosine(a * 2, b * 2) == pytest.approx(cosine)


def test_one_row_that_turned_is_not_hidden_by_many_that_did_not() -> None:
    a = np.ones((1000, 4))
    b = a.copy()
    b[500] *= -1
    assert least_cosine(a, b) == pytest.approx(-1.0)
    b[500] = 0
    assert least_cosine(a, b) == 0.0


# The key


def test_the_key_fields_are_values_that_canonical_cbor_holds(tmp_path: Path) -> None:
    fields = BACKEND.build_key_fields(spec_of(save(tmp_path, small_network())))
    assert decode(encode(dict(fields)), limit=10_000, what="fields") == fields


def test_the_key_says_nothing_of_names_and_places(tmp_path: Path) -> None:
    one, two = (save(tmp_path / folder, small_network()) for folder in ("one", "two"))
    other = EngineSpec("another", hash_model(two.rename(two.with_name("x.onnx"))), "fp32", (DYNAMIC,))
    assert BACKEND.build_key_fields(spec_of(one)) == BACKEND.build_key_fields(other)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: spec_of(save(folder, small_network()), InputRange("image", ("N", 3, 16, 16), 1, 2, 6)),
        lambda folder: spec_of(save(folder, small_network()), InputRange("image", (2, 3, 16, 16))),
        lambda folder: spec_of(save(folder, small_network(side=17))),
        lambda folder: EngineSpec("net", hash_model(save(folder, small_network())), "fp16", (DYNAMIC,)),
    ],
)
def test_what_changes_the_engine_changes_the_key(tmp_path: Path, change: Callable[[Path], EngineSpec]) -> None:
    before = BACKEND.build_key_fields(spec_of(save(tmp_path / "a", small_network())))
    assert BACKEND.build_key_fields(change(tmp_path / "b")) != before


def test_the_order_of_inputs_is_not_in_the_key(tmp_path: Path) -> None:
    path, mask = save(tmp_path, small_network()), InputRange("mask", (1, 4))
    one, two = spec_of(path, DYNAMIC, mask), spec_of(path, mask, DYNAMIC)
    assert BACKEND.build_key_fields(one) == BACKEND.build_key_fields(two)


@pytest.mark.parametrize(
    ("machine", "host"),
    [("x86_64", "cpu-x86_64"), ("AMD64", "cpu-x86_64"), ("arm64", "cpu-aarch64"), ("aarch64", "cpu-aarch64")],
)
def test_this_machine_has_one_name(monkeypatch: pytest.MonkeyPatch, machine: str, host: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert BACKEND.describe_host() == host
    assert BACKEND.engine_host(host) == "cpu"


def test_telemetry_is_off_when_the_library_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os; from builders.extras import import_onnxruntime as start; start(); "
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize("module", ["onnxruntime", "onnx"])
def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    path = save(tmp_path, small_network())
    spec = spec_of(path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Unavailable, match=r"needs " + module) as caught:
        portable.OnnxRuntimeBackend().compile(spec, tmp_path)
    assert "flightbag[build]" in caught.value.remedy


def test_a_missing_pydantic_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['pydantic'] = None\n"
        "from store.errors import Unavailable\nimport builders\n"
        "try:\n    import builders.mission_file\n"
        "except Unavailable as error:\n    print(error.remedy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "flightbag[build]" in done.stdout
