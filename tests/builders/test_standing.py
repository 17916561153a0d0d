"""Where a mission stands beside its mission file, on stores that really were built."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from builders.comparison import compare
from builders.compose import open_context
from builders.report import Comparison, EngineState
from builders.standing import Standing, mission_standing
from store.errors import Invalid, Unavailable
from store.ground.repository import Repository
from tests.support.commands import code_of, flightbag
from tests.support.field import Desk, two_keys
from tests.support.here import confine_here
from tests.support.stores import flip, listing


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of the command run the real processes."""
    confine_here(monkeypatch)


def stands(desk: Desk, name: str = "left.toml", now: int | None = None) -> Standing:
    return mission_standing(desk.folder / name, desk.store, cache=desk.folder / "cache", now=now)


def kinds(one: Standing) -> list[tuple[str, str]]:
    assert one.comparison is not None
    return [(difference.kind, difference.change) for difference in one.comparison.differences]


def test_an_unchanged_mission_is_up_to_date_and_a_look_writes_nothing_into_the_store(built: Desk) -> None:
    before = listing(built.store)
    one = stands(built)
    assert (one.state, one.next, kinds(one), one.unknown) == ("up-to-date", "carry", [], ())
    assert one.published is not None
    assert [signer.kid for signer in one.published.signers] == [
        flightbag("keys", "show", built.folder / "planner.key.pub", "--json").json["kid"]
    ]
    assert listing(built.store) == before
    assert built.built(built.folder / "left.toml")["outcome"] == "unchanged"


def test_what_is_not_published_is_to_be_built(desk: Desk) -> None:
    desk.write_mission("left")
    one = stands(desk)
    assert (one.state, one.next, one.published, kinds(one)) == ("stale", "build", None, [("mission", "new")])
    assert one.comparison is not None
    assert one.comparison.missing == one.comparison.artifacts > 0


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"flight": "2026-11-24-01"}, ("mission", "", ("flight",))),
        ({"takeoff": (47.0202, -99.1602)}, ("mission", "", ("takeoff",))),
        ({"files": []}, ("file", "files/calibration/camera.yaml", ())),
        ({"of_mission": 'valid_for = "30d"'}, ("validity", "", ("expires_at",))),
        ({"dtype": "float32"}, ("descriptors", "embedder/15", ("dtype",))),
        ({"zooms": (15,)}, ("descriptors", "embedder/14", ())),
        ({"more": "[coverage]\nat_least = 0.5"}, ("coverage", "tiles", ("required_ppm",))),
    ],
)
def test_a_change_of_the_file_is_named(
    built: Desk, change: dict[str, object], expected: tuple[str, str, object]
) -> None:
    built.write_mission("left", **change)
    one = stands(built)
    assert (one.state, one.next) == ("stale", "build")
    assert one.comparison is not None
    kind, name, fields = expected
    found = [d for d in one.comparison.differences if d.kind == kind and (not name or d.name == name)]
    assert [d.fields for d in found] == [fields]
    assert built.built(built.folder / "left.toml")["outcome"] == "built", "a build agrees"
    assert stands(built).state == "up-to-date"


def test_another_model_is_another_engine_and_every_view_is_described_anew(built: Desk) -> None:
    from builders.example.backbone import write_backbone

    write_backbone(built.folder / "embedder.onnx", seed=7)
    one = stands(built)
    assert one.comparison is not None
    (engine,) = (d for d in one.comparison.differences if d.kind == "engine")
    assert (engine.change, engine.fields) == ("changed", ("model",))
    maps = [d for d in one.comparison.differences if d.kind == "descriptors"]
    assert {(d.name, d.change, d.fields) for d in maps} == {
        ("embedder/14", "changed", ("model",)),
        ("embedder/15", "changed", ("model",)),
    }
    report = built.built(built.folder / "left.toml")
    assert sum(d.views.changed for d in maps if d.views) == report["embedded"] == report["rows"]


