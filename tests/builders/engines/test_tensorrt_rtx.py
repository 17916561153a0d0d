"""The backend tensorrt-rtx over the vendor's real library, on a machine without a GPU.

`test_tensorrt.py` asks the real library more, beside the fake. What needs a GPU is in no test: nothing loads or runs an
engine.
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builders.engines import isolation, tensorrt_compile, tensorrt_rtx
from builders.engines.base import BackendResult, CompileJob, Ends, EngineSpec, InputRange
from builders.engines.check import TOLERANCES, require_ends
from builders.engines.compiling import CompileSettings, compile_engine
from builders.engines.graph import FixedInput
from builders.engines.isolation import Limits
from builders.engines.model import ModelSource, hash_model, make_compilable, snapshot_model
from builders.engines.session import open_session
from builders.engines.tensorrt_rtx import _TARGETS, OPTIONS, TensorRtRtxBackend, check_header
from store.errors import FlightbagError, Invalid, Refused, Unavailable
from store.format.host import is_host_class, meets
from tests.builders.engines.networks import DYNAMIC, MEMORY, SECONDS, elementwise, name_external, save, small_network
from tests.support import bindings

VERSION = "1.7.1.116"
HOST = f"sm89+trtrtx-{VERSION}"
ROW = InputRange("x", ("N", 4), 1, 2, 3)
ANY = ModelSource("net.onnx", Path("net.onnx"), b"", 0, ())
DRILL = bool(os.environ.get("FLIGHTBAG_DRILL"))


@dataclass
class Bench:
    """A place to compile at."""

    folder: Path
    backend: TensorRtRtxBackend = field(default_factory=TensorRtRtxBackend)

    def spec(self, network: onnx.ModelProto | None = None, *inputs: InputRange, **options: Any) -> EngineSpec:
        path = save(self.folder / f"model{len(list(self.folder.glob('model*')))}", network or small_network())
        return EngineSpec("net", hash_model(path), "fp32", inputs or (DYNAMIC,), options={**OPTIONS, **options})

    def job(self, spec: EngineSpec, host: str = HOST) -> CompileJob:
        folder = self.folder / f"job{len(list(self.folder.glob('job*')))}"
        folder.mkdir()
        return CompileJob(spec, spec.model.path, host, folder, folder, lambda *_: None, lambda: False)

    def make(self, spec: EngineSpec, host: str = HOST) -> BackendResult:
        return self.backend.make(self.job(spec, host))


@pytest.fixture(scope="module")
def real() -> Iterator[None]:
    with bindings.reachable(bindings.RTX):
        yield


@pytest.fixture
def bench(real: None, tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def engine(real: None, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    bench = Bench(tmp_path_factory.mktemp("engine"))
    return bench.make(bench.spec()).model.read_bytes()


def ends_of(made: BackendResult) -> Ends:
    assert made.unproven is not None
    return made.unproven


# Building


def test_an_engine_is_built_without_a_gpu_and_is_not_proven(bench: Bench) -> None:
    spec = bench.spec()
    made = bench.make(spec)
    assert made.model.name == "engine.engine"
    assert (made.weights, made.need) == (None, HOST)
    assert made.tools == {"tensorrt-rtx": VERSION, "parser": made.tools["parser"]}
    ends = ends_of(made)
    assert [(end.name, end.dtype, end.shape) for end in ends.inputs] == [("image", "float32", ("?", 3, 16, 16))]
    assert [(end.name, end.dtype, end.shape) for end in ends.outputs] == [("descriptor", "float32", ("?", 4))]
    require_ends(open_session(spec.model.path.read_bytes(), "off"), ends, "net")


def test_the_network_is_checked_in_the_place_of_the_engine(bench: Bench) -> None:
    """In a process of its own, as a build does: the cast is held against its source."""
    spec = replace(bench.spec(), precision="fp16")
    settings = CompileSettings(Limits(MEMORY, SECONDS), bench.folder / "cache")
    made = compile_engine(
        bench.backend,
        spec,
        HOST,
        bench.folder,
        tolerance=TOLERANCES["fp16"],
        settings=settings,
        progress=lambda *_: None,
    )
    assert made.check.of == "network"
    assert 0 < made.check.worst.relative_error < 1e-2
    assert made.outputs == [["descriptor", "float32", ["?", 4]]]
    assert made.parts[0].path.read_bytes().startswith(b"vtrt")


def test_a_machine_that_runs_the_engine_loads_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what this machine's class meets."""
    spec = bench.spec()
    for capability, runs in (("89-geforce_rtx_4090-128sm-24gb", True), ("120", False)):
        here = f"linux-x86_64+sm{capability}+trtrtx-{VERSION}"
        monkeypatch.setattr(TensorRtRtxBackend, "describe_host", lambda _self, here=here: here)
        assert (bench.make(spec).unproven is None) is runs


