"""Building engines into a store: what a changed fact leaves as it was, which tiles count, what is shared, and what is
left of an engine that failed. `test_engine_matrix` goes through the facts of a key one by one."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from onnx import version_converter

from builders.artifacts.engine import build_engines, explained
from builders.compose import open_context
from builders.engines import onnxruntime as backend_module
from builders.engines.card import Card
from builders.engines.onnxruntime import OnnxRuntimeBackend, cpu_class
from builders.example.backbone import write_backbone
from builders.example.terrain import render_jpeg
from builders.grid.tiles import Tile, tile_from_id
from builders.report import EngineReport
from store.disk.index import Record
from store.disk.media import object_path
from store.errors import Invalid
from store.format.ids import BuildKey, ObjectId
from store.ground.repository import Repository
from store.ground.writer import writing
from tests.support.commands import flightbag, listing
from tests.support.field import RIGHT, Desk

EXTRA = {"portable": "", "fast": 'mode = "fast"', "int8": "calibration = { tiles = 4 }"}
KINDS = tuple(EXTRA)
TIGHT = "[tolerances.{0}]\nrelative_error = 0.0\ncosine = 1.0\n\n[target]"
NOW = 1_800_000_000


@dataclass
class Shop:
    """A desk and a mission file on it, which builds its engines."""

    desk: Desk
    file: Path
    cache: Path

    @property
    def store(self) -> Path:
        return self.desk.store

    def engines(self) -> list[EngineReport]:
        with open_context(self.file, self.store, self.cache) as shop:
            return build_engines(shop, now=NOW)

    def engine(self, action: str) -> EngineReport:
        """The one engine, of which that must become."""
        (report,) = self.engines()
        assert report.action == action, report.error
        return report

    def edit(self, *changes: tuple[str, str]) -> None:
        text = self.file.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.file.write_text(text)

    def become(self, kind: str) -> None:
        precision = "int8" if kind == "int8" else "fp32"
        self.edit(('precision = "fp32"\n', f'precision = "{precision}"\n{EXTRA[kind]}\n'))

    def backbones(self, kinds: Sequence[str], more: Sequence[str] = ()) -> None:
        """A backbone for each kind in the place of the one, all of the same model, with lines of their own; the first
        keeps its name, and each has a descriptor set."""
        text = self.file.read_text()
        head, _, rest = text.partition("[[backbones]]")
        backbone, _, set_ = rest.partition("[[descriptors]]")
        parts = [head]
        for start, body in (("[[backbones]]", backbone), ("[[descriptors]]", set_)):
            for i, kind in enumerate(kinds):
                name = "embedder" if i == 0 else f"net{i}"
                own = body.replace('"embedder"', f'"{name}"')
                if start == "[[backbones]]":
                    precision = "int8" if kind == "int8" else "fp32"
                    lines = "\n".join((EXTRA[kind], more[i] if more else ""))
                    own = own.replace('precision = "fp32"\n', f'precision = "{precision}"\n{lines}\n')
                parts.append(start + own + "\n")
        self.file.write_text("".join(parts))

    def objects(self) -> dict[str, bytes]:
        return {path.parent.name + path.name: path.read_bytes() for path in (self.store / "objects").glob("*/*")}

    def record(self, key: str | BuildKey) -> Record | None:
        wanted = key if isinstance(key, BuildKey) else BuildKey(bytes.fromhex(key))
        with Repository.open(self.store) as repository, writing(repository) as writer:
            return writer.index.record(wanted)

    def kept(self) -> dict[str, object]:
        """All of the store that is kept: neither index nor locks."""
        return dict(listing(self.store, without=("index", "lock")))

    def quantised(self, backbone: str = "embedder") -> BuildKey:
        """The build key of the quantised network."""
        with open_context(self.file, None, self.cache) as shop:
            step = explained(shop, backbone).step
        assert step is not None
        return step.recipe.key

    def calibration_tiles(self) -> list[Tile]:
        with open_context(self.file, None, self.cache) as shop:
            step = explained(shop, "embedder").step
        assert step is not None
        return [tile_from_id(number) for number in step.tiles.tolist()]


@pytest.fixture
def shop(desk: Desk, tmp_path: Path) -> Shop:
    return Shop(desk, desk.write_mission("left", files=()), tmp_path / "cache")


def elsewhere(shop: Shop, folder: Path) -> Shop:
    """The same desk at another place, under another mission file's name."""
    shutil.copytree(shop.desk.folder, folder)
    desk = Desk(folder)
    return Shop(desk, (folder / shop.file.name).rename(folder / "renamed.toml"), folder / "cache")


