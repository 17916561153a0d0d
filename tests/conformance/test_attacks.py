"""Every attack of the list is refused, each with its own kind, and what was not touched is GO."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import attacks
from tests.conformance.attacks import GO, Attack, every, groups, looked, main, takeoff
from tests.support.missions import FACTS

ROWS = every()
# How many attacks there are: a lower number is one that went missing.
ATTACKS = 1156


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that does not stay: the stores of all attacks together are large."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize("row", [row for row in ROWS if row.refusal != GO], ids=str)
def test_refused(row: Attack, folder: Path) -> None:
    assert row.run(folder) == row.refusal


@pytest.mark.parametrize("row", [row for row in ROWS if row.refusal == GO], ids=str)
def test_what_is_whole_is_go(row: Attack, folder: Path) -> None:
    assert row.run(folder) == GO


def test_no_attack_went_missing() -> None:
    assert sum(row.refusal != GO for row in ROWS) >= ATTACKS
    assert max(Counter(map(str, ROWS)).values()) == 1


@pytest.mark.parametrize("group", groups())
def test_every_group_has_its_original(group: str) -> None:
    refusals = {row.name: row.refusal for row in ROWS if row.group == group}
    assert refusals["the-original"] == GO
    assert set(refusals.values()) != {GO}


def test_a_judge_that_hangs_is_found_out(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def waits(_shown: object, _folder: Path) -> str:
        time.sleep(2)
        return GO

    monkeypatch.setattr(attacks, "SECONDS", 0.05)
    monkeypatch.setattr(attacks, "GROUPS", {"x": (waits, list)})
    with pytest.raises(TimeoutError):
        Attack("x", "waits", GO, None).run(folder)


def test_memory_and_files_must_agree(folder: Path) -> None:
    said = iter(["A missing", "B missing"])
    with pytest.raises(AssertionError):
        takeoff(attacks.scene(), folder, look=lambda _evidence, _scene: next(said))


def test_too_much_memory_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = attacks.scene()
    assert attacks.measured(scene.evidence, scene) == looked(scene.evidence, scene) == GO
    monkeypatch.setattr(attacks, "MEMORY", 1000)
    with pytest.raises(AssertionError):
        attacks.measured(scene.evidence, scene)


def test_the_program_prints_names_kinds_and_their_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = Attack("pinned", "good", GO, attacks.STEP_2)
    bad = Attack("pinned", "bad", "pinned bad-envelope", b"")
    gone = Attack("ref", "gone", "A missing", attacks.scene(mission=FACTS.id + "-2"))
    monkeypatch.setattr(attacks, "every", lambda: [good, bad, gone])
    assert main() == 0
    assert capsys.readouterr().out.splitlines() == [
        "pinned/good  GO",
        "pinned/bad   pinned bad-envelope",
        "ref/gone     A missing",
        "2 attacks, 1 controls, 0 of them not as they must be",
    ]
    crash = Attack("pinned", "crash", "pinned bad-envelope", 1)
    monkeypatch.setattr(attacks, "every", lambda: [Attack("pinned", "passes", "pinned threshold", good.shown), crash])
    assert main() == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert all("WRONG" in line for line in lines)
    assert last == "2 attacks, 0 controls, 2 of them not as they must be"
