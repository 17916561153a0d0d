"""The engine that flies, on a machine with numpy and ONNX Runtime only."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

import store
from builders.descriptors.decoding import resized
from builders.descriptors.preprocess import Preprocess
from builders.example.terrain import render
from builders.grid.tiles import Tile
from builders.onboard import loading
from builders.onboard.flying import FlyingEngine, engine_of, flying_engine, recipe_of
from builders.onboard.loading import engine_aboard, open_engine
from builders.onboard.probes import probe
from builders.recipe import RowRecipe
from store.errors import Invalid, NotFound
from store.format.entries import sorted_table
from store.format.manifest import Figure
from store.takeoff.fidelity import fidelity_recipe
from store.takeoff.mission import Binding, VerifiedMission
from store.takeoff.verify import verify_mission
from tests.support.field import Desk
from tests.support.missions import ENGINE_META, NOW, entry, evidence_of, fleet_table, flight, pinned

TILE = Tile(15, 7357, 11522)
# What the ground has and a flight computer need not have.
GROUND = ("PIL", "onnx", "pmtiles", "pydantic", "rasterio", "rich", "shapely", "click")

ABOARD = """
import json, sys, time
for name in json.loads(sys.argv[2]):
    sys.modules[name] = None
import numpy as np
import store
from builders import onboard

folder, trust_root = sys.argv[1], open(sys.argv[3], "rb").read()
mission = store.takeoff_check(folder, "left", trust=trust_root, now=int(time.time())).mission
frame = np.frombuffer(open(sys.argv[4], "rb").read(), np.uint8).reshape(256, 256, 3)
session = onboard.open_engine(mission, "embedder")
descriptors = onboard.flying_engine(mission, "embedder").describe([frame, frame[:200]])
with onboard.Retriever(mission, "embedder", in_memory=False) as retriever:
    best = retriever.search(descriptors, top=3)
