"""The audit and the repair from the command line: statuses, the JSON document, and what neither of them writes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disks import bad_sectors
from tests.support.commands import flightbag, listing, program
from tests.support.field import Desk
from tests.support.missions import FACTS, PROBED, UNPROVEN, flight
from tests.support.store_files import entry_of, object_file
from tests.support.stores import flip, make_store


def fsck(desk: Desk, *more: object) -> tuple[int, dict[str, Any]]:
    ran = flightbag("fsck", desk.store, "--json", *more)
    return ran.status, ran.json


def kinds(said: dict[str, Any]) -> list[str]:
    return [finding["kind"] for finding in said["findings"] if not finding.get("information")]


def test_json_is_one_document(twice: Desk) -> None:
    status, said = fsck(twice, "--full")
    assert (status, said["schema"], said["status"], said["ok"]) == (0, "flightbag/fsck/1", 0, True)
    assert [(one["mission"], one["state"]) for one in said["missions"]] == [("left", "flyable"), ("right", "flyable")]
    assert said["level"] == "full"
    assert said["read_objects"] == said["objects"] > 0
    assert (said["verdict"], said["unread_objects"]) == ("clean", 0)
    assert said["notes"] == {}  # the first build is what a rollback leads to
    assert program("store-fsck", twice.store, "--full", "--json").json == said


@pytest.mark.parametrize("way", [("--full",), ("--sample", "100%"), ("--budget", "600s"), ("--full", "--repair")])
def test_only_what_was_hashed_counts_as_read(
    twice: Desk, monkeypatch: pytest.MonkeyPatch, way: tuple[str, ...]
) -> None:
    status, said = fsck(twice, "--full")
    objects, size = (said[key] for key in ("read_objects", "read_bytes"))
    engine = object_file(twice.store, entry_of(twice.store, "left", "engines/")["id"])
    bad_sectors(monkeypatch, engine.stat().st_ino)
    status, said = fsck(twice, *way)
    assert (status, said["read_objects"]) == (8, objects - 1)
    assert said["read_bytes"] == size - engine.stat().st_size
    assert f"{objects - 1} read in full" in flightbag("fsck", twice.store, *way).out


def test_repair_from_a_replica(twice: Desk) -> None:
    replica = twice.folder / "replica"
    assert flightbag("sync", twice.store, replica).status == 0
    engine = object_file(twice.store, entry_of(twice.store, "left", "engines/")["id"])
    engine.chmod(0o644)
    engine.write_bytes(b"x" + engine.read_bytes()[1:])
    (twice.store / "missions" / "right").write_text("")
    status, said = fsck(twice, "--full")
    assert (status, sorted(kinds(said))) == (4, ["bad-ref", "bit-flip"])
    assert {one["mission"] for one in said["missions"] if one["state"] == "grounded"} == {
        "left",
        "right",
    }
    before = listing(twice.store)
    status, said = fsck(twice, "--full", "--repair", "--from", replica, "--dry-run")
    assert status == 4
    assert [step["action"] for step in said["plans"][0]["steps"]] == ["fetch", "ref"]
    assert listing(twice.store) == before
    status, said = fsck(twice, "--full", "--repair", "--from", replica)
    assert (status, kinds(said)) == (1, [])
    assert fsck(twice, "--full")[0] == 0
    assert twice.verify().status == 0
    events = flightbag("log", twice.store, "--json").json["events"]
    assert [event["stage"] for event in events if event["event"] == "repaired"] == ["begun", "done"]


def test_without_a_replica_errors_are_left(twice: Desk) -> None:
    object_file(twice.store, entry_of(twice.store, "left", "engines/")["id"]).unlink()
    status, said = fsck(twice, "--repair")
    assert (status, kinds(said)) == (4, ["missing"])
    ran = flightbag("fsck", twice.store, "--repair")
    assert "GROUNDED" in ran.out


def test_the_remedy_for_a_flipped_bit_mends_it(twice: Desk) -> None:
    """A quick repair reads no object, so that it would call the same store complete."""
    replica = twice.folder / "replica"
    flightbag("sync", twice.store, replica)
    path = object_file(twice.store, entry_of(twice.store, "left", "engines/")["id"])
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    status, said = fsck(twice, "--full")
    assert (status, kinds(said)) == (4, ["bit-flip"])
    words = next(finding for finding in said["findings"] if finding["kind"] == "bit-flip")["remedy"].split()
    options = [word for word in words if word.startswith("--")]
    assert options == ["--full", "--repair", "--from"]
    assert fsck(twice, *options, replica)[0] == 1
    assert fsck(twice, "--full")[0] == 0


def test_a_mission_that_is_not_there_comes_with_the_nearest(twice: Desk) -> None:
    _, said = fsck(twice, "--mission", "lefd")
    assert next(finding for finding in said["findings"] if finding["kind"] == "bad-ref")["remedy"].startswith(
        "give left, or sync lefd"
    )


def test_budget_sample_mission_and_exclusive(twice: Desk, tmp_path: Path) -> None:
    book = tmp_path / "ledger"
    status, said = fsck(twice, "--budget", "60s", "--ledger", book, "--drop-cache")
    assert (status, said["read_objects"]) == (0, said["objects"])
    assert book.exists()
    status, said = fsck(twice, "--sample", "10%")
    assert (status, 0 < said["read_objects"] < said["objects"]) == (0, True)
    assert fsck(twice, "--mission", "left", "--full")[0] == 0
    assert fsck(twice, "--mission", "nowhere")[0] == 4
    status, said = fsck(twice, "--exclusive")
    assert (status, set(kinds(said))) == (4, {"unreferenced"})
    aircraft = twice.folder / "aircraft"
    flightbag("sync", twice.store, aircraft)
    assert program("store-fsck", aircraft, "--exclusive", "--full").status == 0


@pytest.mark.parametrize(
    "wrong",
    [
        ("--sample", "ten"),
        ("--sample", "0%"),
        ("--sample", "200%"),
        ("--budget", "60"),
        ("--budget", "0s"),
        ("--full", "--budget", "1s"),
        ("--from", "x"),
        ("--dry-run",),
        ("--mission", "No"),
        ("--mission", "left", "--exclusive"),
    ],
)
def test_usage(twice: Desk, wrong: tuple[str, ...]) -> None:
    assert fsck(twice, *wrong)[0] == 16


def test_an_audit_and_its_dry_run_write_nothing_in_the_store(twice: Desk) -> None:
    before = listing(twice.store)
    for more in ((), ("--full",), ("--budget", "9s"), ("--sample", "50%"), ("--repair", "--dry-run")):
        assert fsck(twice, *more)[0] == 0
    assert flightbag("gc", twice.store, "--dry-run", "--grace", "0s", "--keep-last", "1").status == 0
    for command in (("ls",), ("log",), ("stats",), ("pin",), ("diff", "left", "right")):
        assert flightbag(command[0], twice.store, *command[1:]).status == 0
    assert listing(twice.store) == before


def test_a_mission_that_aircraft_have_to_prove_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", flight(PROBED, unproven=(UNPROVEN,)))
    ran = flightbag("fsck", store, "--full")
    assert (ran.status, "note: 1 unproven" in ran.out) == (0, True)
    assert f"note: fidelity/net of mission {FACTS.id}: each aircraft has to prove it" in ran.out


def test_a_ledger_is_nothing_else_and_lies_outside(twice: Desk) -> None:
    before = listing(twice.store)
    inside = twice.store / "missions" / "left"
    assert flightbag("fsck", twice.store, "--full", "--ledger", inside).status == 16
    key_before = twice.key.read_bytes()
    assert flightbag("fsck", twice.store, "--full", "--ledger", twice.key).status == 8
    assert twice.key.read_bytes() == key_before
    assert listing(twice.store) == before


def test_no_name_forges_a_line(twice: Desk) -> None:
    (twice.store / "objects" / "zz\nclean: 9 objects; 0 findings").write_bytes(b"")
    ran = flightbag("fsck", twice.store)
    assert ran.status == 4
    assert not [line for line in ran.out.splitlines() if line.startswith("clean")]


@pytest.mark.parametrize("more", ["", "--repair", "--repair --dry-run", "--mission left", "--exclusive"])
def test_what_was_not_read_is_not_flyable(twice: Desk, more: str) -> None:
    """A flipped bit under a quick audit: it says that nothing was read, and how to read it. Then that is done."""
    stick = twice.folder / "a stick"
    assert flightbag("sync", twice.store, stick).status == 0
    flip(object_file(stick, entry_of(stick, "left", "engines/")["id"]))
    ran = flightbag("fsck", stick, *more.split())
    assert ran.status in (0, 1)  # the index that a sync has not made is mended
    assert "flyable" not in ran.out
    assert "clean" not in ran.out
    lines = ran.out.splitlines()
    assert any(line.split("  ")[0] == "left" and line.endswith("complete, not read") for line in lines)
    assert lines[-2].startswith("complete, not read: ")
    command = shlex.split(lines[-1].split("every byte: ")[1])
    assert command[:3] == ["store-fsck", str(stick), "--full"]
    value = flightbag("fsck", stick, *more.split(), "--json").json
    assert value["verdict"] == "complete, not read"
    assert {one["state"] for one in value["missions"]} == {"not-read"}
    full = program(*command)
    assert full.status == 4
    assert "flyable" not in full.out.replace("right  flyable", "")
    assert full.out.splitlines()[-1].startswith("errors: ")


def test_a_sample_says_that_it_is_one(twice: Desk) -> None:
    ran = flightbag("fsck", twice.store, "--sample", "10%")
    assert ran.status == 0
    assert ran.out.splitlines()[-2].startswith("complete, partly read: ")
    assert "flyable" not in ran.out
    assert flightbag("fsck", twice.store, "--sample", "100%").out.splitlines()[-1].startswith("clean: ")
