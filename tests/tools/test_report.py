"""Reports: what the other commands print stands in one file, also of a store that is damaged or hostile."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from builders.areas.covering import tiles_of_signed_area
from builders.engines.card import Card
from builders.recipe import Recipe
from store.format.area import Area
from store.format.entries import EntryTable, sorted_table
from store.format.ids import ObjectId
from store.format.manifest import Unproven
from store.format.missing import REASONS, MissingList
from store.format.receipt import Receipt, Verified
from store.ground.receipts import signed
from store.ground.repository import Repository, SmallFile
from store.takeoff.fidelity import fidelity_recipe, proof_digest
from tests.builders.engines.test_card import card
from tests.support.commands import flightbag
from tests.support.field import Desk
from tests.support.html import Page
from tests.support.map_store import AREA, WITH_ENGINE, map_flight, runs_of, write_map_store
from tests.support.missions import (
    NOW,
    PROBED,
    ROOT,
    Flight,
    build_key,
    flight,
    key,
    next_root,
    sign_root,
    sign_withdrawal,
    withdrawal,
)

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\u202e{{7*7}}'
EAST = Area((-991600000, 470080000, -991350000, 470330000))


class Reported(NamedTuple):
    store: Path
    root: Path


RECIPE = Recipe({"backend": HOSTILE})


def hostile_card(one: Flight, **changes: Any) -> Flight:
    """The mission with a real card, in which everything that is text is hostile."""
    engine = one.entry("engines/net/net.onnx")
    made = replace(
        card(),
        recipe=RECIPE,
        steps={},
        parts={"model": [str(engine.id), engine.size]},
        inputs=[[HOSTILE, HOSTILE, [HOSTILE]]],
        tools={HOSTILE: HOSTILE},
        inspector={"needs": HOSTILE},
    )
    data = made.render()
    assert Card.parse(data) == made
    entries = [
        replace(each, key=made.recipe.key)
        if each.name == engine.name
        else replace(each, id=ObjectId.of(data), size=len(data), key=made.recipe.key)
        if each.kind == "card"
        else each
        for each in one.table.entries
    ]
    table: EntryTable = sorted_table(entries)
    manifest = one.manifest
    return flight(
        {**one.contents, "cards/net/net.json": data},
        table=table,
        mission=manifest.mission,
        issue=manifest.issue,
        coverage=manifest.coverage,
        **changes,
    )


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """`ridge` misses a tile for each reason and has a hostile card; `east` shares cells with it."""
    ids = tiles_of_signed_area(AREA, 15).tolist()
    listed = runs_of(dict(zip(ids[::2], REASONS, strict=False)))
    folder = tmp_path_factory.mktemp("reported")
    flights = (
        hostile_card(map_flight("ridge", AREA, (14, 15), listed, contents=WITH_ENGINE)),
        map_flight("east", EAST, (15,)),
    )
    return Reported(*write_map_store(folder, *flights))


def report(path: Path, *args: object, status: int = 0) -> Page:
    ran = flightbag("report", *args, "-o", path)
    assert ran.status == status, ran.out + ran.err
    page = Page(path.read_text())
    assert not page.faults
    return page


def test_a_mission_is_reported_as_the_other_commands_print_it(reported: Reported, tmp_path: Path) -> None:
    """No second truth: each fact that `show` prints stands in the report, word for word."""
    page = report(tmp_path / "r.html", reported.store, "ridge", "--trust", reported.root)
    assert "GO when this report was made; code" in page.text
    code = flightbag("verify", reported.store, "ridge", "--trust", reported.root, "--json").json["missions"][0]["code"]
    assert code in page.text
    kinds = ("descriptors", "engine", "card", "file", "coverage  ")
    facts = [line for line in flightbag("show", reported.store, "ridge").out.splitlines() if not line.startswith(kinds)]
    assert len(facts) > 20
    for line in facts:
        assert line.split("  ")[-1].strip() in page.text, line
    for reason in REASONS:
        assert f" 1 {reason} " in page.text
    assert "Zoom 15: " in page.text
    assert "The store has no imagery, and none was given with --tiles." in page.text
    assert "1 signature; the newest trust root of the store demands 1" in page.text


def test_a_whole_store_is_reported(reported: Reported, tmp_path: Path) -> None:
    page = report(tmp_path / "s.html", reported.store, "--trust", reported.root)
    assert "east 2026-11-23-01 GO never expires" in page.text
    assert page.labels.count("has them") == 3, "shards of `ridge` alone, and shared ones"
    assert "none is recorded by this user on this machine" in page.text
    assert "dedup ratio" in page.text
    assert "Bytes that missions have needed so far" in page.text
    ran = flightbag("report", reported.store, "--trust", reported.root, "-o", tmp_path / "s.html", "--json")
    assert ran.json["verdicts"] == {"east": "GO", "ridge": "GO"}
    assert ran.json["findings"] == []


def test_an_audit_is_told_by_its_ledger(reported: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert flightbag("fsck", reported.store, "--full").status == 0
    page = report(tmp_path / "s.html", reported.store)
    assert "read in full since they were written" in page.text
    assert "the longest ago 20" in page.text
    assert "not judged" in page.text


def test_hostile_names_stay_words(reported: Reported, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(reported.store, store)
    reason = "<script>alert(1)</script><img src=x onerror=alert(2)> {{7*7}}"
    value = replace(withdrawal(map_flight("ridge")), reason=reason)
    with Repository.open(store) as repository:
        repository.place([SmallFile("withdrawn/ridge.mission", sign_withdrawal(value))])
    page = report(tmp_path / "r.html", store, "ridge", "--trust", reported.root, status=1)
    text = (tmp_path / "r.html").read_text()
    assert reason in page.text
    assert "\\u202e" in page.text
    assert "\u202e" not in text
    assert "<script" not in text.lower()
    assert "NO-GO" in page.text
    report(tmp_path / "s.html", store, "--trust", reported.root, status=1)
    assert "<script" not in (tmp_path / "s.html").read_text().lower()


def test_a_damaged_mission_is_reported_as_far_as_it_goes(reported: Reported, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(reported.store, store)
    shown = flightbag("show", store, "ridge", "--json").json
    by_kind = {one["kind"]: one["id"] for one in shown["entries"]}
    lost = {
        "coverage": "the missing tiles:",
        "card": "the engines:",
        "manifest": "the manifest:",
    }
    for kind, problem in lost.items():
        id_ = shown["manifest"] if kind == "manifest" else by_kind[kind]
        path = store / "objects" / id_[:2] / id_[2:]
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
        page = report(tmp_path / "r.html", store, "ridge", "--trust", reported.root, status=1)
        assert "NO-GO" in page.text
        assert "What could not be shown" in page.text
        assert problem in page.text
        assert "bit-flip" in page.text or "oversized" in page.text or "object" in page.text
        if kind == "coverage":
            assert "No map can be shown." in page.text, "a tile that nobody describes never looks described"
    page = report(tmp_path / "r.html", store, "east", "--trust", reported.root)
    assert "1 other mission of the store does not verify: what it shares is not counted here." in page.text
    page = report(tmp_path / "s.html", store, status=3)
    assert "DOES NOT HOLD" in page.text
    assert "mission ridge:" in page.text


def test_so_many_other_missions_are_compared(
    reported: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store may have thousands, whose tables take gigabytes: the page says what was left out."""
    monkeypatch.setattr("tools.maps.MOST_COMPARED", 0)
    monkeypatch.setattr("tools.report.facts.MOST_COMPARED", 1)
    page = report(tmp_path / "r.html", reported.store, "ridge")
    assert "1 other mission of the store was not compared: the store has too many entries." in page.text
    assert "1 mission more: the store has too many entries" in report(tmp_path / "s.html", reported.store).text