@pytest.mark.parametrize("name", ["resnet50", "inception_v1", "densenet121"])
def test_real_networks(bench: Bench, name: str) -> None:
    if name != "inception_v1" and not DRILL:
        pytest.skip("takes seconds: FLIGHTBAG_DRILL=1")
    path = Path(onnx.__file__).parent / f"backend/test/data/light/light_{name}.onnx"
    session = open_session(path.read_bytes(), "off")
    inputs = tuple(InputRange(one.name, one.shape) for one in session.inputs)
    made = bench.make(replace(bench.spec(), model=hash_model(path), inputs=inputs))
    require_ends(session, ends_of(made), name)
    assert made.model.stat().st_size > 2**20


# The header


def header(
    size: int = 48, *, magic: bytes = b"vtrt", says: int = 48, version: str = VERSION, targets: int = 8
) -> bytes:
    head = magic.ljust(16, b"\0") + says.to_bytes(8, "little") + bytes(map(int, version.split("."))).ljust(8, b"\0")
    return (head + targets.to_bytes(8, "little")).ljust(size, b"\0")


def test_a_whole_engine_has_the_header_of_one(engine: bytes) -> None:
    check_header(engine, len(engine), VERSION, "89")
    assert header()[:4] + header()[24:28] + header()[32:40] == engine[:4] + engine[24:28] + engine[32:40]
    for wrong in (engine[:-1], engine + b"\0", engine[:39], b""):
        with pytest.raises(Invalid):
            check_header(wrong, len(wrong), VERSION, "89")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "invalid-model"),
        (header()[:39], "invalid-model"),
        (header(magic=b"vtrT"), "invalid-model"),
        (header(says=47), "invalid-model"),
        (header(49), "invalid-model"),
        (header(says=2**64 - 1), "invalid-model"),
        (header(version="1.6.1.120"), "version"),
        (header(version="1.7.1.117"), "version"),
        (header(targets=4), "wrong-host"),
        (header(targets=12), "wrong-host"),
        (header(targets=0), "wrong-host"),
        (header(targets=8 << 32), "wrong-host"),
    ],
)
def test_another_header_is_no_engine_for_this_machine(data: bytes, kind: str) -> None:
    check_header(header(), 48, VERSION, "89")
    with pytest.raises(FlightbagError) as caught:
        check_header(data, len(data), VERSION, "89")
    assert caught.value.kind == kind
    assert caught.value.remedy


