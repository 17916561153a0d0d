"""TensorRT and CUDA as libraries: the real bindings of 10.3, 10.16 and 11.4 and of TensorRT for RTX 1.7, their import,
versions and messages.

The backend is held against the bindings: every name that it uses, every call, and the callbacks, called by C code as
the library calls them. What it uses is read from its modules (`uses`): attributes of the modules `tensorrt` and `cuda`,
and of variables that hold their objects. A variable's class cannot be read, so `HOLDS` says it; a variable that neither
`HOLDS` nor `OTHERS` knows fails the test, as does one that is given something else than `HOLDS` says.
"""

from __future__ import annotations

import ast
import functools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import builders.engines
from builders.engines.tensorrt import TensorRtBackend
from builders.engines.tensorrt_library import SINCE, failure_of_messages, import_tensorrt, library_version
from store.errors import Unavailable
from tests.builders.engines.fake_machine import forget_modules
from tests.support import bindings

FOLDER = Path(builders.engines.__path__[0])
SHARED = [FOLDER / f"tensorrt_{part}.py" for part in ("compile", "host", "library", "session")]
# The label of the bindings -> the modules that use them.
SOURCES = {label: [FOLDER / "tensorrt.py", *SHARED] for label in bindings.TENSORRT}
SOURCES[bindings.RTX] = [FOLDER / "tensorrt_rtx.py", *SHARED]
# Variable -> the class of what it holds, of `tensorrt` or of `cuda`.
HOLDS = {
    "builder": "tensorrt.Builder",
    "cache": "tensorrt.ITimingCache",
    "config": "tensorrt.IBuilderConfig",
    "context": "tensorrt.IExecutionContext",
    "dtype": "tensorrt.DataType",
    "each": "tensorrt.ParserError",
    "engine": "tensorrt.ICudaEngine",
    "inspector": "tensorrt.EngineInspector",
    "levels": "tensorrt.ILogger.Severity",
    "memory": "tensorrt.IHostMemory",
    "network": "tensorrt.INetworkDefinition",
    "parser": "tensorrt.OnnxParser",
    "profile": "tensorrt.IOptimizationProfile",
    "registry": "tensorrt.IPluginRegistry",
    "runtime": "tensorrt.Runtime",
    "severity": "tensorrt.ILogger.Severity",
    "tensor": "tensorrt.ITensor",
    "code": "cuda.cudaError_t",
    "gpu": "cuda.cudaDeviceProp",
}
# Attributes of their objects that are Python's own text or bytes.
TEXT = ("__version__", "name")
# Variables whose attributes are nobody's of these two libraries.
OTHERS = frozenset(
    """array arrays compatibility copy device digest echo error facts feeds file hardware head info int into
    item job library lock log match members mib monitor name need np one part partial path paths pattern plugin
    product results self since spec stack target text undeclared value version wanted writer""".split()  # noqa: SIM905 - many lines else
)


@dataclass(frozen=True, slots=True)
class Use:
    """The attribute `path`, such as `tensorrt.ParserError.code().name`, and what it is called with, if it is called."""

    path: str
    where: str
    call: tuple[int, frozenset[str]] | None


