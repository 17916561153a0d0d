"""A seeded sample of the drill (`make drill` runs all of it), and the proof that the drill notices a loss."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from store.disk.durable import Disk
from tests.faults import drill
from tests.faults.damages import CASES, mended_by_command
from tests.faults.disks import Medium
from tests.faults.drill import ERRORS, READ_ERRORS, crash_states, faults
from tests.faults.kills import kill_builds, kill_syncs
from tests.faults.scenarios import NEW, SCENARIOS, SHARED
from tests.support.stores import REPOSITORY_ROOT, file_of, flip, publish

NAMES = list(SCENARIOS)
# Of these, which take many steps, a smaller sample.
LONG = {name: 8 if name.startswith("unpack") else 3 for name in NAMES if name.startswith(("unpack", "repair"))}


@pytest.mark.parametrize("name", NAMES)
def test_no_crash_state_loses_anything(name: str) -> None:
    parts = 31 * LONG.get(name, 1)
    tally = crash_states(name, seed=1, part=NAMES.index(name) % parts, parts=parts, subsets=3)
    assert tally.losses == []
    assert tally.states > 0


def test_no_crash_state_around_one_syncfs_loses_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many files and folders are one barrier on the file systems that are known."""

    def one_call(top: Path, visit: Callable[[Medium], None]) -> Medium:
        return Medium(top, visit, at_once=True)

    monkeypatch.setattr(drill, "Medium", one_call)
    tally = crash_states("publication with reuse", seed=1, part=0, parts=8, subsets=3)
    assert tally.losses == []
    assert tally.states > 0


@pytest.mark.parametrize("name", NAMES)
def test_no_failing_call_loses_anything(name: str) -> None:
    number, few = NAMES.index(name), LONG.get(name, 1)
    wrote = faults(name, ERRORS[number % len(ERRORS)], part=number % 11, parts=23 * few)
    read = faults(name, READ_ERRORS[number % len(READ_ERRORS)], reading=True, part=number % 29, parts=61 * few)
    assert wrote.losses + read.losses == []
    assert wrote.faults + read.faults > 0


def test_no_kill_loses_anything() -> None:
    for kill in (kill_builds, kill_syncs):
        killed, losses, _ = kill(1, 3)
        assert (killed, losses) == (3, [])


@pytest.mark.parametrize("name", list(CASES)[::8])
def test_a_damage_is_named_and_mended_by_the_programs(tmp_path: Path, name: str) -> None:
    assert mended_by_command(name, tmp_path) == []


def test_damages_of_every_documented_kind() -> None:
    text = (REPOSITORY_ROOT / "store" / "FORMAT.md").read_text()
    section = text[text.index("## 8 ") : text.index("## 9 ")]
    table = re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE)
    # What an aircraft has still to prove, and what was withdrawn, is no damage: no repair can do it.
    assert {case.kind for case in CASES.values()} == set(table) - {"unproven", "withdrawn"}


@pytest.mark.parametrize("deaf", ["sync", "sync-directory"])
def test_a_barrier_that_is_left_out_is_a_loss(monkeypatch: pytest.MonkeyPatch, deaf: str) -> None:
    def deaf_medium(top: Path, visit: object) -> Medium:
        return Medium(top, visit, (deaf,))  # type: ignore[arg-type]

    monkeypatch.setattr(drill, "Medium", deaf_medium)
    assert crash_states("publication with reuse", seed=1, part=0, parts=3, subsets=2).losses


def test_a_change_to_another_object_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A publication that hurts a mission published before."""

    def careless(folder: Path, disk: Disk) -> None:
        publish(folder / "store", NEW, disk=disk)
        flip(file_of(folder / "store", SHARED), 1)

    scenario = replace(SCENARIOS["publication with reuse"], run=careless)
    monkeypatch.setitem(SCENARIOS, "careless", scenario)
    assert faults("careless", ERRORS[0], part=5, parts=40).losses


def test_the_states_are_those_that_are_said(tmp_path: Path) -> None:
    """All kept, all lost, each alone, the last write torn and without its bytes, and the random ones."""
    top = tmp_path / "top"
    top.mkdir()
    medium = Medium(top)
    medium.make_directory(str(top / "a"))
    fd = medium.create(str(top / "a" / "x"))
    medium.write(fd, b"0" * 10_000, str(top / "a" / "x"))
    names = [what.split(":")[0] for what, _ in medium.cuts(Random(1), 20)]
    assert names == ["all kept", "all lost", "lost", "lost", "lost", "torn", "zeros", *["some lost"] * 20]
    trees = dict(medium.cuts(Random(1), 0))
    assert trees["all kept"] == {"a": {"x": b"0" * 10_000}}
    assert trees["all lost"] == {}
    assert {len(tree["a"]["x"]) for what, tree in trees.items() if what.startswith("torn")} == {4096}  # type: ignore[index, call-overload]
    medium.sync_file(fd, str(top / "a" / "x"))
    assert dict(medium.cuts(Random(1), 0))["all lost"] == {}, "a file that is synced has no name yet"
    medium.sync_directory(str(top / "a"))
    medium.sync_directory(str(top))
    assert [what for what, _ in medium.cuts(Random(1), 20)] == ["all kept"], "nothing is pending"
    medium.rename(str(top / "a" / "x"), str(top / "y"))
    states = [tree for _, tree in medium.cuts(Random(1), 0)]
    assert {"a": {}} in states, "gone from its old name and not under its new one"
    assert {"a": {"x": b"0" * 10_000}, "y": b"0" * 10_000} in states