@pytest.mark.parametrize("wrong", ["short", "none", "raises"])
def test_a_write_that_the_library_does_not_notice_is_noticed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    build = tensorrt_compile._build

    class File:
        """What the engine is written to: it writes less, or raises."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            if wrong == "raises":
                raise MemoryError("no room")
            return int(self.file.write(data[: len(data) // 2 if wrong == "short" else 0]))

    monkeypatch.setattr(tensorrt_compile, "_build", lambda *given: build(*given[:-1], File(given[-1])))
    job = bench.job(bench.spec())
    with pytest.raises((FlightbagError, MemoryError)) as caught:
        bench.backend.make(job)
    if wrong == "raises":
        assert isinstance(caught.value, MemoryError)
    else:
        assert isinstance(caught.value, Unavailable)
        assert caught.value.kind == ("out-of-memory" if wrong == "short" else "failed")
    assert not (job.folder / "engine.engine").exists()


# Refusals, in the library's own words


def nodes(*ops: str, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """`x` through these operators to `y`."""
    names = ["x", *(f"v{i}" for i in range(1, len(ops))), "y"]
    made = [helper.make_node(op, [names[i]], [names[i + 1]], name=f"n{i}") for i, op in enumerate(ops)]
    return elementwise(made, dtype)


def doubled() -> onnx.ModelProto:
    model = nodes("Relu", dtype=TensorProto.DOUBLE)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    return model


def shifted(zero: int) -> onnx.ModelProto:
    """Quantised with this zero point."""
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    model = elementwise(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="d"),
        ]
    )
    model.graph.initializer.extend([scale, numpy_helper.from_array(np.int8(zero), "z")])
    return model


def without_its_data() -> onnx.ModelProto:
    return name_external(small_network(), "weights/w.bin")


def determinant() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Det", ["x"], ["y"], name="det3")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def contradicting() -> onnx.ModelProto:
    """Declared for any batch, and good for one."""
    shape = numpy_helper.from_array(np.array([1, 4], np.int64), "s")
    model = elementwise([helper.make_node("Reshape", ["x", "s"], ["y"])])
    model.graph.initializer.append(shape)
    return model


@pytest.mark.parametrize(
    ("network", "inputs", "kind", "words"),
    [
        (
            elementwise([helper.make_node("Warp", ["x"], ["y"], domain="mine")]),
            ROW,
            "unsupported-op",
            "Plugin not found",
        ),
        (determinant(), InputRange("x", (4, 4)), "unsupported-op", "Det det3: the operator has no importer"),
        (nodes("Relu", "NonZero"), ROW, "unsupported-op", "NonZero"),
        (shifted(3), ROW, "unsupported-op", "Non-zero zero point"),
        (without_its_data(), DYNAMIC, "invalid-model", "Failed to open file: .*w.bin"),
    ],
    ids=["custom operator", "no importer", "plug-in", "zero point", "external data"],
)
def test_what_the_parser_refuses(
    bench: Bench, network: onnx.ModelProto, inputs: InputRange, kind: str, words: str
) -> None:
    spec = EngineSpec(
        "net", replace(hash_model(save(bench.folder, small_network()))), "fp32", (inputs,), options=OPTIONS
    )
    path = save(bench.folder / "refused", network)
    with pytest.raises(FlightbagError, match=words) as caught:
        bench.backend.make(replace(bench.job(spec), network=path))
    assert caught.value.kind == kind
    assert "insufficient" not in caught.value.message
    assert "/_src/" not in caught.value.message


def refuse_twice(folder: Path) -> None:
    """Catch two refusals, and let Python collect what is left of the first within the library's log of the second."""
    make = tensorrt_rtx.make_log

    def make_collecting(tensorrt: Any, echo: Any) -> Any:
        class Log(type(make(tensorrt, echo))):  # type: ignore[misc]
            def log(self, severity: Any, msg: str) -> None:
                gc.collect()
                super().log(severity, msg)

        return Log()

    tensorrt_rtx.make_log = make_collecting
    gc.disable()
    bench = Bench(folder)

    def refuse() -> None:
        with pytest.raises(FlightbagError, match="no importer") as caught:
            bench.make(bench.spec(determinant(), InputRange("x", (4, 4))))
        assert caught.value.kind == "unsupported-op"  # and now the failure, its frames and `caught` are a circle

    with bindings.reachable(bindings.RTX):
        refuse()
        refuse()
    print("refused twice")


def test_the_end_of_a_refused_build_waits_for_no_other(real: None, tmp_path: Path) -> None:
    """In a process of its own: what stands still in a library cannot be told to stop."""
    words = f"from pathlib import Path; from {__name__} import refuse_twice; refuse_twice(Path({str(tmp_path)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", words], cwd=bindings.REPOSITORY, capture_output=True, timeout=60, check=False
    )
    assert done.stdout == b"refused twice\n", done.stderr.decode(errors="replace")[-2000:]


def test_zero_points_of_zero_are_built(bench: Bench) -> None:
    assert bench.make(bench.spec(shifted(0), ROW)).model.stat().st_size > 0