class Reader(ast.NodeVisitor):
    """Collects the uses of one module and what it cannot place."""

    def __init__(self, path: Path) -> None:
        self.path, self.found, self.unplaced = path, list[Use](), list[str]()
        self.overrides: list[tuple[str, str, tuple[str, ...], str]] = []
        self.holds: list[tuple[str, str, str]] = []
        self.known = {"tensorrt", "cuda", *HOLDS, *OTHERS}
        self.calls: dict[ast.expr, ast.Call] = {}
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.known |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ClassDef | ast.FunctionDef):
                self.known.add(node.name)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node in tree.body:
                self.known.add(node.targets[0].id)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node in tree.body:
                self.known.add(node.target.id)
            elif isinstance(node, ast.Call):
                self.calls[node.func] = node
                if isinstance(node.func, ast.Attribute) and node.func.attr == "callback":  # of an ExitStack
                    self.calls[node.args[0]] = ast.Call(node.args[0], node.args[1:], [])
        self.visit(tree)

    def where(self, node: ast.AST) -> str:
        return f"{self.path.name}:{getattr(node, 'lineno', 0)}"

    def owner(self, node: ast.expr) -> str | None:
        """The path of what this expression is of the two libraries; None if it is of neither."""
        text = ast.unparse(node).removeprefix("self._")
        if isinstance(node, ast.Name | ast.Attribute) and text in HOLDS:
            return HOLDS[text]
        if text in ("tensorrt", "cuda"):
            return text
        if isinstance(node, ast.Attribute) and node.attr in TEXT:
            return None
        if isinstance(node, ast.Call) and (owner := self.owner(node.func)):
            return f"{owner}()"
        if isinstance(node, ast.Attribute) and (owner := self.owner(node.value)):
            return f"{owner}.{node.attr}"
        return None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        owner = self.owner(node.value)
        if owner is not None:
            call = self.calls.get(node)
            given = (len(call.args), frozenset(word.arg or "**" for word in call.keywords)) if call else None
            self.found.append(Use(f"{owner}.{node.attr}", self.where(node), given))
        elif isinstance(node.value, ast.Name) and node.value.id not in self.known:
            self.unplaced.append(f"{self.where(node)}: whose attribute is {ast.unparse(node)}?")

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        name = ast.unparse(node.targets[0]).removeprefix("self._")
        if name in HOLDS and (owner := self.owner(node.value)):
            self.holds.append((name, owner, self.where(node)))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.generic_visit(node)
        for base in node.bases:
            if owner := self.owner(base):
                self.overrides += [
                    (owner, item.name, tuple(arg.arg for arg in item.args.args[1:]), self.where(item))
                    for item in node.body
                    if isinstance(item, ast.FunctionDef)
                ]


@functools.cache
def readers(label: str) -> tuple[Reader, ...]:
    return tuple(map(Reader, SOURCES[label]))


def uses(label: str) -> Iterator[Use]:
    for reader in readers(label):
        yield from reader.found


@functools.cache
def surface(label: str, folder: Path) -> Mapping[str, Any]:
    """What the real module of this label offers."""
    stubs = bindings.build_stubs(label, folder / f"stubs-{label}") if label in bindings.TENSORRT else None
    module = "tensorrt_bindings" if stubs else "cuda.bindings.runtime"
    module = "tensorrt_rtx_bindings" if label == bindings.RTX else module
    value: dict[str, Any] = json.loads(bindings.run(label, stubs, ["-m", "tests.support.bindings", "dump", module]))
    return value


@pytest.fixture
def offered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    label: str = request.param
    if reason := bindings.missing(label):
        pytest.skip(reason)
    return surface(label, tmp_path_factory.getbasetemp())


class Checker:
    """Looks paths up in what one module offers."""

    def __init__(self, offered: Mapping[str, Any]) -> None:
        self.offered = offered
        self.names: set[str] = set()
        self.called: set[str] = set()

    def find(self, path: str) -> Mapping[str, Any] | None:
        """The entry that `bindings.dump` made for the path; None where there is no such thing."""
        entry: Mapping[str, Any] | None = {"members": self.offered}
        for part in path.split(".")[1:]:
            if entry is None:
                return None
            name = part.removesuffix("()")
            if entry.get("enumeration"):
                entry = {"is": path} if name in (*entry["enumeration"], "name", "__members__") else None
            else:
                entry = entry.get("members", {}).get(name)
            if entry and part != name and "members" not in entry:  # what is called is no class: its result
                entry = self.offered.get(entry["signatures"][0]["result"]) if entry["signatures"] else None
        return entry

    def check(self, use: Use) -> str:
        """Why the use is none that this version takes; "" if it is, or is declared to have come later."""
        entry = self.find(use.path)
        if entry is None:
            name = use.path.partition(".")[2]
            declared = any(name == later or name.startswith(later + ".") for later in SINCE)
            return "" if declared else f"{use.where}: there is no {use.path}"
        self.names.add(use.path)
        if use.call is None:
            return ""
        self.called.add(use.path)
        positional, keywords = use.call
        if use.path.endswith(".__init__"):
            positional -= 1  # called on the class, with self
        known = entry["members"]["__init__"]["signatures"] if "members" in entry else entry["signatures"]
        fits = any(_takes(one["names"], one["required"], positional, keywords) for one in known)
        return "" if fits else f"{use.where}: {use.path} takes {known}, is given {positional} and {sorted(keywords)}"


