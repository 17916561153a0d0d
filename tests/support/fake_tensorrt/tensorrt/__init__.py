"""A TensorRT in Python: what the backend uses, with the documented meaning, over ONNX Runtime.

An engine is a line of JSON, what it was built with, and the ONNX, which an execution context runs. So a flow that works
here builds, loads and computes, and what TensorRT 10.3, 10.16 or 11.4 lacks is lacking (FAKE_TENSORRT_VERSION).
Like the bindings, this refuses arguments of other types, attributes that do not exist, and subclasses that did not call
the base class; it gives None where they do and tells the reason to the logger alone, calls back from a thread of its
own, takes an exception in a callback for a wish to stop, takes no notice of what a stream writer returns, and a runtime
that is made without a driver does not survive its first use. The words are those of the real parser and builder, as
TensorRT for RTX, which has the same, says them here (`tests/builders/engines/test_tensorrt_rtx.py`).

FAKE_TENSORRT_FAIL holds what is to go wrong, commas between: each is looked up where it happens (`_fails`).
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cuda.bindings import runtime as _cuda

from builders.engines import tensorrt_host as _host

_FULL = {"10.3": "10.3.0.30", "10.16": "10.16.1.11", "11.4": "11.4.0.106"}
__version__ = _FULL[os.environ.get("FAKE_TENSORRT_VERSION", "10.3")]
_VERSION = tuple(int(part) for part in __version__.split("."))
_MAGIC = b"fake engine "
_CACHE_MAGIC = b"fake timing cache of "

# This machine's files, beside this package.
_MACHINE = Path(__file__).parents[1] / "machines" / os.environ.get("FAKE_CUDA_DEVICE", "rtx")
_host.DRIVER_FILE, _host.L4T_FILE = _MACHINE / "version", _MACHINE / "nv_tegra_release"


def _fails(how: str) -> bool:
    return how in os.environ.get("FAKE_TENSORRT_FAIL", "").split(",")


def _device_name() -> str:
    return os.environ.get("FAKE_CUDA_DEVICE", "rtx")


def _capability() -> list[int]:
    properties = _cuda.DEVICES[_device_name()][0]
    return [properties.major, properties.minor]


def _check(*pairs: tuple[object, type | tuple[type, ...]]) -> None:
    """As pybind11 checks arguments."""
    for value, kind in pairs:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise TypeError(f"incompatible function arguments: {value!r} is no {kind}")


def _base(instance: Any, cls: type) -> None:
    """As pybind11 refuses a subclass whose `__init__` did not call its base's."""
    _check((instance, cls))
    if not getattr(instance, "_base_called", False):
        raise TypeError(f"{cls.__name__}.__init__() must be called when overriding __init__")


class _Enum(enum.Enum):
    """Like a pybind11 enumeration: a name, int(), and no equality with numbers."""

    def __int__(self) -> int:
        return int(self.value)

    def __index__(self) -> int:
        return int(self.value)


def _enumeration(name: str, members: str) -> Any:
    return _Enum(name, {member: i for i, member in enumerate(members.split())})


_TEN = _VERSION < (11,)
BuilderFlag = _enumeration(
    "BuilderFlag",
    ("FP16 INT8 " if _TEN else "") + "DEBUG REFIT DISABLE_TIMING_CACHE TF32 VERSION_COMPATIBLE EXCLUDE_LEAN_RUNTIME",
)
NetworkDefinitionCreationFlag = _enumeration(
    "NetworkDefinitionCreationFlag", ("EXPLICIT_BATCH " if _TEN else "") + "STRONGLY_TYPED"
)
HardwareCompatibilityLevel = _enumeration(
    "HardwareCompatibilityLevel", "NONE AMPERE_PLUS" + (" SAME_COMPUTE_CAPABILITY" if _VERSION >= (10, 9) else "")
)
MemoryPoolType = _enumeration("MemoryPoolType", "WORKSPACE TACTIC_DRAM TACTIC_SHARED_MEMORY")
ProfilingVerbosity = _enumeration("ProfilingVerbosity", "LAYER_NAMES_ONLY DETAILED NONE")
LayerInformationFormat = _enumeration("LayerInformationFormat", "ONELINE JSON")
TensorIOMode = _enumeration("TensorIOMode", "NONE INPUT OUTPUT")
DataType = _enumeration("DataType", "FLOAT HALF INT8 INT32 INT64 BOOL UINT8 BF16")
ErrorCode = _enumeration(
    "ErrorCode",
    "SUCCESS INTERNAL_ERROR MEM_ALLOC_FAILED MODEL_DESERIALIZE_FAILED INVALID_VALUE INVALID_GRAPH INVALID_NODE "
    "UNSUPPORTED_GRAPH UNSUPPORTED_NODE UNSUPPORTED_NODE_ATTR",
)
_ONNX_TYPES = {1: "FLOAT", 10: "HALF", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 2: "UINT8", 16: "BF16"}


