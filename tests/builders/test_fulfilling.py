"""What a device measures is the engine that it runs. `tests/tools` has the whole way of an order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builders import fulfilling
from builders.engines.base import EngineSpec
from builders.engines.model import ModelSource
from store.errors import Refused


def test_a_device_that_does_not_run_the_engine_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may make one, as TensorRT for RTX does without a GPU: what ran then is the network."""

    def checked(*_: Any) -> tuple[dict[str, Any], None]:
        return {"check": {"of": "network"}}, None

    spec = EngineSpec("net", ModelSource("net.onnx", tmp_path, b"", 0, ()), "fp32", ())
    monkeypatch.setattr(fulfilling, "checked", checked)
    monkeypatch.setattr(fulfilling, "spec_of_request", lambda _: spec)
    request = {"source": str(tmp_path), "network": "n", "engine": None, "apart": True, "model": "net", "probes": []}
    with pytest.raises(Refused, match="does not run it") as caught:
        fulfilling.fulfil(request, lambda *_: None, lambda: False)
    assert caught.value.kind == "unproven"
