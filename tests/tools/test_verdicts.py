"""Verdicts as a crew sees them: the words of a reason, who signed, what would judge the rest, the sum, the colours."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from store.takeoff.mission import Verdict
from tests.support.commands import flightbag, too_wide
from tests.support.missions import FACTS, ISSUE, ROOT, flight, key, sign_root
from tests.support.stores import copy_of, file_of, flip, make_store
from tests.support.terminal import at_terminal
from tools import render
from tools.verdicts import print_verdicts

PILOT = key("pilot").public
NAMED = replace(ROOT, names=((PILOT, "Pia of the ridge"),))
ENDLESS = replace(ISSUE, expires_at=None)
NORTH, SOUTH = (
    flight(root=NAMED, issue=ENDLESS, mission=replace(FACTS, id=f"{name}-ridge")) for name in ("north", "south")
)
SIGNED_BY = f"signed by  {PILOT.kid.hex()[:12]} (Pia of the ridge)"


@pytest.fixture(scope="module")
def _first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verdicts") / "desk"
    folder.mkdir()
    root = sign_root(NAMED, "root-a")
    make_store(folder / "store", NORTH, SOUTH, root=root)
    (folder / "pinned").write_bytes(root)
    return folder


@pytest.fixture
def desk(_first: Path, tmp_path: Path) -> Path:
    return copy_of(_first, tmp_path / "desk")


def damage(desk: Path) -> None:
    """Damage what south alone needs: its manifest."""
    flip(file_of(desk / "store", SOUTH.manifest_id), at=-1)


def verify(desk: Path, *more: object) -> tuple[object, ...]:
    return "verify", desk / "store", *more, "--trust", desk / "pinned"


def test_a_go_says_who_signed_and_what_would_judge_the_rest(desk: Path) -> None:
    out = flightbag(*verify(desk, NORTH.id)).out
    assert "\nGO  north-ridge" in out
    assert SIGNED_BY in out
    said = " ".join(out.split())
    for what in ("aircraft (--aircraft)", "host class (--host)", "flight (--flight)", "rollback (--state)"):
        assert what in said
    assert "expiry: the mission never expires -> valid_for in the mission file" in said
    assert "not judged aircraft" not in flightbag(*verify(desk, NORTH.id, "--aircraft", "uav-07")).out
    assert too_wide(flightbag(*verify(desk, NORTH.id), columns=80)) == []
    value = flightbag(*verify(desk, NORTH.id, "--json")).json["missions"][0]
    assert value["signers"] == [{"kid": PILOT.kid.hex(), "name": "Pia of the ridge"}]


def test_a_reason_says_what_its_letter_means(desk: Path) -> None:
    damage(desk)
    out = flightbag(*verify(desk, SOUTH.id)).out
    assert "  A, ref and manifest: bit-flip  manifest\n" in out
    assert "  E, this flight: wrong-flight " in flightbag(*verify(desk, NORTH.id, "--flight", "another")).out
    assert "  A, ref and manifest: missing  " in flightbag(*verify(desk, "nowhere")).out
    text = flightbag("verify", "--help").out
    assert all(re.search(rf"\b{letter} (the|whether|every)\b", text) for letter in render.STEPS)


def test_several_verdicts_are_summed_up(desk: Path) -> None:
    assert flightbag(*verify(desk)).out.splitlines()[-1] == "2 GO"
    damage(desk)
    ran = flightbag(*verify(desk))
    assert (ran.status, ran.out.splitlines()[-1]) == (1, "1 GO, 1 NO-GO: south-ridge")
    assert "1 GO" not in flightbag(*verify(desk, NORTH.id)).out
    then = flightbag(*verify(desk, "--at", str(int(time.time()))))
    assert then.out.splitlines()[-1] == "1 WOULD HAVE BEEN GO, 1 NO-GO: south-ridge"


def test_what_could_not_be_checked_is_counted_apart() -> None:
    from store.findings import Finding

    def no_go(name: str, *, unread: bool) -> Verdict:
        return Verdict(name, (Finding("unreadable", "x", step="F", unreadable=unread),), None)

    bad = [no_go(f"m{number}", unread=number < 2) for number in range(8)]
    line = "6 NO-GO, 2 NO-GO (could not check everything): m0, m1, m2, m3, m4, 3 more"
    assert render.summary(bad) == line


def test_colours_and_rules_are_for_a_terminal(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the installed program: the streams that escape what is foreign let through what this program paints."""
    damage(desk)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    status, seen = at_terminal(*verify(desk))
    assert status == 1
    head = re.search("\x1b\\[1;32m(GO  north-ridge[^\x1b]*)\x1b\\[0m\n", seen)
    assert head is not None, seen
    rule = "=" * len(head[1])
    assert f"\x1b[1;32m{rule}\x1b[0m\n{head[0]}\x1b[1;32m{rule}\x1b[0m\n" in seen
    assert "\x1b[1;31mNO-GO  south-ridge\x1b[0m\n" in seen
    assert "\x1b[1;31m1 GO, 1 NO-GO: south-ridge\x1b[0m\n" in seen
    assert "\\x1b" not in seen
    monkeypatch.setenv("NO_COLOR", "1")
    status, seen = at_terminal(*verify(desk))
    assert (status, "\x1b[1;3" in seen, "=" * 18 + "\nNO-GO  south-ridge\n" in seen) == (1, False, True), seen


def test_a_hostile_name_paints_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    print_verdicts([Verdict("a\x1b[2J\nGO  b", (), None)])
    out = capsys.readouterr().out
    assert ("\x1b[2J" in out, len(out.splitlines())) == (False, 3)