class _Strict:
    """Takes no attribute that its class does not name."""

    _settable: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name not in self._settable:
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        object.__setattr__(self, name, value)


class ILogger:
    Severity = _enumeration("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

    def __init__(self) -> None:
        self._base_called = True

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError

    def _say(self, level: str, msg: str) -> None:
        self.log(ILogger.Severity[level], msg)


class IProgressMonitor:
    def __init__(self) -> None:
        self._base_called = True

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class Dims(tuple):
    """A tuple of sizes; -1 is open."""


class ITimingCache(_Strict):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._data)


class IPluginRegistry(_Strict):
    def __init__(self) -> None:
        self._operators: set[str] = set()

    def load_library(self, plugin_path: str) -> object | None:
        _check((plugin_path, str))
        lines = Path(plugin_path).read_bytes().split()
        if lines[:2] != [b"fake", b"plugin"]:
            return None
        self._operators |= {line.decode() for line in lines[2:]}
        return object()


class ITensor(_Strict):
    def __init__(self, info: Any) -> None:
        self._info = info

    @property
    def name(self) -> str:
        return str(self._info.name)

    @property
    def shape(self) -> Dims:
        return Dims(d.dim_value if d.HasField("dim_value") else -1 for d in self._info.type.tensor_type.shape.dim)

    @property
    def dtype(self) -> Any:
        return DataType[_ONNX_TYPES[self._info.type.tensor_type.elem_type]]

    @property
    def is_shape_tensor(self) -> bool:
        return False


class INetworkDefinition(_Strict):
    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._model: Any = None
        self._parser: Callable[[], object] = lambda: None

    @property
    def num_inputs(self) -> int:
        return len(self._model.graph.input) if self._model else 0

    def get_input(self, index: int) -> ITensor:
        _check((index, int))
        return ITensor(self._model.graph.input[index])

    @property
    def num_outputs(self) -> int:
        return len(self._model.graph.output) if self._model else 0

    def get_output(self, index: int) -> ITensor:
        _check((index, int))
        return ITensor(self._model.graph.output[index])


class ParserError(_Strict):
    def __init__(self, code: str, text: str, operator: str = "", node: str = "") -> None:
        self._code, self._text, self._operator, self._node = code, text, operator, node

    def code(self) -> Any:
        return ErrorCode[self._code]

    def desc(self) -> str:
        return self._text

    def node_operator(self) -> str:
        return self._operator

    def node_name(self) -> str:
        return self._node


class OnnxParser(_Strict):
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        _check((network, INetworkDefinition))
        _base(logger, ILogger)
        self._network, self._logger, self._errors = network, logger, list[ParserError]()

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        _check((index, int))
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        import onnx

        _check((model, str))
        if _fails("parse-memory"):
            return self._no("MEM_ALLOC_FAILED", "std::bad_alloc")
        try:
            parsed = onnx.load(model)
        except Exception:
            return self._no("MODEL_DESERIALIZE_FAILED", "Assertion failed: Failed to parse the ONNX model.")
        known = self._network._builder._registry._operators
        for node in parsed.graph.node:
            if not onnx.defs.has(node.op_type, node.domain) and node.op_type not in known:
                text = 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"'
                return self._no("INVALID_NODE", text, node.op_type, node.name)
        self._network._model = parsed
        self._network._parser = weakref.ref(self)
        return True

    def _no(self, code: str, text: str, operator: str = "", node: str = "") -> bool:
        self._errors.append(ParserError(code, text, operator, node))
        self._logger._say("ERROR", text)
        return False


