"""`flightbag sync` to another machine and back, as a user types it, over a real sshd."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from store.remotes.ssh import FarVerdict, Verdicts
from tests.support.commands import BIN, Ran, flightbag
from tests.support.missions import ISSUE, flight
from tests.support.sshd import Sshd, needs_sshd, running
from tests.support.stores import CAMERA, SOUTH, check, file_of, flip, listing, make_store
from tools.remotes import status_of_verdicts, verdict_lines, verdicts_json
from tools.status import NO, OK, UNKNOWN

LASTING = flight(issue=replace(ISSUE, expires_at=None))


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_store(tmp_path / "source", LASTING, SOUTH)


@pytest.mark.parametrize(
    ("verdict", "status", "whole", "line"),
    [
        (FarVerdict((), (), unknown=False), OK, True, "verified there: north"),
        (FarVerdict((), ("expired",), unknown=False), OK, True, "whole there, and yet NO-GO: north: expired"),
        (FarVerdict(("bit-flip",), (), unknown=False), NO, False, "NOT whole there: north: bit-flip"),
        (FarVerdict(("unreadable",), (), unknown=True), UNKNOWN, False, "could NOT be verified there: north: unrea"),
        (FarVerdict((), (), unknown=True), UNKNOWN, False, "could NOT be verified there: north"),
    ],
)
def test_status_text_and_json_say_the_same(verdict: FarVerdict, status: int, whole: bool, line: str) -> None:
    verdicts = Verdicts({"north": verdict})
    assert status_of_verdicts(verdicts) == status
    assert any(text.startswith(line) for text in verdict_lines(verdicts))
    (value,) = verdicts_json(verdicts)["missions"].values()
    assert (value["whole"], value["could_not_look"]) == (whole, verdict.unknown)


def sync(sshd: Sshd, *args: object) -> Ran:
    return flightbag("sync", *args, env={"PATH": sshd.path})


@needs_sshd
class TestSsh:
    def test_there_with_a_verdict_and_back(self, source: Path, tmp_path: Path, sshd: Sshd) -> None:
        sshd.put("flightbag", f'exec {BIN}/flightbag "$@"')
        there, back, stick = tmp_path / "there", tmp_path / "back", tmp_path / "stick"
        ran = sync(sshd, source, f"hangar:{there}", "--dry-run")
        assert ran.status == 0, ran.err
        assert not there.exists()
        ran = sync(sshd, source, stick, f"hangar:{there}")
        assert ran.status == 0, ran.out + ran.err
        assert f"verified there: {LASTING.id}, {SOUTH.id}" in ran.out
        assert f"NO-GO: {SOUTH.id}: the mission expired" in ran.out
        for folder in (there, stick):
            assert check(folder, SOUTH.id).go
        before = listing(there)
        ran = sync(sshd, source, f"hangar:{there}", "--json")
        assert (ran.status, ran.json["copied"], ran.json["destinations"][0].get("verified")) == (0, 0, None)
        assert listing(there) == before
        ran = sync(sshd, f"hangar:{there}", back, "--json")
        assert (ran.status, ran.json["destinations"][0]["missions"]) == (0, [LASTING.id, SOUTH.id])
        assert check(back, SOUTH.id).go
        flip(file_of(there, SOUTH.entry(CAMERA.replace("camera", "other")).id))
        ran = sync(sshd, source, f"hangar:{there}", "--checksum", "--json")
        assert (ran.status, ran.json["copied"]) == (0, 1)
        assert ran.json["destinations"][0]["verified"]["missions"][SOUTH.id]["whole"]

    def test_a_wrong_byte_that_the_medium_there_kept(self, source: Path, tmp_path: Path, sshd: Sshd) -> None:
        broken = file_of(tmp_path / "there", LASTING.entry(CAMERA).id)
        sshd.put("flightbag", f'printf x | dd of="{broken}" conv=notrunc 2>/dev/null; exec {BIN}/flightbag "$@"')
        ran = sync(sshd, source, f"hangar:{tmp_path}/there", "--mission", LASTING.id)
        assert ran.status == 1
        assert f"NOT whole there: {LASTING.id}" in ran.out
        assert "sync again with --checksum" in ran.out
        sshd.put("flightbag", f'exec {BIN}/flightbag "$@"')
        assert sync(sshd, source, f"hangar:{tmp_path}/there", "--mission", LASTING.id, "--checksum").status == 0

    def test_without_flightbag_there(self, source: Path, tmp_path: Path, sshd: Sshd) -> None:
        (sshd.bin / "flightbag").unlink(missing_ok=True)
        ran = sync(sshd, source, f"hangar:{tmp_path}/there")
        assert (ran.status, "not verified there: flightbag is not installed on hangar" in ran.out) == (0, True)
        sshd.put("flightbag", "exit 3")
        ran = sync(sshd, source, f"hangar:{tmp_path}/there", "--checksum")
        assert (ran.status, "could NOT be verified there" in ran.out) == (3, True)

    def test_one_host_that_fails_stops_no_folder(self, source: Path, tmp_path: Path, sshd: Sshd) -> None:
        sshd.know("")
        ran = sync(sshd, source, f"hangar:{tmp_path}/there", tmp_path / "stick")
        sshd.know("host")
        assert ran.status == 3
        assert "host key" in ran.out
        assert check(tmp_path / "stick", SOUTH.id).go

    def test_nothing_is_there(self, tmp_path: Path, sshd: Sshd) -> None:
        ran = sync(sshd, f"hangar:{tmp_path}/nowhere", tmp_path / "back")
        assert ran.status == 3
        assert "does not exist" in ran.err
        assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("hangar:store", "a", "b"), "to one folder"),
        (("hangar:store", "harbour:store"), "to one folder"),
        (("source", "hangar:store", "--clean"), "--clean"),
        (("source", "-oProxyCommand=x:store"), "has no option -o"),
        (("source", "a@-oProxyCommand=x:store"), "no name of a host"),
    ],
)
def test_refused(source: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], words: str) -> None:
    monkeypatch.chdir(source.parent)
    ran = flightbag("sync", *args)
    assert ran.status == 2
    assert words.lower() in ran.err.lower()
