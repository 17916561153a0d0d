"""`flightbag sync`: what it copies, to one destination and to several at once, and what it says of those that fail."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from store.ground.sync import SyncPlan
from tests.support.commands import flightbag, program
from tests.support.stores import (
    CAMERA,
    NORTH,
    SOUTH,
    audit,
    check,
    file_of,
    flip,
    later,
    listing,
    make_store,
    overwrite,
    publish,
)
from tools.sync import _lines


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("made") / "ground")


@pytest.fixture
def ground(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "ground")
    return tmp_path / "ground"


def sticks(folder: Path, count: int) -> list[Path]:
    return [folder / f"stick-{number}" for number in range(count)]


def test_it_copies_only_what_is_missing(ground: Path, tmp_path: Path) -> None:
    aircraft = tmp_path / "aircraft"
    dry = flightbag("sync", ground, aircraft, "--mission", NORTH.id, "--dry-run", "--json").json
    assert not aircraft.exists()
    first = flightbag("sync", ground, aircraft, "--mission", NORTH.id, "--json").json
    assert (first["copied"], first["bytes"]) == (dry["copied"], dry["bytes"])
    again = flightbag("sync", ground, aircraft, "--mission", NORTH.id, "--json").json
    assert (again["copied"], again["destinations"][0]["unchanged"]) == (0, [NORTH.id])
    only = flightbag("sync", ground, aircraft, "--mission", SOUTH.id, "--mission", SOUTH.id, "--json").json
    assert only["destinations"][0]["missions"] == [SOUTH.id]
    assert only["present"] > 0
    assert (aircraft / "log").read_bytes().count(b"received") == 2
    assert not (aircraft / "index").exists()


def test_it_sums_up_what_it_copies_as_often_for_many_objects_as_for_few(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sum for each object made the first copy of 100,000 objects quadratic: minutes of nothing but adding."""
    sums: list[int] = []
    whole = SyncPlan.bytes

    def counting(plan: SyncPlan) -> int:
        sums.append(len(plan.missing))
        return int(whole.__get__(plan))

    monkeypatch.setattr(SyncPlan, "bytes", property(counting))
    counts = []
    for target, missions in ((tmp_path / "few", ("--mission", SOUTH.id)), (tmp_path / "many", ())):
        sums.clear()
        assert flightbag("sync", ground, target, *missions).status == 0
        counts.append((len(sums), max(sums)))
    assert counts[0][1] < counts[1][1]
    assert counts[0][0] == counts[1][0]


def test_no_look_is_not_told_as_no_object() -> None:
    """What the last sync saw whole was not counted: "0 already present" would be read as an empty stick."""
    plan = SyncPlan((), 0, (), (), (NORTH.id,), (), seen=(NORTH.id,))
    first, second = list(_lines(plan, [], [], dry_run=False))
    assert first == "copied 0 objects, 0 B; 0 looked at again, and present"
    assert second == f"unchanged, with objects as the last sync saw them: {NORTH.id}"


def test_many_missions_are_lines_of_a_terminal() -> None:
    missions = tuple(f"north-ridge-{number:03}" for number in range(100))
    one = SyncPlan(((NORTH.manifest_id, 1),), 0, (), (), (), ())
    assert next(_lines(one, [], [], dry_run=False)) == "copied 1 object, 1 B; 0 already present"
    for plan in (
        SyncPlan((), 0, (1, 2), (), missions, missions),
        SyncPlan((), 0, tuple(range(1, 100)), (), missions, (), seen=missions),
    ):
        lines = list(_lines(plan, [], [], dry_run=False))
        assert max(map(len, lines)) <= 78
        assert {name.strip(",") for line in lines for name in line.split()} >= {*missions, "roots", "1", "2"}


def test_it_writes_nothing_through_a_link_at_the_target(ground: Path, tmp_path: Path) -> None:
    aircraft, victim = tmp_path / "aircraft", tmp_path / "victim"
    assert flightbag("sync", ground, aircraft).status == 0
    publish(ground, later(NORTH))
    shutil.move(aircraft / "missions", victim)
    (aircraft / "missions").symlink_to(victim)
    before = listing(victim), (aircraft / "log").read_bytes()
    assert flightbag("sync", ground, aircraft).status != 0
    assert (listing(victim), (aircraft / "log").read_bytes()) == before


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "a link"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_source_that_is_not_whole_is_told_with_a_remedy_that_mends(
    made: Path, ground: Path, tmp_path: Path, damage: str, count: int
) -> None:
    path, targets = file_of(ground, NORTH.entry(CAMERA).id), sticks(tmp_path, count)
    if damage == "cut":
        overwrite(path, lambda data: data[:-1])
    elif damage == "flipped":
        flip(path, 1)
    else:
        path.unlink()
        if damage == "a link":
            path.symlink_to("/nowhere")
    said = flightbag("sync", ground, *targets)
    assert said.status != 0
    assert (said.out + said.err).count("flightbag sync --checksum` from a whole copy to the source") == count
    assert flightbag("sync", "--checksum", made, ground).status == 0
    assert flightbag("sync", ground, *targets).status == 0
    assert all(check(target, NORTH.id).go for target in targets)


