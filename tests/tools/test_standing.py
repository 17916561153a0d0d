"""`flightbag status`: the lines that a planner reads, the document, and the exit status."""

from __future__ import annotations

from store.ground.repository import Repository
from tests.support.commands import flightbag
from tests.support.field import Desk
from tests.support.stores import file_of


def test_what_is_up_to_date_says_so_and_what_comes_next(built: Desk) -> None:
    mission = built.folder / "left.toml"
    ran = flightbag("status", mission, "--store", built.store)
    assert ran.status == 0, ran.out + ran.err
    assert "UP TO DATE" in ran.words
    assert "never expires" in ran.words
    assert ran.out.splitlines()[-1] == f"next: flightbag sync {built.store} STICK --mission left"
    value = flightbag("status", mission, "--store", built.store, "--json").json
    assert (value["state"], value["next"], value["findings"]) == ("up-to-date", "carry", [])
    assert value["published"]["sequence"] > 0
    whole = flightbag("status", mission, "--store", built.store, "-v")
    assert value["published"]["manifest"] in whole.words
    assert value["published"]["manifest"] not in ran.words


def test_what_is_stale_names_its_reasons_and_the_command(built: Desk) -> None:
    mission = built.write_mission("left", flight="2026-11-24-01")
    (built.folder / "camera.yaml").write_text("fx: 3\n")
    ran = flightbag("status", mission, "--store", built.store)
    assert ran.status == 1
    assert "mission left changed, by flight" in ran.words
    assert "file files/calibration/camera.yaml changed" in ran.words
    assert ran.out.splitlines()[-1] == f"next: flightbag build {mission} --store {built.store} --key KEY"


def test_a_draft_says_who_has_signed(built: Desk) -> None:
    mission = built.write_mission("left", flight="2026-11-24-01")
    assert flightbag("build", mission, "--store", built.store).status == 0
    ran = flightbag("status", mission, "--store", built.store)
    kid = flightbag("keys", "show", built.folder / "planner.key.pub", "--json").json["kid"]
    assert ran.status == 1
    assert "0 of 1 signatures" in ran.words
    assert f"missing 1 of {kid[:12]}" in ran.words
    assert "that of the mission file now" in ran.words
    assert f"next: flightbag sign {built.store} left --key KEY" in ran.words
    with Repository.open(built.store) as repository:
        engine = file_of(built.store, repository.current("left").table.of_kind("engine")[0].id)
    engine.unlink()
    assert "that of the mission file now, missing or damaged here: engine, store" in (
        flightbag("status", mission, "--store", built.store).words
    )


def test_a_build_that_has_nothing_else_to_do_discards_a_draft_and_both_say_so(built: Desk) -> None:
    mission = built.write_mission("left", flight="2026-11-24-01")
    assert flightbag("build", mission, "--store", built.store).status == 0
    built.write_mission("left")
    ran = flightbag("status", mission, "--store", built.store)
    assert ran.status == 0, ran.out
    assert "another than the mission file now: mission; a build discards the draft" in ran.words
    for notes in (1, 0):
        built_again = flightbag("build", mission, "--store", built.store, "--key", built.folder / "planner.key")
        assert built_again.words.count("note: the draft is discarded") == notes
        assert built_again.words.startswith("unchanged")


def test_damage_is_never_shown_as_nothing(built: Desk) -> None:
    mission = built.folder / "left.toml"
    draft = built.store / "drafts" / "left"
    draft.parent.mkdir(exist_ok=True)
    draft.write_bytes(b"torn")
    ran = flightbag("status", mission, "--store", built.store)
    assert "draft DOES NOT HOLD" in ran.words
    assert "DOES NOT HOLD: the envelope" in flightbag("ls", built.store).words
    draft.unlink()
    published = flightbag("status", mission, "--store", built.store, "--json").json["published"]["manifest"]
    (built.store / "objects" / published[:2] / published[2:]).unlink()
    ran = flightbag("status", mission, "--store", built.store)
    assert ran.status == 1
    assert f"published DAMAGED: the manifest of left does not verify: object {published[:12]} is missing" in ran.words


def test_what_could_not_be_looked_at_is_the_status_3(built: Desk) -> None:
    (built.folder / "embedder.onnx").unlink()
    ran = flightbag("status", built.folder / "left.toml", "--store", built.store)
    assert ran.status == 3
    assert "embedder.onnx" in ran.words
    assert "UNKNOWN" in ran.words
    assert "published flight 2026-11-23-01" in ran.words
    value = flightbag("status", built.folder / "left.toml", "--store", built.store, "--json")
    assert (value.status, value.json["state"]) == (3, "unknown")
    assert [one["path"] for one in value.json["findings"]] == [str(built.folder / "left.toml")]


def test_a_store_that_is_none_is_an_error_as_for_every_command(built: Desk) -> None:
    ran = flightbag("status", built.folder / "left.toml", "--store", built.folder / "nowhere")
    assert ran.status == flightbag("plan", built.folder / "left.toml", "--store", built.folder / "nowhere").status
    assert "nowhere" in ran.err