def other_image(shop: Shop, tile: Tile) -> None:
    """Another picture in the place of one tile."""
    place = (tile.z, tile.x, (1 << tile.z) - 1 - tile.y)
    with closing(sqlite3.connect(shop.desk.folder / "terrain.mbtiles")) as db, db:
        changed = db.execute(
            "update tiles set tile_data = ? where zoom_level = ? and tile_column = ? and tile_row = ?",
            (render_jpeg(tile, seed=2), *place),
        )
        assert changed.rowcount == 1


def assert_nothing_left_over(shop: Shop) -> None:
    """No transaction, no lock, no finding."""
    assert list((shop.store / "tmp").iterdir()) == []
    with Repository.open(shop.store) as repository, repository.locked(alone=True):
        pass
    assert flightbag("fsck", shop.store, "--full").status == 0


# What a change leaves as it was


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_key_leaves_the_engine_before_untouched(shop: Shop, kind: str) -> None:
    shop.become(kind)
    before = shop.engine("built")
    objects, record = shop.objects(), shop.record(before.key)
    shop.edit(("[[descriptors]]", 'salt = "again"\n\n[[descriptors]]'))
    after = shop.engine("built")
    assert after.key != before.key
    assert objects.items() <= shop.objects().items()
    assert shop.record(before.key) == record
    shop.edit(('salt = "again"\n', ""))
    assert shop.engine("reused").key == before.key


def test_a_fixed_shape_in_the_place_of_a_range_is_another_engine(shop: Shop) -> None:
    before = shop.engine("built")
    shop.edit(('["N", 3, 64, 64], min = 1, opt = 8, max = 32', "[1, 3, 64, 64]"))
    after = shop.engine("built")
    assert after.key != before.key
    assert after.card is not None
    assert [case.shapes for case in after.card.check.cases] == [{"image": (1, 3, 64, 64)}]


