"""The audit and the repair from the command line: statuses, lines of JSON, and what neither of them writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import flightbag, listing, program
from tests.support.field import Desk
from tests.support.store_files import entry_of, object_file


def fsck(desk: Desk, *more: object) -> tuple[int, list[dict[str, Any]]]:
    ran = flightbag("fsck", desk.store, "--json", *more)
    return ran.status, [json.loads(line) for line in ran.out.splitlines()]


def kinds(lines: list[dict[str, Any]]) -> list[str]:
    return [line["kind"] for line in lines if line["type"] == "finding" and not line.get("information")]


def test_json_is_a_line_a_thing(twice: Desk) -> None:
    status, lines = fsck(twice, "--full")
    assert status == 0
    assert [(line["mission"], line["flyable"]) for line in lines if line["type"] == "mission"] == [
        ("left", True),
        ("right", True),
    ]
    summary = lines[-1]
    assert (summary["type"], summary["level"], summary["status"]) == ("summary", "full", 0)
    assert summary["read_objects"] == summary["objects"] > 0
    assert summary["notes"] == {}  # the first build is what a rollback leads to


def test_repair_from_a_replica(twice: Desk) -> None:
    replica = twice.folder / "replica"
    assert flightbag("sync", twice.store, replica).status == 0
    engine = object_file(twice.store, entry_of(twice.store, "left", "engines/")["id"])
    engine.chmod(0o644)
    engine.write_bytes(b"x" + engine.read_bytes()[1:])
    (twice.store / "missions" / "right").write_text("")
    status, lines = fsck(twice, "--full")
    assert (status, sorted(kinds(lines))) == (4, ["bad-ref", "bit-flip"])
    assert {line["mission"] for line in lines if line["type"] == "mission" and not line["flyable"]} == {
        "left",
        "right",
    }
    before = listing(twice.store)
    status, lines = fsck(twice, "--full", "--repair", "--from", replica, "--dry-run")
    assert status == 4
    assert [step["action"] for step in lines[0]["steps"]] == ["fetch", "ref"]
    assert listing(twice.store) == before
    status, lines = fsck(twice, "--full", "--repair", "--from", replica)
    assert (status, kinds(lines)) == (1, [])
    assert fsck(twice, "--full")[0] == 0
    assert twice.verify().status == 0
    events = flightbag("log", twice.store, "--json").json
    assert [event["stage"] for event in events if event["event"] == "repaired"] == ["begun", "done"]


def test_without_a_replica_errors_are_left(twice: Desk) -> None:
    object_file(twice.store, entry_of(twice.store, "left", "engines/")["id"]).unlink()
    status, lines = fsck(twice, "--repair")
    assert (status, kinds(lines)) == (4, ["missing"])
    ran = flightbag("fsck", twice.store, "--repair")
    assert "GROUNDED" in ran.out


def test_budget_sample_mission_and_exclusive(twice: Desk, tmp_path: Path) -> None:
    book = tmp_path / "ledger"
    status, lines = fsck(twice, "--budget", "60s", "--ledger", book, "--drop-cache")
    assert (status, lines[-1]["read_objects"]) == (0, lines[-1]["objects"])
    assert book.exists()
    status, lines = fsck(twice, "--sample", "10%")
    assert (status, 0 < lines[-1]["read_objects"] < lines[-1]["objects"]) == (0, True)
    assert fsck(twice, "--mission", "left", "--full")[0] == 0
    assert fsck(twice, "--mission", "nowhere")[0] == 4
    status, lines = fsck(twice, "--exclusive")
    assert (status, set(kinds(lines))) == (4, {"unreferenced"})
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