class IOptimizationProfile(_Strict):
    def __init__(self) -> None:
        self._shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002
        _check((input, str), (min, (tuple, list)), (opt, (tuple, list)), (max, (tuple, list)))
        self._shapes[input] = [list(min), list(opt), list(max)]


class IBuilderConfig(_Strict):
    _settable = (
        "builder_optimization_level",
        "profiling_verbosity",
        "hardware_compatibility_level",
        "progress_monitor",
        "plugins_to_serialize",
    )

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger
        self._flags = {BuilderFlag.TF32}
        self._pools: dict[str, int] = {}
        self._profiles: list[IOptimizationProfile] = []
        self._cache: ITimingCache | None = None
        self.builder_optimization_level = 3
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.progress_monitor: IProgressMonitor | None = None
        self.plugins_to_serialize: list[str] = []

    def __setattr__(self, name: str, value: object) -> None:
        kinds: dict[str, Any] = {
            "builder_optimization_level": int,
            "profiling_verbosity": ProfilingVerbosity,
            "hardware_compatibility_level": HardwareCompatibilityLevel,
            "progress_monitor": (IProgressMonitor, type(None)),
            "plugins_to_serialize": list,
        }
        if name in kinds:
            _check((value, kinds[name]))
        if isinstance(value, IProgressMonitor):
            _base(value, IProgressMonitor)
        super().__setattr__(name, value)

    def set_flag(self, flag: Any) -> None:
        _check((flag, BuilderFlag))
        self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        _check((flag, BuilderFlag))
        self._flags.discard(flag)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        _check((pool, MemoryPoolType), (pool_size, int))
        self._pools[pool.name] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        _check((profile, IOptimizationProfile))
        if _fails("profile"):
            self._logger._say("ERROR", "IOptimizationProfile: the profile is not valid")
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        _check((serialized_timing_cache, (bytes, memoryview)))
        data = bytes(serialized_timing_cache) or _CACHE_MAGIC + f"{__version__} {_device_name()}\n".encode()
        if not data.startswith(_CACHE_MAGIC):
            self._logger._say("ERROR", "ITimingCache: insufficient data, the header is damaged")
            return None
        return ITimingCache(data)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        _check((cache, ITimingCache))
        if not cache._data.startswith(_CACHE_MAGIC + f"{__version__} {_device_name()}\n".encode()):
            self._logger._say("ERROR", "ITimingCache: the CUDA device of the cache is another")
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class Builder(_Strict):
    def __init__(self, logger: ILogger) -> None:
        _base(logger, ILogger)
        if _fails("no-device"):
            logger._say("ERROR", "CUDA initialization failure with error: 35. Please check your CUDA installation")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger
        self._registry = IPluginRegistry()

    def get_plugin_registry(self) -> IPluginRegistry:
        return self._registry

    def create_network(self, flags: int = 0) -> INetworkDefinition | None:
        _check((flags, int))
        if not flags & 1 << int(NetworkDefinitionCreationFlag.STRONGLY_TYPED):
            raise AssertionError("the network is to be strongly typed")
        return None if _fails("no-network") else INetworkDefinition(self)

    def create_builder_config(self) -> IBuilderConfig | None:
        return None if _fails("no-config") else IBuilderConfig(self._logger)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        _check((network, INetworkDefinition), (config, IBuilderConfig))
        if _fails("empty"):
            return IHostMemory(b"")
        return IHostMemory(engine) if (engine := self._built(network, config)) else None

    def _built(self, network: INetworkDefinition, config: IBuilderConfig) -> bytes | None:
        if network._parser() is None:
            raise AssertionError("the parser, which holds the weights, is gone")
        if _fails("no-reason"):
            return None
        if _fails("memory"):
            self._logger._say(
                "WARNING", "Skipping tactic 0x3e8 due to insufficient memory on requested size of 4294967296 detected"
            )
        if _fails("memory") or _fails("implementation"):
            self._logger._say(
                "ERROR", "IBuilder::buildSerializedNetwork: Error Code 10: Could not find any implementation for node c"
            )
            return None
        if not self._reports(config.progress_monitor):
            self._logger._say("INFO", "the build was stopped by the progress monitor")
            return None
        if config._cache is not None:
            config._cache._data += b"tactic\n"
        header = {
            "version": __version__,
            "capability": _capability(),
            "device": _device_name(),
            "flags": sorted(flag.name for flag in config._flags),
            "compatibility": config.hardware_compatibility_level.name,
            "pools": config._pools,
            "level": config.builder_optimization_level,
            "verbosity": config.profiling_verbosity.name,
            "shapes": config._profiles[0]._shapes if config._profiles else {},
            "plugins": [Path(path).read_text() for path in config.plugins_to_serialize],
        }
        model: bytes = network._model.SerializeToString()
        return _MAGIC + json.dumps(header).encode() + b"\n" + model

    def _reports(self, monitor: IProgressMonitor | None) -> bool:
        """Whether to go on to the end, asked of the monitor by a thread of the library."""
        if monitor is None:
            return True
        answers: list[bool] = []

        def call(function: Callable[..., Any], *arguments: object) -> None:
            try:
                result = function(*arguments)
            except BaseException:  # as the bindings do: printed there, and taken for a wish to stop
                result = False
            answers.append(result is not False)

        def phase(name: str, parent: str | None, steps: int, inner: Callable[[], None] = lambda: None) -> None:
            if not all(answers):
                return
            call(monitor.phase_start, name, parent, steps)
            for step in range(steps):
                inner()
                if all(answers):
                    call(monitor.step_complete, name, step)
            call(monitor.phase_finish, name)

        def build() -> None:
            inner = "Building engine from subgraph"  # comes several times
            phase("Building engine", None, 3, lambda: phase(inner, "Building engine", 2))

        thread = threading.Thread(target=build)
        thread.start()
        thread.join()
        return all(answers)


