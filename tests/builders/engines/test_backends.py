"""The backends by name, and that importing them, and all else of this folder, has no effect on the process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import builders.engines
from builders.engines.backends import BACKENDS, backend, this_host
from builders.engines.onnxruntime import OnnxRuntimeBackend
from builders.engines.tensorrt import TensorRtBackend
from store.errors import Invalid, Unavailable


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_has_the_name_that_it_is_found_by(name: str) -> None:
    assert backend(name).name == name


def test_an_unknown_backend_is_invalid() -> None:
    with pytest.raises(Invalid) as caught:
        backend("abacus")
    assert caught.value.kind == "no-backend"
    assert all(name in caught.value.remedy for name in BACKENDS)


def test_a_machine_is_what_its_backends_know_and_one_that_fails_is_not_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backend that is not installed knows nothing. One that is installed and fails might be the one that matters."""

    def absent(_: object) -> str:
        raise Unavailable("TensorRT is not installed", extra="tensorrt")

    def broken(_: object) -> str:
        raise Unavailable("the driver does not answer")

    ort = OnnxRuntimeBackend().describe_host()
    monkeypatch.setattr(TensorRtBackend, "describe_host", lambda _: "linux-x86_64+sm89")
    assert this_host(["onnxruntime", "tensorrt"]) == "+".join(sorted([*ort.split("+"), "linux-x86_64", "sm89"]))
    monkeypatch.setattr(TensorRtBackend, "describe_host", absent)
    assert (this_host(["onnxruntime", "tensorrt"]), this_host(["tensorrt"])) == (ort, "")
    monkeypatch.setattr(TensorRtBackend, "describe_host", broken)
    with pytest.raises(Unavailable, match="the driver does not answer"):
        this_host(["onnxruntime", "tensorrt"])


def test_importing_the_modules_changes_nothing_in_the_environment() -> None:
    modules = [f"builders.engines.{path.stem}" for path in Path(builders.engines.__path__[0]).glob("[!_]*.py")]
    assert "builders.engines.session" in modules
    code = (
        "import importlib, json, os, sys; before = dict(os.environ); "
        "[importlib.import_module(name) for name in sys.argv[1:]]; "
        "print(json.dumps([before == dict(os.environ), 'onnxruntime' in sys.modules]))"
    )
    ran = subprocess.run([sys.executable, "-c", code, *modules], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == [True, False]
