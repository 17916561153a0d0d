"""What a mission file asks of an engine beside its meaning: the outputs that are compared, and a reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from builders.artifacts.engine import build_engines
from builders.compose import open_context
from builders.engines.session import open_session
from builders.report import EngineReport
from tests.support.commands import flightbag
from tests.support.exports import write_export
from tests.support.field import Desk


def engine(desk: Desk, mission: Path) -> EngineReport:
    with open_context(mission, desk.store, desk.folder / "cache") as context:
        (report,) = build_engines(context, now=1_800_000_000)
    return report


def change(mission: Path, old: str, new: str) -> None:
    text = mission.read_text()
    assert old in text
    mission.write_text(text.replace(old, new))


def test_a_network_that_finds_nothing_in_noise_is_checked_on_tiles_and_outputs_are_asked_for_by_name(
    desk: Desk,
) -> None:
    write_export(desk.folder / "embedder.onnx", "keypoints")
    mission = desk.write_mission("left", files=(), zooms=(15,))
    change(mission, "min = 1, opt = 8, max = 32", "min = 1, opt = 1, max = 1")
    change(mission, '"0..1"', '"0..255"')
    change(mission, 'precision = "fp32"', 'precision = "fp32"\ncompare = ["scores"]')
    first = engine(desk, mission)
    assert first.action == "built", first.error
    assert first.card is not None
    assert (first.card.check.outputs, first.card.check.inputs) == (("scores",), "tiles")
    # An engine that was checked by less than is asked for is made and checked again, under the same key.
    change(mission, 'compare = ["scores"]', 'compare = ["descriptor", "scores"]')
    second = engine(desk, mission)
    assert (second.action, second.key) == ("built", first.key)
    assert second.card is not None
    assert second.card.check.outputs == ("descriptor", "scores")
    # Whoever asks for less takes it as it is.
    change(mission, 'compare = ["descriptor", "scores"]', 'compare = ["descriptor"]')
    assert engine(desk, mission).action == "reused"


def test_a_reference_is_asked_for_once_and_a_wrong_one_stops_the_build(desk: Desk) -> None:
    mission = desk.write_mission("left", files=(), zooms=(15,))
    first = engine(desk, mission)
    image = np.random.default_rng(3).random((2, 3, 64, 64), np.float32)
    outputs = open_session(desk.folder / "embedder.onnx", "off").run({"image": image})
    np.savez(desk.folder / "io.npz", image=image, **outputs)
    change(mission, 'precision = "fp32"', 'precision = "fp32"\nreference = "io.npz"')
    second, third = engine(desk, mission), engine(desk, mission)
    assert (second.action, third.action, second.key) == ("built", "reused", first.key)
    assert second.card is not None
    assert second.card.check.author is not None
    np.savez(desk.folder / "io.npz", image=image, descriptor=outputs["descriptor"][::-1])
    wrong = engine(desk, mission)
    assert wrong.action == "failed"
    assert wrong.error is not None
    assert wrong.error.kind == "wrong-export"
    assert "[tolerances]" in wrong.error.remedy


@pytest.mark.parametrize("text", ["[1, 2", "no zip"])
def test_a_reference_that_is_no_file_of_arrays_is_named(desk: Desk, text: str) -> None:
    (desk.folder / "io.npz").write_text(text)
    mission = desk.write_mission("left", files=(), zooms=(15,))
    change(mission, 'precision = "fp32"', 'precision = "fp32"\nreference = "io.npz"')
    error = engine(desk, mission).error
    assert error is not None
    assert error.kind == "bad-reference"
    assert "io.npz" in error.message


def test_a_plan_says_that_an_engine_is_to_be_checked_by_more(desk: Desk) -> None:
    mission = desk.write_mission("left", files=(), zooms=(15,))
    assert engine(desk, mission).action == "built"

    def planned() -> list[bool]:
        ran = flightbag("plan", mission, "--store", desk.store, "--json")
        assert ran.status in (0, 2), ran.err
        return [row["present"] for row in ran.json["artifacts"] if row["name"].startswith("engines/")]

    assert planned() == [True]
    image = np.random.default_rng(3).random((2, 3, 64, 64), np.float32)
    outputs = open_session(desk.folder / "embedder.onnx", "off").run({"image": image})
    np.savez(desk.folder / "io.npz", image=image, **outputs)
    change(mission, 'precision = "fp32"', 'precision = "fp32"\nreference = "io.npz"')
    assert planned() == [False]
    change(mission, 'reference = "io.npz"', 'compare = ["nothing"]')
    ran = flightbag("plan", mission, "--store", desk.store)
    assert (ran.status, "no such output" in ran.err) == (2, True)
