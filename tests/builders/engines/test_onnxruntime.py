"""Engines for ONNX Runtime in both modes: compiled for real in their process, measured, loaded; and their keys."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from builders.engines import model as source
from builders.engines import onnxruntime as backend_module
from builders.engines.base import CompileJob, EngineBackend, InputRange
from builders.engines.compiling import CompiledEngine
from builders.engines.onnxruntime import OnnxRuntimeBackend, cpu_class
from builders.engines.recipe import engine_recipe
from builders.engines.session import open_session
from store.errors import Conflict, FlightbagError, Invalid, Refused, Unavailable
from store.format.host import is_host_class
from tests.builders.engines.networks import (
    ROW,
    batches,
    compiled,
    elementwise,
    part,
    save,
    save_external,
    shared_model,
    small_network,
    spec_of,
)

BACKEND: EngineBackend = OnnxRuntimeBackend()
ORT = f"+ort-{BACKEND.version}"
# Enough weights that those of a fast engine are a part of their own.
WIDE = 32
# As the kernel lists them, with some that mean nothing here.
AVX2 = "fpu sse sse2 ssse3 avx f16c fma avx2 bmi2"
AVX512 = AVX2 + " avx512f avx512dq avx512cd avx512bw avx512vl"
MODES = ("portable", "fast")


def become(monkeypatch: pytest.MonkeyPatch, folder: Path, machine: str, cpuinfo: str) -> None:
    """Makes this process take its CPU for another."""
    file = folder / "cpuinfo"
    file.write_text(cpuinfo)
    monkeypatch.setattr(backend_module, "CPU_FILE", file)
    monkeypatch.setattr(platform, "machine", lambda: machine)


def images(count: int = 4) -> np.ndarray:
    return np.random.default_rng(1).random((count, 3, 16, 16), np.float32)


def expected(path: Path, given: np.ndarray) -> np.ndarray:
    """What `small_network` computes, by NumPy."""
    weights = onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    padded = np.pad(given, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    result: np.ndarray = np.maximum(np.einsum("nchwij,ocij->nohw", windows, weights), 0).mean(axis=(2, 3))
    return result


@dataclasses.dataclass(frozen=True)
class Example:
    """The network of a mode, saved to `path`, and its engine. The tests share it and change neither."""

    path: Path
    engine: CompiledEngine

    def copy(self, folder: Path) -> tuple[Path, Path]:
        """Copies of the engine and of its weights that a test may damage."""
        model, weights = (Path(shutil.copy(part(self.engine, name), folder)) for name in ("model", "weights"))
        return model, weights

    def data(self) -> dict[str, bytes]:
        return {each.name: each.path.read_bytes() for each in self.engine.parts}


def example(folder: Path, mode: str) -> Example:
    path = save(folder, small_network(channels=WIDE))
    return Example(path, compiled(spec_of(path, mode=mode), folder))


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return example(tmp_path_factory.mktemp("portable"), "portable")


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return example(tmp_path_factory.mktemp("fast"), "fast")


def test_a_dynamic_network_is_compiled_measured_at_three_batches_and_runs(portable: Example) -> None:
    engine = portable.engine
    assert batches(engine) == (1, 2, 5)
    assert engine.check.worst.reference_max > 0
    assert engine.check.worst.relative_error <= 1e-3
    assert engine.check.cosine >= 0.9999
    assert engine.check.faults == ()
    assert engine.inputs == [["image", "float32", ["N", 3, 16, 16]]]
    assert engine.outputs == [["descriptor", "float32", ["N", WIDE]]]
    assert engine.tools.keys() == {"onnxruntime", "numpy", "onnx"}
    assert engine.seconds > 0
    session = BACKEND.load(part(engine).read_bytes(), "cpu")
    descriptor = session.run({"image": images()})["descriptor"]
    np.testing.assert_allclose(descriptor, expected(portable.path, images()), rtol=1e-4, atol=1e-5)


def test_the_engine_is_an_optimised_network_and_says_of_what_operators(portable: Example) -> None:
    engine = portable.engine
    operators = [node.op_type for node in onnx.load(part(engine)).graph.node]
    assert "FusedConv" in operators
    assert "Relu" not in operators
    assert engine.inspector == {"operators": {name: operators.count(name) for name in operators}, "needs": ""}
    assert engine.need == "cpu+ort>=1.19"


@pytest.mark.parametrize("mode", MODES)
def test_a_network_of_one_fixed_shape_is_compiled(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path, small_network(batch=1, side=22))
    engine = compiled(spec_of(path, InputRange("image", (1, 3, 22, 22)), mode=mode), tmp_path)
    assert batches(engine) == (1,)
    assert engine.inputs[0][2] == [1, 3, 22, 22]


def test_a_dynamic_network_may_be_declared_with_a_fixed_batch(tmp_path: Path) -> None:
    path = save(tmp_path, small_network())
    assert batches(compiled(spec_of(path, InputRange("image", (3, 3, 16, 16))), tmp_path)) == (3,)


@pytest.mark.parametrize("mode", MODES)
def test_the_shared_place_embedder_is_compiled(tmp_path: Path, mode: str) -> None:
    given = InputRange("image", ("N", 3, 256, 256), 1, 2, 4)
    engine = compiled(spec_of(shared_model("place-embedder.onnx"), given, mode=mode), tmp_path)
    assert batches(engine) == (1, 2, 4)
    assert engine.check.cosine >= 0.9999
    assert engine.outputs[0][2] == ["N", 288]
    assert [each.name for each in engine.parts] == ["model"] + ["weights"] * (mode == "fast")


def test_a_shape_that_a_network_declares_and_does_not_run_on_is_refused(tmp_path: Path) -> None:
    """The shared export of batch 1 and 352 x 352 declares [N, 3, 256, 256] at its ends."""
    path = shared_model("place-embedder-batch1-352.onnx")
    model = onnx.load(path)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    declared = [dim.dim_param or dim.dim_value for dim in dims]
    if declared != ["N", 3, 256, 256]:
        pytest.skip(f"the shared export declares {declared}, as it should")
    with pytest.raises(Invalid, match=r"batch1-352\.onnx does not run on image \[1, 3, 256, 256\]") as caught:
        compiled(spec_of(path, InputRange("image", ("N", 3, 256, 256), 1, 1, 1)), tmp_path)
    assert caught.value.kind == "wrong-inputs"
    # With its ends set right it is what the description of the shared data says.
    for dim, size in zip(dims, (1, 3, 352, 352), strict=True):
        dim.dim_value = size
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    right = save(tmp_path / "right", model)
    engine = compiled(spec_of(right, InputRange("image", (1, 3, 352, 352))), tmp_path)
    assert engine.outputs[0][2] == [1, 288]


@pytest.mark.parametrize("mode", MODES)
def test_equal_sources_give_equal_bytes_wherever_they_lie(
    tmp_path: Path, portable: Example, fast: Example, mode: str
) -> None:
    one = {"portable": portable, "fast": fast}[mode]
    two = example(tmp_path / "two/with a longer name", mode)
    assert one.data() == two.data()
    assert one.data().keys() == ({"model", "weights"} if mode == "fast" else {"model"})
    for each in (one, two):
        assert all(str(each.path.parent).encode() not in data for data in each.data().values())


def test_external_weights_are_taken_in(tmp_path: Path, portable: Example) -> None:
    outside = save_external(tmp_path / "out", small_network(channels=WIDE))
    engines = [part(each).read_bytes() for each in (portable.engine, compiled(spec_of(outside), outside.parent))]
    for file in (outside, outside.parent / "weights/w.bin"):
        file.unlink()
    given = {"image": np.full((1, 3, 16, 16), 0.5, np.float32)}
    results = [BACKEND.load(engine, "cpu").run(given)["descriptor"] for engine in engines]
    assert results[0].tobytes() == results[1].tobytes()


def test_a_model_that_changed_since_the_plan_is_not_compiled(tmp_path: Path) -> None:
    path = save_external(tmp_path, small_network())
    spec = spec_of(path)
    weights = path.parent / "weights/w.bin"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    with pytest.raises(Conflict, match="changed while the mission was being built"):
        compiled(spec, tmp_path)


@pytest.mark.parametrize("mode", MODES)
def test_a_network_that_fits_no_one_file_is_compiled_with_its_weights_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    path = save_external(tmp_path / "net", small_network(channels=WIDE))
    monkeypatch.setattr(source, "MAX_ONNX_BYTES", source.hash_model(path).size - 1)
    (tmp_path / "made").mkdir()
    host = BACKEND.describe_host() if mode == "fast" else "cpu"
    job = CompileJob(
        spec_of(path, mode=mode), path, host, tmp_path / "made", tmp_path, lambda *_: None, lambda: False
    )  # fmt: skip
    made = BACKEND.make(job)
    assert made.weights is not None
    session = BACKEND.load(made.model.read_bytes(), host, made.weights)
    whole = open_session(small_network(channels=WIDE).SerializeToString(), "off")
    result, right = (each.run({"image": images()})["descriptor"] for each in (session, whole))
    np.testing.assert_allclose(result, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([InputRange("image", ("N", 1, 16, 16), 1, 1, 1), InputRange("mask", (1,))],
         r"inputs\.image declares shape \['N', 1, 16, 16\], .*takes.*inputs\.mask is declared, net\.onnx takes image"),
        ([InputRange("picture", ("N", 3, 16, 16), 1, 1, 1)], r"inputs\.image is missing, .*inputs\.picture is"),
    ],
)  # fmt: skip
def test_inputs_that_are_not_the_models_are_named(tmp_path: Path, inputs: list[InputRange], says: str) -> None:
    path = save(tmp_path, small_network())
    with pytest.raises(Invalid, match=r"backbones\[net\]\." + says) as caught:
        compiled(spec_of(path, *inputs), tmp_path)
    assert caught.value.kind == "wrong-inputs"


def test_a_symbol_where_the_model_has_a_size_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, small_network(batch=1))
    with pytest.raises(Invalid, match=r"declares shape \['N', 3, 16, 16\], net\.onnx takes \[1, 3, 16, 16\]") as caught:
        compiled(spec_of(path), tmp_path)
    assert caught.value.kind == "wrong-inputs"


def relu() -> onnx.ModelProto:
    return elementwise([helper.make_node("Relu", ["x"], ["y"])])


def of_opset(number: int) -> onnx.ModelProto:
    model = relu()
    model.opset_import[0].version = number
    return model


def of_ir(number: int) -> onnx.ModelProto:
    model = relu()
    model.ir_version = number
    return model


def in_domain(known: bool) -> onnx.ModelProto:
    model = elementwise([helper.make_node("Warp", ["x"], ["y"], domain="com.example")])
    if known:
        model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


@pytest.mark.parametrize(
    ("model", "kind", "error", "says"),
    [
        (elementwise([helper.make_node("NoSuchOperator", ["x"], ["y"])]), "unsupported-op", Invalid,
         r"^net\.onnx is refused by ONNX Runtime.*NoSuchOperator"),
        (elementwise([helper.make_node("Relu", ["z"], ["y"])]), "invalid-model", Invalid, "'z'"),
        (elementwise([helper.make_node("Relu", ["x"], ["y"])], TensorProto.STRING), "invalid-model", Invalid, "Relu"),
        (of_opset(99), "version", Unavailable, r"^net\.onnx is refused by ONNX Runtime.*99"),
        (of_ir(99), "version", Unavailable, r"^net\.onnx is refused by ONNX Runtime.*99"),
        (elementwise([helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Cast", ["s"], ["y"], to=1)],
                     TensorProto.STRING), "wrong-inputs", Invalid, "the input x has the dtype string"),
    ],
    ids=["operator", "dangling", "type", "opset", "ir", "input of text"],
)  # fmt: skip
def test_what_cannot_be_compiled_says_why_and_carries_the_log(
    tmp_path: Path, model: onnx.ModelProto, kind: str, error: type[FlightbagError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        compiled(spec_of(save(tmp_path, model), ROW), tmp_path)
    assert caught.value.kind == kind
    assert caught.value.fields["model"] == "net.onnx"
    assert caught.value.remedy
    assert "log" in caught.value.fields


@pytest.mark.parametrize("data", [b"", b"\xff" * 100], ids=["empty", "noise"])
def test_a_file_that_is_no_onnx_is_an_invalid_model(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    with pytest.raises(Invalid, match=r"net\.onnx is not an ONNX model") as caught:
        compiled(spec_of(path, ROW), tmp_path)
    assert caught.value.kind == "invalid-model"


@pytest.mark.parametrize("imported", [True, False])
def test_an_operator_of_an_unknown_domain_is_named_before_anything_is_compiled(tmp_path: Path, imported: bool) -> None:
    with pytest.raises(Invalid, match=r"net\.onnx: the node y is Warp of the domain com\.example") as caught:
        compiled(spec_of(save(tmp_path, in_domain(imported)), ROW), tmp_path)
    assert caught.value.kind == "unsupported-op"


@pytest.mark.parametrize("mode", MODES)
def test_values_that_are_not_finite_are_refused(tmp_path: Path, mode: str) -> None:
    zero = helper.make_node("Sub", ["x", "x"], ["z"])
    path = save(tmp_path, elementwise([zero, helper.make_node("Div", ["x", "z"], ["y"])]))
    with pytest.raises(Refused, match="is not finite") as caught:
        compiled(spec_of(path, ROW, mode=mode), tmp_path)
    assert caught.value.kind == "wrong-output"


def test_bytes_and_indices_are_fed_as_what_they_are(tmp_path: Path) -> None:
    """One network of four inputs, which multiplies them: its output is zero if one of them is fed zeros alone."""
    dtypes = {"x": TensorProto.UINT8, "i": TensorProto.INT64, "h": TensorProto.FLOAT16, "b": TensorProto.BOOL}
    nodes = [helper.make_node("Cast", [name], [f"{name}f"], to=TensorProto.FLOAT) for name in dtypes]
    nodes += [
        helper.make_node("Mul", ["xf", "if"], ["xi"]),
        helper.make_node("Mul", ["hf", "bf"], ["hb"]),
        helper.make_node("Mul", ["xi", "hb"], ["y"]),
    ]
    model = elementwise(nodes, dtypes["x"])
    model.graph.input.extend(helper.make_tensor_value_info(name, dtypes[name], ["N", 4]) for name in "ihb")
    engine = compiled(
        spec_of(save(tmp_path, model), *(InputRange(name, ("N", 4), 1, 2, 2) for name in dtypes)), tmp_path
    )
    assert batches(engine, "x") == (1, 2)
    assert all(case.reference_max > 0 for case in engine.check.cases)
    assert all(case.max_abs_error == 0 for case in engine.check.cases)


def test_load_says_what_is_no_engine() -> None:
    with pytest.raises(Invalid, match=r"^the engine is refused by ONNX Runtime") as caught:
        BACKEND.load(b"no engine", "cpu")
    assert caught.value.kind == "invalid-model"


def test_feeds_that_an_engine_does_not_take_are_invalid() -> None:
    session = BACKEND.load(small_network().SerializeToString(), "cpu")
    for feeds in ({"image": np.zeros((1, 3, 8, 8), np.float32)}, {}):
        with pytest.raises(Invalid, match=r"^the engine does not run on") as caught:
            session.run(feeds)
        assert caught.value.kind == "wrong-inputs"


# Fast engines


def test_a_fast_engine_is_two_parts_and_runs_when_the_file_of_its_weights_is_gone(
    tmp_path: Path, fast: Example
) -> None:
    assert [each.name for each in fast.engine.parts] == ["model", "weights"]
    engine, weights = fast.copy(tmp_path)
    assert weights.stat().st_size >= WIDE * 27 * 4
    session = BACKEND.load(engine.read_bytes(), BACKEND.describe_host(), weights)
    weights.unlink()
    for count in (5, 1):
        descriptor = session.run({"image": images(count)})["descriptor"]
        np.testing.assert_allclose(descriptor, expected(fast.path, images(count)), rtol=1e-4, atol=1e-5)


def test_a_fast_engine_of_nothing_but_small_tensors_is_one_part(tmp_path: Path) -> None:
    path = save(tmp_path, relu())
    engine = compiled(spec_of(path, ROW, mode="fast"), tmp_path)
    assert [each.name for each in engine.parts] == ["model"]
    session = BACKEND.load(part(engine).read_bytes(), BACKEND.describe_host())
    assert session.run({"x": np.array([[-1, 0, 1, 2]], np.float32)})["y"].tolist() == [[0, 0, 1, 2]]


@pytest.mark.parametrize("left", [None, 0, 100], ids=["absent", "empty", "cut"])
def test_a_fast_engine_without_all_its_weights_is_not_loaded(tmp_path: Path, fast: Example, left: int | None) -> None:
    engine, weights = fast.copy(tmp_path)
    if left is None:
        weights.unlink()
    else:
        os.truncate(weights, left)
    with pytest.raises(Invalid, match="refused by ONNX Runtime"):
        BACKEND.load(engine.read_bytes(), BACKEND.describe_host(), weights)


def test_a_fast_engine_for_another_instruction_set_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, tmp_path, "x86_64", f"flags\t\t: {AVX2}\n")
    with pytest.raises(Refused, match="made for cpu-x86_64-avx512 and this machine is cpu-x86_64-avx2") as caught:
        BACKEND.load(small_network().SerializeToString(), "cpu-x86_64-avx512")
    assert caught.value.kind == "wrong-host"
    assert (caught.value.fields["needed"], caught.value.fields["host"]) == (
        "cpu-x86_64-avx512",
        f"cpu-x86_64-avx2{ORT}",
    )
    BACKEND.load(small_network().SerializeToString(), "cpu-x86_64-avx2")
    BACKEND.load(small_network().SerializeToString(), "cpu")
    # A wider set is another set: its kernels lay out their data in another way.
    become(monkeypatch, tmp_path, "x86_64", f"flags\t\t: {AVX512}\n")
    with pytest.raises(Refused, match="made for cpu-x86_64-avx2 and this machine is cpu-x86_64-avx512"):
        BACKEND.load(small_network().SerializeToString(), "cpu-x86_64-avx2")


def test_the_process_that_compiles_refuses_what_it_could_not_load(tmp_path: Path) -> None:
    other = "cpu-x86_64-avx" if platform.machine() != "x86_64" else "cpu-aarch64-neon"
    path = save(tmp_path, small_network())
    with pytest.raises(Refused, match=f"does not make the engine: it needs {other}") as caught:
        compiled(spec_of(path, mode="fast"), tmp_path, host=other)
    assert caught.value.kind == "wrong-host"


# Host classes


def flags(names: str) -> str:
    return f"processor\t: 0\nmodel name\t: flags of nobody\nflags\t\t: {names}\nbugs\t\t:\n"


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "name"),
    [
        ("x86_64", flags(AVX512), "cpu-x86_64-avx512"),
        ("AMD64", flags(AVX512), "cpu-x86_64-avx512"),
        ("x86_64", flags(AVX2 + " avx512f avx512cd"), "cpu-x86_64-avx512f"),
        ("x86_64", flags(AVX512 + " avx512_vnni avx_vnni amx_bf16 amx_tile amx_int8"),
         "cpu-x86_64-avx512_avxvnni_avx512vnni_amx"),
        ("x86_64", flags(AVX2 + " avx_vnni avx_vnni_int8 amx_tile"), "cpu-x86_64-avx2_avxvnni_avxvnniint8"),
        ("x86_64", flags("sse2 avx512f avx512bw avx512dq avx512vl"), "cpu-x86_64-sse2"),
        ("aarch64", "Features\t: asimd asimdhp asimddp sve i8mm bf16 sve2\n", "cpu-aarch64-neonfp16_dot_i8mm_bf16_sve"),
        ("aarch64", "Features\t: asimd asimdhp asimddp i8mm sme sme2\n", "cpu-aarch64-neonfp16_dot_i8mm_sme_sme2"),
        ("x86_64", flags(AVX2), "cpu-x86_64-avx2"),
        ("x86_64", flags("sse2 avx2 avx"), "cpu-x86_64-avx"),
        ("x86_64", flags("fpu sse sse2"), "cpu-x86_64-sse2"),
        ("x86_64", flags("fpu avx512_fp16x sse2x"), "cpu-x86_64"),
        ("x86_64", "", "cpu-x86_64"),
        ("aarch64", "processor\t: 0\nFeatures\t: fp asimd aes asimdhp cpuid\n", "cpu-aarch64-neonfp16"),
        ("arm64", "Features\t: fp asimd evtstrm crc32\n", "cpu-aarch64-neon"),
        ("aarch64", "Features\t: fp\n", "cpu-aarch64"),
        # The class of the machine says which list is meant.
        ("aarch64", flags(AVX512), "cpu-aarch64"),
        ("x86_64", "flags", "cpu-x86_64"),
    ],
)  # fmt: skip
def test_a_cpu_is_named_by_the_widest_set_that_it_has_in_full(machine: str, cpuinfo: str, name: str) -> None:
    assert cpu_class(machine, cpuinfo) == name
    assert is_host_class(name)


def test_a_machine_that_no_class_can_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(Invalid, match="'cpu-riscv64' is not a component of a host class"):
        BACKEND.describe_host()
    monkeypatch.undo()
    for version, host in (("1.22.0+cu128", "ort-1.22.0"), ("1.23.0.dev20250901", None)):
        monkeypatch.setattr(type(BACKEND), "version", version)
        if host is not None:
            assert BACKEND.describe_host().endswith(f"+{host}")
            continue
        with pytest.raises(Invalid, match="is not a component"):
            BACKEND.describe_host()


def test_the_first_processor_speaks_for_all() -> None:
    assert cpu_class("x86_64", flags(AVX2) + flags(AVX512)) == "cpu-x86_64-avx2"


@pytest.mark.parametrize(
    ("machine", "host"),
    [("x86_64", "cpu-x86_64"), ("AMD64", "cpu-x86_64"), ("arm64", "cpu-aarch64"), ("aarch64", "cpu-aarch64")],
)
def test_this_machine_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, host: str) -> None:
    become(monkeypatch, tmp_path, machine, "")
    assert BACKEND.describe_host() == host + ORT
    spec = spec_of(save(tmp_path, small_network()))
    assert BACKEND.target(spec) == host
    assert BACKEND.engine_host(spec, host) == "cpu"


def test_a_portable_engine_needs_any_cpu_and_a_fast_one_the_set_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, tmp_path, "x86_64", flags(AVX2))
    portable = spec_of(save(tmp_path, small_network()))
    fast = dataclasses.replace(portable, options={"mode": "fast"})
    assert BACKEND.target(portable) == "cpu-x86_64"
    assert BACKEND.target(fast) == f"cpu-x86_64-avx2{ORT}"
    for target in ("cpu", "cpu-x86_64", "cpu-aarch64-neon", "cpu-x86_64-avx2+sm87+trt10"):
        assert BACKEND.engine_host(portable, target) == "cpu"
    for target in (f"cpu-x86_64-avx2{ORT}", f"cpu-x86_64-avx2{ORT}+sm87+trt10"):
        assert BACKEND.engine_host(fast, target) == f"cpu-x86_64-avx2{ORT}"


@pytest.mark.parametrize(
    ("target", "lacking"),
    [
        ("cpu", "its instruction set and its version of ONNX Runtime"),
        ("cpu-x86_64", "its instruction set and its version of ONNX Runtime"),
        ("cpu-x86_64+ort-1.22.0", "its instruction set"),
        ("cpu-x86_64-avx2", "its version of ONNX Runtime"),
        ("sm87+trt10", "its instruction set and its version of ONNX Runtime"),
    ],
)
def test_a_fast_engine_needs_a_target_that_names_cpu_and_library(tmp_path: Path, target: str, lacking: str) -> None:
    fast = spec_of(save(tmp_path, small_network()), mode="fast")
    with pytest.raises(Invalid, match=re.escape(f"the target {target} does not name {lacking}")) as caught:
        BACKEND.engine_host(fast, target)
    assert "engines host" in caught.value.remedy
    named = "cpu-x86_64-avx2+ort-1.22.0"  # as the remedy has it
    assert BACKEND.engine_host(fast, named) == named


@pytest.mark.parametrize("target", ["cpu-x86_64-avx512+ort-1.22.0", "cpu-aarch64-neon_dot+ort-1.19.2+sm87"])
def test_every_machine_names_the_same_need_and_key_of_a_fast_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    fast = spec_of(save(tmp_path, small_network()), mode="fast")
    keys = set()
    for machine, instructions in (("x86_64", AVX2), ("x86_64", AVX512), ("aarch64", "asimd")):
        become(monkeypatch, tmp_path, machine, flags(instructions))
        need = BACKEND.engine_host(fast, target)
        assert need == target.removesuffix("+sm87")
        keys.add(engine_recipe(fast, need, fields := BACKEND.key_fields(fast, need), "").key)
        assert need.endswith(f"+ort-{fields['version']}")
    assert len(keys) == 1


def test_a_machine_makes_the_fast_engines_of_its_own_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, tmp_path, "x86_64", flags(AVX2))
    assert BACKEND.makes(f"cpu-x86_64-avx2{ORT}") == BACKEND.makes("cpu") == BACKEND.makes("cpu+ort>=1.30") == ""
    for need in (f"cpu-x86_64-avx512{ORT}", "cpu-x86_64-avx2+ort-1.0.0", f"cpu-aarch64-neon{ORT}"):
        assert BACKEND.makes(need) == f"it needs {need}, this machine is cpu-x86_64-avx2{ORT}"
    spec = spec_of(save(tmp_path, small_network()), mode="fast")
    with pytest.raises(Refused, match="does not make the engine: it needs") as caught:
        compiled(spec, tmp_path, host="cpu-x86_64-avx2+ort-1.0.0")
    assert caught.value.kind == "wrong-host"


def test_a_target_without_a_cpu_has_no_portable_engine(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="the target is sm87"):
        BACKEND.engine_host(spec_of(save(tmp_path, small_network())), "sm87+trt10")


@pytest.mark.parametrize("readable", [True, False])
def test_a_machine_that_does_not_tell_its_set_builds_no_fast_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    become(monkeypatch, tmp_path, "x86_64", "model name\t: quiet\n")
    if not readable:
        (tmp_path / "cpuinfo").unlink()
    fast = spec_of(save(tmp_path, small_network()), mode="fast")
    with pytest.raises(Unavailable, match=r"instruction set of this machine \(cpu-x86_64\S*\) is unknown") as caught:
        BACKEND.target(fast)
    assert caught.value.kind == "version"
    assert "portable" in caught.value.remedy
    assert BACKEND.engine_host(dataclasses.replace(fast, options={"mode": "portable"}), "cpu-x86_64") == "cpu"


# The key


# The libraries


def test_telemetry_is_off_when_the_library_is_loaded() -> None:
    code = (
        "import os; from builders.extras import import_onnxruntime as start; start(); "
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize(("module", "extra"), [("onnxruntime", "onboard"), ("onnx", "build")])
def test_a_missing_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    spec = spec_of(save(tmp_path, small_network()))
    monkeypatch.setitem(sys.modules, module, None)
    ask = {
        "onnxruntime": lambda: BACKEND.key_fields(spec, "cpu"),
        "onnx": lambda: compiled(spec, tmp_path, host="cpu"),
    }[module]
    with pytest.raises(Unavailable, match=r"needs " + module) as caught:
        ask()
    assert f"[{extra}]" in caught.value.remedy


@pytest.mark.parametrize(("module", "extra"), [("onnxruntime", "onboard"), ("onnx", "build")])
def test_a_library_that_the_process_which_compiles_misses_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    spec = spec_of(save(tmp_path, small_network()))
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / f"{module}.py").write_text(f"raise ModuleNotFoundError('not here', name={module!r})")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), *sys.path])
    with pytest.raises(Unavailable, match=r"needs " + module) as caught:
        compiled(spec, tmp_path, host="cpu")
    assert f"[{extra}]" in caught.value.remedy


def test_a_missing_pydantic_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['pydantic'] = None\n"
        "from store.errors import Unavailable\nimport builders\n"
        "try:\n    import builders.mission.schema\n"
        "except Unavailable as error:\n    print(error.remedy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[build]" in done.stdout