agreement = onboard.probe(mission, "embedder")
print(json.dumps({
    "inputs": [tensor.name for tensor in session.inputs],
    "descriptors": descriptors.tolist(),
    "tiles": [[str(match.tile) for match in row] for row in best],
    "holds": agreement.holds,
}))
"""


@pytest.fixture
def mission(built: Desk) -> VerifiedMission:
    verdict = store.takeoff_check(built.store, "left", trust=built.root.read_bytes(), now=int(time.time()))
    assert verdict.mission is not None
    return verdict.mission


def with_polygon(desk: Desk) -> Desk:
    """The desk, its mission built over an area with a hole: polygons are covered without shapely."""
    west, south, east, north = -99.180, 47.008, -99.155, 47.030
    outer = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    hole = [[-99.1700, 47.012], [-99.1700, 47.016], [-99.1650, 47.016], [-99.1650, 47.012], [-99.1700, 47.012]]
    (desk.folder / "area.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [outer, hole]}))
    desk.built(desk.write_mission("left", area='geojson = "area.geojson"'))
    return desk


@pytest.mark.parametrize("area", ["box", "polygon"])
def test_a_mission_flies_without_the_libraries_of_the_ground(built: Desk, area: str) -> None:
    here = built if area == "box" else with_polygon(built)
    frame = render(TILE)
    (here.folder / "frame").write_bytes(frame.tobytes())
    command = [sys.executable, "-c", ABOARD, str(here.store), json.dumps(GROUND), str(here.root)]
    ran = subprocess.run([*command, str(here.folder / "frame")], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    aboard = json.loads(ran.stdout)
    assert (aboard["inputs"], aboard["holds"]) == (["image"], True)
    assert aboard["tiles"][0][0] == str(TILE)
    verified = store.takeoff_check(here.store, "left", trust=here.root.read_bytes(), now=int(time.time())).mission
    assert verified is not None
    ground = flying_engine(verified, "embedder").describe([frame, frame[:200]])
    assert np.array_equal(np.array(aboard["descriptors"], np.float32), ground)


def test_what_flies_takes_the_pixels_that_the_map_was_made_of(mission: VerifiedMission) -> None:
    """Frames are resized without Pillow, tiles with it: to the same tensor."""
    frame = render(TILE)[:, 40:]
    preprocess = Preprocess.of_fields(recipe_of(mission, "embedder").preprocess)
    by_pillow = preprocess.tensor(resized(frame, preprocess))
    session = open_engine(mission, "embedder")
    output = session.run({"image": by_pillow[None]})["descriptor"][0]
    described = flying_engine(mission, "embedder").describe([frame])[0]
    assert np.allclose(described, output / np.linalg.norm(output), atol=1e-6)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=["grey", "alpha", "float", "empty"],
)
def test_other_images_are_invalid(mission: VerifiedMission, image: NDArray[np.uint8]) -> None:
    with pytest.raises(Invalid, match=r"uint8 \[height, width, 3\]"):
        flying_engine(mission, "embedder").describe([render(TILE), image])


def test_no_image_is_invalid(mission: VerifiedMission) -> None:
    with pytest.raises(Invalid, match="got none"):
        flying_engine(mission, "embedder").describe([])


def test_what_the_mission_does_not_have_is_named_with_what_it_has(mission: VerifiedMission) -> None:
    for call in (
        lambda: flying_engine(mission, "other"),
        lambda: probe(mission, "other"),
        lambda: recipe_of(mission, "embedder", 9),
        lambda: open_engine(mission, "other"),
    ):
        with pytest.raises(NotFound) as caught:
            call()
        assert "embedder" in caught.value.message + caught.value.remedy


def test_an_engine_without_the_output_of_the_recipe_is_invalid(mission: VerifiedMission) -> None:
    session, recipe = open_engine(mission, "embedder"), recipe_of(mission, "embedder")
    with pytest.raises(Invalid, match="the output other"):
        FlyingEngine(session, replace(recipe, output="other"), (1, 8))


ROWS = RowRecipe("", ENGINE_META["model"], "descriptor", {}, 256, (1, 1), "float16", "none")
RACK, ORIN = "cpu-x86_64-avx2", "cpu-aarch64+sm87-orin-16sm-64gb"


def of_fleet(host: str | None, *proven: str) -> VerifiedMission:
    """A mission with the engines `orin` and `rack`, of which these have a signed fidelity, verified for a class."""
    table, contents = fleet_table({"orin": "sm87", "rack": "cpu-x86_64"})
    views = entry("probes/net.safetensors", b"views")
    assert views.key is not None
    figures = [
        Figure("fidelity/net", 10**6, 0, 8, fidelity_recipe(views.key, one.key))
        for one in table.entries
        if one.key is not None and one.name.removeprefix("engines/net/").removesuffix(".onnx") in proven
    ]
    one = flight(
        {**contents, views.name: b"views"},
        table=sorted_table([*table.entries, views]),
        hosts=("cpu-aarch64+sm87", "cpu-x86_64"),
        quality=tuple(sorted(figures, key=lambda figure: figure.recipe)),
    )
    verdict = verify_mission(evidence_of(one), one.id, pinned(), Binding(NOW, host=host))
    assert verdict.mission is not None
    return verdict.mission


@pytest.mark.parametrize(("host", "name"), [(RACK, "rack"), (ORIN, "orin")])
def test_of_several_engines_that_of_the_verified_class_flies(host: str, name: str) -> None:
    mission = of_fleet(host, "orin", "rack")
    assert engine_of(mission, "net", ROWS).name == engine_aboard(mission, "net").name == f"engines/net/{name}.onnx"


def test_without_a_class_the_engine_of_this_machine_flies(monkeypatch: pytest.MonkeyPatch) -> None:
    for host, name in ((RACK, "rack"), (ORIN, "orin")):
        monkeypatch.setattr(loading, "this_host", lambda _names, host=host: host)
        assert engine_of(of_fleet(None, "orin", "rack"), "net", ROWS).name == f"engines/net/{name}.onnx"


def test_an_engine_without_a_fidelity_does_not_fly_for_a_set() -> None:
    """That another engine of the same network has one says nothing of it."""
    assert engine_of(of_fleet(RACK, "rack"), "net", ROWS).name == "engines/net/rack.onnx"
    for mission in (of_fleet(ORIN, "rack"), of_fleet(RACK)):
        with pytest.raises(NotFound, match="no engine with a signed fidelity"):
            engine_of(mission, "net", ROWS)