def test_a_figure_that_nobody_measured_names_who_has_proven_it(tmp_path: Path) -> None:
    """By receipts of known keys: a receipt of an unknown claims what it likes."""
    probe = PROBED["probes/net.safetensors"]
    recipe = fidelity_recipe(build_key("probes/net.safetensors"), RECIPE.key)
    figure = Unproven("fidelity/net", 990_000, recipe)
    with_probe = {**WITH_ENGINE, "probes/net.safetensors": probe}
    one = hostile_card(map_flight("ridge", contents=with_probe, listed=MissingList(())), unproven=(figure,), quality=())
    store, _ = write_map_store(tmp_path, one)
    page = report(tmp_path / "r.html", store, "ridge")
    assert "engine equals map/net: nobody has proven it yet" in page.text
    assert "engine equals map/net UNPROVEN 0.9900 to be probed aboard" in page.text
    proof = proof_digest(figure, ObjectId.of(probe), (one.entry("engines/net/net.onnx").id,))
    for name, proven in (("stranger", False), ("pilot", True)):
        signer, issue = key(name), one.manifest.issue
        verified = Verified("ridge", one.manifest_id, issue.epoch, issue.sequence, 1, 1, 1, False, proofs=(proof,))
        receipt = Receipt(signer.public.raw, None, "flight", NOW, "trusted", verified)
        with Repository.open(store) as repository:
            repository.place([signed(receipt, signer, ROOT)])
        page = report(tmp_path / "r.html", store, "ridge")
        by = f"proven aboard by {ROOT.key_text(signer.public.kid)}"
        assert (by in page.text, "nobody has proven it yet" in page.text) == (proven, not proven)