if _VERSION >= (10, 13, 3):

    class IStreamWriter:
        def __init__(self) -> None:
            self._base_called = True

        def write(self, data: bytes) -> int:
            raise NotImplementedError

    def _to_stream(self: Builder, network: INetworkDefinition, config: IBuilderConfig, writer: IStreamWriter) -> bool:
        _check((network, INetworkDefinition), (config, IBuilderConfig))
        _base(writer, IStreamWriter)
        if _fails("empty"):
            return True
        engine = self._built(network, config)
        if engine is None:
            return False
        with contextlib.suppress(BaseException):
            writer.write(engine)
        return True

    Builder.build_serialized_network_to_stream = _to_stream


class Runtime(_Strict):
    _settable = ("engine_host_code_allowed",)

    def __init__(self, logger: ILogger) -> None:
        _base(logger, ILogger)
        if _fails("cuda-none"):
            raise AssertionError("the process would crash at the first use of this object: ask CUDA first")
        if _fails("no-runtime"):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        _check((serialized_engine, (bytes, memoryview)))
        data = bytes(serialized_engine)
        if not data.startswith(_MAGIC):
            return self._no(
                "Error Code 1: Serialization (Serialization assertion header.magicTag == kEXPECTED_MAGIC_TAG failed.)"
            )
        line, _, model = data[len(_MAGIC) :].partition(b"\n")
        header = json.loads(line)
        built = tuple(map(int, header["version"].split(".")))
        compatible = "VERSION_COMPATIBLE" in header["flags"]
        if (compatible or header["plugins"]) and not self.engine_host_code_allowed:
            return self._no("the plan holds host code, which is not allowed")
        if built != _VERSION and not (compatible and built[0] == _VERSION[0] and built < _VERSION):
            return self._no(
                "The engine plan file is not compatible with this version of TensorRT, expecting library version "
                f"{__version__} got {header['version']}, please rebuild."
            )
        level = header["compatibility"]
        if header["device"] != _device_name() and not (
            level == "AMPERE_PLUS" or (level == "SAME_COMPUTE_CAPABILITY" and header["capability"] == _capability())
        ):
            return self._no("The engine plan file is generated on an incompatible device, please rebuild.")
        if _fails("no-engine"):
            return self._no("Error Code 2: OutOfMemory (Requested size was 536870912 bytes.)")
        return ICudaEngine(self._logger, header, model)

    def _no(self, text: str) -> None:
        self._logger._say("ERROR", f"IRuntime::deserializeCudaEngine: {text}")