def _takes(names: list[str], required: int, positional: int, keywords: frozenset[str]) -> bool:
    left = names[positional:]
    return positional <= len(names) and keywords <= set(left) and set(names[positional:required]) <= keywords


@pytest.mark.parametrize("offered", SOURCES, indirect=True, ids=str)
def test_names_and_calls_of_tensorrt(offered: Mapping[str, Any], request: pytest.FixtureRequest) -> None:
    label = request.node.callspec.id
    checker = Checker(offered)
    mine = [use for use in uses(label) if use.path.startswith("tensorrt.")]
    assert [text for use in mine if (text := checker.check(use))] == []
    for reader in readers(label):
        for owner, name, parameters, where in reader.overrides:
            problem = overrides(checker, owner, name, parameters)
            assert not problem, f"{where}: {problem}"
    print(f"TensorRT {label}: {len(checker.names)} names, {len(checker.called)} calls")
    assert len(checker.names) > 80
    assert len(checker.called) > 35
    # What is declared to have come later is there from that version on, and not before.
    version = tuple(int(part) for part in bindings.TENSORRT[label][1].split(".")) if label != bindings.RTX else (11,)
    for name, since in SINCE.items():
        assert (checker.find(f"tensorrt.{name}") is not None) == (version >= tuple(map(int, since.split(".")))), name


def overrides(checker: Checker, owner: str, name: str, parameters: tuple[str, ...]) -> str:
    """Why a method of a subclass is not called as it expects; "" for one that the base class does not have."""
    base = checker.find(owner)
    if base is None or name == "__init__" or name not in base["members"]:
        return ""
    checker.names.add(f"{owner}.{name}")
    takes = [tuple(one["names"]) for one in base["members"][name]["signatures"]]
    # The stream writer's documented override takes less than what its base class shows.
    takes += [tuple(re.findall(r"(\w+):", shown)) for shown in re.findall(rf"def {name}\(self, (.*)\)", base["doc"])]
    return "" if parameters in takes else f"{owner}.{name} is called with {takes}, takes {parameters}"


@pytest.mark.parametrize("offered", bindings.CUDA, indirect=True, ids=str)
def test_names_and_calls_of_cuda(offered: Mapping[str, Any], request: pytest.FixtureRequest) -> None:
    checker = Checker(offered)
    mine = [use for label in SOURCES for use in uses(label) if use.path.startswith("cuda.")]
    assert [text for use in mine if (text := checker.check(use))] == []
    print(f"{request.node.callspec.id}: {len(checker.names)} names, {len(checker.called)} calls")
    assert len(checker.names) > 15
    assert len(checker.called) >= 8


@pytest.mark.parametrize("offered", ["10.3"], indirect=True, ids=str)
@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("tensorrt.Builders", None),
        ("tensorrt.Builder.create_networks", None),
        ("tensorrt.BuilderFlag.TF33", None),
        ("tensorrt.HardwareCompatibilityLevel.TURING_PLUS", None),
        ("tensorrt.ParserError.code().text", None),
        ("tensorrt.Builder", (0, frozenset[str]())),
        ("tensorrt.Builder.create_network", (2, frozenset[str]())),
        ("tensorrt.IBuilderConfig.set_timing_cache", (1, frozenset({"ignore"}))),
        ("tensorrt.IBuilderConfig.set_timing_cache", (1, frozenset[str]())),
    ],
)
def test_the_check_can_fail(offered: Mapping[str, Any], path: str, call: tuple[int, frozenset[str]] | None) -> None:
    assert Checker(offered).check(Use(path, "here", call))


