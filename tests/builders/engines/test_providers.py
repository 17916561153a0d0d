"""Providers: what this machine lacks has a name and a remedy, and no session of another arithmetic comes back."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as state

from builders.engines import providers
from builders.engines.providers import CPU, Device, capability, device_of, open_session, operators, require_provider
from store.errors import FlightbagError, Invalid, Refused, Unavailable
from store.format.entries import NUMERIC
from tests.builders.engines.networks import save, small_network

OWN, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    device_of.cache_clear()
    yield
    device_of.cache_clear()


@pytest.fixture
def seems(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let ONNX Runtime say that it has these providers, as the wheel for GPUs says on a machine without one."""

    def give(*names: str) -> None:
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*names, "AzureExecutionProvider", OWN])

    return give


def options() -> Any:
    made = onnxruntime.SessionOptions()
    made.log_severity_level = 4
    return made


def test_the_cpu_is_a_device_of_one_arithmetic_or_of_any() -> None:
    assert device_of("cpu", "exact") == CPU == Device("cpu", "onnxruntime-cpu-fp32")
    assert device_of("cpu", "any") == Device("cpu", "any")


@pytest.mark.parametrize(
    ("name", "wheel"),
    [("cuda", "onnxruntime-gpu"), ("openvino", "onnxruntime-openvino"), ("dml", "onnxruntime-directml")],
)
def test_a_provider_that_is_absent_is_named_with_those_that_are_there(name: str, wheel: str) -> None:
    with pytest.raises(Unavailable, match=f"no provider '{name}', it has cpu;") as caught:
        device_of(name, "any")
    assert caught.value.remedy == f"pip uninstall onnxruntime, then pip install {wheel}; or name one that it has"


@pytest.mark.parametrize("name", ["gpu", "azure", "nosuch"])
def test_no_provider_has_no_wheel(name: str) -> None:
    with pytest.raises(Unavailable) as caught:
        device_of(name, "exact")
    assert caught.value.remedy == "name one that it has"


@pytest.mark.parametrize("name", ["tensorrt", "coreml", "migraphx"])
def test_a_provider_that_has_no_one_arithmetic_describes_in_any(seems: Any, name: str) -> None:
    seems({"tensorrt": "Tensorrt", "coreml": "CoreML", "migraphx": "MIGraphX"}[name] + "ExecutionProvider")
    with pytest.raises(Invalid, match="one arithmetic") as caught:
        device_of(name, "exact")
    assert caught.value.remedy == 'set numeric = "any", or a device that can: cpu'
    assert device_of(name, "any") == Device(name, "any")


def test_a_class_of_device_is_in_the_arithmetic(seems: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seems("OpenVINOExecutionProvider")
    monkeypatch.setattr(onnxruntime, "__version__", "1.24.1+cu13")
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    numeric = device_of("openvino", "exact").numeric
    assert numeric == "onnxruntime-openvino-1.24.1.cu13-x86_64-fp32"
    assert NUMERIC.fullmatch(numeric)


class Driver:
    """The driver of CUDA: of one GPU, or of none."""

    def __init__(self, major: int, minor: int, status: int = 0) -> None:
        self._values, self._status = {75: major, 76: minor}, status

    def cuInit(self, flags: int) -> int:  # noqa: N802
        assert flags == 0
        return self._status

    def cuDeviceGet(self, device: Any, number: int) -> int:  # noqa: N802
        device._obj.value = 7 + number
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> int:  # noqa: N802
        assert device.value == 7
        value._obj.value = self._values[attribute]
        return 0


@pytest.mark.parametrize(("version", "name"), [((8, 7), "sm87"), ((9, 0), "sm90"), ((12, 0), "sm120")])
def test_the_class_of_a_gpu_is_its_capability(version: tuple[int, int], name: str) -> None:
    assert capability(Driver(*version)) == name


def test_a_driver_without_a_gpu_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="cuInit returned 100"):
        capability(Driver(9, 0, status=100))


