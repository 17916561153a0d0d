"""ONNX Runtime's exceptions: all that the installed library defines become failures with a kind."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as state

from builders.engines.session import open_session, ort_failures
from store.errors import Invalid, Unavailable
from tests.builders.engines.networks import small_network

# One for each status code that every supported version has.
_LONG_KNOWN = {
    "EPFail",
    "EngineError",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "ModelLoaded",
    "NoModel",
    "NoSuchFile",
    "NotImplemented",
    "RuntimeException",
}


def test_the_failures_are_all_exceptions_of_the_library() -> None:
    exported = {value for _, value in inspect.getmembers(state, inspect.isclass) if issubclass(value, BaseException)}
    assert set(ort_failures()) == exported
    assert len(ort_failures()) == len(exported)
    assert {error.__name__ for error in ort_failures()} >= _LONG_KNOWN


@pytest.mark.parametrize("error", ort_failures(), ids=lambda error: error.__name__)
def test_each_exception_becomes_a_failure_with_its_words(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fails(*args: Any, **kwargs: Any) -> Any:
        raise error("words of the library")

    model = small_network().SerializeToString()
    session = open_session(model, "off")
    monkeypatch.setattr(session._session, "run", fails)
    with pytest.raises(Invalid, match="words of the library") as caught:
        session.run({"image": np.zeros((1, 3, 16, 16), np.float32)})
    assert caught.value.kind == "wrong-inputs"
    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    with pytest.raises(Invalid, match="words of the library") as caught:
        open_session(model, "off")
    assert caught.value.kind == "invalid-model"


def test_words_for_a_want_of_memory_make_it_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **kwargs: Any) -> Any:
        raise state.EngineError("std::bad_alloc")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    with pytest.raises(Unavailable) as caught:
        open_session(small_network().SerializeToString(), "off")
    assert caught.value.kind == "out-of-memory"


def test_the_library_prints_nothing_of_a_network(capfd: pytest.CaptureFixture[str]) -> None:
    """It warns of an initializer that nothing uses, by its name, on the file descriptor of standard error."""
    model = small_network()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "\x1b[31mGO"))
    open_session(model.SerializeToString(), "all")
    assert capfd.readouterr() == ("", "")