def test_every_attribute_is_placed() -> None:
    assert [text for label in SOURCES for reader in readers(label) for text in reader.unplaced] == []


@pytest.mark.parametrize("offered", SOURCES, indirect=True, ids=str)
def test_variables_hold_what_is_said(offered: Mapping[str, Any], request: pytest.FixtureRequest) -> None:
    """Where a variable is given the result of a call, the documentation says of which class that is."""
    checker = Checker(offered)
    checked = 0
    for reader in readers(request.node.callspec.id):
        for name, path, where in reader.holds:
            is_call = path.startswith("tensorrt.") and path.endswith("()")
            if is_call and (entry := checker.find(path)) is not None:
                assert entry == checker.find(HOLDS[name]), f"{where}: {name} holds what {path} is"
                checked += 1
    assert checked >= 12


@pytest.mark.parametrize("offered", bindings.TENSORRT, indirect=True, ids=str)
def test_the_fake_offers_nothing_that_the_bindings_do_not(
    offered: Mapping[str, Any], request: pytest.FixtureRequest
) -> None:
    label = request.node.callspec.id
    fake_folder = str(bindings.REPOSITORY / "tests/support/fake_tensorrt")
    script = "import json, tensorrt; from tests.support.bindings import dump; print(json.dumps(dump(tensorrt)))"
    environment = f"import os; os.environ['FAKE_TENSORRT_VERSION'] = '{label}'; "
    text = bindings.run("none", None, ["-c", environment + script], more=(fake_folder, *sys.path))
    imported = {"annotations", "contextlib", "enum", "json", "os", "threading", "weakref", "Callable", "Path", "Any"}
    fake = {name: entry for name, entry in json.loads(text).items() if name not in imported}
    for name, entry in fake.items():
        real = offered[name]
        assert set(entry.get("enumeration", ())) <= set(real.get("enumeration", ())), name
        for member, has in entry.get("members", {}).items():
            if (
                (entry["enumeration"] and member in ("name", "value"))
                or hasattr(bytes, member)
                or hasattr(tuple, member)
            ):
                continue
            assert member in real["members"], f"{name}.{member}"
            if has["signatures"] and (known := real["members"][member]["signatures"]) and member != "__init__":
                names = has["signatures"][0]["names"]
                documented = overrides(Checker(offered), f"tensorrt.{name}", member, tuple(names))
                assert any(names == one["names"][: len(names)] for one in known) or not documented, f"{name}.{member}"
    assert len(fake) > 25