def test_a_changed_tile_is_one_view_where_this_station_described_the_map(
    built: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    monkeypatch.setenv("XDG_CACHE_HOME", str(built.folder / "home"))
    cache = built.folder / "home" / "flightbag"
    built.write_mission("left", dtype="float32")  # described here, into this cache
    built.built(built.folder / "left.toml")
    with sqlite3.connect(built.folder / "terrain.mbtiles") as db:
        # In the middle of the area, so that the coverage digest is of it.
        (column, row) = db.execute(
            "SELECT tile_column, tile_row FROM tiles WHERE zoom_level = 15 ORDER BY abs(tile_column - 7357), "
            "abs(tile_row - ((1 << 15) - 1 - 11522)) LIMIT 1"
        ).fetchone()
        db.execute(
            "UPDATE tiles SET tile_data = (SELECT tile_data FROM tiles WHERE zoom_level = 14 LIMIT 1) "
            "WHERE zoom_level = 15 AND tile_column = ? AND tile_row = ?",
            (column, row),
        )
    one = mission_standing(built.folder / "left.toml", built.store, cache=cache)
    assert one.comparison is not None
    (layer,) = (d for d in one.comparison.differences if d.kind == "descriptors")
    assert (layer.name, layer.change, layer.fields, layer.cells) == ("embedder/15", "changed", (), 1)
    assert layer.views is not None
    assert dataclasses.astuple(layer.views) == (0, 1, 0, 0)
    # Another station sees which cell it is, and says that it does not know which view.
    other = mission_standing(built.folder / "left.toml", built.store, cache=built.folder / "other")
    assert other.comparison is not None
    (layer,) = (d for d in other.comparison.differences if d.kind == "descriptors")
    assert layer.views is not None
    assert (layer.cells, layer.views.changed) == (1, 0)
    assert layer.views.unknown > 1
    report = built.built(built.folder / "left.toml")
    assert report["embedded"] == 1


def test_a_draft_waits_for_the_other_key(built: Desk) -> None:
    second = two_keys(built)
    built.write_mission("left", flight="2026-11-24-01")
    built.built(built.folder / "left.toml")
    one = stands(built)
    assert (one.state, one.next) == ("stale", "sign")
    assert one.draft is not None
    assert (len(one.draft.signers), one.draft.threshold, one.draft.overtaken) == (1, 2, "")
    assert [signer.name for signer in one.draft.others] == ["Sam"]
    assert one.comparison is not None
    assert one.comparison.draft == ()
    built.write_mission("left", flight="2026-11-25-01")
    other = stands(built)
    assert other.next == "build", "the draft says something else than the file"
    assert other.comparison is not None
    assert [d.fields for d in other.comparison.draft or ()] == [("flight",)]
    built.write_mission("left", flight="2026-11-24-01")
    code = code_of("show", built.store, "left", "--draft")
    assert flightbag("sign", built.store, "left", "--key", second, "--expect", code).status == 0
    assert stands(built).state == "up-to-date"


def test_a_withdrawn_mission_is_stale(built: Desk) -> None:
    ran = flightbag("withdraw", built.store, "left", "--reason", "old imagery", "--key", built.key)
    assert ran.status == 0, ran.err
    one = stands(built)
    assert (one.state, one.next) == ("stale", "build")
    assert one.published is not None
    assert "old imagery" in one.published.withdrawn
    assert ("withdrawn", "changed") in kinds(one)


def test_a_mission_that_runs_out_is_due_before_it_has(built: Desk) -> None:
    built.write_mission("left", of_mission='valid_for = "10d"')
    built.built(built.folder / "left.toml")
    one = stands(built)
    assert one.state == "up-to-date"
    assert one.published is not None
    end = one.published.expires_at or 0
    assert kinds(stands(built, now=end - 4 * 86400)) == [("validity", "due")]
    late = stands(built, now=end + 60)
    assert late.state == "stale"
    assert ("validity", "due") in kinds(late)


def test_a_lost_object_is_found_by_its_absence_and_a_damaged_size(built: Desk) -> None:
    with Repository.open(built.store) as repository:
        table = repository.current("left").table
    entry = next(entry for entry in table.entries if entry.kind == "descriptors")
    path = built.store / "objects" / str(entry.id)[:2] / str(entry.id)[2:]
    data = path.read_bytes()
    path.unlink()
    lost = stands(built)
    assert (lost.state, lost.next) == ("stale", "build")
    assert ("descriptors", "lost") in kinds(lost)
    path.write_bytes(data + b"more")
    assert ("store", "lost") in kinds(stands(built))


@pytest.mark.parametrize("kind", ["descriptors", "engine", "probe", "card"])
def test_a_flipped_bit_is_seen_as_a_build_sees_it(built: Desk, kind: str) -> None:
    with Repository.open(built.store) as repository:
        entry = next(entry for entry in repository.current("left").table.entries if entry.kind == kind)
    path = built.store / "objects" / str(entry.id)[:2] / str(entry.id)[2:]
    flip(path, path.stat().st_size // 2)
    one = stands(built)
    assert (one.state, one.next) == ("stale", "build")
    assert ("store", "lost") in kinds(one)
    assert built.built(built.folder / "left.toml")["outcome"] != "unchanged"
    assert stands(built).state == "up-to-date"


def test_a_damaged_manifest_is_stale_and_an_unreadable_one_is_unknown(
    built: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Repository.open(built.store) as repository:
        manifest = repository.current("left").manifest_id
    path = built.store / "objects" / str(manifest)[:2] / str(manifest)[2:]
    flip(path, 40)
    one = stands(built)
    assert (one.state, one.published) == ("stale", None)
    assert ("store", "lost") in kinds(one)

    def unreadable(_self: Repository, _mission: str) -> None:
        raise Unavailable("the medium does not answer")

    monkeypatch.setattr(Repository, "current", unreadable)
    assert stands(built).state == "unknown"


def test_what_is_not_there_to_be_compared_is_unknown_and_the_store_is_shown_all_the_same(built: Desk) -> None:
    (built.folder / "terrain.mbtiles").rename(built.folder / "away.mbtiles")
    one = stands(built)
    assert (one.state, one.next, one.comparison) == ("unknown", "look", None)
    assert one.published is not None
    assert "terrain.mbtiles" in one.unknown[0].message


def test_a_mission_file_with_mistakes_is_invalid(built: Desk) -> None:
    (built.folder / "left.toml").write_text("[mission]\nid = 3\n")
    with pytest.raises(Invalid, match="mission"):
        stands(built)


def test_too_few_tiles_are_refused_by_a_build(built: Desk) -> None:
    import sqlite3

    with sqlite3.connect(built.folder / "terrain.mbtiles") as db:
        db.execute("DELETE FROM tiles WHERE zoom_level = 15 AND tile_column > 7357")
    one = stands(built)
    assert (one.state, one.next) == ("stale", "plan")
    assert one.comparison is not None
    assert [d.kind for d in one.comparison.refused] == ["coverage"]
    assert built.build(built.folder / "left.toml").status == 1


def test_an_engine_of_another_machine_is_ordered_fulfilled_and_accepted(
    built: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compared() -> Comparison:
        with open_context(built.folder / "left.toml", built.store, built.folder / "cache") as context:
            return compare(context, now=1_800_000_000)

    monkeypatch.setattr(
        "builders.engines.onnxruntime.OnnxRuntimeBackend.makes", lambda _self, _need: "it needs another machine"
    )
    text = (built.folder / "left.toml").read_text()
    (built.folder / "left.toml").write_text(text.replace('"fp32"', '"fp32"\nsalt = "another"'))
    (engine,) = compared().engines
    assert (engine.backbone, engine.state) == ("embedder", "to order")
    for folder, state in (("orders", "ordered"), ("results", "result")):
        (built.store / folder).mkdir(exist_ok=True)
        (built.store / folder / engine.key).write_text("0" * 64 + "\n")
        assert compared().engines == (EngineState("embedder", engine.key, state),)  # type: ignore[arg-type]


def test_a_copy_of_a_store_on_a_medium_for_reading_stands_where_the_store_does(built: Desk, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    shutil.copytree(built.store, stick, ignore=shutil.ignore_patterns("index", "lock", "tmp"))
    one = mission_standing(built.folder / "left.toml", stick, cache=built.folder / "cache")
    assert one.state == "up-to-date"