def test_float64_is_not_made_float32_without_a_word(bench: Bench) -> None:
    spec = bench.spec(doubled(), ROW)
    ends = ends_of(bench.make(spec))
    assert ends.inputs[0].dtype == "float32"
    with pytest.raises(Invalid, match="x of net is float64, and the backend makes it float32") as caught:
        require_ends(open_session(spec.model.path.read_bytes(), "off"), ends, "net")
    assert caught.value.kind == "unsupported-op"
    assert "float32 for x" in caught.value.remedy


def test_an_input_that_is_a_shape_gets_a_value(bench: Bench) -> None:
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "size"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4]),
            helper.make_tensor_value_info("size", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["A", "B"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    spec = bench.spec(model, ROW, InputRange("size", (2,)))
    with pytest.raises(Invalid, match="values of the input size decide shapes") as caught:
        bench.make(spec)
    assert caught.value.kind == "wrong-inputs"
    assert "give size a value in backbones.inputs" in caught.value.remedy
    fixed = (FixedInput("size", (2,), (-1, 4)),)  # type: ignore[arg-type] # whole numbers
    private = snapshot_model(spec.model.path, bench.folder / "private", fixed)
    make_compilable(private.path, fixed)
    made = bench.make(replace(spec, model=private, inputs=(ROW,), fixed=fixed))
    assert [end.name for end in ends_of(made).inputs] == ["x"]


# Hosts and keys


def test_what_an_engine_needs_is_what_the_target_names() -> None:
    """On every machine, with the library or without it."""
    backend, spec = TensorRtRtxBackend(), EngineSpec("net", ANY, "fp32", ())
    for target in (HOST, f"cpu-x86_64-avx2+ort-1.23.2+sm89-geforce_rtx_4090-128sm-24gb+trt10+trtrtx-{VERSION}"):
        assert backend.engine_host(spec, target) == HOST
    assert backend.engine_host(spec, "sm120+trtrtx-1.6.1.120") == "sm120+trtrtx-1.6.1.120"
    assert is_host_class(HOST)
    for other in (f"sm86+trtrtx-{VERSION}", "sm89+trtrtx-1.7.1.117", "sm89+trt10-10.3.0.30"):
        assert not meets(other, HOST)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("cpu-x86_64", "does not name a compute capability and a version"),
        ("cpu+trtrtx-1.6.1.120", "does not name a compute capability"),
        ("cpu+sm89-geforce_rtx_4090-128sm-24gb", "does not name a version"),
        ("sm89", "does not name a version"),
        (f"sm87-orin+trtrtx-{VERSION}", "makes no engines for sm87"),
        (f"sm90+trtrtx-{VERSION}", "makes no engines for sm90"),
    ],
)
def test_a_target_that_no_engine_can_be_built_for(target: str, words: str) -> None:
    backend, spec = TensorRtRtxBackend(), EngineSpec("net", ANY, "fp32", ())
    with pytest.raises(Invalid, match=words) as caught:
        backend.engine_host(spec, target)
    remedy = caught.value.remedy
    assert "sm75, sm80, sm86, sm89, sm120, sm121" in remedy
    if example := remedy.partition('such as "')[2].partition('"')[0]:  # it is a target, and says all that this one did
        need = backend.engine_host(spec, example)
        assert is_host_class(example)
        assert set(target.split("+")) <= set(example.split("+"))
        assert need.startswith("sm89+trtrtx-1.")


def test_the_capabilities_are_those_of_the_library(bench: Bench) -> None:
    members = sys.modules["tensorrt_rtx_bindings"].ComputeCapability.__members__ if bench.backend.version else {}
    assert {f"SM{one}" for one in _TARGETS} == {name for name in members if name.startswith("SM")}


def test_this_machine_is_no_target_without_a_gpu() -> None:
    code = (
        "from builders.engines.base import EngineSpec; from builders.engines.tensorrt_rtx import *; "
        "from store.errors import Unavailable\n"
        "backend = TensorRtRtxBackend()\n"
        "for ask in (backend.describe_host, lambda: backend.target(EngineSpec('net', None, 'fp32', ()))):\n"
        "    try: ask()\n"
        "    except Unavailable as error: print(error.kind, error.remedy)\n"
    )
    lines = with_cuda(bindings.RTX, code).splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["no-device"] * 2
    assert f'name the aircraft\'s host class in target.host, such as "{HOST}"' in lines[1]


