"""Compile one engine with TensorRT or TensorRT for RTX: from an ONNX file to an engine file, and inspect it.

A refusal by the library becomes a typed failure with the library's own words. When `compile_network` returns, the file
at the path that it was given is a whole engine.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from blake3 import blake3

from builders.engines.base import CompileJob, Ends, EngineSpec, InputRange, TensorInfo
from builders.engines.failures import failure
from builders.engines.tensorrt_library import freeing, supports, without_place
from builders.engines.tensorrt_session import deserialise, tensor_info
from store.errors import NO_SPACE, no_space

_MAX_INSPECTOR = 4 * 2**20
_MAX_LAYERS = 10_000


@freeing
def compile_network(
    tensorrt: Any,
    log: Any,
    job: CompileJob,
    source: Path,
    into: Path,
    configure: Callable[[Any], None],
    timing: Path | None = None,
) -> Ends:
    """Write the engine of the network `source` to `into`, and return its ends as the library has them.

    `configure` sets in the configuration of the builder what only this library has; `timing` is a timing cache. Raise
    FlightbagError with a kind of `failures`; `into` may then hold a part of an engine.
    """
    try:
        builder = tensorrt.Builder(log)
    except TypeError as error:  # the bindings raise it if the library returns no object
        raise log.failure("TensorRT does not start") from error
    plugins = _load_plugins(log, builder, job)
    # TensorRT 10 needs the flag; on 11 it has no effect, because every network is strongly typed.
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    config = builder.create_builder_config()
    if network is None or config is None:
        raise log.failure("TensorRT does not start a network")
    job.progress("reading the network", 0, 0)
    parser = tensorrt.OnnxParser(network, log)  # it owns the network's weights: it must outlive the build
    _parse(parser, log, source)
    if network.num_outputs == 0:  # the parser takes some files that hold no network
        raise failure("invalid-model", "the model holds no network: it has no outputs")
    _set_profile(log, builder, network, config, job.spec.inputs)
    _configure(tensorrt, config, job.spec)
    configure(config)
    if plugins:
        config.plugins_to_serialize = plugins
    if timing is not None:
        _use_timing_cache(log, config, timing)
    monitor = _make_monitor(tensorrt, job)
    config.progress_monitor = monitor
    try:
        with into.open("wb") as file:
            built = _build(tensorrt, builder, network, config, file) and file.tell() > 0
    except OSError as error:
        if error.errno in NO_SPACE:
            raise no_space(str(into), error.errno) from error
        raise failure("failed", f"the engine cannot be written: {error.strerror}", path=str(into)) from error
    if monitor.error is not None:
        raise monitor.error
    if job.cancelled():
        raise failure("cancelled", f"compiling {job.spec.backbone} was cancelled")
    if not built:
        raise log.failure(f"TensorRT built no engine of {job.spec.backbone}")
    if timing is not None:
        _keep_timing_cache(config, timing)
    return _ends(network)


def _ends(network: Any) -> Ends:
    return Ends(
        tuple(_end(network.get_input(i)) for i in range(network.num_inputs)),
        tuple(_end(network.get_output(i)) for i in range(network.num_outputs)),
    )


def _end(tensor: Any) -> TensorInfo:
    dtype = tensor.dtype
    return tensor_info(tensor.name, dtype.name, tensor.shape)


def _load_plugins(log: Any, builder: Any, job: CompileJob) -> list[str]:
    """Load the plug-in libraries and return their paths: those of private copies, whose bytes are the ones hashed."""
    paths = []
    for digest, plugin in {plugin.digest: plugin for plugin in job.spec.plugins}.items():
        try:
            data = plugin.path.read_bytes()
            if blake3(data).digest() != digest:
                raise failure("invalid-model", f"the plug-in library {plugin.path} changed since the plan")
            copy = job.folder / f"{digest.hex()}.so"
            copy.write_bytes(data)
        except OSError as error:
            message = f"the plug-in library {plugin.path} cannot be copied: {error.strerror}"
            raise failure("failed", message) from error
        registry = builder.get_plugin_registry()
        if registry.load_library(str(copy)) is None:
            raise log.failure(f"TensorRT does not load the plug-in library {plugin.path}")
        paths.append(str(copy))
    return paths


def _parse(parser: Any, log: Any, source: Path) -> None:
    if parser.parse_from_file(str(source)):
        return
    problems = [parser.get_error(i) for i in range(parser.num_errors)]
    codes = {each.code().name for each in problems}
    texts = [_problem(each.node_operator(), each.node_name(), each.desc()) for each in problems[:3]]
    kind = log.failure("").kind
    if "MEM_ALLOC_FAILED" in codes:
        kind = "out-of-memory"
    elif kind != "out-of-memory":
        # ONNX Runtime has opened the network, so that an invalid node is one that this parser does not take.
        is_node = any(name.startswith(("UNSUPPORTED", "INVALID_NODE")) for name in codes)
        kind = "unsupported-op" if is_node else "invalid-model"
    if kind == "invalid-model" or not texts:  # of a file beside the model, only the log says which
        texts = [*map(without_place, list(log.errors)[:1]), *texts]
    text = "; ".join(texts)[:1000]
    raise failure(kind, f"TensorRT refuses the network: {text}")


def _problem(operator: str, node: str, description: str) -> str:
    if (words := re.search(r'&& "(.+)"', description)) is not None:  # of a condition, its text
        description = words[1]
    if description in ("", "false"):
        description = "the operator has no importer" if operator else "no reason is given"
    return f"{operator} {node}: {description}".strip(": ")


def _set_profile(log: Any, builder: Any, network: Any, config: Any, inputs: tuple[InputRange, ...]) -> None:
    """Set one profile for all inputs. It declares fixed shapes too, because the model may leave them open."""
    undeclared = {item.name: item for item in inputs}
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        item, model_shape = undeclared.pop(tensor.name, None), tuple(tensor.shape)
        if item is None or not _fits(item.shape, model_shape):
            declared = "is not declared" if item is None else f"is declared as {list(item.shape)}"
            message = f"the input {tensor.name} has the shape {list(model_shape)} in the model and {declared}"
            raise failure("wrong-inputs", message)
        dtype = tensor.dtype
        if dtype.name in ("INT32", "INT64") and tensor.is_shape_tensor:
            raise failure(
                "wrong-inputs",
                f"the values of the input {tensor.name} decide shapes, which an engine has from the mission file",
                remedy=f"give {tensor.name} a value in backbones.inputs, the same for every image",
            )
        least, usual, most = (item.at(size) for size in item.range or (None, None, None))
        profile.set_shape(tensor.name, least, usual, most)
    if undeclared:
        raise failure("wrong-inputs", f"the model lacks the declared inputs {', '.join(undeclared)}")
    if config.add_optimization_profile(profile) < 0:
        raise log.failure("TensorRT refuses the shapes of the inputs")


def _fits(declared: tuple[int | str, ...], actual: tuple[int, ...]) -> bool:
    return len(declared) == len(actual) and all(b in (-1, a) for a, b in zip(declared, actual, strict=True))


def _configure(tensorrt: Any, config: Any, spec: EngineSpec) -> None:
    number = {name: value for name, value in spec.options.items() if isinstance(value, int)}
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, number["workspace_mib"] << 20)
    if limit := number["tactic_shared_memory_kib"]:
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.TACTIC_SHARED_MEMORY, limit << 10)
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED  # the inspector shows only what this keeps
    if spec.precision == "fp32":
        # TF32 is on by default and rounds the factors of convolutions to 10 bits, which is not fp32.
        config.clear_flag(tensorrt.BuilderFlag.TF32)


def _use_timing_cache(log: Any, config: Any, path: Path) -> None:
    """Use the stored cache, or an empty one if it is absent, damaged or from another device."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    for content in (data, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            break
    log.forget()  # messages about a damaged cache do not explain a later failure