def test_no_driver_is_unavailable(seems: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    seems(CUDA)
    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(Unavailable, match=r"libcuda\.so\.1: cannot open") as caught:
        device_of("cuda", "exact")
    assert 'device = "cpu"' in caught.value.remedy


def test_the_library_goes_on_with_the_cpu_and_this_module_does_not(seems: Any) -> None:
    """The wheel for GPUs lists CUDA on each machine; where it cannot be made, it gives a session of the CPU."""
    seems(CUDA)
    model = small_network().SerializeToString()
    with pytest.warns(UserWarning, match="not in available"):
        assert onnxruntime.InferenceSession(model, options(), providers=[CUDA]).get_providers() == [OWN]
    gave = pytest.raises(Unavailable, match=r"cannot be made .* gave CPUExecutionProvider")
    with pytest.warns(UserWarning, match="not in available"), gave:
        open_session(Device("cuda", "any"), model, options())


@pytest.mark.parametrize(
    "device", [Device("cpu", "onnxruntime-openvino-1.24.1-x86_64-fp32"), Device("cpu", "onnxruntime-cpu-fp16")]
)
def test_a_session_of_another_arithmetic_than_the_key_names_is_refused(device: Device) -> None:
    with pytest.raises(Refused, match="arithmetic onnxruntime-cpu-fp32, the build key names"):
        open_session(device, small_network().SerializeToString(), options())


def test_a_gpu_of_another_class_than_the_key_names_is_refused(seems: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seems(CUDA)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(8, 9))
    monkeypatch.setattr(onnxruntime, "__version__", "1.32.0")
    with pytest.raises(Refused, match=r"1\.32\.0-sm89-fp32, the build key names .*sm90"):
        open_session(Device("cuda", "onnxruntime-cuda-1.32.0-sm90-fp32"), b"", options())


def shapely(folder: Path) -> Path:
    """A network that flattens its input by a shape that it computes, and halves it."""
    nodes = [
        helper.make_node("Shape", ["image"], ["sizes"], end=1),
        helper.make_node("Concat", ["sizes", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["image", "shape"], ["flat"]),
        helper.make_node("Mul", ["flat", "half"], ["descriptor"]),
    ]
    ends = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 8, 8]),
        helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, ["N", 192]),
    ]
    constants = [
        helper.make_tensor("rest", TensorProto.INT64, [1], [192]),
        helper.make_tensor("half", TensorProto.FLOAT, [], [0.5]),
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return save(folder, model)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What ONNX Runtime notes of a run on the CPU."""
    folder = tmp_path_factory.mktemp("profile")
    made = options()
    made.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    made.enable_profiling, made.profile_file_prefix = True, str(folder / "run")
    session = onnxruntime.InferenceSession(shapely(folder), made, providers=[OWN])
    session.run(None, {"image": np.ones((2, 3, 8, 8), np.float32)})
    return Path(session.end_profiling()).read_bytes()


def test_operators_that_make_fractions_must_run_with_the_provider(profile: bytes) -> None:
    assert operators(profile, OWN) == (set(), 4)
    assert operators(profile, CUDA) == ({"Reshape (CPU)", "Mul (CPU)"}, 0)
    ran = profile.replace(b'"provider" : "CPU', b'"provider" : "CUDA', 3)
    assert operators(ran, CUDA) == ({"Mul (CPU)"}, 3)


@pytest.mark.parametrize("kinds", [["uint8"], ["int8"], ["float8e4m3fn"], ["int4"], ["int64", "float"], [], ["string"]])
def test_what_is_no_whole_number_was_made_elsewhere(kinds: list[str]) -> None:
    """Also quantised numbers, 8-bit fractions and outputs that the profile does not tell."""

    def node(name: str, provider: str, outputs: list[str]) -> dict[str, Any]:
        shapes = [{kind: [1]} for kind in outputs]
        return {"cat": "Node", "args": {"op_name": name, "provider": provider, "output_type_shape": shapes}}

    ran = [node("Add", CUDA, ["float"]), node("Shape", OWN, ["int64"]), node("QLinearConv", OWN, kinds)]
    assert operators(json.dumps(ran).encode(), CUDA) == ({"QLinearConv (CPU)"}, 1)


@pytest.mark.parametrize(
    "data", [b"", b"[", b"{}x", b"[1]", b'[{"cat": "Node", "args": {"provider": 1}}]', b"[" * 9999]
)
def test_a_profile_that_cannot_be_read_is_a_failure(data: bytes) -> None:
    with pytest.raises(Unavailable, match="profile of ONNX Runtime") as caught:
        operators(data, OWN)
    assert caught.value.kind == "failed"


class Ran:
    """A session that has run, with its profile."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def end_profiling(self) -> str:
        return str(self._path)


@pytest.mark.parametrize(
    ("own", "error", "says"),
    [(0, Unavailable, "no operator"), (3, Invalid, r"lacks operators .* elsewhere: Mul \(CPU\)"), (4, None, "")],
)
def test_a_run_that_is_not_proven_is_refused(
    seems: Any, tmp_path: Path, profile: bytes, own: int, error: type[FlightbagError] | None, says: str
) -> None:
    seems(CUDA)
    events = json.loads(profile.replace(b'"provider" : "CPU', b'"provider" : "CUDA', own))
    (tmp_path / "run.json").write_text(json.dumps([one for one in events if own or one["cat"] != "Node"]))
    device = Device("cuda", "onnxruntime-cuda-1.32.0-sm90-fp32")
    if error is None:
        require_provider(device, Ran(tmp_path / "run.json"))
        return
    with pytest.raises(error, match=says):
        require_provider(device, Ran(tmp_path / "run.json"))
    loose = Device("cuda", "any")
    if own:
        require_provider(loose, Ran(tmp_path / "run.json"))  # the remedy
    else:
        with pytest.raises(error, match=says):
            require_provider(loose, Ran(tmp_path / "run.json"))


def test_the_profile_has_a_bound(monkeypatch: pytest.MonkeyPatch, profile: bytes) -> None:
    monkeypatch.setattr(providers, "_MAX_PROFILE", len(profile) - 1)
    with pytest.raises(Unavailable, match="more than"):
        operators(profile, OWN)


def test_a_provider_that_fails_in_a_run_is_an_error_and_not_the_cpu() -> None:
    class Failing:
        """The inner session, but for its runs."""

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def run(self, *_: Any) -> Any:
            raise state.EPFail("the device is gone")

    session = open_session(CPU, small_network().SerializeToString(), options())
    session._sess = Failing(session._sess)
    with pytest.raises(state.EPFail, match="gone"):
        session.run(["descriptor"], {"image": np.zeros((1, 3, 16, 16), np.float32)})
