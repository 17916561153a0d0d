"""TensorRT engines through the process that compiles, as a build makes them; over the fake, which really computes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from builders.engines.base import EngineSpec, InputRange
from builders.engines.check import TOLERANCES
from builders.engines.compiling import CompiledEngine, CompileSettings, compile_engine
from builders.engines.isolation import Limits
from builders.engines.model import hash_model
from builders.engines.tensorrt import OPTIONS, TensorRtBackend
from store.errors import FlightbagError
from tests.builders.engines.fake_machine import FAKE, become, forget_modules
from tests.builders.engines.networks import save, small_network


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """As if this machine, and whatever this process starts, had TensorRT 10.3 and a GPU."""
    monkeypatch.syspath_prepend(str(FAKE))
    become(monkeypatch)
    yield monkeypatch
    forget_modules()


def compiled(folder: Path, precision: str = "fp32") -> CompiledEngine:
    backend = TensorRtBackend()
    path = save(folder / "model", small_network())
    item = InputRange("image", ("N", 3, 16, 16), 1, 2, 4)
    spec = EngineSpec("place", hash_model(path), precision, (item,), options=OPTIONS)
    told: list[tuple[str, int, int]] = []
    engine = compile_engine(
        backend,
        spec,
        backend.target(spec),
        folder,
        tolerance=TOLERANCES[precision],
        settings=CompileSettings(Limits(2**33, 120), folder / "cache"),
        progress=lambda *one: told.append(one),
    )
    assert told
    return engine


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_is_compiled_checked_and_runs(fake: pytest.MonkeyPatch, tmp_path: Path, precision: str) -> None:
    engine = compiled(tmp_path, precision)
    assert [part.name for part in engine.parts] == ["model"]
    assert [tuple(case.shapes["image"]) for case in engine.check.cases] == [(n, 3, 16, 16) for n in (1, 2, 4)]
    assert engine.tools["tensorrt"] == "10.3.0.30"
    assert engine.inspector
    backend = TensorRtBackend()
    session = backend.load(engine.parts[0].path.read_bytes(), backend.describe_host())
    assert session.run({"image": np.ones((2, 3, 16, 16), np.float32)})["descriptor"].shape == (2, 4)


@pytest.mark.parametrize(
    ("fails", "kind"),
    [("memory", "out-of-memory"), ("implementation", "unsupported-op")],
)
def test_what_the_library_says_no_to_crosses_with_its_kind_and_log(
    fake: pytest.MonkeyPatch, tmp_path: Path, fails: str, kind: str
) -> None:
    fake.setenv("FAKE_TENSORRT_FAIL", fails)
    with pytest.raises(FlightbagError) as caught:
        compiled(tmp_path)
    assert caught.value.kind == kind
    assert caught.value.fields["log"]