class ICudaEngine(_Strict):
    def __init__(self, logger: ILogger, header: dict[str, Any], model: bytes) -> None:
        import onnx

        self._logger, self._header, self._model = logger, header, model
        self._graph = onnx.load_model_from_string(model).graph

    @property
    def _ends(self) -> list[Any]:
        return [*self._graph.input, *self._graph.output]

    def _end(self, name: str) -> Any:
        _check((name, str))
        return next(end for end in self._ends if end.name == name)

    @property
    def num_io_tensors(self) -> int:
        return len(self._ends)

    def get_tensor_name(self, index: int) -> str:
        _check((index, int))
        return str(self._ends[index].name)

    def get_tensor_mode(self, name: str) -> Any:
        taken = name in [end.name for end in self._graph.input]
        return TensorIOMode.INPUT if taken else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return DataType[_ONNX_TYPES[self._end(name).type.tensor_type.elem_type]]

    def get_tensor_shape(self, name: str) -> Dims:
        return ITensor(self._end(name)).shape

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def create_execution_context(self) -> IExecutionContext | None:
        if _fails("no-context"):
            self._logger._say("ERROR", "Error Code 1: Cuda Runtime (out of memory)")
            return None
        return IExecutionContext(self)


class EngineInspector(_Strict):
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine

    def get_engine_information(self, format: Any) -> str:  # noqa: A002
        _check((format, LayerInformationFormat))
        layers = [{"Name": node.name or node.output[0], "LayerType": node.op_type} for node in self._engine._graph.node]
        return json.dumps({"Layers": layers, "Header": self._engine._header})


class IExecutionContext(_Strict):
    def __init__(self, engine: ICudaEngine) -> None:
        import onnxruntime

        self._engine = engine
        self._session = onnxruntime.InferenceSession(engine._model, providers=["CPUExecutionProvider"])
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._where: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        _check((name, str), (shape, (tuple, list)))
        bounds = self._engine._header["shapes"].get(name)
        if bounds and not all(a <= b <= c for a, b, c in zip(bounds[0], shape, bounds[2], strict=True)):
            self._engine._logger._say("ERROR", f"Set dimension {list(shape)} for tensor {name} is out of the profile")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return [end.name for end in self._engine._graph.input if end.name not in self._shapes]

    def get_tensor_shape(self, name: str) -> Dims:
        """What ONNX Runtime makes of the symbols; those that no input names stay open."""
        if name in self._shapes:
            return Dims(self._shapes[name])
        sizes: dict[str, int] = {}
        for end in self._engine._graph.input:
            dims = zip(end.type.tensor_type.shape.dim, self._shapes[end.name], strict=True)
            sizes |= {dim.dim_param: size for dim, size in dims if dim.dim_param}
        open_dims = self._engine._end(name).type.tensor_type.shape.dim
        return Dims(dim.dim_value or sizes.get(dim.dim_param, -1) for dim in open_dims)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        _check((name, str), (memory, int))
        self._where[name] = memory
        return memory in _cuda.buffers

    def execute_async_v3(self, stream_handle: int) -> bool:
        import ctypes

        import numpy as np

        _check((stream_handle, int))
        if _fails("execute") or stream_handle not in _cuda.streams:
            self._engine._logger._say("ERROR", "enqueueV3: Error Code 1: Cuda Runtime (launch failure)")
            return False
        feeds = {}
        for end in self._session.get_inputs():
            dtype = np.dtype({"tensor(float)": "float32", "tensor(float16)": "float16"}[end.type])
            size = int(np.prod(self._shapes[end.name])) * dtype.itemsize
            data = ctypes.string_at(self._where[end.name], size)
            feeds[end.name] = np.frombuffer(data, dtype).reshape(self._shapes[end.name])
        for end, value in zip(self._session.get_outputs(), self._session.run(None, feeds), strict=True):
            if value.nbytes > len(_cuda.buffers[self._where[end.name]]):
                raise AssertionError(f"the buffer of {end.name} is too small")
            ctypes.memmove(self._where[end.name], np.ascontiguousarray(value).ctypes.data, value.nbytes)
        return True


def get_nv_onnx_parser_version() -> int:
    return 100