FLOW = """
import json, os, sys
from pathlib import Path
from ctypes import CDLL
import tensorrt_bindings as tensorrt
from types import SimpleNamespace
from builders.engines import tensorrt_compile as compile
from builders.engines.base import EngineSpec, InputRange, CompileJob, Plugin
from builders.engines.tensorrt import OPTIONS, _configure
from builders.engines.tensorrt_library import supports, import_tensorrt, library_version, make_log
from builders.engines.tensorrt_session import TensorRtSession
from blake3 import blake3

assert import_tensorrt() is tensorrt
folder, told = Path(sys.argv[1]), []
stub = CDLL(f"libnvinfer.so.{tensorrt.__version__.partition('.')[0]}")

# The next object that the library is handed is the monitor: the stub calls it back at once. What was built is kept.
make_monitor, build = compile._make_monitor, compile._build
def monitored(*arguments):
    monitor = make_monitor(*arguments)
    stub.stub_monitor_is_next()
    return monitor
compile._make_monitor = monitored
def built(tensorrt, builder, network, config, file):
    try:
        build(tensorrt, builder, network, config, file)
    except OSError:
        pass  # an IHostMemory of the stub is read until its memory ends
    file.seek(0, os.SEEK_END)
    file.write(b"engine")
    return True
compile._build = built

plugin = folder / "plugin.so"
plugin.write_bytes(b"a plug-in")
later = supports(tensorrt, "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY")
options = {**OPTIONS, "tactic_dram_mib": 1, "tactic_shared_memory_kib": 1, "version_compatible": 1,
           "compatibility": "same_compute_capability" if later else "ampere_plus"}
spec = EngineSpec("p", None, "fp32", (InputRange("aaaaa", ("N",), 1, 2, 3),), options=options,
                  plugins=(Plugin(plugin, blake3(b"a plug-in").digest()),))
job = CompileJob(spec, folder / "net.onnx", "h", folder, folder, lambda *what: told.append(what), lambda: False)
log = make_log(tensorrt, sys.stderr)
engine = folder / "engine"
configure = lambda config: _configure(tensorrt, config, spec)
compile.compile_network(tensorrt, log, job, folder / "net.onnx", engine, configure, folder / "timing.cache")
codes = SimpleNamespace(cudaSuccess=0, cudaErrorInsufficientDriver=35, cudaErrorNoDevice=100)
cuda = SimpleNamespace(cudaError_t=codes, cudaGetDeviceCount=lambda: (0, 1))
inside = compile.inspect(tensorrt, cuda, log, engine)
session = TensorRtSession(tensorrt, cuda, engine.read_bytes())
ends = [(end.name, end.dtype, end.shape) for end in session.inputs]
print(json.dumps({"told": told, "inside": inside, "ends": ends, "said": list(session._log.errors),
                  "version": library_version(tensorrt)}))
sys.stdout.flush()
os._exit(0)  # the stub's object does not survive being freed
"""


@pytest.mark.parametrize("label", bindings.TENSORRT)
def test_the_flow_over_the_real_types(label: str, tmp_path: Path) -> None:
    """Types and callbacks are the bindings' own; the library below is `trt_stubs.c`, which says yes to everything."""
    if reason := bindings.missing(label):
        pytest.skip(reason)
    stubs = bindings.build_stubs(label, tmp_path / "stubs")
    text = bindings.run(label, stubs, ["-c", FLOW, str(tmp_path)], more=tuple(sys.path))
    result = json.loads(text)
    assert result["told"] == [["reading the network", 0, 0], ["a phase", 0, 2], ["a phase", 1, 2]]
    assert result["inside"] == {"unreadable": "aaaaa"}
    assert result["ends"] == [["aaaaa", "float16", ["?"]]]
    assert result["said"] == ["words of the stub"]
    assert result["version"] == bindings.TENSORRT[label][1]
    written = (tmp_path / "engine").read_bytes()
    if label != "10.3":
        assert written == b"stub engine" + b"engine"  # the first by way of the stream writer
    else:
        assert len(written) > 4096  # of the stub's memory


# Import, version and messages