class TestSeveral:
    def test_all_of_them_are_whole_each_with_what_it_lacked(self, ground: Path, tmp_path: Path) -> None:
        new, old, current = sticks(tmp_path, 3)
        flightbag("sync", ground, old, "--mission", NORTH.id)
        flightbag("sync", ground, current)
        ran = flightbag("sync", ground, new, old, current, "--json")
        assert ran.status == 0
        said = {one["target"]: one for one in ran.json["destinations"]}
        assert [said[str(stick)]["missions"] for stick in (new, old, current)] == [[NORTH.id, SOUTH.id], [SOUTH.id], []]
        assert ran.json["copied"] == sum(one["copied"] for one in said.values())
        assert said[str(current)]["copied"] == 0
        for stick in (new, old, current):
            assert check(stick, NORTH.id).go
            assert check(stick, SOUTH.id).go
            assert not audit(stick).findings

    def test_the_text_names_each(self, ground: Path, tmp_path: Path) -> None:
        ran = flightbag("sync", ground, *sticks(tmp_path, 2))
        lines = ran.out.splitlines()
        for stick in sticks(tmp_path, 2):
            at = lines.index(str(stick))
            assert lines[at + 1].startswith("  copied ")
        assert max(map(len, lines)) <= max(80, len(str(tmp_path)) + 20)

    FAILURES: dict[str, tuple[int, Callable[[Path], object], Callable[[Path], object]]] = {  # noqa: RUF012 - a table
        "something else lies there": (
            2,
            lambda stick: (stick.mkdir(), (stick / "photo.jpg").touch()),
            lambda stick: (stick / "photo.jpg").unlink(),
        ),
        "not mounted": (3, lambda stick: None, lambda stick: stick.parent.mkdir()),
        "a file of it is a folder": (
            1,
            lambda stick: (make_store(stick, NORTH), shutil.rmtree(stick / "missions"), (stick / "missions").touch()),
            lambda stick: ((stick / "missions").unlink(), (stick / "missions").mkdir()),
        ),
    }

    @pytest.mark.parametrize("failure", FAILURES)
    def test_one_that_fails_stops_no_other_and_is_named_with_what_to_do(
        self, ground: Path, tmp_path: Path, failure: str
    ) -> None:
        status, breaks, mends = self.FAILURES[failure]
        good, also, bad = *sticks(tmp_path, 2), tmp_path / "mount" / "bad"
        if failure != "not mounted":
            bad.parent.mkdir()
        breaks(bad)
        ran = flightbag("sync", ground, good, bad, also, "--json")
        assert ran.status == status, ran.out
        assert ran.json["failed"] == [str(bad)]
        (said,) = [one for one in ran.json["destinations"] if one["target"] == str(bad)]
        assert said["error"]["message"]
        assert str(bad) in ran.err
        for stick in (good, also):
            assert check(stick, NORTH.id).go
            assert check(stick, SOUTH.id).go
        text = flightbag("sync", ground, good, bad, also)
        assert "FAILED: " in text.out[text.out.index(str(bad)) :]
        assert "1 of 3 targets failed" in text.err
        # The remedy: mend it, and sync again.
        mends(bad)
        assert flightbag("sync", ground, good, bad, also).status == 0
        assert check(bad, NORTH.id).go

    def test_where_all_fail_none_is_said_to_be_whole(self, ground: Path, tmp_path: Path) -> None:
        ran = flightbag("sync", ground, tmp_path / "a" / "x", tmp_path / "b" / "x")
        assert (ran.status, "2 of 2" in ran.err, "whole" in ran.err) == (3, True, False)

    @pytest.mark.parametrize("pair", [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "./a/../a"), ("a", "linked/a")])
    def test_no_two_are_one_or_lie_in_one_another(self, ground: Path, tmp_path: Path, pair: tuple[str, str]) -> None:
        (tmp_path / "linked").symlink_to(tmp_path)
        ran = flightbag("sync", ground, *(f"{tmp_path}/{name}" for name in pair))
        assert (ran.status, "give each target once" in ran.err) == (2, True)
        assert not (tmp_path / "a").exists()

    def test_a_damaged_object_of_the_source_stops_those_that_lack_it(self, ground: Path, tmp_path: Path) -> None:
        whole, lacks = sticks(tmp_path, 2)
        flightbag("sync", ground, whole)
        (path := file_of(ground, NORTH.entry(CAMERA).id)).chmod(0o644)
        path.write_bytes(bytes(path.stat().st_size))
        ran = flightbag("sync", ground, whole, lacks, "--json")
        assert (ran.status, ran.json["failed"]) == (1, [str(lacks)])
        assert ran.json["destinations"][1]["error"]["kind"] == "bit-flip"
        assert os.listdir(lacks / "missions") == []

    def test_clean_and_dry_run_are_for_each(self, ground: Path, tmp_path: Path) -> None:
        for stick in sticks(tmp_path, 2):
            flightbag("sync", ground, stick)
            (stick / ".DS_Store").touch()
        dry = flightbag("sync", ground, *sticks(tmp_path, 2), "--clean", "--dry-run", "--json").json
        assert [one["removed"] for one in dry["destinations"]] == [[".DS_Store"]] * 2
        assert all((stick / ".DS_Store").exists() for stick in sticks(tmp_path, 2))
        flightbag("sync", ground, *sticks(tmp_path, 2), "--clean")
        assert not any((stick / ".DS_Store").exists() for stick in sticks(tmp_path, 2))


def test_what_json_prints_is_one_document(ground: Path, tmp_path: Path) -> None:
    ran = program("flightbag", "sync", ground, *sticks(tmp_path, 2), "--json")
    assert (ran.status, ran.err) == (0, "")
    assert {one["target"] for one in json.loads(ran.out)["destinations"]} == set(map(str, sticks(tmp_path, 2)))
