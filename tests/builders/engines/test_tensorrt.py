"""The TensorRT backend over the fake of `tests/support/fake_tensorrt`: the whole flow and every failure.

One test at the end runs the true thing, where there is one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from blake3 import blake3
from filelock import FileLock
from onnx import helper

from builders.engines import tensorrt_host
from builders.engines.base import BackendResult, CompileJob, EngineSpec, InputRange, Plugin
from builders.engines.model import hash_model
from builders.engines.recipe import engine_recipe
from builders.engines.session import open_session
from builders.engines.tensorrt import OPTIONS, TensorRtBackend
from builders.engines.tensorrt_library import import_tensorrt
from builders.recipe import Recipe
from store.errors import FlightbagError, Invalid, Refused, Unavailable
from store.format.cbor import encode
from store.format.host import is_host_class
from tests.builders.engines.fake_machine import FAKE, become, forget_modules
from tests.builders.engines.networks import elementwise, save, save_external, small_network

VERSIONS = ("10.3", "10.16", "11.4")
HOSTS = {
    "orin": "cuda12.6+l4t-36.4.3+linux-aarch64+sm87-orin-16sm-64gb+trt10-10.3.0.30",
    "rtx": "ampere-plus+cuda12.4+driver-550+linux-x86_64+sm89-geforce_rtx_4090-128sm-24gb+trt10-10.3.0.30",
    "h100": "ampere-plus+cuda13.0+driver-580+linux-x86_64+sm90-h100_80gb_hbm3-132sm-80gb+trt10-10.3.0.30",
}


@dataclass
class Machine:
    """A machine with the fake on it, and a job to do there."""

    monkeypatch: pytest.MonkeyPatch
    folder: Path
    told: list[tuple[str, int, int]] = field(default_factory=list)
    backend: TensorRtBackend = field(default_factory=TensorRtBackend)

    def become(self, version: str = "10.3", device: str = "rtx", fail: str = "") -> None:
        """As if this process had started with that version, device and failure."""
        become(self.monkeypatch, version, device, fail)

    def spec(self, network: onnx.ModelProto | None = None, **options: Any) -> EngineSpec:
        path = save(self.folder / "model", network or small_network())
        item = InputRange("image", ("N", 3, 16, 16), 1, 2, 4)
        return EngineSpec("place", hash_model(path), "fp32", (item,), options={**OPTIONS, **options})

    def job(self, spec: EngineSpec, cancelled: Callable[[], bool] = lambda: False) -> CompileJob:
        folder = self.folder / f"job{len(list(self.folder.glob('job*')))}"
        folder.mkdir()
        host = self.backend.engine_host(spec, self.backend.target(spec))
        return CompileJob(spec, spec.model.path, host, folder, self.folder / "cache", self.tell, cancelled)

    def tell(self, what: str, done: int, of: int) -> None:
        self.told.append((what, done, of))

    def make(self, spec: EngineSpec | None = None) -> BackendResult:
        return self.backend.make(self.job(spec or self.spec()))

    def fails(self, spec: EngineSpec | None = None, **changes: Any) -> FlightbagError:
        """What `make` raises; no engine is left under its final name."""
        job = replace(self.job(spec or self.spec()), **changes)
        with pytest.raises(FlightbagError) as caught:
            self.backend.make(job)
        assert not (job.folder / "engine.engine").exists()
        return caught.value


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    monkeypatch.syspath_prepend(str(FAKE))
    for name in ("DRIVER_FILE", "L4T_FILE"):  # which the fake sets: they are as they were afterwards
        monkeypatch.setattr(tensorrt_host, name, getattr(tensorrt_host, name))
    there = Machine(monkeypatch, tmp_path)
    there.become()
    yield there
    forget_modules()


def key_of(machine: Machine, spec: EngineSpec, target: str = "") -> Recipe:
    """What the build key of the engine is of, for a target or for this machine."""
    need = machine.backend.engine_host(spec, target or machine.backend.target(spec))
    return engine_recipe(spec, need, machine.backend.key_fields(spec, need), "")


def header(engine: Path) -> dict[str, Any]:
    """What the fake wrote into an engine about how it was built."""
    line = engine.read_bytes().partition(b"\n")[0]
    value: dict[str, Any] = json.loads(line.removeprefix(b"fake engine "))
    return value


def image(batch: int = 2) -> dict[str, Any]:
    return {"image": np.random.default_rng(1).random((batch, 3, 16, 16), np.float32)}


# Building, loading, running


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_computes_what_its_network_does(machine: Machine, version: str) -> None:
    machine.become(version)
    spec = machine.spec()
    made = machine.make(spec)
    assert made.model.name == "engine.engine"
    assert made.weights is None
    session = machine.backend.load(made.model.read_bytes(), machine.backend.target(spec))
    assert [(end.name, end.dtype, end.shape) for end in session.inputs] == [("image", "float32", ("?", 3, 16, 16))]
    assert [(end.name, end.dtype, end.shape) for end in session.outputs] == [("descriptor", "float32", ("?", 4))]
    reference = open_session(spec.model.path.read_bytes(), "off")
    for batch in (1, 2, 4):
        np.testing.assert_allclose(
            session.run(image(batch))["descriptor"], reference.run(image(batch))["descriptor"], rtol=1e-5, atol=1e-6
        )


def test_weights_beside_the_network_go_into_the_engine(machine: Machine) -> None:
    path = save_external(machine.folder / "outside", small_network())
    spec = replace(machine.spec(), model=hash_model(path))
    engine = machine.make(spec).model.read_bytes()
    (path.parent / "weights/w.bin").unlink()
    assert machine.backend.load(engine, machine.backend.target(spec)).run(image())["descriptor"].shape == (2, 4)


def test_options_reach_the_library_by_name(machine: Machine) -> None:
    machine.become("10.16")
    options = {"workspace_mib": 512, "tactic_dram_mib": 7, "tactic_shared_memory_kib": 48, "optimisation_level": 5}
    made = machine.make(machine.spec(**options, compatibility="same_compute_capability", version_compatible=1))
    built = header(made.model)
    assert built["pools"] == {"WORKSPACE": 512 << 20, "TACTIC_DRAM": 7 << 20, "TACTIC_SHARED_MEMORY": 48 << 10}
    assert (built["level"], built["verbosity"]) == (5, "DETAILED")
    assert built["compatibility"] == "SAME_COMPUTE_CAPABILITY"
    assert built["flags"] == ["VERSION_COMPATIBLE"]
    assert built["shapes"] == {"image": [[1, 3, 16, 16], [2, 3, 16, 16], [4, 3, 16, 16]]}


def test_defaults(machine: Machine) -> None:
    built = header(machine.make().model)
    assert built["pools"] == {"WORKSPACE": 4 << 30}
    assert (built["level"], built["compatibility"], built["flags"]) == (3, "NONE", [])


def test_a_fixed_shape_is_declared_where_the_model_leaves_it_open(machine: Machine) -> None:
    spec = replace(machine.spec(), inputs=(InputRange("image", (3, 3, 16, 16)),))
    assert header(machine.make(spec).model)["shapes"] == {"image": [[3, 3, 16, 16]] * 3}


def test_float16_is_in_the_network(machine: Machine) -> None:
    pytest.importorskip("builders.engines.precision", reason="the module that casts networks is not there")
    spec = replace(machine.spec(), precision="fp16")
    job = machine.job(spec)
    engine = machine.backend.make(job).model
    assert header(engine)["flags"] == ["TF32"]
    reference = open_session(spec.model.path.read_bytes(), "off").run(image())["descriptor"]
    result = machine.backend.load(engine.read_bytes(), job.host).run(image())["descriptor"]
    assert result.dtype == np.float32
    assert 0 < np.abs(result - reference).max() < 1e-2


def test_card_says_what_built_the_engine_and_what_is_inside(machine: Machine) -> None:
    made = machine.make()
    assert made.tools == {"tensorrt": "10.3.0.30", "cuda": "12.4", "driver": "550.90.07", "parser": "100"}
    assert [layer["LayerType"] for layer in made.inspector["Layers"]][:2] == ["Conv", "Relu"]
    machine.become(device="orin")
    assert machine.make().tools["l4t"] == "36.4.3"


def test_in_a_process_of_its_own(machine: Machine) -> None:
    """Nothing depends on modules that happen to be imported, and the library's words are in the process's log."""
    job = machine.job(machine.spec())
    script = (
        "import sys; from pathlib import Path; from builders.engines.base import *; "
        "from builders.engines.model import hash_model; from builders.engines.tensorrt import *; "
        "model, folder, cache, host = map(Path, sys.argv[1:5]); backend = TensorRtBackend(); "
        "spec = EngineSpec('p', hash_model(model), 'fp32', (InputRange('image', ('N', 3, 16, 16), 1, 2, 4),), "
        "options=OPTIONS); "
        "backend.make(CompileJob(spec, model, str(host), folder, cache, lambda *told: None, lambda: False))"
    )
    arguments = [str(path) for path in (job.network, job.folder, job.cache, job.host)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FAKE), *sys.path]), "FAKE_TENSORRT_FAIL": "memory"}
    command = [sys.executable, "-P", "-c", script, *arguments]
    failed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert failed.returncode == 1
    assert "[TensorRT] Skipping tactic" in failed.stderr
    done = subprocess.run(command, env={**environment, "FAKE_TENSORRT_FAIL": ""}, stderr=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0
    assert (job.folder / "engine.engine").stat().st_size > 0


# Failures


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("fail", "kind"),
    [
        ("no-device", "failed"),
        ("no-network", "failed"),
        ("no-config", "failed"),
        ("profile", "failed"),
        ("memory", "out-of-memory"),
        ("implementation", "unsupported-op"),
        ("no-reason", "failed"),
        ("empty", "failed"),
        ("parse-memory", "out-of-memory"),
        ("no-runtime", "failed"),
        ("no-engine", "out-of-memory"),
    ],
)
def test_what_the_library_refuses_is_a_failure_with_its_words(
    machine: Machine, version: str, fail: str, kind: str
) -> None:
    machine.become(version, fail=fail)
    error = machine.fails()
    assert error.kind == kind
    assert error.remedy
    if fail in ("memory", "implementation"):
        assert "Could not find any implementation" in error.message


def test_unsupported_operator(machine: Machine) -> None:
    error = machine.fails(machine.spec(elementwise([helper.make_node("Warp", ["x"], ["y"], name="w", domain="mine")])))
    assert error.kind == "unsupported-op"
    assert "Warp w: No importer registered" in error.message


def test_no_onnx(machine: Machine) -> None:
    spec = machine.spec()
    spec.model.path.write_bytes(b"\xff no protobuf")
    assert machine.fails(spec).kind == "invalid-model"


@pytest.mark.parametrize(
    "inputs",
    [
        (),
        (InputRange("picture", (1, 3, 16, 16)),),
        (InputRange("image", (1, 3, 16)),),
        (InputRange("image", (1, 3, 32, 32)),),
        (InputRange("image", (1, "N", 16, 16), 1, 2, 3),),
        (InputRange("image", (1, 3, 16, 16)), InputRange("more", (1,))),
    ],
)
def test_wrong_inputs(machine: Machine, inputs: tuple[InputRange, ...]) -> None:
    assert machine.fails(replace(machine.spec(), inputs=inputs)).kind == "wrong-inputs"


@pytest.mark.parametrize("version", ["10.3", "11.4"])
def test_full_disk(machine: Machine, version: str) -> None:
    machine.become(version)
    job = machine.job(machine.spec())
    (job.folder / "engine.partial").symlink_to("/dev/full")
    with pytest.raises(Unavailable, match="No space left"):
        machine.backend.make(job)
    assert not (job.folder / "engine.engine").exists()


# Progress and cancelling


def test_progress(machine: Machine) -> None:
    machine.make()
    assert ("reading the network", 0, 0) in machine.told
    assert [told for told in machine.told if told[0] == "Tactic timing"] == [("Tactic timing", i, 3) for i in range(4)]


def test_cancelled_while_compiling(machine: Machine) -> None:
    error = machine.fails(cancelled=lambda: any(done == 2 for _, done, _ in machine.told))
    assert error.kind == "cancelled"
    assert max(done for _, done, _ in machine.told) == 2


def test_an_error_in_a_callback_is_not_taken_for_cancelling(machine: Machine) -> None:
    def tell(what: str, done: int, of: int) -> None:
        if done == 1:
            raise BrokenPipeError("nobody listens")

    with pytest.raises(BrokenPipeError, match="nobody listens"):
        machine.backend.make(replace(machine.job(machine.spec()), progress=tell))


def test_one_builder_for_each_device(machine: Machine) -> None:
    machine.make()
    (path,) = (machine.folder / "cache/tensorrt").glob("*.lock")
    assert path.name == "sm89-geforce_rtx_4090-128sm-24gb.lock"
    machine.monkeypatch.setattr("builders.engines.tensorrt._POLL_S", 0.05)
    with FileLock(path, fallback_to_soft=False):
        error = machine.fails(cancelled=lambda: ("waiting for the GPU", 0, 0) in machine.told)
    assert error.kind == "cancelled"
    held = FileLock(path, fallback_to_soft=False, thread_local=False)
    held.acquire()
    threading.Timer(0.1, held.release).start()
    assert machine.make().model.exists()


# Timing cache


def cache_of(machine: Machine) -> Path:
    (path,) = (machine.folder / "cache/tensorrt").glob("10.3.0.30-sm89-*.cache")
    return path


def test_timing_cache_grows_and_is_not_in_the_key(machine: Machine) -> None:
    spec = machine.spec()
    before = key_of(machine, spec).key
    machine.make(spec)
    first = cache_of(machine).read_bytes()
    machine.make(spec)
    assert cache_of(machine).read_bytes() == first + b"tactic\n"
    assert key_of(machine, spec).key == before
    assert {path.suffix for path in cache_of(machine).parent.iterdir()} == {".cache", ".lock"}


@pytest.mark.parametrize("content", [b"noise", b"fake timing cache of 10.3.0.30 orin\n"])
def test_a_damaged_or_foreign_timing_cache_is_replaced(machine: Machine, content: bytes) -> None:
    machine.make()
    good = cache_of(machine).read_bytes()
    cache_of(machine).write_bytes(content)
    machine.make()
    assert cache_of(machine).read_bytes() == good
    cache_of(machine).write_bytes(content)
    # What was said of the cache is no reason for another failure.
    machine.monkeypatch.setenv("FAKE_TENSORRT_FAIL", "no-reason")
    assert machine.fails().kind == "failed"


def test_a_cache_directory_that_cannot_be_written(machine: Machine) -> None:
    (machine.folder / "cache").write_text("a file")
    assert "cannot be acquired" in machine.fails().message


# Plug-ins


def with_plugin(machine: Machine) -> EngineSpec:
    path = machine.folder / "libwarp.so"
    path.write_bytes(b"fake plugin Warp\n")
    node = helper.make_node("Warp", ["x"], ["y"], name="w", domain="mine")
    spec = machine.spec(elementwise([node]))
    plugin = Plugin(path, blake3(path.read_bytes()).digest())
    return replace(spec, inputs=(InputRange("x", ("N", 4), 1, 2, 3),), plugins=(plugin,))


def test_plugins_go_into_the_engine_and_the_key(machine: Machine) -> None:
    spec = with_plugin(machine)
    assert header(machine.make(spec).model)["plugins"] == ["fake plugin Warp\n"]
    assert key_of(machine, spec).fields["plugins"] == [spec.plugins[0].digest]


def test_a_plugin_that_is_another_is_not_loaded(machine: Machine) -> None:
    spec = with_plugin(machine)
    spec.plugins[0].path.write_bytes(b"fake plugin Other\n")
    assert "changed since the plan" in machine.fails(spec).message
    spec.plugins[0].path.unlink()
    assert "cannot be copied" in machine.fails(spec).message


def test_a_plugin_that_the_library_refuses(machine: Machine) -> None:
    spec = with_plugin(machine)
    spec.plugins[0].path.write_bytes(b"no plugin")
    plugin = Plugin(spec.plugins[0].path, blake3(b"no plugin").digest())
    assert "does not load the plug-in" in machine.fails(replace(spec, plugins=(plugin,))).message


# Host classes


@pytest.mark.parametrize("device", HOSTS)
def test_host_class(machine: Machine, device: str) -> None:
    machine.become(device=device)
    assert machine.backend.describe_host() == HOSTS[device]
    assert is_host_class(HOSTS[device])


def test_ampere_plus_needs_no_jetson(machine: Machine) -> None:
    machine.become(device="orin")
    with pytest.raises(Invalid, match="Jetson"):
        machine.backend.target(machine.spec(compatibility="ampere_plus"))


def test_same_compute_capability_came_with_a_version(machine: Machine) -> None:
    with pytest.raises(Unavailable, match=r"needs TensorRT 10\.9 or newer") as caught:
        machine.backend.target(machine.spec(compatibility="same_compute_capability"))
    assert caught.value.kind == "version"


def test_a_laptop_does_not_pass_off_its_engine(machine: Machine) -> None:
    spec = machine.spec()
    orin = machine.backend.engine_host(spec, HOSTS["orin"])
    assert orin == HOSTS["orin"]
    assert machine.backend.makes(orin) == f"it needs {orin}, this machine is {HOSTS['rtx']}"
    own = machine.backend.engine_host(spec, HOSTS["rtx"])
    assert (own, machine.backend.makes(own)) == (machine.backend.target(spec), "")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"version_compatible": 1},
        {"compatibility": "ampere_plus"},
        {"compatibility": "ampere_plus", "version_compatible": 1},
        {"compatibility": "same_compute_capability"},
        {"compatibility": "same_compute_capability", "version_compatible": 1},
    ],
)
def test_a_machine_without_the_library_names_the_same_key(machine: Machine, options: dict[str, Any]) -> None:
    machine.become("10.16")
    spec = machine.spec(**options)
    target = machine.backend.describe_host()
    made, key = machine.make(spec), key_of(machine, spec, target).key
    assert key == key_of(machine, spec).key
    assert machine.backend.engine_host(spec, target) == made.need
    for name in ("tensorrt", "tensorrt_bindings", "cuda"):
        machine.monkeypatch.setitem(sys.modules, name, None)
    assert key_of(machine, spec, target).key == key
    assert "not installed" in machine.backend.makes(made.need)


@pytest.mark.parametrize(
    ("target", "lacking"),
    [
        ("cpu-x86_64", "linux-<architecture>, sm<capability>-<name>-<n>sm-<m>gb, cuda<version>, driver-<branch> or"),
        (HOSTS["orin"].replace("-orin-16sm-64gb", ""), "depends on sm<capability>-<name>-<n>sm-<m>gb, which"),
        (HOSTS["orin"].replace("l4t-36.4.3+", ""), "depends on driver-<branch> or l4t-<release>, which"),
        (HOSTS["orin"].replace("-10.3.0.30", ""), "depends on trt<major>-<version>, which"),
    ],
)
def test_a_target_names_what_an_engine_depends_on(machine: Machine, target: str, lacking: str) -> None:
    with pytest.raises(Invalid, match=re.escape(lacking)) as caught:
        machine.backend.engine_host(machine.spec(), target)
    assert "engines host" in caught.value.remedy


def test_a_target_of_a_major_leaves_the_version_to_the_library_that_is_here(machine: Machine) -> None:
    spec, target = machine.spec(version_compatible=1), HOSTS["rtx"].replace("-10.3.0.30", "")
    assert machine.backend.engine_host(spec, target).endswith("+trt10+trt>=10.3.0.30")
    for name in ("tensorrt", "tensorrt_bindings", "cuda"):
        machine.monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Invalid, match="none is installed here") as caught:
        machine.backend.engine_host(spec, target)
    remedied = target.replace("trt10", "trt10-10.3.0.30")
    assert "trt10-10.3.0.30" in caught.value.remedy
    assert machine.backend.engine_host(spec, remedied).endswith("+trt10+trt>=10.3.0.30")


def test_the_version_of_the_target_decides_what_it_offers(machine: Machine) -> None:
    spec = machine.spec(compatibility="same_compute_capability")
    with pytest.raises(Unavailable, match=r"needs TensorRT 10\.9 or newer, the target has 10\.3\.0\.30"):
        machine.backend.engine_host(spec, HOSTS["orin"])


def test_a_machine_that_changed_since_the_plan_builds_nothing(machine: Machine) -> None:
    error = machine.fails(host=HOSTS["orin"])
    assert "does not make the engine: it needs" in error.message
    assert isinstance(error, Refused)
    assert error.kind == "wrong-host"


def test_no_gpu_and_no_driver(machine: Machine, tmp_path: Path) -> None:
    machine.become(fail="cuda-none")
    with pytest.raises(Unavailable, match="cudaErrorInsufficientDriver"):
        machine.backend.describe_host()
    machine.become()
    import_tensorrt()
    machine.monkeypatch.setattr(tensorrt_host, "DRIVER_FILE", tmp_path / "none")
    with pytest.raises(Unavailable, match="names the version of the driver"):
        machine.backend.describe_host()


# Keys


def test_key_fields(machine: Machine) -> None:
    spec = machine.spec()
    assert machine.backend.key_fields(spec, HOSTS["rtx"]) == {"backend": "tensorrt", "version": "10.3.0.30"}
    fields = key_of(machine, spec).fields
    assert fields["options"] == [[name, OPTIONS[name]] for name in sorted(OPTIONS)]
    assert (fields["plugins"], fields["host"]) == ([], machine.backend.target(spec))
    others = [machine.spec(**{name: 1}) for name in OPTIONS if name != "compatibility"]
    keys = {encode(dict(key_of(machine, other).fields)) for other in [spec, *others]}
    assert len(keys) == len(OPTIONS)
    assert str(machine.folder).encode() not in b"".join(keys)


def test_the_key_has_every_option_and_the_whole_machine(machine: Machine, tmp_path: Path) -> None:
    path = save(tmp_path, small_network())
    item = InputRange("image", ("N", 3, 16, 16), 1, 2, 4)
    keys = set()
    for options in ({}, *({name: 1 if value == 0 else 2} for name, value in OPTIONS.items() if value != "none")):
        spec = EngineSpec("place", hash_model(path), "fp32", (item,), options={**OPTIONS, **options})
        keys.add(key_of(machine, spec).key)
    assert len(keys) == len(OPTIONS)


# Loading and running


def test_an_engine_of_another_version(machine: Machine) -> None:
    engine = machine.make().model.read_bytes()
    machine.become("10.16")
    with pytest.raises(Unavailable, match=r"got 10\.3\.0\.30") as caught:
        machine.backend.load(engine, "trt10")  # as if it said it required_host no more
    assert caught.value.kind == "version"


def test_version_compatible_engines_load_with_newer_versions_of_the_major(machine: Machine) -> None:
    spec = machine.spec(version_compatible=1)
    made = machine.make(spec)
    engine, need = made.model.read_bytes(), made.need
    assert need == f"{machine.backend.target(spec)}+trt>=10.3.0.30"
    machine.become("10.16")
    assert machine.backend.load(engine, need).run(image())["descriptor"].shape == (2, 4)
    newer = machine.make(spec)
    machine.become("11.4")
    for older in (need, newer.need):
        with pytest.raises(Refused) as caught:
            machine.backend.load(engine, older)
        assert caught.value.kind == "wrong-host"
    machine.become("10.3")
    with pytest.raises(Refused, match=r"needs .*trt>=10\.16") as caught:
        machine.backend.load(newer.model.read_bytes(), newer.need)
    assert caught.value.kind == "wrong-host"
    machine.become("10.16")
    older = machine.backend.engine_host(spec, HOSTS["rtx"])
    assert older == need
    assert "this machine is" in machine.backend.makes(older), "what 10.16 builds would not load with 10.3"


def test_an_engine_for_another_machine(machine: Machine) -> None:
    spec = machine.spec()
    engine, need = machine.make(spec).model.read_bytes(), machine.backend.target(spec)
    machine.become(device="h100")
    with pytest.raises(Refused, match=r"needs cuda12\.4") as caught:
        machine.backend.load(engine, need)
    assert caught.value.kind == "wrong-host"
    with pytest.raises(Refused, match="incompatible device"):
        machine.backend.load(engine, "trt10")


def test_no_engine(machine: Machine) -> None:
    with pytest.raises(Invalid, match="Magic tag"):
        machine.backend.load(b"noise", "trt10")


def test_no_memory_for_a_context(machine: Machine) -> None:
    engine = machine.make().model.read_bytes()
    machine.monkeypatch.setenv("FAKE_TENSORRT_FAIL", "no-context")
    with pytest.raises(Unavailable) as caught:
        machine.backend.load(engine, "trt10")
    assert caught.value.kind == "out-of-memory"


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"picture": np.zeros((1, 3, 16, 16), np.float32)},
        {"image": np.zeros((1, 3, 16, 16), np.float64)},
        {"image": np.zeros((3, 16, 16), np.float32)},
        {"image": np.zeros((1, 3, 16, 17), np.float32)},
        {"image": np.zeros((5, 3, 16, 16), np.float32)},
    ],
)
def test_wrong_feeds(machine: Machine, feeds: dict[str, Any]) -> None:
    session = machine.backend.load(machine.make().model.read_bytes(), "trt10")
    with pytest.raises(Invalid, match="does not run on"):
        session.run(feeds)


@pytest.mark.parametrize(("fail", "kind"), [("cuda-memory", "out-of-memory"), ("execute", "failed"), ("", "")])
def test_nothing_is_left_on_the_device(machine: Machine, fail: str, kind: str) -> None:
    session = machine.backend.load(machine.make().model.read_bytes(), "trt10")
    machine.monkeypatch.setenv("FAKE_TENSORRT_FAIL", fail)
    if kind:
        with pytest.raises(Unavailable) as caught:
            session.run(image())
        assert caught.value.kind == kind
    else:
        session.run(image())
    runtime = sys.modules["cuda.bindings.runtime"]
    assert (runtime.buffers, runtime.streams) == ({}, set())


def test_arrays_that_are_not_contiguous(machine: Machine) -> None:
    session = machine.backend.load(machine.make().model.read_bytes(), "trt10")
    array = image()["image"]
    turned = {"image": np.asfortranarray(array)}
    np.testing.assert_array_equal(session.run(turned)["descriptor"], session.run({"image": array})["descriptor"])


# The libraries themselves


def test_without_the_cuda_module(machine: Machine) -> None:
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        machine.monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unavailable):
        machine.backend.describe_host()


@pytest.mark.gpu
def test_true_tensorrt(tmp_path: Path) -> None:
    backend = TensorRtBackend()
    try:
        host = backend.describe_host()
    except Unavailable as error:
        pytest.skip(f"no TensorRT here: {error.message}")
    path = save(tmp_path / "model", small_network())
    inputs = (InputRange("image", ("N", 3, 16, 16), 1, 2, 4),)
    spec = EngineSpec("place", hash_model(path), "fp32", inputs, options=OPTIONS)
    need = backend.engine_host(spec, host)
    told: list[tuple[str, int, int]] = []
    work = tmp_path / "job"
    work.mkdir()
    made = backend.make(
        CompileJob(spec, path, need, work, tmp_path / "cache", lambda *what: told.append(what), lambda: False)
    )
    session = backend.load(made.model.read_bytes(), need)
    reference = open_session(path.read_bytes(), "off")
    for batch in (1, 2, 4):
        np.testing.assert_allclose(
            session.run(image(batch))["descriptor"], reference.run(image(batch))["descriptor"], rtol=1e-3, atol=1e-4
        )
    assert made.inspector["Layers"]
    assert any(done for _, done, _ in told)
    assert list((tmp_path / "cache/tensorrt").glob("*.cache"))