def test_without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unavailable, match="JetPack") as caught:
        TensorRtBackend().version  # noqa: B018
    assert caught.value.extra == "tensorrt"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("__version__ = '8.6.1'", "TensorRT 8.6.1 is installed"),
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "libnvinfer.so.10"),
        ("import tensorrt_of_nobody", "tensorrt_of_nobody"),
        ("raise ImportError('a.so: failed to map segment from shared object: Cannot allocate memory')", "no memory to"),
    ],
)
def test_a_tensorrt_that_does_not_serve(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, says: str
) -> None:
    """Start-up tells what is wrong; it is no traceback."""
    (tmp_path / "tensorrt.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    forget_modules()
    with pytest.raises(Unavailable, match=says):
        import_tensorrt()
    forget_modules()


NO_DRIVER = "cudaError 35: CUDA driver version is insufficient for CUDA runtime version"
UNSUPPORTED = "unsupported-op"
NO_PROFILE = "Network has dynamic or shape inputs, but no optimization profile has been defined"


class Library:
    """The version functions of libnvinfer."""

    def __init__(self, *parts: int) -> None:
        for name, part in zip(("Major", "Minor", "Patch", "Build"), parts, strict=False):
            setattr(self, f"getInferLib{name}Version", lambda part=part: part)


def test_all_four_parts_of_the_version_come_from_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(text: str, library: Library) -> str:
        return library_version(type("Module", (), {"__version__": text}), open_library=lambda name: library)

    assert version("10.3.0", Library(10, 3, 0, 30)) == "10.3.0.30"
    assert version("10.3.0.26", Library(10, 7, 0, 23)) == "10.7.0.23"
    assert version("10.3.0.26", Library()) == "10.3.0.26"
    with pytest.raises(Unavailable, match="fourth part"):
        version("10.3.0", Library())


@pytest.mark.parametrize(
    ("errors", "warnings", "kind"),
    [
        (["Error Code 2: OutOfMemory (Requested size was 536870912 bytes.)"], [], "out-of-memory"),
        (["Error Code 1: Cuda Runtime (out of memory)"], [], "out-of-memory"),
        (["Could not find any implementation for node a"], ["Skipping tactic: insufficient memory"], "out-of-memory"),
        (["Could not find any implementation for node a"], ["weights are int64"], "unsupported-op"),
        (["Internal Error (Assertion failed)"], ["Skipping tactic: insufficient memory"], "failed"),
        (["Serialization assertion failed.Version tag does not match. Note: Current Version: 239"], [], "version"),
        ([], ["insufficient memory"], "out-of-memory"),
        ([], [], "failed"),
        # What the real library says, of TensorRT for RTX 1.7.1 without a GPU and of the lean runtimes.
        ([f"API Usage Error ({NO_PROFILE})", f"Error Code 1: Cuda Runtime ({NO_DRIVER})"], [], "wrong-inputs"),
        (["API Usage Error (Network must have at least one output)"], [], "invalid-model"),
        (["tensor image is missing dimensions in profile 0"], [], "wrong-inputs"),
        (["Optimization profile 0 is missing values for shape input tensor s"], [], "wrong-inputs"),
        ([f"Error Code 1: Cuda Runtime (In generateForCurrent at /_src/a.cpp:221 ({NO_DRIVER}))"], [], "no-device"),
        (["CUDA initialization failure with error: 35. Please check your CUDA installation"], [], "no-device"),
        (
            ["Serialization (Serialization assertion header.magicTag == kEXPECTED_MAGIC_TAG failed.)"],
            [],
            "invalid-model",
        ),
        (["Serialization assertion plan.header.size == blobSize failed."], [], "invalid-model"),
        (["Cannot deserialize with an empty memory buffer"], [], "invalid-model"),
        ([f"std::bad_alloc {NO_DRIVER}"], [], "out-of-memory"),
        (["no tactics to implement the operation within workspace limit"], [], "out-of-memory"),
        (["MyelinCheckException: myelin_tensor.h:47: CHECK(p) failed."], [], "out-of-memory"),
        (["bad optional access"], [], "out-of-memory"),
        (["Error Code 1: Myelin (Unexpected exception Resource temporarily unavailable)"], [], "out-of-memory"),
        (
            ["Internal Error (Assertion !layerImpls.empty() failed. a has no runners that implement it)"],
            [],
            UNSUPPORTED,
        ),
        (
            ["Error Code 1: Myelin (MyelinCheckException: decompose_ops.cpp:59: CHECK() failed. Attention)"],
            [],
            UNSUPPORTED,
        ),
        (["Error Code 4: API Usage Error (Tensor output has datatype FP8 but is not produced by I)"], [], UNSUPPORTED),
        (["Plugin not found, are the plugin name, version, and namespace correct?"], [], "unsupported-op"),
        (["Dimension mismatch for tensor image and profile 0"], [], "wrong-inputs"),
        (["kOPT values for profile 0 violate shape constraints"], [], "wrong-inputs"),
    ],
)
def test_what_the_words_mean(errors: list[str], warnings: list[str], kind: str) -> None:
    error = failure_of_messages("it failed", errors, warnings)
    assert error.kind == kind
    assert error.remedy
    assert "/_src/" not in error.message
