"""What an engine depends on and what not, one fact at a time, through a real store: built again, or reused.

And what the store has of an engine afterwards: parts, a card, a record, and nothing of what failed.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from builders.artifacts.cards import cards_of_mission
from builders.artifacts.engine import build_engines, explained
from builders.compose import open_context
from builders.engines import onnxruntime as backend_module
from builders.engines import precision
from builders.engines.compiling import CompiledEngine, compile_engine
from builders.engines.onnxruntime import OnnxRuntimeBackend
from builders.onboard.loading import open_engine
from builders.report import EngineReport
from store.disk.media import object_path
from store.errors import Refused, Unavailable
from store.format.host import meets
from store.format.ids import BuildKey
from store.ground.repository import Repository
from store.ground.writer import writing
from store.takeoff.check import takeoff_check
from tests.support.commands import flightbag, listing
from tests.support.field import RIGHT, Desk
from tests.support.here import confine_here

MODES = {"portable": "", "fast": 'mode = "fast"', "int8": "calibration = { tiles = 4 }"}


@dataclass
class Bench:
    """A desk with a mission file of one backbone, its text to change, and the store that gets the engine."""

    desk: Desk
    file: Path
    cache: Path
    store: Path

    def engine(self) -> EngineReport:
        """The report of a build of the engine."""
        with open_context(self.file, self.store, self.cache) as shop:
            (report,) = build_engines(shop, now=1_800_000_000)
        return report

    def edit(self, *changes: tuple[str, str]) -> None:
        text = self.file.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.file.write_text(text)


@pytest.fixture
def bench(desk: Desk, tmp_path: Path) -> Bench:
    return Bench(desk, desk.write_mission("left", files=()), tmp_path / "cache", desk.store)


EngineOf = Callable[[Bench, str], EngineReport]


@pytest.fixture(scope="module")
def engine_of(_first_desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> EngineOf:
    """Turns a bench to a kind of engine, and to the store of this module in which that engine is built; returns its
    report.

    The store belongs to another desk at another place: the key depends on neither.
    """
    engines: dict[str, tuple[Path, EngineReport]] = {}

    def engine(bench: Bench, kind: str) -> EngineReport:
        if kind not in engines:
            folder = tmp_path_factory.mktemp(kind) / "desk"
            shutil.copytree(_first_desk.folder, folder)
            desk = Desk(folder)
            first = Bench(desk, desk.write_mission("left", files=()), folder / "cache", desk.store)
            become(first, kind)
            report = first.engine()
            assert report.action == "built", report.error
            engines[kind] = desk.store, report
        become(bench, kind)
        bench.store, report = engines[kind]
        return report

    return engine


def become(bench: Bench, kind: str) -> None:
    if kind == "portable":
        return
    extra = MODES[kind]
    precision_ = "int8" if kind == "int8" else "fp32"
    bench.edit(('precision = "fp32"\n', f'precision = "{precision_}"\n{extra}\n'))


def change_weights(bench: Bench) -> None:
    path = bench.desk.folder / "embedder.onnx"
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 4)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] = np.nextafter(values.flat[0], np.float32(9))
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)


def move_weights_out(bench: Bench) -> None:
    """The same network with its weights in a side file: not the same bytes, so another engine."""
    path = bench.desk.folder / "embedder.onnx"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="side.bin", size_threshold=0)


def change_side_file(bench: Bench) -> None:
    path = bench.desk.folder / "side.bin"
    data = bytearray(path.read_bytes())
    data[1] ^= 1
    path.write_bytes(data)


def change_tile(bench: Bench) -> None:
    """Another image in the place of each tile: the calibration tiles are among them."""
    with sqlite3.connect(bench.desk.folder / "terrain.mbtiles") as db:
        tiles = [row[0] for row in db.execute("select tile_data from tiles")]
        db.execute("update tiles set tile_data = ?", (tiles[0],))
    db.close()


Change = Callable[[Bench], None]
MATRIX: dict[str, tuple[str, Change]] = {
    "salt": ("portable", lambda b: b.edit(("[[descriptors]]", 'salt = "again"\n\n[[descriptors]]'))),
    "the least size": ("portable", lambda b: b.edit(("min = 1", "min = 2"))),
    "the usual size": ("portable", lambda b: b.edit(("opt = 8", "opt = 9"))),
    "the greatest size": ("portable", lambda b: b.edit(("max = 32", "max = 33"))),
    "the name of the open dimension": ("portable", lambda b: b.edit(('["N"', '["batch"'))),
    "a weight": ("portable", change_weights),
    "weights outside": ("portable", move_weights_out),
    "mode": ("portable", lambda b: become(b, "fast")),
    "precision": ("portable", lambda b: become(b, "int8")),
    "calibration tiles": ("int8", lambda b: b.edit(("tiles = 4", "tiles = 5"))),
    "calibration method": ("int8", lambda b: b.edit(("tiles = 4", 'tiles = 4, method = "entropy"'))),
    "calibration imagery": ("int8", change_tile),
    "preprocessing of int8": ("int8", lambda b: b.edit(('"0..1"', '"-1..1"'))),
}


@pytest.mark.parametrize(("kind", "change"), MATRIX.values(), ids=MATRIX)
def test_one_fact_of_the_key_changed_builds_another_engine(
    bench: Bench, engine_of: EngineOf, kind: str, change: Change
) -> None:
    before = engine_of(bench, kind)
    change(bench)
    after = bench.engine()
    assert after.action == "built", after.error
    assert after.key != before.key
    assert bench.engine().action == "reused"
    there = flightbag("engines", "show", bench.store, before.key, "--json")
    assert there.json["cards"][0]["key"] == before.key


def test_one_bit_of_a_side_file_builds_another_engine(bench: Bench) -> None:
    move_weights_out(bench)
    assert bench.engine().action == "built"
    change_side_file(bench)
    assert bench.engine().action == "built"


@pytest.mark.parametrize("kind", MODES)
def test_another_version_of_the_library_builds_another_engine(
    bench: Bench, engine_of: EngineOf, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = engine_of(bench, kind)
    monkeypatch.setattr(OnnxRuntimeBackend, "version", "9.9.9")
    with open_context(bench.file, bench.store, bench.cache) as shop:
        assert str(explained(shop, "embedder").recipe.key) != before.key


def test_another_version_of_what_quantises_builds_another_engine(
    bench: Bench, engine_of: EngineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = engine_of(bench, "int8")
    monkeypatch.setattr("builders.artifacts.engine.quantiser_version", lambda: "onnxruntime 9.9.9")
    after = bench.engine()
    assert (after.action, after.key == before.key) == ("built", False)
    assert precision.quantiser_version() != "onnxruntime 9.9.9"


def test_another_instruction_set_is_another_fast_engine_and_the_same_portable_one(
    bench: Bench, engine_of: EngineOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a portable engine the machine is no part of the key."""
    other = tmp_path / "cpuinfo"
    other.write_text("flags : sse sse2 avx\nFeatures : asimd\n")
    portable = engine_of(bench, "portable")
    monkeypatch.setattr(backend_module, "CPU_FILE", other)
    assert bench.engine().action == "reused"
    monkeypatch.undo()
    fast = engine_of(bench, "fast")
    assert bench.engine().action == "reused"
    monkeypatch.setattr(backend_module, "CPU_FILE", other)
    assert bench.engine().key not in (fast.key, portable.key)