def test_another_version_of_the_library_builds_a_portable_engine_beside_the_other(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shop.engine("built")
    objects = shop.objects()
    monkeypatch.setattr(OnnxRuntimeBackend, "version", "9.9.9")
    after = shop.engine("built")
    assert after.key != before.key
    assert "onnxruntime9.9.9" in after.entry
    assert objects.items() <= shop.objects().items()
    record = shop.record(after.key)
    assert record is not None
    assert record.provenance["tools"] == "onnxruntime 9.9.9"
    monkeypatch.undo()
    assert shop.engine("reused").key == before.key


def test_a_fast_engine_for_a_machine_that_this_is_not_is_not_kept(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever plans takes another instruction set for this machine's; the process that compiles sees what it is."""
    shop.become("fast")
    before = shop.engine("built")
    objects = shop.objects()
    other = tmp_path / "cpuinfo"
    other.write_text("flags : sse sse2\nFeatures : none\n")
    assert cpu_class("x86_64", other.read_text()) == "cpu-x86_64-sse2"
    monkeypatch.setattr(backend_module, "CPU_FILE", other)
    (report,) = shop.engines()
    assert report.key != before.key
    assert (report.action, shop.record(report.key)) == ("failed", None)
    assert report.error is not None
    assert report.error.fields["kind"] == "wrong-host"
    assert shop.objects() == objects
    assert_nothing_left_over(shop)


# Which tiles count


def test_one_calibration_tile_is_in_the_key_and_its_neighbours_are_not(shop: Shop) -> None:
    shop.become("int8")
    before = shop.engine("built")
    chosen = shop.calibration_tiles()
    assert len(chosen) == 4
    with closing(sqlite3.connect(shop.desk.folder / "terrain.mbtiles")) as db:
        rows = db.execute("select zoom_level, tile_column, tile_row from tiles").fetchall()
    tiles = {Tile(z, x, (1 << z) - 1 - row) for z, x, row in rows}
    kept, objects = shop.kept(), shop.objects()
    for tile in sorted(tiles - set(chosen)):
        other_image(shop, tile)
    assert shop.engine("reused").key == before.key
    assert shop.kept() == kept
    other_image(shop, chosen[2])
    after = shop.engine("built")
    assert after.key != before.key
    assert shop.calibration_tiles() == chosen
    assert objects.items() <= shop.objects().items()


def test_more_calibration_tiles_than_the_area_has_are_all_of_them(shop: Shop) -> None:
    """Asking for still more is the same engine."""
    shop.become("int8")
    shop.edit(("tiles = 4", "tiles = 4000"))
    before = shop.engine("built")
    shop.edit(("tiles = 4000", "tiles = 4096"))
    assert shop.engine("reused").key == before.key


def test_an_undecodable_calibration_tile_is_named_and_keeps_no_other_backbone_back(shop: Shop) -> None:
    shop.backbones(("int8", "portable"))
    bad = shop.calibration_tiles()[1]
    with closing(sqlite3.connect(shop.desk.folder / "terrain.mbtiles")) as db, db:
        db.execute(
            "update tiles set tile_data = x'ffd8ff' where zoom_level = ? and tile_column = ? and tile_row = ?",
            (bad.z, bad.x, (1 << bad.z) - 1 - bad.y),
        )
    int8, portable = shop.engines()
    assert (int8.action, portable.action) == ("failed", "built")
    assert int8.error is not None
    assert int8.error.fields["kind"] == "calibration"
    assert str(bad) in int8.error.message
    assert shop.record(shop.quantised()) is None
    assert len(shop.objects()) == 2
    assert_nothing_left_over(shop)


# What is not in a key


@pytest.mark.parametrize("kind", KINDS)
def test_machine_and_threads_leave_the_store_as_it_is(shop: Shop, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.become(kind)
    before = shop.engine("built")
    kept, record = shop.kept(), shop.record(before.key)
    monkeypatch.setattr(socket, "gethostname", lambda: "another-laptop")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert shop.engine("reused").key == before.key
    finally:
        os.sched_setaffinity(0, allowed)
    assert shop.kept() == kept
    assert shop.record(before.key) == record


def test_threads_change_no_byte_of_an_engine(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.backbones(KINDS)
    other = elsewhere(shop, tmp_path / "one-thread")
    parts = [report.card.parts for report in shop.engines() if report.card is not None]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert [report.card.parts for report in other.engines() if report.card is not None] == parts
    finally:
        os.sched_setaffinity(0, allowed)
    assert len(parts) == len(KINDS)


def test_a_target_named_or_found_out_is_one_portable_engine(shop: Shop) -> None:
    before = shop.engine("built")
    for host in ("cpu-aarch64", "cpu-x86_64", "cpu-x86_64-avx2+sm87"):
        shop.edit(('host = "auto"', f'host = "{host}"'))
        assert shop.engine("reused").key == before.key
        shop.edit((f'host = "{host}"', 'host = "auto"'))


def test_a_target_that_cannot_load_the_engine_is_refused(shop: Shop) -> None:
    """Opset 22 came with 1.21, which the model shows; the kernel of one operator with 1.25, which the engine shows."""
    model = shop.desk.folder / "embedder.onnx"
    network = version_converter.convert_version(onnx.load(model), 22)
    network.ir_version = 10
    onnx.save(network, model)
    shop.edit(('host = "auto"', 'host = "cpu-x86_64+ort-1.20.1"'))
    with pytest.raises(Invalid, match=r"needs ort>=1\.21, the target is .*; 1\.21 came with ai\.onnx/22") as caught:
        shop.engines()
    assert "target.host" in str(caught.value)
    assert "newer library" in caught.value.remedy
    shop.edit(("ort-1.20.1", "ort-1.24.3"))
    error = shop.engine("failed").error
    assert error is not None
    assert "needs ort>=1.25, the target is cpu-x86_64+ort-1.24.3; 1.25 came with ai.onnx:LpNormalization/22" in str(
        error
    )
    with pytest.raises(Invalid, match=r"needs ort>=1\.25"):  # it is in the store now, and its card says so
        shop.engines()
    shop.edit(("ort-1.24.3", "ort-1.25.0"))
    card = shop.engine("reused").card
    assert card is not None
    assert card.need == "cpu+ort>=1.25"


def test_the_area_of_an_fp32_engine_is_not_in_its_key(shop: Shop) -> None:
    before, kept = shop.engine("built"), shop.kept()
    shop.file = shop.desk.write_mission("right", files=(), bbox=RIGHT, flight="2026-12-01-07")
    assert shop.engine("reused").key == before.key
    assert shop.kept() == kept


# Tolerances


@pytest.mark.parametrize(("kind", "precision"), [("fast", "fp32"), ("int8", "int8")])
def test_a_tighter_tolerance_refuses_what_is_there_and_rebuilds_nothing(shop: Shop, kind: str, precision: str) -> None:
    shop.become(kind)
    before, kept = shop.engine("built"), shop.kept()
    assert before.card is not None
    if before.card.check.worst.relative_error == 0:
        pytest.skip("this engine computes to the last bit what its model does")
    shop.edit(("[target]", TIGHT.format(precision)))
    (report,) = shop.engines()
    assert (report.action, report.key) == ("failed", before.key)
    assert report.error is not None
    assert report.error.fields["kind"] == "wrong-output"
    assert shop.kept() == kept
    ran = shop.desk.build(shop.file)
    assert (ran.status, ran.json["error"]["kind"]) == (1, "wrong-output")
    assert flightbag("ls", shop.store, "--json").json["missions"] == []
    shop.edit((TIGHT.format(precision), "[target]"))
    assert shop.engine("reused").key == before.key


def test_an_engine_beyond_its_tolerance_is_not_stored(shop: Shop) -> None:
    """The quantised network is: another engine may be near enough."""
    shop.become("int8")
    shop.edit(("[target]", TIGHT.format("int8")))
    (report,) = shop.engines()
    assert report.action == "failed"
    assert report.error is not None
    assert report.error.fields["kind"] == "wrong-output"
    check = report.error.fields["check"]
    assert isinstance(check, dict)
    assert check["cases"]
    assert shop.record(report.key) is None
    quantised = shop.record(shop.quantised())
    assert quantised is not None
    assert list(shop.objects()) == [str(id_) for id_ in quantised.ids]
    assert_nothing_left_over(shop)
    shop.edit((TIGHT.format("int8"), "[target]"))
    assert shop.engine("built").key == report.key
    assert shop.record(shop.quantised()) == quantised


# What the store has of it


@pytest.mark.parametrize("kind", KINDS)
def test_the_record_names_the_card_and_then_the_parts_that_the_card_names(shop: Shop, kind: str) -> None:
    shop.become(kind)
    report = shop.engine("built")
    record = shop.record(report.key)
    assert record is not None
    objects = shop.objects()
    card = Card.parse(objects[str(record.ids[0])])
    assert card == report.card
    assert str(card.recipe.key) == report.key
    names = ("model", "weights")[: len(record.ids) - 1]
    assert [card.parts[name][0] for name in names] == [str(id_) for id_ in record.ids[1:]]
    assert [card.parts[name][1] for name in names] == [len(objects[str(id_)]) for id_ in record.ids[1:]]
    assert set(card.parts) == set(names)
    assert report.bytes == sum(size for _, size in card.parts.values())
    assert (record.provenance["from"], record.provenance["at"]) == ("build", NOW)


def test_two_stores_built_apart_have_the_same_engines(shop: Shop, tmp_path: Path) -> None:
    """At another place, from a model, a mission file and backbones of other names: all but the card is the same."""
    shop.backbones(KINDS)
    other = elsewhere(shop, tmp_path / "a much longer way to the other desk")
    (other.desk.folder / "embedder.onnx").rename(other.desk.folder / "n.onnx")
    other.edit(("embedder.onnx", "n.onnx"), ('"net1"', '"fleet"'))
    reports, others = shop.engines(), other.engines()
    assert [report.action for report in [*reports, *others]] == ["built"] * 6
    assert [report.key for report in reports] == [report.key for report in others]
    for one in reports:
        (a, b) = (each.record(one.key) for each in (shop, other))
        assert a is not None
        assert b is not None
        assert a.ids[1:] == b.ids[1:]
    quantised = [each.record(each.quantised("net2")) for each in (shop, other)]
    assert quantised[0] is not None
    assert quantised[1] is not None
    assert quantised[0].ids == quantised[1].ids


def test_two_backbones_that_are_one_engine_share_it_and_its_card(shop: Shop) -> None:
    shop.backbones(("fast", "fast"))
    first, second = shop.engines()
    assert (first.action, second.action) == ("built", "reused")
    assert (first.key, first.card) == (second.key, second.card)
    assert first.entry != second.entry
    assert len(shop.objects()) == 3


def test_a_quantised_network_is_made_once_for_every_engine_of_it(shop: Shop) -> None:
    """Also for another mission over the same area, with another range and mode."""
    shop.become("int8")
    first = shop.engine("built")
    key = shop.quantised()
    quantised = shop.record(key)
    assert quantised is not None
    assert len(quantised.ids) == 1
    before = shop.objects()
    shop.file = shop.desk.write_mission("again", files=(), flight="2026-12-01-07")
    shop.become("int8")
    assert shop.engine("reused").key == first.key
    shop.edit(("max = 32", "max = 16"), ("calibration =", 'mode = "fast"\ncalibration ='))
    second = shop.engine("built")
    assert second.key != first.key
    assert shop.quantised() == key
    assert shop.record(key) == quantised
    assert second.card is not None
    new = set(shop.objects()) - set(before)
    assert len(new) == 1 + len(second.card.parts)


def test_a_quantised_network_that_is_gone_is_made_again_for_the_next_engine_alone(shop: Shop) -> None:
    shop.become("int8")
    shop.engine("built")
    key = shop.quantised()
    quantised = shop.record(key)
    assert quantised is not None
    path = shop.store / object_path(quantised.ids[0])
    path.unlink()
    shop.engine("reused")
    assert not path.exists(), "an engine that is there needs none"
    shop.edit(("max = 32", "max = 16"))
    shop.engine("built")
    assert path.exists()
    again = shop.record(key)
    assert again is not None
    assert again.ids == quantised.ids


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_whose_objects_are_gone_is_no_promise(shop: Shop, kind: str) -> None:
    shop.become(kind)
    before = shop.engine("built")
    shutil.rmtree(shop.store / "objects")
    (shop.store / "objects").mkdir()
    after = shop.engine("built")
    assert after.key == before.key
    assert before.card is not None
    assert after.card is not None
    assert after.card.parts == before.card.parts
    shop.engine("reused")
    assert_nothing_left_over(shop)


def test_a_card_of_another_engine_is_not_believed(shop: Shop) -> None:
    """A record whose card, or whose engine, is not its own counts for nothing."""
    shop.become("fast")
    one = shop.engine("built")
    shop.edit(("[[descriptors]]", 'salt = "again"\n\n[[descriptors]]'))
    two = shop.engine("built")
    first, second = shop.record(one.key), shop.record(two.key)
    assert first is not None
    assert second is not None
    lies: list[tuple[ObjectId, ...]] = [
        (first.ids[0], *second.ids[1:]),
        second.ids[:2],
        second.ids[:1],
        second.ids[1:],
    ]
    for ids in lies:
        with Repository.open(shop.store) as repository, writing(repository) as writer:
            writer.record({BuildKey(bytes.fromhex(two.key)): Record(ids, second.provenance)}, replace=True)
        assert shop.engine("built").key == two.key
        shop.engine("reused")


def test_an_engine_that_its_card_does_not_name_is_not_believed(shop: Shop) -> None:
    """The card is of this key, the engine beside it of another network."""
    one = shop.engine("built")
    write_backbone(shop.desk.folder / "embedder.onnx", seed=2)
    two = shop.engine("built")
    first, second = shop.record(one.key), shop.record(two.key)
    assert first is not None
    assert second is not None
    assert first.ids[1] != second.ids[1]
    with Repository.open(shop.store) as repository, writing(repository) as writer:
        ids = (second.ids[0], first.ids[1])
        writer.record({BuildKey(bytes.fromhex(two.key)): Record(ids, second.provenance)}, replace=True)
    shop.engine("built")


# What fails


def test_a_backbone_that_fails_first_keeps_none_after_it_back(shop: Shop) -> None:
    shop.backbones(("portable", "fast", "portable"), ('salt = "1"', 'salt = "2"', 'salt = "3"'))
    write_backbone(shop.desk.folder / "wide.onnx", size=96)
    text = shop.file.read_text()
    shop.file.write_text(text.replace('"embedder.onnx"', '"wide.onnx"', 1))
    failed, *good = shop.engines()
    assert [report.action for report in good] == ["built", "built"]
    assert (failed.action, failed.card, failed.seconds, failed.bytes) == ("failed", None, None, 0)
    assert failed.error is not None
    assert failed.error.fields["kind"] == "wrong-inputs"
    assert "backbones[embedder]" in failed.error.message
    assert isinstance(failed.error.fields["log"], str)
    told = failed.as_json()["error"]
    assert set(told) == {"kind", "message", "remedy", "log"}
    assert told["remedy"]
    assert shop.record(failed.key) is None
    assert len(shop.objects()) == sum(1 + len(report.card.parts) for report in good if report.card is not None)
    assert_nothing_left_over(shop)
    # Mended, it is built, and the others are there.
    shop.file.write_text(text)
    assert [report.action for report in shop.engines()] == ["built", "reused", "reused"]


def test_a_failure_is_tried_again_and_stays_one(shop: Shop) -> None:
    (shop.desk.folder / "embedder.onnx").write_bytes(b"no network")
    objects = shop.objects()
    for _ in range(2):
        (report,) = shop.engines()
        assert report.action == "failed"
        assert report.error is not None
        assert report.error.fields["kind"] == "invalid-model"
    assert shop.objects() == objects == {}
    assert_nothing_left_over(shop)


# A whole mission


def test_a_mission_of_every_kind_of_engine_is_built_once_and_flies(shop: Shop) -> None:
    """What `engines build` left is used; each engine's entries have one key, kinds engine and card."""
    shop.backbones(KINDS)
    engines = shop.engines()
    report = shop.desk.built(shop.file)
    assert report["outcome"] == "built"
    about = {a["name"]: a for a in report["artifacts"]}
    for engine in engines:
        folder = engine.entry.split("/")[1]
        mine = {name: a for name, a in about.items() if name.split("/")[:2] in (["engines", folder], ["cards", folder])}
        assert {a["action"] for a in mine.values()} == {"reused"}
        assert {a["key"] for a in mine.values()} == {engine.key}
    entries = flightbag("show", shop.store, "left", "--json").json["entries"]
    kinds = [entry["kind"] for entry in entries]
    assert (kinds.count("engine"), kinds.count("card")) == (4, 3)
    keys = {entry["key"] for entry in entries if entry["kind"] == "engine"}
    assert keys == {entry["key"] for entry in entries if entry["kind"] == "card"} == {e.key for e in engines}
    kept = shop.kept()
    assert shop.desk.built(shop.file)["outcome"] == "unchanged"
    assert [one.action for one in shop.engines()] == ["reused"] * 3
    assert shop.kept() == kept
    ran = shop.desk.verify(None, "--host", OnnxRuntimeBackend().describe_host())
    assert (ran.status, ran.json["ok"]) == (0, True)
