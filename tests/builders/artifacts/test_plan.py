"""Plans: a task for each artifact, of every kind, told alike to people and to machines."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from builders.artifacts import plan as plan_module
from builders.artifacts import shard as shard_module
from builders.artifacts.engine import EngineBuilder, EngineTask
from builders.artifacts.file import FileTask
from builders.artifacts.index import IndexTask
from builders.artifacts.plan import Plan, plan
from builders.artifacts.probe import ProbeTask
from builders.artifacts.shard import ShardTask
from builders.compose import open_context
from builders.imagery.inventory import TileSources
from store.errors import Invalid, Unavailable
from store.format.cbor import encode
from store.format.entries import most_bytes
from store.format.missing import ENTRY as MISSING
from store.ground.repository import Repository
from tests.support.commands import flightbag
from tests.support.field import Desk
from tests.support.here import confine_here

INDEXES = '[[indexes]]\nname = "lists"\nset = "embedder"\nmethod = "ivf"\n'
KINDS = (EngineTask, ShardTask, ProbeTask, IndexTask, FileTask)
NOW = 1_800_000_000


def planned(desk: Desk, mission: Path, cache: Path) -> Plan:
    with open_context(mission, desk.store, cache) as context:
        return plan(context, now=NOW)


@pytest.mark.parametrize("kind", ["mbtiles", "rasters"])
def test_a_plan_reads_no_tile_of_sources_that_have_not_changed(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("builders.imagery.statcache.GRANULARITY_NS", -(10**12))  # files of a moment ago count too
    mission = desk.write_mission("left")
    file = desk.folder / "terrain.mbtiles"
    if kind == "rasters":
        pytest.importorskip("rasterio", reason="the extra geotiff is not installed")
        from tests.support.orthophotos import SIDE, ZOOM, nine

        (desk.folder / "ortho").mkdir()
        file = nine(desk.folder / "ortho")[4]
        more = f"[coverage]\ntile_size = {SIDE}\n"
        mission = desk.write_mission("left", tiles=Path("ortho"), zooms=(ZOOM - 1, ZOOM), more=more)
    read: list[object] = []
    cell = TileSources.cell

    def counted(self: TileSources, *arguments: Any) -> Any:
        read.append(arguments)
        return cell(self, *arguments)

    monkeypatch.setattr(TileSources, "cell", counted)
    first = planned(desk, mission, tmp_path)
    assert read
    read.clear()
    again = planned(desk, mission, tmp_path)
    assert not read
    assert again.identity(again.shortfall, ()) == first.identity(first.shortfall, ())
    os.utime(file)
    assert planned(desk, mission, tmp_path).identity(again.shortfall, ()) == first.identity(first.shortfall, ())
    assert read


@pytest.mark.parametrize("built", [False, True])
def test_people_and_machines_see_the_same_plan(desk: Desk, built: bool) -> None:
    mission = desk.write_mission("left", more=INDEXES)
    if built:
        desk.built(mission)
    machine = flightbag("plan", mission, "--store", desk.store, "--json").json["artifacts"]
    people = flightbag("plan", mission, "--store", desk.store).out.splitlines()
    rows = {line.split()[1]: line.split()[0] for line in people if line.startswith(("present ", "missing "))}
    assert rows == {one["name"]: "present" if one["present"] else "missing" for one in machine}
    (summary,) = (line for line in people if " to build; " in line)
    present = sum(one["present"] for one in machine)
    assert re.match(rf"{present} present, {len(machine) - present} to build; ", summary)
    assert present == (len(machine) if built else 0)
    folders = {one["name"].split("/")[0] for one in machine}
    assert folders == {"engines", "descriptors", "probes", "indexes", "files"}


def test_an_index_without_its_quantiser_is_to_be_built(desk: Desk, tmp_path: Path) -> None:
    mission = desk.write_mission("left", more=INDEXES)
    desk.built(mission)
    task = planned(desk, mission, tmp_path).of(IndexTask)[0]
    assert task.complete
    assert task.quantiser_present is not None
    quantiser = str(task.quantiser_present[0][0])
    (desk.store / "objects" / quantiser[:2] / quantiser[2:]).unlink()
    task = planned(desk, mission, tmp_path).of(IndexTask)[0]
    assert (task.complete, task.row().present) == (False, False)


def test_every_kind_keeps_what_a_task_promises(desk: Desk, tmp_path: Path) -> None:
    mission = desk.write_mission("left", more=INDEXES)
    before = planned(desk, mission, tmp_path)
    assert {type(task) for task in before.tasks} == set(KINDS)
    assert sum(map(len, map(before.of, KINDS))) == len(before.tasks)
    assert not any(task.complete or task.row().present for task in before.tasks)
    desk.built(mission)
    after = planned(desk, mission, tmp_path)
    with Repository.open(desk.store) as repository:
        opened = repository.current("left")
    entries = {entry.name: entry for entry in opened.table.entries}
    assert {name for task in after.tasks for name in task.identities} == set(entries)
    for task in after.tasks:
        assert task.complete
        row = task.row()
        assert (row.name, row.present) == (task.name, True)
        assert row.bytes is not None
        assert 0 < len(task.objects) <= task.most_entries
        assert sum(len(encode(entries[name].value())) for name in task.objects) <= task.most_bytes
        for name, (id_, size) in task.objects.items():
            assert (entries[name].id, entries[name].size) == (id_, size)
        for name, identity in task.identities.items():
            assert identity == bytes(entries[name].key or entries[name].id)
    gates = after.gates_beside({(one.name, one.recipe) for one in opened.manifest.quality}, after.shortfall)
    assert after.identity(after.shortfall, gates) == opened.manifest.identity


def test_a_plan_and_a_build_leave_no_network_in_memory(desk: Desk, tmp_path: Path) -> None:
    """Each may take gigabytes. A build that fails after they were loaded leaves none either."""
    mission = desk.write_mission("left")
    planned(desk, mission, tmp_path)
    assert shard_module._embedder.cache_info().currsize == 0
    with pytest.MonkeyPatch.context() as patch:
        confine_here(patch)
        patch.setattr(EngineBuilder, "_build", broken)
        assert desk.build(mission).status == 3
    assert shard_module._embedder.cache_info().currsize == 0
    desk.built(mission)
    assert shard_module._embedder.cache_info().currsize == 0


def broken(*_: object) -> None:
    assert shard_module._embedder.cache_info().currsize == 1, "it is loaded before anything is compiled"
    raise Unavailable("the compiler is broken")


@pytest.mark.parametrize("name", ["MAX_ENTRIES", "MAX_FIGURES", "TABLE_LIMIT"])
def test_as_many_as_are_allowed_are_planned_and_one_more_is_refused(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mission = desk.write_mission("left")
    first = planned(desk, mission, tmp_path)
    # The list of missing tiles may come, too.
    count = sum(task.most_entries for task in first.tasks) + 1
    if name == "MAX_FIGURES":
        count = sum(len(question.gates) for question in first.questions)
    if name == "TABLE_LIMIT":
        count = sum(task.most_bytes for task in first.tasks) + most_bytes(MISSING)
    monkeypatch.setattr(plan_module, name, count)
    planned(desk, mission, tmp_path)
    monkeypatch.setattr(plan_module, name, count - 1)
    with pytest.raises(Invalid, match=f"at most {count - 1} "):
        planned(desk, mission, tmp_path)


@pytest.mark.parametrize(("ahead", "taken"), [(0, True), (86400, True), (86401, False)])
def test_imagery_of_tomorrow_is_taken_and_of_later_is_not(desk: Desk, tmp_path: Path, ahead: int, taken: bool) -> None:
    """A day is the most that dates differ around the world."""
    mission = desk.write_mission("left")
    captured = max(int(level.captured.max()) for level in planned(desk, mission, tmp_path).inventory.levels)
    with open_context(mission, desk.store, tmp_path) as context:
        if taken:
            plan(context, now=captured - ahead)
        else:
            with pytest.raises(Invalid, match="in the future"):
                plan(context, now=captured - ahead)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("inputs = { image", "inputs = { img", "backbones[embedder].inputs.image is missing"),
        ('["N", 3, 64, 64]', '["N", 3, 96, 96]', "declares shape ['N', 3, 96, 96]"),
        ('output = "descriptor"', 'output = "nothing"', "nothing"),
        ('precision = "fp32"', 'precision = "fp32"\ncompare = ["nothing"]', "no such output"),
    ],
)
def test_a_plan_finds_what_a_build_refuses(desk: Desk, old: str, new: str, words: str) -> None:
    mission = desk.write_mission("left", zooms=(14,), files=())
    text = mission.read_text()
    assert old in text
    mission.write_text(text.replace(old, new, 1))
    ran = flightbag("plan", mission, "--store", desk.store, "--json")
    assert (ran.status, words in ran.json["error"]["message"]) == (2, True), ran.out
    assert ran.json["error"]["message"].count(str(mission)) == 1
    assert desk.build(mission).status == 2


def test_a_plan_finds_all_of_it_at_once(desk: Desk) -> None:
    mission = desk.write_mission("left", zooms=(14,), files=())
    right = mission.read_text()
    wrong = right.replace("inputs = { image", "inputs = { img").replace('output = "descriptor"', 'output = "nothing"')
    mission.write_text(wrong)
    ran = flightbag("plan", mission, "--store", desk.store, "--json")
    first, second = ran.json["error"]["problems"]
    assert "inputs.image is missing" in first
    assert "nothing" in second
    # Tiles too, in words: the list of them comes when the models are right.
    mission.write_text(f"{wrong}\n[coverage]\ntile_size = 128\n")
    ran = flightbag("plan", mission, "--store", desk.store, "--json")
    *models, tiles = ran.json["error"]["problems"]
    assert models == [first, second]
    assert "wrong-size" in tiles
    assert "set coverage.tile_size = 256" in tiles
    mission.write_text(right)
    assert flightbag("plan", mission, "--store", desk.store).status == 0


def test_a_file_that_is_no_model_is_named_once(desk: Desk) -> None:
    (desk.folder / "embedder.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    ran = flightbag("plan", desk.write_mission("left"), "--store", desk.store)
    assert ran.status == 2
    assert ran.err.count("pointer of Git LFS to one") == 1
    assert "descriptors[0]" not in ran.err