def test_key_fields(bench: Bench) -> None:
    assert bench.backend.key_fields(bench.spec(), HOST) == {"backend": "tensorrt-rtx", "version": VERSION}


def test_another_version_makes_no_engine_for_this_one(bench: Bench) -> None:
    other = "sm89+trtrtx-1.6.1.120"
    assert bench.backend.makes(HOST) == ""
    assert "the library here is 1.7.1.116" in bench.backend.makes(other)
    with pytest.raises(Refused) as caught:
        bench.make(bench.spec(), other)
    assert caught.value.kind == "wrong-host"


def test_module_and_library_of_two_versions_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """They crash, or mix without a word."""
    bench.backend.version  # noqa: B018 - imports the module
    monkeypatch.setattr(sys.modules["tensorrt_rtx_bindings"], "__version__", "1.6.1.120")
    with pytest.raises(Unavailable, match=rf"1\.6\.1\.120 runs with the library of .* {VERSION}") as caught:
        bench.backend.version  # noqa: B018
    assert caught.value.kind == "version"


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unavailable, match="TensorRT for RTX is not installed") as caught:
        TensorRtRtxBackend().version  # noqa: B018
    assert (caught.value.extra, "[tensorrt-rtx]" in caught.value.remedy) == ("tensorrt-rtx", True)


# Without a driver


def with_cuda(label: str, code: str) -> str:
    """What the code prints in a process with this library and the CUDA runtime's module."""
    cuda = "cuda-13.0"
    for one in (label, cuda):
        if reason := bindings.missing(one):
            pytest.skip(reason)
    return bindings.run(label, None, ["-c", code], more=(str(bindings.ROOT / cuda), *sys.path))


RUNTIME = """
import importlib, sys
import cuda.bindings.runtime as cuda
if cuda.cudaGetDeviceCount()[0] == 0:
    print("a GPU"); sys.exit()
from builders.engines.tensorrt_library import make_log
from builders.engines.tensorrt_session import deserialise
from store.errors import Unavailable
library = importlib.import_module(sys.argv[1])
try:
    deserialise(library, cuda, make_log(library), b"vtrt")
except Unavailable as error:
    print(error.kind)
"""


@pytest.mark.parametrize("label", [bindings.RTX, "lean-10.16", "lean-11.4"])
def test_cuda_is_asked_before_a_runtime_is_made(label: str) -> None:
    """The real runtimes crash the process without a driver."""
    name = "tensorrt_rtx_bindings" if label == bindings.RTX else "tensorrt_lean_bindings"
    said = with_cuda(label, RUNTIME.replace("sys.argv[1]", repr(name))).strip()
    if said == "a GPU":
        pytest.skip("this machine has a GPU")
    assert said == "no-device"