def test_the_last_of_many_trust_roots_are_shown(reported: Reported, tmp_path: Path) -> None:
    """A chain may be longer than a verifier follows in one go."""
    store = tmp_path / "store"
    shutil.copytree(reported.store, store)
    root = ROOT
    for version in range(2, 40):
        root = next_root(root)
        (store / f"trust/{version}.root.cbor").write_bytes(sign_root(root, "root-a"))
    page = report(tmp_path / "s.html", store)
    assert "trust root 39, code" in page.text
    assert "trust root 20, code" in page.text
    assert "and 19 earlier ones" in page.text


def test_without_a_verdict_the_report_says_so(reported: Reported, tmp_path: Path) -> None:
    page = report(tmp_path / "r.html", reported.store, "ridge")
    assert "not judged : no trust root was given" in page.text
    assert "GO when" not in page.text
    ran = flightbag("report", reported.store, "ridge", "-o", tmp_path / "r.html")
    assert "no verdict was asked for" in ran.out


def test_without_its_libraries_the_command_names_the_extra(
    reported: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library, extra in (("jinja2", "report"), ("numpy", "onboard")):
        monkeypatch.setitem(sys.modules, library, None)
        ran = flightbag("report", reported.store, "-o", tmp_path / "s.html")
        assert (ran.status, f"[{extra}]" in ran.err) == (3, True), ran.err
    assert not (tmp_path / "s.html").exists()


def test_wrong_arguments_name_the_remedy(reported: Reported, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("<html>mine</html>")
    out = ("-o", tmp_path / "r.html")
    for args, status, text in (
        (("ridge",), 2, "-o is missing"),
        (("nobody", *out), 1, "nobody"),
        (("ridge", "-o", tmp_path / "mine.html"), 2, "would be lost"),
        (("ridge", "-o", reported.store / "r.html"), 2, str(reported.store)),
        (("ridge", *out, "--trust", reported.root, "--state", tmp_path), 2, "exclude each other"),
        (("--tiles", tmp_path / "x.mbtiles", *out), 2, "--tiles needs MISSION"),
    ):
        ran = flightbag("report", reported.store, *args)
        assert (ran.status, text in ran.err, "  -> " in ran.err) == (status, True, True), ran
    assert not (tmp_path / "r.html").exists()


def test_tiles_of_the_sources_are_shown_and_no_others(built: Desk, tmp_path: Path) -> None:
    from builders.example.terrain import write_terrain
    from tests.support.field import WORLD, ZOOMS

    args = (built.store, "left", "--trust", built.root)
    page = report(tmp_path / "r.html", *args, "--tiles", built.folder / "terrain.mbtiles")
    assert len(page.images) == 8
    assert all(str(one["alt"]).startswith("tile 15/") for one in page.images)
    assert "engine equals map/embedder" in page.text
    assert "recall of embedder not measured" in page.text
    assert (tmp_path / "r.html").stat().st_size < 400_000
    write_terrain(tmp_path / "other.mbtiles", WORLD, ZOOMS, seed=2)
    ran = flightbag("report", *args, "--tiles", tmp_path / "other.mbtiles", "-o", tmp_path / "other.html")
    assert (ran.status, "not the ones that mission left was built from" in ran.err) == (1, True)
    assert not (tmp_path / "other.html").exists()


def test_receipts_and_proofs_name_the_aircraft(equipped: Desk, tmp_path: Path) -> None:
    """`equip` verified `left` aboard: its receipt is of an unknown, until a list of the fleet names its key."""
    page = report(tmp_path / "r.html", equipped.store, "left")
    assert "1 more receipt of unknown keys" in page.text
    fleet = tmp_path / "fleet.keys"
    shown = flightbag("receipts", equipped.store, "--json").json["verified"][0]
    fleet.write_text(f"{shown['kid']} {shown['says']}\n")
    page = report(tmp_path / "r.html", equipped.store, "left", "--fleet", fleet)
    assert "uav-07 verified left" in page.text
    page = report(tmp_path / "s.html", equipped.store, "--fleet", fleet, "--state", equipped.folder / "state")
    assert "left 2026-11-23-01 GO never expires" in page.text
    assert "uav-07 verified left" in page.text
