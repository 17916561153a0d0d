"""A flight computer with an older ONNX Runtime: what the verdict says, the onboard code finds, in environments of its
own that lack what only a ground station has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.runtimes import MISSIONS, aboard, missions
from tests.support import runtimes
from tests.support.field import Desk

# Mission -> the first of the versions tried here that loads its engine.
LOADED_BY = {"opset-17": (1, 19), "opset-22": (1, 25), "opset-25": (1, 25)}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return missions(Path(tmp_path_factory.mktemp("runtimes")))


@pytest.mark.parametrize("mission", MISSIONS)
@pytest.mark.parametrize("version", [*runtimes.SOME, runtimes.FIRST[-1]])
def test_go_is_said_exactly_where_the_engine_runs(desk: Desk, version: str, mission: str) -> None:
    if why := runtimes.environment(version)[1]:
        pytest.skip(why)
    found = aboard(version, desk, mission)
    loads = tuple(int(part) for part in version.split(".")[:2]) >= LOADED_BY[mission]
    assert (found["go"], found["loads"]) == (loads, loads)
    assert not [text for text in found["not_judged"] if "ONNX Runtime" in text]
    if loads:
        assert found["holds"]
        assert found["matches"] == 1
    else:
        assert (found["kinds"], found["kind"]) == (["wrong-host"], "wrong-host")
