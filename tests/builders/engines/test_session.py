"""ONNX Runtime's exceptions: all that the installed library defines become failures with a kind. Sums of bytes that do
not saturate."""

from __future__ import annotations

import inspect
import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as state

from builders.engines.onnxruntime import OnnxRuntimeBackend
from builders.engines.precision import CalibrationSet, quantise
from builders.engines.session import Level, open_session, ort_failures
from store.errors import Invalid, Unavailable
from tests.builders.engines.networks import compiled, part, save, small_network, spec_of

# One for each status code that every supported version has.
_LONG_KNOWN = {
    "EPFail",
    "EngineError",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "ModelLoaded",
    "NoModel",
    "NoSuchFile",
    "NotImplemented",
    "RuntimeException",
}


def test_the_failures_are_all_exceptions_of_the_library() -> None:
    exported = {value for _, value in inspect.getmembers(state, inspect.isclass) if issubclass(value, BaseException)}
    assert set(ort_failures()) == exported
    assert len(ort_failures()) == len(exported)
    assert {error.__name__ for error in ort_failures()} >= _LONG_KNOWN


@pytest.mark.parametrize("error", ort_failures(), ids=lambda error: error.__name__)
def test_each_exception_becomes_a_failure_with_its_words(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fails(*args: Any, **kwargs: Any) -> Any:
        raise error("words of the library")

    model = small_network().SerializeToString()
    session = open_session(model, "off")
    monkeypatch.setattr(session._session, "run", fails)
    with pytest.raises(Invalid, match="words of the library") as caught:
        session.run({"image": np.zeros((1, 3, 16, 16), np.float32)})
    assert caught.value.kind == "wrong-inputs"
    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    with pytest.raises(Invalid, match="words of the library") as caught:
        open_session(model, "off")
    assert caught.value.kind == "invalid-model"


# As the providers word it, in reports of their users.
NO_MEMORY = (
    "std::bad_alloc",
    "Non-zero status code returned while running Conv node. Name:'Conv_111' Status Message: onnxruntime/core/framework/"
    "bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) Failed to "
    "allocate memory for requested buffer of size 939524096",
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=cuda_allocator.cc ; expr=cudaMalloc((void**)&p",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; line=168 ; expr=cublasCreate(&cublas_handle_);",
    "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
    "CUDNN failure 5003: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0",
    "HIP failure 2: out of memory ; GPU=0 ; file=rocm_allocator.cc",
    "[GPU] Exceeded max size of memory object allocation: requested 5000000000 bytes, but max alloc size supported by",
    "[GPU] clEnqueueNDRangeKernel, error code: -4 CL_MEM_OBJECT_ALLOCATION_FAILURE",
    "Exception(4) tid(5e4) 8007000E Not enough memory resources are available to complete this operation.",
)


@pytest.mark.parametrize("words", NO_MEMORY)
def test_words_for_a_want_of_memory_make_it_unavailable(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    def fails(*args: Any, **kwargs: Any) -> Any:
        raise state.EngineError(words)

    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    with pytest.raises(Unavailable) as caught:
        open_session(small_network().SerializeToString(), "off")
    assert caught.value.kind == "out-of-memory"


def weights_of_convolutions(path: Path) -> set[int]:
    """The types of the weights of convolutions of bytes."""
    model = onnx.load(path)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {types[node.input[3]] for node in model.graph.node if node.op_type == "QLinearConv"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="what saturates are instructions of x86_64")
@pytest.mark.parametrize("level", ["extended", "all"])
def test_a_network_in_int8_for_any_cpu_has_no_products_that_saturate(tmp_path: Path, level: Level) -> None:
    """Unsigned times signed bytes saturate on a CPU without VNNI, unsigned times unsigned ones nowhere. With VNNI, as
    here perhaps, both give the same."""
    rows = np.random.default_rng(1).random((4, 3, 16, 16), np.float32)
    quantise(save(tmp_path, small_network()), CalibrationSet(rows), "minmax", tmp_path / "int8.onnx")
    data, results = (tmp_path / "int8.onnx").read_bytes(), []
    for any_cpu, dtype in ((False, onnx.TensorProto.INT8), (True, onnx.TensorProto.UINT8)):
        session = open_session(data, level, save_as=tmp_path / "saved.onnx", any_cpu=any_cpu)
        assert weights_of_convolutions(tmp_path / "saved.onnx") == {dtype}
        results.append(session.run({"image": rows})["descriptor"])
    exact = open_session(data, "off").run({"image": rows})["descriptor"]
    assert np.abs(results[1] - exact).max() <= 0.01 * np.abs(exact).max()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="what saturates are instructions of x86_64")
def test_a_portable_engine_in_int8_is_for_any_cpu(tmp_path: Path) -> None:
    rows = CalibrationSet(np.random.default_rng(1).random((4, 3, 16, 16), np.float32))
    path = save(tmp_path, small_network())
    quantise(path, rows, "minmax", tmp_path / "int8.onnx")
    engine = compiled(spec_of(path, precision="int8"), tmp_path, quantised=tmp_path / "int8.onnx", rows=rows)
    assert weights_of_convolutions(part(engine)) == {onnx.TensorProto.UINT8}
    OnnxRuntimeBackend().load(part(engine).read_bytes(), "cpu").run({"image": rows.rows})


def test_the_library_prints_nothing_of_a_network(capfd: pytest.CaptureFixture[str]) -> None:
    """It warns of an initializer that nothing uses, by its name, on the file descriptor of standard error."""
    model = small_network()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "\x1b[31mGO"))
    open_session(model.SerializeToString(), "all")
    assert capfd.readouterr() == ("", "")
