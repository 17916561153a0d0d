"""A machine that seems to have TensorRT and a GPU: the fake of `tests/support/fake_tensorrt`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from builders.engines import tensorrt_host

FAKE = Path(__file__).parents[2] / "support" / "fake_tensorrt"


def become(monkeypatch: pytest.MonkeyPatch, version: str = "10.3", device: str = "rtx", fail: str = "") -> None:
    """Makes this process, and whatever it starts, see TensorRT `version` and the GPU `device`, and meet `fail`."""
    for name, value in (
        ("FAKE_TENSORRT_VERSION", version),
        ("FAKE_CUDA_DEVICE", device),
        ("FAKE_TENSORRT_FAIL", fail),
    ):
        monkeypatch.setenv(name, value)
    forget_modules()
    machine = {"orin": "aarch64"}.get(device, "x86_64")
    monkeypatch.setattr(tensorrt_host.platform, "machine", lambda: machine)


def forget_modules() -> None:
    """The next import of TensorRT and CUDA runs their modules again."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tensorrt", "tensorrt_bindings", "cuda")]:
        del sys.modules[name]