def _keep_timing_cache(config: Any, path: Path) -> None:
    """Replace the file in one step. A cache that cannot be stored costs time, but not the engine."""
    cache = config.get_timing_cache()
    memory = None if cache is None else cache.serialize()
    if memory is None:
        return
    try:
        partial = path.with_name(f"{path.name}.part")
        with partial.open("wb") as file:
            file.write(memory)
        os.replace(partial, path)
    except OSError as error:
        sys.stderr.write(f"the timing cache {path} cannot be written: {error.strerror}\n")


def _build(tensorrt: Any, builder: Any, network: Any, config: Any, file: BinaryIO) -> bool:
    if not supports(tensorrt, "Builder.build_serialized_network_to_stream"):
        memory = builder.build_serialized_network(network, config)
        return memory is not None and file.write(memory) > 0

    class Writer(tensorrt.IStreamWriter):  # type: ignore[misc] # a class of an optional module
        def __init__(self) -> None:
            tensorrt.IStreamWriter.__init__(self)
            self.error: BaseException | None = None

        def write(self, data: bytes) -> int:
            try:
                return file.write(data)
            except BaseException as error:  # noqa: BLE001 - raised below: the library may take no notice of it
                self.error = error
                return 0

    writer = Writer()
    built: bool = builder.build_serialized_network_to_stream(network, config, writer)
    if writer.error is not None:
        raise writer.error
    return built


def _make_monitor(tensorrt: Any, job: CompileJob) -> Any:
    """Return a monitor that reports the outermost phase to the job and stops the build when the job is cancelled. Its
    `error` is the exception that reporting raised.

    The phases within others repeat their names, and nobody knows beforehand how many there will be. The library may
    call from its own threads, and treats an exception as a request to stop.
    """
    lock = threading.Lock()

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc] # a class of an optional module
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.steps[phase_name] = num_steps
                self.report(phase_name, 0)

        def phase_finish(self, phase_name: str) -> None:
            pass

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.steps:
                self.report(phase_name, step + 1)
            return self.error is None and not job.cancelled()

        def report(self, phase: str, count: int) -> None:
            try:
                with lock:
                    job.progress(phase, count, self.steps[phase])
            except BaseException as error:  # noqa: BLE001 - raised again when the build ends
                self.error = error

    return Monitor()


@freeing
def inspect(tensorrt: Any, cuda: Any, log: Any, path: Path) -> Any:
    """Return the library's description of the inside of an engine. Raise a failure if the engine cannot be loaded."""
    _runtime, engine = deserialise(tensorrt, cuda, log, path.read_bytes())
    inspector = engine.create_engine_inspector()
    if inspector is None:
        raise log.failure("TensorRT does not inspect the engine")
    return bounded_inspection(inspector.get_engine_information(tensorrt.LayerInformationFormat.JSON))


def bounded_inspection(text: str) -> Any:
    """Return the inspector's JSON as a value. Of a text of more than 4 MiB, return only the names, types and tactics of
    the first 10,000 layers."""
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return {"unreadable": text[:_MAX_LAYERS]}
    if len(text.encode()) <= _MAX_INSPECTOR:
        return value
    listed = value.get("Layers") if isinstance(value, dict) else None
    layers = listed if isinstance(listed, list) else []
    summaries = [
        {key: str(layer[key])[:100] for key in ("Name", "LayerType", "TacticName") if key in layer}
        for layer in layers[:_MAX_LAYERS]
        if isinstance(layer, dict)
    ]
    return {"layers": len(layers), "Layers": summaries}
