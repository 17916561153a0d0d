"""The main job with a backbone as people export them: one that differs from the backbone of the tests in every end."""

from __future__ import annotations

import time

import pytest

import store
from builders.example.terrain import render
from builders.grid.tiles import Tile
from builders.onboard import Retriever, flying_engine, probe
from builders.onboard.flying import recipe_of
from tests.support.commands import flightbag
from tests.support.exports import FIXED, write_export
from tests.support.field import Desk

WAYS = ("grey", "uint8", "nhwc", "inputs", "tokens", "half")
TILE = Tile(15, 7357, 11522)


@pytest.fixture(scope="module")
def flown(_first_desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    import shutil

    folder = tmp_path_factory.mktemp("export") / "desk"
    shutil.copytree(_first_desk.folder, folder)
    desk = Desk(folder)
    write_export(folder / "embedder.onnx", *WAYS)
    mission = desk.write_mission("left", files=(), zooms=(15,), of_set='pool = "mean"\nnormalise = "l2"')
    text = mission.read_text()
    for old, new in (
        ('["N", 3, 64, 64]', '["N", 64, 64, 1]'),
        ("max = 32 } }", f"max = 32 }}, {FIXED} }}"),
        ('colour = "RGB", scale = "0..1"', 'colour = "grey", scale = "0..255"'),
    ):
        assert old in text
        text = text.replace(old, new)
    mission.write_text(text)
    desk.built(mission)
    return desk


def test_it_is_described_proven_and_found_again(flown: Desk) -> None:
    verdict = store.takeoff_check(flown.store, "left", trust=flown.root.read_bytes(), now=int(time.time()))
    assert verdict.mission is not None
    recipe = recipe_of(verdict.mission, "embedder")
    assert (recipe.pool, recipe.preprocess["layout"], recipe.preprocess["colour"]) == ("mean", "NHWC", "grey")
    assert probe(verdict.mission, "embedder").holds
    engine = flying_engine(verdict.mission, "embedder")
    with Retriever(verdict.mission, "embedder") as retriever:
        [best] = retriever.search(engine.describe([render(TILE)]), top=1)[0]
    assert best.tile == TILE


def test_it_is_unchanged_the_next_time_and_a_fixed_value_changes_all(flown: Desk) -> None:
    mission = flown.folder / "left.toml"
    assert flown.built(mission)["outcome"] == "unchanged"
    before = flightbag("explain-key", mission, "embedder", "--json").json
    mission.write_text(mission.read_text().replace("value = [64, 64]", "value = [64, 32]"))
    after = flightbag("explain-key", mission, "embedder", "--json").json
    assert before["fields"]["model"] != after["fields"]["model"]