@pytest.mark.parametrize("label", ["lean-10.16", "lean-11.4"])
def test_why_cuda_is_asked(label: str) -> None:
    """What happens otherwise."""
    if reason := bindings.missing(label):
        pytest.skip(reason)
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has a driver")
    code = (
        "import tensorrt_lean_bindings as t\n"
        "runtime = t.Runtime(t.Logger(t.Logger.INTERNAL_ERROR))\n"
        "runtime.engine_host_code_allowed = True\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(bindings.ROOT / label)}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=60, check=False)
    assert ran.returncode < 0


# Want of memory


def blocks(count: int, channels: int = 256) -> onnx.ModelProto:
    """Residual blocks of 2.4 MB each."""
    random = np.random.default_rng(0)
    network, weights, last = [], [], "image"
    for i in range(count):
        shape = (channels, channels if i else 3, 3, 3)
        weights.append(numpy_helper.from_array((random.standard_normal(shape) * 0.02).astype(np.float32), f"w{i}"))
        network.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], kernel_shape=[3, 3], pads=[1] * 4))
        network.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        network.append(helper.make_node("Add", [f"r{i}", last] if i else [f"r{i}", f"r{i}"], [f"a{i}"]))
        last = f"a{i}"
    network.append(helper.make_node("GlobalAveragePool", [last], ["p"]))
    network.append(helper.make_node("Flatten", ["p"], ["descriptor"], axis=1))
    ends = (("image", ["N", 3, 16, 16]), ("descriptor", ["N", channels]))
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends]
    graph = helper.make_graph(network, "blocks", infos[:1], infos[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.skipif(not DRILL, reason="takes minutes: FLIGHTBAG_DRILL=1")
def test_whatever_memory_it_may_use_a_compilation_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just below what it needs, the library waits for itself."""
    monkeypatch.setattr(isolation, "STILL_S", 5.0)
    spec = bench.spec(blocks(60), InputRange("image", ("N", 3, 16, 16), 1, 2, 4))
    outcomes = {}
    for mib in (*range(500, 1100, 50), *range(780, 840, 4)):
        settings = CompileSettings(Limits(mib << 20, SECONDS), bench.folder / "cache")
        folder = bench.folder / f"mib{mib}"
        folder.mkdir()
        try:
            compile_engine(
                bench.backend, spec, HOST, folder, tolerance=TOLERANCES["fp32"], settings=settings,
                progress=lambda *_: None,
            )  # fmt: skip
            outcomes[mib] = ("built", "")
        except FlightbagError as error:
            outcomes[mib] = (str(error.kind), error.message)
        shutil.rmtree(folder)
    print({mib: (kind, words[:80]) for mib, (kind, words) in outcomes.items()})
    still = [mib for mib, (_, words) in outcomes.items() if "no CPU time" in words]
    print(f"stood still at {still} MiB")
    assert {kind for kind, _ in outcomes.values()} <= {"built", "out-of-memory", "failed"}  # it crashes, too
    assert all(kind == "out-of-memory" for mib, (kind, _) in outcomes.items() if mib in still)


# Many networks

# What may become of a network that ONNX Runtime opens. `failed` is not among them: every refusal has a better kind.
# `wrong-output`: of some poolings with `ceil_mode` the compiler makes another size than ONNX says.
OUTCOMES = {"built", "unsupported-op", "wrong-inputs", "wrong-output"}


def outcome(bench: Bench, model: onnx.ModelProto) -> tuple[str, str]:
    """What becomes of a network, and the words; "" where ONNX Runtime does not open it."""
    path = save(bench.folder / "net", model)
    try:
        make_compilable(path)
        session = open_session(path.read_bytes(), "off")
        inputs = tuple(
            InputRange(one.name, tuple(1 if isinstance(dim, str) else dim for dim in one.shape))
            for one in session.inputs
        )
    except FlightbagError:
        return "", ""
    try:
        spec = EngineSpec("net", hash_model(path), "fp32", inputs, options=OPTIONS)
        require_ends(session, ends_of(bench.make(spec)), "net")
    except FlightbagError as error:
        return error.kind or "no kind", error.message
    return "built", ""


def networks() -> dict[str, onnx.ModelProto]:
    """Those that the onnx package carries as files: a sample, or in the drill all, and all of its tests of single
    operators, which take long to make."""
    data = Path(onnx.__file__).parent / "backend/test/data"
    paths = sorted(path for kind in ("pytorch-*", "simple") for path in data.glob(f"{kind}/*/model.onnx"))
    chosen = paths if DRILL else random.Random(20261130).sample(paths, 6)
    found = {path.parent.name: onnx.load(path) for path in chosen}
    if DRILL:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from onnx.backend.test.case.node import collect_testcases

            found |= {case.name: case.model for case in collect_testcases(None) if case.model is not None}
    return found


def test_networks_of_all_operators(bench: Bench) -> None:
    outcomes = {name: outcome(bench, network) for name, network in networks().items()}
    counts = Counter(kind for kind, _ in outcomes.values())
    print(f"{len(outcomes)} networks: {dict(counts)}")
    assert {name: words for name, (kind, words) in outcomes.items() if kind not in {"", *OUTCOMES}} == {}
    assert counts["built"] > len(outcomes) // 4
