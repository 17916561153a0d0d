"""Withdrawing by the command line: what a person types, reads, and gives to the next key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import flightbag
from tests.support.field import Desk


def test_a_mission(equipped: Desk, tmp_path: Path) -> None:
    desk = equipped
    state = desk.folder / "state"
    again = ("withdraw", desk.store, "left")
    assert flightbag(*again, "--json").json["error"]["kind"] == "missing"
    ran = flightbag(*again)
    assert "has no withdrawal of mission left\n" in ran.err
    assert f"`flightbag withdraw {desk.store} left --reason TEXT --key KEY`" in ran.err
    ran = flightbag(*again, "--reason", "old imagery")
    assert (ran.status, "NOT WITHDRAWN: it has 0 of 1 signatures" in ran.out) == (0, True), ran.out + ran.err
    assert flightbag("verify", desk.store, "left", "--state", state).status == 0
    assert "NOT" not in flightbag("ls", desk.store).out
    code = flightbag(*again, "--json").json["signing_code"]
    ran = flightbag(*again, "--key", desk.key, "--expect", code)
    assert (ran.status, "WITHDRAWN: sync it" in ran.out) == (0, True), ran.out + ran.err
    assert ran.out.count("signing code") == 1

    ran = flightbag("verify", desk.store, "left", "--state", state, "--json")
    assert [finding["kind"] for finding in ran.json["findings"]] == ["withdrawn"]
    assert "old imagery" in flightbag("ls", desk.store).out
    listed = flightbag("ls", desk.store, "--json").json
    assert (listed["ok"], bool(listed["missions"][0]["withdrawn"])) == (True, True)
    assert [(one["kind"], one["missions"], one["information"]) for one in listed["findings"]] == [
        ("withdrawn", ["left"], True)
    ]
    assert "DOES NOT FLY" in flightbag("show", desk.store, "left").out
    assert "WITHDRAWN up to this one" in flightbag("aircraft", "show", "--state", state).out
    assert "withdrawn" in flightbag("log", desk.store, "left").out
    assert "WITHDRAWN" in flightbag("fsck", desk.store).out
    assert "1 file of withdrawn/" in flightbag("sync", desk.store, tmp_path / "stick").out
    assert flightbag("checkout", tmp_path / "stick", "left", tmp_path / "out", "--trust", desk.root).status == 1
    # What is said to help does: the mission is published again, by a build that changes nothing, or by a rollback.
    ran = flightbag("build", desk.folder / "left.toml", "--store", desk.store, "--key", desk.key, "--json")
    assert (ran.status, ran.json["outcome"]) == (0, "built"), ran.out + ran.err
    assert flightbag("verify", desk.store, "left", "--trust", desk.root).status == 0
    assert flightbag(*again, "--reason", "smoke", "--key", desk.key).status == 0
    here = flightbag("show", desk.store, "left", "--json").json["manifest"]
    ran = flightbag("rollback", desk.store, "left", "--key", desk.key, "--to", here, "--json")
    assert (ran.status, ran.json["unchanged"]) == (0, False), ran.out + ran.err
    assert flightbag("verify", desk.store, "left", "--trust", desk.root).status == 0
    ran = flightbag("rollback", desk.store, "left", "--key", desk.key, "--dry-run", "--json")
    assert flightbag("rollback", desk.store, "left", "--key", desk.key, "--to", ran.json["to"]).status == 0
    assert flightbag("verify", desk.store, "left", "--trust", desk.root).status == 0


def test_a_release(equipped: Desk) -> None:
    desk = equipped
    lab = ("--key", desk.folder / "lab.key")
    view = flightbag("release", "show", desk.folder / "winter.release", "--json").json["releases"][0]["signing_code"]
    assert flightbag("release", "sign", desk.store, desk.folder / "winter.release", *lab, "--expect", view).status == 0
    assert flightbag("release", "withdraw", desk.store, "summer", "--json").json["error"]["kind"] == "missing"
    ran = flightbag("release", "withdraw", desk.store, "winter", "--reason", "it drifts", *lab)
    assert ran.status == 0, ran.out + ran.err
    assert "DOES NOT HOLD: the release winter was withdrawn" in flightbag("release", "show", desk.store).out


def test_a_damaged_one_is_named_with_what_mends_it(equipped: Desk) -> None:
    desk = equipped
    again, sign = ("withdraw", desk.store, "left"), ("--reason", "x", "--key", desk.key)
    for folder, option, mend in (("withdrawn", "--reason", sign), ("drafts", "--discard", ("--discard",))):
        path = Path(desk.store) / folder / "left.mission"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
        ran = flightbag(*again)
        assert (ran.status, f"flightbag: {path}: " in ran.err, option in ran.err) == (1, True, True), ran.err
        assert flightbag(*again, *mend).status == 0
        assert flightbag(*again).status == 0


@pytest.mark.parametrize("more", [("--reason", "x"), ("--key", "KEY")])
def test_a_draft_is_discarded_alone(equipped: Desk, more: tuple[str, ...]) -> None:
    again = ("withdraw", equipped.store, "left")
    flightbag(*again, "--reason", "x")
    given = [str(equipped.key) if one == "KEY" else one for one in more]
    assert flightbag(*again, "--discard", *given).status == 2
    assert "with 0 signatures" in flightbag(*again, "--discard").out
    assert flightbag(*again, "--discard").status == 1
