"""`flightbag remove`: what it prints, and that a build afterwards goes on."""

from __future__ import annotations

from tests.support.commands import flightbag
from tests.support.field import Desk


def test_a_mission_is_taken_out_and_built_again_with_a_later_sequence(built: Desk) -> None:
    before = flightbag("ls", built.store, "--json").json["missions"][0]["sequence"]
    dry = flightbag("remove", built.store, "left", "--dry-run")
    assert dry.status == 0
    assert dry.words.startswith("would remove mission left")
    assert (built.store / "missions/left").exists()
    ran = flightbag("remove", built.store, "left", "--json")
    assert (ran.status, ran.json["sequence"], ran.json["dry_run"]) == (0, before, False)
    assert ran.json["objects"] > 3
    assert flightbag("ls", built.store).out == "no missions\n"
    assert flightbag("gc", built.store, "--grace", "0s", "--json").json["collected"] == ran.json["objects"]
    assert built.built(built.folder / "left.toml")["sequence"] > before
    assert flightbag("verify", built.store, "--trust", built.root).status == 0
    assert "removed" in flightbag("log", built.store, "left").words
    assert flightbag("fsck", built.store, "--full").status == 0


def test_a_draft_has_to_go_first(built: Desk) -> None:
    mission = built.write_mission("left", flight="2026-11-24-01")
    assert flightbag("build", mission, "--store", built.store).status == 0
    ran = flightbag("remove", built.store, "left")
    assert ran.status == 1
    assert "flightbag discard" in ran.err
    assert flightbag("discard", built.store, "left").status == 0
    assert flightbag("remove", built.store, "left").status == 0


def test_a_mistyped_mission_is_answered_with_the_nearest(built: Desk) -> None:
    ran = flightbag("remove", built.store, "lefd")
    assert ran.status == 1
    assert "give left" in ran.err