def move_model(bench: Bench) -> None:
    (bench.desk.folder / "elsewhere").mkdir()
    (bench.desk.folder / "embedder.onnx").rename(bench.desk.folder / "elsewhere/other-name.onnx")
    bench.edit(('"embedder.onnx"', '"elsewhere/other-name.onnx"'))


def touch(bench: Bench) -> None:
    for path in bench.desk.folder.glob("*.*"):
        if path.is_file():
            os.utime(path, (1, 1))


def move_mission(bench: Bench) -> None:
    new = bench.desk.folder / "moved"
    new.mkdir()
    for name in ("embedder.onnx", "terrain.mbtiles"):
        shutil.copy(bench.desk.folder / name, new / name)
    bench.file = Path(shutil.move(bench.file, new / "another.toml"))


NOT_IN_IT: dict[str, Change] = {
    "where the model lies and what it is called": move_model,
    "times of files": touch,
    "where the mission file lies": move_mission,
    "the backbone's name": lambda b: b.edit(('"embedder"', '"another"')),
    "limits": lambda b: b.edit(("[target]", "[compile]\nmemory_mib = 4096\ntimeout_s = 77\n\n[target]")),
    "a tolerance": lambda b: b.edit(
        ("[target]", "[tolerances.fp32]\nrelative_error = 0.01\ncosine = 0.99\n\n[tolerances.int8]\n"
         "relative_error = 0.9\ncosine = 0.5\n\n[target]")),
    "the flight, the takeoff and the aircraft": lambda b: b.edit(
        ('flight = "2026-11-23-01"', 'flight = "2026-12-01-07"'),
        ("alt_m = 480.0", "alt_m = 481.5"), ("uav-07", "uav-9")),
    "the mission's id": lambda b: b.edit(('id = "left"', 'id = "other"')),
    "the user's cache": lambda b: setattr(b, "cache", b.cache / "other"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("change", NOT_IN_IT.values(), ids=NOT_IN_IT)
def test_what_is_not_in_the_key_builds_nothing(bench: Bench, engine_of: EngineOf, kind: str, change: Change) -> None:
    before = engine_of(bench, kind)
    stored = listing(bench.store)
    change(bench)
    after = bench.engine()
    assert (after.action, after.key) == ("reused", before.key)
    assert {k: v for k, v in listing(bench.store).items() if not str(k).startswith(("index", "lock"))} == {
        k: v for k, v in stored.items() if not str(k).startswith(("index", "lock"))
    }


def test_machine_name_and_threads_are_not_in_the_key(
    bench: Bench, engine_of: EngineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = engine_of(bench, "portable")
    monkeypatch.setattr(socket, "gethostname", lambda: "another-laptop")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    after = bench.engine()
    assert (after.action, after.key) == ("reused", before.key)


def test_area_is_in_the_key_of_int8_alone(bench: Bench, engine_of: EngineOf) -> None:
    """Its calibration tiles are those of the area."""
    bench.file = bench.desk.write_mission("right", files=(), bbox=RIGHT)
    for kind, action in (("portable", "reused"), ("int8", "built")):
        engine_of(bench, kind)
        assert bench.engine().action == action


# What the store has of it


@pytest.mark.parametrize("kind", MODES)
def test_equal_sources_give_equal_objects_in_two_stores(bench: Bench, engine_of: EngineOf, kind: str) -> None:
    first = engine_of(bench, kind)
    bench.store = bench.desk.store
    second = bench.engine()
    assert (first.action, second.action) == ("built", "built")
    assert first.card is not None
    assert second.card is not None
    assert first.card.parts == second.card.parts
    assert len(first.card.parts) == (2 if kind == "fast" else 1)


@pytest.mark.parametrize("kind", MODES)
def test_a_mission_carries_the_parts_and_the_card_and_flies_with_them(bench: Bench, kind: str) -> None:
    become(bench, kind)
    assert bench.desk.built(bench.file)["outcome"] == "built"
    assert bench.desk.built(bench.file)["outcome"] == "unchanged"
    with Repository.open(bench.desk.store) as repository:
        ((name, card),) = cards_of_mission(repository, "left").items()
        entries = [e for e in repository.current("left").table.entries if e.kind in ("engine", "card")]
        assert {e.key for e in entries} == {card.recipe.key}
        parts = {e.meta["part"]: [str(e.id), e.size] for e in entries if e.kind == "engine"}
        assert parts == {part: list(value) for part, value in card.parts.items()}
        assert name in {e.name for e in entries}
    verdict = takeoff_check(bench.desk.store, "left", trust=bench.desk.root.read_bytes(), now=int(time.time()))
    assert verdict.mission is not None
    session = open_engine(verdict.mission, "embedder")
    images = np.random.default_rng(3).random((3, 3, 64, 64), np.float32)
    reference = backend_module.open_session((bench.desk.folder / "embedder.onnx").read_bytes(), "off")
    (a,), (b,) = session.run({"image": images}).values(), reference.run({"image": images}).values()
    assert np.abs(a - b).max() <= (0.5 if kind == "int8" else 1e-3) * np.abs(b).max()


def test_a_fast_engine_of_another_instruction_set_is_refused_by_name(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(bench, "fast")
    bench.desk.built(bench.file)
    verdict = takeoff_check(bench.desk.store, "left", trust=bench.desk.root.read_bytes(), now=int(time.time()))
    assert verdict.mission is not None
    other = tmp_path / "cpuinfo"
    other.write_text("flags : sse sse2 avx\nFeatures : asimd\n")
    monkeypatch.setattr(backend_module, "CPU_FILE", other)
    with pytest.raises(Refused, match="it would compute something else") as caught:
        open_engine(verdict.mission, "embedder")
    assert caught.value.fields["kind"] == "wrong-host"
    # And before it is loaded at all: an aircraft says what it is.
    ran = bench.desk.verify(None, "--host", OnnxRuntimeBackend().describe_host())
    assert ran.status == 1
    assert "wrong-host" in ran.out


def part_path(bench: Bench, key: str, part: int) -> Path:
    with Repository.open(bench.desk.store) as repository, writing(repository) as writer:
        record = writer.index.record(BuildKey(bytes.fromhex(key)))
    assert record is not None
    return bench.desk.store / object_path(record.ids[part])


@pytest.mark.parametrize("part", [0, 1, 2], ids=["card", "model", "weights"])
def test_a_part_that_is_damaged_or_gone_is_built_again(bench: Bench, part: int) -> None:
    become(bench, "fast")
    key = bench.engine().key
    path = part_path(bench, key, part)
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert bench.engine().action == "built"
    new = part_path(bench, key, part)
    if new != path:
        path.unlink()  # a new card is another object where it took another time; what is left is an audit's to find
    new.unlink()
    assert bench.engine().action == "built"
    assert bench.engine().action == "reused"
    assert flightbag("fsck", bench.desk.store, "--full").status == 0


def test_what_is_reused_is_judged_by_the_tolerance_of_now(bench: Bench) -> None:
    become(bench, "int8")
    assert bench.engine().action == "built"
    bench.edit(("[target]", "[tolerances.int8]\nrelative_error = 0.0001\ncosine = 0.9999\n\n[target]"))
    report = bench.engine()
    assert report.action == "failed"
    assert report.error is not None
    assert report.error.fields["kind"] == "wrong-output"
    ran = bench.desk.build(bench.file)
    assert ran.status == 1
    assert ran.json["error"]["kind"] == "wrong-output"


def test_another_stations_engine_is_judged_by_its_own_card(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal keys are not equal objects: what is published may be another engine than what was built here."""
    here, there = bench.desk.store, bench.desk.folder / "other"
    shutil.copytree(here, there)
    assert bench.engine().action == "built"

    def worse(*args: Any, **kwargs: Any) -> CompiledEngine:
        compiled = compile_engine(*args, **kwargs)
        cases = tuple(replace(case, max_abs_error=5e-4 * case.reference_max) for case in compiled.check.cases)
        return replace(compiled, check=replace(compiled.check, cases=cases))

    with monkeypatch.context() as patch:
        confine_here(patch)
        patch.setattr("builders.artifacts.engine.compile_engine", worse)
        assert flightbag("build", bench.file, "--store", there, "--key", bench.desk.key).status == 0
    assert flightbag("sync", there, here).status == 0
    assert bench.desk.built(bench.file)["outcome"] == "unchanged"
    bench.edit(("[target]", "[tolerances.fp32]\nrelative_error = 0.0001\ncosine = 0.9999\n\n[target]"))
    assert bench.desk.built(bench.file)["outcome"] == "built"
    with Repository.open(here) as repository:
        (card,) = cards_of_mission(repository, "left").values()
    assert card.check.worst.relative_error < 1e-4
    assert bench.desk.built(bench.file)["outcome"] == "unchanged"


def test_a_full_disk_is_told_of_the_one_engine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_more: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    monkeypatch.setattr("builders.engines.compiling.tempfile.mkdtemp", full)
    report = bench.engine()
    assert report.action == "failed"
    assert isinstance(report.error, Unavailable)
    assert "No space left" in report.error.message


def test_a_backbone_that_fails_leaves_nothing_and_keeps_no_other_back(bench: Bench) -> None:
    (bench.desk.folder / "broken.onnx").write_bytes(b"no model")
    backbone = bench.file.read_text().partition("[[backbones]]")[2].partition("[[descriptors]]")[0]
    broken = backbone.replace('"embedder"', '"broken"').replace('"embedder.onnx"', '"broken.onnx"')
    bench.edit(("[[descriptors]]", f"[[backbones]]{broken}\n[[descriptors]]"))
    ran = flightbag("engines", "build", bench.file, "--store", bench.desk.store, "--json")
    assert ran.status == 1
    assert [one["action"] for one in ran.json["engines"]] == ["built", "failed"]
    assert ran.json["engines"][1]["error"]["kind"] == "invalid-model"
    assert list((bench.desk.store / "tmp").iterdir()) == []
    with Repository.open(bench.desk.store) as repository, repository.locked(alone=True):
        pass
    assert flightbag("fsck", bench.desk.store, "--full").status == 0
    people = flightbag("engines", "build", bench.file, "--store", bench.desk.store)
    assert "broken: invalid-model:" in people.out


def test_explain_key_says_what_differs(bench: Bench) -> None:
    bench.desk.built(bench.file)
    same = flightbag("explain-key", bench.file, "embedder", "--against", "left", "--store", bench.desk.store, "--json")
    assert (same.status, same.json["differs"]) == (0, [])
    bench.edit(("max = 32", "max = 33"), ("[[descriptors]]", 'salt = "again"\n\n[[descriptors]]'))
    other = flightbag("explain-key", bench.file, "embedder", "--against", "left", "--store", bench.desk.store, "--json")
    assert other.status == 1
    assert [one["field"] for one in other.json["differs"]] == ["inputs", "salt"]
    assert "it would be built again" in flightbag(
        "explain-key", bench.file, "embedder", "--against", "left", "--store", bench.desk.store).out  # fmt: skip
    assert flightbag("explain-key", bench.file, "nobody").status == 2
    assert flightbag("engines", "show", bench.desk.store, "left").out.count("made by") == 1
    assert flightbag("engines", "show", bench.desk.store, "0" * 64).status == 1
    assert meets(flightbag("engines", "host", "--json").json["host"], OnnxRuntimeBackend().describe_host())
