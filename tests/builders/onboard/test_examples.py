"""The examples in the docstrings run, over a mission that was really built."""

from __future__ import annotations

import importlib
import time

import store
from builders.example.terrain import render
from builders.grid.tiles import Tile
from builders.onboard.flying import flying_engine
from tests.support.examples import run_examples
from tests.support.field import Desk

MODULES = ("", ".camera", ".flying", ".loading", ".probes", ".retriever")


def test_the_examples_run(built: Desk) -> None:
    trust_root, now = built.root.read_bytes(), int(time.time())
    mission = store.takeoff_check(built.store, "left", trust=trust_root, now=now, aircraft="uav-07").mission
    assert mission is not None
    frame = render(Tile(15, 7357, 11522))
    names = {
        "folder": built.store,
        "trust_root": trust_root,
        "now": now,
        "mission": mission,
        "frame": frame,
        "descriptors": flying_engine(mission, "embedder").describe([frame]),
    }
    for name in MODULES:
        assert run_examples(importlib.import_module(f"builders.onboard{name}"), names) > 1, name
