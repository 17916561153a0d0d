"""Compiling one engine with TensorRT: from an ONNX file to an engine file, its timing cache, and a look inside.

What the library says no to becomes a typed failure with its own words. `compile_engine` writes the engine where it is
told, and only a whole one is there when it returns.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

from blake3 import blake3

from builders.engines.base import EngineSpec, InputRange, Job
from builders.engines.failures import failure
from builders.engines.tensorrt_library import has
from builders.engines.tensorrt_session import deserialise

_MAX_INSPECTOR = 4 * 2**20
_MAX_LAYERS = 10_000


def compile_engine(tensorrt: Any, log: Any, job: Job, source: Path, into: Path, timing: Path) -> None:
    """Writes the engine of the network `source` to `into`, with the timing cache `timing`.

    Raises FlightbagError with a kind of `failures`; `into` may then hold part of an engine.
    """
    try:
        builder = tensorrt.Builder(log)
    except TypeError as error:  # how the bindings say that there is none
        raise log.failure("TensorRT does not start") from error
    plugins = _load_plugins(log, builder, job)
    # Needed on 10 and without effect on 11, where nothing else is left.
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    config = builder.create_builder_config()
    if network is None or config is None:
        raise log.failure("TensorRT does not start a network")
    job.progress("reading the network", 0, 0)
    parser = tensorrt.OnnxParser(network, log)  # the network's weights are its: it has to outlive the build
    _parse(parser, log, source)
    _set_profile(log, builder, network, config, job.spec.inputs)
    _configure(tensorrt, config, job.spec)
    config.plugins_to_serialize = plugins
    _use_timing_cache(log, config, timing)
    monitor = _make_monitor(tensorrt, job)
    config.progress_monitor = monitor
    try:
        with into.open("wb") as file:
            built = _build(tensorrt, builder, network, config, file) and file.tell() > 0
    except OSError as error:
        raise failure("failed", f"the engine cannot be written: {error.strerror}", path=str(into)) from error
    if monitor.error is not None:
        raise monitor.error
    if job.cancelled():
        raise failure("cancelled", f"cancelled while {job.spec.backbone} was being compiled")
    if not built:
        raise log.failure(f"TensorRT built no engine of {job.spec.backbone}")
    _keep_timing_cache(config, timing)


def _load_plugins(log: Any, builder: Any, job: Job) -> list[str]:
    """Loads the plug-in libraries and gives their paths. What was hashed is what is loaded: a private copy."""
    paths = []
    for digest, plugin in {plugin.digest: plugin for plugin in job.spec.plugins}.items():
        try:
            data = plugin.path.read_bytes()
            if blake3(data).digest() != digest:
                raise failure("invalid-model", f"the plug-in library {plugin.path} is not the one that was planned")
            copy = job.folder / f"{digest.hex()}.so"
            copy.write_bytes(data)
        except OSError as error:
            raise failure("failed", f"{plugin.path} cannot be copied: {error.strerror}") from error
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
    said = [f"{each.node_operator()} {each.node_name()}: {each.desc()}".strip(": ") for each in problems[:3]]
    kind = log.failure("").fields["kind"]
    if "MEM_ALLOC_FAILED" in codes:
        kind = "out-of-memory"
    elif kind != "out-of-memory" and any(name.startswith("UNSUPPORTED") for name in codes):
        kind = "unsupported-op"
    text = "; ".join(said or log.errors)[:1000]
    raise failure("invalid-model" if kind == "failed" else kind, f"TensorRT does not take the network: {text}")


def _set_profile(log: Any, builder: Any, network: Any, config: Any, inputs: tuple[InputRange, ...]) -> None:
    """One profile for all inputs; a fixed shape is declared too, since the model may leave it open."""
    left = {item.name: item for item in inputs}
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        item, has_shape = left.pop(tensor.name, None), tuple(tensor.shape)
        if item is None or not _fits(item.shape, has_shape):
            declared = "undeclared" if item is None else f"declared {list(item.shape)}"
            raise failure("wrong-inputs", f"the input {tensor.name} is {list(has_shape)} and {declared}")
        least, usual, most = (item.at(size) for size in item.range or (None, None, None))
        profile.set_shape(tensor.name, least, usual, most)
    if left:
        raise failure("wrong-inputs", f"the model has no inputs {', '.join(left)}")
    if config.add_optimization_profile(profile) < 0:
        raise log.failure("TensorRT refuses the shapes of the inputs")


def _fits(declared: tuple[int | str, ...], has_shape: tuple[int, ...]) -> bool:
    return len(declared) == len(has_shape) and all(b in (-1, a) for a, b in zip(declared, has_shape, strict=True))


def _configure(tensorrt: Any, config: Any, spec: EngineSpec) -> None:
    number = {name: value for name, value in spec.options.items() if isinstance(value, int)}
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, number["workspace_mib"] << 20)
    if limit := number["tactic_dram_mib"]:
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.TACTIC_DRAM, limit << 20)
    if limit := number["tactic_shared_memory_kib"]:
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.TACTIC_SHARED_MEMORY, limit << 10)
    config.builder_optimization_level = number["optimisation_level"]
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED  # the inspector tells no more than this keeps
    if spec.precision == "fp32":
        # On by default, and rounds what convolutions multiply to 10 bits: that is not what fp32 says.
        config.clear_flag(tensorrt.BuilderFlag.TF32)
    if number["version_compatible"]:
        config.set_flag(tensorrt.BuilderFlag.VERSION_COMPATIBLE)
    if spec.options["compatibility"] == "ampere_plus":
        config.hardware_compatibility_level = tensorrt.HardwareCompatibilityLevel.AMPERE_PLUS
    elif spec.options["compatibility"] == "same_compute_capability":
        config.hardware_compatibility_level = tensorrt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY


def _use_timing_cache(log: Any, config: Any, path: Path) -> None:
    """The cache as it was left, or an empty one where there is none or it is damaged or another device's."""
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    for content in (data, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            break
    log.forget()  # complaints about a damaged cache are no reason for what fails later


def _keep_timing_cache(config: Any, path: Path) -> None:
    """Replaces the file in one step. A cache that cannot be kept costs time, not the engine."""
    cache = config.get_timing_cache()
    memory = None if cache is None else cache.serialize()
    if memory is None:
        return
    try:
        begun = path.with_name(f"{path.name}.part")
        with begun.open("wb") as file:
            file.write(memory)
        os.replace(begun, path)
    except OSError as error:
        sys.stderr.write(f"the timing cache {path} cannot be kept: {error.strerror}\n")


def _build(tensorrt: Any, builder: Any, network: Any, config: Any, file: BinaryIO) -> bool:
    if not has(tensorrt, "Builder.build_serialized_network_to_stream"):
        memory = builder.build_serialized_network(network, config)
        return memory is not None and file.write(memory) > 0

    class Writer(tensorrt.IStreamWriter):  # type: ignore[misc] # a class of an optional module
        def __init__(self) -> None:
            tensorrt.IStreamWriter.__init__(self)
            self.error: OSError | None = None

        def write(self, data: bytes) -> int:
            try:
                return file.write(data)
            except OSError as error:
                self.error = error  # raised below; the library would only say that its writer failed
                return 0

    writer = Writer()
    built: bool = builder.build_serialized_network_to_stream(network, config, writer)
    if writer.error is not None:
        raise writer.error
    return built


def _make_monitor(tensorrt: Any, job: Job) -> Any:
    """Tells the job of each phase and stops the build when it is cancelled. `error` is what went wrong in telling.

    The library calls from its own threads, and takes an exception for a wish to stop.
    """
    lock = threading.Lock()

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc] # a class of an optional module
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)
            self.error: BaseException | None = None
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:  # noqa: ARG002
            with lock:
                self.steps[phase_name] = num_steps
            self.tell(phase_name, 0)

        def phase_finish(self, phase_name: str) -> None:
            with lock:
                self.steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.tell(phase_name, step + 1)
            return self.error is None and not job.cancelled()

        def tell(self, phase: str, done: int) -> None:
            try:
                with lock:
                    job.progress(phase, done, self.steps.get(phase, 0))
            except BaseException as error:  # noqa: BLE001 - raised again where the build ends
                self.error = error

    return Monitor()


def inspect(tensorrt: Any, log: Any, path: Path) -> Any:
    """What the library can tell of the engine's inside; that it can be loaded at all is found out on the way."""
    _runtime, engine = deserialise(tensorrt, log, path.read_bytes())
    inspector = engine.create_engine_inspector()
    if inspector is None:
        raise log.failure("TensorRT does not inspect the engine")
    return inside(inspector.get_engine_information(tensorrt.LayerInformationFormat.JSON))


def inside(text: str) -> Any:
    """The inspector's JSON as a value; of more than 4 MiB only names, types and tactics of the first 10,000 layers."""
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return {"unreadable": text[:_MAX_LAYERS]}
    if len(text.encode()) <= _MAX_INSPECTOR:
        return value
    found = value.get("Layers") if isinstance(value, dict) else None
    layers = found if isinstance(found, list) else []
    short = [
        {key: str(layer[key])[:100] for key in ("Name", "LayerType", "TacticName") if key in layer}
        for layer in layers[:_MAX_LAYERS]
        if isinstance(layer, dict)
    ]
    return {"layers": len(layers), "Layers": short}
